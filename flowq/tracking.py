# SPDX-License-Identifier: MIT
"""Keep what is known of a run's nodes up to date, at the cost of what has changed.

A store wakes those who wait for an end. What was awaited is looked at then, with what it may have
moved: what reads it, what it stands in, what stands in it. So each look costs what has changed, not
what there is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from flowq.message import node_id
from flowq.plan import ROOT, Bits, Phase, indexes
from flowq.states import State
from flowq.storage.base import NodeInfo, Store

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Tracker"]

PAGE: Final = 500
WATCHED: Final = 500
"""So many nodes are awaited at a time: those that run, then those that are next."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 60.0
"""Seconds to the next look where nobody wakes: a beginning does not. Each is twice the last."""
UNWATCHED_PAUSE: Final = 5.0
"""The longest, where more nodes may end than are awaited."""
SURE: Final = 8
"""After so many first pauses without a move, all that has not ended is read once more."""
REST: Final = 3
"""A look that took long is followed by so many times that as a rest, so that reading is not all."""
MOST_REST: Final = 2.0

_BUSY: Final = (State.RUNNING, State.EXPANDED, State.QUEUED, State.SCHEDULED, State.HELD)


class Tracker:
    """The nodes of a run as they were last seen, and what has moved since.

    Parameters
    ----------
    store : Store
    run : bytes
        Its id.
    """

    def __init__(self, store: Store, run: bytes) -> None:
        self.infos: dict[int, NodeInfo] = {}
        self.root: NodeInfo | None = None
        self._store = store
        self._run = run
        self._open: set[int] = set()
        self._below: dict[int, list[int]] = {}  # node -> what reads it, or stands in it
        self._later: dict[int, list[int]] = {}  # expansion -> what runs when its body has ended
        self._watched: list[int] = []
        self._more = False
        self._pause = FIRST_PAUSE
        self._took = 0.0

    def look(self) -> list[NodeInfo] | None:
        """Look once; give the nodes that have moved since, by index; None if the run is gone."""
        began = time.monotonic()
        page = self._store.nodes(self._run, limit=1)
        if not page or page[0].index != ROOT:
            return None
        before, root = self.root, page[0]
        self.root = root
        moved: dict[int, NodeInfo] = {}
        if before is None or root.generation != before.generation:
            self._forget()
            self._read(range(-1, 1 << 62), moved)
        elif root.state.final:
            self._read_all_open(moved)
        else:
            self._read_near(moved)
        if before is None or _stand(root) != _stand(before):
            moved[ROOT] = root
        self._choose()
        # who is woken looks soon again, for what begins then; nobody tells that
        self._pause = FIRST_PAUSE if moved else min(2 * self._pause, LONGEST_PAUSE)
        self._took = time.monotonic() - began
        return [moved[i] for i in sorted(moved)]

    def wait(self, timeout: float | None = None) -> None:
        """Sleep until something may have moved, `timeout` seconds at most."""
        start = time.monotonic()
        left = LONGEST_PAUSE if timeout is None else max(0.0, timeout)
        rest = min(left, REST * self._took, MOST_REST)
        if self._took > 0.05:
            time.sleep(rest)
            left -= rest
        pause = min(self._pause, UNWATCHED_PAUSE) if self._more else self._pause
        ids = [self._run, *(node_id(self._run, i) for i in self._watched)]
        left = min(left, max(0.0, pause - (time.monotonic() - start)))
        self._store.wait_ended(ids, timeout=left)

    # --- reading ---------------------------------------------------------------------------------

    def _forget(self) -> None:
        self.infos, self._below, self._later = {}, {}, {}
        self._open = set()

    def _read(self, span: range, moved: dict[int, NodeInfo]) -> None:
        """Read nodes by index, behind the first of a span and up to its last."""
        after = span.start
        while after < span.stop - 1:
            limit = min(PAGE, span.stop - 1 - after)
            page = self._store.nodes(self._run, after=after, limit=limit)
            for info in page:
                if info.index != ROOT:
                    self._take(info, moved)
            if len(page) < limit:
                return
            after = page[-1].index

    def _take(self, info: NodeInfo, moved: dict[int, NodeInfo]) -> None:
        known = self.infos.get(info.index)
        if known is not None and _stand(known) == _stand(info):
            return
        if known is None:
            for above in (*indexes(info.parents), info.owner):
                self._below.setdefault(above, []).append(info.index)
            if info.phase != Phase.BODY:
                self._later.setdefault(info.owner, []).append(info.index)
        self.infos[info.index] = moved[info.index] = info
        if info.state.final:
            self._open.discard(info.index)
        else:
            self._open.add(info.index)

    def _read_near(self, moved: dict[int, NodeInfo]) -> None:
        """Read what was awaited and has moved, and what that may have moved, page by page."""
        ids = [node_id(self._run, i) for i in self._watched]
        looks = self._store.look(ids, cells=False) if ids else []
        todo = {
            i
            for i, look in zip(self._watched, looks, strict=True)
            if look is None or _differs(look.state, look.attempt, self.infos[i])
        }
        grew = False
        read: set[int] = set()
        swept: set[int] = set()
        while pages := {i // PAGE for i in todo} - read:
            read |= pages
            fresh: dict[int, NodeInfo] = {}
            for page in sorted(pages):
                self._read(range(page * PAGE - 1, (page + 1) * PAGE), fresh)
            moved.update(fresh)
            grew |= any(info.state is State.EXPANDED for info in fresh.values())
            todo = self._touched(fresh.values(), swept)
        quiet = not moved
        if grew or quiet:
            self._read(range(max(self.infos, default=0), 1 << 62), moved)
        if quiet and self._pause > SURE * FIRST_PAUSE:
            self._read_all_open(moved)  # among so many, one that nobody awaited may have ended

    def _touched(self, infos: Iterable[NodeInfo], swept: set[int]) -> set[int]:
        """What may have moved with these nodes: what reads them, what stands around and inside."""
        near: set[int] = set()
        for info in infos:
            near.add(info.owner)
            near.update(self._below.get(info.index, ()))
            near.update(self._later.get(info.owner, ()))
            stopped = info.state is State.CANCELLED or bool(info.bits & Bits.STOPS)
            stopped |= info.state is State.SKIPPED and not info.started_ms
            if stopped and info.owner not in swept:  # all else in the body may be stopped
                swept.add(info.owner)
                near.update(self._below.get(info.owner, ()))
        return near & self._open

    def _read_all_open(self, moved: dict[int, NodeInfo]) -> None:
        for page in sorted({i // PAGE for i in self._open}):
            self._read(range(page * PAGE - 1, (page + 1) * PAGE), moved)
        self._read(range(max(self.infos, default=0), 1 << 62), moved)

    def _choose(self) -> None:
        """Choose whom to await: what runs, then what runs next, then what waits for neither."""
        by: dict[State, list[int]] = {state: [] for state in _BUSY}
        for i in self._open:
            state = self.infos[i].state
            if state in by:
                by[state].append(i)
        chosen: list[int] = []
        for state in _BUSY:
            chosen += sorted(by[state])[: WATCHED - len(chosen)]
        self._more = sum(map(len, by.values())) > len(chosen)
        self._watched = chosen


def _stand(info: NodeInfo) -> tuple[int, ...]:
    return info.generation, info.state, info.attempt, info.losses, info.kind


def _differs(state: State, attempt: int, info: NodeInfo) -> bool:
    return state != info.state or (not state.final and attempt != info.attempt)
