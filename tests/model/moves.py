# SPDX-License-Identifier: MIT
"""What is done in a random history: each move is told to a store and to the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from flowq.message import Delivery, Message, node_id, pack_cell
from flowq.outcome import (
    Cancelled,
    Done,
    Expand,
    Failed,
    GiveBack,
    Outcome,
    RetryAt,
    Skipped,
    Unknown,
)
from flowq.plan import NodeRow, Plan
from flowq.states import State
from flowq.storage import Store
from flowq.storage.base import MEMORY_OF_ENDED_MS, SessionInfo, Step
from flowq.testing import ManualClock
from flowq.testing.model import ModelStore
from tests.model.drawn import ALONG, FRAGMENTS, QUEUES, SESSIONS, SIGNALS, ids, messages, plans
from tests.model.numbered import Numbered
from tests.model.plain import plain_deliveries, same

__all__ = ["Moves"]


kinds_of_ends = st.integers(0, 9 + len(FRAGMENTS) + len(ALONG))
"""What attempts come to, see `Moves.outcome`."""


# Named, for Hypothesis describes a condition each time that it asks: of a lambda by parsing its
# source, which old versions do anew each time (nine tenths of the whole test).
def something_is_known(moves: Moves) -> bool:
    return bool(moves.tasks or moves.plans)


def something_was_called(moves: Moves) -> bool:
    return bool(moves.tasks)


def something_was_started(moves: Moves) -> bool:
    return bool(moves.plans)


def something_runs(moves: Moves) -> bool:
    return bool(moves.running())


def something_was_settled(moves: Moves) -> bool:
    return bool(moves.outcomes)


class Moves(RuleBasedStateMachine):
    """One real store and the model, both told the same."""

    make: Callable[[ManualClock], Store]
    lacks: frozenset[str] = frozenset()
    """What the store has not yet."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.real = Numbered(type(self).make(self.clock))
        self.model = ModelStore(self.clock)
        self.began = self.clock.now_ms()
        self.made = 0
        self.tasks: list[Message] = []
        self.plans: list[Plan] = []
        self.outcomes: list[tuple[str, Outcome]] = []

    def teardown(self) -> None:
        self.real.close()

    # --- telling both ---------------------------------------------------------------------------

    def both(self, what: Callable[[Any], Any]) -> Any:
        """Tell both the same, and hear the same."""
        real = what(self.real)
        model = what(self.model)
        same(real, model)
        return real

    def new_id(self) -> bytes:
        """Give an id that says when it was made, as those of version 7 do."""
        self.made += 1
        return self.clock.now_ms().to_bytes(6, "big") + (7 << 76 | self.made).to_bytes(10, "big")

    def known(self) -> list[bytes]:
        """Tasks and nodes, but for roots."""
        nodes = [node_id(p.id, i) for p in self.plans for i in range(1, len(p.rows))]
        grown = [
            node_id(run, info.index)
            for run, count in self.runs()
            for info in self.model.nodes(run, after=count - 1)
        ]
        return [m.id for m in self.tasks] + nodes + grown

    def runs(self) -> list[tuple[bytes, int]]:
        """All that were started, and what tasks alone have become, with their nodes at first."""
        started = [(p.id, len(p.rows)) for p in self.plans]
        return started + [(m.id, 1) for m in self.tasks if self.model.run(m.id)]

    def step(self, session: str, outcomes: Iterable[Outcome], **how: Any) -> Step:
        outcomes = list(outcomes)
        known = self.known()
        open_ = [id for id in known if (x := self.model.look([id])[0]) and x.state < State.EXPANDED]
        real = self.real.step(session, outcomes, **how)
        # what expired and has a fallback goes on as an expansion; what is held came first too
        ended = [
            x is None or x.state >= State.EXPANDED or x.state == State.HELD
            for x in self.real.look(open_)
        ]
        expired = [id for id, end in zip(open_, ended, strict=True) if end]
        # nothing that the store might have handed out beside them came next, so it was one of these
        alone = [t.id for t in self.model._things() if t.message and t.message.prefetch]
        first = [*expired, *(d.id for d in real.deliveries)]
        self.model.prefer([*first, *(id for id in alone if id not in first)])
        model = self.model.step(session, outcomes, **how)
        same([d.id for d in real.deliveries], [d.id for d in model.deliveries])
        same(plain_deliveries(real.deliveries), plain_deliveries(model.deliveries))
        same(sorted(real.stops), sorted(model.stops))
        others: dict[str, Any] = {"deliveries": [], "stops": []}
        same(msgspec.structs.replace(real, **others), msgspec.structs.replace(model, **others))
        return real

    @initialize(calls=st.lists(messages(), min_size=2, max_size=5), rows=plans())
    def begin(self, calls: list[dict[str, Any]], rows: list[NodeRow]) -> None:
        self.enqueue(calls)
        self.submit(rows)

    # --- moves ----------------------------------------------------------------------------------

    @rule(calls=st.lists(messages(), min_size=1, max_size=4))
    def enqueue(self, calls: list[dict[str, Any]]) -> None:
        new = [Message(self.new_id(), "t", b"P", **call) for call in calls]
        self.tasks += new
        assert all(self.both(lambda store: store.enqueue(new)))

    @precondition(something_was_called)
    @rule(which=ids, call=messages())
    def enqueue_again(self, which: int, call: dict[str, Any]) -> None:
        new = Message(self.new_id(), "t", b"P", **call)
        old = self.tasks[which % len(self.tasks)]
        self.tasks.append(new)
        self.both(lambda store: store.enqueue([old, new, new]))

    @rule(rows=plans())
    def submit(self, rows: list[NodeRow]) -> None:
        plan = Plan(self.new_id(), "p", rows, result_ttl_ms=700_000)
        self.plans.append(plan)
        assert self.both(lambda store: store.submit(plan))

    @precondition(something_was_started)
    @rule(which=ids)
    def submit_again(self, which: int) -> None:
        plan = self.plans[which % len(self.plans)]
        if self.model.run(plan.id):
            assert not self.both(lambda store: store.submit(plan))

    @rule(
        session=st.sampled_from(SESSIONS),
        want=st.sampled_from([1, 2, 5, 100]),
        queues=st.sampled_from([("default", "other"), ("other", "default"), ("default",)]),
    )
    def take(self, session: str, want: int, queues: tuple[str, ...]) -> None:
        self.step(session, (), want=want, queues=queues)

    @precondition(something_runs)
    @rule(
        kinds=st.lists(kinds_of_ends, min_size=1, max_size=6),
        which=ids,
        want=st.sampled_from([0, 1, 3]),
    )
    def settle(self, kinds: list[int], which: int, want: int) -> None:
        """Settle some of what a session holds, in random ways, and take more."""
        busy = sorted({session for session, _ in self.running()})
        session = busy[which % len(busy)]
        held = [d for who, d in self.running() if who == session]
        outcomes = [self.outcome(d, kind) for d, kind in zip(held, kinds, strict=False)]
        self.outcomes += [(session, o) for o in outcomes]
        step = self.step(session, outcomes, want=want, queues=QUEUES)
        assert step.verdicts == ["settled"] * len(outcomes)

    def running(self) -> list[tuple[str, Delivery]]:
        """What is held by whom."""
        held = [(session, d) for session in SESSIONS for d in self.model.held(session)]
        return sorted(held, key=lambda x: (x[0], x[1].id))

    @rule(
        rounds=st.lists(
            st.tuples(
                st.sampled_from(SESSIONS),
                st.sampled_from([1, 2, 3, 100]),
                st.sampled_from([0, 0, 0.5, 3]),
                st.lists(kinds_of_ends, min_size=3, max_size=3),
            ),
            min_size=3,
            max_size=12,
        )
    )
    def work(self, rounds: list[tuple[str, int, float, list[int]]]) -> None:
        """Sessions take turns: each settles what it held, in random ways, and takes more."""
        for session, want, seconds, kinds in rounds:
            held = [d for who, d in self.running() if who == session]
            outcomes = [self.outcome(d, kind) for d, kind in zip(held, kinds, strict=False)]
            self.outcomes += [(session, o) for o in outcomes]
            step = self.step(session, outcomes, want=want, queues=QUEUES)
            assert step.verdicts == ["settled"] * len(outcomes)
            self.pass_time(seconds)

    @rule(
        session=st.sampled_from(SESSIONS),
        kinds=st.lists(st.sampled_from([0, 0, 0, 3, 3, 6]), min_size=1, max_size=5),
    )
    def work_through(self, session: str, kinds: list[int]) -> None:
        """Let one session do all that it is given, well or not, so that runs come to their end."""
        done = 0
        for _ in range(30):
            held = self.model.held(session)
            outcomes = [self.outcome(d, kinds[(done + i) % len(kinds)]) for i, d in enumerate(held)]
            done += len(held)
            self.outcomes += [(session, o) for o in outcomes]
            if not self.step(session, outcomes, want=100, queues=QUEUES).deliveries:
                return

    def along(self, id: bytes, kind: int) -> list[NodeRow]:
        """What a node becomes whose items go along with others; nothing, where there are none."""
        return []

    def outcome(self, d: Delivery, kind: int) -> Outcome:
        now = self.clock.now_ms()

        def cell(state: State) -> bytes:
            return pack_cell(state, b"x", delivery=d.delivery, started_ms=now - 1, ended_ms=now)

        ways: list[Callable[[], Outcome]] = [
            lambda: Done(d.id, d.delivery, cell(State.SUCCESS)),
            lambda: Done(d.id, d.delivery, cell(State.SUCCESS)),
            lambda: Done(d.id, d.delivery, cell(State.SUCCESS)),
            lambda: Failed(d.id, d.delivery, cell(State.FAILED)),
            lambda: Failed(d.id, d.delivery, cell(State.FAILED), "payload"),
            lambda: RetryAt(d.id, d.delivery, 0 if d.attempt % 2 else 3_000),
            lambda: Skipped(d.id, d.delivery, cell(State.SKIPPED)),
            lambda: Cancelled(d.id, d.delivery, cell(State.CANCELLED)),
            lambda: GiveBack(d.id, d.delivery),
            lambda: Unknown(d.id, d.delivery, cell(State.FAILED)),
        ]
        if kind >= len(ways):
            rows = self.along(d.id, kind % len(ALONG)) if kind % 4 else []
            return Expand(d.id, d.delivery, rows or FRAGMENTS[kind % len(FRAGMENTS)])
        return ways[kind]()

    @precondition(something_was_settled)
    @rule(which=st.lists(ids, min_size=1, max_size=3), other=st.booleans(), session=ids)
    def say_again(self, which: list[int], other: bool, session: int) -> None:
        """Repeat what was said, or say it as somebody else."""
        said = [self.outcomes[-1 - i % min(20, len(self.outcomes))] for i in which]
        name = SESSIONS[session % 3] if other else said[0][0]
        outcomes = [o for who, o in said if other or who == name]
        verdicts = self.step(name, outcomes).verdicts
        assert "settled" not in verdicts

    @rule(session=st.sampled_from(SESSIONS), host=st.sampled_from(["h", "i"]))
    def open_session(self, session: str, host: str) -> None:
        self.both(lambda store: store.open_session(SessionInfo(session, host=host, pid=7)))

    @rule(which=st.sets(st.sampled_from([*SESSIONS, "nobody"])))
    def renew(self, which: set[str]) -> None:
        def told(store: Store) -> Any:
            return [x and sorted(x) for x in store.renew(sorted(which))]

        self.both(told)

    @precondition(something_runs)
    @rule(which=ids, some=st.sampled_from([1, 1, 2]), first=st.sampled_from([0, 0, 1]))
    def lose(self, which: int, some: int, first: int) -> None:
        """End a session that was running all that it held, or some, or nothing."""
        busy = sorted({session for session, _ in self.running()})
        session = busy[which % len(busy)]
        lost = [d.id for who, d in self.running() if who == session][first::some]
        self.both(lambda store: store.release(session, lost=lost, reason="SIGKILL"))

    @rule(session=st.sampled_from(SESSIONS))
    def release(self, session: str) -> None:
        self.both(lambda store: store.release(session))

    @precondition(something_is_known)
    @rule(which=st.lists(ids, min_size=1, max_size=3), force=st.booleans())
    def cancel(self, which: list[int], force: bool) -> None:
        known = self.known()
        chosen = [known[-1 - i % len(known)] for i in which]
        self.both(lambda store: store.cancel(chosen, force=force))

    @precondition(something_was_started)
    @rule(which=st.lists(ids, min_size=1, max_size=2), force=st.sampled_from([False, False, True]))
    def cancel_runs(self, which: list[int], force: bool) -> None:
        runs = self.runs()
        chosen = [runs[i % len(runs)][0] for i in which]
        self.both(lambda store: store.cancel(chosen, force=force))

    @precondition(something_runs)
    @rule(which=ids)
    def cancel_what_runs(self, which: int) -> None:
        running = self.running()
        chosen = running[which % len(running)][1].id
        self.both(lambda store: store.cancel([chosen]))

    @precondition(something_was_started)
    @rule(
        which=ids,
        name=st.sampled_from(SIGNALS),
        to=st.sampled_from(["", "", "", "n1", "n2"]),
        key=st.sampled_from(["", "", "k"]),
    )
    def send(self, which: int, name: str, to: str, key: str) -> None:
        run, _ = self.runs()[which % len(self.runs())]
        self.both(lambda store: store.send(run, name, b"sent", to=to, key=key, who="me"))

    @precondition(something_was_started)
    @rule(which=ids)
    def pause(self, which: int) -> None:
        run, _ = self.runs()[which % len(self.runs())]
        self.both(lambda store: store.pause(run))

    @precondition(something_was_started)
    @rule(which=ids)
    def resume(self, which: int) -> None:
        run, _ = self.runs()[which % len(self.runs())]
        self.both(lambda store: store.resume(run))

    @precondition(something_is_known)
    @rule(which=ids, delay=st.sampled_from([0, 1_000, 20_000]), at=st.booleans())
    def reschedule(self, which: int, delay: int, at: bool) -> None:
        known = self.known()
        id = known[which % len(known)]
        when = {"due_ms": self.clock.now_ms() + delay} if at else {"delay_ms": delay}
        self.both(lambda store: store.reschedule(id, **when))

    @rule(seconds=st.sampled_from([0.001, 1, 1, 3, 3, 9, 9, 60, 700, 86_400]))
    def tick(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(session=st.sampled_from(SESSIONS))
    def outlive_a_lease(self, session: str) -> None:
        """Nobody is out of reach meanwhile, so what others hold is lost."""
        for _ in range(4):
            self.pass_time(9)
            self.both(lambda store: store.renew([]))
        self.step(session, (), want=1, queues=QUEUES)

    def pass_time(self, seconds: float) -> None:
        """Sweep where something may have gone: before that a store may still show it."""
        self.clock.advance(seconds)
        if self.clock.now_ms() - self.began >= MEMORY_OF_ENDED_MS:
            self.sweep()

    @rule()
    def sweep(self) -> None:
        for store in (self.real, self.model):
            while store.sweep().more:
                pass
