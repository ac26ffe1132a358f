# SPDX-License-Identifier: MIT
"""What leads only to one arm of a branch belongs to it, and runs only if that is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from flowq.node import Body, Node, leaves, listed

__all__ = ["adopt"]


def adopt(bodies: list[Body], nodes: list[Node]) -> None:
    """Move nodes beside a branch into the arm that alone reads and follows them.

    What an arm gives and cannot own is awaited by its branch.
    """
    branches = [n for n in nodes if n.arms is not None]
    if not branches:
        return
    total: Counter[Node] = Counter()
    for node in nodes:
        total.update(_read_by(node))
    for body in bodies:
        total.update(_named_by(body))
    # outer ones first: what is left of their arms' bodies may belong to an arm inside
    for branch in sorted(branches, key=_depth):
        for arm in branch.arms or ():
            assert arm.node.inner is not None
            _fill(branch, arm.node, arm.node.inner, total)
    for branch in branches:
        for arm in branch.arms or ():
            inner = arm.node.inner
            assert inner is not None
            arm.node.order.extend(n for n in leaves(inner.value) if n.body is not inner)


def _fill(branch: Node, arm: Node, into: Body, total: Counter[Node]) -> None:
    """Move into an arm what it alone reads, what that alone reads, and so on."""
    beside = branch.body
    inside: Counter[Node] = Counter()
    automatic = beside.scope is not None and beside.scope.names_calls
    moved = False
    todo = [*arm.order, *_read_in([into])]
    while todo:
        node = todo.pop()
        inside[node] += 1
        if node.body is not beside or node is branch or inside[node] < total[node]:
            continue
        moved = True
        node.body = into
        if automatic and node.label != node.options.get("name"):
            node.label = None  # it was that of where it stood
        into.nodes.append(node)
        todo.extend(_read_by(node))
        todo.extend(_read_in(_of(node)))
    if moved:
        beside.nodes = [n for n in beside.nodes if n.body is beside]


def _read_by(node: Node) -> Iterator[Node]:
    """Go through what a node reads and comes after; once for each mention."""
    for value in node.edges.values():
        yield from leaves(value)
    yield from node.order
    yield from listed(node)


def _named_by(body: Body) -> Iterator[Node]:
    yield from leaves(body.value)


def _read_in(bodies: list[Body]) -> Iterator[Node]:
    """Go through what is read or named in bodies, and in all that stand inside them.

    What alarms read is left out: it must stand outside of where what they are about does.
    """
    todo = list(bodies)
    while todo:
        body = todo.pop()
        yield from _named_by(body)
        todo.extend((*body.later, *body.alarms))
        for node in body.nodes:
            yield from _read_by(node)
            todo.extend(_of(node))


def _of(node: Node) -> list[Body]:
    """The bodies of a node: what it has inside, and what runs in its place."""
    return [*([] if node.inner is None else [node.inner]), *node.later]


def _depth(node: Node) -> int:
    depth = 0
    at = node.body.owner
    while at is not None:
        depth, at = depth + 1, at.body.owner
    return depth
