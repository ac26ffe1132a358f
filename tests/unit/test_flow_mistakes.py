# SPDX-License-Identifier: MIT
"""What is wrong in a flow is told where it is built, with file and line of the user's code."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from flowq import DAG, FlowQ, chain
from flowq.building import TRACE
from flowq.errors import BindingError, CycleError, GraphError, NodeUsedAsValue

app = FlowQ("mistakes", "memory://")
other_app = FlowQ("others", "memory://")


@app.task(name="extract")
def extract(day: str) -> list[str]: ...


@app.task(name="clean")
def clean(path: str, times: int = 1) -> str: ...


@app.task(name="report")
def report(rows: Any, day: str = "") -> str: ...


@other_app.task(name="foreign")
def foreign() -> None: ...


@app.flow(name="sub")
def sub(x: Any, kept: Any = None) -> Any:
    return report(kept[0] if kept else x)


@dataclass
class Config:
    rows: Any


class Plain:
    def __init__(self, rows: Any) -> None:
        self.rows = rows


outside = Config(None)
"""Where a test puts what was started before the flow, and what another flow left behind."""


@app.flow(name="captures")
def captures(x: Any) -> Any:
    return report(outside.rows, day=x)


@app.flow(name="endless")
def endless(x: Any) -> Any:
    return endless(x)


def _closure(x: Any) -> Any:
    return lambda: x


def _captured(d: Any) -> Any:
    outside.rows = extract(d)
    return captures(d)


def _cycle(d: Any) -> None:
    a = extract(d)
    b = report(a)
    b >> a


def _late_cycle(d: Any) -> None:
    a, b = report(d), report(d)
    b >> a
    b.after(clean(a))


def _unpack(d: Any) -> None:
    _, _ = extract(d)


def _loop(d: Any) -> None:
    for _ in extract(d):
        pass


def _twice(d: Any) -> None:
    clean.options(name="n")(d)
    extract.options(name="n")(d)


def _renamed(d: Any) -> None:
    clean(d)
    extract(d).options(name="clean")


def _set_item(d: Any) -> None:
    extract(d)["x"] = 1  # type: ignore[index]


MISTAKES: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    # a node used as a value
    (lambda d: 1 if extract(d) else 2, NodeUsedAsValue, "the truth of <node 'extract' of flow"),
    (_loop, NodeUsedAsValue, "iteration .*use map"),
    (_unpack, NodeUsedAsValue, "iteration .*use map"),
    (lambda d: d in extract(d), NodeUsedAsValue, "a search"),
    (lambda d: len(extract(d)), NodeUsedAsValue, "the length"),
    (lambda d: extract(d) + 1, NodeUsedAsValue, "arithmetic"),
    (lambda d: divmod(1, extract(d)), NodeUsedAsValue, "arithmetic"),  # type: ignore[operator]
    (lambda d: extract(d) < 3, NodeUsedAsValue, "arithmetic"),
    (lambda d: extract(d) == 3, NodeUsedAsValue, "a comparison"),
    (lambda d: f"{extract(d)}", NodeUsedAsValue, "the text"),
    (lambda d: str(extract(d)), NodeUsedAsValue, "the text"),
    (lambda d: "%s" % extract(d), NodeUsedAsValue, "the text"),  # noqa: UP031
    (lambda d: os.fspath(extract(d)), NodeUsedAsValue, "the path"),
    (lambda d: extract(d).columns, NodeUsedAsValue, "a node has no 'columns'"),
    (lambda d: extract(d)[0:2], NodeUsedAsValue, "slice in a task"),
    (lambda d: extract(d) << extract(d), NodeUsedAsValue, "other >> this"),
    (_set_item, NodeUsedAsValue, "a change"),
    (lambda d: {extract(d): 1}, NodeUsedAsValue, "key of a dict"),
    (lambda d: report({extract(d): 1}), NodeUsedAsValue, "key of a dict"),
    (lambda d: report(Config(extract(d))), NodeUsedAsValue, "inside a Config"),
    (lambda d: report(_closure(extract(d))), NodeUsedAsValue, "inside a function"),
    (lambda d: report(partial(print, extract(d))), NodeUsedAsValue, "inside a partial"),
    (lambda d: report(Plain(extract(d))), NodeUsedAsValue, "inside a Plain"),
    (lambda d: report([{extract(d)}]), NodeUsedAsValue, "inside a set"),
    (lambda d: report.s(Plain(extract(d))), NodeUsedAsValue, "inside a Plain"),
    (_captured, NodeUsedAsValue, "no node of <flow captures>.*as an argument"),
    (lambda d: sub(extract(d) + 1), NodeUsedAsValue, "arithmetic"),
    (lambda d: sub(extract(d)).get(), NodeUsedAsValue, "no 'get'.*nothing has run"),
    (lambda d: extract(d).start(), NodeUsedAsValue, "no 'start'.*nothing has run"),
    # arguments, names, cycles
    (lambda d: clean(), BindingError, r"missing argument 'path'; its signature is clean\("),
    (lambda d: clean(d, 1, 2), BindingError, "2 positional arguments, but 3"),
    (lambda d: clean(d, nope=1), BindingError, "unexpected argument 'nope'"),
    (lambda d: clean(d, path=d), BindingError, "bound twice"),
    (lambda d: clean.map(extract(d), nope=1), BindingError, "unexpected argument 'nope'"),
    (lambda d: clean.map("abc"), GraphError, "a str is one value"),
    (lambda d: sub(), BindingError, r"flow sub: missing argument 'x'; its signature is sub\("),
    (lambda d: sub.s(d, nope=1), BindingError, "flow sub: unexpected argument"),
    (lambda d: clean(extract(d)), BindingError, r"takes str, and node 'extract'.*list\[str\]"),
    (lambda d: clean(d).options(nme="x"), GraphError, "did you mean 'name'"),
    (lambda d: clean.options(unpack=True)(d), GraphError, "'unpack' does not go here"),
    (lambda d: sub.options(failed_ttl=1)(d), GraphError, "speaks of the run"),
    (lambda d: clean(d).after(sub), GraphError, "write sub.s"),
    (lambda d: clean(clean.s(extract(d))), BindingError, r"'clean-2' \(task clean\) \(.*never fit"),
    (_twice, GraphError, "two nodes are named 'n'"),
    (_renamed, GraphError, "two nodes are named 'clean'"),
    (_cycle, CycleError, "extract -> report -> extract"),
    (_late_cycle, CycleError, "report-2 -> report -> clean -> report-2"),
    (lambda d: extract(d).after(foreign()), GraphError, "foreign belongs to another app"),
    (lambda d: endless(d), GraphError, "over 50 deep; for recursion"),
    # what only a started graph has
    (lambda d: extract.s(d).start(), GraphError, "start.. while <flow"),
    (lambda d: chain(extract.s(d)).start(), GraphError, "start.. while <flow"),
    (lambda d: report(outside.rows), BindingError, "started outside of <flow"),
    (lambda d: outside.rows, BindingError, "started outside of <flow"),
    (lambda d: outside.rows.get(), GraphError, "the store was asked while"),
    (lambda d: app.store, GraphError, "the store was asked while"),
    (lambda d: app.result("0" * 32).state, GraphError, "the store was asked while"),
    # what is made and never used
    (lambda d: extract.s(d) and None, GraphError, "clean.s.x.*or pass it on|the truth"),
    (lambda d: [clean.s(d)].clear(), GraphError, r"clean.s\(.*mentioned nowhere"),
    (lambda d: [clean.s(d).options(name="x")].clear(), GraphError, "mentioned nowhere"),
    (lambda d: [chain(clean.s(d), report.s())].clear(), GraphError, "mentioned nowhere"),
    (lambda d: [extract(d) >> report.s(1)].clear(), GraphError, "mentioned nowhere"),
    (lambda d: [sub.s(d)].clear(), GraphError, r"sub.s\(.*mentioned nowhere"),
    (lambda d: [sub.build("x")].clear(), GraphError, "flow sub> .*mentioned nowhere"),
    (lambda d: [DAG("x")].clear(), GraphError, "mentioned nowhere"),
    # the value
    (lambda d: [extract(d), object()], GraphError, "returns a object.*let a task return it"),
]


@pytest.mark.parametrize(("func", "kind", "said"), MISTAKES)
def test_a_mistake_in_a_flow_is_told_with_file_and_line(
    func: Callable[[Any], Any], kind: type[Exception], said: str
) -> None:
    outside.rows = extract("before")
    flow = app.flow(name=f"flow-{len(app.flows)}")(func)

    with pytest.raises(kind, match=said) as caught:
        _ = flow.build("mon").graph

    text = str(caught.value)
    assert f"({__file__}, line " in text
    first = func.__code__.co_firstlineno
    lines = {int(part.split(")")[0]) for part in text.split(", line ")[1:]}
    own = {line for _, _, line in func.__code__.co_lines() if line}
    elsewhere = {line for f in (captures, sub) for _, _, line in f.func.__code__.co_lines()}
    elsewhere |= {line for _, _, line in endless.func.__code__.co_lines()}
    assert lines & (own | elsewhere), (lines, first)
    assert TRACE.get() is None


def test_what_is_passed_on_is_not_forgotten() -> None:
    @app.flow(name="passes")
    def passes(day: str) -> Any:
        parts = extract.s(day)[0]
        unnamed = clean.s(parts, times=2).options(name="c")
        piped = chain(extract.s("x"), report.s()).options(priority=2)
        return [report(unnamed, day=day), piped, clean.s().map(["x"]), sub.build("x")]

    assert set(passes.build("mon").graph) >= {"report", "c", "extract"}


def test_what_was_made_before_the_flow_may_be_left_unused() -> None:
    before = extract.s("mon")

    @app.flow(name="leaves")
    def leaves(day: str) -> Any:
        before.options(name="x") if day == "never" else None
        return report(before)

    assert set(leaves.build("mon").graph) == {"report", "extract"}


def test_an_error_of_the_functions_own_is_not_touched() -> None:
    @app.flow(name="raises")
    def raises() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match=r"^'mine'$"):
        raises.build()
    assert TRACE.get() is None


def test_after_a_flow_is_built_calls_start_again() -> None:
    sub.build("x")

    with app.inline():
        assert extract("mon").state == "success"


@pytest.mark.parametrize(
    "use",
    [lambda flow: flow("x"), lambda flow: flow.s("x"), lambda flow: flow.build("x")],
    ids=["called", "s", "build"],
)
def test_options_of_a_map_on_a_flow_that_is_not_mapped_are_told_where_they_go(
    use: Callable[[Any], Any],
) -> None:
    with pytest.raises(GraphError, match=r"'items' does not go here.*\.options\(\.\.\.\) of a map"):
        use(sub.options(items="keep"))
