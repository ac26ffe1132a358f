# SPDX-License-Identifier: MIT
"""``cache=``: successes that stand for equal calls."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from flowq import FlowQ, Skip, TaskError, group
from flowq.errors import PayloadError, StoreUnavailable
from flowq.message import id_bytes
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import pass_time

CALLS: list[Any] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()


@pytest.fixture
def load(q: FlowQ) -> Any:
    @q.task(name="load", cache=60)
    def load(day: str, deep: bool = False) -> list[str]:
        CALLS.append(day)
        if day == "bad":
            raise ValueError(day)
        if day == "none":
            raise Skip(day)
        return [day, "rows"]

    return load


@pytest.fixture
def plain(q: FlowQ) -> Any:
    @q.task(name="plain")
    def plain(day: Any) -> Any:
        CALLS.append(f"plain {day}")
        return day

    return plain


def run_all(q: FlowQ) -> None:
    with q.consumer(workers=1, drain=True):
        pass


# --- what is a hit -------------------------------------------------------------------------------


def test_an_equal_call_takes_the_value_and_runs_no_body(q: FlowQ, load: Any) -> None:
    first = load("mon")
    run_all(q)

    again = [load("mon"), load(day="mon"), load("mon", False), load.map(["mon", "tue"])]
    run_all(q)

    assert CALLS == ["mon", "tue"]
    assert [r.get() for r in again[:3]] == [first.get()] * 3
    assert again[3].get() == [["mon", "rows"], ["tue", "rows"]]


def test_other_arguments_tasks_and_versions_are_no_hit(q: FlowQ, load: Any) -> None:
    def body(day: str) -> str:
        CALLS.append(f"{day} again")
        return day

    other = q.task(name="other", cache=60)(body)
    load("mon"), other("mon")
    run_all(q)
    del q._tasks["other"]
    newer = q.task(name="other", cache=60, version=2)(body)

    load("mon", True), newer("mon"), newer("mon")
    run_all(q)

    assert CALLS == ["mon", "mon again", "mon", "mon again"]


def test_only_successes_are_kept(q: FlowQ, load: Any) -> None:
    for _ in range(2):
        bad, none = load("bad"), load("none")
        run_all(q)

        assert (bad.state, none.state) == ("failed", "skipped")

    assert CALLS == ["bad", "none"] * 2


def test_a_graph_that_a_body_returned_is_not_kept(q: FlowQ, plain: Any) -> None:
    @q.task(name="grow", cache=60)
    def grow(n: int) -> Any:
        CALLS.append(n)
        return plain.s(n)

    made = [group(grow.s(1)).start(), group(grow.s(1)).start()]
    run_all(q)

    assert [r.get() for r in made] == [[1], [1]]
    assert CALLS.count(1) == 2


def test_it_is_forgotten_in_time(q: FlowQ) -> None:
    clock = ManualClock()
    held = FlowQ(f"{q.name}-held", q.url.replace("q.db", "held.db"), clock=clock)
    load = held.task(name="load", cache=100)(lambda day: CALLS.append(day))

    for seconds in (0, 90, 20):
        pass_time(held.store, clock, seconds)
        load("mon")
        with held.consumer(workers=1, drain=True):
            pass

    assert CALLS == ["mon", "mon"]
    held.store.close()


def test_it_is_said_on_calls_and_nodes_too_and_taken_back(q: FlowQ, load: Any, plain: Any) -> None:
    for _ in range(2):
        plain.options(cache=60)(1)
        (plain.s(1) | plain.s().options(cache=60)).start()
        load.options(cache=0)("mon")
        run_all(q)

    # the node finds what the call had left; both of the chain's first ran
    assert CALLS == ["plain 1", "plain 1", "mon", "plain 1", "mon"]


def test_what_comes_from_upstream_counts_as_arguments(q: FlowQ, load: Any, plain: Any) -> None:
    for day in ("mon", "mon", "tue"):
        (plain.s(day) | load.s()).start()
        load(day, deep=False)
        run_all(q)

    assert [x for x in CALLS if not x.startswith("plain")] == ["mon", "tue"]
    assert len(CALLS) == 5


def test_what_a_body_is_told_of_itself_does_not_count(q: FlowQ) -> None:
    @q.task(name="told", cache=60, context=True)
    def told(x: int, task: Any) -> int:
        CALLS.append(task.id)
        return x

    made = [told(1), told(1)]
    run_all(q)

    assert [r.get() for r in made] == [1, 1]
    assert len(CALLS) == 1


# --- what a hit is -------------------------------------------------------------------------------


def test_values_are_copied(q: FlowQ, load: Any) -> None:
    first = load.options(result_ttl=0)("mon")
    run_all(q)
    again = load("mon")
    run_all(q)

    again.get().append("changed")
    third = load("mon")
    run_all(q)

    assert first.state == "success"  # though its own value was not kept
    assert q.result(again.id).get() == third.get() == ["mon", "rows"]
    assert CALLS == ["mon"]


def test_a_hit_says_whose_value_it_is(
    q: FlowQ, load: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = group(load.s("mon")).start()
    run_all(q)
    source = f"{first.id}:1"

    with caplog.at_level(logging.INFO, "flowq.worker"):
        alone, run = load("mon"), group(load.s("mon")).start()
        run_all(q)

    assert f"from the cache, as {source} gave it" in alone.why()
    assert f"load: success, from the cache, as {source} gave it" in run.why("load")
    assert "cache" not in first.why("load")
    assert caplog.text.count(f"from the cache, as {source} gave it") == 2
    assert q.store.check(id_bytes(run.id)) == []


def test_a_rerun_does_not_read_it_and_leaves_a_new_one(q: FlowQ) -> None:
    @q.task(name="count", cache=60)
    def count(x: int) -> int:
        CALLS.append(x)
        return len(CALLS)

    run = group(count.s(1)).start()
    run_all(q)

    run.rerun("count")
    run_all(q)
    after = count(1)
    run_all(q)

    assert q.run(run.id).get() == [2]
    assert after.get() == 2
    assert CALLS == [1, 1]


# --- what cannot be ------------------------------------------------------------------------------


def test_what_cannot_be_keyed_is_an_error_at_the_call(q: FlowQ, load: Any, plain: Any) -> None:
    @q.flow
    def nightly() -> Any:
        return plain(load(lambda: 1))

    starts = [
        lambda: load(lambda: 1),
        lambda: load.map([lambda: 1]),
        lambda: (load.s(lambda: 1) | plain.s()).start(),
        lambda: plain.options(cache=5)(lambda: 1),
        nightly,
    ]

    for start in starts:
        with pytest.raises(PayloadError, match=r"arguments of .*cannot be keyed"):
            start()
    assert plain(lambda: 1).created
    assert q.store.status().runs == 0


def test_what_comes_from_upstream_and_cannot_be_keyed_fails_the_node(q: FlowQ) -> None:
    @q.task(name="make")
    def make() -> Any:
        return lambda: 1

    @q.task(name="use", cache=60, retries=3)
    def use(f: Any) -> int:
        CALLS.append(f)
        return int(f())

    run = (make.s() | use.s()).start()
    run_all(q)

    with pytest.raises(TaskError, match="arguments of use cannot be keyed") as told:
        run.get()
    assert told.value.failure.reason == "payload"
    assert CALLS == []


def test_a_store_that_cannot_tell_is_a_miss(
    q: FlowQ, load: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*args: Any, **more: Any) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(q.store, "recall", away)
    monkeypatch.setattr(q.store, "remember", away)
    made = load("mon")
    run_all(q)

    assert made.get() == ["mon", "rows"]
    assert "the cache cannot be read: away" in caplog.text
    assert "its result is not cached: away" in caplog.text


def test_it_costs_nothing_where_nothing_is_cached(
    q: FlowQ, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **more: Any) -> Any:
        raise AssertionError("asked")

    monkeypatch.setattr(q.store, "recall", never)
    monkeypatch.setattr(q.store, "remember", never)
    made = (plain.s(1) | plain.s()).start()
    run_all(q)

    assert made.get() == 1


def test_what_stands_for_one_node_of_a_test_is_not_for_another(q: FlowQ, load: Any) -> None:
    graph = group(load.s("mon").options(name="a"), load.s("mon").options(name="b"))

    run = graph.test(values={"a": 1, "b": 2})

    assert run.get() == [1, 2]
