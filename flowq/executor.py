# SPDX-License-Identifier: MIT
"""One attempt: read the arguments, run the body, say what it came to.

The bodies are the users' code, and so is what unpickles an argument, pickles a result, or tells the
text of an exception. Whatever any of it raises is an outcome; an interrupt hits a body or nothing.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import msgspec

from flowq.binding import check_call
from flowq.caching import Slot, slot_for
from flowq.chunks import calls, run_chunk
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
from flowq.errors import (
    DecodeError,
    NoArm,
    PayloadError,
    RunActive,
    StoreError,
    StoreUnavailable,
    TaskCancelled,
)
from flowq.fragment import expand_map, take_arm
from flowq.limits import inherit
from flowq.message import Delivery, Message, decode_message, id_text, split_node
from flowq.naming import AGAIN, BRANCH, MAP
from flowq.outcome import Done, Expand, Failed, GiveBack, Outcome, RetryAt, Unknown
from flowq.plan import NodeRow
from flowq.policy import RetryPolicy, nearest
from flowq.storage.base import Store
from flowq.values import load_args
from flowq.wiring import Submitter

if TYPE_CHECKING:
    from flowq.task import Task

__all__ = ["App", "Executor", "Job", "Lane", "Note", "raise_in_thread"]

log = logging.getLogger("flowq.worker")

Note: TypeAlias = Callable[[int, bytes], None]
"""Takes the number of a lane and the id that it begins to run, b"" at its end."""
_NEVER: Final = RetryPolicy()


class App(Submitter, Protocol):
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
    """What runs one body at a time.

    Attributes
    ----------
    taken : Job or None
        From the buffer until its outcome is handed in; belongs to the worker.
    job : Job or None
        While the body itself runs; this and all below is guarded by `lock`.
    since : float
        When the body began (monotonic seconds).
    current : CurrentTask or None
    interrupted : bool
        Whether an interrupt was sent to this body.
    """

    __slots__ = ("current", "interrupted", "job", "lock", "number", "since", "taken", "thread")

    def __init__(self, number: int) -> None:
        self.number = number
        self.thread = 0
        self.taken: Job | None = None
        self.lock = threading.Lock()
        self.job: Job | None = None
        self.since = 0.0
        self.current: CurrentTask | None = None
        self.interrupted = False


class Executor:
    """Runs jobs in lanes, one in each at a time.

    Parameters
    ----------
    app : App
    note : Note, optional
        Where a parent looks if this process dies.
    interrupt : callable, optional
        Raises ``TaskCancelled`` in the thread of that number; `raise_in_thread` unless given.
    """

    caches = True
    """Whether successes may stand for equal calls."""

    def __init__(
        self,
        app: App,
        note: Note | None = None,
        interrupt: Callable[[int], None] | None = None,
    ) -> None:
        self.usual: dict[str, float] = {}
        """Run time by task, a moving average; lanes write it, a lost update costs nothing."""
        self._tasks: Mapping[str, Task[..., Any]] = app.tasks
        self._serializer = app.serializer
        self._store = app.store
        self._submitter = app
        self._now_ms = app.clock.now_ms
        self._note = note
        self._interrupt = interrupt or raise_in_thread
        self._pid = os.getpid()
        self._odd: set[str] = set()

    def run(self, lane: Lane, job: Job) -> Outcome:
        """Run one job in a lane, and say what it came to."""
        if self._note is None:
            return self._attempt(lane, job)
        # Reading the arguments and writing the result may end this process as well. So may a defect
        # that this message leads to: its note stays, and it counts a loss.
        self._note(lane.number, job.delivery.id)
        outcome = self._attempt(lane, job)
        self._note(lane.number, b"")
        return outcome

    def cancel(self, lane: Lane, ids: set[bytes]) -> None:
        """Interrupt the body of a lane if it is one of these."""
        with lane.lock:
            if lane.job is None or lane.interrupted or lane.job.delivery.id not in ids:
                return
            lane.interrupted = True
            if lane.current is not None:
                lane.current.stop()
            self._interrupt(lane.thread)

    def _attempt(self, lane: Lane, job: Job) -> Outcome:
        delivery, message = job.delivery, job.message
        if message is None:
            assert job.error is not None
            log.error("%s cannot be read: %s", id_text(delivery.id), job.error)
            return undecodable(delivery, job.error, None)
        task = self._tasks.get(message.task)
        began, started = time.monotonic(), self._now_ms()
        slot: Slot | None = None
        if task is None:
            if message.task == MAP:
                return self._make_items(delivery, message, started)
            if message.task == BRANCH:
                return self._take_arm(delivery, message, started)
            if message.task == AGAIN:
                return self._go_on_again(delivery, message, started)
            return self._unknown(delivery, message)
        try:
            policy, cache, built = task.policy, task.cache, ""
            if message.policy:
                cache = message.policy.get("cache", cache)
                built = message.policy.get("version", built)
                said = {k: getattr(policy, k) for k in policy.__struct_fields__} | message.policy
                policy = msgspec.convert(said, RetryPolicy)
            current = _current(message, delivery, policy, self._store)
            if message.bindings:
                args, kwargs = load_args(message, delivery, self._store, self._serializer)
                if any(b.spread for b in message.bindings):
                    check_call(task, args, kwargs, who=f"{message.name}: task {task.name}")
            else:
                args, kwargs = self._serializer.loads(message.payload)[:2]
            if cache and self.caches:
                slot = slot_for(
                    task, cache, args, kwargs, self._store, self._serializer, message.chunk
                )
                hit = slot.hit(delivery, message, started, self._now_ms)
                if hit is not None:
                    return hit
            if task.context:
                kwargs = {**kwargs, "task": current}
        except StoreUnavailable as err:
            log.warning("%s goes back, its arguments are out of reach: %s", message.task, err)
            return GiveBack(delivery.id, delivery.delivery)
        except BaseException as err:  # the values' own code, up to a SystemExit of an import
            return self._unready(delivery, message, err, started)
        chatty = log.isEnabledFor(logging.INFO)
        if chatty:
            log.info("%s starts%s", _who(current), _which(current), extra={"flowq_task": current})
        versions = None if task.version == built else (built, task.version)
        error: BaseException | None
        value, error = self._body(lane, job, task, args, kwargs, current)
        if current.cancelled:
            _cancel_started(current)
        ended = self._now_ms()
        element = current.index if message.chunk and error is not None else None
        outcome: Outcome | None = None
        if error is None:
            try:
                if task.outputs:
                    _check_outputs(message, task, value)
                outcome = done(
                    delivery, value, self._serializer, started, ended, message.called, versions
                )
                if slot is not None:
                    slot.keep(outcome, message.task)
            except BaseException as err:  # again the value's own code
                error = err
                if isinstance(err, PayloadError):
                    outcome, error = self._returned(delivery, message, value, err)
        if outcome is None:
            assert error is not None
            outcome = decide(
                message,
                delivery,
                error,
                policy,
                started_ms=started,
                ended_ms=ended,
                element=element,
                versions=versions,
            )
        took = time.monotonic() - began
        before = self.usual.get(message.task)
        self.usual[message.task] = took if before is None else 0.8 * before + 0.2 * took
        if chatty or error is not None:
            _report(current, outcome, took, error, element)
        return outcome

    def _body(
        self,
        lane: Lane,
        job: Job,
        task: Task[..., Any],
        args: Any,
        kwargs: Any,
        current: CurrentTask,
    ) -> tuple[Any, BaseException | None]:
        """Call the function: what it returned, and what it raised."""
        error: BaseException | None = None
        value = None
        token = CURRENT.set(current)
        try:
            with lane.lock:
                lane.current, lane.since, lane.job = current, time.monotonic(), job
            if job.message is not None and job.message.chunk:
                value = _run_chunk(job.message, task, args, kwargs, current)
            else:
                value = task.func(*args, **kwargs)
                if task.is_async:
                    import asyncio

                    value = asyncio.run(value)
        except BaseException as err:  # a body may raise anything, also SystemExit
            error = err
        while True:
            # An interrupt may arrive between any two lines until it is known that none was sent.
            try:
                if os.getpid() != self._pid:
                    # The body forked, and this is the child: it must not go on as a second worker.
                    log.error("%s forked, and the child came back from it; it ends here", task.name)
                    os._exit(1)
                with lane.lock:
                    lane.job = lane.current = None
                    sent, lane.interrupted = lane.interrupted, False
                if sent:
                    _absorb()
                break
            except TaskCancelled as err:
                error = err
        CURRENT.reset(token)
        return value, error

    def _returned(
        self, delivery: Delivery, message: Message, value: Any, error: BaseException
    ) -> tuple[Outcome | None, BaseException | None]:
        """Give what a body came to whose value cannot travel: it may be a graph."""
        from flowq.primitives.build import has_parts  # few bodies return one
        from flowq.primitives.returned import returned_rows

        if not has_parts((value,)):
            return None, error
        try:
            rows = returned_rows(value, self._submitter, message.name)
        except BaseException as err:  # the values' own code is in it
            return None, err
        return _expand(delivery, message, rows), None

    def _make_items(self, delivery: Delivery, message: Message, started: int) -> Outcome:
        """Let a map become its items."""
        try:
            lists, options = load_args(message, delivery, self._store, self._serializer)
            pool = self._serializer.loads(message.payload)[2:]
            rows = expand_map(message, lists, pool[0] if pool else (), self._submitter, **options)
        except StoreUnavailable as err:
            log.warning("%s goes back, its list is out of reach: %s", message.name, err)
            return GiveBack(delivery.id, delivery.delivery)
        except BaseException as err:  # the elements' own code, up to a SystemExit of an import
            log.error("%s: its items cannot be made: %s", message.name, exception_text(err))
            return self._unready(delivery, message, err, started)
        return _expand(delivery, message, rows)

    def _go_on_again(self, delivery: Delivery, message: Message, started: int) -> Outcome:
        """Go on with a retry of a run in which something has to end first."""
        from flowq.generations import go_on, pause_before  # few runs need it

        try:
            (run, asked), _ = self._serializer.loads(message.payload)
            ids = bytes.fromhex(run), bytes.fromhex(asked)
            waits = go_on(self._store, self._serializer, *ids, delivery.attempt)
        except StoreUnavailable as err:
            log.warning("a retry of a run goes back, the store is out of reach: %s", err)
            return GiveBack(delivery.id, delivery.delivery)
        except RunActive:
            waits = True
        except BaseException as err:
            log.error("a run cannot run again as was asked: %s", exception_text(err))
            return self._unready(delivery, message, err, started)
        if waits:
            delay = round(pause_before(delivery.attempt) * 1000)
            return RetryAt(delivery.id, delivery.delivery, delay)
        return done(delivery, None, self._serializer, started, self._now_ms())

    def _take_arm(self, delivery: Delivery, message: Message, started: int) -> Outcome:
        """Let a branch become the arm taken, or its value."""
        try:
            (value,), options = load_args(message, delivery, self._store, self._serializer)
            pool = self._serializer.loads(message.payload)[2:]
            rows, given = take_arm(
                message, value, options["arms"], pool[0] if pool else (), self._submitter
            )
            if not rows:
                return done(delivery, given, self._serializer, started, self._now_ms())
        except StoreUnavailable as err:
            log.warning("%s goes back, its condition is out of reach: %s", message.name, err)
            return GiveBack(delivery.id, delivery.delivery)
        except NoArm as err:
            log.error("%s: %s", message.name, err)
            return decide(
                message, delivery, err, _NEVER, started_ms=started, ended_ms=self._now_ms()
            )
        except BaseException as err:  # the values' own code, up to a SystemExit of an import
            log.error("%s: its arm cannot be made: %s", message.name, exception_text(err))
            return self._unready(delivery, message, err, started)
        return _expand(delivery, message, rows)

    def _unready(
        self, delivery: Delivery, message: Message, err: BaseException, started: int
    ) -> Outcome:
        if isinstance(err, DecodeError):
            log.error("%s %s: %s", message.task, id_text(delivery.id), err)
            return undecodable(delivery, err, message)
        log.error(
            "%s %s failed, its arguments cannot be read: %s",
            message.task,
            id_text(delivery.id),
            exception_text(err),
        )
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


def _run_chunk(
    message: Message, task: Task[..., Any], args: Any, kwargs: Any, current: CurrentTask
) -> list[Any]:
    """Call the function for each element of a chunk; `current.index` says which one it is at."""
    first = message.index or 0

    def begin(place: int) -> None:
        if current.cancelled:
            raise TaskCancelled
        current.index = first + place

    made = run_chunk(task.func, task.is_async, calls(args, kwargs, message.chunk), begin)
    current.index = first
    return made


def _check_outputs(message: Message, task: Task[..., Any], value: Any) -> None:
    """Refuse a value that is not as long as its task declares.

    Raises
    ------
    PayloadError
        It is not, or no tuple or list; what stands for a graph is neither.
    """
    for one in value if message.chunk else (value,):
        many = isinstance(one, list | tuple)
        if not many or len(one) != task.outputs:
            found = type(one).__name__ + (f" of {len(one)}" if many else "")
            raise PayloadError(
                f"task {task.name} says outputs={task.outputs}, so it must return a tuple or list "
                f"of {task.outputs}, but returned a {found}"
            )


def raise_in_thread(thread: int) -> None:
    """Raise ``TaskCancelled`` in a thread, between two bytecodes: C code is not interrupted."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(TaskCancelled)
    )


