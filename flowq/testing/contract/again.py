# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Generations of runs that go on: what may be chosen there, and what is parked before it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowq.message import new_id, node_id
from flowq.outcome import Expand, RetryAt
from flowq.plan import Bits, Phase, Plan, When
from flowq.states import State
from flowq.storage.base import PAGE, NodeInfo, RunInfo, Store
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    done,
    end,
    fragment,
    look_at,
    make_plan,
    node,
    pass_time,
    run_all,
    states_of,
)
from flowq.testing.contract.policies import edited, with_later
from flowq.testing.contract.rewind import at

__all__ = ["TestParks", "TestRewindsOfWhatGoesOn"]

S = State


def info_of(store: Store, plan: Plan) -> RunInfo:
    """Describe a run that is known."""
    info = store.run(plan.id)
    assert info is not None
    return info


def nodes_of(store: Store, plan: Plan) -> dict[str, NodeInfo]:
    """Give the nodes of a run by name."""
    return {info.name: info for info in store.nodes(plan.id, limit=10_000)}


def again(store: Store, plan: Plan, chosen: Sequence[str], **more: Any) -> bool | None:
    """Rewind a run as it is now."""
    generation = store.nodes(plan.id, limit=1)[0].generation + 1
    seen = more.pop("seen", info_of(store, plan).changes)
    return store.rewind(plan.id, generation, chosen=at(plan, *chosen), seen=seen, **more)


def park(
    store: Store, plan: Plan, nodes: Sequence[str], stop: Sequence[str] = (), request: bytes = b"?"
) -> bool | None:
    """Park nodes of a run as it is now."""
    seen = info_of(store, plan).changes
    return store.park(plan.id, request, seen=seen, nodes=at(plan, *nodes), stop=at(plan, *stop))


