# SPDX-License-Identifier: MIT
"""The contract of a store: what is atomic, what is bounded, what may be repeated.

A store keeps tasks and runs and moves them by the tables of `flowq.states`; it does not know why.
Two rules hold for every method that changes something:

* it is **one atomic step** (one Lua script, one transaction): all of it happened or nothing;
* **calling it again after an answer was lost does no harm**: ids are made by the client, and a
  settlement is fenced by its delivery number.

The settling step, in words that all stores share::

    finish(node, state):                       only from an unfinished state
        if it has lost, or stands in the body of an owner that has what it needs: state := skipped
        state of the node := state; its cell is stored
        for each child (in pages of PAGE edges, under a stored cursor):
            the child's count for that state goes up by one; that of successes along a `lenient`
                edge, and where the node is failed and has Bits.COUNTS_AS_SUCCESS; but a child of a
                later phase, an alarm, and a race count what it was
            if the child is waiting and what it stands in has begun: weigh it, if it is its turn
                and that is not closing; or if it is an alarm and HANDLERS are not forbidden
            each of its `followers` likewise, but as a success, when it becomes expanded; if it
                never did, they count this end as children do
        if what it stands in is followed (`NodeRow.along`): the item that goes along with it is
            weighed (in pages too)
        if the node is an expansion that was waiting: each node in its body that is waiting ends
            as it did, and likewise what is inside that (pages as above); no rule in it is looked at
        in its owner, if it is its turn: unfinished -1, and failures, cancels, skips as Bits and
            state say
        if it is a success in the body of an owner with a need, so many are there by that, and the
            owner is not closing: it has what it needs, it is closing, and stop(x) for each node of
            the body (each ends skipped)
        if that failure counts and it has Bits.STOPS, and the owner is not closing: it is, and
            stop(x) for each node whose turn it is, before any rule is looked at
        if the owner has no unfinished node left whose turn it is: passed(owner)
    turn: that of the nodes of the body, then of those of one group of `later` after the other
    alarm: a node of a group that is called HANDLERS, ALWAYS; it may start before its turn
    passed(expansion):
        after the body its outcome is fixed: outcome_of(its counts, tolerate, stopped, met); if it
            is failed and has groups in `later`, its cell is stored, so that they can read that
        after a fallback: outcome_of(the counts of that phase), and the value is that group's
        then the groups of `later`, in their order:
            whose `when` fits the outcome: it is its turn, the counts are those of its nodes (some
                of which may have ended), each that waits is weighed; nothing left: on to the next
            whose `when` does not, or which a cancel forbids: its nodes end skipped, uncounted; if
                alarms of it run, it is its turn, closing, and stop(x) for each
        none left: finish(expansion, outcome)
    a task that fails for good and has a group in `later`:
        its cell is stored, so that who reads it gets the failure; it is expanded, with `failed`
        for its outcome, and passed; if it ends otherwise, the nodes of its groups end skipped
    stop(node):
        waiting, scheduled, held, queued -> finish(node, cancelled)
        running  -> marked, its session is told; whatever it settles to is cancelled
        expanded -> cancel(node)
    lose(node):                                of what a race owns, if it is unfinished
        it has lost (a mark of this generation); stop(node), and what stands in it is cancelled
    overdue(expansion):                        its deadline passed while its body ran
        nothing if it is stopped, or its turn is not its body's; else it is overdue and closing, and
        for each of the body, at any depth: what waits, is scheduled, held or queued is cancelled;
        running -> marked, its session is told, and whatever it settles to (or if its worker is
        lost) it is failed, with the reason "deadline"; expanded -> it is stopped and closing, as
        by a cancel
        then its outcome is failed, unless a cancel stopped it; its culprit is itself, and its cell
        that failure, so no culprit's index. Once its outcome is fixed, nothing is due any more
    cancel(expansion):                         no fallback from now on
        in its body: it is stopped and closing, stop(x) for each node of the body; no handlers then
        in a group of handlers, a fallback: closing till that ends, stop(x) for each of it; the
            outcome stands, and there are no handlers any more
        in finally: nothing, unless by `force`: stop(x) for each; that forbids later ones too
    Nothing that stands in what is closing, however deep, is handed out: where pages are left and
    its turn comes before theirs, stop(x) instead. Not so in an expansion that was cancelled by
    then: it runs what may run after a cancel.
    under way: of a body's nodes, those that have begun and not ended: queued, scheduled, running or
        expanded. Where a node of the body of an expansion with `most` ends that was under way, and
        that is not closing, the next entry by index that waits and whose rule says run begins
    weigh(node):
        verdict(rule, parents, counts) -> start it, or finish it, or it waits on; in the body of an
            expansion with `most` it waits on while so many are under way
        the counts of what goes along with nodes of other expansions are not kept: they are what
            those parents are when it is weighed
    start(node):
        what its row says is blocked -> it never begins: finish(node, blocked), with that for the
                        body of its cell, which names no culprit; it is its own. Where it is in a
                        body with `most`, the next entry is weighed at once
        a task       -> queued, or scheduled if it has a delay or an eta ahead
        an expansion -> expanded, its entries start (none at all: it ends at once); where a cancel
                        has ended some of its body before, all in it that is waiting is weighed
        a join       -> finish(node, success); if it is a race, with the value of the first of its
                        parents, by index, that is a success, and then, in pages, lose(x) for each
                        that it owns
        an expansion with a deadline is overdue so long after its start, or its newest rewind; who
                        steps next then does that, as with what is due
        a join with a signal -> finish(node, success) with the body of the first send that was kept
                        for it (see `Store.send`), which is taken; else scheduled, due after its
                        timeout if it has one, and then a success with its `value`, or failed with
                        the reason "timeout"
        a join that sleeps -> scheduled; when it is due, finish(node, success). Whoever steps next
                        lets it end, and who waits for work is woken in time for that
    limits of a task that is a node (`Message.limits`): the nodes of one key that are queued or
            running are a set, and it has room while they are fewer than its node says
        where it would be queued: it enters the sets of all its keys, if all have room (or it is in
            them: what comes back keeps its places), and is queued; else it is held, and waits at
            the first that has none
        where it is queued or running no more, however that came, it leaves them; then, in pages,
            while there is room there, those that wait at these keys are tried again: the highest
            priority first, then who has waited longest, of those held in one page by index
    expand(node, fragment):                    what `Expand` comes to, of a node that runs
        the fragment's rows get free indexes of the run, all behind those that there are, next to
        each other and in their order (`flowq.plan.relocate`); the node takes over `entries`,
        `inner`, `value`, `tolerate`, `body` and `later` of row 0, the last two beside what is to
        follow its own failure, which stays last; it is an expansion from now on, its message kept
        node -> expanded, its entries start (none at all: it ends at once)
        from this step on it is followed by what its row 0 says goes along with others (`along`)

    parked: a node whose end nobody is to see (`Store.park`), since it is to run anew. Where it
        would be finished it keeps what it ended with beside, a task as held, an expansion as
        expanded; nothing is counted for it, and the run of a root does not end
        stop(x), cancel(x) of one end that first: it is finished with what it had ended with, if it
        had; then it is stopped as any. A cancel of the root ends it for all nodes of the run

    rewind(run, generation, chosen, reopened, dropped):       of a run that has ended, or goes on
        first its open pages are finished; then, in one step, what is to be done is stored, the root
        is expanded under the generation, and the run is kept without end; in pages:
        dropped: gone, as if they had never been made
        chosen: waiting under a new generation, without cell, attempts, losses, culprit; with counts
            of those parents that have ended, or which it follows and that have begun, and are not
            chosen; an expansion as its plan has it
            (what had become one by `Expand` is a task again)
        reopened: expanded under a new generation, in its body; its counts are those of the nodes in
            it that are not chosen; unfinished are the chosen ones of its body, and those not ended
            one that had ended, and stands in a body with `most`, waits instead, with these counts:
            it begins (as one in which a cancel has ended some nodes) when there is a place for it;
            so does one that had ended in such a one, with counts of its parents, and begins in it
        all other nodes that are parked: finished with what they ended with, if they have
        last: each chosen node that stands in what has begun is weighed, and each that waits for a
            place; without parents it starts;
            then each that is reopened, and the root, is passed where it has no unfinished node of
            its body
        Until that is done, nothing of the run is handed out; whoever settles, sends, cancels or
        finds due something of it drives it to its end first.

A task alone that expands becomes the root of a run that has its id and its times to live, and is
named by its task; from then on it is no task alone. Until the step that expands a node, nobody
sees anything of its fragment, however many round trips that takes; indexes that a lost delivery
had taken are not used by others.

A node that is BLOCKED names its culprit: the culprit of the parent if that is blocked, else the
parent itself if it is a task or join; for a parent that is an expansion, the expansion's own
culprit. A failed expansion's culprit is that of its first inner node which failed or was blocked
and is not forgiven; where there is none, since its need was not met, it is its own. Culprits are
stored as cells with the flag `CULPRIT`. The cell of an expansion that succeeds has the flag
`TEMPLATE` and its row's `value`; of a race, `TEMPLATE` and a `Ref` to the parent; of another join,
a success whose body is empty and whose flag is `EMPTY`; what lost ends with the text ``"lost"``;
those that end skipped or cancelled, by a rule or with an expansion around them that never began,
have a reason as text; what is blocked with an expansion has the same culprit.

Among the values that a node is handed, those of nodes that it `follows` are cells whose state is
EXPANDED, with the flag `TEMPLATE` and the `value` of the followed, whether that has ended or not;
a delivery has all of these, be it complete or not.

Order at hand-out: higher priority first over all the queues asked for. Within a priority what a
settlement queues or what comes back (retry, return, loss) goes before what was enqueued; what is
given back by `GiveBack`, not begun, before all that, in the order given; otherwise first come first
served, and nodes queued together (in one page) in the order of their indexes; what begins with a
run counts as enqueued, also what a later step of that starts. What one session loses at once comes
back in any order.

A message with losses is handed out only to a session that holds nothing, alone, and that session
is handed nothing more until it is settled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from flowq.message import Delivery, Message
from flowq.outcome import Outcome
from flowq.plan import Plan, Ranges
from flowq.states import Rule, State

__all__ = [
    "LAYOUT",
    "MEMORY_OF_ENDED_MS",
    "PAGE",
    "REPLY_BYTES",
    "SUBMIT_PAGE",
    "UNKNOWN_PATIENCE_MS",
    "DeadLetter",
    "Look",
    "Loss",
    "NodeInfo",
    "Places",
    "QueueInfo",
    "RunInfo",
    "Send",
    "Sent",
    "SessionId",
    "SessionInfo",
    "Status",
    "Step",
    "Store",
    "Swept",
    "Verdict",
]

LAYOUT: Final = 1
"""Number of the layout of stores; another one is refused."""
PAGE: Final = 500
"""Edges that one step walks at most; the rest stays under a stored cursor."""
SUBMIT_PAGE: Final = 4_000
"""Nodes that one call of ``submit`` carries at most; larger plans go in several."""
REPLY_BYTES: Final = 1024 * 1024
"""Bytes of upstream values that one answer carries at most (one cell goes whatever its size)."""
MEMORY_OF_ENDED_MS: Final = 600_000
"""An id is remembered so long after its end, whatever its time to live."""
UNKNOWN_PATIENCE_MS: Final = 600_000
"""A message whose task no worker knows becomes a dead letter after so long."""

SessionId: TypeAlias = str
"""Name of one life of a worker process: random, at most 40 characters of ``[a-z0-9-]``."""

Verdict: TypeAlias = Literal["settled", "repeated", "stale"]
"""``settled``: this call settled it. ``repeated``: an earlier call with the same delivery did.
``stale``: the delivery is not the present one, nothing changed."""


Send: TypeAlias = Literal["taken", "kept", "repeated", "ended"]
"""What became of something sent to a run; see `Store.send`."""


class SessionInfo(msgspec.Struct, frozen=True):
    """One life of a worker process, as people and other consumers see it.

    Attributes
    ----------
    id : str
    host : str
        For display, and to find sessions of this machine.
    boot : str
        Identity of this boot of the machine and its process namespace.
    pid : int
    pid_started : str
        When the process began, as its system says: tells a reused pid.
    kind : str
        ``"process"`` or ``"thread"``.
    lanes : int
        Bodies that it runs at a time.
    queues : tuple of str
    tasks : tuple of str
        Registered names that it knows.
    started_ms, deadline_ms : int
        `deadline_ms` is filled by the store.
    held : int
        How many messages it holds; filled by the store.
    parent : int
        The process that watches it and releases what it held if it dies; 0 if nobody does.
    parent_started : str
        As `pid_started`.
    """

    id: SessionId
    host: str = ""
    boot: str = ""
    pid: int = 0
    pid_started: str = ""
    kind: str = "thread"
    lanes: int = 1
    queues: tuple[str, ...] = ("default",)
    tasks: tuple[str, ...] = ()
    started_ms: int = 0
    deadline_ms: int = 0
    held: int = 0
    parent: int = 0
    parent_started: str = ""


class Step(msgspec.Struct, frozen=True):
    """What a step gives back.

    Attributes
    ----------
    verdicts : list of Verdict
        One for each outcome, in the order given.
    deliveries : list of Delivery
        What the session now holds in addition.
    ready : int
        How many messages are left in the queues asked for, those kept for a session that holds
        nothing included.
    alone : bool
        Whether messages wait for a session that holds nothing.
    next_ms : int or None
        0 where pages of edges are left: the next step, of whomever, moves them on. Else
        milliseconds until the next scheduled message is due or the next session's deadline
        passes, whichever is first (0 or more); None if there is neither.
    stops : list of bytes
        Ids that this session holds and that were cancelled.
    unopened : bool
        Whether nobody has said whose the session is: it began by a step, or anew after it was
        lost. `Store.open_session` says so.
    """

    verdicts: list[Verdict]
    deliveries: list[Delivery]
    ready: int = 0
    alone: bool = False
    next_ms: int | None = None
    stops: list[bytes] = []
    unopened: bool = False


class Look(msgspec.Struct, frozen=True):
    """What the store knows of one id.

    Attributes
    ----------
    state : State
    attempt, losses : int
        Failed attempts and lost workers so far; 0 once they are no longer kept.
    due_ms : int
        For ``scheduled``: when; else 0.
    cell : bytes or None
        For an ended task, node or run: its cell.
    run : bool
        Whether the id is a run's (then the state is its root's).
    """

    state: State
    attempt: int = 0
    losses: int = 0
    due_ms: int = 0
    cell: bytes | None = None
    run: bool = False


class RunInfo(msgspec.Struct, frozen=True):
    """One run.

    Attributes
    ----------
    id : bytes
    name : str
    state : State
        The root's.
    created_ms, ended_ms : int
        `ended_ms` is 0 while it runs.
    nodes : int
        How many nodes it has, the root not counted.
    value : bytes
        Encoded template of its value.
    paused : bool
    changes : int
        Another number once the state of a node of it has changed.
    request : bytes
        What `Store.park` was asked for and is not done yet.
    """

    id: bytes
    name: str
    state: State
    created_ms: int
    ended_ms: int
    nodes: int
    value: bytes
    paused: bool = False
    changes: int = 0
    request: bytes = b""


class NodeInfo(msgspec.Struct, frozen=True):
    """One node of a run.

    Attributes
    ----------
    index : int
    name : str
    task : str
        Registered name; empty for an expansion or a join.
    kind : int
        See `flowq.plan.Kind`.
    owner : int
    state : State
    generation, attempt, losses : int
    ready_ms, started_ms, ended_ms : int
        When it first might run; when the body of the delivery that settled it began; when it
        ended. 0 where it has not, or no body ran. While it is ``running``, `started_ms` is when it
        was handed out.
    parents : Ranges
    culprit : int or None
        Index of the node to blame, where there is one.
    bits, phase : int
        See `flowq.plan.Bits` and `flowq.plan.Phase`.
    grown : bool
        Whether a task has become an expansion.
    rule : Rule or None
        When it runs, counted over `parents`; None where all of them must succeed.
    signal : str
        Of a join that waits for what is sent: under which name; else empty.
    most : int
        Of an expansion: so many of its body may be under way at a time; 0: any number.
    follows : Ranges
        Those of `parents` that it follows: see `flowq.plan.NodeRow`.
    waits_at : str
        Of a node that is held: the key of the limit that has no room for it; empty where its run
        is paused, or it is parked.
    closing : bool
        Of an expansion that is expanded: whether its body has ended, or is stopped, so that it
        cannot be opened again now.
    parked : State or None
        Where nobody is to see its end: the state in which it has ended, or ``running`` as long as
        it has not.
    """

    index: int
    name: str
    task: str
    kind: int
    owner: int
    state: State
    generation: int = 0
    attempt: int = 0
    losses: int = 0
    ready_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    parents: Ranges = ()
    culprit: int | None = None
    bits: int = 0
    phase: int = 0
    grown: bool = False
    rule: Rule | None = None
    signal: str = ""
    most: int = 0
    follows: Ranges = ()
    waits_at: str = ""
    parked: State | None = None
    closing: bool = False


class Places(msgspec.Struct, frozen=True):
    """The places at one limit.

    Attributes
    ----------
    key : str
    most : int
        How many there are, as the node says that was asked for.
    taken : int
    holders : list of bytes
        Ids of nodes that have one, at most 100.
    waiting : int
        How many nodes wait for one.
    """

    key: str
    most: int
    taken: int
    holders: list[bytes]
    waiting: int


class Loss(msgspec.Struct, frozen=True, array_like=True):
    """A worker that was lost while it held a message."""

    session: str
    host: str
    pid: int
    delivery: int
    at_ms: int
    reason: str = ""


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """What was sent to a run.

    Attributes
    ----------
    name, to, key, who : str
        As given to `Store.send`.
    at_ms : int
    node : int or None
        Index of the node that has taken it; None while it is kept for one.
    """

    name: str
    to: str
    key: str
    who: str
    at_ms: int
    node: int | None = None


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that will not run, kept with the reason.

    A task's is kept ``failed_ttl`` from the moment it became one, a node's as long as its run.
    """

    id: bytes
    reason: str
    at_ms: int
    body: bytes
    losses: list[Loss] = []


