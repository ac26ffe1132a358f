# SPDX-License-Identifier: MIT
"""What the commands that read print of what has ended, of every shape."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowq import DAG, FlowQ, __version__, group
from flowq.cli import main
from flowq.message import Message, id_text, new_id

Type = Callable[..., tuple[int, list[str]]]


def echo(value: Any = None) -> Any:
    return value


def fail(why: str) -> None:
    raise ValueError(why)


@pytest.fixture
def q(tmp_path: Path) -> Iterator[FlowQ]:
    app = FlowQ("shop", f"sqlite:///{tmp_path}/q.db?synchronous=normal")
    app.task(name="echo")(echo)
    app.task(name="fail")(fail)
    yield app
    app.store.close()


@pytest.fixture
def typed(q: FlowQ, capsys: pytest.CaptureFixture[str]) -> Type:
    """Type a command about the store; gives its status and the lines on stdout."""

    def typed(*words: str) -> tuple[int, list[str]]:
        status = main([*words, "--url", q.url])
        return status, capsys.readouterr().out.splitlines()

    return typed


def work(q: FlowQ) -> None:
    with q.consumer(drain=True):
        pass


def compositions(q: FlowQ) -> list[tuple[Any, str]]:
    s = q.tasks["echo"].s
    named = DAG()
    named.add(s(1), name="a")
    named.add(s("x"), name="b")
    pair = DAG()
    pair.add(s(1), name="a")
    pair.add(s({"k": [7]}), name="b")
    pair.returns(("a", pair["b"]["k"]))
    alone = DAG()
    alone.add(s(1), name="a")
    alone.returns(("a",))
    f = q.tasks["fail"].s
    return [
        (s(1) | s(), "1"),
        (group(s(1), s("x"), s(None)), "[1, 'x', None]"),
        (named, "{'a': 1, 'b': 'x'}"),
        (pair, "(1, {'k': [7]}['k'])"),
        (alone, "(1,)"),
        (s().map(range(3)), "[0, 1, 2]"),
        (s().map(range(12)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... 12 in all]"),
        (s().map(range(5)).options(chunksize=2), "[0, 1, 2, 3, 4]"),
        (s().map(range(11)).options(chunksize=1), f"[{str([*range(10)])[1:-1]}, ... 11 in all]"),
        (group([]), "[]"),
        (group(f(1).options(default=7), s(2), f(3).options(default={1})), "[7, 2, {1}]"),
    ]


def test_the_value_of_a_composition_is_shown_in_its_shape(q: FlowQ, typed: Type) -> None:
    cases = compositions(q)
    runs = [composition.start(q) for composition, _ in cases]
    work(q)

    shown = [typed("result", run.id) for run in runs]

    assert shown == [(0, [expected]) for _, expected in cases]


def test_a_dead_letter_shows_who_was_lost_with_it(q: FlowQ, typed: Type) -> None:
    message = Message(new_id(), "echo", b"P", queue="mail", max_losses=2)
    q.store.enqueue([message])
    for session in ("first", "second"):
        (delivery,) = q.store.step(session, want=1, queues=["mail"]).deliveries
        q.store.release(session, lost=[delivery.id], reason="SIGKILL")

    status, lines = typed("dead", "show", id_text(message.id))

    words = [line.split() for line in lines]
    assert status == 0
    assert ["task", "echo"] in words and ["queue", "mail"] in words and ["reason", "lost"] in words
    assert [(w[0], w[-2], w[-1]) for w in words[-2:]] == [
        ("1", "first", "SIGKILL"),
        ("2", "second", "SIGKILL"),
    ]


def test_what_waits_for_a_place_is_told_with_who_has_it(q: FlowQ, typed: Type) -> None:
    s = q.tasks["echo"].s
    run = group([s(1), s(2)]).options(max_parallel=1).start()

    _, why = typed("run", "why", run.id, "echo-2")
    _, rows = typed("run", "show", run.id)
    _, document = typed("run", "show", run.id, "--json")

    said = "max_parallel=1 of the run is full: held by echo; 1 waits"
    assert "".join(why).startswith(f"echo-2: held, {said}")
    assert any("for a place, by max_parallel of the run" in row for row in rows)
    nodes = {n["node"]: n for n in json.loads("".join(document))["nodes"]}
    assert (nodes["echo"]["limit"], nodes["echo-2"]["limit"]) == (None, "the run")


def test_following_a_run_tells_each_node_and_ends_with_it(q: FlowQ, typed: Type) -> None:
    good = (q.tasks["echo"].s(1) | q.tasks["echo"].s()).start()
    bad = (q.tasks["fail"].s("no stock") | q.tasks["echo"].s()).start()
    work(q)

    well, lines = typed("run", "show", good.id, "--watch")
    ill, told = typed("run", "show", bad.id, "--watch")
    _, documents = typed("run", "show", bad.id, "--watch", "--json")

    assert (well, len(lines)) == (0, 3)
    assert "success" in lines[-1] and good.id in lines[-1]
    assert ill == 1
    assert "ValueError('no stock')" in told[0] and "because of fail" in told[1]
    assert [json.loads(d)["state"] for d in documents] == ["failed", "blocked", "failed"]


def test_a_terminal_that_follows_a_run_is_told_why_it_failed(
    q: FlowQ, typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = (q.tasks["fail"].s("no stock") | q.tasks["echo"].s()).start()
    work(q)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)

    status, lines = typed("run", "show", run.id, "--watch")

    shown = "\n".join(lines)
    assert status == 1
    assert "2 of 2 done, 2 failed" in shown
    assert "ValueError('no stock')" in shown and "because of fail" in shown
    assert run.id in lines[-1] and "failed" in lines[-1]


def test_a_state_that_is_none_is_answered_with_those_there_are(
    q: FlowQ, capsys: pytest.CaptureFixture[str]
) -> None:
    run = q.tasks["echo"].s().start()

    status = main(["run", "show", run.id, "--state", "sucess", "--url", q.url])

    assert status == 2
    assert "--state 'sucess' is none of" in capsys.readouterr().err


def test_python_m_flowq_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["flowq", "--version"])

    with pytest.raises(SystemExit) as ended:
        runpy.run_module("flowq", run_name="__main__")

    assert ended.value.code == 0
    assert capsys.readouterr().out == f"flowq {__version__}\n"
