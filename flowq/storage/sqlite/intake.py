# SPDX-License-Identifier: MIT
"""Taking in tasks and runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from flowq.errors import StoreUnavailable
from flowq.message import NO_NODE, Message, encode_message, id_text
from flowq.plan import ROOT, Kind, NodeRow, Plan
from flowq.states import State
from flowq.storage.base import SUBMIT_PAGE
from flowq.storage.sqlite import started, timers
from flowq.storage.sqlite.change import Change
from flowq.storage.sqlite.rows import (
    FAILED_KEEP_MS,
    KEEP_MS,
    LIMITED,
    PREFETCH,
    TIMED,
    bodies_of,
    node_flags,
    pack_later,
    pack_limits,
    pack_ranges,
    pack_rule,
)
from flowq.storage.sqlite.statements import SQL

__all__ = ["UPLOAD_MS", "enqueue", "insert_nodes", "open_run", "submit", "task_flags"]

UPLOAD_MS: Final = 3_600_000
"""An upload that was given up is removed after so long."""
_QUEUED, _SCHEDULED, _WAITING, _EXPANDED = (
    State.QUEUED.value,
    State.SCHEDULED.value,
    State.WAITING.value,
    State.EXPANDED.value,
)
Changes = Callable[[int], AbstractContextManager[Change]]


def task_flags(message: Message) -> int:
    """Pack what a message alone says."""
    timed = message.delay_ms or message.due_ms or message.expires_ms or message.expires_in_ms
    return (TIMED if timed else 0) | (PREFETCH if message.prefetch == 1 else 0)


# --- tasks alone ---------------------------------------------------------------------------------


def enqueue(changes: Changes, messages: Sequence[Message]) -> list[bool | None]:
    """Take tasks called alone; False where an id is known, None where its parent was stopped."""
    with changes(len(messages)) as change:
        fresh: list[bool | None] = [True] * len(messages)
        starts = started.Starts(change, [m.parent for m in messages if m.parent])
        alike = starts.barred or len({m.id for m in messages}) < len(messages)
        if alike or not _insert(change, messages):
            # Some are known: which, is worth a look at each.
            seen: set[bytes] = set()
            for i, message in enumerate(messages):
                fresh[i] = message.id not in seen and not _known(change, message.id)
                if fresh[i] and message.parent in starts.barred:
                    fresh[i] = None
                    continue
                seen.add(message.id)
            _insert(change, [m for m, new in zip(messages, fresh, strict=True) if new])
        for message, new in zip(messages, fresh, strict=True):
            if new and message.parent:
                starts.note(message.parent, message.id)
        return fresh


def _known(change: Change, id: bytes) -> bool:
    """Whether an id exists; one that is remembered no more gives way."""
    found = change.db.execute(SQL["known"], (id,)).fetchone()
    if found is None:
        return False
    row, forget, run = found
    if forget is None or forget > change.now:
        return True
    if run is not None:  # it had become a run, whose rows go by themselves
        change.db.execute(SQL["abandon"], (run,))
        change.db.execute(SQL["root_known"], (None, row))
        return False
    change.db.execute(SQL["drop_started"], (json.dumps([-row]),))
    for statement in ("drop_message", "drop_plan", "drop_losses"):
        change.db.execute(SQL[statement], (row,))
    return False


def _insert(change: Change, messages: Sequence[Message]) -> bool:
    """Insert all, or none if one of them is known."""
    rows: list[tuple[Any, ...]] = []
    bodies: list[tuple[int, bytes]] = []
    ready: dict[int, int] = {}
    later: set[int] = set()
    now = change.now
    for id, message in enumerate(messages, change.first):
        queue = change.db.known.queue(change.db, message.queue)
        flags = task_flags(message)
        due = expires = None
        if flags & TIMED:
            due, expires = change.times(message)
        if due is None:
            ready[queue] = ready.get(queue, 0) + 1
        else:
            later.add(queue)
        keep, failed_keep = message.result_ttl_ms, message.failed_ttl_ms
        rows.append(
            (
                id,
                message.id,
                _QUEUED if due is None else _SCHEDULED,
                flags,
                queue,
                message.priority,
                change.back,
                due,
                now,
                expires,
                None if keep == KEEP_MS else keep,
                None if failed_keep == FAILED_KEEP_MS else failed_keep,
            )
        )
        bodies.append((id, encode_message(message)))
    db = change.db
    db.execute("SAVEPOINT taking")
    if db.executemany(SQL["add_single"], rows).rowcount < len(rows):
        db.execute("ROLLBACK TO taking")
        db.execute("RELEASE taking")
        return False
    db.executemany(SQL["add_body"], bodies)
    db.execute("RELEASE taking")
    for queue, n in ready.items():
        change.add_ready(queue, n)
    change.later |= later
    return True


# --- runs ----------------------------------------------------------------------------------------


def submit(changes: Changes, plan: Plan) -> bool | None:
    """Start a run, in pages where it is large; False if it is known, None if it is refused."""
    n = len(plan.rows)
    bodies = bodies_of(plan.rows)
    run = base = 0
    for page in range(0, n, SUBMIT_PAGE):
        with changes(n if page == 0 else 0) as change:
            if page == 0:
                base = change.first
                ttls = (plan.result_ttl_ms, plan.failed_ttl_ms)
                run = open_run(change, plan.id, plan.name, base, n, *ttls)
                if not run:
                    return False
                if started.Starts(change, [plan.parent]).barred:
                    change.db.execute(SQL["drop_run"], (run,))
                    return None
            elif change.db.execute(SQL["uploading"], (run, plan.id)).fetchone() is None:
                raise StoreUnavailable(
                    f"run {id_text(plan.id)} is being submitted by another process too; "
                    "submit it again"
                )
            end = min(page + SUBMIT_PAGE, n)
            starts = started.Starts(change, [plan.parent] if end == n else [])
            if starts.barred:
                change.db.execute(SQL["abandon"], (run,))
                return None
            insert_nodes(change, plan.rows[page:end], run, base, page, bodies)
            if end == n:
                starts.note(plan.parent, plan.id)
                _go(change, run, base)
    return True


def open_run(
    change: Change, id: bytes, name: str, base: int, nodes: int, keep_ms: int, failed_keep_ms: int
) -> int:
    """Make a run's row, which nobody sees yet; 0 if the run is known."""
    db = change.db
    known = db.execute(SQL["upload"], (id,)).fetchone()
    if known is not None:
        run, live, forget = known
        if live and (forget is None or forget > change.now):
            return 0
        db.execute(SQL["abandon"], (run,))
    row = (id, base, nodes, name, change.now, change.now + UPLOAD_MS, keep_ms, failed_keep_ms)
    made: int = db.execute(SQL["add_run"], row).fetchall()[0][0]
    return made


