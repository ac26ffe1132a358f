# SPDX-License-Identifier: MIT
"""Every error that flowq raises, and what each asks of the reader.

::

    FlowqError
    ├ ConfigError          a setting, a URL, an option in a wrong place          (ValueError)
    ├ TaskDefinitionError  a task that cannot be registered                      (ValueError)
    ├ GraphError           at build; names the node and the parameter            (ValueError)
    │ ├ CycleError
    │ ├ BindingError                                                             (TypeError)
    │ ├ NoArm              a branch has none for a value, when it runs            (LookupError)
    │ ├ UnknownTask                                                              (LookupError)
    │ └ NodeUsedAsValue                                                          (TypeError)
    ├ KeyReused            an idempotency key, with other arguments              (ValueError)
    ├ PayloadError         keeps the cause, never the payload
    │ ├ PayloadTooLarge
    │ └ DecodeError
    ├ TaskError            the remote error, as text
    │ ├ GroupError         with ``.failures``
    │ └ WorkerLost
    ├ NotProduced          why there is no value
    │ ├ RunCancelled
    │ └ ResultMissing                                                            (LookupError)
    ├ BlockingInTask       a body waits for another task                         (RuntimeError)
    ├ ResultTimeout                                                              (TimeoutError)
    └ StoreError
      ├ StoreUnavailable   it is not known what happened; trying again is safe   (ConnectionError)
      └ StoreVersionError
    Retry, Skip            what a task raises; not errors
    Interrupted            what a stopped body sees; a BaseException
    └ TaskCancelled
    BindingWarning         at build: a value that may not fit its parameter    (UserWarning)
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

__all__ = [
    "BindingError",
    "BindingWarning",
    "BlockingInTask",
    "Cancelled",
    "ConfigError",
    "CycleError",
    "DeadlineExceeded",
    "DecodeError",
    "Failure",
    "FlowqError",
    "GraphError",
    "GroupError",
    "Interrupted",
    "KeyReused",
    "NoArm",
    "NodeUsedAsValue",
    "NotProduced",
    "PayloadError",
    "PayloadTooLarge",
    "Pending",
    "ResultMissing",
    "ResultTimeout",
    "Retry",
    "RunActive",
    "RunCancelled",
    "RunEnded",
    "Skip",
    "Skipped",
    "StoreError",
    "StoreUnavailable",
    "StoreVersionError",
    "TaskCancelled",
    "TaskDefinitionError",
    "TaskError",
    "UnknownTask",
    "WaitTimeout",
    "WorkerLost",
    "error_of",
]


class FlowqError(Exception):
    """The root of what flowq raises; catching it catches no error of a task's own body."""


class ConfigError(FlowqError, ValueError):
    """A setting, URL or option that cannot be used as given; the text says what may be."""


class TaskDefinitionError(FlowqError, ValueError):
    """A function that cannot become a task as it was declared."""


class GraphError(FlowqError, ValueError):
    """A graph that cannot run; the text names the node and the parameter."""


class CycleError(GraphError):
    """A graph whose edges lead back to where they began, spelled out as ``a -> b -> a``."""


class BindingError(GraphError, TypeError):
    """An argument that does not fit its task: missing, unexpected, bound twice, of a wrong type."""


class BindingWarning(UserWarning):
    """An edge whose value may not fit its parameter, by what their annotations say."""


class NoArm(GraphError, LookupError):
    """A branch has no arm for the value of its condition, and no default; the text has both."""


class UnknownTask(GraphError, LookupError):
    """A task name that the app has not registered; the text gives the nearest names known."""


class NodeUsedAsValue(GraphError, TypeError):
    """A step was used as if its value were known; it is known only when the graph runs."""


class KeyReused(FlowqError, ValueError):
    """An idempotency key was used before with other arguments; the text has both.

    Nothing was started. What the key gives is ``q.result(id)`` or ``q.run(id)``.

    Attributes
    ----------
    id : str
        Id of what was started under the key.
    """

    def __init__(self, text: str, id: str = "") -> None:
        super().__init__(text)
        self.id = id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.id)


