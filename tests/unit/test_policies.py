# SPDX-License-Identifier: MIT
"""What a failure means to what depends on it and to what is around it."""

from __future__ import annotations

from typing import Any

import pytest

from flowq import GroupError, TaskError, chain, group
from flowq.fragment import share_of
from flowq.plan import Bits
from tests.unit.policed import CALLS as CALLS  # of the fixture `stage`
from tests.unit.policed import (
    alert,
    bits_of,
    cleanup,
    declared,
    excuse,
    fail,
    give,
    inner,
    kinds,
    mirror,
    numbers,
    odd,
    pair,
    risky,
    told,
)
from tests.unit.policed import app as app
from tests.unit.staged import Stage, states


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

    def test_its_words_go_on_a_flow_as_on_a_task(self, stage: Stage, known: bool) -> None:
        if known:
            group = stage.run(declared.options(items="keep").map([0, 1]))
            assert (group.state, [type(x).__name__ for x in group.get()]) == (
                "success", ["Failure", "int"]
            )  # fmt: skip
            pairs = declared.options(unpack=False, tolerate=1).starmap([(1,), (3,)])
            assert stage.run(pairs).get() == [1, 3]
        else:
            items = declared.options(items="keep").options(priority=1).each()
            assert stage.value(numbers.s(2) | items | kinds.s()) == ["Failure", 1]

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
