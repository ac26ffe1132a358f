# SPDX-License-Identifier: MIT
"""How nodes and tasks end, and what their ends mean for what is around them."""

from __future__ import annotations

import json
import struct
from collections import deque
from typing import Any, Final

from flowq.message import CULPRIT, EMPTY, HEAD, NO_NODE, TEMPLATE, node_id, pack_cell
from flowq.plan import Kind
from flowq.states import State
from flowq.storage.base import MEMORY_OF_ENDED_MS
from flowq.storage.sqlite import along, bounds, limits, parks, phases, races, timers
from flowq.storage.sqlite.batch import Batch
from flowq.storage.sqlite.known import Link
from flowq.storage.sqlite.rows import (
    BOUNDED,
    COUNTS_AS_SUCCESS,
    FAILED_KEEP_MS,
    FOLLOWED,
    FORGIVEN,
    INDULGENT,
    INSIDE,
    ITEM,
    KEEP_MS,
    KIND,
    LATER,
    LED,
    LENIENT,
    LIMITED,
    LOSING,
    LOST,
    NAMED,
    NEEDED,
    OVERDUE,
    OVERTAKEN,
    OVERTIME,
    PARKED,
    SIGNAL,
    SOFT,
    SOFTER,
    STOPPED,
    STOPPING,
    STOPPING_ALL,
    STOPS,
    TRAILING,
    UNCALLED,
    fails,
)
from flowq.storage.sqlite.statements import SQL

__all__ = ["Ends"]

_INDEX: Final = struct.Struct(">I")
_QUEUED, _WAITING, _EXPANDED, _RUNNING, _SUCCESS, _FAILED = (
    State.QUEUED.value,
    State.WAITING.value,
    State.EXPANDED.value,
    State.RUNNING.value,
    State.SUCCESS.value,
    State.FAILED.value,
)
_STANDS_IN: Final = "it stands in"


