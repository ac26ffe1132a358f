# SPDX-License-Identifier: MIT
# ruff: noqa: D102 - the name of a test is its promise
"""Runs beside a run: those that take over from it, those that its bodies started, who watches."""

from __future__ import annotations

import threading
import time

import msgspec

from flowq.message import decode_message, new_id, node_id, read_cell
from flowq.outcome import Expand
from flowq.plan import Phase, Plan, When
from flowq.states import State
from flowq.storage.base import PAGE, Store
from flowq.testing.clock import ManualClock
from flowq.testing.contract.again import info_of, nodes_of
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
    task,
)
from flowq.testing.contract.policies import with_later
from flowq.testing.contract.rewind import at

__all__ = ["TestForks", "TestMoves", "TestStarted"]

S = State


def renamed(plan: Plan, id: bytes) -> Plan:
    """Give a plan under another id, to speak of a run that was made from it."""
    return msgspec.structs.replace(plan, id=id)


class TestForks(StoreContract):
    """`Store.fork`."""

    def test_it_takes_over_what_it_does_not_run_itself(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"], "c": ["b"], "other": []})
        store.submit(p)
        (a, other) = store.step("w", want=2).deliveries
        store.step("w", [end(a, body=b"of a"), end(other, S.FAILED)])
        run_all(store, p)
        before = states_of(store, p)
        new = new_id()

        seen = info_of(store, p).changes
        assert store.fork(p.id, new, seen=seen, chosen=at(p, "b", "c")) is True

        q = renamed(p, new)
        assert states_of(store, q) == {
            "root": "expanded",
            "a": "success",
            "b": "queued",
            "c": "waiting",
            "other": "failed",
        }
        (b,) = store.step("w", want=5).deliveries
        assert b.id == node(q, "b")
        assert decode_message(b.body).id == b.id
        assert read_cell(b.values[1]).body == b"of a"
        assert store.check(new) == []
        store.step("w", done(store.step("w", [end(b)], want=5)))
        assert states_of(store, q)["root"] == "failed"  # as what it took over says
        assert states_of(store, p) == before
        info = info_of(store, q)
        assert (info.name, info.nodes) == (info_of(store, p).name, 4)

    def test_a_node_runs_with_what_it_is_given_instead(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        store.submit(p)
        run_all(store, p)
        new = new_id()
        other = msgspec.structs.replace(p.rows[1].message or task(), payload=b"Other")

        seen = info_of(store, p).changes
        made = store.fork(p.id, new, seen=seen, chosen=((1, 2),), messages={1: other})

        assert made is True
        (a,) = store.step("w", want=5).deliveries
        message = decode_message(a.body)
        assert (message.payload, message.id) == (b"Other", node_id(new, 1))
        raw = store.message(node(p, "a"))
        assert raw is None or decode_message(raw).payload == b"P"

    def test_repeating_it_makes_no_more(self, store: Store) -> None:
        p = make_plan({"a": []})
        store.submit(p)
        run_all(store, p)
        new, seen = new_id(), info_of(store, p).changes

        made = [store.fork(p.id, new, seen=seen, chosen=((1, 1),)) for _ in range(2)]

        assert made == [True, True]
        q = renamed(p, new)
        assert run_all(store, q) == ["a"]
        assert store.fork(p.id, new, seen=seen, chosen=((1, 1),)) is True
        assert states_of(store, q)["root"] == "success"

    def test_only_of_what_has_ended_and_stands_as_it_was_seen(self, store: Store) -> None:
        p = make_plan({"a": []})
        store.submit(p)
        new = new_id()
        seen = info_of(store, p).changes
        assert store.fork(p.id, new, seen=seen, chosen=((1, 1),)) is False
        run_all(store, p)
        assert store.fork(p.id, new, seen=seen, chosen=((1, 1),)) is False
        assert store.fork(new_id(), new, seen=seen, chosen=((1, 1),)) is None
        assert store.run(new) is None
        assert store.look([new]) == [None]
        assert store.step("w", want=5).deliveries == []

    def test_expansions_are_opened_and_what_a_task_became_is_dropped(self, store: Store) -> None:
        p = make_plan({"m": [], "i": [], "j": [], "x": ["m"]}, inside={"i": "m", "j": "m"})
        p = with_later(p, "m", [(Phase.FINALLY, When.ALWAYS, {"clean": []})])
        store.submit(p)
        run_all_but = run_all(store, p, {"i": S.FAILED})
        assert run_all_but == ["i", "j", "clean"]
        q = renamed(make_plan({"x": [], "z": ["x"]}), new_id())
        store.submit(q)
        (x,) = store.step("w", want=1).deliveries
        store.step("w", [Expand(x.id, 1, fragment({"k": []}))])
        run_all(store, q)
        inner = tuple((n.index, 1) for n in store.nodes(q.id) if n.name == "k")
        new, other = new_id(), new_id()

        assert store.fork(
            p.id,
            new,
            seen=info_of(store, p).changes,
            chosen=at(p, "i", "x", "clean"),
            reopened=at(p, "m"),
        )
        assert store.fork(
            q.id, other, seen=info_of(store, q).changes, chosen=at(q, "x", "z"), dropped=inner
        )

        assert sorted(states_of(store, renamed(q, other))) == ["root", "x", "z"]
        ran = [d.id for d in store.step("w", want=9).deliveries]
        assert ran == [node(renamed(p, new), "i"), node(renamed(q, other), "x")]
        store.step("w", [end(d) for d in store.held("w")])
        run_all(store, renamed(p, new))
        assert states_of(store, renamed(p, new))["root"] == "success"
        assert states_of(store, renamed(q, other))["root"] == "success"
        assert store.check(new) == store.check(other) == []
        assert "k" in states_of(store, q)

    def test_its_end_and_its_memory_are_its_own(self, store: Store, clock: ManualClock) -> None:
        p = make_plan({"a": []}, ttl={"result_ttl_ms": 3_600_000, "failed_ttl_ms": 3_600_000})
        store.submit(p)
        run_all(store, p)
        pass_time(store, clock, 3_000)
        new = new_id()
        store.fork(p.id, new, seen=info_of(store, p).changes, chosen=((1, 1),))

        pass_time(store, clock, 700)
        while store.sweep().more:
            pass

        assert store.look([p.id]) == [None]
        assert run_all(store, renamed(p, new)) == ["a"]
        assert look_at(store, new).state == S.SUCCESS
        pass_time(store, clock, 3_700)
        while store.sweep().more:
            pass
        assert store.look([new]) == [None]

    def test_a_wide_run_is_taken_over_in_pages(self, store: Store) -> None:
        width = 4 * PAGE
        leaves = [f"n{i}" for i in range(width)]
        p = make_plan({"a": [], **{n: ["a"] for n in leaves}, "z": leaves[:3]})
        store.submit(p)
        run_all(store, p)
        new = new_id()

        made = store.fork(
            p.id, new, seen=info_of(store, p).changes, chosen=at(p, *leaves[:700], "z")
        )

        assert made is True
        q = renamed(p, new)
        assert store.check(new) == []
        assert len(run_all(store, q)) == 701
        assert set(states_of(store, q).values()) == {"success"}

    def test_a_fork_of_a_fork_and_of_what_ran_again(self, store: Store) -> None:
        p = make_plan({"a": [], "b": ["a"]})
        store.submit(p)
        run_all(store, p, {"b": S.FAILED})
        store.rewind(p.id, 1, chosen=at(p, "b"))
        run_all(store, p, {"b": S.FAILED})
        first, second = new_id(), new_id()

        store.fork(p.id, first, seen=info_of(store, p).changes, chosen=at(p, "b"))
        q = renamed(p, first)
        assert run_all(store, q, {"b": S.FAILED}) == ["b"]
        store.fork(first, second, seen=info_of(store, q).changes, chosen=at(p, "a", "b"))
        r = renamed(p, second)

        assert run_all(store, r) == ["a", "b"]
        assert look_at(store, second).state == S.SUCCESS
        assert look_at(store, first).state == look_at(store, p.id).state == S.FAILED
        assert store.rewind(first, nodes_of(store, q)["root"].generation + 1, chosen=at(p, "b"))
        assert run_all(store, q) == ["b"]


class TestStarted(StoreContract):
    """`Store.started`: what bodies have started."""

    def test_it_is_listed_with_who_started_it_in_the_order_of_the_starts(
        self, store: Store
    ) -> None:
        p = make_plan({"a": [], "b": []})
        store.submit(p)
        store.step("w", want=2)
        child = msgspec.structs.replace(make_plan({"x": []}), parent=node(p, "a"))
        one, two = task(parent=node(p, "b")), task(parent=node(p, "a"))

        assert store.enqueue([one]) == [True]
        assert store.submit(child) is True
        assert store.enqueue([two, one]) == [True, False]
        assert store.submit(child) is False

        every = [
            (node(p, "b"), one.id),
            (node(p, "a"), child.id),
            (node(p, "a"), two.id),
        ]
        assert store.started(p.id) == every
        assert store.started(p.id, limit=2) == every[:2]
        assert store.started(p.id, after=child.id) == every[2:]
        assert store.started(new_id()) == []

    def test_a_task_alone_starts_too_and_goes_on_as_a_run(self, store: Store) -> None:
        alone = task()
        store.enqueue([alone])
        (d,) = store.step("w", want=1).deliveries
        one, two = task(parent=alone.id), task(parent=node_id(alone.id, 0))

        store.enqueue([one])
        assert store.started(alone.id) == [(alone.id, one.id)]
        store.step("w", [Expand(d.id, d.delivery, fragment({"i": []}))])
        store.enqueue([two])

        assert store.started(alone.id) == [(alone.id, one.id), (two.parent, two.id)]

    def test_what_was_stopped_starts_nothing_more(self, store: Store) -> None:
        p = make_plan({"a": [], "b": []})
        store.submit(p)
        a, b = store.step("w", want=2).deliveries
        alone = task()
        store.enqueue([alone])
        store.step("v", want=1)
        store.cancel([a.id, alone.id])  # they run still

        assert store.enqueue([task(parent=a.id), task(parent=b.id)]) == [None, True]
        assert store.enqueue([task(parent=alone.id)]) == [None]
        plan = msgspec.structs.replace(make_plan({"x": []}), parent=a.id)
        assert store.submit(plan) is None
        assert store.run(plan.id) is None
        store.step("w", [end(a, S.CANCELLED), end(b)])
        assert store.enqueue([task(parent=a.id)]) == [None]
        assert [child for _, child in store.started(p.id)] != []
        assert len(store.started(p.id)) == 1

    def test_what_exists_is_found_whoever_asks(self, store: Store) -> None:
        p = make_plan({"a": []})
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        child = task(parent=a.id)
        store.enqueue([child])
        store.cancel([a.id])

        assert store.enqueue([child]) == [False]

    def test_it_is_forgotten_with_the_run(self, store: Store, clock: ManualClock) -> None:
        p = make_plan({"a": []}, ttl={"result_ttl_ms": 3_600_000})
        store.submit(p)
        (a,) = store.step("w", want=1).deliveries
        store.enqueue([task(parent=a.id, result_ttl_ms=86_400_000)])
        store.step("w", [end(a)])
        store.step("w", done(store.step("w", want=1)))

        pass_time(store, clock, 3_000)
        while store.sweep().more:
            pass
        assert len(store.started(p.id)) == 1
        pass_time(store, clock, 700)
        while store.sweep().more:
            pass

        assert store.started(p.id) == []


class TestMoves(StoreContract):
    """`Store.wait_moved`."""

    def test_it_returns_at_once_where_the_run_has_moved_or_is_not_known(self, store: Store) -> None:
        p = make_plan({"a": []})
        assert store.wait_moved(p.id, seen=1, timeout=0) is True
        store.submit(p)
        seen = info_of(store, p).changes

        assert store.wait_moved(p.id, seen=seen, timeout=0.01) is False
        step = store.step("w", want=1)
        assert store.wait_moved(p.id, seen=seen, timeout=20) is True
        seen = info_of(store, p).changes
        assert store.wait_moved(p.id, seen=seen, timeout=0.01) is False
        store.step("w", done(step))
        assert store.wait_moved(p.id, seen=seen, timeout=20) is True

    def test_who_waits_is_woken_by_a_body_that_begins(self, store: Store) -> None:
        p = make_plan({"a": [], "b": []})
        q = make_plan({"a": []})
        store.submit(q)
        store.submit(p)
        store.step("w", want=1)  # of the other run
        seen = info_of(store, p).changes
        timer = threading.Timer(0.05, lambda: store.step("w", want=1))
        began = time.monotonic()
        timer.start()

        assert store.wait_moved(p.id, seen=seen, timeout=20) is True

        timer.join()
        assert time.monotonic() - began < 10

    def test_who_waits_is_woken_by_an_end(self, store: Store) -> None:
        p = make_plan({"a": [], "b": []})
        store.submit(p)
        step = store.step("w", want=1)
        seen = info_of(store, p).changes
        timer = threading.Timer(0.05, lambda: store.step("w", done(step)))
        began = time.monotonic()
        timer.start()

        assert store.wait_moved(p.id, seen=seen, timeout=20) is True

        timer.join()
        assert time.monotonic() - began < 10
