# SPDX-License-Identifier: MIT
"""What the sections of the contract share: the store under test, and short words for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from flowq.message import (
    NO_NODE,
    Delivery,
    Message,
    Ref,
    encode_template,
    new_id,
    node_id,
    pack_cell,
    split_node,
)
from flowq.outcome import Cancelled, Done, Failed, Outcome, Skipped
from flowq.plan import INNER, Bits, Kind, NodeRow, Plan, Ranges, ranges_of
from flowq.states import State, trigger_rule
from flowq.storage.base import Look, Step, Store
from flowq.testing.clock import ManualClock

__all__ = [
    "StoreContract",
    "cell",
    "done",
    "end",
    "fragment",
    "inner_ranges",
    "look_at",
    "make_plan",
    "node",
    "pass_time",
    "run_all",
    "states_of",
    "task",
]

_ENDS: dict[State, type[Done | Failed | Skipped | Cancelled]] = {
    State.SUCCESS: Done,
    State.FAILED: Failed,
    State.SKIPPED: Skipped,
    State.CANCELLED: Cancelled,
}


class StoreContract:
    """Gives each test its clock and its store, made by the fixture ``make_store``."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The time, held."""
        return ManualClock()

    @pytest.fixture
    def store(
        self, make_store: Callable[[ManualClock], Store], clock: ManualClock
    ) -> Iterator[Store]:
        """A store that holds nothing."""
        made = make_store(clock)
        yield made
        made.close()


def task(**more: Any) -> Message:
    """Make a task that is called alone."""
    return Message(new_id(), "t.add", b"P", **more)


def cell(state: State, body: bytes = b"x") -> bytes:
    """Give what a body came to."""
    return pack_cell(state, body, delivery=1, started_ms=5, ended_ms=9)


def end(delivery: Delivery, state: State = State.SUCCESS, body: bytes = b"x") -> Outcome:
    """Give the outcome that ends a delivery in a state."""
    return _ENDS[state](delivery.id, delivery.delivery, cell(state, body))


def done(step: Step, state: State = State.SUCCESS) -> list[Outcome]:
    """Give outcomes that end all that a step has handed out."""
    return [end(d, state) for d in step.deliveries]


def look_at(store: Store, id: bytes) -> Look:
    """Say where an id that is known stands."""
    found = store.look([id])[0]
    assert found is not None
    return found


def pass_time(store: Store, clock: ManualClock, seconds: float) -> None:
    """Let time pass in which the store is in use, so that no gap is taken for an outage."""
    while seconds > 0:
        clock.advance(min(seconds, 9))
        seconds -= 9
        store.renew([])


def make_plan(
    shape: Mapping[str, Sequence[str]],
    *,
    rules: Mapping[str, str] | None = None,
    inside: Mapping[str, str] | None = None,
    joins: Sequence[str] = (),
    empty: Sequence[str] = (),
    bits: Mapping[str, Bits] | None = None,
    messages: Mapping[str, Mapping[str, Any]] | None = None,
    ttl: Mapping[str, Any] | None = None,
    **message: Any,
) -> Plan:
    """Lower a graph given as node -> parents; `inside` says in which expansion a node stands."""
    rules, inside, bits = rules or {}, inside or {}, bits or {}
    at = {name: i for i, name in enumerate(shape, 1)}
    body: dict[int, list[str]] = {}
    children: dict[str, list[int]] = {}
    for name, parents in shape.items():
        body.setdefault(at[inside[name]] if name in inside else 0, []).append(name)
        for parent in parents:
            children.setdefault(parent, []).append(at[name])
    rows = []
    for i, name in enumerate(["", *shape]):
        inner = body.get(i, [])
        expansion = not i or bool(inner) or name in empty
        kind = Kind.EXPANSION if expansion else Kind.JOIN if name in joins else Kind.TASK
        above = shape.get(name, ())
        own = {**message, **(messages or {}).get(name, {})}
        rows.append(
            NodeRow(
                name=name or "root",
                kind=kind,
                owner=(at[inside[name]] if name in inside else 0) if i else NO_NODE,
                rule=trigger_rule(rules.get(name, "all_success"), len(above)),
                parents=ranges_of(at[p] for p in above),
                children=ranges_of(children.get(name, ())),
                reads=ranges_of(at[p] for p in above) if kind == Kind.TASK else (),
                message=Message(b"", "t.add", b"P", name=name, **own)
                if kind == Kind.TASK
                else None,
                entries=ranges_of(at[n] for n in inner if not shape[n]),
                inner=len(inner),
                value=b"template" if expansion else b"",
                bits=int(bits.get(name, 0)),
                body=ranges_of(at[n] for n in inner),
            )
        )
    return Plan(new_id(), "p", rows, **(ttl or {}))


def fragment(
    shape: Mapping[str, Sequence[str]],
    *,
    value: str | None = None,
    reads: Iterable[int] = (),
    inside: Mapping[str, str] | None = None,
    rules: Mapping[str, str] | None = None,
) -> list[NodeRow]:
    """Give a fragment of nodes; its value is that of the node `value`, else of the last one.

    `reads` are nodes of the run around it, which its entries read.
    """
    plan = make_plan(shape, inside=inside, rules=rules)
    names = [row.name for row in plan.rows]
    named = names.index(value or names[-1]) if shape else 0
    # a fragment differs from a plan by where its indexes begin
    rows = []
    for k, row in enumerate(plan.rows):
        outer = tuple((i, 1) for i in reads) if k and not shape[row.name] else ()
        rows.append(
            msgspec.structs.replace(
                row,
                owner=row.owner if k == 0 else INNER + row.owner,
                parents=inner_ranges(row.parents),
                children=inner_ranges(row.children),
                reads=(*outer, *inner_ranges(row.reads)),
                entries=inner_ranges(row.entries),
                body=inner_ranges(row.body),
                value=encode_template(Ref(INNER + named)) if row.value else b"",
            )
        )
    return rows


def inner_ranges(ranges: Ranges) -> Ranges:
    """Give indexes of a plan as those of a fragment."""
    return tuple((INNER + first, count) for first, count in ranges)


def node(plan: Plan, name: str) -> bytes:
    """Give the id of a node by its name."""
    return node_id(plan.id, [row.name for row in plan.rows].index(name))


def states_of(store: Store, plan: Plan) -> dict[str, str]:
    """Say where all nodes of a run stand, by name."""
    infos = store.nodes(plan.id, limit=100_000)
    return {info.name: info.state.label for info in infos}


def run_all(store: Store, plan: Plan, ends: Mapping[str, State] | None = None) -> list[str]:
    """Run what is ready until nothing is, and give the names in the order of hand-out."""
    order: list[str] = []
    outcomes: list[Outcome] = []
    while True:
        step = store.step("w", outcomes, want=100)
        outcomes = []
        for delivery in step.deliveries:
            name = _name(store, delivery.id)
            order.append(name)
            outcomes.append(end(delivery, (ends or {}).get(name, State.SUCCESS)))
        if not outcomes and not step.ready and not store.sweep().continued:
            assert store.check(plan.id) == []
            return order


def _name(store: Store, id: bytes) -> str:
    """The name of a node, one of an expansion too."""
    run, index = split_node(id)
    return store.nodes(run, after=index - 1, limit=1)[0].name
