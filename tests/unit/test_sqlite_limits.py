# SPDX-License-Identifier: MIT
"""Limits, and items that go along, on SQLite: kills between pages, cost, what is left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowq.outcome import Expand, Outcome
from flowq.plan import Phase, Plan, When
from flowq.storage.base import PAGE
from flowq.storage.sqlite.store import SqliteStore
from flowq.testing.clock import ManualClock
from flowq.testing.contract.along import items_along, two_maps
from flowq.testing.contract.base import done, end, make_plan, node, run_all, states_of
from flowq.testing.contract.limits import with_limits
from flowq.testing.contract.policies import with_later
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


def costs_of(store: SqliteStore, steps: int, outcomes: list[Outcome]) -> list[int]:
    """Work one message a step; says what each step cost the database."""
    costs: list[int] = []
    for _ in range(steps):
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            ticks += 1

        with store._db.read() as db:
            db.set_progress_handler(tick, 10)
        outcomes = done(store.step("w", outcomes, want=1))
        assert outcomes
        costs.append(ticks)
    return costs


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(1, 4))
def test_all_that_wait_are_let_in_though_a_process_was_killed_between_pages(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    both: dict[str, Any] = {"limits": (("a", 1), ("/b", 1))}
    names = [f"t{k}" for k in range(MANY)]
    messages = {"x": {"limits": (("a", 1),)}, "y": {"limits": (("/b", 1),)}}
    p = make_plan(
        {"x": [], "y": [], **{name: [] for name in names}},
        messages={**messages, **dict.fromkeys(names, both)},
    )
    store.submit(p)
    x, y = store.step("w", want=5).deliveries
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        store.step("w", [end(x)])  # all that waited for it wait for the other from now on
        while True:
            store.sweep()

    while store.step("w", [end(x)]).next_ms == 0:
        pass

    assert store.check(p.id) == []
    assert [(place.taken, place.waiting) for place in store.places(node(p, "t0"))] == [
        (0, 0),
        (1, MANY),
    ]
    assert len(drive(store, end(y))) == MANY
    assert states_of(store, p)["root"] == "success"


def test_to_let_the_next_in_costs_the_same_however_many_wait(store: SqliteStore) -> None:
    store.submit(with_limits(4 * PAGE, ("all", 1)))

    costs = costs_of(store, 2 * PAGE, [])

    assert sum(costs[-100:]) < 1.2 * sum(costs[100:200])


def test_a_limit_under_which_nobody_is_is_forgotten(store: SqliteStore, clock: ManualClock) -> None:
    p = with_limits(3, ("all", 1), ("/own", 2))
    q = with_limits(2, ("/own", 1))
    store.submit(p)
    store.submit(q)
    assert (rows_in(store, "gate"), rows_in(store, "place")) == (3, 3)

    run_all(store, p)
    store.cancel([q.id])

    assert (rows_in(store, "gate"), rows_in(store, "place")) == (0, 0)


def test_a_limit_is_forgotten_though_who_ends_never_had_a_place(store: SqliteStore) -> None:
    p = with_limits(3, ("all", 1))
    q = with_limits(2, ("late", 1), delay_ms=9_000)
    store.submit(p)
    store.submit(q)
    store.pause(p.id)
    store.step("w", want=5)

    store.cancel([q.id])
    store.cancel([p.id])

    assert (rows_in(store, "gate"), rows_in(store, "place")) == (0, 0)


def test_a_limit_is_forgotten_though_who_would_be_under_it_waits_at_another(
    store: SqliteStore,
) -> None:
    one, both = {"limits": (("/k", 1),)}, {"limits": (("/k", 1), ("all", 1))}
    p = make_plan({"a": [], "b": []}, messages={"a": one, "b": both})
    store.submit(p)
    assert states_of(store, p)["b"] == "held"
    assert rows_in(store, "gate") == 1

    store.cancel([p.id])

    assert (rows_in(store, "gate"), rows_in(store, "place")) == (0, 0)


def test_who_waits_is_let_in_though_the_run_of_who_left_is_forgotten(
    store: SqliteStore, clock: ManualClock
) -> None:
    wide = make_plan({"a": [], **{f"n{k}": ["a"] for k in range(4 * PAGE)}})
    p = with_limits(1, ("all", 1), ttl={"result_ttl_ms": 0})
    p = with_later(p, "root", [(Phase.HANDLERS, When.FAILED, {"alert": []})])
    q = with_limits(1, ("all", 1))
    for plan in (wide, p, q):
        store.submit(plan)
    store.step("w", done(store.step("w", want=5)))
    assert states_of(store, q)["t0"] == "held"  # the page that lets it in is still to come
    assert states_of(store, p)["alert"] == "waiting"  # and so is that which ends this

    clock.advance(3_600)
    while store.sweep().more:
        pass

    assert store.run(p.id) is None
    assert states_of(store, q)["t0"] == "queued"


def test_a_task_without_limits_is_handed_out_as_before(store: SqliteStore) -> None:
    with store._db.read() as db:
        seen: list[str] = []
        db.set_trace_callback(seen.append)
    p = make_plan({"a": [], "b": ["a"]})

    store.submit(p)
    drive(store, *done(store.step("w", want=1)))

    assert states_of(store, p)["root"] == "success"
    told = " ".join(seen)
    for table in ("place", "gate", "parked", "along", "started"):
        assert f"FROM {table} " not in told
        assert f"INTO {table}" not in told


def test_the_self_check_counts_places(store: SqliteStore) -> None:
    p = with_limits(3, ("all", 2))
    store.submit(p)
    assert store.check(p.id) == []

    with store._db.write() as db:
        db.execute("DELETE FROM place WHERE node = (SELECT min(node) FROM place)")

    wrong = " ".join(store.check(p.id))
    assert "node 1 is queued, its place at all not" in wrong
    assert "node 3 waits at all, where there is room" in wrong


# --- item by item --------------------------------------------------------------------------------


def go_along(store: SqliteStore, n: int, most: int = 0) -> tuple[Plan, list[Any], Expand]:
    """Give a run of two maps, what of the first runs, and how the second expands."""
    p = two_maps(n)
    store.submit(p)
    given = store.step("w", want=1_000).deliveries
    given += store.step("w", want=1_000).deliveries
    b = next(d for d in given if d.id == node(p, "b"))
    rows = items_along(p, [("a", "a0")], n, most)
    return p, [d for d in given if d.id != b.id], Expand(b.id, b.delivery, rows)


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("most", [0, 3])
def test_each_item_begins_once_though_a_process_was_killed_between_pages(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, at: int, most: int
) -> None:
    p, items, expand = go_along(store, MANY, most)
    half = [end(d) for d in items[: MANY // 2]]
    rest = [end(d) for d in items[MANY // 2 :]]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        store.step("w", [*half, expand])
        store.step("w", rest)
        while True:
            store.sweep()

    store.step("w", [*half, expand])
    step = store.step("w", rest, want=1)
    handed = [d.id for d in step.deliveries] + drive(store, *done(step))

    assert len(handed) == len(set(handed)) == MANY + 2
    assert store.check(p.id) == []
    assert set(states_of(store, p).values()) == {"success"}


def test_the_next_item_is_found_at_the_same_cost_however_many_may_begin(
    store: SqliteStore,
) -> None:
    _, items, expand = go_along(store, 3 * PAGE, 1)
    store.step("w", [expand])
    for start in range(0, len(items), 500):  # the last first
        store.step("w", [end(d) for d in items[::-1][start : start + 500]])
    while store.sweep().continued:
        pass

    costs = costs_of(store, 2 * PAGE, [])

    assert sum(costs[-100:]) < 1.2 * sum(costs[100:200])


def test_what_goes_along_is_not_written_before_it_may_run(store: SqliteStore) -> None:
    _, items, expand = go_along(store, MANY)
    store.step("w", [expand])
    while store.sweep().continued:
        pass
    with store._db.read() as db:
        before = db.total_changes

    store.step("w", [end(items[0])])

    with store._db.read() as db:
        assert db.total_changes - before < 12


def test_nothing_that_goes_along_is_left_when_its_run_is_forgotten(
    store: SqliteStore, clock: ManualClock
) -> None:
    p, items, expand = go_along(store, 3)
    store.step("w", [expand, *map(end, items)])
    run_all(store, p)
    assert rows_in(store, "along") == 1
    clock.advance(31 * 86_400)

    while store.sweep(limit=5).more:
        pass

    assert rows_in(store, "along") == rows_in(store, "message") == 0
