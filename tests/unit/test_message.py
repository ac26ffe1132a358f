# SPDX-License-Identifier: MIT
"""What travels: round trips, broken bytes, and envelopes of other ages."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowq.errors import DecodeError
from flowq.message import (
    EMPTY,
    HEAD,
    VERSION,
    Binding,
    Const,
    Items,
    Lit,
    Mapping,
    Message,
    Ref,
    Seq,
    Template,
    decode_message,
    decode_template,
    encode_message,
    encode_template,
    id_bytes,
    id_text,
    new_id,
    node_id,
    pack_cell,
    read_cell,
    split_node,
)
from flowq.states import FINAL, State

plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=9)
leaves: st.SearchStrategy[Template] = st.one_of(
    st.builds(Ref, st.integers(0, 2**32), st.lists(st.text() | st.integers(0, 9)).map(tuple)),
    st.builds(Items, st.integers(0, 99), st.integers(0, 99), st.booleans()),
    st.builds(Lit, st.integers(0, 99)),
    st.builds(Const, plain),
)
templates = st.recursive(
    leaves,
    lambda t: (
        st.builds(Seq, st.lists(t, max_size=3).map(tuple), st.booleans())
        | st.builds(Mapping, st.lists(st.tuples(t, t), max_size=3).map(tuple))
    ),
    max_leaves=8,
)
messages = st.builds(
    Message,
    id=st.binary(min_size=16, max_size=16),
    task=st.text(),
    payload=st.binary(),
    queue=st.text(),
    priority=st.integers(-1000, 1000),
    bindings=st.lists(st.builds(Binding, st.integers(0, 9) | st.text(), templates)).map(tuple),
    policy=st.dictionaries(st.text(), plain, max_size=3),
    index=st.none() | st.integers(0, 9),
)


@given(messages)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


@given(templates)
def test_a_template_comes_out_as_it_went_in(template: Template) -> None:
    assert decode_template(encode_template(template)) == template


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda b: VERSION + b))
def test_any_bytes_are_a_message_or_a_decode_error(raw: bytes) -> None:
    try:
        assert isinstance(decode_message(raw), Message)
    except DecodeError as err:
        assert str(err)


@given(messages, st.data())
def test_a_damaged_message_is_read_or_refused_and_nothing_else(
    message: Message, data: st.DataObject
) -> None:
    raw = bytearray(encode_message(message))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))

    for damaged in (bytes(raw), bytes(raw[:at])):
        with contextlib.suppress(DecodeError):
            decode_message(damaged)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_template_and_a_cell_or_decode_errors(raw: bytes) -> None:
    for read in (decode_template, read_cell):
        with contextlib.suppress(DecodeError):
            read(raw)


def test_bytes_that_nest_too_deep_are_refused() -> None:
    with pytest.raises(DecodeError):
        decode_message(VERSION + b"\x91" * 100_000)
    with pytest.raises(DecodeError):
        decode_template(b"\x91" * 100_000)


def test_fields_that_a_later_version_appends_are_passed_over() -> None:
    message = Message(new_id(), "t", b"P", trace="x")
    fields = msgspec.msgpack.decode(encode_message(message)[1:])

    assert decode_message(VERSION + msgspec.msgpack.encode([*fields, "new", 7])) == message


def test_fields_that_an_earlier_version_did_not_have_get_their_defaults() -> None:
    id = new_id()

    assert decode_message(VERSION + msgspec.msgpack.encode([id, "t", b"P"])) == Message(
        id, "t", b"P"
    )


@pytest.mark.parametrize("raw", [b"", b"\x02", b"{}"])
def test_another_version_is_named(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="version"):
        decode_message(raw)


@given(
    st.sampled_from(sorted(FINAL)),
    st.sampled_from([0, EMPTY]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**63),
    st.binary(),
)
def test_a_cell_comes_out_as_it_went_in(
    state: State, flags: int, delivery: int, ms: int, body: bytes
) -> None:
    raw = pack_cell(state, body, flags=flags, delivery=delivery, started_ms=ms, ended_ms=ms)

    cell = read_cell(raw)

    assert (cell.state, cell.flags, cell.delivery, cell.body) == (state, flags, delivery, body)
    assert (cell.started_ms, cell.ended_ms) == (ms, ms)


def test_a_cell_that_is_too_short_is_refused() -> None:
    with pytest.raises(DecodeError, match="too short"):
        read_cell(bytes(HEAD.size - 1))


@given(st.binary(min_size=16, max_size=16), st.none() | st.integers(0, 2**32 - 1))
def test_an_id_comes_back_from_its_text(run: bytes, index: int | None) -> None:
    id = run if index is None else node_id(run, index)

    assert id_bytes(id_text(id)) == id
    if index is not None:
        assert split_node(id) == (run, index)


@pytest.mark.parametrize(
    "text", ["", "x", "00", id_text(bytes(16)) + ":x", id_text(bytes(16)) + ":-1"]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        id_bytes(text)
