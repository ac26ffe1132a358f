# SPDX-License-Identifier: MIT
"""The cases that broke others: each on a SQLite file and on a real Redis server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flowq import FlowQ
from flowq.testing import ManualClock
from tests.cases.stage import Stage


@pytest.fixture(params=["sqlite", "redis"])
def stage(request: pytest.FixtureRequest, store_name: str, tmp_path: Path) -> Iterator[Stage]:
    """An app of its own on each store in turn."""
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
    else:
        url = f"sqlite:///{tmp_path}/q.db?synchronous=normal"
    clock = ManualClock()
    q = FlowQ(store_name, url, clock=clock)
    yield Stage(q, clock, request.param)
    q.store.close()
