# SPDX-License-Identifier: MIT
"""Random programs of users: what they are made of, how they are drawn, and how flowq is told.

A program is a tree of bodies of steps. What its tasks do when they run stands apart, in scripts by
the path of a node, so that a program can be run again with others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Final, NamedTuple, TypeAlias
from zlib import crc32

from flowq import Flow, FlowQ, Retry, Skip, branch, chain, group, optional
from flowq.current import CurrentTask
from flowq.errors import Cancelled, Failure, Pending, Skipped

__all__ = ["EARLY", "Body", "Edge", "Program", "Script", "Scripts", "Step", "digest", "drawn"]

EARLY: Final = ("one_success", "at_least", "one_failed")
"""Rules under which a node may run before all of its parents have ended."""
LATE: Final = (
    "all_success",
    "all_done",
    "none_failed",
    "none_failed_min_one_success",
    "all_failed",
)
DEFAULT: Final = "default"
"""The key of an arm that is taken where no other is."""


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
    whose value is the key of an arm; a ``grow``, a call that gives a graph; a ``map``, a
    ``branch``, a ``flow``; or a ``chain`` or ``group`` of a few tasks, which is a signature that
    others mention.
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
    length: int = 0
    item: str = ""
    items: str = "all"
    tolerate: int | float | None = None
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
    """Steps that stand together, which of them are the value, and what is said of all."""

    steps: list[Step]
    value: list[int]
    alone: bool = False
    policy: str = ""
    on_success: bool = False
    on_failure: bool = False
    finally_: bool = False


class Script(NamedTuple):
    """What a body does: fails so often, then ends as told."""

    fails: int = 0
    then: str = "value"
    number: int = 0


Program: TypeAlias = Body


class Scripts:
    """What each body of a run does, by the path of its node.

    Parameters
    ----------
    seed : int
    kept : mapping of str to Script, optional
        What some do; all others return at once, with what they would have returned.
    """

    def __init__(self, seed: int, kept: Mapping[str, Script] | None = None) -> None:
        self._seed = seed
        self._kept = kept

    def __call__(self, path: str) -> Script:
        r = Random(f"{self._seed} {path}")
        number = r.randrange(4)
        if self._kept is not None:
            return self._kept.get(path, Script(0, "value", number))
        kind = r.random()
        if kind < 0.65:
            return Script(0, "value", number)
        if kind < 0.75:
            return Script(r.choice([0, 0, 1]), "skip", number)
        return Script(r.choice([1, 1, 2, 9, 9, 9, 9]), "value", number)


# --- drawing -------------------------------------------------------------------------------------


class _Drawing:
    def __init__(self, rand: Random, size: int) -> None:
        self.r = rand
        self.left = size
        self.names = count()

    def maybe(self, chance: float) -> bool:
        return self.r.random() < chance

    def body(self, depth: int, given: int, *, plain: bool = False) -> Body:
        """Draw a body into which so many values are given."""
        steps: list[Step] = []
        most = 7 if depth == 0 else 3
        needed: set[int] = set()
        for _ in range(self.r.randint(1, most)):
            if self.left <= 0 and steps:
                break
            self.step(steps, depth, given, needed)
        read = {e.parent for s in steps for e in s.edges} | {i for s in steps for i in s.listed}
        named = {i for i, s in enumerate(steps) if s.mentioned and i not in read}
        named |= needed
        some = self.r.sample(range(len(steps)), self.r.randint(1, min(2, len(steps))))
        value = sorted(named | set(some))
        body = Body(steps, value, alone=len(value) == 1 and self.maybe(0.5))
        if not plain:
            body.policy = self.r.choice(["", "", "", "", "block", "continue", "cancel"])
            body.on_success, body.on_failure, body.finally_ = (self.maybe(0.2) for _ in range(3))
        return body

    def step(self, steps: list[Step], depth: int, given: int, needed: set[int]) -> None:
        r = self.r
        self.left -= 1
        name = f"n{next(self.names)}"
        deep = depth < 3 and self.left > 0
        kinds = ["call"] * 8 + ["list"] * 2 + ["cond"] * 2 + ["chain", "group"]
        kinds += (
            ["grow"] * 2 * deep + ["map"] * 4 * deep + ["branch"] * 4 * deep + ["flow"] * 3 * deep
        )
        kind = r.choice(kinds)
        lists = [i for i, s in enumerate(steps) if s.kind == "list"]
        conds = [i for i, s in enumerate(steps) if s.kind == "cond"]
        if kind == "branch" and not conds:
            kind = "cond"
        at = Step(name, kind)
        self.edges(at, steps, given)
        if kind == "map":
            self.map(at, lists, depth)
        elif kind == "branch":
            self.branch(at, r.choice(conds), steps, depth, needed)
        elif kind == "flow":
            at.body = self.body(depth + 1, sum(e.how != "order" for e in at.edges))
        elif kind == "grow":
            at.body = self.body(depth + 1, 0, plain=True)
            at.item = r.choice(["flow", "list"])
        elif kind in ("chain", "group"):
            at.length = r.randint(1, 3)
        self.say(at, steps)
        steps.append(at)

    def edges(self, at: Step, steps: list[Step], given: int) -> None:
        r = self.r
        above = list(range(-given, len(steps)))
        if above and self.maybe(0.8):
            for parent in r.sample(above, r.randint(1, min(4, len(above)))):
                if parent < 0:
                    hows = ["value"]
                elif at.kind in ("chain", "group"):
                    hows = ["order"]
                elif at.kind in ("map", "branch"):
                    hows = ["order"]
                else:
                    hows = ["value", "value", "value", "order", "maybe"]
                if parent < 0 and at.kind not in ("call", "list", "cond", "grow", "flow"):
                    continue
                how = r.choice(hows)
                if how == "maybe" and steps[parent].kind == "group":
                    how = "value"
                at.edges.append(Edge(parent, how))
                if parent >= 0 and how == "value" and self.maybe(0.1):
                    at.edges.append(Edge(parent, "order"))

    def map(self, at: Step, lists: list[int], depth: int) -> None:
        r = self.r
        if lists and self.maybe(0.7):
            at.over = r.choice(lists)
            if self.maybe(0.1):
                at.edges.append(Edge(at.over, "order"))
        else:
            at.length = r.choice([0, 1, 1, 2, 3])
        at.item = r.choice(["task", "task", "chain", "flow"])
        if at.item == "flow":
            at.body = self.body(depth + 1, 1)
        said = r.random()
        if said < 0.4:
            at.items = r.choice(["cancel", "keep", "keep"])
        elif said < 0.6:
            at.tolerate = r.choice([0, 1, 2, 0.5, 1.0])
        if at.item == "task":
            at.item_retries = r.choice([0, 0, 1])
        if at.item in ("task", "flow"):
            at.item_fallback = r.choice(["", "", "", "signature"])
            at.item_on_error = self.maybe(0.2)

    def branch(self, at: Step, cond: int, steps: list[Step], depth: int, needed: set[int]) -> None:
        r = self.r
        at.over = cond
        keys = r.sample(["0", "1", "2"], r.randint(1, 3))
        for key in [*keys, *[DEFAULT] * self.maybe(0.6)]:
            kind = r.random()
            if kind < 0.5:
                body = self.body(depth + 1, 0, plain=True)
                at.arms[key] = body
            elif kind < 0.9:
                read = r.sample(range(len(steps)), r.randint(1, min(2, len(steps))))
                needed.update(read)
                at.arms[key] = read
            else:
                at.arms[key] = 7

    def say(self, at: Step, steps: list[Step]) -> None:
        r = self.r
        if at.kind in ("chain", "group"):
            return
        beside = {e.parent for e in at.edges if e.parent >= 0} | {*at.listed}
        for arm in at.arms.values():
            beside |= {*arm} if isinstance(arm, list) else set()
        if at.kind != "flow" and beside and self.maybe(0.5):
            at.rule = r.choice(
                [*LATE, "one_success", f"at_least({r.randint(1, len(beside))})"]
                + ["one_failed"] * 2
            )
        kind = r.random()
        if kind < 0.1:
            at.policy = "cancel"
        elif kind < 0.2:
            at.policy = "block"
        elif kind < 0.3:
            at.policy = "continue"
        elif kind < 0.4:
            at.default = True
        if self.maybe(0.15):
            tasks = at.kind in ("call", "list", "cond", "grow")
            at.fallback = r.choice(["task", "signature"] if tasks else ["signature"])
        at.on_error = self.maybe(0.15)
        if at.kind in ("call", "list", "cond", "grow"):
            at.retries = r.choice([0, 0, 1, 2])


def drawn(rand: Random, size: int) -> Program:
    """Draw a program of about so many steps."""
    return _Drawing(rand, size).body(0, 0)


# --- what tasks do -------------------------------------------------------------------------------

app = FlowQ("laws", "memory://")
SCRIPTS: Scripts
CALLS: dict[str, Any]
"""What the latest call for a node was given, by its path."""
_GROWN: dict[str, Step] = {}
_MORE: Final = {"max_losses": 255}


def playing(scripts: Scripts, calls: dict[str, Any]) -> None:
    """Say what bodies do from now on."""
    global SCRIPTS, CALLS
    SCRIPTS, CALLS = scripts, calls


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
def work(*given: Any, kind: str = "call", early: bool = False, task: CurrentTask) -> Any:
    """Do what the script of this node says."""
    path = str(task.node)
    script = SCRIPTS(path)
    if task.attempt <= script.fails:
        raise Retry(delay=0) if script.number == 3 else ValueError(f"{path} fails")
    if script.then == "skip":
        raise Skip(path)
    seen = [] if early else digest(list(given))
    CALLS[path] = seen
    if kind == "list":
        return [f"{path}.{i}" for i in range(script.number)]
    if kind == "cond":
        return str(script.number)
    if kind.startswith("grow:"):
        return returned(_GROWN[kind])
    return value_of(path, seen)


@app.task(name="handle", context=True, max_losses=255)
def handle(told: Any = None, *, task: CurrentTask) -> Any:
    """Do the same as what runs because of how something ended; it may be told of that."""
    return work.func(told, task=task)


@app.task(name="clean", context=True, max_losses=255)
def clean(*, task: CurrentTask) -> Any:
    """Do the same as a cleanup, which is told nothing."""
    return work.func(task=task)


# --- saying it in flowq --------------------------------------------------------------------------


def written(program: Program) -> Any:
    """Write a program as a flow; gives the graph."""
    return _flow(program).build()


def _flow(body: Body) -> Flow[..., Any]:
    options: dict[str, Any] = {}
    if body.policy:
        options["node_failure_policy"] = body.policy
    if body.on_success:
        options["on_success"] = handle.s().options(name="h")
    if body.on_failure:
        options["on_failure"] = handle.s().options(name="h")
    if body.finally_:
        options["finally_"] = clean.s().options(name="h")
    flow = Flow(app, lambda *given: _said(body, list(given)), {"name": "program"})
    return flow.options(**options)


def _said(body: Body, given: list[Any]) -> Any:
    """Say what stands in a body: what the function of a flow does."""
    made: list[Any] = []

    def found(i: int) -> Any:
        return given[-i - 1] if i < 0 else made[i]

    for step in body.steps:
        made.append(_step(step, found))  # noqa: PERF401  # it reads what was made before
    value = [made[i] for i in body.value]
    return value[0] if body.alone else value


def _step(step: Step, found: Callable[[int], Any]) -> Any:
    args = [
        optional(found(e.parent), default="none") if e.how == "maybe" else found(e.parent)
        for e in step.edges
        if e.how != "order"
    ]
    after = [found(e.parent) for e in step.edges if e.how == "order"]
    options = _options(step)
    if step.kind == "flow":
        assert step.body is not None
        made = _flow(step.body).options(**options)(*args)
    elif step.kind == "map":
        made = _map(step, found, options)
    elif step.kind == "branch":
        assert step.over is not None
        arms = {key: _arm(arm, found) for key, arm in step.arms.items()}
        default = {"default": arms.pop(DEFAULT)} if DEFAULT in arms else {}
        if not arms:
            arms["none"] = 0
        made = branch(found(step.over), arms, **default).options(**options)
    elif step.kind in ("chain", "group"):
        tasks = [work.s().options(name=f"{step.name}-{k}") for k in range(step.length)]
        made = chain(*tasks) if step.kind == "chain" else group(tasks)
    else:
        kind = step.kind
        if kind == "grow":
            kind = f"grow:{step.name}"
            _GROWN[kind] = step
        made = work.options(**options)(*args, kind=kind, early=step.early)
    return made.after(*after) if after else made


def _options(step: Step) -> dict[str, Any]:
    options: dict[str, Any] = {"name": step.name}
    if step.rule != "all_success":
        options["trigger_rule"] = step.rule
    if step.policy:
        options["failure_policy"] = step.policy
    if step.default:
        options["default"] = "default"
    if step.fallback:
        mirror = step.fallback == "task"
        options["fallback"] = work.options(name="f") if mirror else handle.s().options(name="f")
    if step.on_error:
        options["on_error"] = handle.s().options(name="e")
    if step.retries:
        options["retries"] = step.retries
    return options


def _map(step: Step, found: Callable[[int], Any], options: dict[str, Any]) -> Any:
    over = (
        [f"{step.name}.{i}" for i in range(step.length)] if step.over is None else found(step.over)
    )
    if step.items != "all":
        options["items"] = step.items
    if step.tolerate is not None:
        options["tolerate"] = step.tolerate
    each: dict[str, Any] = {}
    if step.item_fallback:
        each["fallback"] = handle.s().options(name="f")
    if step.item_on_error:
        each["on_error"] = handle.s().options(name="e")
    if step.item == "task":
        made: Any = work.options(retries=step.item_retries, **each).map(over)
    elif step.item == "chain":
        made = chain(work.s().options(name="a"), work.s().options(name="b")).map(over)
    else:
        assert step.body is not None
        made = _flow(step.body).options(**each).map(over)
    return made.options(**options)


def _arm(arm: Body | list[int] | int, found: Callable[[int], Any]) -> Any:
    if isinstance(arm, Body):
        return lambda: _said(arm, [])
    return [found(i) for i in arm] if isinstance(arm, list) else arm


def returned(step: Step) -> Any:
    """What a task returns that becomes a graph."""
    assert step.body is not None
    flow = _flow(step.body).s()
    return flow if step.item == "flow" else [flow, 1]
