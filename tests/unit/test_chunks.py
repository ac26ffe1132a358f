# SPDX-License-Identifier: MIT
"""Maps of which each message takes several elements."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowq import Flow, FlowQ, GroupError, Retry, Skip, current_task, each, group
from flowq.chunks import calls, chunks_of
from flowq.errors import BindingError, ConfigError, Failure, GraphError
from flowq.fragment import expand_map
from flowq.lower import lower
from flowq.message import Items, decode_template
from flowq.once import digest_of
from flowq.plan import INNER
from tests.unit.staged import Stage, states

app = FlowQ("chunks", "memory://")
CALLS: list[Any] = []


@app.task(name="double")
def double(x: Any) -> Any:
    CALLS.append(x)
    return x * 2


@app.task(name="tag")
def tag(x: Any = "-", y: Any = "-", z: Any = "-", *, day: Any = "-") -> str:
    return f"{x}{y}{z}{day}"


@app.task(name="numbers")
def numbers(n: int) -> list[int]:
    return list(range(n))


@app.task(name="give")
def give(x: Any) -> Any:
    return x


@app.task(name="place", context=True)
def place(x: Any, *, task: Any) -> tuple[Any, Any, Any]:
    assert task is current_task()
    return x, task.index, task.node


@app.task(name="odd")
def odd(x: int) -> int:
    """Fails for 4, and does not want 1 and 6 to 8."""
    CALLS.append(x)
    if x == 4:
        raise ValueError("four")
    if x in (1, 6, 7, 8):
        raise Skip(f"not {x}")
    return x


@app.task(name="later", retries=1)
def later(x: int) -> int:
    CALLS.append(x)
    if x == 1 and CALLS.count(1) == 1:
        raise Retry
    return x


@app.task(name="awaited")
async def awaited(x: int) -> tuple[int, int]:
    await asyncio.sleep(0)
    return x, id(asyncio.get_running_loop())


@app.task(name="stuck")
def stuck(x: int) -> Any:
    return threading.Lock() if x == 1 else x


@app.task(name="grow")
def grow(x: int) -> Any:
    return double.s(x) if x % 2 else x


@app.task(name="excuse")
def excuse(x: int) -> str:
    return f"no {x}"


@app.task(name="alert")
def alert(failure: Any) -> None:
    CALLS.append(failure)


@app.task(name="kinds")
def kinds(values: list[Any]) -> list[Any]:
    return [type(x).__name__ if isinstance(x, Failure) else x for x in values]


def chunked(task: Any, size: int, *lists: Any, **options: Any) -> Any:
    return task.s().map(*lists).options(chunksize=size, **options)


def late(values: Any) -> Any:
    """The same list, from a node."""
    return give.s(values)


BOTH = pytest.mark.parametrize("listed", [lambda xs: xs, late], ids=["known", "given"])


@BOTH
class TestValues:
    """What a map gives does not depend on how many elements a message has."""

    def test_the_list_is_that_of_the_map_without_chunks(self, stage: Stage, listed: Any) -> None:
        for size, length in ((1, 3), (2, 5), (3, 3), (10, 3)):
            run = stage.run(chunked(double, size, listed(list(range(length)))) | give.s())

            assert run.get() == [2 * x for x in range(length)]
            nodes = [n.name for n in run.nodes() if "[" in n.name]
            assert nodes == [f"double[{k}]" for k in range(-(-length // size))]

    def test_an_empty_list_is_an_empty_list(self, stage: Stage, listed: Any) -> None:
        run = stage.run(chunked(double, 3, listed([])) | give.s())

        assert (run.get(), run.state) == ([], "success")

    def test_zipped_lists_and_lists_of_keywords_go_with_their_elements(
        self, stage: Stage, listed: Any
    ) -> None:
        days = ["x", "y", "z"]
        zipped = tag.s().map(listed([1, 2, 3]), listed(["a", "b", "c"]), day=each(days))
        named = tag.s(7).map(day=each(listed(days)))

        run = stage.run(group(m.options(chunksize=2) for m in (zipped, named)))

        assert run.get() == [["1a-x", "2b-y", "3c-z"], ["7--x", "7--y", "7--z"]]

    def test_tuples_become_arguments_as_without_chunks(self, stage: Stage, listed: Any) -> None:
        rows = [(1, 2), (3,), [4, 5]]
        made = (
            tag.s().map(listed(rows)),
            tag.s("a").starmap(listed([(1, 2), [3, 4], ()])),
            tag.s().map(listed(rows)).options(unpack=False),
        )

        run = stage.run(group(m.options(chunksize=2) for m in made))

        assert run.get() == [
            ["12--", "3---", "[4, 5]---"],
            ["a12-", "a34-", "a---"],
            ["(1, 2)---", "(3,)---", "[4, 5]---"],
        ]

    def test_what_is_alike_for_all_items_stands_behind_an_element(
        self, stage: Stage, listed: Any
    ) -> None:
        inner = tag.s("a").map(listed([(1,), (2,), (3,)])).options(chunksize=2, unpack=True)
        if listed is late:
            inner = tag.s("a").map(listed([1, 2, 3])).options(chunksize=2, unpack=False)

        run = stage.run(give.s("x") | inner)

        assert run.get() == ["a1x-", "a2x-", "a3x-"]

    def test_steps_may_be_among_the_elements(self, stage: Stage, listed: Any) -> None:
        xs = [give.s(1), 2, {"k": give.s(3)}] if listed is not late else group(give.s(1), give.s(2))

        run = stage.run(chunked(give, 2, xs) | give.s())

        assert run.get() == ([1, 2, {"k": 3}] if listed is not late else [1, 2])

    def test_maps_of_maps_have_chunks_at_any_depth(self, stage: Stage, listed: Any) -> None:
        inner = tag.s().map(listed([1, 2, 3])).options(chunksize=2, unpack=False)

        run = stage.run(inner.map(["a", "b"]) | give.s())

        assert run.get() == [["1a--", "2a--", "3a--"], ["1b--", "2b--", "3b--"]]

    def test_a_chunked_list_is_mapped_over_and_indexed_as_any(
        self, stage: Stage, listed: Any
    ) -> None:
        def indexed() -> Any:
            xs = give([1, 2, 3]) if listed is late else [1, 2, 3]
            twice = double.options(chunksize=2).map(xs)
            return [double.options(chunksize=2).map(twice), twice[2]]

        run = stage.run(Flow(app, indexed, {"name": "indexed"}).build())

        assert run.get() == [[4, 8, 12], 6]


ELEMENTS = st.lists(
    st.one_of(
        st.integers(-3, 9),
        st.lists(st.integers(0, 2), max_size=3),
        st.lists(st.integers(0, 2), max_size=2).map(tuple),
        st.just({"k": (1,)}),
    ),
    max_size=9,
)


@settings(max_examples=40, deadline=None)
@given(ELEMENTS, st.integers(1, 10), st.booleans(), st.sampled_from((None, False)), st.booleans())
def test_any_list_gives_what_it_gives_without_chunks(
    elements: list[Any], size: int, listed: bool, unpack: bool | None, named: bool
) -> None:
    days = {"day": each(elements)} if named else {}
    xs = late(elements) if listed else elements
    made = tag.s("-").map(xs, **days).options(unpack=unpack)

    values = [m.test().get() for m in (made, made.options(chunksize=size))]

    assert values[0] == values[1]
    assert len(values[0]) == len(elements)


class TestOneChunk:
    """A chunk is one node."""

    @BOTH
    def test_its_body_knows_the_element_that_it_is_at(self, stage: Stage, listed: Any) -> None:
        run = stage.run(chunked(place, 2, listed(["a", "b", "c"])) | give.s())

        assert run.get() == [("a", 0, "place[0]"), ("b", 1, "place[0]"), ("c", 2, "place[1]")]

    def test_all_of_it_is_tried_again(self, stage: Stage) -> None:
        run = stage.run(chunked(later, 2, [0, 1, 2]))

        assert run.get() == [0, 1, 2]
        assert sorted(CALLS) == [0, 0, 1, 1, 2]

    def test_coroutines_of_a_chunk_share_a_loop(self, stage: Stage) -> None:
        values = stage.run(chunked(awaited, 3, range(3))).get()

        assert [x for x, _ in values] == [0, 1, 2]
        assert len({loop for _, loop in values}) == 1

    def test_elements_may_return_graphs(self, stage: Stage) -> None:
        assert stage.run(chunked(grow, 2, [1, 2, 3])).get() == [2, 2, 6]

    def test_a_cached_chunk_stands_for_equal_chunks_alone(self, stage: Stage) -> None:
        cached = double.options(cache=60)
        CALLS.clear()

        one, same = (stage.run(cached.chunks([1, 2, 3], 2)).get() for _ in range(2))
        alike = stage.run(cached.map([[(1,), (2,)], 3])).get()

        assert one == same == [2, 4, 6]
        assert alike == [[(1,), (2,), (1,), (2,)], 6]
        assert sorted(map(str, CALLS)) == ["1", "2", "3", "3", "[(1,), (2,)]"]

    def test_a_chunk_is_not_taken_for_one_call_with_its_list(self) -> None:
        chunk, one = (
            lower(made._graph(), app).rows
            for made in (chunked(give, 2, [1, 2]), give.s().map([[(1,), (2,)]]))
        )

        assert [len(rows) for rows in (chunk, one)] == [2, 2]
        assert digest_of(chunk, app.serializer) != digest_of(one, app.serializer)

    def test_a_handle_counts_and_gives_chunks(self, stage: Stage) -> None:
        made = chunked(double, 2, range(5)).test()

        assert (len(made), made.progress().known) == (3, 3)
        assert [r.get() for r in made] == [[0, 2], [4, 6], [8]]
        assert made.get() == [0, 2, 4, 6, 8]

    def test_a_stand_in_is_called_for_each_element(self) -> None:
        made = chunked(double, 2, range(3))

        run = made.test(values={"double": lambda x: x + 100})
        bad = made.test(fail={"double[1]": ValueError("no")})

        assert run.get() == [100, 101, 102]
        assert bad.get(raise_errors=False)[:2] == [0, 2]


class TestFailures:
    """What a chunk comes to whose elements don't all give a value."""

    @BOTH
    def test_it_says_which_element_failed(self, stage: Stage, listed: Any) -> None:
        run = stage.run(chunked(odd, 3, listed([0, 2, 3, 5, 4, 9])))

        with pytest.raises(Exception) as caught:
            run.get()
        failure = caught.value.failure if listed is late else caught.value.failures[0]
        assert (failure.index, failure.node, failure.message) == (4, "odd[1]", "ValueError('four')")
        assert failure.traceback.endswith("ValueError: four\nAt element 4 of its map.\n")
        assert CALLS == [0, 2, 3, 5, 4]
        assert states(run) == {"odd[0]": "success", "odd[1]": "failed"} | (
            {"give": "success", "odd": "failed"} if listed is late else {}
        )

    @BOTH
    def test_its_failure_is_kept_in_the_place_of_each_element(
        self, stage: Stage, listed: Any
    ) -> None:
        made = chunked(odd, 2, listed([0, 2, 4, 5, 9]), items="keep")

        run = stage.run(made | kinds.s())

        assert run.get() == [0, 2, "Failure", "Failure", 9]

    @BOTH
    @pytest.mark.parametrize(
        ("tolerate", "ended"), [(1, "success"), (0, "failed"), (0.4, "success"), (0.3, "failed")]
    )
    def test_so_many_chunks_are_tolerated(
        self, stage: Stage, listed: Any, tolerate: Any, ended: str
    ) -> None:
        made = chunked(odd, 2, listed([0, 2, 4, 5, 9]), tolerate=tolerate)

        assert stage.run(made | kinds.s()).state == ended

    @BOTH
    def test_a_skipped_element_leaves_the_list(self, stage: Stage, listed: Any) -> None:
        run = stage.run(chunked(odd, 2, listed([0, 1, 2, 3, 6, 7, 8])) | give.s())

        assert run.get() == [0, 2, 3]
        ended = states(run)
        assert [ended[f"odd[{k}]"] for k in range(4)] == ["success"] * 2 + ["skipped"] * 2

    @BOTH
    def test_a_task_as_fallback_is_called_for_each_element(self, stage: Stage, listed: Any) -> None:
        made = odd.options(fallback=excuse, chunksize=2)

        run = stage.run((late([0, 4, 5]) if listed is late else group(map(give.s, [0, 4, 5])))
                        | made.each())  # fmt: skip

        assert run.get() == ["no 0", "no 4", 5]

    @BOTH
    def test_an_alarm_rings_once_for_a_chunk(self, stage: Stage, listed: Any) -> None:
        made = odd.options(on_error=alert.s(), chunksize=2, items="keep").each()

        stage.run(late([0, 2, 4, 5]) | made if listed is late else
                  odd.s().on_error(alert.s()).map([0, 2, 4, 5]).options(chunksize=2))  # fmt: skip

        told = [x for x in CALLS if isinstance(x, Failure)]
        assert [(x.node, x.index, x.args) for x in told] == [("odd[1]", 2, (4,))]

    def test_a_result_that_cannot_travel_fails_its_chunk(self, stage: Stage) -> None:
        run = stage.run(chunked(stuck, 2, [3, 4, 1]))

        with pytest.raises(GroupError) as caught:
            run.get()
        assert [(f.reason, f.index) for f in caught.value.failures] == [("payload", 2)]


