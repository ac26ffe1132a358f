# SPDX-License-Identifier: MIT
"""The cases. Each runs one round of flowq and of its peer, and adds to its figures."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

from benchmarks import raw_worker
from benchmarks.measure import ROOT, Figure, Place

TIMEOUT = 120.0


@contextmanager
def flowq_app(url: str) -> Iterator[object]:
    """The app on a store, imported once a process and pointed at one store after the other."""
    from benchmarks import flowq_app as app

    app.q.use_url(url)
    try:
        yield app
    finally:
        app.q.store.close()


def worker(place: Place, url: str, workers: int = 1, kind: str = "process"):  # type: ignore[no-untyped-def]
    argv = ("-m", "flowq", "worker", "benchmarks.flowq_app:q", "-q", "-w", str(workers))
    return place.process(*argv, "-k", kind, "--url", url)


def huey(place: Place, workers: int, *more: str, **env: str):  # type: ignore[no-untyped-def]
    kind = "thread" if workers == 1 else "process"
    argv = ("-m", "huey.bin.huey_consumer", "benchmarks.huey_app.huey", "--quiet")
    return place.process(*argv, "-w", str(workers), "-k", kind, *more, **env)


def load_huey(**env: str):  # type: ignore[no-untyped-def]
    """Huey's app reads its place from the environment when it is imported."""
    for name in ("BENCH_SQLITE", "BENCH_REDIS"):
        os.environ.pop(name, None)
    os.environ.update(env)
    sys.modules.pop("benchmarks.huey_app", None)
    from importlib import import_module

    return import_module("benchmarks.huey_app")


# --- drain: tasks are there, then one worker process starts ---------------------------------------


def fill(app, n: int) -> list:  # type: ignore[no-untyped-def,type-arg]
    out = []
    for first in range(0, n, 1000):
        with app.q.batch():
            out += [app.add(i, 1) for i in range(first, min(first + 1000, n))]
    return out


def drain_flowq(place: Place, url: str, n: int) -> float:
    with flowq_app(url) as app:
        results = fill(app, n)
        with worker(place, url):
            rate = place.stamps.rate(n, TIMEOUT)
            assert results[-1].get(timeout=TIMEOUT) == n
            assert results[0].get(timeout=TIMEOUT) == 1
    return rate


def drain_redis(place: Place, figures: dict[str, Figure], n: int = 20_000) -> None:
    """One worker process on Redis, no-op tasks with stored results, beside the raw loop."""
    fig = figures.setdefault(
        "drain_redis",
        Figure("drain, Redis, 1 worker", "tasks/s", peer="redis-py loop", target=">= 0.5"),
    )
    place.fresh()
    with place.client() as client:
        keys = raw_worker.fill(client, n)
        with place.process("-m", "benchmarks.raw_worker", str(n), BENCH_REDIS=place.redis_url):
            fig.theirs.append(place.stamps.rate(n, TIMEOUT))
        assert client.get(keys[-1]) is not None or time.sleep(0.5) is None
    place.fresh()
    before = commands(place)
    fig.ours.append(drain_flowq(place, place.redis_url, n))
    trips = figures.setdefault("trips_task", Figure("round trips a task, drained", "EVALSHA"))
    trips.ours.append((commands(place) - before) / n)


def drain_sqlite(place: Place, figures: dict[str, Figure], n: int = 20_000) -> None:
    """One worker process on a SQLite file with full fsync, beside SqliteHuey with the same."""
    fig = figures.setdefault(
        "drain_sqlite",
        Figure("drain, SQLite, 1 worker", "tasks/s", peer="SqliteHuey", target=">= 15"),
    )
    place.fresh()
    path = str(place.folder / "huey.db")
    app = load_huey(BENCH_SQLITE=path)
    for i in range(2_000):
        app.add(i, 1)
    with huey(place, 1, "-d", "0.001", "-m", "0.001", "-b", "1", BENCH_SQLITE=path):
        fig.theirs.append(place.stamps.rate(2_000, TIMEOUT))
    place.fresh()
    fig.ours.append(drain_flowq(place, f"sqlite:///{place.folder / 'flowq.db'}", n))


# --- fan-out and collect --------------------------------------------------------------------------


