# SPDX-License-Identifier: MIT
"""Numbers of queues, remembered."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from flowq.storage.sqlite.connection import SQL

__all__ = ["Queues"]


class Queues:
    """Names of queues and their numbers; a queue is never removed."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def id(self, db: sqlite3.Connection, name: str) -> int:
        """Give a queue's number; makes it where it is new (inside a transaction that writes)."""
        found = self._ids.get(name)
        if found is None:
            self.known(db, (name,))
            found = self._ids.get(name)
        if found is None:
            found = self._ids[name] = db.execute(SQL["add_queue"], (name,)).fetchall()[0][0]
        return found

    def known(self, db: sqlite3.Connection, names: Iterable[str]) -> list[int]:
        """Give the numbers of those of the names that are known."""
        names = list(names)
        if any(name not in self._ids for name in names):
            self._ids.update((name, id) for id, name in db.execute(SQL["queues"]))
        return [self._ids[name] for name in names if name in self._ids]
