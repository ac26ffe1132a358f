# SPDX-License-Identifier: MIT
"""The decorated function: called, it is enqueued."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property, update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
)

from flowq.building import TRACE
from flowq.calls import build_message
from flowq.current import CurrentTask
from flowq.errors import BindingError, GraphError, TaskDefinitionError
from flowq.habits import habit, helpful
from flowq.handle import refuse_handles
from flowq.message import Message, id_text, new_id
from flowq.naming import task_name
from flowq.policy import NAME, OPTIONS, Place, RetryPolicy, check_options, misplaced, nearest
from flowq.primitives.build import Part
from flowq.primitives.map import Map, map_of
from flowq.primitives.signature import Signature
from flowq.result import Result, ResultGroup
from flowq.wiring import Submitter

__all__ = [
    "ContextDecorator",
    "Decorator",
    "Options",
    "Owner",
    "Task",
    "parameters_of",
]

P = ParamSpec("P")
R = TypeVar("R")

_INSTEAD: Final = "wait for the value with .get(blocking=True)"


class Owner(Submitter, Protocol):
    """The app, as far as a task needs it."""

    def start_message(
        self, message: Message, spec: Any, args: Any, kwargs: Any, *, detached: bool = False
    ) -> Result[Any]:
        """Enqueue one task alone."""
        ...


class Options(dict[str, Any], Generic[P, R]):
    """The options that a task was declared with; called, it sets those of the calls that follow.

    ``add.options["retries"]`` is what was declared (over the app's defaults), and
    ``add.options(retries=5)`` the same task with other options.
    """

    __slots__ = ("_task",)

    def __init__(self, task: Task[P, R], declared: Mapping[str, Any]) -> None:
        super().__init__(declared)
        self._task = task

    def __call__(self, **options: Any) -> Task[P, R]:
        """Give the same task with options for the calls that follow; it stays as it is.

        Parameters
        ----------
        **options
            See ``docs/reference/options.md``: those of a call, or of a map.

        Raises
        ------
        GraphError
            An option is unknown, out of bounds, or goes elsewhere; the text says where.
        """
        return self._task._with(options)


class Task(Generic[P, R]):
    """A function that runs in a worker; made by ``@q.task``.

    ``add(1, 2)`` enqueues and gives a `Result`; ``add.call_local(1, 2)`` calls the function here.
    Every argument of a call is the function's own; what is flowq's is said in `options`.

    Attributes
    ----------
    func : callable
        The plain function.
    name : str
        Registered name.
    options : Options
        What was declared; called, it sets options of the calls that follow:
        ``add.options(delay=60)(1, 2)``.
    policy : RetryPolicy
        The retry policy of the declaration.
    cache : float
        Seconds for which successes are cached, by the declaration; 0 where they are not.
    version : str
        What the declaration says of the body; empty where it says nothing.
    context : bool
        Whether it is given the running task as keyword argument ``task``.
    outputs : int
        How many values it returns, by the declaration; 0 where it says nothing.
    is_async : bool
        Whether it is an ``async def``, which its worker runs by ``asyncio.run``.
    parameters : inspect.Signature
        What a caller may pass.
    """

    func: Callable[P, Any]
    options: Options[P, R]

    def __init__(self, app: Owner, func: Callable[P, Any], options: Mapping[str, Any]) -> None:
        self._app = app
        self.func = func
        self.name: str = options.get("name") or task_name(func)
        if not NAME.fullmatch(self.name):
            raise TaskDefinitionError(
                f"{self.name!r} cannot be the name of a task; say @q.task(name=...) with 1 to 200 "
                "of the characters A-Z a-z 0-9 _ . [ ] : / -"
            )
        self.context: bool = options.get("context", False)
        kind: Any = type(func)
        self.is_async = any(map(inspect.iscoroutinefunction, (func, kind.__call__)))
        self.policy = RetryPolicy.of(options)
        self.cache: float = options.get("cache") or 0.0
        self.version: str = options.get("version") or ""
        self.outputs: int = options.get("outputs") or 0
        self.parameters = parameters_of(func, self.name, self.context)
        update_wrapper(cast(Any, self), func, updated=())
        self.options = Options(self, {k: v for k, v in options.items() if k != "name"})
        self._base: Task[P, R] = self
        self._call_options: Mapping[str, Any] = {}

    @property
    def hints(self) -> Mapping[str, Any]:
        """Annotations by parameter, and ``return``: those that can be resolved.

        A class has those of its attributes, which are no parameters.
        """
        return self._hints  # pyright takes no cached_property for the property of a protocol

    @cached_property
    def _hints(self) -> Mapping[str, Any]:
        from flowq.hints import hints_of  # here, so that an import of flowq costs less

        return {} if isinstance(self.func, type) else hints_of(self.func)

    @property
    def submitter(self) -> Submitter:
        """The app that it belongs to."""
        return self._app

    # --- what starts -----------------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result[R]:
        """Enqueue a call.

        Raises
        ------
        BindingError
            The arguments do not fit the function.
        PayloadError
            They cannot travel.
        StoreUnavailable
            It is not known whether it was enqueued.
        """
        trace = TRACE.get()
        if trace is not None:  # inside a flow, which finds handles by itself
            return cast("Result[R]", trace.add(lambda: self._signature("call", args, kwargs)))
        self._refuse_handles(args, kwargs)
        if self._call_options:
            self._check_place("call", f"{self.name}(...)")
        base = self._base
        message = build_message(base, args, kwargs, self._call_options)
        detached = self._call_options.get("detached", False)
        return self._app.start_message(message, base, args, kwargs, detached=detached)

    def map(self, /, *lists: Iterable[Any], **kwargs: Any) -> ResultGroup[R]:
        """Enqueue a call for each element of a list, or of several of one length.

        Parameters
        ----------
        *lists : iterable
            A tuple becomes several arguments if the task has more than one free parameter.
        **kwargs
            The same for each call.
        """
        return self._map(lists, kwargs, self._call_options.get("unpack"))

    def starmap(self, /, items: Iterable[Iterable[Any]], **kwargs: Any) -> ResultGroup[R]:
        """Enqueue a call for each element, which is unpacked into arguments."""
        if isinstance(items, Part):
            return self._map((items,), kwargs, True)
        return self._map(([tuple(item) for item in items],), kwargs, True)

    def chunks(self, items: Iterable[Any], size: int, /, **kwargs: Any) -> ResultGroup[R]:
        """Enqueue a map of which each message takes several elements, as Celery spells it.

        Short for ``task.options(chunksize=size).map(items, **kwargs)``.

        Parameters
        ----------
        items : iterable
        size : int
            How many elements go into one message, which is one item of the map.
        **kwargs
            The same for each call.
        """
        return self.options(chunksize=size).map(items, **kwargs)

    @helpful
    def schedule(
        self,
        args: tuple[Any, ...] | list[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        delay: float | timedelta | None = None,
        eta: datetime | None = None,
    ) -> Result[R]:
        """Enqueue a call for later, as Huey spells it.

        Parameters
        ----------
        args : tuple or list
        kwargs : mapping, optional
        delay : float, optional
            Seconds to wait.
        eta : datetime, optional
            Moment before which it does not run; a naive one is the local zone's.
        """
        if not isinstance(args, tuple | list):
            raise BindingError(
                f"{self.name}.schedule(args={args!r}): args must be a tuple or a list; "
                f"for one argument write args=({args!r},)"
            )
        said = {k: v for k, v in (("delay", delay), ("eta", eta)) if v is not None}
        task = cast("Callable[..., Result[R]]", self.options(**said) if said else self)
        return task(*args, **(kwargs or {}))

    # --- what does not ---------------------------------------------------------------------------

    def s(self, /, *args: Any, **kwargs: Any) -> Signature[R]:
        """Make a signature: the task with bound arguments, to be composed and started later."""
        trace = TRACE.get()
        if trace is not None:
            trace.check((*args, *kwargs.values()))
        self._refuse_handles(args, kwargs)
        return self._signature("s", args, kwargs)

    def each(self, /, **kwargs: Any) -> Map[R]:
        """Make a map over the list that is piped in: ``extract.s() | clean.each() | total.s()``.

        Keyword arguments are the same for each item.
        """
        options = {k: v for k, v in self._call_options.items() if k != "unpack"}
        unpack = self._call_options.get("unpack")
        return map_of(self._base, (), kwargs, options, unpack=unpack, piped=True)

    def call_local(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now; an ``async def`` is run to its end."""
        if self.context and "task" not in kwargs:
            kwargs["task"] = CurrentTask(id=id_text(new_id()), name=self.name)
        value = self.func(*args, **kwargs)
        if self.is_async:
            import asyncio

            value = asyncio.run(value)
        return cast(R, value)

    # --- inside ----------------------------------------------------------------------------------

    def _signature(self, verb: str, args: Any, kwargs: Any) -> Signature[R]:
        if self._call_options:
            self._check_place("node", f"{self.name}.{verb}(...)")
        return Signature(self._base, args, kwargs, self._call_options)

    def _with(self, options: Mapping[str, Any]) -> Task[P, R]:
        # what goes with calls or signatures goes with maps; which of them it is comes later
        checked = check_options(options, "map", f"{self.name}.options")
        merged = {**self._base_options(checked), **checked}
        made: Task[P, R] = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._call_options = merged
        made.options = Options(made, self.options)
        return made

    def _base_options(self, checked: Mapping[str, Any]) -> Mapping[str, Any]:
        """What was said before, without what the new options replace."""
        gone = {"delay": "eta", "eta": "delay"}
        replaced = {gone[k] for k in checked if k in gone}
        return {k: v for k, v in self._call_options.items() if k not in replaced}

    def _map(
        self, lists: tuple[Any, ...], kwargs: Mapping[str, Any], unpack: bool | None
    ) -> ResultGroup[R]:
        options = {k: v for k, v in self._call_options.items() if k != "unpack"}
        trace = TRACE.get()
        if trace is not None:
            node = trace.add(lambda: map_of(self._base, lists, kwargs, options, unpack=unpack))
            return cast("ResultGroup[R]", node)
        self._refuse_handles(lists, kwargs)
        graph: Map[R] = map_of(self._base, lists, kwargs, options, unpack=unpack)
        return graph.start()

    def _refuse_handles(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        refuse_handles(args, self.name, _INSTEAD)
        if kwargs:
            refuse_handles(kwargs.values(), self.name, _INSTEAD)

    def _check_place(self, place: Place, who: str) -> None:
        for option in self._call_options:
            if place not in OPTIONS[option].places:
                raise GraphError(f"{who}: {misplaced(option)}")

    def __set_name__(self, owner: type, name: str) -> None:
        raise TaskDefinitionError(
            f"task {self.name} stands in class {owner.__qualname__}, where a call would have no "
            f"self to pass; put @staticmethod above @q.task, or move {name} out of the class"
        )

    def __repr__(self) -> str:
        return f"<Task: {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # by name: what is called back is what the other process has registered under it
        return _task_of, (self._app, self.name)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            said = habit(name, "a task")
            known = [n for n in (*dir(type(self)), *vars(self)) if not n.startswith("_")]
            raise AttributeError(said or f"a task has no {name!r}{nearest(name, known)}")


class Decorator(Protocol):
    """What ``@q.task(...)`` gives: it turns a function into a task."""

    @overload
    def __call__(self, func: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, func: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, func: Callable[..., Any], /) -> Task[..., Any]:
        """Register it."""
        ...


class ContextDecorator(Protocol):
    """What ``@q.task(context=True)`` gives; callers do not pass the `task` that it adds."""

    @overload
    def __call__(self, func: Callable[..., Coroutine[Any, Any, R]], /) -> Task[..., R]: ...
    @overload
    def __call__(self, func: Callable[..., R], /) -> Task[..., R]: ...
    def __call__(self, func: Callable[..., Any], /) -> Task[..., Any]:
        """Register it."""
        ...


def parameters_of(func: Callable[..., Any], name: str, context: bool) -> inspect.Signature:
    """Give what a caller may pass to the function of a task or flow.

    Raises
    ------
    TaskDefinitionError
        It is to be given the running task, and does not take it.
    """
    try:
        found = inspect.signature(func)
    except (TypeError, ValueError):  # some that are written in C do not tell
        found = inspect.Signature(
            [
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
        )
    if not context:
        return found
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    own = found.parameters.get("task")
    if own is not None and own.kind in kinds:
        rest = [p for p in found.parameters.values() if p is not own]
        return found.replace(parameters=rest)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in found.parameters.values()):
        return found
    raise TaskDefinitionError(
        f"task {name}: context=True passes keyword argument `task`, which the function "
        "does not take"
    )


def _task_of(app: Owner, name: str) -> Any:
    return app.spec(name)
