# SPDX-License-Identifier: MIT
"""Ids by which a start that is repeated finds what it had started: of keys, and within bodies."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from flowq.chunks import calls
from flowq.errors import GraphError, PayloadError
from flowq.fragment import BUILT_IN
from flowq.message import Message, derived_id, node_id
from flowq.plan import ROOT, NodeRow, Plan, decode_rows
from flowq.serializer import Serializer, short_repr
from flowq.wiring import Submitter

__all__ = [
    "KEYED",
    "OF_STARTS",
    "Called",
    "arguments_digest",
    "called_with",
    "check_keyable",
    "digest_of",
    "kept_ms",
    "key_id",
    "renamed",
    "value_digest",
]

KEYED: Final[tuple[str, ...]] = ("key", "key_ttl")
OF_STARTS: Final[tuple[str, ...]] = (*KEYED, "detached")
"""Options that speak of a start, so that no part of what is started has them."""
_P: Final = inspect.Parameter
_ATOMS: Final = (int, str, float, bool, bytes, type(None))
_encode = msgspec.msgpack.Encoder().encode


class Called(Protocol):
    """A task or flow, as far as its arguments are compared."""

    @property
    def name(self) -> str:
        """Registered name."""
        ...

    @property
    def parameters(self) -> inspect.Signature:
        """What a caller may pass."""
        ...


def key_id(app: str, kind: str, scope: str, key: str) -> bytes:
    """Give the id of what a key starts.

    Parameters
    ----------
    app : str
    kind : {"task", "run"}
    scope : str
        Name of the task or flow.
    key : str
    """
    return derived_id(
        b"key", *(x.encode("utf-8", "surrogatepass") for x in (app, kind, scope, key))
    )


def kept_ms(options: Mapping[str, Any], ttls: tuple[int, int]) -> tuple[int, int]:
    """Give how long a success and a failure are kept under a key, in milliseconds.

    An id is remembered as long as what ended under it is kept: with ``key_ttl=`` that is so long.

    Raises
    ------
    GraphError
        A time to live that was said beside it is longer.
    """
    if "key" not in options:
        if "key_ttl" in options:
            raise GraphError("key_ttl= says how long a key is remembered; give key= too")
        return ttls
    key_ttl = options.get("key_ttl")
    if key_ttl is None:
        return ttls
    for name in ("result_ttl", "failed_ttl"):
        if options.get(name, 0) > key_ttl:
            raise GraphError(
                f"key_ttl={key_ttl:g} is shorter than {name}={options[name]:g}: a key is "
                f"remembered as long as what it started is kept; leave out {name}=, or make it "
                "shorter"
            )
    return round(key_ttl * 1000), round(key_ttl * 1000)


# --- arguments -----------------------------------------------------------------------------------


def _bound(what: Called, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Give arguments by parameter, however they were passed; defaults too, where they are data."""
    signature = what.parameters
    given = dict(signature.bind(*args, **kwargs).arguments)
    for p in signature.parameters.values():
        if p.kind is _P.VAR_KEYWORD and p.name in given:
            given[p.name] = dict(sorted(given[p.name].items()))
        elif p.name not in given and isinstance(p.default, _ATOMS):
            given[p.name] = p.default
    return given


def arguments_digest(
    what: Called,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    serializer: Serializer,
    chunk: Sequence[int | str] = (),
) -> bytes:
    """Give 16 bytes that stand for the arguments of a call, or of those of a chunk.

    Raises
    ------
    PayloadError
        They cannot be keyed.
    """
    given = [sorted(_bound(what, *one).items()) for one in calls(args, kwargs, chunk)]
    return serializer.digest(given if chunk else given[0], f"arguments of {what.name}")


def called_with(
    what: Called, args: Sequence[Any], kwargs: Mapping[str, Any], serializer: Serializer
) -> bytes:
    """Give what is kept of the arguments of a call under a key: `Message.called`.

    Raises
    ------
    PayloadError
        They cannot be keyed.
    """
    digest = arguments_digest(what, args, kwargs, serializer)
    shown = [short_repr(x, 60) for x in args]
    shown += [f"{k}={short_repr(x, 60)}" for k, x in kwargs.items()]
    return digest + f"({', '.join(shown)})"[:300].encode("utf-8", "replace")


def check_keyable(rows: Iterable[NodeRow], submitter: Submitter) -> None:
    """Refuse nodes whose results are to be cached and whose arguments cannot be keyed.

    Raises
    ------
    PayloadError
        The text names the node.
    """
    serializer = submitter.serializer
    for row in rows:
        m = row.message
        if m is None or m.task in BUILT_IN:
            continue
        if not m.policy.get("cache", _declared(submitter, m.task)):
            continue
        serializer.digest(
            serializer.loads(m.payload), f"arguments of node {row.name!r} (task {m.task})"
        )


def _declared(submitter: Submitter, task: str) -> float:
    return float(submitter.spec(task).options.get("cache") or 0.0)


# --- plans ---------------------------------------------------------------------------------------


def renamed(plan: Plan, id: bytes, called: bytes = b"") -> Plan:
    """Give a plan under another id; its root keeps what it was `called` with."""
    rows = []
    for index, row in enumerate(plan.rows):
        if row.message is not None:
            message = msgspec.structs.replace(row.message, id=node_id(id, index))
            row = msgspec.structs.replace(row, message=message)
        rows.append(row)
    if called:
        message = Message(node_id(id, ROOT), "", b"", called=called)
        rows[ROOT] = msgspec.structs.replace(rows[ROOT], message=message)
    return msgspec.structs.replace(plan, id=id, rows=rows)


def digest_of(rows: Iterable[NodeRow], serializer: Serializer) -> bytes:
    """Give 16 bytes that stand for what a plan does, whatever its id; the same in all processes."""
    found = hashlib.blake2b(digest_size=16)
    for row in rows:
        found.update(_encode((row.name, row.kind, row.rule, row.parents)))
        m = row.message
        if m is not None:
            found.update(_encode((m.task, m.bindings)))
            if m.chunk:
                found.update(_encode(m.chunk))
            if m.payload:
                found.update(value_digest(serializer.loads(m.payload), serializer))
            for plan in m.plans:
                found.update(digest_of(decode_rows(plan), serializer))
    return found.digest()


def value_digest(value: Any, serializer: Serializer) -> bytes:
    """Give 16 bytes that stand for a value; none for what cannot be keyed."""
    try:
        return serializer.digest(value, "arguments")
    except PayloadError:
        return b""
