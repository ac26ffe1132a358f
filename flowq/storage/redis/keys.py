# SPDX-License-Identifier: MIT
"""Every key of a store: its type and its meaning.

All begin with ``{name}:``, so that they lie in one slot of a cluster, where scripts need them; an
ACL needs ``~{name}:*`` alone. Scripts make the rest of a key themselves, from the prefix of the
one key that they are given.
"""

from __future__ import annotations

from typing import Final

__all__ = ["KEYS", "prefix", "route"]

KEYS: Final[dict[str, tuple[str, str]]] = {
    "layout": ("string", "number of the layout"),
    "m": ("hash", "id -> row of a task alone that has not ended; never rewritten"),
    "r:<queue>:<level>": (
        "list",
        "ids that are ready; level is 2 * priority, + 1 for what goes "
        "before what was enqueued; 'a' before it: lost a worker, handed out alone",
    ),
    "p:<queue>": ("zset", "level -> level, of lists that may not be empty"),
    "g:<queue>": ("hash", "id -> entries in lists that count no more; '' -> how many in all"),
    "q": ("set", "names of queues that ever had a message"),
    "k:<queue>": ("zset", "one member: the wake-up hint"),
    "s": ("zset", "id -> when it is due, ms; with an 'o' behind it: a deadline"),
    "s:o": ("string", "how many of those are deadlines"),
    "e": ("zset", "id -> when it expires, ms"),
    "d": ("hash", "id -> deliveries, attempts, losses; only of what was handed out before"),
    "h": ("hash", "id -> the workers it lost"),
    "L": ("zset", "session -> deadline, ms"),
    "w:<session>": ("hash", "id -> lease; 'i' -> who it is; 'b' -> the id that it runs alone"),
    "z:<session>": ("set", "ids that it must stop"),
    "y:<session>": ("zset", "one member: the hint that it must stop something"),
    "t": ("string", "when anybody last stepped or renewed, ms"),
    "n:<run>": (
        "hash",
        "index (4 bytes) -> row; 'r' -> created, times to live, name; "
        "'q' -> lanes; 'u' -> nodes uploaded, until it is complete; 'x' and index -> what is "
        "reserved for its fragment; 'X' -> ranges that nobody sees yet; 'o' and index -> its row "
        "before it became an expansion; 'f' and index -> what goes along with the nodes in it; "
        "'l' and index: it goes on though it has lost a race; "
        "'t' and index: it was overdue while it ran; "
        "'m' and index -> how many are under way in a bounded expansion, entries behind the next; "
        "'w' -> what is to run again; 'I' -> how much was sent to it; 'i' and number -> what; "
        "'kept: ', name, '\\0' and for whom -> numbers of what is kept; "
        "'key: ' and key: something was sent with it; "
        "'P': it is paused; 'V' -> how often something of it has moved; 'Z' -> indexes of what is "
        "parked; 'p' and index -> what it ended with; 'R' -> what park() was asked for; "
        "'E' -> when the run ended (8 bytes), where that was not when its root did",
    ),
    "able:<run>": (
        "zset",
        "index of a bounded expansion, and of a node in it that goes along with others and might "
        "begin, were there a place",
    ),
    "taken:<limit>": ("zset", "nodes that have a place there; a limit of a run is '/', run, key"),
    "wanted:<limit>": ("zset", "nodes that wait for one -> their turn"),
    "started:<id>": (
        "list",
        "of a run or task: id of what a body of it has started, index (4 bytes) of that body or ''",
    ),
    "turns": ("string", "the last page in which some were held, for that"),
    "b:<run>": ("list", "indexes of nodes that were held while it was paused"),
    "j:<run>": ("zset", "index, signal and name of a join that waits for it -> since when, ms"),
    "c:<run>": ("string", "32 bytes a node: what changes"),
    "v:<run>": ("hash", "index (4 bytes) -> delivery and kind of its settlement, cell"),
    "v:<5 bytes>": (
        "hash",
        "id -> until when, settlement, cell: tasks alone that did not fail, "
        "those of 256 ms together",
    ),
    "f:<5 bytes>": ("hash", "the same of those that failed"),
    "x": ("zset", "what to remove -> when, ms"),
    "todo": ("list", "pages left: run, node, state, culprit, edges done"),
    "paused": ("set", "runs of which nothing is handed out"),
    "again": ("set", "runs of which nodes are made to run again"),
    "runs": ("zset", "run -> number, by which they are listed"),
    "runs:n": ("string", "the last of those numbers"),
    "active": ("set", "runs that have not ended"),
    "dead": ("hash", "id -> dead letter"),
    "deads": ("zset", "id -> number, by which they are listed"),
    "deads:n": ("string", "the last of those numbers"),
    "wait": (
        "hash",
        "id -> tokens (16 bytes each) of the threads that wait for its end, "
        "or a move, where it is a run with 'm' behind it",
    ),
    "cache:<key>": (
        "string",
        "6 bytes, and a result that stands for equal calls; expires by itself",
    ),
    "a:<token>": ("list", "answers to a waiting thread; lives a minute"),
}
"""Key behind the prefix -> (type, meaning)."""


def prefix(name: str) -> bytes:
    """Give what all keys of a store begin with."""
    return b"{%s}:" % name.encode()


def route(name: str) -> bytes:
    """Give the key that routes every script to the store's slot."""
    return prefix(name) + b"L"
