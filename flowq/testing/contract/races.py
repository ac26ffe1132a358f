# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Races, needs, sleeps and limits: what is not wanted any more, and what has to wait."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from flowq.message import (
    CULPRIT,
    EMPTY,
    TEMPLATE,
    Ref,
    encode_template,
    node_id,
    read_cell,
)
from flowq.outcome import Expand, Outcome, RetryAt
from flowq.plan import Bits, Kind, Phase, Plan, When, ranges_of
from flowq.states import State, trigger_rule
from flowq.storage.base import PAGE, Store
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

__all__ = ["TestBornBlocked", "TestLimits", "TestNeeds", "TestRaces", "TestSleeps", "as_race"]

S = State


def as_race(plan: Plan, name: str, owns: Sequence[str]) -> Plan:
    """Make a join a race that owns nodes."""
    names = [row.name for row in plan.rows]
    bits = plan.rows[names.index(name)].bits | Bits.RACE
    made = edited(plan, name, owns=ranges_of(names.index(x) for x in owns), bits=int(bits))
    for one in owns:
        made = edited(made, one, bits=made.rows[names.index(one)].bits | Bits.OWNED)
    return made


def race_of(*names: str, **more: str) -> Plan:
    """Give a plan of tasks that race, and a task behind them."""
    shape: dict[str, list[str]] = {name: [] for name in names}
    shape |= {"first": list(names), "after": ["first"]}
    plan = make_plan(shape, joins=["first"], rules={"first": "one_success", **more})
    return as_race(plan, "first", names)


def slept(plan: Plan, name: str, sleep_ms: int) -> Plan:
    """Let a join sleep."""
    return edited(plan, name, sleep_ms=sleep_ms)


