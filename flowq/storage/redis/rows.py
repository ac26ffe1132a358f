# SPDX-License-Identifier: MIT
"""Rows and records as scripts read them: heads of fixed width, since Lua cannot unpack msgpack.

``lua/_rows.lua`` and ``lua/_runs.lua`` tell the same from the other side.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from flowq.message import NO_NODE, Delivery, Message, encode_message
from flowq.plan import Along, Bits, Kind, NodeRow, Plan, Ranges
from flowq.storage.base import SUBMIT_PAGE, SessionInfo

__all__ = [
    "ALONG", "DELAYED", "EXPANSION", "EXPIRES", "GROUP", "MORE", "MORE_HEAD", "NODE", "PASSED",
    "RANGE", "RECORD", "RULE", "RULED", "Lanes", "flags_of", "grown_records", "growth", "guarded",
    "node_row", "pack_ranges", "pages", "plan_pages", "read_deliveries", "read_ranges", "record",
    "run_head", "session_row", "single_row", "timed",
]  # fmt: skip

EXPIRES, ALONE, DELAYED, TTLS, RULED, MORE, DEADLINE, BORN_BLOCKED = (
    1, 2, 4, 8, 16, 32, 64, 128,
)  # fmt: skip
ODD, EXPANSION, JOIN, TIMED, RICH, PHASED, GUARDED = 1, 2, 4, 8, 32, 64, 128

_SINGLE: Final = struct.Struct(">IBBhB")
NODE: Final = struct.Struct(">IBBBBBhIIIIIIIBB")
RULE: Final = struct.Struct(">5I")
MORE_HEAD: Final = struct.Struct(">IIHII6sIHIIIHI")
ALONG: Final = struct.Struct(">IIII")
_BOUNDS: Final = struct.Struct(">III6sH")
GROUP: Final = struct.Struct(">BBIIII")
_GROUPS: Final = 31  # what a record can count; a task that expands may have two times that
PASSED: Final = 1024
"""In the mode of a record, behind this stands how many later groups are past, or run."""
RANGE: Final = struct.Struct(">II")
RECORD: Final = struct.Struct(">BBBBII6sIIIH")
"""State, generation, flags, lane, parents, A, since, B, C, D, mode of one node."""
_DAY: Final = 86_400_000
_NO_RULE: Final = (0, 0, 0, 0, 0)
_PLAIN_RECORDS: Final = [RECORD.pack(0, 0, 0, k, 0, 0, bytes(6), 0, 0, 0, 0) for k in range(256)]
"""By lane, that of a node that has no edges and waits for nothing."""
_STOPS: Final = Bits.STOPS.value  # `&` with a flag makes a flag, which takes as long as a row
_RACE: Final = Bits.RACE.value
_PAGE_BYTES: Final = 8 * 1024 * 1024
_SMALL_PAGE: Final = SUBMIT_PAGE // 4
"""Rows of a plan of several pages: the server takes one in while the next is packed."""


def ms(value: int) -> bytes:
    """Six bytes of milliseconds."""
    return value.to_bytes(6, "big")


def timed(m: Message) -> bytes:
    """Delay, due, expires in, expires; empty if there is none of them."""
    if m.delay_ms or m.due_ms or m.expires_in_ms or m.expires_ms:
        return ms(m.delay_ms) + ms(m.due_ms) + ms(m.expires_in_ms) + ms(m.expires_ms)
    return b""


def _special(m: Message) -> int:
    return (
        (EXPIRES if m.expires_in_ms or m.expires_ms else 0)
        | (ALONE if m.prefetch == 1 else 0)
        | (DELAYED if m.delay_ms or m.due_ms else 0)
    )


def single_row(m: Message) -> bytes:
    """Pack a task called alone."""
    special = _special(m)
    queue = m.queue.encode()
    extra = b""
    if m.result_ttl_ms != _DAY or m.failed_ttl_ms != 30 * _DAY:
        special |= TTLS
        extra = ms(m.result_ttl_ms) + ms(m.failed_ttl_ms)
    off = 9 + len(queue) + len(extra)
    head = _SINGLE.pack(off, special, m.max_losses, m.priority, len(queue))
    return b"%b%b%b%b" % (head, queue, extra, encode_message(m))


def pack_ranges(ranges: Ranges) -> bytes:
    """Pack ranges of indexes, 8 bytes each."""
    return b"".join(RANGE.pack(*r) for r in ranges)


def read_ranges(raw: bytes) -> Ranges:
    """Read ranges that lie next to each other."""
    return tuple(RANGE.iter_unpack(raw))


def node_row(row: NodeRow) -> bytes:
    """Pack a node of a plan."""
    m = row.message
    special = _special(m) if m else 0
    queue = m.queue.encode() if m else b""
    name = row.name.encode()
    if m and _alone(row):  # an item of a map: the same, in a fifth of the time
        rest = b"%b%b%b" % (name, queue, timed(m))
        head = NODE.pack(
            NODE.size + len(rest), special, row.kind, row.bits & 0xFF, row.phase,
            m.max_losses, m.priority, row.owner, row.inner, 0, 0, 0, 0, 0, len(name), len(queue),
        )  # fmt: skip
        return b"%b%b%b" % (head, rest, encode_message(m))
    tail = b""
    if _odd(row):
        special |= RULED
        tail = RULE.pack(*row.rule)
    if m:
        tail += timed(m)
    if _rich(row):
        special |= MORE
        tail = _more(row) + tail
    if row.deadline_ms:
        special |= DEADLINE
    if row.blocked:
        special |= BORN_BLOCKED
    parts = [pack_ranges(x) for x in (row.children, row.reads, row.entries, row.parents)]
    body = b"".join([*parts, row.value, name, queue, pack_ranges(row.body), tail])
    head = NODE.pack(
        NODE.size + len(body), special, row.kind, row.bits & 0xFF, row.phase,
        m.max_losses if m else 0, m.priority if m else 0, row.owner, row.inner,
        *(len(p) // 8 for p in parts), len(row.value), len(name), len(queue),
    )  # fmt: skip
    return head + body + (encode_message(m) if m else b"")


def _alone(row: NodeRow) -> bool:
    """Whether a node has no edges, no rule of its own, and nothing that few have."""
    return not (
        row.parents or row.children or row.reads or row.entries or row.body or row.value
        or row.later or row.lenient or row.tolerate or row.blocked or row.followers
        or (row.message and row.message.limits)
    ) and row.rule == _NO_RULE  # fmt: skip


def _rich(row: NodeRow) -> bool:
    """Whether a row has what few have, behind the rest."""
    return bool(
        row.later or row.lenient or row.tolerate or row.need or row.most or row.sleep_ms
        or row.deadline_ms or row.signal or row.blocked or row.bits & _RACE
        or row.followers or row.follows or row.along
        or (row.message and (row.body or row.message.limits))
    )  # fmt: skip


def _more(row: NodeRow) -> bytes:
    """Pack what few rows have, and how long it is."""
    signal = row.signal.encode()
    limits = b"".join(_limits(row.message)) if row.message else b""
    time = row.timeout_ms if signal else row.sleep_ms or row.deadline_ms
    head = MORE_HEAD.pack(
        len(row.lenient), row.tolerate, len(row.later), row.need, row.most, ms(time),
        len(row.owns), len(signal), len(row.blocked), len(row.followers), len(row.follows),
        len(row.along), len(limits),
    )  # fmt: skip
    ranges = map(pack_ranges, (row.lenient, row.owns, row.followers, row.follows))
    raw = b"".join(
        [head, *ranges, pack_along(row.along), limits, signal, row.blocked, _groups(row)]
    )
    return raw + len(raw).to_bytes(4, "big")


def _limits(m: Message) -> Iterator[bytes]:
    """Give each limit: how many places it has, and its key."""
    for key, most in m.limits:
        raw = key.encode()
        yield b"%b%b%b" % (most.to_bytes(4, "big"), len(raw).to_bytes(2, "big"), raw)


def pack_along(along: Iterable[Along]) -> bytes:
    """Pack what goes along with what: 16 bytes each."""
    return b"".join(ALONG.pack(x.of, x.first, x.own, x.count) for x in along)


def _groups(row: NodeRow) -> bytes:
    if len(row.later) > _GROUPS:
        raise ValueError(f"node {row.name!r} has {len(row.later)} later groups, over {_GROUPS}")
    parts = []
    for x in row.later:
        sizes = len(x.entries), len(x.body), len(x.value)
        parts.append(GROUP.pack(x.phase, x.when, x.inner, *sizes))
        parts += (pack_ranges(x.entries), pack_ranges(x.body), x.value)
    return b"".join(parts)


def guarded(rows: Iterable[NodeRow]) -> set[int]:
    """Say in which nodes there are some whose failure stops others."""
    return {row.owner for row in rows if row.bits & _STOPS}


def _guards(row: NodeRow) -> bool:
    """Whether what ends in a node may stop others, or let them begin, as the node itself says."""
    return bool(row.need or row.most or row.followers or row.along)


def _parents(row: NodeRow) -> int:
    return sum(n for _, n in row.parents)


def _odd(row: NodeRow) -> bool:
    n = _parents(row)
    return row.rule != (n, 0, n, 0, 0)


class Lanes:
    """The queues and priorities of a run's nodes, numbered; 255 stands for "see the row"."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], int] = {}

    def number(self, m: Message) -> int:
        """Give the number of a message's queue and priority."""
        return min(self._known.setdefault((m.queue, m.priority), len(self._known)), 255)

    def queues(self) -> bytes:
        """Give the names of the queues, each with a zero byte behind it."""
        return b"".join(sorted({q.encode() + b"\0" for q, _ in self._known}))

    def pack(self) -> bytes:
        """Give the table as the scripts read it."""
        out = [struct.pack(">Bh", len(q.encode()), p) + q.encode() for q, p in self._known]
        return b"".join(out[:255])


