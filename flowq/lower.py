# SPDX-License-Identifier: MIT
"""From a graph to a plan: names, rules and priorities become rows of numbers.

Rows lie in topological order, each expansion before what is inside it; a map's items lie next to
each other, and their insides behind them. Nothing past this module can tell a chain from a DAG.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from flowq.calls import Settings, pack
from flowq.errors import GraphError, PayloadTooLarge
from flowq.facts import (
    check_tasks,
    named_and_forgiven,
    policies,
    priorities,
    read_by_others,
    size_of,
    size_of_item,
    sizes,
)
from flowq.fragment import BRANCH, MAP, plain, share_of
from flowq.graph import Graph
from flowq.message import (
    MAX_PAYLOAD,
    NO_NODE,
    Binding,
    Cap,
    Cause,
    Const,
    Data,
    Elem,
    Else,
    Items,
    Lit,
    Message,
    Ref,
    Seq,
    Template,
    encode_template,
    new_id,
    node_id,
    nodes_of,
)
from flowq.message import Mapping as MappingTemplate
from flowq.node import (
    Body,
    Element,
    Maybe,
    Node,
    Slot,
    Take,
    Told,
    alarms_of_items,
    has_slots,
    is_plain_map,
    leaves,
    spread_over,
)
from flowq.plan import (
    INNER,
    ROOT,
    Bits,
    Kind,
    Later,
    NodeRow,
    Phase,
    Plan,
    Ranges,
    When,
    encode_rows,
    indexes,
    ranges_of,
)
from flowq.policy import OPTIONS
from flowq.serializer import short_repr
from flowq.states import Rule
from flowq.wiring import Submitter

__all__ = ["lower", "lower_fragment"]

Captured: TypeAlias = "dict[Any, tuple[int, Node | Slot | Take]]"
"""What a plan takes from outside it, each with its place among the captures of the message."""
_ALONE: Final = Rule(0, 0, 0, 0, 0)
MAX_NAME: Final = 200
_POLICY_BITS: Final[dict[str, int]] = {
    "cancel": Bits.STOPS,
    "continue": Bits.COUNTS_AS_SUCCESS,
}
_ITEM_BITS: Final[dict[str, int]] = {"cancel": Bits.STOPS, "keep": Bits.FORGIVEN}


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
    return _Lowering(graph, submitter).fragment(prefix)


class _Lowering:
    """One graph on its way to a plan."""

    def __init__(self, graph: Graph, submitter: Submitter) -> None:
        self._graph = graph
        self._serializer = submitter.serializer
        self._run = new_id()
        self._first = ROOT
        self._options = {**submitter.run_defaults, **graph.options}
        self._settings: dict[Any, Settings] = {}
        self._payloads: dict[Any, bytes] = {}
        self._rows: list[NodeRow] = []
        self._above = ""
        bodies = list(graph.bodies())
        check_tasks(bodies, submitter)
        self._sizes = sizes(bodies)
        self._named, self._forgiven = named_and_forgiven(bodies)
        self._policies = policies(bodies)
        self._instead: dict[Node, Const | Data] = {}
        for node, policy in self._policies.items():
            if policy == "continue":
                self._instead[node] = self._known(node.options.get("default"), node)
        self._priorities = priorities(bodies, graph.options.get("priority") or 0)
        self._read = read_by_others(bodies)

    def plan(self) -> Plan:
        """Make the rows."""
        name = self._graph.name
        self._made(name)
        ttl, failed = (
            round(self._options.get(k, OPTIONS[k].default) * 1000)
            for k in ("result_ttl", "failed_ttl")
        )
        return Plan(self._run, name, self._rows, ttl, failed)

    def fragment(self, prefix: str) -> list[NodeRow]:
        """Make the rows of a graph that a node becomes; their names begin with `prefix`."""
        self._run, self._first = b"", INNER
        self._made("", prefix)
        return self._rows

    def _made(self, name: str, prefix: str = "") -> None:
        root = self._graph.root
        self._rows = [None] * size_of(root, self._sizes)  # type: ignore[list-item]
        root.index = self._first
        item_path = prefix.removesuffix("/") or name
        self._emit((self._expansion, root, NO_NODE, "", item_path, prefix))

    # --- rows ------------------------------------------------------------------------------------

    def _emit(self, *first: tuple[Any, ...]) -> None:
        """Make the rows of an expansion and of all inside it.

        The nodes of a map's body stand for the item that is being made, so one item is finished,
        with all inside it, before the next begins: a stack, not a queue.
        """
        todo = list(reversed(first))
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
            entries, within, value = self._contents(body)
            later, following = self._groups(body.later)
            self._put(
                node, owner, path, entries, (len(body.nodes), within), value, later, following
            )
            return [(self._body, body, at, prefix), *self._after(body.later, at, prefix)]
        count, first = len(node.items), at + 1
        value = Items(first, count, True) if count else Seq(())
        all_items = ((first, count),) if count else ()
        alarms, inside = alarms_of_items(node), size_of_item(node, self._sizes) - 1
        behind = first + count
        self._lay_later(node.later, behind + count * inside)
        later, following = self._groups(node.later)
        if alarms and count:
            # those of an item lie behind what is inside it
            size = sum(self._sizes[alarm] for alarm in alarms)
            rung = [
                behind + i * inside + k for i in range(count) for k in range(inside - size, inside)
            ]
            group = Later(Phase.HANDLERS, When.ALWAYS, (), ranges_of(rung), len(rung))
            later, following = (group, *later), [*following, *rung]
        self._put(node, owner, path, all_items, (count, all_items), value, later, following)
        todo = self._following(node.later, at, f"{item_path}/")
        if is_plain_map(node):
            if not (inside or body.nodes[0].later):
                self._plain_items(node, body.nodes[0], item_path)
                return todo
            step = self._plain_item
        else:
            step = self._item
        return [
            *((step, node, i, behind + i * inside, f"{item_path}[{i}]") for i in range(count)),
            *todo,
        ]

    def _plain_item(self, source: Node, i: int, inside: int, path: str) -> list[tuple[Any, ...]]:
        """Make the row of one item that is a task, and has something that follows it."""
        assert source.inner is not None and source.items is not None
        (node,) = source.inner.nodes
        source.item = (i, source.items[i])
        node.index = source.index + 1 + i
        behind = self._lay_later(node.later, inside)
        self._lay_later(alarms_of_items(source), behind)
        self._task(node, source.index, path, i, self._bits_of_items(source))
        return [
            *self._following(node.later, node.index, f"{path}/", i),
            *self._following(alarms_of_items(source), source.index, f"{path}/", i),
        ]

    def _item(self, source: Node, i: int, inside: int, path: str) -> list[tuple[Any, ...]]:
        """Make the row of one item of a map of graphs."""
        body, at = source.inner, source.index + 1 + i
        assert body is not None and source.items is not None
        source.item = (i, source.items[i])
        behind = self._lay_out(body, inside)
        self._lay_later(body.alarms, behind)
        self._rows[at - self._first] = self._face(
            body, path, source.index, at, self._bits_of_items(source)
        )
        return [
            (self._body, body, at, f"{path}/"),
            *self._after(body.later, at, f"{path}/", i),
            *self._following(body.alarms, source.index, f"{path}/", i),
        ]

    def _face(self, body: Body, path: str, owner: int, at: int, bits: int = 0) -> NodeRow:
        """Make the row of an item of a map, or of an arm: what others see of its body."""
        if body.face is not None:
            body.face.index = at
        entries, within, value = self._contents(body)
        later, following = self._groups(body.later)
        return NodeRow(
            path,
            Kind.EXPANSION,
            owner,
            _ALONE,
            children=self._rung(body.alarms),
            entries=entries,
            inner=len(body.nodes),
            value=encode_template(value),
            bits=bits,
            body=ranges_of((*indexes(within), *following)) if following else within,
            later=later,
        )

    def _lay_out(self, body: Body, at: int) -> int:
        """Give the nodes of a body, and of what follows it, their indexes; the first one free."""
        for node in body.nodes:
            node.index = at
            at += size_of(node, self._sizes)
        return self._lay_later(body.later, at)

    def _lay_later(self, groups: Sequence[Body], at: int) -> int:
        for group in groups:
            at = self._lay_out(group, at)
        return at

    def _put(
        self,
        node: Node,
        owner: int,
        path: str,
        entries: Ranges,
        body: tuple[int, Ranges],
        value: Template,
        later: tuple[Later, ...],
        following: Sequence[int],
    ) -> None:
        inner, within = body
        children, lenient = self._edges(node)
        self._rows[node.index - self._first] = NodeRow(
            path,
            Kind.EXPANSION,
            owner,
            node.rule,
            _ranges(node.parents),
            children,
            entries=entries,
            inner=inner,
            value=encode_template(value),
            bits=self._bits(node),
            phase=node.body.phase,
            body=ranges_of((*indexes(within), *following)) if following else within,
            lenient=lenient,
            later=later,
            tolerate=_tolerated(node, inner),
        )

    # --- what runs later -------------------------------------------------------------------------

    def _groups(self, groups: Sequence[Body]) -> tuple[tuple[Later, ...], list[int]]:
        """Say what runs after a body or a task, and give the indexes of all nodes of it."""
        if not groups:
            return (), []
        turns: dict[tuple[Phase, When], list[Body]] = {}
        for group in sorted(groups, key=lambda g: (g.phase, g.when)):
            turns.setdefault((group.phase, group.when), []).append(group)
        later = []
        for (phase, when), bodies in turns.items():
            nodes = [n for body in bodies for n in body.nodes]
            value = b""
            if phase is Phase.FALLBACK:
                value = encode_template(self._contents(bodies[0])[2])
            entries = _ranges([n for n in nodes if not n.parents])
            later.append(Later(phase, when, entries, _ranges(nodes), len(nodes), value))
        return tuple(later), [n.index for body in groups for n in body.nodes]

    def _following(
        self, groups: Sequence[Body], owner: int, prefix: str, place: int | None = None
    ) -> list[tuple[Any, ...]]:
        """Give what is to be made of what runs later."""
        return [(self._body, g, owner, f"{prefix}{g.path}", place) for g in groups]

    def _after(
        self, groups: Sequence[Body], owner: int, prefix: str, place: int | None = None
    ) -> list[tuple[Any, ...]]:
        """The same for what runs after a body, where alarms are named after what they are about."""
        return [
            (
                self._body,
                g,
                owner,
                f"{prefix}{g.about.name + '/' if g.about else ''}{g.path}",
                place,
            )
            for g in groups
        ]

    def _rung(self, alarms: Sequence[Body]) -> Ranges:
        """The nodes that start as soon as another has failed."""
        return _ranges([n for alarm in alarms for n in alarm.nodes if alarm.about in n.parents])

    def _edges(self, node: Node) -> tuple[Ranges, Ranges]:
        """Give the edges out of a node: those that count its end, and those that don't mind."""
        children: Sequence[Node] = node.children
        lenient: Ranges = ()
        if not node.alarms and not self._graph.soft:  # most graphs
            return _ranges(children), lenient
        if node in self._graph.soft:
            lenient = _ranges([c for c in children if node in c.optional])
            children = [c for c in children if node not in c.optional]
        if node.alarms:
            heads = [n for a in node.alarms for n in a.nodes if node in n.parents]
            children = [*children, *heads]
        return _ranges(children), lenient

    def _body(
        self, body: Body, owner: int, prefix: str, place: int | None = None
    ) -> list[tuple[Any, ...]]:
        """Make the rows of the nodes of a body."""
        todo: list[tuple[Any, ...]] = []
        if body.owner is not None and body.owner.items and body.phase is Phase.BODY:
            place = body.owner.item[0]
        alone = body.phase is Phase.FALLBACK and len(body.nodes) == 1
        for node in body.nodes:
            path = self._checked(prefix[:-1] if alone else prefix + node.name)
            if node.lists is not None:
                todo.extend(self._open_map(node, owner, path))
            elif node.arms is not None:
                todo.extend(self._branch(node, owner, path))
            elif node.inner is not None:
                todo.append((self._expansion, node, owner, path, path, f"{path}/"))
            elif node.kind is Kind.TASK:
                if node.later:
                    self._lay_later(node.later, node.index + 1)
                    todo.extend(self._following(node.later, node.index, f"{path}/", place))
                self._task(node, owner, path, place, self._bits(node))
            else:
                children, lenient = self._edges(node)
                self._rows[node.index - self._first] = NodeRow(
                    path,
                    node.kind,
                    owner,
                    node.rule,
                    _ranges(node.parents),
                    children,
                    bits=self._bits(node),
                    phase=body.phase,
                    lenient=lenient,
                )
        return todo

    def _bits(self, node: Node) -> int:
        bits = Bits.FORGIVEN if node in self._forgiven else 0
        bits |= Bits.NAMED if node in self._named else 0
        if self._policies:
            bits |= _POLICY_BITS.get(self._policies.get(node, ""), 0)
        return bits

    def _bits_of_items(self, source: Node) -> int:
        return _ITEM_BITS.get(source.options.get("items", "all"), 0)

    def _task(self, node: Node, owner: int, path: str, place: int | None, bits: int) -> None:
        """Make the row of a task."""
        spec, args, edges = node.spec, node.args, node.edges
        assert spec is not None
        if node.elements:
            args, edges = self._with_elements(node)
        settings = self._settings_of(node)
        pool: list[Any] = []
        bindings: tuple[Binding, ...] = ()
        reads: Ranges = ()
        if edges:
            bindings = tuple([Binding(to, self._template(v, pool)) for to, v in edges.items()])
            reads = _read(bindings)
        message = Message(
            self._id(node.index),
            spec.name,
            self._payload(path, spec.name, args, node.kwargs, pool),
            *settings.fields,
            path,
            bindings,
            settings.policy,
            place,
            settings.prefetch,
        )
        children, lenient = self._edges(node)
        row = NodeRow(
            path,
            Kind.TASK,
            owner,
            node.rule,
            _ranges(node.parents),
            children,
            reads,
            message,
            bits=bits,
            phase=node.body.phase,
            lenient=lenient,
        )
        if node.later:
            later, following = self._groups(node.later)
            row = msgspec.structs.replace(row, later=later, body=ranges_of(following))
        self._rows[node.index - self._first] = row

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
        self, path: str, task: str, args: list[Any], kwargs: Mapping[str, Any], pool: list[Any]
    ) -> bytes:
        what = f"arguments of node {path!r} (task {task})"
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
        self._checked(f"{item_path}[{len(items)}]")
        slots = any(has_slots(v) for v in node.edges.values())
        if len(node.elements) != 1 or source.dynamic or slots:
            for i, item in enumerate(items):
                source.item = (i, item)
                node.index = first + i
                self._task(node, at, f"{item_path}[{i}]", i, self._bits_of_items(source))
            return
        settings = self._settings_of(node)
        start, made_id, bits = self._first, self._id, self._bits_of_items(source)
        name, serializer = spec.name, self._serializer
        pool: list[Any] = []
        bindings = tuple([Binding(to, self._template(v, pool)) for to, v in node.edges.items()])
        reads = _read(bindings)
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
                made_id(index), name, payload, *fields, path, bindings, policy, i, prefetch
            )
            rows[index - start] = NodeRow(
                path, kind, at, rule, reads=reads, message=message, bits=bits
            )

    # --- values ----------------------------------------------------------------------------------

    def _id(self, index: int) -> bytes:
        return node_id(self._run, index) if self._run else b""

    def _contents(self, body: Body) -> tuple[Ranges, Ranges, Template]:
        """Where a body begins, all nodes in it, and its value."""
        entries = _ranges([n for n in body.nodes if not n.parents])
        pool: list[Any] = []
        value = self._template(body.value, pool)
        if pool:
            where = f"of {body.owner.who} " if body.owner and body.owner.name else ""
            raise GraphError(
                f"the value {where}holds a {type(pool[0]).__name__} that is no step; only numbers, "
                "short texts, True, False and None can stand beside steps: let a task return it"
            )
        return entries, _ranges(body.nodes), value

    def _with_elements(self, node: Node) -> tuple[list[Any], dict[int | str, Any]]:
        """Give the arguments and edges of a task in the item that is being made."""
        args, edges = list(node.args), node.edges
        for element in node.elements:
            if element.source.lists is not None:
                edges = {**edges, **_open_edges(element)}
                continue
            given = element.given(element.source.item[1])
            args[element.at : element.at + _uniform(element)] = given
            if element.source.dynamic:
                edges = dict(edges)
                for k, value in enumerate(given, element.at):
                    if has_slots(value) or any(True for _ in leaves(value)):
                        edges[k] = value
                        args[k] = None
        return args, edges

    def _checked(self, path: str) -> str:
        """Give a path back if it is short enough, with what is put before it when the run runs."""
        if len(self._above) + len(path) > MAX_NAME:
            raise GraphError(
                f"the name {self._above + path!r} is over {MAX_NAME} characters; give shorter names"
            )
        return path

    def _leaf(self, node: Node, path: tuple[int | str, ...]) -> Template:
        """The template of a node's value, or of one item of it."""
        ref = Ref(node.index, path)
        if self._instead and node in self._instead:
            return Else(ref, self._instead[node], True)
        return ref

    def _known(self, value: Any, node: Node) -> Const | Data:
        """A value that stands in for one of a node, as a part of a template."""
        if plain(value):
            return Const(value)
        payload = pack(self._serializer, value, f"the default of {node.who}")
        return Data(payload, short_repr(value))

    def _slot(self, slot: Slot, path: tuple[int | str, ...], pool: list[Any]) -> Template:
        """The template of the element of a map: of a known list, that of the item being made."""
        place, found = slot.source.item
        assert slot.source.lists is None, "only the plan of an item has elements"
        if slot.part is not None:
            parts = found if slot.source.zipped[1] else spread_over(slot.source, found)
            found = parts[slot.part]
        for key in path:
            if type(found) is Node or type(found) is Slot:
                return self._template(Take(found, path), pool)
            if type(found) is Take:
                return self._template(Take(found.node, (*found.path, *path)), pool)
            try:
                found = found[key]
            except (LookupError, TypeError) as err:
                raise GraphError(
                    f"{slot.source.who}: item {place}, a {type(found).__name__}, has no {key!r}"
                ) from err
            path = path[1:]
        if has_slots(found) or any(True for _ in leaves(found)):
            return self._template(found, pool)
        if plain(found):
            return Const(found)
        pool.append(found)
        return Lit(len(pool) - 1)

    def _is_here(self, node: Node) -> bool:
        """Whether a node is in this plan, not around it."""
        return True

    def _is_ref(self, value: Any) -> bool:
        """Whether the template of a value names a node of this plan and nothing else."""
        return type(value) is Node and value not in self._instead and self._is_here(value)

    def _template(self, value: Any, pool: list[Any]) -> Template:
        """Give the template of a structure; what is no node goes to the payload's pool.

        Equal shapes give equal templates: a list of nodes that lie next to each other is `Items`.
        """
        kind = type(value)
        if kind is Node:
            return self._leaf(value, ())
        if kind is Take:
            if type(value.node) is Slot:
                return self._slot(value.node, value.path, pool)
            return self._leaf(value.node, value.path)
        if kind is Slot:
            return self._slot(value, (), pool)
        if kind is Maybe:
            (node,) = leaves(value)
            return Else(self._template(value.of, pool), self._known(value.default, node))
        if kind is Told:
            if not value.value:
                return Cause(value.node.index)
            assert value.node.inner is not None
            return self._template(value.node.inner.value, pool)
        if kind is list or kind is tuple:
            if kind is list and value and all(self._is_ref(x) for x in value):
                first = value[0].index
                if all(x.index == first + k for k, x in enumerate(value)):
                    return Items(first, len(value))
            return Seq(tuple([self._template(x, pool) for x in value]), kind is tuple)
        if kind is dict:
            return MappingTemplate(
                tuple(
                    [(self._template(k, pool), self._template(v, pool)) for k, v in value.items()]
                )
            )
        if plain(value):
            return Const(value)
        pool.append(value)
        return Lit(len(pool) - 1)

    # --- maps whose list is not known yet --------------------------------------------------------

    def _open_map(self, node: Node, owner: int, path: str) -> list[tuple[Any, ...]]:
        """Make the row of a map that becomes its items when its list is there."""
        assert node.inner is not None and node.lists is not None
        item = _Item(self, node, path)
        plan = encode_rows(item.rows())
        pool: list[Any] = []
        args: list[Any] = []
        edges: dict[int | str, Any] = {}
        for k, given in enumerate(node.lists):
            known = not (
                type(given) is Told or has_slots(given) or any(True for _ in leaves(given))
            )
            args.append(given if known else None)
            if not known:
                edges[k] = given
        options: dict[str, Any] = {"max_width": node.width}
        if node.options.get("tolerate"):
            options["tolerate"] = node.options["tolerate"]
        bindings = tuple([Binding(to, self._template(v, pool)) for to, v in edges.items()])
        captures = tuple([self._template(c, pool) for _, c in item.captured.values()])
        root = self._graph.root.inner
        assert root is not None
        task = next(_tasks(node.inner), None) or next(_tasks(root))  # what gives the list at least
        message = Message(
            self._id(node.index),
            MAP,
            self._payload(path, MAP, args, options, pool),
            self._settings_of(task).fields[0],  # whoever serves its items makes them
            self._priorities[node],
            name=path,
            bindings=bindings,
            plans=(plan,),
            captures=captures,
        )
        return self._put_carrier(node, owner, path, message)

    def _branch(self, node: Node, owner: int, path: str) -> list[tuple[Any, ...]]:
        """Make the row of a branch, which becomes the arm taken when its condition is there."""
        assert node.inner is not None and node.arms is not None
        plans: list[bytes] = []
        captured: Captured = {}
        arms: list[tuple[Any, bool, int | None, Any]] = []
        for arm in node.arms:
            inner = arm.node.inner
            assert inner is not None
            if inner.nodes or has_slots(inner.value) or any(True for _ in leaves(inner.value)):
                arms.append((arm.key, arm.default, len(plans), None))
                plans.append(encode_rows(_Arm(self, inner, captured, f"{path}/").rows()))
            else:
                arms.append((arm.key, arm.default, None, inner.value))
        pool: list[Any] = []
        bindings = tuple([Binding(to, self._template(v, pool)) for to, v in node.edges.items()])
        captures = tuple([self._template(c, pool) for _, c in captured.values()])
        near = (*_tasks(node.inner), *(n for n in node.reads if n.kind is Kind.TASK))
        task = next(iter(near), None)
        message = Message(
            self._id(node.index),
            BRANCH,
            self._payload(path, BRANCH, node.args, {"arms": arms}, pool),
            # whoever serves what it becomes takes the arm
            self._settings_of(task).fields[0] if task else OPTIONS["queue"].default,
            self._priorities[node],
            name=path,
            bindings=bindings,
            plans=tuple(plans),
            captures=captures,
        )
        return self._put_carrier(node, owner, path, message)

    def _put_carrier(
        self, node: Node, owner: int, path: str, message: Message
    ) -> list[tuple[Any, ...]]:
        size = sum(map(len, message.plans))
        if size > MAX_PAYLOAD:
            raise PayloadTooLarge(
                f"what node {path!r} may become takes {size / 2**20:.0f} MiB, over the limit of "
                f"{MAX_PAYLOAD / 2**20:.0f} MiB; let a task return it, or give long lists"
            )
        self._lay_later(node.later, node.index + 1)
        later, following = self._groups(node.later)
        children, lenient = self._edges(node)
        self._rows[node.index - self._first] = NodeRow(
            path,
            Kind.TASK,
            owner,
            node.rule,
            _ranges(node.parents),
            children,
            _read(message.bindings),
            message,
            bits=self._bits(node),
            phase=node.body.phase,
            body=ranges_of(following),
            lenient=lenient,
            later=later,
        )
        return self._following(node.later, node.index, f"{path}/")


