# SPDX-License-Identifier: MIT
"""What modules say is public is there, and importing flowq loads no more than it needs."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import flowq

MODULES = [
    m.name
    for m in pkgutil.walk_packages(flowq.__path__, "flowq.")
    if not m.name.endswith("__main__")
]
HEAVY = "networkx redis croniter cloudpickle asyncio rich sqlite3".split()


@pytest.mark.parametrize("name", ["flowq", *MODULES])
def test_every_name_that_a_module_gives_is_there(name: str) -> None:
    module = importlib.import_module(name)
    said = getattr(module, "__all__", [])

    assert len(set(said)) == len(said)
    assert [n for n in said if not hasattr(module, n)] == []


@pytest.mark.parametrize("name", ["flowq", *MODULES])
def test_a_module_takes_from_another_only_what_that_gives(name: str) -> None:
    file = importlib.import_module(name).__file__
    assert file is not None
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))

    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node.module not in MODULES or node.level:
            continue
        module = importlib.import_module(node.module)
        taken = {alias.name for alias in node.names if f"{node.module}.{alias.name}" not in MODULES}
        if hasattr(module, "__all__"):
            assert taken - set(module.__all__) == set(), node.module


@pytest.mark.parametrize("code", ["import flowq", "from flowq import FlowQ"])
def test_an_import_loads_nothing_that_is_used_later_or_never(code: str) -> None:
    check = f"{code}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"

    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"
