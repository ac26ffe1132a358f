# SPDX-License-Identifier: MIT
"""Maps: empty ones, nested ones, and what one item means for the others."""

from __future__ import annotations

from typing import Any

import pytest

from flowq import GroupError, TaskError, branch, chain
from flowq.errors import Failure
from tests.cases.stage import Stage, states


@pytest.mark.parametrize("known", [True, False])
def test_an_empty_map_is_an_empty_list(stage: Stage, known: bool) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        items = stage.give.map([] if known else stage.numbers(0))
        return [items, stage.total(items)]

    run = stage.run(f())

    assert run.state == "success"
    assert run.get() == [[], 0]
    assert stage.told("give") == []


@pytest.mark.parametrize("known", [True, False])
def test_a_map_of_an_empty_map_is_an_empty_list(stage: Stage, known: bool) -> None:
    @stage.q.flow(name="f")
    def f() -> Any:
        items = stage.give.map([] if known else stage.numbers(0))
        return stage.total(stage.more.map(items))

    run = stage.run(f())

    assert run.get() == 0
    assert set(states(run).values()) == {"success"}
    assert stage.told("more") == []


def test_an_empty_map_within_a_map_is_an_empty_list_in_its_place(stage: Stage) -> None:
    @stage.q.flow(name="row")
    def row(n: Any) -> Any:
        return stage.more.map(stage.numbers(n))

    @stage.q.flow(name="f")
    def f() -> Any:
        return row.map(stage.numbers(3))

    assert stage.run(f()).get() == [[], [1], [1, 2]]


def test_an_empty_map_is_empty_again_after_a_retry(stage: Stage) -> None:
    run = chain(stage.numbers.s(0), stage.more.each(), stage.give.s()).start()
    stage.break_([])
    assert stage.run(run).state == "failed"
    stage.break_()

    run.retry()

    assert stage.run(run).get() == []


def test_one_failing_item_of_a_map_of_a_map_of_a_branch_fails_its_own_way_up(stage: Stage) -> None:
    @stage.q.flow(name="item")
    def item(x: Any) -> Any:
        return branch(
            stage.give.options(name="kind")(x), {1: lambda: stage.more(x)}, default=lambda: bad(x)
        )

    @stage.q.task(name="bad")
    def bad(x: Any) -> Any:
        raise ValueError(f"{x} is bad")

    @stage.q.flow(name="row")
    def row(xs: Any) -> Any:
        return item.map(xs)

    @stage.q.flow(name="rows")
    def rows(xss: Any) -> Any:
        return [stage.total(row.map(stage.give(xss))), stage.give.options(name="beside")("fine")]

    run = stage.run(rows([[1, 2], [], [1]]))

    found = states(run)
    way = ["row[0]/item[1]/branch/bad", "row[0]/item[1]/branch", "row[0]/item[1]"]
    way += ["row[0]/item", "row[0]", "row"]
    assert {found.pop(name) for name in way} == {"failed"}
    assert found.pop("total") == "blocked"
    assert set(found.values()) == {"success"}
    with pytest.raises(TaskError) as told:
        run.get()
    assert told.value.node == "row[0]/item[1]/branch/bad"


def over(stage: Stage, outer: str) -> Any:
    @stage.q.flow(name="f")
    def f() -> Any:
        kept = stage.give.options(items="keep").map(stage.numbers(4))
        return stage.more.options(items=outer).map(kept)

    stage.break_(2)
    run = stage.run(f())
    found = states(run)
    assert [found[f"give[{i}]"] for i in range(4)] == ["success", "success", "failed", "success"]
    assert [found[f"more[{i}]"] for i in range(4)] == ["success", "success", "blocked", "success"]
    assert sorted(stage.told("more")) == [("more", 0), ("more", 1), ("more", 3)]
    return run


def test_an_item_that_is_blocked_in_a_map_over_a_map_stands_in_its_place(stage: Stage) -> None:
    run = over(stage, outer="keep")

    assert (states(run)["more"], run.state) == ("success", "success")
    items = run.get()
    assert [x.node if isinstance(x, Failure) else x for x in items] == [1, 2, "give[2]", 4]


def test_an_item_that_is_blocked_in_a_map_over_a_map_fails_that_after_the_rest(
    stage: Stage,
) -> None:
    run = over(stage, outer="all")

    assert (states(run)["give"], states(run)["more"]) == ("success", "failed")
    with pytest.raises((GroupError, TaskError), match="2 is broken"):
        run.get()


def lists(stage: Stage, **options: Any) -> Any:
    """Give a flow that maps over as many items as `sizes` says at that time."""
    sizes = [4]

    @stage.q.task(name="find")
    def find() -> list[int]:
        if sizes[0] < 0:
            raise ValueError("nothing to list")
        return list(range(sizes[0]))

    @stage.q.flow(name="f")
    def f() -> Any:
        return stage.total(stage.give.map(find.options(**options)()))

    return f, sizes


def test_a_retry_of_a_map_keeps_its_items_though_its_upstream_would_now_give_fewer(
    stage: Stage,
) -> None:
    f, sizes = lists(stage)
    stage.break_(3)
    run = stage.run(f())
    assert run.state == "failed"
    stage.break_()
    sizes[0] = 2
    stage.calls.clear()

    run.retry()
    stage.run(run)

    assert run.get() == 6
    assert stage.calls == [("give", 3), ("total", 4)]


@pytest.mark.parametrize("fewer", [2, 0])
def test_a_map_whose_upstream_runs_again_and_gives_fewer_items_has_only_those(
    stage: Stage, fewer: int
) -> None:
    f, sizes = lists(stage)
    stage.break_(3)
    run = stage.run(f())
    sizes[0] = fewer
    stage.calls.clear()

    run.rerun("find")
    stage.run(run)

    assert run.get() == sum(range(fewer))
    assert stage.told("total") == [("total", fewer)]
    items = sorted(name for name in states(run) if name.startswith("give["))
    assert items == [f"give[{i}]" for i in range(fewer)]


def test_a_retry_in_which_a_forgiven_upstream_gives_fewer_than_its_default(stage: Stage) -> None:
    f, sizes = lists(stage, default=[5, 6, 7])
    sizes[0] = -1
    run = stage.run(f())
    assert (run.state, run.get()) == ("success", 18)
    sizes[0] = 2

    run.retry(forgiven=True)
    stage.run(run)

    assert run.get() == 1
    assert sorted(n for n in states(run) if n.startswith("give[")) == ["give[0]", "give[1]"]
