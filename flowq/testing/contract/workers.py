# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Sessions of workers: what they hold, and what becomes of it when they are lost."""

from __future__ import annotations

import msgspec

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
    make_plan,
    pass_time,
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
        assert [(d.id, d.losses) for d in first.deliveries] == [(poison.id, 1)]
        assert store.step("idle", want=5).deliveries == []
        second = store.step("idle", done(first), want=5)
        assert [d.id for d in second.deliveries] == [neighbour.id]

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

    # MORE TestRelease


class TestRenew(StoreContract):
    """Sessions that go on."""

    def test_time_out_of_reach_does_not_count_against_leases(
        self, store: Store, clock: ManualClock
    ) -> None:
        store.enqueue([task()])
        step = store.step("a", want=1, lease_ms=30_000)

        clock.advance((3_600_000) / 1000)
        assert store.renew(["b"], period_ms=10_000) == [None]
        other = store.step("b", want=1)

        assert (other.deliveries, other.next_ms) == ([], 20_000)
        assert store.step("a", done(step)).verdicts == ["settled"]

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
        clock.advance((5_000) / 1000)
        assert store.sessions() == []

    # MORE TestRenew
