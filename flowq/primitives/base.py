# SPDX-License-Identifier: MIT
"""What every composition can do: pipe, order, options, start, be looked at."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as MappingOf
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NoReturn, TypeVar, cast, overload

import msgspec

from flowq.building import TRACE
from flowq.errors import GraphError, NodeUsedAsValue
from flowq.graph import Graph
from flowq.habits import habit
from flowq.lower import lower
from flowq.node import Body, Node, Take
from flowq.once import (
    KEYED,
    OF_STARTS,
    Called,
    called_with,
    check_keyable,
    digest_of,
    kept_ms,
    key_id,
    renamed,
)
from flowq.plan import Plan, Ranges
from flowq.policy import Place, check_options, nearest
from flowq.primitives.build import Builder, Fragment, Part
from flowq.text import notebook
from flowq.wiring import FitsAnywhere, Gives, Submitter

if TYPE_CHECKING:
    import networkx
    from typing_extensions import Self

    from flowq.handle import ValueHandle
    from flowq.primitives.chain import Chain
    from flowq.primitives.map import Map
    from flowq.run import Run

__all__ = [
    "Composition",
    "Item",
    "NoAttribute",
    "Reference",
    "Single",
    "Unknown",
    "as_part",
    "group_of",
    "mentions",
    "users_code",
]

R = TypeVar("R", covariant=True)
S = TypeVar("S")

TTLS: Final[tuple[str, ...]] = ("result_ttl", "failed_ttl")
OF_HANDLES: Final = frozenset(
    "get wait ready state cancel start id why progress result retry rerun watch events".split()
)
"""Words of what starting gives; a node of a graph that is built has none of them."""


class NoAttribute(NodeUsedAsValue, AttributeError):
    """A step has no such attribute; its value may have."""


class Unknown(Part, FitsAnywhere):
    """Something whose value is known only when the graph runs; using it as a value is an error."""

    __slots__ = ()

    def _refuse(self, what: str, instead: str = "do this in a task") -> NoReturn:
        raise NodeUsedAsValue(
            f"{what} of {self!r}{users_code()}: its value is not known while the graph is built; "
            f"{instead}"
        )

    def __bool__(self) -> NoReturn:
        self._refuse("the truth", "decide in a task")

    def __iter__(self) -> NoReturn:
        # needed: node[0] is legal, so Python would ask for node[0], node[1], ... for ever
        self._refuse("iteration", "use map, or do this in a task")

    def __len__(self) -> NoReturn:
        self._refuse("the length")

    def __contains__(self, item: object) -> NoReturn:
        self._refuse("a search")

    def __format__(self, spec: str) -> NoReturn:
        self._refuse("the text", "do this in a task, or write repr(...) to look at the step")

    def __fspath__(self) -> NoReturn:
        self._refuse("the path")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        self._refuse(
            "a copy",
            "as arguments of a signature, steps are found in lists, tuples and dicts only",
        )

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if other is None or isinstance(other, Part):
            return False
        self._refuse("a comparison")

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = object.__hash__

    def _arithmetic(self, *_: Any) -> NoReturn:
        self._refuse("arithmetic")

    __lt__ = __le__ = __gt__ = __ge__ = _arithmetic
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _arithmetic
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _arithmetic
    __mod__ = __rmod__ = __pow__ = __rpow__ = __divmod__ = __rdivmod__ = _arithmetic
    __matmul__ = __rmatmul__ = __and__ = __rand__ = __xor__ = __rxor__ = _arithmetic
    __neg__ = __pos__ = __abs__ = __invert__ = __round__ = __trunc__ = _arithmetic
    __int__ = __float__ = __complex__ = __index__ = __floor__ = __ceil__ = _arithmetic

    def __lshift__(self, other: Any) -> NoReturn:
        raise NodeUsedAsValue(f"{self!r} << ...{users_code()}: write it as other >> this")

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        self._refuse("a change", "a task returns the changed value")

    __delitem__ = _arithmetic

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # what copy, inspect and others ask for
            raise AttributeError(name)
        kind = "node" if isinstance(self, Reference) else type(self).__name__.lower()
        known = [n for n in dir(type(self)) if not n.startswith("_")]
        said = habit(name, f"a {kind}")
        if kind == "node" and name in OF_HANDLES:
            said = (
                f"a node has no {name!r}: while the graph is built nothing has run; that goes to "
                "what starting the whole gives"
            )
        raise NoAttribute(
            (
                said
                or f"a {kind} has no {name!r}{nearest(name, known)}; if its value has: that is "
                "not known while the graph is built, so do this in a task"
            )
            + users_code()
        )


def users_code() -> str:
    """File and line of the user's code that got us here."""
    frame = sys._getframe(1)
    here = os.path.dirname(os.path.dirname(__file__)) + os.sep
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame = frame.f_back
    return f" ({frame.f_code.co_filename}, line {frame.f_lineno})"


