# SPDX-License-Identifier: MIT
"""The housekeeping, a bounded part at a time. Recovery needs none of it: every fetch does that."""

from __future__ import annotations

import logging
import random
import threading
from typing import Final

from flowq.errors import StoreError
from flowq.storage.base import Store

__all__ = ["Sweeper"]

log = logging.getLogger("flowq.sweeper")

PERIOD: Final = 5.0
"""Seconds between two looks; each consumer has its own rhythm."""


class Sweeper:
    """Calls ``Store.sweep`` from a thread of its own; any number of them may."""

    def __init__(self, store: Store, period: float = PERIOD) -> None:
        self._store = store
        self._period = period
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flowq-sweeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the part that is being done."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._period * random.uniform(0.8, 1.2)):
            self._sweep()

    def _sweep(self) -> None:
        try:
            while self._store.sweep().more and not self._stop.wait(0.01):
                pass
        except StoreError as err:
            log.debug("the housekeeping waits: %s", err)
        except Exception:
            log.exception("a defect in the housekeeping; it goes on")