class TestRewindsOfWhatGoesOn(StoreContract):
    """`Store.rewind` with `seen`."""

    def test_what_has_failed_runs_again_while_the_rest_goes_on(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"], "long": [], "z": ["b", "long"]})
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=5).deliveries}
        long = given[node(p, "long")]
        store.step("w", [end(given[node(p, "a")], S.FAILED)])
        assert states_of(store, p)["z"] == "blocked"

        assert again(store, p, ["a", "b", "z"]) is True

        assert states_of(store, p) == {
            "root": "expanded",
            "a": "queued",
            "b": "waiting",
            "long": "running",
            "z": "waiting",
        }
        assert store.check(p.id) == []
        step = store.step("w", [end(long)], want=5)
        assert step.verdicts == ["settled"]
        assert [d.id for d in step.deliveries] == [node(p, "a")]
        step = store.step("w", done(step), want=5)
        store.step("w", done(step))
        assert run_all(store, p) == ["z"]
        assert look_at(store, p.id).state == S.SUCCESS

    def test_it_is_refused_if_something_has_moved_since(self, store: Store) -> None:
        p = make_plan({"a": [], "b": []})
        store.submit(p)
        step = store.step("w", want=1)
        seen = info_of(store, p).changes
        assert info_of(store, p).changes == seen
        store.step("w", done(step, S.FAILED))

        assert again(store, p, ["a"], seen=seen) is False
        assert store.rewind(p.id, 1, chosen=at(p, "a")) is False
        assert info_of(store, p).changes != seen
        assert again(store, p, ["a"]) is True
        assert again(store, p, ["a"], seen=seen) is False  # a generation later
        assert store.rewind(p.id, 1, chosen=at(p, "a"), seen=seen) is True  # it is done

    def test_each_move_of_a_node_changes_the_number(self, store: Store, clock: ManualClock) -> None:
        p = make_plan({"a": [], "b": ["a"]}, messages={"b": {"delay_ms": 1_000}})
        store.submit(p)
        numbers = [info_of(store, p).changes]

        step = store.step("w", want=1)
        numbers.append(info_of(store, p).changes)
        store.step("w", done(step))
        numbers.append(info_of(store, p).changes)
        clock.advance(2)
        step = store.step("w", want=1)
        numbers.append(info_of(store, p).changes)
        store.cancel([node(p, "b")])
        store.step("w", done(step))
        numbers.append(info_of(store, p).changes)

        assert len(set(numbers)) == 5

    def test_what_is_under_way_cannot_be_chosen(self, store: Store) -> None:
        p = make_plan({"a": [], "b": [], "m": [], "i": []}, inside={"i": "m"})
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        assert a.id == node(p, "a")

        assert again(store, p, ["a"]) is False
        assert again(store, p, ["m", "i"]) is False
        assert again(store, p, ["b"]) is True  # it is only queued

        assert states_of(store, p)["b"] == "queued"
        store.step("w", [end(a)])
        assert sorted(run_all(store, p)) == ["b", "i"]

    def test_what_was_queued_or_scheduled_is_handed_out_once(
        self, store: Store, clock: ManualClock
    ) -> None:
        later = {"s": {"delay_ms": 2_000}}
        p = make_plan({"a": [], "q": [], "s": [], "after": ["q"]}, messages=later)
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries

        assert again(store, p, ["q", "s", "after"]) is True
        pass_time(store, clock, 3)

        step = store.step("w", [end(a)], want=10)
        assert sorted(d.id for d in step.deliveries) == sorted([node(p, "q"), node(p, "s")])
        assert [d.delivery for d in step.deliveries] == [1, 1]
        step = store.step("w", done(step), want=10)
        assert [d.id for d in step.deliveries] == [node(p, "after")]
        store.step("w", done(step))
        assert store.step("v", want=10).deliveries == []
        assert look_at(store, p.id).state == S.SUCCESS

    def test_a_held_node_that_is_chosen_waits_and_is_let_in_again(self, store: Store) -> None:
        one = {"limits": (("/k", 1),)}
        p = make_plan({"a": [], "b": [], "c": []}, messages={"a": one, "b": one, "c": one})
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries

        assert again(store, p, ["b", "c"]) is True

        assert states_of(store, p)["b"] == "held"
        step = store.step("w", [end(a)], want=5)
        assert [d.id for d in step.deliveries] == [node(p, "b")]
        step = store.step("w", done(step), want=5)
        assert [d.id for d in step.deliveries] == [node(p, "c")]
        store.step("w", done(step))
        assert store.check(p.id) == []

    def test_an_expansion_that_runs_is_opened_again_where_it_is(self, store: Store) -> None:
        p = make_plan(
            {"m": [], "i": [], "j": [], "k": ["i"], "end": ["m"]},
            inside={"i": "m", "j": "m", "k": "m"},
        )
        store.submit(p)
        i, j = store.step("w", want=5).deliveries
        store.step("w", [end(i, S.FAILED)])

        assert again(store, p, ["i", "k", "end"], reopened=at(p, "m")) is True

        assert nodes_of(store, p)["m"].generation == 1
        step = store.step("w", [end(j)], want=5)
        assert [d.id for d in step.deliveries] == [node(p, "i")]
        step = store.step("w", done(step), want=5)
        store.step("w", done(step))
        assert store.check(p.id) == []
        assert run_all(store, p) == ["end"]
        assert look_at(store, p.id).state == S.SUCCESS

    def test_what_is_past_its_body_or_closing_cannot_be_opened(self, store: Store) -> None:
        p = make_plan({"a": []})
        p = with_later(p, "root", [(Phase.FINALLY, When.ALWAYS, {"clean": []})])
        store.submit(p)
        step = store.step("w", want=1)
        store.step("w", done(step, S.FAILED))
        assert states_of(store, p)["clean"] == "queued"

        assert again(store, p, ["a"]) is False
        assert nodes_of(store, p)["root"].closing is True

        q = make_plan({"a": [], "b": []})
        store.submit(q)
        held = store.step("v", want=5)
        assert nodes_of(store, q)["root"].closing is False
        store.cancel([q.id])
        assert nodes_of(store, q)["root"].closing is True
        assert again(store, q, []) is False
        store.step("v", done(held))

    def test_with_nothing_to_wait_for_it_ends_anew(self, store: Store) -> None:
        p = make_plan({"a": []})
        p = with_later(
            p,
            "root",
            [
                (Phase.HANDLERS, When.FAILED, {"alert": []}),
                (Phase.FINALLY, When.ALWAYS, {"clean": []}),
            ],
        )
        store.submit(p)
        assert run_all(store, p, {"a": S.FAILED}) == ["a", "alert", "clean"]

        assert again(store, p, ["alert", "clean"]) is True

        assert run_all(store, p) == ["alert", "clean"]
        assert look_at(store, p.id).state == S.FAILED
        assert states_of(store, p)["a"] == "failed"

    def test_an_empty_choice_weighs_the_end_of_a_cancelled_run_anew(self, store: Store) -> None:
        p = make_plan({"m": [], "a": []}, inside={"a": "m"})
        p = with_later(p, "root", [(Phase.FINALLY, When.ALWAYS, {"clean": []})])
        store.submit(p)
        run_all(store, p)

        assert again(store, p, ["clean"], reopened=at(p, "m")) is True

        assert run_all(store, p) == ["clean"]
        assert states_of(store, p) == {
            "root": "success",
            "m": "success",
            "a": "success",
            "clean": "success",
        }
        assert store.check(p.id) == []

    def test_items_that_are_opened_again_ask_for_their_places(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"m": []}
        inside: dict[str, str] = {}
        for k in range(3):
            shape |= {f"i{k}": [], f"x{k}": [], f"y{k}": [f"x{k}"]}
            inside |= {f"i{k}": "m", f"x{k}": f"i{k}", f"y{k}": f"i{k}"}
        p = edited(make_plan({**shape, "end": ["m"]}, inside=inside), "m", most=1)
        store.submit(p)
        run_all(store, p, {"y0": S.FAILED, "y2": S.FAILED})
        assert states_of(store, p)["m"] == "failed"

        assert again(store, p, ["y0", "y2", "end"], reopened=at(p, "m", "i0", "i2")) is True

        states = states_of(store, p)
        assert (states["i0"], states["i2"], states["x2"]) == ("expanded", "waiting", "success")
        assert store.check(p.id) == []
        step = store.step("w", want=5)
        assert [d.id for d in step.deliveries] == [node(p, "y0")]
        step = store.step("w", done(step), want=5)
        assert [d.id for d in step.deliveries] == [node(p, "y2")]
        store.step("w", done(step))
        assert run_all(store, p) == ["end"]
        assert look_at(store, p.id).state == S.SUCCESS

    def test_an_item_that_waits_to_be_opened_can_be_stopped(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"m": [], "i": [], "x": [], "y": ["x"], "j": [], "z": []}
        inside = {"i": "m", "j": "m", "x": "i", "y": "i", "z": "j"}
        p = edited(make_plan(shape, inside=inside), "m", most=1)
        store.submit(p)
        run_all(store, p, {"y": S.FAILED, "z": S.FAILED})

        assert again(store, p, ["y", "z"], reopened=at(p, "m", "i", "j")) is True
        store.cancel([node(p, "m")])

        states = states_of(store, p)
        assert (states["z"], states["j"], states["x"]) == ("cancelled", "cancelled", "success")
        assert states["root"] == "cancelled"
        assert store.check(p.id) == []

    def test_what_is_opened_in_items_that_wait_for_a_place_waits_too(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"m": []}
        inside: dict[str, str] = {}
        for k in range(2):
            shape |= {f"i{k}": [], f"w{k}": [], f"k{k}": [f"w{k}"], f"x{k}": [], f"y{k}": [f"x{k}"]}
            inside |= {f"i{k}": "m", f"w{k}": f"i{k}", f"k{k}": f"i{k}"}
            inside |= {f"x{k}": f"k{k}", f"y{k}": f"k{k}"}
        limits = {f"y{k}": {"limits": (("shared", 2),)} for k in range(2)}
        p = edited(make_plan({**shape, "z": ["m"]}, inside=inside, messages=limits), "m", most=1)
        opened = at(p, "m", "i0", "i1", "k0", "k1")
        store.submit(p)
        run_all(store, p, {"y0": S.FAILED, "y1": S.FAILED})

        assert again(store, p, ["y0", "y1", "z"], reopened=opened) is True

        states = states_of(store, p)
        assert [states[name] for name in ("i1", "k1", "y1")] == ["waiting"] * 3
        assert store.check(p.id) == []
        assert run_all(store, p, {"y0": S.FAILED}) == ["y0", "y1"]
        assert states_of(store, p)["k1"] == "success"
        assert again(store, p, ["y0", "z"], reopened=at(p, "m", "i0", "k0")) is True
        assert run_all(store, p) == ["y0", "z"]
        assert look_at(store, p.id).state == S.SUCCESS

    def test_what_waits_to_be_opened_in_others_is_stopped_with_them(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"m": []}
        inside: dict[str, str] = {}
        for k in range(2):
            shape |= {f"i{k}": [], f"k{k}": [], f"y{k}": []}
            inside |= {f"i{k}": "m", f"k{k}": f"i{k}", f"y{k}": f"k{k}"}
        limits = {f"y{k}": {"limits": (("shared", 1),)} for k in range(2)}
        p = edited(make_plan(shape, inside=inside, messages=limits), "m", most=1)
        store.submit(p)
        run_all(store, p, {"y0": S.FAILED, "y1": S.FAILED})
        assert again(store, p, ["y0", "y1"], reopened=at(p, "m", "i0", "i1", "k0", "k1")) is True

        store.cancel([p.id])

        assert {*states_of(store, p).values()} == {"cancelled"}
        assert [place.taken for place in store.places(node(p, "y0"))] == [0]
        assert store.check(p.id) == []

    def test_the_number_of_changes_is_another_one_though_all_that_is_chosen_waits(
        self, store: Store
    ) -> None:
        p = make_plan({"long": [], "z": ["long"]})
        store.submit(p)
        store.step("w", want=5)
        store.cancel([node(p, "z")])
        seen = info_of(store, p).changes

        assert again(store, p, ["z"]) is True

        assert states_of(store, p)["z"] == "waiting"
        assert info_of(store, p).changes != seen

    def test_many_are_chosen_while_workers_settle(self, store: Store) -> None:
        width = 3 * PAGE
        leaves = [f"n{i}" for i in range(width)]
        p = make_plan({"a": [], "long": [], **{n: ["a"] for n in leaves}, "z": ["long"]})
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=5).deliveries}
        store.step("w", [end(given[node(p, "a")], S.FAILED)])
        while store.sweep().continued:
            pass

        assert again(store, p, ["a", *leaves]) is True
        store.step("w", [end(given[node(p, "long")])])

        assert store.check(p.id) == []
        assert sorted(run_all(store, p)) == sorted(["a", "z", *leaves])


