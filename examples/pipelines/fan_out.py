# SPDX-License-Identifier: MIT
"""Fan out and collect: many calls of one task at once, and one value from all of their results.

Counts the primes below a limit, a slice a task, in three ways: `map` and a loop in the caller;
the results as they come; and a group piped into a task that adds up (a chord), so that nobody
has to wait at all.

    python examples/pipelines/fan_out.py --limit 1000000
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flowq import ConfigError, FlowQ, StoreError, group

q = FlowQ("fan_out")


@q.task
def count_primes(low: int, high: int) -> int:
    """Count the primes from `low` up to, not including, `high`, with a sieve."""
    if high <= 2:
        return 0
    low = max(low, 2)
    sieve = bytearray([1]) * (high - low)
    for p in range(2, int((high - 1) ** 0.5) + 1):
        first = max(p * p, (low + p - 1) // p * p)
        sieve[first - low :: p] = bytes(len(range(first, high, p)))
    return sum(sieve)


@q.task
def total(counts: list[int]) -> int:
    """Add up."""
    return sum(counts)


def slices(limit: int, parts: int) -> list[tuple[int, int]]:
    """Cut the numbers below `limit` into parts of about the same length."""
    edges = [limit * i // parts for i in range(parts + 1)]
    return list(itertools.pairwise(edges))


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    q.use_url(args.url)
    parts = slices(args.limit, args.parts)

    with q.consumer(workers=args.workers, kind=args.kind):
        # each tuple is one call: count_primes(low, high); the values come in the order of the calls
        counts = count_primes.map(parts)
        print(f"map:      {sum(counts.get(blocking=True)):,} primes below {args.limit:,}")

        # whatever is ready first, comes first
        seen = 0
        for result in count_primes.map(parts).as_completed():
            seen += result.get(blocking=True)
        print(f"as ready: {seen:,}")

        # the last step is a task too: it starts when the last of the others has ended
        run = (group(count_primes.s(low, high) for low, high in parts) | total.s()).start()
        print(f"chord:    {run.get(blocking=True):,}")
    return 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    here = Path(__file__).resolve().parent / "out"
    here.mkdir(exist_ok=True)
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    url = os.environ.get("FLOWQ_URL") or f"sqlite:///{here / 'fan_out.db'}"
    parser.add_argument("--url", default=url, help="store; FLOWQ_URL, else a SQLite file in out/")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--kind", choices=("process", "thread"), default="process")
    parser.add_argument("--limit", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--parts", type=int, default=20, metavar="N")
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ConfigError, StoreError) as err:  # such as a wrong --url; nothing to be traced
        sys.exit(f"fan_out: {err}")
    except KeyboardInterrupt:
        sys.exit(130)
