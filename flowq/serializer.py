# SPDX-License-Identifier: MIT
"""How arguments and results become bytes.

A payload begins with one byte that names its codec, so that stores and tools know what they hold
without opening it.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import reprlib
from typing import Any, Final, Protocol

from flowq.errors import ConfigError, DecodeError, PayloadError, PayloadTooLarge
from flowq.message import MAX_PAYLOAD

__all__ = ["PickleSerializer", "Serializer", "check_size", "open_serializer", "short_repr"]


class Serializer(Protocol):
    """Turns Python values into bytes and back."""

    codec: bytes
    """One byte."""

    def dumps(self, value: Any, what: str) -> bytes:
        """Give the bytes of a value, codec byte first; `what` names it in errors.

        Raises
        ------
        PayloadError
            It cannot be serialised.
        PayloadTooLarge
            It is over the limit.
        """
        ...

    def digest(self, value: Any, what: str) -> bytes:
        """Give 16 bytes that equal values have in common, in all processes, and no others.

        Raises
        ------
        PayloadError
            It cannot be keyed: there are no such bytes of it.
        """
        ...

    def loads(self, raw: bytes) -> Any:
        """Give the value back.

        Raises
        ------
        DecodeError
            The bytes are of another codec, or broken.
        """
        ...


_ATOMS: Final = frozenset(
    {int, str, float, bool, bytes, type(None), complex, bytearray, range, slice}
)
_SETS: Final = (set, frozenset)
_CONTAINERS: Final = frozenset({tuple, list, dict, *_SETS})
_BUILTIN_DEPTH: Final = 16


def _is_plain(value: Any, depth: int = _BUILTIN_DEPTH, budget: int = 2_000) -> bool:
    """Whether pickle and cloudpickle would surely agree on a value.

    Pickle refers to functions and classes by name, and what stands in ``__main__`` has no name in
    a worker; cloudpickle sends such things whole. Exact built-in types hold neither.
    """
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind not in _CONTAINERS:
        return False
    if not value:
        return True
    if depth == 0 or len(value) > budget:
        return False
    for x in value:
        if type(x) not in _ATOMS and not _is_plain(x, depth - 1, budget):
            return False
    if kind is dict:
        for x in value.values():
            if type(x) not in _ATOMS and not _is_plain(x, depth - 1, budget):
                return False
    return True


class PickleSerializer:
    """Pickle where every value is of a built-in type, else cloudpickle; both load alike."""

    codec = b"P"

    def dumps(self, value: Any, what: str) -> bytes:
        """Give the bytes of a value; see `Serializer.dumps`."""
        try:
            if _is_plain(value):
                raw = pickle.dumps(value, 5)
            else:
                import cloudpickle

                raw = cloudpickle.dumps(value, 5)
        except Exception as err:  # a value's own __reduce__ may raise anything
            raise PayloadError(
                f"{what} cannot be pickled: {type(err).__name__}: {err}; "
                "pass plain data, or a path or key under which the task finds it"
            ) from err
        check_size(len(raw) + 1, what)
        return self.codec + raw

    def digest(self, value: Any, what: str) -> bytes:
        """Give 16 bytes that equal values have in common; see `Serializer.digest`.

        A value is keyed by what plain pickle says of it: functions and classes by their names, sets
        whatever their order, dicts in theirs. What plain pickle cannot say (lambdas, functions and
        classes that are defined within others, a value that holds itself) cannot be keyed.
        """
        try:
            return _keyed(value)
        except Exception as err:  # a value's own __reduce__ may raise anything
            raise PayloadError(
                f"{what} cannot be keyed: {type(err).__name__}: {err}; pass plain data, or "
                "leave out key= and cache="
            ) from err

    def loads(self, raw: bytes) -> Any:
        """Give the value back; see `Serializer.loads`."""
        if raw[:1] != self.codec:
            raise DecodeError(
                f"a payload with codec byte {raw[:1]!r} is not pickle's {self.codec!r}"
            )
        try:
            return pickle.loads(raw[1:])
        except Exception as err:  # unpickling runs the value's own code
            raise DecodeError(
                f"a payload cannot be unpickled: {type(err).__name__}: {err}"
            ) from err


class _Keying(pickle.Pickler):
    """Writes what depends on a value alone: not on what is the same object, nor on hashes.

    Nothing is written twice by reference (``fast``), and sets go by the digests of their items.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, 5)
        self.fast = True

    def persistent_id(self, obj: Any) -> Any:
        """Give what stands for a set; all else is pickled."""
        kind = type(obj)
        if kind in _ATOMS or not issubclass(kind, _SETS):
            return None
        if kind not in _SETS:
            raise pickle.PicklingError(f"a set of a kind of its own, {kind.__qualname__}")
        return kind.__name__, sorted(map(_keyed, obj))


def _keyed(value: Any) -> bytes:
    file = io.BytesIO()
    _Keying(file).dump(value)
    return hashlib.blake2b(file.getbuffer(), digest_size=16).digest()


def check_size(size: int, what: str) -> None:
    """Refuse what is over the limit.

    Raises
    ------
    PayloadTooLarge
        `size` bytes are more than `MAX_PAYLOAD`.
    """
    if size > MAX_PAYLOAD:
        raise PayloadTooLarge(
            f"{what}: {size:,} bytes are over the limit of {MAX_PAYLOAD:,}; "
            "store the data elsewhere and pass its path or key"
        )


def open_serializer(name: str) -> Serializer:
    """Give the serializer of a name.

    Raises
    ------
    ConfigError
        There is none of that name yet.
    """
    if name != "pickle":
        raise ConfigError(f"serializer={name!r} is not supported yet; use 'pickle'")
    return PickleSerializer()


class _Short(reprlib.Repr):
    """As in the standard library, and without the text of all of a long ``bytes``."""

    def repr_bytes(self, x: bytes | bytearray, level: int) -> str:
        """Show both ends."""
        if len(x) <= self.maxother:
            return self.repr_instance(x, level)
        half = self.maxother // 2
        return self.repr_instance(x[:half] + x[-half:], level)

    repr_bytearray = repr_bytes


_repr = _Short()
_repr.maxstring = _repr.maxother = 160
_repr.maxlong = 60


def short_repr(value: Any, limit: int = 200) -> str:
    """Give a short text of a value for people; never raises."""
    kind = type(value)
    if kind is int and -(10**15) < value < 10**15:
        return int.__repr__(value)
    if value is None or kind is bool:
        return str(value)
    try:
        return _repr.repr(value)[:limit]
    except Exception as err:
        return f"<{kind.__name__} whose repr raised {type(err).__name__}>"
