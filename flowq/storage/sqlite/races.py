# SPDX-License-Identifier: MIT
"""Joins, and what is not wanted any more once enough has succeeded.

A race is decided when its join passes: what it owns loses, a page at a time. An expansion with a
need has enough once so many of its body succeeded; each end in such a body is looked at in its
turn, so that of those that one step settles the first ones win.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowq.message import EMPTY, HEAD, TEMPLATE, Ref, encode_template, pack_cell
from flowq.states import State
from flowq.storage.sqlite import bounds, phases, signals
from flowq.storage.sqlite.rows import (
    ANY_QUEUE,
    BOUNDED,
    LOSING,
    LOST,
    NEEDED,
    RACE,
    SIGNAL,
    SLEEPS,
    unpack_ranges,
)
from flowq.storage.sqlite.statements import SQL

if TYPE_CHECKING:
    from flowq.storage.sqlite.ends import Ends

__all__ = ["count_win", "is_not_wanted", "lost", "owned", "start_join", "wake"]

_SCHEDULED, _SUCCESS, _SKIPPED = (
    State.SCHEDULED.value,
    State.SUCCESS.value,
    State.SKIPPED.value,
)
_WHY: Final = b"lost"


# --- what is not wanted --------------------------------------------------------------------------


def is_not_wanted(change: Ends, flags: int, owner: int | None) -> bool:
    """Whether a node ends skipped, however it ends."""
    if flags & LOST:
        return True
    return owner is not None and flags & NEEDED > 0 and _lacks(change, owner) <= 0


def lost(cell: bytes, now: int) -> bytes:
    """Give the cell of what is not wanted, in the place of one to which it came."""
    _, delivery, started, _ = HEAD.unpack_from(cell)
    return pack_cell(_SKIPPED, _WHY, delivery=delivery, started_ms=started, ended_ms=now)


def count_win(change: Ends, id: int, flags: int, owner: int) -> None:
    """Count a success in an expansion that needs some; the last of those stops the rest."""
    lacks = change.lacking[owner] = _lacks(change, owner) - 1
    change.put("won", owner)
    if not lacks:
        phases.close_around(change, id, flags, owner)


def _lacks(change: Ends, owner: int) -> int:
    """Say how many successes an expansion lacks."""
    found = change.lacking.get(owner)
    if found is None:
        found = change.lacking[owner] = change.db.execute(SQL["lacks"], (owner,)).fetchone()[0]
    return found


def owned(change: Ends, race: int) -> list[tuple[int, int]]:
    """Give the nodes that a race owns."""
    return list(unpack_ranges(change.db.execute(SQL["owned"], (race,)).fetchone()[0]))


# --- joins ---------------------------------------------------------------------------------------


def start_join(change: Ends, id: int, run: int, flags: int, owner: int | None, rank: int) -> None:
    """Let a join end whose rule says so, or sleep first, or wait for what is sent."""
    if flags & SIGNAL and (found := signals.kept(change, id, run)) is not None:
        change.put("set_ready", change.now, id)
        cell = pack_cell(_SUCCESS, found, ended_ms=change.now)
        change.end_node(id, run, flags, owner, _SUCCESS, cell, None, began=False)
        return
    if flags & (SLEEPS | SIGNAL):
        wait = change.db.execute(SQL["sleep"], (id,)).fetchone()[0]
        due = None if wait is None else change.now + wait
        change.put("start", _SCHEDULED, rank, change.now, due, None, None, id)
        if due is not None:
            change.later.add(ANY_QUEUE)
        if flags & BOUNDED and owner is not None:
            bounds.enter(change, owner)
        return
    change.put("set_ready", change.now, id)
    _pass(change, id, run, flags, owner, began=False)


def wake(change: Ends, id: int) -> None:
    """Let a join end that has slept, or waited, long enough."""
    _, run, _, flags, owner = change.db.execute(SQL["expansion_row"], (id,)).fetchone()
    if flags & SIGNAL:
        signals.time_out(change, id, run, flags, owner)
    else:
        _pass(change, id, run, flags, owner)


def _pass(
    change: Ends, id: int, run: int, flags: int, owner: int | None, *, began: bool = True
) -> None:
    """End a join as a success; if it is a race, what it owns has lost."""
    winner = _winner(change, id) if flags & RACE else None
    if winner is None:
        cell = pack_cell(_SUCCESS, b"", flags=EMPTY, ended_ms=change.now)
    else:
        value = encode_template(Ref(winner - change.run_of(run)[1]))
        cell = pack_cell(_SUCCESS, value, flags=TEMPLATE, ended_ms=change.now)
    change.end_node(id, run, flags, owner, _SUCCESS, cell, None, began=began)
    if flags & RACE:
        change.push(id, LOSING, None)


def _winner(change: Ends, race: int) -> int | None:
    """Give the first parent of a race that succeeded."""
    change.flush()
    for first, n in unpack_ranges(change.db.execute(SQL["parents"], (race,)).fetchone()[0]):
        found = change.db.execute(SQL["winner"], (first, first + n - 1)).fetchone()
        if found is not None:
            id: int = found[0]
            return id
    return None
