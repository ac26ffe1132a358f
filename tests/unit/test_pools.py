# SPDX-License-Identifier: MIT
"""What a parent and its worker processes tell each other, and what it does without them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowq import FlowQ
from flowq.errors import ConfigError
from flowq.pools import process
from flowq.pools.child import Notes
from flowq.pools.process import Child, ProcessPool
from flowq.storage import Store, open_store


@pytest.fixture
def store(store_name: str) -> Iterator[Store]:
    made = open_store("memory://", name=store_name)
    yield made
    made.close()


CONFIG: dict[str, Any] = {"lanes": 1, "lease": 30.0, "drain": False}


def deaf(monkeypatch: pytest.MonkeyPatch) -> Child:
    """A worker process that never reads what it is told, and has the usual answer to SIGTERM."""
    monkeypatch.setattr(process, "BOOT", "import time; time.sleep(60)")
    return Child(CONFIG)


def test_notes_are_read_as_they_were_written() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(Notes.size(2))
        mine, parents = Notes(file.fileno(), 2), Notes(file.fileno(), 2)
    assert parents.running() == []
    assert not parents.begun

    mine.begin()
    mine.write(0, b"a" * 16)
    mine.write(1, b"b" * 20)
    assert [id for id, _ in parents.running()] == [b"a" * 16, b"b" * 20]
    assert all(0 <= time.monotonic() - since < 10 for _, since in parents.running())
    mine.write(0, b"")

    assert [id for id, _ in parents.running()] == [b"b" * 20]
    assert parents.begun


def test_a_worker_that_does_not_listen_never_blocks_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = deaf(monkeypatch)
    ids = [os.urandom(16) for _ in range(500)]

    for _ in range(20):  # more than a pipe holds
        child.cancel(ids)
    deadline = time.monotonic() + 10
    while child.process.poll() is None:  # once nothing fits any more, it is told by a signal
        assert time.monotonic() < deadline
        child.stop()

    child.close()
    child.cancel(ids)  # it may come late


def test_a_parent_that_cannot_start_workers_tries_again_and_can_be_stopped(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []

    def none_left(config: dict[str, Any]) -> Child:
        tries.append(time.monotonic())
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(process, "Child", none_left)
    pool = ProcessPool(store, processes=2, config=CONFIG)
    pool.start()
    deadline = time.monotonic() + 20
    while len(tries) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.005)

    pool.stop()

    assert pool.join(5.0)
    pool.close()


def test_workers_that_have_not_begun_end_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "BOOT", "import time; time.sleep(60)")
    pool = ProcessPool(store, processes=2, config=CONFIG)
    pool.start()

    pool.stop()

    assert pool.join(10.0)
    pool.close()


def test_giving_up_says_whether_anything_ran(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BOOT", "import time; time.sleep(60)")
    pool = ProcessPool(store, processes=2, config=CONFIG)
    pool.start()

    assert not pool.abandon()
    pool.close()


def test_only_bodies_that_run_are_said_to_go_back(
    store_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = FlowQ(store_name, "memory://")
    began, end = threading.Event(), threading.Event()

    @app.task(name="hold")
    def hold() -> None:
        began.set()
        end.wait(50)

    said = "running tasks did not end in time and go back to their queues"
    with app.consumer() as idle:
        idle.stop(timeout=0)
    assert said not in caplog.messages

    with app.consumer() as busy:
        hold()
        assert began.wait(20)
        busy.stop(timeout=0)
    assert caplog.messages.count(said) == 1

    end.set()
    assert busy.join(20)
    app.store.close()


def test_who_stops_again_does_not_wait_for_bodies_that_were_given_up(store_name: str) -> None:
    app = FlowQ(store_name, "memory://")
    began, end = threading.Event(), threading.Event()

    @app.task(name="hold")
    def hold() -> None:
        began.set()
        end.wait(50)

    with app.consumer(shutdown_timeout=20) as consumer:
        hold()
        assert began.wait(20)
        consumer.stop(timeout=0)

    assert not consumer.join(0), "the body still runs, and nobody waits for it"
    end.set()
    assert consumer.join(20)
    app.store.close()


def test_a_worker_whose_app_cannot_be_loaded_ends_the_consumer_with_one_line(
    tmp_path: Path, store_name: str
) -> None:
    """It loads in the parent and not in its workers, each time anew."""
    code = (
        "import os\nfrom flowq import FlowQ\n"
        f"q = FlowQ({store_name!r}, 'sqlite:///{tmp_path}/q.db')\n"
        "@q.task\ndef fine(): return 1\n"
        f"if os.getppid() != {os.getpid()}: raise ZeroDivisionError('a worker')\n"
    )
    (tmp_path / "odd.py").write_text(code)

    ended = subprocess.run(
        [sys.executable, "-m", "flowq", "worker", "odd:q", "-w", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert ended.returncode == 2
    assert "the app cannot be loaded: ZeroDivisionError: a worker" in ended.stderr
    assert "is started again" not in ended.stderr


def test_workers_that_end_before_they_begin_are_started_ever_more_slowly(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []

    class Timer(threading.Timer):
        def __init__(self, delay: float, *more: Any) -> None:
            delays.append(delay)
            super().__init__(min(delay, 0.01), *more)

    monkeypatch.setattr(process.threading, "Timer", Timer)
    monkeypatch.setattr(process, "BOOT", "import os; os._exit(3)")
    pool = ProcessPool(store, processes=1, config=CONFIG)
    pool.start()
    deadline = time.monotonic() + 30
    while len(delays) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.005)

    pool.stop()

    assert pool.join(10.0)
    assert delays[0] == 0.0 and delays == sorted(delays)
    assert delays[8] == delays[9] == process.LONGEST_DELAY
    pool.close()


def test_what_one_worker_finds_drained_ends_all(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first to come finds nothing left, the others are still on their way."""
    code = (
        "import mmap, os, sys, time\n"
        f"try: os.mkdir({str(tmp_path / 'first')!r})\n"
        "except FileExistsError: time.sleep(60)\n"
        "mmap.mmap(int(sys.argv[3]), 1)[0] = 2"
    )
    monkeypatch.setattr(process, "BOOT", code)
    pool = ProcessPool(store, processes=3, config={**CONFIG, "drain": True})

    pool.start()

    assert pool.join(20.0)
    assert pool.status == 0
    pool.close()


