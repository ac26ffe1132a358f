# SPDX-License-Identifier: MIT
"""Run the cases in rounds, on a server of their own, and print one table."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.measure import Figure, Place, table
from benchmarks.work import Stamps
from tests.servers import RedisServer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; else all")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; medians are shown (5)")
    args = parser.parse_args()
    if unknown := set(args.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if importlib.util.find_spec("huey") is None:
        parser.error("the peer is not installed: pip install 'huey>=3.5', or call 'make bench'")
    figures: dict[str, Figure] = {}
    with RedisServer() as server:
        for number in range(args.rounds):
            for name in args.cases or CASES:
                with tempfile.TemporaryDirectory(prefix="fq-bench-") as folder:
                    path = Path(folder)
                    stamps = Stamps(path / "stamps")
                    os.environ["BENCH_STAMPS"] = str(stamps.path)
                    print(f"round {number + 1} of {args.rounds}: {name}", file=sys.stderr)
                    CASES[name](Place(path, server.url, stamps), figures)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {Path(server.binary).name}")
    print(f"medians of {args.rounds} rounds [lowest-highest]; ratios are taken round by round\n")
    print(table(list(figures.values())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
