# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Tasks called alone: taken in, handed out, settled, stopped and moved."""

from __future__ import annotations

import msgspec
import pytest

from flowq.errors import Failure
from flowq.message import (
    EMPTY,
    decode_message,
    new_id,
    node_id,
    read_cell,
)
from flowq.outcome import Cancelled, Done, Failed, GiveBack, Outcome, RetryAt, Unknown
from flowq.states import State
from flowq.storage.base import (
    MEMORY_OF_ENDED_MS,
    UNKNOWN_PATIENCE_MS,
    SessionInfo,
    Store,
)
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    cell,
    done,
    end,
    look_at,
    make_plan,
    node,
    pass_time,
    run_all,
    states_of,
    task,
)

__all__ = ["TestCancel", "TestEnqueue", "TestReschedule", "TestStep"]

DAY = 86_400_000


class TestEnqueue(StoreContract):
    """Taking in tasks that are called alone."""

    def test_an_enqueue_can_be_repeated_and_says_what_is_new(self, store: Store) -> None:
        a, b, c = task(), task(), task()

        assert store.enqueue([a, b]) == [True, True]
        assert store.enqueue([b, c, c]) == [False, True, False]
        assert store.status().queues[0].ready == 3

    def test_an_id_is_remembered_ten_minutes_after_its_end_and_then_free(
        self, store: Store, clock: ManualClock
    ) -> None:
        message = task(result_ttl_ms=1_000)
        store.enqueue([message])
        store.step("w", done(store.step("w", want=1)))

        clock.advance((MEMORY_OF_ENDED_MS - 1) / 1000)
        assert store.enqueue([message]) == [False]
        clock.advance(1 / 1000)
        assert store.look([message.id]) == [None]
        assert store.enqueue([message]) == [True]
        look = store.look([message.id])[0]
        assert look is not None
        assert look.state == State.QUEUED

    def test_nothing_is_kept_of_a_value_without_time_to_live(self, store: Store) -> None:
        message = task(result_ttl_ms=0)
        store.enqueue([message])

        store.step("w", done(store.step("w", want=1)))

        look = store.look([message.id])[0]
        assert look is not None
        assert look.cell is not None
        kept = read_cell(look.cell)
        assert (kept.state, kept.flags, kept.body) == (State.SUCCESS, EMPTY, b"")

    def test_an_unfinished_task_never_expires(self, store: Store, clock: ManualClock) -> None:
        message = task(result_ttl_ms=1_000, failed_ttl_ms=1_000)
        store.enqueue([message])

        clock.advance(400 * 86_400)
        store.sweep()

        assert [d.id for d in store.step("w", want=1).deliveries] == [message.id]

    def test_a_failure_is_kept_by_its_own_time_to_live(
        self, store: Store, clock: ManualClock
    ) -> None:
        good, bad = (task(result_ttl_ms=700_000, failed_ttl_ms=900_000) for _ in range(2))
        store.enqueue([good, bad])
        a, b = store.step("w", want=2).deliveries
        store.step("w", [end(a), end(b, State.FAILED)])

        clock.advance(800)
        store.sweep()

        assert [x and x.state for x in store.look([good.id, bad.id])] == [None, State.FAILED]


