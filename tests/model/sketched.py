# SPDX-License-Identifier: MIT
"""Random programs of users, drawn step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Final

from tests.model.programs import DEFAULT, PLAIN, TASKS, Body, Edge, Program, Step

__all__ = ["drawn"]

LATE: Final = (
    "all_success",
    "all_done",
    "none_failed",
    "none_failed_min_one_success",
    "all_failed",
)
LONG: Final = 300_000_000.0
"""A deadline that no run passes; under one nothing may end otherwise than without."""


@dataclass
class _Known:
    """What is known of a body that is being drawn.

    Attributes
    ----------
    given : int
        How many values come from outside.
    needed : set of int
        Steps that the value must name, lest they belong to an arm.
    raced : set of int
        Steps that nothing reads but a race.
    """

    given: int
    steps: list[Step] = field(default_factory=list)
    needed: set[int] = field(default_factory=set)
    raced: set[int] = field(default_factory=set)

    def kinds(self, *kinds: str) -> list[int]:
        return [i for i in self.open() if self.steps[i].kind in kinds]

    def open(self) -> list[int]:
        """Steps that others may read."""
        return [i for i in range(len(self.steps)) if i not in self.raced]


class _Drawing:
    def __init__(self, rand: Random, size: int, hurry: bool, calm: bool) -> None:
        self.r = rand
        self.left = size
        self.names = count()
        self.hurry = hurry
        self.calm = calm

    def maybe(self, chance: float) -> bool:
        return self.r.random() < chance

    def harsh(self, word: str, instead: str = "block") -> str:
        """Say that a failure stops others, unless all is to stay calm."""
        return instead if self.calm else word

    def deadline(self) -> float:
        """Draw a deadline, or none; which one takes no other numbers than another."""
        soon = self.r.choice([10.0, 60.0, 200.0])
        return (soon if self.hurry else LONG) if self.maybe(0.15) else 0

    def body(self, depth: int, given: int, *, plain: bool = False) -> Body:
        """Draw a body into which so many values are given."""
        known = _Known(given)
        steps = known.steps
        most = 3 if depth else 7 if self.left < 40 else 12
        for _ in range(self.r.randint(1, most)):
            if self.left <= 0 and steps:
                break
            self.step(known, depth)
        read = {e.parent for s in steps for e in s.edges} | {i for s in steps for i in s.listed}
        named = {i for i, s in enumerate(steps) if s.mentioned and i not in read}
        named |= known.needed
        there = known.open()
        some = self.r.sample(there, self.r.randint(1, min(2, len(there))))
        value = sorted(named | set(some))
        body = Body(steps, value, alone=len(value) == 1 and self.maybe(0.5))
        if not plain:
            body.policy = self.r.choice(["", "", "", "", "block", "continue", self.harsh("cancel")])
            body.on_success, body.on_failure, body.finally_ = (self.maybe(0.2) for _ in range(3))
            body.atomic = self.maybe(0.15)
            body.deadline = self.deadline()
            body.parallel = self.r.choice([0, 0, 0, 0, 1, 2, 3])
            body.shared = self.maybe(0.15)
        return body

    def step(self, known: _Known, depth: int) -> None:
        self.left -= 1
        deep = depth < 3 and self.left > 0
        kinds = ["call"] * 7 + ["list"] * 2 + ["cond"] * 2 + ["chain", "group", "pure"]
        kinds += ["sleep", "wait"] + ["race", "race"] * deep
        kinds += (
            ["grow"] * 2 * deep + ["map"] * 5 * deep + ["branch"] * 4 * deep + ["flow"] * 3 * deep
        )
        kind = self.r.choice(kinds)
        if kind == "race":
            self.race(known, depth)
            return
        if kind == "branch" and not known.kinds("cond"):
            kind = "cond"
        known.steps.append(self.made(kind, known, depth))

    def made(self, kind: str, known: _Known, depth: int) -> Step:
        r = self.r
        name = f"n{next(self.names)}"
        if kind == "pure":
            name = f"pure{r.randrange(3)}-{name}"
        at = Step(name, kind)
        self.edges(at, known)
        if kind == "map":
            self.map(at, known, depth)
        elif kind == "branch":
            self.branch(at, known, depth)
        elif kind == "flow":
            at.body = self.body(depth + 1, sum(e.how != "order" for e in at.edges))
        elif kind == "grow":
            at.body = self.body(depth + 1, 0, plain=True)
            at.body.parallel = r.choice([0, 0, 1, 2])
            at.item = r.choice(["flow", "list"])
        elif kind in ("chain", "group"):
            at.length = r.randint(1, 3)
        elif kind == "sleep":
            at.seconds = r.choice([0, 1, 50])
        elif kind == "wait":
            at.seconds = r.choice([0, 1, 50])
            at.default = at.seconds > 0 and self.maybe(0.5)
        self.say(at, known)
        return at

    def race(self, known: _Known, depth: int) -> None:
        """Draw a race, mostly of steps of its own, maybe of others too."""
        r = self.r
        raced = {e.parent for s in known.steps if s.kind == "first" for e in s.edges}
        there = [  # a signature is a new step in each race that it is made a member of
            i
            for i in known.open()
            if known.steps[i].kind != "group" and not (known.steps[i].mentioned and i in raced)
        ]
        members = r.sample(there, min(len(there), r.choice([0, 0, 0, 1, 2])))
        while len(members) < 2 or (self.left > 0 and self.maybe(0.3)):
            self.left -= 1
            kinds = ["call"] * 5 + ["sleep", "wait", "pure", "map", "flow", "grow"]
            made = self.made(r.choice(kinds), known, depth)
            members.append(len(known.steps))
            known.steps.append(made)
            known.raced.add(members[-1])
            if made.kind == "call" and self.maybe(0.3):  # another stands between
                between = Step(f"n{next(self.names)}", "call", [Edge(members[-1], "value")])
                members[-1] = len(known.steps)
                known.steps.append(between)
                known.raced.add(members[-1])
        at = Step(f"n{next(self.names)}", "first")
        at.edges = [Edge(i, "maybe" if self.maybe(0.1) else "value") for i in members]
        known.steps.append(at)

    def edges(self, at: Step, known: _Known) -> None:
        r = self.r
        above = [*range(-known.given, 0), *known.open()]
        if above and self.maybe(0.8):
            for parent in r.sample(above, r.randint(1, min(4, len(above)))):
                if parent < 0:
                    hows = ["value"]
                elif at.kind in ("chain", "group", "map", "branch", "sleep", "wait", "pure"):
                    hows = ["order"]
                else:
                    hows = ["value", "value", "value", "order", "maybe"]
                if parent < 0 and at.kind not in ("call", "list", "cond", "grow", "flow"):
                    continue
                how = r.choice(hows)
                if how == "maybe" and known.steps[parent].kind == "group":
                    how = "value"
                at.edges.append(Edge(parent, how))
                if parent >= 0 and how == "value" and self.maybe(0.1):
                    at.edges.append(Edge(parent, "order"))

    def map(self, at: Step, known: _Known, depth: int) -> None:
        r = self.r
        lists = [*known.kinds("list"), *known.kinds("map"), *known.kinds("map")]
        if lists and self.maybe(0.7):
            at.over = r.choice(lists)
            if known.steps[at.over].kind == "map" and self.maybe(0.5):
                self.along(at, known.steps[at.over])
            elif self.maybe(0.1):
                at.edges.append(Edge(at.over, "order"))
        else:
            at.length = r.choice([0, 1, 1, 2, 3])
        at.item = r.choice(["task", "task", "chain", "flow"])
        if at.item == "flow":
            at.body = self.body(depth + 1, 1)
            at.body.parallel = 0  # it would be that of the map
        said = r.random()
        if said < 0.3:
            at.items = r.choice([self.harsh("cancel", "all"), "keep", "keep"])
        elif said < 0.45:
            at.tolerate = r.choice([0, 1, 2, 0.5, 1.0])
        elif said < 0.7:
            at.need = r.choice([1, 1, 2])
        at.parallel = r.choice([0, 0, 1, 2])
        at.deadline = self.deadline()
        if at.item == "task":
            at.item_retries = r.choice([0, 0, 1])
            at.chunk = 0 if at.along else r.choice([0, 0, 0, 0, 1, 2])
        if at.item in ("task", "flow"):
            at.item_fallback = "" if at.chunk else r.choice(["", "", "", "signature"])
            at.item_on_error = self.maybe(0.2)

    def along(self, at: Step, above: Step) -> None:
        """Let a map take the items of another one by one: nothing said may be against that."""
        at.along = True
        at.edges = [e for e in at.edges if e.parent != at.over]
        above.need, above.chunk, above.fallback, above.default = 0, 0, "", False
        above.items = "all" if above.items == "cancel" else above.items
        above.policy = "block" if above.policy == "continue" else above.policy

    def branch(self, at: Step, known: _Known, depth: int) -> None:
        r = self.r
        at.over = r.choice(known.kinds("cond"))
        keys = r.sample(["0", "1", "2"], r.randint(1, 3))
        for key in [*keys, *[DEFAULT] * self.maybe(0.6)]:
            kind = r.random()
            if kind < 0.5:
                body = self.body(depth + 1, 0, plain=True)
                at.arms[key] = body
            elif kind < 0.9:
                there = known.open()
                read = r.sample(there, r.randint(1, min(2, len(there))))
                known.needed.update(read)
                at.arms[key] = read
            else:
                at.arms[key] = 7

    def say(self, at: Step, known: _Known) -> None:
        r = self.r
        if at.kind in ("chain", "group"):
            return
        beside = {e.parent for e in at.edges if e.parent >= 0} | {*at.listed}
        for arm in at.arms.values():
            beside |= {*arm} if isinstance(arm, list) else set()
        if at.kind != "flow" and beside and not at.along and self.maybe(0.5):
            at.rule = r.choice(
                [*LATE, "one_success", f"at_least({r.randint(1, len(beside))})"]
                + ["one_failed"] * 2
            )
        if at.kind in PLAIN:
            return
        kind = r.random()
        if kind < 0.1:
            at.policy = self.harsh("cancel")
        elif kind < 0.2:
            at.policy = "block"
        elif kind < 0.3:
            at.policy = "continue"
        elif kind < 0.4:
            at.default = True
        if self.maybe(0.15) and at.kind != "pure":
            at.fallback = r.choice(["task", "signature"] if at.kind in TASKS else ["signature"])
        at.on_error = self.maybe(0.15)
        if at.kind in TASKS:
            at.retries = r.choice([0, 0, 1, 2])


def drawn(rand: Random, size: int, *, hurry: bool = False, calm: bool = False) -> Program:
    """Draw a program of about so many steps.

    In a `hurry` it has deadlines that may pass; where it is `calm`, no failure stops others.
    """
    return _Drawing(rand, size, hurry, calm).body(0, 0)