class TestMistakes:
    """What can have no chunks says so where it is built."""

    def test_only_tasks_have_chunks(self) -> None:
        @app.flow(name="whole")
        def whole(x: Any) -> Any:
            return give(x)

        graphs = (give.s() | double.s(), whole.s(), give.s().map([1]))
        for made in (graph.map([2]) for graph in graphs):
            with pytest.raises(GraphError, match=r"chunksize=.* is no task"):
                made.options(chunksize=2)
        with pytest.raises(GraphError, match=r"is no task"):
            whole.options(chunksize=2).map([1])

    def test_options_of_an_inner_map_stay_with_it(self) -> None:
        made = tag.s().map([1, 2, 3]).options(chunksize=2, name="inner").map([7, 8])

        run = made.test()

        assert run.get() == [["17--", "27--", "37--"], ["18--", "28--", "38--"]]
        assert len(run) == 2

    def test_a_signature_as_fallback_would_give_no_list(self) -> None:
        with pytest.raises(GraphError, match="let fallback= be a task"):
            chunked(odd.options(fallback=excuse.s()), 2, [1])

    @pytest.mark.parametrize("size", [0, -1, 2.0, True, "3"])
    def test_a_size_is_a_number_of_elements(self, size: Any) -> None:
        with pytest.raises(GraphError, match="chunksize="):
            chunked(give, size, [1])

    def test_it_is_an_option_of_maps_alone(self) -> None:
        for wrong in (lambda: give.options(chunksize=2)(1), lambda: give.options(chunksize=2).s(1)):
            with pytest.raises(GraphError, match=r"'chunksize' does not go here"):
                wrong()
        with pytest.raises(ConfigError, match="chunksize"):
            app.task(chunksize=2)(len)

    def test_an_element_that_does_not_fit_is_named(self, stage: Stage) -> None:
        with pytest.raises(BindingError, match=r"element 2 of double, \(3, 4\): it takes 1"):
            stage.run(double.s().starmap([(1,), (2,), (3, 4)]).options(chunksize=2))
        run = stage.run(double.s().starmap(late([(1,), (2,), (3, 4)])).options(chunksize=2))
        with pytest.raises(Exception, match=r"double\[1\]: element 2: .*it takes 1"):
            run.get()

    def test_a_map_may_be_as_wide_as_it_has_chunks(self, stage: Stage) -> None:
        made = [chunked(give, size, late([1, 2, 3, 4]), max_width=2) for size in (2, 1)]

        assert [stage.run(m).state for m in made] == ["success", "failed"]


