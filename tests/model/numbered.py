# SPDX-License-Identifier: MIT
"""A store as if it numbered nodes as the model does.

Where a run grows, a store gives nodes any indexes behind those that there are; the model gives the
next ones. In their order they are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from flowq.errors import Failure
from flowq.message import (
    CULPRIT,
    NO_NODE,
    Delivery,
    Message,
    decode_message,
    encode_message,
    id_bytes,
    id_text,
    node_id,
    pack_cell,
    read_cell,
    split_node,
)
from flowq.outcome import Expand, Outcome
from flowq.plan import INNER, Plan, Ranges, indexes, ranges_of
from flowq.states import State
from flowq.storage import Store
from flowq.storage.base import DeadLetter, Look, NodeInfo, Sent, Step

__all__ = ["Numbered"]

_replace = msgspec.structs.replace


class Numbered:
    """Speaks of nodes by the model's numbers; what is not here is the store's own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[bytes, list[int]] = {}
        """By the model's numbers; what was dropped keeps its own."""
        self._gone: set[bytes] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    # --- numbers --------------------------------------------------------------------------------

    def _indexes(self, run: bytes) -> list[int]:
        found = {info.index for info in self._store.nodes(run, limit=100_000)}
        if not found:
            self._gone.add(run)
        elif run in self._gone:  # another one has its id
            self._gone.discard(run)
            self._known.pop(run, None)
        known = self._known.setdefault(run, [])
        known += sorted(found - {*known})
        return known

    def _index(self, run: bytes, index: int) -> int:
        """The model's number of a store's node."""
        if index == NO_NODE:
            return index
        if index not in self._known.get(run, ()):
            self._indexes(run)
        known = self._known[run]
        return len(known) - 1 - known[::-1].index(index)

    def _out(self, id: bytes) -> bytes:
        if len(id) != 20:
            return id
        run, index = split_node(id)
        return node_id(run, self._index(run, index))

    def _in(self, id: bytes) -> bytes:
        """The store's id of a model's node; one that is not there stays."""
        if len(id) != 20:
            return id
        run, index = split_node(id)
        if index >= len(self._known.get(run, ())):
            self._indexes(run)
        known = self._known.get(run, ())
        return node_id(run, known[index]) if index < len(known) else id

    def _cell(self, raw: bytes | None) -> bytes | None:
        """A failure names who failed."""
        if raw is None:
            return None
        cell = read_cell(raw)
        if cell.state != State.FAILED or cell.flags & CULPRIT or cell.body == b"x":
            return raw
        failure = msgspec.msgpack.decode(cell.body, type=Failure)
        failure = _replace(failure, id=id_text(self._out(id_bytes(failure.id))))
        more = {"flags": cell.flags, "delivery": cell.delivery}
        more |= {"started_ms": cell.started_ms, "ended_ms": cell.ended_ms}
        return pack_cell(cell.state, msgspec.msgpack.encode(failure), **more)

    def _body(self, body: bytes) -> bytes:
        message = decode_message(body)
        parent = self._out(message.parent)
        return encode_message(_replace(message, id=self._out(message.id), parent=parent))

    def _places(self, run: bytes, ranges: Ranges) -> Ranges:
        """The store's indexes of a model's nodes."""
        known = self._indexes(run)
        return ranges_of(known[i] for i in indexes(ranges))

    def _delivery(self, d: Delivery) -> Delivery:
        values = {self._index(d.id[:16], i): self._cell(c) for i, c in d.values.items()}
        return _replace(d, id=self._out(d.id), body=self._body(d.body), values=values)

    # --- what a store does ----------------------------------------------------------------------

    def step(self, session: str, outcomes: Sequence[Outcome] = (), **how: Any) -> Step:
        told = [self._outcome(x) for x in outcomes]
        step = self._store.step(session, told, **how)
        given = [self._delivery(d) for d in step.deliveries]
        return _replace(step, deliveries=given, stops=[self._out(id) for id in step.stops])

    def _outcome(self, x: Outcome) -> Outcome:
        if not isinstance(x, Expand):
            return _replace(x, id=self._in(x.id))
        run = x.id[:16]
        rows = [
            _replace(
                row,
                parents=self._outside(run, row.parents),
                reads=self._outside(run, row.reads),
                along=tuple(
                    _replace(a, of=self._place(run, a.of), first=self._place(run, a.first))
                    for a in row.along
                ),
            )
            for row in x.rows
        ]
        return _replace(x, id=self._in(x.id), rows=rows)

    def _place(self, run: bytes, index: int) -> int:
        return index if index >= INNER else self._indexes(run)[index]

    def _outside(self, run: bytes, ranges: Ranges) -> Ranges:
        """Indexes of which some are those of the run."""
        if all(first >= INNER for first, _ in ranges):
            return ranges
        return ranges_of(self._place(run, i) for i in indexes(ranges))

    def enqueue(self, messages: Sequence[Message]) -> list[bool | None]:
        return self._store.enqueue([_replace(m, parent=self._in(m.parent)) for m in messages])

    def submit(self, plan: Plan) -> bool | None:
        return self._store.submit(_replace(plan, parent=self._in(plan.parent)))

    def rewind(self, run: bytes, generation: int, **sets: Any) -> bool | None:
        return self._store.rewind(run, generation, **self._sets(run, sets))

    def park(self, run: bytes, request: bytes, **sets: Any) -> bool | None:
        return self._store.park(run, request, **self._sets(run, sets))

    def fork(self, run: bytes, new: bytes, **how: Any) -> bool | None:
        messages = how.pop("messages", {})
        told = {self._indexes(run)[i]: m for i, m in messages.items()}
        done = self._store.fork(run, new, messages=told, **self._sets(run, how))
        if done:
            self._known.setdefault(new, [*self._known[run]])
        return done

    def _sets(self, run: bytes, sets: dict[str, Any]) -> dict[str, Any]:
        names = ("chosen", "reopened", "dropped", "nodes", "stop")
        return {k: self._places(run, v) if k in names else v for k, v in sets.items()}

    def started(self, id: bytes, **page: Any) -> list[tuple[bytes, bytes]]:
        return [(self._out(parent), child) for parent, child in self._store.started(id, **page)]

    def held(self, session: str) -> list[Delivery]:
        return [self._delivery(d) for d in self._store.held(session)]

    def renew(self, sessions: Sequence[str], **how: Any) -> list[list[bytes] | None]:
        told = self._store.renew(sessions, **how)
        return [ids and [self._out(id) for id in ids] for ids in told]

    def release(self, session: str, *, lost: Sequence[bytes] = (), reason: str = "") -> int:
        return self._store.release(session, lost=[self._in(id) for id in lost], reason=reason)

    def cancel(self, ids: Sequence[bytes], **how: Any) -> list[State | None]:
        return self._store.cancel([self._in(id) for id in ids], **how)

    def reschedule(self, id: bytes, **when: Any) -> State | None:
        return self._store.reschedule(self._in(id), **when)

    def look(self, ids: Sequence[bytes], *, cells: bool = True) -> list[Look | None]:
        found = self._store.look([self._in(id) for id in ids], cells=cells)
        return [x and _replace(x, cell=self._cell(x.cell)) for x in found]

    def message(self, id: bytes) -> bytes | None:
        body = self._store.message(self._in(id))
        return None if body is None else self._body(body)

    def nodes(self, run: bytes) -> list[NodeInfo]:
        found = self._store.nodes(run)
        return [
            _replace(
                info,
                index=self._index(run, info.index),
                owner=self._index(run, info.owner),
                parents=ranges_of(self._index(run, i) for i in indexes(info.parents)),
                follows=ranges_of(self._index(run, i) for i in indexes(info.follows)),
                culprit=None if info.culprit is None else self._index(run, info.culprit),
            )
            for info in found
        ]

    def sent(self, run: bytes) -> list[Sent]:
        return [
            x if x.node is None else _replace(x, node=self._index(run, x.node))
            for x in self._store.sent(run)
        ]

    def dead(self, **how: Any) -> list[DeadLetter]:
        return [
            _replace(x, id=self._out(x.id), body=self._body(x.body))
            for x in self._store.dead(**how)
        ]
