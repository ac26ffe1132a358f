# SPDX-License-Identifier: MIT
"""Runs that grow, and run again, while workers, consumers and clients are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import pytest

from flowq import group
from flowq.errors import ResultTimeout
from flowq.message import id_bytes
from flowq.states import State
from tests.faults.conftest import ROOT, Farm, until

ITEMS = 300
WIDE = 1_200
VALUE = [ITEMS, sum(range(1, ITEMS + 1)), 10, 4, 30]


def start(farm: Farm, **options: Any) -> Any:
    flow, cleanup = farm.q.flows["farm.grown"], farm.q.tasks["farm.cleanup"]
    return flow.options(finally_=cleanup.s(farm.journal), **options)(farm.journal, ITEMS, "a")


def kill_until_it_ends(farm: Farm, run: Any, rand: random.Random, most: int = 5) -> int:
    """Kill a worker, or the consumer with all of its workers, until the run has ended."""
    words = ("-k", "process", "-w", "2", "-q")
    consumer, kills = farm.start(*words), 0
    while not run.ready and kills < most:
        until(lambda: consumer.children() or run.ready)  # noqa: B023
        pause = time.monotonic() + rand.uniform(0.05, 0.4)
        until(lambda: time.monotonic() > pause or run.ready)  # noqa: B023
        workers = consumer.children()
        if run.ready or not workers:
            continue
        kills += 1
        if rand.random() < 0.3:
            consumer.kill()
            consumer = farm.start(*words)
        else:
            os.kill(rand.choice(workers), signal.SIGKILL)
    until(lambda: run.ready and not farm.q.store.left(["default"]), 40.0)
    consumer.kill()
    return kills


def begun(farm: Farm) -> dict[str, list[float]]:
    """When bodies began, by the ids under which they ran."""
    found: dict[str, list[float]] = {}
    with open(farm.journal) as file:
        for id, _, when in map(str.split, file):
            found.setdefault(id, []).append(float(when))
    return found


def nothing_is_left(farm: Farm, run: Any) -> None:
    """Check that all has ended, and that no body began after its node had been settled."""
    nodes = list(run.nodes())
    assert [n for n in nodes if not State[n.state.upper()].final] == []
    assert farm.q.store.check(id_bytes(run.id)) == []
    assert not farm.q.store.left(["default"])
    times = begun(farm)
    late = [
        n
        for n in nodes
        if n.ended_at and max(times.get(n.id, [0])) > n.ended_at.timestamp() + 0.002
    ]
    assert late == []


@pytest.mark.timeout(100)
@pytest.mark.parametrize("seed", [1])
def test_a_run_grows_as_if_nobody_had_been_killed(farm: Farm, seed: int) -> None:
    (farm.folder / "mended").touch()
    run = start(farm)

    kills = kill_until_it_ends(farm, run, random.Random(seed))

    assert run.get() == VALUE
    nothing_is_left(farm, run)
    ran = [n for n in run.nodes() if n.task and n.task.startswith("farm.") and n.id in begun(farm)]
    assert len(ran) == 2 + 2 * ITEMS + 1 + 7 + 2 + 1 + 1
    assert kills


@pytest.mark.timeout(100)
@pytest.mark.parametrize("seed", [2])
def test_a_run_that_failed_runs_again_under_the_same_kills(farm: Farm, seed: int) -> None:
    rand = random.Random(seed)
    run = start(farm)
    kill_until_it_ends(farm, run, rand)
    assert run.state == "failed"
    nothing_is_left(farm, run)
    (farm.folder / "mended").touch()

    again = run.retry()
    kill_until_it_ends(farm, run, rand)

    assert run.get() == VALUE
    # the second of some items, what reads them all, and the cleanup
    assert again == ITEMS // 60 + 2
    nothing_is_left(farm, run)


_CLIENT = """
import os, signal, sys
from flowq.storage.redis.store import RedisStore
from flowq.storage.sqlite.change import Change
from tests.faults.farm import q

run, left = q.run(sys.argv[1]), int(sys.argv[2])

def dying(real):
    def call(self, *args, **more):
        global left
        if args[:1] == ("rewind",) or real.__qualname__ == "Change.close":
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return real(self, *args, **more)
    return call

Change.close, RedisStore._run = dying(Change.close), dying(RedisStore._run)
run.retry()
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("pages", "who"), [(2, "get"), (5, "retry"), (3, "worker")])
def test_what_a_client_began_to_let_run_again_is_finished_by_others(
    farm: Farm, pages: int, who: str
) -> None:
    second, mark, gather = (farm.q.tasks[f"farm.{n}"] for n in ("second", "mark", "gather"))
    fan = group(*(mark.s(farm.journal, "wide") for _ in range(WIDE))) | gather.s(farm.journal)
    run = (second.s(7, farm.journal) >> fan).start()
    consumer = farm.start("-k", "process", "-w", "2", "-q")
    until(lambda: run.ready and not farm.q.store.left(["default"]))
    consumer.kill()
    assert run.state == "failed"
    (farm.folder / "mended").touch()

    client = subprocess.run(
        [sys.executable, "-c", _CLIENT, run.id, str(pages)],
        cwd=ROOT,
        env={**os.environ, "FARM_URL": farm.url, "FARM_NAME": farm.name},
        check=False,
    )

    assert client.returncode == -signal.SIGKILL
    assert farm.q.store.left(["default"])
    if who != "worker":
        if who == "retry":
            assert run.retry() == 0  # once it is finished there is nothing left to choose
        else:
            with pytest.raises(ResultTimeout):
                run.get(timeout=0.01)
        assert Counter(n.state for n in run.nodes()) == {"queued": 1, "waiting": WIDE + 1}
        assert farm.q.store.check(id_bytes(run.id)) == []
    else:
        farm.start("-k", "process", "-w", "2", "-q")
        assert run.get(blocking=True, timeout=30) == WIDE
        assert farm.q.store.check(id_bytes(run.id)) == []
