# SPDX-License-Identifier: MIT
"""Handlers at each level of what is nested: each is told, and once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.cases.stage import Stage, states

LEVELS = ["node", "inner", "middle", "outer"]


def leveled(stage: Stage, mapped: bool) -> Any:
    """Give a flow three levels deep, with an alarm at each and at the node itself."""
    tell = stage.alert.s

    @stage.q.flow(name="inner", on_failure=tell(where="inner"))
    def inner(x: Any) -> Any:
        return stage.pair(stage.give(x).on_error(tell(where="node")))

    @stage.q.flow(name="middle", on_failure=tell(where="middle"))
    def middle(x: Any) -> Any:
        return inner.map(x) if mapped else inner(x)

    @stage.q.flow(name="outer", on_failure=tell(where="outer"))
    def outer(x: Any) -> Any:
        return stage.pair(middle(x))

    return outer


def test_the_error_handler_at_each_level_runs_once(stage: Stage) -> None:
    outer = leveled(stage, mapped=False)
    stage.break_("bad")

    run = stage.run(outer("bad"))

    assert run.state == "failed"
    # from the inside outwards, each with the node that is to blame
    assert stage.told("alert") == [("alert", level, "middle/inner/give") for level in LEVELS]
    assert [s for s in states(run).values() if s not in ("success", "failed", "blocked")] == []


def test_the_error_handler_at_each_level_runs_once_in_each_generation(stage: Stage) -> None:
    outer = leveled(stage, mapped=False)
    stage.break_("bad")
    run = stage.run(outer("bad"))
    stage.calls.clear()

    run.retry()
    stage.run(run)

    assert [where for _, where, _ in stage.told("alert")] == LEVELS
    stage.break_()
    stage.calls.clear()
    run.retry()
    stage.run(run)
    assert run.state == "success"
    assert stage.told("alert") == []
    handlers = {name: state for name, state in states(run).items() if "on_failure" in name}
    assert list(handlers.values()) == ["skipped"] * 3


def test_the_error_handlers_around_a_map_run_once_for_each_item_and_once_for_it(
    stage: Stage,
) -> None:
    outer = leveled(stage, mapped=True)
    stage.break_("bad", "worse")

    run = stage.run(outer(["good", "bad", "worse"]))

    assert run.state == "failed"
    counts = Counter(where for _, where, _ in stage.told("alert"))
    assert counts == {"node": 2, "inner": 2, "middle": 1, "outer": 1}
    blamed = {node for _, where, node in stage.told("alert") if where == "node"}
    assert blamed == {"middle/inner[1]/give", "middle/inner[2]/give"}