def map_redis(place: Place, figures: dict[str, Figure], n: int = 5_000) -> None:
    """`map` of 5,000 and the collected values, two worker processes, beside Huey's map."""
    fig = figures.setdefault(
        "map", Figure("map of 5,000 + get, Redis, 2 workers", "tasks/s", peer="Huey", target=">= 8")
    )
    place.fresh()
    app = load_huey(BENCH_REDIS=place.redis_url)
    with huey(place, 2, BENCH_REDIS=place.redis_url):
        app.add(n, 1).get(blocking=True, timeout=TIMEOUT)
        began = time.perf_counter()
        got = app.add.map([(i, 1) for i in range(n)]).get(blocking=True, timeout=TIMEOUT)
        fig.theirs.append(n / (time.perf_counter() - began))
        assert got == list(range(1, n + 1))
    place.fresh()
    with flowq_app(place.redis_url) as mine, worker(place, place.redis_url, 2):
        mine.add(n, 1).get(timeout=TIMEOUT)
        began = time.perf_counter()
        got = mine.add.map([(i, 1) for i in range(n)]).get(timeout=TIMEOUT)
        fig.ours.append(n / (time.perf_counter() - began))
        assert got == list(range(1, n + 1))


def chord_redis(place: Place, figures: dict[str, Figure], n: int = 1_000) -> None:
    """A group of 1,000 piped into one task; no peer here promises the same."""
    from flowq import group

    fig = figures.setdefault("chord", Figure("chord of 1,000, Redis, 2 workers", "tasks/s"))
    place.fresh()
    with flowq_app(place.redis_url) as app, worker(place, place.redis_url, 2):
        app.add(n, 1).get(timeout=TIMEOUT)
        began = time.perf_counter()
        run = (group(app.add.s(i, 1) for i in range(n)) | app.total.s()).start()
        assert run.get(timeout=TIMEOUT) == sum(range(1, n + 1))
        fig.ours.append(n / (time.perf_counter() - began))


# --- one hop, one round trip ----------------------------------------------------------------------


def chain(place: Place, figures: dict[str, Figure], hops: int = 300) -> None:
    """A chain of 300 on both stores: milliseconds and EVALSHA calls a hop."""
    from flowq import chain as chain_

    place.fresh()
    raw = figures.setdefault(
        "chain", Figure("a hop of a chain, Redis", "ms", peer="raw EVALSHA", target="")
    )
    trips = figures.setdefault(
        "trips_hop", Figure("round trips a hop", "EVALSHA", target="1 a hop")
    )
    disk = figures.setdefault("chain_sqlite", Figure("a hop of a chain, SQLite", "ms"))
    with place.client() as client:
        sha = client.script_load("return redis.call('get', KEYS[1])")
        began = time.perf_counter()
        for _ in range(hops):
            client.evalsha(sha, 1, "x")
        raw.theirs.append((time.perf_counter() - began) / hops * 1000)
    for url in (place.redis_url, f"sqlite:///{place.folder / 'chain.db'}"):
        with flowq_app(url) as app, worker(place, url):
            app.add(1, 1).get(timeout=TIMEOUT)
            before = commands(place)
            began = time.perf_counter()
            run = chain_(app.inc.s(0), *(app.inc.s() for _ in range(hops - 1))).start()
            assert run.get(timeout=TIMEOUT) == hops
            took = (time.perf_counter() - began) / hops * 1000
            if url == place.redis_url:
                raw.ours.append(took)
                trips.ours.append((commands(place) - before) / hops)
            else:
                disk.ours.append(took)


def grow(place: Place, figures: dict[str, Figure], n: int = 5_000) -> None:
    """A map over a list that comes with the run, and its sum."""
    fig = figures.setdefault("grow", Figure("map that a run grows, Redis, 2 workers", "nodes/s"))
    trips = figures.setdefault("trips_node", Figure("round trips a node of it", "EVALSHA"))
    disk = figures.setdefault("grow_sqlite", Figure("the same, SQLite, 2 workers", "nodes/s"))
    for url in (place.redis_url, f"sqlite:///{place.folder / 'grow.db'}"):
        place.fresh()
        with flowq_app(url) as app, worker(place, url, 2):
            app.add(1, 1).get(timeout=TIMEOUT)
            before = commands(place)
            began = time.perf_counter()
            run = (app.upto.s(n) | app.inc.each() | app.total.s()).start()
            assert run.get(timeout=TIMEOUT) == n * (n + 1) // 2
            rate = (n + 3) / (time.perf_counter() - began)
            if url == place.redis_url:
                fig.ours.append(rate)
                trips.ours.append((commands(place) - before) / (n + 3))
            else:
                disk.ours.append(rate)


