# SPDX-License-Identifier: MIT
"""``flowq dead``: messages that will not run, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowq.cli.output import (
    NOT_FOUND,
    OK,
    CliError,
    document,
    iso,
    line,
    moment,
    note,
    pairs,
    table,
)
from flowq.cli.reading import LOOKED_AT, cut, dead_letters, find_id, store_of, wants_json
from flowq.errors import DecodeError
from flowq.message import decode_message, id_text

if TYPE_CHECKING:
    from flowq.storage.base import DeadLetter

__all__ = ["list_dead", "show"]


def list_dead(args: Any) -> int:
    """Run ``flowq dead list``."""
    store = store_of(args)
    if wants_json(args):
        for letter in dead_letters(store, args.limit):
            line(_described(letter))
        return OK
    found, more = cut(dead_letters(store, args.limit + 1), args.limit)
    rows = [
        (d["id"], moment(letter.at_ms), d["task"] or "?", len(letter.losses), letter.reason)
        for letter in found
        for d in (_described(letter),)
    ]
    if rows:
        table(["id", "at", "task", "losses", "reason"], rows)
    else:
        note(f"no dead letters of the app {args.name!r}")
    if more:
        note("there are more; --limit shows more")
    return OK


def show(args: Any) -> int:
    """Run ``flowq dead show``."""
    store = store_of(args)
    known = (letter.id for letter in dead_letters(store, LOOKED_AT))
    id = find_id(args.id, known, "dead letter")
    letter = store.dead_letter(id)
    if letter is None:
        raise CliError(f"the app {args.name!r} has no dead letter {id_text(id)}", NOT_FOUND)
    what = _described(letter)
    if wants_json(args):
        document(what)
        return OK
    pairs(
        [
            *((key, what[key]) for key in ("id", "task", "node", "queue", "priority", "reason")),
            ("at", moment(letter.at_ms)),
            ("message", f"{len(letter.body)} bytes"),
        ]
    )
    if letter.losses:
        print()
        table(
            ["delivery", "lost at", "worker", "session", "reason"],
            [
                (x.delivery, moment(x.at_ms), f"{x.host}:{x.pid}", x.session, x.reason)
                for x in letter.losses
            ],
        )
    return OK


def _described(letter: DeadLetter) -> dict[str, Any]:
    what: dict[str, Any] = {
        "id": id_text(letter.id),
        "task": None,
        "node": None,
        "queue": None,
        "priority": None,
        "reason": letter.reason,
        "at": iso(letter.at_ms),
        "bytes": len(letter.body),
        "losses": [
            {
                "delivery": loss.delivery,
                "at": iso(loss.at_ms),
                "host": loss.host,
                "pid": loss.pid,
                "session": loss.session,
                "reason": loss.reason,
            }
            for loss in letter.losses
        ],
    }
    try:
        message = decode_message(letter.body)
    except DecodeError:
        return what
    return what | {
        "task": message.task,
        "node": message.name or None,
        "queue": message.queue,
        "priority": message.priority,
    }
