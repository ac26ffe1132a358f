# SPDX-License-Identifier: MIT
"""What must be known of a whole graph before rows are made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Final

from flowq.calls import own_priority
from flowq.errors import GraphError, UnknownTask
from flowq.graph import Graph
from flowq.node import Body, Node, Told, alarms_of_items, is_plain_map, leaves, listed
from flowq.plan import Bits, Kind, Phase, Ranges, ranges_of
from flowq.policy import MAX_PRIORITY
from flowq.wiring import Submitter, TaskSpec

__all__ = ["Facts", "bits_of_items", "ranges"]

_POLICY_BITS: Final[dict[str, int]] = {
    "cancel": Bits.STOPS,
    "continue": Bits.COUNTS_AS_SUCCESS,
}
_ITEM_BITS: Final[dict[str, int]] = {"cancel": Bits.STOPS, "keep": Bits.FORGIVEN}
_FORGIVEN: Final = int(Bits.FORGIVEN)  # operators of flags are slow
_NAMED: Final = int(Bits.NAMED)
_OWNED: Final = int(Bits.OWNED)
_RACE: Final = int(Bits.RACE)
_ATOMIC: Final = int(Bits.ATOMIC)


class Facts:
    """What is so of one graph, for its own plan and for the plans that its messages carry.

    Attributes
    ----------
    graph : Graph
    serializer : Serializer
    options : dict
        Of the run.
    priorities : dict of Node to int
        Final ones.
    policies : dict of Node to str
        Where a failure does not simply block.
    owned : dict of Node to list of Node
        For races: what is not wanted any more when one is decided.
    read : set of Node
        Nodes whose values others are given.

    Raises
    ------
    UnknownTask
        A task of the graph is not registered with the app.
    """

    def __init__(self, graph: Graph, submitter: Submitter) -> None:
        self.graph = graph
        self.serializer = submitter.serializer
        self.options = {**submitter.run_defaults, **graph.options}
        bodies = list(graph.bodies())
        check_tasks(bodies, submitter)
        self._sizes = sizes(bodies)
        self._named, self._forgiven = named_and_forgiven(bodies)
        self.owned = owned_by_races(bodies, self._named)
        self._losers = {node for nodes in self.owned.values() for node in nodes}
        self.policies = policies(bodies)
        self.priorities = priorities(bodies, graph.options.get("priority") or 0)
        self.read = read_by_others(bodies)
        self._follows, self._followers = followed(bodies, self.policies)

    def size(self, node: Node) -> int:
        """How many rows a node takes, what is inside it and what follows it included."""
        return size_of(node, self._sizes)

    def options_of(self, node: Node) -> Mapping[str, Any]:
        """The options of a node; those of the graph are its root's."""
        return self.graph.options if node is self.graph.root else node.options

    def size_of_item(self, source: Node) -> int:
        """How many rows an item of a map takes, and what starts if it fails."""
        return size_of_item(source, self._sizes)

    def size_of_body(self, body: Body) -> int:
        """How many rows the nodes of a body take."""
        return self._sizes[body]

    def bits(self, node: Node) -> int:
        """Give what a store must know of how a node's end counts."""
        bits = _FORGIVEN if node in self._forgiven else 0
        if node in self._named:
            bits |= _NAMED
        if node.race:
            bits |= _RACE
        if node in self._losers:
            bits |= _OWNED
        if node.inner is not None and self.options_of(node).get("atomic"):
            bits |= _ATOMIC
        if self.policies:
            bits |= _POLICY_BITS.get(self.policies.get(node, ""), 0)
        return bits

    def edges(self, node: Node) -> tuple[Ranges, Ranges]:
        """Give the edges out of a node: those that count its end, and those that don't mind."""
        children: Sequence[Node] = node.children
        lenient: Ranges = ()
        if node in self._followers:
            children = [c for c in children if node not in self._follows.get(c, ())]
        if not node.alarms and not self.graph.soft:  # most graphs
            return ranges(children), lenient
        if node in self.graph.soft:
            lenient = ranges([c for c in children if node in c.optional])
            children = [c for c in children if node not in c.optional]
        if node.alarms:
            heads = [n for a in node.alarms for n in a.nodes if node in n.parents]
            children = [*children, *heads]
        return ranges(children), lenient

    def followers(self, node: Node) -> Ranges:
        """Give the maps that begin with a map, and whose items go along with its items."""
        return ranges(self._followers.get(node, ()))

    def follows(self, node: Node) -> Ranges:
        """Give the maps with whose items those of a map go along."""
        return ranges(self._follows.get(node, ()))


