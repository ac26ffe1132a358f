# SPDX-License-Identifier: MIT
"""One of several ways on, by a value that is known only when the graph runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from flowq.building import TRACE
from flowq.errors import GraphError, NodeUsedAsValue
from flowq.fragment import key_of
from flowq.node import Arm, Body
from flowq.primitives.base import Single, users_code
from flowq.primitives.build import Builder, Fragment, Part, Placing
from flowq.primitives.contents import Contents
from flowq.primitives.flowgraph import ArmGraph
from flowq.serializer import short_repr
from flowq.wiring import Gives, Started

if TYPE_CHECKING:
    from flowq.result import Result

__all__ = ["Branch", "branch"]

R = TypeVar("R", covariant=True)
S = TypeVar("S")
C = TypeVar("C", str, int, float, None)

_NO_ARM: Final[Any] = object()
_CLOSED: Final = (
    "a branch takes no value that is piped into it, since its arms say what they read; name the "
    "step in its condition and arms, or write a flow"
)


class Branch(Single[R]):
    """What ``branch(...)`` gives outside of flows: one node that becomes the arm taken."""

    __slots__ = ("_arms", "_cond")

    has_members = True

    _place = "branch"

    def __init__(self, cond: Part, arms: tuple[tuple[str, Any, bool, Any], ...]) -> None:
        super().__init__()
        self._cond = cond
        self._arms = arms  # each a label, a key, whether it is the default, and what it gives

    def __repr__(self) -> str:
        return f"<branch on {self._cond!r}: {', '.join(label for label, *_ in self._arms)}>"

    def _base(self) -> str:
        return "branch"

    def put(self, build: Builder, body: Body) -> Placing:
        """Add one node, with a node inside for each arm, and the graph of the arm inside that."""
        node, inner = build.expansion(body, self._base(), self._options)
        node.args = [self._cond]
        node.order.extend(self._after)
        node.arms = []
        inner.closed = _CLOSED
        for label, key, default, given in self._arms:
            at, within = build.expansion(inner, label, {})
            at.label = label
            node.arms.append(Arm(at, key, default))
            if isinstance(given, Contents):
                made = yield given, within
                within.value = made.value
            else:
                within.value = given
        inner.value = [arm.node for arm in node.arms]
        return Fragment([node], [node], node, _CLOSED)


# what gives a value also fits a Callable, for checkers, so it comes first
@overload
def branch(
    cond: Any, arms: Mapping[Any, Gives[S]], *, default: Gives[S] | Callable[[], Gives[S]] = ...
) -> Result[S]: ...
@overload
def branch(
    cond: Any,
    arms: Mapping[Any, Callable[[], Gives[S]]],
    *,
    default: Gives[S] | Callable[[], Gives[S]] = ...,
) -> Result[S]: ...
@overload
def branch(
    cond: Any,
    arms: Mapping[Any, Gives[S] | Callable[[], Gives[S]]],
    *,
    default: Gives[S] | Callable[[], Gives[S]] = ...,
) -> Result[S]: ...
@overload
def branch(cond: Any, arms: Mapping[Any, C], *, default: C = ...) -> Result[C]: ...
@overload
def branch(cond: Any, arms: Mapping[Any, Any], *, default: Any = ...) -> Result[Any]: ...
def branch(cond: Any, arms: Mapping[Any, Any], *, default: Any = _NO_ARM) -> Any:
    """Choose what follows by a value that is known when the graph runs.

    The arm taken gives the value, so what follows needs no trigger rule. The other arms are never
    made. If no arm has the value and there is no default, the branch fails with `NoArm`.

    Parameters
    ----------
    cond : node
        A step, an item of its value, or a parameter of a flow that is built.
    arms : mapping
        By what the condition's value may be: text, a whole number, True, False, None, or a member
        of an Enum, which stands for its value. An arm is a function without arguments
        (``lambda: load(clean(x))``: what it calls belongs to the arm), a composition, a node, or a
        constant. A node that leads to one arm alone belongs to it, and runs only if that is taken.
    default : arm, optional
        Taken if there is no arm for the value.

    Returns
    -------
    Result or Branch
        A node within a flow, else a composition. Options of the node (``name``, ``priority``,
        ``trigger_rule``) are said on it: ``branch(...).options(name="by-size")``.

    Raises
    ------
    NodeUsedAsValue
        A key is a step.
    GraphError
        The condition is known already; there are no arms; a key cannot be one; an arm takes
        arguments.
    """
    where = users_code()
    if not isinstance(cond, Part):
        raise GraphError(f"branch on {_told(cond)}{where}")
    given: Any = arms
    if not isinstance(given, Mapping) or not given:
        raise GraphError(
            f"branch on {cond!r}{where}: there are no arms; write branch(node, {{value: arm, ...}})"
        )
    labels = _labels([_checked(key, where) for key in given], where)
    made = [
        (label, key, False, _arm(label, arm, where))
        for (label, key), arm in zip(labels, given.values(), strict=True)
    ]
    if default is not _NO_ARM:
        label = "default" if all(label != "default" for label, _ in labels) else "default="
        made.append((label, None, True, _arm(label, default, where)))
    trace = TRACE.get()
    if trace is None:
        return Branch(cond, tuple(made))
    trace.check((cond, *(x for *_, x in made if not isinstance(x, Contents))))
    return trace.add(lambda: Branch(cond, tuple(made)))


def _told(cond: Any) -> str:
    if isinstance(cond, Started):
        return (
            f"{cond!r}, which was started elsewhere: compose it (task.s(...)), or call its task in "
            "the flow"
        )
    if callable(getattr(cond, "s", None)):
        name = cond.name.rpartition(".")[2]
        return f"{cond!r}, which is not called: write {name}(...) in a flow, else {name}.s(...)"
    return f"{short_repr(cond)}, which is no step: its value is known already, so use a plain if"


def _checked(key: Any, where: str) -> Any:
    """Give a key as it is compared."""
    if isinstance(key, Part):
        raise NodeUsedAsValue(
            f"branch{where}: {key!r} cannot be the key of an arm: its value is not known"
        )
    found, known = key_of(key)
    if not known:
        raise GraphError(
            f"branch{where}: {short_repr(key)} cannot be the key of an arm; keys are text, whole "
            "numbers, True, False, None, or members of an Enum with such values"
        )
    return found


def _labels(keys: list[Any], where: str) -> list[tuple[str, Any]]:
    """Give each key the text by which pictures show its arm."""
    seen: set[Any] = set()
    for key in keys:
        if (type(key), key) in seen:
            raise GraphError(f"branch{where}: two arms are for {key!r}")
        seen.add((type(key), key))
    others = {repr(key) for key in keys if type(key) is not str}
    return [(key if type(key) is str and key not in others else repr(key), key) for key in keys]


def _arm(label: str, given: Any, where: str) -> Any:
    """Give what an arm is: a graph if it is a function, else itself."""
    if isinstance(given, Part) or not callable(given) or isinstance(given, type):
        return given
    from flowq.primitives.trace import Trace  # it knows what a Branch is

    try:
        inspect.signature(given).bind()
    except TypeError as err:
        raise GraphError(
            f"branch{where}: arm {label!r} is called without arguments, and {err}; write "
            "lambda: task(x), with what it reads from around it"
        ) from None
    except ValueError:  # it does not tell
        pass
    around = TRACE.get()
    token = TRACE.set(None)  # what is built is no part of a flow around
    try:
        graph: ArmGraph[Any] = ArmGraph(label, None if around is None else around.graph)
    finally:
        TRACE.reset(token)
    Trace(graph).run(given, (), {})
    return Contents(graph)
