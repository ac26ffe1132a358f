# SPDX-License-Identifier: MIT
"""The one representation of a pipeline: nodes, edges and bindings, and their checks.

Whatever users write (chain, group, map, DAG) becomes a `Graph`. It is plain adjacency lists with
Kahn's algorithm; networkx gives the users' view alone and is imported there.

A graph is a tree of bodies. The root's body holds the graph's nodes; a map or a graph within the
graph is an expansion: a node with a body of its own. A map's body is kept once, whatever the
length of its list, and copied for each item when the graph is lowered.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from flowq.errors import BindingError, CycleError, GraphError
from flowq.plan import Kind
from flowq.policy import nearest
from flowq.states import Rule, trigger_rule
from flowq.wiring import Submitter, TaskSpec

if TYPE_CHECKING:
    import networkx

__all__ = [
    "Body",
    "Element",
    "Graph",
    "Node",
    "Params",
    "Take",
    "check_call",
    "is_plain_map",
    "kind_text",
    "leaves",
    "misfit",
    "parameter_name",
    "params_of",
]

# --- what a task takes ---------------------------------------------------------------------------

_P: Final = inspect.Parameter
_KNOWN_SHAPES: Final = 1_000
"""Shapes of calls remembered for each task; one that takes ``**kwargs`` has no end of them."""


class Params:
    """The parameters of a task, read once, and the shapes of calls that were found to fit."""

    __slots__ = ("__weakref__", "_fits", "_keyword", "_positional", "_required", "_rest", "_spare")

    def __init__(self, signature: inspect.Signature) -> None:
        every = list(signature.parameters.values())
        self._positional = [
            p for p in every if p.kind in (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD)
        ]
        self._keyword = {
            p.name: p for p in every if p.kind in (_P.POSITIONAL_OR_KEYWORD, _P.KEYWORD_ONLY)
        }
        self._rest = any(p.kind is _P.VAR_POSITIONAL for p in every)
        self._spare = any(p.kind is _P.VAR_KEYWORD for p in every)
        self._required = [
            p
            for p in every
            if p.default is _P.empty and p.kind not in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)
        ]
        self._fits: set[Any] = set()

    def fits(self, count: int, names: Collection[str]) -> bool:
        """Whether `count` positional arguments and these keywords fit; quick once it was seen."""
        shape = (count, *names) if names else count
        if shape in self._fits:
            return True
        if self.problem(count, names):
            return False
        if len(self._fits) < _KNOWN_SHAPES:
            self._fits.add(shape)
        return True

    def problem(self, count: int, names: Collection[str]) -> str:
        """What is wrong with a call of this shape; empty if nothing is."""
        if count > len(self._positional) and not self._rest:
            takes = len(self._positional)
            return (
                f"it takes {takes} positional argument{'s' * (takes != 1)}, but {count} are given"
            )
        filled = {p.name for p in self._positional[:count]}
        for name in names:
            if name in self._keyword:
                if name in filled:
                    return f"parameter {name!r} is bound twice, by position and by name"
            elif not self._spare:
                return f"unexpected argument {name!r}{nearest(name, self._keyword)}"
        by_name = {n for n in names if n in self._keyword}
        lacking = [p.name for p in self._required if p.name not in filled | by_name]
        if lacking:
            which = ", ".join(repr(n) for n in lacking)
            return f"missing argument{'s' * (len(lacking) > 1)} {which}"
        return ""

    def free(self, count: int, names: Collection[str]) -> int | str | None:
        """The first free parameter after the bound ones: a position, a keyword, or None."""
        ahead = self._positional[count:]
        for k, p in enumerate(ahead):
            if p.name in names and p.kind is _P.POSITIONAL_OR_KEYWORD:
                continue
            if k == 0:
                return count
            # a parameter before it is bound by name, so position would bind that one twice
            return p.name if p.kind is _P.POSITIONAL_OR_KEYWORD else None
        if self._rest and not ahead:
            return count
        for p in self._keyword.values():
            if p.kind is _P.KEYWORD_ONLY and p.name not in names:
                return p.name
        return None

    def room(self, count: int, names: Collection[str]) -> float:
        """How many more positional arguments there is room for."""
        if self._rest:
            return float("inf")
        return sum(p.name not in names for p in self._positional[count:])

    def has(self, name: str) -> bool:
        """Whether a keyword of this name can be given."""
        return self._spare or name in self._keyword


_params: WeakKeyDictionary[TaskSpec, Params] = WeakKeyDictionary()


def params_of(spec: TaskSpec) -> Params:
    """Give the parameters of a task, read once for each."""
    found = _params.get(spec)
    if found is None:
        found = _params[spec] = Params(spec.parameters)
    return found


def check_call(spec: TaskSpec, args: Collection[Any], kwargs: Mapping[str, Any]) -> None:
    """Check that arguments fit a task.

    Raises
    ------
    BindingError
        One is missing, unexpected or bound twice; the text has the task's signature.
    """
    params = params_of(spec)
    if not params.fits(len(args), kwargs.keys()):
        raise misfit(f"task {spec.name}", spec, params.problem(len(args), kwargs.keys()))


def misfit(who: str, spec: TaskSpec, problem: str) -> BindingError:
    """Give the error of a call that does not fit."""
    short = spec.name.rpartition(".")[2]
    return BindingError(f"{who}: {problem}; its signature is {short}{spec.parameters}")


# --- nodes ---------------------------------------------------------------------------------------


class Node:
    """One step: a task with bound arguments, a join, or an expansion with a body of its own.

    Attributes
    ----------
    kind : Kind
    body : Body
        Where it stands.
    label : str or None
        Its name, where the user gave one.
    base : str
        What automatic names are made of.
    spec : TaskSpec or None
        For a task.
    args, kwargs
        Plain arguments; positions that edges fill hold None. Until references are resolved, they
        may hold whatever users wrote.
    edges : dict of int or str to object
        What fills a parameter over edges: a `Node`, a `Take`, or lists, tuples and dicts of them.
    order : list
        What it comes after without data.
    pipes : list
        Values that are piped in and not bound yet.
    options : dict
        Checked options said on this node.
    inner : Body or None
        For an expansion.
    items : list or None
        For a map: its elements.
    dynamic : bool
        For a map: whether nodes stand among its elements.
    unpack : bool or None
        For a map: whether its elements become arguments; None if as fits the task.
    item : tuple of int and object
        For a map: the place and the element of the item that is being lowered.
    elements : list of Element
        For a task: the elements of maps that it takes, with their positions.
    parents, children : list of Node
        Counted neighbours in the same body, each once; filled by `Graph`.
    reads : list of Node
        Nodes whose values it is given, wherever they stand.
    rule : Rule
    name : str
        Unique in its body; filled by `Graph`.
    index : int
        Filled when the graph is lowered.
    """

    __slots__ = (
        "args",
        "base",
        "body",
        "children",
        "dynamic",
        "edges",
        "elements",
        "index",
        "inner",
        "item",
        "items",
        "kind",
        "kwargs",
        "label",
        "name",
        "options",
        "order",
        "parents",
        "pipes",
        "reads",
        "rule",
        "spec",
        "unpack",
    )

    def __init__(
        self,
        kind: Kind,
        body: Body,
        base: str,
        *,
        spec: TaskSpec | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind = kind
        self.body = body
        self.base = base
        self.spec = spec
        self.args = list(args)
        self.kwargs = dict(kwargs) if kwargs else {}
        self.options: Mapping[str, Any] = options or _NO_OPTIONS
        self.label: str | None = self.options.get("name")
        self.edges: dict[int | str, Any] = {}
        self.order: list[Any] = []
        self.pipes: list[Any] = []
        self.inner: Body | None = None
        self.items: list[Any] | None = None
        self.dynamic = False
        self.unpack: bool | None = None
        self.elements: list[Element] = []
        self.item: tuple[int, Any] = (-1, None)
        self.parents: list[Node] = []
        self.children: list[Node] = []
        self.reads: list[Node] = []
        self.rule = _ALWAYS
        self.name = ""
        self.index = -1
        body.nodes.append(self)

    def __repr__(self) -> str:
        return f"<Node {self.name or self.label or self.base}>"

    @property
    def who(self) -> str:
        """What errors call it."""
        name = self.name or self.label or self.base
        return f"node {name!r}" + (f" (task {self.spec.name})" if self.spec else "")

    @property
    def rule_text(self) -> str:
        """Its trigger rule, as users write it."""
        text: str = self.options.get("trigger_rule", "all_success")
        return text


_ALWAYS: Final = Rule(0, 0, 0, 0, 0)
_ALL_SUCCESS: Final = {n: trigger_rule("all_success", n) for n in range(8)}
_NO_OPTIONS: Final[Mapping[str, Any]] = {}


class Take:
    """One item of a node's value: the keys that are applied to it, in turn."""

    __slots__ = ("node", "path")

    def __init__(self, node: Node, path: tuple[int | str, ...]) -> None:
        self.node = node
        self.path = path


