# SPDX-License-Identifier: MIT
"""A step that takes time and no worker."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, cast

from flowq.building import TRACE
from flowq.errors import GraphError
from flowq.graph import Graph
from flowq.node import Body
from flowq.plan import Kind
from flowq.policy import to_ms
from flowq.primitives.base import Composition, users_code
from flowq.primitives.build import Builder, Fragment
from flowq.wiring import Submitter

if TYPE_CHECKING:
    from flowq.result import Result
    from flowq.run import Run

__all__ = ["Sleep", "sleep"]


class Sleep(Composition[None]):
    """What ``sleep(...)`` gives outside of flows: one node that ends some time after it began."""

    __slots__ = ("_ms",)

    _place = "sleep"
    _single = True

    def __init__(self, ms: int) -> None:
        super().__init__()
        self._ms = ms

    def __repr__(self) -> str:
        return f"<sleep {self._ms / 1000:g} s>"

    def start(self, app: Submitter | None = None) -> Run[None]:
        """Enqueue it; gives its ``Run``. See `Composition.start`."""
        return cast("Run[None]", self._start(app))

    def _base(self) -> str:
        return "sleep"

    def _bare(self) -> Sleep:
        return self  # its options are the node's

    def _graph(self) -> Graph:
        run = {"name": self._options["name"]} if "name" in self._options else {}
        return Builder().build(self, self._base(), run)

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
