# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Runs: plans taken in, counted, walked in pages, ended."""

from __future__ import annotations

import msgspec

from flowq.message import (
    CULPRIT,
    EMPTY,
    TEMPLATE,
    new_id,
    read_cell,
)
from flowq.outcome import Done, Skipped
from flowq.plan import Plan
from flowq.states import State
from flowq.storage.base import (
    Store,
)
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    cell,
    done,
    make_plan,
    run_all,
    states_of,
)

__all__ = ["TestSubmit", "TestValues"]

DAY = 86_400_000


class TestSubmit(StoreContract):
    """Starting runs, and how they go on by themselves."""

    def test_a_run_passes_values_down_and_ends_with_its_template(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
        assert store.submit(p) is True
        assert store.submit(p) is False

        first = store.step("w", want=5)
        second = store.step("w", done(first), want=5)
        third = store.step("w", done(second), want=5)
        store.step("w", done(third))

        assert third.deliveries[0].values == {2: cell(State.SUCCESS), 3: cell(State.SUCCESS)}
        assert third.deliveries[0].complete
        root = store.look([p.id])[0]
        assert root is not None
        assert root.run
        assert root.cell is not None
        kept = read_cell(root.cell)
        assert (kept.state, kept.flags, kept.body) == (State.SUCCESS, TEMPLATE, b"template")
        assert store.check(p.id) == []

    def test_a_failure_blocks_what_depends_on_it_and_names_the_culprit(self, store: Store) -> None:
        p = make_plan(
            {
                "bad": [],
                "fine": [],
                "in": ["bad"],
                "deep": [],
                "after": ["in", "fine"],
                "all": ["in"],
            },
            rules={"all": "all_done"},
            inside={"deep": "in"},
        )
        store.submit(p)

        order = run_all(store, p, {"bad": State.FAILED})

        assert order == ["bad", "fine", "all"]
        found = states_of(store, p)
        del found["deep"]
        assert found == {
            "root": "failed",
            "bad": "failed",
            "fine": "success",
            "in": "blocked",
            "after": "blocked",
            "all": "success",
        }
        blamed = {n.name: n.culprit for n in store.nodes(p.id) if n.culprit is not None}
        assert blamed == {"root": 1, "in": 1, "after": 1}

    def test_a_failed_expansion_blames_what_failed_inside_it(self, store: Store) -> None:
        p = make_plan(
            {"map": [], "i0": [], "i1": [], "next": ["map"]}, inside={"i0": "map", "i1": "map"}
        )
        store.submit(p)

        run_all(store, p, {"i1": State.FAILED})

        assert states_of(store, p)["map"] == "failed"
        assert states_of(store, p)["next"] == "blocked"
        cells = store.cells(p.id, ((0, 9),))
        for index in (0, 1, 4):
            kept = read_cell(cells[index])
            assert (kept.flags, kept.body) == (CULPRIT, (3).to_bytes(4, "big"))

    def test_empty_expansions_and_joins_end_by_themselves(self, store: Store) -> None:
        p = make_plan({"a": [], "b": [], "j": ["a", "b"], "c": ["j"]}, joins=("j",))
        store.submit(p)

        assert run_all(store, p) == ["a", "b", "c"]
        kept = read_cell(store.cells(p.id, ((3, 1),))[3])
        assert (kept.state, kept.flags, kept.body) == (State.SUCCESS, EMPTY, b"")

        empty = Plan(new_id(), "empty", [msgspec.structs.replace(p.rows[0], entries=(), inner=0)])
        store.submit(empty)
        look = store.look([empty.id])[0]
        assert look is not None
        assert look.state == State.SUCCESS

    def test_more_edges_than_a_page_are_counted_by_who_comes_by(self, store: Store) -> None:
        leaves = {f"n{i}": ["a"] for i in range(1_200)}
        p = make_plan({"a": [], **leaves})
        store.submit(p)

        step = store.step("w", want=1)
        step = store.step("w", done(step))
        assert step.ready == 1_000
        assert store.step("other").ready == 1_200
        assert store.sweep().continued == 0

        assert len(run_all(store, p)) == 1_200
        assert states_of(store, p)["root"] == "success"

    def test_a_skip_of_many_levels_is_walked_in_pages(self, store: Store) -> None:
        chain: dict[str, list[str]] = {
            "n0": [],
            **{f"n{i}": [f"n{i - 1}"] for i in range(1, 1_600)},
        }
        p = make_plan(chain)
        store.submit(p)

        store.step(
            "w", [Skipped(d.id, 1, cell(State.SKIPPED)) for d in store.step("w", want=1).deliveries]
        )
        n = 0
        while store.sweep().continued:
            n += 1

        assert n >= 1
        assert set(states_of(store, p).values()) == {"skipped"} | {"success"}
        assert store.check(p.id) == []

    def test_nodes_of_a_run_expire_and_start_late_as_tasks_alone_do(
        self, store: Store, clock: ManualClock
    ) -> None:
        p = make_plan({"a": []}, delay_ms=1_000, expires_in_ms=5_000)
        store.submit(p)
        assert states_of(store, p)["a"] == "scheduled"

        clock.advance((5_000) / 1000)
        store.step("w", want=1)

        assert states_of(store, p) == {"root": "failed", "a": "failed"}

    # MORE TestSubmit


class TestValues(StoreContract):
    """Values that go down the edges."""

    def test_an_answer_carries_a_bounded_number_of_bytes(self, store: Store) -> None:
        wide: dict[str, list[str]] = {f"n{i}": [] for i in range(4)}
        p = make_plan({**wide, "all": list(wide)})
        store.submit(p)
        big = b"x" * 400_000
        step = store.step("w", want=9)
        outcomes = [Done(d.id, 1, cell(State.SUCCESS, big)) for d in step.deliveries]

        given = store.step("w", outcomes, want=1).deliveries[0]

        assert len(given.values) == 2
        assert not given.complete
        assert len(store.cells(p.id, ((1, 4),))) == 4

    # MORE TestValues