def _expand(delivery: Delivery, message: Message, rows: list[NodeRow]) -> Expand:
    """Let a node become what was made of it, under the limits that it is under."""
    return Expand(delivery.id, delivery.delivery, inherit(rows, message.limits))


def _absorb() -> None:
    """Let an interrupt that was sent to this thread arrive here, so that it hits no later body.

    A body may have ended by itself, also with a `TaskCancelled` of its own, just before. What was
    sent is delivered at the latest when a system call returns.
    """
    for _ in range(5):
        time.sleep(0.001)


def _current(
    message: Message, delivery: Delivery, policy: RetryPolicy, store: Store
) -> CurrentTask:
    id = delivery.id
    node = len(id) > 16
    # what is handed out for the first time ran in no generation before
    generation = partial(_generation, store, id) if node and delivery.delivery > 1 else None
    return CurrentTask(
        id=id,
        name=message.task,
        attempt=delivery.attempt + 1,
        retries_left=max(0, policy.retries - delivery.attempt),
        deliveries=delivery.delivery,
        node=message.name if node else None,
        run=id[:16] if node else None,
        index=message.index,
        queue=message.queue,
        priority=message.priority,
        generation=generation,
        store=store,
    )


def _generation(store: Store, id: bytes) -> int:
    """Say how often a node was made to run again."""
    run, index = split_node(id)
    found = store.nodes(run, after=index - 1, limit=1)
    return found[0].generation if found else 0


