# SPDX-License-Identifier: MIT
"""What a flow's function does while it runs: calls become nodes of the graph that it builds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, NoReturn, TypeVar, cast

from flowq.binding import check_call
from flowq.current import TRACE
from flowq.errors import BindingError, CycleError, GraphError, NodeUsedAsValue
from flowq.handle import Handle
from flowq.node import Body, leaves
from flowq.primitives.base import Composition, Item, Reference, users_code
from flowq.primitives.build import Builder, Fragment, Part
from flowq.primitives.dag import DAG, DagNode
from flowq.primitives.map import Map
from flowq.primitives.signature import Signature
from flowq.wiring import RunHandle, Submitter, TaskSpec

__all__ = ["FlowGraph", "FlowNode", "Given", "Trace"]

R = TypeVar("R", covariant=True)

DEEPEST: Final = 50
"""Flows that are built within each other, before it is taken for an endless recursion."""


class FlowNode(DagNode):
    """A node of a flow: what a call gives while the flow is built.

    As an argument it is an edge, ``node["x"]`` and ``node[0]`` are edges that take one item;
    ``a >> b`` and ``.after(a, b)`` are order alone.
    """

    __slots__ = ("number",)

    number: int

    def __repr__(self) -> str:
        return f"<node {self._name!r} of {self._dag._kind} {self._dag._name}>"

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
        if at is None or at.owner is None:
            raise NodeUsedAsValue(f"{self!r} is mentioned outside of that flow")
        value = at.owner.edges[self._to]
        for key in self._path:
            value = value[key]
        return Fragment([], list(leaves(value)), value)


class FlowGraph(DAG, Generic[R]):
    """The graph that a flow's function built: a DAG, with nodes named after the calls.

    What ``nightly.build(day=...)`` gives, to look at (``.graph``, ``.mermaid()``) and to start.
    """

    __slots__ = ("_backward", "_named", "_submitter")

    _kind = "flow"

    def __init__(self, name: str, submitter: Submitter) -> None:
        super().__init__(name)
        self._submitter = submitter
        self._named: dict[str, FlowNode] = {}
        self._backward = False

    def __repr__(self) -> str:
        return f"<flow {self._name}>"

    def start(self, app: Submitter | None = None) -> RunHandle[R]:
        """Enqueue it; gives its ``Run``. See `Composition.start`."""
        return cast("RunHandle[R]", self._start(app))

    def _start(self, app: Submitter | None = None) -> Any:
        # a flow that calls nothing belongs to an app all the same
        return super()._start(self._submitter if app is None else app)

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
            raise GraphError(
                f"{self!r}: two nodes are named {name!r}; a name is for one node{users_code()}"
            )
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
                raise CycleError(f"{self!r}: the graph has a cycle: {names}{users_code()}")
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
        if other is not None and other is not self:
            raise NodeUsedAsValue(
                f"{what!r}{users_code()} is no node of {self!r}, which cannot see it; pass it to "
                "that flow as an argument"
            )
        return super()._mention(what)


class Returned(Part):
    """What a flow's function returned, as the value of its graph."""

    __slots__ = ("_structure",)

    def __init__(self, structure: Any) -> None:
        self._structure = structure

    def refer(self, build: Builder, body: Body) -> Fragment:
        """The structure, with references in it."""
        return Fragment([], [], self._structure)