def test_a_consumer_that_could_not_start_can_be_stopped_and_started(store_name: str) -> None:
    q = FlowQ(store_name, "redis://127.0.0.1:1/0")

    @q.task(name="fine")
    def fine() -> str:
        return "ran"

    consumer = q.consumer()
    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        consumer.start()
    consumer.stop()
    q.use_url("memory://")

    with consumer:
        assert fine().get(timeout=10) == "ran"
    q.store.close()


def test_a_consumer_starts_once_and_may_wait_for_ever(store_name: str) -> None:
    q = FlowQ(store_name, "memory://")
    q.task(name="fine")(int)
    consumer = q.consumer(shutdown_timeout=float("inf")).start()

    with pytest.raises(ConfigError, match="started already"):
        consumer.start()
    assert consumer.run() == 2

    consumer.stop()
    q.store.close()


def test_a_consumer_runs_in_any_thread(tmp_path: Any, store_name: str) -> None:
    """Signals are for the main thread; in others, `stop` ends it."""
    code = "from flowq import FlowQ\nq = FlowQ({!r}, {!r})\n@q.task\ndef fine(): return 'ran'\n"
    url = f"sqlite:///{tmp_path}/q.db"
    (tmp_path / f"{store_name}.py").write_text(code.format(store_name, url))
    sys.path.insert(0, str(tmp_path))
    try:
        q = __import__(store_name).q
    finally:
        sys.path.remove(str(tmp_path))
    sys.path.append(str(tmp_path))  # for its worker process
    consumer = q.consumer(kind="process")
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(consumer.run()))
    thread.start()
    try:
        assert q.tasks[f"{store_name}.fine"]().get(timeout=20) == "ran"
    finally:
        sys.path.remove(str(tmp_path))
        consumer.stop()
        thread.join(10)
        q.store.close()

    assert status == [0]