class QueueInfo(msgspec.Struct, frozen=True):
    """One queue: how many messages are ready in it."""

    name: str
    ready: int


class Status(msgspec.Struct, frozen=True):
    """Counts over a whole store."""

    queues: list[QueueInfo]
    scheduled: int
    running: int
    dead: int
    runs: int


class Swept(msgspec.Struct, frozen=True):
    """What one call of ``sweep`` did: how many it expired, continued, and found wrong."""

    expired: int = 0
    continued: int = 0
    more: bool = False


@runtime_checkable
class Store(Protocol):
    """Where state lives. One object may be used by several threads at once, and after a fork."""

    url: str
    """Where it is, without the password."""
    shares_processes: bool
    """Whether other processes see it; ``memory://`` does not."""
    most: int
    """How many outcomes and messages one step should carry, at most 1,000. All others wait as long
    as a step takes: the whole server of Redis (128), or those who write to a file of SQLite, where
    a sync costs more than many rows (512)."""

    # --- what changes ---------------------------------------------------------------------------

    def enqueue(self, messages: Sequence[Message]) -> list[bool | None]:
        """Take tasks called alone (ids of 16 bytes), all in one atomic step.

        Each becomes ``queued``, or ``scheduled`` if `delay_ms` or `due_ms` lies ahead.

        Returns
        -------
        list of bool or None
            False where the id exists already (unfinished, or ended and still remembered): nothing
            changed, so an enqueue whose answer was lost can be repeated. None where it does not,
            and what it names as its parent was cancelled or has lost, or is to stop: it is not
            taken.
        """
        ...

    def submit(self, plan: Plan) -> bool | None:
        """Start a run. Until its last page is stored, no worker sees any of it.

        One round trip up to `SUBMIT_PAGE` rows; larger plans go in pages, of which an abandoned
        upload expires by itself within an hour. The last page starts the root in the same step.

        Returns
        -------
        bool or None
            False if the run exists already, None if it is refused as by `enqueue`; nothing changed.
        """
        ...

    def fork(
        self,
        run: bytes,
        new: bytes,
        *,
        seen: int,
        chosen: Ranges,
        reopened: Ranges = (),
        dropped: Ranges = (),
        messages: Mapping[int, Message] = {},
    ) -> bool | None:
        """Start a run that takes over from one that has ended what it does not run itself.

        As if all of that run were copied under a new id (its nodes by their indexes, their cells,
        deliveries and generations; not what was sent to it, nor its dead letters), and the copy
        rewound with these sets. Until the last page is stored nobody sees any of it, and an
        abandoned copy expires, as with `submit`.

        Parameters
        ----------
        run, new : bytes
            16 bytes each. What `new` is called, and how long it is kept, is as of `run`.
        seen : int
            `RunInfo.changes` of `run` as it was when the nodes were chosen.
        chosen, reopened, dropped : Ranges
            As for `rewind`.
        messages : mapping
            For chosen tasks by index: messages in the place of theirs.

        Returns
        -------
        bool or None
            False if `run` has not ended or has changed since; True if the new run was started, now
            or by a call before; None if `run` is not known (and there is no `new`).
        """
        ...

    def step(
        self,
        session: SessionId,
        outcomes: Sequence[Outcome] = (),
        *,
        want: int = 0,
        queues: Sequence[str] = ("default",),
        lease_ms: int = 30_000,
        bound_ms: int = 0,
    ) -> Step:
        """Settle outcomes, and hand out up to `want` messages: the one atomic step of a worker.

        In this order: settle each outcome whose (id, delivery) this session holds; move on one
        page of work that earlier steps left; take back what sessions past their deadline held
        (a bounded number; each message counts a loss; over its `max_losses` it ends ``failed`` as
        a dead letter); queue what is due, and end what has slept, with a page of what that lets
        go on; fail what is expired and would be handed out; hand out.
        Moves the session's own deadline `lease_ms` ahead. First of all it closes a gap as `renew`
        does, with a third of `lease_ms` as the period: who comes first after the store was out of
        reach must not take back what the living hold.

        `want` > 1 is cut to this session's share of what is ready (ready / live sessions, rounded
        up, at least 1) unless `want` is so small anyway. A message with ``prefetch=1`` is
        handed out as the only one of its step. With ``max_losses == 0`` a lost message ends at its
        first loss; otherwise when losses reach `max_losses`.

        A settlement of a message that was cancelled while it ran ends it ``cancelled``, whatever
        the outcome says; so does `RetryAt`, `GiveBack` or `Unknown` of one.

        Parameters
        ----------
        session : SessionId
            As given to `open_session`; a session that was released or lost begins anew by this,
            and the answer says that it is to be opened again.
        outcomes : sequence of Outcome, at most 1,000
        want : int, 0 to 1,000
        queues : sequence of str
            Highest priority over all of them first; where equal, the queues in the order given
            (a worker rotates it).
        lease_ms : int
        bound_ms : int
            Reserved; 0.

        Raises
        ------
        StoreUnavailable
            It is not known what happened. Call `held` before the next step, and repeat the
            outcomes.
        """
        ...

    def open_session(self, info: SessionInfo, *, lease_ms: int = 30_000) -> None:
        """Register a session, so that people and other consumers see it. Repeating is safe."""
        ...

    def renew(
        self, sessions: Sequence[SessionId], *, lease_ms: int = 30_000, period_ms: int = 10_000
    ) -> list[list[bytes] | None]:
        """Push back the deadlines of sessions, and learn what they must stop.

        If nobody at all renewed or stepped for longer than `period_ms`, the store was out of
        reach: every session's deadline (those not named here too) moves on by what the gap
        exceeds the period, before anything is taken back.

        Returns
        -------
        list
            For each session the ids that were cancelled while it holds them, or None if the
            session is not known (lost or released).
        """
        ...

    def held(self, session: SessionId) -> list[Delivery]:
        """Read back what a session holds, after an answer may have been lost."""
        ...

    def release(self, session: SessionId, *, lost: Sequence[bytes] = (), reason: str = "") -> int:
        """End a session: what it held goes back to its queues at once.

        `lost` names the ids that it was running when it died: each counts a loss (see `step`),
        `reason` (a signal, an exit code) is kept in their history. All others go back uncounted.
        Releasing a session that is gone changes nothing.

        Returns
        -------
        int
            How many messages went back or ended.
        """
        ...

    def cancel(self, ids: Sequence[bytes], *, force: bool = False) -> list[State | None]:
        """Stop tasks, nodes or runs.

        Unstarted ones end ``cancelled`` in this step (with what depends on them); a running one is
        marked, its session is told by `step` and `renew` and woken, and whatever it settles to
        counts as ``cancelled``. A run, and an expansion that has begun, is cancelled inwards as is
        told above; the call drives its own pages to the end. Final ones stay.

        Returns
        -------
        list of State or None
            The state after the call; None for an id that is not known.
        """
        ...

    def rewind(
        self,
        run: bytes,
        generation: int,
        *,
        chosen: Ranges,
        reopened: Ranges = (),
        dropped: Ranges = (),
        seen: int = -1,
    ) -> bool | None:
        """Let nodes of a run run again, under a new generation.

        The one operation behind retry, rerun and replay; which nodes it takes is not the store's
        to know. The call drives its own pages to the end; a crash between them is mended by
        whoever comes by. It takes back what `park` asked for.

        Of a run that has not ended, none of the chosen may be under way, but for parked ones that
        have ended: each is waiting, scheduled, held, queued, or has ended; and each that is
        reopened, the root too, has ended, or is parked and has, or is in its body and nothing
        closes that.

        Parameters
        ----------
        run : bytes
        generation : int
            One more than the root's. A call under the root's own chooses nothing; it does what
            is left of the pages of that generation.
        chosen : Ranges
            Nodes that run again, with all that depends on them and all that is inside them.
        reopened : Ranges
            Expansions around chosen nodes that are not chosen themselves, but for the root.
        dropped : Ranges
            What stands inside chosen nodes that had become expansions by `Expand`.
        seen : int
            `RunInfo.changes` as it was when the nodes were chosen; of a run that has ended it need
            not be given.

        Returns
        -------
        bool or None
            True if it is (or was by a call before) rewound to that generation; False if its
            generation is another one, or it has not ended and has changed since (or none was
            given), or something of it is under way that may not be; None if it is not known.
        """
        ...

    def park(
        self, run: bytes, request: bytes, *, seen: int, nodes: Ranges, stop: Ranges = ()
    ) -> bool | None:
        """Let nobody see how nodes end that are to run anew, and stop some of them.

        A rewind of a run that goes on begins with this, where something is under way that it
        chooses, or what it opens is past its body. What is asked for is kept with the run, for
        whoever is to rewind it, until that is done, or the run is cancelled.

        Parameters
        ----------
        run : bytes
        request : bytes
            What is asked for; replaces an earlier one. Never empty.
        seen : int
            `RunInfo.changes` as it was when the nodes were chosen.
        nodes : Ranges
            Nodes that are running or expanded; the root may be one. An expansion is over when all
            in it has ended, so what stands in one of these is not named, but for the root.
        stop : Ranges
            Those of them that are stopped now, as by a cancel.

        Returns
        -------
        bool or None
            False if the run has ended, or changed since, or one of the nodes is not under way (it
            may be parked already); True if it was done by a call before with the same request; None
            if the run is not known.
        """
        ...

    def send(
        self,
        run: bytes,
        name: str,
        body: bytes,
        *,
        to: str = "",
        key: str = "",
        who: str = "",
    ) -> Send | None:
        """Send a value to a run: to a join that waits for that name, or to the next one that does.

        Of those that wait (with `to`: that are called so, or whose name begins with ``to/``), the
        one that has waited longest gets it and ends as a success in this step; equal ones by
        index. If none waits, it is kept until one begins to. A run keeps what was sent to it.

        Parameters
        ----------
        run : bytes
        name : str
        body : bytes
            Body of the cell of a success.
        to : str
            Name of a node, or of what is around it.
        key : str
            A second send to the run with the same key changes nothing. Empty: no key.
        who : str
            Who sent it, for people.

        Returns
        -------
        Send or None
            ``taken`` by a node, ``kept`` for one, ``repeated`` (there was one with that key), or
            ``ended``: the run has ended, nothing was kept. None if it is not known.
        """
        ...

    def sent(self, run: bytes) -> list[Sent]:
        """List what was sent to a run, in the order of time."""
        ...

    def pause(self, run: bytes) -> State | None:
        """Let nothing more of a run be handed out; what runs goes on, and clocks do too.

        A step that would hand out a node of it puts that to ``held`` instead (so it leaves the
        places it had at limits). A cancel of the run
        lets it go on, so that what cleans up after it may run; its end ends the pause.

        Returns
        -------
        State or None
            Its state after the call; one that has ended is not paused. None if it is not known.
        """
        ...

    def resume(self, run: bytes) -> State | None:
        """Let a run that is paused go on: its held nodes are queued, as what comes back is.

        Those for which a limit has no room wait there as before.

        The call drives its own pages to the end. Gives what `pause` does.
        """
        ...

    def reschedule(self, id: bytes, *, delay_ms: int = 0, due_ms: int = 0) -> State | None:
        """Let an unstarted task become due at another time (neither: now).

        Returns
        -------
        State or None
            The state after the call: ``queued`` or ``scheduled`` if it was moved (a node that
            sleeps stays ``scheduled`` till the next step that finds it due); any other state
            (unchanged) if it was not ``queued`` or ``scheduled``; None if the id is not known.
        """
        ...

    def sweep(self, *, limit: int = 1_000) -> Swept:
        """Do a bounded part of the housekeeping.

        Drop what has expired (no unfinished thing ever does), fail messages that expired unseen,
        continue pages that were left, trim files.
        """
        ...

    def check(self, run: bytes) -> list[str]:
        """Compare a run's stored counts with its nodes' states; give what is wrong, in words."""
        ...

    # --- what is remembered beside --------------------------------------------------------------

    def recall(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Give what is remembered under keys of 16 bytes; None where nothing is, or no longer."""
        ...

    def remember(self, entries: Sequence[tuple[bytes, bytes]], *, ttl_ms: int) -> None:
        """Remember bytes under keys of 16 bytes, for so long; what was there before is replaced.

        Each entry is atomic, and so is what `recall` gives of it. Repeating is safe.
        """
        ...

    # --- what waits -----------------------------------------------------------------------------

    def wait_ready(self, queues: Sequence[str], *, timeout: float) -> bool:
        """Sleep until work may be there (a hint, never a promise) or `timeout` seconds passed.

        Returns
        -------
        bool
            Whether a hint came.
        """
        ...

    def wait_ended(self, ids: Sequence[bytes], *, timeout: float) -> bool:
        """Sleep until one of these tasks, nodes or runs may have ended, or `timeout` seconds.

        Returns at once if one of them has ended already or is not known. At most 1,000 ids.

        Returns
        -------
        bool
            Whether one may have ended (look to be sure).
        """
        ...

    def wait_moved(self, run: bytes, *, seen: int, timeout: float) -> bool:
        """Sleep until `RunInfo.changes` of a run may be another number than `seen`.

        Returns at once if it is, or the run is not known. A body that begins is told, too.

        Returns
        -------
        bool
            Whether something may have moved (look to be sure); False after `timeout` seconds.
        """
        ...

    def wake(self) -> None:
        """Let every `wait_ready` of this store *object* (all its threads) return now."""
        ...

    # --- what reads -----------------------------------------------------------------------------

    def look(self, ids: Sequence[bytes], *, cells: bool = True) -> list[Look | None]:
        """Say where ids stand; None where one is not known. One round trip, at most 1,000 ids."""
        ...

    def cells(self, run: bytes, ranges: Ranges) -> dict[int, bytes]:
        """Read the cells of a run's nodes by index, those that exist; pages by bytes itself."""
        ...

    def message(self, id: bytes) -> bytes | None:
        """Give the encoded message of a task or node, or None where it is no longer kept."""
        ...

    def run(self, id: bytes) -> RunInfo | None:
        """Describe one run, or None."""
        ...

    def started(
        self, id: bytes, *, after: bytes = b"", limit: int = 500
    ) -> list[tuple[bytes, bytes]]:
        """List what bodies of a run, or of a task called alone, have started.

        Parameters
        ----------
        id : bytes
            16 bytes.
        after : bytes
            The last one of the page before.
        limit : int

        Returns
        -------
        list of (bytes, bytes)
            For each, in the order of their starts: what started it (`Message.parent`,
            `Plan.parent`), and its own id. Kept as long as that run or task is, whether what was
            started is or not.
        """
        ...

    def nodes(
        self, run: bytes, *, after: int = -1, limit: int = 500, state: State | None = None
    ) -> list[NodeInfo]:
        """List nodes of a run by index (the root, index 0, included), those after `after`.

        With `state`, only nodes in it; a page that is shorter than `limit` is the last one.
        """
        ...

    def places(self, id: bytes) -> list[Places]:
        """Describe the limits of a node, in their order; empty where it has none."""
        ...

    def runs(self, *, after: bytes = b"", limit: int = 100) -> list[RunInfo]:
        """List runs, newest first; `after` is the last id of the page before."""
        ...

    def sessions(self) -> list[SessionInfo]:
        """List the sessions whose deadline has not passed."""
        ...

    def status(self) -> Status:
        """Count."""
        ...

    def left(self, queues: Sequence[str]) -> bool:
        """Say whether anything is ready, scheduled or running in these queues.

        What still waits for others (a node whose upstream runs in another queue) is not looked at;
        pages of work that a step left are, whatever they lead to, and so are nodes that sleep.
        """
        ...

    def dead(self, *, after: bytes = b"", limit: int = 100) -> list[DeadLetter]:
        """List dead letters, newest first; `after` is the last id of the page before."""
        ...

    def dead_letter(self, id: bytes) -> DeadLetter | None:
        """Give one dead letter, or None."""
        ...

    def close(self) -> None:
        """Close connections; the object may be used again, and then opens new ones."""
        ...
