# SPDX-License-Identifier: MIT
"""Which annotations can never fit, which are doubtful, and which are left alone."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import functools
import pathlib
import typing
from abc import ABC
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, NewType, Optional, Protocol, TypedDict, TypeVar

import pytest

from flowq import Failure
from flowq.hints import Fit, element_of, fit, hint_text, hints_of, item_of

if typing.TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]  # as users import for checkers

T = TypeVar("T")


class Animal: ...


class Dog(Animal): ...


class Car: ...


class Flies: ...


class Bat(Animal, Flies): ...


class Shape(ABC): ...  # noqa: B024  # users write such


class Reads(Protocol):
    def read(self) -> str: ...


class Box(Generic[T]): ...


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Row(TypedDict):
    price: int
    name: str | None


class Odd(type):
    def __subclasscheck__(cls, other: type) -> bool:
        return False


class Ducks(metaclass=Odd): ...


class Point(typing.NamedTuple):
    x: int


UserId = NewType("UserId", int)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (int, int),
        (bool, int),
        (int, float),
        (bool, complex),
        (float, complex),
        (bytearray, bytes),
        (memoryview, bytes),
        (Dog, Animal),
        (Level, int),
        (int, Optional[int]),  # noqa: UP045  # the old spelling too
        (int, int | str),
        (bool, float | None),
        (None, int | None),
        (Dog | None, Animal | None),
        (list[int], list),
        (list, list[int]),
        (list[int], Sequence[int]),
        (list[int], Iterable[float]),
        (list[bool], typing.List[int]),  # noqa: UP006
        (dict[str, int], Mapping[str, float]),
        (dict[str, int], Iterable[str]),
        (collections.OrderedDict[str, int], dict[str, int]),
        (list[int], list[Any]),
        (list[int], list[T]),
        (tuple[int, ...], Sequence[int]),
        (tuple[int, bool], tuple[int, int]),
        (tuple[int, str], tuple[int | str, ...]),
        (Literal["a"], str),
        (Literal["a"], Literal["a", "b"]),
        (Annotated[int, "metres"], int),
        (int, UserId),
        (UserId, int),
        (Row, dict[str, Any]),
        (dict, Row),
        (datetime.datetime, datetime.date),
        (pathlib.PosixPath, pathlib.Path),
        (Point, tuple),
        (Box[int], Box[str]),
        (Callable[[int], str], Callable[[str], int]),
        (type[Dog], type[Animal]),
        # what says nothing is left alone
        (Any, int),
        (int, Any),
        (object, int),
        (int, object),
        (T, int),
        (int, T),
        (int, Reads),
        (Reads, int),
        (int, Ducks),
        (int, Failure),
        (int, "a name that was not resolved"),
        (int, typing.ForwardRef("Missing")),
        (typing.NoReturn, int),
        (typing.Awaitable[int], int),
        (Literal[1], typing.LiteralString if hasattr(typing, "LiteralString") else Any),
    ],
)
def test_what_fits_or_says_nothing_is_let_through(given: Any, wanted: Any) -> None:
    assert fit(given, wanted) is Fit.FITS


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (list[int], list[str]),
        (dict[str, int], dict[str, str]),
        (dict[str, int], Iterable[int]),
        (tuple[int, str], tuple[int, int]),
        (tuple[int, str], tuple[int, str, str]),
        (list[Animal], list[Dog]),
        (list[int | None], list[int]),
        (Optional[int], int),  # noqa: UP045
        (int | str, int),
        (int | str, str | bytes),
        (Animal, Dog),
        (Animal, Flies),  # there is a Bat
        (Animal, Shape),  # anything may be registered as one
        (float, int),
        (int, bool),
        (int, decimal.Decimal),
        (bytes, bytearray),
        (Sequence[int], list[int]),
        (str, Literal["a"]),
        (Literal["a", "b"], Literal["b", "c"]),
        (datetime.date, datetime.datetime),
    ],
)
def test_what_may_fit_and_may_not_is_doubtful(given: Any, wanted: Any) -> None:
    assert fit(given, wanted) is Fit.DOUBTFUL


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (str, int),
        (int, str),
        (str, bytes),
        (None, int),
        (int, None),
        (list[int], int),
        (int, list[int]),
        (int, Sequence[int]),
        (list[int], tuple[int, ...]),
        (list[int], dict[str, int]),
        (set[int], list[int]),
        (str, pathlib.Path),
        (str, datetime.date),
        (Animal, Car),
        (Car, Dog | None),
        (int | None, str | bytes),
        (Colour, str),
        (Row, list[Any]),
        (UserId, str),
        (Literal["a"], int),
        (Literal["a"], Literal["b"]),
        (int, Literal["a"]),
        (Annotated[int, "metres"], Annotated[str, "name"]),
        (Box[int], str),
        (int, Callable[[int], int]),
    ],
)
def test_what_no_value_can_be_is_never(given: Any, wanted: Any) -> None:
    assert fit(given, wanted) is Fit.NEVER


def test_what_a_container_holds_is_found_by_its_kind() -> None:
    assert element_of(list[int], list) is int
    assert element_of(Sequence[int] | None, list) is int
    assert element_of(list[int] | set[str], list) is int
    assert element_of(list[int] | Any, list) is Any
    assert element_of(list, list) is Any
    assert element_of(Mapping[str, int], dict) is int
    assert element_of(tuple[int, str], tuple, 1) is str
    assert element_of(tuple[int, ...], tuple, 5) is int


def test_an_item_is_known_where_it_is_plain() -> None:
    assert item_of(dict[str, int], "x") is int
    assert item_of(tuple[int, str], 1) is str
    assert item_of(list[str], 0) is str
    assert item_of(Row, "price") is int
    for hint, key in (
        (Row, "name"), (Row, "zz"), (dict[str, int | str], "x"), (tuple[int, str], 2),
        (list[int] | None, 0), (Any, 0), (Box[int], 0), (dict, "x"), (str, 0),
    ):  # fmt: skip
        assert item_of(hint, key) is Any


def test_an_annotation_that_cannot_be_resolved_leaves_the_others() -> None:
    def known(a: int, b: Missing) -> str: ...  # type: ignore[empty-body]

    @functools.wraps(known)
    def wrapped(*args: Any) -> Any: ...

    class Calls:
        def __call__(self, a: int) -> str: ...  # type: ignore[empty-body]

    assert hints_of(known) == {"a": int, "return": str}
    assert hints_of(wrapped) == {}
    assert hints_of(Calls()) == {"a": int, "return": str}
    assert hints_of(functools.partial(known, 1)) == hints_of(len) == {}


def test_annotations_are_written_as_people_do() -> None:
    assert [hint_text(h) for h in (int, None.__class__, list[int], Optional[Dog], Any)] == [  # noqa: UP045
        "int", "None", "list[int]", f"Optional[{__name__}.Dog]", "Any",
    ]  # fmt: skip
