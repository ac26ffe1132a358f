# SPDX-License-Identifier: MIT
"""From nodes that workers run to the messages that travel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowq.calls import Settings, pack, pack_value
from flowq.lower.facts import Facts
from flowq.lower.templates import Templates, names_nodes, reads_of
from flowq.message import Binding, Message, node_id
from flowq.node import Element, Node, Slot, has_slots
from flowq.plan import Ranges
from flowq.serializer import Serializer

__all__ = ["Messages", "Packing"]


class Packing:
    """Payloads and settings of one graph; what many nodes have in common is made once."""

    def __init__(self, facts: Facts) -> None:
        self.serializer: Serializer = facts.serializer
        self._priorities = facts.priorities
        self._read = facts.read
        self._settings: dict[Any, Settings] = {}
        self._bare: dict[int, bytes] = {}

    def settings(self, node: Node) -> Settings:
        """Give the fields of a message that the options of a task decide."""
        assert node.spec is not None
        # nodes of one signature, and all without options, share the mapping
        key = (node.spec, id(node.options), self._priorities[node], node in self._read)
        found = self._settings.get(key)
        if found is None:
            found = Settings(node.spec, node.options, self._priorities[node], node in self._read)
            self._settings[key] = found
        return found

    def value(self, value: Any, what: str) -> bytes:
        """Give the body of a cell with a value that is known now."""
        return pack_value(self.serializer, value, what)

    def payload(
        self, path: str, task: str, args: list[Any], kwargs: Mapping[str, Any], pool: list[Any]
    ) -> bytes:
        """Give the bytes of arguments; errors name the node."""
        if pool:
            return pack(self.serializer, (tuple(args), kwargs, pool), _what(path, task))
        if not kwargs and args.count(None) == len(args):  # what a chain's links have in common
            count = len(args)
            if count not in self._bare:
                self._bare[count] = pack(self.serializer, (tuple(args), {}), _what(path, task))
            return self._bare[count]
        return pack(self.serializer, (tuple(args), kwargs), _what(path, task))


class Messages:
    """The messages of one plan.

    Parameters
    ----------
    packing : Packing
    templates : Templates
    run : bytes
        The run's id; empty where it is not known yet.
    """

    def __init__(self, packing: Packing, templates: Templates, run: bytes) -> None:
        self.packing = packing
        self.templates = templates
        self._run = run

    def id(self, index: int) -> bytes:
        """Give the id of a node, or none as long as the run is not known."""
        return node_id(self._run, index) if self._run else b""

    def task(self, node: Node, path: str, place: int | None) -> tuple[Message, Ranges]:
        """Make the message of a task; gives the nodes that it reads beside it.

        Parameters
        ----------
        node : Node
        path : str
            Its name in the run.
        place : int or None
            Of the element that it stands for, in its map; of a chunk, of the first element.
        """
        spec, args, kwargs, edges = node.spec, node.args, node.kwargs, node.edges
        assert spec is not None
        chunk: tuple[int | str, ...] = ()
        source = _chunked(node)
        if node.elements:
            args, edges = _with_elements(node)
        if source is not None:
            args, kwargs, edges, chunk = _with_chunk(node, source, args, edges)
        settings = self.packing.settings(node)
        pool: list[Any] = []
        bindings: tuple[Binding, ...] = ()
        reads: Ranges = ()
        if edges:
            bindings = self.templates.bindings(edges, pool)
            reads = reads_of(bindings)
        message = Message(
            self.id(node.index),
            spec.name,
            self.packing.payload(path, spec.name, args, kwargs, pool),
            *settings.fields,
            path,
            bindings,
            settings.policy,
            place,
            settings.prefetch,
            chunk=chunk,
        )
        return message, reads

    def items(self, source: Node, path: str) -> Iterator[tuple[Message, Ranges]]:
        """Make the messages of a map's items, each of which is one task: the quick way for many.

        Parameters
        ----------
        source : Node
            The map.
        path : str
            What names of its items begin with.
        """
        assert source.inner is not None and source.items is not None
        (node,) = source.inner.nodes
        spec, first = node.spec, source.index + 1
        assert spec is not None
        slots = any(map(has_slots, node.edges.values()))
        if len(node.elements) != 1 or source.dynamic or source.chunk or slots:
            for i, item in enumerate(source.items):
                source.item = (i, item)
                node.index = first + i
                yield self.task(node, f"{path}[{i}]", source.place(i))
            return
        settings = self.packing.settings(node)
        run, name, serializer = self._run, spec.name, self.packing.serializer
        pool: list[Any] = []
        bindings = self.templates.bindings(node.edges, pool)
        reads = reads_of(bindings)
        fields, policy, prefetch = settings.fields, settings.policy, settings.prefetch
        (element,) = node.elements
        given, kwargs = element.given, node.kwargs
        before = tuple(node.args[: element.at])
        after = tuple(node.args[element.at + _uniform(element) :])
        for i, item in enumerate(source.items):
            named = f"{path}[{i}]"
            args = (*before, *given(item), *after)
            payload = pack(
                serializer,
                (args, kwargs, pool) if pool else (args, kwargs),
                f"arguments of node {named!r} (task {name})",
            )
            id = node_id(run, first + i) if run else b""
            message = Message(id, name, payload, *fields, named, bindings, policy, i, prefetch)
            yield message, reads


def _what(path: str, task: str) -> str:
    return f"arguments of node {path!r} (task {task})"


def _with_elements(node: Node) -> tuple[list[Any], dict[int | str, Any]]:
    """Give the arguments and edges of a task in the item that is being made."""
    args, edges = list(node.args), node.edges
    for element in node.elements:
        if element.source.chunk:
            continue  # see `_with_chunk`
        if element.source.lists is not None:
            edges = {**edges, **_open_edges(element)}
            continue
        given = element.given(element.source.item[1])
        args[element.at : element.at + _uniform(element)] = given
        if element.source.dynamic:
            edges = dict(edges)
            for k, value in enumerate(given, element.at):
                if names_nodes(value):
                    edges[k] = value
                    args[k] = None
    return args, edges


def _chunked(node: Node) -> Node | None:
    """The map of which a task takes several elements at once, if it does."""
    for element in node.elements:
        if element.source.chunk:
            return element.source
    for value in node.edges.values():
        if type(value) is Slot and value.source.chunk:
            return value.source
    return None


def _with_chunk(
    node: Node, source: Node, args: list[Any], edges: Mapping[int | str, Any]
) -> tuple[list[Any], dict[str, Any], dict[int | str, Any], tuple[int | str, ...]]:
    """Put the elements of a chunk into the arguments and edges of its task.

    The places of an element's arguments become one, with a tuple for each element.
    """
    kwargs, edges, places = dict(node.kwargs), dict(edges), []
    item = source.item[1]
    values: dict[int | str, Any] = {}
    element = next((e for e in node.elements if e.source is source), None)
    if element is not None:
        at, width = element.at, len(_open_edges(element)) - element.spread
        if source.lists is None:
            width = _uniform(element)
            values[at] = [tuple(element.given(x)) for x in item]
        else:
            slots = tuple(_open_edges(element).values())
            values[at] = slots[0] if element.spread else slots
        args = [*args[:at], None, *args[at + width :]]
        edges = {
            to + 1 - width if isinstance(to, int) and to > at else to: value
            for to, value in edges.items()
        }
    for to, value in node.edges.items():
        if isinstance(to, str) and type(value) is Slot and value.source is source:
            part = value.part
            known = source.lists is None
            values[to] = [x if part is None else x[part] for x in item] if known else value
            del edges[to]
    for to, value in values.items():
        places.append(to)
        if source.lists is not None or names_nodes(value):
            edges[to] = value
        elif isinstance(to, int):
            args[to] = value
        else:
            kwargs[to] = value
    return args, kwargs, edges, tuple(places)


def _uniform(element: Element) -> int:
    """How many places an element has among its task's arguments."""
    if not element.widths:
        return 1
    return next(iter(element.widths)) if len(element.widths) == 1 else 0


def _open_edges(element: Element) -> dict[int | str, Any]:
    """What fills the places of the element of a map whose list is not known yet."""
    count, named = element.source.zipped
    if count > 1:
        return {element.at + k: Slot(element.source, k) for k in range(count)}
    return {element.at: Slot(element.source, 0 if named else None, spread=element.spread)}
