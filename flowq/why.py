# SPDX-License-Identifier: MIT
"""Why a run, or a node of it, stands where it stands: in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any, Final

from flowq.arms import ArmSeen, arms_of, condition_of
from flowq.fragment import BRANCH
from flowq.holding import LOST, by_the_clock, full, lost, place, timed, who_sent
from flowq.looking import Home, culprit_of, failure_in, lacking, moment, one_value, source_in
from flowq.message import id_text, node_id, read_cell
from flowq.outline import FAILED, forgiven, stem, within
from flowq.plan import ROOT, Bits, Kind, Phase, indexes
from flowq.states import RULES, Rule, State, trigger_rule
from flowq.storage.base import NodeInfo
from flowq.versions import as_words, other_versions

__all__ = ["CAUSES", "Why"]

S = State
CAUSES: Final = 20
"""So many lines are given at most, and so many nodes are named in one."""
READ: Final = 1_000
"""So many nodes in one state are read at most; beyond them it is "at least"."""
TOGETHER: Final = 3
"""More items of one map in one state are told in one line."""
BUSY: Final = (S.RUNNING, S.QUEUED, S.SCHEDULED, S.HELD)
BAD: Final = (S.FAILED, S.CANCELLED, S.BLOCKED, S.SKIPPED)


class Why:
    """Reads what is needed of one run, and says it.

    Parameters
    ----------
    app : Home
    run : bytes
    infos : callable
        Gives its nodes by index, without the root; those in one state, if one is given.
    who : str
        What the run is called.
    """

    def __init__(
        self, app: Home, run: bytes, infos: Callable[..., Iterable[NodeInfo]], who: str
    ) -> None:
        self._app = app
        self._run = run
        self._infos = infos
        self._who = who
        self._nodes: dict[int, NodeInfo] = {}
        self._every: list[NodeInfo] | None = None

    # --- of a run --------------------------------------------------------------------------------

    def run(self, state: State) -> str:
        """Give the deepest unfinished causes, one line each; or why it ended as it did."""
        lines: list[str] = []
        if state.final:
            states: Sequence[State] = BAD
            lines.append(f"{self._who} ended {state.label}{self._in_all(state)}")
        else:
            states = BUSY
            if self._paused():
                lines.append(f"{self._who} is paused: flowq run resume {id_text(self._run)}")
        for line in self._lines(states):
            if len(lines) == CAUSES:
                lines.append("...")
                break
            lines.append(line)
        if not lines:  # between two steps, or pages of work that a worker has still to move on
            waiting = list(islice(self._infos(S.WAITING), CAUSES))
            lines.extend(f"{self.node(info)}" for info in waiting)
        return "\n".join(lines)

    def _in_all(self, state: State) -> str:
        """Say why a run failed, where that is no node's failure: its deadline, what it needs."""
        look = self._app.store.look((self._run,))[0] if state is S.FAILED else None
        if look is None or look.cell is None:
            return ""
        cell = read_cell(look.cell)
        if failure_in(cell) is None and culprit_of(cell) != ROOT:
            return ""  # a node is to blame, and told
        gone = one_value(self._app, self._run, look)
        return f", {said}" if (said := _said(gone)) else ""

    def _paused(self) -> bool:
        found = self._app.store.run(self._run)
        return found is not None and found.paused

    def _lines(self, states: Iterable[State]) -> Iterator[str]:
        """A line for each node in these states; items of one map, or at one limit, together."""
        for state in states:
            found = list(islice(self._infos(state), READ + 1))
            more = "at least " if len(found) > READ else ""
            maps = Counter(stem(info.name) for info in found)
            limits = Counter(info.waits_at for info in found)
            told = set()
            for info in found:
                path = stem(info.name)
                if (at := info.waits_at) and limits[at] > TOGETHER:
                    if at not in told:
                        told.add(at)
                        yield f"{more}{limits[at]:,} held, such as {self.node(info)}"
                elif not path or maps[path] <= TOGETHER:
                    yield self.node(info)
                elif path not in told:
                    told.add(path)
                    yield (
                        f"{path}: {more}{maps[path]:,} items {state.label}, such as {info.name}"
                        f"{self._cause(info)}{self._place(info)}"
                    )

    # --- of a node -------------------------------------------------------------------------------

    def node(self, info: NodeInfo, *, whole: bool = False) -> str:
        """Say why a node stands where it stands.

        Parameters
        ----------
        info : NodeInfo
        whole : bool
            Say as well what let it run, and what is inside it.
        """
        self._nodes[info.index] = info
        text = f"{info.name or info.index}: {info.state.label}{self._cause(info)}"
        text += self._place(info)
        if whole:
            for _, versions in other_versions(self._app.store, self._run, (info,)):
                text += f", {as_words(versions)}"
            text += self._came_after(info)
        return text

    def _cause(self, info: NodeInfo) -> str:
        if info.state is S.WAITING:
            return self._waits(info)
        if info.state is S.HELD:
            paused = f", its run is paused: flowq run resume {id_text(self._run)}"
            paused = paused if self._paused() else ""
            at = full(self._app.store, self._run, info)
            return at + paused or ", until its run has been set going again"
        if info.state is S.EXPANDED:
            return self._inside(info)
        if info.state is S.RUNNING:
            then = "; it will run anew" if info.parked is not None else ""
            return f" since {moment(info.started_ms)}, attempt {info.attempt + 1}{then}"
        if info.state is S.SUCCESS:
            return self._became(info)
        if info.state is S.CANCELLED and (since := self._stopped(info)):
            return since
        if info.state is S.SKIPPED and info.rule is not None and info.rule.b and not info.ready_ms:
            return ", what it waits for did not fail so"
        id = node_id(self._run, info.index)
        look = self._app.store.look((id,))[0]
        if look is None:
            return ""
        if info.state is S.SCHEDULED and info.kind == Kind.JOIN:
            return timed(self._run, info, look.due_ms)
        if info.state in (S.QUEUED, S.SCHEDULED):
            said = lacking(self._app, id, info.state)
            due = f", due at {moment(look.due_ms)}; {info.attempt} attempts have failed"
            if info.state is S.QUEUED:
                due = "" if said else ", the next free worker takes it"
            return f"{due}; {said}" if said else due
        if info.state is S.SKIPPED and look.cell is not None and read_cell(look.cell).body == LOST:
            return lost(self._app.store, self._run, info, self._all())
        gone = one_value(self._app, id, look)
        said = _said(gone)
        if info.state is S.BLOCKED:
            return f" by {getattr(gone, 'node', None) or gone.task}, {said}"
        if info.state is S.FAILED:
            said = self._failure(info, gone, said)
        return f", {said}" if said else ""

    def _failure(self, info: NodeInfo, gone: Any, said: str) -> str:
        if info.culprit is not None and info.culprit != info.index:
            who = self._find(info.culprit)
            said = f"since {who.name if who else info.culprit} {_verb(who)}: {said}"
        elif getattr(gone, "reason", "") == "deadline":
            said += self._stopped(info)
        attempts = getattr(gone, "attempts", 0)
        if attempts > 1 and info.kind == Kind.TASK:
            said += f", after {attempts} attempts"
        if forgiven(info):
            said += " (forgiven: it does not count)"
        return said

    def _stopped(self, info: NodeInfo) -> str:
        return by_the_clock(self._app.store, self._run, info, self._find)

    def _waits(self, info: NodeInfo) -> str:
        owner = self._find(info.owner)
        if owner is not None and owner.state is S.WAITING:
            return f", until {owner.name} begins, which waits{self._waits(owner)}"
        if info.phase != Phase.BODY:
            where = owner.name if owner is not None and owner.index != ROOT else "the run"
            left = [i.name for i in self._body(info.owner) if not i.state.final][:CAUSES]
            until = {
                Phase.HANDLERS: f"until the outcome of {where} is fixed, and if it fits",
                Phase.FINALLY: f"until all else in {where} has ended",
                Phase.FALLBACK: f"only if {where} fails",
            }[Phase(info.phase)]
            return f", {until}" + (f" ({', '.join(left)})" if left else "")
        left, more = [], 0
        followed = set(indexes(info.follows))
        until = "begin"
        for parent in self._parents(info):
            follows = parent.index in followed
            if not (parent.state.final or (follows and parent.state is S.EXPANDED)):
                until = until if follows else "end"
                more += len(left) == CAUSES
                if len(left) < CAUSES:
                    left.append(f"{parent.name} ({parent.state.label})")
        rest = f" and {more:,} more" if more else ""
        if not left:
            return place(owner, info, self._infos) if owner is not None else ""
        lacks = _lacks(info.rule, list(self._parents(info))) if info.rule is not None else ""
        return f", until {lacks or f'these {until}'}: {', '.join(left)}{rest}"

    def _inside(self, info: NodeInfo) -> str:
        """Say what an expansion that has begun waits for."""
        inner = [i for i in self._all() if i.owner == info.index]
        ended = sum(i.state.final for i in inner)
        left = [f"{i.name} ({i.state.label})" for i in inner if not i.state.final]
        text = self._failed_before(info)
        text += f", {ended:,} of {len(inner):,} inside it have ended"
        if left:
            rest = f" and {len(left) - CAUSES:,} more" if len(left) > CAUSES else ""
            text += f"; until these do: {', '.join(left[:CAUSES])}{rest}"
        return text

    def _became(self, info: NodeInfo) -> str:
        """Say what an expansion that succeeded was made of."""
        if info.kind != Kind.EXPANSION:
            if info.signal:
                return who_sent(self._app.store, self._run, info)
            return self._condition(info) or self._cached(info)
        inner = list(within(self._all(), info.index))
        if not inner:
            return ", with nothing inside"
        instead = [i.name for i in inner if i.owner == info.index and i.phase == Phase.FALLBACK]
        if instead and info.task:
            return f": it failed, and {', '.join(instead[:CAUSES])} took its place"
        states = Counter(i.state for i in inner)
        said = ", ".join(f"{n:,} {s.label}" for s, n in sorted(states.items()))
        grew = f"{len(inner):,} node{'s' * (len(inner) != 1)}"
        grew = f"became {grew}" if info.task else f"{grew} inside"
        return f"{self._condition(info)}, {grew}: {said}"

    def _cached(self, info: NodeInfo) -> str:
        """Say of a value from the cache whose it was."""
        raw = self._app.store.cells(self._run, ((info.index, 1),)).get(info.index)
        source = source_in(read_cell(raw)) if info.task and raw is not None else ""
        return f", from the cache, as {source} gave it" if source else ""

    def _condition(self, info: NodeInfo) -> str:
        """Say of a branch what its condition gave, and which arm that has taken."""
        found = condition_of(self._app.store, self._run, info)
        if found is None:
            return ""
        index, given, item = found
        above = self._find(index)
        said = f", since {above.name if above else index} gave {given}"
        said += f" (its {item})" if item else ""
        arms = self._arms(info)
        taken = [arm.label for arm in arms if arm.taken]
        left = ", ".join(f'"{arm.label}"' for arm in arms if not arm.taken)
        if taken:
            said += f': arm "{taken[0]}" taken' + (f", not {left}" if left else "")
        elif info.state is S.FAILED:
            return ""  # `NoArm` tells it
        return said

    def _arms(self, info: NodeInfo) -> list[ArmSeen]:
        inside = [i for i in self._all() if i.owner == info.index]
        return arms_of(self._app.store, self._run, info, inside)

    def never_made(self, path: str) -> str | None:
        """Say why there is no node of this path: it, or what it stands in, is an arm not taken.

        None if it is none.
        """
        for info in self._all():
            if info.task != BRANCH or not path.startswith(f"{info.name}/"):
                continue
            rest = path[len(info.name) + 1 :]
            for arm in self._arms(info):
                steps = {row.name for row in arm.rows[1:]}
                if arm.taken or not (rest == arm.label or rest in steps):
                    continue
                if not (info.state.final or info.state is S.EXPANDED):
                    return f'{path}: waiting, until {info.name} takes arm "{arm.label}", or not'
                since = self._condition(info).partition(": arm")[0]
                return f'{path}: skipped, arm "{arm.label}" of {info.name} not taken{since}'
        return None

    def _failed_before(self, info: NodeInfo) -> str:
        """Say why a task failed whose fallback runs now."""
        raw = self._app.store.cells(self._run, ((info.index, 1),)).get(info.index)
        failure = failure_in(read_cell(raw)) if info.task and raw is not None else None
        return f", since it failed: {failure.message}" if failure is not None else ""

    def _came_after(self, info: NodeInfo) -> str:
        """Say which ends let a node run, or what kept it from that, and by which rule."""
        if info.state in (S.WAITING, S.BLOCKED, S.CANCELLED):
            return ""  # told already
        ends = list(self._parents(info))
        if not ends:
            return ""
        ran = bool(info.ready_ms) or not info.state.final
        if info.follows:
            followed = set(indexes(info.follows))
            along = f"; item by item with {_listed([p for p in ends if p.index in followed])}"
            ends = [p for p in ends if p.index not in followed]
            return along + (f", after {_listed(ends)}" if ends else "")
        if info.rule is None or (len(ends) == 1 and info.rule.b == 0):
            return f"; {'it came after' if ran else 'above it'} {_listed(ends)}"
        name = rule_name(info.rule, len(ends))
        if not ran:
            return f"; rule {name} did not hold: {_listed(ends)}"
        held = deciding(info.rule, ends, info.ready_ms)
        at = max((p.ended_ms for p in held), default=0)
        if not held:  # its rule had no need of any of them
            return f"; rule {name} held, whatever came of {_listed(ends)}"
        return f"; rule {name} held{_at(at)} by {_listed(held)}"

    def _place(self, info: NodeInfo) -> str:
        """Say of what is no part of a body in which phase it, or what it stands in, has its turn.

        Empty for what is one.
        """
        at: NodeInfo | None = info
        while at is not None and at.index != ROOT:
            if at.phase != Phase.BODY:
                owner = self._find(at.owner)
                of = owner.name if owner is not None and owner.index != ROOT else "the run"
                kind = {
                    Phase.HANDLERS: "handler",
                    Phase.FINALLY: "cleanup",
                    Phase.FALLBACK: "fallback",
                }[Phase(at.phase)]
                stands = " whose outcome stands" if at.state in FAILED else ""
                return f" ({kind} of {of}{stands if kind != 'fallback' else ''})"
            at = self._find(at.owner)
        return ""

    # --- reading ---------------------------------------------------------------------------------

    def _find(self, index: int) -> NodeInfo | None:
        if index not in self._nodes:
            page = self._app.store.nodes(self._run, after=index - 1, limit=1)
            if not page or page[0].index != index:
                return None
            self._nodes[index] = page[0]
        return self._nodes[index]

    def _parents(self, info: NodeInfo) -> Iterator[NodeInfo]:
        """Those directly above, read in pages."""
        for first, count in info.parents:
            at, end = first, first + count
            while at < end:
                page = self._app.store.nodes(self._run, after=at - 1, limit=min(500, end - at))
                yield from (p for p in page if p.index < end)
                at = page[-1].index + 1 if page else end

    def _body(self, owner: int) -> list[NodeInfo]:
        return [i for i in self._all() if i.owner == owner and i.phase == Phase.BODY]

    def _all(self) -> list[NodeInfo]:
        if self._every is None:
            self._every = list(self._infos())
            self._nodes.update((i.index, i) for i in self._every)
        return self._every


