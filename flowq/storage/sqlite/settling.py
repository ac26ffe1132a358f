# SPDX-License-Identifier: MIT
"""How a message leaves a session: settled, taken back, dead; and what expires."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from flowq.message import HEAD, pack_cell, split_node
from flowq.outcome import (
    Cancelled,
    Done,
    Expand,
    Failed,
    GiveBack,
    Outcome,
    RetryAt,
    Skipped,
    Unknown,
)
from flowq.states import State
from flowq.storage.base import (
    UNKNOWN_PATIENCE_MS,
    Loss,
    SessionInfo,
    Verdict,
)
from flowq.storage.sqlite import limits, timers
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.growth import expand
from flowq.storage.sqlite.rows import (
    FAILED_KEEP_MS,
    LIMITED,
    NEEDED,
    OVERTIME,
    SETTLED,
    STOPPING,
    WITHIN,
)
from flowq.storage.sqlite.statements import SQL

__all__ = ["bury", "fail_expired", "lose", "settle", "take_back"]

_IN_ORDER: Final = NEEDED | WITHIN
"""Flags of which nodes have one whose ends are counted one after the other."""
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


def settle(change: Change, session: int, outcomes: Sequence[Outcome]) -> tuple[list[Verdict], Held]:
    """Apply outcomes of what a session holds.

    Returns
    -------
    verdicts : list of Verdict
    held : dict
        What the session holds still.
    """
    if not _succeed(change, session, outcomes):
        held = held_rows(change, session)
        return _settle(change, held, outcomes), held
    return ["settled"] * len(outcomes), held_rows(change, session)


def _succeed(change: Change, session: int, outcomes: Sequence[Outcome]) -> bool:
    """Settle successes of what this connection handed out, or nothing if one is anything else.

    The common case: one statement that is fence and settlement at once, and no reading before.
    """
    db = change.db
    found = []
    rows = []
    forgets: dict[int | None, int] = {}
    for outcome in outcomes:
        if not isinstance(outcome, Done):
            return False
        handed = db.known.recall(outcome.id)
        if handed is None:
            return False
        _, _, _, key, _, flags, _, _, _, run, _, _, _, owner, keep = handed
        if flags & _IN_ORDER:  # whether it is a success depends on those before it
            return False
        forget = None
        if run is None:
            forget = forgets.get(keep)
            if forget is None:
                forget = forgets[keep] = change.forget_ms(keep)
        else:
            found.append((key, run, flags, owner))
        rows.append((forget, outcome.cell, key, session, outcome.delivery))
    if not rows:
        return False
    db.execute("SAVEPOINT settling")
    whole = db.executemany(SQL["succeed"], rows).rowcount == len(rows)
    if not whole:  # cancelled, taken back, settled before, or named twice
        db.execute("ROLLBACK TO settling")
    db.execute("RELEASE settling")
    if whole:
        change.ended += [o.id for o, row in zip(outcomes, rows, strict=True) if row[0] is not None]
        for key, run, flags, owner in found:
            change.passed(key, run, flags, owner, _SUCCESS, None)
    return whole


def _settle(change: Change, held: Held, outcomes: Sequence[Outcome]) -> list[Verdict]:
    """Apply any outcomes; what is settled leaves `held`."""
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
        if flags & OVERTIME:
            cell = timers.overdue(change, key, run, _cancelled_cell(change, outcome))
            change.end(key, whole, run, flags, owner, (keep, failed_keep), _FAILED, cell)
        elif flags & STOPPING:
            cell = _cancelled_cell(change, outcome)
            change.end(key, whole, run, flags, owner, (keep, failed_keep), _CANCELLED, cell)
        elif isinstance(outcome, RetryAt):
            due = change.now + outcome.delay_ms
            change.put("again", _SCHEDULED, flags, change.front, due, attempt + 1, losses, key)
            change.later.add(queue)
            _left(change, key, run, flags)
            continue
        elif isinstance(outcome, GiveBack):
            change.put("again", _QUEUED, flags, change.again, None, attempt, losses, key)
            change.again += 1
            if run is not None:
                change.move(run)
            change.add_ready(queue)
            continue
        elif isinstance(outcome, Expand):
            change.flush()
            expand(change, row, outcome)
        elif isinstance(outcome, Unknown):
            _unknown(change, row, outcome)
            continue
        else:
            if isinstance(outcome, Failed) and outcome.dead:
                bury(change, key, id, run, failed_keep, outcome.dead)
            change.end(
                key, whole, run, flags, owner, (keep, failed_keep), outcome.state, outcome.cell
            )
        if losses:
            change.put("drop_losses", key)
        if flags & _IN_ORDER:
            change.count_all()
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
        bury(change, key, outcome.id, run, failed_keep, "unknown task")
        change.end(key, whole, run, flags, owner, (keep, failed_keep), _FAILED, outcome.cell)
        if losses:
            change.put("drop_losses", key)
        return
    due = change.now + min(max(waited, 1_000), 30_000)
    change.put("again", _SCHEDULED, flags, change.front, due, attempt, losses, key)
    change.later.add(queue)
    _left(change, key, run, flags)


def _left(change: Change, id: int, run: int | None, flags: int) -> None:
    """Note that a task runs no more, but later."""
    if run is not None:
        change.move(run)
        if flags & LIMITED:
            limits.leave(change, id, run)


# --- what dead sessions held ---------------------------------------------------------------------


def read_losses(db: sqlite3.Connection, id: int) -> list[Loss]:
    """Give the history of a message's lost workers."""
    return [_read_loss(raw) for (raw,) in db.execute(SQL["losses"], (id,))]


def bury(
    change: Change, id: int, name: bytes, run: int | None, failed_keep: int | None, reason: str
) -> None:
    """Keep a message among the dead letters, with its history; of a node, as long as its run."""
    body, _ = change.read_body(id)
    forget = None
    if run is None:
        forget = change.forget_ms(FAILED_KEEP_MS if failed_keep is None else failed_keep)
    losses = _encode(read_losses(change.db, id))
    change.db.execute(SQL["add_dead"], (name, reason, change.now, run, forget, losses, body))


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
        if run is not None:
            change.move(run)
        if flags & STOPPING:
            state = _CANCELLED
            cell = pack_cell(_CANCELLED, b"cancelled", delivery=delivery, ended_ms=change.now)
            if flags & OVERTIME:
                state, cell = _FAILED, timers.overdue(change, id, run, cell)
            change.end(id, uuid, run, flags, owner, (keep, failed_keep), state, cell)
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
            bury(change, id, name, run, failed_keep, "lost")
            text = f"WorkerLost('its worker was lost {losses} times: {reason}')"
            cell = change.failure(name, message, "lost", text, "flowq.errors.WorkerLost")
            change.flush()
            change.end(id, uuid, run, flags, owner, (keep, failed_keep), _FAILED, cell)
            change.put("drop_losses", id)
            continue
        change.put("again", _QUEUED, flags, change.front, None, attempt, losses, id)
        change.add_ready(queue)
    return n


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
