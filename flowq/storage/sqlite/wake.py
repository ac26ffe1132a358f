# SPDX-License-Identifier: MIT
"""How processes that wait for one file wake each other.

Who waits binds a datagram socket in a folder beside the file, for as long as it waits; the name
says what for. Who has changed something sends a hint after its commit. A hint is only that: one
looks into the database before sleeping and after waking, and a second look each second at
``PRAGMA data_version`` catches what a writer could not say before it was killed.

No hint is missed by a wait that just starts or ends. The socket is bound before the database is
looked at, and a writer commits before it lists who waits: it either finds the socket, or committed
before the look. A wait that ends takes its name away before it reads its socket for the last time:
a hint was sent before that and is read, or finds nobody, and the next who waits is told instead.

Where there are no such sockets one looks at the version again and again, from each millisecond to
each 20 ms.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

from flowq.storage.sqlite.rows import ANY_QUEUE

__all__ = ["FileWakes", "MemoryWakes", "Wakes"]

BACKSTOP: Final = 1.0
"""Seconds between two looks at the version of the file."""
LONGEST_HINT: Final = 60_000
"""Bytes of ids that one hint carries; more than that only says: look."""
MANY: Final = 5
"""Hints in a row after which one looks; a socket of Linux holds 10 and loses the rest."""
ANY: Final = "any"

Look = Callable[[bool], bool]
"""Whether what is waited for is there; asked with True when the wait begins, later with False."""


class Wakes(Protocol):
    """Tells those that wait, and waits."""

    def tell(
        self, ready: Mapping[int, int], ended: Iterable[bytes], moved: Iterable[bytes] = ()
    ) -> None:
        """Say how many messages a queue has for others, which ids ended, and which runs moved.

        Of `ANY_QUEUE` whoever waits for work is told.
        """
        ...

    def tell_all(self) -> None:
        """Wake everyone that waits for work: a session is to stop something."""
        ...

    def wait_ready(self, queues: Iterable[int], timeout: float, look: Look) -> bool:
        """Wait for a hint that a queue has something; `look` is asked once one listens."""
        ...

    def wait_ended(self, ids: Iterable[bytes], timeout: float, look: Look) -> bool:
        """Wait for a hint that one of these ended."""
        ...

    def wait_moved(self, run: bytes, timeout: float, look: Look) -> bool:
        """Wait for a hint that a run has moved."""
        ...

    def wake(self) -> None:
        """End all `wait_ready` of this object."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


class MemoryWakes:
    """Threads of one process, woken by a condition."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def tell(
        self, ready: Mapping[int, int], ended: Iterable[bytes], moved: Iterable[bytes] = ()
    ) -> None:
        """Wake all; who waits looks for itself."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_ready(self, queues: Iterable[int], timeout: float, look: Look) -> bool:
        """Wait until anything has changed."""
        return self._wait(timeout, look)

    def wait_ended(self, ids: Iterable[bytes], timeout: float, look: Look) -> bool:
        """Wait until one has ended."""
        return self._wait_till(timeout, look)

    def wait_moved(self, run: bytes, timeout: float, look: Look) -> bool:
        """Wait until it has moved."""
        return self._wait_till(timeout, look)

    def _wait_till(self, timeout: float, look: Look) -> bool:
        deadline = time.monotonic() + timeout
        while self._wait(max(0.0, deadline - time.monotonic()), look):
            if look(False):
                return True
        return False

    def _wait(self, timeout: float, look: Look) -> bool:
        with self._changed:
            seen = self._count
        if look(True):
            return True
        with self._changed:
            return self._changed.wait_for(lambda: self._count != seen, timeout)

    def tell_all(self) -> None:
        """Wake all."""
        self.tell({}, ())

    def wake(self) -> None:
        """Wake all."""
        self.tell({}, ())

    def close(self) -> None:
        """Nothing to do."""


