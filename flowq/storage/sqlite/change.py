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
from collections.abc import Iterable
from typing import Any, Final

from flowq.message import CULPRIT, EMPTY, HEAD, NO_NODE, TEMPLATE, node_id, pack_cell
from flowq.plan import Kind
from flowq.states import State, outcome_of
from flowq.storage.base import MEMORY_OF_ENDED_MS, PAGE
from flowq.storage.sqlite.batch import Batch
from flowq.storage.sqlite.edges import becomes_of, cut
from flowq.storage.sqlite.known import Link
from flowq.storage.sqlite.rows import (
    FAILED_KEEP_MS,
    FORGIVEN,
    KEEP_MS,
    KIND,
    NAMED,
    TIMED,
    unpack_ranges,
)
from flowq.storage.sqlite.statements import SQL

__all__ = ["Change"]

_INDEX: Final = struct.Struct(">I")
_COUNT: Final = {
    State.SUCCESS: 0,
    State.FAILED: 1,
    State.BLOCKED: 1,
    State.SKIPPED: 2,
    State.CANCELLED: 3,
}
_QUEUED, _SCHEDULED, _WAITING, _EXPANDED = (
    State.QUEUED.value,
    State.SCHEDULED.value,
    State.WAITING.value,
    State.EXPANDED.value,
)
_TOUCHED: Final = 11
"""State of a walk: it has expanded, and all in its body is looked at. A cancel had ended some of it
before that, which was counted and not weighed."""
_INSIDE: Final = 16
"""Added to the state of a walk: all in the body of that expansion ends so, as it did."""


