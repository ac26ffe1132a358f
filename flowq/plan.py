# SPDX-License-Identifier: MIT
"""Rows of a lowered graph: what a store is given to start a run.

By the time a graph is a plan, names, rules and policies are numbers. Index 0 is the root, an
expansion whose inner nodes are the graph: a run is its root node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum, IntFlag
from typing import Final, TypeAlias

import msgspec

from flowq.errors import DecodeError
from flowq.message import (
    NO_NODE,
    Cause,
    Else,
    Items,
    Mapping,
    Message,
    Ref,
    Seq,
    Template,
    decode_template,
    encode_template,
    node_id,
)
from flowq.states import Rule

__all__ = [
    "INNER",
    "ROOT",
    "Along",
    "Bits",
    "Kind",
    "Later",
    "NodeRow",
    "Phase",
    "Plan",
    "Ranges",
    "When",
    "decode_rows",
    "encode_rows",
    "indexes",
    "ranges_of",
    "relocate",
    "shifted",
]

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Node indexes as (first, count) pairs, ascending and without overlap; the order matters not."""


def ranges_of(nodes: Iterable[int]) -> Ranges:
    """Pack node indexes into ranges.

    Examples
    --------
    >>> ranges_of([3, 1, 2, 7])
    ((1, 3), (7, 1))
    """
    out: list[tuple[int, int]] = []
    first = end = -1
    for i in sorted(set(nodes)):
        if i != end:
            if end > first:
                out.append((first, end - first))
            first = i
        end = i + 1
    return (*out, (first, end - first)) if end > first else ()


def indexes(ranges: Ranges) -> Iterator[int]:
    """Go through the indexes of ranges, ascending.

    Examples
    --------
    >>> list(indexes(((1, 3), (7, 1))))
    [1, 2, 3, 7]
    """
    for first, count in ranges:
        yield from range(first, first + count)


class Kind(IntEnum):
    """What a node is to a store."""

    TASK = 0  # a worker runs it
    EXPANSION = 1  # its inner nodes run; the root is one
    JOIN = 2  # nothing runs: it succeeds when its rule says so, or some time later


class Bits(IntFlag):
    """Small facts about a node that a store needs."""

    FORGIVEN = 1  # its failure or cancel does not count in the expansion around it
    NAMED = 2  # the value of the expansion around it names it
    STOPPING = 4  # cancelled while running; set by the store, never by a plan
    COUNTS_AS_SUCCESS = 8  # if it is ``failed``, children count a success, and around it nothing
    OWNED = 16  # some race stops it, as one that is not wanted, when it is decided
    RACE = 32  # of a join: its value is that of a parent that succeeded, whatever it owns
    ATOMIC = 128  # of an expansion: what runs again inside it does so with all of it
    STOPS = 64  # if it is ``failed`` and that counts, all else in the body around it is stopped


class Phase(IntEnum):
    """When an inner node has its turn in the expansion around it."""

    BODY = 0
    HANDLERS = 1  # on_success, on_failure: once the outcome is fixed
    FINALLY = 2  # after all of that
    FALLBACK = 3  # last, in the place of an outcome that is ``failed``


class When(IntEnum):
    """For which outcome the nodes of a later phase run."""

    ALWAYS = 0
    SUCCESS = 1
    FAILED = 2


class Later(msgspec.Struct, frozen=True, array_like=True):
    """What runs in an expansion, or after a task, when its outcome is fixed.

    Attributes
    ----------
    phase : Phase
    when : When
    entries, body : Ranges
        Nodes without parents, and all nodes, of this group.
    inner : int
        How many those are.
    value : bytes
        For a fallback: the template of the value that it gives.
    """

    phase: int
    when: int
    entries: Ranges
    body: Ranges
    inner: int
    value: bytes = b""


class Along(msgspec.Struct, frozen=True, array_like=True):
    """That the nodes of one expansion go along with those of another: item by item.

    Attributes
    ----------
    of : int
        Index of the other expansion.
    first : int
        Index of its first item.
    own : int
        Index of the node that goes along with that: a child of it, the next one of the next.
    count : int
        How many do.
    """

    of: int
    first: int
    own: int
    count: int

    def moved(self, place: Callable[[int], int]) -> Along:
        """Give the same with the indexes of its nodes moved."""
        return Along(place(self.of), place(self.first), place(self.own), self.count)


