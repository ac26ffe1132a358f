# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Failure policies, phases and cancels: what ends an expansion, and what runs after its body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from flowq.message import CULPRIT, NO_NODE, TEMPLATE, Message, Ref, encode_template, read_cell
from flowq.outcome import Expand, Outcome, RetryAt
from flowq.plan import INNER, Bits, Kind, Later, NodeRow, Phase, Plan, When, ranges_of, relocate
from flowq.states import Rule, State
from flowq.storage.base import PAGE, Store
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    done,
    end,
    fragment,
    inner_ranges,
    look_at,
    make_plan,
    node,
    run_all,
    states_of,
    task,
)

__all__ = [
    "HANDLERS",
    "TestCancelInwards",
    "TestPhases",
    "TestPolicies",
    "edited",
    "with_later",
]

S = State


def edited(plan: Plan, name: str, **more: Any) -> Plan:
    """Give a plan with fields of one row changed."""
    rows = [msgspec.structs.replace(r, **more) if r.name == name else r for r in plan.rows]
    return msgspec.structs.replace(plan, rows=rows)


def lenient(plan: Plan, parent: str, child: str) -> Plan:
    """Make an edge count any end as a success."""
    at = [r.name for r in plan.rows].index(child)
    row = next(r for r in plan.rows if r.name == parent)
    rest = ranges_of(i for f, n in row.children for i in range(f, f + n) if i != at)
    return edited(plan, parent, children=rest, lenient=((at, 1),))


def with_later(
    plan: Plan, owner: str, groups: Sequence[tuple[Phase, When, Mapping[str, Sequence[str]]]]
) -> Plan:
    """Add groups that run after the body of an expansion, or after a task."""
    rows = list(plan.rows)
    names = [r.name for r in rows]
    at = names.index(owner)
    later, body = [], [i for f, n in rows[at].body for i in range(f, f + n)]
    for phase, when, shape in groups:
        first = len(rows)
        place = {n: first + k for k, n in enumerate(shape)} | {n: i for i, n in enumerate(names)}
        for name, parents in shape.items():
            rows.append(
                NodeRow(
                    name,
                    Kind.TASK,
                    at,
                    # what comes of a node of the body is an alarm: one_failed
                    (0, 1, 0, 2**32 - 1, 2**32 - 1)  # type: ignore[arg-type]
                    if any(p in names for p in parents)
                    else (len(parents), 0, len(parents), 0, 0),
                    ranges_of(place[p] for p in parents),
                    message=Message(b"", "t.add", b"P", name=name),
                    bits=Bits.FORGIVEN if phase != Phase.FALLBACK else 0,
                    phase=phase,
                )
            )
            for p in parents:
                row = rows[place[p]]
                children = [i for f, n in row.children for i in range(f, f + n)]
                children.append(place[name])
                rows[place[p]] = msgspec.structs.replace(row, children=ranges_of(children))
        entries = ranges_of(place[n] for n, parents in shape.items() if not parents)
        inside = ranges_of(place[n] for n in shape)
        value = encode_template(Ref(len(rows) - 1)) if phase == Phase.FALLBACK else b""
        later.append(Later(phase, when, entries, inside, len(shape), value))
        body += [place[n] for n in shape]
    rows[at] = msgspec.structs.replace(
        rows[at], later=(*rows[at].later, *later), body=ranges_of(body)
    )
    fixed = [msgspec.structs.replace(r, rule=type(plan.rows[0].rule)(*r.rule)) for r in rows]
    return msgspec.structs.replace(plan, rows=fixed)


Groups = list[tuple[Phase, When, dict[str, list[str]]]]
HANDLERS: Groups = [
    (Phase.HANDLERS, When.SUCCESS, {"good": []}),
    (Phase.HANDLERS, When.FAILED, {"bad": []}),
    (Phase.FINALLY, When.ALWAYS, {"clean": [], "up": ["clean"]}),
]


