# SPDX-License-Identifier: MIT
"""Every option that is flowq's, where it is legal, and what retrying means.

`OPTIONS` is the one table: the decorators, ``.options(...)``, the app's defaults and
``docs/reference/options.md`` are all made from it.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final, Literal, TypeAlias

import msgspec

from flowq.elsewhere import ELSEWHERE
from flowq.errors import ConfigError, GraphError
from flowq.states import trigger_rule

__all__ = [
    "MAX_PRIORITY",
    "NAME",
    "ONLY_MAPS",
    "OPTIONS",
    "Option",
    "Place",
    "RetryPolicy",
    "check_name",
    "check_options",
    "misplaced",
    "nearest",
    "to_ms",
    "wait_ms",
]

MAX_PRIORITY: Final = 1000
LONGEST_MS: Final = 100 * 365 * 86_400_000
"""The longest time that can be said: 100 years."""
LEAST_MEMORY: Final = 600
"""Seconds for which stores remember every id after its end, so that a repeated enqueue is none."""
LAST_MS: Final = round(datetime(3000, 1, 1, tzinfo=timezone.utc).timestamp() * 1000)
"""The last moment that can be said."""
NAME: Final = re.compile(r"[A-Za-z0-9_.\[\]:/-]{1,200}")
"""What ids and names may look like wherever they become keys, paths or URLs."""

Place: TypeAlias = Literal[
    "task", "call", "node", "map", "branch", "first", "sleep", "wait_for", "flow", "app"
]
"""Where an option may be said: on ``@q.task``; on a task that is called; on a signature or node; on
a task of which a map is made; on a branch, a race, a sleep; on a chain, group, DAG or run; as a
default of the whole app."""

PLACES: Final[dict[str, str]] = {
    "task": "@q.task(...)",
    "call": "task.options(...)(...)",
    "node": ".options(...) of a signature or node",
    "map": "task.options(...).map(...), the same of a flow, .options(...) of a map",
    "branch": "branch(...).options(...)",
    "first": "first(...).options(...)",
    "sleep": "sleep(...).options(...)",
    "wait_for": "wait_for(...).options(...)",
    "flow": "@q.flow(...), .options(...) of a flow, chain, group or DAG",
    "app": "FlowQ(...)",
}


class Option(msgspec.Struct, frozen=True):
    """One option: its check, its default, where it is legal, and what it is for."""

    check: Callable[[Any], Any]
    default: Any
    places: tuple[Place, ...]
    unit: str
    doc: str
    takes_none: bool = False
    """Whether None is a value of its own, not the same as saying nothing."""


# --- checks: give the value in its normal form, or raise ValueError with what is wrong -----------


def to_ms(value: float | timedelta, *, zero: bool = True) -> int:
    """Turn seconds or a timedelta into milliseconds.

    Raises
    ------
    ValueError
        It is negative, not finite, longer than 100 years, or no length of time.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be seconds (int or float) or a timedelta")
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("must be finite")
    if value < 0:
        raise ValueError("is negative")
    if value == 0 and not zero:
        raise ValueError("must be more than 0")
    if value > LONGEST_MS / 1000:
        raise ValueError(
            f"must be at most 100 years, {LONGEST_MS // 1000} (in seconds, not milliseconds)"
        )
    return round(value * 1000)


def _seconds(value: Any) -> float:
    return to_ms(value) / 1000


def _seconds_of_a_key(value: Any) -> float:
    seconds = _seconds(value)
    if seconds < LEAST_MEMORY:
        raise ValueError(f"must be at least {LEAST_MEMORY}: so long every id is remembered")
    return seconds


