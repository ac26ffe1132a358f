# SPDX-License-Identifier: MIT
"""What random histories are made of: calls, plans, and which of the known is meant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from flowq.message import NO_NODE, Message, Seq, encode_template
from flowq.plan import Bits, Kind, Later, NodeRow, Phase, When, ranges_of
from flowq.states import RULES, trigger_rule
from flowq.testing.contract.base import fragment
from flowq.testing.contract.policies import HANDLERS, with_groups

__all__ = ["ALONG", "FRAGMENTS", "QUEUES", "SESSIONS", "SIGNALS", "ids", "messages", "plans"]

SESSIONS = ("a", "b", "c")
QUEUES = ("default", "other")
SIGNALS = ("go", "stop")
LIMITS = [(), (), (), (), (("/k", 1),), (("all", 2),), (("/k", 1), ("all", 2))]
"""Of a task alone they bind nothing. Each key has one number of places: of several, who passes whom
is left open."""
ids = st.integers(0, 10_000)
"""Which of the known ids, queues, deliveries: taken modulo how many there are."""


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """What tells one message from another."""
    return {
        "queue": draw(st.sampled_from(QUEUES)),
        "priority": draw(st.sampled_from([0, 0, 0, 5, -5])),
        "delay_ms": draw(st.sampled_from([0, 0, 0, 2_000, 40_000])),
        "expires_in_ms": draw(st.sampled_from([0, 0, 0, 0, 3_000])),
        "result_ttl_ms": draw(st.sampled_from([86_400_000, 0])),
        "max_losses": draw(st.integers(0, 3)),
        "prefetch": draw(st.sampled_from([0, 0, 0, 0, 1])),
        "limits": draw(st.sampled_from(LIMITS)),
    }


@dataclass
class _Drawn:
    """A node before it is a row."""

    kind: Kind
    owner: int
    parents: tuple[int, ...] = ()
    bits: int = 0
    phase: int = 0
    lenient: set[int] = field(default_factory=set)
    follows: set[int] = field(default_factory=set)
    groups: list[tuple[Phase, When, list[int]]] = field(default_factory=list)
    tolerate: int = 0
    need: int = 0
    owns: tuple[int, ...] = ()
    sleep_ms: int = 0
    most: int = 0
    deadline_ms: int = 0
    signal: str = ""
    timeout_ms: int = 0
    default: bytes = b""
    blocked: bytes = b""


@st.composite
def plans(draw: st.DrawFn) -> list[NodeRow]:
    """A plan of up to 15 nodes, and what runs after them.

    Each stands in the root or an expansion before it, below earlier ones. What stops the others is
    a task without parents: of one that ends because of others it is left open which of those that
    depend on the same end are looked at before it.
    """
    nodes = [_Drawn(Kind.EXPANSION, NO_NODE)]
    for _ in range(draw(st.integers(1, 10))):
        owner = draw(st.sampled_from([i for i, x in enumerate(nodes) if x.kind == Kind.EXPANSION]))
        nodes.append(_node(draw, nodes, owner, Phase.BODY))
    if draw(st.booleans()):
        _pair(draw, nodes)
    wanted = draw(st.integers(0, 4))
    places = st.integers(0, len(nodes) - 1)
    for at in sorted(draw(st.sets(places, min_size=min(wanted, len(nodes)), max_size=4))):
        _follow(draw, nodes, at)
    for i, x in enumerate(nodes):
        if (i and x.kind == Kind.EXPANSION) or not i:
            x.tolerate = draw(st.sampled_from([0, 0, 0, 1, 2]))
            x.need, x.most = _need(draw, nodes, i), _most(draw, nodes, i)
            x.deadline_ms = draw(st.sampled_from([0, 0, 0, 3_000, 20_000]))
        elif x.kind == Kind.JOIN:
            x.owns = _owned(draw, nodes, i)
            if not x.owns:
                _wait(draw, x)
    for x in nodes[1:]:
        x.blocked = draw(st.sampled_from([b""] * 15 + [b"why"]))
    for x in nodes[1:]:
        x.follows = _followed(draw, nodes, x)
    for i, x in enumerate(nodes):
        below = [k for k in _below(nodes, i) if not nodes[k].owns and i not in nodes[k].follows]
        x.lenient = {k for k in below if draw(st.integers(0, 7)) == 7}
    return [_row(draw, nodes, i) for i in range(len(nodes))]


def _pair(draw: st.DrawFn, nodes: list[_Drawn]) -> None:
    """A few items, and a task below that may become as many, which go along with them."""
    leader = len(nodes)
    nodes.append(_Drawn(Kind.EXPANSION, 0))
    nodes += [_Drawn(Kind.TASK, leader) for _ in range(draw(st.integers(2, 3)))]
    nodes.append(_Drawn(Kind.TASK, 0, (leader,)))


def _node(
    draw: st.DrawFn, nodes: list[_Drawn], owner: int, phase: Phase, above: list[int] | None = None
) -> _Drawn:
    """One more node, below some of those beside it."""
    if above is None:
        above = [i for i, x in enumerate(nodes) if (x.owner, x.phase) == (owner, phase)]
    parents = draw(st.sets(st.sampled_from(above), max_size=3)) if above else set()
    kind = draw(st.sampled_from([Kind.TASK] * 4 + [Kind.JOIN, Kind.EXPANSION]))
    usual = [0, 0, 0, Bits.NAMED, Bits.FORGIVEN, Bits.COUNTS_AS_SUCCESS]
    bits = draw(st.sampled_from(usual + [Bits.STOPS] * (kind == Kind.TASK and not parents)))
    return _Drawn(kind, owner, tuple(sorted(parents)), int(bits), phase)


def _starts(x: _Drawn) -> bool:
    """Whether a node is a task that starts with what it stands in, and stops nothing."""
    return x.kind == Kind.TASK and not x.parents and not x.bits & Bits.STOPS


def _need(draw: st.DrawFn, nodes: list[_Drawn], at: int) -> int:
    """How many successes an expansion needs: only of tasks, whose ends have an order."""
    body = [x for x in nodes if x.owner == at and x.phase == Phase.BODY]
    if not all(_starts(x) for x in body):
        return 0
    return draw(st.sampled_from([0, 1, 2]))


def _most(draw: st.DrawFn, nodes: list[_Drawn], at: int) -> int:
    """How many of an expansion may be under way: only of entries."""
    if any(x.parents for x in nodes if x.owner == at and x.phase == Phase.BODY):
        return 0
    return draw(st.sampled_from([0, 0, 1, 2]))


def _owned(draw: st.DrawFn, nodes: list[_Drawn], at: int) -> tuple[int, ...]:
    """What a race owns, if a join is one."""
    parents = nodes[at].parents
    if not parents or not all(_starts(nodes[p]) for p in parents):
        return ()
    owned = draw(st.sets(st.sampled_from(parents)))
    for one in owned:
        nodes[one].bits |= Bits.OWNED
    return tuple(sorted(owned))


def _followed(draw: st.DrawFn, nodes: list[_Drawn], x: _Drawn) -> set[int]:
    """Which of those above a node it follows: what has a body, or may become one."""
    if x.kind == Kind.JOIN or x.phase:
        return set()
    leaders = [p for p in x.parents if nodes[p].kind != Kind.JOIN]
    return {p for p in leaders if draw(st.sampled_from([False, True, True]))}


def _wait(draw: st.DrawFn, join: _Drawn) -> None:
    """Let a join sleep, or wait for what is sent."""
    join.sleep_ms = draw(st.sampled_from([0, 0, 2_000]))
    if not join.sleep_ms and draw(st.booleans()):
        join.signal = draw(st.sampled_from(SIGNALS))
        join.timeout_ms = draw(st.sampled_from([0, 2_000, 20_000]))
        join.default = draw(st.sampled_from([b"", b"default"]))


_GROUPS = [
    (Phase.HANDLERS, When.ALWAYS),
    (Phase.HANDLERS, When.SUCCESS),
    (Phase.HANDLERS, When.FAILED),
    (Phase.FINALLY, When.ALWAYS),
    (Phase.FALLBACK, When.FAILED),
]


def _follow(draw: st.DrawFn, nodes: list[_Drawn], at: int) -> None:
    """Let groups follow the body of an expansion, or a task's failure."""
    if nodes[at].kind == Kind.JOIN:
        return
    groups = _GROUPS[-1:]
    if nodes[at].kind == Kind.EXPANSION:
        chosen = draw(st.sets(st.integers(0, len(_GROUPS) - 1), min_size=1, max_size=4))
        groups = [_GROUPS[k] for k in sorted(chosen)]
    body = [i for i, x in enumerate(nodes) if x.owner == at]
    for phase, when in groups:
        first = len(nodes)
        alarm = (phase, when) == _GROUPS[0]
        if alarm and not body:
            continue
        for _ in range(draw(st.integers(1, 2))):
            above = [*range(first, len(nodes))]
            made = _node(draw, nodes, at, phase, above)
            if alarm and not made.parents:
                made.parents = (draw(st.sampled_from(body)),)
            if phase != Phase.FALLBACK:
                made.bits = int(Bits.FORGIVEN)
            elif made.parents or alarm:
                made.bits &= ~Bits.STOPS
            nodes.append(made)
        nodes[at].groups.append((phase, when, [*range(first, len(nodes))]))


