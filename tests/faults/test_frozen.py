# SPDX-License-Identifier: MIT
"""A process is stopped while it writes to a SQLite file; others wait, and nothing is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import ROOT, Farm, until

HOLD = """
import sys
from flowq.storage import open_store
with open_store(sys.argv[1], name=sys.argv[2])._db.write():
    print("up", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def farm(tmp_path: Path, store_name: str) -> Iterator[Farm]:
    made = Farm(tmp_path, f"sqlite:///{tmp_path}/farm.db?timeout=0.5", store_name)
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_an_outcome_waits_for_a_writer_that_was_stopped(farm: Farm, kind: str) -> None:
    consumer = farm.start("-k", kind, "-w", "1")
    held = farm.hold("a")
    farm.until_noted("a:begin")
    command = [sys.executable, "-c", HOLD, farm.url, farm.name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGSTOP)

        farm.let_go("a")
        farm.until_noted("a:end")
        until(lambda: f"was locked by process {writer.pid}" in consumer.log)
        assert not held.ready
        writer.send_signal(signal.SIGCONT)
        writer.communicate(b"\n")

    assert held.get(timeout=30) == "a"
    assert farm.call("mark", farm.journal, "next").get(timeout=30) == "next"
    assert len(farm.lines("a:begin")) == 1
    assert consumer.log.count("the store is back") == 1