class Element:
    """Where a task takes an element of a map.

    Attributes
    ----------
    source : Node
        The map.
    at : int
        The position of the first argument that the element fills.
    spread : bool
        Whether elements that are tuples fill several parameters; lists too where that is forced.
    widths : set of int
        How many arguments the elements fill. If that is the same for all, the task's `args` have
        their places; else they follow `args`.
    """

    __slots__ = ("at", "source", "spread", "widths")

    def __init__(self, source: Node) -> None:
        self.source = source
        self.at = 0
        self.spread = False
        self.widths: set[int] = set()

    def given(self, item: Any) -> Sequence[Any]:
        """The arguments that one element fills."""
        kind = type(item)
        if self.spread and (kind is tuple or (kind is list and self.source.unpack is True)):
            found: Sequence[Any] = item
            return found
        return (item,)


def leaves(structure: Any) -> Iterator[Node]:
    """Go through the nodes in a structure of nodes, lists, tuples and dicts."""
    stack = [structure]
    while stack:
        x = stack.pop()
        kind = type(x)
        if kind is Node:
            yield x
        elif kind is Take:
            yield x.node
        elif kind is list or kind is tuple:
            stack.extend(reversed(x))
        elif kind is dict:
            stack.extend(reversed([*x.keys(), *x.values()]))


