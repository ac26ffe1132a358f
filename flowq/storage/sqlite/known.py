# SPDX-License-Identifier: MIT
"""What a connection remembers since it never changes: numbers of queues, places of runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from flowq.storage.sqlite.statements import SQL

__all__ = ["Known", "Link", "Row"]

RUNS: Final = 4_096
"""Runs that are remembered at most."""
HANDED: Final = 20_000
"""Messages of which it is remembered at most what was read when they were handed out."""


Row: TypeAlias = tuple[Any, ...]
"""A message as it is handed out: -priority, place of its queue, rank, id, whether it goes alone,
flags, queue, expires_ms, uuid, run, delivery, attempt, losses, owner, keep_ms. The first four are
its order; what a settlement needs of it cannot change while a session holds this delivery."""


class Known:
    """Memory of one connection; forgotten when a transaction is undone.

    A queue is never removed. A run's number is never another's, and its rows don't move.
    """

    def __init__(self) -> None:
        self._queues: dict[str, int] = {}
        self._runs: dict[int, tuple[bytes, int]] = {}
        self._handed: dict[bytes, Row] = {}

    def queue(self, db: sqlite3.Connection, name: str) -> int:
        """Give a queue's number; makes it where it is new (inside a transaction that writes)."""
        found = self._queues.get(name)
        if found is None:
            self.queues(db, (name,))
            found = self._queues.get(name)
        if found is None:
            found = self._queues[name] = db.execute(SQL["add_queue"], (name,)).fetchall()[0][0]
        return found

    def queues(self, db: sqlite3.Connection, names: Iterable[str]) -> list[int]:
        """Give the numbers of those of the names that are known."""
        names = list(names)
        if any(name not in self._queues for name in names):
            self._queues.update((name, id) for id, name in db.execute(SQL["queues"]))
        return [self._queues[name] for name in names if name in self._queues]

    def run(self, db: sqlite3.Connection, run: int) -> tuple[bytes, int]:
        """Give a run's 16 bytes and the row id of its root."""
        found = self._runs.get(run)
        if found is None:
            if len(self._runs) >= RUNS:
                self._runs.clear()
            found = self._runs[run] = db.execute(SQL["run_of"], (run,)).fetchone()
        return found

    def remember(self, name: bytes, handed: Row) -> None:
        """Keep what was read of a message without losses that is handed out."""
        if len(self._handed) >= HANDED:  # others have settled them, or they were taken back
            self._handed.clear()
        self._handed[name] = handed

    def recall(self, name: bytes) -> Row | None:
        """Give back what was kept, once."""
        return self._handed.pop(name, None)


class Link(sqlite3.Connection):
    """A connection with its memory."""

    known: Known
