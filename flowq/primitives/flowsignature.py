# SPDX-License-Identifier: MIT
"""A flow with bound arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flowq.binding import check_call, params_of
from flowq.building import TRACE
from flowq.errors import GraphError
from flowq.node import Body, Node
from flowq.once import OF_STARTS, Called
from flowq.primitives.base import Composition
from flowq.primitives.build import Builder, Fragment, Part, has_parts
from flowq.primitives.contents import Contents
from flowq.primitives.flowgraph import FlowGraph, Given
from flowq.primitives.follow import OF_GRAPHS, OF_NODES
from flowq.primitives.trace import Trace
from flowq.wiring import Submitter, TaskSpec

if TYPE_CHECKING:
    from flowq.flow import Flow
    from flowq.primitives.map import Map
    from flowq.run import Run

__all__ = ["FlowSignature"]

R = TypeVar("R", covariant=True)


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
        check_call(flow, self._args, self._kwargs, more=True, who=f"flow {flow.name}")
        self._made()

    def __repr__(self) -> str:
        given = [*map(_brief, self._args), *(f"{k}={_brief(v)}" for k, v in self._kwargs.items())]
        return f"{self._base()}.s({', '.join(given)})"

    if TYPE_CHECKING:

        def map(self, /, *lists: Any, **kwargs: Any) -> Map[R]:
            """One for each element."""

        def starmap(self, rows: Any, /, **kwargs: Any) -> Map[R]:
            """One for each tuple of arguments."""

    def start(self, app: Submitter | None = None) -> Run[R]:
        """Enqueue it; gives its ``Run``. See `Composition.start`."""
        return cast("Run[R]", self._start(app))

    def put(self, build: Builder, body: Body) -> Fragment:
        """Add one node; its graph is placed when all that it is given is known."""
        self._refuse_ttl()
        own = {k: v for k, v in self._flow.options.items() if k in OF_GRAPHS}
        node, _ = build.expansion(body, self._base(), {**own, **self._options})
        node.shared = self._flow.limits
        node.spec, node.late = self._flow, self
        node.args, node.kwargs = list(self._args), dict(self._kwargs)
        node.order.extend(self._after)
        return Fragment([node], [node], node)

    def contents(self, node: Node) -> Part:
        """Give the graph for a node: `flowq.primitives.build` places it there."""
        return Contents(self._graph_for(node.args, node.kwargs, node.edges.keys()))

    def traced(self) -> FlowSignature[R]:
        """Run the function at once, so that its mistakes are seen where it is called; itself."""
        self._refuse_ttl()
        self._complete()
        edges = [k for k, v in enumerate(self._args) if has_parts((v,))]
        by_name = [k for k, v in self._kwargs.items() if has_parts((v,))]
        self._graph_for(self._args, self._kwargs, (*edges, *by_name))
        return self

    def graph_of_run(self) -> FlowGraph[R]:
        """Build the graph of a run, with the options of the run; all arguments are values."""
        self._complete()
        declared = {k: v for k, v in self._flow.options.items() if k != "max_parallel"}
        options = {**declared, **self._options}
        made = self._trace(options.pop("name", self._base()), self._args, self._kwargs)
        made.bound = self._flow.limits
        made.run_of = (self._flow, self._args, self._kwargs)
        return cast("FlowGraph[R]", made.options(**options))

    def _scope(self, name: str) -> str:
        return self._flow.name

    def _run_of(self) -> tuple[Called | None, tuple[Any, ...], Mapping[str, Any]]:
        return self._flow, self._args, self._kwargs

    def _refuse_ttl(self) -> None:
        for name in ("result_ttl", "failed_ttl", *OF_STARTS):
            if name in self._options:
                raise GraphError(
                    f"{self!r}: {name}= speaks of the run, so it goes on what is started, not on "
                    "a part of it"
                )

    def _complete(self) -> None:
        check_call(self._flow, self._args, self._kwargs, who=f"flow {self._flow.name}")

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
        Trace(graph).run(self._flow.func, given, named)
        return graph

    def _parameter(self, to: int) -> str:
        return params_of(self._flow).name(to)

    def _base(self) -> str:
        return self._flow.name.rpartition(".")[2]

    def _graph(self) -> Any:
        if not self._after and not has_parts((*self._args, *self._kwargs.values())):
            return self.graph_of_run()._graph()
        # the priority stays with the node, as that of any other
        run = {k: v for k, v in self._options.items() if k != "priority" and k not in OF_NODES}
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
