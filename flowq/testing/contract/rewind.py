# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Generations: nodes of a run that has ended, and run again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flowq.message import new_id
from flowq.outcome import Expand
from flowq.plan import Bits, Phase, Plan, Ranges, When, ranges_of
from flowq.states import State
from flowq.storage.base import PAGE, Store
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    done,
    end,
    fragment,
    look_at,
    make_plan,
    pass_time,
    run_all,
    states_of,
)
from flowq.testing.contract.policies import with_later

__all__ = ["TestRewind", "at"]

S = State


def at(plan: Plan, *names: str) -> Ranges:
    """Give the indexes of nodes by their names."""
    every = [row.name for row in plan.rows]
    return ranges_of(every.index(name) for name in names)


def rewind(store: Store, plan: Plan, chosen: Iterable[str], **more: Any) -> bool | None:
    """Rewind to the next generation."""
    generation = store.nodes(plan.id, limit=1)[0].generation + 1
    return store.rewind(plan.id, generation, chosen=at(plan, *chosen), **more)


class TestRewind(StoreContract):
    """`Store.rewind`, the one operation behind retry and rerun."""

    def test_chosen_nodes_run_again_and_the_rest_stays(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"], "c": ["b"], "other": []})
        store.submit(p)
        run_all(store, p, {"b": S.FAILED})

        assert rewind(store, p, ["b", "c"]) is True

        assert states_of(store, p) == {
            "root": "expanded",
            "a": "success",
            "b": "queued",
            "c": "waiting",
            "other": "success",
        }
        assert {n.name: n.generation for n in store.nodes(p.id)} == {
            "root": 1,
            "a": 0,
            "b": 1,
            "c": 1,
            "other": 0,
        }
        assert store.check(p.id) == []
        assert run_all(store, p) == ["b", "c"]
        assert set(states_of(store, p).values()) == {"success"}
        info = store.run(p.id)
        assert info is not None
        assert info.ended_ms > 0

    def test_values_of_what_stays_reach_what_runs_again(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        (b,) = store.step("w", [end(a, body=b"value")], want=1).deliveries
        store.step("w", [end(b, S.FAILED)])
        assert store.cells(p.id, ((2, 1),)) != {}

        rewind(store, p, ["b"])

        assert store.cells(p.id, ((2, 1),)) == {}
        (again,) = store.step("w", want=1).deliveries
        assert again.values == b.values
        assert (again.attempt, again.losses) == (0, 0)
        assert again.delivery == b.delivery + 1

    def test_a_settlement_of_an_older_generation_changes_nothing(self, store: Store) -> None:
        p = make_plan({"a": []})
        store.submit(p)
        (old,) = store.step("w", want=1).deliveries
        store.step("w", [end(old, S.FAILED)])
        rewind(store, p, ["a"])

        assert store.step("w", [end(old)]).verdicts == ["stale"]
        assert states_of(store, p)["a"] == "queued"
        (new,) = store.step("w", want=1).deliveries
        assert store.step("w", [end(old)]).verdicts == ["stale"]
        assert store.step("w", [end(new)]).verdicts == ["settled"]

    def test_repeating_it_does_no_harm_and_a_run_that_runs_is_left_alone(
        self, store: Store
    ) -> None:
        p = make_plan({"a": []})
        store.submit(p)
        assert store.rewind(p.id, 1, chosen=at(p, "a")) is False
        run_all(store, p)

        assert store.rewind(p.id, 2, chosen=at(p, "a")) is False
        assert store.rewind(p.id, 1, chosen=at(p, "a")) is True
        assert store.rewind(p.id, 1, chosen=at(p, "a")) is True
        assert run_all(store, p) == ["a"]
        assert store.rewind(p.id, 1, chosen=at(p, "a")) is True
        assert states_of(store, p)["a"] == "success"
        assert store.rewind(new_id(), 1, chosen=at(p, "a")) is None

    def test_counts_of_parents_that_are_not_chosen_are_taken_from_their_states(
        self, store: Store
    ) -> None:
        p = make_plan(
            {
                "good": [],
                "bad": [],
                "skip": [],
                "again": [],
                "any": ["good", "bad", "skip", "again"],
            },
            rules={"any": "all_done"},
        )
        store.submit(p)
        run_all(store, p, {"bad": S.FAILED, "skip": S.SKIPPED, "again": S.FAILED})

        rewind(store, p, ["again", "any"])

        assert store.check(p.id) == []
        assert run_all(store, p) == ["again", "any"]

    def test_expansions_around_are_reopened_and_inner_ones_chosen_whole(self, store: Store) -> None:
        p = make_plan(
            {"m": [], "i0": [], "i1": [], "x": ["m"], "y": [], "z": ["y"], "end": ["x"]},
            inside={"i0": "m", "i1": "m", "y": "x", "z": "x"},
        )
        store.submit(p)
        run_all(store, p, {"i1": S.FAILED})
        assert states_of(store, p)["z"] == "blocked"

        rewind(store, p, ["i1", "x", "y", "z", "end"], reopened=at(p, "m"))

        assert states_of(store, p) == {
            "root": "expanded",
            "m": "expanded",
            "i0": "success",
            "i1": "queued",
            "x": "waiting",
            "y": "waiting",
            "z": "waiting",
            "end": "waiting",
        }
        assert store.check(p.id) == []
        assert run_all(store, p) == ["i1", "y", "z", "end"]
        assert look_at(store, p.id).state == S.SUCCESS

    def test_a_failure_that_is_not_chosen_fails_the_run_again(self, store: Store) -> None:
        p = make_plan({"a": [], "b": []})
        store.submit(p)
        run_all(store, p, {"a": S.FAILED, "b": S.FAILED})

        rewind(store, p, ["b"])
        run_all(store, p)

        assert states_of(store, p) == {"root": "failed", "a": "failed", "b": "success"}

    def test_what_a_task_had_become_is_dropped_and_made_anew(self, store: Store) -> None:
        p = make_plan({"x": [], "next": ["x"]})
        store.submit(p)
        (x,) = store.step("w", want=1).deliveries
        store.step("w", [Expand(x.id, 1, fragment({"i": [], "j": ["i"]}))])
        run_all(store, p, {"i": S.FAILED})
        inner = ranges_of(n.index for n in store.nodes(p.id) if n.owner == 1)

        rewind(store, p, ["x", "next"], dropped=inner)

        assert states_of(store, p) == {"root": "expanded", "x": "queued", "next": "waiting"}
        (again,) = store.step("w", want=5).deliveries
        assert again.id == x.id
        store.step("w", [Expand(x.id, again.delivery, fragment({"k": []}))])
        assert run_all(store, p) == ["k", "next"]
        assert states_of(store, p) == {
            "root": "success",
            "x": "success",
            "next": "success",
            "k": "success",
        }
        first, count = inner[0]
        assert (
            store.look([p.id + i.to_bytes(4, "big") for i in range(first, first + count)])
            == [None] * count
        )
        assert store.check(p.id) == []

    def test_items_of_what_a_task_had_become_run_again_alone(self, store: Store) -> None:
        p = make_plan({"x": [], "next": ["x"]})
        store.submit(p)
        (x,) = store.step("w", want=1).deliveries
        store.step("w", [Expand(x.id, 1, fragment({"i": [], "j": []}))])
        run_all(store, p, {"i": S.FAILED})
        (i,) = (n.index for n in store.nodes(p.id) if n.name == "i")

        store.rewind(p.id, 1, chosen=((2, 1), (i, 1)), reopened=((1, 1),))

        assert run_all(store, p) == ["i", "next"]
        assert look_at(store, p.id).state == S.SUCCESS

    def test_handlers_run_anew_for_the_new_outcome(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]}, bits={"a": Bits.NAMED})
        p = with_later(
            p,
            "root",
            [
                (Phase.HANDLERS, When.SUCCESS, {"good": []}),
                (Phase.HANDLERS, When.FAILED, {"bad": []}),
                (Phase.FINALLY, When.ALWAYS, {"clean": []}),
            ],
        )
        store.submit(p)
        assert run_all(store, p, {"a": S.FAILED}) == ["a", "bad", "clean"]

        rewind(store, p, ["a", "b", "good", "bad", "clean"])

        assert run_all(store, p) == ["a", "b", "good", "clean"]
        assert states_of(store, p)["bad"] == "skipped"
        assert store.check(p.id) == []

    def test_a_cancelled_run_goes_on(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"], "c": []})
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        store.step("w", [end(a)])
        store.cancel([p.id])
        assert look_at(store, p.id).state == S.CANCELLED

        rewind(store, p, ["b", "c"])

        assert run_all(store, p) == ["b", "c"]
        assert look_at(store, p.id).state == S.SUCCESS

    def test_it_does_not_expire_while_it_runs_again(self, store: Store, clock: ManualClock) -> None:
        p = make_plan({"a": []}, ttl={"result_ttl_ms": 3_600_000, "failed_ttl_ms": 3_600_000})
        store.submit(p)
        run_all(store, p, {"a": S.FAILED})
        rewind(store, p, ["a"])

        pass_time(store, clock, 7_300)
        store.sweep()

        assert run_all(store, p) == ["a"]
        pass_time(store, clock, 3_000)
        store.sweep()
        assert look_at(store, p.id).state == S.SUCCESS
        pass_time(store, clock, 700)
        store.sweep()
        assert store.look([p.id]) == [None]

    def test_a_wide_run_is_rewound_in_pages_by_one_call(self, store: Store) -> None:
        width = 5 * PAGE
        leaves = [f"n{i}" for i in range(width)]
        p = make_plan({"a": [], **{n: ["a"] for n in leaves}, "z": leaves[:3]})
        store.submit(p)
        store.step("w", done(store.step("w", want=1), S.FAILED))
        while store.sweep().continued:
            pass

        assert rewind(store, p, ["a", *leaves, "z"]) is True

        found = states_of(store, p)
        assert (found["a"], found["z"]) == ("queued", "waiting")
        assert {found[n] for n in leaves} == {"waiting"}
        assert store.check(p.id) == []
        assert len(run_all(store, p)) == width + 2
        assert look_at(store, p.id).state == S.SUCCESS

    def test_retry_after_retry(self, store: Store) -> None:
        p = make_plan({"a": []})
        store.submit(p)
        run_all(store, p, {"a": S.FAILED})
        for _ in range(3):
            assert rewind(store, p, ["a"]) is True
            run_all(store, p, {"a": S.FAILED})
        rewind(store, p, ["a"])
        run_all(store, p)

        assert [n.generation for n in store.nodes(p.id)] == [4, 4]
        assert look_at(store, p.id).state == S.SUCCESS