class NodeRow(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One node of a plan; nothing here changes while the run lasts.

    Attributes
    ----------
    name : str
        Unique in the run, at most 200 characters.
    kind : Kind
    owner : int
        Index of the expansion in whose body it stands; `flowq.message.NO_NODE` for the root.
    rule : Rule
        When it runs, counted over `parents`.
    parents, children : Ranges
        Counted edges in and out, each neighbour once; all within the same body, but for nodes of a
        body that goes `along` with others.
    lenient : Ranges
        Counted edges out along which any end counts as a success; not among `children`.
    reads : Ranges
        Nodes whose values it is given, anywhere in the plan; each is a parent of it or of an
        expansion around it.
    message : Message or None
        For `Kind.TASK`; the root may have one, that no worker runs: it keeps what the run was
        called with (`Message.called`).
    entries : Ranges
        For an expansion: inner nodes without parents, which start with it.
    inner : int
        For an expansion: how many nodes stand in its body (not deeper).
    value : bytes
        For an expansion: the encoded template of its value.
    bits : int
        See `Bits`.
    phase : int
        0 body, 1 handlers, 2 finally: the phase of its owner in which it runs.
    body : Ranges
        For an expansion: all nodes that stand in its body, not deeper. They end with it if it ends
        before it began. Those of later phases are among them.
    later : tuple of Later
        What runs after its body, in this order; for a task, after it, where a fallback is all that
        can be.
    tolerate : int
        For an expansion: how many failures inside it do not count.
    need : int
        For an expansion, if not 0: so many successes in its body are enough, and fewer a failure.
    owns : Ranges
        For a race (`Bits.RACE`): nodes of the same body that are not wanted any more when it is
        decided; there may be none. Its rule asks for one parent, and counts parents as what they
        were.
    sleep_ms : int
        For a join: how long after its rule said so it succeeds.
    deadline_ms : int
        For an expansion, if not 0: how long after its start its body may take.
    signal : str
        For a join, if not empty: it waits for what is sent to the run under this name.
    timeout_ms : int
        For such a join, if not 0: how long it waits. Then it ends with the value in `value` (the
        body of the cell of a success), or fails where that is empty.
    blocked : bytes
        If not empty: it never runs; once it might, it is blocked, by the failure that this is (the
        body of the cell of a failure).
    most : int
        For an expansion, if not 0: so many nodes of its body may be under way at a time. They are
        all entries: nodes without parents in this body.
    followers : Ranges
        For an expansion, or a task that may become one: counted edges out along which it counts as
        a success as soon as it is expanded; not among `children`.
    follows : Ranges
        Those parents of which it is a follower. It is given their `value`, not what that becomes.
    along : tuple of Along
        For an expansion, row 0 of a fragment: which of its entries go along with nodes of other
        expansions, those that it follows. Each of these entries has all those nodes for its
        `parents` that it goes along with, and none else.
    """

    name: str
    kind: Kind
    owner: int
    rule: Rule
    parents: Ranges = ()
    children: Ranges = ()
    reads: Ranges = ()
    message: Message | None = None
    entries: Ranges = ()
    inner: int = 0
    value: bytes = b""
    bits: int = 0
    phase: int = 0
    body: Ranges = ()
    lenient: Ranges = ()
    later: tuple[Later, ...] = ()
    tolerate: int = 0
    need: int = 0
    owns: Ranges = ()
    sleep_ms: int = 0
    most: int = 0
    deadline_ms: int = 0
    signal: str = ""
    timeout_ms: int = 0
    blocked: bytes = b""
    followers: Ranges = ()
    follows: Ranges = ()
    along: tuple[Along, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """A graph ready to be submitted.

    Attributes
    ----------
    id : bytes
        16 bytes: the run's id.
    name : str
        What people call the run: a DAG's or a task's name.
    rows : list of NodeRow
        By index; row 0 is the root. Indexes ascend from upstream to downstream.
    result_ttl_ms, failed_ttl_ms : int
        How long the run is kept after its end.
    parent : bytes
        Id of the task or node whose body starts it, if one does.
    """

    id: bytes
    name: str
    rows: list[NodeRow]
    result_ttl_ms: int = 86_400_000
    failed_ttl_ms: int = 30 * 86_400_000
    parent: bytes = b""

    def parent_count(self, index: int) -> int:
        """How many parents the rule of a node counts."""
        return sum(count for _, count in self.rows[index].parents)


ROOT: Final = 0
"""The index of a run's root."""


# --- fragments: plans whose place in a run is not known yet --------------------------------------

INNER: Final = 1 << 31
"""In a fragment, index ``INNER + k`` is its row `k`, and ``INNER`` the node that it is put into.

Smaller indexes are nodes of the run around it, and stay.
"""

_VERSION: Final = b"\x01"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[NodeRow]).decode


