# SPDX-License-Identifier: MIT
"""What an editor and a type checker see of tasks and results. Checked, not run."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from typing_extensions import assert_type

from flowq import (
    CurrentTask,
    FlowQ,
    MemoryFlowQ,
    RedisFlowQ,
    Result,
    ResultGroup,
    Run,
    Signature,
    SqliteFlowQ,
    Task,
    current_task,
)
from flowq.wiring import Stopping

q = FlowQ("typed", retries=2)


@q.task
def add(a: int, b: int = 2) -> int:
    return a + b


@q.task(retries=3, retry_delay=timedelta(seconds=2), priority=5)
def text(n: int, *, sep: str = ",") -> str:
    return sep * n


@q.task
async def fetch(url: str) -> bytes:
    return url.encode()


@q.task(queue="slow")
async def fetch_slowly(url: str) -> bytes:
    return url.encode()


@q.task(context=True)
def who(a: int, task: CurrentTask) -> str:
    return f"{task.id} {task.attempt} {a}"


class Shop:
    @staticmethod
    @q.task
    def buy(what: str) -> float:
        return len(what)


# the call keeps the function's own parameters and gives its result
assert_type(add(1), Result[int])
assert_type(add(1, b=3), Result[int])
assert_type(text(1, sep=";"), Result[str])
assert_type(fetch("x"), Result[bytes])
assert_type(fetch_slowly("x"), Result[bytes])
assert_type(who(1), Result[str])
assert_type(Shop.buy("x"), Result[float])
assert_type(add.call_local(1, 2), int)
assert_type(fetch.call_local("x"), bytes)
add("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
add(1, 2, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
add()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
text(1, ";")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
fetch(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# so it does with options
assert_type(add.options(delay=60)(1, 2), Result[int])
add.options(delay=60)("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(add.schedule((1, 2), delay=60), Result[int])
assert_type(add.schedule(args=(1,), kwargs={"b": 2}, eta=datetime.now()), Result[int])
assert_type(add.map([1, 2]), ResultGroup[int])
assert_type(fetch.map(["x"]), ResultGroup[bytes])
assert_type(add.starmap([(1, 2)]), ResultGroup[int])
assert_type(add.s(1), Signature[int])

# a value is certain only where get waits for it
r = add(1)
assert_type(r.get(), int | None)
assert_type(r(), int | None)
assert_type(r.get(blocking=True), int)
assert_type(r(blocking=True), int)
assert_type(r.get(True), int)
assert_type(r.get(timeout=3), int)
assert_type(r.get(blocking=True, timeout=3), int)
assert_type(r.id, str)
assert_type(r.state, str)
assert_type(r.ready, bool)
assert_type(r.task.eta, datetime | None)
assert_type(r.wait(timeout=1), bool)
assert_type(r.cancel(), Stopping)

rg = add.map([1, 2])
assert_type(rg.get(), list[int] | None)
assert_type(rg.get(blocking=True, timeout=60), list[int])
assert_type(rg[0], Result[int])
assert_type(rg[0:2], list[Result[int]])
assert_type([x.get(blocking=True) for x in rg], list[int])
# a member of a map in chunks is a chunk, whose value is a list; that is not seen, since a task has
# the same type whatever options(...) are told
assert_type(add.options(chunksize=2).map([1, 2])[0], Result[int])
assert_type(add.chunks([1, 2], 2)[0], Result[int])
assert_type(next(rg.as_completed()).get(timeout=1), int)
assert_type(len(rg), int)

run = q.run("id")
assert_type(run, Run[Any])
assert_type([n.name for n in run.nodes(state="failed")], list[str])
assert_type(q.result("id"), Result[Any])


# handles fit where their value will (what a flow binds); get keeps the type
def consumes(rows: list[int], day: str) -> Run[int] | None: ...


consumes(rg, text(1))

apps: list[FlowQ] = [SqliteFlowQ(path="x.db"), RedisFlowQ(host="h"), MemoryFlowQ()]
task: Task[..., Any] = apps[0].tasks["x"]
assert_type(current_task().attempt, int)
with q.batch(), q.inline(), q.consumer(workers=2):
    add(1)
both: tuple[Result[int], ResultGroup[int], Signature[int]] = (add(1), add.map([1]), add.s(1))
