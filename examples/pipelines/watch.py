# SPDX-License-Identifier: MIT
"""Watch a run from the terminal: a live table of its steps, or plain lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flowq import Run

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["watch"]

EVERY = 0.5  # seconds between two looks at the store
LOOK = {  # state -> sign and colour
    "success": ("✔", "green"),
    "failed": ("✘", "bold red"),
    "blocked": ("■", "red"),
    "skipped": ("○", "bright_black"),
    "cancelled": ("✕", "magenta"),
    "running": ("▶", "bold cyan"),
    "queued": ("…", "blue"),
    "scheduled": ("◷", "yellow"),
}
WIDTH = 44


def watch(run: Run[Any]) -> None:
    """Show the steps of a run until it ends."""
    try:
        from rich.console import Console
    except ImportError:
        live = False
    else:
        live = Console().is_terminal
    (_live if live else _lines)(run)


def _lines(run: Run[Any]) -> None:
    """Print one line for each step that ends."""
    began, told = time.perf_counter(), set()
    ended = False
    while not ended:
        ended = run.wait(EVERY)
        for step in _steps(run):
            if step["ended"] and step["name"] not in told:
                told.add(step["name"])
                took = f"{step['took']:.2f} s" if step["started"] else ""
                print(
                    f"{time.perf_counter() - began:6.1f} s  {step['name']:20} "
                    f"{step['state']:10} {took}",
                    flush=True,
                )


def _live(run: Run[Any]) -> None:
    from rich.live import Live

    with Live(_table(run), auto_refresh=False, transient=False) as view:
        ended = False
        while not ended:
            ended = run.wait(EVERY)
            view.update(_table(run), refresh=True)


def _table(run: Run[Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    steps = list(_steps(run))
    begins = [s["started"] for s in steps if s["started"]]
    first = min(begins, default=0.0)
    last = max([s["ended"] or time.time() for s in steps if s["started"]], default=first)
    scale = WIDTH / max(last - first, 0.001)
    done = sum(1 for s in steps if s["ended"])
    table = Table(box=None, padding=(0, 1), title_justify="left", title_style="bold")
    table.title = f"\n{done} of {len(steps)} steps · {last - first:.1f} s"
    for column in ("", "step", "state"):
        table.add_column(column, style="bold" if column == "step" else None)
    table.add_column("seconds", justify="right")
    table.add_column("")
    for s in steps:
        sign, colour = LOOK.get(s["state"], ("·", "bright_black"))
        bar = Text()
        if s["started"]:
            left = round((s["started"] - first) * scale)
            long = max(1, round(s["took"] * scale))
            bar = Text(" " * min(left, WIDTH - 1)).append("█" * min(long, WIDTH - left), colour)
        seconds = f"{s['took']:.2f}" if s["started"] else ""
        table.add_row(Text(sign, colour), s["name"], Text(s["state"], colour), seconds, bar)
    return table


def _steps(run: Run[Any]) -> Iterator[dict[str, Any]]:
    """Give the steps that run a task, in the order of the graph."""
    now = time.time()
    for node in run.nodes():
        if node.task:
            started = node.started_at.timestamp() if node.started_at else 0.0
            ended = node.ended_at.timestamp() if node.ended_at else 0.0
            took = (ended or now) - started if started else 0.0
            yield {
                "name": node.name,
                "state": node.state,
                "started": started,
                "ended": ended,
                "took": took,
            }


if __name__ == "__main__":
    sys.exit("This is a part of the examples; call nightly_etl.py.")
