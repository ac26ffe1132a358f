# SPDX-License-Identifier: MIT
"""New generations of runs, and runs that take over from others: scripts called page by page."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from flowq.errors import StoreUnavailable
from flowq.message import Message, id_text, node_id
from flowq.plan import ROOT, Ranges, indexes, ranges_of
from flowq.storage.redis import rows
from flowq.storage.redis.heads import with_message
from flowq.storage.redis.reading import Reading

__all__ = ["Again", "lost"]


class Again(Reading):
    """What a `RedisStore` does to runs that were there before."""

    def _drive(self, left: int) -> None:
        """Move the pages on that a call of ours left; any worker's step would."""
        while left > 0:
            left = self._run("page")

    def fork(
        self,
        run: bytes,
        new: bytes,
        *,
        seen: int,
        chosen: Ranges,
        reopened: Ranges = (),
        dropped: Ranges = (),
        messages: Mapping[int, Message] = MappingProxyType({}),
    ) -> bool | None:
        """Start a run that takes over what it does not run itself; see `Store.fork`."""
        names = {m.queue.encode() + b"\0" for m in messages.values()}
        others = []
        for index, message in messages.items():
            raw = self._row(run, index)
            if raw is None:
                continue  # the run is not known, or has changed: the script says so
            message = msgspec.structs.replace(message, id=node_id(new, index))
            row = with_message(raw, message)
            others += [index.to_bytes(4, "big"), bytes([rows.flags_of(row)]), rows.node_row(row)]
        rest = [*_packed(chosen, reopened, dropped), b"".join(sorted(names)), *others]
        first: Any = 0
        while True:
            answer = self._run("fork", run, new, b"%d" % seen, b"%d" % first, *rest)
            if isinstance(answer, int):
                first = answer
            elif answer != b"busy":
                break
            else:
                self._drive(1)
        if answer == b"lost":
            raise lost(new)
        if answer == b"done":
            self._go_on(new)
            self._drive(1)
        return {b"missing": None, b"no": False}.get(answer, True)

    def _row(self, run: bytes, index: int) -> bytes | None:
        """Give the row of a task as it is before it becomes anything."""
        i4 = index.to_bytes(4, "big")
        found: list[bytes | None] = self._wire.ask(b"HMGET", self._key + b"n:" + run, i4, b"o" + i4)
        row, was = found
        return row if was is None else was[2:]  # behind its flags and lane

    def rewind(
        self,
        run: bytes,
        generation: int,
        *,
        chosen: Ranges,
        reopened: Ranges = (),
        dropped: Ranges = (),
        seen: int = -1,
    ) -> bool | None:
        """Let nodes of a run run again; see `Store.rewind`."""
        sets = _packed(chosen, reopened, dropped)
        while True:
            answer = self._run("rewind", run, b"%d" % generation, *sets, b"%d" % seen)
            if answer != b"busy":
                break
            self._go_on(run)
            self._drive(1)
        if answer == b"missing":
            return None
        if answer == b"no":
            return False
        if answer == b"more":
            self._go_on(run)
        self._drive(1)
        return True

    def park(
        self, run: bytes, request: bytes, *, seen: int, nodes: Ranges, stop: Ranges = ()
    ) -> bool | None:
        """Let nobody see how nodes end that are to run anew; see `Store.park`."""
        sets = rows.pack_ranges(nodes), rows.pack_ranges(stop)
        while (answer := self._run("park", run, request, b"%d" % seen, *sets)) == b"busy":
            self._go_on(run)
            self._drive(1)
        self._drive(1)
        return None if answer == b"missing" else bool(answer != b"no")

    def _go_on(self, run: bytes) -> None:
        """Make a new generation of a run to the end."""
        while self._run("rewind", run, b"-1") == b"more":
            pass


def _packed(chosen: Ranges, reopened: Ranges, dropped: Ranges) -> list[bytes]:
    """Pack the sets of a new generation, as ``lua/_rewind.lua`` takes them."""
    around = ranges_of([ROOT, *indexes(reopened)])
    weighed = ranges_of([*indexes(chosen), *indexes(reopened)])
    return [rows.pack_ranges(x) for x in (chosen, around, dropped, weighed)]


def lost(run: bytes) -> StoreUnavailable:
    """Say that another process brings a run."""
    return StoreUnavailable(
        f"run {id_text(run)} is being submitted by another process too; submit it again"
    )
