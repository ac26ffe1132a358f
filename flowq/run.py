# SPDX-License-Identifier: MIT
"""A started graph, seen from outside."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from flowq.binding import check_call, params_of
from flowq.calls import pack_value
from flowq.cancelling import cancel
from flowq.current import CURRENT
from flowq.errors import (
    BindingError,
    ConfigError,
    GraphError,
    ResultMissing,
    RunEnded,
    StoreError,
)
from flowq.generations import Asked, again, fork, given_instead, rerun_of, retry_of
from flowq.habits import helpful
from flowq.handle import ValueHandle
from flowq.looking import Home, is_value, moment, one_value, put_together, shown_state
from flowq.message import (
    Message,
    Template,
    decode_message,
    decode_template,
    id_text,
    new_id,
    node_id,
    nodes_of,
    split_node,
    stood_in,
)
from flowq.naming import BUILT_IN
from flowq.outline import count, forgiven, within
from flowq.plan import ROOT, Bits, Kind, Phase, indexes
from flowq.policy import check_name, nearest
from flowq.serializer import short_repr
from flowq.states import State
from flowq.storage.base import Look, NodeInfo, RunInfo, Sent
from flowq.text import notebook
from flowq.timeline import critical_path, timeline
from flowq.versions import Versions, other_versions
from flowq.why import Why
from flowq.wiring import Progress, RunNode, Stopping

if TYPE_CHECKING:
    from flowq.drawing import Drawing

__all__ = ["Run"]

T = TypeVar("T")

PAGE_OF_NODES: Final = 500
WATCHED: Final = 64
"""Values of so many nodes are watched one by one; a run with more is awaited as a whole."""
_FAILED: Final = (State.FAILED, State.BLOCKED)
_OPEN: Final = tuple(s for s in State if not s.final)


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
        self._stood_in: frozenset[int] | None = None
        self._names: dict[str, int] = {}
        self._created = True

    @property
    def created(self) -> bool:
        """Whether it began with this handle; False if its key, or its body before, had begun it.

        Known within ``with q.batch()`` only at its end.
        """
        return self._created

    # --- the value -------------------------------------------------------------------------------

    def _search(
        self, found: list[tuple[Any, bool]], raise_errors: bool
    ) -> Callable[[], Sequence[bytes]]:
        wanted = self._watched() if raise_errors else []
        failed_elsewhere = whole = False
        # What has ended is not looked at again: its value may be large.
        cells: dict[int, bytes] = {}

        def waiting() -> Sequence[bytes]:
            nonlocal wanted, failed_elsewhere, whole
            looks = self._app.store.look((self._id, *wanted), cells=True)
            root = looks[0]
            if root is None:
                self._missing()
            if root.state.final:
                value = self._outcome(root, raise_errors)
                found.append((value, is_value(value, root.state)))
                return ()
            if not wanted:
                return (self._id,)
            if not whole and any(look and look.state.final for look in looks[1:]):
                whole = True
                if self._make_whole(self._one(ROOT)):
                    return waiting()
            left = []
            for id, look in zip(wanted, looks[1:], strict=True):
                if look is None:
                    self._missing(id)
                if not look.state.final:
                    left.append(id)
                elif look.state is not State.SUCCESS and not self._stands_in(id, look.state):
                    found.append((one_value(self._app, id, look), False))
                    return ()
                elif look.cell is not None:
                    cells[split_node(id)[1]] = look.cell
            if left:
                wanted = left
                return left
            # All that the value names is there, and other nodes still run. If one of them failed
            # the outcome may be a failure, which only the end can tell.
            if not failed_elsewhere:
                failed_elsewhere = self._has_failures()
            if failed_elsewhere:
                wanted = []
                return (self._id,)
            value = self._resolved(cells)
            found.append((value, is_value(value, State.SUCCESS)))
            return ()

        return waiting

    def _make_whole(self, root: NodeInfo) -> bool | None:
        """Finish a generation that whoever began it may have left; False if it is the first.

        Until then nodes may stand as they ended in the one before.
        """
        if not root.generation:
            return False
        return self._app.store.rewind(self._id, root.generation, chosen=())

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

    def _stands_in(self, id: bytes, state: State) -> bool:
        """Whether another value stands in for that of a node which ended so."""
        if state is not State.FAILED:
            return False
        if self._stood_in is None:
            self._stood_in = frozenset(stood_in(self._template()))
        return split_node(id)[1] in self._stood_in

    def _has_failures(self) -> bool:
        """Whether a failure is known that may count; of many, that is left to the end."""
        spared = Bits.FORGIVEN | Bits.COUNTS_AS_SUCCESS
        for state in _FAILED:
            bits = spared if state is State.FAILED else Bits.FORGIVEN
            page = self._app.store.nodes(self._id, limit=PAGE_OF_NODES, state=state)
            if len(page) == PAGE_OF_NODES or any(not info.bits & bits for info in page):
                return True
        return False

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

    def other_versions(self) -> dict[str, Versions]:
        """Say which of its nodes ran under another ``version=`` of their task than it was then.

        The graph is fixed when the run is built; a body is what its worker has at that time.

        Returns
        -------
        dict of str to tuple of str
            By name of the node: the version with which it was built, and the one under which it
            ran; ``""`` for none. What was skipped or cancelled, became a graph, or keeps no
            result, is not known.

        Notes
        -----
        It reads the values of all nodes, a page at a time.
        """
        return {i.name: v for i, v in other_versions(self._app.store, self._id, self._infos())}

    def progress(self) -> Progress:
        """Say how far it is: counted in bodies, those of what it has grown into too.

        Under one generation neither `done`, `known` nor `failed` ever goes back. `more` is true
        while a map over a list that is not known, a branch, or a task of which one has become a
        graph in this run before, is still to run.
        """
        return count(self._infos())

    def _progress_inside(self, index: int) -> Progress | None:
        """Say how far one of its expansions is; None if the node is none."""
        info = self._one(index)
        if info.kind != Kind.EXPANSION:
            return None
        return count([info, *within(self._infos(), index)])

    def mermaid(self) -> str:
        """Draw it as Mermaid text: states by colour, what nodes became as boxes around that.

        A map of many items is one shape, with counts by state; arms of branches that were not taken
        are pale.
        """
        from flowq.drawing import mermaid

        return mermaid(self._drawing())

    def svg(self) -> str:
        """Draw it as SVG: states by colour, what nodes became as boxes around that.

        A map of many items is one shape with a bar; arms of branches that were not taken are pale.
        """
        from flowq.svg import svg

        return svg(self._drawing())

    def _drawing(self) -> Drawing:
        from flowq.picture import drawing_of

        info = self._info()
        name = f"{info.name or self.id}: {shown_state(info.state)}"
        return drawing_of(self._infos(), name=name, store=self._app.store, run=self._id)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What notebooks show: the picture, or its id if the store does not tell."""
        from flowq.drawing import mermaid
        from flowq.svg import svg

        try:
            drawing = self._drawing()
            return notebook(f"{self!r} {self.state}", mermaid(drawing), svg(drawing))
        except (ResultMissing, StoreError):
            return {"text/plain": repr(self)}

    @helpful
    def cancel(self, node: str | int | None = None, *, force: bool = False) -> Stopping:
        """Stop it: nothing new starts, what waits ends ``cancelled``, bodies are signalled.

        It goes inwards, to any depth, and to what bodies of it have started, unless that was said
        to be ``detached``. What is ``finally_`` still runs, handlers do not. Once the
        outcome is fixed it stands: then handlers are ended and a fallback is forbidden, no more. A
        second call changes nothing; with `force` it ends what is ``finally_`` too.

        Parameters
        ----------
        node : str or int, optional
            One node, with what stands in it, such as ``"clean[3]"``; else all of the run.
        force : bool
            End what is ``finally_`` too, by this or by a second call.

        Returns
        -------
        Stopping
            True if it is stopped or being stopped, by this call or an earlier one; False if it had
            ended otherwise, or its outcome stands. As text it says what is still to end.

        Raises
        ------
        ResultMissing
            There is no such node.
        """
        if isinstance(node, bool):  # would be the node with index 1
            raise TypeError(f"{type(self).__name__}.cancel: write force={node}")
        if node is not None:
            stopping: Stopping = self.result(node).cancel(force=force)
            return stopping
        state = cancel(self._app.store, self._id, force=force)
        return self._stopping(ROOT, state, force)

    @property
    def paused(self) -> bool:
        """Whether it is paused: nothing of it begins until `resume`."""
        return self._info().paused

    def pause(self) -> bool:
        """Let nothing more of it begin; what runs goes on, and so do deadlines and timeouts.

        Nodes that would begin are ``held`` until `resume`. A cancel lets it go on, so that what
        cleans up after it can run.

        Returns
        -------
        bool
            True if it is paused now; False if it has ended.
        """
        state = self._app.store.pause(self._id)
        if state is None:
            self._missing()
        return not state.final

    def resume(self) -> bool:
        """Let it go on after a `pause`; harmless if it is not paused.

        Returns
        -------
        bool
            True if it goes on; False if it has ended.
        """
        state = self._app.store.resume(self._id)
        if state is None:
            self._missing()
        return not state.final

    def send(
        self, name: str, value: Any = None, *, to: str | None = None, id: str | None = None
    ) -> bool:
        """Send a value to a step of it that waits: ``wait_for(name)``.

        Of several that wait under the name the one that has waited longest gets it. If none waits
        yet, the value is kept until one does. Each value is for one step.

        Parameters
        ----------
        name : str
            As in ``wait_for(name)``.
        value : object
            Becomes the value of that step.
        to : str, optional
            Path of the step, or of what is around it (``"review[3]"``), which need not exist yet.
        id : str, optional
            Of several sends to this run with one id only the first counts, so that a send whose
            answer was lost can be repeated.

        Returns
        -------
        bool
            True if a step has taken it, or one had taken that with this id; False if it is kept.

        Raises
        ------
        RunEnded
            It has ended; nothing was kept.
        PayloadError
            The value cannot travel.
        """
        check_name(name, "send")
        body = pack_value(self._app.serializer, value, f"what is sent as {name!r}")
        who = f"{getpass.getuser()}@{socket.gethostname()}"
        came = self._app.store.send(self._id, name, body, to=to or "", key=id or "", who=who)
        if came is None:
            self._missing()
        if came == "ended":
            raise RunEnded(f"{self._who} has ended, so nothing can be sent to it")
        if came == "repeated":
            return any(s.key == id and s.node is not None for s in self._app.store.sent(self._id))
        return came == "taken"

    def sent(self) -> list[Sent]:
        """List what was sent to it: name, to whom, by whom, when, and which node has taken it."""
        return self._app.store.sent(self._id)

    def _stopping(self, expansion: int, state: State | None, force: bool) -> Stopping:
        """Say what the cancel of one of its expansions came to."""
        if state is None:
            self._missing()
        if state.final:
            return Stopping(state is State.CANCELLED, shown_state(state))
        left = {i.index: i for s in _OPEN for i in self._infos(s)}
        running, cleanup, body = 0, False, False
        for info in left.values():
            at: NodeInfo | None = info
            while at is not None and at.owner != expansion:
                at = left.get(at.owner)
            if at is None:
                continue
            body |= at.phase == Phase.BODY
            if at.phase == Phase.FINALLY and not force:
                cleanup = True
            elif info.state is State.RUNNING:
                running += 1
        stopped = body or any(
            i.owner == expansion and i.phase == Phase.BODY and not forgiven(i)
            for i in self._infos(State.CANCELLED)
        )
        return Stopping(stopped, shown_state(state), running, cleanup)

    # --- where its time went ---------------------------------------------------------------------

    def timeline(self) -> list[RunNode]:
        """Give the nodes that took time, in the order in which they began to.

        `RunNode.run_time` is how long a body took; between `ready_at` and `started_at` it waited
        for a worker. What slept, or waited to be sent something, did from `ready_at` to `ended_at`.
        """
        return [self._node(info) for info in timeline(self._infos())]

    def critical_path(self) -> list[RunNode]:
        """Give the bodies and sleeps that its end waited for, one after the other.

        To make the run faster, make these faster; see `flowq.timeline.critical_path`.
        """
        return [self._node(info) for info in critical_path(self._infos())]

    # --- again -----------------------------------------------------------------------------------

    @helpful
    def retry(self, node: str | int | None = None, *, forgiven: bool = False) -> int:
        """Let what failed, was blocked or was cancelled run again, with all that depends on it.

        The same run goes on under a new generation: values of what succeeded are kept, items of
        maps stay, handlers and what is ``finally_`` run anew. What was forgiven is left alone.

        Parameters
        ----------
        node : str or int, optional
            One node to run again, such as ``"clean[3]"``, though it was forgiven.
        forgiven : bool
            Take those too whose failure was forgiven.

        Returns
        -------
        int
            How many nodes run again or wait for those that do; 0 if there is nothing to retry.

        Raises
        ------
        ResultMissing
            There is no such node.

        Notes
        -----
        A run that has not ended goes on meanwhile. Bodies that run and are to run anew are stopped
        first; and where a cleanup (``finally_``) runs of what is to be opened again, that ends
        first, and a worker then goes on with this. Nobody sees those ends. A cancel takes back what
        is not done by then.
        """
        if node is not None:
            return self.rerun(node)
        return self._again(retry_of(forgiven=forgiven))

    @helpful
    def rerun(self, node: str | int) -> int:
        """Let a node run again, however it ended, and all that depends on it.

        A map makes its items anew, ``"clean[3]"`` is one item. ``rerun(0)`` is the whole run.

        Parameters
        ----------
        node : str or int
            Name or index.

        Returns
        -------
        int
            How many nodes run again.

        Raises
        ------
        GraphError
            It runs because of how another ended (a handler, a fallback), or stands in what does.
        ResultMissing
            There is no such node.
        """
        return self._again(rerun_of(self._path(node)))

    @helpful
    def fork(self, from_: str | int = ROOT, *, args: Mapping[str, Any] | None = None) -> Run[T]:
        """Start a new run that takes over the values of this one, and runs the rest itself.

        As `rerun`, but in a run of its own; this one, which must have ended, stays as it is.

        Parameters
        ----------
        from_ : str or int
            The node to begin with, by name or index; all that depends on it runs too. Unless
            given, all runs.
        args : mapping, optional
            For that node, which must be a task: arguments by the names of its parameters, in the
            place of those it had, values of other nodes included.

        Returns
        -------
        Run

        Raises
        ------
        RunActive
            This run has not ended.
        GraphError
            The node runs because of how another ended, or is no task, so that it has no arguments.
        BindingError
            The task has no such parameter.
        """
        if args is not None and not isinstance(args, Mapping):
            raise BindingError(
                f"fork(args={short_repr(args)}): say which parameter gets which value, as a "
                "mapping: args={'day': ...}"
            )
        name = self._path(from_)
        new = new_id()
        current = CURRENT.get()
        if current is not None:  # a body that runs again finds what it has started
            new = current.start_id(b"fork " + self._id + name.encode())
            current.adopt(self._app, new)

        def messages(info: NodeInfo) -> Mapping[int, Message]:
            return {} if args is None else {info.index: self._with(info, args)}

        done = fork(self._app.store, self._id, new, rerun_of(name), messages)
        if done is None:
            self._missing()
        return type(self)(self._app, new)

    def _with(self, info: NodeInfo, args: Mapping[str, Any]) -> Message:
        """Give the message of a node with other arguments."""
        raw = self._app.store.message(node_id(self._id, info.index))
        if info.task in BUILT_IN or not info.task or raw is None:
            raise GraphError(
                f"{info.name or 'the run'!r} is no task, so it has no arguments of its own; name "
                "a task in from_="
            )
        spec = self._app.spec(info.task)
        check_call(spec, (), args, more=True)
        message = decode_message(raw)
        return given_instead(message, args, params_of(spec).place, self._app.serializer)

    def _path(self, node: str | int) -> str:
        """The name of a node; empty for the root."""
        return "" if node in (ROOT, "") else self._one(self._index(node)).name

    def _again(self, asked: Asked) -> int:
        done = again(self._app.store, self._app.serializer, self._id, asked)
        self._names, self._answer = {}, None
        if done is None:
            self._missing()
        return done.nodes

    # --- why -------------------------------------------------------------------------------------

    def why(self, node: str | int | None = None) -> str:
        """Say in words why it, or one of its nodes, stands where it stands.

        Without `node`: the deepest unfinished causes, one line each, many items of one map in one;
        or why it ended as it did. With it: what it waits for, or which rule let it run, by which
        ends and when, and what came of it. What stands in an arm of a branch that was not taken was
        never made, and is told so.
        """
        whys = Why(self._app, self._id, self._infos, self._who)
        if node is None:
            return whys.run(self._look(cells=False).state)
        try:
            return whys.node(self._one(self._index(node)), whole=True)
        except ResultMissing:
            said = whys.never_made(node) if isinstance(node, str) else None
            if said is None:
                raise
            return said

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

    def _one(self, index: int) -> NodeInfo:
        page = self._app.store.nodes(self._id, after=index - 1, limit=1)
        if not page or page[0].index != index:
            self._look(cells=False)  # is there such a run at all?
            raise ResultMissing(f"{self._who} has no node {index}")
        return page[0]

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
            raise ResultMissing(f"{self._who} has no node {node!r}{nearest(node, self._names)}")
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
