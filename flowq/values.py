# SPDX-License-Identifier: MIT
"""From cells to Python values: what a node reads, what a handle gives.

A template says how a value is put together; cells hold the pieces. Where a piece has no value, a
`Failure`, `Skipped`, `Cancelled` or `Pending` stands in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from flowq.along import Followed, spread
from flowq.chunks import calls
from flowq.errors import (
    Cancelled,
    DecodeError,
    Failure,
    FlowqError,
    NotProduced,
    Pending,
    RunCancelled,
    Skipped,
    error_of,
)
from flowq.message import (
    CULPRIT,
    EMPTY,
    NO_NODE,
    TEMPLATE,
    Cause,
    Cell,
    Const,
    Data,
    Delivery,
    Else,
    Items,
    Lit,
    Message,
    Ref,
    Seq,
    Template,
    Value,
    decode_message,
    decode_template,
    id_bytes,
    id_text,
    node_id,
    nodes_of,
    read_cell,
)
from flowq.message import Mapping as MappingTemplate
from flowq.plan import ROOT, ranges_of
from flowq.serializer import Serializer
from flowq.states import State
from flowq.storage.base import Store

__all__ = [
    "MISSING",
    "Values",
    "failure_of",
    "load_args",
    "raise_for",
    "said_of",
    "share",
    "value_of",
]

_value = msgspec.msgpack.Decoder(Value).decode
_failure = msgspec.msgpack.Decoder(Failure).decode

MISSING = (Failure, Skipped, Cancelled, Pending)
"""What stands where a value is missing."""


def value_of(cell: Cell, serializer: Serializer) -> Any:
    """Give the value in the cell of a success.

    Raises
    ------
    DecodeError
        The bytes are broken, or of a codec that this app does not use.
    """
    if cell.flags & EMPTY:
        return None
    try:
        return serializer.loads(_value(cell.body).payload)
    except msgspec.MsgspecError as err:
        raise DecodeError(f"a result that cannot be read: {err}") from None


def failure_of(cell: Cell) -> Failure:
    """Give the failure in the cell of a task that failed."""
    try:
        return _failure(cell.body)
    except msgspec.MsgspecError as err:
        raise DecodeError(f"a failure that cannot be read: {err}") from None


class Values:
    """The values of one run's nodes, read from its store as far as they are needed.

    Parameters
    ----------
    store : Store
    run : bytes
        16 bytes: the run's id.
    serializer : Serializer
    cells : mapping of int to bytes
        Cells that are at hand already.
    complete : bool
        Whether a node that is not among `cells` has none (it has not ended).
    task : str
        For a task that was called alone: its name, if it is known.
    """

    def __init__(
        self,
        store: Store,
        run: bytes,
        serializer: Serializer,
        cells: Mapping[int, bytes] | None = None,
        complete: bool = False,
        task: str = "",
    ) -> None:
        self._task = task
        self._store = store
        self._run = run
        self._serializer = serializer
        self._cells: dict[int, bytes | None] = dict(cells or {})
        self._complete = complete
        self._telling: set[str] = set()

    def resolve(self, template: Template, pool: Sequence[Any] = ()) -> Any:
        """Put a value together.

        Raises
        ------
        LookupError, TypeError
            An item that a reference asks for is not in the value.
        """
        self._fetch(nodes_of(template), self._complete)
        return self._build(template, pool)

    def load(self, nodes: Iterable[int]) -> None:
        """Read the cells of some nodes at once, for `node`."""
        self._fetch(nodes, False)

    def cell(self, node: int) -> Cell | None:
        """Give the cell of a node, or None if it has not ended."""
        self._fetch((node,), False)
        raw = self._cells.get(node)
        return None if raw is None else read_cell(raw)

    def node(self, node: int) -> Any:
        """Give the value of a node, or what stands in its place.

        Of one that the reader follows: its items, as a `Followed`.
        """
        raw = self._cells.get(node)
        if raw is None:
            return self._named(Pending, node)
        cell = read_cell(raw)
        if cell.state == State.EXPANDED:
            return Followed.read(node, decode_template(cell.body))
        if cell.state == State.SUCCESS:
            if cell.flags & TEMPLATE:
                inner = decode_template(cell.body)
                self._fetch(nodes_of(inner), False)
                return self._build(inner, ())
            return self._value(cell, node)
        if cell.flags & CULPRIT:
            return self.blame(cell)
        if cell.state in (State.FAILED, State.BLOCKED):
            return failure_of(cell)
        kind = Skipped if cell.state == State.SKIPPED else Cancelled
        return self._named(kind, node, cell.body.decode("utf-8", "replace"))

    def _succeeded(self, node: int) -> bool:
        raw = self._cells.get(node)
        return raw is not None and read_cell(raw).state == State.SUCCESS

    def _value(self, cell: Cell, node: int) -> Any:
        try:
            return value_of(cell, self._serializer)
        except DecodeError as err:
            # a class that is not there, or fails when it is made: found by who reads it first
            raise DecodeError(f"the result of {said_of(*self._who(node))}: {err}") from (
                err.__cause__ or err
            )

    def blame(self, cell: Cell) -> Failure | Cancelled:
        """Follow a culprit to the failure that it names."""
        seen, index = 0, ROOT
        while cell.flags & CULPRIT:
            index = int.from_bytes(cell.body[:4], "big")
            found = None if index == NO_NODE else self.cell(index)
            seen += 1
            if found == cell:
                return Failure(*self._who(index), "need", "", "fewer items succeeded than it needs")
            if found is None or seen > 1_000:
                where = id_text(node_id(self._run, index)) if index != NO_NODE else "?"
                return Failure("", where, None, "error", "", "failed; the cause is not kept")
            cell = found
        if cell.state not in (State.FAILED, State.BLOCKED):
            return Cancelled(*self._who(index), cell.body.decode("utf-8", "replace"))
        return failure_of(cell)

    def _fetch(self, nodes: Iterable[int], complete: bool) -> None:
        if complete:
            return
        lacking = [n for n in nodes if n not in self._cells]
        if lacking:
            found = self._store.cells(self._run, ranges_of(lacking))
            self._cells.update((n, found.get(n)) for n in lacking)

    def _named(self, kind: type[Any], node: int, *reason: str) -> Any:
        return kind(*self._who(node), *reason)

    def _who(self, node: int) -> tuple[str, str, str | None]:
        """Task, id and name of a node; a task that was called alone has no name, a run no task."""
        info = self._store.nodes(self._run, after=node - 1, limit=1)
        if info:
            id = node_id(self._run, node) if node else self._run
            return info[0].task, id_text(id), info[0].name
        if not self._task and (raw := self._store.message(self._run)) is not None:
            with suppress(DecodeError):  # then it has no name that could be told
                self._task = decode_message(raw).task
        return self._task, id_text(self._run), None

    def _or_else(self, template: Else, pool: Sequence[Any]) -> Any:
        value = self._build(template.of, pool)
        if not isinstance(value, MISSING) or type(value) is Pending:
            return value
        if not template.own:
            return self._build(template.instead, pool)
        of = template.of
        raw = self._cells.get(of.node) if isinstance(of, Ref) else None
        if raw is None or read_cell(raw).state != State.FAILED:
            return value  # something above it failed, or it was skipped or cancelled
        value = self._build(template.instead, pool)
        for key in of.path if isinstance(of, Ref) else ():
            value = value[key]
        return value

    def _cause(self, node: int) -> Any:
        """The failure of a node, with the arguments of the task to blame, as far as they are kept.

        What keeps them from being read is told by that task's own failure; who is told of it is
        not to fail as well. A fallback that failed was called with the failure that its own is
        now in the place of: that one is not kept.
        """
        failure = self.node(node)
        if not isinstance(failure, Failure):
            return failure
        if failure.id in self._telling:
            raise LookupError("the failure that it was called with is not kept")
        self._telling.add(failure.id)
        try:
            with suppress(Exception):  # the values' own code is in it
                raw = self._store.message(id_bytes(failure.id))
                if raw is not None:
                    message = decode_message(raw)
                    self._fetch((n for b in message.bindings for n in nodes_of(b.value)), False)
                    args, kwargs = self.arguments(message)
                    if message.chunk and failure.index is not None:
                        at = failure.index - (message.index or 0)
                        args, kwargs = list(calls(args, kwargs, message.chunk))[at]
                    return msgspec.structs.replace(failure, args=tuple(args), kwargs=kwargs)
            return failure
        finally:
            self._telling.discard(failure.id)

    def arguments(self, message: Message) -> tuple[list[Any], dict[str, Any]]:
        """Give what a task is called with: what its payload holds, and what comes over edges."""
        loaded = self._serializer.loads(message.payload)
        try:
            args, kwargs, pool = loaded if len(loaded) == 3 else (*loaded, ())
            args = list(args)
        except (TypeError, ValueError):
            raise DecodeError("a payload that holds no arguments") from None
        for binding in message.bindings:
            value = self.resolve(binding.value, pool)
            if binding.spread:
                assert isinstance(binding.to, int)
                args[binding.to :] = spread(value, binding.forced, message.index)
            elif isinstance(binding.to, int):
                args[binding.to] = value
            else:
                kwargs[binding.to] = value
        return args, kwargs

    def _build(self, template: Template, pool: Sequence[Any]) -> Any:
        if isinstance(template, Ref):
            value = self.node(template.node)
            if isinstance(value, MISSING):
                return value
            for key in template.path:
                value = value[key]
            return value
        if isinstance(template, Items):
            nodes = list(range(template.first, template.first + template.count))
            if template.only:
                nodes = [i for i in nodes if self._succeeded(i)]
            values = [self.node(i) for i in nodes]
            if template.chunk and template.only:
                values = [value for part in values for value in part]
            elif template.chunk:
                values = list(_joined(values, template.chunk, template.total))
            return [v for v in values if type(v) is not Skipped] if template.drop else values
        if isinstance(template, Lit):
            return pool[template.index]
        if isinstance(template, Const):
            return template.value
        if isinstance(template, Else):
            return self._or_else(template, pool)
        if isinstance(template, Data):
            return self._serializer.loads(template.payload)
        if isinstance(template, Cause):
            return self._cause(template.node)
        if isinstance(template, Seq):
            made = [self._build(item, pool) for item in template.items]
            return tuple(made) if template.tuple_ else made
        if isinstance(template, MappingTemplate):
            return {self._build(k, pool): self._build(v, pool) for k, v in template.items}
        raise DecodeError(f"a value that was never filled in: {template!r}")


def _joined(chunks: Iterable[Any], size: int, total: int) -> Iterator[Any]:
    """Go through the elements of chunks; what stands for a chunk does so for each of them."""
    for k, value in enumerate(chunks):
        if isinstance(value, MISSING):
            yield from [value] * min(size, total - k * size)
        else:
            yield from value


def share(deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
    """Let deliveries of one step that read the same nodes of a run have what one of them was given.

    A store gives each cell as far as its reply has room; what is over, each would ask for again.
    They share bytes, of which each makes a value of its own.
    """
    if all(d.complete for d in deliveries):
        return deliveries
    cells: dict[bytes, dict[int, bytes]] = {}
    for d in deliveries:
        cells.setdefault(d.id[:16], {}).update(d.values)
    return [
        d if d.complete else msgspec.structs.replace(d, values=cells[d.id[:16]]) for d in deliveries
    ]


def load_args(
    message: Message, delivery: Delivery, store: Store, serializer: Serializer
) -> tuple[list[Any], dict[str, Any]]:
    """Give the arguments of a delivery: what its payload holds, and what comes over edges.

    Raises
    ------
    DecodeError
        The payload cannot be read.
    LookupError, TypeError
        An item that an edge asks for is not in the value of the node above.
    """
    values = Values(store, message.id[:16], serializer, delivery.values, delivery.complete)
    return values.arguments(message)


def said_of(task: str, id: str, node: str | None) -> str:
    """Say in words what a task, node or run is."""
    if node is None:
        return f"task {task} ({id})" if task else f"task {id}"
    if ":" not in id:
        return f"run {node or id}"
    return f"node {node!r} (task {task}, {id})" if task else f"node {node!r} ({id})"


def raise_for(value: Failure | Skipped | Cancelled | Pending) -> FlowqError:
    """Give the error that a caller sees for what stands in place of a value."""
    if isinstance(value, Failure):
        return error_of(value)
    who = said_of(value.task, value.id, value.node)
    reason = getattr(value, "reason", "")
    if reason == "cancelled" and isinstance(value, Cancelled):
        reason = ""  # by a caller, who gave none
    because = f": {reason}" if reason else ""
    if isinstance(value, Cancelled):
        return RunCancelled(f"{who} was cancelled{because}")
    if isinstance(value, Skipped):
        return NotProduced(f"{who} was skipped, so there is no value{because}")
    return NotProduced(f"{who} has not ended")
