# SPDX-License-Identifier: MIT
"""What is SQLite's own: the file, processes that share it, kills, errors of the disk."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowq.errors import ConfigError, StoreError, StoreUnavailable, StoreVersionError
from flowq.message import NO_NODE, Message, new_id, pack_cell
from flowq.outcome import Done
from flowq.plan import Kind, NodeRow, Plan
from flowq.states import Rule, State
from flowq.storage import open_store
from flowq.storage.base import LAYOUT
from flowq.storage.sqlite.store import SqliteStore

ROOT = Path(__file__).resolve().parents[2]
NONE = Rule(0, 0, 0, 0, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    found = SqliteStore.from_url(f"sqlite:///{path}")
    yield found
    found.close()


def task(**more: object) -> Message:
    return Message(new_id(), "t", b"P", **more)  # type: ignore[arg-type]


def done(id: bytes, delivery: int) -> Done:
    return Done(id, delivery, pack_cell(State.SUCCESS, b"x", delivery=delivery, ended_ms=1))


def group(n: int) -> Plan:
    message = Message(b"", "t", b"P")
    root = NodeRow("root", Kind.EXPANSION, NO_NODE, NONE, entries=((1, n),), inner=n)
    return Plan(
        new_id(),
        "group",
        [root, *(NodeRow(f"n{i}", Kind.TASK, 0, NONE, message=message) for i in range(1, n + 1))],
    )


def chain(n: int) -> Plan:
    message = Message(b"", "t", b"P")
    rows = [NodeRow("root", Kind.EXPANSION, NO_NODE, NONE, entries=((1, 1),), inner=n)]
    for i in range(1, n + 1):
        above = ((i - 1, 1),) if i > 1 else ()
        below = ((i + 1, 1),) if i < n else ()
        rule = Rule(1, 0, 1, 0, 0) if i > 1 else NONE
        rows.append(NodeRow(f"n{i}", Kind.TASK, 0, rule, above, below, above, message))
    return Plan(new_id(), "chain", rows)


def drain(store: SqliteStore, session: str = "w", batch: int = 64) -> list[bytes]:
    ran: list[bytes] = []
    outcomes: list[Done] = []
    while True:
        step = store.step(session, outcomes, want=batch)
        outcomes = [done(d.id, d.delivery) for d in step.deliveries]
        ran += [d.id for d in step.deliveries]
        if not outcomes and not step.ready:
            return ran


def python(code: str, *args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *args], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


# --- the URL and the file


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite://host/file.db",
        "sqlite:///x.db?synchronous=off",
        "sqlite:///x.db?timeout=soon",
        "sqlite:///x.db?patience=3",
        "memory://name",
    ],
)
def test_a_url_that_names_no_store_is_an_error_that_shows_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)

    assert url in str(caught.value)


def test_a_relative_path_is_that_of_the_moment_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///here.db")

    monkeypatch.chdir("/")
    store.enqueue([task()])

    assert (tmp_path / "here.db").exists()
    assert store.url == f"sqlite:///{tmp_path}/here.db"
    store.close()


def test_nobody_else_may_read_what_a_store_leaves_on_disk(store: SqliteStore, path: Path) -> None:
    old = os.umask(0)
    try:
        store.enqueue([task()])
        store.wait_ready(["other"], timeout=0.01)
    finally:
        os.umask(old)

    rights = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    assert rights.pop("store.db-wake") == 0o700
    assert set(rights) >= {"store.db", "store.db-wal", "store.db-lock"}
    assert set(rights.values()) == {0o600}


def test_a_file_belongs_to_one_app(store: SqliteStore, path: Path) -> None:
    store.status()

    with pytest.raises(StoreVersionError, match=r"'flowq'.*'shop'.*FlowQ\('flowq'\)"):
        open_store(f"sqlite:///{path}", name="shop").status()


def test_another_layout_is_refused_with_both_numbers(store: SqliteStore, path: Path) -> None:
    store.status()
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(StoreVersionError, match=rf"layout 99.*layout {LAYOUT}.*new file"):
        store.status()


def test_a_stranger_database_is_left_alone(store: SqliteStore, path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine(x)")
    db.close()

    with pytest.raises(StoreVersionError, match="not a store of flowq"):
        store.enqueue([task()])

    db = sqlite3.connect(path)
    assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    db.close()
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_no_database_is_an_error_of_the_store(
    store: SqliteStore, path: Path
) -> None:
    path.write_bytes(b"something else entirely" * 100)

    with pytest.raises(StoreError, match="not a database"):
        store.status()


def test_an_sqlite_that_is_too_old_is_named(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))

    with pytest.raises(StoreError, match=r"3\.35\.0"):
        store.status()


# --- errors of the world


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/no/such/x.db")

    with pytest.raises(StoreUnavailable, match=f"{tmp_path}/no/such does not exist"):
        store.status()


def test_a_file_that_may_not_be_written_makes_the_store_unavailable(
    store: SqliteStore, path: Path
) -> None:
    path.mkdir()

    with pytest.raises(StoreUnavailable, match=r"store\.db"):
        store.status()


def test_a_full_disk_leaves_nothing_half_done_and_the_store_usable(store: SqliteStore) -> None:
    small = task()
    store.enqueue([small])
    with store._db.write() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 2}")

    with pytest.raises(StoreUnavailable, match="full"):
        store.enqueue([Message(new_id(), "t", b"P" * 50_000) for _ in range(10)])

    assert store.status().queues[0].ready == 1
    assert drain(store) == [small.id]


def test_a_stranger_that_holds_the_file_makes_the_store_unavailable(path: Path) -> None:
    store = open_store(f"sqlite:///{path}?timeout=0.05")
    store.status()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable, match="locked"):
        store.enqueue([task()])

    other.execute("ROLLBACK")
    other.close()
    assert store.enqueue([task()]) == [True]
    store.close()


# --- processes


DRAIN = """
import sys, threading, os
from tests.unit.test_sqlite import *
store = open_store(sys.argv[1])
print("up", flush=True)
drain(store, sys.argv[2], int(sys.argv[3]))
"""


def test_two_processes_share_the_work_and_run_nothing_twice(store: SqliteStore) -> None:
    plan = group(2_000)
    store.submit(plan)

    workers = [python(DRAIN, store.url, f"w{i}", "7") for i in range(2)]
    for worker in workers:
        worker.communicate(timeout=50)

    info = store.run(plan.id)
    assert info is not None
    assert info.state == State.SUCCESS
    assert store.check(plan.id) == []
    assert len(store.cells(plan.id, ((1, 2_000),))) == 2_000


@pytest.mark.parametrize("shape", [group, chain])
def test_a_writer_killed_at_any_moment_leaves_a_whole_store(
    store: SqliteStore, shape: Callable[[int], Plan]
) -> None:
    plan = shape(3_000)
    store.submit(plan)

    kills = 0
    for i in range(5):
        worker = python(DRAIN, store.url, f"w{i}", "3")
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(0.02 * (i + 1))  # any moment will do
        kills += worker.poll() is None
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        store.release(f"w{i}")
        with store._db.read() as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert store.check(plan.id) == []

    assert kills
    drain(store)
    info = store.run(plan.id)
    assert info is not None
    assert info.state == State.SUCCESS


def test_a_child_after_a_fork_opens_its_own_connection(store: SqliteStore) -> None:
    store.enqueue([task()])

    pid = os.fork()
    if pid == 0:
        try:
            ok = store.enqueue([task()]) == [True] and store._db.opened == 1
            os._exit(0 if ok else 1)
        except BaseException:
            os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(drain(store)) == 2


# --- waking


WAKE = """
import sys, time
from tests.unit.test_sqlite import *
store = open_store(sys.argv[1])
store.status()
print("up", flush=True)
sys.stdin.readline()
store.enqueue([Message(bytes.fromhex(sys.argv[2]), "t", b"P")])
drain(store)
"""


ANSWER = """
import sys
from flowq.storage.sqlite import wake
from tests.unit.test_sqlite import *
wake.BACKSTOP = 60.0
store = open_store(sys.argv[1])
outcomes = []
print("up", flush=True)
while True:
    step = store.step("w", outcomes, want=1)
    outcomes = [done(d.id, d.delivery) for d in step.deliveries]
    if not outcomes:
        assert store.wait_ready(["default"], timeout=50)
