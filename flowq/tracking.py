# SPDX-License-Identifier: MIT
"""Keep what is known of a run's nodes up to date.

A store wakes those who wait for a move of a run. Of a run with few open nodes all of these are
read then; of a larger one those that were under way, with what they may have moved: what reads
them, what they stand in, what stands in them. So each look costs what has changed, not what there
is; when nothing moves for a moment, all that is open is read once, so that nothing is missed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from flowq.message import node_id
from flowq.plan import ROOT, Bits, Phase, indexes
from flowq.states import State
from flowq.storage.base import NodeInfo, Store

__all__ = ["Tracker"]

PAGE: Final = 500
FEW: Final = 4 * PAGE
"""Of a run with so many open nodes, all of them are read at each look."""
LIKELY: Final = 1_000
"""Of a larger one, so many that may have moved are looked at first."""
STILL: Final = 0.25
"""Seconds without a move after which all that is open is read, where only a part of it was."""
REST: Final = 3
"""A look that took long is followed by so many times that as a rest, so that reading is not all."""
MOST_REST: Final = 2.0
LONGEST: Final = 60.0

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
        self._seen: int | None = None
        self._unsure = False
        self._took = 0.0

    def look(self) -> list[NodeInfo] | None:
        """Look once; give the nodes that have moved since, by index; None if the run is gone."""
        began = time.monotonic()
        run = self._store.run(self._run)
        if run is None:
            return None
        still = run.changes == self._seen
        if still and not self._unsure:
            return []
        self._seen = run.changes  # before the nodes: what moves meanwhile is seen at the next look
        page = self._store.nodes(self._run, limit=1)
        if not page or page[0].index != ROOT:
            return None
        before, root = self.root, page[0]
        self.root = root
        moved: dict[int, NodeInfo] = {}
        if before is None or root.generation != before.generation:
            self._forget()
            self._read(range(-1, 1 << 62), moved)
        elif still or root.state.final or len(self._open) <= FEW:
            self._read_all_open(moved)
            self._unsure = False
        else:
            self._read_near(moved)
        if before is None or _stand(root) != _stand(before):
            moved[ROOT] = root
        self._took = time.monotonic() - began
        return [moved[i] for i in sorted(moved)]

    def wait(self, timeout: float | None = None) -> None:
        """Sleep until something may have moved, `timeout` seconds at most."""
        if self._seen is None:
            return
        left = LONGEST if timeout is None else max(0.0, timeout)
        if self._took > 0.05:
            rest = min(left, REST * self._took, MOST_REST)
            time.sleep(rest)
            left -= rest
        left = min(left, STILL) if self._unsure else left
        self._store.wait_moved(self._run, seen=self._seen, timeout=left)

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
        """Read what was under way and has moved, and what that may have moved, page by page."""
        likely = self._likely()
        looks = self._store.look([node_id(self._run, i) for i in likely], cells=False)
        todo = {
            i
            for i, look in zip(likely, looks, strict=True)
            if look is None or _differs(look.state, look.attempt, self.infos[i])
        }
        self._unsure = True
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
        if grew:
            self._read(range(max(self.infos, default=0), 1 << 62), moved)

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

    def _likely(self) -> list[int]:
        """Who may have moved: what runs, then what runs next, then what waits for neither."""
        by: dict[State, list[int]] = {state: [] for state in _BUSY}
        for i in self._open:
            state = self.infos[i].state
            if state in by:
                by[state].append(i)
        chosen: list[int] = []
        for state in _BUSY:
            chosen += sorted(by[state])[: LIKELY - len(chosen)]
        return chosen


def _stand(info: NodeInfo) -> tuple[int, ...]:
    return info.generation, info.state, info.attempt, info.losses, info.kind


def _differs(state: State, attempt: int, info: NodeInfo) -> bool:
    return state != info.state or (not state.final and attempt != info.attempt)
