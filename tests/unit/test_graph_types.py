# SPDX-License-Identifier: MIT
"""Annotations at both ends of an edge, compared when a graph is built."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from flowq import DAG, BindingError, BindingWarning, Failure, FlowQ, group
from flowq.graph import Graph

if TYPE_CHECKING:
    from nowhere import Table  # type: ignore[import-not-found]  # as users import for checkers

q = FlowQ("typing", "memory://")


@q.task
def number(x: Any = 0) -> int: ...  # type: ignore[empty-body]


@q.task
async def text(x: Any = 0) -> str: ...  # type: ignore[empty-body]


@q.task
def maybe(x: Any = 0) -> int | None: ...


@q.task
def prices(x: Any = 0) -> dict[str, int]: ...  # type: ignore[empty-body]


@q.task
def mixed(x: Any = 0) -> dict[str, int | str]: ...  # type: ignore[empty-body]


@q.task
def table(x: Any = 0) -> Table: ...


@q.task
def ping() -> None: ...


@q.task
def takes_number(n: float) -> Any: ...


@q.task
def takes_default(n: int = None) -> Any: ...  # type: ignore[assignment]  # noqa: RUF013


@q.task
def takes_text(t: str, *more: str, **named: str) -> Any: ...


@q.task
def takes_list(xs: list[int]) -> Any: ...


@q.task
def takes_table(rows: Table, n: int = 0) -> Any: ...


@q.task
def takes_pair(pair: tuple[int, str]) -> Any: ...


@q.task(context=True)
def takes_task(task: Any, n: int) -> Any: ...


def build(composition: Any) -> Graph:
    graph: Graph = composition._graph()
    return graph


def dag_of(*, item: str) -> DAG:
    dag = DAG("d")
    dag.add(prices.s(), name="prices")
    dag.add(takes_number.s(), name="reader")
    dag.edge(dag["prices"][item] if item else "prices", "reader", to="n")
    return dag


@pytest.mark.parametrize(
    "make",
    [
        lambda: number.s() | takes_number.s(),
        lambda: ping.s() | takes_default.s(),
        lambda: maybe.s() | takes_default.s(),
        lambda: number.s() | takes_task.s(),
        lambda: takes_number.s(1) | takes_text.s(),
        lambda: table.s() | takes_text.s(),
        lambda: number.s() | takes_table.s(),
        lambda: takes_table.s(None, number.s()),
        lambda: group(number.s(), number.s()) | takes_list.s(),
        lambda: group() | takes_list.s(),
        lambda: number.s().map([1, 2]) | takes_list.s(),
        lambda: (text.s() | number.s()).map([1, 2]) | takes_list.s(),
        lambda: takes_pair.s((number.s(), text.s())),
        lambda: takes_text.s("x", *[text.s()], a=text.s()),
        lambda: takes_number.s().map([number.s(), number.s()]),
        lambda: dag_of(item="x"),
        lambda: takes_number.s(mixed.s()["x"]),
        lambda: takes_number.options(trigger_rule="all_done").s(text.s()),
        lambda: text.s() >> number.s(),
        lambda: (number.s() | takes_number.s()).options(name="inner") | takes_text.s(),
    ],
)
def test_what_fits_is_built_without_a_word(make: Callable[[], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(make())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: text.s() | takes_number.s(),
            r"node 'takes_number' \(task .*takes_number\): parameter 'n' takes float, and "
            r"node 'text' \(task .*text\) gives str, which can never fit",
        ),
        (lambda: number.s() | takes_text.s(), "parameter 't' takes str, and .*gives int"),
        (lambda: takes_text.s("a", "b", number.s()), r"parameter 'more\[1\]' takes str"),
        (lambda: takes_text.s("a", zz=number.s()), "parameter 'zz' takes str"),
        (lambda: ping.s() | takes_number.s(), "gives None"),
        (lambda: maybe.s() | takes_text.s(), "gives int . None|Optional"),
        (lambda: takes_task.s(text.s()), "parameter 'n' takes int"),
        (lambda: number.s() | takes_list.s(), r"takes list\[int\], and .* gives int"),
        (lambda: group(number.s(), text.s()) | takes_list.s(), "takes int, and node 'text'"),
        (
            lambda: group(number.s()) | takes_number.s(),
            "a list with node 'number'.* in it",
        ),
        (lambda: group() | takes_number.s(), "an empty list is given"),
        (lambda: group(group(text.s())) | takes_list.s(), "takes int, and a list with node 'text'"),
        (lambda: number.s().map([1]) | takes_number.s(), "gives list"),
        (lambda: takes_pair.s((number.s(), number.s())), "takes str, and .*gives int"),
        (lambda: takes_number.s().map([number.s(), text.s()]), "node 'text'"),
        (lambda: dag_of(item=""), "takes float, and node 'prices'"),
        (
            lambda: (number.s() | text.s()).options(name="inner") | takes_number.s(),
            "takes float, and node 'text'",
        ),
        (lambda: (text.s() | takes_number.s()).map([1, 2]), "node 'text'"),
    ],
)
def test_what_can_never_fit_is_an_error_with_both_nodes(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(BindingError, match=said):
        build(make())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: maybe.s() | takes_number.s(), "takes float, and .*which may not fit"),
        (lambda: text.s().map([1]) | takes_list.s(), "takes int, and node 'text'.* gives str"),
        (lambda: group(maybe.s()) | takes_list.s(), "takes int"),
    ],
)
def test_what_may_not_fit_is_a_warning_at_the_users_line(
    make: Callable[[], Any], said: str
) -> None:
    with pytest.warns(BindingWarning, match=said) as told:
        build(make())

    assert [w.filename for w in told] == [__file__]


def test_what_a_rule_lets_run_without_values_is_not_compared() -> None:
    @q.task
    def alarm(failure: Failure) -> None: ...

    @q.task
    def tidy(n: str) -> None: ...

    build(number.s() | alarm.options(trigger_rule="one_failed").s())
    build(number.s() | tidy.options(trigger_rule="all_done").s())


def test_a_type_error_is_found_before_anything_is_enqueued() -> None:
    with pytest.raises(BindingError, match="can never fit"):
        (text.s() | takes_number.s()).start()

    assert not list(q.store.runs(limit=1))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    with q.inline():
        yield
