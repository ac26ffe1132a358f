# SPDX-License-Identifier: MIT
"""The first of several steps that succeeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from flowq.building import TRACE
from flowq.errors import GraphError
from flowq.node import Body, Node
from flowq.plan import Kind
from flowq.primitives.base import Single, as_part, users_code
from flowq.primitives.build import Builder, Fragment, Part, Placing
from flowq.wiring import Gives

if TYPE_CHECKING:
    from flowq.result import Result

__all__ = ["First", "first"]

R = TypeVar("R", covariant=True)
S = TypeVar("S")


class First(Single[R]):
    """What ``first(...)`` gives outside of flows: members that race, and the winner's value."""

    __slots__ = ("_members",)

    has_members = True

    _place = "first"

    def __init__(self, members: tuple[Part, ...]) -> None:
        super().__init__()
        self._members = members

    def __repr__(self) -> str:
        return f"<first of {', '.join(map(repr, self._members))}>"

    def _base(self) -> str:
        return "first"

    def put(self, build: Builder, body: Body) -> Placing:
        """Add the members that are no references, and a node for the race."""
        heads: list[Node] = []
        closed = ""
        raced: list[Any] = []
        for member in self._members:
            made = yield member, body
            heads.extend(made.heads)
            closed = closed or made.closed
            raced.append(made.value)
        for head in heads:
            head.order.extend(self._after)
        node = build.node(
            Kind.JOIN, body, "first", options={**self._options, "trigger_rule": "one_success"}
        )
        node.race = True
        node.args = [value if isinstance(value, Part) else None for value in raced]
        node.edges.update((k, v) for k, v in enumerate(raced) if not isinstance(v, Part))
        if self._after and not heads:
            raise GraphError(
                f"{self!r}: its steps stand elsewhere; say on them what they come after"
            )
        return Fragment(heads or [node], [node], node, closed)


def first(*steps: Gives[S]) -> Result[S]:
    """Take the value of whichever of several steps succeeds first.

    What leads only into the race, directly or through others, and has not ended by then is not
    wanted any more: it is stopped and ends ``skipped``. A step that something else reads, or whose
    value the flow returns, runs on. If no step succeeds, what reads the race is blocked.

    Parameters
    ----------
    *steps : node or composition
        Two or more, each one step: a task, chain, map, branch or flow.

    Returns
    -------
    Result or First
        A node within a flow, else a composition.

    Raises
    ------
    GraphError
        There is nothing to choose from; what is given is no step.

    Examples
    --------
    Given tasks `ask_primary`, `ask_mirror` and `report`::

        @q.flow
        def lookup(key):
            return report(first(ask_primary(key), ask_mirror(key)))
    """
    where = users_code()
    if len(steps) < 2:
        raise GraphError(f"first{where}: name two steps or more: first(a, b)")
    members = tuple(as_part(step) for step in steps)
    trace = TRACE.get()
    if trace is None:
        return cast("Result[S]", First(members))
    trace.check(members)
    return cast("Result[S]", trace.add(lambda: First(members)))
