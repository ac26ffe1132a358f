# SPDX-License-Identifier: MIT
"""The graph that a flow's function builds: nodes that may change, and parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from flowq.building import TRACE
from flowq.errors import CycleError, GraphError, NodeUsedAsValue
from flowq.graph import Graph
from flowq.limits import Limits
from flowq.node import Body, leaves
from flowq.once import Called
from flowq.plan import Plan, Ranges
from flowq.primitives.base import Item, Reference
from flowq.primitives.build import Builder, Fragment, Part
from flowq.primitives.contents import Entry
from flowq.primitives.dag import DAG, DagNode
from flowq.primitives.optional import Optional
from flowq.primitives.signature import Signature
from flowq.wiring import Submitter

if TYPE_CHECKING:
    from flowq.run import Run

__all__ = ["ArmGraph", "FlowGraph", "FlowNode", "Given", "walk"]

R = TypeVar("R", covariant=True)


class FlowNode(DagNode):
    """A node of a flow: what a call gives while the flow is built.

    As an argument it is an edge, ``node["x"]`` and ``node[0]`` are edges that take one item;
    ``a >> b`` and ``.after(a, b)`` are order alone.
    """

    __slots__ = ("number",)

    number: int

    def __repr__(self) -> str:
        return f"<node {self._name!r} of {self._dag._kind} {self._dag._name}>"

    @property
    def _outputs(self) -> int:
        """How many values its task returns, where that is declared; else 0."""
        part = self._dag._entries[self._name].part
        return part._spec.options.get("outputs") or 0 if isinstance(part, Signature) else 0

    def __iter__(self) -> Iterator[Item]:  # type: ignore[override]
        """Go through the items of a value whose length is declared: ``a, b = split(x)``."""
        outputs = self._outputs
        if not outputs:
            self._refuse(
                "iteration",
                "use map, or do this in a task (a, b = node is for @q.task(outputs=2))",
            )
        trace = TRACE.get()
        if trace is not None:
            trace.unpacks(self, outputs)
        return iter([self[k] for k in range(outputs)])

    def __len__(self) -> int:  # type: ignore[override]
        return self._outputs or self._refuse("the length")

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    __hash__ = object.__hash__  # its name may change

    def options(self, **options: Any) -> DagNode:
        """Set options of the node, its name too; gives itself."""
        made = super().options(**options)
        name = options.get("name")
        if name is not None:
            cast("FlowGraph[Any]", self._dag).rename(self, name)
        return made

    def __rshift__(self, other: Any) -> Any:
        inside = other if isinstance(other, list | tuple) else [other]
        if inside and all(isinstance(x, FlowNode) and x._dag is not self._dag for x in inside):
            for node in inside:  # of an arm, which sees this one
                node._dag.edge(self, node)
            return other
        return super().__rshift__(other)

    def after(self, *others: Any) -> DagNode:
        """Let it begin only when others have ended; gives itself."""
        made = super().after(*others)
        for other in others:
            cast("FlowGraph[Any]", self._dag).no_ring(other, self)
        return made


class Given(Reference):
    """A parameter of a flow that is built: what it is given is not known, or is another's node."""

    __slots__ = ("_graph", "_name", "_path", "_to")

    def __init__(
        self, graph: FlowGraph[Any], to: int | str, name: str, path: tuple[Any, ...]
    ) -> None:
        self._graph = graph
        self._to = to
        self._name = name
        self._path = path

    def __repr__(self) -> str:
        path = "".join(f"[{key!r}]" for key in self._path)
        return f"<parameter {self._name}{path} of flow {self._graph._name}>"

    def refer(self, build: Builder, body: Body) -> Fragment:
        """What the flow is given where its graph stands."""
        at: Body | None = body
        while at is not None and at.scope is not self._graph:
            at = at.around
        if at is None:
            raise NodeUsedAsValue(f"{self!r} is mentioned outside of that flow")
        value = at.given[self._to]
        for key in self._path:
            value = value[key]
        return Fragment([], list(leaves(value)), value)


