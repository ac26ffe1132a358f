# SPDX-License-Identifier: MIT
"""Build a flow to see whether it can run: with values, else with placeholders for them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from flowq.errors import FlowqError, NodeUsedAsValue
from flowq.graph import Graph
from flowq.lower import lower
from flowq.plan import NodeRow, Plan
from flowq.primitives.signature import Signature
from flowq.task import Task

if TYPE_CHECKING:
    from flowq.app import FlowQ
    from flowq.flow import Flow

__all__ = ["Checked", "check_flow", "graph_of", "lacking"]

PARAMETER: Final = "flowq.parameter"
"""The task that stands for what a flow is given."""


class Checked(NamedTuple):
    """What was found of one flow.

    Attributes
    ----------
    status : str
        ``ok``; ``wrong``; ``imported``: it cannot be built without values.
    nodes : int
        How many nodes it has at the start.
    placeholders : tuple of str
        Parameters that were given no value.
    said : str
        What is wrong, or what it needs.
    """

    status: str
    nodes: int = 0
    placeholders: tuple[str, ...] = ()
    said: str = ""


def lacking(flow: Flow[..., Any], given: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the parameters that have neither a value nor a default."""
    ways = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(
        name
        for name, p in flow.parameters.parameters.items()
        if p.kind in ways and p.default is inspect.Parameter.empty and name not in given
    )


def graph_of(flow: Flow[..., Any], given: Mapping[str, Any]) -> Graph:
    """Build a flow's graph; what it is not given is a placeholder.

    Raises
    ------
    FlowqError
        It makes a mistake.
    """
    names = lacking(flow, given)
    if not names:
        graph: Graph = flow.build(**given)._graph()
        return graph
    stands: dict[str, Any] = {}
    for name in names:
        spec = _parameter_of(flow.submitter, flow.hints.get(name, Any))
        stands[name] = Signature(spec, (), {}, {"name": f"parameter-{name}"})
    whole: Graph = flow.s(**given, **stands)._graph()
    return whole


def check_flow(flow: Flow[..., Any], given: Mapping[str, Any]) -> Checked:
    """Build a flow twice, lower it, and compare: it must be right, and the same."""
    names = lacking(flow, given)
    try:
        first, second = (_plan(flow, given, names) for _ in range(2))
    except NodeUsedAsValue as err:
        if names and "<parameter " in str(err):
            return Checked("imported", 0, names, _needs(names, err))
        return Checked("wrong", 0, names, _line(err))
    except FlowqError as err:
        return Checked("wrong", 0, names, _line(err))
    except Exception as err:
        said = f"{type(err).__name__}: {err}"
        if names:  # it looked at a value that is not there
            return Checked("imported", 0, names, _needs(names, said))
        return Checked("wrong", 0, names, _line(said))
    around = len(names) + 1 if names else 0  # the placeholders, and the flow as one node
    count = len(first.rows) - 1 - around
    differs = difference(first, second, flow.submitter)
    if differs:
        said = f"built twice it is not the same: {differs}; a flow's function must be pure"
        return Checked("wrong", count, names, said)
    return Checked("ok", count, names)


def difference(first: Plan, second: Plan, app: Any) -> str:
    """Say where two plans differ, but for ids; empty if nowhere."""
    if len(first.rows) != len(second.rows):
        return f"{len(first.rows) - 1} nodes, then {len(second.rows) - 1}"
    for one, other in zip(first.rows, second.rows, strict=True):
        if one.name != other.name:
            return f"node {one.name!r}, then {other.name!r}"
        if _bare(one) != _bare(other) and not _same_arguments(one, other, app):
            return f"node {one.name!r} has other arguments, edges or options"
    return ""


def _bare(row: NodeRow) -> NodeRow:
    if row.message is None:
        return row
    return msgspec.structs.replace(row, message=msgspec.structs.replace(row.message, id=b""))


def _same_arguments(one: NodeRow, other: NodeRow, app: Any) -> bool:
    """Whether two rows differ only in bytes that hold equal arguments."""
    if one.message is None or other.message is None:
        return False
    bare = [
        msgspec.structs.replace(
            row, message=msgspec.structs.replace(row.message, id=b"", payload=b"")
        )
        for row in (one, other)
        if row.message is not None
    ]
    if bare[0] != bare[1]:
        return False
    load = app.serializer.loads
    try:
        return bool(load(one.message.payload) == load(other.message.payload))
    except Exception:  # a class whose == raises is not known to be the same
        return False


def _plan(flow: Flow[..., Any], given: Mapping[str, Any], names: tuple[str, ...]) -> Plan:
    graph = graph_of(flow, given)
    return lower(graph, _With(flow.submitter) if names else flow.submitter)


def _given() -> None:
    """Stand for a parameter; it never runs."""


def _parameter_of(app: Any, kind: Any = Any) -> Task[..., Any]:
    """Make a task that gives a value of a type; no app knows it."""
    made: Task[..., Any] = Task(app, _given, {**app._defaults, "name": PARAMETER})
    made._hints = {"return": kind}
    return made


class _With:
    """An app that knows the task of placeholders too, without being changed."""

    def __init__(self, app: FlowQ | Any) -> None:
        self._app = app
        self.name = app.name
        self.serializer = app.serializer
        self.run_defaults = app.run_defaults

    def spec(self, name: str) -> Any:
        return _parameter_of(self._app) if name == PARAMETER else self._app.spec(name)

    def start_message(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def start_plan(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def _needs(names: tuple[str, ...], said: object) -> str:
    words = " ".join(f"-p {name}=..." for name in names)
    return f"looks at its arguments; check it with {words} ({_line(said)})"


def _line(said: object) -> str:
    return " ".join(str(said).split())
