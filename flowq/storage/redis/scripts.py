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
    "cancel", "enqueue", "held", "look", "nodes", "open", "page", "release", "renew", "reschedule",
    "status", "step", "submit", "sweep", "wait",
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


@cache
def load(name: str) -> Script:
    """Give a script with its pieces pasted in, comments and indentation left out."""
    text = _INCLUDE.sub(lambda found: read(found[1]), read(name))
    lines = (line.strip() for line in text.splitlines())
    return Script(name, "\n".join(x for x in lines if x and not x.startswith("--")))
