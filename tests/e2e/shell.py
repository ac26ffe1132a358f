# SPDX-License-Identifier: MIT
"""A user's terminal: a folder with a program in it, and the commands that are typed there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["SHOP", "Shell", "until"]

SHOP = """
import time
from pathlib import Path
from flowq import FlowQ, group

q = FlowQ({name!r})

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

@q.task(queue="mail")
def hold(path):
    while not Path(path).exists():
        time.sleep(0.01)
"""
MAIN = "import sys; from flowq.cli import {main}; sys.exit({main}())"
# Root may write everywhere unless it gives up the capabilities that let it.
AS_USER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""


class Shell:
    """A folder with a user's program in it, and the commands typed there.

    Parameters
    ----------
    folder : Path
    name : str
        The app's, in ``shop.py``.
    env : mapping of str to str
        Set there besides.
    """

    def __init__(self, folder: Path, name: str = "shop", env: Mapping[str, str] = {}) -> None:
        self.folder = folder
        self.name = name
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWQ_", "PYTEST"))}
        self.env.update(env)
        self.write("shop.py", SHOP.format(name=name))

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

    def start(
        self, *words: str, main: str = "main", as_user: bool = False, behind: bool = False
    ) -> subprocess.Popen[str]:
        """Type a command.

        `as_user` takes root's right to write to what is read-only; `behind` ignores Ctrl-C, as a
        script's shell has it ignored by what is started with ``&``.
        """
        shell = ["sh", "-c", 'trap "" INT; exec "$@"', "-"] if behind else []
        code = [AS_USER, MAIN.format(main=main)] if as_user else [MAIN.format(main=main)]
        return subprocess.Popen(
            [*shell, sys.executable, "-c", *code, *words],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, main: str = "main", as_user: bool = False) -> tuple[int, str, str]:
        """Type a command; gives its status, stdout and stderr. No mistake shows a traceback."""
        with self.start(*words, main=main, as_user=as_user) as process:
            try:
                out, err = process.communicate(timeout=50)
            finally:
                process.kill()
        assert "Traceback (most recent call last)" not in err or "flowq.worker" in err, err
        return process.returncode, out, err


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
