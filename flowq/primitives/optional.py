# SPDX-License-Identifier: MIT
"""A value that may be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from flowq.errors import GraphError
from flowq.node import Body, Maybe, Node, Slot, Take, leaves
from flowq.primitives.base import Reference, as_part
from flowq.primitives.build import Builder, Fragment, Part, has_parts
from flowq.wiring import Gives

if TYPE_CHECKING:
    from flowq.result import Result

__all__ = ["Optional", "optional"]

R = TypeVar("R")
D = TypeVar("D")


class Optional(Reference):
    """What ``optional(...)`` gives: a mention of a step whose value may be missing."""

    __slots__ = ("_default", "_of")

    value_alone = True

    _of: Part
    _default: Any

    def __init__(self, of: Part, default: Any) -> None:
        self._of = of
        self._default = default

    def __repr__(self) -> str:
        return f"optional({self._of!r})"

    def __getitem__(self, key: Any) -> Any:
        self._refuse("an item", f"write optional({self._of!r}[{key!r}], ...)")

    def refer(self, build: Builder, body: Body) -> Fragment:
        """The value of the step, or what stands in for it."""
        found = self._of.refer(build, body)
        value: Any = found.value
        while isinstance(value, Part):
            found = value.refer(build, body)
            value = found.value
        kind = type(value)
        if kind is Slot or (kind is Take and type(value.node) is Slot):
            return found  # an element of a map is there
        if kind is not Node and kind is not Take:
            if kind is Maybe or (not any(True for _ in leaves(value)) and not has_parts((value,))):
                return found
            raise GraphError(
                f"{self!r}: it takes one step; for several write it around each of them"
            )
        return Fragment([], found.tails, Maybe(value, self._default))


@overload
def optional(step: Gives[R], default: D) -> Result[R | D]: ...
@overload
def optional(step: Gives[R]) -> Result[R | None]: ...
@overload
def optional(step: Any, default: Any = ...) -> Any: ...
def optional(step: Any, default: Any = None) -> Any:
    """Read a step's value if there is one: an argument that lets nobody wait in vain.

    Whatever comes of the step counts as a success for what reads it so, and where there is no
    value, because it failed, was blocked, skipped or cancelled, `default` is given. A step all of
    whose readers take it so fails without harm to the run.

    Parameters
    ----------
    step : node or composition
        One step, or an item of its value: ``optional(node["x"])``.
    default : object

    Examples
    --------
    Given tasks `prices`, `weather` and `report`::

        @q.flow
        def daily(day):
            return report(prices(day), optional(weather(day), default="unknown"))
    """
    return cast(Any, Optional(as_part(step), default))
