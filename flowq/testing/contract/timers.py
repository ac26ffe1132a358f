# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Deadlines, what is sent to a run, and runs that are paused."""

from __future__ import annotations

import msgspec

from flowq.errors import Failure
from flowq.message import CULPRIT, new_id, node_id, read_cell
from flowq.outcome import Expand, GiveBack, RetryAt
from flowq.plan import Bits, Kind, NodeRow, Phase, Plan, When
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
    node,
    pass_time,
    run_all,
    states_of,
)
from flowq.testing.contract.policies import HANDLERS, edited, with_later

__all__ = ["TestDeadlines", "TestPauses", "TestSignals"]

S = State


def failure_at(store: Store, id: bytes) -> Failure:
    """Give the failure in the cell of a node."""
    cell = look_at(store, id).cell
    assert cell is not None
    assert read_cell(cell).state == S.FAILED
    assert not read_cell(cell).flags & CULPRIT
    return msgspec.msgpack.decode(read_cell(cell).body, type=Failure)


def due(plan: Plan, name: str, deadline_ms: int) -> Plan:
    """Give an expansion a deadline."""
    return edited(plan, name, deadline_ms=deadline_ms)


class TestDeadlines(StoreContract):
    """An expansion whose body may take so long."""

    def test_when_it_passes_what_runs_fails_and_the_rest_is_cancelled(
        self, store: Store, clock: ManualClock
    ) -> None:
        p = due(make_plan({"a": [], "b": [], "c": ["a"], "d": ["c"]}), "root", 5_000)
        store.submit(p)
        given = store.step("w", want=1)
        assert store.step("w").next_ms == 5_000

        clock.advance(5)
        step = store.step("w", want=5)

        assert step.deliveries == []
        assert step.stops == [node(p, "a")]
        assert states_of(store, p) == {
            "root": "expanded",
            "a": "running",
            "b": "cancelled",
            "c": "cancelled",
            "d": "cancelled",
        }
        store.step("w", done(given))  # however it ends
        assert states_of(store, p)["a"] == "failed"
        assert states_of(store, p)["root"] == "failed"
        assert failure_at(store, node(p, "a")).reason == "deadline"
        root = failure_at(store, p.id)
        assert (root.reason, root.node) == ("deadline", "root")
        assert store.check(p.id) == []
        assert store.step("w").next_ms is None

    def test_a_run_that_ends_in_time_knows_nothing_of_it(
        self, store: Store, clock: ManualClock
    ) -> None:
        p = due(make_plan({"a": []}), "root", 5_000)
        store.submit(p)
        run_all(store, p)
        assert store.step("w").next_ms is None

        clock.advance(9)
        store.step("w")

        assert states_of(store, p) == {"root": "success", "a": "success"}

    def test_it_counts_from_the_start_of_its_expansion(
        self, store: Store, clock: ManualClock
    ) -> None:
        shape: dict[str, list[str]] = {"a": [], "m": ["a"], "x": [], "after": ["m"]}
        p = due(make_plan(shape, inside={"x": "m"}), "m", 5_000)
        store.submit(p)
        a = store.step("w", want=1)
        pass_time(store, clock, 60)
        x = store.step("w", done(a), want=1)
        assert [d.id for d in x.deliveries] == [node(p, "x")]

        clock.advance(4.9)
        assert store.step("w").stops == []
        clock.advance(0.1)

        assert store.step("w").stops == [node(p, "x")]
        store.step("w", done(x))
        assert states_of(store, p) == {
            "root": "failed",
            "a": "success",
            "m": "failed",
            "x": "failed",
            "after": "blocked",
        }
        culprit = read_cell(look_at(store, node(p, "after")).cell or b"")
        assert int.from_bytes(culprit.body, "big") == 2
        assert store.check(p.id) == []

    def test_it_reaches_bodies_at_any_depth(self, store: Store, clock: ManualClock) -> None:
        shape: dict[str, list[str]] = {"m": [], "n": [], "x": [], "y": ["x"]}
        p = due(make_plan(shape, inside={"n": "m", "x": "n", "y": "n"}), "m", 5_000)
        p = with_later(p, "n", [(Phase.FINALLY, When.ALWAYS, {"up": []})])
        store.submit(p)
        x = store.step("w", want=1)

        clock.advance(5)
        store.step("w")
        step = store.step("w", [RetryAt(d.id, d.delivery, 1_000) for d in x.deliveries], want=5)

        assert [d.id for d in step.deliveries] == [node(p, "up")]  # cleanups run
        store.step("w", done(step))
        states = states_of(store, p)
        assert (states["x"], states["y"]) == ("failed", "cancelled")
        assert (states["n"], states["m"], states["up"]) == ("cancelled", "failed", "success")
        assert store.check(p.id) == []

    def test_handlers_run_and_a_fallback_takes_over(self, store: Store, clock: ManualClock) -> None:
        p = due(make_plan({"m": [], "x": [], "after": ["m"]}, inside={"x": "m"}), "m", 5_000)
        p = with_later(p, "m", HANDLERS)
        p = with_later(p, "m", [(Phase.FALLBACK, When.FAILED, {"instead": []})])
        store.submit(p)
        x = store.step("w", want=1)
        clock.advance(5)
        store.step("w")
        store.step("w", done(x))

        clock.advance(60)  # it does not bind what follows
        order = run_all(store, p)

        assert order == ["bad", "clean", "up", "instead", "after"]
        states = states_of(store, p)
        assert (states["m"], states["root"], states["good"]) == ("success", "success", "skipped")
        assert store.check(p.id) == []

    def test_a_failed_body_has_no_fallback_then_and_rings_its_alarm(
        self, store: Store, clock: ManualClock
    ) -> None:
        p = due(make_plan({"a": []}), "root", 5_000)
        p = with_later(p, "a", [(Phase.FALLBACK, When.FAILED, {"instead": []})])
        p = with_later(p, "root", [(Phase.HANDLERS, When.ALWAYS, {"alarm": ["a"]})])
        store.submit(p)
        a = store.step("w", want=1)
        clock.advance(5)
        store.step("w")

        store.step("w", done(a, S.FAILED))

        assert run_all(store, p) == ["alarm"]
        states = states_of(store, p)
        assert (states["a"], states["instead"], states["root"]) == ("failed", "skipped", "failed")
        assert store.check(p.id) == []

    def test_once_the_outcome_is_fixed_it_does_nothing(
        self, store: Store, clock: ManualClock
    ) -> None:
        p = with_later(due(make_plan({"a": []}), "root", 5_000), "root", HANDLERS)
        store.submit(p)
        good = store.step("w", done(store.step("w", want=1)), want=1)

        clock.advance(9)

        assert store.step("w").stops == []
        store.step("w", done(good))
        run_all(store, p)
        assert states_of(store, p)["root"] == "success"

    def test_a_cancel_before_it_is_a_cancel(self, store: Store, clock: ManualClock) -> None:
        p = due(make_plan({"a": []}), "root", 5_000)
        store.submit(p)
        a = store.step("w", want=1)
        store.cancel([p.id])

        clock.advance(9)
        store.step("w")
        store.step("w", done(a))

        assert set(states_of(store, p).values()) == {"cancelled"}

    def test_a_worker_that_is_lost_fails_its_body_by_it(
        self, store: Store, clock: ManualClock
    ) -> None:
        p = due(make_plan({"a": []}), "root", 5_000)
        store.submit(p)
        store.step("w", want=1)
        clock.advance(5)
        store.step("v")

        store.release("w", lost=[node(p, "a")])

        assert failure_at(store, node(p, "a")).reason == "deadline"
        assert states_of(store, p)["root"] == "failed"

    def test_it_counts_anew_in_each_generation(self, store: Store, clock: ManualClock) -> None:
        p = due(make_plan({"a": [], "b": []}), "root", 5_000)
        store.submit(p)
        clock.advance(3)
        run_all(store, p, {"b": S.FAILED})
        clock.advance(60)

        store.rewind(p.id, 1, chosen=((2, 1),))

        assert store.step("w").next_ms == 5_000
        given = store.step("w", want=5)
        clock.advance(5)
        assert store.step("w").stops == [node(p, "b")]
        store.step("w", done(given))
        assert states_of(store, p) == {"root": "failed", "a": "success", "b": "failed"}

    def test_of_a_fragment(self, store: Store, clock: ManualClock) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        store.submit(p)
        (d,) = store.step("w", want=1).deliveries
        rows = fragment({"i": []})
        rows[0] = msgspec.structs.replace(rows[0], deadline_ms=2_000)
        store.step("w", [Expand(d.id, d.delivery, rows)])
        given = store.step("w", want=5)

        clock.advance(2)
        store.step("w")
        store.step("w", done(given))

        states = states_of(store, p)
        assert (states["a"], states["i"], states["b"]) == ("failed", "failed", "blocked")

    def test_many_are_stopped_in_pages(self, store: Store, clock: ManualClock) -> None:
        n = 2 * PAGE + 10
        p = due(make_plan({f"n{i}": [] for i in range(n)}), "root", 5_000)
        store.submit(p)
        clock.advance(5)

        while store.step("w").next_ms == 0:
            pass

        states = list(states_of(store, p).values())
        assert (states.count("cancelled"), states.count("failed")) == (n, 1)
        assert store.check(p.id) == []


