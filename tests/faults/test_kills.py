# SPDX-License-Identifier: MIT
"""Workers, parents and whole consumers are killed; what they held runs again, and only that."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from flowq.errors import WorkerLost
from flowq.message import id_bytes
from flowq.states import State
from tests.faults.conftest import Farm, until


def test_a_killed_worker_costs_its_task_a_moment_and_a_loss(farm: Farm) -> None:
    farm.start("-k", "process", "-w", "2", "-q")
    held = farm.hold("a")
    [[_, pid, _]] = farm.until_noted("a:begin")

    os.kill(int(pid), signal.SIGKILL)

    second = farm.until_noted("a:begin", 2, seconds=5.0)[1]  # the lease is 30 s
    assert second[1] != pid
    [look] = farm.q.store.look([id_bytes(held.id)])
    assert look is not None
    assert (look.losses, look.attempt) == (1, 0)
    farm.let_go("a")
    assert held.get(timeout=20) == "a"


@pytest.mark.parametrize(("kind", "lanes"), [("process", "1"), ("thread", "3")])
def test_a_poison_pill_ends_as_a_dead_letter_and_its_neighbours_succeed(
    farm: Farm, kind: str, lanes: str
) -> None:
    with farm.q.batch():
        before = [farm.call("mark", farm.journal, f"b{i}") for i in range(20)]
        pill = farm.call("die", farm.journal)
        after = [farm.call("mark", farm.journal, f"c{i}") for i in range(20)]

    farm.start("-k", kind, "-w", lanes, "-q")

    with pytest.raises(WorkerLost):
        pill.get(timeout=30)
    assert [r.get(timeout=30) for r in before] == [f"b{i}" for i in range(20)]
    assert [r.get(timeout=30) for r in after] == [f"c{i}" for i in range(20)]
    assert len(farm.lines("die")) == 2  # its max_losses
    [letter] = farm.q.store.dead()
    assert [loss.reason for loss in letter.losses] == ["exit status 13"] * 2
    assert [str(loss.pid) for loss in letter.losses] == [pid for _, pid, _ in farm.lines("die")]


@pytest.mark.timeout(120)
def test_a_consumer_killed_again_and_again_takes_up_its_work_at_once(farm: Farm) -> None:
    held = farm.hold("a")  # max_losses is 3

    for times in range(1, 5):
        consumer = farm.start("-k", "process", "-w", "2", "-q")
        farm.until_noted("a:begin", times, seconds=15.0)  # the lease is 30 s
        [look] = farm.q.store.look([id_bytes(held.id)])
        assert look is not None
        assert look.losses == 0  # nobody says that it was the task's fault
        consumer.kill()

    farm.let_go("a")
    farm.start("-q")
    assert held.get(timeout=30) == "a"


def test_workers_end_with_their_parent_and_give_back_what_they_held(farm: Farm) -> None:
    consumer = farm.start("-k", "process", "-w", "2", "-q")
    held = farm.hold("a")
    farm.until_noted("a:begin")
    workers = consumer.children()
    assert len(workers) == 2

    consumer.process.kill()
    consumer.process.wait()

    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10.0)
    until(lambda: held.state == "queued", 5.0)
    farm.let_go("a")
    farm.start("-q")
    assert held.get(timeout=30) == "a"


def test_a_body_that_keeps_the_interpreter_keeps_its_lease(farm: Farm) -> None:
    farm.start("-k", "process", "-w", "2", "--lease", "1", "-q")

    done = farm.call("greedy", farm.journal, 4)

    assert done.get(timeout=30) == "let go"
    assert len(farm.lines("greedy")) == 1  # the other worker would have taken it


def test_a_cancelled_body_is_interrupted_and_its_worker_goes_on(farm: Farm) -> None:
    farm.start("-k", "process", "-w", "1", "-q")
    asleep = farm.call("sleeper", farm.journal)
    farm.until_noted("sleeper")

    asleep.cancel()

    farm.until_noted("interrupted:True", seconds=5.0)
    until(lambda: asleep.state == "cancelled", 5.0)
    assert farm.call("mark", farm.journal, "next").get(timeout=10) == "next"
    assert len(farm.consumers[0].children()) == 1


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_sigterm_finishes_what_runs_and_gives_back_the_rest(farm: Farm, kind: str) -> None:
    consumer = farm.start("-k", kind, "-w", "1")
    held = farm.hold("a")
    farm.until_noted("a:begin")
    rest = [farm.call("mark", farm.journal, f"r{i}") for i in range(5)]

    consumer.send(signal.SIGTERM)
    until(lambda: "SIGTERM" in consumer.log)
    farm.let_go("a")

    assert consumer.wait() == 0
    assert held.get(timeout=5) == "a"
    assert {r.state for r in rest} == {"queued"}
    looks = farm.q.store.look([id_bytes(r.id) for r in rest])
    assert [(x.state, x.losses, x.attempt) for x in looks if x] == [(State.QUEUED, 0, 0)] * 5


@pytest.mark.parametrize("how", ["second signal", "timeout"])
def test_what_does_not_end_goes_back_uncounted(farm: Farm, how: str) -> None:
    limit = "60" if how == "second signal" else "0.3"
    consumer = farm.start("-k", "process", "-w", "1", "--shutdown-timeout", limit)
    held = farm.hold("a")
    farm.until_noted("a:begin")

    consumer.send(signal.SIGINT)
    until(lambda: "SIGINT" in consumer.log)
    if how == "second signal":
        consumer.send(signal.SIGINT)

    assert consumer.wait(15.0) == 0
    [look] = farm.q.store.look([id_bytes(held.id)])
    assert look is not None
    assert (look.state, look.losses) == (State.QUEUED, 0)
