# SPDX-License-Identifier: MIT
"""Mixed tasks under random kills; FLOWQ_TEST_SOAK says for how many seconds."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

import pytest

from flowq import chain, group
from flowq.message import id_bytes
from tests.faults.conftest import Farm, until

SECONDS = float(os.environ.get("FLOWQ_TEST_SOAK", "5"))


class Work:
    """What was started, and what must come of it."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.count = 0
        self.runs: list[bytes] = []
        # Kills are random: one message may be hit again and again.
        self.tasks = {
            name: farm.q.tasks[f"farm.{name}"].options(max_losses=100)
            for name in ("mark", "hop", "gather", "flaky")
        }

    def start(self, n: int) -> list[tuple[Any, Any]]:
        """Start a few of each kind: handles, and the values that they must give."""
        journal, found = self.farm.journal, []
        mark, hop, gather, flaky = (self.tasks[k] for k in ("mark", "hop", "gather", "flaky"))
        for _ in range(n):
            self.count += 1
            word = f"w{self.count}"
            words = [f"{word}.{i}" for i in range(5)]
            hops = [hop.s(journal, w) for w in words[1:]]
            line = chain(hop.s(journal, words[0], []), *hops).start()
            fan = (group(*(mark.s(journal, w) for w in words)) | gather.s(journal)).start()
            self.runs += [id_bytes(line.id), id_bytes(fan.id)]
            found += [(line, words), (fan, 5), (mark.map([(journal, w) for w in words]), words)]
            found.append((flaky.options(retries=1, retry_delay=0.05)(word), word))
            found.append((mark.options(delay=0.1, priority=3)(journal, word), word))
            with self.farm.q.batch():
                found += [(mark(journal, w), w) for w in words]
        return found


@pytest.mark.timeout(SECONDS + 120)
def test_random_kills_lose_nothing_double_nothing_and_leave_nothing(farm: Farm) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rand = random.Random(seed)
    kinds = [("-w", "2", "-q"), ("-w", "1", "-q"), ("-k", "thread", "-w", "3", "-q")]
    consumers = [farm.start(*words) for words in kinds]
    work, kills = Work(farm), 0

    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        started = work.start(4)
        first = started[rand.randrange(len(started))][0]
        until(lambda first=first: first.ready, 60.0)  # type: ignore[misc]
        place = rand.randrange(len(consumers))
        if rand.random() < 0.2:
            consumers[place].kill()
            consumers[place] = farm.start(*kinds[place])
        elif workers := consumers[place].children():
            os.kill(rand.choice(workers), signal.SIGKILL)
        kills += 1
        for handle, value in started:
            assert handle.get(blocking=True, timeout=60) == value

    assert kills
    store = farm.q.store
    assert [store.check(run) for run in work.runs] == [[]] * len(work.runs)
    for consumer in consumers:
        until(consumer.children)  # one that has just begun does not hear signals yet
        consumer.send(signal.SIGTERM)
    assert [consumer.wait() for consumer in consumers] == [0, 0, 0]
    status = store.status()
    ready = sum(queue.ready for queue in status.queues)
    assert (ready, status.scheduled, status.running, status.dead, status.runs) == (0, 0, 0, 0, 0)
    assert store.sessions() == []
    assert not store.left(["default"])
