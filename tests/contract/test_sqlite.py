# SPDX-License-Identifier: MIT
"""The contract of a store, on SQLite in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flowq.clock import Clock
from flowq.storage import Store, open_store
from flowq.testing.contract import *  # noqa: F403


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[[Clock], Store]:
    return lambda clock: open_store(f"sqlite:///{tmp_path}/contract.db", clock=clock)
