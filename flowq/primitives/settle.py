# SPDX-License-Identifier: MIT
"""Where what is only referred to stands, once it is known who reads it."""

from __future__ import annotations

from collections.abc import Iterator

from flowq.node import Body, Node, leaves, listed

__all__ = ["settle"]


def settle(root: Body, bodies: list[Body], nodes: list[Node]) -> None:
    """Move what floats into the innermost body that holds all its readers."""
    readers: dict[Body, list[Node | Body]] = {b: [] for b in bodies if b.owner is None}
    if not readers:
        return
    for node in nodes:
        read = [n for value in node.edges.values() for n in leaves(value)]
        read.extend(listed(node))
        for parent in dict.fromkeys([*read, *node.order]):
            if parent.body in readers and parent.body is not node.body:
                readers[parent.body].append(_arm_of(node) or node)
    for body in bodies:
        for named in leaves(body.value):
            if named.body in readers:
                readers[named.body].append(body)
    born = {b: k for k, b in enumerate(bodies)}
    _inwards(readers, born, deep=True)
    # whoever reads is settled before what it reads
    feeds: dict[Body, list[Body]] = {}
    waits = dict.fromkeys(readers, 0)
    for body, found in readers.items():
        for reader in found:
            outermost = _outermost(reader)
            if outermost in readers:
                feeds.setdefault(outermost, []).append(body)
                waits[body] += 1
    ready = [b for b, n in waits.items() if not n]
    for body in ready:  # grows while it is walked
        _move(body, _target(body, readers, born) or root)
        for other in feeds.get(body, ()):
            waits[other] -= 1
            if not waits[other]:
                ready.append(other)
    left = {b: readers[b] for b, n in waits.items() if n}
    if left:  # they read what reads them, or it is a ring; sorting the graph spells that
        _inwards(left, born, deep=False)
        for body in left:
            _move(body, _target(body, left, born) or root)


def _inwards(readers: dict[Body, list[Node | Body]], born: dict[Body, int], deep: bool) -> None:
    """Move what is read only from within one other that floats to its readers there.

    The latest first, since they are referred to by the earlier. With `deep`, only into expansions
    inside the other; a long line of references would be moved again and again.
    """
    for body in reversed(list(readers)):
        readers[body] = found = [r for r in readers[body] if _outermost(r) is not body]
        around = {_outermost(r) for r in found}
        if len(around) != 1:
            continue
        (other,) = around
        target = _target(body, readers, born) if other in readers else None
        if target is not None and (target is not other or not deep):
            _move(body, target)
            del readers[body]


def _target(
    body: Body, readers: dict[Body, list[Node | Body]], born: dict[Body, int]
) -> Body | None:
    common = _common([_reach(_body_of(r), born[body]) for r in readers[body]])
    return None if common is None else _reach(common, born[body])  # of several arms: none of them


def _outermost(reader: Node | Body) -> Body:
    *_, last = _outwards(_body_of(reader))
    return last


def _move(body: Body, target: Body) -> None:
    for node in body.nodes:
        node.body = target
    target.nodes.extend(body.nodes)


def _arm_of(node: Node) -> Body | None:
    """The body of an arm, if that is what the node stands for."""
    owner = node.body.owner
    return node.inner if owner is not None and owner.arms is not None else None


def _body_of(reader: Node | Body) -> Body:
    return reader.body if isinstance(reader, Node) else reader


def _reach(body: Body, born: int) -> Body:
    """The innermost body from here outwards that is not a map's, nor that of the arms of a branch.

    Where a flow is mapped, what its own graph refers to (which was `born` with it) stays inside.
    """
    while body.owner is not None and (body.owner.items is not None or body.owner.arms is not None):
        if body.since is not None and body.since <= born:
            break
        body = body.owner.body
    return body


def _common(bodies: list[Body]) -> Body | None:
    """The innermost body that holds all of these."""
    if not bodies:
        return None
    way = list(_outwards(bodies[0]))
    for body in bodies[1:]:
        around = set(_outwards(body))
        way = [b for b in way if b in around]
    return way[0] if way else None


def _outwards(body: Body) -> Iterator[Body]:
    at: Body | None = body
    while at is not None:
        yield at
        at = at.owner.body if at.owner is not None else None
