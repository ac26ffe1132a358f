# SPDX-License-Identifier: MIT
"""Whether the values that come over edges are of types that can fit, by annotations."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, Optional

from flowq.binding import parameter_name, params_of
from flowq.errors import BindingError, BindingWarning
from flowq.hints import Fit, element_of, fit, hint_text, item_of
from flowq.node import Node, Take, leaves
from flowq.plan import Kind
from flowq.wiring import TaskSpec

__all__ = ["check_edges"]

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
            for item in element.source.over:
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
    if node.arms is not None:
        inner = [arm.node.inner for arm in node.arms if arm.node.inner is not None]
        arms = [_compare(body.value, wanted, depth + 1) for body in inner]
        worst = min(arms, key=_by_fit)
        # as with a union: it can never fit if no arm can
        never = all(v.fit is Fit.NEVER for v in arms)
        return worst if never else worst._replace(fit=max(worst.fit, Fit.DOUBTFUL))
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
