# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Runs: plans taken in, counted, walked in pages, ended."""

from __future__ import annotations

import threading

import msgspec
import pytest

from flowq.message import (
    CULPRIT,
    EMPTY,
    TEMPLATE,
    new_id,
    node_id,
    read_cell,
)
from flowq.outcome import Done, Outcome, Skipped
from flowq.plan import Plan
from flowq.states import State
from flowq.storage.base import (
    PAGE,
    REPLY_BYTES,
    SUBMIT_PAGE,
    Store,
)
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    cell,
    done,
    end,
    look_at,
    make_plan,
    node,
    run_all,
    states_of,
    task,
)

__all__ = ["TestSubmit", "TestUnbegun", "TestValues"]

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
        assert states_of(store, p) == {
            "root": "failed",
            "bad": "failed",
            "fine": "success",
            "in": "blocked",
            "deep": "blocked",
            "after": "blocked",
            "all": "success",
        }
        blamed = {n.name: n.culprit for n in store.nodes(p.id) if n.culprit is not None}
        assert blamed == {"root": 1, "in": 1, "deep": 1, "after": 1}

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
        assert (step.ready, step.next_ms) == (1_000, 0)
        assert store.wait_ready(["default"], timeout=0)
        assert store.step("other").ready == 1_200
        assert store.step("other").next_ms != 0
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

        clock.advance(5_000 / 1000)
        store.step("w", want=1)

        assert states_of(store, p) == {"root": "failed", "a": "failed"}

    @pytest.mark.parametrize("mapped", [False, True])
    def test_a_plan_of_several_pages_starts_when_its_last_is_there(
        self, store: Store, mapped: bool
    ) -> None:
        items: dict[str, list[str]] = {f"n{i}": [] for i in range(SUBMIT_PAGE + 100)}
        inside = dict.fromkeys(items, "map") if mapped else {}
        plan = make_plan({**({"map": []} if mapped else {}), **items}, inside=inside)
        count = len(plan.rows) - 1

        assert store.submit(plan) is True
        assert store.submit(plan) is False

        info = store.run(plan.id)
        assert info is not None
        assert (info.nodes, info.state) == (count, State.EXPANDED)
        order: list[bytes] = []
        outcomes: list[Outcome] = []
        while len(order) < len(items):
            step = store.step("w", outcomes, want=1_000)
            assert step.deliveries
            outcomes = done(step)
            order += [d.id for d in step.deliveries]
        store.step("w", outcomes)
        assert order == [node_id(plan.id, i) for i in range(1 + mapped, count + 1)]
        assert look_at(store, plan.id).state == State.SUCCESS

    @pytest.mark.parametrize("joins", [(), ("all",)])
    def test_a_wide_join_waits_for_all_and_runs_once(
        self, store: Store, joins: tuple[str, ...]
    ) -> None:
        wide = [f"n{i}" for i in range(2 * PAGE + 200)]
        plan = make_plan(
            {"a": [], **{n: ["a"] for n in wide}, "all": wide, "end": ["all"]}, joins=joins
        )
        store.submit(plan)

        order = run_all(store, plan)

        assert order == ["a", *wide, *(() if joins else ("all",)), "end"]
        assert set(states_of(store, plan).values()) == {"success"}

    def test_a_wide_failure_blocks_all_below(self, store: Store) -> None:
        wide = [f"n{i}" for i in range(2 * PAGE + 200)]
        plan = make_plan({"a": [], **{n: ["a"] for n in wide}, "all": wide})
        store.submit(plan)

        assert run_all(store, plan, {"a": State.FAILED}) == ["a"]

        found = states_of(store, plan)
        assert {found.pop("root"), found.pop("a")} == {"failed"}
        assert set(found.values()) == {"blocked"}
        assert {n.culprit for n in store.nodes(plan.id, limit=9_999, state=State.BLOCKED)} == {1}

    def test_expansions_nest_and_end_from_the_inside(self, store: Store) -> None:
        plan = make_plan(
            {
                "out": [],
                "in": [],
                "x": [],
                "y": ["x"],
                "void": [],
                "z": ["in", "void"],
                "e": ["out"],
            },
            inside={"in": "out", "x": "in", "y": "in", "void": "out", "z": "out"},
            empty=("void",),
        )
        store.submit(plan)

        assert run_all(store, plan) == ["x", "y", "z", "e"]
        assert set(states_of(store, plan).values()) == {"success"}

    def test_nothing_of_an_unfinished_run_expires(self, store: Store, clock: ManualClock) -> None:
        plan = make_plan(
            {"a": [], "b": ["a"]}, ttl={"result_ttl_ms": 1_000_000, "failed_ttl_ms": 1_000_000}
        )
        store.submit(plan)
        store.step("w", done(store.step("w", want=1)))
        clock.advance(90 * 86_400)
        store.sweep()
        step = store.step("v", want=1)
        assert step.deliveries[0].values == {1: cell(State.SUCCESS)}
        store.step("v", done(step))

        clock.advance(999)
        store.sweep()
        assert store.run(plan.id) is not None
        clock.advance(1)
        while store.sweep().more:
            pass

        assert store.run(plan.id) is None
        assert store.cells(plan.id, ((0, 3),)) == {}

    def test_what_a_settlement_queued_keeps_its_turn_when_it_is_moved(
        self, store: Store, clock: ManualClock
    ) -> None:
        plan, other = make_plan({"a": [], "b": ["a"]}), task()
        store.submit(plan)
        store.step("w", done(store.step("w", want=1)))
        store.enqueue([other])

        assert store.reschedule(node(plan, "b"), delay_ms=1_000) == State.SCHEDULED
        clock.advance(1)

        found = [d.id for d in store.step("w", want=5).deliveries]
        assert found == [node(plan, "b"), other.id]

    def test_settled_work_goes_before_what_was_enqueued_and_by_index(self, store: Store) -> None:
        plan = make_plan({"a": [], "b": ["a"], "c": ["a"]})
        store.submit(plan)
        step = store.step("w", want=1)
        other = task()
        store.enqueue([other])

        step = store.step("w", done(step), want=9)

        assert [d.id for d in step.deliveries] == [node(plan, "b"), node(plan, "c"), other.id]


