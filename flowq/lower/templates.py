# SPDX-License-Identifier: MIT
"""From values that users wrote to templates: what is a node becomes a reference.

Equal shapes give equal templates, whatever was written: a list of nodes that lie next to each
other is `Items`. What is neither a node nor plain goes to the pool of the payload beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, TypeAlias

from flowq.calls import pack
from flowq.errors import Failure, GraphError
from flowq.filling import plain
from flowq.lower.facts import Facts, ranges
from flowq.message import (
    Binding,
    Cap,
    Cause,
    Const,
    Data,
    Elem,
    Else,
    Items,
    Lit,
    Ref,
    Seq,
    Template,
    nodes_of,
)
from flowq.message import Mapping as MappingTemplate
from flowq.node import (
    Body,
    Maybe,
    Node,
    Slot,
    Take,
    Told,
    has_slots,
    leaves,
    spread_over,
)
from flowq.plan import Ranges, ranges_of
from flowq.serializer import short_repr

__all__ = ["Captured", "CarriedTemplates", "Templates", "names_nodes", "reads_of"]

Captured: TypeAlias = "dict[Any, tuple[int, Node | Slot | Take]]"
"""What a plan takes from outside it, each with its place among the captures of the message."""


class Templates:
    """Templates of values in the plan of a whole graph."""

    def __init__(self, facts: Facts) -> None:
        self._serializer = facts.serializer
        self._instead: dict[Node, Const | Data] = {}
        for node, policy in facts.policies.items():
            if policy == "continue":
                self._instead[node] = self._known(node.options.get("default"), node)

    def of(self, value: Any, pool: list[Any]) -> Template:
        """Give the template of a structure; what is no node goes to the pool."""
        kind = type(value)
        if kind is Node:
            return self._leaf(value, ())
        if kind is Take:
            if type(value.node) is Slot:
                return self._slot(value.node, value.path, pool)
            return self._leaf(value.node, value.path)
        if kind is Slot:
            return self._slot(value, (), pool)
        if kind is Maybe:
            (node,) = leaves(value)
            return Else(self.of(value.of, pool), self._known(value.default, node))
        if kind is Told:
            if not value.value:
                return Cause(value.node.index)
            assert value.node.inner is not None
            return self.of(value.node.inner.value, pool)
        if kind is list or kind is tuple:
            if kind is list and value and all(self._is_ref(x) for x in value):
                first = value[0].index
                if all(x.index == first + k for k, x in enumerate(value)):
                    return Items(first, len(value))
            return Seq(tuple([self.of(x, pool) for x in value]), kind is tuple)
        if kind is dict:
            return MappingTemplate(
                tuple([(self.of(k, pool), self.of(v, pool)) for k, v in value.items()])
            )
        return _value(value, pool)

    def bindings(self, edges: Mapping[int | str, Any], pool: list[Any]) -> tuple[Binding, ...]:
        """Give the templates of what fills a task's parameters over edges."""
        return tuple([Binding(to, self.of(value, pool)) for to, value in edges.items()])

    def body(self, body: Body) -> tuple[Ranges, Ranges, Template]:
        """Give where a body begins, all nodes in it, and the template of its value.

        Raises
        ------
        GraphError
            What is no step stands in the value, and cannot travel in a template.
        """
        entries = ranges([n for n in body.nodes if not n.parents])
        pool: list[Any] = []
        value = self.of(body.value, pool)
        if pool:
            where = f"of {body.owner.who} " if body.owner and body.owner.name else ""
            raise GraphError(
                f"the value {where}holds a {type(pool[0]).__name__} that is no step; only numbers, "
                "short texts, True, False and None can stand beside steps: let a task return it"
            )
        return entries, ranges(body.nodes), value

    def _inside(self, node: Node) -> bool:
        """Whether a node is in this plan, not around it."""
        return True

    def _leaf(self, node: Node, path: tuple[int | str, ...]) -> Template:
        """The template of a node's value, or of one item of it."""
        ref = Ref(node.index, path)
        if self._instead and node in self._instead:
            return Else(ref, self._instead[node], True)
        return ref

    def _known(self, value: Any, node: Node) -> Const | Data:
        """A value that stands in for one of a node, as a part of a template."""
        if plain(value):
            return Const(value)
        payload = pack(self._serializer, value, f"the default of {node.who}")
        return Data(payload, short_repr(value))

    def _is_ref(self, value: Any) -> bool:
        """Whether the template of a value names a node of this plan and nothing else."""
        return type(value) is Node and value not in self._instead and self._inside(value)

    def _slot(self, slot: Slot, path: tuple[int | str, ...], pool: list[Any]) -> Template:
        """The template of the element of a map: of a known list, that of the item being made."""
        place, found = slot.source.item
        assert slot.source.lists is None, "only the plan of an item has elements"
        if isinstance(found, Failure):
            return _value(found, pool)  # it blocks the item
        if slot.part is not None:
            parts = found if slot.source.zipped[1] else spread_over(slot.source, found)
            found = parts[slot.part]
        for key in path:
            if type(found) is Node or type(found) is Slot:
                return self.of(Take(found, path), pool)
            if type(found) is Take:
                return self.of(Take(found.node, (*found.path, *path)), pool)
            try:
                found = found[key]
            except (LookupError, TypeError) as err:
                raise GraphError(
                    f"{slot.source.who}: item {place}, a {type(found).__name__}, has no {key!r}"
                ) from err
            path = path[1:]
        return self.of(found, pool) if names_nodes(found) else _value(found, pool)


