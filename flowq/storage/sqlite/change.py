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
from flowq.states import State
from flowq.storage.base import MEMORY_OF_ENDED_MS, PAGE
from flowq.storage.sqlite import phases, rewind
from flowq.storage.sqlite.batch import Batch
from flowq.storage.sqlite.edges import becomes_of, cut
from flowq.storage.sqlite.known import Link
from flowq.storage.sqlite.rows import (
    BEGUN,
    CLOSING,
    COUNTS_AS_SUCCESS,
    FAILED_KEEP_MS,
    FOLLOWED,
    FORGIVEN,
    INDULGENT,
    INSIDE,
    KEEP_MS,
    KIND,
    LATER,
    LENIENT,
    NAMED,
    REWOUND,
    SOFT,
    STOPPED,
    STOPPING,
    STOPPING_ALL,
    STOPS,
    TIMED,
    TOUCHED,
    TURN,
    UNCALLED,
    fails,
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
    SOFT: 5,
    INDULGENT: 6,
}
"""Where a walk counts in a child."""
_QUEUED, _SCHEDULED, _WAITING, _EXPANDED, _RUNNING, _SUCCESS, _FAILED = (
    State.QUEUED.value,
    State.SCHEDULED.value,
    State.WAITING.value,
    State.EXPANDED.value,
    State.RUNNING.value,
    State.SUCCESS.value,
    State.FAILED.value,
)
_STANDS_IN: Final = "it stands in"


