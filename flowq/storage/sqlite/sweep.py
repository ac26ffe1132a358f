# SPDX-License-Identifier: MIT
"""Housekeeping, and the self-check of counts."""

from __future__ import annotations

import sqlite3
from collections import Counter

from flowq.states import State
from flowq.storage.base import Swept
from flowq.storage.sqlite import settling
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.growth import spans
from flowq.storage.sqlite.rows import FORGIVEN, NAMED, unpack_ranges
from flowq.storage.sqlite.statements import SQL

__all__ = ["check", "sweep"]

_FAILED = (State.FAILED, State.BLOCKED)


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
    dropped = _drop_runs(change, max(0, limit - len(gone)))
    letters = db.execute(SQL["drop_dead"], (change.now, limit)).rowcount
    n = len(late) + len(gone) + dropped + letters
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
            db.execute(SQL["drop_walks"], span)
            dropped += last - first + 1
        if first == begin:
            gone = ("drop_run", run) if grown is None else ("drop_growth", grown[0])
            db.execute(SQL[gone[0]], (gone[1],))
    return dropped


def check(db: sqlite3.Connection, now: int, run: bytes) -> list[str]:
    """Compare a run's stored counts with its nodes' states."""
    found = db.execute(SQL["run"], (run, now)).fetchone()
    if found is None:
        return ["the run is not known"]
    _, _, root, _, ended, own, _, base, number, nodes = found
    stretches = spans(db, number, base, own)
    if any(db.execute(SQL["check_walks"], span).fetchone()[0] for span in stretches):
        return []  # ends whose edges are not all counted: nothing can be said yet
    wrong: list[str] = []
    states: dict[int, int] = {}
    unfinished: Counter[int] = Counter()
    failures: Counter[int] = Counter()
    cancels: Counter[int] = Counter()
    skips: Counter[int] = Counter()
    rows = [row for span in stretches for row in db.execute(SQL["check"], (number, *span))]
    if len(rows) != nodes:
        wrong.append(f"{len(rows)} of {nodes} nodes are stored")
    for id, state, flags, owner, *_ in rows:
        states[id] = state
        if owner is None:
            continue
        unfinished[owner] += state < State.SUCCESS
        if not flags & FORGIVEN:
            failures[owner] += state in _FAILED
            cancels[owner] += state == State.CANCELLED
        if flags & NAMED:
            skips[owner] += state == State.SKIPPED
    # what ended with an expansion that never began was counted around it, not along its edges
    unbegun = {row[0] for row in rows if row[9] is None and row[1] >= State.SUCCESS}
    for id, _, _, owner, n, ok, bad, skipped, cancelled, _, parents in rows:
        if owner in unbegun:
            continue
        ends = Counter(
            states[p]
            for first, count in unpack_ranges(parents)
            for p in range(first, first + count)
        )
        true = (
            ends[State.SUCCESS],
            ends[State.FAILED] + ends[State.BLOCKED],
            ends[State.SKIPPED],
            ends[State.CANCELLED],
        )
        if true != (ok, bad, skipped, cancelled):
            wrong.append(
                f"node {id - base} counts {(ok, bad, skipped, cancelled)} of its {n} parents, "
                f"their states say {true}"
            )
    expansions = (row for s in stretches for row in db.execute(SQL["check_expansions"], s))
    for id, *stored in expansions:
        true_counts = [unfinished[id], failures[id], cancels[id], skips[id]]
        if stored != true_counts:
            wrong.append(
                f"expansion {id - base} counts {stored}, its nodes' states say {true_counts}"
            )
    if (root >= State.SUCCESS) != bool(ended):
        wrong.append(f"the root is {State(root).label}, the run's end is {ended}")
    return wrong
