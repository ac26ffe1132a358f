# SPDX-License-Identifier: MIT
"""The contract of a store in plain dicts: slow, in one process, and obviously right.

A real store is compared with it (``tests/model/test_stores.py``). It walks the tables of
`flowq.states` and follows the words of `flowq.storage.base` line by line, under one lock.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from itertools import takewhile
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import msgspec

from flowq.clock import SYSTEM_CLOCK, Clock
from flowq.errors import Failure
from flowq.message import (
    CULPRIT,
    EMPTY,
    HEAD,
    NO_NODE,
    TEMPLATE,
    Delivery,
    Message,
    encode_message,
    id_text,
    node_id,
    pack_cell,
    read_cell,
    split_node,
)  # fmt: skip
from flowq.outcome import Cancelled, Done, Failed, GiveBack, Outcome, RetryAt, Skipped, Unknown
from flowq.plan import ROOT, Bits, Kind, NodeRow, Plan, Ranges, indexes
from flowq.states import Counts, Event, State, next_state, outcome_of, verdict
from flowq.storage.base import (
    MEMORY_OF_ENDED_MS,
    PAGE,
    REPLY_BYTES,
    UNKNOWN_PATIENCE_MS,
    DeadLetter,
    Look,
    Loss,
    NodeInfo,
    QueueInfo,
    RunInfo,
    SessionId,
    SessionInfo,
    Status,
    Step,
    Swept,
    Verdict,
)  # fmt: skip

__all__ = ["ModelStore"]

PERIOD_MS: Final = 10_000
FRONT, BACK = 0, 1
SLOT: Final = {
    State.SUCCESS: 0,
    State.FAILED: 1,
    State.BLOCKED: 1,
    State.SKIPPED: 2,
    State.CANCELLED: 3,
}
E, S = Event, State
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(eq=False)
class Run:
    """One run."""

    plan: Plan
    created_ms: int
    nodes: list[Node] = field(default_factory=list)
    ended_ms: int = 0
    forget_ms: int | None = None


@dataclass(eq=False)
class Node:
    """One node of a run, or one task called alone."""

    id: bytes
    message: Message | None
    state: State = S.WAITING
    run: Run | None = None
    row: NodeRow | None = None
    ends: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # of its parents
    inner: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # unfinished and bad inner nodes
    blame: int = NO_NODE  # whom its parents or inner nodes name
    culprit: int = NO_NODE
    level: int = BACK
    place: tuple[int, int] = (BACK, 0)  # in its queue: level, then the call that queued it
    group: int = 0  # what is queued together
    key: int = 0  # its place in the group
    due_ms: int = 0
    ready_ms: int = 0
    handed_ms: int = 0
    expires_ms: int = 0
    unknown_ms: int = 0
    session: Session | None = None
    delivery: int = 0
    settled: bool = False
    stopping: bool = False
    attempt: int = 0
    losses: list[Loss] = field(default_factory=list)
    cell: bytes | None = None
    forget_ms: int | None = None

    @property
    def index(self) -> int:
        """Its place in its run."""
        return split_node(self.id)[1]

    @property
    def task(self) -> Message:
        """Its message; only tasks are asked."""
        assert self.message is not None
        return self.message

    def before(self, other: Node) -> bool:
        """Whether the contract says which of two in the same place goes first, and this does."""
        return self.group == other.group and self.key < other.key


@dataclass(eq=False)
class Session:
    """One life of a worker process."""

    info: SessionInfo
    deadline_ms: int


def step_of_store(
    method: Callable[Concatenate[ModelStore, P], R],
) -> Callable[Concatenate[ModelStore, P], R]:
    """Make a method one atomic step: under the lock, with a number, and a hint at its end."""

    @wraps(method)
    def run(self: ModelStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            self._now = self._clock.now_ms()
            self._tick += 1
            self._level = FRONT
            answer = method(self, *args, **kwargs)
            self._lock.notify_all()
            return answer

    return run


class ModelStore:
    """A store for tests of stores.

    Parameters
    ----------
    clock : Clock
    """

    url = "model://"
    shares_processes = False

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Condition(threading.RLock())
        self._now = clock.now_ms()
        self._tick = self._groups = self._wakes = self._seen = 0
        self._level = FRONT
        self._alone: dict[bytes, Node] = {}
        self._runs: dict[bytes, Run] = {}
        self._sessions: dict[SessionId, Session] = {}
        self._letters: dict[bytes, tuple[DeadLetter, int]] = {}
        self._todo: deque[tuple[Node, State, list[int]]] = deque()  # edges that are not counted yet
        self._preferred: dict[bytes, int] = {}

    def prefer(self, ids: Sequence[bytes]) -> None:
        """Hand these out first, in this order, where the contract leaves the order open."""
        self._preferred = {id: i for i, id in enumerate(ids)}

    # --- what is where --------------------------------------------------------------------------

    def _all(self) -> Iterable[Node]:
        yield from self._alone.values()
        for run in self._runs.values():
            yield from run.nodes

    def _live_run(self, id: bytes) -> Run | None:
        run = self._runs.get(id)
        return run if run and _kept(run.forget_ms, self._clock.now_ms()) else None

    def _find(self, id: bytes) -> Node | None:
        if len(id) == 16:
            node = self._alone.get(id)
            return node if node and _kept(node.forget_ms, self._clock.now_ms()) else None
        run, index = self._live_run(id[:16]), split_node(id)[1]
        return run.nodes[index] if run and index < len(run.nodes) else None

    def _held(self, session: Session | None) -> list[Node]:
        held = [n for n in self._all() if n.session is session]
        return sorted(held, key=lambda n: (n.handed_ms, n.place, n.group, n.key))

    def _ready(self, queues: Sequence[str]) -> list[Node]:
        return [n for n in self._all() if n.state == S.QUEUED and n.task.queue in queues]

    # --- how things end and start, word for word ------------------------------------------------

    def _move(self, node: Node, event: Event) -> None:
        becomes = next_state(node.state, event)
        assert becomes is not None, (node.state, event)
        node.state = becomes

    def _finish(self, node: Node, event: Event | None, cell: bytes, culprit: int = NO_NODE) -> None:
        """End a node by an event; an expansion that has run ends as its cell says."""
        if event is None:
            node.state = State(read_cell(cell).state)
        else:
            self._move(node, event)
        node.cell, node.culprit, node.session = cell, culprit, None
        if node.run is None:
            self._forget_later(node)
        elif node.index == ROOT:
            self._end_run(node.run, node.state)
        else:
            assert node.row is not None
            self._todo.append((node, node.state, list(indexes(node.row.children))))
            self._count_in_owner(node, node.row)

    def _forget_later(self, node: Node) -> None:
        failed = node.state == S.FAILED
        kept = node.task.failed_ttl_ms if failed else node.task.result_ttl_ms
        if not kept and node.state == S.SUCCESS and node.cell:
            head = read_cell(node.cell)
            node.cell = pack_cell(
                S.SUCCESS, b"", flags=EMPTY, delivery=head.delivery,
                started_ms=head.started_ms, ended_ms=head.ended_ms,
            )  # fmt: skip
        node.forget_ms = self._now + max(kept, MEMORY_OF_ENDED_MS)

    def _end_run(self, run: Run, state: State) -> None:
        kept = run.plan.failed_ttl_ms if state == S.FAILED else run.plan.result_ttl_ms
        run.ended_ms = self._now
        run.forget_ms = self._now + max(kept, MEMORY_OF_ENDED_MS)

    def _count_in_owner(self, node: Node, row: NodeRow) -> None:
        assert node.run is not None
        owner = node.run.nodes[row.owner]
        owner.inner[0] -= 1
        forgiven, slot = row.bits & Bits.FORGIVEN, SLOT[node.state]
        if slot == 1 and not forgiven:
            owner.inner[1] += 1
            if owner.blame == NO_NODE:
                owner.blame = node.culprit
        elif slot == 3 and not forgiven:
            owner.inner[2] += 1
        elif slot == 2 and row.bits & Bits.NAMED:
            owner.inner[3] += 1
        self._end_expansion(owner)

    def _end_expansion(self, owner: Node) -> None:
        if owner.state != S.EXPANDED or owner.inner[0]:
            return
        assert owner.row is not None
        state = outcome_of(*owner.inner[1:])
        flags, body, culprit = 0, f"what its value names was {state.label}".encode(), NO_NODE
        if state == S.SUCCESS:
            flags, body = TEMPLATE, owner.row.value
        elif state == S.FAILED:
            culprit = owner.blame
            flags, body = CULPRIT, culprit.to_bytes(4, "big")
        self._finish(owner, None, pack_cell(state, body, flags=flags, ended_ms=self._now), culprit)

    def _walk(self, edges: int) -> None:
        """Count ends in the children and start entries, at most so many edges."""
        group, self._groups = self._groups + 1, self._groups + 1
        while self._todo and edges > 0:
            node, state, left = self._todo[0]
            assert node.run is not None
            page = left[:edges]
            del left[:edges]
            if not left:
                self._todo.popleft()
            edges -= len(page)
            for child in (node.run.nodes[i] for i in page):
                if state == S.EXPANDED:
                    if child.state == S.WAITING:
                        self._start(child, group)
                else:
                    self._count(child, node, state, group)

    def _count(self, child: Node, parent: Node, state: State, group: int) -> None:
        assert child.row is not None
        child.ends[SLOT[state]] += 1
        if SLOT[state] == 1 and child.blame == NO_NODE:
            child.blame = parent.culprit
        if child.state != S.WAITING:
            return
        says = verdict(child.row.rule, _size(child.row.parents), Counts(*child.ends))
        if says == S.QUEUED:
            self._start(child, group)
        elif says == S.BLOCKED:
            body = child.blame.to_bytes(4, "big")
            cell = pack_cell(says, body, flags=CULPRIT, ended_ms=self._now)
            self._finish(child, E.BLOCK, cell, child.blame)
        elif says is not None:
            cell = pack_cell(
                says, f"what it waits for was {says.label}".encode(), ended_ms=self._now
            )
            self._finish(child, E.SKIP if says == S.SKIPPED else E.CANCEL, cell)

    def _start(self, node: Node, group: int) -> None:
        assert node.row is not None
        node.ready_ms = self._now
        if node.row.kind == Kind.TASK:
            self._let_run(node, group, node.index)
        elif node.row.kind == Kind.EXPANSION:
            self._move(node, E.EXPAND)
            self._expand(node)
        else:
            self._finish(node, E.PASS, pack_cell(S.SUCCESS, b"", flags=EMPTY, ended_ms=self._now))

    def _expand(self, node: Node) -> None:
        assert node.row is not None
        self._todo.append((node, S.EXPANDED, list(indexes(node.row.entries))))
        self._end_expansion(node)

    def _let_run(self, node: Node, group: int, key: int) -> None:
        """Queue a task that may run now, or schedule it."""
        node.level = self._level
        within = self._now + node.task.expires_in_ms if node.task.expires_in_ms else 0
        node.expires_ms = min(filter(None, (within, node.task.expires_ms)), default=0)
        due = max(self._now + node.task.delay_ms, node.task.due_ms)
        if due > self._now:
            self._later(node, E.LATER, due)
        else:
            self._queue(node, E.READY, node.level, group, key)

    def _later(self, node: Node, event: Event, due_ms: int) -> None:
        self._move(node, event)
        node.due_ms, node.session = due_ms, None

    def _queue(self, node: Node, event: Event, level: int, group: int, key: int) -> None:
        self._move(node, event)
        node.level, node.place, node.group, node.key = level, (level, self._tick), group, key
        node.due_ms, node.session = 0, None

    def _new_group(self) -> int:
        self._groups += 1
        return self._groups

    def _fail(self, node: Node, reason: str, text: str, kind: str) -> None:
        """End a task that failed without its body's doing."""
        m = node.task
        failure = Failure(
            task=m.task, id=id_text(node.id), node=m.name or None, reason=reason,
            exc_type=kind, message=text, index=m.index,
        )  # fmt: skip
        cell = pack_cell(S.FAILED, msgspec.msgpack.encode(failure), ended_ms=self._now)
        self._finish(node, E.FAIL, cell, self._blamed(node, S.FAILED))

    def _blamed(self, node: Node, state: State) -> int:
        return node.index if node.run and state == S.FAILED else NO_NODE

    def _bury(self, node: Node, reason: str) -> None:
        ttl = node.run.plan.failed_ttl_ms if node.run else node.task.failed_ttl_ms
        letter = DeadLetter(
            node.id, reason, self._now, encode_message(node.task), list(node.losses)
        )
        self._letters.pop(node.id, None)
        self._letters[node.id] = (letter, self._now + max(ttl, MEMORY_OF_ENDED_MS))

    # --- taking in ------------------------------------------------------------------------------

    @step_of_store
    def enqueue(self, messages: Sequence[Message]) -> list[bool]:
        """Take tasks called alone; see `Store.enqueue`."""
        self._level, group = BACK, self._new_group()
        fresh = []
        for key, message in enumerate(messages):
            fresh.append(self._find(message.id) is None)
            if fresh[-1]:
                node = Node(message.id, message, ready_ms=self._now)
                self._alone[message.id] = node
                self._let_run(node, group, key)
        return fresh

    @step_of_store
    def submit(self, plan: Plan) -> bool:
        """Start a run; see `Store.submit`."""
        if self._live_run(plan.id):
            return False
        self._level = BACK
        self._runs.pop(plan.id, None)
        run = self._runs[plan.id] = Run(plan, self._now)
        for i, row in enumerate(plan.rows):
            node = Node(node_id(plan.id, i), row.message, run=run, row=row)
            node.inner[0] = row.inner
            run.nodes.append(node)
        root = run.nodes[ROOT]
        root.state, root.ready_ms = S.EXPANDED, self._now
        self._expand(root)
        self._walk_all()
        return True

    def _walk_all(self) -> None:
        while self._todo:
            self._walk(PAGE)

    # --- the step of a worker -------------------------------------------------------------------

    @step_of_store
    def step(
        self,
        session: SessionId,
        outcomes: Sequence[Outcome] = (),
        *,
        want: int = 0,
        queues: Sequence[str] = ("default",),
        lease_ms: int = 30_000,
        bound_ms: int = 0,
    ) -> Step:
        """Settle and hand out; see `Store.step`."""
        self._close_gap(PERIOD_MS)
        me = self._sessions.setdefault(session, Session(SessionInfo(session), 0))
        me.deadline_ms = self._now + lease_ms
        verdicts = [self._settle(me, outcome) for outcome in outcomes]
        self._walk(PAGE)
        self._walk(PAGE)
        self._take_back()
        self._walk(PAGE)
        self._queue_due()

        held = self._held(me)
        queues = list(dict.fromkeys(queues))
        chosen: list[Node] = []
        if want > 0 and not any(node.losses for node in held):
            live = sum(s.deadline_ms > self._now for s in self._sessions.values())
            share = -(-len(self._ready(queues)) // live)
            chosen = self._choose(max(1, min(want, share)), queues, idle=not held)
        for node in chosen:
            self._move(node, E.FETCH)
            node.session, node.handed_ms = me, self._now
            node.delivery, node.settled = node.delivery + 1, False
        ready = self._ready(queues)
        return Step(
            verdicts=verdicts,
            deliveries=self._deliver(chosen),
            ready=len(ready),
            alone=any(node.losses for node in ready),
            next_ms=self._next_ms(me),
            stops=[node.id for node in held if node.stopping],
        )

    def _settle(self, me: Session, outcome: Outcome) -> Verdict:
        node = self._find(outcome.id)
        if node is None or node.delivery != outcome.delivery:
            return "stale"
        if node.session is not me:
            return "repeated" if node.settled else "stale"
        node.settled = True
        if node.stopping:
            self._finish(node, E.CANCEL, self._stopped_cell(node, outcome))
        elif isinstance(outcome, Done):
            self._finish(node, E.DONE, outcome.cell)
        elif isinstance(outcome, Failed):
            if outcome.dead:
                self._bury(node, outcome.dead)
            self._finish(node, E.FAIL, outcome.cell, self._blamed(node, S.FAILED))
        elif isinstance(outcome, Skipped):
            self._finish(node, E.SKIP, outcome.cell)
        elif isinstance(outcome, Cancelled):
            self._finish(node, E.CANCEL, outcome.cell)
        elif isinstance(outcome, RetryAt):
            node.attempt, node.level = node.attempt + 1, FRONT
            self._later(node, E.RETRY, self._now + outcome.delay_ms)
        elif isinstance(outcome, GiveBack):
            self._queue(node, E.RETURN, FRONT, self._new_group(), 0)
        else:
            self._unknown(node, outcome)
        return "settled"

    def _stopped_cell(self, node: Node, outcome: Outcome) -> bytes:
        if isinstance(outcome, Cancelled):
            return outcome.cell
        started = 0
        if isinstance(outcome, Done | Failed | Skipped) and len(outcome.cell) >= HEAD.size:
            started = read_cell(outcome.cell).started_ms
        return pack_cell(
            S.CANCELLED, b"cancelled", delivery=node.delivery, started_ms=started,
            ended_ms=self._now,
        )  # fmt: skip

    def _unknown(self, node: Node, outcome: Unknown) -> None:
        node.unknown_ms = node.unknown_ms or self._now
        waited = self._now - node.unknown_ms
        if waited >= UNKNOWN_PATIENCE_MS:
            self._bury(node, "unknown task")
            self._finish(node, E.FAIL, outcome.cell, self._blamed(node, S.FAILED))
            return
        node.level = FRONT
        self._later(node, E.LATER, self._now + min(max(waited, 1_000), 30_000))

    def _take_back(self) -> None:
        for name, session in list(self._sessions.items()):
            if session.deadline_ms <= self._now:
                for node in self._held(session):
                    self._lose(node, session, "the session's lease ran out", counts=True)
                del self._sessions[name]

    def _lose(self, node: Node, session: Session, reason: str, *, counts: bool) -> None:
        if node.stopping:
            cell = pack_cell(S.CANCELLED, b"cancelled", delivery=node.delivery, ended_ms=self._now)
            self._finish(node, E.CANCEL, cell)
            return
        if not counts:
            self._queue(node, E.RETURN, FRONT, self._new_group(), 0)
            return
        who = session.info
        node.losses.append(Loss(who.id, who.host, who.pid, node.delivery, self._now, reason))
        if len(node.losses) < node.task.max_losses:
            self._queue(node, E.LOSE, FRONT, self._new_group(), 0)
            return
        self._bury(node, "lost")
        text = f"WorkerLost('its worker was lost {len(node.losses)} times: {reason}')"
        self._fail(node, "lost", text, "flowq.errors.WorkerLost")

    def _queue_due(self) -> None:
        group = self._new_group()
        for node in self._all():
            if node.state == S.SCHEDULED and node.due_ms <= self._now:
                self._queue(node, E.DUE, node.level, group, node.due_ms)

    def _choose(self, want: int, queues: Sequence[str], *, idle: bool) -> list[Node]:
        """Choose what to hand out; what expired and would be handed out fails instead."""
        while True:
            ready = [n for n in self._ready(queues) if idle or not n.losses]
            ready.sort(key=lambda n: (*_rank(n, queues), n.group, n.key))
            chosen: list[Node] = []
            while ready and len(chosen) < want:
                node = self._pick(ready, queues)
                if chosen and node.task.prefetch:
                    break
                ready.remove(node)
                if chosen and node.losses:
                    continue
                chosen.append(node)
                if node.losses or node.task.prefetch:
                    break
            late = [n for n in chosen if n.expires_ms and n.expires_ms <= self._now]
            if not late:
                return chosen
            for node in late:
                self._expire(node)
            self._walk(PAGE)

    def _pick(self, ready: list[Node], queues: Sequence[str]) -> Node:
        """Give the best; where several are, the one that is preferred."""
        if not self._preferred:
            return ready[0]
        best = _rank(ready[0], queues)
        equal = list(takewhile(lambda n: _rank(n, queues) == best, ready))
        first = [n for n in equal if not any(other.before(n) for other in equal)]
        return min(first, key=lambda n: self._preferred.get(n.id, len(self._preferred)))

    def _expire(self, node: Node) -> None:
        self._fail(node, "expired", "Expired('was not begun in time')", "")

    def _deliver(self, nodes: Iterable[Node]) -> list[Delivery]:
        left, given = REPLY_BYTES, []
        for node in nodes:
            values: dict[int, bytes] = {}
            complete = True
            for index in indexes(node.row.reads) if node.row and node.run else ():
                cell = node.run.nodes[index].cell if node.run else None
                if cell is None:
                    continue
                if len(cell) > left and left < REPLY_BYTES:
                    complete = False
                    break
                left -= len(cell)
                values[index] = cell
            body = encode_message(node.task)
            counts = (node.delivery, node.attempt, len(node.losses))
            given.append(Delivery(node.id, *counts, body, values, complete))
        return given

    def _next_ms(self, me: Session) -> int | None:
        moments = [n.due_ms for n in self._all() if n.state == S.SCHEDULED]
        moments += [s.deadline_ms for s in self._sessions.values() if s is not me]
        return max(0, min(moments) - self._now) if moments else None

    # --- sessions -------------------------------------------------------------------------------

    def _close_gap(self, period_ms: int) -> None:
        gap = self._now - self._seen - period_ms if self._seen else 0
        for session in self._sessions.values() if gap > 0 else ():
            session.deadline_ms += gap
        self._seen = self._now

    @step_of_store
    def open_session(self, info: SessionInfo, *, lease_ms: int = 30_000) -> None:
        """Register a session; see `Store.open_session`."""
        session = self._sessions.setdefault(info.id, Session(info, 0))
        session.info, session.deadline_ms = info, self._now + lease_ms

    @step_of_store
    def renew(
        self, sessions: Sequence[SessionId], *, lease_ms: int = 30_000, period_ms: int = PERIOD_MS
    ) -> list[list[bytes] | None]:
        """Push back deadlines; see `Store.renew`."""
        self._close_gap(period_ms)
        found: list[list[bytes] | None] = []
        for name in sessions:
            session = self._sessions.get(name)
            if session is None:
                found.append(None)
                continue
            session.deadline_ms = self._now + lease_ms
            found.append([n.id for n in self._held(session) if n.stopping])
        return found

    @step_of_store
    def held(self, session: SessionId) -> list[Delivery]:
        """Read back what a session holds; see `Store.held`."""
        known = self._sessions.get(session)
        return self._deliver(self._held(known)) if known else []

    @step_of_store
    def release(self, session: SessionId, *, lost: Sequence[bytes] = (), reason: str = "") -> int:
        """End a session; see `Store.release`."""
        known = self._sessions.pop(session, None)
        held = self._held(known) if known else []
        for node in held:
            assert known is not None
            self._lose(node, known, reason, counts=node.id in lost)
        self._walk_all()
        return len(held)

    # --- from outside ---------------------------------------------------------------------------

    @step_of_store
    def cancel(self, ids: Sequence[bytes]) -> list[State | None]:
        """Stop tasks or nodes; see `Store.cancel`."""
        for node in map(self._find, ids):
            if node is None or node.state.final:
                continue
            if node.state == S.RUNNING:
                node.stopping = True
                self._wakes += 1
            else:
                cell = pack_cell(S.CANCELLED, b"cancelled", ended_ms=self._now)
                self._finish(node, E.CANCEL, cell)
        self._walk_all()
        return [node.state if node else None for node in map(self._find, ids)]

    @step_of_store
    def reschedule(self, id: bytes, *, delay_ms: int = 0, due_ms: int = 0) -> State | None:
        """Let an unstarted task become due at another time; see `Store.reschedule`."""
        node = self._find(id)
        if node is None:
            return None
        due = max(self._now + delay_ms, due_ms)
        if node.state in (S.QUEUED, S.SCHEDULED):
            if due > self._now:
                self._later(node, E.LATER, due)
            elif node.state == S.SCHEDULED:
                self._queue(node, E.DUE, node.level, self._new_group(), 0)
        return node.state

    @step_of_store
    def sweep(self, *, limit: int = 1_000) -> Swept:
        """Do a bounded part of the housekeeping; see `Store.sweep`."""
        continued = len(self._todo)
        self._walk(PAGE)
        waits = (S.QUEUED, S.SCHEDULED)
        late = [n for n in self._all() if n.state in waits and 0 < n.expires_ms <= self._now]
        for node in late[:limit]:
            self._expire(node)
        self._walk(PAGE)
        n = len(late[:limit])
        tables: list[tuple[dict[bytes, Any], Callable[[Any], int | None]]] = [
            (self._alone, lambda node: node.forget_ms),
            (self._runs, lambda run: run.forget_ms),
            (self._letters, lambda kept: kept[1]),
        ]
        for table, forget_ms in tables:
            gone = [id for id, x in table.items() if not _kept(forget_ms(x), self._now)]
            for id in gone[: max(0, limit - n)]:
                del table[id]
                n += 1
        return Swept(n, continued, n >= limit or bool(self._todo))

    @step_of_store
    def check(self, run: bytes) -> list[str]:
        """Compare a run's counts with its nodes' states; see `Store.check`."""
        found = self._live_run(run)
        if found is None:
            return ["the run is not known"]
        if any(node.run is found and left for node, _, left in self._todo):
            return []
        wrong = []
        for node in found.nodes:
            assert node.row is not None
            ends = Counter(SLOT.get(found.nodes[i].state) for i in indexes(node.row.parents))
            if node.ends != [ends[slot] for slot in range(4)]:
                wrong.append(f"node {node.index} counts {node.ends} of its parents, true is {ends}")
            inner = [n for n in found.nodes if n.row and n.row.owner == node.index]
            open_ = sum(not n.state.final for n in inner)
            if node.inner[0] != open_:
                wrong.append(f"expansion {node.index} counts {node.inner[0]}, true is {open_}")
        if found.nodes[ROOT].state.final != bool(found.ended_ms):
            wrong.append("the root and the run disagree")
        return wrong

    # --- what waits -----------------------------------------------------------------------------

    def wait_ready(self, queues: Sequence[str], *, timeout: float) -> bool:
        """Sleep until work may be there; see `Store.wait_ready`."""
        with self._lock:
            seen = self._wakes
            return self._lock.wait_for(
                lambda: self._wakes != seen or bool(self._ready(queues)), timeout
            )

    def wait_ended(self, ids: Sequence[bytes], *, timeout: float) -> bool:
        """Sleep until one of these may have ended; see `Store.wait_ended`."""
        with self._lock:
            return self._lock.wait_for(
                lambda: any(x is None or x.state.final for x in self.look(ids)), timeout
            )

    def wake(self) -> None:
        """Let every `wait_ready` of this object return now."""
        with self._lock:
            self._wakes += 1
            self._lock.notify_all()

    # --- what reads -----------------------------------------------------------------------------

    def look(self, ids: Sequence[bytes], *, cells: bool = True) -> list[Look | None]:
        """Say where ids stand; see `Store.look`."""
        with self._lock:
            return [self._look(id, cells) for id in ids]

    def _look(self, id: bytes, cells: bool) -> Look | None:
        node = self._find(id)
        run = node is None and len(id) == 16
        if run:
            node = self._find(node_id(id, ROOT))
        if node is None:
            return None
        due = node.due_ms if node.state == S.SCHEDULED else 0
        cell = node.cell if cells else None
        return Look(node.state, node.attempt, len(node.losses), due, cell, run)

    def cells(self, run: bytes, ranges: Ranges) -> dict[int, bytes]:
        """Read the cells of a run's nodes; see `Store.cells`."""
        with self._lock:
            found = self._live_run(run)
            nodes = found.nodes if found else []
            return {i: c for i in indexes(ranges) if i < len(nodes) and (c := nodes[i].cell)}

    def message(self, id: bytes) -> bytes | None:
        """Give an encoded message; see `Store.message`."""
        with self._lock:
            node = self._find(id)
            return encode_message(node.message) if node and node.message else None

    def run(self, id: bytes) -> RunInfo | None:
        """Describe one run, or None."""
        with self._lock:
            run = self._live_run(id)
            return _run_info(run) if run else None

    def nodes(
        self, run: bytes, *, after: int = -1, limit: int = 500, state: State | None = None
    ) -> list[NodeInfo]:
        """List nodes of a run by index; see `Store.nodes`."""
        with self._lock:
            found = self._live_run(run)
            nodes = found.nodes[after + 1 :] if found else []
            return [_node_info(n) for n in nodes if state is None or n.state == state][:limit]

    def runs(self, *, after: bytes = b"", limit: int = 100) -> list[RunInfo]:
        """List runs, newest first; see `Store.runs`."""
        with self._lock:
            found = [_run_info(self._runs[id]) for id in _page(self._runs, after)]
            return [info for info in found if self._live_run(info.id)][:limit]

    def sessions(self) -> list[SessionInfo]:
        """List the sessions whose deadline has not passed."""
        with self._lock:
            now = self._clock.now_ms()
            return [
                msgspec.structs.replace(s.info, deadline_ms=s.deadline_ms, held=len(self._held(s)))
                for s in self._sessions.values()
                if s.deadline_ms > now
            ]

    def status(self) -> Status:
        """Count."""
        with self._lock:
            states = Counter(node.state for node in self._all())
            ready = Counter(node.task.queue for node in self._all() if node.state == S.QUEUED)
            return Status(
                queues=[QueueInfo(name, n) for name, n in sorted(ready.items())]
                or [QueueInfo("default", 0)],
                scheduled=states[S.SCHEDULED],
                running=states[S.RUNNING],
                dead=len(self.dead(limit=len(self._letters))),
                runs=sum(not run.ended_ms for run in self._runs.values()),
            )

    def dead(self, *, after: bytes = b"", limit: int = 100) -> list[DeadLetter]:
        """List dead letters, newest first; see `Store.dead`."""
        with self._lock:
            found = map(self.dead_letter, _page(self._letters, after))
            return [letter for letter in found if letter][:limit]

    def dead_letter(self, id: bytes) -> DeadLetter | None:
        """Give one dead letter, or None."""
        with self._lock:
            letter, forget_ms = self._letters.get(id, (None, 0))
            return letter if _kept(forget_ms, self._clock.now_ms()) else None

    def close(self) -> None:
        """Nothing to close."""


def _kept(forget_ms: int | None, now: int) -> bool:
    return forget_ms is None or forget_ms > now


def _size(ranges: Ranges) -> int:
    return sum(count for _, count in ranges)


def _rank(node: Node, queues: Sequence[str]) -> tuple[int, int, tuple[int, int]]:
    return (-node.task.priority, queues.index(node.task.queue), node.place)


def _page(table: dict[bytes, Any], after: bytes) -> list[bytes]:
    """Keys, newest first, behind `after`."""
    ids = list(reversed(table))
    return ids[ids.index(after) + 1 :] if after in table else ids


def _run_info(run: Run) -> RunInfo:
    root, plan = run.nodes[ROOT], run.plan
    n = len(run.nodes) - 1
    value = plan.rows[ROOT].value
    return RunInfo(plan.id, plan.name, root.state, run.created_ms, run.ended_ms, n, value)


def _node_info(node: Node) -> NodeInfo:
    assert node.row is not None
    cell = read_cell(node.cell) if node.cell else None
    running = node.handed_ms if node.state == S.RUNNING else 0
    return NodeInfo(
        index=node.index,
        name=node.row.name,
        task=node.message.task if node.message else "",
        kind=int(node.row.kind),
        owner=node.row.owner,
        state=node.state,
        attempt=node.attempt,
        losses=len(node.losses),
        ready_ms=node.ready_ms,
        started_ms=cell.started_ms if cell else running,
        ended_ms=cell.ended_ms if cell else 0,
        parents=node.row.parents,
        culprit=None if node.culprit == NO_NODE or not _blames(cell) else node.culprit,
    )


def _blames(cell: Any) -> bool:
    return cell is not None and bool(cell.flags & CULPRIT)
