# SPDX-License-Identifier: MIT
"""What an attempt came to: the one place that decides between done, again and failed.

`decide` is a pure function of what a body did and of its policy. The other half of "what happens
next?" is ``Store.step``, which applies the outcome by the tables of `flowq.states`.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import msgspec

from flowq.errors import DecodeError, Failure, PayloadError, Retry, Skip, TaskCancelled
from flowq.message import Delivery, Message, Value, id_text, pack_cell
from flowq.outcome import Cancelled, Done, Failed, Outcome, RetryAt, Skipped, Unknown
from flowq.policy import RetryPolicy, to_ms, wait_ms
from flowq.serializer import Serializer, short_repr
from flowq.states import State

__all__ = [
    "decide",
    "describe",
    "done",
    "exception_text",
    "traceback_text",
    "undecodable",
    "unknown_task",
]

MAX_TRACEBACK: Final = 64 * 1024
"""Characters of a traceback that are kept: the beginning and the end."""
MAX_MESSAGE: Final = 4 * 1024
"""Characters of an exception's ``repr`` that are kept."""
LONGEST_WAIT_MS: Final = 10 * 365 * 86_400_000
"""Before a retry; what a store can keep as a number."""

_encode = msgspec.msgpack.Encoder().encode
_SUCCESS = State.SUCCESS.value


def done(
    delivery: Delivery,
    value: Any,
    serializer: Serializer,
    started_ms: int,
    ended_ms: int,
    called: bytes = b"",
    versions: tuple[str, str] | None = None,
) -> Done:
    """Give the outcome of a body that returned.

    Raises
    ------
    PayloadError
        The value cannot travel: `decide` makes a failure of it.
    """
    payload = serializer.dumps(value, "the result")
    try:
        body = _encode(Value(payload, short_repr(value), "", called, versions))
    except UnicodeEncodeError:  # a repr of the user's own, with half a character
        body = _encode(Value(payload, _text(short_repr(value)), "", called, versions))
    cell = pack_cell(
        _SUCCESS,
        body,
        delivery=delivery.delivery,
        started_ms=started_ms,
        ended_ms=ended_ms,
    )
    return Done(delivery.id, delivery.delivery, cell)


def decide(
    message: Message,
    delivery: Delivery,
    error: BaseException,
    policy: RetryPolicy,
    *,
    started_ms: int,
    ended_ms: int,
    rand: Callable[[], float] = random.random,
    element: int | None = None,
    versions: tuple[str, str] | None = None,
) -> Outcome:
    """Say what a body came to that did not return.

    Parameters
    ----------
    message : Message
    delivery : Delivery
        `Delivery.attempt` counts the attempts that failed before this one.
    error : BaseException
        What it raised, or why its result cannot travel.
    policy : RetryPolicy
        The task's own, with what the message says otherwise.
    started_ms, ended_ms : int
    rand : callable
        Gives numbers from 0 to 1, for jitter.
    element : int, optional
        Where the task was called for several elements of a map: the place of the one it was at.
    versions : tuple of str, optional
        See `Failure.versions`.

    Returns
    -------
    Outcome
        `RetryAt` while retries are left and the exception is one that is tried again; `Skipped`
        for ``Skip``; `Cancelled` for ``TaskCancelled``; else `Failed`.
    """
    times = {"delivery": delivery.delivery, "started_ms": started_ms, "ended_ms": ended_ms}
    if isinstance(error, Skip):
        reason = _reason(error).encode("utf-8", "replace")
        cell = pack_cell(State.SKIPPED, reason, **times)
        return Skipped(delivery.id, delivery.delivery, cell)
    if isinstance(error, TaskCancelled):
        cell = pack_cell(State.CANCELLED, b"cancelled while it ran", **times)
        return Cancelled(delivery.id, delivery.delivery, cell)
    failed = delivery.attempt + 1
    if failed <= policy.retries and not isinstance(error, PayloadError):
        if isinstance(error, Retry):
            delay = _asked(error)
            wait = wait_ms(policy, failed, rand) if delay is None else delay
            return RetryAt(delivery.id, delivery.delivery, min(wait, LONGEST_WAIT_MS))
        if policy.wants(error):
            wait = min(wait_ms(policy, failed, rand), LONGEST_WAIT_MS)
            return RetryAt(delivery.id, delivery.delivery, wait)
    failure = describe(message, error, failed, element, versions)
    cell = pack_cell(State.FAILED, _encode(failure), **times)
    return Failed(delivery.id, delivery.delivery, cell)


