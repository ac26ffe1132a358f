# SPDX-License-Identifier: MIT
"""What the command line prints: rows for people, JSON for programs; never a password.

stdout carries data, stderr everything else.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, Final

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "NOT_FOUND",
    "OK",
    "SCHEMA",
    "TIMED_OUT",
    "UNREACHABLE",
    "USAGE",
    "CliError",
    "document",
    "duration",
    "iso",
    "line",
    "moment",
    "note",
    "one_line",
    "paint",
    "pairs",
    "table",
]

OK, FAILED, USAGE, NOT_FOUND, UNREACHABLE, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
"""Exit statuses; 1 says that the task or run that was asked for has failed."""
SCHEMA: Final = 1
"""Number of the form of what ``--json`` prints; keys are only ever added under one number."""

_COLOURS: Final = {
    "success": "32",
    "failed": "31",
    "blocked": "31",
    "running": "34",
    "queued": "36",
    "scheduled": "33",
    "waiting": "2",
    "skipped": "2",
    "cancelled": "35",
}


class CliError(Exception):
    """What a command ends with: a line for stderr, and the exit status."""

    def __init__(self, text: str, status: int = USAGE) -> None:
        super().__init__(text)
        self.status = status


def note(text: str) -> None:
    """Say something that is not data."""
    print(text, file=sys.stderr)


def document(value: dict[str, Any]) -> None:
    """Print one JSON document."""
    print(json.dumps({"schema": SCHEMA, **value}, ensure_ascii=False, indent=2))


def line(value: dict[str, Any]) -> None:
    """Print one object of JSON Lines."""
    print(json.dumps({"schema": SCHEMA, **value}, ensure_ascii=False), flush=True)


def coloured() -> bool:
    """Whether stdout is a terminal whose user has not asked for plain text."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def paint(word: str, shown: str | None = None) -> str:
    """Give the name of a state in its colour, or as it is."""
    code = _COLOURS.get(word)
    shown = word if shown is None else shown
    return f"\x1b[{code}m{shown}\x1b[0m" if code and coloured() else shown


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows in aligned columns; a column named ``state`` has colours on a terminal."""
    cells = [[one_line(str(value)) for value in row] for row in rows]
    widths = [max([len(h), *(len(row[i]) for row in cells)]) for i, h in enumerate(head)]
    states = [i for i, h in enumerate(head) if h == "state"]
    for number, row in enumerate([list(head), *cells]):
        padded = [f"{value:<{widths[i]}}" for i, value in enumerate(row)]
        if number:
            for i in states:
                padded[i] = paint(row[i], padded[i])
        print("  ".join(padded).rstrip())


def pairs(values: Iterable[tuple[str, Any]]) -> None:
    """Print what is known of one thing, a line each; what is None or empty is left out."""
    known = [(name, str(value)) for name, value in values if value not in (None, "")]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        shown = paint(value) if name == "state" else value.replace("\n", f"\n{'':<{width}}  ")
        print(f"{name:<{width}}  {shown}")


def one_line(text: str, limit: int = 100) -> str:
    """Cut text to one line that cannot move the cursor of a terminal."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def iso(ms: int) -> str | None:
    """Give a moment as programs read it: ISO 8601 with zone; None for 0."""
    if not ms:
        return None
    return datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat(timespec="milliseconds")


def moment(ms: int) -> str:
    """Give a moment as people read it, in the local zone; empty for 0."""
    return datetime.fromtimestamp(ms / 1000).strftime("%Y-%m-%d %H:%M:%S") if ms else ""


def duration(seconds: float | None) -> str:
    """Give a span of time as people read it.

    Examples
    --------
    >>> duration(0.0042), duration(75), duration(7200), duration(None)
    ('4 ms', '1 min 15 s', '2 h 0 min', '')
    """
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
