# SPDX-License-Identifier: MIT
"""Nodes whose end nobody is to see, since they are to run anew.

What such a node ends with is kept in the table ``parked``: a task stays held, an expansion
expanded, and nothing is counted for it. It ends as any does once it is parked no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowq.plan import Kind, Ranges
from flowq.states import State
from flowq.storage.sqlite import limits
from flowq.storage.sqlite.rows import KIND, LIMITED, PARKED, STOPPING_ALL
from flowq.storage.sqlite.statements import SQL

if TYPE_CHECKING:
    from flowq.storage.sqlite.change import Change
    from flowq.storage.sqlite.ends import Ends

__all__ = ["is_over", "is_parked", "keep_end", "may_park", "park", "take_back", "unpark"]

_UNDER_WAY: Final = (State.RUNNING.value, State.EXPANDED.value)

Root = tuple[int, int]
"""Number of a run, and row id of its root."""


def keep_end(
    change: Ends, id: int, run: int, flags: int, state: int, cell: bytes, culprit: int | None
) -> None:
    """Keep what a parked node ends with, if it had not ended."""
    change.move(run)
    change.flush()
    if not change.db.execute(SQL["park_end"], (state, cell, culprit, id)).rowcount:
        return
    if flags & KIND == Kind.TASK:
        change.db.execute(SQL["hold_parked"], (flags, id))
        if flags & LIMITED:
            limits.leave(change, id, run)


def is_over(change: Ends, id: int) -> bool:
    """Whether a parked node has ended."""
    return bool(change.db.execute(SQL["parked"], (id,)).fetchone()[0])


def unpark(change: Ends, id: int, flags: int) -> tuple[int, int]:
    """Let a node end as any; now, if it had ended. Gives its state and flags after that.

    `flags` are those it is to have.
    """
    change.flush()
    flags &= ~PARKED
    _, run, now, _, owner = change.db.execute(SQL["expansion_row"], (id,)).fetchone()
    state, cell, culprit = change.db.execute(SQL["parked"], (id,)).fetchone()
    change.db.execute(SQL["unpark"], (id,))
    change.db.execute(SQL["set_flags"], (flags, id))
    if not state:
        return now, flags
    if flags & KIND == Kind.TASK:
        change.end(id, None, run, flags, owner, (None, None), state, cell)
    else:
        change.end_node(id, run, flags, owner, state, cell, culprit)
    change.flush()
    _, _, state, flags, _ = change.db.execute(SQL["expansion_row"], (id,)).fetchone()
    return state, flags


def take_back(change: Ends, run: int) -> None:
    """Let all nodes of a run end as any, and forget what was asked for."""
    change.db.execute(SQL["ask"], (None, run))
    for (id,) in change.db.execute(SQL["parked_of"], (run,)).fetchall():
        if change.db.execute(SQL["parked"], (id,)).fetchone() is not None:
            change.flush()
            unpark(change, id, change.db.execute(SQL["expansion_row"], (id,)).fetchone()[3])


# --- parking -------------------------------------------------------------------------------------


def _any(change: Ends, statement: str, root: Root, nodes: Ranges) -> bool:
    run, base = root
    spans = [(base + first, base + first + n - 1, run) for first, n in nodes]
    return any(change.db.execute(SQL[statement], span).fetchone() for span in spans)


def is_parked(change: Ends, root: Root, nodes: Ranges) -> bool:
    """Whether all of these nodes are parked."""
    return not _any(change, "not_parked", root, nodes)


def may_park(change: Ends, root: Root, nodes: Ranges) -> bool:
    """Whether all of these nodes are under way, or parked."""
    return not _any(change, "not_under_way", root, nodes)


def park(change: Change, root: Root, request: bytes, nodes: Ranges, stop: Ranges) -> None:
    """Park nodes, and stop some of them."""
    run, base = root
    change.db.execute(SQL["ask"], (request, run))
    cell = change.reason(State.CANCELLED, None, "it stands in")
    for first, n in stop:
        for row in change.rows_of(list(range(base + first, base + first + n))):
            id, _, state, flags, *_ = row
            if state in _UNDER_WAY and not (flags & PARKED and is_over(change, id)):
                change.stop_one(row, cell, STOPPING_ALL)
    change.flush()
    for first, n in nodes:
        span = (base + first, base + first + n - 1, run)
        change.db.execute(SQL["park"], span)
        change.db.execute(SQL["mark_parked"], span)
    change.walk()
