# SPDX-License-Identifier: MIT
"""A farm: one app on one store, real consumers to kill, and a journal of what bodies did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowq import FlowQ
from tests.faults.farm import make

ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], object], seconds: float = 20.0, what: str = "") -> None:
    """Wait for a condition; fail when it has not come in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what or f"not within {seconds:g} s"
        time.sleep(0.005)


class Consumer:
    """A ``flowq worker`` in a process of its own."""

    def __init__(self, farm: Farm, words: tuple[str, ...]) -> None:
        self._log = farm.folder / f"log-{len(farm.consumers)}"
        command = [sys.executable, "-m", "flowq", "worker", "tests.faults.farm:q", *words]
        keep = {k: v for k, v in os.environ.items() if not k.startswith("FLOWQ_")}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**keep, "FARM_URL": farm.url, "FARM_NAME": farm.name},
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def children(self) -> list[int]:
        """Give the worker processes that live."""
        pid = self.process.pid
        found = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(word) for path in found for word in path.read_text().split()]

    def kill(self) -> list[int]:
        """End the parent as a power cut would, and all its workers with it."""
        workers = self.children()
        os.kill(self.process.pid, signal.SIGSTOP)  # it starts no new ones meanwhile
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        return workers

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def wait(self, seconds: float = 30.0) -> int:
        return self.process.wait(seconds)


class Farm:
    """The app as the test sees it, and what runs its tasks."""

    def __init__(self, folder: Path, url: str, name: str) -> None:
        self.folder = folder
        self.url = url
        self.name = name
        self.journal = str(folder / "journal")
        self.consumers: list[Consumer] = []
        self.q: FlowQ = make(url, name)

    def start(self, *words: str) -> Consumer:
        consumer = Consumer(self, words)
        self.consumers.append(consumer)
        return consumer

    def call(self, task: str, *args: object, **options: object):  # type: ignore[no-untyped-def]
        """Enqueue a task by its short name."""
        return self.q.tasks[f"farm.{task}"].options(**options)(*args)

    def hold(self, word: str):  # type: ignore[no-untyped-def]
        """Enqueue a body that runs until `let_go`."""
        return self.call("hold", self.journal, word)

    def let_go(self, word: str) -> None:
        (self.folder / f"{word}.go").touch()

    def lines(self, word: str) -> list[list[str]]:
        """Give the journal's lines of a word: word, process, when."""
        path = Path(self.journal)
        rows = path.read_text().split("\n")[:-1] if path.exists() else []
        return [row.split() for row in rows if row.split()[0] == word]

    def until_noted(self, word: str, times: int = 1, seconds: float = 20.0) -> list[list[str]]:
        until(
            lambda: len(self.lines(word)) >= times,
            seconds,
            f"{word} not noted {times} times; logs:\n" + "\n".join(c.log for c in self.consumers),
        )
        return self.lines(word)

    def close(self) -> None:
        for consumer in self.consumers:
            if consumer.process.poll() is None:
                consumer.kill()
        self.q.store.close()


@pytest.fixture(params=["sqlite", "redis"])
def farm(request: pytest.FixtureRequest, tmp_path: Path, store_name: str) -> Iterator[Farm]:
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
    else:
        url = f"sqlite:///{tmp_path}/farm.db"
    made = Farm(tmp_path, url, store_name)
    yield made
    made.close()
