# SPDX-License-Identifier: MIT
"""Runs that go on, and run again meanwhile; runs that take over from others."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from flowq import BindingError, FlowQ, GraphError, ResultMissing, chain, first, group
from flowq.errors import RunActive
from flowq.executor import Executor, Job, Lane
from flowq.message import Delivery, decode_message
from flowq.naming import AGAIN
from flowq.testing import ManualClock
from tests.unit.staged import Stage, states

app = FlowQ("anew", "memory://", clock=ManualClock())
CALLS: list[Any] = []
BAD: set[Any] = set()


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()
    BAD.clear()


@app.task(name="give")
def give(x: Any = None, y: Any = None) -> Any:
    CALLS.append(x)
    if x in list(BAD):
        raise ValueError(x)
    return x


@app.task(name="join")
def join(xs: list[Any]) -> str:
    CALLS.append("join")
    return "+".join(map(str, xs))


@app.flow(name="pair")
def pair() -> Any:
    return join([give.options(name="x")("x"), give.options(name="y")("y")])


@app.flow(name="nested", finally_=give.s("clean inside"))
def nested() -> Any:
    return join([give.options(name="x")("x"), give.options(name="y")("y")])


@app.flow(name="failing", on_failure=give.s("alert"))
def failing() -> Any:
    return give("x")


class Bodies:
    """Bodies that were handed out and end when a test says so."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.executor, self.lane = Executor(stage.app), Lane(0)
        self.lane.thread = threading.get_ident()
        self.held: dict[str, Delivery] = {}

    def fetch(self) -> list[str]:
        """Take all there is; gives the names of the nodes, ``again`` for flowq's own task."""
        queues = self.stage.app.queues()
        found = []
        for d in self.stage.app.store.step("b", want=50, queues=queues).deliveries:
            message = decode_message(d.body)
            name = "again" if message.task == AGAIN else message.name
            name += "'" * sum(known.rstrip("'") == name for known in self.held)  # of another run
            self.held[name] = d
            found.append(name)
        return sorted(found)

    def end(self, *names: str) -> None:
        """Let bodies run to their end."""
        outcomes = [self.executor.run(self.lane, Job(self.held.pop(n))) for n in names]
        self.stage.app.store.step("b", outcomes, queues=self.stage.app.queues())

    def rest(self, seconds: float = 300) -> None:
        """Run whatever there is, and let time pass where something waits for it."""
        clock = self.stage.app.clock
        assert isinstance(clock, ManualClock)
        self.end(*list(self.held))
        for _ in range(400):
            names = self.fetch()
            self.end(*names)
            if names:
                continue
            wait = self.stage.app.store.step("b").next_ms
            if wait is None or wait > seconds * 1000:
                return
            clock.advance(wait / 1000)
        raise AssertionError(f"it never ends: {CALLS}")


@pytest.fixture
def bodies(stage: Stage) -> Bodies:
    return Bodies(stage)


def graph() -> Any:
    """Two branches and what joins them."""
    left = chain(give.s("a").options(name="a"), give.s("b").options(name="b"))
    return group(left, give.s("long").options(name="long")) | join.s().options(name="end")


