# SPDX-License-Identifier: MIT
"""Where the time of a run went: what ran when, and which way through it took longest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flowq.plan import ROOT, Kind, indexes
from flowq.states import State
from flowq.storage.base import NodeInfo

__all__ = ["critical_path", "timeline"]


def timeline(infos: Iterable[NodeInfo]) -> list[NodeInfo]:
    """Give the nodes that took time, in the order in which they began to.

    Those are the bodies that began, and what slept or waited to be sent something.
    """
    return sorted(filter(_began, infos), key=lambda n: (_began(n), n.index))


def _began(node: NodeInfo) -> int:
    """When a body began, or a join that took time; 0 for all else."""
    if node.kind == Kind.TASK:
        return node.started_ms
    slept = node.state is State.SCHEDULED or node.ended_ms > node.ready_ms
    return node.ready_ms if node.kind == Kind.JOIN and slept else 0


def critical_path(infos: Iterable[NodeInfo]) -> list[NodeInfo]:
    """Give the bodies and sleeps that the end of a run waited for, one after the other.

    From what ended last backwards: before a node came the parent that ended last, before the first
    node in an expansion what the expansion itself had waited for. Making these faster makes the
    run faster; making others faster does not, until another way is the longest.

    Parameters
    ----------
    infos : iterable of NodeInfo
        All nodes of the run.

    Returns
    -------
    list of NodeInfo
        Tasks, and joins that took time, in the order of time. Of a run that goes on: of what has
        ended by now.

    Notes
    -----
    The critical path method (J. E. Kelley, M. R. Walker, 1959), on times that were measured, so
    that waiting for a worker counts for the node that waited.
    """
    nodes = {n.index: n for n in infos}
    inside: dict[int, list[NodeInfo]] = {}
    for n in nodes.values():
        if n.index != ROOT and n.ended_ms:
            inside.setdefault(n.owner, []).append(n)
    way: list[NodeInfo] = []
    at = _last(inside.get(ROOT, ()))
    seen: set[int] = set()
    while at is not None and at.index not in seen:
        seen.add(at.index)
        within = _last(inside.get(at.index, ()))
        if within is not None and within.index not in seen:
            at = within
            continue
        if _began(at):
            way.append(at)
        at = _before(at, nodes, inside)
    return way[::-1]


def _before(
    node: NodeInfo, nodes: Mapping[int, NodeInfo], inside: Mapping[int, list[NodeInfo]]
) -> NodeInfo | None:
    """What a node, or what it stands in, had waited for last."""
    at = node
    while True:
        above = [nodes[i] for i in indexes(at.parents) if i in nodes and nodes[i].ended_ms]
        if followed := set(indexes(at.follows)):
            # it did not wait for these to end, but to begin
            begun = (_before(n, nodes, inside) for n in above if n.index in followed)
            above = [n for n in above if n.index not in followed]
            above += [n for n in begun if n is not None]
        owner = nodes.get(at.owner)
        # what goes along with others may have waited for its own map, which had other lists
        since = owner.ready_ms if owner is not None and owner.follows else 0
        if any(n.ended_ms >= since for n in above):
            return _last(above)
        if at.phase:  # a handler or cleanup had waited for all that has its turn before
            body = (n for n in inside.get(at.owner, ()) if n.phase < at.phase)
            earlier = _last(n for n in body if n.ready_ms or n.started_ms)
            if earlier is not None:
                return earlier
        if at.owner == ROOT or at.owner not in nodes:
            return None
        at = nodes[at.owner]


def _last(nodes: Iterable[NodeInfo]) -> NodeInfo | None:
    return max(nodes, key=lambda n: (n.ended_ms, n.index), default=None)
