# SPDX-License-Identifier: MIT
"""What a user makes first: an app, which knows its tasks and where its store is."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    NoReturn,
    ParamSpec,
    TypeVar,
    overload,
)

from flowq.building import TRACE
from flowq.clock import SYSTEM_CLOCK, Clock, SkippingClock
from flowq.current import CURRENT
from flowq.errors import ConfigError, KeyReused, TaskDefinitionError, UnknownTask
from flowq.flow import Flow, FlowDecorator
from flowq.habits import check_keywords, habit
from flowq.listing import runs_of
from flowq.message import Message, id_bytes
from flowq.naming import MAIN, app_at, app_path, import_module
from flowq.plan import Plan, Ranges
from flowq.policy import check_name, check_options, nearest
from flowq.primitives import Composition
from flowq.result import Result, ResultGroup
from flowq.run import Run
from flowq.serializer import Serializer, open_serializer
from flowq.settings import DEFAULT_URL, load_settings
from flowq.starting import called_of, found_again, refuse, started_message, started_plan
from flowq.storage import Store, open_store
from flowq.task import ContextDecorator, Decorator, Task
from flowq.wiring import ConsumerHandle, TaskSpec

__all__ = ["FlowQ"]

log = logging.getLogger("flowq.app")

P = ParamSpec("P")
R = TypeVar("R")

DAY: Final = 86_400.0
BATCH_PAGE: Final = 10_000
"""So many calls of a ``q.batch()`` go in one enqueue."""


class Batch:
    """What was called within a ``with q.batch()``, until it is enqueued."""

    __slots__ = ("app", "calls", "plans")

    def __init__(self, app: FlowQ) -> None:
        self.app = app
        self.calls: list[tuple[Message, Result[Any]]] = []
        self.plans: list[tuple[Plan, Run[Any]]] = []


_batches: ContextVar[tuple[Batch, ...]] = ContextVar("flowq_batches", default=())


class FlowQ:
    """An app: a name, a store, and the tasks that are registered with it.

    Parameters
    ----------
    name : str
        Namespace of its keys; apps of different names can share a Redis server. A SQLite file
        belongs to one name.
    url : str, optional
        Where its store is: ``sqlite:///flowq.db``, ``redis://host:6379/0``, ``rediss://...``,
        ``unix:///path/to/socket``, ``memory://``. Unless given: ``FLOWQ_URL``, else ``url`` in
        ``[tool.flowq]``, else ``sqlite:///flowq.db``. Nothing is opened before it is needed.
    imports : iterable of str
        Modules in which further tasks of it are defined; a worker imports them.
    queue : str
        Queue of tasks that name none.
    result_ttl, failed_ttl : float
        Seconds for which successes and failures are kept after their end.
    serializer : str
        Only ``"pickle"`` so far.
    secret, compress_above, shards
        Not supported yet.
    clock : Clock
        For tests.
    **task_defaults
        Options of tasks that do not say otherwise, such as ``retries=3``.

    Examples
    --------
    >>> q = FlowQ("shop", "memory://")
    >>> @q.task(name="shop.add")
    ... def add(a: int, b: int) -> int:
    ...     return a + b
    >>> add.call_local(1, 2)
    3
    >>> q.tasks["shop.add"] is add
    True
    """

    def __init__(
        self,
        name: str = "flowq",
        url: str | None = None,
        *,
        imports: Iterable[str] = (),
        queue: str = "default",
        result_ttl: float | timedelta = DAY,
        failed_ttl: float | timedelta = 30 * DAY,
        serializer: str = "pickle",
        secret: str | bytes | None = None,
        compress_above: int | None = None,
        shards: int = 1,
        clock: Clock = SYSTEM_CLOCK,
        **task_defaults: Any,
    ) -> None:
        if "://" in name:
            raise ConfigError(f"{name!r} is a URL, not the name of an app: FlowQ('name', url)")
        if url is not None and not isinstance(url, str):
            raise ConfigError(f"url={url!r} must be text; for a path there is SqliteFlowQ(path=)")
        self.name = check_name(name, "the name of an app:")
        self.clock: Clock = clock
        if isinstance(imports, str):
            raise ConfigError(f"imports={imports!r} must be a list of module names")
        self.imports = tuple(imports)
        for what, value, default in (
            ("secret", secret, None),
            ("compress_above", compress_above, None),
            ("shards", shards, 1),
        ):
            if value != default:
                raise ConfigError(f"FlowQ({what}=) is not supported yet; leave it out")
        self.serializer: Serializer = open_serializer(serializer)
        given = {"queue": queue, "result_ttl": result_ttl, "failed_ttl": failed_ttl}
        self._defaults = check_options({**given, **task_defaults}, "app", "FlowQ")
        ttls = ("result_ttl", "failed_ttl")
        self.run_defaults: Mapping[str, Any] = {k: self._defaults[k] for k in ttls}
        self._tasks: dict[str, Task[..., Any]] = {}
        self.tasks: Mapping[str, Task[..., Any]] = MappingProxyType(self._tasks)
        self._flows: dict[str, Flow[..., Any]] = {}
        self.flows: Mapping[str, Flow[..., Any]] = MappingProxyType(self._flows)
        self._url = url
        self._store: Store | None = None
        self._closing: weakref.finalize[Any, FlowQ] | None = None
        self._told = False
        self._lock = threading.RLock()
        _apps.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        path = app_path(self)
        if path is None:
            raise TypeError(f"{self!r} can travel only by name, and no module holds it")
        return app_at, (path,)

    # --- tasks -----------------------------------------------------------------------------------

    @overload
    def task(self, func: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def task(self, func: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, /, *, context: Literal[True], **options: Any) -> ContextDecorator: ...
    @overload
    def task(self, /, **options: Any) -> Decorator: ...
    def task(self, func: Any = None, /, **options: Any) -> Any:
        """Turn a function into a task; with or without parentheses.

        Parameters
        ----------
        **options
            ``retries``, ``retry_delay``, ``backoff``, ``max_delay``, ``jitter``, ``retry_on``,
            ``priority``, ``queue``, ``expires``, ``delay``, ``eta``, ``result_ttl``,
            ``failed_ttl``, ``max_losses``, ``prefetch``, ``name``, ``context``:
            see ``docs/reference/options.md``.

        Raises
        ------
        TaskDefinitionError
            It has no name, or one that is taken.
        ConfigError
            An option is unknown, out of bounds, or goes elsewhere; the text says where.
        """
        if func is None:
            return lambda func: self._define(func, options)
        return self._define(func, options)

    def _define(self, func: Any, options: Mapping[str, Any]) -> Task[..., Any]:
        if isinstance(func, staticmethod):
            func = func.__func__
        if isinstance(func, Task):
            raise TaskDefinitionError(f"{func!r} is a task already")
        if not callable(func) or isinstance(func, Composition):
            raise TaskDefinitionError(f"@q.task takes a function, not {func!r}")
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TaskDefinitionError(
                f"{func.__qualname__} yields, and a generator cannot travel; return a list"
            )
        who = f"@q.task on {getattr(func, '__qualname__', repr(func))}"
        made: Task[..., Any] = Task(
            self, func, {**self._defaults, **check_options(options, "task", who)}
        )
        known = self._tasks.get(made.name)
        if known is not None and getattr(func, "__module__", None) not in MAIN:
            code = getattr(known.func, "__code__", None)
            where = f" at {code.co_filename}:{code.co_firstlineno}" if code else ""
            raise TaskDefinitionError(
                f"there is a task {made.name!r} already{where}; say @q.task(name=...) for another"
            )
        self._tasks[made.name] = made
        return made

    @overload
    def flow(self, func: Callable[P, R], /) -> Flow[P, R]: ...
    @overload
    def flow(self, /, **options: Any) -> FlowDecorator: ...
    def flow(self, func: Any = None, /, **options: Any) -> Any:
        """Turn a function whose body calls tasks into a flow; with or without parentheses.

        Parameters
        ----------
        **options
            Of its runs: ``name``, ``priority``, ``result_ttl``, ``failed_ttl``: see
            ``docs/reference/options.md``.

        Raises
        ------
        TaskDefinitionError
            It has no name, or one that is taken; it is async, or a generator.
        ConfigError
            An option is unknown, out of bounds, or goes elsewhere; the text says where.
        """
        if func is None:
            return lambda func: self._define_flow(func, options)
        return self._define_flow(func, options)

    def _define_flow(self, func: Any, options: Mapping[str, Any]) -> Flow[..., Any]:
        made: Flow[..., Any] = Flow(self, func, options)
        known = self._flows.get(made.name)
        if known is not None and getattr(made.func, "__module__", None) not in MAIN:
            code = getattr(known.func, "__code__", None)
            where = f" at {code.co_filename}:{code.co_firstlineno}" if code else ""
            raise TaskDefinitionError(
                f"there is a flow {made.name!r} already{where}; say @q.flow(name=...) for another"
            )
        self._flows[made.name] = made
        return made

    def spec(self, name: str) -> Task[..., Any]:
        """Give a registered task, of ``imports`` too.

        Raises
        ------
        UnknownTask
            None is registered under that name; the text gives the nearest.
        """
        found = self._tasks.get(name)
        if found is None and self.imports:
            self.load()
            found = self._tasks.get(name)
        if found is None:
            raise UnknownTask(f"{self!r} has no task {name!r}{nearest(name, self._tasks)}")
        return found

    def load(self) -> None:
        """Import the modules that ``imports`` names.

        Raises
        ------
        ConfigError
            There is no such module.
        """
        for module in self.imports:
            import_module(module)

    def queues(self) -> tuple[str, ...]:
        """Give the queues that its tasks name, the default one first."""
        default = self._defaults["queue"]
        named = {task.options["queue"] for task in self._tasks.values()} - {default}
        return (default, *sorted(named))

    # --- the store -------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where its store is, perhaps with a password: show ``q.store.url`` instead."""
        if self._url is None:
            self._url = load_settings({}, ["url"])["url"] or DEFAULT_URL
        return self._url

    def use_url(self, url: str) -> None:
        """Use another store from now on; what is open is closed."""
        with self._lock:
            old, self._store, self._url, self._told = self._store, None, url, False
            if self._closing is not None:
                self._closing.detach()
        if old is not None:
            old.close()

    @property
    def store(self) -> Store:
        """Its store, shared by all threads; opened at first use, and anew in a forked child."""
        trace = TRACE.get()
        if trace is not None:
            trace.refuse("the store was asked")
        return self._store or self._open()

    def _open(self) -> Store:
        with self._lock:
            if self._store is None:
                store = self._store = open_store(self.url, name=self.name, clock=self.clock)
                self._closing = weakref.finalize(self, store.close)
                self._closing.atexit = False
            return self._store

    def _forked(self) -> None:
        """In a child: leave the parent's connections alone, and open others when needed."""
        self._lock = threading.RLock()
        # kept, since closing what the parent uses as well could harm the file that both see
        if self._store is not None:
            _inherited.append(self._store)
        if self._closing is not None:
            self._closing.detach()
        self._store = None

    # --- starting --------------------------------------------------------------------------------

    def start_message(
        self, message: Message, spec: TaskSpec, args: Any, kwargs: Any, *, detached: bool = False
    ) -> Result[Any]:
        """Enqueue one task alone; `Task` calls it."""
        trace = TRACE.get()
        if trace is not None:
            trace.refuse(f"{spec.name} was enqueued")
        current = CURRENT.get()
        if current is not None:
            message = started_message(current, message, (args, kwargs), self, detached)
        made = Result[Any](self, message.id, message=message, arguments=(args, kwargs))
        batch = self._batch()
        if batch is not None:
            batch.calls.append((message, made))
        else:
            refuse(self._enqueue(((message, made),)))
        return made

    def start_plan(
        self, plan: Plan, *, members: Ranges | None = None, detached: bool = False
    ) -> Any:
        """Submit a plan; compositions call it."""
        trace = TRACE.get()
        if trace is not None:
            trace.refuse(f"{plan.name!r} was started")
        current = CURRENT.get()
        if current is not None:
            plan = started_plan(current, plan, self, detached)
        value = plan.rows[0].value
        made: Run[Any] = (
            Run(self, plan.id, value=value)
            if members is None
            else ResultGroup(self, plan.id, value=value, members=members)
        )
        batch = self._batch()
        if batch is not None:
            batch.plans.append((plan, made))
        else:
            refuse(self._submit(plan, made))
        return made

    def _enqueue(self, calls: Sequence[tuple[Message, Result[Any]]]) -> KeyReused | None:
        """Enqueue calls; gives the error of one whose key was used with other arguments."""
        if not self._told:
            self._tell()
        fresh = self.store.enqueue([message for message, _ in calls])
        found = None
        if not all(fresh):
            for (message, made), new in zip(calls, fresh, strict=True):
                found = found or (None if new else found_again(self, made, message.called))
        return found

    def _submit(self, plan: Plan, made: Run[Any]) -> KeyReused | None:
        """Submit a run; gives the error if its key was used with other arguments."""
        if not self._told:
            self._tell()
        found = None if self.store.submit(plan) else found_again(self, made, called_of(plan))
        return found

    def _tell(self) -> None:
        self._told = True
        log.info("%s: tasks go to %s", self.name, self.store.url)

    def _batch(self) -> Batch | None:
        for batch in reversed(_batches.get()):
            if batch.app is self:
                return batch
        return None

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Gather the calls that are made within, and enqueue them together at its end.

        Handles are given at once; the store knows them when it has ended. If an exception leaves
        it, nothing was enqueued. A key that was used with other arguments is told when the rest
        was enqueued.
        """
        batch = Batch(self)
        token = _batches.set((*_batches.get(), batch))
        try:
            yield
        finally:
            _batches.reset(token)
        pages = range(0, len(batch.calls), BATCH_PAGE)
        errors = [self._enqueue(batch.calls[at : at + BATCH_PAGE]) for at in pages]
        errors += [self._submit(plan, made) for plan, made in batch.plans]
        refuse(*errors)

    @contextmanager
    def inline(self) -> Iterator[None]:
        """Run what is started within at once, in this process and in memory, without a worker.

        For tests of code that calls tasks: each start, and what lets a run go on (`Run.send`,
        `resume`, `retry`, `rerun`), runs all that it leads to before it returns, delays are
        skipped, and nothing reaches the app's own store. Read results within it.
        """
        clock = SkippingClock(self.clock)
        store = open_store("memory://", name=self.name, clock=clock)
        shown = importlib.import_module("flowq.inline").inline_store(self, store)
        try:
            with self.aside(shown, clock):
                yield
        finally:
            store.close()

    @contextmanager
    def aside(self, store: Store, clock: Clock) -> Iterator[None]:
        """Use another store and clock within it, in all threads; `inline` and tests do."""
        with self._lock:
            before = self._store, self._told, self.clock
            self._store, self._told, self.clock = store, True, clock
        try:
            yield
        finally:
            with self._lock:
                self._store, self._told, self.clock = before

    # --- handles again ---------------------------------------------------------------------------

    def result(self, id: str) -> Result[Any]:
        """Open the handle of a task, node or run by its id, from any process."""
        return Result(self, _id(id))

    def run(self, id: str) -> Run[Any]:
        """Open the handle of a run by its id, from any process."""
        return Run(self, _id(id)[:16])

    def runs(
        self,
        *,
        flow: Flow[..., Any] | str | None = None,
        state: str | None = None,
        key: str | None = None,
        since: datetime | None = None,
    ) -> Iterator[Run[Any]]:
        """Go through its runs, newest first, read in pages.

        Parameters
        ----------
        flow : Flow or str, optional
            Those of a flow, or of this name; runs that were given another by ``name=`` have that.
        state : str, optional
            ``"running"``, ``"failed"`` ...
        key : str, optional
            Those that were started under a key: one of each flow at most. For a graph that is no
            flow, `flow` is its name.
        since : datetime, optional
            Those submitted from then on; a naive one is the local zone's.
        """
        return runs_of(self, flow=flow, state=state, key=key, since=since)

    def result_group(self, id: str) -> ResultGroup[Any]:
        """Open the handle of a map or group by its id, from any process."""
        return ResultGroup(self, _id(id)[:16])

    # --- running ---------------------------------------------------------------------------------

    def consumer(
        self, workers: int = 1, kind: Literal["thread", "process"] = "thread", **more: Any
    ) -> ConsumerHandle:
        """Make a consumer inside this process: a context manager, with ``start`` and ``stop``.

        Parameters
        ----------
        workers : int
        kind : {"thread", "process"}
        **more
            See `flowq.consumer.Consumer`: ``queues``, ``lease``, ``shutdown_timeout``, ``drain``.
        """
        kind_of: Any = importlib.import_module("flowq.consumer").Consumer
        takes = list(inspect.signature(kind_of).parameters)[1:]
        check_keywords(f"{type(self).__name__}.consumer", more, takes)
        made: ConsumerHandle = kind_of(self, workers=workers, kind=kind, **more)
        return made

    def command(self, queue: str | None = None) -> str:
        """Say how a worker for it is started, as one would type it."""
        if not self.store.shares_processes:
            return "with q.consumer(): ...   (memory:// is seen by this process only)"
        path = app_path(self) or "module:app"
        more = f" --queue {queue}" if queue is not None and queue not in self.queues() else ""
        return f"flowq worker {path}{more}"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            if hasattr(type(self), name):  # a property raised; let its own error be seen
                object.__getattribute__(self, name)
            known = [n for n in (*dir(type(self)), *vars(self)) if not n.startswith("_")]
            said = habit(name, "a FlowQ")
            raise AttributeError(said or f"a FlowQ has no {name!r}{nearest(name, known)}")


def _id(text: str) -> bytes:
    try:
        return id_bytes(text)
    except ValueError as err:
        raise ConfigError(str(err)) from None


_apps: weakref.WeakSet[FlowQ] = weakref.WeakSet()
_inherited: list[Store] = []
"""Stores of the process that this one was forked from; never used and never closed."""


def _after_fork() -> None:
    for app in list(_apps):
        app._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
