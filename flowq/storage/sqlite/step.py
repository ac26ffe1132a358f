# SPDX-License-Identifier: MIT
"""The parts of a worker's step: settle, take back, queue what is due, hand out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from flowq.message import HEAD, Delivery, pack_cell, split_node
from flowq.outcome import Cancelled, Done, Failed, GiveBack, Outcome, RetryAt, Skipped, Unknown
from flowq.states import State
from flowq.storage.base import (
    MEMORY_OF_ENDED_MS,
    REPLY_BYTES,
    UNKNOWN_PATIENCE_MS,
    Loss,
    SessionInfo,
    Verdict,
)
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.rows import FAILED_KEEP_MS, PREFETCH, SETTLED, STOPPING, unpack_ranges
from flowq.storage.sqlite.statements import SQL

__all__ = [
    "bury",
    "deliveries",
    "fail_expired",
    "hand_out",
    "held_rows",
    "left",
    "lose",
    "next_ms",
    "queue_due",
    "read_losses",
    "settle",
    "share",
    "take_back",
]

_DUE: Final = 1_000
"""Scheduled messages that one step queues at most."""
_TAKEN_BACK: Final = 1_000
"""Messages of dead sessions that one step takes back at most."""
_QUEUED, _SCHEDULED, _RUNNING = State.QUEUED.value, State.SCHEDULED.value, State.RUNNING.value
_SUCCESS, _CANCELLED, _FAILED = State.SUCCESS.value, State.CANCELLED.value, State.FAILED.value

_encode = msgspec.msgpack.Encoder().encode
_read_info = msgspec.msgpack.Decoder(SessionInfo).decode
_read_loss = msgspec.msgpack.Decoder(Loss).decode

Held = dict[bytes, tuple[Any, ...]]


def held_rows(change: Change, session: int) -> Held:
    """Give what a session holds, by the ids known outside."""
    found: Held = {}
    for row in change.db.execute(SQL["holds"], (session,)):
        whole = row[1]
        found[whole if row[3] is None else whole + row[2].to_bytes(4, "big")] = row
    return found


def settle(change: Change, held: Held, outcomes: Sequence[Outcome]) -> list[Verdict]:
    """Apply outcomes of what the session holds; what is settled leaves `held`."""
    verdicts: list[Verdict] = []
    for outcome in outcomes:
        id = outcome.id
        row = held.get(id)
        if row is None or row[5] != outcome.delivery:
            change.flush()
            verdicts.append(_past(change.db, outcome))
            continue
        del held[id]
        key, whole, _, run, flags, _, attempt, losses, owner, keep, failed_keep, queue = row
        flags |= SETTLED
        verdicts.append("settled")
        if flags & STOPPING:
            cell = _cancelled_cell(change, outcome)
            change.end(key, whole, run, flags, owner, (keep, failed_keep), _CANCELLED, cell)
        elif isinstance(outcome, Done):
            # The common case, kept short: `end` would come to the same.
            if run is None:
                change.end_single(key, whole, flags, (keep, failed_keep), _SUCCESS, outcome.cell)
            else:
                change.end_node(key, run, flags, owner, _SUCCESS, outcome.cell, None)
        elif isinstance(outcome, RetryAt):
            due = change.now + outcome.delay_ms
            change.put("again", _SCHEDULED, flags, change.front, due, attempt + 1, losses, key)
            change.later.add(queue)
            continue
        elif isinstance(outcome, GiveBack):
            change.put("again", _QUEUED, flags, change.front, None, attempt, losses, key)
            change.add_ready(queue)
            continue
        elif isinstance(outcome, Unknown):
            _unknown(change, row, outcome)
            continue
        else:
            if isinstance(outcome, Failed) and outcome.dead:
                bury(change, key, id, failed_keep, outcome.dead)
            change.end(
                key, whole, run, flags, owner, (keep, failed_keep), outcome.state, outcome.cell
            )
        if losses:
            change.put("drop_losses", key)
    return verdicts


def _past(db: sqlite3.Connection, outcome: Outcome) -> Verdict:
    """Tell an outcome that was settled before from one that comes too late."""
    if len(outcome.id) == 16:
        found = db.execute(SQL["verdict_single"], (outcome.id,)).fetchone()
    else:
        run, index = split_node(outcome.id)
        found = db.execute(SQL["verdict_node"], (index, run)).fetchone()
    if found and found[2] == outcome.delivery and found[1] & SETTLED:
        return "repeated"
    return "stale"


def _cancelled_cell(change: Change, outcome: Outcome) -> bytes:
    if isinstance(outcome, Cancelled):
        return outcome.cell
    started = 0
    if isinstance(outcome, Done | Failed | Skipped) and len(outcome.cell) >= HEAD.size:
        started = HEAD.unpack_from(outcome.cell)[2]
    return pack_cell(
        _CANCELLED,
        b"cancelled",
        delivery=outcome.delivery,
        started_ms=started,
        ended_ms=change.now,
    )


def _unknown(change: Change, row: tuple[Any, ...], outcome: Unknown) -> None:
    """Put a message back whose task the worker does not know, later each time."""
    key, whole, _, run, flags, _, attempt, losses, owner, keep, failed_keep, queue = row
    flags |= SETTLED
    since = change.db.execute(SQL["unknown"], (change.now, key)).fetchall()[0][0]
    waited = change.now - since
    if waited >= UNKNOWN_PATIENCE_MS:
        bury(change, key, outcome.id, failed_keep, "unknown task")
        change.end(key, whole, run, flags, owner, (keep, failed_keep), _FAILED, outcome.cell)
        if losses:
            change.put("drop_losses", key)
        return
    due = change.now + min(max(waited, 1_000), 30_000)
    change.put("again", _SCHEDULED, flags, change.front, due, attempt, losses, key)
    change.later.add(queue)


# --- what dead sessions held ---------------------------------------------------------------------


def read_losses(db: sqlite3.Connection, id: int) -> list[Loss]:
    """Give the history of a message's lost workers."""
    return [_read_loss(raw) for (raw,) in db.execute(SQL["losses"], (id,))]


