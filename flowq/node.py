# SPDX-License-Identifier: MIT
"""What a graph is made of: nodes, what their edges carry, and bodies in which they stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from typing import Any, Final, NamedTuple

from flowq.limits import Limits
from flowq.plan import Kind, Phase, When
from flowq.states import Rule
from flowq.wiring import TaskSpec

__all__ = [
    "Arm",
    "Body",
    "Element",
    "Maybe",
    "Node",
    "Slot",
    "Take",
    "Told",
    "alarms_of_items",
    "firm_leaves",
    "has_slots",
    "is_plain_map",
    "kind_text",
    "leaves",
    "listed",
    "maybes",
    "spread_over",
]

_ALWAYS: Final = Rule(0, 0, 0, 0, 0)
_NO_OPTIONS: Final[Mapping[str, Any]] = {}
_NO_NODES: Final[frozenset[Any]] = frozenset()
_OF_ONE: Final = frozenset(("failure_policy", "default"))


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
    lists : list or None
        For a map whose elements are not known yet (then `items` is empty): structures of nodes
        that it is over, zipped if there are several; empty until one is piped in.
    width : int
        How many items such a map may have.
    follows : sequence of Node
        For such a map: those maps among its lists of which it reads nothing but the items, one for
        each of its own; filled by `Graph`.
    unpack : bool or None
        For a map: whether its elements become arguments; None if as fits the task.
    chunk : int
        For a map of a task: how many elements go into one message, so that `items` are lists of
        that many; 0 if each is an item of its own.
    zipped : tuple of int
        For a map: over how many lists it is whose elements go to positions, and over how many
        whose elements go to keywords. Elements of several lists are tuples.
    arms : list of Arm or None
        For a branch: its arms; `inner` holds a node for each. Its condition is its edge 0.
    item : tuple of int and object
        For a map: the place and the element of the item that is being lowered.
    late : object
        For a flow whose graph is not placed yet: what places it when all that it is given is
        known. Its `spec` is the flow, its arguments and edges what that is called with.
    where : str
        File and line of the user's code that made it, where that is known.
    shared : Limits
        For the graph of a flow: limits over all runs of that flow.
    race : bool
        For a join: whether it is one between what is among its edges, whose first success is its
        value.
    sleep_ms : int
        For a join: how long after what it awaits it ends.
    signal : str
        For a join that waits for what is sent to the run: under which name.
    timeout_ms : int
        How long such a one waits; 0 for ever.
    instead : tuple
        Its value after that, alone; empty if it fails.
    later : list of Body
        For a task or a map: what is to follow its failure.
    alarms : list of Body
        What starts as soon as it has failed; for a map, as soon as an item has.
    optional : set of Node
        Parents all of whose edges to it count as successes, whatever came of them.
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
        "alarms",
        "args",
        "arms",
        "base",
        "body",
        "children",
        "chunk",
        "dynamic",
        "edges",
        "elements",
        "follows",
        "index",
        "inner",
        "instead",
        "item",
        "items",
        "kind",
        "kwargs",
        "label",
        "late",
        "later",
        "lists",
        "name",
        "optional",
        "options",
        "order",
        "parents",
        "pipes",
        "race",
        "reads",
        "rule",
        "shared",
        "signal",
        "sleep_ms",
        "spec",
        "timeout_ms",
        "unpack",
        "where",
        "width",
        "zipped",
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
        self.lists: list[Any] | None = None
        self.follows: Sequence[Node] = ()
        self.width = 0
        self.unpack: bool | None = None
        self.arms: list[Arm] | None = None
        self.chunk = 0
        self.zipped = (1, 0)
        self.elements: list[Element] = []
        self.item: tuple[int, Any] = (-1, None)
        self.parents: list[Node] = []
        self.children: list[Node] = []
        self.reads: list[Node] = []
        self.rule = _ALWAYS
        self.name = ""
        self.index = -1
        self.late: Any = None
        self.shared: Limits = ()
        self.where = ""
        self.race = False
        self.sleep_ms = 0
        self.signal = ""
        self.timeout_ms = 0
        self.instead: tuple[Any, ...] = ()
        self.later: Sequence[Body] = ()
        self.alarms: Sequence[Body] = ()
        self.optional: Set[Node] = _NO_NODES
        body.nodes.append(self)

    def __repr__(self) -> str:
        return f"<Node {self.name or self.label or self.base}>"

    @property
    def who(self) -> str:
        """What errors call it."""
        name = self.name or self.label or self.base
        if self.spec is None:
            return f"node {name!r}{self.where}"
        kind = "task" if self.kind is Kind.TASK else "flow"
        return f"node {name!r} ({kind} {self.spec.name}){self.where}"

    @property
    def over(self) -> Iterator[Any]:
        """The elements of a map whose list is known."""
        items = self.items or ()
        return chain.from_iterable(items) if self.chunk else iter(items)

    def place(self, item: int) -> int:
        """Give the place in a map's list of an item, or of the first element of a chunk."""
        return item * (self.chunk or 1)

    @property
    def rule_text(self) -> str:
        """Its trigger rule, as users write it."""
        text: str = self.options.get("trigger_rule", "all_success")
        return text


