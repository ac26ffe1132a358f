# SPDX-License-Identifier: MIT
"""How ends spread in the model: in children, page by page, and in the expansions around."""

from __future__ import annotations

from typing import Final

import msgspec

from flowq.errors import Failure
from flowq.message import (
    CULPRIT,
    EMPTY,
    HEAD,
    NO_NODE,
    TEMPLATE,
    Ref,
    encode_message,
    encode_template,
    id_text,
    node_id,
    pack_cell,
    read_cell,
)
from flowq.plan import (
    ROOT,
    Bits,
    Kind,
    NodeRow,
    Phase,
    Plan,
    Ranges,
    When,
    indexes,
    relocate,
)
from flowq.states import Counts, Rule, State, outcome_of, verdict
from flowq.storage.base import (
    MEMORY_OF_ENDED_MS,
    PAGE,
    DeadLetter,
)
from flowq.testing.model.reads import FAILED, NEVER_MS, PLACE, Reads, Run, Thing

__all__ = ["Ends", "is_for"]

S = State
STOPPED: Final = b"what it stands in was cancelled"
LOST: Final = b"lost"
OVERDUE: Final = -2
"""Stands in the place of a culprit, where a node is stopped because of a deadline."""


class Ends(Reads):
    """What starts and what ends."""

    # --- ends, and what they start ---------------------------------------------------------------

    def _finish(self, t: Thing, state: State, cell: bytes, culprit: int | None = None) -> None:
        if t.parked:
            self._keep_end(t, state, cell, culprit)
            return
        if t.is_not_wanted:
            ran = read_cell(cell)
            times = {"delivery": ran.delivery, "started_ms": ran.started_ms}
            state, culprit, cell = S.SKIPPED, None, self._cell(S.SKIPPED, LOST, **times)
        began = t.state != S.WAITING
        self._leave(t)
        t.state, t.cell, t.holder = state, cell, ""
        if t.run is None:
            ttl = t.call.failed_ttl_ms if state == S.FAILED else t.call.result_ttl_ms
            t.forget_ms = self._now + max(ttl, MEMORY_OF_ENDED_MS)
            if state == S.SUCCESS and ttl == 0:
                t.cell = bytes([state | EMPTY]) + cell[1 : HEAD.size]
            return
        if t.index == ROOT:
            plan = t.run.plan
            ttl = plan.failed_ttl_ms if state == S.FAILED else plan.result_ttl_ms
            t.run.ended_ms, t.run.paused = self._now, False
            t.run.forget_ms = self._now + max(ttl, MEMORY_OF_ENDED_MS)
            return
        if state == S.FAILED and t.kind == Kind.TASK:
            culprit = t.index
            if self._falls_back(t):
                return
        owner = t.run.nodes[t.plan.owner]
        if t.fails and t.plan.bits & Bits.STOPS and not owner.closing and owner.has_turn(t):
            self._close(owner)
        for child in (*indexes(t.plan.children), *indexes(t.plan.lenient)):
            counts = t.counts_as(child)
            self._edges.append((t.run, child, counts, culprit if counts in FAILED else None))
        for child in () if t.has_begun else indexes(t.plan.followers):
            counts = t.counts_as(child)
            self._edges.append((t.run, child, counts, culprit if counts in FAILED else None))
        for along in owner.followed:
            if 0 <= t.index - along.first < along.count:
                self._edges.append((t.run, along.own + t.index - along.first, S.EXPANDED, None))
        self._close_off(t)
        self._count_around(t, owner, culprit)
        if began and owner.plan.most and t.plan.phase == Phase.BODY:
            self._edges.append((t.run, owner.index, S.SCHEDULED, None))

    def _keep_end(self, t: Thing, state: State, cell: bytes, culprit: int | None) -> None:
        """Keep what a node ended with that is to run anew, and let nobody see it."""
        if t.over is None:
            t.over = state, cell, culprit
            self._leave(t)
            t.holder, t.waits_at, t.due_ms = "", None, 0
            if t.kind == Kind.TASK:
                t.state = S.HELD

    def _unpark(self, t: Thing) -> None:
        """Let a node end as any; now, if it had ended."""
        over, t.parked, t.over = t.over, False, None
        if over is not None:
            self._finish(t, *over)

    def _count_around(self, t: Thing, owner: Thing, culprit: int | None) -> None:
        """Count an end in the expansion around it, if it is its turn."""
        if not owner.has_turn(t):
            return
        if t.fails and not owner.inner[1]:
            owner.blame = culprit
        owner.inner = [n + more for n, more in zip(owner.inner, t.adds, strict=True)]
        owner.inner[0] -= 1
        owner.won += t.wins
        if t.wins and owner.met and not owner.closing:
            self._close(owner)
        self._end_expansion(owner)

    def _close_off(self, t: Thing) -> None:
        """Let all inside a node end as it did if it never began, or what was to follow it."""
        if t.run and t.plan.body and (not t.ready_ms or t.kind == Kind.TASK):
            run = t.run
            self._edges.extend((run, inner, S.WAITING, None) for inner in indexes(t.plan.body))

    def _end_inside(self, t: Thing, owner: Thing) -> None:
        """End a node with the expansion around it; no rule is looked at, nothing else counted."""
        t.state, t.blame = owner.state, owner.blame
        if owner.ready_ms:  # a task that ran: what was to follow its failure is not wanted
            t.state = S.SKIPPED
        if t.state == S.BLOCKED:
            t.cell = self._blamed(S.BLOCKED, t.blame)
        else:
            t.cell = self._cell(t.state, f"what it stands in was {t.state.label}".encode())
        self._count_around(t, owner, t.blame)
        self._close_off(t)

    def _not_called(self, t: Thing) -> None:
        """End a node of a group that the outcome does not call for; nothing is counted."""
        if t.state == S.WAITING:
            t.state = S.SKIPPED
            t.cell = self._cell(S.SKIPPED, b"not called for")
            self._close_off(t)

    def _end_expansion(self, t: Thing) -> None:
        """End an expansion that runs, if none of its inner nodes is unfinished."""
        unfinished, *counts = t.inner
        if t.state != S.EXPANDED or unfinished or t.over:
            return
        if t.phase == Phase.BODY:
            met = t.met if t.plan.need else None
            t.outcome = outcome_of(*counts, tolerate=t.plan.tolerate, stopped=t.stopped, met=met)
            if t.overdue and not t.stopped:
                t.outcome, t.blame = S.FAILED, t.index
            t.given, t.due_ms = t.plan.value, 0
            if t.outcome == S.FAILED and t.blame is None:
                t.blame = t.index  # nothing in it failed: fewer succeeded than it needs
            if t.outcome == S.FAILED and t.plan.later:
                t.cell = self._overdue_cell(t) if t.overdue else self._blamed(S.FAILED, t.blame)
        elif t.phase == Phase.FALLBACK and Phase.FALLBACK not in t.forbidden:
            t.outcome = outcome_of(*counts)
            t.given = t.plan.later[t.passed - 1].value
        self._pass_on(t)

    def _pass_on(self, t: Thing) -> None:
        """Let the next of the later groups begin whose turn it is, or end the expansion."""
        assert t.run is not None and t.outcome is not None
        t.closing = False
        for turn, group in enumerate(t.plan.later[t.passed :], t.passed + 1):
            wanted = {S.SUCCESS: When.SUCCESS, S.FAILED: When.FAILED}.get(t.outcome)
            called = group.when in (When.ALWAYS, wanted) and group.phase not in t.forbidden
            nodes = [t.run.nodes[i] for i in indexes(group.body)]
            if not called and not any(S.WAITING < x.state <= S.EXPANDED for x in nodes):
                self._edges.extend((t.run, x.index, S.SKIPPED, -1) for x in nodes)
                continue
            t.passed, t.phase = turn, Phase(group.phase)
            adds = [(0, 0, 0, 0), *(x.adds for x in nodes)]
            # some may have ended before their turn: alarms, and what was cancelled by itself
            t.inner = [sum(column) for column in zip(*adds, strict=True)]
            if called:
                self._edges.extend((t.run, x.index, S.EXPANDED, None) for x in nodes)
            else:  # an alarm runs that is not wanted any more
                self._close(t)
            if t.inner[0]:
                return
            if t.phase == Phase.FALLBACK:
                t.outcome, t.given = outcome_of(*t.inner[1:]), group.value
        if t.outcome == S.SUCCESS:
            self._finish(t, S.SUCCESS, self._cell(S.SUCCESS, t.given, TEMPLATE))
        elif t.outcome == S.CANCELLED and t.stopped:
            self._finish(t, S.CANCELLED, self._cell(S.CANCELLED, b"cancelled"))
        elif t.outcome == S.FAILED and t.blame == t.index and t.overdue:
            self._finish(t, S.FAILED, self._overdue_cell(t), t.index)
        else:
            self._drop(t, t.outcome, "what its value names")

    def _falls_back(self, t: Thing) -> bool:
        """Let what is to follow a task's failure begin, if there is something."""
        assert t.run is not None
        owner = t.run.nodes[t.plan.owner]
        if not t.plan.later or (owner.closing and owner.has_turn(t)):
            return False
        t.kind, t.state, t.outcome, t.due_ms = Kind.EXPANSION, S.EXPANDED, S.FAILED, 0
        t.blame = t.index
        self._let_follow(t)
        self._pass_on(t)
        return True

    # --- generations -----------------------------------------------------------------------------

    def _rewind(self, run: Run, chosen: set[int], reopened: set[int], dropped: Ranges) -> None:
        run.ended_ms = run.forget_ms = 0
        run.request = b""
        for index in indexes(dropped):
            run.nodes[index].gone = True
        for t in run.nodes:
            t.followed = [a for a in t.followed if not run.nodes[a.own].gone]
        asks: set[int] = set()  # it had ended, and wants a place anew
        for index in sorted(chosen | reopened):
            t = run.nodes[index]
            if index not in chosen and index != ROOT and t.state.final:
                bound = run.nodes[t.plan.owner].plan.most and t.plan.phase == Phase.BODY
                if bound or t.plan.owner in asks:
                    asks.add(index)
            self._renew(t, S.WAITING if index in chosen else S.EXPANDED)
        for index in asks:
            t = run.nodes[index]
            t.state, t.ready_ms, t.due_ms, t.parents = S.WAITING, 0, 0, [0, 0, 0, 0]
        for index in sorted(chosen | asks):
            t = run.nodes[index]
            for p in indexes(t.plan.parents):
                parent = run.nodes[p]
                if p in chosen:
                    continue
                if p in indexes(t.plan.follows) and parent.has_begun:
                    t.parents[0] += 1
                elif parent.state.final:
                    t.parents[PLACE[parent.counts_as(index)]] += 1
                    if parent.state in FAILED and t.parents[1] == 1:
                        itself = parent.state == S.FAILED and parent.kind != Kind.EXPANSION
                        t.blame = parent.index if itself else parent.blame
        for t in run.nodes[1:]:
            owner = run.nodes[t.plan.owner]
            if t.gone or owner.index not in reopened or t.plan.phase != Phase.BODY:
                continue
            if t.index in chosen or t.index in reopened:
                owner.inner[0] += 1
            else:
                owner.inner = [n + more for n, more in zip(owner.inner, t.adds, strict=True)]
                owner.won += t.wins
        for t in run.nodes:
            if t.parked:
                self._unpark(t)
        self._edges.extend((run, index, S.EXPANDED, None) for index in sorted(chosen | asks))
        bounded = [i for i in sorted(reopened) if run.nodes[i].plan.most]
        self._edges.extend((run, index, S.SCHEDULED, None) for index in bounded)
        while self._edges:
            self._drive()
        for index in sorted(reopened, reverse=True):  # inner ones first
            self._end_expansion(run.nodes[index])

    def _renew(self, t: Thing, state: State) -> None:
        """Make a node as it was before it began, under its next generation."""
        self._leave(t)
        t.generation += 1
        t.parked, t.over, t.holder, t.waits_at = False, None, "", None
        t.state, t.cell, t.blame = state, None, None
        t.attempt, t.losses, t.unknown_ms = 0, [], 0
        t.stopping = t.settled = t.stopped = t.closing = t.lost = t.overdue = False
        t.phase, t.passed, t.outcome = Phase.BODY, 0, None
        t.forbidden = set()
        t.inner, t.won = [0, 0, 0, 0], 0
        t.due_ms = 0
        if state == S.EXPANDED:
            self._set_deadline(t)
        if state == S.WAITING:
            t.parents = [0, 0, 0, 0]
            if t.kind == Kind.EXPANSION and t.message is not None:  # it had become one
                t.row = msgspec.structs.replace(
                    t.plan,
                    entries=(),
                    inner=0,
                    value=b"",
                    tolerate=0,
                    need=0,
                    most=0,
                    deadline_ms=0,
                    along=(),
                    body=fallback_of(t.plan),
                    later=tuple(g for g in t.plan.later if g.phase == Phase.FALLBACK),
                )
            t.kind = Kind(t.plan.kind)
            t.inner[0], t.ready_ms = t.plan.inner, 0

    # --- stopping --------------------------------------------------------------------------------

    def _close(self, t: Thing, *, overdue: bool = False) -> None:
        """Let nothing start any more of those whose turn it is, and stop what is unfinished."""
        assert t.run is not None
        t.closing = True
        how = S.FAILED if overdue else S.RUNNING
        for inner in indexes(t.plan.body):
            if t.has_turn(t.run.nodes[inner]):
                self._edges.append((t.run, inner, how, OVERDUE if overdue else None))

    def _pass_deadline(self, t: Thing) -> None:
        """Stop an expansion whose deadline has passed, if its body still runs."""
        t.due_ms = 0
        if t.state == S.EXPANDED and t.phase == Phase.BODY and not t.stopped:
            t.overdue = True
            self._close(t, overdue=True)

    def _overdue_cell(self, t: Thing) -> bytes:
        failure = Failure(
            t.message.task if t.message else "",
            id_text(t.id),
            t.plan.name or None,
            "deadline",
            "",
            "DeadlineExceeded('its deadline has passed')",
        )
        return self._cell(S.FAILED, msgspec.msgpack.encode(failure))

    def _is_closed(self, t: Thing) -> bool:
        """Whether it stands, however deep, in what is closing; what was told so is heeded."""
        while t.run and t.index != ROOT:
            owner = t.run.nodes[t.plan.owner]
            if owner.closing and owner.has_turn(t):
                return True
            if Phase.FALLBACK in owner.forbidden:  # it runs what may run after a cancel
                return False
            t = owner
        return False

    def _stop(self, t: Thing, *, overdue: bool = False) -> None:
        if t.parked:
            self._unpark(t)
        if t.state == S.RUNNING:
            t.overdue |= overdue and not t.stopping
            t.stopping = True
        elif t.state == S.EXPANDED:
            self._cancel_inwards(t, overdue=overdue)
        elif not t.state.final:
            self._finish(t, S.CANCELLED, self._cell(S.CANCELLED, STOPPED))

    def _stop_loser(self, t: Thing) -> None:
        """Stop what a race owns that is decided."""
        if not t.state.final:
            t.lost = True
            self._stop(t)

    def _cancel_inwards(self, t: Thing, *, force: bool = False, overdue: bool = False) -> None:
        """Cancel an expansion that has begun; or let it stop with one around it that is overdue."""
        t.forbidden.add(Phase.FALLBACK)
        if force:
            t.forbidden.add(Phase.FINALLY)
        if t.phase == Phase.BODY:
            t.stopped = True
            self._close(t, overdue=overdue)
        elif t.phase != Phase.FINALLY or force:
            t.forbidden.add(Phase.HANDLERS)
            self._close(t)

    def _drop(self, t: Thing, state: State, what: str = "what it waits for") -> None:
        """End a node because of others: with its culprit if it failed or is blocked."""
        if state in FAILED:
            self._finish(t, state, self._blamed(state, t.blame), t.blame)
        else:
            why = f"{what} was {state.label}".encode()
            self._finish(t, state, self._cell(state, why))

    def _start(self, t: Thing) -> None:
        assert t.run is not None
        owner = t.run.nodes[t.plan.owner] if t.index != ROOT else t
        if owner.closing and owner.has_turn(t):
            self._finish(t, S.CANCELLED, self._cell(S.CANCELLED, STOPPED))
            return
        if t.plan.blocked:
            t.blame = t.index
            self._finish(t, S.BLOCKED, self._cell(S.BLOCKED, t.plan.blocked), t.index)
            return
        t.ready_ms = self._now
        if t.kind == Kind.TASK:
            self._let_run(t, t.index)
        elif t.kind == Kind.JOIN and t.plan.signal:
            self._await_signal(t)
        elif t.kind == Kind.JOIN and t.plan.sleep_ms:
            t.state, t.due_ms = S.SCHEDULED, self._now + t.plan.sleep_ms
        elif t.kind == Kind.JOIN:
            self._pass(t)
        else:
            t.state = S.EXPANDED
            self._set_deadline(t)
            run = t.run
            body = t.plan.body if t.inner[0] < t.plan.inner else t.plan.entries
            self._let_follow(t)
            self._edges.extend((run, inner, S.EXPANDED, None) for inner in indexes(body))
            self._end_expansion(t)

    def _let_follow(self, t: Thing) -> None:
        """Count an expansion that begins for those that follow it."""
        assert t.run is not None
        run = t.run
        self._edges.extend((run, one, S.SUCCESS, None) for one in indexes(t.plan.followers))

    def _set_deadline(self, t: Thing) -> None:
        t.due_ms = self._now + t.plan.deadline_ms if t.plan.deadline_ms else 0

    def _await_signal(self, t: Thing) -> None:
        """Give a join what was sent for it, or let it wait for that."""
        assert t.run is not None
        t.state = S.SCHEDULED
        t.due_ms = self._now + t.plan.timeout_ms if t.plan.timeout_ms else NEVER_MS
        for k, (sent, body) in enumerate(t.run.sends):
            if sent.node is None and is_for(sent.name, sent.to, t.plan):
                t.run.sends[k] = msgspec.structs.replace(sent, node=t.index), body
                self._finish(t, S.SUCCESS, self._cell(S.SUCCESS, body))
                return

    def _time_out(self, t: Thing) -> None:
        """End a join that has waited long enough for what nobody sent."""
        if t.plan.value:
            self._finish(t, S.SUCCESS, self._cell(S.SUCCESS, t.plan.value))
            return
        text = f"WaitTimeout('nobody sent {t.plan.signal} in time')"
        failure = Failure("", id_text(t.id), t.plan.name, "timeout", "", text)
        self._finish(t, S.FAILED, self._cell(S.FAILED, msgspec.msgpack.encode(failure)), t.index)

    def _pass(self, t: Thing) -> None:
        """End a join whose rule said so, and which has slept long enough."""
        assert t.run is not None
        run = t.run
        if not t.plan.bits & Bits.RACE:
            self._finish(t, S.SUCCESS, self._cell(S.SUCCESS, b"", EMPTY))
            return
        parents = indexes(t.plan.parents)
        winner = next(p for p in parents if run.nodes[p].state == S.SUCCESS)
        value = encode_template(Ref(winner))
        self._finish(t, S.SUCCESS, self._cell(S.SUCCESS, value, TEMPLATE))
        self._edges.extend((run, owned, S.HELD, None) for owned in indexes(t.plan.owns))

    def _expand(self, t: Thing, rows: list[NodeRow]) -> None:
        """Let a node that ran become a fragment; see `flowq.storage.base`."""
        run = t.run or self._as_run(t)
        face, *inner = relocate(rows, at=t.index, base=len(run.nodes), run=run.plan.id)
        t.row = msgspec.structs.replace(
            t.plan,
            entries=face.entries,
            inner=face.inner,
            value=face.value,
            body=(*fallback_of(t.plan), *face.body),
            later=(*face.later, *t.plan.later),
            tolerate=face.tolerate,
            need=face.need,
            most=face.most,
            deadline_ms=face.deadline_ms,
            along=face.along,
        )
        for index, row in enumerate(inner, len(run.nodes)):
            made = Thing(node_id(run.plan.id, index), Kind(row.kind), row.message, run, row)
            made.inner[0] = row.inner
            run.nodes.append(made)
        self._leave(t)
        t.kind, t.state, t.holder = Kind.EXPANSION, S.EXPANDED, ""
        t.inner, t.won = [face.inner, 0, 0, 0], 0
        self._set_deadline(t)
        for along in face.along:
            run.nodes[along.of].followed.append(along)
        self._let_follow(t)
        self._edges.extend((run, entry, S.EXPANDED, None) for entry in indexes(face.entries))
        self._end_expansion(t)

    def _as_run(self, t: Thing) -> Run:
        """Make a task alone the root of a run."""
        m = t.call
        root = NodeRow(m.task, Kind.TASK, NO_NODE, Rule(0, 0, 0, 0, 0), message=m)
        plan = Plan(t.id, m.task, [root], m.result_ttl_ms, m.failed_ttl_ms)
        del self._tasks[t.id]
        self._runs.pop(t.id, None)
        t.run = self._runs[t.id] = Run(plan, [t], self._now)
        t.id, t.row = node_id(t.id, ROOT), root
        return t.run

    def _let_run(self, t: Thing, place: int = 0) -> None:
        """Queue a task, or schedule it if its delay or eta lies ahead."""
        m, now = t.call, self._now
        limits = [m.expires_ms, now + m.expires_in_ms if m.expires_in_ms else 0]
        t.expires_ms = min((x for x in limits if x), default=0)
        self._queues.add(m.queue)
        run = t.run.plan.id if t.run else b""
        self._at(t, max(now + m.delay_ms, m.due_ms), front=self._front, run=run, place=place)

    def _at(self, t: Thing, due: int, *, front: bool, run: bytes = b"", place: int = 0) -> None:
        t.order = (0 if front else 1, self._call, self._tick, run, place, t.id)
        t.holder = ""
        if due > self._now:
            self._leave(t)
            t.state, t.due_ms = S.SCHEDULED, due
            return
        t.due_ms = 0
        full = self._full(t)
        if full is None:
            t.state, t.waits_at = S.QUEUED, None
            return
        if t.state != S.HELD or t.waits_at != full:
            assert t.run is not None
            t.turn = (-t.call.priority, self._call, self._tick, t.run.plan.id, t.index)
        t.state, t.waits_at = S.HELD, full

    def _leave(self, t: Thing) -> None:
        """Let others have the places of what is queued or running no more."""
        if t.run and t.limits and t.state in (S.QUEUED, S.RUNNING):
            self._edges.append((t.run, t.index, S.QUEUED, None))

    def _let_in(self, gone: Thing) -> None:
        """Try those again that wait at the limits of a node."""
        for limit, _ in gone.limits_of_task:
            for t in self._waiters(limit):
                most = next(n for one, n in t.limits if one == limit)
                if len(self._holders(limit)) >= most:
                    break
                assert t.run is not None
                self._at(t, 0, front=True, run=t.run.plan.id, place=t.index)

    def _count(self, t: Thing, parent: State, culprit: int | None) -> None:
        """Count the end of a parent, and see what that makes of a node that waits."""
        t.parents[PLACE[parent]] += 1
        if parent in FAILED and t.parents[1] == 1:
            t.blame = culprit
        self._weigh(t)

    def _weigh(self, t: Thing) -> None:
        """Let the counts of a node that waits decide, if what it stands in has begun."""
        assert t.run is not None
        owner = t.run.nodes[t.plan.owner]
        if t.state != S.WAITING or owner.state != S.EXPANDED:
            return
        if owner.closing if owner.has_turn(t) else not owner.may_alarm(t):
            return  # it is stopped with the rest; or its turn comes, or does not
        if t.goes_along:
            self._count_along(t)
        becomes = verdict(t.plan.rule, sum(n for _, n in t.plan.parents), Counts(*t.parents))
        if becomes == S.QUEUED and owner.has_turn(t) and owner.is_full:
            return  # who of its body ends lets it begin
        if becomes == S.QUEUED:
            t.blame = None
            self._start(t)
        elif becomes is not None:
            self._drop(t, becomes)

    def _count_along(self, t: Thing) -> None:
        """Take the counts of what goes along with nodes of other expansions."""
        assert t.run is not None
        t.parents, t.blame = [0, 0, 0, 0], None
        for parent in [t.run.nodes[i] for i in indexes(t.plan.parents)]:
            if parent.state.final:
                t.parents[PLACE[parent.state]] += 1
            if parent.state in FAILED and t.parents[1] == 1:
                itself = parent.state == S.FAILED and parent.kind != Kind.EXPANSION
                t.blame = parent.index if itself else parent.blame

    def _fill(self, owner: Thing) -> None:
        """Let those begin in an expansion for which there is room now."""
        assert owner.run is not None
        entries = [owner.run.nodes[i] for i in indexes(owner.plan.entries)]
        for entry in [t for t in entries if t.state == S.WAITING]:
            if owner.is_full or owner.state != S.EXPANDED or owner.passed:
                return
            self._weigh(entry)

    def _drive(self, edges: int = PAGE) -> None:
        """Walk a page of edges."""
        self._tick += 1
        while self._edges and edges:
            run, index, state, culprit = self._edges.popleft()
            edges -= 1
            node = run.nodes[index]
            if state == S.WAITING:
                if node.state == S.WAITING:
                    self._end_inside(node, run.nodes[node.plan.owner])
            elif state == S.RUNNING:
                self._stop(node)
            elif state == S.HELD:
                self._stop_loser(node)
            elif state == S.SCHEDULED:
                self._fill(node)
            elif state == S.QUEUED:
                self._let_in(node)
            elif culprit == OVERDUE:
                self._stop(node, overdue=True)
            elif culprit == -1:
                self._not_called(node)
            elif state != S.EXPANDED:
                self._count(node, state, culprit)
            else:
                self._weigh(node)

    def _blamed(self, state: State, culprit: int | None) -> bytes:
        """The cell of what failed or was blocked because of another."""
        return self._cell(
            state, (NO_NODE if culprit is None else culprit).to_bytes(4, "big"), CULPRIT
        )

    def _cell(
        self, state: State, body: bytes, flags: int = 0, *, delivery: int = 0, started_ms: int = 0
    ) -> bytes:
        ran = {"delivery": delivery, "started_ms": started_ms}
        return pack_cell(state, body, flags=flags, ended_ms=self._now, **ran)

    def _fail(self, t: Thing, reason: str, text: str) -> None:
        """Fail a task without its body's doing."""
        m = t.call
        failure = Failure(m.task, id_text(t.id), m.name or None, reason, "", text, index=m.index)
        self._finish(t, S.FAILED, self._cell(S.FAILED, msgspec.msgpack.encode(failure)))

    def _bury(self, t: Thing, reason: str) -> None:
        letter = DeadLetter(t.id, reason, self._now, encode_message(t.call), list(t.losses))
        self._dead.pop(t.id, None)
        kept = self._now + max(t.call.failed_ttl_ms, MEMORY_OF_ENDED_MS)
        self._dead[t.id] = letter, t.run or kept


def is_for(name: str, to: str, row: NodeRow) -> bool:
    """Whether what is sent under a name is for a node."""
    whom = not to or row.name == to or row.name.startswith(f"{to}/")
    return row.signal == name and whom


def fallback_of(row: NodeRow) -> Ranges:
    """What stands inside a task before it becomes anything: what is to follow its failure."""
    return tuple(r for g in row.later if g.phase == Phase.FALLBACK for r in g.body)
