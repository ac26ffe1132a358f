# SPDX-License-Identifier: MIT
"""A started graph, seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, TypeVar

from flowq.errors import ConfigError, ResultMissing
from flowq.habits import helpful
from flowq.handle import ValueHandle
from flowq.looking import Home, lacking, moment, one_value, put_together
from flowq.message import Template, decode_template, id_text, node_id, split_node
from flowq.plan import ROOT, Kind, indexes
from flowq.policy import nearest
from flowq.states import State
from flowq.storage.base import Look, NodeInfo, RunInfo
from flowq.values import nodes_of
from flowq.wiring import Progress, RunNode

__all__ = ["Run"]

T = TypeVar("T")

PAGE_OF_NODES: Final = 500
WATCHED: Final = 64
"""Values of so many nodes are watched one by one; a run with more is awaited as a whole."""
CAUSES: Final = 20
"""So many lines `Run.why` gives at most."""
_FAILED: Final = (State.FAILED, State.BLOCKED)


class Run(ValueHandle[T]):
    """A started graph: its state, its value, its nodes.

    It keeps nothing of the graph but its id, so it can be opened by that from any process:
    ``q.run(id)``.

    Notes
    -----
    `get` gives the value as soon as all that it names has succeeded, though other branches still
    run, and raises as soon as one of those nodes has failed or was blocked. Where something else
    has failed by then, and once the run has ended, the outcome of the whole decides: a success at
    the end hides no failure. A value of more than 64 nodes is awaited as a whole.
    """

    _kind: ClassVar[str] = "Run"

    def __init__(self, app: Home, id: bytes, *, value: bytes = b"") -> None:
        super().__init__(app, id)
        self._value = value
        self._names: dict[str, int] = {}

    # --- the value -------------------------------------------------------------------------------

    def _search(self, found: list[Any], raise_errors: bool) -> Callable[[], Sequence[bytes]]:
        wanted = self._watched() if raise_errors else []
        failed_elsewhere = False
        # What has ended is not looked at again: its value may be large.
        cells: dict[int, bytes] = {}

        def waiting() -> Sequence[bytes]:
            nonlocal wanted, failed_elsewhere
            looks = self._app.store.look((self._id, *wanted), cells=True)
            root = looks[0]
            if root is None:
                self._missing()
            if root.state.final:
                found.append(self._outcome(root, raise_errors))
                return ()
            if not wanted:
                return (self._id,)
            left = []
            for id, look in zip(wanted, looks[1:], strict=True):
                if look is None:
                    self._missing(id)
                if not look.state.final:
                    left.append(id)
                elif look.state is not State.SUCCESS:
                    found.append(one_value(self._app, id, look))
                    return ()
                elif look.cell is not None:
                    cells[split_node(id)[1]] = look.cell
            if left:
                wanted = left
                return left
            # All that the value names is there, and other nodes still run. If one of them failed
            # the outcome may be a failure, which only the end can tell.
            if not failed_elsewhere:
                failed_elsewhere = any(
                    self._app.store.nodes(self._id, limit=1, state=s) for s in _FAILED
                )
            if failed_elsewhere:
                wanted = []
                return (self._id,)
            found.append(self._resolved(cells))
            return ()

        return waiting

    def _outcome(self, root: Look, raise_errors: bool) -> Any:
        """Give the value of a run that has ended, or what stands in its place."""
        if raise_errors or root.state is State.SUCCESS:
            return one_value(self._app, self._id, root)
        return self._resolved()

    def _resolved(self, cells: Mapping[int, bytes] | None = None) -> Any:
        return put_together(self._app, self._id, self._template(), cells)

    def _template(self) -> Template:
        if not self._value:
            self._value = self._info().value
        return decode_template(self._value)

    def _watched(self) -> list[bytes]:
        named = sorted(set(nodes_of(self._template())))
        return [node_id(self._id, n) for n in named] if len(named) <= WATCHED else []

    # --- what it is made of ----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What the run is called: a DAG's name, or made of its tasks'."""
        return self._info().name

    @property
    def created_at(self) -> datetime | None:
        """When it was submitted, in UTC."""
        return moment(self._info().created_ms)

    @property
    def ended_at(self) -> datetime | None:
        """When it ended, in UTC; None while it runs."""
        return moment(self._info().ended_ms)

    def result(self, node: str | int) -> Any:
        """Give the handle of one of its nodes, by name or index.

        Raises
        ------
        ResultMissing
            The run has no such node; the text gives the nearest names.
        """
        return self._app.result(id_text(node_id(self._id, self._index(node))))

    @helpful
    def nodes(self, *, state: str | None = None) -> Iterator[RunNode]:
        """Go through its nodes by index, read in pages.

        Parameters
        ----------
        state : str, optional
            Only those in this state: ``"failed"``, ``"running"`` ...
        """
        for info in self._infos(_state(state)):
            yield self._node(info)

    def progress(self) -> Progress:
        """Say how far it is."""
        done = known = failed = running = 0
        for info in self._infos():
            if info.kind != Kind.TASK:
                continue
            known += 1
            done += info.state.final
            failed += info.state in _FAILED
            running += info.state is State.RUNNING
        return Progress(done, known, failed, running)

    def cancel(self) -> bool:
        """Stop it: nothing new starts, what waits ends ``cancelled``, bodies are signalled.

        Returns
        -------
        bool
            Whether it is stopped or being stopped, by this call or an earlier one; False if it had
            ended otherwise.
        """
        return self.cancel_inside(ROOT) or self._look(cells=False).state is State.CANCELLED

    def cancel_inside(self, expansion: int) -> bool:
        """Stop all that stands in the body of one of its expansions, at any depth.

        Parameters
        ----------
        expansion : int
            Index of its node.
        """
        stopped = False
        while True:
            bodies = {expansion}
            todo = []
            for info in self._infos():
                if info.owner not in bodies:
                    continue
                if info.state is State.EXPANDED:
                    bodies.add(info.index)  # before all that stands in it
                elif not (info.state.final or (stopped and info.state is State.RUNNING)):
                    todo.append(node_id(self._id, info.index))
            if not todo:
                return stopped
            # What is downstream first, so that nothing starts because of what ends above it.
            todo.reverse()
            for at in range(0, len(todo), PAGE_OF_NODES):
                self._app.store.cancel(todo[at : at + PAGE_OF_NODES])
            stopped = True

    # --- why -------------------------------------------------------------------------------------

    def why(self, node: str | int | None = None) -> str:
        """Say in words why it, or one of its nodes, stands where it stands.

        Without `node`: the deepest unfinished causes, one line each; or why it ended as it did.
        """
        if node is not None:
            index = self._index(node)
            return self._why(self._app.store.nodes(self._id, after=index - 1, limit=1)[0])
        look = self._look(cells=False)
        lines: list[str] = []
        if look.state.final:
            bad = (State.FAILED, State.CANCELLED, State.BLOCKED, State.SKIPPED)
            infos = (i for s in bad for i in self._infos(s))
            lines.append(f"{self!r} ended {look.state.label}")
        else:
            busy = (State.RUNNING, State.QUEUED, State.SCHEDULED, State.HELD)
            infos = (i for s in busy for i in self._infos(s))
        for info in infos:
            if len(lines) == CAUSES:
                lines.append("...")
                break
            lines.append(self._why(info))
        return "\n".join(lines)

    def _why(self, info: NodeInfo) -> str:
        return f"{info.name or info.index}: {info.state.label}{self._cause(info)}"

    def _cause(self, info: NodeInfo) -> str:
        id = node_id(self._id, info.index)
        look = self._app.store.look((id,))[0]
        if look is None:
            return ""
        if info.state is State.WAITING:
            above = [
                self._app.store.nodes(self._id, after=p - 1, limit=1)[0]
                for p, _ in zip(indexes(info.parents), range(CAUSES), strict=False)
            ]
            left = [f"{i.name} ({i.state.label})" for i in above if not i.state.final]
            return f", until these end: {', '.join(left)}" if left else ""
        if info.state in (State.QUEUED, State.SCHEDULED):
            said = lacking(self._app, id, info.state)
            due = f", due at {moment(look.due_ms)}; {info.attempt} attempts have failed"
            if info.state is State.QUEUED:
                due = "" if said else ", the next free worker takes it"
            return f"{due}; {said}" if said else due
        if info.state is State.RUNNING:
            return f" since {moment(info.started_ms)}, attempt {info.attempt + 1}"
        if info.state in (State.SUCCESS, State.EXPANDED):
            return ""
        gone = one_value(self._app, id, look)
        if info.state is State.BLOCKED:
            return f" by {getattr(gone, 'node', None) or gone.task}, {_said(gone)}"
        return f", {_said(gone)}" if _said(gone) else ""

    # --- reading ---------------------------------------------------------------------------------

    def _info(self) -> RunInfo:
        return self._app.store.run(self._id) or self._missing()

    def _infos(self, state: State | None = None) -> Iterator[NodeInfo]:
        """The nodes' rows without the root's, in pages."""
        after, known = -1, False
        while True:
            page = self._app.store.nodes(self._id, after=after, limit=PAGE_OF_NODES, state=state)
            if not page and not known:
                self._look(cells=False)  # is there such a run at all?
            known = True
            yield from (info for info in page if info.index)
            if len(page) < PAGE_OF_NODES:
                return
            after = page[-1].index

    def _node(self, info: NodeInfo) -> RunNode:
        return RunNode(
            info.index,
            info.name,
            id_text(node_id(self._id, info.index)),
            info.task,
            info.state.label,
            info.attempt,
            info.losses,
            moment(info.ready_ms),
            moment(info.started_ms),
            moment(info.ended_ms),
            tuple(indexes(info.parents)),
            info.culprit,
        )

    def _index(self, node: str | int) -> int:
        if isinstance(node, int):
            return node
        if node not in self._names:
            self._names = {info.name: info.index for info in self._infos()}
        found = self._names.get(node)
        if found is None:
            raise ResultMissing(f"{self!r} has no node {node!r}{nearest(node, self._names)}")
        return found

    def _next_up(self) -> bytes | None:
        """A node that waits for a worker, if one does."""
        for state in (State.QUEUED, State.SCHEDULED):
            if page := self._app.store.nodes(self._id, limit=1, state=state):
                return node_id(self._id, page[0].index)
        return None


def _state(word: str | None) -> State | None:
    if word is None:
        return None
    known = {shown: s for s in State for shown in (s.label,)}
    if word not in known:
        raise ConfigError(f"there is no state {word!r}{nearest(word, known)}")
    return known[word]


def _said(gone: Any) -> str:
    return str(getattr(gone, "message", "") or getattr(gone, "reason", ""))
