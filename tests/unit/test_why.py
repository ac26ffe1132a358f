# SPDX-License-Identifier: MIT
"""Why a node ran, or did not: by which rule, by whose ends, by which value."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flowq import DAG, FlowQ, ResultMissing, Run, branch
from flowq.states import RULES, trigger_rule
from flowq.why import rule_name
from tests.unit.hand import Hand

AT = r" at \d\d:\d\d:\d\d"


@pytest.fixture
def ruled(q: FlowQ) -> Run[Any]:
    """A run whose b fails, with a node of each kind of rule below a, b and c."""

    @q.task(name="work")
    def work(x: int) -> int:
        if x < 0:
            raise ValueError(x)
        return x

    dag = DAG("ruled")
    for name, x in (("a", 1), ("b", -1), ("c", 3)):
        dag.add(work.s(x), name=name)
    for name, rule in (
        ("two", "at_least(2)"),
        ("alarm", "one_failed"),
        ("after", "all_done"),
        ("plain", "all_success"),
        ("bad", "all_failed"),
    ):
        dag.add(work.s(0), name=name, after=["a", "b", "c"], trigger_rule=rule)
    return dag.start(q)


def run_all(q: FlowQ) -> None:
    with q.consumer(workers=2, drain=True):
        pass


def told(run: Run[Any], node: str) -> str:
    """Why, without moments."""
    return re.sub(AT, "", run.why(node))


def test_what_ran_names_its_rule_and_the_ends_by_which_that_held(
    q: FlowQ, ruled: Run[Any], hand: Hand
) -> None:
    hand.work()

    assert re.search(
        rf"two: success; rule at_least\(2\) held{AT} by a \(success{AT}\) and c \(success{AT}\)$",
        ruled.why("two"),
    )
    assert told(ruled, "alarm") == "alarm: success; rule one_failed held by b (failed)"
    assert told(ruled, "after") == (
        "after: success; rule all_done held by a (success), b (failed) and c (success)"
    )


def test_what_a_rule_kept_from_running_tells_what_came_instead(
    q: FlowQ, ruled: Run[Any], hand: Hand
) -> None:
    hand.work()

    assert told(ruled, "plain") == "plain: blocked by b, ValueError(-1)"
    assert told(ruled, "bad") == (
        "bad: skipped, what it waits for did not fail so; rule all_failed did not hold: "
        "a (success), b (failed) and c (success)"
    )


def test_what_waits_tells_how_much_of_its_rule_is_still_to_come(
    q: FlowQ, ruled: Run[Any], hand: Hand
) -> None:
    hand.work(1)

    assert ruled.why("two") == (
        "two: waiting, until 1 of these succeed, by at_least(2): b (queued), c (queued)"
    )
    assert ruled.why("alarm") == (
        "alarm: waiting, until one of these fails, by one_failed: b (queued), c (queued)"
    )
    assert ruled.why("plain") == "plain: waiting, until these end: b (queued), c (queued)"


@pytest.fixture
def sized(q: FlowQ) -> Any:
    @q.task(name="size")
    def size(n: int) -> int:
        return n

    @q.task(name="load")
    def load(n: int) -> int:
        return n

    @q.flow(name="sized")
    def sized(n: int) -> Any:
        found = size(n)
        arms = {3: lambda: load(found), "big": lambda: load(load(found))}
        return branch(found, arms, default=lambda: load(found))

    return sized


@pytest.mark.parametrize(("given", "taken"), [(3, "3"), (5, "default")])
def test_arms_of_the_same_steps_are_told_apart_by_the_value(
    q: FlowQ, sized: Any, given: int, taken: str
) -> None:
    run = sized(given)
    run_all(q)

    others = [f'"{x}"' for x in ("3", "big", "default") if x != taken]
    said = f'branch: success, since size gave {given}: arm "{taken}" taken, not {", ".join(others)}'
    assert run.why("branch").startswith(said)


def test_what_stands_in_an_arm_not_taken_is_told_why_it_was_never_made(
    q: FlowQ, sized: Any
) -> None:
    run = sized(3)
    assert run.why("branch/big") == 'branch/big: waiting, until branch takes arm "big", or not'

    run_all(q)

    said = 'skipped, arm "big" of branch not taken, since size gave 3'
    assert run.why("branch/big") == f"branch/big: {said}"
    assert run.why("branch/load-2") == f"branch/load-2: {said}"
    with pytest.raises(ResultMissing):
        run.why("branch/never")


def test_a_rule_is_called_as_users_write_it() -> None:
    for name in RULES:
        again = rule_name(trigger_rule(name, 3), 3)
        assert trigger_rule(again, 3) == trigger_rule(name, 3)
    assert rule_name(trigger_rule("at_least(2)", 3), 3) == "at_least(2)"
    assert rule_name(trigger_rule("at_least(1)", 3), 3) == "one_success"
