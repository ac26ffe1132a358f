# SPDX-License-Identifier: MIT
"""What a consumer refuses before it starts, and how it says that it cannot."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowq import ConfigError, FlowQ, StoreUnavailable
from flowq.consumer import Consumer


@pytest.fixture
def app(store_name: str) -> Iterator[FlowQ]:
    made = FlowQ(store_name, "memory://")
    made.task(name="double")(double)
    yield made
    made.store.close()


def double(a: int) -> int:
    return 2 * a


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "workers=0 must lie between 1 and"),
        ({"workers": True}, "workers=True must be a whole number"),
        ({"workers": 2.0}, "workers=2.0 must be a whole number"),
        ({"kind": "greenlet"}, "kind='greenlet' must be 'thread' or 'process'"),
        ({"lease": 0.5}, "lease=0.5 must lie between 1 and 86400 seconds"),
        ({"shutdown_timeout": -1}, "shutdown_timeout=-1 must be 0 or more seconds"),
        ({"shutdown_timeout": float("nan")}, "shutdown_timeout=nan must be 0 or more seconds"),
        ({"queues": "mail"}, "queues='mail' must be a list of names"),
        ({"queues": ["a b"]}, "queue"),
    ],
    ids=str,
)
def test_an_option_out_of_its_range_is_named_with_its_range(
    app: FlowQ, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        app.consumer(**options)

    assert said in str(caught.value)


def test_a_consumer_is_started_once(app: FlowQ) -> None:
    with app.consumer() as consumer, pytest.raises(ConfigError, match="make another one"):
        consumer.start()


def test_stopping_one_that_never_began_does_nothing(app: FlowQ) -> None:
    consumer = app.consumer()

    consumer.stop()

    assert consumer.join(0)


def test_an_app_without_tasks_is_told_how_tasks_are_found() -> None:
    with pytest.raises(ConfigError, match="knows no task; import the modules"):
        FlowQ("empty", "memory://").consumer().start()


def test_worker_processes_for_a_store_in_memory_are_refused(app: FlowQ) -> None:
    with pytest.raises(ConfigError, match=r"memory:// lives in one process.*kind='thread'"):
        app.consumer(kind="process").start()


def test_an_app_that_worker_processes_could_not_find_is_refused(tmp_path: Path) -> None:
    hidden = FlowQ("hidden", f"sqlite:///{tmp_path}/q.db")
    hidden.task(name="double")(double)

    with pytest.raises(ConfigError, match="keep it in a global variable of a module"):
        hidden.consumer(kind="process").start()

    hidden.store.close()


def test_an_app_that_was_typed_in_has_no_file_for_worker_processes(tmp_path: Path) -> None:
    typed = FlowQ("typed", f"sqlite:///{tmp_path}/q.db")
    typed.task(name="double")(double)

    with pytest.raises(ConfigError, match="put the tasks into a module"):
        Consumer(typed, kind="process", path="__main__:typed").start()

    typed.store.close()


def test_a_start_without_a_store_fails_at_once_and_can_be_repeated(tmp_path: Path) -> None:
    away = FlowQ("away", f"unix://{tmp_path}/nobody.sock")
    away.task(name="double")(double)
    consumer = away.consumer()

    for _ in range(2):  # not "was started already": it was not
        with pytest.raises(StoreUnavailable):
            consumer.start()


def test_running_without_a_store_gives_4_and_says_where_to_look(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = FlowQ("away", f"unix://{tmp_path}/nobody.sock")
    away.task(name="double")(double)

    with caplog.at_level(logging.ERROR, "flowq"):
        status = away.consumer().run()

    assert status == 4
    assert "the store cannot be used" in caplog.text and "FLOWQ_URL" in caplog.text


def test_running_without_tasks_gives_2(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "flowq"):
        status = FlowQ("empty", "memory://").consumer().run()

    assert status == 2
    assert "knows no task" in caplog.text


def test_running_in_memory_works_in_threads_of_this_process(app: FlowQ) -> None:
    results = [app.tasks["double"](i) for i in range(20)]

    status = app.consumer(workers=2, drain=True).run()

    assert status == 0
    assert [r.get() for r in results] == [2 * i for i in range(20)]


def test_a_signal_that_another_thread_takes_is_heard_at_once() -> None:
    """The system gives it to any of them; so it does where the main thread has one already."""
    code = """
import signal, sys, threading, time
from flowq import FlowQ

q = FlowQ("signals", "memory://")
q.task(int)

def take():
    while not q.store.sessions():  # the consumer has begun
        time.sleep(0.01)
    time.sleep(0.2)  # and its main thread waits
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

threading.Thread(target=take, daemon=True).start()
sys.exit(q.consumer().run())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert ended.returncode == 0, ended.stderr