class Joinable(Unknown):
    """What ``|`` and ``>>`` take on either side."""

    __slots__ = ()

    @overload
    def __or__(self, other: Composition[S]) -> Chain[S]: ...
    @overload
    def __or__(self, other: Any) -> Chain[Any]: ...
    def __or__(self, other: Any) -> Chain[Any]:
        return _linked(self, "|", other)

    def __ror__(self, other: Any) -> Chain[Any]:
        return _linked(other, "|", self)

    def __rshift__(self, other: Any) -> Any:
        return _linked(self, ">>", other)

    def __rrshift__(self, other: Any) -> Any:
        return _linked(other, ">>", self)

    def __getitem__(self, key: Any) -> Item:
        return Item(self, key)


def _linked(left: Any, link: Literal["|", ">>"], right: Any) -> Chain[Any]:
    from flowq.primitives.chain import Chain

    return Chain(((link, as_part(left)), (link, as_part(right))))


def as_part(value: Any) -> Part:
    """Give what may stand beside ``|`` and ``>>``: lists and tuples stand for groups.

    Raises
    ------
    GraphError
        It is something else; the text says what to write.
    """
    if isinstance(value, Part):
        return value
    if isinstance(value, list | tuple):
        return group_of(value)
    if callable(getattr(value, "s", None)):
        name = getattr(value, "name", "task").rpartition(".")[2]
        raise GraphError(f"{name} is a task; in a composition write {name}.s(...)")
    raise GraphError(
        f"{_short(value)} cannot stand in a composition; write signatures (task.s(...)), chains, "
        "groups, maps, DAGs, or lists of them"
    )


def mentions(others: Iterable[Any]) -> Iterator[Part]:
    """Go through what is referred to, in lists and tuples too."""
    for x in others:
        if isinstance(x, list | tuple):
            yield from mentions(x)
        else:
            yield as_part(x)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def group_of(members: Iterable[Any]) -> Part:
    """Make a group of what is given."""
    from flowq.primitives.group import Group

    return Group(tuple(as_part(m) for m in members))


class Reference(Joinable):
    """A mention of something that has its place elsewhere."""

    __slots__ = ()

    def __str__(self) -> str:
        self._refuse("the text", "do this in a task, or write repr(...) to look at the step")

    def __rshift__(self, other: Any) -> Any:
        from flowq.primitives.dag import DagNode

        if isinstance(other, DagNode):
            return NotImplemented  # it adds an edge
        if isinstance(other, list | tuple) and other and all(isinstance(x, DagNode) for x in other):
            for node in other:
                self >> node
            return other
        return super().__rshift__(other)

    def put(self, build: Builder, body: Body) -> Fragment:
        """As a member it gives the value of what it refers to, and adds nothing."""
        return Fragment(
            [], [self], self, f"{self!r} is a value that another step makes; it takes no input"
        )


