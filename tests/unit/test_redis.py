# SPDX-License-Identifier: MIT
"""What is the Redis store's own: times to live, a server that dies, pauses, forgets or is full."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from flowq.errors import ConfigError, StoreError, StoreUnavailable, StoreVersionError
from flowq.message import (
    NO_NODE,
    Delivery,
    Items,
    Message,
    Ref,
    encode_template,
    new_id,
    node_id,
    pack_cell,
)
from flowq.outcome import Done, Failed, GiveBack, RetryAt
from flowq.plan import Bits, Kind, NodeRow, Plan
from flowq.states import Rule, State
from flowq.storage import open_store
from flowq.storage.base import PAGE, SUBMIT_PAGE, SessionInfo
from flowq.storage.redis import rows, scripts
from flowq.storage.redis.connection import Connections, parse_url
from flowq.storage.redis.store import RedisStore
from flowq.testing.clock import ManualClock
from tests.servers import RedisServer


@pytest.fixture
def store(redis_url: str, store_name: str) -> Iterator[RedisStore]:
    made = RedisStore(redis_url, name=store_name)
    yield made
    made.close()


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def task(**more: Any) -> Message:
    return Message(id=new_id(), task="t", payload=b"P", **more)


def done(d: Delivery, body: bytes = b"v") -> Done:
    return Done(d.id, d.delivery, pack_cell(6, body, delivery=d.delivery, ended_ms=1))


def failed(d: Delivery) -> Failed:
    return Failed(d.id, d.delivery, pack_cell(7, b"", delivery=d.delivery, ended_ms=1))


def all_of(n: int) -> Rule:
    return Rule(n, 0, n, 0, 0)


def fan(width: int, *, join: bool = True) -> Plan:
    """One node, `width` below it, and one below them all."""
    run = new_id()
    last = width + 2

    def message(i: int) -> Message:
        return Message(id=node_id(run, i), task="t", payload=b"P")

    rows = [
        NodeRow("root", Kind.EXPANSION, NO_NODE, all_of(0), entries=((1, 1),),
                inner=width + 1 + join, value=encode_template(Ref(last) if join else Items(2, 1))),
        NodeRow("a", Kind.TASK, 0, all_of(0), children=((2, width),), message=message(1)),
    ]  # fmt: skip
    below = ((last, 1),) if join else ()
    rows += [
        NodeRow(f"b[{i - 2}]", Kind.TASK, 0, all_of(1), ((1, 1),), below, message=message(i))
        for i in range(2, width + 2)
    ]
    if join:
        rows.append(
            NodeRow("c", Kind.TASK, 0, all_of(width), ((2, width),), reads=((2, width),),
                    message=message(last), bits=Bits.NAMED)
        )  # fmt: skip
    return Plan(run, "fan", rows)


def work(store: RedisStore, *, session: str = "s", want: int = 100) -> int:
    """Run whatever is ready until nothing is; gives how many deliveries there were."""
    n = 0
    outcomes: list[Done] = []
    while True:
        got = store.step(session, outcomes, want=want).deliveries
        if not got:
            return n
        n += len(got)
        outcomes = [done(d) for d in got]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.001)


def keys_of(raw: redis.Redis, name: str) -> dict[str, int]:
    """Keys of a store by their kind, with their time to live."""
    found = {}
    for key in raw.scan_iter(match=f"{{{name}}}:*", count=1000):
        found[key.split(b":", 1)[1].decode("latin-1")] = raw.pttl(key)
    return found


# --- a cluster


@pytest.fixture
def cluster() -> Iterator[list[redis.Redis]]:
    """Two nodes that share the slots."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for _ in range(2):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                bus = probe.getsockname()[1]
            options = ["--cluster-enabled", "yes", "--cluster-port", str(bus)]
            server = stack.enter_context(RedisServer(tcp=True, options=options))
            nodes.append(stack.enter_context(redis.Redis(port=server.port)))
        for k, node in enumerate(nodes):
            node.execute_command("CLUSTER ADDSLOTSRANGE", k * 8192, k * 8192 + 8191)
        port = nodes[1].connection_pool.connection_kwargs["port"]
        nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", port, bus)

        def agree() -> bool:
            infos = [n.execute_command("CLUSTER INFO") for n in nodes]
            if not all(isinstance(x, dict) for x in infos):
                infos = [dict(x.split(":") for x in i.decode().split()) for i in infos]
            return all(x["cluster_state"] == "ok" and x["cluster_size"] == "2" for x in infos)

        wait_until(agree)
        yield nodes