class Body:
    """Nodes that stand together: a run's, or those inside an expansion.

    Attributes
    ----------
    owner : Node or None
        The expansion whose body it is; None while it floats: then its nodes are only referred to,
        and find their place when it is known who reads them.
    context : Body or None
        While it floats: where it was referred to first.
    nodes : list of Node
        In the order of writing; in topological order once the graph is made.
    value : object
        Structure of nodes that is the value.
    heads : list of Node
        What a value piped into the expansion goes to.
    closed : str
        Why nothing can be piped in; empty if something can.
    places : dict of int to object
        Where what users wrote was placed first, by the object's identity.
    names : dict of str to Node
        Nodes of a DAG.
    scope : object
        The DAG whose body it is.
    """

    __slots__ = (
        "closed",
        "context",
        "heads",
        "names",
        "nodes",
        "owner",
        "places",
        "scope",
        "value",
    )

    def __init__(self, owner: Node | None, context: Body | None = None) -> None:
        self.owner = owner
        self.context = context
        self.nodes: list[Node] = []
        self.value: Any = None
        self.heads: list[Node] = []
        self.closed = ""
        self.places: dict[int, Any] = {}
        self.names: dict[str, Node] = {}
        self.scope: Any = None

    @property
    def around(self) -> Body | None:
        """The body in which this one stands, or is referred to."""
        return self.owner.body if self.owner else self.context


# --- the graph -----------------------------------------------------------------------------------


