# SPDX-License-Identifier: MIT
"""From a graph to a plan: names, rules and priorities become rows of numbers.

Rows lie in topological order, each expansion before what is inside it; a map's items lie next to
each other, and their insides behind them. Nothing past this module can tell a chain from a DAG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from flowq.calls import Settings, pack
from flowq.errors import GraphError
from flowq.facts import (
    check_tasks,
    named_and_forgiven,
    priorities,
    read_by_others,
    size_of,
    sizes,
)
from flowq.graph import Graph
from flowq.message import (
    NO_NODE,
    Binding,
    Const,
    Items,
    Lit,
    Message,
    Ref,
    Seq,
    Template,
    encode_template,
    new_id,
    node_id,
)
from flowq.message import Mapping as MappingTemplate
from flowq.node import Body, Element, Node, Take, is_plain_map, leaves
from flowq.plan import Bits, Kind, NodeRow, Plan, Ranges, ranges_of
from flowq.policy import OPTIONS
from flowq.states import Rule
from flowq.wiring import Submitter, TaskSpec

__all__ = ["lower"]

_ALONE: Final = Rule(0, 0, 0, 0, 0)
MAX_NAME: Final = 200
_WORD: Final = 1 << 63  # MessagePack's integers
_SHORT: Final = 100  # characters of a text that the envelope carries; the payload has a limit


def lower(graph: Graph, submitter: Submitter) -> Plan:
    """Turn a checked graph into a plan that a store can be given.

    Raises
    ------
    UnknownTask
        A task of the graph is not registered with the app.
    PayloadError, PayloadTooLarge
        Arguments cannot travel; the text names the node.
    """
    return _Lowering(graph, submitter).plan()


class _Lowering:
    """One graph on its way to a plan."""

    def __init__(self, graph: Graph, submitter: Submitter) -> None:
        self._graph = graph
        self._serializer = submitter.serializer
        self._run = new_id()
        self._options = {**submitter.run_defaults, **graph.options}
        self._settings: dict[Any, Settings] = {}
        self._payloads: dict[Any, bytes] = {}
        self._rows: list[NodeRow] = []
        bodies = list(graph.bodies())
        check_tasks(bodies, submitter)
        self._sizes = sizes(bodies)
        self._named, self._forgiven = named_and_forgiven(bodies)
        self._priorities = priorities(bodies, graph.options.get("priority") or 0)
        self._read = read_by_others(bodies)

    def plan(self) -> Plan:
        """Make the rows."""
        self._rows = [None] * size_of(self._graph.root, self._sizes)  # type: ignore[list-item]
        self._graph.root.index = 0
        name = self._graph.name
        self._emit(name)
        ttl, failed = (
            round(self._options.get(k, OPTIONS[k].default) * 1000)
            for k in ("result_ttl", "failed_ttl")
        )
        return Plan(self._run, name, self._rows, ttl, failed)

    # --- rows ------------------------------------------------------------------------------------

    def _emit(self, name: str) -> None:
        """Make the rows of the root and of all inside it.

        The nodes of a map's body stand for the item that is being made, so one item is finished,
        with all inside it, before the next begins: a stack, not a queue.
        """
        root = self._graph.root
        todo: list[tuple[Any, ...]] = [(self._expansion, root, NO_NODE, "", name, "")]
        while todo:
            step, *args = todo.pop()
            todo.extend(reversed(step(*args)))

    def _expansion(
        self, node: Node, owner: int, path: str, item_path: str, prefix: str
    ) -> list[tuple[Any, ...]]:
        """Make the row of an expansion; gives what is to be made next, in order.

        `item_path` is what names of items begin with, `prefix` what names of inner nodes do.
        """
        body, at = node.inner, node.index
        assert body is not None
        if node.items is None:
            self._lay_out(body, at + 1)
            self._put(node, owner, path, *_contents(body))
            return [(self._body, body, at, prefix)]
        count, first = len(node.items), at + 1
        value: Template = Items(first, count, True) if count else Seq(())
        all_items = ((first, count),) if count else ()
        self._put(node, owner, path, all_items, all_items, value)
        if is_plain_map(node):
            self._plain_items(node, body.nodes[0], item_path)
            return []
        inside, behind = self._sizes[body], first + count
        return [
            (self._item, node, i, behind + i * inside, f"{item_path}[{i}]") for i in range(count)
        ]

    def _item(self, source: Node, i: int, inside: int, path: str) -> list[tuple[Any, ...]]:
        """Make the row of one item of a map of graphs."""
        body, at = source.inner, source.index + 1 + i
        assert body is not None and source.items is not None
        source.item = (i, source.items[i])
        self._lay_out(body, inside)
        entries, within, value = _contents(body)
        self._rows[at] = NodeRow(
            path,
            Kind.EXPANSION,
            source.index,
            _ALONE,
            entries=entries,
            inner=len(body.nodes),
            value=encode_template(value),
            body=within,
        )
        return [(self._body, body, at, f"{path}/")]

    def _lay_out(self, body: Body, at: int) -> None:
        for node in body.nodes:
            node.index = at
            at += size_of(node, self._sizes)

    def _put(
        self, node: Node, owner: int, path: str, entries: Ranges, body: Ranges, value: Template
    ) -> None:
        self._rows[node.index] = NodeRow(
            path,
            Kind.EXPANSION,
            owner,
            node.rule,
            _ranges(node.parents),
            _ranges(node.children),
            entries=entries,
            inner=sum(n for _, n in body),
            value=encode_template(value),
            bits=self._bits(node),
            body=body,
        )

    def _body(self, body: Body, owner: int, prefix: str) -> list[tuple[Any, ...]]:
        """Make the rows of the nodes of a body."""
        todo: list[tuple[Any, ...]] = []
        place = body.owner.item[0] if body.owner is not None and body.owner.items else None
        for node in body.nodes:
            path = _checked(prefix + node.name)
            if node.inner is not None:
                todo.append((self._expansion, node, owner, path, path, f"{path}/"))
            elif node.kind is Kind.TASK:
                self._task(node, owner, path, place, self._bits(node))
            else:
                self._rows[node.index] = NodeRow(
                    path,
                    node.kind,
                    owner,
                    node.rule,
                    _ranges(node.parents),
                    _ranges(node.children),
                    bits=self._bits(node),
                )
        return todo

    def _bits(self, node: Node) -> int:
        bits = Bits.FORGIVEN if node in self._forgiven else 0
        return bits | (Bits.NAMED if node in self._named else 0)

    def _task(self, node: Node, owner: int, path: str, place: int | None, bits: int) -> None:
        """Make the row of a task."""
        spec, args, edges = node.spec, node.args, node.edges
        assert spec is not None
        if node.elements:
            args, edges = _with_elements(node)
        settings = self._settings_of(node)
        pool: list[Any] = []
        bindings: tuple[Binding, ...] = ()
        reads: Ranges = ()
        if edges:
            bindings = tuple([Binding(to, _template(v, pool)) for to, v in edges.items()])
            reads = _ranges(
                node.reads
                if edges is node.edges
                else [n for value in edges.values() for n in leaves(value)]
            )
        message = Message(
            node_id(self._run, node.index),
            spec.name,
            self._payload(path, spec, args, node.kwargs, pool),
            *settings.fields,
            path,
            bindings,
            settings.policy,
            place,
            settings.prefetch,
        )
        self._rows[node.index] = NodeRow(
            path,
            Kind.TASK,
            owner,
            node.rule,
            _ranges(node.parents),
            _ranges(node.children),
            reads,
            message,
            bits=bits,
        )

    def _settings_of(self, node: Node) -> Settings:
        assert node.spec is not None
        # nodes of one signature, and all without options, share the mapping
        key = (node.spec, id(node.options), self._priorities[node], node in self._read)
        found = self._settings.get(key)
        if found is None:
            found = Settings(node.spec, node.options, self._priorities[node], node in self._read)
            self._settings[key] = found
        return found

    def _payload(
        self, path: str, spec: TaskSpec, args: list[Any], kwargs: Mapping[str, Any], pool: list[Any]
    ) -> bytes:
        what = f"arguments of node {path!r} (task {spec.name})"
        if pool:
            return pack(self._serializer, (tuple(args), kwargs, pool), what)
        if not kwargs and all(a is None for a in args):  # what a chain's links have in common
            key = len(args)
            if key not in self._payloads:
                self._payloads[key] = pack(self._serializer, (tuple(args), {}), what)
            return self._payloads[key]
        return pack(self._serializer, (tuple(args), kwargs), what)

    def _plain_items(self, source: Node, node: Node, item_path: str) -> None:
        """Make the rows of a map's items where each is one task: the quick way for many."""
        spec, items, rows = node.spec, source.items, self._rows
        assert spec is not None and items is not None
        at, first = source.index, source.index + 1
        _checked(f"{item_path}[{len(items)}]")
        if len(node.elements) > 1 or source.dynamic:
            for i, item in enumerate(items):
                source.item = (i, item)
                node.index = first + i
                self._task(node, at, f"{item_path}[{i}]", i, 0)
            return
        settings = self._settings_of(node)
        run, name, serializer = self._run, spec.name, self._serializer
        pool: list[Any] = []
        bindings = tuple([Binding(to, _template(v, pool)) for to, v in node.edges.items()])
        reads = _ranges(node.reads)
        fields, policy, prefetch = settings.fields, settings.policy, settings.prefetch
        (element,) = node.elements
        given, kwargs, rule, kind = element.given, node.kwargs, node.rule, Kind.TASK
        before = tuple(node.args[: element.at])
        after = tuple(node.args[element.at + _uniform(element) :])
        for i, item in enumerate(items):
            path = f"{item_path}[{i}]"
            args = (*before, *given(item), *after)
            payload = pack(
                serializer,
                (args, kwargs, pool) if pool else (args, kwargs),
                f"arguments of node {path!r} (task {name})",
            )
            index = first + i
            message = Message(
                node_id(run, index), name, payload, *fields, path, bindings, policy, i, prefetch
            )
            rows[index] = NodeRow(path, kind, at, rule, (), (), reads, message)


