# SPDX-License-Identifier: MIT
"""Random histories of a store, each told to a model of the contract too.

After each move both must show the same. Where `flowq.storage.base` leaves an order open the model
follows the store's choice, if it is one of those that are allowed. The moves are in `moves`, what
is compared is in `histories`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import engine
from hypothesis.stateful import run_state_machine_as_test

from flowq.message import Message, new_id, pack_cell, read_cell
from flowq.outcome import Done, Failed, Skipped
from flowq.states import State
from flowq.storage import Store, open_store
from flowq.testing import ManualClock
from flowq.testing.model import ModelStore
from tests.model.drawn import QUEUES
from tests.model.histories import Histories

MAKING_SHORTER_S = 60
"""For how long a history that fails is made shorter before it is shown. Hypothesis would take five
minutes (as its warning goes on to say), which is the limit of the test: nothing would be shown."""

EXAMPLES = settings().max_examples

pytestmark = pytest.mark.timeout(max(300, 3 * EXAMPLES))


def run_histories(
    name: str,
    make: Callable[[ManualClock], Store],
    least: int = 60,
    seconds: float = MAKING_SHORTER_S,
    lacks: frozenset[str] = frozenset(),
    **more: Any,
) -> None:
    """Run random histories on stores that are made for one each.

    The name is that of the machine, by which Hypothesis knows the histories that have failed: they
    come first the next time, and one that fails on a single store isn't forgotten by the others.
    """
    machine = type(name, (Histories,), {"make": staticmethod(make), "lacks": lacks})
    how = settings(
        max_examples=max(least, EXAMPLES // 5),
        stateful_step_count=40,
        suppress_health_check=list(HealthCheck),
        # Not `explain`: it tries hundreds of variations more, to say which arguments don't matter.
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        **more,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "MAX_SHRINKING_SECONDS", seconds)
        run_state_machine_as_test(machine, settings=how)


# --- what such histories found -------------------------------------------------------------------


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory://", "redis", "model"])
def store(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[Store]:
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


def test_one_that_waits_to_be_alone_for_two_reasons_takes_nobodys_place(store: Store) -> None:
    lost = Message(new_id(), "t", b"P", prefetch=1, priority=-1)
    others = [Message(new_id(), "t", b"P", priority=priority) for priority in (0, -5)]
    store.enqueue([lost])
    store.step("gone", want=1)
    store.release("gone", lost=[lost.id])
    store.enqueue(others)

    given = store.step("a", want=3).deliveries

    assert [d.id for d in given] == [message.id for message in others]


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


def test_an_id_that_was_forgotten_can_fail_the_next_time(store: Store, clock: ManualClock) -> None:
    message = Message(new_id(), "t", b"P", result_ttl_ms=0)
    store.enqueue([message])
    store.cancel([message.id])
    clock.advance(86_400 * 2)

    assert store.enqueue([message]) == [True]
    (d,) = store.step("a", want=1).deliveries
    cell = pack_cell(State.FAILED, b"x", delivery=d.delivery, started_ms=1, ended_ms=2)
    store.step("a", [Failed(d.id, d.delivery, cell)])

    (look,) = store.look([message.id])
    assert look is not None
    assert look.state == State.FAILED


# --- random histories ----------------------------------------------------------------------------


def test_sqlite_in_a_file_does_what_the_model_does(tmp_path: Path) -> None:
    def make(clock: ManualClock) -> Store:
        return open_store(f"sqlite:///{tmp_path}/{secrets.token_hex(6)}.db", clock=clock)

    run_histories("InAFile", make, least=25)  # a disk takes its time; in memory the same runs


def test_memory_does_what_the_model_does() -> None:
    run_histories("InMemory", lambda clock: open_store("memory://", clock=clock))


def test_redis_does_what_the_model_does(redis_url: str, store_name: str) -> None:
    def make(clock: ManualClock) -> Store:
        return open_store(redis_url, name=f"{store_name}-{secrets.token_hex(6)}", clock=clock)

    run_histories("OnRedis", make)


def test_a_store_that_breaks_the_contract_is_shown_with_its_history_in_time() -> None:
    played = 0

    def make(clock: ManualClock) -> Store:
        nonlocal played
        played += 1
        store = open_store("memory://", clock=clock)
        release = store.release
        store.release = lambda session, **_: release(session)  # counts no losses
        return store

    with pytest.raises(AssertionError) as caught:
        run_histories("Broken", make, seconds=1, database=None)

    assert played < 150  # 250 to 450 where nothing ends it
    story = "\n".join(caught.value.__notes__)
    assert story.index("state.begin(") < story.index("state.lose(")