def test_a_store_finds_its_node_of_a_cluster_and_follows_it_elsewhere(
    cluster: list[redis.Redis],
) -> None:
    slot = cluster[0].execute_command("CLUSTER KEYSLOT", "{moving}:L")
    owner, other = cluster if slot < 8192 else cluster[::-1]
    store = RedisStore(url_of(other), name="moving")
    waiting = RedisStore(url_of(other), name="moving")

    store.enqueue([task()])
    assert work(store) == 1 and work(waiting) == 0
    assert waiting.wait_ready(["default"], timeout=5)  # what the enqueue left
    thread, out = wait_in_thread(lambda: waiting.wait_ready(["default"], timeout=20))
    wait_until(lambda: any(c["cmd"] == "bzpopmin" for c in owner.client_list()))
    owner.flushall()
    there = other.execute_command("CLUSTER MYID")
    for node in (other, owner):
        node.execute_command("CLUSTER SETSLOT", slot, "NODE", there)
    thread.join(10)
    assert out  # it looks again, at whoever has the slot now
    m = task()
    store.enqueue([m])

    assert work(waiting) == 1 and waiting.wait_ended([m.id], timeout=5)
    assert other.exists("{moving}:L")
    store.close()
    waiting.close()


def test_a_socket_of_the_wrong_node_is_refused_with_the_right_address(
    cluster: list[redis.Redis],
) -> None:
    slot = cluster[0].execute_command("CLUSTER KEYSLOT", "{moving}:L")
    owner, other = cluster if slot < 8192 else cluster[::-1]
    path = other.config_get("unixsocket")["unixsocket"]
    store = RedisStore(f"unix://{path}", name="moving")

    with pytest.raises(StoreError, match=re.escape(url_of(owner)[:-2])):
        store.enqueue([task()])


def url_of(node: redis.Redis) -> str:
    return f"redis://127.0.0.1:{node.connection_pool.connection_kwargs['port']}/0"


# --- times to live


def test_no_unfinished_key_has_a_time_to_live_and_every_finished_one_has(
    store: RedisStore, raw: redis.Redis, store_name: str
) -> None:
    running, ended, alone, ended_alone = fan(3), fan(3), task(delay_ms=60_000), task()
    store.enqueue([alone, ended_alone])
    store.submit(ended)
    work(store)
    store.submit(running)
    store.step("s", want=1)

    ttl = keys_of(raw, store_name)

    own = {k: t for k, t in ttl.items() if k[1:2] == ":" and k[0] in "ncvf"}
    unfinished = {k: t for k, t in own.items() if k.endswith(running.id.decode("latin-1"))}
    assert unfinished and set(unfinished.values()) == {-1}
    finished = {k: t for k, t in own.items() if k not in unfinished}
    assert len(finished) == 4 and min(finished.values()) > 86_000_000
    assert all(t == -1 for k, t in ttl.items() if k[0] in "mswLd")


def test_what_has_expired_leaves_nothing_behind(
    redis_url: str, raw: redis.Redis, store_name: str
) -> None:
    clock = ManualClock()
    store = RedisStore(redis_url, name=store_name, clock=clock)
    store.enqueue([task(), task(max_losses=0)])
    plan = fan(3)
    store.submit(plan)
    lost = store.step("gone", want=1).deliveries
    store.release("gone", lost=[d.id for d in lost], reason="signal 9")
    work(store)
    store.release("s")

    clock.advance(40 * 86_400)
    while store.sweep().more:
        pass

    assert store.run(plan.id) is None and store.dead() == []
    left = {k.partition(":")[0] for k in keys_of(raw, store_name)}
    # numbers, the names of queues, a hint, when anybody was last seen
    assert left <= {"layout", "runs", "deads", "q", "k", "t"}


