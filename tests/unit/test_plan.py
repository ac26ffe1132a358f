# SPDX-License-Identifier: MIT
"""Ranges hold exactly the indexes that went in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowq.plan import indexes, ranges_of


@given(st.lists(st.integers(0, 300)))
def test_ranges_give_back_each_index_once_in_order(nodes: list[int]) -> None:
    ranges = ranges_of(nodes)

    assert list(indexes(ranges)) == sorted(set(nodes))


@given(st.lists(st.integers(0, 300)))
def test_ranges_are_as_few_as_can_be(nodes: list[int]) -> None:
    ranges = ranges_of(nodes)

    assert all(count > 0 for _, count in ranges)
    ends = [first + count for first, count in ranges]
    assert all(end < first for end, (first, _) in zip(ends, ranges[1:], strict=False))