class PayloadError(FlowqError):
    """Arguments or a result that cannot travel."""


class PayloadTooLarge(PayloadError, ValueError):
    """Arguments or a result over the limit of 16 MiB; pass a path or a key instead."""


class DecodeError(PayloadError, ValueError):
    """Bytes that are no message or value of flowq."""


class Failure(msgspec.Struct, frozen=True, array_like=True, omit_defaults=False):
    """What stands where the value of a ``failed`` or ``blocked`` node is missing.

    Attributes
    ----------
    task : str
        Registered name of the task that failed.
    id : str
        Id of the failed task or node, as text.
    node : str or None
        Name of the node in its run; None for a task that was called alone.
    reason : str
        ``"error"``, ``"expired"``, ``"lost"``, ``"unknown task"``, ``"undecodable"`` or
        ``"payload"``.
    exc_type : str
        Qualified name of the exception's class, ``"builtins.ValueError"``.
    message : str
        ``repr`` of the exception.
    traceback : str
        The remote traceback as text; empty where no body ran.
    attempts : int
        How many times the body was executed.
    bases : tuple of str
        Qualified names of the classes that the exception is an instance of, for `is_a`.
    index : int or None
        Place in its map or group, where it has one; of a chunk, that of the element that failed
        (of the first, where that is not known: a worker was lost).
    args : tuple
    kwargs : dict
        What the task was called with: filled in for handlers and fallbacks, where it is kept and
        can be read.
    called : bytes
        For what was started under an idempotency key: see `flowq.message.Message.called`.
    versions : tuple of str, or None
        The ``version=`` of the task when the call was built, and the one under which it ran, if
        that was another; ``""`` for none.
    """

    task: str
    id: str
    node: str | None
    reason: str
    exc_type: str
    message: str
    traceback: str = ""
    attempts: int = 0
    bases: tuple[str, ...] = ()
    index: int | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    called: bytes = b""
    versions: tuple[str, str] | None = None

    def is_a(self, kind: type[BaseException]) -> bool:
        """Whether the remote exception was of this class, by name; see `TaskError.is_a`."""
        return f"{kind.__module__}.{kind.__qualname__}" in (self.exc_type, *self.bases)

    def __bool__(self) -> bool:
        """False, so that ``[x for x in values if x]`` does not keep failures."""
        return False


class Skipped(msgspec.Struct, frozen=True, array_like=True):
    """What stands where a node was skipped."""

    task: str
    id: str
    node: str | None
    reason: str = ""

    def __bool__(self) -> bool:
        """False."""
        return False


class Cancelled(msgspec.Struct, frozen=True, array_like=True):
    """What stands where a node was cancelled."""

    task: str
    id: str
    node: str | None
    reason: str = ""

    def __bool__(self) -> bool:
        """False."""
        return False


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """What stands where a parent had not ended when an early node ran."""

    task: str
    id: str
    node: str | None

    def __bool__(self) -> bool:
        """False."""
        return False


class TaskError(FlowqError):
    """A task failed for good; its text is the ``repr`` of the original exception.

    Attributes
    ----------
    failure : Failure
        Everything that is known of the failure.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.failure,)

    @property
    def task(self) -> str:
        """Registered name of the task that failed."""
        return self.failure.task

    @property
    def node(self) -> str | None:
        """Name of the failed node in its run, or None."""
        return self.failure.node

    @property
    def id(self) -> str:
        """Id of the failed task or node."""
        return self.failure.id

    @property
    def attempts(self) -> int:
        """How many times the body was executed."""
        return self.failure.attempts

    @property
    def exc_type(self) -> str:
        """Qualified name of the original exception's class."""
        return self.failure.exc_type

    @property
    def traceback(self) -> str:
        """The remote traceback, as text."""
        return self.failure.traceback

    def is_a(self, kind: type[BaseException]) -> bool:
        """Whether the original was an instance of `kind` (compared by qualified name)."""
        return self.failure.is_a(kind)


class WorkerLost(TaskError):
    """The worker died while it ran the task, more often than ``max_losses`` allows."""