class Ends(Batch):
    """What a transaction ends: alone, with what is around it, and many at once.

    Attributes
    ----------
    todo : deque
        What is to be walked: row id, what (see the column `state` of a walk), more (its `culprit`),
        how many edges are done, and the ranges of all once they were read.
    more : bool
        Whether more than was taken up is left from earlier steps.
    owners : dict of int to list
        By expansion: what ended in it and is not counted in its row yet.
    closing : set of int
        Expansions that this transaction has let close.
    lacking : dict of int to int
        By expansion with a need, as far as one was looked at: how many successes it lacks.
    rooms : dict of int to int
        By expansion with `most`, likewise: how many more may begin.
    filling : set of int
        Expansions for whose free places a walk is kept already.
    gates : dict of (int, str) to Gate
        Limits that were looked at, by run (0: of the whole store) and key.
    along : dict of int to list
        By expansion whose items others may go along with, as far as one was looked at: what does.
    """

    def __init__(self, db: Link, now: int, ids: int = 0) -> None:
        super().__init__(db, now, ids)
        self.todo: deque[list[Any]] = deque()
        self.more = False
        self.owners: dict[int, list[Any]] = {}
        self.closing: set[int] = set()
        self.lacking: dict[int, int] = {}
        self.rooms: dict[int, int] = {}
        self.filling: set[int] = set()
        self.gates: dict[tuple[int, str], limits.Gate] = {}
        self.along: dict[int, list[tuple[int, int, int]]] = {}

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
        if flags & PARKED:
            parks.keep_end(self, id, run, flags, state, cell, culprit)
            return
        if flags & (LOST | NEEDED) and races.is_not_wanted(self, flags, owner):
            state, culprit, cell = State.SKIPPED.value, None, races.lost(cell, self.now)
        if flags & SIGNAL:
            self.put("await_no_more", id)
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
        self.move(run)
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
            self.push(id, SOFTER if flags & LATER else SOFT, culprit)
        else:
            self.push(id, state, culprit)
        if flags & LENIENT:
            self.push(id, INDULGENT, None)
        if flags & LED and not (began and flags & KIND == Kind.EXPANSION):
            self.push(id, TRAILING + (_SUCCESS if softly else state), culprit)
        if flags & LIMITED and began:
            limits.leave(self, id, run)
        if flags & ITEM:
            along.ended(self, id, owner)
        if not began or flags & FOLLOWED:
            self.close_off(id, flags, state, culprit, began=began)
        self._count_around(id, flags, owner, state, culprit)
        if flags & NEEDED and state == _SUCCESS:
            races.count_win(self, id, flags, owner)
        if flags & BOUNDED and began:
            bounds.leave(self, owner)

    def forget(self, expansion: int) -> None:
        """Read anew what an expansion lacks, and what room it has, where that is asked."""
        self.lacking.pop(expansion, None)
        self.rooms.pop(expansion, None)

    def push(self, node: int, what: int, more: int | None) -> None:
        """Let something be walked: see the column `state` of a walk."""
        self.todo.append([node, what, more, 0, None])

    def _count_around(
        self, id: int, flags: int, owner: int, state: int, culprit: int | None
    ) -> None:
        """Count a node's end in its owner, if it is its turn."""
        if flags & LATER and not phases.is_in_turn(self, id, owner):
            return
        counts = self.owners.get(owner)
        if counts is None:
            counts = self.owners[owner] = [0, 0, 0, 0, None]
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
            if flags & FOLLOWED and not (flags & PARKED or races.is_not_wanted(self, flags, owner)):
                if phases.fall_back(self, id, run, flags, owner, cell):
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

    # --- ends of many ---------------------------------------------------------------------------

    def end_all(self, ids: list[int], what: int, more: int | None) -> None:
        """End or stop those of a page."""
        self.flush()
        rows = self.rows_of(ids)
        if what in (STOPPING_ALL, LOSING, OVERTAKEN):
            cell = self.reason(State.CANCELLED, None, _STANDS_IN)
            for row in rows:
                # in a body's turn those of later phases stand by
                if what == LOSING or more or not row[3] & LATER:
                    self.stop_one(row, cell, what)
            return
        waiting = [row for row in rows if row[2] == _WAITING]
        if what == UNCALLED:
            cell = pack_cell(State.SKIPPED, b"not called for", ended_ms=self.now)
            state, culprit = State.SKIPPED, None
        else:
            state, culprit = State(what - INSIDE), more
            cell = self.reason(state, culprit, _STANDS_IN)
        for id, run, _, flags, _, owner, *_ in waiting:
            # no rule is looked at, so nothing is counted along the edges between them
            self.put("end", state.value, flags, None, cell, id)
            self.move(run)
            whole, base = self.run_of(run)
            self.ended.append(node_id(whole, id - base))
            if not flags & LATER:
                self._count_around(id, flags, owner, state, culprit)
            self.close_off(id, flags, state, culprit, began=False)

    def rows_of(self, ids: list[int]) -> list[tuple[Any, ...]]:
        """Read nodes as the statement ``waiting`` gives them, by index."""
        return self.db.execute(SQL["waiting"], (json.dumps(ids),)).fetchall()

    def stop_one(self, row: tuple[Any, ...], cell: bytes, what: int) -> None:
        """Stop a node with what it stands in; `what` is walked."""
        id, run, state, flags, queue, owner, *_ = row
        if what == LOSING:
            flags |= LOST
        if flags & PARKED:
            state, flags = parks.unpark(self, id, flags)
        if state == _RUNNING:
            if what == OVERTAKEN and not flags & STOPPING:
                flags |= OVERTIME
            self.put("set_flags", flags | STOPPING, id)
            self.stopped = True
        elif state == _EXPANDED:
            if what == LOSING:
                self.put("set_flags", flags, id)
            phases.cancel_inwards(self, id, how=OVERTAKEN if what == OVERTAKEN else STOPPING_ALL)
        elif state < _SUCCESS:
            if state == _QUEUED:
                self.add_ready(queue, -1)
            began = state != _WAITING
            self.end_node(id, run, flags, owner, State.CANCELLED, cell, None, began=began)

    def reason(self, state: State, culprit: int | None, what: str) -> bytes:
        """Give the cell of a node that ends because of others."""
        if state in (State.BLOCKED, State.FAILED):
            body, extra = _INDEX.pack(NO_NODE if culprit is None else culprit), CULPRIT
        else:
            body, extra = f"what {what} was {state.label}".encode(), 0
        return pack_cell(state, body, flags=extra, ended_ms=self.now)

    def count_all(self) -> None:
        """Let all end that has nothing left in it."""
        while self.owners:
            self.count_owners()

    def count_owners(self) -> None:
        """Write what ended in expansions, and end those in which nothing is left."""
        owners, self.owners = self.owners, {}
        self.flush()
        for id, (ended, failures, cancels, skips, culprit) in owners.items():
            left = self.db.execute(
                SQL["count_expansion"], (ended, failures, cancels, skips, culprit, id)
            ).fetchall()
            if not left or left[0][0]:
                continue
            _, run, state, flags, owner = self.db.execute(SQL["expansion_row"], (id,)).fetchone()
            if state == _EXPANDED and not (flags & PARKED and parks.is_over(self, id)):
                expansion = phases.Expansion(id, run, flags, owner, *left[0][4:])
                phases.end_turn(self, expansion, *left[0][1:4])

    def keep_failure(self, x: phases.Expansion) -> None:
        """Store the cell of an expansion that has failed, before what follows it."""
        cell = self._failure_of(x)
        self.db.execute(SQL["keep_cell"], (cell, x.id))

    def _failure_of(self, x: phases.Expansion) -> bytes:
        if x.marks & OVERDUE and x.culprit == x.id - self.run_of(x.run)[1]:
            return timers.overdue(self, x.id, x.run)
        return self.reason(State.FAILED, x.culprit, "")

    def end_expansion(self, x: phases.Expansion, outcome: State, value: bytes | None) -> None:
        """End an expansion after all that was to run in it."""
        if outcome == State.SUCCESS:
            if value is None:
                value = self.db.execute(SQL["template"], (x.id,)).fetchone()[0]
            cell = pack_cell(outcome, value or b"", flags=TEMPLATE, ended_ms=self.now)
        elif outcome == State.CANCELLED and x.marks & STOPPED:
            cell = pack_cell(outcome, b"cancelled", ended_ms=self.now)
        elif outcome == State.FAILED:
            cell = self._failure_of(x)
        else:
            cell = self.reason(outcome, x.culprit, "its value names")
        blame = x.culprit if outcome == State.FAILED else None
        self.end_node(x.id, x.run, x.flags, x.owner, outcome, cell, blame)