class TestStep(StoreContract):
    """Settling and handing out."""

    def test_a_settlement_is_fenced_by_its_delivery(self, store: Store) -> None:
        message = task()
        store.enqueue([message])
        step = store.step("w", want=1)
        late = Done(message.id, 7, cell(State.SUCCESS))

        assert store.step("w", [late]).verdicts == ["stale"]
        assert store.step("other", done(step)).verdicts == ["stale"]
        assert store.step("w", done(step)).verdicts == ["settled"]
        assert store.step("w", done(step)).verdicts == ["repeated"]
        assert store.step("w", [Done(new_id(), 1, b"")]).verdicts == ["stale"]

    def test_a_taken_back_delivery_cannot_be_settled(self, store: Store) -> None:
        store.enqueue([task()])
        step = store.step("w", want=1)

        store.release("w")

        assert store.step("w", done(step)).verdicts == ["stale"]
        again = store.step("w", want=1)
        assert again.deliveries[0].delivery == 2
        assert store.step("w", done(step)).verdicts == ["stale"]
        assert store.step("w", done(again)).verdicts == ["settled"]

    def test_a_retry_waits_counts_an_attempt_and_goes_before_what_was_enqueued(
        self, store: Store, clock: ManualClock
    ) -> None:
        first, second = task(), task()
        store.enqueue([first])
        step = store.step("w", want=1)
        store.enqueue([second])

        step = store.step("w", [RetryAt(first.id, step.deliveries[0].delivery, 5_000)])
        assert step.next_ms == 5_000
        clock.advance(5_000 / 1000)
        step = store.step("w", want=5)

        assert [d.id for d in step.deliveries] == [first.id, second.id]
        assert (step.deliveries[0].attempt, step.deliveries[0].losses) == (1, 0)

    def test_what_is_given_back_counts_nothing(self, store: Store) -> None:
        message = task()
        store.enqueue([message, task()])
        step = store.step("w", want=1)

        step = store.step("w", [GiveBack(message.id, 1)], want=1)

        given = step.deliveries[0]
        assert (given.id, given.delivery, given.attempt, given.losses) == (message.id, 2, 0, 0)

    def test_what_is_given_back_goes_first_again_in_its_order(self, store: Store) -> None:
        p = make_plan({"s": [], **{f"i{k}": ["s"] for k in range(6)}})
        store.submit(p)
        given = store.step("w", done(store.step("w", want=1)), want=4).deliveries
        back = [GiveBack(d.id, d.delivery) for d in given]

        store.step("w", back[2:])
        step = store.step("w", back[:2], want=10)

        assert [d.id for d in step.deliveries] == [node(p, f"i{k}") for k in range(6)]

    def test_one_that_lost_a_worker_goes_first_again_too(self, store: Store) -> None:
        lost = [task(), task()]
        store.enqueue(lost)
        store.step("gone", want=2)
        store.release("gone", lost=[m.id for m in lost])
        store.enqueue([task()])
        (given,) = store.step("w", want=1).deliveries

        (again,) = store.step("w", [GiveBack(given.id, given.delivery)], want=1).deliveries

        assert (again.id, again.losses, again.delivery) == (given.id, 1, 3)

    def test_a_task_that_nobody_knows_comes_back_later_each_time_and_then_is_dead(
        self, store: Store, clock: ManualClock
    ) -> None:
        message = task()
        store.enqueue([message])
        waits = []
        start = clock.now_ms()

        while True:
            step = store.step("w", want=1)
            if step.deliveries:
                d = step.deliveries[0]
                step = store.step("w", [Unknown(d.id, d.delivery, cell(State.FAILED))])
            if store.dead():
                break
            assert step.next_ms is not None
            waits.append(step.next_ms)
            pass_time(store, clock, (step.next_ms) / 1000)

        assert waits == sorted(waits)
        assert waits[0] < waits[-1] <= 60_000
        assert UNKNOWN_PATIENCE_MS <= clock.now_ms() - start <= UNKNOWN_PATIENCE_MS + 60_000
        letter = store.dead_letter(message.id)
        assert letter is not None
        assert letter.reason == "unknown task"
        assert decode_message(letter.body) == message

    def test_the_highest_priority_goes_first_over_all_queues(self, store: Store) -> None:
        low, high, other = task(priority=-5), task(priority=9), task(priority=3, queue="b")
        same = task(priority=3)
        store.enqueue([low, high, other, same])

        step = store.step("w", want=10, queues=("b", "default"))

        assert [d.id for d in step.deliveries] == [high.id, other.id, same.id, low.id]

    def test_a_session_takes_no_more_than_its_share(self, store: Store) -> None:
        for name in "abc":
            store.open_session(SessionInfo(name))
        store.enqueue([task() for _ in range(10)])

        assert len(store.step("a", want=100).deliveries) == 4
        assert len(store.step("b", want=2).deliveries) == 2
        assert store.step("c", want=100).ready == 2

    def test_a_message_that_asks_for_it_comes_alone_in_its_step(self, store: Store) -> None:
        plain, picky, last = task(), task(prefetch=1), task()
        store.enqueue([plain, picky, last])

        given = [[d.id for d in store.step("w", want=5).deliveries] for _ in range(3)]

        assert given == [[plain.id], [picky.id], [last.id]]

    def test_what_is_delayed_is_not_seen_before_its_time(
        self, store: Store, clock: ManualClock
    ) -> None:
        soon, at = task(delay_ms=2_000), task(due_ms=clock.now_ms() + 1_000)
        store.enqueue([soon, at])

        step = store.step("w", want=5)
        assert (step.deliveries, step.ready, step.next_ms) == ([], 0, 1_000)
        clock.advance(2_000 / 1000)

        assert [d.id for d in store.step("w", want=5).deliveries] == [at.id, soon.id]

    @pytest.mark.parametrize("by", ["step", "sweep"])
    def test_what_was_not_begun_in_time_fails(
        self, store: Store, clock: ManualClock, by: str
    ) -> None:
        late, fine = task(expires_in_ms=1_000), task()
        store.enqueue([late, fine])
        clock.advance(1_000 / 1000)

        if by == "sweep":
            assert store.sweep().expired == 1
        step = store.step("w", want=5)

        assert [d.id for d in step.deliveries] == [fine.id]
        assert step.ready == 0
        look = store.look([late.id])[0]
        assert look is not None
        assert look.cell is not None
        failure = msgspec.msgpack.decode(read_cell(look.cell).body, type=Failure)
        assert (failure.reason, failure.task) == ("expired", "t.add")

    def test_a_body_that_began_in_time_does_not_expire(
        self, store: Store, clock: ManualClock
    ) -> None:
        message = task(expires_in_ms=1_000)
        store.enqueue([message])
        step = store.step("w", want=1)

        clock.advance(5_000 / 1000)
        store.sweep()

        assert store.step("w", done(step)).verdicts == ["settled"]

    def test_equal_priorities_come_in_the_order_of_the_queues_and_then_of_arrival(
        self, store: Store
    ) -> None:
        messages = [task(queue=q) for q in ("a", "b", "a", "b")]
        store.enqueue(messages)

        step = store.step("w", want=9, queues=("b", "a"))

        order = [messages[i].id for i in (1, 3, 0, 2)]
        assert [d.id for d in step.deliveries] == order

    def test_a_queue_that_is_not_asked_for_is_left_alone(self, store: Store) -> None:
        store.enqueue([task(queue="other")])

        step = store.step("w", want=9)

        assert (step.deliveries, step.ready) == ([], 0)

    def test_each_outcome_is_settled_once_whatever_kind_it_is(self, store: Store) -> None:
        for state in (State.SUCCESS, State.FAILED, State.SKIPPED, State.CANCELLED):
            store.enqueue([message := task()])
            outcomes = done(store.step("w", want=1), state)

            assert store.step("w", outcomes).verdicts == ["settled"]
            assert store.step("w", outcomes).verdicts == ["repeated"]
            assert look_at(store, message.id).state == state

    def test_a_failure_with_a_reason_is_kept_as_a_dead_letter(self, store: Store) -> None:
        message = task()
        store.enqueue([message])
        (d,) = store.step("w", want=1).deliveries

        store.step("w", [Failed(d.id, d.delivery, cell(State.FAILED), "undecodable")])

        letter = store.dead_letter(message.id)
        assert letter is not None
        assert (letter.reason, decode_message(letter.body)) == ("undecodable", message)
        assert store.dead_letter(new_id()) is None

    def test_the_attempts_that_failed_are_counted(self, store: Store) -> None:
        message = task()
        store.enqueue([message])

        for attempt in range(4):
            (d,) = store.step("w", want=1).deliveries
            assert (d.attempt, d.delivery) == (attempt, attempt + 1)
            store.step("w", [RetryAt(d.id, d.delivery, 0)])

        assert look_at(store, message.id).attempt == 4


