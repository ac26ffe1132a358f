# SPDX-License-Identifier: MIT
"""Cancels that come while something grows, and that come twice."""

from __future__ import annotations

from typing import Any

import pytest

from flowq import RunCancelled, chain
from flowq.outcome import Expand
from tests.cases.stage import Stage, states


def grown(stage: Stage, wide: int) -> Any:
    """Give a map whose items are made while a worker is at it, and what that came to."""
    run = chain(stage.numbers.s(wide), stage.give.each(), stage.total.s()).start()
    stage.do(*stage.fetch())
    outcome = stage.body(*stage.fetch())
    assert isinstance(outcome, Expand)
    return run, outcome


@pytest.mark.parametrize("wide", [0, 3, 5_000])
def test_a_cancel_during_an_expansion_leaves_nothing_of_it(stage: Stage, wide: int) -> None:
    run, outcome = grown(stage, wide)

    stopping = run.cancel()

    assert stopping
    assert stopping.running == 1
    stage.settle(outcome)
    assert stage.fetch() == []
    assert states(run) == {"numbers": "success", "give": "cancelled", "total": "cancelled"}
    with pytest.raises(RunCancelled):
        run.get()
    stage.sound(run)


def test_a_cancel_of_the_node_alone_during_its_expansion_leaves_nothing_of_it(
    stage: Stage,
) -> None:
    run, outcome = grown(stage, 3)

    run.result("give").cancel()

    stage.settle(outcome)
    assert states(run) == {"numbers": "success", "give": "cancelled", "total": "cancelled"}
    assert run.state == "cancelled"


def test_a_cancel_just_after_an_expansion_ends_all_that_it_made(stage: Stage) -> None:
    run, outcome = grown(stage, 1_200)
    stage.settle(outcome)
    (one,) = stage.fetch()
    late = stage.body(one)

    run.cancel()

    stage.settle(late)
    stage.work()
    found = states(run)
    assert len(found) == 1_203
    assert found.pop("numbers") == "success"
    assert set(found.values()) == {"cancelled"}
    assert stage.told("give") == [("give", 0)]
    assert run.state == "cancelled"
    stage.sound(run)


def swept(stage: Stage) -> Any:
    """Give a run whose body fails, and a worker at the `finally_` that becomes a map."""

    @stage.q.task(name="sweep")
    def sweep() -> Any:
        stage.calls.append(("sweep",))
        return stage.more.s().map([1, 2, 3])

    @stage.q.flow(name="f", finally_=sweep.s(), on_failure=stage.alert.s(where="f"))
    def f(x: Any) -> Any:
        return stage.give(x)

    stage.break_("bad")
    return f


@pytest.mark.parametrize("moment", ["begun", "expanded", "in it"])
@pytest.mark.parametrize("x", ["bad", "good"])
def test_a_cancel_while_a_finally_expands_lets_it_end_and_the_outcome_stand(
    stage: Stage, moment: str, x: str
) -> None:
    run = swept(stage)(x)
    outcome = stage.body(stage.until("finally/sweep"))
    found = []
    if moment != "begun":
        stage.settle(outcome)
    if moment == "in it":
        found = stage.fetch()

    assert not run.cancel()

    if moment == "begun":
        stage.settle(outcome)
    stage.do(*found)
    stage.run(run)
    assert run.state == {"bad": "failed", "good": "success"}[x]
    assert sorted(stage.told("more")) == [("more", 1), ("more", 2), ("more", 3)]
    ends = {name: state for name, state in states(run).items() if "sweep" in name}
    assert len(ends) > 3
    assert set(ends.values()) == {"success"}


def test_a_finally_of_a_cancelled_run_expands_and_runs_to_its_end(stage: Stage) -> None:
    run = swept(stage)("good")
    (body,) = stage.fetch()
    run.cancel()
    stage.settle(stage.body(body))

    stage.run(run)

    assert run.state == "cancelled"
    assert len(stage.told("more")) == 3
    assert stage.told("alert") == []


@pytest.mark.parametrize("moment", ["begun", "expanded", "in it"])
def test_a_forced_second_cancel_while_a_finally_expands_ends_that_too(
    stage: Stage, moment: str
) -> None:
    run = swept(stage)("good")
    (body,) = stage.fetch()
    run.cancel()
    stage.settle(stage.body(body))
    outcome = stage.body(stage.until("finally/sweep"))
    found = []
    if moment != "begun":
        stage.settle(outcome)
    if moment == "in it":
        found = stage.fetch()

    assert run.cancel(force=True)

    if moment == "begun":
        stage.settle(outcome)
    stage.settle(*(stage.body(d) for d in found))
    stage.work()
    assert run.state == "cancelled"
    assert len(stage.told("more")) == len(found)
    ends = {state for name, state in states(run).items() if "sweep" in name}
    assert ends == {"cancelled"}
    stage.sound(run)


def test_a_second_cancel_changes_nothing_unless_it_is_forced(stage: Stage) -> None:
    @stage.q.flow(name="f", finally_=stage.give.s("cleanup"))
    def f() -> Any:
        return stage.more(stage.give("body"))

    run = f()
    (body,) = stage.fetch()
    first = run.cancel()
    there = states(run)

    second = run.cancel()

    assert (bool(first), bool(second)) == (True, True)
    assert str(first) == str(second)
    assert states(run) == there
    stage.settle(stage.body(body))
    (cleanup,) = stage.fetch()
    assert run.cancel()
    stage.do(cleanup)
    assert run.state == "cancelled"
    assert stage.calls == [("give", "body"), ("give", "cleanup")]
    # it has ended: a third one, forced too, finds nothing to stop
    there = states(run)
    run.cancel(force=True)
    assert states(run) == there


def test_a_second_cancel_that_is_forced_ends_the_cleanup(stage: Stage) -> None:
    @stage.q.flow(name="f", finally_=stage.give.s("cleanup"))
    def f() -> Any:
        return stage.give("body")

    run = f()
    (body,) = stage.fetch()
    run.cancel()

    run.cancel(force=True)

    stage.settle(stage.body(body))
    assert stage.fetch() == []
    assert run.state == "cancelled"
    assert stage.calls == [("give", "body")]
    # what had not begun was not wanted any more
    assert states(run) == {"give": "cancelled", "finally/give": "skipped"}
