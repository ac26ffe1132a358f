# SPDX-License-Identifier: MIT
"""What is due and what is held on Redis: who is woken, what a crash leaves, what is in the keys."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from flowq.plan import Bits, Plan, ranges_of
from flowq.states import State
from flowq.storage.base import PAGE
from flowq.storage.redis.store import RedisStore
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    done,
    end,
    look_at,
    make_plan,
    node,
    pass_time,
    run_all,
    states_of,
    task,
)
from flowq.testing.contract.policies import edited

S = State


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(redis_url: str, store_name: str, clock: ManualClock) -> Iterator[RedisStore]:
    made = RedisStore(redis_url, name=store_name, clock=clock)
    yield made
    made.close()


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def joining(name: str, shape: dict[str, list[str]], **more: Any) -> Plan:
    """A plan one of whose nodes is a join that is not as others are."""
    return edited(make_plan(shape, joins=[name]), name, **more)


def timed(how: str) -> Plan:
    """A run that begins with something that is due later, and needs nobody before."""
    if how == "deadline":
        return edited(joining("x", {"x": [], "b": ["x"]}, signal="s"), "root", deadline_ms=2_000)
    more = {"sleep_ms": 2_000} if how == "sleep" else {"signal": "s", "timeout_ms": 2_000}
    return joining("x", {"x": [], "b": ["x"]}, **more)


@pytest.mark.parametrize("how", ["sleep", "timeout", "deadline"])
def test_a_client_that_starts_what_is_due_later_wakes_one_who_waits(
    store: RedisStore, how: str
) -> None:
    woken: list[bool] = []
    waiting = threading.Thread(
        target=lambda: woken.append(store.wait_ready(["default"], timeout=20))
    )
    waiting.start()

    store.submit(timed(how))
    waiting.join(10)

    assert woken == [True]
    assert store.step("w", want=1).next_ms == 2_000


def test_one_who_is_let_go_earlier_wakes_one_who_waits(store: RedisStore) -> None:
    p = timed("sleep")
    store.submit(p)
    assert store.wait_ready(["default"], timeout=5)

    store.reschedule(node(p, "x"), delay_ms=100)

    assert store.wait_ready(["default"], timeout=5)


def test_many_that_have_slept_end_some_at_a_time(store: RedisStore, clock: ManualClock) -> None:
    names = [f"n{i}" for i in range(PAGE + 10)]
    p = make_plan({name: [] for name in names}, joins=names)
    for name in names:
        p = edited(p, name, sleep_ms=1_000)
    store.submit(p)
    clock.advance(1)

    step = store.step("w")

    ended = list(states_of(store, p).values()).count("success")
    assert (ended, step.next_ms) == (PAGE / 2, 0)
    while store.step("w").next_ms == 0:
        pass
    assert states_of(store, p)["root"] == "success"


def test_a_deadline_is_nothing_that_is_scheduled(store: RedisStore, clock: ManualClock) -> None:
    p = edited(make_plan({"a": []}), "root", deadline_ms=5_000)
    store.submit(p)
    store.enqueue([task(delay_ms=60_000)])
    assert store.status().scheduled == 1

    clock.advance(5)
    store.step("w")

    assert states_of(store, p)["root"] == "failed"
    assert store.status().scheduled == 1


def test_a_resume_that_was_left_half_way_is_done_by_who_steps(store: RedisStore) -> None:
    p = make_plan({f"n{i}": [] for i in range(2 * PAGE + 10)})
    store.submit(p)
    store.pause(p.id)
    while store.step("w", want=1_000).ready:
        pass

    _, left = store._run("pause", p.id, b"0")  # and the client is gone

    assert left > 0
    assert len(run_all(store, p)) == 2 * PAGE + 10
    assert states_of(store, p)["root"] == "success"


def test_what_is_held_does_not_expire_before_it_goes_on(
    store: RedisStore, clock: ManualClock
) -> None:
    p = make_plan({"a": [], "b": ["a"]}, messages={"a": {"expires_in_ms": 1_000}})
    store.submit(p)
    store.pause(p.id)
    store.step("w", want=5)
    pass_time(store, clock, 60)

    assert store.sweep().expired == 0
    assert look_at(store, node(p, "a")).state == S.HELD

    store.resume(p.id)
    assert run_all(store, p) == []
    assert states_of(store, p) == {"root": "failed", "a": "failed", "b": "blocked"}


def test_a_bounded_body_leaves_nothing_for_those_that_wait(
    store: RedisStore, raw: redis.Redis, store_name: str
) -> None:
    items = [f"i{k}" for k in range(3 * PAGE)]
    p = make_plan({"m": [], **{name: [] for name in items}}, inside=dict.fromkeys(items, "m"))

    store.submit(edited(p, "m", most=2))

    assert raw.llen(f"{{{store_name}}}:r:default:0") == 2
    assert raw.exists(f"{{{store_name}}}:todo") == 0
    assert store.step("w", want=100).next_ms is None


def test_a_join_whose_row_is_cut_short_takes_along_nothing_beside_it(
    store: RedisStore, clock: ManualClock, raw: redis.Redis
) -> None:
    p, other = timed("sleep"), timed("sleep")
    store.submit(p)
    store.submit(other)
    key = b"%bn:%b" % (store._key, p.id)
    raw.hset(key, b"\0\0\0\1", raw.hget(key, b"\0\0\0\1")[:50])
    clock.advance(2)

    step = store.step("w", want=5)

    assert [d.id for d in step.deliveries] == [node(other, "b")]
    assert look_at(store, node(p, "x")).state == S.FAILED


def test_what_few_runs_have_goes_with_them(
    store: RedisStore, clock: ManualClock, raw: redis.Redis, store_name: str
) -> None:
    shape: dict[str, list[str]] = {"a": [], "b": [], "first": ["a", "b"], "w": [], "m": []}
    inside = {f"i{k}": "m" for k in range(4)}
    p = make_plan(
        shape | {name: [] for name in inside},
        inside=inside,
        joins=["first", "w"],
        rules={"first": "one_success"},
        bits={"a": Bits.OWNED, "b": Bits.OWNED},
    )
    p = edited(p, "first", bits=int(Bits.RACE), owns=ranges_of([1, 2]))
    p = edited(edited(p, "w", signal="s"), "m", most=1, need=2)
    p = edited(p, "root", deadline_ms=50_000)
    store.submit(p)
    a, b = store.step("w", want=1), store.step("v", want=1)
    store.step("w", done(a))  # b has lost, and runs
    store.pause(p.id)
    store.step("w", want=9)
    store.resume(p.id)
    assert store.send(p.id, "s", b"1", key="k") == "taken"
    assert store.send(p.id, "t", b"2") == "kept"
    store.step("v", done(b))
    run_all(store, p)
    assert states_of(store, p)["root"] == "success"
    for session in "wv":
        store.release(session)

    clock.advance(40 * 86_400)
    while store.sweep().more:
        pass

    own = raw.keys(f"*{store_name}*")
    assert {key.decode("latin-1").split(":")[1] for key in own} <= {"layout", "runs", "q", "k", "t"}


def test_a_node_that_waits_looks_at_nothing_that_is_kept_for_others(
    store: RedisStore, raw: redis.Redis
) -> None:
    joins = [f"s{k}" for k in range(100)]
    p = make_plan({"a": [], **{name: ["a"] for name in joins}}, joins=joins)
    for name in joins:
        p = edited(p, name, signal="go")
    store.submit(p)
    for k in range(150):
        store.send(p.id, "stop" if k % 2 else "go", b"x", to="" if k % 2 else "somebody")
    a = store.step("w", want=1)
    before = raw.info("commandstats")["cmdstat_hget"]["calls"]

    store.step("w", done(a))

    assert raw.info("commandstats")["cmdstat_hget"]["calls"] - before < 1_000  # not 100 * 150
    assert states_of(store, p)["s99"] == "scheduled"


def test_thousands_that_left_their_list_are_passed_at_once(
    store: RedisStore, raw: redis.Redis
) -> None:
    p = make_plan({f"n{i}": [] for i in range(8 * PAGE)})
    store.submit(p)
    last = task(priority=0)
    store.enqueue([last])
    store.cancel([p.id])
    before = raw.info("commandstats")["cmdstat_lpop"]["calls"]

    step = store.step("w", want=1)

    assert [d.id for d in step.deliveries] == [last.id]
    assert step.ready == 0
    assert raw.info("commandstats")["cmdstat_lpop"]["calls"] - before < 40


def test_of_a_paused_run_much_is_held_at_once(store: RedisStore, raw: redis.Redis) -> None:
    p = make_plan({f"n{i}": [] for i in range(PAGE)})
    store.submit(p)
    last = task()
    store.enqueue([last, task()])
    behind = make_plan({"a": []})
    store.submit(behind)
    store.pause(p.id)
    store.pause(behind.id)
    before = raw.info("commandstats")["cmdstat_lpop"]["calls"]

    step = store.step("w", want=1)

    assert [d.id for d in step.deliveries] == [last.id]
    assert step.ready == 2
    assert states_of(store, behind)["a"] == "queued"  # it was not its turn
    assert raw.info("commandstats")["cmdstat_lpop"]["calls"] - before < 40


@pytest.mark.parametrize("inside", [{}, {"b": "m", "c": "m"}])
def test_what_never_begins_in_its_new_generation_leaves_nothing_behind(
    store: RedisStore, raw: redis.Redis, store_name: str, inside: dict[str, str]
) -> None:
    shape = {"a": [], "m": ["a"], "b": [] if inside else ["m"], "c": ["b"]}
    p = make_plan(shape, inside=inside)
    store.submit(p)
    run_all(store, p)
    old = look_at(store, node(p, "c"))
    store.rewind(p.id, 1, chosen=((1, 4),))

    run_all(store, p, {"a": S.FAILED})

    assert (old.state, look_at(store, node(p, "c")).state) == (S.SUCCESS, S.BLOCKED)
    assert raw.exists(f"{{{store_name}}}:d") == 0
    store.rewind(p.id, 2, chosen=((1, 4),))
    deliveries = []
    while step := store.step("v", want=9).deliveries:
        deliveries += [d.delivery for d in step]
        store.step("v", [end(d) for d in step])
    assert min(deliveries[1:]) > 1  # what settled it once settles it no more
