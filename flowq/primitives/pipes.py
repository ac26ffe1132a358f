# SPDX-License-Identifier: MIT
"""What is piped into nodes, and the elements of maps, find their parameters."""

from __future__ import annotations

from copy import copy

from flowq.binding import misfit, params_of
from flowq.errors import BindingError, GraphError
from flowq.node import Body, Element, Node, leaves
from flowq.serializer import short_repr

__all__ = ["bind", "check"]


def bind(node: Node) -> None:
    """Bind what is piped into a node, elements of maps included, to free parameters.

    An expansion passes it on to where it begins; owners come before what is inside them.
    """
    inner = node.inner
    if inner is None:
        if node.pipes:
            _bind_task(node)
        return
    given = list(node.pipes)
    if node.items is not None:
        given.insert(0, Element(node))  # bound arguments, the element, then what is piped
    if not given:
        return
    if inner.closed:
        raise GraphError(f"{node.who}: {inner.closed}")
    heads = inner.heads or _entries(inner)
    if not inner.nodes:  # as with an empty group, order is all that is left
        node.order.extend(leaves(node.pipes))
        return
    if not heads:
        raise BindingError(
            f"{node.who}: nothing in it takes the value that is piped into it; "
            "for order alone write >>"
        )
    for head in heads:
        for value in given:
            head.pipes.append(copy(value) if type(value) is Element else value)


def _bind_task(node: Node) -> None:
    assert node.spec is not None
    params = params_of(node.spec)
    names = [*node.kwargs, *(k for k in node.edges if isinstance(k, str))]
    for value in node.pipes:
        if node.elements and len(node.elements[-1].widths) > 1:
            raise GraphError(
                f"{node.who}: the tuples that it is mapped over differ in length, so it is "
                "not known where the next value goes; use tuples of one length"
            )
        if type(value) is Element:
            _bind_element(node, value, params.room(len(node.args), names))
            continue
        to = params.free(len(node.args), names)
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
    element.spread = room > 1 if source.unpack is None else source.unpack
    for i, item in enumerate(source.items):
        given = element.given(item)
        if source.unpack and given is not item:
            raise GraphError(
                f"{source.who}: item {i} is a {type(item).__name__}, not a tuple; "
                "starmap takes tuples of arguments"
            )
        element.widths.add(len(given))
    if len(element.widths) < 2:
        node.args.extend([None] * (next(iter(element.widths)) if source.items else 1))
    node.elements.append(element)


def check(node: Node) -> None:
    """Check that arguments fit the task."""
    if node.spec is None:
        return
    params = params_of(node.spec)
    names = [*node.kwargs, *(k for k in node.edges if isinstance(k, str))]
    widths = node.elements[-1].widths if node.elements else ()
    for more in widths if len(widths) > 1 else (0,):
        count = len(node.args) + more
        if not params.fits(count, names):
            raise misfit(_which(node, more), node.spec, params.problem(count, names))


def _which(node: Node, width: int) -> str:
    """A node as errors call it; where the elements of a map differ, the first of that width."""
    element = node.elements[-1] if node.elements else None
    if element is None or not element.widths:
        return node.who
    source, wanted = element.source, width or next(iter(element.widths))
    items = enumerate(source.items or ())
    i, item = next((i, x) for i, x in items if len(element.given(x)) == wanted)
    name = source.name or source.label or source.base
    return f"{node.who}: {name}[{i}], of {short_repr(item)}"


def _entries(body: Body) -> list[Node]:
    """The nodes of a DAG that nothing feeds."""
    return [n for n in body.nodes if not (n.edges or n.order or n.pipes)]
