# SPDX-License-Identifier: MIT
"""Cancel something, and what its bodies have started (semantics, section 7).

A store stops what stands in a run. What bodies started beside it, runs and tasks of their own, it
only lists; so that is cancelled here, level by level. It is safe to do again: a cancel that was cut
off goes on where it was by a second one. A body that was stopped starts nothing more, so nothing
comes after it that it would miss.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from flowq.message import split_node
from flowq.outline import all_nodes, within
from flowq.plan import ROOT
from flowq.states import State
from flowq.storage.base import Store

__all__ = ["cancel"]

PAGE: Final = 500


def cancel(store: Store, id: bytes, *, force: bool = False) -> State | None:
    """Cancel a task, a node or a run, and what bodies of it have started.

    Parameters
    ----------
    store : Store
    id : bytes
    force : bool
        Also what is ``finally_``; see `Store.cancel`.

    Returns
    -------
    State or None
        Where it stands; None if it is not known.
    """
    state = store.cancel((id,), force=force)[0]
    if state is None or (state.final and state is not State.CANCELLED):
        return state
    seen: set[bytes] = {id}
    todo = _started(store, id)
    while todo:
        todo = [child for child in todo if child not in seen]
        seen.update(todo)
        for at in range(0, len(todo), PAGE):
            store.cancel(todo[at : at + PAGE], force=force)
        todo = [further for child in todo for further in _started(store, child)]
    return state


def _started(store: Store, id: bytes) -> list[bytes]:
    """What bodies of a task, a node (with all that stands in it) or a run have started."""
    pairs = list(_pairs(store, id[:16]))
    if not pairs or len(id) == 16 or split_node(id)[1] == ROOT:
        return [child for _, child in pairs]
    run, index = split_node(id)
    inside = {index, *(node.index for node in within(all_nodes(store, run), index))}
    return [
        child for parent, child in pairs if len(parent) > 16 and split_node(parent)[1] in inside
    ]


def _pairs(store: Store, home: bytes) -> Iterable[tuple[bytes, bytes]]:
    after = b""
    while True:
        page = store.started(home, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1][1]
