# SPDX-License-Identifier: MIT
"""A flow that grows in all its ways; each body notes the id under which it runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from flowq import FlowQ, branch, current_task


def add_growing(q: FlowQ, note: Any) -> None:
    """Give an app the flow ``farm.grown``, and what is in it and after it."""

    def begun(journal: str) -> None:
        note(journal, current_task().id)

    # Kills are random: one message may be hit again and again.
    @q.task(name="farm.numbers", max_losses=100)
    def numbers(journal: str, count: int) -> list[int]:
        begun(journal)
        return list(range(count))

    @q.task(name="farm.kind_of", max_losses=100)
    def kind_of(kind: str, journal: str) -> str:
        begun(journal)
        return kind

    @q.task(name="farm.first", max_losses=100)
    def first(x: int, journal: str) -> int:
        begun(journal)
        time.sleep(0.002)  # long enough to be killed in
        return x

    @q.task(name="farm.second", max_losses=100)
    def second(x: int, journal: str) -> int:
        """Fail for some, until the file beside the journal exists."""
        begun(journal)
        if x % 60 == 7 and not Path(journal).with_name("mended").exists():
            raise ValueError(x)
        return x + 1

    @q.task(name="farm.nest", max_losses=100)
    def nest(depth: int, journal: str) -> Any:
        begun(journal)
        if not depth:
            return 1
        return nest.s(depth - 1, journal) | second.s(journal=journal)

    @q.task(name="farm.broken", max_losses=100)
    def broken(x: int, journal: str) -> int:
        begun(journal)
        raise ValueError(x)

    @q.task(name="farm.total", max_losses=100)
    def total(items: list[int], arm: int, nested: int, instead: int, journal: str) -> list[int]:
        begun(journal)
        return [len(items), sum(items), arm, nested, instead]

    @q.task(name="farm.cleanup", max_losses=100)
    def cleanup(journal: str) -> None:
        begun(journal)

    @q.flow(name="farm.pair")
    def pair(x: int, journal: str) -> Any:
        return second(first(x, journal), journal)

    @q.flow(name="farm.grown")
    def grown(journal: str, count: int, kind: str) -> Any:
        items = pair.map(numbers(journal, count), journal=journal)
        arm = branch(
            kind_of(kind, journal),
            {"a": lambda: first(10, journal)},
            default=lambda: first(20, journal),
        )
        instead = broken.options(fallback=first)(30, journal)
        return total(items, arm, nest(3, journal), instead, journal)
