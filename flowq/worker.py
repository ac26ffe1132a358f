# SPDX-License-Identifier: MIT
"""Fetch, execute, settle: what one worker does, in one or several lanes.

A `Worker` is one session of the store. Its lanes share what was fetched; the lane that runs dry
settles what all of them have finished and fetches the next batch, in one step. So there is no
thread between the store and a body, and a hop of a chain costs one round trip.

A small thread beside the lanes minds that nothing waits behind a long body: outcomes that have
waited 5 ms are settled, and what was fetched but not started goes back after 100 ms.
"""

from __future__ import annotations

import ctypes
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from flowq.clock import Clock
from flowq.coordinator import (
    decide,
    done,
    exception_text,
    traceback_text,
    undecodable,
    unknown_task,
)
from flowq.current import CURRENT, CurrentTask
from flowq.errors import DecodeError, PayloadError, StoreError, StoreUnavailable, TaskCancelled
from flowq.message import Delivery, Message, decode_message, id_text
from flowq.outcome import Done, Failed, GiveBack, Outcome, RetryAt, Unknown
from flowq.policy import RetryPolicy, nearest
from flowq.serializer import Serializer
from flowq.storage.base import SessionId, Step, Store
from flowq.values import load_args

if TYPE_CHECKING:
    from flowq.task import Task

__all__ = ["App", "Worker", "drain_inline", "raise_in_thread"]

log = logging.getLogger("flowq.worker")

BATCH_SECONDS: Final = 0.020
"""Expected work that a worker holds at most."""
MOST: Final = 128
"""Messages that it holds at most."""
FLUSH_SECONDS: Final = 0.005
"""An outcome waits so long at most while a body runs on."""
RETURN_SECONDS: Final = 0.100
"""What is not started goes back when a body has run so long."""
LOOK_SECONDS: Final = 3.0
"""An idle worker looks at least so often: what a lost wake-up costs."""
DRAIN_SECONDS: Final = 0.1
"""A worker that ends when nothing is left looks so often while others still run something."""
_NEVER: Final = RetryPolicy()