def rule_name(rule: Rule, parents: int) -> str:
    """Give a rule as users write it; several with the same numbers are one rule."""
    for name in RULES:
        with suppress(ValueError):
            if trigger_rule(name, parents) == rule:
                return name
    return f"at_least({rule.a})"


def deciding(rule: Rule, parents: Sequence[NodeInfo], ready_ms: int) -> list[NodeInfo]:
    """Give the parents by whose ends a rule held: no more than it asks for, in order of time."""
    ended = sorted((p for p in parents if p.state.final and p.ended_ms), key=lambda p: p.ended_ms)
    ended = [p for p in ended if p.ended_ms <= ready_ms] or ended
    if rule.c:
        return ended[: max(rule.c, rule.a, rule.b)]
    good = [p for p in ended if p.state is S.SUCCESS or p.bits & Bits.COUNTS_AS_SUCCESS]
    bad = [p for p in ended if p.state in FAILED and p not in good]
    return sorted(good[: rule.a] + bad[: rule.b], key=lambda p: p.ended_ms)


def _lacks(rule: Rule, parents: Sequence[NodeInfo]) -> str:
    """Say what a rule that is no matter of all parents still waits for."""
    if rule.c:
        return f"these end, by {rule_name(rule, len(parents))}"
    good = sum(p.state is S.SUCCESS or bool(p.bits & Bits.COUNTS_AS_SUCCESS) for p in parents)
    if rule.a:
        return f"{rule.a - good} of these succeed, by {rule_name(rule, len(parents))}"
    return f"one of these fails, by {rule_name(rule, len(parents))}"


def _listed(ends: Sequence[NodeInfo]) -> str:
    told = [f"{p.name} ({p.state.label}{_at(p.ended_ms)})" for p in ends[:CAUSES]]
    more = len(ends) - CAUSES
    if more > 0:
        return f"{', '.join(told)} and {more:,} more"
    return " and ".join(part for part in (", ".join(told[:-1]), told[-1]) if part)


def _said(gone: Any) -> str:
    return str(getattr(gone, "message", "") or getattr(gone, "reason", ""))


def _verb(info: NodeInfo | None) -> str:
    return "was blocked" if info is not None and info.state is S.BLOCKED else "failed"


def _at(ms: int) -> str:
    at: datetime | None = moment(ms)
    return f" at {at:%H:%M:%S}" if at else ""
