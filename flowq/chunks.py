# SPDX-License-Identifier: MIT
"""Several elements of a map in one message: a chunk, which is one node.

The arguments of a chunk are those of its task, but that some places hold one value for each
element: `Message.chunk` names them. A position holds a tuple for each, of as many arguments as
that element fills; a keyword holds a value for each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from flowq.errors import Skip

__all__ = ["calls", "chunks_of", "run_chunk"]

T = TypeVar("T")


def chunks_of(elements: Sequence[T], size: int) -> list[Sequence[T]]:
    """Part a list into chunks, of which the last may be smaller.

    Examples
    --------
    >>> chunks_of([1, 2, 3, 4, 5], 2)
    [[1, 2], [3, 4], [5]]
    """
    return [elements[at : at + size] for at in range(0, len(elements), size)]


def calls(
    args: Sequence[Any], kwargs: Mapping[str, Any], places: Sequence[int | str]
) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Go through the calls of which a chunk is made; without places, it is the one call.

    Examples
    --------
    >>> list(calls([[(1,), (2,)], "x"], {"day": [3, 4]}, (0, "day")))
    [([1, 'x'], {'day': 3}), ([2, 'x'], {'day': 4})]
    """
    if not places:
        yield list(args), dict(kwargs)
        return
    at = next((p for p in places if isinstance(p, int)), None)
    names = [p for p in places if isinstance(p, str)]
    rows = kwargs[names[0]] if at is None else args[at]
    for k, row in enumerate(rows):
        given = list(args)
        if at is not None:
            given[at : at + 1] = row
        yield given, {**kwargs, **{name: kwargs[name][k] for name in names}}


def run_chunk(
    func: Callable[..., Any],
    is_async: bool,
    given: Iterator[tuple[list[Any], dict[str, Any]]],
    begin: Callable[[int], None],
) -> list[Any]:
    """Call a function for one element after the other, and give the list of what it returned.

    Parameters
    ----------
    func : callable
    is_async : bool
        Whether it is an ``async def``; all of the chunk then runs in one loop.
    given : iterator
        See `calls`.
    begin : callable
        Called with the place in the chunk before each element.

    Raises
    ------
    Skip
        Each element was skipped. One that is skipped beside others leaves the list, as it would
        leave that of a map without chunks.
    """
    if is_async:
        import asyncio

        return asyncio.run(_run_async(func, given, begin))
    made, skipped = [], None
    for k, (args, kwargs) in enumerate(given):
        begin(k)
        try:
            made.append(func(*args, **kwargs))
        except Skip as err:
            skipped = err
    if skipped is not None and not made:
        raise skipped
    return made


async def _run_async(
    func: Callable[..., Awaitable[Any]],
    given: Iterator[tuple[list[Any], dict[str, Any]]],
    begin: Callable[[int], None],
) -> list[Any]:
    made, skipped = [], None
    for k, (args, kwargs) in enumerate(given):
        begin(k)
        try:
            made.append(await func(*args, **kwargs))
        except Skip as err:
            skipped = err
    if skipped is not None and not made:
        raise skipped
    return made