def with_groups(rows: list[NodeRow], groups: Groups) -> list[NodeRow]:
    """Add groups to row 0 of a fragment."""
    plan = Plan(bytes(16), "", relocate(rows, at=0, base=1))
    face, *added = with_later(plan, rows[0].name, groups).rows
    later = tuple(
        Later(x.phase, x.when, inner_ranges(x.entries), inner_ranges(x.body), x.inner)
        for x in face.later
    )
    made = [msgspec.structs.replace(rows[0], body=inner_ranges(face.body), later=later)]
    for row in added:
        moved = {f: inner_ranges(getattr(row, f)) for f in ("parents", "children", "reads")}
        made.append(msgspec.structs.replace(row, owner=INNER + row.owner, **moved))
    return made


class TestPolicies(StoreContract):
    """Failures that count as something else, or stop what is around them."""

    def test_a_failure_that_counts_as_success_lets_go_on_and_stays_marked(
        self, store: Store
    ) -> None:
        p = make_plan({"a": [], "b": ["a"], "alarm": ["a"]}, rules={"alarm": "one_failed"})
        p = edited(p, "a", bits=int(Bits.COUNTS_AS_SUCCESS))
        store.submit(p)

        assert run_all(store, p, {"a": S.FAILED}) == ["a", "b"]

        assert states_of(store, p) == {
            "root": "success",
            "a": "failed",
            "b": "success",
            "alarm": "skipped",
        }

    def test_only_its_own_failure_counts_as_success(self, store: Store) -> None:
        p = make_plan({"x": [], "a": ["x"], "b": ["a"]})
        store.submit(edited(p, "a", bits=int(Bits.COUNTS_AS_SUCCESS)))

        run_all(store, p, {"x": S.FAILED})

        assert states_of(store, p) == {
            "root": "failed",
            "x": "failed",
            "a": "blocked",
            "b": "blocked",
        }

    @pytest.mark.parametrize("state", [S.SUCCESS, S.FAILED, S.SKIPPED, S.CANCELLED])
    def test_any_end_counts_as_success_along_a_lenient_edge(
        self, store: Store, state: State
    ) -> None:
        p = lenient(make_plan({"a": [], "b": ["a"], "c": ["a"]}), "a", "b")
        p = edited(p, "a", bits=int(Bits.FORGIVEN))
        store.submit(p)

        run_all(store, p, {"a": state})

        c = {S.FAILED: "blocked"}.get(state, state.label)
        assert {**states_of(store, p), "root": ""} == {
            "root": "",
            "a": state.label,
            "b": "success",
            "c": c,
        }

    def test_so_many_failures_are_tolerated_and_no_more(self, store: Store) -> None:
        names: dict[str, list[str]] = {"map": [], **{f"i{k}": [] for k in range(4)}}
        p = make_plan(names, inside={f"i{k}": "map" for k in range(4)})
        p = edited(p, "map", tolerate=2)
        other = msgspec.structs.replace(p, id=bytes(16))
        store.submit(p)
        run_all(store, p, {"i0": S.FAILED, "i2": S.FAILED})
        store.submit(other)
        run_all(store, other, {"i0": S.FAILED, "i2": S.FAILED, "i3": S.FAILED})

        assert states_of(store, p)["map"] == "success"
        assert states_of(store, other)["map"] == "failed"

    @pytest.mark.parametrize(("failures", "state"), [(1, "success"), (2, "failed")])
    def test_what_a_task_becomes_says_how_many_failures_it_tolerates(
        self, store: Store, failures: int, state: str
    ) -> None:
        p = make_plan({"a": []})
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        face, *items = fragment({"i0": [], "i1": [], "i2": []})
        face = msgspec.structs.replace(face, tolerate=1)
        store.step("w", [Expand(a.id, 1, [face, *items])])

        run_all(store, p, {f"i{k}": S.FAILED for k in range(failures)})

        assert states_of(store, p)["a"] == state

    def test_a_failure_that_stops_ends_all_else_before_a_rule_looks_at_it(
        self, store: Store
    ) -> None:
        p = make_plan(
            {
                "bad": [],
                "runs": [],
                "later": [],
                "alarm": ["bad"],
                "all": ["bad", "runs"],
                "m": [],
                "in": [],
                "deep": ["in"],
            },
            rules={"alarm": "one_failed", "all": "all_done"},
            inside={"in": "m", "deep": "m"},
            messages={"later": {"delay_ms": 60_000}},
        )
        p = edited(p, "bad", bits=int(Bits.STOPS))
        store.submit(p)
        held = {d.id: d for d in store.step("w", want=9).deliveries}
        bad, runs, inner = (held[node(p, n)] for n in ("bad", "runs", "in"))

        step = store.step("w", [end(bad, S.FAILED)], want=9)

        assert step.deliveries == []
        assert sorted(step.stops) == sorted([runs.id, inner.id])
        store.step("w", [end(runs), RetryAt(inner.id, 1, 0)])
        assert states_of(store, p) == {
            "root": "failed",
            "bad": "failed",
            "runs": "cancelled",
            "later": "cancelled",
            "alarm": "cancelled",
            "all": "cancelled",
            "m": "cancelled",
            "in": "cancelled",
            "deep": "cancelled",
        }
        root = look_at(store, p.id).cell
        assert root is not None
        assert read_cell(root).body == (1).to_bytes(4, "big")
        assert store.check(p.id) == []

    def test_a_failure_that_is_forgiven_stops_nothing(self, store: Store) -> None:
        p = make_plan({"bad": [], "b": []})
        store.submit(edited(p, "bad", bits=int(Bits.STOPS | Bits.FORGIVEN)))

        run_all(store, p, {"bad": S.FAILED})

        assert states_of(store, p) == {"root": "success", "bad": "failed", "b": "success"}

    def test_a_wide_body_is_stopped_in_pages(self, store: Store) -> None:
        width = 3 * PAGE
        p = make_plan({"bad": [], **{f"n{i}": ["bad"] for i in range(width)}})
        store.submit(edited(p, "bad", bits=int(Bits.STOPS)))

        store.step("w", done(store.step("w", want=1), S.FAILED))
        while store.sweep().continued:
            pass

        found = states_of(store, p)
        assert found.pop("root") == "failed"
        assert found.pop("bad") == "failed"
        assert set(found.values()) == {"cancelled"}
        assert store.check(p.id) == []

    def test_nothing_of_a_wide_body_that_is_stopped_is_handed_out_any_more(
        self, store: Store
    ) -> None:
        width = PAGE
        shape: dict[str, list[str]] = {"bad": [], "m": [], "o": []}
        shape |= {f"n{i}": [] for i in range(width)} | {f"p{i}": [] for i in range(width)}
        shape |= {f"q{i}": [] for i in range(width)}
        inside = {f"n{i}": "m" for i in range(width)} | {f"p{i}": "o" for i in range(width)}
        p = make_plan(shape, inside=inside, messages={"bad": {"priority": 1}})
        store.submit(edited(p, "bad", bits=int(Bits.STOPS)))
        while store.sweep().continued:
            pass
        first = store.step("w", want=1)
        assert [d.id for d in first.deliveries] == [node(p, "bad")]

        step = store.step("w", done(first, S.FAILED), want=9)
        given = list(step.deliveries)
        while step.next_ms == 0:
            step = store.step("w", want=9)
            given += step.deliveries

        assert given == []
        found = states_of(store, p)
        assert (found.pop("root"), found.pop("bad")) == ("failed", "failed")
        assert set(found.values()) == {"cancelled"}
        assert store.check(p.id) == []


