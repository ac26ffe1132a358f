# SPDX-License-Identifier: MIT
"""Successes that stand for equal calls of a task, whose bodies do not run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from flowq.errors import StoreError
from flowq.message import Delivery, Message, Value, derived_id, id_text, pack_cell, read_cell
from flowq.once import arguments_digest
from flowq.outcome import Done, Outcome
from flowq.serializer import Serializer
from flowq.states import State
from flowq.storage.base import Store

if TYPE_CHECKING:
    from flowq.task import Task

__all__ = ["Slot", "slot_for"]

log = logging.getLogger("flowq.worker")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Value).decode


class Slot:
    """The place of one call in the cache.

    Parameters
    ----------
    store : Store
    key : bytes
        16 bytes: says task, version and arguments.
    seconds : float
        How long a success is kept.
    """

    __slots__ = ("_key", "_ms", "_store")

    def __init__(self, store: Store, key: bytes, seconds: float) -> None:
        self._store = store
        self._key = key
        self._ms = round(seconds * 1000)

    def hit(
        self, delivery: Delivery, message: Message, started_ms: int, now_ms: Callable[[], int]
    ) -> Done | None:
        """Give the outcome that is kept, or None: what runs again, by a rerun or retry, reads none.

        A store that is away is a miss: then the body runs.
        """
        try:
            raw = self._store.recall((self._key,))[0]
            if raw is None or _runs_again(self._store, delivery.id):
                return None
            value = _decode(raw)
        except (StoreError, msgspec.MsgspecError) as err:
            log.warning("%s: the cache cannot be read: %s", message.task, err)
            return None
        log.info("%s%s: from the cache, as %s gave it", message.task, _node(message), value.source)
        body = _encode(msgspec.structs.replace(value, called=message.called))
        cell = pack_cell(
            State.SUCCESS,
            body,
            delivery=delivery.delivery,
            started_ms=started_ms,
            ended_ms=now_ms(),
        )
        return Done(delivery.id, delivery.delivery, cell)

    def keep(self, outcome: Outcome, task: str) -> None:
        """Keep the value of a success; what else an attempt comes to is not kept."""
        if not isinstance(outcome, Done):
            return
        value = _decode(read_cell(outcome.cell).body)
        kept = _encode(Value(value.payload, value.repr, id_text(outcome.id)))
        try:
            self._store.remember(((self._key, kept),), ttl_ms=self._ms)
        except StoreError as err:
            log.warning("%s: its result is not cached: %s", task, err)


def slot_for(
    task: Task[..., Any],
    seconds: float,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    store: Store,
    serializer: Serializer,
    chunk: Sequence[int | str] = (),
) -> Slot:
    """Give the place of a call, or of a chunk of calls, in the cache.

    Raises
    ------
    PayloadError
        Its arguments cannot be keyed.
    """
    digest = arguments_digest(task, args, kwargs, serializer, chunk)
    key = derived_id(b"cache", task.name.encode(), task.version.encode(), digest)
    return Slot(store, key, seconds)


def _runs_again(store: Store, id: bytes) -> bool:
    """Whether a node belongs to a run of which something runs again."""
    if len(id) == 16:
        return False
    root = store.nodes(id[:16], limit=1)
    return bool(root) and root[0].generation > 0


def _node(message: Message) -> str:
    return f" ({message.name})" if message.name else ""
