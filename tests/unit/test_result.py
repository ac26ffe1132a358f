# SPDX-License-Identifier: MIT
"""What a caller is told of one task, and of many."""

from __future__ import annotations

import logging
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from flowq import (
    BindingError,
    BlockingInTask,
    DecodeError,
    Failure,
    FlowQ,
    GraphError,
    GroupError,
    NotProduced,
    Result,
    ResultMissing,
    ResultTimeout,
    RunCancelled,
    Skip,
    Skipped,
    TaskError,
)
from flowq.current import CURRENT, CurrentTask
from flowq.message import id_text, new_id
from flowq.storage.base import SessionInfo
from tests.unit.hand import Hand


@pytest.fixture
def divide(q: FlowQ) -> Any:
    @q.task(name="divide", retries=2)
    def divide(a: int, b: int = 1) -> int:
        if b < 0:
            raise Skip("negative")
        return a // b

    return divide


def no_way_back() -> None:
    raise RuntimeError("not here")


class OneWay:
    """It can be pickled, and what comes of that cannot be read."""

    def __reduce__(self) -> Any:
        return no_way_back, ()


@contextmanager
def soon(do: Any) -> Iterator[None]:
    """Do something in another thread, a moment after the body has begun."""
    thread = threading.Timer(0.05, do)
    thread.start()
    yield
    thread.join()


# --- one task


def test_a_result_is_none_while_unfinished_and_then_its_value(divide: Any, hand: Hand) -> None:
    r = divide(7, 2)
    assert (r(), r.get(), r.ready, r.state) == (None, None, False, "queued")

    hand.work()

    assert (r(), r.get(), r.ready, r.state) == (3, 3, True, "success")


def test_reading_does_not_destroy(divide: Any, hand: Hand, q: FlowQ) -> None:
    r = divide(7, 2)
    hand.work()

    assert [r.get(), r.get(), q.result(r.id).get(), q.result(r.id).get()] == [3] * 4


def test_its_repr_names_the_task_by_its_uuid(divide: Any) -> None:
    r = divide(1)

    assert repr(r) == f"<Result: task {r.id}>"


def test_calling_it_blocks_as_get_does(divide: Any, hand: Hand) -> None:
    r = divide(8, 2)

    with soon(hand.work):
        assert r(blocking=True) == 4


def test_a_timeout_implies_blocking(divide: Any, hand: Hand) -> None:
    r = divide(8, 2)

    with soon(hand.work):
        assert r.get(timeout=10) == 4


def test_a_timeout_is_an_error_that_says_where_it_stands(divide: Any) -> None:
    r = divide(8, 2)

    with pytest.raises(ResultTimeout, match=r"within 0.02 s; it is queued") as told:
        r.get(timeout=0.02)

    assert isinstance(told.value, TimeoutError)
    assert r.id in str(told.value)
    with pytest.raises(ResultTimeout):
        r.get(timeout=0)


