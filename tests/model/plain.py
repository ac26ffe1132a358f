# SPDX-License-Identifier: MIT
"""What a store and the model must share: all that `flowq.storage.base` doesn't leave open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from flowq.errors import Failure
from flowq.message import CULPRIT, Delivery, read_cell
from flowq.states import State
from flowq.storage.base import DeadLetter, Look, NodeInfo

__all__ = ["plain_cell", "plain_deliveries", "plain_letter", "plain_look", "plain_node", "same"]


def same(real: Any, model: Any) -> None:
    """What the store shows is what the model shows."""
    assert real == model, f"\nstore: {real}\nmodel: {model}"


def plain_cell(raw: bytes | None) -> Any:
    """What two cells must share: all, but for the choice of a culprit and a failure's words."""
    if raw is None:
        return None
    cell = read_cell(raw)
    body: Any = cell.body
    if cell.flags & CULPRIT:
        body = "culprit"
    elif cell.state == State.FAILED and cell.body != b"x":
        failure = msgspec.msgpack.decode(cell.body, type=Failure)
        body = (failure.task, failure.id, failure.node, failure.reason, failure.index)
    return msgspec.structs.replace(cell, body=body)


def plain_look(look: Look | None) -> Any:
    """How often it was tried may be forgotten once it has ended, or become an expansion."""
    if look is None:
        return None
    gone = {"attempt": 0, "losses": 0} if look.state >= State.EXPANDED else {}
    return msgspec.structs.replace(look, cell=plain_cell(look.cell), **gone)


def plain_node(info: NodeInfo) -> NodeInfo:
    """The same of a node; whom it blames is judged by itself.

    Whether what a step stops had just begun in that step is left open; so is when a task alone
    that has become a run first might run, where its id was used before.
    """
    gone = {"attempt": 0, "losses": 0} if info.state >= State.EXPANDED else {}
    if info.state in (State.CANCELLED, State.SKIPPED) and not info.started_ms:
        gone["ready_ms"] = 0
    if info.grown and not info.index:
        gone["ready_ms"] = 0
    return msgspec.structs.replace(info, culprit=None, **gone)


def plain_deliveries(deliveries: Iterable[Delivery]) -> Any:
    """What was handed out, by id: in which order is compared where it is promised."""
    return {
        d.id: (
            d.delivery, d.attempt, d.losses, d.body, d.complete,
            {i: plain_cell(c) for i, c in d.values.items()},
        )
        for d in deliveries
    }  # fmt: skip


def plain_letter(letter: DeadLetter) -> Any:
    return msgspec.structs.astuple(letter)
