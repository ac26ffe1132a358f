# SPDX-License-Identifier: MIT
"""Policies, handlers and optional values where maps, flows, branches and returned graphs meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from flowq import DAG, Flow, FlowQ, branch, chain, group, optional
from flowq.errors import Failure, GraphError
from flowq.fragment import expand_map
from flowq.lower import lower
from flowq.message import decode_message, encode_message
from flowq.plan import INNER, Kind, NodeRow, Phase, indexes, relocate
from flowq.states import Counts, State, verdict
from tests.unit.staged import Stage, states

app = FlowQ("mixed", "memory://")
CALLS: list[Any] = []
BROKEN = [False]


@app.task(name="give")
def give(x: Any = None) -> Any:
    CALLS.append(("give", x))
    return x


@app.task(name="odd")
def odd(x: int) -> int:
    if not x % 2:
        raise ValueError(f"{x} is even")
    return x


@app.task(name="pair")
def pair(x: Any = None, y: Any = None) -> Any:
    return (x, y)


@app.task(name="numbers")
def numbers(n: int) -> list[int]:
    return list(range(n))


@app.task(name="mirror")
def mirror(x: Any) -> Any:
    return ("mirror", x)


@app.task(name="excuse")
def excuse(failure: Any) -> Any:
    return f"excuse for {failure.node}"


@app.task(name="alert")
def alert(failure: Failure) -> None:
    CALLS.append(("alert", failure.node, failure.args))


@app.task(name="cleanup")
def cleanup() -> None:
    CALLS.append(("cleanup",))


@app.task(name="grow")
def grow(x: Any) -> Any:
    return odd.s(x).options(fallback=excuse.s(), on_error=alert.s())


@app.task(name="fall")
def fall(x: Any) -> Any:
    steps = chain(odd.s(x) if x else flaky.s(x), give.s())
    return steps.on_error(alert.s()).finally_(cleanup.s())


@app.task(name="flaky")
def flaky(x: Any = None) -> Any:
    if BROKEN[0]:
        raise ValueError("broken")
    return x


@app.flow(name="inner")
def inner(x: Any) -> Any:
    return pair(x, y=odd(2).options(default="even"))


@app.flow(name="careful")
def careful(x: Any) -> Any:
    known = give("known")
    first = odd(x).options(fallback=known).on_error(alert.s())
    return pair(first, odd.options(default=[0])(x))


@app.flow(name="plain")
def plain(x: Any) -> Any:
    return inner(optional(odd(x), default="none"))


@app.flow(name="arms")
def arms(x: Any) -> Any:
    seen = give(x)
    risky = odd(x).options(name="risky")
    return branch(
        seen,
        {
            1: lambda: odd(2).options(default="instead"),
            2: lambda: give(optional(risky, default="none")),
            3: lambda: odd(4).on_error(alert.s()),
            4: lambda: inner(x),
        },
    ).options(default="no arm")


class TestInFlows:
    """What calls in a flow say of their nodes."""

    def test_nodes_have_policies_and_may_fall_back_to_others(self, stage: Stage) -> None:
        assert stage.value(careful.build(3)) == (3, 3)
        run = stage.run(careful.build(2))

        assert (run.state, run.get()) == ("success", ("known", [0]))
        assert stage.told("alert") == []

    def test_an_optional_value_goes_through_a_flow(self, stage: Stage) -> None:
        assert stage.value(plain.build(2)) == ("none", "even")
        assert stage.value(plain.build(3)) == (3, "even")
        assert stage.value(inner.s(optional(odd.s(2), default=5))) == (5, "even")

    @pytest.mark.parametrize("known", [True, False])
    def test_a_mapped_flow_has_them_in_each_item(self, stage: Stage, known: bool) -> None:
        run = stage.run(careful.s().map([1, 2] if known else give.s([1, 2])))

        assert run.get() == [(1, 1), ("known", [0])]


class TestInBranches:
    """In arms, and of branches."""

    @pytest.mark.parametrize(
        ("x", "value"),
        [(1, "instead"), (2, "none"), (3, "no arm"), (4, (4, "even")), (5, "no arm")],
    )
    def test_arms_and_branches_have_policies(self, stage: Stage, x: int, value: Any) -> None:
        assert stage.value(arms.build(x)) == value
        assert len(stage.told("alert")) == (x == 3)

    def test_a_branch_falls_back(self, stage: Stage) -> None:
        by = branch(give.s(3), {1: give.s(1)}).options(fallback=excuse.s(), name="by")

        run = stage.run(by | give.s())

        assert run.get() == "excuse for by"
        assert states(run)["by/fallback"] == "success"


class TestInMaps:
    """What stands inside items, and what items take from outside."""

    def mapped(self, item: Any, known: bool, values: Sequence[int] = (1, 2)) -> Any:
        return item.map(list(values) if known else give.s(list(values)))

    @pytest.mark.parametrize("known", [True, False])
    def test_steps_of_an_item_have_alarms_and_fallbacks(self, stage: Stage, known: bool) -> None:
        item = chain(odd.s().options(fallback=mirror), odd.s().on_error(alert.s()), give.s())

        run = stage.run(self.mapped(item, known, [1, 2]).options(items="keep") | give.s())

        first, second = run.get()
        assert (first, type(second)) == (1, Failure)
        assert stage.told("alert") == [("alert", "odd[1]/odd-2", (("mirror", 2),))]
        found = states(run)
        assert found["odd[0]/odd-2/on_error/alert"] == "skipped"
        assert found["odd[1]/odd/fallback"] == "success"

    @pytest.mark.parametrize("known", [True, False])
    def test_an_item_may_read_what_is_missing(self, stage: Stage, known: bool) -> None:
        missing = odd.s(2)

        items = self.mapped(pair.s(y=optional(missing, default="none")), known)

        assert stage.value(items | give.s()) == [(1, "none"), (2, "none")]

    @pytest.mark.parametrize("known", [True, False])
    def test_an_item_may_fall_back_to_what_stands_outside(self, stage: Stage, known: bool) -> None:
        dag = DAG()
        known_node = dag.add(give.s({"x": 7}), name="outside")
        items = dag.add(self.mapped(odd.s().options(fallback=known_node["x"]), known), name="items")
        dag.returns(items)

        assert stage.value(dag) == [1, 7]

    @pytest.mark.parametrize("known", [True, False])
    def test_maps_in_maps_have_each_their_own_words(self, stage: Stage, known: bool) -> None:
        item = odd.options(fallback=mirror, on_error=alert.s()).each()
        rows = [[1, 2], [4]]

        items = (give.s() | item).map(rows if known else give.s(rows)).options(name="m")
        run = stage.run(items | give.s())

        assert run.get() == [[1, ("mirror", 2)], [("mirror", 4)]]
        assert states(run)["m[1]/odd[0]/fallback"] == "success"
        assert states(run)["m[1]/odd[0]/on_error/alert"] == "skipped"

    def test_elements_may_be_missing(self, stage: Stage) -> None:
        items = pair.s().map([optional(odd.s(2), default="none"), give.s(1)])

        assert stage.value(items | give.s()) == [("none", None), (1, None)]


class TestWhatTasksReturn:
    """Graphs that come only when the run runs."""

    def test_a_task_alone_that_returns_one_with_an_alarm(self, stage: Stage) -> None:
        with_fallback = stage.run(grow(2))
        assert with_fallback.get() == "excuse for odd"

        CALLS.clear()
        failed = stage.run(fall(2))
        assert failed.state == "failed"
        assert stage.told("alert") == [("alert", "odd/odd", (2,))]
        assert stage.told("cleanup") == [("cleanup",)]

    def test_one_that_stands_in_a_map(self, stage: Stage) -> None:
        run = stage.run(numbers.s(2) | grow.each() | give.s())

        assert run.get() == ["excuse for grow[0]/odd", 1]


RETRIED: dict[str, Any] = {
    "graph": chain(flaky.s(1).on_error(alert.s()), give.s())
    .on_failure(alert.s())
    .finally_(cleanup.s()),
    "fallback": flaky.s(1).options(fallback=flaky.s(2)) | give.s(),
    "known map": flaky.options(on_error=alert.s(), fallback=flaky.s(5)).s().map([1, 2]) | give.s(),
    "open map": numbers.s(2)
    | flaky.options(on_error=alert.s(), fallback=flaky.s(5)).each()
    | give.s(),
    "returned": fall.s(0) | give.s(),
}


@pytest.mark.parametrize("name", RETRIED)
def test_a_retry_runs_again_what_failed_and_makes_what_follows_anew(
    stage: Stage, name: str
) -> None:
    BROKEN[0] = True
    run = stage.run(RETRIED[name])
    assert run.state == "failed"
    BROKEN[0] = False

    run.retry()
    stage.calls.clear()
    stage.run(run)

    assert run.state == "success"
    assert stage.told("alert") == []
    assert {s for n, s in states(run).items() if "/on_" in n or "fallback" in n} <= {"skipped"}
    assert len(stage.told("cleanup")) == (name in ("graph", "returned"))


COMPOSITIONS: dict[str, Any] = {
    "policies": chain(odd.s(1).options(default=1), group(odd.s(), give.s())),
    "handlers": chain(odd.s(1).on_error(alert.s() | give.s()), give.s()).finally_(
        cleanup.s() >> cleanup.s()
    ),
    "nested": chain(
        chain(odd.s(2), give.s()).options(fallback=excuse.s() | give.s(), name="part"),
        chain(give.s(), odd.s()).on_failure(alert.s()).options(name="other", on_error=alert.s()),
    ),
    "maps": odd.options(fallback=mirror, on_error=alert.s())
    .s()
    .map([1, 2, 3])
    .options(items="keep")
    | give.s(),
    "chains": chain(odd.s().on_error(alert.s()), give.s().options(fallback=mirror))
    .map([1, 2])
    .options(fallback=excuse.s(), on_error=alert.s())
    | give.s(),
    "flows": careful.s().options(on_error=alert.s(), finally_=cleanup.s()).map([1, 2]),
    "open": numbers.s(3)
    | odd.options(fallback=mirror, on_error=alert.s() | give.s()).each()
    | give.s(),
    "optional": pair.s(optional(odd.s(2)), odd.s(1)),
    "branch": arms.build(1),
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_plan_says_the_same_from_both_ends_of_what_it_says(name: str) -> None:
    plan = lower(COMPOSITIONS[name]._graph(), app)

    assert_sound(plan.rows)


@pytest.mark.parametrize("item", [odd.s(), chain(odd.s(), give.s()), careful.s()])
def test_items_of_a_list_that_comes_later_are_as_those_of_a_known_one(item: Any) -> None:
    item = item.options(on_error=alert.s(), fallback=excuse.s())
    known = lower((item.map([1, 2]).options(tolerate=0.5, name="m") | give.s())._graph(), app)
    listed = item.map(give.s()).options(tolerate=0.5, name="m")
    later = lower((listed | give.s())._graph(), app)
    (carrier,) = [r.message for r in later.rows if r.message and r.message.task == "flowq.map"]

    made = expand_map(
        decode_message(encode_message(carrier)), [[1, 2]], [], app, max_width=9, tolerate=0.5
    )

    at = [r.name for r in known.rows].index("m")
    rows = [r for r in known.rows if r.name.startswith("m")]
    moved = relocate(made, at=at, base=at + 1)
    assert [shape(r) for r in moved[1:]] == [shape(r) for r in rows[1:]]
    face, whole = moved[0], rows[0]
    assert (face.inner, face.body, face.later) == (whole.inner, whole.body, whole.later)
    assert (face.tolerate, face.entries) == (whole.tolerate, whole.entries) == (1, ((at + 1, 2),))
    assert all(r.owner != INNER for r in moved)


def shape(row: NodeRow) -> Any:
    fields = [getattr(row, f) for f in row.__struct_fields__ if f != "message"]
    return fields, row.message and (row.message.task, row.message.index)


def assert_sound(rows: Sequence[NodeRow]) -> None:
    """What rows say of each other agrees, and what can run comes to its turn."""
    assert all(row is not None for row in rows)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    for at, row in enumerate(rows):
        out = {*indexes(row.children), *indexes(row.lenient)}
        assert all(at in set(indexes(rows[i].parents)) for i in out)
        for p in indexes(row.parents):
            above = {*indexes(rows[p].children), *indexes(rows[p].lenient)}
            assert at in above
            assert rows[p].owner == row.owner
            assert p < at
        inside = [i for i, r in enumerate(rows) if r.owner == at]
        assert inside == list(indexes(row.body))
        body = [i for i in inside if rows[i].phase == Phase.BODY]
        if row.kind != Kind.TASK:
            assert row.inner == len(body)
            assert list(indexes(row.entries)) == [i for i in body if not rows[i].parents]
        assert_turns(rows, row, inside)
        count = len(list(indexes(row.parents)))
        never = verdict(row.rule, count, Counts(count)), verdict(row.rule, count, Counts(0, count))
        assert State.QUEUED in never


def assert_turns(rows: Sequence[NodeRow], row: NodeRow, inside: list[int]) -> None:
    """All that runs later is in one group, and the groups are in order."""
    grouped = [i for group in row.later for i in indexes(group.body)]
    assert sorted(grouped) == [i for i in inside if rows[i].phase != Phase.BODY]
    assert [g.phase for g in row.later] == sorted(g.phase for g in row.later)
    for turn in row.later:
        nodes = list(indexes(turn.body))
        assert turn.inner == len(nodes)
        assert all(rows[i].phase == turn.phase for i in nodes)
        alarms = any(rows[p].phase == Phase.BODY for i in nodes for p in indexes(rows[i].parents))
        entries = [] if alarms else [i for i in nodes if not rows[i].parents]
        assert list(indexes(turn.entries)) == entries
        assert bool(turn.value) == (turn.phase == Phase.FALLBACK)


def test_signatures_in_options_are_not_forgotten_ones() -> None:
    def build() -> Any:
        return odd(1).options(fallback=mirror.s(2), on_error=[alert.s(), alert.s()])

    graph: Any = Flow(app, build, {"name": "built"}).build()

    assert graph.graph.number_of_nodes() == 1


def test_a_name_of_what_runs_later_is_no_name_of_a_node() -> None:
    dag = DAG()
    dag.add(chain(give.s(1), give.s()), name="finally")
    dag.options(finally_=give.s())

    with pytest.raises(GraphError, match="'finally' is the name"):
        dag.start()