class _Arm(_Lowering):
    """A plan that a message carries: that of an arm, or of an item of a map that is not known yet.

    What stands around it is captured: named by its place among the captures of that message.
    """

    _source: Node | None
    _prefix = ""

    def __init__(self, around: _Lowering, body: Body, captured: Captured, path: str) -> None:
        # all facts about the whole graph are those of the lowering around it
        self.__dict__.update(around.__dict__)
        self._above = around._above + path
        self._run, self._first = b"", INNER
        self._source = None
        self._inner = body
        self._inside: set[Body] = set()
        self.captured = captured

    def rows(self) -> list[NodeRow]:
        """Make its rows; row 0 is what becomes it."""
        body, source = self._inner, self._source
        alarms = alarms_of_items(source) if source is not None else ()
        todo = [body, *alarms]
        while todo:
            at = todo.pop()
            self._inside.add(at)
            todo.extend(at.later)
            todo.extend(group for n in at.nodes for group in n.later)
            todo.extend(n.inner for n in at.nodes if n.inner is not None)
        size = size_of_item(source, self._sizes) if source is not None else 1 + self._sizes[body]
        self._rows = [None] * size  # type: ignore[list-item]
        if source is not None and is_plain_map(source):
            (node,) = body.nodes
            node.index = INNER
            behind = self._lay_later(node.later, INNER + 1)
            self._lay_later(alarms, behind)
            self._task(node, NO_NODE, "", None, self._bits_of_items(source))
            steps = self._following(node.later, INNER, "/")
        else:
            behind = self._lay_out(body, INNER + 1)
            self._lay_later(alarms, behind)
            bits = self._bits_of_items(source) if source is not None else 0
            self._rows[0] = self._face(body, "", NO_NODE, INNER, bits)
            steps = [(self._body, body, INNER, self._prefix)]
            steps += self._after(body.later, INNER, self._prefix)
        # alarms about the item stand beside it
        self._emit(*steps, *self._following(alarms, NO_NODE, "/"))
        return self._rows

    def _is_here(self, node: Node) -> bool:
        return node.body in self._inside

    def _leaf(self, node: Node, path: tuple[int | str, ...]) -> Template:
        return super()._leaf(node, path) if self._is_here(node) else self._capture(node, path)

    def _slot(self, slot: Slot, path: tuple[int | str, ...], pool: list[Any]) -> Template:
        if slot.source.lists is None:
            if self._is_here(slot.source):
                return super()._slot(slot, path, pool)
            # known, but what carries the plan has a pool for what is no plain value
            return self._capture(Take(slot, path) if path else slot, ())
        if slot.source is self._source:
            return Elem(slot.part, slot.spread, slot.source.unpack is True, path)
        if slot.spread and slot.source.unpack:
            raise GraphError(
                f"{slot.source.who}: the tuples that it is over cannot be unpacked deeper inside "
                "it; say unpack=False, or take them apart in a task"
            )
        return self._capture(Slot(slot.source, slot.part), path)

    def _capture(self, what: Node | Slot | Take, path: tuple[int | str, ...]) -> Template:
        place, _ = self.captured.setdefault(_key(what), (len(self.captured), what))
        return Cap(place, path)


