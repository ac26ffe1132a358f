# SPDX-License-Identifier: MIT
"""One SQLite database: opened after a fork, locked fairly, its errors translated here alone."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from flowq.errors import ConfigError, StoreError, StoreUnavailable, StoreVersionError
from flowq.storage.base import LAYOUT
from flowq.storage.sqlite.known import Known, Link
from flowq.storage.sqlite.statements import SCHEMA
from flowq.storage.sqlite.turn import Turn

__all__ = ["Database", "Place", "read_owner"]

OLDEST: Final = (3, 35, 0)
"""Before it there is no RETURNING."""
APPLICATION_ID: Final = 0x666C7771
"""``flwq``: tells a store from any other SQLite file."""
PATIENCE: Final = "30"
"""Seconds to wait for others that write, unless the URL says otherwise."""
WAL_PAGES: Final = 4_000
"""Pages of the log at which a commit also writes back to the file."""
WAL_KEPT: Final = 32 * 1024 * 1024
"""The log is cut back to so many bytes once it was written back."""


def read_owner(path: Path) -> str | None:
    """Give the name of the app that a file belongs to; None if it is no store (yet)."""
    if not path.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            row = db.execute("SELECT app FROM store").fetchone()
    except sqlite3.Error:
        return None  # who opens it as a store is told what is wrong with it
    return None if row is None else str(row[0])


class Place:
    """Where a store's database is, as its URL says.

    Attributes
    ----------
    path : pathlib.Path or None
        None: in memory.
    synchronous : str
        ``"FULL"`` or ``"NORMAL"``.
    patience : float
        Seconds to wait for others that write.
    url : str
        The URL with an absolute path.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        given = parts.query and f"?{parts.query}"
        self.path: Path | None = None
        self.synchronous = options.pop("synchronous", "full").upper()
        if self.synchronous not in ("FULL", "NORMAL"):
            raise ConfigError(
                f"{url!r}: synchronous={self.synchronous.lower()!r} is not known; "
                "use synchronous=full or synchronous=normal"
            )
        timeout = options.pop("timeout", PATIENCE)
        if not re.fullmatch(r"\d{1,6}(\.\d+)?", timeout):
            raise ConfigError(
                f"{url!r}: timeout={timeout!r} is not a number of seconds; write timeout=30"
            )
        self.patience = float(timeout)
        if options:
            raise ConfigError(
                f"{url!r}: {next(iter(options))!r} is no setting of a SQLite store; "
                "there are synchronous=full or normal, and timeout=30"
            )
        if parts.scheme == "memory":
            if parts.netloc or parts.path.strip("/"):
                raise ConfigError(f"{url!r}: a store in memory has no name; write memory://")
            self.url = "memory://"
            return
        if parts.netloc or len(parts.path) < 2:
            raise ConfigError(
                f"{url!r} names no file; write sqlite:///relative.db or sqlite:////absolute.db"
            )
        self.path = Path(os.path.abspath(os.path.expanduser(unquote(parts.path[1:]))))
        self.url = f"sqlite:///{self.path}{given}"


