# SPDX-License-Identifier: MIT
"""What calling gives: the handle of one task, and of many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, ClassVar, TypeVar, overload

import msgspec

from flowq.called import Call
from flowq.cancelling import cancel
from flowq.errors import (
    Cancelled,
    Failure,
    GraphError,
    GroupError,
    NotProduced,
    Skipped,
)
from flowq.habits import helpful
from flowq.handle import PAGE_OF_IDS, ValueHandle
from flowq.looking import (
    Home,
    is_value,
    lacking,
    moment,
    one_value,
    shown_state,
    source_in,
)
from flowq.message import (
    EMPTY,
    Message,
    decode_message,
    node_id,
    nodes_of,
    read_cell,
    split_node,
)
from flowq.plan import ROOT, Kind, Ranges
from flowq.policy import check_options
from flowq.run import Run
from flowq.states import State
from flowq.storage.base import Look
from flowq.values import Values
from flowq.versions import as_words, versions_in
from flowq.wiring import Progress, Stopping

__all__ = ["Result", "ResultGroup"]

R = TypeVar("R")


class Result(ValueHandle[R]):
    """The handle of one task: where it stands, and its value once there is one.

    Reading does not destroy, ``q.result(id)`` opens the same from any process, and ``r()`` is
    ``r.get()``.
    """

    _kind: ClassVar[str] = "Result"

    def __init__(
        self,
        app: Home,
        id: bytes,
        *,
        message: Message | None = None,
        arguments: tuple[Any, Any] | None = None,
        index: int | None = None,
    ) -> None:
        super().__init__(app, id)
        self._message = message
        self._arguments = arguments
        self._index = index
        self._created = True

    @property
    def _who(self) -> str:
        return f"{'task' if len(self._id) == 16 else 'node'} {self.id}"

    def __repr__(self) -> str:
        return f"<Result: task {self.id}>"

    @property
    def created(self) -> bool:
        """Whether it began with this handle; False if its key, or its body before, had begun it.

        Known within ``with q.batch()`` only at its end.
        """
        return self._created

    @property
    def index(self) -> int | None:
        """Its place in the `ResultGroup` that gave it, else None."""
        return self._index

    @property
    def task(self) -> Call:
        """What was called.

        Raises
        ------
        ResultMissing
            The store does not keep it any more, or never knew it.
        """
        if self._message is None:
            raw = self._app.store.message(self._id)
            if raw is None:
                self._missing()
            self._message = decode_message(raw)
        return Call(self._app, self._message, self._arguments)

    @helpful
    def cancel(self, *, force: bool = False) -> Stopping:
        """Stop it: unstarted it ends ``cancelled``, a running body is signalled.

        A node that became a plan is stopped inwards, as a run is; see `Run.cancel`. What its bodies
        have started is cancelled too.

        Returns
        -------
        Stopping
            True if it is stopped or being stopped, by this call or an earlier one; False if it had
            ended otherwise. As text it says what is still to end.
        """
        state = cancel(self._app.store, self._id, force=force)
        if state is None:
            self._missing()
        if state is State.EXPANDED:
            run, index = split_node(self._id) if len(self._id) > 16 else (self._id, ROOT)
            return Run[Any](self._app, run)._stopping(index, state, force)
        stopped = state is State.CANCELLED or not state.final
        return Stopping(stopped, shown_state(state), int(state is State.RUNNING))

    @helpful
    def reschedule(self, *, delay: float | None = None, eta: datetime | None = None) -> bool:
        """Let it run at another time, if it has not started.

        Parameters
        ----------
        delay : float, optional
            Seconds from now on; 0 is at once. This or `eta`.
        eta : datetime, optional
            Moment before which it does not run; a naive one is the local zone's.

        Returns
        -------
        bool
            Whether it was moved; False if it has started or ended.
        """
        said = {k: v for k, v in (("delay", delay), ("eta", eta)) if v is not None}
        if len(said) != 1:
            raise GraphError(
                f"{self._who}, reschedule: give delay= or eta=; delay=0 lets it run at once"
            )
        checked = check_options(said, "call", f"{self._who}, reschedule")
        state = self._app.store.reschedule(
            self._id,
            delay_ms=round(checked.get("delay", 0.0) * 1000),
            due_ms=checked.get("eta", 0),
        )
        if state is None:
            self._missing()
        return state in (State.QUEUED, State.SCHEDULED)

    @helpful
    def retry(self) -> int:
        """Let it run again, with all that depends on it, though its failure was forgiven.

        Of what has become a run, what failed there; see `Run.retry`.

        Returns
        -------
        int
            How many nodes run again, or will.

        Raises
        ------
        GraphError
            It was called alone, and is a part of no run: call it again. Or it runs because of how
            another ended.
        """
        run = self._as_run()
        return self.rerun() if run is None else run.retry()

    @helpful
    def rerun(self) -> int:
        """Let it run again, however it ended, with all that depends on it; see `Run.rerun`.

        Returns
        -------
        int
            How many nodes run again, or will.

        Raises
        ------
        GraphError
            As for `retry`.
        """
        if (run := self._as_run()) is not None:
            return run.rerun(ROOT)
        if len(self._id) == 16:
            self._look(cells=False)
            raise GraphError(
                f"{self!r} was called alone, and a store keeps no message of what has ended: call "
                f"it again, or start it as a graph (task.s(...).start()), whose run "
                "can be retried"
            )
        id, index = split_node(self._id)
        return Run[Any](self._app, id).rerun(index)

    def progress(self) -> Progress:
        """Say how far it is."""
        if (run := self._as_run()) is not None:
            return run.progress()
        state = self._look(cells=False).state
        if len(self._id) > 16 and state is not State.WAITING:
            id, index = split_node(self._id)
            inside = Run[Any](self._app, id)._progress_inside(index)
            if inside is not None:
                return inside
        failed = state in (State.FAILED, State.BLOCKED)
        return Progress(int(state.final), 1, int(failed), int(state is State.RUNNING))

    def why(self) -> str:
        """Say in words why it stands where it stands."""
        if (run := self._as_run()) is not None:
            return run.why()
        if len(self._id) > 16:
            id, index = split_node(self._id)
            return Run[Any](self._app, id).why(index)
        look = self._look()
        text = f"{self._who}: {look.state.label}"
        if look.state in (State.QUEUED, State.SCHEDULED):
            said = lacking(self._app, self._id, look.state)
            due = f", due at {moment(look.due_ms)}; {look.attempt} attempts have failed"
            if look.state is State.QUEUED:
                due = "" if said else ", the next free worker takes it"
            return f"{text}{due}; {said}" if said else f"{text}{due}"
        if look.state is State.SUCCESS and look.cell is not None:
            source = source_in(read_cell(look.cell))
            text += f", from the cache, as {source} gave it" if source else ""
            return text + _ran_as(look)
        if look.state.final and look.state is not State.SUCCESS:
            gone = one_value(self._app, self._id, look)
            said = getattr(gone, "message", "") or getattr(gone, "reason", "")
            return (f"{text}, {said}" if said else text) + _ran_as(look)
        return text

    def _as_run(self) -> Run[Any] | None:
        """The run, if the id is that of one: any id opens as any handle."""
        if len(self._id) > 16 or not self._look(cells=False).run:
            return None
        return Run(self._app, self._id)

    def _search(
        self, found: list[tuple[Any, bool]], raise_errors: bool
    ) -> Callable[[], Sequence[bytes]]:
        def waiting() -> Sequence[bytes]:
            look = self._look()
            if not look.state.final:
                return (self._id,)
            value = self._value(look)
            found.append((value, is_value(value, look.state)))
            return ()

        return waiting

    def _value(self, look: Look) -> Any:
        if look.state is State.SUCCESS and look.cell is not None:
            if read_cell(look.cell).flags & EMPTY and not self._is_join():
                raise NotProduced(
                    f"{self._who} succeeded, but its result is not kept (result_ttl=0); to know "
                    "whether it has ended use .wait() or .ready"
                )
        known = self._message.task if self._message is not None else ""
        return one_value(self._app, self._id, look, known)

    def _is_join(self) -> bool:
        """Whether it is a node that no worker runs, whose value is None."""
        if len(self._id) == 16:
            return False
        run, index = split_node(self._id)
        infos = self._app.store.nodes(run, after=index - 1, limit=1)
        return bool(infos) and infos[0].kind == Kind.JOIN


class ResultGroup(Run[list[R]]):
    """The handle of many tasks that were started together: a map's, or a group's.

    A `Run` whose value is a list, in the order of submission.
    """

    _kind: ClassVar[str] = "ResultGroup"

    def __init__(
        self, app: Home, id: bytes, *, value: bytes = b"", members: Ranges | None = None
    ) -> None:
        super().__init__(app, id, value=value)
        self._ranges = members
        self._ids: list[bytes] | None = None

    # --- its members -----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._members())

    def __iter__(self) -> Iterator[Result[R]]:
        return (self._member(i) for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Result[R]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Result[R]]: ...
    def __getitem__(self, index: int | slice) -> Result[R] | list[Result[R]]:
        places = range(len(self))
        if isinstance(index, slice):
            return [self._member(i) for i in places[index]]
        try:
            return self._member(places[index])
        except IndexError:
            raise IndexError(
                f"{self!r}[{index}]: it has {len(places)} member{'s' * (len(places) != 1)}"
            ) from None

    @helpful
    def as_completed(
        self, timeout: float | None = None, *, allow_in_task: bool = False
    ) -> Iterator[Result[R]]:
        """Go through the members as they end, each once; ``.index`` is its place in the group.

        Parameters
        ----------
        timeout : float, optional
            Seconds until the last one has to have ended.
        allow_in_task : bool
            Let the body of a task wait, though that can stop all workers of a pool for ever.

        Raises
        ------
        ResultTimeout
            `timeout` is over.
        """
        self._may_block(allow_in_task)
        end = None if timeout is None else time.monotonic() + timeout
        ids = self._members()
        left = list(range(len(ids)))
        while left:
            # A page at a time is watched; one that stays silent goes to the end of the line.
            page, rest = left[:PAGE_OF_IDS], left[PAGE_OF_IDS:]
            patience = None if end is None else max(0.0, end - time.monotonic())
            if rest:
                patience = min(1.0, patience) if patience is not None else 1.0
            ended: set[int] = set()

            def waiting(page: list[int] = page, ended: set[int] = ended) -> Sequence[bytes]:
                unfinished = set(self._ended([ids[i] for i in page]))
                ended.update(i for i in page if ids[i] not in unfinished)
                return () if ended else list(unfinished)

            if not self._until(waiting, patience) and end is not None and time.monotonic() >= end:
                raise self._timed_out(timeout)
            yield from (self._member(i) for i in page if i in ended)
            left = rest + [i for i in page if i not in ended]

    def failures(self) -> list[Failure | Skipped | Cancelled]:
        """Say which members have ended without a value so far, in their order."""
        ids = self._members()
        bad = [
            i
            for i, look in self._looks()
            if look.state.final
            and look.state is not State.SUCCESS
            and not self._stands_in(ids[i], look.state)
        ]
        indexes = [int.from_bytes(ids[i][16:], "big") for i in bad]
        values = Values(self._app.store, self._id, self._app.serializer)
        values.load(indexes)
        return [_placed(values.node(n), i) for i, n in zip(bad, indexes, strict=True)]

    @property
    def finished(self) -> int:
        """How many members have ended, however."""
        return sum(look.state.final for _, look in self._looks())

    @property
    def failed(self) -> int:
        """How many members have failed or were blocked."""
        return sum(look.state in (State.FAILED, State.BLOCKED) for _, look in self._looks())

    def progress(self) -> Progress:
        """Say how far it is, counted in members."""
        states = [look.state for _, look in self._looks()]
        return Progress(
            sum(s.final for s in states),
            len(states),
            sum(s in (State.FAILED, State.BLOCKED) for s in states),
            sum(s in (State.RUNNING, State.EXPANDED) for s in states),
        )

    # --- the value -------------------------------------------------------------------------------

    def _watched(self) -> list[bytes]:
        """Nothing but the end: what other members come to belongs to the error too."""
        return []

    def _outcome(self, root: Look, raise_errors: bool) -> Any:
        if root.state is State.FAILED and raise_errors:
            failures = self.failures()
            if failures:
                return GroupError(failures, len(self))
        return super()._outcome(root, raise_errors)

    def _instead(self, found: Any) -> Any:
        if isinstance(found, GroupError):
            raise GroupError(found.failures, found.total)
        return super()._instead(found)

    # --- reading ---------------------------------------------------------------------------------

    def _members(self) -> list[bytes]:
        if self._ids is None:
            if self._ranges is None:
                nodes: Sequence[int] = list(nodes_of(self._template()))
            else:
                nodes = [n for first, count in self._ranges for n in range(first, first + count)]
            self._ids = [node_id(self._id, n) for n in nodes]
        return self._ids

    def _member(self, place: int) -> Result[R]:
        return Result(self._app, self._members()[place], index=place)

    def _looks(self) -> Iterator[tuple[int, Look]]:
        ids = self._members()
        for at in range(0, len(ids), PAGE_OF_IDS):
            page = self._app.store.look(ids[at : at + PAGE_OF_IDS], cells=False)
            for i, look in enumerate(page, at):
                if look is None:
                    self._missing(ids[i])
                yield i, look


def _ran_as(look: Look) -> str:
    """Say under which version a body ran, if that was another than its call's."""
    versions = None if look.cell is None else versions_in(read_cell(look.cell))
    return "" if versions is None else f", {as_words(versions)}"


def _placed(gone: Any, place: int) -> Any:
    """A failure with its place in the group, where it has none of its own."""
    if isinstance(gone, Failure) and gone.index is None:
        return msgspec.structs.replace(gone, index=place)
    return gone
