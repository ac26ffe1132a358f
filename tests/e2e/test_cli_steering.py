# SPDX-License-Identifier: MIT
"""Runs that are paused, or wait for somebody, steered from a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.shell import Shell

FLOWS = """
from shop import q, add, total
from flowq import sleep, wait_for

@q.task
def pair(text, answer):
    return [text, answer]

@q.task
def names():
    return ["one", "two"]

@q.flow
def review(text: str = "draft"):
    return pair(text, wait_for("approve", timeout=600))

@q.flow
def sums(a: int = 1):
    return add(a, 2)

@q.flow
def many():
    return review.map(names())
"""
APP = ("-A", "flows:q")

pytestmark = pytest.mark.timeout(180)  # many processes, each a second on a busy machine


@pytest.fixture
def shop(each: Shell) -> Shell:
    """A terminal on each store, with flows that wait."""
    each.write("flows.py", FLOWS)
    return each


def begin(shell: Shell, *words: str) -> str:
    """Start a flow; gives the id of its run."""
    status, out, err = shell.run("flow", "start", *words, *APP)
    assert status == 0, err
    return out.strip()


def drain(shell: Shell) -> None:
    """Run all that there is to be run."""
    status, _, err = shell.run("worker", "flows:q", "-w", "2", "-k", "thread", "--drain")
    assert status == 0, err


def run_of(out: str) -> dict[str, Any]:
    """Read a document."""
    found: dict[str, Any] = json.loads(out)
    assert found["schema"] == 1
    return found


def test_a_run_is_paused_shown_so_and_resumed(shop: Shell) -> None:
    id = begin(shop, "sums")

    paused, out, _ = shop.run("run", "pause", id[:13], *APP)
    _, twice, _ = shop.run("run", "pause", id, *APP)
    again, document, _ = shop.run("run", "pause", id, "--json", *APP)
    drain(shop)
    _, shown, _ = shop.run("run", "show", id, *APP)
    _, listed, _ = shop.run("run", "list", "--json", *APP)
    _, why, _ = shop.run("run", "why", id, *APP)
    resumed, told, _ = shop.run("run", "resume", id[:13], *APP)
    needless, nothing, _ = shop.run("run", "resume", id, *APP)
    _, after, _ = shop.run("run", "resume", id, "--json", *APP)
    drain(shop)

    assert (paused, out) == (0, f"{id}  paused\n")
    assert (again, twice) == (0, f"{id}  paused already\n")
    assert run_of(document) == {
        "schema": 1,
        "id": id,
        "state": "running",
        "paused": True,
        "changed": False,
    }
    assert "running, paused" in shown and "until its run goes on" in shown
    assert run_of(listed)["paused"] is True
    assert f"run {id} is paused: flowq run resume {id}" in why and "<Run" not in why
    assert "add: held, its run is paused" in why
    assert (resumed, told) == (0, f"{id}  goes on\n")
    assert (needless, nothing) == (0, f"{id}  goes on, as it was not paused\n")
    assert (run_of(after)["paused"], run_of(after)["changed"]) == (False, False)
    assert shop.run("result", id, *APP)[:2] == (0, "3\n")


def test_what_had_ended_is_refused_with_6(shop: Shell) -> None:
    id = begin(shop, "sums")
    drain(shop)

    pause, out, _ = shop.run("run", "pause", id, *APP)
    resume, document, _ = shop.run("run", "resume", id, "--json", *APP)
    send, nothing, said = shop.run("run", "send", id, "approve", *APP)

    assert (pause, out) == (6, f"{id}  success\n")
    assert (resume, run_of(document)["state"]) == (6, "success")
    assert (send, nothing) == (6, "")
    assert "has ended, so nothing can be sent to it" in said and len(said.splitlines()) == 1


def test_what_is_sent_is_json_or_text_and_taken_by_who_waits(shop: Shell) -> None:
    id = begin(shop, "review")
    _, why, _ = shop.run("run", "why", id, *APP)
    _, shown, _ = shop.run("run", "show", id, "--json", *APP)

    status, out, _ = shop.run("run", "send", id[:13], "approve", '{"by": "me"}', *APP)
    drain(shop)

    assert f"flowq run send {id} approve VALUE" in why
    waits = next(n for n in run_of(shown)["nodes"] if n["signal"])
    assert (waits["node"], waits["signal"], waits["state"]) == ("approve", "approve", "scheduled")
    assert waits["why"].startswith("for 'approve' to be sent, until ")
    assert (status, out) == (0, f"{id}  a step has taken 'approve'\n")
    assert shop.run("result", id, *APP)[:2] == (0, "['draft', {'by': 'me'}]\n")
    assert "approve: success, sent by " in shop.run("run", "why", id, "approve", *APP)[1]


def test_a_send_is_kept_for_who_is_to_wait_and_counts_once_under_a_key(shop: Shell) -> None:
    id = begin(shop, "many")

    kept, out, _ = shop.run("run", "send", id, "approve", "yes", "--once", "k", *APP)
    _, again, _ = shop.run("run", "send", id, "approve", "no", "--once", "k", "--json", *APP)
    one = ("approve", "for one", "--to", "review[1]", "--json")
    _, other, _ = shop.run("run", "send", id, *one, *APP)
    drain(shop)

    assert (kept, out) == (0, f"{id}  kept: no step waits for 'approve' yet\n")
    assert run_of(again) == {"schema": 1, "id": id, "name": "approve", "taken": False}
    assert run_of(other)["taken"] is False
    assert shop.run("result", id, *APP)[:2] == (0, "[['one', 'yes'], ['two', 'for one']]\n")


def test_mistakes_are_one_clear_line(shop: Shell) -> None:
    id = begin(shop, "review")
    nobody = "00000000-0000-7000-8000-000000000000"

    for verb, words in (("pause", []), ("resume", []), ("send", ["approve"])):
        status, out, said = shop.run("run", verb, nobody, *words, *APP)
        assert (status, out) == (3, ""), verb
        assert len(said.splitlines()) == 1
        assert shop.run("run", verb, "ffff", *words, *APP)[0] == 3
        assert shop.run("run", verb, "no id", *words, *APP)[0] == 2
    lacks, _, usage = shop.run("run", "send", id, *APP)
    wrong, _, said = shop.run("run", "send", id, "", *APP)

    assert lacks == 2 and "NAME" in usage
    assert wrong == 2 and len(said.splitlines()) == 1
