# SPDX-License-Identifier: MIT
"""What one transaction changes: ends, the edges that they walk, and what starts by them.

A `Change` gathers rows in Python and writes them in batches. It follows `flowq.storage.base`: an
end counts in its children and in its owner, at most `PAGE` edges a step; the rest lies in the
table ``walk`` until somebody comes by.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from flowq.message import pack_cell
from flowq.plan import Kind
from flowq.states import State
from flowq.storage.base import PAGE
from flowq.storage.sqlite import along, bounds, limits, pauses, phases, races, rewind, timers
from flowq.storage.sqlite.edges import becomes_of, cut
from flowq.storage.sqlite.ends import Ends
from flowq.storage.sqlite.rows import (
    ALONGSIDE,
    BEGUN,
    BOUNDED,
    CLOSING,
    DOOMED,
    ENTERING,
    FILLING,
    FREEING,
    INDULGENT,
    KIND,
    LATER,
    LED,
    LIMITED,
    LOSING,
    PACED,
    PLACES,
    RACE,
    REWOUND,
    SOFT,
    SOFTER,
    STOPPING_ALL,
    TIMED,
    TOUCHED,
    TRAILING,
    TURN,
    unpack_ranges,
)
from flowq.storage.sqlite.statements import SQL

__all__ = ["Change"]

_TRAILS: Final = {TRAILING + state: place for state, place in PLACES.items()}
_COUNT: Final = {**PLACES, **_TRAILS, SOFT: 5, INDULGENT: 6, SOFTER: 7}
"""Where a walk counts in a child."""
_NOT_PLAIN: Final = KIND | TIMED | BOUNDED | DOOMED | LIMITED
"""Flags of which a node has none that is simply queued when it may run."""
_ASKING: Final = (FILLING, FREEING, REWOUND, ENTERING)
"""Walks of no ranges, that ask each time what is next."""
_HELD, _QUEUED, _SCHEDULED, _WAITING, _EXPANDED, _SUCCESS = (
    State.HELD.value,
    State.QUEUED.value,
    State.SCHEDULED.value,
    State.WAITING.value,
    State.EXPANDED.value,
    State.SUCCESS.value,
)


class Change(Ends):
    """What a transaction ends and starts, beside the rows that it writes."""

    def close(self) -> None:
        """Write everything that is left; the last call before the commit."""
        for node, state, culprit, position, _ in self.todo:
            self.put("add_walk", node, state, culprit, position)
        self.todo.clear()
        limits.close(self)
        super().close()

    @property
    def pages_left(self) -> bool:
        """Whether edges are left for those who come by next."""
        return bool(self.todo) or self.more

    # --- edges ----------------------------------------------------------------------------------

    def begin(self, root: int, enqueued: bool) -> None:
        """Let an expansion begin whose row says already that it has.

        What starts with a run was enqueued, also what a later page of it starts; `enqueued` stands
        in the place of a culprit.
        """
        self.push(root, BEGUN, int(enqueued))
        self.owners.setdefault(root, [0, 0, 0, 0, None])

    def resume(self) -> int:
        """Take up pages that earlier steps left; gives how many."""
        found = self.db.execute(SQL["walks"], (PAGE + 1,)).fetchall()
        self.more = len(found) > PAGE
        found = found[:PAGE]
        for walk, node, state, culprit, position in found:
            self.todo.append([node, state, culprit, position, None])
            self.put("drop_walk", walk)
        self.within = True
        return len(found)

    def drop_walks(self, first: int, last: int) -> None:
        """Forget what is left of nodes that are removed; but who waits at a limit is let in."""
        self.db.execute(SQL["drop_walks"], (first, last, ENTERING))
        kept = (x for x in self.todo if not first <= x[0] <= last or x[1] == ENTERING)
        self.todo = deque(kept)

    def walk(self, edges: int = PAGE) -> None:
        """Count ends below and around, start and end what that decides, in waves.

        All that was kept is written when it returns.
        """
        while self.owners or (self.todo and edges > 0):
            if self.owners:
                self.count_owners()
            else:
                edges -= self._wave(edges)
        if self.todo:  # of many that have just ended no edge is left
            self._load([item for item in self.todo if item[1] in _COUNT])
            self.todo = deque(item for item in self.todo if item[4] is None or item[4])
        self.flush()
        self.within = False

    def _wave(self, edges: int) -> int:
        items = [self.todo.popleft() for _ in range(min(len(self.todo), edges))]
        self.turn += 1
        self._load(items)
        counts: dict[int, list[Any]] = {}
        starting: dict[int, int] = {}  # row id -> rank
        filled: set[int] = set()
        used = 0
        left: list[list[Any]] = []
        for item in items:
            _, what, culprit, position, ranges = item
            if not ranges and what not in _ASKING:
                continue
            if used >= edges:
                left.append(item)
                continue
            if what in _ASKING:
                took, whole = self._ask(item, edges - used, starting, filled)
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
            elif what in (TURN, ALONGSIDE):
                starting.update(dict.fromkeys(ids, self.rank))
            elif what in _COUNT:
                _add(counts, ids, _COUNT[what], culprit)
            else:
                # what was let begin before has begun, and what ended has ended, when it is stopped
                if counts or starting:
                    self._visit(counts, starting)
                    counts, starting = {}, {}
                self.count_all()
                self.end_all(ids, what, culprit)
        self.todo.extendleft(reversed(left))
        if counts or starting:
            self._visit(counts, starting)
        return used

    def _ask(
        self, item: list[Any], limit: int, starting: dict[int, int], filled: set[int]
    ) -> tuple[int, bool]:
        """Do a page of what asks what is next; gives how many, and whether all is done."""
        _, what, enqueued, *_ = item
        if what == FREEING:
            return pauses.free(self, item, limit)
        if what == ENTERING:
            return limits.let_in(self, item, limit)
        if what == REWOUND:
            return rewind.page(self, item, limit, starting)
        ids = bounds.fill(self, item, limit, filled)
        starting.update(dict.fromkeys(ids, self.back if enqueued else self.rank))
        return len(ids), not ids

    def _load(self, items: Iterable[list[Any]]) -> None:
        """Read the edges of nodes that ended, and what stands inside those whose inside is next."""
        lacking: dict[int, list[list[Any]]] = {}
        for item in items:
            id, what, _, _, ranges = item
            if ranges is not None or what in (FILLING, FREEING, ENTERING):
                continue
            if what == INDULGENT:
                raw = self.db.execute(SQL["lenient"], (id,)).fetchone()[0]
                item[4] = list(unpack_ranges(raw))
            elif what == ALONGSIDE:
                item[4] = [(id, 1)]
            elif what in _TRAILS:
                item[4] = along.followers(self, id)
            elif what == LOSING:
                item[4] = races.owned(self, id)
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
        rows = self.rows_of([*counts, *starting])
        if any(row[3] & PACED for row in rows):
            rows = along.counted(self, rows, counts, starting)
        for row in rows:
            id, run, state, flags, queue, owner, parents, ok, bad, skipped, cancelled, *rest = row
            rule, blame, marks = rest
            delta = counts.get(id)
            if delta is not None:
                told = _told(flags, delta)
                ok += delta[0] + delta[6] + delta[5] + delta[7] - told
                bad += delta[1] + told
                skipped += delta[2]
                cancelled += delta[3]
                if blame is None and (delta[1] or told):
                    blame = delta[4]
            becomes = None
            if state == _WAITING and not self._held_back(id, flags, owner, marks, cancelled, delta):
                becomes = becomes_of(rule, parents, ok, bad, skipped, cancelled)
            if becomes == _QUEUED and flags & BOUNDED and bounds.waits_on(self, id, flags, owner):
                becomes = None
            if delta is not None:
                if becomes == _QUEUED and not flags & _NOT_PLAIN:
                    self.moved.add(run)
                    self.add_ready(queue)
                    started = (self.rank, self.now, id)
                    self.put("start_child", ok, bad, skipped, cancelled, blame, *started)
                    continue
                self.put("count_child", ok, bad, skipped, cancelled, blame, id)
            if becomes == _QUEUED:
                self._start(id, run, flags, queue, owner, starting.get(id, self.rank))
            elif becomes is not None:
                self._drop(id, run, flags, owner, becomes, blame)

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
        cell = self.reason(state, blame, "it waits for")
        self.end_node(id, run, flags, owner, state, cell, blame, began=False)

    def _doom(self, id: int, run: int, flags: int, owner: int | None) -> None:
        """Block a node that its plan lets never begin."""
        why = self.db.execute(SQL["doomed_by"], (id,)).fetchone()[0]
        cell = pack_cell(State.BLOCKED, why, ended_ms=self.now)
        itself = id - self.run_of(run)[1]
        self.end_node(id, run, flags, owner, State.BLOCKED, cell, itself, began=False)

    def stop(self, ids: list[int]) -> None:
        """Stop nodes before the walk that does so comes to them."""
        self.end_all(ids, STOPPING_ALL, 1)
        self.walk(0)

    def _start(
        self, id: int, run: int, flags: int, queue: int, owner: int | None, rank: int
    ) -> None:
        kind = flags & KIND
        self.moved.add(run)
        if flags & DOOMED:
            self._doom(id, run, flags, owner)
            return
        if flags & BOUNDED and owner is not None and kind != Kind.JOIN:
            bounds.enter(self, owner)
        if kind == Kind.TASK:
            due = expires = None
            if flags & TIMED:
                _, message = self.read_body(id)
                if message:
                    due, expires = self.times(message)
            state, gate = _QUEUED if due is None else _SCHEDULED, None
            if due is not None:
                self.later.add(queue)
            elif flags & LIMITED and (gate := limits.full(self, id, run)) is not None:
                state, rank = _HELD, self.turn
            else:
                self.add_ready(queue)
            self.put("start", state, rank, self.now, due, expires, gate, id)
        elif kind == Kind.EXPANSION:
            self.put("start", _EXPANDED, rank, self.now, None, None, None, id)
            if flags & TIMED:
                timers.set_deadline(self, id)
            if flags & LED:
                self.push(id, TRAILING + _SUCCESS, None)
            self.begin(id, rank == self.back)
        else:
            races.start_join(self, id, run, flags, owner, rank)


def _add(counts: dict[int, list[Any]], ids: list[int], slot: int, culprit: int | None) -> None:
    """Count an end in children."""
    for child in ids:
        delta = counts.get(child)
        if delta is None:
            delta = counts[child] = [0, 0, 0, 0, None, 0, 0, 0]
        delta[slot] += 1
        if culprit is not None and delta[4] is None:
            delta[4] = culprit


def _told(flags: int, delta: list[Any]) -> int:
    """Say how many failures that count as successes elsewhere count as what they were.

    An alarm is told of each in the body, and a race of each.
    """
    told: int = delta[5] if flags & (LATER | RACE) else 0
    return told + delta[7] if flags & RACE else told
