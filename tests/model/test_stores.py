# SPDX-License-Identifier: MIT
"""Random histories of a store, each told to a model of the contract too.

After each move both must show the same. Where `flowq.storage.base` leaves an order open the model
follows the store's choice, if it is one of those that are allowed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flowq.errors import Failure
from flowq.message import CULPRIT, NO_NODE, Delivery, Message, new_id, node_id, pack_cell, read_cell
from flowq.outcome import Cancelled, Done, Failed, GiveBack, Outcome, RetryAt, Skipped, Unknown
from flowq.plan import Bits, Kind, NodeRow, Plan, indexes, ranges_of
from flowq.states import RULES, State, trigger_rule
from flowq.storage import Store, open_store
from flowq.storage.base import MEMORY_OF_ENDED_MS, DeadLetter, Look, NodeInfo, SessionInfo, Step
from flowq.testing import ManualClock
from flowq.testing.model import ModelStore

BAD = (State.FAILED, State.BLOCKED)
SESSIONS = ("a", "b", "c")
QUEUES = ("default", "other")
ids = st.integers(0, 10_000)
"""Which of the known ids, queues, deliveries: taken modulo how many there are."""


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """What tells one message from another."""
    return {
        "queue": draw(st.sampled_from(QUEUES)),
        "priority": draw(st.sampled_from([0, 0, 0, 5, -5])),
        "delay_ms": draw(st.sampled_from([0, 0, 0, 2_000, 40_000])),
        "expires_in_ms": draw(st.sampled_from([0, 0, 0, 0, 3_000])),
        "result_ttl_ms": draw(st.sampled_from([86_400_000, 0])),
        "max_losses": draw(st.integers(0, 3)),
        "prefetch": draw(st.sampled_from([0, 0, 0, 0, 1])),
    }


@st.composite
def plans(draw: st.DrawFn) -> list[NodeRow]:
    """A plan of up to 10 nodes: each in the root or an expansion before it, below earlier ones."""
    n = draw(st.integers(1, 10))
    kinds = [Kind.EXPANSION]
    owners, bits = [NO_NODE], [0]
    parents: list[tuple[int, ...]] = [()]
    for _ in range(n):
        i = len(kinds)
        owner = draw(st.sampled_from([0, *(k for k in range(i) if kinds[k] == Kind.EXPANSION)]))
        beside = [k for k in range(1, i) if owners[k] == owner]
        above = draw(st.sets(st.sampled_from(beside), max_size=3)) if beside else set()
        kinds.append(draw(st.sampled_from([Kind.TASK] * 4 + [Kind.JOIN, Kind.EXPANSION])))
        owners.append(owner)
        parents.append(tuple(sorted(above)))
        bits.append(draw(st.sampled_from([0, 0, Bits.NAMED, Bits.FORGIVEN])))
    rows = []
    for i, kind in enumerate(kinds):
        inner = [k for k in range(i + 1, n + 1) if owners[k] == i]
        allowed = [*RULES, *(f"at_least({k})" for k in range(1, len(parents[i]) + 1))]
        if not parents[i]:
            allowed = ["all_success"]
        name = f"n{i}"
        message = Message(b"", "t", b"P", name=name, **draw(messages())) if not kind else None
        rows.append(
            NodeRow(
                name=name,
                kind=kind,
                owner=owners[i],
                rule=trigger_rule(draw(st.sampled_from(allowed)), len(parents[i])),
                parents=ranges_of(parents[i]),
                children=ranges_of(k for k in range(i + 1, n + 1) if i in parents[k]),
                reads=ranges_of(parents[i]) if message else (),
                message=message,
                entries=ranges_of(k for k in inner if not parents[k]),
                inner=len(inner),
                body=ranges_of(inner),
                value=b"template" if kind == Kind.EXPANSION else b"",
                bits=int(bits[i]),
            )
        )
    return rows


def plain_cell(raw: bytes | None) -> Any:
    """What two cells must share: all, but for the choice of a culprit and a failure's words."""
    if raw is None:
        return None
    cell = read_cell(raw)
    body: Any = cell.body
    if cell.flags & CULPRIT:
        body = "culprit"
    elif cell.state == State.FAILED and cell.body != b"x":
        failure = msgspec.msgpack.decode(cell.body, type=Failure)
        body = (failure.task, failure.id, failure.node, failure.reason, failure.index)
    return msgspec.structs.replace(cell, body=body)


def plain_look(look: Look | None) -> Any:
    """How often it was tried may be forgotten once it has ended."""
    if look is None:
        return None
    gone = {"attempt": 0, "losses": 0} if look.state.final else {}
    return msgspec.structs.replace(look, cell=plain_cell(look.cell), **gone)


def plain_node(info: NodeInfo) -> NodeInfo:
    """The same of a node; whom it blames is judged by itself."""
    gone = {"attempt": 0, "losses": 0} if info.state.final else {}
    return msgspec.structs.replace(info, culprit=None, **gone)


