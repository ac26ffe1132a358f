# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Item by item: an expansion that begins with another, and whose nodes go along with its nodes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flowq.message import (
    CULPRIT,
    NO_NODE,
    TEMPLATE,
    Message,
    Seq,
    encode_template,
    node_id,
    read_cell,
)
from flowq.outcome import Expand
from flowq.plan import INNER, Along, Bits, Kind, NodeRow, Plan, ranges_of
from flowq.states import State, trigger_rule
from flowq.storage.base import PAGE, Step, Store
from flowq.testing.contract.base import (
    StoreContract,
    done,
    end,
    fragment,
    look_at,
    make_plan,
    node,
    run_all,
    states_of,
)
from flowq.testing.contract.policies import edited

__all__ = ["TestAlong", "follower", "items_along"]

S = State


def follower(plan: Plan, name: str, of: Sequence[str]) -> Plan:
    """Let a task that is below expansions follow them."""
    names = [row.name for row in plan.rows]
    at = names.index(name)
    for one in of:
        row = plan.rows[names.index(one)]
        rest = [i for f, n in row.children for i in range(f, f + n) if i != at]
        followers = ranges_of([*(f for f, _ in row.followers), at])
        plan = edited(plan, one, children=ranges_of(rest), followers=followers)
    return edited(plan, name, follows=ranges_of(names.index(x) for x in of))


def two_maps(n: int, *, above: bool = False) -> Plan:
    """Give a plan of `n` items, a map that follows them, and what reads either."""
    shape: dict[str, list[str]] = {"x": []} if above else {}
    shape |= {"a": ["x"] if above else [], **{f"a{i}": [] for i in range(n)}}
    shape |= {"b": ["a"], "sum": ["b"], "all": ["a"]}
    plan = make_plan(shape, inside={f"a{i}": "a" for i in range(n)})
    return follower(plan, "b", ["a"])


def items_along(plan: Plan, of: Sequence[tuple[str, str]], n: int, most: int = 0) -> list[NodeRow]:
    """Give what a map becomes whose items go along: for each other map, it and its first item."""
    names = [row.name for row in plan.rows]
    firsts = [(names.index(a), names.index(first)) for a, first in of]
    rule = trigger_rule("all_success", len(firsts))
    rows = [
        NodeRow(
            f"b{i}",
            Kind.TASK,
            INNER,
            rule,
            parents=ranges_of(first + i for _, first in firsts),
            reads=ranges_of(first + i for _, first in firsts),
            message=Message(b"", "t.add", b"P", name=f"b{i}"),
        )
        for i in range(n)
    ]
    all_items = ((INNER + 1, n),) if n else ()
    face = NodeRow(
        "",
        Kind.EXPANSION,
        NO_NODE,
        trigger_rule("all_done", 0),
        entries=all_items,
        inner=n,
        value=encode_template(Seq(())),
        body=all_items,
        most=most,
        along=tuple(Along(a, first, INNER + 1, n) for a, first in firsts) if n else (),
    )
    return [face, *rows]


def names_of(store: Store, plan: Plan, step: Step) -> list[str]:
    """Give the names of what a step has handed out."""
    infos = {info.index: info.name for info in store.nodes(plan.id, limit=10_000)}
    return [infos[int.from_bytes(d.id[16:], "big")] for d in step.deliveries]


