# SPDX-License-Identifier: MIT
"""The commands that read a store, as they are typed, on each store."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.e2e.shell import MAIN, Shell

NO_ID = "00000000-0000-7000-8000-000000000000"


class Worked(Shell):
    """A terminal in a folder where things have ended."""

    ids: dict[str, str]

    def read(self, *words: str) -> tuple[int, str, str]:
        """Type a command of this app."""
        return self.run(*words, "--name", self.name)

    def json(self, *words: str) -> dict[str, Any]:
        """Give the document that a command prints with ``--json``."""
        status, out, err = self.read(*words, "--json")
        assert status in (0, 1), err
        found: dict[str, Any] = json.loads(out)
        assert found["schema"] == 1
        return found


@pytest.fixture(scope="module")
def worked(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Worked:
    """One store for all who only look."""
    shell = Worked(tmp_path_factory.mktemp("worked"), f"t{secrets.token_hex(6)}", env)
    ids = shell.python(
        "from shop import *\n"
        "from flowq.message import Message, id_text, new_id\n"
        "good, bad = add(1, 2), boom.options(retries=1, retry_delay=0)('no such file')\n"
        "run = (group(add.s(i, i) for i in range(3)) | total.s()).start()\n"
        "broken = (boom.s('oh') | add.s(2)).start()\n"
        "dead = new_id()\n"
        "q.store.enqueue([Message(dead, 'shop.add', b'no payload')])\n"
        "print(good.id, bad.id, run.id, broken.id, id_text(dead))"
    )
    status, _, err = shell.run("worker", "shop:q", "--drain", "-w", "1")
    assert status == 0, err
    shell.ids = dict(zip(("good", "bad", "run", "broken", "dead"), ids, strict=True))
    return shell


def test_status_says_of_which_store_and_app_it_speaks(worked: Worked) -> None:
    status, out, _ = worked.read("status")

    assert status == 0
    rows = dict(line.split(maxsplit=1) for line in out.splitlines() if line[:3] in ("sto", "app"))
    assert rows["app"] == worked.name
    assert rows["store"] == worked.env.get("FLOWQ_URL", f"sqlite:///{worked.folder}/flowq.db")
    assert "no live workers" in out


def test_runs_are_listed_newest_first_and_the_list_says_that_it_goes_on(worked: Worked) -> None:
    _, out, err = worked.read("run", "list")
    assert [row.split()[0] for row in out.splitlines()[1:]] == [
        worked.ids["broken"],
        worked.ids["run"],
    ]
    assert err == ""

    _, out, err = worked.read("run", "list", "--limit", "1")
    assert [row.split()[0] for row in out.splitlines()[1:]] == [worked.ids["broken"]]
    assert err == "there are more; --limit shows more\n"


def test_runs_are_listed_by_state_and_name(worked: Worked) -> None:
    _, failed, _ = worked.read("run", "list", "--state", "failed", "--limit", "1")
    _, listed, _ = worked.read("run", "list", "--json")
    name = json.loads(listed.splitlines()[0])["name"]
    _, named, _ = worked.read("run", "list", "--flow", name, "--state", "failed", "--json")
    _, none, said = worked.read("run", "list", "--flow", "nobody")
    status, _, mistyped = worked.read("run", "list", "--state", "faild")

    assert [row.split()[0] for row in failed.splitlines()[1:]] == [worked.ids["broken"]]
    assert [json.loads(row)["id"] for row in named.splitlines()] == [worked.ids["broken"]]
    assert (none, said) == ("", f"no such runs of the app {worked.name!r}\n")
    assert status == 2 and "--state 'faild' is none of" in mistyped


def test_a_run_shows_which_node_failed_and_what_it_blocked(worked: Worked) -> None:
    status, out, _ = worked.read("run", "show", worked.ids["broken"])

    assert status == 0
    assert "failed" in out and "ValueError('oh')" in out and "because of boom" in out
    assert "\x1b" not in out


def test_a_task_shows_its_error_and_how_often_it_was_tried(worked: Worked) -> None:
    status, out, _ = worked.read("task", "show", worked.ids["bad"])

    assert status == 0
    assert "shop.boom" in out and "ValueError: no such file" in out
    assert "attempts  2" in out


def test_attempts_that_the_store_may_have_forgotten_are_not_called_one(worked: Worked) -> None:
    run = worked.json("run", "show", worked.ids["run"])
    task = worked.json("task", "show", worked.ids["good"])

    assert {node["attempts"] for node in run["nodes"]} == {None}
    assert task["attempts"] is None
    assert worked.json("task", "show", worked.ids["bad"])["attempts"] == 2


def test_a_result_is_a_value_or_an_exit_status_of_1(worked: Worked) -> None:
    assert worked.read("result", worked.ids["good"]) == (0, "3\n", "")
    assert worked.read("result", worked.ids["run"]) == (0, "6\n", "")

    status, out, err = worked.read("result", worked.ids["bad"])
    assert (status, out) == (1, "")
    assert "ValueError('no such file')" in err
    status, _, err = worked.read("result", worked.ids["broken"])
    assert status == 1
    assert "because of boom: ValueError('oh')" in err


def test_dead_letters_are_listed_and_shown_without_running_anything(worked: Worked) -> None:
    id = worked.ids["dead"]

    _, listed, _ = worked.read("dead", "list")
    what = worked.json("dead", "show", id)

    assert id in listed and "shop.add" in listed
    assert (what["id"], what["task"], what["reason"]) == (id, "shop.add", "undecodable")


def test_json_parses_everywhere(worked: Worked) -> None:
    status = worked.json("status")
    assert {"name": "default", "ready": 0} in status["queues"]
    assert (status["running"], status["workers"], status["app"]) == (0, [], worked.name)
    run = worked.json("run", "show", worked.ids["run"])
    assert run["state"] == "success" and run["states"] == {"success": 4}
    assert worked.json("task", "show", worked.ids["good"])["value"] == "3"
    assert worked.json("result", worked.ids["bad"])["error"] == "ValueError('no such file')"

    _, out, _ = worked.read("run", "list", "--json")
    assert [json.loads(text)["state"] for text in out.splitlines()] == ["failed", "success"]
    _, out, _ = worked.read("dead", "list", "--json")
    assert [json.loads(text)["id"] for text in out.splitlines()] == [worked.ids["dead"]]


def test_a_run_may_be_named_by_the_beginning_of_its_id(worked: Worked) -> None:
    # Both runs were made within a millisecond or so: their ids differ late, but they do.
    whole = worked.ids["run"]
    status, out, _ = worked.read("run", "show", whole[:-2])
    assert status == 0
    assert whole in out


def test_a_beginning_that_fits_several_ids_is_a_mistake_which_names_them(worked: Worked) -> None:
    runs = [worked.ids["broken"], worked.ids["run"]]  # newest first

    for words in (("run", "show"), ("run", "why"), ("task", "show"), ("run", "cancel")):
        status, out, err = worked.read(*words, runs[0][:6])

        assert (status, out) == (2, "")
        assert err.splitlines() == [
            f"flowq: 2 runs begin with {runs[0][:6]!r}:",
            *(f"  {id}" for id in runs),
        ]


@pytest.mark.parametrize("words", [["run", "show"], ["task", "show"], ["dead", "show"], ["result"]])
def test_what_is_not_there_gives_3(worked: Worked, words: list[str]) -> None:
    status, out, err = worked.read(*words, NO_ID)

    assert (status, out) == (3, "")
    assert len(err.splitlines()) == 1
    assert repr(worked.name) in err


def test_a_task_is_not_looked_for_among_runs(worked: Worked) -> None:
    id = worked.ids["good"]

    status, _, err = worked.read("run", "show", id)
    assert status == 2
    assert f"flowq task show {id}" in err

    status, _, err = worked.read("task", "show", "f" * 8)
    assert status == 3
    assert "whole id" in err


@pytest.mark.parametrize("words", [["status"], ["run", "list", "--json"]], ids=lambda w: w[0])
def test_output_that_nobody_reads_is_no_error(worked: Worked, words: list[str]) -> None:
    # A reader of a pipe that has seen enough; and no stdout at all, as some supervisors start.
    typed = [sys.executable, "-c", MAIN.format(main="main"), *words, "--name", worked.name]
    for behind in ("| head -c 1", ">&-"):
        out = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f'"$@" {behind}', "-", *typed],
            cwd=worked.folder,
            env=worked.env,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert (out.returncode, out.stderr) == (0, ""), behind


def test_a_pipe_that_closes_early_is_no_error(worked: Worked) -> None:
    process = worked.start("run", "list", "--name", worked.name)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()

    assert process.wait(30) == 0
    with process.stderr:
        assert process.stderr.read() == ""


def test_waiting_is_bounded_and_ends_quietly_on_ctrl_c(each: Shell) -> None:
    (id,) = each.python("from shop import *; print(nap(0).id)")

    status, _, err = each.run("result", id, "--timeout", "0.2", "--name", each.name)
    assert status == 5
    assert "queued" in err

    process = each.start("result", id, "--wait", "--name", each.name)
    time.sleep(1.5)  # nothing tells from outside that it waits; too early is a pass as well
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert err == "" or "KeyboardInterrupt" in err  # the latter while Python still started


# --- what a SQLite file says of itself


def test_a_file_says_whose_it_is(shell: Shell) -> None:
    (id,) = shell.python("from shop import *; print((add.s(1, 2) | add.s(3)).start().id)")

    assert shell.run("run", "show", id)[0] == 0
    assert shell.run("status", "-A", "shop:q")[0] == 0
    status, _, err = shell.run("status", "--name", "bakery")
    assert status == 2
    assert "belongs to the app 'shop', not to 'bakery'" in err


def test_the_app_of_the_project_says_which_store_is_read(shell: Shell) -> None:
    shell.write(
        "mart.py",
        "from flowq import FlowQ\nq = FlowQ('mart', 'sqlite:///mart.db')\n@q.task\n"
        "def one(): return 1\n",
    )
    shell.write("pyproject.toml", '[tool.flowq]\napp = "mart:q"\n')
    (id,) = shell.python("import mart; print(mart.one().id)")
    assert shell.run("worker", "--drain", "-w", "1")[0] == 0

    assert shell.run("result", id) == (0, "1\n", "")
    assert shell.run("task", "show", id)[0] == 0
    status, out, _ = shell.run("status", "--json")
    assert (status, json.loads(out)["app"]) == (0, "mart")

    # where the store itself is said, nobody's code is run
    shell.write("mart.py", "raise RuntimeError('imported')")
    assert shell.run("result", id, "--url", "sqlite:///mart.db") == (0, "1\n", "")


def test_a_store_that_is_not_there_is_not_made_by_looking(shell: Shell) -> None:
    status, _, err = shell.run("status")

    assert status == 4
    assert str(shell.folder / "flowq.db") in err
    assert not (shell.folder / "flowq.db").exists()
