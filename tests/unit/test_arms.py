# SPDX-License-Identifier: MIT
"""What belongs to an arm of a branch, and what arms may hold."""

from __future__ import annotations

from typing import Any

import pytest

from flowq import DAG, FlowQ, branch
from flowq.errors import CycleError, Failure, GraphError, PayloadTooLarge
from tests.unit.arms import (
    CALLS,
    app,
    called,
    clean,
    fail,
    flow,
    give,
    here,
    kind,
    load,
    parents,
    plan_of,
    show,
    sized,
    work,
)


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


# --- what belongs to an arm ----------------------------------------------------------------------


def test_what_leads_only_to_one_arm_runs_only_if_that_is_taken(
    q: FlowQ,
) -> None:
    @flow
    def owned(x: Any) -> Any:
        raw = give(x)
        big = load(clean(raw))
        small = show(raw)
        return branch(kind(raw), {"big": big, "small": lambda: [small, "!"]})

    run = work(q, owned.build("long word"))

    assert run.value == "load clean long word"
    assert set(run.nodes) == {"give", "kind", "branch", "branch/clean", "branch/load"}
    assert set(work(q, owned.build("x")).nodes) == {"give", "kind", "branch", "branch/show"}


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
        with pytest.raises(CycleError, match=r"give -> branch -> give.*test_arms.py, line"):
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
    q: FlowQ,
) -> None:
    @flow
    def each(xs: Any, ys: Any) -> Any:
        return nested.map(give(xs), ys)

    run = work(q, each.build(["a", "long", "c"], ["1", {"not": "read"}, ["x", "y"]]))

    assert run.value == [["clean a", "1", "small"], "long", ["clean x", "clean y"]]
    assert run.nodes["nested[2]/branch/branch/clean[1]"] == "success"
    assert "nested[1]/branch/branch" not in run.nodes


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


# --- what follows from nodes in arms -------------------------------------------------------------


def test_what_follows_from_a_node_comes_along_into_its_arm() -> None:
    @flow
    def alarmed(x: Any) -> Any:
        note = give("note")
        risky = fail(x).options(on_error=load.s(note))
        return branch(kind(x), {"small": risky, "big": lambda: clean(x)})

    # what an alarm reads stays outside of what it is about
    assert set(here(alarmed.build("long")).nodes) == {"give", "kind", "branch", "branch/clean"}
    run = here(alarmed.build("x"))
    assert run.nodes["give"] == run.nodes["branch/fail/on_error/load"] == "success"
    assert run.nodes["branch"] == "failed" and called("load") == ["note"]


def test_what_only_an_arm_and_its_fallbacks_read_belongs_to_the_arm() -> None:
    @flow
    def rescued(x: Any) -> Any:
        raw, spare = give(x), give("spare")
        risky = fail(raw).options(fallback=load)
        other = fail(x).options(fallback=show.s(spare))
        return branch(kind(x), {"small": [risky, other], "big": 0})

    assert set(here(rescued.build("long")).nodes) == {"kind", "branch"}
    assert here(rescued.build("x")).value == ["load x", "<spare>"]


def test_a_branch_has_a_failure_policy_and_a_fallback_as_a_node_has() -> None:
    arms: dict[str, Any] = {"small": lambda: fail("why")}

    forgiven = branch(kind.s("x"), arms).options(failure_policy="continue", default=[2])
    run = here(show.s(forgiven))
    assert run.value == "<[2]>" and run.nodes["branch"] == "failed" and run.state == "success"

    for x in ("x", "no such arm"):
        run = here(show.s(branch(kind.s(x), arms).options(fallback=load.s(x))))
        assert run.value == f"<load {x}>" and run.nodes["branch"] == "success"


# --- limits --------------------------------------------------------------------------------------


def test_names_in_arms_are_as_short_as_all_others() -> None:
    deep: Any = clean.s(1)
    for _ in range(300):
        deep = branch(kind.s("x"), {"small": deep})

    with pytest.raises(GraphError, match=r"the name 'branch/branch/.*' is over 200 characters"):
        plan_of(deep)


def test_arms_that_are_too_large_for_a_message_are_told_of() -> None:
    large = branch(kind.s("x"), {"small": clean.s().map([b"x" * 2**20] * 17)})

    with pytest.raises(PayloadTooLarge, match=r"what node 'branch' may become takes 17 MiB"):
        plan_of(large)
