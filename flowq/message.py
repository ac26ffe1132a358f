# SPDX-License-Identifier: MIT
"""The envelope: what travels between a producer, a store and a worker.

A `Message` never needs unpickling, so consumers, the command line and stores read it without
running anyone's code. Fields are only ever appended, each with a default; the first byte of the
encoded form is its version.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import msgspec

from flowq.errors import DecodeError

__all__ = [
    "CULPRIT",
    "EMPTY",
    "HEAD",
    "MAX_PAYLOAD",
    "NO_NODE",
    "TEMPLATE",
    "Binding",
    "Cap",
    "Cause",
    "Cell",
    "Const",
    "Data",
    "Delivery",
    "Elem",
    "Else",
    "Items",
    "Lit",
    "Mapping",
    "Message",
    "Ref",
    "Seq",
    "Template",
    "Value",
    "decode_message",
    "decode_template",
    "derived_id",
    "encode_message",
    "encode_template",
    "id_bytes",
    "id_text",
    "made_ms",
    "new_id",
    "node_id",
    "nodes_of",
    "pack_cell",
    "read_cell",
    "split_node",
    "stood_in",
]

MAX_PAYLOAD: Final = 16 * 1024 * 1024
"""Limit for the arguments of a call and for a result, in bytes."""

NO_NODE: Final = 0xFFFFFFFF
"""The node index that stands for "none"."""

# --- ids -----------------------------------------------------------------------------------------


def new_id() -> bytes:
    """Make the 16 bytes of a new id: a UUID of version 7, so ids sort by creation.

    Notes
    -----
    RFC 9562, section 5.7: 48 bits of milliseconds, then version, variant and 74 random bits.
    """
    raw = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = (raw[6] & 0x0F) | 0x70
    raw[8] = (raw[8] & 0x3F) | 0x80
    return bytes(raw)


def derived_id(*parts: bytes) -> bytes:
    """Make the 16 bytes of an id that says nothing but what it was made of: a UUID of version 8.

    The same parts give the same id, in any process.

    Notes
    -----
    RFC 9562, section 5.8.
    """
    framed = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    raw = bytearray(hashlib.blake2b(framed, digest_size=16).digest())
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return bytes(raw)


def made_ms(id: bytes) -> int:
    """Give the milliseconds since 1970 at which an id was made; 0 where it does not tell."""
    return int.from_bytes(id[:6], "big") if id[6] >> 4 == 7 else 0


def node_id(run: bytes, index: int) -> bytes:
    """Give the 20 bytes that name node `index` of a run."""
    return run + index.to_bytes(4, "big")


def split_node(id: bytes) -> tuple[bytes, int]:
    """Take the id of a node apart: its run's 16 bytes, and its index."""
    return id[:16], int.from_bytes(id[16:], "big")


def id_text(id: bytes) -> str:
    r"""Write an id as people see it: a UUID, with ``:index`` behind it for a node.

    Examples
    --------
    >>> id_text(bytes(16) + b"\0\0\0\7")
    '00000000-0000-0000-0000-000000000000:7'
    """
    h = id[:16].hex()
    text = f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"
    return text if len(id) == 16 else f"{text}:{int.from_bytes(id[16:], 'big')}"


def id_bytes(text: str) -> bytes:
    """Read an id as `id_text` writes it.

    Raises
    ------
    ValueError
        The text is no id.
    """
    head, colon, index = text.partition(":")
    try:
        raw = bytes.fromhex(head.replace("-", ""))
        if len(raw) != 16:
            raise ValueError
        return node_id(raw, int(index)) if colon else raw
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not an id; ids look like {id_text(new_id())}") from None


# --- bindings: where values that come over edges go ----------------------------------------------


