# SPDX-License-Identifier: MIT
"""What was called, as a handle tells it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from flowq.looking import Home, moment
from flowq.message import Message, id_text, made_ms
from flowq.states import State

__all__ = ["Call"]


class Call:
    """What was called: a task's name, its arguments, and what is flowq's.

    Attributes
    ----------
    id, name : str
        The message's id; the registered name of the task.
    args : tuple
    kwargs : dict
        What came over edges is not among them. Of a chunk of a map, a position that elements fill
        holds a tuple for each of them.
    eta : datetime or None
        Moment before which it does not run, in UTC: as it stands if it waits, rescheduled or
        before a retry too; once it has ended, as it was called.
    retries : int
    priority : int
    queue : str
    """

    __slots__ = ("_app", "_arguments", "_message")

    def __init__(self, app: Home, message: Message, arguments: tuple[Any, Any] | None) -> None:
        self._app = app
        self._message = message
        self._arguments = arguments

    @property
    def id(self) -> str:
        """The message's id."""
        return id_text(self._message.id)

    @property
    def name(self) -> str:
        """Registered name of the task."""
        return self._message.task

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments."""
        return tuple(self._load()[0])

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments."""
        return dict(self._load()[1])

    @property
    def queue(self) -> str:
        """Name of its queue."""
        return self._message.queue

    @property
    def priority(self) -> int:
        """Higher is handed out first."""
        return self._message.priority

    @property
    def retries(self) -> int:
        """How often a failed body runs again."""
        if "retries" in self._message.policy:
            return int(self._message.policy["retries"])
        return int(self._app.spec(self._message.task).options.get("retries", 0))

    @property
    def eta(self) -> datetime | None:
        """Moment before which it does not run, in UTC; None if there is none."""
        look = self._app.store.look((self._message.id,), cells=False)[0]
        if look is not None and look.state is State.SCHEDULED:
            return moment(look.due_ms)
        due = self._message.due_ms
        if self._message.delay_ms and len(self._message.id) == 16:
            # of what was started under a key, or by a body, the id does not tell
            made = made_ms(self._message.id)
            due = made + self._message.delay_ms if made else due
        at = moment(due)
        if at and look is not None and not look.state.final and at > datetime.now(timezone.utc):
            return None  # rescheduled to an earlier time
        return at

    def __repr__(self) -> str:
        return f"<Call: {self.name} {self.id}>"

    def _load(self) -> tuple[Any, Any]:
        if self._arguments is None:
            loaded = self._app.serializer.loads(self._message.payload)
            self._arguments = (loaded[0], loaded[1])
        return self._arguments
