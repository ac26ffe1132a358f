# SPDX-License-Identifier: MIT
"""A function whose body calls tasks says what a run is made of."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from flowq import DAG, Flow, FlowQ, Run, chain, group
from flowq.errors import BindingError, ConfigError, GraphError, TaskDefinitionError
from flowq.lower import lower
from flowq.message import decode_template, nodes_of
from flowq.plan import Plan, indexes
from tests.unit.hand import Hand

app = FlowQ("flows", "memory://")


@app.task(name="extract")
def extract(day: str) -> Any:
    return [f"{day}-a", f"{day}-b"]


@app.task(name="clean")
def clean(path: Any, times: int = 1) -> Any:
    return f"{path}{'!' * times}"


@app.task(name="report")
def report(rows: Any, day: str = "") -> Any:
    return {"rows": rows, "day": day}


@app.task(name="ping")
def ping() -> Any:
    return "pong"


@app.flow(name="shop.tidy")
def tidy(path: Any, times: int = 2) -> Any:
    return clean(clean(path), times=times)


@app.flow(name="shop.nightly")
def nightly(day: str, fast: bool = False) -> Any:
    parts = extract(day)
    if not fast:
        parts >> ping()
    return report([clean(parts[0]), tidy(parts[1])], day=day)


def plan_of(composition: Any) -> Plan:
    return lower(composition._graph(), app)


def names(plan: Plan) -> list[str]:
    return [row.name for row in plan.rows[1:]]


def parents(plan: Plan, name: str) -> list[str]:
    (row,) = [r for r in plan.rows if r.name == name]
    return [plan.rows[i].name for i in indexes(row.parents)]


def shape(plan: Plan) -> list[Any]:
    """A plan without ids and names."""
    return [
        (
            *(getattr(r, f) for f in r.__struct_fields__ if f not in ("name", "message")),
            r.message and (r.message.task, r.message.payload, r.message.bindings, r.message.plans),
        )
        for r in plan.rows
    ]


def valued(composition: Any) -> Any:
    """Run it in this process and give its value."""
    with app.inline():
        return composition.start().get(timeout=10)


# --- what a call is ------------------------------------------------------------------------------


def test_a_call_in_a_flow_is_a_node_and_passing_it_on_is_an_edge() -> None:
    plan = plan_of(nightly.build("mon"))

    assert sorted(names(plan)) == [
        "clean",
        "extract",
        "ping",
        "report",
        "tidy",
        "tidy/clean",
        "tidy/clean-2",
    ]
    assert parents(plan, "report") == ["clean", "tidy"]
    assert parents(plan, "ping") == parents(plan, "tidy") == ["extract"]


def test_a_flow_runs_and_its_value_is_what_the_returned_node_gives(q: FlowQ, hand: Hand) -> None:
    count = q.task(name="count")(lambda n: n + 1)

    @q.flow(name="twice")
    def twice(n: int) -> Any:
        return count(count(n))

    run = twice(3)
    hand.work()

    assert isinstance(run, Run) and run.get(timeout=10) == 5
    assert [n.name for n in run.nodes()] == ["count", "count-2"]


def test_a_flow_in_a_flow_may_give_back_what_it_was_given(q: FlowQ, hand: Hand) -> None:
    count = q.task(name="count")(lambda n: n + 1)
    show = q.task(name="show")(repr)

    @q.flow(name="deepest")
    def deepest(n: Any, also: Any) -> Any:
        return {"same": n, "other": also["x"], "more": count(n)}

    @q.flow(name="deeper")
    def deeper(n: Any) -> Any:
        return deepest(n, {"x": n})

    @q.flow(name="outer")
    def outer(n: int) -> Any:
        return show(deeper(count(n)))

    run = outer(1)
    hand.work()

    assert run.get(timeout=10) == repr({"same": 2, "other": 2, "more": 3})


def test_the_value_may_be_a_structure_of_nodes_and_constants() -> None:
    @app.flow(name="structure")
    def structure(day: str) -> Any:
        first = clean(day)
        return {"a": [first, (clean(first), 1)], "day": day, "none": None}

    @app.flow(name="nothing")
    def nothing() -> None:
        ping()

    @app.flow(name="empty")
    def empty(xs: list[str]) -> Any:
        return [clean(x) for x in xs]

    assert valued(structure.build("m")) == {"a": ["m!", ("m!!", 1)], "day": "m", "none": None}
    assert valued(nothing.build()) is None
    assert valued(empty.build([])) == []


def test_nodes_are_found_in_lists_tuples_and_dicts() -> None:
    @app.flow(name="containers")
    def containers() -> Any:
        a, b = clean("a"), clean("b")
        return report({"x": [a, (b, report(a)["rows"])]})

    value = valued(containers.build())

    assert value["rows"] == {"x": ["a!", ("b!", "a!")]}


def test_a_name_that_was_said_is_the_nodes_also_when_it_is_said_later() -> None:
    @app.flow(name="named")
    def named() -> Any:
        first = clean.options(name="first")("x")
        second = clean(first).options(name="second")
        clean(second)
        return report(second, day="m")

    plan = plan_of(named.build())

    assert names(plan) == ["first", "second", "clean-2", "report"]
    assert parents(plan, "report") == ["second"]


def test_order_in_a_flow_is_an_edge_without_a_value() -> None:
    @app.flow(name="ordered")
    def ordered(day: str) -> None:
        a, b, c = clean("a"), clean("b"), clean("c")
        [a, b] >> c
        ping().after(c, extract(day))
        c["x"] >> report(1)

    plan = plan_of(ordered.build("m"))

    assert parents(plan, "clean-3") == ["clean", "clean-2"]
    assert sorted(parents(plan, "ping")) == ["clean-3", "extract"]
    assert parents(plan, "report") == ["clean-3"]
    assert all(not r.message.bindings for r in plan.rows if r.message and r.name != "report")


def test_a_map_over_a_known_list_is_one_node_with_its_items_in_the_plan() -> None:
    @app.flow(name="mapped")
    def mapped(xs: list[str]) -> Any:
        return report(clean.map(xs, times=2), clean.starmap([("s", 1)])[0])

    plan = plan_of(mapped.build(["a", "b"]))

    assert names(plan)[:3] == ["clean", "clean[0]", "clean[1]"]
    assert valued(mapped.build(["a", "b"])) == {"rows": ["a!!", "b!!"], "day": "s!"}


def test_a_map_over_what_another_task_returns_is_one_node() -> None:
    @app.flow(name="fanned")
    def fanned(day: str) -> Any:
        return report(clean.map(extract(day)), day=day)

    assert names(plan_of(fanned.build("m"))) == ["extract", "clean", "report"]
    assert valued(fanned.build("m"))["rows"] == ["m-a!", "m-b!"]


# --- starting, building, composing ---------------------------------------------------------------


def test_building_starts_nothing_and_shows_the_graph() -> None:
    graph = nightly.build(day="mon")

    assert set(graph.graph) == {"extract", "ping", "clean", "tidy", "report"}
    assert graph.graph.nodes["tidy"]["kind"] == "graph"
    assert "extract" in graph.mermaid() and "tidy" in graph.mermaid()
    assert len(graph) == 5 and "clean" in graph


def test_arguments_are_checked_against_the_flows_own_signature() -> None:
    with pytest.raises(BindingError, match=r"flow shop.nightly: missing argument 'day'.*nightly\("):
        nightly()  # type: ignore[call-arg]
    with pytest.raises(BindingError, match=r"unexpected argument 'fats'; did you mean 'fast'"):
        nightly.build("mon", fats=True)  # type: ignore[call-arg]
    with pytest.raises(BindingError, match=r"it takes 2 positional arguments, but 3"):
        nightly.s("mon", True, 3)
    with pytest.raises(BindingError, match=r"nightly.s\(other.s"):
        nightly(extract.s("mon"))  # type: ignore[arg-type]


def test_a_flow_is_a_member_of_chains_and_groups() -> None:
    piped = extract.s("m") | group(tidy.s(), tidy.s(times=1)) | report.s()
    bound = tidy.s(clean.s("x"), times=3)

    assert valued(piped)["rows"] == ["['m-a', 'm-b']!!!", "['m-a', 'm-b']!!"]
    assert valued(bound) == "x!!!!!"
    assert valued(group([tidy.s("a"), tidy.s("b")])) == ["a!!!", "b!!!"]
    assert parents(plan_of(bound), "tidy") == ["clean"]


def test_a_pipe_fills_the_first_free_parameter_of_a_flow_with_or_without_a_default() -> None:
    twice = app.task(name="twice")(lambda: 2)

    assert valued(clean.s(2) | tidy.s(times=1)) == "2!!!"
    assert valued(twice.s() | tidy.s("x")) == "x!!!"
    with pytest.raises(BindingError, match=r"node 'tidy' \(flow shop.tidy\).*no parameter is free"):
        plan_of(clean.s("x") | tidy.s("y", 2))
    with pytest.raises(BindingError, match=r"flow shop.tidy\).*missing argument 'path'"):
        plan_of(group([tidy.s()]))


def test_a_flow_is_traced_once_for_all_items_of_a_map() -> None:
    calls = []

    @app.flow(name="traced")
    def traced(x: Any, suffix: Any = 1, *, day: str = "") -> Any:
        calls.append(x)
        return report([x, clean.map([x, "k"], times=suffix)], day=day)

    @app.flow(name="around")
    def around(day: str) -> Any:
        return report(traced.map(extract(day), day=day))

    assert valued(traced.s().map(["a"]))[0]["rows"] == ["a", ["a!", "k!"]]
    assert valued(traced.s(day="d").map(["a", "b"], [1, 2]))[1] == {
        "rows": ["b", ["b!!", "k!!"]],
        "day": "d",
    }
    assert [r["rows"][0] for r in valued(around.build("m"))["rows"]] == ["m-a", "m-b"]
    assert [r["rows"][0] for r in valued(extract.s("m") | traced.each())] == ["m-a", "m-b"]
    assert len(calls) == 4


def test_a_mapped_flow_takes_items_of_its_element() -> None:
    @app.flow(name="pair")
    def pair(row: Any) -> Any:
        return report(row["x"], day=row["names"][0])

    rows = [{"x": [i], "names": [str(i)]} for i in range(2)]
    give = app.task(name="give")(lambda: rows)

    expected = [{"rows": [0], "day": "0"}, {"rows": [1], "day": "1"}]
    assert valued(pair.s().map(rows)) == expected
    assert valued(give.s() | pair.each()) == expected
    with pytest.raises(GraphError, match="item 0, a dict, has no 'x'"):
        plan_of(pair.s().map([{"names": [""]}]))


def test_maps_of_flows_within_maps_of_flows_see_what_is_around_them() -> None:
    @app.flow(name="inmost")
    def inmost(x: Any, outer: Any = None) -> Any:
        return report([clean.s(x), clean.map(extract(outer), times=2)[0]], day=x)

    @app.flow(name="middle")
    def middle(x: Any) -> Any:
        return [inmost.map(["k", x], outer=x), inmost.map(extract(x), outer=x)]

    @app.flow(name="outmost")
    def outmost(day: str) -> Any:
        return {"known": middle.map(["u"]), "later": middle.map(extract(day))}

    def of(x: str, outer: str) -> Any:
        return {"rows": [f"{x}!", f"{outer}-a!!"], "day": x}

    def both(x: str) -> Any:
        return [[of("k", x), of(x, x)], [of(f"{x}-a", x), of(f"{x}-b", x)]]

    value = valued(outmost.build("m"))

    assert value == {"known": [both("u")], "later": [both("m-a"), both("m-b")]}


def test_an_item_of_a_mapped_flow_is_the_flow_itself() -> None:
    @app.flow(name="one-step", priority=4)
    def one_step(x: Any, also: Any = None) -> Any:
        return clean(x)

    @app.flow(name="same")
    def same(x: Any) -> Any:
        return x

    @app.flow(name="all-of-them")
    def all_of_them(day: str) -> Any:
        unread = ping()
        return [
            one_step.map(["a", "b"], also=unread),
            same.map([1, unread]),
            same.map(extract(day)),
        ]

    plan = plan_of(all_of_them.build("m"))

    assert [n for n in names(plan) if n.startswith("one-step")] == [
        "one-step",
        "one-step[0]",
        "one-step[1]",
        "one-step[0]/clean",
        "one-step[1]/clean",
    ]
    assert names(plan_of(tidy.s().map(["a"]))) == ["tidy[0]", "tidy[0]/clean", "tidy[0]/clean-2"]
    assert parents(plan, "one-step") == ["ping"]
    assert {r.message.priority for r in plan.rows if r.message and "[" in r.name} == {4}
    value = valued(all_of_them.build("m"))
    assert value == [["a!", "b!"], [1, "pong"], ["m-a", "m-b"]]


def test_what_a_mapped_flow_is_given_besides_is_made_once(q: FlowQ, hand: Hand) -> None:
    made = []
    make = q.task(name="make")(lambda: made.append(1) or len(made))
    add = q.task(name="add")(lambda a, b: a + b)

    @q.flow(name="both")
    def both(a: int, b: Any = 0) -> Any:
        return add(a, add.s(a, b))

    run = both.s(b=make.s()).map([10, 20]).start()
    hand.work()

    assert run.get(timeout=10) == [21, 41] and made == [1]


def test_a_dag_takes_a_flow_as_a_node_and_edges_to_its_parameters() -> None:
    dag = DAG("by-hand")
    dag.add(extract.s("m"))
    dag.add(tidy.s(), name="tidied")
    dag.edge(dag["extract"][1], "tidied", to="path")

    assert valued(dag) == "m-b!!!"
    assert parents(plan_of(dag), "tidied") == ["extract"]


def test_annotations_are_compared_through_the_parameters_of_a_flow() -> None:
    number = app.task(name="number")(_number)

    @app.flow(name="takes-int")
    def takes_int(n: int) -> Any:
        return number(n)

    @app.flow(name="takes-any")
    def takes_any(n: Any) -> Any:
        return number(n)

    for flow, said in ((takes_int, "node 'takes-int'"), (takes_any, "node 'number'")):
        around = app.flow(name=f"around-{flow.name}")(lambda flow=flow: flow(text_task()))
        with pytest.raises(BindingError, match=f"{said}.*takes int, and node 'text'.*gives str"):
            _ = around.build().graph


def _number(n: int) -> int:
    return n


@app.task(name="text")
def text_task() -> str:
    return ""


def test_tuples_that_cannot_be_unpacked_once_for_all_are_refused() -> None:
    with pytest.raises(GraphError, match=r"node 'tidy'.*differ in length.*built once for all"):
        plan_of(tidy.s().map([("a", 1), ("b",)]))
    with pytest.raises(GraphError, match=r"node 'tidy'.*map over several lists"):
        plan_of(extract.s("m") | tidy.s().starmap(extract.s("n")))


def test_options_of_a_flow_are_those_of_its_runs() -> None:
    @app.flow(name="opted", priority=3, result_ttl=60)
    def opted() -> Any:
        return ping()

    plain, said = plan_of(opted.build()), plan_of(opted.options(name="x", priority=7).build())
    composed = plan_of(opted.options(name="x").s())

    assert (plain.name, plain.result_ttl_ms, plain.rows[1].message.priority) == ("opted", 60_000, 3)  # type: ignore[union-attr]
    assert (said.name, said.rows[1].message.priority) == ("x", 7)  # type: ignore[union-attr]
    assert shape(composed) == shape(plain) and composed.name == "x"
    assert opted.options["priority"] == 3


def test_a_flow_within_another_is_a_node_with_its_own_name_and_priority() -> None:
    @app.flow(name="whole")
    def whole() -> None:
        tidy.options(name="one", priority=5)("a")
        tidy("b")

    plan = plan_of(whole.build())

    assert [n for n in names(plan) if "/" not in n] == ["one", "tidy"]
    priorities = {r.name: r.message.priority for r in plan.rows if r.message}
    assert (priorities["one/clean"], priorities["tidy/clean"]) == (5, 0)
    with pytest.raises(GraphError, match=r"result_ttl= speaks of the run.*test_flows"):
        app.flow(name="kept")(lambda: tidy.options(result_ttl=1)("a")).build()


def test_a_task_may_return_a_flow(q: FlowQ, hand: Hand) -> None:
    countdown = q.task(name="countdown")(lambda n: down.s(n - 1) if n else "done")

    @q.flow(name="down")
    def down(n: int) -> Any:
        return countdown(n)

    with q.inline():
        assert down(3).get(timeout=10) == "done"


def test_the_app_knows_its_flows_by_name() -> None:
    assert app.flows["shop.nightly"] is nightly and isinstance(nightly, Flow)
    assert nightly.__name__ == "nightly" and "nightly" in repr(nightly)
    with pytest.raises(TypeError):
        app.flows["x"] = nightly  # type: ignore[index]


class Named(FlowQ):
    """An app that is found by name."""

    def __reduce__(self) -> Any:
        return _named, ()


def _named() -> Any:
    return named_app


named_app = Named("named", "memory://")


def test_a_flow_travels_by_name() -> None:
    @named_app.flow(name="travels")
    def travels() -> None: ...

    assert pickle.loads(pickle.dumps(travels)) is travels


# --- declaring -----------------------------------------------------------------------------------


def test_what_cannot_be_a_flow_is_refused_where_it_is_declared() -> None:
    async def waits() -> None: ...

    def yields() -> Any:
        yield 1

    for func, said in (
        (waits, "async, but a flow awaits nothing"),
        (yields, "return a list of nodes"),
        (clean, "cannot be a flow"),
        (nightly, "cannot be a flow"),
        (3, "takes a function"),
        (lambda: None, "a lambda has no name"),
    ):
        with pytest.raises(TaskDefinitionError, match=said):
            app.flow(func)  # type: ignore[call-overload]
    with pytest.raises((RuntimeError, TaskDefinitionError)) as caught:  # Python wraps it until 3.12

        class Shop:
            @app.flow
            def buy(self) -> None: ...

    assert "stands in class" in str(caught.value.__cause__ or caught.value)


def test_a_name_that_is_taken_is_refused_as_for_tasks() -> None:
    with pytest.raises(TaskDefinitionError, match=r"a flow 'shop.nightly' already at .*test_flows"):
        app.flow(name="shop.nightly")(tidy.func)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retries": 3}, "option 'retries' does not go here"),
        ({"prority": 3}, "did you mean 'priority'"),
        ({"priority": 5_000}, "must lie between"),
        ({"name": "a b"}, "must be 1 to 200"),
    ],
)
def test_an_option_that_a_flow_does_not_have_is_an_error(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        app.flow(**options)(lambda: None)
    with pytest.raises(GraphError, match=said):
        nightly.options(**options)


def test_words_that_a_flow_does_not_have_are_answered() -> None:
    for word, said in (("graph", "build"), ("start", "call it"), ("apply_async", "options")):
        with pytest.raises(AttributeError, match=said):
            getattr(nightly, word)


# --- the same shape in every style ---------------------------------------------------------------


def test_a_flow_gives_the_plan_of_the_dag_the_chain_and_the_signatures() -> None:
    @app.flow(name="line")
    def line(day: str) -> Any:
        return report(clean(extract(day), times=2), day=day)

    dag = DAG("line")
    dag.add(extract.s("m"))
    dag.add(clean.s(dag["extract"], times=2))
    dag.add(report.s(dag["clean"], day="m"))

    plans = [
        plan_of(x)
        for x in (
            line.build("m"),
            line.s("m"),
            dag,
            chain(extract.s("m"), clean.s(times=2), report.s(day="m")),
            report.s(clean.s(extract.s("m"), times=2), day="m"),
        )
    ]

    assert len(plans[0].rows) == 4
    assert all(shape(p) == shape(plans[0]) for p in plans)


def test_a_flow_in_a_flow_gives_the_plan_of_a_dag_in_a_dag() -> None:
    @app.flow(name="outer-line")
    def outer_line() -> Any:
        return report(tidy("x"))

    inner, outer = DAG("tidy"), DAG("outer-line")
    inner.add(clean.s("x"))
    inner.add(clean.s(inner["clean"], times=2))
    outer.add(inner, name="tidy")
    outer.add(report.s(outer["tidy"]))

    assert shape(plan_of(outer_line.build())) == shape(plan_of(outer))
    assert shape(plan_of(tidy.s("x") | report.s())) == shape(plan_of(outer))


def test_every_plan_names_only_what_is_in_it() -> None:
    plan = plan_of(nightly.build("m"))

    for row in plan.rows:
        if row.value:
            assert set(nodes_of(decode_template(row.value))) <= set(range(len(plan.rows)))
