# SPDX-License-Identifier: MIT
"""The state machine: states, events and trigger rules, all as tables.

What may happen to a task, a node or a run stands here and nowhere else. The stores only count,
compare and move; one contract test walks every cell of these tables on every store, and
``docs/semantics.md`` is checked against them.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final, NamedTuple

__all__ = [
    "FINAL",
    "FOREVER",
    "MEANING",
    "RULES",
    "TRANSITIONS",
    "Counts",
    "Event",
    "Rule",
    "State",
    "next_state",
    "outcome_of",
    "trigger_rule",
    "verdict",
]


class State(IntEnum):
    """Where a task, a node or a run stands. The number is what stores keep; text is for people."""

    WAITING = 0
    SCHEDULED = 1
    HELD = 2
    QUEUED = 3
    RUNNING = 4
    EXPANDED = 5
    SUCCESS = 6
    FAILED = 7
    BLOCKED = 8
    SKIPPED = 9
    CANCELLED = 10

    @property
    def label(self) -> str:
        """The state's name as people read it: ``"queued"``."""
        return self.name.lower()

    @property
    def final(self) -> bool:
        """Whether the state is left only by a new generation."""
        return self >= State.SUCCESS


FINAL: Final = frozenset(s for s in State if s.final)

MEANING: Final[dict[State, tuple[str, str]]] = {
    State.WAITING: (
        "upstream unfinished; an item of a map: no place is free",
        "its rule says run, or not; a place; cancel",
    ),
    State.SCHEDULED: (
        "due later (delay, eta, backoff, sleep), or not sent",
        "due; sent; expiry; cancel",
    ),
    State.HELD: ("may run, but its run is paused or a limit is full", "the limit frees; cancel"),
    State.QUEUED: ("in its queue", "fetched; expiry; cancel"),
    State.RUNNING: ("leased by a worker's session", "settled, given back, worker lost"),
    State.EXPANDED: ("its plan runs", "its last inner node ends"),
    State.SUCCESS: ("returned (or its expansion did)", "-"),
    State.FAILED: ("raised for good, expired, too late, or a dead letter", "-"),
    State.BLOCKED: ("could not run: something above it failed; names the culprit", "-"),
    State.SKIPPED: ("was not wanted", "-"),
    State.CANCELLED: ("stopped from outside", "-"),
}
"""For each state: what it means, and what it leaves by."""


class Event(IntEnum):
    """What may happen to one task or node."""

    READY = 0  # its rule says run (or it was enqueued alone), and it may run now
    LATER = 1  # the same, but its delay or eta lies ahead
    EXPAND = 2  # its plan is known (READY, or its body gave one): its inner nodes start
    PASS = 3  # the same, for a join: nothing to run
    DUE = 4  # its time has come
    FETCH = 5  # handed to a worker's session
    RETURN = 6  # given back: not started, or its task is unknown to that worker
    LOSE = 7  # its session is gone; it may run again
    DONE = 8  # the body returned
    RETRY = 9  # the body failed and may try again
    FAIL = 10  # failed for good, expired, or dead
    SKIP = 11  # raised Skip, or its rule fell to skipped parents
    BLOCK = 12  # its rule fell to failed parents
    CANCEL = 13  # stopped from outside, or its rule fell to cancelled parents
    END = 14  # its last inner node ended; the state is `outcome_of` its counts
    WAKE = 15  # it is a join that has slept long enough
    SEND = 17  # it is a join that waits for what is sent now
    HOLD = 18  # it would be fetched, and its run is paused
    FREE = 19  # its run goes on, or there is room at a limit
    FULL = 20  # READY or DUE, and a limit has no room for it
    LOSE_OUT = 16  # not wanted any more: a race that owns it is decided, or enough others succeeded


