# SPDX-License-Identifier: MIT
"""What a program comes to, by sections 3 to 7 of the semantics: the oracle of the laws.

It knows neither stores nor plans nor time: it goes through the steps of a body in the order in
which they are written, and says how each ends and with what value, from what was written, from
what each body does, and from what it is given: who won each race, and what came to who waited.
Where the first law leaves a state open it says None: beside a failure that cancels all else in its
body or map, and of what a race or a need has stopped; of those it still says what else they may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import combinations
from math import floor
from typing import Any

from flowq.states import State
from tests.model.bodies import digest, value_of
from tests.model.never import chunked, never, never_item
from tests.model.programs import DEFAULT, Body, Program, Script, Scripts, Step
from tests.model.weighing import (
    BAD,
    MISSING,
    End,
    Unit,
    counted,
    followed,
    forgiven_in,
    owned_by,
    units_of,
    value_in,
    verdict_of,
)

__all__ = ["Meaning"]

SUCCESS, FAILED, BLOCKED = State.SUCCESS, State.FAILED, State.BLOCKED
SKIPPED, CANCELLED = State.SKIPPED, State.CANCELLED


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
    stopped : dict of str to tuple of State and str
        By path, how each would have ended that may have been stopped (so it ends, or it is
        skipped), and the race that was decided or the map whose need was met.
    met : dict of str to int
        How many items have succeeded of maps that needed so many, by path.
    items : dict of str to list of End
        Of maps that have begun, by path: how their items ended, were none of them stopped.
    wrong : list of str
        What it was given that cannot be.

    Parameters
    ----------
    program : Program
    scripts : Scripts
    given : mapping of str to End
        What came of races, of what waits, and of maps that need so many, by path.
    """

    def __init__(self, program: Program, scripts: Scripts, given: Mapping[str, End]) -> None:
        self.scripts = scripts
        self.given = given
        self.states: dict[str, State | None] = {}
        self.calls: dict[str, Any] = {}
        self.stopped: dict[str, tuple[State, str]] = {}
        self.met: dict[str, int] = {}
        self.items: dict[str, list[End]] = {}
        self.wrong: list[str] = []
        self.end = self.graph(program, "", [])

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
        units, tails = units_of(body, policy)
        named = {k for i in body.value for k in tails[i]}
        for k, unit in enumerate(units):
            if unit.step.kind != "first":
                self.unit(unit, units, prefix, given, tails, policy)
            elif self.race(unit, units, prefix):
                losers = owned_by(k, units, named)
                race = f"{prefix}{unit.name}"
                self.leave_open((f"{prefix}{units[k].name}" for k in losers), by=race)
        forgiven = forgiven_in(units, named)
        counting = [
            u for k, u in enumerate(units)
            if u.end.state in BAD and k not in forgiven and not u.stands
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
        value = [value_in(body.steps[i], tails[i], units) for i in body.value]
        return End(SUCCESS, value[0] if body.alone else value)

    def leave_open(self, paths: Iterable[str], *, by: str = "") -> None:
        """Leave open how some nodes end, with all that is inside them and follows them.

        Parameters
        ----------
        paths : iterable of str
        by : str
            What may have stopped them: if it did they are skipped, else they end as they would.
        """
        for path in paths:
            was = self.states.get(path) or self.stopped.get(path, (None, ""))[0]
            for known in [p for p in self.states if _within(p, path)]:
                self.states[known] = None
                self.stopped.pop(known, None)
                self.met.pop(known, None)
            for known in [p for p in self.calls if _within(p, path)]:
                del self.calls[known]
            if by and was is not None:
                self.stopped[path] = was, by

    # --- nodes -----------------------------------------------------------------------------------

    def unit(
        self, unit: Unit, units: list[Unit], prefix: str, given: list[Any],
        tails: list[list[int]], policy: str,
    ) -> None:  # fmt: skip
        """Run a node of a body, if its rule lets it, and what is to follow its failure."""
        path, step = f"{prefix}{unit.name}", unit.step
        ends = {k: units[k] for k in unit.above}
        along = followed(step, units, tails)
        if along is not None and f"{prefix}{units[along].name}" in self.items:
            del ends[along]  # it has begun, and its items count one by one
        state = verdict_of(step.rule, [counted(u, unit.minds(k)) for k, u in ends.items()])
        if unit.joined:
            read = [counted(u, unit.minds(k)) for k, u in ends.items() if unit.reads(k)]
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
            never(self.states, path, step, state)
        self.states[path] = unit.end.state
        if step.on_error:
            self.alarm(f"{path}/on_error/e", unit.end.state)

    def race(self, unit: Unit, units: list[Unit], prefix: str) -> bool:
        """Let the first that succeeded win; says whether one did."""
        path = f"{prefix}{unit.name}"
        state = verdict_of("one_success", [units[k].end.state for k in unit.above])
        if state is None:
            good = [units[k].end for k in unit.above if units[k].end.state == SUCCESS]
            unit.end = self.known(path, good)
        else:
            unit.end = End(state)
        self.states[path] = unit.end.state
        return state is None

    def known(self, path: str, ends: list[End]) -> End:
        """Give what it is said to have come to, if it could; what has not come to that may be any.

        Parameters
        ----------
        path : str
        ends : list of End
            What it could come to.
        """
        found = self.given.get(path)
        if found is None:
            return ends[0]
        for end in ends:
            if (end.state, digest(end.value)) == (found.state, digest(found.value)):
                return end
        self.wrong.append(f"{path} is {found}, and could be {ends}")
        return ends[0]

    def waited(self, path: str, step: Step) -> End:
        """Take what was sent, or what comes of its timeout."""
        found = self.given.get(path, End(SUCCESS))
        late = End(SUCCESS, "default") if step.default else End(FAILED)
        sent = found.state == SUCCESS and str(found.value).startswith(f"{step.name}:")
        return self.known(path, [found] * sent + [late] * (step.seconds > 0) or [End(SUCCESS)])

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
            end = self.map(path, step, self.elements(path, step, units, tails))
        elif step.kind == "branch":
            end = self.branch(path, step, units, tails, policy)
        elif step.kind == "sleep":
            end = End(SUCCESS)
        elif step.kind == "wait":
            end = self.waited(path, step)
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
        if step is not None and step.kind == "pure":
            return End(SUCCESS, value_of(step.name.partition("-")[0], []))
        seen = [] if step is not None and step.early else digest(given)
        self.calls[path] = seen
        kind = step.kind if step is not None else "call"
        if script.then == "failure" and kind not in ("list", "cond", "grow"):
            return End(SUCCESS, MISSING[FAILED])
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

    def elements(
        self, path: str, step: Step, units: list[Unit], tails: list[list[int]]
    ) -> list[End] | None:
        """Give what each item of a map is for; None if it is over something that is no list."""
        along = followed(step, units, tails)
        if along is not None:
            return self.items[path.removesuffix(step.name) + units[along].name]
        over: Any = [f"{step.name}.{i}" for i in range(step.length)]
        if step.over is not None:
            over = units[tails[step.over][0]].delivered
        if not isinstance(over, list):
            return None
        parts = chunked(over, step.chunk)
        wrong = [MISSING[FAILED] in (dict(x).values() if step.chunk else (x,)) for x in parts]
        return [End(BLOCKED if bad else SUCCESS, x) for bad, x in zip(wrong, parts, strict=True)]

    def map(self, path: str, step: Step, elements: list[End] | None) -> End:
        """Run an item for each element, and put the list together."""
        if elements is None:
            return End(FAILED)
        ends = [self.item(f"{path}[{i}]", step, x) for i, x in enumerate(elements)]
        self.items[path] = ends
        if step.need:
            return self.needed(path, step, ends)
        failures = sum(e.state in BAD for e in ends)
        tolerated = step.tolerate or 0
        if isinstance(tolerated, float):
            tolerated = floor(Fraction(str(tolerated)) * len(ends))
        if step.items == "cancel" and failures:
            sure = [e.state in BAD for e in ends].index(True) if failures == 1 else -1
            self.leave_open(f"{path}[{i}]" for i in range(len(ends)) if i != sure)
        if step.items != "keep":
            if failures > tolerated:
                return End(FAILED)
            if any(e.state == CANCELLED for e in ends):
                return End(CANCELLED)
        kept: list[Any] = []
        for end, (_, part) in zip(ends, elements, strict=True):
            if end.state != SKIPPED:
                value = end.value if end.state == SUCCESS else MISSING[end.state]
                flat = step.chunk and end.state == SUCCESS
                kept += value if flat else [value] * (len(part) if step.chunk else 1)
        return End(SUCCESS, kept)

    def needed(self, path: str, step: Step, ends: list[End]) -> End:
        """Take the values of those that succeeded first, and leave open what became of the rest."""
        good = [e.value for e in ends if e.state == SUCCESS]
        if len(good) < step.need:
            return End(FAILED)
        could = [list(some) for some in combinations(good, step.need)]
        if step.chunk:
            could = [[x for part in some for x in part] for some in could]
        self.leave_open((f"{path}[{i}]" for i in range(len(ends))), by=path)
        self.met[path] = step.need
        return self.known(path, [End(SUCCESS, some) for some in could])

    def item(self, path: str, step: Step, given: End) -> End:
        """Run an item, if what it is given is there: an element, or how another item ended."""
        state, element = verdict_of("all_success", [given.state]), given.value
        if state is not None:
            never_item(self.states, path, step, state)
            if step.item_on_error:
                self.alarm(f"{path}/on_error/e", state)
            return End(state)
        if step.chunk:
            end = self.chunk(path, element, step.item_retries)
        elif step.item == "task":
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

    def chunk(self, path: str, elements: list[tuple[int, Any]], retries: int) -> End:
        """Call the body of a task for some elements, one after the other."""
        scripts = [self.scripts(f"{path}#{i}") for i, _ in elements]
        if any(script.fails > retries for script in scripts):
            return End(FAILED)
        ends = [self.call(f"{path}#{i}", [x], retries) for i, x in elements]
        made = [end.value for end in ends if end.state == SUCCESS]
        return End(SUCCESS, made) if made else End(SKIPPED)

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
            return End(SUCCESS, [value_in(units[tails[i][0]].step, tails[i], units) for i in found])
        return End(SUCCESS, found)


def _within(path: str, around: str) -> bool:
    """Whether a node stands inside another, or follows it, or is that one."""
    return path == around or path.startswith((f"{around}/", f"{around}[", f"{around}#"))
