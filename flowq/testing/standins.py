# SPDX-License-Identifier: MIT
"""What stands for bodies in a test: by the path of a node, what an attempt gives or raises."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final, NamedTuple

from flowq.errors import GraphError
from flowq.fragment import BRANCH
from flowq.plan import NodeRow, decode_rows
from flowq.primitives.build import Part
from flowq.task import Task

__all__ = ["Named", "StandIn", "StandIns", "arms_named", "rows_named"]

_INDEX: Final = re.compile(r"\[\d+\]$")
_SHOWN: Final = 30
"""So many names an error lists at most; the items of a map are one of them."""


class StandIn(NamedTuple):
    """What runs in the place of a body, for one attempt.

    Attributes
    ----------
    func : callable
    is_async : bool
    name : str
        The path under which it was given.
    fails : bool
        Whether it does nothing but raise what it was given.
    """

    func: Callable[..., Any]
    is_async: bool
    name: str
    fails: bool = False


class Named(NamedTuple):
    """A node as far as stand-ins must know it.

    Attributes
    ----------
    name : str
    open : bool
        Whether nodes may come in it that are not known.
    """

    name: str
    open: bool


def rows_named(rows: Iterable[NodeRow], prefix: str = "") -> Iterator[Named]:
    """Go through the nodes of a plan and of the arms that its branches may take."""
    for row in rows:
        if row.name:
            yield Named(prefix + row.name, bool(row.message or row.later))
        yield from arms_named((row,), prefix)


def arms_named(rows: Iterable[NodeRow], prefix: str = "") -> Iterator[Named]:
    """Go through the nodes of arms that the branches among some nodes may take."""
    for row in rows:
        if row.message is not None and row.message.task == BRANCH:
            for plan in row.message.plans:
                yield from rows_named(decode_rows(plan)[1:], f"{prefix}{row.name}/")


class StandIns:
    """Values and failures by path, and which of them name a node.

    Parameters
    ----------
    values : mapping of str to object
        A function is called with the node's arguments; anything else is the value.
    fail : mapping of str to object
        An exception fails each attempt; of a list each attempt takes one: an exception, a value,
        or None to run for real.

    Raises
    ------
    GraphError
        A path stands in both; `fail` has something else.
    """

    def __init__(self, values: Mapping[str, Any], fail: Mapping[str, Any]) -> None:
        if both := sorted(values.keys() & fail.keys()):
            raise GraphError(
                f"test: {', '.join(map(repr, both))} in values= and in fail=; a list in fail= "
                "mixes them: fail={'clean': [ValueError(), 7]} fails once and gives 7 then"
            )
        for path, given in fail.items():
            if not _is_error(given) and not isinstance(given, list):
                raise GraphError(
                    f"test: fail={{{path!r}: {given!r}}} is no exception; a value goes in values=, "
                    "and a list gives each attempt its own"
                )
        for path in (*values, *fail):
            if not isinstance(path, str):
                raise GraphError(f"test: {path!r} is no path; a node is named by a text")
        self._values = values
        self._fail = fail
        self._unseen = {*values, *fail}
        self._paths = frozenset(self._unseen)
        self._taken: dict[str, int] = {}
        self.not_taken: list[Named] = []
        """Nodes of arms: those that were not taken can be named all the same."""

    def take(self, node: str, *, always: bool = False) -> StandIn | None:
        """Give what stands for a node's body in its next attempt; None if that runs for real.

        The path that says most wins: ``clean[3]`` before ``clean``, which speaks of each item.
        Where there is no body (`always`), what stood for it at first does so again.
        """
        path = self._path(node)
        if path is None:
            return None
        attempt = self._taken.get(node, 0)
        self._taken[node] = attempt + 1
        found = self._given(path, attempt)
        return self._given(path, 0) if found is None and always else found

    def stands_for(self, node: str) -> bool:
        """Say whether something stands for a node of which there is one attempt: a graph."""
        path = self._path(node)
        return path is not None and self._given(path, 0) is not None

    def _path(self, node: str) -> str | None:
        path = next((p for p in _said(node) if p in self._paths), None) if self._paths else None
        if path is not None:
            self._unseen.discard(path)
        return path

    def _given(self, path: str, attempt: int) -> StandIn | None:
        if path in self._values:
            return _giving(self._values[path], path)
        given = self._fail[path]
        if not isinstance(given, list):
            return _raising(given, path)
        one = given[attempt] if attempt < len(given) else None
        if one is None:
            return None
        return _raising(one, path) if _is_error(one) else _giving(one, path)

    # --- does each path name something? ----------------------------------------------------------

    def check_before(self, nodes: Iterable[Named]) -> None:
        """Refuse what can name no node already now, before any body has run.

        Raises
        ------
        GraphError
            A path names no node, and none that comes later can have it.
        """
        if self._unseen:
            self._check(list(nodes))

    def check_after(self, nodes: Iterable[Named]) -> None:
        """Refuse what named no node, now that all of them are known.

        A path is let be where what it stands in never opened (it was blocked, or failed).
        """
        if self._unseen:
            self._check([*nodes, *self.not_taken])

    def _check(self, nodes: Sequence[Named]) -> None:
        known: dict[str, bool] = {}
        lists: dict[str, bool] = {}  # of what may have items: an item's path does not speak of it
        for node in nodes:
            last = node.name.rpartition("/")[2]
            for path in _said(node.name):
                known[path] = known.get(path, False) or node.open
                if path.rpartition("/")[2] == last:
                    lists[path] = lists.get(path, False) or node.open
        for path in sorted(self._unseen):
            if path in known:
                continue
            found = ((lists if of_list else known).get(p) for p, of_list in _owners(path))
            if not next((is_open for is_open in found if is_open is not None), False):
                raise GraphError(
                    f"test: no node is named {path!r}; there are "
                    f"{_listed(path, [n.name for n in nodes]) or 'none'}"
                )


def _is_error(given: Any) -> bool:
    return isinstance(given, BaseException) or (
        isinstance(given, type) and issubclass(given, BaseException)
    )


def _giving(value: Any, path: str) -> StandIn:
    if isinstance(value, Task):
        return StandIn(value.func, value.is_async, path)
    if callable(value) and not isinstance(value, type | Part):
        return StandIn(value, inspect.iscoroutinefunction(value), path)

    def give(*_: Any, **__: Any) -> Any:
        return value

    return StandIn(give, False, path)


def _raising(error: Any, path: str) -> StandIn:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return StandIn(fail, False, path, fails=True)


# --- paths ---------------------------------------------------------------------------------------


def _said(name: str) -> Iterator[str]:
    """Go through the paths that speak of a node, those that say most first.

    Examples
    --------
    >>> list(_said("load[2]/clean[3]"))
    ['load[2]/clean[3]', 'load[2]/clean', 'load/clean[3]', 'load/clean']
    """
    if "[" not in name:
        yield name
        return
    ways = []
    for part in name.split("/"):
        ways.append([(0, part)])
        while short := _INDEX.search(part):
            part = part[: short.start()]
            ways[-1].append((len(ways[-1]), part))
    found = product(*ways)
    for way in sorted(found, key=lambda way: sum(left for left, _ in way)):
        yield "/".join(part for _, part in way)


def _owners(path: str) -> Iterator[tuple[str, bool]]:
    """Go through what a path may stand in, the nearest first, and whether as an item of it.

    Examples
    --------
    >>> list(_owners("load/clean[3]"))
    [('load/clean', True), ('load', False)]
    """
    while True:
        short = _INDEX.search(path)
        if short is not None:
            path = path[: short.start()]
        elif "/" in path:
            path = path.rpartition("/")[0]
        else:
            return
        yield path, short is not None


def _listed(path: str, names: Sequence[str]) -> str:
    """Write names, the nearest to a path first; many items of a map are one of them."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(re.sub(r"\[\d+\]", "[]", name), []).append(name)
    shown = []
    for group in groups.values():
        if len(group) <= 3:
            shown += group
        else:
            shown.append(f"{group[0]} to {group[-1]}")
    match = difflib.SequenceMatcher(b=path, autojunk=False)

    def likeness(name: str) -> float:
        match.set_seq1(name)
        return -match.ratio()

    shown.sort(key=likeness)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