def size(place: Place, figures: dict[str, Figure], n: int = 20_000) -> None:
    """Bytes that a node takes which waits: a map of 20,000 behind a task that nobody runs."""
    fig = figures.setdefault("size", Figure("a node that waits, Redis", "bytes"))
    disk = figures.setdefault("size_sqlite", Figure("a node that waits, SQLite", "bytes"))
    place.fresh()
    path = place.folder / "size.db"
    for url in (place.redis_url, f"sqlite:///{path}"):
        with flowq_app(url) as app, place.client() as client:
            app.add(1, 1)
            before = client.info("memory")["used_memory"]
            (app.add.s(1, 1) >> app.inc.s().map(list(range(n)))).start()
            if url == place.redis_url:
                fig.ours.append((client.info("memory")["used_memory"] - before) / n)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    disk.ours.append(path.stat().st_size / n)


def walk(place: Place, figures: dict[str, Figure], n: int = 100_000) -> None:
    """The end of a first node with 100,000 below it: how long one call has the store to itself."""
    from flowq.executor import Executor, Job, Lane

    for what, url in (
        ("Redis", place.redis_url),
        ("SQLite", f"sqlite:///{place.folder / 'walk.db'}"),
    ):
        longest = figures.setdefault(
            f"walk_{what}",
            Figure(f"longest step of 100,000 blocked, {what}", "ms", target="<= 50"),
        )
        all_of_it = figures.setdefault(f"walked_{what}", Figure(f"all of them, {what}", "s"))
        place.fresh()
        with flowq_app(url) as app:
            (app.add.s(1, "no number") >> app.inc.s().map(list(range(n)))).start()
            executor, store = Executor(app.q), app.q.store
            found = store.step("bench", want=1).deliveries
            outcomes = [executor.run(Lane(0), Job(delivery)) for delivery in found]
            steps, left = [], True
            while left:
                began = time.perf_counter()
                left = store.step("bench", outcomes).next_ms == 0
                steps.append(time.perf_counter() - began)
                outcomes = []
            longest.ours.append(max(steps) * 1000)
            all_of_it.ours.append(sum(steps))


def latency(place: Place, figures: dict[str, Figure], calls: int = 200) -> None:
    """Call and wait, an idle worker, one after the other."""
    for what, url in (
        ("Redis", place.redis_url),
        ("SQLite", f"sqlite:///{place.folder / 'latency.db'}"),
    ):
        fig = figures.setdefault(f"latency_{what}", Figure(f"call and get, {what}", "ms"))
        place.fresh()
        with flowq_app(url) as app, worker(place, url):
            app.add(1, 1).get(timeout=TIMEOUT)
            began = time.perf_counter()
            for i in range(calls):
                app.add(i, 1).get(timeout=TIMEOUT)
            fig.ours.append((time.perf_counter() - began) / calls * 1000)


def enqueue(place: Place, figures: dict[str, Figure], n: int = 2_000) -> None:
    """Calls one by one beside Huey's; then through ``q.batch()``."""
    one = figures.setdefault("enqueue", Figure("enqueue one by one, Redis", "tasks/s", peer="Huey"))
    bulk = figures.setdefault("bulk", Figure("enqueue in a batch, Redis", "tasks/s"))
    place.fresh()
    theirs = load_huey(BENCH_REDIS=place.redis_url)
    began = time.perf_counter()
    for i in range(n):
        theirs.add(i, 1)
    one.theirs.append(n / (time.perf_counter() - began))
    place.fresh()
    with flowq_app(place.redis_url) as app:
        app.add(0, 1)
        began = time.perf_counter()
        for i in range(n):
            app.add(i, 1)
        one.ours.append(n / (time.perf_counter() - began))
        began = time.perf_counter()
        fill(app, 10 * n)
        bulk.ours.append(10 * n / (time.perf_counter() - began))


def start_up(place: Place, figures: dict[str, Figure]) -> None:
    """CPU of ``import flowq`` over that of an empty interpreter."""
    fig = figures.setdefault("import", Figure("import flowq, CPU", "ms", target="<= 80"))

    def cpu(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare = min(cpu("pass") for _ in range(5))
    fig.ours.append((min(cpu("import flowq") for _ in range(5)) - bare) * 1000)
    used = figures.setdefault("from", Figure("from flowq import FlowQ, CPU", "ms"))
    used.ours.append((min(cpu("from flowq import FlowQ") for _ in range(5)) - bare) * 1000)


def commands(place: Place) -> int:
    """EVALSHA calls that the server has counted."""
    with redis.Redis.from_url(place.redis_url) as client:
        return int(client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


CASES: dict[str, Callable[[Place, dict[str, Figure]], None]] = {
    "drain_redis": drain_redis,
    "drain_sqlite": drain_sqlite,
    "map": map_redis,
    "chord": chord_redis,
    "chain": chain,
    "grow": grow,
    "size": size,
    "walk": walk,
    "latency": latency,
    "enqueue": enqueue,
    "import": start_up,
}
