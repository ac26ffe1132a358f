# SPDX-License-Identifier: MIT
"""Looking at runs from a terminal: events, reasons, times, pictures."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.e2e.shell import Shell

FLOWS = """
from flowq import branch
from shop import q, add, total

@q.task
def extract(n: int) -> list[int]:
    return list(range(n))

@q.task
def clean(x: int) -> int:
    if x == 1:
        raise ValueError("no 1")
    return x

@q.flow
def sized(n: int):
    rows = clean.options(items="keep").map(extract(n))
    size = add(n, 0)
    return branch(size, {3: lambda: add(size, 1), "big": lambda: add(add(size, 1), 1)})

@q.flow
def breaks(n: int):
    return total(clean.map(extract(n)))
"""
APP = ("-A", "flows:q")

pytestmark = pytest.mark.timeout(180)  # many processes, each a second on a busy machine


@pytest.fixture
def ran(each: Shell) -> tuple[Shell, str, str]:
    """A terminal on each store, with a run that has succeeded and one that has failed."""
    each.write("flows.py", FLOWS)
    ids = []
    for name in ("sized", "breaks"):
        status, out, err = each.run("flow", "start", name, "-p", "n=3", *APP)
        assert status == 0, err
        ids.append(out.strip())
    status, _, err = each.run("worker", "flows:q", "-w", "2", "-k", "thread", "--drain")
    assert status == 0, err
    return each, ids[0], ids[1]


def rows(out: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in out.splitlines()]
    assert all(row["schema"] == 1 for row in found)
    return found


def test_events_are_lines_or_json_and_go_on_behind_one(ran: tuple[Shell, str, str]) -> None:
    shell, good, bad = ran

    status, out, _ = shell.run("run", "events", good, *APP)
    failed, lines, _ = shell.run("run", "events", bad, "--json", *APP)
    events = rows(lines)
    middle = events[len(events) // 2]
    _, rest, _ = shell.run("run", "events", bad, "--json", "--after", middle["order"], *APP)
    _, inside, _ = shell.run("run", "events", good, "clean", "--json", *APP)
    wrong, _, said = shell.run("run", "events", good, "--after", "x", *APP)

    assert (status, failed, wrong) == (0, 1, 2) and "no order" in said
    assert "clean[1]  failed  ValueError('no 1') (forgiven)" in out
    assert f"run {good}  success" in out.splitlines()[-1]
    assert rows(rest) == events[events.index(middle) + 1 :]
    assert events[-1]["state"] == "failed" and events[-1]["node"] is None
    assert {row["node"] for row in rows(inside)} == {"clean", *(f"clean[{k}]" for k in range(3))}


def test_a_run_is_drawn_to_the_terminal_or_a_file(ran: tuple[Shell, str, str]) -> None:
    shell, good, _ = ran

    _, text, _ = shell.run("run", "graph", good[:13], *APP)
    _, svg, _ = shell.run("run", "graph", good, "--format", "svg", *APP)
    status, out, said = shell.run("run", "graph", good, "-o", "run.svg", *APP)
    _, named, _ = shell.run("run", "graph", good, "-o", "run.mmd", "--json", *APP)
    _, flow, _ = shell.run("run", "graph", "sized", "-p", "n=1", "--format", "svg", *APP)
    bad, _, why = shell.run("run", "graph", good, "-o", "nowhere/run.svg", *APP)

    assert text.startswith("flowchart LR") and '["big"]' in text and "skipped" in text
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert (status, out) == (0, "") and "svg in run.svg" in said
    assert (shell.folder / "run.svg").read_text() == svg
    assert json.loads(named)["file"] == "run.mmd"
    assert (shell.folder / "run.mmd").read_text() == text
    assert "sized" in flow and ElementTree.fromstring(flow) is not None
    assert bad == 2 and "cannot be written" in why


def test_reasons_and_times_are_told_of_runs_nodes_and_arms_not_taken(
    ran: tuple[Shell, str, str],
) -> None:
    shell, good, bad = ran

    _, whole, _ = shell.run("run", "why", bad, *APP)
    _, arm, _ = shell.run("run", "why", good, "branch/big", *APP)
    _, document, _ = shell.run("run", "why", good, "branch/big", "--json", *APP)
    missing, _, _ = shell.run("run", "why", good, "nothing", *APP)
    status, times, _ = shell.run("run", "timeline", bad[:13], "--json", *APP)
    _, critical, _ = shell.run("run", "timeline", bad, "--critical", *APP)

    assert "clean[1]: failed, ValueError('no 1')" in whole
    assert arm == 'branch/big: skipped, arm "big" of branch not taken, since add gave 3\n'
    found = json.loads(document)
    assert (found["id"], found["state"], found["why"]) == (None, "skipped", [arm.strip()])
    assert (missing, status) == (3, 0)
    assert {n["name"] for n in json.loads(times)["nodes"]} == {
        "extract", "clean[0]", "clean[1]", "clean[2]",
    }  # fmt: skip
    assert "extract" in critical.splitlines()[0]


def test_watching_what_has_ended_tells_it_and_exits_with_its_outcome(
    ran: tuple[Shell, str, str],
) -> None:
    shell, good, bad = ran

    status, out, _ = shell.run("run", "watch", good[:13], *APP)
    failed, lines, _ = shell.run("run", "watch", bad, "--json", *APP)
    missing = [
        shell.run("run", verb, "0" * 32, *APP)[0]
        for verb in ("show", "watch", "graph", "why", "timeline", "events")
    ]

    assert (status, failed) == (0, 1) and "success" in out.splitlines()[-1]
    assert rows(lines)[-1]["state"] == "failed"
    assert missing == [3] * 6


def test_what_has_not_ended_in_time_exits_with_5(each: Shell) -> None:
    each.write("flows.py", FLOWS)
    _, out, _ = each.run("flow", "start", "sized", "-p", "n=3", *APP)

    for verb in ("watch", "events"):
        status, _, said = each.run("run", verb, out.strip(), "--timeout", "0.1", *APP)
        assert status == 5, said


def test_a_store_that_is_away_exits_with_4(shell: Shell) -> None:
    for verb in ("list", "show", "watch", "graph", "why", "timeline", "events"):
        words = ["run", verb, *(["0" * 32] if verb != "list" else [])]
        status, _, said = shell.run(*words, "--url", "redis://127.0.0.1:1/0")
        assert status == 4, said
