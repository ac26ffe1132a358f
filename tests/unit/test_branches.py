# SPDX-License-Identifier: MIT
"""One of several ways on, by a value that comes with the run."""

from __future__ import annotations

from typing import Any

import pytest

from flowq import DAG, FlowQ, branch, chain, group
from flowq.binding import parameter_name
from flowq.errors import (
    BindingError,
    BindingWarning,
    Failure,
    GraphError,
    GroupError,
    NoArm,
    NodeUsedAsValue,
    TaskError,
)
from flowq.fragment import BRANCH, key_of
from flowq.message import decode_message, encode_message
from tests.unit.arms import (
    CALLS,
    Size,
    app,
    called,
    clean,
    fail,
    flow,
    give,
    here,
    kind,
    load,
    plan_of,
    show,
    sized,
    skip,
    work,
)


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


# --- one arm is taken ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "value", "made"),
    [
        ("long word", "load clean long word", {"branch/clean", "branch/load"}),
        ("x", "<x>", {"branch/show"}),
    ],
)
def test_the_arm_taken_gives_the_value_and_the_others_are_never_made(
    q: FlowQ, x: str, value: str, made: set[str]
) -> None:
    run = work(q, sized.build(x))

    assert run.value == value and run.state == "success"
    assert {name for name in run.nodes if "/" in name} == made
    assert set(run.nodes.values()) == {"success"}


def test_no_arm_and_no_default_fails_the_branch_for_good_with_noarm(
    q: FlowQ,
) -> None:
    @flow
    def narrow(x: Any) -> Any:
        return [show(branch(give(x), {"a": 1, "b": lambda: clean(x)})), clean("beside")]

    run = work(q, narrow.build("c"))

    assert run.state == "failed" and run.nodes["branch"] == "failed"
    assert run.nodes["show"] == "blocked" and run.nodes["clean"] == "success"
    assert isinstance(run.error, TaskError) and run.error.node == "branch"
    assert run.error.exc_type == "flowq.errors.NoArm" and run.error.is_a(NoArm)
    assert str(run.error) == """NoArm("no arm for 'c'; its arms are 'a', 'b'")"""
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
            1: lambda: clean(1, y=2),  # type: ignore[call-arg]
            2: lambda: f"{clean(1)}",
            3: lambda: clean(1).get(),
            4: leak,
        }
        out = branch(first, {"a": arms[which]})
        return [out, show(first)]

    for which, error, message in [
        (1, BindingError, "unexpected argument 'y'"),
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