def ranges(nodes: Sequence[Node]) -> Ranges:
    """Pack the indexes of nodes."""
    if len(nodes) < 2:  # most nodes of most graphs
        return ((nodes[0].index, 1),) if nodes else ()
    return ranges_of([n.index for n in nodes])


def bits_of_items(source: Node) -> int:
    """Give what a store must know of how the ends of a map's items count."""
    bits = _ITEM_BITS.get(source.options.get("items", "all"), 0)
    return bits | _OWNED if "need" in source.options else bits


def check_tasks(bodies: Iterable[Body], submitter: Submitter) -> None:
    """Refuse tasks that are not registered with the app.

    Raises
    ------
    UnknownTask
        One is not; the text names its node.
    """
    known: set[TaskSpec] = set()
    for body in bodies:
        for node in body.nodes:
            if node.kind is Kind.TASK and node.spec is not None and node.spec not in known:
                try:
                    submitter.spec(node.spec.name)
                except UnknownTask as err:
                    raise UnknownTask(f"{node.who}: {err}") from None
                known.add(node.spec)


def sizes(bodies: Sequence[Body]) -> dict[Body, int]:
    """Give the number of rows that each body takes, outer ones first in `bodies`."""
    found: dict[Body, int] = {}
    for body in reversed(bodies):
        later = sum(found[group] for group in body.later)
        found[body] = later + sum(size_of(node, found) for node in body.nodes)
    return found


def size_of(node: Node, known: Mapping[Body, int]) -> int:
    """Give the number of rows that a node takes, what is inside it included."""
    size = 1 + sum(known[group] for group in node.later) if node.later else 1
    if node.inner is None or node.lists is not None or node.arms is not None:
        return size
    inside = known[node.inner]
    if node.items is None:
        return size + inside
    return size + len(node.items) * size_of_item(node, known)


def size_of_item(source: Node, known: Mapping[Body, int]) -> int:
    """Give the number of rows that an item of a map takes, and what starts if it fails."""
    assert source.inner is not None
    item = known[source.inner] if is_plain_map(source) else 1 + known[source.inner]
    return item + sum(known[alarm] for alarm in alarms_of_items(source))


def named_and_forgiven(bodies: Iterable[Body]) -> tuple[set[Node], set[Node]]:
    """Find what values name, and whose failure does not count (semantics, section 4)."""
    named: set[Node] = set()
    forgiven: set[Node] = set()
    for body in bodies:
        if body.phase in (Phase.HANDLERS, Phase.FINALLY):
            forgiven.update(body.nodes)
            continue
        named.update(n for n in leaves(body.value) if n.body is body)
        for node in reversed(body.nodes):
            if node in named or not node.children:
                continue
            if all(node in c.optional or c in forgiven or _needs_some(c) for c in node.children):
                forgiven.add(node)
    return named, forgiven


def owned_by_races(bodies: Iterable[Body], named: Set[Node]) -> dict[Node, list[Node]]:
    """Find what leads only to a race, directly or through others (semantics, section 6)."""
    found: dict[Node, list[Node]] = {}
    for body in bodies:
        for race in body.nodes:
            if not race.race:
                continue
            owned = {race}
            for node in reversed(body.nodes):
                if node.children and node not in named and owned.issuperset(node.children):
                    owned.add(node)
            found[race] = [node for node in body.nodes if node in owned and node is not race]
    return found


