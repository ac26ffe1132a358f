# SPDX-License-Identifier: MIT
"""The one reader of time; tests put theirs here."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SkippingClock", "SystemClock"]


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


class SkippingClock:
    """Another clock, put forward: what runs inline does not wait for what is due later.

    Parameters
    ----------
    clock : Clock
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since 1970, skipped time included."""
        return self._clock.now_ms() + self._ahead_ms

    def fixed_ms(self) -> int:
        """What the other clock holds, or 0."""
        fixed = self._clock.fixed_ms()
        return fixed + self._ahead_ms if fixed else 0

    def monotonic(self) -> float:
        """Seconds that never go back; they are not skipped."""
        return self._clock.monotonic()

    def skip(self, ms: int) -> None:
        """Put it forward."""
        self._ahead_ms += ms


SYSTEM_CLOCK = SystemClock()
