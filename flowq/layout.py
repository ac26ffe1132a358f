# SPDX-License-Identifier: MIT
"""Where the shapes of a drawing go: in layers from left to right, boxes around what is inside.

Each box is laid out by itself, inner ones first; arrows that cross its border end there. Layers are
those of longest paths, their order is by barycentres, heights are least squares under the order, as
in K. Sugiyama, S. Tagawa, M. Toda (1981). An arrow over several layers has a lane in each, so that
it goes through no shape. All of it depends on nothing but the drawing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import sqrt
from typing import Final, TypeAlias

from flowq.drawing import Arrow, Drawing, Shape

__all__ = [
    "FONT",
    "HEAD",
    "MARGIN",
    "MOST_LABEL",
    "Placed",
    "Rect",
    "Route",
    "cut",
    "place",
    "told_counts",
    "width_of",
]

FONT: Final = 12
"""Height of letters, in pixels."""
MARGIN: Final = 14.0
HEAD: Final = 24.0
"""Height of the title of a box."""
ROW, COLUMN = 12.0, 44.0
"""Space between two shapes of a layer, and between two layers."""
HIGH, WIDE = 30.0, 210.0
"""Height of a node; what is cut if it is wider."""
BAR: Final = 150.0
"""Width at least of many items, which show a bar."""
LANE: Final = 8.0
MOST_LANES: Final = 20_000
"""Arrows over many layers have no lanes beyond so many."""
SWEEPS: Final = 8
FEW: Final = 4
"""So many shapes that no arrow joins stand one under the other."""
MOST_LABEL: Final = 110.0
"""Width at which a label of an arrow is cut."""


@dataclass
class Rect:
    """Left, top, width, height."""

    x: float
    y: float
    w: float
    h: float


@dataclass
class Route:
    """An arrow's way: stops at which it is level, each from one x to another at one y."""

    arrow: Arrow
    stops: list[tuple[float, float, float]]


@dataclass
class Placed:
    """A drawing with places."""

    width: float
    height: float
    rects: dict[Shape, Rect] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)


def width_of(text: str, size: float = FONT) -> float:
    """Give about how wide a text is in a usual sans-serif face."""
    wide = 0.0
    for c in text:
        if c in "iljtfrI.,:;|!'`[]() ":
            wide += 0.38
        elif unicodedata.east_asian_width(c) in "WF":
            wide += 1.05
        elif c in "mW@%—…":
            wide += 1.0
        elif c in "wM" or c.isupper():
            wide += 0.86
        else:
            wide += 0.6
    return wide * size