def _cancel_started(current: CurrentTask) -> None:
    """Let a cancel go down to what the body has started."""
    try:
        current.cancel_started()
    except StoreError as err:
        log.warning("%s: what it had started may go on: %s", _who(current), err)


def _which(current: CurrentTask) -> str:
    return f" (attempt {current.attempt})" if current.attempt > 1 else ""


def _who(current: CurrentTask) -> str:
    node = f" ({current.node})" if current.node else ""
    return f"{current.name} {current.id}{node}"


def _report(
    current: CurrentTask,
    outcome: Outcome,
    took: float,
    error: BaseException | None,
    element: int | None,
) -> None:
    """Say in one line how an attempt ended; a failure for good with its traceback."""
    who = _who(current) if element is None else f"{_who(current)}, element {element},"
    extra = {"flowq_task": current, "flowq_seconds": round(took, 6)}
    if isinstance(outcome, Done):
        log.info("%s done in %.3f s", who, took, extra=extra)
    elif isinstance(outcome, Expand):
        log.info("%s became %d nodes in %.3f s", who, len(outcome.rows) - 1, took, extra=extra)
    elif isinstance(outcome, RetryAt):
        log.warning(
            "%s failed in %.3f s with %s, again in %.1f s (retries left: %d)",
            who,
            took,
            exception_text(error),
            outcome.delay_ms / 1000,
            current.retries_left - 1,
            extra=extra,
        )
    elif isinstance(outcome, Failed):
        trace = traceback_text(error).rstrip() if error is not None else ""
        log.error("%s failed in %.3f s\n%s", who, took, trace, extra=extra)
    else:
        log.info("%s %s in %.3f s", who, type(outcome).__name__.lower(), took, extra=extra)
