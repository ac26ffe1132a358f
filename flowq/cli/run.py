# SPDX-License-Identifier: MIT
"""``flowq run``: runs, their nodes, and how they move."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flowq.cli.output import (
    FAILED,
    NOT_FOUND,
    OK,
    USAGE,
    CliError,
    document,
    duration,
    iso,
    line,
    moment,
    note,
    one_line,
    paint,
    pairs,
    table,
)
from flowq.cli.reading import (
    LOOKED_AT,
    culprit_of,
    cut,
    failure_in,
    find_id,
    nodes,
    runs,
    shown_state,
    store_of,
    tries_of,
    wants_json,
)
from flowq.message import id_text, read_cell
from flowq.plan import Kind, ranges_of
from flowq.states import State

if TYPE_CHECKING:
    from flowq.storage import Store
    from flowq.storage.base import NodeInfo, RunInfo

__all__ = ["list_runs", "show"]

LOOKS = 0.5
"""Seconds between two looks at a run that is watched."""
COLUMNS = ("node", "task", "state", "tries", "started", "took", "why")


def list_runs(args: Any) -> int:
    """Run ``flowq run list``."""
    store = store_of(args)
    if wants_json(args):
        for run in runs(store, args.limit):
            line(_run(run))
        return OK
    found, more = cut(runs(store, args.limit + 1), args.limit)
    rows = [
        (
            id_text(run.id),
            run.name or "-",
            shown_state(run.state, True),
            run.nodes,
            moment(run.created_ms),
            duration(_run(run)["seconds"]),
        )
        for run in found
    ]
    if rows:
        table(["id", "name", "state", "nodes", "created", "took"], rows)
    else:
        note(f"no runs of the app {args.name!r} (tasks that were called by themselves are none)")
    if more:
        note("there are more; --limit shows more")
    return OK


def show(args: Any) -> int:
    """Run ``flowq run show``."""
    wanted = _state(args.state)
    store = store_of(args)
    id = find_id(args.id, (run.id for run in runs(store, LOOKED_AT)), "run")[:16]
    if (look := store.look([id])[0]) is not None and not look.run:
        raise CliError(f"{id_text(id)} is a task, not a run: flowq task show {id_text(id)}")
    run = _found(store, id, args.name)
    json = wants_json(args)
    if args.watch:
        return _watch(store, run, args.name, json)
    shown: list[NodeInfo] = []
    states: Counter[str] = Counter()
    for info in nodes(store, id, wanted):
        states[info.state.label] += 1
        if len(shown) < args.limit:
            shown.append(info)
    rows = [_node(*told) for told in _explained(store, id, shown)]
    if json:
        document({**_run(run), "states": dict(states), "nodes": rows})
        return OK
    what = _run(run)
    pairs(
        [
            ("run", what["id"]),
            ("name", run.name),
            ("state", what["state"]),
            ("created", moment(run.created_ms)),
            ("ended", moment(run.ended_ms)),
            ("took", duration(what["seconds"])),
            ("nodes", ", ".join(f"{n} {s}" for s, n in states.most_common()) or "none"),
        ]
    )
    if rows:
        print()
        table(COLUMNS, [_cells(row, info) for row, info in zip(rows, shown, strict=True)])
    if sum(states.values()) > len(rows):
        note(f"{sum(states.values()) - len(rows)} more; --limit shows more, --state fewer kinds")
    return OK


# --- following a run -----------------------------------------------------------------------------


def _watch(store: Store, run: RunInfo, app: str, json: bool) -> int:
    """Follow a run to its end: live on a terminal, else a line for each change."""
    live = None if json or not sys.stdout.isatty() else _live_view()
    seen: dict[int, State] = {}
    try:
        while True:
            run = _found(store, run.id, app)  # before its nodes, so that its end is seen last
            all_nodes = list(nodes(store, run.id))
            changed = [n for n in all_nodes if seen.get(n.index) != n.state]
            seen.update((n.index, n.state) for n in changed)
            if live is not None:
                live.update(run, all_nodes)
            else:
                _say(store, run.id, changed, json)
            if run.state.final:
                break
            store.wait_ended([run.id], timeout=LOOKS)
    finally:
        if live is not None:
            live.stop()
    what = _run(run)
    if json:
        line(what)
    else:
        if live is not None:  # the view has no room for reasons
            lost = (n for n in all_nodes if n.state in (State.FAILED, State.BLOCKED))
            for info, why, _ in _explained(store, run.id, lost):
                print(f"{info.name}  {paint(info.state.label)}  {one_line(why)}")
        took = duration(what["seconds"])
        print(f"{moment(run.ended_ms)}  run {what['id']}  {paint(what['state'])}  {took}".rstrip())
    return OK if run.state == State.SUCCESS else FAILED


def _say(store: Store, run: bytes, changed: list[NodeInfo], json: bool) -> None:
    for info, why, tries in _explained(store, run, changed):
        row = _node(info, why, tries)
        if json:
            line({"run": id_text(run), **row})
            continue
        at = info.ended_ms or info.started_ms or info.ready_ms or time.time_ns() // 1_000_000
        parts = (moment(at), info.name, paint(info.state.label), duration(row["seconds"]), why)
        print("  ".join(part for part in parts if part), flush=True)


class _Live:
    """A table in place, by rich; the most recent nodes where not all fit."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(auto_refresh=False)
        self._live.start()

    def update(self, run: RunInfo, all_nodes: list[NodeInfo]) -> None:
        from rich.table import Table
        from rich.text import Text

        colours = {"success": "green", "failed": "red", "blocked": "red", "running": "blue"}
        states = Counter(n.state.label for n in all_nodes)
        said = ", ".join(f"{n} {s}" for s, n in states.most_common())
        view = Table(
            title=f"{id_text(run.id)}  {shown_state(run.state, True)}",
            caption=said,
            title_justify="left",
            caption_justify="left",
        )
        for name in COLUMNS[:-1]:
            view.add_column(name)
        room = max(5, self._live.console.height - 6)
        recent = sorted(all_nodes, key=lambda n: n.ended_ms or n.started_ms or n.ready_ms)
        kept = {n.index for n in recent[-room:]}
        for info in all_nodes:
            if info.index in kept:
                tries = tries_of(info.state, info.attempt, info.started_ms > 0)
                cells = _cells(_node(info, "", tries), info)[:-1]
                style = colours.get(info.state.label, "dim")
                view.add_row(*(Text(str(c), style if i == 2 else "") for i, c in enumerate(cells)))
        self._live.update(view, refresh=True)

    def stop(self) -> None:
        self._live.stop()


