# SPDX-License-Identifier: MIT
"""Messages that carry plans: of maps whose list is not known yet, and of branches.

A worker fills in a plan when the list or the condition is there; see `flowq.fragment`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from flowq.errors import PayloadTooLarge
from flowq.fragment import BRANCH, MAP
from flowq.lower.messages import Messages
from flowq.lower.templates import Captured, names_nodes
from flowq.message import MAX_PAYLOAD, Message, Template
from flowq.node import Body, Node, Told
from flowq.plan import Kind
from flowq.policy import OPTIONS

__all__ = ["MakePlan", "branch_message", "map_message"]

MakePlan: TypeAlias = "Callable[[Body, Node | None, Captured, str], bytes]"
"""Gives the encoded plan of a body: of an item of the map that is named, or of an arm.

What it takes from outside is added to the captures; names in it will follow the text.
"""


def map_message(
    messages: Messages, node: Node, path: str, priority: int, root: Body, make_plan: MakePlan
) -> Message:
    """Make the message of a map that becomes its items when its list is there.

    Parameters
    ----------
    messages : Messages
    node : Node
    path : str
        Its name in the run.
    priority : int
    root : Body
        The nodes of the whole graph.
    make_plan : MakePlan

    Raises
    ------
    PayloadTooLarge
        The plan of an item is too large to travel.
    """
    assert node.inner is not None and node.lists is not None
    captured: Captured = {}
    plan = make_plan(node.inner, node, captured, path)
    pool: list[Any] = []
    args: list[Any] = []
    edges: dict[int | str, Any] = {}
    for k, given in enumerate(node.lists):
        known = not (type(given) is Told or names_nodes(given))
        args.append(given if known else None)
        if not known:
            edges[k] = given
    options: dict[str, Any] = {"max_width": node.width}
    for word in ("tolerate", "need", "max_parallel", "deadline"):
        if node.options.get(word):
            options[word] = node.options[word]
    if node.chunk:
        options["chunksize"] = node.chunk
    task = next(_tasks(node.inner), None) or next(_tasks(root))  # what gives the list at least
    bindings = messages.templates.bindings(edges, pool)
    captures = _captures(messages, captured, pool)
    message = Message(
        messages.id(node.index),
        MAP,
        messages.packing.payload(path, MAP, args, options, pool),
        messages.packing.settings(task).fields[0],  # whoever serves its items makes them
        priority,
        name=path,
        bindings=bindings,
        plans=(plan,),
        captures=captures,
    )
    return _checked(message)


def branch_message(
    messages: Messages, node: Node, path: str, priority: int, make_plan: MakePlan
) -> Message:
    """Make the message of a branch, which becomes the arm taken when its condition is there.

    Parameters
    ----------
    messages : Messages
    node : Node
    path : str
        Its name in the run.
    priority : int
    make_plan : MakePlan

    Raises
    ------
    PayloadTooLarge
        The plans of its arms are too large to travel.
    """
    assert node.inner is not None and node.arms is not None
    plans: list[bytes] = []
    captured: Captured = {}
    arms: list[tuple[Any, bool, int | None, Any]] = []
    for arm in node.arms:
        inner = arm.node.inner
        assert inner is not None
        if inner.nodes or names_nodes(inner.value):
            arms.append((arm.key, arm.default, len(plans), None))
            plans.append(make_plan(inner, None, captured, f"{path}/"))
        else:
            arms.append((arm.key, arm.default, None, inner.value))
    pool: list[Any] = []
    bindings = messages.templates.bindings(node.edges, pool)
    captures = _captures(messages, captured, pool)
    near = (*_tasks(node.inner), *(n for n in node.reads if n.kind is Kind.TASK))
    task = next(iter(near), None)
    message = Message(
        messages.id(node.index),
        BRANCH,
        messages.packing.payload(path, BRANCH, node.args, {"arms": arms}, pool),
        # whoever serves what it becomes takes the arm
        messages.packing.settings(task).fields[0] if task else OPTIONS["queue"].default,
        priority,
        name=path,
        bindings=bindings,
        plans=tuple(plans),
        captures=captures,
    )
    return _checked(message)


def _captures(messages: Messages, captured: Captured, pool: list[Any]) -> tuple[Template, ...]:
    return tuple([messages.templates.of(what, pool) for _, what in captured.values()])


def _checked(message: Message) -> Message:
    size = sum(map(len, message.plans))
    if size > MAX_PAYLOAD:
        raise PayloadTooLarge(
            f"what node {message.name!r} may become takes {size / 2**20:.0f} MiB, over the limit "
            f"of {MAX_PAYLOAD / 2**20:.0f} MiB; let a task return it, or give long lists"
        )
    return message


def _tasks(body: Body) -> Iterator[Node]:
    """Go through the tasks in a body, in what stands inside it too."""
    todo = [body]
    while todo:
        for node in todo.pop().nodes:
            if node.kind is Kind.TASK:
                yield node
            elif node.inner is not None:
                todo.append(node.inner)
