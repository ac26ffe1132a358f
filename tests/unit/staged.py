# SPDX-License-Identifier: MIT
"""What tests of policies share: runs that are carried out here, to their end, on any store."""

from __future__ import annotations

import threading
from typing import Any

from flowq import FlowQ
from flowq.executor import Executor, Job, Lane
from flowq.outcome import Outcome
from flowq.storage import open_store
from flowq.testing import ManualClock
from flowq.testing.model import ModelStore

__all__ = ["Stage", "states", "store_of"]


class Stage:
    """Runs graphs of an app to their end, one after the other."""

    def __init__(self, app: FlowQ, calls: list[Any]) -> None:
        self.app = app
        self.calls = calls
        self.kind = ""

    def work(self) -> int:
        """Run what is there and whatever it leads to, in the order in which it is handed out.

        Gives the number of steps that it took.
        """
        executor, lane = Executor(self.app), Lane(0)
        lane.thread = threading.get_ident()
        outcomes: list[Outcome] = []
        steps = 0
        while True:
            steps += 1
            step = self.app.store.step("w", outcomes, want=1, queues=self.app.queues())
            outcomes = [executor.run(lane, Job(d)) for d in step.deliveries]
            if not outcomes and not step.ready and step.next_ms != 0:
                return steps

    def step(self) -> None:
        """Run one task that is ready."""
        executor, lane = Executor(self.app), Lane(0)
        lane.thread = threading.get_ident()
        step = self.app.store.step("w", want=1, queues=self.app.queues())
        outcomes = [executor.run(lane, Job(d)) for d in step.deliveries]
        self.app.store.step("w", outcomes, queues=self.app.queues())

    def start(self, started: Any) -> Any:
        """Start what is given, or take what was started of it."""
        if hasattr(type(started), "start"):
            self.calls.clear()
            started = started.start()
        return started

    def run(self, started: Any) -> Any:
        """Run what is given, or what was started of it, to its end; time is put forward for it."""
        started = self.start(started)
        self.work()
        while not started.ready and isinstance(self.app.clock, ManualClock):
            wait = self.app.store.step("w").next_ms
            assert wait is not None
            self.app.clock.advance(wait / 1000)
            self.work()
        assert started.ready
        if hasattr(started, "nodes"):
            assert self.app.store.check(started._id) == []
        return started

    def value(self, composition: Any) -> Any:
        """The value of a run that succeeds."""
        run = self.run(composition)
        assert run.state == "success"
        return run.get()

    def told(self, name: str) -> list[Any]:
        """The calls of a task, of the last run."""
        return [call for call in self.calls if call[0] == name]


def store_of(kind: str, app: FlowQ, name: str, path: Any, redis_url: Any) -> Any:
    """Open a store of a kind; `redis_url` is asked only if it is needed."""
    if kind == "model":
        return ModelStore(app.clock)
    url = redis_url() if kind == "redis" else f"sqlite:///{path}/q.db?synchronous=normal"
    return open_store(url, name=name, clock=app.clock)


def states(run: Any) -> dict[str, str]:
    """The states of a run's nodes, by name."""
    return {node.name: node.state for node in run.nodes()}