def _below(nodes: list[_Drawn], i: int) -> list[int]:
    return [k for k, x in enumerate(nodes) if i in x.parents]


def _row(draw: st.DrawFn, nodes: list[_Drawn], i: int) -> NodeRow:
    x = nodes[i]
    inner = [k for k, y in enumerate(nodes) if y.owner == i]
    own = [k for k in inner if not nodes[k].phase]
    allowed = [*RULES, *(f"at_least({k})" for k in range(1, len(x.parents) + 1))]
    if not x.parents:
        allowed = ["all_success"]
    if x.owns:
        allowed = ["one_success"]
    name = f"n{i}"
    message = Message(b"", "t", b"P", name=name, **draw(messages())) if not x.kind else None
    if message and x.follows:  # who asks first, it or what stands in what it follows, is left open
        message = replace(message, limits=())
    return NodeRow(
        name=name,
        kind=x.kind,
        owner=x.owner,
        rule=trigger_rule(draw(st.sampled_from(allowed)), len(x.parents)),
        parents=ranges_of(x.parents),
        children=ranges_of(
            k for k in _below(nodes, i) if k not in x.lenient and i not in nodes[k].follows
        ),
        lenient=ranges_of(x.lenient),
        reads=ranges_of(x.parents) if message else (),
        message=message,
        entries=ranges_of(k for k in own if not nodes[k].parents),
        inner=len(own),
        body=ranges_of(inner),
        value=b"template" if x.kind == Kind.EXPANSION else x.default,
        bits=int(x.bits | (Bits.RACE if x.owns else 0)),
        phase=x.phase,
        tolerate=x.tolerate,
        need=x.need,
        owns=ranges_of(x.owns),
        sleep_ms=x.sleep_ms,
        most=x.most,
        deadline_ms=x.deadline_ms,
        signal=x.signal,
        timeout_ms=x.timeout_ms,
        blocked=x.blocked,
        later=tuple(
            Later(
                phase,
                when,
                ranges_of(k for k in group if not nodes[k].parents),
                ranges_of(group),
                len(group),
                b"instead" if phase == Phase.FALLBACK else b"",
            )
            for phase, when, group in x.groups
        ),
        followers=ranges_of(k for k in _below(nodes, i) if i in nodes[k].follows),
        follows=ranges_of(x.follows),
    )


def _fragments() -> list[list[NodeRow]]:
    """What nodes become. No value names a node, for stores number them as they like."""
    made = [
        fragment({}),
        fragment({"i": [], "j": ["i"]}),
        fragment({"i": [], "m": [], "k": []}, inside={"k": "m"}),
        with_groups(fragment({"i": []}), HANDLERS),
    ]
    made += [_bound(fragment({"i": [], "j": [], "k": []}), most=1, deadline_ms=3_000)]
    made += [_bound(fragment({"i": [], "j": []}), need=1)]
    nothing = encode_template(Seq(()))
    for rows in made:
        rows[:] = [replace(x, value=nothing if x.value else b"", reads=()) for x in rows]
    return made


def _bound(rows: list[NodeRow], **more: int) -> list[NodeRow]:
    """Say more of what a node becomes."""
    return [replace(rows[0], **more), *rows[1:]]


FRAGMENTS = _fragments()

ALONG = [("all_success", 0), ("all_done", 1), ("one_failed", 2)]
"""Of items that go along with others: the rule of each, and how many may be under way."""
