# SPDX-License-Identifier: MIT
"""A clock that a test moves by hand."""

from __future__ import annotations

__all__ = ["ManualClock"]


class ManualClock:
    """A clock that stands still until it is put forward; stores believe it before their own.

    Parameters
    ----------
    now_ms : int
        Where it begins, in milliseconds since 1970; more than 0.

    Examples
    --------
    >>> clock = ManualClock(1_000)
    >>> clock.advance(2.5)
    >>> clock.now_ms()
    3500
    """

    def __init__(self, now_ms: int = 1_000_000_000_000) -> None:
        if now_ms <= 0:
            raise ValueError("a clock begins after 1970")
        self._ms = now_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self._ms

    def fixed_ms(self) -> int:
        """The same: a store with a clock of its own uses this one."""
        return self._ms

    def monotonic(self) -> float:
        """Seconds that go on with `advance`."""
        return self._ms / 1000

    def advance(self, seconds: float) -> None:
        """Put it forward.

        Raises
        ------
        ValueError
            `seconds` is negative: time does not go back.
        """
        if seconds < 0:
            raise ValueError("time does not go back")
        self._ms += round(seconds * 1000)
