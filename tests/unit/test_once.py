# SPDX-License-Identifier: MIT
"""What is started once: under a key, and by bodies that run again."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from flowq import DAG, FlowQ, GraphError, KeyReused, TaskCancelled, current_task, group
from flowq.errors import ConfigError, PayloadError
from flowq.executor import Executor, Job, Lane
from flowq.message import derived_id, id_bytes, made_ms, new_id
from flowq.serializer import PickleSerializer
from flowq.states import State
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import pass_time
from tests.unit.hand import Hand

CALLS: list[Any] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()


@pytest.fixture
def charge(q: FlowQ) -> Any:
    @q.task(name="charge")
    def charge(amount: int, currency: str = "CZK") -> int:
        CALLS.append(amount)
        if amount < 0:
            raise ValueError(amount)
        return amount

    return charge


@pytest.fixture
def bill(q: FlowQ, charge: Any) -> Any:
    @q.task(name="total")
    def total(xs: list[int]) -> int:
        return sum(xs)

    @q.flow(name="bill")
    def bill(amount: int, note: str = "") -> Any:
        return total([charge(amount), charge(amount + 1)])

    return bill


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def run_all(q: FlowQ) -> None:
    with q.consumer(workers=1, drain=True):
        pass


# --- keys: tasks ---------------------------------------------------------------------------------


def test_a_second_start_under_a_key_gives_the_first(q: FlowQ, charge: Any) -> None:
    first = charge.options(key="order-7")(7)

    second = charge.options(key="order-7")(7)
    other = charge.options(key="order-8")(7)
    run_all(q)

    assert (first.created, second.created, other.created) == (True, False, True)
    assert second == first != other
    assert second.get() == 7
    assert CALLS == [7, 7]


def test_a_fresh_start_under_a_key_asks_the_store_once(
    q: FlowQ, charge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    for name in ("enqueue", "message", "look", "submit", "run"):
        real = getattr(q.store, name)

        def spied(*args: Any, name: str = name, real: Any = real, **more: Any) -> Any:
            asked.append(name)
            return real(*args, **more)

        monkeypatch.setattr(q.store, name, spied)

    assert charge.options(key="order-7")(7).created

    assert asked == ["enqueue"]


def test_a_key_gives_what_has_ended_too_also_what_failed(q: FlowQ, charge: Any) -> None:
    charge.options(key="good")(7)
    charge.options(key="bad")(-1)
    run_all(q)

    good, bad = charge.options(key="good")(7), charge.options(key="bad")(-1)

    assert not good.created and not bad.created
    assert (good.state, bad.state) == ("success", "failed")
    assert CALLS == [7, -1]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("amount", [7, -7])
def test_other_arguments_under_a_key_are_an_error_that_shows_both(
    q: FlowQ, charge: Any, ended: bool, amount: int
) -> None:
    first = charge.options(key="order-7")(amount)
    if ended:
        run_all(q)

    with pytest.raises(KeyReused) as told:
        charge.options(key="order-7")(8, currency="EUR")

    assert f"({amount})" in str(told.value)
    assert "(8, currency='EUR')" in str(told.value)
    assert told.value.id == first.id
    assert pickle.loads(pickle.dumps(told.value)).id == first.id
    assert len(q.store.look([id_bytes(first.id)])) == 1


def test_however_arguments_are_passed_they_are_the_same(q: FlowQ, charge: Any) -> None:
    charge.options(key="k")(7)

    again = [
        charge.options(key="k")(amount=7),
        charge.options(key="k")(7, "CZK"),
        charge.options(key="k")(currency="CZK", amount=7),
        charge.s(7).options(key="k").start(),
    ]

    assert [r.created for r in again] == [False] * 4


def test_of_many_starts_at_once_under_a_key_one_begins_it(q: FlowQ, charge: Any, bill: Any) -> None:
    for what in (charge, bill):
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda n, w=what: w.options(key="k")(7), range(24)))

        assert sorted(r.created for r in made) == [False] * 23 + [True]
        assert len({r.id for r in made}) == 1


def test_a_key_is_one_tasks_own(q: FlowQ, charge: Any, bill: Any) -> None:
    @q.task(name="refund")
    def refund(amount: int) -> int:
        return amount

    made = [f.options(key="k")(7) for f in (charge, refund, bill)]

    assert [r.created for r in made] == [True] * 3
    assert len({r.id for r in made}) == 3


def test_keys_within_a_batch_are_told_at_its_end(q: FlowQ, charge: Any, bill: Any) -> None:
    with q.batch():
        made = [charge.options(key="k")(7), charge.options(key="k")(7), charge(7)]
        runs = [bill.options(key="k")(7), bill.options(key="k")(7)]

    with pytest.raises(KeyReused, match=r"\(7\).*\(8\)"), q.batch():
        charge.options(key="k")(8)
        beside = charge(9)

    assert [r.created for r in (*made, *runs)] == [True, False, True, True, False]
    assert beside.state == "queued"


def test_a_key_is_remembered_as_long_as_key_ttl_says(charge: Any, q: FlowQ) -> None:
    kept = charge.options(key="k", key_ttl=90 * 86_400)(7)
    flow = (charge.s(1) | charge.s()).options(key="k", key_ttl=timedelta(days=90))
    plan = flow._planned(None)[1]

    message = kept._message

    assert (message.result_ttl_ms, message.failed_ttl_ms) == (90 * 86_400_000,) * 2
    assert (plan.result_ttl_ms, plan.failed_ttl_ms) == (90 * 86_400_000,) * 2


def test_a_forgotten_key_starts_anew(q: FlowQ) -> None:
    clock = ManualClock()
    held = FlowQ(f"{q.name}-held", q.url.replace("q.db", "held.db"), clock=clock)
    charge = held.task(name="charge")(lambda amount: amount)
    keyed, hand = charge.options(key="k", key_ttl=1_000), Hand(held)
    keyed(7)
    hand.work()

    pass_time(held.store, clock, 900)
    before = keyed(7).created
    pass_time(held.store, clock, 101)
    again = keyed(7)
    hand.work()

    assert not before
    assert again.created
    assert again.get() == 7
    held.store.close()


@pytest.mark.parametrize(
    "options",
    [
        {"key_ttl": 600},
        {"key": "k", "key_ttl": 599},
        {"key": "k", "key_ttl": 600, "result_ttl": 900},
        {"key": ""},
        {"key": 7},
    ],
)
def test_what_a_key_cannot_be_is_an_error_at_the_call(charge: Any, options: Any) -> None:
    with pytest.raises(GraphError, match="key"):
        charge.options(**options)(7)


def test_arguments_that_cannot_be_keyed_are_an_error_at_the_call(charge: Any) -> None:
    with pytest.raises(PayloadError, match="arguments of charge cannot be keyed"):
        charge.options(key="k")(lambda: 7)


@pytest.mark.parametrize("ended", [False, True])
def test_a_task_under_a_key_that_became_a_run_is_found_too(
    q: FlowQ, hand: Hand, charge: Any, ended: bool
) -> None:
    @q.task(name="grow")
    def grow(n: int) -> Any:
        CALLS.append(f"grow {n}")
        return [charge.s(i) for i in range(n)]

    first = grow.options(key="k")(3)
    if ended:
        run_all(q)
    else:
        (delivery,) = hand.fetch()
        q.store.step(hand.session, [Executor(q).run(Lane(0), Job(delivery))])

    again = grow.options(key="k")(3)
    with pytest.raises(KeyReused, match=r"\(3\).*\(4\)"):
        grow.options(key="k")(4)
    run_all(q)

    assert not again.created
    assert again.get() == first.get() == [0, 1, 2]
    assert CALLS == ["grow 3", 0, 1, 2]


# --- keys: runs ----------------------------------------------------------------------------------


def test_a_second_run_under_a_key_is_the_first(q: FlowQ, bill: Any) -> None:
    first = bill.options(key="june")(7)
    run_all(q)

    second = bill.options(key="june")(amount=7, note="")
    third = bill.build(7).options(key="june").start()

    assert (first.created, second.created, third.created) == (True, False, False)
    assert first == second == third
    assert second.get() == 15
    assert CALLS == [7, 8]


@pytest.mark.parametrize("ended", [False, True])
def test_other_arguments_of_a_flow_are_an_error_though_it_ignores_them(
    q: FlowQ, bill: Any, ended: bool
) -> None:
    bill.options(key="june")(7, note="a")
    if ended:
        run_all(q)

    with pytest.raises(KeyReused, match=r"\(7, note='a'\).*\(7, note='b'\)"):
        bill.options(key="june")(7, note="b")


def test_a_flow_that_was_changed_meanwhile_is_found_again_by_its_key(q: FlowQ, charge: Any) -> None:
    def made(n: int) -> Any:
        def body(day: date) -> Any:
            return [charge(i) for i in range(n)]

        return body

    old = q.flow(name="sums")(made(2))
    first = old.options(key="k")(date(2026, 11, 23))
    del q._flows["sums"]
    new = q.flow(name="sums")(made(3))

    second = new.options(key="k")(date(2026, 11, 23))

    assert second == first
    assert not second.created


def test_every_graph_may_have_a_key(q: FlowQ, charge: Any) -> None:
    dag = DAG("etl").options(key="k")
    dag.add(charge.s(1))
    graphs = [
        (charge.s(1) | charge.s()).options(key="k"),
        group(charge.s(1), charge.s(2)).options(key="k", name="both"),
        charge.s().map([1, 2]).options(key="k"),
        charge.s(charge.s(1)).options(key="k3"),
        dag,
    ]

    first = [g.start() for g in graphs]
    first.append(charge.options(key="k2").map([1, 2]))
    again = [g.start() for g in graphs]
    again.append(charge.options(key="k2").map([1, 2]))
    run_all(q)

    assert [r.created for r in first] == [True] * 6
    assert [r.created for r in again] == [False] * 6
    assert [r.get() for r in again] == [r.get() for r in first]
    assert first[2].get() == [1, 2] == [r.get() for r in again[2]]
    with pytest.raises(KeyReused, match=r"\[1, 2\].*\[1, 3\]"):
        charge.options(key="k2").map([1, 3])


def test_a_run_under_a_key_is_like_any_other(q: FlowQ, hand: Hand, bill: Any) -> None:
    run = bill.options(key="june")(-7)
    run_all(q)
    assert run.state == "failed"
    infos = [(n.name, n.task) for n in run.nodes()]

    run.rerun(0)
    run_all(q)
    again = bill.options(key="june")(-7)
    cancelled = bill.options(key="july")(1)
    cancelled.cancel()

    assert infos == [(n.name, n.task) for n in bill(-7).nodes()]
    assert (again.state, again.created) == ("failed", False)
    assert CALLS == [-7, -6] * 2
    assert cancelled.state == "cancelled"
    assert not bill.options(key="july")(1).created
    for each in (run, cancelled):
        assert q.store.check(id_bytes(each.id)) == []


def test_runs_are_listed_by_flow_state_key_and_time(
    q: FlowQ, charge: Any, bill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = datetime.now(timezone.utc) - timedelta(seconds=5)
    first, keyed = bill(1), bill.options(key="june")(2)
    pair = (charge.s(1) | charge.s()).options(key="june", name="pair").start()
    failed = bill(-1)
    run_all(q)
    last = bill(3)
    monkeypatch.setattr("flowq.listing.PAGE", 2)

    assert list(q.runs()) == [last, failed, pair, keyed, first]
    assert list(q.runs(flow=bill)) == list(q.runs(flow="bill")) == [last, failed, keyed, first]
    assert list(q.runs(state="failed")) == [failed]
    assert list(q.runs(flow=bill, state="running")) == [last]
    assert list(q.runs(key="june")) == list(q.runs(key="june", flow=bill)) == [keyed]
    assert list(q.runs(key="june", flow="pair")) == [pair]
    assert list(q.runs(key="june", state="failed")) == list(q.runs(key="july")) == []
    assert len(list(q.runs(since=begin))) == 5
    assert list(q.runs(since=begin + timedelta(hours=1))) == []
    for wrong in ({"state": "fialed"}, {"since": 5}):
        with pytest.raises(ConfigError):
            q.runs(**wrong)


def test_a_key_speaks_of_a_start_and_not_of_a_part(q: FlowQ, charge: Any, bill: Any) -> None:
    @q.flow
    def outer() -> Any:
        return charge.options(key="k")(1)

    parts = [
        lambda: (charge.s(1).options(key="k") | charge.s()).start(),
        lambda: group(bill.options(key="k").s(1)).start(),
        lambda: group((charge.s(1) | charge.s()).options(key="k")).start(),
        outer,
    ]

    for start in parts:
        with pytest.raises(GraphError, match="key="):
            start()
    with pytest.raises(ConfigError, match=r"key= speaks of one start"):
        q.flow(key="k")(lambda: 1)
    with pytest.raises(GraphError, match="detached="):
        (charge.s(1).options(detached=True) | charge.s()).start()
    with pytest.raises(ConfigError, match="'key' does not go here"):
        q.task(key="k")(lambda: 1)


# --- what bodies start ---------------------------------------------------------------------------


@pytest.fixture
def parent(q: FlowQ, charge: Any, bill: Any) -> Any:
    @q.task(name="parent", retries=1, max_losses=9)
    def parent(fail: bool = False) -> list[str]:
        made: list[Any] = [charge(1), charge(1), charge(2), bill(5), bill(5)]
        made += [charge.map([1, 2]), (charge.s(1) | charge.s()).start()]
        made += [charge.options(key="once")(3), group(charge.s(4)).start()]
        with q.batch():
            made.append(charge(1))
        if fail and current_task().attempt == 1:
            raise ValueError("again")
        CALLS.append([r.created for r in made])
        return [r.id for r in made]

    return parent


def lose_one(q: FlowQ, hand: Hand) -> list[str]:
    """Run the body that is next to its end, and lose its worker before that is settled."""
    (delivery,) = hand.fetch()
    outcome = Executor(q).run(Lane(0), Job(delivery))
    q.store.release(hand.session, lost=[delivery.id], reason="killed")
    assert outcome.state is State.SUCCESS
    return CALLS.pop()


@pytest.mark.parametrize("in_run", [False, True])
def test_a_body_that_runs_again_finds_what_it_had_started(
    q: FlowQ, hand: Hand, parent: Any, in_run: bool
) -> None:
    top = group(parent.s()).start() if in_run else parent()

    first = lose_one(q, hand)
    run_all(q)
    second = next(x for x in CALLS if isinstance(x, list))

    ids = top.get()[0] if in_run else top.get()
    assert first == [True] * 10
    assert second == [False] * 10
    assert len(set(ids)) == 10
    assert sorted(x for x in CALLS if not isinstance(x, list)) == sorted(
        [1, 1, 2, 5, 6, 5, 6, 1, 2, 1, 1, 3, 4, 1]
    )


def test_another_attempt_starts_anew_but_what_has_a_key(q: FlowQ, parent: Any) -> None:
    top = parent(True)
    run_all(q)

    created = next(x for x in CALLS if isinstance(x, list))

    assert top.state == "success"
    assert created == [True] * 7 + [False] + [True] * 2


def test_another_generation_starts_anew(q: FlowQ, hand: Hand, parent: Any) -> None:
    run = group(parent.s()).start()
    run_all(q)
    before = run.get()[0]
    CALLS.clear()

    run.rerun(0)
    created = lose_one(q, hand)
    run_all(q)
    after = q.run(run.id).get()[0]

    assert created == [True] * 7 + [False] + [True] * 2
    assert set(before) & set(after) == {before[7]}


def test_what_cannot_be_keyed_is_found_again_by_its_order(q: FlowQ, hand: Hand) -> None:
    @q.task(name="call")
    def call(f: Any) -> int:
        return int(f())

    @q.task(name="parent", max_losses=9)
    def parent() -> list[str]:
        return [call(lambda n=n: n).id for n in range(3)]

    top = parent()
    (delivery,) = hand.fetch()
    Executor(q).run(Lane(0), Job(delivery))
    q.store.release(hand.session, lost=[delivery.id], reason="killed")
    run_all(q)

    assert [q.result(id).get() for id in top.get()] == [0, 1, 2]
    assert q.store.status().scheduled == 0


def test_a_node_that_was_called_by_a_body_may_become_a_run(q: FlowQ) -> None:
    @q.task(name="leaf")
    def leaf(x: int) -> int:
        return x

    @q.task(name="grow")
    def grow(x: int) -> Any:
        return leaf.s(x)

    @q.task(name="parent")
    def parent() -> str:
        return grow(5).id

    run_id = parent()
    run_all(q)

    assert q.run(run_id.get()).get() == 5
    (node,) = q.run(run_id.get()).nodes()
    assert node.state == "success"
    root = q.store.nodes(id_bytes(run_id.get()), limit=1)[0]
    assert 0 < root.ready_ms <= root.ended_ms


@pytest.fixture
def boss(q: FlowQ, charge: Any, bill: Any) -> Any:
    """A body that starts much, waits until it is cancelled, and starts more."""

    @q.task(name="boss")
    def boss() -> None:
        made = [charge(1), bill(2), charge.map([3, 4])]
        apart = [charge.options(detached=True)(5), bill.options(detached=True)(6)]
        shared = charge.options(key="shared")(7)
        CALLS.append([[x.id for x in kind] for kind in (made, apart, [shared])])
        try:
            while not current_task().wait_cancelled(10):
                pass
        except TaskCancelled:
            pass
        CALLS.append(charge.options(detached=True)(8).id)
        charge(9)
        CALLS.append("never")

    return boss


@pytest.mark.parametrize("in_run", [False, True])
def test_a_cancel_goes_down_to_what_the_body_has_started(
    q: FlowQ, charge: Any, boss: Any, in_run: bool
) -> None:
    shared = charge.options(key="shared", delay=0.5)(7)
    top = group(boss.s()).start() if in_run else boss()

    with q.consumer(workers=1):
        until(lambda: CALLS)
        top.cancel()
        until(lambda: len(CALLS) > 1 and top.ready)
        (made, apart, _), late = CALLS[:2]
        until(lambda: all(q.result(id).ready for id in [*made, *apart, shared.id, late]))

    assert top.state == "cancelled"
    assert [q.result(id).state for id in made] == ["cancelled"] * 3
    assert [q.result(id).state for id in [*apart, late]] == ["success"] * 3
    assert shared.state == "success"  # somebody else had started it
    assert sorted(x for x in CALLS if isinstance(x, int)) == [5, 6, 7, 7, 8]


# --- ids and digests -----------------------------------------------------------------------------


def test_derived_ids_depend_on_their_parts_alone() -> None:
    assert derived_id(b"a", b"bc") == derived_id(b"a", b"bc") != derived_id(b"ab", b"c")
    assert len(derived_id(b"a")) == 16
    assert made_ms(derived_id(b"a")) == 0
    assert made_ms(new_id()) > 1_700_000_000_000


SETS = {
    "a": {"x", "y", "z", "w", ("t", 1)},
    "b": [frozenset({"p", "q", "r"}), {1: {"k", "l"}}, date(2026, 11, 23), 1.5, None],
}


def test_digests_are_the_same_in_all_processes() -> None:
    code = (
        "from tests.unit.test_once import SETS; from flowq.serializer import PickleSerializer;"
        "print(PickleSerializer().digest(SETS, 'it').hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2", "3")
    }

    assert found == {PickleSerializer().digest(SETS, "it").hex()}


def test_digests_tell_values_apart_and_not_objects() -> None:
    digest = PickleSerializer().digest
    text, other = "a long text " * 9, "".join(["a long text "] * 9)
    assert text is not other

    assert digest([text, text], "it") == digest([text, other], "it")
    values = [1, True, 1.0, "1", b"1", (1,), [1], {1}, frozenset({1}), {1: 1}, None, 0, -0.0, 0.0]
    values += [{"a": 1, "b": 2}, {"b": 2, "a": 1}, date, int, {(1,), 1}, [[1], 1]]
    assert len({digest(v, "it") for v in values}) == len(values)


class Bag(set):  # type: ignore[type-arg]
    """A set of a kind of its own, which may hold more."""


def test_what_cannot_be_keyed_is_told() -> None:
    ring: list[Any] = []
    ring.append(ring)

    for value in (lambda: 1, ring, Bag({1}), [{1: {(lambda: 2,)}}], open):
        if value is open:
            assert PickleSerializer().digest(value, "it")  # by its name
            continue
        with pytest.raises(PayloadError, match="it cannot be keyed"):
            PickleSerializer().digest(value, "it")
