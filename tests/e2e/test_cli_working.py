# SPDX-License-Identifier: MIT
"""``flowq worker``, as it is typed: signals, logs, settings, stores that cannot be used."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from flowq.consumer import ONE_SIGNAL
from tests.e2e.shell import Shell, until

# --- working


@pytest.mark.parametrize(
    ("kind", "how"),
    [("process", signal.SIGTERM), ("thread", signal.SIGINT)],
    ids=["process-SIGTERM", "thread-SIGINT"],
)
def test_a_signal_lets_what_runs_finish_and_gives_0(
    each: Shell, worker: list[subprocess.Popen[str]], kind: str, how: signal.Signals
) -> None:
    (id,) = each.python("from shop import *; print(nap(1.5).id)")
    worker.append(each.start("worker", "shop:q", "-w", "1", "-k", kind))
    until(worker[0], f"{id} starts")

    worker[0].send_signal(how)

    assert worker[0].wait(30) == 0
    assert each.run("result", id, "--name", each.name) == (0, "'slept'\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sh")
def test_a_worker_hears_ctrl_c_though_a_shell_ignores_it_for_jobs_behind(
    shell: Shell, worker: list[subprocess.Popen[str]]
) -> None:
    # given `flowq worker &` in a script
    worker.append(shell.start("worker", "shop:q", "-w", "1", behind=True))
    until(worker[0], "+ shop.total")

    # when
    worker[0].send_signal(signal.SIGINT)

    # then
    until(worker[0], "SIGINT: finishing what runs")
    assert worker[0].wait(30) == 0


def test_two_signals_at_once_are_one_and_a_later_one_ends_what_runs(
    shell: Shell, worker: list[subprocess.Popen[str]]
) -> None:
    (id,) = shell.python("from shop import *; print(hold('done').id)")
    worker.append(shell.start("worker", "shop:q", "-w", "1"))
    until(worker[0], f"{id} starts")

    # as timeout(1), which signals the process and then its group; of two kinds, as the system may
    # make one of two that are alike
    worker[0].send_signal(signal.SIGTERM)
    worker[0].send_signal(signal.SIGINT)
    until(worker[0], "finishing what runs")
    time.sleep(ONE_SIGNAL)  # the promise is this length of time
    shell.write("done", "")

    assert worker[0].wait(30) == 0
    assert shell.run("result", id)[0] == 0

    (id,) = shell.python("from shop import *; print(hold('never').id)")
    worker.append(shell.start("worker", "shop:q", "-w", "1"))
    until(worker[1], f"{id} starts")
    worker[1].send_signal(signal.SIGTERM)
    until(worker[1], "finishing what runs")
    time.sleep(ONE_SIGNAL)
    worker[1].send_signal(signal.SIGTERM)

    until(worker[1], "before the second signal and go back")
    assert worker[1].wait(30) == 0


def test_a_live_worker_and_a_watched_run_are_seen(
    each: Shell, worker: list[subprocess.Popen[str]]
) -> None:
    (id,) = each.python("from shop import *; print((hold.s('done') | boom.s()).start().id)")
    worker.append(each.start("worker", "shop:q", "-w", "2", "-k", "thread", "--queue", "mail"))
    until(worker[0], "starts")

    _, out, _ = each.run("status", "--name", each.name, "--json")
    (seen,) = json.loads(out)["workers"]
    assert (seen["kind"], seen["lanes"], seen["held"]) == ("thread", 2, 1)
    assert seen["queues"] == ["mail"]

    watch = each.start("run", "show", id, "--watch", "--name", each.name)
    worker.append(watch)
    assert watch.stdout is not None
    assert watch.stdout.readline().split()[2:4] == ["hold", "running"]
    each.write("done", "")
    worker.append(each.start("worker", "shop:q", "-w", "1", "--queue", "default"))
    out, err = watch.communicate(timeout=40)
    assert watch.returncode == 1, err
    rows = [text.split("  ") for text in out.splitlines()]
    moves = [row[1:3] for row in rows]
    assert moves.index(["hold", "success"]) < moves.index(["boom", "failed"])
    assert f"run {id}" in rows[-1]


def test_logs_in_json_parse_line_by_line(shell: Shell) -> None:
    shell.write(
        "rude.py",
        "import threading, warnings\n"
        "from shop import q\n"
        "@q.task\n"
        "def rude():\n"
        "    warnings.warn('old spelling')\n"
        "    thread = threading.Thread(target=lambda: 1 / 0)\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "    raise ValueError('two\\nlines')\n",
    )
    (id,) = shell.python("from rude import rude; print(rude().id)")

    status, _, err = shell.run(
        *("worker", "shop:q", "--import", "rude", "--drain", "-w", "1", "--log-format", "json")
    )

    assert status == 0
    lines = [json.loads(text) for text in err.splitlines()]
    assert len({text["pid"] for text in lines}) == 2  # the parent and its worker alike
    assert [text["level"] for text in lines if "old spelling" in text["message"]] == ["warning"]
    assert sum("ZeroDivisionError" in text.get("exception", "") for text in lines) == 1
    began, ended = (text for text in lines if id in text["message"])
    assert (began["task_id"], ended["task_id"], ended["level"]) == (id, id, "error")
    assert 0 <= ended["seconds"] < 60


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


# --- stores that cannot be used


def test_another_apps_file_and_a_newer_layout_are_mistakes_to_all_commands(shell: Shell) -> None:
    shell.python("from shop import *; add(1, 2)")
    shell.write("bakery.py", (shell.folder / "shop.py").read_text().replace("'shop'", "'bakery'"))

    for words in (["worker", "bakery:q"], ["status", "-A", "bakery:q"]):
        status, _, err = shell.run(*words)
        assert status == 2, err
        assert "belongs to the app 'shop', not to 'bakery'" in err

    with contextlib.closing(sqlite3.connect(shell.folder / "flowq.db")) as db:
        db.execute("PRAGMA user_version = 99")
    for words in (["worker", "shop:q"], ["status"]):
        status, _, err = shell.run(*words)
        assert status == 2, err
        assert "has layout 99" in err and "name a new file" in err


@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are dropped as Linux does it")
def test_a_file_that_may_not_be_written_ends_a_worker_at_once_with_4(shell: Shell) -> None:
    shell.python("from shop import *; add(1, 2)")
    (shell.folder / "flowq.db").chmod(0o444)

    status, _, err = shell.run("worker", "shop:q", as_user=True)

    assert status == 4
    assert "readonly" in err and "--url" in err


@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are dropped as Linux does it")
def test_a_folder_that_may_not_be_written_ends_a_worker_at_once_with_4(shell: Shell) -> None:
    shell.folder.chmod(0o555)
    try:
        status, _, err = shell.run("worker", "shop:q", as_user=True)
    finally:
        shell.folder.chmod(0o755)

    assert status == 4
    assert "Permission denied" in err and str(shell.folder / "flowq.db") in err


def test_a_wrong_password_is_a_mistake_to_all_commands(shell: Shell, redis_url: str) -> None:
    url = f"{redis_url}{'&' if '?' in redis_url else '?'}password=hush"

    for words in (["worker", "shop:q", "--url", url], ["status", "--url", url]):
        status, _, err = shell.run(*words)

        assert status == 2, err
        assert "refused the user or password" in err
        assert "hush" not in err


def test_a_queue_that_no_task_names_is_warned_of_with_those_that_are(shell: Shell) -> None:
    _, _, err = shell.run("worker", "shop:q", "--queue", "xyz", "--drain", "-w", "1")

    assert "no task names queue 'xyz'" in err and "default, mail" in err
