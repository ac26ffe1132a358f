# SPDX-License-Identifier: MIT
"""The store on one SQLite file, or in memory for one process; see `flowq.storage.base`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TypeVar

import msgspec

from flowq.clock import SYSTEM_CLOCK, Clock
from flowq.message import Message
from flowq.outcome import Outcome
from flowq.plan import Plan, Ranges
from flowq.states import State
from flowq.storage.base import (
    Send,
    Sent,
    SessionId,
    SessionInfo,
    Step,
    Swept,
)
from flowq.storage.sqlite import (
    forks,
    growth,
    handing,
    intake,
    outside,
    parks,
    reads,
    rewind,
    settling,
    signals,
    sweep,
)
from flowq.storage.sqlite.batch import Rewinding
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.connection import Place
from flowq.storage.sqlite.known import Row
from flowq.storage.sqlite.reading import Reading
from flowq.storage.sqlite.rows import STOPPING
from flowq.storage.sqlite.statements import SQL

__all__ = ["SqliteStore"]

T = TypeVar("T")
_encode = msgspec.msgpack.Encoder().encode


class SqliteStore(Reading):
    """Where state lives, in SQLite; made by `from_url`.

    Attributes
    ----------
    url : str
        With the absolute path of the file.
    shares_processes : bool
        False in memory.
    most : int
        A sync costs more than many rows.
    """

    most = 512

    @classmethod
    def from_url(cls, url: str, *, name: str = "flowq", clock: Clock = SYSTEM_CLOCK) -> SqliteStore:
        """Make a store; nothing is opened before it is first used.

        Raises
        ------
        ConfigError
            The URL is of no known form.
        """
        return cls(Place(url), name, clock)

    def __repr__(self) -> str:
        return f"<SqliteStore {self.url}>"

    # --- what changes ---------------------------------------------------------------------------

    @contextmanager
    def _change(self, ids: int = 0) -> Iterator[Change]:
        """Run one transaction, and tell those who wait once it is kept."""
        with self._db.write() as db:
            change = Change(db, self._clock.now_ms(), ids)
            yield change
            change.close()
            moved = [change.run_of(run)[0] for run in change.moved]
        left = {queue: n for queue, n in change.ready.items() if n > 0}
        for queue in change.later | change.left:
            left.setdefault(queue, 1)
        if left or change.ended or moved:
            self._wakes.tell(left, change.ended, moved)
        if change.stopped:
            self._wakes.tell_all()

    def _told(self, what: Callable[[Change], T], ids: int = 0) -> T:
        """Do what may concern a run that is being rewound: that is driven to its end first."""
        try:
            with self._change(ids) as change:
                return what(change)
        except Rewinding:
            self._finish_rewinds()
        return self._told(what, ids)

    def _finish_rewinds(self) -> None:
        left = True
        while left:
            with self._change() as change:
                left = bool(change.rewound)
                if left:
                    change.resume()
                    change.walk()

    def enqueue(self, messages: Sequence[Message]) -> list[bool | None]:
        """Take tasks called alone; see `Store.enqueue`."""
        if not messages:
            return []
        return intake.enqueue(self._change, messages)

    def submit(self, plan: Plan) -> bool | None:
        """Start a run; see `Store.submit`."""
        return intake.submit(self._change, plan)

    def fork(
        self,
        run: bytes,
        new: bytes,
        *,
        seen: int,
        chosen: Ranges,
        reopened: Ranges = (),
        dropped: Ranges = (),
        messages: Mapping[int, Message] = MappingProxyType({}),
    ) -> bool | None:
        """Start a run that takes over what it does not run itself; see `Store.fork`."""
        return forks.fork(self._change, run, new, seen, (chosen, reopened, dropped), messages)

    def step(
        self,
        session: SessionId,
        outcomes: Sequence[Outcome] = (),
        *,
        want: int = 0,
        queues: Sequence[str] = ("default",),
        lease_ms: int = 30_000,
        bound_ms: int = 0,
    ) -> Step:
        """Settle and hand out; see `Store.step`."""
        growing = growth.ids_for(outcomes)
        if growing:
            growth.upload(self._change, session, outcomes)

        def step(change: Change) -> Step:
            db = change.db
            self._close_gap(change, lease_ms // 3)
            touched = db.execute(SQL["touch_session"], (session, change.now + lease_ms)).fetchall()
            me, unopened = touched[0]
            verdicts, held = settling.settle(change, me, outcomes)
            change.walk()
            if change.resume():
                change.walk()
            settling.take_back(change)
            change.walk()
            handing.queue_due(change)
            change.flush()

            served = [db.known.queue(db, queue) for queue in dict.fromkeys(queues)]
            burdened = any(row[7] for row in held.values())
            told = [name for name, row in held.items() if row[4] & STOPPING]
            rows: list[Row] = []
            if want > 0 and not burdened:
                share = handing.share(change, served, want)
                rows = handing.hand_out(change, me, share, served, not held)
            ready, alone = handing.left(change, served)
            change.flush()
            given = handing.deliveries(db, rows, remember=True) if rows else []
            if change.pages_left:
                change.left.update(served)
            if rows and ready:
                change.left.update(queue for queue, n in change.count(served).items() if n)
            return Step(
                verdicts=verdicts,
                deliveries=given,
                ready=ready,
                alone=alone,
                next_ms=handing.next_ms(change, me),
                stops=_stops(db, me) if change.stopped else told,
                unopened=bool(unopened),
            )

        return self._told(step, growing)

    def _close_gap(self, change: Change, period_ms: int) -> None:
        """Move deadlines on by the time in which nobody could reach the store."""
        if change.seen and change.now - change.seen > period_ms:
            gap = change.now - change.seen - period_ms
            change.db.execute(SQL["shift_deadlines"], (gap,))
        if change.now > change.seen:
            change.db.execute(SQL["set_seen"], (change.now,))

    def open_session(self, info: SessionInfo, *, lease_ms: int = 30_000) -> None:
        """Register a session; see `Store.open_session`."""
        with self._change() as change:
            row = (info.id, change.now + lease_ms, _encode(info))
            change.db.execute(SQL["open_session"], row)

    def renew(
        self, sessions: Sequence[SessionId], *, lease_ms: int = 30_000, period_ms: int = 10_000
    ) -> list[list[bytes] | None]:
        """Push back deadlines; see `Store.renew`."""
        with self._change() as change:
            self._close_gap(change, period_ms)
            found: list[list[bytes] | None] = []
            for session in sessions:
                row = change.db.execute(SQL["renew"], (change.now + lease_ms, session)).fetchall()
                if not row:
                    found.append(None)
                    continue
                found.append(_stops(change.db, row[0][0]))
            return found

    def release(self, session: SessionId, *, lost: Sequence[bytes] = (), reason: str = "") -> int:
        """End a session; see `Store.release`."""

        def release(change: Change) -> int:
            row = change.db.execute(SQL["session"], (session,)).fetchone()
            if row is None:
                return 0
            running = frozenset(lost)
            rows = change.db.execute(SQL["held_by"], (row[0], -1)).fetchall()
            n = settling.lose(change, rows, session, row[1], reason, running.__contains__)
            change.put("drop_session", row[0])
            change.walk()
            return n

        return self._told(release)

    def rewind(
        self,
        run: bytes,
        generation: int,
        *,
        chosen: Ranges,
        reopened: Ranges = (),
        dropped: Ranges = (),
        seen: int = -1,
    ) -> bool | None:
        """Let nodes of a run run again; see `Store.rewind`."""
        began = False
        while True:
            with self._change() as change:
                row = change.db.execute(SQL["root_now"], (run, change.now)).fetchone()
                if row is None:
                    return None
                number, base, state, now_at, changes, _ = row
                if outside.move_on(change, [number]):
                    continue
                if began or now_at == generation:
                    return True
                if now_at + 1 != generation:
                    return False
                if state < State.SUCCESS and not (
                    seen == changes and rewind.may_begin(change, number, base, chosen, reopened)
                ):
                    return False
                rewind.begin(change, number, base, generation, (chosen, reopened, dropped))
                change.walk()
                began = True

    def park(
        self, run: bytes, request: bytes, *, seen: int, nodes: Ranges, stop: Ranges = ()
    ) -> bool | None:
        """Let nobody see how nodes end that are to run anew; see `Store.park`."""
        began = False
        while True:
            with self._change() as change:
                row = change.db.execute(SQL["root_now"], (run, change.now)).fetchone()
                if row is None:
                    return None
                number, base, state, _, changes, asked = row
                if asked == request and parks.is_parked(change, (number, base), nodes):
                    if not began:
                        return True
                if outside.move_on(change, [number]):
                    continue
                if began:
                    return True
                if state >= State.SUCCESS or seen != changes:
                    return False
                if not parks.may_park(change, (number, base), nodes):
                    return False
                parks.park(change, (number, base), request, nodes, stop)
                began = True

    def cancel(self, ids: Sequence[bytes], *, force: bool = False) -> list[State | None]:
        """Stop tasks, nodes or runs; see `Store.cancel`."""
        return outside.cancel(self._change, ids, force)

    def reschedule(self, id: bytes, *, delay_ms: int = 0, due_ms: int = 0) -> State | None:
        """Let an unstarted task become due at another time; see `Store.reschedule`."""
        return self._told(lambda change: outside.reschedule(change, id, delay_ms, due_ms))

    def send(
        self,
        run: bytes,
        name: str,
        body: bytes,
        *,
        to: str = "",
        key: str = "",
        who: str = "",
    ) -> Send | None:
        """Send a value to a run; see `Store.send`."""

        def send(change: Change) -> Send | None:
            return signals.send(change, run, Sent(name, to, key, who, change.now), body)

        return self._told(send)

    def pause(self, run: bytes) -> State | None:
        """Let nothing more of a run be handed out; see `Store.pause`."""
        with self._change() as change:
            return outside.pause(change, run)

    def resume(self, run: bytes) -> State | None:
        """Let a run that is paused go on; see `Store.resume`."""
        return outside.resume(self._change, run)

    def sweep(self, *, limit: int = 1_000) -> Swept:
        """Do a bounded part of the housekeeping; see `Store.sweep`."""
        swept = self._told(lambda change: sweep.sweep(change, limit))
        if not swept.more:
            self._db.trim()
        return swept

    # --- what is remembered beside --------------------------------------------------------------

    def remember(self, entries: Sequence[tuple[bytes, bytes]], *, ttl_ms: int) -> None:
        """Remember bytes under keys; see `Store.remember`."""
        with self._change() as change:
            till = change.now + ttl_ms
            change.db.executemany(SQL["remember"], [(key, till, raw) for key, raw in entries])

    # --- what waits -----------------------------------------------------------------------------

    def wait_ready(self, queues: Sequence[str], *, timeout: float) -> bool:
        """Sleep until work may be there; see `Store.wait_ready`."""
        with self._db.read() as db:
            known = db.known.queues(db, queues)
        if len(known) < len(queues):
            with self._change() as change:
                known = [change.db.known.queue(change.db, queue) for queue in queues]

        def look(first: bool) -> bool:
            with self._db.read() as db:
                return reads.any_ready(db, known, alone=not first)

        return self._wakes.wait_ready(known, timeout, look)


def _stops(db: sqlite3.Connection, session: int) -> list[bytes]:
    """Give what a session holds and is to stop."""
    rows = db.execute(SQL["stops"], (session,))
    return [whole if run is None else whole + i.to_bytes(4, "big") for _, whole, i, run in rows]
