# SPDX-License-Identifier: MIT
"""Values travel whole, or are refused in words that name them."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowq.errors import ConfigError, DecodeError, PayloadError, PayloadTooLarge
from flowq.message import MAX_PAYLOAD
from flowq.serializer import PickleSerializer, check_size, open_serializer, short_repr

SERIALIZER = PickleSerializer()
atoms = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
values = st.recursive(
    atoms,
    lambda v: st.lists(v) | st.tuples(v, v) | st.dictionaries(st.text(), v) | st.frozensets(atoms),
)


@given(values)
def test_a_value_comes_out_as_it_went_in(value: object) -> None:
    assert SERIALIZER.loads(SERIALIZER.dumps(value, "it")) == value


def test_a_function_without_a_name_elsewhere_travels_too() -> None:
    assert SERIALIZER.loads(SERIALIZER.dumps(lambda x: x + 1, "it"))(1) == 2


def test_what_cannot_travel_is_named() -> None:
    with pytest.raises(PayloadError, match="argument 'lock' cannot be pickled"):
        SERIALIZER.dumps(threading.Lock(), "argument 'lock'")


def test_what_is_too_large_is_refused_with_its_size() -> None:
    check_size(MAX_PAYLOAD, "it")
    with pytest.raises(PayloadTooLarge, match="it: 16,777,217 bytes"):
        check_size(MAX_PAYLOAD + 1, "it")


@given(st.binary(max_size=40).map(lambda raw: b"J" + raw))
def test_bytes_of_another_codec_are_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="codec byte"):
        SERIALIZER.loads(raw)


@pytest.mark.parametrize("raw", [b"", b"P", b"P\x80\x05", b"Pxx"])
def test_broken_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        SERIALIZER.loads(raw)


def test_an_unknown_serializer_is_refused_at_once() -> None:
    assert open_serializer("pickle").codec == b"P"
    with pytest.raises(ConfigError, match="use 'pickle'"):
        open_serializer("json")


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError


def test_the_text_of_long_bytes_shows_both_ends() -> None:
    assert short_repr(b"abc") == "b'abc'"
    text = short_repr(b"head" + bytes(5_000_000) + b"tail")

    assert text.startswith("b'head")
    assert text.endswith("tail'")
    assert "..." in text
    assert short_repr(bytearray(9_999)).startswith("bytearray(b'")


@pytest.mark.parametrize(
    "value", [None, True, 10**400, "x" * 10_000, b"x" * 9_999, list(range(9_999)), Broken()]
)
def test_a_short_text_is_given_of_any_value(value: object) -> None:
    assert 0 < len(short_repr(value)) <= 200
