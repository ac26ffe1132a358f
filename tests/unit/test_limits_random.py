# SPDX-License-Identifier: MIT
"""Limits change when nodes run, and nothing else: graphs drawn at random, run with and without."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from typing import Any

import pytest

from flowq import FlowQ, chain, group
from flowq.executor import Executor, Job, Lane
from flowq.message import Delivery, decode_message
from flowq.testing import ManualClock
from tests.unit.staged import Stage

app = FlowQ("limits-random", "memory://", clock=ManualClock())
CALLS: list[Any] = []


@app.task(name="one")
def one(*xs: Any) -> int:
    return 1


@app.task(name="some")
def some(*xs: Any) -> list[int]:
    return [1, 2, 3]


@app.task(name="sum-up")
def sum_up(xs: Any = None) -> int:
    return xs if isinstance(xs, int) else sum(xs)


@app.task(name="more")
def more(*xs: Any) -> Any:
    """Become a graph that is bounded itself, or not."""
    return group(one.s(), one.s(), one.s()).options(max_parallel=2) | sum_up.s()


@app.task(name="breaks")
def breaks(*xs: Any) -> None:
    raise ValueError("it broke")


class Drawn:
    """Draws one graph; what is bounded has its limit in its name."""

    def __init__(self, seed: int, bounded: bool) -> None:
        self._rand = random.Random(seed)
        self._bounded = bounded
        self._count = 0

    def graph(self, depth: int, after: bool = False) -> Any:
        """A composition whose value is a number; no alarms are in what runs after others."""
        kinds = ["task", "more", "group", "map", "chain", "instead"]
        kind = self._rand.choice(kinds if after else [*kinds, "alarm"])
        if depth == 0 or kind == "task":
            return one.s()
        if kind == "more":
            return self._under(chain(one.s(), more.s()))
        if kind == "group":
            members = [self.graph(depth - 1, after) for _ in range(self._rand.randint(2, 4))]
            return self._under(chain(group(members), sum_up.s()))
        if kind == "map":
            item = self._under(chain(one.s(), self.graph(depth - 1, after)))
            if self._rand.random() < 0.5:
                return self._under(chain(some.s(), item.each(), sum_up.s()))
            return self._under(chain(item.map([1, 2, 3]), sum_up.s()))
        if kind == "alarm":
            failing = breaks.s().options(on_error=self.graph(depth - 1, True), default=5)
            return self._under(chain(failing, sum_up.s()))
        if kind == "instead":
            failing = breaks.s().options(fallback=self.graph(depth - 1, True))
            return self._under(chain(failing, sum_up.s()))
        return self._under(chain(self.graph(depth - 1, after), self.graph(depth - 1, after)))

    def _under(self, graph: Any) -> Any:
        most, self._count = self._rand.choice([0, 0, 1, 2, 3]), self._count + 1
        if not most:
            return graph
        bound = most if self._bounded else 1_000_000
        return graph.options(name=f"L{most}-{self._count}", max_parallel=bound)


def run_all(stage: Stage, graph: Any, rand: random.Random, bounded: bool) -> tuple[Any, int]:
    """Run it with as many workers as there is work, which end in any order."""
    executor, lane, busy = Executor(stage.app), Lane(0), list[Delivery]()
    lane.thread = threading.get_ident()
    run, most = graph.start(stage.app), 0
    while True:
        step = stage.app.store.step("w", want=100, queues=stage.app.queues())
        busy += step.deliveries
        if bounded:
            within(busy)
        most = max(most, len(busy))
        if step.deliveries or step.ready or step.next_ms == 0:
            continue
        if not busy:
            break
        ended = busy.pop(rand.randrange(len(busy)))
        stage.app.store.step("w", [executor.run(lane, Job(ended))])
    assert run.ready
    assert stage.app.store.check(run._id) == []
    return run, most


def within(busy: list[Delivery]) -> None:
    """Check that no more go on in anything than its name says."""
    inside: Counter[tuple[str, int]] = Counter()
    for delivery in busy:
        path = decode_message(delivery.body).name.split("/")
        for k, part in enumerate(path[:-1]):
            if found := re.fullmatch(r"L(\d)-\d+", part):
                inside["/".join(path[: k + 1]), int(found[1])] += 1
    assert [place for place, count in inside.items() if count > place[1]] == []


@pytest.mark.parametrize("seed", range(12))
def test_limits_change_when_nodes_run_and_nothing_else(stage: Stage, seed: int) -> None:
    rand = random.Random(seed)
    top = rand.randint(1, 4)

    free, _ = run_all(stage, group(Drawn(seed, False).graph(3)), rand, False)
    bound, most = run_all(
        stage, group(Drawn(seed, True).graph(3)).options(max_parallel=top), rand, True
    )

    assert most <= top
    assert bound.get() == free.get()
    ends = [{(n.name, n.state) for n in run.nodes()} for run in (free, bound)]
    assert ends[0] == ends[1]
