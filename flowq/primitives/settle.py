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
                readers[parent.body].append(node)
    for body in bodies:
        for named in leaves(body.value):
            if named.body in readers:
                readers[named.body].append(body)
    # whoever reads is settled before what it reads
    feeds: dict[Body, list[Body]] = {}
    waits = dict.fromkeys(readers, 0)
    for body, found in readers.items():
        for reader in found:
            outermost = list(_outwards(_body_of(reader)))[-1]
            if outermost in readers:
                feeds.setdefault(outermost, []).append(body)
                waits[body] += 1
    born = {b: k for k, b in enumerate(bodies)}
    ready = [b for b, n in waits.items() if not n]
    for body in ready:  # grows while it is walked
        reached = [_reach(_body_of(r), born[body]) for r in readers[body]]
        _move(body, _common(reached) or root)
        for other in feeds.get(body, ()):
            waits[other] -= 1
            if not waits[other]:
                ready.append(other)
    for body, n in waits.items():
        if n:  # a ring of references; sorting the graph spells it
            _move(body, root)


def _move(body: Body, target: Body) -> None:
    for node in body.nodes:
        node.body = target
    target.nodes.extend(body.nodes)


def _body_of(reader: Node | Body) -> Body:
    return reader.body if isinstance(reader, Node) else reader


def _reach(body: Body, born: int) -> Body:
    """The innermost body from here outwards that is not a map's.

    Where a flow is mapped, what its own graph refers to (which was `born` with it) stays inside.
    """
    while body.owner is not None and body.owner.items is not None:
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
