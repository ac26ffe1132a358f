# SPDX-License-Identifier: MIT
"""What runs again: what is around it, and what it takes along."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cases.stage import Stage, states


@pytest.mark.parametrize("way", ["retry", "rerun"])
@pytest.mark.parametrize("failed", ["body", "beside"])
def test_what_runs_again_inside_an_atomic_flow_after_its_cleanup_does_so_with_all_of_it(
    stage: Stage, way: str, failed: str
) -> None:
    @stage.q.flow(name="cluster", atomic=True, finally_=stage.give.s("torn down"))
    def cluster() -> Any:
        made = stage.give.options(name="make")("made")
        beside = stage.give.options(name="beside")("beside").after(made)
        return stage.pair(stage.give.options(name="body")("body").after(made), beside)

    @stage.q.flow(name="night")
    def night() -> Any:
        before = stage.give.options(name="before")("before")
        return stage.pair.options(name="after")(cluster().after(before))

    stage.break_(failed)
    run = stage.run(night())
    assert run.state == "failed"
    assert stage.calls[-1] == ("give", "torn down")
    stage.break_()
    stage.calls.clear()

    if way == "retry":
        run.retry()
    else:
        run.rerun(f"cluster/{failed}")
    stage.run(run)

    assert run.get() == (("body", "beside"), None)
    # what its cleanup destroyed is made anew, first of all; what stands before it is not touched
    assert stage.calls[0] == ("give", "made")
    assert sorted(x for _, x, *_ in stage.calls[1:3]) == ["beside", "body"]
    rest = [("pair", "body", "beside"), ("give", "torn down"), ("pair", ("body", "beside"), None)]
    assert stage.calls[3:] == rest
    assert set(states(run).values()) == {"success"}


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_rerun_above_a_cached_node_runs_it_again_though_its_value_is_kept(
    stage: Stage, dynamic: bool
) -> None:
    @stage.q.task(name="load", cache=3600)
    def load(x: Any) -> Any:
        stage.calls.append(("load", x))
        return x

    @stage.q.flow(name="f")
    def f() -> Any:
        if dynamic:
            return stage.pair(load.map(stage.numbers(2)))
        return stage.pair(load(stage.give(0)))

    run = stage.run(f())
    once = len(stage.told("load"))
    assert stage.run(f()).get() == run.get()
    assert len(stage.told("load")) == once

    run.rerun("numbers" if dynamic else "give")
    stage.run(run)

    assert len(stage.told("load")) == 2 * once
    assert set(states(run).values()) == {"success"}
