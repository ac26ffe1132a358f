# SPDX-License-Identifier: MIT
"""flowq's contender, also the module that its worker loads."""

from __future__ import annotations

from benchmarks import work
from flowq import FlowQ

q = FlowQ("bench")  # FLOWQ_URL says where
add = q.task(name="add")(work.add)
inc = q.task(name="inc")(work.inc)
total = q.task(name="total")(work.total)
upto = q.task(name="upto")(work.upto)
