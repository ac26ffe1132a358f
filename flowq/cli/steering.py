# SPDX-License-Identifier: MIT
"""``flowq run pause``, ``resume``, ``send``: runs that are to wait, or wait for somebody."""

from __future__ import annotations

import json
from typing import Any

from flowq.cli.output import NOT_FOUND, OK, REFUSED, CliError, document
from flowq.cli.reading import wants_json
from flowq.cli.seeing import asked
from flowq.errors import ConfigError, PayloadError, ResultMissing, RunEnded
from flowq.message import id_text

__all__ = ["pause", "resume", "send"]


def pause(args: Any) -> int:
    """Run ``flowq run pause``."""
    return _switch(args, "pause")


def resume(args: Any) -> int:
    """Run ``flowq run resume``."""
    return _switch(args, "resume")


def _switch(args: Any, verb: str) -> int:
    _, app, id = asked(args)
    run = app.run(id_text(id[:16]))
    try:
        before = run.paused
        done = run.pause() if verb == "pause" else run.resume()
        state, paused = run.state, run.paused
    except ResultMissing as err:
        raise CliError(str(err), NOT_FOUND) from None
    changed = done and paused != before
    if wants_json(args):
        document({"id": run.id, "state": state, "paused": paused, "changed": changed})
    elif not done:
        print(f"{run.id}  {state}")
    elif paused:
        print(f"{run.id}  paused{'' if changed else ' already'}")
    else:
        print(f"{run.id}  {'goes on' if changed else 'goes on, as it was not paused'}")
    return OK if done else REFUSED


def send(args: Any) -> int:
    """Run ``flowq run send``."""
    _, app, id = asked(args)
    run = app.run(id_text(id[:16]))
    try:
        taken = run.send(args.signal, _value(args.value), to=args.to, id=args.once)
    except RunEnded as err:
        raise CliError(str(err), REFUSED) from None
    except ResultMissing as err:
        raise CliError(str(err), NOT_FOUND) from None
    except (ConfigError, PayloadError) as err:
        raise CliError(str(err)) from None
    if wants_json(args):
        document({"id": run.id, "name": args.signal, "taken": taken})
    elif taken:
        print(f"{run.id}  a step has taken {args.signal!r}")
    else:
        print(f"{run.id}  kept: no step waits for {args.signal!r} yet")
    return OK


def _value(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
