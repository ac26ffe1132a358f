# SPDX-License-Identifier: MIT
"""Whether a flow is being built: what a call of a task then means is a node."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

__all__ = ["TRACE"]

TRACE: ContextVar[Any] = ContextVar("flowq_trace", default=None)
"""The `flowq.primitives.trace.Trace` of the flow that is being built here; None outside."""
