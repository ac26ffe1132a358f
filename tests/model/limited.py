# SPDX-License-Identifier: MIT
"""The limits of a program that runs: how many of its tasks are queued or running at each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flowq.plan import ROOT
from flowq.states import State
from flowq.storage.base import NodeInfo
from tests.model.programs import SHARED, Body, Program, Step

__all__ = ["Limit", "limits_in"]

BUSY = (State.QUEUED, State.RUNNING)


class Limit(NamedTuple):
    """How many places there are, and which nodes have one."""

    most: int
    holders: tuple[str, ...]

    @property
    def taken(self) -> int:
        return len(self.holders)


def limits_in(program: Program, nodes: Sequence[NodeInfo]) -> dict[str, Limit]:
    """Find the limits of a run by their keys.

    Parameters
    ----------
    program : Program
    nodes : sequence of NodeInfo
        All of the run, each behind what it stands in.
    """
    known = dict(_bodies(program))
    around: dict[int, set[str]] = {}
    most: dict[str, int] = {}
    holders: dict[str, list[str]] = {}
    for node in nodes:
        keys = set() if node.index == ROOT else set(around[node.owner])
        body = program if node.index == ROOT else known.get(_step(node.name))
        if body is not None:
            path = "" if node.index == ROOT else node.name
            most |= {f"/{path}": body.parallel} if body.parallel else {}
            most |= {"flow:program": SHARED} if body.shared else {}
            keys |= {f"/{path}"} if body.parallel else set()
            keys |= {"flow:program"} if body.shared else set()
        around[node.index] = keys
        if node.state in BUSY and node.task:
            for key in keys:
                holders.setdefault(key, []).append(node.name)
    return {key: Limit(top, tuple(holders.get(key, ()))) for key, top in most.items()}


def _step(path: str) -> str:
    """Name the step that a node stands for: that of a call, of an item, or of what it became."""
    above, _, name = path.rpartition("/")
    if name == "program":
        return f"{above.rpartition('/')[2]}/program"
    return f"{name.partition('[')[0]}[" if name.endswith("]") else name


def _bodies(body: Body) -> Iterator[tuple[str, Body]]:
    """Go through the bodies of flows, by what names of their nodes end with."""
    for step in body.steps:
        if step.body is not None:
            yield _ending(step), step.body
        for inner in (step.body, *step.arms.values()):
            if isinstance(inner, Body):
                yield from _bodies(inner)


def _ending(step: Step) -> str:
    return {"map": f"{step.name}[", "grow": f"{step.name}/program"}.get(step.kind, step.name)
