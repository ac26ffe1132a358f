# SPDX-License-Identifier: MIT
"""Graphs as pictures."""

from __future__ import annotations

from collections.abc import Iterator

from flowq.binding import parameter_name
from flowq.graph import Graph
from flowq.node import Node, is_plain_map, kind_text, leaves
from flowq.plan import Kind
from flowq.serializer import short_repr

__all__ = ["draw"]


def draw(graph: Graph) -> str:
    """Draw a graph: solid arrows carry values and name the parameter, dotted ones are order.

    A map is one shape that says how many items it has; what has several nodes inside is a box
    around them, a branch a box around its arms.
    """
    ids: dict[Node, str] = {}
    lines = ["flowchart LR"]
    root = graph.root
    assert root.inner is not None
    # a map that is a run of its own is drawn as what it is within another
    first = [root] if root.items is not None else root.inner.nodes
    todo: list[tuple[str, Node | None, int]] = [("open", n, 1) for n in reversed(first)]
    while todo:
        what, node, depth = todo.pop()
        indent = "    " * depth
        if node is None:
            lines.append(f"{indent}{what}")
            continue
        name = graph.name if node is root else node.name
        ids[node] = f"n{len(ids)}"
        if node.inner is None or is_plain_map(node) or _is_bare_arm(node):
            lines.append(f"{indent}{ids[node]}{_shape(node, name)}")
            continue
        lines.append(f'{indent}subgraph {ids[node]}["{_text(_label(node, name))}"]')
        todo.append(("end", None, depth))
        todo.extend(("open", n, depth + 1) for n in reversed(node.inner.nodes))
    for node in list(ids):
        lines.extend(f"    {line}" for line in _edges(node, ids))
    return "\n".join(lines) + "\n"


def _label(node: Node, name: str) -> str:
    if node.items is None:
        return name
    return f"{name} × {'n' if node.lists is not None else len(node.items)}"


def _shape(node: Node, name: str) -> str:
    text = _text(_label(node, name))
    if node.inner is not None and _is_bare_arm(node):
        given = next(leaves(node.inner.value), None)
        what = "" if given is not None else f": {_text(short_repr(node.inner.value))}"
        return f'(["{text}{what}"])'
    if node.kind is Kind.JOIN:
        return f'(("{text}"))'
    return f'[["{text}"]]' if node.items is not None else f'["{text}"]'


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
    if node.inner is not None and kind_text(node) == "arm":
        for leaf in dict.fromkeys(leaves(node.inner.value)):
            if leaf.body is not node.inner:
                yield Arrow(shapes[leaf], here)
    # what is read from outside is drawn to the reader; order to the box
    for parent in dict.fromkeys([*filled, *node.parents]):
        if parent in filled:
            yield Arrow(shapes[parent], here, ", ".join(filled[parent]))
        elif not _reads_inside(node, parent):
            yield Arrow(shapes[parent], here, kind="order")


def _reads_inside(node: Node, parent: Node) -> bool:
    """Whether a parent is one only since something inside reads it."""
    return node.inner is not None and not is_plain_map(node) and parent not in node.order
