# SPDX-License-Identifier: MIT
"""One after the other, with the value or without."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast, overload

from flowq.errors import GraphError
from flowq.node import Body, leaves
from flowq.primitives.base import Composition, as_part
from flowq.primitives.build import Builder, Fragment, Part, Placing
from flowq.wiring import Submitter

if TYPE_CHECKING:
    from flowq.run import Run

__all__ = ["Chain", "Link", "chain", "inside"]

R = TypeVar("R", covariant=True)
S = TypeVar("S")
Link: TypeAlias = Literal["|", ">>"]


class Chain(Composition[R]):
    """What ``chain(...)``, ``|`` and ``>>`` give: steps and what leads from each to the next.

    The value is that of the last step. A chain within a chain is the same as its steps there, so
    it does not matter how Python groups ``a | b >> c``; one with options is a graph of its own,
    one node to what is around it.
    """

    __slots__ = ("_steps",)

    has_members = True

    def __init__(self, steps: tuple[tuple[Link, Part], ...]) -> None:
        super().__init__()
        self._steps = steps

    def __repr__(self) -> str:
        steps = self._flat()
        # a chain with options within this one, and one within that: as deep as anyone nests them
        texts = ["<chain ...>" if type(step) is Chain else repr(step) for _, step in steps[:6]]
        shown = "".join(
            f" {link} {text}" if k else text
            for k, ((link, _), text) in enumerate(zip(steps, texts, strict=False))
        )
        return f"<chain {shown}{' ...' if len(steps) > 6 else ''}>"

    def _flat(self) -> list[tuple[Link, Part]]:
        """Its steps, with those of chains within it in their places."""
        out: list[tuple[Link, Part]] = []
        todo: list[tuple[Link, Part]] = list(reversed(self._steps))
        while todo:
            link, step = todo.pop()
            if type(step) is Chain and not step._options and not step._after:
                inner = step._steps
                todo.extend(reversed(inner[1:]))
                todo.append((link, inner[0][1]))
            else:
                out.append((link, step))
        return out

    def start(self, app: Submitter | None = None) -> Run[R]:
        """Enqueue it; gives its ``Run``. See `Composition.start`."""
        return cast("Run[R]", self._start(app))

    def _base(self) -> str:
        step: Part = self
        while type(step) is Chain:
            step = step._steps[0][1]
        return step._base() if isinstance(step, Composition) else "chain"

    def put(self, build: Builder, body: Body) -> Placing:
        """Add the steps, and lead from each to the next."""
        if self._options:
            return self._put_inside(build, body)
        return self._put_steps(build, body)

    def _put_inside(self, build: Builder, body: Body) -> Placing:
        return (yield from inside(self, build, body))

    def _put_steps(self, build: Builder, body: Body) -> Placing:
        heads: list[Any] = []
        closed = ""
        before: Fragment | None = None
        for link, step in self._flat():
            made = yield step, body
            tails = made.tails
            if before is None:
                heads, closed = made.heads, made.closed
            else:
                if link == "|":
                    pipe(before, made)
                else:
                    build.order(before.tails, made.heads, body)
                if not made.heads:  # a reference, an empty group: order leads past it
                    tails = [*before.tails, *tails]
                heads = heads or made.heads
            before = Fragment(heads, tails, made.value, closed)
        assert before is not None
        for head in heads:
            head.order.extend(self._after)
        return before


def inside(part: Composition[Any], build: Builder, body: Body, label: str | None = None) -> Placing:
    """Add a composition that has options, or a name, as one node: an expansion of its own."""
    for name in ("result_ttl", "failed_ttl"):
        if name in part._options:
            raise GraphError(
                f"{part!r}: {name}= speaks of the run, so it goes on what is started, not on a "
                "part of it"
            )
    node, inner = build.expansion(body, part._base(), part._options)
    if label is not None:
        node.label = label
    node.order.extend(part._after)
    bare = part._copy()
    bare._options, bare._after = {}, ()
    build.keep.append(bare)
    made = yield bare, inner
    inner.value, inner.heads, inner.closed = made.value, made.heads, made.closed
    return Fragment([node], [node], node)


def pipe(before: Fragment, after: Fragment) -> None:
    """Let the value of one fragment flow into the heads of the next."""
    if after.closed:
        raise GraphError(after.closed)
    named = set(leaves(before.value))
    beside = [t for t in before.tails if t is not before.value and t not in named]
    for head in after.heads:
        head.pipes.append(before.value)
        head.order.extend(beside)


@overload
def chain(a: Any, b: Composition[S], /) -> Chain[S]: ...
@overload
def chain(a: Any, b: Any, c: Composition[S], /) -> Chain[S]: ...
@overload
def chain(a: Any, b: Any, c: Any, d: Composition[S], /) -> Chain[S]: ...
@overload
def chain(*steps: Any) -> Chain[Any]: ...
def chain(*steps: Any) -> Chain[Any]:
    """Pipe each step's value into the next.

    Parameters
    ----------
    *steps
        Signatures, groups, maps, DAGs, chains; or one iterable of them. A list or tuple among
        them stands for a group.

    Returns
    -------
    Chain
        With the value of the last step.

    Raises
    ------
    GraphError
        There is no step, or one that is none.
    """
    given: Iterable[Any] = steps
    if len(steps) == 1 and not isinstance(steps[0], Part):
        try:
            given = tuple(steps[0])
        except TypeError:
            given = steps
    made = tuple(("|", as_part(step)) for step in given)
    if not made:
        raise GraphError("a chain needs at least one step")
    return Chain(made)  # type: ignore[arg-type]
