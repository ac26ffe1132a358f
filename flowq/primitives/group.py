# SPDX-License-Identifier: MIT
"""Side by side, with all values as a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from flowq.errors import GraphError
from flowq.graph import Graph
from flowq.node import Body, Node
from flowq.primitives.base import Composition, Reference, as_part
from flowq.primitives.build import Builder, Fragment, Part, Placing
from flowq.primitives.chain import Chain, inside
from flowq.primitives.signature import Signature
from flowq.wiring import Submitter

if TYPE_CHECKING:
    from flowq.result import ResultGroup

__all__ = ["Group", "chord", "group"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    S = TypeVarWithDefault("S", default=Any)  # of members that only a flow can tell
else:
    S = TypeVar("S")
R = TypeVar("R", covariant=True)


class Group(Composition[list[R]], Generic[R]):
    """What ``group(...)`` gives: members that run side by side; the value is the list of theirs.

    Piped into a task it is a chord: the task gets the list. What is piped into a group goes to
    each member.
    """

    __slots__ = ("_members",)

    has_members = True

    def __init__(self, members: tuple[Part, ...]) -> None:
        super().__init__()
        self._members = members

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self._members[:4]))
        more = f", ... {len(self._members)} in all" if len(self._members) > 4 else ""
        return f"<group {shown}{more}>"

    def __len__(self) -> int:  # type: ignore[override]
        return len(self._members)

    def __bool__(self) -> bool:  # type: ignore[override]
        return True

    def start(self, app: Submitter | None = None) -> ResultGroup[R]:
        """Enqueue it; gives the ``ResultGroup`` over its members. See `Composition.start`."""
        return cast("ResultGroup[R]", self._start(app))

    if TYPE_CHECKING:

        def test(
            self,
            values: Mapping[str, Any] | None = None,
            fail: Mapping[str, Any] | None = None,
            *,
            app: Submitter | None = None,
        ) -> ResultGroup[R]:
            """Run it here and now; gives the ``ResultGroup``. See `Composition.test`."""

    def _base(self) -> str:
        return "group"

    def put(self, build: Builder, body: Body) -> Placing:
        """Add the members."""
        if self._options:
            return self._put_inside(build, body)
        return self._put_members(build, body)

    def _put_inside(self, build: Builder, body: Body) -> Placing:
        return (yield from inside(self, build, body))

    def _put_members(self, build: Builder, body: Body) -> Placing:
        heads: list[Node] = []
        tails: list[Any] = []
        values = []
        closed = ""
        for member in self._members:
            made = yield member, body
            heads.extend(made.heads)
            tails.extend(made.tails)
            values.append(made.value)
            closed = closed or made.closed
        for head in heads:
            head.order.extend(self._after)
        return Fragment(heads, tails, values, closed)

    def _graph(self) -> Graph:
        """As a run, each member is one node, so that each has a result of its own."""
        members = tuple(m if _is_one(m) else _Whole(m) for m in self._members)
        whole = self._copy()
        whole._options, whole._members = {}, members
        return Builder().build(whole, self._base(), self._options, "values")


def _is_one(member: Part) -> bool:
    """Whether the value of a member is that of one node."""
    while type(member) is Chain and not member._options:
        member = member._flat()[-1][1]
    if isinstance(member, Reference):
        raise GraphError(
            f"{member!r} refers to a step, so it is no member of a group that is started; "
            "give it to a task"
        )
    return type(member) is not Group or bool(member._options)


class _Whole(Part):
    """A member that is one node, though it is written as several."""

    __slots__ = ("_part",)

    def __init__(self, part: Any) -> None:
        self._part = part

    def put(self, build: Builder, body: Body) -> Placing:
        return (yield from inside(self._part, build, body))


@overload  # before the iterable: for checkers a step is one too, though iterating it is refused
def group(*members: Composition[S]) -> Group[S]: ...
@overload
def group(members: Iterable[Composition[S]], /) -> Group[S]: ...
@overload
def group(*members: Any) -> Group[Any]: ...
def group(*members: Any) -> Group[Any]:
    """Run members side by side.

    Parameters
    ----------
    *members
        Signatures, chains, maps, DAGs, groups; or one iterable of them, a generator too. Each is
        a place of its own: ``group([s, s])`` has two nodes.

    Returns
    -------
    Group
        With the list of the members' values; ``[]`` if there is none.
    """
    given: Any = members
    if len(members) == 1 and not isinstance(members[0], Part):
        try:
            given = tuple(members[0])
        except TypeError:
            given = members
    return Group(tuple(as_part(m) for m in given))


def chord(members: Any, callback: Signature[R]) -> Chain[R]:
    """Give the list of the members' values to a callback; the same as ``group(members) | sig``."""
    return Chain(
        (("|", members if isinstance(members, Part) else group(members)), ("|", as_part(callback)))
    )
