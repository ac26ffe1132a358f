# SPDX-License-Identifier: MIT
"""What holds up a node that could go on, and why one was not wanted any more: in words."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence

from flowq.limits import limit_of
from flowq.looking import failure_in, moment
from flowq.message import Ref, decode_template, id_text, node_id, read_cell, split_node
from flowq.plan import ROOT, Bits, indexes
from flowq.states import State
from flowq.storage.base import NodeInfo, Places, Store

__all__ = ["LOST", "by_the_clock", "called", "full", "lost", "place", "timed", "who_sent"]

S = State
LOST = b"lost"
"""What stands in the cell of a node that was not wanted any more."""
UNDER_WAY = (S.SCHEDULED, S.HELD, S.QUEUED, S.RUNNING, S.EXPANDED)
NAMED = 5
"""So many nodes are named in one line."""


def called(info: NodeInfo | None) -> str:
    """Give a node's path; the root is the run."""
    return info.name if info is not None and info.index != ROOT else "the run"


def named(infos: Sequence[NodeInfo]) -> str:
    """Give the names of some nodes, and how many there are beside them."""
    more = f" and {len(infos) - NAMED:,} more" if len(infos) > NAMED else ""
    return ", ".join(info.name for info in infos[:NAMED]) + more


def timed(run: bytes, info: NodeInfo, due_ms: int) -> str:
    """Say of a join that is ``scheduled`` until when it sleeps, or what it waits for."""
    if not info.signal:
        return f", sleeps until {moment(due_ms)}"
    until = f", until {moment(due_ms)}" if due_ms else ""
    to = f" --to {shlex.quote(info.name)}" if "/" in info.name else ""
    command = f"flowq run send {id_text(run)} {info.signal} VALUE{to}"
    return f", waits for {info.signal!r} to be sent{until}: {command}"


def who_sent(store: Store, run: bytes, info: NodeInfo) -> str:
    """Say of a join that has waited who sent its value, and when."""
    for sent in store.sent(run):
        if sent.node == info.index:
            at = moment(sent.at_ms)
            return f", sent by {sent.who}" + (f" at {at:%H:%M:%S}" if at else "")
    return ", nobody sent it in time"


def place(owner: NodeInfo, info: NodeInfo, infos: Callable[[State], Iterable[NodeInfo]]) -> str:
    """Say which nodes have the places that a node waits for; empty if it waits for none."""
    if not owner.most or owner.state is not S.EXPANDED:
        return ""
    busy = [i for state in UNDER_WAY for i in infos(state) if i.owner == owner.index]
    if not busy:
        return ""
    busy.sort(key=lambda i: i.index)
    taken = f"{len(busy):,} of {owner.most:,} places are taken"
    return f", until one of these ends: {taken} by {named(busy)}"


def full(store: Store, run: bytes, info: NodeInfo) -> str:
    """Say of a node that is held which limits have no room for it, and which nodes have that.

    Empty if it is not held at one.
    """
    if not info.waits_at:
        return ""
    there = store.places(node_id(run, info.index))
    told = [p for p in there if p.key == info.waits_at or p.taken >= p.most]
    return "".join(f", {_taken(store, run, places)}" for places in told)


def _taken(store: Store, run: bytes, places: Places) -> str:
    text = f"max_parallel={places.most} of {limit_of(places.key)}"
    if places.taken < places.most:  # it is let in by the next step
        return f"{text} has room again"
    wait = "waits" if places.waiting == 1 else "wait"
    held = _holders(store, run, places)
    return f"{text} is full: held by {held}; {places.waiting:,} {wait}"


def _holders(store: Store, run: bytes, places: Places) -> str:
    """Name those who have the places of a limit, those of other runs with their run."""
    told = []
    for holder in places.holders[:NAMED]:
        theirs, index = split_node(holder)
        page = store.nodes(theirs, after=index - 1, limit=1)
        name = page[0].name if page and page[0].index == index else str(index)
        told.append(name if theirs == run else f"{name} of run {id_text(theirs)}")
    more = f" and {places.taken - len(told):,} more" if places.taken > len(told) else ""
    return ", ".join(told) + more


def lost(store: Store, run: bytes, info: NodeInfo, infos: Sequence[NodeInfo]) -> str:
    """Say of a node that was not wanted any more what came before it.

    Parameters
    ----------
    store : Store
    run : bytes
    info : NodeInfo
    infos : sequence of NodeInfo
        All nodes of the run, by index, without its root.
    """
    body = [i for i in infos if i.owner == info.owner]
    for race in body:
        if race.bits & Bits.RACE and race.state is S.SUCCESS and _leads_to(info, race, body):
            winner = _winner(store, run, race)
            name = next((i.name for i in infos if i.index == winner), "another")
            return f", not wanted any more: {race.name} took {name}"
    won = [i for i in body if i.state is S.SUCCESS]
    return ", not wanted any more" + (f": enough had succeeded ({named(won)})" if won else "")


def _leads_to(info: NodeInfo, race: NodeInfo, body: Sequence[NodeInfo]) -> bool:
    """Whether there is a way from a node to a race."""
    known = {i.index: i for i in body}
    todo, seen = [race.index], {race.index}
    while todo:
        at = known.get(todo.pop())
        for parent in indexes(at.parents) if at is not None else ():
            if parent == info.index:
                return True
            if parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return False


def _winner(store: Store, run: bytes, race: NodeInfo) -> int | None:
    raw = store.cells(run, ((race.index, 1),)).get(race.index)
    if raw is None:
        return None
    value = decode_template(read_cell(raw).body)
    return value.node if isinstance(value, Ref) else None


def by_the_clock(
    store: Store, run: bytes, info: NodeInfo, find: Callable[[int], NodeInfo | None]
) -> str:
    """Say whose deadline ended a node, or whose race it stood in; empty if none did."""
    owner = find(info.owner)
    while owner is not None:
        if owner.state is S.FAILED:
            raw = store.cells(run, ((owner.index, 1),)).get(owner.index)
            failure = failure_in(read_cell(raw)) if raw is not None else None
            if failure is not None and failure.reason == "deadline":
                return f", since the deadline of {called(owner)} had passed"
        elif owner.state is S.SKIPPED:
            return f", since {called(owner)} was not wanted any more"
        if owner.index == ROOT:
            break
        owner = find(owner.owner)
    return ""
