# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Sessions of workers: what they hold, and what becomes of it when they are lost."""

from __future__ import annotations

import msgspec
import pytest

from flowq.errors import Failure
from flowq.message import (
    read_cell,
)
from flowq.states import State
from flowq.storage.base import (
    SessionInfo,
    Store,
)
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    done,
    look_at,
    make_plan,
    node,
    pass_time,
    states_of,
    task,
)

__all__ = ["TestRelease", "TestRenew"]

DAY = 86_400_000


class TestRelease(StoreContract):
    """Ends of sessions, and what they held."""

    def test_a_lost_message_goes_alone_to_a_session_that_holds_nothing(
        self, store: Store, clock: ManualClock
    ) -> None:
        poison, neighbour = task(), task()
        store.enqueue([poison, neighbour])
        store.step("dead", want=5)
        busy = task()
        store.enqueue([busy])
        pass_time(store, clock, (15_000) / 1000)
        held = store.step("busy", want=1)
        assert held.deliveries[0].id == busy.id
        pass_time(store, clock, (15_000) / 1000)

        step = store.step("busy", want=5)
        assert (step.deliveries, step.ready, step.alone) == ([], 2, True)

        store.enqueue([task()])
        first = store.step("idle", want=5)
        assert [d.losses for d in first.deliveries] == [1]
        assert store.step("idle", want=5).deliveries == []
        second = store.step("idle", done(first), want=5)
        both = [*first.deliveries, *second.deliveries]
        assert {d.id for d in both} == {poison.id, neighbour.id}

    def test_a_message_that_loses_too_many_workers_is_dead_with_its_history(
        self,
        store: Store,
    ) -> None:
        message = task(max_losses=2)
        store.enqueue([message])

        for name in "ab":
            store.open_session(SessionInfo(name, host="h", pid=7))
            store.step(name, want=1)
            assert store.release(name, lost=[message.id], reason="SIGKILL") == 1

        letter = store.dead()[0]
        assert (letter.id, letter.reason) == (message.id, "lost")
        assert [(x.session, x.host, x.pid, x.delivery, x.reason) for x in letter.losses] == [
            ("a", "h", 7, 1, "SIGKILL"),
            ("b", "h", 7, 2, "SIGKILL"),
        ]
        look = store.look([message.id])[0]
        assert look is not None
        assert look.state == State.FAILED
        assert look.cell is not None
        assert msgspec.msgpack.decode(read_cell(look.cell).body, type=Failure).reason == "lost"

    def test_without_tolerance_the_first_loss_is_the_end(self, store: Store) -> None:
        message = task(max_losses=0)
        store.enqueue([message])
        store.step("a", want=1)

        store.release("a", lost=[message.id])

        assert [d.id for d in store.dead()] == [message.id]

    def test_what_was_not_running_goes_back_uncounted(self, store: Store) -> None:
        ran, waited = task(), task()
        store.enqueue([ran, waited])
        store.step("a", want=5)

        assert store.release("a", lost=[ran.id]) == 2
        assert store.release("a", lost=[ran.id]) == 0

        looks = store.look([ran.id, waited.id])
        assert [(x.state, x.losses) for x in looks if x] == [(State.QUEUED, 1), (State.QUEUED, 0)]

    def test_one_tolerated_loss_is_none(self, store: Store) -> None:
        message = task(max_losses=1)
        store.enqueue([message])
        store.step("a", want=1)

        store.release("a", lost=[message.id])

        assert look_at(store, message.id).state == State.FAILED

    def test_a_lease_that_runs_out_counts_a_loss_and_the_late_settlement_is_stale(
        self, store: Store, clock: ManualClock
    ) -> None:
        message = task()
        store.enqueue([message])
        late = store.step("a", want=1)

        pass_time(store, clock, 36)
        again = store.step("b", want=1)

        assert [(d.delivery, d.losses, d.attempt) for d in again.deliveries] == [(2, 1, 0)]
        assert store.step("a", done(late)).verdicts == ["stale"]
        assert store.step("b", done(again)).verdicts == ["settled"]

    def test_a_dead_node_fails_its_run(self, store: Store) -> None:
        plan = make_plan({"a": [], "b": ["a"]}, max_losses=1)
        store.submit(plan)
        store.step("a", want=1)

        store.release("a", lost=[node(plan, "a")])

        assert states_of(store, plan) == {"root": "failed", "a": "failed", "b": "blocked"}
        assert [letter.id for letter in store.dead()] == [node(plan, "a")]
        assert store.check(plan.id) == []

    def test_what_comes_back_goes_before_what_was_enqueued(self, store: Store) -> None:
        first, second = task(), task()
        store.enqueue([first])
        store.step("a", want=1)
        store.enqueue([second])

        store.release("a")

        assert [d.id for d in store.step("b", want=5).deliveries] == [first.id, second.id]


