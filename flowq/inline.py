# SPDX-License-Identifier: MIT
"""One worker in the thread of whoever waits: how code runs that is tested without a consumer.

Time is virtual: where all that is left waits for it, it is put forward.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from flowq.clock import SkippingClock
from flowq.executor import App, Executor, Job, Lane
from flowq.message import Delivery, Message
from flowq.outcome import GiveBack, Outcome
from flowq.plan import Plan
from flowq.storage import Store

__all__ = ["InlineWorker", "inline_store"]

_LEASE_MS: Final = 100 * 365 * 86_400_000
"""Nobody dies here: a lease ends after any delay that there may be."""
_MANY: Final = 100
"""So much a body that waits looks through at a time."""
_PATIENCE: Final = 5.0
"""Seconds for which a thread waits for what another one runs, which may wait for it."""


class InlineWorker:
    """A worker without threads; bodies that wait let it go on within them.

    Parameters
    ----------
    app : App
        With a `SkippingClock`.
    store : Store
        That no other worker sees.
    executor : Executor, optional
    """

    def __init__(self, app: App, store: Store, executor: Executor | None = None) -> None:
        assert isinstance(app.clock, SkippingClock)
        self._store = store
        self._clock = app.clock
        self._executor = executor or Executor(app, interrupt=lambda _: None)
        self._session = f"inline-{os.urandom(8).hex()}"
        self._queues = list(app.queues())
        self._lanes: list[Lane] = []
        self._kept: deque[Delivery] = deque()

    @property
    def within(self) -> bool:
        """Whether a body runs, or waits."""
        return bool(self._lanes)

    @property
    def runs(self) -> set[bytes]:
        """The tasks and runs (16 bytes) of which bodies run in it."""
        return {lane.job.delivery.id[:16] for lane in self._lanes if lane.job}

    @property
    def holds(self) -> int:
        """How many bodies run in it, or wait for their turn."""
        return len(self._lanes) + len(self._kept)

    def work(self, done: Callable[[], bool], only: set[bytes] | None = None) -> bool:
        """Work until nothing is ready and `done` says that it is enough, or nothing is left.

        Parameters
        ----------
        done : callable
        only : set of bytes, optional
            For a body that waits: the tasks and runs (16 bytes) that it waits for. All else keeps
            its turn; else each of many bodies that wait would do so within another.

        Returns
        -------
        bool
            What `done` says at the end.
        """
        lane = Lane(len(self._lanes))
        lane.thread = threading.get_ident()
        self._lanes.append(lane)
        outcomes: list[Outcome] = []
        try:
            while True:
                turn = bool(self._kept) and only is None
                settled = bool(outcomes)
                step = self._store.step(
                    self._session,
                    outcomes,
                    want=0 if turn else 1 if only is None else _MANY,
                    queues=self._queues,
                    lease_ms=_LEASE_MS,
                )
                outcomes = self._stop(step.stops)
                if settled and only is not None and done():
                    self._kept.extend(step.deliveries)
                    return True
                for delivery in step.deliveries:
                    if only is not None and delivery.id[:16] not in only:
                        self._kept.append(delivery)
                    else:
                        outcomes.append(self._executor.run(lane, Job(delivery)))
                if turn and self._kept:
                    outcomes.append(self._executor.run(lane, Job(self._kept.popleft())))
                if turn or outcomes or step.deliveries or step.ready or step.next_ms == 0:
                    continue
                if self._further_queues():
                    continue
                if done():
                    return True
                if step.next_ms is not None and step.next_ms < _LEASE_MS // 2:
                    self._clock.skip(step.next_ms)
                elif self._kept:
                    outcomes.append(self._executor.run(lane, Job(self._kept.popleft())))
                else:
                    return False
        finally:
            self._lanes.pop()
            if not self._lanes:
                outcomes += [GiveBack(d.id, d.delivery) for d in self._kept]
                self._kept.clear()
            if outcomes:
                self._store.step(self._session, outcomes, lease_ms=_LEASE_MS)

    def any_ended(self, ids: Sequence[bytes]) -> bool:
        """Whether one of some tasks, nodes or runs has ended, or is not known."""
        return any(x is None or x.state.final for x in self._store.look(ids, cells=False))

    def all_ended(self, ids: Sequence[bytes]) -> bool:
        """Whether all of them have."""
        return all(x is None or x.state.final for x in self._store.look(ids, cells=False))

    def _stop(self, ids: Sequence[bytes]) -> list[Outcome]:
        """Tell bodies that wait further out, and give up what has not begun, if it is cancelled."""
        if not ids:
            return []
        stopped = set(ids)
        for lane in self._lanes[:-1]:
            self._executor.cancel(lane, stopped)
        dropped = [d for d in self._kept if d.id in stopped]
        self._kept = deque(d for d in self._kept if d.id not in stopped)
        return [GiveBack(d.id, d.delivery) for d in dropped]

    def _further_queues(self) -> bool:
        """Whether something is ready in a queue that no task names: an option of a call did."""
        more = {q.name for q in self._store.status().queues if q.ready} - {*self._queues}
        self._queues += sorted(more)
        return bool(more)


def inline_store(app: App, inner: Store) -> Store:
    """Give a store as ``with q.inline():`` shows it: what brings work runs it before it returns.

    That is each start, and what lets a run go on: a send, a resume, a retry or rerun, a cancel (of
    which cleanups are left).

    Parameters
    ----------
    app : App
        On what this gives, while it is used, with a `SkippingClock`.
    inner : Store
        That no other worker sees.
    """
    return cast("Store", _InlineStore(app, inner))


class _InlineStore:
    """Runs what was started or may go on. Threads of a body work for themselves."""

    def __init__(self, app: App, inner: Store) -> None:
        self._app = app
        self._inner = inner
        self._lock = threading.Lock()
        self._first: int | None = None
        self._here = threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def enqueue(self, messages: Sequence[Message]) -> Any:
        fresh = self._inner.enqueue(messages)
        self._started([message.id for message in messages])
        return fresh

    def submit(self, plan: Plan) -> Any:
        fresh = self._inner.submit(plan)
        self._started((plan.id,))
        return fresh

    def send(self, run: bytes, *args: Any, **kwargs: Any) -> Any:
        return self._moved((run,), self._inner.send(run, *args, **kwargs))

    def resume(self, run: bytes) -> Any:
        return self._moved((run,), self._inner.resume(run))

    def rewind(self, run: bytes, *args: Any, **kwargs: Any) -> Any:
        return self._moved((run,), self._inner.rewind(run, *args, **kwargs))

    def cancel(self, ids: Sequence[bytes], **kwargs: Any) -> Any:
        return self._moved(ids, self._inner.cancel(ids, **kwargs))

    def reschedule(self, id: bytes, *args: Any, **kwargs: Any) -> Any:
        return self._moved((id,), self._inner.reschedule(id, *args, **kwargs))

    def _worker(self) -> InlineWorker:
        worker: InlineWorker | None = getattr(self._here, "worker", None)
        if worker is None:
            worker = self._here.worker = InlineWorker(self._app, self._inner)
        return worker

    def _moved(self, ids: Sequence[bytes], answer: Any) -> Any:
        """Go on with what is not a body's own run: that one does when the body has ended."""
        own = self._worker().runs
        if others := [id for id in ids if id[:16] not in own]:
            self._started([id[:16] for id in others])
        return answer

    def _started(self, ids: Sequence[bytes]) -> None:
        """Run tasks or runs that were started just now.

        What a body starts ends before all else goes on that is ready.
        """
        worker = self._worker()
        if worker.within:
            self._until(worker, ids, set(ids))
            return
        with self._lock:
            first = self._first is None
            if first:
                self._first = threading.get_ident()
        if first:
            try:
                worker.work(lambda: False)
            finally:
                self._first = None
            return
        self._until(worker, ids, None)

    def _until(self, worker: InlineWorker, ids: Sequence[bytes], only: set[bytes] | None) -> None:
        end = time.monotonic() + _PATIENCE
        while not worker.work(lambda: worker.all_ended(ids), only):
            if self._inner.status().running <= worker.holds or time.monotonic() > end:
                return
            self._inner.wait_ended(ids[:1_000], timeout=0.1)  # another thread has it
