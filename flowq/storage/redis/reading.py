# SPDX-License-Identifier: MIT
"""What people and handles read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from flowq.clock import Clock
from flowq.message import CULPRIT, HEAD, NO_NODE
from flowq.plan import Bits, Kind, Phase, Ranges, indexes
from flowq.states import Rule, State
from flowq.storage.base import (
    DeadLetter,
    Look,
    NodeInfo,
    Places,
    QueueInfo,
    RunInfo,
    Sent,
    SessionInfo,
    Status,
)  # fmt: skip
from flowq.storage.redis.connection import Connections
from flowq.storage.redis.heads import (
    NodeHead,
    message_of,
    read_dead,
    read_info,
    read_run,
    read_sent,
)  # fmt: skip
from flowq.storage.redis.rows import EXPANSION, PASSED, RECORD, read_ranges

__all__ = ["Reading"]

_CELL_BYTES: Final = 4 * 1024 * 1024
_FIELDS: Final = 250
_NODES: Final = 500
_HOLDERS: Final = 100
_PARKED: Final = 4
"""In the bits of a row: nobody is to see its end."""
_CLOSING: Final = 4
"""In the mode of a record: nothing of those whose turn it is begins any more."""
_FAILED: Final = (State.FAILED, State.BLOCKED)


def _i4(index: int) -> bytes:
    return index.to_bytes(4, "big")


class Reading:
    """The reading half of a `RedisStore`."""

    _clock: Clock
    _key: bytes
    _wire: Connections

    def _run(self, script: str, *args: bytes, again: bool = True) -> Any:
        raise NotImplementedError

    def _now(self) -> int:
        raise NotImplementedError

    def look(self, ids: Sequence[bytes], *, cells: bool = True) -> list[Look | None]:
        """Say where ids stand; see `Store.look`."""
        if not ids:
            return []
        out: list[Look | None] = []
        for state, attempt, losses, due, run, cell in self._run(
            "look", b"1" if cells else b"0", *ids
        ):
            if state < 0:
                out.append(None)
            else:
                found = cell if isinstance(cell, bytes) else None
                out.append(Look(State(state), attempt, losses, due, found, run == 1))
        return out

    def cells(self, run: bytes, ranges: Ranges) -> dict[int, bytes]:
        """Read the cells of a run's nodes; see `Store.cells`."""
        found: dict[int, bytes] = {}
        wanted = list(indexes(ranges))
        step = _FIELDS
        at = 0
        while at < len(wanted):
            page = wanted[at : at + step]
            got = self._wire.ask(b"HMGET", self._key + b"v:" + run, *map(_i4, page))
            size = 0
            for index, raw in zip(page, got, strict=True):
                if raw is not None:
                    found[index] = raw[5:]
                    size += len(raw)
            at += len(page)
            # Few at a time where they are large, many where they are small.
            step = max(1, min(4 * step, 4_000, _CELL_BYTES * len(page) // (size + 1)))
        return found if found and self.run(run) else {}

    def message(self, id: bytes) -> bytes | None:
        """Give an encoded message; see `Store.message`."""
        if len(id) == 16:
            row = self._wire.ask(b"HGET", self._key + b"m", id)
            if row is None:  # it may have become a run
                row = self._wire.ask(b"HGET", self._key + b"n:" + id, _i4(0))
        else:
            row = self._wire.ask(b"HGET", self._key + b"n:" + id[:16], id[16:])
            if row is not None and self.run(id[:16]) is None:
                row = None
        if row is None:
            letter = self.dead_letter(id)
            return letter.body if letter else None
        return message_of(row) or None

    def recall(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Give what is remembered under keys; see `Store.recall`."""
        if not keys:
            return []
        found = self._wire.ask(b"MGET", *(self._key + b"cache:" + key for key in keys))
        fixed = self._clock.fixed_ms()  # else the server itself forgets in time
        return [
            None if raw is None or 0 < int.from_bytes(raw[:6], "big") <= fixed else raw[6:]
            for raw in found
        ]

    def run(self, id: bytes) -> RunInfo | None:
        """Describe one run, or None."""
        return next(self._runs([id]), None)

    def _runs(self, ids: Sequence[bytes]) -> Iterator[RunInfo]:
        """Describe those of these runs that are known."""
        found = self._run("runs", *ids)
        for id, head, root, state, cell, paused, changes, request in zip(
            ids, *(found[k::7] for k in range(7)), strict=True
        ):
            if not state:
                continue
            created, nodes, name = read_run(head)
            ended = HEAD.unpack_from(cell, 5)[3] if state[0] >= State.SUCCESS and cell else 0
            value = NodeHead(root).value
            yield RunInfo(
                id,
                name,
                State(state[0]),
                created,
                ended,
                nodes - 1,
                value,
                paused == 1,
                int(changes),
                request,
            )

    def nodes(
        self, run: bytes, *, after: int = -1, limit: int = 500, state: State | None = None
    ) -> list[NodeInfo]:
        """List nodes of a run by index; see `Store.nodes`."""
        found: list[NodeInfo] = []
        first = after + 1
        while len(found) < limit:
            want = _NODES if state is not None else min(_NODES, limit - len(found))
            records, *rest = self._run("nodes", run, b"%d" % first, b"%d" % want)
            for k, one in enumerate(rest):
                if not one[0]:
                    continue  # an index that a lost delivery had taken
                info = _node_info(first + k, records, k, one)
                if state is None or info.state == state:
                    found.append(info)
            if len(rest) < want:
                break
            first += want
        return found[:limit]

    def started(
        self, id: bytes, *, after: bytes = b"", limit: int = 500
    ) -> list[tuple[bytes, bytes]]:
        """List what bodies have started; see `Store.started`."""
        found = self._run("started", id, after, b"%d" % limit)
        return [(id + index, child) for child, index in zip(found[::2], found[1::2], strict=True)]

    def places(self, id: bytes) -> list[Places]:
        """Describe the limits of a node; see `Store.places`."""
        if len(id) != 20:
            return []
        return [
            Places(key.decode(), most, taken, holders, waiting)
            for key, most, taken, waiting, holders in self._run("places", id, b"%d" % _HOLDERS)
        ]

    def runs(self, *, after: bytes = b"", limit: int = 100) -> list[RunInfo]:
        """List runs, newest first; see `Store.runs`."""
        ids = self._listed(b"runs", after, limit)
        return list(self._runs(ids)) if ids else []

    def sent(self, run: bytes) -> list[Sent]:
        """List what was sent to a run; see `Store.sent`."""
        count = int(self._wire.ask(b"HGET", self._key + b"n:" + run, b"I") or 0)
        if not count or self.run(run) is None:
            return []
        found: list[Sent] = []
        for first in range(1, count + 1, _FIELDS):
            numbers = range(first, min(first + _FIELDS, count + 1))
            fields = [b"i" + _i4(number) for number in numbers]
            raws = self._wire.ask(b"HMGET", self._key + b"n:" + run, *fields)
            found += [read_sent(raw) for raw in raws if raw]
        return found

    def _listed(self, what: bytes, after: bytes, limit: int) -> list[bytes]:
        start = b"+inf"
        if after:
            score = self._wire.ask(b"ZSCORE", self._key + what, after)
            start = b"(" + score if score is not None else b"+inf"
        ids: list[bytes] = self._wire.ask(
            b"ZRANGE", self._key + what, start, b"-inf", b"BYSCORE", b"REV",
            b"LIMIT", b"0", b"%d" % limit,
        )  # fmt: skip
        return ids

    def sessions(self) -> list[SessionInfo]:
        """List the sessions whose deadline has not passed."""
        flat = self._wire.ask(
            b"ZRANGE", self._key + b"L", b"(%d" % self._now(), b"+inf", b"BYSCORE", b"WITHSCORES"
        )
        out = []
        for name, deadline in zip(flat[::2], flat[1::2], strict=True):
            key = self._key + b"w:" + name
            who, alone = self._wire.ask(b"HMGET", key, b"i", b"b")
            held = self._wire.ask(b"HLEN", key) - (who is not None) - (alone is not None)
            info = read_info(name.decode(), who)
            out.append(_filled(info, int(float(deadline)), max(held, 0)))
        return out

    def status(self) -> Status:
        """Count."""
        scheduled, running, dead, runs, *queues = self._run("status")
        named = sorted(zip(queues[::2], queues[1::2], strict=True))
        return Status(
            [QueueInfo(name.decode(), ready) for name, ready in named],
            scheduled, running, dead, runs,
        )  # fmt: skip

    def left(self, queues: Sequence[str]) -> bool:
        """Say whether anything is to run; see `Store.left`."""
        names = [queue.encode() for queue in queues]
        at: tuple[bytes, ...] = b"0", b"0"
        while at:
            found, *more = self._run("left", *at, *names)
            if found:
                return True
            at = tuple(x if isinstance(x, bytes) else b"%d" % x for x in more)
        return False

    def dead(self, *, after: bytes = b"", limit: int = 100) -> list[DeadLetter]:
        """List dead letters, newest first; see `Store.dead`."""
        ids = self._listed(b"deads", after, limit)
        return list(self._letters(ids)) if ids else []

    def dead_letter(self, id: bytes) -> DeadLetter | None:
        """Give one dead letter, or None."""
        return next(self._letters([id]), None)

    def _letters(self, ids: Sequence[bytes]) -> Iterator[DeadLetter]:
        """Give those of these dead letters that are known."""
        found = self._wire.ask(b"HMGET", self._key + b"dead", *ids)
        there = [(id, raw) for id, raw in zip(ids, found, strict=True) if raw is not None]
        runs = {id[:16] for id, _ in there if len(id) > 16}
        known = {run.id for run in self._runs([*runs])} if runs else runs
        now = self._now() if there else 0
        for id, raw in there:
            till, letter = read_dead(id, raw)
            if id[:16] in known if len(id) > 16 else till > now:
                yield letter

    def check(self, run: bytes) -> list[str]:
        """Compare a run's counts with its nodes' states; see `Store.check`."""
        records = self._wire.ask(b"GET", self._key + b"c:" + run)
        if records is None:
            return ["the run is not known"]
        left = self._wire.ask(b"LRANGE", self._key + b"todo", b"0", b"-1")
        if any(raw[:16] == run for raw in left):
            return []  # ends whose edges are not all counted: nothing can be said yet
        heads = self._heads(run, len(records) // RECORD.size)
        raw = self._wire.ask(b"HGET", self._key + b"n:" + run, b"X") or b""
        known = bytearray(records)
        for i in indexes(read_ranges(raw)):  # of fragments on their way, or of lost deliveries
            heads[i] = None
            known[i * RECORD.size : (i + 1) * RECORD.size] = bytes(RECORD.size)
        over = {
            i
            for i, head in enumerate(heads)
            if head
            and head.bits & _PARKED
            and self._wire.ask(b"HEXISTS", self._key + b"n:" + run, b"p" + _i4(i))
        }
        return [*_check(bytes(known), heads, over), *self._check_places(run, known, heads)]

    def _check_places(
        self, run: bytes, records: bytearray, heads: Sequence[NodeHead | None]
    ) -> Iterator[str]:
        """Compare how many are under way in bounded expansions with what their nodes say."""
        for i, head in enumerate(heads):
            if not head or not head.most or records[i * RECORD.size] != State.EXPANDED:
                continue
            raw = self._wire.ask(b"HGET", self._key + b"n:" + run, b"m" + _i4(i))
            counted = int.from_bytes((raw or bytes(4))[:4], "big")
            body = (k for k, x in enumerate(heads) if x and x.owner == i and not x.phase)
            states = [State(records[k * RECORD.size]) for k in body]
            true = sum(not x.final and x != State.WAITING for x in states)
            if true != counted:
                yield f"expansion {i} counts {counted} under way, its nodes' states say {true}"

    def _heads(self, run: bytes, count: int) -> list[NodeHead | None]:
        out: list[NodeHead | None] = []
        for first in range(0, count, _NODES):
            page = [_i4(i) for i in range(first, min(first + _NODES, count))]
            rows = self._wire.ask(b"HMGET", self._key + b"n:" + run, *page)
            out += [None if row is None else NodeHead(row) for row in rows]
        return out


def _filled(info: SessionInfo, deadline: int, held: int) -> SessionInfo:
    values = {name: getattr(info, name) for name in info.__struct_fields__}
    return SessionInfo(**{**values, "deadline_ms": deadline, "held": held})


def _node_info(index: int, records: bytes, k: int, one: list[Any]) -> NodeInfo:
    head_raw, task, cell, attempt, losses, scheduled, since, waits_at, over = one
    record = RECORD.unpack_from(records, k * RECORD.size)
    stored, generation, flags, _, _, _, ready, *_, mode = record
    state = State(stored)
    if state == State.QUEUED:
        state = State.SCHEDULED if scheduled else State.RUNNING if since else State.QUEUED
    head = NodeHead(head_raw)
    started, ended, culprit = since, 0, None
    if len(cell) >= HEAD.size:
        kind, _, started, ended = HEAD.unpack_from(cell)
        if kind & CULPRIT:
            found = int.from_bytes(cell[HEAD.size : HEAD.size + 4], "big")
            culprit = None if found == NO_NODE else found
    return NodeInfo(
        index=index,
        name=head.name,
        task=task.decode("utf-8", "replace"),
        kind=Kind.EXPANSION if flags & EXPANSION else head.kind,
        owner=head.owner,
        state=state,
        generation=generation,
        attempt=attempt,
        losses=losses,
        ready_ms=0 if state == State.WAITING else int.from_bytes(ready, "big"),
        started_ms=started,
        ended_ms=ended,
        parents=head.parents,
        culprit=culprit,
        bits=head.bits & ~_PARKED,
        phase=head.phase,
        grown=bool(flags & EXPANSION and task),
        rule=None if head.rule is None else Rule(*head.rule),
        signal=head.signal,
        most=head.most,
        follows=head.follows,
        waits_at=waits_at.decode(),
        closing=state == State.EXPANDED
        and over in (0, State.RUNNING)
        and (mode >= PASSED or bool(mode & _CLOSING)),
        parked=State(over) if over else None,
    )


def _check(records: bytes, heads: list[NodeHead | None], over: Collection[int]) -> Iterator[str]:
    """Compare counts with states; what is parked and `over` has none of its own any more."""
    nodes = list(RECORD.iter_unpack(records))
    states = [State(n[0]) for n in nodes]
    inner: dict[int, Counter[str]] = {}
    lenient = {
        (i, child) for i, head in enumerate(heads) if head for child in indexes(head.lenient)
    }
    for i, head in enumerate(heads):
        if head is None:
            if any(records[i * RECORD.size : (i + 1) * RECORD.size]):
                yield f"node {i} has no row"
            continue  # else an index that a lost delivery had taken
        if head.owner == NO_NODE:
            continue
        if states[head.owner].final and not states[i].final:
            yield f"node {i} is {states[i].label}, what it stands in has ended"
        owner = heads[head.owner]
        if owner is None or not _has_turn(owner, nodes[head.owner][-1], i, head.phase):
            continue
        c = inner.setdefault(head.owner, Counter())
        c["left"] += not states[i].final
        if not head.bits & Bits.FORGIVEN:
            pardoned = states[i] == State.FAILED and head.bits & Bits.COUNTS_AS_SUCCESS
            c["failed"] += states[i] in _FAILED and not pardoned
            c["cancelled"] += states[i] == State.CANCELLED
        c["won"] += states[i] == State.SUCCESS
        if head.bits & Bits.NAMED:
            c["skipped"] += states[i] == State.SKIPPED
    for i, head in enumerate(heads):
        if head is None:
            continue
        _, _, _, _, n, a, _, b, c4, d, mode = nodes[i]
        if states[i] == State.WAITING:
            around = heads[head.owner] if head.owner != NO_NODE else None
            if around and around.along and n and not head.phase:
                continue  # its counts are taken when it is weighed
            begun = {p for p in indexes(head.follows) if _has_begun(nodes[p])}
            ends = Counter(
                State.SUCCESS
                if p in begun or (p, i) in lenient
                else _counts_as(states[p], heads[p], head)
                for p in indexes(head.parents)
                if states[p].final or p in begun
            )
            true = (
                ends[State.SUCCESS], ends[State.FAILED] + ends[State.BLOCKED],
                ends[State.SKIPPED], ends[State.CANCELLED],
            )  # fmt: skip
            if true != (a, b, c4, d):
                yield f"node {i} counts {(a, b, c4, d)} of {n} parents, their states say {true}"
        elif states[i] == State.EXPANDED and i not in over:
            c = inner.get(i, Counter())
            fourth = "won" if head.need and mode < PASSED else "cancelled"
            true = (c["left"], c["failed"], c["skipped"], c[fourth])
            if true != (a, b, c4, d) and (true[0] != a or _matters(mode)):
                yield f"expansion {i} counts {(a, b, c4, d)}, its nodes' states say {true}"


def _has_begun(record: tuple[Any, ...]) -> bool:
    """Whether a node is an expansion that has begun."""
    state, _, flags, _, _, _, ready, *_ = record
    return state > State.WAITING and bool(flags & EXPANSION and any(ready))


def _has_turn(owner: NodeHead, mode: int, index: int, phase: int) -> bool:
    """Whether it is the turn of a node in an expansion."""
    turn = mode // PASSED
    if phase == 0 or turn == 0:
        return phase + turn == 0
    return any(first <= index < first + n for first, n in owner.later[turn - 1].body)


def _matters(mode: int) -> bool:
    """Whether an outcome depends on how those ended whose turn it is."""
    return mode % 4 in (Phase.BODY, Phase.FALLBACK)


def _counts_as(state: State, parent: NodeHead | None, child: NodeHead) -> State:
    if state == State.FAILED and parent and parent.bits & Bits.COUNTS_AS_SUCCESS:
        race = child.bits & Bits.RACE
        return state if race or child.phase > parent.phase else State.SUCCESS
    return state
