# SPDX-License-Identifier: MIT
"""Random programs, said in flowq."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowq import Flow, branch, chain, first, group, optional, sleep, wait_for
from tests.model.bodies import GROWN, app, clean, handle, pure, work
from tests.model.programs import DEFAULT, SHARED, Body, Program, Step

__all__ = ["returned", "written"]


def written(program: Program) -> Any:
    """Write a program as a flow; gives the graph."""
    return _flow(program).build()


def returned(step: Step) -> Any:
    """What a task returns that becomes a graph."""
    assert step.body is not None
    flow = _flow(step.body).s()
    return flow if step.item == "flow" else [flow, 1]


def _flow(body: Body) -> Flow[..., Any]:
    options: dict[str, Any] = {}
    if body.policy:
        options["node_failure_policy"] = body.policy
    if body.on_success:
        options["on_success"] = handle.s().options(name="h")
    if body.on_failure:
        options["on_failure"] = handle.s().options(name="h")
    if body.finally_:
        options["finally_"] = clean.s().options(name="h")
    if body.atomic:
        options["atomic"] = True
    if body.deadline:
        options["deadline"] = body.deadline
    if body.parallel:
        options["max_parallel"] = body.parallel
    declared = {"max_parallel": SHARED} if body.shared else {}
    flow: Flow[..., Any] = Flow(
        app, lambda *given: _said(body, list(given)), {"name": "program", **declared}
    )
    return flow.options(**options)


def _said(body: Body, given: list[Any]) -> Any:
    """Say what stands in a body: what the function of a flow does."""
    made: list[Any] = []

    def found(i: int) -> Any:
        return given[-i - 1] if i < 0 else made[i]

    for step in body.steps:
        made.append(_step(step, found))  # noqa: PERF401  # it reads what was made before
    value = [made[i] for i in body.value]
    return value[0] if body.alone else value


def _step(step: Step, found: Callable[[int], Any]) -> Any:
    args = [
        optional(found(e.parent), default="none") if e.how == "maybe" else found(e.parent)
        for e in step.edges
        if e.how != "order"
    ]
    after = [found(e.parent) for e in step.edges if e.how == "order"]
    options = _options(step)
    if step.kind == "flow":
        assert step.body is not None
        made = _flow(step.body).options(**options)(*args)
    elif step.kind == "map":
        made = _map(step, found, options)
    elif step.kind == "branch":
        assert step.over is not None
        arms = {key: _arm(arm, found) for key, arm in step.arms.items()}
        default = {"default": arms.pop(DEFAULT)} if DEFAULT in arms else {}
        if not arms:
            arms["none"] = 0
        made = branch(found(step.over), arms, **default).options(**options)
    elif step.kind in ("chain", "group"):
        tasks = [work.s().options(name=f"{step.name}-{k}") for k in range(step.length)]
        made = chain(*tasks) if step.kind == "chain" else group(tasks)
    elif step.kind == "first":
        made = first(*args).options(**options)
    elif step.kind == "sleep":
        made = sleep(step.seconds).options(**options)
    elif step.kind == "wait":
        late = {"default": options.pop("default")} if step.default else {}
        made = wait_for(step.name, timeout=step.seconds or None, **late).options(**options)
    elif step.kind == "pure":
        made = pure.options(**options)(step.name.partition("-")[0])
    else:
        kind = step.kind
        if kind == "grow":
            kind = f"grow:{step.name}"
            GROWN[kind] = step
        made = work.options(**options)(*args, kind=kind, early=step.early)
    return made.after(*after) if after else made


def _options(step: Step) -> dict[str, Any]:
    options: dict[str, Any] = {"name": step.name}
    if step.rule != "all_success":
        options["trigger_rule"] = step.rule
    if step.policy:
        options["failure_policy"] = step.policy
    if step.default:
        options["default"] = "default"
    if step.fallback:
        mirror = step.fallback == "task"
        options["fallback"] = work.options(name="f") if mirror else handle.s().options(name="f")
    if step.on_error:
        options["on_error"] = handle.s().options(name="e")
    if step.retries:
        options["retries"] = step.retries
    return options


def _map(step: Step, found: Callable[[int], Any], options: dict[str, Any]) -> Any:
    over = (
        [f"{step.name}.{i}" for i in range(step.length)] if step.over is None else found(step.over)
    )
    if step.items != "all":
        options["items"] = step.items
    if step.tolerate is not None:
        options["tolerate"] = step.tolerate
    numbers = {
        "need": step.need,
        "chunksize": step.chunk,
        "max_parallel": step.parallel,
        "deadline": step.deadline,
    }
    options.update({word: said for word, said in numbers.items() if said})
    each: dict[str, Any] = {}
    if step.item_fallback:
        each["fallback"] = handle.s().options(name="f")
    if step.item_on_error:
        each["on_error"] = handle.s().options(name="e")
    if step.item == "task":
        chunked = {"chunked": True} if step.chunk else {}
        made: Any = work.options(retries=step.item_retries, **each).map(over, **chunked)
    elif step.item == "chain":
        made = chain(work.s().options(name="a"), work.s().options(name="b")).map(over)
    else:
        assert step.body is not None
        made = _flow(step.body).options(**each).map(over)
    return made.options(**options)


def _arm(arm: Body | list[int] | int, found: Callable[[int], Any]) -> Any:
    if isinstance(arm, Body):
        return lambda: _said(arm, [])
    return [found(i) for i in arm] if isinstance(arm, list) else arm
