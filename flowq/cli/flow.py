# SPDX-License-Identifier: MIT
"""``flowq flow``: the flows of an app."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from flowq.cli.checking import Checked, check_flow, graph_of, lacking
from flowq.cli.loading import find_app
from flowq.cli.output import (
    FAILED,
    NOT_FOUND,
    OK,
    CliError,
    document,
    line,
    note,
    one_line,
    paint,
    pairs,
    table,
)
from flowq.cli.params import read_parameters, said_parameters
from flowq.cli.reading import wants_json
from flowq.cli.run import follow
from flowq.drawing import mermaid
from flowq.errors import FlowqError
from flowq.node import kind_text
from flowq.policy import nearest
from flowq.primitives.mermaid import drawing_of

if TYPE_CHECKING:
    from flowq.app import FlowQ
    from flowq.drawing import Drawing
    from flowq.flow import Flow
    from flowq.graph import Graph

__all__ = ["check", "drawn", "find_flow", "list_flows", "show", "start"]

PLACES = ("flowq_app", "tasks", "app")
"""Modules in which an app is looked for where none is named."""


def list_flows(args: Any) -> int:
    """Run ``flowq flow list``."""
    app = _app(args)
    if wants_json(args):
        for name in sorted(app.flows):
            line(_described(app.flows[name]))
        return OK
    rows = [(name, str(app.flows[name].parameters), _doc(app.flows[name])) for name in
            sorted(app.flows)]  # fmt: skip
    if rows:
        table(["flow", "parameters", "what"], rows)
    else:
        note(f"the app {app.name!r} has no flows; a function with @q.flow is one")
    return OK


def show(args: Any) -> int:
    """Run ``flowq flow show``."""
    app = _app(args)
    flow = find_flow(app, args.flow)
    if args.graph:
        text = mermaid(drawn(flow, args.param))
        if wants_json(args):
            document({"flow": flow.name, "mermaid": text})
        else:
            print(text, end="")
        return OK
    given = read_parameters(flow, args.param)
    found = check_flow(flow, given)
    if wants_json(args):
        document({**_described(flow), **_found(found)})
        return OK
    what = _described(flow)
    pairs(
        [
            ("flow", what["flow"]),
            ("what", what["doc"]),
            ("where", what["where"]),
            ("parameters", "\n".join(f"{k}: {v}" for k, v in said_parameters(flow).items())),
            ("options", ", ".join(f"{k}={v!r}" for k, v in flow.options.items())),
            ("at a time", _bound(flow)),
            ("check", _said(found)),
        ]
    )
    if found.status == "ok":
        print()
        table(["node", "is", "after"], _rows(graph_of(flow, given), found))
    return OK


def _bound(flow: Flow[..., Any]) -> str:
    most = flow.options.get("max_parallel")
    if most is None:
        return ""
    tasks = f"{most} task{'s' * (most != 1)}"
    return f"{tasks} of all its runs together (max_parallel={most})"


def _rows(graph: Graph, found: Checked) -> list[tuple[str, str, str]]:
    """The nodes of a flow; one that was given placeholders stands beside those."""
    body = graph.root.inner
    if found.placeholders and body is not None:
        body = next(n.inner for n in body.nodes if n.inner is not None)
    nodes = body.nodes if body is not None else []
    return [
        (n.name, n.spec.name if n.spec else kind_text(n), ", ".join(p.name for p in n.parents))
        for n in nodes
    ]


def check(args: Any) -> int:
    """Run ``flowq flow check``: a gate for CI."""
    app = _app(args)
    flows = [find_flow(app, name) for name in args.flow] or [
        app.flows[name] for name in sorted(app.flows)
    ]
    json = wants_json(args)
    if not flows:
        note(f"the app {app.name!r} has no flows; a function with @q.flow is one")
    if args.param and len(flows) > 1:
        raise CliError("-p speaks of one flow; name it: flowq flow check NAME -p name=value")
    wrong = 0
    for flow in flows:
        found = check_flow(flow, read_parameters(flow, args.param))
        wrong += found.status == "wrong"
        if json:
            line({"flow": flow.name, **_found(found)})
        else:
            word = {"ok": "success", "wrong": "failed"}.get(found.status, "skipped")
            print(f"{paint(word, f'{found.status:<8}')}  {flow.name}  {_said(found)}".rstrip())
    return FAILED if wrong else OK


def start(args: Any) -> int:
    """Run ``flowq flow start``."""
    from flowq.message import id_bytes

    app = _app(args)
    flow = find_flow(app, args.flow)
    given = read_parameters(flow, args.param)
    missing = lacking(flow, given)
    if missing:
        words = " ".join(f"-p {name}=..." for name in missing)
        raise CliError(f"{flow.name}{flow.parameters} needs {words}")
    if args.url is not None:
        app.use_url(args.url)
    if not app.store.shares_processes:
        raise CliError("memory:// lives in one process; no worker would see the run")
    run = (flow if args.key is None else flow.options(key=args.key))(**given)
    json = wants_json(args)
    follows = args.watch or args.wait or args.timeout is not None
    if json:
        line({"run": run.id, "flow": flow.name, "created": run.created})
    elif not args.watch:
        print(run.id)
    if not follows:
        return OK
    if args.watch:
        return follow(app.store, id_bytes(run.id), app.name, json, args.timeout)
    return _waited(run, args.timeout)


def _waited(run: Any, timeout: float | None) -> int:
    from flowq.cli.output import TIMED_OUT

    if not run.wait(timeout):
        raise CliError(f"{run.id} is still {run.state}: {run.progress()}", TIMED_OUT)
    if run.state != "success":
        note(run.why())
        return FAILED
    return OK


# --- what they share -----------------------------------------------------------------------------


def find_flow(app: FlowQ, name: str) -> Flow[..., Any]:
    """Give a flow by its name, or the last part of it where only one has that.

    Raises
    ------
    CliError
        There is none, or several.
    """
    found = app.flows.get(name)
    if found is not None:
        return found
    ends = [full for full in app.flows if full.rpartition(".")[2] == name]
    if len(ends) == 1:
        return app.flows[ends[0]]
    if ends:
        raise CliError(f"several flows are named {name!r}: {', '.join(sorted(ends))}", NOT_FOUND)
    short = {full.rpartition(".")[2]: full for full in app.flows}
    hint = nearest(name, [*app.flows, *short])
    if not hint and app.flows:
        hint = f"; there is {', '.join(sorted(app.flows))}"
    raise CliError(f"the app {app.name!r} has no flow {name!r}{hint}", NOT_FOUND)


def drawn(flow: Flow[..., Any], words: list[str]) -> Drawing:
    """Give the picture of a flow's graph."""
    given = read_parameters(flow, words)
    try:
        graph = graph_of(flow, given)
    except FlowqError as err:
        names = lacking(flow, given)
        needs = " ".join(f"-p {name}=..." for name in names)
        hint = f"; say {needs}" if names else ""
        raise CliError(f"{flow.name}: {err}{hint}") from None
    return drawing_of(graph)


