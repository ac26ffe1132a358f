# SPDX-License-Identifier: MIT
"""Scripts say in their headers what they take, and take what the store sends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from flowq.message import Const as Constant
from flowq.message import Message, encode_template, new_id
from flowq.outcome import Done, Expand, Failed, RetryAt
from flowq.plan import Kind, NodeRow, Plan
from flowq.states import Rule
from flowq.storage.base import SessionInfo
from flowq.storage.redis import keys, scripts
from flowq.storage.redis.scripts import Script
from flowq.storage.redis.store import RedisStore

LUA = Path(scripts.__file__).parent / "lua"
PIECES = sorted(p.stem for p in LUA.glob("_*.lua"))
HEADER = ("Keys", "Args", "Gives", "Cost", "Repeat")


def header(name: str) -> dict[str, str]:
    """The fields of a script's header, each with its continuation lines."""
    fields: dict[str, str] = {}
    field = ""
    for line in scripts.read(name).splitlines()[1:]:
        if not line.startswith("--") or line.startswith("-- @"):
            break
        if found := re.match(r"-- (\w+) {2,}(.*)", line):
            field = found[1]
            fields[field] = found[2]
        elif field:
            fields[field] += " " + line[2:].strip()
    return fields


def test_every_file_is_a_script_that_is_loaded_or_a_piece() -> None:
    named = {p.stem for p in LUA.glob("*.lua")}

    assert named == set(scripts.NAMES) | set(PIECES)


@pytest.mark.parametrize("name", scripts.NAMES)
def test_a_script_has_a_full_header_and_flags(name: str) -> None:
    first = scripts.read(name).splitlines()[0]

    # Without the flag line, a script that began before memory was full would run on and write.
    assert first.startswith("#!lua")
    assert tuple(header(name)) == HEADER
    assert header(name)["Keys"].startswith("1 sessions (zset")
    assert header(name)["Args"].startswith("1 now")


def test_only_release_may_run_when_memory_is_full() -> None:
    allowed = [n for n in scripts.NAMES if "allow-oom" in scripts.read(n).splitlines()[0]]

    assert allowed == ["release"]


@pytest.mark.parametrize("name", scripts.NAMES)
def test_a_piece_is_pasted_once_and_all_that_it_uses_is_there(name: str) -> None:
    includes = re.findall(r"^-- @include (\w+)$", scripts.read(name), re.M)

    assert len(includes) == len(set(includes))
    assert set(includes) <= set(PIECES)
    assert "@include" not in scripts.load(name).source.decode()


def test_every_key_that_a_script_makes_is_in_the_table() -> None:
    known = {re.split(r"[:<]", k)[0] for k in keys.KEYS}

    for path in LUA.glob("*.lua"):
        made = set(re.findall(r"P \.\. '([A-Za-z]+)", path.read_text()))
        assert made <= known, path.name


