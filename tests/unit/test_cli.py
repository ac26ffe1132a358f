# SPDX-License-Identifier: MIT
"""Pieces of the command line that need no process."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowq.cli import main, worker
from flowq.cli.output import one_line


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000", None), ("150000 100000", 1.5), ("broken", None)]
)
def test_the_quota_of_a_control_group_is_read(
    tmp_path: Path, text: str, quota: float | None
) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu")
    (tmp_path / "cpu.max").write_text(text)

    assert worker._quota(tmp_path) == quota


def test_a_machine_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert worker._quota(tmp_path) is None


def test_a_quota_bounds_the_workers_and_leaves_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    for quota, expected in ((None, 8), (0.2, 1), (2.5, 3), (99.0, 8)):
        monkeypatch.setattr(worker, "_quota", lambda q=quota: q)
        assert worker.cpus() == expected


def test_text_from_a_store_cannot_move_the_cursor() -> None:
    assert one_line("a\x1b[2Jb\nc") == "a [2Jb c"
    assert len(one_line("x" * 500)) == 100


@pytest.mark.parametrize("flag", ["--url", "-A"])
def test_a_flag_before_the_command_is_named_and_its_value_is_not(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([flag, "redis://:secret@host/0", "worker", "shop:q"])

    said = capsys.readouterr().err
    assert status == 2
    assert f"flags go behind the command, so {flag} cannot come first" in said
    assert "secret" not in said
