# SPDX-License-Identifier: MIT
"""Rows that one transaction writes together, and what it counts on the way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from flowq.errors import DecodeError, Failure
from flowq.message import Message, decode_message, id_text, node_id, pack_cell
from flowq.states import State
from flowq.storage.sqlite.known import Link
from flowq.storage.sqlite.statements import SQL

__all__ = ["Batch", "Rewinding"]

_FRONT: Final = 1 << 62
_encode = msgspec.msgpack.Encoder().encode


class Rewinding(Exception):
    """Something is to be changed in a run that is being rewound."""


class Batch:
    """One transaction's worth of rows.

    Parameters
    ----------
    db : Link
        Inside a transaction that writes.
    now : int
    ids : int
        How many new row ids it takes.

    Attributes
    ----------
    first : int
        The first of the new row ids that is not taken.
    seen : int
        When a session last renewed or stepped.
    paused : bool
        Whether any run is paused.
    rewound : frozenset of int
        Runs that are being rewound.
    within : bool
        Whether what is done now may be a part of that.
    moved : set of int
        Runs of which nodes have changed their states.
    front, back : int
        Ranks of what comes back or is queued by a settlement, and of what is enqueued.
    turn : int
        When what waits at a limit began to: goes up with each page.
    again : int
        Rank of the next that is given back: before all that has one.
    ready : dict of int to int
        By queue: how many more (or fewer) messages are queued in it.
    later : set of int
        Queues in which something became scheduled.
    left : set of int
        Queues in which a full batch left something for others.
    ended : list of bytes
        Ids of what ended.
    stopped : bool
        Whether something that runs is to be stopped.
    """

    def __init__(self, db: Link, now: int, ids: int = 0) -> None:
        self.db = db
        self.now = now
        tick: int
        following: int
        paused: int
        rewinds: int
        (tick, following, self.seen, paused, rewinds), *_ = db.execute(
            SQL["begin"], (ids,)
        ).fetchall()
        self.paused = bool(paused)
        self.rewound: frozenset[int] = frozenset()
        if rewinds:
            self.rewound = frozenset(run for (run,) in db.execute(SQL["rewound"]))
        self.within = False
        self.moved: set[int] = set()
        self.first = following - ids
        self.back = tick << 20
        self.front = self.back - _FRONT
        self.again = -_FRONT - self.back
        self.rank = self.front
        self.turn = self.back
        self.ready: dict[int, int] = {}
        self.later: set[int] = set()
        self.left: set[int] = set()
        self.ended: list[bytes] = []
        self.stopped = False
        self._stored: dict[int, int] = {}
        self._rows: dict[str, list[tuple[Any, ...]]] = {}

    # --- rows that are written together ---------------------------------------------------------

    def put(self, statement: str, *row: Any) -> None:
        """Keep a row for `flush`."""
        rows = self._rows.get(statement)
        if rows is None:
            rows = self._rows[statement] = []
        rows.append(row)

    def take(self, count: int) -> int:
        """Give the first of `count` of the new row ids, which nobody else is given."""
        first = self.first
        self.first += count
        return first

    def flush(self) -> None:
        """Write what was kept."""
        if self._rows:
            for statement, rows in self._rows.items():
                self.db.executemany(SQL[statement], rows)
            self._rows = {}

    def add_ready(self, queue: int, n: int = 1) -> None:
        """Note that more messages are queued, or fewer."""
        self.ready[queue] = self.ready.get(queue, 0) + n

    def count(self, queues: Sequence[int]) -> dict[int, int]:
        """Say how many messages are queued in each of these queues now."""
        if not all(queue in self._stored for queue in queues):
            self._stored = dict(self.db.execute(SQL["ready"], (json.dumps(queues),)))
        return {queue: self._stored[queue] + self.ready.get(queue, 0) for queue in queues}

    def close(self) -> None:
        """Write everything that is left; the last call before the commit."""
        for queue, n in self.ready.items():
            if n:
                self.put("count_ready", n, queue)
        for run in self.moved:
            self.put("moved", run)
        self.flush()

    def move(self, run: int) -> None:
        """Note that a node of a run changes its state.

        Raises
        ------
        Rewinding
            The run is being rewound, which is to be done first; this transaction is undone.
        """
        if self.rewound and run in self.rewound and not self.within:
            raise Rewinding
        self.moved.add(run)

    # --- names ----------------------------------------------------------------------------------

    def run_of(self, run: int) -> tuple[bytes, int]:
        """Give a run's 16 bytes and the row id of its root."""
        return self.db.known.run(self.db, run)

    def name(self, id: int, run: int | None, uuid: bytes | None) -> bytes:
        """Give the id by which a row is known outside."""
        if run is None:
            return uuid or b""
        whole, base = self.run_of(run)
        return node_id(whole, id - base)

    def read_body(self, id: int) -> tuple[bytes, Message | None]:
        """Give a message's bytes, and the message if they can be read."""
        body: bytes = self.db.execute(SQL["body"], (id,)).fetchone()[0]
        try:
            return body, decode_message(body)
        except DecodeError:
            return body, None

    def failure(
        self, name: bytes, message: Message | None, reason: str, text: str, kind: str
    ) -> bytes:
        """Make the cell of a task that failed without its body's doing."""
        failure = Failure(
            task=message.task if message else "",
            id=id_text(name),
            node=(message.name or None) if message else None,
            reason=reason,
            exc_type=kind,
            message=text,
            index=message.index if message else None,
        )
        return pack_cell(State.FAILED, _encode(failure), ended_ms=self.now)

    def times(self, message: Message) -> tuple[int | None, int | None]:
        """Say when a message that may run now is due (None: now), and when it expires."""
        due = max(self.now + message.delay_ms, message.due_ms)
        expires = [message.expires_ms] if message.expires_ms else []
        if message.expires_in_ms:
            expires.append(self.now + message.expires_in_ms)
        return (due if due > self.now else None), min(expires, default=None)
