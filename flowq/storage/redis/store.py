# SPDX-License-Identifier: MIT
"""A store on a Redis or Valkey server: each transition is one script (see ``lua/``)."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Any

from flowq.clock import SYSTEM_CLOCK, Clock
from flowq.errors import StoreError, StoreUnavailable, StoreVersionError
from flowq.message import Delivery, Message
from flowq.outcome import (
    Cancelled,
    Done,
    Expand,
    Failed,
    GiveBack,
    Outcome,
    RetryAt,
    Skipped,
    Unknown,
)
from flowq.plan import Plan, relocate
from flowq.policy import check_name
from flowq.states import State
from flowq.storage.base import (
    LAYOUT,
    REPLY_BYTES,
    Send,
    SessionId,
    SessionInfo,
    Step,
    Swept,
    Verdict,
)  # fmt: skip
from flowq.storage.redis import rows, scripts
from flowq.storage.redis.again import Again, lost
from flowq.storage.redis.connection import Connections, Waker, parse_url
from flowq.storage.redis.keys import KEYS, prefix, route

__all__ = ["RedisStore"]

log = logging.getLogger("flowq.storage.redis")

_VERDICT: dict[int, Verdict] = {ord("s"): "settled", ord("r"): "repeated", ord("x"): "stale"}
_SENT: dict[bytes, Send | None] = {
    b"taken": "taken", b"kept": "kept", b"repeated": "repeated", b"ended": "ended",
    b"missing": None,
}  # fmt: skip
_TAKEN = {ord("1"): True, ord("0"): False, ord("2"): None}
_REPLY = b"%d" % REPLY_BYTES
_TYPES = b"""local out = {}
for k, key in ipairs(KEYS) do out[k] = redis.call('TYPE', key).ok end
return out"""
_KINDS: dict[type, bytes] = {
    Done: b"\0", Failed: b"\2", Skipped: b"\3", Cancelled: b"\4", GiveBack: b"\5", Unknown: b"\6",
}  # fmt: skip


def _frame(arg: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(arg), arg)


class RedisStore(Again):
    """A store on a Redis server from 7.0 on, or any Valkey; see `flowq.storage.base.Store`.

    Parameters
    ----------
    url : str
        ``redis://``, ``rediss://`` or ``unix://``. Of flowq's own: ``?timeout=`` (seconds to wait
        for an answer, 10) and ``?eviction=warn`` (only warn of a server that may drop keys).
    name : str
        The app's name: all keys begin with ``{name}:``.
    clock : Clock
        For tests; the time is the server's otherwise.
    """

    shares_processes = True
    most = 128

    def __init__(self, url: str, *, name: str = "flowq", clock: Clock = SYSTEM_CLOCK) -> None:
        check_name(name, "the app's name")
        real, self.url, options = parse_url(url)
        self.name = name
        self._clock = clock
        self._key = prefix(name)
        self._route = _frame(route(name))
        self._refuse_eviction = options.get("eviction") != "warn"
        self._wire = Connections(real, float(options.get("timeout", "10")), self._greet)
        self._lock = threading.Lock()
        self._wakers: set[Waker] = set()
        self._pid = os.getpid()
        self._sessions: dict[SessionId, None] = {}
        self._local = threading.local()
        self._scripts = {n: scripts.load(n) for n in scripts.NAMES}

    @classmethod
    def from_url(cls, url: str, *, name: str = "flowq", clock: Clock = SYSTEM_CLOCK) -> RedisStore:
        """Open the store of a URL; nothing is connected before it is first used."""
        return cls(url, name=name, clock=clock)

    def __repr__(self) -> str:
        return f"<RedisStore {self.url} {self.name}>"

    # --- asking the server ----------------------------------------------------------------------

    def _run(
        self,
        script: str,
        *args: bytes,
        again: bool = True,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        framed = [self._route, _frame(b"%d" % self._clock.fixed_ms()), *map(_frame, args)]
        return self._wire.run(
            self._scripts[script], framed, len(framed), again=again, meanwhile=meanwhile
        )

    def _now(self) -> int:
        fixed = self._clock.fixed_ms()
        if fixed:
            return fixed
        seconds, micros = self._wire.ask(b"TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def _greet(self, ask: Any) -> None:
        """Look at a server before it is used: version, what it may drop, layout, types of keys."""
        info = {}
        for line in ask(b"INFO").decode("utf-8", "replace").splitlines():
            field, colon, value = line.partition(":")
            if colon:
                info[field] = value
        version = info.get("redis_version", "0")
        if info.get("server_name") != "valkey" and int(version.split(".")[0] or 0) < 7:
            raise StoreVersionError(
                f"the server at {self.url} is Redis {version}; flowq needs 7.0 or newer, or Valkey"
            )
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and info.get("maxmemory", "0") != "0":
            text = (
                f"the server at {self.url} drops keys when its memory is full "
                f"(maxmemory-policy {policy}), so tasks would vanish; set it to noeviction"
            )
            if self._refuse_eviction:
                raise StoreError(f"{text}, or add ?eviction=warn to the URL")
            log.warning(text)
        key = self._key + b"layout"
        found = ask(b"GET", key)
        if found is None:
            ask(b"SET", key, b"%d" % LAYOUT, b"NX")
            found = ask(b"GET", key)
        if found != b"%d" % LAYOUT:
            raise StoreVersionError(
                f"the store {self.name!r} at {self.url} has layout "
                f"{(found or b'?').decode('utf-8', 'replace')}, this flowq knows {LAYOUT}; "
                "use the version of flowq that made it, or another name"
            )
        # A script that met another program's key half way would leave what it had written.
        fixed = {name: kind for name, (kind, _) in KEYS.items() if "<" not in name}
        types = ask(b"EVAL", _TYPES, b"%d" % len(fixed), *(self._key + n.encode() for n in fixed))
        for (key_name, kind), found in zip(fixed.items(), types, strict=True):
            if found.decode() not in ("none", kind):
                raise StoreError(
                    f"the key {{{self.name}}}:{key_name} at {self.url} is a {found.decode()}, "
                    f"not a {kind}: another program has written it; remove it, or use another name"
                )

    # --- what changes ---------------------------------------------------------------------------

    def enqueue(self, messages: Sequence[Message]) -> list[bool | None]:
        """Take tasks called alone; see `Store.enqueue`."""
        if not messages:
            return []
        args = [b"%d" % len(messages)]
        for m in messages:
            args += (m.id, rows.single_row(m), rows.timed(m) + m.parent)
        return [_TAKEN[x] for x in self._run("enqueue", *args)]

    def submit(self, plan: Plan) -> bool | None:
        """Start a run, in pages where it is large; see `Store.submit`."""
        coming = rows.plan_pages(plan)
        page = next(coming, None)

        def go_on() -> None:
            nonlocal page
            page = next(coming, None)

        answer = b"0"
        while page is not None:
            answer = self._run("submit", *page, meanwhile=go_on)
            if answer == b"known":
                return False
            if answer == b"refused":
                return None
            if answer == b"lost":
                raise lost(plan.id)
        self._drive(int(answer))
        return True

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
        """Settle and hand out; see `Store.step`."""
        self._sessions[session] = None
        grown = self._reserve(session, outcomes)
        served = list(dict.fromkeys(queues))
        args = [
            b"%d" % self._clock.fixed_ms(), session.encode(), b"%d" % lease_ms, b"%d" % want,
            _REPLY, b"%d" % len(outcomes), b"%d" % len(served), *(q.encode() for q in served), b"b",
        ]  # fmt: skip
        framed = [self._route, *map(_frame, args)]
        if outcomes:
            metas, datas = [], []
            for o in outcomes:
                framed.append(b"$%d\r\n%b\r\n" % (len(o.id), o.id))
                if type(o) is Done:
                    metas.append(b"$5\r\n%b\0\r\n" % o.delivery.to_bytes(4, "big"))
                    datas.append(b"$%d\r\n%b\r\n" % (len(o.cell), o.cell))
                else:
                    meta, data = _other(o, grown)
                    metas.append(b"$5\r\n%b\r\n" % meta)
                    datas.append(_frame(data))
            framed += metas
            framed += datas
        script, count = self._scripts["step"], len(framed)
        while len(answer := self._wire.run(script, framed, count, again=False)) == 1:
            self._go_on(answer[0])
        verdicts, ready, alone, next_ms, stops, ids, bodies, more, unopened = answer
        return Step(
            [_VERDICT[v] for v in verdicts],
            rows.read_deliveries(ids, bodies, more) if ids else [],
            ready,
            alone == 1,
            None if next_ms < 0 else next_ms,
            stops,
            unopened == 1,
        )

    def _reserve(self, session: SessionId, outcomes: Sequence[Outcome]) -> dict[bytes, bytes]:
        """Give fragments their places, and store all but the last page of large ones."""
        grown: dict[bytes, bytes] = {}
        for o in outcomes:
            if type(o) is not Expand:
                continue
            total = len(o.rows) - 1
            head = (session.encode(), o.id, o.delivery.to_bytes(4, "big"), b"%d" % total)
            base = self._run("grow", *head, b"-1", b"")
            if base < 0:
                continue  # the step says what became of it
            at = int.from_bytes(o.id[16:], "big")
            moved = relocate(o.rows, at=at, base=base, run=o.id[:16])
            guards = rows.guarded(moved[1:])
            *others, (done, last) = rows.pages(map(rows.node_row, moved[1:]))
            for first, page in others:
                of_page = moved[1 + first : 1 + first + len(page)]
                records = rows.grown_records(of_page, base + first, guards)
                args = [*head, b"%d" % first, records]
                for index, raw in enumerate(page, base + first):
                    args += (index.to_bytes(4, "big"), raw)
                if self._run("grow", *args) < 0:
                    break
            grown[o.id] = rows.growth(moved, last, at, base, done)
        return grown

    def open_session(self, info: SessionInfo, *, lease_ms: int = 30_000) -> None:
        """Register a session; see `Store.open_session`."""
        self._sessions[info.id] = None
        self._run("open", info.id.encode(), b"%d" % lease_ms, rows.session_row(info))

    def renew(
        self, sessions: Sequence[SessionId], *, lease_ms: int = 30_000, period_ms: int = 10_000
    ) -> list[list[bytes] | None]:
        """Push back deadlines; see `Store.renew`."""
        answer = self._run(
            "renew", b"%d" % lease_ms, b"%d" % period_ms, *(s.encode() for s in sessions)
        )
        for session, found in zip(sessions, answer, strict=True):
            if isinstance(found, int):
                self._sessions.pop(session, None)
            else:
                self._sessions[session] = None
        return [None if isinstance(x, int) else x for x in answer]

    def held(self, session: SessionId) -> list[Delivery]:
        """Read back what a session holds; see `Store.held`."""
        ids, bodies, more = self._run("held", session.encode(), _REPLY)
        return rows.read_deliveries(ids, bodies, more)

    def release(self, session: SessionId, *, lost: Sequence[bytes] = (), reason: str = "") -> int:
        """End a session; see `Store.release`."""
        self._sessions.pop(session, None)
        args = (session.encode(), reason.encode()[:1000], *lost)
        while isinstance((answer := self._run("release", *args))[0], bytes):
            self._go_on(answer[0])
        n, left = answer
        self._drive(left)
        return int(n)

    def cancel(self, ids: Sequence[bytes], *, force: bool = False) -> list[State | None]:
        """Stop tasks, nodes or runs; see `Store.cancel`."""
        if not ids:
            return []
        again = list(ids)
        while again:
            *known, left = self._run("cancel", b"1" if force else b"0", *again)
            self._drive(left)
            again = [id for id, answer in zip(again, known, strict=True) if answer == 2]
            for id in again:  # a new generation that is being made is made first
                self._go_on(id[:16])
        return [None if x is None else x.state for x in self.look(ids, cells=False)]

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
        """Send a value to a run; see `Store.send`."""
        texts = (name.encode(), to.encode(), key.encode(), who.encode())
        while (answer := self._run("send", run, *texts, body, again=bool(key))) == b"busy":
            self._go_on(run)
        return _SENT[answer]

    def pause(self, run: bytes) -> State | None:
        """Let nothing more of a run be handed out; see `Store.pause`."""
        state, _ = self._run("pause", run, b"1")
        return None if state < 0 else State(state)

    def resume(self, run: bytes) -> State | None:
        """Let a run that is paused go on; see `Store.resume`."""
        state, left = self._run("pause", run, b"0")
        self._drive(left)
        return None if state < 0 else State(state)

    def reschedule(self, id: bytes, *, delay_ms: int = 0, due_ms: int = 0) -> State | None:
        """Let an unstarted task become due at another time; see `Store.reschedule`."""
        while self._run("reschedule", id, b"%d" % delay_ms, b"%d" % due_ms) == 2:
            self._go_on(id[:16])
        found = self.look([id], cells=False)[0]
        return None if found is None or found.run else found.state

    def sweep(self, *, limit: int = 1_000) -> Swept:
        """Do a bounded part of the housekeeping; see `Store.sweep`."""
        expired, continued, more = self._run("sweep", b"%d" % limit)
        return Swept(expired, continued, more == 1)

    # --- what is remembered beside --------------------------------------------------------------

    def remember(self, entries: Sequence[tuple[bytes, bytes]], *, ttl_ms: int) -> None:
        """Remember bytes under keys; see `Store.remember`."""
        fixed = self._clock.fixed_ms()
        till = rows.ms(fixed + ttl_ms if fixed else 0)
        for key, raw in entries:
            name = self._key + b"cache:" + key
            self._wire.ask(b"SET", name, till + raw, b"PX", b"%d" % max(1, ttl_ms))

    # --- what waits -----------------------------------------------------------------------------

    def wait_ready(self, queues: Sequence[str], *, timeout: float) -> bool:
        """Sleep until work may be there; see `Store.wait_ready`."""
        if self._pid != os.getpid():
            # After a fork: those who waited, and a lock that one of them held, are the parent's.
            self._pid, self._lock, self._wakers = os.getpid(), threading.Lock(), set()
        waker = Waker()
        with self._lock:
            self._wakers.add(waker)
        try:
            keys = [self._key + b"y:" + s.encode() for s in list(self._sessions)]
            keys += [self._key + b"k:" + q.encode() for q in dict.fromkeys(queues)]
            if not keys:
                keys = [self._key + b"k:"]
            return self._wire.block([b"BZPOPMIN", *keys], timeout, waker) is not None
        finally:
            with self._lock:
                self._wakers.discard(waker)
            waker.close()

    def wake(self) -> None:
        """Let every `wait_ready` of this object return now."""
        with self._lock:
            for waker in self._wakers:
                waker.wake()

    def wait_moved(self, run: bytes, *, seen: int, timeout: float) -> bool:
        """Sleep until a run may have moved; see `Store.wait_moved`."""
        token = self._token()
        if self._run("watch", token, run, b"%d" % seen):
            return True
        return self._await(token, [run + b"m"], timeout)

    def wait_ended(self, ids: Sequence[bytes], *, timeout: float) -> bool:
        """Sleep until one of these may have ended; see `Store.wait_ended`."""
        token = self._token()
        if self._run("wait", token, b"1", *ids):
            return True
        return self._await(token, ids, timeout)

    def _token(self) -> bytes:
        """Give the name under which this thread waits."""
        local = self._local
        if getattr(local, "pid", 0) != os.getpid():
            local.pid, local.token = os.getpid(), secrets.token_bytes(16)
        token: bytes = local.token
        return token

    def _await(self, token: bytes, what: Sequence[bytes], timeout: float) -> bool:
        """Sleep until somebody answers who has seen that this thread waits for that."""
        try:
            key = self._key + b"a:" + token
            return self._wire.block([b"BLPOP", key], max(0.0, timeout)) is not None
        finally:
            self._forget(token, what)

    def _forget(self, token: bytes, ids: Sequence[bytes]) -> None:
        try:
            self._run("wait", token, b"0", *ids)
        except StoreUnavailable:
            log.debug("a note of who waits was left: the server is away")

    def close(self) -> None:
        """Close connections; the next use opens new ones."""
        self.wake()
        self._wire.close()


def _other(o: Outcome, grown: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """Give delivery and kind, and the data, of an outcome (``lua/_settle.lua``)."""
    delivery = o.delivery.to_bytes(4, "big")
    if isinstance(o, Expand):
        return delivery + b"\x08", grown.get(o.id, b"")
    if isinstance(o, RetryAt):
        return delivery + b"\1", b"%d" % o.delay_ms
    if isinstance(o, GiveBack):
        return delivery + b"\5", b""
    if isinstance(o, Failed) and o.dead:
        reason = o.dead.encode()[:1000]
        return delivery + b"\7", len(reason).to_bytes(2, "big") + reason + o.cell
    return delivery + _KINDS[type(o)], o.cell
