# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Limits: so many nodes of a run, or of the whole store, may be queued or running at a time."""

from __future__ import annotations

from typing import Any

import msgspec

from flowq.message import node_id
from flowq.outcome import Expand, GiveBack, Outcome, RetryAt
from flowq.plan import Plan
from flowq.states import State
from flowq.storage.base import PAGE, Store
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    done,
    end,
    fragment,
    make_plan,
    node,
    pass_time,
    run_all,
    states_of,
)
from flowq.testing.contract.policies import edited

__all__ = ["TestPlaces", "with_limits"]

S = State
OWN = (("/run", 1),)
SHARED = (("flow:night", 2),)


def with_limits(n: int, *limits: tuple[str, int], **more: Any) -> Plan:
    """Give a plan of tasks ``t0`` and so on, all under the same limits."""
    return make_plan({f"t{i}": [] for i in range(n)}, limits=limits, **more)


def given(store: Store, *plans: Plan, session: str = "w", outcomes: Any = ()) -> list[str]:
    """Take all there is; gives the names, where there are several plans each with its place."""
    step = store.step(session, outcomes, want=100)
    there = {node(p, row.name): (k, row.name) for k, p in enumerate(plans) for row in p.rows}
    found = [there[d.id] for d in step.deliveries]
    return [f"{k}.{name}" if len(plans) > 1 else name for k, name in found]


def ends_of(store: Store, session: str = "w", state: State = S.SUCCESS) -> list[Outcome]:
    """Give outcomes that end all that a session holds."""
    return [end(d, state) for d in store.held(session)]


