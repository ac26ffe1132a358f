# SPDX-License-Identifier: MIT
"""The command line, as it is typed: real processes, their exit statuses and what they print."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SHOP = """
import time
from flowq import FlowQ, group

q = FlowQ("shop")

@q.task
def add(a, b):
    return a + b

@q.task
def total(xs):
    return sum(xs)

@q.task
def boom(text):
    raise ValueError(text)

@q.task(queue="mail")
def nap(seconds):
    time.sleep(seconds)
    return "slept"
"""


class Shell:
    """A folder with a user's program in it, and the commands typed there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWQ_", "PYTEST"))}

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def python(self, code: str) -> list[str]:
        """Run a user's program; gives the words it prints."""
        out = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert out.returncode == 0, out.stderr
        return out.stdout.split()

    def start(self, *words: str, main: str = "main") -> subprocess.Popen[str]:
        code = f"import sys; from flowq.cli import {main}; sys.exit({main}())"
        return subprocess.Popen(
            [sys.executable, "-c", code, *words],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, main: str = "main") -> tuple[int, str, str]:
        """Type a command; gives its status, stdout and stderr. No mistake shows a traceback."""
        process = self.start(*words, main=main)
        try:
            out, err = process.communicate(timeout=50)
        finally:
            process.kill()
        assert "Traceback (most recent call last)" not in err or "flowq.worker" in err, err
        return process.returncode, out, err


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    made.write("shop.py", SHOP)
    return made


