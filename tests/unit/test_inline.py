# SPDX-License-Identifier: MIT
"""with q.inline(): what is started runs here and now, with all that it leads to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flowq import FlowQ, group, wait_for
from flowq.current import current_task

q = FlowQ("inline", "memory://")
ran: list[str] = []


@q.task(name="child")
def child(x: int) -> int:
    ran.append(f"child {x}")
    return x + 1


@q.task(name="starts")
def starts(x: int) -> Any:
    return child(x).get()


@q.task(name="later")
def later(x: int) -> str:
    child.options(delay=3600)(x)
    ran.append(f"later {x}")
    return "started"


@q.task(name="threads")
def threads(x: int) -> Any:
    with ThreadPoolExecutor(4) as pool:
        return [r.get() for r in pool.map(child, range(x))]


@q.task(name="deeper")
def deeper(x: int) -> int:
    return x if x == 0 else 1 + deeper(x - 1).get()  # type: ignore[operator]


@q.task(name="stops", context=True)
def stops(x: int, *, task: Any) -> Any:
    q.run(task.run).cancel()
    child(x)
    return current_task().cancelled


def test_what_a_body_starts_has_ended_when_the_start_returns() -> None:
    with q.inline():
        value = starts(1).get()

    assert value == 2


def test_bodies_that_start_tasks_do_not_run_within_each_other_however_many_there_are() -> None:
    with q.inline():
        run = starts.s().map(range(200)).start()

        assert run.get() == list(range(1, 201))


def test_bodies_may_start_each_other_in_depth() -> None:
    with q.inline():
        assert deeper(10).get() == 10


def test_what_a_body_starts_for_later_runs_after_it_and_before_the_start_returns() -> None:
    ran.clear()

    with q.inline():
        value = later(7).get()

    assert value == "started"
    assert ran == ["later 7", "child 7"] or ran == ["child 7", "later 7"]


def test_what_threads_of_a_body_start_runs_in_them() -> None:
    with q.inline():
        assert threads(50).get() == list(range(1, 51))


def test_starts_from_several_threads_all_run() -> None:
    with q.inline(), ThreadPoolExecutor(4) as pool:
        handles = list(pool.map(starts, range(100)))
        child(0)

        assert [r.get() for r in handles] == list(range(1, 101))


def test_a_body_sees_that_it_was_cancelled() -> None:
    with q.inline():
        run: Any = (stops.s(1) | child.s()).start()

        assert run.state == "cancelled"


def test_inline_within_inline_goes_back_to_the_outer_one() -> None:
    with q.inline():
        outer = child(1)
        with q.inline():
            assert child(2).get() == 3
        again = child(3)

        assert (outer.get(), again.get()) == (2, 4)


# --- what lets a run go on ------------------------------------------------------------------------


@q.task(name="fails-once")
def fails_once(x: int) -> int:
    ran.append(f"fails {x}")
    if len(ran) == 1:
        raise ValueError("once")
    return x


def test_a_run_goes_on_when_what_it_waits_for_is_sent() -> None:
    with q.inline():
        run = (wait_for("answer") | child.s()).start()
        waits = run.state

        run.send("answer", 4)

        assert waits == "running"
        assert (run.state, run.get()) == ("success", 5)


def test_a_paused_run_goes_on_when_it_is_resumed() -> None:
    with q.inline():
        run = (wait_for("answer") | child.s()).start()
        run.pause()
        run.send("answer", 4)
        paused = run.paused, run.get()

        run.resume()

        assert paused == (True, None)
        assert run.get() == 5


def test_a_failed_run_is_retried_and_rerun_within() -> None:
    ran.clear()
    with q.inline():
        run = (fails_once.s(1) | child.s()).start()
        failed = run.state

        run.retry()
        retried = run.state
        run.rerun("child")

        assert (failed, retried, run.state) == ("failed", "success", "success")
        assert ran == ["fails 1", "fails 1", "child 1", "child 1"]


def test_another_run_goes_on_when_a_body_sends_to_it() -> None:
    @q.task(name="answers")
    def answers(id: str) -> Any:
        q.run(id).send("answer", 4)
        return q.run(id).get()

    with q.inline():
        run = (wait_for("answer") | child.s()).start()

        assert answers(run.id).get() == 5


def test_a_body_may_send_to_its_own_run() -> None:
    @q.task(name="answers-itself")
    def answers_itself() -> None:
        q.run(current_task().run).send("answer", 4)  # type: ignore[arg-type]

    with q.inline():
        run = group(answers_itself.s(), wait_for("answer") | child.s()).start()

        assert run.get() == [None, 5]