class TestRaces(StoreContract):
    """A join that owns what leads to it."""

    def test_the_first_success_is_the_value_and_the_rest_is_not_wanted(self, store: Store) -> None:
        p = race_of("a", "b", "c")
        store.submit(p)
        a, b, c = store.step("w", want=1), store.step("v", want=1), store.step("u", want=1)
        assert (len(a.deliveries), len(b.deliveries), len(c.deliveries)) == (1, 1, 1)

        after = store.step("v", done(b), want=5)

        assert [d.id for d in after.deliveries] == [node(p, "after")]
        assert store.step("w").stops == [node(p, "a")]
        assert store.renew(["u"]) == [[node(p, "c")]]
        cell = look_at(store, node(p, "first")).cell
        assert cell is not None
        assert (read_cell(cell).state, read_cell(cell).flags) == (S.SUCCESS, TEMPLATE)
        assert read_cell(cell).body == encode_template(Ref(2))

        store.step("w", done(a))  # however it ends
        store.step("u", done(c, S.FAILED))
        run_all(store, p)
        store.step("v", done(after))

        assert states_of(store, p) == {
            "root": "success",
            "a": "skipped",
            "b": "success",
            "c": "skipped",
            "first": "success",
            "after": "success",
        }
        lost = look_at(store, node(p, "a")).cell
        assert lost is not None
        read = read_cell(lost)
        assert (read.body, read.delivery, read.started_ms) == (b"lost", 1, 5)
        assert store.check(p.id) == []

    def test_what_had_not_begun_ends_at_once(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"a": [], "b": [], "c": ["b"], "first": ["a", "c"]}
        p = make_plan(shape, joins=["first"], rules={"first": "one_success"})
        store.submit(as_race(p, "first", ["a", "b", "c"]))
        given = store.step("w", want=1)
        assert [d.id for d in given.deliveries] == [node(p, "a")]

        left = store.step("w", done(given), want=5)

        assert left.deliveries == []
        assert states_of(store, p) == {
            "root": "success",
            "a": "success",
            "b": "skipped",
            "c": "skipped",
            "first": "success",
        }
        assert store.check(p.id) == []

    def test_what_retries_or_is_due_later_has_lost_too(
        self, store: Store, clock: ManualClock
    ) -> None:
        shape: dict[str, list[str]] = {"a": [], "b": [], "c": [], "first": ["a", "b", "c"]}
        messages = {"c": {"delay_ms": 50_000}}
        rules = {"first": "one_success"}
        p = make_plan(shape, joins=["first"], rules=rules, messages=messages)
        store.submit(as_race(p, "first", ["a", "b", "c"]))
        given = store.step("w", want=1)
        store.step("w", [RetryAt(d.id, d.delivery, 30_000) for d in given.deliveries])
        given = store.step("w", want=1)

        store.step("w", done(given))

        states = states_of(store, p)
        assert (states["a"], states["c"], states["root"]) == ("skipped", "skipped", "success")
        pass_time(store, clock, 60)
        assert store.step("w", want=5).deliveries == []
        assert store.check(p.id) == []

    @pytest.mark.parametrize("owns", [["a"], []])
    def test_what_is_needed_elsewhere_runs_on(self, store: Store, owns: list[str]) -> None:
        shape: dict[str, list[str]] = {"a": [], "b": [], "first": ["a", "b"], "other": ["b"]}
        p = make_plan(shape, joins=["first"], rules={"first": "one_success"})
        store.submit(as_race(p, "first", owns))
        given = store.step("w", want=1)
        other = store.step("v", want=1)

        store.step("w", done(given))

        assert store.step("v").stops == []
        store.step("v", done(other))
        run_all(store, p)
        assert set(states_of(store, p).values()) == {"success"}
        won = look_at(store, node(p, "first")).cell
        assert won is not None
        assert read_cell(won).body == encode_template(Ref(1))

    def test_an_expansion_that_lost_is_cancelled_inwards_and_ends_skipped(
        self, store: Store
    ) -> None:
        shape: dict[str, list[str]] = {"m": [], "x": [], "y": ["x"], "a": [], "first": ["m", "a"]}
        inside = {"x": "m", "y": "m"}
        p = make_plan(shape, inside=inside, joins=["first"], rules={"first": "one_success"})
        p = with_later(p, "m", [(Phase.FINALLY, When.ALWAYS, {"up": []})])
        store.submit(as_race(p, "first", ["m", "a"]))
        x, a = store.step("w", want=1), store.step("v", want=1)
        assert [d.id for d in (*x.deliveries, *a.deliveries)] == [node(p, "x"), node(p, "a")]

        store.step("v", done(a))

        assert store.step("w").stops == [node(p, "x")]
        assert states_of(store, p)["root"] == "expanded"
        up = store.step("w", done(x), want=5)
        assert [d.id for d in up.deliveries] == [node(p, "up")]
        store.step("w", done(up))
        assert states_of(store, p) == {
            "root": "success",
            "m": "skipped",
            "x": "cancelled",
            "y": "cancelled",
            "up": "success",
            "a": "success",
            "first": "success",
        }
        assert store.check(p.id) == []

    def test_a_task_that_would_become_more_has_lost(self, store: Store) -> None:
        p = race_of("a", "b")
        store.submit(p)
        a, b = store.step("w", want=1), store.step("v", want=1)
        store.step("v", done(b))

        (d,) = a.deliveries
        store.step("w", [Expand(d.id, d.delivery, fragment({"i": []}))])

        assert states_of(store, p)["a"] == "skipped"
        run_all(store, p)
        assert states_of(store, p)["root"] == "success"

    def test_two_that_succeed_in_one_step_are_both_successes(self, store: Store) -> None:
        p = race_of("a", "b", "c")
        store.submit(p)
        given = store.step("w", want=3)

        store.step("w", done(given))

        cell = look_at(store, node(p, "first")).cell
        assert cell is not None
        assert read_cell(cell).body == encode_template(Ref(1))
        run_all(store, p)
        assert set(states_of(store, p).values()) == {"success"}

    @pytest.mark.parametrize(
        ("ends", "becomes"),
        [
            ((S.FAILED, S.FAILED), "blocked"),
            ((S.FAILED, S.SKIPPED), "blocked"),
            ((S.SKIPPED, S.SKIPPED), "skipped"),
            ((S.SKIPPED, S.CANCELLED), "cancelled"),
        ],
    )
    def test_a_race_that_nobody_wins(
        self, store: Store, ends: tuple[State, State], becomes: str
    ) -> None:
        p = race_of("a", "b")
        store.submit(p)

        run_all(store, p, {"a": ends[0], "b": ends[1]})

        assert states_of(store, p)["first"] == becomes

    def test_a_failure_that_counts_as_success_elsewhere_wins_no_race(self, store: Store) -> None:
        p = race_of("a", "b")
        p = edited(p, "a", bits=int(Bits.COUNTS_AS_SUCCESS | Bits.OWNED))
        store.submit(p)

        run_all(store, p, {"a": S.FAILED})

        cell = look_at(store, node(p, "first")).cell
        assert cell is not None
        assert read_cell(cell).body == encode_template(Ref(2))

    def test_a_settlement_of_one_that_lost_is_repeated_safely(self, store: Store) -> None:
        p = race_of("a", "b")
        store.submit(p)
        a, b = store.step("w", want=1), store.step("v", want=1)
        store.step("v", done(b))

        first, second = store.step("w", done(a)), store.step("w", done(a))

        assert (first.verdicts, second.verdicts) == (["settled"], ["repeated"])
        assert states_of(store, p)["a"] == "skipped"

    def test_one_that_lost_ends_when_its_worker_is_lost(self, store: Store) -> None:
        p = race_of("a", "b")
        store.submit(p)
        store.step("w", want=1)
        store.step("v", done(store.step("v", want=1)))

        store.release("w", lost=[node(p, "a")])

        assert states_of(store, p)["a"] == "skipped"

    def test_many_that_lost_end_in_pages(self, store: Store) -> None:
        n = 2 * PAGE + 10
        names = [f"n{i}" for i in range(n)]
        p = race_of(*names)
        store.submit(p)
        given = store.step("w", want=1)

        run_all(store, p)
        store.step("w", done(given))
        run_all(store, p)

        counts = list(states_of(store, p).values())
        assert counts.count("success") + counts.count("skipped") == len(counts)
        assert states_of(store, p)["root"] == "success"
        assert store.check(p.id) == []

    def test_a_race_that_runs_again_takes_what_it_had_stopped(self, store: Store) -> None:
        p = race_of("a", "b")
        store.submit(p)
        store.step("w", done(store.step("w", want=1)))
        run_all(store, p)
        assert states_of(store, p)["b"] == "skipped"

        store.rewind(p.id, 1, chosen=((1, 4),))

        states = states_of(store, p)
        assert (states["a"], states["b"], states["first"]) == ("queued", "queued", "waiting")
        run_all(store, p, {"a": S.FAILED})
        states = states_of(store, p)
        assert (states["b"], states["first"], states["after"]) == ("success",) * 3
        assert store.check(p.id) == []


