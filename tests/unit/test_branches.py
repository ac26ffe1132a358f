# SPDX-License-Identifier: MIT
"""One of several ways on, by a value that comes with the run."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest

from flowq import DAG, Flow, FlowQ, Run, branch, chain, group
from flowq.binding import parameter_name
from flowq.errors import (
    BindingError,
    BindingWarning,
    CycleError,
    Failure,
    GraphError,
    GroupError,
    NoArm,
    NodeUsedAsValue,
    NotProduced,
    Skip,
    TaskError,
)
from flowq.fragment import BRANCH, key_of
from flowq.lower import lower
from flowq.message import decode_message, encode_message
from flowq.plan import Plan, indexes

app = FlowQ("branches", "memory://")
CALLS: list[Any] = []


class Size(Enum):
    BIG = "big"
    SMALL = "small"


@app.task(name="kind")
def kind(x: Any) -> Any:
    CALLS.append(("kind", x))
    return "big" if len(str(x)) > 3 else "small"


@app.task(name="clean")
def clean(x: Any) -> Any:
    CALLS.append(("clean", x))
    return f"clean {x}"


@app.task(name="load")
def load(x: Any) -> Any:
    CALLS.append(("load", x))
    return f"load {x}"


@app.task(name="give")
def give(x: Any = None) -> Any:
    CALLS.append(("give", x))
    return x


@app.task(name="show")
def show(x: Any) -> str:
    return f"<{x}>"


@app.task(name="fail")
def fail(x: Any = None) -> Any:
    raise ValueError(x)


@app.task(name="skip")
def skip(x: Any = None) -> Any:
    raise Skip("not today")


@app.flow(name="sized")
def sized(x: Any) -> Any:
    raw = give(x)
    out = branch(kind(raw), {"big": lambda: load(clean(raw)), "small": show(raw)})
    return give(out)


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def work(request: pytest.FixtureRequest, store_name: str, tmp_path: Any) -> Any:
    """Start something with the tasks of this module on each store, work it off, give the run."""
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/q.db?synchronous=normal"}
    url = urls.get(request.param) or request.getfixturevalue("redis_url")
    place = FlowQ(store_name, url)

    def run(composition: Any) -> Any:
        with app.aside(place.store, app.clock):
            started = composition.start()
            with app.consumer(workers=2, drain=True):
                assert started.wait(30)
            return _Ended(started)

    yield run
    place.store.close()


class _Ended:
    """What a test asks of a run, read while its store was there."""

    def __init__(self, run: Run[Any]) -> None:
        self.value = run.get(timeout=10, raise_errors=False)
        self.state = run.state
        self.nodes = {n.name: n.state for n in run.nodes()}
        self.error: TaskError | None = None
        try:
            run.get(timeout=10)
        except TaskError as err:
            self.error = err
        except NotProduced:
            pass


def flow(func: Callable[..., Any]) -> Flow[..., Any]:
    """Make a flow of one test, of which the app knows nothing."""
    return Flow(app, func, {"name": func.__name__})


def here(composition: Any) -> _Ended:
    """Run it in this process and in memory."""
    with app.inline():
        return _Ended(composition.start())


def plan_of(composition: Any) -> Plan:
    return lower(composition._graph(), app)


def parents(plan: Plan, name: str) -> list[str]:
    (row,) = [r for r in plan.rows if r.name == name]
    return sorted(plan.rows[i].name for i in indexes(row.parents))


def called(task: str) -> list[Any]:
    return sorted(x for name, x in CALLS if name == task)


# --- one arm is taken ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "value", "made"),
    [
        ("long word", "load clean long word", {"branch/clean", "branch/load"}),
        ("x", "<x>", {"branch/show"}),
    ],
)
def test_the_arm_taken_gives_the_value_and_the_others_are_never_made(
    work: Callable[[Any], _Ended], x: str, value: str, made: set[str]
) -> None:
    run = work(sized.build(x))

    assert run.value == value and run.state == "success"
    assert {name for name in run.nodes if "/" in name} == made
    assert set(run.nodes.values()) == {"success"}


def test_no_arm_and_no_default_fails_the_branch_for_good_with_noarm(
    work: Callable[[Any], _Ended],
) -> None:
    @flow
    def narrow(x: Any) -> Any:
        return [show(branch(give(x), {"a": 1, "b": lambda: clean(x)})), clean("beside")]

    run = work(narrow.build("c"))

    assert run.state == "failed" and run.nodes["branch"] == "failed"
    assert run.nodes["show"] == "blocked" and run.nodes["clean"] == "success"
    assert isinstance(run.error, TaskError) and run.error.node == "branch"
    assert run.error.exc_type == "flowq.errors.NoArm" and run.error.is_a(NoArm)
    assert str(run.error) == """NoArm("no arm for 'c'; there are 'a', 'b'")"""
    assert run.error.attempts == 1


def test_the_default_is_taken_where_there_is_no_other_arm() -> None:
    arms = {"a": lambda: clean(1)}

    assert here(branch(give.s("a"), arms, default=lambda: load(2))).value == "clean 1"
    assert here(branch(give.s("z"), arms, default=lambda: load(2))).value == "load 2"
    assert here(branch(give.s([1]), arms, default=None)).value is None
    assert called("load") == [2]


def test_a_failure_in_an_arm_fails_the_branch_and_names_the_culprit() -> None:
    @flow
    def failing(x: Any) -> Any:
        return show(branch(give(x), {1: lambda: load(fail("why")), 2: lambda: skip()}))

    run = here(failing.build(1))

    assert run.nodes["branch"] == "failed" and run.nodes["branch/load"] == "blocked"
    assert run.nodes["show"] == "blocked" and isinstance(run.value, Failure)
    assert run.error is not None and run.error.node == "branch/fail"
    assert here(failing.build(2)).nodes["branch"] == "skipped"


def test_an_arm_may_be_a_function_a_composition_a_node_or_a_constant() -> None:
    def value(key: str) -> Any:
        return here(
            branch(
                give.s(key),
                {
                    "function": lambda: load(clean("f")),
                    "signature": lambda: load.s("s"),
                    "structure": lambda: {"a": [clean(1), 2], "b": (load.s(3),)},
                    "chain": clean.s("c") | load.s(),
                    "group": [clean.s(1), clean.s(2)],
                    "map": clean.s().map([1, 2]),
                    "later": lambda: clean.map(give(["x", "y"])),
                    "task": give,
                    "flow": sized.s("x"),
                    "dag": _dag(),
                    "constant": {"deep": [object, 1]},
                    "nothing": None,
                },
            )
        ).value

    assert value("function") == "load clean f"
    assert value("signature") == "load s"
    assert value("structure") == {"a": ["clean 1", 2], "b": ("load 3",)}
    assert value("chain") == "load clean c"
    assert value("group") == value("map") == ["clean 1", "clean 2"]
    assert value("later") == ["clean x", "clean y"]
    assert value("task") is None and value("nothing") is None
    assert value("flow") == "<x>" and value("dag") == "load d"
    assert value("constant") == {"deep": [object, 1]}


def _dag() -> DAG:
    dag = DAG("within")
    dag.add(load.s("d"), name="only")
    return dag


def test_what_is_called_in_an_arm_runs_though_nothing_reads_it() -> None:
    @flow
    def aside(x: Any) -> Any:
        def arm() -> Any:
            give("noted")
            return clean(x)

        return branch(kind(x), {"small": arm, "big": 0})

    assert here(aside.build("x")).value == "clean x" and called("give") == ["noted"]
    CALLS.clear()
    assert here(aside.build("long")).value == 0 and called("give") == []


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (1, "one"),
        (True, "yes"),
        (False, "no"),
        (0, "zero"),
        ("1", "text"),
        (None, "none"),
        (Size.BIG, "enum"),
        ("big", "enum"),
        (1.0, "other"),
        ([1], "other"),
    ],
)
def test_keys_are_compared_by_value_and_type(value: Any, taken: str) -> None:
    # 1 == True and 0 == False, so a dict cannot have both; an arm for each must not be confused
    numbers = {1: "one", 0: "zero", "1": "text", None: "none", Size.BIG: "enum"}
    truths = {True: "yes", False: "no"}

    arms = truths if value is True or value is False else numbers
    assert here(branch(give.s(value), arms, default="other")).value == taken
    if isinstance(value, int):
        other = numbers if arms is truths else truths
        assert here(branch(give.s(value), other, default="other")).value == "other"


def test_scalars_of_numpy_are_what_they_stand_for() -> None:
    numpy = pytest.importorskip("numpy")

    assert key_of(numpy.int64(3)) == (3, True) and type(key_of(numpy.int64(3))[0]) is int
    assert key_of(numpy.bool_(True)) == (True, True)
    assert key_of(numpy.array([1]))[1] is False


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({}, "there are no arms"),
        ([1], "there are no arms"),
        ({1.5: 0}, "1.5 cannot be the key of an arm"),
        ({("a",): 0}, r"\('a',\) cannot be the key"),
        ({Size.BIG: 0, "big": 1}, "two arms are for 'big'"),
        ({"a": lambda x: x}, "arm 'a' is called without arguments, and missing .* 'x'"),
        ({"a": clean}, "arm 'a' is called without arguments, and missing .* 'x'"),
        ({"a": lambda: object()}, "<arm 'a'> returns a object"),
        ({"a": lambda: [clean.s(1), 2][1]}, "clean.s.*made in <arm 'a'> and is mentioned nowhere"),
    ],
)
def test_arms_that_cannot_be_are_told_with_file_and_line(arms: Any, message: str) -> None:
    with pytest.raises(GraphError, match=rf"{message}[\s\S]*") as caught:
        branch(give.s(1), arms)
    assert f"({__file__}, line " in str(caught.value)


def test_a_step_cannot_be_a_key() -> None:
    with pytest.raises(NodeUsedAsValue, match=r"give.s\(2\) cannot be the key of an arm"):
        branch(give.s(1), {give.s(2): 1})


def test_a_condition_that_is_known_is_told_to_be_a_plain_if() -> None:
    @flow
    def known(x: Any) -> Any:
        return branch(x > 1, {True: lambda: clean(x)}, default=0)

    with pytest.raises(
        GraphError, match=r"branch on True, which is no step.*use a plain if"
    ) as err:
        known.build(2)
    assert f"({__file__}, line " in str(err.value)
    with pytest.raises(GraphError, match=r"is not called: write give\(...\) in a flow"):
        branch(give, {1: 2})


def test_mistakes_in_an_arm_are_told_where_they_are_made() -> None:
    @flow
    def wrong(x: Any, which: int) -> Any:
        first = give(x)

        def leak() -> Any:
            nonlocal first
            first = clean(x)
            return first

        arms: dict[int, Any] = {
            1: lambda: clean(*(1, 2)),
            2: lambda: f"{clean(1)}",
            3: lambda: clean(1).get(),
            4: leak,
        }
        out = branch(first, {"a": arms[which]})
        return [out, show(first)]

    for which, error, message in [
        (1, BindingError, "it takes 1 positional argument, but 2 are given"),
        (2, NodeUsedAsValue, "the text of <node 'clean' of arm a>"),
        (3, NodeUsedAsValue, "a node has no 'get'"),
        (4, NodeUsedAsValue, "belongs to an arm, which may not be taken"),
    ]:
        with pytest.raises(error, match=message) as caught:
            wrong.build(0, which)
        assert f"({__file__}, line " in str(caught.value)


def test_nothing_can_be_piped_into_a_branch() -> None:
    by_size = branch(give.s(1), {1: clean.s()})

    compositions: list[Any] = [give.s(1) | by_size, by_size.map([1])]
    for composition in compositions:
        with pytest.raises(GraphError, match="a branch takes no value that is piped into it"):
            composition._graph()


def test_options_of_a_branch_speak_of_its_node_alone() -> None:
    by_size = branch(give.s(1), {1: clean.s(2)}).options(name="by-size", priority=7)
    plan = plan_of(group(by_size, give.s(2)) | show.s())

    (row,) = [r for r in plan.rows if r.name == "by-size"]
    assert row.message is not None and row.message.priority == 7
    with pytest.raises(GraphError, match="option 'retries' does not go here"):
        by_size.options(retries=2)
    assert set(here(by_size).nodes) == {"give", "by-size", "by-size/clean"}


# --- what belongs to an arm ----------------------------------------------------------------------


def test_what_leads_only_to_one_arm_runs_only_if_that_is_taken(
    work: Callable[[Any], _Ended],
) -> None:
    @flow
    def owned(x: Any) -> Any:
        raw = give(x)
        big = load(clean(raw))
        small = show(raw)
        return branch(kind(raw), {"big": big, "small": lambda: [small, "!"]})

    run = work(owned.build("long word"))

    assert run.value == "load clean long word"
    assert set(run.nodes) == {"give", "kind", "branch", "branch/clean", "branch/load"}
    assert set(work(owned.build("x")).nodes) == {"give", "kind", "branch", "branch/show"}


def test_what_anything_else_reads_or_follows_stays_outside_and_is_awaited() -> None:
    @flow
    def shared(x: Any) -> Any:
        read, followed, both, alone = clean(1), clean(2), clean(3), clean(4)
        followed >> show("then")
        out = branch(kind(x), {"big": [read, both], "small": [followed, both, alone]})
        return [out, show(read)]

    plan = plan_of(shared.build("x"))

    assert parents(plan, "branch") == ["clean", "clean-2", "clean-3", "kind"]
    assert here(shared.build("x")).value[0] == ["clean 2", "clean 3", "clean 4"]
    run = here(shared.build("long"))
    assert run.value == [["clean 1", "clean 3"], "<clean 1>"]
    assert "branch/clean" not in run.nodes and called("clean") == [1, 1, 2, 2, 3, 3, 4]


def test_order_leads_into_an_arm_as_values_do() -> None:
    @flow
    def ordered(x: Any) -> Any:
        first, also = give("first"), give("also")

        def arm() -> Any:
            inner = clean(x)
            first >> inner
            return inner.after(also)

        return [branch(kind(x), {"small": arm}, default=None), show(also)]

    run = here(ordered.build("x"))

    assert run.value == ["clean x", "<also>"]
    assert set(run.nodes) == {
        "give-2", "kind", "branch", "show", "branch/give", "branch/clean"
    }  # fmt: skip


def test_a_branch_belongs_to_the_arm_that_alone_reads_it() -> None:
    @flow
    def twice(x: Any, y: Any) -> Any:
        raw = give(y)
        inner = branch(kind(y), {"big": clean(raw), "small": lambda: load(raw)})
        return branch(kind(x), {"big": inner, "small": lambda: branch(kind(x), {"small": 5})})

    assert set(here(twice.build("x", "y")).nodes) == {
        "kind-2", "branch-2", "branch-2/kind", "branch-2/branch"
    }  # fmt: skip
    run = here(twice.build("long", "y"))
    assert run.value == "load y"
    assert set(run.nodes) == {
        "kind-2", "branch-2", "branch-2/kind", "branch-2/give", "branch-2/branch",
        "branch-2/branch/load",
    }  # fmt: skip


def test_compositions_that_arms_share_are_made_once_beside_the_branch() -> None:
    shared = clean.s("shared")
    by_size = branch(kind.s("x"), {"small": load.s(shared), "big": show.s(shared)})

    run = here(by_size)

    assert run.value == "load clean shared"
    assert set(run.nodes) == {"kind", "clean", "branch", "branch/load"}


def test_nodes_of_a_dag_keep_the_names_that_they_were_given() -> None:
    dag = DAG("by-hand")
    dag.add(kind.s("x"), name="size")
    dag.add(clean.s("x"), name="tidy")
    dag.add(branch(dag["size"], {"small": dag["tidy"], "big": 0}), name="choose")
    dag.add(show.s(dag["choose"]), name="end", after=["choose"])

    run = here(dag)

    assert run.value == "<clean x>" and set(run.nodes) == {"size", "choose", "choose/tidy", "end"}


def test_an_end_of_a_dag_is_not_what_an_arm_reads() -> None:
    dag = DAG("ends")
    dag.add(clean.s("x"), name="tidy")
    dag.add(branch(kind.s("x"), {"small": lambda: dag["tidy"]}), name="choose")

    assert here(dag).value == "clean x"


def test_an_arm_that_leads_back_to_its_branch_is_a_cycle() -> None:
    @flow
    def round_(x: Any) -> Any:
        node = give(x)
        out = branch(kind(x), {"small": node})
        node.after(out)
        return out

    @flow
    def round_inside(x: Any) -> Any:
        node = give(x)
        out = branch(kind(x), {"small": lambda: clean(node)})
        node.after(out)
        return out

    for round_flow in (round_, round_inside):
        with pytest.raises(CycleError, match=r"give -> branch -> give.*test_branches.py, line"):
            round_flow.build("x")


# --- within each other, maps, flows --------------------------------------------------------------


@app.flow(name="nested")
def nested(x: Any, y: Any) -> Any:
    k = kind(x)
    return branch(
        k,
        {
            "small": lambda: branch(
                kind(y), {"small": lambda: [clean(x), y, k], "big": lambda: clean.map(y)}
            ),
            "big": x,
        },
    )


def test_branches_stand_in_mapped_flows_and_take_what_they_read_from_all_around(
    work: Callable[[Any], _Ended],
) -> None:
    @flow
    def each(xs: Any, ys: Any) -> Any:
        return nested.map(give(xs), ys)

    run = work(each.build(["a", "long", "c"], ["1", {"not": "read"}, ["x", "y"]]))

    assert run.value == [["clean a", "1", "small"], "long", ["clean x", "clean y"]]
    assert run.nodes["nested[2]/branch/branch/clean[1]"] == "success"
    assert "nested[1]/branch/branch" not in run.nodes


def test_a_map_of_a_map_of_a_branch_with_one_item_failing() -> None:
    @flow
    def item(x: Any) -> Any:
        return branch(kind(x), {"small": lambda: clean(x), "big": lambda: fail(x)})

    @flow
    def row(xs: Any) -> Any:
        return item.map(xs)

    @flow
    def rows(xss: Any) -> Any:
        return [show(row.map(give(xss))), row.map([["k"]])]

    run = here(rows.build([["a", "long"], [], ["b"]]))

    states = run.nodes
    assert states["row[0]/item[1]/branch/fail"] == states["row[0]/item[1]/branch"] == "failed"
    assert states["row[0]/item[0]/branch"] == states["row[1]/item"] == states["row[2]"] == "success"
    assert states["row"] == states["row[0]"] == "failed" and states["show"] == "blocked"
    assert run.error is not None and run.error.node == "row[0]/item[1]/branch/fail"


def test_a_map_over_what_is_not_known_stands_in_an_arm() -> None:
    @flow
    def fan(xs: Any) -> Any:
        parts = give(xs)
        return branch(kind(xs), {"big": lambda: sized.map(parts), "small": lambda: parts})

    assert here(fan.build(["x", "long"])).value == ["<x>", "load clean long"]
    assert here(fan.build([])).value == []


def test_the_value_of_an_arm_may_be_an_element_of_a_map_whatever_it_is() -> None:
    @flow
    def same(x: Any) -> Any:
        return branch(kind(1), {"small": lambda: {"it": x, "first": x[0]}})

    @flow
    def sames(xs: Any) -> Any:
        return same.map(give(xs))

    things: list[list[Any]] = [[object, 1], ["text " * 99]]
    expected = [{"it": x, "first": x[0]} for x in things]

    assert here(sames.build(things)).value == here(same.s().map(things)).value == expected


RULES = {
    # rule of the join: what follows (a success, a failure, a skip), and what it becomes
    "all_success": "blocked",
    "all_done": "success",
    "none_failed": "blocked",
    "none_failed_min_one_success": "blocked",
    "one_success": "success",
    "at_least(1)": "success",
    "at_least(2)": "blocked",
    "one_failed": "success",
    "all_failed": "skipped",
}


@pytest.mark.parametrize("rule", RULES)
def test_a_nested_branch_with_an_inner_join_of_every_rule(rule: str) -> None:
    """Rules inside an arm see only what is inside it."""

    @flow
    def joined(x: Any) -> Any:
        outside = fail("outside") if x == "never" else give(x)

        def inner() -> Any:
            ways = [clean(outside), fail("inside"), skip()]
            return give("joined").options(name="join", trigger_rule=rule).after(*ways)

        return branch(kind(x), {"small": lambda: branch(kind(x), {"small": inner}), "big": 0})

    run = here(joined.build("x"))

    # what failed inside counts, unless all that it leads to wants no more than some
    some = rule in ("one_success", "at_least(1)", "at_least(2)")
    assert run.nodes["branch/branch/join"] == RULES[rule]
    assert run.nodes["branch/branch/fail"] == "failed"
    whole = "success" if some and RULES[rule] == "success" else "failed"
    assert run.nodes["branch/branch"] == run.nodes["branch"] == run.state == whole


@pytest.mark.parametrize(
    ("rule", "state", "value"),
    [("all_done", "success", "clean x"), ("all_success", "blocked", None)],
)
def test_a_trigger_rule_of_a_branch_speaks_of_what_it_follows(
    rule: str, state: str, value: Any
) -> None:
    @flow
    def ruled(x: Any) -> Any:
        out = branch(kind(x), {"small": lambda: clean(x)}).options(trigger_rule=rule)
        fail("before") >> out
        return out

    run = here(ruled.build("x"))

    assert run.nodes["branch"] == state
    assert run.value == value or isinstance(run.value, Failure)


def test_a_condition_that_fails_blocks_the_branch() -> None:
    run = here(branch(fail.s("why"), {1: clean.s(2)}) | show.s())

    assert run.nodes == {"fail": "failed", "branch": "blocked", "show": "blocked"}


# --- seeing --------------------------------------------------------------------------------------


def test_pictures_show_the_condition_and_every_arm() -> None:
    @flow
    def seen(x: Any) -> Any:
        raw = give(x)
        whole = clean(raw)
        out = branch(kind(raw)["size"], {"big": lambda: load(whole), True: whole}, default="-")
        return show(out)

    graph = seen.build("x")

    assert (
        graph.mermaid()
        == """flowchart LR
    n0["give"]
    n1["clean"]
    n2["kind"]
    subgraph n3["branch"]
        subgraph n4["big"]
            n5["load"]
        end
        n6(["True"])
        n7(["default: '-'"])
    end
    n8["show"]
    n0 -->|"x"| n1
    n0 -->|"x"| n2
    n2 -->|"condition"| n3
    n1 -->|"x"| n5
    n1 --> n6
    n3 -->|"x"| n8
