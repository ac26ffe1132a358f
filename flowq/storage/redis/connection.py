# SPDX-License-Identifier: MIT
"""Connections to the server: one a thread, dropped after a fork, errors translated here alone.

A redis-py `Connection` without its client: commands arrive packed, since packing is half of what a
large call costs in Python. All keys of a store lie in one slot of a cluster, so one connection is
enough there too: where a node answers that the slot is another's, the next connection goes there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis import exceptions as errors
from redis.backoff import NoBackoff
from redis.retry import Retry

from flowq.errors import ConfigError, StoreError, StoreUnavailable
from flowq.storage.redis.scripts import Script

__all__ = ["Connections", "Waker", "pack", "parse_url"]

log = logging.getLogger("flowq.storage.redis")

PATIENCE: Final = 3.0
"""Seconds for which a server that is loading or changing its role is asked again."""
STALE: Final = 1.0
"""After so many seconds unused, a connection is looked at before it is used."""
_TRANSIENT: Final = (
    "READONLY", "LOADING", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "NOSCRIPT", "BUSY ",
)  # fmt: skip
_TRANSIENT_TYPES: Final = tuple(
    kind
    for name in ("ReadOnlyError", "BusyLoadingError", "ClusterDownError", "TryAgainError",
                 "MasterDownError", "NoScriptError", "AskError")
    if (kind := getattr(errors, name, None)) is not None
)  # fmt: skip
_LOST = (errors.ConnectionError, errors.TimeoutError, OSError)


def pack(*args: bytes) -> bytes:
    """Give the bytes of one command."""
    return b"*%d\r\n" % len(args) + b"".join([b"$%d\r\n%b\r\n" % (len(a), a) for a in args])


def parse_url(url: str) -> tuple[str, str, dict[str, str]]:
    """Take flowq's own options out of a URL.

    Returns
    -------
    tuple
        What redis-py is given; the same without the password, for people; the options.
    """
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        _ = parts.port
    except ValueError as err:
        raise ConfigError(f"the store URL cannot be read: {err}") from None
    own = {k: v for k, v in query if k in ("eviction", "timeout")}
    rest = [(k, v) for k, v in query if k not in own]
    number = parts.path.strip("/")
    if parts.scheme != "unix" and number and not number.isdecimal():
        raise ConfigError(f"the store URL ends in {number!r}; the path is a database's number: /0")
    if own.get("eviction", "refuse") not in ("refuse", "warn"):
        raise ConfigError(f"eviction={own['eviction']!r} in the store URL; use refuse or warn")
    try:
        float(own.get("timeout", "1"))
    except ValueError:
        raise ConfigError(f"timeout={own['timeout']!r} in the store URL is no number") from None
    shown = [(k, "***" if "password" in k else v) for k, v in rest]
    user, at, place = parts.netloc.rpartition("@")
    hidden = f"{user.partition(':')[0]}:***@{place}" if at and ":" in user else parts.netloc

    def join(netloc: str, pairs: list[tuple[str, str]], safe: str = "") -> str:
        tail = f"{parts.path}?{urlencode(pairs, safe=safe)}" if pairs else parts.path
        return f"{parts.scheme}://{netloc}{tail}"

    return join(parts.netloc, rest), join(hidden, shown, "*"), own


class Waker:
    """What a thread that waits for the server listens to besides."""

    def __init__(self) -> None:
        self.out, self._in = socket.socketpair()
        self.out.setblocking(False)
        self._in.setblocking(False)

    def wake(self) -> None:
        """Let the waiting thread return; a full pipe says so already."""
        with contextlib.suppress(BlockingIOError, OSError):
            self._in.send(b"!")

    def drain(self) -> bool:
        """Whether it was woken since the last time."""
        woken = False
        with contextlib.suppress(BlockingIOError, OSError):
            while self.out.recv(64):
                woken = True
        return woken

    def close(self) -> None:
        """Close both ends."""
        self.out.close()
        self._in.close()


class _Mine(threading.local):
    """What belongs to one thread of one process."""

    pid = 0
    work: Any = None
    wait: Any = None
    waits_as = b""  # the number of `wait` at the server
    used = 0.0


class Connections:
    """The connections of one store object.

    Parameters
    ----------
    url : str
        As redis-py takes it.
    timeout : float
        Seconds to wait for an answer.
    greet : callable
        Called with a function that sends one command, on the first connection of a process.
    """

    def __init__(self, url: str, timeout: float, greet: Callable[..., None]) -> None:
        options: dict[str, Any] = {
            "protocol": 2,
            "socket_timeout": timeout,
            "socket_connect_timeout": min(timeout, 5.0),
            "retry": Retry(NoBackoff(), 0),
        }
        scheme = urlsplit(url).scheme
        if scheme == "redis":
            options["socket_keepalive"] = True
        elif scheme == "rediss":
            options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        try:
            pool = redis.ConnectionPool.from_url(url, **options)
            pool.connection_class(**pool.connection_kwargs)  # connects to nothing yet
        except (ValueError, TypeError) as err:
            raise ConfigError(f"the store URL cannot be used: {err}") from None
        self._kind, self._kwargs = pool.connection_class, pool.connection_kwargs
        self._timeout = timeout
        self._greet = greet
        self._greeted = 0
        self._moved: dict[str, Any] = {}  # host and port of the node of a cluster, if it was told
        self._pid = os.getpid()
        self._mine = _Mine()
        self._lock = threading.Lock()
        self._all: weakref.WeakSet[Any] = weakref.WeakSet()

    # --- life

    def _thread(self) -> _Mine:
        mine = self._mine
        if mine.pid != os.getpid():
            # After a fork the sockets are the parent's: forget them without a word to the server.
            mine.pid, mine.work, mine.wait = os.getpid(), None, None
            if self._pid != os.getpid():
                # Another thread of the parent may have held the lock at that moment.
                self._pid, self._lock = os.getpid(), threading.Lock()
        return mine

    def _connect(self) -> Any:
        connection = self._kind(**{**self._kwargs, **self._moved})
        try:
            connection.connect()
        except errors.AuthenticationError as err:
            raise StoreError(f"the server refused the user or password: {err}") from None
        except ssl.SSLError as err:
            raise StoreUnavailable(f"no secure connection: {err}") from err
        except _LOST:
            self._moved = {}  # that node is gone: ask the one of the URL again
            raise
        self._all.add(connection)
        if self._greeted != os.getpid():
            with self._lock:
                if self._greeted != os.getpid():

                    def ask(*args: bytes) -> Any:
                        connection.send_packed_command([pack(*args)], check_health=False)
                        return connection.read_response()

                    try:
                        self._greet(ask)
                    except BaseException:
                        connection.disconnect()
                        raise
                    self._greeted = os.getpid()
        return connection

    def _follow(self, err: errors.MovedError) -> None:
        """Let the next connection go to the node of a cluster that has the store's slot."""
        if "path" in self._kwargs:
            raise StoreError(
                f"the server is a node of a cluster, and another one has what this app stores; "
                f"use redis://{err.host}:{err.port} instead of the socket"
            ) from err
        self._moved = {"host": err.host or self._kwargs.get("host", "localhost"), "port": err.port}

    def close(self) -> None:
        """Close every connection of this process; the next use opens new ones."""
        for connection in list(self._all):
            if getattr(connection, "pid", os.getpid()) == os.getpid():
                connection.disconnect()
        self._all.clear()
        self._mine = _Mine()

    def _drop(self, mine: _Mine) -> None:
        if mine.work is not None:
            mine.work.disconnect()
            mine.work = None

    def _ready(self, mine: _Mine) -> Any:
        """Give this thread's connection; one that the server has closed meanwhile is replaced."""
        if mine.work is not None and time.monotonic() - mine.used > STALE:
            try:
                stale = mine.work.can_read(0)  # nothing was asked: what comes is the end
            except _LOST:
                stale = True
            if stale:
                self._drop(mine)
        if mine.work is None:
            mine.work = self._connect()
        return mine.work

    # --- asking

    def run(
        self,
        script: Script,
        args: Iterable[bytes],
        count: int,
        *,
        again: bool = True,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """Call a script.

        Parameters
        ----------
        script : Script
        args : iterable of bytes
            Its key and arguments, each already framed (``$length``, bytes).
        count : int
            How many they are.
        again : bool
            Whether it may be sent once more when the connection broke after it was sent.
        meanwhile : callable, optional
            Called once, while the server works.

        Raises
        ------
        StoreUnavailable
            It is not known what happened.
        """
        mine = self._thread()
        packed = b"*%d\r\n%b%b" % (count + 3, script.head, b"".join(args))
        until = 0.0
        lost = 0
        unknown = False  # the server does not have the script
        while True:
            sent = False
            try:
                connection = self._ready(mine)
                if unknown:
                    self._load(connection, script)
                    unknown = False
                sent = True
                connection.send_packed_command([packed], check_health=False)
                if meanwhile is not None:
                    beside, meanwhile = meanwhile, None
                    beside()
                answer = connection.read_response()
                mine.used = time.monotonic()
                return answer
            except errors.ResponseError as err:
                mine.used = time.monotonic()
                text = str(err)
                if isinstance(err, errors.MovedError):
                    self._follow(err)
                    self._drop(mine)
                    text = f"MOVED {text}"
                elif isinstance(err, errors.NoScriptError) or text.startswith("NOSCRIPT"):
                    unknown = True  # loaded in the next turn, where a broken connection is met
                elif not _transient(err):
                    raise _translated(err) from err
                else:
                    self._drop(mine)  # resolve the address again: another server may rule now
                until = until or time.monotonic() + PATIENCE
                if time.monotonic() > until:
                    raise StoreUnavailable(f"the server is not ready: {text}") from err
                if not isinstance(err, errors.NoScriptError | errors.MovedError):
                    time.sleep(0.05)
            except _LOST as err:
                self._drop(mine)
                # A server that was restarted has closed the connection of everybody.
                timed_out = isinstance(err, errors.TimeoutError | TimeoutError)
                if transient := _transient(err):
                    until = until or time.monotonic() + PATIENCE
                    if time.monotonic() < until:
                        time.sleep(0.05)
                        continue
                lost += 1
                if transient or timed_out or lost > 1 or (sent and not again):
                    raise StoreUnavailable(f"no answer from the server: {err}") from err
            except BaseException:
                self._drop(mine)  # an answer may still be under way
                raise

    def _load(self, connection: Any, script: Script) -> None:
        connection.send_packed_command([pack(b"SCRIPT", b"LOAD", script.source)])
        connection.read_response()

    def ask(self, *args: bytes) -> Any:
        """Send one command that only reads; once more if the connection was broken."""
        try:
            return self._ask(args)
        except StoreUnavailable as err:
            if isinstance(err.__cause__, errors.TimeoutError | TimeoutError):
                raise
        time.sleep(0.05)
        return self._ask(args)

    def _ask(self, args: tuple[bytes, ...]) -> Any:
        mine = self._thread()
        try:
            connection = self._ready(mine)
            connection.send_packed_command([pack(*args)], check_health=False)
            answer = connection.read_response()
            mine.used = time.monotonic()
            return answer
        except errors.ResponseError as err:
            if not _transient(err):
                raise _translated(err) from err
            self._drop(mine)
            if isinstance(err, errors.MovedError):
                self._follow(err)
            raise StoreUnavailable(f"the server is not ready: {err}") from err
        except _LOST as err:
            self._drop(mine)
            raise StoreUnavailable(f"no answer from the server: {err}") from err
        except BaseException:
            self._drop(mine)  # an answer may still be under way
            raise

    def block(self, args: list[bytes], timeout: float, waker: Waker | None = None) -> Any:
        """Send a command that blocks until `timeout`; None if nothing came or it was woken.

        It has a connection of its own. One that is woken asks the server to let it go and hears its
        answer, since what the server says at this moment is lost with the connection otherwise. A
        connection that broke gives None: the caller looks, and learns on the other one whether the
        server is there.
        """
        mine = self._thread()
        until = time.monotonic() + timeout
        fresh = mine.wait is None
        try:
            if mine.wait is None:
                mine.wait = self._connect()
                mine.waits_as = self._number_of(mine.wait)
            mine.wait.send_packed_command([pack(*args, b"%.3f" % max(timeout, 0.001))])
            poll = select.poll()
            poll.register(mine.wait._sock, select.POLLIN)
            if waker is not None:
                poll.register(waker.out, select.POLLIN)
            ready = poll.poll(max(0.0, until + 1.0 - time.monotonic()) * 1000)
            fds = {fd for fd, _ in ready}
            if mine.wait._sock.fileno() in fds:
                return mine.wait.read_response()
            if fds and self._let_go(mine):
                return mine.wait.read_response()
            self._drop_wait(mine)
            return None
        except errors.ResponseError as err:
            self._drop_wait(mine)
            if isinstance(err, errors.MovedError):
                self._follow(err)
                return None
            if _transient(err):
                raise StoreUnavailable(f"the server is not ready: {err}") from err
            raise _translated(err) from err
        except _LOST as err:
            self._drop_wait(mine)
            if not fresh:
                return None
            raise StoreUnavailable(f"no answer from the server: {err}") from err
        except BaseException:
            self._drop_wait(mine)
            raise

    def _number_of(self, connection: Any) -> bytes:
        """Give a connection's number at the server; empty where the user may not ask."""
        connection.send_packed_command([pack(b"CLIENT", b"ID")], check_health=False)
        try:
            return b"%d" % connection.read_response()
        except errors.ResponseError:
            return b""

    def _let_go(self, mine: _Mine) -> bool:
        """End the wait of this thread at the server; whether its answer is there to be read."""
        poll = select.poll()
        poll.register(mine.wait._sock, select.POLLIN)
        patience = 0
        while mine.waits_as and patience < 1_000:
            try:
                self._ask((b"CLIENT", b"UNBLOCK", mine.waits_as))
            except StoreError:
                return False
            patience += 10  # the command itself may not have reached the server yet
            if poll.poll(patience):
                return True
        return False

    def _drop_wait(self, mine: _Mine) -> None:
        if mine.wait is not None:
            mine.wait.disconnect()
            mine.wait = None


def _transient(err: Exception) -> bool:
    return isinstance(err, _TRANSIENT_TYPES) or str(err).startswith(_TRANSIENT)


def _translated(err: Exception) -> StoreError:
    text = str(err)
    if "OOM" in text or type(err).__name__ == "OutOfMemoryError":
        return StoreUnavailable(
            f"the server's memory is full, so nothing was changed: {text}; "
            "raise its maxmemory, or let what is finished expire sooner"
        )
    return StoreError(f"the server refused: {text}")
