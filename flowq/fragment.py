# SPDX-License-Identifier: MIT
"""Plans that a message carries, filled in when its node runs: a map's item, a branch's arm.

Such a plan was lowered with the graph around it, when neither the list nor the index of the node
was known. It names the element of its map by `Elem`, and what it takes from outside by `Cap`, a
place among the captures of the message that carries it. Filling puts arguments in the place of
elements, and references in the place of captures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from fractions import Fraction
from math import floor
from typing import Any, Final

import msgspec

from flowq.binding import check_call
from flowq.chunks import calls, chunks_of
from flowq.errors import BindingError, GraphError, NoArm
from flowq.message import (
    NO_NODE,
    Binding,
    Cap,
    Const,
    Elem,
    Else,
    Items,
    Lit,
    Message,
    Ref,
    Seq,
    Template,
    decode_template,
    encode_template,
    nodes_of,
)
from flowq.message import Mapping as MappingTemplate
from flowq.plan import INNER, Kind, Later, NodeRow, Phase, When, decode_rows, ranges_of, relocate
from flowq.serializer import Serializer, short_repr
from flowq.states import Rule
from flowq.wiring import Submitter, TaskSpec

__all__ = [
    "BRANCH",
    "BUILT_IN",
    "MAP",
    "expand_map",
    "fill_plan",
    "key_of",
    "list_of",
    "plain",
    "prefix_of",
    "share_of",
    "take_arm",
]

MAP: Final = "flowq.map"
"""The task of a map whose list is not known when the graph is built; every worker knows it."""
BRANCH: Final = "flowq.branch"
"""The task of a branch; every worker knows it."""
BUILT_IN: Final = frozenset((MAP, BRANCH))
"""Tasks that no app registers and every worker knows."""
_ALONE: Final = Rule(0, 0, 0, 0, 0)
_WORD: Final = 1 << 63  # MessagePack's integers
_SHORT: Final = 100  # characters of a text that the envelope carries; the payload has a limit
_NOTHING: Final = object()


def plain(value: Any) -> bool:
    """Whether a value can stand in a template as it is."""
    kind = type(value)
    return (
        value is None
        or kind in (bool, float)
        or (kind is int and -_WORD <= value < _WORD)
        or (kind is str and len(value) <= _SHORT)
    )


def share_of(said: int | float, count: int) -> int:
    """Give so many, or so large a part of `count`, rounded down: 0.29 of 100 are 29."""
    return floor(Fraction(str(said)) * count) if isinstance(said, float) else said


def list_of(name: str, given: Any) -> list[Any]:
    """Give the elements that a map is over.

    Raises
    ------
    GraphError
        It is no list: one value, or nothing that can be gone through.
    """
    if isinstance(given, str | bytes | bytearray | Mapping):
        raise GraphError(
            f"map of {name}: a {type(given).__name__} is one value, not a list; give [value] "
            "(for the keys or items of a dict: list(value), list(value.items()))"
        )
    if not isinstance(given, Iterable):
        raise GraphError(f"map of {name}: a {type(given).__name__} is not a list")
    return list(given)


class _Filling:
    """What one plan is filled with."""

    def __init__(self, carrier: Message, pool: Sequence[Any], submitter: Submitter) -> None:
        self._captures = carrier.captures
        self._pool = pool
        self._submitter = submitter
        self._serializer: Serializer = submitter.serializer
        self.element: Any = _NOTHING
        self.place: int | None = None

    def row(self, row: NodeRow, checked: bool) -> NodeRow:
        """Fill in one row, which is in its place already."""
        if row.value:
            value = self._template(decode_template(row.value), None, row.name)
            row = msgspec.structs.replace(row, value=encode_template(value))
        if any(group.value for group in row.later):
            row = msgspec.structs.replace(row, later=tuple(map(self._group, row.later)))
        m = row.message
        if m is None or not _open(m):
            return row
        loaded = self._serializer.loads(m.payload)
        args, kwargs = list(loaded[0]), dict(loaded[1])
        pool = list(loaded[2]) if len(loaded) == 3 else []
        bindings = []
        for binding in m.bindings:
            if binding.to in m.chunk:
                self._bind_chunk(binding, args, kwargs)
                continue
            rest = self._bind(binding, args, kwargs, pool, row.name)
            if rest is not None:
                bindings.append(Binding(binding.to, rest))
        captures = tuple([self._template(c, pool, row.name) for c in m.captures])
        if checked and m.task not in BUILT_IN:
            names = {**kwargs, **{b.to: 0 for b in bindings if type(b.to) is str}}
            self._check(self._submitter.spec(m.task), args, names, m.chunk)
        payload = self._serializer.dumps(
            (tuple(args), kwargs, pool) if pool else (tuple(args), kwargs),
            f"arguments of node {row.name!r} (task {m.task})",
        )
        reads = ranges_of(n for b in bindings for n in nodes_of(b.value))
        message = msgspec.structs.replace(
            m, payload=payload, bindings=tuple(bindings), captures=captures
        )
        return msgspec.structs.replace(row, message=message, reads=reads)

    def _check(
        self,
        spec: TaskSpec,
        args: list[Any],
        names: dict[str, Any],
        chunk: tuple[int | str, ...],
    ) -> None:
        """Check that arguments fit the task, those of each element of a chunk."""
        if not chunk:
            check_call(spec, args, names)
            return
        at = first = self.place or 0
        try:
            for at, (one, _) in enumerate(calls(args, names, chunk), first):  # noqa: B007
                check_call(spec, one, names)
        except BindingError as err:
            raise BindingError(f"element {at}: {err}") from None

    def _group(self, group: Later) -> Later:
        """Fill in what runs later, whose nodes are rows of their own: the value that it gives."""
        if not group.value:
            return group
        value = self._template(decode_template(group.value), None, "a fallback")
        return msgspec.structs.replace(group, value=encode_template(value))

    def _bind(
        self, binding: Binding, args: list[Any], kwargs: dict[str, Any], pool: list[Any], who: str
    ) -> Template | None:
        """Give what is left of a binding; a value that is known goes among the arguments."""
        to, template = binding.to, binding.value
        if type(template) is Elem and template.spread:
            assert isinstance(to, int)
            args[to:] = self._spread(template)
            return None
        value = self._known(template)
        if value is _NOTHING:
            return self._template(template, pool, who)
        if isinstance(to, int):
            args[to] = value
        else:
            kwargs[to] = value
        return None

    def _bind_chunk(self, binding: Binding, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Put what one place takes of each element of a chunk among the arguments."""
        elements, first = self.element, self.place
        assert first is not None
        made = []
        for i, self.element in enumerate(elements, first):
            self.place = i
            template = binding.value
            if isinstance(template, Seq):
                made.append(tuple([self._known(x) for x in template.items]))
            elif type(template) is Elem and template.spread:
                made.append(tuple(self._spread(template)))
            else:
                made.append(self._known(template))
        self.element, self.place = elements, first
        if isinstance(binding.to, int):
            args[binding.to] = made
        else:
            kwargs[binding.to] = made

    def _known(self, template: Template) -> Any:
        """The value of an element, or of a capture that is a value; else nothing."""
        if type(template) is Elem:
            return self._elem(template)
        if type(template) is Cap:
            captured = self._captures[template.place]
            if type(captured) is Lit:
                return _item(self._pool[captured.index], template.path)
            if type(captured) is Const:
                return _item(captured.value, template.path)
        return _NOTHING

    def _elem(self, template: Elem) -> Any:
        found = self.element if template.part is None else self.element[template.part]
        return _item(found, template.path)

    def _spread(self, template: Elem) -> Sequence[Any]:
        element = self._elem(template)
        kind = type(element)
        if kind is tuple or (kind is list and template.forced):
            found: Sequence[Any] = element
            return found
        if template.forced:
            raise BindingError(
                f"item {self.place} is a {kind.__name__}, not a tuple; starmap takes tuples of "
                "arguments"
            )
        return (element,)

    def _template(self, template: Template, pool: list[Any] | None, who: str) -> Template:
        """Fill in a template; values that are known go to the pool of the message around it."""
        kind = type(template)
        if kind is Elem or kind is Cap:
            value = self._known(template)
            if value is _NOTHING:
                assert isinstance(template, Cap)
                captured = self._captures[template.place]
                return _deeper(captured, template.path)
            if plain(value):
                return Const(value)
            if pool is None:
                raise GraphError(
                    f"the value of {who or 'the plan'} names a {type(value).__name__} that is "
                    "no step; let a task return it"
                )
            pool.append(value)
            return Lit(len(pool) - 1)
        if isinstance(template, Else):
            return Else(self._template(template.of, pool, who), template.instead, template.own)
        if isinstance(template, Seq):
            items = tuple([self._template(x, pool, who) for x in template.items])
            return Seq(items, template.tuple_)
        if isinstance(template, MappingTemplate):
            return MappingTemplate(
                tuple(
                    [
                        (self._template(k, pool, who), self._template(v, pool, who))
                        for k, v in template.items
                    ]
                )
            )
        return template