def test_a_blocked_get_wakes_without_polling(
    divide: Any, hand: Hand, q: FlowQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = divide(8, 2)
    looks = []
    look = q.store.look
    monkeypatch.setattr(q.store, "look", lambda *a, **k: (looks.append(1), look(*a, **k))[1])

    with soon(lambda: (time.sleep(0.3), hand.work())):
        assert r.get(timeout=10) == 4

    assert len(looks) <= 4


def test_a_failure_is_raised_with_all_that_is_known_of_it(divide: Any, hand: Hand) -> None:
    r = divide(1, 0)
    hand.work()

    with pytest.raises(TaskError) as told:
        r.get()

    error = told.value
    assert str(error).startswith("ZeroDivisionError(")
    assert "in divide" in error.traceback and "a // b" in error.traceback
    assert (error.task, error.id, error.attempts) == ("divide", r.id, 1)
    assert error.exc_type == "builtins.ZeroDivisionError"
    assert error.is_a(ArithmeticError) and not error.is_a(KeyError)
    assert r.state == "failed"


def test_a_failure_can_be_had_as_a_value(divide: Any, hand: Hand) -> None:
    r = divide(1, 0)
    hand.work()

    failure = r.get(raise_errors=False)

    assert isinstance(failure, Failure)
    assert not failure


def test_a_skipped_task_has_no_value_and_says_why(divide: Any, hand: Hand) -> None:
    r = divide(1, -1)
    hand.work()

    with pytest.raises(NotProduced, match=r"skipped.*negative"):
        r.get()

    assert r.state == "skipped"
    assert isinstance(r.get(raise_errors=False), Skipped)


def test_what_was_cancelled_never_runs(divide: Any, hand: Hand) -> None:
    r = divide(1)

    assert r.cancel()

    assert hand.work() == 0
    assert r.state == "cancelled"
    with pytest.raises(RunCancelled, match=rf"^task divide \({r.id}\) was cancelled$"):
        r.get(timeout=5)
    assert r.cancel()  # as by an earlier call


def test_what_has_ended_cannot_be_cancelled(divide: Any, hand: Hand) -> None:
    r = divide(1)
    hand.work()

    assert not r.cancel()

    assert r.get() == 1


def test_an_id_that_the_store_does_not_know_is_an_error_at_once(q: FlowQ) -> None:
    r = q.result(id_text(new_id()))

    for ask in (r.get, r.wait, r.cancel, lambda: r.reschedule(delay=0),
                lambda: r.get(blocking=True), lambda: r.state, lambda: r.ready,
                lambda: r.task):  # fmt: skip
        with pytest.raises(ResultMissing, match=r.id):
            ask()


def test_a_result_that_is_not_kept_says_so(divide: Any, hand: Hand, q: FlowQ) -> None:
    r = divide.options(result_ttl=0)(1)
    hand.work()

    for handle in (r, q.result(r.id)):
        assert handle.wait(timeout=1)
        with pytest.raises(NotProduced, match="result_ttl=0"):
            handle.get()


def test_what_was_called_can_be_read_again_by_id(divide: Any, q: FlowQ) -> None:
    r = divide.options(priority=7)(8, b=2)

    for call in (r.task, q.result(r.id).task):
        assert (call.name, call.id) == ("divide", r.id)
        assert (call.args, call.kwargs) == ((8,), {"b": 2})
        assert (call.priority, call.retries, call.queue, call.eta) == (7, 2, "default", None)
    assert divide.options(retries=9)(1).task.retries == 9


def test_the_eta_of_a_call_is_the_moment_or_the_delay_from_its_making(divide: Any) -> None:
    moment = datetime(2099, 1, 2, tzinfo=timezone.utc)
    before = datetime.now(timezone.utc)

    at = divide.schedule((1,), eta=moment).task.eta
    later = divide.schedule((1,), delay=60).task.eta

    assert at == moment
    assert timedelta(seconds=59) < later - before < timedelta(seconds=70)


def test_a_scheduled_task_can_be_moved_and_a_started_one_cannot(divide: Any, hand: Hand) -> None:
    r = divide.schedule((9, 3), delay=3600)
    assert r.state == "scheduled"
    assert hand.work() == 0

    for said in ({}, {"delay": 1, "eta": datetime.now()}):
        with pytest.raises(GraphError, match=r"reschedule: give delay= or eta="):
            r.reschedule(**said)
    assert r.reschedule(delay=0)
    assert r.state == "queued"
    assert r.reschedule(eta=datetime.now() + timedelta(hours=1))
    assert r.state == "scheduled"
    assert r.reschedule(delay=0)
    hand.work()

    assert r.get() == 3
    assert not r.reschedule(delay=5)


def test_the_eta_is_that_of_the_last_move(divide: Any, hand: Hand, q: FlowQ) -> None:
    r = divide.schedule((9, 3), delay=3600)
    moment = datetime(2099, 1, 2, tzinfo=timezone.utc)

    assert r.task.eta is not None
    assert r.reschedule(eta=moment)
    assert r.task.eta == q.result(r.id).task.eta == moment
    assert r.reschedule(delay=0)
    assert r.task.eta is None
    assert r.state == "queued"


def test_a_past_before_1970_means_now(divide: Any, hand: Hand) -> None:
    r = divide.options(eta=datetime(1960, 1, 1))(9, 3)
    late = divide.options(expires=datetime(1960, 1, 1))(9, 3)

    hand.work()

    assert r.get() == 3
    assert late.state == "failed"


def test_a_body_that_waits_for_another_task_is_told_to_compose(divide: Any, hand: Hand) -> None:
    r = divide(1)
    hand.work()
    token = CURRENT.set(CurrentTask(id="1", name="outer"))

    try:
        for wait in (lambda: r.get(blocking=True), lambda: r.get(timeout=1), r.wait):
            with pytest.raises(BlockingInTask, match=r"outer waits for .*allow_in_task=True"):
                wait()
        assert r.get() == 1
        assert r.get(blocking=True, allow_in_task=True) == 1
    finally:
        CURRENT.reset(token)


def test_a_result_as_an_argument_is_an_error_that_says_how_to_compose(divide: Any) -> None:
    r = divide(1)

    for call in (lambda: divide(r), lambda: divide(1, b=r), lambda: divide.map([1], b=r),
                 lambda: divide.s(r)):  # fmt: skip
        with pytest.raises(BindingError, match=r"divide\.s\(other\.s\(\.\.\.\)\)"):
            call()
    for nested in (lambda: divide([r]), lambda: divide.map([[r]]),
                   lambda: (divide.s((r,)) | divide.s()).start()):  # fmt: skip
        with pytest.raises(BindingError, match=r"a\.s\(1\) \| b\.s\(\)"):
            nested()


def test_results_are_equal_by_id(divide: Any, q: FlowQ) -> None:
    r = divide(1)

    assert r == q.result(r.id) and hash(r) == hash(q.result(r.id))
    assert r != divide(1)


def test_words_of_other_libraries_are_answered_with_ours(divide: Any) -> None:
    r = divide(1)

    for word, ours in (("is_ready", ".ready"), ("revoke", ".cancel()"), ("then", "|")):
        with pytest.raises(AttributeError, match=ours.replace("|", r"\|")):
            getattr(r, word)
    with pytest.raises(AttributeError, match="did you mean 'state'"):
        _ = r.stat
    with pytest.raises(AttributeError, match="take that first"):
        _ = r.columns


def test_progress_of_a_task_alone_goes_from_none_to_one(divide: Any, hand: Hand) -> None:
    r = divide(1, 0)

    seen = [r.progress()]
    (delivery,) = hand.fetch()
    seen.append(r.progress())
    hand.settle(hand.call(delivery))
    seen.append(r.progress())

    counts = [(p.done, p.known, p.failed, p.running, p.more) for p in seen]
    assert counts == [(0, 1, 0, 0, False), (0, 1, 0, 1, False), (1, 1, 1, 0, False)]


def test_why_says_what_is_missing(divide: Any, hand: Hand, q: FlowQ) -> None:
    r = divide(1, 0)

    assert f"no worker serves {q.store.url}" in r.why()
    hand.work()

    assert "failed, ZeroDivisionError" in r.why()


# --- the warning


def test_who_waits_for_nobody_is_told_once(
    divide: Any, q: FlowQ, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.handle.WARN_AFTER", 0.05)
    r = divide(1)

    for _ in range(2):
        with pytest.raises(ResultTimeout):
            r.get(timeout=0.3)

    told = [x.getMessage() for x in caplog.records if x.levelno == logging.WARNING]
    assert len(told) == 1
    assert f"no worker serves {q.store.url}" in told[0]


@pytest.mark.parametrize(
    ("queues", "tasks", "said"),
    [
        (("other",), ("divide",), "serves queue 'default'"),
        (("default",), ("other",), "knows task 'divide'"),
        (("default",), ("divide",), None),
    ],
)
def test_the_warning_says_what_the_living_workers_lack(
    divide: Any,
    q: FlowQ,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    queues: tuple[str, ...],
    tasks: tuple[str, ...],
    said: str | None,
) -> None:
    monkeypatch.setattr("flowq.handle.WARN_AFTER", 0.05)
    q.store.open_session(SessionInfo("s1", queues=queues, tasks=tasks))

    with pytest.raises(ResultTimeout):
        divide(1).get(timeout=0.3)

    told = [x.getMessage() for x in caplog.records if x.levelno == logging.WARNING]
    assert (len(told) == 0) if said is None else (said in told[0])


def test_a_task_that_no_live_worker_knows_is_told_though_it_is_handed_back(
    divide: Any, q: FlowQ, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.handle.WARN_AFTER", 0.05)
    old = FlowQ(q.name, q.url)
    old._store = q.store  # a store in memory is that of one app
    old.task(name="divided")(divide.func)
    later = divide.schedule((1,), delay=3600)
    r, run = divide(1), (divide.s(1) | divide.s(2)).start()
    with old.consumer():
        deadline = time.monotonic() + 20
        while r.state != "scheduled" or run.result("divide").state != "scheduled":
            assert time.monotonic() < deadline
            time.sleep(0.01)

        for handle in (r, run):
            with pytest.raises(ResultTimeout, match="knows task 'divide'; did you mean 'divided'"):
                handle.get(timeout=0.3)
            assert "knows task 'divide'; did you mean 'divided'" in handle.why()
    with pytest.raises(ResultTimeout, match=r"it is scheduled$"):  # somebody may come by then
        later.get(timeout=0.3)

    told = [x.getMessage() for x in caplog.records if x.name == "flowq.result"]
    assert [f"{h!r} has waited" in t for h, t in zip((r, run), told, strict=True)] == [True, True]


# --- many


def test_a_group_gives_values_in_the_order_of_submission(divide: Any, hand: Hand) -> None:
    rg = divide.map([(i, 1) for i in range(10)])
    first = hand.fetch(10)
    assert rg.get() is None

    hand.settle(*(hand.call(d) for d in reversed(first)))
    hand.work()

    assert rg.get() == rg() == list(range(10))


def test_a_group_has_members_by_place(divide: Any, hand: Hand) -> None:
    rg = divide.map([(i, 1) for i in range(5)])
    hand.work()

    assert len(rg) == 5
    assert [r.get() for r in rg] == [0, 1, 2, 3, 4]
    assert (rg[1].get(), rg[-1].get(), rg[1].index) == (1, 4, 1)
    assert [r.get() for r in rg[1:3]] == [1, 2]
    assert isinstance(rg[0], Result)
    with pytest.raises(IndexError):
        rg[5]


def test_a_place_that_a_group_does_not_have_is_an_error_with_their_number(divide: Any) -> None:
    rg = divide.map([1, 2])

    for place in (2, -3):
        with pytest.raises(IndexError, match=rf"\[{place}\]: it has 2 members"):
            rg[place]


def test_a_group_can_be_opened_again_by_its_id(divide: Any, hand: Hand, q: FlowQ) -> None:
    rg = divide.map([1, 2, 3])
    hand.work()

    again = q.result_group(rg.id)

    assert again.get() == [1, 2, 3]
    assert [r.get() for r in again] == [1, 2, 3]
    assert q.run(rg.id).get() == q.result(rg.id).get() == [1, 2, 3]


def test_an_empty_map_is_done_at_once(divide: Any) -> None:
    rg = divide.map([])

    assert rg.get(timeout=5) == []
    assert (len(rg), rg.finished, rg.failed, list(rg.as_completed())) == (0, 0, 0, [])


def test_a_group_with_failures_raises_one_error_for_all_once_it_has_ended(
    divide: Any, hand: Hand
) -> None:
    rg = divide.map([(1, 0), (2, 1), (3, 0)])
    hand.settle(hand.call(hand.fetch()[0]))
    assert rg.get() is None
    hand.work()

    with pytest.raises(GroupError) as told:
        rg.get()

    error = told.value
    assert [f.index for f in error.failures] == [0, 2]
    assert error.total == 3
    assert "2 of 3" in str(error)
    assert rg.get(raise_errors=False)[1] == 2
    assert [type(v) for v in rg.get(raise_errors=False)] == [Failure, int, Failure]
    assert [f.index for f in rg.failures()] == [0, 2]
    assert (rg.finished, rg.failed) == (3, 2)
    again = pickle.loads(pickle.dumps(error))
    assert (again.failures, again.total, str(again)) == (error.failures, 3, str(error))
    if sys.version_info >= (3, 11):
        assert isinstance(error, ExceptionGroup)  # noqa: F821
        assert all(isinstance(e, TaskError) for e in error.exceptions)


def test_members_come_as_they_complete(divide: Any, hand: Hand) -> None:
    rg = divide.map([(i, 1) for i in range(4)])
    a, b, c, d = hand.fetch(4)
    hand.settle(hand.call(c))
    seen = rg.as_completed(timeout=10)

    assert next(seen).index == 2
    with soon(lambda: hand.settle(hand.call(a))):
        assert next(seen).index == 0
    hand.settle(hand.call(b), hand.call(d))

    assert [(r.index, r.get()) for r in seen] == [(1, 1), (3, 3)]


def test_waiting_for_the_next_member_has_an_end(divide: Any, hand: Hand) -> None:
    rg = divide.map([1, 2])
    hand.settle(hand.call(hand.fetch()[0]))
    seen = rg.as_completed(timeout=0.05)

    assert next(seen).get() == 1
    with pytest.raises(ResultTimeout):
        next(seen)


def test_a_group_larger_than_a_page_is_read_and_counted_whole(divide: Any, hand: Hand) -> None:
    rg = divide.map([(i, 1) for i in range(2_500)])
    while got := hand.fetch(1_000):
        hand.settle(*(hand.done(d, 1) for d in got))

    assert rg.get(timeout=10) == [1] * 2_500
    assert (rg.finished, rg.failed) == (2_500, 0)
    assert sorted(r.index for r in rg.as_completed()) == list(range(2_500))
    assert str(rg.progress()) == "2500 of 2500 done"


# --- words that are nearly right, and values that cannot be read


def test_a_mistyped_keyword_is_answered_with_the_nearest(divide: Any) -> None:
    r, rg = divide(1), divide.map([1])

    for ask, said in (
        (
            lambda: r.get(block=True),
            r"Result\.get has no argument 'block'; did you mean 'blocking'",
        ),
        (lambda: r(time_out=1), "did you mean 'timeout'"),
        (lambda: r.get(propagate=False), "write raise_errors=False"),
        (lambda: r.wait(timeuot=1), r"Result\.wait .*did you mean 'timeout'"),
        (lambda: rg.get(blocks=True), r"ResultGroup\.get .*did you mean 'blocking'"),
        (lambda: rg.nodes(states="failed"), "did you mean 'state'"),
        (lambda: r.reschedule(countdown=3), "write delay="),
    ):
        with pytest.raises(TypeError, match=said):
            ask()


def test_a_task_that_was_called_alone_is_called_a_task(divide: Any, hand: Hand, q: FlowQ) -> None:
    skipped, cancelled, run = divide(1, -1), divide(1), (divide.s(1) | divide.s(2)).start()
    cancelled.cancel()
    run.cancel()
    hand.work()

    with pytest.raises(NotProduced, match=rf"^task divide \({skipped.id}\) was skipped.*negative"):
        skipped.get()
    with pytest.raises(NotProduced, match=rf"^task .*{skipped.id}.* was skipped"):
        q.result(skipped.id).get()
    with pytest.raises(RunCancelled, match=rf"^task divide \({cancelled.id}\) was cancelled"):
        cancelled.get()
    with pytest.raises(RunCancelled, match=rf"^node 'divide' \(task divide, {run.id}:1\) was canc"):
        run.result("divide").get()
    for handle in (run, q.result(run.id)):
        with pytest.raises(RunCancelled, match=rf"^run {run.id} was cancelled"):
            handle.get()


def test_a_result_that_cannot_be_read_says_whose_it_is_and_why(q: FlowQ) -> None:
    @q.task(name="make")
    def make(n: int) -> Any:
        return OneWay() if n else n

    r, rg = make(1), make.map([0, 1])
    with q.consumer(drain=True):
        pass

    for ask, who in (
        (r.get, rf"task make \({r.id}\)"),
        (q.result(r.id).get, rf"task .*{r.id}\)?"),
        (rg.get, rf"node 'make\[1\]' \(task make, {rg.id}:2\)"),
        (rg[1].get, r"node 'make\[1\]' .*"),
    ):
        with pytest.raises(
            DecodeError, match=f"the result of {who}: .*RuntimeError: not here"
        ) as e:
            ask()
        assert isinstance(e.value.__cause__, RuntimeError)
    assert rg[0].get() == 0 and rg.state == "success"


def test_a_node_that_cannot_read_a_value_fails_for_good_and_its_worker_lives(q: FlowQ) -> None:
    @q.task(name="make")
    def make() -> Any:
        return OneWay()

    @q.task(name="read", retries=3)
    def read(value: Any) -> Any:
        return "read"

    @q.task(name="fine")
    def fine() -> str:
        return "fine"

    run = (make.s() | read.s()).start()
    with q.consumer():
        run.wait(timeout=20)
        after = fine()
        assert after.get(timeout=20) == "fine"

    with pytest.raises(
        TaskError, match=rf"result of node 'make' \(task make, {run.id}:1\): .*not here"
    ) as failed:
        run.get(timeout=20)
    assert (failed.value.task, failed.value.failure.reason) == ("read", "undecodable")
    assert [(n.name, n.state) for n in run.nodes()] == [("make", "success"), ("read", "failed")]


def test_a_body_that_returns_what_it_started_is_told_to_return_the_signature(
    q: FlowQ, divide: Any, hand: Hand
) -> None:
    @q.task
    def starts() -> Any:
        return divide(4, 2)

    result = starts()
    hand.work()

    with pytest.raises(
        TaskError, match=r"a task's body returns the signature \(return a\.s\(1\)\)"
    ):
        result.get()
