# SPDX-License-Identifier: MIT
"""Stores: where tasks and runs live. `open_store` opens one by its URL."""

from __future__ import annotations

from urllib.parse import urlsplit

from flowq.clock import SYSTEM_CLOCK, Clock
from flowq.errors import ConfigError
from flowq.storage.base import Store

__all__ = ["SCHEMES", "Store", "open_store", "owner_of"]

SCHEMES = ("sqlite", "memory", "redis", "rediss", "unix")


def open_store(url: str, *, name: str = "flowq", clock: Clock = SYSTEM_CLOCK) -> Store:
    """Open the store that a URL names; nothing is connected before it is first used.

    Parameters
    ----------
    url : str
        ``sqlite:///relative.db``, ``sqlite:////absolute.db`` (with ``?synchronous=normal``, and
        ``timeout=30``: seconds to wait for others that write), ``memory://``,
        ``redis://[user:password@]host:port/db``, ``rediss://`` (TLS),
        ``unix:///path/to/socket?db=0`` (Redis over a socket).
    name : str
        The app's name, the namespace of its keys; one SQLite file belongs to one name.
    clock : Clock
        For tests.

    Raises
    ------
    ConfigError
        The URL is of no known form; the text says which part.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("sqlite", "memory"):
        from flowq.storage.sqlite.store import SqliteStore

        return SqliteStore.from_url(url, name=name, clock=clock)
    if scheme in ("redis", "rediss", "unix"):
        from flowq.storage.redis.store import RedisStore

        return RedisStore.from_url(url, name=name, clock=clock)
    known = ", ".join(f"{s}://" for s in SCHEMES)
    raise ConfigError(f"the store URL {_shown(url)!r} begins with none of {known}")


def owner_of(url: str) -> str | None:
    """Give the name of the app that a store belongs to, where it has one owner.

    Returns
    -------
    str or None
        None where there is no such file, it is no store of flowq, or several apps share the
        server.
    """
    if urlsplit(url).scheme != "sqlite":
        return None
    from flowq.storage.sqlite.connection import Place, read_owner

    path = Place(url).path
    return None if path is None else read_owner(path)


def _shown(url: str) -> str:
    """Give a URL without what may be a password."""
    head, at, tail = url.rpartition("@")
    if not at:
        return url
    scheme, sep, _ = head.partition("://")
    return f"{scheme}{sep}***@{tail}" if sep else f"***@{tail}"
