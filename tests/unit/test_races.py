# SPDX-License-Identifier: MIT
"""Races, sleeps, needs and bounds as users write them, on every store."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowq import (
    DAG,
    DeadlineExceeded,
    FlowQ,
    GraphError,
    NotProduced,
    RunEnded,
    Skip,
    TaskError,
    WaitTimeout,
    branch,
    chain,
    first,
    group,
    optional,
    sleep,
    wait_for,
)
from flowq.errors import BindingError
from flowq.lower import lower
from flowq.plan import Bits, indexes
from flowq.testing import ManualClock
from tests.unit.staged import Stage, states, store_of

app = FlowQ("races", "memory://", clock=ManualClock())
CALLS: list[Any] = []
BROKEN: set[Any] = set()


@app.task(name="ask")
def ask(x: Any = None) -> Any:
    CALLS.append(("ask", x))
    if x in list(BROKEN):
        raise ValueError(f"{x} is broken")
    if x == "skip":
        raise Skip("not now")
    return x


@app.task(name="turn")
def turn(x: int) -> int:
    return -x


@app.task(name="late", priority=-5)
def late(x: Any = None) -> Any:
    return ask.call_local(x)


@app.task(name="pair")
def pair(x: Any = None, y: Any = None) -> Any:
    return (x, y)


@app.task(name="numbers")
def numbers(n: int) -> list[int]:
    return list(range(n))


@app.task(name="total")
def total(xs: list[Any]) -> Any:
    return sum(xs)


@pytest.fixture(params=["model", "memory", "redis"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    kind = "sqlite" if request.param == "memory" else request.param

    def redis_url() -> Any:
        return request.getfixturevalue("redis_url")

    name = request.getfixturevalue("store_name") if kind == "redis" else "races"
    store = store_of(kind, app, name, tmp_path, redis_url)
    CALLS.clear()
    BROKEN.clear()
    with app.aside(store, app.clock):
        made = Stage(app, CALLS)
        made.kind = kind
        yield made
    store.close()


# --- races


def test_the_first_success_is_the_value_and_the_rest_never_runs(stage: Stage) -> None:
    @app.flow(name=f"lookup-{stage.kind}")
    def lookup(key: str) -> Any:
        return pair(first(ask(key), late("mirror")), "seen")

    run = stage.run(lookup("k"))

    assert run.get() == ("k", "seen")
    assert CALLS == [("ask", "k")]
    assert states(run) == {
        "ask": "success",
        "late": "skipped",
        "first": "success",
        "pair": "success",
    }


def test_who_fails_loses_nothing_but_the_race(stage: Stage) -> None:
    BROKEN.add("k")

    run = stage.run(first(ask.s("k"), late.s("mirror")))

    assert run.get() == "mirror"
    assert run.state == "success"
    assert states(run)["ask"] == "failed"


def test_if_none_succeeds_what_reads_the_race_is_blocked(stage: Stage) -> None:
    BROKEN.update((1, 2))

    run = stage.run(chain(first(ask.s(1), ask.s(2)), pair.s()))

    assert run.state == "failed"
    assert states(run)["pair"] == "blocked"
    with pytest.raises(TaskError, match="is broken"):
        run.get()

    BROKEN.clear()
    run.retry()
    stage.work()
    assert run.get() == (1, None)


def test_if_all_are_skipped_so_is_the_race(stage: Stage) -> None:
    run = stage.run(first(ask.s("skip"), late.s("skip")))

    assert run.state == "skipped"
    with pytest.raises(NotProduced):
        run.get()


def test_what_leads_only_to_the_race_is_stopped_with_it(stage: Stage) -> None:
    @app.flow(name=f"long-{stage.kind}")
    def long() -> Any:
        a = ask("quick")
        b = late(late.options(name="deep")("slow"))
        return first(a, b)

    run = stage.run(long())

    assert run.get() == "quick"
    assert states(run)["deep"] == states(run)["late"] == "skipped"


def test_what_others_read_or_the_value_names_runs_on(stage: Stage) -> None:
    @app.flow(name=f"needed-{stage.kind}")
    def needed() -> Any:
        read, named, lost = late("read"), late("named"), late("lost")
        won = first(ask("quick"), read, named, lost)
        return {"won": won, "read": pair(read), "named": named}

    run = stage.run(needed())

    assert run.get() == {"won": "quick", "read": ("read", None), "named": "named"}
    assert [s for s in states(run).values() if s != "success"] == ["skipped"]


def test_an_item_of_the_winner_can_be_read(stage: Stage) -> None:
    @app.flow(name=f"item-{stage.kind}")
    def item() -> Any:
        won = first(ask({"a": [1, 2]}), late({"a": [3]}))
        return pair(won["a"], won["a"][0])

    assert stage.value(item()) == ([1, 2], 1)


def test_chains_maps_and_flows_race_too(stage: Stage) -> None:
    @app.flow(name=f"slowly-{stage.kind}")
    def slowly(x: int) -> Any:
        return late(x)

    value = stage.value(
        first(slowly.s(1), late.s().map([1, 2]), ask.s(3) | pair.s(y=4), late.s(5) | late.s())
    )

    assert value == (3, 4)


def test_a_default_wins_no_race(stage: Stage) -> None:
    BROKEN.add("k")

    value = stage.value(first(ask.options(default="made up").s("k"), late.s("mirror")))

    assert value == "mirror"


def test_an_optional_step_counts_in_a_race_as_what_it_is(stage: Stage) -> None:
    BROKEN.add("k")

    @app.flow(name=f"lenient-{stage.kind}")
    def lenient() -> Any:
        return first(optional(ask("k"), default="none"), late("mirror"))

    assert stage.value(lenient()) == "mirror"


def test_a_value_is_piped_into_every_step_of_a_race(stage: Stage) -> None:
    assert stage.value(ask.s(7) | first(ask.s(), late.s()) | pair.s(y=1)) == (7, 1)


def test_a_race_stands_in_dags_groups_and_items(stage: Stage) -> None:
    dag = DAG("raced")
    a = dag.add(ask.s(1), name="a")
    b = dag.add(late.s(2), name="b")
    dag.add(first(a, b), name="won")
    assert stage.value(dag) == 1

    @app.flow(name=f"either-{stage.kind}")
    def either(x: int) -> Any:
        return first(ask(x), turn(x))

    assert stage.value(either.map([1, 2, 3])) == [1, 2, 3]
    assert stage.value(group(first(ask.s(1), late.s(2)), ask.s(3))) == [1, 3]


def test_a_race_of_signatures_in_a_flow_has_a_name_of_its_own(stage: Stage) -> None:
    @app.flow(name=f"named-{stage.kind}")
    def named() -> Any:
        chained = chain(late.s(2).options(name="late"), late.s())
        return first(ask.s(1), chained).options(name="won")

    run = stage.run(named())

    assert run.get() == 1
    assert states(run)["won"] == "success"
    assert states(run)["ask"] == "success"
    assert states(run)["late"] == "skipped"


def test_what_comes_before_a_race_of_signatures_comes_before_each_of_them(stage: Stage) -> None:
    @app.flow(name=f"behind-{stage.kind}")
    def behind() -> Any:
        before = ask("skip")
        return first(ask.s(1), late.s(2)).after(before)

    run = stage.run(behind())

    assert set(states(run).values()) == {"skipped"}


def test_a_race_run_again_takes_along_what_it_had_stopped(stage: Stage) -> None:
    @app.flow(name=f"again-{stage.kind}")
    def again() -> Any:
        return first(ask("k"), late("mirror"))

    run = stage.run(again())
    BROKEN.add("k")

    run.rerun("ask")
    stage.work()

    assert run.get() == "mirror"
    assert states(run)["ask"] == "failed"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: first(ask.s(1)), "name two steps or more"),
        (lambda: first(ask.s(1), 2), "2"),
        (lambda: first(ask.s(1), ask.s(2)).options(retries=2), "does not go here"),
        (lambda: first(group(ask.s(1), ask.s(2)), ask.s(3)).start(), "between whole steps"),
        (lambda: twice.build(), "is named twice"),
        (lambda: items.build(), "between whole steps"),
        (lambda: ordered.build(), "is to come before it"),
    ],
)
def test_what_is_no_race_is_told_when_it_is_built(make: Any, said: str) -> None:
    with pytest.raises((GraphError, BindingError), match=said):
        made = make()
        made._graph()


@app.flow
def twice() -> Any:
    a = ask(1)
    return first(a, a)


@app.flow
def items() -> Any:
    a = ask({"x": 1})
    return first(a["x"], ask(2))


@app.flow
def ordered() -> Any:
    won = first(ask(1), ask(2))
    ask(3) >> won
    return won


# --- sleeps


def test_time_passes_between_steps(stage: Stage) -> None:
    @app.flow(name=f"patient-{stage.kind}")
    def patient() -> Any:
        begun = ask("begun")
        return ask("done").after(sleep(60).after(begun))

    before = app.clock.now_ms()
    run = stage.start(patient())
    stage.work()
    assert states(run) == {
        "ask": "success",
        "sleep": "scheduled",
        "ask-2": "waiting",
    }

    assert stage.run(run).get() == "done"

    assert app.clock.now_ms() - before >= 60_000
    assert run.result("sleep").get() is None


def test_a_sleep_stands_between_in_chains(stage: Stage) -> None:
    assert stage.value(ask.s(1) >> sleep(timedelta(minutes=1)) >> ask.s(2)) == 2


def test_a_timeout_is_a_race_with_a_sleep(stage: Stage) -> None:
    @app.flow(name=f"impatient-{stage.kind}")
    def impatient() -> Any:
        slow = late("slow").after(sleep(1_000))
        return first(slow, pair("gave", "up").after(sleep(30)))

    run = stage.run(impatient())

    assert run.get() == ("gave", "up")
    assert states(run)["sleep"] == "skipped"


@pytest.mark.parametrize("wrong", [-1, "a minute", float("nan"), True])
def test_what_is_no_length_of_time_is_refused(wrong: Any) -> None:
    with pytest.raises(GraphError, match="sleep"):
        sleep(wrong)


def test_nothing_is_piped_into_a_sleep() -> None:
    with pytest.raises((GraphError, BindingError), match="takes no"):
        (ask.s(1) | sleep(5))._graph()


# --- needs


def test_so_many_successes_are_enough(stage: Stage) -> None:
    BROKEN.add(1)

    run = stage.run(ask.options(need=2).map([0, 1, 2, 3, 4]))

    assert run.get() == [0, 2]
    assert run.state == "success"
    assert [n.state for n in run.nodes() if n.name] == [
        "success",
        "failed",
        "success",
        "skipped",
        "skipped",
    ]


def test_the_value_is_in_the_order_of_the_list(stage: Stage) -> None:
    @app.flow(name=f"best-{stage.kind}")
    def best() -> Any:
        return total(ask.options(need=3).map(numbers(10)))

    run = stage.run(best())

    assert run.get() == 0 + 1 + 2
    assert list(states(run).values()).count("skipped") == 7


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("n", [0, 2])
def test_too_few_successes_are_a_failure(stage: Stage, known: bool, n: int) -> None:
    BROKEN.add(0)

    @app.flow(name=f"few-{stage.kind}-{known}-{n}")
    def few() -> Any:
        return total(ask.options(need=2).map(list(range(n)) if known else numbers(n)))

    run = stage.run(few())

    assert run.state == "failed"
    said = "0 is broken" if n else "fewer items succeeded than it needs"
    with pytest.raises(TaskError, match=said):
        run.get()


def test_a_need_and_items_or_tolerate_exclude_each_other() -> None:
    for other in ({"items": "keep"}, {"tolerate": 1}):
        with pytest.raises(GraphError, match="need="):
            ask.options(need=1, **other).map([1])


def test_a_need_that_was_not_met_is_met_by_a_retry(stage: Stage) -> None:
    BROKEN.update((0, 1))
    run = stage.run(ask.options(need=2).map([0, 1, 2]))
    assert run.state == "failed"
    BROKEN.clear()

    run.retry()
    stage.work()

    assert run.get() == [0, 2]


def test_flows_and_chains_may_be_needed(stage: Stage) -> None:
    @app.flow(name=f"part-{stage.kind}")
    def part(x: int) -> Any:
        return ask(late(x))

    assert stage.value(part.s().map([1, 2, 3]).options(need=1)) == [1]
    assert stage.value((ask.s() | pair.s(y=0)).map([1, 2]).options(need=1)) == [(1, 0)]


# --- bounds


@pytest.mark.parametrize("known", [True, False])
def test_no_more_items_are_under_way_than_may_be(stage: Stage, known: bool) -> None:
    most = 0

    @app.flow(name=f"bounded-{stage.kind}-{known}")
    def bounded() -> Any:
        return total(ask.options(max_parallel=2).map(list(range(6)) if known else numbers(6)))

    run = stage.start(bounded())
    while not run.ready:
        stage.step()
        found = [n.state for n in run.nodes() if "[" in n.name]
        most = max(most, sum(s in ("queued", "running") for s in found))

    assert run.get() == 15
    assert most == 2


def test_items_that_are_flows_hold_their_places_to_the_end(stage: Stage) -> None:
    @app.flow(name=f"two-{stage.kind}")
    def two(x: int) -> Any:
        return ask(ask(x))

    run = stage.run(two.s().map([1, 2, 3]).options(max_parallel=1))

    assert run.get() == [1, 2, 3]
    assert [x for _, x in CALLS] == [1, 1, 2, 2, 3, 3]


def test_a_bound_is_a_whole_number() -> None:
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(GraphError, match="max_parallel"):
            ask.options(max_parallel=wrong).map([1])


# --- what stores are told


def test_what_races_own_is_told_to_stores() -> None:
    @app.flow(name="owned")
    def owned() -> Any:
        b = late(late(1))
        return first(ask(2), b)

    rows = lower(owned.build()._graph(), app).rows
    race = next(row for row in rows if row.bits & Bits.RACE)
    losers = [rows[i].name for i in indexes(race.owns)]

    assert losers == ["ask", "late", "late-2"] or sorted(losers) == ["ask", "late", "late-2"]
    assert all(rows[i].bits & Bits.OWNED for i in indexes(race.owns))
    assert not race.bits & Bits.OWNED


# --- deadlines


def test_what_does_not_end_in_time_has_failed(stage: Stage) -> None:
    @app.flow(name=f"slow-{stage.kind}", deadline=60)
    def slow() -> Any:
        return ask(1).after(sleep(600))

    run = stage.run(slow())

    assert run.state == "failed"
    assert states(run) == {"sleep": "cancelled", "ask": "cancelled"}
    with pytest.raises(DeadlineExceeded, match="deadline"):
        run.get()


def test_a_deadline_may_be_set_on_one_run_a_map_a_flow_inside_and_a_graph(stage: Stage) -> None:
    @app.flow(name=f"slowly-part-{stage.kind}")
    def part(x: int) -> Any:
        late_one = ask.options(name="late")(x)
        return branch(x, {2: lambda: ask(late_one).after(sleep(200))}, default=lambda: ask(x))

    @app.flow(name=f"whole-{stage.kind}")
    def whole() -> Any:
        return {
            "map": total(part.s().map(numbers(3)).options(deadline=50, default=[7])),
            "flow": part.options(deadline=50, default="late")(ask(2)),
            "items": part.options(deadline=150, items="keep").map(numbers(3)),
        }

    value = stage.value(whole())

    assert (value["map"], value["flow"]) == (7, "late")
    assert value["items"][:2] == [0, 1]
    assert value["items"][2].reason == "deadline"
    run = stage.run((sleep(100) >> ask.s(1)).options(deadline=50))
    assert run.state == "failed"
    assert stage.value((sleep(100) >> ask.s(1)).options(deadline=500)) == 1


# --- what is sent


def test_a_run_waits_for_an_answer(stage: Stage) -> None:
    @app.flow(name=f"review-{stage.kind}")
    def review() -> Any:
        text = ask("text")
        return pair(text, wait_for("approve").after(text))

    run = stage.start(review())
    stage.work()
    assert states(run) == {"ask": "success", "approve": "scheduled", "pair": "waiting"}
    assert not run.ready

    assert run.send("approve", {"by": "me"}) is True
    stage.work()

    assert run.get() == ("text", {"by": "me"})
    (sent,) = run.sent()
    assert (sent.name, sent.node is not None) == ("approve", True)
    with pytest.raises(RunEnded):
        run.send("approve")


def test_an_answer_may_come_first_and_only_once(stage: Stage) -> None:
    run = stage.start(ask.s(1) >> wait_for("go"))

    assert run.send("go", 5, id="k") is False
    assert run.send("go", 6, id="k") is False
    stage.work()

    assert run.get() == 5
    assert run.send("go", 7, id="k") is True


def test_who_does_not_answer_in_time(stage: Stage) -> None:
    before = ask.s(1)
    assert stage.value(before >> wait_for("go", timeout=5, default=[1, "b"])) == [1, "b"]
    assert stage.value(before >> wait_for("go", timeout=5, default=None)) is None
    run = stage.run(before >> wait_for("go", timeout=timedelta(seconds=5)))
    with pytest.raises(WaitTimeout, match="go"):
        run.get()


def test_who_does_not_answer_in_time_may_stand_in_arms_and_items_made_late(stage: Stage) -> None:
    @app.flow(name=f"unheard-{stage.kind}")
    def unheard(x: int = 0) -> Any:
        return pair(x, wait_for("go", timeout=5, default=[1, "b"]))

    @app.flow(name=f"unheard-inside-{stage.kind}")
    def inside() -> Any:
        return [branch(ask("k"), {"k": lambda: unheard()}), unheard.map(ask([1, 2]))]

    assert stage.value(inside()) == [
        (0, [1, "b"]),
        [(1, [1, "b"]), (2, [1, "b"])],
    ]


def test_what_a_run_says_of_failures_holds_for_who_waits_in_vain(stage: Stage) -> None:
    @app.flow(name=f"lenient-wait-{stage.kind}", node_failure_policy="continue")
    def lenient() -> Any:
        return pair(ask(1), wait_for("go", timeout=5))

    @app.flow(name=f"strict-wait-{stage.kind}", node_failure_policy="cancel")
    def strict() -> Any:
        return [wait_for("go", timeout=5), late.options(name="after")(sleep(60))]

    assert stage.value(lenient()) == (1, None)
    run = stage.run(strict())
    assert run.state == "failed"
    assert states(run)["after"] == "cancelled"


def test_answers_go_to_items_by_their_paths(stage: Stage) -> None:
    @app.flow(name=f"asked-{stage.kind}")
    def asked(x: int) -> Any:
        return pair(x, wait_for("answer"))

    run = stage.start(asked.s().map([1, 2]))
    stage.work()
    name = next(n.name for n in run.nodes() if n.name.endswith("[1]"))

    assert run.send("answer", "two", to=name) is True
    assert run.send("answer", "one") is True
    stage.work()

    assert run.get() == [(1, "one"), (2, "two")]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: wait_for("a/b"), "name"),
        (lambda: wait_for(""), "must be"),
        (lambda: wait_for("go", timeout=0), "more than 0"),
        (lambda: wait_for("go", default=1), "say timeout="),  # type: ignore[call-overload]
        (lambda: (ask.s(1) | wait_for("go"))._graph(), "takes no"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(make: Any, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        make()


# --- pauses


def test_nothing_of_a_paused_run_begins(stage: Stage) -> None:
    run = stage.start(ask.s(1) | ask.s())
    assert run.pause()
    assert run.paused
    stage.work()
    assert states(run)["ask"] == "held"
    assert run.state == "running"

    assert run.resume()
    stage.work()

    assert run.get() == 1
    assert not run.paused
    assert not run.pause()


# --- atomic flows


def test_a_retry_inside_an_atomic_flow_runs_all_of_it_again(stage: Stage) -> None:
    @app.flow(name=f"cluster-{stage.kind}", atomic=True, finally_=ask.s("torn down"))
    def cluster(x: int) -> Any:
        made = ask("made")
        return pair(ask(x), made)

    @app.flow(name=f"night-{stage.kind}")
    def night() -> Any:
        before = ask("before")
        return cluster(5).after(before)

    BROKEN.add(5)
    for flow in (night, cluster):
        run = stage.run(flow() if flow is night else flow(5))
        assert run.state == "failed"
        BROKEN.clear()
        CALLS.clear()

        run.retry()
        stage.work()

        assert run.get() == (5, "made")
        assert sorted(str(x) for _, x in CALLS) == ["5", "made", "torn down"]
        BROKEN.add(5)
