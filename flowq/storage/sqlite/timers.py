# SPDX-License-Identifier: MIT
"""What happens by the clock alone: deadlines of expansions, and joins that are due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from flowq.errors import Failure
from flowq.message import HEAD, id_text, pack_cell
from flowq.states import State
from flowq.storage.sqlite import phases, races
from flowq.storage.sqlite.rows import ANY_QUEUE
from flowq.storage.sqlite.statements import SQL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowq.storage.sqlite.change import Change
    from flowq.storage.sqlite.ends import Ends

__all__ = ["failed", "overdue", "ring", "set_deadline"]

_LATE: Final = "DeadlineExceeded('its deadline has passed')"
_encode = msgspec.msgpack.Encoder().encode


def set_deadline(change: Ends, id: int) -> None:
    """Let the time of an expansion begin that may have a deadline."""
    if change.db.execute(SQL["set_deadline"], (change.now, id)).rowcount:
        change.later.add(ANY_QUEUE)


def ring(change: Change, due: Sequence[tuple[int, int, bool]]) -> None:
    """Do what is due: when, what, and whether that is a deadline; the first first."""
    for _, id, deadline in due:
        if deadline:
            phases.pass_deadline(change, id)
        else:
            races.wake(change, id)
        change.walk(0)  # what ended by that has its outcome before its deadline is looked at


def overdue(change: Ends, id: int, run: int, ran: bytes | None = None) -> bytes:
    """Give the cell of an expansion whose deadline passed, or of a body that ran then.

    `ran`: the cell to which the body came; its times are kept.
    """
    return failed(change, id, run, "deadline", _LATE, ran)


def failed(
    change: Ends, id: int, run: int, reason: str, text: str, ran: bytes | None = None
) -> bytes:
    """Give the cell of a node that failed by the clock."""
    name, task = change.db.execute(SQL["called"], (id,)).fetchone()
    failure = Failure(
        task=task or "",
        id=id_text(change.name(id, run, None)),
        node=name or None,
        reason=reason,
        exc_type="",
        message=text,
    )
    _, delivery, started, _ = HEAD.unpack_from(ran) if ran else (0, 0, 0, 0)
    times = {"delivery": delivery, "started_ms": started, "ended_ms": change.now}
    return pack_cell(State.FAILED, _encode(failure), **times)
