# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Expansion: a node that becomes a plan of inner nodes instead of a value."""

from __future__ import annotations

import msgspec
import pytest

from flowq.message import CULPRIT, TEMPLATE, Ref, decode_template, read_cell
from flowq.outcome import Done, Expand, Outcome
from flowq.plan import NodeRow
from flowq.states import State
from flowq.storage.base import SUBMIT_PAGE, NodeInfo, Step, Store
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    cell,
    done,
    end,
    fragment,
    look_at,
    make_plan,
    node,
    pass_time,
    run_all,
    states_of,
    task,
)

__all__ = ["TestExpand"]

S = State


def expand(step: Step, rows: list[NodeRow]) -> list[Expand]:
    """Give outcomes that expand all that a step has handed out."""
    return [Expand(d.id, d.delivery, rows) for d in step.deliveries]


class TestExpand(StoreContract):
    """`Expand`, the one outcome by which a graph grows."""

    def test_a_node_becomes_what_it_expands_to_and_passes_its_value_on(self, store: Store) -> None:
        p = make_plan({"x": [], "next": ["x"]})
        store.submit(p)

        step = store.step("w", expand(store.step("w", want=1), fragment({"i": [], "j": ["i"]})))
        assert step.verdicts == ["settled"]
        assert states_of(store, p) == {
            "root": "expanded",
            "x": "expanded",
            "next": "waiting",
            "i": "queued",
            "j": "waiting",
        }
        infos = {info.name: info for info in store.nodes(p.id)}
        assert infos["i"].owner == infos["x"].index
        assert store.check(p.id) == []
        for _ in "ij":
            step = store.step("w", done(store.step("w", want=5)))
        (last,) = store.step("w", want=5).deliveries

        kept = read_cell(last.values[1])
        assert (kept.state, kept.flags) == (S.SUCCESS, TEMPLATE)
        assert decode_template(kept.body) == Ref(infos["j"].index)
        store.step("w", [end(last)])
        assert look_at(store, p.id).state == S.SUCCESS
        assert store.check(p.id) == []

    def test_an_empty_fragment_ends_at_once(self, store: Store) -> None:
        p = make_plan({"x": [], "next": ["x"]})
        store.submit(p)

        store.step("w", expand(store.step("w", want=1), fragment({})))

        assert look_at(store, node(p, "x")).state == S.SUCCESS
        assert look_at(store, node(p, "next")).state == S.QUEUED
        assert store.check(p.id) == []

    def test_what_it_queues_goes_before_what_was_enqueued(self, store: Store) -> None:
        p = make_plan({"x": []})
        store.submit(p)
        first = store.step("w", want=1)
        other = task()
        store.enqueue([other])

        store.step("w", expand(first, fragment({"i": [], "j": []})))

        handed = [d.id for k in "abc" for d in store.step(k, want=1).deliveries]
        base = max(info.index for info in store.nodes(p.id)) - 1
        assert handed == [
            p.id + base.to_bytes(4, "big"),
            p.id + (base + 1).to_bytes(4, "big"),
            other.id,
        ]

    @pytest.mark.parametrize("state", [S.FAILED, S.SKIPPED, S.CANCELLED])
    def test_it_ends_as_what_is_inside_it(self, store: Store, state: State) -> None:
        p = make_plan({"x": [], "next": ["x"]})
        store.submit(p)
        inside = fragment({"i": [], "j": []}, value="i")
        bits = [inside[0], *(msgspec.structs.replace(r, bits=2) for r in inside[1:])]
        store.step("w", expand(store.step("w", want=1), bits))

        i, j = store.step("w", want=5).deliveries
        store.step("w", [end(i, state), end(j)])

        below = {S.FAILED: S.BLOCKED}.get(state, state)
        assert look_at(store, node(p, "x")).state == state
        assert look_at(store, node(p, "next")).state == below
        assert look_at(store, p.id).state == (S.SUCCESS if state == S.SKIPPED else state)
        if state == S.FAILED:
            kept = read_cell(store.cells(p.id, ((1, 1),))[1])
            assert (kept.flags, kept.body) == (CULPRIT, i.id[16:])
        assert store.check(p.id) == []

    def test_repeating_it_does_no_harm(self, store: Store) -> None:
        p = make_plan({"x": []})
        store.submit(p)
        outcomes = expand(store.step("w", want=1), fragment({"i": []}))

        assert store.step("w", outcomes).verdicts == ["settled"]
        assert store.step("w", outcomes).verdicts == ["repeated"]
        run_all(store, p)
        assert store.step("w", outcomes).verdicts == ["repeated"]

        info = store.run(p.id)
        assert info is not None
        assert (info.nodes, info.state) == (2, S.SUCCESS)
        assert store.check(p.id) == []

    def test_an_old_delivery_expands_nothing(self, store: Store) -> None:
        p = make_plan({"x": []})
        store.submit(p)
        late = expand(store.step("w", want=1), fragment({"old": [], "more": []}))
        store.release("w", lost=[late[0].id])
        second = store.step("v", want=1)

        assert store.step("w", late).verdicts == ["stale"]
        store.step("v", expand(second, fragment({"new": []})))
        assert store.step("w", late).verdicts == ["stale"]

        assert states_of(store, p) == {"root": "expanded", "x": "expanded", "new": "queued"}
        run_all(store, p)
        assert look_at(store, p.id).state == S.SUCCESS

    def test_what_was_cancelled_while_it_ran_expands_to_nothing(self, store: Store) -> None:
        p = make_plan({"x": []})
        store.submit(p)
        step = store.step("w", want=1)
        store.cancel([step.deliveries[0].id])

        store.step("w", expand(step, fragment({"i": []})))

        assert states_of(store, p) == {"root": "cancelled", "x": "cancelled"}
        assert store.check(p.id) == []

    def test_expansions_nest_and_survive_a_lost_worker_at_each_level(self, store: Store) -> None:
        p = make_plan({"x": [], "next": ["x"]})
        store.submit(p)
        for level in range(3):
            first = store.step("w", want=1)
            store.release("w", lost=[first.deliveries[0].id])
            second = store.step("w", want=1)
            rows = fragment({f"a{level}": [], f"b{level}": [f"a{level}"]})
            assert store.step("v", expand(first, rows)).verdicts == ["stale"]
            assert store.step("w", expand(second, rows)).verdicts == ["settled"]
            assert store.step("w", expand(second, rows)).verdicts == ["repeated"]
            assert store.check(p.id) == []

        while step := store.step("w", want=9).deliveries:
            store.step("w", [end(d) for d in step])

        assert set(states_of(store, p).values()) == {"success"}
        assert len(states_of(store, p)) == 9
        assert store.check(p.id) == []

    def test_inner_nodes_read_what_stands_outside(self, store: Store) -> None:
        p = make_plan({"up": [], "x": ["up"]})
        store.submit(p)
        store.step("w", done(store.step("w", want=1)))

        store.step("w", expand(store.step("w", want=1), fragment({"i": [], "j": []}, reads=[1])))

        step = store.step("w", want=5)
        assert [d.values for d in step.deliveries] == [{1: cell(S.SUCCESS)}] * 2

    def test_fragments_hold_expansions_joins_and_rules(self, store: Store) -> None:
        p = make_plan({"x": []})
        store.submit(p)
        rows = fragment(
            {"a": [], "in": ["a"], "deep": [], "deeper": ["deep"], "all": ["in"]},
            inside={"deep": "in", "deeper": "in"},
            rules={"all": "all_done"},
        )
        store.step("w", expand(store.step("w", want=1), rows))

        (a,) = store.step("w", want=5).deliveries
        store.step("w", [end(a, S.FAILED)])
        (last,) = store.step("w", want=5).deliveries
        store.step("w", [end(last)])

        assert states_of(store, p) == {
            "root": "failed",
            "x": "failed",
            "a": "failed",
            "in": "blocked",
            "deep": "blocked",
            "deeper": "blocked",
            "all": "success",
        }
        assert store.check(p.id) == []

    def test_two_nodes_may_expand_in_one_step_and_others_settle_beside_them(
        self, store: Store
    ) -> None:
        p = make_plan({"x": [], "y": [], "z": []})
        store.submit(p)
        x, y, z = store.step("w", want=3).deliveries
        single = task()
        store.enqueue([single])
        (one,) = store.step("w", want=1).deliveries

        step = store.step(
            "w",
            [
                end(z),
                Expand(x.id, 1, fragment({"i": []})),
                Done(one.id, 1, cell(S.SUCCESS)),
                Expand(y.id, 1, fragment({"j": [], "k": ["j"]})),
            ],
        )

        assert step.verdicts == ["settled"] * 4
        infos = store.nodes(p.id)
        assert [i.name for i in infos] == ["root", "x", "y", "z", "i", "j", "k"]
        assert [i.owner for i in infos[4:]] == [1, 2, 2]
        assert len({i.index for i in infos}) == 7
        run_all(store, p)
        assert look_at(store, p.id).state == S.SUCCESS

    def test_a_fragment_of_several_pages_takes_effect_with_its_last(self, store: Store) -> None:
        p = make_plan({"x": [], "next": ["x"]})
        store.submit(p)
        count = SUBMIT_PAGE + 100
        rows = fragment({f"n{i}": [] for i in range(count)})
        outcomes = expand(store.step("w", want=1), rows)

        assert store.step("w", outcomes).verdicts == ["settled"]
        assert store.step("w", outcomes).verdicts == ["repeated"]

        handed: list[bytes] = []
        ends: list[Outcome] = []
        while len(handed) < count:
            step = store.step("w", ends, want=1_000)
            handed += [d.id for d in step.deliveries]
            ends = done(step)
        (last,) = store.step("w", ends, want=5).deliveries
        assert last.id == node(p, "next")
        assert handed == sorted(handed)
        assert len(set(handed)) == count
        store.step("w", [end(last)])
        assert look_at(store, p.id).state == S.SUCCESS
        assert store.check(p.id) == []

    def test_a_task_alone_becomes_the_root_of_a_run(self, store: Store, clock: ManualClock) -> None:
        message = task(result_ttl_ms=3_600_000)
        store.enqueue([message])
        step = store.step("w", want=1)

        settled = store.step("w", expand(step, fragment({"i": [], "j": ["i"]})), want=5)

        assert settled.verdicts == ["settled"]
        look = look_at(store, message.id)
        assert (look.state, look.run) == (S.EXPANDED, True)
        info = store.run(message.id)
        assert info is not None
        assert (info.name, info.nodes) == ("t.add", 2)
        assert [r.id for r in store.runs()] == [message.id]
        assert store.enqueue([message]) == [False]
        assert store.message(message.id) is not None
        assert store.step("w", expand(step, fragment({"i": []}))).verdicts == ["repeated"]
        assert not store.wait_ended([message.id], timeout=0)

        store.step("w", done(settled))
        store.step("w", done(store.step("w", want=5)))

        look = look_at(store, message.id)
        assert look.state == S.SUCCESS
        assert look.cell is not None
        names = {i.index: i.name for i in store.nodes(message.id)}
        value = decode_template(read_cell(look.cell).body)
        assert isinstance(value, Ref)
        assert names[value.node] == "j"
        assert store.wait_ended([message.id], timeout=0)
        assert store.check(message.id) == []
        pass_time(store, clock, 3_601)
        store.sweep()
        assert store.look([message.id]) == [None]
        assert store.run(message.id) is None

    def test_a_task_alone_may_expand_to_nothing_or_fail_inside(self, store: Store) -> None:
        empty, bad = task(), task()
        store.enqueue([empty, bad])
        first, second = store.step("w", want=2).deliveries

        store.step(
            "w", [Expand(first.id, 1, fragment({})), Expand(second.id, 1, fragment({"i": []}))]
        )
        (i,) = store.step("w", want=5).deliveries
        store.step("w", [end(i, S.FAILED)])

        assert look_at(store, empty.id).state == S.SUCCESS
        assert look_at(store, bad.id).state == S.FAILED
        raw = look_at(store, bad.id).cell
        assert raw is not None
        kept = read_cell(raw)
        assert (kept.flags, kept.body) == (CULPRIT, i.id[16:])

    def test_one_that_was_cancelled_or_taken_expands_to_nothing_either(self, store: Store) -> None:
        stopped, taken = task(), task()
        store.enqueue([stopped, taken])
        a, b = store.step("w", want=2).deliveries
        store.cancel([stopped.id])
        store.release("w", lost=[taken.id])

        rows = fragment({"i": []})
        verdicts = store.step("w", [Expand(a.id, 1, rows), Expand(b.id, 1, rows)]).verdicts

        assert verdicts[1] == "stale"
        assert look_at(store, taken.id).state == S.QUEUED
        assert store.runs() == []

    def test_a_run_that_grew_expires_whole(self, store: Store, clock: ManualClock) -> None:
        p = make_plan({"x": []}, ttl={"result_ttl_ms": 3_600_000})
        store.submit(p)
        store.step("w", expand(store.step("w", want=1), fragment({"i": []})))
        store.step("w", done(store.step("w", want=1)))
        (*_, last) = store.nodes(p.id)

        pass_time(store, clock, 3_601)
        while store.sweep().more:
            pass

        assert store.run(p.id) is None
        assert store.nodes(p.id) == []
        assert store.look([p.id + last.index.to_bytes(4, "big")]) == [None]

    def test_what_stands_inside_can_be_cancelled(self, store: Store) -> None:
        p = make_plan({"x": []})
        store.submit(p)
        store.step("w", expand(store.step("w", want=1), fragment({"i": [], "j": ["i"]})))
        inner = [info for info in store.nodes(p.id) if info.owner == 1]

        store.cancel([p.id + i.index.to_bytes(4, "big") for i in inner])

        assert set(states_of(store, p).values()) == {"cancelled"}
        assert store.check(p.id) == []

    def test_rows_stay_in_order_whatever_grew_between(self, store: Store) -> None:
        p = make_plan({"x": [], "y": []})
        store.submit(p)
        store.submit(make_plan({"other": []}))
        x, y, _ = store.step("w", want=3).deliveries

        store.step("w", [Expand(y.id, 1, fragment({"b": []}))])
        store.enqueue([task()])
        store.step("w", [Expand(x.id, 1, fragment({"a": []}))])

        names = [i.name for i in store.nodes(p.id)]
        assert names == ["root", "x", "y", "b", "a"]
        pages = [i.name for k in range(3) for i in _page_of(store, p.id, k)]
        assert pages == names
        assert [i.name for i in store.nodes(p.id, state=S.QUEUED)] == ["b", "a"]


def _page_of(store: Store, run: bytes, page: int) -> list[NodeInfo]:
    after = -1
    found: list[NodeInfo] = []
    for _ in range(page + 1):
        found = store.nodes(run, after=after, limit=2)
        if found:
            after = found[-1].index
    return found
