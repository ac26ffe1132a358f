# SPDX-License-Identifier: MIT
"""Nodes that become plans: rows that a run gets while it lasts.

A fragment's rows lie next to each other, apart from those that the run began with; index = id -
run.base holds for all of them. The table ``growth`` says where: row `k` of a fragment is message
``first + k``, and ``first`` itself is taken by nobody but the root of a run that a task alone has
become. A fragment of several pages is uploaded under the delivery of its node, and nobody sees it
before the step that brings its last page.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from flowq.message import split_node
from flowq.outcome import Expand, Outcome
from flowq.plan import INNER, ROOT, Kind, NodeRow, relocate
from flowq.states import State
from flowq.storage.base import SUBMIT_PAGE
from flowq.storage.sqlite import along, limits, timers
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.intake import insert_nodes, open_run
from flowq.storage.sqlite.rows import (
    FOLLOWED,
    KIND,
    LED,
    LIMITED,
    SETTLED,
    TIED,
    TRAILING,
    bodies_of,
    pack_later,
    pack_ranges,
    unpack_later,
)
from flowq.storage.sqlite.statements import SQL

__all__ = ["drop_given_up", "expand", "ids_for", "spans", "upload"]

Changes = Callable[[int], AbstractContextManager[Change]]


def ids_for(outcomes: Sequence[Outcome]) -> int:
    """Say how many rows a step's outcomes may bring with them."""
    return sum(len(x.rows) for x in outcomes if type(x) is Expand)


def upload(changes: Changes, session: str, outcomes: Sequence[Outcome]) -> None:
    """Store fragments but for one page in all, which the step itself brings.

    Nobody sees them yet.
    """
    spare = SUBMIT_PAGE
    for outcome in outcomes:
        if type(outcome) is not Expand:
            continue
        last = min(spare, len(outcome.rows) - 1)
        spare -= last
        done, end = 0, len(outcome.rows) - 1 - last
        while done < end:
            with changes(0 if done else len(outcome.rows)) as change:
                held = _held(change.db, session, outcome)
                place = None if held is None else _place(change, held, outcome)
                if held is None or place is None:
                    break  # the step will say so
                first, run, base, done = place
                if done < end:
                    page = min(SUBMIT_PAGE, end - done)
                    _insert(change, outcome, held, (first, run, base), done, done + page)
                    done += page
                    change.db.execute(SQL["uploaded"], (done, first))


Held = tuple[int, int | None, int]
"""Row id, run and flags of what is expanded."""


def _held(db: sqlite3.Connection, session: str, outcome: Expand) -> Held | None:
    """Give what is expanded, if the session holds that delivery of it."""
    if len(outcome.id) == 16:
        found = db.execute(SQL["held_single"], (outcome.id, session, outcome.delivery)).fetchone()
    else:
        run, index = split_node(outcome.id)
        row = (index, run, session, outcome.delivery)
        found = db.execute(SQL["held_node"], row).fetchone()
    held: Held | None = found
    return held


def _place(change: Change, held: Held, outcome: Expand) -> tuple[int, int, int, int] | None:
    """Give a fragment its place: the id of its row 0, run, base of the run, rows stored already.

    There is none where indexes are used up: so many ids were given since the run began.
    """
    key, run, _ = held
    found = change.db.execute(SQL["growth_of"], (key, outcome.delivery)).fetchone()
    if found is not None:
        first, run, done = found
    else:
        first, done = change.take(len(outcome.rows)), 0
        if run is not None and first + len(outcome.rows) - change.run_of(run)[1] > INNER:
            return None
        if run is None:
            _, message = change.read_body(key)
            assert message is not None  # it was handed out and run
            run = open_run(
                change,
                outcome.id,
                message.task,
                first,
                len(outcome.rows),
                message.result_ttl_ms,
                message.failed_ttl_ms,
            )
        row = (run, first, len(outcome.rows), key, outcome.delivery)
        change.db.execute(SQL["add_growth"], row)
    assert run is not None
    base = first if held[1] is None else change.run_of(run)[1]
    return first, run, base, done


def _insert(
    change: Change,
    outcome: Expand,
    held: Held,
    place: tuple[int, int, int],
    start: int,
    end: int,
) -> None:
    """Insert inner rows of a fragment, numbered from 0."""
    first, run, base = place
    moved = _moved(change, outcome.rows[1 + start : 1 + end], 1 + start, held, place)
    at = _at(held, base)
    bodies = {
        at if index == INNER else first + index - INNER - base: flags
        for index, flags in bodies_of(outcome.rows, INNER, held[2]).items()
    }
    insert_nodes(change, moved, run, base, first + 1 + start - base, bodies)


