# SPDX-License-Identifier: MIT
"""``max_parallel=`` of runs and flows: so many of their tasks are queued or running at a time."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from flowq import DAG, FlowQ, branch, chain, chord, group, sleep, wait_for
from flowq.errors import ConfigError, FlowqError, GraphError
from flowq.executor import Executor, Job, Lane
from flowq.message import Delivery, decode_message
from flowq.testing import ManualClock
from flowq.watching import Lines, see
from tests.unit.staged import Stage, states

CLOCK = ManualClock()
app = FlowQ("limits", "memory://", clock=CLOCK)
CALLS: list[Any] = []


@app.task(name="work")
def work(x: Any = None) -> Any:
    CALLS.append(("work", x))
    return x


@app.task(name="numbers")
def numbers(n: int) -> list[int]:
    return list(range(n))


@app.task(name="total")
def total(xs: list[Any]) -> int:
    return len(xs)


@app.task(name="breaks")
def breaks(x: Any = None) -> Any:
    raise ValueError("it broke")


@app.task(name="flaky", retries=1, retry_delay=60)
def flaky() -> None:
    CALLS.append(("flaky", None))
    if len(CALLS) == 1:
        raise ValueError("not yet")


@app.task(name="down")
def down(n: int) -> Any:
    return down.s(n - 1) if n else "ground"


@app.task(name="spread")
def spread(n: int) -> Any:
    return group(work.s(i) for i in range(n))


@app.flow(name="shared", max_parallel=3)
def shared(n: int = 4) -> Any:
    return [work(i) for i in range(n)]


@app.flow(name="plain")
def plain(n: int = 4) -> Any:
    return [work(i) for i in range(n)]


@app.flow(name="around")
def around() -> Any:
    return [pair(1), [work("beside"), work("beside")]]


@app.flow(name="pair", max_parallel=3)
def pair(x: int) -> Any:
    return [work(x), work(x)]


@app.flow(name="two")
def two(x: int) -> Any:
    return [work(x), work(x)]


@app.flow(name="over")
def over(n: int = 2) -> Any:
    return pair.map(numbers(n))


@app.flow(name="one-by-one", max_parallel=1)
def one_by_one() -> Any:
    return down(4)


@app.task(name="step")
def step(n: int) -> Any:
    return again.s(n - 1) if n else "end"


@app.flow(name="again", max_parallel=1)
def again(n: int) -> Any:
    return [step(n), work(n)]


class Hands:
    """Workers that take all that they are given, and end what they are told to."""

    def __init__(self, stage: Stage) -> None:
        self._app = stage.app
        self._executor = Executor(stage.app)
        self._lane = Lane(0)
        self._lane.thread = threading.get_ident()
        self.busy: list[Delivery] = []
        self.most = 0

    def take(self) -> list[str]:
        """Take all there is; gives the names of all that runs now."""
        while True:
            step = self._app.store.step("w", want=50, queues=self._app.queues())
            self.busy += step.deliveries
            if not step.deliveries and not step.ready and step.next_ms != 0:
                break
        self.most = max(self.most, len(self.busy))
        return self.names()

    def names(self) -> list[str]:
        return sorted(decode_message(d.body).name for d in self.busy)

    def end(self, *names: str) -> list[str]:
        """End the first that runs, or those with these names, and take what that lets begin."""
        wanted = names or (decode_message(self.busy[0].body).name,)
        ended = [d for d in self.busy if decode_message(d.body).name in wanted]
        self.busy = [d for d in self.busy if d not in ended]
        outcomes = [self._executor.run(self._lane, Job(d)) for d in ended]
        self._app.store.step("w", outcomes)
        return self.take()

    def all(self, run: Any) -> None:
        """Let a run go on to its end, one task after the other."""
        self.take()
        while self.busy or not run.ready:
            if not self.busy:
                wait = self._app.store.step("w").next_ms
                assert wait, states(run)
                CLOCK.advance(wait / 1000)
                self.take()
                continue
            self.end()
        assert self._app.store.check(run._id) == []


@pytest.fixture
def hands(stage: Stage) -> Hands:
    CALLS.clear()
    return Hands(stage)


# --- of one run ----------------------------------------------------------------------------------


def test_so_many_tasks_of_a_run_go_on_and_the_next_with_the_end_of_one(hands: Hands) -> None:
    run = group(work.s(i) for i in range(4)).options(max_parallel=2).start()
    before = Counter(states(run).values())

    first = hands.take()
    second = hands.end()

    assert before == {"queued": 2, "held": 2}
    assert (first, second) == (["work", "work-2"], ["work-2", "work-3"])
    hands.all(run)
    assert (run.get(), hands.most) == ([0, 1, 2, 3], 2)


def dag() -> Any:
    made = DAG("four")
    for i in range(4):
        made.add(work.s(i), name=f"n{i}")
    return made.options(max_parallel=2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: plain.options(max_parallel=2)(4),
        lambda: plain.s(4).options(max_parallel=2).start(),
        lambda: plain.build(4).options(max_parallel=2).start(),
        lambda: plain.options(max_parallel=2).build(4).start(),
        lambda: dag().start(),
        lambda: chain([work.s(i) for i in range(4)], total.s()).options(max_parallel=2).start(),
        lambda: chord([work.s(i) for i in range(4)], total.s()).options(max_parallel=2).start(),
        lambda: chain(numbers.s(4), work.each()).options(max_parallel=2).start(),
        lambda: (
            chain(numbers.s(5), work.options(chunksize=1).each(), total.s())
            .options(max_parallel=2)
            .start()
        ),
    ],
)
def test_whatever_is_started_can_be_bounded(hands: Hands, make: Callable[[], Any]) -> None:
    run = make()

    hands.all(run)

    assert (run.state, hands.most) == ("success", 2)


def test_runs_that_are_bounded_each_have_places_of_their_own(hands: Hands) -> None:
    bounded = plain.options(max_parallel=2)
    runs = [bounded(3), bounded(3)]

    taken = hands.take()

    assert taken == ["work", "work", "work-2", "work-2"]
    for run in runs:
        hands.all(run)


# --- of a flow -----------------------------------------------------------------------------------


def test_the_limit_of_a_flow_is_for_all_its_runs(hands: Hands) -> None:
    runs = [shared(2), shared(2)]
    other = plain(2)

    taken = hands.take()
    counts = Counter(s for run in runs for s in states(run).values())

    assert len(taken) == 5
    assert counts == {"running": 3, "held": 1}
    assert set(states(other).values()) == {"running"}
    for run in (*runs, other):
        hands.all(run)
    assert [run.get() for run in runs] == [[0, 1], [0, 1]]


def test_the_limit_of_a_flow_holds_where_it_is_called_and_where_it_is_mapped(hands: Hands) -> None:
    inside, mapped, late = around(), pair.map([1, 1]), over(2)
    runs = (inside, mapped, late)
    hands.take()
    while "numbers" in hands.names() or "pair" in hands.names():
        hands.end("numbers", "pair")

    inner = [state for run in runs for name, state in states(run).items() if "/work" in name]

    assert Counter(inner) == {"running": 3, "held": 7}
    assert states(inside)["work"] == states(inside)["work-2"] == "running"
    for run in runs:
        hands.all(run)
        assert run.state == "success"


def test_both_may_hold_at_once(hands: Hands) -> None:
    runs = [shared.options(max_parallel=2)(3) for _ in range(2)]

    hands.take()

    assert [Counter(states(run).values())["running"] for run in runs] == [2, 1]
    for run in runs:
        hands.all(run)
    assert hands.most == 3


def test_a_call_in_a_flow_is_bounded_apart_from_what_is_beside_it(hands: Hands) -> None:
    @app_flow
    def outer() -> Any:
        return [plain.options(max_parallel=1)(3), plain.options(max_parallel=2)(3), work("x")]

    run = outer()
    hands.take()

    assert hands.names() == ["plain-2/work", "plain-2/work-2", "plain/work", "work"]
    hands.all(run)


def app_flow(func: Any) -> Any:
    """A flow that only one test knows."""
    return app.flow(name=f"{func.__name__}-{id(func)}")(func)


def test_a_call_is_bounded_by_all_that_is_around_it(hands: Hands) -> None:
    @app_flow
    def outer() -> Any:
        return [plain.options(max_parallel=2)(3), plain(3)]

    run = outer.options(max_parallel=3)()
    hands.take()
    first = hands.names()
    hands.end("plain/work", "plain/work-2")

    assert first == ["plain-2/work", "plain/work", "plain/work-2"]
    assert len(hands.busy) == 3
    hands.all(run)
    assert hands.most == 3


# --- maps, branches, what is returned -------------------------------------------------------------


def test_of_a_mapped_flow_it_speaks_of_the_map(hands: Hands) -> None:
    run = two.options(max_parallel=1).map([2, 2])

    taken = hands.take()

    assert taken == ["two[0]/work", "two[0]/work-2"]
    assert states(run)["two[1]"] == "waiting"
    hands.all(run)


def test_in_a_flow_it_speaks_of_the_map_as_well(hands: Hands) -> None:
    @app_flow
    def outer() -> Any:
        xs = numbers(3)
        return [two.options(max_parallel=1).map(xs), xs]

    @app_flow
    def piped() -> Any:
        return chain(numbers.s(3), two.options(max_parallel=1).each())

    for flow in (outer, piped):
        run = flow()
        hands.take()
        while hands.names() == ["numbers"] or len(hands.busy) == 1:
            hands.end()
        assert len(hands.busy) == 2
        assert Counter(s for n, s in states(run).items() if n.endswith("]"))["waiting"] == 2
        hands.all(run)


@pytest.mark.parametrize("known", [True, False])
def test_of_a_graph_that_is_mapped_it_speaks_of_each_item(hands: Hands, known: bool) -> None:
    item = two.options(max_parallel=1).s()

    run = (item.map([3, 3]) if known else chain(numbers.s(2), item.each())).start()
    hands.take()
    while not any(name.endswith("work") for name in hands.names()):
        hands.end()

    assert [name.endswith("]/work") for name in hands.names()] == [True, True]
    hands.all(run)
    assert run.state == "success"


def test_a_bounded_map_in_a_bounded_run_keeps_to_both(hands: Hands) -> None:
    @app_flow
    def outer() -> Any:
        return [work.options(max_parallel=2).map(numbers(4)), work.map(numbers(4))]

    run = outer.options(max_parallel=3)()
    hands.take()
    most = 0
    while hands.busy:
        most = max(most, sum(name.startswith("work[") for name in hands.names()))
        hands.end()

    assert (run.state, most, hands.most) == ("success", 2, 3)


def test_maps_of_maps_and_arms_stand_under_the_limits_around_them(hands: Hands) -> None:
    @app_flow
    def outer() -> Any:
        n = work(2)
        arms = branch(n, {2: lambda: total(work.map(numbers(5)))}, default=0)
        return [arms, numbers.s().map(numbers(4)), (work.s() | work.s()).map(numbers(3))]

    run = outer.options(max_parallel=2)()
    hands.all(run)

    assert (run.state, hands.most) == ("success", 2)
    assert run.get()[0] == 5


def test_no_more_items_of_a_bounded_map_are_held_than_it_has_places(hands: Hands) -> None:
    run = group(work.s().map(list(range(10))).options(max_parallel=3)).options(max_parallel=1)
    started = run.start()
    hands.take()

    counts = Counter(states(started).values())
    hands.end()
    then = Counter(states(started).values())

    assert counts == {"expanded": 1, "running": 1, "held": 2, "waiting": 7}
    assert then == {"expanded": 1, "success": 1, "running": 1, "held": 2, "waiting": 6}
    hands.all(started)


def test_a_call_in_an_arm_is_bounded_by_its_path_in_the_run(hands: Hands) -> None:
    @app_flow
    def outer() -> Any:
        return branch(work(2), {2: lambda: total(plain.options(max_parallel=1)(3))}, default=0)

    run = outer()
    hands.take()
    while hands.names() != ["branch/plain/work"]:
        hands.end()

    assert run.why("branch/plain/work-2") == (
        "branch/plain/work-2: held, max_parallel=1 of branch/plain is full: "
        "held by branch/plain/work; 2 wait"
    )
    hands.all(run)
    assert run.get() == 3


def test_chunks_are_tasks(hands: Hands) -> None:
    run = chain(numbers.s(6), work.options(chunksize=2).each()).options(max_parallel=1).start()

    hands.all(run)

    assert (run.get(), hands.most) == ([0, 1, 2, 3, 4, 5], 1)


def test_a_called_flow_in_what_is_made_late_has_places_of_its_own(hands: Hands) -> None:
    @app_flow
    def item(x: int) -> Any:
        return [plain.options(max_parallel=1)(2), work(x)]

    run = chain(numbers.s(2), item.each()).start()
    hands.take()
    while "numbers" in hands.names() or len(hands.busy) == 1:
        hands.end()

    ends = Counter(name.partition("/")[2] for name in hands.names())
    assert ends == {"plain/work": 2, "work": 2}
    hands.all(run)


def test_what_a_task_returns_stands_under_its_limits(hands: Hands) -> None:
    run = chain(spread.s(5), total.s()).options(max_parallel=2).start()

    hands.all(run)

    assert (run.get(), hands.most) == (5, 2)


def test_a_task_that_returns_itself_is_not_stuck_under_a_limit_of_one(hands: Hands) -> None:
    run = one_by_one.options(max_parallel=1)()
    hands.all(run)

    assert (run.get(), hands.most) == ("ground", 1)


def test_a_flow_that_is_returned_within_itself_has_one_limit(hands: Hands) -> None:
    run = again(2)
    hands.all(run)

    assert (run.get(), hands.most) == ([[["end", 0], 1], 2], 1)


# --- what else is a node, and what holds no place -------------------------------------------------


def test_handlers_alarms_fallbacks_and_cleanups_are_bound(hands: Hands) -> None:
    graph = group(
        breaks.s().options(on_error=[work.s("a"), work.s("b")]),
        breaks.s().options(fallback=group(work.s("c"), work.s("d"))),
    ).options(
        max_parallel=1,
        on_failure=[work.s("e"), work.s("f")],
        finally_=[work.s("g"), work.s("h")],
    )

    run = graph.start()
    hands.all(run)

    assert (run.state, hands.most) == ("failed", 1)
    assert {"c", "d", "g", "h"} <= {x for _, x in CALLS}
    assert sum(name == "work" for name, _ in CALLS) == 8


def test_what_sleeps_waits_or_is_to_be_tried_again_holds_no_place(hands: Hands) -> None:
    run = (
        group(sleep(600), wait_for("go", timeout=600, default=0), flaky.s(), work.s(1))
        .options(max_parallel=1)
        .start()
    )

    hands.take()
    hands.end("flaky")

    assert states(run)["flaky"] == "scheduled"
    assert hands.names() == ["work"]
    hands.all(run)


def test_what_runs_again_does_so_under_the_same_limits(hands: Hands) -> None:
    run = group(breaks.s(i) for i in range(3)).options(max_parallel=1).start()
    hands.all(run)
    run.retry()

    hands.all(run)

    assert (run.state, hands.most) == ("failed", 1)


# --- what is told --------------------------------------------------------------------------------


def test_why_names_the_limit_and_who_holds_it(hands: Hands) -> None:
    run = plain.options(max_parallel=2)(4)
    hands.take()

    assert run.why("work-3") == (
        "work-3: held, max_parallel=2 of the run is full: held by work, work-2; 2 wait"
    )
    assert run.why().splitlines()[-2:] == [
        "work-3: held, max_parallel=2 of the run is full: held by work, work-2; 2 wait",
        "work-4: held, max_parallel=2 of the run is full: held by work, work-2; 2 wait",
    ]


def test_why_names_holders_in_other_runs(hands: Hands) -> None:
    run, other = shared(3), shared(1)
    hands.take()

    held = ", ".join(f"{name} of run {run.id}" for name in ("work", "work-2", "work-3"))
    assert other.why("work") == (
        "work: held, max_parallel=3 of flow shared over all its runs is full: "
        f"held by {held}; 1 waits"
    )


def test_why_names_all_limits_that_are_full(hands: Hands) -> None:
    @app_flow
    def outer() -> Any:
        return [plain.options(max_parallel=1)(2), work(0)]

    run = outer.options(max_parallel=2)()
    hands.take()

    assert run.why("plain/work-2") == (
        "plain/work-2: held, max_parallel=1 of plain is full: held by plain/work; 1 waits, "
        "max_parallel=2 of the run is full: held by plain/work, work; 0 wait"
    )


def test_many_that_one_limit_holds_are_one_line(hands: Hands) -> None:
    run = plain.options(max_parallel=1)(9)
    hands.take()

    (_, line) = run.why().splitlines()
    assert line == (
        "8 held, such as work-2: held, max_parallel=1 of the run is full: held by work; 8 wait"
    )


def test_what_shows_a_run_says_that_a_place_is_waited_for(hands: Hands) -> None:
    run = plain.options(max_parallel=1)(2)
    hands.take()

    out = io.StringIO()
    seen = see(run._app.store, run._id)
    assert seen is not None
    Lines(run._app.store, out).show(seen)

    assert "  work-2  held  for a place, by max_parallel of the run" in out.getvalue()
    assert "paused" not in out.getvalue()


def test_a_run_that_is_paused_says_both(hands: Hands) -> None:
    run = plain.options(max_parallel=1)(2)
    hands.take()
    run.pause()

    assert run.why("work-2") == (
        "work-2: held, max_parallel=1 of the run is full: held by work; 1 waits, "
        f"its run is paused: flowq run resume {run.id}"
    )


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, True, 1.5, -1, "2"])
def test_a_wrong_number_is_told(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"from 1 to .* leave it out for no limit"):
        app.flow(name=f"wrong-{wrong}", max_parallel=wrong)(lambda: work(1))
    for said in (plain, plain.s(1), group(work.s(1)), DAG("d"), work.s().map([1])):
        with pytest.raises(GraphError, match=r"from 1 to .* leave it out for no limit"):
            said.options(max_parallel=wrong)


def test_it_is_not_said_of_a_task() -> None:
    with pytest.raises(FlowqError, match=r"'max_parallel' does not go here.*@q.flow"):
        app.task(name="bounded", max_parallel=2)(lambda: None)
    with pytest.raises(GraphError, match="'max_parallel' does not go here"):
        work.s(1).options(max_parallel=2)


# --- without a consumer --------------------------------------------------------------------------


def test_a_test_of_a_graph_keeps_to_it() -> None:
    graph = chain(numbers.s(3), pair.options(max_parallel=1).each()).options(max_parallel=1)

    run = graph.test(values={"pair[1]/work": "x"})

    assert (run.state, run.get()) == ("success", [[0, 0], ["x", 1], [2, 2]])


def test_what_stands_for_a_bounded_flow_in_a_test_is_a_value() -> None:
    run = around.build().options(max_parallel=1).test(values={"pair": [3, 4]})

    assert run.get()[0] == [3, 4]


def test_inline_runs_keep_to_it() -> None:
    with app.inline():
        run = shared.options(max_parallel=1)(4)
        value = run.get()

    assert value == [0, 1, 2, 3]