class App(Protocol):
    """What a worker must know of the app; `flowq.app.FlowQ` has it."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def clock(self) -> Clock:
        """The reader of time."""
        ...

    @property
    def serializer(self) -> Serializer:
        """Codec of arguments and results."""
        ...

    @property
    def store(self) -> Store:
        """Where its tasks are."""
        ...

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """Its tasks by name."""
        ...

    def queues(self) -> tuple[str, ...]:
        """The queues that its tasks name."""
        ...

    def load(self) -> None:
        """Import what defines further tasks."""
        ...


class Job:
    """A delivery with what was read of it."""

    __slots__ = ("delivery", "error", "message")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.message: Message | None = None
        self.error: DecodeError | None = None
        try:
            self.message = decode_message(delivery.body)
        except DecodeError as err:
            self.error = err


class Lane:
    """What runs one body at a time."""

    __slots__ = ("current", "error", "interrupted", "job", "lock", "number", "since", "thread")

    def __init__(self, number: int) -> None:
        self.number = number
        self.lock = threading.Lock()
        self.thread = 0
        self.job: Job | None = None
        self.since = 0.0
        self.current: CurrentTask | None = None
        self.error: BaseException | None = None
        self.interrupted = False


class Worker:
    """One session that fetches, executes and settles.

    Parameters
    ----------
    app : App
    session : str
    queues : sequence of str
    lanes : int
        Bodies at a time.
    lease : float
        Seconds for which the store keeps what the session holds, from its last step or renewal.
    drain : bool
        End when nothing is left to do.
    note : callable, optional
        Called with a lane's number and the id that it begins to run, or b"" at its end: where a
        parent looks if this process dies.
    interrupt : callable, optional
        Raises ``TaskCancelled`` in the thread of that number; `raise_in_thread` unless given.
    """

    def __init__(
        self,
        app: App,
        session: SessionId,
        *,
        queues: Sequence[str],
        lanes: int = 1,
        lease: float = 30.0,
        drain: bool = False,
        note: Callable[[int, bytes], None] | None = None,
        interrupt: Callable[[int], None] | None = None,
    ) -> None:
        self.session = session
        self._interrupt = interrupt or raise_in_thread
        self.queues = list(queues)
        self.lanes = [Lane(i) for i in range(lanes)]
        self._app = app
        self._store = app.store
        self._tasks = app.tasks
        self._serializer = app.serializer
        self._now_ms = app.clock.now_ms
        self._lease = lease
        self._lease_ms = round(lease * 1000)
        self._drain = drain
        self._note = note
        self._state = threading.Condition()
        # All below is guarded by `_state`.
        self._buffer: deque[Job] = deque()
        self._done: list[Outcome] = []
        self._oldest = 0.0
        self._running = 0
        self._stepping = False
        self._waiting = False
        self._alone = False
        self._want = 1
        self._began = 0.0
        self._fetched = 0
        self._next_wait = LOOK_SECONDS
        self._stopping = False
        self._drained = False
        self._broken: BaseException | None = None
        # Not guarded: written by lanes, a lost update costs nothing.
        self._usual: dict[str, float] = {}
        self._busy = threading.Event()
        self._ended = threading.Event()
        self._away = False
        self._odd: set[str] = set()

    # --- life ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work in this thread, and in one more a further lane, until stopped or drained.

        Raises
        ------
        BaseException
            A defect of flowq's or of the store's own; the session is left as it stands.
        """
        minder = threading.Thread(
            target=self._guard, args=(self._mind,), name=f"{self.session}-minder", daemon=True
        )
        minder.start()
        others = [
            threading.Thread(
                target=self._guard,
                args=(partial(self._serve, lane),),
                name=f"{self.session}-{lane.number}",
                daemon=True,
            )
            for lane in self.lanes[1:]
        ]
        for thread in others:
            thread.start()
        try:
            self._guard(partial(self._serve, self.lanes[0]))
            for thread in others:
                thread.join()
            if self._broken is not None:
                raise self._broken
            self._finish()
        finally:
            self._ended.set()
            self._busy.set()
            minder.join()

    def stop(self) -> None:
        """Start nothing more: what runs is finished and settled, the rest goes back."""
        with self._state:
            self._stopping = True
            self._state.notify_all()
        self._store.wake()

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stopping

    def cancel(self, ids: Sequence[bytes]) -> None:
        """Interrupt bodies that were cancelled."""
        wanted = set(ids)
        for lane in self.lanes:
            with lane.lock:
                job = lane.job
                if job is None or lane.interrupted or job.delivery.id not in wanted:
                    continue
                lane.interrupted = True
                if lane.current is not None:
                    lane.current.stop()
                self._interrupt(lane.thread)

    @property
    def busy_since(self) -> float | None:
        """When the body began that runs longest (monotonic seconds); None if none runs."""
        return min((lane.since for lane in self.lanes if lane.job is not None), default=None)

    # --- lanes -----------------------------------------------------------------------------------

    def _serve(self, lane: Lane) -> None:
        lane.thread = threading.get_ident()
        while (job := self._next()) is not None:
            outcome = self.execute(lane, job)
            with self._state:
                self._running -= 1
                if not self._done:
                    self._oldest = time.monotonic()
                self._done.append(outcome)

    def _guard(self, work: Callable[[], None]) -> None:
        """End the whole worker on a defect of flowq's or a store's own; `run` raises it.

        Whoever watches releases the session and starts another one.
        """
        try:
            work()
        except BaseException as err:
            with self._state:
                self._broken = self._broken or err
                self._stopping = True
                self._stepping = self._waiting = False
                self._state.notify_all()
            self._store.wake()

    def _next(self) -> Job | None:
        """Give the next job, from what was fetched or by a step; None if it is time to end."""
        while True:
            with self._state:
                while True:
                    if self._stopping or self._drained:
                        self._return_all()
                        return None
                    if self._buffer:
                        self._running += 1
                        job = self._buffer.popleft()
                        if (self._buffer or self._done) and not self._busy.is_set():
                            self._busy.set()
                        return job
                    dry = not self._done and (self._waiting or (self._alone and self._running))
                    if not self._stepping and not dry:
                        break
                    self._state.wait()
                self._stepping = True
                want = 0 if self._alone and self._running else self._size()
                outcomes, self._done = self._done, []
            if not self._step(outcomes, want) and want:
                self._wait()

    def _wait(self) -> None:
        """Sleep until there may be work, or find that nothing is left."""
        with self._state:
            if self._waiting or self._stopping or self._done or self._buffer:
                return
            self._waiting = True
            timeout = self._next_wait
        drained = False
        try:
            if self._drain:
                drained = self._is_drained()
                timeout = min(timeout, DRAIN_SECONDS)  # another worker's end wakes nobody here
            if not drained:
                self._store.wait_ready(self.queues, timeout=timeout)
        except StoreError:
            self._ended.wait(0.2)  # the next step says that it is away, and waits longer
        finally:
            with self._state:
                self._waiting = False
                self._drained = drained
                self._state.notify_all()

    def _is_drained(self) -> bool:
        with self._state:
            if self._running or self._buffer or self._done:
                return False
        status = self._store.status()
        ready = sum(q.ready for q in status.queues if q.name in self.queues)
        return not (ready or status.scheduled or status.running)

    def _size(self) -> int:
        """Say how many messages to ask for: about 20 ms of work, learned from one upwards."""
        idle = len(self.lanes) - self._running
        if self._fetched:
            took = max(time.monotonic() - self._began, 1e-6)
            fits = int(self._fetched * BATCH_SECONDS / took)
            self._want = max(1, min(self._want * 2, fits, MOST))
            self._fetched = 0
        return max(self._want, idle)

    # --- the store -------------------------------------------------------------------------------

    def _step(self, outcomes: list[Outcome], want: int) -> bool:
        """Settle and fetch; the caller has set `_stepping`. Says whether something was fetched."""
        step = self._reach(outcomes, want)
        jobs = [Job(d) for d in step.deliveries] if step else []
        returned = self._too_long(jobs) if len(jobs) > 1 else []
        with self._state:
            self._stepping = False
            if jobs:
                self._buffer.extend(jobs)
                self._began, self._fetched = time.monotonic(), len(jobs)
            if returned:
                if not self._done:
                    self._oldest = 0.0
                self._done += returned
                self._busy.set()
            if step is not None:
                self._alone = step.alone
                soon = LOOK_SECONDS * random.uniform(0.8, 1.0)
                self._next_wait = soon if step.next_ms is None else min(soon, step.next_ms / 1000)
            sleeper = self._waiting and len(jobs) > 1
            self._state.notify_all()
        if sleeper:
            self._store.wake()  # a lane that waits at the store has work here now
        if step is not None and step.stops:
            self.cancel(step.stops)
        return bool(jobs)

    def _reach(self, outcomes: list[Outcome], want: int) -> Step | None:
        """Do one step, trying again while the store is away; None if the end came meanwhile."""
        tries = 0
        while True:
            try:
                if tries:
                    self._recover(outcomes)
                step = self._store.step(
                    self.session, outcomes, want=want, queues=self.queues, lease_ms=self._lease_ms
                )
            except StoreError as err:
                tries += 1
                self._say_away(err)
                if self._ended.wait(min(2.0, 0.05 * 2**tries) * random.uniform(0.5, 1.0)):
                    return None
                if self._stopping and tries > 5:
                    log.error("%d outcomes could not be settled: %s", len(outcomes), err)
                    return None
                continue
            if self._away:
                self._away = False
                log.warning("the store is back: %s", self._store.url)
            if len(self.queues) > 1:
                self.queues.append(self.queues.pop(0))
            for outcome, verdict in zip(outcomes, step.verdicts, strict=True):
                if verdict == "stale":
                    log.warning(
                        "%s: the lease was lost, so its outcome is dropped", id_text(outcome.id)
                    )
            return step

    def _recover(self, outcomes: list[Outcome]) -> None:
        """Take what was handed out in an answer that never came."""
        with self._state:
            known = {o.id for o in outcomes} | {o.id for o in self._done}
            known |= {job.delivery.id for job in self._buffer}
            known |= {ln.job.delivery.id for ln in self.lanes if ln.job is not None}
        more = [Job(d) for d in self._store.held(self.session) if d.id not in known]
        with self._state:
            self._buffer.extend(more)

    def _say_away(self, err: StoreError) -> None:
        if not self._away:
            self._away = True
            what = "is away" if isinstance(err, StoreUnavailable) else "refuses"
            log.warning("the store %s, trying again until it is back: %s", what, err)

    def _too_long(self, jobs: list[Job]) -> list[Outcome]:
        """Take off `jobs` what is known to be more than 20 ms of work; give it back unstarted."""
        expected, kept = 0.0, 0
        allowed = BATCH_SECONDS * max(1, len(self.lanes))
        for job in jobs:
            usual = self._usual.get(job.message.task, 0.0) if job.message else 0.0
            if kept and expected + usual > allowed and kept >= len(self.lanes):
                break
            expected += usual
            kept += 1
        back = [GiveBack(j.delivery.id, j.delivery.delivery) for j in jobs[kept:]]
        del jobs[kept:]
        return list(back)

    def _return_all(self) -> None:
        """Put what was not started among the outcomes; under `_state`."""
        self._done += [GiveBack(j.delivery.id, j.delivery.delivery) for j in self._buffer]
        self._buffer.clear()

    def _finish(self) -> None:
        with self._state:
            outcomes, self._done = self._done, []
        if outcomes:
            self._reach(outcomes, 0)
        try:
            self._store.release(self.session)
        except StoreError as err:
            log.warning("the session could not be ended, its lease will: %s", err)

    # --- beside the lanes ------------------------------------------------------------------------

    def _mind(self) -> None:
        while not self._ended.is_set():
            self._busy.wait()
            if self._ended.wait(FLUSH_SECONDS):
                return
            now = time.monotonic()
            with self._state:
                since = self.busy_since
                if self._buffer and since is not None and now - since > RETURN_SECONDS:
                    if not self._done:
                        self._oldest = 0.0
                    self._return_all()
                if not self._done:
                    if not self._buffer:
                        self._busy.clear()
                    continue
                if self._stepping or now - self._oldest < FLUSH_SECONDS:
                    continue
                self._stepping = True
                outcomes, self._done = self._done, []
            self._step(outcomes, 0)

    # --- one job ---------------------------------------------------------------------------------

    def execute(self, lane: Lane, job: Job) -> Outcome:
        """Run one job in a lane, and say what it came to; never raises."""
        delivery, message = job.delivery, job.message
        if message is None:
            assert job.error is not None
            log.error("%s cannot be read: %s", id_text(delivery.id), job.error)
            return undecodable(delivery, job.error, None)
        task = self._tasks.get(message.task)
        if task is None:
            return self._unknown(delivery, message)
        began, started = time.monotonic(), self._now_ms()
        try:
            if message.bindings:
                args, kwargs = load_args(message, delivery, self._store, self._serializer)
            else:
                args, kwargs = self._serializer.loads(message.payload)[:2]
        except StoreUnavailable as err:
            self._say_away(err)
            return GiveBack(delivery.id, delivery.delivery)
        except Exception as err:  # an item of a value is taken by the value's own code
            return self._unready(delivery, message, err, started)
        policy = task.policy
        if message.policy:
            said = {k: getattr(policy, k) for k in policy.__struct_fields__} | message.policy
            policy = RetryPolicy.of(said)
        current = _current(message, delivery, policy)
        if task.context:
            kwargs = {**kwargs, "task": current}
        chatty = log.isEnabledFor(logging.INFO)
        if chatty:
            log.info("%s %s starts%s", message.task, current.id, _which(current))
        outcome = self._call(lane, job, task, args, kwargs, current, policy, started)
        took = time.monotonic() - began
        before = self._usual.get(message.task)
        self._usual[message.task] = took if before is None else 0.8 * before + 0.2 * took
        if chatty or not isinstance(outcome, Done):
            _report(message, current, outcome, took, lane.error)
        lane.error = None
        return outcome

    def _call(
        self,
        lane: Lane,
        job: Job,
        task: Task[..., Any],
        args: Any,
        kwargs: Any,
        current: CurrentTask,
        policy: RetryPolicy,
        started: int,
    ) -> Outcome:
        delivery, message = job.delivery, job.message
        assert message is not None
        token = CURRENT.set(current)
        if self._note is not None:
            self._note(lane.number, delivery.id)
        error: BaseException | None = None
        value = None
        try:
            with lane.lock:
                lane.current, lane.since, lane.job = current, time.monotonic(), job
            value = task.func(*args, **kwargs)
            if task.is_async:
                import asyncio

                value = asyncio.run(value)
        except BaseException as err:  # a body may raise anything, also SystemExit
            error = err
        while True:
            # An interrupt may arrive between any two lines until it is known that none was sent.
            try:
                with lane.lock:
                    lane.job = lane.current = None
                    sent, lane.interrupted = lane.interrupted, False
                if sent and not isinstance(error, TaskCancelled):
                    _absorb()
                break
            except TaskCancelled as err:
                error = err
        if self._note is not None:
            self._note(lane.number, b"")
        CURRENT.reset(token)
        ended = self._now_ms()
        if error is None:
            try:
                return done(delivery, value, self._serializer, started, ended)
            except PayloadError as err:
                error = err
        lane.error = error
        return decide(message, delivery, error, policy, started_ms=started, ended_ms=ended)

    def _unready(
        self, delivery: Delivery, message: Message, err: Exception, started: int
    ) -> Outcome:
        if isinstance(err, DecodeError):
            log.error("%s %s: %s", message.task, id_text(delivery.id), err)
            return undecodable(delivery, err, message)
        ended = self._now_ms()
        return decide(message, delivery, err, _NEVER, started_ms=started, ended_ms=ended)

    def _unknown(self, delivery: Delivery, message: Message) -> Unknown:
        hint = nearest(message.task, self._tasks)
        if message.task not in self._odd:
            self._odd.add(message.task)
            log.warning(
                "no task %r here%s; it is tried again for 10 minutes, then kept as dead",
                message.task,
                hint,
            )
        return unknown_task(delivery, message, hint)