class TestPhases(StoreContract):
    """Handlers, what runs finally, and fallbacks."""

    @pytest.mark.parametrize("inner", [False, True])
    @pytest.mark.parametrize("state", [S.SUCCESS, S.FAILED, S.SKIPPED])
    def test_handlers_run_for_the_outcome_and_what_is_finally_after_them(
        self, store: Store, state: State, inner: bool
    ) -> None:
        shape: dict[str, list[str]] = {"x": [], "a": [], "next": ["x"]} if inner else {"a": []}
        p = make_plan(shape, inside={"a": "x"} if inner else {}, bits={"a": Bits.NAMED})
        owner = "x" if inner else "root"
        p = with_later(p, owner, HANDLERS)
        store.submit(p)

        order = run_all(store, p, {"a": state})

        expected = {S.SUCCESS: ["good"], S.FAILED: ["bad"]}.get(state, [])
        after = ["next"] if inner and state == S.SUCCESS else []
        assert order == ["a", *expected, "clean", "up", *after]
        found = states_of(store, p)
        assert found[owner] == state.label
        assert found["good"] == ("success" if state == S.SUCCESS else "skipped")
        assert found["bad"] == ("success" if state == S.FAILED else "skipped")

    def test_a_handlers_own_failure_changes_nothing(self, store: Store) -> None:
        p = with_later(make_plan({"a": []}), "root", HANDLERS)
        store.submit(p)

        order = run_all(store, p, {"good": S.FAILED, "clean": S.FAILED})

        assert order == ["a", "good", "clean"]
        assert states_of(store, p) == {
            "root": "success",
            "a": "success",
            "good": "failed",
            "bad": "skipped",
            "clean": "failed",
            "up": "blocked",
        }

    def test_an_alarm_starts_at_once_and_the_outcome_does_not_wait_for_it(
        self, store: Store
    ) -> None:
        p = make_plan({"a": [], "b": []})
        p = with_later(
            p,
            "root",
            [
                (Phase.HANDLERS, When.ALWAYS, {"alarm": ["a"]}),
                (Phase.HANDLERS, When.FAILED, {"bad": []}),
                (Phase.FINALLY, When.ALWAYS, {"clean": []}),
            ],
        )
        store.submit(p)
        a, b = store.step("w", want=2).deliveries

        (alarm,) = store.step("w", [end(a, S.FAILED)], want=5).deliveries
        assert alarm.id == node(p, "alarm")
        assert store.step("w", [end(b)], want=5).deliveries == []
        (bad,) = store.step("w", [end(alarm)], want=5).deliveries
        assert bad.id == node(p, "bad")
        (clean,) = store.step("w", [end(bad)], want=5).deliveries
        store.step("w", [end(clean)])

        assert states_of(store, p)["root"] == "failed"
        assert store.check(p.id) == []

    def test_an_alarm_sees_a_failure_that_counts_as_success(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        p = with_later(p, "root", [(Phase.HANDLERS, When.ALWAYS, {"alarm": ["a"]})])
        store.submit(edited(p, "a", bits=int(Bits.COUNTS_AS_SUCCESS)))
        (a,) = store.step("w", want=5).deliveries

        started = store.step("w", [end(a, S.FAILED)], want=5).deliveries
        store.step("w", [end(d) for d in started])

        assert {d.id for d in started} == {node(p, "alarm"), node(p, "b")}
        assert states_of(store, p)["root"] == "success"
        assert store.check(p.id) == []

    def test_what_follows_a_failed_expansion_reads_its_failure(self, store: Store) -> None:
        groups: Groups = [
            (Phase.HANDLERS, When.FAILED, {"bad": []}),
            (Phase.FALLBACK, When.FAILED, {"f": []}),
        ]
        p = make_plan({"x": [], "a": []}, inside={"a": "x"})
        p = with_later(p, "x", groups)
        for name in ("bad", "f"):
            p = edited(p, name, reads=((1, 1),))
        store.submit(p)
        (a,) = store.step("w", want=5).deliveries

        (bad,) = store.step("w", [end(a, S.FAILED)], want=5).deliveries
        (f,) = store.step("w", [end(bad)], want=5).deliveries

        for d in (bad, f):
            kept = read_cell(d.values[1])
            assert (kept.state, kept.flags) == (S.FAILED, CULPRIT)
            assert node(p, "a") == p.id + kept.body[:4]
        assert states_of(store, p)["x"] == "expanded"

    def test_an_alarm_that_ended_before_the_body_is_waited_for_no_more(self, store: Store) -> None:
        groups: Groups = [
            (Phase.HANDLERS, When.ALWAYS, {"alarm": ["a"]}),
            (Phase.FINALLY, When.ALWAYS, {"clean": []}),
        ]
        p = with_later(make_plan({"a": [], "b": ["a"]}), "root", groups)
        store.submit(p)

        assert run_all(store, p, {}) == ["a", "b", "clean"]

        assert states_of(store, p)["alarm"] == "skipped"
        assert states_of(store, p)["root"] == "success"

    def test_what_ends_before_its_turn_is_missed_in_its_turn_alone(self, store: Store) -> None:
        groups: Groups = [
            (Phase.HANDLERS, When.ALWAYS, {"alarm": ["a"]}),
            (Phase.HANDLERS, When.SUCCESS, {"good": [], "more": ["good"]}),
            (Phase.FINALLY, When.ALWAYS, {"clean": [], "up": []}),
        ]
        p = with_later(make_plan({"a": [], "b": []}), "root", groups)
        store.submit(p)

        store.cancel([node(p, "more"), node(p, "up")])

        assert run_all(store, p) == ["a", "b", "good", "clean"]
        assert states_of(store, p) == {
            "root": "success",
            "a": "success",
            "b": "success",
            "alarm": "skipped",
            "good": "success",
            "more": "cancelled",
            "clean": "success",
            "up": "cancelled",
        }

    def test_nothing_but_an_alarm_starts_before_its_turn(self, store: Store) -> None:
        groups: Groups = [(Phase.FINALLY, When.ALWAYS, {"clean": [], "up": ["clean"]})]
        p = with_later(make_plan({"a": []}), "root", groups)
        p = edited(p, "up", rule=Rule(0, 0, 1, 2**32 - 1, 2**32 - 1))
        store.submit(p)
        (a,) = store.step("w", want=5).deliveries

        store.cancel([node(p, "clean")])

        assert store.step("w", want=5).deliveries == []
        (up,) = store.step("w", [end(a)], want=5).deliveries
        assert up.id == node(p, "up")
        store.step("w", [end(up)])
        assert states_of(store, p)["root"] == "success"
        assert store.check(p.id) == []

    def test_a_fallback_that_was_cancelled_before_its_turn_was_cancelled(
        self, store: Store
    ) -> None:
        p = make_plan({"a": [], "next": ["a"]})
        p = with_later(p, "a", [(Phase.FALLBACK, When.FAILED, {"f": []})])
        store.submit(p)
        store.cancel([node(p, "f")])

        assert run_all(store, p, {"a": S.FAILED}) == ["a"]

        found = states_of(store, p)
        assert (found["a"], found["next"], found["root"]) == ("cancelled",) * 3

    def test_a_fallback_takes_the_place_of_a_failed_expansion(self, store: Store) -> None:
        p = make_plan({"x": [], "a": [], "next": ["x"]}, inside={"a": "x"})
        p = with_later(p, "x", [*HANDLERS, (Phase.FALLBACK, When.FAILED, {"f": []})])
        store.submit(p)

        order = run_all(store, p, {"a": S.FAILED})

        assert order == ["a", "bad", "clean", "up", "f", "next"]
        assert states_of(store, p)["x"] == "success"
        kept = read_cell(store.cells(p.id, ((1, 1),))[1])
        assert kept.flags == TEMPLATE
        assert kept.body == encode_template(Ref(len(p.rows) - 1))

    def test_a_fallback_that_fails_is_to_blame(self, store: Store) -> None:
        p = make_plan({"x": [], "a": [], "next": ["x"]}, inside={"a": "x"})
        p = with_later(p, "x", [(Phase.FALLBACK, When.FAILED, {"f": []})])
        store.submit(p)

        run_all(store, p, {"a": S.FAILED, "f": S.FAILED})

        assert states_of(store, p)["x"] == "failed"
        kept = read_cell(store.cells(p.id, ((1, 1),))[1])
        assert (kept.flags, kept.body) == (CULPRIT, (len(p.rows) - 1).to_bytes(4, "big"))

    def test_a_task_falls_back_after_its_last_attempt_and_who_reads_it_gets_the_failure(
        self, store: Store
    ) -> None:
        p = make_plan({"a": [], "next": ["a"]})
        p = with_later(p, "a", [(Phase.FALLBACK, When.FAILED, {"f": []})])
        p = edited(p, "f", reads=((1, 1),))
        store.submit(p)
        (a,) = store.step("w", want=5).deliveries

        (f,) = store.step("w", [end(a, S.FAILED, b"why")], want=5).deliveries
        assert f.id == node(p, "f")
        assert read_cell(f.values[1]).body == b"why"
        assert states_of(store, p)["a"] == "expanded"
        assert store.step("w", [end(a, S.FAILED)]).verdicts == ["repeated"]
        (following,) = store.step("w", [end(f)], want=5).deliveries

        assert following.id == node(p, "next")
        assert states_of(store, p)["a"] == "success"
        store.step("w", [end(following)])
        assert look_at(store, p.id).state == S.SUCCESS
        assert store.check(p.id) == []

    @pytest.mark.parametrize("how", ["lost", "expired", "dead"])
    def test_a_task_falls_back_whatever_let_it_fail(
        self, store: Store, clock: ManualClock, how: str
    ) -> None:
        more: dict[str, Any] = {"max_losses": 1} if how == "lost" else {}
        if how == "expired":
            more["expires_in_ms"] = 1_000
        p = make_plan({"a": []}, messages={"a": more})
        p = with_later(p, "a", [(Phase.FALLBACK, When.FAILED, {"f": []})])
        store.submit(p)
        if how == "expired":
            clock.advance(1)
            store.sweep()
        else:
            (a,) = store.step("w", want=5).deliveries
            if how == "lost":
                store.release("w", lost=[a.id])
            else:
                failed = msgspec.structs.replace(end(a, S.FAILED), dead="why")
                store.step("w", [failed])

        assert run_all(store, p) == ["f"]
        assert states_of(store, p) == {"root": "success", "a": "success", "f": "success"}

    @pytest.mark.parametrize("state", [S.SUCCESS, S.SKIPPED, S.CANCELLED])
    def test_a_task_that_does_not_fail_needs_no_fallback(self, store: Store, state: State) -> None:
        p = make_plan({"up": [], "a": ["up"], "next": ["a"]}, rules={"next": "all_done"})
        p = with_later(p, "a", [(Phase.FALLBACK, When.FAILED, {"f": []})])
        store.submit(p)

        assert run_all(store, p, {"a": state}) == ["up", "a", "next"]

        assert states_of(store, p)["f"] == "skipped"
        assert store.check(p.id) == []

    def test_a_task_that_cannot_run_takes_its_fallback_with_it(self, store: Store) -> None:
        p = make_plan({"up": [], "a": ["up"]})
        p = with_later(p, "a", [(Phase.FALLBACK, When.FAILED, {"f": []})])
        store.submit(p)

        run_all(store, p, {"up": S.FAILED})

        found = states_of(store, p)
        assert (found["a"], found["f"], found["root"]) == ("blocked", "blocked", "failed")

    def test_what_a_task_becomes_may_fall_back_too(self, store: Store) -> None:
        p = make_plan({"a": [], "next": ["a"]})
        p = with_later(p, "a", [(Phase.FALLBACK, When.FAILED, {"f": []})])
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        store.step("w", [Expand(a.id, 1, fragment({"i": []}))])

        order = run_all(store, p, {"i": S.FAILED})

        assert order == ["i", "f", "next"]
        assert states_of(store, p)["a"] == "success"

    def test_what_a_task_becomes_has_groups_of_its_own_before_the_tasks(self, store: Store) -> None:
        p = make_plan({"a": [], "next": ["a"]})
        p = with_later(p, "a", [(Phase.FALLBACK, When.FAILED, {"f": []})])
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        store.step("w", [Expand(a.id, 1, with_groups(fragment({"i": []}), HANDLERS))])

        order = run_all(store, p, {"i": S.FAILED})

        assert order == ["i", "bad", "clean", "up", "f", "next"]
        found = states_of(store, p)
        assert (found["a"], found["good"], found["f"]) == ("success", "skipped", "success")
        assert store.check(p.id) == []

    def test_a_cancel_stops_the_fallback_of_what_a_task_became(self, store: Store) -> None:
        p = make_plan({"a": []})
        p = with_later(p, "a", [(Phase.FALLBACK, When.FAILED, {"f": [], "g": ["f"]})])
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        (i,) = store.step("w", [Expand(a.id, 1, fragment({"i": []}))], want=1).deliveries
        (f,) = store.step("w", [end(i, S.FAILED)], want=1).deliveries

        store.cancel([node(p, "a")])
        step = store.step("w", [end(f)], want=1)

        assert step.deliveries == []
        found = states_of(store, p)
        assert (found["a"], found["f"], found["g"]) == ("failed", "cancelled", "cancelled")


class TestCancelInwards(StoreContract):
    """Cancelling a run, or an expansion, that has begun."""

    @pytest.mark.parametrize("by", ["run", "root", "expansion"])
    def test_nothing_new_starts_and_what_runs_is_told(self, store: Store, by: str) -> None:
        p = make_plan(
            {"x": [], "a": [], "b": [], "c": ["a"], "all": ["a", "b"], "after": ["x"]},
            inside={"a": "x", "b": "x", "c": "x", "all": "x"},
            rules={"all": "all_done"},
        )
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        id = {"run": p.id, "root": p.id + bytes(4), "expansion": node(p, "x")}[by]

        assert store.cancel([id]) == [S.EXPANDED]

        step = store.step("w", want=9)
        assert (step.deliveries, step.stops) == ([], [a.id])
        assert states_of(store, p)["a"] == "running"
        store.step("w", [end(a)])
        found = states_of(store, p)
        assert {found[n] for n in ("x", "a", "b", "c", "all", "after", "root")} == {"cancelled"}
        assert store.cancel([id]) == [S.CANCELLED]
        assert store.check(p.id) == []

    def test_a_task_that_became_a_run_is_cancelled_by_its_id(self, store: Store) -> None:
        message = task()
        store.enqueue([message])
        step = store.step("w", want=1)
        store.step("w", [Expand(d.id, 1, fragment({"i": []})) for d in step.deliveries])

        assert store.cancel([message.id]) == [S.CANCELLED]

        assert {n.state for n in store.nodes(message.id)} == {S.CANCELLED}

    def test_what_is_finally_runs_and_handlers_do_not(self, store: Store) -> None:
        p = with_later(make_plan({"a": [], "b": ["a"]}), "root", HANDLERS)
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries

        store.cancel([p.id])
        (clean,) = store.step("w", [end(a)], want=5).deliveries
        assert clean.id == node(p, "clean")
        assert store.cancel([p.id]) == [S.EXPANDED]
        (up,) = store.step("w", [end(clean)], want=5).deliveries
        store.step("w", [end(up)])

        assert states_of(store, p) == {
            "root": "cancelled",
            "a": "cancelled",
            "b": "cancelled",
            "good": "skipped",
            "bad": "skipped",
            "clean": "success",
            "up": "success",
        }

    def test_a_forced_cancel_ends_what_is_finally_too(self, store: Store) -> None:
        p = with_later(make_plan({"a": []}), "root", HANDLERS)
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        store.cancel([p.id])
        (clean,) = store.step("w", [end(a)], want=5).deliveries

        store.cancel([p.id], force=True)
        store.step("w", [end(clean)], want=5)

        found = states_of(store, p)
        assert (found["clean"], found["up"], found["root"]) == ("cancelled",) * 3

    def test_forced_from_the_start_nothing_runs_any_more(self, store: Store) -> None:
        p = with_later(make_plan({"a": []}), "root", HANDLERS)
        store.submit(p)

        assert store.cancel([p.id], force=True) == [S.CANCELLED]

        found = states_of(store, p)
        assert (found["a"], found["clean"], found["up"]) == ("cancelled", "skipped", "skipped")
        assert store.step("w", want=5).deliveries == []

    @pytest.mark.parametrize("state", [S.SUCCESS, S.FAILED])
    def test_once_the_outcome_is_fixed_it_stands(self, store: Store, state: State) -> None:
        groups: Groups = [*HANDLERS, (Phase.FALLBACK, When.FAILED, {"f": []})]
        p = with_later(make_plan({"a": []}), "root", groups)
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        (handler,) = store.step("w", [end(a, state)], want=5).deliveries

        store.cancel([p.id])
        (clean,) = store.step("w", [end(handler)], want=5).deliveries
        (up,) = store.step("w", [end(clean)], want=5).deliveries
        store.step("w", [end(up)])

        found = states_of(store, p)
        assert found["root"] == state.label
        assert found["f"] == "skipped"
        assert found["good" if state == S.SUCCESS else "bad"] == "cancelled"
        assert store.check(p.id) == []

    def test_a_cancel_in_a_turn_waits_for_what_runs_in_it(self, store: Store) -> None:
        p = with_later(make_plan({"a": []}), "root", HANDLERS)
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        (good,) = store.step("w", [end(a)], want=5).deliveries

        store.cancel([p.id])

        assert store.step("w", want=5).deliveries == []
        (clean,) = store.step("w", [end(good)], want=5).deliveries
        assert clean.id == node(p, "clean")
        assert states_of(store, p)["bad"] == "skipped"
        assert store.check(p.id) == []

    def test_an_alarm_that_is_not_wanted_any_more_is_stopped_and_waited_for(
        self, store: Store
    ) -> None:
        groups: Groups = [
            (Phase.HANDLERS, When.FAILED, {"bad": []}),
            (Phase.HANDLERS, When.ALWAYS, {"alarm": ["a"], "louder": ["alarm"]}),
            (Phase.FINALLY, When.ALWAYS, {"clean": []}),
        ]
        p = with_later(make_plan({"a": []}), "root", groups)
        p = edited(p, "louder", rule=Rule(1, 0, 1, 0, 0))
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        held = store.step("w", [end(a, S.FAILED)], want=5).deliveries
        bad, alarm = sorted(held, key=lambda d: d.id)
        assert (bad.id, alarm.id) == (node(p, "bad"), node(p, "alarm"))

        store.cancel([p.id])
        step = store.step("w", [end(bad)], want=5)

        assert (step.deliveries, step.stops) == ([], [alarm.id])
        (clean,) = store.step("w", [end(alarm)], want=5).deliveries
        store.step("w", [end(clean)])
        found = states_of(store, p)
        assert (found["root"], found["alarm"], found["louder"]) == (
            "failed",
            "cancelled",
            "cancelled",
        )
        assert store.check(p.id) == []

    def test_a_cancel_of_a_fallback_leaves_the_failure(self, store: Store) -> None:
        p = make_plan({"a": []})
        p = with_later(p, "a", [(Phase.FALLBACK, When.FAILED, {"f": [], "g": ["f"]})])
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        (f,) = store.step("w", [end(a, S.FAILED)], want=1).deliveries

        store.cancel([node(p, "a")])
        store.step("w", [end(f)])

        found = states_of(store, p)
        assert (found["a"], found["f"], found["g"]) == ("failed", "cancelled", "cancelled")
        kept = read_cell(store.cells(p.id, ((1, 1),))[1])
        assert kept.state == S.FAILED
        assert int.from_bytes(kept.body[:4], "big") != NO_NODE

    def test_a_wide_run_is_cancelled_by_one_call(self, store: Store) -> None:
        width = 4 * PAGE
        shape: dict[str, list[str]] = {"m": [], **{f"n{i}": [] for i in range(width)}, "z": ["m"]}
        p = make_plan(shape, inside={f"n{i}": "m" for i in range(width)})
        store.submit(p)
        held = store.step("w", want=3).deliveries

        store.cancel([p.id])
        outcomes: list[Outcome] = [end(d) for d in held]
        step = store.step("w", outcomes, want=5)

        assert step.deliveries == []
        assert set(states_of(store, p).values()) == {"cancelled"}
        assert store.status().queues[0].ready == 0
        assert store.check(p.id) == []
