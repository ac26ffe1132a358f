# SPDX-License-Identifier: MIT
"""What an editor and a type checker see of flows. Checked, not run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import assert_type

from flowq import DAG, Failure, Flow, FlowQ, Result, ResultGroup, Run, chain, group, optional
from flowq.primitives import Chain, Map

q = FlowQ("typed")


@q.task
def extract(day: str) -> list[str]:
    return [day]


@q.task
def clean(path: str, times: int = 1) -> int:
    return len(path) * times


@q.task
def split(rows: list[int]) -> dict[str, list[int]]:
    return {"train": rows, "test": rows}


@q.task
def report(rows: list[int], day: str) -> str:
    return f"{day}{rows}"


@q.task
def log() -> None: ...


@q.task
def tell(failure: Failure) -> None: ...


@q.flow
def tidy(path: str, times: int = 2) -> int:
    return clean(path, times)


@q.flow(priority=5)
def nightly(day: str, *, fast: bool = False) -> str:
    parts = extract(day)
    assert_type(parts, Result[list[str]])
    rows = clean.map(parts)
    assert_type(rows, ResultGroup[int])
    assert_type(clean.options(max_width=8).map(parts, times=2), ResultGroup[int])
    halves = split(rows)
    report(halves["train"], day=day)
    clean(parts[0])
    if not fast:
        log().after(parts, rows)
        _ = parts >> log()
        _ = [parts, rows] >> log()
    one = tidy(parts[0])
    assert_type(one, Run[int])
    report([one, clean("x")], day=day)
    report(group(tidy(x) for x in ("a", "b")), day=day)
    report(clean.s("x"), day=extract.s(day))
    report(chain(extract.s(day), clean.each()), day)
    assert_type(optional(one), "Result[int | None]")
    assert_type(optional(clean("x"), default="none"), "Result[int | str]")
    report(optional(rows, default=list[int]()), day=day)
    clean.options(default=0, on_error=tell.s())("x").after(one)
    return report(rows, day=day)


# a flow keeps the function's own parameters, and gives its value
run = nightly("mon")
assert_type(run, Run[str])
assert_type(run.get(timeout=3), str)
assert_type(run.get(), "str | None")
assert_type(nightly(day="mon", fast=True), Run[str])
assert_type(nightly.options(name="x")("mon"), Run[str])
nightly()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
nightly(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
nightly("mon", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
nightly.build(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

graph = nightly.build(day="mon")
assert_type(graph.test(values={"extract": []}), Run[str])
assert_type(graph.start(), Run[str])
assert_type(graph.start().get(timeout=3), str)
assert_type(graph.mermaid(), str)
dag: DAG = graph

assert_type(nightly.s("mon").start(), Run[str])
assert_type(nightly.s("mon").on_failure(tell.s()).finally_(log.s()).start(), Run[str])
assert_type(clean.s("x").on_error(tell.s()).start(), Result[int])
assert_type(nightly.options(on_failure=tell.s())("mon"), Run[str])
assert_type(extract.s("mon") | tidy.s(times=3), Chain[int])
assert_type(tidy.s().map(["a"]), Map[int])
assert_type(tidy.map(["a"]), ResultGroup[int])
assert_type(tidy.starmap([("a", 1)]), ResultGroup[int])
flows: Mapping[str, Flow[..., Any]] = q.flows
