# SPDX-License-Identifier: MIT
"""Lua scripts: one file a transition, shared pieces pasted in, called by their hash.

A script is named by its own hash, so two versions of flowq can share a server during a deploy.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

__all__ = ["NAMES", "Script", "load"]

NAMES = (
    "cancel", "enqueue", "fork", "grow", "held", "left", "look", "nodes", "open", "page", "park",
    "pause", "places", "release", "renew", "reschedule", "rewind", "runs", "send", "started",
    "status", "step", "submit", "sweep", "wait", "watch",
)  # fmt: skip
_INCLUDE = re.compile(r"^-- @include (\w+)\n", re.M)


class Script:
    """One script: its source, and the bytes with which every call of it begins."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source.encode()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()
        self.head = b"$7\r\nEVALSHA\r\n$40\r\n" + self.sha + b"\r\n$1\r\n1\r\n"


def read(name: str) -> str:
    """Give the text of one file."""
    return (files(__package__) / "lua" / f"{name}.lua").read_text("utf-8")


_CONSTANTS = re.compile(r"^local ([A-Z][A-Z0-9_, ]*) = ([0-9, ]+)$", re.M)


def _inline(text: str) -> str:
    """Write constants where they are used: each would be one more upvalue of each function."""
    known: dict[str, str] = {}
    for names, values in _CONSTANTS.findall(text):
        pairs = zip(names.split(", "), values.split(", "), strict=True)
        known.update(pairs)
    text = _CONSTANTS.sub("", text)
    used = re.compile(rf"(?<![\w'.])({'|'.join(known)})(?![\w'])")
    return used.sub(lambda found: known[found[1]], text)


@cache
def load(name: str) -> Script:
    """Give a script with its pieces pasted in, comments and indentation left out.

    Everything behind the first piece becomes a function in it. A call creates all functions anew,
    and to capture a local of the *enclosing* function costs a search through all that are
    captured already, while what that one has captured itself is at hand: without this, a step
    spends twice the time on getting ready (45 and 24 us).
    """
    text = read(name)
    parts = _INCLUDE.split(text)  # text, piece, text, piece, ..., text
    flags, *head = parts[0].splitlines()
    base, *pieces = parts[1::2]
    body = "\n".join([*map(read, pieces), parts[-1]])
    text = "\n".join([*head, read(base), "return (function()", body, "end)()"])
    lines = (line.strip() for line in _inline(text).splitlines())
    return Script(name, "\n".join([flags, *(x for x in lines if x and not x.startswith("--"))]))
