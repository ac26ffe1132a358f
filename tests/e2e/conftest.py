# SPDX-License-Identifier: MIT
"""Terminals for the tests of the command line; those that matter for it on both stores."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A terminal whose store is a SQLite file beside the program."""
    return Shell(tmp_path)


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment that says where the store is, for each store in turn."""
    if request.param == "sqlite":
        return {}
    return {"FLOWQ_URL": request.getfixturevalue("redis_url")}


@pytest.fixture
def each(tmp_path: Path, env: dict[str, str]) -> Shell:
    """A terminal on each store in turn, for an app that no other test has."""
    return Shell(tmp_path, f"t{secrets.token_hex(6)}", env)


@pytest.fixture
def worker() -> Iterator[list[subprocess.Popen[str]]]:
    """Workers that a test starts; killed at its end."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()
