# SPDX-License-Identifier: MIT
"""The life of one worker process: loads the app, works until told, dies with its parent.

Its parent starts it with two inherited descriptors as arguments, CONTROL and NOTES.
The first line on CONTROL is the configuration, each further one an order; its end means that the
parent is gone. NOTES is the memory in which the worker notes what it runs.
"""

from __future__ import annotations

import importlib
import json
import logging
import mmap
import os
import random
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Final

from flowq import logs, pools
from flowq.errors import FlowqError, StoreError, StoreUnavailable, TaskCancelled
from flowq.executor import raise_in_thread
from flowq.pools.thread import session_info
from flowq.worker import Worker

__all__ = [
    "UNREACHABLE",
    "USAGE",
    "Notes",
    "Orders",
    "load_app",
    "main",
    "run",
]

log = logging.getLogger("flowq.consumer")

_RECORD: Final = struct.Struct("=d20sB")
"""A lane's note: when it began (monotonic), the id, and last of all its length; 0: nothing runs."""
_BEGUN, _DRAINED = 1, 2
BROKEN, USAGE, UNREACHABLE = 1, 2, 4
INTERRUPT: Final = signal.SIGUSR2
"""What a cancelled body in the main thread is interrupted by."""


class Notes:
    """What a worker process tells its parent, in memory that both have: what each lane runs.

    Parameters
    ----------
    file : int
        Descriptor of a file of `size` bytes.
    lanes : int
    """

    def __init__(self, file: int, lanes: int) -> None:
        self._memory = mmap.mmap(file, self.size(lanes))
        self._lanes = lanes

    @staticmethod
    def size(lanes: int) -> int:
        """Give the bytes that it needs: one, and a record for each lane."""
        return 1 + lanes * _RECORD.size

    def write(self, lane: int, id: bytes) -> None:
        """Note which message a lane runs; b"" for none."""
        at = 1 + lane * _RECORD.size
        if id:
            _RECORD.pack_into(self._memory, at, time.monotonic(), id, len(id))
        else:
            self._memory[at + _RECORD.size - 1] = 0

    def running(self) -> list[tuple[bytes, float]]:
        """Give the messages that run, and since when."""
        found = _RECORD.iter_unpack(self._memory[1:])
        return [(id[:length], since) for since, id, length in found if length]

    def begin(self) -> None:
        """Note that the app is loaded, and work begins."""
        self._memory[0] = _BEGUN

    def end(self) -> None:
        """Note that the worker ends because nothing is left."""
        self._memory[0] = _DRAINED

    @property
    def begun(self) -> bool:
        """Whether the worker has loaded the app."""
        return self._memory[0] >= _BEGUN

    @property
    def drained(self) -> bool:
        """Whether the worker found that nothing is left."""
        return self._memory[0] == _DRAINED

    def close(self) -> None:
        """Let the memory go."""
        self._memory.close()


def load_app(path: str) -> Any:
    """Import an app by its path, ``module:name``.

    Raises
    ------
    ConfigError, ImportError, AttributeError
        There is no app there.
    """
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


class Orders:
    """Reads what the parent says, in a thread of its own."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._stop: Callable[[], None] = lambda: None
        self._cancel: Callable[[list[bytes]], None] = lambda ids: None
        self._orphaned: Callable[[], None] = lambda: None
        self._reopen: Callable[[], object] = lambda: None

    def follow(
        self,
        *,
        stop: Callable[[], None],
        cancel: Callable[[list[bytes]], None],
        reopen: Callable[[], object],
        orphaned: Callable[[], None],
    ) -> None:
        """Obey from now on."""
        self._stop, self._cancel, self._orphaned = stop, cancel, orphaned
        self._reopen = reopen
        threading.Thread(target=self._read, name="flowq-orders", daemon=True).start()

    def _read(self) -> None:
        try:
            for line in self._source:
                self._obey(json.loads(line))
        finally:
            self._orphaned()

    def _obey(self, order: dict[str, Any]) -> None:
        try:
            if order["do"] == "stop":
                self._stop()
            elif order["do"] == "cancel":
                self._cancel([bytes.fromhex(id) for id in order["ids"]])
            elif order["do"] == "open":
                self._reopen()
        except FlowqError as err:  # a worker that hears nothing more would outlive its parent
            log.warning("the order %r was not carried out: %s", order["do"], err)


def _cancelled(signum: int, frame: object) -> None:
    raise TaskCancelled


def _interrupt(thread: int) -> None:
    """Interrupt a body: the main thread by a signal, which also ends a sleep or a read.

    Not by a signal that a body has taken for itself: by default it would end this process.
    """
    main = threading.main_thread().ident
    if thread == main and signal.getsignal(INTERRUPT) is _cancelled:
        signal.pthread_kill(thread, INTERRUPT)
    else:
        raise_in_thread(thread)


def main(argv: list[str]) -> int:
    """Work; gives the exit status."""
    control = os.fdopen(int(argv[0]), "rb")
    config = json.loads(control.readline())
    logs.configure(**config["logs"])
    pools.loading = True
    try:
        app = load_app(config["app"])
        if config["url"]:
            app.use_url(config["url"])
        for module in config["imports"]:
            importlib.import_module(module)
        app.load()
    except Exception as err:  # a module may raise anything
        known = isinstance(err, FlowqError | ImportError | AttributeError)
        log.error("the app cannot be loaded: %s: %s", type(err).__name__, err, exc_info=not known)
        return USAGE
    pools.loading = False
    notes = Notes(int(argv[1]), config["lanes"])
    worker = Worker(
        app,
        config["session"],
        queues=config["queues"],
        lanes=config["lanes"],
        lease=config["lease"],
        drain=config["drain"],
        note=notes.write,
        interrupt=_interrupt,
    )
    info = session_info(
        app,
        worker.session,
        kind=config["kind"],
        lanes=config["lanes"],
        queues=config["queues"],
        parent=config["parent"],
    )
    worker.info = info

    def reopen() -> bool:
        try:
            app.store.open_session(info, lease_ms=round(config["lease"] * 1000))
        except StoreUnavailable as err:
            log.debug("the session is not open yet: %s", err)
            return False
        return True

    def orphaned() -> None:
        # Nobody renews the lease any more. Whatever the store says, this process ends.
        threading.Timer(2.0, os._exit, (1,)).start()
        try:
            # Another orphan gives back at this moment too: what it held must not come to us.
            worker.halt(1.0)
            app.store.release(worker.session)
        finally:
            os._exit(1)

    def ask(signum: int, frame: object) -> None:
        # Not from the handler itself, which may interrupt who holds the locks that this needs.
        threading.Thread(target=worker.stop, daemon=True).start()

    Orders(control).follow(stop=worker.stop, cancel=worker.cancel, reopen=reopen, orphaned=orphaned)
    signal.signal(signal.SIGTERM, ask)
    signal.signal(INTERRUPT, _cancelled)
    # Ctrl-C is the parent's to hear. Not by SIG_IGN: what a body starts would inherit that.
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    # A store that is away just now is no reason to end: the parent saw it when it began.
    while not reopen() and not worker.stopping:
        time.sleep(random.uniform(0.2, 1.0))
    notes.begin()
    worker.run()
    if worker.drained:
        notes.end()
    app.store.close()
    return 0


def run() -> None:
    """Work as ``sys.argv`` says, and end this process."""
    try:
        status = main(sys.argv[1:])
    except StoreError as err:
        log.error("the store cannot be used: %s", err)
        status = UNREACHABLE
    except Exception:
        log.exception("a defect ended this worker")
        status = BROKEN
    sys.exit(status)