class CarriedTemplates(Templates):
    """Templates of values in a plan that a message carries: of an arm, or of a map's item.

    What stands around the plan is captured: named by its place among the captures of the message.

    Parameters
    ----------
    around : Templates
        Those of the plan with that message.
    inside : set of Body
        The bodies that are in the plan.
    captured : dict
        Filled with what is taken from outside them.
    source : Node or None
        For an item: its map, whose elements are known when the plan is filled in.
    """

    def __init__(
        self, around: Templates, inside: Set[Body], captured: Captured, source: Node | None
    ) -> None:
        self._serializer, self._instead = around._serializer, around._instead
        self._bodies = inside
        self._source = source
        self._captured = captured

    def _inside(self, node: Node) -> bool:
        return node.body in self._bodies

    def _leaf(self, node: Node, path: tuple[int | str, ...]) -> Template:
        return super()._leaf(node, path) if self._inside(node) else self._capture(node, path)

    def _slot(self, slot: Slot, path: tuple[int | str, ...], pool: list[Any]) -> Template:
        if slot.source.lists is None:
            if self._inside(slot.source):
                return super()._slot(slot, path, pool)
            # known, but what carries the plan has a pool for what is no plain value
            return self._capture(Take(slot, path) if path else slot, ())
        if slot.source is self._source:
            return Elem(slot.part, slot.spread, slot.source.unpack is True, path)
        if slot.spread and slot.source.unpack:
            raise GraphError(
                f"{slot.source.who}: the tuples that it is over cannot be unpacked deeper inside "
                "it; say unpack=False, or take them apart in a task"
            )
        return self._capture(Slot(slot.source, slot.part), path)

    def _capture(self, what: Node | Slot | Take, path: tuple[int | str, ...]) -> Template:
        place, _ = self._captured.setdefault(_key(what), (len(self._captured), what))
        return Cap(place, path)


def names_nodes(structure: Any) -> bool:
    """Whether a structure holds what is known only when the graph runs."""
    return has_slots(structure) or any(True for _ in leaves(structure))


def reads_of(bindings: Iterable[Binding]) -> Ranges:
    """Give the nodes whose values fill these places."""
    found = list(bindings)
    if len(found) == 1 and type(found[0].value) is Ref:  # most nodes of most graphs
        return ((found[0].value.node, 1),)
    return ranges_of(n for b in found for n in nodes_of(b.value))


def _value(value: Any, pool: list[Any]) -> Const | Lit:
    """The template of a value that holds no nodes."""
    if plain(value):
        return Const(value)
    pool.append(value)
    return Lit(len(pool) - 1)


def _key(what: Node | Slot | Take) -> Any:
    if isinstance(what, Take):
        return _key(what.node), what.path
    return (what.source, what.part) if isinstance(what, Slot) else what
