# SPDX-License-Identifier: MIT
"""Run a graph in this process, to its end, with stand-ins for bodies: what ``graph.test()`` does.

There is no server, no consumer and no thread. The graph runs on a store of its own in memory,
through the same executor, serializer and store as anywhere else, so that states, retries and
errors are those of a real run. Time is virtual: where all wait for it, it is put forward.
"""

from __future__ import annotations

import threading
import weakref
from asyncio import CancelledError, _get_running_loop
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Final, cast

import msgspec

from flowq.app import FlowQ
from flowq.clock import Clock, SkippingClock
from flowq.errors import BlockingInTask, GraphError, Interrupted
from flowq.executor import Executor, Job, Lane
from flowq.inline import InlineWorker
from flowq.message import id_bytes, id_text
from flowq.outcome import Expand, Outcome
from flowq.plan import ROOT, Kind, Plan, Ranges
from flowq.result import Result, ResultGroup
from flowq.run import Run
from flowq.serializer import Serializer
from flowq.states import State
from flowq.storage import Store, open_store
from flowq.storage.base import NodeInfo
from flowq.testing.standins import Named, StandIns, arms_named, rows_named
from flowq.testing.whole import STAND_IN, StandInTask, with_stand_ins
from flowq.wiring import TaskSpec

__all__ = ["rehearse"]

_PAGE: Final = 500
_ASKED: Final = 5
_OF_BODIES: Final = (Exception, SystemExit, GeneratorExit, Interrupted, CancelledError)
"""What a body raises; all else is not its failure."""
_one_at_a_time = threading.RLock()
"""An app has another store while a graph of its is tested."""


def rehearse(
    app: FlowQ,
    plan: Plan,
    members: Ranges | None,
    values: Mapping[str, Any],
    fail: Mapping[str, Any],
) -> Run[Any]:
    """Run a plan to its end, with stand-ins; compositions call it.

    Raises
    ------
    GraphError
        A path names no node, or the run cannot end.
    """
    stand_ins = StandIns(values, fail)
    rows = with_stand_ins(plan.rows, stand_ins.stands_for, app.serializer, plan.id)
    plan = msgspec.structs.replace(plan, rows=rows)
    stand_ins.not_taken += arms_named(rows)
    stand_ins.check_before(rows_named(rows))
    clock = _Clock(app.clock)
    inner = open_store("memory://", name=app.name, clock=clock)
    store = _Store(inner)
    stage = _Stage(app, cast("Store", store))
    weakref.finalize(stage, inner.close)  # with the last handle
    inner.submit(plan)
    store.player = _Player(app, inner, store, clock, plan.id, stand_ins)
    store.player.until_ended((plan.id,))
    stand_ins.check_after(_named(inner, plan.id))
    if members is not None:
        return ResultGroup[Any](stage, plan.id, value=plan.rows[0].value, members=members)
    return Run[Any](stage, plan.id, value=plan.rows[0].value)


class _Clock(SkippingClock):
    """Skips what is waited for, and stands still meanwhile: what has ended does not expire."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._stopped = 0

    def now_ms(self) -> int:
        return self._stopped or super().now_ms()

    def stop(self) -> None:
        self._stopped = self.now_ms()

    def go_on(self) -> None:
        if self._stopped:
            self.skip(self._stopped - super().now_ms())
            self._stopped = 0


class _Stage:
    """What the handles of a tested run ask, in the place of their app."""

    def __init__(self, app: FlowQ, store: Store) -> None:
        self._app = app
        self.name = app.name
        self.serializer: Serializer = app.serializer
        self.store = store

    def command(self, queue: str | None = None) -> str:
        return self._app.command(queue)

    def spec(self, name: str) -> TaskSpec:
        return self._app.spec(name)

    def result(self, id: str) -> Result[Any]:
        return Result(self, id_bytes(id))


class _Store:
    """The store as bodies and handles see it: what they wait for runs then; nobody else would."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.player: _Player

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def wait_ended(self, ids: Sequence[bytes], *, timeout: float) -> bool:
        if self.player.thread not in (None, threading.get_ident()):
            return self._inner.wait_ended(ids, timeout=timeout)  # a thread that a body has started
        self.player.until_ended(ids)
        return True