class TestRetry:
    def test_what_has_failed_runs_again_while_the_rest_goes_on(self, bodies: Bodies) -> None:
        BAD.add("a")
        run = graph().start()
        assert bodies.fetch() == ["a", "long"]
        bodies.end("a")
        assert states(run)["end"] == "blocked"
        BAD.clear()

        assert run.retry() == 3

        assert bodies.fetch() == ["a"]
        bodies.rest()
        assert run.get() == "b+long"
        assert sorted(CALLS) == ["a", "a", "b", "join", "long"]
        assert run.retry() == 0

    def test_where_nothing_has_failed_nothing_runs_again(self, bodies: Bodies) -> None:
        run = graph().start()
        bodies.fetch()

        assert run.retry() == 0

        bodies.rest()
        assert run.get() == "b+long"

    def test_a_failed_item_of_a_map_that_goes_on(self, bodies: Bodies) -> None:
        BAD.add(2)
        run = give.map([1, 2, 3])
        assert len(bodies.fetch()) == 3
        bodies.end("give[1]")
        assert run[1].state == "failed"
        BAD.clear()

        assert run.retry() == 1

        assert bodies.fetch() == ["give[1]"]
        bodies.rest()
        assert run.get() == [1, 2, 3]

    def test_inside_a_flow_that_goes_on(self, bodies: Bodies) -> None:
        BAD.add("x")
        run = (pair.s() | give.s(y=1).options(name="after")).start()
        names = bodies.fetch()
        x = next(n for n in names if n.endswith("x"))
        bodies.end(x)
        BAD.clear()

        assert run.retry() == 3

        bodies.rest()
        assert run.get() == "x+y"

    def test_a_cleanup_that_runs_ends_first_and_nobody_sees_that_end(self, bodies: Bodies) -> None:
        BAD.add("a")
        steps = chain(give.s("a"), give.s("b")).finally_(give.s("clean"))
        run = steps.on_failure(give.s("alert")).start()
        bodies.end(*bodies.fetch())
        bodies.end(*bodies.fetch())
        assert CALLS == ["a", "alert"]
        assert bodies.fetch() == ["finally/give"]
        BAD.clear()

        assert run.retry() > 0
        assert run.retry() > 0  # and once more: both are done together

        bodies.end("finally/give")
        assert not run.ready
        assert run.state == "running"
        bodies.rest()
        assert run.state == "success"
        assert CALLS == ["a", "alert", "clean", "a", "b", "clean"]
        assert run.get() == "b"

    def test_a_fallback_that_runs_is_left_to_make_it_good(self, bodies: Bodies) -> None:
        BAD.add("x")
        run = (failing.s().options(fallback=give.s("instead")) | give.s("after")).start()
        bodies.end(*bodies.fetch())
        bodies.end(*bodies.fetch())
        assert CALLS == ["x", "alert"]
        assert len(bodies.fetch()) == 1

        assert run.retry() == 0

        bodies.rest()
        assert (run.state, CALLS) == ("success", ["x", "alert", "instead", "after"])

    def test_what_has_come_to_good_by_then_is_left_alone(self, bodies: Bodies) -> None:
        BAD.add("x")
        run = (failing.s().options(fallback=give.s("instead")) | give.s("after")).start()
        bodies.end(*bodies.fetch())
        bodies.fetch()
        assert CALLS == ["x"]

        assert run.retry() > 0  # its handler runs, and its fallback comes after that

        bodies.rest()
        assert (run.state, CALLS) == ("success", ["x", "alert", "instead", "after"])

    def test_of_what_is_cancelled_while_handlers_run_inside_it(self, bodies: Bodies) -> None:
        BAD.add("x")
        run = group(failing.s(), give.s("long").options(name="long")).start()
        bodies.end(*[name for name in bodies.fetch() if name != "long"])
        bodies.fetch()
        BAD.clear()
        run.cancel()

        assert run.retry() > 0

        bodies.rest()
        assert run.get() == ["x", "long"]

    def test_in_the_middle_of_a_cancel(self, bodies: Bodies) -> None:
        steps = chain(give.s("a"), give.s("b")).finally_(give.s("clean"))
        run = steps.start()
        bodies.fetch()
        run.cancel()
        assert not run.ready

        assert run.retry() > 0

        bodies.rest()
        assert run.state == "success"
        assert run.get() == "b"
        assert CALLS == ["a", "clean", "a", "b", "clean"]

    def test_in_the_middle_of_a_cancel_of_flows_in_flows(self, bodies: Bodies) -> None:
        inside = nested.s() | give.s(y=1).options(name="after")
        run = chain(inside).finally_(give.s("clean")).start()
        bodies.fetch()
        run.cancel()
        assert not run.ready

        assert run.retry() > 0

        bodies.rest()
        assert run.state == "success"
        assert CALLS.count("clean inside") == CALLS.count("clean") == 2

    def test_while_an_alarm_runs_about_what_is_to_run_anew(self, bodies: Bodies) -> None:
        BAD.add("a")
        alarmed = give.s("a").options(name="a").on_error(give.s("alarm").options(name="alarm"))
        run = group(alarmed, give.s("long").options(name="long")).start()
        assert bodies.fetch() == ["a", "long"]
        bodies.end("a")
        (alarm,) = bodies.fetch()
        BAD.clear()

        assert run.retry() > 0
        bodies.end("long")  # the body has ended, and what is left is the alarm
        assert run.retry() > 0
        bodies.end(alarm)
        bodies.rest()

        assert run.state == "success"
        assert CALLS.count("a") == 2
        assert CALLS.count("alarm") == 1

    def test_a_cancel_takes_back_what_was_asked_for(self, bodies: Bodies) -> None:
        BAD.add("a")
        run = chain(give.s("a"), give.s("b")).finally_(give.s("clean")).start()
        bodies.end(*bodies.fetch())
        assert bodies.fetch() == ["finally/give"]
        run.retry()

        run.cancel()
        bodies.rest()

        assert run.state == "failed"
        assert CALLS == ["a", "clean"]

    def test_a_run_that_was_cancelled_at_its_end_only_ends_anew(self, bodies: Bodies) -> None:
        run = chain(give.s("a")).start()
        bodies.fetch()
        run.cancel()
        bodies.rest()
        assert run.state == "cancelled"

        assert run.retry() > 0

        bodies.rest()
        assert run.state == "success"