class TestPlaces(StoreContract):
    """`Message.limits`."""

    def test_so_many_are_queued_and_the_next_is_with_the_end_of_one(self, store: Store) -> None:
        p = with_limits(4, ("/run", 2))
        store.submit(p)
        states = states_of(store, p)
        assert [states[f"t{i}"] for i in range(4)] == ["queued", "queued", "held", "held"]

        first = given(store, p)
        more = given(store, p, session="v")
        after = given(store, p, outcomes=ends_of(store)[:1])

        assert (first, more, after) == (["t0", "t1"], [], ["t2"])
        (there,) = store.places(node(p, "t3"))
        assert (there.key, there.most, there.taken, there.waiting) == ("/run", 2, 2, 1)
        assert there.holders == [node(p, "t1"), node(p, "t2")]
        infos = {info.name: info for info in store.nodes(p.id)}
        assert (infos["t3"].waits_at, infos["t2"].waits_at) == ("/run", "")
        assert store.check(p.id) == []
        given(store, p, outcomes=ends_of(store))
        given(store, p, outcomes=ends_of(store))
        assert set(states_of(store, p).values()) == {"success"}
        assert store.places(node(p, "t3"))[0].taken == 0

    def test_the_most_urgent_of_those_that_wait_is_next_then_the_oldest(self, store: Store) -> None:
        urgent = {"t2": {"priority": 5}, "t3": {"priority": 5}, "t4": {"priority": 7}}
        p = with_limits(6, *OWN, messages=urgent)
        store.submit(p)

        order = run_all(store, p)

        assert order == ["t0", "t4", "t2", "t3", "t1", "t5"]

    def test_a_key_of_the_store_binds_all_runs_and_one_of_a_run_its_own(self, store: Store) -> None:
        p, q = with_limits(2, *SHARED), with_limits(2, *SHARED)
        r, s = with_limits(2, *OWN), with_limits(2, *OWN)
        for plan in (p, q, r, s):
            store.submit(plan)

        first = given(store, p, q, r, s)
        second = given(store, p, q, r, s, outcomes=ends_of(store))

        assert sorted(first) == ["0.t0", "0.t1", "2.t0", "3.t0"]
        assert sorted(second) == ["1.t0", "1.t1", "2.t1", "3.t1"]

    def test_who_is_under_several_waits_at_the_first_that_is_full(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"a": [], "b": [], "c": []}
        both = {"limits": (("/x", 1), ("/y", 1))}
        each: dict[str, Any] = {
            "a": {"limits": (("/x", 1),)},
            "b": {"limits": (("/y", 1),)},
            "c": both,
        }
        p = make_plan(shape, messages=each)
        store.submit(p)
        assert given(store, p) == ["a", "b"]
        assert _waits_at(store, p, "c") == "/x"
        a, b = ends_of(store)

        assert given(store, p, outcomes=[a]) == []
        assert _waits_at(store, p, "c") == "/y"
        assert store.places(node(p, "c"))[0].taken == 0  # it holds none while it waits for another
        assert given(store, p, outcomes=[b]) == ["c"]
        assert [x.taken for x in store.places(node(p, "c"))] == [1, 1]
        assert store.check(p.id) == []

    def test_who_waits_for_another_place_lets_the_next_in(self, store: Store) -> None:
        each: dict[str, Any] = {
            "a": {"limits": (("/x", 1),)},
            "b": {"limits": (("/y", 1),)},
            "c": {"limits": (("/x", 1), ("/y", 1))},
            "d": {"limits": (("/x", 1),)},
        }
        p = make_plan({"a": [], "b": [], "c": [], "d": []}, messages=each)
        store.submit(p)
        assert given(store, p) == ["a", "b"]

        assert given(store, p, outcomes=ends_of(store)[:1]) == ["d"]

        assert _waits_at(store, p, "c") == "/y"

    def test_a_body_that_will_try_again_has_no_place_meanwhile(
        self, store: Store, clock: ManualClock
    ) -> None:
        p = with_limits(2, *OWN)
        store.submit(p)
        (first,) = store.step("w", want=5).deliveries

        after = given(store, p, outcomes=[RetryAt(first.id, first.delivery, 5_000)])
        pass_time(store, clock, 6)
        due = given(store, p, session="v")

        assert (after, due) == (["t1"], [])
        assert states_of(store, p)["t0"] == "held"
        assert given(store, p, outcomes=ends_of(store)) == ["t0"]
        assert store.check(p.id) == []

    def test_what_comes_back_keeps_its_place(self, store: Store) -> None:
        p = with_limits(2, *OWN)
        store.submit(p)
        (first,) = store.step("w", want=5).deliveries

        again = given(store, p, outcomes=[GiveBack(first.id, first.delivery)])
        store.release("w", lost=[node(p, "t0")])
        lost = given(store, p, session="v")

        assert (again, lost) == (["t0"], ["t0"])

    def test_what_is_lost_for_good_leaves_its_place(self, store: Store) -> None:
        p = with_limits(2, *OWN, max_losses=1)
        store.submit(p)
        store.step("w", want=5)

        store.release("w", lost=[node(p, "t0")])

        assert given(store, p, session="v") == ["t1"]

    def test_what_has_expanded_has_no_place(self, store: Store) -> None:
        p = with_limits(2, *OWN)
        store.submit(p)
        (first,) = store.step("w", want=5).deliveries
        rows = [
            row
            if row.message is None
            else msgspec.structs.replace(
                row, message=msgspec.structs.replace(row.message, limits=OWN)
            )
            for row in fragment({"i": [], "j": []})
        ]

        step = store.step("w", [Expand(first.id, first.delivery, rows)], want=5)

        assert [d.id for d in step.deliveries] == [node(p, "t1")]
        inner = {info.name: node_id(p.id, info.index) for info in store.nodes(p.id)}
        step = store.step("w", done(step), want=5)
        assert [d.id for d in step.deliveries] == [inner["i"]]
        step = store.step("w", done(step), want=5)
        assert [d.id for d in step.deliveries] == [inner["j"]]
        store.step("w", done(step))
        assert store.check(p.id) == []
        assert states_of(store, p)["root"] == "success"

    def test_however_a_node_ends_the_next_begins(self, store: Store) -> None:
        for how in (S.FAILED, S.SKIPPED, S.CANCELLED):
            p = with_limits(2, *OWN)
            store.submit(p)
            (first,) = store.step("w", want=5).deliveries
            if how == S.CANCELLED:
                store.cancel([first.id])

            assert given(store, p, outcomes=[end(first, how)]) == ["t1"]

            store.step("w", ends_of(store))

    def test_one_that_waits_can_be_cancelled(self, store: Store) -> None:
        p, q = with_limits(3, ("all", 1)), with_limits(1, ("all", 1))
        store.submit(p)
        store.submit(q)
        assert given(store, p, q) == ["0.t0"]

        store.cancel([node(p, "t1")])
        assert given(store, p, q, outcomes=ends_of(store)) == ["0.t2"]
        store.cancel([p.id])
        store.step("w", ends_of(store))

        assert given(store, p, q) == ["1.t0"]
        assert states_of(store, p) == {
            "root": "cancelled",
            "t0": "success",
            "t1": "cancelled",
            "t2": "cancelled",
        }
        assert store.check(q.id) == []

    def test_a_run_that_is_cancelled_frees_the_places_it_had(self, store: Store) -> None:
        p, q = with_limits(3, ("all", 2)), with_limits(3, ("all", 2))
        store.submit(p)
        store.submit(q)

        store.cancel([p.id])  # two of it were queued, one waited

        assert given(store, p, q) == ["1.t0", "1.t1"]

    def test_what_a_pause_holds_has_no_place(self, store: Store) -> None:
        p, q = with_limits(2, ("all", 1)), with_limits(2, ("all", 1))
        store.submit(p)
        store.submit(q)
        store.pause(p.id)

        first = given(store, p, q)
        assert states_of(store, p) == {"root": "expanded", "t0": "held", "t1": "held"}
        store.resume(p.id)

        assert first == ["1.t0"]
        assert given(store, p, q, session="v") == []
        rest: list[str] = []
        while more := given(store, p, q, outcomes=ends_of(store)):
            rest += more
        assert sorted(rest) == ["0.t0", "0.t1", "1.t1"]
        assert states_of(store, p)["root"] == states_of(store, q)["root"] == "success"

    def test_what_is_due_asks_for_a_place_then(self, store: Store, clock: ManualClock) -> None:
        p = with_limits(2, *OWN, messages={"t0": {"delay_ms": 5_000}})
        store.submit(p)
        assert given(store, p) == ["t1"]

        pass_time(store, clock, 6)
        assert given(store, p, session="v") == []
        assert states_of(store, p)["t0"] == "held"

        assert given(store, p, outcomes=ends_of(store)) == ["t0"]

    def test_who_is_put_off_leaves_its_place(self, store: Store) -> None:
        p = with_limits(2, *OWN)
        store.submit(p)

        store.reschedule(node(p, "t0"), delay_ms=60_000)

        assert given(store, p) == ["t1"]

    def test_a_race_that_is_decided_frees_places(self, store: Store) -> None:
        p = with_limits(3, ("/run", 1))
        p = edited(p, "root", need=1)
        store.submit(p)
        assert given(store, p) == ["t0"]

        store.step("w", ends_of(store))

        assert states_of(store, p) == {
            "root": "success",
            "t0": "success",
            "t1": "skipped",
            "t2": "skipped",
        }
        assert store.places(node(p, "t1"))[0].waiting == 0

    def test_runs_again_under_the_same_limits(self, store: Store) -> None:
        p = with_limits(3, *OWN)
        store.submit(p)
        outcomes: list[Outcome] = []
        while store.step("w", outcomes, want=5).deliveries:
            outcomes = ends_of(store, state=S.FAILED)
        assert states_of(store, p)["root"] == "failed"

        assert store.rewind(p.id, 1, chosen=((1, 3),))

        assert given(store, p) == ["t0"]
        assert states_of(store, p)["t2"] == "held"
        assert given(store, p, outcomes=ends_of(store)) == ["t1"]
        assert store.check(p.id) == []

    def test_many_that_wait_are_let_in_page_by_page(self, store: Store) -> None:
        n = PAGE + 50
        inner: dict[str, list[str]] = {f"t{i}": [] for i in range(n)}
        some: dict[str, Any] = {f"t{i}": {"limits": (("a", 1), ("/b", 1))} for i in range(n)}
        holders: dict[str, Any] = {
            "x": {"limits": (("a", 1),)},
            "y": {"limits": (("/b", 1),)},
        }
        p = make_plan({"x": [], "y": [], **inner}, messages={**holders, **some})
        q = with_limits(1, ("a", 1))
        store.submit(p)
        store.submit(q)
        assert given(store, p, q) == ["0.x", "0.y"]

        x, y = ends_of(store)
        seen = given(store, p, q, outcomes=[x])  # all of p's now wait for y
        while store.sweep().continued:
            pass
        seen += given(store, p, q)

        assert seen == ["1.t0"]
        ran = []
        outcomes: list[Outcome] = [*ends_of(store)]
        while True:
            step = store.step("w", outcomes, want=5)
            ran += [d.id for d in step.deliveries]
            outcomes = done(step)
            if not outcomes and not store.sweep().continued and not store.step("w").ready:
                break
        assert len(ran) == len(set(ran)) == n
        assert y.id not in ran
        assert states_of(store, p)["root"] == "success"

    def test_an_expansion_has_no_limits_of_its_own(self, store: Store) -> None:
        p = make_plan({"m": [], "i": []}, inside={"i": "m"})
        store.submit(p)

        assert store.places(node(p, "m")) == []


def _waits_at(store: Store, plan: Plan, name: str) -> str:
    return next(info.waits_at for info in store.nodes(plan.id) if info.name == name)
