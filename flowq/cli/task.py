# SPDX-License-Identifier: MIT
"""``flowq task`` and ``flowq result``: one task, node or run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowq.cli.output import (
    FAILED,
    NOT_FOUND,
    OK,
    TIMED_OUT,
    CliError,
    document,
    duration,
    iso,
    moment,
    note,
    pairs,
)
from flowq.cli.reading import (
    LOOKED_AT,
    culprit_of,
    failure_in,
    find_id,
    runs,
    shown_state,
    shown_value,
    store_of,
    tries_of,
    wants_json,
)
from flowq.cli.run import version_row
from flowq.errors import DecodeError, Failure
from flowq.message import Message, decode_message, id_text, read_cell
from flowq.states import State
from flowq.versions import as_words, versions_in

if TYPE_CHECKING:
    from flowq.storage import Store
    from flowq.storage.base import Look

__all__ = ["result", "show"]


def show(args: Any) -> int:
    """Run ``flowq task show``."""
    store = store_of(args)
    id = _find(store, args.id)
    look = _look(store, id, args.name)
    if wants_json(args):
        what = _described(store, id, look, iso)
        document({**what, "version": version_row(what["version"])})
        return OK
    what = _described(store, id, look, moment)
    traceback, versions = what.pop("traceback"), what.pop("version")
    what["took"] = duration(what.pop("seconds"))
    if versions is not None:
        what["version"] = as_words(versions)
    pairs(what.items())
    if traceback:
        print(f"\n{traceback.rstrip()}")
    return OK


def result(args: Any) -> int:
    """Run ``flowq result``."""
    store = store_of(args)
    id = _find(store, args.id)
    look = _look(store, id, args.name)
    until = None if args.timeout is None else time.monotonic() + args.timeout
    while (args.wait or args.timeout is not None) and not look.state.final:
        left = 3.0 if until is None else min(3.0, until - time.monotonic())
        if left <= 0:
            raise CliError(f"{id_text(id)} is still {look.state.label}", TIMED_OUT)
        store.wait_ended([id], timeout=left)
        look = _look(store, id, args.name)
    what = _described(store, id, look, iso)
    if wants_json(args):
        document({key: what[key] for key in ("id", "state", "value", "error", "traceback")})
    elif look.state == State.SUCCESS:
        print(what["value"])
    else:
        note(f"{what['id']} is {what['state']}" + (f": {what['error']}" if what["error"] else ""))
    return FAILED if look.state.final and look.state != State.SUCCESS else OK


def _find(store: Store, text: str) -> bytes:
    hint = "; a task that was called by itself is found by its whole id only"
    return find_id(text, (run.id for run in runs(store, LOOKED_AT)), "run", hint)


def _look(store: Store, id: bytes, app: str) -> Look:
    found = store.look([id])[0]
    if found is None:
        raise CliError(
            f"the app {app!r} knows no {id_text(id)}: never enqueued here, or expired", NOT_FOUND
        )
    return found


def _described(
    store: Store, id: bytes, look: Look, when: Callable[[int], str | None]
) -> dict[str, Any]:
    message = _message(store, id)
    cell = read_cell(look.cell) if look.cell is not None else None
    failure: Failure | None = None
    value = error = None
    if cell is not None:
        failure = failure_in(cell)
        blamed = culprit_of(cell)
        if failure is not None:
            error = failure.message
        elif blamed is not None:
            failure, error = _blame(store, id[:16], blamed)
        elif cell.state == State.SUCCESS:
            value = shown_value(store, id[:16], cell)
        else:
            error = cell.body.decode("utf-8", "replace")
    own = failure if cell is not None and not cell.flags else None
    started, ended = (cell.started_ms, cell.ended_ms) if cell else (0, 0)
    begun = look.state == State.RUNNING or started > 0
    tries = own.attempts if own is not None else tries_of(look.state, look.attempt, begun)
    what: dict[str, Any] = {
        "id": id_text(id),
        "task": message.task if message else own.task if own is not None else None,
        "node": (message.name or None) if message else None,
        "run": id_text(id[:16]) if len(id) == 20 else None,
        "state": shown_state(look.state, look.run),
        "queue": message.queue if message else None,
        "priority": message.priority if message else None,
        "attempts": tries,
        "losses": None if look.run else look.losses,
        "due": when(look.due_ms),
        "started": when(started),
        "ended": when(ended),
        "seconds": (ended - started) / 1000 if started and ended else None,
        "value": value,
        "error": error,
        "traceback": failure.traceback if failure is not None else None,
        "version": versions_in(cell) if cell is not None else None,
    }
    return what


def _blame(store: Store, run: bytes, index: int) -> tuple[Failure | None, str]:
    """Give the failure of the node to blame, and what is said of it."""
    info = store.nodes(run, after=index - 1, limit=1)
    who = info[0].name if info else f"node {index}"
    raw = store.cells(run, ((index, 1),)).get(index)
    failure = failure_in(read_cell(raw)) if raw is not None else None
    because = f": {failure.message}" if failure is not None else ""
    return failure, f"because of {who}{because}"


def _message(store: Store, id: bytes) -> Message | None:
    body = store.message(id)
    try:
        return decode_message(body) if body is not None else None
    except DecodeError:
        return None