def waiting(
    shape: dict[str, list[str]], name: str = "answer", signal: str = "approve", **more: object
) -> Plan:
    """Give a plan one of whose joins waits for what is sent."""
    return edited(make_plan(shape, joins=[name]), name, signal=signal, **more)


def body_at(store: Store, id: bytes) -> bytes:
    """Give the body of the cell of a success."""
    cell = look_at(store, id).cell
    assert cell is not None
    assert read_cell(cell).state == S.SUCCESS
    return read_cell(cell).body


class TestSignals(StoreContract):
    """Joins that wait for what is sent to their run."""

    def test_it_waits_until_something_is_sent(self, store: Store, clock: ManualClock) -> None:
        p = waiting({"a": [], "answer": ["a"], "b": ["answer"]})
        store.submit(p)
        step = store.step("w", done(store.step("w", want=1)), want=5)
        assert (step.deliveries, step.next_ms) == ([], None)
        assert look_at(store, node(p, "answer")).state == S.SCHEDULED
        assert look_at(store, node(p, "answer")).due_ms == 0
        pass_time(store, clock, 600)

        assert store.send(p.id, "approve", b"yes", who="me") == "taken"

        assert body_at(store, node(p, "answer")) == b"yes"
        assert run_all(store, p) == ["b"]
        (sent,) = store.sent(p.id)
        assert (sent.name, sent.who, sent.at_ms, sent.node) == ("approve", "me", clock.now_ms(), 2)
        assert store.check(p.id) == []

    def test_what_is_sent_before_is_kept(self, store: Store) -> None:
        p = waiting({"a": [], "answer": ["a"], "b": ["answer"]})
        store.submit(p)

        assert store.send(p.id, "approve", b"first") == "kept"
        assert store.send(p.id, "approve", b"second") == "kept"
        assert store.send(p.id, "other", b"third") == "kept"

        assert [s.node for s in store.sent(p.id)] == [None, None, None]
        assert run_all(store, p) == ["a", "b"]
        assert body_at(store, node(p, "answer")) == b"first"
        assert [s.node for s in store.sent(p.id)] == [2, None, None]

    def test_another_name_is_for_another(self, store: Store) -> None:
        p = waiting({"answer": []})
        store.submit(p)

        assert store.send(p.id, "reject", b"no") == "kept"

        assert look_at(store, node(p, "answer")).state == S.SCHEDULED

    def test_the_one_that_waits_longest_gets_it(self, store: Store, clock: ManualClock) -> None:
        shape: dict[str, list[str]] = {"a": [], "first": ["a"], "second": []}
        p = make_plan(shape, joins=["first", "second"])
        for name in ("first", "second"):
            p = edited(p, name, signal="approve")
        store.submit(p)
        clock.advance(1)
        run_all(store, p)

        assert store.send(p.id, "approve", b"1") == "taken"

        assert body_at(store, node(p, "second")) == b"1"
        assert store.send(p.id, "approve", b"2") == "taken"
        assert body_at(store, node(p, "first")) == b"2"
        assert states_of(store, p)["root"] == "success"

    def test_it_may_be_sent_to_one_or_to_what_is_around_it(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"m[0]": [], "m[1]": [], "m[0]/x": [], "m[1]/x": []}
        inside = {"m[0]/x": "m[0]", "m[1]/x": "m[1]"}
        p = make_plan(shape, inside=inside, joins=["m[0]/x", "m[1]/x"])
        for name in inside:
            p = edited(p, name, signal="approve")
        store.submit(p)

        assert store.send(p.id, "approve", b"1", to="m[1]") == "taken"
        assert store.send(p.id, "approve", b"?", to="m[1]") == "kept"
        assert store.send(p.id, "approve", b"?", to="m") == "kept"
        assert store.send(p.id, "approve", b"0", to="m[0]/x") == "taken"

        assert body_at(store, node(p, "m[1]/x")) == b"1"
        assert body_at(store, node(p, "m[0]/x")) == b"0"

    def test_what_is_kept_for_one_is_not_given_to_others(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"a": [], "b": [], "x": ["a"], "y": ["b"]}
        p = make_plan(shape, joins=["x", "y"])
        p = edited(edited(p, "x", signal="s"), "y", signal="s")
        store.submit(p)
        store.send(p.id, "s", b"for y", to="y")
        store.send(p.id, "s", b"for x")

        run_all(store, p)

        assert body_at(store, node(p, "x")) == b"for x"
        assert body_at(store, node(p, "y")) == b"for y"

    def test_a_key_makes_it_count_once(self, store: Store) -> None:
        p = waiting({"answer": []})
        store.submit(p)

        assert store.send(p.id, "approve", b"yes", key="k") == "taken"
        assert store.send(p.id, "approve", b"yes", key="k") == "repeated"

        assert len(store.sent(p.id)) == 1

    def test_a_run_that_has_ended_takes_nothing(self, store: Store) -> None:
        p = waiting({"answer": []})
        store.submit(p)
        store.send(p.id, "approve", b"yes", key="k")

        assert store.send(p.id, "approve", b"again") == "ended"
        assert store.send(p.id, "approve", b"yes", key="k") == "repeated"
        assert store.send(new_id(), "approve", b"again") is None
        assert len(store.sent(p.id)) == 1

    def test_without_an_answer_in_time_it_fails(self, store: Store, clock: ManualClock) -> None:
        p = waiting({"answer": [], "b": ["answer"]}, timeout_ms=5_000)
        store.submit(p)
        assert store.step("w").next_ms == 5_000
        assert look_at(store, node(p, "answer")).due_ms == clock.now_ms() + 5_000

        clock.advance(5)
        store.step("w")

        failure = failure_at(store, node(p, "answer"))
        assert (failure.reason, failure.node) == ("timeout", "answer")
        assert states_of(store, p) == {"root": "failed", "answer": "failed", "b": "blocked"}
        culprit = read_cell(look_at(store, node(p, "b")).cell or b"")
        assert int.from_bytes(culprit.body, "big") == 1
        assert store.check(p.id) == []

    def test_or_it_has_a_default(self, store: Store, clock: ManualClock) -> None:
        p = waiting({"answer": [], "b": ["answer"]}, timeout_ms=5_000, value=b"default")
        store.submit(p)

        clock.advance(5)

        assert run_all(store, p) == ["b"]
        assert body_at(store, node(p, "answer")) == b"default"

    def test_an_answer_in_time_ends_the_timeout(self, store: Store, clock: ManualClock) -> None:
        p = waiting({"answer": [], "b": ["answer"]}, timeout_ms=5_000)
        store.submit(p)

        store.send(p.id, "approve", b"yes")

        assert store.step("w").next_ms is None
        clock.advance(9)
        assert run_all(store, p) == ["b"]

    def test_after_a_timeout_what_is_sent_is_for_others(
        self, store: Store, clock: ManualClock
    ) -> None:
        shape: dict[str, list[str]] = {"a": [], "x": [], "y": ["a"]}
        p = make_plan(shape, joins=["x", "y"])
        p = edited(p, "x", signal="s", timeout_ms=1_000, value=b"default")
        store.submit(edited(p, "y", signal="s"))
        clock.advance(1)
        store.step("w")

        assert store.send(p.id, "s", b"late") == "kept"

        run_all(store, p)
        assert body_at(store, node(p, "y")) == b"late"

    def test_a_cancel_ends_it(self, store: Store) -> None:
        p = waiting({"answer": [], "b": ["answer"]}, timeout_ms=5_000)
        store.submit(p)

        store.cancel([p.id])

        assert set(states_of(store, p).values()) == {"cancelled"}
        assert store.send(p.id, "approve", b"late") == "ended"
        assert store.step("w").next_ms is None

    def test_the_next_generation_waits_for_a_new_one(self, store: Store) -> None:
        p = waiting({"answer": [], "b": ["answer"]})
        store.submit(p)
        store.send(p.id, "approve", b"one")
        run_all(store, p)

        store.rewind(p.id, 1, chosen=((1, 2),))

        assert look_at(store, node(p, "answer")).state == S.SCHEDULED
        assert store.send(p.id, "approve", b"two") == "taken"
        assert run_all(store, p) == ["b"]
        assert body_at(store, node(p, "answer")) == b"two"
        assert len(store.sent(p.id)) == 2

    def test_in_a_fragment(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        store.submit(p)
        store.send(p.id, "go", b"early")
        (d,) = store.step("w", want=1).deliveries
        rows = fragment({"i": [], "j": [], "k": ["i", "j"]})
        rows[1:3] = [as_signal(rows[1], "go"), as_signal(rows[2], "go")]
        rows[3] = msgspec.structs.replace(rows[3], reads=())

        store.step("w", [Expand(d.id, d.delivery, rows)])

        found = {info.name: info for info in store.nodes(p.id)}
        assert found["i"].state == S.SUCCESS
        assert store.send(p.id, "go", b"late", to="j") == "taken"
        assert body_at(store, node_id(p.id, found["j"].index)) == b"late"
        assert run_all(store, p) == ["k", "b"]

    def test_the_end_of_one_that_waits_goes_on_in_pages(self, store: Store) -> None:
        n = 2 * PAGE + 10
        shape: dict[str, list[str]] = {"answer": [], **{f"n{i}": ["answer"] for i in range(n)}}
        p = waiting(shape)
        store.submit(p)

        store.send(p.id, "approve", b"yes")

        assert len(run_all(store, p)) == n
        assert store.check(p.id) == []


def as_signal(row: NodeRow, signal: str) -> NodeRow:
    """Make a task of a fragment a join that waits."""
    return msgspec.structs.replace(row, kind=Kind.JOIN, message=None, reads=(), signal=signal)


class TestPauses(StoreContract):
    """Runs of which nothing more is handed out."""

    def test_nothing_of_it_is_handed_out_until_it_goes_on(self, store: Store) -> None:
        p, other = make_plan({"a": [], "b": []}), make_plan({"c": []})
        store.submit(p)
        store.submit(other)

        assert store.pause(p.id) == S.EXPANDED

        info = store.run(p.id)
        assert info is not None and info.paused
        given = store.step("w", want=5)
        assert [d.id for d in given.deliveries] == [node(other, "c")]
        assert states_of(store, p) == {"root": "expanded", "a": "held", "b": "held"}
        assert (given.ready, store.status().queues[0].ready) == (0, 0)
        store.step("w", done(given))
        assert store.step("w", want=5).deliveries == []
        assert store.resume(p.id) == S.EXPANDED
        info = store.run(p.id)
        assert info is not None and not info.paused
        given = store.step("w", want=5)
        assert [d.id for d in given.deliveries] == [node(p, "a"), node(p, "b")]
        store.step("w", done(given))
        assert states_of(store, p)["root"] == "success"
        assert store.check(p.id) == []

    def test_what_runs_goes_on_and_what_it_lets_run_is_held(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        store.submit(p)
        a = store.step("w", want=1)
        store.pause(p.id)

        assert store.step("w", done(a), want=5).deliveries == []

        assert states_of(store, p) == {"root": "expanded", "a": "success", "b": "held"}
        store.resume(p.id)
        assert run_all(store, p) == ["b"]

    def test_what_comes_back_is_held(self, store: Store, clock: ManualClock) -> None:
        p = make_plan({"a": [], "b": [], "c": []})
        store.submit(p)
        given = store.step("w", want=3)
        store.pause(p.id)
        a, b, _ = given.deliveries

        store.step("w", [RetryAt(a.id, a.delivery, 1_000), GiveBack(b.id, b.delivery)], want=5)
        store.release("w", lost=[given.deliveries[2].id])
        clock.advance(1)
        assert store.step("v", want=5).deliveries == []

        states = states_of(store, p)
        assert states == {"root": "expanded", "a": "held", "b": "held", "c": "held"}
        store.resume(p.id)
        assert sorted(run_all(store, p)) == ["a", "b", "c"]
        assert store.check(p.id) == []

    def test_a_cancel_ends_what_is_held_and_lets_cleanups_run(self, store: Store) -> None:
        p = with_later(make_plan({"a": [], "b": ["a"]}), "root", HANDLERS)
        store.submit(p)
        store.pause(p.id)
        store.step("w", want=5)

        store.cancel([p.id])

        assert run_all(store, p) == ["clean", "up"]
        assert states_of(store, p)["root"] == "cancelled"
        info = store.run(p.id)
        assert info is not None and not info.paused

    def test_a_node_that_is_held_can_be_cancelled(self, store: Store) -> None:
        p = make_plan({"a": [], "b": []})
        store.submit(p)
        store.pause(p.id)
        store.step("w", want=5)

        assert store.cancel([node(p, "a")]) == [S.CANCELLED]

        store.resume(p.id)
        assert run_all(store, p) == ["b"]

    def test_a_pause_and_a_resume_may_be_repeated(self, store: Store) -> None:
        p = make_plan({"a": []})
        store.submit(p)
        store.pause(p.id)
        store.pause(p.id)
        store.step("w", want=5)
        store.resume(p.id)

        assert store.resume(p.id) == S.EXPANDED

        assert run_all(store, p) == ["a"]
        assert store.pause(p.id) == S.SUCCESS
        info = store.run(p.id)
        assert info is not None and not info.paused
        assert store.pause(new_id()) is None
        assert store.resume(new_id()) is None

    def test_a_deadline_goes_on(self, store: Store, clock: ManualClock) -> None:
        p = due(make_plan({"a": []}), "root", 5_000)
        store.submit(p)
        store.pause(p.id)
        store.step("w", want=5)

        clock.advance(5)
        store.step("w")

        assert states_of(store, p) == {"root": "failed", "a": "cancelled"}

    def test_what_is_held_may_lose(self, store: Store) -> None:
        shape: dict[str, list[str]] = {"a": [], "b": [], "first": ["a", "b"]}
        p = make_plan(shape, joins=["first"], rules={"first": "one_success"})
        p = edited(p, "first", bits=int(Bits.RACE), owns=((1, 2),))
        for name in "ab":
            p = edited(p, name, bits=int(Bits.OWNED))
        store.submit(p)
        a = store.step("w", want=1)
        store.pause(p.id)
        store.step("v", want=5)

        store.step("w", [end(d) for d in a.deliveries])

        assert states_of(store, p)["b"] == "skipped"
        assert states_of(store, p)["root"] == "success"

    def test_many_go_on_in_pages(self, store: Store) -> None:
        n = 2 * PAGE + 10
        p = make_plan({f"n{i}": [] for i in range(n)})
        store.submit(p)
        store.pause(p.id)
        while store.step("w", want=1_000).ready:
            pass
        assert list(states_of(store, p).values()).count("held") == n

        store.resume(p.id)

        assert len(run_all(store, p)) == n
        assert store.check(p.id) == []

    def test_the_next_generation_is_not_paused(self, store: Store) -> None:
        p = make_plan({"a": []})
        store.submit(p)
        a = store.step("w", want=1)
        store.pause(p.id)
        store.step("w", done(a, S.FAILED))

        store.rewind(p.id, 1, chosen=((1, 1),))

        assert run_all(store, p) == ["a"]