class Arm(NamedTuple):
    """One arm of a branch.

    Attributes
    ----------
    node : Node
        Stands in the body of the branch, and has the arm's graph inside. No run has it: the branch
        becomes that graph.
    key : object
        The value of the condition for which it is taken.
    default : bool
        Whether it is taken where there is no other.
    """

    node: Node
    key: Any
    default: bool


class Take:
    """One item of a node's value, or of an element: the keys that are applied, in turn."""

    __slots__ = ("node", "path")

    def __init__(self, node: Node | Slot, path: tuple[int | str, ...]) -> None:
        self.node = node
        self.path = path


class Slot:
    """An element of a map, where no argument of a task stands for it.

    Its list is not known yet, or a flow is mapped over it. Of zipped lists, or of a tuple that is
    spread over parameters, it is that at `part`.
    """

    __slots__ = ("part", "source", "spread")

    def __init__(self, source: Node, part: int | None = None, *, spread: bool = False) -> None:
        self.source = source
        self.part = part
        self.spread = spread


class Maybe:
    """A value over an edge that counts as a success, and what is given where it is missing."""

    __slots__ = ("default", "of")

    def __init__(self, of: Node | Take, default: Any) -> None:
        self.of = of
        self.default = default


class Told:
    """What a node is told that runs because of how another ended: its failure, or its value.

    It takes the first free parameter, if there is one.
    """

    __slots__ = ("node", "value")

    def __init__(self, node: Node, *, value: bool = False) -> None:
        self.node = node
        self.value = value


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

    @property
    def open(self) -> bool:
        """Whether it is not known how many arguments it fills, or that differs."""
        return len(self.widths) > 1 or (self.spread and self.source.lists is not None)

    def given(self, item: Any) -> Sequence[Any]:
        """The arguments that one element fills."""
        found = self.of(item)
        return spread_over(self.source, found) if self.spread else (found,)

    def of(self, item: Any) -> Any:
        """What of an element goes to positions."""
        count, named = self.source.zipped
        if not named:
            return item
        return item[0] if count == 1 else item[:count]


def spread_over(source: Node, item: Any) -> Sequence[Any]:
    """The arguments that an element of a map becomes where it may become several."""
    kind = type(item)
    if kind is tuple or (kind is list and source.unpack is True):
        found: Sequence[Any] = item
        return found
    return (item,)


def listed(node: Node) -> Iterator[Node]:
    """Go through the nodes that the elements of a map are made of."""
    if node.dynamic:
        yield from leaves(node.items)
    if node.lists is not None:
        yield from leaves(node.lists)


def leaves(structure: Any) -> Iterator[Node]:
    """Go through the nodes in a structure of nodes, lists, tuples and dicts."""
    stack = [structure]
    while stack:
        x = stack.pop()
        kind = type(x)
        if kind is Node:
            yield x
        elif kind is Take:
            if type(x.node) is Node:
                yield x.node
        elif kind is list or kind is tuple:
            stack.extend(reversed(x))
        elif kind is dict:
            stack.extend(reversed([*x.keys(), *x.values()]))
        elif kind is Maybe:
            stack.append(x.of)