def needing(plan: Plan, name: str, need: int) -> Plan:
    """Let an expansion need successes."""
    return edited(plan, name, need=need)


def map_of(n: int, need: int) -> Plan:
    """Give a plan of an expansion with tasks that needs some of them, and a task behind it."""
    items = [f"i{k}" for k in range(n)]
    shape: dict[str, list[str]] = {"m": [], "after": ["m"], **{name: [] for name in items}}
    plan = make_plan(shape, inside=dict.fromkeys(items, "m"), empty=["m"])
    return needing(plan, "m", need)


class TestNeeds(StoreContract):
    """An expansion that has enough once some of its body succeeded."""

    def test_once_enough_succeeded_the_rest_is_not_wanted(self, store: Store) -> None:
        p = map_of(5, need=2)
        store.submit(p)
        one, two, three = (store.step(s, want=1) for s in "wvu")

        store.step("w", done(one, S.FAILED))
        store.step("v", done(two))
        fourth = store.step("v", want=1)
        store.step("v", done(fourth))

        assert store.step("u").stops == [three.deliveries[0].id]
        assert states_of(store, p)["m"] == "expanded"  # it ends when they have
        after = store.step("u", done(three), want=5)
        assert [d.id for d in after.deliveries] == [node(p, "after")]
        store.step("u", done(after))
        states = states_of(store, p)
        assert (states["m"], states["root"]) == ("success", "success")
        assert [states[f"i{k}"] for k in range(5)] == [
            "failed",
            "success",
            "skipped",
            "success",
            "skipped",
        ]
        assert store.check(p.id) == []

    def test_it_may_be_met_twice_at_once(self, store: Store) -> None:
        p = map_of(4, need=2)
        store.submit(p)
        given = store.step("w", want=4)

        step = store.step("w", done(given))

        assert step.verdicts == ["settled"] * 4
        states = states_of(store, p)
        ends = [states[f"i{k}"] for k in range(4)]
        assert (ends.count("success"), ends.count("skipped")) == (2, 2)
        assert states["m"] == "success"
        assert store.check(p.id) == []

    def test_the_first_of_a_step_win(self, store: Store) -> None:
        p = map_of(3, need=1)
        store.submit(p)
        given = store.step("w", want=3)
        outcomes = done(given)

        store.step("w", [outcomes[2], outcomes[0], outcomes[1]])

        states = states_of(store, p)
        last = [info.name for info in store.nodes(p.id) if info.state == S.SUCCESS]
        assert states["m"] == "success"
        assert node(p, "i2") == outcomes[2].id
        assert "i2" in last and "i0" not in last

    @pytest.mark.parametrize("n", [0, 2])
    def test_fewer_are_a_failure(self, store: Store, n: int) -> None:
        p = map_of(n, need=2)
        store.submit(p)

        run_all(store, p, {"i0": S.FAILED})

        states = states_of(store, p)
        assert (states["m"], states["after"], states["root"]) == ("failed", "blocked", "failed")
        cell = look_at(store, node(p, "m")).cell
        assert cell is not None
        assert read_cell(cell).flags == CULPRIT
        culprit = int.from_bytes(read_cell(cell).body, "big")
        assert culprit == (3 if n else 1)

    def test_skips_and_cancels_are_no_successes(self, store: Store) -> None:
        p = map_of(3, need=1)
        store.submit(p)

        run_all(store, p, {"i0": S.SKIPPED, "i1": S.CANCELLED, "i2": S.SKIPPED})

        assert states_of(store, p)["m"] == "failed"

    def test_failures_and_cancels_beside_enough_do_not_matter(self, store: Store) -> None:
        p = map_of(3, need=1)
        store.submit(p)

        run_all(store, p, {"i0": S.FAILED, "i1": S.CANCELLED})

        assert states_of(store, p)["m"] == "success"

    def test_a_cancel_is_a_cancel(self, store: Store) -> None:
        p = map_of(3, need=1)
        store.submit(p)
        given = store.step("w", want=1)

        store.cancel([node(p, "m")])
        store.step("w", done(given))

        states = states_of(store, p)
        assert (states["m"], states["i0"], states["root"]) == ("cancelled",) * 3

    def test_expansions_inside_are_stopped_and_end_skipped(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"m": [], "i0": [], "i1": [], "x": [], "y": ["x"], "z": []}
        inside = {"i0": "m", "i1": "m", "x": "i0", "y": "i0", "z": "i1"}
        p = needing(make_plan(shape, inside=inside), "m", 1)
        store.submit(p)
        x, z = store.step("w", want=1), store.step("v", want=1)

        store.step("v", done(z))
        store.step("w", done(x))

        states = states_of(store, p)
        assert (states["i0"], states["i1"], states["m"]) == ("skipped", "success", "success")
        assert (states["x"], states["y"]) == ("cancelled", "cancelled")
        assert store.check(p.id) == []

    def test_a_fragment_may_need(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        store.submit(p)
        (d,) = store.step("w", want=1).deliveries
        rows = fragment({"i": [], "j": [], "k": []})
        rows[0] = msgspec.structs.replace(rows[0], need=2)

        store.step("w", [Expand(d.id, d.delivery, rows)])
        given = store.step("w", want=3)
        store.step("w", done(given))

        states = states_of(store, p)
        ends = [states[n] for n in "ijk"]
        assert (ends.count("success"), ends.count("skipped")) == (2, 1)
        assert states["a"] == "success"
        assert store.check(p.id) == []

    def test_it_is_met_in_the_order_of_the_outcomes_however_deep_they_stand(
        self, store: Store
    ) -> None:
        shape: dict[str, list[str]] = {"m": [], "i0": [], "s": [], "i1": [], "i2": []}
        shape |= {"x": [], "y": []}
        inside = {"i0": "m", "i1": "m", "i2": "m", "s": "i0", "x": "s", "y": "i1"}
        p = needing(make_plan(shape, inside=inside), "m", 1)
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=9).deliveries}
        x, y, i2 = (given[node(p, name)] for name in ("x", "y", "i2"))

        store.step("w", [end(x), end(y), end(i2)])

        states = states_of(store, p)
        assert [states[n] for n in ("i0", "i1", "i2")] == ["success", "skipped", "skipped"]
        assert store.check(p.id) == []

    def test_what_becomes_nothing_counts_before_those_behind_it(self, store: Store) -> None:
        p = map_of(2, need=1)
        store.submit(p)
        first, second = store.step("w", want=2).deliveries

        store.step("w", [Expand(first.id, 1, fragment({})), end(second)])

        states = states_of(store, p)
        assert (states["i0"], states["i1"], states["m"]) == ("success", "skipped", "success")
        assert store.check(p.id) == []

    def test_handlers_run_behind_it(self, store: Store) -> None:
        p = map_of(2, need=1)
        p = with_later(
            p,
            "m",
            [
                (Phase.HANDLERS, When.SUCCESS, {"good": []}),
                (Phase.FINALLY, When.ALWAYS, {"up": []}),
            ],
        )
        store.submit(p)
        store.step("w", done(store.step("w", want=1)))

        order = run_all(store, p)

        assert order == ["good", "up", "after"]
        states = states_of(store, p)
        assert states["i1"] == "skipped"
        assert (states["good"], states["up"], states["m"]) == ("success",) * 3  # they are wanted

    def test_many_that_lost_end_in_pages(self, store: Store) -> None:
        p = map_of(2 * PAGE + 10, need=1)
        store.submit(p)
        store.step("w", done(store.step("w", want=1)))

        run_all(store, p)

        ends = list(states_of(store, p).values())
        assert ends.count("success") == 4
        assert ends.count("skipped") == 2 * PAGE + 9
        assert store.check(p.id) == []

    def test_one_that_was_not_met_runs_again(self, store: Store) -> None:
        p = map_of(3, need=2)
        store.submit(p)
        run_all(store, p, {"i0": S.FAILED, "i1": S.FAILED})
        assert states_of(store, p)["m"] == "failed"

        # i0, i1 and what is below their map, which keeps i2
        store.rewind(p.id, 1, chosen=((2, 3),), reopened=((1, 1),))
        order = run_all(store, p)

        states = states_of(store, p)
        assert order == ["i0", "i1", "after"]  # both run, and the first is enough
        assert [states[n] for n in ("i0", "i1", "i2", "m")] == [
            "success",
            "skipped",
            "success",
            "success",
        ]
        assert store.check(p.id) == []