class Item(Reference):
    """One item of a value: ``node["train"]``, ``node[0]``."""

    __slots__ = ("_of", "_path")

    _of: Part
    _path: tuple[int | str, ...]

    def __init__(self, of: Part, key: Any) -> None:
        if not isinstance(key, int | str) or isinstance(key, bool):
            raise NodeUsedAsValue(
                f"{of!r}[{key!r}]: an edge takes one item, by a str or int; slice in a task"
            )
        path: tuple[int | str, ...] = (key,)
        whole = of
        if isinstance(of, Item):
            whole, path = of._of, (*of._path, key)
        self._of = whole
        self._path = path

    def __repr__(self) -> str:
        return repr(self._of) + "".join(f"[{key!r}]" for key in self._path)

    def refer(self, build: Builder, body: Body) -> Fragment:
        """The item of what the value is."""
        found = self._of.refer(build, body)
        value: Any = found.value
        if isinstance(value, Part):
            inner = value.refer(build, body)
            value = inner.value
        path = list(self._path)
        while path and type(value) in (list, dict, tuple):  # of a group: known now
            try:
                value = value[path[0]]
            except (LookupError, TypeError):
                raise GraphError(f"{self!r}: there is no item {path[0]!r}") from None
            del path[0]
        if path:
            if type(value) is Take:
                value = Take(value.node, (*value.path, *path))
            else:
                value = Take(value, tuple(path))
        return Fragment([], found.tails, value)


