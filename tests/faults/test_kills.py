# SPDX-License-Identifier: MIT
"""Workers, parents and whole consumers are killed; what they held runs again, and only that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from flowq import chain, group
from flowq.consumer import ONE_SIGNAL
from flowq.errors import WorkerLost
from flowq.leases import process_start
from flowq.message import id_bytes
from flowq.outcome import Done
from flowq.states import State
from flowq.storage.base import SessionInfo
from tests.faults.conftest import ROOT, Farm, until
from tests.faults.farm import Bomb

ONLY_SQLITE = pytest.mark.parametrize("farm", ["sqlite"], indirect=True)
"""For what does not depend on the store."""


@pytest.mark.parametrize(
    ("farm", "signum"),
    [
        ("sqlite", signal.SIGKILL),
        ("redis", signal.SIGKILL),
        ("sqlite", signal.SIGRTMIN + 5),  # has no name
    ],
    indirect=["farm"],
)
def test_a_killed_worker_costs_its_task_a_moment_and_a_loss(farm: Farm, signum: int) -> None:
    farm.start("-k", "process", "-w", "2", "-q")
    held = farm.hold("a")
    [[_, pid, _]] = farm.until_noted("a:begin")

    os.kill(int(pid), signum)

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


@ONLY_SQLITE
@pytest.mark.parametrize("status", [0, 2, 4])
def test_no_exit_status_of_a_body_ends_its_consumer(farm: Farm, status: int) -> None:
    farm.start("-k", "process", "-w", "1", "-q")

    left = farm.call("leave", status, max_losses=1)

    assert farm.call("mark", farm.journal, "next").get(timeout=20) == "next"
    with pytest.raises(WorkerLost):
        left.get(timeout=20)


@ONLY_SQLITE
def test_arguments_that_kill_their_reader_end_as_a_dead_letter(farm: Farm) -> None:
    farm.start("-k", "process", "-w", "1", "-q")

    bad = farm.call("mark", farm.journal, Bomb(), max_losses=1)

    with pytest.raises(WorkerLost):
        bad.get(timeout=20)
    [letter] = farm.q.store.dead()
    assert [loss.reason for loss in letter.losses] == ["exit status 9"]
    assert farm.call("mark", farm.journal, "next").get(timeout=20) == "next"


@ONLY_SQLITE
def test_the_child_of_a_body_that_forks_is_no_second_worker(farm: Farm) -> None:
    farm.start("-k", "process", "-w", "1", "-q")

    assert farm.call("fork", farm.journal).get(timeout=20) == 1  # it was ended
    assert farm.call("mark", farm.journal, "next").get(timeout=20) == "next"
    assert len(farm.lines("fork")) == 1


@pytest.mark.timeout(120)
def test_hops_that_run_again_fork_no_tail(farm: Farm) -> None:
    hop = farm.q.tasks["farm.hop"]
    words = [f"h{i}" for i in range(24)]
    hops = [hop.s(farm.journal, word) for word in words[1:]]
    run = chain(hop.s(farm.journal, words[0], []), *hops).start()
    farm.start("-k", "process", "-w", "2", "-q")

    kills = 0
    for word in words[3:20:4]:
        pid = int(farm.until_noted(word)[0][1])
        try:
            os.kill(pid, signal.SIGKILL)
            kills += 1
        except ProcessLookupError:
            pass  # the one that an earlier kill had ended

    assert run.get(timeout=60) == words
    counts = [len(farm.lines(word)) for word in words]
    assert min(counts) == 1
    assert 0 < sum(counts) - len(words) <= kills  # only what a killed worker ran
    assert farm.q.store.check(id_bytes(run.id)) == []


@pytest.mark.timeout(120)
def test_a_group_under_kills_calls_back_once(farm: Farm) -> None:
    mark, gather = farm.q.tasks["farm.mark"], farm.q.tasks["farm.gather"]
    words = [f"g{i}" for i in range(30)]
    held = farm.q.tasks["farm.hold"].s(farm.journal, "last")
    run = (group(*(mark.s(farm.journal, w) for w in words), held) | gather.s(farm.journal)).start()
    farm.start("-k", "process", "-w", "2", "-q")

    for times in (1, 2):  # max_losses is 3
        os.kill(int(farm.until_noted("last:begin", times)[-1][1]), signal.SIGKILL)
    farm.until_noted("last:begin", 3)
    farm.let_go("last")

    assert run.get(timeout=60) == len(words) + 1
    assert len(farm.lines("gather")) == 1
    assert farm.q.store.check(id_bytes(run.id)) == []


def test_what_a_lost_machine_held_comes_back_by_its_lease(farm: Farm) -> None:
    result = farm.call("mark", farm.journal, "a")
    info = SessionInfo(id="w-far", host="far", boot="another boot", pid=1, pid_started="1")
    farm.q.store.open_session(info, lease_ms=1_000)
    step = farm.q.store.step("w-far", want=1, lease_ms=1_000)
    assert [d.id for d in step.deliveries] == [id_bytes(result.id)]

    farm.start("-k", "process", "-w", "1", "--lease", "1", "-q")

    assert result.get(timeout=20) == "a"
    late = Done(step.deliveries[0].id, step.deliveries[0].delivery, b"late")
    assert farm.q.store.step("w-far", [late]).verdicts == ["stale"]


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

    until(lambda: not any(map(process_start, workers)), 10.0)
    until(lambda: held.state == "queued", 5.0)
    farm.let_go("a")
    farm.start("-q")
    assert held.get(timeout=30) == "a"


@ONLY_SQLITE
def test_workers_end_with_their_parent_though_what_it_forked_lives_on(farm: Farm) -> None:
    """As a program does that has a consumer, and a pool of `multiprocessing` beside it."""
    code = (
        "import os, time\nfrom tests.faults.farm import q\n"
        "q.consumer(kind='process', path='tests.faults.farm:q').start()\n"
        "os.fork()\nos.write(1, b'forked\\n')\ntime.sleep(60)\n"
    )
    held = farm.hold("a")
    program = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env={**os.environ, "FARM_URL": farm.url, "FARM_NAME": farm.name},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert program.stdout is not None
        assert [program.stdout.readline() for _ in range(2)] == [b"forked\n"] * 2
        [[_, worker, _]] = farm.until_noted("a:begin")

        program.kill()
        program.wait()

        until(lambda: not process_start(int(worker)), 10.0)
        until(lambda: held.state == "queued", 5.0)
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.stdout.close()


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


@ONLY_SQLITE
def test_a_worker_that_somebody_ends_is_not_taken_for_drained(farm: Farm) -> None:
    held, rest = farm.hold("a"), farm.call("mark", farm.journal, "rest")
    consumer = farm.start("-k", "process", "-w", "1", "--drain")
    [[_, pid, _]] = farm.until_noted("a:begin")

    os.kill(int(pid), signal.SIGTERM)
    farm.let_go("a")

    assert consumer.wait() == 0
    assert (held.get(), rest.get()) == ("a", "rest")


@pytest.mark.parametrize("how", ["second signal", "timeout"])
def test_what_does_not_end_goes_back_uncounted(farm: Farm, how: str) -> None:
    limit = "60" if how == "second signal" else "0.3"
    consumer = farm.start("-k", "process", "-w", "1", "--shutdown-timeout", limit)
    held = farm.hold("a")
    farm.until_noted("a:begin")

    consumer.send(signal.SIGINT)
    until(lambda: "SIGINT" in consumer.log)
    if how == "second signal":  # what comes within a second of the first is the same one
        first = time.monotonic()
        until(lambda: time.monotonic() > first + ONE_SIGNAL)
        consumer.send(signal.SIGINT)

    assert consumer.wait(15.0) == 0
    [look] = farm.q.store.look([id_bytes(held.id)])
    assert look is not None
    assert (look.state, look.losses) == (State.QUEUED, 0)


@pytest.mark.timeout(120)
def test_a_parent_redelivered_after_starting_a_child_run_starts_no_second_one(farm: Farm) -> None:
    starter = farm.q.tasks["farm.starter"]
    alone, run = starter(farm.journal), group(starter.s(farm.journal)).start()
    farm.start("-k", "process", "-w", "3", "-q")

    for times in (2, 3, 4):  # both have started theirs; then one again, and again
        pid = int(farm.until_noted("started", times)[-1][1])
        os.kill(pid, signal.SIGKILL)
    farm.until_noted("started", 5)
    farm.let_go("starter")
    ids = [*alone.get(timeout=60), *run.get(timeout=60)[0]]
    until(lambda: not farm.q.store.left(["default"]))

    assert len(farm.lines("starter")) == 5
    assert len(set(ids)) == 8
    assert all(farm.q.result(id).state == "success" for id in ids)
    counts = [len(farm.lines(word)) for word in ("child", "in-run", "in-map")]
    assert counts == [4, 4, 2]
    assert len(farm.q.store.runs()) == 5


@pytest.mark.timeout(120)
def test_what_is_never_to_run_again_fails_with_its_lost_worker(farm: Farm) -> None:
    fragile = farm.q.tasks["farm.fragile"]
    after = farm.q.tasks["farm.mark"].s(farm.journal, "after")
    alone, run = fragile(farm.journal), (fragile.s(farm.journal) >> after).start()
    farm.start("-k", "process", "-w", "2", "-q")

    for _, pid, _ in farm.until_noted("fragile", 2):
        os.kill(int(pid), signal.SIGKILL)

    for result in (alone, run):
        with pytest.raises(WorkerLost):
            result.get(timeout=30)
    assert farm.call("mark", farm.journal, "next").get(timeout=20) == "next"
    assert len(farm.lines("fragile")) == 2
    assert [n.state for n in run.nodes()] == ["failed", "blocked"]