# --- pieces --------------------------------------------------------------------------------------


def _ranges(nodes: Sequence[Node]) -> Ranges:
    if len(nodes) < 2:  # most nodes of most graphs
        return ((nodes[0].index, 1),) if nodes else ()
    return ranges_of([n.index for n in nodes])


def _checked(path: str) -> str:
    if len(path) > MAX_NAME:
        raise GraphError(f"the name {path!r} is over {MAX_NAME} characters; give shorter names")
    return path


def _contents(body: Body) -> tuple[Ranges, Ranges, Template]:
    """Where a body begins, all nodes in it, and its value."""
    entries = _ranges([n for n in body.nodes if not n.parents])
    return entries, _ranges(body.nodes), _template(body.value, [])


def _uniform(element: Element) -> int:
    """How many places an element has among its task's arguments."""
    if not element.widths:
        return 1
    return next(iter(element.widths)) if len(element.widths) == 1 else 0


def _with_elements(node: Node) -> tuple[list[Any], dict[int | str, Any]]:
    """Give the arguments and edges of a task in the item that is being made."""
    args, edges = list(node.args), node.edges
    for element in node.elements:
        given = element.given(element.source.item[1])
        args[element.at : element.at + _uniform(element)] = given
        if element.source.dynamic:
            edges = dict(edges)
            for k, value in enumerate(given, element.at):
                if any(True for _ in leaves(value)):
                    edges[k] = value
                    args[k] = None
    return args, edges


def _template(value: Any, pool: list[Any]) -> Template:
    """Give the template of a structure; what is no node goes to the payload's pool.

    Equal shapes give equal templates: a list of nodes that lie next to each other is `Items`.
    """
    kind = type(value)
    if kind is Node:
        return Ref(value.index)
    if kind is Take:
        return Ref(value.node.index, value.path)
    if kind is list or kind is tuple:
        if kind is list and value and all(type(x) is Node for x in value):
            first = value[0].index
            if all(x.index == first + k for k, x in enumerate(value)):
                return Items(first, len(value))
        return Seq(tuple([_template(x, pool) for x in value]), kind is tuple)
    if kind is dict:
        return MappingTemplate(
            tuple([(_template(k, pool), _template(v, pool)) for k, v in value.items()])
        )
    if (
        value is None
        or kind in (bool, float)
        or (kind is int and -_WORD <= value < _WORD)
        or (kind is str and len(value) <= _SHORT)
    ):
        return Const(value)
    pool.append(value)
    return Lit(len(pool) - 1)