class DeadlineExceeded(TaskError):
    """Something did not end by its ``deadline=``, or ran in something that did not."""


class WaitTimeout(TaskError):
    """Nobody sent in time what a step waited for."""


_BY_REASON: Final[dict[str, type[TaskError]]] = {
    "lost": WorkerLost,
    "deadline": DeadlineExceeded,
    "timeout": WaitTimeout,
}


def error_of(failure: Failure) -> TaskError:
    """Give the error that tells of a failure."""
    return _BY_REASON.get(failure.reason, TaskError)(failure)


if sys.version_info >= (3, 11):

    class _Several(TaskError, builtins.ExceptionGroup[FlowqError]):
        """What makes a `GroupError` an ``ExceptionGroup`` too, where Python has them."""

        def __new__(cls, failures: Sequence[Failure | Skipped | Cancelled], total: int) -> _Several:
            return super().__new__(cls, "members have no value", [_error_of(f) for f in failures])

else:

    class _Several(TaskError):
        """What `GroupError` is where Python has no exception groups."""


class GroupError(_Several):
    """A map or group has ended and some of its members have no value.

    On Python 3.11 and later it is also an ``ExceptionGroup`` of a `TaskError`, `NotProduced` or
    `RunCancelled` for each of those members.

    Attributes
    ----------
    failures : list of Failure, Skipped or Cancelled
        One for each member without a value, in the order of the members; at least one.
    total : int
        How many members there are.
    """

    def __init__(self, failures: Sequence[Failure | Skipped | Cancelled], total: int) -> None:
        first = next((f for f in failures if isinstance(f, Failure)), None)
        if first is None:
            gone = failures[0]
            first = Failure(gone.task, gone.id, gone.node, "error", "", repr(gone))
        super().__init__(first)
        self.failures = list(failures)
        self.total = total

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.failures, self.total)

    def __str__(self) -> str:
        where = self.failure.node or self.failure.task
        return (
            f"{len(self.failures)} of {self.total} have no value; "
            f"the first: {where}: {self.failure.message}"
        )


class NotProduced(FlowqError):
    """There will be no value: the task was skipped, or keeps no result; the text says why."""


class RunCancelled(NotProduced):
    """The task or run was cancelled, so there will be no value."""


class RunActive(FlowqError):
    """A run has not ended, and what was asked for is for those that have."""


class RunEnded(FlowqError):
    """A run has ended, so nothing can be sent to it any more."""


class ResultMissing(NotProduced, LookupError):
    """The store does not know this id: never enqueued here, or expired (``result_ttl``)."""


def _error_of(gone: Failure | Skipped | Cancelled) -> FlowqError:
    if isinstance(gone, Failure):
        return error_of(gone)
    return RunCancelled(repr(gone)) if isinstance(gone, Cancelled) else NotProduced(repr(gone))


class BlockingInTask(FlowqError, RuntimeError):
    """A body waits for another task: a pool whose workers all wait has none left to run it."""


class ResultTimeout(FlowqError, TimeoutError):
    """The value did not come within ``timeout`` seconds; the task goes on all the same."""


class StoreError(FlowqError):
    """The store refused, or something is wrong with what it holds."""


class StoreUnavailable(StoreError, ConnectionError):
    """The store cannot be reached. It is not known what happened; trying again is safe."""


class StoreVersionError(StoreError):
    """The store was laid out by another version, or belongs to another app."""


class Retry(Exception):
    """Raise in a task's body to be run again, whatever the exception filter says.

    Uses up one of ``retries``; when none is left, the task fails with this as its error.

    Parameters
    ----------
    message : str
        For the log, and for the caller if it was the last attempt.
    delay : float, optional
        Seconds to wait; the task's own backoff unless given.
    """

    def __init__(self, message: str = "", *, delay: float | None = None) -> None:
        super().__init__(message)
        self.delay = delay


class Skip(Exception):
    """Raise in a task's body to end it as ``skipped``: it was not wanted, nothing is wrong."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Interrupted(BaseException):
    """What a body that is stopped from outside sees; do not swallow it."""


class TaskCancelled(Interrupted):
    """The task was cancelled while its body ran."""
