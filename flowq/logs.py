# SPDX-License-Identifier: MIT
"""How a process of flowq's own logs: one line a record, with the ids of the task that speaks.

Only programs call `configure` (the command line does); a library that is imported leaves logging
to its user. Worker processes are given `settings()` and apply it, so that all of a consumer's
processes log alike.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import warnings
from datetime import datetime, timezone
from typing import Any, Literal, TextIO, TypeAlias

from flowq.current import CURRENT

__all__ = ["Format", "configure", "settings"]

Format: TypeAlias = Literal["text", "json", "simple"]

_COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}
_LEVELS = {2: logging.DEBUG, -1: logging.WARNING, -2: logging.ERROR}
_python = logging.getLogger("py.warnings")  # the name that the standard library gives it
_applied: dict[str, Any] | None = None


def configure(*, verbosity: int = 0, format: Format = "text", file: str = "") -> None:
    """Send what is logged in this process to one place, in one form.

    It adds a handler to the root logger, in place of the one that an earlier call added; a
    user's own handlers stay. Warnings, and exceptions that end a thread or that nobody can catch,
    are logged as well. Calling again is safe, also in a child after a fork.

    Parameters
    ----------
    verbosity : int
        0: INFO of flowq and of the user's code; 1: DEBUG of flowq; 2: DEBUG of everything;
        -1: warnings; -2: errors.
    format : {"text", "json", "simple"}
        Lines for people, an object a line, or only time and message.
    file : str
        Path to append to; empty for stderr.

    Raises
    ------
    OSError
        The file cannot be opened for writing.
    """
    global _applied
    handler: logging.Handler
    if file:
        file = os.path.abspath(file)
        handler = _OurFile(file, encoding="utf-8")
    else:
        handler = _OurStream(sys.stderr)
    handler.setFormatter(_formatter(format, bool(file)))
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _OurFile | _OurStream)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(_LEVELS.get(verbosity, logging.INFO))
    logging.getLogger("flowq").setLevel(logging.DEBUG if verbosity > 0 else logging.NOTSET)
    # What Python says by itself goes the same way, in the same form.
    warnings.showwarning = _warned
    threading.excepthook = _thread_ended
    sys.unraisablehook = _ignored
    _applied = {"verbosity": verbosity, "format": format, "file": file}


def settings() -> dict[str, Any]:
    """Give what `configure` was last called with here, for this process's children.

    Where nobody called it (a consumer inside a user's program), children say only warnings.
    """
    return dict(_applied or {"verbosity": -1})


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log a warning in one line; one that is meant for a file goes there as ever."""
    if file is not None:
        file.write(warnings.formatwarning(message, category, filename, lineno, line))
        return
    _python.warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    """Log what ended a thread of the user's, or of ours."""
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    name = args.thread.name if args.thread is not None else "?"
    exc_info = (args.exc_type, args.exc_value, args.exc_traceback)
    _python.error("the thread %s ended by an exception", name, exc_info=exc_info)


def _ignored(args: sys.UnraisableHookArgs) -> None:
    """Log an exception that nobody can catch, as one of a finalizer."""
    exc_info = args.exc_value and (args.exc_type, args.exc_value, args.exc_traceback)
    what = args.err_msg or "Exception ignored in"
    _python.error("%s: %r", what, args.object, exc_info=exc_info)


class _OurStream(logging.StreamHandler):  # type: ignore[type-arg]  # generic only for checkers
    """The handler that `configure` added, told from a user's by its class."""


class _OurFile(logging.FileHandler):
    """The same for a file. It appends, so several processes may write lines to one file."""


def _formatter(format: Format, to_file: bool) -> logging.Formatter:
    if format == "json":
        return JsonFormatter()
    if format == "simple":
        return logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S")
    colour = not to_file and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
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
    """An object a line, with stable keys; what a user's `extra=` carries is not part of it."""

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
        task = getattr(record, "flowq_task", None) or CURRENT.get()
        if task is not None:
            line |= {"task": task.name, "task_id": task.id, "attempt": task.attempt}
            if task.run is not None:
                line |= {"run_id": task.run, "node": task.node}
        if (took := getattr(record, "flowq_seconds", None)) is not None:
            line["seconds"] = took
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
