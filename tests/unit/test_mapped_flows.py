# SPDX-License-Identifier: MIT
"""An item of a mapped flow is that flow: whatever is said in it holds, however small it is."""

from __future__ import annotations

from typing import Any

from flowq import Flow, branch, chain
from tests.unit.policed import app, fail, give, odd, pair, skip
from tests.unit.staged import states


def run_of(body: Any) -> Any:
    """Run what a function says as a flow."""
    return Flow(app, body, {"name": "whole"}).build().test()


def test_a_mapped_flow_keeps_the_policy_that_is_said_of_its_nodes() -> None:
    def two(x: int) -> Any:
        odd.options(name="first")(x)
        return give(x)

    items = Flow(app, two, {"name": "two"}).options(node_failure_policy="continue")

    run = run_of(lambda: items.map([1, 2]).options(name="all"))

    assert states(run)["all[1]/first"] == "failed"
    assert run.get() == [1, 2]


def test_a_mapped_flow_of_one_task_keeps_what_is_said_of_the_task() -> None:
    items = Flow(app, lambda x: odd.options(name="one", default="even")(x), {"name": "small"})

    run = run_of(lambda: items.map([1, 2]).options(name="all"))

    assert states(run) == {
        "all": "success",
        "all[0]": "success", "all[0]/one": "success",
        "all[1]": "success", "all[1]/one": "failed",
    }  # fmt: skip
    assert run.get() == [1, "even"]


def test_a_mapped_chain_of_one_task_keeps_what_is_said_of_the_task() -> None:
    items = chain(odd.s().options(default="even"))

    assert items.map([1, 2]).test().get() == [1, "even"]


def test_a_mapped_flow_of_one_flow_keeps_both() -> None:
    inner = Flow(app, lambda x: odd.options(name="one")(x), {"name": "inner"})
    outer = Flow(
        app, lambda x: inner.options(name="in", default="even")(x), {"name": "outer"}
    ).options(finally_=give.s("done").options(name="after"))

    run = run_of(lambda: outer.map([1, 2]).options(name="all"))

    assert run.get() == [1, "even"]
    found = states(run)
    assert found["all[1]/in"] == found["all[1]/in/one"] == "failed"
    assert found["all[0]/finally/after"] == found["all[1]/finally/after"] == "success"


def test_what_is_read_is_awaited_also_where_it_comes_first_in_order() -> None:
    """A rule speaks of what comes first; what is read must be there all the same."""

    def by_condition() -> Any:
        cond = skip.options(name="cond")()
        taken = branch(cond, {"a": 1}, default=2).options(name="taken", trigger_rule="none_failed")
        return taken.after(cond)

    def over_list() -> Any:
        parts = fail.options(name="parts")()
        return give.map(parts).options(name="all", trigger_rule="all_done").after(parts)

    assert states(run_of(by_condition))["taken"] == "skipped"
    assert states(run_of(over_list))["all"] == "blocked"


def test_order_alone_does_not_await_what_is_read_elsewhere() -> None:
    def mixed() -> Any:
        first, parts = fail.options(name="first")(), give.options(name="parts")([1])
        after = give.map(parts).options(name="all", trigger_rule="all_done").after(first)
        return pair(after, 0)

    assert states(run_of(mixed))["all"] == "success"
