# SPDX-License-Identifier: MIT
"""What one transaction changes: ends, the edges that they walk, and what starts by them.

A `Change` gathers rows in Python and writes them in batches. It follows `flowq.storage.base`: an
end counts in its children and in its owner, at most `PAGE` edges a step; the rest lies in the
table ``walk`` until somebody comes by.
"""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from flowq.errors import DecodeError, Failure
from flowq.message import (
    CULPRIT,
    EMPTY,
    NO_NODE,
    TEMPLATE,
    Message,
    decode_message,
    id_text,
    node_id,
    pack_cell,
)
from flowq.plan import Kind, Ranges
from flowq.states import Counts, Rule, State, outcome_of, verdict
from flowq.storage.base import MEMORY_OF_ENDED_MS, PAGE
from flowq.storage.sqlite.known import Link
from flowq.storage.sqlite.statements import SQL

__all__ = [
    "FAILED_KEEP_MS",
    "FORGIVEN",
    "KEEP_MS",
    "KIND",
    "NAMED",
    "PREFETCH",
    "SETTLED",
    "STOPPING",
    "TIMED",
    "Change",
    "pack_ranges",
    "unpack_ranges",
]

# Column `flags` of a message.
KIND: Final = 3  # flowq.plan.Kind
STOPPING: Final = 4  # cancelled while running
SETTLED: Final = 8  # its present delivery was settled by the session that had it
PREFETCH: Final = 16  # never handed out together with others
TIMED: Final = 32  # its message has a delay, an eta or an expiry: look there when it may run
FORGIVEN: Final = 64
NAMED: Final = 128

KEEP_MS: Final = 86_400_000
FAILED_KEEP_MS: Final = 30 * KEEP_MS
_FRONT: Final = 1 << 62

_RANGE: Final = struct.Struct(">qI")
_RULE: Final = struct.Struct(">5I")
_INDEX: Final = struct.Struct(">I")
_COUNT: Final = {
    State.SUCCESS: 0,
    State.FAILED: 1,
    State.BLOCKED: 1,
    State.SKIPPED: 2,
    State.CANCELLED: 3,
}
_encode = msgspec.msgpack.Encoder().encode

_QUEUED, _SCHEDULED, _WAITING, _EXPANDED = (
    State.QUEUED.value,
    State.SCHEDULED.value,
    State.WAITING.value,
    State.EXPANDED.value,
)


def pack_ranges(ranges: Ranges, base: int) -> bytes | None:
    """Pack index ranges as ranges of row ids; None for no edge."""
    return b"".join(_RANGE.pack(base + first, n) for first, n in ranges) or None


def unpack_ranges(raw: bytes | None) -> Iterator[tuple[int, int]]:
    """Give (first row id, count) pairs."""
    return _RANGE.iter_unpack(raw or b"")


def pack_rule(rule: Rule, parents: int) -> bytes | None:
    """Pack a rule; None for the common one."""
    return None if rule == (parents, 0, parents, 0, 0) else _RULE.pack(*rule)