def same(real: Any, model: Any) -> None:
    """What the store shows is what the model shows."""
    assert real == model, f"\nstore: {real}\nmodel: {model}"


def plain_letter(letter: DeadLetter) -> Any:
    return msgspec.structs.astuple(letter)


class Histories(RuleBasedStateMachine):
    """One real store and the model, both told the same."""

    make: Callable[[ManualClock], Store]

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.real = type(self).make(self.clock)
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
        self.made += 1
        return self.clock.now_ms().to_bytes(6, "big") + self.made.to_bytes(10, "big")

    def known(self) -> list[bytes]:
        """Tasks and nodes, but for roots."""
        nodes = [node_id(p.id, i) for p in self.plans for i in range(1, len(p.rows))]
        return [m.id for m in self.tasks] + nodes

    def step(self, session: str, outcomes: Iterable[Outcome], **how: Any) -> Step:
        outcomes = list(outcomes)
        open_ = [id for id in self.known() if (x := self.model.look([id])[0]) and not x.state.final]
        real = self.real.step(session, outcomes, **how)
        ended = [x is None or x.state.final for x in self.real.look(open_)]
        expired = [id for id, end in zip(open_, ended, strict=True) if end]
        self.model.prefer([*expired, *(d.id for d in real.deliveries)])
        model = self.model.step(session, outcomes, **how)
        same([d.id for d in real.deliveries], [d.id for d in model.deliveries])
        same(self.plain_deliveries(real.deliveries), self.plain_deliveries(model.deliveries))
        same(sorted(real.stops), sorted(model.stops))
        others: dict[str, Any] = {"deliveries": [], "stops": []}
        same(msgspec.structs.replace(real, **others), msgspec.structs.replace(model, **others))
        return real

    def plain_deliveries(self, deliveries: Any) -> Any:
        return {
            d.id: (
                d.delivery, d.attempt, d.losses, d.body, d.complete,
                {i: plain_cell(c) for i, c in d.values.items()},
            )
            for d in deliveries
        }  # fmt: skip

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

    @precondition(lambda self: self.tasks)
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

    @precondition(lambda self: self.plans)
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

    @precondition(lambda self: self.running())
    @rule(
        kinds=st.lists(st.integers(0, 9), min_size=1, max_size=6),
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
                st.lists(st.integers(0, 9), min_size=3, max_size=3),
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

    @rule(session=st.sampled_from(SESSIONS))
    def work_through(self, session: str) -> None:
        """Let one session do all that it is given, well."""
        for _ in range(30):
            outcomes = [self.outcome(d, 0) for d in self.model.held(session)]
            self.outcomes += [(session, o) for o in outcomes]
            if not self.step(session, outcomes, want=100, queues=QUEUES).deliveries:
                return

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
        return ways[kind]()

    @precondition(lambda self: self.outcomes)
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

    @precondition(lambda self: self.running())
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

    @precondition(lambda self: self.tasks or self.plans)
    @rule(which=st.lists(ids, min_size=1, max_size=3))
    def cancel(self, which: list[int]) -> None:
        known = self.known()
        self.cancel_ids([known[-1 - i % len(known)] for i in which])

    @precondition(lambda self: self.running())
    @rule(which=ids)
    def cancel_what_runs(self, which: int) -> None:
        running = self.running()
        self.cancel_ids([running[which % len(running)][1].id])

    def cancel_ids(self, chosen: list[bytes]) -> None:
        looks = self.model.look(chosen)
        begun = [x is not None and x.state == State.EXPANDED for x in looks]
        chosen = [id for id, no in zip(chosen, begun, strict=True) if not no]  # a run is told that
        self.both(lambda store: store.cancel(chosen))

    @precondition(lambda self: self.tasks or self.plans)
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

    # --- what both show -------------------------------------------------------------------------

    @invariant()
    def looks_are_the_same(self) -> None:
        known = self.known() + [p.id for p in self.plans]
        real, model = self.real.look(known), self.model.look(known)
        for id, x, y in zip(known, real, model, strict=True):
            same((id, plain_look(x)), (id, plain_look(y)))

    @invariant()
    def messages_are_kept_while_they_may_run(self) -> None:
        for id in self.known()[-5:]:
            found = self.real.message(id)
            look = self.model.look([id])[0]
            if found is not None or (look and not look.state.final):
                assert found == self.model.message(id)

    @invariant()
    def runs_and_their_nodes_are_the_same(self) -> None:
        self.both(lambda store: store.runs(limit=1_000))
        for plan in self.plans:
            real, model = self.real.nodes(plan.id), self.model.nodes(plan.id)
            same([plain_node(x) for x in real], [plain_node(x) for x in model])
            if real:
                same(self.real.check(plan.id), [])
                same(self.model.check(plan.id), [])
                self.who_is_blamed(plan, real)
                body = [x for x in real if x.owner == 0]
                assert real[0].state.final == all(x.state.final for x in body)

    def who_is_blamed(self, plan: Plan, nodes: list[NodeInfo]) -> None:
        """A culprit is that of a parent, or of an inner node, that failed."""
        for info in nodes:
            row = plan.rows[info.index]
            around = nodes[row.owner] if info.index else info
            if around.state.final and not around.ready_ms:
                assert info.culprit == around.culprit or info.state != around.state
                continue
            if info.state == State.BLOCKED:
                above = [nodes[i] for i in indexes(row.parents)]
            elif info.state == State.FAILED and row.kind == Kind.EXPANSION:
                inner = [x for x in nodes if x.owner == info.index]
                above = [x for x in inner if not plan.rows[x.index].bits & Bits.FORGIVEN]
            else:
                assert info.culprit is None
                continue
            blamed = {
                x.index if plan.rows[x.index].kind == Kind.TASK and x.state == State.FAILED
                else x.culprit
                for x in above if x.state in BAD
            }  # fmt: skip
            assert info.culprit in blamed, (info, blamed)

    @invariant()
    def counts_and_dead_letters_are_the_same(self) -> None:
        def counts(store: Store) -> Any:
            status = store.status()
            queues = {q.name: q.ready for q in status.queues if q.ready}
            return queues, status.scheduled, status.running, status.dead, status.runs

        self.both(counts)
        self.both(lambda store: sorted(map(plain_letter, store.dead(limit=1_000))))

    @invariant()
    def sessions_hold_the_same(self) -> None:
        self.both(lambda store: {s.id: (s.deadline_ms, s.held) for s in store.sessions()})
        for session in SESSIONS:
            self.both(lambda store: self.plain_deliveries(store.held(session)))  # noqa: B023


def run_histories(make: Callable[[ManualClock], Store], least: int = 60) -> None:
    """Run random histories on stores that are made for one each."""

    class Machine(Histories):
        pass

    Machine.make = staticmethod(make)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=max(least, settings().max_examples // 5),
            stateful_step_count=40,
            suppress_health_check=list(HealthCheck),
        ),
    )