class TestParks(StoreContract):
    """`Store.park`: an end that nobody sees."""

    def test_nobody_sees_the_end_of_a_run_that_is_to_run_anew(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        p = with_later(p, "root", [(Phase.FINALLY, When.ALWAYS, {"clean": []})])
        store.submit(p)
        step = store.step("w", want=1)
        step = store.step("w", done(step, S.FAILED), want=1)
        assert [d.id for d in step.deliveries] == [node(p, "clean")]

        assert park(store, p, ["root"]) is True
        assert park(store, p, ["root"]) is True
        assert info_of(store, p).request == b"?"
        assert nodes_of(store, p)["root"].parked == S.RUNNING
        store.step("w", done(step))

        assert look_at(store, p.id).state == S.EXPANDED
        assert info_of(store, p).ended_ms == 0
        assert nodes_of(store, p)["root"].parked == S.FAILED
        assert nodes_of(store, p)["root"].closing is False
        assert not store.wait_ended([p.id], timeout=0)
        assert store.check(p.id) == []
        assert again(store, p, ["a", "b", "clean"]) is True
        assert info_of(store, p).request == b""
        assert nodes_of(store, p)["root"].parked is None
        assert run_all(store, p) == ["a", "b", "clean"]
        assert look_at(store, p.id).state == S.SUCCESS

    def test_what_runs_is_stopped_and_nothing_below_is_told(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"], "alarm": ["a"]}, rules={"alarm": "all_done"})
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries

        assert park(store, p, ["a"], stop=["a"]) is True

        assert store.step("w").stops == [a.id]
        store.step("w", [end(a, S.CANCELLED)])
        assert states_of(store, p) == {
            "root": "expanded",
            "a": "held",
            "b": "waiting",
            "alarm": "waiting",
        }
        assert nodes_of(store, p)["a"].parked == S.CANCELLED
        assert store.step("v", want=5).deliveries == []
        store.resume(p.id)  # that lets nothing go that is parked
        assert store.step("v", want=5).deliveries == []
        assert again(store, p, ["a", "b", "alarm"]) is True
        assert sorted(run_all(store, p)) == ["a", "alarm", "b"]
        assert look_at(store, p.id).state == S.SUCCESS

    def test_what_ends_by_itself_is_parked_too_whoever_has_it(
        self, store: Store, clock: ManualClock
    ) -> None:
        p = make_plan({"a": [], "b": [], "c": []}, max_losses=1)
        store.submit(p)
        a, b, c = store.step("w", want=3).deliveries

        assert park(store, p, ["a", "b", "c"]) is True
        store.step("w", [end(a)])
        store.release("w", lost=[b.id])
        parked = {k: x.parked for k, x in nodes_of(store, p).items()}

        assert (parked["a"], parked["b"]) == (S.SUCCESS, S.FAILED)
        assert states_of(store, p)["c"] == "queued"  # it came back, and may run
        (c,) = store.step("v", want=5).deliveries
        store.step("v", [end(c)])
        assert look_at(store, p.id).state == S.EXPANDED
        assert again(store, p, ["a", "b", "c"]) is True
        assert sorted(run_all(store, p)) == ["a", "b", "c"]

    def test_an_expansion_is_cancelled_inwards_and_cleans_up(self, store: Store) -> None:
        p = make_plan({"m": [], "i": [], "j": ["i"], "z": ["m"]}, inside={"i": "m", "j": "m"})
        p = with_later(p, "m", [(Phase.FINALLY, When.ALWAYS, {"clean": []})])
        store.submit(p)
        (i,) = store.step("w", want=5).deliveries

        assert park(store, p, ["m"], stop=["m"]) is True
        step = store.step("w", [end(i, S.CANCELLED)], want=5)
        assert [d.id for d in step.deliveries] == [node(p, "clean")]
        store.step("w", done(step))

        assert (states_of(store, p)["m"], states_of(store, p)["z"]) == ("expanded", "waiting")
        assert nodes_of(store, p)["m"].parked == S.CANCELLED
        assert again(store, p, ["m", "i", "j", "clean", "z"]) is True
        assert run_all(store, p) == ["i", "j", "clean", "z"]
        assert look_at(store, p.id).state == S.SUCCESS

    def test_what_it_had_become_is_dropped(self, store: Store) -> None:
        p = make_plan({"x": [], "z": ["x"]})
        store.submit(p)
        (x,) = store.step("w", want=5).deliveries
        step = store.step("w", [Expand(x.id, x.delivery, fragment({"i": [], "j": []}))], want=1)

        assert park(store, p, ["x"], stop=["x"]) is True
        store.step("w", done(step))
        inner = tuple((n.index, 1) for n in store.nodes(p.id) if n.owner == 1)
        assert nodes_of(store, p)["x"].parked == S.CANCELLED

        assert again(store, p, ["x", "z"], dropped=inner) is True

        assert run_all(store, p) == ["x", "z"]
        assert look_at(store, p.id).state == S.SUCCESS

    def test_it_is_refused_where_something_moved_or_is_not_under_way(self, store: Store) -> None:
        p = make_plan({"a": [], "b": []})
        store.submit(p)
        seen = info_of(store, p).changes
        step = store.step("w", want=1)

        assert store.park(p.id, b"?", seen=seen, nodes=at(p, "a")) is False
        assert park(store, p, ["b"]) is False
        assert store.park(new_id(), b"?", seen=0, nodes=()) is None
        store.step("w", done(step))
        run_all(store, p)
        assert park(store, p, ["root"]) is False
        assert info_of(store, p).request == b""

    def test_a_cancel_takes_it_back(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        p = with_later(p, "root", [(Phase.FINALLY, When.ALWAYS, {"clean": []})])
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        park(store, p, ["root", "a"], stop=["a"])
        store.step("w", [end(a, S.CANCELLED)])
        assert states_of(store, p)["a"] == "held"

        store.cancel([p.id])

        assert info_of(store, p).request == b""
        assert states_of(store, p)["a"] == "cancelled"
        assert run_all(store, p) == ["clean"]
        assert states_of(store, p) == {
            "root": "cancelled",
            "a": "cancelled",
            "b": "cancelled",
            "clean": "success",
        }

    def test_a_cancel_of_what_is_parked_and_over_ends_it_as_it_was(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        park(store, p, ["a"])
        store.step("w", [end(a)])
        assert states_of(store, p)["a"] == "held"

        store.cancel([a.id])

        assert states_of(store, p)["a"] == "success"
        assert run_all(store, p) == ["b"]

    def test_a_cancel_of_a_run_past_its_body_that_is_over_ends_it(self, store: Store) -> None:
        p = make_plan({"a": []})
        p = with_later(p, "root", [(Phase.FINALLY, When.ALWAYS, {"clean": []})])
        store.submit(p)
        step = store.step("w", want=1)
        step = store.step("w", done(step, S.FAILED), want=1)
        park(store, p, ["root"])
        store.step("w", done(step))

        assert store.cancel([p.id]) == [S.FAILED]

        assert info_of(store, p).ended_ms > 0

    def test_what_a_pause_holds_goes_on_though_it_is_parked(
        self, store: Store, clock: ManualClock
    ) -> None:
        p = make_plan({"a": [], "b": []})
        store.submit(p)
        a, b = store.step("w", want=2).deliveries
        park(store, p, ["a", "b"])
        store.step("w", [RetryAt(a.id, a.delivery, 1_000), end(b)])
        store.pause(p.id)
        pass_time(store, clock, 2)
        assert store.step("w", want=5).deliveries == []
        assert states_of(store, p)["a"] == "held"

        store.resume(p.id)

        states = states_of(store, p)
        assert (states["a"], states["b"]) == ("queued", "held")
        assert [d.id for d in store.step("w", want=5).deliveries] == [a.id]

    def test_a_rewind_of_others_lets_the_rest_end(self, store: Store) -> None:
        p = make_plan({"a": [], "b": [], "z": ["b"]})
        store.submit(p)
        a, b = store.step("w", want=2).deliveries
        park(store, p, ["b"])
        store.step("w", [end(a, S.FAILED), end(b)])
        assert states_of(store, p)["b"] == "held"

        assert again(store, p, ["a"]) is True

        assert states_of(store, p)["b"] == "success"
        assert store.check(p.id) == []
        assert sorted(run_all(store, p)) == ["a", "z"]

    def test_a_failure_that_stops_the_rest_is_not_seen_either(self, store: Store) -> None:
        p = make_plan({"a": [], "b": []}, bits={"a": Bits.STOPS})
        store.submit(p)
        a, b = store.step("w", want=2).deliveries
        park(store, p, ["a"])

        store.step("w", [end(a, S.FAILED)])

        assert states_of(store, p)["b"] == "running"
        assert again(store, p, ["a"]) is True
        store.step("w", [end(b)])
        assert run_all(store, p) == ["a"]
        assert look_at(store, p.id).state == S.SUCCESS

    def test_deadlines_of_what_is_parked_and_over_do_nothing(
        self, store: Store, clock: ManualClock
    ) -> None:
        p = edited(make_plan({"m": [], "i": []}, inside={"i": "m"}), "m", deadline_ms=5_000)
        store.submit(p)
        (i,) = store.step("w", want=1).deliveries
        park(store, p, ["m"])
        store.step("w", [end(i, S.FAILED)])

        pass_time(store, clock, 8)
        store.step("w")

        assert nodes_of(store, p)["m"].parked == S.FAILED
        assert again(store, p, ["i"], reopened=at(p, "m")) is True
        (i,) = store.step("w", want=1).deliveries
        pass_time(store, clock, 4)
        store.step("w", [end(i)])
        assert look_at(store, p.id).state == S.SUCCESS
        assert look_at(store, node_id(p.id, 1)).state == S.SUCCESS