class Graph:
    """A checked graph: edges found, rules as numbers, nodes named and in topological order.

    Parameters
    ----------
    root : Node
        The expansion whose body is the graph.
    options : mapping
        Checked options of the run.
    members : list of Node or None
        What a `ResultGroup` has as members.
    items_of : Node or None
        The map whose items a `ResultGroup` has as members.

    Raises
    ------
    CycleError, GraphError
    """

    def __init__(
        self,
        root: Node,
        options: Mapping[str, Any],
        *,
        members: list[Node] | None = None,
        items_of: Node | None = None,
    ) -> None:
        self.root = root
        self.options = options
        self.members = members
        self.items_of = items_of
        bodies = [b for b in self.bodies()]
        for body in bodies:
            for node in list(body.nodes):
                _connect(node)
        for body in bodies:
            for node in list(body.nodes):
                if node.inner is not None and "trigger_rule" in node.options:
                    _join_before(node)
            for node in body.nodes:
                node.parents = list(dict.fromkeys(node.parents))
                for parent in node.parents:
                    parent.children.append(node)
            body.nodes = sort(body.nodes)
            _name(body)
            for node in body.nodes:
                _rule(node)

    def bodies(self) -> Iterator[Body]:
        """Go through all bodies, outer ones first."""
        todo = deque([self.root.inner])
        while todo:
            body = todo.popleft()
            assert body is not None
            yield body
            todo.extend(n.inner for n in body.nodes if n.inner is not None)

    @property
    def name(self) -> str:
        """What people call the run."""
        name: str = self.options.get("name") or self.root.label or self.root.base
        return name

    def submitter(self) -> Submitter:
        """The app that its tasks belong to.

        Raises
        ------
        GraphError
            There is no task, or they belong to several.
        """
        found: dict[int, tuple[Submitter, Node]] = {}
        for body in self.bodies():
            for node in body.nodes:
                if node.spec is not None:
                    submitter = node.spec.submitter
                    found.setdefault(id(submitter), (submitter, node))
        if not found:
            raise GraphError(
                "a graph without a task belongs to no app, so it cannot start alone; an empty "
                "group within a graph that has tasks gives []"
            )
        if len(found) > 1:
            (_, one), (_, other), *_ = found.values()
            raise GraphError(f"{one.who} and {other.who} belong to different apps")
        return next(iter(found.values()))[0]

    def view(self) -> networkx.DiGraph[str]:
        """Give the graph as networkx knows it.

        Nodes are names, with the attributes ``task``, ``kind`` (``"task"``, ``"map"``,
        ``"graph"``, ``"join"``), ``rule``, ``options``; a map has ``items``, its length, and what
        has a body ``graph``, the graph inside. Edges have ``to``: the parameters that they fill
        (empty for order alone).
        """
        import networkx

        made: dict[Body, networkx.DiGraph[str]] = {}
        for body in reversed(list(self.bodies())):
            view: networkx.DiGraph[str] = networkx.DiGraph(name=self.name)
            made[body] = view
            for node in body.nodes:
                facts: dict[str, Any] = {
                    "task": node.spec.name if node.spec else "",
                    "kind": kind_text(node),
                    "rule": node.rule_text,
                    "options": dict(node.options),
                }
                if node.inner is not None:
                    facts["graph"] = made[node.inner]
                if node.items is not None:
                    facts["items"] = len(node.items)
                if body is self.root.inner and is_plain_map(self.root):
                    for i in range(len(self.root.items or ())):
                        view.add_node(f"{self.name}[{i}]", **facts)
                else:
                    view.add_node(node.name, **facts)
            for node in body.nodes:
                filled: dict[Node, list[str]] = {}
                for to, value in node.edges.items():
                    for leaf in leaves(value):
                        filled.setdefault(leaf, []).append(parameter_name(node, to))
                for parent in node.parents:
                    view.add_edge(parent.name, node.name, to=tuple(filled.get(parent, ())))
        assert self.root.inner is not None
        return made[self.root.inner]


def kind_text(node: Node) -> str:
    """What kind of node it is, for people."""
    if node.items is not None:
        return "map"
    return {Kind.TASK: "task", Kind.JOIN: "join", Kind.EXPANSION: "graph"}[node.kind]


def parameter_name(node: Node, to: int | str) -> str:
    """The name of the parameter that an edge fills."""
    if isinstance(to, str) or node.spec is None:
        return str(to)
    names = list(node.spec.parameters.parameters)
    if to < len(names) and not names[to].startswith("*"):
        return names[to]
    return f"{names[-1]}[{to - len(names) + 1}]" if names else str(to)


