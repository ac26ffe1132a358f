# SPDX-License-Identifier: MIT
"""The command line, as it is typed: mistakes, ways to name an app, and Huey's spelling."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.e2e.shell import SHOP, Shell, until

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


# --- ways to name an app


@pytest.mark.parametrize(
    "app", ["shop:q", "shop.q", "shop", "shop.py:q", "./shop.py", "pkg/sub/tasks.py:q", "pkg.sub"]
)
def test_every_form_of_an_app_starts_a_worker(shell: Shell, app: str) -> None:
    shell.write("pkg/__init__.py", "")
    shell.write("pkg/sub/__init__.py", "from pkg.sub.tasks import q as q\n")
    shell.write("pkg/sub/tasks.py", SHOP.format(name="pkg"))

    status, out, err = shell.run("worker", app, "--drain", "-w", "1", "-k", "thread")

    assert status == 0, err
    assert out == ""
    prefix = "pkg.sub.tasks" if "pkg" in app else "shop"
    assert f"+ {prefix}.add" in err


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
