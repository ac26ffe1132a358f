# SPDX-License-Identifier: MIT
"""What each law says of one case: one random program, played to its end on a store of its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias

from flowq.errors import GraphError, RunEnded
from flowq.message import id_bytes
from flowq.plan import Bits, Phase
from flowq.states import State
from flowq.storage import Store, open_store
from flowq.storage.base import NodeInfo
from flowq.testing import ManualClock
from tests.model.bodies import digest, playing
from tests.model.limited import limits_in
from tests.model.meaning import Meaning
from tests.model.played import Player, is_between
from tests.model.programs import Body, Scripts, Step
from tests.model.sketched import drawn
from tests.model.weighing import End
from tests.model.written import written

__all__ = ["LAWS", "Make", "Played", "fresh_stores"]

Make: TypeAlias = Callable[[ManualClock], Store]


def fresh_stores(folder: Path, redis: str = "", prefix: str = "s") -> Callable[[], Make]:
    """Give what makes stores that nobody has used: files in a folder, or on a server."""

    def new() -> Make:
        name = f"{prefix}-{secrets.token_hex(6)}"
        if redis:
            return lambda clock: open_store(redis, name=name, clock=clock)
        url = f"sqlite:///{folder}/{name}.db?synchronous=normal"
        return lambda clock: open_store(url, clock=clock)

    return new


class Played:
    """One run of a program.

    Parameters
    ----------
    seed, size : int
        Which program.
    make : callable
        Opens its store.
    order : int
        Which order of all that happens.
    hurry, calm : bool
        Whether deadlines may pass; whether no failure stops others.
    again : bool
        Whether what runs again returns.
    """

    def __init__(
        self,
        seed: int,
        size: int,
        make: Make,
        order: int = 0,
        *,
        hurry: bool = False,
        calm: bool = False,
        again: bool = False,
    ) -> None:
        self.rand = Random(f"{seed} {size} {order}")
        self.program = drawn(Random(seed), size, hurry=hurry, calm=calm)
        self.seed = seed
        self.scripts = Scripts(seed, again=again)
        self.calls: dict[str, Any] = {}
        self.sends = 0
        self.needing = {s.name for s in steps_in(self.program) if s.need}
        playing(self.scripts, self.calls)
        self.player = Player(make, self.rand)
        self.player.urge = self.answer
        self.player.troubles += [self.send, self.look_at_limits]
        with self.player.on_stage():
            self.run = written(self.program).start()
        self.id = id_bytes(self.run.id)

    def close(self) -> None:
        self.player.close()

    def nodes(self) -> dict[str, NodeInfo]:
        """The nodes by path, but for joins; the root's is empty."""
        found = self.player.nodes(self.id)
        return {n.name if n.index else "": n for n in found if not is_between(n)}

    def ends(self) -> dict[str, State]:
        """Play to the end: how each node ended."""
        self.player.play()
        return self.player.check(self.id)

    # --- what is sent ----------------------------------------------------------------------------

    def send(self) -> bool:
        """Send something to a node that is there, or to what is around it; none may wait for it."""
        waiting = [n for n in self.nodes().values() if n.signal]
        if not waiting:
            return False
        node = self.rand.choice(waiting)
        around = node.name.rpartition("/")[0]
        self._send(node, self.rand.choice(["", node.name, around]))
        return True

    def answer(self) -> bool:
        """Send to a node that waits, if there is one."""
        waiting = [n for n in self.nodes().values() if n.signal and n.state == State.SCHEDULED]
        if not waiting:
            return False
        node = self.rand.choice(waiting)
        self._send(node, self.rand.choice(["", node.name]))
        return True

    def _send(self, node: NodeInfo, to: str) -> None:
        self.sends += 1
        value = f"{node.signal}:{self.sends}"
        with self.player.on_stage():
            for _ in range(self.rand.choice([1, 1, 2])):  # told twice, it counts once
                with suppress(RunEnded):
                    self.run.send(node.signal, value, to=to, id=value)

    # --- what is limited -------------------------------------------------------------------------

    def look_at_limits(self) -> bool:
        """See that no more goes on than may, and that nothing is held where there is room."""
        self.player.quiet()
        nodes = self.player.nodes(self.id)
        found = limits_in(self.program, nodes)
        for limit in found.values():
            assert limit.taken <= limit.most, limit
        if not self.player.paused:
            for node in nodes:
                if node.state == State.HELD and node.waits_at:
                    limit = found[node.waits_at]
                    assert limit.taken == limit.most, f"{node.name} waits at {limit}"
        return any(limit.taken for limit in found.values())

    # --- what came of it -------------------------------------------------------------------------

    def given(self) -> dict[str, End]:
        """What came of races, of what waits, and of maps that need so many."""
        found: dict[str, End] = {}
        taken: list[Any] = []
        with self.player.on_stage():
            for path, node in self.nodes().items():
                raced = node.bits & Bits.RACE or path.rpartition("/")[2] in self.needing
                if node.state == State.SUCCESS and (raced or node.signal):
                    value = self.run.result(node.index).get(raise_errors=False)
                    found[path] = End(node.state, digest(value))
                    taken += [value] * (bool(node.signal) and value != "default")
                elif node.state == State.FAILED and node.signal:
                    found[path] = End(node.state)
        assert len(taken) == len(set(taken)), "a send was taken twice"
        return found

    def compare(self, found: dict[str, State], scripts: Scripts) -> None:
        """See that all came as it means."""
        meaning = Meaning(self.program, scripts, self.given())
        expected = {**meaning.states, "": meaning.end.state}
        open_ = [path for path, state in expected.items() if state is None]
        sure = {path: state for path, state in expected.items() if state is not None}
        within = tuple(f"{path}{sign}" for path in open_ for sign in "/[")
        left = {p: s for p, s in found.items() if p not in open_ and not p.startswith(within)}
        differ(left, sure)
        differ({path: self.calls.get(path) for path in meaning.calls}, meaning.calls)
        assert not meaning.wrong, meaning.wrong
        self.compare_stopped(meaning)
        if meaning.end.state == State.SUCCESS:
            with self.player.on_stage():
                assert digest(self.run.get(raise_errors=False)) == digest(meaning.end.value)

    def compare_stopped(self, meaning: Meaning) -> None:
        """See that what was not wanted any more has not gone on."""
        nodes = self.nodes()
        met = dict.fromkeys(meaning.met, 0)
        for path, (state, by) in meaning.stopped.items():
            node = nodes[path]
            assert node.state in (state, State.SKIPPED), (path, node.state, state)
            if by in met:
                met[by] += node.state == State.SUCCESS
            elif node.state != State.SKIPPED:
                assert node.ended_ms <= nodes[by].ended_ms, f"{path} went on after {by}"
        assert met == meaning.met