S, E = State, Event

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (S.WAITING, E.READY): S.QUEUED,
    (S.WAITING, E.LATER): S.SCHEDULED,
    (S.WAITING, E.FULL): S.HELD,
    (S.WAITING, E.EXPAND): S.EXPANDED,
    (S.WAITING, E.PASS): S.SUCCESS,
    (S.WAITING, E.SKIP): S.SKIPPED,
    (S.WAITING, E.BLOCK): S.BLOCKED,
    (S.WAITING, E.LOSE_OUT): S.SKIPPED,
    (S.WAITING, E.CANCEL): S.CANCELLED,
    (S.SCHEDULED, E.DUE): S.QUEUED,
    (S.SCHEDULED, E.FULL): S.HELD,
    (S.SCHEDULED, E.WAKE): S.SUCCESS,
    (S.SCHEDULED, E.SEND): S.SUCCESS,
    (S.HELD, E.FREE): S.QUEUED,
    (S.HELD, E.LOSE_OUT): S.SKIPPED,
    (S.HELD, E.CANCEL): S.CANCELLED,
    (S.SCHEDULED, E.LOSE_OUT): S.SKIPPED,
    (S.SCHEDULED, E.FAIL): S.FAILED,
    (S.SCHEDULED, E.CANCEL): S.CANCELLED,
    (S.SCHEDULED, E.LATER): S.SCHEDULED,
    (S.QUEUED, E.LATER): S.SCHEDULED,
    (S.QUEUED, E.FETCH): S.RUNNING,
    (S.QUEUED, E.HOLD): S.HELD,
    (S.QUEUED, E.FAIL): S.FAILED,
    (S.QUEUED, E.LOSE_OUT): S.SKIPPED,
    (S.QUEUED, E.CANCEL): S.CANCELLED,
    (S.RUNNING, E.RETURN): S.QUEUED,
    (S.RUNNING, E.LATER): S.SCHEDULED,
    (S.RUNNING, E.EXPAND): S.EXPANDED,
    (S.RUNNING, E.LOSE): S.QUEUED,
    (S.RUNNING, E.DONE): S.SUCCESS,
    (S.RUNNING, E.RETRY): S.SCHEDULED,
    (S.RUNNING, E.FAIL): S.FAILED,
    (S.RUNNING, E.SKIP): S.SKIPPED,
    (S.RUNNING, E.LOSE_OUT): S.SKIPPED,
    (S.RUNNING, E.CANCEL): S.CANCELLED,
    (S.EXPANDED, E.LOSE_OUT): S.SKIPPED,
    (S.EXPANDED, E.CANCEL): S.CANCELLED,
}
"""(state, event) -> state. A pair that is missing changes nothing. END leaves EXPANDED only.

What runs, or has expanded, comes to ``cancelled`` once its body, or what is inside, has stopped. A
task that fails for good and has a fallback becomes EXPANDED in its place.
"""


def next_state(state: State, event: Event) -> State | None:
    """Give the state that `event` leads to from `state`, or None where it changes nothing."""
    return TRANSITIONS.get((state, event))


FOREVER: Final = 0xFFFFFFFF
"""The number that stands for "no bound" in a rule."""


class Rule(NamedTuple):
    """A trigger rule as five numbers.

    *Run* when succeeded >= `a`, failed >= `b` and finished >= `c`; *do not run*, looked at first,
    when failed + cancelled > `d`, skipped > `e`, or `a` or `b` can no longer be reached; else
    wait. `failed` counts parents that are ``failed`` or ``blocked``.
    """

    a: int
    b: int
    c: int
    d: int
    e: int


class Counts(NamedTuple):
    """How many direct parents ended how."""

    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0


N: Final = -1  # stands for the number of parents in the table below

