# SPDX-License-Identifier: MIT
"""The laws of the semantics (section 12), on random programs of users in random orders.

What a program comes to is said by `meaning`, which knows no stores; it is played by `played`, with
all that may go wrong in between; what a law says of one case is in `lawful`. A failure is told by
two numbers, from which everything is drawn. ``FLOWQ_TEST_SOAK=60`` plays for so many seconds more,
``FLOWQ_TEST_SOAK_FROM`` says from which seed on.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowq.errors import BindingWarning
from tests.model.lawful import (
    LAWS,
    Make,
    ends_as_it_means,
    ends_though_disturbed,
    fresh_stores,
    retries_as_if_it_had_not_failed,
    runs_again_in_the_middle,
)

SECONDS: Final = float(os.environ.get("FLOWQ_TEST_SOAK", "0"))
FROM: Final = int(os.environ.get("FLOWQ_TEST_SOAK_FROM", "0")) or secrets.randbelow(1 << 40)
EXAMPLES: Final = settings().max_examples

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{BindingWarning.__module__}.BindingWarning"),
    pytest.mark.timeout(max(300, EXAMPLES) + 4 * SECONDS),
]

cases = given(seed=st.integers(0, 1 << 32), size=st.integers(1, 60))


def drawing(examples: int) -> settings:
    return settings(
        max_examples=max(examples, EXAMPLES * examples // 100),
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies fail by the thousand."""
    monkeypatch.setattr(logging.getLogger("flowq.worker"), "disabled", True)


@pytest.fixture(params=["sqlite", "redis"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Make]]:
    """What makes a store that nobody has used, and opens it again."""
    if request.param == "redis":
        url, name = map(request.getfixturevalue, ("redis_url", "store_name"))
        yield fresh_stores(tmp_path, url, name)
        return
    # in memory if it can be: making files is most of the time
    ram = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=ram) as folder:
        yield fresh_stores(Path(folder))


# --- the laws ------------------------------------------------------------------------------------


@cases
@drawing(70)
def test_each_node_ends_as_its_program_means_in_any_order(
    opener: Callable[[], Make], seed: int, size: int
) -> None:
    ends_as_it_means(seed, size, opener)


@cases
@drawing(40)
def test_a_retry_leaves_what_a_run_leaves_in_which_that_did_not_fail(
    opener: Callable[[], Make], seed: int, size: int
) -> None:
    retries_as_if_it_had_not_failed(seed, size, opener)


@cases
@drawing(30)
def test_what_runs_again_in_the_middle_leaves_what_it_would_have_left_at_once(
    opener: Callable[[], Make], seed: int, size: int
) -> None:
    runs_again_in_the_middle(seed, size, opener)


@cases
@drawing(40)
def test_a_run_ends_whatever_is_done_to_it_when(
    opener: Callable[[], Make], seed: int, size: int
) -> None:
    ends_though_disturbed(seed, size, opener)


@pytest.mark.skipif(not SECONDS, reason="FLOWQ_TEST_SOAK says for how many seconds")
@pytest.mark.parametrize("law", LAWS, ids=[law.__name__ for law in LAWS])
def test_the_laws_hold_for_long(opener: Callable[[], Make], law: Callable[..., None]) -> None:
    deadline = time.monotonic() + SECONDS / len(LAWS) / 2
    for seed in seeds():
        size = 1 + seed % 60
        print(f"{law.__name__}({seed=}, {size=})")
        law(seed, size, opener)
        if time.monotonic() > deadline:
            return


def seeds() -> Iterator[int]:
    seed = FROM
    while True:
        yield seed
        seed += 1
