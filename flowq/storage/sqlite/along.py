# SPDX-License-Identifier: MIT
"""Item by item: expansions that follow others, and nodes that go along with their nodes.

What is followed counts in its followers as soon as it is expanded. One that has become an expansion
may say which nodes of its body go along with those of a followed one: the table ``along``. The
counts of these are not kept; they are read from the states of their parents when they are weighed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from flowq.message import CULPRIT, HEAD, TEMPLATE, pack_cell
from flowq.plan import Along
from flowq.states import State
from flowq.storage.sqlite.rows import ALONGSIDE, PACED, PLACES, unpack_ranges
from flowq.storage.sqlite.statements import SQL

if TYPE_CHECKING:
    from flowq.storage.sqlite.ends import Ends

__all__ = ["begun", "counted", "ended", "followed", "followers", "tie"]

_BLAMED: Final = HEAD.size + 4
"""Bytes of a cell that name a culprit."""

Row = tuple[Any, ...]


def tie(change: Ends, along: Sequence[Along], base: int) -> None:
    """Let nodes go along with others from now on."""
    rows = [(base + x.of, base + x.own, base + x.first, x.count) for x in along]
    change.db.executemany(SQL["add_along"], rows)
    change.along.clear()


def followers(change: Ends, id: int) -> list[tuple[int, int]]:
    """Give what follows an expansion."""
    return list(unpack_ranges(change.db.execute(SQL["followers"], (id,)).fetchone()[0]))


def ended(change: Ends, id: int, owner: int) -> None:
    """Let those be weighed that go along with a node that has ended."""
    ties = change.along.get(owner)
    if ties is None:
        ties = change.along[owner] = change.db.execute(SQL["along"], (owner,)).fetchall()
    for own, first, count in ties:
        if first <= id < first + count:
            change.push(own + id - first, ALONGSIDE, None)


def counted(
    change: Ends, rows: list[Row], counts: dict[int, list[Any]], starting: Iterable[int]
) -> list[Row]:
    """Put what the parents of those that go along are now in the place of their counts.

    `rows` are of the statement ``waiting``; those that stand in what has not begun, or has ended,
    are left out. What was to be added to their counts is in them already. They come in the order in
    which what they go along with ended, for so they get places.
    """
    paced = {row[0] for row in rows if row[3] & PACED and row[6]}
    found = change.db.execute(SQL["paced"], (json.dumps([*paced]),))
    parents = {id: _ids(raw) for id, raw in found}
    every = json.dumps(sorted({p for ids in parents.values() for p in ids}))
    ends = change.db.execute(SQL["ends_of"], (_BLAMED, every)).fetchall()
    states = {id: (state, head) for id, state, head in ends}
    given = []
    for row in rows:
        id, run = row[:2]
        if id not in paced:
            given.append(row)
            continue
        counts.pop(id, None)
        if id not in parents:
            continue
        own, blame = [0, 0, 0, 0], None
        for parent in parents[id]:
            state, head = states.get(parent, (State.WAITING, None))
            if state in PLACES:
                own[PLACES[state]] += 1
            if head is not None and blame is None:
                blame = _blamed(head, parent - change.run_of(run)[1])
        if blame is not None:
            change.put("count_child", *own, blame, id)
        given.append((*row[:7], *own, row[11], blame, row[13]))
    turns = {id: turn for turn, id in enumerate(starting) if id in paced}
    return sorted(given, key=lambda row: turns.get(row[0], -1))


def _ids(raw: bytes | None) -> list[int]:
    return [i for first, n in unpack_ranges(raw) for i in range(first, first + n)]


def _blamed(head: bytes, itself: int) -> int:
    """Give the culprit of a node that failed or is blocked, by the begin of its cell."""
    return int.from_bytes(head[HEAD.size :], "big") if head[0] & CULPRIT else itself


def followed(db: sqlite3.Connection, follows: bytes | None, base: int) -> dict[int, bytes]:
    """Give what a node is handed of those that it follows: their items, not their values."""
    return {
        id - base: pack_cell(State.EXPANDED, value or b"", flags=TEMPLATE, ended_ms=0)
        for id in _ids(follows)
        for (value,) in db.execute(SQL["template"], (id,))
    }


def begun(
    db: sqlite3.Connection, parents: bytes, follows: bytes
) -> tuple[int, Iterator[tuple[int, int]]]:
    """Say how many a node follows that have begun, and give the rest of its parents."""
    there = {id for id in _ids(follows) if db.execute(SQL["has_begun"], (id,)).fetchone()[0]}
    return len(there), ((id, 1) for id in _ids(parents) if id not in there)