class Database:
    """A connection that one thread at a time uses; a child after a fork opens its own.

    Parameters
    ----------
    place : Place
    app : str
        Whose store it is; another one's file is refused.
    """

    def __init__(self, place: Place, app: str) -> None:
        self.place = place
        self.app = app
        self._reset()

    def _reset(self) -> None:
        self._turn = Turn(self.place.path, self.place.patience)
        self._lock = threading.RLock()  # who has it does not wait for the turn
        self._pid = os.getpid()
        self._connection: Link | None = None
        self._writes = 0
        self.opened = 0

    def _own(self) -> None:
        """Forget what a parent process had open.

        SQLite's handles must not even be closed in a child: that would drop the parent's locks.
        """
        if self._pid != os.getpid():
            _INHERITED.append(self._connection)
            self._turn.forget()
            self._reset()

    # --- use ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def write(self) -> Iterator[Link]:
        """Run one transaction that changes something: all of it is kept, or nothing."""
        with self._connected():
            pass  # what is wrong with the file is said before anything is made beside it
        with self._translated(), self._turn.taken(), self._connected() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
                self._writes += 1
            except BaseException:
                # What it made is not there, and its number will be another's.
                db.known = Known()
                # A commit that failed may have ended the transaction itself.
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Link]:
        """Have the connection, and nothing else: who only reads waits for nobody that writes."""
        self._own()
        with self._translated():
            while True:
                if self._connection is None:
                    self._open()
                with self._lock:
                    if self._connection is not None:  # else somebody has just closed it
                        yield self._connection
                        return

    @contextlib.contextmanager
    def read(self) -> Iterator[Link]:
        """Run reads that all see one moment."""
        with self._connected() as db:
            if db.in_transaction:  # within a write of this thread
                yield db
                return
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")

    def version(self) -> tuple[int, int]:
        """Give what changes when another process, or this one, has changed something."""
        with self._connected() as db:
            found: int = db.execute("PRAGMA data_version").fetchone()[0]
            return found, self._writes

    def trim(self) -> None:
        """Write the log back to the file, as far as readers let it."""
        with self._connected() as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close; the next use opens anew (what was in memory is gone)."""
        self._own()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        self._turn.close()

    def __del__(self) -> None:
        if getattr(self, "_pid", None) == os.getpid():
            self.close()

    # --- open -----------------------------------------------------------------------------------

    def _open(self) -> None:
        """Open it; only an empty file asks for the turn to write."""
        if sqlite3.sqlite_version_info < OLDEST:
            raise StoreError(
                f"SQLite {sqlite3.sqlite_version} is too old; "
                f"flowq needs {'.'.join(map(str, OLDEST))} or newer"
            )
        path = self.place.path
        if path is not None:
            _create(path)
        db = sqlite3.connect(
            ":memory:" if path is None else path,
            isolation_level=None,
            check_same_thread=False,
            timeout=self.place.patience,
            cached_statements=256,
            factory=Link,
        )
        db.known = Known()
        try:
            if _is_empty(db):
                with self._turn.taken():  # two may have found it so
                    self._lay_out(db)
            self._check(db)
            if path is not None:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute(f"PRAGMA synchronous = {self.place.synchronous}")
                db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
                db.execute(f"PRAGMA journal_size_limit = {WAL_KEPT}")
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute("PRAGMA cache_size = -32768")
        except BaseException:
            db.close()
            raise
        with self._lock:
            if self._connection is None:
                self._connection = db
                self.opened += 1
            else:  # another thread was faster
                db.close()

    def _lay_out(self, db: sqlite3.Connection) -> None:
        """Make the tables, unless somebody has just done so."""
        if not _is_empty(db):
            return
        if self.place.path is not None:
            db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN IMMEDIATE")
        try:
            if _is_empty(db):
                for statement in SCHEMA:
                    db.execute(statement)
                db.execute("INSERT INTO store VALUES (1, ?, ?, 1, 1, 0)", (self.app, LAYOUT))
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {LAYOUT}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _check(self, db: sqlite3.Connection) -> None:
        """Refuse a file that is not ours."""
        where = self.place.path or "memory"
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreVersionError(
                f"{where} is a SQLite file, but not a store of flowq; name another file"
            )
        layout = db.execute("PRAGMA user_version").fetchone()[0]
        if layout != LAYOUT:
            raise StoreVersionError(
                f"{where} has layout {layout}, this flowq knows layout {LAYOUT}; "
                "use the flowq that made it, or name a new file"
            )
        app = db.execute("SELECT app FROM store").fetchone()[0]
        if app != self.app:
            raise StoreVersionError(
                f"{where} belongs to the app {app!r}, not to {self.app!r}; "
                f"one file belongs to one app: name another file, or write FlowQ({app!r})"
            )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the driver's and the system's errors into flowq's."""
        try:
            yield
        except sqlite3.OperationalError as err:
            # locked, disk I/O, full, read-only, cannot be opened: the world, not the data
            raise StoreUnavailable(f"{self.place.url}: {err}") from err
        except sqlite3.Error as err:
            raise StoreError(f"{self.place.url}: {err}") from err
        except OSError as err:
            if isinstance(err, StoreUnavailable):
                raise
            raise StoreUnavailable(f"{self.place.url}: {err}") from err


_INHERITED: list[sqlite3.Connection | None] = []
"""Connections of a parent process, kept so that nothing ever closes them here."""


def _is_empty(db: sqlite3.Connection) -> bool:
    return not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _create(path: Path) -> None:
    """Make the file with nobody else's right to read it; SQLite gives its log the same rights."""
    if not path.parent.is_dir():
        raise StoreUnavailable(f"sqlite:///{path}: the folder {path.parent} does not exist")
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