class FlowGraph(DAG, Generic[R]):
    """The graph that a flow's function built: a DAG, with nodes named after the calls.

    What ``nightly.build(day=...)`` gives, to look at (``.graph``, ``.mermaid()``) and to start.
    """

    __slots__ = ("_backward", "_named", "_submitter", "_wheres", "bound", "run_of")

    _wheres: Mapping[int, str]

    names_calls = True
    _kind = "flow"

    def __init__(self, name: str, submitter: Submitter) -> None:
        super().__init__(name)
        self._submitter = submitter
        self._named: dict[str, FlowNode] = {}
        self._backward = False
        self._wheres = {}
        self.bound: Limits = ()
        """The limits of the flow that built it, over all its runs."""
        self.run_of: tuple[Called | None, tuple[Any, ...], Mapping[str, Any]] = (None, (), {})
        """The flow that built it, and its arguments, where it is the graph of a run."""

    def __repr__(self) -> str:
        return f"<flow {self._name}>"

    def start(self, app: Submitter | None = None) -> Run[R]:
        """Enqueue it; gives its ``Run``. See `Composition.start`."""
        return cast("Run[R]", self._start(app))

    if TYPE_CHECKING:

        def test(
            self,
            values: Mapping[str, Any] | None = None,
            fail: Mapping[str, Any] | None = None,
            *,
            app: Submitter | None = None,
        ) -> Run[R]:
            """Run it here and now; gives its ``Run``. See `Composition.test`."""

    def _planned(self, app: Submitter | None) -> tuple[Submitter, Plan, Ranges | None]:
        # a flow that calls nothing belongs to an app all the same
        return super()._planned(self._submitter if app is None else app)

    def _graph(self) -> Graph:
        graph = super()._graph()
        graph.root.shared = self._shared()
        return graph

    def _shared(self) -> Limits:
        return self.bound

    def _run_of(self) -> tuple[Called | None, tuple[Any, ...], Mapping[str, Any]]:
        return self.run_of

    def edge(self, source: Any, target: Any, to: str | None = None) -> None:
        """Add an edge; see `DAG.edge`."""
        super().edge(source, target, to)
        self.no_ring(source, target)

    def returns(self, value: Any) -> FlowGraph[R]:
        """Say what its value is: a node, or a structure of nodes and constants; gives itself."""
        self._returns = Returned(value)
        return self

    def rename(self, node: FlowNode, name: str) -> None:
        """Give a node another name."""
        old = node._name
        if name == old:
            return
        if name in self._entries:
            raise GraphError(f"{self!r}: two nodes are named {name!r}; a name is for one node")
        self._entries = {name if k == old else k: e for k, e in self._entries.items()}
        self._named[name] = self._named.pop(old)
        node._name = name

    def no_ring(self, source: Any, target: Any) -> None:
        """Check that an edge that was added closes no ring.

        Calls refer to what was called before, so only an edge from a later node to an earlier one
        can close one.
        """
        goal = self[target] if isinstance(target, str) else target
        above = list(_nodes_in((source,), self))
        if not self._backward and all(node.number < goal.number for node in above):
            return
        self._backward = True
        came: dict[FlowNode, FlowNode] = dict.fromkeys(above, goal)
        todo = above
        while todo:
            at = todo.pop()
            if at is goal:
                way = [goal, came[goal]]
                while way[-1] is not goal:
                    way.append(came[way[-1]])
                names = " -> ".join(node._name for node in way)
                raise CycleError(f"{self!r}: the graph has a cycle: {names}")
            for node in _nodes_in((self._entries[at._name],), self):
                if node not in came:
                    came[node] = at
                    todo.append(node)

    def _node(self, name: str) -> DagNode:
        node = self._named.get(name)
        if node is None:
            node = self._named[name] = FlowNode(self, name)
            node.number = len(self._named)
        return node

    def _mention(self, what: Any) -> Part:
        other = _graph_of(what)
        if isinstance(other, ArmGraph) and other is not self:
            raise NodeUsedAsValue(
                f"{what!r} belongs to an arm, which may not be taken, so {self!r} cannot see "
                "it; use the value of the branch"
            )
        if other is not None and other is not self:
            raise NodeUsedAsValue(
                f"{what!r} is no node of {self!r}, which cannot see it; pass it to "
                "that flow as an argument"
            )
        return super()._mention(what)


class ArmGraph(FlowGraph[R]):
    """What a function built that is an arm of a branch; it sees the nodes of the flow around it."""

    __slots__ = ("_flow",)

    _kind = "arm"

    def __init__(self, label: str, around: FlowGraph[Any] | None) -> None:
        super().__init__("arm", cast(Any, around and around._submitter))
        self._name = label
        self._flow = around

    def __repr__(self) -> str:
        return f"<arm {self._name!r}{f' in {self._flow!r}' if self._flow is not None else ''}>"

    def _mention(self, what: Any) -> Part:
        other = _graph_of(what)
        if other is not None and self._sees(other):
            return cast(Part, what)
        return super()._mention(what)

    def _sees(self, other: Any) -> bool:
        at = self._flow
        while at is not None and at is not other:
            at = at._flow if isinstance(at, ArmGraph) else None
        if at is not None:
            return True
        top: Any = self
        while isinstance(top, ArmGraph):
            top = top._flow
        return top is None and not isinstance(other, FlowGraph)  # where it stands will show


class Returned(Part):
    """What a flow's function returned, as the value of its graph."""

    __slots__ = ("_structure",)

    def __init__(self, structure: Any) -> None:
        self._structure = structure

    def refer(self, build: Builder, body: Body) -> Fragment:
        """The structure, with references in it."""
        return Fragment([], [], self._structure)


def _graph_of(what: Any) -> Any:
    """The DAG of a reference."""
    while isinstance(what, Item | Optional):
        what = what._of
    if isinstance(what, Given):
        return what._graph
    return what._dag if isinstance(what, DagNode) else None


def walk(values: Iterable[Any], stop: Callable[[Any], bool] = lambda x: False) -> Iterator[Any]:
    """Go through all compositions that are mentioned in values, and in what is mentioned there."""
    todo = list(values)
    seen: set[int] = set()
    while todo:
        x = todo.pop()
        kind = type(x)
        if kind in (list, tuple, dict):
            if id(x) not in seen:
                seen.add(id(x))
                todo.extend((*x.keys(), *x.values()) if kind is dict else x)
            continue
        if not isinstance(x, Part | Entry) or id(x) in seen:
            continue
        seen.add(id(x))
        yield x
        if stop(x):
            continue
        slots = (slot for cls in kind.__mro__ for slot in getattr(cls, "__slots__", ()))
        todo.extend(getattr(x, slot, None) for slot in slots)


def _nodes_in(values: Iterable[Any], graph: FlowGraph[Any]) -> Iterator[FlowNode]:
    """Go through the nodes of a graph that values mention."""

    def stop(x: Any) -> bool:
        return isinstance(x, FlowNode) or (isinstance(x, DAG) and not isinstance(x, ArmGraph))

    for x in walk(values, stop):
        if isinstance(x, FlowNode) and x._dag is graph:
            yield x