def _live_view() -> _Live | None:
    try:
        return _Live()
    except ImportError:  # an extra; lines say the same
        return None


# --- rows ----------------------------------------------------------------------------------------


def _found(store: Store, id: bytes, app: str) -> RunInfo:
    run = store.run(id)
    if run is None:
        raise CliError(
            f"the app {app!r} has no run {id_text(id)}: never started here, or expired", NOT_FOUND
        )
    return run


def _state(word: str | None) -> State | None:
    if word is None:
        return None
    try:
        return State[word.upper()]
    except KeyError:
        known = ", ".join(s.label for s in State)
        raise CliError(f"--state {word!r} is none of {known}", USAGE) from None


def _explained(
    store: Store, run: bytes, infos: Iterable[NodeInfo]
) -> Iterator[tuple[NodeInfo, str, int | None]]:
    """Say of each node why it has no value (empty if it has, or may have), and its attempts."""
    infos = list(infos)
    lost = [n.index for n in infos if n.state.final and n.state != State.SUCCESS]
    cells = store.cells(run, ranges_of(lost)) if lost else {}
    names = {n.index: n.name for n in infos}
    for info in infos:
        raw = cells.get(info.index)
        why, tries = "", tries_of(info.state, info.attempt, info.started_ms > 0)
        if raw is not None:
            cell = read_cell(raw)
            failure = failure_in(cell)
            blamed = info.culprit if info.culprit is not None else culprit_of(cell)
            if failure is not None:
                why, tries = failure.message, failure.attempts
            elif blamed is not None:
                if blamed not in names:
                    near = store.nodes(run, after=blamed - 1, limit=1)
                    names[blamed] = near[0].name if near else str(blamed)
                why = f"because of {names[blamed]}"
            elif not cell.flags:
                why = cell.body.decode("utf-8", "replace")
        yield info, why, tries


def _run(run: RunInfo) -> dict[str, Any]:
    return {
        "id": id_text(run.id),
        "name": run.name,
        "state": shown_state(run.state, True),
        "created": iso(run.created_ms),
        "ended": iso(run.ended_ms),
        "seconds": (run.ended_ms - run.created_ms) / 1000 if run.ended_ms else None,
        "size": run.nodes,
    }


def _node(info: NodeInfo, why: str, tries: int | None) -> dict[str, Any]:
    body = info.started_ms and info.ended_ms
    return {
        "index": info.index,
        "node": info.name,
        "task": info.task or None,
        "kind": Kind(info.kind).name.lower(),
        "state": info.state.label,
        "generation": info.generation,
        "attempts": tries,
        "losses": info.losses,
        "ready": iso(info.ready_ms),
        "started": iso(info.started_ms),
        "ended": iso(info.ended_ms),
        "seconds": (info.ended_ms - info.started_ms) / 1000 if body else None,
        "why": why or None,
    }


def _cells(row: dict[str, Any], info: NodeInfo) -> tuple[Any, ...]:
    started = moment(info.started_ms)[11:]
    took = duration(row["seconds"])
    return (
        info.name,
        info.task or "-",
        info.state.label,
        row["attempts"] or "",
        started,
        took,
        row["why"] or "",
    )
