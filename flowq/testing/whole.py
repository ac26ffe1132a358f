# SPDX-License-Identifier: MIT
"""Put one task in the place of a node without a body: a flow in a flow, a branch, a wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec

from flowq.errors import GraphError
from flowq.fragment import MAP
from flowq.message import NO_NODE, Message, decode_template, encode_template, node_id
from flowq.plan import INNER, Bits, Kind, NodeRow, Ranges, indexes, ranges_of, shifted
from flowq.policy import RetryPolicy
from flowq.serializer import Serializer

__all__ = ["STAND_IN", "StandInTask", "with_stand_ins"]

STAND_IN: Final = "flowq.test"
"""The task of a node that stands for one without a body."""
_NONE_OF_A_TASK: Final[dict[str, Any]] = {
    "reads": (), "entries": (), "inner": 0, "value": b"", "body": (), "later": (), "tolerate": 0,
    "need": 0, "most": 0, "deadline_ms": 0, "sleep_ms": 0, "signal": "", "timeout_ms": 0,
}  # fmt: skip


class StandInTask:
    """What an executor asks of a task, for one that stands for a graph; it is never called."""

    name = STAND_IN
    policy = RetryPolicy()
    cache = 0.0
    version = ""
    context = False
    outputs = 0
    is_async = False
    func: Callable[..., Any]


def with_stand_ins(
    rows: list[NodeRow], wanted: Callable[[str], bool], serializer: Serializer, run: bytes = b""
) -> list[NodeRow]:
    """Give rows in which some graphs, waits and sleeps are one task each, with nothing inside.

    Parameters
    ----------
    rows : list of NodeRow
        Of a plan, if `run` is given; else of a fragment.
    wanted : callable
        Whether something stands for a node of that name.
    serializer : Serializer
    run : bytes
        Id of the run of a plan.

    Raises
    ------
    GraphError
        A race is to be stood for, or what is inside a graph that is, and is read from outside.
    """
    first = 0 if run else INNER
    graphs: set[int] = set()
    gone: set[int] = set()
    for at, row in enumerate(rows[1:], first + 1):
        if row.owner in graphs or row.owner in gone:
            gone.add(at)
        elif _has_no_body(row, rows, first) and wanted(row.name):
            if row.bits & Bits.RACE:
                raise GraphError(
                    f"test: {row.name!r} has the value of what wins it; let values= and fail= "
                    "stand for the steps that race"
                )
            graphs.add(at)
    if not graphs:
        return rows
    left = [at for at in range(first, first + len(rows)) if at not in gone]
    places = {at: k for k, at in enumerate(left, first)}
    moving = _Moving(places, first)
    payload = serializer.dumps(((), {}), "the arguments of a stand-in")
    out = []
    for at in left:
        row = rows[at - first]
        if at in graphs:
            id = node_id(run, places[at]) if run else b""
            old = row.message
            message = Message(id, STAND_IN, payload, name=row.name)
            if old is not None:
                message = msgspec.structs.replace(message, index=old.index, limits=old.limits)
            row = msgspec.structs.replace(row, kind=Kind.TASK, message=message, **_NONE_OF_A_TASK)
        out.append(moving.row(row, node_id(run, places[at]) if run else b""))
    return out


def _has_no_body(row: NodeRow, rows: list[NodeRow], first: int) -> bool:
    """Whether a node is a graph, or one of flowq's own; not a map: that speaks of its items."""
    if row.message is not None:
        return row.message.task.startswith("flowq.") and row.message.task != MAP
    if row.kind is not Kind.EXPANSION:
        return True
    inside = next(indexes(row.body), None)
    return inside is not None and rows[inside - first].name != f"{row.name}[0]"


class _Moving:
    """Where rows stand once others are gone."""

    def __init__(self, places: dict[int, int], first: int) -> None:
        self._places = places
        self._first = first

    def row(self, row: NodeRow, id: bytes) -> NodeRow:
        message = row.message
        if message is not None:
            message = msgspec.structs.replace(
                message,
                id=id,
                bindings=tuple([b.on(shifted(b.value, self._read)) for b in message.bindings]),
                captures=tuple([shifted(c, self._read) for c in message.captures]),
            )
        return msgspec.structs.replace(
            row,
            owner=self._read(row.owner),
            parents=self._ranges(row.parents),
            children=self._ranges(row.children),
            lenient=self._ranges(row.lenient),
            reads=self._ranges(row.reads),
            followers=self._ranges(row.followers),
            follows=self._ranges(row.follows),
            along=tuple([x.moved(self._read) for x in row.along]),
            message=message,
            entries=self._ranges(row.entries),
            body=self._ranges(row.body),
            owns=self._ranges(row.owns),
            # of a join it is no template, but what a timeout gives
            value=row.value if row.kind is Kind.JOIN else self._value(row.value),
            later=tuple(
                [
                    msgspec.structs.replace(
                        group,
                        entries=self._ranges(group.entries),
                        body=self._ranges(group.body),
                        value=self._value(group.value),
                    )
                    for group in row.later
                ]
            ),
        )

    def _read(self, index: int) -> int:
        if index < self._first or index == NO_NODE:
            return index
        return self._places[index] if index in self._places else self._lost()

    def _ranges(self, ranges: Ranges) -> Ranges:
        return ranges_of(self._read(index) for index in indexes(ranges)) if ranges else ()

    def _value(self, raw: bytes) -> bytes:
        return encode_template(shifted(decode_template(raw), self._read)) if raw else raw

    def _lost(self) -> NoReturn:
        raise GraphError(
            "test: a graph for which a value stands is read from outside, node by node; let "
            "values stand for the nodes in it"
        )