def steps_in(body: Body) -> Iterator[Step]:
    """Go through the steps of a program, at any depth."""
    for step in body.steps:
        yield step
        for inner in (step.body, *step.arms.values()):
            if isinstance(inner, Body):
                yield from steps_in(inner)


def has_deadlines(body: Body) -> bool:
    steps = list(steps_in(body))
    return bool(body.deadline) or any(s.deadline or (s.body and s.body.deadline) for s in steps)


def differ(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fail with what differs alone."""
    paths = sorted({*found, *expected})
    wrong = [(p, found.get(p), expected.get(p)) for p in paths if found.get(p) != expected.get(p)]
    assert not wrong, "\n".join(f"{path}: found {f!r}, expected {e!r}" for path, f, e in wrong)


# --- the laws ------------------------------------------------------------------------------------


def ends_as_it_means(seed: int, size: int, new: Callable[[], Make]) -> None:
    """The first law; the second, fourth and sixth on the way: see `Player`."""
    for order in range(2):
        played = Played(seed, size, new(), order)
        played.compare(played.ends(), played.scripts)
        played.close()


def retries_as_if_it_had_not_failed(seed: int, size: int, new: Callable[[], Make]) -> None:
    """The fifth law; then the same of a node that runs again."""
    played = Played(seed, size, new())
    played.ends()
    first = Meaning(played.program, played.scripts, played.given())
    exact = [s for p, s in first.states.items() if p not in first.stopped and s is None]
    for again in ("retry", "rerun"):
        before = played.nodes()
        with played.player.on_stage():
            if again == "retry":
                count = played.run.retry(forgiven=played.rand.random() < 0.3)
                assert count or before[""].state not in (State.FAILED, State.BLOCKED)
            else:
                played.run.rerun(played.rand.choice(in_bodies(list(before.values()))))
        rerun = whole_atoms(played, before)
        kept = kept_scripts(played, before)
        playing(kept, played.calls)
        cached = [path for path in rerun if before[path].task == "pure"]
        for path in cached:
            played.calls.pop(path, None)
        found = played.ends()
        for path in cached:  # what runs again reads no cache
            assert found.get(path) != State.SUCCESS or path in played.calls, path
        if not exact:
            played.compare(found, kept)
        if again == "retry":
            assert_good(played, found)
        played.scripts = kept
    played.close()


def in_bodies(nodes: list[NodeInfo]) -> list[int]:
    """Which nodes may run again by themselves: no handler, no fallback, nothing inside those."""
    found = {0}
    for node in nodes:
        if node.index and node.phase == Phase.BODY and node.owner in found:
            found.add(node.index)
    return sorted(found)


def kept_scripts(played: Played, before: dict[str, NodeInfo]) -> Scripts:
    """What bodies do after a rewind: those that were not chosen as before, the others return."""
    now = played.nodes()
    same = [p for p in before if p in now and now[p].generation == before[p].generation]
    return played.scripts.keeping({p for p in same if before[p].state.final})


def whole_atoms(played: Played, before: dict[str, NodeInfo]) -> set[str]:
    """See that of what is atomic all runs again, or nothing; gives what runs again."""
    now = played.nodes()
    again = {p for p in before if p not in now or now[p].generation != before[p].generation}
    atomic = {s.name: s.kind for s in steps_in(played.program) if s.body and s.body.atomic}
    for path, node in before.items():
        name, sign, _ = path.rpartition("/")[2].partition("[")
        kind = atomic.get(name)
        if not (played.program.atomic if not path else kind == ("map" if sign else "flow")):
            continue
        body = [
            n.name
            for n in before.values()
            if n.index and n.owner == node.index and n.phase == Phase.BODY and n.ready_ms
        ]
        chosen = again.intersection(body)
        assert not chosen or chosen == set(body), f"{path}: of {body} again {chosen}"
    return again


def assert_good(played: Played, found: dict[str, State]) -> None:
    """After a retry a run fails only if it would though all bodies return, or for what it kept.

    What stands in for a value (a default, or what a fallback gave) may be no list and no arm's key;
    a failure that was returned, or that is kept, blocks the item that it is an element for.
    """
    nodes = played.nodes().values()
    instead = any(
        (n.state == State.FAILED and n.bits & Bits.COUNTS_AS_SUCCESS)
        or (n.state == State.SUCCESS and n.phase == Phase.FALLBACK)
        for n in nodes
    )
    instead |= any(n.state == State.BLOCKED and n.name.endswith("]") for n in nodes)
    instead |= any(played.scripts(path).then == "failure" for path in played.calls)
    if found[""] in (State.FAILED, State.CANCELLED) and not instead:
        all_return = played.scripts.keeping(())
        assert Meaning(played.program, all_return, played.given()).end.state == State.FAILED


def runs_again_in_the_middle(seed: int, size: int, new: Callable[[], Make]) -> None:
    """The fifth law where the run goes on: it ends as if what ran again had returned at once."""
    played = Played(seed, size, new(), calm=True, again=True)
    rand, player = played.rand, played.player
    for _ in range(rand.randint(1, 3)):
        player.play(rand.randint(1, 80), partly=True)
        by = {node.index: node for node in player.nodes(played.id)}
        node = by[rand.choice(in_bodies(list(by.values())))]
        meddle(played, rand.choice(["retry", "rerun"]), node)
    found = played.ends()
    first = {path for path, node in played.nodes().items() if not node.generation}
    played.compare(found, played.scripts.keeping(first))
    played.close()


def ends_though_disturbed(seed: int, size: int, new: Callable[[], Make]) -> None:
    """The second law where users stop things and deadlines pass; then a retry runs what ended."""
    played = Played(seed, size, new(), hurry=True)
    rand, player = played.rand, played.player
    for _ in range(rand.randint(1, 4)):
        player.play(rand.randint(1, 30), partly=True)
        nodes = list(played.nodes().values())
        node = rand.choice([*nodes, *nodes[:1] * 5])
        meddle(played, rand.choice(["cancel", "cancel", "cancel", "retry", "rerun"]), node)
    nodes_then = played.nodes()
    found = played.ends()
    before = played.nodes()
    for path, node in nodes_then.items():
        same = all(
            p in before and before[p].generation == n.generation
            for p, n in around(path, nodes_then).items()
        )
        if same and node.state.final and node.phase == Phase.BODY:
            assert found[path] == node.state, path
    with player.on_stage():
        count = played.run.retry()
    playing(kept_scripts(played, before), played.calls)
    found = played.ends()
    # a cancel may hit a run all of whose nodes have ended by then, but for cleanups within
    if count and not has_deadlines(played.program):
        assert_good(played, found)
    played.close()


def around(path: str, nodes: dict[str, NodeInfo]) -> dict[str, NodeInfo]:
    """Give a node, and what it stands in but for the run."""
    by = {node.index: node for node in nodes.values()}
    found = {}
    while path:
        found[path] = nodes[path]
        owner = by[nodes[path].owner]
        path = owner.name if owner.index else ""
    return found


def meddle(played: Played, how: str, node: NodeInfo) -> None:
    """Do what a user may do at any moment; what is refused changes nothing."""
    player = played.player
    with player.on_stage():
        if how == "cancel":
            handle = played.run if not node.index else played.run.result(node.index)
            handle.cancel(force=played.rand.random() < 0.2)
            player.notice()
            run = player.store.run(played.id)
            assert run is not None
            taken_back = not run.request or run.state.final or node.index
            assert taken_back, "a cancel of a run takes back what is to run again"
            return
        player.quiet()
        before = player.picture()
        info = player.store.run(played.id)
        ended = info is not None and info.ended_ms
        try:
            if how == "retry":
                played.run.retry(forgiven=played.rand.random() < 0.2)
            else:
                played.run.rerun(node.index)
        except GraphError:
            assert player.picture() == before
        if ended:  # paused it is no more
            player.notice()


LAWS: Final = [
    ends_as_it_means,
    retries_as_if_it_had_not_failed,
    runs_again_in_the_middle,
    ends_though_disturbed,
]
