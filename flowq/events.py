# SPDX-License-Identifier: MIT
"""What happens to a run, as it happens: its nodes begin and end, told in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from flowq.errors import DecodeError
from flowq.looking import failure_in, moment
from flowq.message import decode_message, id_text, node_id, read_cell, split_node
from flowq.outline import MAPS, within
from flowq.plan import ROOT, Kind
from flowq.states import State
from flowq.storage.base import Look, NodeInfo, Store
from flowq.tracking import Tracker
from flowq.watching import explained
from flowq.wiring import Event

__all__ = ["Moved", "events", "follow", "moves"]


class Moved(NamedTuple):
    """One event, as the store tells it: `ms` is when, `begins` whether it began or ended."""

    ms: int
    begins: bool
    info: NodeInfo

    @property
    def order(self) -> tuple[int, int, int, int]:
        """Its place: by time, and where that is equal what stands inside another first."""
        i = self.info
        if i.kind == Kind.EXPANSION and not self.begins:
            return self.ms, 1, -i.index, 1
        return self.ms, 0, i.index, int(not self.begins)


def moves(info: NodeInfo) -> Iterator[Moved]:
    """Give what a row tells: that a node began, and that it ended.

    What has not begun begins nowhere; of attempts the last one is known. A map or branch begins
    when it has become what it is, not while that is worked out.
    """
    began = info.ready_ms if info.kind == Kind.EXPANSION else info.started_ms
    if info.kind == Kind.TASK and info.task.startswith(MAPS):
        began = 0
    if began and info.state != State.WAITING:
        yield Moved(began, True, info)
    if info.state.final:
        yield Moved(info.ended_ms, False, info)


def follow(
    store: Store,
    run: bytes,
    *,
    top: int = ROOT,
    after: tuple[int, int, int, int] | None = None,
    late: Callable[[], float | None] = lambda: None,
) -> Iterator[list[Moved]]:
    """Give what happens, each once, in the order of time within each look; ends with the end.

    Parameters
    ----------
    store : Store
    run : bytes
    top : int
        Only this node and what stands in it.
    after : tuple, optional
        A `Moved.order`; only what came behind it.
    late : callable
        Gives how many seconds are left, or None; an empty list is given once none are.
    """
    tracker = Tracker(store, run)
    told: dict[int, tuple[int, int, bool]] = {}  # index -> generation, attempts begun, ended
    while True:
        infos = tracker.look()
        if infos is None:
            return
        if top != ROOT:
            inside = {top, *(i.index for i in within(_ordered(tracker), top))}
            infos = [i for i in infos if i.index in inside]
        found = [
            move
            for info in infos
            for move in moves(info)
            if _new(move, told) and (after is None or move.order > after)
        ]
        found.sort(key=lambda move: move.order)
        if found:
            yield found
        now = tracker.root if top == ROOT else tracker.infos.get(top)
        if now is None or now.state.final or (tracker.root and tracker.root.state.final):
            return
        left = late()
        if left is not None and left <= 0:
            yield []
            return
        tracker.wait(left)


def _new(move: Moved, told: dict[int, tuple[int, int, bool]]) -> bool:
    """Whether it has not been told yet; what is given is told."""
    info = move.info
    generation, begun, ended = told.get(info.index, (-1, 0, False))
    if generation != info.generation:
        begun, ended = 0, False
    if move.begins:
        # what runs tells which attempt that is; what has ended may not (see `NodeInfo`)
        expanded = info.kind == Kind.EXPANSION
        attempt = 1 << 30 if expanded else info.attempt + 1 if info.state == State.RUNNING else 1
        new, begun = attempt > begun, max(attempt, begun)
    else:
        new, ended = not ended, True
    told[info.index] = info.generation, begun, ended
    return new


def _ordered(tracker: Tracker) -> Iterator[NodeInfo]:
    return (tracker.infos[i] for i in sorted(tracker.infos))


# --- as users see it -----------------------------------------------------------------------------

Order = tuple[int, int, int, int]

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 60.0
"""Seconds between two looks whether a task called alone has become a run: nobody tells that."""


def events(
    store: Store,
    id: bytes,
    *,
    after: Order | None = None,
    late: Callable[[], float | None] = lambda: None,
) -> Iterator[Event | None]:
    """Give the events of a task, node or run till its end; None once no time is left.

    Parameters
    ----------
    store : Store
    id : bytes
    after : tuple, optional
        An `Event.order`; only what came behind it.
    late : callable
        Gives how many seconds are left, or None.
    """
    run, top = split_node(id) if len(id) > 16 else (id, ROOT)
    name = _task_of(store, id) if top == ROOT else ""  # once it has ended it may not be kept
    if top == ROOT and (alone := _alone(store, id, late)) is not None:
        look, left = alone
        yield from (e for e in _of_task(id, look, name) if after is None or e.order > after)
        if left:
            yield None
        return
    for moved in follow(store, run, top=top, after=after, late=late):
        ended = {m.info.index: m.info for m in moved if not m.begins}
        whys = {info.index: why for info, why, _ in explained(store, run, ended.values())}
        for move in moved:
            yield _event(run, move, "" if move.begins else whys[move.info.index])
        if not moved:
            yield None


def _event(run: bytes, move: Moved, why: str) -> Event:
    info = move.info
    state = info.state.label
    attempt = 0
    if move.begins:
        state = "expanded" if info.kind == Kind.EXPANSION else "running"
        attempt = info.attempt + 1 if info.state is State.RUNNING else 0
    at = moment(move.ms)
    assert at is not None
    id = id_text(run if info.index == ROOT else node_id(run, info.index))
    return Event(
        at, info.name, info.task, state, why, attempt, info.generation, info.index, id, move.order
    )


def _alone(store: Store, id: bytes, late: Callable[[], float | None]) -> tuple[Look, bool] | None:
    """Wait for a task that was called alone; None if it is a run, is none, or has become one."""
    pause = FIRST_PAUSE
    while True:
        look = store.look((id,))[0]
        if look is None or look.run:
            return None
        left = late()
        over = left is not None and left <= 0
        if look.state.final or over:
            return look, not look.state.final
        store.wait_ended((id,), timeout=pause if left is None else min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE)


def _task_of(store: Store, id: bytes) -> str:
    raw = store.message(id)
    with suppress(DecodeError):  # then it has no name that could be told
        return "" if raw is None else decode_message(raw).task
    return ""


def _of_task(id: bytes, look: Look, task: str) -> Iterator[Event]:
    """Give what is known of a task that was called alone: its beginning and its end."""
    if look.cell is None:
        return
    cell = read_cell(look.cell)
    failure = failure_in(cell)
    info = NodeInfo(
        ROOT, "", task or (failure.task if failure is not None else ""), Kind.TASK, ROOT,
        look.state, started_ms=cell.started_ms, ended_ms=cell.ended_ms,
    )  # fmt: skip
    for move in moves(info):
        yield _event(id, move, "" if failure is None or move.begins else failure.message)
