# SPDX-License-Identifier: MIT
"""The one representation of a pipeline: a tree of bodies of nodes, and its checks.

Whatever users write (chain, group, map, DAG) becomes a `Graph`. It is plain adjacency lists with
Kahn's algorithm; networkx gives the users' view alone and is imported there.

A graph is a tree of bodies. The root's body holds the graph's nodes; a map or a graph within the
graph is an expansion: a node with a body of its own. A map's body is kept once, whatever the
length of its list, and copied for each item when the graph is lowered.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from flowq.binding import parameter_name
from flowq.errors import CycleError, GraphError
from flowq.node import (
    Body,
    Node,
    alarms_of_items,
    firm_leaves,
    is_plain_map,
    kind_text,
    leaves,
    listed,
    maybes,
)
from flowq.plan import Kind, Phase
from flowq.states import Rule, trigger_rule
from flowq.wiring import Submitter

if TYPE_CHECKING:
    import networkx

__all__ = ["Graph", "check_app", "sort"]

_ONE_FAILED: Final[Rule] = trigger_rule("one_failed", 1)
_ALL_SUCCESS: Final = {n: trigger_rule("all_success", n) for n in range(8)}


class Graph:
    """A checked graph: edges found, rules as numbers, nodes named and in topological order.

    Parameters
    ----------
    root : Node
        The expansion whose body is the graph.
    options : mapping
        Checked options of the run.
    soft : set of Node
        Nodes with edges that count any end as a success; filled here.
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
            if body.phase is Phase.FALLBACK and body.owner is not None:
                _await(body.owner, (n for n in leaves(body.value) if n.body is not body))
        self.soft = _optional(bodies)
        for body in bodies:
            for node in list(body.nodes):
                if node.lists is not None:
                    node.follows = _followed(node)
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
            if body.about is not None:
                _alarm(body, body.about)
        from flowq.edges import check_edges  # here, so that an import of flowq costs less

        for body in bodies:
            check_edges(body.nodes)

    def bodies(self) -> Iterator[Body]:
        """Go through all bodies, what runs later included, outer ones first."""
        assert self.root.inner is not None
        todo = deque([self.root.inner])
        if self.root.items is not None:
            todo.extend(alarms_of_items(self.root))
        while todo:
            body = todo.popleft()
            yield body
            todo.extend(body.later)
            for node in body.nodes:
                todo.extend(node.later)
                if node.inner is not None:
                    todo.append(node.inner)
                    if node.items is not None:
                        todo.extend(alarms_of_items(node))

    @property
    def name(self) -> str:
        """What people call the run."""
        name: str = self.options.get("name") or self.root.label or self.root.base
        return name

    def submitter(self, app: Submitter | None = None) -> Submitter:
        """The app that its tasks belong to.

        Parameters
        ----------
        app : Submitter, optional
            The app that the user named, which is needed only where there is no task.

        Raises
        ------
        GraphError
            There is no task and no app is named, or they belong to another, or to several.
        """
        found: dict[int, tuple[Submitter, Node]] = {}
        for body in self.bodies():
            for node in body.nodes:
                if node.spec is not None:
                    submitter = node.spec.submitter
                    found.setdefault(id(submitter), (submitter, node))
        if not found:
            if app is None:
                raise GraphError(
                    f"{self.name!r} has no task, so it is not known to which app it belongs; "
                    "name it: .start(q)"
                )
            return app
        if len(found) > 1:
            (_, one), (_, other), *_ = found.values()
            raise GraphError(f"{one.who} and {other.who} belong to different apps")
        ((submitter, node),) = found.values()
        check_app(app, submitter, node.who)
        return submitter

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
                    "task": node.spec.name if node.spec and node.inner is None else "",
                    "kind": kind_text(node),
                    "rule": node.rule_text,
                    "options": dict(node.options),
                }
                if node.inner is not None:
                    facts["graph"] = made[node.inner]
                if node.items is not None and node.lists is None:
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
                for parent in node.parents if body.about is None else ():
                    view.add_edge(parent.name, node.name, to=tuple(filled.get(parent, ())))
        assert self.root.inner is not None
        return made[self.root.inner]


def check_app(named: Submitter | None, found: Submitter, who: str) -> None:
    """Refuse to start with an app what belongs to another."""
    if named is not None and named is not found:
        raise GraphError(f"{who} belongs to {found!r}, and cannot be started with {named!r}")


