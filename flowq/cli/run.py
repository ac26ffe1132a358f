# SPDX-License-Identifier: MIT
"""``flowq run``: runs, their nodes, and how they move."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flowq.cli.output import (
    FAILED,
    NOT_FOUND,
    OK,
    TIMED_OUT,
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
    cut,
    find_id,
    nodes,
    runs,
    shown_state,
    store_of,
    wants_json,
)
from flowq.limits import limit_of
from flowq.message import id_text
from flowq.outline import MANY, Line, outline
from flowq.plan import Kind, Phase
from flowq.states import State
from flowq.versions import as_words, other_versions
from flowq.watching import LOOKS, Live, Seen, Sight, counted, explained, view_for

if TYPE_CHECKING:
    from flowq.storage import Store
    from flowq.storage.base import NodeInfo, RunInfo
    from flowq.versions import Versions

__all__ = ["follow", "found_run", "list_runs", "show", "version_row", "watch"]

LOST = 20
"""So many failed nodes are told at the end of a picture."""
COLUMNS = ("node", "task", "state", "tries", "started", "took", "why")


def list_runs(args: Any) -> int:
    """Run ``flowq run list``."""
    state = _state_of_run(args.state)
    store = store_of(args)
    found, more = cut(_chosen(store, args.flow, state), args.limit)
    if wants_json(args):
        for run in found:
            line(_run(run))
        return OK
    rows = [
        (
            id_text(run.id),
            run.name or "-",
            _shown(run),
            run.nodes,
            moment(run.created_ms),
            duration(_run(run)["seconds"]),
        )
        for run in found
    ]
    if rows:
        table(["id", "name", "state", "nodes", "created", "took"], rows)
    elif state or args.flow:
        note(f"no such runs of the app {args.name!r}")
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
    run = found_run(store, id, args.name)
    json = wants_json(args)
    if args.watch:
        return follow(store, id, args.name, json)
    found = list(nodes(store, id, wanted))
    states = Counter(info.state.label for info in found)
    if json:
        some = found[: args.limit]
        others = {info.index: v for info, v in other_versions(store, id, some)}
        rows = [
            {**_node(*told), "version": version_row(others.get(told[0].index))}
            for told in explained(store, id, some)
        ]
        document({**_run(run), "states": dict(states), "nodes": rows})
        return OK
    lines = outline(found, many=MANY if wanted is None and not args.items else len(found))
    shown = lines[: args.limit]
    some = [x.info for x in shown if x.info is not None]
    ran_as = {info.index: as_words(v) for info, v in other_versions(store, id, some)}
    told = {
        info.index: ("; ".join(part for part in (why, ran_as.get(info.index)) if part), tries)
        for info, why, tries in explained(store, id, some)
    }
    what = _run(run)
    pairs(
        [
            ("run", what["id"]),
            ("name", run.name),
            ("state", _shown(run)),
            ("created", moment(run.created_ms)),
            ("ended", moment(run.ended_ms)),
            ("took", duration(what["seconds"])),
            ("nodes", ", ".join(f"{n} {s}" for s, n in states.most_common()) or "none"),
        ]
    )
    if shown:
        print()
        sizes = Counter(info.owner for info in found)
        ended = Counter(info.owner for info in found if info.state.final)
        table(COLUMNS, [_cells(x, told, sizes, ended) for x in shown])
    if len(lines) > len(shown):
        note(f"{len(lines) - len(shown)} more; --limit shows more, --state fewer kinds")
    return OK


# --- following a run -----------------------------------------------------------------------------


def watch(args: Any) -> int:
    """Run ``flowq run watch``."""
    store = store_of(args)
    id = find_id(args.id, (run.id for run in runs(store, LOOKED_AT)), "run")
    return follow(store, id, args.name, wants_json(args), args.timeout)


def follow(store: Store, id: bytes, app: str, json: bool, timeout: float | None = None) -> int:
    """Follow a task, node or run to its end: live on a terminal, else a line for each change.

    Returns
    -------
    int
        The exit status that its outcome gives.
    """
    view = _Json(store) if json else view_for(store, sys.stdout, paint=paint)
    sight, live = Sight(store, id), isinstance(view, Live)
    end = None if timeout is None else time.monotonic() + timeout
    try:
        while True:
            began = time.monotonic()
            seen = sight.see()
            if seen is None:
                raise CliError(
                    f"the app {app!r} knows no {id_text(id)}: never started here, or expired",
                    NOT_FOUND,
                )
            view.show(seen)
            if seen.state.final:
                break
            now = time.monotonic()
            # a picture shows how long bodies run; what takes long to draw is drawn less often
            left = max(LOOKS, 4 * (now - began)) if live else None
            if end is not None:
                left = end - now if left is None else min(left, end - now)
            if left is not None and left <= 0:
                word = shown_state(seen.state, True)
                raise CliError(f"{id_text(id)} is still {word}: {seen.progress}", TIMED_OUT)
            sight.wait(left)
    finally:
        view.close()
    if live:  # the picture has little room for reasons
        _conclude(store, seen)
    return OK if seen.state == State.SUCCESS else FAILED


def _conclude(store: Store, seen: Seen) -> None:
    """Say why nodes have failed, and how the whole has ended."""
    lost = [n for n in seen.infos if n.state in (State.FAILED, State.BLOCKED)]
    for info, why, _ in explained(store, seen.id[:16], lost[:LOST]):
        print(f"{info.name}  {paint(info.state.label)}  {one_line(why)}")
    if len(lost) > LOST:
        print(f"{len(lost) - LOST:,} more; flowq run why {id_text(seen.id)}")
    parts = (moment(seen.ended_ms), seen.title, paint(shown_state(seen.state)))
    print("  ".join([*parts, duration(seen.seconds)]).strip())


class _Json:
    """A document for each change, and one for the whole at the end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[int, tuple[int, State]] = {}

    def show(self, seen: Seen) -> None:
        moved = []
        for info in seen.infos:
            now = (info.generation, info.state)
            if self._seen.get(info.index) != now:
                self._seen[info.index] = now
                moved.append(info)
        run = seen.id[:16]
        for told in explained(self._store, run, moved):
            line({"run": id_text(run), **_node(*told)})
        if seen.state.final:
            whole = self._store.run(seen.id) if len(seen.id) == 16 else None
            state = shown_state(seen.state, True)
            line(_run(whole) if whole else {"id": id_text(seen.id), "state": state})

    def close(self) -> None:
        pass


