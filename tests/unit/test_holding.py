# SPDX-License-Identifier: MIT
"""What is told of nodes that sleep, wait for somebody, are held, or were not wanted any more."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

from rich.console import Console

from flowq import FlowQ, first, sleep, wait_for
from flowq.states import State
from flowq.testing import ManualClock
from flowq.testing.contract.base import end
from flowq.watching import Lines, Live, see
from tests.unit.staged import Stage

CLOCK = ManualClock()
app = FlowQ("holding", "memory://", clock=CLOCK)
CALLS: list[Any] = []
AT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\+00:00)?"


@app.task(name="ask")
def ask(x: Any = None) -> Any:
    CALLS.append(("ask", x))
    return x


@app.task(name="late", priority=-5)
def late(x: Any = None) -> Any:
    return x


@app.task(name="numbers")
def numbers(n: int) -> list[int]:
    return list(range(n))


@app.flow(name="asked")
def asked(x: int) -> Any:
    return late(x).after(wait_for("answer", timeout=60))


@app.flow(name="slow", deadline=60)
def slow() -> Any:
    return ask(1).after(sleep(600))


@app.flow(name="outer")
def outer() -> Any:
    return late(slow())


@app.flow(name="unbound")
def unbound() -> Any:
    return ask.options(max_parallel=1).map(numbers(2))


def told(run: Any, node: str | None = None) -> str:
    """Why, without moments."""
    return re.sub(AT, "T", run.why(node))


def lines_of(run: Any) -> list[str]:
    """What one look by `watch` prints where there is no terminal, without moments."""
    out = io.StringIO()
    seen = see(run._app.store, run._id)
    assert seen is not None
    Lines(run._app.store, out).show(seen)
    return [re.sub(AT, "T", line) for line in out.getvalue().splitlines()]


def test_what_sleeps_says_until_when(stage: Stage) -> None:
    run = stage.start(ask.s(1) >> sleep(60) >> ask.s(2))
    stage.work()

    assert told(run) == "sleep: scheduled, sleeps until T"
    assert any(line.startswith("T  sleep  scheduled  until T") for line in lines_of(run))


def test_what_waits_for_somebody_says_how_to_answer(stage: Stage) -> None:
    run = stage.start(ask.s(1) >> wait_for("go"))
    items = stage.start(asked.s().map([1]))
    stage.work()

    assert told(run) == (
        f"go: scheduled, waits for 'go' to be sent: flowq run send {run.id} go VALUE"
    )
    assert told(items) == (
        "asked[0]/answer: scheduled, waits for 'answer' to be sent, until T: "
        f"flowq run send {items.id} answer VALUE --to 'asked[0]/answer'"
    )
    assert "T  go  scheduled  for 'go' to be sent" in lines_of(run)
    assert "T  asked[0]/answer  scheduled  for 'answer' to be sent, until T" in lines_of(items)


def test_what_has_been_answered_says_by_whom(stage: Stage) -> None:
    run = stage.start(ask.s(1) >> wait_for("go"))
    run.send("go", 1)
    stage.run(run)
    nobody = stage.run(ask.s(1) >> wait_for("go", timeout=5, default=2))

    (sent,) = run.sent()
    assert told(run, "go").startswith(f"go: success, sent by {sent.who} at ")
    assert told(nobody, "go").startswith("go: success, nobody sent it in time")


def test_what_waits_for_a_place_says_who_has_them(stage: Stage) -> None:
    run = stage.start(ask.s().map([1, 2, 3, 4]).options(max_parallel=2))
    stage.step()

    taken = "until one of these ends: 2 of 2 places are taken by ask[1], ask[2]"
    assert told(run, "ask[3]") == f"ask[3]: waiting, {taken}"


def test_what_waits_in_a_map_whose_list_is_not_known_waits_for_no_place(stage: Stage) -> None:
    run = stage.start(unbound())

    assert told(run, "ask") == "ask: waiting, until these end: numbers (queued)"


def test_what_a_pause_holds_says_how_to_resume(stage: Stage) -> None:
    run = stage.start(ask.s(1) | ask.s())
    run.pause()
    stage.work()

    resume = f"flowq run resume {run.id}"
    assert told(run).splitlines() == [
        f"run {run.id} is paused: {resume}",
        f"ask: held, its run is paused: {resume}",
    ]
    assert any("ask  held  until its run goes on" in line for line in lines_of(run))
    stream = io.StringIO()
    console = Console(file=stream, width=120, height=30)
    view = Live(run._app.store, sys.stderr, console)
    seen = see(run._app.store, run._id)
    assert seen is not None
    console.print(view.tree(seen, room=9))
    view.close()
    assert "running  paused" in stream.getvalue()


def test_who_lost_a_race_is_told_who_won_it(stage: Stage) -> None:
    run = stage.run(first(ask.s(0) | late.s(), ask.s(2), asked.s(3)))

    won = "not wanted any more: first took ask-2"
    assert told(run, "late").startswith(f"late: skipped, {won}; above it ask (skipped")
    assert told(run, "asked") == f"asked: skipped, {won}"
    assert told(run, "asked/answer") == (
        "asked/answer: cancelled, since asked was not wanted any more"
    )
    assert any("late  skipped  another came first" in line for line in lines_of(run))


def test_a_race_that_lost_is_told_of_the_one_around_it(stage: Stage) -> None:
    run = stage.run(first(first(late.s(1), late.s(2)), ask.s(3)))

    inner = [n.name for n in run.nodes(state="skipped")]
    assert len(inner) == 3
    for name in inner:
        assert re.search(r"not wanted any more: first(-2)? took ask", told(run, name))


def test_what_was_beside_enough_is_told_so(stage: Stage) -> None:
    run = stage.run(ask.s().map([1, 2, 3]).options(need=1))

    assert told(run, "ask[2]") == (
        "ask[2]: skipped, not wanted any more: enough had succeeded (ask[0])"
    )
    assert any("ask[2]  skipped  enough others succeeded" in line for line in lines_of(run))


def test_a_run_whose_need_was_not_met_says_so(stage: Stage) -> None:
    run = stage.run(ask.s().map([1]).options(need=2))

    assert told(run) == f"run {run.id} ended failed, fewer items succeeded than it needs"


def test_what_a_deadline_ended_says_whose_it_was(stage: Stage) -> None:
    run, nested = stage.run(slow()), stage.run(outer())

    late_text = "DeadlineExceeded('its deadline has passed')"
    assert told(run).splitlines()[0] == f"run {run.id} ended failed, {late_text}"
    assert told(run, "ask") == "ask: cancelled, since the deadline of the run had passed"
    assert told(nested, "slow/ask") == (
        "slow/ask: cancelled, since the deadline of slow had passed"
    )
    assert told(nested, "late") == f"late: blocked by slow, {late_text}"


def test_a_body_that_a_deadline_cut_short_says_whose_it_was(stage: Stage) -> None:
    other = stage.start((ask.s(1) | late.s()).options(deadline=20))
    (held,) = app.store.step("w", want=1, queues=app.queues()).deliveries
    CLOCK.advance(30)
    assert app.store.step("w").stops == [held.id]

    app.store.step("w", [end(held, State.CANCELLED)])

    assert told(other, "ask") == (
        "ask: failed, DeadlineExceeded('its deadline has passed'), "
        "since the deadline of the run had passed"
    )
    assert told(other, "late").startswith("late: cancelled, since the deadline of the run")


def test_a_terminal_shows_what_is_waited_for_and_no_more_once_it_has_come(stage: Stage) -> None:
    run = stage.start(ask.s(1) >> wait_for("go"))
    stage.work()
    stream = io.StringIO()
    store = run._app.store
    console = Console(file=stream, width=120, height=30)
    view = Live(store, sys.stderr, console)

    waits = see(store, run._id)
    assert waits is not None
    console.print(view.tree(waits, room=9))
    run.send("go", 1)
    ended = see(store, run._id)
    assert ended is not None
    console.print(view.tree(ended, room=9))
    view.close()

    first_look, second = stream.getvalue().split("go ")[1:][:2]
    assert "for 'go' to be sent" in first_look
    assert "success" in second and "to be sent" not in second


def test_where_time_went_has_sleeps_too(stage: Stage) -> None:
    run = stage.run(ask.s(1) >> sleep(60) >> ask.s(2))

    assert [n.name for n in run.critical_path()] == ["ask", "sleep", "ask-2"]
    assert [n.name for n in run.timeline()] == ["ask", "sleep", "ask-2"]


def test_pictures_say_what_is_waited_for() -> None:
    graph = (ask.s(1) >> sleep(60) >> wait_for("go", timeout=90)).svg()

    assert "sleeps" in graph
    assert "waits for" in graph
