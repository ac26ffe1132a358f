# SPDX-License-Identifier: MIT
"""Random graphs lower to plans that say what networkx says."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowq import DAG, Flow, FlowQ, chain, group
from flowq.errors import CycleError
from flowq.lower import lower
from flowq.message import decode_template, nodes_of
from flowq.plan import Bits, Kind, Plan, indexes

q = FlowQ("graphs", "memory://")


@q.task
def step(*values: Any) -> Any: ...


@q.flow
def around(*values: Any) -> Any:
    """A flow that takes whatever is piped into it, or mapped over."""
    return step(step(*values), step.s(list(values)))


Edges = dict[int, list[tuple[int, bool]]]
"""For each node the nodes above it, and whether the edge carries a value."""


@st.composite
def dags(draw: st.DrawFn, size: int = 12) -> tuple[Edges, list[int]]:
    n = draw(st.integers(1, size))
    edges: Edges = {
        i: draw(
            st.lists(
                st.tuples(st.integers(0, i - 1), st.booleans()),
                max_size=4,
                unique_by=lambda e: e[0],
            )
        )
        if i
        else []
        for i in range(n)
    }
    return edges, draw(st.permutations(range(n)))


def as_dag(edges: Edges, order: list[int]) -> DAG:
    """Write it with names, in any order: names may come later."""
    dag = DAG()
    for i in order:
        values = [dag[f"n{p}"] for p, value in edges[i] if value]
        dag.add(
            step.s(*values), name=f"n{i}", after=[f"n{p}" for p, value in edges[i] if not value]
        )
    return dag


def as_signatures(edges: Edges) -> Any:
    """Write it with signatures as arguments; the ends together in a group."""
    made: dict[int, Any] = {}
    for i, above in edges.items():
        signature = step.s(*(made[p] for p, value in above if value)).options(name=f"n{i}")
        made[i] = signature.after(*(made[p] for p, value in above if not value))
    followed = {p for above in edges.values() for p, _ in above}
    return step.s([made[i] for i in made if i not in followed]).options(name="end")


def as_flow(edges: Edges, order: list[int]) -> Any:
    """Write it as a function; edges of order are said last, in any order."""

    def shape() -> Any:
        made: dict[int, Any] = {}
        for i, above in edges.items():
            values = [made[p] for p, value in above if value]
            made[i] = step.options(name=f"n{i}")(*values)
        for i in order:
            for p, value in edges[i]:
                if not value:
                    made[p] >> made[i]
        followed = {p for above in edges.values() for p, _ in above}
        ends = {f"n{i}": made[i] for i in made if i not in followed}
        return next(iter(ends.values())) if len(ends) == 1 else ends

    return Flow(q, shape, {"name": "dag"}).build()


def oracle(edges: Edges) -> nx.DiGraph[str]:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(f"n{i}" for i in edges)
    graph.add_edges_from((f"n{p}", f"n{i}") for i, above in edges.items() for p, _ in above)
    return graph


def plan_of(composition: Any) -> Plan:
    plan = lower(composition._graph(), q)
    check(plan)
    return plan


def check(plan: Plan) -> None:
    """What holds for every plan."""
    owned: dict[int, set[int]] = {}
    assert len({r.name for r in plan.rows}) == len(plan.rows)
    for i, row in enumerate(plan.rows):
        if i:
            owned.setdefault(row.owner, set()).add(i)
            assert row.owner < i and plan.rows[row.owner].kind is Kind.EXPANSION
        for parent in indexes(row.parents):
            assert parent < i and plan.rows[parent].owner == row.owner
            above = plan.rows[parent]
            follows = parent in set(indexes(row.follows))
            assert i in set(indexes(above.followers if follows else above.children))
        for child in indexes(row.children):
            assert i in set(indexes(plan.rows[child].parents))
        for follower in indexes(row.followers):
            assert i in set(indexes(plan.rows[follower].follows))
        assert {*indexes(row.follows)} <= {*indexes(row.parents)}
        around = {*indexes(row.parents)}
        at = row.owner
        while at < i and at:
            around |= {*indexes(plan.rows[at].parents)}
            at = plan.rows[at].owner
        assert {*indexes(row.reads)} <= around
        if row.message is not None:
            named = {n for b in row.message.bindings for n in nodes_of(b.value)}
            assert named == {*indexes(row.reads)}
            assert row.message.id == plan.id + i.to_bytes(4, "big")
        assert row.rule.c == (0 if row.bits & Bits.RACE else plan.parent_count(i))
    for i, row in enumerate(plan.rows):
        inside = owned.get(i, set())
        assert row.inner == len(inside)
        assert {*indexes(row.entries)} == {k for k in inside if not plan.rows[k].parents}
        if row.kind is Kind.EXPANSION:
            assert set(nodes_of(decode_template(row.value))) <= inside


@given(dags())
@example(({0: []}, [0]))
@example(({0: [], 1: [(0, True)], 2: [(0, False)], 3: [(1, True), (2, True)]}, [3, 1, 2, 0]))
def test_a_dag_has_the_edges_that_networkx_sees(drawn: tuple[Edges, list[int]]) -> None:
    edges, order = drawn
    expected = oracle(edges)
    dag = as_dag(edges, list(order))

    plan = plan_of(dag)

    names = [r.name for r in plan.rows]
    found = {(names[p], r.name) for r in plan.rows for p in indexes(r.parents)}
    assert set(names[1:]) == set(expected) and found == set(expected.edges)
    entries = {names[i] for i in indexes(plan.rows[0].entries)}
    assert entries == {n for n, d in expected.in_degree() if d == 0}
    place = {name: i for i, name in enumerate(names)}
    assert all(place[a] < place[b] for a, b in expected.edges)
    assert set(dag.graph.edges) == set(expected.edges)
    ends = {names[i] for i in nodes_of(decode_template(plan.rows[0].value))}
    assert ends == {n for n, d in expected.out_degree() if d == 0}


@given(dags())
def test_a_flow_gives_the_plan_of_the_dag_that_it_describes(drawn: tuple[Edges, list[int]]) -> None:
    """The third law, but for the order in which equal nodes were written."""
    edges, order = drawn

    as_function, step_by_step = plan_of(as_flow(edges, order)), plan_of(as_dag(edges, list(edges)))

    assert as_function.name == step_by_step.name
    assert rows(as_function) == rows(step_by_step)


@given(dags())
def test_signatures_as_arguments_give_the_same_graph(drawn: tuple[Edges, list[int]]) -> None:
    edges, _ = drawn

    plan = plan_of(as_signatures(edges))

    expected = oracle(edges)
    expected.add_edges_from([(n, "end") for n, d in expected.out_degree() if d == 0])
    names = [r.name for r in plan.rows]
    found = {(names[p], r.name) for r in plan.rows for p in indexes(r.parents)}
    assert sorted(names[1:]) == sorted(expected) and found == set(expected.edges)


@given(dags(), st.data())
def test_an_edge_that_closes_a_ring_is_a_cycle(
    drawn: tuple[Edges, list[int]], data: st.DataObject
) -> None:
    edges, order = drawn
    expected = oracle(edges)
    below = data.draw(st.integers(0, len(edges) - 1))
    above = data.draw(st.sampled_from(sorted({f"n{below}"} | nx.ancestors(expected, f"n{below}"))))
    dag = as_dag(edges, list(order))
    dag.edge(f"n{below}", above)

    with pytest.raises(CycleError) as caught:
        plan_of(dag)

    spelled = str(caught.value).partition(": ")[2].split(" -> ")
    expected.add_edge(f"n{below}", above)
    assert spelled[0] == spelled[-1] and len(spelled) > 1
    assert nx.is_path(expected, spelled)


compositions = st.recursive(
    st.builds(lambda: step.s()) | st.builds(lambda: around.s()),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda xs: chain(*xs)),
        st.lists(inner, max_size=3).map(lambda xs: group(xs)),
        st.tuples(inner, inner).map(lambda xy: xy[0] >> xy[1]),
        st.tuples(inner, st.integers(0, 3)).map(lambda xn: xn[0].map(range(xn[1]))),
        inner.map(lambda x: chain(x).options(priority=1)),
        inner.map(lambda x: around.s(x)),
        inner.map(lambda x: x | around.each()),
        st.tuples(inner, st.lists(inner, max_size=2)).map(lambda xy: step.s(xy[0], xy[1])),
    ),
    max_leaves=8,
)


@given(compositions)
def test_whatever_is_nested_gives_a_plan_that_holds_together(composition: Any) -> None:
    plan_of(composition)


@given(st.lists(st.tuples(st.sampled_from("|>"), compositions), min_size=2, max_size=5), st.data())
def test_composition_is_associative(steps: list[tuple[str, Any]], data: st.DataObject) -> None:
    """However a line of steps is put in brackets, the plan is the same."""

    def join(left: Any, link: str, right: Any) -> Any:
        return left | right if link == "|" else left >> right

    def bracket(line: list[tuple[str, Any]]) -> Any:
        if len(line) == 1:
            return line[0][1]
        cut = data.draw(st.integers(1, len(line) - 1))
        return join(bracket(line[:cut]), line[cut][0], bracket(line[cut:]))

    from_left = steps[0][1]
    for link, part in steps[1:]:
        from_left = join(from_left, link, part)

    one, other = plan_of(from_left), plan_of(bracket(steps))

    assert rows(one) == rows(other)


def rows(plan: Plan) -> list[Any]:
    """A plan without ids."""
    return [
        (
            *(getattr(r, f) for f in r.__struct_fields__ if f != "message"),
            r.message and (r.message.task, r.message.payload, r.message.bindings),
        )
        for r in plan.rows
    ]
