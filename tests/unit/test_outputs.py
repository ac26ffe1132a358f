# SPDX-License-Identifier: MIT
"""A task that says how many values it returns is taken apart in a flow."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from flowq import FlowQ, TaskError
from flowq.errors import ConfigError, NodeUsedAsValue

app = FlowQ("outputs", "memory://")
ran: list[Any] = []


@app.task(name="split", outputs=2, retries=3)
def split(given: Any) -> Any:
    ran.append(given)
    return given


@app.task(name="join")
def join(a: Any, b: Any) -> Any:
    return [a, b]


@app.task(name="more", outputs=2)
def more(x: int) -> Any:
    return split.s([x, x + 1])


@app.flow(name="swap")
def swap(given: Any) -> Any:
    a, b = split(given)
    return join(b, a)


def test_its_items_go_over_edges_of_their_own() -> None:
    run = swap.build((1, 2)).test()

    assert run.get() == [2, 1]
    assert swap.build((1, 2)).graph.edges["split", "join"]


def test_what_has_a_known_length_may_be_gone_through() -> None:
    @app.flow(name="through")
    def through(given: Any) -> Any:
        node = split(given)
        return [*node, len(node), *(join(x, 0) for x in node)]

    assert through.build([7, 8]).test().get() == [7, 8, 2, [7, 0], [8, 0]]


def test_it_may_return_a_graph_that_gives_them() -> None:
    @app.flow(name="later")
    def later(x: int) -> Any:
        a, b = more(x)
        return join(b, a)

    assert later.build(1).test().get() == [2, 1]


def _too_many(given: Any) -> Any:
    a, b, c = split(given)
    return [a, b, c]


def _too_few(given: Any) -> Any:
    (a,) = split(given)
    return a


@pytest.mark.parametrize("func", [_too_many, _too_few])
def test_a_wrong_count_is_told_with_file_and_line(func: Callable[[Any], Any]) -> None:
    flow = app.flow(name=f"wrong.{func.__name__}")(func)
    line = func.__code__.co_firstlineno + 1

    with pytest.raises(NodeUsedAsValue, match=r"<node 'split' .*outputs=2") as told:
        flow.build((1, 2))

    assert re.search(rf"test_outputs\.py, line {line}\)", str(told.value))


def test_another_value_error_of_a_flow_stays_what_it_is() -> None:
    @app.flow(name="own")
    def own(given: Any) -> Any:
        a, _ = split(given)
        plain: Any = (1, 2)
        (c,) = plain
        return [a, c]

    with pytest.raises(ValueError, match="too many values to unpack"):
        own.build(1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([1, 2, 3], "list of 3"),
        ((1,), "tuple of 1"),
        ("ab", "str"),
        ({0: 1, 1: 2}, "dict"),
        (None, "NoneType"),
    ],
)
def test_a_value_of_another_length_fails_the_node_and_is_not_retried(given: Any, told: str) -> None:
    ran.clear()

    run = swap.build(given).test()

    with pytest.raises(TaskError, match=rf"split says outputs=2.*returned a {told}"):
        run.get()
    assert ran == [given]
    assert [n.state for n in run.nodes()] == ["failed", "blocked"]


def test_each_element_of_a_chunk_is_looked_at() -> None:
    @app.flow(name="chunked")
    def chunked(given: Any) -> Any:
        return split.options(chunksize=2).map(given)

    assert chunked.build([[1, 2], [3, 4]]).test().get() == [[1, 2], [3, 4]]
    with pytest.raises(TaskError, match="returned a list of 1"):
        chunked.build([[1, 2], [3]]).test().get()


@pytest.mark.parametrize("value", [0, -1, True, "2", 1_001])
def test_how_many_is_a_whole_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="outputs="):
        app.task(name="odd", outputs=value)(lambda x: x)
