# SPDX-License-Identifier: MIT
"""Apps for those who prefer keyword arguments to a URL."""

from __future__ import annotations

import os
from typing import Any, Literal
from urllib.parse import quote

from flowq.app import FlowQ

__all__ = ["MemoryFlowQ", "RedisFlowQ", "SqliteFlowQ"]


class SqliteFlowQ(FlowQ):
    """A `FlowQ` over a SQLite file.

    Parameters
    ----------
    name : str
    path : str or path
        The file; made when it is first needed.
    synchronous : {"full", "normal"}
        ``"normal"`` is faster; a power loss may take the last commits, never consistency.
    **more
        See `FlowQ`.
    """

    def __init__(
        self,
        name: str = "flowq",
        path: str | os.PathLike[str] = "flowq.db",
        *,
        synchronous: Literal["full", "normal"] = "full",
        **more: Any,
    ) -> None:
        text = quote(os.fspath(path))
        mode = "" if synchronous == "full" else f"?synchronous={quote(synchronous)}"
        super().__init__(name, f"sqlite:///{text}{mode}", **more)


class RedisFlowQ(FlowQ):
    """A `FlowQ` over a Redis or Valkey server.

    Parameters
    ----------
    name : str
    host : str
    port : int
    db : int
    username, password : str, optional
    ssl : bool
    unix_socket : str or path, optional
        Path of the server's socket, instead of host and port.
    url : str, optional
        Instead of all of these.
    **more
        See `FlowQ`.
    """

    def __init__(
        self,
        name: str = "flowq",
        host: str = "localhost",
        port: int = 6379,
        db: int = 0,
        *,
        username: str | None = None,
        password: str | None = None,
        ssl: bool = False,
        unix_socket: str | os.PathLike[str] | None = None,
        url: str | None = None,
        **more: Any,
    ) -> None:
        if url is None:
            secret = f":{quote(password, safe='')}" if password is not None else ""
            who = f"{quote(username or '', safe='')}{secret}@" if username or secret else ""
            if unix_socket is not None:
                url = f"unix://{who}{quote(os.fspath(unix_socket))}?db={db}"
            else:
                at = f"[{host}]" if ":" in host else host
                url = f"{'rediss' if ssl else 'redis'}://{who}{at}:{port}/{db}"
        super().__init__(name, url, **more)


class MemoryFlowQ(FlowQ):
    """A `FlowQ` in the memory of this process, for tests and notebooks."""

    def __init__(self, name: str = "flowq", **more: Any) -> None:
        super().__init__(name, "memory://", **more)
