# SPDX-License-Identifier: MIT
"""``flowq run why``, ``graph`` and ``cancel``: what is said of one run, and what stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowq.cli.loading import find_app
from flowq.cli.output import NOT_FOUND, OK, REFUSED, CliError, document
from flowq.cli.reading import LOOKED_AT, find_id, nodes, runs, store_of, wants_json
from flowq.cli.run import found_run
from flowq.errors import ResultMissing
from flowq.message import id_text

if TYPE_CHECKING:
    from flowq.app import FlowQ
    from flowq.storage import Store

__all__ = ["cancel", "graph", "why"]


def why(args: Any) -> int:
    """Run ``flowq run why``."""
    app, id = _asked(args)
    node = id_text(id)
    handle = app.result(node)
    said = handle.why()
    if wants_json(args):
        document({"id": node, "state": handle.state, "why": said.splitlines()})
    else:
        print(said)
    return OK


def cancel(args: Any) -> int:
    """Run ``flowq run cancel``."""
    app, id = _asked(args)
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


def graph(args: Any) -> int:
    """Run ``flowq run graph``."""
    from flowq.picture import mermaid

    if args.app is not None:
        from flowq.cli.flow import drawn, find_flow

        app, _ = find_app(args.app)
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


def _asked(args: Any) -> tuple[FlowQ, bytes]:
    """Give an app on the store that is asked, and the id of what is meant there."""
    from flowq.app import FlowQ

    store = store_of(args)
    id = _find(store, args.id)
    if args.app is not None:
        app, _ = find_app(args.app)
        if args.url is not None:
            app.use_url(args.url)
    else:
        app = FlowQ(args.name, _url(args))
    if store.look((id,), cells=False)[0] is None:
        raise CliError(
            f"the app {args.name!r} knows no {id_text(id)}: never started here, or expired",
            NOT_FOUND,
        )
    if args.node is not None:
        try:
            node = int(args.node) if args.node.isdigit() else args.node
            found = app.run(id_text(id[:16])).result(node)
        except ResultMissing as err:
            raise CliError(str(err), NOT_FOUND) from None
        id = found._id
    return app, id


def _url(args: Any) -> str:
    from flowq.settings import DEFAULT_URL, load_settings

    return load_settings({"url": args.url}, ["url"])["url"] or DEFAULT_URL
