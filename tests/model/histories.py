# SPDX-License-Identifier: MIT
"""What is looked at after each move of a random history: both show the same, and it makes sense."""

from __future__ import annotations

from typing import Any

from hypothesis.stateful import invariant
from msgspec.structs import replace

from flowq.plan import Bits, Kind, indexes
from flowq.states import State
from flowq.storage import Store
from flowq.storage.base import NodeInfo
from tests.model.again import Again
from tests.model.drawn import SESSIONS
from tests.model.plain import plain_deliveries, plain_letter, plain_look, plain_node, same

__all__ = ["Histories"]

BAD = (State.FAILED, State.BLOCKED)


def forgiven(info: NodeInfo) -> bool:
    """Whether an end does not count as a failure in the expansion around it."""
    failed = info.state == State.FAILED
    return bool(info.bits & (Bits.FORGIVEN | Bits.COUNTS_AS_SUCCESS * failed))


def whom(info: NodeInfo) -> int | None:
    """Who is to blame for an end, which may be itself."""
    return info.index if info.culprit is None and info.state in BAD else info.culprit


class Histories(Again):
    """Moves, and what must hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[bytes, list[int]] = {}

    @invariant()
    def looks_are_the_same(self) -> None:
        known = self.known() + [id for id, _ in self.runs()]
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
        self.both(lambda store: [replace(x, changes=0) for x in store.runs(limit=1_000)])
        for run, _ in self.runs():
            self.both(lambda store: store.sent(run))  # noqa: B023
            real, model = self.real.nodes(run), self.model.nodes(run)
            same([plain_node(x) for x in real], [plain_node(x) for x in model])
            if real:
                same(self.real.check(run), [])
                same(self.model.check(run), [])
                self.who_is_blamed(real)
                body = [x for x in real if x.owner == 0]
                over = real[0].state.final or real[0].parked not in (None, State.RUNNING)
                assert over == all(x.state.final for x in body)

    @invariant()
    def what_was_started_is_listed(self) -> None:
        for id in [*(m.id for m in self.tasks), *(run for run, _ in self.runs())]:
            if not self.lacks & {"started"}:
                self.both(lambda store: store.started(id))  # noqa: B023

    @invariant()
    def changes_are_counted(self) -> None:
        for run, _ in self.runs():
            infos = [x for store in (self.real, self.model) if (x := store.run(run))]
            now = [x.changes for x in infos]
            before = self.numbers.get(run, now)
            if now and before[1:] != now[1:]:
                assert before[0] != now[0]
            self.numbers[run] = now

    def who_is_blamed(self, nodes: list[NodeInfo]) -> None:
        """A culprit is that of a parent, or of an inner node, that failed."""
        there = {x.index: x for x in nodes}  # some may have been dropped
        for info in nodes:
            around = there[info.owner] if info.index else info
            if around.state.final and not around.ready_ms:
                assert info.culprit == whom(around) or info.state != around.state
                continue
            blamed: set[int | None] = set()
            if info.state == State.BLOCKED:
                if info.culprit is None:  # from the start: so says its cell, which is compared
                    continue
                above = [there[i] for i in indexes(info.parents)]
            elif info.state == State.FAILED and info.kind == Kind.EXPANSION:
                if info.culprit is None:  # its time was up: so says its cell, which is compared
                    continue
                inner = [x for x in nodes if x.owner == info.index]
                above = [x for x in inner if x.state in BAD and not forgiven(x)]
                blamed.update([info.index] * info.grown)
                if not above:  # fewer succeeded than it needs
                    blamed.add(info.index)
            elif info.state == State.EXPANDED:
                continue
            else:
                assert info.culprit is None
                continue
            blamed |= {whom(x) for x in above if x.state in BAD}
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
            self.both(lambda store: plain_deliveries(store.held(session)))  # noqa: B023
