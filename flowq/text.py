# SPDX-License-Identifier: MIT
"""Text for people: spans of time, single lines, colours of states."""

from __future__ import annotations

from typing import Final

__all__ = ["COLOURS", "bar", "duration", "notebook", "one_line"]

COLOURS: Final = {
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
"""State -> the number of its colour on terminals."""


def one_line(text: str, limit: int = 100) -> str:
    """Cut text to one line that cannot move the cursor of a terminal."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


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


def bar(done: int, known: int, width: int = 20) -> str:
    """Draw how far something is.

    Examples
    --------
    >>> bar(3, 4, 8), bar(0, 0, 4)
    ('━━━━━━──', '────')
    """
    full = width * done // known if known else 0
    return "━" * full + "─" * (width - full)


def notebook(plain: str, drawing: str, svg: str) -> dict[str, str]:
    """Give a picture as notebooks take it: by MIME type, of which they show what they can best.

    Parameters
    ----------
    plain : str
        For those that show text alone.
    drawing : str
        Mermaid.
    svg : str
    """
    fenced = f"```mermaid\n{drawing}```\n"
    return {
        "text/plain": plain,
        "text/markdown": fenced,
        "text/vnd.mermaid": drawing,
        "image/svg+xml": svg,
    }
