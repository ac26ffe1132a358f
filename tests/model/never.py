# SPDX-License-Identifier: MIT
"""How what is inside a node, and follows it, ends with it if it never begins."""

from __future__ import annotations

from typing import Any, TypeAlias

from flowq.states import State
from tests.model.programs import Body, Step
from tests.model.weighing import units_of

__all__ = ["chunked", "never", "never_item"]

States: TypeAlias = "dict[str, State | None]"


def never(states: States, path: str, step: Step, state: State) -> None:
    """Say how what is inside a node, and follows it, ends with it if it never begins."""
    known = step.kind == "map" and step.over is None
    if step.fallback:
        states[f"{path}/fallback"] = state
    if step.kind == "flow":
        assert step.body is not None
        never_graph(states, step.body, f"{path}/", state)
    elif known:
        for i in range(len(chunked([*range(step.length)], step.chunk))):
            never_item(states, f"{path}[{i}]", step, state)


def never_graph(states: States, body: Body, prefix: str, state: State) -> None:
    for unit in units_of(body, "")[0]:
        path = f"{prefix}{unit.name}"
        states[path] = state
        never(states, path, unit.step, state)
        if unit.step.on_error:
            states[f"{path}/on_error/e"] = state
    for word, wanted in (
        ("on_success", body.on_success),
        ("on_failure", body.on_failure),
        ("finally", body.finally_),
    ):
        if wanted:
            states[f"{prefix}{word}/h"] = state


def never_item(states: States, path: str, step: Step, state: State) -> None:
    states[path] = state
    if step.item_fallback:
        states[f"{path}/fallback"] = state
    if step.item_on_error:
        states[f"{path}/on_error/e"] = state
    if step.item == "chain":
        states[f"{path}/a"] = states[f"{path}/b"] = state
    elif step.item == "flow":
        assert step.body is not None
        never_graph(states, step.body, f"{path}/", state)


def chunked(over: list[Any], size: int) -> list[Any]:
    """Part a list into chunks of numbered elements, if it is to be chunked."""
    if not size:
        return over
    numbered = list(enumerate(over))
    return [numbered[at : at + size] for at in range(0, len(over), size)]
