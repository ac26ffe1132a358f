# SPDX-License-Identifier: MIT
"""What people do to tasks, nodes and runs: stop them, move them to another time."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from flowq.message import pack_cell, split_node
from flowq.plan import ROOT
from flowq.states import State
from flowq.storage.sqlite import limits, parks, pauses, phases
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.rows import ANY_QUEUE, LIMITED, PARKED, STOPPING
from flowq.storage.sqlite.statements import SQL

__all__ = ["cancel", "move_on", "pause", "reschedule", "resume"]

Changes = Callable[[], AbstractContextManager[Change]]
Row = tuple[Any, ...]

_WAITING, _SCHEDULED, _QUEUED, _RUNNING, _EXPANDED, _SUCCESS = (
    State.WAITING.value,
    State.SCHEDULED.value,
    State.QUEUED.value,
    State.RUNNING.value,
    State.EXPANDED.value,
    State.SUCCESS.value,
)
_CANCELLED: Final = State.CANCELLED.value


def _find(change: Change, id: bytes, *, roots: bool = False) -> Row | None:
    """Give the row of a task or node; with `roots`, a run's id stands for its root."""
    found = None
    if len(id) == 16:
        found = change.db.execute(SQL["find_single"], (id, change.now)).fetchone()
    if found is None and (roots or len(id) != 16):
        run, index = (id, ROOT) if len(id) == 16 else split_node(id)
        found = change.db.execute(SQL["find_node"], (index, run, change.now)).fetchone()
    row: Row | None = found
    return row


def _find_all(change: Change, ids: Sequence[bytes]) -> list[Row | None]:
    change.flush()
    return [_find(change, id, roots=True) for id in ids]


def move_on(change: Change, runs: Collection[int]) -> bool:
    """Move on a page of edges if some of these runs are left; says whether there were."""
    own = json.dumps(sorted(runs))
    if change.db.execute(SQL["walks_of"], (own,)).fetchone() is None:
        return False
    change.resume()
    change.walk()
    return True


# --- cancel --------------------------------------------------------------------------------------


def cancel(changes: Changes, ids: Sequence[bytes], force: bool) -> list[State | None]:
    """Stop tasks, nodes and runs, one page of edges in a transaction."""
    begun = False
    while True:
        with changes() as change:
            rows = _find_all(change, ids)
            runs = {row[1] for row in rows if row and row[1] is not None}
            if not begun and _is_rewound(change, runs):
                move_on(change, runs)  # a new generation that is being made is made first
            elif not begun:
                begun = True
                for id in ids:
                    _cancel(change, _find(change, id, roots=True), force)
                change.walk()
                if not change.pages_left:
                    return _states(change, ids)
            elif not move_on(change, runs):
                return _states(change, ids)


def _is_rewound(change: Change, runs: Collection[int]) -> bool:
    return any(change.db.execute(SQL["rewinding"], (run,)).fetchone() for run in runs)


def _states(change: Change, ids: Sequence[bytes]) -> list[State | None]:
    return [None if row is None else State(row[2]) for row in _find_all(change, ids)]


def _cancel(change: Change, row: Row | None, force: bool) -> None:
    if row is None or row[2] >= _SUCCESS:
        return
    id, run, state, flags, queue, owner, keep, failed_keep, _, _, _, uuid = row
    if run is not None and owner is None:
        pauses.go_on(change, run, id)  # else what is to clean up after it would wait
        parks.take_back(change, run)
    elif flags & PARKED:
        parks.unpark(change, id, flags)
    if flags & PARKED or (run is not None and owner is None):
        change.walk(0)
        state, flags = change.db.execute(SQL["expansion_row"], (id,)).fetchone()[2:4]
        if state >= _SUCCESS:
            return
    if state == _EXPANDED:
        phases.cancel_inwards(change, id, force=force)
    elif state == _RUNNING:
        change.put("set_flags", flags | STOPPING, id)
        change.stopped = True
    else:
        if state == _QUEUED:
            change.add_ready(queue, -1)
        cell = pack_cell(_CANCELLED, b"cancelled", ended_ms=change.now)
        if run is None:
            change.end_single(id, uuid or b"", flags, (keep, failed_keep), _CANCELLED, cell)
        else:
            began = state != _WAITING
            change.end_node(id, run, flags, owner, _CANCELLED, cell, None, began=began)
    change.walk(
        0
    )  # what ends with the last that stood in it has ended before the next is looked at


# --- pause --------------------------------------------------------------------------------------


def pause(change: Change, run: bytes) -> State | None:
    """Let nothing more of a run be handed out."""
    found = change.db.execute(SQL["root_of_run"], (run, change.now)).fetchone()
    if found is None:
        return None
    number, _, state, _ = found
    change.db.execute(SQL["pause"], (number,))
    return State(state)


def resume(changes: Changes, run: bytes) -> State | None:
    """Let a run go on that is paused, one page of what is held in a transaction."""
    begun = False
    while True:
        with changes() as change:
            found = change.db.execute(SQL["root_of_run"], (run, change.now)).fetchone()
            if found is None:
                return None
            number, base, state, _ = found
            if not begun:
                begun = True
                pauses.go_on(change, number, base)
                change.walk()
                if not change.pages_left:
                    return State(state)
            elif not move_on(change, [number]):
                return State(state)


# --- time ----------------------------------------------------------------------------------------


def reschedule(change: Change, id: bytes, delay_ms: int, due_ms: int) -> State | None:
    """Let an unstarted task become due at another time."""
    row = _find(change, id)
    if row is None:
        return None
    key, run, state, flags, queue, _, _, _, _, _, rank, _ = row
    if run is not None:
        change.move(run)
    if state not in (_QUEUED, _SCHEDULED):
        return State(state)
    due = max(change.now + delay_ms, due_ms)
    if queue == ANY_QUEUE:  # it sleeps; the next step that finds it due lets it end
        change.put("move", _SCHEDULED, due, rank, key)
        change.later.add(queue)
        return State.SCHEDULED
    becomes = _SCHEDULED if due > change.now else _QUEUED
    if state == becomes == _QUEUED:
        return State(becomes)  # it is in its turn already
    rank = change.front if rank < 0 else change.back
    change.later.add(queue)
    if flags & LIMITED and run is not None:
        if becomes == _SCHEDULED:
            limits.leave(change, key, run)
        elif (gate := limits.full(change, key, run)) is not None:
            change.put("wait_at", gate, change.turn, key)
            return State.HELD
    change.put("move", becomes, due if becomes == _SCHEDULED else None, rank, key)
    change.add_ready(queue, (becomes == _QUEUED) - (state == _QUEUED))
    change.walk()
    return State(becomes)
