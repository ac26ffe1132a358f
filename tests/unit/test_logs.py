# SPDX-License-Identifier: MIT
"""How a process of flowq's own logs."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowq import logs
from flowq.current import CURRENT, CurrentTask


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the process's logging as it was."""
    root, ours = logging.getLogger(), logging.getLogger("flowq")
    before = root.level, ours.level, list(root.handlers)
    monkeypatch.setattr(logs, "_applied", None)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    yield
    for handler in [h for h in root.handlers if h not in before[2]]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(before[0])
    ours.setLevel(before[1])


def test_what_a_body_logs_names_its_task_and_run(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(format="json")
    token = CURRENT.set(CurrentTask(id="7:1", name="shop.add", run="7", node="add", attempt=2))
    try:
        logging.getLogger("shop").info("half of %d", 10)
        logs.configure(format="text")
        logging.getLogger("shop").info("the rest")
    finally:
        CURRENT.reset(token)

    first, second = capsys.readouterr().err.splitlines()
    line = json.loads(first)
    assert line["message"] == "half of 10"
    assert (line["task"], line["task_id"], line["attempt"]) == ("shop.add", "7:1", 2)
    assert (line["run_id"], line["node"]) == ("7", "add")
    assert second.endswith("shop: the rest  [shop.add 7:1]")


def test_what_python_says_by_itself_is_a_line_like_all_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Rude:
        def __del__(self) -> None:
            raise ValueError("on the way out")

    logs.configure(format="json")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old spelling", UserWarning, stacklevel=1)
    thread = threading.Thread(target=lambda: [].pop(), name="mine")
    thread.start()
    thread.join()
    Rude()

    warned, ended, ignored = map(json.loads, capsys.readouterr().err.splitlines())
    assert warned["level"] == "warning"
    assert warned["message"].endswith("UserWarning: old spelling")
    assert "mine ended" in ended["message"] and "pop from empty" in ended["exception"]
    assert "__del__" in ignored["message"] and "on the way out" in ignored["exception"]


def test_a_line_about_a_task_names_it_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(format="json")
    task = CurrentTask(id="7:1", name="shop.add", run="7", node="add", attempt=2)

    logging.getLogger("flowq.worker").info("x", extra={"flowq_task": task, "flowq_seconds": 0.25})

    line = json.loads(capsys.readouterr().err)
    assert (line["task_id"], line["node"], line["seconds"]) == ("7:1", "add", 0.25)


def test_a_traceback_stays_in_its_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(format="json")

    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("shop").exception("it failed")

    (text,) = capsys.readouterr().err.splitlines()
    assert "ValueError: two\nlines" in json.loads(text)["exception"]


@pytest.mark.parametrize(
    ("verbosity", "heard"),
    [
        (-2, ["b-error"]),
        (-1, ["b-warning", "b-error"]),
        (0, ["a-info", "b-info", "b-warning", "b-error"]),
        (1, ["a-debug", "a-info", "b-info", "b-warning", "b-error"]),
        (2, ["a-debug", "a-info", "b-debug", "b-info", "b-warning", "b-error"]),
    ],
)
def test_verbosity_says_what_is_heard(tmp_path: Path, verbosity: int, heard: list[str]) -> None:
    logs.configure(verbosity=verbosity, format="simple", file=str(tmp_path / "log"))

    for level in ("debug", "info"):
        getattr(logging.getLogger("flowq.worker"), level)(f"a-{level}")
    for level in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("shop"), level)(f"b-{level}")

    lines = (tmp_path / "log").read_text().splitlines()
    assert [text.split()[-1] for text in lines] == heard


def test_what_a_child_is_given_configures_it_alike(tmp_path: Path) -> None:
    assert logs.settings() == {"verbosity": -1}

    logs.configure(verbosity=1, format="json", file=str(tmp_path / "log"))
    given = json.loads(json.dumps(logs.settings()))
    logs.configure(**given)

    assert logs.settings() == given
    logging.getLogger("flowq").debug("once")
    assert len((tmp_path / "log").read_text().splitlines()) == 1