class TestCancel(StoreContract):
    """Stopping tasks and nodes."""

    def test_cancel_ends_what_has_not_begun_and_stops_what_runs(self, store: Store) -> None:
        running, queued, later, past = task(), task(), task(delay_ms=5_000), task()
        store.enqueue([past])
        store.step("w", done(store.step("w", want=1)))
        store.enqueue([running])
        step = store.step("w", want=1)
        store.enqueue([queued, later])

        after = store.cancel([running.id, queued.id, later.id, past.id, new_id()])

        assert after == [State.RUNNING, State.CANCELLED, State.CANCELLED, State.SUCCESS, None]
        assert store.renew(["w"]) == [[running.id]]
        assert store.step("w").stops == [running.id]
        assert store.step("w", done(step)).verdicts == ["settled"]
        look = store.look([running.id])[0]
        assert look is not None
        assert look.state == State.CANCELLED
        assert store.step("w", want=5).deliveries == []

    @pytest.mark.parametrize("how", ["retry", "give back", "unknown", "lost", "interrupted"])
    def test_a_cancelled_body_ends_cancelled_whatever_came_of_it(
        self, store: Store, how: str
    ) -> None:
        message = task()
        store.enqueue([message])
        store.step("w", want=1)
        store.cancel([message.id])

        if how == "lost":
            store.release("w", lost=[message.id])
        else:
            kinds: dict[str, Outcome] = {
                "retry": RetryAt(message.id, 1, 0),
                "give back": GiveBack(message.id, 1),
                "unknown": Unknown(message.id, 1, cell(State.FAILED)),
                "interrupted": Cancelled(message.id, 1, cell(State.CANCELLED, b"why")),
            }
            assert store.step("w", [kinds[how]], want=1).deliveries == []

        look = store.look([message.id])[0]
        assert look is not None
        assert look.state == State.CANCELLED

    def test_a_cancelled_node_ends_what_waits_for_it(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"], "c": ["a"]}, rules={"c": "all_done"})
        store.submit(p)

        assert store.cancel([node_id(p.id, 1)]) == [State.CANCELLED]

        assert run_all(store, p) == ["c"]
        assert states_of(store, p) == {
            "root": "cancelled",
            "a": "cancelled",
            "b": "cancelled",
            "c": "success",
        }


class TestReschedule(StoreContract):
    """Moving what has not begun."""

    def test_reschedule_moves_what_has_not_begun(self, store: Store, clock: ManualClock) -> None:
        message = task(delay_ms=60_000)
        store.enqueue([message])

        assert store.reschedule(message.id) == State.QUEUED
        assert store.reschedule(message.id, delay_ms=7_000) == State.SCHEDULED
        assert store.step("w", want=1).next_ms == 7_000
        assert store.reschedule(message.id, due_ms=clock.now_ms()) == State.QUEUED
        assert len(store.step("w", want=1).deliveries) == 1
        assert store.reschedule(message.id) == State.RUNNING
        assert store.reschedule(new_id()) is None
        assert store.status().queues[0].ready == 0

    def test_what_has_ended_stays(self, store: Store) -> None:
        message = task()
        store.enqueue([message])
        store.step("w", done(store.step("w", want=1)))

        assert store.reschedule(message.id, delay_ms=1) == State.SUCCESS
        assert store.step("w", want=1).deliveries == []