def _key(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 1000:
        raise ValueError("must be text of 1 to 1000 characters")
    return value


def _version(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be text or a whole number")
    return str(value)


def _some_seconds(value: Any) -> float:
    return to_ms(value, zero=False) / 1000


def _moment(value: Any) -> int:
    """A datetime as milliseconds; naive ones are the local zone's.

    All of the past is alike, and 0 stands for no moment: so what lies before 1970 is 1.
    """
    if not isinstance(value, datetime):
        raise ValueError("must be a datetime (naive ones are the local zone's)")
    try:
        ms = round(value.timestamp() * 1000)
    except (OverflowError, ValueError):  # a naive one at either end of what a datetime can say
        ms = 1 if value.year < 1970 else LAST_MS + 1
    if ms > LAST_MS:
        raise ValueError("must lie before the year 3000")
    return max(1, ms)


def _moment_or_seconds(value: Any) -> int | float:
    """Seconds stay a float, a moment becomes an int of milliseconds since 1970."""
    return _moment(value) if isinstance(value, datetime) else to_ms(value, zero=False) / 1000


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("must be a whole number")
        if not low <= value <= high:
            raise ValueError(f"must lie between {low} and {high}")
        return value

    return check


def _places(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10_000_000:
        raise ValueError(
            "must be a whole number from 1 to 10,000,000, of what may go on at a time; leave it "
            "out for no limit"
        )
    return value


def _number(low: int, high: int) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise ValueError(f"must be a number of at least {low} and at most {high}")
        return float(value)

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be True or False")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError("must be 1 to 200 of the characters A-Z a-z 0-9 _ . [ ] : / -")
    return value


def _no_path(name: str) -> None:
    if set(name) & set("/[]"):
        raise ValueError(
            "cannot be the name of a node: / and brackets are for the paths of what is inside"
        )


def _rule(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text, such as 'all_done'")
    try:  # only whether it is known; counts are checked with parents
        trigger_rule(value, 1_000_000_000)
    except ValueError as err:
        raise ValueError(str(err).removeprefix(f"trigger_rule={value!r} ")) from None
    return value


def _one_of(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(map(repr, words))}")
        return str(value)

    return check


def _share(value: Any) -> int | float:
    """How many of a list: so many, or so large a part of it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a whole number, or a part of the list between 0.0 and 1.0")
    if value < 0 or (isinstance(value, float) and not value <= 1):
        raise ValueError("must be a whole number from 0 on, or a part between 0.0 and 1.0")
    return value


def _step(value: Any) -> Any:
    """A composition, or a list of them: what places itself in a graph."""
    steps = value if isinstance(value, list | tuple) else (value,)
    if not steps:
        raise ValueError("must be a signature, such as alert.s()")
    for step in steps:
        if hasattr(type(step), "put"):
            continue
        name = getattr(step, "name", None)
        if callable(getattr(step, "s", None)) and isinstance(name, str):
            raise ValueError(f"must be a signature; write {name.rpartition('.')[2]}.s(...)")
        raise ValueError("must be a signature, such as alert.s()")
    return value


def _instead(value: Any) -> Any:
    """A task, which is called as the failed one was, or a composition."""
    if not hasattr(type(value), "put") and not callable(getattr(value, "call_local", None)):
        raise ValueError("must be a task, or a signature such as mirror.s(...)")
    return value


def _anything(value: Any) -> Any:
    return value


def _exceptions(value: Any) -> tuple[str, ...]:
    """Exception classes, as the qualified names by which they travel."""
    kinds = value if isinstance(value, list | tuple) else (value,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ValueError("must be an exception class or a tuple of them")
    return tuple(f"{k.__module__}.{k.__qualname__}" for k in kinds)


def check_name(value: str, what: str) -> str:
    """Give a name back if it may become a key.

    Raises
    ------
    ConfigError
        It may not.
    """
    try:
        return _name(value)
    except ValueError as err:
        raise ConfigError(f"{what} {value!r} {err}") from None


_T: Final[tuple[Place, ...]] = ("task", "call", "node", "map", "app")
_LATER: Final[tuple[Place, ...]] = ("task", "call", "node", "map")

OPTIONS: Final[dict[str, Option]] = {
    "retries": Option(
        _whole(0, 1_000_000), 0, _T, "", "How often a failed body runs again; 3 is 4 attempts."
    ),
    "retry_delay": Option(_seconds, 0.0, _T, "seconds", "Wait before the first retry."),
    "backoff": Option(
        _number(1, 1_000_000),
        1.0,
        _T,
        "",
        "Factor by which the wait grows: retry_delay * backoff^(k-1).",
    ),
    "max_delay": Option(_seconds, None, _T, "seconds", "The longest wait before a retry."),
    "jitter": Option(_flag, False, _T, "", "Scale each wait by a random factor from 0.5 to 1."),
    "retry_on": Option(
        _exceptions,
        ("builtins.Exception",),
        _T,
        "",
        "Exception class, or tuple of them, that are tried again; others fail at once.",
    ),
    "priority": Option(
        _whole(-MAX_PRIORITY, MAX_PRIORITY),
        None,
        (*_T, "branch", "flow"),
        "",
        "Higher is handed out first; 0 unless set. A run's is added to its nodes'.",
    ),
    "queue": Option(_name, "default", _T, "", "Name of the queue."),
    "expires": Option(
        _moment_or_seconds,
        None,
        _LATER,
        "seconds or datetime",
        "Not begun by then (seconds: since it first might run), it fails.",
    ),
    "delay": Option(_seconds, 0.0, _LATER, "seconds", "Wait before it may run."),
    "eta": Option(
        _moment,
        None,
        _LATER,
        "datetime",
        "Moment before which it does not run; naive ones are the local zone's.",
    ),
    "result_ttl": Option(
        _seconds,
        86_400.0,
        (*_T, "flow"),
        "seconds",
        "How long a success is kept after its end; 0 keeps no value.",
    ),
    "failed_ttl": Option(
        _seconds,
        30 * 86_400.0,
        (*_T, "flow"),
        "seconds",
        "How long a failure is kept after its end.",
    ),
    "max_losses": Option(
        _whole(0, 255),
        3,
        _T,
        "",
        "Lost workers after which a message is dead; 0: never run again after a lost worker.",
    ),
    "prefetch": Option(
        _whole(0, 1), 0, _T, "", "1: never fetched together with others; 0: in adaptive batches."
    ),
    "trigger_rule": Option(
        _rule,
        "all_success",
        ("node", "map", "branch", "sleep", "wait_for"),
        "",
        "Which ends of its parents let a node run.",
    ),
    "failure_policy": Option(
        _one_of("block", "cancel", "continue"),
        "block",
        ("node", "map", "branch", "flow"),
        "",
        "What its final failure does: block what depends on it, cancel all else around it, or count"
        " as a success below.",
    ),
    "default": Option(
        _anything,
        None,
        ("node", "map", "branch", "flow"),
        "",
        "Value in the place of its own final failure; implies failure_policy='continue'.",
        True,
    ),
    "fallback": Option(
        _instead,
        None,
        ("node", "map", "branch", "flow"),
        "",
        "What it becomes after its final failure: a task, called with its arguments, or a signature"
        ", given the Failure.",
    ),
    "on_error": Option(
        _step,
        None,
        ("node", "map", "branch", "flow"),
        "",
        "Signature that runs at once when it has failed, given the Failure.",
    ),
    "on_success": Option(
        _step, None, ("flow",), "", "Signature that runs after a success, given the value."
    ),
    "on_failure": Option(
        _step, None, ("flow",), "", "Signature that runs after a failure, given the Failure."
    ),
    "finally_": Option(
        _step, None, ("flow",), "", "Signature that runs after all the rest, whatever came of it."
    ),
    "node_failure_policy": Option(
        _one_of("block", "cancel", "continue"),
        "block",
        ("flow",),
        "",
        "The failure_policy of its nodes; not of items of maps, nor inside maps and other flows.",
    ),
    "items": Option(
        _one_of("all", "cancel", "keep"),
        "all",
        ("map",),
        "",
        "A failed item fails the map after the rest, cancels the rest, or is kept as a Failure.",
    ),
    "tolerate": Option(
        _share,
        None,
        ("map",),
        "",
        "So many items, or so large a part of them, may fail; they are kept as a Failure.",
    ),
    "atomic": Option(
        _flag,
        False,
        ("flow",),
        "",
        "What runs again inside it does so with all of it: for graphs whose cleanup takes away what"
        " their nodes need.",
    ),
    "deadline": Option(
        _some_seconds,
        None,
        ("map", "flow"),
        "seconds",
        "How long its body may take from its start, or its newest retry; then it has failed.",
    ),
    "need": Option(
        _whole(1, 10_000_000),
        None,
        ("map",),
        "",
        "So many successes are enough: the rest is not wanted any more, and fewer are a failure.",
    ),
    "max_parallel": Option(
        _places,
        None,
        ("map", "flow"),
        "",
        "Of a map: how many items may be under way at a time, from their first start to their end."
        " Of a graph that is started or called: how many of its tasks may be queued or running at"
        " a time; on @q.flow: of all runs of the flow together.",
    ),
    "max_width": Option(
        _whole(1, 10_000_000),
        100_000,
        ("map",),
        "",
        "How many items a map may have whose list comes with the run.",
    ),
    "chunksize": Option(
        _whole(1, 10_000_000),
        None,
        ("map",),
        "",
        "How many elements of a map of a task go into one message, which is one item: it fails and"
        " is retried as one. One each unless set.",
    ),
    "unpack": Option(
        _flag, None, ("map",), "", "Whether tuple items become arguments; else as fits the task."
    ),
    "key": Option(
        _key,
        None,
        ("call", "node", "map", "flow"),
        "",
        "Idempotency key of what is started: the same key gives what exists, and starts nothing.",
    ),
    "key_ttl": Option(
        _seconds_of_a_key,
        None,
        ("call", "node", "map", "flow"),
        "seconds",
        "How long the key is remembered after the end, at least 600; else as long as what it"
        " started is kept.",
    ),
    "detached": Option(
        _flag,
        False,
        ("call", "node", "map", "flow"),
        "",
        "Whether what a body starts goes on when that body is cancelled.",
    ),
    "cache": Option(
        _seconds,
        0.0,
        ("task", "call", "node", "map"),
        "seconds",
        "How long a success stands for equal calls of the task, whose bodies do not run; 0: off.",
    ),
    "version": Option(
        _version,
        None,
        ("task",),
        "",
        "Of what the body does: a part of the key under which results are cached; `flowq run show` "
        "tells which nodes ran under another than they were built with.",
    ),
    "outputs": Option(
        _whole(1, 1_000),
        None,
        ("task",),
        "",
        "How many values the task returns, as a tuple or list: in a flow `a, b = split(x)` takes "
        "them apart. A value of another length fails it.",
    ),
    "context": Option(
        _flag, False, ("task",), "", "Pass the running task as keyword argument `task`."
    ),
    "name": Option(
        _name,
        None,
        ("task", "node", "map", "branch", "first", "sleep", "wait_for", "flow"),
        "",
        "Name of the task, node or run.",
    ),
}


ONLY_MAPS: Final = frozenset(key for key, option in OPTIONS.items() if option.places == ("map",))
"""Options that say how many, and what becomes of them: of maps alone."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Give ``"; did you mean 'x'?"`` for the nearest known word, or nothing."""
    found = difflib.get_close_matches(word, list(known), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(f) for f in found)}?" if found else ""


def misplaced(option: str) -> str:
    """Say where an option goes that was said elsewhere."""
    right = " or ".join(PLACES[p] for p in OPTIONS[option].places)
    return f"option {option!r} does not go here; say it in {right}"


def check_options(given: Mapping[str, Any], place: Place, who: str) -> dict[str, Any]:
    """Check options said at a place, and give them in their normal form.

    Parameters
    ----------
    given : mapping of str to object
    place : Place
    who : str
        What they were said on, for the error: ``"task shop.add"``.

    Returns
    -------
    dict
        Only what was given. Seconds are floats, moments ints of milliseconds since 1970.

    Raises
    ------
    ConfigError, GraphError
        An option is unknown, in a wrong place, or has a value out of bounds. Which of the two:
        `ConfigError` for ``task`` and ``app``.
    """
    error = ConfigError if place in ("task", "app") else GraphError
    out: dict[str, Any] = {}
    for key, value in given.items():
        option = OPTIONS.get(key)
        if option is None:
            said = ELSEWHERE.get(key)
            hint = f"; {said}" if said else nearest(key, OPTIONS)
            raise error(f"{who}: there is no option {key!r}{hint}")
        if place not in option.places:
            raise error(f"{who}: {misplaced(key)}")
        if value is None and option.default is None and not option.takes_none:
            continue
        try:
            out[key] = option.check(value)
            if key == "name" and place != "task":
                _no_path(value)
        except ValueError as err:
            raise error(f"{who}: {key}={value!r} {err}") from None
    if out.get("delay") and out.get("eta"):
        raise error(f"{who}: give delay= or eta=, not both")
    return out


class RetryPolicy(msgspec.Struct, frozen=True):
    """Whether and when a failed body runs again; see `OPTIONS` for each field."""

    retries: int = 0
    retry_delay: float = 0.0
    backoff: float = 1.0
    max_delay: float | None = None
    jitter: bool = False
    retry_on: tuple[str, ...] = ("builtins.Exception",)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> RetryPolicy:
        """Take the fields of a policy out of checked options."""
        return cls(**{k: _as_field(options[k]) for k in cls.__struct_fields__ if k in options})

    def wants(self, exc: BaseException) -> bool:
        """Whether an exception is one that is tried again."""
        names = {f"{c.__module__}.{c.__qualname__}" for c in type(exc).__mro__}
        return not names.isdisjoint(self.retry_on)


def _as_field(value: Any) -> Any:
    """MessagePack gives lists where tuples went in."""
    return tuple(value) if isinstance(value, list) else value


def wait_ms(policy: RetryPolicy, failed: int, rand: Callable[[], float] = random.random) -> int:
    """Say how long to wait after the `failed`-th failed attempt (from 1), in milliseconds.

    Examples
    --------
    >>> p = RetryPolicy(retries=9, retry_delay=2, backoff=2, max_delay=10)
    >>> [wait_ms(p, k) for k in (1, 2, 3, 4)]
    [2000, 4000, 8000, 10000]
    """
    longest = 30 * 86_400.0 if policy.max_delay is None else policy.max_delay
    if policy.retry_delay == 0:
        return 0
    try:
        wait = min(longest, policy.retry_delay * policy.backoff ** (failed - 1))
    except OverflowError:  # past any bound
        wait = longest
    return round(wait * 1000 * (0.5 + 0.5 * rand() if policy.jitter else 1.0))