def is_plain_map(node: Node) -> bool:
    """Whether a node is a map each item of which is one task."""
    if node.items is None or node.inner is None:
        return False
    inside = node.inner.nodes
    return len(inside) == 1 and inside[0].kind is Kind.TASK and inside[0] is node.inner.value


def _connect(node: Node) -> None:
    """Find the parents of a node: what it reads, and what it comes after.

    A node that stands outside is a parent of the expansion around the reader, not of the reader.
    """
    node.reads = list(dict.fromkeys(n for value in node.edges.values() for n in leaves(value)))
    elements = leaves(node.items) if node.dynamic else ()
    for parent in dict.fromkeys([*node.reads, *elements, *node.order]):
        at: Node | None = node
        while at is not None and at.body is not parent.body:
            at = at.body.owner
        if at is None:
            inside = parent.body.owner
            name = inside.label or inside.base if inside else "another graph"
            raise GraphError(
                f"{node.who}: {parent.who} stands inside {name!r}, where nothing outside can "
                f"reach it; use the value of {name!r}"
            )
        at.parents.append(parent)


def _join_before(node: Node) -> None:
    """Put a join with its trigger rule before an expansion, which itself awaits success."""
    rule = node.options["trigger_rule"]
    join = Node(Kind.JOIN, node.body, "join", options={"trigger_rule": rule})
    join.parents = list(dict.fromkeys(node.parents))
    reads = [n for n in join.parents if n not in node.order]
    node.parents = [*reads, join]
    node.options = {k: v for k, v in node.options.items() if k != "trigger_rule"}


def _rule(node: Node) -> None:
    count = len(node.parents)
    if "trigger_rule" not in node.options:  # trigger_rule("all_success", count)
        node.rule = _ALL_SUCCESS.get(count) or trigger_rule("all_success", count)
        return
    try:
        node.rule = trigger_rule(node.rule_text, count)
    except ValueError as err:
        raise GraphError(f"{node.who}: {err}") from None


def sort(nodes: list[Node]) -> list[Node]:
    """Give nodes from upstream to downstream, level by level, else in the order given.

    Raises
    ------
    CycleError
        They lead back to where they began; the text spells the way.

    Notes
    -----
    A. B. Kahn, Topological sorting of large networks, CACM 5 (1962).
    """
    left = {node: len(node.parents) for node in nodes}
    ready = [node for node in nodes if not left[node]]
    for node in ready:  # grows while it is walked
        for child in node.children:
            left[child] -= 1
            if not left[child]:
                ready.append(child)
    if len(ready) < len(nodes):
        raise CycleError(f"the graph has a cycle: {_cycle(left)}")
    return ready


def _cycle(left: dict[Node, int]) -> str:
    """Spell one cycle among the nodes that Kahn's algorithm could not reach.

    Each of them has a parent among them, so walking upwards must come back.
    """
    stuck = {node for node, count in left.items() if count}
    at = next(node for node in left if node in stuck)
    seen: dict[Node, int] = {}
    while at not in seen:
        seen[at] = len(seen)
        at = next(p for p in at.parents if p in stuck)
    around = [node for node, k in seen.items() if k >= seen[at]]
    names = [node.label or node.base for node in reversed(around)]
    return " -> ".join([*names[-1:], *names])


def _name(body: Body) -> None:
    """Give each node of a body its name: its own, else an automatic one that nobody has."""
    used: set[str] = set()
    for node in body.nodes:
        if node.label is not None:
            if not node.label or set(node.label) & set("/[]"):
                raise GraphError(
                    f"{node.label!r} cannot be the name of a node: / and brackets are for the "
                    "paths of what is inside"
                )
            if node.label in used:
                raise GraphError(f"two nodes are named {node.label!r}; a name is for one node")
            used.add(node.label)
            node.name = node.label
    last: dict[str, int] = {}
    for node in body.nodes:
        if node.label is None:
            k = last.get(node.base, 0) + 1
            name = node.base if k == 1 else f"{node.base}-{k}"
            while name in used:
                k += 1
                name = f"{node.base}-{k}"
            last[node.base] = k
            used.add(name)
            node.name = name
