# SPDX-License-Identifier: MIT
"""``flowq worker``."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

from flowq import logs
from flowq.cli.loading import find_app, import_module
from flowq.cli.output import CliError

__all__ = ["cpus", "start", "work"]

KEYS = "app url import workers kind queue lease shutdown-timeout drain log-format verbosity".split()


def work(args: Any) -> int:
    """Run the command."""
    from flowq.settings import load_settings

    flags = {key: getattr(args, key.replace("-", "_"), None) for key in KEYS}
    if args.verbose or args.quiet:
        flags["verbosity"] = max(-2, min(2, args.verbose - args.quiet))
    said = load_settings(flags, KEYS)
    if said["app"] is None:
        raise CliError("say where the app is: flowq worker module:app, as in shop:q")
    logs.configure(verbosity=said["verbosity"], format=said["log-format"])
    return start(
        said["app"],
        url=flags["url"],
        imports=said["import"],
        workers=said["workers"] or cpus(),
        kind=said["kind"] or "process",
        queues=said["queue"] or None,
        lease=said["lease"],
        shutdown_timeout=said["shutdown-timeout"],
        drain=said["drain"],
    )


def start(place: str, *, url: str | None, imports: tuple[str, ...], **more: Any) -> int:
    """Find an app and run its consumer; gives the exit status."""
    app, path = find_app(place)
    for module in (*app.imports, *imports):
        import_module(module)
    if url is not None:
        app.use_url(url)
    if not app.tasks:
        raise CliError(
            f"{path} knows no task; name the modules that define them by --import, "
            "or FlowQ(imports=[...])"
        )
    if not app.store.shares_processes:
        raise CliError(
            "memory:// lives in one process: calls from others would not be heard; use "
            "--url sqlite:///flowq.db, or q.consumer() in the process that calls tasks"
        )
    from flowq.consumer import Consumer

    status = Consumer(app, path=path, imports=imports, **more).run()
    sys.stderr.flush()
    return status


def cpus() -> int:
    """Give how many CPUs this process may use: its affinity, and its control group's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _quota()
    return max(1, min(count, math.ceil(quota))) if quota else count


def _quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Give the CPUs that control groups (version 2, else 1) allow, or None."""
    try:
        if (root / "cgroup.controllers").exists():
            return _quota_v2(root)
        most = int((root / "cpu/cpu.cfs_quota_us").read_text())
        return most / int((root / "cpu/cpu.cfs_period_us").read_text()) if most > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no control groups, or none to be read
        return None


def _quota_v2(root: Path) -> float | None:
    """Give the least of this group's limit and those of the groups around it."""
    own = next(
        text.rstrip().partition("::")[2].lstrip("/")
        for text in [*Path("/proc/self/cgroup").read_text().splitlines(), "0::/"]
        if text.startswith("0::")
    )
    limits = []
    folder = root / own
    for place in (folder, *folder.parents):
        limit = place / "cpu.max"
        if limit.exists():
            most, period = limit.read_text().split()
            if most != "max":
                limits.append(int(most) / int(period))
        if place == root:
            break
    return min(limits, default=None)
