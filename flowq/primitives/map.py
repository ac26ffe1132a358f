# SPDX-License-Identifier: MIT
"""One call, or one chain, for each element of a list."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from flowq.chunks import chunks_of
from flowq.errors import GraphError
from flowq.fragment import list_of
from flowq.graph import Graph
from flowq.node import Body, Slot
from flowq.once import OF_STARTS
from flowq.policy import OPTIONS, check_options
from flowq.primitives.base import Composition, Unknown
from flowq.primitives.build import Builder, Fragment, Part, Placing
from flowq.primitives.follow import OF_NODES
from flowq.primitives.signature import Signature
from flowq.serializer import short_repr
from flowq.wiring import Submitter, TaskSpec

if TYPE_CHECKING:
    from flowq.result import ResultGroup

__all__ = ["Each", "Map", "each", "map_of"]

R = TypeVar("R", covariant=True)

_OF_THE_MAP: Final = (
    "name",
    "trigger_rule",
    "max_width",
    "max_parallel",
    "deadline",
    "items",
    "tolerate",
    "need",
    "chunksize",
    *OF_STARTS,
)
"""Options that speak of the map; all others speak of each item."""
_BOUNDS: Final = ("deadline", "max_parallel")
"""Those of them that graphs have too."""


class Each(Unknown):
    """A list as a keyword argument of a map, of which each item takes one element."""

    __slots__ = ("_list",)

    def __init__(self, values: Any) -> None:
        self._list = values

    def __repr__(self) -> str:
        return f"each({short_repr(self._list)})"

    def put(self, build: Builder, body: Body) -> Fragment:
        """Refuse: its place is that of an element, in the items of its map."""
        raise GraphError(
            f"{self!r} is for keyword arguments of a map: task.map(xs, day=each(days))"
        )


def each(values: Iterable[Any]) -> Any:
    """Let a keyword argument of a map take one element for each item: ``f.map(xs, day=each(ds))``.

    Parameters
    ----------
    values : iterable, or a step whose value is a list
        As long as the other lists.
    """
    return Each(values)


class Map(Composition[list[R]], Generic[R]):
    """What ``.map(...)`` gives: one node that is a list of items; the value is their list."""

    __slots__ = ("_elements", "_item", "_lists", "_named", "_unpack", "_zipped")

    has_members = True

    _place = "map"
    _single = True

    def __init__(
        self,
        item: Composition[Any],
        elements: list[Any],
        unpack: bool | None,
        options: Mapping[str, Any],
        lists: tuple[Any, ...] | None = None,
        zipped: int = 1,
        named: Sequence[Each] = (),
    ) -> None:
        super().__init__()
        self._zipped = zipped
        self._named = tuple(named)  # their lists are the last of all
        self._item = item
        self._elements = elements
        self._lists = lists  # where not all are known; none at all: one will be piped in
        self._unpack = unpack
        self._options = dict(options)

    def __repr__(self) -> str:
        if self._lists is None:
            return f"<map {self._item!r} over {len(self._elements)}>"
        over = ", ".join(map(repr, self._lists)) or "what is piped in"
        return f"<map {self._item!r} over {over}>"

    def options(self, **options: Any) -> Map[R]:
        """Give a copy with options set: of the map, or what only tasks have, of each item."""
        checked = check_options(options, "map", repr(self))
        made = self._copy()
        _assign(made, checked, {*_OF_THE_MAP, *OF_NODES})
        return made

    def start(self, app: Submitter | None = None) -> ResultGroup[R]:
        """Enqueue it; gives the ``ResultGroup`` over its items. See `Composition.start`."""
        return cast("ResultGroup[R]", self._start(app))

    if TYPE_CHECKING:

        def test(
            self,
            values: Mapping[str, Any] | None = None,
            fail: Mapping[str, Any] | None = None,
            *,
            app: Submitter | None = None,
        ) -> ResultGroup[R]:
            """Run it here and now; gives the ``ResultGroup``. See `Composition.test`."""

    def _base(self) -> str:
        return self._item._base()

    def _shown(self) -> str:
        over = short_repr(self._elements) if self._lists is None else "a list of its own"
        return f"{self._item!r} for each of {over}"

    def _scope(self, name: str) -> str:
        return f"{self._item._scope(name)}.map"

    def _graph(self) -> Graph:
        run = {"name": self._options["name"]} if "name" in self._options else {}
        return Builder().build(self, self._base(), run, "items")

    def put(self, build: Builder, body: Body) -> Placing:
        """Add one node, with the item's graph inside, once for all elements."""
        node, inner = build.expansion(body, self._base(), self._options)
        node.chunk = self._options.get("chunksize") or 0
        node.items = chunks_of(self._elements, node.chunk) if node.chunk else self._elements
        if self._lists is not None:
            node.lists = list(self._lists)
            node.width = self._options.get("max_width", OPTIONS["max_width"].default)
        node.unpack = self._unpack
        node.zipped = (self._zipped, len(self._named))
        for k, one in enumerate(self._named, self._zipped):
            part = k if sum(node.zipped) > 1 else None
            inner.places[id(one)] = Fragment([], [], Slot(node, part))
        node.order.extend(self._after)
        made = yield self._item, inner
        inner.value, inner.heads, inner.closed = made.value, made.heads, made.closed
        return Fragment([node], [node], node)