def flags_of(row: NodeRow, guard: bool = False) -> int:
    """Give the flags of a record."""
    flags = ODD if _odd(row) else 0
    if row.kind == Kind.EXPANSION:
        flags |= EXPANSION
    elif row.kind == Kind.JOIN:
        flags |= JOIN
    elif row.message and timed(row.message):
        flags |= TIMED
    if _rich(row):
        flags |= RICH
    if row.phase:
        flags |= PHASED
    if guard or _guards(row):
        flags |= GUARDED
    return flags


def record(row: NodeRow, lanes: Lanes, guard: bool = False) -> bytes:
    """Pack what changes of a node, as it is before the run starts."""
    m = row.message
    if m and not (guard or row.phase) and _alone(row) and not timed(m):
        return _PLAIN_RECORDS[lanes.number(m)]
    lane = lanes.number(row.message) if row.message else 0
    mode = 1 if row.blocked else 0
    return RECORD.pack(0, 0, flags_of(row, guard), lane, _parents(row), 0, bytes(6), 0, 0, 0, mode)


def pages(encoded: Iterable[bytes], most: int = SUBMIT_PAGE) -> Iterator[tuple[int, list[bytes]]]:
    """Cut rows into what one call carries: the server stands still while it takes it in.

    Gives the number of the first row of each page, and its rows.
    """
    page: list[bytes] = []
    first = size = 0
    for raw in encoded:
        if page and (len(page) == most or size + len(raw) > _PAGE_BYTES):
            yield first, page
            first, page, size = first + len(page), [], 0
        page.append(raw)
        size += len(raw)
    yield first, page