@pytest.fixture
def worker(shell: Shell) -> Iterator[list[subprocess.Popen[str]]]:
    """Workers that a test starts; killed at its end."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], word: str, seconds: float = 30) -> str:
    """Read what a process logs until a word comes."""
    assert process.stderr is not None
    seen = ""
    deadline = time.monotonic() + seconds
    for text in process.stderr:
        seen += text
        if word in text:
            return seen
        assert time.monotonic() < deadline, seen
    raise AssertionError(f"it ended before {word!r}: {seen}")


# --- before anything is loaded


def test_the_version_is_told_without_loading_anything_heavy(shell: Shell) -> None:
    code = (
        "import sys; from flowq.cli import main; status = main(['--version']);"
        "heavy = {'msgspec', 'redis', 'networkx', 'asyncio', 'sqlite3', 'rich'} & set(sys.modules);"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    name, version = shell.python(code)

    assert name == "flowq"
    assert version[0].isdigit()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["wroker", "shop:q"], "did you mean worker?"),
        (["worker", "shop:q", "--queu", "mail"], "did you mean --queue?"),
        (["worker", "shop:q", "-k", "proces"], "did you mean process?"),
        (["worker", "shop:q", "-w", "none"], "--workers"),
        (["worker", "shop:q", "--lease", "soon"], "--lease"),
        (["worker"], "module:app"),
        (["worker", "shpo:q"], "did you mean 'shop'?"),
        (["worker", "shop:qq"], "did you mean 'q'?"),
        (["worker", "shop:add"], "no FlowQ"),
        (["worker", "shop.add"], "no FlowQ"),
        (["worker", "./shp.py:q"], "no file ./shp.py"),
        (["worker", "shop:q", "--import", "missing_one"], "missing_one"),
        (["worker", "shop:q", "--url", "memory://"], "memory://"),
        (["worker", "shop:q", "--url", "reddis://:hush@h"], "reddis"),
        (["status", "--url", "redis://:hush@localhost:nope/0"], "store URL"),
        (["status", "redis://:hush@localhost/0"], "--url"),
        (["status", "shop:q"], "-A shop:q"),
        (["run", "show"], "ID"),
        (["run", "list", "--limit", "few"], "whole number"),
        (["run", "show", "xyz", "-A", "shop:q"], "store"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_clear_line(shell: Shell, words: list[str], said: str) -> None:
    status, out, err = shell.run(*words)

    assert status == (4 if said == "store" else 2)
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1, err
    assert "hush" not in err


def test_a_module_that_raises_shows_where_and_nothing_of_ours(shell: Shell) -> None:
    shell.write("broken.py", "import shop\n\ndef f():\n    return 1 / 0\n\nf()\n")

    status, _, err = shell.run("worker", "broken:q")

    assert status == 2
    assert "broken.py" in err and "line 4" in err
    assert err.splitlines()[-1] == (
        "flowq: broken cannot be imported: ZeroDivisionError: division by zero"
    )
    assert "importlib" not in err and "loading.py" not in err


def test_a_module_whose_own_import_is_missing_is_not_called_missing(shell: Shell) -> None:
    shell.write("needy.py", "import not_installed_here\n")

    status, _, err = shell.run("worker", "needy:q")

    assert status == 2
    assert "needy cannot be imported: ModuleNotFoundError" in err.splitlines()[-1]


def test_an_app_without_tasks_is_refused(shell: Shell) -> None:
    shell.write("empty.py", "from flowq import FlowQ\nq = FlowQ()\n")

    status, _, err = shell.run("worker", "empty:q")

    assert status == 2
    assert "knows no task" in err


def test_two_apps_in_a_module_ask_which(shell: Shell) -> None:
    shell.write("two.py", "from flowq import FlowQ\na = FlowQ()\nb = FlowQ('b')\nalso = a\n")

    status, _, err = shell.run("worker", "two")

    assert status == 2
    assert "two:a or two:b" in err


def test_an_unknown_setting_is_an_error_that_names_the_nearest(shell: Shell) -> None:
    shell.write("pyproject.toml", "[tool.flowq]\nworkerz = 3\n")

    status, _, err = shell.run("worker", "shop:q")

    assert status == 2
    assert "'workers'" in err


def test_a_store_that_is_away_gives_4(shell: Shell) -> None:
    url = "redis://:hush@127.0.0.1:1/0"

    for words in (["status", "--url", url], ["worker", "shop:q", "--url", url]):
        status, out, err = shell.run(*words)

        assert status == 4, err
        assert out == ""
        assert "hush" not in err


def test_a_store_that_is_not_there_is_not_made_by_looking(shell: Shell) -> None:
    status, _, err = shell.run("status")

    assert status == 4
    assert str(shell.folder / "flowq.db") in err
    assert not (shell.folder / "flowq.db").exists()


# --- ways to name an app


@pytest.mark.parametrize(
    "app", ["shop:q", "shop.q", "shop", "shop.py:q", "./shop.py", "pkg/sub/tasks.py:q", "pkg.sub"]
)
def test_every_form_of_an_app_starts_a_worker(shell: Shell, app: str) -> None:
    shell.write("pkg/__init__.py", "")
    shell.write("pkg/sub/__init__.py", "from pkg.sub.tasks import q as q\n")
    shell.write("pkg/sub/tasks.py", SHOP)

    status, out, err = shell.run("worker", app, "--drain", "-w", "1", "-k", "thread")

    assert status == 0, err
    assert out == ""
    prefix = "pkg.sub.tasks" if "pkg" in app else "shop"
    assert f"+ {prefix}.add" in err


# --- reading


@pytest.fixture
def worked(shell: Shell) -> dict[str, str]:
    """A store in which things have ended; gives ids."""
    ids = shell.python(
        "from shop import *\n"
        "good, bad = add(1, 2), boom('no such file')\n"
        "run = (group(add.s(i, i) for i in range(3)) | total.s()).start()\n"
        "broken = (boom.s('oh') | add.s(2)).start()\n"
        "print(good.id, bad.id, run.id, broken.id)"
    )
    status, _, err = shell.run("worker", "shop:q", "--drain", "-w", "1")
    assert status == 0, err
    return dict(zip(("good", "bad", "run", "broken"), ids, strict=True))


def test_ended_runs_and_tasks_are_shown(shell: Shell, worked: dict[str, str]) -> None:
    shop: list[str] = []  # neither user code nor a name: the file says whose it is

    status, out, _ = shell.run("run", "list", *shop)
    assert status == 0
    assert [row.split()[0] for row in out.splitlines()[1:]] == [worked["broken"], worked["run"]]

    status, out, _ = shell.run("run", "show", worked["broken"], *shop)
    assert status == 0
    assert "failed" in out and "ValueError('oh')" in out and "because of boom" in out
    assert "\x1b" not in out

    status, out, _ = shell.run("task", "show", worked["bad"], *shop)
    assert status == 0
    assert "shop.boom" in out and "ValueError: no such file" in out
    assert "attempts  1" in out

    assert shell.run("result", worked["good"], *shop) == (0, "3\n", "")
    assert shell.run("result", worked["run"], *shop) == (0, "6\n", "")
    status, out, err = shell.run("result", worked["bad"], *shop)
    assert (status, out) == (1, "")
    assert "ValueError('no such file')" in err
    status, _, err = shell.run("result", worked["broken"], *shop)
    assert status == 1
    assert "because of boom: ValueError('oh')" in err


def test_dead_letters_are_listed_and_shown_without_running_anything(shell: Shell) -> None:
    (id,) = shell.python(
        "from shop import q\n"
        "from flowq.message import Message, id_text, new_id\n"
        "id = new_id()\n"
        "q.store.enqueue([Message(id, 'shop.add', b'no payload')])\n"
        "print(id_text(id))"
    )
    status, _, err = shell.run("worker", "shop:q", "--drain", "-w", "1")
    assert status == 0, err

    _, listed, _ = shell.run("dead", "list", "--name", "shop")
    _, shown, _ = shell.run("dead", "show", id[:13], "--name", "shop", "--json")

    assert id in listed and "shop.add" in listed
    what = json.loads(shown)
    assert (what["id"], what["task"], what["reason"]) == (id, "shop.add", "undecodable")


def test_json_parses_everywhere(shell: Shell, worked: dict[str, str]) -> None:
    def read(*words: str) -> dict[str, Any]:
        status, out, err = shell.run(*words, "--name", "shop", "--json")
        assert status in (0, 1), err
        found: dict[str, Any] = json.loads(out)
        assert found["schema"] == 1
        return found

    status = read("status")
    assert {"name": "default", "ready": 0} in status["queues"]
    assert (status["running"], status["workers"]) == (0, [])
    run = read("run", "show", worked["run"])
    assert run["state"] == "success" and run["states"] == {"success": 4}
    assert read("task", "show", worked["good"])["value"] == "3"
    assert read("result", worked["bad"])["error"] == "ValueError('no such file')"

    _, out, _ = shell.run("run", "list", "--name", "shop", "--json")
    assert [json.loads(text)["state"] for text in out.splitlines()] == ["failed", "success"]
    assert shell.run("dead", "list", "--name", "shop", "--json")[:2] == (0, "")


def test_a_run_may_be_named_by_the_beginning_of_its_id(
    shell: Shell, worked: dict[str, str]
) -> None:
    # Both runs were made within a millisecond or so: their ids differ late, but they do.
    whole = worked["run"]
    status, out, _ = shell.run("run", "show", whole[:-2], "--name", "shop")
    assert status == 0
    assert whole in out

    status, _, err = shell.run("run", "show", whole[:6], "--name", "shop")
    assert status == 3
    assert "2 runs begin" in err


@pytest.mark.parametrize("words", [["run", "show"], ["task", "show"], ["dead", "show"], ["result"]])
def test_what_is_not_there_gives_3(shell: Shell, worked: dict[str, str], words: list[str]) -> None:
    status, out, err = shell.run(*words, f"{'0' * 8}-{worked['run'][9:]}", "--name", "shop")

    assert (status, out) == (3, "")
    assert len(err.splitlines()) == 1


def test_a_store_of_another_app_says_so(shell: Shell, worked: dict[str, str]) -> None:
    status, _, err = shell.run("status", "--name", "bakery")

    assert status == 2
    assert "belongs to the app 'shop', not to 'bakery'" in err
    assert shell.run("status", "-A", "shop:q")[0] == 0


def test_waiting_is_bounded_and_ends_quietly_on_ctrl_c(shell: Shell) -> None:
    (id,) = shell.python("from shop import *; print(nap(0).id)")

    status, _, err = shell.run("result", id, "--timeout", "0.2", "--name", "shop")
    assert status == 5
    assert "queued" in err

    process = shell.start("result", id, "--wait", "--name", "shop")
    time.sleep(1.5)  # nothing tells from outside that it waits; too early is a pass as well
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert err == "" or "KeyboardInterrupt" in err  # the latter while Python still started


# --- working


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_signal_lets_what_runs_finish_and_gives_0(
    shell: Shell, worker: list[subprocess.Popen[str]], how: signal.Signals, kind: str
) -> None:
    (id,) = shell.python("from shop import *; print(nap(1.5).id)")
    worker.append(shell.start("worker", "shop:q", "-w", "1", "-k", kind))
    until(worker[0], f"{id} starts")

    worker[0].send_signal(how)

    assert worker[0].wait(30) == 0
    assert shell.run("result", id, "--name", "shop") == (0, "'slept'\n", "")


def test_a_live_worker_and_a_watched_run_are_seen(
    shell: Shell, worker: list[subprocess.Popen[str]]
) -> None:
    (id,) = shell.python("from shop import *; print((nap.s(2) | boom.s()).start().id)")
    worker.append(shell.start("worker", "shop:q", "-w", "2", "-k", "thread", "--queue", "mail"))
    until(worker[0], "starts")

    _, out, _ = shell.run("status", "--name", "shop", "--json")
    (seen,) = json.loads(out)["workers"]
    assert (seen["kind"], seen["lanes"], seen["held"]) == ("thread", 2, 1)
    assert seen["queues"] == ["mail"]

    watch = shell.start("run", "show", id, "--watch", "--name", "shop")
    worker.append(watch)
    worker.append(shell.start("worker", "shop:q", "-w", "1", "--queue", "default"))
    out, err = watch.communicate(timeout=40)
    assert watch.returncode == 1, err
    rows = [text.split("  ") for text in out.splitlines()]
    moves = [row[1:3] for row in rows]
    assert moves.index(["nap", "running"]) < moves.index(["nap", "success"])
    assert ["boom", "failed"] in moves
    assert f"run {id}" in rows[-1]


def test_logs_in_json_parse_line_by_line(shell: Shell) -> None:
    shell.python("from shop import *; add(1, 2)")

    status, _, err = shell.run("worker", "shop:q", "--drain", "-w", "1", "--log-format", "json")

    assert status == 0
    lines = [json.loads(text) for text in err.splitlines()]
    assert {"info"} == {text["level"] for text in lines}
    assert len({text["pid"] for text in lines}) == 2  # the parent and its worker alike


def test_settings_come_from_flag_then_environment_then_project(shell: Shell) -> None:
    shell.write("pyproject.toml", '[tool.flowq]\napp = "shop:q"\nworkers = 3\nkind = "thread"\n')

    _, _, err = shell.run("worker", "--drain")
    assert "3 thread workers" in err
    shell.env["FLOWQ_WORKERS"] = "2"
    _, _, err = shell.run("worker", "--drain")
    assert "2 thread workers" in err
    _, _, err = shell.run("worker", "--drain", "-w", "1")
    assert "1 thread worker " in err


def test_quiet_says_nothing_that_is_well(shell: Shell) -> None:
    assert shell.run("worker", "shop:q", "--drain", "-w", "1", "-q") == (0, "", "")


# --- Huey's spelling


def test_the_spelling_of_huey_starts_one_thread(
    shell: Shell, worker: list[subprocess.Popen[str]]
) -> None:
    worker.append(shell.start("shop.q", main="huey_main"))

    assert "1 thread worker " in until(worker[0], "+ shop.total")
    worker[0].send_signal(signal.SIGINT)
    assert worker[0].wait(30) == 0


def test_the_flags_of_huey_that_can_be_honoured_are(
    shell: Shell, worker: list[subprocess.Popen[str]]
) -> None:
    flags = ["--workers", "2", "--worker-type", "process", "-t", "5", "-l", "log", "--verbose"]
    worker.append(shell.start("shop.q", *flags, main="huey_main"))
    log = shell.folder / "log"
    deadline = time.monotonic() + 30
    while not (log.exists() and "+ shop.total" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    worker[0].send_signal(signal.SIGTERM)

    assert worker[0].wait(30) == 0
    assert "2 process workers" in log.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-k", "greenlet"], "thread"),
        (["-n"], "leave it out"),
        (["-d", "0.1"], "does not poll"),
        (["--graceful-signal=TERM"], "shutdown-timeout"),
        (["--max-tasks", "5"], "leave it out"),
        (["--worker", "5"], "--workers"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_the_flags_of_huey_that_cannot_are_refused_with_what_to_do(
    shell: Shell, words: list[str], said: str
) -> None:
    status, _, err = shell.run("shop.q", *words, main="huey_main")

    assert status == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_output_into_a_pipe_that_closes_is_no_error(shell: Shell, worked: dict[str, str]) -> None:
    process = shell.start("run", "list", "--name", "shop")
    assert process.stdout is not None
    process.stdout.close()

    assert process.wait(30) == 0
    assert process.stderr is not None
    with contextlib.closing(process.stderr):
        assert process.stderr.read() == ""