def _at(held: Held, base: int) -> int:
    """Give the index of what is expanded in its run."""
    return ROOT if held[1] is None else held[0] - base


def _moved(
    change: Change,
    rows: Sequence[NodeRow],
    start: int,
    held: Held,
    place: tuple[int, int, int],
) -> list[NodeRow]:
    first, run, base = place
    uuid = change.run_of(run)[0]
    return relocate(rows, at=_at(held, base), base=first + 1 - base, run=uuid, start=start)


def expand(change: Change, row: tuple[Any, ...], outcome: Expand) -> None:
    """Let a node, or a task alone, become the fragment of its outcome.

    `row` is what the session holds of it: a row of the statement ``holds``.
    """
    key, _, _, run, flags, delivery, attempt, losses, *_ = row
    held = (key, run, flags)
    found = _place(change, held, outcome)
    if found is None:
        _refuse(change, row, outcome)
        return
    first, grown, base, done = found
    place = (first, grown, base)
    (face,) = _moved(change, outcome.rows[:1], 0, held, place)
    _insert(change, outcome, held, place, done, len(outcome.rows) - 1)
    db = change.db
    followed = flags & FOLLOWED
    flags = flags & ~KIND | Kind.EXPANSION | SETTLED | (FOLLOWED if face.later else 0)
    flags |= TIED if face.along else 0
    if run is None:
        # the root takes the id by which the task is known
        db.execute(SQL["root_of"], (first, grown, flags, delivery, attempt, losses, key))
        db.execute(SQL["root_plan"], (first, key, grown))
        db.execute(SQL["drop_message"], (key,))
        db.execute(SQL["drop_plan"], (key,))
        db.execute(SQL["root_known"], (outcome.id, first))
        db.execute(SQL["started_by_run"], (grown, -key))
        db.execute(SQL["drop_growth"], (first,))
        db.execute(SQL["go_live"], (grown,))
        key = first
    else:
        db.execute(SQL["growth_live"], (first,))
        change.move(run)
        db.execute(SQL["expanded"], (flags, key))
    inside, later = pack_ranges(face.body, base), face.later
    if followed:  # what is to follow its own failure stands in it already, and stays last
        own, groups = db.execute(SQL["own_groups"], (key,)).fetchone()
        inside, later = own + (inside or b""), (*later, *unpack_later(groups))
    row = (
        pack_ranges(face.entries, base),
        inside,
        face.value or None,
        face.tolerate,
        pack_later(later),
        key,
    )
    db.execute(SQL["become"], row)
    row = (key, face.inner, face.need, face.most, face.deadline_ms)
    db.execute(SQL["add_expansion"], row)
    if face.deadline_ms:
        timers.set_deadline(change, key)
    if flags & LIMITED and run is not None:
        limits.leave(change, key, run)
    along.tie(change, face.along, base)
    if flags & LED:
        change.push(key, TRAILING + State.SUCCESS, None)
    change.begin(key, enqueued=False)


def _refuse(change: Change, row: tuple[Any, ...], outcome: Expand) -> None:
    """Fail a node for which no indexes are left."""
    key, whole, _, run, flags, _, _, _, owner, keep, failed_keep, _ = row
    _, message = change.read_body(key)
    text = (
        "GraphError('it cannot become a graph any more: since its run began, this store was given "
        f"{INNER:,} tasks and nodes, and a run has no further indexes; start it again')"
    )
    cell = change.failure(outcome.id, message, "error", text, "flowq.errors.GraphError")
    keeps = (keep, failed_keep)
    change.end(key, whole, run, flags | SETTLED, owner, keeps, State.FAILED.value, cell)


def drop_given_up(change: Change, limit: int) -> int:
    """Remove pages of fragments whose nodes are held no more under that delivery."""
    db = change.db
    dropped = 0
    while dropped < limit:
        found = db.execute(SQL["given_up"]).fetchone()
        if found is None:
            break
        first, done = found
        begin = max(0, done - (limit - dropped))
        span = (first + 1 + begin, first + done)
        for statement in ("drop_messages", "drop_plans", "drop_expansions"):
            db.execute(SQL[statement], span)
        dropped += done - begin
        if begin:
            db.execute(SQL["uploaded"], (begin, first))
        else:
            db.execute(SQL["drop_growth"], (first,))
    return dropped


def spans(db: sqlite3.Connection, run: int, base: int, nodes: int) -> list[tuple[int, int]]:
    """Give where a run's rows lie: the first and the last id of each stretch, ascending."""
    found = [(base, base + nodes - 1)]
    for first, count in db.execute(SQL["growth"], (run,)):
        if count > 1:
            found.append((first + 1, first + count - 1))
    return found
