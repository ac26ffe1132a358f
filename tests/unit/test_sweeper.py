# SPDX-License-Identifier: MIT
"""The housekeeping goes on by itself, whatever happens to it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from flowq.errors import StoreUnavailable
from flowq.message import Message, new_id, pack_cell
from flowq.outcome import Done
from flowq.states import State
from flowq.storage import open_store
from flowq.sweeper import Sweeper
from flowq.testing import ManualClock


@contextmanager
def sweeping(store: Any) -> Iterator[None]:
    sweeper = Sweeper(store, period=0.01)
    sweeper.start()
    try:
        yield
    finally:
        sweeper.stop()


class Script:
    """A store whose parts of the housekeeping end one after the other as was said."""

    def __init__(self, *ends: Callable[[], bool]) -> None:
        self.ends = list(ends)
        self.done = threading.Event()

    def sweep(self) -> Any:
        if not self.ends:
            self.done.set()
            return SimpleNamespace(more=False)
        return SimpleNamespace(more=self.ends.pop(0)())


def away() -> bool:
    raise StoreUnavailable("gone for a while")


def defect() -> bool:
    raise ZeroDivisionError("ours")


def test_what_has_had_its_time_goes_without_being_asked_for() -> None:
    clock = ManualClock()
    store = open_store("memory://", clock=clock)
    store.enqueue([message := Message(new_id(), "t", b"P", result_ttl_ms=1_000)])
    (delivery,) = store.step("a", want=1).deliveries
    cell = pack_cell(State.SUCCESS, b"x", ended_ms=clock.now_ms())
    store.step("a", [Done(message.id, delivery.delivery, cell)])
    swept = threading.Event()
    sweep = store.sweep

    def told(*args: Any, **kwargs: Any) -> Any:
        found = sweep(*args, **kwargs)
        if found.expired:
            swept.set()
        return found

    store.sweep = told  # type: ignore[method-assign]
    clock.advance(86_400 * 60)

    with sweeping(store):
        assert swept.wait(20)

    assert store.look([message.id]) == [None]
    store.close()


def test_a_store_that_is_away_is_swept_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    store = Script(away, away, lambda: True)

    with caplog.at_level(logging.DEBUG, "flowq"), sweeping(store):
        assert store.done.wait(20)

    assert "the housekeeping waits: gone for a while" in caplog.text
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_defect_is_told_with_its_traceback_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Script(defect, lambda: True)

    with caplog.at_level(logging.DEBUG, "flowq"), sweeping(store):
        assert store.done.wait(20)

    (told,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert told.exc_info is not None and told.exc_info[0] is ZeroDivisionError


def test_stopping_ends_a_long_housekeeping_after_one_part() -> None:
    begun = threading.Event()

    def endless() -> Any:
        begun.set()
        return SimpleNamespace(more=True)

    with sweeping(SimpleNamespace(sweep=endless)):
        assert begun.wait(20)

    assert not any(t.name == "flowq-sweeper" for t in threading.enumerate())
