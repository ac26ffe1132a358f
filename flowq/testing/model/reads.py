# SPDX-License-Identifier: MIT
"""What the model keeps, and what can be read of it."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Final
from zlib import crc32

import msgspec

from flowq.clock import SYSTEM_CLOCK, Clock
from flowq.message import (
    CULPRIT,
    NO_NODE,
    TEMPLATE,
    Delivery,
    Message,
    encode_message,
    node_id,
    pack_cell,
    read_cell,
)
from flowq.plan import ROOT, Along, Bits, Kind, NodeRow, Phase, Plan, Ranges, When, indexes
from flowq.states import State
from flowq.storage.base import (
    REPLY_BYTES,
    DeadLetter,
    Look,
    Loss,
    NodeInfo,
    Places,
    QueueInfo,
    RunInfo,
    Sent,
    SessionId,
    SessionInfo,
    Status,
)

__all__ = ["FAILED", "NEVER_MS", "PLACE", "Reads", "Run", "Thing"]

S = State
FAILED: Final = (S.FAILED, S.BLOCKED)
"""What counts as failed."""
NEVER_MS: Final = 1 << 62
"""When a join is due that waits without a timeout."""
PLACE: Final = {S.SUCCESS: 0, S.FAILED: 1, S.BLOCKED: 1, S.SKIPPED: 2, S.CANCELLED: 3}
"""Where `flowq.states.Counts` counts an end."""


@dataclass(slots=True, eq=False)
class Thing:
    """A task called alone, or a node: all that is known of it."""

    id: bytes
    kind: Kind
    message: Message | None
    run: Run | None = None
    row: NodeRow | None = None
    state: State = S.WAITING
    order: tuple[int, int, int, bytes, int, bytes] = (1, 0, 0, b"", 0, b"")
    """Its turn among equal priorities: 0 came back or was queued by a settlement, 1 enqueued; the
    call that queued it; what was queued together (page, run), its place there, and its id."""
    waits_at: tuple[bytes, str] | None = None
    """The limit that has no room for it, while it is held by one."""
    turn: tuple[int, int, int, bytes, int] = (0, 0, 0, b"", 0)
    """Its turn among those that wait there."""
    parked: bool = False
    """Whether nobody is to see its end."""
    over: tuple[State, bytes, int | None] | None = None
    """Of what is parked: state, cell and culprit, once it has ended."""
    ready_ms: int = 0
    due_ms: int = 0
    expires_ms: int = 0
    handed_ms: int = 0
    forget_ms: int = 0
    unknown_ms: int = 0
    delivery: int = 0
    attempt: int = 0
    losses: list[Loss] = field(default_factory=list)
    holder: SessionId = ""
    settled: bool = False
    """Whether its present delivery was settled by the session that had it."""
    stopping: bool = False
    cell: bytes | None = None
    parents: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """Parents that succeeded, failed, were skipped, were cancelled."""
    inner: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """Of an expansion: of those whose turn it is, how many are unfinished; failures, cancels and
    skips that count."""
    won: int = 0
    """Of an expansion with a need: how many of its body succeeded."""
    overdue: bool = False
    """Of an expansion: whether its deadline passed while its body ran. Of a task: whether it ran
    then."""
    followed: list[Along] = field(default_factory=list)
    """Of an expansion: what goes along with its items."""
    lost: bool = False
    """Whether a race that owns it was decided while it was unfinished."""
    generation: int = 0
    gone: bool = False
    """Whether it was dropped by a rewind."""
    phase: Phase = Phase.BODY
    passed: int = 0
    """Of an expansion: whose turn it is: 0 its body's, k the k-th group's of `later`."""
    outcome: State | None = None
    given: bytes = b""
    """Of an expansion: the template of its value, once the outcome is fixed."""
    stopped: bool = False
    closing: bool = False
    forbidden: set[Phase] = field(default_factory=set)
    """Of an expansion: later phases that a cancel has forbidden."""
    blame: int | None = None
    """Culprit of the first parent, or inner node, that failed."""

    @property
    def index(self) -> int:
        """Its index in its run."""
        return int.from_bytes(self.id[16:], "big")

    @property
    def plan(self) -> NodeRow:
        """Its row in the plan of its run."""
        assert self.row is not None
        return self.row

    @property
    def fails(self) -> bool:
        """Whether it ended as a failure that counts in the expansion around it."""
        bits = self.plan.bits
        forgiven = bool(bits & Bits.FORGIVEN)
        if self.state == S.FAILED:
            forgiven |= bool(bits & Bits.COUNTS_AS_SUCCESS)
        return self.state in FAILED and not forgiven

    @property
    def adds(self) -> tuple[int, int, int, int]:
        """What it adds to `inner` of the expansion around it."""
        bits = self.plan.bits
        return (
            not self.state.final,
            self.fails,
            self.state == S.CANCELLED and not bits & Bits.FORGIVEN,
            self.state == S.SKIPPED and bool(bits & Bits.NAMED),
        )

    @property
    def has_begun(self) -> bool:
        """Whether it is an expansion that has begun, in this generation or before."""
        return self.kind == Kind.EXPANSION and self.ready_ms > 0

    @property
    def goes_along(self) -> bool:
        """Whether its parents are nodes of other expansions."""
        if self.run is None or self.index == ROOT or self.plan.phase != Phase.BODY:
            return False
        return bool(self.plan.parents and self.run.nodes[self.plan.owner].plan.along)

    @property
    def wins(self) -> bool:
        """Whether it ended as one that the expansion around it needs."""
        assert self.run is not None
        owner = self.run.nodes[self.plan.owner]
        body = self.plan.phase == Phase.BODY
        return bool(owner.plan.need) and body and self.state == S.SUCCESS

    @property
    def is_full(self) -> bool:
        """Whether it is an expansion of whose body as many are under way as may be."""
        most = self.plan.most
        if not most or self.run is None:
            return False
        body = (self.run.nodes[i] for i in indexes(self.plan.body))
        under = (S.WAITING < x.state <= S.EXPANDED for x in body if x.plan.phase == Phase.BODY)
        return sum(under) >= most

    @property
    def met(self) -> bool:
        """Whether it is an expansion that has what it needs."""
        return 0 < self.plan.need <= self.won

    @property
    def is_not_wanted(self) -> bool:
        """Whether it ends skipped, however it ends."""
        if self.run is None or self.index == ROOT:
            return False
        owner = self.run.nodes[self.plan.owner]
        return self.lost or (owner.met and self.plan.phase == Phase.BODY)

    def has_turn(self, inner: Thing) -> bool:
        """Whether it is the turn of a node in it: of its body, or of one of the later groups."""
        if inner.plan.phase == Phase.BODY or not self.passed:
            return inner.plan.phase == Phase.BODY and not self.passed
        return inner.index in indexes(self.plan.later[self.passed - 1].body)

    def may_alarm(self, inner: Thing) -> bool:
        """Whether a node in it is an alarm, which may start before its turn."""
        return Phase.HANDLERS not in self.forbidden and any(
            group.phase == Phase.HANDLERS
            and group.when == When.ALWAYS
            and inner.index in indexes(group.body)
            for group in self.plan.later[self.passed :]
        )

    def counts_as(self, child: int) -> State:
        """What a child counts of its end."""
        if child in indexes(self.plan.lenient):
            return S.SUCCESS
        if self.state != S.FAILED or not self.plan.bits & Bits.COUNTS_AS_SUCCESS:
            return self.state
        assert self.run is not None
        plan = self.run.nodes[child].plan
        alarm = plan.phase > self.plan.phase
        return S.FAILED if alarm or plan.bits & Bits.RACE else S.SUCCESS

    @property
    def limits(self) -> list[tuple[tuple[bytes, str], int]]:
        """Which limits bind it, and how many places each has."""
        return self.limits_of_task if self.kind == Kind.TASK else []

    @property
    def limits_of_task(self) -> list[tuple[tuple[bytes, str], int]]:
        """The same, also of what was a task before it was an expansion."""
        if self.run is None or self.message is None:
            return []
        run = self.run.plan.id
        return [((run if key[:1] == "/" else b"", key), n) for key, n in self.message.limits]

    @property
    def under_way(self) -> bool:
        """Whether it runs, or what is in it does."""
        return self.state in (S.RUNNING, S.EXPANDED) and self.over is None

    @property
    def may_open(self) -> bool:
        """Whether an expansion may be opened again now."""
        in_body = self.state == S.EXPANDED and not self.passed
        return self.state.final or self.over is not None or (in_body and not self.closing)

    @property
    def call(self) -> Message:
        """The message of a task."""
        assert self.message is not None
        return self.message


@dataclass(slots=True, eq=False)
class Run:
    """A run with its nodes, by index."""

    plan: Plan
    nodes: list[Thing]
    created_ms: int
    ended_ms: int = 0
    forget_ms: int = 0
    paused: bool = False
    request: bytes = b""
    sends: list[tuple[Sent, bytes]] = field(default_factory=list)


class Reads:
    """What a `ModelStore` holds; its methods change nothing."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._tasks: dict[bytes, Thing] = {}
        self._runs: dict[bytes, Run] = {}
        self._dead: dict[bytes, tuple[DeadLetter, Run | int]] = {}
        """Dead letters, each with the run that it is kept with, or until when."""
        self._sessions: dict[SessionId, SessionInfo] = {}
        self._unopened: set[SessionId] = set()
        self._started: dict[bytes, list[tuple[bytes, bytes]]] = {}
        """What bodies of a run or task have started."""
        self._cache: dict[bytes, tuple[int, bytes]] = {}
        """What is remembered beside, each until when."""
        self._queues: set[str] = set()
        self._edges: deque[tuple[Run, int, State, int | None]] = deque()
        """What is still to be counted: run, child, how its parent ended, the culprit. With
        EXPANDED for a state: an entry of an expansion that began; with WAITING: a node in the body
        of one that ended before it began."""
        self._call = 0
        self._tick = 0
        self._preferred: dict[bytes, int] = {}
        self._front = True
        self._seen = 0
        self._woken = 0

    def prefer(self, ids: Sequence[bytes]) -> None:
        """Hand these out first and in this order, where the contract leaves the order open."""
        self._preferred = {id: i for i, id in enumerate(ids)}

    # --- what all methods need -------------------------------------------------------------------

    @property
    def _now(self) -> int:
        return self._clock.now_ms()

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._changed:
            self._call += 1
            self._tick += 1
            self._front = True
            yield
            self._changed.notify_all()

    def _things(self) -> Iterator[Thing]:
        yield from self._tasks.values()
        for run in self._runs.values():
            yield from (t for t in run.nodes if not t.gone)

    def _run(self, id: bytes) -> Run | None:
        run = self._runs.get(id)
        return None if run is None or 0 < run.forget_ms <= self._now else run

    def _find(self, id: bytes) -> Thing | None:
        if len(id) == 16:
            task = self._tasks.get(id)
            return None if task is None or 0 < task.forget_ms <= self._now else task
        run, index = self._run(id[:16]), int.from_bytes(id[16:], "big")
        found = run.nodes[index] if run and index < len(run.nodes) else None
        return None if found is None or found.gone else found

    def _holders(self, limit: tuple[bytes, str]) -> list[Thing]:
        """Who has a place at a limit."""
        return [
            t
            for t in self._things()
            if t.state in (S.QUEUED, S.RUNNING) and any(limit == one for one, _ in t.limits)
        ]

    def _waiters(self, limit: tuple[bytes, str]) -> list[Thing]:
        """Who waits at a limit, in turn."""
        found = [t for t in self._things() if t.state == S.HELD and t.waits_at == limit]
        return sorted(found, key=lambda t: t.turn)

    def _full(self, t: Thing) -> tuple[bytes, str] | None:
        """The first limit that has no room for it."""
        for limit, most in t.limits:
            holders = self._holders(limit)
            if t not in holders and len(holders) >= most:
                return limit
        return None

    def _held(self, session: SessionId) -> list[Thing]:
        held = [t for t in self._things() if session and t.holder == session]
        return sorted(held, key=lambda t: (t.handed_ms, t.order))

    def _ready(self, queues: Iterable[str]) -> list[Thing]:
        """Give what is queued, in the order in which it would be handed out."""
        place = {queue: i for i, queue in reversed(list(enumerate(queues)))}
        found = [t for t in self._things() if t.state == S.QUEUED and t.call.queue in place]
        found.sort(key=lambda t: (-t.call.priority, place[t.call.queue], t.order))
        if not self._preferred:
            return found
        turns = groupby(found, lambda t: (t.call.priority, t.call.queue, t.order[:2]))
        return [t for _, equal in turns for t in self._as_preferred(list(equal))]

    def _as_preferred(self, equal: list[Thing]) -> list[Thing]:
        """Order what one call queued: as is preferred, where the contract leaves it open."""
        last = len(self._preferred)
        ordered = []
        while equal:
            free = [t for t in equal if not any(_before(other, t) for other in equal)]
            ordered.append(min(free, key=lambda t: self._preferred.get(t.id, last)))
            equal.remove(ordered[-1])
        return ordered

    def _kept(self, id: bytes) -> bool:
        """Whether a dead letter is still kept: one of a node as long as its run."""
        until = self._dead[id][1]
        if isinstance(until, Run):
            return self._run(until.plan.id) is until
        return until > self._now

    def _late(self, t: Thing) -> bool:
        return 0 < t.expires_ms <= self._now

    def _deliveries(self, things: Iterable[Thing]) -> list[Delivery]:
        left, given = REPLY_BYTES, []
        for t in things:
            values: dict[int, bytes] = {}
            complete = True
            for i in indexes(t.row.follows if t.row else ()):
                assert t.run is not None
                value = t.run.nodes[i].plan.value
                values[i] = pack_cell(S.EXPANDED, value, flags=TEMPLATE, ended_ms=0)
            for i in indexes(t.row.reads if t.row else ()):
                cell = t.run.nodes[i].cell if t.run else None
                if cell is None or i in values:
                    continue
                if len(cell) > left and left < REPLY_BYTES:
                    complete = False
                    break
                values[i] = cell
                left -= len(cell)
            body = encode_message(t.call)
            given.append(
                Delivery(t.id, t.delivery, t.attempt, len(t.losses), body, values, complete)
            )
        return given

    def _stops(self, session: SessionId) -> list[bytes]:
        return sorted(t.id for t in self._held(session) if t.stopping)

    # --- what is compared ------------------------------------------------------------------------

    def check(self, run: bytes) -> list[str]:
        """Compare a run's counts with its nodes' states; see `Store.check`."""
        with self._changed:
            found = self._run(run)
            if found is None:
                return ["the run is not known"]
            if any(r is found for r, *_ in self._edges):
                return []
            wrong = []
            inner = [[0, 0, 0, 0] for _ in found.nodes]
            won = [0] * len(found.nodes)
            # nothing is counted along the edges in an expansion that ended before it began
            closed = {t.index for t in found.nodes if t.state.final and not t.ready_ms}
            for t in [t for t in found.nodes if not t.gone]:
                true = [0, 0, 0, 0]
                for p in indexes(t.plan.parents):
                    parent = found.nodes[p]
                    if p in indexes(t.plan.follows) and parent.has_begun:
                        true[0] += 1
                    elif parent.state.final:
                        true[PLACE[parent.counts_as(t.index)]] += 1
                if t.index == ROOT:
                    continue
                owner = found.nodes[t.plan.owner]
                quiet = owner.index in closed  # nor in a group that is not called
                quiet |= t.plan.phase != Phase.BODY and not owner.has_turn(t)
                quiet |= t.goes_along  # its counts are taken when it is weighed
                fits = all(a <= b for a, b in zip(t.parents, true, strict=True))
                if not fits if quiet else t.parents != true:
                    wrong.append(f"node {t.index} counts {t.parents}, its parents say {true}")
                if owner.has_turn(t):
                    counts = inner[owner.index]
                    inner[owner.index] = [n + m for n, m in zip(counts, t.adds, strict=True)]
                won[owner.index] += t.wins
            for t, true in zip(found.nodes, inner, strict=True):
                if t.inner != true and not t.gone:
                    wrong.append(f"expansion {t.index} counts {t.inner}, its nodes say {true}")
                if t.won != won[t.index] and not t.gone:
                    wrong.append(f"expansion {t.index} counts {t.won} wins, not {won[t.index]}")
            return wrong

    # --- what waits ------------------------------------------------------------------------------

    def wait_ready(self, queues: Sequence[str], *, timeout: float) -> bool:
        """Sleep until work may be there; see `Store.wait_ready`."""
        with self._changed:
            woken = self._woken
            self._changed.wait_for(lambda: woken != self._woken or self._ready(queues), timeout)
            return bool(self._ready(queues))

    def wait_ended(self, ids: Sequence[bytes], *, timeout: float) -> bool:
        """Sleep until one of these may have ended; see `Store.wait_ended`."""

        def ended() -> bool:
            return any(x is None or x.state.final for x in self.look(ids, cells=False))

        with self._changed:
            return self._changed.wait_for(ended, timeout)

    def wait_moved(self, run: bytes, *, seen: int, timeout: float) -> bool:
        """Sleep until a run may have changed; see `Store.wait_moved`."""

        def moved() -> bool:
            found = self._run(run)
            return found is None or self._changes(found) != seen

        with self._changed:
            return self._changed.wait_for(moved, timeout)

    def wake(self) -> None:
        """Let every `wait_ready` of this object return now."""
        with self._change():
            self._woken += 1

    # --- what reads ------------------------------------------------------------------------------

    def held(self, session: SessionId) -> list[Delivery]:
        """Read back what a session holds; see `Store.held`."""
        with self._changed:
            return self._deliveries(self._held(session))

    def look(self, ids: Sequence[bytes], *, cells: bool = True) -> list[Look | None]:
        """Say where ids stand; see `Store.look`."""
        with self._changed:
            return [self._look(id, cells) for id in ids]

    def _look(self, id: bytes, cells: bool) -> Look | None:
        t = self._find(id)
        is_run = t is None and len(id) == 16
        if is_run:
            t = self._find(node_id(id, ROOT))
        if t is None:
            return None
        cell = t.cell if cells else None
        due = t.due_ms if t.state == S.SCHEDULED and t.due_ms < NEVER_MS else 0
        return Look(t.state, t.attempt, len(t.losses), due, cell, is_run)

    def cells(self, run: bytes, ranges: Ranges) -> dict[int, bytes]:
        """Read the cells of a run's nodes; see `Store.cells`."""
        with self._changed:
            found = ((i, self._find(node_id(run, i))) for i in indexes(ranges))
            return {i: t.cell for i, t in found if t and t.cell is not None}

    def message(self, id: bytes) -> bytes | None:
        """Give an encoded message; see `Store.message`."""
        with self._changed:
            t = self._find(id) or (self._find(node_id(id, ROOT)) if len(id) == 16 else None)
            return encode_message(t.message) if t and t.message else None

    def run(self, id: bytes) -> RunInfo | None:
        """Describe one run, or None."""
        with self._changed:
            run = self._run(id)
            if run is None:
                return None
            root = run.nodes[ROOT]
            times = run.created_ms, run.ended_ms
            inner = sum(not t.gone for t in run.nodes) - 1
            value, paused = root.plan.value, run.paused
            name, changes = run.plan.name, self._changes(run)
            return RunInfo(id, name, root.state, *times, inner, value, paused, changes, run.request)

    def _changes(self, run: Run) -> int:
        """A number that is another one once a node has changed."""
        nodes = [(t.state, t.generation, t.delivery, t.over is None, t.gone) for t in run.nodes]
        return crc32(repr(nodes).encode())

    def sent(self, run: bytes) -> list[Sent]:
        """List what was sent to a run; see `Store.sent`."""
        with self._changed:
            found = self._run(run)
            return [sent for sent, _ in found.sends] if found else []

    def started(
        self, id: bytes, *, after: bytes = b"", limit: int = 500
    ) -> list[tuple[bytes, bytes]]:
        """List what bodies have started; see `Store.started`."""
        with self._changed:
            known = self._find(id) or self._run(id)
            found = self._started.get(id, []) if known else []
            first = 1 + [child for _, child in found].index(after) if after else 0
            return found[first : first + limit]

    def nodes(
        self, run: bytes, *, after: int = -1, limit: int = 500, state: State | None = None
    ) -> list[NodeInfo]:
        """List nodes of a run by index; see `Store.nodes`."""
        with self._changed:
            found = self._run(run)
            nodes = islice(found.nodes, after + 1, None) if found else ()
            wanted = (t for t in nodes if not t.gone and state in (None, t.state))
            return [_info(t) for t in islice(wanted, limit)]

    def places(self, id: bytes) -> list[Places]:
        """Describe the limits of a node; see `Store.places`."""
        with self._changed:
            t = self._find(id)
            found = []
            for limit, most in t.limits if t else ():
                there = sorted(x.id for x in self._holders(limit))
                waiting = len(self._waiters(limit))
                found.append(Places(limit[1], most, len(there), there[:100], waiting))
            return found

    def runs(self, *, after: bytes = b"", limit: int = 100) -> list[RunInfo]:
        """List runs, newest first; see `Store.runs`."""
        with self._changed:
            infos = [self.run(id) for id in _page(self._runs, after)]
            return [info for info in infos if info is not None][:limit]

    def sessions(self) -> list[SessionInfo]:
        """List the sessions whose deadline has not passed."""
        with self._changed:
            return [
                msgspec.structs.replace(s, held=len(self._held(s.id)))
                for s in self._sessions.values()
                if s.deadline_ms > self._now
            ]

    def status(self) -> Status:
        """Count."""
        with self._changed:
            states = Counter(t.state for t in self._things())
            queued = Counter(t.call.queue for t in self._things() if t.state == S.QUEUED)
            return Status(
                queues=[QueueInfo(queue, queued[queue]) for queue in sorted(self._queues)],
                scheduled=states[S.SCHEDULED],
                running=states[S.RUNNING],
                dead=len(self._dead),
                runs=sum(not run.ended_ms for run in self._runs.values()),
            )

    def left(self, queues: Sequence[str]) -> bool:
        """Say whether anything is to run; see `Store.left`."""
        with self._changed:
            open_ = (S.SCHEDULED, S.QUEUED, S.RUNNING)
            found = (
                t.state in open_ and (t.kind == Kind.JOIN or t.call.queue in queues)
                for t in self._things()
            )
            return bool(self._edges) or any(found)

    def dead(self, *, after: bytes = b"", limit: int = 100) -> list[DeadLetter]:
        """List dead letters, newest first; see `Store.dead`."""
        with self._changed:
            letters = [self.dead_letter(id) for id in _page(self._dead, after)]
            return [letter for letter in letters if letter is not None][:limit]

    def dead_letter(self, id: bytes) -> DeadLetter | None:
        """Give one dead letter, or None."""
        with self._changed:
            letter, _ = self._dead.get(id, (None, 0))
            return letter if letter and self._kept(id) else None