def policies(bodies: Sequence[Body]) -> dict[Node, str]:
    """Find which failures do not simply block: what is said of each node, or of its graph.

    Parameters
    ----------
    bodies : sequence of Body
        Outer ones first.

    Raises
    ------
    GraphError
        What is said of a node contradicts itself.
    """
    found: dict[Node, str] = {}
    defaults: dict[Body, str] = {}
    for body in bodies:
        owner, default = body.owner, body.policy
        own_world = owner is None or owner.items is not None or owner.spec is not None or body.phase
        if not default and not own_world:
            assert owner is not None
            default = defaults.get(owner.body, "")
        defaults[body] = default
        for node in body.nodes:
            said = node.options.get("failure_policy")
            if "default" in node.options:
                if said not in (None, "continue"):
                    raise GraphError(
                        f"{node.who}: default= implies failure_policy='continue', and {said!r} is "
                        "said; leave one of them out"
                    )
                said = "continue"
            policy = said or default
            fails = node.kind is not Kind.JOIN or node.signal  # no other join has failures
            if policy in ("cancel", "continue") and fails:
                found[node] = policy
    return found


def followed(
    bodies: Iterable[Body], policies: Mapping[Node, str]
) -> tuple[dict[Node, list[Node]], dict[Node, list[Node]]]:
    """Find which maps go item by item along with which, and the same the other way round.

    One that counts as a success with a value of its own is awaited: its list may be that value.
    """
    follows: dict[Node, list[Node]] = {}
    followers: dict[Node, list[Node]] = {}
    for body in bodies:
        for node in body.nodes:
            for one in node.follows:
                if policies.get(one) != "continue":
                    follows.setdefault(node, []).append(one)
                    followers.setdefault(one, []).append(node)
    return follows, followers


def _needs_some(node: Node) -> bool:
    """Whether a node runs as soon as some parents succeeded, so that the others may fail."""
    return node.rule_text == "one_success" or node.rule_text.startswith("at_least")


def priorities(bodies: Sequence[Body], base: int) -> dict[Node, int]:
    """Find final priorities (semantics, section 7): the highest set below, unless set here.

    Parameters
    ----------
    bodies : sequence of Body
        The root's first, and outer ones before inner ones.
    base : int
        The run's priority.
    """
    final: dict[Node, int] = {}
    if all(_set(node) is None for body in bodies for node in body.nodes):  # most graphs
        alike = max(-MAX_PRIORITY, min(MAX_PRIORITY, base))
        return {node: alike for body in bodies for node in body.nodes}
    inside: dict[Node, int | None] = {}
    for body in reversed(bodies):
        if body.owner is not None and body.phase is Phase.BODY:
            every = [_set(n) for n in body.nodes] + [inside.get(n) for n in body.nodes]
            inside[body.owner] = _highest(every)
    root = bodies[0].owner
    below: dict[Node, int | None] = {}
    for body in bodies:
        owner = body.owner
        around = None
        if owner is not None and owner is not root:
            around = _highest((_set(owner), below[owner]))
        up: dict[Node, int | None] = {}
        for node in reversed(body.nodes):
            down = _highest([around, *(up[c] for c in node.children)])
            below[node] = down
            up[node] = _highest((_set(node), inside.get(node), down))
            own = node.options.get("priority")
            if own is None:
                own = _highest((_set(node), down)) or 0
            final[node] = max(-MAX_PRIORITY, min(MAX_PRIORITY, base + own))
    return final


def _set(node: Node) -> int | None:
    """The priority that is set for a node: its own, else its task's."""
    if node.spec is not None:
        return own_priority(node.spec, node.options)
    found: int | None = node.options.get("priority")
    return found


def _highest(values: Iterable[int | None]) -> int | None:
    return max((v for v in values if v is not None), default=None)


def read_by_others(bodies: Sequence[Body]) -> set[Node]:
    """Find the nodes whose values others are given, through expansions too."""
    read: set[Node] = set()
    for body in bodies:
        for node in body.nodes:
            read.update(node.reads)
            read.update(listed(node))
            if body.phase is Phase.HANDLERS:
                read.update(_told_values(node))
    for body in bodies:  # outer ones first
        if body.owner in read:
            read.update(leaves(body.value))
    return read


def _told_values(node: Node) -> Iterator[Node]:
    """The nodes of whose values a handler is told."""
    for value in (*node.edges.values(), *(node.lists or ())):
        if type(value) is Told and value.value and value.node.inner is not None:
            yield from leaves(value.node.inner.value)
