# SPDX-License-Identifier: MIT
"""What the cases share: a place for each round, processes, medians, the table."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from benchmarks.work import Stamps

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Place:
    """Where one round works: a folder, a server, the file of stamps."""

    folder: Path
    redis_url: str
    stamps: Stamps

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url)

    @contextmanager
    def process(self, *argv: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run one of the contenders' processes; it is terminated at the end."""
        full = {**os.environ, "BENCH_STAMPS": str(self.stamps.path), **env}
        with subprocess.Popen([sys.executable, *argv], cwd=ROOT, env=full) as running:
            try:
                yield running
            finally:
                running.terminate()

    def fresh(self) -> None:
        """Begin with an empty server and no stamps."""
        with self.client() as client:
            client.flushdb()
        self.stamps.clear()


@dataclass
class Figure:
    """One line of the table: values a round, ours and theirs, in the same unit."""

    name: str
    unit: str
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    peer: str = ""
    target: str = ""

    def row(self) -> list[str]:
        ratios = [a / b for a, b in zip(self.ours, self.theirs, strict=False)]
        return [
            self.name,
            spread(self.ours, self.unit),
            f"{self.peer} {spread(self.theirs, self.unit)}" if self.theirs else "-",
            spread(ratios, "x") if ratios else "-",
            self.target,
        ]


def spread(values: Sequence[float], unit: str) -> str:
    """The median, and between which bounds the values lay."""

    def text(x: float) -> str:
        return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"

    return f"{text(statistics.median(values))} {unit} [{text(min(values))}-{text(max(values))}]"


def table(figures: Sequence[Figure]) -> str:
    """Lay figures out as Markdown."""
    rows = [["figure", "flowq", "beside", "ratio", "target"], *(f.row() for f in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
