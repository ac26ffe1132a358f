# SPDX-License-Identifier: MIT
"""Whether a value of one annotation can be given where another is written.

Annotations are promises in a language that checks none of them, so `fit` has three answers, and
says ``NEVER`` only where no loaded class could make it right. What cannot be resolved, or means
whatever it means at run time (``Any``, ``object``, type variables, protocols), fits everywhere.
"""

from __future__ import annotations

import types
from abc import ABCMeta
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Iterable,
    Iterator,
    Mapping,
)
from enum import IntEnum
from functools import lru_cache
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

__all__ = ["Fit", "element_of", "fit", "hint_text", "hints_of", "item_of"]


class Fit(IntEnum):
    """What can be said of two annotations."""

    NEVER = 0
    """No value of the one is one of the other."""
    DOUBTFUL = 1
    """Some values are and others are not; or nobody can tell."""
    FITS = 2
    """Every value is, as far as annotations tell."""


_NUMBERS: Final = {int: (float, complex), float: (complex,)}
"""Which number may stand for which, though it is no subclass (PEP 484)."""
_BYTES: Final = (bytes, bytearray, memoryview)
_FAR: Final = 10_000
"""So many subclasses are looked at for one of both; beyond that there may be one."""
_Unknown: Final = Any


def fit(given: Any, wanted: Any) -> Fit:
    """Say whether values annotated `given` can go where `wanted` is written.

    Containers are judged by their classes; what is inside them makes it doubtful at most, since
    they may be empty.

    Examples
    --------
    >>> fit(bool, float), fit(str, int), fit(list[int], list[str])
    (<Fit.FITS: 2>, <Fit.NEVER: 0>, <Fit.DOUBTFUL: 1>)
    """
    try:
        return _fit(given, wanted)
    except TypeError:  # not hashable, as a Literal of a list
        return Fit.FITS


@lru_cache(maxsize=4096)
def _fit(given: Any, wanted: Any) -> Fit:
    ours, theirs = _members(given), _members(wanted)
    found = {max((_fit_one(g, w) for w in theirs), default=Fit.FITS) for g in ours}
    if len(found) == 1:
        return found.pop()
    return Fit.DOUBTFUL if found else Fit.FITS


def _members(hint: Any) -> list[Any]:
    """What a value may be, one of these: a union's members, the classes of a Literal's values."""
    out: list[Any] = []
    todo = [hint]
    while todo:
        x = _bare(todo.pop())
        origin = get_origin(x)
        if origin is Union or origin is types.UnionType:
            todo.extend(reversed(get_args(x)))
        else:
            out.append(x)
    return out


def _either(hints: Iterable[Any]) -> Any:
    return Union[tuple(hints)]  # noqa: UP007  # of a number that is not known here


def _bare(hint: Any) -> Any:
    """An annotation without what does not change its values."""
    for _ in range(20):  # an alias may name itself
        if hint is None:
            return type(None)
        kind = type(hint).__name__
        if get_origin(hint) is Annotated:
            hint = hint.__origin__
        elif kind == "NewType":
            hint = hint.__supertype__
        elif kind == "TypeAliasType":
            try:
                hint = hint.__value__
            except Exception:  # it is evaluated here, and may name what is not imported
                return _Unknown
        else:
            return hint
    return _Unknown


def _fit_one(given: Any, wanted: Any) -> Fit:
    if given == wanted:
        return Fit.FITS
    if get_origin(given) is Literal and get_origin(wanted) is Literal:
        here, there = _values(given), _values(wanted)
        return Fit.FITS if here <= there else Fit.DOUBTFUL if here & there else Fit.NEVER
    if get_origin(given) is Literal:
        return _fit(_either(type(v) for v in get_args(given)), wanted)
    ours = _class(given)
    if get_origin(wanted) is Literal and ours is not None:
        return min(Fit.DOUBTFUL, _fit(wanted, given))
    theirs = _class(wanted)
    if ours is None or theirs is None or issubclass(ours, Awaitable | AsyncIterable):
        return Fit.FITS
    found = _fit_classes(ours, theirs)
    if found is Fit.NEVER:
        return found
    return min(found, _fit_inside(ours, get_args(given), theirs, get_args(wanted)))


def _values(literal: Any) -> set[tuple[type, Any]]:
    return {(type(v), v) for v in get_args(literal)}


def _class(hint: Any) -> type | None:
    """The class of an annotation, if it is one that can be judged."""
    kind = get_origin(hint) or hint
    if is_typeddict(kind):
        return dict
    if not isinstance(kind, type) or kind is object or Any in kind.__mro__:
        return None
    if getattr(kind, "_is_protocol", False) or kind.__module__.partition(".")[0] == "flowq":
        return None
    checks = type(kind).__subclasscheck__
    if checks not in (type.__subclasscheck__, ABCMeta.__subclasscheck__):
        return None  # it has its own idea of what a subclass is
    return kind


def _fit_classes(given: type, wanted: type) -> Fit:
    """Compare two classes: a subclass fits, a base may, and others if something is both."""
    try:
        if issubclass(given, wanted) or any(
            issubclass(given, small) and wanted in larger for small, larger in _NUMBERS.items()
        ):
            return Fit.FITS
        if issubclass(given, _BYTES) and issubclass(wanted, _BYTES):
            return Fit.FITS if wanted is bytes else Fit.DOUBTFUL
        if issubclass(wanted, given) or (_is_number(given) and _is_number(wanted)):
            return Fit.DOUBTFUL
        builtin = "builtins" in (given.__module__, wanted.__module__)
        if ABCMeta in (type(given), type(wanted)) and not builtin:
            return Fit.DOUBTFUL  # whatever behaves so may be meant
        return Fit.DOUBTFUL if _something_is_both(given, wanted) else Fit.NEVER
    except Exception:  # __subclasshook__ is anybody's code
        return Fit.FITS


