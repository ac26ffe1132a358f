# SPDX-License-Identifier: MIT
"""``flowq run why``, ``timeline``, ``graph``, ``cancel``, ``retry``, ``rerun``: one run, asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowq.cli.output import NOT_FOUND, OK, REFUSED, CliError, document, line
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
from flowq.errors import ResultMissing, RunActive
from flowq.message import id_bytes, id_text
from flowq.text import duration

if TYPE_CHECKING:
    from flowq.app import FlowQ
    from flowq.run import Run
    from flowq.storage import Store

__all__ = ["cancel", "graph", "rerun", "retry", "times", "why"]


def why(args: Any) -> int:
    """Run ``flowq run why``."""
    _, app, id = _asked(args)
    id = _node_of(app, id, args.node)
    node = id_text(id)
    handle = app.result(node)
    said = handle.why()
    if wants_json(args):
        document({"id": node, "state": handle.state, "why": said.splitlines()})
    else:
        print(said)
    return OK


def times(args: Any) -> int:
    """Run ``flowq run timeline``."""
    _, app, id = _asked(args)
    run = app.run(id_text(id[:16]))
    nodes = run.critical_path() if args.critical else run.timeline()
    began = min((n.started_at for n in nodes if n.started_at), default=None)
    rows = []
    for n in nodes:
        assert n.started_at is not None and began is not None
        at = (n.started_at - began).total_seconds()
        waited = (n.started_at - n.ready_at).total_seconds() if n.ready_at else None
        rows.append((n.name, n.state, at, waited, n.run_time))
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
    _, app, id = _asked(args)
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


def _again(args: Any, rewind: Callable[[Run[Any]], int]) -> int:
    """Let nodes of a run that has ended run again, and follow it if that is wanted."""
    store, app, id = _asked(args)
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
    from flowq.picture import mermaid

    _, app = home_of(args)
    if app is not None:
        from flowq.cli.flow import drawn, find_flow

        app.load()
        if args.what in app.flows or not _is_id(args.what):
            text = drawn(find_flow(app, args.what), args.param)
            _print_graph(args, {"flow": args.what}, text)
            return OK
    if args.param:
        raise CliError("-p is for the graph of a flow; say its app: -A module:app")
    store = store_of(args)
    id = _find(store, args.what)[:16]
    found_run(store, id, args.name)
    _print_graph(args, {"run": id_text(id)}, mermaid(nodes(store, id)))
    return OK


def _print_graph(args: Any, what: dict[str, str], text: str) -> None:
    if wants_json(args):
        document({**what, "mermaid": text})
    else:
        print(text, end="")


def _is_id(text: str) -> bool:
    return all(c in "0123456789abcdef-:" for c in text.lower())


def _find(store: Store, text: str) -> bytes:
    hint = "; a task that was called by itself is found by its whole id only"
    return find_id(text, (run.id for run in runs(store, LOOKED_AT)), "run", hint)


def _asked(args: Any) -> tuple[Store, FlowQ, bytes]:
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
