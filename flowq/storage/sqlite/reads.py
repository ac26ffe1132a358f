# SPDX-License-Identifier: MIT
"""What people and handles read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from flowq.message import CULPRIT, HEAD, NO_NODE, split_node
from flowq.plan import Kind, Ranges
from flowq.states import State
from flowq.storage.base import (
    DeadLetter,
    Look,
    Loss,
    NodeInfo,
    QueueInfo,
    RunInfo,
    Sent,
    SessionInfo,
    Status,
)
from flowq.storage.sqlite.growth import spans
from flowq.storage.sqlite.rows import (
    CLOSING,
    KIND,
    LATER,
    PHASE,
    node_bits,
    unpack_ranges,
    unpack_rule,
)
from flowq.storage.sqlite.statements import SQL

__all__ = [
    "any_ready",
    "cells",
    "dead",
    "dead_letter",
    "look",
    "message",
    "nodes",
    "run",
    "runs",
    "sent",
    "sessions",
    "status",
]

_read_info = msgspec.msgpack.Decoder(SessionInfo).decode
_read_losses = msgspec.msgpack.Decoder(list[Loss]).decode
_SCHEDULED, _HELD, _RUNNING, _EXPANDED = (
    State.SCHEDULED.value,
    State.HELD.value,
    State.RUNNING.value,
    State.EXPANDED.value,
)
_EXPANSION: Final = Kind.EXPANSION.value


def any_ready(db: sqlite3.Connection, queues: Sequence[int], *, alone: bool) -> bool:
    """Say whether there is work: a message in a queue, or pages of edges that were left.

    Messages for idle sessions count only with `alone`.
    """
    if db.execute(SQL["any_walk"]).fetchone() is not None:
        return True
    if alone:
        return db.execute(SQL["any_ready"], (json.dumps(queues),)).fetchone() is not None
    return any(
        db.execute(SQL["next_ready"], (0, queue, 1)).fetchone() is not None for queue in queues
    )


def look(db: sqlite3.Connection, now: int, id: bytes, cells: bool) -> Look | None:
    """Say where a task, node or run stands."""
    is_run = False
    if len(id) == 16:
        row = db.execute(SQL["look_single"], (id, now)).fetchone()
        if row is None:
            is_run = True
            row = db.execute(SQL["look_node"], (0, id, now)).fetchone()
    else:
        whole, index = split_node(id)
        row = db.execute(SQL["look_node"], (index, whole, now)).fetchone()
    if row is None:
        return None
    state, attempt, losses, due, cell = row
    return Look(
        State(state),
        attempt,
        losses,
        due or 0 if state == _SCHEDULED else 0,
        cell if cells else None,
        is_run,
    )


def cells(db: sqlite3.Connection, now: int, run: bytes, ranges: Ranges) -> dict[int, bytes]:
    """Read the cells of a run's nodes."""
    row = db.execute(SQL["run"], (run, now)).fetchone()
    if row is None:
        return {}
    base, number = row[7], row[8]
    found: dict[int, bytes] = {}
    for first, n in ranges:
        span = (base + first, base + first + n - 1)
        for id, cell in db.execute(SQL["cells"], (*span, number)):
            found[id - base] = cell
    return found


def message(db: sqlite3.Connection, now: int, id: bytes) -> bytes | None:
    """Give an encoded message."""
    if len(id) == 16:
        row = db.execute(SQL["message_single"], (id, now)).fetchone()
    else:
        whole, index = split_node(id)
        row = db.execute(SQL["message_node"], (index, whole, now)).fetchone()
    return row[0] if row else None


def _run_info(row: tuple[Any, ...]) -> RunInfo:
    id, name, state, created, ended, _, value, _, _, paused, changes, request, nodes = row
    return RunInfo(
        id,
        name,
        State(state),
        created,
        ended,
        nodes - 1,
        value or b"",
        bool(paused),
        changes,
        request or b"",
    )


def run(db: sqlite3.Connection, now: int, id: bytes) -> RunInfo | None:
    """Describe one run."""
    row = db.execute(SQL["run"], (id, now)).fetchone()
    return _run_info(row) if row else None


