# SPDX-License-Identifier: MIT
"""One attempt: whatever a message, its values or its body do, it comes to an outcome."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from flowq import FlowQ, Skip, current_task
from flowq.errors import TaskCancelled
from flowq.executor import Executor, Job, Lane
from flowq.message import Delivery, Message, encode_message, new_id, read_cell
from flowq.outcome import Cancelled, Done, Failed, Outcome, Skipped
from flowq.states import State


@pytest.fixture
def q(store_name: str) -> Iterator[FlowQ]:
    app = FlowQ(store_name, "memory://")
    yield app
    app.store.close()


def job(body: bytes) -> Job:
    return Job(Delivery(new_id(), delivery=1, attempt=0, losses=0, body=body))


def call(q: FlowQ, task: str, *args: Any, **more: Any) -> Job:
    """A delivery of a call."""
    payload = q.serializer.dumps((args, {}), "it")
    return job(encode_message(Message(id=new_id(), task=task, payload=payload, **more)))


def execute(q: FlowQ, what: Job) -> Outcome:
    lane = Lane(0)
    lane.thread = threading.get_ident()
    return Executor(q).run(lane, what)


# --- hostile messages


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x01", b"\x01\xc1", b"\x02\x90", b"\x01\x91\x01"])
def test_bytes_that_are_no_message_are_dead(q: FlowQ, body: bytes) -> None:
    outcome = execute(q, job(body))

    assert isinstance(outcome, Failed)
    assert outcome.dead == "undecodable"


@pytest.mark.parametrize("payload", [b"", b"X", b"P", b"P\x80\x05N.", b"P\x80\x05K\x01."])
def test_arguments_that_cannot_be_read_never_stop_a_worker(q: FlowQ, payload: bytes) -> None:
    @q.task(name="fine")
    def fine() -> None:
        return None

    outcome = execute(q, job(encode_message(Message(id=new_id(), task="fine", payload=payload))))

    assert isinstance(outcome, Failed)
    assert read_cell(outcome.cell).state == State.FAILED


def test_the_lines_of_tasks_cost_nothing_when_nobody_reads_them(
    q: FlowQ, caplog: pytest.LogCaptureFixture
) -> None:
    @q.task(name="fine")
    def fine() -> None:
        return None

    with caplog.at_level(logging.WARNING, "flowq.worker"):
        assert isinstance(execute(q, call(q, "fine")), Done)
    quiet = list(caplog.records)
    with caplog.at_level(logging.INFO, "flowq.worker"):
        execute(q, call(q, "fine"))

    assert quiet == []
    assert [r.getMessage().split()[2] for r in caplog.records] == ["starts", "done"]


@pytest.mark.parametrize("policy", [{"retries": "many"}, {"backoff": "x"}, {"retry_on": 7}])
def test_a_policy_that_is_none_fails_its_message_only(q: FlowQ, policy: dict[str, Any]) -> None:
    @q.task(name="fine")
    def fine() -> None:
        return None

    assert isinstance(execute(q, call(q, "fine", policy=policy)), Failed)


# --- values and errors with code of their own


class Leaves:
    """A value that ends the process of who reads or writes it; or would like to."""

    def __init__(self, when: str) -> None:
        self.when = when

    def __getstate__(self) -> Any:
        if self.when == "written":
            raise SystemExit(3)
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["when"] == "read":
            raise SystemExit(3)
        self.__dict__.update(state)

    def __repr__(self) -> str:
        raise KeyboardInterrupt


@pytest.mark.parametrize("when", ["read", "written", "shown"])
def test_no_code_of_a_value_ends_the_worker(q: FlowQ, when: str) -> None:
    @q.task(name="echo")
    def echo(value: Any) -> Any:
        return Leaves("written") if when == "written" else value

    outcome = execute(q, call(q, "echo", Leaves("read" if when == "read" else "shown")))

    assert isinstance(outcome, Failed)


class Wordless(Exception):
    def __repr__(self) -> str:
        raise SystemExit(4)

    __str__ = __repr__


def test_an_exception_without_words_is_a_failure_all_the_same(q: FlowQ) -> None:
    @q.task(name="raise")
    def raise_() -> None:
        raise Wordless

    @q.task(name="skip")
    def skip() -> None:
        raise Skip(Wordless())  # type: ignore[arg-type]

    assert isinstance(execute(q, call(q, "raise")), Failed)
    skipped = execute(q, call(q, "skip"))
    assert isinstance(skipped, Skipped)
    assert b"whose str raised SystemExit" in read_cell(skipped.cell).body


# --- interrupts


@pytest.mark.parametrize("how", ["raises it himself", "swallows it", "is hit"])
def test_an_interrupt_hits_its_body_or_nothing(q: FlowQ, how: str) -> None:
    @q.task(name="long")
    def long() -> str:
        me = current_task()
        running.set()
        try:
            while not me.cancelled:
                time.sleep(0.0005)
            if how == "is hit":
                while True:
                    time.sleep(0.0005)
        except TaskCancelled:
            if how != "swallows it":
                raise
        if how == "raises it himself":
            raise TaskCancelled
        return "ended by itself"

    @q.task(name="next")
    def next_() -> int:
        return sum(range(1_000))

    executor, lane = Executor(q), Lane(0)
    lane.thread = threading.get_ident()
    for _ in range(20):
        running = threading.Event()
        what = call(q, "long")

        def cancel(what: Job = what, running: threading.Event = running) -> None:
            assert running.wait(10)
            executor.cancel(lane, {what.delivery.id})

        thread = threading.Thread(target=cancel)
        thread.start()
        outcome = executor.run(lane, what)
        thread.join(10)

        assert isinstance(outcome, Cancelled) or (
            how == "swallows it" and isinstance(outcome, Done)
        )
        assert isinstance(executor.run(lane, call(q, "next")), Done)
        assert not lane.interrupted


def test_a_cancel_of_what_does_not_run_interrupts_nothing(q: FlowQ) -> None:
    interrupts: list[int] = []
    executor, lane = Executor(q, interrupt=interrupts.append), Lane(0)

    executor.cancel(lane, {new_id()})

    assert interrupts == []


def test_an_interrupt_that_comes_just_behind_a_body_ends_no_worker(
    q: FlowQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sent while the body ran, and arrives at the first call after it."""

    @q.task(name="short")
    def short() -> str:
        monkeypatch.setattr("flowq.executor.os.getpid", arrive)
        return "done"

    def arrive() -> int:
        monkeypatch.undo()
        raise TaskCancelled

    assert isinstance(execute(q, call(q, "short")), Cancelled)