def _reason(error: Skip) -> str:
    try:
        return str(error.reason)
    except BaseException as err:  # a text of the user's own
        return f"<a reason whose str raised {type(err).__name__}>"


def _asked(error: Retry) -> int | None:
    """The delay that a body asked for, in milliseconds; nonsense counts as not asked."""
    if error.delay is None:
        return None
    try:
        return to_ms(error.delay)
    except ValueError:
        return None


def describe(
    message: Message,
    error: BaseException,
    attempts: int,
    element: int | None = None,
    versions: tuple[str, str] | None = None,
) -> Failure:
    """Turn an exception into the failure that travels: text and names, never the object."""
    kinds = [
        _text(f"{c.__module__}.{c.__qualname__}") for c in type(error).__mro__ if c is not object
    ]
    trace = traceback_text(error)
    if element is not None:
        trace = f"{trace}At element {element} of its map.\n"
    return Failure(
        task=message.task,
        id=id_text(message.id),
        node=message.name or None,
        reason="payload" if isinstance(error, PayloadError) else "error",
        exc_type=kinds[0],
        message=exception_text(error),
        traceback=trace,
        attempts=attempts,
        bases=tuple(kinds[1:]),
        index=message.index if element is None else element,
        called=message.called,
        versions=versions,
    )


def exception_text(error: BaseException | None) -> str:
    """Give the ``repr`` of an exception; never raises."""
    try:
        return _text(repr(error)[:MAX_MESSAGE])
    except BaseException as err:  # an exception's own repr is the user's code
        return f"<{type(error).__name__} whose repr raised {type(err).__name__}>"


def _text(text: str) -> str:
    """Replace what UTF-8 cannot carry: lone surrogates, as undecodable file names have them."""
    return text.encode("utf-8", "replace").decode()


def traceback_text(error: BaseException) -> str:
    """Give the traceback as text, from the body's own frames on; never raises."""
    try:
        lines = traceback.format_exception(type(error), error, _body(error.__traceback__))
        text = _text("".join(lines))
    except BaseException as err:  # so is its str
        return f"<no traceback: formatting it raised {type(err).__name__}>"
    if len(text) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2
        text = f"{text[:half]}\n  ... {len(text) - MAX_TRACEBACK:,} characters ...\n{text[-half:]}"
    return text


def _body(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of the worker (and of asyncio below it): no news to the author."""
    first = trace
    while first is not None:
        module = first.tb_frame.f_globals.get("__name__", "")
        if not isinstance(module, str) or module.partition(".")[0] not in ("flowq", "asyncio"):
            return first
        first = first.tb_next
    return trace


def undecodable(delivery: Delivery, error: DecodeError, message: Message | None) -> Failed:
    """Give the outcome of bytes that are no message, or of arguments that cannot be read.

    The store keeps the bytes among the dead letters.
    """
    failure = Failure(
        task=message.task if message else "",
        id=id_text(delivery.id),
        node=(message.name or None) if message else None,
        reason="undecodable",
        exc_type="flowq.errors.DecodeError",
        message=exception_text(error),
        index=message.index if message else None,
    )
    cell = pack_cell(State.FAILED, _encode(failure), delivery=delivery.delivery, ended_ms=0)
    return Failed(delivery.id, delivery.delivery, cell, dead="undecodable")


def unknown_task(delivery: Delivery, message: Message, hint: str) -> Unknown:
    """Give the outcome of a message whose task this worker does not know."""
    failure = Failure(
        task=message.task,
        id=id_text(delivery.id),
        node=message.name or None,
        reason="unknown task",
        exc_type="flowq.errors.UnknownTask",
        message=f"UnknownTask('no worker knew {message.task} for 10 minutes{hint}')",
        index=message.index,
    )
    cell = pack_cell(State.FAILED, _encode(failure), delivery=delivery.delivery, ended_ms=0)
    return Unknown(delivery.id, delivery.delivery, cell)
