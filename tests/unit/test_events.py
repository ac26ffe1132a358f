# SPDX-License-Identifier: MIT
"""What happens to a run, told as it happens."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest

from flowq import FlowQ, ResultMissing, ResultTimeout, current_task
from flowq.storage.base import NodeInfo
from flowq.tracking import PAGE, Tracker
from flowq.wiring import Event

PATIENCE = 20.0


@pytest.fixture
def nightly(q: FlowQ) -> Any:
    @q.task(name="extract")
    def extract(n: int) -> list[int]:
        return list(range(n))

    @q.task(name="clean")
    def clean(x: int) -> int:
        if x == 1:
            raise ValueError(f"no {x}")
        return x

    @q.task(name="report")
    def report(rows: list[int]) -> int:
        return len(rows)

    @q.flow(name="nightly", finally_=report.s([]))
    def nightly(n: int) -> Any:
        return report(clean.options(items="keep").map(extract(n)))

    return nightly


def told(events: list[Event]) -> list[tuple[str, str]]:
    return [(e.node, e.state) for e in events]


def test_events_tell_each_beginning_and_each_end_once_in_the_order_of_time(
    q: FlowQ, nightly: Any
) -> None:
    run = nightly(3)

    with q.consumer(workers=2):
        seen = list(run.events(timeout=PATIENCE))

    states = Counter(told(seen))
    assert set(states.values()) == {1}
    assert set(states) == {
        *((n, s) for n in ("extract", "clean[0]", "clean[2]", "report", "finally/report")
          for s in ("running", "success")),
        ("clean[1]", "running"), ("clean[1]", "failed"),
        ("clean", "expanded"), ("clean", "success"), ("", "expanded"), ("", "success"),
    }  # fmt: skip
    assert told(seen)[-1] == ("", "success")
    for node in ("extract", "clean[0]", "report"):
        assert told(seen).index((node, "running")) < told(seen).index((node, "success"))
    failed = next(e for e in seen if e.state == "failed")
    assert failed.why == "ValueError('no 1') (forgiven)"
    assert q.result(failed.id).state == "failed"


def test_one_who_comes_late_gets_the_same_events_in_order(q: FlowQ, nightly: Any) -> None:
    run = nightly(3)
    with q.consumer(workers=2):
        live = list(run.events(timeout=PATIENCE))

    late = list(q.run(run.id).events())

    assert sorted(told(late)) == sorted(told(live))
    assert [e.order for e in late] == sorted(e.order for e in late)
    assert late[0].node == "" and told(late)[-1] == ("", "success")


def test_events_go_on_behind_one_of_them(q: FlowQ, nightly: Any) -> None:
    run = nightly(3)
    with q.consumer(workers=2, drain=True):
        pass
    whole = list(run.events())

    assert [list(run.events(after=e)) for e in whole] == [
        whole[k:] for k in range(1, len(whole) + 1)
    ]


def test_events_come_while_the_run_goes_on(q: FlowQ) -> None:
    go = threading.Event()

    @q.task(name="first")
    def first() -> int:
        return 1

    @q.task(name="second")
    def second(x: int) -> int:
        assert go.wait(PATIENCE)
        return x

    run = (first.s() | second.s()).start()
    with q.consumer(workers=1, kind="thread"):
        for event in run.events(timeout=PATIENCE):
            if (event.node, event.state) == ("second", "running"):
                assert not run.ready  # it was told of the beginning before the end
                go.set()
    assert go.is_set() and run.state == "success"


def test_each_attempt_that_is_seen_to_begin_is_told_once(q: FlowQ) -> None:
    go = [threading.Event(), threading.Event()]

    @q.task(name="flaky", retries=1, retry_delay=0.05)
    def flaky(x: int) -> int:
        attempt = current_task().attempt
        assert go[attempt - 1].wait(PATIENCE)
        if attempt == 1:
            raise ValueError("again")
        return x

    run = (flaky.s(1) | flaky.s()).start()
    seen = []
    with q.consumer(workers=1, kind="thread"):
        for event in run.events(timeout=PATIENCE):
            if event.state == "running":
                seen.append((event.index, event.attempt))
                go[event.attempt - 1].set()

    assert seen[:2] == [(1, 1), (1, 2)]
    assert len(seen) == len(set(seen)) and run.state == "success"


def test_events_of_a_node_are_those_inside_it(q: FlowQ, nightly: Any) -> None:
    run = nightly(2)
    with q.consumer(workers=2, drain=True):
        pass

    inside = list(run.result("clean").events())
    alone = list(run.result("extract").events())

    assert {e.node for e in inside} == {"clean", "clean[0]", "clean[1]"}
    assert told(inside)[-1] == ("clean", "success")
    assert told(alone) == [("extract", "running"), ("extract", "success")]


def test_a_task_alone_tells_its_beginning_and_its_end(q: FlowQ) -> None:
    @q.task(name="fail")
    def fail() -> None:
        raise ValueError("bad")

    result = fail()
    with q.consumer(workers=1):
        seen = list(result.events(timeout=PATIENCE))

    assert [(e.task, e.state, e.why) for e in seen] == [
        ("fail", "running", ""),
        ("fail", "failed", "ValueError('bad')"),
    ]


def test_a_run_that_runs_again_tells_its_new_generation(q: FlowQ) -> None:
    fails = [True]

    @q.task(name="flaky")
    def flaky(x: int) -> int:
        if fails and x:
            raise ValueError(x)
        return x

    run = flaky.map([0, 1])
    with q.consumer(workers=1, kind="thread"):
        assert told(list(run.events(timeout=PATIENCE)))[-1] == ("", "failed")
        fails.clear()
        run.retry()
        seen = list(run.events(timeout=PATIENCE))

    assert told(seen)[-1] == ("", "success")
    assert {(e.index, e.generation) for e in seen} == {(0, 1), (1, 0), (2, 1)}


def test_events_of_what_is_not_there_or_takes_too_long_are_errors(q: FlowQ, nightly: Any) -> None:
    with pytest.raises(ResultMissing):
        q.run("0" * 32).events()

    began = time.monotonic()
    with pytest.raises(ResultTimeout):
        list(nightly(1).events(timeout=0.2))
    assert time.monotonic() - began < PATIENCE


def test_a_look_reads_what_may_have_moved_and_not_the_whole_run(
    q: FlowQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    @q.task(name="one")
    def one(x: int) -> int:
        return x

    run = one.map(range(4_000))
    read = Counter[str]()
    nodes = q.store.nodes

    def counted(*args: Any, **kwargs: Any) -> list[NodeInfo]:
        page = nodes(*args, **kwargs)
        read["rows"] += len(page)
        return page

    monkeypatch.setattr(q.store, "nodes", counted)
    tracker = Tracker(q.store, run._id)
    assert len(tracker.look() or ()) == 4_001
    read.clear()
    step = q.store.step("s", want=1, queues=("default",))
    assert step.deliveries

    moved = tracker.look() or []

    assert [i.state.label for i in moved] == ["running"]
    assert read["rows"] <= 2 * PAGE
    assert tracker.look() == []  # nothing moves: all that is open is read once, then nothing
    read.clear()
    assert tracker.look() == []
    assert not read
    q.store.release("s")


def test_a_beginning_is_told_when_it_comes(q: FlowQ) -> None:
    @q.task(name="one")
    def one() -> int:
        return 1

    run = (one.s() >> one.s()).start()
    tracker = Tracker(q.store, run._id)
    tracker.look()
    began = threading.Event()
    waits = threading.Thread(target=lambda: (tracker.wait(PATIENCE), began.set()))
    waits.start()
    assert not began.wait(0.05)

    step = q.store.step("s", want=1, queues=("default",))

    assert step.deliveries
    assert began.wait(PATIENCE / 4)  # long before it would look by itself
    waits.join()
    assert [i.state.label for i in tracker.look() or ()] == ["running"]
    q.store.release("s")


def test_a_cancel_ends_what_nobody_awaited_too(q: FlowQ) -> None:
    @q.task(name="one")
    def one(x: int) -> int:
        return x

    run = one.map(range(1_200))
    events = run.events(timeout=PATIENCE)
    assert next(events).state == "expanded"

    run.cancel()

    ends = Counter(e.state for e in events)
    assert ends == {"cancelled": 1_201}
