# SPDX-License-Identifier: MIT
"""What a program comes to, by sections 3 to 6 of the semantics: the oracle of the laws.

It knows neither stores nor plans nor time: it goes through the steps of a body in the order in
which they are written, and says how each ends and with what value, from what was written and from
what each body does. Where the first law leaves a state open (beside a failure that cancels all
else in its body or map) it says None.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple

from flowq.states import State
from tests.model.programs import DEFAULT, Body, Program, Script, Scripts, Step, digest, value_of

__all__ = ["Meaning", "verdict_of"]

SUCCESS, FAILED, BLOCKED = State.SUCCESS, State.FAILED, State.BLOCKED
SKIPPED, CANCELLED = State.SKIPPED, State.CANCELLED
BAD = (FAILED, BLOCKED)
MISSING = {FAILED: "failure", BLOCKED: "failure", SKIPPED: "skipped", CANCELLED: "cancelled"}


class End(NamedTuple):
    """How a node ended, and its value if that was a success."""

    state: State
    value: Any = None


class Unit:
    """One node of a body: a step, or one of the tasks of a chain or group."""

    def __init__(self, name: str, step: Step, policy: str) -> None:
        self.name = name
        self.step = step
        self.above: dict[int, set[str]] = {}
        self.args: list[tuple[int, str]] = []
        self.default = "default" if step.default else None
        self.policy = "continue" if step.default else step.policy or policy
        self.end = End(SKIPPED)

    def reads(self, unit: int) -> bool:
        """Whether it reads the value of a unit, not only its end."""
        return bool(self.above[unit] & {"value", "maybe"})

    def minds(self, unit: int) -> bool:
        """Whether it minds how a unit ended: not all of its edges from there are optional."""
        return self.above[unit] != {"maybe"}

    @property
    def joined(self) -> bool:
        """Whether a join with its rule stands before it, so that it itself awaits success."""
        return self.step.kind in ("map", "branch") and self.step.rule != "all_success"

    @property
    def delivered(self) -> Any:
        """What others get for its value."""
        if self.end.state == SUCCESS:
            return self.end.value
        if self.end.state == FAILED and self.policy == "continue":
            return self.default
        return MISSING[self.end.state]


class Meaning:
    """The end of every node of a run.

    Attributes
    ----------
    states : dict of str to State or None
        By path; None where the law leaves it open.
    calls : dict of str to object
        What each body that returns was given, but for those in what is left open.
    end : End
        Of the run.
    open : bool
        Whether anything is left open.
    """

    def __init__(self, program: Program, scripts: Scripts) -> None:
        self.scripts = scripts
        self.states: dict[str, State | None] = {}
        self.calls: dict[str, Any] = {}
        self.end = self.graph(program, "", [])
        self.open = None in self.states.values()

    # --- graphs ----------------------------------------------------------------------------------

    def graph(self, body: Body, prefix: str, given: list[Any]) -> End:
        """Run the graph of a flow: its body, then what runs for that outcome, then the cleanup."""
        end = self.body(body, prefix, given, body.policy)
        if body.on_success:
            self.handler(f"{prefix}on_success/h", [end.value], end.state == SUCCESS)
        if body.on_failure:
            self.handler(f"{prefix}on_failure/h", ["failure"], end.state == FAILED)
        if body.finally_:
            self.handler(f"{prefix}finally/h", [], True)
        return end

    def handler(self, path: str, given: list[Any], runs: bool) -> End:
        end = self.call(path, given) if runs else End(SKIPPED)
        self.states[path] = end.state
        return end

    def body(self, body: Body, prefix: str, given: list[Any], policy: str) -> End:
        """Run the steps of a body, and say what they come to together."""
        units, tails = _units(body, policy)
        for unit in units:
            self.unit(unit, units, prefix, given, tails, policy)
        named = {k for i in body.value for k in tails[i]}
        forgiven = _forgiven(units, named)
        counting = [
            u for k, u in enumerate(units)
            if u.end.state in BAD and k not in forgiven
            and not (u.end.state == FAILED and u.policy == "continue")
        ]  # fmt: skip
        stopping = [u for u in counting if u.policy == "cancel"]
        if stopping:
            sure = {stopping[0].name} if len(stopping) == 1 else set()
            self.leave_open(f"{prefix}{u.name}" for u in units if u.name not in sure)
        if counting:
            return End(FAILED)
        ended = [u.end.state for k, u in enumerate(units) if k not in forgiven]
        if CANCELLED in ended:
            return End(CANCELLED)
        if any(units[k].end.state == SKIPPED for k in named):
            return End(SKIPPED)
        value = [_value(body.steps[i], tails[i], units) for i in body.value]
        return End(SUCCESS, value[0] if body.alone else value)

    def leave_open(self, paths: Iterable[str]) -> None:
        """Leave open how some nodes end, with all that is inside them and follows them."""
        for path in paths:
            for known in self.states:
                if known == path or known.startswith((f"{path}/", f"{path}[")):
                    self.states[known] = None
                    self.calls.pop(known, None)

    # --- nodes -----------------------------------------------------------------------------------

    def unit(
        self, unit: Unit, units: list[Unit], prefix: str, given: list[Any],
        tails: list[list[int]], policy: str,
    ) -> None:  # fmt: skip
        """Run a node of a body, if its rule lets it, and what is to follow its failure."""
        path, step = f"{prefix}{unit.name}", unit.step
        ends = {k: units[k] for k in unit.above}
        state = verdict_of(step.rule, [_counted(u, unit.minds(k)) for k, u in ends.items()])
        if unit.joined:
            read = [_counted(u, unit.minds(k)) for k, u in ends.items() if unit.reads(k)]
            state = verdict_of("all_success", [*read, SUCCESS if state is None else state])

        def argument(i: int, how: str) -> Any:
            if i < 0:
                return given[-i - 1]
            missing = units[i].delivered
            return "none" if how == "maybe" and missing in MISSING.values() else missing

        args = []
        for i, how in unit.args:
            if i < 0 or unit.step.kind in ("chain", "group"):
                args.append(argument(i, how))
            else:
                found = [argument(k, how) for k in tails[i]]
                args.append(found if units[tails[i][0]].step.kind == "group" else found[0])
        if state is None:
            unit.end = self.run(path, step, args, units, tails, policy)
        else:
            unit.end = End(state)
            self.never(path, step, state)
        self.states[path] = unit.end.state
        if step.on_error:
            self.alarm(f"{path}/on_error/e", unit.end.state)

    def alarm(self, path: str, state: State) -> None:
        runs = state in BAD
        self.handler(path, ["failure"], runs)
        if state == CANCELLED:
            self.states[path] = CANCELLED

    def run(
        self, path: str, step: Step, args: list[Any], units: list[Unit],
        tails: list[list[int]], policy: str,
    ) -> End:  # fmt: skip
        """Run what a step is, and in the place of a failure its fallback."""
        if step.kind == "flow":
            assert step.body is not None
            end = self.graph(step.body, f"{path}/", args)
        elif step.kind == "map":
            known = [f"{step.name}.{i}" for i in range(step.length)]
            over = known if step.over is None else units[tails[step.over][0]].delivered
            end = self.map(path, step, over)
        elif step.kind == "branch":
            end = self.branch(path, step, units, tails, policy)
        else:
            end = self.call(path, args, step.retries, step)
        return self.instead(f"{path}/fallback", step.fallback, end, args, step)

    def instead(
        self, path: str, fallback: str, end: End, args: list[Any], step: Step | None
    ) -> End:
        if not fallback:
            return end
        if end.state != FAILED:
            self.states[path] = SKIPPED
            return end
        end = self.call(path, args, 0, step) if fallback == "task" else self.call(path, ["failure"])
        self.states[path] = end.state
        return end

    def call(self, path: str, given: list[Any], retries: int = 0, step: Step | None = None) -> End:
        """Run the body of a task."""
        script: Script = self.scripts(path)
        if script.fails > retries:
            return End(FAILED)
        if script.then == "skip":
            return End(SKIPPED)
        seen = [] if step is not None and step.early else digest(given)
        self.calls[path] = seen
        kind = step.kind if step is not None else "call"
        if kind == "list":
            return End(SUCCESS, [f"{path}.{i}" for i in range(script.number)])
        if kind == "cond":
            return End(SUCCESS, str(script.number))
        if kind == "grow":
            assert step is not None and step.body is not None
            end = self.graph(step.body, f"{path}/program/", [])
            self.states[f"{path}/program"] = end.state
            return End(end.state, end.value if step.item == "flow" else [end.value, 1])
        return End(SUCCESS, value_of(path, seen))

    def map(self, path: str, step: Step, over: Any) -> End:
        """Run an item for each element, and put the list together."""
        if not isinstance(over, list):
            return End(FAILED)
        ends = [self.item(f"{path}[{i}]", step, x) for i, x in enumerate(over)]
        failures = sum(e.state in BAD for e in ends)
        tolerated = step.tolerate or 0
        if isinstance(tolerated, float):
            tolerated = floor(Fraction(str(tolerated)) * len(ends))
        if step.items == "cancel" and failures:
            sure = [e.state for e in ends].index(FAILED) if failures == 1 else -1
            self.leave_open(f"{path}[{i}]" for i in range(len(ends)) if i != sure)
        if step.items != "keep":
            if failures > tolerated:
                return End(FAILED)
            if any(e.state == CANCELLED for e in ends):
                return End(CANCELLED)
        return End(SUCCESS, [_kept(e) for e in ends if e.state != SKIPPED])

    def item(self, path: str, step: Step, element: Any) -> End:
        if step.item == "task":
            end = self.call(path, [element], step.item_retries)
        elif step.item == "chain":
            end = self.handler(f"{path}/a", [element], True)
            if end.state == SUCCESS:
                end = self.handler(f"{path}/b", [end.value], True)
            else:
                self.states[f"{path}/b"] = BLOCKED if end.state == FAILED else SKIPPED
        else:
            assert step.body is not None
            end = self.graph(step.body, f"{path}/", [element])
        end = self.instead(f"{path}/fallback", step.item_fallback, end, [], None)
        self.states[path] = end.state
        if step.item_on_error:
            self.alarm(f"{path}/on_error/e", end.state)
        return end

    def branch(
        self, path: str, step: Step, units: list[Unit], tails: list[list[int]], policy: str
    ) -> End:
        """Run the arm that is taken."""
        assert step.over is not None
        key = units[tails[step.over][0]].delivered
        found = step.arms.get(key if isinstance(key, str) else "", step.arms.get(DEFAULT))
        if key == DEFAULT:
            found = step.arms.get(DEFAULT)
        if found is None:
            return End(FAILED)
        if isinstance(found, Body):
            return self.body(found, f"{path}/", [], policy)
        if isinstance(found, list):
            return End(SUCCESS, [_value(units[tails[i][0]].step, tails[i], units) for i in found])
        return End(SUCCESS, found)

    # --- what never began ------------------------------------------------------------------------

    def never(self, path: str, step: Step, state: State) -> None:
        """Say how what is inside a node, and follows it, ends with it if it never begins."""
        known = step.kind == "map" and step.over is None
        if step.fallback:
            self.states[f"{path}/fallback"] = state
        if step.kind == "flow":
            assert step.body is not None
            self.never_graph(step.body, f"{path}/", state)
        elif known:
            for i in range(step.length):
                self.never_item(f"{path}[{i}]", step, state)

    def never_graph(self, body: Body, prefix: str, state: State) -> None:
        for unit in _units(body, "")[0]:
            path = f"{prefix}{unit.name}"
            self.states[path] = state
            self.never(path, unit.step, state)
            if unit.step.on_error:
                self.states[f"{path}/on_error/e"] = state
        for word, wanted in (
            ("on_success", body.on_success),
            ("on_failure", body.on_failure),
            ("finally", body.finally_),
        ):
            if wanted:
                self.states[f"{prefix}{word}/h"] = state

    def never_item(self, path: str, step: Step, state: State) -> None:
        self.states[path] = state
        if step.item_fallback:
            self.states[f"{path}/fallback"] = state
        if step.item_on_error:
            self.states[f"{path}/on_error/e"] = state
        if step.item == "chain":
            self.states[f"{path}/a"] = self.states[f"{path}/b"] = state
        elif step.item == "flow":
            assert step.body is not None
            self.never_graph(step.body, f"{path}/", state)


def _kept(end: End) -> Any:
    return end.value if end.state == SUCCESS else MISSING[end.state]


def _value(step: Step, tails: list[int], units: list[Unit]) -> Any:
    found = [units[k].delivered for k in tails]
    return found if step.kind == "group" else found[0]


def _units(body: Body, policy: str) -> tuple[list[Unit], list[list[int]]]:
    """Give the nodes of a body, and of each step the nodes with which it ends."""
    units: list[Unit] = []
    tails: list[list[int]] = []
    for step in body.steps:
        parents = list(step.edges)
        read = list(step.listed)
        for arm in step.arms.values():
            read += arm if isinstance(arm, list) else []
        above = [(k, e.how) for e in parents if e.parent >= 0 for k in tails[e.parent]]
        above += [(k, "value") for i in read for k in tails[i]]
        first = len(units)
        if step.kind in ("chain", "group"):
            for n in range(step.length):
                unit = Unit(f"{step.name}-{n}", step, policy)
                if n and step.kind == "chain":
                    unit.above[first + n - 1] = {"value"}
                    unit.args = [(first + n - 1, "value")]
                else:
                    for k, how in above:
                        unit.above.setdefault(k, set()).add(how)
                units.append(unit)
            tails.append([len(units) - 1] if step.kind == "chain" else [*range(first, len(units))])
            continue
        unit = Unit(step.name, step, policy)
        for k, how in above:
            unit.above.setdefault(k, set()).add(how)
        unit.args = [(e.parent, e.how) for e in parents if e.how != "order"]
        units.append(unit)
        tails.append([first])
    return units, tails


# --- rules and forgiveness (sections 3 and 4) ----------------------------------------------------


def _counted(unit: Unit, minds: bool) -> State:
    """As what the end of a parent counts."""
    if not minds or (unit.end.state == FAILED and unit.policy == "continue"):
        return SUCCESS
    return unit.end.state


def verdict_of(rule: str, parents: list[State]) -> State | None:
    """Say how a node ends that does not run, given how all of its parents did; None if it runs."""
    n = len(parents)
    good, bad = parents.count(SUCCESS), sum(p in BAD for p in parents)
    cancelled = parents.count(CANCELLED)
    runs = {
        "all_success": good == n,
        "all_done": True,
        "none_failed": not bad and not cancelled,
        "none_failed_min_one_success": not bad and not cancelled and good > 0,
        "one_success": good > 0,
        "one_failed": bad > 0,
        "all_failed": bad == n,
    }
    if runs[rule] if rule in runs else good >= int(rule.removeprefix("at_least(")[:-1]):
        return None
    if rule in ("one_failed", "all_failed"):
        return CANCELLED if cancelled else SKIPPED
    if bad:
        return BLOCKED
    return CANCELLED if cancelled else SKIPPED


def _forgiven(units: list[Unit], named: set[int]) -> set[int]:
    """Find the nodes whose failure or cancel does not count around them."""
    forgiven: set[int] = set()
    for k in reversed(range(len(units))):
        below = [(j, u) for j, u in enumerate(units) if k in u.above]
        if k in named or not below:
            continue
        if all(_forgives(u, k, j in forgiven) for j, u in below):
            forgiven.add(k)
    return forgiven


def _forgives(child: Unit, parent: int, forgiven: bool) -> bool:
    """Whether the edges from a parent to a child let a failure of it not count."""
    if not child.minds(parent) or forgiven:
        return True
    some = child.step.rule.startswith(("one_success", "at_least"))
    return some and not (child.joined and child.reads(parent))
