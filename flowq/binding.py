# SPDX-License-Identifier: MIT
"""Which arguments fit a task: as many as it takes, by names that it has."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from flowq.errors import BindingError
from flowq.policy import nearest
from flowq.wiring import TaskSpec

__all__ = ["Params", "check_call", "misfit", "params_of"]

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
        self._rest = any(p.kind is _P.VAR_POSITIONAL for p in every)
        self._spare = any(p.kind is _P.VAR_KEYWORD for p in every)
        self._required = [
            p
            for p in every
            if p.default is _P.empty and p.kind not in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)
        ]
        self._fits: set[Any] = set()

    def fits(self, count: int, names: Collection[str]) -> bool:
        """Whether `count` positional arguments and these keywords fit; quick once it was seen."""
        shape = (count, *names) if names else count
        if shape in self._fits:
            return True
        if self.problem(count, names):
            return False
        if len(self._fits) < _KNOWN_SHAPES:
            self._fits.add(shape)
        return True

    def problem(self, count: int, names: Collection[str]) -> str:
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

    def has(self, name: str) -> bool:
        """Whether a keyword of this name can be given."""
        return self._spare or name in self._keyword


_params: WeakKeyDictionary[TaskSpec, Params] = WeakKeyDictionary()


def params_of(spec: TaskSpec) -> Params:
    """Give the parameters of a task, read once for each."""
    found = _params.get(spec)
    if found is None:
        found = _params[spec] = Params(spec.parameters)
    return found


def check_call(spec: TaskSpec, args: Collection[Any], kwargs: Mapping[str, Any]) -> None:
    """Check that arguments fit a task.

    Raises
    ------
    BindingError
        One is missing, unexpected or bound twice; the text has the task's signature.
    """
    params = params_of(spec)
    if not params.fits(len(args), kwargs.keys()):
        raise misfit(f"task {spec.name}", spec, params.problem(len(args), kwargs.keys()))


def misfit(who: str, spec: TaskSpec, problem: str) -> BindingError:
    """Give the error of a call that does not fit."""
    short = spec.name.rpartition(".")[2]
    return BindingError(f"{who}: {problem}; its signature is {short}{spec.parameters}")
