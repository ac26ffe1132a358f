# SPDX-License-Identifier: MIT
"""What follows from how single nodes of a body ended, by sections 3, 4 and 6 of the semantics."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from flowq.states import State
from tests.model.programs import PLAIN, Body, Step

__all__ = [
    "BAD", "MISSING", "End", "Unit", "counted", "followed", "forgiven_in", "owned_by", "units_of",
    "value_in", "verdict_of",
]  # fmt: skip

SUCCESS, FAILED, BLOCKED = State.SUCCESS, State.FAILED, State.BLOCKED
SKIPPED, CANCELLED = State.SKIPPED, State.CANCELLED
BAD: Final = (FAILED, BLOCKED)
MISSING: Final = {
    FAILED: "failure", BLOCKED: "failure", SKIPPED: "skipped", CANCELLED: "cancelled",
}  # fmt: skip


class End(NamedTuple):
    """How a node ended, and its value if that was a success."""

    state: State
    value: Any = None


class Unit:
    """One node of a body: a step, or one of the tasks of a chain or group."""

    def __init__(self, name: str, step: Step, policy: str) -> None:
        self.name = name
        self.step = step
        self.above: dict[int, set[str]] = {}
        self.args: list[tuple[int, str]] = []
        plain = step.kind in PLAIN
        self.default = "default" if step.default and not plain else None
        self.policy = "continue" if step.default else step.policy or policy
        if plain:  # of these only what waits can fail
            self.policy = policy if step.kind == "wait" else ""
        self.end = End(SKIPPED)

    def reads(self, unit: int) -> bool:
        """Whether it reads the value of a unit, not only its end."""
        return bool(self.above[unit] & {"value", "maybe"})

    def minds(self, unit: int) -> bool:
        """Whether it minds how a unit ended: not all of its edges from there are optional."""
        return self.above[unit] != {"maybe"}

    @property
    def joined(self) -> bool:
        """Whether a join with its rule stands before it, so that it itself awaits success."""
        return self.step.kind in ("map", "branch") and self.step.rule != "all_success"

    @property
    def stands(self) -> bool:
        """Whether it failed, and counts as a success all the same."""
        return self.end.state == FAILED and self.policy == "continue"

    @property
    def delivered(self) -> Any:
        """What others get for its value."""
        if self.end.state == SUCCESS:
            return self.end.value
        if self.stands:
            return self.default
        return MISSING[self.end.state]


def units_of(body: Body, policy: str) -> tuple[list[Unit], list[list[int]]]:
    """Give the nodes of a body, and of each step the nodes with which it ends."""
    units: list[Unit] = []
    tails: list[list[int]] = []
    for step in body.steps:
        parents = list(step.edges)
        read = list(step.listed)
        for arm in step.arms.values():
            read += arm if isinstance(arm, list) else []
        above = [(k, e.how) for e in parents if e.parent >= 0 for k in tails[e.parent]]
        above += [(k, "value") for i in read for k in tails[i]]
        first = len(units)
        if step.kind in ("chain", "group"):
            for n in range(step.length):
                unit = Unit(f"{step.name}-{n}", step, policy)
                if n and step.kind == "chain":
                    unit.above[first + n - 1] = {"value"}
                    unit.args = [(first + n - 1, "value")]
                else:
                    for k, how in above:
                        unit.above.setdefault(k, set()).add(how)
                units.append(unit)
            tails.append([len(units) - 1] if step.kind == "chain" else [*range(first, len(units))])
            continue
        unit = Unit(step.name, step, policy)
        for k, how in above:
            unit.above.setdefault(k, set()).add(how)
        unit.args = [(e.parent, e.how) for e in parents if e.how != "order"]
        units.append(unit)
        tails.append([first])
    return units, tails


def followed(step: Step, units: list[Unit], tails: list[list[int]]) -> int | None:
    """Find the map whose items a map takes one by one; None if it awaits all that it reads."""
    if step.kind != "map" or step.over is None or step.chunk or step.rule != "all_success":
        return None
    above = units[tails[step.over][0]]
    said = above.step
    if said.kind != "map" or any(e.parent == step.over for e in step.edges):
        return None
    whole = said.chunk or said.need or said.items == "cancel" or said.fallback
    return None if whole or above.policy == "continue" else tails[step.over][0]


def value_in(step: Step, tails: list[int], units: list[Unit]) -> Any:
    """The value of a step, given the nodes with which it ends."""
    found = [units[k].delivered for k in tails]
    return found if step.kind == "group" else found[0]


# --- rules, forgiveness, races -------------------------------------------------------------------


def counted(unit: Unit, minds: bool) -> State:
    """As what the end of a parent counts."""
    if not minds or unit.stands:
        return SUCCESS
    return unit.end.state


def verdict_of(rule: str, parents: list[State]) -> State | None:
    """Say how a node ends that does not run, given how all of its parents did; None if it runs."""
    n = len(parents)
    good, bad = parents.count(SUCCESS), sum(p in BAD for p in parents)
    cancelled = parents.count(CANCELLED)
    runs = {
        "all_success": good == n,
        "all_done": True,
        "none_failed": not bad and not cancelled,
        "none_failed_min_one_success": not bad and not cancelled and good > 0,
        "one_success": good > 0,
        "one_failed": bad > 0,
        "all_failed": bad == n,
    }
    if runs[rule] if rule in runs else good >= int(rule.removeprefix("at_least(")[:-1]):
        return None
    if rule in ("one_failed", "all_failed"):
        return CANCELLED if cancelled else SKIPPED
    if bad:
        return BLOCKED
    return CANCELLED if cancelled else SKIPPED


def forgiven_in(units: list[Unit], named: set[int]) -> set[int]:
    """Find the nodes whose failure or cancel does not count around them."""
    forgiven: set[int] = set()
    for k in reversed(range(len(units))):
        below = [(j, u) for j, u in enumerate(units) if k in u.above]
        if k in named or not below:
            continue
        if all(_forgives(u, k, j in forgiven) for j, u in below):
            forgiven.add(k)
    return forgiven


def _forgives(child: Unit, parent: int, forgiven: bool) -> bool:
    """Whether the edges from a parent to a child let a failure of it not count."""
    if not child.minds(parent) or forgiven or child.step.kind == "first":
        return True
    some = child.step.rule.startswith(("one_success", "at_least"))
    return some and not (child.joined and child.reads(parent))


def owned_by(race: int, units: list[Unit], named: set[int]) -> set[int]:
    """Find what leads only into a race, directly or through others, and is not named."""
    owned = {race}
    for k in reversed(range(len(units))):
        below = {j for j, u in enumerate(units) if k in u.above}
        if below and below <= owned and k not in named:
            owned.add(k)
    return owned - {race}
