# SPDX-License-Identifier: MIT
"""A cancel goes down to what bodies had started, those that have ended too."""

from __future__ import annotations

from typing import Any

import pytest

from flowq import FlowQ, chain, current_task
from flowq.errors import TaskCancelled
from flowq.message import id_bytes
from flowq.testing import ManualClock
from tests.unit.staged import Stage

app = FlowQ("cancelling", "memory://", clock=ManualClock())
CALLS: list[Any] = []
MADE: list[Any] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()
    MADE.clear()


@app.task(name="leaf")
def leaf(x: int = 0) -> int:
    CALLS.append(x)
    return x


@app.task(name="opens")
def opens(x: int, detached: bool = False) -> int:
    """Start a run of two steps, and a task, and go on without them."""
    later = leaf.options(delay=3_600)
    MADE.append(chain(later.s(x), leaf.s()).options(detached=detached).start())
    MADE.append(later.options(detached=detached)(x + 10))
    return x


@app.task(name="deep")
def deep(x: int) -> int:
    MADE.append(opens(x))
    return x


@app.task(name="late")
def late() -> None:
    """Start something after it was cancelled."""
    app.result(current_task().id).cancel()
    try:
        leaf(5)
    except TaskCancelled as err:
        CALLS.append(str(err))
    leaf.options(detached=True)(6)


def test_what_a_body_that_has_ended_had_started_is_cancelled_with_its_run(stage: Stage) -> None:
    run = chain(opens.s(1), leaf.options(delay=9_000).s()).start()
    stage.work()
    assert [x.state for x in MADE] == ["running", "scheduled"]

    run.cancel()

    assert run.state == "cancelled"
    assert [x.state for x in MADE] == ["cancelled", "cancelled"]


def test_at_any_depth_and_though_what_is_between_has_ended(stage: Stage) -> None:
    run = chain(deep.s(1), leaf.options(delay=9_000).s()).start()
    stage.work()
    between, *made = MADE
    assert between.state == "success"

    run.cancel()

    assert [x.state for x in made] == ["cancelled", "cancelled"]
    assert between.state == "success"


def test_of_a_node_only_what_that_has_started(stage: Stage) -> None:
    one = chain(opens.s(1).options(name="a"), leaf.options(name="z", delay=9_000).s())
    run = (one | opens.s().options(name="b")).start()
    stage.work()
    first = list(MADE)

    run.result("z").cancel()
    assert [x.state for x in first] == ["running", "scheduled"]
    run.result("a").cancel()  # it has ended otherwise: nothing is stopped

    assert [x.state for x in first] == ["running", "scheduled"]


def test_what_is_detached_goes_on(stage: Stage) -> None:
    run = chain(opens.s(1, detached=True), leaf.options(delay=9_000).s()).start()
    stage.work()

    run.cancel()

    assert [x.state for x in MADE] == ["running", "scheduled"]


def test_what_has_ended_by_itself_stops_nothing(stage: Stage) -> None:
    task = opens(1)
    stage.work()
    assert task.state == "success"

    task.cancel()

    assert [x.state for x in MADE] == ["running", "scheduled"]


def test_a_second_cancel_goes_on_where_the_first_was_cut_off(stage: Stage) -> None:
    run = chain(opens.s(1), leaf.options(delay=9_000).s()).start()
    stage.work()
    stage.app.store.cancel([id_bytes(run.id)])  # and then its caller was killed
    assert [x.state for x in MADE] == ["running", "scheduled"]

    run.cancel()

    assert [x.state for x in MADE] == ["cancelled", "cancelled"]


def test_a_body_that_was_stopped_starts_nothing_more_though_it_was_not_told(stage: Stage) -> None:
    task = late()
    stage.work()

    assert task.state == "cancelled"
    told, detached = CALLS
    assert "does not start leaf" in told
    assert detached == 6
