# SPDX-License-Identifier: MIT
"""Runs that go on and are rewound, and forks, on SQLite: kills between pages, what is left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowq.message import new_id
from flowq.outcome import Expand
from flowq.plan import Phase, Plan, When, ranges_of
from flowq.states import State
from flowq.storage.base import PAGE
from flowq.storage.sqlite import forks
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.store import SqliteStore
from flowq.testing.clock import ManualClock
from flowq.testing.contract.again import again, info_of, nodes_of, park
from flowq.testing.contract.base import end, fragment, make_plan, node, run_all, states_of
from flowq.testing.contract.beside import renamed
from flowq.testing.contract.policies import with_groups, with_later
from flowq.testing.contract.rewind import at as places
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


def wide(**more: list[str]) -> Plan:
    """A run of many tasks that may run at once, one that takes long, and what waits for that."""
    leaves: dict[str, list[str]] = {f"n{k}": [] for k in range(MANY)}
    return make_plan({"long": [], **leaves, "z": ["long"], **more})


def leaves_of(plan: Plan) -> list[str]:
    return [row.name for row in plan.rows if row.name[0] == "n"]


# --- kills between pages -------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(1, 5))
def test_a_rewind_that_was_killed_is_done_before_anything_of_its_run_moves(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    p = wide()
    store.submit(p)
    (long,) = store.step("w", want=1).deliveries
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        again(store, p, leaves_of(p))
    begun = rows_in(store, "rewind")

    step = store.step("w", [end(long)], want=1)

    assert begun == (at > 1)
    assert step.verdicts == ["settled"]
    assert rows_in(store, "rewind") == 0
    assert {info.generation for info in nodes_of(store, p).values()} == {0, 1} if begun else {0}
    assert store.check(p.id) == []
    assert step.ready == MANY
    handed = drive(store, *[end(d) for d in step.deliveries])
    assert len({*handed, *[d.id for d in step.deliveries]}) == MANY + 1
    assert set(states_of(store, p).values()) == {"success"}


@pytest.mark.parametrize("what", ["take", "send", "release", "sweep", "cancel", "reschedule"])
def test_whoever_comes_to_a_run_drives_its_rewind_to_the_end(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    p = wide()
    store.submit(p)
    (long,) = store.step("w", want=1).deliveries
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, 2)
        again(store, p, leaves_of(p))

    match what:
        case "take":
            given = store.step("v", want=5).deliveries
            assert len(given) == 5
            store.release("v")
        case "send":
            assert store.send(p.id, "go", b"x") == "kept"
        case "release":
            store.cancel([long.id])
            store.release("w", lost=[long.id])
        case "sweep":
            while store.sweep().continued:
                pass
        case "cancel":
            assert store.cancel([node(p, "n0")]) == [State.CANCELLED]
        case "reschedule":
            assert store.reschedule(node(p, "n0"), delay_ms=5_000) == State.SCHEDULED

    assert rows_in(store, "rewind") == 0
    assert store.check(p.id) == []


def test_other_runs_go_on_while_one_is_rewound(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = make_plan({"a": [], "b": ["a"]}, queue="other")
    p = wide()
    store.submit(q)
    store.submit(p)
    (long,) = store.step("w", want=1).deliveries
    (a,) = store.step("v", want=1, queues=["other"]).deliveries
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, 2)
        again(store, p, leaves_of(p))

    step = store.step("v", [end(a)], want=1, queues=["other"])

    assert [d.id for d in step.deliveries] == [node(q, "b")]
    assert rows_in(store, "rewind") == 1  # a page more of it was done, and that was all
    assert step.next_ms == 0
    drive(store, end(long))
    assert states_of(store, p)["root"] == "success"


@pytest.mark.parametrize("at", range(1, 5))
def test_an_end_that_nobody_is_to_see_stays_so_though_a_process_was_killed(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    inner: dict[str, list[str]] = {f"i{k}": [] for k in range(MANY)}
    p = make_plan({"m": [], **inner, "z": ["m"]}, inside=dict.fromkeys(inner, "m"))
    p = with_later(p, "m", [(Phase.FINALLY, When.ALWAYS, {"clean": []})])
    store.submit(p)
    (i,) = store.step("w", want=1).deliveries
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        park(store, p, ["m"], stop=["m"])
        while True:
            store.sweep()

    assert park(store, p, ["m"], stop=["m"]) is True
    assert drive(store, end(i, State.CANCELLED)) == [node(p, "clean")]

    assert nodes_of(store, p)["m"].parked == State.CANCELLED
    assert states_of(store, p)["z"] == "waiting"
    assert store.check(p.id) == []
    assert again(store, p, ["m", *inner, "clean", "z"]) is True
    assert rows_in(store, "parked") == 0
    assert len(run_all(store, p)) == MANY + 2
    assert set(states_of(store, p).values()) == {"success"}


# --- what a task had become ----------------------------------------------------------------------


def test_what_followed_what_a_task_had_become_does_not_follow_its_failure(
    store: SqliteStore,
) -> None:
    p = make_plan({"x": []})
    rows = with_groups(fragment({"i": []}), [(Phase.HANDLERS, When.FAILED, {"alert": []})])
    store.submit(p)
    (x,) = store.step("w", want=1).deliveries
    store.step("w", [Expand(x.id, x.delivery, rows)])
    run_all(store, p)
    inner = ranges_of(n.index for n in store.nodes(p.id) if n.index > 1)
    assert again(store, p, ["x"], dropped=inner) is True

    run_all(store, p, {"x": State.FAILED})

    assert states_of(store, p) == {"root": "failed", "x": "failed"}


# --- forks ---------------------------------------------------------------------------------------


def ended(store: SqliteStore) -> Plan:
    """A run of some pages that has failed."""
    p = wide()
    store.submit(p)
    run_all(store, p, {"z": State.FAILED})
    return p


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_ROWS", 200)


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("at", range(1, 8))
def test_a_fork_that_was_killed_is_seen_whole_or_not_at_all(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, clock: ManualClock, at: int
) -> None:
    p = ended(store)
    new = new_id()
    seen = info_of(store, p).changes
    rows = rows_in(store, "message")
    chosen = places(p, *leaves_of(p)[:300], "z")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        store.fork(p.id, new, seen=seen, chosen=chosen)
        while True:
            store.sweep()
    found = store.run(new)
    assert found is None or found.nodes == MANY + 2
    assert found is not None or store.step("v", want=1).deliveries == []

    assert store.fork(p.id, new, seen=seen, chosen=chosen) is True

    assert len(run_all(store, renamed(p, new))) == 301
    assert store.check(new) == []
    clock.advance(3_700)
    while store.sweep().more:
        pass
    assert rows_in(store, "message") == 2 * rows
    assert info_of(store, p).changes == seen


@pytest.mark.usefixtures("small_pages")
def test_a_fork_of_what_moves_meanwhile_is_given_up(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = ended(store)
    rows = rows_in(store, "message")
    seen = info_of(store, p).changes
    new = new_id()
    copy = forks._copy

    def moving(change: Change, *of: Any) -> None:
        copy(change, *of)
        monkeypatch.setattr(forks, "_copy", copy)
        change.db.execute("UPDATE run SET changes = changes + 1 WHERE uuid = ?", (p.id,))

    monkeypatch.setattr(forks, "_copy", moving)

    assert store.fork(p.id, new, seen=seen, chosen=places(p, "z")) is False

    assert store.run(new) is None
    while store.sweep().more:
        pass
    assert rows_in(store, "message") == rows


def test_nothing_is_left_of_a_fork_of_what_had_grown_that_was_given_up(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    p = make_plan({"x": [], "z": ["x"]})
    store.submit(p)
    (x,) = store.step("w", want=1).deliveries
    store.step("w", [Expand(x.id, x.delivery, fragment({"i": [], "j": []}))])
    run_all(store, p)
    tables = ("message", "plan", "expansion", "growth")
    rows = [rows_in(store, table) for table in tables]
    monkeypatch.setattr(forks, "_ROWS", 1)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, 5)
        store.fork(p.id, new_id(), seen=info_of(store, p).changes, chosen=places(p, "z"))
    assert [rows_in(store, table) for table in tables] > rows

    clock.advance(3_700)
    while store.sweep().more:
        pass

    assert [rows_in(store, table) for table in tables] == rows


def test_nothing_of_a_run_is_left_when_it_is_forgotten(
    store: SqliteStore, clock: ManualClock
) -> None:
    p = ended(store)
    new = new_id()
    store.fork(p.id, new, seen=info_of(store, p).changes, chosen=places(p, "z"))
    run_all(store, renamed(p, new))
    clock.advance(31 * 86_400)

    while store.sweep(limit=500).more:
        pass

    for table in ("message", "plan", "run", "expansion", "growth", "along", "parked", "rewind"):
        assert rows_in(store, table) == 0
