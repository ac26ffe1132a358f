# SPDX-License-Identifier: MIT
"""What all handles share: an id, a store to ask, and waiting that never polls."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    NoReturn,
    TextIO,
    TypeVar,
    overload,
)

from flowq.current import CURRENT
from flowq.errors import BindingError, BlockingInTask, ResultMissing, ResultTimeout
from flowq.habits import habit, helpful
from flowq.looking import Home, lacking, shown_state
from flowq.message import id_text
from flowq.policy import nearest
from flowq.states import State
from flowq.storage.base import Look
from flowq.values import raise_for
from flowq.wiring import Event, FitsAnywhere, Gives, Started

__all__ = [
    "PAGE_OF_IDS",
    "Handle",
    "ValueHandle",
    "composes",
    "refuse_handles",
]

T = TypeVar("T")
log = logging.getLogger("flowq.result")

PAGE_OF_IDS: Final = 1_000
"""How many ids a store is asked about at a time."""
WARN_AFTER: Final = 3.0
"""Seconds after which who waits is told that nobody works."""
LONGEST_WAIT: Final = 60.0
"""Seconds of one wait; a wake-up that was lost costs no more than this."""
BETWEEN_LOOKS: Final = 0.5
"""Seconds between two looks at what is shown while it is waited for."""


class Handle(FitsAnywhere, Started):
    """One task, node or run, seen from outside."""

    _kind: ClassVar[str] = "handle"

    def __init__(self, app: Home, id: bytes) -> None:
        self._app = app
        self._id = id
        self._told = False

    @property
    def id(self) -> str:
        """Its id, by which ``q.result(id)`` and ``q.run(id)`` open it from any process."""
        return id_text(self._id)

    @property
    def state(self) -> str:
        """Where it stands: ``"queued"``, ``"running"``, ``"success"`` ...

        Raises
        ------
        ResultMissing
            The store does not know it.
        """
        return shown_state(self._look(cells=False).state)

    @property
    def ready(self) -> bool:
        """Whether it has ended, however.

        Raises
        ------
        ResultMissing
            The store does not know it.
        """
        return self._look(cells=False).state.final

    @helpful
    def wait(self, timeout: float | None = None, *, allow_in_task: bool = False) -> bool:
        """Wait for its very end, whatever that is.

        Parameters
        ----------
        timeout : float, optional
            Seconds; without end unless given.
        allow_in_task : bool
            Let the body of a task wait, though that can stop all workers of a pool for ever.

        Returns
        -------
        bool
            Whether it has ended.

        Raises
        ------
        ResultMissing
            The store does not know it.
        """
        self._may_block(allow_in_task)
        return self._until(lambda: self._ended((self._id,)), timeout)

    @helpful
    def watch(self, timeout: float | None = None, *, allow_in_task: bool = False) -> bool:
        """Show it on stdout until its very end: where each node stands, and how far the whole is.

        A tree in place on a terminal (with the extra ``cli``), elsewhere a line for each node that
        moves. Many items of a map are one line with counts.

        Parameters
        ----------
        timeout : float, optional
            Seconds; without end unless given.
        allow_in_task : bool
            Let the body of a task wait, though that can stop all workers of a pool for ever.

        Returns
        -------
        bool
            Whether it has ended.

        Raises
        ------
        ResultMissing
            The store does not know it.
        """
        self._may_block(allow_in_task)
        with self._showing(sys.stdout, nodes=True) as show:
            return self._until(lambda: self._ended((self._id,)), timeout, show)

    @helpful
    def events(
        self,
        after: Event | None = None,
        *,
        timeout: float | None = None,
        allow_in_task: bool = False,
    ) -> Iterator[Event]:
        """Go through what happens to it and to what is inside it, as it happens, till its end.

        What has happened by now comes first, so one who comes late, even after the end, gets it
        all. Each beginning and each end comes once; what is found together comes in the order of
        time. Nothing polls: who waits is woken by ends.

        Parameters
        ----------
        after : Event, optional
            Go on behind this one, from this process or another.
        timeout : float, optional
            Seconds until it has to have ended; without end unless given.
        allow_in_task : bool
            Let the body of a task wait, though that can stop all workers of a pool for ever.

        Raises
        ------
        ResultTimeout
            `timeout` is over.
        ResultMissing
            The store does not know it.

        Notes
        -----
        A beginning wakes nobody: it is told with the next end, or by looks whose distance doubles
        from a quarter of a second to a minute. Of a body that ran several times those beginnings
        are told that were seen; of what has ended, the last one. Workers settle in batches, so an
        end may come some milliseconds after another one that was later: who goes on with `after`
        elsewhere, and must miss none, gives an event from a second before, and drops what it has.
        """
        self._may_block(allow_in_task)
        self._look(cells=False)
        end = None if timeout is None else time.monotonic() + timeout
        return self._events(None if after is None else after.order, end, timeout)

    def _events(
        self, after: tuple[int, int, int, int] | None, end: float | None, timeout: float | None
    ) -> Iterator[Event]:
        from flowq.events import events

        def late() -> float | None:
            return None if end is None else end - time.monotonic()

        for event in events(self._app.store, self._id, after=after, late=late):
            if event is None:
                assert timeout is not None
                raise self._timed_out(timeout)
            yield event

    # --- for those below -------------------------------------------------------------------------

    def _look(self, *, cells: bool = True) -> Look:
        found = self._app.store.look((self._id,), cells=cells)[0]
        return found if found is not None else self._missing()

    def _missing(self, id: bytes | None = None) -> NoReturn:
        raise ResultMissing(
            f"the store {self._app.store.url} (app {self._app.name!r}) does not know "
            f"{id_text(id or self._id)}: it was never enqueued there (an open q.batch() enqueues "
            "at its end), or it has expired (result_ttl)"
        )

    def _ended(self, ids: Sequence[bytes]) -> tuple[bytes, ...]:
        """Of some ids, at most a page, give those that have not ended."""
        looks = self._app.store.look(ids, cells=False)
        left = []
        for id, look in zip(ids, looks, strict=True):
            if look is None:
                self._missing(id)
            if not look.state.final:
                left.append(id)
        return tuple(left)

    def _may_block(self, allowed: bool) -> None:
        body = CURRENT.get()
        if body is not None and not allowed:
            raise BlockingInTask(
                f"{body.name} waits for {self!r} in its body: when all workers wait so, none is "
                "left to run what they wait for. Compose instead (a.s() | b.s(), or a signature "
                "as argument); or say allow_in_task=True if other workers serve that queue"
            )

    @contextmanager
    def _showing(
        self, stream: TextIO, *, nodes: bool, wanted: bool = True
    ) -> Iterator[Callable[[], None] | None]:
        """Give what shows it once more whenever it is called; None if that is not wanted."""
        if not wanted:
            yield None
            return
        from flowq.watching import Sight, view_for

        store = self._app.store
        view, sight = view_for(store, stream, nodes=nodes), Sight(store, self._id)

        def show() -> None:
            seen = sight.see()
            if seen is not None:
                view.show(seen)

        try:
            yield show
        finally:
            view.close()

    def _until(
        self,
        left: Callable[[], Sequence[bytes]],
        timeout: float | None,
        show: Callable[[], None] | None = None,
    ) -> bool:
        """Wait until `left` gives no more ids to wait for.

        It is called again whenever one of the ids that it gave may have ended; `show` in short
        intervals, and at the end.
        """
        start = time.monotonic()  # a caller's patience is real, also where a test holds the clock
        end = None if timeout is None else start + timeout
        warn_at = start + WARN_AFTER
        while ids := left():
            began = time.monotonic()
            if show is not None:
                show()
            now = time.monotonic()
            if end is not None and now >= end:
                return False
            # what takes long to read is read less often
            looks = max(BETWEEN_LOOKS, 4 * (now - began))
            longest = LONGEST_WAIT if show is None else looks
            until = min(t for t in (end, now + longest) if t is not None)
            if not self._told:
                if now >= warn_at:
                    self._told = self._warn()
                    warn_at = now + WARN_AFTER
                if not self._told:
                    until = min(until, warn_at)
            self._app.store.wait_ended(ids[:PAGE_OF_IDS], timeout=max(0.0, until - now))
        if show is not None:
            show()
        return True

    def _timed_out(self, timeout: float | None) -> ResultTimeout:
        state = self._app.store.look((self._id,), cells=False)[0]
        said = self._lacking()
        return ResultTimeout(
            f"{self._who} gave no value within {timeout:g} s; it is "
            f"{shown_state(state.state) if state else 'not known any more'}"
            f"{f': {said}' if said else ''}"
        )

    def _next_up(self) -> bytes | None:
        """The id of something that waits for a worker, so that the missing one can be named."""
        return self._id

    def _warn(self) -> bool:
        """Say that no worker lives that would run what is waited for; whether that was said."""
        said = self._lacking()
        if said:
            log.warning("%r has waited %g s: %s", self, WARN_AFTER, said)
        return said is not None

    def _lacking(self) -> str | None:
        """Say why no live worker would run what is waited for; None if one would."""
        id = self._next_up()
        look = None if id is None else self._app.store.look((id,), cells=False)[0]
        if id is None or look is None or look.state not in (State.QUEUED, State.SCHEDULED):
            return None
        return lacking(self._app, id, look.state)

    # --- as Python objects -----------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        return self._id == other._id if isinstance(other, Handle) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._id)

    @property
    def _who(self) -> str:
        """What it is called in a text, which those read too who type commands."""
        return f"run {self.id}"

    def __repr__(self) -> str:
        return f"<{self._kind}: {self.id}>"

    def __reduce__(self) -> NoReturn:
        raise BindingError(
            f"{self!r} cannot travel; to pass its value on, compose: a.s(1) | b.s(), or "
            "b.s(a.s(1)) with the signature as argument; a task's body returns the signature "
            "(return a.s(1)), not what it started; else pass its .id"
        )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            if hasattr(type(self), name):  # a property raised; let its own error be seen
                object.__getattribute__(self, name)
            kind = f"a {type(self).__name__}"
            said = habit(name, kind)
            known = [n for n in dir(type(self)) if not n.startswith("_")]
            raise AttributeError(
                said
                or f"{kind} has no {name!r}{nearest(name, known)}; if its value has: "
                "take that first, with .get(blocking=True)"
            )


def refuse_handles(values: Iterable[Any], name: str, instead: str) -> None:
    """Refuse handles among the arguments of a task or flow.

    Raises
    ------
    BindingError
        There is one; see `composes`.
    """
    for value in values:
        if isinstance(value, Handle):
            raise composes(value, name, instead)


def composes(given: Any, name: str, instead: str) -> BindingError:
    """Give the error for an argument whose value is not known yet: who was given it is composed.

    Parameters
    ----------
    given : object
    name : str
        Of the task or flow.
    instead : str
        What may be done as well.
    """
    short = name.rpartition(".")[2]
    return BindingError(
        f"{name} was given {given!r}, whose value is not known yet. Compose: "
        f"other.s(...) | {short}.s(...), or {short}.s(other.s(...)) with the signature as "
        f"argument, then .start(); or {instead}"
    )


class ValueHandle(Gives[T], Handle, Generic[T]):
    """A handle that has a value once it has ended."""

    def __init__(self, app: Home, id: bytes) -> None:
        super().__init__(app, id)
        self._answer: tuple[Any, bool] | None = None

    @overload
    def get(
        self,
        blocking: Literal[True],
        timeout: float | None = None,
        *,
        raise_errors: Literal[True] = True,
        allow_in_task: bool = False,
        progress: bool = False,
    ) -> T: ...
    @overload
    def get(
        self,
        blocking: bool = False,
        *,
        timeout: float,
        raise_errors: Literal[True] = True,
        allow_in_task: bool = False,
        progress: bool = False,
    ) -> T: ...
    @overload
    def get(
        self,
        blocking: bool = False,
        timeout: float | None = None,
        *,
        raise_errors: Literal[True] = True,
        allow_in_task: bool = False,
        progress: bool = False,
    ) -> T | None: ...
    @overload
    def get(
        self,
        blocking: bool = False,
        timeout: float | None = None,
        *,
        raise_errors: bool,
        allow_in_task: bool = False,
        progress: bool = False,
    ) -> Any: ...
    @helpful
    def get(
        self,
        blocking: bool = False,
        timeout: float | None = None,
        *,
        raise_errors: bool = True,
        allow_in_task: bool = False,
        progress: bool = False,
    ) -> Any:
        """Give the value as soon as it is known, or raise as soon as it can no longer come.

        Reading does not destroy: it may be read again, from here and elsewhere, until it expires.
        Calling the handle is the same.

        Parameters
        ----------
        blocking : bool
            Wait; otherwise None is given while the value is not known.
        timeout : float, optional
            Seconds to wait; implies `blocking`.
        raise_errors : bool
            False: once all has ended, give the value with `Failure`, `Skipped` and `Cancelled`
            objects in the places of what is missing.
        allow_in_task : bool
            Let the body of a task wait, though that can stop all workers of a pool for ever.
        progress : bool
            Show on stderr how far it is while it waits: a tree in place on a terminal (with the
            extra ``cli``), elsewhere a line whenever the counts have changed.

        Raises
        ------
        TaskError
            It failed, or could not run because something above it failed: the text is the
            original's ``repr``, and `TaskError.traceback` the remote traceback. For a map or
            group, once it has ended: `GroupError`.
        NotProduced
            It was skipped, or keeps no result; `RunCancelled`: it was cancelled.
        ResultTimeout
            `timeout` is over; it goes on.
        ResultMissing
            The store does not know it: never enqueued, or expired.
        DecodeError
            It succeeded, and its result cannot be read here: unpickling it raised.
        BlockingInTask
            The body of a task waits, without `allow_in_task`.
        """
        blocking = blocking or timeout is not None
        if blocking:
            self._may_block(allow_in_task)
        if self._answer is None or not raise_errors:
            found: list[tuple[Any, bool]] = []
            waiting = self._search(found, raise_errors)
            if blocking:
                with self._showing(sys.stderr, nodes=False, wanted=progress) as show:
                    known = self._until(waiting, timeout, show)
                if not known:
                    raise self._timed_out(timeout)
            elif waiting():
                return None
            if not raise_errors:
                return found[0][0]
            self._answer = found[0]
        value, is_value = self._answer
        return value if is_value else self._instead(value)

    __call__ = get

    def _instead(self, found: Any) -> Any:
        """Raise the error that stands in the place of a value."""
        raise raise_for(found)

    def _search(
        self, found: list[tuple[Any, bool]], raise_errors: bool
    ) -> Callable[[], Sequence[bytes]]:
        """Make what `_until` calls: it looks, and puts the value into `found` once it is known.

        Beside it stands whether it is one, or what stands in its place: a `Failure` may be either,
        and only the state tells.
        """
        raise NotImplementedError
