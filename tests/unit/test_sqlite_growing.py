# SPDX-License-Identifier: MIT
"""What grows or is stopped in pages on SQLite: crashes between them, and where they end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flowq.errors import Failure
from flowq.message import read_cell
from flowq.outcome import Expand, Outcome
from flowq.plan import INNER, Bits, Plan, Ranges
from flowq.states import State
from flowq.storage.base import PAGE
from flowq.storage.sqlite import growth, intake
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.store import SqliteStore
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    done,
    end,
    fragment,
    look_at,
    make_plan,
    node,
    run_all,
    states_of,
    task,
)
from flowq.testing.contract.policies import HANDLERS, edited, with_later


class Killed(BaseException):
    """The process ends here: nothing of the transaction under way is kept."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[SqliteStore]:
    made = SqliteStore.from_url(f"sqlite:///{tmp_path}/a.db", clock=clock)
    yield made
    made.close()


def rows_in(store: SqliteStore, table: str) -> int:
    with store._db.read() as db:
        found: int = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return found


def die_in_transaction(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the process end in its n-th transaction from now on, before the commit."""
    left = [number]
    close = Change.close

    def closing(change: Change) -> None:
        close(change)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(Change, "close", closing)


# --- indexes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [False, True])
def test_a_run_that_has_no_further_indexes_fails_the_node_and_says_why(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:  # it comes in several pages
        monkeypatch.setattr(growth, "SUBMIT_PAGE", 1)
    p = make_plan({"x": [], "next": ["x"], "other": []})
    store.submit(p)
    x, other = store.step("w", want=2).deliveries
    with store._db.write() as db:
        db.execute("UPDATE store SET next_id = next_id + ?", (INNER,))

    rows = fragment({"i": [], "j": [], "k": []})
    step = store.step("w", [Expand(x.id, 1, rows), end(other)], want=5)

    assert (step.verdicts, step.deliveries) == (["settled"] * 2, [])
    assert store.step("w", [Expand(x.id, 1, rows)]).verdicts == ["repeated"]
    assert states_of(store, p) == {
        "root": "failed",
        "x": "failed",
        "next": "blocked",
        "other": "success",
    }
    raw = look_at(store, x.id).cell
    assert raw is not None
    failure = msgspec.msgpack.decode(read_cell(raw).body, type=Failure)
    assert (failure.reason, failure.exc_type) == ("error", "flowq.errors.GraphError")
    assert "no further indexes" in failure.message
    assert store.check(p.id) == []
    assert rows_in(store, "growth") == 0


def test_the_last_indexes_of_a_run_can_be_used(store: SqliteStore) -> None:
    p = make_plan({"x": []})
    store.submit(p)
    step = store.step("w", want=1)
    rows = fragment({"i": [], "j": ["i"]})
    with store._db.write() as db:
        db.execute("UPDATE store SET next_id = ?", (1 + INNER - len(rows),))

    store.step("w", [Expand(step.deliveries[0].id, 1, rows)])

    assert run_all(store, p) == ["i", "j"]
    assert store.nodes(p.id)[-1].index == INNER - 1
    assert states_of(store, p)["root"] == "success"


# --- pages of fragments --------------------------------------------------------------------------


@pytest.mark.parametrize("single", [False, True])
def test_pages_of_a_fragment_that_was_given_up_are_removed(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, clock: ManualClock, single: bool
) -> None:
    monkeypatch.setattr(growth, "SUBMIT_PAGE", 2)
    p, message = make_plan({"x": []}), task()
    if single:
        store.enqueue([message])
    else:
        store.submit(p)
    (x,) = store.step("w", want=1).deliveries
    before = rows_in(store, "message")
    rows = fragment({f"n{i}": [] for i in range(9)})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, 3)
        store.step("w", [Expand(x.id, 1, rows)])
    assert rows_in(store, "message") > before

    store.release("w", lost=[x.id])
    (x,) = store.step("v", want=1).deliveries
    store.step("v", [Expand(x.id, x.delivery, rows)], want=0)
    clock.advance(3_601)
    store.renew([])
    while store.sweep(limit=2).more:
        pass

    assert rows_in(store, "message") == 10 + (not single)
    assert rows_in(store, "plan") == rows_in(store, "message")
    for _ in range(9):
        store.step("v", done(store.step("v", want=1)))
    assert look_at(store, x.id[:16]).state == State.SUCCESS
    assert store.check(x.id[:16]) == []


@pytest.mark.parametrize("inside", [False, True])
def test_pages_that_were_given_up_are_removed_though_their_node_runs_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    monkeypatch.setattr(growth, "SUBMIT_PAGE", 2)
    p = make_plan({"x": []})
    store.submit(p)
    (x,) = store.step("w", want=1).deliveries
    dropped: Ranges = ()
    if inside:  # what is given up is what a node becomes that will be made anew
        store.step("w", [Expand(x.id, 1, fragment({"y": []}))])
        (x,) = store.step("w", want=1).deliveries
        dropped = ((store.nodes(p.id)[-1].index, 1),)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, 3)
        store.step("w", [Expand(x.id, 1, fragment({f"n{i}": [] for i in range(9)}))])
    store.release("w", lost=[x.id])
    drive(store)  # and nobody has swept before it runs again
    assert rows_in(store, "message") == 6 + len(dropped)

    assert store.rewind(p.id, 1, chosen=((1, 1),), dropped=dropped) is True
    while store.sweep().more:
        pass

    assert rows_in(store, "message") == rows_in(store, "plan") == 2
    assert rows_in(store, "growth") == 0
    run_all(store, p)
    assert store.check(p.id) == []


def test_pages_that_are_still_brought_are_not_removed(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "SUBMIT_PAGE", 2)
    p = make_plan({"x": []})
    store.submit(p)
    (x,) = store.step("w", want=1).deliveries
    rows = fragment({f"n{i}": [] for i in range(9)})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, 3)
        store.step("w", [Expand(x.id, 1, rows)])

    kept = rows_in(store, "message")
    store.sweep()

    assert rows_in(store, "message") == kept
    assert store.step("w", [Expand(x.id, 1, rows)]).verdicts == ["settled"]
    assert len(run_all(store, p)) == 9


def test_one_whose_pages_were_swept_while_the_machine_slept_is_brought_anew(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    monkeypatch.setattr(growth, "SUBMIT_PAGE", 2)
    message = task()
    store.enqueue([message])
    (x,) = store.step("w", want=1).deliveries
    rows = fragment({f"n{i}": [] for i in range(9)})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, 3)
        store.step("w", [Expand(x.id, 1, rows)])
    clock.advance(3_601)
    store.renew([])
    store.sweep(limit=2)

    assert store.step("w", [Expand(x.id, 1, rows)]).verdicts == ["settled"]

    ends = 0
    while step := store.step("w", want=100).deliveries:
        ends += len(store.step("w", [end(d) for d in step]).verdicts)
    assert ends == 9
    assert look_at(store, message.id).state == State.SUCCESS
    assert store.check(message.id) == []


def test_a_step_with_many_fragments_brings_one_page_at_once(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "SUBMIT_PAGE", 4)
    p = make_plan({f"x{i}": [] for i in range(5)})
    store.submit(p)
    held = store.step("w", want=5).deliveries
    pages: list[int] = []
    insert = intake.insert_nodes

    def counted(change: Change, rows: Any, *where: Any) -> None:
        pages.append(len(rows))
        insert(change, rows, *where)

    monkeypatch.setattr(growth, "insert_nodes", counted)

    step = store.step("w", [Expand(d.id, 1, fragment({"i": [], "j": []})) for d in held])

    assert step.verdicts == ["settled"] * 5
    assert pages[:-5] == [2, 2, 2]
    assert sum(pages[-5:]) == 4
    assert len(run_all(store, p)) == 10


# --- crashes between pages -----------------------------------------------------------------------


def wide_plan() -> Plan:
    """A run with more than a page of nodes at two depths, and something after them."""
    width = PAGE + 100
    shape: dict[str, list[str]] = {"bad": [], "m": [], "after": ["m"]}
    shape |= {f"n{i}": [] for i in range(width)} | {f"i{i}": [] for i in range(width)}
    p = make_plan(shape, inside={f"i{i}": "m" for i in range(width)})
    groups = [
        (x, when, {n.replace("bad", "bad-handler"): above for n, above in nodes.items()})
        for x, when, nodes in HANDLERS
    ]
    p = with_later(p, "root", groups)
    return edited(p, "bad", bits=int(Bits.STOPS))


def drive(store: SqliteStore, *outcomes: Outcome) -> list[bytes]:
    """Let a worker go on until nothing is left; gives what it was handed."""
    handed = []
    step = store.step("w", outcomes, want=10)
    while step.next_ms == 0 or step.deliveries:
        handed += [d.id for d in step.deliveries]
        step = store.step("w", done(step), want=10)
    return handed


@pytest.mark.parametrize("at", range(2, 5))
def test_a_cancel_that_was_killed_between_pages_is_driven_on_by_the_next_step(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    p = wide_plan()
    store.submit(p)
    (running,) = store.step("w", want=1).deliveries
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        store.cancel([p.id])

    handed = drive(store, end(running))

    assert handed == [node(p, "clean"), node(p, "up")]
    found = states_of(store, p)
    assert {found.pop(n) for n in ("good", "bad-handler", "clean", "up")} == {"skipped", "success"}
    assert set(found.values()) == {"cancelled"}
    assert store.status().queues[0].ready == 0
    assert store.check(p.id) == []


@pytest.mark.parametrize("at", range(1, 6))
def test_a_failure_that_stops_a_wide_body_survives_kills_at_each_page(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    p = wide_plan()
    store.submit(p)
    (bad,) = store.step("w", want=1).deliveries
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_in_transaction(patch, at)
        store.step("w", [end(bad, State.FAILED)])
        while True:
            store.sweep()

    handed = drive(store, end(bad, State.FAILED))

    assert handed == [node(p, n) for n in ("bad-handler", "clean", "up")]
    found = states_of(store, p)
    assert {found.pop(n) for n in ("root", "bad")} == {"failed"}
    assert {found.pop(n) for n in ("bad-handler", "clean", "up")} == {"success"}
    assert found.pop("good") == "skipped"
    assert set(found.values()) == {"cancelled"}
    assert store.check(p.id) == []
