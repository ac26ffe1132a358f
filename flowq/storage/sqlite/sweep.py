# SPDX-License-Identifier: MIT
"""Housekeeping."""

from __future__ import annotations

import json

from flowq.storage.base import Swept
from flowq.storage.sqlite import settling
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.growth import drop_given_up
from flowq.storage.sqlite.statements import SQL

__all__ = ["sweep"]


def sweep(change: Change, limit: int) -> Swept:
    """Do a bounded part of the housekeeping."""
    db = change.db
    continued = change.resume()
    change.walk()

    late = db.execute(SQL["expired"], (change.now, limit)).fetchall()
    for row in late:
        settling.fail_expired(change, row[:11], row[11])
    change.walk()
    change.flush()

    gone = db.execute(SQL["forgotten"], (change.now, limit)).fetchall()
    for id, _ in gone:
        change.put("drop_message", id)
        change.put("drop_plan", id)
        change.put("drop_losses", id)
    if gone:
        db.execute(SQL["drop_started"], (json.dumps([-id for id, _ in gone]),))
    dropped = _drop_runs(change, max(0, limit - len(gone)))
    dropped += drop_given_up(change, max(0, limit - len(gone) - dropped))
    letters = db.execute(SQL["drop_dead"], (change.now, limit)).rowcount
    results = db.execute(SQL["drop_cache"], (change.now, limit)).rowcount
    n = len(late) + len(gone) + dropped + letters + results
    return Swept(n, continued, n >= limit or continued > 0)


def _drop_runs(change: Change, limit: int) -> int:
    """Remove the rows of runs that expired, from the last on, at most `limit` of them."""
    db = change.db
    dropped = 0
    while dropped < limit:
        found = db.execute(SQL["forgotten_runs"], (change.now,)).fetchone()
        if found is None:
            break
        run, base, nodes, _ = found
        db.execute(SQL["abandon"], (run,))  # from here on nobody sees it
        dropped += db.execute(SQL["drop_dead_of"], (run, limit - dropped)).rowcount
        dropped += db.execute(SQL["drop_started_of"], (run, limit - dropped)).rowcount
        dropped += db.execute(SQL["drop_sent_of"], (run, limit - dropped)).rowcount
        if dropped == limit:
            break
        grown = db.execute(SQL["last_growth"], (run,)).fetchone()
        if grown is not None:
            begin, end = grown[0] + 1, grown[0] + grown[1] - 1
        else:
            begin, end = base, base + nodes - 1
        last = db.execute(SQL["last_row"], (begin, end)).fetchone()[0]
        first = begin if last is None else max(begin, last - (limit - dropped) + 1)
        if last is not None:
            span = (first, last)
            for statement in ("drop_messages", "drop_plans", "drop_expansions"):
                db.execute(SQL[statement], span)
            db.execute(SQL["drop_all_losses"], span)
            change.drop_walks(*span)
            db.execute(SQL["drop_along"], span)
            dropped += last - first + 1
        if first == begin:
            if grown is None:
                db.execute(SQL["drop_gates_of"], (run,))
            gone = ("drop_run", run) if grown is None else ("drop_growth", grown[0])
            db.execute(SQL[gone[0]], (gone[1],))
    return dropped
