# SPDX-License-Identifier: MIT
"""Whose turn it is to write: a lock file on which all who write to one database queue, for a time.

In SQLite's own busy wait they poll, and of two that write without pause one may get nothing for
seconds; those who block in ``flock`` are woken in their order. But ``flock`` knows no time limit,
and a process that was stopped (SIGSTOP, a debugger, a frozen container) keeps what it holds. So
who finds it taken lets a thread block in its place, and waits for that one.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from flowq.errors import StoreUnavailable

try:
    import fcntl
except ImportError:  # Windows: SQLite's own busy wait must do, which is correct but not fair
    fcntl = None  # type: ignore[assignment]

__all__ = ["Turn"]


class Turn:
    """The right to write, of one thread of one process at a time.

    Parameters
    ----------
    path : pathlib.Path or None
        The database, beside which the lock file lies; None: it is in memory.
    seconds : float
        How long to wait for it at most.
    """

    def __init__(self, path: Path | None, seconds: float) -> None:
        self._path = None if path is None or fcntl is None else Path(f"{path}-lock")
        self._seconds = seconds
        self._mine = threading.RLock()
        self._depth = 0
        self._file = -1
        self._changed = threading.Condition()
        self._asking = self._wanted = self._got = False
        self._error: OSError | None = None

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Have it; a thread that has it may take it again.

        Raises
        ------
        StoreUnavailable
            Another has had it for all the time that one waits.
        """
        until = time.monotonic() + self._seconds
        if not self._mine.acquire(timeout=self._seconds):
            raise self._too_late()
        depth = self._depth
        try:
            if self._path is not None and not depth and not self._lock(until):
                raise self._too_late()
            self._depth = depth + 1
            yield
        finally:  # also of what came between two of these lines: a signal, an interrupted body
            self._depth = depth
            if not depth:
                self._unlock()
            self._mine.release()

    def _lock(self, until: float) -> bool:
        """Lock the file; False if it is another's until then."""
        if self._file < 0:
            self._file = os.open(f"{self._path}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with self._changed:
            if not self._asking:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return True
                try:
                    threading.Thread(target=self._ask, name="flowq-turn", daemon=True).start()
                except RuntimeError as err:  # there are too many, or the interpreter ends
                    raise OSError(f"{self._path} is locked, and {err}") from err
                self._asking = True
            self._wanted, self._got = True, False
            try:
                self._changed.wait_for(lambda: not self._asking, until - time.monotonic())
            finally:
                self._wanted = False
            if not self._got and not self._asking:
                raise OSError(f"{self._path} cannot be locked") from self._error
            return self._got

    def _unlock(self) -> None:
        with self._changed:
            # The thread that still asks gives back by itself what it gets.
            if self._file >= 0 and not self._asking:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _ask(self) -> None:
        """Block until the file is locked; unlock it if nobody waits for it any more."""
        self._error = None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except OSError as err:
            self._error = err
        with self._changed:
            self._asking = False
            self._got = self._wanted and self._error is None
            self._changed.notify()
            if not self._wanted and self._error is None:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, unless somebody uses it; it is opened again where it is needed."""
        if not self._mine.acquire(blocking=False):
            return
        try:
            with self._changed:
                if self._file >= 0 and not self._asking and not self._depth:
                    os.close(self._file)
                    self._file = -1
        finally:
            self._mine.release()

    def forget(self) -> None:
        """Close what a parent process had open; in a child, which has none of its threads."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    # --- whose it is ----------------------------------------------------------------------------

    def _too_late(self) -> StoreUnavailable:
        """Say who has it, and what to do."""
        if self._path is None:
            return StoreUnavailable(f"another thread has been writing for {self._seconds:g} s")
        pid = _holder(self._path)
        start = f"{self._path} was locked by"
        if pid is None:
            what = f"another process for {self._seconds:g} s; `fuser {self._path}` says which"
        elif pid == os.getpid():
            what = f"another thread of this process ({pid}) for {self._seconds:g} s"
        else:
            name, stopped = _about(pid)
            what = f"process {pid} ({name}) for {self._seconds:g} s"
            if stopped:
                what += f", and it is stopped: `kill -CONT {pid}` lets it go on"
            what += "; if it is ended, what it had not committed is undone, and nothing else"
        return StoreUnavailable(f"{start} {what}")


def _holder(path: Path) -> int | None:
    """Give the process that has locked a file, where the system says so."""
    try:
        inode = os.stat(path).st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for line in lines:  # 1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            return int(fields[4]) if int(fields[4]) > 0 else None
    return None


def _about(pid: int) -> tuple[str, bool]:
    """Give a process's name, and whether it is stopped."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(") ")
    except OSError:
        return "gone by now", False
    return name, rest[:1] in ("T", "t")
