# SPDX-License-Identifier: MIT
"""A program that runs a consumer where it is imported: by its own workers too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from flowq import FlowQ

q = FlowQ("main", "sqlite:///{folder}/main.db?synchronous=normal")

@q.task
def one():
    return 1

r = one()
q.consumer(workers=2, kind="process", drain=True).run()
print("value", r.get())
"""


def test_a_consumer_at_the_top_of_a_module_starts_no_workers_of_workers(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(folder=tmp_path))

    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "value 1"
    said = [line for line in done.stderr.splitlines() if '__name__ == "__main__"' in line]
    assert 1 <= len(said) <= 2  # once for each worker
