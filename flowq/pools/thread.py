# SPDX-License-Identifier: MIT
"""Workers as threads of this process: one session with a lane for each."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence

from flowq.executor import App
from flowq.leases import LOOK_SECONDS, Leases, boot_id, new_session, process_start
from flowq.storage.base import SessionInfo
from flowq.worker import Worker

__all__ = ["ThreadPool", "session_info"]

log = logging.getLogger("flowq.consumer")


def session_info(
    app: App, session: str, *, kind: str, lanes: int, queues: Sequence[str], parent: int = 0
) -> SessionInfo:
    """Describe a session of this process; `parent` is the process that watches this one."""
    return SessionInfo(
        id=session,
        host=socket.gethostname(),
        boot=boot_id(),
        pid=os.getpid(),
        pid_started=process_start(os.getpid()),
        kind=kind,
        lanes=lanes,
        queues=tuple(queues),
        tasks=tuple(sorted(app.tasks)),
        started_ms=app.clock.now_ms(),
        parent=parent,
        parent_started=process_start(parent) if parent else "",
    )


class ThreadPool:
    """One worker whose lanes are threads of this process; its lease is renewed beside them.

    Parameters
    ----------
    app : App
    workers : int
        Lanes.
    queues : sequence of str
    lease : float
        Seconds.
    drain : bool
        End when nothing is left.
    """

    def __init__(
        self, app: App, *, workers: int, queues: Sequence[str], lease: float, drain: bool
    ) -> None:
        self._app = app
        self._queues = list(queues)
        self._lease = lease
        self._lanes = workers
        self._drain = drain
        self.status = 0
        self._stopping = threading.Event()
        self._worker = self._make()
        self._leases = Leases(app.store, lease, self._is_busy)
        self._thread = threading.Thread(target=self._run, name="flowq-worker", daemon=True)

    def _make(self) -> Worker:
        return Worker(
            self._app,
            new_session(),
            queues=self._queues,
            lanes=self._lanes,
            lease=self._lease,
            drain=self._drain,
        )

    def start(self) -> None:
        """Begin to work."""
        self._open()
        self._leases.start()
        self._thread.start()

    def _open(self) -> None:
        worker = self._worker
        worker.info = session_info(
            self._app,
            worker.session,
            kind="thread",
            lanes=self._lanes,
            queues=self._queues,
        )
        self._app.store.open_session(worker.info, lease_ms=round(self._lease * 1000))
        self._leases.add(worker.session, worker.cancel, self._open)

    def stop(self) -> None:
        """Fetch no more; `join` waits for what runs."""
        self._stopping.set()
        self._worker.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until everything has ended; False if it has not in time."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def abandon(self) -> bool:
        """Give up bodies that do not end: they go back, and their outcomes will not count.

        Says whether there were any. A thread cannot be killed; its body is interrupted and runs to
        its end otherwise.
        """
        self._worker.give_up()
        ids = self._worker.taken
        self._leases.release(self._worker.session, reason="shut down")
        self._worker.cancel(ids)
        return bool(ids)

    def close(self) -> None:
        """End the threads beside the work."""
        self._leases.stop()

    def _run(self) -> None:
        delay = 0.1
        while True:
            try:
                self._worker.run()
            except Exception:  # what a parent does for a worker process
                log.exception("a defect ended the worker; it is started again")
                lost = self._worker.taken  # what led to it; or else it would do so for ever
                self._leases.release(self._worker.session, lost=lost, reason="a defect")
            else:
                self._leases.remove(self._worker.session)
                return
            if self._stopping.wait(delay):
                return
            delay = min(10.0, delay * 2)
            self._worker = self._make()
            if self._stopping.is_set():  # `stop` may have spoken to the one before
                self._worker.stop()
            self._leases.add(self._worker.session, self._worker.cancel, self._open)

    def _is_busy(self) -> bool:
        since = self._worker.busy_since
        return since is not None and time.monotonic() - since > LOOK_SECONDS
