# SPDX-License-Identifier: MIT
"""What one end leads to is walked in pages, however much that is."""

from __future__ import annotations

from typing import Any

import pytest

from flowq import FlowQ, group
from flowq.lower import lower
from flowq.plan import Plan
from flowq.states import State
from flowq.storage.base import PAGE
from tests.cases.stage import Notes, Stage, add_tasks

BESIDE, INSIDE = 2_000, 98_000


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A first node, with 100,000 below it: some read it, the most stand in a map behind those."""
    q = FlowQ("large", "memory://")
    add_tasks(q, Notes())
    give, more = q.tasks["give"], q.tasks["more"]
    beside = group(*(give.s(i) for i in range(BESIDE)))
    return lower((give.s("bad") >> beside >> more.s().map(list(range(INSIDE))))._graph(), q)


@pytest.mark.timeout(120)
def test_a_failure_with_100_000_nodes_below_it_is_walked_in_pages(stage: Stage, plan: Plan) -> None:
    run: Any = stage.q.start_plan(plan)
    other = stage.give("other")
    stage.break_("bad")
    first = stage.until("give")
    outcomes = [stage.body(first)]
    reached, pages = 0, []

    while True:
        step = stage.store.step("w", outcomes)
        outcomes, before = [], reached
        reached = first_waiting(stage, run, before, plan)
        pages.append(reached - before)
        if step.next_ms != 0:
            break
        if len(pages) == 20:
            # nobody's work waits for the pages that are left
            stage.do(*stage.fetch(session="v"), session="v")
            assert other.state == "success"
            reached = first_waiting(stage, run, reached, plan)

    assert reached > BESIDE + INSIDE
    # beside what itself settles, a step walks a page of what others left and one of its own
    assert max(pages) <= 1 + 2 * PAGE
    assert (run.state, len(stage.told("give")), stage.told("more")) == ("failed", 2, [])
    stage.sound(run)


def first_waiting(stage: Stage, run: Any, after: int, plan: Plan) -> int:
    """How many nodes do not wait any more: they are reached in the order of their indexes."""
    page = stage.store.nodes(run._id, after=after, limit=1, state=State.WAITING)
    return page[0].index - 1 if page else len(plan.rows) - 1
