# SPDX-License-Identifier: MIT
"""One worker, or several, that do everything in a random order, and much of it twice.

What is handed out is run by the real executor, so that expansions are real; which session fetches
or settles when, what is lost, and what is told again, is drawn.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple

from flowq.executor import Executor, Job, Lane
from flowq.message import Delivery, split_node
from flowq.outcome import GiveBack, Outcome, RetryAt
from flowq.plan import Kind, Phase, indexes
from flowq.states import State
from flowq.storage import Store
from flowq.storage.base import NodeInfo, Step
from flowq.testing import ManualClock
from tests.model.bodies import app, under

__all__ = ["Player", "is_between"]

SESSIONS = ("a", "b", "c")
LEASE_MS = 30_000
A_DAY_MS = 86_400_000
"""What is due later than this is never awaited."""
MOST = 2
"""Losses of one message: after a third it would be dead, if nothing else is said."""


UNDER_WAY = (State.QUEUED, State.SCHEDULED, State.HELD, State.RUNNING, State.EXPANDED)


BEGUN = (State.QUEUED, State.RUNNING, State.EXPANDED, State.SUCCESS, State.FAILED)


class _Held(NamedTuple):
    session: str
    delivery: Delivery


class Player:
    """Plays the runs of a store to their end.

    Parameters
    ----------
    make : callable
        Opens the store; again where it is closed in between.
    rand : Random
    chaos : float
        How likely it is that something goes wrong instead of a fetch or a settlement.

    Attributes
    ----------
    troubles : list of callable
        What may go wrong; each says whether it could.
    urge : callable
        Called when nothing is left to do; says whether it has brought about something.
    did : Counter of str
        How often each of them was done.
    """

    def __init__(
        self, make: Callable[[ManualClock], Store], rand: Random, chaos: float = 0.25
    ) -> None:
        self.clock = ManualClock()
        self.make = make
        self.store = make(self.clock)
        self.rand = rand
        self.chaos = chaos
        self.held: list[_Held] = []
        self.settled: list[tuple[str, Outcome]] = []
        self.ended: set[tuple[bytes, int]] = set()
        self.lane = Lane(0)
        self.lane.thread = threading.get_ident()
        self.paused: set[bytes] = set()
        self.did: Counter[str] = Counter()
        self.urge: Callable[[], bool] = lambda: False
        self.troubles: list[Callable[[], bool]] = [
            self.tell_any_again,
            self.lose,
            self.outlive,
            self.give_back,
            self.restart,
            self.keep_house,
            self.pause,
            self.resume,
            self.let_time_pass,
            self.look,
        ]

    def close(self) -> None:
        self.store.close()

    @contextmanager
    def on_stage(self) -> Iterator[None]:
        """Let the app have the store."""
        with app.aside(self.store, self.clock):
            yield

    # --- playing ---------------------------------------------------------------------------------

    def play(self, most: int = 5_000, *, partly: bool = False) -> None:
        """Go on until nothing is left that could be done, or for so many moves."""
        for _ in range(most):
            if self.rand.random() < self.chaos:
                trouble = self.rand.choice(self.troubles)
                self.did[trouble.__name__] += trouble()
            elif self.held and self.rand.random() < 0.6:
                self.settle()
            elif not self.fetch() and not self.held and self.done():
                return
        assert partly, f"no end after {most} moves"

    def step(self, session: str, outcomes: list[Outcome], want: int = 0) -> Step:
        step = self.store.step(session, outcomes, want=want, queues=app.queues(), lease_ms=LEASE_MS)
        begun = {d.id[:16] for d in step.deliveries}
        assert not begun & self.paused, "something of a paused run has begun"
        return step

    def fetch(self) -> bool:
        session = self.rand.choice(SESSIONS)
        step = self.step(session, [], self.rand.randint(1, 4))
        self.held += [_Held(session, d) for d in step.deliveries]
        return bool(step.deliveries)

    def settle(self) -> None:
        """Run something that is held, and settle it, maybe with others of its session."""
        first = self.rand.choice(self.held)
        batch = [h for h in self.held if h.session == first.session]
        self.rand.shuffle(batch)
        batch = batch[: self.rand.randint(1, 3)]
        outcomes = [self.outcome(h.delivery) for h in batch]
        self.held = [h for h in self.held if h not in batch]
        step = self.step(first.session, outcomes, self.rand.choice([0, 0, 2]))
        assert set(step.verdicts) == {"settled"}, step.verdicts
        self.held += [_Held(first.session, d) for d in step.deliveries]
        self.settled += [(first.session, x) for x in outcomes]
        self.end(outcomes)

    def end(self, outcomes: list[Outcome]) -> None:
        """See that no body ends twice in one generation, that of a handler among them."""
        for x in outcomes:
            if not isinstance(x, RetryAt):
                one = x.id, self.generation(x.id)
                assert one not in self.ended, f"{one} ends twice"
                self.ended.add(one)

    def generation(self, id: bytes) -> int:
        """Say how often a node was made to run again; never, if it is a task alone."""
        run, index = split_node(id) if len(id) > 16 else (id, 0)
        found = self.store.nodes(run, after=index - 1, limit=1)
        return found[0].generation if found else 0

    def outcome(self, delivery: Delivery) -> Outcome:
        under(self.generation(delivery.id))
        with self.on_stage():
            executor = Executor(app, interrupt=lambda _: None)
            return executor.run(self.lane, Job(delivery))

    def done(self) -> bool:
        """Whether nothing is left; else time goes on to when something is due."""
        while True:
            step = self.step("a", [], 0)
            if step.next_ms == 0:
                continue
            if step.ready:
                return False
            if step.next_ms is None or step.next_ms > A_DAY_MS or not self.store.status().scheduled:
                return not self.resume() and not self.urge()
            self.clock.advance(step.next_ms / 1000)

    def quiet(self) -> None:
        """Finish pages that earlier steps left."""
        while self.step("a", [], 0).next_ms == 0:
            pass

    # --- what changes nothing in the end ---------------------------------------------------------

    def tell_any_again(self) -> bool:
        if self.settled:
            self.tell_again(*self.rand.choice(self.settled))
        return bool(self.settled)

    def tell_again(self, session: str, outcome: Outcome) -> None:
        """Settle what is settled already, or was lost: nothing may change (the fourth law)."""
        self.quiet()
        before = self.picture()
        verdicts = self.step(self.rand.choice([session, *SESSIONS]), [outcome]).verdicts
        assert set(verdicts) <= {"repeated", "stale"}, verdicts
        assert self.picture() == before

    def lose(self) -> bool:
        """Let a session end with all that it held; it may settle something later all the same."""
        if not self.held:
            return False
        session = self.rand.choice(self.held).session
        lost = [h for h in self.held if h.session == session]
        self.held = [h for h in self.held if h.session != session]
        late = [(session, self.outcome(h.delivery)) for h in lost[:1]]
        counted = [
            h.delivery.id for h in lost if h.delivery.losses < MOST and self.rand.random() < 0.7
        ]
        self.store.release(session, lost=counted)
        for one in late:
            self.tell_again(*one)
        self.settled += late
        return True

    def outlive(self) -> bool:
        """Let the leases of all but one session pass."""
        alive = self.rand.choice(SESSIONS)
        dying = [h for h in self.held if h.session != alive]
        if not self.held or any(h.delivery.losses >= MOST for h in dying):
            return False
        for _ in range(2):
            self.clock.advance(LEASE_MS / 1000 * 0.7)
            self.store.renew([alive], lease_ms=LEASE_MS, period_ms=LEASE_MS)
        self.step(alive, [])
        known = {s for s in SESSIONS if self.store.held(s)}
        self.held = [h for h in self.held if h.session in known]
        return bool(dying)

    def give_back(self) -> bool:
        if not self.held:
            return False
        one = self.held.pop(self.rand.randrange(len(self.held)))
        self.step(one.session, [GiveBack(one.delivery.id, one.delivery.delivery)])
        return True

    def restart(self) -> bool:
        """Open the store again."""
        self.store.close()
        self.store = self.make(self.clock)
        return True

    def keep_house(self) -> bool:
        self.store.sweep()
        return True

    def pause(self) -> bool:
        """Pause a run: until it is resumed nothing of it begins, which `step` sees to."""
        for run in self.store.runs():
            state = self.store.pause(run.id)
            if state is not None and not state.final:
                self.paused.add(run.id)
        return bool(self.paused)

    def resume(self) -> bool:
        paused, self.paused = self.paused, set()
        for run in paused:
            self.store.resume(run)
        return bool(paused)

    def notice(self) -> None:
        """Look which runs are still paused: a cancel lets one go on."""
        known = {run.id for run in self.store.runs() if run.paused}
        self.paused &= known

    def let_time_pass(self) -> bool:
        """Let some seconds go by, so that something may be due while bodies run."""
        self.clock.advance(self.rand.choice([0.5, 2, 9]))
        self.store.renew(list(SESSIONS), lease_ms=LEASE_MS, period_ms=LEASE_MS)
        return True

    def look(self) -> bool:
        """See that no more items are under way than may be, and nothing that has to wait."""
        limited = False
        self.quiet()
        for run in self.store.runs():
            nodes = self.nodes(run.id)
            see_what_has_begun(nodes)
            for around in nodes:
                if not around.most:
                    continue
                items = [n for n in nodes if n.owner == around.index and n.phase == Phase.BODY]
                busy = [n.name for n in items if n.state in UNDER_WAY]
                assert len(busy) <= around.most, f"{around.name}: {busy} are under way"
                limited |= bool(busy)
        return limited

    # --- looking ---------------------------------------------------------------------------------

    def nodes(self, run: bytes) -> list[NodeInfo]:
        found: list[NodeInfo] = []
        while page := self.store.nodes(run, after=found[-1].index if found else -1):
            found += page
        return found

    def picture(self) -> Any:
        """All that is stored of runs."""
        return [(r, self.nodes(r.id), self.store.check(r.id)) for r in self.store.runs()]

    def check(self, run: bytes) -> dict[str, State]:
        """See that a run holds together; gives the states of its nodes by name, but for joins."""
        nodes = self.nodes(run)
        wrong = self.store.check(run)
        assert not wrong, wrong
        open_ = [n.name for n in nodes if not n.state.final]
        assert not open_, f"played to its end, and open are {open_}"
        return {n.name if n.index else "": n.state for n in nodes if not is_between(n)}


def see_what_has_begun(nodes: list[NodeInfo]) -> None:
    """See that what has begun has parents that have ended, so many as it awaits.

    What is parked has not, whatever it came to.
    """
    by = {n.index: n for n in nodes}
    for node in nodes:
        above = [by[i] for i in indexes(node.parents)]
        if not above or node.state not in BEGUN:
            continue
        begun = [by[i].index for i in indexes(node.follows) if by[i].state in BEGUN]
        there = sum(n.state.final or n.index in begun for n in above)
        wanted = len(above) if node.rule is None else node.rule.c
        assert there >= wanted, f"{node.name} is {node.state}, and {there} of {wanted} have ended"


def is_between(node: NodeInfo) -> bool:
    """Whether a node is none that was written, but stands between some that were."""
    return node.kind == Kind.JOIN and node.name.rpartition("/")[2].startswith("join")
