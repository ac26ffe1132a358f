# SPDX-License-Identifier: MIT
"""Graphs as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from flowq.binding import parameter_name
from flowq.drawing import Arrow, Drawing, Shape, mermaid
from flowq.graph import Graph
from flowq.node import Body, Node, is_plain_map, kind_text, leaves
from flowq.plan import Kind
from flowq.serializer import short_repr
from flowq.text import duration

__all__ = ["draw", "drawing_of"]

_Todo: TypeAlias = "tuple[Node, str, bool, list[Shape]]"
"""What is to be drawn: a node, what its name begins with, whether aside, and among what."""


def draw(graph: Graph) -> str:
    """Draw a graph as Mermaid text; see `drawing_of`."""
    return mermaid(drawing_of(graph))


def drawing_of(graph: Graph) -> Drawing:
    """Draw a graph: solid arrows carry values and name the parameter, dotted ones are order.

    A map is one shape that says how many items it has; what has several nodes inside is a box
    around them, a branch a box around its arms.
    """
    drawing = Drawing(graph.name)
    root = graph.root
    assert root.inner is not None
    # a map that is a run of its own is drawn as what it is within another
    first = [root] if root.items is not None else root.inner.nodes
    shapes: dict[Node, Shape] = {}
    todo: list[_Todo] = []
    if root.items is None:
        todo.extend(_later(root.inner.later, drawing.shapes))
    todo.extend((node, "", False, drawing.shapes) for node in reversed(first))
    while todo:
        node, path, aside, among = todo.pop()
        shape = shapes[node] = _shape(node, path + (graph.name if node is root else node.name))
        shape.aside = aside
        among.append(shape)
        todo.extend(_later(node.later, among, f"{node.name}/", aside=False))
        if shape.box and node.inner is not None:
            todo.extend(_later(node.inner.later, shape.inside))
            todo.extend((n, "", False, shape.inside) for n in reversed(node.inner.nodes))
    for node in shapes:
        drawing.arrows.extend(_arrows(node, shapes))
    return drawing


def _later(
    groups: Sequence[Body], among: list[Shape], prefix: str = "", *, aside: bool = True
) -> Iterator[_Todo]:
    """What may run after a body or a task: handlers, cleanups, fallbacks."""
    for group in reversed(groups):
        about = f"{group.about.name}/" if group.about is not None else prefix
        for node in reversed(group.nodes):
            yield node, f"{about}{group.path}", aside, among


def _shape(node: Node, name: str) -> Shape:
    title = name
    if node.items is not None:
        title = f"{name} × {'n' if node.lists is not None else f'{len(node.items):,}'}"
    hint = node.spec.name if node.spec is not None else ""
    if node.inner is not None and _is_bare_arm(node):
        given = next(leaves(node.inner.value), None)
        what = "" if given is not None else f": {short_repr(node.inner.value)}"
        return Shape(f"{title}{what}", form="given")
    if node.inner is not None and not is_plain_map(node):
        return Shape(title, box=True)
    if node.kind is Kind.JOIN:
        return Shape(title, form="join", hint=_said(node))
    return Shape(title, form="many" if node.items is not None else "", hint=hint)


def _said(node: Node) -> str:
    """What a node does that no worker runs."""
    within = f", for {duration(node.timeout_ms / 1000)} at most" if node.timeout_ms else ""
    if node.signal:
        return f"waits for {node.signal!r} to be sent{within}"
    if node.race:
        return "the first success"
    return f"sleeps {duration(node.sleep_ms / 1000)}" if node.sleep_ms else ""


def _is_bare_arm(node: Node) -> bool:
    """Whether a node is an arm that is a constant, or gives what stands around it."""
    return node.inner is not None and not node.inner.nodes and kind_text(node) == "arm"


def _arrows(node: Node, shapes: Mapping[Node, Shape]) -> Iterator[Arrow]:
    filled: dict[Node, list[str]] = {}
    reader = node.inner.nodes[0] if node.inner is not None and is_plain_map(node) else node
    for to, value in reader.edges.items():
        for leaf in dict.fromkeys(leaves(value)):
            filled.setdefault(leaf, []).append(parameter_name(reader, to))
    if node.lists is not None:
        for leaf in leaves(node.lists):
            filled.setdefault(leaf, []).append("each")
    here = shapes[node]
    for group in node.later:
        for n in group.nodes:
            if not n.parents:
                yield Arrow(here, shapes[n], "failed", "order")
    if node.inner is not None and kind_text(node) == "arm":
        for leaf in dict.fromkeys(leaves(node.inner.value)):
            if leaf.body is not node.inner:
                yield Arrow(shapes[leaf], here)
    # what is read from outside is drawn to the reader; order to the box
    for parent in dict.fromkeys([*filled, *node.parents]):
        if parent not in shapes:
            continue
        if parent in filled:
            yield Arrow(shapes[parent], here, ", ".join(filled[parent]))
        elif not _reads_inside(node, parent):
            yield Arrow(shapes[parent], here, kind="order")


def _reads_inside(node: Node, parent: Node) -> bool:
    """Whether a parent is one only since something inside reads it."""
    return node.inner is not None and not is_plain_map(node) and parent not in node.order
