# SPDX-License-Identifier: MIT
"""Workers that are killed (SIGKILL, in processes of their own) at the worst moments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from flowq import branch, chain
from flowq.message import decode_message
from flowq.testing.contract.base import pass_time
from tests.cases.killed import Killer
from tests.cases.stage import LEASE, Stage, states


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    made = Killer()
    yield made
    made.close()


@pytest.mark.parametrize("noticed", ["by its consumer", "by its lease"])
def test_a_parent_killed_after_its_body_and_before_its_settlement_runs_again(
    stage: Stage, killer: Killer, noticed: str
) -> None:
    run = chain(stage.give.s(1), stage.more.s(), stage.pair.s()).start()
    stage.do(*stage.fetch())

    assert killer.die(stage, "dead", settled=False)["node"] == "more"

    assert states(run) == {"give": "success", "more": "running", "pair": "waiting"}
    assert stage.fetch() == []
    if noticed == "by its lease":
        pass_time(stage.store, stage.clock, LEASE + 1)
    else:
        stage.lose("dead")
    (again,) = stage.fetch()
    assert again.delivery == 2
    assert {node.name: node.losses for node in run.nodes()} == {"give": 0, "more": 1, "pair": 0}
    stage.do(again)
    stage.run(run)
    assert run.get() == (2, None)
    # a body is at least once; what depends on it is once
    assert stage.calls == [("give", 1), ("more", 1), ("more", 1), ("pair", 2, None)]


def test_a_parent_killed_just_after_its_settlement_does_not_run_again(
    stage: Stage, killer: Killer
) -> None:
    run = chain(stage.give.s(1), stage.more.s()).start()

    assert killer.die(stage, "dead", settled=True)["node"] == "give"
    stage.lose("dead")

    stage.run(run)
    assert run.get() == 2
    assert stage.calls == [("give", 1), ("more", 1)]


def nested(stage: Stage, shape: str) -> tuple[Any, Any, dict[Any, int]]:
    """Start what grows three levels deep; with its value, and how often each body is to run."""
    if shape == "returned graphs":
        run = chain(stage.nest.s(3), stage.give.s()).start()
        calls = [
            *(("nest", str(n)) for n in range(4)),
            *(("more", str(n)) for n in range(3)),
            ("give", "3"),
        ]
        return run, 3, dict.fromkeys(calls, 1)

    @stage.q.flow(name="item")
    def item(x: Any) -> Any:
        return branch(x, {1: lambda: stage.more(x)}, default=0)

    @stage.q.flow(name="row")
    def row(x: Any) -> Any:
        return item.map(stage.give([x]))

    @stage.q.flow(name="rows")
    def rows() -> Any:
        return row.map(stage.give([1]))

    # a list has one element, so that there is one message at a time to take
    return rows(), [[2]], {("give", "[1]"): 2, ("more", "1"): 1}


@pytest.mark.parametrize("shape", ["returned graphs", "maps of maps of branches"])
@pytest.mark.parametrize("settled", [False, True])
def test_an_expansion_three_levels_deep_with_a_crash_at_each_level(
    stage: Stage, killer: Killer, shape: str, settled: bool
) -> None:
    run, value, bodies = nested(stage, shape)
    levels = set()
    while not run.ready:
        said = killer.die(stage, "dead", settled=settled)
        assert said["node"], states(run)
        if said["outcome"] == "Expand":
            levels.add(said["node"].count("/"))
        stage.lose("dead")
        if not settled:
            # it was as if it had never been begun: another one does it
            (again,) = stage.fetch()
            assert decode_message(again.body).name == said["node"]
            stage.do(again)

    assert run.get() == value
    assert levels == {0, 1, 2}
    stage.sound(run)
    names = [node.name for node in run.nodes()]
    assert len(names) == len(set(names))
    times = 1 if settled else 2
    assert Counter((name, str(x)) for name, x in stage.calls) == {
        call: times * n for call, n in bodies.items()
    }
