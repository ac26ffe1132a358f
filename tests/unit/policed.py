# SPDX-License-Identifier: MIT
"""Tasks and flows of tests about failures: what they fail with, and who is told."""

from __future__ import annotations

from typing import Any

from flowq import FlowQ, Skip, chain, optional
from flowq.errors import Failure
from flowq.lower import lower
from flowq.plan import Bits, Plan

app = FlowQ("policies", "memory://")
CALLS: list[Any] = []


@app.task(name="give")
def give(x: Any = None) -> Any:
    CALLS.append(("give", x))
    return x


@app.task(name="fail")
def fail(x: Any = None, y: Any = None) -> Any:
    CALLS.append(("fail", x))
    raise ValueError(f"no {x}")


@app.task(name="odd")
def odd(x: int) -> int:
    if not x % 2:
        raise ValueError(f"{x} is even")
    return x


@app.task(name="skip")
def skip(x: Any = None) -> Any:
    raise Skip("not today")


@app.task(name="pair")
def pair(x: Any = None, y: Any = None) -> Any:
    return (x, y)


@app.task(name="numbers")
def numbers(n: int) -> list[int]:
    return list(range(n))


@app.task(name="kinds")
def kinds(values: list[Any]) -> list[Any]:
    return [type(x).__name__ if isinstance(x, Failure) else x for x in values]


@app.task(name="first_of")
def first_of(values: list[Any]) -> Any:
    return values[0]


@app.task(name="mirror")
def mirror(x: Any, y: Any = "none") -> Any:
    return ("mirror", x, y)


@app.task(name="excuse")
def excuse(failure: Any) -> Any:
    return f"excuse for {failure.node}"


@app.task(name="alert")
def alert(failure: Any, to: str = "me") -> None:
    CALLS.append(("alert", to, failure))


@app.task(name="praise")
def praise(value: Any) -> None:
    CALLS.append(("praise", value))


@app.task(name="cleanup")
def cleanup() -> None:
    CALLS.append("cleanup")


@app.task(name="grow")
def grow(how: str) -> Any:
    made: dict[str, Any] = {
        "default": fail.s(1).options(default="instead"),
        "alarm": fail.s(1).on_error(alert.s()),
        "handlers": chain(fail.s(1), give.s()).on_failure(alert.s()).finally_(cleanup.s()),
        "fallback": fail.s(1).options(fallback=excuse.s()),
    }
    return made[how]


@app.flow(name="inner")
def inner() -> Any:
    return give(1)


@app.flow(name="risky")
def risky(x: Any) -> Any:
    return fail(x)


@app.flow(name="declared", on_failure=alert.s(), finally_=cleanup.s())
def declared(x: Any) -> Any:
    return odd(x)


@app.flow(name="around")
def around() -> Any:
    return declared(4)


@app.flow(name="daily")
def daily() -> Any:
    return pair(give(1), optional(fail(2), default="unknown"))


def told(name: str) -> list[Any]:
    return [call for call in CALLS if call[0] == name]


def plan_of(composition: Any) -> Plan:
    return lower(composition._graph(), app)


def bits_of(composition: Any) -> dict[str, Bits]:
    return {row.name: Bits(row.bits) for row in plan_of(composition).rows[1:]}
