# SPDX-License-Identifier: MIT
"""One worker in this process, on ``memory://``: lanes, batches, drains, what never ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from flowq import FlowQ, Retry, Skip, current_task, group
from flowq.errors import (
    ConfigError,
    NotProduced,
    RunCancelled,
    StoreUnavailable,
    TaskError,
    WorkerLost,
)
from flowq.executor import Executor, Job, Lane
from flowq.message import id_bytes
from flowq.outcome import GiveBack, Outcome
from flowq.worker import Worker


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.002)


class Gate:
    """A body that runs until it is let go, and how many run now."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self) -> str:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.go.wait(20)
        with self.lock:
            self.now -= 1
        return "through"


@pytest.fixture
def q(store_name: str) -> Iterator[FlowQ]:
    app = FlowQ(store_name, "memory://")
    yield app
    app.store.close()


@pytest.fixture
def gate(q: FlowQ) -> Gate:
    made = Gate()

    @q.task(name="gate")
    def pass_gate() -> str:
        return made()

    return made


class Watched:
    """A store that tells what was asked of it, and may fail."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.steps: list[tuple[list[Outcome], int, int]] = []
        self.fail_before = self.fail_after = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def step(self, session: str, outcomes: Sequence[Outcome] = (), **more: Any) -> Any:
        if self.fail_before:
            self.fail_before -= 1
            raise StoreUnavailable("the request was lost")
        step = self._store.step(session, outcomes, **more)
        self.steps.append((list(outcomes), more["want"], len(step.deliveries)))
        if self.fail_after and step.deliveries:
            self.fail_after -= 1
            raise StoreUnavailable("the answer was lost")
        return step


def worker_of(q: FlowQ, **more: Any) -> tuple[Worker, Watched]:
    worker = Worker(q, "w-test", queues=list(q.queues()), **more)
    worker._store = watched = Watched(q.store)
    return worker, watched


# --- what bodies see and say


def test_results_errors_and_skips_reach_the_caller(q: FlowQ) -> None:
    @q.task(name="div")
    def div(a: int, b: int) -> float:
        return a / b

    @q.task(name="skip")
    def skip() -> None:
        raise Skip("no news")

    with q.consumer(workers=2):
        good, bad, none = div(4, 2), div(1, 0), skip()

        assert good.get(timeout=10) == 2
        with pytest.raises(TaskError, match="ZeroDivisionError"):
            bad.get(timeout=10)
        with pytest.raises(NotProduced, match="no news"):
            none.get(timeout=10)


def test_a_body_knows_what_it_is(q: FlowQ) -> None:
    @q.task(name="who", retries=2, context=True)
    def who(word: str, *, task: Any) -> tuple[Any, ...]:
        mine = current_task()
        assert mine is task
        if mine.attempt == 1:
            raise Retry("once more")
        return word, mine.id, mine.name, mine.attempt, mine.retries_left, mine.deliveries, mine.run

    with q.consumer():
        result = who("me")

        assert result.get(timeout=10) == ("me", result.id, "who", 2, 1, 2, None)
    with pytest.raises(LookupError):
        current_task()


def test_coroutines_run_in_their_lane_and_know_what_they_are(q: FlowQ) -> None:
    @q.task(name="later")
    async def later(x: int) -> tuple[int, str]:
        import asyncio

        await asyncio.sleep(0)
        return x + 1, current_task().name

    with q.consumer():
        assert later(1).get(timeout=10) == (2, "later")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_no_exception_of_a_body_ends_its_worker(q: FlowQ, error: BaseException) -> None:
    @q.task(name="leave", retries=5)
    def leave() -> None:
        raise error

    @q.task(name="stay")
    def stay() -> str:
        return "here"

    with q.consumer():
        with pytest.raises(TaskError, match=type(error).__name__) as raised:
            leave().get(timeout=10)
        assert raised.value.attempts == 1

        assert stay().get(timeout=10) == "here"


def test_a_cancelled_body_is_interrupted_and_its_lane_goes_on(q: FlowQ) -> None:
    running, seen = threading.Event(), threading.Event()

    @q.task(name="long")
    def long() -> None:
        running.set()
        try:
            while True:
                time.sleep(0.002)
        finally:
            if current_task().cancelled:
                seen.set()

    @q.task(name="next")
    def next_() -> str:
        return "ran"

    with q.consumer():
        asleep = long()
        assert running.wait(10)
        asleep.cancel()

        with pytest.raises(RunCancelled):
            asleep.get(timeout=10)
        assert seen.is_set()
        assert next_().get(timeout=10) == "ran"


# --- lanes and batches


def test_as_many_bodies_run_at_once_as_there_are_lanes(q: FlowQ, gate: Gate) -> None:
    results = [q.tasks["gate"]() for _ in range(5)]

    with q.consumer(workers=3):
        until(lambda: gate.now == 3)
        gate.go.set()
        assert [r.get(timeout=10) for r in results] == ["through"] * 5

    assert gate.most == 3


def test_short_tasks_are_fetched_many_at_a_time_and_long_ones_singly(q: FlowQ) -> None:
    @q.task(name="short")
    def short() -> None:
        return None

    @q.task(name="long")
    def long() -> None:
        time.sleep(0.025)

    with q.batch():
        for _ in range(500):
            short()
    worker, store = worker_of(q, drain=True)
    worker.run()
    with q.batch():
        for _ in range(5):
            long()
    slow, slow_store = worker_of(q, drain=True)
    slow.run()

    sizes = [n for _, _, n in store.steps if n]
    assert sizes[0] == 1  # learned from one upwards
    assert max(sizes) >= 32
    assert max(n for _, _, n in slow_store.steps) <= 2


def test_a_large_value_is_read_once_in_a_step_and_each_body_has_its_own(
    q: FlowQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    @q.task(name="large")
    def large() -> list[bytes]:
        return [bytes(600_000), bytes(600_000)]  # more than a reply has room for

    @q.task(name="change")
    def change(parts: list[bytes]) -> int:
        parts.append(b"mine")
        return len(parts)

    asked: list[Any] = []
    cells = q.store.cells

    def counted(*given: Any) -> Any:
        asked.append(given)
        return cells(*given)

    monkeypatch.setattr(q.store, "cells", counted)
    run = (large.s() | group(change.s() for _ in range(4))).start()
    worker, store = worker_of(q, drain=True, lanes=4)

    worker.run()

    assert 4 in [n for _, _, n in store.steps]  # all readers in one step
    assert not asked
    assert run.get(timeout=10) == [3, 3, 3, 3]


def test_a_step_carries_no_more_than_its_store_wants(q: FlowQ) -> None:
    @q.task(name="short")
    def short() -> None:
        return None

    q.store.most = 8
    with q.batch():
        for _ in range(100):
            short()
    worker, store = worker_of(q, drain=True)

    worker.run()

    assert max(want for _, want, _ in store.steps) == 8
    assert max(len(outcomes) for outcomes, _, _ in store.steps) == 8


def test_what_is_fetched_behind_a_long_body_goes_back(q: FlowQ, gate: Gate) -> None:
    @q.task(name="short")
    def short() -> str:
        return "done"

    worker, store = worker_of(q)
    worker._want = 16  # as if it had learned to fetch many
    with q.batch():
        first = q.tasks["gate"]()
        behind = [short() for _ in range(10)]
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: gate.now == 1)

    with q.consumer():  # another worker, which idles
        assert [r.get(timeout=10) for r in behind] == ["done"] * 10

    looks = q.store.look([id_bytes(r.id) for r in behind])
    assert all(x is not None and x.losses == 0 and x.attempt == 0 for x in looks)
    back = [o for outcomes, _, _ in store.steps for o in outcomes if isinstance(o, GiveBack)]
    assert {o.id for o in back} == {id_bytes(r.id) for r in behind}
    gate.go.set()
    assert first.get(timeout=10) == "through"
    worker.stop()
    thread.join(10)


def test_an_outcome_does_not_wait_for_the_long_body_behind_it(q: FlowQ, gate: Gate) -> None:
    @q.task(name="short")
    def short() -> str:
        return "done"

    worker, _ = worker_of(q)
    worker._want = 16
    with q.batch():
        done = short()
        held = q.tasks["gate"]()
    thread = threading.Thread(target=worker.run)
    thread.start()

    assert done.get(timeout=5) == "done"
    assert held.state == "running"

    gate.go.set()
    worker.stop()
    thread.join(10)


def test_stopping_finishes_what_runs_and_gives_back_the_rest(q: FlowQ, gate: Gate) -> None:
    worker, _ = worker_of(q)
    worker._want = 16
    with q.batch():
        held, *rest = [q.tasks["gate"]() for _ in range(4)]
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: gate.now == 1)

    worker.stop()
    gate.go.set()
    thread.join(10)

    assert held.get() == "through"
    assert {r.state for r in rest} == {"queued"}
    assert q.store.sessions() == []


def test_what_a_lane_holds_back_at_the_end_does_not_wait_for_the_other_lane(
    q: FlowQ, gate: Gate
) -> None:
    first, second = threading.Event(), threading.Event()

    @q.task(name="short")
    def short() -> str:
        first.set()
        assert second.wait(20)
        return "done"

    worker, _ = worker_of(q, lanes=2)
    worker._want = 16
    with q.batch():
        q.tasks["gate"]()
        done, *rest = [short() for _ in range(4)]
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: gate.now == 1 and first.is_set())

    worker.stop()
    second.set()

    assert done.get(timeout=5) == "done"
    until(lambda: {r.state for r in rest} == {"queued"}, 5.0)
    assert gate.now == 1
    gate.go.set()
    thread.join(10)


def test_stopping_is_heard_by_a_lane_that_is_just_about_to_sleep(q: FlowQ) -> None:
    worker, store = worker_of(q)
    entered, let_in = threading.Event(), threading.Event()

    def wait_ready(queues: Sequence[str], *, timeout: float) -> bool:
        entered.set()
        assert let_in.wait(10)
        return q.store.wait_ready(queues, timeout=60.0)

    store.wait_ready = wait_ready  # type: ignore[attr-defined]
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert entered.wait(10)

    worker.stop()  # its wake-up comes too early
    let_in.set()

    thread.join(10)
    assert not thread.is_alive()


def test_a_drain_waits_for_what_is_due_later(q: FlowQ) -> None:
    tries: list[int] = []

    @q.task(name="third", retries=5, retry_delay=0.05)
    def third() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return "at last"

    result = third.options(delay=0.05)()

    with q.consumer(workers=2, drain=True):
        pass

    assert result.get() == "at last"


def test_a_drain_of_one_queue_waits_for_no_other(q: FlowQ, gate: Gate) -> None:
    @q.task(name="short")
    def short() -> str:
        return "done"

    with q.consumer(queues=["other"]) as elsewhere:
        held = q.tasks["gate"].options(queue="other")()
        later = short.options(queue="other", delay=3_600)()
        until(lambda: gate.now == 1)
        done = short()

        drain = q.consumer(queues=["default"], drain=True).start()

        assert drain.join(10)
        assert done.get() == "done"
        assert (held.state, later.state) == ("running", "scheduled")
        gate.go.set()
        drain.stop()
        elsewhere.stop()


def test_a_drain_waits_for_what_another_runs_of_its_queues(q: FlowQ, gate: Gate) -> None:
    with q.consumer():
        q.tasks["gate"]()
        until(lambda: gate.now == 1)

        drain = q.consumer(drain=True).start()
        assert not drain.join(0.5)

        gate.go.set()
        assert drain.join(10)
        drain.stop()


def test_a_lane_that_waits_for_the_last_body_of_a_drain_ends_with_it(
    q: FlowQ, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.worker.LOOK_SECONDS", 60.0)
    q.tasks["gate"]()
    worker, store = worker_of(q, lanes=3, drain=True)
    asked: list[Sequence[str]] = []
    store.left = lambda queues: asked.append(queues) or q.store.left(queues)  # type: ignore[attr-defined]
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: gate.now == 1 and worker._waiting)
    steps = len(store.steps)
    time.sleep(0.3)

    assert len(store.steps) == steps and not asked  # nobody looks meanwhile
    gate.go.set()

    thread.join(10)
    assert not thread.is_alive()
    assert worker.drained


# --- a store that fails


@pytest.mark.parametrize("lost", ["fail_before", "fail_after"])
def test_each_body_runs_once_though_requests_and_answers_are_lost(q: FlowQ, lost: str) -> None:
    ran: list[int] = []

    @q.task(name="once")
    def once(i: int) -> int:
        ran.append(i)
        return i

    with q.batch():
        results = [once(i) for i in range(30)]
    worker, store = worker_of(q, drain=True)
    setattr(store, lost, 3)

    worker.run()

    assert sorted(ran) == list(range(30))
    assert [r.get() for r in results] == list(range(30))


class Slow:
    """A value whose pickling takes until it is let go."""

    begun, go = threading.Event(), threading.Event()

    def __reduce__(self) -> Any:
        Slow.begun.set()
        assert Slow.go.wait(20)
        return str, ("slow",)


def test_what_is_not_yet_handed_in_when_an_answer_is_lost_does_not_run_again(q: FlowQ) -> None:
    ran: list[str] = []
    Slow.begun.clear()
    Slow.go.clear()

    @q.task(name="slow")
    def slow() -> Any:
        ran.append("slow")
        return Slow()

    @q.task(name="short")
    def short() -> str:
        ran.append("short")
        return "done"

    worker, store = worker_of(q, lanes=2)
    thread = threading.Thread(target=worker.run)
    thread.start()
    held = slow()
    assert Slow.begun.wait(10)
    store.fail_after = 1  # the answer that hands out the next one
    other = short()

    assert other.get(timeout=10) == "done"
    Slow.go.set()

    assert held.get(timeout=10) == "slow"
    worker.stop()
    thread.join(10)
    assert ran == ["slow", "short"]


def test_a_worker_that_ends_waits_for_the_store_for_the_sake_of_what_has_run(
    q: FlowQ, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.worker.random.uniform", lambda low, high: 0.005)
    worker, store = worker_of(q)
    held = q.tasks["gate"]()
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: gate.now == 1)

    store.fail_before = 20
    worker.stop()
    gate.go.set()
    thread.join(10)

    assert held.get() == "through"


def test_a_worker_that_holds_nothing_ends_though_the_store_is_away(q: FlowQ) -> None:
    worker, store = worker_of(q)
    store.fail_before = 1_000_000
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: store.fail_before < 1_000_000)

    worker.stop()

    thread.join(10)
    assert not thread.is_alive()


def test_a_defect_ends_the_worker_and_not_only_a_lane(q: FlowQ) -> None:
    worker, store = worker_of(q, lanes=3)

    def defect(*args: Any, **more: Any) -> Any:
        raise AssertionError("a defect")

    store.step = defect  # type: ignore[method-assign]

    with pytest.raises(AssertionError, match="a defect"):
        worker.run()


def test_a_consumer_replaces_a_worker_that_a_defect_ended(
    q: FlowQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [True]
    honest = Executor.run

    def run(self: Executor, lane: Lane, job: Job) -> Outcome:
        if broken.pop() if broken else False:
            raise AssertionError("a defect")
        return honest(self, lane, job)

    monkeypatch.setattr(Executor, "run", run)

    @q.task(name="fine")
    def fine() -> str:
        return "ran"

    with q.consumer(workers=2):
        result = fine()
        assert result.get(timeout=10) == "ran"


def test_what_leads_to_a_defect_each_time_becomes_a_dead_letter(
    q: FlowQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Executor.run

    def run(self: Executor, lane: Lane, job: Job) -> Outcome:
        if job.message is not None and job.message.task == "odd":
            raise AssertionError("a defect")
        return honest(self, lane, job)

    monkeypatch.setattr(Executor, "run", run)

    @q.task(name="odd", max_losses=2)
    def odd() -> None:
        return None

    with q.consumer(workers=2), pytest.raises(WorkerLost):
        odd().get(timeout=20)

    [letter] = q.store.dead()
    assert [loss.reason for loss in letter.losses] == ["a defect"] * 2


# --- consumers


def test_memory_is_refused_to_worker_processes(q: FlowQ, gate: Gate) -> None:
    with pytest.raises(ConfigError, match="lives in one process"):
        q.consumer(kind="process").start()

    assert q.consumer(kind="process", drain=True).run() == 2


def test_a_consumer_runs_a_store_in_memory_in_this_process(q: FlowQ) -> None:
    @q.task(name="short")
    def short() -> int:
        return threading.get_ident()

    results = [short() for _ in range(5)]

    assert q.consumer(workers=2, drain=True).run() == 0

    assert all(isinstance(r.get(), int) for r in results)
    assert q.store.sessions() == []


def test_an_app_without_tasks_is_refused(q: FlowQ) -> None:
    with pytest.raises(ConfigError, match="knows no task"):
        q.consumer().start()


def test_a_body_that_does_not_end_goes_back_when_its_consumer_stops(q: FlowQ, gate: Gate) -> None:
    consumer = q.consumer(workers=1).start()
    held = q.tasks["gate"]()
    until(lambda: gate.now == 1)

    consumer.stop(timeout=0.05)

    assert held.state == "queued"
    gate.go.set()
    with q.consumer():
        assert held.get(timeout=10) == "through"


def test_what_was_lost_and_handed_to_us_again_is_not_taken_for_known() -> None:
    q = FlowQ("again", "memory://")
    q.task(name="again.t")(int)()
    first = q.store.step("w", want=1).deliveries[0]
    q.store.release("w")  # its lease was taken away
    second = q.store.step("w", want=1).deliveries[0]  # and this answer was lost
    worker = Worker(q, "w", queues=["default"])

    worker._recover([GiveBack(first.id, first.delivery)])

    assert [job.delivery for job in worker._buffer] == [second]
    q.store.close()


def test_a_worker_whose_session_was_dropped_says_again_whose_it_is() -> None:
    q = FlowQ("anew", "memory://")
    t = q.task(name="anew.t")(int)
    with q.consumer():
        t().get(timeout=10)
        (before,) = q.store.sessions()
        q.store.release(before.id)  # as who takes it for dead does
        t().get(timeout=10)

        until(lambda: [s.pid for s in q.store.sessions()] == [before.pid])
    q.store.close()


def test_a_hint_taken_by_a_lane_that_then_gets_work_from_another_is_put_back(q: FlowQ) -> None:
    # One lane waits; the other fetches for both, so the first has work when it returns with a hint.
    q.task(name="hint.t")(int)
    messages = q.tasks["hint.t"]
    worker, watched = worker_of(q, lanes=2)
    worker._hinted = True
    messages()
    step = q.store.step(worker.session, want=1, queues=worker.queues)
    worker._buffer.extend(Job(d) for d in step.deliveries)

    lane = worker.lanes[0]
    minder = threading.Thread(target=worker._mind, daemon=True)
    minder.start()
    assert worker._next(lane, None) is not None  # and is at it for long

    until(lambda: [want for _, want, _ in watched.steps] == [0])
    worker._ended.set()
    worker._busy.set()
    minder.join(10)
