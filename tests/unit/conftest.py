# SPDX-License-Identifier: MIT
"""What tests of handles share: an app on each store, and a worker that waits to be told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flowq import FlowQ
from tests.unit.hand import Hand
from tests.unit.staged import Stage, store_of


@pytest.fixture(params=["memory", "sqlite", "redis"])
def q(request: pytest.FixtureRequest, store_name: str, tmp_path: Path) -> Iterator[FlowQ]:
    """An app on each store in turn, which is closed at the end."""
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/q.db?synchronous=normal"}
    url = urls.get(request.param) or request.getfixturevalue("redis_url")
    app = FlowQ(store_name, url)
    yield app
    app.store.close()


@pytest.fixture
def hand(q: FlowQ) -> Hand:
    """A worker of that app that does nothing by itself."""
    return Hand(q)


@pytest.fixture(params=["model", "sqlite", "redis"])
def stage(request: pytest.FixtureRequest, store_name: str, tmp_path: Path) -> Iterator[Stage]:
    """The app of the test's module on each store in turn, with the model among them."""

    def url() -> str:
        found: str = request.getfixturevalue("redis_url")
        return found

    app, calls = request.module.app, request.module.CALLS
    store = store_of(request.param, app, store_name, tmp_path, url)
    try:
        with app.aside(store, app.clock):
            made = Stage(app, calls)
            made.kind = request.param
            yield made
    finally:
        store.close()
