# SPDX-License-Identifier: MIT
"""Flows as functions: a body that calls tasks says what a run is made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, ParamSpec, Protocol, TypeVar, cast

from flowq.building import TRACE
from flowq.errors import ConfigError, GraphError, TaskDefinitionError
from flowq.habits import habit
from flowq.handle import composes, refuse_handles
from flowq.hints import hints_of
from flowq.limits import Limits, of_flow
from flowq.once import OF_STARTS
from flowq.policy import NAME, ONLY_MAPS, check_options, misplaced, nearest
from flowq.primitives.build import Part, has_parts
from flowq.primitives.flowgraph import FlowGraph
from flowq.primitives.flowsignature import FlowSignature
from flowq.primitives.follow import OF_NODES
from flowq.primitives.map import Map, map_of
from flowq.result import ResultGroup
from flowq.run import Run
from flowq.wiring import Submitter

__all__ = ["Flow", "FlowDecorator", "FlowOptions"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

_INSTEAD: Final = "call it within another flow"


class FlowOptions(dict[str, Any], Generic[P, R]):
    """The options that a flow was declared with; called, it sets those of the runs that follow."""

    __slots__ = ("_flow",)

    def __init__(self, flow: Flow[P, R], declared: Mapping[str, Any]) -> None:
        super().__init__(declared)
        self._flow = flow

    def __call__(self, **options: Any) -> Flow[P, R]:
        """Give the same flow with options for the runs that follow; it stays as it is.

        Parameters
        ----------
        **options
            ``name`` (of the run, or of the node), ``priority``, ``on_failure``, ``finally_`` and
            more, and those that only maps have: see ``docs/reference/options.md``.

        Raises
        ------
        GraphError
            An option is unknown, out of bounds, or goes elsewhere; the text says where.
        """
        return self._flow._with(options)


class Flow(Generic[P, R]):
    """A function whose body calls tasks; made by ``@q.flow``.

    Its body runs when a run is built, not when the run runs: a call of a task gives a node, which
    may be an argument of other calls. ``nightly(day="x")`` starts a run, ``nightly.build(day="x")``
    gives its graph, ``nightly.s("x")`` is a composition. Called within another flow, it is one
    node there, with its graph inside.

    Attributes
    ----------
    func : callable
        The plain function.
    name : str
        Registered name, by which ``q.flows`` has it.
    options : FlowOptions
        What was declared; called, it sets options of the runs that follow.
    parameters : inspect.Signature
    limits : Limits
        Those that bind all its runs together.
    """

    func: Callable[P, Any]
    options: FlowOptions[P, R]
    limits: Limits

    def __init__(self, app: Submitter, func: Any, options: Mapping[str, Any]) -> None:
        from flowq.naming import task_name
        from flowq.task import Task, parameters_of

        if isinstance(func, staticmethod):
            func = func.__func__
        if isinstance(func, Task | Flow):
            raise TaskDefinitionError(f"{func!r} cannot be a flow; @q.flow takes a plain function")
        if not inspect.isroutine(func):
            raise TaskDefinitionError(f"@q.flow takes a function, not {func!r}")
        name = getattr(func, "__qualname__", repr(func))
        if inspect.iscoroutinefunction(func) or inspect.isasyncgenfunction(func):
            raise TaskDefinitionError(
                f"{name} is async, but a flow awaits nothing: it only says what is to be done; "
                "write def (its tasks may be async)"
            )
        if inspect.isgeneratorfunction(func):
            raise TaskDefinitionError(
                f"{name} yields, but a flow is a plain function; return a list of nodes"
            )
        try:
            checked = check_options(options, "flow", f"@q.flow on {name}")
        except GraphError as err:
            raise ConfigError(str(err)) from None
        for word in sorted({*OF_STARTS} & checked.keys()):
            raise ConfigError(
                f"@q.flow on {name}: {word}= speaks of one start; say it where the flow is called: "
                f".options({word}=...)(...)"
            )
        for word in sorted(OF_NODES & checked.keys()):
            raise ConfigError(
                f"@q.flow on {name}: {word}= speaks of a node; say it where the flow is called in "
                "another"
            )
        self._app = app
        self.func = func
        self.name: str = checked.pop("name", None) or task_name(func)
        if not NAME.fullmatch(self.name):
            raise TaskDefinitionError(
                f"{self.name!r} cannot be the name of a flow; say @q.flow(name=...) with 1 to 200 "
                "of the characters A-Z a-z 0-9 _ . [ ] : / -"
            )
        self.parameters = parameters_of(func, self.name, False)
        update_wrapper(cast(Any, self), func, updated=())
        self.options = FlowOptions(self, checked)
        self.limits = of_flow(self.name, checked.get("max_parallel"))
        self._base: Flow[P, R] = self
        self._run_options: Mapping[str, Any] = {}
        self._map_options: Mapping[str, Any] = {}

    @property
    def hints(self) -> Mapping[str, Any]:
        """Annotations by parameter, and ``return``: those that can be resolved."""
        return self._hints

    @cached_property
    def _hints(self) -> Mapping[str, Any]:
        return hints_of(self.func)

    @property
    def submitter(self) -> Submitter:
        """The app that it belongs to."""
        return self._app

    # --- what starts -----------------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Build the graph and enqueue it; within another flow, make a node of it.

        Raises
        ------
        BindingError
            The arguments do not fit the function.
        GraphError
            The graph cannot run; nothing was enqueued.
        StoreUnavailable
            It is not known whether it was enqueued.
        """
        self._is_one("(...)")
        trace = TRACE.get()
        if trace is not None:
            return cast("Run[R]", trace.add(lambda: self._signature(args, kwargs).traced()))
        return self.build(*args, **kwargs).start()

    def map(self, /, *lists: Iterable[Any], **kwargs: Any) -> ResultGroup[R]:
        """Start it for each element of a list, as one run; see `flowq.task.Task.map`."""
        return self._map(lists, kwargs, self._map_options)

    def starmap(self, /, items: Iterable[Iterable[Any]], **kwargs: Any) -> ResultGroup[R]:
        """Start it for each element, which is unpacked into arguments, as one run."""
        rows: Any = items if isinstance(items, Part) else [tuple(item) for item in items]
        return self._map((rows,), kwargs, {**self._map_options, "unpack": True})

    # --- what does not ---------------------------------------------------------------------------

    def build(self, *args: P.args, **kwargs: P.kwargs) -> FlowGraph[R]:
        """Build its graph, to look at or to start later.

        Raises
        ------
        BindingError
            The arguments do not fit the function.
        GraphError
            The function makes a mistake; the text has file and line.
        """
        self._is_one("build(...)")
        trace = TRACE.get()
        for arg in (*args, *kwargs.values()):
            if has_parts((arg,)):
                raise composes(arg, self.name, _INSTEAD)
        refuse_handles((*args, *kwargs.values()), self.name, _INSTEAD)
        signature = self._signature(args, kwargs)
        graph = signature.graph_of_run()
        if trace is not None:  # within another flow the graph is what must not be forgotten
            trace.copied(signature)
            trace.made(graph)
        return graph

    def s(self, /, *args: Any, **kwargs: Any) -> FlowSignature[R]:
        """Make a composition: the flow with bound arguments, as a member of chains and groups."""
        self._is_one("s(...)")
        trace = TRACE.get()
        if trace is not None:
            trace.check((*args, *kwargs.values()))
        refuse_handles((*args, *kwargs.values()), self.name, _INSTEAD)
        return self._signature(args, kwargs)

    def each(self, /, **kwargs: Any) -> Map[R]:
        """Make a map over the list that is piped in: ``extract.s() | nightly.each()``."""
        return self._mapped((), kwargs, self._map_options, piped=True)

    # --- inside ----------------------------------------------------------------------------------

    def _signature(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> FlowSignature[R]:
        return FlowSignature(self._base, args, kwargs, self._run_options)

    def _map(
        self, lists: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> ResultGroup[R]:
        def make() -> Map[R]:
            return self._mapped(lists, kwargs, options)

        trace = TRACE.get()
        if trace is not None:
            return cast("ResultGroup[R]", trace.add(make))
        refuse_handles((*lists, *kwargs.values()), self.name, _INSTEAD)
        return make().start()

    def _mapped(
        self,
        lists: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        *,
        piped: bool = False,
    ) -> Map[R]:
        """Make a map of it, of which speaks what is said of places."""
        most = self._run_options.get("max_parallel")
        item = self._signature((), kwargs)
        if most is None:
            return map_of(item, lists, {}, options, piped=piped)
        bare = item._without(("max_parallel",))
        return map_of(bare, lists, {}, {**options, "max_parallel": most}, piped=piped)

    def _with(self, options: Mapping[str, Any]) -> Flow[P, R]:
        # those that only maps have go with maps; whether it is mapped comes later
        who = f"{self.name}.options"
        own = {k: v for k, v in options.items() if k not in ONLY_MAPS}
        of_maps = {k: v for k, v in options.items() if k in ONLY_MAPS}
        made: Flow[P, R] = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._run_options = {**self._run_options, **check_options(own, "flow", who)}
        made._map_options = {**self._map_options, **check_options(of_maps, "map", who)}
        made.options = FlowOptions(made, self.options)
        return made

    def _is_one(self, verb: str) -> None:
        for option in self._map_options:
            raise GraphError(f"{self.name}.options(...).{verb}: {misplaced(option)}")

    def __set_name__(self, owner: type, name: str) -> None:
        raise TaskDefinitionError(
            f"flow {self.name} stands in class {owner.__qualname__}, where a call would have no "
            f"self to pass; put @staticmethod above @q.flow, or move {name} out of the class"
        )

    def __repr__(self) -> str:
        return f"<Flow: {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _flow_of, (self._app, self.name)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            if name in ("graph", "mermaid", "svg"):
                raise AttributeError(f"a flow has no {name!r}; write .build(...).{name}")
            if name == "start":
                raise AttributeError("a flow has no 'start'; call it, or write .s(...).start()")
            said = habit(name, "a flow")
            known = [n for n in (*dir(type(self)), *vars(self)) if not n.startswith("_")]
            raise AttributeError(said or f"a flow has no {name!r}{nearest(name, known)}")


def _flow_of(app: Any, name: str) -> Any:
    return app.flows[name]


class FlowDecorator(Protocol):
    """What ``@q.flow(...)`` gives: it turns a function into a flow."""

    def __call__(self, func: Callable[P, R], /) -> Flow[P, R]:
        """Register it."""
        ...
