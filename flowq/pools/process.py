# SPDX-License-Identifier: MIT
"""Workers as processes: started, told, watched, and released at once when they die.

The parent runs no task. It renews the leases of its workers, and knows from shared memory which
message each was running, so that only that one counts a loss.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from queue import SimpleQueue
from typing import IO, Any, Final

from flowq import logs
from flowq.leases import LOOK_SECONDS, Leases, new_session
from flowq.pools.child import NOTE, UNREACHABLE, USAGE, read_note
from flowq.storage.base import Store

__all__ = ["ProcessPool"]

log = logging.getLogger("flowq.consumer")

BOOT: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from flowq.pools.child import run; run()"
)
"""A new interpreter and no fork: nothing of the parent's threads, sockets or ``__main__``."""
YOUNG: Final = 1.0
"""A worker that lived shorter is started again with growing delay."""
LONGEST_DELAY: Final = 10.0


class Child:
    """One worker process, seen from its parent."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.session = new_session()
        self.lanes: int = config["lanes"]
        self.born = time.monotonic()
        self._notes: IO[bytes] = tempfile.TemporaryFile()  # lives as long as this does
        self._notes.truncate(self.lanes * NOTE)
        self._memory = mmap.mmap(self._notes.fileno(), self.lanes * NOTE)
        notes = str(self._notes.fileno())
        reads, writes = os.pipe()
        self._orders = os.fdopen(writes, "wb")
        self._lock = threading.Lock()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", BOOT, json.dumps(sys.path), str(reads), notes],
                stdin=subprocess.DEVNULL,
                pass_fds=(reads, self._notes.fileno()),
                start_new_session=True,  # a Ctrl-C at the terminal is for the parent
            )
        finally:
            os.close(reads)
        self._send({**config, "session": self.session})

    def _send(self, order: dict[str, Any]) -> None:
        with self._lock:
            try:
                self._orders.write(json.dumps(order).encode() + b"\n")
                self._orders.flush()
            except (BrokenPipeError, ValueError):
                log.debug("worker %d is gone and was told nothing", self.process.pid)

    def stop(self) -> None:
        """Let it finish what it runs, and end."""
        self._send({"do": "stop"})

    def cancel(self, ids: Sequence[bytes]) -> None:
        """Let it interrupt bodies."""
        self._send({"do": "cancel", "ids": [id.hex() for id in ids]})

    def reopen(self) -> None:
        """Let it open its session again, which the store has given up."""
        self._send({"do": "open"})

    def running(self) -> list[bytes]:
        """Give the ids that it runs, or ran when it died."""
        return [id for id, _ in self._read() if id]

    def is_busy(self) -> bool:
        """Whether one of its bodies has run for a while."""
        now = time.monotonic()
        return any(id and now - since > LOOK_SECONDS for id, since in self._read())

    def _read(self) -> list[tuple[bytes, float]]:
        return [read_note(self._memory, lane) for lane in range(self.lanes)]

    def close(self) -> None:
        """Free what belongs to it, once it has ended."""
        with self._lock:
            try:
                self._orders.close()
            except BrokenPipeError:
                log.debug("worker %d read no more", self.process.pid)
        self._memory.close()
        self._notes.close()


class ProcessPool:
    """Worker processes, kept alive until they are stopped.

    Parameters
    ----------
    store : Store
        The parent's own.
    processes : int
    config : dict
        What `flowq.pools.child` needs: app, url, imports, queues, lanes, lease, drain, kind.
    """

    def __init__(self, store: Store, *, processes: int, config: dict[str, Any]) -> None:
        self._count = processes
        self._config = {**config, "logs": logs.settings(), "parent": os.getpid()}
        self._children: dict[int, Child] = {}
        self._failures: dict[int, int] = {}
        self._events: SimpleQueue[tuple[int, Child | None]] = SimpleQueue()
        self._leases = Leases(store, config["lease"], self._is_busy)
        self._stopping = False
        self._ended = threading.Event()
        self._open = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="flowq-watch", daemon=True)
        self.status = 0

    def start(self) -> None:
        """Start all workers, and begin to watch."""
        self._leases.start()
        self._open = self._count
        for slot in range(self._count):
            self._start(slot)
        self._thread.start()

    def stop(self) -> None:
        """Let all finish what they run; `join` waits for them."""
        with self._lock:
            self._stopping = True
            children = list(self._children.values())
        for child in children:
            child.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all have ended; False if they have not in time."""
        return self._ended.wait(timeout)

    def abandon(self) -> None:
        """Kill what does not end; what it ran goes back uncounted, it was no accident."""
        with self._lock:
            self._stopping = True
            children = list(self._children.values())
        for child in children:
            self._leases.remove(child.session)
            child.process.kill()
        self._ended.wait()

    def close(self) -> None:
        """End the threads beside."""
        self._leases.stop()

    def _is_busy(self) -> bool:
        with self._lock:
            return any(child.is_busy() for child in self._children.values())

    def _start(self, slot: int) -> None:
        with self._lock:
            if self._stopping:
                self._events.put((slot, None))
                return
            child = self._children[slot] = Child(self._config)
        self._leases.add(child.session, child.cancel, child.reopen)
        threading.Thread(target=self._wait, args=(slot, child), daemon=True).start()

    def _wait(self, slot: int, child: Child) -> None:
        child.process.wait()
        self._events.put((slot, child))

    def _watch(self) -> None:
        while self._open:
            slot, child = self._events.get()
            if child is None or self._bury(slot, child):
                self._open -= 1
        self._ended.set()

    def _bury(self, slot: int, child: Child) -> bool:
        """Release what a worker that ended held; whether its place stays empty."""
        code = child.process.returncode
        lost = [] if code == 0 or self._killed_by_us(code) else child.running()
        why = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        with self._lock:
            del self._children[slot]
            child.close()
            stopping = self._stopping
        self._leases.release(child.session, lost=lost, reason=why)
        if stopping or (code == 0 and self._config["drain"]):
            return True
        if code in (USAGE, UNREACHABLE) and time.monotonic() - child.born < 60:
            self.status = code
            self.stop()
            return True
        log.error("worker %d ended (%s) and is started again", child.process.pid, why)
        young = time.monotonic() - child.born < YOUNG
        failures = self._failures[slot] = self._failures.get(slot, 0) + 1 if young else 0
        delay = min(LONGEST_DELAY, 0.1 * 2**failures) if failures else 0.0
        timer = threading.Timer(delay, self._start, (slot,))
        timer.daemon = True
        timer.start()
        return False

    def _killed_by_us(self, code: int) -> bool:
        return self._stopping and code == -signal.SIGKILL
