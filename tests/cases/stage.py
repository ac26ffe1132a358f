# SPDX-License-Identifier: MIT
"""What the cases share: an app with a few tasks, and workers that do only what a test says.

Bodies run for real, by the executor of real workers; when something is fetched, and when what it
came to is settled, says the test. So every order that the world may bring can be had, each time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import msgspec

from flowq import FlowQ, Skip, current_task
from flowq.errors import Failure
from flowq.executor import Executor, Job, Lane
from flowq.message import Delivery, decode_message, id_text
from flowq.outcome import Outcome
from flowq.storage.base import Verdict
from flowq.testing import ManualClock

__all__ = ["Stage", "add_tasks", "states"]

LEASE = 30.0
"""Seconds for which a session has what it fetched, as the stores have it unless told."""


class Notes(msgspec.Struct):
    """What bodies did, and which of them are to fail."""

    calls: list[Any] = []
    broken: list[Any] = []


def add_tasks(q: FlowQ, notes: Notes) -> None:
    """Give an app the tasks of the cases; processes that are killed make their own."""

    @q.task(name="give")
    def give(x: Any = None) -> Any:
        """Give back what it gets, unless that is broken."""
        notes.calls.append(("give", x))
        if x in notes.broken:
            raise ValueError(f"{x} is broken")
        return x

    @q.task(name="pair")
    def pair(x: Any = None, y: Any = None) -> Any:
        notes.calls.append(("pair", x, y))
        return (x, y)

    @q.task(name="skip")
    def skip(x: Any = None) -> Any:
        raise Skip("not today")

    @q.task(name="numbers")
    def numbers(n: int) -> list[int]:
        notes.calls.append(("numbers", n))
        return list(range(n))

    @q.task(name="total")
    def total(xs: Any) -> Any:
        notes.calls.append(("total", len(xs)))
        return sum(x for x in xs if not isinstance(x, Failure))

    @q.task(name="alert")
    def alert(failure: Any, where: str) -> None:
        notes.calls.append(("alert", where, failure.node))

    @q.task(name="nest")
    def nest(depth: int) -> Any:
        """Become what is one level less deep, down to a number."""
        notes.calls.append(("nest", depth))
        tasks = q.tasks
        return tasks["nest"].s(depth - 1) | tasks["more"].s() if depth else 0

    @q.task(name="more")
    def more(x: int) -> int:
        notes.calls.append(("more", x))
        return x + 1

    @q.task(name="said")
    def said(x: Any = None) -> str:
        """Say which delivery this is."""
        notes.calls.append(("said", x))
        return f"delivery {current_task().deliveries}"


class Stage:
    """An app on one store, its workers by hand, and time that stands still."""

    def __init__(self, q: FlowQ, clock: ManualClock, kind: str) -> None:
        self.q = q
        self.clock = clock
        self.kind = kind
        self.notes = Notes()
        add_tasks(q, self.notes)
        self.lane = Lane(0)
        self.lane.thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        """A task of the app, by its name."""
        return self.q.tasks[name]

    @property
    def store(self) -> Any:
        return self.q.store

    @property
    def calls(self) -> list[Any]:
        """The calls of bodies, in their order."""
        return self.notes.calls

    def told(self, name: str) -> list[Any]:
        """The calls of one task."""
        return [call for call in self.calls if call[0] == name]

    def break_(self, *values: Any) -> None:
        """Let `give` fail for these from now on, and for nothing else."""
        self.notes.broken[:] = values

    # --- workers

    def fetch(self, want: int = 1, session: str = "w") -> list[Delivery]:
        """Hand out, and do nothing with it yet."""
        queues = self.q.queues()
        step = self.store.step(session, want=want, queues=queues)
        found: list[Delivery] = step.deliveries
        return found

    def body(self, delivery: Delivery) -> Outcome:
        """Run a body for real; nobody is told yet what it came to."""
        return Executor(self.q).run(self.lane, Job(delivery))

    def settle(self, *outcomes: Outcome, session: str = "w") -> list[Verdict]:
        """Tell what bodies came to."""
        verdicts: list[Verdict] = self.store.step(session, outcomes).verdicts
        return verdicts

    def do(self, *deliveries: Delivery, session: str = "w") -> None:
        """Run what was handed out, and tell it."""
        verdicts = self.settle(*(self.body(d) for d in deliveries), session=session)
        assert set(verdicts) <= {"settled"}

    def work(self, want: int = 1) -> None:
        """Run all that can run now, `want` at a time, in the order in which it is handed out."""
        executor, outcomes = Executor(self.q), list[Outcome]()
        while True:
            step = self.store.step("w", outcomes, want=want, queues=self.q.queues())
            outcomes = [executor.run(self.lane, Job(d)) for d in step.deliveries]
            if not outcomes and not step.ready and step.next_ms != 0:
                return

    def until(self, name: str, session: str = "w") -> Delivery:
        """Run what can run up to the node of that name, which is handed out and not run."""
        while True:
            (found,) = self.fetch(session=session)
            if decode_message(found.body).name == name:
                return found
            self.do(found, session=session)

    def lose(self, session: str = "w", also: Iterable[Delivery] = ()) -> None:
        """Let a worker die: its consumer tells what it was running."""
        lost = [d.id for d in also] or [d.id for d in self.store.held(session)]
        self.store.release(session, lost=lost, reason="killed")

    # --- runs

    def run(self, run: Any, want: int = 1) -> Any:
        """Run what was started to its end; time is put forward where it waits for that."""
        self.work(want)
        while not run.ready:
            wait = self.store.step("w").next_ms
            assert wait is not None, f"it stands still: {states(run)}"
            self.clock.advance(wait / 1000)
            self.work(want)
        self.sound(run)
        return run

    def sound(self, run: Any) -> None:
        """Check that what is counted of a run is what its nodes say."""
        assert self.store.check(run._id) == []

    def deliver(self, run: Any, *names: str, session: str = "w") -> list[Delivery]:
        """Fetch exactly these nodes, and give them in that order."""
        ids = [run.result(name).id for name in names]
        found = {id_text(d.id): d for d in self.fetch(len(names), session)}
        assert sorted(found) == sorted(ids)
        return [found[id] for id in ids]


def states(run: Any) -> dict[str, str]:
    """The states of a run's nodes, by name."""
    return {node.name: node.state for node in run.nodes()}
