# SPDX-License-Identifier: MIT
"""The seams between composing and the app, so that neither imports the other.

A graph is built from `TaskSpec` objects and started through a `Submitter`; tasks and the app
implement them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from flowq.message import Message
    from flowq.plan import Plan
    from flowq.serializer import Serializer

__all__ = [
    "ConsumerHandle",
    "Event",
    "FitsAnywhere",
    "Gives",
    "Progress",
    "RunNode",
    "Started",
    "Stopping",
    "Submitter",
    "TaskSpec",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

if TYPE_CHECKING:
    # For checkers what stands for a value fits any parameter and can be indexed, so that what a
    # flow binds (`report(rows)`, rows a Result) is right for them; flowq's own check at build is
    # the test.
    class FitsAnywhere(Any):  # type: ignore[misc]  # meant, see above
        """The typing base of handles, nodes, signatures and graphs."""

        def __getitem__(self, key: Any, /) -> Any: ...
        def __iter__(self) -> Any: ...
        def __rshift__(self, other: Any, /) -> Any: ...
        def __rrshift__(self, other: Any, /) -> Any: ...

    class Gives(FitsAnywhere, Generic[T_co]):
        """The typing base of what gives a value of one type, once it has run."""
else:

    class FitsAnywhere:
        """The typing base of what stands for a value; at run time it has nothing."""

        __slots__ = ()

    class Gives(FitsAnywhere):
        """The typing base of what gives a value of one type; at run time it has nothing."""

        __slots__ = ()

        def __class_getitem__(cls, kind: Any) -> Any:
            """Give itself, whatever it gives."""
            return cls


class Progress(msgspec.Struct, frozen=True):
    """How far something is; none of the numbers ever goes back.

    Attributes
    ----------
    done : int
        How many have ended, however.
    known : int
        How many there are, as far as is known.
    failed : int
        How many of `done` failed or were blocked.
    running : int
        How many are being worked on.
    more : bool
        Whether more may come than are known.
    """

    done: int
    known: int
    failed: int = 0
    running: int = 0
    more: bool = False

    def __str__(self) -> str:
        text = f"{self.done} of {self.known}{'+' if self.more else ''} done"
        return f"{text}, {self.failed} failed" if self.failed else text


class Stopping(msgspec.Struct, frozen=True):
    """What a cancel came to; true if it is stopped or being stopped.

    Attributes
    ----------
    stopped : bool
        By this call or an earlier one; False if its outcome stands, whatever else was ended.
    state : str
        Where it stands after the call.
    running : int
        How many bodies run on: they are told, and end within their grace.
    cleanup : bool
        Whether what is ``finally_`` is still to end; ``cancel(force=True)`` ends it too.
    """

    stopped: bool
    state: str
    running: int = 0
    cleanup: bool = False

    def __bool__(self) -> bool:
        return self.stopped

    def __str__(self) -> str:
        if self.state not in ("running", "paused"):
            return self.state if self.stopped else f"it had ended before: {self.state}"
        told = []
        if self.running:
            told.append(f"{self.running} running bod{'y' if self.running == 1 else 'ies'} told")
        if self.cleanup:
            told.append("its cleanup (finally_) still runs; force ends it too")
        head = "being stopped" if self.stopped else "its outcome stands"
        return "; ".join([head, *told])


class RunNode(msgspec.Struct, frozen=True):
    """One node of a run, as it stood when it was read.

    Attributes
    ----------
    index : int
    name : str
    id : str
        Opens it: ``q.result(node.id)``.
    task : str
        Registered name; empty for a node that no worker runs.
    state : str
    attempt : int
        How many attempts have failed.
    losses : int
        How many workers were lost while running it.
    ready_at, started_at, ended_at : datetime or None
        When it first might run; when the body of the delivery that settled it began (while it
        runs: when it was handed out); when it ended. In UTC.
    parents : tuple of int
        Indexes of the nodes directly above.
    culprit : int or None
        For a node that is ``blocked``: the index of the one to blame.
    """

    index: int
    name: str
    id: str
    task: str
    state: str
    attempt: int
    losses: int
    ready_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    parents: tuple[int, ...]
    culprit: int | None

    @property
    def run_time(self) -> float | None:
        """Seconds that its last body took; None where none ran or it has not ended."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


class Event(msgspec.Struct, frozen=True):
    """A node, or the whole, began or ended.

    Attributes
    ----------
    at : datetime
        When, in UTC, to the millisecond.
    node : str
        Its path; empty for the run itself, and for a task that was called alone.
    task : str
        Registered name; empty for what no worker runs.
    state : str
        ``"running"``: its body began; ``"expanded"``: what it became began; else how it ended.
    why : str
        Of what ended without a value: why.
    attempt : int
        Of ``"running"``: which attempt, from 1. 0 where that is not known any more, or no body ran.
    generation : int
        How often it was run anew (`Run.retry`, `Run.rerun`).
    index : int
        Of the node; 0 is the run itself.
    id : str
        Opens it: ``q.result(event.id)``.
    order : tuple of int
        Its place among the events of its run.
    """

    at: datetime
    node: str
    task: str
    state: str
    why: str
    attempt: int
    generation: int
    index: int
    id: str
    order: tuple[int, int, int, int]


class Started:
    """What was started and stands for it: a handle. Composing must know one when it sees it."""


class TaskSpec(Protocol):
    """What composing must know of a task."""

    @property
    def name(self) -> str:
        """Registered name, ``module.qualname``."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """Checked options of the declaration, over the app's defaults."""
        ...

    @property
    def parameters(self) -> inspect.Signature:
        """What a caller may pass (the ``task`` of ``context=True`` left out)."""
        ...

    @property
    def hints(self) -> Mapping[str, Any]:
        """Annotations by parameter, and ``return``: those that can be resolved."""
        ...

    @property
    def submitter(self) -> Submitter:
        """The app that it belongs to."""
        ...


class Submitter(Protocol):
    """Where a graph goes when it is started; the app."""

    @property
    def name(self) -> str:
        """Its name, of which ids under keys are made."""
        ...

    @property
    def serializer(self) -> Serializer:
        """Codec of arguments and results."""
        ...

    @property
    def run_defaults(self) -> Mapping[str, Any]:
        """Checked options that a run has unless it says otherwise."""
        ...

    def spec(self, name: str) -> TaskSpec:
        """Give a registered task.

        Raises
        ------
        UnknownTask
            None is registered under that name; the text gives the nearest.
        """
        ...

    def start_message(
        self, message: Message, spec: TaskSpec, args: Any, kwargs: Any, *, detached: bool = False
    ) -> Any:
        """Enqueue one task alone; gives its ``Result``. See `start_plan` for `detached`."""
        ...

    def start_plan(self, plan: Plan, *, members: Any = None, detached: bool = False) -> Any:
        """Submit a plan; gives its ``Run``.

        If a body starts it, it is cancelled with that body, unless it is `detached`. With `members`
        (the `flowq.plan.Ranges` of the root's members, in order), it gives the
        ``ResultGroup`` over them.
        """
        ...


class ConsumerHandle(Protocol):
    """A consumer inside this process; see `flowq.consumer.Consumer`."""

    def start(self) -> Any:
        """Start it; gives it back."""
        ...

    def stop(self, timeout: float | None = None) -> None:
        """Let running tasks finish, put back the rest, and stop."""
        ...

    def run(self) -> int:
        """Run it here until it is stopped by a signal; gives the exit status."""
        ...

    def __enter__(self) -> Any: ...
    def __exit__(self, *exc: object) -> None: ...
