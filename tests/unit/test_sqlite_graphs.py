# SPDX-License-Identifier: MIT
"""Random graphs on SQLite end as the tables of states say, however the work is cut up."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowq.message import NO_NODE, Delivery, Message, new_id, pack_cell
from flowq.outcome import Done, Failed, GiveBack, Outcome, RetryAt, Skipped
from flowq.plan import Bits, Kind, NodeRow, Plan, indexes, ranges_of
from flowq.states import RULES, Counts, Rule, State, outcome_of, trigger_rule, verdict
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.store import SqliteStore

ENDS = {State.SUCCESS: Done, State.FAILED: Failed, State.SKIPPED: Skipped}
COUNTED = {State.SUCCESS: 0, State.FAILED: 1, State.BLOCKED: 1, State.SKIPPED: 2}


def some_plan(random: Random) -> Plan:
    """A plan with all kinds of nodes, two levels of expansions, and any rules."""
    facts: list[tuple[Kind, int, list[int], Rule, int]] = []

    def body(owner: int, depth: int, size: int) -> None:
        mine: list[int] = []
        for _ in range(size):
            kinds = [Kind.TASK] * 6 + [Kind.JOIN] + [Kind.EXPANSION] * (depth < 2)
            kind = random.choice(kinds)
            parents = sorted(random.sample(mine, min(len(mine), random.choice((0, 1, 1, 2, 3)))))
            rules = [r for r in [*RULES, "at_least(2)"] if parents and fits(r, len(parents))]
            rule = trigger_rule(random.choice([*rules, "all_success"]), len(parents))
            bits = random.choice((0, 0, 0, Bits.FORGIVEN, Bits.NAMED))
            mine.append(len(facts) + 1)
            facts.append((kind, owner, parents, rule, bits))
            if kind == Kind.EXPANSION:
                body(mine[-1], depth + 1, random.randint(0, 5))

    body(0, 0, random.randint(1, 14))
    facts.insert(0, (Kind.EXPANSION, NO_NODE, [], Rule(0, 0, 0, 0, 0), 0))
    rows = []
    for i, (kind, owner, parents, rule, bits) in enumerate(facts):
        inner = [j for j, fact in enumerate(facts) if fact[1] == i]
        rows.append(
            NodeRow(
                f"n{i}",
                kind,
                owner,
                rule,
                parents=ranges_of(parents),
                children=ranges_of(j for j, fact in enumerate(facts) if i in fact[2]),
                message=Message(b"", "t", b"P", max_losses=1_000) if kind == Kind.TASK else None,
                entries=ranges_of(j for j in inner if not facts[j][2]),
                inner=len(inner),
                body=ranges_of(inner),
                bits=int(bits),
            )
        )
    return Plan(new_id(), "random", rows)


def fits(rule: str, parents: int) -> bool:
    try:
        trigger_rule(rule, parents)
    except ValueError:
        return False
    return True


def expected(plan: Plan, ends: list[State]) -> dict[int, State]:
    """Evaluate the graph from upstream to downstream, each node once."""
    found: dict[int, State] = {}

    def run(index: int) -> State:
        row = plan.rows[index]
        if row.kind == Kind.TASK:
            return ends[index]
        if row.kind == Kind.JOIN:
            return State.SUCCESS
        failures = cancels = skips = 0
        for i, inner in enumerate(plan.rows):
            if inner.owner != index:
                continue
            counts = [0, 0, 0, 0]
            for parent in indexes(inner.parents):
                counts[COUNTED.get(found[parent], 3)] += 1
            says = verdict(inner.rule, plan.parent_count(i), Counts(*counts))
            assert says is not None
            state = found[i] = run(i) if says == State.QUEUED else says
            if says != State.QUEUED:
                found.update(dict.fromkeys(below(plan, i), says))
            if not inner.bits & Bits.FORGIVEN:
                failures += state in (State.FAILED, State.BLOCKED)
                cancels += state == State.CANCELLED
            skips += bool(inner.bits & Bits.NAMED) and state == State.SKIPPED
        return outcome_of(failures, cancels, skips)

    found[0] = run(0)
    return found


def below(plan: Plan, index: int) -> list[int]:
    """Give all that stands in an expansion, at any depth."""
    inner = list(indexes(plan.rows[index].body))
    return inner + [j for i in inner for j in below(plan, i)]


def outcomes_of(held: dict[bytes, Delivery], ends: list[State], random: Random) -> list[Outcome]:
    """Settle some of what is held: mostly to its end, sometimes to another try."""
    found: list[Outcome] = []
    for id, d in list(held.items()):
        dice = random.random()
        if dice < 0.3:
            continue
        state = ends[int.from_bytes(id[16:], "big")]
        if dice < 0.37:
            found.append(RetryAt(id, d.delivery, 0))
        elif dice < 0.42:
            found.append(GiveBack(id, d.delivery))
        else:
            found.append(ENDS[state](id, d.delivery, pack_cell(state, b"x", ended_ms=1)))
        del held[id]
    return found


@pytest.mark.parametrize("page", [1, 3, 500])
@given(seed=st.integers(0, 2**32))
def test_every_node_ends_as_the_tables_say(page: int, seed: int) -> None:
    random = Random(seed)
    plan = some_plan(random)
    ends = [random.choice([*ENDS, State.SUCCESS, State.SUCCESS]) for _ in plan.rows]
    store = SqliteStore.from_url("memory://")
    held: dict[str, dict[bytes, Delivery]] = {"a": {}, "b": {}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Change.walk, "__defaults__", (page,))
        store.submit(plan)
        for _ in range(5_000):
            name = random.choice("ab")
            outcomes = outcomes_of(held[name], ends, random)
            step = store.step(name, outcomes, want=random.randint(0, 3))
            assert step.verdicts == ["settled"] * len(outcomes)
            held[name].update((d.id, d) for d in step.deliveries)
            if random.random() < 0.05:
                store.release(name, lost=[d.id for d in step.deliveries][:1])
                held[name] = {}
            elif not any(held.values()) and not step.ready and not store.sweep().continued:
                break

    assert {n.index: n.state for n in store.nodes(plan.id)} == expected(plan, ends)
    assert store.check(plan.id) == []
    assert [q.ready for q in store.status().queues] in ([], [0])
    store.close()