"""
    )
    view = graph.graph
    assert view.nodes["branch"]["kind"] == "branch"
    arms = view.nodes["branch"]["graph"]
    assert set(arms) == {"big", "True", "default"} and arms.nodes["big"]["kind"] == "arm"
    assert set(arms.nodes["big"]["graph"]) == {"load"}
    assert view.edges["kind", "branch"]["to"] == ("condition",)


def test_a_branch_is_one_row_whatever_its_arms_hold() -> None:
    plan = plan_of(sized.build("x"))

    assert [r.name for r in plan.rows[1:]] == ["give", "kind", "branch", "give-2"]
    message = plan.rows[3].message
    assert message is not None and message.task == BRANCH and len(message.plans) == 2
    assert decode_message(encode_message(message)) == message


def test_whoever_serves_the_arms_takes_one() -> None:
    @flow
    def queued(x: Any) -> Any:
        arms = {"big": lambda: clean.options(queue="heavy")(x), "small": 0}
        return branch(kind.options(queue="light")(x), arms)

    rows = {r.name: r for r in plan_of(queued.build("x")).rows}

    assert rows["branch"].message is not None and rows["branch"].message.queue == "heavy"


# --- types ---------------------------------------------------------------------------------------


def test_a_value_that_no_arm_can_give_is_an_error_and_one_that_some_cannot_a_warning() -> None:
    def number() -> int:
        return 1

    def text() -> str:
        return ""

    def wants(n: int) -> None: ...

    one, word, takes = (app.task(name=f.__name__)(f) for f in (number, text, wants))

    with pytest.raises(BindingError, match=r"takes int, and node 'text'.* gives str"):
        plan_of(takes.s(branch(give.s(1), {1: word.s(), 2: lambda: word()})))
    with pytest.warns(BindingWarning, match=r"takes int, and node 'text'.* gives str"):
        plan_of(takes.s(branch(give.s(1), {1: word.s(), 2: one.s()})))
    plan_of(takes.s(branch(give.s(1), {1: one.s(), 2: one.s()})))


def test_the_condition_is_named_as_such() -> None:
    node = branch(give.s(1), {1: 2})._graph().root.inner.nodes[-1]

    assert parameter_name(node, 0) == "condition"


def test_a_branch_is_a_member_of_chains_and_groups() -> None:
    by_size = branch(kind.s("x"), {"small": clean.s(1)}, default=None)

    run = here(chain(group(by_size, load.s(2)), show.s()))

    assert run.value == "<['clean 1', 'load 2']>"
    with pytest.raises(GroupError):
        with app.inline():
            group(branch(give.s(1), {2: 3}), give.s(1)).start().get(timeout=10)
