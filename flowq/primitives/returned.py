# SPDX-License-Identifier: MIT
"""A graph that a task's body returned: what its node becomes."""

from __future__ import annotations

from typing import Any

from flowq.errors import GraphError
from flowq.graph import Graph
from flowq.lower import lower_fragment
from flowq.node import Body
from flowq.plan import NodeRow
from flowq.primitives.build import Builder, Fragment, Part
from flowq.wiring import Submitter

__all__ = ["returned_rows"]


class _Returned(Part):
    """A step, or a list, tuple or dict of steps and plain values, as the value of a graph."""

    __slots__ = ("_structure",)

    def __init__(self, structure: Any) -> None:
        self._structure = structure

    def put(self, build: Builder, body: Body) -> Fragment:
        return Fragment([], [], self._structure)


def returned_rows(value: Any, submitter: Submitter, name: str) -> list[NodeRow]:
    """Give the fragment that the node of a task becomes whose body returned steps.

    Parameters
    ----------
    value : object
        A signature, chain, group, map or DAG, or a list, tuple or dict of them.
    submitter : Submitter
        The app of the worker.
    name : str
        Of the node; empty for a task called alone.

    Raises
    ------
    GraphError
        The graph cannot run, or its tasks belong to another app.
    PayloadError
        Arguments cannot travel.
    """
    graph: Graph = Builder().build(_Returned(value), name or "run", {})
    for body in graph.bodies():
        for node in body.nodes:
            if node.spec is not None and node.spec.submitter is not submitter:
                raise GraphError(
                    f"{node.who} belongs to another app than the task that returned it"
                )
    return lower_fragment(graph, submitter, f"{name}/" if name else "")