class Trace:
    """One run of a flow's function; while it lasts it stands in `TRACE`.

    Parameters
    ----------
    graph : FlowGraph
        What is built.
    """

    def __init__(self, graph: FlowGraph[Any]) -> None:
        self.graph = graph
        around = TRACE.get()
        self._depth: int = 1 if around is None else around._depth + 1
        self._made: dict[int, tuple[Part, str]] = {}

    def run(self, call: Callable[[], Any]) -> None:
        """Call the flow's function and take what it returns.

        Raises
        ------
        GraphError
            Flows within flows without end; something was made and is mentioned nowhere.
        """
        if self._depth > DEEPEST:
            raise GraphError(
                f"{self.graph!r}: flows are called within each other over {DEEPEST} deep"
                f"{users_code()}; for recursion let a task return flow.s(...)"
            )
        token = TRACE.set(self)
        try:
            value = call()
            self.check((value,))
        finally:
            TRACE.reset(token)
        self.graph.returns(value)
        self._refuse_forgotten(value)

    # --- what a call gives -----------------------------------------------------------------------

    def add(self, make: Callable[[], Composition[Any]]) -> FlowNode:
        """Make a node of what a call inside the flow means.

        Raises
        ------
        GraphError
            It is wrong; the text has file and line of the call.
        """
        try:
            part = make()
            self._check_part(part)
            self._made.pop(id(part), None)
            node = cast(FlowNode, self.graph.add(part))
        except NodeUsedAsValue:
            raise
        except GraphError as err:
            err.args = (f"{err}{users_code()}",)
            raise
        self.graph._entries[node._name].where = users_code()
        return node

    def _check_part(self, part: Composition[Any]) -> None:
        args: tuple[Any, ...] = ()
        kwargs: Mapping[str, Any] = {}
        if isinstance(part, Map):
            item = part._item
            self.check((*part._elements, *(part._lists or ())))
            if isinstance(item, Signature):
                self._belongs(item._spec)
                args, kwargs = item._args, item._kwargs
        else:
            spec, args, kwargs = cast(Any, part)._called()
            self._belongs(spec)
            check_call(spec, args, kwargs)
        self.check((*args, *kwargs.values()))

    def _belongs(self, spec: TaskSpec) -> None:
        if spec.submitter is not self.graph._submitter:
            raise GraphError(f"{spec.name} belongs to another app than {self.graph!r}")

    def check(self, values: Iterable[Any]) -> None:
        """Check that what stands in arguments is of this flow.

        Raises
        ------
        NodeUsedAsValue
            A node of another flow, or one within an object where no one finds it.
        BindingError
            A handle of something that was started elsewhere.
        """
        todo = list(values)
        seen: set[int] = set()
        while todo:
            x = todo.pop()
            kind = type(x)
            if kind in (str, int, float, bool, bytes, type(None)) or id(x) in seen:
                continue
            seen.add(id(x))
            if isinstance(x, Reference):
                self.graph._mention(x)
            elif kind in (list, tuple):
                todo.extend(x)
            elif kind is dict:
                todo.extend((*x.keys(), *x.values()))
            elif isinstance(x, Handle):
                raise BindingError(
                    f"{x!r}{users_code()} was started outside of {self.graph!r}, so it is no node "
                    "of it; call its task in the flow, or pass its value"
                )
            elif not isinstance(x, Part):
                for inside in _held(x):
                    if isinstance(inside, Part):
                        raise NodeUsedAsValue(
                            f"{inside!r}{users_code()} stands inside a {kind.__name__}: its value "
                            "is not known while the graph is built, and nodes are found in lists, "
                            "tuples and dicts only; make the object in a task"
                        )

    # --- what must not be ------------------------------------------------------------------------

    def refuse(self, what: str) -> NoReturn:
        """Raise the error of something that cannot be done while a flow is built."""
        raise GraphError(
            f"{what}{users_code()} while {self.graph!r} is built: its function only says what is "
            "to be done, and nothing has run yet; do it in a task, or before the flow is called"
        )

    def made(self, part: Part) -> None:
        """Remember a composition that was made, so that none is forgotten."""
        self._made[id(part)] = (part, users_code())

    def copied(self, part: Part) -> None:
        """Forget a composition of which a changed copy is made."""
        self._made.pop(id(part), None)

    def _refuse_forgotten(self, value: Any) -> None:
        if not self._made:
            return
        used = {id(x) for x in _walk((self.graph, value))}
        for part, where in self._made.values():
            if id(part) not in used and not isinstance(part, Item):
                raise GraphError(
                    f"{part!r}{where} was made in {self.graph!r} and is mentioned nowhere, so it "
                    "would never run; in a flow call the task: clean(x), not clean.s(x); or pass "
                    "it on as an argument"
                )


def _held(x: Any) -> Iterator[Any]:
    """Go through what an object holds, one level deep."""
    if isinstance(x, set | frozenset | list | tuple):
        yield from x
    elif isinstance(x, dict):
        yield from x.values()
    elif dataclasses.is_dataclass(x) and not isinstance(x, type):
        yield from (getattr(x, f.name, None) for f in dataclasses.fields(x))
    elif not isinstance(x, type):
        yield from getattr(x, "__dict__", {}).values()


def _graph_of(what: Any) -> Any:
    """The DAG of a reference."""
    while isinstance(what, Item):
        what = what._of
    if isinstance(what, Given):
        return what._graph
    return what._dag if isinstance(what, DagNode) else None


def _walk(values: Iterable[Any], stop: Callable[[Any], bool] = lambda x: False) -> Iterator[Any]:
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
        if not (isinstance(x, Part) or kind.__name__ == "_Entry") or id(x) in seen:
            continue
        seen.add(id(x))
        yield x
        if stop(x):
            continue
        slots = (slot for cls in kind.__mro__ for slot in getattr(cls, "__slots__", ()))
        todo.extend(getattr(x, slot, None) for slot in slots)


def _nodes_in(values: Iterable[Any], graph: FlowGraph[Any]) -> Iterator[FlowNode]:
    """Go through the nodes of a graph that values mention."""
    for x in _walk(values, lambda x: isinstance(x, FlowNode | DAG)):
        if isinstance(x, FlowNode) and x._dag is graph:
            yield x
