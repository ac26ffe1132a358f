# SPDX-License-Identifier: MIT
"""Item by item: a list that is the items of another map, before they have values.

A map that follows another is made as soon as that one has items. Where its lists would hold values
they hold the nodes that will give them, and what cannot be known of a value until it is there is
left to who reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from flowq.errors import BindingError, DecodeError, Failure
from flowq.message import Items, Seq, Template
from flowq.plan import INNER, Along

__all__ = ["Awaited", "Followed", "alongs", "awaited_in", "spread"]


class Awaited(msgspec.Struct, frozen=True):
    """An element that is the value of a node of the run."""

    node: int


class Followed(msgspec.Struct, frozen=True):
    """A list whose elements are the values of `count` nodes from `first` on, those in node `of`."""

    of: int
    first: int
    count: int

    @classmethod
    def read(cls, of: int, value: Template) -> Followed:
        """Find the items of a map that has begun, by what its value will be.

        Raises
        ------
        DecodeError
            They cannot be taken one by one.
        """
        if type(value) is Items and not value.chunk and not value.only:
            return cls(of, value.first, value.count)
        if type(value) is Seq and not value.items:
            return cls(of, 0, 0)
        raise DecodeError(f"node {of} is followed, and its value is no list of items: {value!r}")

    def __iter__(self) -> Iterator[Awaited]:
        for k in range(self.count):
            yield Awaited(self.first + k)


def alongs(lists: Iterable[Any], count: int) -> tuple[Along, ...]:
    """Say of a map's items, which lie behind it, with whose items they go along."""
    if not count:
        return ()
    followed = dict.fromkeys(x for x in lists if type(x) is Followed)
    return tuple([Along(x.of, x.first, INNER + 1, count) for x in followed])


def awaited_in(element: Any, several: bool) -> list[int]:
    """Give the nodes that an element awaits; `several` if it holds elements of several lists."""
    return [x.node for x in (element if several else (element,)) if type(x) is Awaited]


def spread(element: Any, forced: bool, place: int | None) -> Sequence[Any]:
    """Give the arguments that an element fills which may be several.

    Parameters
    ----------
    element : object
    forced : bool
        Whether it has to be a tuple or list.
    place : int or None
        Its place in the list of the map.

    Raises
    ------
    BindingError
        It has to be one, and is not.
    """
    kind = type(element)
    if kind is tuple or (kind is list and forced):
        found: Sequence[Any] = element
        return found
    if forced and kind is not Failure:
        raise BindingError(
            f"item {place} is a {kind.__name__}, not a tuple; starmap takes tuples of arguments"
        )
    return (element,)
