# SPDX-License-Identifier: MIT
"""A stored run as Mermaid text: its nodes as they stand, by colour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flowq.outline import MANY, Line, outline
from flowq.plan import Kind, indexes
from flowq.states import State
from flowq.storage.base import NodeInfo

__all__ = ["mermaid"]

FILLS = {
    State.SUCCESS: "fill:#d5f0d5,stroke:#2e7d32,color:#111",
    State.FAILED: "fill:#f8d0d0,stroke:#b71c1c,color:#111",
    State.BLOCKED: "fill:#fbe3e3,stroke:#b71c1c,color:#111,stroke-dasharray:4",
    State.RUNNING: "fill:#d3e5fb,stroke:#1565c0,color:#111",
    State.EXPANDED: "fill:#eef5fd,stroke:#1565c0,color:#111",
    State.QUEUED: "fill:#dff5f5,stroke:#00838f,color:#111",
    State.SCHEDULED: "fill:#fdf3d0,stroke:#f9a825,color:#111",
    State.HELD: "fill:#fdf3d0,stroke:#f9a825,color:#111",
    State.WAITING: "fill:#f5f5f5,stroke:#9e9e9e,color:#444",
    State.SKIPPED: "fill:#fafafa,stroke:#cccccc,color:#999",
    State.CANCELLED: "fill:#f3e0f5,stroke:#7b1fa2,color:#111",
}
"""State -> its colours; what was skipped is pale."""


def mermaid(infos: Iterable[NodeInfo], *, many: int = MANY) -> str:
    """Draw the nodes of a run.

    What a node became is a box around that; a map of more than `many` items is one shape that says
    how many are in which state.

    Parameters
    ----------
    infos : iterable of NodeInfo
        All nodes of the run, without its root.
    many : int
    """
    lines = outline(infos, many=many)
    drawn: dict[int, str] = {}
    out = ["flowchart LR"]
    used: dict[State, list[str]] = {}
    open: list[int] = []  # depths of the boxes that are open
    for at, line in enumerate(lines):
        while open and open[-1] >= line.depth:
            out.append("    " * open[-1] + "    end")
            open.pop()
        id = f"n{at}"
        for item in line.items:
            drawn[item.index] = id
        if line.info is not None:
            drawn[line.info.index] = id
        used.setdefault(_state(line), []).append(id)
        pad = "    " * (line.depth + 1)
        if at + 1 < len(lines) and lines[at + 1].depth > line.depth:
            out.append(f'{pad}subgraph {id}["{_label(line)}"]')
            open.append(line.depth)
        else:
            out.append(f"{pad}{id}{_shape(line)}")
    out.extend("    " * depth + "    end" for depth in reversed(open))
    out.extend(f"    {edge}" for edge in dict.fromkeys(_edges(lines, drawn)))
    for state, ids in sorted(used.items()):
        out.append(f"    classDef {state.label} {FILLS[state]}")
        out.append(f"    class {','.join(ids)} {state.label}")
    return "\n".join(out) + "\n"


def _state(line: Line) -> State:
    """The state by whose colour it is drawn; of items together the worst."""
    if line.info is not None:
        return line.info.state
    states = {item.state for item in line.items}
    for state in (State.FAILED, State.RUNNING, State.EXPANDED):
        if state in states:
            return state
    return min(states)


def _label(line: Line) -> str:
    text = line.title.replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
    if line.items:
        counts = ", ".join(f"{n:,} {s.label}" for s, n in sorted(line.counts.items()))
        return f"{text}<br/>{counts}"
    return text


def _shape(line: Line) -> str:
    text = _label(line)
    if line.items:
        return f'[["{text}"]]'
    return f'(("{text}"))' if line.info and line.info.kind == Kind.JOIN else f'["{text}"]'


def _edges(lines: Iterable[Line], drawn: dict[int, str]) -> Iterator[str]:
    for line in lines:
        nodes = line.items or ()
        for info in (*nodes, *((line.info,) if line.info is not None else ())):
            here = drawn[info.index]
            for parent in indexes(info.parents):
                above = drawn.get(parent)
                if above is not None and above != here:
                    yield f"{above} --> {here}"
