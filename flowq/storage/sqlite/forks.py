# SPDX-License-Identifier: MIT
"""Runs that take over from others what they do not run themselves.

All rows of a run that has ended are copied, a page at a time, to where they have the same indexes;
nobody sees any of it before the last page is stored and the copy's new generation begins. Each page
looks whether the run is still what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

import msgspec

from flowq.errors import DecodeError, StoreUnavailable
from flowq.message import Message, decode_message, encode_message, id_text, node_id
from flowq.plan import Ranges
from flowq.states import State
from flowq.storage.sqlite import outside, rewind
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.growth import spans
from flowq.storage.sqlite.intake import open_run, task_flags
from flowq.storage.sqlite.rows import (
    LIMITED,
    PREFETCH,
    TIMED,
    move_ranges,
    pack_limits,
)
from flowq.storage.sqlite.statements import SQL

__all__ = ["fork"]

_ROWS: Final = 1_000
"""Nodes that one transaction copies at most."""
_RANGES: Final = slice(3, 11)
_OWNS: Final = 14
_BODY: Final = 19
"""Where ranges and the message stand in a row of the statement ``rows_to_copy``."""

Changes = Callable[[], AbstractContextManager[Change]]
Sets = tuple[Ranges, Ranges, Ranges]
Place = tuple[int, int]
"""Number of a run, and row id of its root."""


def fork(
    changes: Changes,
    run: bytes,
    new: bytes,
    seen: int,
    sets: Sets,
    messages: Mapping[int, Message],
) -> bool | None:
    """Start a run that takes over from one that has ended; see `Store.fork`."""
    copy: Place | None = None
    pages: list[tuple[int, int]] | None = None
    begun = False
    while True:
        with changes() as change:
            there = change.db.execute(SQL["root_now"], (new, change.now)).fetchone()
            if there is not None:  # it is made; what is left of its new generation is done here
                if not outside.move_on(change, [there[0]]):
                    return True
                continue
            source = change.db.execute(SQL["root_now"], (run, change.now)).fetchone()
            if source is not None and copy is None and outside.move_on(change, [source[0]]):
                continue
            if source is None or source[2] < State.SUCCESS or source[4] != seen:
                if copy is not None:
                    change.db.execute(SQL["abandon"], copy[:1])
                return None if source is None and copy is None else False
            old: Place = source[:2]
            if copy is None or pages is None:
                copy, pages = _open(change, old, new)
            elif change.db.execute(SQL["uploading"], (copy[0], new)).fetchone() is None:
                raise StoreUnavailable(
                    f"run {id_text(new)} is being made by another process too; make it again"
                )
            if pages:
                _copy(change, old, copy, new, pages.pop(), messages)
            if not pages and not begun:
                begun = True
                _go(change, copy, source[3] + 1, sets)


def _open(change: Change, old: Place, new: bytes) -> tuple[Place, list[tuple[int, int]]]:
    """Make a place for the copy, which nobody sees yet; gives what is to be copied, in pages."""
    number, base = old
    name, nodes, *keep = change.db.execute(SQL["kept_as"], (number,)).fetchone()
    stretches = spans(change.db, number, base, nodes)
    size = max(last for _, last in stretches) - base + 1
    copied = change.db.execute(SQL["take_ids"], (size,)).fetchall()[0][0] - size
    made = open_run(change, new, name, copied, nodes, *keep)
    # who drops a copy that is given up looks there for its rows
    change.db.execute(SQL["copy_growth"], (copied - base, made, number))
    return (made, copied), [*_pages(stretches)][::-1]


def _pages(stretches: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for first, last in stretches:
        for start in range(first, last + 1, _ROWS):
            yield start, min(start + _ROWS - 1, last)


def _copy(
    change: Change,
    old: Place,
    copy: Place,
    new: bytes,
    span: tuple[int, int],
    messages: Mapping[int, Message],
) -> None:
    """Copy a page of nodes."""
    db = change.db
    shift = copy[1] - old[1]
    db.execute(SQL["copy_nodes"], (shift, copy[0], *span, old[0]))
    db.execute(SQL["copy_expansions"], (shift, *span))
    db.execute(SQL["copy_along"], (shift, *span))
    rows = db.execute(SQL["rows_to_copy"], span).fetchall()
    db.executemany(SQL["add_row"], [_moved(row, shift, new, copy[1]) for row in rows])
    for index, message in messages.items():
        if span[0] <= old[1] + index <= span[1]:
            _replace(change, copy[1] + index, node_id(new, index), message)


def _moved(row: tuple[Any, ...], shift: int, new: bytes, base: int) -> list[Any]:
    """Give the row of a plan as it is in the copy."""
    values = list(row)
    values[0] += shift
    values[_RANGES] = [move_ranges(raw, shift) for raw in row[_RANGES]]
    values[_OWNS] = move_ranges(row[_OWNS], shift)
    if row[_BODY] is not None:
        try:
            message = decode_message(row[_BODY])
        except DecodeError:  # no flowq that is left here can run it; it is told so there
            return values
        id = node_id(new, values[0] - base)
        values[_BODY] = encode_message(msgspec.structs.replace(message, id=id))
    return values


def _replace(change: Change, row: int, id: bytes, message: Message) -> None:
    """Let a node have another message."""
    db = change.db
    flags = db.execute(SQL["expansion_row"], (row,)).fetchone()[3] & ~(TIMED | PREFETCH | LIMITED)
    flags |= task_flags(message) | (LIMITED if message.limits else 0)
    queue = db.known.queue(db, message.queue)
    db.execute(SQL["run_another"], (flags, queue, message.priority, row))
    body = encode_message(msgspec.structs.replace(message, id=id))
    db.execute(SQL["say_another"], (message.task, pack_limits(message.limits), body, row))


def _go(change: Change, copy: Place, generation: int, sets: Sets) -> None:
    """Let the copy be seen, and its new generation begin."""
    change.db.execute(SQL["go_live"], copy[:1])
    rewind.begin(change, *copy, generation, sets)
    change.walk()