class Recorder:
    """Stands where the connections are, and keeps what is sent."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.sent: dict[str, list[bytes]] = {}

    def run(
        self,
        script: Script,
        args: Iterable[bytes],
        count: int,
        *,
        again: bool = True,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        if meanwhile is not None:
            meanwhile()
        raw = b"".join(args)
        parts = []
        at = 0
        while at < len(raw):
            end = raw.index(b"\r\n", at)
            size = int(raw[at + 1 : end])
            parts.append(raw[end + 2 : end + 2 + size])
            at = end + 4 + size
        assert len(parts) == count
        self.sent[script.name] = parts
        return self.answers.get(script.name)


def test_the_store_sends_what_the_headers_say() -> None:
    store = RedisStore("redis://localhost", name="app")
    answers = {
        "enqueue": b"1", "submit": b"0", "step": [b"s", 0, 0, -1, [], [], [], [], 0], "renew": [[]],
        "held": [[], [], []], "release": [0, 0], "cancel": [1, 0], "reschedule": 1, "page": 0,
        "sweep": [0, 0, 0], "look": [[3, 0, 0, 0, 0, 0]], "nodes": [b""], "wait": 1,
        "status": [0, 0, 0, 0], "runs": [b""] * 7, "left": [0],
        "grow": -1, "rewind": b"done", "send": b"kept", "pause": [5, 0], "places": [],
        "park": b"no", "fork": b"known", "started": [], "watch": 1,
    }  # fmt: skip
    wire = Recorder(answers)
    store._wire = wire  # type: ignore[assignment]
    run, id = new_id(), new_id()
    task = Message(id=id, task="t", payload=b"P", delay_ms=5)
    root = NodeRow(
        "r", Kind.EXPANSION, 0xFFFFFFFF, Rule(0, 0, 0, 0, 0), value=encode_template(Constant(1))
    )
    dead = Failed(id, 3, b"cell", "why")

    store.enqueue([task])
    store.submit(Plan(run, "name", [root]))
    store.step("s1", [Done(id, 1, b"one"), RetryAt(id, 2, 70), dead], want=9, queues=("a", "b"))
    store.open_session(SessionInfo("s1"), lease_ms=7)
    store.renew(["s1"], lease_ms=7, period_ms=8)
    store.held("s1")
    store.release("s1", lost=[id], reason="signal 9")
    store.cancel([id])
    store.reschedule(id, delay_ms=1, due_ms=2)
    store.sweep(limit=11)
    store.nodes(run, after=4, limit=3)
    store.wait_ended([id], timeout=0.1)
    store.status()
    store.left(["a", "b"])
    store.run(run)
    store._run("page")
    store.rewind(run, 3, chosen=((1, 2),))
    store._reserve("s1", [Expand(id, 4, [root, root])])
    store.send(run, "go", b"V", to="n", key="k", who="me")
    store.pause(run)
    store.park(run, b"?", seen=5, nodes=((1, 2),), stop=((2, 1),))
    store.fork(run, id, seen=5, chosen=((1, 2),))
    store.started(run, after=id, limit=3)
    store.wait_moved(run, seen=5, timeout=0.1)
    store.places(run + b"\0\0\0\1")

    sent = wire.sent
    assert set(sent) == set(scripts.NAMES)
    assert all(parts[:2] == [b"{app}:L", b"0"] for parts in sent.values())
    rest = {name: parts[2:] for name, parts in sent.items()}
    assert rest["enqueue"][:2] == [b"1", id] and len(rest["enqueue"]) == 4
    assert rest["submit"][:4] == [run, b"0", b"1", b"1"] and len(rest["submit"]) == 11
    assert rest["step"] == [
        b"s1", b"30000", b"9", b"1048576", b"3", b"2", b"a", b"b", b"b", id, id, id,
        b"\0\0\0\1\0", b"\0\0\0\2\1", b"\0\0\0\3\7", b"one", b"70", b"\0\3whycell",
    ]  # fmt: skip
    assert rest["open"][:2] == [b"s1", b"7"] and len(rest["open"][2]) > 64
    assert rest["renew"] == [b"7", b"8", b"s1"]
    assert rest["held"] == [b"s1", b"1048576"]
    assert rest["release"] == [b"s1", b"signal 9", id]
    assert rest["cancel"] == [b"0", id]
    assert rest["reschedule"] == [id, b"1", b"2"]
    assert rest["sweep"] == [b"11"]
    assert rest["look"] == [b"0", id]
    assert rest["runs"] == [run]
    assert rest["nodes"] == [run, b"5", b"3"]
    assert rest["wait"][1:] == [b"1", id] and len(rest["wait"][0]) == 16
    assert rest["page"] == rest["status"] == []
    assert rest["grow"] == [b"s1", id, b"\0\0\0\4", b"1", b"-1", b""]
    chosen = b"\0\0\0\1\0\0\0\2"
    assert rest["rewind"] == [run, b"3", chosen, b"\0\0\0\0\0\0\0\1", b"", chosen, b"-1"]
    assert rest["park"] == [run, b"?", b"5", chosen, b"\0\0\0\2\0\0\0\1"]
    assert rest["left"] == [b"0", b"0", b"a", b"b"]
    assert rest["send"] == [run, b"go", b"n", b"k", b"me", b"V"]
    assert rest["pause"] == [run, b"1"]
    around, weighed = b"\0\0\0\0\0\0\0\1", chosen
    assert rest["fork"] == [run, id, b"5", b"0", chosen, around, b"", weighed, b""]
    assert rest["started"] == [run, id, b"3"]
    assert rest["watch"][1:] == [run, b"5"] and len(rest["watch"][0]) == 16
    assert rest["places"] == [run + b"\0\0\0\1", b"100"]
