# SPDX-License-Identifier: MIT
"""Races, needs, bounds, timers on SQLite: kills between pages, what they cost, who is woken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowq.outcome import Outcome
from flowq.plan import Plan
from flowq.states import State
from flowq.storage.base import PAGE
from flowq.storage.sqlite.store import SqliteStore
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import done, end, make_plan, node, run_all, states_of
from flowq.testing.contract.policies import edited
from flowq.testing.contract.races import as_race
from tests.unit.test_sqlite_growing import Killed, die_in_transaction, drive, rows_in

MANY = PAGE + 100


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Iterator[SqliteStore]:
    made = SqliteStore.from_url("memory://", clock=clock)
    yield made
    made.close()


@pytest.fixture
def pair(tmp_path: Path, clock: ManualClock) -> Iterator[tuple[SqliteStore, SqliteStore]]:
    url = f"sqlite:///{tmp_path}/a.db"
    made = SqliteStore.from_url(url, clock=clock), SqliteStore.from_url(url, clock=clock)
    yield made
    for one in made:
        one.close()


def body_of(n: int, **more: object) -> Plan:
    """A run of an expansion with tasks, and a task behind it."""
    items = [f"i{k}" for k in range(n)]
    shape: dict[str, list[str]] = {"m": [], "after": ["m"], **{name: [] for name in items}}
    return edited(make_plan(shape, inside=dict.fromkeys(items, "m")), "m", **more)


def slept(sleep_ms: int) -> Plan:
    """A run that begins with a sleep."""
    return edited(
        make_plan({"pause": [], "b": ["pause"]}, joins=["pause"]), "pause", sleep_ms=sleep_ms
    )


def ends_of(store: SqliteStore, plan: Plan) -> list[str]:
    """How the items ended."""
    return [end for name, end in states_of(store, plan).items() if name[0] == "i"]


# --- kills between pages -------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(1, 5))
def test_what_a_race_owns_has_lost_though_a_process_was_killed_between_pages(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    items = [f"i{k}" for k in range(MANY)]
    shape: dict[str, list[str]] = {**{name: [] for name in items}, "first": items, "b": ["first"]}
    p = make_plan(shape, joins=["first"], rules={"first": "one_success"})
    store.submit(as_race(p, "first", items))
    (winner,) = store.step("w", want=1).deliveries
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        store.step("w", [end(winner)])
        while True:
            store.sweep()

    handed = drive(store, end(winner))

    assert handed[-1] == node(p, "b")
    states = states_of(store, p)
    assert {states.pop(name) for name in ("i0", "first", "b", "root")} == {"success"}
    assert set(states.values()) <= {"skipped", "success"}
    assert list(states.values()).count("success") == len(handed) - 1  # before their page came
    assert store.status().queues[0].ready == 0
    assert store.check(p.id) == []


def test_who_steps_is_told_to_step_again_until_no_page_is_left(store: SqliteStore) -> None:
    items = [f"i{k}" for k in range(6 * PAGE)]  # each that lost leaves an edge to count
    shape: dict[str, list[str]] = {**{name: [] for name in items}, "first": items}
    p = make_plan(shape, joins=["first"], rules={"first": "one_success"})
    store.submit(as_race(p, "first", items))
    step = store.step("w", want=1)

    step = store.step("w", done(step))
    while step.next_ms == 0:
        step = store.step("w")

    assert rows_in(store, "walk") == 0
    assert set(states_of(store, p).values()) == {"success", "skipped"}


@pytest.mark.parametrize("at", range(1, 5))
def test_what_is_beside_enough_ends_skipped_though_a_process_was_killed_between_pages(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    p = body_of(MANY, need=1)
    store.submit(p)
    (winner,) = store.step("w", want=1).deliveries
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        store.step("w", [end(winner)])
        while True:
            store.sweep()

    handed = drive(store, end(winner))

    assert handed == [node(p, "after")]
    assert ends_of(store, p) == ["success"] + ["skipped"] * (MANY - 1)
    assert states_of(store, p)["root"] == "success"
    assert store.check(p.id) == []


def test_a_success_that_comes_before_its_page_but_after_enough_is_not_wanted(
    store: SqliteStore,
) -> None:
    p = body_of(4 * PAGE, need=1)
    store.submit(p)
    early = store.step("v", want=1_000).deliveries[0]
    late = store.step("v", want=1_000).deliveries[-1]

    step = store.step("v", [end(early)])
    assert late.id not in step.stops

    store.step("v", [end(late)])

    assert ends_of(store, p)[-1] == "skipped"


@pytest.mark.parametrize("at", range(2, 6))
def test_a_new_generation_that_was_killed_between_pages_keeps_to_its_bound(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    p = body_of(MANY, most=2)
    store.submit(p)
    run_all(store, p, {f"i{k}": State.FAILED for k in range(MANY)})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        store.rewind(p.id, 1, chosen=((2, MANY + 1),), reopened=((1, 1),))

    step = store.step("w", want=MANY)
    while step.next_ms == 0:
        step = store.step("w", want=MANY)

    assert [d.id for d in store.held("w")] == [node(p, "i0"), node(p, "i1")]
    assert store.check(p.id) == []
    assert len(drive(store, *[end(d) for d in store.held("w")])) == MANY - 1
    assert set(states_of(store, p).values()) == {"success"}


@pytest.mark.parametrize("at", range(1, 4))
def test_more_than_a_page_may_begin_though_a_process_was_killed_meanwhile(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    p = below_a_task(body_of(4 * PAGE, most=3 * PAGE))
    store.submit(p)
    (first,) = store.step("w", want=5).deliveries
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        store.step("w", [end(first)])
        while True:
            store.sweep()

    step = store.step("w", [end(first)])
    while step.next_ms == 0:
        step = store.step("w")

    assert step.ready == 3 * PAGE
    assert store.check(p.id) == []


def below_a_task(plan: Plan) -> Plan:
    """Let the expansion wait for a task."""
    names = [row.name for row in plan.rows[1:] if row.name[0] == "i"]
    most = plan.rows[1].most
    shape: dict[str, list[str]] = {"a": [], "m": ["a"], **{name: [] for name in names}}
    return edited(make_plan(shape, inside=dict.fromkeys(names, "m")), "m", most=most)


@pytest.mark.parametrize("at", range(1, 5))
def test_a_deadline_reaches_all_though_a_process_was_killed_between_pages(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, clock: ManualClock, at: int
) -> None:
    p = body_of(MANY, deadline_ms=5_000)
    store.submit(p)
    held = store.step("w", want=1).deliveries
    clock.advance(5)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        store.step("v")
        while True:
            store.sweep()

    store.step("v")
    assert drive(store, *[end(d) for d in held]) == []

    assert ends_of(store, p) == ["failed"] + ["cancelled"] * (MANY - 1)
    states = states_of(store, p)
    assert (states["m"], states["after"], states["root"]) == ("failed", "blocked", "failed")
    assert store.check(p.id) == []


@pytest.mark.parametrize("at", range(1, 4))
def test_a_run_goes_on_whole_though_a_process_was_killed_between_pages(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    p = body_of(2 * MANY)
    store.submit(p)
    store.pause(p.id)
    while store.step("w", want=1_000).ready:
        pass
    assert ends_of(store, p) == ["held"] * 2 * MANY
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        store.resume(p.id)
        while True:
            store.sweep()

    store.resume(p.id)

    assert len(drive(store)) == 2 * MANY + 1
    assert set(states_of(store, p).values()) == {"success"}


def test_one_that_is_paused_again_before_all_of_it_went_on_stays_so(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = body_of(2 * MANY)
    store.submit(p)
    store.pause(p.id)
    while store.step("w", want=1_000).ready:
        pass
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, 2)
        store.resume(p.id)
    store.pause(p.id)

    for _ in range(10):
        assert store.step("w", want=1_000).deliveries == []

    assert ends_of(store, p) == ["held"] * 2 * MANY
    assert rows_in(store, "walk") == 0


# --- cost ----------------------------------------------------------------------------------------


def test_what_has_no_place_costs_nothing_when_its_expansion_begins(store: SqliteStore) -> None:
    p = below_a_task(body_of(8 * PAGE, most=3))
    store.submit(p)
    (first,) = store.step("w", want=5).deliveries
    with store._db.read() as db:
        before = db.total_changes

    step = store.step("w", [end(first)], want=5)

    with store._db.read() as db:
        assert db.total_changes - before < 40
    assert len(step.deliveries) == 3
    assert step.next_ms != 0
    assert rows_in(store, "walk") == 0


def test_the_next_one_is_found_at_the_same_cost_however_many_have_begun(store: SqliteStore) -> None:
    p = body_of(4 * PAGE, most=1)
    store.submit(p)
    costs: list[int] = []
    outcomes: list[Outcome] = []

    for _ in range(3 * PAGE):
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            ticks += 1

        with store._db.read() as db:
            db.set_progress_handler(tick, 10)
        outcomes = done(store.step("w", outcomes, want=1))
        assert outcomes
        costs.append(ticks)

    assert sum(costs[-100:]) < 1.2 * sum(costs[100:200])


def test_what_waits_for_answers_is_forgotten_with_its_run(
    store: SqliteStore, clock: ManualClock
) -> None:
    shape: dict[str, list[str]] = {"x": [], "y": [], "z": []}
    p = make_plan(shape, joins=["x", "y", "z"])
    for name in shape:
        p = edited(p, name, signal="go", timeout_ms=1_000 if name == "z" else 0)
    store.submit(p)
    assert rows_in(store, "awaiting") == 3
    store.send(p.id, "go", b"yes")
    store.send(p.id, "other", b"no")
    clock.advance(1)
    store.step("w")
    assert (rows_in(store, "awaiting"), rows_in(store, "sent")) == (1, 2)

    store.cancel([p.id])
    assert rows_in(store, "awaiting") == 0
    clock.advance(31 * 86_400)
    while store.sweep(limit=1).more:
        pass

    assert rows_in(store, "sent") == rows_in(store, "message") == rows_in(store, "run") == 0


# --- who is woken --------------------------------------------------------------------------------


def waiting(store: SqliteStore, came: list[bool]) -> threading.Thread:
    """Let a thread wait for work in a queue that nothing is put into."""
    waiter = threading.Thread(target=lambda: came.append(store.wait_ready(["other"], timeout=50)))
    waiter.start()
    until = time.monotonic() + 20
    while not any(Path(f"{store.path}-wake").glob("r-*")) and time.monotonic() < until:
        time.sleep(0.01)
    return waiter


def answered(timeout_ms: int) -> Plan:
    """A run that begins by waiting for an answer."""
    p = make_plan({"answer": [], "b": ["answer"]}, joins=["answer"])
    return edited(p, "answer", signal="go", timeout_ms=timeout_ms)


def timed(deadline_ms: int) -> Plan:
    """A run with a deadline, whose work is in a queue that is not served."""
    return edited(make_plan({"a": []}, queue="elsewhere"), "root", deadline_ms=deadline_ms)


@pytest.mark.parametrize("begins", [slept, answered, timed])
def test_who_waits_for_any_queue_is_told_that_a_run_begins_whose_time_will_come(
    pair: tuple[SqliteStore, SqliteStore], begins: Callable[[int], Plan]
) -> None:
    came: list[bool] = []
    waiter = waiting(pair[0], came)

    pair[1].submit(begins(60_000))

    waiter.join(timeout=20)
    assert came == [True]


def test_who_waits_is_told_that_a_sleep_was_cut_short(
    pair: tuple[SqliteStore, SqliteStore],
) -> None:
    store, other = pair
    p = slept(60_000)
    other.submit(p)
    came: list[bool] = []
    waiter = waiting(store, came)

    other.reschedule(node(p, "pause"))

    waiter.join(timeout=20)
    assert came == [True]
    assert [d.id for d in store.step("w", want=1).deliveries] == [node(p, "b")]


# --- what is stored ------------------------------------------------------------------------------


def test_the_self_check_counts_wins_and_places(store: SqliteStore) -> None:
    p = body_of(4, most=2, need=3)
    store.submit(p)
    first = store.step("w", want=1)
    store.step("w", done(first))
    assert store.check(p.id) == []

    with store._db.write() as db:
        db.execute("UPDATE expansion SET won = 0, under = 0 WHERE need = 3")

    wrong = " ".join(store.check(p.id))
    assert "expansion 1 counts 0 that it needs, there are 1" in wrong
    assert "expansion 1 counts 0 under way, there are 2" in wrong
    assert "expansion 1 has forgotten that node 6 waits" in wrong