class TestSpelling:
    """Three ways to say it give the same plan."""

    def test_chunks_is_short_for_a_map_with_that_size(self, stage: Stage) -> None:
        one = stage.run(tag.chunks([1, 2, 3], 2, day="x"))
        two = stage.run(tag.options(chunksize=2).map([1, 2, 3], day="x"))

        assert (len(one), one.get()) == (len(two), two.get()) == (2, ["1--x", "2--x", "3--x"])

    def test_a_row_holds_what_its_elements_take(self) -> None:
        made = tag.s().map([1, 2, 3], [4, 5, 6], day=each(["a", "b", "c"])).options(chunksize=2)

        plan = lower(made._graph(), app)

        first, second = (row.message for row in plan.rows[1:])
        assert first is not None and second is not None
        assert (first.chunk, first.index, second.index) == ((0, "day"), 0, 2)
        args, kwargs = app.serializer.loads(first.payload)
        assert (list(args), kwargs) == ([[(1, 4), (2, 5)]], {"day": ["a", "b"]})
        assert decode_template(plan.rows[0].value) == Items(1, 2, True, 2, 3)

    def test_a_plan_of_an_item_names_its_elements(self) -> None:
        made = tag.s().map(late([1]), late([4]), day=each(late(["a"]))).options(chunksize=2)
        rows = lower(made._graph(), app).rows
        carrier = next(row.message for row in rows if row.message and row.message.plans)

        lists = [[1, 2, 3], [4, 5, 6], ["a", "b", "c"]]
        rows = expand_map(carrier, lists, (), app, 10, chunksize=2)

        assert [row.message and row.message.index for row in rows] == [None, 0, 2]
        assert rows[1].message is not None and rows[1].message.bindings == ()
        args, kwargs = app.serializer.loads(rows[1].message.payload)
        assert (list(args), kwargs) == ([[(1, 4), (2, 5)]], {"day": ["a", "b"]})
        assert decode_template(rows[0].value) == Items(INNER + 1, 2, True, 2, 3)

    def test_calls_put_the_elements_where_they_go(self) -> None:
        assert chunks_of([], 3) == [] and chunks_of([1, 2, 3], 2) == [[1, 2], [3]]
        assert list(calls([1], {"a": 2}, ())) == [([1], {"a": 2})]
        assert list(calls(["x", [(1, 2), ()], "y"], {}, (1,))) == [
            (["x", 1, 2, "y"], {}),
            (["x", "y"], {}),
        ]
