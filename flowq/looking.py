# SPDX-License-Identifier: MIT
"""From what a store shows to what people read: states, moments, values, who is missing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Protocol

import msgspec

from flowq.errors import DecodeError, Failure, NotProduced, Pending
from flowq.fragment import BUILT_IN
from flowq.message import (
    CULPRIT,
    NO_NODE,
    Cell,
    Message,
    Ref,
    Template,
    Value,
    decode_message,
    id_text,
    split_node,
)
from flowq.policy import nearest
from flowq.serializer import Serializer
from flowq.states import State
from flowq.storage.base import Look, Store
from flowq.values import Values
from flowq.wiring import TaskSpec

__all__ = [
    "Home",
    "culprit_of",
    "failure_in",
    "is_value",
    "lacking",
    "moment",
    "one_value",
    "put_together",
    "repr_in",
    "shown_state",
    "source_in",
    "tries_of",
]


class Home(Protocol):
    """What a handle must know of the app that made it."""

    @property
    def name(self) -> str:
        """The app's name."""
        ...

    @property
    def serializer(self) -> Serializer:
        """Codec of results."""
        ...

    @property
    def store(self) -> Store:
        """Where to ask."""
        ...

    def command(self, queue: str | None = None) -> str:
        """How a worker for it is started, as one would type it."""
        ...

    def spec(self, name: str) -> TaskSpec:
        """A registered task."""
        ...

    def result(self, id: str) -> Any:
        """The handle of one task or node."""
        ...


def shown_state(state: State) -> str:
    """Write the state of a task or run as people read it: an expanded one is running."""
    return "running" if state is State.EXPANDED else state.label


def moment(ms: int) -> datetime | None:
    """Give milliseconds since 1970 as an aware datetime; None for 0."""
    return datetime.fromtimestamp(ms / 1000, timezone.utc) if ms else None


def lacking(app: Home, id: bytes, state: State) -> str | None:
    """Say why no live worker would run what is queued or scheduled; None if one would."""
    raw = app.store.message(id)
    try:
        return None if raw is None else _nobody_for(app, decode_message(raw), state)
    except DecodeError as err:  # a worker will tell it too
        return str(err)


def _nobody_for(app: Home, message: Message, state: State) -> str | None:
    store = app.store
    sessions = store.sessions()
    serving = [s for s in sessions if message.queue in s.queues]
    start = f"start one: {app.command(message.queue)}"
    known = {name for s in serving for name in s.tasks}
    if serving and message.task not in known | BUILT_IN:
        return (
            f"no live worker of {store.url} that serves queue {message.queue!r} knows task "
            f"{message.task!r}{nearest(message.task, known)}; restart them with the present code, "
            f"or {start}"
        )
    # What is due later may find a worker by then. Not so a task that those who live do not know:
    # they hand it back, and it is due later again and again.
    if serving or state is State.SCHEDULED:
        return None
    if not sessions:
        return f"no worker serves {store.url}; {start}"
    return f"no live worker of {store.url} serves queue {message.queue!r}; {start}"


def one_value(app: Home, id: bytes, look: Look, task: str = "") -> Any:
    """Give the value of an ended task, node or run, or what stands in its place.

    `task` is the name of a task that was called alone, if it is known.
    """
    run, index = (id, 0) if len(id) == 16 else split_node(id)
    cells = {} if look.cell is None else {index: look.cell}
    return put_together(app, run, Ref(index), cells, task)


def put_together(
    app: Home,
    run: bytes,
    template: Template,
    cells: Mapping[int, bytes] | None = None,
    task: str = "",
) -> Any:
    """Give a value that is made of those of a run's nodes.

    Raises
    ------
    NotProduced
        It asks for an item that a node's value does not have.
    DecodeError
        A result cannot be read.
    """
    values = Values(app.store, run, app.serializer, cells, task=task)
    try:
        return values.resolve(template)
    except (LookupError, TypeError) as err:
        raise NotProduced(
            f"the value of run {id_text(run)} names an item that is not there: "
            f"{type(err).__name__}: {err}"
        ) from None


def is_value(found: Any, state: State) -> bool:
    """Whether what was found of something that ended so is its value, not what stands for one.

    The state decides: a `Failure` may be a value. A `Pending` is what the store keeps no more.
    """
    return state is State.SUCCESS and type(found) is not Pending


def tries_of(state: State, failed: int, began: bool) -> int | None:
    """Give how many attempts have begun, by those that failed; None for none, or if unknown.

    Redis forgets the failed attempts of what has ended, so of a success 0 says nothing.
    """
    if state == State.SUCCESS and not failed:
        return None
    return failed + began or None


def failure_in(cell: Cell) -> Failure | None:
    """Give the failure that a cell holds, if it holds one."""
    if cell.state not in (State.FAILED, State.BLOCKED) or cell.flags & CULPRIT:
        return None
    try:
        return msgspec.msgpack.decode(cell.body, type=Failure)
    except msgspec.MsgspecError:
        return Failure("", "", None, "undecodable", "", "a failure that cannot be read")


def repr_in(cell: Cell) -> str:
    """Give the short ``repr`` that a worker has stored beside a value; empty if there is none."""
    if cell.state != State.SUCCESS or cell.flags:
        return ""
    try:
        return msgspec.msgpack.decode(cell.body, type=Value).repr
    except msgspec.MsgspecError:
        return ""


def source_in(cell: Cell) -> str:
    """Give the id of what had computed a value that came from the cache; empty for any other."""
    if cell.state != State.SUCCESS or cell.flags:
        return ""
    try:
        return msgspec.msgpack.decode(cell.body, type=Value).source
    except msgspec.MsgspecError:
        return ""


def culprit_of(cell: Cell) -> int | None:
    """Give the index of the node to blame, where the cell names one."""
    if not cell.flags & CULPRIT:
        return None
    index = int.from_bytes(cell.body[:4], "big")
    return None if index == NO_NODE else index
