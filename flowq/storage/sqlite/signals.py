# SPDX-License-Identifier: MIT
"""What is sent to runs, and joins that wait for it.

Those that wait stand in the table ``awaiting`` too, so that the one that has waited longest is
found without looking through its run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowq.message import pack_cell
from flowq.states import State
from flowq.storage.base import Send, Sent
from flowq.storage.sqlite import timers
from flowq.storage.sqlite.statements import SQL

if TYPE_CHECKING:
    from flowq.storage.sqlite.change import Change
    from flowq.storage.sqlite.ends import Ends

__all__ = ["kept", "send", "time_out"]

_SUCCESS, _FAILED = State.SUCCESS.value, State.FAILED.value


def send(change: Change, run: bytes, sent: Sent, body: bytes) -> Send | None:
    """Give something to the join that has waited longest for it, or keep it for one."""
    db = change.db
    row = db.execute(SQL["root_of_run"], (run, change.now)).fetchone()
    if row is None:
        return None
    number, _, state, _ = row
    change.move(number)
    if sent.key and db.execute(SQL["sent_with"], (number, sent.key)).fetchone():
        return "repeated"
    if state >= _SUCCESS:
        return "ended"
    found = db.execute(SQL["taker"], (number, sent.name, sent.to)).fetchone()
    taker = None if found is None else found[0]
    told = (sent.name, sent.to, sent.key, sent.who, sent.at_ms)
    db.execute(SQL["add_sent"], (number, *told, taker, body))
    if taker is None:
        return "kept"
    _, _, _, flags, owner = db.execute(SQL["expansion_row"], (taker,)).fetchone()
    cell = pack_cell(_SUCCESS, body, ended_ms=change.now)
    change.end_node(taker, number, flags, owner, _SUCCESS, cell, None)
    change.walk()
    return "taken"


def kept(change: Ends, id: int, run: int) -> bytes | None:
    """Take the first of what was sent for a join; if there is nothing, it waits from now on."""
    db = change.db
    name, signal, _ = db.execute(SQL["awaited"], (id,)).fetchone()
    found = db.execute(SQL["kept"], (run, signal, name)).fetchone()
    if found is None:
        db.execute(SQL["await"], (id, run, signal, change.now))
        return None
    number, body = found
    db.execute(SQL["take"], (id, number))
    taken: bytes = body
    return taken


def time_out(change: Ends, id: int, run: int, flags: int, owner: int | None) -> None:
    """End a join that has waited long enough for what nobody sent."""
    _, signal, value = change.db.execute(SQL["awaited"], (id,)).fetchone()
    if value:
        cell = pack_cell(_SUCCESS, value, ended_ms=change.now)
        change.end_node(id, run, flags, owner, _SUCCESS, cell, None)
        return
    text = f"WaitTimeout('nobody sent {signal} in time')"
    cell = timers.failed(change, id, run, "timeout", text)
    change.end_node(id, run, flags, owner, _FAILED, cell, id - change.run_of(run)[1])
