# SPDX-License-Identifier: MIT
"""What a caller is told of a started graph."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from flowq import (
    DAG,
    ConfigError,
    Failure,
    FlowQ,
    NotProduced,
    ResultMissing,
    ResultTimeout,
    RunCancelled,
    Skip,
    Skipped,
    TaskError,
    group,
)
from flowq.looking import lacking
from flowq.message import id_bytes, id_text, new_id
from flowq.states import State
from flowq.storage.base import SessionInfo
from tests.unit.hand import Hand


@pytest.fixture
def add(q: FlowQ) -> Any:
    @q.task(name="add")
    def add(a: int, b: int = 1) -> int:
        return a + b

    return add


@pytest.fixture
def fail(q: FlowQ) -> Any:
    @q.task(name="fail")
    def fail(a: int = 0) -> int:
        raise ValueError(a)

    return fail


@pytest.fixture
def last(q: FlowQ) -> Any:
    @q.task(name="last")
    def last(values: Any = None) -> Any:
        return values

    return last


def test_a_run_gives_the_value_of_its_end(add: Any, hand: Hand, q: FlowQ) -> None:
    run = (add.s(1) | add.s(10)).start()
    assert (run.get(), run.state, run.ready) == (None, "running", False)

    hand.work()

    assert (run.get(), run(), run.state, run.ready) == (12, 12, "success", True)
    assert q.run(run.id).get(blocking=True) == 12
    assert run.wait(timeout=0)


def test_its_nodes_are_listed_with_states_and_times(add: Any, hand: Hand) -> None:
    run = (add.s(1) | add.s(10) | add.s(100)).start()
    hand.work(1)

    a, b, c = run.nodes()

    assert [(n.name, n.task, n.state) for n in (a, b, c)] == [
        ("add", "add", "success"),
        ("add-2", "add", "queued"),
        ("add-3", "add", "waiting"),
    ]
    assert a.run_time is not None and a.ended_at is not None and b.started_at is None
    assert (a.parents, b.parents) == ((), (a.index,))
    assert [n.name for n in run.nodes(state="waiting")] == ["add-3"]
    with pytest.raises(ConfigError, match="did you mean 'waiting'"):
        list(run.nodes(state="waitin"))


def test_a_node_has_a_result_by_name(add: Any, hand: Hand) -> None:
    run = (add.s(1) | add.s(10)).start()
    hand.work(1)

    assert run.result("add").get() == 2
    assert run.result("add-2").get() is None
    assert run.result("add-2").state == "queued"
    with pytest.raises(ResultMissing, match="did you mean 'add-2'"):
        run.result("add-22")


def test_its_error_is_the_culprits(add: Any, fail: Any, hand: Hand) -> None:
    run = (fail.s(7) | add.s() | add.s()).start()
    hand.work()

    with pytest.raises(TaskError) as told:
        run.get()

    assert str(told.value) == "ValueError(7)"
    assert told.value.node == "fail"
    assert run.state == "failed"
    assert [n.state for n in run.nodes()] == ["failed", "blocked", "blocked"]
    assert run.result("add-2").state == "blocked"
    with pytest.raises(TaskError, match=r"ValueError\(7\)"):
        run.result("add-2").get()
    assert isinstance(run.get(raise_errors=False), Failure)


def test_an_item_of_a_map_that_cannot_run_tells_the_culprits_error(
    add: Any, fail: Any, hand: Hand
) -> None:
    run = (fail.s(7) >> add.s().map([1, 2])).start()
    hand.work()

    with pytest.raises(TaskError, match=r"ValueError\(7\)") as told:
        run.result("add[0]").get(timeout=5)

    assert told.value.node == "fail"
    assert [n.state for n in run.nodes()] == ["failed", "blocked", "blocked", "blocked"]


def test_an_inner_node_of_an_item_that_is_not_wanted_is_skipped(
    add: Any, hand: Hand, q: FlowQ
) -> None:
    @q.task(name="skip")
    def skip() -> None:
        raise Skip("nothing to do")

    run = (skip.s() >> (add.s() | add.s()).map([1, 2])).start()
    hand.work()

    states = {n.name: n.state for n in run.nodes()}
    assert set(states.values()) == {"skipped"}
    assert len(states) == 8
    for name in states:
        with pytest.raises(NotProduced, match="skipped"):
            run.result(name).get(timeout=5)


def test_the_error_comes_as_soon_as_the_value_cannot(
    add: Any, fail: Any, last: Any, hand: Hand
) -> None:
    # given a run whose value is blocked while another branch goes on
    dag = DAG("two")
    dag.add(fail.s(), name="bad")
    dag.add(add.s(dag["bad"]), name="wanted")
    dag.add(add.options(delay=3600).s(1), name="slow")
    dag.returns(dag["wanted"])
    run = dag.start()

    hand.work()

    with pytest.raises(TaskError, match="ValueError"):
        run.get(timeout=5)
    assert (run.state, run.ready) == ("running", False)
    assert not run.wait(timeout=0.02)


def test_the_value_comes_as_soon_as_it_is_known(add: Any, hand: Hand) -> None:
    dag = DAG("two")
    dag.add(add.s(1), name="wanted")
    dag.add(add.options(delay=3600).s(1), name="slow")
    dag.returns(dag["wanted"])
    run = dag.start()

    hand.work()

    assert run.get(timeout=5) == 2
    assert not run.ready


def test_a_success_at_the_end_does_not_hide_a_failure(add: Any, fail: Any, hand: Hand) -> None:
    dag = DAG("cleanup")
    dag.add(fail.s(), name="work")
    dag.add(add.options(trigger_rule="all_done").s(1), name="cleanup", after=["work"])
    run = dag.start()
    hand.work()

    assert run.result("cleanup").get() == 2
    with pytest.raises(TaskError, match="ValueError"):
        run.get(timeout=5)


def test_a_blocked_get_of_a_run_wakes_up(add: Any, hand: Hand) -> None:
    run = (add.s(1) | add.s()).start()
    thread = threading.Timer(0.05, hand.work)
    thread.start()

    assert run.get(timeout=10) == 3

    thread.join()


def test_a_timeout_of_a_run_is_an_error(add: Any) -> None:
    run = (add.s(1) | add.s()).start()

    with pytest.raises(ResultTimeout, match="running"):
        run.get(timeout=0.02)


def test_the_value_of_several_ends_is_a_dict(add: Any, fail: Any, hand: Hand) -> None:
    dag = DAG("ends")
    dag.add(add.s(1), name="a")
    dag.add(fail.s(1), name="b")
    run = dag.start()
    hand.work()

    values = run.get(raise_errors=False)

    assert values["a"] == 2
    assert isinstance(values["b"], Failure)
    with pytest.raises(TaskError):
        run.get()


def test_an_item_that_is_not_there_is_named(last: Any, hand: Hand) -> None:
    dag = DAG("item")
    dag.add(last.s({"x": 1}), name="a")
    dag.returns(dag["a"]["y"])
    run = dag.start()
    hand.work()

    with pytest.raises(NotProduced, match="'y'"):
        run.get()


def test_cancelling_a_run_ends_all_that_has_not_run(add: Any, hand: Hand) -> None:
    dag = DAG("stop")
    dag.add(add.s(1), name="a")
    dag.add(add.s(dag["a"]), name="b")
    dag.add(add.options(trigger_rule="all_done").s(1), name="after", after=["b"])
    run = dag.start()

    assert run.cancel()

    assert hand.work() == 0
    assert {n.state for n in run.nodes()} == {"cancelled"}
    assert run.state == "cancelled"
    with pytest.raises(RunCancelled):
        run.get(timeout=5)
    assert run.cancel()  # as by an earlier call


def test_a_run_that_has_ended_cannot_be_cancelled(add: Any, hand: Hand) -> None:
    run = (add.s(1) | add.s()).start()
    hand.work()

    assert not run.cancel()
    assert run.state == "success"


def test_who_waits_for_many_values_reads_each_once(
    add: Any, hand: Hand, q: FlowQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = (add.s(1) | group(add.s(i) for i in range(20))).start()
    values: list[bytes] = []
    look = q.store.look

    def counted(ids: Any, *, cells: bool = True) -> Any:
        found = look(ids, cells=cells)
        values.extend(id for id, x in zip(ids, found, strict=True) if x and x.cell is not None)
        return found

    monkeypatch.setattr(q.store, "look", counted)
    waiting = run._search(got := [], True)
    while waiting():
        assert hand.work(1)

    assert got == [([2 + i for i in range(20)], True)]
    assert len(values) == len(set(values))


def test_a_running_body_ends_cancelled_whatever_it_returns(add: Any, hand: Hand) -> None:
    run = (add.s(1) | add.s()).start()
    delivery = hand.fetch()[0]

    assert run.cancel()
    assert not run.ready
    hand.settle(hand.done(delivery, 2))

    assert run.state == "cancelled"


def test_a_map_inside_a_run_is_cancelled_with_all_that_stands_in_it(add: Any, hand: Hand) -> None:
    run = (add.s(0).map([1, 2]) >> add.s(9)).start()
    other = (add.s(1, 1) >> add.s(0).map([1, 2])).start()

    assert run.result("add").cancel()  # under way
    assert other.cancel()  # not begun

    for cancelled in (run, other):
        assert {n.state for n in cancelled.nodes()} == {"cancelled"}
        assert cancelled.wait(timeout=5)
    assert hand.work() == 0


def test_a_run_that_the_store_does_not_know_is_an_error_at_once(q: FlowQ) -> None:
    run = q.run(id_text(new_id()))

    for ask in (run.get, run.wait, run.cancel, run.progress, run.why, lambda: run.state,
                lambda: list(run.nodes()), lambda: list(run.nodes(state="failed")),
                lambda: run.name, lambda: run.result("a")):  # fmt: skip
        with pytest.raises(ResultMissing):
            ask()
    with pytest.raises(ConfigError, match="ids look like"):
        q.run("no-id")


def test_progress_counts_what_a_worker_runs(add: Any, fail: Any, hand: Hand) -> None:
    run = (group(add.s(1), fail.s(), add.s(2)) >> add.s(3)).start()
    hand.work()

    progress = run.progress()

    assert (progress.done, progress.known, progress.failed, progress.more) == (4, 4, 2, False)
    assert str(progress) == "4 of 4 done, 2 failed"


def test_why_names_the_deepest_causes(add: Any, fail: Any, hand: Hand) -> None:
    run = (fail.s(7) | add.s() | add.s()).start()
    assert "fail: queued" in run.why()
    assert "until these end: fail (queued)" in run.why("add")
    hand.fetch()
    assert "fail: running since" in run.why()
    hand.app.store.release("hand")
    hand.work()

    assert "fail: failed, ValueError(7)" in run.why()
    assert run.why("add-2") == "add-2: blocked by fail, ValueError(7)"
    assert run.result("add-2").why() == run.why("add-2")


def test_who_waits_for_a_run_that_nobody_works_on_is_told(
    add: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.handle.WARN_AFTER", 0.05)
    run = (add.s(1) | add.s()).start()

    with pytest.raises(ResultTimeout):
        run.get(timeout=0.3)

    told = [x.getMessage() for x in caplog.records if x.levelno == logging.WARNING]
    assert len(told) == 1 and "no worker serves" in told[0]


def test_a_run_of_more_nodes_than_a_page_is_listed_and_cancelled_whole(
    add: Any, hand: Hand
) -> None:
    dag = DAG("wide")
    for i in range(1_201):
        dag.add(add.s(i), name=f"n{i}")
    run = dag.start()

    assert [n.name for n in run.nodes()] == [f"n{i}" for i in range(1_201)]
    assert run.result("n1200").state == "queued"
    run.cancel()
    assert run.state == "cancelled"


def test_a_run_opens_as_a_result_too(add: Any, hand: Hand, q: FlowQ) -> None:
    run = (add.s(1) | add.s(10)).start()
    r = q.result(run.id)
    assert (r.get(), r.state, str(r.progress()), r.why()) == (
        None,
        "running",
        "0 of 2 done",
        run.why(),
    )

    hand.work(1)
    assert r.cancel()

    assert r.state == run.state == "cancelled"


def test_a_skip_above_leaves_no_value_and_says_why(q: FlowQ, add: Any, hand: Hand) -> None:
    @q.task(name="skip")
    def skip() -> int:
        raise Skip("nothing new")

    run = (skip.s() | add.s()).start()
    hand.work()

    assert run.state == "skipped"
    with pytest.raises(NotProduced, match=r"^run .* was skipped"):
        run.get(timeout=5)
    with pytest.raises(NotProduced, match="nothing new"):
        run.result("skip").get()


def test_a_skipped_member_leaves_the_list_of_a_map(q: FlowQ, hand: Hand) -> None:
    @q.task(name="odd")
    def odd(n: int) -> int:
        if n % 2 == 0:
            raise Skip("even")
        return n

    rg = odd.map(range(5))
    hand.work()

    assert (rg.get(timeout=5), rg.state) == ([1, 3], "success")
    assert [type(f) for f in rg.failures()] == [Skipped] * 3
    assert len(rg) == 5


def test_every_live_worker_knows_the_built_in_tasks(q: FlowQ, hand: Hand) -> None:
    @q.task(name="numbers")
    def numbers() -> list[int]:
        return [1, 2]

    @q.task(name="double")
    def double(x: int) -> int:
        return 2 * x

    run = (numbers.s() | double.each()).start()
    hand.settle(hand.call(hand.fetch()[0]))
    q.store.open_session(SessionInfo("live", queues=("default",), tasks=tuple(q.tasks)))

    (waits,) = (n for n in run.nodes() if n.task == "flowq.map")

    assert waits.state == "queued"
    assert lacking(q, id_bytes(waits.id), State.QUEUED) is None
