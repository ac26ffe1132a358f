# SPDX-License-Identifier: MIT
"""The app: where its store is, what it knows, how things are started."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import flowq
from flowq import ConfigError, FlowQ, MemoryFlowQ, RedisFlowQ, SqliteFlowQ, UnknownTask, group
from flowq.habits import HABITS
from flowq.naming import app_path
from tests.unit.hand import Hand

LIGHT = "networkx redis croniter cloudpickle asyncio rich sqlite3 tomllib"


def add(a: int, b: int = 1) -> int:
    return a + b


@pytest.fixture
def q() -> FlowQ:
    return FlowQ("apps", "memory://")


def test_a_mistyped_keyword_of_a_consumer_is_answered(q: FlowQ) -> None:
    for word, said in (
        ("worker", "did you mean 'workers'"),
        ("concurrency", "write workers="),
        ("shutdown", "did you mean 'shutdown_timeout'"),
        ("zzz", "there are workers, kind, queues"),
    ):
        with pytest.raises(TypeError, match=f"consumer has no argument '{word}'; {said}"):
            q.consumer(**{word: 2})


# --- what is public


def test_every_public_name_can_be_had(tmp_path: Path) -> None:
    for name in flowq.__all__:
        assert getattr(flowq, name) is not None
    assert set(flowq.__all__) <= set(dir(flowq))
    with pytest.raises(AttributeError, match="FlowK"):
        _ = flowq.FlowK
    assert "errors" not in flowq.__all__


def test_the_names_for_checkers_are_those_at_run_time() -> None:
    text = Path(flowq.__file__).read_text(encoding="utf-8")
    typed = {
        line.rpartition(" as ")[2]
        for line in text.splitlines()
        if line.startswith("    from flowq.")
    }

    assert typed | {"__version__"} == set(flowq.__all__)


@pytest.mark.parametrize(
    "line",
    [
        "import flowq",
        "from flowq import FlowQ, chain, Retry",
        "from flowq import FlowQ; FlowQ(url='redis://x').task(name='t')(lambda a: a).s(1)",
    ],
)
def test_importing_it_is_light(line: str) -> None:
    code = f"{line}; import sys; print(*[m for m in '{LIGHT}'.split() if m in sys.modules])"

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.split() == []


# --- where its store is


def test_the_url_is_the_argument_else_the_environment_else_a_file_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert FlowQ().url == "sqlite:///flowq.db"

    monkeypatch.setenv("FLOWQ_URL", "redis://somewhere/3")
    app = FlowQ()
    assert app.url == "redis://somewhere/3"
    assert FlowQ(url="memory://").url == "memory://"

    app.use_url("memory://")
    assert app.store.url == "memory://"


def test_constructors_take_keyword_arguments() -> None:
    assert SqliteFlowQ("s", "/tmp/a b.db").url == "sqlite:////tmp/a%20b.db"
    assert SqliteFlowQ(path="x.db", synchronous="normal").url == "sqlite:///x.db?synchronous=normal"
    assert MemoryFlowQ("m", retries=2).url == "memory://"
    assert RedisFlowQ("r").url == "redis://localhost:6379/0"
    assert (
        RedisFlowQ(host="::1", port=1, db=2, username="me", password="p@:/", ssl=True).url
        == "rediss://me:p%40%3A%2F@[::1]:1/2"
    )
    assert RedisFlowQ(password="x", unix_socket="/run/r.sock", db=3).url == (
        "unix://:x@/run/r.sock?db=3"
    )
    assert isinstance(RedisFlowQ(url="redis://h/1"), FlowQ)


def test_a_path_with_spaces_is_the_file_that_is_made(tmp_path: Path) -> None:
    app = SqliteFlowQ("s", tmp_path / "a b%20?.db")
    app.task(add)(1)

    assert (tmp_path / "a b%20?.db").is_file()
    app.store.close()


def test_a_password_is_not_shown() -> None:
    app = RedisFlowQ(password="hunter2")

    assert "hunter2" not in repr(app) + app.store.url


def test_what_is_not_supported_yet_says_so() -> None:
    for option in ({"secret": "x"}, {"compress_above": 1}, {"shards": 2}, {"serializer": "json"}):
        with pytest.raises(ConfigError, match="not supported yet"):
            FlowQ(**option)
    assert FlowQ(secret=None, compress_above=None, shards=1, serializer="pickle").name == "flowq"


def test_a_wrong_argument_is_an_error_that_says_what_is_right() -> None:
    for option, said in (
        ({"retrys": 1}, "did you mean 'retries'"),
        ({"delay": 5}, "does not go here"),
        ({"queue": "a b"}, "queue='a b'"),
        ({"name": "a{b"}, "the name of an app"),
        ({"name": "sqlite:///x.db"}, r"FlowQ\('name', url\)"),
        ({"url": Path("x.db")}, "SqliteFlowQ"),
        ({"imports": "shop"}, "list of module names"),
        ({"result_ttl": -1}, "negative"),
    ):
        with pytest.raises(ConfigError, match=said):
            FlowQ(**option)


def test_a_producers_first_enqueue_logs_the_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "flowq")
    app = FlowQ("logs")
    task = app.task(add)

    task(1)
    task(2)

    told = [r.getMessage() for r in caplog.records if str(tmp_path / "flowq.db") in r.getMessage()]
    assert len(told) == 1
    app.store.close()


def test_an_error_inside_a_property_is_seen_as_it_is(
    q: FlowQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.app.open_store", lambda *a, **k: object().inner)

    with pytest.raises(AttributeError, match="inner"):
        _ = q.store
    with pytest.raises(AttributeError, match="inner"):
        _ = q.result("00000000-0000-7000-8000-000000000000").state


def test_threads_share_one_store(q: FlowQ) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(q.store)) for _ in range(8)]

    for t in threads:
        t.start()
    for t in threads:
        t.join()

    assert len({id(s) for s in found}) == 1


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of open files here")
def test_an_app_that_is_gone_leaves_no_file_open(tmp_path: Path) -> None:
    def is_open() -> bool:
        fds = Path("/proc/self/fd").iterdir()
        return any(os.path.realpath(fd) == str(tmp_path / "g.db") for fd in fds)

    app = SqliteFlowQ("gone", tmp_path / "g.db")
    app.task(add)(1)
    assert is_open()

    del app
    gc.collect()

    assert not is_open()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_enqueues_through_a_store_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from flowq import SqliteFlowQ\n"
        "q = SqliteFlowQ('forks', sys.argv[1])\n"
        "@q.task(name='t')\n"
        "def t(n): return n\n"
        "t(1); mine = q.store\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    t(2); os._exit(q.store is mine)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "t(3)\n"
        "print(q.store.status().queues[0].ready, q.store is mine)\n"
    )

    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "f.db")], capture_output=True, text=True
    )

    assert out.stdout.split() == ["3", "True"], out.stderr


# --- what it knows


def test_an_unknown_task_is_an_error_with_the_nearest_names(q: FlowQ) -> None:
    q.task(name="shop.add")(add)

    assert q.spec("shop.add") is q.tasks["shop.add"]
    with pytest.raises(UnknownTask, match=r"did you mean 'shop\.add'"):
        q.spec("shop.ad")
    with pytest.raises(TypeError):
        q.tasks["x"] = 1  # type: ignore[index]


def test_modules_with_tasks_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "h5_more.py").write_text(
        "import tests.unit.test_app as t\n@t.IMPORTING.task(name='more')\ndef f(): ...\n"
    )
    (tmp_path / "h5_broken.py").write_text("import h5_not_there\n")

    assert IMPORTING.spec("more").name == "more"
    IMPORTING.load()
    with pytest.raises(ConfigError, match="no module 'h5_nowhere'"):
        FlowQ(imports=["h5_nowhere"]).load()
    with pytest.raises(ModuleNotFoundError, match="h5_not_there"):
        FlowQ(imports=["h5_broken"]).load()


IMPORTING = FlowQ("importing", "memory://", imports=["h5_more"])


def test_its_queues_are_those_that_tasks_name(q: FlowQ) -> None:
    assert q.queues() == ("default",)
    q.task(name="a", queue="slow")(add)
    q.task(name="b", queue="mail")(add)
    q.task(name="c")(add)

    assert q.queues() == ("default", "mail", "slow")
    assert FlowQ(queue="q1").queues() == ("q1",)


def test_an_app_is_found_by_the_module_that_holds_it(q: FlowQ) -> None:
    assert app_path(IMPORTING) == f"{__name__}:IMPORTING"
    assert app_path(q) is None


def test_the_command_for_a_worker_is_one_that_can_be_typed(q: FlowQ, tmp_path: Path) -> None:
    assert "q.consumer()" in q.command()
    app = SqliteFlowQ("c", tmp_path / "c.db")

    assert app.command() == "flowq worker module:app"
    assert app.command("other") == "flowq worker module:app --queue other"


# --- starting


def test_a_batch_is_one_enqueue(q: FlowQ, monkeypatch: pytest.MonkeyPatch) -> None:
    task = q.task(add)
    calls: list[int] = []
    enqueue = q.store.enqueue
    monkeypatch.setattr(q.store, "enqueue", lambda m: (calls.append(len(m)), enqueue(m))[1])

    with q.batch():
        results = [task(i) for i in range(50)]
        run = (task.s(1) | task.s()).start()
        assert calls == []
    Hand(q).work()

    assert calls == [50]
    assert [r.get() for r in results] == [i + 1 for i in range(50)]
    assert run.get() == 3


def test_a_batch_that_an_exception_leaves_enqueues_nothing(q: FlowQ) -> None:
    task = q.task(add)

    with pytest.raises(KeyError), q.batch():
        r = task(1)
        raise KeyError

    assert Hand(q).fetch() == []
    with pytest.raises(flowq.ResultMissing, match=r"q\.batch"):
        r.get()


def test_a_batch_gathers_only_what_its_own_thread_and_app_call(q: FlowQ) -> None:
    task = q.task(add)
    other = FlowQ("other", "memory://").task(name="o")(add)

    with q.batch():
        thread = threading.Thread(target=lambda: task(1))
        thread.start()
        thread.join()
        task(2)
        assert other(1).state == "queued"
        assert q.store.status().queues[0].ready == 1

    assert q.store.status().queues[0].ready == 2


def test_inline_runs_calls_at_once_and_leaves_the_store_alone(q: FlowQ) -> None:
    pytest.importorskip("flowq.worker")
    task = q.task(add)

    @q.task
    def outer(n: int) -> int:
        task(n)
        return n

    before = task(1)
    with q.inline():
        assert task(1, 2).get() == 3
        assert task.schedule((1,), delay=3600).get() == 2
        assert (group(task.s(1), task.s(2)) | q.task(name="sum")(sum).s()).start().get() == 5
        assert task.map(range(3)).get() == [1, 2, 3]
        assert outer(5).get() == 5
        with q.batch():
            r = task(4)
        assert r.get() == 5
        with pytest.raises(flowq.TaskError, match="TypeError"):
            task("x").get()

    assert before.state == "queued"
    assert q.store.status().queues[0].ready == 1


@pytest.mark.parametrize(
    ("word", "says"), [("crontab", "not supported yet"), ("AsyncResult", r"q\.result\(id\)")]
)
def test_an_app_answers_habits_from_elsewhere(word: str, says: str) -> None:
    with pytest.raises(AttributeError, match=f"a FlowQ has no '{word}'; .*{says}"):
        getattr(FlowQ("habits"), word)


HABITUAL = FlowQ("habitual", "memory://")
STARTS: dict[str, Any] = {"task": HABITUAL.task(name="one")(lambda x: x)}
STARTS["flow"] = HABITUAL.flow(name="all")(lambda: STARTS["task"](1))
STARTED = {
    "result": STARTS["task"](1),
    "run": STARTS["flow"](),
    "group": STARTS["task"].map([1]),
}


@pytest.mark.parametrize("word", sorted(HABITS))
def test_each_habit_is_answered_by_all_that_does_not_have_the_word(word: str) -> None:
    asked = [HABITUAL, *STARTS.values(), *STARTED.values()]

    for thing in [x for x in asked if not hasattr(type(x), word)]:
        with pytest.raises(AttributeError, match=f"has no '{word}'; ") as caught:
            getattr(thing, word)
        assert str(caught.value).endswith(HABITS[word])


def test_a_consumer_warns_of_a_queue_that_no_task_names(caplog: pytest.LogCaptureFixture) -> None:
    q = FlowQ("typo", "memory://")
    q.task(queue="mails", name="send")(print)

    with caplog.at_level("WARNING", "flowq.consumer"):
        with q.consumer(queues=["mail", "mails"], drain=True):
            pass

    said = [r.getMessage() for r in caplog.records]
    assert said == ["no task names queue 'mail', only calls could; did you mean 'mails'?"]