def sent(db: sqlite3.Connection, now: int, run: bytes) -> list[Sent]:
    """List what was sent to a run."""
    row = db.execute(SQL["run"], (run, now)).fetchone()
    if row is None:
        return []
    base, number = row[7], row[8]
    return [
        Sent(name, to, key, who, at, None if node is None else node - base)
        for name, to, key, who, at, node in db.execute(SQL["sent"], (number,))
    ]


def runs(db: sqlite3.Connection, now: int, after: bytes, limit: int) -> list[RunInfo]:
    """List runs, newest first."""
    return [_run_info(row) for row in db.execute(SQL["runs"], (after, now, limit))]


def nodes(
    db: sqlite3.Connection, now: int, run: bytes, after: int, limit: int, state: State | None
) -> list[NodeInfo]:
    """List nodes of a run by index."""
    found = db.execute(SQL["run"], (run, now)).fetchone()
    if found is None:
        return []
    count, base, number = found[5], found[7], found[8]
    start = base + max(after, -1) + 1
    infos: list[NodeInfo] = []
    for first, last in spans(db, number, base, count):
        span, left = (max(first, start), last), limit - len(infos)
        if last < start or not left:
            continue
        if state is None:
            rows = db.execute(SQL["nodes"], (*span, left))
        else:
            rows = db.execute(SQL["nodes_in"], (*span, state.value, left))
        infos += [_node_info(row, base) for row in rows]
    return infos


def _node_info(row: tuple[Any, ...], base: int) -> NodeInfo:
    id, name, task, flags, owner, state, generation, attempt, losses, *rest = row
    ready, due, cell, parents, rule, signal, most, follows, turn, marks, gate, parked = rest
    started = ended = 0
    culprit = None
    if cell is not None:
        kind, _, started, ended = HEAD.unpack_from(cell)
        if kind & CULPRIT:
            blamed = int.from_bytes(cell[HEAD.size : HEAD.size + 4], "big")
            culprit = None if blamed == NO_NODE else blamed
    elif state == _RUNNING:
        started = due
    return NodeInfo(
        index=id - base,
        name=name,
        task=task or "",
        kind=flags & KIND,
        owner=NO_NODE if owner is None else owner - base,
        state=State(state),
        generation=generation,
        attempt=attempt,
        losses=losses,
        ready_ms=ready or 0,
        started_ms=started,
        ended_ms=ended,
        parents=tuple((first - base, n) for first, n in unpack_ranges(parents)),
        culprit=culprit,
        bits=node_bits(flags),
        phase=(flags & LATER) >> PHASE,
        grown=flags & KIND == _EXPANSION and task is not None,
        rule=None if rule is None else unpack_rule(rule),
        signal=signal or "",
        most=most or 0,
        waits_at=gate if gate and state == _HELD else "",
        closing=state == _EXPANDED and bool(turn or marks & CLOSING) and not parked,
        parked=None if parked is None else State(parked or _RUNNING),
        follows=tuple((first - base, n) for first, n in unpack_ranges(follows)),
    )


def sessions(db: sqlite3.Connection, now: int) -> list[SessionInfo]:
    """List sessions that live."""
    found = []
    for name, deadline, info, held in db.execute(SQL["sessions"], (now,)):
        who = _read_info(info) if info else SessionInfo(name)
        found.append(msgspec.structs.replace(who, deadline_ms=deadline, held=held))
    return found


def status(db: sqlite3.Connection) -> Status:
    """Count."""
    queues = [QueueInfo(name, ready) for name, ready in db.execute(SQL["status_queues"])]
    scheduled, running, buried, unfinished = db.execute(SQL["status"]).fetchone()
    return Status(queues, scheduled, running, buried, unfinished)


def left(db: sqlite3.Connection, queues: Sequence[str]) -> bool:
    """Say whether anything is to run in these queues."""
    return bool(db.execute(SQL["left"], (json.dumps(list(queues)),)).fetchone()[0])


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    id, reason, at, body, losses = row
    return DeadLetter(id, reason, at, body, _read_losses(losses))


def dead(db: sqlite3.Connection, now: int, after: bytes, limit: int) -> list[DeadLetter]:
    """List dead letters, newest first."""
    return [_letter(row) for row in db.execute(SQL["dead"], (after, now, limit))]


def dead_letter(db: sqlite3.Connection, now: int, id: bytes) -> DeadLetter | None:
    """Give one dead letter."""
    row = db.execute(SQL["dead_letter"], (id, now)).fetchone()
    return _letter(row) if row else None
