# SPDX-License-Identifier: MIT
"""Turns in an expansion: its body's, then those of the groups that run after it; and its stop.

Of an expansion it is always one set of nodes whose turn it is: those of its body, or those of one
group of ``plan.later``. They alone are counted in its row. Which group's turn it is stands in
``expansion.turn``; how many of it have ended before is read from their rows when the turn begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flowq.plan import Kind, Later, Phase, When
from flowq.states import State, outcome_of
from flowq.storage.sqlite import limits
from flowq.storage.sqlite.rows import (
    BEGUN,
    CLOSING,
    FILLING,
    FOLLOWED,
    KIND,
    LATER,
    LED,
    LIMITED,
    OVERDUE,
    OVERTAKEN,
    STOPPED,
    STOPPING_ALL,
    TOUCHED,
    TRAILING,
    TURN,
    UNCALLED,
    forbidden,
    unpack_later,
    unpack_ranges,
)
from flowq.storage.sqlite.statements import SQL

if TYPE_CHECKING:
    from flowq.storage.sqlite.ends import Ends
    from flowq.storage.sqlite.known import Row

__all__ = [
    "Expansion",
    "cancel_inwards",
    "close_around",
    "closed",
    "end_turn",
    "fall_back",
    "is_in_turn",
    "load_inside",
    "may_start",
    "pass_deadline",
]

_WANTED: Final = {State.SUCCESS: When.SUCCESS, State.FAILED: When.FAILED}
_EXPANDED: Final = State.EXPANDED.value
_NOTHING: Final[tuple[Later, ...]] = ()


@dataclass(slots=True)
class Expansion:
    """An expansion whose turn is over."""

    id: int
    run: int
    flags: int
    owner: int | None
    culprit: int | None
    turn: int
    marks: int
    outcome: int | None
    need: int = 0
    won: int = 0
    due: int | None = None


@dataclass(slots=True)
class Standing:
    """Where an expansion stands."""

    base: int
    state: int
    turn: int
    marks: int
    later: tuple[Later, ...]

    @property
    def phase(self) -> int:
        """The phase of those whose turn it is."""
        return self.later[self.turn - 1].phase if self.turn else Phase.BODY

    def turn_of(self, id: int) -> int:
        """Say when a node of a later phase has its turn."""
        index = id - self.base
        for turn, group in enumerate(self.later, 1):
            if any(first <= index < first + n for first, n in group.body):
                return turn
        return 0


def _standing(change: Ends, id: int) -> Standing | None:
    """Read where an expansion stands; None for a task."""
    row = change.db.execute(SQL["standing"], (id,)).fetchone()
    if row is None:
        return None
    run, state, turn, marks, later = row
    return Standing(change.run_of(run)[1], state, turn, marks, unpack_later(later))


# --- whose turn it is ----------------------------------------------------------------------------


def is_in_turn(change: Ends, id: int, owner: int) -> bool:
    """Whether it is the turn of a node of a later phase."""
    around = _standing(change, owner)
    return around is not None and around.turn_of(id) == around.turn


def may_start(change: Ends, id: int, owner: int) -> bool:
    """Whether a node of a later phase may be weighed: in its turn, or before it, as an alarm."""
    change.flush()
    around = _standing(change, owner)
    if around is None or around.state != _EXPANDED:
        return False
    turn = around.turn_of(id)
    if turn == around.turn:
        return not around.marks & CLOSING
    group = around.later[turn - 1]
    alarm = group.phase == Phase.HANDLERS and group.when == When.ALWAYS
    return alarm and turn > around.turn and not around.marks & forbidden(Phase.HANDLERS)


def load_inside(change: Ends, item: list[Any]) -> None:
    """Say which nodes inside an expansion are walked."""
    id, what, more, position, _ = item
    run, *packed, later, unfinished, most = change.db.execute(SQL["body_of"], (id,)).fetchone()
    if what in (TURN, UNCALLED) or (what == STOPPING_ALL and more):
        base = change.run_of(run)[1]
        item[4] = [(base + first, n) for first, n in unpack_later(later)[more - 1].body]
        return
    entries, inside = (list(unpack_ranges(raw)) for raw in packed)
    if what == BEGUN and not position:
        own = sum(n for _, n in inside) - sum(group.inner for group in unpack_later(later))
        if unfinished < own:
            item[1] = TOUCHED
    if item[1] == BEGUN and most:
        item[1] = FILLING
        return
    item[4] = entries if item[1] == BEGUN else inside


# --- one turn after the other --------------------------------------------------------------------


def end_turn(change: Ends, x: Expansion, failures: int, cancels: int, skips: int) -> None:
    """Go on after the last of those whose turn it was: to the next group, or to the end."""
    tolerate, later = 0, _NOTHING
    if x.flags & FOLLOWED or failures:
        tolerate, raw = change.db.execute(SQL["follows"], (x.id,)).fetchone()
        later = unpack_later(raw)
    outcome = None if x.outcome is None else State(x.outcome)
    value: bytes | None = None
    if not x.turn:
        if x.due is not None:
            change.db.execute(SQL["drop_deadline"], (x.id,))
        stopped = bool(x.marks & STOPPED)
        met = x.won >= x.need if x.need else None
        outcome = outcome_of(failures, cancels, skips, tolerate=tolerate, stopped=stopped, met=met)
        overdue = x.marks & OVERDUE and not stopped
        if overdue:
            outcome = State.FAILED
        if overdue or (outcome == State.FAILED and x.culprit is None):  # it lacks what it needs
            x.culprit = x.id - change.run_of(x.run)[1]
            change.db.execute(SQL["blame_itself"], (x.culprit, x.id))
        if outcome == State.FAILED and later:
            change.keep_failure(x)
    elif _takes_over(x.marks, later[x.turn - 1]):
        outcome, value = outcome_of(failures, cancels, skips), later[x.turn - 1].value
    assert outcome is not None
    _go_on(change, x, later, outcome, value)


def _takes_over(marks: int, group: Later) -> bool:
    """Whether what a group came to is what the expansion comes to."""
    return group.phase == Phase.FALLBACK and not marks & forbidden(Phase.FALLBACK)


def _go_on(
    change: Ends, x: Expansion, later: tuple[Later, ...], outcome: State, value: bytes | None
) -> None:
    """Let the next group begin whose turn it is, or end the expansion."""
    x.marks &= ~CLOSING
    change.closing.discard(x.id)
    for turn in range(x.turn + 1, len(later) + 1):
        group = later[turn - 1]
        unfinished, begun, *counts = _count_group(change, x.run, group)
        called = group.when in (When.ALWAYS, _WANTED.get(outcome))
        allowed = not x.marks & forbidden(group.phase)
        if not (called and allowed) and not begun:
            change.push(x.id, UNCALLED, turn)
            continue
        marks = x.marks if called and allowed else x.marks | CLOSING
        row = (turn, unfinished, *counts, marks, outcome, x.id)
        change.db.execute(SQL["next_turn"], row)
        if marks & CLOSING:  # an alarm runs that is not wanted any more
            _stop_all(change, x.id, turn)
        else:
            change.push(x.id, TURN, turn)
        if unfinished:
            return
        if _takes_over(x.marks, group):
            outcome, value = outcome_of(*counts), group.value
    change.end_expansion(x, outcome, value)


def _count_group(change: Ends, run: int, group: Later) -> list[int]:
    """Count a group's nodes that are unfinished, begun, and that ended before their turn."""
    change.flush()
    base = change.run_of(run)[1]
    counts = [0] * 5
    for first, n in group.body:
        span = (base + first, base + first + n - 1)
        for i, more in enumerate(change.db.execute(SQL["group"], span).fetchone()):
            counts[i] += more
    return counts