class Composition(Gives[R], Joinable, Generic[R]):
    """A graph that is built and not started: a signature, chain, group, map or DAG.

    ``a | b`` pipes the value of `a` into the first free parameter of `b`, ``a >> b`` is order
    alone; lists and tuples stand for groups. Given as an argument of a signature it is an edge.
    Except for a `DAG`, a composition never changes; `options` and `after` give changed copies.
    """

    __slots__ = ("_after", "_options")

    _place: Place = "flow"
    _single = False  # whether it is one node wherever it stands

    _after: tuple[Part, ...]
    _options: dict[str, Any]

    def __init__(self) -> None:
        self._after = ()
        self._options = {}
        self._made()

    def _made(self) -> None:
        trace = TRACE.get()
        if trace is not None:
            trace.made(self)

    # --- changed copies --------------------------------------------------------------------------

    def _copy(self) -> Self:
        cls = type(self)
        made = cls.__new__(cls)
        for kind in cls.__mro__:
            for slot in getattr(kind, "__slots__", ()):
                if slot != "__weakref__":
                    setattr(made, slot, getattr(self, slot))
        trace = TRACE.get()
        if trace is not None:
            trace.copied(self)
            trace.made(made)
        return made

    def options(self, **options: Any) -> Self:
        """Give a copy with options of flowq's set; see ``docs/reference/options.md``.

        Raises
        ------
        GraphError
            An option is unknown, out of bounds, or goes elsewhere; the text says where.
        """
        made = self._copy()
        made._options = {**self._options, **check_options(options, self._place, self._who())}
        return made

    def on_error(self, *alarms: Any) -> Self:
        """Give a copy with signatures that run at once when it has failed, given the `Failure`.

        They are nodes, run by any living worker; what they come to changes nothing.
        """
        return self.options(on_error=alarms[0] if len(alarms) == 1 else alarms)

    def on_success(self, *handlers: Any) -> Self:
        """Give a copy with signatures that run after a success, given the value."""
        return self.options(on_success=handlers[0] if len(handlers) == 1 else handlers)

    def on_failure(self, *handlers: Any) -> Self:
        """Give a copy with signatures that run after a failure, given the `Failure`."""
        return self.options(on_failure=handlers[0] if len(handlers) == 1 else handlers)

    def finally_(self, *handlers: Any) -> Self:
        """Give a copy with signatures that run after all the rest, whatever came of it."""
        return self.options(finally_=handlers[0] if len(handlers) == 1 else handlers)

    def _without(self, names: Iterable[str]) -> Self:
        made = self._copy()
        made._options = {k: v for k, v in self._options.items() if k not in names}
        return made

    def after(self, *others: Any) -> Self:
        """Give a copy that begins only when `others` have ended, without taking their values.

        They are references: what is mentioned here runs once, wherever it stands. A list means
        all that is in it.
        """
        made = self._copy()
        made._after = (*self._after, *mentions(others))
        return made

    def _who(self) -> str:
        return repr(self)

    # --- maps ------------------------------------------------------------------------------------

    def map(self, /, *lists: Any, **kwargs: Any) -> Map[Any]:
        """Make it once for each element of a list; see `flowq.primitives.map.map_of`."""
        from flowq.primitives.map import map_of

        return map_of(self, lists, kwargs, {})

    def starmap(self, rows: Any, /, **kwargs: Any) -> Map[Any]:
        """Make it once for each tuple of arguments."""
        from flowq.primitives.map import map_of

        return map_of(self, (rows,), kwargs, {}, unpack=True)

    def each(self, /, **kwargs: Any) -> Map[Any]:
        """Make it once for each element of the list that is piped in: ``a.s() | b.s().each()``."""
        from flowq.primitives.map import map_of

        return map_of(self, (), kwargs, {}, piped=True)

    # --- the graph -------------------------------------------------------------------------------

    def _base(self) -> str:
        """What automatic names, of the run too, are made of."""
        return "run"

    def _bare(self) -> Part:
        """Itself without options, which are then the run's."""
        if not self._options:
            return self
        made = self._copy()
        made._options = {}
        return made

    def _graph(self) -> Graph:
        return Builder().build(self._bare(), self._base(), self._options)

    @property
    def graph(self) -> networkx.DiGraph[str]:
        """The graph as a networkx ``DiGraph``: names, with tasks, rules and options.

        Raises
        ------
        GraphError
            It cannot run; the text names the node and the parameter.
        """
        return self._graph().view()

    def mermaid(self) -> str:
        """Draw the graph as Mermaid text."""
        from flowq.primitives.mermaid import draw

        return draw(self._graph())

    def svg(self) -> str:
        """Draw the graph as SVG: arrows with parameters, boxes around what is nested."""
        from flowq.primitives.mermaid import drawing_of
        from flowq.svg import svg

        return svg(drawing_of(self._graph()))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What notebooks show: the picture, or the text of what cannot be drawn yet."""
        try:
            return notebook(repr(self), self.mermaid(), self.svg())
        except GraphError:
            return {"text/plain": repr(self)}

    def start(self, app: Submitter | None = None) -> ValueHandle[R]:
        """Enqueue the graph; gives its ``Run``.

        Parameters
        ----------
        app : FlowQ, optional
            Needed only where there is no task that would tell it: ``group([]).start(q)``.

        Raises
        ------
        GraphError
            It cannot run; nothing was enqueued.
        StoreUnavailable
            It is not known whether it was enqueued.
        """
        return cast("ValueHandle[R]", self._start(app))

    def test(
        self,
        values: MappingOf[str, Any] | None = None,
        fail: MappingOf[str, Any] | None = None,
        *,
        app: Submitter | None = None,
    ) -> Run[R]:
        """Run it here and now, to its end, without a worker: in memory, and no delay is waited for.

        Parameters
        ----------
        values : mapping of str to object, optional
            By the path of a node what it gives, without its body being run. A function is called
            with the node's arguments. The name of a map speaks of each of its items, that of a
            ``wait_for`` of what is sent to it.
        fail : mapping of str to object, optional
            By the path of a node what it raises, in each attempt; or a list, of which each attempt
            takes one: an exception, a value, or None to run the body.
        app : FlowQ, optional
            As for `start`.

        Returns
        -------
        Run
            Which has ended; for a map or group, a ``ResultGroup``. Nothing of it is in the app's
            own store.

        Raises
        ------
        GraphError
            It cannot run, or not end; or a path names no node: the text lists those that there
            are.
        """
        trace = TRACE.get()
        if trace is not None:
            trace.refuse(f"{self!r}.test()")
        submitter, plan, members = self._planned(app)
        rehearse = import_module("flowq.testing.kit").rehearse  # the outermost layer
        return cast("Run[R]", rehearse(submitter, plan, members, values or {}, fail or {}))

    def _start(self, app: Submitter | None = None) -> Any:
        trace = TRACE.get()
        if trace is not None:
            trace.refuse(f"{self!r}.start()")
        submitter, plan, members = self._planned(app)
        detached = self._options.get("detached", False)
        return submitter.start_plan(plan, members=members, detached=detached)

    def _planned(self, app: Submitter | None) -> tuple[Submitter, Plan, Ranges | None]:
        """What starting submits, and where; with the members, if it is a group or map."""
        key = {k: self._options[k] for k in KEYED if k in self._options}
        graph = (
            self if self._options.keys().isdisjoint(OF_STARTS) else self._bare_of_starts()
        )._graph()
        submitter = graph.submitter(app)
        plan = lower(graph, submitter)
        if any(_is_cached(node) for body in graph.bodies() for node in body.nodes):
            check_keyable(plan.rows, submitter)
        if key:
            plan = self._under_key(plan, self._scope(graph.name), submitter, key)
        return submitter, plan, _members_of(graph)

    def _bare_of_starts(self) -> Composition[R]:
        """Itself without what speaks of a start, which no node has."""
        return self._without(OF_STARTS)

    def _scope(self, name: str) -> str:
        """What keys of its runs are told apart by, beside them; `name` is that of the run."""
        return name

    def _under_key(
        self, plan: Plan, name: str, submitter: Submitter, key: MappingOf[str, Any]
    ) -> Plan:
        """Give a plan the id that its key says; its root keeps what it was called with.

        Of a flow that is its arguments, for what is built of them may change from one deploy to the
        next; of all else, what the graph does.
        """
        said = {k: self._options[k] for k in TTLS if k in self._options}
        kept, failed = kept_ms({**said, **key}, (plan.result_ttl_ms, plan.failed_ttl_ms))
        who, args, kwargs = self._run_of()
        if who is None:
            called = digest_of(plan.rows, submitter.serializer)
            called += self._shown()[:300].encode("utf-8", "replace")
        else:
            name, called = who.name, called_with(who, args, kwargs, submitter.serializer)
        plan = renamed(plan, key_id(submitter.name, "run", name, key["key"]), called)
        return msgspec.structs.replace(plan, result_ttl_ms=kept, failed_ttl_ms=failed)

    def _shown(self) -> str:
        """A text of it, with what it was made of."""
        return repr(self)

    def _run_of(self) -> tuple[Called | None, tuple[Any, ...], MappingOf[str, Any]]:
        """The flow of which it is a run, and its arguments; None for any other graph."""
        return None, (), {}

    if not TYPE_CHECKING:  # for checkers it cannot be called, which is right

        def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
            """Refuse: in other libraries it would run, here or there."""
            raise NodeUsedAsValue(
                f"{self!r} is not called; .start() enqueues it and gives its handle"
            )


def _is_cached(node: Node) -> bool:
    declared = node.spec.options.get("cache") if node.spec is not None else 0
    return bool(node.options.get("cache", declared))


def _members_of(graph: Graph) -> Ranges | None:
    """The members of what a group or map starts."""
    if graph.items_of is not None:
        first = graph.items_of.index + 1
        count = len(graph.items_of.items or ())
        return ((first, count),) if count else ()
    if graph.members is not None:
        return _in_order(n.index for n in graph.members)
    return None


class Single(Composition[R]):
    """One node wherever it stands: its options are the node's, and its name is the run's too."""

    __slots__ = ()

    _single = True

    def start(self, app: Submitter | None = None) -> Run[R]:
        """Enqueue it; gives its ``Run``. See `Composition.start`."""
        return cast("Run[R]", self._start(app))

    def _bare(self) -> Self:
        return self

    def _graph(self) -> Graph:
        run = {"name": self._options["name"]} if "name" in self._options else {}
        return Builder().build(self, self._base(), run)


def _in_order(indexes: Iterable[int]) -> Ranges:
    """Pack indexes into ranges, in the order given."""
    out: list[tuple[int, int]] = []
    for i in indexes:
        if out and sum(out[-1]) == i:
            out[-1] = (out[-1][0], out[-1][1] + 1)
        else:
            out.append((i, 1))
    return tuple(out)
