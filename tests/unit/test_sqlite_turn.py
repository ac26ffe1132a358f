# SPDX-License-Identifier: MIT
"""Whose turn it is to write to a file: it goes round, and nobody waits for ever."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowq.errors import StoreUnavailable
from flowq.storage import open_store
from flowq.storage.sqlite import turn
from flowq.storage.sqlite.store import SqliteStore
from tests.unit.test_sqlite import drain, eventually, python, task

HOLD = """
import sys
from flowq.storage import open_store
store = open_store(sys.argv[1])
with store._db.write():
    print("up", flush=True)
    sys.stdin.readline()
"""
ADD = """
import sys
from tests.unit.test_sqlite import *
assert open_store(sys.argv[1]).enqueue([task()]) == [True]
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    found = SqliteStore.from_url(f"sqlite:///{tmp_path}/store.db?timeout=0.3")
    yield found
    found.close()


@pytest.fixture
def frozen(store: SqliteStore) -> Iterator[subprocess.Popen[bytes]]:
    """A process that was stopped while it wrote."""
    store.status()
    process = python(HOLD, store.url)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: turn._about(process.pid)[1])
    yield process
    process.kill()
    process.communicate()


def asking() -> int:
    return sum(thread.name == "flowq-turn" for thread in threading.enumerate())


def test_a_writer_that_was_stopped_holds_up_nobody_for_longer_than_the_url_says(
    store: SqliteStore, frozen: subprocess.Popen[bytes]
) -> None:
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(StoreUnavailable) as caught:
            store.enqueue([task()])
    took = time.monotonic() - began

    assert 0.9 <= took < 10
    text = str(caught.value)
    assert f"{store.path}-lock was locked by process {frozen.pid} (python" in text
    assert f"it is stopped: `kill -CONT {frozen.pid}` lets it go on" in text
    assert asking() == 1  # one waits on for all

    frozen.send_signal(signal.SIGCONT)
    frozen.communicate(b"\n", timeout=20)
    eventually(lambda: not asking())
    message = task()
    assert store.enqueue([message]) == [True]
    assert drain(store) == [message.id]


def test_whoever_gave_up_keeps_nothing_that_others_need(
    store: SqliteStore, frozen: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(StoreUnavailable):
        store.enqueue([task()])
    frozen.send_signal(signal.SIGCONT)
    frozen.communicate(b"\n", timeout=20)

    other = python(ADD, re.sub(r"timeout=.*", "timeout=20", store.url))

    other.communicate(timeout=20)
    assert other.returncode == 0
    assert len(drain(store)) == 1


def test_one_reads_and_opens_while_a_writer_is_stopped(
    store: SqliteStore, frozen: subprocess.Popen[bytes]
) -> None:
    failures: list[BaseException] = []

    def write() -> None:
        try:
            store.enqueue([task()])
        except StoreUnavailable as err:
            failures.append(err)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    began = time.monotonic()
    assert store.status().queues == []
    another = open_store(store.url)
    assert another.runs() == []
    another.close()

    assert time.monotonic() - began < 0.3
    for writer in writers:
        writer.join(1.5)
    assert len(failures) == 4  # together, not one after the other


def test_who_waits_for_its_turn_is_next(store: SqliteStore, tmp_path: Path) -> None:
    first = turn.Turn(tmp_path / "x", 20)
    second = turn.Turn(tmp_path / "x", 20)
    order: list[str] = []

    def wait() -> None:
        with second.taken():
            order.append("second")

    with first.taken(), first.taken():
        waiter = threading.Thread(target=wait)
        waiter.start()
        eventually(lambda: asking() == 1)
        order.append("first")
    waiter.join(10)

    assert order == ["first", "second"]
    with first.taken():
        pass
    for one in (first, second):
        one.close()


def test_who_holds_it_is_named_though_it_is_this_process(tmp_path: Path) -> None:
    one = turn.Turn(tmp_path / "x", 5)
    other = turn.Turn(tmp_path / "x", 0.01)

    with one.taken(), pytest.raises(StoreUnavailable, match=f"of this process .{os.getpid()}."):
        with other.taken():
            pass

    eventually(lambda: not asking())
    one.close()
    other.close()


@pytest.mark.parametrize("contended", [False, True])
def test_who_is_interrupted_as_it_gets_its_turn_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contended: bool
) -> None:
    one, other = turn.Turn(tmp_path / "x", 20), turn.Turn(tmp_path / "x", 20)
    lock = one._lock

    def interrupted(until: float) -> bool:
        assert lock(until)
        raise KeyboardInterrupt

    def hold() -> None:
        with other.taken():
            has_it.set()
            eventually(lambda: asking() == 1)

    has_it = threading.Event()
    holder = threading.Thread(target=hold)
    if contended:
        holder.start()
        has_it.wait(10)
    monkeypatch.setattr(one, "_lock", interrupted)

    with pytest.raises(KeyboardInterrupt), one.taken():
        pass

    if contended:
        holder.join(10)
    quick = turn.Turn(tmp_path / "x", 0.05)
    with quick.taken():
        pass
    for each in (one, other, quick):
        each.close()
