# SPDX-License-Identifier: MIT
"""What is started a second time: by a body that runs again, or under a key."""

from __future__ import annotations

from typing import Any

import msgspec

from flowq.current import CURRENT, CurrentTask
from flowq.errors import KeyReused, TaskCancelled
from flowq.looking import Home, failure_in
from flowq.message import Message, Value, decode_message, node_id, read_cell
from flowq.once import digest_of, renamed, value_digest
from flowq.plan import ROOT, Plan
from flowq.states import State

__all__ = ["called_of", "found_again", "refuse", "started_message", "started_plan", "was_cancelled"]

_DIGEST = 16


def started_message(
    current: CurrentTask, message: Message, arguments: Any, app: Home, detached: bool
) -> Message:
    """Give a message that a body starts its id, unless it has that by a key.

    `arguments` are what its payload holds.

    Raises
    ------
    TaskCancelled
        The body is cancelled: it starts nothing more, but for what is detached.
    """
    _refuse_if_cancelled(current, message.task, detached)
    if not message.called:
        what = message.task.encode() + b" " + value_digest(arguments, app.serializer)
        message = msgspec.structs.replace(message, id=current.start_id(what))
    if not detached:
        current.adopt(app, message.id)
        message = msgspec.structs.replace(message, parent=current.parent_in(app.store))
    return message


def started_plan(current: CurrentTask, plan: Plan, app: Home, detached: bool) -> Plan:
    """Give a plan that a body starts its id; as `started_message` does."""
    _refuse_if_cancelled(current, plan.name, detached)
    if not called_of(plan):
        what = plan.name.encode() + b"/ " + digest_of(plan.rows, app.serializer)
        plan = renamed(plan, current.start_id(what))
    if not detached:
        current.adopt(app, plan.id)
        plan = msgspec.structs.replace(plan, parent=current.parent_in(app.store))
    return plan


def _refuse_if_cancelled(current: CurrentTask, what: str, detached: bool) -> None:
    if current.cancelled and not detached:
        raise was_cancelled(what)


def was_cancelled(what: str) -> TaskCancelled:
    """Give the error of a start that comes too late."""
    current = CURRENT.get()
    who = current.name if current is not None else "the body"
    return TaskCancelled(
        f"{who} is cancelled, so it does not start {what}; what is to be done all the same is "
        ".options(detached=True), or finally_= of a flow"
    )


def called_of(plan: Plan) -> bytes:
    """Give what a run was called with, if it was started under a key."""
    message = plan.rows[ROOT].message
    return message.called if message is not None else b""


def found_again(app: Home, made: Any, called: bytes) -> KeyReused | None:
    """Take note that a handle stands for what existed; gives the error if that was another call.

    Parameters
    ----------
    app : Home
    made : Result or Run
    called : bytes
        What it was called with, under a key; else empty.
    """
    made._created = False
    current = CURRENT.get()
    if called and current is not None:  # somebody else may have started it
        current.disown(app, made._id)
    before = _called_before(app, made._id) if called else b""
    if not before or before[:_DIGEST] == called[:_DIGEST]:
        return None
    was, now = (x[_DIGEST:].decode("utf-8", "replace") for x in (before, called))
    return KeyReused(
        f"the key was used with other arguments: {made!r} was started with {was}, and this call "
        f"has {now}; give it a key of its own",
        made.id,
    )


def _called_before(app: Home, id: bytes) -> bytes:
    """What was called under an id, as far as it is known; a store may keep no message of the ended.

    A task that ended without a body having run on a store that keeps none says nothing.
    """
    for name in (id, node_id(id, ROOT)):
        raw = app.store.message(name)
        if raw is not None:
            return decode_message(raw).called
    look = app.store.look((id,))[0]
    if look is None or look.cell is None:
        return b""
    cell = read_cell(look.cell)
    failure = failure_in(cell)
    if failure is not None:
        return failure.called
    if cell.state != State.SUCCESS or cell.flags:
        return b""
    return msgspec.msgpack.decode(cell.body, type=Value).called


def refuse(*errors: KeyReused | None) -> None:
    """Raise the first error that there is."""
    for error in errors:
        if error is not None:
            raise error
