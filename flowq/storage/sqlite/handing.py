# SPDX-License-Identifier: MIT
"""Handing messages to sessions: what is due, what is best, whose share it is."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from flowq.message import Delivery, node_id
from flowq.storage.base import PAGE, REPLY_BYTES
from flowq.storage.sqlite import along, limits, pauses, phases, timers
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.known import Link, Row
from flowq.storage.sqlite.rows import ANY_QUEUE, LIMITED, PREFETCH, unpack_ranges
from flowq.storage.sqlite.settling import fail_expired
from flowq.storage.sqlite.statements import SQL

__all__ = ["deliveries", "hand_out", "held", "left", "next_ms", "queue_due", "share"]

_DUE: Final = 1_000
"""Scheduled messages that one step queues at most."""
_ORDER: Final = itemgetter(0, 1, 2, 3)


def queue_due(change: Change) -> None:
    """Queue what was scheduled and is due, and do what timers say, with a page of its edges."""
    rows = change.db.execute(SQL["due"], (change.now, _DUE)).fetchall()
    rung = []
    for i, (id, queue, rank, due, flags, run) in enumerate(rows):
        if queue == ANY_QUEUE:
            rung.append((due, id, False))
            continue
        if flags & LIMITED and (gate := limits.full(change, id, run)) is not None:
            change.put("wait_at", gate, change.turn, id)
            change.move(run)
            continue
        if run is not None:
            change.move(run)
        change.put("queue_due", (change.front if rank < 0 else change.back) + i, id)
        change.add_ready(queue)
    late = change.db.execute(SQL["deadlines"], (change.now, _DUE)).fetchall()
    rung += [(due, id, True) for due, id in late]
    if rung:
        timers.ring(change, sorted(rung))
        change.walk()


def hand_out(
    change: Change, session: int, want: int, queues: Sequence[int], idle: bool
) -> list[Row]:
    """Give messages to a session: the best by priority over all queues, best first."""
    chosen: list[Row] = []
    for _ in range(10):  # more than once only where something had expired
        change.flush()
        found = _best(change.db, want, queues, idle)
        if change.paused and pauses.any_of(change, found):
            pauses.hold(change, _best(change.db, max(want, PAGE), queues, idle), want)
            change.walk()  # what is held now leaves its places to others
            continue
        now = change.now
        late = [row for row in found if row[7] is not None and row[7] <= now]
        # what is closing while pages are left has some that are queued, and yet start no more
        closed = phases.closed(change, found) if change.pages_left else []
        if not (late or closed):
            chosen = found
            break
        if closed:
            change.stop(closed)
            continue
        for row in late:
            full = change.db.execute(SQL["row"], (row[3],)).fetchone()
            fail_expired(change, full[:11], full[11])
        change.walk()
    if chosen:
        for run in {row[9] for row in chosen}:
            if run is not None:
                change.move(run)
        for queue, n in Counter([row[6] for row in chosen]).items():
            change.add_ready(queue, -n)
        ids = json.dumps([row[3] for row in chosen])
        change.db.execute(SQL["hand_out"], (session, change.now, ids))
    return chosen


def share(change: Change, queues: Sequence[int], want: int) -> int:
    """Cut what a session wants to its share of what is ready."""
    if want <= 1:
        return want
    ready = sum(change.count(queues).values())
    sessions: int = change.db.execute(SQL["live_sessions"], (change.now,)).fetchone()[0]
    return max(1, min(want, -(-ready // max(sessions, 1))))


def left(change: Change, queues: Sequence[int]) -> tuple[int, bool]:
    """Say how many messages are left in queues, and whether some wait for an idle session."""
    counts = change.count(queues)
    alone = any(
        n > 0 and change.db.execute(SQL["next_alone"], (0, queue)).fetchone() is not None
        for queue, n in counts.items()
    )
    return sum(counts.values()), alone


def next_ms(change: Change, session: int) -> int | None:
    """Say in how many milliseconds something is due, or another session's lease ends.

    Where pages of edges are left, that is now.
    """
    if change.pages_left:
        return 0
    moments = [
        *change.db.execute(SQL["next_due"]).fetchone(),
        change.db.execute(SQL["next_deadline"], (session,)).fetchone()[0],
    ]
    found = [moment for moment in moments if moment is not None]
    return max(0, min(found) - change.now) if found else None


def _best(db: sqlite3.Connection, want: int, queues: Sequence[int], idle: bool) -> list[Row]:
    """Choose what goes to a session, in order."""
    found: list[Row] = []
    for place, queue in enumerate(queues):
        found += db.execute(SQL["next_ready"], (place, queue, want)).fetchall()
        if idle:
            found += db.execute(SQL["next_alone"], (place, queue)).fetchall()
    if idle or len(queues) > 1:
        found.sort(key=_ORDER)
    if not found:
        return []
    if found[0][4] or found[0][5] & PREFETCH:
        return found[:1]
    chosen: list[Row] = []
    for row in found:
        if row[4]:  # it waits for a session that holds nothing, and takes nobody's place
            continue
        if row[5] & PREFETCH or len(chosen) == want:
            break
        chosen.append(row)
    return chosen


def held(db: Link, session: int) -> list[Delivery]:
    """Read what a session holds."""
    return deliveries(db, db.execute(SQL["delivered_of"], (session,)).fetchall())


def deliveries(db: Link, rows: Sequence[Row], *, remember: bool = False) -> list[Delivery]:
    """Read bodies, with the values that they read as far as they fit.

    With `remember`, they have just been handed out: what was read is kept for their settlement.
    """
    ids = json.dumps([row[3] for row in rows])
    plans = {row[0]: row for row in db.execute(SQL["deliveries"], (ids,))}
    left = REPLY_BYTES
    given = []
    for row in rows:
        _, _, _, id, _, _, _, _, name, run, delivery, attempt, losses, _, keep = row
        base = 0
        if run is not None:
            whole, base = db.known.run(db, run)
            name = node_id(whole, id - base)
        if remember and not losses and keep != 0:
            db.known.remember(name, row)
        _, body, reads, follows = plans[id]
        if reads is None and follows is None:
            given.append(Delivery(name, delivery, attempt, losses, body))
            continue
        values = along.followed(db, follows, base)
        complete = True
        for first, count in unpack_ranges(reads):
            if not complete:
                break
            for node, cell in db.execute(SQL["cells"], (first, first + count - 1, run)):
                if node - base in values:
                    continue
                if len(cell) > left and left < REPLY_BYTES:
                    complete = False
                    break
                left -= len(cell)
                values[node - base] = cell
        given.append(Delivery(name, delivery, attempt, losses, body, values, complete))
    return given
