# SPDX-License-Identifier: MIT
"""Let a run that has ended, or goes on, run again: the steps of a retry, a rerun, a fork.

Which nodes run again depends on how all of them stand, and a store does not know it. So nodes are
read, chosen (`flowq.rewinding`), and the store is told, which refuses if anything has moved since;
then they are read again.

Where something is under way that is chosen, or what is to be opened is past its body (its cleanup
runs), that has to end first, seen by nobody (`Store.park`). What was asked for is kept with the
run, and a task of flowq's own (`flowq.naming.AGAIN`), put beside it before that, goes on with it on
a worker: whoever asked may be gone by then. A cancel of the run takes back what is not done.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from flowq.errors import ResultMissing, RunActive
from flowq.message import Message, decode_message, derived_id, node_id
from flowq.naming import AGAIN
from flowq.outline import all_nodes
from flowq.plan import ROOT, Bits, Kind, Phase, Ranges, indexes, ranges_of
from flowq.policy import MAX_PRIORITY, nearest
from flowq.rewinding import Rewind, choose, to_retry
from flowq.serializer import Serializer
from flowq.states import State
from flowq.storage.base import NodeInfo, Store

__all__ = [
    "Asked",
    "again",
    "fork",
    "given_instead",
    "go_on",
    "pause_before",
    "rerun_of",
    "retry_of",
]

TRIES: Final = 200
"""So often nodes are read anew, since the run has moved; each takes a few round trips."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two looks at what has to end first."""
UNASKED: Final = 20
"""So many looks find nothing asked for, before who goes on with it takes the asker for dead."""
_BUSY: Final = (State.RUNNING, State.EXPANDED)


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One thing that was asked for.

    Attributes
    ----------
    kind : str
    node : str
        Of a rerun: the name of the node; empty for the whole run.
    forgiven : bool
        Of a retry: whether it takes what was forgiven too.
    """

    kind: Literal["retry", "rerun"]
    node: str = ""
    forgiven: bool = False


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """What was asked for together: what was there before is done with what comes later."""

    parts: tuple[Part, ...]
    token: bytes = b""


class Again(NamedTuple):
    """What came of it: how many nodes run again, or will; whether something has to end first."""

    nodes: int
    waits: bool = False


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Asked).decode


def retry_of(*, forgiven: bool = False) -> Asked:
    """Ask for all that failed, was blocked or was cancelled."""
    return Asked((Part("retry", forgiven=forgiven),), os.urandom(8))


def rerun_of(node: str) -> Asked:
    """Ask for one node, and what depends on it; the whole run where it is empty."""
    return Asked((Part("rerun", node),), os.urandom(8))


def again(store: Store, serializer: Serializer, run: bytes, asked: Asked) -> Again | None:
    """Let nodes run again, or see to it that they will.

    Parameters
    ----------
    store : Store
    serializer : Serializer
    run : bytes
    asked : Asked

    Returns
    -------
    Again or None
        None if the run is not known.

    Raises
    ------
    GraphError
        What is named runs because of how another ended.
    ResultMissing
        There is no such node.
    RunActive
        It moves faster than it can be read.
    """
    told = b""
    for turn in range(TRIES):
        info = store.run(run)
        if info is None:
            return None
        nodes = all_nodes(store, run)
        if info.request:  # somebody else has asked before: both are done together
            before = _decode(info.request)
            if before.token != asked.token:
                asked = Asked((*before.parts, *asked.parts), asked.token)
        choice = _choice(nodes, asked)
        if choice is None and any(node.parked is not None for node in nodes):
            choice = choose(nodes, ())  # it has come to good: what is parked is let go
        if choice is None:
            return Again(0)
        count = sum(n for _, n in choice.chosen)
        first = _to_end_first(nodes, choice)
        if not first.waits:
            done = store.rewind(run, nodes[0].generation + 1, **choice._asdict(), seen=info.changes)
        else:
            raw = _encode(asked)
            if raw != told:  # before it is parked: else a crash could leave it so for ever
                _leave_word(store, serializer, run, raw, nodes, choice)
                told = raw
            done = store.park(run, raw, seen=info.changes, nodes=first.nodes, stop=first.stop)
        if done:
            return Again(count, first.waits)
        if done is None:
            return None
        if turn > 3:  # who moves it may need a moment without others that look
            time.sleep(random.uniform(0, 0.002 * min(turn, 25)))
    raise RunActive(
        f"the run moves faster than it can be read ({TRIES} times); pause it first: "
        "run.pause(), run.retry(), run.resume()"
    )


def go_on(store: Store, serializer: Serializer, run: bytes, raw: bytes, attempt: int) -> bool:
    """Go on with what was asked for; gives whether something has to end first, still."""
    info = store.run(run)
    if info is None:
        return False
    if info.request != raw:
        # not asked for yet, or done, or taken back, or taken over by who asked for more
        return not (info.request or info.ended_ms) and attempt < UNASKED
    # it may have ended meanwhile: what was to end first was stopped by something else
    done = again(store, serializer, run, _decode(raw))
    return done is not None and done.waits


def pause_before(attempt: int) -> float:
    """Give the seconds before the next look at what has to end first."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * float(2 ** min(attempt, 8)))