class _Item(_Arm):
    """The plan of one item of a map whose list is not known yet."""

    _prefix = "/"

    def __init__(self, around: _Lowering, source: Node, path: str) -> None:
        assert source.inner is not None
        super().__init__(around, source.inner, {}, path)
        self._source = source


def _key(what: Node | Slot | Take) -> Any:
    if isinstance(what, Take):
        return _key(what.node), what.path
    return (what.source, what.part) if isinstance(what, Slot) else what


# --- pieces --------------------------------------------------------------------------------------


def _ranges(nodes: Sequence[Node]) -> Ranges:
    if len(nodes) < 2:  # most nodes of most graphs
        return ((nodes[0].index, 1),) if nodes else ()
    return ranges_of([n.index for n in nodes])


def _uniform(element: Element) -> int:
    """How many places an element has among its task's arguments."""
    if not element.widths:
        return 1
    return next(iter(element.widths)) if len(element.widths) == 1 else 0


def _read(bindings: Iterable[Binding]) -> Ranges:
    """The nodes whose values fill these places."""
    return ranges_of(n for b in bindings for n in nodes_of(b.value))


def _open_edges(element: Element) -> dict[int | str, Any]:
    """What fills the places of the element of a map whose list is not known yet."""
    count, named = element.source.zipped
    if count > 1:
        return {element.at + k: Slot(element.source, k) for k in range(count)}
    return {element.at: Slot(element.source, 0 if named else None, spread=element.spread)}


def _tolerated(node: Node, items: int) -> int:
    """How many of so many items of a map may fail."""
    return share_of(node.options.get("tolerate", 0), items)


def _tasks(body: Body) -> Iterator[Node]:
    """Go through the tasks in a body, in what stands inside it too."""
    todo = [body]
    while todo:
        for node in todo.pop().nodes:
            if node.kind is Kind.TASK:
                yield node
            elif node.inner is not None:
                todo.append(node.inner)
