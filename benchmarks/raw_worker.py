# SPDX-License-Identifier: MIT
"""The hand-written loop: what redis-py can do when nothing is promised.

Pops 64 at a time, runs them, and stores 64 results in one pipeline. No lease, no retry, no expiry:
a crash loses what was popped.
"""

from __future__ import annotations

import os
import pickle
import sys

import redis

from benchmarks import work


def main(n: int) -> None:
    client = redis.Redis.from_url(os.environ["BENCH_REDIS"])
    done = 0
    while done < n:
        batch = client.rpop("raw:queue", 64)
        if not batch:
            continue
        pipe = client.pipeline(transaction=False)
        for raw in batch:
            key, a, b = pickle.loads(raw)
            pipe.set(key, pickle.dumps(work.add(a, b)))
        pipe.execute()
        done += len(batch)


def fill(client: redis.Redis, n: int) -> list[str]:
    """Enqueue `n` messages, 100 a pipeline; gives the keys of their results."""
    keys = [f"raw:r:{i}" for i in range(n)]
    for first in range(0, n, 100):
        pipe = client.pipeline(transaction=False)
        for i in range(first, min(first + 100, n)):
            pipe.lpush("raw:queue", pickle.dumps((keys[i], i, 1)))
        pipe.execute()
    return keys


if __name__ == "__main__":
    main(int(sys.argv[1]))