def _app(args: Any) -> FlowQ:
    from flowq.settings import load_settings

    place = load_settings({"app": args.app}, ["app"])["app"]
    app = find_app(place)[0] if place else _lone_app()
    app.load()
    return app


def _lone_app() -> FlowQ:
    """Find the only app in a module of a usual name."""
    from pathlib import Path

    for name in PLACES:
        if Path(f"{name}.py").is_file() or Path(name, "__init__.py").is_file():
            return find_app(name)[0]
    tried = ", ".join(f"{name}.py" for name in PLACES)
    raise CliError(
        "say where the app is: -A module:app, as in shop:q "
        f"(tried FLOWQ_APP, app in [tool.flowq] and {tried})"
    )


def _doc(flow: Flow[..., Any]) -> str:
    return (inspect.getdoc(flow.func) or "").partition("\n")[0]


def _described(flow: Flow[..., Any]) -> dict[str, Any]:
    code = getattr(flow.func, "__code__", None)
    return {
        "flow": flow.name,
        "doc": _doc(flow) or None,
        "where": f"{code.co_filename}:{code.co_firstlineno}" if code else None,
        "signature": str(flow.parameters),
        "parameters": dict(said_parameters(flow)),
        "options": {k: repr(v) for k, v in flow.options.items()},
    }


def _found(found: Checked) -> dict[str, Any]:
    return {
        "status": found.status,
        "nodes": found.nodes if found.status == "ok" else None,
        "placeholders": list(found.placeholders),
        "error": found.said or None,
    }


def _said(found: Checked) -> str:
    if found.status == "ok":
        text = f"{found.nodes} node{'s' * (found.nodes != 1)}"
        if found.placeholders:
            text += f" (without a value for {', '.join(found.placeholders)})"
        return text
    return one_line(found.said, 300)
