# SPDX-License-Identifier: MIT
"""What a failure means: to what depends on it, to what is around it, and to who is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowq import DAG, FlowQ, GroupError, Skip, TaskError, chain, group, optional
from flowq.errors import ConfigError, Failure, GraphError, NodeUsedAsValue, RunCancelled
from flowq.fragment import share_of
from flowq.lower import lower
from flowq.plan import Bits, Plan
from tests.unit.hand import Hand
from tests.unit.staged import Stage, states, store_of

app = FlowQ("policies", "memory://")
CALLS: list[Any] = []


@app.task(name="give")
def give(x: Any = None) -> Any:
    CALLS.append(("give", x))
    return x


@app.task(name="fail")
def fail(x: Any = None, y: Any = None) -> Any:
    CALLS.append(("fail", x))
    raise ValueError(f"no {x}")


@app.task(name="odd")
def odd(x: int) -> int:
    if not x % 2:
        raise ValueError(f"{x} is even")
    return x


@app.task(name="skip")
def skip(x: Any = None) -> Any:
    raise Skip("not today")


@app.task(name="pair")
def pair(x: Any = None, y: Any = None) -> Any:
    return (x, y)


@app.task(name="numbers")
def numbers(n: int) -> list[int]:
    return list(range(n))


@app.task(name="kinds")
def kinds(values: list[Any]) -> list[Any]:
    return [type(x).__name__ if isinstance(x, Failure) else x for x in values]


@app.task(name="mirror")
def mirror(x: Any, y: Any = "none") -> Any:
    return ("mirror", x, y)


@app.task(name="excuse")
def excuse(failure: Any) -> Any:
    return f"excuse for {failure.node}"


@app.task(name="alert")
def alert(failure: Any, to: str = "me") -> None:
    CALLS.append(("alert", to, failure))


@app.task(name="praise")
def praise(value: Any) -> None:
    CALLS.append(("praise", value))


@app.task(name="cleanup")
def cleanup() -> None:
    CALLS.append("cleanup")


@app.task(name="grow")
def grow(how: str) -> Any:
    made: dict[str, Any] = {
        "default": fail.s(1).options(default="instead"),
        "alarm": fail.s(1).on_error(alert.s()),
        "handlers": chain(fail.s(1), give.s()).on_failure(alert.s()).finally_(cleanup.s()),
        "fallback": fail.s(1).options(fallback=excuse.s()),
    }
    return made[how]


@app.flow(name="inner")
def inner() -> Any:
    return give(1)


@app.flow(name="risky")
def risky(x: Any) -> Any:
    return fail(x)


@app.flow(name="declared", on_failure=alert.s(), finally_=cleanup.s())
def declared(x: Any) -> Any:
    return odd(x)


@app.flow(name="around")
def around() -> Any:
    return declared(4)


@app.flow(name="daily")
def daily() -> Any:
    return pair(give(1), optional(fail(2), default="unknown"))


@pytest.fixture(params=["model", "sqlite", "redis"])
def stage(request: pytest.FixtureRequest, tmp_path: Path, store_name: str) -> Iterator[Stage]:
    """The app on each store in turn."""
    url = lambda: request.getfixturevalue("redis_url")  # noqa: E731
    store = store_of(request.param, app, store_name, tmp_path, url)
    try:
        with app.aside(store, app.clock):
            yield Stage(app, CALLS)
    finally:
        store.close()


def told(name: str) -> list[Any]:
    return [call for call in CALLS if call[0] == name]


def plan_of(composition: Any) -> Plan:
    return lower(composition._graph(), app)


def bits_of(composition: Any) -> dict[str, Bits]:
    return {row.name: Bits(row.bits) for row in plan_of(composition).rows[1:]}


class TestFailurePolicies:
    """What the failure of a node does to others."""

    def test_one_that_continues_counts_as_a_success_and_stays_marked(self, stage: Stage) -> None:
        run = stage.run(fail.s(1).options(failure_policy="continue") | give.s())

        assert (run.state, run.get()) == ("success", None)
        assert states(run) == {"fail": "failed", "give": "success"}
        assert told("give") == [("give", None)]

    @pytest.mark.parametrize("default", ["instead", None, {1, 2}, {"x": [1]}, "long" * 100])
    def test_a_default_is_read_in_the_place_of_the_value(self, stage: Stage, default: Any) -> None:
        failing = fail.s(1).options(default=default)

        assert stage.value(failing | pair.s()) == (default, None)
        assert stage.value(failing) == default
        assert stage.value(group(failing, give.s(2))) == [default, 2]
        assert stage.value(chain(give.s(1), failing).options(name="part") | give.s()) == default

    def test_an_item_of_the_value_is_taken_of_the_default(self, stage: Stage) -> None:
        node = fail.s(1).options(default={"x": 7})

        assert stage.value(give.s(node["x"])) == 7

    def test_a_default_stands_for_its_own_failure_alone(self, stage: Stage) -> None:
        run = stage.run(chain(fail.s(1), give.s().options(default=2), give.s()))

        assert run.state == "failed"
        assert states(run) == {"fail": "failed", "give": "blocked", "give-2": "blocked"}
        with pytest.raises(TaskError, match="no 1"):
            run.get()

    def test_a_graph_has_a_default_too(self, stage: Stage) -> None:
        part = chain(give.s(1), fail.s()).options(default=5, name="part")

        run = stage.run(part | give.s())

        assert (run.state, run.get()) == ("success", 5)
        assert states(run)["part"] == "failed"

    def test_a_default_comes_to_items_of_a_map_and_into_arms_too(self, stage: Stage) -> None:
        base = fail.s(1).options(default=[3])

        assert stage.value(numbers.s(2) | pair.s(y=base).each()) == [(0, [3]), (1, [3])]
        assert stage.value(numbers.s(2) | pair.s(y=base[0]).each()) == [(0, 3), (1, 3)]

    def test_a_failure_that_cancels_stops_all_else_and_what_it_stands_in_fails(
        self, stage: Stage
    ) -> None:
        bad = fail.s(1).options(failure_policy="cancel", priority=9)

        run = stage.run(group(bad, give.s(2), chain(give.s(3), give.s())))

        assert run.state == "failed"
        assert states(run)["fail"] == "failed"
        assert {s for name, s in states(run).items() if name != "fail"} == {"cancelled"}
        with pytest.raises(GroupError):
            run.get()

    def test_a_graph_says_the_policy_of_its_nodes_and_a_node_its_own(self, stage: Stage) -> None:
        bad, worse = fail.s(1), fail.s(2).options(failure_policy="block", name="worse")
        both = chain(group(bad, worse), give.s()).options(node_failure_policy="continue")

        run = stage.run(both)

        assert states(run) == {"fail": "failed", "worse": "failed", "give": "blocked"}
        assert told("give") == []

    def test_the_policy_of_a_graph_holds_in_parts_of_it_but_not_in_flows_and_maps(self) -> None:
        part = chain(give.s(2), give.s()).options(name="part")
        maps = give.s().map([3])

        found = bits_of(group(part, inner.s(), maps).options(node_failure_policy="continue"))

        marked = {name for name, bits in found.items() if bits & Bits.COUNTS_AS_SUCCESS}
        assert marked == {"part", "part/give", "part/give-2", "inner", "give"}


class TestFallbacks:
    """What a node becomes after its last failure."""

    def test_a_task_is_called_as_the_failed_one_was(self, stage: Stage) -> None:
        assert stage.value(fail.s(1, y=2).options(fallback=mirror)) == ("mirror", 1, 2)
        failing = fail.options(fallback=mirror).s(give.s(3), give.s([4]))
        assert stage.value(failing | give.s()) == ("mirror", 3, [4])

    def test_a_signature_is_given_the_failure_with_all_that_is_known(self, stage: Stage) -> None:
        failing = fail.s(give.s(1), y=2).options(fallback=alert.s(), retries=1, name="load")

        stage.value(failing)

        ((_, _, failure),) = told("alert")
        assert (failure.node, failure.task, failure.reason) == ("load", "fail", "error")
        assert (failure.args, failure.kwargs) == ((1,), {"y": 2})
        assert (failure.attempts, failure.exc_type) == (2, "builtins.ValueError")
        assert "ValueError: no 1" in failure.traceback

    def test_a_signature_without_a_free_parameter_is_given_nothing(self, stage: Stage) -> None:
        assert stage.value(fail.s(1).options(fallback=give.s(5))) == 5
        assert stage.value(fail.s(1).options(fallback=cleanup.s())) is None

    def test_the_node_succeeds_with_the_value_and_its_rows_are_inside(self, stage: Stage) -> None:
        run = stage.run(fail.s(1).options(fallback=mirror, name="load") | give.s())

        assert states(run) == {"load": "success", "load/fallback": "success", "give": "success"}

    def test_one_that_fails_too_is_the_failure(self, stage: Stage) -> None:
        run = stage.run(fail.s(1).options(fallback=fail.s(2)) | give.s())

        assert states(run) == {"fail": "failed", "fail/fallback": "failed", "give": "blocked"}
        with pytest.raises(TaskError, match="no 2"):
            run.get()

    def test_one_that_is_not_needed_is_skipped(self, stage: Stage) -> None:
        run = stage.run(give.s(1).options(fallback=mirror) | give.s())

        assert states(run)["give/fallback"] == "skipped"

    def test_a_graph_and_a_flow_fall_back(self, stage: Stage) -> None:
        part = chain(give.s(1), fail.s()).options(fallback=excuse.s(), name="part")

        assert stage.value(part | give.s()) == "excuse for part/fail"
        assert stage.value(risky.s(give.s(3)).options(fallback=mirror) | give.s()) == (
            "mirror",
            3,
            "none",
        )

    def test_a_fallback_may_be_a_graph(self, stage: Stage) -> None:
        failing = fail.s(1).options(fallback=excuse.s() | pair.s(y=2), name="load")

        run = stage.run(failing | give.s())

        assert run.get() == ("excuse for load", 2)
        assert states(run)["load/fallback/pair"] == "success"

    @pytest.mark.parametrize("known", [True, False])
    def test_each_item_of_a_map_falls_back_by_itself(self, stage: Stage, known: bool) -> None:
        item = odd.s().options(fallback=mirror)

        run = stage.run(item.map([0, 1, 2]) if known else numbers.s(3) | item.map())

        assert run.get() == [("mirror", 0, "none"), 1, ("mirror", 2, "none")]
        assert states(run)["odd[2]/fallback"] == "success"

    @pytest.mark.parametrize("known", [True, False])
    def test_a_map_falls_back_as_a_whole(self, stage: Stage, known: bool) -> None:
        items = odd.s().map(*([[0, 1, 2]] if known else [numbers.s(3)]))

        assert stage.value(items.options(fallback=give.s("all")) | give.s()) == "all"


@pytest.mark.parametrize("known", [True, False])
class TestMaps:
    """How many items of a map may fail, of a list that is known and of one that is not."""

    def items(self, known: bool, count: int = 4, **options: Any) -> Any:
        made = odd.s().map(*([list(range(count))] if known else [numbers.s(count)]))
        return made.options(**options) | kinds.s()

    def test_a_failed_item_fails_it_after_the_rest(self, stage: Stage, known: bool) -> None:
        run = stage.run(self.items(known))

        found = states(run)
        assert (run.state, found["odd"], found["kinds"]) == ("failed", "failed", "blocked")
        assert [found[f"odd[{i}]"] for i in range(4)] == ["failed", "success"] * 2

    def test_failures_are_kept_in_their_places(self, stage: Stage, known: bool) -> None:
        run = stage.run(self.items(known, items="keep"))

        assert (run.state, run.get()) == ("success", ["Failure", 1, "Failure", 3])

    def test_the_first_failure_cancels_the_rest(self, stage: Stage, known: bool) -> None:
        run = stage.run(self.items(known, items="cancel"))

        found = states(run)
        assert (run.state, found["odd"]) == ("failed", "failed")
        assert [found[f"odd[{i}]"] for i in range(4)] == ["failed", *["cancelled"] * 3]

    @pytest.mark.parametrize(("tolerate", "state"), [(2, "success"), (1, "failed")])
    @pytest.mark.parametrize("as_share", [False, True])
    def test_so_many_failures_are_tolerated(
        self, stage: Stage, known: bool, tolerate: int, state: str, as_share: bool
    ) -> None:
        # 2 of 4 fail; a share of it is rounded down
        run = stage.run(self.items(known, tolerate=tolerate / 4 + 0.1 if as_share else tolerate))

        assert run.state == state
        if state == "success":
            assert run.get() == ["Failure", 1, "Failure", 3]

    def test_an_item_that_is_blocked_counts_as_one_that_failed(
        self, stage: Stage, known: bool
    ) -> None:
        item = chain(odd.s(), give.s())
        items = item.map(*([[0, 1]] if known else [numbers.s(2)])).options(items="keep")

        run = stage.run(items | kinds.s())

        assert run.get() == ["Failure", 1]

    def test_an_empty_one_succeeds(self, stage: Stage, known: bool) -> None:
        assert stage.value(self.items(known, 0, items="keep")) == []
        assert stage.value(self.items(known, 0, tolerate=0.5)) == []

    def test_an_alarm_about_items_rings_for_each(self, stage: Stage, known: bool) -> None:
        item = odd.options(on_error=alert.s(to="you")).s()
        items = item.map(*([[0, 1, 2]] if known else [numbers.s(3)])).options(items="keep")

        run = stage.run(items | kinds.s())

        assert run.state == "success"
        rung = [(to, f.node, f.args, f.index) for _, to, f in told("alert")]
        assert sorted(rung) == [("you", "odd[0]", (0,), 0), ("you", "odd[2]", (2,), 2)]
        assert states(run)["odd[1]/on_error/alert"] == "skipped"

    def test_an_alarm_about_a_map_rings_once(self, stage: Stage, known: bool) -> None:
        run = stage.run(self.items(known, on_error=alert.s()))

        assert [f.node for _, _, f in told("alert")] == ["odd[0]"]
        assert states(run)["odd/on_error/alert"] == "success"


def test_a_share_is_of_what_is_written() -> None:
    assert [share_of(0.29, 100), share_of(0.05, 19), share_of(1.0, 3), share_of(3, 9)] == [
        29,
        0,
        3,
        3,
    ]


class TestHandlers:
    """What runs because of how something ended."""

    def test_an_alarm_is_told_at_once_and_changes_nothing(self, stage: Stage) -> None:
        run = stage.run(chain(fail.s(1).on_error(alert.s()), give.s()))

        ((_, _, failure),) = told("alert")
        assert (failure.node, failure.args, failure.message) == (
            "fail",
            (1,),
            "ValueError('no 1')",
        )
        assert states(run) == {
            "fail": "failed",
            "give": "blocked",
            "fail/on_error/alert": "success",
        }

    def test_an_alarm_rings_for_a_failure_that_counts_as_success(self, stage: Stage) -> None:
        run = stage.run(chain(fail.s(1).options(default=2, on_error=alert.s()), give.s()))

        assert (run.state, run.get()) == ("success", 2)
        assert len(told("alert")) == 1

    def test_no_alarm_rings_for_a_failure_that_a_fallback_made_good(self, stage: Stage) -> None:
        run = stage.run(fail.s(1).options(fallback=mirror, on_error=alert.s()))

        assert run.state == "success"
        assert told("alert") == []

    def test_an_alarm_may_be_a_graph_and_there_may_be_several(self, stage: Stage) -> None:
        node = fail.s(1).on_error(excuse.s() | give.s(), alert.s(to="you"))

        run = stage.run(node)

        assert told("give") == [("give", "excuse for fail")]
        assert len(told("alert")) == 1
        assert run.state == "failed"

    @pytest.mark.parametrize("good", [True, False])
    def test_a_graph_has_handlers_for_each_outcome_and_a_cleanup(
        self, stage: Stage, good: bool
    ) -> None:
        steps = chain(give.s(1), give.s() if good else fail.s())

        run = stage.run(steps.on_success(praise.s()).on_failure(alert.s()).finally_(cleanup.s()))

        *_, first, last = CALLS
        assert last == "cleanup"
        if good:
            assert first == ("praise", 1)
        else:
            assert (first[0], first[2].node, first[2].args) == ("alert", "fail", (1,))
        found = states(run)
        assert found["on_success/praise"] == ("success" if good else "skipped")
        assert found["on_failure/alert"] == ("skipped" if good else "success")
        assert found["finally/cleanup"] == "success"

    def test_a_handler_that_fails_is_shown_and_changes_nothing(self, stage: Stage) -> None:
        run = stage.run(chain(give.s(1), give.s()).on_success(fail.s()).finally_(fail.s(2)))

        assert (run.state, run.get()) == ("success", 1)
        assert states(run)["on_success/fail"] == "failed"

    def test_a_flow_says_its_handlers_once_for_all_its_runs(self, stage: Stage) -> None:
        for graph, path in ((declared.build(2), ""), (around.build(), "declared/")):
            run = stage.run(graph)
            assert run.state == "failed"
            assert states(run)[f"{path}on_failure/alert"] == "success"
            assert [c[2].node for c in told("alert")] == [f"{path}odd"]
            assert CALLS[-1] == "cleanup"

    @pytest.mark.parametrize("known", [True, False])
    def test_each_item_of_a_mapped_flow_has_its_handlers(self, stage: Stage, known: bool) -> None:
        mapped = declared.s().options(on_error=alert.s(to="you"), fallback=excuse.s())
        items = mapped.map(*([[0, 1]] if known else [numbers.s(2)]))

        run = stage.run(items | give.s())

        assert run.get() == ["excuse for declared[0]/odd", 1]
        assert [(to, f.node) for _, to, f in told("alert")] == [("me", "declared[0]/odd")]
        assert CALLS.count("cleanup") == 2
        found = states(run)
        assert found["declared[1]/fallback"] == "skipped"
        assert found["declared[0]/on_error/alert"] == "skipped"

    def test_what_a_task_returns_has_policies_and_handlers(self, stage: Stage) -> None:
        assert stage.value(grow.s("default") | give.s()) == "instead"
        assert stage.value(grow.s("fallback") | give.s()) == "excuse for grow/fail"
        run = stage.run(grow.s("alarm") | give.s())
        assert states(run)["grow/fail/on_error/alert"] == "success"
        run = stage.run(grow.s("handlers") | give.s())
        assert CALLS[-1] == "cleanup"
        assert len(told("alert")) == 1

    def test_a_cancel_rings_no_alarm_and_cleans_up(self, stage: Stage) -> None:
        steps = chain(give.s(1), give.s()).on_failure(alert.s()).finally_(cleanup.s())
        CALLS.clear()
        run = steps.start()

        run.cancel()
        stage.work()

        assert CALLS == ["cleanup"]
        with pytest.raises(RunCancelled):
            run.get()

    def test_the_value_is_there_before_the_cleanup_has_run(self, stage: Stage) -> None:
        hand = Hand(app)
        run = chain(fail.s(1).options(default=2), give.s()).finally_(cleanup.s()).start()

        assert hand.work(most=2) == 2

        assert (run.state, run.get()) == ("running", 2)
        assert hand.work() == 1
        assert run.state == "success"

    def test_a_dag_and_its_nodes_have_handlers(self, stage: Stage) -> None:
        dag = DAG("etl")
        dag.add(fail.s(1), name="load").on_error(alert.s())
        dag.add(give.s(2), name="other")
        dag.options(finally_=cleanup.s())

        run = stage.run(dag)

        assert states(run)["load/on_error/alert"] == "success"
        assert CALLS[-1] == "cleanup"

    def test_what_a_handler_refers_to_runs_with_it(self, stage: Stage) -> None:
        steps = chain(give.s(1), give.s()).on_failure(alert.s(to=give.s("x")))

        run = stage.run(steps)

        assert states(run)["on_failure/give"] == "skipped"
        assert told("give") == [("give", 1), ("give", 1)]


class TestOptional:
    """Values that may be missing."""

    @pytest.mark.parametrize("above", [fail.s(1), chain(fail.s(1), give.s()), skip.s()])
    def test_whatever_came_of_it_the_default_is_given(self, stage: Stage, above: Any) -> None:
        run = stage.run(pair.s(optional(above, default="none"), give.s(2)))

        assert run.get() == ("none", 2)

    def test_a_value_that_is_there_is_given(self, stage: Stage) -> None:
        assert stage.value(pair.s(optional(give.s({"x": 1})), optional(give.s([2])[0]))) == (
            {"x": 1},
            2,
        )

    def test_a_step_is_forgiven_only_if_all_that_read_it_take_it_so(self, stage: Stage) -> None:
        bad = fail.s(1)

        run = stage.run(group(give.s(optional(bad)), give.s([optional(bad, 3)])))
        assert (run.state, run.get()) == ("success", [None, [3]])

        run = stage.run(group(give.s(optional(bad)), give.s(bad)))
        assert run.state == "failed"

    def test_one_that_is_read_firmly_too_blocks(self, stage: Stage) -> None:
        bad = fail.s(1)

        run = stage.run(pair.s(optional(bad), bad))

        assert states(run) == {"fail": "failed", "pair": "blocked"}

    def test_the_list_of_a_map_may_be_missing(self, stage: Stage) -> None:
        items = give.s().map(optional(fail.s(1), default=[1, 2]))

        assert stage.value(items | give.s()) == [1, 2]

    def test_what_is_piped_and_what_stands_in_a_flow_may_be_missing(self, stage: Stage) -> None:
        assert stage.value(daily.build()) == (1, "unknown")
        assert stage.value(optional(fail.s(1), 4) | give.s()) == 4

    def test_what_a_default_and_an_optional_value_say_is_told_apart(self, stage: Stage) -> None:
        above = chain(fail.s(1), give.s().options(default="own", name="own"))

        assert stage.value(give.s(optional(above, "any"))) == "any"
        assert stage.value(give.s(optional(fail.s(1).options(default="own"), "any"))) == "own"


class TestForgiveness:
    """Whose failure does not count, computed from the ends backwards."""

    def forgiven(self, composition: Any) -> set[str]:
        return {n for n, bits in bits_of(composition).items() if bits & Bits.FORGIVEN}

    def test_what_leads_only_to_a_node_that_needs_some_is_forgiven(self) -> None:
        some = give.s().options(trigger_rule="one_success", name="some")
        a, b, c = (give.s().options(name=name) for name in "abc")

        assert self.forgiven(chain(group(chain(a, b), c), some)) == {"a", "b", "c"}

    def test_what_an_end_names_or_another_reads_is_not(self) -> None:
        dag = DAG()
        a = dag.add(give.s(1), name="a")
        dag.add(give.s(optional(a)), name="b")
        dag.add(give.s(a), name="c")
        dag.add(give.s(2), name="d")

        assert self.forgiven(dag) == set()

    def test_what_runs_later_is_and_does_not_count_as_an_edge(self) -> None:
        found = self.forgiven(chain(give.s(1).on_error(alert.s()), give.s()).finally_(cleanup.s()))

        assert found == {"give/on_error/alert", "finally/cleanup"}


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (lambda: give.options(default=1)(2), "default.*does not go here"),
    (lambda: give.options(failure_policy="stop"), "must be one of 'block', 'cancel', 'continue'"),
    (lambda: give.s().options(fallback=3), "must be a task, or a signature"),
    (lambda: give.s().on_error(alert), r"must be a signature; write alert\.s\(\.\.\.\)"),
    (lambda: give.s().on_error(print), r"must be a signature, such as alert\.s\(\)"),
    (lambda: give.s().on_failure(alert.s()), "option 'on_failure' does not go here"),
    (lambda: give.s().options(items="keep"), "option 'items' does not go here"),
    (lambda: give.s().map([1]).options(tolerate=1.5), "between 0.0 and 1.0"),
    (lambda: give.s().map([1]).options(tolerate=-1), "from 0 on"),
    (lambda: give.s().map([1]).options(tolerate=1, items="keep"), "items= cannot be said too"),
    (lambda: give.options(default=1).s().map([1]), "say items='keep' or tolerate="),
    (lambda: give.s().map([1]).options(fallback=mirror).start(), r"fallback=mirror\.s\(\.\.\.\)"),
    (lambda: chain(give.s(1), give.s()).options(default=1).start(), "speaks of a node"),
    (lambda: chain(give.s(1), give.s()).on_error(alert.s()).start(), "say on_failure="),
    (
        lambda: give.s(1).options(default=1, failure_policy="cancel").start(),
        "default= implies failure_policy='continue', and 'cancel' is said",
    ),
    (lambda: give.s(1).options(default=give.s(2)).start(), "its value is not known"),
    (lambda: group(give.s(1), DAG().returns(optional(give.s(2)))).start(), "say default= on"),
    (lambda: give.s(1).after(optional(give.s(2))).start(), "trigger_rule='all_done'"),
    (lambda: optional(give.s(1))["x"], r"write optional\(give\.s\(1\)\['x'\], \.\.\.\)"),
    (lambda: give.s(optional([give.s(1), give.s(2)])).start(), "around each of them"),
    (
        lambda: chain(give.s(1), give.s()).on_failure(fail.s().on_error(alert.s())).start(),
        "shown beside the outcome",
    ),
]


@pytest.mark.parametrize(("mistake", "says"), MISTAKES, ids=[says for _, says in MISTAKES])
def test_a_mistake_is_told_where_it_is_made(mistake: Callable[[], Any], says: str) -> None:
    with pytest.raises((GraphError, NodeUsedAsValue), match=says):
        mistake()


def test_a_flow_is_no_node_where_it_is_declared() -> None:
    with pytest.raises(ConfigError, match="say it where the flow is called"):

        @app.flow(name="wrong", fallback=mirror)
        def wrong() -> None:
            pass
