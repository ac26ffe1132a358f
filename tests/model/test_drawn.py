# SPDX-License-Identifier: MIT
"""What the laws are tried on is drawn: programs with everything in them, and all troubles."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from flowq.errors import BindingWarning
from flowq.plan import Bits
from flowq.states import RULES, State
from tests.model.lawful import Played, fresh_stores, steps_in
from tests.model.programs import TASKS, Body, Program, Step
from tests.model.sketched import drawn

pytestmark = pytest.mark.filterwarnings(f"ignore::{BindingWarning.__module__}.BindingWarning")

KINDS = {*TASKS, "map", "branch", "flow", "chain", "group", "first", "sleep", "wait"}
POLICIES = {"block", "cancel", "continue"}
OF_MAPS = {"need", "chunk", "parallel", "tolerate", "deadline", "item_fallback", "item_on_error"}
OF_NODES = {"default", "fallback", "on_error", "retries"}
OF_BODIES = {
    "on_success", "on_failure", "finally_", "atomic", "deadline", "alone", "parallel", "shared",
}  # fmt: skip
ITEMS = ("task", "chain", "flow")
AWAITED = {"need", "items cancel", "fallback", "policy continue", "default", "chunk", "chunked"}
"""Why a map over a map may await its whole list."""


def depth(body: Body) -> int:
    inner = [b for s in body.steps for b in (s.body, *s.arms.values()) if isinstance(b, Body)]
    return 1 + max(map(depth, inner), default=0)


def bodies(body: Body) -> Iterator[Body]:
    yield body
    for step in steps_in(body):
        yield from (b for b in (step.body, *step.arms.values()) if isinstance(b, Body))


def words(program: Program) -> Iterator[str]:
    """What is said in a program."""
    yield f"depth {depth(program)}"
    for step in steps_in(program):
        yield step.kind
        yield step.rule.partition("(")[0]
        yield step.policy
        yield f"items {step.items}"
        yield from (word for word in (*OF_MAPS, *OF_NODES) if getattr(step, word))
        yield from (f"edge {edge.how}" for edge in step.edges)
        yield from (f"arm {type(arm).__name__}" for arm in step.arms.values())
        yield "over" if step.over is not None else ""
    for body in bodies(program):
        yield from (word for step in body.steps for word in over_maps(step, body))
        yield f"all {body.policy}"
        yield from (word for word in OF_BODIES if getattr(body, word))


def over_maps(step: Step, body: Body) -> Iterator[str]:
    """What is said of a map over a map, and of that."""
    above = None if step.over is None else body.steps[step.over]
    if above is None or step.kind != "map" or above.kind != "map":
        return
    said = {
        "need": above.need,
        "items cancel": above.items == "cancel",
        "fallback": above.fallback,
        "policy continue": (above.policy or body.policy) == "continue",
        "default": above.default,
        "chunk": above.chunk,
        "chunked": step.chunk,
        "rule": step.rule != "all_success",
        "order": any(e.parent == step.over for e in step.edges),
    }
    found = [word for word, is_so in said.items() if is_so]
    yield from (f"awaited: {word}" for word in found)
    if not found:
        yield "item by item"
        yield f"item by item: {above.item}, {step.item}"
        yield f"item by item: {step.items} over {above.items}"


def test_programs_have_everything_in_them() -> None:
    programs = [drawn(Random(seed), 1 + seed % 60) for seed in range(900)]

    found = Counter(word for program in programs for word in words(program))

    wanted = {*KINDS, *POLICIES, *OF_MAPS, *OF_NODES, *OF_BODIES, *RULES, "at_least", "over"}
    wanted |= {f"all {policy}" for policy in POLICIES} | {"items keep", "items cancel"}
    wanted |= {f"edge {how}" for how in ("value", "maybe", "order")}
    wanted |= {"arm Body", "arm list", "arm int", "depth 3", "depth 4"}
    rare = {word for word in wanted if found[word] < 5}
    assert not rare
    pairs = {f"awaited: {word}" for word in AWAITED | {"rule", "order"}}
    pairs |= {f"item by item: {x}, {y}" for x in ITEMS for y in ITEMS}
    pairs |= {f"item by item: {items} over all" for items in ("all", "cancel", "keep")}
    assert pairs <= found.keys()
    assert max(len(list(steps_in(program))) for program in programs) >= 50


TROUBLES = {
    "tell_any_again", "lose", "outlive", "give_back", "restart", "keep_house", "pause", "resume",
    "let_time_pass", "look", "send", "look_at_limits",
}  # fmt: skip
ENDS = {
    "a race was decided", "a race was lost", "something was sent", "nothing was sent in time",
    "enough items succeeded", "an item was not needed", "a value came from the cache",
}  # fmt: skip


def ends(played: Played) -> Iterator[str]:
    """What came about in a run."""
    nodes = played.nodes()
    for path, end in played.given().items():
        node = nodes[path]
        if node.bits & Bits.RACE:
            yield "a race was decided"
        elif not node.signal:
            yield "enough items succeeded"
        elif end.state == State.FAILED or end.value == "default":
            yield "nothing was sent in time"
        else:
            yield "something was sent"
    pure = [n for n in nodes.values() if n.task == "pure" and n.state == State.SUCCESS]
    if any(n.name not in played.calls for n in pure):
        yield "a value came from the cache"
    for node in nodes.values():
        if node.bits & Bits.OWNED and node.state == State.SKIPPED and node.started_ms:
            yield "an item was not needed" if "[" in node.name[-4:] else "a race was lost"


def test_all_that_may_go_wrong_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("flowq.worker"), "disabled", True)
    new = fresh_stores(tmp_path)
    found: set[str] = set()

    for seed in range(300):
        played = Played(seed, 30, new())
        played.ends()
        found |= {name for name, times in played.player.did.items() if times}
        found.update(ends(played))
        played.close()
        if found >= TROUBLES | ENDS:
            break

    assert TROUBLES | ENDS <= found
