# SPDX-License-Identifier: MIT
"""Stopping a run that grows, following it, and asking it why."""

from __future__ import annotations

import io
import itertools
import sys
import threading
from typing import Any

import pytest

from flowq import FlowQ, Run, branch, group
from flowq.fragment import expand_map
from flowq.message import Delivery, decode_message, id_text
from flowq.outcome import Expand
from flowq.states import State
from flowq.testing.contract.base import end, make_plan
from flowq.testing.contract.policies import HANDLERS, with_later
from flowq.watching import Live, see
from tests.unit.hand import Hand


@pytest.fixture
def nightly(q: FlowQ) -> Any:
    """A flow whose map is over a list that is not known before."""

    @q.task(name="extract")
    def extract(n: int) -> list[int]:
        return list(range(n))

    @q.task(name="clean")
    def clean(x: int) -> int:
        if x == 7:
            raise ValueError(f"no {x}")
        return x

    @q.task(name="report")
    def report(rows: list[int]) -> int:
        return len(rows)

    @q.flow(name="nightly")
    def nightly(n: int) -> Any:
        return report(clean.map(extract(n)))

    return nightly


def run_all(q: FlowQ) -> None:
    with q.consumer(workers=2, drain=True):
        pass


def fetch(hand: Hand, want: int = 1) -> list[Delivery]:
    return hand.app.store.step(hand.session, want=want, queues=["default"]).deliveries


def started(q: FlowQ, hand: Hand) -> tuple[Run[Any], list[Delivery]]:
    """Start a run of two bodies, with handlers and a cleanup, and let both bodies run."""
    plan = with_later(make_plan({"a": [], "b": [], "c": ["a"]}), "root", HANDLERS)
    run: Run[Any] = q.start_plan(plan)
    return run, fetch(hand, 2)


def grow(q: FlowQ, hand: Hand) -> None:
    """Let `extract` run, and the map become its items."""
    hand.work(1)
    (found,) = fetch(hand)
    extracted = q.result(f"{id_text(found.id[:16])}:1").get()
    rows = expand_map(decode_message(found.body), [extracted], [], q, 1000)
    hand.settle(Expand(found.id, found.delivery, rows))


# --- stopping ------------------------------------------------------------------------------------


def test_a_cancel_says_what_still_has_to_end(q: FlowQ, hand: Hand) -> None:
    run, (a, b) = started(q, hand)

    first = run.cancel()

    assert first and (first.state, first.running, first.cleanup) == ("running", 2, True)
    assert "being stopped; 2 running bodies told; its cleanup" in str(first)
    hand.settle(end(a), end(b))
    again = run.cancel()
    assert again and (again.running, again.cleanup) == (0, True)
    hand.settle(*(end(d) for d in fetch(hand, 5)))
    hand.settle(*(end(d) for d in fetch(hand, 5)))
    assert (run.state, str(run.cancel())) == ("cancelled", "cancelled")
    states = {n.name: n.state for n in run.nodes()}
    assert (states["c"], states["clean"], states["up"]) == ("cancelled", "success", "success")
    assert (states["good"], states["bad"]) == ("skipped", "skipped")


def test_a_forced_cancel_ends_the_cleanup_too(q: FlowQ, hand: Hand) -> None:
    run, (a, b) = started(q, hand)
    run.cancel()
    hand.settle(end(a), end(b))
    (clean,) = fetch(hand, 5)

    forced = run.cancel(force=True)

    assert forced and (forced.running, forced.cleanup) == (1, False)
    hand.settle(end(clean))
    assert run.state == "cancelled"
    assert {n.name: n.state for n in run.nodes()}["clean"] == "cancelled"


def test_a_cancel_of_one_node_leaves_the_rest_and_runs_the_cleanup(q: FlowQ, hand: Hand) -> None:
    run, (a, b) = started(q, hand)

    stopping = run.cancel("a")

    assert stopping and stopping.running == 1
    hand.settle(end(a), end(b))
    hand.settle(*(end(d) for d in fetch(hand, 5)))
    hand.settle(*(end(d) for d in fetch(hand, 5)))
    states = {n.name: n.state for n in run.nodes()}
    assert (states["a"], states["b"], states["c"]) == ("cancelled", "success", "cancelled")
    assert (run.state, states["clean"]) == ("cancelled", "success")


@pytest.mark.parametrize("word", [True, False])
def test_a_cancel_takes_force_by_its_name_only(q: FlowQ, hand: Hand, word: bool) -> None:
    run, _ = started(q, hand)

    with pytest.raises(TypeError, match=f"force={word}"):
        run.cancel(word)

    assert run.state == "running"


def test_an_outcome_that_is_fixed_stands_and_the_cancel_says_so(q: FlowQ, hand: Hand) -> None:
    run, (a, b) = started(q, hand)
    hand.settle(end(a, State.FAILED), end(b))
    (bad,) = fetch(hand, 5)

    stopping = run.cancel()

    assert not stopping and stopping.running == 1
    assert str(stopping).startswith("its outcome stands")
    hand.settle(end(bad))
    hand.settle(*(end(d) for d in fetch(hand, 5)))
    hand.settle(*(end(d) for d in fetch(hand, 5)))
    assert run.state == "failed"
    assert str(run.cancel()) == "it had ended before: failed"


