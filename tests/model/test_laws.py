# SPDX-License-Identifier: MIT
"""The laws of the semantics (section 12), on random programs of users in random orders.

What a program comes to is said by `meaning`, which knows no stores; it is played by `played`, with
all that may go wrong in between. A failure is told by two numbers, from which everything is drawn.
``FLOWQ_TEST_SOAK=60`` plays for so many seconds more, ``FLOWQ_TEST_SOAK_FROM`` says from which
seed on.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowq.errors import BindingWarning
from flowq.message import id_bytes
from flowq.plan import Bits, Kind, Phase
from flowq.states import State
from flowq.storage import Store, open_store
from flowq.storage.base import NodeInfo
from flowq.testing import ManualClock
from tests.model.meaning import Meaning
from tests.model.played import Player
from tests.model.programs import Scripts, digest, drawn, playing, written

SECONDS: Final = float(os.environ.get("FLOWQ_TEST_SOAK", "0"))
FROM: Final = int(os.environ.get("FLOWQ_TEST_SOAK_FROM", "0")) or secrets.randbelow(1 << 40)
EXAMPLES: Final = settings().max_examples
Make: TypeAlias = Callable[[ManualClock], Store]

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{BindingWarning.__module__}.BindingWarning"),
    pytest.mark.timeout(max(300, EXAMPLES) + 4 * SECONDS),
]

cases = given(seed=st.integers(0, 1 << 32), size=st.integers(1, 60))


def drawing(examples: int) -> settings:
    return settings(
        max_examples=max(examples, EXAMPLES * examples // 100),
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies fail by the thousand."""
    monkeypatch.setattr(logging.getLogger("flowq.worker"), "disabled", True)


