# SPDX-License-Identifier: MIT
"""What an editor and a type checker see of branches. Checked, not run."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

from flowq import FlowQ, Result, branch

q = FlowQ("typed")


@q.task
def add(a: int, b: int = 2) -> int:
    return a + b


@q.task
def size(a: str) -> str:
    return "big" if len(a) > 9 else "small"


@q.flow
def sums(text: str) -> int:
    one = add(1)
    how = size(text)
    # functions and nodes alike give the type of their values
    assert_type(branch(how, {"big": lambda: add(2), "small": lambda: add(one)}), Result[int])
    assert_type(branch(how, {"big": one, "small": add(3)}, default=lambda: add(1)), Result[int])
    assert_type(branch(how["size"], {"big": lambda: add(2)}, default=one), Result[int])
    assert_type(branch(how, {"big": add.map([1]), "small": add.map([2])}), Result[list[int]])
    # of constants too; of both together nothing is known
    assert_type(branch(one, {1: "one", 2: "two"}), Result[str])
    assert_type(branch(how, {"big": lambda: add(2), "small": 3}), Result[Any])
    return branch(how, {"big": lambda: add(2), "small": lambda: add(one)})


# outside of flows
assert_type(branch(size.s("a"), {"big": add.s(1), "small": size.s("b") | add.s()}), Result[int])
branch(size.s("a"), {"big": add.s(1)}).options(name="by-size").start()