def cut(text: str, room: float, size: float = FONT) -> str:
    """Cut a text that is too wide, in its middle: the ends of paths tell most."""
    if width_of(text, size) <= room:
        return text
    keep = len(text)
    while keep > 2 and width_of(text[: keep // 3] + "…" + text[-(keep - keep // 3) :], size) > room:
        keep -= 1
    return text[: keep // 3] + "…" + text[-(keep - keep // 3) :]


def place(drawing: Drawing) -> Placed:
    """Give each shape its place."""
    owner: dict[Shape, Shape | None] = dict.fromkeys(drawing.shapes)
    order: list[Shape] = []
    for shape in drawing.walk():
        order.append(shape)
        owner.update(dict.fromkeys(shape.inside, shape))
    lifted: dict[Shape | None, list[_Lifted]] = {}
    for arrow in drawing.arrows:
        at, source, target = _meet(arrow, owner)
        if source is not target:
            lifted.setdefault(at, []).append((source, target, arrow))
    bodies: dict[Shape, _Body] = {}
    sizes: dict[Shape, tuple[float, float]] = {}
    for shape in reversed(order):
        if shape.boxed:
            body = bodies[shape] = _Body(shape.inside, lifted.get(shape, ()), sizes)
            title = min(WIDE, width_of(shape.title)) + 2 * MARGIN
            sizes[shape] = max(body.width + 2 * MARGIN, title), body.height + HEAD + MARGIN
        else:
            sizes[shape] = _size(shape)
    top = _Body(drawing.shapes, lifted.get(None, ()), sizes)
    head = HEAD if drawing.name else 0.0
    wide = max(top.width, min(2 * WIDE, width_of(drawing.name))) + 2 * MARGIN
    placed = Placed(wide, top.height + 2 * MARGIN + head)
    todo = [(top, MARGIN, MARGIN + head)]
    while todo:
        body, x, y = todo.pop()
        for shape, rect in body.rects.items():
            placed.rects[shape] = Rect(x + rect.x, y + rect.y, rect.w, rect.h)
            if shape in bodies:
                todo.append((bodies[shape], x + rect.x + MARGIN, y + rect.y + HEAD))
        for route in body.routes:
            stops = [(x + a, x + b, y + c) for a, b, c in route.stops]
            placed.routes.append(Route(route.arrow, stops))
    return placed


_Lifted: TypeAlias = "tuple[Shape, Shape, Arrow]"


def _size(shape: Shape) -> tuple[float, float]:
    wide = min(WIDE, width_of(shape.title)) + 22
    if shape.form == "many":
        told = width_of(told_counts(shape), FONT - 2) + 22
        return max(wide, BAR, told), HIGH + (26 if shape.counts else 0)
    return max(wide, 46.0), HIGH


def told_counts(shape: Shape) -> str:
    """Say how many items are in which state."""
    return ", ".join(f"{n:,} {state}" for state, n in shape.counts.items())


def _meet(arrow: Arrow, owner: dict[Shape, Shape | None]) -> tuple[Shape | None, Shape, Shape]:
    """Give the box in which an arrow is drawn, and the shapes of that box which it joins."""
    around: dict[Shape | None, Shape] = {}
    at: Shape | None = arrow.source
    while at is not None:
        around[owner[at]] = at
        at = owner[at]
    target = arrow.target
    while owner[target] not in around:
        above = owner[target]
        assert above is not None  # the picture itself is around both
        target = above
    return owner[target], around[owner[target]], target


class _Body:
    """What stands in one box, laid out; its rects and routes begin at 0, 0."""

    def __init__(
        self,
        shapes: Sequence[Shape],
        arrows: Iterable[_Lifted],
        sizes: dict[Shape, tuple[float, float]],
    ) -> None:
        self.rects: dict[Shape, Rect] = {}
        self.routes: list[Route] = []
        joined = list(_joined(arrows))
        touched = {shape for a, b, _ in joined for shape in (a, b)}
        aside = [s for s in shapes if s.aside and s not in touched]
        main = [s for s in shapes if not (s.aside and s not in touched)]
        if joined:
            _Layers(main, joined, sizes, self)
        else:
            self._grid(main, sizes, 0.0, 0.0)
        self._measure()
        if aside:
            gap = 2 * ROW if main else 0.0
            self._grid(aside, sizes, self.height + gap, self.width)
            self._measure()

    def _grid(
        self, shapes: Sequence[Shape], sizes: dict[Shape, tuple[float, float]], y: float, w: float
    ) -> None:
        """Put what no arrow joins into rows: a few one under the other, many as on a screen."""
        room = max([w, *(sizes[s][0] for s in shapes)])
        if len(shapes) > FEW and not w:
            area = sum((sizes[s][0] + ROW) * (sizes[s][1] + ROW) for s in shapes)
            room = max(room, sqrt(1.6 * area))
        x = high = 0.0
        for shape in shapes:
            wide, tall = sizes[shape]
            if x and x + wide > room + 0.5:
                x, y, high = 0.0, y + high + ROW, 0.0
            self.rects[shape] = Rect(x, y, wide, tall)
            x, high = x + wide + ROW, max(high, tall)

    def _measure(self) -> None:
        rects = self.rects.values()
        levels = [stop[2] for route in self.routes for stop in route.stops]
        self.width = max((r.x + r.w for r in rects), default=0.0)
        self.height = max([*(r.y + r.h for r in rects), *levels], default=0.0)


def _joined(arrows: Iterable[_Lifted]) -> Iterable[_Lifted]:
    """Draw what joins the same two shapes once, with all labels."""
    found: dict[tuple[Shape, Shape], list[Arrow]] = {}
    for source, target, arrow in arrows:
        found.setdefault((source, target), []).append(arrow)
    for (source, target), same in found.items():
        labels = dict.fromkeys(part for a in same for part in a.label.split(", ") if part)
        kinds = {a.kind for a in same}
        kind = next(k for k in ("value", "order", "dead") if k in kinds)
        yield source, target, Arrow(source, target, ", ".join(labels), kind)


class _Layers:
    """One body in layers. A cell is a shape, or the lane of an arrow in a layer between.

    Cells are numbers, those of the shapes first. `before` and `after` are their neighbours.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        arrows: list[_Lifted],
        sizes: dict[Shape, tuple[float, float]],
        body: _Body,
    ) -> None:
        cell = {s: k for k, s in enumerate(shapes)}
        self.heights = [sizes[s][1] for s in shapes]
        self.level = _levels(len(shapes), [(cell[a], cell[b]) for a, b, _ in arrows])
        self.ways = [self._way(cell[a], cell[b], len(shapes)) for a, b, _ in arrows]
        count = len(self.heights)
        self.layers: list[list[int]] = [[] for _ in range(max(self.level, default=0) + 1)]
        for c in range(count):
            self.layers[self.level[c]].append(c)
        self.before: list[list[int]] = [[] for _ in range(count)]
        self.after: list[list[int]] = [[] for _ in range(count)]
        for way in self.ways:
            for a, b in pairwise(way):
                self.after[a].append(b)
                self.before[b].append(a)
        self.place = [0.0] * count
        self.y = [0.0] * count
        self._order()
        self._heights()
        self._draw(shapes, [arrow for *_, arrow in arrows], sizes, body)

    def _way(self, source: int, target: int, shapes: int) -> list[int]:
        """Give the cells that an arrow goes through, and make those between."""
        between: list[int] = []
        if len(self.heights) - shapes < MOST_LANES:
            for level in range(self.level[source] + 1, self.level[target]):
                between.append(len(self.heights))
                self.heights.append(LANE)
                self.level.append(level)
        return [source, *between, target]

    def _draw(
        self,
        shapes: Sequence[Shape],
        arrows: list[Arrow],
        sizes: dict[Shape, tuple[float, float]],
        body: _Body,
    ) -> None:
        """Give each shape its rect, each arrow its stops."""
        labels = [0.0] * len(self.layers)
        for way, arrow in zip(self.ways, arrows, strict=True):
            room = min(MOST_LABEL, width_of(arrow.label, FONT - 2)) + 26 if arrow.label else 0.0
            labels[self.level[way[0]]] = max(labels[self.level[way[0]]], room)
        left, wide, x = [], [], 0.0
        for cells, label in zip(self.layers, labels, strict=True):
            left.append(x)
            wide.append(max((sizes[shapes[c]][0] for c in cells if c < len(shapes)), default=0.0))
            x += wide[-1] + max(COLUMN, label)
        for c, shape in enumerate(shapes):
            w, h = sizes[shape]
            at = self.level[c]
            body.rects[shape] = Rect(left[at] + (wide[at] - w) / 2, self.y[c] - h / 2, w, h)
        for way, arrow in zip(self.ways, arrows, strict=True):
            source, target = body.rects[shapes[way[0]]], body.rects[shapes[way[-1]]]
            lanes = [
                (left[self.level[c]], left[self.level[c]] + wide[self.level[c]], self.y[c])
                for c in way
            ]
            # level up to the border of the layer: a neighbour may be wider
            lanes[0] = source.x + source.w, *lanes[0][1:]
            lanes[-1] = lanes[-1][0], target.x, lanes[-1][2]
            body.routes.append(Route(arrow, lanes))

    def _order(self) -> None:
        """Order each layer by where its neighbours stand."""
        for cells in self.layers:
            for k, c in enumerate(cells):
                self.place[c] = float(k)
        for sweep in range(SWEEPS):
            near = self.after if sweep % 2 else self.before
            layers = reversed(self.layers) if sweep % 2 else self.layers
            for cells in layers:
                want = {
                    c: sum(self.place[n] for n in near[c]) / len(near[c])
                    if near[c]
                    else self.place[c]
                    for c in cells
                }
                cells.sort(key=lambda c: (want[c], self.place[c]))
                for k, c in enumerate(cells):
                    self.place[c] = float(k)

    def _heights(self) -> None:
        """Give each cell a height near its neighbours', without overlap."""
        for cells in self.layers:
            y = 0.0
            for c in cells:
                self.y[c] = y + self.heights[c] / 2
                y += self.heights[c] + ROW
        for sweep in range(2 * SWEEPS):
            near = self.after if sweep % 2 else self.before
            for cells in reversed(self.layers) if sweep % 2 else self.layers:
                want = []
                for c in cells:
                    at = near[c]
                    want.append(sum(self.y[n] for n in at) / len(at) if at else self.y[c])
                for c, y in zip(cells, self._apart(cells, want), strict=True):
                    self.y[c] = y
        top = min(self.y[c] - self.heights[c] / 2 for cells in self.layers for c in cells)
        self.y = [y - top for y in self.y]

    def _apart(self, cells: Sequence[int], want: Sequence[float]) -> list[float]:
        """Give the heights next to those wanted (least squares) that keep order and distance."""
        offsets, at = [], 0.0
        for k, c in enumerate(cells):
            if k:
                at += (self.heights[cells[k - 1]] + self.heights[c]) / 2 + ROW
            offsets.append(at)
        # pool adjacent violators: what would overlap moves together
        pools: list[list[float]] = []  # sum, count
        for wanted, offset in zip(want, offsets, strict=True):
            pools.append([wanted - offset, 1.0])
            while len(pools) > 1 and pools[-2][0] / pools[-2][1] >= pools[-1][0] / pools[-1][1]:
                total, n = pools.pop()
                pools[-1][0] += total
                pools[-1][1] += n
        means = [total / n for total, n in pools for _ in range(int(n))]
        return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _levels(count: int, edges: list[tuple[int, int]]) -> list[int]:
    """Give each cell the length of the longest path to it; sources stand next to their readers."""
    after: list[list[int]] = [[] for _ in range(count)]
    missing = [0] * count
    for a, b in edges:
        after[a].append(b)
        missing[b] += 1
    level = [0] * count
    ready = [k for k in range(count) if not missing[k]]
    sources = list(ready)
    for k in ready:  # grows
        for b in after[k]:
            level[b] = max(level[b], level[k] + 1)
            missing[b] -= 1
            if not missing[b]:
                ready.append(b)
    for k in sources:
        if after[k]:
            level[k] = min(level[b] for b in after[k]) - 1
    return level
