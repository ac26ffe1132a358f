# SPDX-License-Identifier: MIT
"""The store's contract on SQLite, on a file and in memory, with the time held."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from flowq.errors import Failure
from flowq.message import (
    CULPRIT,
    EMPTY,
    NO_NODE,
    TEMPLATE,
    Message,
    new_id,
    node_id,
    pack_cell,
    read_cell,
)
from flowq.outcome import Cancelled, Done, Failed, GiveBack, Outcome, RetryAt, Skipped, Unknown
from flowq.plan import Kind, NodeRow, Plan, ranges_of
from flowq.states import State, trigger_rule
from flowq.storage.base import MEMORY_OF_ENDED_MS, UNKNOWN_PATIENCE_MS, SessionInfo, Step
from flowq.storage.sqlite.store import SqliteStore

DAY = 86_400_000


class HeldClock:
    def __init__(self) -> None:
        self.ms = 1_000_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def fixed_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=["file", "memory"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock
) -> Iterator[SqliteStore]:
    url = f"sqlite:///{tmp_path}/x.db" if request.param == "file" else "memory://"
    found = SqliteStore.from_url(url, clock=clock)
    yield found
    found.close()


def task(**more: object) -> Message:
    return Message(new_id(), "t.add", b"P", **more)  # type: ignore[arg-type]


def cell(state: State, body: bytes = b"x") -> bytes:
    return pack_cell(state, body, delivery=1, started_ms=5, ended_ms=9)


def done(step: Step) -> list[Outcome]:
    return [Done(d.id, d.delivery, cell(State.SUCCESS)) for d in step.deliveries]


def pass_time(store: SqliteStore, clock: HeldClock, ms: int) -> None:
    """Let time pass in which the store is in use."""
    while ms > 0:
        clock.ms += min(ms, 9_000)
        ms -= 9_000
        store.renew([])


def plan(
    shape: dict[str, list[str]],
    rules: dict[str, str] | None = None,
    inside: dict[str, str] | None = None,
    joins: tuple[str, ...] = (),
    **message: object,
) -> Plan:
    """Node -> its parents; `inside` says in which expansion a node stands."""
    rules, inside = rules or {}, inside or {}
    names = list(shape)
    at = {name: i for i, name in enumerate(names, 1)}
    owners = {name: at[inside[name]] if name in inside else 0 for name in names}
    rows = []
    for i, name in enumerate(["", *names]):
        body = [n for n in names if owners[n] == i]
        expansion = not i or bool(body)
        kind = Kind.EXPANSION if expansion else Kind.JOIN if name in joins else Kind.TASK
        parents = ranges_of(at[p] for p in shape.get(name, ()))
        rows.append(
            NodeRow(
                name=name or "root",
                kind=kind,
                owner=owners[name] if i else NO_NODE,
                rule=trigger_rule(rules.get(name, "all_success"), len(shape.get(name, ()))),
                parents=parents,
                children=ranges_of(at[c] for c in names if name in shape[c]),
                reads=parents,
                message=Message(b"", "t.add", b"P", name=name, **message)  # type: ignore[arg-type]
                if kind == Kind.TASK
                else None,
                entries=ranges_of(at[n] for n in body if not shape[n]) if expansion else (),
                inner=len(body) if expansion else 0,
                value=b"template" if expansion else b"",
            )
        )
    return Plan(new_id(), "p", rows)


def states(store: SqliteStore, plan: Plan) -> dict[str, str]:
    return {n.name: n.state.label for n in store.nodes(plan.id)}


def run_all(store: SqliteStore, plan: Plan, ends: dict[str, State] | None = None) -> list[str]:
    """Run what is ready until nothing is; gives the names in the order of hand-out."""
    order: list[str] = []
    outcomes: list[Outcome] = []
    while True:
        step = store.step("w", outcomes, want=100)
        outcomes = []
        for d in step.deliveries:
            name = plan.rows[int.from_bytes(d.id[16:], "big")].name
            order.append(name)
            state = (ends or {}).get(name, State.SUCCESS)
            kind = {State.SUCCESS: Done, State.FAILED: Failed, State.SKIPPED: Skipped}[state]
            outcomes.append(kind(d.id, d.delivery, cell(state)))
        if not outcomes and not step.ready:
            assert store.check(plan.id) == []
            return order


# --- taking in


def test_an_enqueue_can_be_repeated_and_says_what_is_new(store: SqliteStore) -> None:
    a, b, c = task(), task(), task()

    assert store.enqueue([a, b]) == [True, True]
    assert store.enqueue([b, c, c]) == [False, True, False]
    assert store.status().queues[0].ready == 3


def test_an_id_is_remembered_ten_minutes_after_its_end_and_then_free(
    store: SqliteStore, clock: HeldClock
) -> None:
    message = task(result_ttl_ms=1_000)
    store.enqueue([message])
    store.step("w", done(store.step("w", want=1)))

    clock.ms += MEMORY_OF_ENDED_MS - 1
    assert store.enqueue([message]) == [False]
    clock.ms += 1
    assert store.look([message.id]) == [None]
    assert store.enqueue([message]) == [True]
    look = store.look([message.id])[0]
    assert look is not None
    assert look.state == State.QUEUED


def test_nothing_is_kept_of_a_value_without_time_to_live(store: SqliteStore) -> None:
    message = task(result_ttl_ms=0)
    store.enqueue([message])

    store.step("w", done(store.step("w", want=1)))

    look = store.look([message.id])[0]
    assert look is not None
    assert look.cell is not None
    kept = read_cell(look.cell)
    assert (kept.state, kept.flags, kept.body) == (State.SUCCESS, EMPTY, b"")


# --- settling


def test_a_settlement_is_fenced_by_its_delivery(store: SqliteStore) -> None:
    message = task()
    store.enqueue([message])
    step = store.step("w", want=1)
    late = Done(message.id, 7, cell(State.SUCCESS))

    assert store.step("w", [late]).verdicts == ["stale"]
    assert store.step("other", done(step)).verdicts == ["stale"]
    assert store.step("w", done(step)).verdicts == ["settled"]
    assert store.step("w", done(step)).verdicts == ["repeated"]
    assert store.step("w", [Done(new_id(), 1, b"")]).verdicts == ["stale"]


def test_a_taken_back_delivery_cannot_be_settled(store: SqliteStore) -> None:
    store.enqueue([task()])
    step = store.step("w", want=1)

    store.release("w")

    assert store.step("w", done(step)).verdicts == ["stale"]
    again = store.step("w", want=1)
    assert again.deliveries[0].delivery == 2
    assert store.step("w", done(step)).verdicts == ["stale"]
    assert store.step("w", done(again)).verdicts == ["settled"]


def test_a_retry_waits_counts_an_attempt_and_goes_before_what_was_enqueued(
    store: SqliteStore, clock: HeldClock
) -> None:
    first, second = task(), task()
    store.enqueue([first])
    step = store.step("w", want=1)
    store.enqueue([second])

    step = store.step("w", [RetryAt(first.id, step.deliveries[0].delivery, 5_000)])
    assert step.next_ms == 5_000
    clock.ms += 5_000
    step = store.step("w", want=5)

    assert [d.id for d in step.deliveries] == [first.id, second.id]
    assert (step.deliveries[0].attempt, step.deliveries[0].losses) == (1, 0)


def test_what_is_given_back_counts_nothing(store: SqliteStore) -> None:
    message = task()
    store.enqueue([message, task()])
    step = store.step("w", want=1)

    step = store.step("w", [GiveBack(message.id, 1)], want=1)

    given = step.deliveries[0]
    assert (given.id, given.delivery, given.attempt, given.losses) == (message.id, 2, 0, 0)


def test_a_task_that_nobody_knows_comes_back_later_each_time_and_then_is_dead(
    store: SqliteStore, clock: HeldClock
) -> None:
    message = task()
    store.enqueue([message])
    waits = []
    start = clock.ms

    while True:
        step = store.step("w", want=1)
        if step.deliveries:
            d = step.deliveries[0]
            step = store.step("w", [Unknown(d.id, d.delivery, cell(State.FAILED))])
        if store.dead():
            break
        assert step.next_ms is not None
        waits.append(step.next_ms)
        pass_time(store, clock, step.next_ms)

    assert waits == sorted(waits)
    assert waits[0] < waits[-1] <= 60_000
    assert UNKNOWN_PATIENCE_MS <= clock.ms - start <= UNKNOWN_PATIENCE_MS + 60_000
    letter = store.dead_letter(message.id)
    assert letter is not None
    assert letter.reason == "unknown task"
    assert store.message(message.id) == letter.body


# --- handing out


def test_the_highest_priority_goes_first_over_all_queues(store: SqliteStore) -> None:
    low, high, other = task(priority=-5), task(priority=9), task(priority=3, queue="b")
    same = task(priority=3)
    store.enqueue([low, high, other, same])

    step = store.step("w", want=10, queues=("b", "default"))

    assert [d.id for d in step.deliveries] == [high.id, other.id, same.id, low.id]


def test_a_session_takes_no_more_than_its_share(store: SqliteStore) -> None:
    for name in "abc":
        store.open_session(SessionInfo(name))
    store.enqueue([task() for _ in range(10)])

    assert len(store.step("a", want=100).deliveries) == 4
    assert len(store.step("b", want=2).deliveries) == 2
    assert store.step("c", want=100).ready == 2


def test_a_message_that_asks_for_it_comes_alone_in_its_step(store: SqliteStore) -> None:
    plain, picky, last = task(), task(prefetch=1), task()
    store.enqueue([plain, picky, last])

    given = [[d.id for d in store.step("w", want=5).deliveries] for _ in range(3)]

    assert given == [[plain.id], [picky.id], [last.id]]


def test_what_is_delayed_is_not_seen_before_its_time(store: SqliteStore, clock: HeldClock) -> None:
    soon, at = task(delay_ms=2_000), task(due_ms=clock.ms + 1_000)
    store.enqueue([soon, at])

    step = store.step("w", want=5)
    assert (step.deliveries, step.ready, step.next_ms) == ([], 0, 1_000)
    clock.ms += 2_000

    assert [d.id for d in store.step("w", want=5).deliveries] == [at.id, soon.id]


@pytest.mark.parametrize("by", ["step", "sweep"])
def test_what_was_not_begun_in_time_fails(store: SqliteStore, clock: HeldClock, by: str) -> None:
    late, fine = task(expires_in_ms=1_000), task()
    store.enqueue([late, fine])
    clock.ms += 1_000

    if by == "sweep":
        assert store.sweep().expired == 1
    step = store.step("w", want=5)

    assert [d.id for d in step.deliveries] == [fine.id]
    assert step.ready == 0
    look = store.look([late.id])[0]
    assert look is not None
    assert look.cell is not None
    failure = msgspec.msgpack.decode(read_cell(look.cell).body, type=Failure)
    assert (failure.reason, failure.task) == ("expired", "t.add")


def test_a_body_that_began_in_time_does_not_expire(store: SqliteStore, clock: HeldClock) -> None:
    message = task(expires_in_ms=1_000)
    store.enqueue([message])
    step = store.step("w", want=1)

    clock.ms += 5_000
    store.sweep()

    assert store.step("w", done(step)).verdicts == ["settled"]


# --- sessions and losses


def test_a_lost_message_goes_alone_to_a_session_that_holds_nothing(
    store: SqliteStore, clock: HeldClock
) -> None:
    poison, neighbour = task(), task()
    store.enqueue([poison, neighbour])
    store.step("dead", want=5)
    busy = task()
    store.enqueue([busy])
    pass_time(store, clock, 15_000)
    held = store.step("busy", want=1)
    assert held.deliveries[0].id == busy.id
    pass_time(store, clock, 15_000)

    step = store.step("busy", want=5)
    assert (step.deliveries, step.ready, step.alone) == ([], 2, True)

    store.enqueue([task()])
    first = store.step("idle", want=5)
    assert [(d.id, d.losses) for d in first.deliveries] == [(poison.id, 1)]
    assert store.step("idle", want=5).deliveries == []
    second = store.step("idle", done(first), want=5)
    assert [d.id for d in second.deliveries] == [neighbour.id]


def test_a_message_that_loses_too_many_workers_is_dead_with_its_history(
    store: SqliteStore,
) -> None:
    message = task(max_losses=2)
    store.enqueue([message])

    for name in "ab":
        store.open_session(SessionInfo(name, host="h", pid=7))
        store.step(name, want=1)
        assert store.release(name, lost=[message.id], reason="SIGKILL") == 1

    letter = store.dead()[0]
    assert (letter.id, letter.reason) == (message.id, "lost")
    assert [(x.session, x.host, x.pid, x.delivery, x.reason) for x in letter.losses] == [
        ("a", "h", 7, 1, "SIGKILL"),
        ("b", "h", 7, 2, "SIGKILL"),
    ]
    look = store.look([message.id])[0]
    assert look is not None
    assert look.state == State.FAILED
    assert look.cell is not None
    assert msgspec.msgpack.decode(read_cell(look.cell).body, type=Failure).reason == "lost"


def test_without_tolerance_the_first_loss_is_the_end(store: SqliteStore) -> None:
    message = task(max_losses=0)
    store.enqueue([message])
    store.step("a", want=1)

    store.release("a", lost=[message.id])

    assert [d.id for d in store.dead()] == [message.id]


def test_what_was_not_running_goes_back_uncounted(store: SqliteStore) -> None:
    ran, waited = task(), task()
    store.enqueue([ran, waited])
    store.step("a", want=5)

    assert store.release("a", lost=[ran.id]) == 2
    assert store.release("a", lost=[ran.id]) == 0

    looks = store.look([ran.id, waited.id])
    assert [(x.state, x.losses) for x in looks if x] == [(State.QUEUED, 1), (State.QUEUED, 0)]


def test_time_out_of_reach_does_not_count_against_leases(
    store: SqliteStore, clock: HeldClock
) -> None:
    store.enqueue([task()])
    step = store.step("a", want=1, lease_ms=30_000)

    clock.ms += 3_600_000
    assert store.renew(["b"], period_ms=10_000) == [None]
    other = store.step("b", want=1)

    assert (other.deliveries, other.next_ms) == ([], 20_000)
    assert store.step("a", done(step)).verdicts == ["settled"]


def test_a_session_reads_back_what_it_holds(store: SqliteStore) -> None:
    p = plan({"a": [], "b": ["a"]})
    store.submit(p)
    first = store.step("w", want=1)
    second = store.step("w", done(first), want=1)

    assert store.held("w") == second.deliveries
    assert store.held("nobody") == []


def test_people_see_sessions_with_what_they_hold(store: SqliteStore, clock: HeldClock) -> None:
    info = SessionInfo("a", host="h", boot="b", pid=3, tasks=("t",), queues=("x", "y"))
    store.open_session(info, lease_ms=5_000)
    store.enqueue([task()])
    store.step("a", want=1, lease_ms=5_000)

    assert store.sessions() == [msgspec.structs.replace(info, deadline_ms=clock.ms + 5_000, held=1)]
    clock.ms += 5_000
    assert store.sessions() == []


# --- cancel and reschedule


def test_cancel_ends_what_has_not_begun_and_stops_what_runs(store: SqliteStore) -> None:
    running, queued, later, past = task(), task(), task(delay_ms=5_000), task()
    store.enqueue([past])
    store.step("w", done(store.step("w", want=1)))
    store.enqueue([running])
    step = store.step("w", want=1)
    store.enqueue([queued, later])

    after = store.cancel([running.id, queued.id, later.id, past.id, new_id()])

    assert after == [State.RUNNING, State.CANCELLED, State.CANCELLED, State.SUCCESS, None]
    assert store.renew(["w"]) == [[running.id]]
    assert store.step("w").stops == [running.id]
    assert store.step("w", done(step)).verdicts == ["settled"]
    look = store.look([running.id])[0]
    assert look is not None
    assert look.state == State.CANCELLED
    assert store.step("w", want=5).deliveries == []


@pytest.mark.parametrize("how", ["retry", "give back", "unknown", "lost", "interrupted"])
def test_a_cancelled_body_ends_cancelled_whatever_came_of_it(store: SqliteStore, how: str) -> None:
    message = task()
    store.enqueue([message])
    store.step("w", want=1)
    store.cancel([message.id])

    if how == "lost":
        store.release("w", lost=[message.id])
    else:
        outcome: Outcome = {
            "retry": RetryAt(message.id, 1, 0),
            "give back": GiveBack(message.id, 1),
            "unknown": Unknown(message.id, 1, cell(State.FAILED)),
            "interrupted": Cancelled(message.id, 1, cell(State.CANCELLED, b"why")),
        }[how]
        assert store.step("w", [outcome], want=1).deliveries == []

    look = store.look([message.id])[0]
    assert look is not None
    assert look.state == State.CANCELLED


def test_reschedule_moves_what_has_not_begun(store: SqliteStore, clock: HeldClock) -> None:
    message = task(delay_ms=60_000)
    store.enqueue([message])

    assert store.reschedule(message.id) == State.QUEUED
    assert store.reschedule(message.id, delay_ms=7_000) == State.SCHEDULED
    assert store.step("w", want=1).next_ms == 7_000
    assert store.reschedule(message.id, due_ms=clock.ms) == State.QUEUED
    assert len(store.step("w", want=1).deliveries) == 1
    assert store.reschedule(message.id) == State.RUNNING
    assert store.reschedule(new_id()) is None
    assert store.status().queues[0].ready == 0


# --- runs


def test_a_run_passes_values_down_and_ends_with_its_template(store: SqliteStore) -> None:
    p = plan({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
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


def test_a_failure_blocks_what_depends_on_it_and_names_the_culprit(store: SqliteStore) -> None:
    p = plan(
        {"bad": [], "fine": [], "in": ["bad"], "deep": [], "after": ["in", "fine"], "all": ["in"]},
        rules={"all": "all_done"},
        inside={"deep": "in"},
    )
    store.submit(p)

    order = run_all(store, p, {"bad": State.FAILED})

    assert order == ["bad", "fine", "all"]
    found = states(store, p)
    del found["deep"]
    assert found == {
        "root": "failed",
        "bad": "failed",
        "fine": "success",
        "in": "blocked",
        "after": "blocked",
        "all": "success",
    }
    blamed = {n.name: n.culprit for n in store.nodes(p.id) if n.culprit is not None}
    assert blamed == {"root": 1, "in": 1, "after": 1}


def test_a_failed_expansion_blames_what_failed_inside_it(store: SqliteStore) -> None:
    p = plan({"map": [], "i0": [], "i1": [], "next": ["map"]}, inside={"i0": "map", "i1": "map"})
    store.submit(p)

    run_all(store, p, {"i1": State.FAILED})

    assert states(store, p)["map"] == "failed"
    assert states(store, p)["next"] == "blocked"
    cells = store.cells(p.id, ((0, 9),))
    for index in (0, 1, 4):
        kept = read_cell(cells[index])
        assert (kept.flags, kept.body) == (CULPRIT, (3).to_bytes(4, "big"))


def test_empty_expansions_and_joins_end_by_themselves(store: SqliteStore) -> None:
    p = plan({"a": [], "b": [], "j": ["a", "b"], "c": ["j"]}, joins=("j",))
    store.submit(p)

    assert run_all(store, p) == ["a", "b", "c"]
    kept = read_cell(store.cells(p.id, ((3, 1),))[3])
    assert (kept.state, kept.flags, kept.body) == (State.SUCCESS, EMPTY, b"")

    empty = Plan(new_id(), "empty", [msgspec.structs.replace(p.rows[0], entries=(), inner=0)])
    store.submit(empty)
    look = store.look([empty.id])[0]
    assert look is not None
    assert look.state == State.SUCCESS


def test_more_edges_than_a_page_are_counted_by_who_comes_by(store: SqliteStore) -> None:
    leaves = {f"n{i}": ["a"] for i in range(1_200)}
    p = plan({"a": [], **leaves})
    store.submit(p)

    step = store.step("w", want=1)
    step = store.step("w", done(step))
    assert step.ready == 1_000
    assert store.step("other").ready == 1_200
    assert store.sweep().continued == 0

    assert len(run_all(store, p)) == 1_200
    assert states(store, p)["root"] == "success"


def test_a_skip_of_many_levels_is_walked_in_pages(store: SqliteStore) -> None:
    chain = {"n0": [], **{f"n{i}": [f"n{i - 1}"] for i in range(1, 1_600)}}
    p = plan(chain)
    store.submit(p)

    store.step(
        "w", [Skipped(d.id, 1, cell(State.SKIPPED)) for d in store.step("w", want=1).deliveries]
    )
    n = 0
    while store.sweep().continued:
        n += 1

    assert n >= 1
    assert set(states(store, p).values()) == {"skipped"} | {"success"}
    assert store.check(p.id) == []


def test_an_answer_carries_a_bounded_number_of_bytes(store: SqliteStore) -> None:
    wide = {f"n{i}": [] for i in range(4)}
    p = plan({**wide, "all": list(wide)})
    store.submit(p)
    big = b"x" * 400_000
    step = store.step("w", want=9)
    outcomes = [Done(d.id, 1, cell(State.SUCCESS, big)) for d in step.deliveries]

    given = store.step("w", outcomes, want=1).deliveries[0]

    assert len(given.values) == 2
    assert not given.complete
    assert len(store.cells(p.id, ((1, 4),))) == 4


def test_nodes_of_a_run_expire_and_start_late_as_tasks_alone_do(
    store: SqliteStore, clock: HeldClock
) -> None:
    p = plan({"a": []}, delay_ms=1_000, expires_in_ms=5_000)
    store.submit(p)
    assert states(store, p)["a"] == "scheduled"

    clock.ms += 5_000
    store.step("w", want=1)

    assert states(store, p) == {"root": "failed", "a": "failed"}


def test_a_cancelled_node_ends_what_waits_for_it(store: SqliteStore) -> None:
    p = plan({"a": [], "b": ["a"], "c": ["a"]}, rules={"c": "all_done"})
    store.submit(p)

    assert store.cancel([node_id(p.id, 1)]) == [State.CANCELLED]

    assert run_all(store, p) == ["c"]
    assert states(store, p) == {
        "root": "cancelled",
        "a": "cancelled",
        "b": "cancelled",
        "c": "success",
    }


def test_lists_page_and_filter(store: SqliteStore, clock: HeldClock) -> None:
    plans = [plan({f"n{i}": [] for i in range(5)}) for _ in range(3)]
    for p in plans:
        store.submit(p)
        clock.ms += 1
    run_all(store, plans[0], {"n1": State.FAILED})

    assert [r.id for r in store.runs(limit=2)] == [plans[2].id, plans[1].id]
    assert [r.id for r in store.runs(after=plans[1].id)] == [plans[0].id]
    assert [n.index for n in store.nodes(plans[0].id, after=2, limit=2)] == [3, 4]
    failed = store.nodes(plans[0].id, state=State.FAILED)
    assert [n.name for n in failed] == ["root", "n1"]
    assert store.nodes(plans[0].id, after=5) == []
    assert store.run(new_id()) is None
    assert store.nodes(new_id()) == []


# --- housekeeping


def test_what_has_ended_goes_when_its_time_is_over_and_nothing_else(
    store: SqliteStore, clock: HeldClock
) -> None:
    ended, open_, failed = plan({"a": []}), plan({"a": []}), plan({"a": []})
    single, unfinished = task(), task(delay_ms=90 * DAY)
    store.submit(ended)
    store.enqueue([single, unfinished])
    store.step("w", done(store.step("w", want=5)))
    store.submit(failed)
    bad = [Failed(d.id, 1, cell(State.FAILED), "bad") for d in store.step("w", want=5).deliveries]
    store.step("w", bad)
    store.submit(open_)

    clock.ms += DAY
    assert store.look([ended.id, single.id]) == [None, None]
    swept = store.sweep(limit=2)
    while swept.more:
        swept = store.sweep(limit=2)

    assert [r.id for r in store.runs()] == [open_.id, failed.id]
    assert len(store.dead()) == 1
    clock.ms += 30 * DAY
    while store.sweep().more:
        pass
    assert [r.id for r in store.runs()] == [open_.id]
    assert store.dead() == []
    with store._db.read() as db:
        for table, rows in {"message": 3, "plan": 3, "expansion": 1, "run": 1, "walk": 0}.items():
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (rows,)


def test_the_self_check_says_what_is_wrong(store: SqliteStore) -> None:
    p = plan({"a": [], "b": ["a"]})
    store.submit(p)
    store.step("w", done(store.step("w", want=1)))
    assert store.check(p.id) == []

    with store._db.write() as db:
        db.execute("UPDATE message SET succeeded = 0 WHERE succeeded = 1")
        db.execute("UPDATE expansion SET unfinished = 7")

    found = store.check(p.id)
    assert len(found) == 2
    assert "node 2" in found[0]
    assert "expansion 0" in found[1]


# --- waiting


def test_waits_end_when_there_is_something_and_when_there_is_nothing(store: SqliteStore) -> None:
    message = task()
    assert store.wait_ready(["default"], timeout=0.01) is False
    assert store.wait_ended([message.id], timeout=0.01) is True  # it is not known
    store.enqueue([message])

    assert store.wait_ready(["default"], timeout=5) is True
    assert store.wait_ready(["other"], timeout=0.01) is False
    assert store.wait_ended([message.id], timeout=0.01) is False
    store.step("w", done(store.step("w", want=1)))
    assert store.wait_ended([message.id], timeout=5) is True


def test_threads_that_share_a_store_run_everything_once(store: SqliteStore) -> None:
    messages = [task() for _ in range(300)]
    ran: list[bytes] = []
    stop = threading.Event()

    def work(name: str) -> None:
        outcomes: list[Outcome] = []
        while not stop.is_set():
            step = store.step(name, outcomes, want=3)
            ran.extend(d.id for d in step.deliveries)
            outcomes = done(step)
            if not outcomes:
                store.wait_ready(["default"], timeout=0.5)

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for i in range(0, 300, 50):
        store.enqueue(messages[i : i + 50])
    for message in messages:
        while not store.wait_ended([message.id], timeout=20):
            pass
    stop.set()
    store.wake()
    for thread in threads:
        thread.join(20)

    assert sorted(ran) == sorted(m.id for m in messages)
