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

__all__ = ["RunHandle", "Submitter", "TaskSpec"]

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
