# SPDX-License-Identifier: MIT
"""The list of the cases names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_each_case_in_the_list_is_a_test_that_there_is() -> None:
    text = (HERE / "README.md").read_text()
    rows = re.findall(r"^\|.*\]\(([^)]+)\) \| `(\w+)` \|$", text, re.MULTILINE)

    missing = [name for path, name in rows if f"def {name}(" not in (HERE / path).read_text()]

    assert len(rows) == text.count("\n| ") - 2
    assert missing == []
