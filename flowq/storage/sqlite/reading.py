# SPDX-License-Identifier: MIT
"""The methods of the store that change nothing, and those that wait; see `flowq.storage.base`."""

from __future__ import annotations

from collections.abc import Sequence

from flowq.clock import Clock
from flowq.message import Delivery
from flowq.plan import Ranges
from flowq.states import State
from flowq.storage.base import (
    DeadLetter,
    Look,
    NodeInfo,
    Places,
    RunInfo,
    Sent,
    SessionId,
    SessionInfo,
    Status,
)
from flowq.storage.sqlite import checking, handing, limits, reads, started
from flowq.storage.sqlite.connection import Database, Place
from flowq.storage.sqlite.statements import SQL
from flowq.storage.sqlite.wake import FileWakes, MemoryWakes, Wakes

__all__ = ["Reading"]


class Reading:
    """What can be read of a `SqliteStore`, and waited for."""

    def __init__(self, place: Place, name: str, clock: Clock) -> None:
        self.url = place.url
        self.shares_processes = place.path is not None
        self.path = place.path
        self._clock = clock
        self._db = Database(place, name)
        self._wakes: Wakes = (
            MemoryWakes() if place.path is None else FileWakes(place.path, self._db.version)
        )

    # --- what waits -----------------------------------------------------------------------------

    def wait_ended(self, ids: Sequence[bytes], *, timeout: float) -> bool:
        """Sleep until one of these may have ended; see `Store.wait_ended`."""

        def look(first: bool) -> bool:
            found = self.look(ids, cells=False)
            return any(x is None or x.state.final for x in found)

        return self._wakes.wait_ended(ids, timeout, look)

    def wait_moved(self, run: bytes, *, seen: int, timeout: float) -> bool:
        """Sleep until a run may have moved; see `Store.wait_moved`."""

        def look(first: bool) -> bool:
            info = self.run(run)
            return info is None or info.changes != seen

        return self._wakes.wait_moved(run, timeout, look)

    def wake(self) -> None:
        """Let every `wait_ready` of this object return now."""
        self._wakes.wake()

    # --- what reads -----------------------------------------------------------------------------

    def look(self, ids: Sequence[bytes], *, cells: bool = True) -> list[Look | None]:
        """Say where ids stand; see `Store.look`."""
        with self._db.read() as db:
            now = self._clock.now_ms()
            return [reads.look(db, now, id, cells) for id in ids]

    def cells(self, run: bytes, ranges: Ranges) -> dict[int, bytes]:
        """Read the cells of a run's nodes; see `Store.cells`."""
        with self._db.read() as db:
            return reads.cells(db, self._clock.now_ms(), run, ranges)

    def message(self, id: bytes) -> bytes | None:
        """Give an encoded message; see `Store.message`."""
        with self._db.read() as db:
            return reads.message(db, self._clock.now_ms(), id)

    def run(self, id: bytes) -> RunInfo | None:
        """Describe one run, or None."""
        with self._db.read() as db:
            return reads.run(db, self._clock.now_ms(), id)

    def nodes(
        self, run: bytes, *, after: int = -1, limit: int = 500, state: State | None = None
    ) -> list[NodeInfo]:
        """List nodes of a run by index; see `Store.nodes`."""
        with self._db.read() as db:
            return reads.nodes(db, self._clock.now_ms(), run, after, limit, state)

    def started(
        self, id: bytes, *, after: bytes = b"", limit: int = 500
    ) -> list[tuple[bytes, bytes]]:
        """List what bodies of a run or task have started; see `Store.started`."""
        with self._db.read() as db:
            return started.started(db, self._clock.now_ms(), id, after, limit)

    def places(self, id: bytes) -> list[Places]:
        """Describe the limits of a node; see `Store.places`."""
        with self._db.read() as db:
            return limits.places(db, self._clock.now_ms(), id)

    def sent(self, run: bytes) -> list[Sent]:
        """List what was sent to a run; see `Store.sent`."""
        with self._db.read() as db:
            return reads.sent(db, self._clock.now_ms(), run)

    def runs(self, *, after: bytes = b"", limit: int = 100) -> list[RunInfo]:
        """List runs, newest first; see `Store.runs`."""
        with self._db.read() as db:
            return reads.runs(db, self._clock.now_ms(), after, limit)

    def sessions(self) -> list[SessionInfo]:
        """List the sessions whose deadline has not passed."""
        with self._db.read() as db:
            return reads.sessions(db, self._clock.now_ms())

    def status(self) -> Status:
        """Count."""
        with self._db.read() as db:
            return reads.status(db)

    def left(self, queues: Sequence[str]) -> bool:
        """Say whether anything is to run; see `Store.left`."""
        with self._db.read() as db:
            return reads.left(db, queues)

    def dead(self, *, after: bytes = b"", limit: int = 100) -> list[DeadLetter]:
        """List dead letters, newest first; see `Store.dead`."""
        with self._db.read() as db:
            return reads.dead(db, self._clock.now_ms(), after, limit)

    def dead_letter(self, id: bytes) -> DeadLetter | None:
        """Give one dead letter, or None."""
        with self._db.read() as db:
            return reads.dead_letter(db, self._clock.now_ms(), id)

    def held(self, session: SessionId) -> list[Delivery]:
        """Read back what a session holds; see `Store.held`."""
        with self._db.read() as db:
            row = db.execute(SQL["session"], (session,)).fetchone()
            if row is None:
                return []
            return handing.held(db, row[0])

    def check(self, run: bytes) -> list[str]:
        """Compare a run's counts with its nodes' states; see `Store.check`."""
        with self._db.read() as db:
            return checking.check(db, self._clock.now_ms(), run)

    def recall(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Give what is remembered under keys; see `Store.recall`."""
        with self._db.read() as db:
            now = self._clock.now_ms()
            rows = [db.execute(SQL["recall"], (key, now)).fetchone() for key in keys]
            return [row[0] if row is not None else None for row in rows]

    def close(self) -> None:
        """Close connections; the next use opens new ones."""
        self._wakes.close()
        self._db.close()
