# SPDX-License-Identifier: MIT
"""What a branch might have been: the arms that its message carries, and which of them it took."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from flowq.errors import DecodeError
from flowq.fragment import BRANCH
from flowq.looking import repr_in
from flowq.message import Message, Ref, decode_message, node_id, read_cell
from flowq.plan import NodeRow, decode_rows
from flowq.storage.base import NodeInfo, Store

__all__ = ["BRANCHES", "DEFAULT", "ArmSeen", "arms_of", "condition_of"]

BRANCHES: Final = 100
"""The arms of so many branches are read for a picture."""
DEFAULT: Final = "default"
"""The label of an arm that is for all other values."""


class ArmSeen(NamedTuple):
    """One arm: its key as text, its rows, and whether it was taken.

    An arm that is a value, not steps, has none: it is not among them.
    """

    label: str
    rows: list[NodeRow]
    taken: bool


def arms_of(store: Store, run: bytes, info: NodeInfo, inside: Iterable[NodeInfo]) -> list[ArmSeen]:
    """Give the arms of a branch; none for any other node.

    Parameters
    ----------
    store : Store
    run : bytes
    info : NodeInfo
        The node.
    inside : iterable of NodeInfo
        What stands in it, not deeper.
    """
    message = _message(store, run, info)
    if message is None:
        return []
    try:
        plans = [decode_rows(raw) for raw in message.plans]
    except DecodeError:  # by a newer flowq; it can be run there, and not be shown here
        return []
    there = {i.name for i in inside if not i.phase}
    fits = [bool(there) and there == _names(rows, f"{message.name}/") for rows in plans]
    if sum(fits) > 1:  # arms of the same steps: the value of the condition tells
        ref, given = _given(store, run, message)
        value = _item(given, ref.path if ref is not None else ())
        labels = [rows[0].name for rows in plans]
        if value is None:
            return []
        wanted = value if value in labels else DEFAULT
        fits = [fit and label == wanted for fit, label in zip(fits, labels, strict=True)]
    return [ArmSeen(p[0].name, p, fit) for p, fit in zip(plans, fits, strict=True)]


def condition_of(store: Store, run: bytes, info: NodeInfo) -> tuple[int, str, str] | None:
    """Give of a branch the node that its condition reads, its value as text, and the item taken.

    None for any other node, and where the value is not known.
    """
    message = _message(store, run, info)
    if message is None:
        return None
    ref, given = _given(store, run, message)
    if ref is None or not given:
        return None
    return ref.node, given, "".join(f"[{key!r}]" for key in ref.path)


def _given(store: Store, run: bytes, message: Message) -> tuple[Ref | None, str]:
    for binding in message.bindings:
        ref = binding.value
        if isinstance(ref, Ref):
            cell = store.cells(run, ((ref.node, 1),)).get(ref.node)
            return ref, repr_in(read_cell(cell)) if cell is not None else ""
    return None, ""


def _item(given: str, path: Iterable[Any]) -> str | None:
    """Read what a stored ``repr`` says of a condition, as the label of an arm; None if nothing."""
    try:
        value = literal_eval(given)
        for key in path:
            value = value[key]
    except (ValueError, SyntaxError, LookupError, TypeError, RecursionError, MemoryError):
        return None
    return str(value)


def _message(store: Store, run: bytes, info: NodeInfo) -> Message | None:
    raw = store.message(node_id(run, info.index)) if info.task == BRANCH else None
    try:
        return None if raw is None else decode_message(raw)
    except DecodeError:
        return None


def _names(rows: list[NodeRow], prefix: str) -> set[str]:
    """The paths that the steps of an arm have in the run, those right inside it."""
    owner = rows[1].owner if len(rows) > 1 else None
    return {prefix + row.name for row in rows[1:] if row.owner == owner and not row.phase}
