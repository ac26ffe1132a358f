# SPDX-License-Identifier: MIT
"""What one attempt came to: the words in which a worker tells its store."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import msgspec

from flowq.plan import NodeRow
from flowq.states import State

__all__ = [
    "Cancelled",
    "Done",
    "Expand",
    "Failed",
    "GiveBack",
    "Outcome",
    "RetryAt",
    "Skipped",
    "Unknown",
]


class Done(msgspec.Struct, frozen=True):
    """The body returned. `cell` carries the value (see `flowq.message.pack_cell`)."""

    state: ClassVar[State] = State.SUCCESS
    id: bytes
    delivery: int
    cell: bytes


class RetryAt(msgspec.Struct, frozen=True):
    """The attempt failed and counts; the next one is due in `delay_ms`."""

    id: bytes
    delivery: int
    delay_ms: int


class Failed(msgspec.Struct, frozen=True):
    """Failed for good. With a `dead` reason, the message is kept among the dead letters."""

    state: ClassVar[State] = State.FAILED
    id: bytes
    delivery: int
    cell: bytes
    dead: str = ""


class Skipped(msgspec.Struct, frozen=True):
    """The body raised ``Skip``."""

    state: ClassVar[State] = State.SKIPPED
    id: bytes
    delivery: int
    cell: bytes


class Cancelled(msgspec.Struct, frozen=True):
    """The body was interrupted after a cancel."""

    state: ClassVar[State] = State.CANCELLED
    id: bytes
    delivery: int
    cell: bytes


class Expand(msgspec.Struct, frozen=True):
    """The node becomes a plan instead of a value: a map's items, an arm, a graph that was returned.

    Attributes
    ----------
    id : bytes
    delivery : int
    rows : list of NodeRow
        A fragment (see `flowq.plan.relocate`). Row 0 speaks of the node itself: `entries`,
        `inner`, `body`, `later`, `tolerate` and `value`; the others are its inner nodes, each
        expansion before what is inside it.
    """

    state: ClassVar[State] = State.EXPANDED
    id: bytes
    delivery: int
    rows: list[NodeRow]


class GiveBack(msgspec.Struct, frozen=True):
    """Not started: back to the front of its queue; no attempt and no loss is counted."""

    id: bytes
    delivery: int


class Unknown(msgspec.Struct, frozen=True):
    """The worker does not know the task: back with growing delay, then a dead letter.

    `cell` is what the node ends with if the store's patience (10 minutes) is over.
    """

    id: bytes
    delivery: int
    cell: bytes


Outcome: TypeAlias = Done | RetryAt | Failed | Skipped | Cancelled | Expand | GiveBack | Unknown
