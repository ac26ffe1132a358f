# SPDX-License-Identifier: MIT
"""From what users wrote to a graph: placing, references, pipes.

A mention as a member of a chain or group is a place of its own; a mention as an argument is a
reference. So the members are placed first, and references are resolved when all places are known:
to the first place of what they mention if it has one within reach, else to a node that is made for
them. Such a node *floats* until it is known who reads it, and then stands in the innermost body
that holds all its readers (outside a map: what does not depend on the item is made once).

Nothing here recurses over what users wrote, so a chain of any length can be built.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

from flowq.calls import own_priority
from flowq.errors import GraphError, NodeUsedAsValue
from flowq.graph import Graph
from flowq.node import Body, Node, Slot, leaves, listed
from flowq.once import OF_STARTS
from flowq.plan import Kind
from flowq.primitives.adopt import adopt
from flowq.primitives.follow import FOLLOWED, OF_NODES, alarms, call_alike, follow, handlers
from flowq.primitives.pipes import bind, bind_task, check, place_of, places
from flowq.primitives.settle import settle
from flowq.wiring import TaskSpec

__all__ = ["Builder", "Fragment", "Part", "Placing", "has_parts"]


class Fragment:
    """What placing something gave.

    Attributes
    ----------
    heads : list of Node
        Where it begins: what is piped into it, or comes before it, leads here.
    tails : list
        Where it ends: what comes after it waits for these.
    value : object
        Structure of nodes that is its value.
    closed : str
        Why nothing can be piped in; empty if something can.
    """

    __slots__ = ("closed", "heads", "tails", "value")

    def __init__(self, heads: list[Node], tails: list[Any], value: Any, closed: str = "") -> None:
        self.heads = heads
        self.tails = tails
        self.value = value
        self.closed = closed


Placing: TypeAlias = Generator["tuple[Part, Body]", Fragment, Fragment]
"""Asks for its members to be placed, one after the other, and gives the whole."""


class Part:
    """What can stand in a graph.

    Attributes
    ----------
    has_members : bool
        Whether it gives places to others.
    """

    __slots__ = ()

    has_members = False
    value_alone = False
    """Whether it speaks of a value, so that it is no order."""

    def put(self, build: Builder, body: Body) -> Fragment | Placing:
        """Place it in a body: add its nodes and edges, and say what it begins and ends with."""
        raise NotImplementedError

    def refer(self, build: Builder, body: Body) -> Fragment:
        """What a reference to it from a body means: the place it has, else one made for it."""
        at: Body | None = body
        key = id(self)
        while at is not None:
            found: Fragment | None = at.places.get(key)
            if found is not None:
                return found
            at = at.around
        found = build.floats.get(key)
        if found is None:
            around, build.where = build.where, build.wheres.get(key, "")
            found = build.floats[key] = build.place(self, build.floating(body))
            build.where = around
        return found


_ATOMS: Final = frozenset({int, str, float, bool, bytes, type(None), complex})
_CONTAINERS: Final = frozenset({list, tuple, dict})


def has_parts(values: Iterable[Any]) -> bool:
    """Whether something that can stand in a graph is among values, or in their containers."""
    for x in values:
        if type(x) not in _ATOMS:
            return _search(values)
    return False


def _search(values: Iterable[Any]) -> bool:
    todo: list[Iterable[Any]] = [values]
    seen: set[int] = set()
    while todo:
        for x in todo.pop():
            kind = type(x)
            if kind in _ATOMS:
                continue
            if kind in _CONTAINERS:
                if id(x) not in seen:
                    seen.add(id(x))
                    todo.append(x if kind is not dict else (*x.keys(), *x.values()))
            elif isinstance(x, Part):
                return True
    return False


_OF_STARTS: Final = frozenset(OF_STARTS)
_NO_RUN: Final = frozenset((*OF_NODES, "trigger_rule"))
"""A map about which these are said is a node of a run, not the run."""


class Builder:
    """Builds one graph.

    Attributes
    ----------
    floats : dict of int to Fragment
        What was made for references, by the identity of what they mention.
    """

    def __init__(self) -> None:
        self.floats: dict[int, Fragment] = {}
        self.keep: list[Part] = []  # places are known by identity, so what is placed must live
        self.where = ""  # of the user's code that made what is being placed
        self.wheres: dict[int, str] = {}  # the same by identity, for what is only referred to
        self._followed: list[Node] = []  # something is to follow their end
        self._nodes: list[Node] = []
        self._bodies: list[Body] = []
        self._resolved = 0  # so many nodes, and values of bodies, hold no references any more
        self._valued = 0

    # --- placing ---------------------------------------------------------------------------------

    def node(
        self,
        kind: Kind,
        body: Body,
        base: str,
        *,
        spec: TaskSpec | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Node:
        """Add a node to a body."""
        if options and not _OF_STARTS.isdisjoint(options):
            (word, *_) = sorted(_OF_STARTS & options.keys())
            raise GraphError(
                f"{base!r} is a part of what is started, and {word}= speaks of a start: say it on "
                "the flow or graph as a whole"
            )
        node = Node(kind, body, base, spec=spec, args=args, kwargs=kwargs, options=options)
        node.where = self.where
        self._nodes.append(node)
        if options and not FOLLOWED.isdisjoint(options):
            self._followed.append(node)
        return node

    def add_body(self, body: Body) -> None:
        """Take a body that was made elsewhere."""
        self._bodies.append(body)

    def expansion(self, body: Body, base: str, options: Mapping[str, Any]) -> tuple[Node, Body]:
        """Add an expansion to a body; gives it and the body within."""
        node = self.node(Kind.EXPANSION, body, base, options=options)
        node.inner = Body(node)
        self._bodies.append(node.inner)
        return node, node.inner

    def floating(self, context: Body) -> Body:
        """Make a body for what is only referred to."""
        if context.owner is None:  # never a line of them, which would take long to walk
            assert context.context is not None
            context = context.context
        body = Body(None, context)
        self._bodies.append(body)
        return body

    def place(self, part: Part, body: Body) -> Fragment:
        """Place something and all its members."""
        stack: list[tuple[Placing, Part, Body]] = []
        while True:
            made = part.put(self, body)
            while True:
                if isinstance(made, Fragment):
                    body.places.setdefault(id(part), made)
                    if body.owner is None:
                        self.floats.setdefault(id(part), made)
                    if not stack:
                        return made
                    placing, part, body = stack[-1]
                    answer: Any = made
                else:
                    stack.append((made, part, body))
                    placing, answer = made, None
                try:
                    part, body = placing.send(answer)
                    break
                except StopIteration as end:
                    made = end.value
                    _, part, body = stack.pop()

    def order(self, tails: list[Any], heads: list[Node], body: Body) -> None:
        """Let `heads` begin after `tails`, with a join between if edges would multiply."""
        if len(tails) > 1 and len(heads) > 1:
            joined: dict[str, list[Node]] = {}
            rest = []
            for head in heads:
                # these two rules say the same of a join that follows them; others count parents
                if head.inner is None and head.rule_text in ("all_success", "all_done"):
                    joined.setdefault(head.rule_text, []).append(head)
                elif head.inner is not None and "trigger_rule" not in head.options:
                    joined.setdefault("all_success", []).append(head)
                else:
                    rest.append(head)
            for rule, behind in joined.items():
                join = self.node(Kind.JOIN, body, "join", options={"trigger_rule": rule})
                join.order = list(tails)
                for head in behind:
                    head.order.append(join)
            heads = rest
        for head in heads:
            head.order.extend(tails)

    # --- the whole -------------------------------------------------------------------------------

    def build(
        self,
        top: Part,
        base: str,
        options: Mapping[str, Any],
        members: Literal["", "values", "items"] = "",
    ) -> Graph:
        """Build the graph of `top`.

        Parameters
        ----------
        top : Part
        base : str
            What the run is called unless the options name it.
        options : mapping
            Checked options of the run.
        members : str
            What a list of results is made of: the nodes of a group's ``"values"``, the ``"items"``
            of a map, or nothing where there is no such list.
        """
        root = Node(Kind.EXPANSION, Body(None), base)
        body = root.inner = Body(root)
        self._bodies.append(body)
        made = self.place(top, body)
        body.value = made.value
        _refuse_of_nodes(base, options)
        handlers(self, root, body, options)
        self._resolve_all()
        self._refuse_reaching_in(body)
        for node in self._nodes:  # grows while it is walked
            if node.late is None:
                bind(node)
            elif type(node.late) is Node:
                call_alike(node)
            else:
                self._grow(node)
        self._refuse_reaching_in(body)
        settle(body, self._bodies, self._nodes)
        adopt(self._bodies, self._nodes)
        alarms(self._nodes)
        for node in self._nodes:
            check(node)
        if members == "items":
            only = body.nodes[0]
            alone = len(body.nodes) == 1 and only.lists is None
            if alone and not (only.order or _NO_RUN.intersection(only.options)):
                only.body = root.body  # nothing is around the map: it is the run itself
                root = only
            return Graph(root, options, items_of=made.tails[0])
        return Graph(root, options, members=made.value if members else None)

    def followed(self) -> set[Node]:
        """The nodes that others read or come after, as far as references are resolved."""
        return set(self._nodes_read())

    def _nodes_read(self) -> Iterator[Node]:
        for node in self._nodes:
            for value in (*node.edges.values(), *node.pipes):
                yield from leaves(value)
            for x in node.order:
                if isinstance(x, Node):
                    yield x
            yield from listed(node)
            for arm in node.arms or ():
                yield from leaves(arm.node.inner.value if arm.node.inner else None)

    # --- references ------------------------------------------------------------------------------

    def _resolve_all(self) -> None:
        """Resolve what was placed since; both lists grow while they are walked."""
        self._resolve_nodes()
        while self._valued < len(self._bodies):
            inner = self._bodies[self._valued]
            self._valued += 1
            if inner.owner is not None and has_parts((inner.value,)):
                inner.value = self._resolve(inner.value, inner, None)
            self._resolve_nodes()

    def _follow(self) -> None:
        """Place what follows from how nodes end that were placed since."""
        while self._followed:
            follow(self, self._followed.pop(0))

    def _resolve_nodes(self) -> None:
        self._follow()
        while self._resolved < len(self._nodes):
            self._resolved += 1
            self._resolve_node(self._nodes[self._resolved - 1])
            self._follow()

    def _resolve_node(self, node: Node) -> None:
        body, order = node.body, node.order
        if order:
            node.order = list(self._ends(order, body))
        if has_parts(node.args):
            # members have their places before anything refers to them, as everywhere
            for value in node.args:
                if isinstance(value, Part) and value.has_members:
                    value.refer(self, body)
            for k, value in enumerate(node.args):
                if has_parts((value,)):
                    node.edges[k] = self._resolve(value, body, node)
                    node.args[k] = None
        if node.kwargs and has_parts(node.kwargs.values()):
            for name, value in list(node.kwargs.items()):
                if has_parts((value,)):
                    node.edges[name] = self._resolve(value, body, node)
                    del node.kwargs[name]
        if node.pipes and has_parts(node.pipes):
            node.pipes = [self._resolve(value, body, node) for value in node.pipes]
        if node.items is not None and has_parts(node.items):
            node.items = [self._resolve(value, body, node) for value in node.items]
            node.dynamic = True
        if node.lists is not None and has_parts(node.lists):
            node.lists = [self._resolve(value, body, node) for value in node.lists]
        for arm in node.arms or ():
            self._resolve_arm(arm.node)

    def _resolve_arm(self, arm: Node) -> None:
        """Resolve the value of an arm, with the branch: an end of the graph is what none reads."""
        inner = arm.inner
        assert inner is not None
        if has_parts((inner.value,)):
            if isinstance(inner.value, Part) and inner.value.has_members:
                inner.value.refer(self, inner)
            inner.value = self._resolve(inner.value, inner, arm)

    def _ends(self, order: list[Any], body: Body) -> Iterator[Node]:
        for x in order:
            if isinstance(x, Part):
                if x.value_alone:
                    raise GraphError(
                        f"{x!r} is for values; for order alone whatever came of it, give what "
                        "follows trigger_rule='all_done'"
                    )
                yield from self._ends(x.refer(self, body).tails, body)
            else:
                yield x

    def _resolve(self, value: Any, body: Body, node: Node | None) -> Any:
        """Put structures of nodes in place of references."""
        if isinstance(value, Part):
            found = value.refer(self, body)
            structure = found.value
            if has_parts((structure,)):
                structure = self._resolve(structure, body, node)
            if node is not None and not isinstance(structure, Node):
                # what ends without being part of the value (an empty group) is awaited all the same
                inside = set(leaves(structure))
                node.order.extend(n for n in self._ends(found.tails, body) if n not in inside)
            return structure
        kind = type(value)
        if kind is list:
            return [self._resolve(x, body, node) for x in value]
        if kind is tuple:
            return tuple([self._resolve(x, body, node) for x in value])
        if kind is dict:
            if has_parts(value.keys()):
                raise NodeUsedAsValue("a node cannot be the key of a dict: its value is not known")
            return {k: self._resolve(x, body, node) for k, x in value.items()}
        return value

    def _item_of(self, node: Node) -> Body:
        """Give the body for the graph of a flow: its own, or where it is mapped, that of an item.

        An item of a mapped flow is the flow, not a node with the flow inside.
        """
        around, inner = node.body, node.inner
        assert inner is not None
        source = around.owner
        if source is None or source.items is None or around.face or around.nodes != [node]:
            return inner
        around.nodes.remove(node)
        around.heads, around.since = [], len(self._bodies)
        around.face, around.policy = node, inner.policy
        node.inner = around  # what is told of the flow is told of the item
        around.later, around.alarms = inner.later, node.alarms
        for group in (*inner.later, *node.alarms):
            group.owner = source
        node.alarms = []
        source.order.extend(node.order)
        source.edges.update({to: v for to, v in node.edges.items() if type(v) is not Slot})
        priority = own_priority(node.spec, node.options) if node.spec is not None else None
        if priority is not None:
            source.options = {"priority": priority, **source.options}
        return around

    def _grow(self, node: Node) -> None:
        """Place the graph of a flow, now that all is known that it is given."""
        late = node.late
        bind_task(node)
        for element in node.elements:
            if len(element.widths) > 1:
                raise GraphError(
                    f"{node.who}: the tuples that it is mapped over differ in length, but a flow "
                    "is built once for all; use tuples of one length, or say unpack=False"
                )
            for k in range(places(element)):
                node.edges[element.at + k] = place_of(element, k)
        node.elements = []
        check(node)
        node.late = None
        contents = late.contents(node)
        inner = self._item_of(node)
        inner.given = node.edges
        self.keep.append(contents)
        inner.value = self.place(contents, inner).value
        self._resolve_nodes()
        if has_parts((inner.value,)):
            inner.value = self._resolve(inner.value, inner, None)
        self._resolve_all()

    def _refuse_reaching_in(self, root: Body) -> None:
        """A reference to what has its place inside an expansion must not make a second node."""
        if not self.floats:
            return
        for body in self._bodies:
            if body.owner is None or body is root:
                continue
            for key in body.places.keys() & self.floats.keys():
                (inside, *_) = body.places[key].tails
                raise GraphError(
                    f"{inside.who} stands inside {body.owner.who}, where nothing outside can "
                    "reach it; use the value of what is around it"
                )


def _refuse_of_nodes(base: str, options: Mapping[str, Any]) -> None:
    """Refuse what says what a failure means to what is around, where nothing is."""
    for word in OF_NODES:
        if word in options:
            instead = {"failure_policy": "node_failure_policy=", "on_error": "on_failure="}
            what = instead.get(word, "it on its nodes, or on_failure= on the whole")
            raise GraphError(
                f"{base}: {word}= speaks of a node, and here it is the run, with nothing around "
                f"it; say {what}"
            )
