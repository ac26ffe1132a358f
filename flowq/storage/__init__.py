# SPDX-License-Identifier: MIT
"""Stores: where tasks and runs live. `open_store` opens one by its URL."""

from __future__ import annotations

from urllib.parse import urlsplit

from flowq.clock import SYSTEM_CLOCK, Clock
from flowq.errors import ConfigError
from flowq.storage.base import Store

__all__ = ["SCHEMES", "Store", "open_store"]

SCHEMES = ("sqlite", "memory", "redis", "rediss", "unix")


def open_store(url: str, *, name: str = "flowq", clock: Clock = SYSTEM_CLOCK) -> Store:
    """Open the store that a URL names; nothing is connected before it is first used.

    Parameters
    ----------
    url : str
        ``sqlite:///relative.db``, ``sqlite:////absolute.db`` (with ``?synchronous=normal``),
        ``memory://``, ``redis://[user:password@]host:port/db``, ``rediss://`` (TLS),
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


def _shown(url: str) -> str:
    """Give a URL without what may be a password."""
    head, at, tail = url.rpartition("@")
    if not at:
        return url
    scheme, sep, _ = head.partition("://")
    return f"{scheme}{sep}***@{tail}" if sep else f"***@{tail}"
