# SPDX-License-Identifier: MIT
"""How small facts are packed into columns."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from flowq.plan import Bits, NodeRow, Ranges
from flowq.states import Rule

__all__ = [
    "BITS",
    "FAILED_KEEP_MS",
    "FORGIVEN",
    "KEEP_MS",
    "KIND",
    "NAMED",
    "PHASE",
    "PREFETCH",
    "SETTLED",
    "STOPPING",
    "TIMED",
    "node_flags",
    "pack_ranges",
    "pack_rule",
    "unpack_ranges",
    "unpack_rule",
]

# Column `flags` of a message.
KIND: Final = 3  # flowq.plan.Kind
STOPPING: Final = 4  # cancelled while running
SETTLED: Final = 8  # its present delivery was settled by the session that had it
PREFETCH: Final = 16  # never handed out together with others
TIMED: Final = 32  # its message has a delay, an eta or an expiry: look there when it may run
BITS: Final = 6  # how far flowq.plan.Bits are shifted; all but STOPPING, which is 4 above
FORGIVEN: Final = Bits.FORGIVEN << BITS
NAMED: Final = Bits.NAMED << BITS
PHASE: Final = 12  # how far a node's phase is shifted: that of its owner in which it runs, 2 bits

KEEP_MS: Final = 86_400_000
FAILED_KEEP_MS: Final = 30 * KEEP_MS

_PLANNED: Final = sum(bit for bit in Bits if bit != Bits.STOPPING)
_RANGE: Final = struct.Struct(">qI")
_RULE: Final = struct.Struct(">5I")


def node_flags(row: NodeRow) -> int:
    """Pack a node's kind, bits and phase; those of its message come on top."""
    return int(row.kind) | (row.bits & _PLANNED) << BITS | row.phase << PHASE


def pack_ranges(ranges: Ranges, base: int) -> bytes | None:
    """Pack index ranges as ranges of row ids; None for no edge."""
    return b"".join(_RANGE.pack(base + first, n) for first, n in ranges) or None


def unpack_ranges(raw: bytes | None) -> Iterator[tuple[int, int]]:
    """Give (first row id, count) pairs."""
    return _RANGE.iter_unpack(raw or b"")


def pack_rule(rule: Rule, parents: int) -> bytes | None:
    """Pack a rule; None for the common one."""
    return None if rule == (parents, 0, parents, 0, 0) else _RULE.pack(*rule)


def unpack_rule(raw: bytes) -> Rule:
    """Give a rule back."""
    return Rule(*_RULE.unpack(raw))
