# SPDX-License-Identifier: MIT
"""The seams between composing and the app, so that neither imports the other.

A graph is built from `TaskSpec` objects and started through a `Submitter`; what comes back is a
`RunHandle`. The app and its handles implement all three.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from flowq.message import Message
    from flowq.plan import Plan
    from flowq.serializer import Serializer

__all__ = ["HABITS", "RunHandle", "Submitter", "TaskSpec", "habit"]

T_co = TypeVar("T_co", covariant=True)


class RunHandle(Protocol[T_co]):
    """A started graph, as far as composing needs to know it; see `flowq.run.Run`."""

    @property
    def id(self) -> str:
        """The run's id."""
        ...

    def get(self, blocking: bool = False, timeout: float | None = None) -> T_co | None:
        """Give the run's value."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the run's end."""
        ...


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
    def submitter(self) -> Submitter:
        """The app that it belongs to."""
        ...


class Submitter(Protocol):
    """Where a graph goes when it is started; the app."""

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

    def start_message(self, message: Message, spec: TaskSpec, args: Any, kwargs: Any) -> Any:
        """Enqueue one task alone; gives its ``Result``."""
        ...

    def start_plan(self, plan: Plan, *, members: Any = None) -> Any:
        """Submit a plan; gives its ``Run``.

        With `members` (the `flowq.plan.Ranges` of the root's members, in order), it gives the
        ``ResultGroup`` over them.
        """
        ...


HABITS: dict[str, str] = {
    # Celery
    "delay": "call the task: add(1, 2) enqueues; to wait, add.options(delay=60)(1, 2)",
    "apply_async": "add.options(delay=60, priority=5)(1, 2) enqueues with options",
    "apply": "add.call_local(1, 2) runs it here",
    "si": "write a.s() >> b.s() for order without a value",
    "signature": "write add.s(1, 2)",
    "subtask": "write add.s(1, 2)",
    "link": "write a.s() | b.s()",
    "link_error": "write b.options(trigger_rule='one_failed').s() after it",
    "set": "write .options(priority=5)",
    "clone": "signatures do not change; write .options(...) for a copy with other options",
    "freeze": "start it and read .id",
    "skew": "write .options(delay=...) on the members",
    "chunks": "write .map(...); messages travel in batches by themselves",
    "update_state": "log, or return a value",
    "retry": "raise flowq.Retry(delay=...) in the body, or declare @q.task(retries=3)",
    "revoke": "write .cancel() on what starting gave",
    "forget": "say .options(result_ttl=0), or let it expire",
    "successful": "compare .state with 'success'",
    "status": "read .state",
    # Huey
    "then": "write a.s() | b.s()",
    "error": "write b.options(trigger_rule='one_failed').s() after it",
    "is_ready": "read .ready on what starting gave",
    "is_revoked": "read .state",
    "restore": "enqueue it again; what is cancelled stays so",
    "reset": "reading a result does not destroy it",
    # RQ, Dramatiq, taskiq, arq
    "enqueue": "call the task, or .start() a composition",
    "enqueue_in": "write add.options(delay=60)(1, 2)",
    "enqueue_at": "write add.options(eta=moment)(1, 2)",
    "send": "call the task: add(1, 2) enqueues",
    "send_with_options": "add.options(delay=60)(1, 2) enqueues with options",
    "message": "write add.s(1, 2)",
    "pipe": "write a.s() | b.s()",
    "kiq": "call the task: add(1, 2) enqueues",
    "kicker": "write add.options(...)(1, 2)",
    "job": "call the task: add(1, 2) enqueues",
    # Airflow, Prefect, Dagster
    "set_upstream": "write .after(other), or other >> this",
    "set_downstream": "write this >> other",
    "expand": "write .map(xs)",
    "partial": "write .s(...) with what is bound, then .map(xs)",
    "override": "write .options(...)",
    "submit": "call the task, or .start() a composition",
    "run": "write .start(), or call the task",
    "wait_for": "write .after(other)",
    "with_options": "write .options(...)",
    "execution_timeout": "timeouts are not supported yet",
}
"""Words of other libraries, and what flowq says instead. Shared by tasks and compositions."""


def habit(name: str, who: str) -> str | None:
    """The answer to a word of another library; None if it is not known.

    Examples
    --------
    >>> habit("si", "a signature")
    "a signature has no 'si'; write a.s() >> b.s() for order without a value"
    """
    said = HABITS.get(name)
    return None if said is None else f"{who} has no {name!r}; {said}"
