# SPDX-License-Identifier: MIT
"""`decide`: what an attempt came to, for whatever a body may raise."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pytest

from flowq.coordinator import (
    LONGEST_WAIT_MS,
    MAX_TRACEBACK,
    decide,
    done,
    exception_text,
    traceback_text,
    undecodable,
    unknown_task,
)
from flowq.errors import DecodeError, Failure, PayloadError, Retry, Skip, TaskCancelled
from flowq.message import Delivery, Message, Value, new_id, node_id, read_cell
from flowq.outcome import Cancelled, Failed, Outcome, RetryAt, Skipped
from flowq.policy import RetryPolicy
from flowq.serializer import PickleSerializer
from flowq.states import State

RUN = new_id()
MESSAGE = Message(id=node_id(RUN, 7), task="shop.add", payload=b"", name="add", index=3)


def after(error: BaseException, attempt: int = 0, **policy: Any) -> Outcome:
    delivery = Delivery(MESSAGE.id, delivery=5, attempt=attempt, losses=1, body=b"")
    return decide(
        MESSAGE,
        delivery,
        error,
        RetryPolicy(**policy),
        started_ms=100,
        ended_ms=130,
        rand=lambda: 0.5,
    )


def failure(outcome: Outcome) -> Failure:
    assert isinstance(outcome, Failed)
    cell = read_cell(outcome.cell)
    assert cell.state == State.FAILED
    return msgspec.msgpack.decode(cell.body, type=Failure)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as err:
        return err


def test_a_value_travels_with_its_times_and_a_text_for_people() -> None:
    delivery = Delivery(MESSAGE.id, delivery=5, attempt=0, losses=0, body=b"")

    outcome = done(delivery, [1, 2], PickleSerializer(), 100, 130)

    cell = read_cell(outcome.cell)
    value = msgspec.msgpack.decode(cell.body, type=Value)
    assert (outcome.id, outcome.delivery) == (MESSAGE.id, 5)
    assert (cell.state, cell.delivery, cell.started_ms, cell.ended_ms) == (6, 5, 100, 130)
    assert (PickleSerializer().loads(value.payload), value.repr) == ([1, 2], "[1, 2]")


def test_retries_run_out() -> None:
    policy = {"retries": 2, "retry_delay": 1.0, "backoff": 3.0}

    outcomes = [after(ValueError("x"), k, **policy) for k in range(3)]

    assert [o.delay_ms for o in outcomes[:2] if isinstance(o, RetryAt)] == [1000, 3000]
    assert failure(outcomes[2]).attempts == 3


def test_jitter_takes_from_the_wait() -> None:
    outcome = after(ValueError("x"), retries=1, retry_delay=1.0, jitter=True)

    assert isinstance(outcome, RetryAt)
    assert outcome.delay_ms == 750  # 0.5 to 1 of it, and chance says half


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError("x"), True),  # a subclass counts
        (ValueError("x"), False),
        (SystemExit(1), False),
        (Retry("now"), True),  # whatever the filter says
        (PayloadError("x"), False),  # the body ran; again would be no better
    ],
)
def test_only_what_the_filter_names_is_tried_again(error: BaseException, again: bool) -> None:
    outcome = after(error, retries=1, retry_on=("builtins.OSError",))

    assert isinstance(outcome, RetryAt if again else Failed)


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        (None, 2000),
        (0, 0),
        (1.5, 1500),
        (-1, 2000),
        (math.nan, 2000),
        ("soon", 2000),
        (1e200, 2000),
        (1e9, LONGEST_WAIT_MS),
    ],
)
def test_a_body_says_when_to_try_again_and_nonsense_is_not_heard(asked: Any, wait: int) -> None:
    outcome = after(Retry(delay=asked), retries=1, retry_delay=2.0)

    assert isinstance(outcome, RetryAt)
    assert outcome.delay_ms == wait


def test_a_retry_too_many_is_the_failure() -> None:
    found = failure(after(Retry("the queue is down"), attempt=1, retries=1))

    assert found.message == "Retry('the queue is down')"


def test_no_wait_is_more_than_a_store_can_keep() -> None:
    outcome = after(ValueError(), 90, retries=99, retry_delay=1e9, backoff=9.0, max_delay=1e300)

    assert isinstance(outcome, RetryAt)
    assert outcome.delay_ms == LONGEST_WAIT_MS


@pytest.mark.parametrize("reason", ["no news", "", 42, "half a character: \ud800"])
def test_skip_ends_skipped_with_its_reason(reason: Any) -> None:
    outcome = after(Skip(reason), retries=3)

    assert isinstance(outcome, Skipped)
    cell = read_cell(outcome.cell)
    assert cell.state == State.SKIPPED
    assert cell.body.decode() == str(reason).encode("utf-8", "replace").decode()


def test_an_interrupted_body_ends_cancelled() -> None:
    outcome = after(TaskCancelled(), retries=3)

    assert isinstance(outcome, Cancelled)
    assert read_cell(outcome.cell).state == State.CANCELLED


def test_a_failure_names_everything_a_caller_may_ask() -> None:
    found = failure(after(raised(FileNotFoundError(2, "gone", "x.csv")), attempt=1))

    assert (found.task, found.node, found.index) == ("shop.add", "add", 3)
    assert found.id.endswith(":7")
    assert (found.exc_type, found.reason) == ("builtins.FileNotFoundError", "error")
    assert found.is_a(OSError)
    assert found.is_a(Exception)
    assert not found.is_a(ValueError)
    assert found.attempts == 2
    assert "FileNotFoundError: [Errno 2] gone: 'x.csv'" in found.traceback


class Rude(Exception):
    """Its texts are the user's code, and fail."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __str__(self) -> str:
        raise RuntimeError("no str")


