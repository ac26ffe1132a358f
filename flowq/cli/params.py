# SPDX-License-Identifier: MIT
"""Words of a command line as arguments of a flow: each is read as its annotation says."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import msgspec

from flowq.cli.output import CliError
from flowq.policy import nearest

if TYPE_CHECKING:
    from flowq.flow import Flow
    from flowq.wiring import TaskSpec

__all__ = ["read", "read_parameters", "said_parameters", "said_type"]

EXAMPLES = {
    "int": "3",
    "float": "0.5",
    "bool": "true or false",
    "date": "2026-11-23",
    "datetime": "2026-11-23T02:00:00",
    "time": "02:00:00",
    "timedelta": "PT1H",
    "list": "'[1, 2]', as JSON",
    "tuple": "'[1, 2]', as JSON",
    "set": "'[1, 2]', as JSON",
    "dict": "'{\"a\": 1}', as JSON",
}


def read_parameters(flow: Flow[..., Any] | TaskSpec, words: Sequence[str]) -> dict[str, Any]:
    """Give the arguments of a flow or task that ``-p name=value`` says.

    Raises
    ------
    CliError
        A word is no ``name=value``, names no parameter, or is no value of its type.
    """
    found: dict[str, Any] = {}
    known = flow.parameters.parameters
    name = flow.name
    kinds = {p.kind for p in known.values()}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.isidentifier():
            raise CliError(f"-p {word}: write -p name=value")
        parameter = known.get(key)
        if parameter is None or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                hint = nearest(key, known) or f"; it is {name}{flow.parameters}"
                raise CliError(f"{name} has no parameter {key!r}{hint}")
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise CliError(f"parameter {key!r} of {name} has no keyword; -p cannot say it")
        if key in found:
            raise CliError(f"-p {key} is said twice")
        kind = flow.hints.get(key, Any)
        try:
            found[key] = read(text, kind)
        except ValueError as err:
            example = EXAMPLES.get(said_type(kind).partition("[")[0])
            hint = f"; write -p {key}={example}" if example else ""
            raise CliError(
                f"-p {key}={text}: parameter {key!r} of {name} takes {said_type(kind)}: {err}{hint}"
            ) from None
    return found


def read(text: str, kind: Any) -> Any:
    """Read one word as a value of a type.

    Raises
    ------
    ValueError
        It is none.

    Examples
    --------
    >>> from datetime import date
    >>> read("3", int), read("2026-11-23", date), read("[1, 2]", list[int])
    (3, datetime.date(2026, 11, 23), [1, 2])
    """
    if kind in (Any, str, inspect.Parameter.empty, object):
        return text
    if kind is None or kind is type(None):
        if text.lower() in ("none", "null", ""):
            return None
        raise ValueError("it is not None")
    origin = get_origin(kind)
    if origin is Literal:
        for choice in get_args(kind):
            if text == str(choice):
                return choice
        raise ValueError(f"it is none of {', '.join(map(repr, get_args(kind)))}")
    if origin in (Union, types.UnionType):
        return _one_of(text, get_args(kind))
    if isinstance(kind, type) and origin is None:
        if issubclass(kind, Enum):
            return _member(text, kind)
        if issubclass(kind, PurePath):
            return kind(text)
    return _converted(text, kind, origin)


def _converted(text: str, kind: Any, origin: Any) -> Any:
    plain = origin is None and isinstance(kind, type) and kind not in (list, tuple, set, dict)
    try:
        if plain:
            return msgspec.convert(text.strip(), type=kind, strict=False, dec_hook=_hook)
    except msgspec.ValidationError:
        if kind in (int, float, bool) or kind.__module__ == "datetime":
            raise ValueError(f"{text!r} is no such value") from None
    except (TypeError, NotImplementedError):
        raise ValueError("the command line cannot make one") from None
    try:
        given = json.loads(text)
    except ValueError as err:
        raise ValueError(f"{text!r} is no JSON ({err})") from None
    try:
        return msgspec.convert(given, type=kind, dec_hook=_hook)
    except msgspec.ValidationError as err:
        raise ValueError(str(err)) from None
    except (TypeError, NotImplementedError):
        raise ValueError("the command line cannot make one") from None


def _one_of(text: str, kinds: Sequence[Any]) -> Any:
    """Read it as the first of several types that it is a value of; as text last."""
    ordered = sorted(kinds, key=lambda k: (k is str, k is not type(None)))
    errors = []
    for kind in ordered:
        try:
            return read(text, kind)
        except ValueError as err:  # noqa: PERF203 - a handful at most
            if kind is not type(None):
                errors.append(f"{said_type(kind)}: {err}")
    raise ValueError("; ".join(errors))


def _member(text: str, kind: type[Enum]) -> Enum:
    if text in kind.__members__:
        return kind[text]
    for member in kind:
        if str(member.value) == text:
            return member
    raise ValueError(f"it is none of {', '.join(kind.__members__)}")


def _hook(kind: type, value: Any) -> Any:
    """Make what msgspec does not know."""
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise NotImplementedError


def said_type(kind: Any) -> str:
    """Write a type as one would in code."""
    if kind is Any or kind is inspect.Parameter.empty:
        return "anything"
    if get_origin(kind) is None and isinstance(kind, type):
        return kind.__name__
    return str(kind).replace("typing.", "").replace("datetime.", "")


def said_parameters(flow: Flow[..., Any]) -> Mapping[str, str]:
    """Give the parameters of a flow, each with its type and default, in words."""
    out = {}
    for name, parameter in flow.parameters.parameters.items():
        text = said_type(flow.hints.get(name, inspect.Parameter.empty))
        if parameter.default is not inspect.Parameter.empty:
            text += f" = {parameter.default!r}"
        out[name] = text
    return out
