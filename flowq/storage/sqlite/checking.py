# SPDX-License-Identifier: MIT
"""The self-check: what is counted, against the states of what was counted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

from flowq.plan import Kind, Later, indexes
from flowq.states import State
from flowq.storage.sqlite.edges import becomes_of
from flowq.storage.sqlite.growth import spans
from flowq.storage.sqlite.rows import (
    BOUNDED,
    CLOSING,
    FORGIVEN,
    KIND,
    LATER,
    LIMITED,
    NAMED,
    NEEDED,
    PACED,
    fails,
    place_of,
    unpack_later,
    unpack_limits,
    unpack_ranges,
)
from flowq.storage.sqlite.statements import SQL

__all__ = ["check"]


@dataclass(slots=True)
class _Node:
    """What is stored of a node."""

    id: int
    state: int
    flags: int
    owner: int | None
    counts: tuple[int, ...]
    began: bool
    parents: list[int]
    lenient: set[int]
    follows: set[int]
    rule: bytes | None


@dataclass(slots=True)
class _Expansion:
    """What is stored of an expansion, and what its nodes say."""

    turn: int
    won: int
    marks: int
    most: int
    under: int
    after: int
    counts: list[int]
    later: list[set[int]]
    true: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    true_won: int = 0
    true_under: int = 0
    tied: bool = False
    waits: int = 0
    """The first of its body that waits for a place; 0 if none does."""

    def has_turn(self, node: _Node) -> bool:
        """Whether it is the turn of a node in it."""
        if not node.flags & LATER:
            return not self.turn
        return bool(self.turn) and node.id in self.later[self.turn - 1]


def check(db: sqlite3.Connection, now: int, run: bytes) -> list[str]:
    """Compare a run's stored counts with its nodes' states."""
    found = db.execute(SQL["run"], (run, now)).fetchone()
    if found is None:
        return ["the run is not known"]
    _, _, root, _, ended, own, _, base, number, *_, count = found
    stretches = spans(db, number, base, own)
    if any(db.execute(SQL["check_walks"], span).fetchone()[0] for span in stretches):
        return []  # ends whose edges are not all counted: nothing can be said yet
    nodes = {n.id: n for span in stretches for n in _nodes(db, number, span)}
    expansions = {id: x for span in stretches for id, x in _expansions(db, base, span)}
    wrong = []
    if len(nodes) != count:
        wrong.append(f"{len(nodes)} of {count} nodes are stored")
    wrong += _wrong_parents(nodes, expansions, base)
    wrong += _wrong_expansions(nodes, expansions, base)
    wrong += _wrong_places(db, number, nodes, base)
    if (root >= State.SUCCESS) != bool(ended):
        wrong.append(f"the root is {State(root).label}, the run's end is {ended}")
    return wrong


def _nodes(db: sqlite3.Connection, number: int, span: tuple[int, int]) -> Iterator[_Node]:
    for row in db.execute(SQL["check"], (number, *span)):
        id, state, flags, owner, *counts, ready, parents, lenient, follows, rule = row
        yield _Node(
            id,
            state,
            flags,
            owner,
            tuple(counts),
            ready is not None,
            _ids(parents),
            {*_ids(lenient)},
            {*_ids(follows)},
            rule,
        )


def _expansions(
    db: sqlite3.Connection, base: int, span: tuple[int, int]
) -> Iterator[tuple[int, _Expansion]]:
    for id, turn, later, *numbers in db.execute(SQL["check_expansions"], span):
        won, marks, most, under, after, *counts = numbers
        groups: tuple[Later, ...] = unpack_later(later)
        bodies = [{base + i for i in indexes(g.body)} for g in groups]
        yield id, _Expansion(turn, won, marks, most, under, after, counts, bodies)


def _ids(packed: bytes | None) -> list[int]:
    return [i for first, n in unpack_ranges(packed) for i in range(first, first + n)]


def _wrong_parents(
    nodes: dict[int, _Node], expansions: dict[int, _Expansion], base: int
) -> Iterator[str]:
    for node in nodes.values():
        if node.owner is None:
            continue
        true = _true_counts(nodes, node)
        around, x = nodes[node.owner], expansions.get(node.owner)
        # What ended with an expansion that never began, or in a group that was not called, was
        # not counted along its edges.
        quiet = around.state >= State.SUCCESS and not around.began
        quiet = quiet or (node.flags & LATER > 0 and (x is None or not x.has_turn(node)))
        quiet = quiet or node.flags & PACED > 0  # its counts are taken when it is weighed
        fits = all(a <= b for a, b in zip(node.counts, true, strict=True))
        if not fits if quiet else node.counts != tuple(true):
            yield (
                f"node {node.id - base} counts {node.counts} of its {len(node.parents)} parents, "
                f"their states say {tuple(true)}"
            )


def _wrong_places(
    db: sqlite3.Connection, number: int, nodes: dict[int, _Node], base: int
) -> Iterator[str]:
    for node in nodes.values():
        if not node.flags & LIMITED:
            continue
        takes = node.state in (State.QUEUED, State.RUNNING)
        for key, _ in unpack_limits(db.execute(SQL["limits"], (node.id,)).fetchone()[0]):
            where = (number if key[:1] == "/" else 0, key, node.id)
            if db.execute(SQL["has_place"], where).fetchone()[0] != takes:
                yield f"node {node.id - base} is {State(node.state).label}, its place at {key} not"
    if db.execute(SQL["any_walk"]).fetchone() is not None:
        return  # some may be left that somebody else has just given back
    for id, gate, raw, taken in db.execute(SQL["check_gates"], (number,)):
        key = db.execute(SQL["gate_of"], (gate,)).fetchone()[1]
        first = db.execute(SQL["waiters"], (gate, 1)).fetchone()[0] == id
        if first and taken < dict(unpack_limits(raw))[key]:
            yield f"node {id - base} waits at {key}, where there is room"


def _is_able(nodes: dict[int, _Node], node: _Node) -> bool:
    """Whether a node that waits might begin, were there a place."""
    if not node.flags & PACED:
        return True
    counts = _true_counts(nodes, node)
    return becomes_of(node.rule, len(node.parents), *counts) == State.QUEUED


def _true_counts(nodes: dict[int, _Node], node: _Node) -> list[int]:
    true = [0, 0, 0, 0]
    for id in node.parents:
        counts_as = _counts_as(nodes[id], node)
        if counts_as is not None:
            true[counts_as] += 1
    return true


def _counts_as(parent: _Node, child: _Node) -> int | None:
    """Where a node counts in a child; None for what does not yet."""
    if parent.id in child.follows and parent.began and parent.flags & KIND == Kind.EXPANSION:
        return 0
    if parent.state < State.SUCCESS:
        return None
    if child.id in parent.lenient:
        return 0
    return place_of(child.flags, parent.state, parent.flags)


def _wrong_expansions(
    nodes: dict[int, _Node], expansions: dict[int, _Expansion], base: int
) -> Iterator[str]:
    for node in nodes.values():
        x = None if node.owner is None else expansions.get(node.owner)
        if x is None:
            continue
        x.true_won += node.state == State.SUCCESS and node.flags & NEEDED > 0
        if node.flags & BOUNDED:
            x.true_under += State.WAITING < node.state < State.SUCCESS
            if not x.waits and node.state == State.WAITING and _is_able(nodes, node):
                x.waits, x.tied = node.id, node.flags & PACED > 0
        if not x.has_turn(node):
            continue
        x.true[0] += node.state < State.SUCCESS
        x.true[1] += fails(node.flags, node.state)
        x.true[2] += node.state == State.CANCELLED and not node.flags & FORGIVEN
        x.true[3] += node.state == State.SKIPPED and node.flags & NAMED > 0
    for id, x in expansions.items():
        if x.counts != x.true:
            yield f"expansion {id - base} counts {x.counts}, its nodes' states say {x.true}"
        if x.won != x.true_won:
            yield f"expansion {id - base} counts {x.won} that it needs, there are {x.true_won}"
        if x.under != x.true_under:
            yield f"expansion {id - base} counts {x.under} under way, there are {x.true_under}"
        begins = nodes[id].state == State.EXPANDED and not (x.turn or x.marks & CLOSING)
        if begins and x.waits and (x.under < x.most or (x.waits <= x.after and not x.tied)):
            yield f"expansion {id - base} has forgotten that node {x.waits - base} waits"