def bury(change: Change, id: int, name: bytes, failed_keep: int | None, reason: str) -> None:
    """Keep a message among the dead letters, with its history."""
    body, _ = change.read_body(id)
    kept = max(FAILED_KEEP_MS if failed_keep is None else failed_keep, MEMORY_OF_ENDED_MS)
    losses = _encode(read_losses(change.db, id))
    change.db.execute(SQL["add_dead"], (name, reason, change.now, change.now + kept, losses, body))


def take_back(change: Change) -> None:
    """Take back what sessions past their deadline held."""
    left = _TAKEN_BACK
    for session, name, info in change.db.execute(
        SQL["dead_sessions"], (change.now, 100)
    ).fetchall():
        rows = change.db.execute(SQL["held_by"], (session, left + 1)).fetchall()
        lose(change, rows[:left], name, info, "the session's lease ran out")
        if len(rows) > left:
            return
        left -= len(rows)
        change.put("drop_session", session)


def lose(
    change: Change,
    rows: Iterable[tuple[Any, ...]],
    session: str,
    info: bytes | None,
    reason: str,
    running: Callable[[bytes], bool] = lambda id: True,
) -> int:
    """Take messages from a session that is gone; those that it was running count a loss."""
    who = _read_info(info) if info else None
    n = 0
    for id, run, flags, delivery, attempt, losses, queue, owner, keep, failed_keep, uuid in rows:
        n += 1
        name = change.name(id, run, uuid)
        if flags & STOPPING:
            cell = pack_cell(_CANCELLED, b"cancelled", delivery=delivery, ended_ms=change.now)
            change.end(id, uuid, run, flags, owner, (keep, failed_keep), _CANCELLED, cell)
            continue
        if not running(name):
            change.put("again", _QUEUED, flags, change.front, None, attempt, losses, id)
            change.add_ready(queue)
            continue
        losses += 1
        record = Loss(
            session=session,
            host=who.host if who else "",
            pid=who.pid if who else 0,
            delivery=delivery,
            at_ms=change.now,
            reason=reason,
        )
        change.db.execute(SQL["add_loss"], (id, losses, _encode(record)))
        _, message = change.read_body(id)
        if losses >= (message.max_losses if message else 3):
            change.put("again", _QUEUED, flags, change.front, None, attempt, losses, id)
            bury(change, id, name, failed_keep, "lost")
            text = f"WorkerLost('its worker was lost {losses} times: {reason}')"
            cell = change.failure(name, message, "lost", text, "flowq.errors.WorkerLost")
            change.flush()
            change.end(id, uuid, run, flags, owner, (keep, failed_keep), _FAILED, cell)
            change.put("drop_losses", id)
            continue
        change.put("again", _QUEUED, flags, change.front, None, attempt, losses, id)
        change.add_ready(queue)
    return n


# --- handing out ---------------------------------------------------------------------------------


