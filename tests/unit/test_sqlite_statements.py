# SPDX-License-Identifier: MIT
"""The named statements: each is used, and none walks a table that grows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowq.storage.sqlite
from flowq.storage.sqlite.statements import SCHEMA, SQL

SOURCE = "".join(
    path.read_text(encoding="utf-8") for path in Path(flowq.storage.sqlite.__path__[0]).glob("*.py")
)
SMALL = {"store", "queue", "session", "s", "rewind", "CONSTANT"}
"""Tables of a few rows, or none; and a query without a table."""
PEOPLE = {"status", "left"}
"""What only people ask for may count, and who ends when nothing is left."""


@pytest.fixture(scope="module")
def db() -> Iterator[sqlite3.Connection]:
    found = sqlite3.connect(":memory:")
    for statement in SCHEMA:
        found.execute(statement)
    yield found
    found.close()


def test_a_statement_that_is_named_exists() -> None:
    named = re.findall(r"(?:SQL\[|\bput\(\s*)\"(\w+)\"", SOURCE)

    assert named
    assert set(named) <= set(SQL)


@pytest.mark.parametrize("name", SQL)
def test_a_statement_is_used(name: str) -> None:
    assert f'"{name}"' in SOURCE


@pytest.mark.parametrize("name", SQL)
def test_a_statement_reads_by_key_or_in_the_order_of_an_index(
    name: str, db: sqlite3.Connection
) -> None:
    numbered = [int(n) for n in re.findall(r"\?(\d+)", SQL[name])]
    values = [None] * (max(numbered) if numbered else SQL[name].count("?"))

    steps = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", values)]

    scans = {step.split()[1] for step in steps if step.startswith("SCAN")} - {"json_each"}
    bounded = "LIMIT" in SQL[name] and not any("TEMP" in step for step in steps)
    assert scans <= SMALL or bounded or name in PEOPLE, steps
