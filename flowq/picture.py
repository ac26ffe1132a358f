# SPDX-License-Identifier: MIT
"""The picture of a stored run: its nodes as they stand, by colour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flowq.arms import BRANCHES, arms_of
from flowq.drawing import Arrow, Drawing, Shape
from flowq.outline import MANY, Line, outline
from flowq.plan import INNER, Kind, NodeRow, Phase, indexes
from flowq.states import State
from flowq.storage.base import NodeInfo, Store

__all__ = ["drawing_of"]


def drawing_of(
    infos: Iterable[NodeInfo],
    *,
    name: str = "",
    many: int = MANY,
    store: Store | None = None,
    run: bytes = b"",
) -> Drawing:
    """Draw the nodes of a run.

    What a node became is a box around that; a map of more than `many` items is one shape that says
    how many are in which state. Arms of a branch that were not taken are pale.

    Parameters
    ----------
    infos : iterable of NodeInfo
        All nodes of the run, without its root.
    name : str
    many : int
    store, run : Store, bytes
        Where arms that were not taken are read; without them there are none.
    """
    infos = list(infos)
    lines = outline(infos, many=many)
    drawing = Drawing(name)
    drawn: dict[int, Shape] = {}
    way: list[Shape] = []  # boxes around, by depth
    for line in lines:
        shape = _shape(line)
        for item in line.items:
            drawn[item.index] = shape
        if line.info is not None:
            drawn[line.info.index] = shape
        del way[line.depth :]
        (way[-1].inside if way else drawing.shapes).append(shape)
        way.append(shape)
    for line in lines:
        drawing.arrows.extend(_arrows(line, drawn))
    if store is not None:
        _draw_arms(drawing, lines, drawn, infos, store, run)
    return drawing


def _shape(line: Line) -> Shape:
    counts = {s.label: n for s, n in sorted(line.counts.items())}
    info = line.info
    if info is None:
        return Shape(line.title, _worst(line).label, "many", counts)
    form = "join" if info.kind == Kind.JOIN else "many" if line.items else ""
    said = [info.name, info.state.label, info.task]
    if info.signal and not info.state.final:
        said.append(f"waits for {info.signal!r} to be sent")
    if info.started_ms and info.ended_ms:
        said.append(f"{(info.ended_ms - info.started_ms) / 1000:g} s")
    aside = info.phase in (Phase.HANDLERS, Phase.FINALLY)
    hint = ", ".join(part for part in said if part)
    return Shape(line.title, info.state.label, form, counts, aside=aside, hint=hint)


def _worst(line: Line) -> State:
    """The state by whose colour items together are drawn."""
    states = {item.state for item in line.items}
    for state in (State.FAILED, State.RUNNING, State.EXPANDED):
        if state in states:
            return state
    return min(states)


def _arrows(line: Line, drawn: dict[int, Shape]) -> Iterator[Arrow]:
    told = set()
    for info in (*line.items, *((line.info,) if line.info is not None else ())):
        here = drawn[info.index]
        for parent in indexes(info.parents):
            above = drawn.get(parent)
            if above is not None and above is not here and above not in told:
                told.add(above)
                gone = info.state in (State.SKIPPED, State.BLOCKED)
                yield Arrow(above, here, kind="dead" if gone else "value")


# --- arms that were not taken --------------------------------------------------------------------


def _draw_arms(
    drawing: Drawing,
    lines: Iterable[Line],
    drawn: dict[int, Shape],
    infos: list[NodeInfo],
    store: Store,
    run: bytes,
) -> None:
    """Put the arms of branches, other than those taken, into their boxes."""
    left = BRANCHES
    inside: dict[int, list[NodeInfo]] = {}
    for info in infos:
        inside.setdefault(info.owner, []).append(info)
    for line in lines:
        if line.info is None or not left:
            continue
        arms = arms_of(store, run, line.info, inside.get(line.info.index, ()))
        left -= bool(arms)
        # a branch that may still take one: none is out of the race
        state = (
            "skipped" if line.info.state.final or line.info.state == State.EXPANDED else "waiting"
        )
        box = drawn[line.info.index]
        for arm in arms:
            if not arm.taken:
                box.inside.append(_arm(drawing, arm.label, arm.rows, state))


def _arm(drawing: Drawing, label: str, rows: list[NodeRow], state: str) -> Shape:
    box = Shape(label, state, box=True)
    made: dict[int, Shape] = {}
    _, *inner = rows
    for k, row in enumerate(inner, 1):
        shape = Shape(row.name.rpartition("/")[2] or row.name, state)
        if row.kind == Kind.JOIN:
            shape.form = "join"
        owner = made.get(row.owner, box)
        owner.inside.append(shape)
        made[INNER + k] = shape
    for k, row in enumerate(inner, 1):
        for parent in indexes(row.parents):
            if parent in made:
                drawing.arrows.append(Arrow(made[parent], made[INNER + k], kind="dead"))
    return box