def _deeper(template: Template, path: tuple[int | str, ...]) -> Template:
    """Take an item of what a template gives, which is the value of one node."""
    if not path:
        return template
    if isinstance(template, Else):
        return Else(_deeper(template.of, path), template.instead, template.own)
    assert isinstance(template, Ref)
    return Ref(template.node, (*template.path, *path))


def _item(value: Any, path: tuple[int | str, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _open(message: Message) -> bool:
    """Whether something of a message is to be filled in."""
    return bool(message.captures) or any(_has_open(b.value) for b in message.bindings)


def _has_open(template: Template) -> bool:
    if isinstance(template, Elem | Cap):
        return True
    if isinstance(template, Else):
        return _has_open(template.of)
    if isinstance(template, Seq):
        return any(_has_open(x) for x in template.items)
    if isinstance(template, MappingTemplate):
        return any(_has_open(k) or _has_open(v) for k, v in template.items)
    return False


def fill_plan(
    carrier: Message, plan: bytes, pool: Sequence[Any], submitter: Submitter
) -> list[NodeRow]:
    """Fill in a plan that its carrier becomes as a whole: an arm.

    Parameters
    ----------
    carrier : Message
        Gives the names a prefix and the captures.
    plan : bytes
        One of `carrier.plans`.
    pool : sequence
        The pool of the carrier's payload.
    submitter : Submitter
    """
    filling = _Filling(carrier, pool, submitter)
    rows = relocate(decode_rows(plan), at=INNER, base=INNER + 1, prefix=prefix_of(carrier))
    rows[0] = msgspec.structs.replace(rows[0], name="")
    return [filling.row(row, False) for row in rows]


def key_of(value: Any) -> tuple[Any, bool]:
    """Give a value as keys of arms are compared, and whether it can be one.

    Members of an Enum are their values, and subclasses of str and int (but bool) are what they
    derive from; so are the scalars of numpy and pandas, which tell that by ``dtype``.
    """
    if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0:
        value = value.item()
    while isinstance(value, Enum):
        value = value.value
    kind = type(value)
    if value is None or kind in (str, int, bool):
        return value, True
    if isinstance(value, str):
        return str.__str__(value), True
    if isinstance(value, int):
        return int.__int__(value), True
    return value, False


def take_arm(
    carrier: Message,
    value: Any,
    arms: Sequence[Sequence[Any]],
    pool: Sequence[Any],
    submitter: Submitter,
) -> tuple[list[NodeRow], Any]:
    """Give what a branch becomes: the rows of the arm taken, or none and its value.

    Parameters
    ----------
    carrier : Message
        Of the branch; its plans are those of arms.
    value : object
        Of the condition.
    arms : sequence
        For each arm: its key, whether it is the default, the place of its plan or None, and its
        value where it has no plan.
    pool : sequence
        The pool of the carrier's payload.
    submitter : Submitter

    Raises
    ------
    NoArm
        None is for the value, and there is no default.
    GraphError
        The value of the arm names something that cannot travel beside steps.
    """
    found, known = key_of(value)
    taken = None
    for arm in arms:
        key, default, *_ = arm
        if default or (known and type(key) is type(found) and key == found):
            taken = arm
            break
    if taken is None:
        there = ", ".join(repr(key) for key, *_ in arms)
        raise NoArm(f"no arm for {short_repr(value)}; there are {there}")
    _, _, plan, given = taken
    if plan is None:
        return [], given
    raw = carrier.plans[plan]
    (face, *rest) = decode_rows(raw)
    if not rest:
        named: list[Any] = []
        filling = _Filling(carrier, pool, submitter)
        template = filling._template(decode_template(face.value), named, carrier.name)
        if not any(True for _ in nodes_of(template)):
            return [], _known_value(template, named)
    return fill_plan(carrier, raw, pool, submitter), None


def _known_value(template: Template, pool: Sequence[Any]) -> Any:
    """Put together a value that names no nodes."""
    if isinstance(template, Lit):
        return pool[template.index]
    if isinstance(template, Const):
        return template.value
    if isinstance(template, Seq):
        made = [_known_value(x, pool) for x in template.items]
        return tuple(made) if template.tuple_ else made
    assert isinstance(template, MappingTemplate)
    return {_known_value(k, pool): _known_value(x, pool) for k, x in template.items}


def prefix_of(message: Message) -> str:
    """What the names of nodes inside begin with; a task alone is its run, and gives none."""
    return f"{message.name}/" if message.name else ""


def expand_map(
    carrier: Message,
    lists: Sequence[Any],
    pool: Sequence[Any],
    submitter: Submitter,
    max_width: int,
    tolerate: int | float = 0,
    need: int = 0,
    max_parallel: int = 0,
    deadline: float = 0,
    chunksize: int = 0,
) -> list[NodeRow]:
    """Make the items of a map whose list is known by now.

    Parameters
    ----------
    carrier : Message
        Of the map; its first plan is that of one item, row 0 being the item itself.
    lists : sequence
        What it is over: one list, or several that are zipped.
    pool : sequence
        The pool of the carrier's payload.
    submitter : Submitter
    max_width : int
        How many items it may have.
    tolerate : int or float
        How many of them, or how large a part, may fail.
    need : int
        If not 0, so many successes are enough, and fewer a failure.
    max_parallel : int
        If not 0, so many of them may be under way at a time.
    deadline : float
        If not 0, seconds from now within which they have to end.
    chunksize : int
        How many elements go into one item; 0 if each is an item of its own.

    Returns
    -------
    list of NodeRow
        A fragment: the items next to each other, what is inside them behind.

    Raises
    ------
    GraphError
        Something is no list; lengths differ; there are more items than `max_width`.
    BindingError
        An element does not fit the task.
    PayloadError
        An element cannot travel.
    """
    name = carrier.name or "map"
    given = [list_of(name, x) for x in lists]
    lengths = {len(x) for x in given}
    if len(lengths) > 1:
        raise GraphError(
            f"map of {name}: lists of different lengths, {', '.join(str(len(x)) for x in given)}"
        )
    elements = given[0] if len(given) == 1 else list(zip(*given, strict=True))
    items: Sequence[Any] = chunks_of(elements, chunksize) if chunksize else elements
    count = len(items)
    if count > max_width:
        raise GraphError(
            f"map of {name}: {count:,} items are more than max_width={max_width:,}; say "
            ".options(max_width=...), or chunksize= for several elements in each"
        )
    item, *inside = decode_rows(carrier.plans[0])
    out: list[NodeRow] = []
    behind: list[NodeRow] = []
    rung: list[int] = []
    filling = _Filling(carrier, pool, submitter)
    for i, element in enumerate(items):
        place = i * (chunksize or 1)
        filling.element, filling.place = element, place
        path = f"{name}[{i}]"
        base = INNER + 1 + count + len(behind)
        try:
            head, *rest = relocate((item, *inside), at=INNER + 1 + i, base=base, prefix=path)
            row = msgspec.structs.replace(filling.row(head, True), owner=INNER)
            out.append(_indexed(row, place))
            for k, row in enumerate(rest, base):
                own = row.owner == INNER + 1 + i
                if row.owner == NO_NODE:  # an alarm about the item
                    row, own = msgspec.structs.replace(row, owner=INNER), True
                    rung.append(k)
                row = filling.row(row, True)
                behind.append(_indexed(row, place) if own else row)
        except BindingError as err:
            raise BindingError(f"{path}: {err}") from None
    value: Template = Seq(())
    if count:
        total = len(elements) if chunksize else 0
        value = Items(INNER + 1, count, True, chunksize, total, bool(need))
    face = _face(count, value, rung)
    bounds = {
        "tolerate": share_of(tolerate, count),
        "need": need,
        "most": max_parallel,
        "deadline_ms": round(deadline * 1000),
    }
    return [msgspec.structs.replace(face, **bounds), *out, *behind]


def _face(count: int, value: Template, rung: Sequence[int]) -> NodeRow:
    """Make the row of a map whose items are known by now."""
    items = ((INNER + 1, count),) if count else ()
    alarms = ranges_of(rung)
    return NodeRow(
        "",
        Kind.EXPANSION,
        NO_NODE,
        _ALONE,
        entries=items,
        inner=count,
        value=encode_template(value),
        body=(*items, *alarms),
        later=(Later(Phase.HANDLERS, When.ALWAYS, (), alarms, len(rung)),) if rung else (),
    )


def _indexed(row: NodeRow, i: int) -> NodeRow:
    """Say which element of its map a task stands for."""
    if row.message is None:
        return row
    return msgspec.structs.replace(row, message=msgspec.structs.replace(row.message, index=i))
