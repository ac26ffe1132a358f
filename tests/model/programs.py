# SPDX-License-Identifier: MIT
"""Programs of users: what they are made of.

A program is a tree of bodies of steps. What its tasks do when they run stands apart, in scripts by
the path of a node, so that a program can be run again with others.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple, TypeAlias

__all__ = [
    "DEFAULT",
    "EARLY",
    "SHARED",
    "TASKS",
    "Body",
    "Edge",
    "Program",
    "Script",
    "Scripts",
    "Step",
]

EARLY: Final = ("one_success", "at_least", "one_failed")
"""Rules under which a node may run before all of its parents have ended."""
DEFAULT: Final = "default"
"""The key of an arm that is taken where no other is."""
SHARED: Final = 2
"""So many tasks of all bodies that share a limit may go on at a time."""
TASKS: Final = ("call", "list", "cond", "grow", "pure")
"""Steps that are a call of one task."""
PLAIN: Final = ("first", "sleep", "wait")
"""Steps that no worker runs, and of which little can be said."""


class Edge(NamedTuple):
    """What a step takes from an earlier one beside it: ``value``, ``maybe`` or ``order``.

    With a negative `parent`, a value that was given to the body from outside.
    """

    parent: int
    how: str


@dataclass
class Step:
    """One step of a body, and what is said of it.

    What it is: a ``call`` of a task; a ``list``, a call whose value is one; a ``cond``, a call
    whose value is the key of an arm; a ``grow``, a call that gives a graph; a ``pure`` one, whose
    value is cached; a ``map``, a ``branch``, a ``flow``; a race (``first``) of earlier ones, a
    ``sleep``, a ``wait`` for what is sent; or a ``chain`` or ``group`` of a few tasks, which is a
    signature that others mention.
    """

    name: str
    kind: str
    edges: list[Edge] = field(default_factory=list)
    rule: str = "all_success"
    policy: str = ""
    default: bool = False
    fallback: str = ""
    on_error: bool = False
    retries: int = 0
    body: Body | None = None
    over: int | None = None
    along: bool = False
    length: int = 0
    item: str = ""
    items: str = "all"
    tolerate: int | float | None = None
    need: int = 0
    chunk: int = 0
    parallel: int = 0
    deadline: float = 0
    seconds: float = 0
    item_retries: int = 0
    item_fallback: str = ""
    item_on_error: bool = False
    arms: dict[str, Body | list[int] | int] = field(default_factory=dict)

    @property
    def early(self) -> bool:
        """Whether it may run before its parents have ended."""
        return self.rule.startswith(EARLY)

    @property
    def mentioned(self) -> bool:
        """Whether it is written as a signature, which something must mention."""
        return self.kind in ("chain", "group") or self.item == "chain"

    @property
    def listed(self) -> list[int]:
        """What it is over, or what it depends on: read, but no argument of a task."""
        return [] if self.over is None else [self.over]


@dataclass
class Body:
    """Steps that stand together, which of them are the value, and what is said of all.

    So many of its tasks (`parallel`) may go on at a time; with `shared`, so do those of all bodies
    of which that is said, together.
    """

    steps: list[Step]
    value: list[int]
    alone: bool = False
    policy: str = ""
    on_success: bool = False
    on_failure: bool = False
    finally_: bool = False
    atomic: bool = False
    deadline: float = 0
    parallel: int = 0
    shared: bool = False


class Script(NamedTuple):
    """What a body does: fails so often, then ends as told.

    It returns a ``value``, raises a ``skip``, or returns a ``failure`` as its value.
    """

    fails: int = 0
    then: str = "value"
    number: int = 0


Program: TypeAlias = Body


class Scripts:
    """What each body of a run does, by the path of its node.

    Parameters
    ----------
    seed : int
    before : Scripts, optional
        What some do; all others return at once, with what they would have returned.
    kept : collection of str
        Which nodes do as before.
    again : bool
        Whether what runs again, under another generation than the first, returns.

    Notes
    -----
    Calls that are cached do the same wherever they are made with the same argument: it is the first
    part of the names of their nodes. Of a chunk each element has a script, with a number at the end
    of its path.
    """

    def __init__(
        self,
        seed: int,
        before: Scripts | None = None,
        kept: Collection[str] = (),
        *,
        again: bool = False,
    ) -> None:
        self._seed = seed
        self._again = again
        self._before = before
        self._kept = kept

    def keeping(self, kept: Collection[str]) -> Scripts:
        """Let some do the same as now, and all others return."""
        return Scripts(self._seed, self, kept)

    def __call__(self, path: str, generation: int = 0) -> Script:
        if self._before is not None and path.partition("#")[0] in self._kept:
            return self._before(path)
        name = path.rpartition("/")[2]
        pure = name.startswith("pure") and "-" in name
        r = Random(f"{self._seed} {name.partition('-')[0] if pure else path}")
        number = r.randrange(4)
        if self._before is not None or (self._again and generation):
            return Script(0, "value", number)
        kind = r.random()
        if pure:
            return Script(9 * (kind < 0.2), "skip" if kind > 0.9 else "value", number)
        if kind < 0.65:
            return Script(0, "failure" if kind > 0.62 else "value", number)
        if kind < 0.75:
            return Script(r.choice([0, 0, 1]), "skip", number)
        return Script(r.choice([1, 1, 2, 9, 9, 9, 9]), "value", number)
