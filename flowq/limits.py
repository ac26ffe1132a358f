# SPDX-License-Identifier: MIT
"""Limits of runs and flows: their keys, which tasks they bind, and what they are called.

What a limit of a run binds is all that stands in one expansion, so its key is a slash and the path
of that: ``/`` of the run itself, ``/load`` of a flow that is called in it. One of a flow binds what
stands in all runs of that flow, so its key is the flow's registered name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from flowq.plan import NodeRow

__all__ = ["Limits", "bind", "inherit", "limit_of", "of_flow", "of_run"]

Limits: TypeAlias = "tuple[tuple[str, int], ...]"
"""Keys, each with how many may be queued or running at a time; the nearest first."""
_FLOW: Final = "flow:"


def of_run(path: str, most: int | None) -> Limits:
    """Give the limit of what stands at a path in its run, as far as that has one."""
    return ((f"/{path}", most),) if most else ()


def of_flow(name: str, most: int | None) -> Limits:
    """Give the limit of a flow over all its runs, as far as it has one."""
    return ((f"{_FLOW}{name}", most),) if most else ()


def bind(rows: list[NodeRow], first: int, own: Mapping[int, Limits]) -> None:
    """Put limits on all tasks of a plan that stand in what they bind, in place.

    Parameters
    ----------
    rows : list of NodeRow
        Each behind what it stands in.
    first : int
        The index of the first.
    own : mapping of int to Limits
        By index, the limits of expansions.
    """
    around: dict[int, Limits] = {}
    for at, row in enumerate(rows, first):
        limits = _joined(own.get(at, ()), around.get(row.owner, ()))
        if limits:
            around[at] = limits
            rows[at - first] = _bound(row, limits)


def inherit(rows: list[NodeRow], limits: Limits) -> list[NodeRow]:
    """Give the rows that a node becomes under the limits that the node is under."""
    return [_bound(row, limits) for row in rows] if limits else rows


def limit_of(key: str) -> str:
    """Say of what a limit is.

    Examples
    --------
    >>> limit_of("/"), limit_of("/load"), limit_of("flow:shop.nightly")
    ('the run', 'load', 'flow shop.nightly over all its runs')
    """
    if key.startswith(_FLOW):
        return f"flow {key.removeprefix(_FLOW)} over all its runs"
    return key[1:] or "the run"


def _bound(row: NodeRow, limits: Limits) -> NodeRow:
    message = row.message
    if message is None:
        return row
    both = _joined(message.limits, limits)
    return msgspec.structs.replace(row, message=msgspec.structs.replace(message, limits=both))


def _joined(inner: Limits, outer: Limits) -> Limits:
    """Give limits, and those around them; one key is one limit, and says what the nearest does."""
    if not (inner and outer):
        return inner or outer
    found = dict(inner)
    for key, most in outer:
        found.setdefault(key, most)
    return tuple(found.items())
