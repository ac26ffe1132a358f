# SPDX-License-Identifier: MIT
"""What ``flowq run`` shows of one run (events, why, timeline, graph), and cancel, retry, fork."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowq.cli.output import (
    FAILED,
    NOT_FOUND,
    OK,
    REFUSED,
    TIMED_OUT,
    CliError,
    document,
    iso,
    line,
    moment,
    note,
    one_line,
    paint,
)
from flowq.cli.reading import (
    LOOKED_AT,
    find_id,
    home_of,
    nodes,
    runs,
    store_of,
    wants_json,
)
from flowq.cli.run import follow, found_run
from flowq.errors import GraphError, ResultMissing, RunActive, UnknownTask
from flowq.looking import shown_state
from flowq.message import id_bytes, id_text
from flowq.naming import BUILT_IN
from flowq.text import duration

if TYPE_CHECKING:
    from flowq.app import FlowQ
    from flowq.drawing import Drawing
    from flowq.run import Run
    from flowq.storage import Store
    from flowq.wiring import Event

__all__ = ["asked", "cancel", "events", "fork", "graph", "rerun", "retry", "times", "why"]


def why(args: Any) -> int:
    """Run ``flowq run why``."""
    _, app, id = asked(args)
    try:
        handle = app.result(id_text(_node_of(app, id, args.node)))
        node, state, said = handle.id, handle.state, handle.why()
    except CliError:
        # what stands in an arm that was not taken has no id, but a reason
        try:
            said = app.run(id_text(id[:16])).why(args.node)
        except ResultMissing as err:
            raise CliError(str(err), NOT_FOUND) from None
        node, state = None, said.removeprefix(f"{args.node}: ").partition(",")[0]
    if wants_json(args):
        document({"id": node, "state": state, "why": said.splitlines()})
    else:
        print(said)
    return OK


def events(args: Any) -> int:
    """Run ``flowq run events``."""
    from flowq.events import events as go_through

    after = _order(args.after)
    store, app, id = asked(args)
    id = _node_of(app, id, args.node)
    json = wants_json(args)
    end = None if args.timeout is None else time.monotonic() + args.timeout
    last: Event | None = None
    for event in go_through(
        store, id, after=after, late=lambda: None if end is None else end - time.monotonic()
    ):
        if event is None:
            raise CliError(f"{id_text(id)} has not ended", TIMED_OUT)
        last = event
        if json:
            line(_event(event))
        else:
            tries = f"attempt {event.attempt}" if event.attempt > 1 else ""
            name = event.node or event.task or f"run {event.id}"
            parts = (moment(event.order[0]), name, paint(event.state), tries, one_line(event.why))
            print("  ".join(part for part in parts if part), flush=True)
    state = app.result(id_text(id)).state if last is None else last.state
    return OK if state == "success" else FAILED


def _event(event: Event) -> dict[str, Any]:
    return {
        "at": iso(event.order[0]),
        "node": event.node or None,
        "task": event.task or None,
        "state": event.state,
        "why": event.why or None,
        "attempt": event.attempt or None,
        "generation": event.generation,
        "index": event.index,
        "id": event.id,
        "order": ".".join(map(str, event.order)),
    }


def _order(text: str | None) -> tuple[int, int, int, int] | None:
    """Read the place of an event as ``--json`` gives it."""
    if text is None:
        return None
    try:
        a, b, c, d = map(int, text.split("."))
    except ValueError:
        raise CliError(f"--after {text!r} is no order; take it from run events --json") from None
    return a, b, c, d


def times(args: Any) -> int:
    """Run ``flowq run timeline``."""
    _, app, id = asked(args)
    run = app.run(id_text(id[:16]))
    nodes = run.critical_path() if args.critical else run.timeline()
    begins = [n.started_at or n.ready_at for n in nodes]  # what sleeps has no body
    began = min(filter(None, begins), default=None)
    rows = []
    for n, begin in zip(nodes, begins, strict=True):
        assert begin is not None and began is not None
        at = (begin - began).total_seconds()
        waited = (begin - n.ready_at).total_seconds() if n.ready_at else None
        took = (n.ended_at - begin).total_seconds() if n.ended_at else None
        rows.append((n.name, n.state, at, waited, took))
    if wants_json(args):
        keys = ("name", "state", "at", "waited", "took")
        listed = [dict(zip(keys, row, strict=True)) for row in rows]
        document({"id": run.id, "nodes": listed})
        return OK
    widest = max((len(row[0]) for row in rows), default=0)
    for name, state, at, waited, took in rows:
        parts = (f"{at:9.3f} s", name.ljust(widest), state.ljust(9), f"waited {duration(waited)}")
        print("  ".join((*parts, f"took {duration(took)}" if took is not None else "")).rstrip())
    return OK


def cancel(args: Any) -> int:
    """Run ``flowq run cancel``."""
    _, app, id = asked(args)
    id = _node_of(app, id, args.node)
    stopping = app.result(id_text(id)).cancel(force=args.force)
    if wants_json(args):
        document(
            {
                "id": id_text(id),
                "stopped": stopping.stopped,
                "state": stopping.state,
                "running": stopping.running,
                "cleanup": stopping.cleanup,
            }
        )
    else:
        print(f"{id_text(id)}  {stopping}")
    return OK if stopping else REFUSED


def retry(args: Any) -> int:
    """Run ``flowq run retry``."""
    return _again(args, lambda run: run.retry(args.node, forgiven=args.forgiven))


def rerun(args: Any) -> int:
    """Run ``flowq run rerun``."""
    return _again(args, lambda run: run.rerun(args.node))


def fork(args: Any) -> int:
    """Run ``flowq run fork``."""
    store, app, id = asked(args)
    run = app.run(id_text(id[:16]))
    node = int(args.node) if args.node is not None and args.node.isdigit() else args.node or 0
    try:
        given = _arguments(app, run, node, args.param) if args.param else None
        made = run.fork(node, args=given)
    except RunActive as err:
        raise CliError(str(err), REFUSED) from None
    except ResultMissing as err:
        raise CliError(str(err), NOT_FOUND) from None
    except GraphError as err:
        raise CliError(str(err)) from None
    json = wants_json(args)
    if json:
        line({"run": made.id, "of": run.id})
    else:
        print(made.id)
    return follow(store, id_bytes(made.id), args.name, json) if args.watch else OK


def _arguments(app: FlowQ, run: Run[Any], node: str | int, words: list[str]) -> dict[str, Any]:
    """Read arguments of a node as the annotations of its task say."""
    from flowq.cli.params import read_parameters

    name = next((x.task for x in run.nodes() if node in (x.name, x.index)), "")
    if not name or name in BUILT_IN:
        raise CliError(f"-p is for the arguments of a task; {node or 'the run'!r} is none")
    app.load()
    try:
        return read_parameters(app.spec(name), words)
    except UnknownTask as err:
        raise CliError(f"{err}; say the app that has it: -A module:app") from None


def _again(args: Any, rewind: Callable[[Run[Any]], int]) -> int:
    """Let nodes of a run run again, and follow it if that is wanted."""
    store, app, id = asked(args)
    if args.node is not None and args.node.isdigit():
        args.node = int(args.node)
    try:
        count = rewind(app.run(id_text(id)))
    except RunActive as err:
        raise CliError(str(err), REFUSED) from None
    except ResultMissing as err:
        raise CliError(str(err), NOT_FOUND) from None
    json = wants_json(args)
    if json:
        line({"run": id_text(id[:16]), "again": count})
    else:
        print(f"{id_text(id[:16])}  {count:,} node{'s' * (count != 1)} run again")
    if not count:
        return REFUSED
    return follow(store, id[:16], args.name, json) if args.watch else OK


def graph(args: Any) -> int:
    """Run ``flowq run graph``."""
    _, app = home_of(args)
    if app is not None:
        from flowq.cli.flow import drawn, find_flow

        app.load()
        if args.what in app.flows or not _is_id(args.what):
            drawing = drawn(find_flow(app, args.what), args.param)
            return give_picture(args, {"flow": args.what}, drawing)
    from flowq.picture import drawing_of

    if args.param:
        raise CliError("-p is for the graph of a flow; say its app: -A module:app")
    store = store_of(args)
    id = _find(store, args.what)[:16]
    run = found_run(store, id, args.name)
    name = f"{run.name or id_text(id)}: {shown_state(run.state)}"
    drawing = drawing_of(nodes(store, id), name=name, store=store, run=id)
    return give_picture(args, {"run": id_text(id)}, drawing)


def give_picture(args: Any, what: dict[str, str], drawing: Drawing) -> int:
    """Print a picture, or write it to the file that ``-o`` names."""
    from flowq.drawing import mermaid
    from flowq.svg import svg

    form = args.format or ("svg" if (args.output or "").lower().endswith(".svg") else "mermaid")
    text = svg(drawing) if form == "svg" else mermaid(drawing)
    if args.output not in (None, "-"):
        try:
            Path(args.output).write_text(text, encoding="utf-8")
        except OSError as err:
            raise CliError(f"{args.output} cannot be written: {err.strerror or err}") from None
        if wants_json(args):
            document({**what, "format": form, "file": args.output})
        else:
            note(f"{form} in {args.output}")
    elif wants_json(args):
        document({**what, form: text})
    else:
        print(text, end="")
    return OK


def _is_id(text: str) -> bool:
    return all(c in "0123456789abcdef-:" for c in text.lower())


def _find(store: Store, text: str) -> bytes:
    hint = "; a task that was called by itself is found by its whole id only"
    return find_id(text, (run.id for run in runs(store, LOOKED_AT)), "run", hint)


def asked(args: Any) -> tuple[Store, FlowQ, bytes]:
    """Give the store that is asked, an app on it, and the id of what is meant there."""
    from flowq.app import FlowQ

    store = store_of(args)
    id = _find(store, args.id)
    url, app = home_of(args)
    if app is None:
        app = FlowQ(args.name, url)
    elif args.url is not None:
        app.use_url(args.url)
    if store.look((id,), cells=False)[0] is None:
        raise CliError(
            f"the app {args.name!r} knows no {id_text(id)}: never started here, or expired",
            NOT_FOUND,
        )
    return store, app, id


def _node_of(app: FlowQ, id: bytes, node: str | None) -> bytes:
    """Give the id of a node of a run by its path; of the run itself if none is said."""
    if node is None:
        return id
    try:
        found = app.run(id_text(id[:16])).result(int(node) if node.isdigit() else node)
    except ResultMissing as err:
        raise CliError(str(err), NOT_FOUND) from None
    return id_bytes(found.id)