class Change(Batch):
    """What a transaction ends and starts, beside the rows that it writes."""

    def __init__(self, db: Link, now: int, ids: int = 0) -> None:
        super().__init__(db, now, ids)
        self._todo: deque[list[Any]] = deque()  # [row id, state, culprit, position, ranges]
        self._owners: dict[int, list[Any]] = {}
        self.closing: set[int] = set()

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
        *,
        began: bool = True,
    ) -> None:
        """End a node; its edges are walked by `walk`. `began`: it was not waiting any more."""
        self.put("end", state, flags, None, cell, id)
        self.passed(id, run, flags, owner, state, culprit, began=began)

    def passed(
        self,
        id: int,
        run: int,
        flags: int,
        owner: int | None,
        state: int,
        culprit: int | None,
        *,
        began: bool = True,
    ) -> None:
        """Let a node's end be counted below it and around it."""
        whole, base = self.run_of(run)
        self.ended.append(node_id(whole, id - base))
        if owner is None:
            failed = state == _FAILED
            self.put("end_run", self.now, self.now, failed, MEMORY_OF_ENDED_MS, run)
            self.ended.append(whole)
            return
        softly = state == _FAILED and flags & COUNTS_AS_SUCCESS
        if flags & STOPS and fails(flags, state):
            phases.close_around(self, id, flags, owner)
        if softly:
            self.push(id, _SUCCESS if flags & LATER else SOFT, culprit)
        else:
            self.push(id, state, culprit)
        if flags & LENIENT:
            self.push(id, INDULGENT, None)
        if not began or flags & FOLLOWED:
            self.close_off(id, flags, state, culprit, began=began)
        self._count_around(id, flags, owner, state, culprit)

    def push(self, node: int, what: int, more: int | None) -> None:
        """Let something be walked: see the column `state` of a walk."""
        self._todo.append([node, what, more, 0, None])

    def _count_around(
        self, id: int, flags: int, owner: int, state: int, culprit: int | None
    ) -> None:
        """Count a node's end in its owner, if it is its turn."""
        if flags & LATER and not phases.is_in_turn(self, id, owner):
            return
        counts = self._owners.get(owner)
        if counts is None:
            counts = self._owners[owner] = [0, 0, 0, 0, None]
        counts[0] += 1
        if state == _SUCCESS:
            return
        if fails(flags, state):
            counts[1] += 1
            if counts[4] is None:
                counts[4] = culprit
        elif state == State.CANCELLED:
            if not flags & FORGIVEN:
                counts[2] += 1
        elif state == State.SKIPPED and flags & NAMED:
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
            return
        culprit = None
        if state == _FAILED:
            culprit = id - self.run_of(run)[1]
            if flags & FOLLOWED and phases.fall_back(self, id, run, flags, owner, cell):
                return
        self.end_node(id, run, flags, owner, state, cell, culprit)

    def close_off(
        self, id: int, flags: int, state: int, culprit: int | None, *, began: bool
    ) -> None:
        """Let all inside a node end as it did if it never began, or what was to follow it."""
        kind = flags & KIND
        if kind == Kind.EXPANSION and not began:
            self.push(id, INSIDE + state, culprit)
        elif kind == Kind.TASK and flags & FOLLOWED:
            self.push(id, INSIDE + (State.SKIPPED.value if began else state), culprit)

    # --- edges ----------------------------------------------------------------------------------

    def begin(self, root: int, enqueued: bool) -> None:
        """Let an expansion begin whose row says already that it has.

        What starts with a run was enqueued, also what a later page of it starts; `enqueued` stands
        in the place of a culprit.
        """
        self.push(root, BEGUN, int(enqueued))
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
        while self._owners or (self._todo and edges > 0):
            if self._owners:
                self._count_owners()
            else:
                edges -= self._wave(edges)
        self.flush()

    def _wave(self, edges: int) -> int:
        items = [self._todo.popleft() for _ in range(min(len(self._todo), edges))]
        self._load(items)
        counts: dict[int, list[Any]] = {}
        starting: dict[int, int] = {}  # row id -> rank
        used = 0
        left: list[list[Any]] = []
        for item in items:
            _, what, culprit, position, ranges = item
            if not ranges:
                continue
            if used >= edges:
                left.append(item)
                continue
            if what == REWOUND:
                took, whole = rewind.page(self, item, edges - used, starting)
                used += took
                if not whole:
                    left.append(item)
                continue
            ids, whole = cut(ranges, position, edges - used)
            used += len(ids)
            if not whole:
                item[3] += len(ids)
                left.append(item)
            if what in (BEGUN, TOUCHED):
                starting.update(dict.fromkeys(ids, self.back if culprit else self.rank))
            elif what == TURN:
                starting.update(dict.fromkeys(ids, self.rank))
            elif what in _COUNT:
                _add(counts, ids, _COUNT[what], culprit)
            else:
                self._end_all(ids, what, culprit)
        self._todo.extendleft(reversed(left))
        if counts or starting:
            self._visit(counts, starting)
        return used

    def _load(self, items: Iterable[list[Any]]) -> None:
        """Read the edges of nodes that ended, and what stands inside those whose inside is next."""
        lacking: dict[int, list[list[Any]]] = {}
        for item in items:
            id, what, _, _, ranges = item
            if ranges is not None:
                continue
            if what == INDULGENT:
                raw = self.db.execute(SQL["lenient"], (id,)).fetchone()[0]
                item[4] = list(unpack_ranges(raw))
            elif what in _COUNT:
                lacking.setdefault(id, []).append(item)
            elif what == REWOUND:
                item[4] = rewind.load(self, id)
            else:
                phases.load_inside(self, item)
        if lacking:
            self.flush()
            for id, raw in self.db.execute(SQL["children"], (json.dumps(list(lacking)),)):
                for item in lacking[id]:
                    item[4] = list(unpack_ranges(raw))

    def _visit(self, counts: dict[int, list[Any]], starting: dict[int, int]) -> None:
        """Apply counts to children, and start entries."""
        self.flush()
        for row in self.rows_of([*counts, *starting]):
            id, run, state, flags, queue, owner, parents, ok, bad, skipped, cancelled, *rest = row
            rule, blame, marks = rest
            delta = counts.get(id)
            if delta is not None:
                soft = delta[5]
                ok += delta[0] + delta[6]
                bad += delta[1]
                skipped += delta[2]
                cancelled += delta[3]
                if flags & LATER:  # an alarm hears of each failure
                    bad += soft
                else:
                    ok += soft
                if blame is None and (delta[1] or (soft and flags & LATER)):
                    blame = delta[4]
            becomes = None
            if state == _WAITING and not self._held_back(id, flags, owner, marks, cancelled, delta):
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

    def rows_of(self, ids: list[int]) -> list[tuple[Any, ...]]:
        """Read nodes as the statement ``waiting`` gives them, by index."""
        return self.db.execute(SQL["waiting"], (json.dumps(ids),)).fetchall()

    def _held_back(
        self,
        id: int,
        flags: int,
        owner: int,
        marks: int | None,
        cancelled: int,
        delta: list[Any] | None,
    ) -> bool:
        """Whether a node that waits is not to be weighed: what it stands in says no.

        It may not have begun; only a cancel ends something in there, so it is asked where one may
        have been counted. What begins in this very wave is not written yet; it will look at all in
        its body.
        """
        if flags & LATER:
            return not phases.may_start(self, id, owner)
        if (marks and marks & CLOSING) or owner in self.closing:
            return True
        if cancelled or (delta is not None and delta[6]):
            state: int = self.db.execute(SQL["expansion_row"], (owner,)).fetchone()[2]
            return state != _EXPANDED
        return False

    def _drop(
        self, id: int, run: int, flags: int, owner: int | None, state: State, blame: int | None
    ) -> None:
        """End a node that will not run."""
        if state != State.BLOCKED:
            blame = None
        cell = self._reason(state, blame, "it waits for")
        self.end_node(id, run, flags, owner, state, cell, blame, began=False)

    # --- ends of many ---------------------------------------------------------------------------

    def _end_all(self, ids: list[int], what: int, more: int | None) -> None:
        """End or stop those of a page."""
        self.flush()
        rows = self.rows_of(ids)
        if what == STOPPING_ALL:
            for row in rows:
                if more or not row[3] & LATER:  # in a body's turn those of later phases stand by
                    self._stop(row)
            return
        waiting = [row for row in rows if row[2] == _WAITING]
        if what == UNCALLED:
            cell = pack_cell(State.SKIPPED, b"not called for", ended_ms=self.now)
            state, culprit = State.SKIPPED, None
        else:
            state, culprit = State(what - INSIDE), more
            cell = self._reason(state, culprit, _STANDS_IN)
        for id, run, _, flags, _, owner, *_ in waiting:
            # no rule is looked at, so nothing is counted along the edges between them
            self.put("end", state.value, flags, None, cell, id)
            whole, base = self.run_of(run)
            self.ended.append(node_id(whole, id - base))
            if not flags & LATER:
                self._count_around(id, flags, owner, state, culprit)
            self.close_off(id, flags, state, culprit, began=False)

    def stop(self, ids: list[int]) -> None:
        """Stop nodes before the walk that does so comes to them."""
        self._end_all(ids, STOPPING_ALL, 1)
        self.walk(0)

    def _stop(self, row: tuple[Any, ...]) -> None:
        """Stop a node with what it stands in."""
        id, run, state, flags, queue, owner, *_ = row
        if state == _RUNNING:
            self.put("set_flags", flags | STOPPING, id)
            self.stopped = True
        elif state == _EXPANDED:
            phases.cancel_inwards(self, id)
        elif state < _SUCCESS:
            if state == _QUEUED:
                self.add_ready(queue, -1)
            cell = self._reason(State.CANCELLED, None, _STANDS_IN)
            began = state != _WAITING
            self.end_node(id, run, flags, owner, State.CANCELLED, cell, None, began=began)

    def _reason(self, state: State, culprit: int | None, what: str) -> bytes:
        """Give the cell of a node that ends because of others."""
        if state in (State.BLOCKED, State.FAILED):
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
            _, run, state, flags, owner = self.db.execute(SQL["expansion_row"], (id,)).fetchone()
            if state == _EXPANDED:
                expansion = phases.Expansion(id, run, flags, owner, *left[0][4:])
                phases.end_turn(self, expansion, *left[0][1:4])

    def keep_failure(self, x: phases.Expansion) -> None:
        """Store the cell of an expansion that has failed, before what follows it."""
        cell = self._reason(State.FAILED, x.culprit, "")
        self.db.execute(SQL["keep_cell"], (cell, x.id))

    def end_expansion(self, x: phases.Expansion, outcome: State, value: bytes | None) -> None:
        """End an expansion after all that was to run in it."""
        if outcome == State.SUCCESS:
            if value is None:
                value = self.db.execute(SQL["template"], (x.id,)).fetchone()[0]
            cell = pack_cell(outcome, value or b"", flags=TEMPLATE, ended_ms=self.now)
        elif outcome == State.CANCELLED and x.marks & STOPPED:
            cell = pack_cell(outcome, b"cancelled", ended_ms=self.now)
        else:
            cell = self._reason(outcome, x.culprit, "its value names")
        blame = x.culprit if outcome == State.FAILED else None
        self.end_node(x.id, x.run, x.flags, x.owner, outcome, cell, blame)


def _add(counts: dict[int, list[Any]], ids: list[int], slot: int, culprit: int | None) -> None:
    """Count an end in children."""
    for child in ids:
        delta = counts.get(child)
        if delta is None:
            delta = counts[child] = [0, 0, 0, 0, None, 0, 0]
        delta[slot] += 1
        if culprit is not None and delta[4] is None:
            delta[4] = culprit
