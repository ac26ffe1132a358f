# SPDX-License-Identifier: MIT
"""``flowq flow`` and what ``flowq run`` says of runs that grow, as they are typed."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.e2e.shell import Shell, until

FLOWS = """
import random
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Literal
from shop import q, add, boom, hold, total

@q.task
def extract(day: date) -> list[int]:
    return list(range(day.day))

@q.task
def clean(x: int) -> int:
    if x == 7:
        raise ValueError("no 7")
    return x

@q.flow(max_parallel=8)
def nightly(day: date, path: Path = Path("done")):
    '''What a day has brought.'''
    return total(clean.map(extract(day)))

@q.flow
def held(path: str = "done"):
    return add(hold(path), 1)
"""
WRONG = """
from shop import q, add
import random

@q.flow
def decides(n: int):
    return add(n, 1) if n > 1 else add(0, 1)

@q.flow
def doubts():
    x = add(1, 2)
    return x if x else add(1, 1)

@q.flow
def dice():
    return add(random.random(), 1)

@q.flow
def fine():
    return add(add(1, 2), 3)
"""
APP = ("-A", "flows:q")

pytestmark = pytest.mark.timeout(180)  # many processes, each a second on a busy machine


@pytest.fixture
def shop(each: Shell) -> Shell:
    """A terminal on each store, with an app that has flows."""
    each.write("flows.py", FLOWS)
    return each


def drain(shell: Shell) -> None:
    """Run all that there is to be run."""
    status, _, err = shell.run("worker", "flows:q", "-w", "2", "-k", "thread", "--drain")
    assert status == 0, err


def begin(shell: Shell, *words: str) -> str:
    """Start a flow by name; gives the id of its run."""
    status, out, err = shell.run("flow", "start", *words, *APP)
    assert status == 0, err
    return out.strip()


# --- flows ---------------------------------------------------------------------------------------


def test_flows_are_listed_shown_and_drawn(shell: Shell) -> None:
    shell.write("flows.py", FLOWS)

    _, listed, _ = shell.run("flow", "list", *APP)
    _, documents, _ = shell.run("flow", "list", "--json", *APP)
    _, shown, _ = shell.run("flow", "show", "nightly", *APP)
    _, drawn, _ = shell.run("flow", "show", "nightly", "--graph", "-p", "day=2026-11-23", *APP)
    _, same, _ = shell.run("run", "graph", "nightly", "-p", "day=2026-11-23", *APP)

    assert [line.split()[0] for line in listed.splitlines()[1:]] == ["flows.held", "flows.nightly"]
    assert "What a day has brought." in listed
    told = {d["flow"]: d for d in map(json.loads, documents.splitlines())}
    assert told["flows.nightly"]["parameters"] == {
        "day": "date",
        "path": "Path = PosixPath('done')",
    }
    assert told["flows.nightly"]["schema"] == 1
    rows = [line.split() for line in shown.splitlines()[-3:]]
    assert [row[0] for row in rows] == ["extract", "clean", "total"]
    assert rows[1] == ["clean", "map", "extract"]
    assert "day: date" in shown and "3 nodes (without a value for day)" in shown
    assert "at a time   8 tasks of all its runs together (max_parallel=8)" in shown
    assert told["flows.nightly"]["options"] == {"max_parallel": "8"}
    assert drawn == same
    assert 'n1[["clean × n"]]' in drawn and 'n0 -->|"each"| n1' in drawn


def test_a_gate_for_ci_names_what_is_wrong_and_exits_1(shell: Shell) -> None:
    shell.write("flows.py", FLOWS)
    shell.write("wrong.py", WRONG)

    good, said, _ = shell.run("flow", "check", *APP)
    bad, told, _ = shell.run("flow", "check", "-A", "wrong:q")
    _, documents, _ = shell.run("flow", "check", "--json", "-A", "wrong:q")
    given, one, _ = shell.run("flow", "check", "decides", "-p", "n=3", "-A", "wrong:q")

    assert good == 0
    assert [line.split()[:2] for line in said.splitlines()] == [
        ["ok", "flows.held"],
        ["ok", "flows.nightly"],
    ]
    assert bad == 1
    lines = {line.split()[1]: line for line in told.splitlines()}
    assert lines["wrong.fine"].startswith("ok") and "2 nodes" in lines["wrong.fine"]
    assert lines["wrong.decides"].startswith("imported") and "-p n=..." in lines["wrong.decides"]
    assert (
        lines["wrong.doubts"].startswith("wrong") and "wrong.py, line 12" in (lines["wrong.doubts"])
    )
    assert lines["wrong.dice"].startswith("wrong") and "must be pure" in lines["wrong.dice"]
    found = {d["flow"]: d["status"] for d in map(json.loads, documents.splitlines())}
    assert found["wrong.dice"] == "wrong" and found["wrong.decides"] == "imported"
    assert (given, one.split()[0]) == (0, "ok")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["nightly"], 2, "needs -p day=..."),
        (["nightly", "-p", "day=tomorrow"], 2, "takes date: 'tomorrow' is no such value; write"),
        (["nightly", "-p", "dya=2026-11-23"], 2, "did you mean 'day'"),
        (["nightly", "-p", "day"], 2, "write -p name=value"),
        (["nightli"], 3, "did you mean 'nightly'"),
    ],
)
def test_what_cannot_be_started_is_one_clear_line(
    shell: Shell, words: list[str], status: int, said: str
) -> None:
    shell.write("flows.py", FLOWS)

    found, out, err = shell.run("flow", "start", *words, *APP)

    assert (found, out) == (status, "")
    assert said in err and len(err.splitlines()) == 1


def test_without_a_name_the_only_app_of_a_usual_module_is_taken(shell: Shell) -> None:
    nothing, _, said = shell.run("flow", "list")
    shell.write("tasks.py", FLOWS)

    status, out, _ = shell.run("flow", "list")

    assert nothing == 2 and "tried FLOWQ_APP" in said and "tasks.py" in said
    assert status == 0 and "tasks.nightly" in out


def test_a_flow_is_started_and_the_status_is_its_outcome(
    shop: Shell, worker: list[subprocess.Popen[str]]
) -> None:
    worker.append(shop.start("worker", "flows:q", "-w", "2", "-k", "thread"))

    good, told, err = shop.run("flow", "start", "nightly", "-p", "day=2026-11-05", "--watch", *APP)
    bad, _, said = shop.run("flow", "start", "nightly", "-p", "day=2026-11-23", "--wait", *APP)
    late, _, still = shop.run("flow", "start", "held", "--timeout", "0.2", *APP)

    assert good == 0, err
    assert "total  success" in told and told.splitlines()[-1].split("  ")[2] == "success"
    assert bad == 1 and "ValueError('no 7')" in said
    assert late == 5 and "is still running" in still


def test_a_flow_is_started_once_under_a_key(shop: Shell) -> None:
    words = ("flow", "start", "nightly", "--key", "a", *APP)

    first = shop.run(*words, "-p", "day=2026-11-05", "--json")
    again = shop.run(*words, "-p", "day=2026-11-05", "--json")
    other, _, said = shop.run(*words, "-p", "day=2026-11-06")

    one, two = json.loads(first[1]), json.loads(again[1])
    assert (one["run"], one["created"], two["created"]) == (two["run"], True, False)
    assert other == 2 and "2026, 11, 5" in said and "2026, 11, 6" in said


# --- runs that grow ------------------------------------------------------------------------------


def test_a_run_that_grew_is_shown_with_many_items_in_one_line(shop: Shell) -> None:
    id = begin(shop, "nightly", "-p", "day=2026-11-30")
    drain(shop)

    status, out, _ = shop.run("run", "show", id, *APP)
    _, each, _ = shop.run("run", "show", id, "--items", *APP)
    _, failed, _ = shop.run("run", "show", id[:13], "--state", "failed", *APP)
    _, document, _ = shop.run("run", "show", id, "--json", *APP)
    _, drawn, _ = shop.run("run", "graph", id[:13], *APP)

    assert status == 0
    rows = [line.split() for line in out.splitlines()[out.splitlines().index("") + 2 :]]
    assert [row[0] for row in rows] == ["extract", "clean", "total"]
    assert "1 failed, 29 success" in out and "because of clean[7]" in out
    assert sum(line.startswith("clean[") for line in each.splitlines()) == 30
    assert "clean[7]" in failed and "ValueError('no 7')" in failed
    nodes = json.loads(document)["nodes"]
    assert len(nodes) == 33
    assert {n["inside"] for n in nodes if n["node"].startswith("clean[")} == {2}
    assert "clean × 30<br/>29 success, 1 failed" in drawn


def test_a_run_is_asked_why_from_a_terminal(shop: Shell) -> None:
    id = begin(shop, "nightly", "-p", "day=2026-11-09")
    queued, waiting, _ = shop.run("run", "why", id, *APP)
    drain(shop)

    status, whole, _ = shop.run("run", "why", id[:13], "--name", shop.name)
    _, node, _ = shop.run("run", "why", id, "total", "--name", shop.name)
    _, document, _ = shop.run("run", "why", id, "total", "--json", "--name", shop.name)
    lost, _, err = shop.run("run", "why", id, "totla", "--name", shop.name)
    _, times, _ = shop.run("run", "timeline", id, "--name", shop.name)
    _, critical, _ = shop.run("run", "timeline", id, "--critical", "--json", "--name", shop.name)

    assert queued == status == 0
    assert waiting.startswith("extract: queued; no worker serves")
    assert "clean[7]: failed, ValueError('no 7')" in whole
    assert node == "total: blocked by clean[7], ValueError('no 7')\n"
    assert json.loads(document)["why"] == [node.rstrip()]
    assert lost == 3 and "did you mean 'total'" in err
    assert times.splitlines()[0].split()[2:4] == ["extract", "success"]
    assert json.loads(critical)["nodes"][0]["name"] == "extract"


def test_a_run_is_cancelled_from_a_terminal_and_says_what_came_of_it(
    shop: Shell, worker: list[subprocess.Popen[str]]
) -> None:
    id = begin(shop, "held", "-p", "path=never")
    worker.append(shop.start("worker", "flows:q", "-w", "1", "-k", "thread", "--queue", "mail"))
    until(worker[0], "starts")

    status, out, _ = shop.run("run", "cancel", id[:13], *APP)
    watched, told, _ = shop.run("run", "watch", id, "--timeout", "30", *APP)
    again, document, _ = shop.run("run", "cancel", id, "--json", *APP)
    ended = begin(shop, "nightly", "-p", "day=2026-11-01")
    drain(shop)
    refused, said, _ = shop.run("run", "cancel", ended, *APP)

    assert (status, out) == (0, f"{id}  being stopped; 1 running body told\n")
    assert watched == 1 and "hold  cancelled" in told
    found = json.loads(document)
    assert (again, found["stopped"], found["state"]) == (0, True, "cancelled")
    assert (refused, said) == (6, f"{ended}  it had ended before: success\n")


def test_an_item_is_cancelled_by_its_path(shop: Shell) -> None:
    id = begin(shop, "nightly", "-p", "day=2026-11-03")

    status, out, _ = shop.run("run", "cancel", id, "total", *APP)

    assert status == 0 and out.endswith("cancelled\n")
    drain(shop)
    assert "1 cancelled" in shop.run("run", "show", id, *APP)[1]


def test_a_run_that_has_ended_runs_again_in_part(shop: Shell) -> None:
    id = begin(shop, "nightly", "-p", "day=2026-11-09")
    early, _, _ = shop.run("run", "retry", id, *APP)
    drain(shop)
    shop.write("flows.py", FLOWS.replace("x == 7", "x == 70"))

    status, out, _ = shop.run("run", "retry", id[:13], *APP)
    drain(shop)
    nothing, none, _ = shop.run("run", "retry", id, *APP)
    again, document, _ = shop.run("run", "rerun", id, "clean[3]", "--json", *APP)

    assert early == 6  # nothing has failed yet
    assert (status, out) == (0, f"{id}  2 nodes run again\n")
    assert (nothing, none) == (6, f"{id}  0 nodes run again\n")
    assert again == 0 and json.loads(document)["again"] == 2
    drain(shop)
    assert shop.run("result", id, *APP)[:2] == (0, "36\n")


def test_what_is_watched_for_too_long_is_told_how_far_it_is(shop: Shell) -> None:
    id = begin(shop, "nightly", "-p", "day=2026-11-03")

    status, out, err = shop.run("run", "watch", id, "--timeout", "0.1", *APP)

    assert status == 5
    assert "extract  queued" in out and "0 of 3+ done" in err


def test_a_run_is_forked_from_a_node_with_other_arguments(shop: Shell) -> None:
    id = begin(shop, "nightly", "-p", "day=2026-11-03")
    early, _, still = shop.run("run", "fork", id, *APP)
    drain(shop)

    status, out, _ = shop.run("run", "fork", id[:13], "--from", "clean[1]", *APP)
    other = out.strip()
    drain(shop)
    mistyped, _, wrong = shop.run("run", "fork", id, "--from", "clean[1]", "-p", "z=1", *APP)
    nowhere, _, near = shop.run("run", "fork", id, "--from", "clear", *APP)
    again, document, _ = shop.run("run", "fork", id, "--json", *APP)

    assert early == 6 and "wait for its end" in still
    assert status == 0 and other != id
    assert shop.run("result", other, *APP)[:2] == shop.run("result", id, *APP)[:2]
    assert mistyped == 2 and "no parameter 'z'" in wrong
    assert nowhere == 3 and "clear" in near
    assert again == 0 and json.loads(document)["of"] == id


def test_a_run_that_is_not_there_exits_with_3(shop: Shell) -> None:
    begin(shop, "nightly", "-p", "day=2026-11-03")
    id = "00000000-0000-7000-8000-000000000000"

    assert shop.run("run", "why", id, *APP)[0] == 3
    assert shop.run("run", "graph", "ffff", *APP)[0] == 3
    assert shop.run("run", "cancel", id, *APP)[0] == 3