def test_a_node_that_has_grown_is_stopped_inwards_alone(q: FlowQ, nightly: Any, hand: Hand) -> None:
    run = nightly(3)
    grow(q, hand)
    (item,) = fetch(hand)

    stopping = run.result("clean").cancel()

    assert stopping and stopping.running == 1
    hand.settle(end(item))
    states = {n.name: n.state for n in run.nodes()}
    assert {states[f"clean[{i}]"] for i in range(3)} == {"cancelled"}
    assert (states["clean"], states["extract"]) == ("cancelled", "success")


def test_a_task_that_became_a_run_is_stopped_and_asked_by_its_own_handle(
    q: FlowQ, nightly: Any
) -> None:
    later = q.tasks["clean"].options(delay=3600)

    @q.task(name="more")
    def more() -> Any:
        return group(later.s(1), later.s(2))

    result = more()
    with q.consumer(workers=1):
        while q.store.look((result._id,))[0].state is not State.EXPANDED:  # type: ignore[union-attr]
            assert result.wait(timeout=0.02) is False

        assert str(result.progress()) == "0 of 2 done"
        assert result.why().count("scheduled, due at") == 2
        stopping = result.cancel()

    assert stopping and str(stopping) == "cancelled"
    assert {n.state for n in q.run(result.id).nodes()} == {"cancelled"}


# --- how far -------------------------------------------------------------------------------------


def test_progress_of_a_run_that_grows_never_goes_back(q: FlowQ, nightly: Any, hand: Hand) -> None:
    run = nightly(3)
    seen = [run.progress()]
    hand.work(1)
    seen.append(run.progress())
    (found,) = fetch(hand)
    hand.app.store.release(hand.session)
    grow_now = threading.Thread(target=run_all, args=(q,))
    grow_now.start()
    while not run.ready:
        seen.append(run.progress())
    grow_now.join()
    seen.append(run.progress())

    assert found.delivery
    assert [p.more for p in seen[:2]] == [True, True]
    assert (seen[-1].done, seen[-1].known, seen[-1].more) == (6, 6, False)
    for before, after in itertools.pairwise(seen):
        assert before.done <= after.done and before.known <= after.known


def test_progress_of_a_node_counts_what_it_became(q: FlowQ, nightly: Any) -> None:
    run = nightly(3)
    run_all(q)

    assert str(run.result("clean").progress()) == "4 of 4 done"
    assert str(run.result("report").progress()) == "1 of 1 done"


# --- why -----------------------------------------------------------------------------------------


def test_why_of_a_run_tells_many_items_in_one_line(q: FlowQ, nightly: Any, hand: Hand) -> None:
    run = nightly(30)
    grow(q, hand)

    (line,) = run.why().splitlines()

    assert line.startswith("clean: 30 items queued, such as clean[0]")
    assert "0 of 30 inside it have ended; until these do: clean[0] (queued)" in run.why("clean")
    assert "until these end: clean (expanded)" in run.why("report")


def test_why_of_what_has_ended_tells_what_it_came_after_and_became(q: FlowQ, nightly: Any) -> None:
    good, bad = nightly(3), nightly(9)
    run_all(q)

    assert good.why() == f"run {good.id} ended success"
    assert "clean: success, became 3 nodes: 3 success; it came after extract (success at" in (
        good.why("clean")
    )
    assert "clean: failed, since clean[7] failed: ValueError('no 7')" in bad.why()
    assert bad.why("report") == "report: blocked by clean[7], ValueError('no 7')"
    assert bad.result("report").why() == bad.why("report")


def test_why_tells_the_arm_taken_the_fallback_and_what_is_forgiven(q: FlowQ, nightly: Any) -> None:
    clean, report = q.tasks["clean"], q.tasks["report"]

    @q.flow(name="chooses")
    def chooses() -> Any:
        size = clean(3)
        taken = branch(size, {3: lambda: report([clean(size)])}, default=lambda: clean(0))
        saved = clean.options(fallback=report.s([1]), name="saved")(7)
        soft = clean.options(failure_policy="continue", name="soft")(7)
        return [taken, saved, soft]

    run = chooses.options(on_failure=report.s()).build().start()
    run_all(q)

    said = 'branch: success, since clean gave 3: arm "3" taken, not "default", became 2 nodes'
    assert said in run.why("branch")
    assert run.why("saved") == "saved: success: it failed, and saved/fallback took its place"
    assert run.why("saved/fallback").endswith("success (fallback of saved)")
    assert run.why("soft").endswith("ValueError('no 7') (forgiven: it does not count)")
    assert "(handler of the run)" in run.why("on_failure/report")
    assert run.state == "success" and "soft: failed" in run.why()


