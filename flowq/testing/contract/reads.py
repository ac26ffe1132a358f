# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""What reads, what waits, and the housekeeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from flowq.message import (
    new_id,
)
from flowq.outcome import Failed, Outcome
from flowq.plan import Bits
from flowq.states import State
from flowq.storage.base import (
    PAGE,
    Store,
)
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    cell,
    done,
    end,
    make_plan,
    node,
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
            clock.advance(1 / 1000)
        run_all(store, plans[0], {"n1": State.FAILED})

        assert [r.id for r in store.runs(limit=2)] == [plans[2].id, plans[1].id]
        assert [r.id for r in store.runs(after=plans[1].id)] == [plans[0].id]
        assert [n.index for n in store.nodes(plans[0].id, after=2, limit=2)] == [3, 4]
        failed = store.nodes(plans[0].id, state=State.FAILED)
        assert [n.name for n in failed] == ["root", "n1"]
        assert store.nodes(plans[0].id, after=5) == []
        assert store.run(new_id()) is None
        assert store.nodes(new_id()) == []

    def test_a_run_that_expired_is_gone_before_it_is_swept(
        self, store: Store, clock: ManualClock
    ) -> None:
        plan = make_plan({"a": []}, ttl={"result_ttl_ms": 700_000, "failed_ttl_ms": 700_000})
        store.submit(plan)
        run_all(store, plan)
        a = node(plan, "a")
        clock.advance(699.999)
        assert [x is None for x in store.look([plan.id, a])] == [False, False]
        assert store.message(a) and store.cells(plan.id, ((0, 2),))

        clock.advance(0.001)

        assert store.look([plan.id, a]) == [None, None]
        assert store.run(plan.id) is None
        assert store.message(a) is None
        assert (store.runs(), store.nodes(plan.id), store.cells(plan.id, ((0, 2),))) == ([], [], {})
        assert store.submit(plan)
        assert [look is not None for look in store.look([plan.id, a])] == [True, True]
        store.sweep()
        assert run_all(store, plan) == ["a"]

    def test_the_message_of_a_dead_letter_is_there_as_long_as_the_letter(
        self, store: Store, clock: ManualClock
    ) -> None:
        message = task(failed_ttl_ms=700_000)
        store.enqueue([message])
        body = store.message(message.id)
        (d,) = store.step("w", want=1).deliveries
        store.step("w", [Failed(d.id, d.delivery, cell(State.FAILED), dead="unreadable")])

        assert body is not None and store.message(message.id) == body
        clock.advance(700)

        assert store.message(message.id) is None
        assert (store.dead(), store.dead_letter(message.id)) == ([], None)

    def test_the_counts_of_a_store_follow_what_happens(self, store: Store) -> None:
        plan = make_plan({"a": []})
        store.submit(plan)
        store.enqueue([task(), task(queue="b"), task(delay_ms=9_000)])
        (d,) = store.step("w", want=1).deliveries

        status = store.status()

        assert {q.name: q.ready for q in status.queues if q.ready} == {"default": 1, "b": 1}
        assert (status.scheduled, status.running, status.dead, status.runs) == (1, 1, 0, 1)
        store.step("w", [Failed(d.id, d.delivery, cell(State.FAILED), "bad")])
        status = store.status()
        assert (status.running, status.dead) == (0, 1)

    def test_what_is_left_is_asked_of_some_queues(self, store: Store, clock: ManualClock) -> None:
        store.submit(make_plan({"a": [], "b": ["a"]}))
        assert store.left(["default"])
        assert not store.left(["other"])
        step = store.step("w", want=1)
        assert store.left(["other", "default"])
        step = store.step("w", done(step), want=1)
        store.step("w", done(step))
        assert not store.left(["default"])

        store.enqueue([task(delay_ms=1_000)])

        assert store.left(["default"])
        clock.advance(2)
        step = store.step("w", want=1)
        assert store.left(["default"])
        store.step("w", done(step))
        assert not store.left(["default"])

    def test_pages_of_work_that_a_step_left_count_as_left(self, store: Store) -> None:
        store.submit(make_plan({"a": [], **{f"b{i}": ["a"] for i in range(3 * PAGE)}}))
        step = store.step("w", want=1)

        store.step("w", [end(step.deliveries[0], State.FAILED)])  # all the others are blocked

        assert store.left(["default"])
        for _ in range(6):
            store.step("w")
        assert not store.left(["default"])

    def test_what_is_left_is_found_behind_much_that_is_not(self, store: Store) -> None:
        store.enqueue([task(queue="other", delay_ms=5_000) for _ in range(1_500)])
        store.enqueue([task(queue="other", delay_ms=6_000) for _ in range(1_500)])

        assert not store.left(["default"])

        store.enqueue([last := task(delay_ms=6_000)])
        assert store.left(["default"])
        store.cancel([last.id])
        assert not store.left(["default"])
        store.enqueue([task(delay_ms=7_000)])
        assert store.left(["default"])

    def test_dead_letters_come_newest_first_in_pages(
        self, store: Store, clock: ManualClock
    ) -> None:
        ids: list[bytes] = []
        for _ in range(5):
            store.enqueue([message := task()])
            (d,) = store.step("w", want=1).deliveries
            store.step("w", [Failed(d.id, d.delivery, cell(State.FAILED), "bad")])
            ids.insert(0, message.id)
            clock.advance(1)

        assert [x.id for x in store.dead(limit=2)] == ids[:2]
        assert [x.id for x in store.dead(after=ids[1], limit=2)] == ids[2:4]
        assert [x.id for x in store.dead(after=ids[3])] == ids[4:]

    def test_what_is_not_known_is_none(self, store: Store) -> None:
        id = new_id()

        assert store.look([id, id + bytes(4)]) == [None, None]
        assert store.message(id) is None
        assert store.run(id) is None
        assert store.cancel([id]) == [None]
        assert store.cells(id, ((0, 5),)) == {}


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

        clock.advance(DAY / 1000)
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

    @pytest.mark.parametrize("forgiven", [False, True])
    def test_a_dead_letter_of_a_node_is_kept_as_long_as_its_run(
        self, store: Store, clock: ManualClock, forgiven: bool
    ) -> None:
        plan = make_plan(
            {"bad": [], "slow": []},
            bits={"bad": Bits.FORGIVEN} if forgiven else {},
            ttl={"result_ttl_ms": 1_000_000, "failed_ttl_ms": 2_000_000},
        )
        store.submit(plan)
        bad, slow = store.step("w", want=2).deliveries
        store.step("w", [Failed(bad.id, 1, cell(State.FAILED), "bad")])

        def letters_after(seconds: float) -> list[bytes]:
            clock.advance(seconds)
            store.renew([])
            while store.sweep().more:
                pass
            assert (store.dead_letter(bad.id) is not None) == bool(store.dead())
            assert (store.run(plan.id) is not None) == bool(store.dead())
            return [letter.id for letter in store.dead()]

        assert letters_after(90 * DAY / 1_000) == [bad.id]  # while it runs, however long
        store.step("w", [end(slow)])
        assert letters_after(999 if forgiven else 1_999) == [bad.id]
        assert letters_after(1) == []


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

    def test_a_sleeper_wakes_when_something_comes_when_it_ends_and_when_told(
        self, store: Store
    ) -> None:
        message = task()

        def later(do: Callable[[], object], wait: Callable[[], bool]) -> tuple[bool, float]:
            timer = threading.Timer(0.05, do)
            began = time.monotonic()
            timer.start()
            woken = wait()
            timer.join()
            return woken, time.monotonic() - began

        woken, took = later(
            lambda: store.enqueue([message]), lambda: store.wait_ready(["default"], timeout=20)
        )
        assert woken
        assert took < 10
        step = store.step("w", want=1)
        woken, took = later(
            lambda: store.step("w", done(step)), lambda: store.wait_ended([message.id], timeout=20)
        )
        assert woken
        assert took < 10
        _, took = later(store.wake, lambda: store.wait_ready(["none"], timeout=20))
        assert took < 10