class TestAlong(StoreContract):
    """`NodeRow.follows` and `NodeRow.along`."""

    def test_it_may_run_as_soon_as_what_it_follows_is_expanded(self, store: Store) -> None:
        p = two_maps(2)

        store.submit(p)

        given = store.step("w", want=10)
        assert sorted(names_of(store, p, given)) == ["a0", "a1", "b"]
        (b,) = (d for d in given.deliveries if d.id == node(p, "b"))
        cell = read_cell(b.values[1])
        assert (cell.state, cell.flags, cell.body) == (S.EXPANDED, TEMPLATE, b"template")
        assert store.nodes(p.id, after=3, limit=1)[0].follows == ((1, 1),)

    def test_an_item_begins_when_the_one_it_goes_along_with_has_ended(self, store: Store) -> None:
        p = two_maps(2)
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=10).deliveries}
        a0, a1, b = (given[node(p, name)] for name in ("a0", "a1", "b"))
        rows = items_along(p, [("a", "a0")], 2)

        one = store.step("w", [Expand(b.id, b.delivery, rows)], want=10)
        two = store.step("w", [end(a1)], want=10)
        three = store.step("w", [end(a0), *done(two)], want=10)

        assert one.deliveries == []
        assert names_of(store, p, two) == ["b1"]
        (b1,) = two.deliveries
        assert list(b1.values) == [3]
        assert names_of(store, p, three) == ["all", "b0"]
        assert store.check(p.id) == []
        store.step("w", done(three))
        assert run_all(store, p) == ["sum"]
        assert set(states_of(store, p).values()) == {"success"}

    def test_what_has_ended_by_then_is_counted_once(self, store: Store) -> None:
        p = two_maps(3)
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=10).deliveries}
        a0, a1, a2, b = (given[node(p, name)] for name in ("a0", "a1", "a2", "b"))
        store.step("w", [end(a0), end(a2, S.SKIPPED)])
        rows = items_along(p, [("a", "a0")], 3)

        one = store.step("w", [Expand(b.id, b.delivery, rows)], want=10)
        again = store.step("w", [Expand(b.id, b.delivery, rows), end(a0)], want=10)

        assert names_of(store, p, one) == ["b0"]
        assert (again.verdicts, again.deliveries) == (["repeated", "repeated"], [])
        assert states_of(store, p)["b2"] == "skipped"
        two = store.step("w", [end(a1), *done(one)], want=10)
        assert names_of(store, p, two) == ["all", "b1"]
        store.step("w", done(two))
        assert run_all(store, p) == ["sum"]

    def test_each_end_of_an_item_means_what_it_means_to_any_child(self, store: Store) -> None:
        p = two_maps(4)
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=10).deliveries}
        b = given.pop(node(p, "b"))
        rows = items_along(p, [("a", "a0")], 4)
        store.step("w", [Expand(b.id, b.delivery, rows)])
        store.cancel([node(p, "a3")])

        ends = [S.FAILED, S.SKIPPED, S.SUCCESS, S.SUCCESS]
        states = dict(zip((f"a{i}" for i in range(4)), ends, strict=True))
        outcomes = [end(given[node(p, name)], state) for name, state in states.items()]
        after = store.step("w", outcomes, want=10)

        assert names_of(store, p, after) == ["b2"]
        there = states_of(store, p)
        assert [there[f"b{i}"] for i in range(4)] == ["blocked", "skipped", "running", "cancelled"]
        infos = {info.name: info for info in store.nodes(p.id)}
        assert infos["b0"].culprit == infos["a0"].index
        assert store.check(p.id) == []
        store.step("w", done(after))
        run_all(store, p)
        assert states_of(store, p)["b"] == "failed"

    def test_it_is_given_the_items_of_what_has_failed_since(self, store: Store) -> None:
        p = two_maps(2)
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=10).deliveries}
        b = given[node(p, "b")]
        store.step("w", [end(given[node(p, "a0")], S.FAILED), end(given[node(p, "a1")])])
        assert states_of(store, p)["a"] == "failed"

        (again,) = store.held("w")

        assert (again.id, read_cell(again.values[1]).state) == (b.id, S.EXPANDED)
        assert read_cell(again.values[1]).body == b"template"
        rows = items_along(p, [("a", "a0")], 2)
        step = store.step("w", [Expand(b.id, b.delivery, rows)], want=10)
        assert names_of(store, p, step) == ["b1"]
        assert states_of(store, p)["b0"] == "blocked"

    def test_what_never_expands_counts_as_it_ended(self, store: Store) -> None:
        for how, then in ((S.FAILED, "blocked"), (S.SKIPPED, "skipped"), (S.SUCCESS, "queued")):
            p = two_maps(1, above=True)
            store.submit(p)
            given = store.step("w", want=10)
            assert names_of(store, p, given) == ["x"]

            store.step("w", done(given, how))

            assert states_of(store, p)["b"] == then
            store.cancel([p.id])
            assert store.check(p.id) == []

    def test_a_failure_that_counts_as_a_success_does_so_where_it_is_followed(
        self, store: Store
    ) -> None:
        p = follower(make_plan({"a": [], "b": ["a"]}, bits={"a": Bits.COUNTS_AS_SUCCESS}), "b", "a")
        store.submit(p)

        step = store.step("w", done(store.step("w", want=5), S.FAILED), want=5)

        assert names_of(store, p, step) == ["b"]
        assert store.check(p.id) == []

    def test_a_task_is_followed_once_it_has_become_an_expansion(self, store: Store) -> None:
        for how in ("expands", "returns", "fails"):
            p = follower(make_plan({"a": [], "b": ["a"], "c": ["b"]}), "b", ["a"])
            store.submit(p)
            (a,) = store.step("w", want=10).deliveries
            assert a.id == node(p, "a")
            if how != "expands":
                state = S.SUCCESS if how == "returns" else S.FAILED
                store.step("w", [end(a, state)])
                assert states_of(store, p)["b"] == ("queued" if state == S.SUCCESS else "blocked")
                store.cancel([p.id])
                continue

            grown = fragment({"i": [], "j": []})
            given = store.step("w", [Expand(a.id, a.delivery, grown)], want=10)

            assert sorted(names_of(store, p, given)) == ["b", "i", "j"]
            b = next(d for d in given.deliveries if d.id == node(p, "b"))
            assert read_cell(b.values[1]).state == S.EXPANDED
            first = next(info.index for info in store.nodes(p.id) if info.name == "i")
            rows = items_along(p, [("a", "b")], 2)
            rows = [
                msgspec.structs.replace(
                    row,
                    parents=((first + k - 1, 1),) if k else (),
                    reads=((first + k - 1, 1),) if k else (),
                    along=() if k else (Along(1, first, INNER + 1, 2),),
                )
                for k, row in enumerate(rows)
            ]
            rest = [d for d in given.deliveries if d.id != b.id]
            step = store.step("w", [Expand(b.id, b.delivery, rows), *map(end, rest)], want=10)
            assert names_of(store, p, step) == ["b0", "b1"]
            store.step("w", done(step))
            assert run_all(store, p) == ["c"]

    def test_of_two_lists_an_item_waits_for_both(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"a": [], "a0": [], "a1": [], "c": [], "c0": [], "c1": []}
        inside = {"a0": "a", "a1": "a", "c0": "c", "c1": "c"}
        p = make_plan({**shape, "b": ["a", "c"]}, inside=inside)
        p = follower(p, "b", ["a", "c"])
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=10).deliveries}
        b = given[node(p, "b")]
        rows = items_along(p, [("a", "a0"), ("c", "c0")], 2)
        store.step("w", [Expand(b.id, b.delivery, rows)])

        one = store.step("w", [end(given[node(p, "a0")]), end(given[node(p, "c1")])], want=10)
        two = store.step("w", [end(given[node(p, "c0")])], want=10)
        three = store.step("w", [end(given[node(p, "a1")], S.FAILED)], want=10)

        assert (one.deliveries, names_of(store, p, two)) == ([], ["b0"])
        assert three.deliveries == []
        assert states_of(store, p)["b1"] == "blocked"
        store.step("w", done(two))
        run_all(store, p)
        assert states_of(store, p)["b"] == "failed"

    def test_a_bound_gives_its_places_to_those_that_may_run(self, store: Store) -> None:
        p = two_maps(4)
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=10).deliveries}
        b = given.pop(node(p, "b"))
        rows = items_along(p, [("a", "a0")], 4, most=1)
        store.step("w", [Expand(b.id, b.delivery, rows)])

        one = store.step("w", [end(given[node(p, f"a{i}")]) for i in (3, 2)], want=10)
        two = store.step("w", [end(given[node(p, "a1")])], want=10)
        three = store.step("w", done(one), want=10)
        four = store.step("w", [*done(three), end(given[node(p, "a0")], S.FAILED)], want=10)

        assert names_of(store, p, one) == ["b3"]  # its place was free when it came
        assert two.deliveries == []
        assert names_of(store, p, three) == ["b1"]  # the first by index of those that may
        assert names_of(store, p, four) == ["all", "b2"] or names_of(store, p, four) == ["b2"]
        assert store.check(p.id) == []
        store.step("w", done(four))
        run_all(store, p)
        assert states_of(store, p)["b0"] == "blocked"

    def test_an_item_with_nodes_in_it_goes_along_too(self, store: Store) -> None:
        p = two_maps(1)
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=10).deliveries}
        b = given[node(p, "b")]
        face, item = items_along(p, [("a", "a0")], 1)
        inside = msgspec.structs.replace(
            item, name="b0/x", owner=INNER + 1, parents=(), rule=trigger_rule("all_done", 0)
        )
        item = msgspec.structs.replace(
            item,
            kind=Kind.EXPANSION,
            message=None,
            reads=(),
            entries=((INNER + 2, 1),),
            body=((INNER + 2, 1),),
            inner=1,
            value=encode_template(Seq(())),
        )

        one = store.step("w", [Expand(b.id, b.delivery, [face, item, inside])], want=10)
        two = store.step("w", [end(given[node(p, "a0")])], want=10)

        assert one.deliveries == []
        assert sorted(names_of(store, p, two)) == ["all", "b0/x"]
        x = next(d for d in two.deliveries if d.id != node(p, "all"))
        assert list(x.values) == [2]

    def test_a_cancel_of_either_leaves_nothing_behind(self, store: Store) -> None:
        for which in ("a", "b"):
            p = two_maps(3)
            store.submit(p)
            given = {d.id: d for d in store.step("w", want=10).deliveries}
            b = given.pop(node(p, "b"))
            rows = items_along(p, [("a", "a0")], 3)
            store.step("w", [Expand(b.id, b.delivery, rows)])

            store.cancel([node(p, which)])
            store.step("w", [end(d) for d in given.values()])
            run_all(store, p)

            states = states_of(store, p)
            assert [states[f"b{i}"] for i in range(3)] == ["cancelled"] * 3
            assert states[which] == "cancelled"
            assert State[states["root"].upper()].final

    def test_many_items_go_along_page_by_page(self, store: Store) -> None:
        n = 2 * PAGE + 20
        p = two_maps(n)
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=1_000).deliveries}
        given |= {d.id: d for d in store.step("w", want=1_000).deliveries}
        b = given.pop(node(p, "b"))
        early = list(given.values())[: n // 2]
        late = list(given.values())[n // 2 :]
        store.step("w", [end(d) for d in early])

        rows = items_along(p, [("a", "a0")], n)
        step = store.step("w", [Expand(b.id, b.delivery, rows)], want=100)
        # more end while pages are left
        began = [d.id for d in step.deliveries]
        outcomes = [*done(step), *(end(d, S.FAILED) for d in late[:5]), *map(end, late[5:])]
        while True:
            step = store.step("w", outcomes, want=1_000)
            began += [d.id for d in step.deliveries]
            outcomes = done(step)
            if not outcomes and not step.ready and not store.sweep().continued:
                break

        assert len(began) == len(set(began))
        states = states_of(store, p)
        lost = sorted(f"b{p.rows[int.from_bytes(d.id[16:], 'big')].name[1:]}" for d in late[:5])
        assert sorted(k for k, v in states.items() if k != "b" and v == "blocked" and k[0] == "b")[
            :5
        ] == sorted(lost)
        assert states["b"] == "failed"
        assert store.check(p.id) == []

    def test_an_item_and_what_goes_along_with_it_run_again_alone(self, store: Store) -> None:
        p = two_maps(3)
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=10).deliveries}
        b = given.pop(node(p, "b"))
        rows = items_along(p, [("a", "a0")], 3)
        store.step("w", [Expand(b.id, b.delivery, rows)])
        bad = node(p, "a1")
        store.step("w", [end(d, S.FAILED if d.id == bad else S.SUCCESS) for d in given.values()])
        run_all(store, p)
        infos = {info.name: info for info in store.nodes(p.id)}
        assert infos["b1"].state == S.BLOCKED
        chosen = ranges_of(infos[name].index for name in ("a1", "b1", "sum", "all"))
        opened = ranges_of(infos[name].index for name in ("a", "b"))

        assert store.rewind(p.id, 1, chosen=chosen, reopened=opened)

        first = store.step("w", want=10)
        assert names_of(store, p, first) == ["a1"]
        second = store.step("w", done(first), want=10)
        assert sorted(names_of(store, p, second)) == ["all", "b1"]
        store.step("w", done(second))
        assert run_all(store, p) == ["sum"]
        assert set(states_of(store, p).values()) == {"success"}

    def test_what_was_dropped_goes_along_no_more(self, store: Store) -> None:
        p = two_maps(2)
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=10).deliveries}
        b = given.pop(node(p, "b"))
        rows = items_along(p, [("a", "a0")], 2)
        store.step("w", [Expand(b.id, b.delivery, rows), *map(end, given.values())])
        run_all(store, p)
        infos = {info.name: info for info in store.nodes(p.id)}
        chosen = ranges_of(infos[name].index for name in ("a", "a0", "a1", "b", "sum", "all"))
        dropped = ranges_of(infos[name].index for name in ("b0", "b1"))

        assert store.rewind(p.id, 1, chosen=chosen, dropped=dropped)

        given = {d.id: d for d in store.step("w", want=10).deliveries}
        assert sorted(given) == sorted(node(p, name) for name in ("a0", "a1", "b"))
        b = given.pop(node(p, "b"))
        store.step("w", [end(given[node(p, "a0")])])
        step = store.step("w", [Expand(b.id, b.delivery, rows)], want=10)
        assert names_of(store, p, step) == ["b0"]
        step = store.step("w", [*done(step), end(given[node(p, "a1")])], want=10)
        assert sorted(names_of(store, p, step)) == ["all", "b1"]
        store.step("w", done(step))
        assert run_all(store, p) == ["sum"]

    def test_a_follower_alone_runs_again_beside_what_stays(self, store: Store) -> None:
        p = two_maps(2)
        store.submit(p)
        given = {d.id: d for d in store.step("w", want=10).deliveries}
        b = given.pop(node(p, "b"))
        rows = items_along(p, [("a", "a0")], 2)
        bad = node(p, "a1")
        store.step("w", [end(d, S.FAILED if d.id == bad else S.SUCCESS) for d in given.values()])
        store.step("w", [Expand(b.id, b.delivery, rows)])
        run_all(store, p)
        infos = {info.name: info for info in store.nodes(p.id)}
        chosen = ranges_of(infos[name].index for name in ("b", "sum"))
        dropped = ranges_of(infos[name].index for name in ("b0", "b1"))

        assert store.rewind(p.id, 1, chosen=chosen, dropped=dropped)

        (b,) = store.step("w", want=10).deliveries
        assert b.id == node(p, "b")
        step = store.step("w", [Expand(b.id, b.delivery, rows)], want=10)
        assert names_of(store, p, step) == ["b0"]
        store.step("w", done(step))
        run_all(store, p)
        assert states_of(store, p)["b1"] == "blocked"
        cell = look_at(store, node_id(p.id, _index(store, p, "b1"))).cell
        assert cell is not None
        assert read_cell(cell).flags == CULPRIT
        assert int.from_bytes(read_cell(cell).body[:4], "big") == _index(store, p, "a1")


def _index(store: Store, plan: Plan, name: str) -> int:
    return next(i.index for i in store.nodes(plan.id) if i.name == name and not i.state < S.SUCCESS)
