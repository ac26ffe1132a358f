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

from flowq.text import COLOURS, duration, one_line

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "NOT_FOUND",
    "OK",
    "REFUSED",
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

OK, FAILED, USAGE, NOT_FOUND, UNREACHABLE, TIMED_OUT, REFUSED = 0, 1, 2, 3, 4, 5, 6
INTERRUPTED = 130
"""Exit statuses; 1 says that the task or run that was asked for has failed."""
SCHEMA: Final = 1
"""Number of the form of what ``--json`` prints; keys are only ever added under one number."""


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
    code = COLOURS.get(word)
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


def iso(ms: int) -> str | None:
    """Give a moment as programs read it: ISO 8601 with zone; None for 0."""
    if not ms:
        return None
    return datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat(timespec="milliseconds")


def moment(ms: int) -> str:
    """Give a moment as people read it, in the local zone; empty for 0."""
    return datetime.fromtimestamp(ms / 1000).strftime("%Y-%m-%d %H:%M:%S") if ms else ""
