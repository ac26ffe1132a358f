# SPDX-License-Identifier: MIT
"""Settlements that come twice, too late, or of a time that is over."""

from __future__ import annotations

from typing import Any

import pytest

from flowq import PayloadTooLarge, chain, group
from flowq.message import MAX_PAYLOAD
from flowq.testing.contract.base import pass_time
from tests.cases.stage import LEASE, Stage, states


def test_a_parent_retried_twice_before_it_succeeds_lets_its_child_run_once(stage: Stage) -> None:
    run = chain(stage.give.s(7).options(retries=2, retry_delay=3), stage.more.s()).start()
    stage.break_(7)
    for attempt in (1, 2):
        stage.do(*stage.fetch())
        assert states(run) == {"give": "scheduled", "more": "waiting"}
        assert len(stage.calls) == attempt
        stage.clock.advance(3)
    stage.break_()

    stage.run(run)

    assert run.get() == 8
    assert stage.calls == [("give", 7)] * 3 + [("more", 7)]


def test_a_settlement_that_is_sent_twice_counts_once(stage: Stage) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        return stage.pair(stage.give.options(name="a")(1), stage.give.options(name="b")(2))

    run = f()
    a, b = stage.deliver(run, "a", "b")
    outcome = stage.body(a)

    # in one step, and in the next: its answer had been lost
    assert stage.settle(outcome, outcome) == ["settled", "repeated"]
    assert stage.settle(outcome) == ["repeated"]

    assert states(run) == {"a": "success", "b": "running", "pair": "waiting"}
    stage.sound(run)
    stage.do(b)
    stage.run(run)
    assert run.get() == (1, 2)
    assert stage.settle(outcome) == ["repeated"]
    assert len(stage.told("pair")) == 1


def test_a_settlement_sent_twice_by_a_parent_that_fails_blocks_once(stage: Stage) -> None:
    run = chain(stage.give.s("bad"), group(stage.more.s(), stage.give.s())).start()
    stage.break_("bad")
    outcome = stage.body(*stage.fetch())

    assert stage.settle(outcome) == ["settled"]
    assert stage.settle(outcome) == ["repeated"]

    assert sorted(states(run).values()) == ["blocked", "blocked", "failed"]
    stage.sound(run)


def test_a_settlement_under_an_old_delivery_changes_nothing(stage: Stage) -> None:
    run = chain(stage.give.s(1), stage.more.s()).start()
    (old,) = stage.fetch(session="a")
    late = stage.body(old)
    stage.lose("a")
    (new,) = stage.fetch(session="b")
    assert new.delivery > old.delivery

    for session in ("a", "b"):
        assert stage.settle(late, session=session) == ["stale"]

    assert states(run) == {"give": "running", "more": "waiting"}
    stage.do(new, session="b")
    stage.run(run)
    assert run.get() == 2
    assert stage.told("more") == [("more", 1)]


@pytest.mark.parametrize("moment", ["waiting", "queued", "running", "ended"])
def test_a_settlement_under_an_old_generation_changes_nothing(stage: Stage, moment: str) -> None:
    run: Any = chain(stage.give.s(1), stage.said.s(), stage.pair.s()).start()
    stage.do(*stage.fetch())
    (lost,) = stage.fetch(session="a")
    late = [stage.body(lost)]
    stage.lose("a")
    (second,) = stage.fetch(session="b")
    late.append(stage.body(second))
    assert stage.settle(late[1], session="b") == ["settled"]
    stage.run(run)
    before = run.get()
    run.rerun("give")
    if moment != "waiting":
        stage.do(*stage.fetch())
    found = stage.fetch(session="c") if moment == "running" else []
    if moment == "ended":
        stage.run(run)
    there = states(run)
    assert there["said"] == {"ended": "success"}.get(moment, moment)

    for session in ("a", "b"):
        for outcome in late:
            assert stage.settle(outcome, session=session) == ["stale"]

    assert states(run) == there
    stage.sound(run)
    for delivery in found:
        stage.do(delivery, session="c")
    stage.run(run)
    # the value of the new generation's own delivery
    assert run.get() != before
    assert run.get()[0].startswith("delivery ")


def test_of_two_results_from_two_deliveries_the_first_that_is_settled_wins(stage: Stage) -> None:
    run = chain(stage.said.s(), stage.give.s()).start()
    (one,) = stage.fetch(session="a")
    slow = stage.body(one)
    pass_time(stage.store, stage.clock, LEASE + 1)
    (two,) = stage.fetch(session="b")
    quick = stage.body(two)

    assert stage.settle(quick, session="b") == ["settled"]
    assert stage.settle(slow, session="a") == ["stale"]

    stage.run(run)
    assert run.get() == "delivery 2"
    assert stage.told("give") == [("give", "delivery 2")]


def test_who_settles_before_its_lost_lease_is_noticed_wins(stage: Stage) -> None:
    run = chain(stage.said.s(), stage.give.s()).start()
    (one,) = stage.fetch(session="a")
    slow = stage.body(one)
    stage.clock.advance(LEASE + 1)

    assert stage.settle(slow, session="a") == ["settled"]

    stage.run(run)
    assert run.get() == "delivery 1"
    assert len(stage.told("said")) == 1


def test_a_result_over_the_limit_fails_its_node_and_is_not_tried_again(stage: Stage) -> None:
    @stage.q.task(name="large", retries=3)
    def large() -> bytes:
        stage.calls.append(("large",))
        return bytes(MAX_PAYLOAD)

    @stage.q.flow(name="f")
    def f() -> Any:
        return [stage.pair(large()), stage.give("beside")]

    run = stage.run(f())

    assert stage.told("large") == [("large",)]
    assert states(run) == {"large": "failed", "pair": "blocked", "give": "success"}
    failure = run.get(raise_errors=False)[0]
    assert failure.node == "large"
    assert failure.exc_type == f"{PayloadTooLarge.__module__}.{PayloadTooLarge.__qualname__}"
    assert f"{MAX_PAYLOAD:,}" in failure.message
