# SPDX-License-Identifier: MIT
"""The contract of a store, on the model with which real ones are compared."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flowq.clock import Clock
from flowq.storage import Store
from flowq.testing.contract import *  # noqa: F403
from flowq.testing.model import ModelStore


@pytest.fixture
def make_store() -> Callable[[Clock], Store]:
    return ModelStore
