# SPDX-License-Identifier: MIT
"""Plans that a message carries become rows when its node runs: a map's items, a branch's arm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from fractions import Fraction
from math import floor
from typing import Any, Final

import msgspec

from flowq.along import alongs, awaited_in
from flowq.chunks import chunks_of
from flowq.errors import BindingError, Failure, GraphError, NoArm
from flowq.filling import Filling
from flowq.message import (
    NO_NODE,
    Const,
    Items,
    Lit,
    Message,
    Seq,
    Template,
    decode_template,
    encode_template,
    nodes_of,
)
from flowq.message import Mapping as MappingTemplate
from flowq.naming import BRANCH, BUILT_IN, MAP
from flowq.plan import INNER, Kind, Later, NodeRow, Phase, When, decode_rows, ranges_of, relocate
from flowq.serializer import short_repr
from flowq.states import Rule, trigger_rule
from flowq.wiring import Submitter

__all__ = [
    "BRANCH",
    "BUILT_IN",
    "MAP",
    "blocking",
    "expand_map",
    "fill_plan",
    "key_of",
    "list_of",
    "prefix_of",
    "share_of",
    "take_arm",
]

_ALONE: Final = Rule(0, 0, 0, 0, 0)
_encode = msgspec.msgpack.Encoder().encode


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
    filling = Filling(carrier, pool, submitter)
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
        raise NoArm(f"no arm for {short_repr(value)}; its arms are {there}")
    _, _, plan, given = taken
    if plan is None:
        return [], given
    raw = carrier.plans[plan]
    (face, *rest) = decode_rows(raw)
    if not rest:
        named: list[Any] = []
        filling = Filling(carrier, pool, submitter)
        template = filling.template(decode_template(face.value), named, carrier.name)
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


def blocking(element: Any, several: bool) -> bytes:
    """Give what blocks the item of an element that is a `Failure`; empty for any other.

    Parameters
    ----------
    element : object
    several : bool
        Whether it holds elements of several lists, or those of a chunk.
    """
    for one in element if several else (element,):
        if isinstance(one, Failure):
            return _encode(msgspec.structs.replace(one, args=(), kwargs={}))
    return b""


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
        What it is over: one list, or several that are zipped; of a map that it follows, its
        items.
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
    filling = Filling(carrier, pool, submitter)
    for i, element in enumerate(items):
        place = i * (chunksize or 1)
        filling.element, filling.place = element, place
        path = f"{name}[{i}]"
        base = INNER + 1 + count + len(behind)
        try:
            head, *rest = relocate((item, *inside), at=INNER + 1 + i, base=base, prefix=path)
            blocked = blocking(element, len(given) > 1 or bool(chunksize))
            filled = filling.row(head, not blocked)
            row = msgspec.structs.replace(filled, owner=INNER, blocked=blocked)
            if above := set(awaited_in(element, len(given) > 1)):
                rule = trigger_rule("all_success", len(above))
                row = msgspec.structs.replace(row, parents=ranges_of(above), rule=rule)
            out.append(_indexed(row, place))
            for k, row in enumerate(rest, base):
                own = row.owner == INNER + 1 + i
                if row.owner == NO_NODE:  # an alarm about the item
                    row, own = msgspec.structs.replace(row, owner=INNER), True
                    rung.append(k)
                row = filling.row(row, not blocked)
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
        "along": alongs(lists, count),
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
