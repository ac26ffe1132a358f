# SPDX-License-Identifier: MIT
"""Races and needs: who wins, who has lost, and who is needed all the same."""

from __future__ import annotations

from typing import Any

import pytest

from flowq import TaskError, first
from tests.cases.stage import Stage, states


@pytest.mark.parametrize("way", ["retry", "rerun"])
def test_a_race_that_is_retried_takes_along_what_it_had_stopped(stage: Stage, way: str) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        quick = stage.give.options(name="quick")("quick")
        step = stage.give.options(name="step", priority=-5)("slow")
        return stage.pair(first(quick, stage.pair.options(name="slow")(step)))

    run = f()
    # what leads to the loser is at work when the race is won
    both = stage.fetch(2)
    assert len(both) == 2
    stage.do(both[0])
    stage.settle(stage.body(both[1]))
    stage.run(run)
    assert run.get() == ("quick", None)
    assert (states(run)["step"], states(run)["slow"]) == ("skipped", "skipped")
    stage.break_("quick")

    getattr(run, way)("quick")
    stage.run(run)

    assert run.get() == (("slow", None), None)
    assert states(run)["quick"] == "failed"
    assert (states(run)["step"], states(run)["slow"]) == ("success", "success")


def test_a_need_that_is_retried_takes_along_what_it_had_stopped(stage: Stage) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        return stage.give.options(need=1).map(["a", "b"])

    run = stage.run(f())
    assert (run.get(), states(run)["give[1]"]) == (["a"], "skipped")
    stage.break_("a")

    run.retry("give[0]")
    stage.run(run)

    assert run.get() == ["b"]
    assert (states(run)["give[0]"], states(run)["give[1]"]) == ("failed", "success")


@pytest.mark.parametrize("together", [True, False])
def test_a_need_that_is_met_twice_at_once_ends_once(stage: Stage, together: bool) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        return stage.total(stage.give.options(need=2).map([1, 2, 4, 8]))

    run = f()
    found = stage.fetch(3)
    other = stage.fetch(session="v")
    mine, others = [stage.body(d) for d in found], [stage.body(d) for d in other]
    stage.settle(mine[0])

    # two, each of which is the second: in one step, or by two workers one after the other
    if together:
        stage.settle(mine[2], mine[1])
    else:
        stage.settle(mine[2])
        stage.settle(mine[1])
    stage.settle(*others, session="v")

    (last,) = stage.fetch(5)
    stage.do(last)
    assert run.get() == 5
    assert stage.told("total") == [("total", 2)]
    ends = [states(run)[f"give[{i}]"] for i in range(4)]
    assert ends == ["success", "skipped", "success", "skipped"]
    stage.sound(run)


def test_a_need_that_is_met_and_missed_in_one_step_is_met(stage: Stage) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        return stage.give.options(need=1).map(["bad", "good", "bad"])

    stage.break_("bad")
    run = f()
    stage.settle(*(stage.body(d) for d in stage.fetch(3)))

    assert (run.state, run.get()) == ("success", ["good"])
    stage.sound(run)


def test_a_need_of_more_than_there_is_fails(stage: Stage) -> None:
    @stage.q.flow(name="f")
    def f(n: int) -> Any:
        return stage.give.options(need=1).map(stage.numbers(n))

    run = stage.run(f(0))

    assert run.state == "failed"
    with pytest.raises(TaskError):
        run.get()


@pytest.mark.parametrize("begun", [True, False])
def test_the_loser_of_a_race_that_is_needed_elsewhere_runs_to_its_end(
    stage: Stage, begun: bool
) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        quick = stage.give.options(name="quick", priority=5)("quick")
        read = stage.give.options(name="read")("read")
        lost = stage.give.options(name="lost")("lost")
        return [first(quick, read, lost), stage.pair(read)]

    run = f()
    found = stage.fetch(3 if begun else 1)
    outcomes = [stage.body(d) for d in found]

    stage.settle(outcomes[0])

    assert states(run)["first"] == "success"
    assert states(run)["read"] == ("running" if begun else "queued")
    assert states(run)["lost"] == ("running" if begun else "skipped")
    stage.settle(*outcomes[1:])
    stage.run(run)
    assert run.get() == ["quick", ("read", None)]
    assert (states(run)["read"], states(run)["lost"]) == ("success", "skipped")


def test_the_loser_of_a_race_that_is_needed_elsewhere_may_fail_the_run(stage: Stage) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        quick = stage.give.options(name="quick", priority=5)("quick")
        read = stage.give.options(name="read")("bad")
        return [first(quick, read), stage.pair(read)]

    stage.break_("bad")
    run = stage.run(f())

    assert (states(run)["first"], states(run)["read"]) == ("success", "failed")
    assert (states(run)["pair"], run.state) == ("blocked", "failed")