def _connect(node: Node) -> None:
    """Find the parents of a node: what it reads, and what it comes after.

    A node that stands outside is a parent of the expansion around the reader, not of the reader.
    """
    node.reads = list(dict.fromkeys(n for value in node.edges.values() for n in leaves(value)))
    _await(node, dict.fromkeys([*node.reads, *listed(node)]))
    _await(node, dict.fromkeys(node.order))


def _await(node: Node, parents: Iterable[Node]) -> None:
    """Let a node, or the expansion around it that stands beside each parent, await these."""
    for parent in parents:
        at: Node | None = node
        while at is not None and at.body is not parent.body:
            at = at.body.owner
        if at is None and node.body.phase:
            raise GraphError(
                f"{node.who} runs because of how others ended, and reads nothing else inside "
                f"what it is for, as here {parent.who}"
            )
        if at is None:
            inside = parent.body.owner
            name = inside.label or inside.base if inside else "another graph"
            raise GraphError(
                f"{node.who}: {parent.who} stands inside {name!r}, where nothing outside can "
                f"reach it; use the value of {name!r}"
            )
        at.parents.append(parent)


def _followed(node: Node) -> list[Node]:
    """Find the maps whose items a map takes one by one, and of which it awaits nothing else.

    Policies may be against it: see `flowq.lower.facts`.
    """
    if node.chunk or "trigger_rule" in node.options:
        return []
    whole = {n for x in node.lists or () if type(x) is not Node for n in leaves(x)}
    whole.update(node.reads)
    found = Counter(node.parents)  # what is inside it, or its order, awaits more than items
    lists = dict.fromkeys(x for x in node.lists or () if type(x) is Node)
    return [x for x in lists if found[x] == 1 and x not in whole and _is_followable(x)]


def _is_followable(node: Node) -> bool:
    """Whether the items of a map are there as soon as it has begun, and stay what they are."""
    return (
        node.items is not None
        and not node.chunk
        and "need" not in node.options
        and node.options.get("items") != "cancel"
        and all(group.phase is not Phase.FALLBACK for group in node.later)
    )


def _optional(bodies: list[Body]) -> set[Node]:
    """Find parents all of whose edges to a node count any end as a success; gives those parents."""
    soft: dict[Node, set[Node]] = {}
    for body in bodies:
        for named in maybes(body.value):
            for node in leaves(named):
                if node.body is body:
                    raise GraphError(
                        f"{node.who} is optional as a part of a value, which is no edge; say "
                        "default= on the node instead"
                    )
        for node in body.nodes:
            for value in (*node.edges.values(), *_lists(node)):
                for maybe in maybes(value):
                    for parent in leaves(maybe):
                        soft.setdefault(_below(node, parent), set()).add(parent)
    if soft:
        for body in bodies:
            for node in body.nodes:
                found = [n for v in (*node.edges.values(), *_lists(node)) for n in firm_leaves(v)]
                for parent in (*found, *node.order):
                    soft.get(_below(node, parent), set()).discard(parent)
    for node, parents in soft.items():
        node.optional = parents
    return {parent for parents in soft.values() for parent in parents}


def _lists(node: Node) -> Iterator[Any]:
    if node.dynamic:
        yield node.items
    if node.lists is not None:
        yield node.lists


def _below(node: Node, parent: Node) -> Node:
    """What stands beside a parent: the node, or an expansion around it."""
    at = node
    while at.body is not parent.body:
        assert at.body.owner is not None
        at = at.body.owner
    return at


def _alarm(body: Body, about: Node) -> None:
    """Let an alarm start as soon as the node has failed that it is about."""
    for node in body.nodes:
        if not node.parents:
            node.parents, node.rule = [about], _ONE_FAILED


def _join_before(node: Node) -> None:
    """Put a join with its trigger rule before an expansion, which itself awaits what it reads."""
    rule = node.options["trigger_rule"]
    join = Node(Kind.JOIN, node.body, "join", options={"trigger_rule": rule})
    join.parents = list(dict.fromkeys(node.parents))
    # an edge of order was found once; what was found besides is read, here or inside
    found, ordered = Counter(node.parents), set(node.order)
    node.parents = [*(n for n in join.parents if found[n] > (n in ordered)), join]
    join.optional = node.optional
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
            if node.label in used:
                raise GraphError(f"two nodes are named {node.label!r}; a name is for one node")
            used.add(node.label)
            node.name = node.label
    kept = {g.path.rstrip("/") for g in body.later if g.about is None}
    if used & kept:
        raise GraphError(
            f"{min(used & kept)!r} is the name of what runs after this graph; call the node "
            "something else"
        )
    used |= kept
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
