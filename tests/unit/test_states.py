# SPDX-License-Identifier: MIT
"""The tables of states: every cell, and laws that trigger rules keep."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowq.states import (
    FINAL,
    MEANING,
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

ENDS = ("succeeded", "failed", "skipped", "cancelled")


@st.composite
def rules_and_ends(draw: st.DrawFn) -> tuple[str, list[str]]:
    ends = draw(st.lists(st.sampled_from(ENDS), min_size=1, max_size=8))
    least = f"at_least({draw(st.integers(0, len(ends)))})"
    return draw(st.sampled_from([*RULES, least])), ends


def count(ends: list[str]) -> Counts:
    return Counts(*(ends.count(kind) for kind in ENDS))


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_cell_is_in_the_table_or_changes_nothing(state: State, event: Event) -> None:
    assert next_state(state, event) == TRANSITIONS.get((state, event))
    if state.final:
        assert next_state(state, event) is None


def test_every_state_is_reached_and_has_a_meaning() -> None:
    reached = set(TRANSITIONS.values()) | {State.WAITING}

    assert set(State) == reached
    assert set(MEANING) == set(State)
    assert {s for s in State if s.final} == FINAL


@given(rules_and_ends())
def test_a_verdict_once_given_stands(case: tuple[str, list[str]]) -> None:
    text, ends = case
    rule = trigger_rule(text, len(ends))

    runs = [verdict(rule, len(ends), count(ends[:k])) for k in range(len(ends) + 1)]

    given_ = [v for v in runs if v is not None]
    assert given_, "all parents ended, and there is no verdict"
    if State.QUEUED in given_:  # a node that began is not asked again
        assert given_[0] in (State.QUEUED, State.BLOCKED)
    else:
        assert len(set(given_)) == 1


@given(rules_and_ends(), st.randoms())
def test_the_order_in_which_parents_end_never_decides(
    case: tuple[str, list[str]], random: object
) -> None:
    text, ends = case
    rule = trigger_rule(text, len(ends))
    other = list(ends)
    random.shuffle(other)  # type: ignore[attr-defined]

    def first(order: list[str]) -> State | None:
        found = (verdict(rule, len(order), count(order[:k])) for k in range(len(order) + 1))
        return next(v for v in found if v is not None)

    assert first(ends) == first(other)


@pytest.mark.parametrize("text", ["", "all", "at_least(x)", "at_least(-1)", "ALL_DONE"])
def test_an_unknown_rule_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(ValueError, match="all_success"):
        trigger_rule(text, 1)


@pytest.mark.parametrize("text", ["at_least(3)", "one_failed", "one_success"])
def test_a_rule_that_asks_for_more_parents_than_there_are_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="parents, but there are"):
        trigger_rule(text, 2 if text.startswith("at") else 0)


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_an_expansion_fails_before_it_is_cancelled_before_it_is_skipped(
    failures: int, cancels: int, skips: int
) -> None:
    worst = [
        (failures, State.FAILED),
        (cancels, State.CANCELLED),
        (skips, State.SKIPPED),
        (1, State.SUCCESS),
    ]

    assert outcome_of(failures, cancels, skips) == next(state for n, state in worst if n)
