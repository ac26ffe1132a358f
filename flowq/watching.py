# SPDX-License-Identifier: MIT
"""Follow something to its end: a tree in place on a terminal, lines elsewhere.

It reads a store and runs nobody's code, so handles and the command line show the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TextIO

from flowq.errors import DecodeError
from flowq.holding import LOST
from flowq.limits import limit_of
from flowq.looking import culprit_of, failure_in, shown_state, tries_of
from flowq.message import decode_message, id_text, node_id, read_cell, split_node
from flowq.outline import FAILED, Line, count, forgiven, outline, stem, within
from flowq.plan import Kind, ranges_of
from flowq.states import State
from flowq.storage.base import NodeInfo, RunInfo, Store
from flowq.text import bar, duration, one_line
from flowq.tracking import Tracker
from flowq.wiring import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

__all__ = [
    "LOOKS",
    "Lines",
    "Live",
    "Seen",
    "Sight",
    "View",
    "counted",
    "explained",
    "see",
    "view_for",
]

LOOKS: Final = 0.5
"""Seconds between two looks at what is followed."""
MOST_LOOKS: Final = 1_000
"""So many ids are looked at in one round trip."""
NAMED: Final = 5
"""So many failed items of a large map are told one by one."""
TOLD: Final = (State.SCHEDULED, State.HELD, *FAILED, State.SKIPPED, State.CANCELLED)
"""States in which a node has a reason that is read once."""
STYLES: Final = {
    "success": "green",
    "failed": "red",
    "blocked": "red",
    "running": "blue",
    "queued": "cyan",
    "scheduled": "yellow",
    "held": "yellow",
    "cancelled": "magenta",
}


class Seen(NamedTuple):
    """What one look at a task, node or run has found."""

    id: bytes
    name: str
    state: State
    began_ms: int
    ended_ms: int
    infos: list[NodeInfo]
    progress: Progress

    @property
    def title(self) -> str:
        """What it is called: a run by its id, a node by its path, a task by its name."""
        whole = len(self.id) == 16 and self.infos
        return f"run {id_text(self.id)}" if whole else self.name or id_text(self.id)

    @property
    def seconds(self) -> float | None:
        """How long it took, or has taken so far."""
        end = self.ended_ms or (0 if self.state.final else time.time_ns() // 1_000_000)
        return max(0, end - self.began_ms) / 1000 if self.began_ms and end else None


def see(store: Store, id: bytes) -> Seen | None:
    """Look at a task, node or run, and at what is inside it; None if it is not known."""
    return Sight(store, id).see()


class Sight:
    """Looks at one task, node or run again and again, at the cost of what has changed.

    Parameters
    ----------
    store : Store
    id : bytes
    """

    def __init__(self, store: Store, id: bytes) -> None:
        self._store = store
        self._id = id
        self._run: RunInfo | None = None
        self._tracker: Tracker | None = None

    def see(self) -> Seen | None:
        """Look at it, and at what is inside it; None if it is not known."""
        if len(self._id) > 16:
            return self._node()
        if self._run is None:
            self._run = self._store.run(self._id)
        return self._task() if self._run is None else self._whole(self._run)

    def wait(self, timeout: float | None = None) -> None:
        """Sleep until something may have moved, `timeout` seconds at most."""
        if self._tracker is not None:
            self._tracker.wait(timeout)
        else:
            self._store.wait_ended((self._id,), timeout=LOOKS if timeout is None else timeout)

    def _infos(self) -> tuple[NodeInfo, list[NodeInfo]] | None:
        """The root, and all other nodes by index."""
        if self._tracker is None:
            self._tracker = Tracker(self._store, self._id[:16])
        if self._tracker.look() is None:
            return None
        root = self._tracker.root
        assert root is not None
        return root, [self._tracker.infos[i] for i in sorted(self._tracker.infos)]

    def _whole(self, run: RunInfo) -> Seen | None:
        found = self._infos()
        if found is None:
            return None
        root, infos = found
        times = run.created_ms, root.ended_ms if root.state.final else 0
        return Seen(self._id, run.name, root.state, *times, infos, count(infos))

    def _node(self) -> Seen | None:
        run, index = split_node(self._id)
        page = self._store.nodes(run, after=index - 1, limit=1)
        if not page or page[0].index != index:
            return None
        node, infos = page[0], []
        if node.kind == Kind.EXPANSION and (found := self._infos()) is not None:
            infos = list(within(found[1], index))
        times = node.started_ms or node.ready_ms, node.ended_ms
        return Seen(self._id, node.name, node.state, *times, infos, count([node, *infos]))

    def _task(self) -> Seen | None:
        look = self._store.look((self._id,))[0]
        if look is None:
            return None
        began = ended = 0
        if look.cell is not None:
            cell = read_cell(look.cell)
            began, ended = cell.started_ms, cell.ended_ms
        name, raw = "", self._store.message(self._id)
        if raw is not None:
            with suppress(DecodeError):  # then it has no name that could be told
                name = decode_message(raw).task
        bad, busy = look.state in FAILED, look.state is State.RUNNING
        progress = Progress(int(look.state.final), 1, int(bad), int(busy))
        return Seen(self._id, name, look.state, began, ended, [], progress)


def explained(
    store: Store, run: bytes, infos: Iterable[NodeInfo]
) -> Iterator[tuple[NodeInfo, str, int | None]]:
    """Say of each node why it has no value, or not yet, and its attempts.

    Empty for what has a value, and for what goes on or waits for others.
    """
    infos = list(infos)
    held = _holding(store, run, infos)
    lost = [n.index for n in infos if n.state.final and n.state is not State.SUCCESS]
    cells = store.cells(run, ranges_of(lost)) if lost else {}
    names = {n.index: n.name for n in infos}
    for info in infos:
        raw = cells.get(info.index)
        why = held.get(info.index, "")
        tries = tries_of(info.state, info.attempt, info.started_ms > 0)
        if raw is not None:
            cell = read_cell(raw)
            failure = failure_in(cell)
            blamed = info.culprit if info.culprit is not None else culprit_of(cell)
            if failure is not None:
                why, tries = failure.message, failure.attempts
            elif blamed is not None:
                if blamed not in names:
                    near = store.nodes(run, after=blamed - 1, limit=1)
                    names[blamed] = near[0].name if near else str(blamed)
                why = f"because of {names[blamed]}"
            elif info.state is State.SKIPPED and cell.body == LOST:
                why = "enough others succeeded" if stem(info.name) else "another came first"
            elif not cell.flags:
                why = cell.body.decode("utf-8", "replace")
        if why and info.state in FAILED and forgiven(info):
            why += " (forgiven)"
        yield info, why, tries


def _held(info: NodeInfo) -> str:
    if info.waits_at:
        return f"for a place, by max_parallel of {limit_of(info.waits_at)}"
    return "until its run goes on"


def _holding(store: Store, run: bytes, infos: Iterable[NodeInfo]) -> dict[int, str]:
    """Say of nodes that could go on what they wait for: a moment, what is sent, a paused run."""
    held = {i.index: _held(i) for i in infos if i.state is State.HELD}
    later = [i for i in infos if i.state is State.SCHEDULED]
    for at in range(0, len(later), MOST_LOOKS):
        some = later[at : at + MOST_LOOKS]
        looks = store.look([node_id(run, i.index) for i in some], cells=False)
        for info, look in zip(some, looks, strict=True):
            until = f"until {_moment(look.due_ms)}" if look is not None and look.due_ms else ""
            wanted = f"for {info.signal!r} to be sent" if info.signal else ""
            held[info.index] = ", ".join(part for part in (wanted, until) if part)
    return held


def counted(line: Line) -> str:
    """Say how many items of a map are in which state."""
    return ", ".join(f"{n:,} {s.label}" for s, n in sorted(line.counts.items(), reverse=True))


# --- what is shown -------------------------------------------------------------------------------


class View(Protocol):
    """Shows one look after another."""

    def show(self, seen: Seen) -> None:
        """Show what has been found now."""
        ...

    def close(self) -> None:
        """Leave the terminal as it is to stay."""
        ...


def view_for(
    store: Store,
    stream: TextIO,
    *,
    nodes: bool = True,
    paint: Callable[[str], str] = str,
) -> View:
    """Choose what fits where it is shown: a tree in place, or lines.

    Parameters
    ----------
    store : Store
    stream : TextIO
    nodes : bool
        Where lines are shown: one for each node that moves, else one for the whole.
    paint : callable
        Gives the name of a state in its colour.
    """
    if stream.isatty():
        with suppress(ImportError):  # the extra `cli` is not there; lines say the same
            return Live(store, stream)
    return Lines(store, stream, paint) if nodes else Counts(stream)


class Lines:
    """A line for each node that has moved; of a large map one line with counts."""

    def __init__(self, store: Store, stream: TextIO, paint: Callable[[str], str] = str) -> None:
        self._store = store
        self._stream = stream
        self._paint = paint
        self._seen: dict[int, tuple[int, State]] = {}
        self._told: dict[str, str] = {}
        self._named: dict[str, int] = {}

    def show(self, seen: Seen) -> None:
        """Tell what has moved since."""
        moved = {}
        for info in seen.infos:
            now = (info.generation, info.state)
            if self._seen.get(info.index) != now:
                self._seen[info.index] = now
                moved[info.index] = info
        if moved:
            lines = outline(seen.infos)
            alone = {x.info.index for x in lines if x.info is not None}
            shown = [info for info in moved.values() if info.index in alone]
            for line in lines:
                shown.extend(self._worst(line, moved))
            shown.sort(key=lambda info: _when(info) or sys.maxsize)  # what waits has no time yet
            for info, why, _ in explained(self._store, seen.id[:16], shown):
                self._node(info, why)
            for line in lines:
                self._items(line)
        if seen.state.final:
            took = duration(seen.seconds)
            self._say(
                _moment(seen.ended_ms), seen.title, self._paint(shown_state(seen.state)), took
            )

    def close(self) -> None:
        """Nothing is left to be done."""

    def _node(self, info: NodeInfo, why: str) -> None:
        at = _when(info) or time.time_ns() // 1_000_000
        body = info.started_ms and info.ended_ms
        took = duration((info.ended_ms - info.started_ms) / 1000) if body else ""
        self._say(_moment(at), info.name, self._paint(info.state.label), took, one_line(why))

    def _items(self, line: Line) -> None:
        if line.items and self._told.get(line.name) != (said := counted(line)):
            self._told[line.name] = said
            self._say(
                _moment(time.time_ns() // 1_000_000), f"{line.name} × {len(line.items):,}", said
            )

    def _worst(self, line: Line, moved: dict[int, NodeInfo]) -> list[NodeInfo]:
        """The first failed items of a large map."""
        left = NAMED - self._named.get(line.name, 0)
        bad = [i for i in line.items if i.state is State.FAILED and i.index in moved][:left]
        if bad:
            self._named[line.name] = NAMED - left + len(bad)
        return bad

    def _say(self, *parts: str) -> None:
        print("  ".join(part for part in parts if part), file=self._stream, flush=True)


class Counts:
    """One line for the whole, whenever its counts have changed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told = ""

    def show(self, seen: Seen) -> None:
        """Tell the counts, if they are others than before."""
        said = f"{seen.name or id_text(seen.id)}  {shown_state(seen.state)}  {seen.progress}"
        if said != self._told:
            self._told = said
            print(said, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is left to be done."""


class Live:
    """A tree in place, by rich; what has ended is folded where not all fits."""

    def __init__(self, store: Store, stream: TextIO, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._store = store
        self._console = console or Console(file=stream)
        self._live = Live(console=self._console, auto_refresh=False)
        self._live.start()
        self._whys: dict[tuple[int, ...], str] = {}

    def show(self, seen: Seen) -> None:
        """Draw it anew."""
        self._live.update(self.tree(seen, max(5, self._console.height - 4)), refresh=True)

    def close(self) -> None:
        """Leave the last picture on the terminal."""
        self._live.stop()

    def tree(self, seen: Seen, room: int) -> Tree:
        """Give the picture, in so many lines."""
        from rich.text import Text
        from rich.tree import Tree

        lines = outline(seen.infos)
        if len(lines) > room:
            lines = outline(seen.infos, open=lambda i: not i.state.final or i.state in FAILED)
        left = len(lines) - room
        if left > 0:
            kept = {id(x) for x in sorted(lines, key=_weight)[-room:]}
            lines = [x for x in lines if id(x) in kept]
        self._explain(seen, lines)
        bodies: dict[int, list[NodeInfo]] = {}
        for info in seen.infos:
            bodies.setdefault(info.owner, []).append(info)
        wide = min(50, max((4 * x.depth + len(x.title) for x in lines), default=0))
        top = Tree(_head(seen), guide_style="dim")
        way = [top]
        for line in lines:
            text = Text(no_wrap=True, overflow="ellipsis")
            text.append(f"{one_line(line.title):<{max(0, wide - 4 * line.depth)}}  ")
            inner = bodies.get(line.info.index, []) if line.info is not None else []
            self._fill(text, line, inner)
            del way[line.depth + 1 :]
            way.append(way[-1].add(text))
        if left > 0:
            top.add(Text(f"{left:,} more", "dim"))
        return top

    def _fill(self, text: Text, line: Line, inner: list[NodeInfo]) -> None:
        """Write what is said behind the name of a line."""
        info = line.info
        if info is not None:
            word = "running" if info.state is State.EXPANDED else info.state.label
            text.append(f"{word:<9}", STYLES.get(word, "dim"))
        inner = line.items or inner
        if inner:
            ended = sum(i.state.final for i in inner)
            bad = any(i.state in FAILED for i in inner)
            text.append(f"  {bar(ended, len(inner))}", "red" if bad else "green")
            text.append(f"  {counted(line) if line.items else f'{ended:,} of {len(inner):,}'}")
        if info is None:
            return
        if info.started_ms:
            end = info.ended_ms or time.time_ns() // 1_000_000
            text.append(f"  {duration(max(0, end - info.started_ms) / 1000)}", "dim")
        if info.attempt and not info.state.final:
            text.append(f"  attempt {info.attempt + 1}", "yellow")
        why = self._whys.get(_as_told(info), "")
        if why:
            text.append(f"  {one_line(why, 60)}", "red" if info.state in FAILED else "dim")

    def _explain(self, seen: Seen, lines: Iterable[Line]) -> None:
        """Read why those that are shown have no value, or not yet, each once."""
        new = [
            x.info
            for x in lines
            if x.info is not None and x.info.state in TOLD and _as_told(x.info) not in self._whys
        ]
        for info, why, _ in explained(self._store, seen.id[:16], new):
            self._whys[_as_told(info)] = why


def _as_told(info: NodeInfo) -> tuple[int, ...]:
    return info.index, info.generation, info.state, info.attempt


def _head(seen: Seen) -> Text:
    from rich.text import Text

    word = shown_state(seen.state)
    text = Text(seen.name or id_text(seen.id), "bold", no_wrap=True, overflow="ellipsis")
    if seen.name:
        text.append(f"  {id_text(seen.id)[:13]}", "dim")  # enough to name it by
    text.append(f"  {word}", STYLES.get(word, ""))
    if any(info.state is State.HELD and not info.waits_at for info in seen.infos):
        text.append("  paused", STYLES["held"])
    if seen.infos:
        done, known = seen.progress.done, seen.progress.known
        text.append(f"  {seen.progress}")
        text.append(f"  {bar(done, known)}", "red" if seen.progress.failed else "green")
    took = duration(seen.seconds)
    return text.append(f"  {took}" if took else "", "dim")


def _weight(line: Line) -> tuple[int, int]:
    """What is shown rather than others where not all fits: what goes on, or failed, or is new."""
    info = line.info
    if info is None:
        return (3, 0)
    newest = _when(info)
    if info.state in (State.RUNNING, State.EXPANDED):
        return (3, newest)
    if info.state is State.FAILED:
        return (2, newest)
    return (1 if newest else 0, newest)


def _when(info: NodeInfo) -> int:
    """When it last moved; 0 where it has not."""
    return info.ended_ms or info.started_ms or info.ready_ms


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000).strftime("%Y-%m-%d %H:%M:%S") if ms else ""
