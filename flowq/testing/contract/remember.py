# SPDX-License-Identifier: MIT
"""What a store remembers beside tasks and runs."""

from __future__ import annotations

from flowq.storage.base import Store
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import StoreContract, pass_time

__all__ = ["TestRemember"]

A, B = bytes(16), b"\xff" * 16


class TestRemember(StoreContract):
    """`Store.remember` and `Store.recall`."""

    def test_what_is_remembered_is_given_back_by_key(self, store: Store) -> None:
        """Any bytes, in the order of the keys; None for what is not known."""
        store.remember([(A, b"one\0\xff"), (B, b"")], ttl_ms=60_000)

        assert store.recall([B, b"x" * 16, A, A]) == [b"", None, b"one\0\xff", b"one\0\xff"]
        assert store.recall([]) == []

    def test_the_last_that_was_remembered_stands(self, store: Store, clock: ManualClock) -> None:
        """Its time to live too."""
        store.remember([(A, b"old")], ttl_ms=1_000)
        store.remember([(A, b"new")], ttl_ms=60_000)

        pass_time(store, clock, 2)

        assert store.recall([A]) == [b"new"]

    def test_what_is_remembered_is_forgotten_in_time(
        self, store: Store, clock: ManualClock
    ) -> None:
        """Not before, and each by its own time, whether or not anything was swept."""
        store.remember([(A, b"a")], ttl_ms=5_000)
        store.remember([(B, b"b")], ttl_ms=50_000)

        pass_time(store, clock, 4)
        before = store.recall([A, B])
        pass_time(store, clock, 1)

        assert before == [b"a", b"b"]
        assert store.recall([A, B]) == [None, b"b"]

    def test_a_sweep_leaves_what_is_still_remembered(
        self, store: Store, clock: ManualClock
    ) -> None:
        """And comes to an end."""
        store.remember([(bytes([k]) * 16, b"x") for k in range(20)], ttl_ms=1_000)
        store.remember([(B, b"b")], ttl_ms=60_000)
        pass_time(store, clock, 2)

        while store.sweep(limit=3).more:
            pass

        assert store.recall([bytes(16), B]) == [None, b"b"]
        store.remember([(A, b"again")], ttl_ms=1_000)
        assert store.recall([A]) == [b"again"]
