# SPDX-License-Identifier: MIT
"""The methods of the model that change something."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from flowq.message import Message, node_id, read_cell
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
from flowq.plan import ROOT, Kind, Plan, Ranges, indexes
from flowq.states import State
from flowq.storage.base import (
    UNKNOWN_PATIENCE_MS,
    Loss,
    Send,
    Sent,
    SessionId,
    SessionInfo,
    Step,
    Swept,
    Verdict,
)
from flowq.testing.model.ends import Ends, is_for
from flowq.testing.model.reads import NEVER_MS, Run, Thing

__all__ = ["ModelStore"]

S = State
TIMED = (S.SCHEDULED, S.EXPANDED)
"""Nobody stepped for longer: the store was out of reach, deadlines move on."""


class ModelStore(Ends):
    """The contract of `flowq.storage.base.Store` in plain dicts, for one process.

    Parameters
    ----------
    clock : Clock
    """

    url = "model://"
    shares_processes = False
    most = 128

    # --- taking in -------------------------------------------------------------------------------

    def enqueue(self, messages: Sequence[Message]) -> list[bool | None]:
        """Take tasks called alone; see `Store.enqueue`."""
        with self._change():
            self._front = False
            fresh: list[bool | None] = []
            for place, message in enumerate(messages):
                known = self._find(message.id) or self._run(message.id)
                fresh.append(known is None)
                if fresh[-1] and self._may_not_start(message.parent):
                    fresh[-1] = None
                elif fresh[-1]:
                    self._note_start(message.parent, message.id)
                    t = self._tasks[message.id] = Thing(message.id, Kind.TASK, message)
                    t.ready_ms = self._now
                    self._let_run(t, place)
            return fresh

    def _may_not_start(self, parent: bytes) -> bool:
        """Whether a body that would start something was stopped."""
        t = self._find(parent) or self._find(node_id(parent[:16], ROOT)) if parent else None
        return t is not None and (t.stopping or t.state in (S.CANCELLED, S.SKIPPED))

    def _note_start(self, parent: bytes, child: bytes) -> None:
        if parent:
            self._started.setdefault(parent[:16], []).append((parent, child))

    def submit(self, plan: Plan) -> bool | None:
        """Start a run; see `Store.submit`."""
        with self._change():
            if self._run(plan.id) is not None:
                return False
            if self._may_not_start(plan.parent):
                return None
            self._note_start(plan.parent, plan.id)
            self._front = False
            run = Run(plan, [], self._now)
            self._runs.pop(plan.id, None)  # one that is remembered no more
            self._runs[plan.id] = run
            for index, row in enumerate(plan.rows):
                t = Thing(node_id(plan.id, index), Kind(row.kind), row.message, run, row)
                t.inner[0] = row.inner
                run.nodes.append(t)
            others, self._edges = self._edges, deque()
            self._start(run.nodes[ROOT])
            while self._edges:
                self._drive()
            self._edges = others
            return True

    def fork(
        self,
        run: bytes,
        new: bytes,
        *,
        seen: int,
        chosen: Ranges,
        reopened: Ranges = (),
        dropped: Ranges = (),
        messages: Mapping[int, Message] = {},
    ) -> bool | None:
        """Start a run that takes over what it does not run itself; see `Store.fork`."""
        with self._change():
            if self._run(new) is not None:
                return True
            found = self._run(run)
            if found is None:
                return None
            while self._edges:
                self._drive()
            if not found.ended_ms or seen != self._changes(found):
                return False
            copy = Run(msgspec.structs.replace(found.plan, id=new, parent=b""), [], self._now)
            for t in found.nodes:
                message = messages.get(t.index, t.message)
                id = node_id(new, t.index)
                made = replace(t, id=id, run=copy, losses=[], holder="")
                made.message = message and msgspec.structs.replace(message, id=id)
                made.parents, made.inner = [*t.parents], [*t.inner]
                made.followed, made.forbidden = [*t.followed], {*t.forbidden}
                copy.nodes.append(made)
            self._runs.pop(new, None)
            self._runs[new] = copy
            self._rewind(copy, set(indexes(chosen)), {*indexes(reopened), ROOT}, dropped)
            return True

    # --- the step --------------------------------------------------------------------------------

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
        with self._change():
            self._close_gap(lease_ms // 3)
            self._touch(session, lease_ms)
            verdicts = [self._settle(session, o, place) for place, o in enumerate(outcomes)]
            self._drive()
            self._take_back()
            self._drive()
            self._queue_due()
            self._queues.update(queues)
            given = self._hand_out(session, want, queues)
            left = self._ready(queues)
            timed = (t for t in self._things() if 0 < t.due_ms < NEVER_MS)
            moments = [t.due_ms for t in timed if t.state in TIMED]
            moments += [self._now] if self._edges else []
            moments += [s.deadline_ms for s in self._sessions.values() if s.id != session]
            return Step(
                verdicts=verdicts,
                deliveries=self._deliveries(given),
                ready=len(left),
                alone=any(t.losses for t in left),
                next_ms=max(0, min(moments) - self._now) if moments else None,
                stops=self._stops(session),
                unopened=session in self._unopened,
            )

    def _settle(self, session: SessionId, outcome: Outcome, place: int) -> Verdict:
        t = self._find(outcome.id)
        if t is None and len(outcome.id) == 16:  # a task alone that has become a run
            t = self._find(node_id(outcome.id, ROOT))
        if t is None or t.delivery != outcome.delivery:
            return "stale"
        if t.holder != session:
            return "repeated" if t.settled else "stale"
        t.settled = True
        if t.stopping and t.overdue:
            self._finish(t, S.FAILED, self._overdue_by(t, outcome))
        elif t.stopping:
            self._finish(t, S.CANCELLED, self._stopped_cell(outcome))
        elif isinstance(outcome, RetryAt):
            t.attempt += 1
            self._at(t, self._now + outcome.delay_ms, front=True)
        elif isinstance(outcome, GiveBack):
            self._at(t, 0, front=True)
            t.order = (0, -self._call, 0, b"", place, t.id)  # before all that came back earlier
        elif isinstance(outcome, Expand):
            self._expand(t, outcome.rows)
        elif isinstance(outcome, Unknown):
            t.unknown_ms = t.unknown_ms or self._now
            waited = self._now - t.unknown_ms
            if waited >= UNKNOWN_PATIENCE_MS:
                self._bury(t, "unknown task")
                self._finish(t, S.FAILED, outcome.cell)
            else:
                self._at(t, self._now + min(max(waited, 1_000), 30_000), front=True)
        else:
            if isinstance(outcome, Failed) and outcome.dead:
                self._bury(t, outcome.dead)
            self._finish(t, outcome.state, outcome.cell)
        return "settled"

    def _stopped_cell(self, outcome: Outcome) -> bytes:
        if isinstance(outcome, Cancelled):
            return outcome.cell
        started_ms = 0
        if isinstance(outcome, Done | Failed | Skipped):
            started_ms = read_cell(outcome.cell).started_ms
        return self._cell(
            S.CANCELLED, b"cancelled", delivery=outcome.delivery, started_ms=started_ms
        )

    def _overdue_by(self, t: Thing, outcome: Outcome) -> bytes:
        """The cell of a body that ran when the deadline of something around it passed."""
        ran = read_cell(self._stopped_cell(outcome))
        cell = read_cell(self._overdue_cell(t))
        times = {"delivery": outcome.delivery, "started_ms": ran.started_ms}
        return self._cell(S.FAILED, cell.body, **times)

    def _take_back(self) -> None:
        self._tick += 1
        for info in [s for s in self._sessions.values() if s.deadline_ms <= self._now]:
            for t in self._held(info.id):
                self._lose(t, info, "the session's lease ran out")
            del self._sessions[info.id]

    def _lose(self, t: Thing, info: SessionInfo, reason: str) -> None:
        """Count a loss of a message whose session is gone."""
        if t.stopping and t.overdue:
            body = read_cell(self._overdue_cell(t)).body
            self._finish(t, S.FAILED, self._cell(S.FAILED, body, delivery=t.delivery))
            return
        if t.stopping:
            cell = self._cell(S.CANCELLED, b"cancelled", delivery=t.delivery)
            self._finish(t, S.CANCELLED, cell)
            return
        t.losses.append(Loss(info.id, info.host, info.pid, t.delivery, self._now, reason))
        self._at(t, 0, front=True)
        if len(t.losses) >= t.call.max_losses:
            self._bury(t, "lost")
            self._fail(t, "lost", f"its worker was lost {len(t.losses)} times: {reason}")

    def _queue_due(self) -> None:
        self._tick += 1
        due = [t for t in self._things() if 0 < t.due_ms <= self._now and t.state in TIMED]
        for t in sorted(due, key=lambda t: (t.due_ms, t.id)):
            if t.kind == Kind.TASK:
                self._at(t, 0, front=not t.order[0], place=t.due_ms)
        rest = [t for t in due if t.kind != Kind.TASK]
        for t in sorted(rest, key=lambda t: (t.due_ms, t.id)):
            if t.kind == Kind.EXPANSION:
                self._pass_deadline(t)
            elif t.plan.signal:
                self._time_out(t)
            else:
                self._pass(t)
        if rest:
            self._drive()

    # --- handing out -----------------------------------------------------------------------------

    def _hand_out(self, session: SessionId, want: int, queues: Sequence[str]) -> list[Thing]:
        held = self._held(session)
        if want == 0 or any(t.losses for t in held):
            return []
        live = sum(s.deadline_ms > self._now for s in self._sessions.values())
        want = min(want, max(1, -(-len(self._ready(queues)) // live)))
        chosen = self._choose(self._ready(queues), want, idle=not held)
        while late := [t for t in chosen if self._is_late(t)]:
            if paused := [t for t in late if t.run and t.run.paused]:
                for t in paused:
                    self._leave(t)
                    t.state, t.waits_at = S.HELD, None
                self._drive()
            elif closed := [t for t in late if self._is_closed(t)]:
                for t in closed:
                    self._stop(t)
            else:
                self._expire(late)
            chosen = self._choose(self._ready(queues), want, idle=not held)
        for t in chosen:
            t.state, t.holder, t.settled = S.RUNNING, session, False
            t.delivery += 1
            t.handed_ms = self._now
        return chosen

    def _is_late(self, t: Thing) -> bool:
        """Whether it is not handed out, though it is its turn."""
        return self._late(t) or self._is_closed(t) or (t.run is not None and t.run.paused)

    def _choose(self, ready: Sequence[Thing], want: int, *, idle: bool) -> list[Thing]:
        """Choose what a session is handed, of what is ready in its order."""
        chosen: list[Thing] = []
        for t in ready:
            if t.losses:
                if idle and not chosen:
                    return [t]
                continue
            if len(chosen) == want or (t.call.prefetch and chosen):
                break
            chosen.append(t)
            if t.call.prefetch:
                break
        return chosen

    def _expire(self, late: Iterable[Thing]) -> None:
        for t in late:
            self._fail(t, "expired", "Expired('was not begun in time')")
        self._drive()

    # --- sessions --------------------------------------------------------------------------------

    def _close_gap(self, period_ms: int) -> None:
        gap = self._now - self._seen - period_ms
        if self._seen and gap > 0:
            for s in self._sessions.values():
                self._touch(s.id, s.deadline_ms + gap - self._now)
        self._seen = max(self._seen, self._now)

    def _touch(self, session: SessionId, lease_ms: int) -> None:
        if session not in self._sessions:
            self._unopened.add(session)
        info = self._sessions.get(session, SessionInfo(session))
        self._sessions[session] = msgspec.structs.replace(info, deadline_ms=self._now + lease_ms)

    def open_session(self, info: SessionInfo, *, lease_ms: int = 30_000) -> None:
        """Register a session; see `Store.open_session`."""
        with self._change():
            self._sessions[info.id] = info
            self._unopened.discard(info.id)
            self._touch(info.id, lease_ms)

    def renew(
        self, sessions: Sequence[SessionId], *, lease_ms: int = 30_000, period_ms: int = 10_000
    ) -> list[list[bytes] | None]:
        """Push back deadlines; see `Store.renew`."""
        with self._change():
            self._close_gap(period_ms)
            for session in sessions:
                if session in self._sessions:
                    self._touch(session, lease_ms)
            return [self._stops(s) if s in self._sessions else None for s in sessions]

    def release(self, session: SessionId, *, lost: Sequence[bytes] = (), reason: str = "") -> int:
        """End a session; see `Store.release`."""
        with self._change():
            info = self._sessions.pop(session, None)
            held = self._held(session) if info else []
            for t in held:
                if info and (t.id in lost or t.stopping):
                    self._lose(t, info, reason)
                else:
                    self._at(t, 0, front=True)
            self._drive()
            return len(held)

    # --- from outside ----------------------------------------------------------------------------

    def cancel(self, ids: Sequence[bytes], *, force: bool = False) -> list[State | None]:
        """Stop tasks or nodes; see `Store.cancel`."""
        with self._change():
            found = [self._find(id) or self._find(node_id(id, ROOT)) for id in ids]
            for t in found:
                if t is None or t.state.final:
                    continue
                if t.parked:
                    self._unpark(t)
                if t.run and t.index == ROOT:
                    self._go_on(t.run)  # else what is to clean up after it would wait
                    t.run.request = b""
                    for parked in [x for x in t.run.nodes if x.parked]:
                        self._unpark(parked)
                if t.state.final:
                    continue
                if t.state == S.EXPANDED:
                    self._cancel_inwards(t, force=force)
                elif t.state == S.RUNNING:
                    t.stopping = True
                else:
                    self._finish(t, S.CANCELLED, self._cell(S.CANCELLED, b"cancelled"))
            while self._edges:
                self._drive()
            return [None if t is None else t.state for t in found]

    def rewind(
        self,
        run: bytes,
        generation: int,
        *,
        chosen: Ranges,
        reopened: Ranges = (),
        dropped: Ranges = (),
        seen: int = -1,
    ) -> bool | None:
        """Let nodes of a run run again; see `Store.rewind`."""
        with self._change():
            found = self._run(run)
            if found is None:
                return None
            root = found.nodes[ROOT]
            if root.generation == generation:
                return True
            if root.generation + 1 != generation:
                return False
            while self._edges:
                self._drive()
            again, opened = set(indexes(chosen)), {*indexes(reopened), ROOT}
            if not found.ended_ms and seen != self._changes(found):
                return False
            if any(found.nodes[i].under_way for i in again):
                return False
            if not all(found.nodes[i].may_open for i in opened):
                return False
            self._rewind(found, again, opened, dropped)
            while self._edges:
                self._drive()
            return True

    def park(
        self, run: bytes, request: bytes, *, seen: int, nodes: Ranges, stop: Ranges = ()
    ) -> bool | None:
        """Let nobody see how nodes end that are to run anew; see `Store.park`."""
        with self._change():
            found = self._run(run)
            if found is None:
                return None
            there = [found.nodes[i] for i in indexes(nodes)]
            if found.request == request and all(t.parked for t in there):
                return True
            while self._edges:
                self._drive()
            if found.ended_ms or seen != self._changes(found):
                return False
            if not all(t.under_way or t.parked for t in there):
                return False
            found.request = request
            for t in [found.nodes[i] for i in indexes(stop)]:
                if t.under_way:
                    self._stop(t)
            for t in there:
                t.parked = True
            while self._edges:
                self._drive()
            return True

    def send(
        self,
        run: bytes,
        name: str,
        body: bytes,
        *,
        to: str = "",
        key: str = "",
        who: str = "",
    ) -> Send | None:
        """Send a value to a run; see `Store.send`."""
        with self._change():
            found = self._run(run)
            if found is None:
                return None
            if key and any(sent.key == key for sent, _ in found.sends):
                return "repeated"
            if found.ended_ms:
                return "ended"
            waiting = [
                t
                for t in found.nodes
                if t.state == S.SCHEDULED and t.kind == Kind.JOIN and is_for(name, to, t.plan)
            ]
            taker = min(waiting, key=lambda t: (t.ready_ms, t.index), default=None)
            node = None if taker is None else taker.index
            found.sends.append((Sent(name, to, key, who, self._now, node), body))
            if taker is None:
                return "kept"
            self._finish(taker, S.SUCCESS, self._cell(S.SUCCESS, body))
            self._drive()
            return "taken"

    def pause(self, run: bytes) -> State | None:
        """Let nothing more of a run be handed out; see `Store.pause`."""
        return self._set_paused(run, paused=True)

    def resume(self, run: bytes) -> State | None:
        """Let a run that is paused go on; see `Store.resume`."""
        return self._set_paused(run, paused=False)

    def _set_paused(self, run: bytes, *, paused: bool) -> State | None:
        with self._change():
            found = self._run(run)
            if found is None:
                return None
            if paused:
                found.paused = not found.ended_ms
            else:
                self._go_on(found)
            return found.nodes[ROOT].state

    def _go_on(self, run: Run) -> None:
        run.paused = False
        for t in run.nodes:
            if t.state == S.HELD and not t.over:
                self._at(t, 0, front=True, run=run.plan.id, place=t.index)

    def reschedule(self, id: bytes, *, delay_ms: int = 0, due_ms: int = 0) -> State | None:
        """Let an unstarted task become due at another time; see `Store.reschedule`."""
        with self._change():
            t = self._find(id)
            if t is None or t.state not in (S.QUEUED, S.SCHEDULED):
                return None if t is None else t.state
            due = max(self._now + delay_ms, due_ms)
            if t.kind == Kind.JOIN:
                t.due_ms = due
            elif t.state == S.SCHEDULED or due > self._now:  # else it is in its turn already
                self._at(t, due, front=not t.order[0])
                self._drive()
            return t.state

    def sweep(self, *, limit: int = 1_000) -> Swept:
        """Do a bounded part of the housekeeping; see `Store.sweep`."""
        with self._change():
            continued = len({(id(run), state) for run, _, state, _ in self._edges})
            self._drive()
            open_ = (S.SCHEDULED, S.QUEUED)
            late = [t for t in self._things() if t.state in open_ and self._late(t)][:limit]
            self._expire(late)
            drops: list[Callable[[], object]] = []
            for key, task in self._tasks.items():
                if 0 < task.forget_ms <= self._now:
                    drops.append(lambda key=key: self._tasks.pop(key))  # type: ignore[misc]
            for key, run in self._runs.items():
                if 0 < run.forget_ms <= self._now:
                    drops.append(lambda key=key: self._runs.pop(key))  # type: ignore[misc]
            gone = [key for key in self._dead if not self._kept(key)]
            drops += [lambda key=key: self._dead.pop(key) for key in gone]  # type: ignore[misc]
            old = [key for key, (till, _) in self._cache.items() if till <= self._now]
            drops += [lambda key=key: self._cache.pop(key) for key in old]  # type: ignore[misc]
            for drop in drops[:limit]:
                drop()
            n = len(late) + len(drops[:limit])
            return Swept(n, continued, n >= limit or bool(self._edges))

    def remember(self, entries: Sequence[tuple[bytes, bytes]], *, ttl_ms: int) -> None:
        """Remember bytes under keys; see `Store.remember`."""
        with self._change():
            self._cache.update((key, (self._now + ttl_ms, raw)) for key, raw in entries)

    def recall(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Give what is remembered under keys; see `Store.recall`."""
        with self._change():
            found = [self._cache.get(key, (0, None)) for key in keys]
            return [raw if till > self._now else None for till, raw in found]

    def close(self) -> None:
        """Nothing to close."""