@pytest.fixture(params=["sqlite", "redis"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Make]:
    """What makes a store that nobody has used, and opens it again."""
    redis = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    names = request.getfixturevalue("store_name") if redis else ""

    def new() -> Make:
        name = f"{names}-{secrets.token_hex(6)}"
        if redis:
            return lambda clock: open_store(redis, name=name, clock=clock)
        url = f"sqlite:///{tmp_path}/{name}.db?synchronous=normal"
        return lambda clock: open_store(url, clock=clock)

    return new


class Played:
    """One run of a program on a store of its own."""

    def __init__(self, seed: int, size: int, make: Make, order: int = 0) -> None:
        self.rand = Random(f"{seed} {size} {order}")
        self.program = drawn(Random(seed), size)
        self.seed = seed
        self.scripts = Scripts(seed)
        self.calls: dict[str, Any] = {}
        playing(self.scripts, self.calls)
        self.player = Player(make, self.rand)
        with self.player.on_stage():
            self.run = written(self.program).start()
        self.id = id_bytes(self.run.id)

    def close(self) -> None:
        self.player.close()

    def nodes(self) -> dict[str, NodeInfo]:
        """The nodes by path, but for joins; the root's is empty."""
        found = self.player.nodes(self.id)
        return {n.name if n.index else "": n for n in found if n.kind != Kind.JOIN}

    def ends(self) -> dict[str, State]:
        """Play to the end: how each node ended."""
        self.player.play()
        return self.player.check(self.id)

    def compare(self, found: dict[str, State], meaning: Meaning) -> None:
        """See that all came as it means."""
        expected = {**meaning.states, "": meaning.end.state}
        open_ = [path for path, state in expected.items() if state is None]
        sure = {path: state for path, state in expected.items() if state is not None}
        within = tuple(f"{path}{sign}" for path in open_ for sign in "/[")
        left = {p: s for p, s in found.items() if p not in open_ and not p.startswith(within)}
        differ(left, sure)
        differ({path: self.calls.get(path) for path in meaning.calls}, meaning.calls)
        if meaning.end.state == State.SUCCESS:
            with self.player.on_stage():
                assert digest(self.run.get(raise_errors=False)) == digest(meaning.end.value)


def differ(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fail with what differs alone."""
    paths = sorted({*found, *expected})
    wrong = [(p, found.get(p), expected.get(p)) for p in paths if found.get(p) != expected.get(p)]
    assert not wrong, "\n".join(f"{path}: found {f!r}, expected {e!r}" for path, f, e in wrong)


# --- what each law says, of one case -------------------------------------------------------------


def ends_as_it_means(seed: int, size: int, new: Callable[[], Make]) -> None:
    """The first law; the second, fourth and sixth on the way: see `Player`."""
    meaning = Meaning(drawn(Random(seed), size), Scripts(seed))
    for order in range(2):
        played = Played(seed, size, new(), order)
        played.compare(played.ends(), meaning)
        played.close()


def retries_as_if_it_had_not_failed(seed: int, size: int, new: Callable[[], Make]) -> None:
    """The fifth law; then the same of a node that runs again."""
    played = Played(seed, size, new())
    played.ends()
    first = Meaning(played.program, played.scripts)
    for again in ("retry", "rerun"):
        before = played.nodes()
        with played.player.on_stage():
            if again == "retry":
                count = played.run.retry()
                assert count or before[""].state not in (State.FAILED, State.BLOCKED)
            else:
                played.run.rerun(played.rand.choice(in_bodies(list(before.values()))))
        kept = kept_scripts(played, before)
        playing(kept, played.calls)
        found = played.ends()
        if not first.open:
            played.compare(found, Meaning(played.program, kept))
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
    return Scripts(played.seed, {p: played.scripts(p) for p in same if before[p].state.final})


def assert_good(played: Played, found: dict[str, State]) -> None:
    """After a retry a run fails only if it would though all bodies return, or for what it kept.

    What stands in for a value (a default, or what a fallback gave) may be no list and no arm's key.
    """
    nodes = played.nodes().values()
    instead = any(
        (n.state == State.FAILED and n.bits & Bits.COUNTS_AS_SUCCESS)
        or (n.state == State.SUCCESS and n.phase == Phase.FALLBACK)
        for n in nodes
    )
    if found[""] in (State.FAILED, State.CANCELLED) and not instead:
        assert Meaning(played.program, Scripts(played.seed, {})).end.state == State.FAILED


def ends_though_cancelled(seed: int, size: int, new: Callable[[], Make]) -> None:
    """The second law where users stop things; then a retry runs what was stopped."""
    played = Played(seed, size, new())
    rand, player = played.rand, played.player
    for _ in range(rand.randint(1, 4)):
        player.play(rand.randint(1, 30), partly=True)
        nodes = list(played.nodes().values())
        node = rand.choice([*nodes, *nodes[:1] * 5])
        with player.on_stage():
            handle = played.run if not node.index else played.run.result(node.index)
            handle.cancel(force=rand.random() < 0.2)
    nodes_then = played.nodes()
    found = played.ends()
    for path, node in nodes_then.items():
        if node.state.final and node.phase == Phase.BODY:
            assert found[path] == node.state, path
    before = played.nodes()
    with player.on_stage():
        count = played.run.retry()
    playing(kept_scripts(played, before), played.calls)
    found = played.ends()
    # a cancel may hit a run all of whose nodes have ended by then, but for cleanups within
    if count:
        assert_good(played, found)
    played.close()


LAWS: Final = [ends_as_it_means, retries_as_if_it_had_not_failed, ends_though_cancelled]


# --- the laws ------------------------------------------------------------------------------------


@cases
@drawing(80)
def test_each_node_ends_as_its_program_means_in_any_order(
    opener: Callable[[], Make], seed: int, size: int
) -> None:
    ends_as_it_means(seed, size, opener)


@cases
@drawing(50)
def test_a_retry_leaves_what_a_run_leaves_in_which_that_did_not_fail(
    opener: Callable[[], Make], seed: int, size: int
) -> None:
    retries_as_if_it_had_not_failed(seed, size, opener)


@cases
@drawing(50)
def test_a_run_ends_whatever_is_cancelled_when(
    opener: Callable[[], Make], seed: int, size: int
) -> None:
    ends_though_cancelled(seed, size, opener)


@pytest.mark.skipif(not SECONDS, reason="FLOWQ_TEST_SOAK says for how many seconds")
@pytest.mark.parametrize("law", LAWS, ids=[law.__name__ for law in LAWS])
def test_the_laws_hold_for_long(opener: Callable[[], Make], law: Callable[..., None]) -> None:
    deadline = time.monotonic() + SECONDS / len(LAWS) / 2
    for seed in seeds():
        size = 1 + seed % 60
        print(f"{law.__name__}({seed=}, {size=})")
        law(seed, size, opener)
        if time.monotonic() > deadline:
            return


def seeds() -> Iterator[int]:
    seed = FROM
    while True:
        yield seed
        seed += 1
