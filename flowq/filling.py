# SPDX-License-Identifier: MIT
"""Arguments in the place of elements, references in the place of captures.

A plan that a message carries was lowered with the graph around it, when neither the list nor the
index of the node was known. It names the element of its map by `Elem`, and what it takes from
outside by `Cap`, a place among the captures of the message that carries it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from flowq.along import Awaited, spread
from flowq.binding import check_call
from flowq.chunks import calls
from flowq.errors import BindingError, Failure, GraphError
from flowq.message import (
    Binding,
    Cap,
    Const,
    Elem,
    Else,
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
from flowq.naming import BUILT_IN
from flowq.plan import Kind, Later, NodeRow, ranges_of
from flowq.serializer import Serializer
from flowq.wiring import Submitter, TaskSpec

__all__ = ["Filling", "plain"]

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


class Filling:
    """What one plan is filled with.

    Attributes
    ----------
    element : object
        The element that the item is made for; for a chunk, the list of those.
    place : int or None
        The place in the list of that element, or of the first of a chunk.
    """

    def __init__(self, carrier: Message, pool: Sequence[Any], submitter: Submitter) -> None:
        self._captures = carrier.captures
        self._pool = pool
        self._submitter = submitter
        self._serializer: Serializer = submitter.serializer
        self.element: Any = _NOTHING
        self.place: int | None = None

    def row(self, row: NodeRow, checked: bool) -> NodeRow:
        """Fill in one row, which is in its place already."""
        if row.value and row.kind != Kind.JOIN:  # of what waits it is a value, not a template
            value = self.template(decode_template(row.value), None, row.name)
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
                bindings.append(rest)
        captures = tuple([self.template(c, pool, row.name) for c in m.captures])
        if checked and m.task not in BUILT_IN:
            names = {**kwargs, **{b.to: 0 for b in bindings if type(b.to) is str}}
            if not any(b.spread for b in bindings):  # else checked when its values are there
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
        value = self.template(decode_template(group.value), None, "a fallback")
        return msgspec.structs.replace(group, value=encode_template(value))

    def _bind(
        self, binding: Binding, args: list[Any], kwargs: dict[str, Any], pool: list[Any], who: str
    ) -> Binding | None:
        """Give what is left of a binding; a value that is known goes among the arguments."""
        to, template = binding.to, binding.value
        value = self._known(template)
        spreading = isinstance(template, Elem) and template.spread
        if value is _NOTHING:
            forced = isinstance(template, Elem) and template.forced
            return Binding(to, self.template(template, pool, who), spreading, forced)
        if spreading:
            assert isinstance(to, int) and isinstance(template, Elem)
            args[to:] = self._spread(template)
            return None
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
        """The value of an element, or of a capture, if that is a value by now; else nothing."""
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
        found = self._found(template)
        return _NOTHING if type(found) is Awaited else _item(found, template.path)

    def _found(self, template: Elem) -> Any:
        return self.element if template.part is None else self.element[template.part]

    def _spread(self, template: Elem) -> Sequence[Any]:
        return spread(self._elem(template), template.forced, self.place)

    def template(self, template: Template, pool: list[Any] | None, who: str) -> Template:
        """Fill in a template; values that are known go to the pool of the message around it."""
        kind = type(template)
        if kind is Elem or kind is Cap:
            value = self._known(template)
            if value is _NOTHING:
                if isinstance(template, Elem):
                    return Ref(self._found(template).node, template.path)
                assert isinstance(template, Cap)
                captured = self._captures[template.place]
                return _deeper(captured, template.path)
            if plain(value):
                return Const(value)
            if pool is None and type(value) is Failure:
                return Const(None)  # of an item that is blocked by it
            if pool is None:
                raise GraphError(
                    f"the value of {who or 'the plan'} names a {type(value).__name__} that is "
                    "no step; let a task return it"
                )
            pool.append(value)
            return Lit(len(pool) - 1)
        if isinstance(template, Else):
            return Else(self.template(template.of, pool, who), template.instead, template.own)
        if isinstance(template, Seq):
            items = tuple([self.template(x, pool, who) for x in template.items])
            return Seq(items, template.tuple_)
        if isinstance(template, MappingTemplate):
            return MappingTemplate(
                tuple(
                    [
                        (self.template(k, pool, who), self.template(v, pool, who))
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
    if isinstance(value, Failure):
        return value  # it stands for all of it; what would be given it is blocked
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
