# SPDX-License-Identifier: MIT
"""A plan carries final numbers: options, priorities, rules, what is forgiven."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone
from typing import Any

import pytest

from flowq import DAG, FlowQ, chain, group
from flowq.calls import build_message
from flowq.errors import BindingError, GraphError, PayloadError, PayloadTooLarge, UnknownTask
from flowq.lower import lower
from flowq.message import Items, Ref, decode_template
from flowq.plan import Bits, NodeRow, Plan, indexes
from flowq.states import FOREVER, Rule

q = FlowQ("lowering", "memory://", retries=1)


@q.task(priority=5, queue="slow", retry_delay=2, result_ttl=60)
def work(x: Any = None) -> Any: ...


@q.task
def plain(x: Any = None) -> Any: ...


@q.task
def total(rows: Any) -> Any: ...


@q.task(priority=9)
def urgent(x: Any = None) -> Any: ...


def plan_of(composition: Any) -> Plan:
    return lower(composition._graph(), q)


def row(plan: Plan, name: str) -> NodeRow:
    (found,) = [r for r in plan.rows if r.name == name]
    return found


def priorities(plan: Plan) -> dict[str, int]:
    return {r.name: r.message.priority for r in plan.rows if r.message}


# --- one call ------------------------------------------------------------------------------------


def test_a_message_carries_what_was_declared_and_what_was_said() -> None:
    due = datetime(2026, 11, 24, 2, tzinfo=timezone.utc)

    declared = build_message(work, (1,), {}, {})
    said = build_message(
        work,
        (1,),
        {},
        {"priority": -3, "eta": 1_000, "retries": 4, "expires": 1.5, "retry_delay": 2.0},
    )

    assert (declared.task, declared.queue, declared.priority) == (work.name, "slow", 5)
    assert (declared.result_ttl_ms, declared.policy, declared.name) == (60_000, {}, "")
    assert q.serializer.loads(declared.payload) == ((1,), {})
    assert (said.priority, said.due_ms, said.expires_in_ms) == (-3, 1_000, 1_500)
    assert said.policy == {"retries": 4}  # only what differs from the task's own
    assert work.s().options(eta=due)._options["eta"] == round(due.timestamp() * 1000)


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, r"missing argument 'rows'.*total\(rows"),
        ((1, 2), {}, "takes 1 positional argument, but 2"),
        ((1,), {"rows": 2}, "'rows' is bound twice"),
        ((1,), {"row": 2}, "unexpected argument 'row'.*did you mean 'rows'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_signature(
    args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    with pytest.raises(BindingError, match=text):
        build_message(total, args, kwargs, {})
    with pytest.raises(BindingError, match=text):
        plan_of(chain(total.s(*args, **kwargs)))


def test_a_call_alone_has_no_parents_for_a_rule() -> None:
    with pytest.raises(GraphError, match="asks for 1 parents"):
        build_message(plain, (), {}, {"trigger_rule": "one_success"})


# --- graphs --------------------------------------------------------------------------------------


def test_ids_names_and_owners_are_those_of_the_rows() -> None:
    plan = plan_of(chain(plain.s(1), plain.s(), plain.s()))

    ids = [r.message.id for r in plan.rows if r.message]
    assert ids == [plan.id + i.to_bytes(4, "big") for i in (1, 2, 3)]
    assert [r.message.name for r in plan.rows if r.message] == ["plain", "plain-2", "plain-3"]
    assert {r.owner for r in plan.rows[1:]} == {0}
    assert (plan.rows[0].inner, plan.rows[0].entries) == (3, ((1, 1),))


def test_an_expansion_knows_all_that_stands_in_its_body() -> None:
    dag = DAG("two")
    dag.add(plain.s(1), name="first")
    dag.add((plain.s() | plain.s()).map([1, 2]), name="graphs")
    dag.add(plain.s().map([1, 2, 3]), name="tasks")
    dag.add(plain.s(2), name="last")

    plan = plan_of(dag)

    for index, one in enumerate(plan.rows):
        inside = [i for i, r in enumerate(plan.rows) if r.owner == index]
        assert list(indexes(one.body)) == inside
        assert one.inner == len(inside)
    assert len(plan.rows[0].body) > 1
    assert sum(bool(r.body) for r in plan.rows) == 5


def test_names_that_were_given_are_kept_and_automatic_ones_avoid_them() -> None:
    plan = plan_of(group(plain.s(), plain.s().options(name="plain"), plain.s()))

    assert sorted(r.name for r in plan.rows[1:]) == ["plain", "plain-2", "plain-3"]
    with pytest.raises(GraphError, match="two nodes are named 'x'"):
        plan_of(group(plain.s().options(name="x"), plain.s().options(name="x")))


def test_rules_are_numbers_over_the_distinct_parents() -> None:
    step = plain.s(1)

    plan = plan_of(group(step, plain.s(step)) | total.s().options(trigger_rule="all_done"))

    assert row(plan, "total").rule == Rule(0, 0, 2, FOREVER, FOREVER)


def test_a_rule_that_asks_for_too_many_parents_names_the_node() -> None:
    with pytest.raises(GraphError, match=r"node 'total'.*asks for 3 parents, but there are 2"):
        plan_of(group(plain.s(), plain.s()) | total.s().options(trigger_rule="at_least(3)"))


def test_priority_is_the_highest_set_below_unless_set_here() -> None:
    raised = plan_of(plain.s() | plain.s() | urgent.s() | plain.s())
    own = plan_of(plain.s().options(priority=-2) | plain.s() | urgent.s())
    run = plan_of((plain.s() | urgent.s()).options(priority=995))
    within = plan_of(plain.s() >> (plain.s() | plain.s()).map([1]) | urgent.s())

    assert priorities(raised) == {"plain": 9, "plain-2": 9, "urgent": 9, "plain-3": 0}
    assert priorities(own) == {"plain": -2, "plain-2": 9, "urgent": 9}
    assert priorities(run) == {"plain": 1000, "urgent": 1000}
    assert set(priorities(within).values()) == {9}


def test_only_what_leads_to_rules_that_need_some_is_forgiven() -> None:
    some = plain.s().options(trigger_rule="at_least(1)")
    plan = plan_of(group(plain.s() | plain.s(), plain.s()) | some)
    every = plan_of(group(plain.s(), plain.s()) | plain.s())
    read = plan_of(group(plain.s(), plain.s() >> some) | total.s())

    forgiven = {r.name for r in plan.rows if r.bits & Bits.FORGIVEN}
    assert forgiven == {"plain", "plain-2", "plain-3"}
    assert not any(r.bits & Bits.FORGIVEN for r in every.rows)
    assert sum(bool(r.bits & Bits.FORGIVEN) for r in read.rows) == 1


def test_the_nodes_of_the_value_are_named() -> None:
    plan = plan_of(group(plain.s(), plain.s() | plain.s()))

    assert [bool(r.bits & Bits.NAMED) for r in plan.rows] == [False, True, False, True]


def test_the_run_has_its_own_name_and_times() -> None:
    plan = plan_of((plain.s() | plain.s()).options(name="nightly", result_ttl=5, failed_ttl=7))

    assert (plan.name, plan.result_ttl_ms, plan.failed_ttl_ms) == ("nightly", 5_000, 7_000)
    assert plan_of(plain.s() | total.s()).name == "plain"
    with pytest.raises(GraphError, match="result_ttl= speaks of the run"):
        plan_of(plain.s() | (plain.s() | plain.s()).options(result_ttl=5))


def test_a_chain_with_a_name_is_one_node_to_what_is_around_it() -> None:
    plan = plan_of(plain.s() | (plain.s() | plain.s()).options(name="box", priority=3) | total.s())

    assert [r.name for r in plan.rows] == ["", "plain", "box", "box/plain", "box/plain-2", "total"]
    assert decode_template(row(plan, "box").value) == Ref(4)
    assert priorities(plan) == {"plain": 3, "box/plain": 3, "box/plain-2": 3, "total": 0}


def test_options_of_a_map_are_those_of_each_item() -> None:
    plan = plan_of(work.s().map([1, 2]).options(name="many", delay=3, priority=7))

    assert [r.name for r in plan.rows] == ["", "many[0]", "many[1]"]
    assert {(r.message.delay_ms, r.message.priority) for r in plan.rows if r.message} == {(3000, 7)}
    assert plan.name == "many"


def test_a_value_that_others_read_is_kept_whatever_its_task_says() -> None:
    fleeting = plain.s().options(result_ttl=0)

    plan = plan_of((fleeting | plain.s()).map([1]) | total.s() | fleeting)

    kept = {r.name: r.message.result_ttl_ms > 0 for r in plan.rows if r.message}
    assert kept == {
        "plain[0]/plain": True,
        "plain[0]/plain-2": True,
        "total": True,
        "plain-2": False,
    }


# --- what cannot run -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"delay": -1}, "delay=-1 is negative"),
        ({"priority": 1001}, "priority=1001 must lie between"),
        ({"priorty": 1}, "no option 'priorty'; did you mean 'priority'"),
        ({"trigger_rule": "all_sucess"}, "is not known"),
        ({"unpack": True}, "does not go here"),
    ],
)
def test_options_out_of_bounds_are_refused_at_once(options: dict[str, Any], text: str) -> None:
    with pytest.raises(GraphError, match=text):
        plain.s().options(**options)


def test_arguments_that_cannot_travel_name_their_node() -> None:
    with pytest.raises(PayloadError, match=r"node 'plain'.*cannot be pickled"):
        plan_of(chain(plain.s(sys._getframe())))
    with pytest.raises(PayloadTooLarge, match=r"node 'plain\[1\]'.*over the limit"):
        plan_of(plain.s().map([1, bytes(17 << 20)]))


def test_a_task_that_the_app_does_not_know_names_its_node() -> None:
    other = FlowQ("other", "memory://")

    @other.task(name="elsewhere")
    def elsewhere() -> None: ...

    with pytest.raises(UnknownTask, match="node 'elsewhere'"):
        plan_of(chain(elsewhere.s()))
    with pytest.raises(GraphError, match="different apps"):
        (elsewhere.s() >> plain.s()).start()


def test_names_of_nodes_have_an_end() -> None:
    with pytest.raises(GraphError, match="over 200 characters"):
        plan_of(group(plain.s() | plain.s()).options(name="x" * 199) | total.s())


# --- size ----------------------------------------------------------------------------------------


def test_lines_of_any_length_are_lowered() -> None:
    n = 3 * sys.getrecursionlimit()
    nested: Any = plain.s(1)
    piped: Any = plain.s(1)
    for _ in range(n):
        nested = plain.s(nested)
        piped = piped | plain.s()
    dag = DAG()
    for i in range(n + 1):
        dag.add(plain.s(dag[f"n{i - 1}"] if i else 1), name=f"n{i}")

    plans = [plan_of(x) for x in (nested, piped, chain(*(plain.s() for _ in range(n + 1))), dag)]

    for plan in plans:
        assert len(plan.rows) == n + 2
        assert [r.parents for r in plan.rows[2:]] == [((i, 1),) for i in range(1, n + 1)]


def test_wide_joins_take_few_numbers() -> None:
    plan = plan_of(group(plain.s(i) for i in range(5_000)) | total.s())

    end = plan.rows[-1]
    assert end.parents == end.reads == ((1, 5_000),)
    assert end.message is not None and end.message.bindings[0].value == Items(1, 5_000)


def test_the_cost_of_a_graph_grows_with_its_size_alone() -> None:
    def cost(n: int) -> float:
        made = group(plain.s(i) | plain.s() for i in range(n)) | total.s()
        begun = time.process_time()
        plan_of(made)
        return time.process_time() - begun

    small = min(cost(500) for _ in range(3))
    large = min(cost(8_000) for _ in range(2))

    assert large < small * 16 * 5  # 16 times the nodes; quadratic would be 256


def test_edges_lead_both_ways() -> None:
    plan = plan_of(group(plain.s(1), plain.s(2)) | group(total.s(), total.s()) | total.s())

    for i, r in enumerate(plan.rows):
        for p in indexes(r.parents):
            assert i in set(indexes(plan.rows[p].children)) and p < i
