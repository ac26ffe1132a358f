# SPDX-License-Identifier: MIT
"""What the commands that read have in common: the store, pages, ids, and cells as text.

Nothing here unpickles: a worker stores a short ``repr`` beside each value.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from flowq.cli.loading import find_app, open_reading
from flowq.cli.output import NOT_FOUND, CliError
from flowq.errors import DecodeError
from flowq.looking import culprit_of, failure_in, tries_of
from flowq.message import (
    EMPTY,
    TEMPLATE,
    Cell,
    Const,
    Data,
    Else,
    Items,
    Mapping,
    Ref,
    Seq,
    Template,
    Value,
    decode_template,
    id_bytes,
    id_text,
    node_id,
    read_cell,
)
from flowq.states import State

if TYPE_CHECKING:
    from flowq.app import FlowQ
    from flowq.storage import Store
    from flowq.storage.base import DeadLetter, NodeInfo, RunInfo

__all__ = [
    "LOOKED_AT",
    "culprit_of",
    "cut",
    "dead_letters",
    "failure_in",
    "find_id",
    "home_of",
    "nodes",
    "runs",
    "shown_state",
    "shown_value",
    "store_of",
    "tries_of",
    "wants_json",
]

K = TypeVar("K")
T = TypeVar("T")

LOOKED_AT = 10_000
"""So many of the newest ids are looked at to complete the beginning of one."""
PAGE = 200
"""So many rows are asked for at once."""
SHOWN = 10
"""So many items of a list are shown."""
NAMED = 10
"""So many ids that begin alike are named, the newest first."""


def store_of(args: Any) -> Store:
    """Open the store that a command is asked about; ``args.name`` then says of which app.

    As for a worker, the app may be said in ``FLOWQ_APP`` or ``[tool.flowq]``; where ``--url`` says
    the store, only ``-A`` does.

    Raises
    ------
    CliError
        There is none.
    """
    url, app = home_of(args)
    if app is not None:
        url, args.name = args.url or app.url, args.name or app.name
    store, args.name = open_reading(url, args.name)
    return store


def home_of(args: Any) -> tuple[str, FlowQ | None]:
    """Give the URL that is said, and the app if one is named; see `store_of`."""
    from flowq.settings import DEFAULT_URL, load_settings

    said = load_settings({"url": args.url, "app": args.app}, ["url", "app"])
    place = said["app"] if args.url is None else args.app
    return said["url"] or DEFAULT_URL, None if place is None else find_app(place)[0]


def wants_json(args: Any) -> bool:
    """Whether the answer is for a program."""
    from flowq.settings import load_settings

    return bool(load_settings({"json": args.json}, ["json"])["json"])


# --- pages ---------------------------------------------------------------------------------------


def runs(store: Store, limit: int | None = None) -> Iterator[RunInfo]:
    """Go through runs, newest first."""
    return _paged(
        lambda after, most: store.runs(after=after, limit=most), lambda run: run.id, b"", limit
    )


def dead_letters(store: Store, limit: int) -> Iterator[DeadLetter]:
    """Go through dead letters, newest first."""
    return _paged(
        lambda after, most: store.dead(after=after, limit=most), lambda dead: dead.id, b"", limit
    )


def nodes(store: Store, run: bytes, state: State | None = None) -> Iterator[NodeInfo]:
    """Go through the nodes of a run by index; the root is left out."""
    return _paged(
        lambda after, most: store.nodes(run, after=after, limit=most, state=state),
        lambda node: node.index,
        0,
    )


def _paged(
    read: Callable[[K, int], Sequence[T]], key: Callable[[T], K], after: K, limit: int | None = None
) -> Iterator[T]:
    """Go through what `read` gives behind a place, a page at a time; `key` is a row's place."""
    while limit is None or limit > 0:
        most = PAGE if limit is None else min(PAGE, limit)
        page = read(after, most)
        yield from page
        if len(page) < most:
            return
        limit = None if limit is None else limit - most
        after = key(page[-1])


def cut(found: Iterator[T], limit: int) -> tuple[list[T], bool]:
    """Take so many; says as well whether there are more."""
    rows = list(itertools.islice(found, limit + 1))
    return rows[:limit], len(rows) > limit


# --- ids -----------------------------------------------------------------------------------------