def queue_due(change: Change) -> None:
    """Queue what was scheduled and is due."""
    rows = change.db.execute(SQL["due"], (change.now, _DUE)).fetchall()
    for i, (id, queue, rank) in enumerate(rows):
        change.put("queue_due", (change.front if rank < 0 else change.back) + i, id)
        change.add_ready(queue)


def fail_expired(change: Change, row: tuple[Any, ...], uuid: bytes | None) -> None:
    """Fail what was not begun in time (a row of ``expired``)."""
    id, run, state, flags, queue, owner, keep, failed_keep, _, _, _ = row
    name = change.name(id, run, uuid)
    _, message = change.read_body(id)
    cell = change.failure(name, message, "expired", "Expired('was not begun in time')", "")
    if state == _QUEUED:
        change.add_ready(queue, -1)
    change.end(id, uuid, run, flags, owner, (keep, failed_keep), _FAILED, cell)
    change.put("drop_losses", id)


def hand_out(
    change: Change, session: int, want: int, queues: Sequence[int], idle: bool
) -> list[int]:
    """Give messages to a session: the best by priority over all queues.

    Returns
    -------
    list of int
        Row ids, in the order in which they were chosen.
    """
    chosen: list[tuple[Any, ...]] = []
    for _ in range(10):  # more than once only where something had expired
        change.flush()
        found = _best(change.db, want, queues, idle)
        late = [row for row in found if row[9] is not None and row[9] <= change.now]
        if not late:
            chosen = found
            break
        for row in late:
            full = change.db.execute(SQL["row"], (row[3],)).fetchone()
            fail_expired(change, full[:11], full[11])
        change.walk()
    if not chosen:
        return []
    ids = [row[3] for row in chosen]
    for row in chosen:
        change.add_ready(row[6], -1)
        change.put("hand_out", session, change.now, row[3])
    return ids


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
        n > 0 and change.db.execute(SQL["next_alone"], (queue,)).fetchone() is not None
        for queue, n in counts.items()
    )
    return sum(counts.values()), alone


def next_ms(change: Change, session: int) -> int | None:
    """Say in how many milliseconds something is due, or another session's lease ends."""
    moments = [
        change.db.execute(SQL["next_due"]).fetchone()[0],
        change.db.execute(SQL["next_deadline"], (session,)).fetchone()[0],
    ]
    found = [moment for moment in moments if moment is not None]
    return max(0, min(found) - change.now) if found else None


def _best(
    db: sqlite3.Connection, want: int, queues: Sequence[int], idle: bool
) -> list[tuple[Any, ...]]:
    """Choose, in order: (-priority, place of the queue, rank, id, alone, flags, queue, ...)."""
    found = []
    for place, queue in enumerate(queues):
        for id, run, prio, rank, flags, delivery, expires in db.execute(
            SQL["next_ready"], (queue, want)
        ):
            found.append((-prio, place, rank, id, False, flags, queue, run, delivery, expires))
        if idle:
            for id, run, prio, rank, flags, delivery, expires in db.execute(
                SQL["next_alone"], (queue,)
            ):
                found.append((-prio, place, rank, id, True, flags, queue, run, delivery, expires))
    if idle or len(queues) > 1:
        found.sort()
    if not found:
        return []
    if found[0][4] or found[0][5] & PREFETCH:
        return found[:1]
    chosen = []
    for row in found[: want + 1]:
        if row[5] & PREFETCH:
            break
        if not row[4]:
            chosen.append(row)
    return chosen[:want]


def deliveries(db: sqlite3.Connection, ids: Sequence[int]) -> list[Delivery]:
    """Read what is handed out, with the values that it reads as far as they fit."""
    rows = {row[0]: row for row in db.execute(SQL["deliveries"], (json.dumps(ids),))}
    left = REPLY_BYTES
    given = []
    for id in ids:
        _, whole, base, run, delivery, attempt, losses, body, reads = rows[id]
        name = whole if run is None else whole + (id - base).to_bytes(4, "big")
        if reads is None:
            given.append(Delivery(name, delivery, attempt, losses, body))
            continue
        values: dict[int, bytes] = {}
        complete = True
        for first, count in unpack_ranges(reads):
            if not complete:
                break
            for node, cell in db.execute(SQL["cells"], (first, first + count - 1)):
                if len(cell) > left and left < REPLY_BYTES:
                    complete = False
                    break
                left -= len(cell)
                values[node - base] = cell
        given.append(Delivery(name, delivery, attempt, losses, body, values, complete))
    return given
