# SPDX-License-Identifier: MIT
"""The rows of a plan: of a graph, of an item of a map, of an arm.

Rows lie in topological order, each expansion before what is inside it; a map's items lie next to
each other, and their insides behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from flowq.errors import Failure, GraphError
from flowq.fragment import blocking, share_of
from flowq.limits import Limits, bind, of_run
from flowq.lower.carriers import branch_message, map_message
from flowq.lower.facts import Facts, bits_of_items, ranges
from flowq.lower.later import after, following, later_of
from flowq.lower.messages import Messages, Packing
from flowq.lower.templates import Captured, CarriedTemplates, Templates, reads_of
from flowq.message import NO_NODE, Items, Message, Seq, Template, encode_template
from flowq.node import Body, Node, alarms_of_items, is_plain_map
from flowq.plan import (
    INNER,
    ROOT,
    Bits,
    Kind,
    Later,
    NodeRow,
    Phase,
    Ranges,
    When,
    encode_rows,
    indexes,
    ranges_of,
)
from flowq.policy import MAX_PRIORITY
from flowq.states import Rule

__all__ = ["MAX_NAME", "Rows"]

MAX_NAME: Final = 200
"""How long the name of a node may be, with all that it stands in."""
_ALONE: Final = Rule(0, 0, 0, 0, 0)
Steps = list[tuple[Any, ...]]
"""What is to be made next, in order: methods of `Rows` with their arguments."""


class Rows:
    """The rows of one plan.

    Parameters
    ----------
    facts : Facts
    messages : Messages
    first : int
        The index of its first row.
    above : str
        What will be put before its names when the run runs.
    """

    def __init__(self, facts: Facts, messages: Messages, first: int, above: str = "") -> None:
        self._facts = facts
        self._messages = messages
        self._templates = messages.templates
        self._first = first
        self._above = above
        self._rows: list[NodeRow] = []
        self._blocked: dict[int, bytes] = {}
        self._limits: dict[int, Limits] = {}

    @classmethod
    def of(cls, facts: Facts, run: bytes = b"") -> Rows:
        """Begin the plan of a whole graph: of the run with that id, or of what a node becomes."""
        messages = Messages(Packing(facts), Templates(facts), run)
        return cls(facts, messages, ROOT if run else INNER)

    def graph(self, root: Node, item_path: str, prefix: str = "") -> list[NodeRow]:
        """Make the rows of a whole graph.

        Parameters
        ----------
        root : Node
        item_path : str
            If the graph is a map: what names of its items begin with.
        prefix : str
            What names of all other nodes begin with.
        """
        self._rows = [None] * self._facts.size(root)  # type: ignore[list-item]
        root.index = self._first
        self._emit((self._expansion, root, NO_NODE, "", item_path, prefix))
        return self._rows

    def arm(self, body: Body) -> list[NodeRow]:
        """Make the rows of an arm; the first is the branch that becomes it."""
        self._rows = [None] * (1 + self._facts.size_of_body(body))  # type: ignore[list-item]
        self._lay_out(body, INNER + 1)
        label = body.owner.name if body.owner is not None else ""  # for pictures alone
        self._rows[0] = self._face(body, label, NO_NODE, INNER)
        self._emit((self._body, body, INNER, ""), *self._steps(after(body.later, ""), INNER))
        return self._rows

    def item(self, source: Node) -> list[NodeRow]:
        """Make the rows of one item of a map whose list is not known; the first is the item."""
        body, alarms = source.inner, alarms_of_items(source)
        assert body is not None
        self._rows = [None] * self._facts.size_of_item(source)  # type: ignore[list-item]
        bits = bits_of_items(source)
        steps: Steps
        if is_plain_map(source):
            (node,) = body.nodes
            node.index = INNER
            self._lay_later(alarms, self._lay_later(node.later, INNER + 1))
            self._task(node, NO_NODE, "", None, bits)
            steps = self._steps(following(node.later, "/"), INNER)
        else:
            self._lay_later(alarms, self._lay_out(body, INNER + 1))
            self._rows[0] = self._face(body, "", NO_NODE, INNER, bits)
            steps = [(self._body, body, INNER, "/")]
            steps += self._steps(after(body.later, "/"), INNER)
        # alarms about the item stand beside it
        self._emit(*steps, *self._steps(following(alarms, "/"), NO_NODE))
        return self._rows

    # --- expansions ------------------------------------------------------------------------------

    def _emit(self, *first: tuple[Any, ...]) -> None:
        """Make the rows of an expansion and of all inside it.

        The nodes of a map's body stand for the item that is being made, so one item is finished,
        with all inside it, before the next begins: a stack, not a queue.
        """
        todo = list(reversed(first))
        while todo:
            step, *args = todo.pop()
            todo.extend(reversed(step(*args)))
        for index, blocked in self._blocked.items():
            at = index - self._first
            self._rows[at] = msgspec.structs.replace(self._rows[at], blocked=blocked)
        if self._limits:
            bind(self._rows, self._first, self._limits)

    def _steps(
        self, groups: Sequence[tuple[Body, str]], owner: int, place: int | None = None
    ) -> Steps:
        """Give what is to be made of what runs later."""
        return [(self._body, body, owner, path, place) for body, path in groups]

    def _expansion(self, node: Node, owner: int, path: str, item_path: str, prefix: str) -> Steps:
        """Make the row of an expansion.

        `item_path` is what names of items begin with, `prefix` what names of inner nodes do.
        """
        if node.items is not None:
            return self._map(node, owner, path, item_path)
        body, at = node.inner, node.index
        assert body is not None
        self._lay_out(body, at + 1)
        entries, within, value = self._templates.body(body)
        later, behind = later_of(body.later, self._templates)
        self._put(node, owner, path, entries, (len(body.nodes), within), value, later, behind)
        self._limit(at, prefix.removesuffix("/"), self._facts.options_of(node), node.shared)
        return [
            (self._body, body, at, prefix),
            *self._steps(after(body.later, prefix), at),
        ]

    def _map(self, node: Node, owner: int, path: str, item_path: str) -> Steps:
        """Make the row of a map, and the rows of items that have nothing inside."""
        body, at, items = node.inner, node.index, node.items
        assert body is not None and items is not None
        count, first = len(items), at + 1
        several = sum(node.zipped) > 1 or bool(node.chunk)
        for i, element in enumerate(items):
            if several or type(element) is Failure:
                blocked = blocking(element, several)
                if blocked:
                    self._blocked[first + i] = blocked
        total = sum(map(len, items)) if node.chunk else 0
        only = "need" in node.options
        value = Items(first, count, True, node.chunk, total, only) if count else Seq(())
        all_items = ((first, count),) if count else ()
        alarms, inside = alarms_of_items(node), self._facts.size_of_item(node) - 1
        behind = first + count
        self._lay_later(node.later, behind + count * inside)
        later, behind_all = later_of(node.later, self._templates)
        if alarms and count:
            # those of an item lie behind what is inside it
            size = sum(self._facts.size_of_body(alarm) for alarm in alarms)
            rung = [
                behind + i * inside + k for i in range(count) for k in range(inside - size, inside)
            ]
            group = Later(Phase.HANDLERS, When.ALWAYS, (), ranges_of(rung), len(rung))
            later, behind_all = (group, *later), [*behind_all, *rung]
        self._put(node, owner, path, all_items, (count, all_items), value, later, behind_all)
        todo = self._steps(following(node.later, f"{item_path}/"), at)
        if is_plain_map(node):
            if not (inside or body.nodes[0].later):
                self._plain_items(node, item_path)
                return todo
            step = self._plain_item
        else:
            step = self._item
        return [
            *((step, node, i, behind + i * inside, f"{item_path}[{i}]") for i in range(count)),
            *todo,
        ]

    def _plain_items(self, source: Node, item_path: str) -> None:
        """Make the rows of a map's items where each is one task and nothing follows it."""
        assert source.inner is not None and source.items is not None
        (node,) = source.inner.nodes
        self._checked(f"{item_path}[{len(source.items)}]")
        rows, owner, rule, kind = self._rows, source.index, node.rule, Kind.TASK
        bits, k = bits_of_items(source), source.index + 1 - self._first
        for message, reads in self._messages.items(source, item_path):
            rows[k] = NodeRow(
                message.name, kind, owner, rule, reads=reads, message=message, bits=bits
            )
            k += 1

    def _plain_item(self, source: Node, i: int, inside: int, path: str) -> Steps:
        """Make the row of one item that is a task, and has something that follows it."""
        assert source.inner is not None and source.items is not None
        (node,) = source.inner.nodes
        source.item = (i, source.items[i])
        node.index = source.index + 1 + i
        alarms = alarms_of_items(source)
        self._lay_later(alarms, self._lay_later(node.later, inside))
        place = source.place(i)
        self._task(node, source.index, path, place, bits_of_items(source))
        return [
            *self._steps(following(node.later, f"{path}/"), node.index, place),
            *self._steps(following(alarms, f"{path}/"), source.index, place),
        ]

    def _item(self, source: Node, i: int, inside: int, path: str) -> Steps:
        """Make the row of one item of a map of graphs."""
        body, at = source.inner, source.index + 1 + i
        assert body is not None and source.items is not None
        source.item = (i, source.items[i])
        self._lay_later(body.alarms, self._lay_out(body, inside))
        self._rows[at - self._first] = self._face(
            body, path, source.index, at, bits_of_items(source)
        )
        return [
            (self._body, body, at, f"{path}/"),
            *self._steps(after(body.later, f"{path}/"), at, i),
            *self._steps(following(body.alarms, f"{path}/"), source.index, i),
        ]

    def _lay_out(self, body: Body, at: int) -> int:
        """Give the nodes of a body, and of what follows it, their indexes; the first one free."""
        for node in body.nodes:
            node.index = at
            at += self._facts.size(node)
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
        behind: Sequence[int],
    ) -> None:
        """Make the row of an expansion that stands in the graph."""
        inner, within = body
        children, lenient = self._facts.edges(node)
        self._rows[node.index - self._first] = NodeRow(
            path,
            Kind.EXPANSION,
            owner,
            node.rule,
            ranges(node.parents),
            children,
            entries=entries,
            inner=inner,
            value=encode_template(value),
            bits=self._facts.bits(node),
            phase=node.body.phase,
            body=ranges_of((*indexes(within), *behind)) if behind else within,
            lenient=lenient,
            later=later,
            tolerate=share_of(node.options.get("tolerate", 0), inner),
            need=node.options.get("need", 0),
            most=node.options.get("max_parallel", 0) if node.items is not None else 0,
            deadline_ms=_deadline(self._facts.options_of(node)),
            followers=self._facts.followers(node),
        )

    def _face(self, body: Body, path: str, owner: int, at: int, bits: int = 0) -> NodeRow:
        """Make the row of an item of a map, or of an arm: what others see of its body."""
        if body.face is not None:
            body.face.index = at
        entries, within, value = self._templates.body(body)
        later, behind = later_of(body.later, self._templates)
        alarms = [n for a in body.alarms for n in a.nodes if a.about in n.parents]
        options = body.face.options if body.face is not None else {}
        if options.get("atomic"):
            bits |= Bits.ATOMIC
        if body.face is not None:
            self._limit(at, path, options, body.face.shared)
        return NodeRow(
            path,
            Kind.EXPANSION,
            owner,
            _ALONE,
            children=ranges(alarms),
            entries=entries,
            inner=len(body.nodes),
            value=encode_template(value),
            bits=bits,
            body=ranges_of((*indexes(within), *behind)) if behind else within,
            later=later,
            deadline_ms=_deadline(options),
        )

    def _limit(self, at: int, path: str, options: Mapping[str, Any], shared: Limits) -> None:
        """Take note of the limits of an expansion: its own in the run, and those of the store."""
        limits = (*of_run(path, options.get("max_parallel")), *shared)
        if limits:
            self._limits[at] = limits

    # --- nodes -----------------------------------------------------------------------------------

    def _body(self, body: Body, owner: int, prefix: str, place: int | None = None) -> Steps:
        """Make the rows of the nodes of a body."""
        todo: Steps = []
        if body.owner is not None and body.owner.items and body.phase is Phase.BODY:
            place = body.owner.item[0]
        alone = body.phase is Phase.FALLBACK and len(body.nodes) == 1
        for node in body.nodes:
            path = self._checked(prefix[:-1] if alone else prefix + node.name)
            if node.lists is not None or node.arms is not None:
                todo.extend(self._carrier(node, owner, path))
            elif node.inner is not None:
                todo.append((self._expansion, node, owner, path, path, f"{path}/"))
            elif node.kind is Kind.TASK:
                if node.later:
                    self._lay_later(node.later, node.index + 1)
                    todo.extend(self._steps(following(node.later, f"{path}/"), node.index, place))
                self._task(node, owner, path, place, self._facts.bits(node))
            else:
                row = self._row(node, owner, path, node.kind, None, (), self._facts.bits(node))
                self._rows[node.index - self._first] = self._as_join(node, row)
        return todo

    def _as_join(self, node: Node, row: NodeRow) -> NodeRow:
        """Say what only some joins do: decide a race, sleep, wait for what is sent."""
        if node.race:
            return msgspec.structs.replace(row, owns=ranges(self._facts.owned[node]))
        if node.sleep_ms:
            return msgspec.structs.replace(row, sleep_ms=node.sleep_ms)
        if node.signal:
            value = b""
            if node.instead:
                value = self._messages.packing.value(node.instead[0], f"the default of {node.who}")
            signal, timeout = node.signal, node.timeout_ms
            return msgspec.structs.replace(row, signal=signal, timeout_ms=timeout, value=value)
        return row

    def _task(self, node: Node, owner: int, path: str, place: int | None, bits: int) -> None:
        """Make the row of a task."""
        message, reads = self._messages.task(node, path, place)
        self._rows[node.index - self._first] = self._row(
            node, owner, path, Kind.TASK, message, reads, bits
        )

    def _row(
        self,
        node: Node,
        owner: int,
        path: str,
        kind: Kind,
        message: Message | None,
        reads: Ranges,
        bits: int,
    ) -> NodeRow:
        """Make the row of what is no expansion, with what follows it."""
        children, lenient = self._facts.edges(node)
        row = NodeRow(
            path,
            kind,
            owner,
            node.rule,
            ranges(node.parents),
            children,
            reads,
            message,
            bits=bits,
            phase=node.body.phase,
            lenient=lenient,
        )
        if node.later:
            later, behind = later_of(node.later, self._templates)
            row = msgspec.structs.replace(row, later=later, body=ranges_of(behind))
        return row

    def _carrier(self, node: Node, owner: int, path: str) -> Steps:
        """Make the row of a node whose message carries what it may become."""
        priority = self._facts.priorities[node]
        if node.arms is not None:
            message = branch_message(self._messages, node, path, priority, self._carried)
        else:
            root = self._facts.graph.root.inner
            assert root is not None
            if self._facts.follows(node):  # not behind all those with whose ends it is to go along
                priority = min(MAX_PRIORITY, priority + 1)
            message = map_message(self._messages, node, path, priority, root, self._carried)
        self._lay_later(node.later, node.index + 1)
        reads = reads_of(message.bindings)
        row = self._row(node, owner, path, Kind.TASK, message, reads, self._facts.bits(node))
        if node.items is not None:
            followers, follows = self._facts.followers(node), self._facts.follows(node)
            row = msgspec.structs.replace(row, followers=followers, follows=follows)
        self._rows[node.index - self._first] = row
        return self._steps(following(node.later, f"{path}/"), node.index)

    def _carried(self, body: Body, source: Node | None, captured: Captured, path: str) -> bytes:
        """Make the plan of an arm, or of an item of a map, which a message carries."""
        inside = _bodies(body, alarms_of_items(source) if source is not None else ())
        templates = CarriedTemplates(self._templates, inside, captured, source)
        messages = Messages(self._messages.packing, templates, b"")
        rows = Rows(self._facts, messages, INNER, self._above + path)
        return encode_rows(rows.arm(body) if source is None else rows.item(source))

    def _checked(self, path: str) -> str:
        """Give a path back if it is short enough, with what is put before it when the run runs."""
        if len(self._above) + len(path) > MAX_NAME:
            raise GraphError(
                f"the name {self._above + path!r} is over {MAX_NAME} characters; give shorter names"
            )
        return path


def _deadline(options: Mapping[str, Any]) -> int:
    return int(options.get("deadline", 0) * 1000)


def _bodies(body: Body, alarms: Sequence[Body]) -> set[Body]:
    """Find a body and alarms, and all that stands in them or follows them."""
    found: set[Body] = set()
    todo = [body, *alarms]
    while todo:
        at = todo.pop()
        found.add(at)
        todo.extend(at.later)
        todo.extend(group for n in at.nodes for group in n.later)
        todo.extend(n.inner for n in at.nodes if n.inner is not None)
    return found