# --- what such histories found -------------------------------------------------------------------


@pytest.fixture(params=["memory://", "redis", "model"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    clock = ManualClock()
    if request.param == "model":
        yield ModelStore(clock)
        return
    url, name = request.param, "found"
    if url == "redis":
        url, name = request.getfixturevalue("redis_url"), request.getfixturevalue("store_name")
    made = open_store(url, name=name, clock=clock)
    yield made
    made.close()


def test_those_that_wait_to_be_alone_take_nobodys_place(store: Store) -> None:
    lost = [Message(new_id(), "t", b"P", queue=queue) for queue in QUEUES]
    store.enqueue(lost)
    for message in lost:
        store.step("gone", want=1, queues=[message.queue])
    store.release("gone", lost=[message.id for message in lost])
    best = Message(new_id(), "t", b"P", priority=5)
    last = Message(new_id(), "t", b"P", priority=-5)
    store.enqueue([best, last])

    given = store.step("a", want=2, queues=QUEUES)

    assert [d.id for d in given.deliveries] == [best.id, last.id]
    assert (given.ready, given.alone) == (2, True)


def test_a_queued_task_that_is_moved_to_now_keeps_its_turn(store: Store) -> None:
    first, second = (Message(new_id(), "t", b"P") for _ in range(2))
    store.enqueue([first])
    store.enqueue([second])

    assert store.reschedule(first.id) == State.QUEUED

    assert [d.id for d in store.step("a", want=2).deliveries] == [first.id, second.id]


@pytest.mark.parametrize("how", ["done", "failed", "skipped"])
def test_a_body_that_was_stopped_leaves_when_it_began(store: Store, how: str) -> None:
    message = Message(new_id(), "t", b"P")
    store.enqueue([message])
    store.step("a", want=1)
    store.cancel([message.id])
    kinds: dict[str, type[Done | Failed | Skipped]] = {
        "done": Done,
        "failed": Failed,
        "skipped": Skipped,
    }
    kind = kinds[how]

    cell = pack_cell(kind.state, b"x", delivery=1, started_ms=77, ended_ms=99)
    store.step("a", [kind(message.id, 1, cell)])

    (look,) = store.look([message.id])
    assert look is not None
    assert look.cell is not None
    assert read_cell(look.cell).state == State.CANCELLED
    assert read_cell(look.cell).started_ms == 77


# --- random histories ----------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_sqlite_in_a_file_does_what_the_model_does(tmp_path: Path) -> None:
    def make(clock: ManualClock) -> Store:
        return open_store(f"sqlite:///{tmp_path}/{secrets.token_hex(6)}.db", clock=clock)

    run_histories(make, least=25)  # a disk takes its time; in memory the same statements run


@pytest.mark.timeout(300)
def test_memory_does_what_the_model_does() -> None:
    run_histories(lambda clock: open_store("memory://", clock=clock))


@pytest.mark.timeout(300)
def test_redis_does_what_the_model_does(redis_url: str, store_name: str) -> None:
    run_histories(
        lambda clock: open_store(
            redis_url, name=f"{store_name}-{secrets.token_hex(6)}", clock=clock
        )
    )
