# SPDX-License-Identifier: MIT
"""What a body can ask about itself while it runs."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from flowq.message import derived_id, id_bytes, id_text

__all__ = ["CURRENT", "CurrentTask", "current_task"]


class CurrentTask:
    """The task whose body is running.

    Attributes
    ----------
    name : str
        Registered name of the task.
    attempt : int
        Which execution of the body this is, from 1; a lost worker does not count.
    retries_left : int
        How many more there may be if this one fails.
    deliveries : int
        How often it was handed out, this time included.
    node : str or None
        Name of its node; None for a task called alone.
    index : int or None
        Its place in its map, where it has one.
    queue : str
    priority : int
    """

    __slots__ = (
        "_event",
        "_generation",
        "_id",
        "_run",
        "_started",
        "_stopped",
        "_store",
        "_young",
        "attempt",
        "deliveries",
        "index",
        "name",
        "node",
        "priority",
        "queue",
        "retries_left",
    )

    def __init__(
        self,
        *,
        id: str | bytes,
        name: str,
        attempt: int = 1,
        retries_left: int = 0,
        deliveries: int = 1,
        node: str | None = None,
        run: str | bytes | None = None,
        index: int | None = None,
        queue: str = "default",
        priority: int = 0,
        generation: Callable[[], int] | None = None,
        store: Any = None,
    ) -> None:
        self._id = id
        self.name = name
        self.attempt = attempt
        self.retries_left = retries_left
        self.deliveries = deliveries
        self.node = node
        self._run = run
        self.index = index
        self.queue = queue
        self.priority = priority
        self._stopped = False
        self._event: threading.Event | None = None  # most bodies never look
        self._store = store  # where it is kept; None where nothing was handed out
        self._generation = generation  # asked for where it matters
        self._started: dict[bytes, int] | None = None  # most bodies start nothing
        self._young: list[tuple[Any, bytes]] | None = None

    def __repr__(self) -> str:
        return f"<CurrentTask {self.name} {self.id} attempt {self.attempt}>"

    @property
    def id(self) -> str:
        """Its id: the same over all attempts and deliveries, so it can serve as idempotency key."""
        return self._id if isinstance(self._id, str) else id_text(self._id)

    @property
    def run(self) -> str | None:
        """Id of its run; None for a task called alone."""
        return id_text(self._run) if isinstance(self._run, bytes) else self._run

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled; a long body looks here and returns early."""
        return self._stopped

    def wait_cancelled(self, timeout: float) -> bool:
        """Sleep `timeout` seconds, or less if it is cancelled; says whether it was."""
        with _guard:
            event = self._event = self._event or threading.Event()
            if self._stopped:
                event.set()
        return event.wait(timeout)

    def start_id(self, what: bytes) -> bytes:
        """Give the id under which the body starts something: the same in every delivery.

        A body whose worker was lost runs again in full. What it starts then has the ids of what it
        started before, and so is not started a second time.

        Parameters
        ----------
        what : bytes
            Says what it starts. Equal ones are told apart by their order.
        """
        with _guard:
            started = self._started = {} if self._started is None else self._started
            nth = started[what] = started.get(what, 0) + 1
        generation = self._generation() if self._generation is not None else 0
        id = id_bytes(self._id) if isinstance(self._id, str) else self._id
        which = b"%d %d %d" % (generation, self.attempt, nth)
        return derived_id(b"started", id, which, what)

    def parent_in(self, store: Any) -> bytes:
        """Give its id for what it starts in a store, or none if it is kept in another one."""
        if store is not self._store:
            return b""
        return id_bytes(self._id) if isinstance(self._id, str) else self._id

    def adopt(self, app: Any, id: bytes) -> None:
        """Take note of what the body starts: it is cancelled with it."""
        with _guard:
            self._young = [] if self._young is None else self._young
            self._young.append((app, id))

    def disown(self, app: Any, id: bytes) -> None:
        """Take that back: it was started by others too."""
        with _guard:
            self._young = [x for x in self._young or () if x != (app, id)]

    def cancel_started(self) -> None:
        """Cancel what the body has started."""
        apps: dict[int, tuple[Any, list[bytes]]] = {}
        for app, id in self._young or ():
            apps.setdefault(builtins.id(app), (app, []))[1].append(id)
        for app, ids in apps.values():
            for at in range(0, len(ids), 1_000):
                app.store.cancel(ids[at : at + 1_000])

    def stop(self) -> None:
        """Mark it as cancelled; the worker does."""
        with _guard:
            self._stopped = True
            if self._event is not None:
                self._event.set()


_guard = threading.Lock()
CURRENT: ContextVar[CurrentTask | None] = ContextVar("flowq_current_task", default=None)


def current_task() -> CurrentTask:
    """Give the task whose body is running.

    Raises
    ------
    LookupError
        Called outside of a body.
    """
    found = CURRENT.get()
    if found is None:
        raise LookupError("current_task() is for the body of a task; none is running here")
    return found