class Change:
    """One transaction's worth of changes.

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
        The first of the new row ids.
    seen : int
        When a session last renewed or stepped.
    front, back : int
        Ranks of what comes back or is queued by a settlement, and of what is enqueued.
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
        (tick, following, self.seen), *_ = db.execute(SQL["begin"], (ids,)).fetchall()
        self.first = following - ids
        self.back = tick << 20
        self.front = self.back - _FRONT
        self.rank = self.front
        self.ready: dict[int, int] = {}
        self.later: set[int] = set()
        self.left: set[int] = set()
        self.ended: list[bytes] = []
        self.stopped = False
        self._stored: dict[int, int] = {}
        self._todo: deque[list[Any]] = deque()  # [row id, state, culprit, position, ranges]
        self._owners: dict[int, list[Any]] = {}
        self._rows: dict[str, list[tuple[Any, ...]]] = {}

    # --- rows that are written together ---------------------------------------------------------

    def put(self, statement: str, *row: Any) -> None:
        """Keep a row for `flush`."""
        rows = self._rows.get(statement)
        if rows is None:
            rows = self._rows[statement] = []
        rows.append(row)

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
        for node, state, culprit, position, _ in self._todo:
            self.put("add_walk", node, state, culprit, position)
        self._todo.clear()
        for queue, n in self.ready.items():
            if n:
                self.put("count_ready", n, queue)
        self.flush()

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

    # --- ends -----------------------------------------------------------------------------------

    def end_single(
        self,
        id: int,
        uuid: bytes,
        flags: int,
        keep: tuple[int | None, ...],
        state: int,
        cell: bytes,
    ) -> None:
        """End a task alone."""
        if state == State.FAILED:
            kept = FAILED_KEEP_MS if keep[1] is None else keep[1]
        else:
            kept = KEEP_MS if keep[0] is None else keep[0]
            if not kept:
                cell = (
                    pack_cell(state, b"", flags=EMPTY, ended_ms=self.now)
                    if (state == State.SUCCESS)
                    else cell
                )
        forget = self.now + max(kept, MEMORY_OF_ENDED_MS)
        self.put("end", state, flags, forget, cell, id)
        self.ended.append(uuid)

    def end_node(
        self,
        id: int,
        run: int,
        flags: int,
        owner: int | None,
        state: int,
        cell: bytes,
        culprit: int | None,
    ) -> None:
        """End a node; its edges are walked by `walk`."""
        self.put("end", state, flags, None, cell, id)
        self.passed(id, run, flags, owner, state, culprit)

    def passed(
        self, id: int, run: int, flags: int, owner: int | None, state: int, culprit: int | None
    ) -> None:
        """Let a node's end be counted below it and around it."""
        whole, base = self.run_of(run)
        self.ended.append(node_id(whole, id - base))
        if owner is None:
            failed = state == State.FAILED
            self.put("end_run", self.now, self.now, failed, MEMORY_OF_ENDED_MS, run)
            self.ended.append(whole)
            return
        self._todo.append([id, state, culprit, 0, None])
        counts = self._owners.get(owner)
        if counts is None:
            counts = self._owners[owner] = [0, 0, 0, 0, None]
        counts[0] += 1
        if state == State.SUCCESS:
            return
        if state in (State.FAILED, State.BLOCKED):
            if not flags & FORGIVEN:
                counts[1] += 1
                if counts[4] is None:
                    counts[4] = culprit
        elif state == State.CANCELLED:
            if not flags & FORGIVEN:
                counts[2] += 1
        elif flags & NAMED:
            counts[3] += 1

    def end(
        self,
        id: int,
        uuid: bytes | None,
        run: int | None,
        flags: int,
        owner: int | None,
        keep: tuple[int | None, ...],
        state: int,
        cell: bytes,
    ) -> None:
        """End a task that ran, or was to run, alone or in a run."""
        if run is None:
            self.end_single(id, uuid or b"", flags, keep, state, cell)
        else:
            culprit = id - self.run_of(run)[1] if state == State.FAILED else None
            self.end_node(id, run, flags, owner, state, cell, culprit)

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

    # --- edges ----------------------------------------------------------------------------------

    def begin(self, root: int) -> None:
        """Let an expansion begin whose row says already that it has."""
        self._todo.append([root, _EXPANDED, None, 0, None])
        self._owners.setdefault(root, [0, 0, 0, 0, None])

    def resume(self) -> int:
        """Take up pages that earlier steps left; gives how many."""
        found = self.db.execute(SQL["walks"], (PAGE,)).fetchall()
        for walk, node, state, culprit, position in found:
            self._todo.append([node, state, culprit, position, None])
            self.put("drop_walk", walk)
        return len(found)

    def walk(self, edges: int = PAGE) -> None:
        """Count ends below and around, start and end what that decides, in waves."""
        while (self._todo and edges > 0) or self._owners:
            if self._todo and edges > 0:
                edges -= self._wave(edges)
            if self._owners:
                self._count_owners()

    def _wave(self, edges: int) -> int:
        items = [self._todo.popleft() for _ in range(min(len(self._todo), edges))]
        self._load(items)
        counts: dict[int, list[Any]] = {}
        starting: list[int] = []
        used = 0
        left: list[list[Any]] = []
        for item in items:
            _, state, culprit, position, ranges = item
            if not ranges:
                continue
            if used >= edges:
                left.append(item)
                continue
            ids, whole = _cut(ranges, position, edges - used)
            used += len(ids)
            if not whole:
                item[3] += len(ids)
                left.append(item)
            if state == _EXPANDED:
                starting += ids
                continue
            slot = _COUNT[state]
            for child in ids:
                delta = counts.get(child)
                if delta is None:
                    delta = counts[child] = [0, 0, 0, 0, None]
                delta[slot] += 1
                if slot == 1 and delta[4] is None:
                    delta[4] = culprit
        self._todo.extendleft(reversed(left))
        if counts or starting:
            self._visit(counts, starting)
        return used

    def _load(self, items: Iterable[list[Any]]) -> None:
        """Read the edges of nodes that ended, and the entries of expansions that begin."""
        lacking = {}
        for item in items:
            if item[4] is not None:
                continue
            if item[1] == _EXPANDED:
                raw = self.db.execute(SQL["entries"], (item[0],)).fetchone()[0]
                item[4] = list(unpack_ranges(raw))
            else:
                lacking[item[0]] = item
        if lacking:
            self.flush()
            for id, raw in self.db.execute(SQL["children"], (json.dumps(list(lacking)),)):
                lacking[id][4] = list(_RANGE.iter_unpack(raw)) if raw else []

    def _visit(self, counts: dict[int, list[Any]], starting: list[int]) -> None:
        """Apply counts to children, and start entries."""
        self.flush()
        ids = json.dumps([*counts, *starting])
        for row in self.db.execute(SQL["waiting"], (ids,)).fetchall():
            (
                id,
                run,
                state,
                flags,
                queue,
                owner,
                parents,
                ok,
                bad,
                skipped,
                cancelled,
                rule,
                blame,
            ) = row
            delta = counts.get(id)
            if delta is None:
                if state == _WAITING:
                    self._start(id, run, flags, queue, owner)
                continue
            ok += delta[0]
            bad += delta[1]
            skipped += delta[2]
            cancelled += delta[3]
            if blame is None:
                blame = delta[4]
            if state != _WAITING:
                self.put("count_child", ok, bad, skipped, cancelled, blame, id)
                continue
            if rule is None:
                if ok == parents:
                    becomes: State | None = State.QUEUED
                elif not (bad or skipped or cancelled):
                    becomes = None
                else:
                    becomes = verdict(
                        Rule(parents, 0, parents, 0, 0),
                        parents,
                        Counts(ok, bad, skipped, cancelled),
                    )
            else:
                becomes = verdict(
                    Rule(*_RULE.unpack(rule)), parents, Counts(ok, bad, skipped, cancelled)
                )
            if becomes is None:
                self.put("count_child", ok, bad, skipped, cancelled, blame, id)
            elif becomes == _QUEUED and not flags & (KIND | TIMED):
                self.put("start_child", ok, bad, skipped, cancelled, blame, self.rank, self.now, id)
                self.add_ready(queue)
            elif becomes == _QUEUED:
                self.put("count_child", ok, bad, skipped, cancelled, blame, id)
                self._start(id, run, flags, queue, owner)
            else:
                self.put("count_child", ok, bad, skipped, cancelled, blame, id)
                self._drop(id, run, flags, owner, becomes, blame)

    def _drop(
        self, id: int, run: int, flags: int, owner: int | None, state: State, blame: int | None
    ) -> None:
        """End a node that will not run."""
        if state == State.BLOCKED:
            body, extra = _INDEX.pack(NO_NODE if blame is None else blame), CULPRIT
        else:
            body, extra = f"what it waits for was {state.label}".encode(), 0
            blame = None
        cell = pack_cell(state, body, flags=extra, ended_ms=self.now)
        self.end_node(id, run, flags, owner, state, cell, blame)

    def _start(self, id: int, run: int, flags: int, queue: int, owner: int | None) -> None:
        kind = flags & KIND
        if kind == Kind.TASK:
            due = expires = None
            if flags & TIMED:
                _, message = self.read_body(id)
                if message:
                    due, expires = self.times(message)
            state = _QUEUED if due is None else _SCHEDULED
            self.put("start", state, self.rank, self.now, due, expires, id)
            if due is None:
                self.add_ready(queue)
            else:
                self.later.add(queue)
        elif kind == Kind.EXPANSION:
            self.put("start", _EXPANDED, self.rank, self.now, None, None, id)
            self.begin(id)
        else:
            self.put("set_ready", self.now, id)
            cell = pack_cell(State.SUCCESS, b"", flags=EMPTY, ended_ms=self.now)
            self.end_node(id, run, flags, owner, State.SUCCESS, cell, None)

    def times(self, message: Message) -> tuple[int | None, int | None]:
        """Say when a message that may run now is due (None: now), and when it expires."""
        due = max(self.now + message.delay_ms, message.due_ms)
        expires = [message.expires_ms] if message.expires_ms else []
        if message.expires_in_ms:
            expires.append(self.now + message.expires_in_ms)
        return (due if due > self.now else None), min(expires, default=None)

    def _count_owners(self) -> None:
        owners, self._owners = self._owners, {}
        self.flush()
        for id, (ended, failures, cancels, skips, culprit) in owners.items():
            left = self.db.execute(
                SQL["count_expansion"], (ended, failures, cancels, skips, culprit, id)
            ).fetchall()
            if not left or left[0][0]:
                continue
            _, failures, cancels, skips, culprit = left[0]
            row = self.db.execute(SQL["expansion_row"], (id,)).fetchone()
            _, run, state, flags, _, owner, _ = row
            if state != _EXPANDED:
                continue
            ends = outcome_of(failures, cancels, skips)
            extra = 0
            if ends == State.SUCCESS:
                body = self.db.execute(SQL["template"], (id,)).fetchone()[0] or b""
                extra = TEMPLATE
            elif ends == State.FAILED:
                body, extra = _INDEX.pack(NO_NODE if culprit is None else culprit), CULPRIT
            else:
                body = f"what its value names was {ends.label}".encode()
            cell = pack_cell(ends, body, flags=extra, ended_ms=self.now)
            blame = culprit if ends == State.FAILED else None
            self.end_node(id, run, flags, owner, ends, cell, blame)


def _cut(ranges: list[tuple[int, int]], position: int, limit: int) -> tuple[list[int], bool]:
    """Give at most `limit` ids of ranges from a position on, and whether that was the last."""
    ids: list[int] = []
    for first, count in ranges:
        if position >= count:
            position -= count
            continue
        take = min(count - position, limit - len(ids))
        ids.extend(range(first + position, first + position + take))
        if position + take < count:
            return ids, False
        position = 0
        if len(ids) == limit:
            # Whether more follows decides; an item that is cut at its very end is looked at again.
            return ids, (first, count) == ranges[-1]
    return ids, True