class Change(Batch):
    """What a transaction ends and starts, beside the rows that it writes."""

    def __init__(self, db: Link, now: int, ids: int = 0) -> None:
        super().__init__(db, now, ids)
        self._todo: deque[list[Any]] = deque()  # [row id, state, culprit, position, ranges]
        self._owners: dict[int, list[Any]] = {}

    def close(self) -> None:
        """Write everything that is left; the last call before the commit."""
        for node, state, culprit, position, _ in self._todo:
            self.put("add_walk", node, state, culprit, position)
        self._todo.clear()
        super().close()

    @property
    def pages_left(self) -> bool:
        """Whether edges are left for those who come by next."""
        return bool(self._todo)

    # --- ends -----------------------------------------------------------------------------------

    def forget_ms(self, keep_ms: int | None) -> int:
        """Say when a task alone that ends now may be forgotten."""
        return self.now + max(KEEP_MS if keep_ms is None else keep_ms, MEMORY_OF_ENDED_MS)

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
            forget = self.forget_ms(FAILED_KEEP_MS if keep[1] is None else keep[1])
        else:
            forget = self.forget_ms(keep[0])
            if keep[0] == 0 and state == State.SUCCESS:
                cell = bytes((state | EMPTY,)) + cell[1 : HEAD.size]
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
        self._count_around(flags, owner, state, culprit)

    def _count_around(self, flags: int, owner: int, state: int, culprit: int | None) -> None:
        """Count a node's end in its owner."""
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

    def close_off(self, id: int, flags: int, state: int, culprit: int | None) -> None:
        """Let all in the body of an expansion end as it did, if it is one that never began."""
        if flags & KIND == Kind.EXPANSION:
            self._todo.append([id, _INSIDE + state, culprit, 0, None])

    # --- edges ----------------------------------------------------------------------------------

    def begin(self, root: int, enqueued: bool) -> None:
        """Let an expansion begin whose row says already that it has.

        What starts with a run was enqueued, also what a later page of it starts; `enqueued` stands
        in the place of a culprit.
        """
        self._todo.append([root, _EXPANDED, int(enqueued), 0, None])
        self._owners.setdefault(root, [0, 0, 0, 0, None])

    def resume(self) -> int:
        """Take up pages that earlier steps left; gives how many."""
        found = self.db.execute(SQL["walks"], (PAGE,)).fetchall()
        for walk, node, state, culprit, position in found:
            self._todo.append([node, state, culprit, position, None])
            self.put("drop_walk", walk)
        return len(found)

    def walk(self, edges: int = PAGE) -> None:
        """Count ends below and around, start and end what that decides, in waves.

        All that was kept is written when it returns.
        """
        while (self._todo and edges > 0) or self._owners:
            if self._todo and edges > 0:
                edges -= self._wave(edges)
            if self._owners:
                self._count_owners()
        self.flush()

    def _wave(self, edges: int) -> int:
        items = [self._todo.popleft() for _ in range(min(len(self._todo), edges))]
        self._load(items)
        counts: dict[int, list[Any]] = {}
        starting: dict[int, int] = {}  # row id -> rank
        used = 0
        left: list[list[Any]] = []
        for item in items:
            _, state, culprit, position, ranges = item
            if not ranges:
                continue
            if used >= edges:
                left.append(item)
                continue
            ids, whole = cut(ranges, position, edges - used)
            used += len(ids)
            if not whole:
                item[3] += len(ids)
                left.append(item)
            if state in (_EXPANDED, _TOUCHED):
                starting.update(dict.fromkeys(ids, self.back if culprit else self.rank))
                continue
            if state > _INSIDE:
                self._end_inside(ids, State(state - _INSIDE), culprit)
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
            if item[1] in _COUNT:
                lacking[item[0]] = item
                continue
            row = self.db.execute(SQL["body_of"], (item[0],)).fetchone()
            entries, inside = (list(unpack_ranges(raw)) for raw in row[:2])
            if item[1] == _EXPANDED and not item[3] and row[2] < sum(n for _, n in inside):
                item[1] = _TOUCHED
            item[4] = entries if item[1] == _EXPANDED else inside
        if lacking:
            self.flush()
            for id, raw in self.db.execute(SQL["children"], (json.dumps(list(lacking)),)):
                lacking[id][4] = list(unpack_ranges(raw))

    def _visit(self, counts: dict[int, list[Any]], starting: dict[int, int]) -> None:
        """Apply counts to children, and start entries."""
        self.flush()
        ids = json.dumps([*counts, *starting])
        for row in self.db.execute(SQL["waiting"], (ids,)).fetchall():
            id, run, state, flags, queue, owner, parents, ok, bad, skipped, cancelled, *rest = row
            rule, blame = rest
            delta = counts.get(id)
            if delta is not None:
                ok += delta[0]
                bad += delta[1]
                skipped += delta[2]
                cancelled += delta[3]
                if blame is None:
                    blame = delta[4]
            becomes = None
            if state == _WAITING and not (cancelled and self._unbegun(owner)):
                becomes = becomes_of(rule, parents, ok, bad, skipped, cancelled)
            if delta is not None:
                if becomes == _QUEUED and not flags & (KIND | TIMED):
                    self.add_ready(queue)
                    started = (self.rank, self.now, id)
                    self.put("start_child", ok, bad, skipped, cancelled, blame, *started)
                    continue
                self.put("count_child", ok, bad, skipped, cancelled, blame, id)
            if becomes == _QUEUED:
                self._start(id, run, flags, queue, owner, starting.get(id, self.rank))
            elif becomes is not None:
                self._drop(id, run, flags, owner, becomes, blame)

    def _unbegun(self, expansion: int) -> bool:
        """Whether an expansion has not begun: its body may be counted in, and not decided.

        Only a cancel ends what stands in one, so it is asked where one was counted. What begins in
        this very wave is not written yet; it will look at all in its body.
        """
        state: int = self.db.execute(SQL["row"], (expansion,)).fetchone()[2]
        return state != _EXPANDED

    def _drop(
        self, id: int, run: int, flags: int, owner: int | None, state: State, blame: int | None
    ) -> None:
        """End a node that will not run."""
        if state != State.BLOCKED:
            blame = None
        cell = self._reason(state, blame, "it waits for")
        self.end_node(id, run, flags, owner, state, cell, blame)
        self.close_off(id, flags, state, blame)

    def _end_inside(self, ids: list[int], state: State, culprit: int | None) -> None:
        """End nodes with the expansion that they stand in, which never began.

        No rule is looked at, so nothing is counted along the edges between them.
        """
        self.flush()
        cell = self._reason(state, culprit, "it stands in")
        for row in self.db.execute(SQL["waiting"], (json.dumps(ids),)).fetchall():
            id, run, was, flags, _, owner, *_ = row
            if was != _WAITING:
                continue
            self.put("end", state.value, flags, None, cell, id)
            whole, base = self.run_of(run)
            self.ended.append(node_id(whole, id - base))
            self._count_around(flags, owner, state, culprit)
            self.close_off(id, flags, state, culprit)

    def _reason(self, state: State, culprit: int | None, what: str) -> bytes:
        """Give the cell of a node that ends because of others."""
        if state == State.BLOCKED:
            body, extra = _INDEX.pack(NO_NODE if culprit is None else culprit), CULPRIT
        else:
            body, extra = f"what {what} was {state.label}".encode(), 0
        return pack_cell(state, body, flags=extra, ended_ms=self.now)

    def _start(
        self, id: int, run: int, flags: int, queue: int, owner: int | None, rank: int
    ) -> None:
        kind = flags & KIND
        if kind == Kind.TASK:
            due = expires = None
            if flags & TIMED:
                _, message = self.read_body(id)
                if message:
                    due, expires = self.times(message)
            state = _QUEUED if due is None else _SCHEDULED
            self.put("start", state, rank, self.now, due, expires, id)
            if due is None:
                self.add_ready(queue)
            else:
                self.later.add(queue)
        elif kind == Kind.EXPANSION:
            self.put("start", _EXPANDED, rank, self.now, None, None, id)
            self.begin(id, rank == self.back)
        else:
            self.put("set_ready", self.now, id)
            cell = pack_cell(State.SUCCESS, b"", flags=EMPTY, ended_ms=self.now)
            self.end_node(id, run, flags, owner, State.SUCCESS, cell, None)

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
