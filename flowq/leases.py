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
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from flowq.errors import StoreError
from flowq.storage.base import Store

__all__ = [
    "LOOK_SECONDS",
    "Leases",
    "boot_id",
    "is_alive",
    "new_session",
    "process_start",
    "release_dead",
]

log = logging.getLogger("flowq.leases")

LOOK_SECONDS: Final = 0.5
"""While a body runs on, cancels are looked for so often."""


HIDDEN: Final = "hidden"
"""Stands for the start of a process that the system keeps from other users."""


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
    """Say when a process began, as its system tells it.

    Empty if there is none (any more), `HIDDEN` if there is one of which nothing is told.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return HIDDEN if _exists(pid) else ""
    except OSError:
        return ""
    else:
        # What follows the name, which may hold anything: state, ..., starttime (field 22).
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    out = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True)
    return out.stdout.strip()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's, whose processes /proc may hide
        return True
    return True


def is_alive(pid: int, started: str) -> bool:
    """Whether a process still lives; one that has the same number later does not count."""
    now = process_start(pid)
    return bool(now) and (now == started or HIDDEN in (now, started))


def release_dead(store: Store) -> int:
    """Release the sessions of this machine whose process is gone: no need to wait for the lease.

    A worker process whose parent lives is left to it. Where the parent died, too, the whole
    consumer was ended from outside, which is no evidence against what it ran: nothing counts a
    loss, so however often a machine is switched off, no long task ends as a dead letter by that.
    A worker that had no parent may have been ended by what it ran: all that it held counts a loss,
    since nobody knows any more which of it was running.

    Returns
    -------
    int
        How many sessions were released.
    """
    boot = boot_id()
    n = 0
    for info in store.sessions() if boot else ():
        if info.boot != boot or is_alive(info.pid, info.pid_started):
            continue
        if info.parent and is_alive(info.parent, info.parent_started):
            continue
        held = [] if info.parent else [d.id for d in store.held(info.id)]
        back = store.release(info.id, lost=held, reason="its process is gone")
        log.warning("took back %d messages of a dead worker (pid %d)", back, info.pid)
        n += 1
    return n


Tell: TypeAlias = Callable[[Sequence[bytes]], None]


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
        self._told: dict[str, tuple[Tell, Callable[[], None]]] = {}
        self._dead: list[tuple[str, Sequence[bytes], str]] = []
        self._seen: set[str] = set()  # a worker process opens its session a while after its start
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flowq-leases", daemon=True)
        self._failing = False

    def start(self) -> None:
        """Begin to renew."""
        self._last = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Renew no more."""
        self._stop.set()
        self._thread.join()

    def add(self, session: str, told: Tell, lost: Callable[[], None]) -> None:
        """Renew a session from now on.

        `told` gets the ids that it must stop; `lost` is called if the store does not know it
        any more, and opens it again.
        """
        with self._lock:
            self._told[session] = told, lost

    def remove(self, session: str) -> None:
        """Let a session be."""
        with self._lock:
            self._told.pop(session, None)
            self._seen.discard(session)

    def release(self, session: str, *, lost: Sequence[bytes] = (), reason: str = "") -> None:
        """End a session whose worker is gone; where the store is away, once it is back."""
        self.remove(session)
        with self._lock:
            self._dead.append((session, lost, reason))
        self._bury()

    def _run(self) -> None:
        look = min(LOOK_SECONDS, self._period)
        slept = time.monotonic()
        while not self._stop.wait(look):
            late = time.monotonic() - slept - look
            if late > self._period:
                log.warning(
                    "leases are renewed %.1f s late: this process stood still, or a body in it "
                    "held the interpreter (worker processes do not suffer from that)",
                    late,
                )
            self._tick(look)
            slept = time.monotonic()

    def _tick(self, look: float) -> None:
        try:
            if self._dead:
                self._bury()
            if time.monotonic() - self._last > self._period - look or self._busy():
                self._renew()
        except Exception:  # without renewals all would run twice
            log.exception("a defect in renewing leases; it goes on")

    def _bury(self) -> None:
        with self._lock:
            dead, self._dead = self._dead, []
        for k, (session, lost, reason) in enumerate(dead):
            try:
                n = self._store.release(session, lost=lost, reason=reason)
            except StoreError as err:
                self._say_failing("what a dead worker held cannot be taken back now: %s", err)
                with self._lock:
                    self._dead += dead[k:]
                return
            except Exception:  # who watches the workers must not end by it
                log.exception("a defect in taking back what a dead worker held; its lease will")
                continue
            if n:
                what = "1 message" if n == 1 else f"{n} messages"
                log.warning("took back %s of a worker that ended (%s)", what, reason)

    def _say_failing(self, text: str, err: StoreError) -> None:
        if not self._failing:
            self._failing = True
            log.warning(text, err)

    def _renew(self) -> None:
        self._last = time.monotonic()
        with self._lock:
            told = dict(self._told)
        if not told:
            return
        period = round(self._period * 1000)
        try:
            answers = self._store.renew(list(told), lease_ms=self._lease_ms, period_ms=period)
        except StoreError as err:
            self._say_failing("leases cannot be renewed now: %s", err)
            return
        self._failing = False
        for (session, (tell, lost)), stops in zip(told.items(), answers, strict=True):
            if stops is None:
                with self._lock:
                    known = session in self._told
                if known and session in self._seen:
                    log.warning("session %s was lost; what it held may run elsewhere", session)
                    try:
                        lost()
                    except StoreError as err:  # the next renewal says so again
                        self._say_failing("a session cannot be opened again now: %s", err)
                continue
            self._seen.add(session)
            if stops:
                tell(stops)
