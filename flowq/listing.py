# SPDX-License-Identifier: MIT
"""Which runs an app has, in pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from flowq.errors import ConfigError
from flowq.looking import Home, shown_state
from flowq.once import key_id
from flowq.policy import nearest
from flowq.run import Run
from flowq.states import State
from flowq.storage.base import RunInfo

__all__ = ["runs_of"]

PAGE: Final = 200
_STATES: Final = tuple(dict.fromkeys(shown_state(s) for s in State))


class _App(Home, Protocol):
    @property
    def flows(self) -> Mapping[str, Any]:
        """Its flows by name."""
        ...


def runs_of(
    app: _App,
    *,
    flow: Any = None,
    state: str | None = None,
    key: str | None = None,
    since: datetime | None = None,
) -> Iterator[Run[Any]]:
    """Go through runs, newest first; see `flowq.app.FlowQ.runs`.

    Raises
    ------
    ConfigError
        There is no such state; `since` is no datetime.
    """
    if state is not None and state not in _STATES:
        raise ConfigError(f"there is no state {state!r}{nearest(state, _STATES)}")
    if since is not None and not isinstance(since, datetime):
        raise ConfigError(f"since={since!r} must be a datetime (naive ones are the local zone's)")
    since_ms = 0 if since is None else round(since.timestamp() * 1000)
    name = getattr(flow, "name", flow)
    found = _listed(app, since_ms) if key is None else _under(app, name, key)
    names = (name, name.rpartition(".")[2]) if name is not None and key is None else None

    def chosen() -> Iterator[Run[Any]]:
        for info in found:
            if info.created_ms < since_ms:
                continue
            if state is not None and shown_state(info.state) != state:
                continue
            if names is None or info.name in names:
                yield Run(app, info.id, value=info.value)

    return chosen()


def _listed(app: _App, since_ms: int) -> Iterator[RunInfo]:
    after = b""
    while True:
        page = app.store.runs(after=after, limit=PAGE)
        for info in page:
            if info.created_ms < since_ms:  # those that follow were made before
                return
            yield info
        if len(page) < PAGE:
            return
        after = page[-1].id


def _under(app: _App, name: str | None, key: str) -> Iterator[RunInfo]:
    """The runs of a key: their ids are known, so nothing is searched."""
    for scope in app.flows if name is None else (name,):
        info = app.store.run(key_id(app.name, "run", scope, key))
        if info is not None:
            yield info
