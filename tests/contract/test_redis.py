# SPDX-License-Identifier: MIT
"""The contract of a store, on a real Redis-compatible server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flowq.clock import Clock
from flowq.storage import Store, open_store
from flowq.testing.contract import *  # noqa: F403


@pytest.fixture
def make_store(redis_url: str, store_name: str) -> Callable[[Clock], Store]:
    return lambda clock: open_store(redis_url, name=store_name, clock=clock)
