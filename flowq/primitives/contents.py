# SPDX-License-Identifier: MIT
"""The nodes of a DAG or flow, on their way into a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from flowq.errors import GraphError
from flowq.node import Body, Node
from flowq.primitives.build import Builder, Fragment, Part, Placing
from flowq.primitives.chain import inside

__all__ = ["Contents", "Entry", "Holder"]


class Holder(Protocol):
    """What contents must know of the DAG whose they are."""

    _entries: dict[str, Entry]
    """What was added, by name."""
    _early: dict[str, Entry]
    """What was mentioned, and was to be added."""
    _returns: Any

    @property
    def _wheres(self) -> Mapping[int, str]: ...

    def _unknown(self, name: str) -> GraphError: ...


class Entry:
    """What was added under a name."""

    __slots__ = ("after", "original", "part", "pipes", "to", "where")

    def __init__(self, part: Any, original: Part) -> None:
        self.part = part
        self.original = original
        self.after: list[Part] = []
        self.pipes: list[Any] = []
        self.to: dict[str, Part] = {}
        self.where = ""  # of the user's code that added it, where that is known


class Contents(Part):
    """The nodes of a DAG, without the node that it is to others."""

    __slots__ = ("_dag",)

    def __init__(self, dag: Holder) -> None:
        self._dag = dag

    def put(self, build: Builder, body: Body) -> Placing:
        """Add the nodes, and lead edges between them."""
        dag = self._dag
        body.scope = dag
        build.wheres.update(dag._wheres)
        if dag._early:
            name = next(iter(dag._early))
            raise dag._unknown(name)
        for name, entry in dag._entries.items():
            part = _Named(entry.part, name)
            build.keep.append(part)
            around, build.where = build.where, entry.where or build.where
            made = yield part, body
            build.where = around
            (node,) = made.tails
            body.names[name] = node
            body.places.setdefault(id(entry.original), made)
            for head in made.heads:  # of a race: what it was given that is no node yet
                head.order.extend(entry.after)
                head.pipes.extend(entry.pipes)
            self._edges(name, node, entry)
        value = _Ends(dag) if dag._returns is None else dag._returns
        build.keep.append(value)
        return Fragment([], list(body.nodes), value)

    def _edges(self, name: str, node: Node, entry: Entry) -> None:
        if not entry.to:
            return
        target = node
        if node.inner is not None and node.late is None:
            heads = node.inner.heads
            if node.items is None or len(heads) != 1:
                raise GraphError(
                    f"{self._dag!r}: node {name!r} is a graph, so an edge cannot fill its "
                    "parameters; add its steps as nodes"
                )
            target = heads[0]
        for to, source in entry.to.items():
            if to in target.kwargs:
                raise GraphError(
                    f"{target.who}: parameter {to!r} is bound twice, by value and by edge"
                )
            target.kwargs[to] = source


class _Named(Part):
    """A step of a DAG under its name."""

    __slots__ = ("_name", "_part")

    def __init__(self, part: Any, name: str) -> None:
        self._part = part
        self._name = name

    def put(self, build: Builder, body: Body) -> Any:
        part = self._part
        if part._single:
            made = part.put(build, body)
            return self._labelled(made)
        return inside(part, build, body, label=self._name)

    def _labelled(self, made: Any) -> Any:
        if isinstance(made, Fragment):
            made.tails[0].label = self._name
            return made
        return self._after_placing(made)

    def _after_placing(self, placing: Placing) -> Placing:
        made = yield from placing
        made.tails[0].label = self._name
        return made


class _Ends(Part):
    """The value of a DAG that does not say what it returns."""

    __slots__ = ("_dag",)

    def __init__(self, dag: Holder) -> None:
        self._dag = dag

    def refer(self, build: Builder, body: Body) -> Fragment:
        """The only node that nothing follows, else a dict of them by name."""
        read = build.followed()
        ends = {name: node for name, node in body.names.items() if node not in read}
        value: Any = next(iter(ends.values())) if len(ends) == 1 else ends
        return Fragment([], [], value)
