# SPDX-License-Identifier: MIT
"""The one reader of time; tests put theirs here."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock"]


class Clock(Protocol):
    """Where everything in flowq asks for the time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, as this machine knows them."""
        ...

    def fixed_ms(self) -> int:
        """0, or the moment at which a test holds the time, for stores with a clock of their own.

        A store whose server has a clock (Redis) uses that one while this is 0.
        """
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def fixed_ms(self) -> int:
        """0: nobody holds the time."""
        return 0

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


SYSTEM_CLOCK = SystemClock()