def plan_pages(plan: Plan) -> Iterator[list[bytes]]:
    """Give the arguments of ``submit``, page by page, each packed when it is asked for."""
    lanes, guards = Lanes(), guarded(plan.rows)
    total = len(plan.rows)
    most = SUBMIT_PAGE if total <= SUBMIT_PAGE else _SMALL_PAGE
    for first, page in pages(map(node_row, plan.rows), most):
        of_page = enumerate(plan.rows[first : first + len(page)], first)
        records = b"".join([record(row, lanes, i in guards) for i, row in of_page])
        args = [
            plan.id, b"%d" % first, b"%d" % len(page), b"%d" % total, run_head(plan),
            lanes.pack(), records, lanes.queues(), plan.parent,
        ]  # fmt: skip
        for index, raw in enumerate(page, first):
            args += (index.to_bytes(4, "big"), raw)
        yield args


def growth(rows: Sequence[NodeRow], last: Sequence[bytes], at: int, base: int, done: int) -> bytes:
    """Pack what a fragment in its place brings (``lua/_grow.lua``): of its rows the `last` page.

    The `done` rows before them are stored.
    """
    face, left, guards = rows[0], rows[1 + done :], guarded(rows[1:])
    flags = GUARDED if at in guards or _guards(face) else 0
    parts = [base.to_bytes(4, "big"), bytes([flags]), face.inner.to_bytes(4, "big")]
    for ranges in (face.entries, face.body):
        parts += [len(ranges).to_bytes(4, "big"), pack_ranges(ranges)]
    queues = {row.message.queue.encode() + b"\0" for row in rows[1:] if row.message}
    parts += [len(face.value).to_bytes(4, "big"), face.value]
    limits = (face.tolerate, face.need, face.most, ms(face.deadline_ms))
    parts += [_BOUNDS.pack(*limits, len(face.later))]
    for raw in (_groups(face), pack_along(face.along), b"".join(sorted(queues))):
        parts += [len(raw).to_bytes(4, "big"), raw]
    parts += [(len(rows) - 1).to_bytes(4, "big"), len(left).to_bytes(4, "big")]
    for raw in last:
        parts += [len(raw).to_bytes(4, "big"), raw]
    return b"".join([*parts, grown_records(left, base + done, guards)])


