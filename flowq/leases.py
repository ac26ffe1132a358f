# SPDX-License-Identifier: MIT
"""Sessions of workers: their renewal, apart from the work, and the release of the dead.

Renewal runs where no body does (the parent of worker processes), so a body that holds the
interpreter for a minute keeps its lease.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from flowq.errors import StoreError
from flowq.storage.base import SessionInfo, Store

__all__ = ["Leases", "boot_id", "is_alive", "new_session", "process_start", "release_dead"]

log = logging.getLogger("flowq.leases")

LOOK_SECONDS: Final = 0.5
"""While a body runs on, cancels are looked for so often."""


def new_session() -> str:
    """Name a session: random, since hosts and process ids come again."""
    return f"w-{os.urandom(12).hex()}"


def boot_id() -> str:
    """Identify this boot of the machine and this process namespace; empty where unknown.

    Process ids mean the same only within one of both.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        pass
    if sys.platform != "darwin":
        return ""
    out = subprocess.run(["sysctl", "-n", "kern.boottime"], capture_output=True, text=True)
    return f"{socket.gethostname()}/{out.stdout.strip()}" if out.returncode == 0 else ""


def process_start(pid: int) -> str:
    """Say when a process began, as its system tells it; empty if there is none (any more)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    except OSError:
        return ""
    else:
        # What follows the name, which may hold anything: state, ..., starttime (field 22).
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    out = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True)
    return out.stdout.strip()


def is_alive(info: SessionInfo) -> bool:
    """Whether the process of a session of this machine still lives; a reused pid does not count."""
    return bool(info.pid_started) and process_start(info.pid) == info.pid_started


def release_dead(store: Store) -> int:
    """Release the sessions of this machine whose process is gone: no need to wait for the lease.

    What they held counts a loss each, since nobody knows any more which of it was running.

    Returns
    -------
    int
        How many sessions were released.
    """
    boot = boot_id()
    n = 0
    for info in store.sessions() if boot else ():
        if info.boot == boot and info.pid != os.getpid() and not is_alive(info):
            held = [d.id for d in store.held(info.id)]
            store.release(info.id, lost=held, reason="its process is gone")
            log.warning("took back %d messages of a dead worker (pid %d)", len(held), info.pid)
            n += 1
    return n


class Leases:
    """Renews sessions from a thread of its own, and tells them what they must stop.

    Parameters
    ----------
    store : Store
    lease : float
        Seconds; renewed every third of it.
    busy : callable
        Whether some body has run for so long that a cancel of it should be looked for.
    """

    def __init__(
        self, store: Store, lease: float, busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._store = store
        self._lease_ms = round(lease * 1000)
        self._period = lease / 3
        self._busy = busy
        self._told: dict[str, Callable[[Sequence[bytes]], None]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flowq-leases", daemon=True)
        self._failing = False

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renew no more."""
        self._stop.set()
        self._thread.join()

    def add(self, session: str, told: Callable[[Sequence[bytes]], None]) -> None:
        """Renew a session from now on; `told` gets the ids that it must stop."""
        with self._lock:
            self._told[session] = told

    def remove(self, session: str) -> None:
        """Let a session be."""
        with self._lock:
            self._told.pop(session, None)

    def _run(self) -> None:
        waited = 0.0
        while not self._stop.wait(min(LOOK_SECONDS, self._period)):
            waited += min(LOOK_SECONDS, self._period)
            if waited >= self._period or self._busy():
                waited = 0.0
                self._renew()

    def _renew(self) -> None:
        with self._lock:
            told = dict(self._told)
        if not told:
            return
        period = round(self._period * 1000)
        try:
            answers = self._store.renew(list(told), lease_ms=self._lease_ms, period_ms=period)
        except StoreError as err:
            if not self._failing:
                self._failing = True
                log.warning("leases cannot be renewed now: %s", err)
            return
        self._failing = False
        for (session, tell), stops in zip(told.items(), answers, strict=True):
            if stops is None:
                log.warning("session %s was lost; what it held may run elsewhere", session)
            elif stops:
                tell(stops)
