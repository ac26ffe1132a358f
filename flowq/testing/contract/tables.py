# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Every cell of the tables of states, walked on a real store."""

from __future__ import annotations

from itertools import product

import pytest

from flowq.outcome import Expand, GiveBack, Outcome, RetryAt, Skipped, Unknown
from flowq.plan import Bits, Plan
from flowq.states import (
    FINAL,
    RULES,
    TRANSITIONS,
    Counts,
    Event,
    State,
    next_state,
    outcome_of,
    trigger_rule,
    verdict,
)
from flowq.storage.base import Store
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    cell,
    done,
    end,
    fragment,
    look_at,
    make_plan,
    node,
    states_of,
)
from flowq.testing.contract.policies import edited
from flowq.testing.contract.races import as_race

__all__ = ["TestTransitions", "TestVerdicts"]

E, S = Event, State

# What a parent's end does to its child.
PARENT = {
    E.READY: S.SUCCESS,
    E.EXPAND: S.SUCCESS,
    E.PASS: S.SUCCESS,
    E.SKIP: S.SKIPPED,
    E.BLOCK: S.FAILED,
}
SETTLES = {E.DONE: S.SUCCESS, E.FAIL: S.FAILED, E.SKIP: S.SKIPPED}


def pairs() -> list[tuple[State, Event]]:
    """All pairs that a test can bring about.

    END can come to expansions alone and has a test of its own.
    """
    events = [e for e in Event if e != E.END]
    return list(product(State, events))


class Subject:
    """One node ``x`` below ``a`` and ``b``, led into a state; ``b`` has not ended then."""

    def __init__(self, store: Store, clock: ManualClock, state: State, event: Event) -> None:
        self.store, self.clock, self.state = store, clock, state
        more: dict[str, object] = {}
        if state == S.SCHEDULED or (state, event) == (S.WAITING, E.LATER):
            more["delay_ms"] = 5_000
        if event == E.FAIL and state in (S.SCHEDULED, S.QUEUED):
            more["expires_in_ms"] = 1_000
        expands = state == S.EXPANDED or (state, event) == (S.WAITING, E.EXPAND)
        # x waits for all where a late parent decides, and for the first where none may
        sleeps = (state, event) == (S.SCHEDULED, E.WAKE)
        waits = (state, event) == (S.SCHEDULED, E.SEND)
        rule = "all_success" if state in (S.WAITING, S.BLOCKED) else "one_success"
        shape: dict[str, list[str]] = {"a": [], "b": [], "x": ["a", "b"]}
        if event == E.LOSE_OUT:
            shape |= {"winner": [], "first": ["winner"]}
        fills = event == E.FULL and state in (S.WAITING, S.SCHEDULED)
        if fills:
            shape |= {"holder": []}
            more["limits"] = (("/one", 1),)
        self.plan: Plan = make_plan(
            {**shape, "i": []} if expands else shape,
            rules={"x": rule},
            inside={"i": "x"} if expands else {},
            joins=("first", "x")
            if sleeps or waits or (state, event) == (S.WAITING, E.PASS)
            else ("first",),
            messages={"x": more, "holder": {"limits": (("/one", 1),)}},
        )
        if event == E.LOSE_OUT:
            self.plan = as_race(self.plan, "first", ["x"])
        if sleeps:
            self.plan = edited(self.plan, "x", sleep_ms=5_000)
        if waits:
            self.plan = edited(self.plan, "x", signal="go")
        self.id = node(self.plan, "x")
        store.submit(self.plan)
        a, self.b = store.step("up", want=2).deliveries
        self.winner = store.step("win", want=1)  # or what holds the place that it wants
        if state == S.WAITING:
            store.step("up", [end(a)])
        elif state == S.BLOCKED:
            store.step("up", [end(a, S.FAILED)])
        else:
            store.step("up", [end(a)])
            self._on(state)
        assert look_at(store, self.id).state == state

    def _on(self, state: State) -> None:
        if state in (S.SCHEDULED, S.QUEUED, S.EXPANDED):
            return
        if state == S.HELD:
            self.store.pause(self.plan.id)
            self.store.step("w", want=1)
            return
        (x,) = self.store.step("w", want=1).deliveries
        assert x.id == self.id
        if state in FINAL:
            self.store.step("w", [end(x, state)])

    def apply(self, event: Event) -> None:
        """Let an event come to it in the way in which it comes in use."""
        store, id = self.store, self.id
        by_parent = self.state == S.WAITING and event == E.LATER
        by_body = self.state == S.RUNNING and event in (E.SKIP, E.EXPAND)
        if by_parent or (event in PARENT and not by_body):
            store.step("up", [end(self.b, PARENT.get(event, S.SUCCESS))])
        elif event == E.EXPAND:
            store.step("w", [Expand(id, 1, fragment({"j": []}))])
        elif event == E.LATER and self.state != S.RUNNING:
            store.reschedule(id, delay_ms=9_000)
        elif event == E.LOSE_OUT:
            store.step("win", done(self.winner))
            store.step("w", [RetryAt(id, 1, 1_000)])  # of what runs
        elif event == E.FULL:
            if self.state == S.WAITING:
                store.step("up", [end(self.b)])
            elif self.state == S.SCHEDULED:
                self.clock.advance(5)
                store.step("other")
        elif event == E.SEND:
            store.send(self.plan.id, "go", b"")
        elif event == E.HOLD:
            store.pause(self.plan.id)
            store.step("other", want=5)
        elif event == E.FREE:
            store.resume(self.plan.id)
        elif event in (E.DUE, E.WAKE):
            self.clock.advance(5)
            store.step("other")
        elif event == E.FETCH:
            store.step("other", want=5)
        elif event == E.LOSE:
            store.release("w", lost=[id])
        elif event == E.CANCEL:
            store.cancel([id])
            store.step("w", [RetryAt(id, 1, 1_000)])
        elif event == E.FAIL and self.state in (S.SCHEDULED, S.QUEUED):
            self.clock.advance(1)
            store.sweep()
        else:
            store.step("w", [self._outcome(event)])

    def _outcome(self, event: Event) -> Outcome:
        if event == E.RETURN:
            return GiveBack(self.id, 1)
        if event == E.RETRY:
            return RetryAt(self.id, 1, 1_000)
        if event == E.LATER:
            return Unknown(self.id, 1, cell(S.FAILED))
        kept = [d for d in self.store.held("w") if d.id == self.id]
        state = SETTLES[event]
        if kept:
            return end(kept[0], state)
        return Skipped(self.id, 1, cell(state))  # a settlement of what is not held