def test_why_of_a_task_whose_fallback_waits_tells_its_failure(
    q: FlowQ, nightly: Any, hand: Hand
) -> None:
    clean = q.tasks["clean"]
    run = (clean.options(fallback=clean.s(1), name="saved").s(7) | clean.s()).start()
    hand.work(1)

    said = run.why("saved")

    assert "saved: expanded, since it failed: ValueError('no 7')" in said
    assert "until these do: saved/fallback (queued)" in said


def test_why_names_the_phase_that_a_node_waits_for(q: FlowQ, hand: Hand) -> None:
    run, (a, b) = started(q, hand)

    assert "until the outcome of the run is fixed, and if it fits (a, b, c)" in run.why("good")
    assert "until all else in the run has ended" in run.why("clean")
    hand.settle(end(a), end(b))
    hand.settle(*(end(d) for d in fetch(hand, 5)))
    assert "good: queued" in run.why() and "(handler of the run)" in run.why()


# --- following -----------------------------------------------------------------------------------


def test_watching_without_a_terminal_tells_what_moves_and_many_items_in_one_line(
    q: FlowQ, nightly: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = nightly(30)
    run_all(q)

    assert run.watch(timeout=30)

    lines = [line.split("  ")[1:] for line in capsys.readouterr().out.splitlines()]
    assert ["extract", "success"] in [line[:2] for line in lines]
    assert ["clean × 30", "1 failed, 29 success"] in lines
    assert [line[0] for line in lines if line[0].startswith("clean[")] == ["clean[7]"]
    assert lines[-1][:2] == [f"run {run.id}", "failed"]
    assert not nightly(1).watch(timeout=0)


def test_waiting_for_a_value_can_show_how_far_it_is(
    q: FlowQ, nightly: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = nightly(3)
    worker = threading.Thread(target=run_all, args=(q,))
    worker.start()

    value = run.get(blocking=True, timeout=30, progress=True)

    worker.join()
    told = capsys.readouterr()
    assert (value, told.out) == (3, "")
    lines = [x for x in told.err.splitlines() if x.startswith("nightly  ")]
    assert lines[-1].endswith("6 of 6 done")
    assert len(lines) == len(set(lines))


def test_each_kind_of_handle_can_be_watched(
    q: FlowQ, nightly: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = q.tasks["clean"]
    alone, many, run = clean(1), clean.map([1, 2]), nightly(2)
    run_all(q)

    for handle in (alone, many, run, run.result("clean")):
        assert handle.watch(timeout=30)
        assert "success" in capsys.readouterr().out.splitlines()[-1]
        assert handle.get(blocking=True, progress=True) is not None


def test_every_handle_answers_to_one_set_of_verbs(
    q: FlowQ, nightly: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = q.tasks["clean"]
    alone, many, run = clean(1), clean.map([1, 2]), nightly(2)
    run_all(q)
    titles = [
        (alone, "clean"),
        (many, f"run {many.id}"),
        (run, f"run {run.id}"),
        (run.result("clean[0]"), "clean[0]"),
        (run.result("clean"), "clean"),
    ]

    for handle, title in titles:
        assert handle.state == q.result(handle.id).state == "success"
        assert handle.ready and handle.wait(timeout=0) and not handle.cancel()
        assert handle.get() is not None and handle.why()
        done = handle.progress()
        assert (done.done, done.failed, done.running) == (done.known, 0, 0)
        *_, last = handle.events(timeout=30)
        assert (last.state, last.id) == ("success", handle.id)
        assert handle.watch(timeout=30)
        end = capsys.readouterr().out.splitlines()[-1].split("  ")
        # Redis keeps no message, so no name, of a task alone that has succeeded
        assert end[1] == title or (handle is alone and end[1] == alone.id)
        assert end[2] == "success"


def test_the_picture_on_a_terminal_fits_it(q: FlowQ, nightly: Any) -> None:
    from rich.console import Console

    run = nightly(30)
    run_all(q)
    seen = see(q.store, run._id)
    assert seen is not None
    stream = io.StringIO()
    console = Console(file=stream, width=100, height=30)

    view = Live(q.store, sys.stderr, console)
    view.show(seen)
    view.close()
    console.print(view.tree(seen, room=2))

    whole, small = stream.getvalue().split("nightly")[1:][-2:]
    assert "clean × 30" in whole and "29 success" in whole and "report" in whole
    assert "because of clean[7]" in whole
    assert "1 more" in small and len(small.strip().splitlines()) == 4


def test_a_run_is_drawn_with_its_states(q: FlowQ, nightly: Any) -> None:
    small, large = nightly(2), nightly(30)
    run_all(q)

    drawn, wide = small.mermaid(), large.mermaid()

    assert 'subgraph n1["clean"]' in drawn and '["[1]"]' in drawn
    assert "n0 --> n1" in drawn and "classDef success" in drawn
    assert 'n1[["clean × 30<br/>29 success, 1 failed"]]' in wide
    assert wide.count("clean") == 1
