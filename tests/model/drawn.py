# SPDX-License-Identifier: MIT
"""What random histories are made of: calls, plans, and which of the known is meant."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from flowq.message import NO_NODE, Message
from flowq.plan import Bits, Kind, NodeRow, ranges_of
from flowq.states import RULES, trigger_rule

__all__ = ["QUEUES", "SESSIONS", "ids", "messages", "plans"]

SESSIONS = ("a", "b", "c")
QUEUES = ("default", "other")
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
    }


@st.composite
def plans(draw: st.DrawFn) -> list[NodeRow]:
    """A plan of up to 10 nodes: each in the root or an expansion before it, below earlier ones."""
    n = draw(st.integers(1, 10))
    kinds = [Kind.EXPANSION]
    owners, bits = [NO_NODE], [0]
    parents: list[tuple[int, ...]] = [()]
    for _ in range(n):
        i = len(kinds)
        owner = draw(st.sampled_from([0, *(k for k in range(i) if kinds[k] == Kind.EXPANSION)]))
        beside = [k for k in range(1, i) if owners[k] == owner]
        above = draw(st.sets(st.sampled_from(beside), max_size=3)) if beside else set()
        kinds.append(draw(st.sampled_from([Kind.TASK] * 4 + [Kind.JOIN, Kind.EXPANSION])))
        owners.append(owner)
        parents.append(tuple(sorted(above)))
        bits.append(draw(st.sampled_from([0, 0, Bits.NAMED, Bits.FORGIVEN])))
    rows = []
    for i, kind in enumerate(kinds):
        inner = [k for k in range(i + 1, n + 1) if owners[k] == i]
        allowed = [*RULES, *(f"at_least({k})" for k in range(1, len(parents[i]) + 1))]
        if not parents[i]:
            allowed = ["all_success"]
        name = f"n{i}"
        message = Message(b"", "t", b"P", name=name, **draw(messages())) if not kind else None
        rows.append(
            NodeRow(
                name=name,
                kind=kind,
                owner=owners[i],
                rule=trigger_rule(draw(st.sampled_from(allowed)), len(parents[i])),
                parents=ranges_of(parents[i]),
                children=ranges_of(k for k in range(i + 1, n + 1) if i in parents[k]),
                reads=ranges_of(parents[i]) if message else (),
                message=message,
                entries=ranges_of(k for k in inner if not parents[k]),
                inner=len(inner),
                body=ranges_of(inner),
                value=b"template" if kind == Kind.EXPANSION else b"",
                bits=int(bits[i]),
            )
        )
    return rows
