# SPDX-License-Identifier: MIT
"""Runs under ``max_parallel=`` whose workers are killed: places come back, and no more of them."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from typing import Any

import pytest

from flowq import group
from flowq.message import id_bytes, node_id
from tests.faults.conftest import Farm
from tests.faults.test_growth_kills import VALUE, kill_until_it_ends, nothing_is_left, start

WORDS = "abcd"


def bounded(farm: Farm) -> Any:
    """Start four bodies that run until they are let go, two of them at a time."""
    hold = farm.q.tasks["farm.hold"]
    return group(hold.s(farm.journal, word) for word in WORDS).options(max_parallel=2).start()


def states_of(run: Any) -> Counter[str]:
    return Counter(node.state for node in run.nodes())


@pytest.mark.timeout(60)
def test_what_a_killed_worker_held_keeps_its_place_and_runs_again(farm: Farm) -> None:
    run = bounded(farm)
    farm.start("-k", "process", "-w", "4", "-q")
    [[_, pid, _]] = farm.until_noted("a:begin")
    farm.until_noted("b:begin")

    os.kill(int(pid), signal.SIGKILL)
    farm.until_noted("a:begin", 2)

    assert not farm.lines("c:begin")
    assert states_of(run) == {"running": 2, "held": 2}
    farm.let_go("a")
    farm.until_noted("c:begin")
    assert not farm.lines("d:begin")
    for word in WORDS:
        farm.let_go(word)
    assert run.get(timeout=20) == list(WORDS)


@pytest.mark.timeout(60)
def test_what_a_dead_consumer_held_is_all_that_others_take_over(farm: Farm) -> None:
    run = bounded(farm)
    consumer = farm.start("-k", "process", "-w", "4", "-q")
    for word in "ab":
        farm.until_noted(f"{word}:begin")

    consumer.kill()
    farm.start("-k", "process", "-w", "4", "-q")
    for word in "ab":
        farm.until_noted(f"{word}:begin", 2)

    assert states_of(run) == {"running": 2, "held": 2}
    for word in WORDS:
        farm.let_go(word)
    assert run.get(timeout=20) == list(WORDS)
    (places,) = farm.q.store.places(node_id(id_bytes(run.id), 1))
    assert (places.most, places.taken, places.waiting) == (2, 0, 0)


@pytest.mark.timeout(100)
def test_a_bounded_run_grows_as_if_nobody_had_been_killed(farm: Farm) -> None:
    (farm.folder / "mended").touch()
    run = start(farm, max_parallel=2)

    kills = kill_until_it_ends(farm, run, random.Random(3))

    assert kills
    assert run.get() == VALUE
    nothing_is_left(farm, run)
    bound = farm.q.store.places(node_id(id_bytes(run.id), 1))
    assert [(p.key, p.taken, p.waiting) for p in bound] == [("/", 0, 0)]
