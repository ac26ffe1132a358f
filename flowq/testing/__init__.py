# SPDX-License-Identifier: MIT
"""For tests: a clock that stands still, and the contract of a store as a pytest suite."""

from flowq.testing.clock import ManualClock

__all__ = ["ManualClock"]
