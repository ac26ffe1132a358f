# SPDX-License-Identifier: MIT
"""An element of a map that is a `Failure` blocks its item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowq import Failure, FlowQ, GroupError, TaskError
from tests.unit.staged import Stage, states, store_of

app = FlowQ("blocked", "memory://")
CALLS: list[Any] = []
GONE = Failure("other.task", "id", "there", "error", "builtins.ValueError", "ValueError('no')")


@app.task(name="odd")
def odd(x: int) -> int:
    if not x % 2:
        raise ValueError(f"{x} is even")
    return x


@app.task(name="seen")
def seen(x: Any, y: Any = None) -> Any:
    CALLS.append(("seen", x, y))
    return x


@app.task(name="alert")
def alert(failure: Failure) -> None:
    CALLS.append(("alert", failure.message))


@app.task(name="listed")
def listed() -> list[Any]:
    return [1, GONE, 3]


@app.flow(name="item")
def item(x: Any) -> Any:
    return seen(seen(x["path"]))


@app.flow(name="both")
def both() -> Any:
    kept = odd.options(items="keep").map([1, 2, 3])
    return seen.options(items="keep").map(kept)


@pytest.fixture(params=["model", "memory", "redis"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    kind = "sqlite" if request.param == "memory" else request.param

    def redis_url() -> Any:
        return request.getfixturevalue("redis_url")

    name = request.getfixturevalue("store_name") if kind == "redis" else "blocked"
    store = store_of(kind, app, name, tmp_path, redis_url)
    CALLS.clear()
    with app.aside(store, app.clock):
        yield Stage(app, CALLS)
    store.close()


@pytest.mark.parametrize("known", [True, False])
def test_it_is_blocked_by_that_failure_and_never_runs(stage: Stage, known: bool) -> None:
    run = stage.run(seen.map([1, GONE, 3]) if known else listed.s() | seen.each())

    found = [state for name, state in states(run).items() if "[" in name]
    assert found == ["success", "blocked", "success"]
    assert [call[1] for call in stage.told("seen")] == [1, 3]
    assert run.state == "failed"
    with pytest.raises((GroupError, TaskError)) as caught:
        run.get()
    failure = caught.value.failures[0] if known else caught.value.failure
    assert (failure.node, failure.message) == ("there", "ValueError('no')")


def test_what_keep_let_through_blocks_what_is_mapped_over_it(stage: Stage) -> None:
    one, two, three = stage.value(both())

    assert (one, three) == (1, 3)
    assert isinstance(two, Failure)
    assert two.message == "ValueError('2 is even')"
    assert [call[1] for call in stage.told("seen")] == [1, 3]


@pytest.mark.parametrize("known", [True, False])
def test_an_item_that_is_a_flow_or_a_chain_is_blocked_as_a_whole(stage: Stage, known: bool) -> None:
    paths = [{"path": 1}, GONE]
    steps = seen.s() | seen.s()
    if known:
        graphs: list[Any] = [item.s().map(paths), steps.map([1, GONE])]
    else:
        graphs = [seen.s(paths) | item.s().each(), seen.s([1, GONE]) | steps.each()]
    for graph in graphs:
        run = stage.run(graph)
        assert run.state == "failed"
        found = [state for name, state in states(run).items() if "[1]" in name]
        assert set(found) == {"blocked"}


def test_it_counts_as_a_failed_item(stage: Stage) -> None:
    assert stage.value(seen.s().map([1, GONE]).options(tolerate=1)) == [1, GONE]
    assert stage.value(seen.s().map([1, GONE, 3]).options(need=2)) == [1, 3]
    run = stage.run(seen.s().map([GONE, 1]).options(items="cancel"))
    assert list(states(run).values()) == ["blocked", "cancelled"]


def test_alarms_of_items_ring_for_it(stage: Stage) -> None:
    stage.run(seen.options(on_error=alert.s()).s().map([1, GONE]))

    assert stage.told("alert") == [("alert", "ValueError('no')")]


def test_zipped_tuples_and_chunks_are_blocked_by_one_of_theirs(stage: Stage) -> None:
    run = stage.run(seen.s().map([1, 2], ["a", GONE]))
    assert list(states(run).values()) == ["success", "blocked"]

    run = stage.run(seen.s().map([(1, "a"), GONE, (3, "c")]))
    assert list(states(run).values()) == ["success", "blocked", "success"]
    assert [call[1:] for call in stage.told("seen")] == [(1, "a"), (3, "c")]

    run = stage.run(seen.s().map([1, 2, GONE, 4, 5]).options(chunksize=2))
    assert list(states(run).values()) == ["success", "blocked", "success"]


def test_a_failure_that_is_no_element_is_a_value(stage: Stage) -> None:
    assert stage.value(seen.s(GONE)) == GONE
    assert stage.value(seen.s().map([1], y=GONE)) == [1]
