# SPDX-License-Identifier: MIT
"""What users write becomes the graph that they meant."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flowq import DAG, FlowQ, chain, chord, group
from flowq.errors import (
    BindingError,
    CycleError,
    GraphError,
    NodeUsedAsValue,
    TaskDefinitionError,
)
from flowq.habits import HABITS
from flowq.lower import lower
from flowq.message import Items, Mapping, Ref, Seq, decode_template
from flowq.plan import Kind, NodeRow, Plan, indexes

q = FlowQ("composing", "memory://")


@q.task
def load(day: str) -> Any: ...


@q.task
def clean(path: Any, strict: bool = False) -> Any: ...


@q.task
def add(a: Any, b: Any) -> Any: ...


@q.task
def total(rows: Any, day: str = "") -> Any: ...


@q.task
def ping() -> None: ...


def plan_of(composition: Any) -> Plan:
    return lower(composition._graph(), q)


def shape(plan: Plan) -> list[Any]:
    """A plan without ids and automatic names."""
    return [
        (
            row.kind,
            row.owner,
            row.rule,
            row.parents,
            row.children,
            row.reads,
            row.entries,
            row.inner,
            row.value,
            row.bits,
            row.message and (row.message.task, row.message.payload, row.message.bindings),
        )
        for row in plan.rows
    ]


def names(plan: Plan) -> list[str]:
    return [row.name for row in plan.rows]


def row(plan: Plan, name: str) -> NodeRow:
    (found,) = [r for r in plan.rows if r.name == name]
    return found


def parents(plan: Plan, name: str) -> list[str]:
    return [plan.rows[i].name for i in indexes(row(plan, name).parents)]


def args(plan: Plan, name: str) -> Any:
    message = row(plan, name).message
    assert message is not None
    return q.serializer.loads(message.payload)


def bound(plan: Plan, name: str) -> dict[Any, Any]:
    message = row(plan, name).message
    assert message is not None
    return {b.to: b.value for b in message.bindings}


# --- chain, |, >> --------------------------------------------------------------------------------


def test_a_pipe_fills_the_first_free_parameter_after_the_bound_ones() -> None:
    plan = plan_of(load.s("mon") | add.s(1))

    assert args(plan, "add") == ((1, None), {})
    assert bound(plan, "add") == {1: Ref(1)}


def test_a_pipe_leaves_parameters_that_are_bound_by_name() -> None:
    plan = plan_of(load.s("mon") | add.s(b=1) | total.s(day="mon"))
    by_name = plan_of(load.s("mon") | add.s(a=1))

    assert bound(plan, "add") == {0: Ref(1)}
    assert args(plan, "total") == ((None,), {"day": "mon"})
    assert bound(by_name, "add") == {"b": Ref(1)}


def test_a_pipe_into_a_task_without_a_free_parameter_says_to_write_order() -> None:
    with pytest.raises(BindingError, match=r"node 'ping'.*no parameter is free.*>>.*ping\(\)"):
        plan_of(load.s("mon") | ping.s())


def test_order_passes_no_value() -> None:
    plan = plan_of(load.s("mon") >> ping.s())

    assert parents(plan, "ping") == ["load"]
    assert row(plan, "ping").reads == ()
    assert bound(plan, "ping") == {}


@pytest.mark.parametrize(
    "write",
    [
        lambda a, b, c, d: chain(a, b) >> c | d,
        lambda a, b, c, d: (a | b) >> (c | d),
        lambda a, b, c, d: a | (b >> c) | d,
        lambda a, b, c, d: a | ((b >> c) | d),
        lambda a, b, c, d: chain(a | b >> c, d),
        lambda a, b, c, d: chain(chain(chain(a, b) >> c), chain(d)),
    ],
)
def test_it_does_not_matter_how_python_groups_a_pipeline(write: Any) -> None:
    dag = DAG()
    dag.add(load.s("mon"), name="a")
    dag.add(clean.s(dag["a"]), name="b")
    dag.add(load.s("tue"), name="c", after="b")
    dag.add(total.s(dag["c"]), name="d")

    plan = plan_of(write(load.s("mon"), clean.s(), load.s("tue"), total.s()))

    assert shape(plan) == shape(plan_of(dag))


def test_the_same_shape_gives_the_same_plan_however_it_is_written() -> None:
    dag = DAG()
    first, second = dag.add(load.s("a")), dag.add(load.s("b"))
    dag.add(total.s([first, second], day="x"))

    written = [
        group(load.s("a"), load.s("b")) | total.s(day="x"),
        [load.s("a"), load.s("b")] | total.s(day="x"),
        chord([load.s("a"), load.s("b")], total.s(day="x")),
        chord((load.s(x) for x in "ab"), total.s(day="x")),
        chain(group(load.s(x) for x in "ab"), total.s(day="x")),
        chain([load.s("a"), load.s("b")], total.s(day="x")),
        total.s([load.s("a"), load.s("b")], day="x"),
        total.s(group(load.s("a"), load.s("b")), day="x"),
        dag,
    ]

    assert all(shape(plan_of(w)) == shape(plan_of(dag)) for w in written)
    assert bound(plan_of(dag), "total") == {0: Items(1, 2)}


def test_named_chains_nest_as_deep_as_anyone_likes() -> None:
    nested = clean.s("a")
    for i in range(300):
        nested = chain(nested, clean.s()).options(name=f"n{i}")

    assert repr(nested) == "<chain <chain ...> | clean.s()>"
    assert (nested | total.s()).graph.number_of_nodes() == 2


def test_a_chain_takes_one_iterable_too() -> None:
    steps = [load.s("a"), clean.s()]

    assert shape(plan_of(chain(steps))) == shape(plan_of(chain(*steps)))
    with pytest.raises(GraphError, match="at least one"):
        chain()


def test_a_task_without_s_is_an_error_that_says_so() -> None:
    with pytest.raises(GraphError, match=r"write clean\.s\("):
        load.s("a") | clean  # type: ignore[operator]


# --- groups --------------------------------------------------------------------------------------


def test_a_value_that_is_piped_into_a_group_goes_to_each_member() -> None:
    plan = plan_of(load.s("a") | group(clean.s(), clean.s() | total.s()))

    assert [bound(plan, n) for n in ("clean", "clean-2")] == [{0: Ref(1)}, {0: Ref(1)}]
    assert bound(plan, "total") == {0: Ref(3)}


def test_a_member_is_a_place_of_its_own_and_an_argument_a_reference() -> None:
    step = load.s("a")

    members = plan_of(group([step, step]))
    arguments = plan_of(add.s(step, step))

    assert names(members) == ["", "load", "load-2"]
    assert names(arguments) == ["", "load", "add"]
    assert bound(arguments, "add") == {0: Ref(1), 1: Ref(1)}


def test_a_reference_finds_the_place_that_its_step_has() -> None:
    step = load.s("a")

    after = plan_of(step | clean.s() | add.s(step))
    before = plan_of(group(clean.s(step), step) | total.s())

    assert names(after) == ["", "load", "clean", "add"]
    assert bound(after, "add") == {0: Ref(1), 1: Ref(2)}
    assert sorted(names(before)) == ["", "clean", "load", "total"]


def test_members_of_an_argument_are_found_by_references_beside_it() -> None:
    step = load.s("a")

    plans = [
        plan_of(add.s(step, group(step, load.s("b")))),
        plan_of(add.s(group(step, load.s("b")), step)),
    ]

    assert [sorted(names(p)) for p in plans] == [["", "add", "load", "load-2"]] * 2


def test_between_two_groups_in_order_stands_one_join() -> None:
    many = plan_of(group(load.s(str(i)) for i in range(50)) >> [ping.s() for _ in range(50)])
    one = plan_of([load.s("a"), load.s("b")] >> ping.s())

    (join,) = [r for r in many.rows if r.kind is Kind.JOIN]
    assert sum(c for _, c in join.parents) == sum(c for _, c in join.children) == 50
    assert sum(c for r in many.rows for _, c in r.parents) == 100
    assert [r.kind for r in one.rows] == [Kind.EXPANSION] + [Kind.TASK] * 3


def test_a_join_does_not_stand_before_rules_that_count_parents() -> None:
    early = ping.s().options(trigger_rule="one_success")

    plan = plan_of(group(load.s("a"), load.s("b")) >> group(early, ping.s()))

    assert parents(plan, "ping") == ["load", "load-2"]
    assert row(plan, "ping").rule.a == 1
    assert parents(plan, "ping-2") == ["join"]


def test_an_empty_group_gives_an_empty_list_and_passes_order_on() -> None:
    callback = plan_of(group([]) | total.s())
    between = plan_of(load.s("a") >> group([]) | total.s())

    assert bound(callback, "total") == {0: Seq(())}
    assert callback.rows[0].entries == ((1, 1),)
    assert parents(between, "total") == ["load"]


def test_a_join_of_one_gets_a_list_of_one() -> None:
    plan = plan_of(group(load.s("a")) | total.s())

    assert bound(plan, "total") == {0: Items(1, 1)}


def test_members_of_a_started_group_are_one_node_each() -> None:
    whole = group(load.s("a") | clean.s(), group(load.s("b"), load.s("c")), ping.s())

    graph = whole._graph()
    plan = lower(graph, q)

    assert [n.name for n in graph.members or ()] == ["clean", "group", "ping"]
    assert [n.kind for n in graph.members or ()] == [Kind.TASK, Kind.EXPANSION, Kind.TASK]
    assert "group/load" in names(plan)


def test_groups_nest_as_lists_of_lists() -> None:
    plan = plan_of(group(group(load.s("a"), load.s("b")), load.s("c")) | total.s())

    assert bound(plan, "total") == {0: Seq((Items(1, 2), Ref(3)))}


# --- arguments -----------------------------------------------------------------------------------


def test_steps_within_lists_tuples_and_dicts_are_edges() -> None:
    one, two = load.s("a"), load.s("b")

    plan = plan_of(add.s([one, 5], {"x": (two, "y"), "z": object}))

    assert set(parents(plan, "add")) == {"load", "load-2"}
    found = bound(plan, "add")
    assert isinstance(found[0], Seq) and isinstance(found[1], Mapping)
    assert args(plan, "add")[2] == [object]


def test_an_item_of_a_value_is_an_edge_of_that_item() -> None:
    split = load.s("a")

    plan = plan_of(group(split["train"] | clean.s(), split["test"]["x"][0] | clean.s()))

    assert names(plan) == ["", "load", "clean", "clean-2"]
    assert bound(plan, "clean") == {0: Ref(1, ("train",))}
    assert bound(plan, "clean-2") == {0: Ref(1, ("test", "x", 0))}


def test_after_refers_and_passes_no_value() -> None:
    first = load.s("a")

    plan = plan_of(group(first, ping.s().after(first)))

    assert names(plan) == ["", "load", "ping"]
    assert parents(plan, "ping") == ["load"]


def test_a_value_cannot_be_piped_into_a_reference() -> None:
    split = load.s("a")

    with pytest.raises(GraphError, match="takes no input"):
        plan_of(load.s("b") | split["x"])


def test_a_step_inside_another_graph_cannot_be_reached_from_outside() -> None:
    inner = load.s("a")
    box = chain(inner, clean.s()).options(name="box")

    with pytest.raises(GraphError, match=r"'load'.*inside.*'box'"):
        plan_of(group(box, total.s(inner)) | total.s())


def test_what_is_only_referred_to_stands_where_all_its_readers_are() -> None:
    shared = load.s("a")
    dag = DAG("inner")
    dag.add(clean.s(shared), name="x")
    alone = DAG("alone")
    alone.add(clean.s(load.s("b")), name="y")

    plan = plan_of(group(dag, clean.s(shared), alone) | total.s())

    assert "load" in names(plan)
    assert "alone/load" in names(plan)
    assert parents(plan, "inner") == ["load"]
    assert row(plan, "inner/x").parents == () and row(plan, "inner/x").reads


# --- maps ----------------------------------------------------------------------------------------


def test_a_map_is_the_run_itself_and_its_items_are_named() -> None:
    plan = plan_of(clean.s().map(["a", "b"], strict=True))

    assert names(plan) == ["", "clean[0]", "clean[1]"]
    assert args(plan, "clean[1]") == (("b",), {"strict": True})
    assert decode_template(plan.rows[0].value) == Items(1, 2, True)
    assert [r.message and r.message.index for r in plan.rows] == [None, 0, 1]
    assert not any(r.bits for r in plan.rows)


def test_a_map_within_a_graph_is_one_parent() -> None:
    plan = plan_of(load.s("a") >> clean.s().map(["a", "b"]) | total.s())

    assert names(plan) == ["", "load", "clean", "clean[0]", "clean[1]", "total"]
    assert parents(plan, "total") == ["clean"] and row(plan, "total").rule.a == 1
    assert row(plan, "clean").entries == ((3, 2),) and row(plan, "clean").inner == 2
    assert row(plan, "clean[0]").owner == 2


def test_tuples_are_unpacked_where_there_is_more_than_one_free_parameter() -> None:
    assert args(plan_of(add.s().map([(1, 2)])), "add[0]") == ((1, 2), {})
    assert args(plan_of(add.s(1).map([(1, 2)])), "add[0]") == ((1, (1, 2)), {})
    assert args(plan_of(load.s().map([(1, 2)])), "load[0]") == (((1, 2),), {})
    assert args(plan_of(clean.s().map([(1, True)])), "clean[0]") == ((1, True), {})
    assert args(plan_of(add.s().starmap([[1, 2]])), "add[0]") == ((1, 2), {})
    plain = clean.s().map([(1, 2)]).options(unpack=False)
    assert args(plan_of(plain), "clean[0]") == (((1, 2),), {})
    with pytest.raises(GraphError, match="item 1 is a int"):
        plan_of(add.s().starmap([(1, 2), 3]))


def test_several_lists_are_zipped_strictly() -> None:
    plan = plan_of(add.s().map([1, 2], ["x", ("y", "z")]))

    assert args(plan, "add[1]") == ((2, ("y", "z")), {})
    with pytest.raises(GraphError, match="different lengths, 2, 3"):
        add.s().map([1, 2], [1, 2, 3])


@pytest.mark.parametrize("given", ["abc", b"abc", {"a": 1}, 7])
def test_one_value_is_not_a_list(given: Any) -> None:
    with pytest.raises(GraphError, match=r"one value|not a list"):
        load.s().map(given)


def test_an_empty_map_gives_an_empty_list() -> None:
    alone, within = plan_of(load.s().map([])), plan_of(load.s().map([]) | total.s())

    assert (alone.rows[0].inner, alone.rows[0].entries) == (0, ())
    assert decode_template(alone.rows[0].value) == Seq(())
    assert parents(within, "total") == ["load"]


def test_a_map_of_a_chain_makes_the_chain_for_each_item() -> None:
    plan = plan_of((clean.s() | total.s(day="x")).map(["a", "b"]) | total.s())

    assert names(plan) == [
        "",
        "clean",
        "clean[0]",
        "clean[1]",
        "clean[0]/clean",
        "clean[0]/total",
        "clean[1]/clean",
        "clean[1]/total",
        "total",
    ]
    assert args(plan, "clean[1]/clean") == (("b",), {})
    assert bound(plan, "clean[1]/total") == {0: Ref(6)}
    assert decode_template(row(plan, "clean[1]").value) == Ref(7)
    assert decode_template(row(plan, "clean").value) == Items(2, 2, True)


def test_maps_nest() -> None:
    inner = (clean.s() | total.s()).map([1, 2])
    plan = plan_of((load.s() >> inner).map(["a", "b"]))
    crossed = plan_of(add.s().map([1, 2]).map([10, 20]))

    assert args(plan, "load[1]/clean[0]/clean") == ((1,), {})
    assert parents(plan, "load[1]/clean") == ["load[1]/load"]
    assert args(crossed, "add[1]/add[0]") == ((1, 20), {})


def test_what_items_share_is_made_once() -> None:
    shared = load.s("a")

    plan = plan_of((add.s(shared) | clean.s()).map([1, 2]))

    assert names(plan).count("load") == 1
    assert parents(plan, "add") == ["load"]
    assert bound(plan, "add[1]/add") == {0: Ref(1)}


def test_steps_among_the_elements_are_edges() -> None:
    plan = plan_of(clean.s().map([load.s("a"), "b"]))

    assert parents(plan, "clean") == ["load"]
    assert bound(plan, "clean[0]") == {0: Ref(1)}
    assert bound(plan, "clean[1]") == {} and row(plan, "clean[1]").reads == ()


def test_a_trigger_rule_of_a_map_stands_in_a_join_before_it() -> None:
    late = ping.s() >> clean.s().map(["a"]).options(trigger_rule="all_done")

    plan = plan_of(load.s("x") >> late)

    assert parents(plan, "clean") == ["join"]
    assert row(plan, "join").rule.d > 1 and parents(plan, "join") == ["ping"]


# --- DAG -----------------------------------------------------------------------------------------


def test_a_dag_resolves_names_that_come_later() -> None:
    dag = DAG("etl")
    dag.add(total.s(day="x"), name="report", after=["check"])
    dag.edge("clean", "report", to="rows")
    dag.add(clean.s(dag["extract"]), name="clean", after="check", trigger_rule="all_done")
    dag.add(load.s("x"), name="extract")
    dag.add(ping.s(), name="check")

    plan = plan_of(dag)

    assert plan.name == "etl"
    assert names(plan) == ["", "extract", "check", "clean", "report"]
    assert set(parents(plan, "report")) == {"check", "clean"}
    assert bound(plan, "report") == {"rows": Ref(3)}
    assert decode_template(plan.rows[0].value) == Ref(4)


def test_the_value_of_a_dag_is_that_of_its_ends_or_what_it_returns() -> None:
    dag = DAG()
    dag.add(load.s("a"), name="a")
    dag.add(clean.s(dag["a"]), name="b")
    dag.add(clean.s(dag["a"]["k"]), name="c")

    ends = decode_template(plan_of(dag).rows[0].value)
    said = decode_template(plan_of(dag.returns(["a", dag["c"]])).rows[0].value)

    assert isinstance(ends, Mapping) and [v for _, v in ends.items] == [Ref(2), Ref(3)]
    assert said == Seq((Ref(1), Ref(3)))


def test_arrows_between_nodes_of_a_dag_add_edges_to_it() -> None:
    dag = DAG()
    a, b, c, d = (
        dag.add(x, name=n)
        for x, n in zip([load.s("a"), clean.s(), ping.s(), ping.s()], "abcd", strict=True)
    )

    a >> [c, d]
    [c, d] >> b
    a | b

    plan = plan_of(dag)
    assert set(parents(plan, "b")) == {"a", "c", "d"}
    assert bound(plan, "b") == {0: Ref(1)}


def test_a_dag_within_another_graph_is_one_node() -> None:
    dag = DAG("etl")
    dag.add(clean.s(), name="first")
    dag.add(total.s(dag["first"]), name="second")

    plan = plan_of(load.s("a") | dag | total.s())

    assert names(plan) == ["", "load", "etl", "etl/first", "etl/second", "total"]
    assert parents(plan, "etl") == ["load"] and row(plan, "etl/first").parents == ()
    assert bound(plan, "etl/first") == {0: Ref(1)}
    assert bound(plan, "total") == {0: Ref(2)}


def test_every_composition_can_be_a_node_of_a_dag() -> None:
    dag = DAG()
    dag.add(load.s("a") | clean.s(), name="chain")
    dag.add(group(load.s("b"), load.s("c")), name="group")
    dag.add(clean.s().map([1, 2]), name="map")
    dag.add(total.s([dag["chain"], dag["group"], dag["map"]]), name="end")

    plan = plan_of(dag)

    assert parents(plan, "end") == ["chain", "group", "map"]
    assert {"chain/clean", "group/load-2", "map[1]"} <= set(names(plan))


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (lambda d: d.add(load.s("a"), name="a"), "two nodes are named 'a'"),
        (lambda d: d.add(clean.s(d["aa"]), name="aaa"), "has no node 'aa'.*did you mean 'aaa'"),
        (lambda d: d.add(clean.s("x"), name="c", after="aa"), "has no node 'aa'"),
        (lambda d: d.edge("a", "nowhere"), "has no node 'nowhere'"),
        (lambda d: d.add(ping.s(), name="x/y"), "cannot be the name"),
        (lambda d: d.add(ping.s(), name="p", trigger_rule="at_least(2)"), "asks for 2 parents"),
    ],
)
def test_mistakes_in_a_dag_are_named(mistake: Any, text: str) -> None:
    dag = DAG()
    dag.add(load.s("a"), name="a")

    with pytest.raises(GraphError, match=text):
        mistake(dag)
        dag.graph  # noqa: B018


def test_a_parameter_that_is_bound_twice_by_edges_is_an_error() -> None:
    dag = DAG()
    dag.add(load.s("a"), name="a")
    dag.add(clean.s("x"), name="b")
    dag.add(clean.s(), name="c")
    dag.edge("a", "c", to="path")
    dag.edge("a", "later", to="path")
    dag.edge("a", "other", to="pth")

    with pytest.raises(BindingError, match=r"node 'c'.*'path' is bound twice, by two edges"):
        dag.edge("a", "c", to="path")
    with pytest.raises(BindingError, match=r"node 'b'.*'path' is bound twice"):
        dag.edge("a", "b", to="path")
    with pytest.raises(BindingError, match=r"node 'later'.*'path' is bound twice"):
        dag.add(clean.s(path="x"), name="later")
    with pytest.raises(BindingError, match=r"node 'c'.*unexpected argument 'pth'.*mean 'path'"):
        dag.edge("a", "c", to="pth")
    with pytest.raises(BindingError, match=r"node 'other'.*unexpected argument 'pth'"):
        dag.add(clean.s(), name="other")


@pytest.mark.parametrize(
    "name_it",
    [
        lambda name: DAG().add(ping.s(), name=name),
        lambda name: DAG(name),
        lambda name: ping.options(name=name),
        lambda name: ping.s().options(name=name),
        lambda name: (ping.s() >> ping.s()).options(name=name),
        lambda name: clean.s().map([1]).options(name=name),
        lambda name: DAG().add(ping.s(), name="a").options(name=name),
    ],
)
@pytest.mark.parametrize("name", ["a/b", "a[0]", ""])
def test_a_name_that_could_be_a_path_is_refused_where_it_is_given(name_it: Any, name: str) -> None:
    with pytest.raises(GraphError, match=f"name='{re.escape(name)}' (cannot|must)"):
        name_it(name)


def test_a_mention_of_a_node_that_a_dag_has_not_names_those_that_it_has() -> None:
    dag = DAG()
    dag.add(load.s("a"), name="extract")
    dag.add(clean.s(dag["zz"]), name="clean")

    with pytest.raises(GraphError, match="has no node 'zz'; there are 'extract', 'clean'"):
        dag.start()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: add.s(1, c=2), r"test_primitives\.add: unexpected argument 'c'; .*add\(a.*, b"),
        (lambda: add.s(1, a=2), "'a' is bound twice"),
        (lambda: add.s(1, 2, 3), "takes 2 positional arguments, but 3"),
        (lambda: add.s().map([1], c=3), "unexpected argument 'c'"),
        (lambda: add.s(load.s("x"), a=load.s("y")), "'a' is bound twice"),
    ],
)
def test_what_can_be_wrong_with_a_signature_is_said_at_once(make: Any, said: str) -> None:
    with pytest.raises(BindingError, match=said):
        make()
    assert [add.s().args, add.s(1).args, add.s(b=1).args] == [(), (1,), ()]  # more may come


def test_calling_a_step_says_how_it_starts() -> None:
    for step in (add.s(1, 2), add.s(1, 2) | clean.s(), group(ping.s()), DAG("d")):
        with pytest.raises(NodeUsedAsValue, match=r"is not called; \.start\(\)"):
            step()  # type: ignore[operator]
    with pytest.raises(TaskDefinitionError, match="takes a function"):
        q.task(name="x")(add.s(1, 2))


def test_what_has_no_task_starts_with_the_app_that_is_named() -> None:
    other = FlowQ("other", "memory://")

    with q.inline():
        rg = group([]).start(q)
        assert (rg.get(), len(rg), rg.state) == ([], 0, "success")
        assert (group([]) | group([])).start(q).get() == []
        assert ping.s().start(q).get() is None
    with pytest.raises(GraphError, match=r"'group' has no task.*\.start\(q\)"):
        group([]).start()
    for step in (add.s(1, 2), add.s(1, 2) | clean.s(), add.s(1).map([1])):
        with pytest.raises(GraphError, match=r"belongs to .*, and cannot be started with"):
            step.start(other)


def test_a_mistyped_keyword_of_a_dag_is_answered() -> None:
    dag = DAG()

    with pytest.raises(TypeError, match=r"DAG\.add has no argument 'nam'; did you mean 'name'"):
        dag.add(ping.s(), nam="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'task_id'; write name="):
        dag.add(ping.s(), task_id="x")  # type: ignore[call-arg]


def test_a_cycle_is_spelled_out() -> None:
    dag = DAG()
    dag.add(clean.s(dag["c"]), name="a")
    dag.add(clean.s(dag["a"]), name="b")
    dag.add(clean.s(dag["b"]), name="c")
    dag.add(load.s("x"), name="d")

    with pytest.raises(CycleError, match=r"(a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)$"):
        plan_of(dag)


def test_a_node_of_a_dag_means_nothing_outside_of_it() -> None:
    dag = DAG("one")
    dag.add(load.s("a"), name="a")

    with pytest.raises(GraphError, match="outside of it"):
        plan_of(clean.s(dag["a"]))


# --- values that are not known yet ---------------------------------------------------------------

STEPS = [load.s("a"), load.s("a") | clean.s(), load.s().map(["a"]), DAG("d")["x"]]


@pytest.mark.parametrize("step", STEPS, ids=repr)
@pytest.mark.parametrize(
    "use",
    [
        lambda n: [x for x in n],
        lambda n: f"{n}",
        lambda n: n == 3,
        lambda n: n + 1,
        lambda n: 1 < n,
        lambda n: n["a":"b"],
        lambda n: int(n),
        lambda n: __import__("os").fspath(n),
        lambda n: __import__("pickle").dumps(n),
        lambda n: 3 if n else 4,
        lambda n: len(n),
        lambda n: 3 in n,
        lambda n: n.columns,
    ],
)
def test_using_a_step_as_its_value_is_an_error(step: Any, use: Any) -> None:
    with pytest.raises(NodeUsedAsValue, match=r"not known|one item"):
        use(step)


def test_the_error_names_file_and_line() -> None:
    with pytest.raises(NodeUsedAsValue, match=r"test_primitives\.py, line \d+"):
        bool(load.s("a"))


def test_a_step_hidden_in_an_object_is_found_when_it_would_travel() -> None:
    class Box:
        inside = None

    box = Box()
    box.inside = load.s("a")  # type: ignore[assignment]

    with pytest.raises(Exception, match=r"node 'total'.*lists, tuples and dicts only"):
        plan_of(total.s(box))


@pytest.mark.parametrize("word", sorted(HABITS))
def test_habits_from_elsewhere_are_answered(word: str) -> None:
    for step in (load.s("a"), load.s("a") | clean.s(), group(load.s("a")), DAG()):
        if hasattr(type(step), word):
            continue
        with pytest.raises(AttributeError, match=f"has no '{word}'; "):
            getattr(step, word)
    assert not hasattr(load.s("a"), "__array__")


def test_an_element_that_does_not_fit_is_named_with_its_place() -> None:
    long = "x" * 500

    for make in (
        lambda: add.map([(1, 2), (long,)]),
        lambda: add.s().map([(1, 2), (long,)]).start(),
        lambda: add.starmap([(1, 2), (long,)]),
    ):
        with pytest.raises(BindingError, match=r"add\[1\], of \('xxx.*: missing argument 'b'") as e:
            make()
        assert len(str(e.value)) < 400
    with pytest.raises(BindingError, match=r"add\[0\], of \(1,\): missing argument 'b'"):
        add.map([(1,), (2,)])


def test_a_plain_call_with_a_step_says_to_compose() -> None:
    from flowq.calls import build_message

    with pytest.raises(BindingError, match=r"compose: total\.s\("):
        build_message(total, (load.s("a"),), {}, {})
