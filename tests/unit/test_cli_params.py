# SPDX-License-Identifier: MIT
"""Words of a command line become arguments by the annotations of a flow; flows are checked."""

from __future__ import annotations

import random
import re
from datetime import date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union

import pytest

from flowq import FlowQ
from flowq.cli.checking import check_flow
from flowq.cli.output import CliError
from flowq.cli.params import read, read_parameters

app = FlowQ("params", "memory://")


class Mode(Enum):
    FAST = "f"
    SLOW = 2


@app.task(name="keep")
def keep(*values: Any) -> Any:
    return values


@app.task(name="number")
def number(n: int) -> int:
    return n


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", str, "3"),
        ("3", Any, "3"),
        ("3", int, 3),
        ("-2.5", float, -2.5),
        ("true", bool, True),
        ("0", bool, False),
        ("2026-11-23", date, date(2026, 11, 23)),
        ("2026-11-23T02:00:00", datetime, datetime(2026, 11, 23, 2)),
        ("PT90S", timedelta, timedelta(seconds=90)),
        ("a/b", Path, Path("a/b")),
        ("FAST", Mode, Mode.FAST),
        ("2", Mode, Mode.SLOW),
        ("2", Literal["a", 2], 2),
        ("[1, 2]", list[int], [1, 2]),
        ('["2026-11-23"]', list[date], [date(2026, 11, 23)]),
        ('["a"]', list[Path], [Path("a")]),
        ("[1, 2]", list, [1, 2]),
        ('{"a": 1}', dict[str, int], {"a": 1}),
        ("none", int | None, None),
        ("x", Union[int, str], "x"),  # noqa: UP007 - as older code says it
        ("5", int | str, 5),
    ],
)
def test_a_word_is_read_by_the_annotation(text: str, kind: Any, value: Any) -> None:
    found = read(text, kind)

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("x", int, "'x' is no such value"),
        ("1.5", int, "'1.5' is no such value"),
        ("maybe", bool, "'maybe' is no such value"),
        ("2026-13-01", date, "'2026-13-01' is no such value"),
        ("MID", Mode, "it is none of FAST, SLOW"),
        ("c", Literal["a", "b"], "it is none of 'a', 'b'"),
        ("1,2", list[int], "no JSON"),
        ('["x"]', list[int], "Expected `int`"),
        ("x", int | None, "int: 'x' is no such value"),
        ("x", type(app), "cannot make one"),
    ],
)
def test_a_word_that_is_no_such_value_is_an_error(text: str, kind: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        read(text, kind)


def test_an_error_names_flow_parameter_type_and_an_example() -> None:
    @app.flow(name="shop.day")
    def by_day(day: date, *, fast: bool = False) -> Any:
        return keep(day, fast)

    assert read_parameters(by_day, ["day=2026-11-23", "fast=true"]) == {
        "day": date(2026, 11, 23),
        "fast": True,
    }
    for words, said in (
        (["day=x"], "parameter 'day' of shop.day takes date: 'x' is no such value; write -p day="),
        (["dya=x"], "no parameter 'dya'; did you mean 'day'"),
        (["zzz=x"], "it is shop.day(day: "),
        (["day"], "write -p name=value"),
        (["fast=1", "fast=0"], "said twice"),
    ):
        with pytest.raises(CliError) as told:
            read_parameters(by_day, words)
        assert said in str(told.value)
        assert told.value.status == 2


# --- checking ------------------------------------------------------------------------------------


def test_a_flow_without_values_is_checked_with_placeholders_of_their_types() -> None:
    @app.flow(name="typed")
    def typed(n: int, m: Any) -> Any:
        return keep(number(n), number.map(m))

    @app.flow(name="misfit")
    def misfit(day: date) -> Any:
        return number(day)

    assert check_flow(typed, {})[:3] == ("ok", 3, ("n", "m"))
    found = check_flow(misfit, {})
    assert found.status == "wrong"
    assert "takes int, and node 'parameter-day'" in found.said
    assert "flowq.parameter" not in app.tasks


def test_a_flow_that_looks_at_its_arguments_is_only_imported_until_it_is_given_them() -> None:
    @app.flow(name="looks")
    def looks(day: str, n: int) -> Any:
        return keep(date.fromisoformat(day)) if n else keep()

    found = check_flow(looks, {"n": 0})
    assert check_flow(looks, {}).status == "imported"
    assert (found.status, check_flow(looks, {"n": 1}).status) == ("ok", "imported")
    assert check_flow(looks, {"n": 1, "day": "2026-11-23"}).status == "ok"
    assert check_flow(looks, {"n": 1, "day": "23 Nov"}).status == "wrong"


def test_a_flow_must_give_the_same_graph_twice() -> None:
    count = iter(range(100))

    @app.flow(name="names")
    def names() -> Any:
        return keep.options(name=f"n{next(count)}")()

    @app.flow(name="grows")
    def grows() -> Any:
        return [number(1) for _ in range(next(count))]

    @app.flow(name="values")
    def values() -> Any:
        return number(random.getrandbits(60))

    @app.flow(name="equal")
    def equal() -> Any:
        text = "".join(["a"] * next(count))
        return keep(text[:1], [text[:1], {1, 2}])

    assert "node 'n0', then 'n1'" in check_flow(names, {}).said
    assert "nodes, then" in check_flow(grows, {}).said
    assert "node 'number' has other arguments" in check_flow(values, {}).said
    assert check_flow(equal, {}).status == "ok"


def test_what_a_flow_does_wrong_is_told_and_what_it_raises_too() -> None:
    @app.flow(name="raises")
    def raises() -> Any:
        raise LookupError("no such file")

    @app.flow(name="bound")
    def bound() -> Any:
        return number(1, 2)

    assert check_flow(raises, {}).said == "LookupError: no such file"
    found = check_flow(bound, {})
    assert found.status == "wrong" and "test_cli_params.py, line" in found.said