def fork(
    store: Store,
    run: bytes,
    new: bytes,
    asked: Asked,
    messages: Callable[[NodeInfo], Mapping[int, Message]],
) -> int | None:
    """Start a run that takes over what it does not run itself.

    Parameters
    ----------
    store : Store
    run, new : bytes
    asked : Asked
        A rerun of one node.
    messages : callable
        Gives what is to travel in the place of the node's message.

    Returns
    -------
    int or None
        How many nodes it runs itself; None if the run is not known.

    Raises
    ------
    RunActive
        The run has not ended.
    """
    for _ in range(TRIES):
        info = store.run(run)
        if info is None:
            return None
        if not info.ended_ms:
            raise RunActive("only a run that has ended can be forked: wait for its end (.wait())")
        nodes = all_nodes(store, run)
        choice = _choice(nodes, asked)
        assert choice is not None
        (part,) = asked.parts
        given = messages(nodes[0] if not part.node else _by(nodes)[_find(part.node, nodes)])
        done = store.fork(run, new, seen=info.changes, messages=given, **choice._asdict())
        if done:
            return sum(n for _, n in choice.chosen)
        if done is None:
            return None
    raise RunActive("the run is set going again and again by somebody else")


# --- choosing ------------------------------------------------------------------------------------


class _First(NamedTuple):
    """Whether something has to end before a choice can be made good; what of that is parked."""

    waits: bool
    nodes: Ranges
    stop: Ranges


def _by(nodes: Sequence[NodeInfo]) -> dict[int, NodeInfo]:
    return {node.index: node for node in nodes}


def _find(name: str, nodes: Sequence[NodeInfo]) -> int:
    for node in nodes:
        if node.name == name and node.index != ROOT:
            return node.index
    there = [node.name for node in nodes[1:]]
    raise ResultMissing(f"the run has no node {name!r}{nearest(name, there)}")


def _choice(nodes: Sequence[NodeInfo], asked: Asked) -> Rewind | None:
    """Choose what runs again; None where there is nothing."""
    stand = [_as_it_ends(node) for node in nodes]
    roots: set[int] = set()
    for part in asked.parts:
        if part.kind == "retry":
            roots.update(to_retry(stand, forgiven=part.forgiven))
        else:
            roots.add(_find(part.node, nodes) if part.node else ROOT)
    if roots:
        return choose(stand, sorted(roots))
    if stand[0].state is State.CANCELLED:
        return choose(stand, ())  # its body had ended by then: only its outcome is made anew
    return choose(stand, (ROOT,)) if stand[0].state is State.FAILED else None


def _as_it_ends(node: NodeInfo) -> NodeInfo:
    """Give a node as it ended, though nobody sees that, or as it will, being stopped."""
    state = node.state
    if node.parked is not None and node.parked.final:
        state = node.parked
    elif state is State.RUNNING and node.bits & Bits.STOPPING:
        state = State.CANCELLED
    return node if state is node.state else msgspec.structs.replace(node, state=state)


def _to_end_first(nodes: Sequence[NodeInfo], choice: Rewind) -> _First:
    """Find what is under way and chosen, and what is to be opened and past its body."""
    by = _by(nodes)
    busy = {i for i in indexes(choice.chosen) if _under_way(by[i])}
    shut = {i for i in (ROOT, *indexes(choice.reopened)) if _under_way(by[i]) and by[i].closing}
    # what stands in one of these ends with it: it is stopped, or the cleanup that is waited for;
    # were it parked, what it stands in could not end
    first = {i for i in busy | shut if not _within(by, i, busy | shut)}
    # an alarm that runs is let end as it will: what it stands in waits for it, if it ends meanwhile
    parked = {i for i in first if by[i].phase == Phase.BODY}
    return _First(bool(first), ranges_of(parked), ranges_of(parked & busy))


def _under_way(node: NodeInfo) -> bool:
    return node.state in _BUSY and not (node.parked is not None and node.parked.final)


def _within(by: Mapping[int, NodeInfo], index: int, others: set[int]) -> bool:
    """Whether a node stands, however deep, in one of others."""
    while index != ROOT:
        index = by[index].owner
        if index in others:
            return True
    return False


# --- who goes on with it -------------------------------------------------------------------------


def _leave_word(
    store: Store,
    serializer: Serializer,
    run: bytes,
    raw: bytes,
    nodes: Sequence[NodeInfo],
    choice: Rewind,
) -> None:
    """Put a task beside the run that goes on with it, whoever asked for it being gone or not."""
    queue = "default"
    by = _by(nodes)
    for index in indexes(choice.chosen):
        if by[index].kind == Kind.TASK or by[index].grown:  # a worker will be there for it
            found = store.message(node_id(run, index))
            if found is not None:
                queue = decode_message(found).queue
                break
    message = Message(
        derived_id(b"again", run, raw),
        AGAIN,
        serializer.dumps(((run.hex(), raw.hex()), {}), "what is to run again"),
        queue=queue,
        priority=MAX_PRIORITY,
        delay_ms=round(FIRST_PAUSE * 1000),
        result_ttl_ms=0,
    )
    store.enqueue([message])


def given_instead(
    message: Message,
    changes: Mapping[str, Any],
    place: Callable[[str], int | str],
    serializer: Serializer,
) -> Message:
    """Give a message in which some arguments are other ones.

    Parameters
    ----------
    message : Message
    changes : mapping
        By the names of parameters.
    place : callable
        Gives where an argument of that name is bound: by position or by name.
    serializer : Serializer
    """
    loaded = serializer.loads(message.payload)
    args, kwargs = list(loaded[0]), dict(loaded[1])
    instead: set[int | str] = set()
    for name, value in changes.items():
        to = place(name)
        if isinstance(to, int) and to < len(args):
            args[to] = value
            instead.add(to)
        else:
            kwargs[name] = value
        instead.add(name)
    bindings = tuple([b for b in message.bindings if b.to not in instead])
    payload = serializer.dumps(
        (tuple(args), kwargs, *loaded[2:]),
        f"arguments of node {message.name!r} (task {message.task})",
    )
    return msgspec.structs.replace(message, payload=payload, bindings=bindings)
