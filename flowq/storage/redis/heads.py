# SPDX-License-Identifier: MIT
"""What scripts and people have stored, read: rows of nodes, runs, sessions, dead letters."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from flowq.message import NO_NODE, Message
from flowq.plan import Kind, Later, NodeRow, Ranges
from flowq.states import Rule
from flowq.storage.base import DeadLetter, Loss, Sent, SessionInfo
from flowq.storage.redis.rows import (
    ALONG,
    DELAYED,
    EXPIRES,
    GROUP,
    MORE,
    MORE_HEAD,
    NODE,
    RANGE,
    RULE,
    RULED,
)

__all__ = [
    "NodeHead",
    "message_of",
    "read_dead",
    "read_info",
    "read_run",
    "read_sent",
    "with_message",
]

_decode_info = msgspec.msgpack.Decoder(SessionInfo).decode


def read_run(raw: bytes) -> tuple[int, int, str]:
    """Read a run's creation (ms), its number of nodes with the root, and its name."""
    return (
        int.from_bytes(raw[:6], "big"), int.from_bytes(raw[18:22], "big"), raw[22:].decode(),
    )  # fmt: skip


def read_sent(raw: bytes) -> Sent:
    """Read what was sent to a run (``lua/send.lua``)."""
    node = int.from_bytes(raw[6:10], "big")
    texts, at = [], 18
    for size in struct.unpack_from(">HHHH", raw, 10):
        texts.append(raw[at : at + size].decode("utf-8", "replace"))
        at += size
    name, to, key, who = texts
    at_ms = int.from_bytes(raw[:6], "big")
    return Sent(name, to, key, who, at_ms, None if node == NO_NODE else node)


class NodeHead:
    """A node's row without its message, read."""

    __slots__ = ("along", "bits", "blocked", "body", "children", "entries", "followers", "follows",
                 "inner", "kind", "later", "lenient", "most", "name", "need", "owner", "parents",
                 "phase", "reads", "rule", "signal", "value")  # fmt: skip

    def __init__(self, raw: bytes) -> None:
        (off, special, self.kind, self.bits, self.phase, _, _, self.owner, self.inner, *counts,
         n_value, n_name, n_queue) = NODE.unpack_from(raw)  # fmt: skip
        at = NODE.size
        found = []
        for n in counts:
            found.append(tuple(RANGE.iter_unpack(raw[at : at + 8 * n])))
            at += 8 * n
        self.children, self.reads, self.entries, self.parents = found
        self.value = raw[at : at + n_value]
        at += n_value
        self.name = raw[at : at + n_name].decode("utf-8", "replace")
        self.rule = None
        last = off - (24 if special & (EXPIRES | DELAYED) else 0)
        if special & RULED:
            last -= RULE.size
            self.rule = RULE.unpack_from(raw, last)
        at += n_name + n_queue
        self.body: Ranges = ()
        self.lenient: Ranges = ()
        self.followers: Ranges = ()
        self.follows: Ranges = ()
        self.blocked = b""
        self.need = self.most = self.along = 0
        self.signal = ""
        self.later: list[Later] = []
        if special & MORE:
            end, last = last, last - 4 - int.from_bytes(raw[last - 4 : last], "big")
            self._read_more(raw[last:end])
        self.body = tuple(RANGE.iter_unpack(raw[at:last]))

    def _read_more(self, raw: bytes) -> None:
        """Read what few nodes have."""

        def ranges(at: int, n: int) -> Ranges:
            return tuple(RANGE.iter_unpack(raw[at : at + 8 * n]))

        edges, _, count, self.need, self.most, _, *sizes = MORE_HEAD.unpack_from(raw)
        owned, signal, blocked, followers, follows, self.along, limits = sizes
        self.lenient = ranges(MORE_HEAD.size, edges)
        at = MORE_HEAD.size + 8 * (edges + owned)
        self.followers = ranges(at, followers)
        at += 8 * followers
        self.follows = ranges(at, follows)
        at += 8 * follows + ALONG.size * self.along + limits
        self.signal = raw[at : at + signal].decode()
        self.blocked = raw[at + signal : at + signal + blocked]
        at += signal + blocked
        for _ in range(count):
            phase, when, inner, first, nodes, size = GROUP.unpack_from(raw, at)
            at += GROUP.size
            entries, at = ranges(at, first), at + 8 * first
            body, at = ranges(at, nodes), at + 8 * nodes
            self.later.append(Later(phase, when, entries, body, inner, raw[at : at + size]))
            at += size


def with_message(raw: bytes, message: Message) -> NodeRow:
    """Give the row of a task of a plan, read from what is stored, with another message."""
    head = NodeHead(raw)
    n = sum(count for _, count in head.parents)
    return NodeRow(
        head.name,
        Kind.TASK,
        head.owner,
        Rule(n, 0, n, 0, 0) if head.rule is None else Rule(*head.rule),
        head.parents,
        head.children,
        head.reads,
        message,
        bits=head.bits,
        phase=head.phase,
        body=head.body,
        lenient=head.lenient,
        later=tuple(head.later),
        blocked=head.blocked,
        followers=head.followers,
        follows=head.follows,
    )


def message_of(row: bytes) -> bytes:
    """Take the encoded message out of a row."""
    return row[int.from_bytes(row[:4], "big") :]


def read_info(id: str, raw: bytes | None) -> SessionInfo:
    """Read what a session says of itself; only its name where it said nothing."""
    if not raw or not raw.strip(b"\0"):
        return SessionInfo(id=id)
    at = 6 + int.from_bytes(raw[4:6], "big")
    size = int.from_bytes(raw[at : at + 4], "big")
    return _decode_info(raw[at + 4 : at + 4 + size])


def read_losses(raw: bytes) -> Iterator[Loss]:
    """Read the workers that a message lost."""
    at = 0
    while at < len(raw):
        delivery = int.from_bytes(raw[at : at + 4], "big")
        when = int.from_bytes(raw[at + 4 : at + 10], "big")
        s, w, r = struct.unpack_from(">HHH", raw, at + 10)
        at += 16
        session, who, reason = (
            raw[at : at + s],
            raw[at + s : at + s + w],
            raw[at + s + w : at + s + w + r],
        )
        at += s + w + r
        yield Loss(
            session.decode(), who[6:].decode("utf-8", "replace"), int.from_bytes(who[:4], "big"),
            delivery, when, reason.decode("utf-8", "replace"),
        )  # fmt: skip


def read_dead(id: bytes, raw: bytes) -> tuple[int, DeadLetter]:
    """Read a dead letter, and until when it is kept."""
    at_ms, till = int.from_bytes(raw[:6], "big"), int.from_bytes(raw[6:12], "big")
    n_reason, n_losses = struct.unpack_from(">HI", raw, 12)
    at = 18 + n_reason
    reason = raw[18:at].decode("utf-8", "replace")
    losses = list(read_losses(raw[at : at + n_losses]))
    return till, DeadLetter(id, reason, at_ms, raw[at + n_losses :], losses)
