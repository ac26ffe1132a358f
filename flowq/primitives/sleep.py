# SPDX-License-Identifier: MIT
"""A step that takes time and no worker."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, cast

from flowq.building import TRACE
from flowq.errors import GraphError
from flowq.node import Body
from flowq.plan import Kind
from flowq.policy import to_ms
from flowq.primitives.base import Single, users_code
from flowq.primitives.build import Builder, Fragment

if TYPE_CHECKING:
    from flowq.result import Result

__all__ = ["Sleep", "sleep"]


class Sleep(Single[None]):
    """What ``sleep(...)`` gives outside of flows: one node that ends some time after it began."""

    __slots__ = ("_ms",)

    _place = "sleep"

    def __init__(self, ms: int) -> None:
        super().__init__()
        self._ms = ms

    def __repr__(self) -> str:
        return f"<sleep {self._ms / 1000:g} s>"

    def _base(self) -> str:
        return "sleep"

    def put(self, build: Builder, body: Body) -> Fragment:
        """Add one node."""
        node = build.node(Kind.JOIN, body, "sleep", options=self._options)
        node.sleep_ms = self._ms
        node.order.extend(self._after)
        return Fragment([node], [node], node, f"{self!r} takes no value; for order alone write >>")


def sleep(seconds: float | timedelta) -> Result[None]:
    """Let time pass between steps: ``a >> sleep(60) >> b``. No worker is held meanwhile.

    It begins when what it comes after has ended, survives restarts, and its value is None.

    Parameters
    ----------
    seconds : float or timedelta
        0 or more, at most 100 years.

    Returns
    -------
    Result or Sleep
        A node within a flow, else a composition.

    Raises
    ------
    GraphError
        It is no length of time.

    Examples
    --------
    Given tasks `publish` and `check`::

        @q.flow
        def release(version):
            published = publish(version)
            return check(version).after(sleep(600).after(published))
    """
    try:
        ms = to_ms(seconds)
    except ValueError as err:
        raise GraphError(f"sleep({seconds!r}){users_code()}: {err}") from None
    trace = TRACE.get()
    if trace is None:
        return cast("Result[None]", Sleep(ms))
    return cast("Result[None]", trace.add(lambda: Sleep(ms)))