def raise_in_thread(thread: int) -> None:
    """Raise ``TaskCancelled`` in a thread, between two bytecodes: C code is not interrupted."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(TaskCancelled)
    )


def _absorb() -> None:
    """Let an interrupt arrive that was sent to this thread, so that it hits no later body."""
    for _ in range(50):
        time.sleep(0.001)


def _current(message: Message, delivery: Delivery, policy: RetryPolicy) -> CurrentTask:
    id = delivery.id
    node = len(id) > 16
    return CurrentTask(
        id=id_text(id),
        name=message.task,
        attempt=delivery.attempt + 1,
        retries_left=max(0, policy.retries - delivery.attempt),
        deliveries=delivery.delivery,
        node=message.name if node else None,
        run=id_text(id[:16]) if node else None,
        index=message.index,
        queue=message.queue,
        priority=message.priority,
    )


def _which(current: CurrentTask) -> str:
    return f" (attempt {current.attempt})" if current.attempt > 1 else ""


def _report(
    message: Message,
    current: CurrentTask,
    outcome: Outcome,
    took: float,
    error: BaseException | None,
) -> None:
    """Say in one line how an attempt ended; a failure for good with its traceback."""
    who = (message.task, current.id)
    if isinstance(outcome, Done):
        log.info("%s %s done in %.3f s", *who, took)
    elif isinstance(outcome, RetryAt):
        log.warning(
            "%s %s failed in %.3f s with %s, again in %.1f s (retries left: %d)",
            *who,
            took,
            exception_text(error),
            outcome.delay_ms / 1000,
            current.retries_left - 1,
        )
    elif isinstance(outcome, Failed):
        trace = traceback_text(error).rstrip() if error is not None else ""
        log.error("%s %s failed in %.3f s\n%s", *who, took, trace)
    else:
        log.info("%s %s %s in %.3f s", *who, type(outcome).__name__.lower(), took)


def drain_inline(app: App) -> None:
    """Run in this thread whatever is there and whatever it leads to; delays are skipped.

    For ``with q.inline():``, whose clock can skip.
    """
    from flowq.clock import SkippingClock

    session = f"inline-{os.urandom(8).hex()}"
    worker = Worker(app, session, queues=app.queues())
    outcomes: list[Outcome] = []
    lane = worker.lanes[0]
    lane.thread = threading.get_ident()
    try:
        while True:
            queues = [q.name for q in app.store.status().queues] or list(app.queues())
            step = app.store.step(session, outcomes, want=1, queues=queues)
            outcomes = [worker.execute(lane, Job(d)) for d in step.deliveries]
            if outcomes or step.ready:
                continue
            if not app.store.status().scheduled or not isinstance(app.clock, SkippingClock):
                return
            app.clock.skip(max(1, step.next_ms or 0))
    finally:
        app.store.release(session)
