# SPDX-License-Identifier: MIT
"""From a graph to a plan: names, rules and priorities become rows of numbers.

Nothing past this package can tell a chain from a DAG. `facts` knows the whole graph, `templates`
how values are put together, `messages` what travels to workers, `carriers` those messages that
carry plans of their own, and `rows` makes the plan.
"""

from __future__ import annotations

from flowq.graph import Graph
from flowq.lower.facts import Facts
from flowq.lower.rows import Rows
from flowq.message import new_id
from flowq.plan import NodeRow, Plan
from flowq.policy import OPTIONS
from flowq.wiring import Submitter

__all__ = ["lower", "lower_fragment"]


def lower(graph: Graph, submitter: Submitter) -> Plan:
    """Turn a checked graph into a plan that a store can be given.

    Raises
    ------
    UnknownTask
        A task of the graph is not registered with the app.
    PayloadError, PayloadTooLarge
        Arguments cannot travel; the text names the node.
    """
    facts, run = Facts(graph, submitter), new_id()
    rows = Rows.of(facts, run).graph(graph.root, graph.name)
    ttl, failed = (
        round(facts.options.get(k, OPTIONS[k].default) * 1000) for k in ("result_ttl", "failed_ttl")
    )
    return Plan(run, graph.name, rows, ttl, failed)


def lower_fragment(graph: Graph, submitter: Submitter, prefix: str) -> list[NodeRow]:
    """Turn a checked graph into the fragment that a node becomes.

    Parameters
    ----------
    graph : Graph
    submitter : Submitter
    prefix : str
        What the names of its nodes begin with: the node's own name and ``/``.

    Raises
    ------
    UnknownTask, PayloadError, PayloadTooLarge
        As `lower` does.
    """
    facts = Facts(graph, submitter)
    return Rows.of(facts).graph(graph.root, prefix.removesuffix("/"), prefix)