def test_texts_that_fail_or_cannot_travel_are_replaced() -> None:
    rude = failure(after(raised(Rude())))
    odd = failure(after(raised(OSError("caf\udce9.csv"))))  # an undecodable file name

    assert rude.message == "<Rude whose repr raised RuntimeError>"
    assert "Rude" in rude.traceback
    assert "caf?.csv" in odd.traceback


def test_a_value_whose_repr_cannot_travel_travels_itself() -> None:
    delivery = Delivery(MESSAGE.id, delivery=1, attempt=0, losses=0, body=b"")

    outcome = done(delivery, OddRepr(), PickleSerializer(), 1, 2)

    value = msgspec.msgpack.decode(read_cell(outcome.cell).body, type=Value)
    assert value.repr == "odd ?"


class OddRepr:
    def __repr__(self) -> str:
        return "odd \ud800"


def test_long_texts_are_cut_and_keep_both_ends() -> None:
    text = traceback_text(raised(ValueError("a" * 200_000 + "the end")))

    assert len(text) < MAX_TRACEBACK + 100
    assert text.startswith("Traceback")
    assert text.rstrip().endswith("the end")
    assert len(exception_text(ValueError("a" * 200_000))) == 4096


def test_a_traceback_begins_at_the_body_also_of_a_coroutine() -> None:
    async def body() -> None:
        raise ValueError("inside")

    try:
        asyncio.run(body())
    except ValueError as err:
        trace = err.__traceback__
        assert trace is not None
        err.__traceback__ = trace.tb_next  # as if a worker had called asyncio.run
        text = traceback_text(err)

    assert "in body" in text
    assert "asyncio" not in text


def test_what_never_ran_says_why() -> None:
    delivery = Delivery(MESSAGE.id, delivery=5, attempt=0, losses=0, body=b"\xff")

    bad = undecodable(delivery, DecodeError("no message"), None)
    odd = unknown_task(delivery, MESSAGE, "; did you mean 'shop.Add'?")

    assert (bad.dead, failure(bad).reason, failure(bad).attempts) == ("undecodable",) * 2 + (0,)
    found = msgspec.msgpack.decode(read_cell(odd.cell).body, type=Failure)
    assert found.reason == "unknown task"
    assert "did you mean 'shop.Add'?" in found.message
