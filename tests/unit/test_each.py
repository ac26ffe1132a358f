# SPDX-License-Identifier: MIT
"""Keyword arguments of maps of which each item takes one element."""

from __future__ import annotations

from typing import Any

import pytest

from flowq import Flow, FlowQ, chain, each
from flowq.errors import BindingError, GraphError, NodeUsedAsValue

app = FlowQ("each", "memory://")


@app.task(name="tag")
def tag(x: Any = "-", y: Any = "-", *, day: Any = "-", by: Any = "-") -> Any:
    return f"{x} {y} {day} {by}"


@app.task(name="pair")
def pair(x: Any, day: Any) -> Any:
    return [x, day]


@app.task(name="give")
def give(x: Any) -> Any:
    return x


@app.flow(name="whole")
def whole(x: Any, day: Any = "-") -> Any:
    return pair(give(x), day)


def flow(func: Any) -> Flow[..., Any]:
    """Make a flow of one test, of which the app knows nothing."""
    return Flow(app, func, {"name": func.__name__})


def valued(composition: Any) -> Any:
    with app.inline():
        return composition.start().get(timeout=10)


@pytest.mark.parametrize("later", [False, True], ids=["known", "given"])
@pytest.mark.parametrize("late", [False, True], ids=["days", "days-given"])
def test_each_item_takes_its_element_by_keyword(later: bool, late: bool) -> None:
    @flow
    def mapped() -> Any:
        def listed(values: list[Any]) -> Any:
            return give(values) if later else values

        def lated(values: list[Any]) -> Any:
            return each(give(values) if late else values)

        xs, days = listed([1, 2]), lated(["mon", object])
        return [
            tag.map(xs, day=days),
            tag.map(listed([1, 2]), listed([3, 4]), day=lated([5, 6]), by=lated([7, 8])),
            tag.map(listed([(1, 2), (3, 4)]), day=lated([5, 6]), by="b"),
            tag.starmap(listed([[1], [2, 3]]), day=lated([5, 6])),
            tag.options(unpack=False).map(listed([(1, 2)]), day=lated([5])),
            tag.map(day=lated([5, 6])),
            tag.map(day=lated([5, 6]), by=lated([7, 8])),
            pair.map(listed(["a", "b"]), day=lated([5, 6])),
        ]

    assert valued(mapped.build()) == [
        ["1 - mon -", "2 - <class 'object'> -"],
        ["1 3 5 7", "2 4 6 8"],
        ["1 2 5 b", "3 4 6 b"],
        ["1 - 5 -", "2 3 6 -"],
        ["(1, 2) - 5 -"],
        ["- - 5 -", "- - 6 -"],
        ["- - 5 7", "- - 6 8"],
        [["a", 5], ["b", 6]],
    ]


def test_flows_and_steps_in_lists_are_zipped_as_well() -> None:
    days = [give.s("mon"), {"day": give.s("tue")}]

    assert valued(whole.s(day=each(days)).map([1, 2])) == [[1, "mon"], [2, {"day": "tue"}]]
    assert valued(whole.s(day=each([3, 4])).starmap([(1,), (2,)])) == [[1, 3], [2, 4]]
    assert valued(tag.s(by="b", day=each(days)).map([1, give.s(2)])) == [
        "1 - mon b",
        "2 - {'day': 'tue'} b",
    ]


def test_maps_with_keywords_stand_within_maps() -> None:
    @flow
    def row(xs: Any, day: Any) -> Any:
        return [whole.map(xs, day=each(xs)), pair.map(xs, day=each(day))]

    @flow
    def rows(xss: Any) -> Any:
        return row.map(give(xss), day=each(xss))

    expected = [[[[1, 1], [2, 2]], [[1, 1], [2, 2]]], [[], []]]
    assert valued(rows.build([[1, 2], []])) == expected
    assert valued(row.s(day=each([[1, 2], []])).map([[1, 2], []])) == expected


def test_a_value_that_is_piped_into_a_map_by_keyword_is_the_same_for_each_item() -> None:
    assert valued(chain(give.s([1]), tag.s().map(day=each([2, 3])))) == ["[1] - 2 -", "[1] - 3 -"]


def test_what_cannot_be_mapped_by_keyword_is_told() -> None:
    with pytest.raises(GraphError, match="lists of different lengths, 2, 1"):
        tag.s().map([1, 2], day=each([3]))
    with pytest.raises(GraphError, match="map of tag: a str is one value, not a list"):
        tag.s().map([1], day=each("a"))
    with pytest.raises(GraphError, match=r"each\(...\) goes with lists that are named"):
        tag.each(day=each([3]))
    with pytest.raises(GraphError, match=r"each\(\[3\]\) is for keyword arguments of a map"):
        tag.s(day=each([3]))._graph()
    with pytest.raises(NodeUsedAsValue):
        list(each([1]))
    with pytest.raises(BindingError, match="unexpected argument 'days'"):
        tag.s().map([1], days=each([3]))
    with pytest.raises(GraphError, match="keyword arguments are for tasks"):
        (tag.s() | tag.s()).map([1], day=each([3]))


def test_unequal_lists_that_come_with_the_run_fail_the_map() -> None:
    @flow
    def unequal() -> Any:
        return tag.map(give([1, 2]), day=each([3]))

    with app.inline():
        run = unequal.build().start()
        assert "lists of different lengths, 2, 1" in str(run.get(raise_errors=False).message)


@pytest.mark.parametrize("later", [False, True], ids=["known", "given"])
def test_a_map_in_the_head_of_what_is_mapped_is_over_the_element(later: bool) -> None:
    def over(item: Any, lists: list[Any]) -> Any:
        return valued(chain(give.s(lists), item.map()) if later else item.map(lists))

    lists = [[1, 2], [], (3,)]

    assert over(give.each(), lists) == [[1, 2], [], [3]]
    assert over(chain(give.each(), give.s()), lists) == [[1, 2], [], [3]]
    assert over(give.s().map().map(), [lists, []]) == [[[1, 2], [], [3]], []]
    with pytest.raises(GraphError, match="maps over one list, so each element"):
        give.each().map([[1]], [[2]])._graph()


def test_a_map_over_the_value_that_a_handler_is_told() -> None:
    # given
    told: list[Any] = []

    @app.task(name="tell")
    def tell(x: Any) -> None:
        told.append(x)

    # when
    assert valued(chain(give.s([1, 2]), give.s()).on_success(tell.each())) == [1, 2]

    # then
    assert told == [1, 2]
    with pytest.raises(GraphError, match="told of a Failure, which is no list"):
        give.s(1).on_error(tell.each())._graph()
