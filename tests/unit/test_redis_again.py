# SPDX-License-Identifier: MIT
"""Rewinds of what goes on, forks and limits on Redis: kills between scripts, what is left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowq.message import Message, new_id
from flowq.outcome import Expand
from flowq.plan import Phase, Plan, When
from flowq.states import State
from flowq.storage.base import PAGE
from flowq.storage.redis.store import RedisStore
from flowq.testing.clock import ManualClock
from flowq.testing.contract.again import info_of, nodes_of, park
from flowq.testing.contract.along import items_along, two_maps
from flowq.testing.contract.base import (
    done,
    end,
    make_plan,
    node,
    pass_time,
    run_all,
    states_of,
    task,
)
from flowq.testing.contract.beside import renamed
from flowq.testing.contract.limits import with_limits
from flowq.testing.contract.policies import with_later
from flowq.testing.contract.rewind import at as places

MANY = PAGE + 100


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(redis_url: str, store_name: str, clock: ManualClock) -> Iterator[RedisStore]:
    made = RedisStore(redis_url, name=store_name, clock=clock)
    yield made
    made.close()


def die(store: RedisStore, patch: pytest.MonkeyPatch, after: int) -> None:
    """Let the process end after so many scripts."""
    left = after

    def run(name: str, *args: bytes, **how: Any) -> Any:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        return RedisStore._run(store, name, *args, **how)

    patch.setattr(store, "_run", run)


def is_rewound(store: RedisStore, plan: Plan) -> bool:
    """Whether nothing of a new generation is left to do."""
    return not store._wire.ask(b"HEXISTS", store._key + b"n:" + plan.id, b"w")


def keys_of(store: RedisStore) -> set[str]:
    """Give all keys of a store, but for those that are there once."""
    size = len(store._key)
    found = store._wire.ask(b"KEYS", store._key.replace(b"[", b"\\[") + b"*")
    return {key[size:].decode("latin-1") for key in found}


def wide() -> Plan:
    """A run of many tasks that may run at once, one that takes long, and what waits for that."""
    leaves: dict[str, list[str]] = {f"n{k}": [] for k in range(MANY)}
    return make_plan({"long": [], **leaves, "z": ["long"]})


def leaves_of(plan: Plan) -> list[str]:
    return [row.name for row in plan.rows if row.name[0] == "n"]


def sweep(store: RedisStore) -> None:
    while store.sweep().more:
        pass


# --- kills between pages -------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(1, 5))
def test_a_rewind_that_was_killed_is_done_before_anything_of_its_run_moves(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    p = wide()
    store.submit(p)
    (long,) = store.step("w", want=1).deliveries
    seen = info_of(store, p).changes
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die(store, patch, after)
        store.rewind(p.id, 1, chosen=places(p, *leaves_of(p)), seen=seen)
    assert is_rewound(store, p) == (after == 4)

    step = store.step("w", [end(long)], want=1)

    assert step.verdicts == ["settled"]
    assert is_rewound(store, p)
    assert {info.generation for info in nodes_of(store, p).values()} == {0, 1}
    assert store.check(p.id) == []
    store.step("w", done(step))
    assert len(run_all(store, p)) == MANY
    assert set(states_of(store, p).values()) == {"success"}


@pytest.mark.parametrize("what", ["take", "send", "release", "sweep", "cancel", "reschedule"])
def test_whoever_comes_to_a_run_drives_its_rewind_to_the_end(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    p = wide()
    store.submit(p)
    (long,) = store.step("w", want=1).deliveries
    seen = info_of(store, p).changes
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die(store, patch, 2)
        store.rewind(p.id, 1, chosen=places(p, *leaves_of(p)), seen=seen)
    assert not is_rewound(store, p)

    match what:
        case "take":
            assert len(store.step("v", want=5).deliveries) == 5
            store.release("v")
        case "send":
            assert store.send(p.id, "go", b"x") == "kept"
        case "release":
            store.release("w", lost=[long.id])
        case "sweep":
            sweep(store)
        case "cancel":
            assert store.cancel([node(p, "n0")]) == [State.CANCELLED]
        case "reschedule":
            assert store.reschedule(node(p, "n0"), delay_ms=5_000) == State.SCHEDULED

    assert is_rewound(store, p)
    assert store.check(p.id) == []


@pytest.mark.parametrize("after", range(1, 4))
def test_a_cancel_of_a_run_takes_all_back_that_is_parked_though_it_was_killed(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    n = 2 * PAGE + 50
    p = make_plan({f"n{k}": [] for k in range(n)})
    p = with_later(p, "root", [(Phase.FINALLY, When.ALWAYS, {"clean": []})])
    store.submit(p)
    held = [d for _ in range(2) for d in store.step("w", want=1_000).deliveries]
    park(store, p, leaves_of(p))
    for first in range(0, n, 500):
        store.step("w", [end(d) for d in held[first : first + 500]])
    assert states_of(store, p)["n7"] == "held"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die(store, patch, after)
        store.cancel([p.id])

    assert run_all(store, p) == ["clean"]

    states = states_of(store, p)
    assert states["root"] == "cancelled"
    assert {states[name] for name in leaves_of(p)} == {"success"}
    assert store.check(p.id) == []
    assert nodes_of(store, p)["n7"].parked is None


@pytest.mark.parametrize("after", range(2, 9))
def test_a_fork_that_was_killed_is_seen_whole_or_not_at_all(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    n = 3 * PAGE
    p = make_plan({f"n{k}": [] for k in range(n)})
    store.submit(p)
    run_all(store, p, {"n5": State.FAILED})
    new, seen = new_id(), info_of(store, p).changes
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die(store, patch, after)
        store.fork(p.id, new, seen=seen, chosen=places(p, "n5"))
        raise Killed
    q = renamed(p, new)
    if store.run(new) is None:
        assert store.look([new]) == [None]
        assert store.nodes(new) == []

    assert store.fork(p.id, new, seen=seen, chosen=places(p, "n5")) is True

    assert store.check(new) == []
    assert run_all(store, q) == ["n5"]
    assert set(states_of(store, q).values()) == {"success"}


def test_a_fork_of_what_moves_meanwhile_is_given_up(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = make_plan({f"n{k}": [] for k in range(3 * PAGE)})
    store.submit(p)
    run_all(store, p)
    new, seen = new_id(), info_of(store, p).changes
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die(store, patch, 1)
        store.fork(p.id, new, seen=seen, chosen=places(p, "n5"))
    store.rewind(p.id, 1, chosen=places(p, "n0"))

    assert store.fork(p.id, new, seen=seen, chosen=places(p, "n5")) is False

    assert not {key for key in keys_of(store) if new.decode("latin-1") in key}


def test_a_run_whose_end_was_parked_ends_when_it_is_taken_back(
    store: RedisStore, clock: ManualClock
) -> None:
    p = make_plan({"a": []})
    p = with_later(p, "root", [(Phase.FINALLY, When.ALWAYS, {"clean": []})])
    store.submit(p)
    step = store.step("w", done(store.step("w", want=1)), want=1)
    park(store, p, ["root"])
    store.step("w", done(step))
    over = clock.now_ms()

    pass_time(store, clock, 20)
    store.cancel([p.id])

    assert nodes_of(store, p)["root"].ended_ms == over
    assert info_of(store, p).ended_ms == clock.now_ms()
    assert store.rewind(p.id, 1, chosen=places(p, "a", "clean"))
    assert info_of(store, p).ended_ms == 0
    run_all(store, p)
    assert info_of(store, p).ended_ms == clock.now_ms()


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", range(1, 4))
def test_all_that_wait_are_let_in_page_by_page_whoever_is_killed(
    store: RedisStore, pages: int
) -> None:
    n = 2 * PAGE
    each: dict[str, Any] = {f"t{k}": {"limits": (("all", n),)} for k in range(n)}
    wall: dict[str, Any] = {f"w{k}": {"limits": (("all", n),)} for k in range(n)}
    p = make_plan({name: [] for name in wall}, messages=wall)
    q = make_plan({name: [] for name in each}, messages=each)
    store.submit(p)
    store.submit(q)
    assert store.places(node(q, "t0"))[0].waiting == n

    store._run("cancel", b"0", p.id)  # and its process is killed, as are those of others
    for _ in range(pages - 1):
        store._run("page")
    sweep(store)

    assert states_of(store, p)["root"] == "cancelled"
    assert set(states_of(store, q).values()) == {"expanded", "queued"}
    assert store.places(node(q, "t0"))[0].taken == n
    assert len(run_all(store, q)) == n
    assert store.places(node(q, "t0"))[0].taken == 0


def test_of_limits_under_which_nobody_is_nothing_is_left(store: RedisStore) -> None:
    p = with_limits(5, ("/run", 1), ("all", 2))
    store.submit(p)

    run_all(store, p)

    assert not {k for k in keys_of(store) if k.startswith(("taken", "wanted"))}


def test_of_a_bound_on_what_goes_along_nothing_is_left(store: RedisStore) -> None:
    p = two_maps(4)
    store.submit(p)
    given = {d.id: d for d in store.step("w", want=10).deliveries}
    b = given.pop(node(p, "b"))
    rows = items_along(p, [("a", "a0")], 4, most=1)
    store.step("w", [Expand(b.id, b.delivery, rows)])
    store.step("w", [end(d) for d in given.values()])
    assert {k for k in keys_of(store) if k.startswith("able")}

    store.cancel([p.id])

    assert not {k for k in keys_of(store) if k.startswith("able")}


# --- what bodies started --------------------------------------------------------------------------


def test_what_was_started_is_forgotten_with_what_it_is_of(
    store: RedisStore, clock: ManualClock
) -> None:
    alone, p = task(), make_plan({"a": []})
    store.enqueue([alone])
    store.submit(p)
    store.enqueue([task(parent=alone.id), task(parent=node(p, "a"))])
    assert len({k for k in keys_of(store) if k.startswith("started")}) == 2

    pass_time(store, clock, 3 * 86_400)
    sweep(store)
    assert len(store.started(alone.id)) == len(store.started(p.id)) == 1  # they go on
    while step := store.step("w", want=5).deliveries:
        store.step("w", [end(d) for d in step])
    for _ in range(3):
        pass_time(store, clock, 2 * 86_400)
        sweep(store)

    assert store.started(alone.id) == store.started(p.id) == []
    assert not {k for k in keys_of(store) if k.startswith("started")}


# --- the line of those that lost a worker ---------------------------------------------------------


def test_what_has_left_the_line_is_before_nobody(store: RedisStore) -> None:
    gone, lost, late = (Message(new_id(), "t", b"P") for _ in range(3))
    for session, message in (("v", gone), ("w", lost), ("u", late)):
        store.enqueue([message])
        store.step(session, want=1)
    store.release("v")  # back it goes
    store.release("w", lost=[lost.id])  # behind that
    store.cancel([gone.id])
    store.release("u")

    (first,) = store.step("x", want=1).deliveries

    assert first.id == lost.id
