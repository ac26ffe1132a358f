# SPDX-License-Identifier: MIT
"""Runs that have ended, and run again: `Run.retry` and `Run.rerun`."""

from __future__ import annotations

import pytest

from flowq import FlowQ, ResultMissing, chain
from tests.unit.hand import Hand

CALLS: list[str] = []
BAD: set[int] = set()


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()
    BAD.clear()


def numbers(n: int) -> list[int]:
    CALLS.append("numbers")
    return list(range(n))


def double(x: int) -> int:
    CALLS.append(f"double {x}")
    if x in BAD:
        raise ValueError(x)
    return 2 * x


def total(xs: list[int]) -> int:
    CALLS.append("total")
    return sum(xs)


def test_a_retry_runs_what_failed_and_what_depends_on_it_and_nothing_else(
    q: FlowQ, hand: Hand
) -> None:
    one, two = q.task(double), q.task(total)
    BAD.add(2)
    run = (one.s().map([1, 2, 3]) | two.s()).start()
    hand.work()
    assert run.state == "failed"
    CALLS.clear()
    BAD.clear()

    assert run.retry() == 2
    assert run.state == "running"
    assert run.get() is None
    hand.work()

    assert CALLS == ["double 2", "total"]
    assert run.get() == 12
    assert run.retry() == 0


def test_a_rerun_takes_a_node_that_succeeded_and_all_below_it(q: FlowQ, hand: Hand) -> None:
    a, b, c = q.task(numbers), q.task(total), q.task(double)
    run = chain(a.s(4), b.s(), c.s()).start()
    hand.work()
    assert run.get() == 12
    CALLS.clear()

    assert run.rerun("total") == 2
    hand.work()

    assert CALLS == ["total", "double 6"]
    assert run.get() == 12
    assert run.rerun(0) == 3
    hand.work()
    assert CALLS[2:] == ["numbers", "total", "double 6"]


def test_one_item_runs_again_alone_with_what_reads_the_map(q: FlowQ, hand: Hand) -> None:
    one, two = q.task(double), q.task(total)
    run = (one.s().map([1, 2, 3]) | two.s()).start()
    hand.work()
    CALLS.clear()

    assert run.retry("double[1]") == 2
    hand.work()

    assert CALLS == ["double 2", "total"]


def test_where_nothing_has_stopped_there_is_nothing_to_retry(q: FlowQ, hand: Hand) -> None:
    run = chain(q.task(numbers).s(2), q.task(total).s()).start()

    assert run.retry() == 0
    with pytest.raises(ResultMissing, match="did you mean 'total'"):
        run.rerun("totl")

    run.cancel()
    assert run.state == "cancelled"
    assert run.retry() == 2
    hand.work()
    assert run.get() == 1


def test_a_map_over_a_list_that_comes_with_the_run_keeps_its_items_in_a_retry(q: FlowQ) -> None:
    a, b, c = q.task(numbers), q.task(double), q.task(total)
    BAD.update((1, 3))
    with q.consumer(workers=2):
        run = (a.s(4) | b.each() | c.s()).start()
        run.wait(timeout=30)
        assert run.state == "failed"
        CALLS.clear()
        BAD.discard(1)
        assert run.retry() == 3
        run.wait(timeout=30)
        assert sorted(CALLS) == ["double 1", "double 3"]
        BAD.clear()
        CALLS.clear()

        assert run.retry() == 2
        assert run.get(timeout=30) == 12
        assert sorted(CALLS) == ["double 3", "total"]
        CALLS.clear()

        assert run.rerun("numbers") == 3
        assert run.get(timeout=30) == 12
        assert CALLS.count("numbers") == 1
        assert len(CALLS) == 6
        assert [n.name for n in run.nodes()].count("double[0]") == 1


def test_a_run_says_where_its_time_went(q: FlowQ) -> None:
    a, b, c = q.task(numbers), q.task(double), q.task(total)
    with q.consumer(workers=1):
        run = (a.s(2) | b.each() | c.s()).start()
        assert run.get(timeout=30) == 2
        run.wait(timeout=30)

    began = [n.started_at for n in run.timeline()]
    assert began == sorted(began)  # several may begin in one millisecond
    assert {n.name for n in run.timeline()} == {"numbers", "double[0]", "double[1]", "total"}
    first, item, last = run.critical_path()
    assert (first.name, item.name[:6], last.name) == ("numbers", "double", "total")