class TestTransitions(StoreContract):
    """`flowq.states.TRANSITIONS`, cell by cell; a pair that is missing there changes nothing."""

    @pytest.mark.parametrize(
        ("state", "event"), pairs(), ids=lambda x: x.name.lower() if hasattr(x, "name") else x
    )
    def test_an_event_leads_where_the_table_says(
        self, store: Store, clock: ManualClock, state: State, event: Event
    ) -> None:
        subject = Subject(store, clock, state, event)

        subject.apply(event)

        expected = next_state(state, event)
        assert look_at(store, subject.id).state == (state if expected is None else expected)
        assert store.check(subject.plan.id) == []

    @pytest.mark.parametrize("state", [S.SUCCESS, S.FAILED, S.SKIPPED, S.CANCELLED])
    @pytest.mark.parametrize("forgiven", [False, True])
    def test_an_expansion_ends_as_its_counts_say(
        self, store: Store, state: State, forgiven: bool
    ) -> None:
        bits = Bits.FORGIVEN if forgiven else Bits.NAMED
        plan = make_plan({"x": [], "i": []}, inside={"i": "x"}, bits={"i": bits})
        store.submit(plan)

        store.step("w", [end(d, state) for d in store.step("w", want=1).deliveries])

        expected = outcome_of(
            state == S.FAILED and not forgiven,
            state == S.CANCELLED and not forgiven,
            state == S.SKIPPED and not forgiven,
        )
        assert look_at(store, node(plan, "x")).state == expected
        assert store.check(plan.id) == []

    def test_the_table_and_this_walk_know_each_other(self) -> None:
        walked = set(pairs())

        assert set(TRANSITIONS) <= walked


class TestVerdicts(StoreContract):
    """Trigger rules as stores count them, against `flowq.states.verdict`."""

    @pytest.mark.parametrize("parents", [1, 2, 3])
    @pytest.mark.parametrize("rule", [*RULES, "at_least(1)", "at_least(2)", "at_least(3)"])
    def test_a_node_becomes_what_its_rule_says_in_whatever_order_its_parents_end(
        self, store: Store, rule: str, parents: int
    ) -> None:
        try:
            numbers = trigger_rule(rule, parents)
        except ValueError:
            return  # it asks for more parents than there are
        ways = list(product((S.SUCCESS, S.FAILED, S.SKIPPED, S.CANCELLED), repeat=parents))
        shape: dict[str, list[str]] = {
            f"p{w}.{k}": [] for k in range(parents) for w in range(len(ways))
        }
        shape.update({f"x{w}": [f"p{w}.{k}" for k in range(parents)] for w in range(len(ways))})
        plan = make_plan(shape, rules={f"x{w}": rule for w in range(len(ways))})
        store.submit(plan)
        held = store.step("w", want=1_000).deliveries
        assert len(held) == parents * len(ways)
        became: dict[int, State] = {}

        for k in range(parents):
            turn = held[k * len(ways) : (k + 1) * len(ways)]
            store.step("w", [end(d, ways[w][k]) for w, d in enumerate(turn)])
            found = states_of(store, plan)
            for w, way in enumerate(ways):
                so_far = way[: k + 1]
                says = verdict(numbers, parents, counts(so_far))
                if w not in became and says is not None:
                    became[w] = says
                assert found[f"x{w}"] == became.get(w, S.WAITING).label, (rule, so_far)
        assert store.check(plan.id) == []


def counts(ends: tuple[State, ...]) -> Counts:
    """Count how parents ended."""
    kinds = (S.SUCCESS, S.FAILED, S.SKIPPED, S.CANCELLED)
    return Counts(*(ends.count(kind) for kind in kinds))
