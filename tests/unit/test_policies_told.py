# SPDX-License-Identifier: MIT
"""Who is told of a failure, who can do without a value, and what is a mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowq import DAG, chain, group, optional
from flowq.errors import (
    ConfigError,
    Failure,
    GraphError,
    NodeUsedAsValue,
    RunCancelled,
)
from flowq.plan import Bits
from tests.unit.hand import Hand
from tests.unit.policed import (
    CALLS,
    alert,
    app,
    around,
    bits_of,
    cleanup,
    daily,
    declared,
    excuse,
    fail,
    first_of,
    give,
    grow,
    mirror,
    numbers,
    odd,
    pair,
    praise,
    skip,
    told,
)
from tests.unit.staged import Stage, states


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

    @pytest.mark.parametrize(
        ("make", "node"),
        [
            (lambda: chain(fail.s(1), give.s(), give.s().on_error(alert.s())), "fail"),
            (lambda: chain(fail.s(1), group(give.s(), give.s()).on_error(alert.s())), "fail"),
            (lambda: fail.s(1) | give.each().on_error(alert.s()), "fail"),
            (lambda: odd.s().map([0, 1]) | give.s().on_error(alert.s()), "odd[0]"),
            (
                lambda: chain(odd.s(), give.s().on_error(alert.s())).map([0, 1]),
                "odd[0]/odd",
            ),
        ],
        ids=["two below", "a group", "a map", "below a map", "in an item"],
    )
    def test_an_alarm_of_what_was_blocked_rings_once_with_what_blocked_it(
        self, stage: Stage, make: Callable[[], Any], node: str
    ) -> None:
        run = stage.run(make())

        ((_, _, failure),) = told("alert")
        assert (failure.node, failure.exc_type) == (node, "builtins.ValueError")
        assert "blocked" in states(run).values()

    def test_no_alarm_of_what_was_blocked_rings_for_what_was_skipped(self, stage: Stage) -> None:
        run = stage.run(chain(skip.s(), give.s().on_error(alert.s())))

        assert told("alert") == []
        assert states(run)["give"] == "skipped"

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

    @pytest.mark.parametrize("known", [True, False])
    def test_a_success_of_a_mapped_flow_is_told_its_own_value(
        self, stage: Stage, known: bool
    ) -> None:
        praised = declared.options(on_success=praise.s()).s()

        stage.run(praised.map(*([[1, 2, 3]] if known else [numbers.s(4)])))

        assert sorted(value for _, value in told("praise")) == [1, 3]

    def test_an_alarm_about_a_fallback_that_failed_ends_where_it_began(self, stage: Stage) -> None:
        # what the fallback was called with is no longer kept: its own failure is in that place
        steps = fail.s(1).options(fallback=fail.s(y=2), on_error=alert.s())

        stage.run(chain(steps, give.s()).on_failure(alert.s(to="you")))

        found = [(to, f.node, f.args, f.kwargs) for _, to, f in told("alert")]
        assert found == [("me", "fail/fallback", (), {}), ("you", "fail/fallback", (), {})]

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


class TestFailuresAsValues:
    """Whether `get` raises is said by the state, not by the type of what it found."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: fail.options(fallback=give.s()).s(1),
            lambda: chain(fail.s().map([1]).options(items="keep"), first_of.s()),
        ],
        ids=["of a fallback", "of an item that is kept"],
    )
    def test_a_failure_that_is_the_value_of_a_success_is_given(
        self, stage: Stage, make: Callable[[], Any]
    ) -> None:
        run = stage.run(make())

        assert run.state == "success"
        assert isinstance(run.get(), Failure)
        assert run.get() == run.get(raise_errors=False)

    def test_a_failure_that_a_called_task_returned_is_given(self, stage: Stage) -> None:
        failure = Failure("fail", "an id", None, "error", "ValueError", "no 1")

        result = stage.run(give(failure))

        assert (result.state, result.get()) == ("success", failure)
        assert result.get(raise_errors=False) == failure

    def test_a_failure_is_given_while_other_nodes_run(self, stage: Stage) -> None:
        # given a run of which the value is known, and something is left
        dag = DAG("early")
        dag.add(give.s(Failure("fail", "an id", None, "error", "ValueError", "no 1")), name="told")
        dag.add(give.s().options(delay=3_600), name="late", after=["told"])
        dag.returns(dag["told"])
        run = dag.start(app)

        stage.work()

        assert run.state == "running"
        assert isinstance(run.get(), Failure)
        run.cancel()
        stage.work()


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
    (lambda: give.s().on_error(), r"must be a signature, such as alert\.s\(\)"),
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


@pytest.mark.parametrize(("mistake", "says"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_where_it_is_made(mistake: Callable[[], Any], says: str) -> None:
    with pytest.raises((GraphError, NodeUsedAsValue), match=says):
        mistake()


def test_a_flow_is_no_node_where_it_is_declared() -> None:
    with pytest.raises(ConfigError, match="say it where the flow is called"):

        @app.flow(name="wrong", fallback=mirror)
        def wrong() -> None:
            pass
