# SPDX-License-Identifier: MIT
"""Maps over maps: each item goes along with one of the other map, and nothing awaits the list."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import redis

from flowq import Flow, FlowQ, Skip, branch, chain, each, group
from flowq.errors import Failure, TaskError
from flowq.executor import Executor, Job, Lane
from flowq.message import Delivery, decode_message
from tests.unit.staged import Stage, states

app = FlowQ("itembyitem", "memory://")
CALLS: list[Any] = []
BAD: list[Any] = []
NONE: list[Any] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()
    BAD.clear()
    NONE.clear()


def said(name: str, x: Any) -> None:
    CALLS.append((name, x))
    if (name, x) in BAD:
        raise ValueError(f"{name} {x}")
    if (name, x) in NONE:
        raise Skip("not wanted")


@app.task(name="numbers")
def numbers(n: int) -> list[int]:
    said("numbers", n)
    return list(range(n))


@app.task(name="a")
def a(x: Any) -> Any:
    said("a", x)
    return x


@app.task(name="b")
def b(x: Any) -> Any:
    said("b", x)
    return ("b", x)


@app.task(name="c")
def c(x: Any) -> Any:
    said("c", x)
    return ("c", x)


@app.task(name="pair")
def pair(x: Any = "-", y: Any = "-", *, day: Any = "-") -> Any:
    said("pair", (x, y, day))
    return [x, y, day]


@app.task(name="two")
def two(x: Any) -> Any:
    return (x, x + 1)


@app.task(name="total")
def total(xs: list[Any]) -> Any:
    said("total", len(xs))
    return len(xs)


@app.flow(name="inner")
def inner(x: Any) -> Any:
    return [b(a(x)), x]


def flow(func: Any) -> Flow[..., Any]:
    """Make a flow of one test, of which the app knows nothing."""
    return Flow(app, func, {"name": func.__name__})


class Withheld:
    """A worker that leaves some bodies of a stage alone."""

    def __init__(self, stage: Stage, *names: str) -> None:
        self._stage = stage
        self._names = set(names)
        self._left: list[Delivery] = []
        self._executor, self._lane = Executor(stage.app), Lane(0)
        self._lane.thread = threading.get_ident()

    def work(self) -> None:
        """Run all that is there but for these."""
        store, queues = self._stage.app.store, self._stage.app.queues()
        outcomes: list[Any] = []
        while True:
            step = store.step("w", outcomes, want=1, queues=queues)
            outcomes = []
            for d in step.deliveries:
                if decode_message(d.body).name in self._names:
                    self._left.append(d)
                else:
                    outcomes.append(self._executor.run(self._lane, Job(d)))
            if not step.deliveries and not step.ready and step.next_ms != 0:
                return

    def let(self, *names: str) -> None:
        """Run these as well, and what comes of them."""
        self._names -= set(names)
        now = [d for d in self._left if decode_message(d.body).name in names]
        self._left = [d for d in self._left if d not in now]
        done = [self._executor.run(self._lane, Job(d)) for d in now]
        self._stage.app.store.step("w", done)
        self.work()


def over(n: int, *, known: bool = True) -> Any:
    """A map whose list is known, or one that a step gives."""
    return a.s().map(range(n)) if known else numbers.s(n) | a.each()


# --- no barrier ----------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["known", "given"])
def test_an_item_ends_before_the_next_of_the_map_above_has_begun(stage: Stage, known: bool) -> None:
    worker = Withheld(stage, "a[1]")
    run = stage.start(b.s().map(over(3, known=known)))

    worker.work()

    there = states(run)
    assert (there["b[0]"], there["b[1]"], there["b[2]"]) == ("success", "waiting", "success")
    assert ("a", 1) not in CALLS
    assert there["a"] == there["b"] == "expanded"
    worker.let("a[1]")
    assert run.get() == [("b", 0), ("b", 1), ("b", 2)]
    assert stage.app.store.check(run._id) == []


def test_one_worker_takes_each_element_through_all_maps(stage: Stage) -> None:
    stage.run(c.s().map(b.s().map(over(3))))

    assert [name for name, _ in CALLS] == ["a", "b", "c"] * 3


def test_three_maps_in_a_row_go_along(stage: Stage) -> None:
    worker = Withheld(stage, "a[1]", "b[2]")
    run = stage.start(c.s().map(b.s().map(over(3))))

    worker.work()

    assert [call for call in CALLS if call[0] == "c"] == [("c", ("b", 0))]
    worker.let("b[2]")
    assert CALLS[-1] == ("c", ("b", 2))
    worker.let("a[1]")
    assert run.get() == [("c", ("b", i)) for i in range(3)]


def test_pipes_of_each_go_along(stage: Stage) -> None:
    worker = Withheld(stage, "a[0]")
    run = stage.start(numbers.s(2) | a.each() | b.each() | total.s())

    worker.work()

    assert states(run)["b[1]"] == "success"
    assert states(run)["total"] == "waiting"
    worker.let("a[0]")
    assert run.get() == 2


def test_inside_an_item_of_a_map_they_go_along_too(stage: Stage) -> None:
    item = a.each() | b.each() | total.s()
    worker = Withheld(stage, "numbers[1]/a[0]")
    run = stage.start((numbers.s() | item).map([1, 2]))

    worker.work()

    there = {name: s for name, s in states(run).items() if name.startswith("numbers[1]/b[")}
    assert there == {"numbers[1]/b[0]": "waiting", "numbers[1]/b[1]": "success"}
    worker.let("numbers[1]/a[0]")
    assert run.get() == [1, 2]


def test_an_item_that_is_a_graph_begins_with_its_element(stage: Stage) -> None:
    worker = Withheld(stage, "a[1]")
    run = stage.start((b.s() | c.s()).map(over(2)))

    worker.work()

    assert CALLS == [("a", 0), ("b", 0), ("c", ("b", 0))]
    worker.let("a[1]")
    assert run.get() == [("c", ("b", 0)), ("c", ("b", 1))]


def test_a_flow_is_mapped_over_the_items_of_a_map(stage: Stage) -> None:
    worker = Withheld(stage, "a[1]")
    run = stage.start(inner.s().map(over(2)))

    worker.work()

    assert states(run)["inner[0]"] == "success"
    assert states(run)["inner[1]/a"] == "waiting"
    worker.let("a[1]")
    assert run.get() == [[("b", 0), 0], [("b", 1), 1]]


def test_maps_within_items_and_branches_take_the_elements(stage: Stage) -> None:
    @flow
    def deep(xs: Any) -> Any:
        kind = total.options(name="size")(xs)
        return branch(kind, {1: b(xs[0])}, default=pair.map(xs, day=each(xs)))

    run = stage.run(deep.s().map(numbers.s().map([1, 2])))

    assert run.get() == [("b", 0), [[0, "-", 0], [1, "-", 1]]]


# --- what is given -------------------------------------------------------------------------------


def test_over_nothing_they_give_nothing(stage: Stage) -> None:
    assert stage.value(c.s().map(b.s().map(over(0)))) == []
    assert stage.value(c.s().map(b.s().map(over(0, known=False)))) == []
    assert CALLS == [("numbers", 0)]


def test_the_items_of_two_maps_and_of_a_list_are_zipped(stage: Stage) -> None:
    worker = Withheld(stage, "a[1]", "b[0]")
    over_two = pair.s().map(over(2), b.s().map([5, 6]), day=each(["mon", "tue"]))
    run = stage.start(over_two)

    worker.work()

    assert [states(run)[f"pair[{i}]"] for i in (0, 1)] == ["waiting", "waiting"]
    worker.let("b[0]")
    assert states(run)["pair[0]"] == "success"
    worker.let("a[1]")
    assert run.get() == [[0, ("b", 5), "mon"], [1, ("b", 6), "tue"]]


def test_one_map_twice_is_awaited_once(stage: Stage) -> None:
    m = over(2)

    assert stage.value(pair.s().map(m, m)) == [[0, 0, "-"], [1, 1, "-"]]


def test_keywords_take_the_items_of_a_map(stage: Stage) -> None:
    worker = Withheld(stage, "a[1]")
    run = stage.start(pair.s().map([7, 8], day=each(over(2))))

    worker.work()

    assert states(run)["pair[0]"] == "success"
    worker.let("a[1]")
    assert run.get() == [[7, "-", 0], [8, "-", 1]]


def test_lists_of_other_lengths_are_refused(stage: Stage) -> None:
    run = stage.run(pair.s().map(over(2), numbers.s(3)))

    assert states(run)["pair"] == "failed"
    with pytest.raises(TaskError, match="lists of different lengths, 2, 3"):
        run.get()


def test_a_tuple_fills_as_many_parameters_as_it_has_items(stage: Stage) -> None:
    assert stage.value(pair.s().map(two.s().map([1, 2]))) == [[1, 2, "-"], [2, 3, "-"]]
    assert stage.value(pair.s().map(a.s().map([5, (6, 7)]))) == [[5, "-", "-"], [6, 7, "-"]]
    found = stage.value(pair.s().map(two.s().map([1]), day=each(["mon"])))
    assert found == [[1, 2, "mon"]]
    kept = pair.s().map(two.s().map([1])).options(unpack=False)
    assert stage.value(kept) == [[(1, 2), "-", "-"]]


def test_what_does_not_fit_a_task_fails_its_item_with_the_error_of_a_list(stage: Stage) -> None:
    starred = stage.run(pair.s().starmap(a.s().map([(1, 2), 3])))
    widths = stage.run(pair.s().map(a.s().map([(1, 2, 3), 4])))

    with pytest.raises(TaskError, match="item 1 is a int, not a tuple; starmap takes tuples"):
        starred.get()
    assert states(starred)["pair[0]"] == "success"
    with pytest.raises(TaskError, match=r"pair\[0\]: task pair: it takes 2 .* but 3 are given"):
        widths.get()
    assert states(widths)["pair[1]"] == "success"


def test_items_of_values_are_taken_when_they_are_there(stage: Stage) -> None:
    @flow
    def parts(x: Any) -> Any:
        return b(x["part"][0])

    run = stage.run(parts.s().map(a.s().map([{"part": [1]}, {"part": [2]}])))

    assert run.get() == [("b", 1), ("b", 2)]


# --- ends that are no success --------------------------------------------------------------------


def test_a_failed_item_blocks_the_one_that_goes_along_and_no_other(stage: Stage) -> None:
    BAD.append(("a", 1))

    run = stage.run(b.s().map(over(3)).options(items="keep"))

    assert [states(run)[f"b[{i}]"] for i in range(3)] == ["success", "blocked", "success"]
    assert states(run)["b"] == "success"
    assert run.state == "failed"  # for `a`, whose failure nobody forgives


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({}, "failed"),
        ({"items": "all"}, "failed"),
        ({"items": "cancel"}, "failed"),
        ({"items": "keep"}, "success"),
        ({"tolerate": 1}, "success"),
        ({"tolerate": 0.3}, "failed"),
        ({"need": 2}, "success"),
        ({"need": 3}, "failed"),
    ],
    ids=str,
)
def test_what_a_failed_item_means_is_said_by_the_map_that_goes_along(
    stage: Stage, options: dict[str, Any], ends: str
) -> None:
    BAD.append(("a", 1))

    run = stage.run(b.s().map(over(3).options(items="keep")).options(**options))

    assert states(run)["b"] == ends
    assert states(run)["b[1]"] == "blocked"
    if ends == "success":
        values = run.get(raise_errors=False)
        assert [x for x in values if not isinstance(x, Failure)] == [("b", 0), ("b", 2)]
    else:
        with pytest.raises(TaskError) as caught:
            run.get()
        assert "ValueError" in str(caught.value)


def test_a_skipped_item_skips_the_one_that_goes_along(stage: Stage) -> None:
    NONE.append(("a", 0))

    run = stage.run(b.s().map(over(2)))

    assert states(run)["b[0]"] == "skipped"
    assert run.get() == [("b", 1)]


def test_a_map_that_never_begins_is_no_beginning_for_what_follows(stage: Stage) -> None:
    BAD.append(("numbers", 2))
    failed = stage.run(b.s().map(over(2, known=False)))
    BAD.clear()
    NONE.append(("numbers", 2))
    skipped = stage.run(b.s().map(over(2, known=False)))

    assert states(failed)["b"] == "blocked"
    assert states(skipped)["b"] == "skipped"


def test_a_cancel_ends_both(stage: Stage) -> None:
    worker = Withheld(stage, "a[1]", "b[0]")
    run = stage.start(b.s().map(over(3)))
    worker.work()

    run.cancel()
    worker.let("a[1]", "b[0]")

    assert run.state == "cancelled"
    found = states(run)
    assert (found["b[1]"], found["b[2]"]) == ("cancelled", "success")
    assert stage.app.store.check(run._id) == []


@pytest.mark.parametrize("above", [0, 1, 2])
@pytest.mark.parametrize("below", [0, 1, 2])
def test_places_are_given_to_those_that_may_run(stage: Stage, above: int, below: int) -> None:
    upper, lower = over(5), b.s()
    if above:
        upper = upper.options(max_parallel=above)
    whole = lower.map(upper)
    if below:
        whole = whole.options(max_parallel=below)
    BAD.append(("a", 3))

    run = stage.run(whole)

    assert [states(run)[f"b[{i}]"] for i in range(5)] == [
        *["success"] * 3, "blocked", "success",
    ]  # fmt: skip


# --- where the list is awaited -------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"need": 1},
        {"items": "cancel"},
        {"fallback": numbers.s(2)},
        {"failure_policy": "continue"},
        {"default": []},
        {"chunksize": 1},
    ],
    ids=str,
)
def test_the_whole_list_is_awaited_of_a_map_that_may_have_another(
    stage: Stage, options: dict[str, Any]
) -> None:
    worker = Withheld(stage, "a[1]")
    run = stage.start(b.s().map(a.s().map([1, 2]).options(**options)))
    worker.work()

    assert all(call[0] == "a" for call in CALLS) or "need" in options
    worker.let("a[1]")
    assert run.ready


def test_the_whole_list_is_awaited_where_that_is_the_policy_of_the_graph(stage: Stage) -> None:
    graph = chain(over(2), b.each()).options(node_failure_policy="continue")
    worker = Withheld(stage, "a[1]")
    run = stage.start(graph)

    worker.work()

    assert CALLS == [("a", 0)]
    worker.let("a[1]")
    assert run.get() == [("b", 0), ("b", 1)]


@pytest.mark.parametrize("how", ["rule", "order", "read", "item", "within", "chunk"])
def test_the_whole_list_is_awaited_by_what_needs_more_of_it(stage: Stage, how: str) -> None:
    @flow
    def needs() -> Any:
        above = a.map([0, 1])
        if how == "rule":
            return b.options(trigger_rule="none_failed").map(above)
        if how == "order":
            return b.map(above).after(above)
        if how == "read":
            return pair.map(above, day=above)
        if how == "item":
            return pair.map(above, [above[0], 5])
        if how == "chunk":
            return b.options(chunksize=1).map(above)
        return pair.map(above, day=total(above))

    worker = Withheld(stage, "a[1]")
    run = stage.start(needs.s())
    worker.work()

    assert CALLS == [("a", 0)]
    worker.let("a[1]")
    assert run.state == "success"


# --- again ---------------------------------------------------------------------------------------


def test_a_retry_runs_the_failed_item_and_the_one_that_it_blocked(stage: Stage) -> None:
    BAD.append(("a", 1))
    run = stage.run(c.s().map(b.s().map(over(3).options(items="keep"))))
    assert run.state == "failed"
    BAD.clear()
    CALLS.clear()

    run.retry()
    stage.work()

    assert CALLS == [("a", 1), ("b", 1), ("c", ("b", 1))]
    assert run.get() == [("c", ("b", i)) for i in range(3)]


def test_a_rerun_of_an_item_takes_what_goes_along_and_what_reads_the_lists(stage: Stage) -> None:
    @flow
    def read() -> Any:
        above = a.map(numbers(3))
        below = b.map(above)
        return [total.options(name="of-a")(above), total.options(name="of-b")(below)]

    run = stage.run(read.s())
    assert run.get() == [3, 3]
    CALLS.clear()

    run.rerun("a[1]")
    stage.work()

    assert sorted(map(str, CALLS)) == sorted(
        map(str, [("a", 1), ("b", 1), ("total", 3), ("total", 3)])
    )
    assert run.get() == [3, 3]


def test_a_rerun_of_an_item_after_a_failure_leaves_the_others(stage: Stage) -> None:
    BAD.extend([("a", 1), ("b", 2)])
    run = stage.run(b.s().map(over(4)))
    BAD.clear()
    CALLS.clear()

    run.rerun("a[1]")
    stage.work()

    assert CALLS == [("a", 1), ("b", 1)]
    assert states(run)["b[2]"] == "failed"
    assert run.retry() == 1
    stage.work()
    assert run.get() == [("b", i) for i in range(4)]


@pytest.mark.parametrize("known", [True, False], ids=["known", "given"])
def test_a_map_that_runs_again_takes_what_follows_it(stage: Stage, known: bool) -> None:
    run = stage.run(c.s().map(b.s().map(over(2, known=known))))
    CALLS.clear()

    run.rerun("a")
    stage.work()
    again = list(CALLS)
    CALLS.clear()
    run.rerun("b")
    stage.work()

    assert [call[0] for call in sorted(again, key=str)] == ["a", "a", "b", "b", "c", "c"]
    assert [call[0] for call in sorted(CALLS, key=str)] == ["b", "b", "c", "c"]
    assert run.get() == [("c", ("b", 0)), ("c", ("b", 1))]


# --- seeing --------------------------------------------------------------------------------------


def test_why_tells_what_an_item_waits_for(stage: Stage) -> None:
    worker = Withheld(stage, "a[1]", "b[0]")
    run = stage.start(b.s().map(over(4)).options(max_parallel=1))

    worker.work()

    assert "until these end: a[1] (running)" in run.why("b[1]")
    assert "1 of 1 places are taken by b[0]" in run.why("b[2]")
    worker.let("a[1]", "b[0]")
    assert "it came after a[1]" in run.why("b[1]")


def test_why_tells_that_a_map_waits_for_the_other_to_begin(stage: Stage) -> None:
    worker = Withheld(stage, "numbers")
    run = stage.start(b.s().map(over(1, known=False)))

    worker.work()

    assert "until these begin: a (waiting)" in run.why("b")
    worker.let("numbers")
    assert "item by item with a (success" in run.why("b")


def test_pictures_and_times_go_on_to_work(stage: Stage) -> None:
    run = stage.run(b.s().map(over(2)))

    assert "-->" in run.mermaid()
    names = [node.name for node in run.critical_path()]
    assert names == ["a[0]", "b[0]"] or names == ["a[1]", "b[1]"]
    assert {n.name for n in run.timeline()} == {"a[0]", "a[1]", "b[0]", "b[1]"}


# --- tests of graphs, and many -------------------------------------------------------------------


def test_stand_ins_speak_of_items_on_both_sides() -> None:
    graph = c.s().map(b.s().map(over(3))).options(items="keep")

    run = graph.test(values={"a[1]": 10, "b": "B"}, fail={"c[0]": ValueError("no")})

    assert run.get(raise_errors=False)[1:] == [("c", "B"), ("c", "B")]
    assert states(run)["c[0]"] == "failed"
    assert [call for call in CALLS if call[0] != "c"] == [("a", 0), ("a", 2)]


def test_stand_ins_for_mapped_flows_go_along() -> None:
    graph = b.s().map(inner.s().map(over(2)))

    run = graph.test(values={"inner[1]": 7})

    assert run.get() == [("b", [("b", 0), 0]), ("b", 7)]
    below = inner.s().map(over(2)).test(values={"inner[0]": 7, "a[1]": 5})
    assert below.get() == [7, [("b", 5), 5]]


def test_of_many_items_each_is_no_more_than_a_round_trip(
    stage: Stage, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.params["stage"]
    n = 200 if kind == "model" else 2_000  # the model is slow
    url = request.getfixturevalue("redis_url") if kind == "redis" else ""
    run = stage.start(b.s().map(over(n)))

    before, steps = trips(url), stage.work()

    assert run.state == "success"
    assert len(CALLS) == 2 * n
    assert steps < 2 * n + 50
    assert trips(url) - before < 2 * n + 100
    assert stage.app.store.check(run._id) == []


def trips(url: str) -> int:
    """EVALSHA calls that a server has counted."""
    if not url:
        return 0
    with redis.Redis.from_url(url) as client:
        return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])


def test_groups_of_maps_keep_their_own(stage: Stage) -> None:
    first, second = over(2), b.s().map([7, 8])

    found = stage.value(group(c.s().map(first), c.s().map(second)))

    assert found == [[("c", 0), ("c", 1)], [("c", ("b", 7)), ("c", ("b", 8))]]


# --- in any order --------------------------------------------------------------------------------


def state_of(name: str, element: Any, above: str = "success") -> str:
    """How an item ends whose element came of an item that ended so."""
    if above != "success":
        return "skipped" if above == "skipped" else "blocked"
    if (name, element) in BAD:
        return "failed"
    return "skipped" if (name, element) in NONE else "success"


@pytest.mark.parametrize("seed", range(12))
def test_in_whatever_order_bodies_run_each_item_ends_by_its_own_line(
    stage: Stage, seed: int
) -> None:
    r = random.Random(seed)
    n = r.choice([1, 3, 8])
    for k in range(n):
        r.choice([BAD, NONE, [], [], []]).append(("a", k))
        r.choice([BAD, NONE, [], [], []]).append(("b", k))
    bounds = [{"max_parallel": r.randint(1, 3)} if r.random() < 0.5 else {} for _ in range(3)]
    upper = over(n, known=r.random() < 0.5) if not bounds[0] else over(n).options(**bounds[0])
    middle = b.s().map(upper).options(items="keep", **bounds[1])
    run = stage.start(c.s().map(middle).options(items="keep", **bounds[2]))
    store, queues = stage.app.store, stage.app.queues()
    executor, lane = Executor(stage.app), Lane(0)
    lane.thread = threading.get_ident()

    held: list[Delivery] = []
    while True:
        step = store.step("w", want=r.randint(0, 3), queues=queues)
        held += step.deliveries
        r.shuffle(held)
        ended, held = held[:1], held[1:]
        after = store.step("w", [executor.run(lane, Job(d)) for d in ended], queues=queues)
        if not (held or ended or after.ready or after.next_ms == 0):
            break

    found = states(run)
    for i in range(n):
        one = state_of("a", i)
        two = state_of("b", i, one)
        three = "success" if two == "success" else "skipped" if two == "skipped" else "blocked"
        assert (found[f"a[{i}]"], found[f"b[{i}]"], found[f"c[{i}]"]) == (one, two, three)
    assert found["b"] == found["c"] == "success"
    assert store.check(run._id) == []