def _assign(made: Map[Any], options: Mapping[str, Any], of_the_map: Collection[str]) -> None:
    """Set checked options on a map: its own, and the rest on its item."""
    own = {k: v for k, v in options.items() if k in of_the_map}
    rest = {k: v for k, v in options.items() if k not in (*of_the_map, "unpack")}
    made._options = {**made._options, **own}
    if options.get("unpack") is not None:
        made._unpack = options["unpack"]
    if rest:
        if not isinstance(made._item, Signature):
            raise GraphError(
                f"{made!r}: {', '.join(rest)} speak of a task; say it on the signatures inside"
            )
        made._item = made._item._with(options=rest)
    if "chunksize" in made._options:
        _check_chunks(made)
    if "tolerate" in made._options and "items" in made._options:
        raise GraphError(
            f"{made!r}: tolerate= keeps so many failures, so items= cannot be said too"
        )
    for word in ("items", "tolerate"):
        if "need" in made._options and word in made._options:
            raise GraphError(
                f"{made!r}: need= says how many have to succeed, and the others may fail; leave "
                f"{word}= out"
            )
    if hasattr(made._item, "_called"):  # the item is what is called, not a graph with it inside
        for word in ("failure_policy", "default"):
            if word in made._item._options:
                raise GraphError(
                    f"{made!r}: {word}= is not for items of a map; say items='keep' or tolerate= "
                    f"for them, or .map(...).options({word}=...) for the map as a whole"
                )


def _check_chunks(made: Map[Any]) -> None:
    """Refuse chunks of what is no task, or whose value would be no list."""
    if not isinstance(made._item, Signature):
        raise GraphError(
            f"{made!r}: chunksize= puts several calls of a task into one message, and "
            f"{made._item!r} is no task; say it on a map of the task inside, or leave it out"
        )
    fallback = made._item._options.get("fallback")
    if hasattr(type(fallback), "put"):
        raise GraphError(
            f"{made!r}: {fallback!r} would be called once for a chunk, whose value is a list; with "
            "chunksize= let fallback= be a task, which is called for each element"
        )


def map_of(
    what: TaskSpec | Composition[Any],
    lists: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    unpack: bool | None = None,
    piped: bool = False,
) -> Map[Any]:
    """Make a map.

    Parameters
    ----------
    what : TaskSpec or Composition
        Called, or made, once for each element. Elements go after the bound arguments, those of a
        chain to its first step.
    lists : tuple of iterables
        One, or several of one length, of which each call takes one element; a step whose value is
        a list, where it is known when the graph runs; none for the list that is piped in.
    kwargs : mapping
        The same for each item, but for lists that are marked by `each`.
    options : mapping
        Checked options of place ``map``: `name` and `trigger_rule` of the map, the rest of items.
    unpack : bool, optional
        Whether a tuple becomes several arguments; unless given, where the task has more than one
        free parameter.
    piped : bool
        Whether the list is one that will be piped in.

    Raises
    ------
    GraphError
        A list is a str, bytes or mapping; lists differ in length.
    """
    name = what._base() if isinstance(what, Composition) else what.name
    count = len(lists)
    given = {**getattr(what, "_kwargs", {}), **kwargs}
    named = [x for x in given.values() if type(x) is Each]
    if piped and named:
        raise GraphError(
            f"map of {name}: each(...) goes with lists that are named; write "
            "task.map(node, day=each(days)) with the step whose value is the list"
        )
    lists = (*lists, *(x._list for x in named))
    known = bool(lists) and not any(isinstance(x, Part) for x in lists)
    elements = _elements(name, lists) if known else []
    if count > 1:
        if unpack is not None or options.get("unpack") is not None:
            raise GraphError(f"map of {name}: unpack= and starmap are for one list of tuples")
        unpack = True
    item: Any = what if isinstance(what, Composition) else Signature(what)
    if kwargs:
        if not isinstance(item, Signature):
            raise GraphError(
                f"map of {item!r}: keyword arguments are for tasks; bind them in its steps"
            )
        item = item._with(kwargs=kwargs)
    # said on what is mapped, these speak of the map; but a map has its own, and what bounds a graph
    # bounds each item
    inner = {} if isinstance(item, Map) else item._options
    own = {name: inner[name] for name in _OF_THE_MAP if name in inner and name not in _BOUNDS}
    bare = item._without(own) if own else item
    made: Map[Any] = Map(
        bare,
        elements,
        unpack,
        own,
        None if known else lists,
        count if lists else 1,
        named,
    )
    _assign(made, options, _OF_THE_MAP)
    return made


def _elements(name: str, lists: tuple[Any, ...]) -> list[Any]:
    made = [list_of(name, x) for x in lists]
    if len(made) == 1:
        return made[0]
    lengths = [len(x) for x in made]
    if len(set(lengths)) > 1:
        raise GraphError(
            f"map of {name}: lists of different lengths, {', '.join(map(str, lengths))}"
        )
    return list(zip(*made, strict=True))
