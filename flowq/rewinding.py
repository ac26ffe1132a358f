# SPDX-License-Identifier: MIT
"""Which nodes run again: what retry and rerun choose (semantics, section 8). Pure functions.

A store is told three sets (`Store.rewind`): what is *chosen* (it and all that depends on it wait
again), the expansions around that are *reopened*, and what is *dropped*, since it stands inside a
chosen task that had become an expansion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from flowq.errors import GraphError
from flowq.outline import forgiven as is_forgiven
from flowq.plan import ROOT, Bits, Kind, Phase, Ranges, indexes, ranges_of
from flowq.states import State
from flowq.storage.base import NodeInfo

__all__ = ["Rewind", "choose", "to_retry"]

S = State
_STOPPED = (S.FAILED, S.BLOCKED, S.CANCELLED)


class Rewind(NamedTuple):
    """What a store is told; see `Store.rewind`."""

    chosen: Ranges
    reopened: Ranges
    dropped: Ranges


class _Tree:
    """A run's nodes, and who stands in whom."""

    def __init__(self, nodes: Iterable[NodeInfo]) -> None:
        self.nodes: Mapping[int, NodeInfo] = {n.index: n for n in nodes}
        self.inside: dict[int, list[int]] = {}
        self.children: dict[int, list[int]] = {}
        for n in self.nodes.values():
            if n.index != ROOT:
                self.inside.setdefault(n.owner, []).append(n.index)
            for parent in indexes(n.parents):
                self.children.setdefault(parent, []).append(n.index)

    def within(self, index: int) -> Iterable[int]:
        """All that stands inside a node, at any depth."""
        todo = list(self.inside.get(index, ()))
        while todo:
            at = todo.pop()
            yield at
            todo.extend(self.inside.get(at, ()))


def choose(nodes: Iterable[NodeInfo], roots: Iterable[int]) -> Rewind:
    """Give what runs again if some nodes do: they and all that depends on them.

    Parameters
    ----------
    nodes : iterable of NodeInfo
        All nodes of the run.
    roots : iterable of int
        Indexes of what is to run again. The root chooses all of its body; none at all, only what
        runs once the outcome of the run is fixed, which is to be anew.

    Raises
    ------
    GraphError
        One of them runs because of how another ended, or stands in what does.
    """
    tree = _Tree(nodes)
    roots = list(roots)
    for root in roots:
        _refuse_what_follows(tree, root)
    chosen: set[int] = set()
    opened: set[int] = set()
    dropped: set[int] = set()
    todo = roots
    if not todo:
        opened.add(ROOT)
        todo = list(_afterwards(tree, ROOT))
    if ROOT in todo:
        todo = [*tree.inside.get(ROOT, ()), *todo]
        todo.remove(ROOT)
    while todo:
        at = todo.pop()
        if at in chosen:
            continue
        chosen.add(at)
        todo.extend(tree.children.get(at, ()))
        todo.extend(_losers_above(tree, at))
        for inner in tree.inside.get(at, ()):
            # what it had become will be made anew, alarms of that too
            if tree.nodes[at].grown and tree.nodes[inner].phase != Phase.FALLBACK:
                dropped.update((inner, *tree.within(inner)))
            else:
                todo.append(inner)
        around = tree.nodes[at].owner
        while around not in opened and around not in chosen:
            if tree.nodes[around].bits & Bits.ATOMIC:
                if around == ROOT:  # of a run all of its body is chosen, not itself
                    opened.add(ROOT)
                    todo.extend(tree.inside[ROOT])
                else:
                    todo.append(around)
                break
            if around != ROOT and not tree.nodes[around].ready_ms:
                todo.append(around)  # it never began: whether it does, its parents say
                break
            opened.add(around)
            todo.extend(_readers(tree, around))
            todo.extend(_losers_inside(tree, around))
            todo.extend(_afterwards(tree, around))
            if around == ROOT:
                break
            around = tree.nodes[around].owner
    chosen -= dropped
    return Rewind(
        ranges_of(chosen), ranges_of(opened - chosen - dropped - {ROOT}), ranges_of(dropped)
    )


def _readers(tree: _Tree, around: int) -> Iterable[int]:
    """What reads an expansion that is opened again.

    What only goes along with the nodes in it, and is made by now, does with those of them alone.
    """
    for index in tree.children.get(around, ()):
        node = tree.nodes[index]
        if not (node.grown and around in indexes(node.follows)):
            yield index


def _losers_above(tree: _Tree, index: int) -> Iterable[int]:
    """What a race that runs again had stopped, and what leads there."""
    for parent in indexes(tree.nodes[index].parents):
        node = tree.nodes[parent]
        if node.bits & Bits.OWNED and node.state == State.SKIPPED:
            yield parent


