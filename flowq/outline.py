# SPDX-License-Identifier: MIT
"""The nodes of a run as people see them: inside what they stand, many items as one line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from flowq.plan import ROOT, Bits, Kind
from flowq.states import State
from flowq.storage.base import NodeInfo, Store
from flowq.wiring import Progress

__all__ = [
    "FAILED",
    "MANY",
    "MAPS",
    "Line",
    "all_nodes",
    "count",
    "forgiven",
    "outline",
    "short",
    "stem",
    "within",
]

MANY: Final = 20
"""So many items of a map are shown one by one; more are one line."""
MAPS: Final = "flowq."
"""What the names of flowq's own tasks begin with: they become other nodes as soon as they run."""
FAILED: Final = (State.FAILED, State.BLOCKED)

_PAGE: Final = 500
_ITEM: Final = re.compile(r"\[\d+\]$")


def stem(name: str) -> str:
    """Give the path of the map that an item is of; empty for what is no item.

    Examples
    --------
    >>> stem("load/clean[3]"), stem("load/clean[3]/save")
    ('load/clean', '')
    """
    found = _ITEM.search(name)
    return name[: found.start()] if found else ""


def short(name: str, around: str) -> str:
    """Give a name as it is called inside what stands around it.

    Examples
    --------
    >>> short("load/clean[3]", "load/clean"), short("load/save", "load"), short("save", "")
    ('[3]', 'save', 'save')
    """
    rest = name[len(around) :] if around and name.startswith(around) else name
    if rest is name or rest[:1] not in ("/", "["):
        return name
    return rest.removeprefix("/")


class Line:
    """One line: a node, or the items of a map together.

    Attributes
    ----------
    depth : int
        In how many expansions it stands, the run itself not counted.
    name : str
        Its path; of items together that of their map.
    info : NodeInfo or None
        The node; None for items whose map has no line of its own.
    items : list of NodeInfo
        The items that are shown together; empty for all else.
    """

    __slots__ = ("around", "depth", "info", "items", "name")

    def __init__(self, depth: int, name: str, around: str, info: NodeInfo | None) -> None:
        self.depth = depth
        self.name = name
        self.around = around
        self.info = info
        self.items: list[NodeInfo] = []

    @property
    def title(self) -> str:
        """Its name inside what stands around it, with the number of items."""
        name = short(self.name, self.around)
        return f"{name} × {len(self.items):,}" if self.items else name

    @property
    def counts(self) -> Counter[State]:
        """How many items are in which state."""
        return Counter(item.state for item in self.items)


def outline(
    infos: Iterable[NodeInfo],
    *,
    many: int = MANY,
    open: Callable[[NodeInfo], bool] = lambda info: True,
) -> list[Line]:
    """Order a run's nodes by what they stand in, each behind that, else by index.

    Parameters
    ----------
    infos : iterable of NodeInfo
        All its nodes, or some.
    many : int
        Where a map has more items than so many they are one line, and what is inside them is left
        out.
    open : callable
        Says of an expansion whether what is inside it is shown.
    """
    bodies: dict[int, list[NodeInfo]] = {}
    known = set()
    for info in infos:
        if info.index != ROOT:
            bodies.setdefault(info.owner, []).append(info)
            known.add(info.index)
    lines: list[Line] = []
    # what stands in something that was not given is shown as if it stood in the run
    tops = [i for owner, body in bodies.items() if owner not in known for i in body]
    todo: list[tuple[int, str, Line | None, NodeInfo | list[NodeInfo]]] = []
    todo.extend((0, "", None, part) for part in reversed(_parts(tops, many)))
    while todo:
        depth, around, owner, part = todo.pop()
        if isinstance(part, list):
            path = stem(part[0].name)
            if owner is None or owner.name != path or owner.items:
                owner = Line(depth, path, around, None)
                lines.append(owner)
            owner.items = part
            continue
        line = Line(depth, part.name, around, part)
        lines.append(line)
        body = bodies.get(part.index)
        if body and open(part):
            inner = _parts(body, many)
            todo.extend((depth + 1, part.name, line, p) for p in reversed(inner))
    return lines


def _parts(body: Sequence[NodeInfo], many: int) -> list[NodeInfo | list[NodeInfo]]:
    """Put the items of each large map together, in the place of its first one."""
    stems = [stem(info.name) for info in body]
    sizes = Counter(stems)
    out: list[NodeInfo | list[NodeInfo]] = []
    together: dict[str, list[NodeInfo]] = {}
    for info, path in zip(body, stems, strict=True):
        if not path or sizes[path] <= many:
            out.append(info)
        elif path in together:
            together[path].append(info)
        else:
            together[path] = [info]
            out.append(together[path])
    return out


def all_nodes(store: Store, run: bytes) -> list[NodeInfo]:
    """Read all nodes of a run, the root first, page by page."""
    found: list[NodeInfo] = []
    while True:
        page = store.nodes(run, after=found[-1].index if found else -1, limit=_PAGE)
        found += page
        if len(page) < _PAGE:
            return found


def within(infos: Iterable[NodeInfo], expansion: int) -> Iterator[NodeInfo]:
    """Go through those nodes that stand in an expansion, at any depth.

    Parameters
    ----------
    infos : iterable of NodeInfo
        By index: what stands around a node comes before it.
    expansion : int
    """
    inside = {expansion}
    for info in infos:
        if info.owner in inside:
            inside.add(info.index)
            yield info


def count(infos: Iterable[NodeInfo]) -> Progress:
    """Count what workers run: bodies that are behind it, those known, and whether more may come.

    A body that came to other nodes is done. More may come while a map over a list that is not
    known, or a branch, is to run, or a task of which one has become a graph in this run before.
    """
    done = known = failed = running = 0
    grown: set[str] = set()
    open: set[str] = set()
    for info in infos:
        if not info.task:
            continue
        known += 1
        failed += info.state in FAILED and info.kind == Kind.TASK
        running += info.state is State.RUNNING
        if info.state.final or info.state is State.EXPANDED:
            done += 1
        else:
            open.add(info.task)
        if info.kind == Kind.EXPANSION:
            grown.add(info.task)
    more = any(task.startswith(MAPS) or task in grown for task in open)
    return Progress(done, known, failed, running, more)


def forgiven(info: NodeInfo) -> bool:
    """Whether the failure of a node does not count."""
    if info.state is State.FAILED and info.bits & Bits.COUNTS_AS_SUCCESS:
        return True
    return bool(info.bits & Bits.FORGIVEN)
