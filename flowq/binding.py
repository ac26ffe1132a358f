# SPDX-License-Identifier: MIT
"""Which arguments fit a task: as many as it takes, by names that it has."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any, Final
from weakref import WeakKeyDictionary

from flowq.errors import BindingError
from flowq.node import Node
from flowq.policy import nearest
from flowq.wiring import TaskSpec

__all__ = ["Params", "check_call", "misfit", "parameter_name", "params_of"]

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

    def place(self, name: str) -> int | str:
        """Where an argument of that name is bound: by position where it can be, else by name."""
        for k, p in enumerate(self._positional):
            if p.name == name:
                return k
        return name

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
    if node.arms is not None:
        return "condition"
    if node.race:
        return "or"
    return str(to) if node.spec is None else params_of(node.spec).name(to)


def misfit(who: str, spec: TaskSpec, problem: str) -> BindingError:
    """Give the error of a call that does not fit."""
    short = spec.name.rpartition(".")[2]
    return BindingError(f"{who}: {problem}; its signature is {short}{spec.parameters}")
