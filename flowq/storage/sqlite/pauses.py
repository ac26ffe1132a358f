# SPDX-License-Identifier: MIT
"""Runs that are paused: what would be handed out of them is held, until they go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowq.storage.sqlite import limits
from flowq.storage.sqlite.known import Row
from flowq.storage.sqlite.rows import FREEING, LIMITED
from flowq.storage.sqlite.statements import SQL

if TYPE_CHECKING:
    from flowq.storage.sqlite.change import Change

__all__ = ["any_of", "free", "go_on", "hold"]


def any_of(change: Change, rows: Sequence[Row]) -> bool:
    """Whether one of what might be handed out is of a run that is paused."""
    return bool(_paused(change, rows))


def hold(change: Change, rows: Sequence[Row], want: int) -> None:
    """Hold what is of paused runs and comes before so many others; `rows` are in order."""
    paused = _paused(change, rows)
    for row in rows:
        if row[9] in paused:
            change.put("hold", row[3])
            if row[5] & LIMITED:
                limits.leave(change, row[3], row[9])
            change.add_ready(row[6], -1)
            change.move(row[9])
        elif want > 1:
            want -= 1
        else:
            break


def _paused(change: Change, rows: Sequence[Row]) -> set[int]:
    runs = json.dumps(sorted({row[9] for row in rows if row[9] is not None}))
    return {id for (id,) in change.db.execute(SQL["paused"], (runs,))}


def go_on(change: Change, run: int, root: int) -> None:
    """Let a run go on, if it is paused."""
    if change.db.execute(SQL["go_on"], (run,)).rowcount:
        change.push(root, FREEING, None)


def free(change: Change, item: list[Any], limit: int) -> tuple[int, bool]:
    """Queue a page of what is held of a run; gives how many, and whether those were all."""
    root = item[0]
    change.flush()
    run = change.db.execute(SQL["expansion_row"], (root,)).fetchone()[1]
    if change.db.execute(SQL["paused"], (json.dumps([run]),)).fetchone():
        return 0, True  # it was paused again, before all of it went on
    change.moved.add(run)
    rows = change.db.execute(SQL["held_of"], (run, limit)).fetchall()
    for id, flags, queue in rows:
        if flags & LIMITED and (gate := limits.full(change, id, run)) is not None:
            change.put("wait_at", gate, change.turn, id)
            continue
        change.put("free", change.front, id)
        change.add_ready(queue)
    return len(rows), len(rows) < limit
