# SPDX-License-Identifier: MIT
"""Graphs that grow and stop on Redis: what a crash between two calls leaves, and large pages."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
import redis

from flowq.message import Message, node_id
from flowq.outcome import Expand, Outcome
from flowq.plan import Bits, Plan, Ranges
from flowq.states import State
from flowq.storage.base import PAGE, SUBMIT_PAGE
from flowq.storage.redis import rows
from flowq.storage.redis.store import RedisStore
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
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
from flowq.testing.contract.policies import edited

WIDE = {f"n{i}": () for i in range(SUBMIT_PAGE + 10)}


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


def test_what_a_lost_worker_had_uploaded_is_seen_by_nobody_and_goes_with_its_run(
    store: RedisStore, clock: ManualClock, raw: redis.Redis, store_name: str
) -> None:
    p = make_plan({"x": []}, ttl={"result_ttl_ms": 3_600_000})
    store.submit(p)
    (lost,) = store.step("w", want=1).deliveries
    store._reserve("w", [Expand(lost.id, 1, fragment(WIDE))])  # and then it was killed
    store.release("w", lost=[lost.id])

    assert [n.name for n in store.nodes(p.id)] == ["root", "x"]
    assert store.look([p.id + (2).to_bytes(4, "big")]) == [None]
    assert store.cancel([p.id + (2).to_bytes(4, "big")]) == [None]
    (again,) = store.step("w", want=1).deliveries
    store.step("w", [Expand(again.id, 2, fragment({"i": []}))])
    assert store.check(p.id) == []
    run_all(store, p)

    assert states_of(store, p) == {"root": "success", "x": "success", "i": "success"}
    assert store.check(p.id) == []
    pass_time(store, clock, 3_601)
    while store.sweep().more:
        pass
    assert not list(raw.scan_iter(match=b"{%b}:[ncv]:%b" % (store_name.encode(), p.id)))


def test_a_task_alone_begins_its_run_anew_after_a_lost_upload(store: RedisStore) -> None:
    message = task()
    store.enqueue([message])
    (lost,) = store.step("w", want=1).deliveries
    store._reserve("w", [Expand(lost.id, 1, fragment(WIDE))])
    store.release("w", lost=[lost.id])

    assert store.run(message.id) is None
    (again,) = store.step("w", want=1).deliveries
    store.step("w", [Expand(again.id, 2, fragment({"i": []}))])

    assert [n.name for n in store.nodes(message.id)] == ["t.add", "i"]
    store.step("w", done(store.step("w", want=5)))
    assert look_at(store, message.id).state == State.SUCCESS
    assert store.check(message.id) == []


def test_a_task_whose_upload_was_forgotten_meanwhile_runs_again(
    store: RedisStore, raw: redis.Redis, store_name: str
) -> None:
    message = task()
    store.enqueue([message])
    (first,) = store.step("w", want=1).deliveries
    outcome = Expand(first.id, 1, fragment(WIDE))
    reserve = store._reserve

    def forget(session: str, outcomes: list[Outcome]) -> dict[bytes, bytes]:
        made = reserve(session, outcomes)
        raw.delete(*(b"{%b}:%b:%b" % (store_name.encode(), k, message.id) for k in (b"n", b"c")))
        return made

    store._reserve = forget  # type: ignore[method-assign, assignment]
    store.step("w", [outcome])
    store._reserve = reserve  # type: ignore[method-assign]

    assert look_at(store, message.id).state == State.QUEUED
    (again,) = store.step("w", want=1).deliveries
    assert (again.id, again.delivery) == (message.id, 2)


@pytest.mark.parametrize("alone", [True, False])
def test_what_has_expanded_does_not_expire_any_more(
    store: RedisStore, clock: ManualClock, alone: bool
) -> None:
    message = task(expires_in_ms=5_000)
    p = make_plan({"x": []}, messages={"x": {"expires_in_ms": 5_000}})
    if alone:
        store.enqueue([message])
    else:
        store.submit(p)
    (x,) = store.step("w", want=1).deliveries
    store.step("w", [Expand(x.id, 1, fragment({"i": []}))])

    clock.advance(6)
    store.sweep()

    assert look_at(store, x.id).state == State.EXPANDED
    run = message.id if alone else p.id
    assert store.check(run) == []


def test_what_was_done_in_the_step_that_stops_all_else_stays_done(store: RedisStore) -> None:
    p = make_plan({"bad": [], "m": [], "in": [], "other": []}, inside={"in": "m", "other": "m"})
    rows_ = [
        msgspec.structs.replace(r, bits=int(Bits.STOPS)) if r.name == "bad" else r for r in p.rows
    ]
    p = Plan(p.id, p.name, rows_)
    store.submit(p)
    held = {d.id: d for d in store.step("w", want=9).deliveries}
    bad, inner, other = (held[node(p, n)] for n in ("bad", "in", "other"))

    store.step("w", [end(inner), end(bad, State.FAILED)])
    store.step("w", [end(other)])

    assert states_of(store, p) == {
        "root": "failed",
        "bad": "failed",
        "m": "cancelled",
        "in": "success",
        "other": "cancelled",
    }
    assert store.check(p.id) == []


def test_rows_are_cut_into_pages_by_number_and_by_bytes() -> None:
    small, large = b"x", bytes(5 * 1024 * 1024)

    def sizes(*raw: bytes, most: int = SUBMIT_PAGE) -> list[tuple[int, int]]:
        return [(first, len(page)) for first, page in rows.pages(raw, most)]

    assert sizes() == [(0, 0)]
    assert sizes(*[small] * (SUBMIT_PAGE + 1)) == [(0, SUBMIT_PAGE), (SUBMIT_PAGE, 1)]
    assert sizes(small, large, large, small) == [(0, 2), (2, 2)]
    assert sizes(*[small] * 5, most=2) == [(0, 2), (2, 2), (4, 1)]


def test_a_queue_that_only_a_later_page_names_is_served(store: RedisStore) -> None:
    p = make_plan(WIDE)
    last = p.rows[-1]
    assert last.message is not None
    elsewhere = msgspec.structs.replace(last.message, queue="elsewhere", priority=7)
    p.rows[-1] = msgspec.structs.replace(last, message=elsewhere)

    store.submit(p)

    (only,) = store.step("w", want=10, queues=["elsewhere"]).deliveries
    assert only.id == node_id(p.id, len(p.rows) - 1)
    assert len(store.step("w", [end(only)], want=100).deliveries) == 100


def test_large_payloads_grow_and_start_in_several_pages(store: RedisStore) -> None:
    payload = bytes(3 * 1024 * 1024)
    message = Message(b"", "t.add", payload)
    p = make_plan({"x": [], "y": []})
    p = Plan(
        p.id, p.name, [msgspec.structs.replace(r, message=r.message and message) for r in p.rows]
    )
    big = [
        msgspec.structs.replace(r, message=r.message and message)
        for r in fragment({f"n{i}": [] for i in range(5)})
    ]
    store.submit(p)
    x, y = store.step("w", want=2).deliveries

    store.step("w", [Expand(x.id, 1, big), end(y)])

    handed = [d for _ in range(5) for d in store.step("w", want=1).deliveries]
    assert [len(d.body) > len(payload) for d in handed] == [True] * 5
    store.step("w", [end(d) for d in handed])
    assert look_at(store, p.id).state == State.SUCCESS
    assert store.check(p.id) == []


def test_an_empty_fragment_shows_nothing_of_one_that_is_still_brought(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = make_plan({"x": [], "y": []})
    store.submit(p)
    x, y = store.step("w", want=2).deliveries
    empty = store._reserve("w", [Expand(x.id, 1, fragment({}))])
    store._reserve("w", [Expand(y.id, 1, fragment(WIDE))])

    monkeypatch.setattr(store, "_reserve", lambda session, outcomes: empty)
    assert store.step("w", [Expand(x.id, 1, fragment({}))]).verdicts == ["settled"]

    assert [n.name for n in store.nodes(p.id)] == ["root", "x", "y"]
    assert store.check(p.id) == []


# --- a new generation whose maker was killed ------------------------------------------------------


def begin_to_rewind(
    store: RedisStore, plan: Plan, chosen: Ranges, pages: int, around: Ranges = ((0, 1),)
) -> None:
    """As `rewind` does, and then its process is killed."""
    sets = [rows.pack_ranges(x) for x in (chosen, around, (), chosen)]
    assert store._run("rewind", plan.id, b"1", *sets, b"-1") == b"more"
    for _ in range(pages - 1):
        store._run("rewind", plan.id, b"-1")


@pytest.mark.parametrize("pages", range(1, 6))
def test_a_generation_that_was_left_is_made_by_one_sweep_after_the_other(
    store: RedisStore, pages: int
) -> None:
    wide = {f"n{i}": () for i in range(2 * PAGE)}
    p = make_plan(wide)
    store.submit(p)
    run_all(store, p)
    begin_to_rewind(store, p, ((1, 2 * PAGE),), pages)

    assert store.left(["default"])
    assert store.sweep().more
    while store.sweep().more:
        pass

    assert store.check(p.id) == []
    assert len(run_all(store, p)) == 2 * PAGE
    assert states_of(store, p)["root"] == "success"
    assert not store.left(["default"])


def test_one_that_has_ended_before_its_last_page_can_run_again(store: RedisStore) -> None:
    wide = {f"n{i}": () for i in range(2 * PAGE)}
    p = make_plan(wide, bits=dict.fromkeys(wide, Bits.STOPS))
    store.submit(p)
    run_all(store, p)
    everything: Ranges = ((1, 2 * PAGE),)
    begin_to_rewind(store, p, everything, 5)
    (bad, *_) = store.step("w", want=1).deliveries
    store.step("w", [end(bad, State.FAILED)])
    while store.step("w").next_ms == 0:
        pass
    assert states_of(store, p)["root"] == "failed"

    assert store.rewind(p.id, 2, chosen=everything) is True

    assert store.nodes(p.id, limit=1)[0].generation == 2
    assert states_of(store, p)["root"] == "expanded"
    assert store.check(p.id) == []
    assert len(run_all(store, p)) == 2 * PAGE
    assert states_of(store, p)["root"] == "success"


@pytest.mark.parametrize("pages", range(1, 9))
def test_a_deadline_that_passes_while_one_is_made_leaves_nothing_behind(
    store: RedisStore, clock: ManualClock, pages: int
) -> None:
    items = [f"i{k}" for k in range(2 * PAGE)]
    shape: dict[str, list[str]] = {"m": [], "after": ["m"], **{i: [] for i in items}}
    p = edited(make_plan(shape, inside=dict.fromkeys(items, "m")), "m", deadline_ms=5_000)
    store.submit(p)
    run_all(store, p, dict.fromkeys(items, State.FAILED))
    begin_to_rewind(store, p, ((2, 2 * PAGE + 1),), pages, around=((0, 2),))

    for _ in range(20):
        clock.advance(6)
        store.step("w")
        store.sweep()

    states = states_of(store, p)
    assert (states["root"], states["m"], states["after"]) == ("failed", "failed", "blocked")
    assert {states[i] for i in items} == {"cancelled"}
    assert store.check(p.id) == []
