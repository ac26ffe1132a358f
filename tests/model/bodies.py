# SPDX-License-Identifier: MIT
"""What the tasks of random programs do, and how much of a value is looked at."""

from __future__ import annotations

from typing import Any
from zlib import crc32

from flowq import FlowQ, Retry, Skip
from flowq.current import CurrentTask
from flowq.errors import Cancelled, Failure, Pending, Skipped
from tests.model.programs import Scripts, Step

__all__ = ["app", "clean", "digest", "handle", "playing", "pure", "under", "value_of", "work"]

app = FlowQ("laws", "memory://")
SCRIPTS: Scripts
GENERATION = 0
"""Of the node whose body runs."""
CALLS: dict[str, Any]
"""What the latest call for a node was given, by its path."""
GROWN: dict[str, Step] = {}
"""Steps that become graphs, by what their tasks are told."""


def playing(scripts: Scripts, calls: dict[str, Any]) -> None:
    """Say what bodies do from now on."""
    global SCRIPTS, CALLS
    SCRIPTS, CALLS = scripts, calls


def under(generation: int) -> None:
    """Say of which generation the node is whose body runs next."""
    global GENERATION
    GENERATION = generation


def digest(value: Any) -> Any:
    """Give a short stand-in of a value, which tells where something was missing, but not why."""
    if isinstance(value, Failure):
        return "failure"
    if isinstance(value, Skipped):
        return "skipped"
    if isinstance(value, Cancelled):
        return "cancelled"
    if isinstance(value, Pending):
        return "pending"
    if isinstance(value, list | tuple):
        return [digest(x) for x in value]
    return value


def value_of(path: str, given: list[Any]) -> int:
    """The value of a usual call."""
    return crc32(f"{path}{digest(given)}".encode())


@app.task(name="work", context=True, max_losses=255)
def work(
    *given: Any, kind: str = "call", early: bool = False, chunked: bool = False, task: CurrentTask
) -> Any:
    """Do what the script of this node says, or of this element of it."""
    path = f"{task.node}#{task.index}" if chunked else str(task.node)
    script = SCRIPTS(path, GENERATION)
    if task.attempt <= script.fails:
        raise Retry(delay=0) if script.number == 3 else ValueError(f"{path} fails")
    if script.then == "skip":
        raise Skip(path)
    seen = [] if early else digest(list(given))
    CALLS[path] = seen
    if script.then == "failure" and kind == "call":
        return Failure("work", "", path, "error", "builtins.ValueError", "returned")
    if kind == "list":
        return [f"{path}.{i}" for i in range(script.number)]
    if kind == "cond":
        return str(script.number)
    if kind.startswith("grow:"):
        from tests.model.written import returned

        return returned(GROWN[kind])
    return value_of(path, seen)


@app.task(name="pure", context=True, max_losses=255, cache=3_000_000)
def pure(name: str, *, task: CurrentTask) -> int:
    """Do what the script says of all calls with this argument; it may not be called at all."""
    script = SCRIPTS(str(task.node), GENERATION)
    if script.fails:
        raise ValueError(f"{task.node} fails")
    if script.then == "skip":
        raise Skip(name)
    CALLS[str(task.node)] = []
    return value_of(name, [])


@app.task(name="handle", context=True, max_losses=255)
def handle(told: Any = None, *, task: CurrentTask) -> Any:
    """Do the same as what runs because of how something ended; it may be told of that."""
    return work.func(told, task=task)


@app.task(name="clean", context=True, max_losses=255)
def clean(*, task: CurrentTask) -> Any:
    """Do the same as a cleanup, which is told nothing."""
    return work.func(task=task)
