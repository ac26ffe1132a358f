# SPDX-License-Identifier: MIT
"""What the contract cannot ask of any store: counts that were spoilt behind SQLite's back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from flowq.plan import Bits
from flowq.states import State
from flowq.storage.sqlite.rows import BITS, FORGIVEN, PHASE
from flowq.storage.sqlite.store import SqliteStore
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import done, make_plan


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStore]:
    url = f"sqlite:///{tmp_path}/x.db" if request.param == "file" else "memory://"
    found = SqliteStore.from_url(url, clock=ManualClock())
    yield found
    found.close()


def test_the_self_check_says_what_is_wrong(store: SqliteStore) -> None:
    plan = make_plan({"a": [], "b": ["a"]})
    store.submit(plan)
    store.step("w", done(store.step("w", want=1)))
    assert store.check(plan.id) == []

    with store._db.write() as db:
        db.execute("UPDATE message SET succeeded = 0 WHERE succeeded = 1")
        db.execute("UPDATE expansion SET unfinished = 7")

    found = store.check(plan.id)
    assert len(found) == 2
    assert "node 2" in found[0]
    assert "expansion 0" in found[1]


def test_a_row_keeps_the_phase_and_the_bits_that_its_plan_gives_it(store: SqliteStore) -> None:
    plan = make_plan({"a": [], "b": ["a"]}, bits={"b": Bits.FORGIVEN | Bits.RACE})
    plan.rows[2] = msgspec.structs.replace(plan.rows[2], phase=2)
    store.submit(plan)

    # Which blocks b: a row that has changed keeps them too.
    store.step("w", done(store.step("w", want=1), State.FAILED))

    with store._db.read() as db:
        flags = [row[0] for row in db.execute("SELECT flags FROM message ORDER BY id")]
        turns = [row[0] for row in db.execute("SELECT turn FROM expansion")]
    assert [(x >> PHASE & 3, bool(x & FORGIVEN)) for x in flags] == [
        (0, False),
        (0, False),
        (2, True),
    ]
    assert flags[2] >> BITS & 63 == Bits.FORGIVEN | Bits.RACE
    assert turns == [0]
