# SPDX-License-Identifier: MIT
"""The store goes away and comes back; workers wait for it, and nothing is lost or runs twice."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Farm, until
from tests.servers import RedisServer


@pytest.fixture
def remote(tmp_path: Path, private_redis: RedisServer, store_name: str) -> Iterator[Farm]:
    made = Farm(tmp_path, private_redis.tcp_url, store_name)
    yield made
    if not private_redis.running:
        private_redis.start()
    made.close()


def test_an_outcome_waits_for_a_store_that_was_killed(
    remote: Farm, private_redis: RedisServer
) -> None:
    consumer = remote.start("-k", "process", "-w", "1")
    held = remote.hold("a")
    remote.until_noted("a:begin")

    private_redis.kill()
    remote.let_go("a")
    remote.until_noted("a:end")
    until(lambda: "is away" in consumer.log)
    private_redis.start()

    assert held.get(timeout=30) == "a"
    assert len(remote.lines("a:begin")) == 1
    until(lambda: "is back" in consumer.log)  # said after the value could be read
    assert consumer.log.count("the store is away") == 1  # once, not a flood
    assert consumer.log.count("the store is back") == 1


def test_an_idle_worker_finds_a_store_that_was_restarted(
    remote: Farm, private_redis: RedisServer
) -> None:
    remote.start("-k", "process", "-w", "2", "-q")
    assert remote.call("mark", remote.journal, "before").get(timeout=20) == "before"

    private_redis.restart()

    assert remote.call("mark", remote.journal, "after").get(timeout=30) == "after"


@pytest.mark.timeout(90)
def test_a_store_that_froze_past_the_lease_takes_no_work_away(
    remote: Farm, private_redis: RedisServer
) -> None:
    remote.start("-k", "process", "-w", "2", "--lease", "1", "-q")
    held = remote.hold("a")
    remote.until_noted("a:begin")

    private_redis.pause()
    frozen = time.monotonic()
    until(lambda: time.monotonic() > frozen + 3.0)  # three leases
    private_redis.resume()
    remote.call("mark", remote.journal, "next").get(timeout=30)
    remote.let_go("a")

    assert held.get(timeout=30) == "a"
    assert len(remote.lines("a:begin")) == 1


@pytest.mark.timeout(90)
@pytest.mark.parametrize("farm", ["sqlite"], indirect=True)
def test_a_file_that_was_locked_past_the_lease_takes_no_work_away(farm: Farm) -> None:
    farm.start("-k", "process", "-w", "2", "--lease", "1", "-q")
    held = farm.hold("a")
    farm.until_noted("a:begin")

    file = farm.folder / "farm.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # somebody's tool, which looks around for three leases
        locked = time.monotonic()
        until(lambda: time.monotonic() > locked + 3.0)
        other.execute("COMMIT")
    farm.call("mark", farm.journal, "next").get(timeout=30)
    farm.let_go("a")

    assert held.get(timeout=30) == "a"
    assert len(farm.lines("a:begin")) == 1


def test_a_worker_that_dies_while_the_store_is_away_ends_nobody_else(
    remote: Farm, private_redis: RedisServer
) -> None:
    consumer = remote.start("-k", "process", "-w", "1")
    held = remote.hold("a")
    [[_, pid, _]] = remote.until_noted("a:begin")

    private_redis.kill()
    os.kill(int(pid), signal.SIGKILL)
    until(lambda: "is started again" in consumer.log)
    until(lambda: consumer.children() and str(consumer.children()[0]) != pid)
    private_redis.start()

    remote.until_noted("a:begin", 2, seconds=15.0)  # the lease is 30 s
    remote.let_go("a")
    assert held.get(timeout=30) == "a"
    assert consumer.process.poll() is None