# --- rows ----------------------------------------------------------------------------------------


def found_run(store: Store, id: bytes, app: str) -> RunInfo:
    """Read one run; an error if there is none."""
    run = store.run(id)
    if run is None:
        raise CliError(
            f"the app {app!r} has no run {id_text(id)}: never started here, or expired", NOT_FOUND
        )
    return run


def _chosen(store: Store, flow: str | None, state: str | None) -> Iterator[RunInfo]:
    """Go through the runs of a flow, by its name or the last part of it, in a state."""
    names = () if flow is None else (flow, flow.rpartition(".")[2])
    for run in runs(store):
        named = not names or run.name in names
        if named and (state is None or shown_state(run.state, True) == state):
            yield run


def _state_of_run(word: str | None) -> str | None:
    known = sorted({shown_state(s, True) for s in State})
    if word is not None and word not in known:
        raise CliError(f"--state {word!r} is none of {', '.join(known)}", USAGE)
    return word


def _state(word: str | None) -> State | None:
    if word is None:
        return None
    try:
        return State[word.upper()]
    except KeyError:
        known = ", ".join(s.label for s in State)
        raise CliError(f"--state {word!r} is none of {known}", USAGE) from None


def version_row(versions: Versions | None) -> dict[str, str | None] | None:
    """Give what programs are told of a body that ran under another version of its task."""
    if versions is None:
        return None
    built, ran = versions
    return {"built": built or None, "ran": ran or None}


def _run(run: RunInfo) -> dict[str, Any]:
    return {
        "id": id_text(run.id),
        "name": run.name,
        "state": shown_state(run.state, True),
        "paused": run.paused,
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
        "inside": info.owner or None,
        "phase": Phase(info.phase).name.lower(),
        "state": info.state.label,
        "generation": info.generation,
        "attempts": tries,
        "losses": info.losses,
        "ready": iso(info.ready_ms),
        "started": iso(info.started_ms),
        "ended": iso(info.ended_ms),
        "seconds": (info.ended_ms - info.started_ms) / 1000 if body else None,
        "why": why or None,
        "signal": info.signal or None,
        "limit": limit_of(info.waits_at) if info.waits_at else None,
    }


def _shown(run: RunInfo) -> str:
    return shown_state(run.state, True) + (", paused" if run.paused else "")


def _cells(
    shown: Line,
    told: Mapping[int, tuple[str, int | None]],
    sizes: Counter[int],
    ended: Counter[int],
) -> tuple[Any, ...]:
    """The cells of one line; of many items, or what has something inside, with counts."""
    counts = counted(shown) if shown.items else ""
    info = shown.info
    if info is None:
        return (f"{shown.name}[...]", "-", "-", "", "", "", counts)
    why, tries = told[info.index]
    inner = sizes[info.index]
    if inner and not counts:
        counts = f"{ended[info.index]:,} of {inner:,} inside have ended"
    row = _node(info, why, tries)
    name = f"{info.name} × {len(shown.items):,}" if shown.items else info.name
    return (
        name,
        info.task or "-",
        info.state.label,
        row["attempts"] or "",
        moment(info.started_ms)[11:],
        duration(row["seconds"]),
        "; ".join(part for part in (counts, why) if part),
    )