def encode_rows(rows: list[NodeRow]) -> bytes:
    """Give the bytes of a fragment: a version byte, then MessagePack."""
    return _VERSION + _encode(rows)


def decode_rows(raw: bytes) -> list[NodeRow]:
    """Read a fragment.

    Raises
    ------
    DecodeError
        The bytes are none, or of a version that this flowq does not know.
    """
    if raw[:1] != _VERSION:
        raise DecodeError("a plan of a version that this flowq does not know")
    try:
        return _decode(memoryview(raw)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise DecodeError(f"bytes that are no plan: {err}") from None


def _behind(prefix: str, key: str) -> str:
    """Give the key of a limit, what is put before names being known."""
    return f"/{prefix}{key[1:]}" if key.startswith("/") else key


def relocate(
    rows: Iterable[NodeRow],
    *,
    at: int,
    base: int,
    run: bytes = b"",
    prefix: str = "",
    start: int = 0,
) -> list[NodeRow]:
    """Put a fragment into its place: into node `at`, its rows from 1 on at `base` and behind.

    Parameters
    ----------
    rows : iterable of NodeRow
    at, base : int
        Indexes of a run, or of the fragment around (with `INNER`).
    run : bytes
        16 bytes, once it is known: messages get their ids.
    prefix : str
        Put before each name.
    start : int
        Number of the first of these rows in their fragment, where they are a part of it.

    Examples
    --------
    >>> row = NodeRow("a", Kind.TASK, INNER, Rule(0, 0, 0, 0, 0), children=((INNER + 2, 1),))
    >>> moved = relocate([row], at=3, base=10)[0]
    >>> moved.owner, moved.children
    (3, ((11, 1),))
    """
    shift = base - 1 - INNER

    def place(index: int) -> int:
        if index < INNER or index == NO_NODE:
            return index
        return at if index == INNER else index + shift

    def moved(ranges: Ranges) -> Ranges:
        if not ranges:
            return ranges
        return tuple([(place(first), count) for first, count in ranges])

    def shifted_value(raw: bytes) -> bytes:
        return encode_template(shifted(decode_template(raw), place)) if raw else raw

    # of a join it is no template, but what a signal's timeout gives
    made: list[NodeRow] = []
    for k, row in enumerate(rows, start):
        message = row.message
        name = prefix + row.name
        if message is not None:
            # an id is filled in once the run is known; until then it is empty
            id = node_id(run, at if k == 0 else base + k - 1) if run else b""
            bindings = tuple([b.on(shifted(b.value, place)) for b in message.bindings])
            captures = tuple([shifted(c, place) for c in message.captures])
            limits = message.limits
            if limits and prefix:  # those of the run have paths for keys
                limits = tuple([(_behind(prefix, key), most) for key, most in limits])
            message = msgspec.structs.replace(
                message, id=id, name=name, bindings=bindings, captures=captures, limits=limits
            )
        made.append(
            NodeRow(
                name,
                row.kind,
                place(row.owner),
                row.rule,
                moved(row.parents),
                moved(row.children),
                moved(row.reads),
                message,
                moved(row.entries),
                row.inner,
                row.value if row.kind == Kind.JOIN else shifted_value(row.value),
                row.bits,
                row.phase,
                moved(row.body),
                moved(row.lenient),
                tuple(
                    [
                        Later(
                            x.phase,
                            x.when,
                            moved(x.entries),
                            moved(x.body),
                            x.inner,
                            shifted_value(x.value),
                        )
                        for x in row.later
                    ]
                ),
                row.tolerate,
                row.need,
                moved(row.owns),
                row.sleep_ms,
                row.most,
                row.deadline_ms,
                row.signal,
                row.timeout_ms,
                row.blocked,
                moved(row.followers),
                moved(row.follows),
                tuple([x.moved(place) for x in row.along]),
            )
        )
    return made


def shifted(template: Template, place: Callable[[int], int]) -> Template:
    """Give a template with the indexes of its nodes moved."""
    if isinstance(template, Ref):
        return Ref(place(template.node), template.path)
    if isinstance(template, Cause):
        return Cause(place(template.node))
    if isinstance(template, Else):
        return Else(shifted(template.of, place), template.instead, template.own)
    if isinstance(template, Items):
        return msgspec.structs.replace(template, first=place(template.first))
    if isinstance(template, Seq):
        return Seq(tuple([shifted(x, place) for x in template.items]), template.tuple_)
    if isinstance(template, Mapping):
        pairs = [(shifted(k, place), shifted(v, place)) for k, v in template.items]
        return Mapping(tuple(pairs))
    return template