"""


def waiters(path: Path) -> list[str]:
    folder = Path(f"{path}-wake")
    return os.listdir(folder) if folder.exists() else []


@pytest.mark.parametrize("ended", [False, True])
def test_another_process_wakes_who_waits_long_before_the_backstop(
    store: SqliteStore, path: Path, ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.storage.sqlite.wake.BACKSTOP", 60.0)
    message = task()
    if ended:
        message = task(delay_ms=60_000)
        store.enqueue([message])
    other = python(WAKE, store.url, new_id().hex())
    assert other.stdout is not None
    assert other.stdin is not None
    other.stdout.readline()

    came: list[bool] = []

    def wait() -> None:
        if ended:
            came.append(store.wait_ended([message.id], timeout=50))
        else:
            came.append(store.wait_ready(["default"], timeout=50))

    waiter = threading.Thread(target=wait)
    waiter.start()
    eventually(lambda: bool(waiters(path)))
    if ended:
        other_store = open_store(store.url)
        other_store.cancel([message.id])
        other_store.close()
    other.stdin.write(b"\n")
    other.stdin.flush()
    waiter.join(40)

    assert came == [True]
    assert waiters(path) == []
    other.communicate(timeout=20)


def test_the_backstop_finds_what_nobody_said(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.storage.sqlite.wake.BACKSTOP", 0.02)
    other = SqliteStore.from_url(store.url)
    monkeypatch.setattr(other._wakes, "tell", lambda ready, ended, moved: None)
    came: list[bool] = []
    waiter = threading.Thread(target=lambda: came.append(store.wait_ready(["default"], timeout=50)))
    waiter.start()
    eventually(lambda: bool(waiters(path)))

    other.enqueue([task()])
    waiter.join(40)

    assert came == [True]
    other.close()


def test_without_sockets_waiting_still_ends(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("socket.AF_UNIX")
    other = SqliteStore.from_url(store.url)
    message = task(delay_ms=60_000)
    store.enqueue([message])
    came: list[bool] = []
    waiter = threading.Thread(
        target=lambda: came.append(store.wait_ended([message.id], timeout=50))
    )
    waiter.start()

    monkeypatch.setattr(other._wakes, "tell", lambda ready, ended, moved: None)
    other.cancel([message.id])
    waiter.join(40)

    assert came == [True]
    other.close()


def test_a_waiter_that_was_killed_does_not_swallow_hints(store: SqliteStore, path: Path) -> None:
    code = "import sys; from tests.unit.test_sqlite import *; "
    code += "open_store(sys.argv[1]).wait_ready(['default'], timeout=60)"
    dead = python(code, store.url)
    eventually(lambda: bool(waiters(path)))
    dead.kill()
    dead.communicate()

    store.enqueue([task()])

    assert waiters(path) == []


def test_a_path_too_long_for_a_socket_wakes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.storage.sqlite.wake.BACKSTOP", 60.0)
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    store = SqliteStore.from_url(f"sqlite:///{folder}/x.db")
    came: list[bool] = []
    waiter = threading.Thread(target=lambda: came.append(store.wait_ready(["default"], timeout=50)))
    waiter.start()
    eventually(lambda: bool(waiters(folder / "x.db")))

    store.enqueue([task()])
    waiter.join(40)

    assert came == [True]
    store.close()


def test_wake_ends_the_waits_of_its_own_store_alone(store: SqliteStore, path: Path) -> None:
    other = SqliteStore.from_url(store.url)
    came: dict[str, bool] = {}

    def wait(name: str, of: SqliteStore) -> None:
        came[name] = of.wait_ready(["default"], timeout=50)

    threads = [
        threading.Thread(target=wait, args=("a", store)),
        threading.Thread(target=wait, args=("b", store)),
        threading.Thread(target=wait, args=("other", other)),
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: len(waiters(path)) == 3)

    store.wake()
    threads[0].join(40)
    threads[1].join(40)

    assert set(came) == {"a", "b"}
    other.wake()
    threads[2].join(40)
    other.close()


def test_a_wait_that_has_just_begun_is_woken(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = store._wakes._listen  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def listen_late(name: str) -> Iterator[object]:
        store.wake()
        with listen(name) as listener:
            yield listener

    monkeypatch.setattr(store._wakes, "_listen", listen_late)
    began = time.monotonic()

    assert store.wait_ready(["default"], timeout=50)

    assert time.monotonic() - began < 10


def test_a_wait_that_is_about_to_end_takes_the_hint_that_it_was_sent(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SqliteStore.from_url(store.url)
    leave = store._wakes._leave  # type: ignore[attr-defined]
    messages = [task()]

    def leave_late(name: str) -> None:
        if messages:
            other.enqueue([messages.pop()])
        leave(name)

    monkeypatch.setattr(store._wakes, "_leave", leave_late)

    assert store.wait_ready(["default"], timeout=0.01)

    other.close()


def test_hints_that_concern_others_do_not_put_off_the_backstop(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.storage.sqlite.wake.BACKSTOP", 0.05)
    other = SqliteStore.from_url(store.url)
    tell = other._wakes.tell
    message = task(delay_ms=60_000)
    store.enqueue([message])
    came: list[bool] = []
    waiter = threading.Thread(
        target=lambda: came.append(store.wait_ended([message.id], timeout=50))
    )
    waiter.start()
    eventually(lambda: bool(waiters(path)))

    monkeypatch.setattr(other._wakes, "tell", lambda ready, ended, moved: None)
    other.cancel([message.id])
    deadline = time.monotonic() + 10
    while waiter.is_alive() and time.monotonic() < deadline:
        tell({}, [new_id()])
        time.sleep(0.005)

    assert came == [True]
    other.close()


def test_single_calls_between_two_processes_never_wait_for_the_backstop(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.storage.sqlite.wake.BACKSTOP", 60.0)
    worker = python(ANSWER, store.url)
    assert worker.stdout is not None
    worker.stdout.readline()

    for _ in range(200):
        message = task()
        store.enqueue([message])
        while not store.look([message.id])[0].state.final:  # type: ignore[union-attr]
            assert store.wait_ended([message.id], timeout=30)

    worker.kill()
    worker.communicate()


# --- large plans


def test_a_large_plan_is_seen_only_when_it_is_whole(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.storage.sqlite.intake.SUBMIT_PAGE", 100)
    plan = group(350)
    other = SqliteStore.from_url(store.url)
    change, seen = store._change, []

    def watched(ids: int = 0) -> object:
        seen.append((other.run(plan.id), other.look([plan.id]), other.step("w", want=5).deliveries))
        return change(ids)

    monkeypatch.setattr(store, "_change", watched)
    assert store.submit(plan) is True
    monkeypatch.undo()

    assert seen == [(None, [None], [])] * 4
    assert len(drain(store)) == 350
    assert store.submit(plan) is False
    other.close()


def test_an_upload_that_was_given_up_can_be_repeated_and_leaves_nothing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.storage.sqlite.intake.SUBMIT_PAGE", 100)
    plan = group(350)
    change, calls = store._change, []

    def failing(ids: int = 0) -> object:
        calls.append(ids)
        if len(calls) == 3:
            raise StoreUnavailable("cut")
        return change(ids)

    monkeypatch.setattr(store, "_change", failing)
    with pytest.raises(StoreUnavailable, match="cut"):
        store.submit(plan)

    assert store.submit(plan) is True
    while store.sweep().more:
        pass
    with store._db.read() as db:
        for table in ("message", "plan"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (351,)
    assert len(drain(store)) == 350