class TestSleeps(StoreContract):
    """A join that ends some time after its rule said so."""

    def test_it_ends_when_its_time_has_come(self, store: Store, clock: ManualClock) -> None:
        shape: dict[str, list[str]] = {"a": [], "pause": ["a"], "b": ["pause"]}
        p = slept(make_plan(shape, joins=["pause"]), "pause", 5_000)
        store.submit(p)

        step = store.step("w", done(store.step("w", want=1)), want=5)

        assert step.deliveries == []
        assert step.next_ms == 5_000
        assert look_at(store, node(p, "pause")).state == S.SCHEDULED
        assert look_at(store, node(p, "pause")).due_ms == clock.now_ms() + 5_000
        assert store.left(["default"])
        assert store.status().scheduled == 1
        clock.advance(4.9)
        assert store.step("w", want=5).deliveries == []
        clock.advance(0.1)
        given = store.step("w", want=5)
        assert [d.id for d in given.deliveries] == [node(p, "b")]
        store.step("w", done(given))
        assert set(states_of(store, p).values()) == {"success"}
        cell = look_at(store, node(p, "pause")).cell
        assert cell is not None
        assert (read_cell(cell).flags, read_cell(cell).ended_ms) == (EMPTY, clock.now_ms())
        assert store.check(p.id) == []

    def test_it_may_be_the_first_of_a_run(self, store: Store, clock: ManualClock) -> None:
        p = slept(make_plan({"pause": [], "b": ["pause"]}, joins=["pause"]), "pause", 2_000)
        store.submit(p)

        assert store.step("w", want=5).next_ms == 2_000
        clock.advance(2)

        assert [d.id for d in store.step("w", want=5).deliveries] == [node(p, "b")]

    def test_it_may_be_all_of_a_run(self, store: Store, clock: ManualClock) -> None:
        p = slept(make_plan({"pause": []}, joins=["pause"]), "pause", 2_000)
        store.submit(p)
        clock.advance(2)

        store.step("w")

        assert states_of(store, p) == {"root": "success", "pause": "success"}

    def test_a_cancel_ends_it_at_once(self, store: Store, clock: ManualClock) -> None:
        p = slept(make_plan({"pause": [], "b": ["pause"]}, joins=["pause"]), "pause", 2_000)
        store.submit(p)

        store.cancel([p.id])

        assert set(states_of(store, p).values()) == {"cancelled"}
        assert store.status().scheduled == 0
        clock.advance(3)
        step = store.step("w", want=5)
        assert (step.deliveries, step.next_ms) == ([], None)
        assert store.check(p.id) == []

    def test_it_may_lose(self, store: Store, clock: ManualClock) -> None:
        shape: dict[str, list[str]] = {"a": [], "pause": [], "first": ["a", "pause"]}
        p = make_plan(shape, joins=["first", "pause"], rules={"first": "one_success"})
        p = as_race(slept(p, "pause", 9_000), "first", ["a", "pause"])
        store.submit(p)

        run_all(store, p)

        assert states_of(store, p)["pause"] == "skipped"
        assert states_of(store, p)["root"] == "success"
        clock.advance(10)
        assert store.step("w", want=5).next_ms is None

    def test_it_may_win(self, store: Store, clock: ManualClock) -> None:
        shape: dict[str, list[str]] = {"a": [], "pause": [], "first": ["a", "pause"]}
        p = make_plan(shape, joins=["first", "pause"], rules={"first": "one_success"})
        p = as_race(slept(p, "pause", 2_000), "first", ["a", "pause"])
        store.submit(p)
        given = store.step("w", want=1)
        clock.advance(2)

        assert store.step("v").verdicts == []

        assert store.step("w").stops == [node(p, "a")]
        store.step("w", done(given))
        states = states_of(store, p)
        assert (states["a"], states["first"], states["root"]) == ("skipped", "success", "success")

    def test_it_may_be_let_go_earlier(self, store: Store, clock: ManualClock) -> None:
        p = slept(make_plan({"pause": [], "b": ["pause"]}, joins=["pause"]), "pause", 60_000)
        store.submit(p)

        assert store.reschedule(node(p, "pause")) == S.SCHEDULED

        assert [d.id for d in store.step("w", want=5).deliveries] == [node(p, "b")]

    def test_it_sleeps_again_in_the_next_generation(self, store: Store, clock: ManualClock) -> None:
        p = slept(make_plan({"pause": [], "b": ["pause"]}, joins=["pause"]), "pause", 2_000)
        store.submit(p)
        clock.advance(2)
        run_all(store, p, {"b": S.FAILED})

        store.rewind(p.id, 1, chosen=((1, 2),))

        assert look_at(store, node(p, "pause")).due_ms == clock.now_ms() + 2_000
        clock.advance(2)
        assert run_all(store, p) == ["b"]

    def test_in_a_fragment(self, store: Store, clock: ManualClock) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        store.submit(p)
        (d,) = store.step("w", want=1).deliveries
        rows = fragment({"i": [], "j": ["i"]})
        pause = msgspec.structs.replace(
            rows[1], kind=Kind.JOIN, message=None, reads=(), sleep_ms=1_000
        )
        rows = [rows[0], pause, msgspec.structs.replace(rows[2], reads=())]

        store.step("w", [Expand(d.id, d.delivery, rows)])

        assert store.step("w", want=5).next_ms == 1_000
        clock.advance(1)
        given = store.step("w", want=5)
        (j,) = [info.index for info in store.nodes(p.id) if info.name == "j"]
        assert [d.id for d in given.deliveries] == [node_id(p.id, j)]
        store.step("w", done(given))
        assert run_all(store, p) == ["b"]


