# SPDX-License-Identifier: MIT
"""The statements of ``queries.sql`` by name, and the text of ``schema.sql``."""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

__all__ = ["SCHEMA", "SQL"]


def _read(name: str) -> str:
    return resources.files("flowq.storage.sqlite").joinpath(name).read_text(encoding="utf-8")


def _by_name(text: str) -> dict[str, str]:
    """Read named statements: each stands under a line ``-- name: x``."""
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    found: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        lines = (line for line in body.splitlines() if not line.startswith("--"))
        found[name] = " ".join(" ".join(lines).split())
    return found


SQL: Final = _by_name(_read("queries.sql"))
SCHEMA: Final = [part for part in _read("schema.sql").split(";\n") if part.strip()]
