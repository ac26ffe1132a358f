# SPDX-License-Identifier: MIT
"""What tests of branches share: tasks, and ways to run what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from flowq import Flow, FlowQ, Run, branch
from flowq.errors import NotProduced, Skip, TaskError
from flowq.lower import lower
from flowq.plan import Plan, indexes

app = FlowQ("branches", "memory://")
CALLS: list[Any] = []


class Size(Enum):
    BIG = "big"
    SMALL = "small"


@app.task(name="kind")
def kind(x: Any) -> Any:
    CALLS.append(("kind", x))
    return "big" if len(str(x)) > 3 else "small"


@app.task(name="clean")
def clean(x: Any) -> Any:
    CALLS.append(("clean", x))
    return f"clean {x}"


@app.task(name="load")
def load(x: Any) -> Any:
    CALLS.append(("load", x))
    return f"load {x}"


@app.task(name="give")
def give(x: Any = None) -> Any:
    CALLS.append(("give", x))
    return x


@app.task(name="show")
def show(x: Any) -> str:
    return f"<{x}>"


@app.task(name="fail")
def fail(x: Any = None) -> Any:
    raise ValueError(x)


@app.task(name="skip")
def skip(x: Any = None) -> Any:
    raise Skip("not today")


@app.flow(name="sized")
def sized(x: Any) -> Any:
    raw = give(x)
    out = branch(kind(raw), {"big": lambda: load(clean(raw)), "small": show(raw)})
    return give(out)


class Ended:
    """What a test asks of a run, read while its store was there."""

    def __init__(self, run: Run[Any]) -> None:
        self.value = run.get(timeout=10, raise_errors=False)
        self.state = run.state
        self.nodes = {n.name: n.state for n in run.nodes()}
        self.error: TaskError | None = None
        try:
            run.get(timeout=10)
        except TaskError as err:
            self.error = err
        except NotProduced:
            pass


def flow(func: Callable[..., Any]) -> Flow[..., Any]:
    """Make a flow of one test, of which the app knows nothing."""
    return Flow(app, func, {"name": func.__name__})


def here(composition: Any) -> Ended:
    """Run it in this process and in memory."""
    with app.inline():
        return Ended(composition.start())


def plan_of(composition: Any) -> Plan:
    return lower(composition._graph(), app)


def parents(plan: Plan, name: str) -> list[str]:
    (row,) = [r for r in plan.rows if r.name == name]
    return sorted(plan.rows[i].name for i in indexes(row.parents))


def called(task: str) -> list[Any]:
    return sorted(x for name, x in CALLS if name == task)


def work(q: FlowQ, composition: Any) -> Ended:
    """Start it on the store of another app, work it off with real workers, say how it ended."""
    with app.aside(q.store, app.clock):
        started = composition.start()
        with app.consumer(workers=2, drain=True):
            assert started.wait(30)
        return Ended(started)
