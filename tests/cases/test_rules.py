# SPDX-License-Identifier: MIT
"""Rules over what failed, or could not run, further up."""

from __future__ import annotations

from typing import Any

import pytest

from flowq import branch
from flowq.errors import Failure
from tests.cases.stage import Stage, states


def test_a_failure_two_nodes_above_lets_a_one_failed_run_with_it(stage: Stage) -> None:
    @stage.q.task(name="seen")
    def seen(x: Any) -> Any:
        assert isinstance(x, Failure)
        return (x.node, x.message)

    @stage.q.flow(name="f")
    def f() -> Any:
        top = stage.give.options(name="top")("bad")
        middle = stage.more(top)
        return seen(middle).options(trigger_rule="one_failed")

    stage.break_("bad")
    run = stage.run(f())

    assert states(run) == {"top": "failed", "more": "blocked", "seen": "success"}
    assert stage.told("more") == []
    # what failed at the top is to blame; the alarm forgives nothing
    assert run.get(raise_errors=False) == ("top", "ValueError('bad is broken')")
    assert run.state == "failed"


def test_nothing_two_nodes_above_failed_so_a_one_failed_is_skipped(stage: Stage) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        middle = stage.more(stage.give(1))
        return [middle, stage.pair(middle).options(trigger_rule="one_failed")]

    run = stage.run(f())

    assert states(run)["pair"] == "skipped"


@pytest.mark.parametrize("rule", ["none_failed", "none_failed_min_one_success"])
@pytest.mark.parametrize("first", ["good", "bad"])
def test_a_none_failed_under_a_blocked_parent_is_blocked(
    stage: Stage, rule: str, first: str
) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        # they are handed out in this order
        bad = stage.give.options(name="bad", priority=5 if first == "bad" else 0)("bad")
        good = stage.give.options(name="good", priority=5 if first == "good" else 0)("good")
        blocked = stage.more.options(name="blocked")(bad)
        return stage.pair(blocked, good).options(trigger_rule=rule)

    stage.break_("bad")
    run = stage.run(f())

    assert stage.calls[0] == ("give", first)
    assert states(run) == {
        "bad": "failed",
        "good": "success",
        "blocked": "blocked",
        "pair": "blocked",
    }
    assert "bad" in run.why("pair")


def test_a_none_failed_under_a_skipped_parent_runs(stage: Stage) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        return stage.pair(1).options(trigger_rule="none_failed").after(stage.skip())

    run = stage.run(f())

    assert states(run) == {"skip": "skipped", "pair": "success"}


JOINS = {
    # rule of the join: what follows on a success, a failure and a skip
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
FORGIVING = ("one_success", "at_least(1)")
"""What leads to one of these and to nothing else may fail, if it runs."""


@pytest.mark.parametrize("rule", JOINS)
def test_a_nested_branch_with_an_inner_join_sees_only_what_is_inside(
    stage: Stage, rule: str
) -> None:
    @stage.q.flow(name="f")
    def f(x: Any) -> Any:
        outside = stage.give.options(name="outside")(x)

        def inner() -> Any:
            ways = [stage.more(outside), stage.give.options(name="bad")("bad"), stage.skip()]
            return stage.pair().options(name="join", trigger_rule=rule).after(*ways)

        kind = stage.give.options(name="kind")(x)
        return [outside, branch(kind, {1: lambda: branch(kind, {1: inner}), 2: 0})]

    stage.break_("bad")
    run = stage.run(f(1))

    found = states(run)
    assert found["branch/branch/join"] == JOINS[rule]
    assert (found["branch/branch/bad"], found["branch/branch/skip"]) == ("failed", "skipped")
    assert found["outside"] == "success"
    whole = "success" if rule in FORGIVING else "failed"
    assert [found["branch/branch"], found["branch"], run.state] == [whole] * 3
