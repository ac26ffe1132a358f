# SPDX-License-Identifier: MIT
"""Random flows with branches, within each other and within maps, beside what plain Python does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any, NamedTuple, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowq import Flow, FlowQ, branch

app = FlowQ("programs", "memory://")
CALLS: Counter[str] = Counter()
Way: TypeAlias = "tuple[tuple[str, int], ...]"
"""Arms within each other, from outside inwards: each the name of its branch, and its key."""
DEFAULT = 9


def total(x: Any) -> int:
    return sum(map(total, x)) if isinstance(x, list) else int(x)


@app.task(name="call")
def call(name: str, *given: Any) -> int:
    CALLS[name] += 1
    return 3 * total(list(given)) + len(given) + 1


@app.task(name="third")
def third(name: str, x: Any) -> int:
    CALLS[name] += 1
    return total(x) % 3


@app.task(name="listed")
def listed(name: str, x: Any, count: int) -> list[int]:
    CALLS[name] += 1
    return [total(x) + k for k in range(count)]


# --- programs ------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A call of a task with variables."""

    name: str
    given: list[int]


class Over(NamedTuple):
    """A flow that is mapped over a list that comes from a variable."""

    name: str
    var: int
    length: int
    flow: Block


class Choose(NamedTuple):
    """A branch; an arm is the block of a function, a list of variables, or a constant."""

    name: str
    var: int
    arms: dict[int, Block | list[int] | int]


class Block(NamedTuple):
    """Statements, each of which makes the next variable, and what is returned."""

    steps: list[Call | Over | Choose]
    value: list[int]


def drawn(r: Random, known: int, depth: int, names: Iterator[int]) -> Block:
    """Draw a block that begins with so many variables."""
    steps: list[Call | Over | Choose] = []
    for _ in range(r.randint(1, 4)):
        name, kind = f"n{next(names)}", r.random()
        if not known or kind < 0.5 or depth > 3:
            steps.append(
                Call(name, [r.randrange(known) for _ in range(r.randint(0, 2) if known else 0)])
            )
        elif kind < 0.6:
            steps.append(
                Over(name, r.randrange(known), r.randint(0, 2), drawn(r, 1, depth + 1, names))
            )
        else:
            keys = [*r.sample(range(3), r.randint(1, 3)), DEFAULT]
            arms = {key: drawn_arm(r, known, depth, names) for key in keys}
            steps.append(Choose(name, r.randrange(known), arms))
        known += 1
    return Block(steps, [r.randrange(known) for _ in range(r.randint(1, 2))])


def drawn_arm(r: Random, known: int, depth: int, names: Iterator[int]) -> Block | list[int] | int:
    kind = r.random()
    if kind < 0.4:
        return drawn(r, known, depth + 1, names)
    return [r.randrange(known) for _ in range(r.randint(1, 2))] if kind < 0.9 else 7


def built(block: Block, known: Iterable[Any]) -> Any:
    """Say it in flowq: what the body of a flow does."""
    found = list(known)

    def arm(given: Block | list[int] | int) -> Any:
        here = list(found)
        if isinstance(given, Block):
            return lambda: built(given, here)
        return [here[i] for i in given] if isinstance(given, list) else given

    for step in block.steps:
        if isinstance(step, Call):
            found.append(call(step.name, *(found[i] for i in step.given)))
        elif isinstance(step, Over):
            inner = flow(lambda x, block=step.flow: built(block, [x]))
            found.append(inner.map(listed(step.name, found[step.var], step.length)))
        else:
            arms = {key: arm(given) for key, given in step.arms.items()}
            default = arms.pop(DEFAULT)
            found.append(branch(third(step.name, found[step.var]), arms, default=default))
    return [found[i] for i in block.value]


def flow(body: Callable[..., Any]) -> Flow[..., Any]:
    return Flow(app, body, {"name": "program"})


# --- what it comes to ----------------------------------------------------------------------------


def ways(block: Block, known: int, found: dict[str, Way]) -> dict[int, list[Way]]:
    """Find for each step the arms that it belongs to, and where a block uses what is outside it.

    A step belongs to the innermost arm that holds all that reads it.
    """
    uses: dict[int, list[Way]] = {i: [()] for i in block.value}
    for k, step in reversed(list(enumerate(block.steps, known))):
        way = found[step.name] = common(uses.get(k, [()]))
        if isinstance(step, Call):
            for i in step.given:
                uses.setdefault(i, []).append(way)
            continue
        uses.setdefault(step.var, []).append(way)
        if isinstance(step, Over):
            ways(step.flow, 1, found)
            continue
        for key, arm in step.arms.items():
            inside = (*way, (step.name, key))
            if isinstance(arm, list):
                for i in arm:
                    uses.setdefault(i, []).append(inside)
            elif isinstance(arm, Block):
                for i, deeper in ways(arm, k, found).items():
                    uses.setdefault(i, []).extend((*inside, *d) for d in deeper)
    return {i: found_ways for i, found_ways in uses.items() if i < known}


def common(given: list[Way]) -> Way:
    first = given[0]
    for k, arm in enumerate(first):
        if any(way[k : k + 1] != (arm,) for way in given):
            return first[:k]
    return first


class Ran:
    """One run of a block in plain Python: its value, the arms taken, and the blocks run within."""

    def __init__(self, block: Block, known: Iterable[Any]) -> None:
        self.block = block
        self.taken: dict[str, int] = {}
        self.inside: dict[str, list[Ran]] = {}
        found = list(known)
        for step in block.steps:
            if isinstance(step, Call):
                given = [found[i] for i in step.given]
                found.append(3 * total(given) + len(given) + 1)
            elif isinstance(step, Over):
                xs = [total(found[step.var]) + k for k in range(step.length)]
                self.inside[step.name] = items = [Ran(step.flow, [x]) for x in xs]
                found.append([item.value for item in items])
            else:
                found.append(self._chosen(step, found))
        self.value: list[Any] = [found[i] for i in block.value]

    def _chosen(self, step: Choose, found: list[Any]) -> Any:
        key = total(found[step.var]) % 3
        self.taken[step.name] = key = key if key in step.arms else DEFAULT
        given = step.arms[key]
        if isinstance(given, Block):
            ran = Ran(given, found)
            self.inside[step.name] = [ran]
            self.taken.update(ran.taken)
            return ran.value
        return [found[i] for i in given] if isinstance(given, list) else given

    def calls(self, found: dict[str, Way]) -> Iterator[str]:
        """Go through what is called, if only what the arms taken need is."""
        for step in self.block.steps:
            if all(self.taken.get(name) == key for name, key in found[step.name]):
                yield step.name
                for ran in self.inside.get(step.name, ()):
                    yield from ran.calls(found)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_a_flow_calls_what_the_arms_taken_need_and_nothing_else(r: Random) -> None:
    block = drawn(r, 0, 0, iter(range(10_000)))
    found: dict[str, Way] = {}
    ways(block, 0, found)
    expected = Ran(block, [])
    CALLS.clear()

    with app.inline():
        run = flow(lambda: built(block, [])).build().start()
        value, state = run.get(timeout=30), run.state

    assert (value, state) == (expected.value, "success")
    assert CALLS == Counter(expected.calls(found))
