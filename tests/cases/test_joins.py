# SPDX-License-Identifier: MIT
"""Joins: how many parents a node has, and in which order they end."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from flowq import chain, chord, group
from tests.cases.stage import Stage, states


def test_a_join_of_one_element_gives_a_list_of_one(stage: Stage) -> None:
    ways = [
        chord([stage.give.s(5)], stage.total.s()),
        group(stage.give.s(5)) | stage.total.s(),
        stage.give.s().map([5]) | stage.total.s(),
    ]

    for way in ways:
        assert stage.run(way.start()).get() == 5

    assert stage.told("total") == [("total", 1)] * 3


def test_a_group_of_one_before_a_group_of_one_runs_one_after_the_other(stage: Stage) -> None:
    run = (group(stage.give.s(1)) >> group(stage.give.s(2))).start()

    stage.run(run)

    assert stage.calls == [("give", 1), ("give", 2)]
    assert set(states(run).values()) == {"success"}


RULES_OF_ONE = {
    # rule: what it becomes after a success, and after a failure
    "all_success": ("success", "blocked"),
    "all_done": ("success", "success"),
    "none_failed": ("success", "blocked"),
    "none_failed_min_one_success": ("success", "blocked"),
    "one_success": ("success", "blocked"),
    "at_least(1)": ("success", "blocked"),
    "one_failed": ("skipped", "success"),
    "all_failed": ("skipped", "success"),
}


@pytest.mark.parametrize("rule", RULES_OF_ONE)
def test_a_rule_over_one_element_knows_both_of_its_ends(stage: Stage, rule: str) -> None:
    @stage.q.flow(name="f")
    def f(x: Any) -> Any:
        return stage.pair().options(trigger_rule=rule).after(stage.give(x))

    stage.break_("bad")
    found = [states(stage.run(f(x)))["pair"] for x in ("good", "bad")]

    assert tuple(found) == RULES_OF_ONE[rule]


@pytest.mark.parametrize("order", list(itertools.permutations(["b", "c"])))
def test_a_diamond_runs_each_of_its_nodes_once(stage: Stage, order: tuple[str, ...]) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        a = stage.give.options(name="a")(1)
        b, c = stage.more.options(name="b")(a), stage.more.options(name="c")(a)
        return stage.pair(b, c)

    run = f()
    stage.do(*stage.deliver(run, "a"))
    arms = dict(zip("bc", stage.deliver(run, "b", "c"), strict=True))
    stage.do(arms[order[0]])
    assert stage.fetch() == []
    stage.do(arms[order[1]])
    stage.run(run)

    assert run.get() == (2, 2)
    assert [call[0] for call in stage.calls] == ["give", "more", "more", "pair"]


def test_a_diamond_both_arms_of_which_end_in_one_step_joins_once(stage: Stage) -> None:
    one = stage.give.s(1)
    run = chain(one, group(stage.more.s(), stage.more.s()), stage.total.s()).start()
    stage.do(*stage.fetch())

    stage.do(*stage.fetch(2))

    (last,) = stage.fetch(2)
    stage.do(last)
    assert run.get() == 4
    stage.sound(run)


def test_a_wide_join_of_10_000_waits_for_the_last_and_runs_once(stage: Stage) -> None:
    wide = 10_000
    run = chord([stage.give.s(i) for i in range(wide)], stage.total.s()).start()
    done = 0
    while done < wide - 1:
        found = stage.fetch(min(500, wide - 1 - done))
        stage.do(*found)
        done += len(found)
    assert stage.told("total") == []

    stage.run(run)

    assert len(stage.told("give")) == wide
    assert stage.told("total") == [("total", wide)]
    assert run.get() == sum(range(wide))