def fall_back(change: Ends, id: int, run: int, flags: int, owner: int | None, cell: bytes) -> bool:
    """Let what is to follow a task's failure begin; False if what it stands in is closing."""
    if owner is not None and _is_closing(change, id, flags, owner):
        return False
    change.flush()
    flags = flags & ~KIND | Kind.EXPANSION
    change.move(run)
    change.db.execute(SQL["fell_back"], (flags, cell, id))
    culprit = id - change.run_of(run)[1]
    change.db.execute(SQL["add_fallen"], (id, culprit))
    if flags & LIMITED:
        limits.leave(change, id, run)
    if flags & LED:
        change.push(id, TRAILING + State.SUCCESS, None)
    later = unpack_later(change.db.execute(SQL["follows"], (id,)).fetchone()[1])
    _go_on(change, Expansion(id, run, flags, owner, culprit, 0, 0, None), later, State.FAILED, None)
    return True


# --- stopping ------------------------------------------------------------------------------------


def _is_closing(change: Ends, id: int, flags: int, owner: int) -> bool:
    around = _standing(change, owner)
    if around is None or not around.marks & CLOSING:
        return False
    return around.turn == (around.turn_of(id) if flags & LATER else 0)


def closed(change: Ends, rows: list[Row]) -> list[int]:
    """Give those of what may be handed out that stand, however deep, in what is closing."""
    db = change.db
    found: dict[tuple[int, int], bool] = {}

    def shut(id: int, flags: int, owner: int | None) -> bool:
        if owner is None:
            return False
        key = (owner, id if flags & LATER else 0)
        if key not in found:
            around = _standing(change, owner)
            told = around is not None and around.marks & forbidden(Phase.FALLBACK)
            found[key] = _is_closing(change, id, flags, owner)
            if not (found[key] or told):  # one that was told runs what may run after a cancel
                found[key] = shut(owner, *db.execute(SQL["expansion_row"], (owner,)).fetchone()[3:])
        return found[key]

    return [row[3] for row in rows if row[9] is not None and shut(row[3], row[5], row[13])]


