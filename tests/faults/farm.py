# SPDX-License-Identifier: MIT
"""The app whose workers the tests kill. Bodies write what they do into a journal on disk."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Any

from flowq import FlowQ, current_task, group
from tests.faults.growing import add_growing


def note(journal: str, word: str) -> None:
    """Append a line in one write, so that processes do not mix theirs."""
    line = f"{word} {os.getpid()} {time.time():.3f}\n".encode()
    with open(journal, "ab", buffering=0) as file:
        file.write(line)


class Unfit(Exception):
    """An exception that nothing can pickle."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Bomb:
    """A value that ends the process of whoever reads it."""

    def __reduce__(self) -> Any:
        return os._exit, (9,)


def make(url: str, name: str) -> FlowQ:
    """Give the app; the test and its workers each make their own."""
    q = FlowQ(name, url)

    @q.task(name="farm.mark")
    def mark(journal: str, word: str) -> str:
        note(journal, word)
        return word

    @q.task(name="farm.hold")
    def hold(journal: str, word: str) -> str:
        """Run until the file beside the journal exists."""
        note(journal, f"{word}:begin")
        while not Path(journal).with_name(f"{word}.go").exists():
            time.sleep(0.005)
        note(journal, f"{word}:end")
        return word

    @q.task(name="farm.die", max_losses=2)
    def die(journal: str) -> None:
        note(journal, "die")
        os._exit(13)

    @q.task(name="farm.leave")
    def leave(status: int) -> None:
        os._exit(status)

    @q.task(name="farm.fork")
    def fork(journal: str) -> int:
        """The child comes back from the body as well."""
        note(journal, "fork")
        if child := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return 0

    @q.task(name="farm.hop")
    def hop(journal: str, word: str, so_far: list[str]) -> list[str]:
        note(journal, word)
        time.sleep(0.03)  # long enough to be killed in
        return [*so_far, word]

    @q.task(name="farm.flaky")
    def flaky(word: str) -> str:
        """Fail at the first attempt."""
        if current_task().attempt == 1:
            raise ValueError(word)
        return word

    @q.task(name="farm.gather")
    def gather(journal: str, words: list[str]) -> int:
        note(journal, "gather")
        return len(words)

    @q.task(name="farm.greedy")
    def greedy(journal: str, seconds: int) -> str:
        """Keep the interpreter to itself: PyDLL, unlike CDLL, lets nobody else run."""
        note(journal, "greedy")
        ctypes.PyDLL(None).sleep(seconds)
        return "let go"

    @q.task(name="farm.sleeper")
    def sleeper(journal: str) -> None:
        note(journal, "sleeper")
        try:
            time.sleep(60)
        finally:
            note(journal, f"interrupted:{current_task().cancelled}")

    @q.task(name="farm.lock")
    def lock() -> Any:
        return threading.Lock()

    @q.task(name="farm.unfit")
    def unfit() -> None:
        raise Unfit("as it was")

    @q.task(name="farm.starter", max_losses=100)
    def starter(journal: str) -> list[str]:
        """Start tasks and runs, and run until the file beside the journal exists."""
        note(journal, "starter")
        group_of = group(mark.s(journal, "in-run"), mark.s(journal, "in-run"))
        made: list[Any] = [mark(journal, "child"), mark(journal, "child"), group_of.start()]
        made.append(mark.map([journal], word="in-map"))
        note(journal, "started")
        while not Path(journal).with_name("starter.go").exists():
            time.sleep(0.005)
        return [x.id for x in made]

    @q.task(name="farm.fragile", max_losses=0)
    def fragile(journal: str) -> None:
        note(journal, "fragile")
        time.sleep(60)

    add_growing(q, note)
    return q


q = make(os.environ["FARM_URL"], os.environ["FARM_NAME"]) if "FARM_URL" in os.environ else None