def find_id(text: str, known: Iterator[bytes], what: str, hint: str = "") -> bytes:
    """Read an id, or complete the beginning of one.

    Parameters
    ----------
    text : str
        An id, or the first characters of one, with ``:index`` behind it for a node.
    known : iterator of bytes
        Ids to choose from; read only if `text` is no whole id.
    what : str
        What it is an id of, for the error.
    hint : str
        What to do if there is none.

    Raises
    ------
    CliError
        None of them begins so (exit status 3), or several do (2).
    """
    try:
        return id_bytes(text)
    except ValueError:
        pass
    head, colon, index = text.lower().partition(":")
    if not re.fullmatch(r"[0-9a-f-]{1,36}", head) or (colon and not index.isdigit()):
        raise CliError(f"{text!r} is not an id, nor the beginning of one")
    wanted = head.replace("-", "")
    fitting = sorted({id for id in known if id.hex().startswith(wanted)})
    heads = sorted({id[:16] for id in fitting})
    if len(heads) > 1:
        some = [id_text(id) for id in heads[: -NAMED - 1 : -1]]
        more = [f"and {len(heads) - NAMED:,} older"] if len(heads) > NAMED else []
        listed = "\n  ".join([f"{len(heads):,} {what}s begin with {text!r}:", *some, *more])
        raise CliError(listed)
    if not heads:
        raise CliError(
            f"no id of a {what} begins with {text!r}, of the newest {LOOKED_AT:,}{hint}", NOT_FOUND
        )
    if colon:
        return node_id(heads[0], int(index))
    return fitting[0] if len(fitting) == 1 else heads[0]


# --- cells as text -------------------------------------------------------------------------------


def shown_state(state: State, handle: bool = False) -> str:
    """Give a state's name; a run that is under way is ``running`` to people."""
    return "running" if handle and state == State.EXPANDED else state.label


def shown_value(store: Store, run: bytes, cell: Cell) -> str:
    """Give the value in the cell of a success as text, from the stored reprs."""
    if cell.flags & EMPTY:
        return "None"
    if cell.flags & TEMPLATE:
        try:
            return _shown(store, run, decode_template(cell.body))
        except DecodeError as err:
            return f"<{err}>"
    try:
        value = msgspec.msgpack.decode(cell.body, type=Value)
    except msgspec.MsgspecError:
        return "<a result that cannot be read>"
    return value.repr or f"<{len(value.payload)} bytes>"


def _shown(store: Store, run: bytes, template: Template) -> str:
    if isinstance(template, Ref):
        raw = store.cells(run, ((template.node, 1),)).get(template.node)
        if raw is None:
            return "..."
        cell = read_cell(raw)
        if cell.state != State.SUCCESS:
            return f"<{State(cell.state).label}>"
        return shown_value(store, run, cell) + "".join(f"[{key!r}]" for key in template.path)
    if isinstance(template, Items):
        some = range(template.first, template.first + min(template.count, SHOWN))
        parts = [_shown(store, run, Ref(node)) for node in some]
        if template.chunk:  # each is a list, and the value has what is in them
            parts = [p[1:-1] if p[:1] + p[-1:] == "[]" else p for p in parts]
            more = f", ... {template.total} in all" if template.count > SHOWN else ""
            return f"[{', '.join(parts)}{more}]"
        return f"[{_joined(parts, template.count)}]"
    if isinstance(template, Seq):
        parts = [_shown(store, run, item) for item in template.items[:SHOWN]]
        inner = _joined(parts, len(template.items))
        if not template.tuple_:
            return f"[{inner}]"
        return f"({inner},)" if len(template.items) == 1 else f"({inner})"
    if isinstance(template, Else):
        gone = _is_gone(store, run, template)
        return _shown(store, run, template.instead if gone else template.of)
    if isinstance(template, Data):
        return template.repr or f"<{len(template.payload)} bytes>"
    if isinstance(template, Mapping):
        parts = [
            f"{_shown(store, run, key)}: {_shown(store, run, item)}"
            for key, item in template.items[:SHOWN]
        ]
        return f"{{{_joined(parts, len(template.items))}}}"
    return repr(template.value) if isinstance(template, Const) else "..."


def _is_gone(store: Store, run: bytes, template: Else) -> bool:
    """Whether another value stands in for that of a node."""
    of = template.of
    if isinstance(of, Else):
        if _is_gone(store, run, of):
            return False
        of = of.of
    raw = store.cells(run, ((of.node, 1),)).get(of.node) if isinstance(of, Ref) else None
    if raw is None:
        return False
    state = read_cell(raw).state
    return state == State.FAILED if template.own else state != State.SUCCESS


def _joined(parts: list[str], count: int) -> str:
    more = f", ... {count} in all" if count > len(parts) else ""
    return ", ".join(parts) + more