def limited(n: int, most: int, **more: object) -> Plan:
    """Give a plan of an expansion with tasks of which so many may be under way."""
    items = [f"i{k}" for k in range(n)]
    shape: dict[str, list[str]] = {"m": [], "after": ["m"], **{name: [] for name in items}}
    plan = make_plan(shape, inside=dict.fromkeys(items, "m"), empty=["m"])
    return edited(plan, "m", most=most, **more)


class TestLimits(StoreContract):
    """An expansion of whose body so many nodes may be under way at a time."""

    def test_so_many_are_under_way_and_the_next_begins_when_one_ends(self, store: Store) -> None:
        p = limited(5, most=2)
        store.submit(p)

        given = store.step("w", want=10)

        assert [d.id for d in given.deliveries] == [node(p, "i0"), node(p, "i1")]
        assert states_of(store, p)["i2"] == "waiting"
        assert store.status().queues[0].ready == 0
        first, second = done(given)
        third = store.step("w", [second], want=10)
        assert [d.id for d in third.deliveries] == [node(p, "i2")]
        rest = store.step("w", [first, *done(third)], want=10)
        assert [d.id for d in rest.deliveries] == [node(p, "i3"), node(p, "i4")]
        assert store.check(p.id) == []
        store.step("w", done(rest))
        assert run_all(store, p) == ["after"]
        assert set(states_of(store, p).values()) == {"success"}

    @pytest.mark.parametrize("how", [S.FAILED, S.SKIPPED, S.CANCELLED])
    def test_a_place_is_free_however_one_ended(self, store: Store, how: State) -> None:
        p = limited(4, most=1)
        store.submit(p)

        order = run_all(store, p, {"i0": how, "i2": how})

        assert order[:4] == ["i0", "i1", "i2", "i3"]

    def test_who_tries_again_keeps_its_place(self, store: Store, clock: ManualClock) -> None:
        p = limited(3, most=1)
        store.submit(p)
        (d,) = store.step("w", want=5).deliveries

        step = store.step("w", [RetryAt(d.id, d.delivery, 5_000)], want=5)

        assert step.deliveries == []
        clock.advance(5)
        again = store.step("w", want=5)
        assert [d.id for d in again.deliveries] == [node(p, "i0")]
        store.release("w", lost=[node(p, "i0")])
        again = store.step("v", want=5)
        assert [d.id for d in again.deliveries] == [node(p, "i0")]
        after = store.step("v", done(again), want=5)
        assert [d.id for d in after.deliveries] == [node(p, "i1")]
        assert store.check(p.id) == []

    def test_who_is_cancelled_alone_lets_the_next_begin(self, store: Store) -> None:
        p = limited(3, most=1)
        store.submit(p)

        store.cancel([node(p, "i0")])

        given = store.step("w", want=5)
        assert [d.id for d in given.deliveries] == [node(p, "i1")]
        store.cancel([node(p, "i2")])  # it had no place
        assert store.step("v", want=5).deliveries == []
        store.step("w", done(given))
        assert states_of(store, p)["m"] == "cancelled"
        assert store.check(p.id) == []

    def test_an_expansion_holds_its_place_to_its_end(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"m": [], "i0": [], "i1": [], "x": [], "y": ["x"], "z": []}
        inside = {"i0": "m", "i1": "m", "x": "i0", "y": "i0", "z": "i1"}
        p = edited(make_plan(shape, inside=inside), "m", most=1)
        store.submit(p)

        assert run_all(store, p) == ["x", "y", "z"]

        assert set(states_of(store, p).values()) == {"success"}

    def test_empty_expansions_free_their_places_at_once(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"m": [], "i0": [], "i1": [], "i2": [], "z": []}
        inside = {"i0": "m", "i1": "m", "i2": "m", "z": "i2"}
        p = edited(make_plan(shape, inside=inside, empty=["i0", "i1"]), "m", most=1)
        store.submit(p)

        assert run_all(store, p) == ["z"]

    def test_a_cancel_ends_those_that_wait(self, store: Store) -> None:
        p = limited(4, most=1)
        store.submit(p)
        given = store.step("w", want=5)

        store.cancel([node(p, "m")])

        assert states_of(store, p)["i3"] == "cancelled"
        assert store.step("w", done(given), want=5).deliveries == []
        assert states_of(store, p)["root"] == "cancelled"
        assert store.check(p.id) == []

    def test_a_failure_that_stops_the_rest_lets_nothing_begin(self, store: Store) -> None:
        p = limited(4, most=2)
        rows = [
            msgspec.structs.replace(r, bits=int(Bits.STOPS)) if r.name[0] == "i" else r
            for r in p.rows
        ]
        p = msgspec.structs.replace(p, rows=rows)
        store.submit(p)
        given = store.step("w", want=5)
        first, second = given.deliveries

        step = store.step("w", [end(first, S.FAILED)], want=5)

        assert step.deliveries == []
        store.step("w", [end(second)])
        states = states_of(store, p)
        assert [states[f"i{k}"] for k in range(4)] == ["failed", *["cancelled"] * 3]
        assert states["m"] == "failed"

    def test_with_a_need_no_more_begin_than_are_needed(self, store: Store) -> None:
        p = limited(6, most=2, need=3)
        store.submit(p)
        began: list[bytes] = []
        outcomes: list[Outcome] = []

        while given := store.step("w", outcomes, want=5).deliveries:
            began += [d.id for d in given]
            outcomes = [end(d) for d in given]
            if node(p, "after") in began:
                break

        assert [node(p, f"i{k}") for k in range(4)] == began[:4]
        assert node(p, "i4") not in began
        assert states_of(store, p)["m"] == "success"
        assert store.check(p.id) == []

    def test_many_that_wait_cost_pages_only(self, store: Store) -> None:
        n = 2 * PAGE + 20
        p = limited(n, most=3)
        store.submit(p)
        most = 0
        outcomes: list[Outcome] = []
        ran = 0
        while True:
            given = store.step("w", outcomes, want=100).deliveries
            if not given:
                break
            most = max(most, len(given))
            ran += len(given)
            outcomes = [end(d) for d in given]

        assert (most, ran) == (3, n + 1)
        assert set(states_of(store, p).values()) == {"success"}
        assert store.check(p.id) == []

    def test_a_fragment_may_be_limited(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        store.submit(p)
        (d,) = store.step("w", want=1).deliveries
        rows = fragment({"i": [], "j": [], "k": []})
        rows[0] = msgspec.structs.replace(rows[0], most=2)

        store.step("w", [Expand(d.id, d.delivery, rows)])

        given = store.step("w", want=5)
        assert len(given.deliveries) == 2
        last = store.step("w", done(given), want=5)
        assert len(last.deliveries) == 1
        store.step("w", done(last))
        assert run_all(store, p) == ["b"]

    def test_what_runs_again_takes_places_again(self, store: Store) -> None:
        p = limited(5, most=2)
        store.submit(p)
        run_all(store, p, {f"i{k}": S.FAILED for k in range(4)})

        # i0 to i3 and what is below their map
        store.rewind(p.id, 1, chosen=((2, 5),), reopened=((1, 1),))

        given = store.step("w", want=10)
        assert [d.id for d in given.deliveries] == [node(p, "i0"), node(p, "i1")]
        assert store.check(p.id) == []
        rest = store.step("w", done(given), want=10)
        assert [d.id for d in rest.deliveries] == [node(p, "i2"), node(p, "i3")]
        store.step("w", done(rest))
        assert run_all(store, p) == ["after"]
        assert store.check(p.id) == []

    def test_an_expansion_that_is_reopened_holds_a_place(self, store: Store) -> None:
        items = ["i0", "i1", "i2", "i3"]
        shape: dict[str, list[str]] = {"m": [], "after": ["m"], **{i: [] for i in items}, "x": []}
        inside = {**dict.fromkeys(items, "m"), "x": "i0"}
        p = edited(make_plan(shape, inside=inside), "m", most=2)
        store.submit(p)
        run_all(store, p, dict.fromkeys(["x", "i1", "i2", "i3"], S.FAILED))

        # all but i0 and m, which stand around what failed
        store.rewind(p.id, 1, chosen=((2, 1), (4, 4)), reopened=((1, 1), (3, 1)))

        given = store.step("w", want=10)
        assert [d.id for d in given.deliveries] == [node(p, "i1"), node(p, "x")]
        assert store.check(p.id) == []
        step = store.step("w", done(given), want=10)
        assert [d.id for d in step.deliveries] == [node(p, "i2"), node(p, "i3")]
        assert store.check(p.id) == []

    def test_an_alarm_for_what_ended_before_its_body_began_is_no_later_for_that(
        self, store: Store
    ) -> None:
        shape: dict[str, list[str]] = {"a": [], "m": ["a"], "i0": [], "i1": [], "i2": []}
        p = edited(make_plan(shape, inside=dict.fromkeys(["i0", "i1", "i2"], "m")), "m", most=1)
        p = with_later(p, "m", [(Phase.HANDLERS, When.ALWAYS, {"h": ["i0"]})])
        p = edited(p, "h", rule=trigger_rule("all_done", 1))
        store.submit(p)
        store.cancel([node(p, "i0")])
        a = store.step("w", want=1)

        given = store.step("w", done(a), want=5)

        assert {d.id for d in given.deliveries} == {node(p, "i1"), node(p, "h")}
        rest = store.step("w", done(given), want=5)
        assert [d.id for d in rest.deliveries] == [node(p, "i2")]
        assert store.check(p.id) == []


class TestBornBlocked(StoreContract):
    """Nodes that are blocked as soon as they might run."""

    def test_it_is_blocked_when_it_might_run_and_not_before(self, store: Store) -> None:
        p = make_plan({"a": [], "x": ["a"], "y": ["x"], "alarm": ["x"]})
        p = edited(p, "alarm", rule=trigger_rule("one_failed", 1))
        store.submit(edited(p, "x", blocked=b"why"))
        assert states_of(store, p)["x"] == "waiting"

        assert run_all(store, p) == ["a", "alarm"]

        states = states_of(store, p)
        assert (states["x"], states["y"], states["root"]) == ("blocked", "blocked", "failed")
        own = read_cell(look_at(store, node(p, "x")).cell or b"")
        assert (own.state, own.flags, own.body) == (S.BLOCKED, 0, b"why")
        for other in ("y", "root"):
            cell = read_cell(look_at(store, node(p, other)).cell or b"")
            assert (cell.flags, int.from_bytes(cell.body, "big")) == (CULPRIT, 2)
        assert store.check(p.id) == []

    def test_nothing_in_it_begins_and_nothing_takes_its_place(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"m": [], "i0": [], "i1": [], "x": [], "y": ["x"], "z": []}
        p = make_plan(shape, inside={"i0": "m", "i1": "m", "x": "i0", "y": "i0", "z": "i1"})
        p = edited(edited(p, "m", tolerate=1), "i0", blocked=b"why")
        store.submit(p)

        assert run_all(store, p) == ["z"]

        states = states_of(store, p)
        assert (states["i0"], states["x"], states["y"]) == ("blocked",) * 3
        assert (states["m"], states["root"]) == ("success", "success")
        cell = read_cell(look_at(store, node(p, "y")).cell or b"")
        assert int.from_bytes(cell.body, "big") == 2
        assert store.check(p.id) == []

    def test_no_fallback_follows(self, store: Store) -> None:
        p = edited(make_plan({"x": []}), "x", blocked=b"why")
        p = with_later(p, "x", [(Phase.FALLBACK, When.FAILED, {"instead": []})])
        store.submit(p)

        assert run_all(store, p) == []

        assert states_of(store, p)["x"] == "blocked"
        assert states_of(store, p)["root"] == "failed"

    def test_it_takes_no_place_of_a_bounded_body(self, store: Store) -> None:
        p = limited(6, most=1)
        for name in ("i0", "i2", "i3"):
            p = edited(p, name, blocked=b"why")
        store.submit(p)

        assert run_all(store, p) == ["i1", "i4", "i5"]

        assert states_of(store, p)["m"] == "failed"
        assert store.check(p.id) == []

    def test_a_failure_that_stops_the_rest(self, store: Store) -> None:
        p = make_plan({"x": [], "y": []}, bits={"x": Bits.STOPS})
        store.submit(edited(p, "x", blocked=b"why"))

        assert run_all(store, p) == []

        assert states_of(store, p) == {"root": "failed", "x": "blocked", "y": "cancelled"}

    def test_in_a_fragment(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        store.submit(p)
        (d,) = store.step("w", want=1).deliveries
        rows = fragment({"i": [], "j": []})
        rows[1] = msgspec.structs.replace(rows[1], blocked=b"why")

        store.step("w", [Expand(d.id, d.delivery, rows)])
        run_all(store, p)

        states = states_of(store, p)
        assert (states["i"], states["j"], states["a"], states["b"]) == (
            "blocked",
            "success",
            "failed",
            "blocked",
        )
        assert store.check(p.id) == []

    def test_it_is_blocked_again_in_the_next_generation(self, store: Store) -> None:
        p = edited(make_plan({"x": [], "y": ["x"]}), "x", blocked=b"why")
        store.submit(p)
        run_all(store, p)

        store.rewind(p.id, 1, chosen=((1, 2),))
        run_all(store, p)

        assert states_of(store, p) == {"root": "failed", "x": "blocked", "y": "blocked"}
        assert store.check(p.id) == []
