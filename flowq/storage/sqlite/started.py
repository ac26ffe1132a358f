# SPDX-License-Identifier: MIT
"""What bodies have started: noted with the run, or the task alone, that they belong to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from flowq.message import split_node
from flowq.plan import ROOT
from flowq.states import State
from flowq.storage.sqlite.rows import STOPPING
from flowq.storage.sqlite.statements import SQL

if TYPE_CHECKING:
    from flowq.storage.sqlite.change import Change

__all__ = ["Starts", "started"]

_STOPPED: Final = (State.SKIPPED.value, State.CANCELLED.value)

Parent = tuple[int, int, int]
"""Whose it is (see the column `owner`), its state, its flags."""


class Starts:
    """What one call starts in the name of others.

    Attributes
    ----------
    barred : set of bytes
        Those that were stopped, so that nothing is to be started for them any more.
    """

    def __init__(self, change: Change, parents: Iterable[bytes]) -> None:
        self._change = change
        self._owners: dict[bytes, int] = {}
        self.barred: set[bytes] = set()
        for parent in {*parents} - {b""}:
            found = _find(change.db, change.now, parent)
            if found is None:
                continue
            owner, state, flags = found
            self._owners[parent] = owner
            if flags & STOPPING or state in _STOPPED:
                self.barred.add(parent)

    def note(self, parent: bytes, child: bytes) -> None:
        """Note a start, if the parent is known."""
        if parent in self._owners:
            self._change.put("add_started", self._owners[parent], parent, child)


def _find(db: sqlite3.Connection, now: int, id: bytes) -> Parent | None:
    """Find a task or node; the root of a run whose node is no more."""
    places = [(ROOT, id[:16])]
    if len(id) == 16:
        single: Parent | None = db.execute(SQL["parent_single"], (id, now)).fetchone()
        if single is not None:
            return single
    else:
        run, index = split_node(id)
        places.insert(0, (index, run))
    found = (db.execute(SQL["parent_node"], (*place, now)).fetchone() for place in places)
    return next((row for row in found if row is not None), None)


def started(
    db: sqlite3.Connection, now: int, id: bytes, after: bytes, limit: int
) -> list[tuple[bytes, bytes]]:
    """List what bodies of a run, or of a task alone, have started."""
    found = _find(db, now, id)
    if found is None:
        return []
    return db.execute(SQL["started"], (found[0], after, limit)).fetchall()
