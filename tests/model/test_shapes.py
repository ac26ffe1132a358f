# SPDX-License-Identifier: MIT
"""The third law: one shape, however it is written, is one plan."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Any, TypeAlias

from hypothesis import example, given
from hypothesis import strategies as st

from flowq import DAG, Flow, chain, first, group
from flowq.message import nodes_of
from flowq.plan import NodeRow, Plan, Ranges, indexes
from tests.model.test_graphs import plan_of, q, rows, step

Shape: TypeAlias = "str | tuple[str, list[Shape]]"
"""A step by name; or ``then``, one after the other with what the one before gave; or ``beside``; or
a race, ``first:`` and its name."""


@st.composite
def shapes(draw: st.DrawFn, depth: int = 4) -> Shape:
    """Draw a shape whose steps have names of their own.

    A member of a group ends with one step: else it would be a graph of its own, with one value.
    """
    count = 0

    def part(how: str, left: int, *, last: bool = False) -> Shape:
        nonlocal count
        if not left or draw(st.integers(0, 2)) == 0:
            count += 1
            return f"n{count}"
        raced = how == "beside" and draw(st.integers(0, 2)) == 0
        many = draw(st.integers(1 + (how == "then" or raced), 3))
        inner = "beside" if how == "then" else "then"
        parts = [part(inner, left - 1, last=how == "beside") for _ in range(many)]
        if raced:
            count += 1
            how = f"first:n{count}"
        if last:
            parts.append(part(inner, 0))
        return how, parts

    return part(draw(st.sampled_from(["then", "beside"])), draw(st.integers(0, depth)))


def as_chains(shape: Shape) -> Any:
    if isinstance(shape, str):
        return step.s().options(name=shape)
    how, parts = shape
    made = [as_chains(part) for part in parts]
    if how.startswith("first"):
        return first(*made).options(name=how.partition(":")[2])
    return chain(*made) if how == "then" else group(made)


def as_pipes(shape: Shape) -> Any:
    if isinstance(shape, str):
        return step.s().options(name=shape)
    how, parts = shape
    made = [as_pipes(part) for part in parts]
    if how.startswith("first"):
        return first(*made).options(name=how.partition(":")[2])
    return reduce(or_, made) if how == "then" else group(made)


def said(
    shape: Shape,
    given: tuple[Any, ...],
    call: Callable[[str, tuple[Any, ...]], Any],
    race: Callable[[str, list[Any]], Any],
) -> Any:
    """Say it step by step, with what each is given as its argument; gives the value."""
    if isinstance(shape, str):
        return call(shape, given)
    how, parts = shape
    if how != "then":
        made = [said(part, given, call, race) for part in parts]
        return made if how == "beside" else race(how.partition(":")[2], made)
    for part in parts:
        given = (said(part, given, call, race),)
    return given[0]


def raced(name: str, made: list[Any]) -> Any:
    return first(*made).options(name=name)


def as_dag(shape: Shape) -> DAG:
    dag = DAG("shape")
    value = said(
        shape,
        (),
        lambda name, given: dag.add(step.s(*given), name=name),
        lambda name, made: dag.add(first(*made), name=name),
    )
    dag.returns(value)
    return dag


def as_flow(shape: Shape) -> Any:
    def body() -> Any:
        return said(shape, (), lambda name, given: step.options(name=name)(*given), raced)

    return Flow(q, body, {"name": "shape"}).build()


def as_arguments(shape: Shape) -> Any:
    """Signatures in the places of arguments; what gives several is mentioned by a flow."""

    def body() -> Any:
        return said(shape, (), lambda name, given: step.s(*given).options(name=name), raced)

    return Flow(q, body, {"name": "shape"}).build()


@given(shapes())
@example(("then", ["a", ("beside", ["b", ("then", ["c", "d"])]), ("beside", ["e", "f"]), "g"]))
@example(("then", ["a", ("first:r", ["b", ("then", ["c", ("beside", ["d"]), "e"])]), "f"]))
@example(("beside", [("then", ["a", ("beside", ["b", "c"]), "d"]), "e"]))
def test_a_shape_gives_one_plan_however_it_is_written(shape: Shape) -> None:
    chains = plan_of(as_chains(shape))

    for write in (as_pipes, as_dag, as_flow):
        assert rows(plan_of(write(shape))) == rows(chains), write.__name__
    # the order of what nothing orders is that in which it is read
    assert by_name(plan_of(as_arguments(shape))) == by_name(chains)


def by_name(plan: Plan) -> dict[str, Any]:
    """What each node is, comes after and is given, with names in the places of indexes."""
    names = [row.name for row in plan.rows]

    def named(ranges: Ranges) -> set[str]:
        return {names[i] for i in indexes(ranges)}

    def given(row: NodeRow) -> list[Any]:
        bindings = row.message.bindings if row.message else ()
        return [(b.to, [names[i] for i in nodes_of(b.value)]) for b in bindings]

    return {
        row.name: (
            row.kind,
            row.rule,
            row.bits,
            named(row.parents),
            named(row.children),
            named(row.followers),
            given(row),
        )
        for row in plan.rows
    }
