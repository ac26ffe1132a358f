# SPDX-License-Identifier: MIT
"""A worker by hand: a test says when something is fetched and what it comes to."""

from __future__ import annotations

import traceback
from typing import Any

import msgspec

from flowq import FlowQ
from flowq.errors import Failure, Skip
from flowq.message import Delivery, Value, decode_message, id_text, pack_cell
from flowq.outcome import Done, Failed, Outcome, Skipped
from flowq.states import State
from flowq.values import load_args


class Hand:
    """One session of a worker that does nothing by itself."""

    def __init__(self, app: FlowQ, session: str = "hand") -> None:
        self.app = app
        self.session = session

    def fetch(self, want: int = 1) -> list[Delivery]:
        return self.app.store.step(self.session, want=want, queues=self.app.queues()).deliveries

    def settle(self, *outcomes: Outcome) -> None:
        verdicts = self.app.store.step(self.session, outcomes).verdicts
        assert set(verdicts) <= {"settled"}

    def done(self, delivery: Delivery, value: Any) -> Done:
        body = msgspec.msgpack.encode(Value(self.app.serializer.dumps(value, "it"), repr(value)))
        cell = pack_cell(State.SUCCESS, body, delivery=delivery.delivery, started_ms=1, ended_ms=2)
        return Done(delivery.id, delivery.delivery, cell)

    def failed(self, delivery: Delivery, exc: Exception) -> Failed:
        message = decode_message(delivery.body)
        kind = type(exc)
        failure = Failure(
            message.task,
            id_text(delivery.id),
            message.name or None,
            "error",
            f"{kind.__module__}.{kind.__qualname__}",
            repr(exc),
            "".join(traceback.format_exception(exc)),
            1,
            tuple(f"{c.__module__}.{c.__qualname__}" for c in kind.__mro__[1:]),
            message.index,
        )
        cell = pack_cell(State.FAILED, msgspec.msgpack.encode(failure), ended_ms=2)
        return Failed(delivery.id, delivery.delivery, cell)

    def call(self, delivery: Delivery) -> Outcome:
        message = decode_message(delivery.body)
        task = self.app.spec(message.task)
        args, kwargs = load_args(message, delivery, self.app.store, self.app.serializer)
        try:
            return self.done(delivery, task.call_local(*args, **kwargs))
        except Skip as skip:
            cell = pack_cell(State.SKIPPED, skip.reason.encode(), ended_ms=2)
            return Skipped(delivery.id, delivery.delivery, cell)
        except Exception as exc:
            return self.failed(delivery, exc)

    def work(self, most: int = 1_000) -> int:
        """Run what is ready, one after the other, until nothing is; how many that were."""
        count = 0
        while count < most and (got := self.fetch(1)):
            self.settle(self.call(got[0]))
            count += 1
        return count