def _losers_inside(tree: _Tree, around: int) -> Iterable[int]:
    """What a map that is opened again had stopped, since enough had succeeded.

    Its items lead nowhere, so they are owned by no race.
    """
    for index in tree.inside.get(around, ()):
        node = tree.nodes[index]
        below = (tree.nodes[i].phase for i in tree.children.get(index, ()))
        owned = node.bits & Bits.OWNED and node.state == State.SKIPPED
        if owned and all(phase != Phase.BODY for phase in below):
            yield index


def _refuse_what_follows(tree: _Tree, index: int) -> None:
    """A handler alone would leave its expansion open with nothing to wait for."""
    asked = tree.nodes[index].name
    while index != ROOT:
        node = tree.nodes[index]
        index = node.owner
        if node.phase != Phase.BODY:
            what = f"{tree.nodes[index].name!r}" if index != ROOT else "the run"
            raise GraphError(
                f"{asked!r} runs because of how {what} ended, or what is in it, and again only "
                "with that; name what is to run again before it"
            )


def _afterwards(tree: _Tree, around: int) -> Iterable[int]:
    """What runs after the body of an expansion that is opened again: made anew with it.

    What has a node of the body above it (an alarm) runs again only with that node.
    """
    for index in tree.inside.get(around, ()):
        node = tree.nodes[index]
        if node.phase != Phase.BODY and not node.parents:
            yield index


def to_retry(nodes: Sequence[NodeInfo], *, inside: int = ROOT, forgiven: bool = False) -> list[int]:
    """Find what a retry runs again: what failed, was blocked or cancelled, and is not forgiven.

    Looks from `inside` inwards: an expansion among them is searched, and is chosen itself only if
    nothing inside it is. What was blocked or cancelled takes along what stopped it, though that was
    forgiven: else it would be stopped again. Handlers are never retried by themselves.

    Parameters
    ----------
    nodes : sequence of NodeInfo
    inside : int
        Where to look.
    forgiven : bool
        Whether to take those too whose failure was forgiven.
    """
    tree = _Tree(nodes)
    found: list[int] = []
    todo = [(inside, forgiven)]
    while todo:
        at, lenient = todo.pop()
        stopped = _stopped(tree, at, lenient)
        for index in stopped:
            if tree.nodes[index].kind == Kind.EXPANSION and _stopped_inside(tree, index, lenient):
                todo.append((index, lenient))
            else:
                found.append(index)
        # what goes on may hold something that has stopped
        todo += [(i, lenient) for i in tree.inside.get(at, ()) if _goes_on(tree, i)]
        if lenient:
            for index in tree.inside.get(at, ()):
                node = tree.nodes[index]
                good = node.phase == Phase.BODY and node.state == State.SUCCESS
                if good and not _made_good(tree, index):
                    todo.append((index, lenient))  # what it forgave stands inside
        if not stopped and at != inside and tree.nodes[at].state in _STOPPED:
            found.append(at)
    return found


def _goes_on(tree: _Tree, index: int) -> bool:
    """Whether a node is an expansion that goes on, and whose fallback has not begun."""
    node = tree.nodes[index]
    if node.phase != Phase.BODY or node.state is not State.EXPANDED:
        return False
    inner = (tree.nodes[i] for i in tree.inside.get(index, ()))
    return all(n.phase != Phase.FALLBACK or n.state is State.WAITING for n in inner)


def _stopped(tree: _Tree, at: int, lenient: bool) -> list[int]:
    """Find what stopped in the body of an expansion and counts, and what that was stopped by."""
    body = (tree.nodes[i] for i in tree.inside.get(at, ()))
    todo = [n for n in body if _counts(n, lenient)]
    found: dict[int, NodeInfo] = {}
    while todo:
        node = todo.pop()
        if node.index in found or node.state not in _STOPPED:
            continue
        found[node.index] = node
        if node.state != S.FAILED:
            todo.extend(tree.nodes[i] for i in indexes(node.parents))
    return sorted(found)


def _counts(node: NodeInfo, lenient: bool) -> bool:
    return (
        node.phase == Phase.BODY and node.state in _STOPPED and (lenient or not is_forgiven(node))
    )


def _made_good(tree: _Tree, index: int) -> bool:
    """Whether a fallback took the place of what stands inside a node."""
    inner = (tree.nodes[i] for i in tree.inside.get(index, ()))
    return any(n.phase == Phase.FALLBACK and n.state == State.SUCCESS for n in inner)


def _stopped_inside(tree: _Tree, index: int, lenient: bool) -> bool:
    """Whether an expansion holds something to run again; one whose fallback failed starts anew."""
    inner = [tree.nodes[i] for i in tree.inside.get(index, ())]
    if any(n.phase == Phase.FALLBACK and n.state in _STOPPED for n in inner):
        return False
    return any(_counts(n, lenient) for n in inner)