def grown_records(rows: Iterable[NodeRow], first: int, guards: set[int]) -> bytes:
    """Pack what changes of nodes of a fragment: their queues and priorities are in their rows."""
    out = []
    for index, row in enumerate(rows, first):
        raw = record(row, Lanes(), index in guards)
        out.append(raw[:3] + b"\xff" + raw[4:] if row.message else raw)
    return b"".join(out)


def run_head(plan: Plan) -> bytes:
    """Pack what a run keeps of itself, behind the time of its creation."""
    return b"%b%b%b%b" % (
        ms(plan.result_ttl_ms), ms(plan.failed_ttl_ms), len(plan.rows).to_bytes(4, "big"),
        plan.name.encode(),
    )  # fmt: skip


def read_deliveries(
    ids: Sequence[bytes], rows: Sequence[bytes], more: Sequence[Sequence[Any]]
) -> list[Delivery]:
    """Read what a script hands out."""
    out = [
        Delivery(id, 1, 0, 0, row[int.from_bytes(row[:4], "big") :])
        for id, row in zip(ids, rows, strict=True)
    ]
    for place, delivery, attempt, losses, complete, flat in more:
        values = dict(zip(flat[::2], flat[1::2], strict=True))
        old = out[place - 1]
        out[place - 1] = Delivery(
            old.id, delivery, attempt, losses, old.body, values, complete == 1
        )
    return out


_encode_info = msgspec.msgpack.Encoder().encode


def session_row(info: SessionInfo) -> bytes:
    """Pack what a session says of itself.

    Over 64 bytes, which makes its hash a real table, and over the 80 that stand for nothing said.
    """
    host = info.host.encode()[:255]
    pid = (info.pid & NO_NODE).to_bytes(4, "big")
    raw = _encode_info(info)
    raw = pid + len(host).to_bytes(2, "big") + host + len(raw).to_bytes(4, "big") + raw
    return raw.ljust(81, b"\0")