class TestWhoAskedIsKilled:
    """Whoever asks may be gone between any two calls of the store."""

    def cleaning(self, bodies: Bodies) -> Any:
        """A failed run whose cleanup runs."""
        BAD.add("a")
        run = chain(give.s("a"), give.s("b")).finally_(give.s("clean")).start()
        bodies.end(*bodies.fetch())
        assert bodies.fetch() == ["finally/give"]
        BAD.clear()
        return run

    def test_after_it_was_parked(self, bodies: Bodies, monkeypatch: pytest.MonkeyPatch) -> None:
        run = self.cleaning(bodies)
        park = bodies.stage.app.store.park

        def killed(*args: Any, **kwargs: Any) -> None:
            assert park(*args, **kwargs) is True
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(bodies.stage.app.store, "park", killed)
            run.retry()
        bodies.rest()

        assert run.state == "success"
        assert CALLS == ["a", "clean", "a", "b", "clean"]

    def test_before_it_was_parked(self, bodies: Bodies, monkeypatch: pytest.MonkeyPatch) -> None:
        run = self.cleaning(bodies)

        def killed(*args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(bodies.stage.app.store, "park", killed)
            run.retry()
        bodies.rest()

        assert run.state == "failed"  # it was not asked for
        assert CALLS == ["a", "clean"]
        assert run.retry() > 0
        bodies.rest()
        assert run.state == "success"

    def test_the_worker_that_goes_on_with_it_too(self, bodies: Bodies) -> None:
        run = self.cleaning(bodies)
        run.retry()
        clock = bodies.stage.app.clock
        assert isinstance(clock, ManualClock)
        clock.advance(1)
        store, queues = bodies.stage.app.store, bodies.stage.app.queues()
        (word,) = store.step("lost", want=5, queues=queues).deliveries
        store.release("lost", lost=[word.id])

        bodies.rest()

        assert run.state == "success"
        assert CALLS == ["a", "clean", "a", "b", "clean"]


class TestRerun:
    def test_what_runs_and_depends_on_it_is_stopped_and_runs_anew(self, bodies: Bodies) -> None:
        run = graph().start()
        bodies.fetch()
        bodies.end("a")
        assert bodies.fetch() == ["b"]

        assert run.rerun("a") == 3

        assert run.state == "running"
        bodies.end("b")  # told to stop, or about to end by itself: nobody sees it
        assert states(run)["b"] in ("held", "waiting")
        bodies.rest()
        assert run.get() == "b+long"
        assert CALLS.count("a") == 2
        assert CALLS.count("long") == 1

    def test_while_a_cleanup_runs(self, bodies: Bodies) -> None:
        run = chain(give.s("a"), give.s("b")).finally_(give.s("clean")).start()
        for _ in range(2):
            bodies.end(*bodies.fetch())
        assert bodies.fetch() == ["finally/give"]

        run.rerun("give-2")
        bodies.rest()

        assert CALLS == ["a", "b", "clean", "b", "clean"]
        assert run.state == "success"

    def test_of_a_run_that_ends_before_it_is_made_good(self, bodies: Bodies) -> None:
        steps = [give.s(x).options(name=x) for x in ("fast", "slow")]
        run = first(*steps).start()
        bodies.fetch()
        run.rerun("slow")
        bodies.end("fast")  # it stops the other, whose end was to be awaited
        bodies.end("slow")
        assert run.ready

        bodies.rest()

        assert run.state == "success"
        info = bodies.stage.app.store.run(run._id)
        nodes = {n.name: n for n in bodies.stage.app.store.nodes(run._id)}
        assert info is not None and not info.request
        assert [nodes[x].generation for x in ("fast", "slow")] == [0, 1]

    def test_the_whole_of_a_run_that_goes_on(self, bodies: Bodies) -> None:
        run = graph().start()
        bodies.fetch()
        bodies.end("a")

        run.rerun(0)
        bodies.rest()

        assert run.get() == "b+long"
        assert CALLS.count("a") == 2
        assert CALLS.count("join") == 1

    def test_of_what_has_become_a_graph_and_runs(self, bodies: Bodies, stage: Stage) -> None:
        run = (give.s([1, 2]).options(name="list") | give.s().map() | join.s()).start()
        bodies.end(*bodies.fetch())
        bodies.end(*bodies.fetch())  # the map becomes its items
        assert len(bodies.fetch()) == 2

        assert run.rerun("list") > 0
        bodies.rest()

        assert run.get() == "1+2"
        assert CALLS.count([1, 2]) == 2

    def test_a_name_that_is_not_there_is_told(self, bodies: Bodies) -> None:
        run = graph().start()

        with pytest.raises(ResultMissing, match="lonk"):
            run.rerun("lonk")


class TestFork:
    def test_it_takes_over_what_is_before_and_runs_the_rest(self, bodies: Bodies) -> None:
        run = graph().start()
        bodies.rest()
        CALLS.clear()

        other = run.fork("b")
        bodies.rest()

        assert other.id != run.id
        assert type(other) is type(run)
        assert CALLS == ["b", "join"]
        assert other.get() == run.get() == "b+long"
        assert states(other) == states(run)

    def test_of_a_failed_run_with_other_arguments(self, bodies: Bodies) -> None:
        BAD.add("a")
        run = graph().start()
        bodies.rest()

        other = run.fork("a", args={"x": "A"})
        bodies.rest()

        assert run.state == "failed"
        assert other.state == "success"
        assert CALLS == ["a", "long", "A", "b", "join"]

    def test_an_argument_that_another_node_gave_can_be_given(self, bodies: Bodies) -> None:
        run = chain(give.s("a"), give.s()).start()
        bodies.rest()

        other = run.fork("give-2", args={"x": "mine"})
        bodies.rest()

        assert run.get() == "a"
        assert other.get() == "mine"

    def test_from_the_start(self, bodies: Bodies) -> None:
        run = graph().start()
        bodies.rest()
        CALLS.clear()

        other = run.fork()
        bodies.rest()

        assert sorted(map(str, CALLS)) == ["a", "b", "join", "long"]
        assert other.get() == "b+long"

    def test_one_item_of_a_map(self, bodies: Bodies) -> None:
        run = give.map([1, 2, 3])
        bodies.rest()
        CALLS.clear()

        other = run.fork("give[1]", args={"x": 20})
        bodies.rest()

        assert CALLS == [20]
        assert other.get() == [1, 20, 3]
        assert run.get() == [1, 2, 3]

    def test_what_cannot_be_forked_is_told(self, bodies: Bodies) -> None:
        run = chain(give.s("a"), give.s("b")).finally_(give.s("clean")).start()
        with pytest.raises(RunActive, match="ended"):
            run.fork("give")
        bodies.rest()

        with pytest.raises(BindingError, match="z"):
            run.fork("give", args={"z": 1})
        with pytest.raises(GraphError, match="no task"):
            run.fork(args={"x": 1})
        with pytest.raises(ResultMissing, match="giv"):
            run.fork("giv")
        with pytest.raises(GraphError, match="because of how"):
            run.fork("finally/give")

    def test_a_fork_can_be_retried_and_forked(self, bodies: Bodies) -> None:
        BAD.add("b")
        run = graph().start()
        bodies.rest()
        other = run.fork("b")
        bodies.rest()
        assert other.state == "failed"
        BAD.clear()

        third = other.fork("b")
        other.retry()
        bodies.rest()

        assert other.get() == third.get() == "b+long"
        assert run.state == "failed"


class TestHandles:
    def test_an_item_runs_again_by_its_handle(self, bodies: Bodies) -> None:
        BAD.add(2)
        run = give.map([1, 2, 3])
        bodies.rest()
        BAD.clear()

        assert run[1].retry() == 1
        bodies.rest()
        assert run.get() == [1, 2, 3]
        assert run[2].rerun() == 1
        bodies.rest()

        assert CALLS == [1, 2, 3, 2, 3]

    def test_what_was_called_alone_says_what_to_do(self, bodies: Bodies) -> None:
        alone = give(1)
        bodies.rest()

        with pytest.raises(GraphError, match="call it again"):
            alone.retry()
        with pytest.raises(GraphError, match="call it again"):
            alone.rerun()
