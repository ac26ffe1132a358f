# SPDX-License-Identifier: MIT
"""Limits: so many of those nodes that name one key may be queued or running at a time.

A key has a row in ``gate`` while somebody is under it, and each node that is queued or running has
one in ``place``. What finds no room is held, and waits at the first gate that has none. Whoever
leaves a place lets a walk go through those that wait there, in their order.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flowq.message import node_id, split_node
from flowq.storage.base import Places
from flowq.storage.sqlite.rows import ENTERING, unpack_limits
from flowq.storage.sqlite.statements import SQL

if TYPE_CHECKING:
    from flowq.storage.sqlite.change import Change
    from flowq.storage.sqlite.ends import Ends

__all__ = ["Gate", "close", "full", "leave", "let_in", "places"]

_SHOWN: Final = 100
"""Ids of nodes with a place that are shown at most."""


@dataclass(slots=True)
class Gate:
    """One limit, as far as a transaction knows it."""

    id: int
    taken: int
    left: bool = False
    """Whether nobody may be under it any more: it is new, or somebody has left it."""
    walked: bool = False
    """Whether a walk to those that wait there is kept already."""


def full(change: Ends, id: int, run: int) -> int | None:
    """Let a node have a place at each of its limits; or give the first that has none, and no more.

    It has none of them yet.
    """
    raw = change.db.execute(SQL["limits"], (id,)).fetchone()[0]
    gates = [(_gate(change, run, key), most) for key, most in unpack_limits(raw)]
    for gate, most in gates:
        if gate.taken >= most:
            return gate.id
    for gate, _ in gates:
        gate.taken += change.db.execute(SQL["take_place"], (gate.id, id)).rowcount
    return None


def leave(change: Ends, id: int, run: int) -> None:
    """Let others have the places of a node that is queued or running no more, if it had them."""
    raw = change.db.execute(SQL["limits"], (id,)).fetchone()[0]
    for key, _ in unpack_limits(raw):
        gate = _known_gate(change, run, key)
        if gate is None or not change.db.execute(SQL["leave_place"], (gate.id, id)).rowcount:
            continue
        gate.taken -= 1
        gate.left = True
        if not gate.walked:
            gate.walked = True
            change.push(id, ENTERING, gate.id)


def let_in(change: Change, item: list[Any], limit: int) -> tuple[int, bool]:
    """Try a page of those again that wait at a limit; gives how many, and whether that was all."""
    change.flush()
    found = change.db.execute(SQL["gate_of"], (item[2],)).fetchone()
    if found is None:
        return 0, True
    number, key = found
    gate = _gate(change, number, key)
    gate.walked = gate.left = True
    rows = change.db.execute(SQL["waiters"], (gate.id, limit)).fetchall()
    for tried, (id, run, queue, raw) in enumerate(rows):
        if gate.taken >= dict(unpack_limits(raw))[key]:
            gate.walked = False
            return tried, True
        other = full(change, id, run)
        change.moved.add(run)
        if other is None:
            change.put("free", change.front, id)
            change.add_ready(queue)
        else:
            change.put("wait_at", other, change.turn, id)
    gate.walked = len(rows) == limit
    return len(rows), not gate.walked


def close(change: Ends) -> None:
    """Forget those that nobody is under any more."""
    for gate in change.gates.values():
        if gate.left and not gate.taken:
            change.put("drop_gate", gate.id)


def _gate(change: Ends, run: int, key: str) -> Gate:
    """Give the limit of a key, of the run or of the whole store."""
    gate = _known_gate(change, run, key)
    if gate is None:
        scope = _scope(run, key)
        made: int = change.db.execute(SQL["add_gate"], scope).fetchall()[0][0]
        gate = change.gates[scope] = Gate(made, 0, left=True)
    return gate


def _known_gate(change: Ends, run: int, key: str) -> Gate | None:
    """Give the same if somebody is under it."""
    scope = _scope(run, key)
    gate = change.gates.get(scope)
    if gate is None:
        found = change.db.execute(SQL["gate"], scope).fetchone()
        gate = None if found is None else Gate(*found)
        if gate is not None:
            change.gates[scope] = gate
    return gate


def _scope(run: int, key: str) -> tuple[int, str]:
    return run if key[:1] == "/" else 0, key


def places(db: sqlite3.Connection, now: int, id: bytes) -> list[Places]:
    """Describe the limits of a node."""
    if len(id) == 16:
        return []
    whole, index = split_node(id)
    row = db.execute(SQL["limits_of"], (index, whole, now)).fetchone()
    given = []
    for key, most in unpack_limits(row[1]) if row else ():
        found = db.execute(SQL["gate"], (row[0] if key[:1] == "/" else 0, key)).fetchone()
        gate, taken = found or (0, 0)
        there = db.execute(SQL["holders"], (gate, _SHOWN))
        ids = sorted(node_id(uuid, i) for _, uuid, i in there)
        waiting = db.execute(SQL["waiting_at"], (gate,)).fetchone()[0]
        given.append(Places(key, most, taken, ids, waiting))
    return given