class Ref(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    """The value of one node, or one item of it (``path`` of keys, applied in turn)."""

    node: int
    path: tuple[int | str, ...] = ()


class Items(msgspec.Struct, frozen=True, array_like=True, tag="i"):
    """A list of the values of `count` nodes from `first` on; skipped ones leave it if `drop`.

    Where each node is a chunk of a map over `total` elements, `chunk` of them in each but the
    last, the lists that they gave are joined. What stands for a chunk without a value does so in
    the place of each of its elements.

    If `only`, all that are no success leave it.
    """

    first: int
    count: int
    drop: bool = False
    chunk: int = 0
    total: int = 0
    only: bool = False


class Lit(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    """An object of the payload's pool, by its place there."""

    index: int


class Const(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """A plain value that MessagePack can carry (keys of dicts, small constants)."""

    value: str | int | float | bool | None


class Seq(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """A list, or a tuple."""

    items: tuple[Template, ...]
    tuple_: bool = False


class Mapping(msgspec.Struct, frozen=True, array_like=True, tag="m"):
    """A dict, as pairs."""

    items: tuple[tuple[Template, Template], ...]


class Data(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """A value that travels within the template: codec byte and serialised value, and its repr."""

    payload: bytes
    repr: str = ""


class Else(msgspec.Struct, frozen=True, array_like=True, tag="o"):
    """What `of` gives, or another value where that is missing.

    With `own` it stands in for the value of a node that failed itself, and what `of` takes an item
    of it takes of this; else for whatever is missing of a node that has ended.
    """

    of: Template
    instead: Const | Data
    own: bool = False


class Cause(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """The failure of a node, with the arguments that its task was called with."""

    node: int


class Elem(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    """In the plan of a map's item: the element that the item is made for.

    Of lists that are zipped, `part` says which one's. With `spread`, an element that is a tuple
    fills as many arguments as it has items (a list too if `forced`); then nothing follows it.
    `path` takes an item of the element.
    """

    part: int | None = None
    spread: bool = False
    forced: bool = False
    path: tuple[int | str, ...] = ()


class Cap(msgspec.Struct, frozen=True, array_like=True, tag="k"):
    """In a plan that a message carries: what its `captures` has at that place, or an item of it."""

    place: int
    path: tuple[int | str, ...] = ()


Template: TypeAlias = Ref | Items | Lit | Const | Data | Seq | Mapping | Elem | Cap | Else | Cause
"""How a value is put together from the values of nodes."""


class Binding(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Which parameter a template fills: a position in ``args``, or a keyword.

    With `spread`, a value that is a tuple fills as many arguments as it has items (a list too if
    `forced`); then no position follows it.
    """

    to: int | str
    value: Template
    spread: bool = False
    forced: bool = False

    def on(self, value: Template) -> Binding:
        """Give the same with another template."""
        return Binding(self.to, value, self.spread, self.forced)


def nodes_of(template: Template) -> Iterator[int]:
    """Go through the nodes that a template names, those below them left out."""
    if isinstance(template, Ref | Cause):
        yield template.node
    elif isinstance(template, Else):
        yield from nodes_of(template.of)
    elif isinstance(template, Items):
        yield from range(template.first, template.first + template.count)
    elif isinstance(template, Seq):
        for item in template.items:
            yield from nodes_of(item)
    elif isinstance(template, Mapping):
        for key, item in template.items:
            yield from nodes_of(key)
            yield from nodes_of(item)


def stood_in(template: Template) -> Iterator[int]:
    """Go through the nodes whose own failure leaves a value all the same, in a template."""
    if isinstance(template, Else):
        if template.own and isinstance(template.of, Ref):
            yield template.of.node
        yield from stood_in(template.of)
    elif isinstance(template, Seq):
        for item in template.items:
            yield from stood_in(item)
    elif isinstance(template, Mapping):
        for _, item in template.items:
            yield from stood_in(item)


# --- the envelope --------------------------------------------------------------------------------


class Message(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One queued execution: a task with bound arguments, and what its store must know.

    Attributes
    ----------
    id : bytes
        16 bytes for a task called alone, 20 for a node of a run (see `node_id`).
    task : str
        Registered name.
    payload : bytes
        The arguments: codec byte, then serialised ``(args, kwargs)`` or, where bindings have
        literals, ``(args, kwargs, pool)``. At most `MAX_PAYLOAD`.
    queue : str
    priority : int
        -1000 to 1000, higher first; final (a store adds nothing to it).
    delay_ms : int
        Wait after it may run (after the enqueue of a task alone), by the store's clock.
    due_ms : int
        Moment before which it does not run; 0 for none.
    expires_in_ms, expires_ms : int
        Not begun so long after it first may run, or at this moment: ``failed``. 0 for never.
    result_ttl_ms, failed_ttl_ms : int
        How long a task alone is remembered after its end; a run has its own.
    max_losses : int
        How often a worker may be lost while running it.
    name : str
        Name of its node in the run; empty for a task alone.
    bindings : tuple of Binding
    policy : dict
        Retry options and ``cache`` that differ from the task's own; and ``version``, the task's
        when the message was built, if it has one.
    index : int or None
        Place of its element in its map; of a chunk, that of its first element.
    prefetch : int
        1: never handed out together with others; 0: as the worker likes.
    trace : str
        W3C traceparent, carried along.
    plans : tuple of bytes
        For a node that becomes one of these plans: encoded fragments (see
        `flowq.plan.encode_rows`), such as that of a map's item or of a branch's arms.
    captures : tuple of Template
        What `plans` take from outside them; not read when the node runs.
    called : bytes
        Of what was started under an idempotency key, a run's root too: a digest of the arguments
        (16 bytes), and a short text of them.
    chunk : tuple of int or str
        Places among the arguments that hold one value for each of several elements, for each of
        which the task is called; see `flowq.chunks`.
    parent : bytes
        Of a task called alone: id of the task or node whose body has called it, if one has.
    limits : tuple of (str, int)
        Of a node: keys, each with how many of its nodes may be queued or running at a time, from 1
        upwards. A key that begins with "/" is one of the run, any other of the whole store. Of a
        task alone they bind nothing, but what it becomes inherits them (who lowers it sees to it).
    """

    id: bytes
    task: str
    payload: bytes
    queue: str = "default"
    priority: int = 0
    delay_ms: int = 0
    due_ms: int = 0
    expires_in_ms: int = 0
    expires_ms: int = 0
    result_ttl_ms: int = 86_400_000
    failed_ttl_ms: int = 30 * 86_400_000
    max_losses: int = 3
    name: str = ""
    bindings: tuple[Binding, ...] = ()
    policy: dict[str, Any] = {}
    index: int | None = None
    prefetch: int = 0
    trace: str = ""
    plans: tuple[bytes, ...] = ()
    captures: tuple[Template, ...] = ()
    called: bytes = b""
    chunk: tuple[int | str, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    parent: bytes = b""


class Delivery(msgspec.Struct, frozen=True):
    """A message handed to a session.

    Attributes
    ----------
    id : bytes
    delivery : int
        Number of this hand-out, from 1; it fences the settlement.
    attempt : int
        How many attempts have failed before this one.
    losses : int
        How many workers were lost while running it.
    body : bytes
        The encoded `Message`, possibly undecodable.
    values : dict of int to bytes
        Cells of the nodes that it reads, by index, as far as they fit (1 MiB for a whole step);
        the rest is read with ``Store.cells``.
    complete : bool
        Whether every cell that exists is among `values`.
    """

    id: bytes
    delivery: int
    attempt: int
    losses: int
    body: bytes
    values: dict[int, bytes] = {}
    complete: bool = True


VERSION: Final = b"\x01"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode
_decode_template = msgspec.msgpack.Decoder(Template).decode


def encode_message(message: Message) -> bytes:
    """Give the bytes of a message: a version byte, then MessagePack."""
    return VERSION + _encode(message)


def decode_message(body: bytes) -> Message:
    """Read a message.

    Raises
    ------
    DecodeError
        The bytes are no message, or of a version that this flowq does not know.
    """
    if body[:1] != VERSION:
        raise DecodeError(
            f"a message of version {body[0] if body else 'none'} cannot be read; "
            f"this flowq knows version {VERSION[0]}"
        )
    try:
        return _decode(body[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise DecodeError(f"bytes that are no message: {err}") from None


def encode_template(template: Template) -> bytes:
    """Give the bytes of a template."""
    return _encode(template)


def decode_template(raw: bytes) -> Template:
    """Read a template.

    Raises
    ------
    DecodeError
        The bytes are no template.
    """
    try:
        found: Template = _decode_template(raw)
        return found
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise DecodeError(f"bytes that are no template: {err}") from None


# --- cells: what a node came to ------------------------------------------------------------------

EMPTY: Final = 0x10
"""Flag of a cell's kind: nothing is kept of the value (``result_ttl=0``)."""
CULPRIT: Final = 0x20
"""Flag: the body is the 4-byte index of the node to blame (``blocked``, a failed expansion)."""
TEMPLATE: Final = 0x40
"""Flag: the body is a template, the value of an expansion that succeeded."""


HEAD: Final = struct.Struct(">BIQQ")
"""A cell's head: kind (state number + flags), delivery, started and ended (ms; 0 unknown)."""


class Value(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A result: codec byte and serialised value, and a short ``repr`` for people.

    `source` is the id of what had computed it, if it came from the cache; `called` is that of the
    message, so that it is known when that is no longer kept; `versions` is told in
    `flowq.versions`, and None where the body ran under the version that the message says.
    """

    payload: bytes
    repr: str = ""
    source: str = ""
    called: bytes = b""
    versions: tuple[str, str] | None = None


class Cell(msgspec.Struct, frozen=True):
    """What a node came to, read from a store.

    Attributes
    ----------
    state : int
        A final `State`.
    flags : int
        `EMPTY`, `CULPRIT` or `TEMPLATE`, or 0: then `body` is, for ``success``, an encoded
        `Value`, for ``failed`` an encoded `Failure`, else a reason as UTF-8 text.
    delivery : int
        The delivery that settled it; 0 where no body ran.
    started_ms, ended_ms : int
    body : bytes
    """

    state: int
    flags: int
    delivery: int
    started_ms: int
    ended_ms: int
    body: bytes


def pack_cell(
    state: int,
    body: bytes,
    *,
    flags: int = 0,
    delivery: int = 0,
    started_ms: int = 0,
    ended_ms: int,
) -> bytes:
    """Give the bytes of a cell."""
    return HEAD.pack(state | flags, delivery, started_ms, ended_ms) + body


def read_cell(raw: bytes) -> Cell:
    """Read a cell.

    Raises
    ------
    DecodeError
        The bytes are too short for a cell.
    """
    if len(raw) < HEAD.size:
        raise DecodeError(f"a cell of {len(raw)} bytes is too short")
    kind, delivery, started, ended = HEAD.unpack_from(raw)
    return Cell(kind & 0x0F, kind & 0xF0, delivery, started, ended, raw[HEAD.size :])
