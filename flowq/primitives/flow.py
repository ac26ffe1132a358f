# SPDX-License-Identifier: MIT
"""Flows as functions: a body that calls tasks says what a run is made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, Protocol, TypeVar, cast

from flowq.binding import check_call
from flowq.current import TRACE
from flowq.errors import BindingError, ConfigError, GraphError, TaskDefinitionError
from flowq.habits import habit
from flowq.handle import Handle
from flowq.hints import hints_of
from flowq.node import Body, Node
from flowq.policy import NAME, check_options, nearest
from flowq.primitives.base import Composition
from flowq.primitives.build import Builder, Fragment, Part, has_parts
from flowq.primitives.dag import Contents
from flowq.primitives.map import Map, map_of
from flowq.primitives.trace import FlowGraph, Given, Trace
from flowq.result import ResultGroup
from flowq.run import Run
from flowq.wiring import RunHandle, Submitter, TaskSpec

__all__ = ["Flow", "FlowDecorator", "FlowOptions", "FlowSignature"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


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
            ``name`` (of the run, or of the node), ``priority``, ``result_ttl``, ``failed_ttl``.

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
    """

    func: Callable[P, Any]
    options: FlowOptions[P, R]

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
        self._base: Flow[P, R] = self
        self._run_options: Mapping[str, Any] = {}
        self._hints: Mapping[str, Any] | None = None

    @property
    def hints(self) -> Mapping[str, Any]:
        """Annotations by parameter, and ``return``: those that can be resolved."""
        if self._hints is None:
            self._hints = hints_of(self.func)
        return self._hints

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
        trace = TRACE.get()
        if trace is not None:
            return cast("Run[R]", trace.add(lambda: self._signature(args, kwargs).traced()))
        return cast("Run[R]", self.build(*args, **kwargs).start())

    def map(self, /, *lists: Iterable[Any], **kwargs: Any) -> ResultGroup[R]:
        """Start it for each element of a list, as one run; see `flowq.task.Task.map`."""
        return self._map(lists, kwargs, None)

    def starmap(self, /, items: Iterable[Iterable[Any]], **kwargs: Any) -> ResultGroup[R]:
        """Start it for each element, which is unpacked into arguments, as one run."""
        rows: Any = items if isinstance(items, Part) else [tuple(item) for item in items]
        return self._map((rows,), kwargs, True)

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
        made = self._signature(args, kwargs)
        for arg in (*args, *kwargs.values()):
            if isinstance(arg, Handle) or has_parts((arg,)):
                raise self._composes(arg)
        check_call(self, args, kwargs)
        return made.graph_of_run()

    def s(self, /, *args: Any, **kwargs: Any) -> FlowSignature[R]:
        """Make a composition: the flow with bound arguments, as a member of chains and groups."""
        trace = TRACE.get()
        if trace is not None:
            trace.check((*args, *kwargs.values()))
        for arg in (*args, *kwargs.values()):
            if isinstance(arg, Handle):
                raise self._composes(arg)
        return self._signature(args, kwargs)

    def each(self, /, **kwargs: Any) -> Map[R]:
        """Make a map over the list that is piped in: ``extract.s() | nightly.each()``."""
        return map_of(self._signature((), kwargs), (), {}, {})

    # --- inside ----------------------------------------------------------------------------------

    def _signature(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> FlowSignature[R]:
        return FlowSignature(self._base, args, kwargs, self._run_options)

    def _map(
        self, lists: tuple[Any, ...], kwargs: Mapping[str, Any], unpack: bool | None
    ) -> ResultGroup[R]:
        def make() -> Map[R]:
            return map_of(self._signature((), kwargs), lists, {}, {}, unpack=unpack)

        trace = TRACE.get()
        if trace is not None:
            return cast("ResultGroup[R]", trace.add(make))
        for arg in (*lists, *kwargs.values()):
            if isinstance(arg, Handle):
                raise self._composes(arg)
        return cast("ResultGroup[R]", make().start())

    def _with(self, options: Mapping[str, Any]) -> Flow[P, R]:
        checked = check_options(options, "flow", f"{self.name}.options")
        made: Flow[P, R] = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._run_options = {**self._run_options, **checked}
        made.options = FlowOptions(made, self.options)
        return made

    def _composes(self, given: Any) -> BindingError:
        name = self.name.rpartition(".")[2]
        return BindingError(
            f"{self.name} was given {given!r}, whose value is not known yet. Compose: "
            f"other.s(...) | {name}.s(...), or {name}.s(other.s(...)) with the signature as "
            "argument, then .start(); or call it within another flow"
        )

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
            if name in ("graph", "mermaid"):
                raise AttributeError(f"a flow has no {name!r}; write .build(...).{name}")
            if name == "start":
                raise AttributeError("a flow has no 'start'; call it, or write .s(...).start()")
            said = habit(name, "a flow")
            known = [n for n in (*dir(type(self)), *vars(self)) if not n.startswith("_")]
            raise AttributeError(said or f"a flow has no {name!r}{nearest(name, known)}")


def _flow_of(app: Any, name: str) -> Any:
    return app.flows[name]


class FlowSignature(Composition[R]):
    """A flow with bound arguments: what ``nightly.s("x")`` gives.

    Within another composition it is one node, with the flow's graph inside. Its function runs when
    what contains it is built: what is piped in, and steps among its arguments, are then parameters
    whose values are not known.
    """

    __slots__ = ("_args", "_flow", "_graphs", "_kwargs")

    _single = True

    def __init__(
        self,
        flow: Flow[..., R],
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        self._after = ()
        self._options = dict(options)
        self._flow = flow
        self._args = tuple(args)
        self._kwargs = dict(kwargs)
        self._graphs: dict[Any, FlowGraph[R]] = {}
        check_call(flow, self._args, self._kwargs, more=True)
        self._made()

    def __repr__(self) -> str:
        given = [*map(_brief, self._args), *(f"{k}={_brief(v)}" for k, v in self._kwargs.items())]
        return f"{self._base()}.s({', '.join(given)})"

    if TYPE_CHECKING:

        def map(self, /, *lists: Any, **kwargs: Any) -> Map[R]:
            """One for each element."""

        def starmap(self, rows: Any, /, **kwargs: Any) -> Map[R]:
            """One for each tuple of arguments."""

    def start(self, app: Submitter | None = None) -> RunHandle[R]:
        """Enqueue it; gives its ``Run``. See `Composition.start`."""
        return cast("RunHandle[R]", self._start(app))

    def put(self, build: Builder, body: Body) -> Fragment:
        """Add one node; its graph is placed when all that it is given is known."""
        for name in ("result_ttl", "failed_ttl"):
            if name in self._options:
                raise GraphError(
                    f"{self!r}: {name}= speaks of the run, so it goes on what is started, not on "
                    "a part of it"
                )
        node, _ = build.expansion(body, self._base(), self._options)
        node.spec, node.late = self._flow, self
        node.args, node.kwargs = list(self._args), dict(self._kwargs)
        node.order.extend(self._after)
        return Fragment([node], [node], node)

    def contents(self, node: Node) -> Part:
        """Give the graph for a node: `flowq.primitives.build` places it there."""
        return Contents(self._graph_for(node.args, node.kwargs, node.edges.keys()))

    def traced(self) -> FlowSignature[R]:
        """Run the function at once, so that its mistakes are seen where it is called; itself."""
        check_call(self._flow, self._args, self._kwargs)
        edges = [k for k, v in enumerate(self._args) if has_parts((v,))]
        by_name = [k for k, v in self._kwargs.items() if has_parts((v,))]
        self._graph_for(self._args, self._kwargs, (*edges, *by_name))
        return self

    def graph_of_run(self) -> FlowGraph[R]:
        """Build the graph of a run, with the options of the run; all arguments are values."""
        options = {**self._flow.options, **self._options}
        made = self._trace(options.pop("name", self._base()), self._args, self._kwargs)
        return cast("FlowGraph[R]", made.options(**options))

    def _called(self) -> tuple[TaskSpec, tuple[Any, ...], Mapping[str, Any]]:
        """What is called, and with what."""
        return self._flow, self._args, self._kwargs

    def _graph_for(
        self, args: Iterable[Any], kwargs: Mapping[str, Any], edges: Iterable[int | str]
    ) -> FlowGraph[R]:
        """Build the graph, with placeholders for what comes over edges; once for each shape."""
        shape = frozenset(edges)
        found = self._graphs.get(shape)
        if found is None:
            found = self._trace(self._base(), tuple(args), kwargs, shape)
            self._graphs[shape] = found
        return found

    def _trace(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        edges: frozenset[int | str] = frozenset(),
    ) -> FlowGraph[R]:
        token = TRACE.set(None)  # what is built is no part of a flow around
        try:
            graph: FlowGraph[R] = FlowGraph(name, self._flow._app)
        finally:
            TRACE.reset(token)
        given = list(args)
        named = dict(kwargs)
        for to in edges:
            if isinstance(to, int):
                written = self._args[to] if to < len(self._args) else None
                given[to] = _placeholder(graph, to, self._parameter(to), written)
            else:
                named[to] = _placeholder(graph, to, to, self._kwargs.get(to))
        Trace(graph).run(lambda: self._flow.func(*given, **named))
        return graph

    def _parameter(self, to: int) -> str:
        from flowq.binding import params_of

        return params_of(self._flow).name(to)

    def _base(self) -> str:
        return self._flow.name.rpartition(".")[2]

    def _graph(self) -> Any:
        if not self._after and not has_parts((*self._args, *self._kwargs.values())):
            check_call(self._flow, self._args, self._kwargs)
            return self.graph_of_run()._graph()
        # the priority stays with the node, as that of any other
        run = {k: v for k, v in self._options.items() if k != "priority"}
        bare = self._without(run)
        return Builder().build(bare, self._base(), {**_ttls(self._flow.options), **run})


def _ttls(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: options[k] for k in ("result_ttl", "failed_ttl") if k in options}


def _placeholder(
    graph: FlowGraph[Any], to: int | str, name: str, written: Any, path: tuple[Any, ...] = ()
) -> Any:
    """Put placeholders where steps were written, in lists, tuples and dicts too."""
    kind = type(written)
    if path and not has_parts((written,)):
        return written
    if kind in (list, tuple):
        made = [_placeholder(graph, to, name, x, (*path, k)) for k, x in enumerate(written)]
        return made if kind is list else tuple(made)
    if kind is dict:
        return {k: _placeholder(graph, to, name, x, (*path, k)) for k, x in written.items()}
    return Given(graph, to, name, path)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


class FlowDecorator(Protocol):
    """What ``@q.flow(...)`` gives: it turns a function into a flow."""

    def __call__(self, func: Callable[P, R], /) -> Flow[P, R]:
        """Register it."""
        ...