RULES: Final[dict[str, tuple[Rule, str]]] = {
    "all_success": (Rule(N, 0, N, 0, 0), "all succeeded"),
    "all_done": (Rule(0, 0, N, FOREVER, FOREVER), "all ended, however"),
    "none_failed": (Rule(0, 0, N, 0, FOREVER), "none failed or was cancelled; skipped is fine"),
    "none_failed_min_one_success": (Rule(1, 0, N, 0, FOREVER), "the same, and one succeeded"),
    "one_success": (Rule(1, 0, 0, FOREVER, FOREVER), "as soon as one succeeded"),
    "one_failed": (Rule(0, 1, 0, FOREVER, FOREVER), "as soon as one failed (not: was cancelled)"),
    "all_failed": (Rule(0, N, N, FOREVER, FOREVER), "all failed"),
}
"""Name -> numbers (N is the number of parents) and what it means. Names are Airflow's."""

_AT_LEAST = re.compile(r"at_least\(\s*(\d{1,9})\s*\)")


def trigger_rule(text: str, parents: int) -> Rule:
    """Turn a trigger rule as users write it into its five numbers.

    Parameters
    ----------
    text : str
        A key of `RULES`, or ``"at_least(k)"``.
    parents : int
        How many direct parents the rule counts.

    Raises
    ------
    ValueError
        The rule is unknown, or asks for more parents than there are.

    Examples
    --------
    >>> trigger_rule("all_success", 3)
    Rule(a=3, b=0, c=3, d=0, e=0)
    >>> trigger_rule("at_least(2)", 3).a
    2
    """
    found = _AT_LEAST.fullmatch(text.strip())
    if found:
        rule = Rule(int(found[1]), 0, 0, FOREVER, FOREVER)
    elif text in RULES:
        rule = Rule(*(parents if x == N else x for x in RULES[text][0]))
    else:
        raise ValueError(
            f"trigger_rule={text!r} is not known; use one of {', '.join(RULES)}, at_least(k)"
        )
    if rule.a > parents or rule.b > parents:
        raise ValueError(
            f"trigger_rule={text!r} asks for {max(rule.a, rule.b)} parents, but there are {parents}"
        )
    return rule


def verdict(rule: Rule, parents: int, counts: Counts) -> State | None:
    """Say what a waiting node becomes, given how its parents have ended so far.

    Returns
    -------
    State or None
        ``QUEUED`` stands for "run"; ``BLOCKED``, ``SKIPPED`` or ``CANCELLED`` for "do not run";
        None for "wait".

    Notes
    -----
    The order of arrival never decides: a node that must not run becomes ``blocked`` as soon as
    too many parents failed, and anything else only when all of them have ended.
    """
    succeeded, failed, skipped, cancelled = counts
    finished = succeeded + failed + skipped + cancelled
    left = parents - finished
    if (
        failed + cancelled > rule.d
        or skipped > rule.e
        or succeeded + left < rule.a
        or failed + left < rule.b
    ):
        if failed > rule.d:
            return State.BLOCKED
        if left:
            return None
        if rule.b:
            return State.CANCELLED if cancelled else State.SKIPPED
        if failed:
            return State.BLOCKED
        return State.CANCELLED if cancelled else State.SKIPPED
    if succeeded >= rule.a and failed >= rule.b and finished >= rule.c:
        return State.QUEUED
    return None


def outcome_of(
    failures: int,
    cancels: int,
    skips: int,
    *,
    tolerate: int = 0,
    stopped: bool = False,
    met: bool | None = None,
) -> State:
    """Say how an expansion ends once all nodes of its body have ended.

    Parameters
    ----------
    failures, cancels : int
        Inner nodes that ended ``failed`` or ``blocked``, or ``cancelled``, and are not forgiven.
    skips : int
        Nodes that the expansion's value names and that ended ``skipped``.
    tolerate : int
        How many failures do not count.
    stopped : bool
        Whether it was cancelled while its body ran.
    met : bool, optional
        Whether as many as it needs succeeded; then nothing else counts. None: it has no need.
    """
    if stopped:
        return State.CANCELLED
    if met is not None:
        return State.SUCCESS if met else State.FAILED
    if failures > tolerate:
        return State.FAILED
    if cancels:
        return State.CANCELLED
    return State.SKIPPED if skips else State.SUCCESS