def maybes(structure: Any) -> Iterator[Maybe]:
    """Go through what may be missing in a structure."""
    stack = [structure]
    while stack:
        x = stack.pop()
        kind = type(x)
        if kind is Maybe:
            yield x
        elif kind is list or kind is tuple:
            stack.extend(x)
        elif kind is dict:
            stack.extend(x.values())


def firm_leaves(structure: Any) -> Iterator[Node]:
    """Go through the nodes in a structure that may not be missing."""
    stack = [structure]
    while stack:
        x = stack.pop()
        kind = type(x)
        if kind is Node or kind is Take:
            yield from leaves(x)
        elif kind is list or kind is tuple:
            stack.extend(x)
        elif kind is dict:
            stack.extend(x.values())


def has_slots(structure: Any) -> bool:
    """Whether an element of a map is in a structure."""
    kind = type(structure)
    if kind is list or kind is tuple:
        return any(has_slots(x) for x in structure)
    if kind is dict:
        return any(has_slots(x) for x in [*structure.keys(), *structure.values()])
    return kind is Slot or (kind is Take and type(structure.node) is Slot)


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
    given : dict of int or str to object
        Of a flow's graph: what the flow is called with, as the edges of a node.
    later : list of Body
        What runs after it, in the expansion whose body it is; for a map's body, in each item.
    phase, when
        When the nodes in it have their turn in the expansion, or for the task, that they belong to.
    path : str
        Of what runs later: what the names of its nodes begin with.
    about : Node or None
        Of an alarm: the node whose failure starts it.
    alarms : list of Body
        Of a map's body, where an item is no task alone: what starts as soon as an item has failed.
    face : Node or None
        Of the body of a map of flows: what others call the item.
    policy : str
        The failure policy of its nodes, where the graph says one.
    since : int or None
        Of the items of a flow that is mapped: how many bodies there were before it was placed.
    """

    __slots__ = (
        "about",
        "alarms",
        "closed",
        "context",
        "face",
        "given",
        "heads",
        "later",
        "names",
        "nodes",
        "owner",
        "path",
        "phase",
        "places",
        "policy",
        "scope",
        "since",
        "value",
        "when",
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
        self.given: dict[int | str, Any] = {}
        self.since: int | None = None
        self.later: list[Body] = []
        self.phase = Phase.BODY
        self.when = When.ALWAYS
        self.path = ""
        self.about: Node | None = None
        self.alarms: Sequence[Body] = ()
        self.face: Node | None = None
        self.policy = ""

    @property
    def around(self) -> Body | None:
        """The body in which this one stands, or is referred to."""
        return self.owner.body if self.owner else self.context


def kind_text(node: Node) -> str:
    """What kind of node it is, for people."""
    if node.items is not None:
        return "map"
    if node.arms is not None:
        return "branch"
    if node.body.owner is not None and node.body.owner.arms is not None:
        return "arm"
    if node.race:
        return "first"
    if node.sleep_ms:
        return "sleep"
    if node.signal:
        return "wait_for"
    return {Kind.TASK: "task", Kind.JOIN: "join", Kind.EXPANSION: "graph"}[node.kind]


def alarms_of_items(source: Node) -> Sequence[Body]:
    """What starts as soon as an item of a map has failed."""
    assert source.inner is not None
    own = source.inner.alarms
    return (*own, *source.inner.nodes[0].alarms) if is_plain_map(source) else own


def is_plain_map(node: Node) -> bool:
    """Whether a node is a map each item of which is one task.

    An item of a flow is a graph, also where that is one task: what is said of the task is not said
    of the item. So is that of a chain of one task of which is said what its failure means.
    """
    body = node.inner
    if node.items is None or body is None or body.later or body.face is not None:
        return False
    if len(body.nodes) != 1 or body.nodes[0] is not body.value:
        return False
    (inside,) = body.nodes
    return inside.kind is Kind.TASK and _OF_ONE.isdisjoint(inside.options)