class TestRenew(StoreContract):
    """Sessions that go on."""

    def test_time_out_of_reach_does_not_count_against_leases(
        self, store: Store, clock: ManualClock
    ) -> None:
        store.enqueue([task()])
        step = store.step("a", want=1, lease_ms=30_000)

        clock.advance(3_600_000 / 1000)
        assert store.renew(["b"], period_ms=10_000) == [None]
        other = store.step("b", want=1)

        assert (other.deliveries, other.next_ms) == ([], 20_000)
        assert store.step("a", done(step)).verdicts == ["settled"]

    @pytest.mark.parametrize("lease_ms", [1_000, 30_000])
    def test_whose_step_comes_first_after_an_outage_takes_nothing_from_the_living(
        self, store: Store, clock: ManualClock, lease_ms: int
    ) -> None:
        store.enqueue([task()])
        step = store.step("a", want=1, lease_ms=lease_ms)

        clock.advance(3 * lease_ms / 1000)
        other = store.step("b", want=1, lease_ms=lease_ms)

        assert other.deliveries == []
        assert store.step("a", done(step), lease_ms=lease_ms).verdicts == ["settled"]

    def test_a_session_reads_back_what_it_holds(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        store.submit(p)
        first = store.step("w", want=1)
        second = store.step("w", done(first), want=1)

        assert store.held("w") == second.deliveries
        assert store.held("nobody") == []

    def test_people_see_sessions_with_what_they_hold(
        self, store: Store, clock: ManualClock
    ) -> None:
        info = SessionInfo("a", host="h", boot="b", pid=3, tasks=("t",), queues=("x", "y"))
        store.open_session(info, lease_ms=5_000)
        store.enqueue([task()])
        store.step("a", want=1, lease_ms=5_000)

        assert store.sessions() == [
            msgspec.structs.replace(info, deadline_ms=clock.now_ms() + 5_000, held=1)
        ]
        clock.advance(5_000 / 1000)
        assert store.sessions() == []

    def test_a_session_that_renews_keeps_what_it_holds(
        self, store: Store, clock: ManualClock
    ) -> None:
        store.enqueue([task()])
        step = store.step("a", want=1)

        for _ in range(10):
            clock.advance(9)
            assert store.renew(["a"]) == [[]]

        assert store.step("b", want=1).deliveries == []
        assert store.step("a", done(step)).verdicts == ["settled"]

    def test_a_session_is_unknown_once_it_was_released(self, store: Store) -> None:
        store.open_session(SessionInfo("a"))
        assert store.renew(["a", "b"]) == [[], None]

        store.release("a")

        assert store.renew(["a"]) == [None]
        assert store.sessions() == []
        store.step("a")
        assert store.renew(["a"]) == [[]]

    def test_opening_a_session_again_changes_nothing(self, store: Store) -> None:
        info = SessionInfo("a", lanes=3)
        store.open_session(info)
        store.enqueue([task()])
        held = store.step("a", want=1).deliveries

        store.open_session(info)

        assert store.held("a") == held
        assert [(s.id, s.lanes, s.held) for s in store.sessions()] == [("a", 3, 1)]

    def test_a_session_that_begins_by_a_step_is_opened_again_by_who_takes_it(
        self, store: Store, clock: ManualClock
    ) -> None:
        info = SessionInfo("a", host="h", boot="b", pid=3)
        store.open_session(info, lease_ms=5_000)
        assert not store.step("a", lease_ms=5_000).unopened

        pass_time(store, clock, 6)
        assert store.step("b").unopened  # which takes back what "a" held
        assert store.step("a").unopened and store.step("a").unopened
        store.open_session(info)

        assert not store.step("a").unopened
        assert [s.pid for s in store.sessions() if s.id == "a"] == [3]
