# SPDX-License-Identifier: MIT
"""``flowq status``."""

from __future__ import annotations

import time
from typing import Any

from flowq.cli.output import OK, document, duration, iso, pairs, table
from flowq.cli.reading import store_of, wants_json

__all__ = ["status"]


def status(args: Any) -> int:
    """Run the command."""
    store = store_of(args)
    counts = store.status()
    workers = sorted(store.sessions(), key=lambda s: (s.host, s.started_ms, s.id))
    queues = sorted(counts.queues, key=lambda q: q.name)
    if wants_json(args):
        document(
            {
                "store": store.url,
                "app": args.name,
                "queues": [{"name": q.name, "ready": q.ready} for q in queues],
                "scheduled": counts.scheduled,
                "running": counts.running,
                "dead": counts.dead,
                "runs": counts.runs,
                "workers": [
                    {
                        "session": w.id,
                        "host": w.host,
                        "pid": w.pid,
                        "kind": w.kind,
                        "lanes": w.lanes,
                        "held": w.held,
                        "queues": list(w.queues),
                        "tasks": list(w.tasks),
                        "started": iso(w.started_ms),
                        "deadline": iso(w.deadline_ms),
                    }
                    for w in workers
                ],
            }
        )
        return OK
    pairs(
        [
            ("store", store.url),
            ("app", args.name),
            ("running", counts.running),
            ("scheduled", counts.scheduled),
            ("unfinished runs", counts.runs),
            ("dead letters", counts.dead),
        ]
    )
    print()
    table(["queue", "ready"], [(q.name, q.ready) for q in queues] or [("(none used yet)", "")])
    print()
    if not workers:
        print("no live workers")
        return OK
    now = time.time()
    table(
        ["worker", "kind", "lanes", "held", "tasks", "up", "queues"],
        [
            (
                f"{w.host}:{w.pid}",
                w.kind,
                w.lanes,
                w.held,
                len(w.tasks),
                duration(max(0.0, now - w.started_ms / 1000)) if w.started_ms else "",
                ",".join(w.queues),
            )
            for w in workers
        ],
    )
    return OK
