# SPDX-License-Identifier: MIT
"""Workers as threads of this process: one session with a lane for each."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence

from flowq.leases import LOOK_SECONDS, Leases, boot_id, new_session, process_start
from flowq.storage.base import SessionInfo
from flowq.worker import App, Worker

__all__ = ["ThreadPool", "session_info"]


def session_info(
    app: App, session: str, *, kind: str, lanes: int, queues: Sequence[str]
) -> SessionInfo:
    """Describe a session of this process."""
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
        session = new_session()
        self._worker = Worker(app, session, queues=queues, lanes=workers, lease=lease, drain=drain)
        self._leases = Leases(app.store, lease, self._is_busy)
        self._thread = threading.Thread(target=self._run, name="flowq-worker", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        worker = self._worker
        info = session_info(
            self._app,
            worker.session,
            kind="thread",
            lanes=len(worker.lanes),
            queues=self._queues,
        )
        self._app.store.open_session(info, lease_ms=round(self._lease * 1000))
        self._leases.add(worker.session, worker.cancel)
        self._leases.start()
        self._thread.start()

    def stop(self) -> None:
        """Fetch no more; `join` waits for what runs."""
        self._worker.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until everything has ended; False if it has not in time."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """Give up bodies that do not end: they go back, and their outcomes will not count.

        A thread cannot be killed; its body is interrupted and runs to its end otherwise.
        """
        self._leases.remove(self._worker.session)
        running = [lane.job.delivery.id for lane in self._worker.lanes if lane.job is not None]
        self._app.store.release(self._worker.session)
        self._worker.cancel(running)

    def close(self) -> None:
        """End the threads beside the work."""
        self._leases.stop()

    def _run(self) -> None:
        self._worker.run()
        self._leases.remove(self._worker.session)

    def _is_busy(self) -> bool:
        since = self._worker.busy_since
        return since is not None and time.monotonic() - since > LOOK_SECONDS
