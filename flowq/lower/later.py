# SPDX-License-Identifier: MIT
"""What runs when a body, or a task, has ended: in which phase, and under which name."""

from __future__ import annotations

from collections.abc import Sequence

from flowq.lower.facts import ranges
from flowq.lower.templates import Templates
from flowq.message import encode_template
from flowq.node import Body
from flowq.plan import Later, Phase, When

__all__ = ["after", "following", "later_of"]


def later_of(groups: Sequence[Body], templates: Templates) -> tuple[tuple[Later, ...], list[int]]:
    """Say what runs after a body or a task, and give the indexes of all nodes of it."""
    if not groups:
        return (), []
    turns: dict[tuple[Phase, When], list[Body]] = {}
    for group in sorted(groups, key=lambda g: (g.phase, g.when)):
        turns.setdefault((group.phase, group.when), []).append(group)
    later = []
    for (phase, when), bodies in turns.items():
        nodes = [n for body in bodies for n in body.nodes]
        value = b""
        if phase is Phase.FALLBACK:
            value = encode_template(templates.body(bodies[0])[2])
        entries = ranges([n for n in nodes if not n.parents])
        later.append(Later(phase, when, entries, ranges(nodes), len(nodes), value))
    return tuple(later), [n.index for body in groups for n in body.nodes]


def following(groups: Sequence[Body], prefix: str) -> list[tuple[Body, str]]:
    """Give what follows a task or map, each with what names of its nodes begin with."""
    return [(group, f"{prefix}{group.path}") for group in groups]


def after(groups: Sequence[Body], prefix: str) -> list[tuple[Body, str]]:
    """Give the same for what follows a body, where alarms are named after what they are about."""
    return [
        (group, f"{prefix}{group.about.name + '/' if group.about else ''}{group.path}")
        for group in groups
    ]
