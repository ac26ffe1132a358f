# SPDX-License-Identifier: MIT
"""From a call to a message: what its options and its task's say, as the numbers that travel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from flowq.binding import check_call
from flowq.errors import BindingError, GraphError, NodeUsedAsValue, PayloadError
from flowq.message import Message, Value, new_id
from flowq.once import arguments_digest, called_with, kept_ms, key_id
from flowq.policy import OPTIONS, RetryPolicy
from flowq.serializer import Serializer, short_repr
from flowq.states import trigger_rule
from flowq.wiring import TaskSpec

__all__ = ["Settings", "build_message", "own_priority", "pack", "pack_value"]

_TRAVELS: Final = (*RetryPolicy.__struct_fields__, "cache")
"""Options of a call that a worker must know; it knows those of the task's declaration."""
_encode = msgspec.msgpack.Encoder().encode
_RUN_KEEPS_MS: Final = round(OPTIONS["result_ttl"].default * 1000)


class Settings:
    """The fields of a message that options decide, in the order of `Message` from ``queue`` on."""

    __slots__ = ("cache", "fields", "policy", "prefetch")

    def __init__(
        self, spec: TaskSpec, options: Mapping[str, Any], priority: int, read: bool = False
    ) -> None:
        declared = spec.options

        def of(name: str) -> Any:
            value = options.get(name, declared.get(name))
            return OPTIONS[name].default if value is None else value

        # a delay on the call replaces an eta of the declaration, and the other way round
        delay, eta = of("delay"), of("eta")
        if "delay" in options:
            eta = None
        elif "eta" in options:
            delay = 0
        expires = of("expires")
        at = isinstance(expires, int)
        self.fields = (
            of("queue"),
            priority,
            round(delay * 1000),
            eta or 0,
            0 if at else round((expires or 0) * 1000),
            expires if at else 0,
            # "keep no value" cannot mean that those who read it get none
            round(of("result_ttl") * 1000) or (_RUN_KEEPS_MS if read else 0),
            round(of("failed_ttl") * 1000),
            of("max_losses"),
        )
        self.policy = {
            k: options[k] for k in _TRAVELS if k in options and options[k] != declared.get(k)
        }
        if version := declared.get("version"):  # a worker may have another by then
            self.policy["version"] = version
        self.prefetch: int = of("prefetch")
        self.cache: float = of("cache")


def own_priority(spec: TaskSpec, options: Mapping[str, Any]) -> int | None:
    """The priority that is set for a call, or for its task; None if neither is."""
    found: int | None = options.get("priority", spec.options.get("priority"))
    return found


def build_message(
    spec: TaskSpec,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    id: bytes | None = None,
) -> Message:
    """Make the message of a task that is called alone.

    Parameters
    ----------
    spec : TaskSpec
    args, kwargs
        Plain arguments.
    options : mapping
        Checked options of the call.
    id : bytes, optional
        16 bytes; a new one unless given.

    Raises
    ------
    BindingError
        The arguments do not fit the task.
    GraphError
        A trigger rule asks for parents.
    PayloadError, PayloadTooLarge
        The arguments cannot travel.
    """
    check_call(spec, args, kwargs)
    settings = _settings_alone(spec, options)
    try:
        payload = pack(spec.submitter.serializer, (args, kwargs), f"arguments of {spec.name}")
    except NodeUsedAsValue:
        name = spec.name.rpartition(".")[2]
        raise BindingError(
            f"{spec.name} was called with a step as argument, whose value is not known yet; "
            f"compose: {name}.s(...).start()"
        ) from None
    if settings.cache:  # else a worker would find that it cannot be
        arguments_digest(spec, args, kwargs, spec.submitter.serializer)
    fields, called = settings.fields, b""
    if "key" in options or "key_ttl" in options:
        *head, kept, failed_kept, losses = fields
        fields = (*head, *kept_ms(options, (kept, failed_kept)), losses)
        id = key_id(spec.submitter.name, "task", spec.name, options["key"])
        called = called_with(spec, args, kwargs, spec.submitter.serializer)
    return Message(
        id or new_id(),
        spec.name,
        payload,
        *fields,
        "",
        (),
        settings.policy,
        None,
        settings.prefetch,
        called=called,
    )


def pack(serializer: Serializer, value: Any, what: str) -> bytes:
    """Give the bytes of arguments.

    Raises
    ------
    BindingError, NodeUsedAsValue
        Among them is a handle, or a step, whose value is not known yet.
    PayloadError, PayloadTooLarge
        They cannot travel.
    """
    try:
        return serializer.dumps(value, what)
    except PayloadError as err:
        if isinstance(err.__cause__, NodeUsedAsValue):
            raise NodeUsedAsValue(f"{what}: {err.__cause__}") from None
        if isinstance(err.__cause__, BindingError):
            raise BindingError(f"{what}: {err.__cause__}") from None
        raise


def pack_value(serializer: Serializer, value: Any, what: str) -> bytes:
    """Give the body of the cell of a success that no body gave: what is sent, or a default.

    Raises
    ------
    BindingError, NodeUsedAsValue, PayloadError, PayloadTooLarge
        As `pack`.
    """
    return _encode(Value(pack(serializer, value, what), short_repr(value)))


_declared: WeakKeyDictionary[TaskSpec, Settings] = WeakKeyDictionary()


def _settings_alone(spec: TaskSpec, options: Mapping[str, Any]) -> Settings:
    """The settings of a call alone; those without options are made once for each task."""
    if not options:
        found = _declared.get(spec)
        if found is None:
            found = _declared[spec] = Settings(spec, options, own_priority(spec, options) or 0)
        return found
    if "trigger_rule" in options:
        try:
            trigger_rule(options["trigger_rule"], 0)
        except ValueError as err:
            raise GraphError(f"task {spec.name}: {err}") from None
    return Settings(spec, options, own_priority(spec, options) or 0)
