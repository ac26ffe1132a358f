# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""What reads, what waits, and the housekeeping."""

from __future__ import annotations

import threading

from flowq.message import (
    new_id,
)
from flowq.outcome import Failed, Outcome
from flowq.states import State
from flowq.storage.base import (
    Store,
)
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    cell,
    done,
    make_plan,
    run_all,
    task,
)

__all__ = ["TestReads", "TestSweep", "TestWaits"]

DAY = 86_400_000


class TestReads(StoreContract):
    """Lists, counts and looks."""

    def test_lists_page_and_filter(self, store: Store, clock: ManualClock) -> None:
        plans = [make_plan({f"n{i}": [] for i in range(5)}) for _ in range(3)]
        for p in plans:
            store.submit(p)
            clock.advance((1) / 1000)
        run_all(store, plans[0], {"n1": State.FAILED})

        assert [r.id for r in store.runs(limit=2)] == [plans[2].id, plans[1].id]
        assert [r.id for r in store.runs(after=plans[1].id)] == [plans[0].id]
        assert [n.index for n in store.nodes(plans[0].id, after=2, limit=2)] == [3, 4]
        failed = store.nodes(plans[0].id, state=State.FAILED)
        assert [n.name for n in failed] == ["root", "n1"]
        assert store.nodes(plans[0].id, after=5) == []
        assert store.run(new_id()) is None
        assert store.nodes(new_id()) == []

    # MORE TestReads


class TestSweep(StoreContract):
    """Housekeeping."""

    def test_what_has_ended_goes_when_its_time_is_over_and_nothing_else(
        self, store: Store, clock: ManualClock
    ) -> None:
        ended, open_, failed = make_plan({"a": []}), make_plan({"a": []}), make_plan({"a": []})
        single, unfinished = task(), task(delay_ms=90 * DAY)
        store.submit(ended)
        store.enqueue([single, unfinished])
        store.step("w", done(store.step("w", want=5)))
        store.submit(failed)
        bad = [
            Failed(d.id, 1, cell(State.FAILED), "bad") for d in store.step("w", want=5).deliveries
        ]
        store.step("w", bad)
        store.submit(open_)

        clock.advance((DAY) / 1000)
        swept = store.sweep(limit=2)
        while swept.more:
            swept = store.sweep(limit=2)

        assert store.look([ended.id, single.id]) == [None, None]
        assert [r.id for r in store.runs()] == [open_.id, failed.id]
        assert len(store.dead()) == 1
        clock.advance((30 * DAY) / 1000)
        while store.sweep().more:
            pass
        assert [r.id for r in store.runs()] == [open_.id]
        assert store.dead() == []

    # MORE TestSweep


class TestWaits(StoreContract):
    """Sleeping until there is something."""

    def test_waits_end_when_there_is_something_and_when_there_is_nothing(
        self, store: Store
    ) -> None:
        message = task()
        assert store.wait_ready(["default"], timeout=0.01) is False
        assert store.wait_ended([message.id], timeout=0.01) is True  # it is not known
        store.enqueue([message])

        assert store.wait_ready(["default"], timeout=5) is True
        assert store.wait_ready(["other"], timeout=0.01) is False
        assert store.wait_ended([message.id], timeout=0.01) is False
        store.step("w", done(store.step("w", want=1)))
        assert store.wait_ended([message.id], timeout=5) is True

    def test_threads_that_share_a_store_run_everything_once(self, store: Store) -> None:
        messages = [task() for _ in range(300)]
        ran: list[bytes] = []
        stop = threading.Event()

        def work(name: str) -> None:
            outcomes: list[Outcome] = []
            while not stop.is_set():
                step = store.step(name, outcomes, want=3)
                ran.extend(d.id for d in step.deliveries)
                outcomes = done(step)
                if not outcomes:
                    store.wait_ready(["default"], timeout=0.5)

        threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for i in range(0, 300, 50):
            store.enqueue(messages[i : i + 50])
        for message in messages:
            while not store.wait_ended([message.id], timeout=20):
                pass
        stop.set()
        store.wake()
        for thread in threads:
            thread.join(20)

        assert sorted(ran) == sorted(m.id for m in messages)

    # MORE TestWaits
