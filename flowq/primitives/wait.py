# SPDX-License-Identifier: MIT
"""A step that waits for what somebody sends to the run."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from flowq.building import TRACE
from flowq.errors import ConfigError, GraphError
from flowq.node import Body
from flowq.plan import Kind
from flowq.policy import check_name, to_ms
from flowq.primitives.base import Single, users_code
from flowq.primitives.build import Builder, Fragment
from flowq.serializer import short_repr

if TYPE_CHECKING:
    from flowq.result import Result

__all__ = ["WaitFor", "wait_for"]

R = TypeVar("R", covariant=True)
D = TypeVar("D")

_NONE: Final[Any] = object()


class WaitFor(Single[R]):
    """What ``wait_for(...)`` gives outside of flows: one node whose value is sent to it."""

    __slots__ = ("_default", "_signal", "_timeout_ms")

    _place = "wait_for"

    def __init__(self, signal: str, timeout_ms: int, default: tuple[Any, ...]) -> None:
        super().__init__()
        self._signal = signal
        self._timeout_ms = timeout_ms
        self._default = default

    def __repr__(self) -> str:
        within = f", timeout={self._timeout_ms / 1000:g}" if self._timeout_ms else ""
        default = f", default={short_repr(self._default[0])}" if self._default else ""
        return f"<wait_for {self._signal!r}{within}{default}>"

    def _base(self) -> str:
        return self._signal

    def put(self, build: Builder, body: Body) -> Fragment:
        """Add one node."""
        node = build.node(Kind.JOIN, body, self._base(), options=self._options)
        node.signal, node.timeout_ms, node.instead = self._signal, self._timeout_ms, self._default
        node.order.extend(self._after)
        return Fragment([node], [node], node, f"{self!r} takes no value; for order alone write >>")


@overload
def wait_for(name: str, *, timeout: float | timedelta | None = ...) -> Result[Any]: ...
@overload
def wait_for(name: str, *, timeout: float | timedelta, default: D) -> Result[Any | D]: ...
def wait_for(
    name: str, *, timeout: float | timedelta | None = None, default: Any = _NONE
) -> Result[Any]:
    """Wait for a value that somebody sends to the run: ``run.send(name, value)``.

    No worker is held meanwhile, and it survives restarts. It begins to wait when what it comes
    after has ended; what is sent before is kept for it. Each send is for one such step: of
    several that wait under one name the one that has waited longest gets it.

    Parameters
    ----------
    name : str
        What the value is sent under; letters, digits and ``_ . -``. The step is named so too,
        unless its options say otherwise.
    timeout : float or timedelta, optional
        Seconds from when it begins to wait. Then it has the default for a value, or fails without
        one, for the reason ``"timeout"``. Without a timeout it waits as long as the run does.
    default : object, optional

    Returns
    -------
    Result or WaitFor
        A node within a flow, else a composition.

    Raises
    ------
    GraphError
        The name cannot be one; the timeout is no length of time; a default without a timeout.

    Examples
    --------
    Given tasks `draft` and `publish`::

        @q.flow
        def article(subject):
            text = draft(subject)
            answer = wait_for("review", timeout=86_400, default="silence").after(text)
            return publish(text, answer)
    """
    where = users_code()
    try:
        signal = check_name(name, "wait_for")
        if set(signal) & set("/[]:"):
            raise ConfigError(f"wait_for {name!r} must not have / : or brackets in its name")
        ms = 0 if timeout is None else to_ms(timeout, zero=False)
    except ConfigError as err:
        raise GraphError(f"{err}{where}") from None
    except ValueError as err:
        raise GraphError(f"wait_for({name!r}, timeout={timeout!r}){where}: {err}") from None
    if default is not _NONE and not ms:
        raise GraphError(
            f"wait_for({name!r}){where}: default= is the value after a timeout; say timeout= too"
        )
    given = () if default is _NONE else (default,)
    trace = TRACE.get()
    if trace is None:
        return cast("Result[Any]", WaitFor(signal, ms, given))
    trace.check(given)
    return cast("Result[Any]", trace.add(lambda: WaitFor(signal, ms, given)))
