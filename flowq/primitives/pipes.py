# SPDX-License-Identifier: MIT
"""What is piped into nodes, and the elements of maps, find their parameters."""

from __future__ import annotations

from copy import copy
from typing import Any

from flowq.binding import misfit, params_of
from flowq.errors import BindingError, Failure, GraphError
from flowq.node import Body, Element, Maybe, Node, Slot, Take, Told, leaves
from flowq.serializer import short_repr

__all__ = ["bind", "bind_task", "check", "place_of", "places"]


def bind(node: Node) -> None:
    """Bind what is piped into a node, elements of maps included, to free parameters.

    An expansion passes it on to where it begins; owners come before what is inside them.
    """
    inner = node.inner
    if inner is None:
        if node.pipes and node.spec is None:
            raise GraphError(
                f"{node.who}: a value is piped into it, and it takes none; for order alone write >>"
            )
        if node.pipes:
            bind_task(node)
        return
    given = list(node.pipes)
    if node.lists is not None and not node.lists:
        if not given:
            raise BindingError(
                f"{node.who}: each() maps over a list that is piped in, but nothing is; write "
                "a.s() | b.each(), or b.map(xs)"
            )
        node.lists = [_list_of(node, given.pop(0))]
    if node.items is not None and node.zipped[0]:
        given.insert(0, Element(node))  # bound arguments, the element, then what is piped
    if not given:
        return
    told = all(type(value) is Told for value in given)
    if inner.closed:
        if told:
            return
        raise GraphError(f"{node.who}: {inner.closed}")
    heads = inner.heads or _entries(inner)
    if not inner.nodes:  # as with an empty group, order is all that is left
        node.order.extend(leaves(node.pipes))
        return
    if not heads and told:
        return
    if not heads:
        raise BindingError(
            f"{node.who}: nothing in it takes the value that is piped into it; "
            "for order alone write >>"
        )
    for head in heads:
        for value in given:
            head.pipes.append(copy(value) if type(value) is Element else value)


def _list_of(node: Node, value: Any) -> Any:
    """Give what is piped into ``each()``; within a map, one element of that map is the list."""
    if type(value) is Told and not value.value:
        raise GraphError(
            f"{node.who}: it is told of a Failure, which is no list to map over; let a task take "
            "it that returns a list: task.s() | b.each()"
        )
    if type(value) is not Element:
        return value
    if value.source.zipped[0] > 1 or value.source.unpack:
        raise GraphError(
            f"{node.who}: each() maps over one list, so each element around it has to be that "
            "list; map over one list of lists, without starmap"
        )
    return place_of(value, 0)


def bind_task(node: Node) -> None:
    """Bind what is piped into a task, or a flow, to its free parameters."""
    assert node.spec is not None
    params = params_of(node.spec)
    names = [*node.kwargs, *(k for k in node.edges if isinstance(k, str))]
    for value in node.pipes:
        if node.elements and node.elements[-1].open:
            raise GraphError(
                f"{node.who}: the tuples that it is mapped over may differ in length, so it is "
                "not known where the next value goes; use tuples of one length, or say "
                "unpack=False"
            )
        if type(value) is Element:
            _bind_element(node, value, params.room(len(node.args), names))
            continue
        to = params.free(len(node.args), names)
        if to is None and type(value) is Told:
            continue
        if to is None:
            raise misfit(
                node.who,
                node.spec,
                "a value is piped into it, but no parameter is free; for order alone write >>",
            )
        if isinstance(to, int):
            node.args.append(None)
        else:
            names.append(to)
        node.edges[to] = value


def _bind_element(node: Node, element: Element, room: float) -> None:
    source = element.source
    assert source.items is not None
    element.at = len(node.args)
    if source.lists is not None:
        _bind_open(node, element, room)
        return
    element.spread = room > 1 if source.unpack is None else source.unpack
    for i, item in enumerate(source.over):
        given = element.given(item)
        found = element.of(item)
        if isinstance(found, Failure):
            continue  # its item is blocked
        if source.unpack and type(found) not in (tuple, list):
            raise GraphError(
                f"{source.who}: item {i} is a {type(found).__name__}, not a tuple; "
                "starmap takes tuples of arguments"
            )
        element.widths.add(len(given))
    if len(element.widths) < 2:
        node.args.extend([None] * next(iter(element.widths), 1))
    node.elements.append(element)


def _bind_open(node: Node, element: Element, room: float) -> None:
    """Bind the element of a map whose list is not known yet."""
    count, _ = element.source.zipped
    if count > 1:
        node.args.extend([None] * count)  # one place for an element of each
    elif node.late is not None and element.source.unpack:
        raise GraphError(
            f"{node.who}: it is not known how many arguments a tuple has that comes with the "
            "run, and a flow is built once for all; map over several lists, or take the tuple "
            "apart in the flow: item[0]"
        )
    elif node.late is None and (
        element.source.unpack or (element.source.unpack is None and room > 1)
    ):
        element.spread = True
    else:
        node.args.append(None)
    node.elements.append(element)


def places(element: Element) -> int:
    """How many arguments an element fills that is the same for all items."""
    if element.source.lists is not None:
        return element.source.zipped[0]
    return next(iter(element.widths), 1)


def place_of(element: Element, k: int) -> Slot | Take:
    """What fills argument number `k` of those that an element fills, in a graph built once."""
    source = element.source
    count, named = source.zipped
    if named and count == 1 and element.spread:
        return Take(Slot(source, 0), (k,))
    return Slot(source, k if element.spread or count + named > 1 else None)


def check(node: Node) -> None:
    """Check that arguments fit the task."""
    if node.race:
        _check_race(node)
    if node.spec is None:
        return
    params = params_of(node.spec)
    names = [*node.kwargs, *(k for k in node.edges if isinstance(k, str))]
    last = node.elements[-1] if node.elements else None
    if last is not None and last.spread and last.source.lists is not None:
        if params.room(len(node.args), names) < 1:
            raise misfit(node.who, node.spec, params.problem(len(node.args) + 1, names))
        return  # what an element has is checked when its item is made
    widths = last.widths if last else ()
    for more in widths if len(widths) > 1 else (0,):
        count = len(node.args) + more
        if not params.fits(count, names):
            raise misfit(_which(node, more), node.spec, params.problem(count, names))


def _check_race(node: Node) -> None:
    """Check what a race is between, and let optional members count as what they are."""
    raced: dict[Node, None] = {}
    for to, value in node.edges.items():
        member = value.of if type(value) is Maybe else value
        if type(member) is not Node:
            raise GraphError(
                f"{node.who}: it is between whole steps; for an item of a value, or for several "
                "steps at once, let a task give it"
            )
        if member in raced:
            raise GraphError(f"{node.who}: {member.who} is named twice")
        raced[member] = None
        node.edges[to] = member
    if node.order:
        raise GraphError(
            f"{node.who}: something is to come before it; say it on the steps that it is between"
        )


def _which(node: Node, width: int) -> str:
    """A node as errors call it; where the elements of a map differ, the first of that width."""
    element = node.elements[-1] if node.elements else None
    if element is None or not element.widths:
        return node.who
    source, wanted = element.source, width or next(iter(element.widths))
    items = enumerate(source.over)
    i, item = next((i, x) for i, x in items if len(element.given(x)) == wanted)
    name = source.name or source.label or source.base
    which = f"element {i} of {name}," if source.chunk else f"{name}[{i}], of"
    return f"{node.who}: {which} {short_repr(item)}"


def _entries(body: Body) -> list[Node]:
    """The nodes of a DAG that nothing feeds."""
    return [n for n in body.nodes if not (n.edges or n.order or n.pipes)]
