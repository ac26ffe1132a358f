# SPDX-License-Identifier: MIT
"""Pictures as data: shapes, what stands inside them, and arrows; and the same as Mermaid text.

Whoever knows a graph or a run makes a `Drawing` of it; `mermaid` and `flowq.svg` show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = ["LOOKS", "Arrow", "Drawing", "Look", "Shape", "mermaid"]


class Look(NamedTuple):
    """Colours of a state."""

    fill: str
    stroke: str
    text: str
    dashed: bool = False


LOOKS: Final[dict[str, Look]] = {
    "waiting": Look("#f5f5f5", "#9e9e9e", "#444444"),
    "scheduled": Look("#fdf3d0", "#f9a825", "#111111"),
    "held": Look("#fdf3d0", "#f9a825", "#111111"),
    "queued": Look("#dff5f5", "#00838f", "#111111"),
    "running": Look("#d3e5fb", "#1565c0", "#111111"),
    "expanded": Look("#eef5fd", "#1565c0", "#111111"),
    "success": Look("#d5f0d5", "#2e7d32", "#111111"),
    "failed": Look("#f8d0d0", "#b71c1c", "#111111"),
    "blocked": Look("#fbe3e3", "#b71c1c", "#111111", True),
    "skipped": Look("#fafafa", "#cccccc", "#999999", True),
    "cancelled": Look("#f3e0f5", "#7b1fa2", "#111111"),
}
"""State -> its colours; what was skipped is pale."""


@dataclass(eq=False)
class Shape:
    """A node, many items together, or a box around what stands inside.

    Attributes
    ----------
    title : str
    state : str
        Of a node of a run; empty in the picture of a graph.
    form : str
        ``""`` a node, ``"join"``, ``"many"`` (items of a map), ``"given"`` (a value that is known).
    counts : mapping of str to int
        For items together: how many are in which state.
    inside : list of Shape
    box : bool
        Whether it is a box though nothing stands inside.
    aside : bool
        Whether it stands beside the body: a handler, a cleanup.
    hint : str
        What is said when one points at it.
    """

    title: str
    state: str = ""
    form: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    inside: list[Shape] = field(default_factory=list)
    box: bool = False
    aside: bool = False
    hint: str = ""

    @property
    def boxed(self) -> bool:
        """Whether it is drawn as a box around others."""
        return self.box or bool(self.inside)


class Arrow(NamedTuple):
    """An edge; `kind` is ``"value"``, ``"order"``, or ``"dead"`` where nothing went along it."""

    source: Shape
    target: Shape
    label: str = ""
    kind: str = "value"


@dataclass
class Drawing:
    """A picture.

    Attributes
    ----------
    name : str
    shapes : list of Shape
        Those that stand in no other.
    arrows : list of Arrow
    """

    name: str = ""
    shapes: list[Shape] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)

    def walk(self) -> Iterator[Shape]:
        """Go through all shapes, a box before what stands inside it."""
        todo = list(reversed(self.shapes))
        while todo:
            shape = todo.pop()
            yield shape
            todo.extend(reversed(shape.inside))


# --- as Mermaid ----------------------------------------------------------------------------------

_ARROWS: Final = {"value": "-->", "order": "-.->", "dead": "-.->"}


def mermaid(drawing: Drawing) -> str:
    """Write a drawing as Mermaid text."""
    ids = {shape: f"n{k}" for k, shape in enumerate(drawing.walk())}
    lines = ["flowchart LR"]
    todo: list[tuple[Shape | None, int]] = [(shape, 1) for shape in reversed(drawing.shapes)]
    while todo:
        shape, depth = todo.pop()
        pad = "    " * depth
        if shape is None:
            lines.append(f"{pad}end")
        elif shape.boxed:
            lines.append(f'{pad}subgraph {ids[shape]}["{_label(shape)}"]')
            todo.append((None, depth))
            todo.extend((inner, depth + 1) for inner in reversed(shape.inside))
        else:
            lines.append(f"{pad}{ids[shape]}{_outline(shape)}")
    arrows = []
    for a in drawing.arrows:
        label = f'|"{_text(a.label)}"|' if a.label else ""
        space = "" if not label else " "
        arrows.append(f"    {ids[a.source]} {_ARROWS[a.kind]}{label}{space or ' '}{ids[a.target]}")
    lines.extend(dict.fromkeys(arrows))
    lines.extend(_classes(ids))
    return "\n".join(lines) + "\n"


def _classes(ids: Mapping[Shape, str]) -> Iterable[str]:
    used: dict[str, list[str]] = {}
    for shape, id in ids.items():
        if shape.state:
            used.setdefault(shape.state, []).append(id)
    for state, look in LOOKS.items():
        if state in used:
            dash = ",stroke-dasharray:4" if look.dashed else ""
            paint = f"fill:{look.fill},stroke:{look.stroke},color:{look.text}{dash}"
            yield f"    classDef {state} {paint}"
            yield f"    class {','.join(used[state])} {state}"


def _label(shape: Shape) -> str:
    text = _text(shape.title)
    if shape.counts:
        return f"{text}<br/>{', '.join(f'{n:,} {s}' for s, n in shape.counts.items())}"
    return text


def _outline(shape: Shape) -> str:
    text = _label(shape)
    if shape.form == "given":
        return f'(["{text}"])'
    if shape.form == "join":
        return f'(("{text}"))'
    return f'[["{text}"]]' if shape.form == "many" else f'["{text}"]'


def _text(label: str) -> str:
    return label.replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