def close_around(change: Ends, id: int, flags: int, owner: int) -> None:
    """Let a failure stop all else whose turn it is in the expansion around it."""
    if flags & LATER and not is_in_turn(change, id, owner):
        return
    found = change.db.execute(SQL["close_off"], (owner,)).fetchall()
    if found:  # else it is closing already
        _stop_all(change, owner, found[0][0])


def _stop_all(change: Ends, id: int, turn: int) -> None:
    change.closing.add(id)
    change.push(id, STOPPING_ALL, turn)


def pass_deadline(change: Ends, id: int) -> None:
    """Stop an expansion whose time is up, if its body still runs."""
    change.move(change.db.execute(SQL["expansion_row"], (id,)).fetchone()[1])
    change.db.execute(SQL["drop_deadline"], (id,))
    x = _standing(change, id)
    if x is None or x.state != _EXPANDED or x.turn or x.marks & STOPPED:
        return
    change.db.execute(SQL["set_marks"], (x.marks | OVERDUE | CLOSING, id))
    change.closing.add(id)
    change.push(id, OVERTAKEN, 0)


def cancel_inwards(change: Ends, id: int, *, force: bool = False, how: int = STOPPING_ALL) -> None:
    """Cancel an expansion that has begun.

    `how`: the walk by which its body is stopped, `OVERTAKEN` if something around it is overdue.
    """
    x = _standing(change, id)
    if x is None or x.state != _EXPANDED:
        return
    x.marks |= forbidden(Phase.FALLBACK)
    if force:
        x.marks |= forbidden(Phase.FINALLY)
    closes = x.phase != Phase.FINALLY or force
    if x.phase == Phase.BODY:
        x.marks |= STOPPED | CLOSING
    elif closes:
        x.marks |= forbidden(Phase.HANDLERS) | CLOSING
    change.db.execute(SQL["set_marks"], (x.marks, id))
    if closes:
        change.closing.add(id)
        change.push(id, how if x.phase == Phase.BODY else STOPPING_ALL, x.turn)