class TestUnbegun(StoreContract):
    """Expansions that end before they began, and all that is inside them."""

    @pytest.fixture(params=["all_success", "one_success"])
    def plan(self, request: pytest.FixtureRequest) -> Plan:
        """A node before an expansion with another inside, and nodes that run whatever happens."""
        return make_plan(
            {
                "a": [],
                "out": ["a"],
                "x": [],
                "always": ["x"],
                "in": ["x"],
                "y": [],
                "never": ["y"],
                "join": ["in", "always"],
                "after": ["out"],
            },
            rules={
                "out": request.param,
                "always": "all_done",
                "never": "all_done",
                "after": "all_done",
            },
            inside={
                "x": "out",
                "always": "out",
                "in": "out",
                "y": "in",
                "never": "in",
                "join": "out",
            },
            joins=("join",),
        )

    INNER = ("x", "always", "in", "y", "never", "join")

    @pytest.mark.parametrize("state", [State.FAILED, State.SKIPPED, State.CANCELLED])
    def test_what_is_inside_ends_with_it_and_nothing_of_it_runs(
        self, store: Store, plan: Plan, state: State
    ) -> None:
        store.submit(plan)

        order = run_all(store, plan, {"a": state})

        becomes = State.BLOCKED if state == State.FAILED else state
        assert order == ["a", "after"]
        found = states_of(store, plan)
        assert {found[name] for name in ("out", *self.INNER)} == {becomes.label}
        cells = store.cells(plan.id, ((0, 99),))
        for name in self.INNER:
            kept = read_cell(cells[int.from_bytes(node(plan, name)[16:], "big")])
            assert kept.state == becomes
            if becomes == State.BLOCKED:
                assert (kept.flags, kept.body) == (CULPRIT, (1).to_bytes(4, "big"))
            else:
                assert (kept.flags, kept.body) == (
                    0,
                    f"what it stands in was {becomes.label}".encode(),
                )
        blamed = {n.name for n in store.nodes(plan.id) if n.culprit == 1}
        assert blamed == ({"root", "out", *self.INNER} if becomes == State.BLOCKED else set())
        assert look_at(store, plan.id).state.final

    @pytest.mark.parametrize("name", ["out", "in"])
    def test_one_that_is_cancelled_takes_along_what_is_inside(
        self, store: Store, plan: Plan, name: str
    ) -> None:
        store.submit(plan)

        assert store.cancel([node(plan, name)]) == [State.CANCELLED]

        inner = self.INNER if name == "out" else ("y", "never")
        found = states_of(store, plan)
        assert {found[n] for n in (name, *inner)} == {"cancelled"}
        assert store.check(plan.id) == []
        expected = {"out": ["a", "after"], "in": ["a", "after", "always", "x"]}
        assert sorted(run_all(store, plan)) == expected[name]
        assert all(look_at(store, node(plan, row.name)).state.final for row in plan.rows[1:])

    @pytest.fixture
    def map_(self) -> Plan:
        """A node before an expansion in which rules of each kind look at ``x``."""
        return make_plan(
            {
                "a": [],
                "map": ["a"],
                "x": [],
                "always": ["x"],
                "never": ["x"],
                "y": [],
                "both": ["always", "y"],
                "in": ["x"],
                "deep": [],
                "after": ["map"],
            },
            rules={"always": "all_done", "in": "all_done", "after": "all_done"},
            inside={
                **dict.fromkeys(("x", "always", "never", "y", "both", "in"), "map"),
                "deep": "in",
            },
        )

    def test_a_cancel_inside_lets_nothing_inside_start_or_end_before_it_begins(
        self, store: Store, map_: Plan
    ) -> None:
        store.submit(map_)

        assert store.cancel([node(map_, "x")]) == [State.CANCELLED]
        step = store.step("w", want=9)
        assert not store.sweep().continued

        assert [d.id for d in step.deliveries] == [node(map_, "a")] and not step.ready
        found = states_of(store, map_)
        assert found.pop("x") == "cancelled"
        assert {found.pop("root"), found.pop("a")} == {"expanded", "running"}
        assert set(found.values()) == {"waiting"}
        assert store.check(map_.id) == []

    def test_one_that_begins_sees_what_was_cancelled_inside_it(
        self, store: Store, map_: Plan
    ) -> None:
        store.submit(map_)
        store.cancel([node(map_, "x")])
        step = store.step("w", want=1)

        step = store.step("w", done(step), want=9)

        names = [map_.rows[int.from_bytes(d.id[16:], "big")].name for d in step.deliveries]
        assert names == ["always", "y", "deep"]
        assert states_of(store, map_)["never"] == "cancelled"
        assert store.check(map_.id) == []
        store.step("w", done(step))
        assert run_all(store, map_) == ["both", "after"]
        assert states_of(store, map_)["map"] == "cancelled"

    def test_one_whose_whole_body_was_cancelled_ends_as_it_begins(
        self, store: Store, map_: Plan
    ) -> None:
        store.submit(map_)
        store.cancel([node(map_, n) for n in ("in", "x", "y", "both", "never", "always")])
        assert states_of(store, map_)["map"] == "waiting"

        assert run_all(store, map_) == ["a", "after"]

        assert states_of(store, map_)["map"] == "cancelled"
        assert states_of(store, map_)["deep"] == "cancelled"

    def test_one_that_ends_unbegun_lets_nothing_inside_start(
        self, store: Store, map_: Plan
    ) -> None:
        store.submit(map_)
        store.cancel([node(map_, "x")])

        store.cancel([node(map_, "map")])

        assert sorted(run_all(store, map_)) == ["a", "after"]
        found = states_of(store, map_)
        inner = ("x", "always", "never", "y", "both", "in", "deep")
        assert {found[name] for name in inner} == {"cancelled"}

    def test_what_a_cancel_lets_start_inside_is_looked_at_in_pages(self, store: Store) -> None:
        wide = [f"n{i}" for i in range(2 * PAGE + 200)]
        shape: dict[str, list[str]] = {"a": [], "map": ["a"], "x": [], **{n: ["x"] for n in wide}}
        plan = make_plan(
            {**shape, "all": wide},
            rules=dict.fromkeys(wide, "all_done"),
            inside=dict.fromkeys(["x", *wide, "all"], "map"),
        )
        store.submit(plan)

        store.cancel([node(plan, "x")])
        step = store.step("w", want=1)
        assert step.ready == 0

        step = store.step("w", done(step))
        assert 0 < step.ready < len(wide)
        assert run_all(store, plan) == [*wide, "all"]
        assert states_of(store, plan)["map"] == "cancelled"

    def test_who_waits_for_something_inside_is_told(self, store: Store, plan: Plan) -> None:
        store.submit(plan)
        waited: list[bool] = []
        ids = [node(plan, "never")]
        waiter = threading.Thread(
            target=lambda: waited.append(store.wait_ended(ids, timeout=20)), daemon=True
        )
        waiter.start()

        run_all(store, plan, {"a": State.FAILED})

        waiter.join(10)
        assert waited == [True]
        assert look_at(store, ids[0]).state == State.BLOCKED
        assert store.wait_ended(ids, timeout=0)

    @pytest.mark.parametrize("deep", [False, True])
    def test_many_items_end_in_pages(self, store: Store, deep: bool) -> None:
        items = [f"i{i}" for i in range(2 * PAGE + 200)]
        shape: dict[str, list[str]] = {"a": [], "map": ["a"], **{name: [] for name in items}}
        inside = dict.fromkeys(items, "map")
        if deep:
            shape |= {f"{name}.x": [] for name in items}
            inside |= {f"{name}.x": name for name in items}
        plan = make_plan({**shape, "after": ["map"]}, inside=inside, rules={"after": "all_done"})
        store.submit(plan)

        store.step("w", done(store.step("w", want=1), State.FAILED))
        blocked = len(store.nodes(plan.id, state=State.BLOCKED, limit=9_999))
        assert PAGE // 2 < blocked < len(items)  # a step walks a page or two
        assert run_all(store, plan) == ["after"]

        found = store.nodes(plan.id, state=State.BLOCKED, limit=9_999)
        assert len(found) == 1 + len(items) * (2 if deep else 1)
        assert {info.culprit for info in found} == {1}


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

    def test_one_cell_goes_whatever_its_size(self, store: Store) -> None:
        plan = make_plan({"a": [], "b": ["a"]})
        store.submit(plan)
        big = b"x" * (2 * REPLY_BYTES)
        (a,) = store.step("w", want=1).deliveries

        (b,) = store.step("w", [end(a, body=big)], want=1).deliveries

        assert b.complete
        assert read_cell(b.values[1]).body == big
