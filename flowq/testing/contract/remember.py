# SPDX-License-Identifier: MIT
"""What a store remembers beside tasks and runs, and of how they were called."""

from __future__ import annotations

import msgspec
import pytest

from flowq.message import Message, decode_message, node_id
from flowq.plan import ROOT
from flowq.states import State
from flowq.storage.base import Store
from flowq.testing.clock import ManualClock
from flowq.testing.contract.base import (
    StoreContract,
    make_plan,
    pass_time,
    run_all,
    states_of,
    task,
)

__all__ = ["TestCalled", "TestRemember"]

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


class TestCalled(StoreContract):
    """What was started under a key, and what it was called with."""

    def test_a_task_keeps_what_it_was_called_with(self, store: Store) -> None:
        """While it has not ended."""
        message = task(called=b"digest and text")

        store.enqueue([message])
        store.enqueue([msgspec.structs.replace(message, called=b"other")])

        raw = store.message(message.id)
        assert raw is not None
        assert decode_message(raw).called == b"digest and text"

    @pytest.mark.parametrize("end", [State.SUCCESS, State.FAILED])
    def test_a_root_keeps_what_the_run_was_called_with(self, store: Store, end: State) -> None:
        """Also once the run has ended; in all else it is a run like any other."""
        plain = make_plan({"a": [], "b": ["a"], "x": [], "y": []}, inside={"y": "x"})
        root = node_id(plain.id, ROOT)
        rows = [
            msgspec.structs.replace(plain.rows[ROOT], message=Message(root, "", b"", called=b"it")),
            *plain.rows[1:],
        ]
        plan = msgspec.structs.replace(plain, rows=rows)

        assert store.submit(plan) is True
        assert store.submit(plain) is False
        began = store.nodes(plan.id)[ROOT]
        order = run_all(store, plan, {"a": end})

        assert (began.state, began.kind, began.task) == (State.EXPANDED, plain.rows[ROOT].kind, "")
        assert order == (["a", "y", "b"] if end == State.SUCCESS else ["a", "y"])
        assert states_of(store, plan)["root"] == end.label
        raw = store.message(root)
        assert raw is not None
        assert decode_message(raw).called == b"it"

    def test_a_run_that_was_called_so_runs_again(self, store: Store) -> None:
        """Its root is reopened as any other is."""
        plain = make_plan({"a": [], "b": ["a"]})
        root = node_id(plain.id, ROOT)
        rows = [
            msgspec.structs.replace(plain.rows[ROOT], message=Message(root, "", b"", called=b"it")),
            *plain.rows[1:],
        ]
        plan = msgspec.structs.replace(plain, rows=rows)
        store.submit(plan)
        run_all(store, plan, {"a": State.FAILED})

        assert store.rewind(plan.id, 1, chosen=((1, 2),)) is True
        order = run_all(store, plan)

        assert order == ["a", "b"]
        assert set(states_of(store, plan).values()) == {"success"}
        assert store.cancel([plan.id]) == [State.SUCCESS]
