# SPDX-License-Identifier: MIT
"""Sessions: who is dead, what is taken back from them at a start, and how they are renewed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flowq.errors import StoreUnavailable
from flowq.leases import HIDDEN, Leases, boot_id, is_alive, process_start, release_dead
from flowq.message import Message, new_id
from flowq.states import State
from flowq.storage import Store, open_store
from flowq.storage.base import SessionInfo


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.002)


@pytest.fixture
def store(store_name: str) -> Iterator[Store]:
    made = open_store("memory://", name=store_name)
    yield made
    made.close()


@pytest.fixture
def dead() -> tuple[int, str]:
    """A process that has ended, and when it began."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = process_start(process.pid)
    process.communicate(b"\n")
    return process.pid, began


@pytest.fixture
def alive() -> tuple[int, str]:
    return os.getppid(), process_start(os.getppid())


def hold(store: Store, who: tuple[int, str], **more: Any) -> Message:
    """Let a session of that process hold a message."""
    message = Message(id=new_id(), task="t", payload=b"")
    store.enqueue([message])
    info = SessionInfo(**{"id": "w-1", "boot": boot_id(), **more}, pid=who[0], pid_started=who[1])
    store.open_session(info)
    assert [d.id for d in store.step("w-1", want=1).deliveries] == [message.id]
    return message


def standing(store: Store, message: Message) -> tuple[State, int]:
    [look] = store.look([message.id])
    assert look is not None
    return look.state, look.losses


def test_a_process_is_told_from_a_later_one_of_the_same_number(
    dead: tuple[int, str], alive: tuple[int, str]
) -> None:
    assert is_alive(*alive)
    assert not is_alive(alive[0], "another time")
    assert not is_alive(*dead)


def test_a_dead_worker_whose_number_is_now_ours_is_dead(store: Store) -> None:
    message = hold(store, (os.getpid(), "another time"))

    assert release_dead(store) == 1

    assert standing(store, message) == (State.QUEUED, 1)


def test_a_process_that_the_system_hides_is_not_thought_dead(
    alive: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Path.read_text

    def hiding(self: Path, *args: Any, **more: Any) -> str:
        if self == Path(f"/proc/{alive[0]}/stat"):
            raise FileNotFoundError(self)
        return honest(self, *args, **more)

    monkeypatch.setattr(Path, "read_text", hiding)

    assert process_start(alive[0]) == HIDDEN
    assert is_alive(*alive)


def test_a_dead_worker_that_nobody_watched_may_have_died_of_its_task(
    store: Store, dead: tuple[int, str]
) -> None:
    message = hold(store, dead)

    assert release_dead(store) == 1

    assert standing(store, message) == (State.QUEUED, 1)


def test_a_worker_that_died_with_its_parent_blames_nothing(
    store: Store, dead: tuple[int, str]
) -> None:
    message = hold(store, dead, parent=dead[0], parent_started=dead[1])

    assert release_dead(store) == 1

    assert standing(store, message) == (State.QUEUED, 0)


def test_a_dead_worker_whose_parent_lives_is_left_to_it(
    store: Store, dead: tuple[int, str], alive: tuple[int, str]
) -> None:
    message = hold(store, dead, parent=alive[0], parent_started=alive[1])

    assert release_dead(store) == 0

    assert standing(store, message) == (State.RUNNING, 0)


@pytest.mark.parametrize("boot", ["another boot", ""])
def test_sessions_of_other_machines_are_left_alone(
    store: Store, dead: tuple[int, str], boot: str
) -> None:
    message = hold(store, dead, boot=boot)

    assert release_dead(store) == 0

    assert standing(store, message) == (State.RUNNING, 0)


def test_living_workers_are_left_alone(store: Store, alive: tuple[int, str]) -> None:
    message = hold(store, alive)

    assert release_dead(store) == 0

    assert standing(store, message) == (State.RUNNING, 0)


class Shaky:
    """A store whose calls fail some times first."""

    def __init__(self, store: Store, **failing: int) -> None:
        self._store = store
        self._failing = failing
        self.renewed: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _fail(self, name: str) -> None:
        if self._failing.get(name):
            self._failing[name] -= 1
            raise StoreUnavailable("away")

    def renew(self, sessions: Sequence[str], **more: Any) -> Any:
        self.renewed.append(time.monotonic())
        self._fail("renew")
        return self._store.renew(sessions, **more)

    def release(self, session: str, **more: Any) -> int:
        self._fail("release")
        return self._store.release(session, **more)


def test_leases_are_renewed_every_third_of_their_time_also_after_an_error(store: Store) -> None:
    shaky = Shaky(store, renew=2)
    leases = Leases(shaky, 0.3)  # type: ignore[arg-type]
    store.open_session(SessionInfo(id="w-1"), lease_ms=300)
    leases.add("w-1", lambda ids: None, lambda: None)
    leases.start()

    until(lambda: len(shaky.renewed) >= 8)

    assert [s.id for s in store.sessions()] == ["w-1"]
    leases.stop()
    first, last = shaky.renewed[0], shaky.renewed[-1]
    assert last - first > 0.05 * (len(shaky.renewed) - 1)


def test_a_cancel_reaches_a_busy_worker_long_before_its_lease_is_renewed(store: Store) -> None:
    message = hold(store, (os.getpid(), process_start(os.getpid())))
    told: list[bytes] = []
    leases = Leases(store, 3600.0, busy=lambda: True)
    leases.add("w-1", told.extend, lambda: None)
    leases.start()

    store.cancel([message.id])

    until(lambda: message.id in told, 3.0)
    leases.stop()


def test_a_session_that_was_given_up_is_opened_again(store: Store) -> None:
    info = SessionInfo(id="w-1")
    lost: list[int] = []

    def reopen() -> None:
        lost.append(1)
        store.open_session(info)

    store.open_session(info)
    leases = Leases(store, 0.1)
    leases.add("w-1", lambda ids: None, reopen)
    leases.start()
    until(lambda: "w-1" in leases._seen)

    store.release("w-1")

    until(lambda: lost and [s.id for s in store.sessions()] == ["w-1"])
    leases.stop()
    assert lost == [1]


def test_a_session_that_its_worker_has_yet_to_open_is_not_lost(store: Store) -> None:
    shaky, lost = Shaky(store), []
    leases = Leases(shaky, 0.1)  # type: ignore[arg-type]
    leases.add("w-later", lambda ids: None, lambda: lost.append(1))
    leases.start()

    until(lambda: len(shaky.renewed) >= 3)

    leases.stop()
    assert lost == []


def test_a_release_waits_for_a_store_that_is_away(store: Store, dead: tuple[int, str]) -> None:
    message = hold(store, dead)
    leases = Leases(Shaky(store, release=3), 0.1)  # type: ignore[arg-type]
    leases.start()

    leases.release("w-1", lost=[message.id], reason="SIGKILL")

    until(lambda: standing(store, message) == (State.QUEUED, 1))
    leases.stop()