def _before(a: Thing, b: Thing) -> bool:
    """Whether one goes before another that the same call has queued."""
    together = a.order[:4] == b.order[:4] and bool(a.losses) == bool(b.losses)
    return together and a.order[4] < b.order[4]


def _page(kept: Mapping[bytes, object], after: bytes) -> list[bytes]:
    """Ids that were kept before `after`, newest first."""
    newest_first = list(kept)[::-1]
    return newest_first[newest_first.index(after) + 1 :] if after in kept else newest_first


def _info(t: Thing) -> NodeInfo:
    started = ended = 0
    culprit = None
    if t.cell is not None:
        cell = read_cell(t.cell)
        started, ended = cell.started_ms, cell.ended_ms
        if cell.flags & CULPRIT:
            blamed = int.from_bytes(cell.body[:4], "big")
            culprit = None if blamed == NO_NODE else blamed
    elif t.state == S.RUNNING:
        started = t.handed_ms
    n = sum(count for _, count in t.plan.parents)
    return NodeInfo(
        index=t.index,
        name=t.plan.name,
        task=t.message.task if t.message else "",
        kind=t.kind,
        owner=t.plan.owner,
        state=t.state,
        attempt=t.attempt,
        losses=len(t.losses),
        ready_ms=t.ready_ms,
        started_ms=started,
        ended_ms=ended,
        parents=t.plan.parents,
        culprit=culprit,
        generation=t.generation,
        bits=t.plan.bits,
        phase=t.plan.phase,
        grown=t.kind == Kind.EXPANSION and t.message is not None,
        rule=None if t.plan.rule == (n, 0, n, 0, 0) else t.plan.rule,
        signal=t.plan.signal,
        most=t.plan.most,
        follows=t.plan.follows,
        waits_at=t.waits_at[1] if t.state == S.HELD and t.waits_at else "",
        closing=t.state == S.EXPANDED and not t.may_open,
        parked=(t.over[0] if t.over else S.RUNNING) if t.parked else None,
    )
