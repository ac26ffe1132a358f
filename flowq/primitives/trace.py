# SPDX-License-Identifier: MIT
"""What a flow's function does while it runs: calls become nodes of the graph that it builds."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CellType, FunctionType, TracebackType
from typing import Any, Final, NoReturn, cast

from flowq.binding import check_call
from flowq.building import TRACE
from flowq.errors import BindingError, ConfigError, GraphError, NodeUsedAsValue
from flowq.filling import plain
from flowq.primitives.base import Composition, Reference, users_code
from flowq.primitives.branch import Branch
from flowq.primitives.build import Part, has_parts
from flowq.primitives.first import First
from flowq.primitives.flowgraph import FlowGraph, FlowNode, walk
from flowq.primitives.map import Map
from flowq.primitives.signature import Signature
from flowq.primitives.sleep import Sleep
from flowq.primitives.wait import WaitFor
from flowq.wiring import Started, TaskSpec

__all__ = ["Trace"]

_HERE: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep
_LOCATED: Final = re.compile(r", line \d+\)")
DEEPEST: Final = 50
"""Flows that are built within each other, before it is taken for an endless recursion."""


class Trace:
    """One run of a flow's function; while it lasts it stands in `TRACE`.

    Parameters
    ----------
    graph : FlowGraph
        What is built.
    """

    def __init__(self, graph: FlowGraph[Any]) -> None:
        self.graph = graph
        around = TRACE.get()
        self._depth: int = 1 if around is None else around._depth + 1
        self._made: dict[int, tuple[Part, str]] = {}
        self._unpacked: tuple[FlowNode, int, str] | None = None

    def run(self, func: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        """Call the flow's function and take what it returns.

        Raises
        ------
        GraphError
            Flows within flows without end; something was made and is mentioned nowhere. Every
            mistake is told with file and line.
        """
        if self._depth > DEEPEST:
            raise GraphError(
                f"{self.graph!r}: flows are called within each other over {DEEPEST} deep; for "
                "recursion let a task return flow.s(...)"
            )
        token = TRACE.set(self)
        try:
            value = func(*args, **kwargs)
        except (GraphError, ConfigError) as err:
            _locate(err, _line_in(err.__traceback__))
            raise
        except ValueError as err:
            self._refuse_count(err)
            raise
        finally:
            TRACE.reset(token)
        code = getattr(func, "__code__", None)
        try:
            self._check_value(value)
        except GraphError as err:
            _locate(err, f" ({code.co_filename}, line {code.co_firstlineno})" if code else "")
            raise
        self.graph.returns(value)
        self._refuse_forgotten(value)
        self.graph._wheres = {key: where for key, (_, where) in self._made.items()}

    # --- what a call gives -----------------------------------------------------------------------

    def add(self, make: Callable[[], Composition[Any]]) -> FlowNode:
        """Make a node of what a call inside the flow means.

        Raises
        ------
        GraphError
            It is wrong; the text has file and line of the call.
        """
        part = make()
        self._check_part(part)
        self._made.pop(id(part), None)
        node = cast(FlowNode, self.graph.add(part))
        self.graph._entries[node._name].where = users_code()
        return node

    def _check_part(self, part: Composition[Any]) -> None:
        args: tuple[Any, ...] = ()
        kwargs: Mapping[str, Any] = {}
        if isinstance(part, Branch | First | Sleep | WaitFor):
            return  # what they are given was looked at one by one
        if isinstance(part, Map):
            item = part._item
            self.check((*part._elements, *(part._lists or ())))
            if isinstance(item, Signature):
                self._belongs(item._spec)
                args, kwargs = item._args, item._kwargs
        else:
            spec, args, kwargs = cast(Any, part)._called()
            self._belongs(spec)
            kind = "task" if isinstance(part, Signature) else "flow"
            check_call(spec, args, kwargs, who=f"{kind} {spec.name}")
        self.check((*args, *kwargs.values()))

    def _check_value(self, value: Any) -> None:
        self.check((value,))
        todo = [value]
        while todo:
            x = todo.pop()
            kind = type(x)
            if kind in (list, tuple, dict):
                todo.extend(x.values() if kind is dict else x)
            elif not isinstance(x, Part) and not plain(x):
                raise GraphError(
                    f"{self.graph!r} returns a {kind.__name__}; only numbers, short texts, True, "
                    "False and None can stand beside nodes: let a task return it"
                )

    def _belongs(self, spec: TaskSpec) -> None:
        if self.graph._submitter is None:  # an arm outside of flows
            return
        if spec.submitter is not self.graph._submitter:
            raise GraphError(f"{spec.name} belongs to another app than {self.graph!r}")

    def check(self, values: Iterable[Any]) -> None:
        """Check that what stands in arguments is of this flow.

        Raises
        ------
        NodeUsedAsValue
            A node of another flow, or one within an object where no one finds it.
        BindingError
            A handle of something that was started elsewhere.
        """
        todo = list(values)
        seen: set[int] = set()
        while todo:
            x = todo.pop()
            kind = type(x)
            if kind in (str, int, float, bool, bytes, type(None)) or id(x) in seen:
                continue
            seen.add(id(x))
            if isinstance(x, Reference):
                self.graph._mention(x)
            elif kind in (list, tuple):
                todo.extend(x)
            elif kind is dict:
                if has_parts(x.keys()):
                    raise NodeUsedAsValue(
                        "a node cannot be the key of a dict: its value is not known"
                    )
                todo.extend(x.values())
            elif isinstance(x, Started):
                raise BindingError(
                    f"{x!r} was started outside of {self.graph!r}, so it is no node "
                    "of it; call its task in the flow, or pass its value"
                )
            elif not isinstance(x, Part):
                what = Reference if isinstance(x, FunctionType) else Part
                for inside in _held(x):
                    if isinstance(inside, what):
                        raise NodeUsedAsValue(
                            f"{inside!r} stands inside a {kind.__name__}: its value "
                            "is not known while the graph is built, and nodes are found in lists, "
                            "tuples and dicts only; make the object in a task"
                        )

    # --- what must not be ------------------------------------------------------------------------

    def refuse(self, what: str) -> NoReturn:
        """Raise the error of something that cannot be done while a flow is built."""
        raise GraphError(
            f"{what} while {self.graph!r} is built: its function only says what is "
            "to be done, and nothing has run yet; do it in a task, or before the flow is called"
        )

    def unpacks(self, node: FlowNode, outputs: int) -> None:
        """Remember that a node is taken apart here: Python tells wrong counts without naming it."""
        self._unpacked = node, outputs, users_code()

    def _refuse_count(self, err: ValueError) -> None:
        """Raise the error of a node taken apart into a wrong number, if that is what `err` is."""
        if self._unpacked is None or "values to unpack" not in str(err):
            return
        node, outputs, where = self._unpacked
        if where == _line_in(err.__traceback__):
            raise NodeUsedAsValue(
                f"{node!r} is taken apart into another number than its task says by "
                f"outputs={outputs}{where}: {err}"
            ) from None

    def made(self, part: Part) -> None:
        """Remember a composition that was made, so that none is forgotten."""
        self._made[id(part)] = (part, users_code())

    def copied(self, part: Part) -> None:
        """Forget a composition of which a changed copy is made."""
        self._made.pop(id(part), None)

    def _refuse_forgotten(self, value: Any) -> None:
        if not self._made:
            return
        used = {id(x) for x in walk((self.graph, value))}
        for part, where in self._made.values():
            if id(part) not in used:
                raise GraphError(
                    f"{part!r}{where} was made in {self.graph!r} and is mentioned nowhere, so it "
                    "would never run; in a flow call the task: clean(x), not clean.s(x); or pass "
                    "it on as an argument"
                )


def _locate(err: Exception, where: str) -> None:
    """Add file and line to an error that has none."""
    if not _LOCATED.search(str(err)):
        err.args = (f"{err}{where}",)


def _line_in(trace: TracebackType | None) -> str:
    """The last line outside of flowq."""
    where = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith(_HERE):
            where = f" ({code.co_filename}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return where


def _held(x: Any) -> Iterator[Any]:
    """Go through what an object holds, one level deep."""
    if isinstance(x, set | frozenset | list | tuple):
        yield from x
    elif isinstance(x, dict):
        yield from x.values()
    elif dataclasses.is_dataclass(x) and not isinstance(x, type):
        yield from (getattr(x, f.name, None) for f in dataclasses.fields(x))
    elif isinstance(x, FunctionType):
        yield from (c.cell_contents for c in x.__closure__ or () if c != CellType())  # not empty
        yield from (*(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values())
    elif isinstance(x, functools.partial):
        yield from (*x.args, *x.keywords.values())
    elif not isinstance(x, type):
        yield from getattr(x, "__dict__", {}).values()
