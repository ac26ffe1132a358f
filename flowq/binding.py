# SPDX-License-Identifier: MIT
"""Which arguments fit a task: as many as it takes, by names that it has, of types that can fit."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, NamedTuple, Optional
from weakref import WeakKeyDictionary

from flowq.errors import BindingError, BindingWarning
from flowq.hints import Fit, element_of, fit, hint_text, item_of
from flowq.node import Node, Take, leaves
from flowq.plan import Kind
from flowq.policy import nearest
from flowq.wiring import TaskSpec

__all__ = ["Params", "check_call", "check_edges", "misfit", "parameter_name", "params_of"]

_P: Final = inspect.Parameter
_KNOWN_SHAPES: Final = 1_000
"""Shapes of calls remembered for each task; one that takes ``**kwargs`` has no end of them."""


class Params:
    """The parameters of a task, read once, and the shapes of calls that were found to fit."""

    __slots__ = ("__weakref__", "_fits", "_keyword", "_positional", "_required", "_rest", "_spare")

    def __init__(self, signature: inspect.Signature) -> None:
        every = list(signature.parameters.values())
        self._positional = [
            p for p in every if p.kind in (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD)
        ]
        self._keyword = {
            p.name: p for p in every if p.kind in (_P.POSITIONAL_OR_KEYWORD, _P.KEYWORD_ONLY)
        }
        self._rest = next((p for p in every if p.kind is _P.VAR_POSITIONAL), None)
        self._spare = next((p for p in every if p.kind is _P.VAR_KEYWORD), None)
        self._required = [
            p
            for p in every
            if p.default is _P.empty and p.kind not in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)
        ]
        self._fits: set[Any] = set()

    def fits(self, count: int, names: Collection[str], *, more: bool = False) -> bool:
        """Whether `count` positional arguments and these keywords fit; quick once it was seen.

        With `more`, others may come.
        """
        shape = (more, count, *names) if names or more else count
        if shape in self._fits:
            return True
        if self.problem(count, names, more=more):
            return False
        if len(self._fits) < _KNOWN_SHAPES:
            self._fits.add(shape)
        return True

    def problem(self, count: int, names: Collection[str], *, more: bool = False) -> str:
        """What is wrong with a call of this shape; empty if nothing is."""
        if count > len(self._positional) and not self._rest:
            takes = len(self._positional)
            return (
                f"it takes {takes} positional argument{'s' * (takes != 1)}, but {count} are given"
            )
        filled = {p.name for p in self._positional[:count]}
        for name in names:
            if name in self._keyword:
                if name in filled:
                    return f"parameter {name!r} is bound twice, by position and by name"
            elif not self._spare:
                return f"unexpected argument {name!r}{nearest(name, self._keyword)}"
        if more:
            return ""
        by_name = {n for n in names if n in self._keyword}
        lacking = [p.name for p in self._required if p.name not in filled | by_name]
        if lacking:
            which = ", ".join(repr(n) for n in lacking)
            return f"missing argument{'s' * (len(lacking) > 1)} {which}"
        return ""

    def free(self, count: int, names: Collection[str]) -> int | str | None:
        """The first free parameter after the bound ones: a position, a keyword, or None."""
        ahead = self._positional[count:]
        for k, p in enumerate(ahead):
            if p.name in names and p.kind is _P.POSITIONAL_OR_KEYWORD:
                continue
            if k == 0:
                return count
            # a parameter before it is bound by name, so position would bind that one twice
            return p.name if p.kind is _P.POSITIONAL_OR_KEYWORD else None
        if self._rest and not ahead:
            return count
        for p in self._keyword.values():
            if p.kind is _P.KEYWORD_ONLY and p.name not in names:
                return p.name
        return None

    def room(self, count: int, names: Collection[str]) -> float:
        """How many more positional arguments there is room for."""
        if self._rest:
            return float("inf")
        return sum(p.name not in names for p in self._positional[count:])

    def at(self, to: int | str) -> inspect.Parameter | None:
        """The parameter that an argument fills, by position or name."""
        if isinstance(to, str):
            return self._keyword.get(to, self._spare)
        return self._positional[to] if to < len(self._positional) else self._rest

    def name(self, to: int | str) -> str:
        """What the parameter is called that an argument fills; of ``*rest``, ``rest[0]``."""
        found = self.at(to)
        if isinstance(to, str) or found is None:
            return str(to)
        beyond = to - len(self._positional)
        return found.name if beyond < 0 else f"{found.name}[{beyond}]"


_params: WeakKeyDictionary[TaskSpec, Params] = WeakKeyDictionary()


def params_of(spec: TaskSpec) -> Params:
    """Give the parameters of a task, read once for each."""
    found = _params.get(spec)
    if found is None:
        found = _params[spec] = Params(spec.parameters)
    return found


def check_call(
    spec: TaskSpec,
    args: Collection[Any],
    kwargs: Collection[str],
    *,
    more: bool = False,
    who: str = "",
) -> None:
    """Check that arguments fit a task.

    Parameters
    ----------
    spec : TaskSpec
    args : collection
    kwargs : collection of str
        Their names.
    more : bool
        Whether others may come, so that none is missing yet.
    who : str
        What errors call it; the task unless given.

    Raises
    ------
    BindingError
        One is missing, unexpected or bound twice; the text has the task's signature.
    """
    params = params_of(spec)
    if not params.fits(len(args), kwargs, more=more):
        problem = params.problem(len(args), kwargs, more=more)
        raise misfit(who or f"task {spec.name}", spec, problem)


def parameter_name(node: Node, to: int | str) -> str:
    """The name of the parameter that an edge fills."""
    return str(to) if node.spec is None else params_of(node.spec).name(to)


def misfit(who: str, spec: TaskSpec, problem: str) -> BindingError:
    """Give the error of a call that does not fit."""
    short = spec.name.rpartition(".")[2]
    return BindingError(f"{who}: {problem}; its signature is {short}{spec.parameters}")


# --- types of values that come over edges --------------------------------------------------------

_DEEP: Final = 50
"""So many expansions and containers within each other are looked into."""


class _Verdict(NamedTuple):
    """How a value fits, and where it fits least."""

    fit: Fit
    source: Node | None = None
    given: Any = None
    wanted: Any = None
    within: bool = False
    """Whether `given` is the list, tuple or dict in which the source stands."""


_FITS: Final = _Verdict(Fit.FITS)


def check_edges(nodes: Iterable[Node]) -> None:
    """Compare what tasks return with the parameters that it is given to, by their annotations.

    Nodes whose trigger rule lets them run without a value are left out, since they are given other
    things too.

    Raises
    ------
    BindingError
        A value can never fit. One that may not is a `BindingWarning`.
    """
    known: set[tuple[TaskSpec, int | str, TaskSpec]] = set()
    for node in nodes:
        if node.spec is None or node.rule_text != "all_success":
            continue
        for to, value in _edges(node):
            if type(value) is Node and value.inner is None and value.spec is not None:
                key = (node.spec, to, value.spec)
                if key in known:
                    continue
                known.add(key)
            wanted = _wanted(node.spec, to)
            found = _FITS if wanted is Any else _compare(value, wanted)
            if found.fit is not Fit.FITS:
                _tell(node, to, found)


def _edges(node: Node) -> Iterator[tuple[int | str, Any]]:
    """What comes over edges to a task, elements of maps included."""
    yield from node.edges.items()
    for element in node.elements:
        if element.source.dynamic:
            for item in element.source.items or ():
                for k, value in enumerate(element.given(item), element.at):
                    if any(True for _ in leaves(value)):
                        yield k, value


def _wanted(spec: TaskSpec, to: int | str) -> Any:
    parameter = params_of(spec).at(to)
    hint = Any if parameter is None else spec.hints.get(parameter.name, Any)
    # ``x: int = None`` is often written, and means what it says
    if hint is Any or parameter is None or parameter.default is not None:
        return hint
    return Optional[hint]  # noqa: UP045  # `hint` is no type that `|` takes


def _compare(value: Any, wanted: Any, depth: int = 0) -> _Verdict:
    """Compare a structure of nodes with an annotation; gives the worst that was found."""
    kind = type(value)
    if depth > _DEEP or wanted is Any:
        return _FITS
    if kind is Node:
        return _compare_node(value, wanted, depth)
    if kind is Take:
        if type(value.node) is not Node:
            return _FITS
        given = _given(value.node)
        for key in value.path:
            given = item_of(given, key)
        return _Verdict(fit(given, wanted), value.node, given, wanted)
    if kind not in (list, tuple, dict):
        return _FITS
    found = fit(kind, wanted)
    first = next(leaves(value), None)
    if found is not Fit.FITS:
        return _Verdict(found, first, kind, wanted, True)
    worst, seen = _FITS, set()
    for place, x in enumerate(value.values() if kind is dict else value):
        at = place if kind is tuple else -1
        if type(x) is Node and x.inner is None and x.spec is not None:
            if (x.spec, at) in seen:
                continue
            seen.add((x.spec, at))
        worst = min(worst, _compare(x, element_of(wanted, kind, at), depth + 1), key=_by_fit)
    return worst


def _compare_node(node: Node, wanted: Any, depth: int) -> _Verdict:
    if node.inner is None:
        given = _given(node)
        return _Verdict(fit(given, wanted), node, given, wanted)
    if node.items is None:
        return _compare(node.inner.value, wanted, depth + 1)
    found = fit(list, wanted)
    if found is not Fit.FITS:
        return _Verdict(found, node, list, wanted)
    inside = _compare(node.inner.value, element_of(wanted, list), depth + 1)
    # it may be empty, also where all items were skipped
    return inside._replace(fit=max(inside.fit, Fit.DOUBTFUL))


def _given(node: Node) -> Any:
    return node.spec.hints.get("return", Any) if node.kind is Kind.TASK and node.spec else Any


def _by_fit(verdict: _Verdict) -> Fit:
    return verdict.fit


def _tell(node: Node, to: int | str, found: _Verdict) -> None:
    given = hint_text(found.given)
    if found.source is None:
        comes = f"an empty {given} is given"
    elif found.within:
        comes = f"a {given} with {found.source.who} in it is given"
    else:
        comes = f"{found.source.who} gives {given}"
    takes = hint_text(found.wanted)
    text = f"{node.who}: parameter {parameter_name(node, to)!r} takes {takes}, and {comes}"
    if found.fit is Fit.NEVER:
        raise BindingError(
            f"{text}, which can never fit; mend the annotation that is wrong, or convert the value "
            "in a task"
        )
    warnings.warn(f"{text}, which may not fit", BindingWarning, stacklevel=_depth_of_users_code())


def _depth_of_users_code() -> int:
    """How many frames above `_tell` flowq's own code ends, as ``warnings.warn`` counts."""
    here = os.path.dirname(__file__) + os.sep
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        depth, frame = depth + 1, frame.f_back
    return depth
