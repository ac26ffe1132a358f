# SPDX-License-Identifier: MIT
"""What an editor and a type checker see of compositions. Checked, not run."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

from flowq import DAG, FlowQ, Result, ResultGroup, Run, chain, chord, group
from flowq.primitives import Chain, Group, Map
from flowq.wiring import Stopping

q = FlowQ("typed")


@q.task
def add(a: int, b: int = 2) -> int:
    return a + b


@q.task
def total(xs: list[int]) -> int:
    return sum(xs)


@q.task
def report(rows: list[int], day: str = "") -> str:
    return f"{day}{rows}"


# the value of a pipe is that of its last step
assert_type(add.s(1) | report.s(day="x"), Chain[str])
assert_type(chain(add.s(1), add.s(), report.s()), Chain[str])
assert_type((group(add.s(i) for i in range(3)) | total.s()), Chain[int])
assert_type(chord([add.s(1), add.s(2)], total.s()), Chain[int])
assert_type(group(add.s(1), add.s(2)), Group[int])
assert_type(add.s().map([1, 2]), Map[int])
assert_type(add.chunks([1, 2], 2), ResultGroup[int])

# what starts gives a handle of it
run = (add.s(1) | report.s()).start()
assert_type(run, Run[str])
assert_type(run.get(), "str | None")
assert_type(run.get(blocking=True), str)
assert_type(run.get(timeout=3), str)
assert_type([n.name for n in run.nodes(state="failed")], "list[str]")
assert_type(run.state, str)
assert_type(run.cancel(), Stopping)
assert_type(add.s(1).start(), Result[int])
assert_type(add.s(1).start().task.name, str)
assert_type(group([add.s(1)]).start(q), ResultGroup[int])
of_one = group(add.s(1, 2)).start()
assert_type(of_one, ResultGroup[int])
assert_type(group(add.s(1)) | total.s(), Chain[int])


# so it may be passed on as what it is
def follow(one: Result[int], run: Run[str], many: ResultGroup[int]) -> None: ...


follow(add.s(1).start(), run, of_one)
follow(add.s(1).start(), run, add.s().map([1]).start())
add.s(1)()  # pyright: ignore[reportCallIssue]  # mypy cannot see it
run.get(block=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]

for rg in (group(add.s(1), add.s(2)).start(), add.s().map([1, 2]).start()):
    assert_type(rg, ResultGroup[int])
    assert_type(rg.get(timeout=3), "list[int]")
    assert_type([r.get(blocking=True) for r in rg], "list[int]")
    assert_type(len(rg), int)
    assert_type(rg[0].get(), "int | None")

dag = DAG("etl")
first = dag.add(add.s(1), name="first")
second = dag.add(add.s(first, b=dag["first"]), name="second", after=[first, "first"])
dag.edge("first", "second", to="b")
dag.returns(second)
assert_type(dag.start(), Run[Any])
dag.add(report.s(dag["first"]["rows"]), name="report", after=["second"])

# what is tested gives the handle that starting gives, for one task too
assert_type((add.s(1) | report.s()).test(values={"add": [1]}), Run[str])
assert_type(add.s().map([1, 2]).test(fail={"add[1]": ValueError()}), ResultGroup[int])
assert_type(group(add.s(1), add.s(2)).test(), ResultGroup[int])
assert_type(add.s(1).test(), Run[int])
assert_type(add.s(1).test().get(blocking=True), int)
