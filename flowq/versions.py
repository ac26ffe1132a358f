# SPDX-License-Identifier: MIT
"""Bodies that ran under another ``version=`` of their task than their message was built with.

The graph of a run is fixed at its start, and so is the version that its messages carry; a body is
what is registered under its name when it is fetched. Where they differ, the cell keeps both. Of
what was skipped or cancelled, became a graph, or keeps no value, nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import msgspec

from flowq.looking import failure_in
from flowq.message import Cell, Value, read_cell
from flowq.naming import BUILT_IN
from flowq.plan import ranges_of
from flowq.states import State
from flowq.storage.base import NodeInfo, Store

__all__ = ["Versions", "as_words", "other_versions", "versions_in"]

Versions: TypeAlias = tuple[str, str]
"""That with which a message was built, and that under which it ran; empty for none."""
AT_ONCE: Final = 50
"""Cells of so many nodes are read at a time: they hold the values."""
_ENDED: Final = (State.SUCCESS, State.FAILED)


def versions_in(cell: Cell) -> Versions | None:
    """Give the versions that a cell keeps; None where they were the same, or are not kept."""
    if cell.state == State.SUCCESS and not cell.flags:
        try:
            return msgspec.msgpack.decode(cell.body, type=Value).versions
        except msgspec.MsgspecError:
            return None
    failure = failure_in(cell)
    return None if failure is None else failure.versions


def other_versions(
    store: Store, run: bytes, infos: Iterable[NodeInfo]
) -> Iterator[tuple[NodeInfo, Versions]]:
    """Go through those of some nodes of a run that ran under another version, in pages."""
    ran = [i for i in infos if i.state in _ENDED and i.task and i.task not in BUILT_IN]
    for at in range(0, len(ran), AT_ONCE):
        page = ran[at : at + AT_ONCE]
        cells = store.cells(run, ranges_of([i.index for i in page]))
        for info in page:
            raw = cells.get(info.index)
            versions = None if raw is None else versions_in(read_cell(raw))
            if versions is not None:
                yield info, versions


def as_words(versions: Versions) -> str:
    """Say it.

    Examples
    --------
    >>> as_words(("1", "2"))
    'ran as version 2 (built with 1)'
    >>> as_words(("", "2")), as_words(("1", ""))
    ('ran as version 2 (built without one)', 'ran without a version (built with 1)')
    """
    built, ran = versions
    how = f"as version {ran}" if ran else "without a version"
    return f"ran {how} (built {f'with {built}' if built else 'without one'})"
