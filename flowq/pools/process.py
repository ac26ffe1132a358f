# SPDX-License-Identifier: MIT
"""Workers as processes: started, told, watched, and released at once when they die.

The parent runs no task. It renews the leases of its workers, and knows from shared memory which
message each was running, so that only that one counts a loss.
"""

from __future__ import annotations

import json
import logging
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
from flowq.pools.child import UNREACHABLE, USAGE, Notes
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
CANCELS: Final = 50
"""Ids in one order: a line that a pipe takes whole or not at all."""


_pipes: set[int] = set()
"""The ends of the parent's, on which its workers see that it lives."""


def _let_go() -> None:
    """Hold no pipe in a process that the user's program forks: it may outlive the parent."""
    null = os.open(os.devnull, os.O_WRONLY)
    for pipe in _pipes:
        os.dup2(null, pipe)
    os.close(null)
    _pipes.clear()


os.register_at_fork(after_in_child=_let_go)


class Child:
    """One worker process, seen from its parent."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.session = new_session()
        self.born = time.monotonic()
        self._lock = threading.Lock()
        with _shared_file() as file:
            file.write(bytes(Notes.size(config["lanes"])))  # no hole, which a full disk cannot fill
            self._notes = Notes(file.fileno(), config["lanes"])
            reads, self._orders = os.pipe()
            _pipes.add(self._orders)
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", BOOT, json.dumps(sys.path), str(reads),
                     str(file.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(reads, file.fileno()),
                    start_new_session=True,  # a Ctrl-C at the terminal is for the parent
                )  # fmt: skip
            except BaseException:
                self.close()
                raise
            finally:
                os.close(reads)
        self._send({**config, "session": self.session})
        # From now on a worker that does not listen, as one whose body holds the interpreter,
        # must not stop us: renewals come from the same thread.
        os.set_blocking(self._orders, False)

    def _send(self, order: dict[str, Any]) -> bool:
        """Write an order; False if it cannot take one now."""
        with self._lock:
            try:
                if self._orders >= 0:
                    os.write(self._orders, json.dumps(order).encode() + b"\n")
            except BlockingIOError:
                return False
            except BrokenPipeError:
                log.debug("worker %d is gone and was told nothing", self.process.pid)
        return True

    def stop(self) -> None:
        """Let it finish what it runs, and end."""
        told = self._send({"do": "stop"})
        if not told or not self.begun:
            self.process.terminate()  # heard as the same, or the end of one that has not begun

    def cancel(self, ids: Sequence[bytes]) -> None:
        """Let it interrupt bodies; what it cannot be told now, the next renewal says again."""
        for first in range(0, len(ids), CANCELS):
            self._send({"do": "cancel", "ids": [id.hex() for id in ids[first : first + CANCELS]]})

    def reopen(self) -> None:
        """Let it open its session again, which the store has given up."""
        self._send({"do": "open"})

    @property
    def begun(self) -> bool:
        """Whether it has loaded the app."""
        return self._notes.begun

    @property
    def drained(self) -> bool:
        """Whether it found that nothing is left."""
        return self._notes.drained

    def running(self) -> list[bytes]:
        """Give the ids that it runs, or ran when it died."""
        return [id for id, _ in self._notes.running()]

    def is_busy(self) -> bool:
        """Whether one of its bodies has run for a while."""
        now = time.monotonic()
        return any(now - since > LOOK_SECONDS for _, since in self._notes.running())

    def close(self) -> None:
        """Free what belongs to it, once it has ended."""
        with self._lock:
            _pipes.discard(self._orders)
            os.close(self._orders)
            self._orders = -1
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
        self._due: set[int] = set()  # places whose worker is yet to start
        self._failures: dict[int, int] = {}
        self._events: SimpleQueue[tuple[int, Child | None]] = SimpleQueue()
        self._leases = Leases(store, config["lease"], self._is_busy)
        self._stopping = False
        self._ended = threading.Event()
        self._open = 0
        self._begun = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="flowq-watch", daemon=True)
        self.status = 0

    def start(self) -> None:
        """Start all workers, and begin to watch."""
        self._leases.start()
        self._open = self._count
        with self._lock:
            self._due.update(range(self._count))
        for slot in range(self._count):
            self._start(slot)
        self._thread.start()

    def stop(self) -> None:
        """Let all finish what they run; `join` waits for them."""
        for child in self._stop():
            child.stop()

    def _stop(self) -> list[Child]:
        with self._lock:
            self._stopping = True
            for slot in self._due:
                self._events.put((slot, None))
            self._due.clear()
            return list(self._children.values())

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all have ended; False if they have not in time."""
        return self._ended.wait(timeout)

    def abandon(self) -> bool:
        """Kill what does not end; what it ran goes back uncounted, it was no accident.

        Says whether there was anything.
        """
        children = self._stop()
        with self._lock:  # what has ended meanwhile is buried, and its notes are closed
            ran = any(child.running() for child in self._children.values())
        for child in children:
            self._leases.remove(child.session)
            child.process.kill()
        self._ended.wait()
        return ran

    def close(self) -> None:
        """End the threads beside."""
        self._leases.stop()

    def _is_busy(self) -> bool:
        with self._lock:
            return any(child.is_busy() for child in self._children.values())

    def _start(self, slot: int) -> None:
        with self._lock:
            if slot not in self._due:  # `stop` was faster
                return
            try:
                child = Child(self._config)
            except OSError as err:  # no more processes, memory or files just now
                log.error("a worker cannot be started now: %s", err)
                self._start_later(slot)
                return
            self._due.remove(slot)
            self._children[slot] = child
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
        with self._lock:
            killed = self._stopping and code == -signal.SIGKILL  # by us
            lost = [] if killed else child.running()  # a body may end its process with any status
            begun, drained = child.begun, child.drained
            del self._children[slot]
            child.close()
            stopping = self._stopping
        why = _ending(code)
        self._leases.release(child.session, lost=lost, reason=why)
        self._begun = self._begun or begun
        if stopping:
            return True
        if drained and code == 0 and not lost:
            self.stop()  # what one has found holds for all: they serve the same queues
            return True
        # Later on that may be a deploy that is under way; and bodies, too, end processes.
        if code in (USAGE, UNREACHABLE) and not self._begun:
            self.status = code
            self.stop()
            return True
        log.error("worker %d ended (%s) and is started again", child.process.pid, why)
        if begun and time.monotonic() - child.born > YOUNG:
            self._failures[slot] = 0
        with self._lock:
            if self._stopping:
                return True
            self._due.add(slot)
            self._start_later(slot)
        return False

    def _start_later(self, slot: int) -> None:
        """Start a worker with a delay that grows each time; under `_lock`."""
        failures = self._failures[slot] = self._failures.get(slot, -1) + 1
        delay = min(LONGEST_DELAY, 0.1 * 2 ** min(failures, 10)) if failures else 0.0
        timer = threading.Timer(delay, self._start, (slot,))
        timer.daemon = True
        timer.start()


def _shared_file() -> IO[bytes]:
    """Open a file without a name, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("flowq-notes"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _ending(code: int) -> str:
    """Say in words how a process ended."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"
