# SPDX-License-Identifier: MIT
"""Workers that are killed: processes of their own, each of which takes one message and dies.

``python -m tests.cases.killed`` forks one for each line that it reads, since a new interpreter
would take longer than all that it is to do. It says what the dead one had done.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from flowq import FlowQ
from flowq.executor import Executor, Job, Lane
from flowq.message import decode_message
from flowq.testing import ManualClock
from tests.cases.stage import Notes, Stage, add_tasks

ROOT = Path(__file__).parents[2]


class Killer:
    """Has workers killed at a moment that the test names."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cases.killed"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def die(self, stage: Stage, session: str, *, settled: bool) -> dict[str, Any]:
        """Let a worker take one message, run its body and die.

        Either just before it tells what came of it, or just after. Gives the name of the node (none
        if there was nothing to take), the calls of bodies, and which outcome it was.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        words = {"url": stage.q.url, "name": stage.q.name, "now": stage.clock.now_ms()}
        words |= {"session": session, "settled": settled}
        print(json.dumps(words), file=process.stdin, flush=True)
        said: dict[str, Any] = json.loads(process.stdout.readline())
        assert said["status"] == -signal.SIGKILL, said
        stage.calls.extend(tuple(call) for call in said["calls"])
        return said

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def doomed(words: dict[str, Any], told: int) -> None:
    """Be a worker, to the moment at which it is killed."""
    q, notes = FlowQ(words["name"], words["url"], clock=ManualClock(words["now"])), Notes()
    add_tasks(q, notes)
    lane = Lane(0)
    lane.thread = threading.get_ident()
    session = words["session"]
    found = q.store.step(session, want=1, queues=q.queues()).deliveries
    said: dict[str, Any] = {"node": None, "outcome": None}
    if found:
        outcome = Executor(q).run(lane, Job(found[0]))
        said = {"node": decode_message(found[0].body).name, "outcome": type(outcome).__name__}
        if words["settled"]:
            q.store.step(session, [outcome])
    os.write(told, json.dumps({**said, "calls": notes.calls}).encode())
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    # What a worker imports at first use, once for all of them.
    for module in ("flowq.storage.redis.store", "flowq.storage.sqlite.store", "flowq.fragment"):
        importlib.import_module(module)
    for line in sys.stdin:
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(read)
            doomed(json.loads(line), write)
        os.close(write)
        with os.fdopen(read) as told:
            text = told.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({**json.loads(text or "{}"), "status": status}), flush=True)


if __name__ == "__main__":
    main()