def insert_nodes(
    change: Change,
    rows: Sequence[NodeRow],
    run: int,
    base: int,
    first: int,
    bodies: Mapping[int, int],
) -> None:
    """Insert nodes of a run that nobody sees yet, the first of them at index `first`.

    `bodies`: what `bodies_of` says of the whole plan, or fragment.
    """
    nodes: list[tuple[Any, ...]] = []
    plans: list[tuple[Any, ...]] = []
    expansions: list[tuple[int, int, int, int, int]] = []
    for index, row in enumerate(rows, first):
        id = base + index
        parents = sum(n for _, n in row.parents)
        flags = node_flags(row, bodies.get(row.owner, 0))
        message = row.message
        queue = priority = 0
        if message is not None:
            queue = change.db.known.queue(change.db, message.queue)
            priority = message.priority
            flags |= task_flags(message) | (LIMITED if message.limits else 0)
        if row.kind == Kind.EXPANSION:
            expansions.append((id, row.inner, row.need, row.most, row.deadline_ms))
        nodes.append(
            (
                id,
                run,
                _EXPANDED if index == ROOT else _WAITING,
                flags,
                queue,
                priority,
                change.back,
                change.now if index == ROOT else None,
                None if row.owner == NO_NODE else base + row.owner,
                parents,
                pack_rule(row.rule, parents),
            )
        )
        plans.append(
            (
                id,
                row.name,
                (message.task or None) if message else None,
                pack_ranges(row.parents, base),
                pack_ranges(row.children, base),
                pack_ranges(row.lenient, base),
                pack_ranges(row.reads, base),
                pack_ranges(row.followers, base),
                pack_ranges(row.follows, base),
                pack_ranges(row.entries, base),
                pack_ranges(row.body, base),
                row.value or None,
                row.tolerate,
                pack_later(row.later),
                pack_ranges(row.owns, base),
                row.sleep_ms or row.timeout_ms or None,
                row.signal or None,
                pack_limits(message.limits) if message else None,
                row.blocked or None,
                encode_message(message) if message else None,
            )
        )
    change.db.executemany(SQL["add_node"], nodes)
    change.db.executemany(SQL["add_row"], plans)
    change.db.executemany(SQL["add_expansion"], expansions)


def _go(change: Change, run: int, base: int) -> None:
    """Start the root of a run that is complete."""
    change.db.execute(SQL["go_live"], (run,))
    change.rank = change.back
    timers.set_deadline(change, base)
    change.begin(base, enqueued=True)
    change.walk(SUBMIT_PAGE)
