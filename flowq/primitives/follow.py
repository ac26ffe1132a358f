# SPDX-License-Identifier: MIT
"""What runs because of how something ended: handlers, fallbacks, alarms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from flowq.errors import GraphError
from flowq.node import Body, Node, Told, is_plain_map
from flowq.plan import Kind, Phase, When

if TYPE_CHECKING:
    from flowq.primitives.build import Builder
    from flowq.primitives.signature import Signature

__all__ = ["FOLLOWED", "OF_GRAPHS", "OF_NODES", "alarms", "call_alike", "follow", "handlers"]

HANDLERS: Final = {
    "on_success": (Phase.HANDLERS, When.SUCCESS, "on_success/"),
    "on_failure": (Phase.HANDLERS, When.FAILED, "on_failure/"),
    "finally_": (Phase.FINALLY, When.ALWAYS, "finally/"),
}
"""Options of graphs that say what runs after them: when, for which outcome, under which path."""
OF_NODES: Final = frozenset(("failure_policy", "default", "fallback", "on_error"))
"""Options that say what the failure of a node means to what is around it."""
OF_GRAPHS: Final = frozenset((*HANDLERS, "node_failure_policy", "deadline", "atomic"))
"""Options that say how a graph treats failures inside it, what runs after it, how it is bound."""
FOLLOWED: Final = frozenset((*HANDLERS, "node_failure_policy", "fallback", "on_error"))
"""Options of nodes that something follows from."""


def follow(build: Builder, node: Node) -> None:
    """Place what runs because of how a node ended."""
    inner = node.inner
    graph = inner if inner is not None and node.items is None and node.arms is None else None
    if graph is not None:
        handlers(build, node, graph, node.options)
    fallback = node.options.get("fallback")
    if fallback is not None:
        group = Body(node)
        group.phase, group.when, group.path = Phase.FALLBACK, When.FAILED, "fallback/"
        if not hasattr(type(fallback), "put"):
            build.add_body(group)
            _alike(build, node, group, fallback.s())
        else:
            _place(build, group, fallback, Told(node))
        if graph is not None:
            graph.later.append(group)
        else:
            node.later = [group]
    on_error = node.options.get("on_error")
    if on_error is not None:
        alarm = Body(node)
        alarm.phase, alarm.path, alarm.about = Phase.HANDLERS, "on_error/", node
        _place(build, alarm, on_error, Told(node))
        node.alarms = [alarm]


def handlers(build: Builder, node: Node, graph: Body, options: Mapping[str, Any]) -> None:
    """Place what runs after a graph, whose body is given."""
    graph.policy = options.get("node_failure_policy", "")
    for word, (phase, when, path) in HANDLERS.items():
        part = options.get(word)
        if part is None:
            continue
        group = Body(node)
        group.phase, group.when, group.path = phase, when, path
        told = None if phase is Phase.FINALLY else Told(node, value=when is When.SUCCESS)
        _place(build, group, part, told)
        graph.later.append(group)


def _place(build: Builder, group: Body, part: Any, told: Told | None) -> None:
    from flowq.primitives.base import as_part  # which imports what imports this

    build.add_body(group)
    placed = as_part(part)
    build.keep.append(placed)
    made = build.place(placed, group)
    group.value = made.value
    if told is not None and not made.closed:
        for head in made.heads:
            head.pipes.append(told)


def _alike(build: Builder, node: Node, group: Body, task: Signature[Any]) -> None:
    """Add a task that is called as the node was; with what, is known once all is bound."""
    name = task._base()
    if node.spec is None:
        raise GraphError(
            f"{node.who}: fallback={name} is a task, to be called with the arguments of what "
            f"failed, and this has none; write a signature: fallback={name}.s(...)"
        )
    spec, *_ = task._called()
    group.value = made = build.node(Kind.TASK, group, name, spec=spec, options=task._options)
    made.late = node


def call_alike(node: Node) -> None:
    """Give a fallback the arguments of the node that it stands in for."""
    source = node.late
    node.late = None
    node.args, node.kwargs = list(source.args), dict(source.kwargs)
    node.edges, node.elements = dict(source.edges), list(source.elements)


def alarms(nodes: Iterable[Node]) -> None:
    """Let alarms stand where what they are about does, now that this is known.

    Those about an item of a map stay with the item.
    """
    for node in nodes:
        owner = node.body.owner
        if not node.alarms or owner is None:
            continue
        if node.body.phase is not Phase.BODY:
            raise GraphError(
                f"{node.who}: on_error= does not go on what runs after others; its failure is "
                "shown beside the outcome"
            )
        if is_plain_map(owner):
            for alarm in node.alarms:
                alarm.owner = owner
            continue
        for alarm in node.alarms:
            alarm.owner = owner
            node.body.later.append(alarm)
