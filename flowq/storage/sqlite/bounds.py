# SPDX-License-Identifier: MIT
"""Expansions of whose body only so many nodes may be under way at a time.

Nothing is queued or marked beyond them: what has no place waits, and ``expansion.after`` says up to
where none does any more, so that the next one is found at once. It only moves on, but where one is
looked at that gets no place, and in a new generation.
Where they go along with others (see along.py),
those that might begin are marked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowq.states import State
from flowq.storage.sqlite.rows import CLOSING, FILLING, PACED, TIED, unpack_ranges
from flowq.storage.sqlite.statements import SQL

if TYPE_CHECKING:
    from flowq.storage.sqlite.ends import Ends

__all__ = ["enter", "fill", "leave", "waits_on"]


def enter(change: Ends, owner: int) -> None:
    """Let a node of a body have a place; there is one, as `waits_on` says."""
    change.rooms[owner] = _room(change, owner) - 1
    change.put("under", 1, owner)


def leave(change: Ends, owner: int) -> None:
    """Give back the place of a node that was under way; those that wait are looked at."""
    change.rooms[owner] = _room(change, owner) + 1
    change.put("under", -1, owner)
    if owner not in change.filling:
        change.filling.add(owner)
        change.push(owner, FILLING, None)


def waits_on(change: Ends, id: int, flags: int, owner: int) -> bool:
    """Whether there is no place for a node that might begin; who leaves one looks at it again."""
    if _room(change, owner) > 0:
        return False
    if flags & PACED:
        change.put("able", change.now, id)
    else:
        change.put("waits_on", id, owner)
    return True


def fill(change: Ends, item: list[Any], limit: int, filled: set[int]) -> list[int]:
    """Give those that may begin now; `filled`: where this was done in this wave already.

    It is asked again till there are none: a join that ends at once takes no place.
    """
    owner = item[0]
    if owner in filled:
        return []
    filled.add(owner)
    ids = _next(change, owner, min(_room(change, owner), limit))
    if not ids:
        change.filling.discard(owner)
    return ids


def _next(change: Ends, owner: int, wanted: int) -> list[int]:
    """Give the first of a body that wait, as many as are wanted, and go on behind them."""
    ids: list[int] = []
    if wanted <= 0:
        return ids
    change.flush()
    db = change.db
    state, flags, turn, marks, after, entries = db.execute(SQL["filling"], (owner,)).fetchone()
    if state != State.EXPANDED or turn or marks & CLOSING:
        return ids
    if flags & TIED:  # which of them may begin does not depend on their order
        ids = [id for (id,) in db.execute(SQL["next_able"], (owner, wanted))]
        db.executemany(SQL["able"], [(None, id) for id in ids])
        return ids
    passed = after
    for first, n in unpack_ranges(entries):
        last = first + n - 1
        if last <= after:
            continue
        span = (max(first, after + 1), last, wanted - len(ids))
        ids += [id for (id,) in db.execute(SQL["next_waiting"], span)]
        passed = ids[-1] if len(ids) == wanted else last
        if len(ids) == wanted:
            break
    if passed > after:
        db.execute(SQL["begun_up_to"], (passed, owner))
    return ids


def _room(change: Ends, owner: int) -> int:
    """Say how many more may begin in an expansion."""
    found = change.rooms.get(owner)
    if found is None:
        found = change.rooms[owner] = change.db.execute(SQL["room"], (owner,)).fetchone()[0]
    return found
