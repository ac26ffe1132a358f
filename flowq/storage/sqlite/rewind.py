# SPDX-License-Identifier: MIT
"""A new generation of a run: which nodes wait again, and what they count.

What is to be done lies in the table ``rewind``; a walk of its own goes through it in stages, a page
at a time, so that whoever comes by goes on after a crash. What would change a node of the run
before all of that is done raises `flowq.storage.sqlite.batch.Rewinding`, and is done after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flowq.plan import ROOT, Kind, Phase, Ranges, ranges_of
from flowq.states import State
from flowq.storage.sqlite import along, limits, parks, timers
from flowq.storage.sqlite.rows import (
    BOUNDED,
    DOOMED,
    FILLING,
    FOLLOWED,
    FORGIVEN,
    KIND,
    LATER,
    LENIENT,
    LIMITED,
    LOST,
    NAMED,
    NEEDED,
    OVERTIME,
    PARKED,
    REWOUND,
    SETTLED,
    SIGNAL,
    STOPPING,
    TIED,
    fails,
    pack_later,
    pack_ranges,
    place_of,
    unpack_later,
    unpack_ranges,
)
from flowq.storage.sqlite.statements import SQL

if TYPE_CHECKING:
    from flowq.storage.sqlite.change import Change

__all__ = ["Stages", "begin", "load", "may_begin", "page"]

_WAITING, _SCHEDULED, _QUEUED, _SUCCESS = (
    State.WAITING.value,
    State.SCHEDULED.value,
    State.QUEUED.value,
    State.SUCCESS.value,
)

Spans = list[tuple[int, int]]
"""Row ids as (first, count) pairs."""


class Stages:
    """What a rewind goes through, one after the other."""

    def __init__(self, chosen: Spans, reopened: Spans, dropped: Spans) -> None:
        self._stages = [
            (_drop, dropped),
            (_renew, chosen),
            (_reopen, reopened),
            (_count_parents, sorted(chosen + reopened)),
            (_count_inside, reopened),
            (_set_deadlines, reopened),
            (_unpark, reopened[:1]),
            (_weigh, sorted(chosen + reopened)),
            (_pass, reopened),
        ]

    def cut(self, position: int, limit: int) -> tuple[Any, list[int], bool]:
        """Give the stage at a position, at most `limit` ids of it, and whether all is done then."""
        last = len(self._stages) - 1
        for k, (stage, spans) in enumerate(self._stages):
            size = sum(n for _, n in spans)
            if position >= size:
                position -= size
                continue
            ids: list[int] = []
            for first, n in spans:
                if position >= n:
                    position -= n
                    continue
                take = min(n - position, limit - len(ids))
                ids.extend(range(first + position, first + position + take))
                if len(ids) == limit:
                    break
                position = 0
            return stage, ids, k == last and ids[-1] == spans[-1][0] + spans[-1][1] - 1
        return _weigh, [], True


def begin(
    change: Change,
    run: int,
    base: int,
    generation: int,
    sets: tuple[Ranges, Ranges, Ranges],
) -> None:
    """Store what is to be done, and open the run."""
    chosen, reopened, dropped = sets
    around = ranges_of([ROOT, *(i for f, n in reopened for i in range(f, f + n))])
    packed = (pack_ranges(r, base) for r in (chosen, around, dropped))
    change.db.execute(SQL["add_rewind"], (run, *packed))
    change.db.execute(SQL["reopen_run"], (run,))
    change.db.execute(SQL["reopen_root"], (generation, base))
    change.moved.add(run)
    change.push(base, REWOUND, None)


def may_begin(change: Change, run: int, base: int, chosen: Ranges, reopened: Ranges) -> bool:
    """Whether a run that goes on is in a state that these sets may be chosen in."""
    asked = [("under_way", chosen), ("cannot_open", ((ROOT, 1), *reopened))]
    return not any(
        change.db.execute(SQL[statement], (base + first, base + first + n - 1, run)).fetchone()
        for statement, ranges in asked
        for first, n in ranges
    )


def load(change: Change, root: int) -> Stages:
    """Read what is to be done."""
    row = change.db.execute(SQL["rewind"], (root,)).fetchone()
    return Stages(*(list(unpack_ranges(raw)) for raw in row))


def page(change: Change, item: list[Any], limit: int, starting: dict[int, int]) -> tuple[int, bool]:
    """Do one page; gives how many nodes that were, and whether all is done."""
    root, _, _, position, stages = item
    stage, ids, whole = stages.cut(position, limit)
    change.flush()
    change.moved.add(change.db.execute(SQL["expansion_row"], (root,)).fetchone()[1])
    weighed = stage(change, ids, root)
    starting.update(dict.fromkeys(weighed or (), change.rank))
    if whole:
        change.db.execute(SQL["drop_rewind"], (root,))
    item[3] = position + len(ids)
    return max(1, len(ids)), whole


# --- stages --------------------------------------------------------------------------------------


def _drop(change: Change, ids: list[int], root: int) -> None:
    """Remove what a task had become that will make it anew."""
    for statement in ("forget_nodes", "forget_plans", "forget_expansions", "forget_losses"):
        change.db.execute(SQL[statement], (json.dumps(ids),))
    change.db.execute(SQL["forget_growth"], (json.dumps(ids),))
    change.db.execute(SQL["forget_along"], (json.dumps(ids),))


def _renew(change: Change, ids: list[int], root: int) -> None:
    """Let nodes wait as before they began."""
    db = change.db
    base = change.run_of(db.execute(SQL["row"], (root,)).fetchone()[1])[1]
    for id, run, state, flags, queue, task, inside, later in _rows(change, "to_renew", ids):
        kind = flags & KIND
        if state == _QUEUED:
            change.add_ready(queue, -1)
            if flags & LIMITED:
                limits.leave(change, id, run)
        elif state == _SCHEDULED and flags & SIGNAL:
            db.execute(SQL["await_no_more"], (id,))
        followed = unpack_later(later)
        if task is not None and kind == Kind.EXPANSION:  # it had become one
            kind = Kind.TASK.value
            own = tuple(group for group in followed if group.phase == Phase.FALLBACK)
            rest = tuple(r for group in own for r in group.body)
            db.execute(SQL["unbecome"], (pack_ranges(rest, base), pack_later(own), id))
            flags &= ~TIED & (-1 if own else ~FOLLOWED)
            db.execute(SQL["forget_expansions"], (json.dumps([id]),))
            db.execute(SQL["forget_growth"], (json.dumps([id]),))
        elif kind == Kind.EXPANSION:
            inner = sum(n for _, n in unpack_ranges(inside)) - sum(g.inner for g in followed)
            db.execute(SQL["renew_expansion"], (inner, 0, 0, 0, None, 0, 0, id))
        flags = flags & ~(KIND | SETTLED | STOPPING | LOST | OVERTIME | PARKED) | kind
        db.execute(SQL["renew_node"], (flags, id))
    db.execute(SQL["forget_parked"], (json.dumps(ids),))
    db.execute(SQL["forget_losses"], (json.dumps(ids),))


def _count_parents(change: Change, ids: list[int], root: int) -> None:
    """Count those parents that have ended and do not run again."""
    db = change.db
    for id, flags, parents, follows in _rows(change, "to_count", ids):
        counts, blame = [0, 0, 0, 0], None
        spans = unpack_ranges(parents)
        if follows is not None:
            counts[0], spans = along.begun(db, parents, follows)
        for first, n in spans:
            span = (first, first + n - 1)
            for state, bits, number, one in db.execute(SQL["ended_parents"], span).fetchall():
                place = place_of(flags, state, bits)
                if bits & LENIENT:  # which of these edges are, their own rows say
                    lenient = _lenient(change, id, span, state, bits)
                    counts[0] += lenient
                    number -= lenient
                counts[place] += number
                if place == 1 and number and blame is None:
                    blame = _blame(change, one, root)
        if any(counts):
            db.execute(SQL["count_child"], (*counts, blame, id))


def _lenient(change: Change, child: int, span: tuple[int, int], state: int, flags: int) -> int:
    found = change.db.execute(SQL["lenient_parents"], (*span, state, flags))
    return sum(
        any(first <= child < first + n for first, n in unpack_ranges(raw)) for (raw,) in found
    )


def _blame(change: Change, id: int, root: int) -> int | None:
    """Give the culprit of a parent that failed or is blocked."""
    state, flags, culprit, inner = change.db.execute(SQL["blame"], (id,)).fetchone()
    if state == State.FAILED and flags & KIND != Kind.EXPANSION:
        return id - root
    found: int | None = inner if state == State.FAILED else culprit
    return id - root if found is None and flags & DOOMED else found


def _reopen(change: Change, ids: list[int], root: int) -> None:
    """Let expansions around have begun, under their next generation.

    Where only so many of their kind may be under way, those that had ended wait for a place; so do
    those in them, which come behind them, and begin with them.
    """
    asking: set[int] = set()
    for id, flags, owner, around in _rows(change, "to_reopen", ids):
        if flags & BOUNDED or owner in asking or around == _WAITING:
            asking.add(id)
    change.db.execute(SQL["reopen"], (json.dumps([id for id in ids if id != root]),))
    change.db.execute(SQL["ask_again"], (json.dumps([*asking]),))
    change.db.execute(SQL["forget_parked"], (json.dumps(ids),))


def _count_inside(change: Change, ids: list[int], root: int) -> None:
    """Count anew what stands in the bodies of expansions around."""
    db = change.db
    for id, inside in _rows(change, "insides", ids):
        counts, blame, won, under = [0, 0, 0, 0], None, 0, 0
        for first, n in unpack_ranges(inside):
            span = (first, first + n - 1, id)
            for state, flags, number, one in db.execute(SQL["inner_states"], span).fetchall():
                if flags & LATER:
                    continue
                if state < _SUCCESS:
                    counts[0] += number
                    under += number if state and flags & BOUNDED else 0
                elif fails(flags, state):
                    counts[1] += number
                    blame = _blame(change, one, root) if blame is None else blame
                elif state == State.CANCELLED and not flags & FORGIVEN:
                    counts[2] += number
                elif state == State.SKIPPED and flags & NAMED:
                    counts[3] += number
                elif state == _SUCCESS and flags & NEEDED:
                    won += number
        db.execute(SQL["renew_expansion"], (*counts, blame, won, under, id))
        change.forget(id)


def _set_deadlines(change: Change, ids: list[int], root: int) -> None:
    """Let times begin: behind all counts, or one that passes would end what is half counted."""
    for (id,) in _rows(change, "expanded_of", ids):
        timers.set_deadline(change, id)


def _unpark(change: Change, ids: list[int], root: int) -> None:
    """Let all else that is parked end as it has, if it has."""
    parks.take_back(change, change.db.execute(SQL["expansion_row"], (root,)).fetchone()[1])


def _weigh(change: Change, ids: list[int], root: int) -> list[int]:
    """Look at what waits; but what stands in something that waits itself begins with that."""
    return [id for (id,) in _rows(change, "begun_around", ids)]


def _pass(change: Change, ids: list[int], root: int) -> None:
    """Let expansions around go on in which nothing is unfinished, or there is room."""
    for id in ids:
        change.owners.setdefault(id, [0, 0, 0, 0, None])
    for (id,) in _rows(change, "bounded", ids):
        change.push(id, FILLING, None)


def _rows(change: Change, statement: str, ids: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    yield from change.db.execute(SQL[statement], (json.dumps(ids),)).fetchall()