class _Player:
    """The one worker of a test."""

    def __init__(
        self,
        app: FlowQ,
        store: Store,
        shared: _Store,
        clock: _Clock,
        run: bytes,
        stand_ins: StandIns,
    ) -> None:
        self.thread: int | None = None
        self._app = app
        self._store = store
        self._shared = cast("Store", shared)
        self._clock = clock
        self._run = run
        with self._on_stage():
            self._worker = InlineWorker(app, store, _Executor(app, id_text(run), stand_ins))

    @contextmanager
    def _on_stage(self) -> Iterator[None]:
        """Let the app, for bodies, have the store of the test; from the outermost wait on."""
        if self.thread is not None:
            yield
            return
        with _one_at_a_time, self._app.aside(self._shared, self._clock):
            self.thread = threading.get_ident()
            self._clock.go_on()
            try:
                yield
            finally:
                self._clock.stop()
                self.thread = None

    def until_ended(self, ids: Sequence[bytes]) -> None:
        """Work until one of these ids has ended and nothing more is ready.

        A body that waits calls it too: what it waits for runs within.

        Raises
        ------
        GraphError
            The tested run waits for what nothing here brings about.
        BlockingInTask
            So does a body.
        """
        if self.thread is not None or _get_running_loop() is None:
            with self._on_stage():
                self._work(ids)
            return
        # an async test: bodies run as a worker runs them, in a thread without a loop
        context = copy_context()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: context.run(self.until_ended, ids)).result()

    def _work(self, ids: Sequence[bytes]) -> None:
        worker = self._worker
        within = worker.within
        only = {id[:16] for id in ids} if within else None
        if not worker.work(lambda: worker.any_ended(ids), only):
            raise self._stuck(within)

    def _stuck(self, within: bool) -> Exception:
        if within:
            return BlockingInTask(
                "a body waits for what nothing in this test brings about; compose instead, or let "
                "values= stand for it"
            )
        infos = [i for i in _infos(self._store, self._run) if i.index != ROOT]
        if asked := [i.name for i in infos if i.kind == Kind.JOIN and i.state is State.SCHEDULED]:
            # a sleep, or a wait with a timeout, would have passed
            names = ", ".join(map(repr, asked[:_ASKED])) + (" ..." if asked[_ASKED:] else "")
            return GraphError(
                f"test: the run waits for what nobody sends, at {names}; say what is sent: "
                f"values={{{asked[0]!r}: ...}}"
            )
        left = ", ".join(
            f"{i.name} ({i.state.label})"
            for i in infos
            if not i.state.final and i.state is not State.EXPANDED
        )
        return GraphError(f"test: the run cannot end, nothing brings it on; left are {left}")


class _Executor(Executor):
    """Runs what stands in for a body, where there is something; all else is as for real."""

    caches = False  # what stands for one node is not for another

    def __init__(self, app: FlowQ, run: str, stand_ins: StandIns) -> None:
        super().__init__(app, interrupt=lambda _: None)
        self._tasks = ChainMap({STAND_IN: cast("Any", StandInTask())}, cast("Any", self._tasks))
        self._run_id = run
        self._stand_ins = stand_ins

    def run(self, lane: Lane, job: Job) -> Outcome:
        outcome = super().run(lane, job)
        if isinstance(outcome, Expand) and id_text(outcome.id[:16]) == self._run_id:
            self._stand_ins.not_taken += arms_named(outcome.rows)
            rows = with_stand_ins(outcome.rows, self._stand_ins.stands_for, self._serializer)
            return msgspec.structs.replace(outcome, rows=rows)
        return outcome

    def _body(
        self, lane: Lane, job: Job, task: Any, args: Any, kwargs: Any, current: Any
    ) -> tuple[Any, BaseException | None]:
        found = None
        if current.run == self._run_id:
            found = self._stand_ins.take(current.node, always=isinstance(task, StandInTask))
        if found is not None and found.fails:
            try:
                found.func()
            except BaseException as err:  # no traceback: it has none of a body
                return None, err.with_traceback(None)
        if found is not None:
            if task.context:
                kwargs = {k: v for k, v in kwargs.items() if k != "task"}
            task = cast("Any", found)
        value, error = super()._body(lane, job, task, args, kwargs, current)
        if error is not None and not isinstance(error, _OF_BODIES):
            raise error  # meant for who runs the test: Ctrl-C, or pytest.fail() in a stand-in
        return value, error


def _infos(store: Store, run: bytes) -> Iterator[NodeInfo]:
    after = -1
    while page := store.nodes(run, after=after, limit=_PAGE):
        yield from page
        after = page[-1].index


def _named(store: Store, run: bytes) -> Iterator[Named]:
    """Go through the nodes of a run that has ended."""
    for info in _infos(store, run):
        if info.index == ROOT:
            continue
        # what was blocked or failed might have opened
        shut = info.kind == Kind.EXPANSION or info.state is State.SUCCESS
        yield Named(info.name, not shut)
