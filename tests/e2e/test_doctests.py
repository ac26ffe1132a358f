# SPDX-License-Identifier: MIT
"""Every example in a docstring of flowq runs as it stands."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "flowq").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A store that an example makes by default lands in an empty folder.
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)

    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.REPORT_NDIFF
    result = doctest.testmod(module, optionflags=flags)

    assert result.attempted > 0, "the examples are not in docstrings"
    assert result.failed == 0, "see the captured output"
