# SPDX-License-Identifier: MIT
"""All orders in which a graph of five nodes can be settled, for each trigger rule.

Three nodes stand above a fourth, which has the rule; a fifth comes after that and after one of the
three. The three end in every way; what may be settled next is tried out, one after the other.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import islice, product
from typing import Final

import pytest
from msgspec.structs import replace

from flowq import DAG, FlowQ
from flowq.lower import lower
from flowq.message import Delivery, new_id, node_id, pack_cell
from flowq.outcome import Done, Failed, Outcome, Skipped
from flowq.plan import NodeRow, Plan
from flowq.states import RULES, State
from flowq.storage import Store, open_store
from tests.model.weighing import verdict_of

RULES_TRIED: Final = [*RULES, "at_least(2)"]
ENDS: Final = (State.SUCCESS, State.FAILED, State.SKIPPED, State.CANCELLED)
ALL: Final = list(product(ENDS, repeat=3))

app = FlowQ("orders", "memory://")


@app.task(name="step")
def step() -> None: ...


@pytest.fixture
def memory() -> Iterator[Store]:
    store = open_store("memory://")
    yield store
    store.close()


@pytest.fixture
def redis(redis_url: str, store_name: str) -> Iterator[Store]:
    store = open_store(redis_url, name=f"{store_name}-{secrets.token_hex(4)}")
    yield store
    store.close()


def graph(rule: str) -> Plan:
    dag = DAG("five")
    for name in "abc":
        dag.add(step.s(), name=name)
    dag.add(step.s(), name="d", after=["a", "b", "c"], trigger_rule=rule)
    dag.add(step.s(), name="e", after=["c", "d"])
    return lower(dag._graph(), app)


def expected(rule: str, ends: tuple[State, ...]) -> dict[str, State]:
    found = dict(zip("abc", ends, strict=True))
    found["d"] = verdict_of(rule, list(ends)) or State.SUCCESS
    found["e"] = verdict_of("all_success", [found["c"], found["d"]]) or State.SUCCESS
    return found


def settled(store: Store, delivery: Delivery, state: State) -> list[Outcome]:
    """Let what is held come to an end; a cancelled body returns all the same."""
    id, number = delivery.id, delivery.delivery
    if state == State.CANCELLED:
        store.cancel([id])
    kinds: dict[State, type[Failed | Skipped]] = {State.FAILED: Failed, State.SKIPPED: Skipped}
    kind = kinds.get(state)
    if kind is None:
        return [Done(id, number, pack_cell(State.SUCCESS, b"", delivery=number, ended_ms=1))]
    return [kind(id, number, pack_cell(state, b"", delivery=number, ended_ms=1))]


class Trial:
    """One order of settlements: the choices that are given, then always the first.

    Attributes
    ----------
    options : list of int
        Among how many each choice was.
    """

    def __init__(self, store: Store, plan: Plan, ends: dict[str, State], given: list[int]) -> None:
        run = new_id()
        rows = [replaced(row, run, k) for k, row in enumerate(plan.rows)]
        store.submit(Plan(run, plan.name, rows))
        names = {node_id(run, k): row.name for k, row in enumerate(plan.rows)}
        self.options: list[int] = []
        held = store.step("one", want=5).deliveries
        while held:
            held.sort(key=lambda d: d.id)
            k = len(self.options)
            chosen = held.pop(given[k] if k < len(given) else 0)
            self.options.append(len(held) + 1)
            outcomes = settled(store, chosen, ends[names[chosen.id]])
            held += store.step("one", outcomes, want=5).deliveries
        self.states = {n.name: n.state for n in store.nodes(run) if n.index}
        self.wrong = store.check(run)


def replaced(row: NodeRow, run: bytes, index: int) -> NodeRow:
    if row.message is None:
        return row
    return replace(row, message=replace(row.message, id=node_id(run, index)))


def orders(store: Store, plan: Plan, ends: dict[str, State]) -> Iterator[Trial]:
    """Try all orders, each once."""
    todo: list[list[int]] = [[]]
    while todo:
        given = todo.pop()
        trial = Trial(store, plan, ends, given)
        yield trial
        for k in range(len(given), len(trial.options)):
            zeros = [0] * (k - len(given))
            todo.extend([*given, *zeros, other] for other in range(1, trial.options[k]))


def see(store: Store, rule: str, cases: list[tuple[State, ...]], most: int | None = None) -> int:
    plan, tried = graph(rule), 0
    for ends in cases:
        wanted = expected(rule, ends)
        for trial in islice(orders(store, plan, {**wanted, "d": State.SUCCESS}), most):
            tried += 1
            assert (trial.states, trial.wrong) == (wanted, []), (ends, trial.options)
    return tried


@pytest.mark.parametrize("rule", RULES_TRIED)
def test_no_order_of_five_nodes_changes_what_becomes_of_them(memory: Store, rule: str) -> None:
    tried = see(memory, rule, ALL)

    assert tried >= 6 * len(
        ALL
    )  # those of the three above, and more where the fourth need not wait


@pytest.mark.parametrize("rule", RULES_TRIED)
def test_nor_does_it_on_redis(redis: Store, rule: str) -> None:
    start = RULES_TRIED.index(rule)

    see(redis, rule, ALL[start::8], most=12)
