# SPDX-License-Identifier: MIT
"""How small facts are packed into columns."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec

from flowq.plan import Bits, Later, NodeRow, Ranges
from flowq.states import Rule, State

__all__ = [
    "ALONGSIDE",
    "ANY_QUEUE",
    "ATOMIC",
    "BEGUN",
    "BITS",
    "BOUNDED",
    "CLOSING",
    "COUNTS_AS_SUCCESS",
    "DOOMED",
    "ENTERING",
    "FAILED_KEEP_MS",
    "FILLING",
    "FOLLOWED",
    "FORGIVEN",
    "FREEING",
    "INDULGENT",
    "INSIDE",
    "ITEM",
    "KEEP_MS",
    "KIND",
    "LATER",
    "LED",
    "LENIENT",
    "LIMITED",
    "LOSING",
    "LOST",
    "NAMED",
    "NEEDED",
    "NOT_WANTED",
    "OVERDUE",
    "OVERTAKEN",
    "OVERTIME",
    "PACED",
    "PARKED",
    "PHASE",
    "PLACES",
    "PREFETCH",
    "RACE",
    "REWOUND",
    "SETTLED",
    "SIGNAL",
    "SLEEPS",
    "SOFT",
    "SOFTER",
    "STOPPED",
    "STOPPING",
    "STOPPING_ALL",
    "STOPS",
    "TIED",
    "TIMED",
    "TOUCHED",
    "TRAILING",
    "TURN",
    "UNCALLED",
    "WITHIN",
    "bodies_of",
    "body_flags",
    "fails",
    "forbidden",
    "move_ranges",
    "node_bits",
    "node_flags",
    "pack_later",
    "pack_limits",
    "pack_ranges",
    "pack_rule",
    "place_of",
    "unpack_later",
    "unpack_limits",
    "unpack_ranges",
    "unpack_rule",
]

# Column `flags` of a message.
KIND: Final = 3  # flowq.plan.Kind
STOPPING: Final = 4  # cancelled while running
SETTLED: Final = 8  # its present delivery was settled by the session that had it
PREFETCH: Final = 16  # never handed out together with others
TIMED: Final = 32  # its message has a delay, an eta or an expiry, or it has a deadline: look there
BITS: Final = 6  # how far flowq.plan.Bits are shifted; all but STOPPING, which is 4 above
FORGIVEN: Final = Bits.FORGIVEN << BITS
NAMED: Final = Bits.NAMED << BITS
COUNTS_AS_SUCCESS: Final = Bits.COUNTS_AS_SUCCESS << BITS
RACE: Final = Bits.RACE << BITS
STOPS: Final = Bits.STOPS << BITS
PHASE: Final = 13  # how far a node's phase is shifted: that of its owner in which it runs, 2 bits
LATER: Final = 3 << PHASE  # whether it is another one than the body
FOLLOWED: Final = 1 << 15  # there are groups in plan.later
LENIENT: Final = 1 << 16  # there are edges in plan.lenient
NEEDED: Final = 1 << 17  # it stands in the body of an expansion that needs some of them
SLEEPS: Final = 1 << 18  # there is plan.sleep_ms
BOUNDED: Final = 1 << 20  # it stands in the body of an expansion with `most`
OVERTIME: Final = 1 << 21  # it ran when a deadline passed; it is to stop, and has failed then
SIGNAL: Final = 1 << 22  # it waits for what is sent: there is plan.signal
DOOMED: Final = 1 << 23  # where it might begin it is blocked: there is plan.blocked
WITHIN: Final = 1 << 24  # it stands, however deep, in one that is NEEDED
ATOMIC: Final = 1 << 25  # Bits.ATOMIC, for which there is no room beside the others
LED: Final = 1 << 26  # there are edges in plan.followers
ITEM: Final = 1 << 27  # it stands in the body of one that is LED: others may go along with it
PACED: Final = (
    1 << 28
)  # it stands in the body of one that is TIED: it goes along, if it has parents
TIED: Final = 1 << 29  # nodes of its body go along with those of other expansions
LIMITED: Final = 1 << 30  # of a task: there is plan.limits
PARKED: Final = 1 << 31  # nobody is to see its end: the table parked
LOST: Final = 1 << 19  # a race that owns it was decided before it ended

ANY_QUEUE: Final = 0
"""Column `queue` of what no worker runs: whoever steps next moves it on."""

# Column `marks` of an expansion.
STOPPED: Final = 1  # cancelled while its body ran
CLOSING: Final = 2  # nothing starts any more of those whose turn it is
OVERDUE: Final = 32  # its deadline passed while its body ran
NOT_WANTED: Final = 2  # how far a phase that a cancel has forbidden is shifted: `forbidden`

# Column `state` of a walk, beside the states in which a node may have ended: what is walked.
BEGUN: Final = State.EXPANDED.value  # its entries start
TOUCHED: Final = 11  # all in its body is looked at, for a cancel had ended some of it before
STOPPING_ALL: Final = 12  # the nodes of a turn are stopped
UNCALLED: Final = 13  # those of a group whose turn it never is end
TURN: Final = 14  # those of a group whose turn it is are looked at
SOFT: Final = 15  # it failed, which counts as a success but for alarms
REWOUND: Final = 33  # a run's nodes wait again: the table rewind
INDULGENT: Final = 32  # it ended somehow: its lenient edges
LOSING: Final = 34  # what a race owns is not wanted any more
FILLING: Final = 36  # the next begin for which there is room; see bounds.py
OVERTAKEN: Final = 37  # the nodes of a body are stopped, since its time is up
FREEING: Final = 38  # what is held of a run is queued: it goes on
ENTERING: Final = 40  # who waits at a limit is let in; its culprit says at which
ALONGSIDE: Final = 39  # it is weighed, since one that it goes along with has ended
TRAILING: Final = 48  # added to how it ended, or to success once it is expanded: its followers
SOFTER: Final = 35  # it failed in a later phase, which counts as a success but for races
INSIDE: Final = 16  # added to how it ended: all in its body that waits ends so

# Which of the four counts of a child an end adds to, by the state.
PLACES: Final[dict[int, int]] = {
    State.SUCCESS: 0,
    State.FAILED: 1,
    State.BLOCKED: 1,
    State.SKIPPED: 2,
    State.CANCELLED: 3,
}

KEEP_MS: Final = 86_400_000
FAILED_KEEP_MS: Final = 30 * KEEP_MS

_PLANNED: Final = sum(bit for bit in Bits if bit not in (Bits.STOPPING, Bits.ATOMIC))
Limits: TypeAlias = tuple[tuple[str, int], ...]
_RANGE: Final = struct.Struct(">qI")
_RULE: Final = struct.Struct(">5I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Later, ...]).decode
_decode_limits = msgspec.msgpack.Decoder(Limits).decode


def body_flags(row: NodeRow) -> int:
    """Say what an expansion makes of the nodes of its body."""
    flags = (NEEDED if row.need else 0) | (BOUNDED if row.most else 0)
    return flags | (ITEM if row.followers else 0) | (PACED if row.along else 0)


def bodies_of(rows: Iterable[NodeRow], first: int = 0, outer: int = 0) -> dict[int, int]:
    """Give what nodes make of those that stand in them, by index, where that is something.

    `first` is the index of the first row, and `outer` what its own flags are.
    """
    found: dict[int, int] = {}
    for index, row in enumerate(rows, first):
        around = outer if index == first else found.get(row.owner, 0)
        own = body_flags(row) | (ITEM if index == first and outer & LED else 0)
        if around & WITHIN or (around & NEEDED and not row.phase):
            own |= WITHIN
        if own:
            found[index] = own
    return found


def node_flags(row: NodeRow, around: int = 0) -> int:
    """Pack a node's kind, bits and phase; those of its message come on top.

    `around`: the `body_flags` of what it stands in.
    """
    flags = int(row.kind) | (row.bits & _PLANNED) << BITS | row.phase << PHASE
    flags |= (FOLLOWED if row.later else 0) | (LENIENT if row.lenient else 0)
    flags |= (SLEEPS if row.sleep_ms else 0) | (TIMED if row.deadline_ms else 0)
    flags |= (SIGNAL if row.signal else 0) | (DOOMED if row.blocked else 0)
    flags |= (ATOMIC if row.bits & Bits.ATOMIC else 0) | (LED if row.followers else 0)
    return flags | (around & WITHIN if row.phase else around)


def fails(flags: int, state: int) -> bool:
    """Whether a node ended as a failure that counts in the expansion around it."""
    if state == State.FAILED:
        return not flags & (FORGIVEN | COUNTS_AS_SUCCESS)
    return state == State.BLOCKED and not flags & FORGIVEN


def place_of(child: int, state: int, flags: int) -> int:
    """Give the count of a child that a parent's end adds to; edges that forgive are not looked at.

    `child` and `flags` are the flags of the two. What comes after a body is told of every failure
    within, and a race of each.
    """
    told = child & RACE or (child & LATER and not flags & LATER)
    if state == State.FAILED and flags & COUNTS_AS_SUCCESS and not told:
        return 0
    return PLACES[state]


def forbidden(phase: int) -> int:
    """Give the mark of an expansion for which a cancel has forbidden a later phase."""
    return 1 << (NOT_WANTED + phase - 1)


def node_bits(flags: int) -> int:
    """Give the `flowq.plan.Bits` that a plan had given a node."""
    return flags >> BITS & _PLANNED | (Bits.ATOMIC if flags & ATOMIC else 0)


def pack_later(later: tuple[Later, ...]) -> bytes | None:
    """Pack what runs after a body; None for nothing. Indexes stay those of the run."""
    return _encode(later) if later else None


def unpack_later(raw: bytes | None) -> tuple[Later, ...]:
    """Give it back."""
    return _decode(raw) if raw else ()


def pack_limits(limits: Limits) -> bytes | None:
    """Pack keys with how many places there are; None for none."""
    return _encode(limits) if limits else None


@lru_cache(maxsize=1_000)
def unpack_limits(raw: bytes | None) -> Limits:
    """Give them back."""
    return _decode_limits(raw) if raw else ()


def pack_ranges(ranges: Ranges, base: int) -> bytes | None:
    """Pack index ranges as ranges of row ids; None for no edge."""
    return b"".join(_RANGE.pack(base + first, n) for first, n in ranges) or None


def unpack_ranges(raw: bytes | None) -> Iterator[tuple[int, int]]:
    """Give (first row id, count) pairs."""
    return _RANGE.iter_unpack(raw or b"")


def move_ranges(raw: bytes | None, shift: int) -> bytes | None:
    """Give packed ranges of ids that lie elsewhere."""
    return raw and b"".join(_RANGE.pack(first + shift, n) for first, n in _RANGE.iter_unpack(raw))


def pack_rule(rule: Rule, parents: int) -> bytes | None:
    """Pack a rule; None for the common one."""
    return None if rule == (parents, 0, parents, 0, 0) else _RULE.pack(*rule)


def unpack_rule(raw: bytes) -> Rule:
    """Give a rule back."""
    return Rule(*_RULE.unpack(raw))
