# SPDX-License-Identifier: MIT
"""How a process of flowq's own logs: one line a record, with the ids of the task that speaks.

Only programs call `configure` (the command line does); a library that is imported leaves logging
to its user. Worker processes are given `configured()` and apply it, so that all of a consumer's
processes log alike.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime, timezone
from typing import Literal

import msgspec

from flowq.current import CURRENT

__all__ = ["LogConfig", "configure", "configured"]

_COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}
_applied: LogConfig | None = None


class LogConfig(msgspec.Struct, frozen=True):
    """What a process logs, how, and where.

    Attributes
    ----------
    verbosity : int
        0: INFO of flowq and of the user's code; 1: DEBUG of flowq; 2: DEBUG of everything;
        -1: warnings; -2: errors.
    format : str
        ``"text"``, ``"json"`` (an object a line), or ``"simple"`` (time and message).
    file : str
        Path to append to; empty for stderr.
    """

    verbosity: int = 0
    format: Literal["text", "json", "simple"] = "text"
    file: str = ""


def configure(config: LogConfig) -> None:
    """Send what is logged in this process to one place, in one form.

    It adds a handler to the root logger, in place of the one that an earlier call added; a
    user's own handlers stay. Calling again is safe, also in a child after a fork.

    Raises
    ------
    OSError
        The file cannot be opened for writing.
    """
    global _applied
    handler: logging.Handler
    if config.file:
        handler = _OurFile(os.path.abspath(config.file), encoding="utf-8")
    else:
        handler = _OurStream(sys.stderr)
    handler.setFormatter(_formatter(config))
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _OurFile | _OurStream)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel({2: logging.DEBUG, -1: logging.WARNING}.get(config.verbosity, logging.INFO))
    if config.verbosity < -1:
        root.setLevel(logging.ERROR)
    ours = logging.DEBUG if config.verbosity > 0 else logging.NOTSET
    logging.getLogger("flowq").setLevel(ours)
    _applied = config


def configured() -> LogConfig | None:
    """Give what `configure` was last called with in this process, for its children; or None."""
    return _applied


class _OurStream(logging.StreamHandler):  # type: ignore[type-arg]  # generic only for checkers
    """The handler that `configure` added, told from a user's by its class."""


class _OurFile(logging.FileHandler):
    """The same for a file. It appends, so several processes may write lines to one file."""


def _formatter(config: LogConfig) -> logging.Formatter:
    if config.format == "json":
        return JsonFormatter()
    if config.format == "simple":
        return logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S")
    colour = not config.file and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return TextFormatter(colour)


class TextFormatter(logging.Formatter):
    """Lines for people: time, level, process, logger, message, and the task that speaks."""

    def __init__(self, colour: bool = False) -> None:
        super().__init__("%(asctime)s %(flowq_level)s [%(process)d] %(name)s: %(message)s")
        self.default_msec_format = "%s.%03d"
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Give the line; a traceback goes below it."""
        level = f"{record.levelname:<7}"
        code = _COLOURS.get(record.levelno) if self._colour else None
        record.flowq_level = f"\x1b[{code}m{level}\x1b[0m" if code else level
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Give the first line. flowq's own messages name their task; a body's need it added."""
        line = super().formatMessage(record)
        task = CURRENT.get()
        if task is None or record.name.startswith("flowq."):
            return line
        return f"{line}  [{task.name} {task.id}]"


class JsonFormatter(logging.Formatter):
    """An object a line, with stable keys; what `extra=` carries is not part of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        made = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, object] = {
            "time": made.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        task = CURRENT.get()
        if task is not None:
            line |= {"task": task.name, "task_id": task.id, "attempt": task.attempt}
            if task.run is not None:
                line |= {"run_id": task.run, "node": task.node}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