class FileWakes:
    """Processes that share a file.

    Parameters
    ----------
    path : pathlib.Path
        The database.
    version : callable
        Gives a number that changes when another process has changed the file.
    """

    def __init__(self, path: Path, version: Callable[[], tuple[int, int]]) -> None:
        self._folder = Path(f"{path}-wake")
        self._version = version
        self._waiting: set[str] = set()
        self._woken = 0

    # --- telling --------------------------------------------------------------------------------

    def tell(
        self, ready: Mapping[int, int], ended: Iterable[bytes], moved: Iterable[bytes] = ()
    ) -> None:
        """Wake as many that wait for a queue as it has work, and all that wait for the rest."""
        wanted = {queue: n for queue, n in ready.items() if n > 0}
        gone = list(ended)
        runs = list(moved)
        if not (wanted or gone or runs):
            return
        try:
            names = os.listdir(self._folder)
        except OSError:
            return  # nobody has ever waited here
        if not names:
            return
        random.shuffle(names)  # so that one that hangs does not get every hint
        for name in names:
            kind, _, rest = name.partition("-")
            if kind == "r" and wanted:
                queues = rest.partition("-")[0].split(".")
                all_ = queues == [ANY]
                served = [q for q in wanted if all_ or q == ANY_QUEUE or str(q) in queues]
                if served and self._send(name, b"r"):
                    wanted[served[0]] -= 1
                    if not wanted[served[0]]:
                        del wanted[served[0]]
            elif kind == "e" and gone:
                self._send(name, _pack(gone))
            elif kind == "m" and runs:
                self._send(name, _pack(runs))

    def tell_all(self) -> None:
        """Wake everyone that waits for work."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):
                if name.startswith("r-"):
                    self._send(name, b"s")

    def wake(self) -> None:
        """End all `wait_ready` of this object, also those that don't listen yet."""
        self._woken += 1
        for name in list(self._waiting):
            self._send(name, b"w")

    def _send(self, name: str, hint: bytes) -> bool:
        """Send a hint; False if nobody listens there (any more)."""
        try:
            with (
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out,
                self._address(name) as where,
            ):
                out.setblocking(False)
                out.sendto(hint, where)
        except BlockingIOError:
            return True  # it has hints enough, and will look anyway
        except ConnectionRefusedError:  # its process was killed
            self._leave(name)
            return False
        except OSError:  # it has just stopped waiting; or we have no more file handles
            return False
        return True

    # --- waiting --------------------------------------------------------------------------------

    def wait_ready(self, queues: Iterable[int], timeout: float, look: Look) -> bool:
        """Wait for a hint that a queue has something."""
        names = ".".join(map(str, queues))
        name = f"r-{names if len(names) < 100 else ANY}-{secrets.token_hex(8)}"
        woken = self._woken

        def look_too(first: bool) -> bool:
            return self._woken != woken or look(first)

        self._waiting.add(name)
        try:
            return self._wait(name, timeout, look_too, lambda hint: True)
        finally:
            self._waiting.discard(name)

    def wait_ended(self, ids: Iterable[bytes], timeout: float, look: Look) -> bool:
        """Wait for a hint that one of these ended."""
        wanted = set(ids)
        return self._wait(
            f"e-{secrets.token_hex(8)}", timeout, look, lambda hint: _names_any(hint, wanted)
        )

    def wait_moved(self, run: bytes, timeout: float, look: Look) -> bool:
        """Wait for a hint that a run has moved."""
        name = f"m-{secrets.token_hex(8)}"
        return self._wait(name, timeout, look, lambda hint: _names_any(hint, {run}))

    def _wait(
        self, name: str, timeout: float, look: Look, concerns: Callable[[bytes], bool]
    ) -> bool:
        deadline = time.monotonic() + timeout
        with self._listen(name) as listener:
            if listener is None:
                return self._watch(deadline, look)
            seen = self._version()
            if look(True):
                return True
            next_look = time.monotonic() + BACKSTOP
            while (now := time.monotonic()) < deadline:
                until = max(0.0, min(deadline, next_look) - now)
                if select.select([listener], [], [], until)[0]:
                    hints = _drain(listener)
                    if any(map(concerns, hints)):
                        return True
                    # A full socket may have lost the very hint that we wait for.
                    if len(hints) >= MANY and look(False):
                        return True
                if time.monotonic() >= next_look:  # also where others' hints come all the time
                    next_look = time.monotonic() + BACKSTOP
                    version = self._version()
                    if version != seen:
                        seen = version
                        if look(False):
                            return True
            self._leave(name)
            return any(map(concerns, _drain(listener)))

    def _watch(self, deadline: float, look: Look) -> bool:
        """Wait where there are no sockets."""
        seen = (self._woken, self._version())
        if look(True):
            return True
        pause = 0.001
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, pause))
            pause = min(pause * 1.5, 0.02)
            now = (self._woken, self._version())
            if now != seen:
                seen = now
                if look(False):
                    return True
        return False

    def _leave(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._folder / name)

    @contextlib.contextmanager
    def _listen(self, name: str) -> Iterator[socket.socket | None]:
        """Bind a socket for the time of a wait; None where that cannot be."""
        if not hasattr(socket, "AF_UNIX"):
            yield None
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            try:
                os.makedirs(self._folder, mode=0o700, exist_ok=True)
                with self._address(name) as where:
                    listener.bind(where)
                listener.setblocking(False)
            except OSError:  # a file system without sockets, a folder that may not be written
                yield None
                return
            try:
                yield listener
            finally:
                self._leave(name)

    @contextlib.contextmanager
    def _address(self, name: str) -> Iterator[str]:
        """Give the path of a socket, by way of an open folder where it is too long for one."""
        path = str(self._folder / name)
        if len(os.fsencode(path)) < 100:
            yield path
            return
        folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{folder}/{name}"
        finally:
            os.close(folder)

    def close(self) -> None:
        """Nothing to do: each wait removes what it made."""


def _drain(listener: socket.socket) -> list[bytes]:
    """Read every hint that is there."""
    hints = []
    with contextlib.suppress(BlockingIOError):
        while True:
            hints.append(listener.recv(2 * LONGEST_HINT))
    return hints


def _pack(ids: list[bytes]) -> bytes:
    packed = b"".join(bytes((len(id),)) + id for id in ids)
    return packed if len(packed) <= LONGEST_HINT else b""


def _names_any(hint: bytes, wanted: set[bytes]) -> bool:
    """Whether a hint names one of these ids (an empty one names all)."""
    at = 0
    while at < len(hint):
        end = at + 1 + hint[at]
        if hint[at + 1 : end] in wanted:
            return True
        at = end
    return not hint
