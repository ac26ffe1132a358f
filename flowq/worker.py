# SPDX-License-Identifier: MIT
"""Fetch, execute, settle: what one worker does, in one or several lanes.

A `Worker` is one session of the store. Its lanes share what was fetched; the lane that runs dry
settles what all of them have finished and fetches the next batch, in one step. So there is no
thread between the store and a body, and a hop of a chain costs one round trip.

A small thread beside the lanes minds that nothing waits behind a long body: outcomes that have
waited 5 ms are settled, and what was fetched but not started goes back after 100 ms.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Final

from flowq.errors import StoreError, StoreUnavailable
from flowq.executor import App, Executor, Job, Lane, Note
from flowq.message import id_text
from flowq.outcome import GiveBack, Outcome
from flowq.storage.base import SessionId, SessionInfo, Step
from flowq.values import share

__all__ = ["Worker"]

log = logging.getLogger("flowq.worker")

BATCH_SECONDS: Final = 0.020
"""Expected work that a worker holds at most."""
FLUSH_SECONDS: Final = 0.005
"""An outcome waits so long at most while a body runs on."""
RETURN_SECONDS: Final = 0.100
"""What is not started goes back when a body has run so long."""
LOOK_SECONDS: Final = 3.0
"""An idle worker looks at least so often: what a lost wake-up costs."""
DRAIN_SECONDS: Final = 0.1
"""A worker that ends when nothing is left looks again so soon while others have something."""
DRAIN_LONGEST: Final = 1.0
"""Each further look takes twice as long to come, up to this."""


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
        End when nothing is ready, scheduled or running in `queues`, here or elsewhere.
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
        note: Note | None = None,
        interrupt: Callable[[int], None] | None = None,
    ) -> None:
        self.session = session
        self.queues = list(queues)
        self.lanes = [Lane(i) for i in range(lanes)]
        self.executor = Executor(app, note, interrupt)
        self.info: SessionInfo | None = None
        """Said to the store again where the session began anew after it was lost."""
        self._store = app.store
        self._most = app.store.most
        self._lease_ms = round(lease * 1000)
        self._drain = drain
        self._lock = threading.Lock()
        self._state = threading.Condition(self._lock)
        # All below is guarded by `_lock`.
        self._buffer: deque[Job] = deque()
        self._done: list[Outcome] = []
        self._oldest = 0.0
        self._running = 0
        self._stepping = False
        self._waiting = False
        self._hinted = False  # a hint was taken from the store, and no step followed
        self._alone = False
        self._want = 1
        self._began = 0.0
        self._fetched = 0
        self._next_wait = LOOK_SECONDS
        self._stopping = False
        self._drained = False
        self._beside = False  # a body ran here when a lane began to wait
        self._patience = DRAIN_SECONDS
        self._broken: BaseException | None = None
        self._minded = False
        self._busy = threading.Event()
        self._ended = threading.Event()
        self._given_up = threading.Event()
        self._away = False

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
            self._given_up.set()
            self._ended.set()
            self._busy.set()
            minder.join()

    def stop(self) -> None:
        """Start nothing more: what runs is finished and settled, the rest goes back."""
        with self._lock:
            self._stopping = True
            self._mind_it()  # it wakes whoever is just about to sleep
            self._state.notify_all()
        self._store.wake()

    def halt(self, timeout: float) -> None:
        """Stop, and wait for a step that is under way: none fetches anything after this.

        Parameters
        ----------
        timeout : float
            Seconds to wait at most.
        """
        self.stop()
        with self._lock:
            self._state.wait_for(lambda: not self._stepping, timeout)

    def give_up(self) -> None:
        """Try no longer to settle what a store that is away has not taken."""
        self._given_up.set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stopping

    @property
    def drained(self) -> bool:
        """Whether it ended because nothing was left."""
        return self._drained

    def cancel(self, ids: Sequence[bytes]) -> None:
        """Interrupt bodies that were cancelled."""
        wanted = set(ids)
        for lane in self.lanes:
            self.executor.cancel(lane, wanted)

    @property
    def taken(self) -> list[bytes]:
        """The ids that its lanes are at; after a defect those of the lanes that it ended."""
        return [job.delivery.id for lane in self.lanes if (job := lane.taken) is not None]

    @property
    def busy_since(self) -> float | None:
        """When the body began that runs longest (monotonic seconds); None if none runs."""
        return min((lane.since for lane in self.lanes if lane.job is not None), default=None)

    # --- lanes -----------------------------------------------------------------------------------

    def _serve(self, lane: Lane) -> None:
        lane.thread = threading.get_ident()
        outcome: Outcome | None = None
        while (job := self._next(lane, outcome)) is not None:
            outcome = self.executor.run(lane, job)

    def _guard(self, work: Callable[[], None]) -> None:
        """End the whole worker on a defect of flowq's or a store's own; `run` raises it.

        Whoever watches releases the session and starts another one.
        """
        try:
            work()
        except BaseException as err:
            with self._lock:
                self._broken = self._broken or err
                self._stopping = True
                self._stepping = self._waiting = False
                self._state.notify_all()
            self._store.wake()

    def _next(self, lane: Lane, outcome: Outcome | None) -> Job | None:
        """Hand in an outcome and give the next job, from what was fetched or by a step.

        None if it is time to end.
        """
        while True:
            with self._lock:
                if outcome is not None:
                    lane.taken = None
                    self._running -= 1
                    if not self._done:
                        self._oldest = time.monotonic()
                    self._done.append(outcome)
                    outcome = None
                while True:
                    if self._stopping or self._drained:
                        self._return_all()
                        return None
                    if self._buffer:
                        self._running += 1
                        job = lane.taken = self._buffer.popleft()
                        if not self._minded and (self._buffer or self._done or self._hinted):
                            self._mind_it()
                        return job
                    dry = not self._done and (self._waiting or (self._alone and self._running))
                    if not self._stepping and not dry:
                        break
                    self._state.wait()
                self._stepping, self._hinted = True, False
                want = 0 if self._alone and self._running else self._size()
                outcomes, self._done = self._done, []
            if not self._step(outcomes, want) and want:
                self._wait()

    def _wait(self) -> None:
        """Sleep until there may be work, or find that nothing is left."""
        with self._lock:
            if self._waiting or self._stopping or self._done or self._buffer:
                return
            if self._next_wait <= 0 and not self._drain:
                return  # there is more to do at once, such as pages of edges
            self._waiting = True
            self._beside = self._running > 0
            timeout = self._next_wait
        drained = hinted = False
        try:
            if self._drain and not self._beside:
                drained = not self._store.left(self.queues)
                timeout = min(timeout, self._patience)  # another worker's end wakes nobody here
                self._patience = min(DRAIN_LONGEST, 2 * self._patience)
            if not drained:
                hinted = self._store.wait_ready(self.queues, timeout=timeout)
        except StoreError:
            self._ended.wait(0.2)  # the next step says that it is away, and waits longer
        finally:
            with self._lock:
                self._waiting = False
                self._hinted = self._hinted or hinted
                self._drained = drained
                self._state.notify_all()

    def _ran_out(self) -> bool:
        """Whether a lane that waits should see if all is drained; under `_lock`."""
        idle = not (self._running or self._done or self._buffer)
        return self._drain and self._beside and idle

    def _size(self) -> int:
        """Say how many messages to ask for: about 20 ms of work, learned from one upwards."""
        idle = len(self.lanes) - self._running
        if self._fetched:
            took = max(time.monotonic() - self._began, 1e-6)
            fits = int(self._fetched * BATCH_SECONDS / took)
            self._want = max(1, min(self._want * 2, fits, self._most))
            self._fetched = 0
        return max(self._want, idle)

    # --- the store -------------------------------------------------------------------------------

    def _step(self, outcomes: list[Outcome], want: int) -> bool:
        """Settle and fetch; the caller has set `_stepping`. Says whether something was fetched."""
        step = self._reach(outcomes, want)
        jobs = [Job(d) for d in share(step.deliveries)] if step else []
        returned = self._too_long(jobs) if len(jobs) > 1 else []
        with self._lock:
            self._stepping = False
            if jobs:
                self._buffer.extend(jobs)
                self._began, self._fetched = time.monotonic(), len(jobs)
                self._patience = DRAIN_SECONDS
            if returned:
                self._give_back(returned)
                self._mind_it()
            if step is not None:
                self._alone = step.alone or self._burdened()
                soon = LOOK_SECONDS * random.uniform(0.8, 1.0)
                self._next_wait = soon if step.next_ms is None else min(soon, step.next_ms / 1000)
            # A lane that waits at the store has work here now, if this one leaves any.
            more = len(self._buffer) > (1 if want else 0)
            sleeper = self._waiting and (more or self._ran_out())
            if sleeper:
                self._mind_it()
            self._state.notify_all()
        if sleeper:
            self._store.wake()
        if step is not None and step.stops:
            self.cancel(step.stops)
        return bool(jobs)

    def _burdened(self) -> bool:
        """Whether it holds a message that lost a worker, and so gets no other; under `_lock`."""
        jobs = [*islice(self._buffer, 1), *(lane.taken for lane in self.lanes)]
        return any(job.delivery.losses for job in jobs if job is not None)

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
                if not self._worth_waiting(outcomes, tries):
                    log.warning("%d outcomes could not be settled: %s", len(outcomes), err)
                    return None
                continue
            if self._away:
                self._away = False
                log.warning("the store is back: %s", self._store.url)
            if step.unopened and self.info is not None:
                self._open(self.info)
            if len(self.queues) > 1:
                self.queues.append(self.queues.pop(0))
            for outcome, verdict in zip(outcomes, step.verdicts, strict=True):
                if verdict == "stale":
                    log.warning(
                        "%s: the lease was lost, so its outcome is dropped", id_text(outcome.id)
                    )
            return step

    def _open(self, info: SessionInfo) -> None:
        try:
            self._store.open_session(info, lease_ms=self._lease_ms)
        except StoreError as err:
            log.debug("the next step says again that the session is not open: %s", err)

    def _worth_waiting(self, outcomes: list[Outcome], tries: int) -> bool:
        """Wait before a further try; False once it is time to end.

        A worker that ends waits for the sake of what has run; what has not goes back without it.
        """
        if self._stopping and all(isinstance(o, GiveBack) for o in outcomes):
            return False
        pause = min(2.0, 0.05 * 2 ** min(tries, 10)) * random.uniform(0.5, 1.0)
        return not self._given_up.wait(pause)

    def _recover(self, outcomes: list[Outcome]) -> None:
        """Take what was handed out in an answer that never came."""
        with self._lock:
            # With the delivery: what was lost and handed to us again is not what we know.
            known = {(o.id, o.delivery) for o in (*outcomes, *self._done)}
            jobs = (*self._buffer, *(job for ln in self.lanes if (job := ln.taken) is not None))
            known |= {(job.delivery.id, job.delivery.delivery) for job in jobs}
        held = self._store.held(self.session)
        more = [Job(d) for d in held if (d.id, d.delivery) not in known]
        with self._lock:
            self._buffer.extend(more)

    def _say_away(self, err: StoreError) -> None:
        if not self._away:
            self._away = True
            what = "is away" if isinstance(err, StoreUnavailable) else "refuses"
            log.warning("the store %s, trying again until it is back: %s", what, err)

    def _too_long(self, jobs: list[Job]) -> list[Job]:
        """Take off `jobs` what is known to be more than 20 ms of work."""
        expected, kept = 0.0, 0
        allowed = BATCH_SECONDS * len(self.lanes)
        for job in jobs:
            usual = self.executor.usual.get(job.message.task, 0.0) if job.message else 0.0
            if expected + usual > allowed and kept >= len(self.lanes):
                break
            expected += usual
            kept += 1
        back = jobs[kept:]
        del jobs[kept:]
        return back

    def _return_all(self) -> None:
        """Put what was not started among the outcomes; under `_lock`."""
        self._give_back(self._buffer)
        self._buffer.clear()
        if self._done:  # other lanes may run on for long
            self._mind_it()

    def _give_back(self, jobs: Iterable[Job]) -> None:
        if not self._done:
            self._oldest = 0.0
        self._done += [GiveBack(j.delivery.id, j.delivery.delivery) for j in jobs]

    def _finish(self) -> None:
        with self._lock:
            while self._stepping:  # the thread beside the lanes may settle something
                self._state.wait()
            outcomes, self._done = self._done, []
        if outcomes or self._hinted:
            self._reach(outcomes, 0)
        try:
            self._store.release(self.session)
        except StoreError as err:
            log.warning("the session could not be ended, its lease will: %s", err)

    # --- beside the lanes ------------------------------------------------------------------------

    def _mind_it(self) -> None:
        """Let the thread beside the lanes look until all is well; under `_lock`."""
        if not self._minded:
            self._minded = True
            self._busy.set()

    def _mind(self) -> None:
        while not self._ended.is_set():
            self._busy.wait()
            if self._ended.wait(FLUSH_SECONDS):
                return
            now = time.monotonic()
            with self._lock:
                if self._buffer and now - self._began > RETURN_SECONDS:
                    self._return_all()
                # A wake-up is lost on who has said that he waits, and does not yet.
                due = self._stopping or bool(self._buffer) or self._ran_out()
                sleeper = self._waiting and due
                if not (self._done or self._buffer or sleeper or self._hinted):
                    self._minded = False
                    self._busy.clear()
                outcomes: list[Outcome] = []
                step = False
                if not self._stepping and now - self._oldest >= FLUSH_SECONDS:
                    outcomes, self._done = self._done, outcomes
                    # Also where all lanes went to work after one had taken a hint, which
                    # another worker may need: the store puts it back.
                    step = self._stepping = bool(outcomes) or self._hinted
                    self._hinted = False
            if sleeper:
                self._store.wake()
            if step:
                self._step(outcomes, 0)
