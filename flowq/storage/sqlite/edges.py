# SPDX-License-Identifier: MIT
"""What counts decide, and which part of a node's edges is next: pure functions."""

from __future__ import annotations

from flowq.states import Counts, Rule, State, verdict
from flowq.storage.sqlite.rows import unpack_rule

__all__ = ["becomes_of", "cut"]


def becomes_of(
    rule: bytes | None, parents: int, ok: int, bad: int, skipped: int, cancelled: int
) -> State | None:
    """Say what a waiting node becomes; `flowq.states.verdict`, with the common cases in front."""
    if rule is None:
        if ok == parents:
            return State.QUEUED
        if not (bad or skipped or cancelled):
            return None
        numbers = Rule(parents, 0, parents, 0, 0)
    else:
        numbers = unpack_rule(rule)
    return verdict(numbers, parents, Counts(ok, bad, skipped, cancelled))


def cut(ranges: list[tuple[int, int]], position: int, limit: int) -> tuple[list[int], bool]:
    """Give at most `limit` ids of ranges from a position on, and whether that was the last."""
    ids: list[int] = []
    for first, count in ranges:
        if position >= count:
            position -= count
            continue
        take = min(count - position, limit - len(ids))
        ids.extend(range(first + position, first + position + take))
        if position + take < count:
            return ids, False
        position = 0
        if len(ids) == limit:
            # Whether more follows decides; an item that is cut at its very end is looked at again.
            return ids, (first, count) == ranges[-1]
    return ids, True