def test_a_lost_upload_expires_by_itself(
    store: RedisStore, raw: redis.Redis, store_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fan(SUBMIT_PAGE + 10)
    calls = []
    run = store._run

    def cut(script: str, *args: bytes, **how: Any) -> Any:
        calls.append(script)
        if len(calls) == 2:
            raise StoreUnavailable("cut")
        return run(script, *args, **how)

    monkeypatch.setattr(store, "_run", cut)
    with pytest.raises(StoreUnavailable):
        store.submit(plan)
    monkeypatch.undo()

    assert store.run(plan.id) is None and store.look([plan.id]) == [None]
    assert store.step("s", want=10).deliveries == []
    ttl = keys_of(raw, store_name)
    assert {k[0] for k, t in ttl.items() if t > 0} == {"n", "c"}
    # submitted again, it starts
    assert store.submit(plan) is True
    assert work(store, want=1000) == SUBMIT_PAGE + 12


# --- pages


def test_wide_nodes_are_counted_in_pages_that_anybody_continues(store: RedisStore) -> None:
    width = 4 * PAGE
    plan = fan(width)
    store.submit(plan)
    (first,) = store.step("s", want=1).deliveries

    ready = store.step("s", [done(first)]).ready

    # a page of its own, and one of what was left
    assert ready == 2 * PAGE
    # a session that settled nothing moves the next page on
    assert store.step("other").ready == 3 * PAGE
    assert store.sweep().continued == 1
    assert work(store, want=1000) == width + 1
    found = store.run(plan.id)
    assert found is not None and found.state == State.SUCCESS
    assert store.check(plan.id) == []


def test_a_failure_above_many_blocks_them_page_by_page(store: RedisStore) -> None:
    plan = fan(2 * PAGE)
    store.submit(plan)
    (first,) = store.step("s", want=1).deliveries

    store.step("s", [failed(first)])
    steps = 1
    while (store.run(plan.id) or pytest.fail("gone")).state == State.EXPANDED and steps < 20:
        store.step("s")
        steps += 1

    assert steps >= 2 * 2 * PAGE // PAGE // 2
    nodes = store.nodes(plan.id, limit=5_000)
    assert {n.state for n in nodes[2:]} == {State.BLOCKED}
    assert {n.culprit for n in nodes[2:]} == {1}
    assert store.check(plan.id) == []


def test_a_message_whose_list_entry_is_old_is_handed_out_once(store: RedisStore) -> None:
    m = task()
    store.enqueue([m])
    for _ in range(3):
        store.reschedule(m.id, delay_ms=60_000)
        store.reschedule(m.id)

    got = store.step("s", want=100)

    assert [d.id for d in got.deliveries] == [m.id] and got.ready == 0
    assert store.step("s", [done(got.deliveries[0])], want=100).deliveries == []


# --- servers that die, pause, forget, are full


def test_nothing_is_lost_or_doubled_when_the_server_is_killed(private_redis: RedisServer) -> None:
    store = RedisStore(private_redis.url, name="app")
    plan = fan(20)
    store.submit(plan)
    (first,) = store.step("s", want=1).deliveries
    half = store.step("s", [done(first)], want=10).deliveries

    private_redis.kill()
    with pytest.raises(StoreUnavailable):
        store.step("s", [done(d) for d in half])
    private_redis.start()

    assert {d.id for d in store.held("s")} == {d.id for d in half}
    assert store.step("s", [done(d) for d in half]).verdicts == ["settled"] * len(half)
    assert store.step("s", [done(d) for d in half]).verdicts == ["repeated"] * len(half)
    assert work(store) == 21 - len(half)
    assert store.check(plan.id) == []
    store.close()


def test_a_paused_server_is_unavailable_within_the_timeout_and_then_goes_on(
    private_redis: RedisServer,
) -> None:
    store = RedisStore(f"{private_redis.tcp_url}?timeout=0.3", name="app")
    m = task()
    store.enqueue([m])
    private_redis.pause()

    began = time.monotonic()
    try:
        with pytest.raises(StoreUnavailable):
            store.step("s", want=1)
        assert store.wait_ready(["default"], timeout=0.1) is False
    except StoreUnavailable:
        pass  # the hint's connection was not open yet
    finally:
        took = time.monotonic() - began
        private_redis.resume()

    assert took < 5
    # the step may have happened: what it handed out is there to be read
    held = store.held("s") or store.step("s", want=1).deliveries
    assert [d.id for d in held] == [m.id]
    store.close()


def test_the_next_page_of_a_plan_is_packed_once_also_for_a_server_that_forgot_the_scripts(
    private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore(private_redis.url)
    packed: list[str] = []
    node_row = rows.node_row

    def watched(row: NodeRow) -> bytes:
        packed.append(row.name)
        return node_row(row)

    monkeypatch.setattr(rows, "node_row", watched)
    plan = fan(SUBMIT_PAGE + 10)
    store.submit(fan(1))
    packed.clear()
    with redis.Redis.from_url(private_redis.url) as client:
        client.script_flush()

    store.submit(plan)

    assert packed == [row.name for row in plan.rows]
    assert work(store, want=1000) == SUBMIT_PAGE + 12 + 3
    store.close()


def test_a_server_that_forgot_the_scripts_is_given_them_again(private_redis: RedisServer) -> None:
    store = RedisStore(private_redis.url, name="app")
    store.enqueue([task()])
    with redis.Redis.from_url(private_redis.url) as client:
        client.script_flush()

    got = store.step("s", want=1).deliveries

    assert len(got) == 1
    store.close()


def test_with_memory_full_what_grows_is_refused_whole_and_release_still_works(
    private_redis: RedisServer,
) -> None:
    store = RedisStore(private_redis.url, name="app")
    store.enqueue([task() for _ in range(3)])
    got = store.step("s", want=3).deliveries
    m = task()
    with redis.Redis.from_url(private_redis.url) as client:
        client.config_set("maxmemory", "1mb")
        client.config_set("maxmemory", "1")

        with pytest.raises(StoreUnavailable, match="memory is full"):
            store.enqueue([m])
        with pytest.raises(StoreUnavailable, match="memory is full"):
            store.step("s", [done(d) for d in got])
        released = store.release("s", reason="stopped")

        client.config_set("maxmemory", "0")
    assert released == 3
    assert store.look([m.id]) == [None]
    assert len(store.step("s2", want=10).deliveries) == 3
    store.close()


def test_a_server_that_may_drop_keys_is_refused_unless_told_otherwise(
    private_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(private_redis.url) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")

    with pytest.raises(StoreError, match=r"allkeys-lru.*eviction=warn"):
        RedisStore(private_redis.url, name="app").status()

    store = RedisStore(f"{private_redis.url}&eviction=warn", name="app")
    assert store.status().runs == 0
    assert "allkeys-lru" in caplog.text
    store.close()


def test_another_layout_is_refused_with_both_numbers(
    redis_url: str, raw: redis.Redis, store_name: str
) -> None:
    raw.set(f"{{{store_name}}}:layout", 999)

    with pytest.raises(StoreVersionError, match=r"layout 999.*knows 1"):
        RedisStore(redis_url, name=store_name).status()


@pytest.mark.parametrize("key", ["m", "s", "wait", "dead"])
def test_a_key_that_another_program_has_written_is_named_before_anything_is_changed(
    redis_url: str, store_name: str, raw: redis.Redis, key: str
) -> None:
    raw.set(f"{{{store_name}}}:{key}", "x")
    store = RedisStore(redis_url, name=store_name)

    with pytest.raises(
        StoreError, match=rf"{{{store_name}}}:{key} .*is a string, not a (hash|zset)"
    ):
        store.enqueue([task()])

    raw.delete(f"{{{store_name}}}:{key}")
    assert store.enqueue([task()]) == [True]
    store.close()


def test_a_server_that_is_away_is_said_so_without_the_password() -> None:
    store = open_store("redis://user:secret@127.0.0.1:1/0", name="app")

    with pytest.raises(StoreUnavailable) as caught:
        store.status()

    assert "secret" not in str(caught.value) + store.url + repr(store)
    assert store.url == "redis://user:***@127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("redis://:pw@h/0", "redis://:***@h/0"),
        ("unix:///tmp/s?db=3&password=pw", "unix:///tmp/s?db=3&password=***"),
        ("rediss://u:p%40@h:7/0?eviction=warn", "rediss://u:***@h:7/0"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert parse_url(url)[1] == shown


@pytest.mark.parametrize(
    "url", ["redis://h:port/0", "redis://h/0?eviction=maybe", "redis://h/0?timeout=soon"]
)
def test_a_url_that_cannot_be_used_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError):
        open_store(url)


def test_tls_checks_certificate_and_host() -> None:
    store = RedisStore("rediss://localhost:1/0", name="app")

    kwargs = store._wire._kwargs

    assert kwargs["ssl_cert_reqs"] == "required" and kwargs["ssl_check_hostname"] is True


# --- threads, forks, waiting


def test_a_child_after_a_fork_has_connections_of_its_own(store: RedisStore) -> None:
    m = task()
    store.status()
    out, into = os.pipe()

    pid = os.fork()
    if pid == 0:  # pragma: no cover
        os.write(into, b"1" if store.enqueue([m]) == [True] else b"0")
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(out, 1) == b"1"
    os.close(out)
    os.close(into)
    found = store.look([m.id])[0]
    assert found is not None and found.state == State.QUEUED


def test_threads_share_a_store(store: RedisStore) -> None:
    seen: list[bytes] = []
    n = 200
    store.enqueue([task() for _ in range(n)])

    def run(name: str) -> None:
        outcomes: list[Done] = []
        while True:
            got = store.step(name, outcomes, want=7).deliveries
            if not got:
                return
            seen.extend(d.id for d in got)
            outcomes = [done(d) for d in got]

    threads = [threading.Thread(target=run, args=(f"s{k}",)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)

    assert len(seen) == len(set(seen)) == n


def wait_in_thread(call: Callable[[], bool]) -> tuple[threading.Thread, list[tuple[bool, float]]]:
    out: list[tuple[bool, float]] = []
    thread = threading.Thread(target=lambda: out.append((call(), time.monotonic())))
    thread.start()
    return thread, out


def test_an_enqueue_wakes_one_who_waits_for_work(store: RedisStore) -> None:
    store.status()
    thread, out = wait_in_thread(lambda: store.wait_ready(["default"], timeout=20))

    began = time.monotonic()
    store.enqueue([task()])
    thread.join(10)

    assert out and out[0][0] is True and out[0][1] - began < 5


def test_wake_ends_every_wait_of_this_object(store: RedisStore) -> None:
    waits = [wait_in_thread(lambda: store.wait_ready(["none"], timeout=20)) for _ in range(3)]
    deadline = time.monotonic() + 10
    while len(store._wakers) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)

    store.wake()
    for thread, _ in waits:
        thread.join(10)

    assert [out[0][0] for _, out in waits] == [False] * 3


def test_a_hint_that_comes_while_a_waiting_thread_is_woken_is_not_lost(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, raw: redis.Redis, store_name: str
) -> None:
    wire, let_go = store._wire, store._wire._let_go

    def late(mine: Any) -> bool:
        raw.zadd(f"{{{store_name}}}:k:default", {"1": 0})  # as a producer does at this moment
        return let_go(mine)

    monkeypatch.setattr(wire, "_let_go", late)
    store.status()
    thread, out = wait_in_thread(lambda: store.wait_ready(["default"], timeout=20))
    wait_until(lambda: any(c["cmd"] == "bzpopmin" for c in raw.client_list()))

    store.wake()
    thread.join(10)

    assert out[0][0] is True and not raw.exists(f"{{{store_name}}}:k:default")


def test_a_waiting_thread_keeps_its_connection_when_it_is_woken(
    store: RedisStore, raw: redis.Redis
) -> None:
    store.status()
    kept = []

    def twice() -> bool:
        for _ in range(2):
            store.wait_ready(["none"], timeout=20)
            kept.append(store._wire._mine.wait)
        return kept[0] is kept[1] is not None

    thread, out = wait_in_thread(twice)
    for n in (1, 2):
        wait_until(lambda n=n: len(store._wakers) == 1 and len(kept) == n - 1)
        store.wake()
        wait_until(lambda n=n: len(kept) == n)
    thread.join(10)

    assert out[0][0] is True


class Hinted:
    """A worker as the store sees it: waits for a hint, and takes a step after each."""

    def __init__(self, store: RedisStore, raw: redis.Redis, queues: list[str], want: int) -> None:
        self.store, self.raw, self.queues, self.want = store, raw, queues, want
        self.begin()

    def begin(self) -> None:
        self.session = secrets.token_hex(4)
        self.store.open_session(SessionInfo(self.session))
        self.held: list[Delivery] = []
        self.hinted = False

    def wait(self) -> None:
        """What BZPOPMIN does where it need not block, in a lane that has nothing to do."""
        for queue in self.queues:
            key = b"%bk:%b" % (self.store._key, queue.encode())
            self.hinted = self.hinted or bool(self.raw.zpopmin(key))

    def step(self) -> None:
        """After a hint fetch, or only look if another lane has brought work; else settle."""
        if not (self.hinted or self.held):
            return
        outcomes = [] if self.hinted else [done(d) for d in self.held]
        want = 0 if self.hinted and self.held else self.want
        step = self.store.step(self.session, outcomes, want=want, queues=self.queues)
        self.held = step.deliveries + (self.held if self.hinted else [])
        self.hinted = False

    def die(self) -> None:
        self.store.release(self.session, lost=[d.id for d in self.held[:1]])
        self.begin()


@pytest.mark.parametrize("queues", [("a",), ("a", "b")])
def test_work_that_is_ready_has_a_hint_unless_someone_is_about_to_fetch(
    store: RedisStore, raw: redis.Redis, queues: tuple[str, ...]
) -> None:
    # Every order of five moves of a producer and two workers, one of which may be lost.
    for moves in itertools.product("e", *["ewslb"] * 4):
        one = Hinted(store, raw, list(queues), 2)
        two = Hinted(store, raw, list(reversed(queues)), 1)
        for k, move in enumerate(moves):
            if move == "e":
                store.enqueue([task(queue=queues[k % len(queues)], max_losses=9) for _ in "123"])
            elif move == "w":
                one.wait()
            elif move == "s":
                one.step()
            elif move == "l":
                one.die()
            else:
                two.wait()
                two.step()

            served = one.hinted or two.hinted
            for queue in [q.name for q in store.status().queues if q.ready]:
                hint = raw.exists(b"%bk:%b" % (store._key, queue.encode()))
                assert hint or served, (moves, k, queue)
        store.release(one.session)
        store.release(two.session)
        for key in raw.keys(b"%b*" % store._key):
            raw.delete(key)


def test_who_goes_to_work_leaves_it_to_another_to_mind_the_time(
    store: RedisStore, raw: redis.Redis
) -> None:
    hint = store._key + b"k:default"
    store.enqueue([task(delay_ms=2_000)])
    assert raw.zpopmin(hint)  # by a worker, which waits until then
    assert 1_000 < (store.step("s", want=1).next_ms or 0) <= 2_000
    store.enqueue([task()])
    raw.zpopmin(hint)

    assert len(store.step("s", want=1).deliveries) == 1  # and is at work for long

    assert raw.exists(hint)  # so another worker is woken, and waits until then


def test_a_cancel_wakes_who_watches_the_session(redis_url: str, store_name: str) -> None:
    watcher = RedisStore(redis_url, name=store_name)
    other = RedisStore(redis_url, name=store_name)
    m = task()
    other.enqueue([m])
    watcher.open_session(SessionInfo("s"))
    watcher.step("s", want=1)
    watcher.wait_ready([], timeout=0.01)
    thread, out = wait_in_thread(lambda: watcher.wait_ready([], timeout=20))

    other.cancel([m.id])
    thread.join(10)

    assert out and out[0][0] is True
    assert watcher.renew(["s"]) == [[m.id]]
    watcher.close()
    other.close()


@pytest.mark.parametrize("what", ["task", "node", "run"])
def test_an_end_wakes_one_who_waits_for_it(store: RedisStore, what: str) -> None:
    plan = fan(1)
    m = task()
    store.submit(plan)
    store.enqueue([m])
    id = {"task": m.id, "node": node_id(plan.id, 3), "run": plan.id}[what]
    thread, out = wait_in_thread(lambda: store.wait_ended([id], timeout=20))

    work(store)
    thread.join(10)

    assert out and out[0][0] is True
    assert store.wait_ended([id], timeout=20) is True  # at once


def test_who_stopped_waiting_leaves_no_note(
    store: RedisStore, raw: redis.Redis, store_name: str
) -> None:
    m = task(delay_ms=60_000)
    store.enqueue([m])

    assert store.wait_ended([m.id], timeout=0.05) is False

    assert not any(k[:2] in ("wa", "a:") for k in keys_of(raw, store_name))


# --- lost replies


def test_a_lost_reply_of_a_step_is_read_back(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.enqueue([task() for _ in range(3)])
    store.step("s", want=0)
    mine = store._wire._mine
    real = mine.work.read_response

    def lose(*args: Any, **more: Any) -> Any:
        real(*args, **more)
        raise redis.exceptions.ConnectionError("cut")

    monkeypatch.setattr(mine.work, "read_response", lose)
    with pytest.raises(StoreUnavailable):
        store.step("s", want=3)
    monkeypatch.undo()

    assert [d.delivery for d in store.held("s")] == [1, 1, 1]


def test_a_settlement_is_not_mistaken_for_another(store: RedisStore) -> None:
    m = task(result_ttl_ms=0, max_losses=9)
    store.enqueue([m])
    (first,) = store.step("s", want=1).deliveries

    assert store.step("s", [GiveBack(m.id, 1)]).verdicts == ["settled"]
    assert store.step("s", [GiveBack(m.id, 1)]).verdicts == ["repeated"]
    (second,) = store.step("s", want=1).deliveries
    assert (first.delivery, second.delivery) == (1, 2)
    assert store.step("s", [GiveBack(m.id, 1)]).verdicts == ["stale"]
    assert store.step("s", [RetryAt(m.id, 2, 0)], want=1).deliveries[0].delivery == 3
    assert store.step("s", [failed(Delivery(m.id, 3, 0, 0, b""))]).verdicts == ["settled"]
    found = store.look([m.id])[0]
    assert found is not None and found.state == State.FAILED
    assert store.step("s", [failed(Delivery(m.id, 3, 0, 0, b""))]).verdicts == ["repeated"]
    assert store.step("s", [failed(Delivery(m.id, 2, 0, 0, b""))]).verdicts == ["stale"]


@pytest.mark.parametrize("size", [0, 3, 8, 30])
@pytest.mark.parametrize("kind", ["task", "node"])
@pytest.mark.parametrize(
    "when", ["queued", "due", "lost", "released", "expired", "retried", "dead"]
)
def test_a_row_that_is_cut_short_takes_along_nothing_beside_it(
    redis_url: str, store_name: str, raw: redis.Redis, when: str, kind: str, size: int
) -> None:
    clock = ManualClock()
    store = RedisStore(redis_url, name=store_name, clock=clock)
    times = {"due": {"delay_ms": 1_000}, "expired": {"expires_in_ms": 1_000}}.get(when, {})
    good, bad = task(), task(**times).id
    if kind == "task":
        store.enqueue([Message(bad, "t", b"P", **times), good])
        key, field = f"{{{store_name}}}:m", bad
    else:
        run = new_id()
        alone = NodeRow("a", Kind.TASK, 0, all_of(0), message=Message(b"", "t", b"P", **times))
        root = NodeRow("r", Kind.EXPANSION, NO_NODE, all_of(0), entries=((1, 1),), inner=1,
                       body=((1, 1),), value=encode_template(Items(1, 1)))  # fmt: skip
        store.submit(Plan(run, "p", [root, alone]))
        store.enqueue([good])
        bad, key, field = node_id(run, 1), b"{%b}:n:%b" % (store_name.encode(), run), b"\0\0\0\1"
    held = [] if when in ("queued", "due", "expired") else store.step("x", want=1).deliveries
    held += [] if not held else store.step("x", want=1).deliveries

    raw.hset(key, field, raw.hget(key, field)[:size])
    if when == "lost":
        for _ in range(4):
            clock.advance(9)
            store.renew([])
    elif when == "released":
        store.release("x", lost=[bad])
    elif when in ("retried", "dead"):
        last = (
            RetryAt(bad, 1, 0)
            if when == "retried"
            else Failed(bad, 1, failed(held[0]).cell, "unreadable")
        )
        assert store.step("x", [last, done(held[-1])]).verdicts == ["settled", "settled"]
    clock.advance(1)
    store.sweep()

    outcomes: list[Any] = []
    while (step := store.step("y", outcomes, want=1)).deliveries or outcomes or step.ready:
        outcomes = [
            # as a worker does with what it can't decode
            Failed(d.id, d.delivery, failed(d).cell, "unreadable") if d.id == bad else done(d)
            for d in step.deliveries
        ]
    states = [look and look.state for look in store.look([good.id, bad])]
    assert states == [State.SUCCESS, State.FAILED]
    assert store.dead_letter(bad) or when == "expired"
    assert step.ready == 0
    store.close()


def test_an_inner_node_that_is_cancelled_early_is_not_counted_as_a_parent(
    store: RedisStore,
) -> None:
    run = new_id()

    def message(i: int) -> Message:
        return Message(id=node_id(run, i), task="t", payload=b"P")

    rows = [
        NodeRow("root", Kind.EXPANSION, NO_NODE, all_of(0), entries=((1, 1),), inner=2,
                value=encode_template(Ref(2))),
        NodeRow("a", Kind.TASK, 0, all_of(0), children=((2, 1),), message=message(1)),
        NodeRow("sub", Kind.EXPANSION, 0, all_of(1), ((1, 1),), entries=((3, 2),), inner=2,
                body=((3, 2),), value=encode_template(Ref(4)), bits=Bits.NAMED),
        NodeRow("x", Kind.TASK, 2, all_of(0), message=message(3), bits=Bits.FORGIVEN),
        NodeRow("y", Kind.TASK, 2, all_of(0), message=message(4)),
    ]  # fmt: skip
    store.submit(Plan(run, "nested", rows))

    store.cancel([node_id(run, 3)])

    assert work(store) == 2
    assert [n.state for n in store.nodes(run)] == [
        State.SUCCESS, State.SUCCESS, State.SUCCESS, State.CANCELLED, State.SUCCESS,
    ]  # fmt: skip
    assert store.check(run) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://h/0?tiemout=3", "cannot be used.*tiemout"),
        ("redis://h/x", "database's number: /0"),
    ],
)
def test_a_mistyped_redis_url_is_refused_before_anything_connects(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_store(url, name="app", clock=ManualClock())


def test_a_connection_that_breaks_while_a_script_is_loaded_is_a_store_away() -> None:
    class Breaking:
        answers = 0

        def send_packed_command(self, *args: object, **options: object) -> None: ...
        def disconnect(self) -> None: ...

        def can_read(self, timeout: float) -> bool:
            return False

        def read_response(self) -> object:
            Breaking.answers += 1
            if Breaking.answers == 1:
                raise redis.exceptions.NoScriptError("NOSCRIPT")
            raise redis.exceptions.ConnectionError("closed")

    connections = Connections("redis://127.0.0.1:1/0", 1.0, lambda ask: None)
    connections._connect = Breaking  # type: ignore[method-assign, assignment]

    with pytest.raises(StoreUnavailable):
        connections.run(scripts.load("page"), [], 0)
    assert Breaking.answers > 1
