# SPDX-License-Identifier: MIT
"""Messages, values and errors that no worker can handle; one of them never stops it."""

from __future__ import annotations

import pytest

from flowq.errors import DecodeError, PayloadError, TaskError
from flowq.message import Message, id_text, new_id
from tests.faults.conftest import Farm, until


def test_arguments_that_cannot_be_read_end_as_a_dead_letter(farm: Farm) -> None:
    farm.start("-k", "process", "-w", "1")
    bad = Message(id=new_id(), task="farm.mark", payload=b"P\x80garbage")
    farm.q.store.enqueue([bad])

    with pytest.raises(TaskError) as raised:
        farm.q.result(id_text(bad.id)).get(timeout=20)

    assert raised.value.is_a(DecodeError)
    [letter] = farm.q.store.dead()
    assert (letter.id, letter.reason) == (bad.id, "undecodable")
    assert farm.call("mark", farm.journal, "next").get(timeout=10) == "next"


def test_an_unknown_task_goes_back_and_is_said_once_with_the_nearest_name(farm: Farm) -> None:
    consumer = farm.start("-k", "process", "-w", "1")
    odd = [
        Message(id=new_id(), task="farm.mrak", payload=farm.q.serializer.dumps(((), {}), "it"))
        for _ in range(3)
    ]
    farm.q.store.enqueue(odd)

    until(lambda: "farm.mrak" in consumer.log)
    assert farm.call("mark", farm.journal, "next").get(timeout=10) == "next"

    assert {farm.q.result(id_text(m.id)).state for m in odd} <= {"scheduled", "queued", "running"}
    assert consumer.log.count("no task 'farm.mrak'") == 1
    assert "did you mean 'farm.mark'" in consumer.log
    assert farm.q.store.dead() == []


def test_a_result_that_cannot_be_pickled_is_told_at_once(farm: Farm) -> None:
    farm.start("-k", "process", "-w", "1", "-q")

    with pytest.raises(TaskError, match="cannot be pickled") as raised:
        farm.call("lock", retries=5).get(timeout=20)

    assert raised.value.is_a(PayloadError)
    assert raised.value.attempts == 1  # the body ran; again would be no better
    assert farm.q.store.dead() == []


def test_an_exception_that_cannot_be_pickled_arrives_as_text(farm: Farm) -> None:
    farm.start("-k", "process", "-w", "1", "-q")

    with pytest.raises(TaskError) as raised:
        farm.call("unfit").get(timeout=20)

    assert str(raised.value) == "Unfit('as it was')"
    assert raised.value.exc_type.endswith("farm.Unfit")
    assert 'raise Unfit("as it was")' in raised.value.traceback
    assert "flowq/worker.py" not in raised.value.traceback


def test_twelve_thousand_calls_in_one_batch_are_taken(farm: Farm) -> None:
    with farm.q.batch():
        for i in range(12_000):
            farm.q.tasks["farm.mark"](farm.journal, str(i))

    assert [(x.name, x.ready) for x in farm.q.store.status().queues] == [("default", 12_000)]
