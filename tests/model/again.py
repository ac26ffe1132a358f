# SPDX-License-Identifier: MIT
"""Moves of random histories: generations, parks and forks of runs, and who has started whom."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from flowq.errors import GraphError
from flowq.message import NO_NODE, Message, Seq, encode_template, split_node
from flowq.plan import INNER, ROOT, Along, Kind, NodeRow, Phase, Plan, indexes, ranges_of
from flowq.rewinding import Rewind, choose
from flowq.states import State, trigger_rule
from flowq.storage.base import NodeInfo
from tests.model.drawn import ALONG, ids, messages, plans
from tests.model.moves import Moves, something_is_known, something_was_started

__all__ = ["Again"]

_NOTHING: list[NodeRow] = []


def under_way(info: NodeInfo) -> bool:
    """Whether a node may be parked."""
    return info.state in (State.RUNNING, State.EXPANDED) and info.parked in (None, State.RUNNING)


class Again(Moves):
    """Moves of runs that were there before."""

    def sets_of(self, run: bytes, picks: Sequence[int]) -> Rewind | None:
        """What runs again if some nodes of a run do."""
        nodes = self.model.nodes(run, limit=1_000)
        if not nodes:
            return None
        try:
            return choose(nodes, {nodes[i % len(nodes)].index for i in picks})
        except GraphError:
            return None

    def a_run(self, which: int) -> bytes:
        runs = [run for run, _ in self.runs() if self.model.run(run)]
        return runs[-1 - which % len(runs)] if runs else b""

    # --- generations ----------------------------------------------------------------------------

    @precondition(something_was_started)
    @rule(
        which=ids,
        picks=st.lists(ids, min_size=1, max_size=3),
        stale=st.sampled_from([0, 0, 0, 0, 1]),
        age=st.sampled_from([1, 1, 1, 1, 0, 2]),
    )
    def rewind(self, which: int, picks: list[int], stale: int, age: int) -> None:
        run = self.a_run(which)
        sets = self.sets_of(run, picks)
        if sets is None:
            return
        generation = self.model.nodes(run)[ROOT].generation + age
        self.both(
            lambda store: store.rewind(
                run, generation, seen=store.run(run).changes - stale, **sets._asdict()
            )
        )

    @precondition(something_was_started)
    @rule(
        which=ids,
        picks=st.lists(ids, min_size=1, max_size=2),
        some=st.lists(ids, max_size=2),
        stop=st.sampled_from([0, 1, 1, 2]),
        request=st.sampled_from([b"one", b"two"]),
    )
    def park(
        self, which: int, picks: list[int], some: list[int], stop: int, request: bytes
    ) -> None:
        """Park what is in the way of a rewind, or anything that is under way."""
        run = self.a_run(which)
        sets = self.sets_of(run, picks)
        if sets is None or self.lacks & {"park"}:
            return
        there = {info.index: info for info in self.model.nodes(run, limit=1_000)}
        chosen, opened = {*indexes(sets.chosen)}, {*indexes(sets.reopened), ROOT}
        ways = [i for i, info in there.items() if under_way(info)]
        nodes = {i for i in ways if i in chosen or (i in opened and there[i].closing)}
        nodes |= {ways[k % len(ways)] for k in some if ways}
        stopped = {i for i in nodes if i in chosen} if stop == 1 else {*ways[:1]} if stop else set()
        how: dict[str, Any] = {"nodes": ranges_of(nodes), "stop": ranges_of(stopped & nodes)}
        self.both(lambda store: store.park(run, request, seen=store.run(run).changes, **how))

    @precondition(something_was_started)
    @rule(which=ids, picks=st.lists(ids, min_size=1, max_size=3))
    def park_and_rewind(self, which: int, picks: list[int]) -> None:
        """Do all that a retry of what goes on does, with nobody else in between."""
        self.park(which, picks, [], 1, b"all")
        for session in ("a", "b", "c"):
            held = self.model.held(session)
            if held:
                self.step(session, [self.outcome(d, 7) for d in held])
        self.rewind(which, picks, 0, 1)

    # --- forks ----------------------------------------------------------------------------------

    @precondition(something_was_started)
    @rule(
        which=ids,
        picks=st.lists(ids, min_size=1, max_size=3),
        call=st.none() | messages(),
        stale=st.sampled_from([0, 0, 0, 1]),
    )
    def fork(self, which: int, picks: list[int], call: dict[str, Any] | None, stale: int) -> None:
        ended = [run for run, _ in self.runs() if (x := self.model.run(run)) and x.ended_ms]
        if not ended or self.lacks & {"fork"}:
            return
        run = ended[-1 - which % len(ended)]
        sets = self.sets_of(run, picks)
        if sets is None:
            return
        new = self.new_id()
        there = {info.index: info for info in self.model.nodes(run, limit=1_000)}
        tasks = [i for i in indexes(sets.chosen) if there[i].task]
        told = {}
        if tasks and call:
            name = there[tasks[0]].name
            told[tasks[0]] = Message(b"", "t.other", b"Q", name=name, **call)

        def both(store: Any) -> bool | None:
            seen = store.run(run).changes - stale
            made: bool | None = store.fork(run, new, seen=seen, messages=told, **sets._asdict())
            return made

        if self.both(both):
            size = next(n for one, n in self.runs() if one == run)
            old = next((p for p in self.plans if p.id == run), None)
            rows = (
                old.rows
                if old
                else [NodeRow("t", Kind.TASK, NO_NODE, trigger_rule("all_success", 0))]
            )
            assert len(rows) == size
            self.plans.append(Plan(new, "p", rows))

    # --- who has started whom -------------------------------------------------------------------

    def a_parent(self, which: int) -> bytes:
        """A task or node that is there, a root too."""
        known = [*self.known(), *(run for run, _ in self.runs())]
        there = [id for id, x in zip(known, self.model.look(known), strict=True) if x]
        return there[which % len(there)] if there else b""

    @precondition(something_is_known)
    @rule(which=ids, call=messages())
    def start_a_task(self, which: int, call: dict[str, Any]) -> None:
        if self.lacks & {"started"}:
            return
        new = Message(self.new_id(), "t", b"P", parent=self.a_parent(which), **call)
        if self.both(lambda store: store.enqueue([new]))[0]:
            self.tasks.append(new)

    @precondition(something_is_known)
    @rule(which=ids, rows=plans())
    def start_a_run(self, which: int, rows: list[NodeRow]) -> None:
        if self.lacks & {"started"}:
            return
        plan = Plan(self.new_id(), "p", rows, 700_000, parent=self.a_parent(which))
        if self.both(lambda store: store.submit(plan)):
            self.plans.append(plan)

    # --- item by item ---------------------------------------------------------------------------

    def along(self, id: bytes, kind: int) -> list[NodeRow]:
        """What a node becomes whose items go along with those of what it follows."""
        if len(id) != 20 or self.lacks & {"along"}:
            return _NOTHING
        run, index = split_node(id)
        there = self.model.nodes(run, limit=1_000)
        me = next(info for info in there if info.index == index)
        leaders = [(i, items) for i in indexes(me.follows) if (items := _items(there, i))]
        if not leaders:
            return _NOTHING
        n = min(len(items) for _, items in leaders)
        rule, most = ALONG[kind]
        return _items_along([(i, items[0]) for i, items in leaders], n, rule, most)


def _items(there: Collection[NodeInfo], leader: int) -> list[int]:
    """The first nodes of a body that have indexes next to each other."""
    body = [x.index for x in there if x.index and x.owner == leader and x.phase == Phase.BODY]
    return [i for i, _ in takewhile(lambda x: x[0] == x[1], zip(body, _upwards(body), strict=True))]


def _upwards(body: list[int]) -> range:
    return range(body[0], body[0] + len(body)) if body else range(0)


def _items_along(of: list[tuple[int, int]], n: int, rule: str, most: int) -> list[NodeRow]:
    parents = [ranges_of(first + k for _, first in of) for k in range(n)]
    items = [
        NodeRow(
            f"b{k}",
            Kind.TASK,
            INNER,
            trigger_rule(rule, len(of)),
            parents=above,
            reads=above,
            message=Message(b"", "t", b"P", name=f"b{k}"),
        )
        for k, above in enumerate(parents)
    ]
    every = ((INNER + 1, n),)
    face = NodeRow(
        "",
        Kind.EXPANSION,
        NO_NODE,
        trigger_rule("all_done", 0),
        entries=every,
        inner=n,
        value=encode_template(Seq(())),
        body=every,
        most=most,
        along=tuple(Along(leader, first, INNER + 1, n) for leader, first in of),
    )
    return [face, *items]