def _is_number(kind: type) -> bool:
    from numbers import Number

    return issubclass(kind, Number)


def _something_is_both(one: type, other: type) -> bool:
    """Whether a class that is loaded is a subclass of both."""
    if type(one) is ABCMeta:  # what is registered with it is not among its subclasses
        one, other = other, one
    todo: list[type] = type.__subclasses__(one)
    seen = {one}
    while todo:
        kind = todo.pop()
        if kind in seen:
            continue
        seen.add(kind)
        if issubclass(kind, other) or len(seen) > _FAR:
            return True
        todo.extend(type.__subclasses__(kind))
    return False


# --- what is inside ------------------------------------------------------------------------------


def _fit_inside(given: type, ours: tuple[Any, ...], wanted: type, theirs: tuple[Any, ...]) -> Fit:
    """Compare what containers hold, if both say; doubtful at the worst."""
    if not ours or not theirs:
        return Fit.FITS
    fixed = Ellipsis not in (*ours, *theirs)
    if given is tuple and wanted is tuple and fixed:
        if len(ours) != len(theirs):
            return Fit.DOUBTFUL
        pairs = list(zip(ours, theirs, strict=True))
    elif given is wanted and not _is_container(given):
        # of a class of the user's own, or a Callable: it is not known how a parameter is used
        return Fit.FITS
    else:
        held, asked = _held(given, ours), _held(wanted, theirs)
        pairs = list(zip(held, asked, strict=False))
    return max(Fit.DOUBTFUL, min((fit(a, b) for a, b in pairs), default=Fit.FITS))


def _is_container(kind: type) -> bool:
    """Whether the parameters of a class are what its iteration gives, and a mapping's values."""
    home = kind.__module__.partition(".")[0]
    return home in ("builtins", "collections", "typing") and issubclass(kind, Iterable)


def _held(kind: type, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What iterating over a container gives, and for a mapping its values behind."""
    if not _is_container(kind):
        return ()
    if kind is tuple:
        return (_either(a for a in args if a is not Ellipsis),)
    if issubclass(kind, Mapping):
        return args if len(args) == 2 else ()
    return args[:1]


def _parts(hint: Any, kind: type) -> Iterator[tuple[type, tuple[Any, ...]] | None]:
    """Of an annotation, the classes to which a container of `kind` may belong; None: unknown."""
    for member in _members(hint):
        found = _class(member)
        if found is None:
            yield None
        elif fit(kind, found):
            yield found, get_args(member)


def element_of(hint: Any, kind: type, place: int = -1) -> Any:
    """Give the annotation of what a container of `kind` holds, where `hint` is written.

    Parameters
    ----------
    hint : object
    kind : type
        ``list``, ``tuple`` or ``dict``; of a dict it is that of the values.
    place : int
        For a tuple of fixed length: which of its members.
    """
    found: list[Any] = []
    for part in _parts(hint, kind):
        held: tuple[Any, ...] = ()
        if part is not None:
            of, args = part
            if of is tuple and Ellipsis not in args:
                held = args[place : place + 1] if 0 <= place < len(args) else ()
            else:
                held = _held(of, args)
                if kind is dict:
                    held = held[1:]
        if not held:
            return _Unknown
        found.append(held[0])
    return _either(found) if found else _Unknown


def item_of(hint: Any, key: int | str) -> Any:
    """Give the annotation of ``value[key]``, if it is a plain one that is surely known."""
    (only, *more) = _members(hint)
    kind = _class(only)
    if more or kind is None:
        return _Unknown
    if is_typeddict(only):
        found = hints_of(only).get(str(key), _Unknown)
    elif issubclass(kind, Mapping):
        found = element_of(only, dict)
    elif isinstance(key, int) and issubclass(kind, list | tuple):
        found = element_of(only, kind, key)
    else:
        return _Unknown
    # a dict of several things says of none of them what it is
    return found if len(_members(found)) == 1 and _class(found) is not None else _Unknown


# --- reading them --------------------------------------------------------------------------------


def hints_of(func: Any) -> dict[str, Any]:
    """Give a function's annotations by parameter, and ``return``; those that can be resolved.

    What a decorator has wrapped has the annotations of the function inside, which need not be
    right any more, so it has none here.
    """
    if hasattr(func, "__wrapped__"):
        return {}
    if not isinstance(func, type | types.FunctionType | types.MethodType):
        kind: Any = type(func)
        func = kind.__call__
    found = _resolved(func)
    try:
        raw = {} if found else dict(getattr(func, "__annotations__", {}))
    except Exception:  # later Pythons evaluate them here
        return {}
    scope = getattr(func, "__globals__", {})
    for name, hint in raw.items():
        found.update(_resolved(types.SimpleNamespace(__annotations__={name: hint}), scope))
    return found


def _resolved(holder: Any, scope: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        return get_type_hints(holder, scope)
    except Exception:  # evaluating them runs what users wrote; names may be for checkers only
        return {}


def hint_text(hint: Any) -> str:
    """Write an annotation as people do."""
    if hint is type(None):
        return "None"
    if isinstance(hint, type) and not get_args(hint):
        return hint.__qualname__
    return repr(hint).replace("typing.", "").replace("NoneType", "None")
