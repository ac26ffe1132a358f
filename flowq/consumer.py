# SPDX-License-Identifier: MIT
"""The process behind ``flowq worker``: starts, watches and stops what works."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Final, Literal, TypeAlias

from flowq import pools
from flowq.app import FlowQ
from flowq.errors import ConfigError, StoreError, StoreUnavailable
from flowq.leases import release_dead
from flowq.naming import app_path
from flowq.policy import check_name, nearest
from flowq.pools.process import ProcessPool
from flowq.pools.thread import ThreadPool
from flowq.sweeper import Sweeper

__all__ = ["Consumer", "Kind"]

log = logging.getLogger("flowq.consumer")

Kind: TypeAlias = Literal["thread", "process"]
MAX_WORKERS: Final = 1_000
USAGE, UNREACHABLE = 2, 4
ONE_SIGNAL: Final = 1.0
"""Signals within so many seconds of the first are one: timeout(1), and others who end a process
and then its group, send two at once."""


class _Asked:
    """What the main thread waits for: signals, the end of the pool (0), the end of its time (-1).

    It waits for a byte and not for a lock: a signal may be taken by any thread of the process, and
    then nobody wakes who waits for a lock, so that it would be heard with the next one. A byte is
    written by whichever thread takes it, before Python sees anything of it.
    """

    def __init__(self) -> None:
        self._told: deque[tuple[int, float]] = deque()
        self._hears, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)

    def fileno(self) -> int:
        """Give the descriptor for `signal.set_wakeup_fd`."""
        return self._wakes.fileno()

    def put(self, signum: int, at: float = 0.0) -> None:
        """Tell it; also from a handler of signals, and when nobody listens any more."""
        self._told.append((signum, at))
        with suppress(OSError):  # full: it will wake; closed: it has ended
            self._wakes.send(b"\0")

    def get(self) -> tuple[int, float]:
        """Wait for what comes next."""
        while not self._told:
            self._hears.recv(64)
        return self._told.popleft()

    def close(self) -> None:
        self._hears.close()
        self._wakes.close()


class Consumer:
    """Runs an app's tasks: in threads of this process, or in processes of its own.

    Parameters
    ----------
    app : FlowQ
    workers : int
        How many bodies run at a time.
    kind : {"thread", "process"}
        What a worker is.
    queues : sequence of str, optional
        Served with equal right; unless given, every queue that the app's tasks name.
    lease : float, at least 1
        Seconds after which what a lost machine held runs elsewhere; renewed every third of it.
    shutdown_timeout : float
        Seconds that running bodies are given at the end; then they go back to their queues.
    drain : bool
        End when nothing is ready, scheduled or running any more in the queues that it serves. What
        waits there for an upstream that runs in other queues is not waited for.
    path : str, optional
        ``module:name``, where a worker process finds the app; found by itself unless given.
    imports : sequence of str
        Modules that are imported as well.
    url : str, optional
        For worker processes, where the app was told another store by `FlowQ.use_url`.

    Examples
    --------
    >>> from flowq import FlowQ
    >>> q = FlowQ("docs", "memory://")
    >>> @q.task(name="docs.add")
    ... def add(a: int, b: int) -> int:
    ...     return a + b
    >>> with q.consumer(workers=2):
    ...     add(1, 2).get(timeout=10)
    3
    """

    def __init__(
        self,
        app: FlowQ,
        *,
        workers: int = 1,
        kind: Kind = "thread",
        queues: Sequence[str] | None = None,
        lease: float = 30.0,
        shutdown_timeout: float = 30.0,
        drain: bool = False,
        path: str | None = None,
        imports: Sequence[str] = (),
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int):
            raise ConfigError(f"workers={workers!r} must be a whole number")
        if not 1 <= workers <= MAX_WORKERS:
            raise ConfigError(f"workers={workers} must lie between 1 and {MAX_WORKERS}")
        if kind not in ("thread", "process"):
            raise ConfigError(f"kind={kind!r} must be 'thread' or 'process'")
        if not 1.0 <= lease <= 86_400.0:
            raise ConfigError(f"lease={lease!r} must lie between 1 and 86400 seconds")
        if not shutdown_timeout >= 0.0:
            raise ConfigError(f"shutdown_timeout={shutdown_timeout!r} must be 0 or more seconds")
        if isinstance(queues, str):
            raise ConfigError(f"queues={queues!r} must be a list of names")
        self.app = app
        self.workers = workers
        self.kind = kind
        self.lease = float(lease)
        self.shutdown_timeout = min(float(shutdown_timeout), threading.TIMEOUT_MAX)
        self.drain = drain
        self._queues = [check_name(name, "queue") for name in queues] if queues else None
        self._path = path
        self._imports = tuple(imports)
        self._pool: ThreadPool | ProcessPool | None = None
        self._sweeper: Sweeper | None = None
        self._gave_up = False

    def __repr__(self) -> str:
        return f"<Consumer of {self.app!r}: {self.workers} x {self.kind}>"

    # --- inside a process ------------------------------------------------------------------------

    def start(self) -> Consumer:
        """Start the workers and return.

        Raises
        ------
        ConfigError
            Worker processes could not find the app or its store.
        StoreError
            The store cannot be used.
        """
        self._begin(self.kind == "process")
        return self

    def stop(self, timeout: float | None = None) -> None:
        """Let running bodies finish, put back what was not started, and stop.

        Parameters
        ----------
        timeout : float, optional
            Seconds that running bodies are given; `shutdown_timeout` unless given.

        Notes
        -----
        Bodies that did not end in time are given up once: who stops again, as the end of ``with``
        does, waits for them no more.
        """
        if self._pool is None:
            return
        self._pool.stop()
        limit = self.shutdown_timeout if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        if not self._gave_up and not self._pool.join(limit):
            self._abandon("in time")
        self._end()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the workers have ended by themselves (``drain=True``).

        Returns
        -------
        bool
            False if they have not within `timeout` seconds.
        """
        return self._pool is None or self._pool.join(timeout)

    def __enter__(self) -> Consumer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.drain and error is None:
            self.join()
        self.stop()

    # --- as a process ----------------------------------------------------------------------------

    def run(self) -> int:
        """Work until a signal comes (or all is drained), in worker processes.

        With a store in memory, which other processes cannot see, in threads of this process.

        The first SIGINT or SIGTERM lets running bodies finish within `shutdown_timeout`; a further
        one, from a second later on, ends them at once. Only in the main thread are signals heard;
        elsewhere `stop` ends it.

        Returns
        -------
        int
            0 after a graceful end, 2 if there is no task or the app cannot be loaded, 4 if the
            store cannot be reached.
        """
        asked = _Asked()

        def ask(signum: int, frame: FrameType | None) -> None:
            asked.put(signum, time.monotonic())

        # Before anything is started, so that a signal at any moment ends it as it should.
        before: dict[int, Any] = {}
        wakeup = -1
        if threading.current_thread() is threading.main_thread():
            wakeup = signal.set_wakeup_fd(asked.fileno(), warn_on_full_buffer=False)
            before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            return self._run(asked)
        except StoreError as err:
            said = str(err).rstrip(".")
            log.error("the store cannot be used: %s; --url or FLOWQ_URL says which one", said)
            # What no waiting mends, such as another app's file or a wrong password, is usage.
            return UNREACHABLE if isinstance(err, StoreUnavailable) else USAGE
        except ConfigError as err:
            log.error("%s", err)
            return USAGE
        finally:
            for number, handler in before.items():
                if handler is not None:  # None: it was not Python's
                    signal.signal(number, handler)
            if before:
                signal.set_wakeup_fd(wakeup)
            asked.close()

    def _run(self, asked: _Asked) -> int:
        self._begin(self.kind == "process" or self.app.store.shares_processes)
        pool = self._pool
        assert pool is not None

        def ended() -> None:
            pool.join()
            asked.put(0)

        threading.Thread(target=ended, name="flowq-ended", daemon=True).start()
        try:
            signum, first = asked.get()
            if signum:
                log.info(
                    "%s: finishing what runs (%g s at most; again: at once)",
                    signal.Signals(signum).name,
                    self.shutdown_timeout,
                )
                pool.stop()
                self._await(asked, first)
        finally:
            self._end()
        log.info("stopped")
        return pool.status

    def _await(self, asked: _Asked, first: float) -> None:
        """Wait for the end of the pool; after another signal, or too long, end it."""
        timer = threading.Timer(self.shutdown_timeout, asked.put, (-1,))
        timer.daemon = True
        timer.start()
        signum, at = asked.get()
        while signum > 0 and at - first < ONE_SIGNAL:
            signum, at = asked.get()
        timer.cancel()
        if signum:
            self._abandon("in time" if signum < 0 else "before the second signal")

    def _abandon(self, when: str) -> None:
        assert self._pool is not None
        self._gave_up = True
        if self._pool.abandon():
            log.warning("running tasks did not end %s and go back to their queues", when)

    # --- both ------------------------------------------------------------------------------------

    def _begin(self, processes: bool) -> None:
        if self._pool is not None:
            raise ConfigError("this consumer was started already; make another one")
        if pools.loading:
            raise ConfigError(
                "a consumer is started where a worker process imports this module, so each worker "
                'would start further ones; put that under: if __name__ == "__main__":'
            )
        app = self.app
        app.load()
        if not app.tasks:
            raise ConfigError(
                f"{app!r} knows no task; import the modules that define them (imports=, --import)"
            )
        queues = self._queues or list(app.queues())
        store = app.store
        if processes and not store.shares_processes:
            raise ConfigError(
                "memory:// lives in one process: worker processes cannot see it. Use "
                "sqlite:///flowq.db, or q.consumer(kind='thread') in the process that calls tasks"
            )
        # A store that is away, or that we may not write to, is said now and not by each worker.
        store.status()
        store.sweep(limit=1)
        release_dead(store)
        pool: ThreadPool | ProcessPool
        if processes:
            lanes = self.workers if self.kind == "thread" else 1
            config = {
                "app": self._app_path(),
                "url": app.url,
                "imports": list(self._imports),
                "queues": queues,
                "lanes": lanes,
                "lease": self.lease,
                "drain": self.drain,
                "kind": self.kind,
            }
            pool = ProcessPool(store, processes=self.workers // lanes, config=config)
        else:
            pool = ThreadPool(
                app, workers=self.workers, queues=queues, lease=self.lease, drain=self.drain
            )
        self._say(queues)
        pool.start()
        self._pool = pool
        self._sweeper = Sweeper(store)
        self._sweeper.start()

    def _end(self) -> None:
        if self._sweeper is not None:
            self._sweeper.stop()
        if self._pool is not None:
            self._pool.close()

    def _app_path(self) -> str:
        path = self._path or app_path(self.app)
        if path is None:
            raise ConfigError(
                f"worker processes cannot find {self.app!r}: keep it in a global variable of a "
                "module, or say where it is by path='module:name'"
            )
        if path.startswith("__main__:"):
            raise ConfigError(
                f"worker processes cannot import {path!r}: what was typed in has no file; "
                "put the tasks into a module, or use q.consumer(kind='thread').start()"
            )
        return path

    def _say(self, queues: Sequence[str]) -> None:
        from flowq import __version__

        log.info(
            "flowq %s: %d %s worker%s of %r, queues %s, pid %d",
            __version__,
            self.workers,
            self.kind,
            "" if self.workers == 1 else "s",
            self.app.name,
            ", ".join(queues),
            os.getpid(),
        )
        log.info("store: %s", self.app.store.url)
        named = self.app.queues()
        for queue in queues:
            if queue not in named:
                hint = nearest(queue, named) or f"; tasks name {', '.join(named)}"
                log.warning("no task names queue %r, only calls could%s", queue, hint)
        for name in sorted(self.app.tasks):
            log.info("+ %s", name)
