# SPDX-License-Identifier: MIT
"""Where a setting comes from: flag, then ``FLOWQ_*``, then ``[tool.flowq]``, then the default.

`SETTINGS` is the one table. A key is a long flag without its dashes: ``--shutdown-timeout``,
``FLOWQ_SHUTDOWN_TIMEOUT``, and in ``pyproject.toml``::

    [tool.flowq]
    shutdown-timeout = 10
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from flowq.errors import ConfigError
from flowq.policy import nearest

__all__ = ["DEFAULT_URL", "SETTINGS", "Setting", "check_seconds", "load_settings"]

# In the standard library from 3.11 on; loaded where a file is read, as it costs 10 ms.
_TOML: Final = "tomllib" if sys.version_info >= (3, 11) else "tomli"

DEFAULT_URL: Final = "sqlite:///flowq.db"


class Setting(msgspec.Struct, frozen=True):
    """One setting: its check, its default, and what it is for.

    Attributes
    ----------
    check : callable
        Gives the value in its normal form, from text too, or raises ValueError with what is wrong.
    default : object
        None stands for "as the program decides".
    doc : str
    """

    check: Callable[[Any], Any]
    default: Any
    doc: str


# --- checks --------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text, and not empty")
    return value.strip()


def _words(value: Any) -> tuple[str, ...]:
    """A list, or text with commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(p, str) for p in parts):
        raise ValueError("must be a list of names, or names with commas between them")
    return tuple(word for part in parts for word in map(str.strip, part.split(",")) if word)


def _count(value: Any) -> int:
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError("must be a whole number of at least 1")
    return number


def check_seconds(value: Any) -> float:
    """Give seconds, 0 or more, from a number or text; ValueError says what is wrong."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < 1e9:
        raise ValueError("must be seconds, 0 or more")
    return float(number)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError("must be true or false")


def _one_of(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be {' or '.join(words)}")
        return str(value)

    return check


def _level(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = None
    if number is None or isinstance(value, bool) or not -2 <= number <= 2:
        raise ValueError("must be a whole number from -2 (quiet) to 2")
    return number


SETTINGS: Final[dict[str, Setting]] = {
    "app": Setting(_text, None, "Where the app is: module:name, such as shop:q."),
    "url": Setting(_text, None, f"Where the store is; {DEFAULT_URL} unless said in FlowQ(url=)."),
    "import": Setting(_words, (), "Modules to import besides the app's own, for their tasks."),
    "workers": Setting(_count, None, "How many workers; as many as CPUs unless set."),
    "kind": Setting(_one_of("process", "thread"), None, "What a worker is: a process or a thread."),
    "queue": Setting(_words, (), "Queues to serve; every queue that a task names unless set."),
    "lease": Setting(
        check_seconds, 30.0, "Seconds after which a silent machine's tasks run elsewhere."
    ),
    "shutdown-timeout": Setting(check_seconds, 30.0, "Seconds that running tasks get to finish."),
    "drain": Setting(_flag, False, "Return when nothing is left to do."),
    "log-format": Setting(_one_of("text", "json"), "text", "How log lines look."),
    "verbosity": Setting(_level, 0, "2: everything; 0: what matters; -2: errors only."),
    "json": Setting(_flag, False, "Answer with JSON, for programs."),
}
"""Key -> what it is. Keys are the long flags."""

_FOREIGN: Final = ("FLOWQ_TEST_", "FLOWQ_SERVICE_", "FLOWQ_PORT")
"""Names of ours that are no settings, and those that Kubernetes makes for a service "flowq"."""


def load_settings(flags: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Say what holds for some settings.

    Parameters
    ----------
    flags : mapping of str to object
        What was said on the command line; None, or absent, where nothing was. Keys may be written
        with ``-`` or ``_``.
    keys : iterable of str
        The settings that are asked for, likewise; the answer uses the same spelling.

    Returns
    -------
    dict
        A value in its normal form, or the default, for each of `keys`.

    Raises
    ------
    ConfigError
        A value is wrong, or a key in ``[tool.flowq]`` or the environment is unknown.

    Examples
    --------
    >>> load_settings({"queue": "mail,slow"}, ["queue", "lease"])
    {'queue': ('mail', 'slow'), 'lease': 30.0}
    """
    said = {_key(k): v for k, v in flags.items() if v is not None}
    wanted = {asked: _key(asked) for asked in keys}
    lacking = [key for key in wanted.values() if key not in said]
    out: dict[str, Any] = {}
    environ = _environment()
    table: Mapping[str, Any] = {}
    path = None
    if any(key not in environ for key in lacking):
        path, table = _project(Path.cwd())
    for asked, key in wanted.items():
        if key in said:
            out[asked] = _checked(key, said[key], f"--{key}")
        elif key in environ:
            out[asked] = _checked(key, environ[key], _variable(key))
        elif key in table:
            value = _checked(key, table[key], f"{key} in [tool.flowq] of {path}")
            out[asked] = _beside(value, path) if key == "url" and path else value
        else:
            out[asked] = SETTINGS[key].default
    return out


def _key(word: str) -> str:
    key = word.replace("_", "-")
    if key not in SETTINGS:
        raise ConfigError(f"there is no setting {word!r}{nearest(key, SETTINGS)}")
    return key


def _variable(key: str) -> str:
    return "FLOWQ_" + key.replace("-", "_").upper()


def _checked(key: str, value: Any, where: str) -> Any:
    try:
        return SETTINGS[key].check(value)
    except ValueError as err:
        shown = "" if key == "url" else f" {value!r}"  # a URL may hold a password
        raise ConfigError(f"{where}:{shown} {err}") from None


def _environment() -> dict[str, str]:
    """Settings in the environment; empty variables count as not set.

    Others may own names that begin like ours, so of unknown ones only those that look like a
    misspelt setting are refused.
    """
    known = {_variable(key): key for key in SETTINGS}
    out: dict[str, str] = {}
    for name, value in os.environ.items():
        if not name.startswith("FLOWQ_") or name.startswith(_FOREIGN):
            continue
        if name in known:
            if value.strip():
                out[known[name]] = value
        elif difflib.get_close_matches(name, known, n=1, cutoff=0.85):
            raise ConfigError(
                f"the environment variable {name} is no setting{nearest(name, known)}"
            )
    return out


_projects: dict[tuple[Path, int], dict[str, Any]] = {}


def _project(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """Read ``[tool.flowq]`` of the nearest ``pyproject.toml`` from a folder upwards."""
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        try:
            written = path.stat().st_mtime_ns
        except OSError:
            continue
        found = _projects.get((path, written))
        if found is None:
            found = _projects[path, written] = _read(path)
        return path, found
    return None, {}


def _read(path: Path) -> dict[str, Any]:
    try:
        tool = (
            importlib.import_module(_TOML).loads(path.read_text(encoding="utf-8")).get("tool", {})
        )
    except (OSError, ValueError) as err:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigError(f"{path} cannot be read: {err}") from None
    table = tool.get("flowq", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: [tool.flowq] must be a table")
    out: dict[str, Any] = {}
    for word, value in table.items():
        key = word.replace("_", "-")
        if key not in SETTINGS:
            raise ConfigError(
                f"{path}: [tool.flowq] has no setting {word!r}{nearest(key, SETTINGS)}"
            )
        out[key] = value
    return out


def _beside(url: str, path: Path) -> str:
    """A relative SQLite path in a file is meant from that file's folder, wherever one starts."""
    head, tail = "sqlite:///", url.removeprefix("sqlite:///")
    if tail == url or tail.startswith("/"):
        return url
    return f"{head}{path.parent.as_posix()}/{tail}"
