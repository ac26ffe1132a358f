# SPDX-License-Identifier: MIT
"""The contract of a store, as tests that any store can run.

A store's test file takes the classes and says how a store is made::

    from flowq.testing.contract import *  # noqa: F403

    @pytest.fixture
    def make_store(tmp_path):
        return lambda clock: MyStore(tmp_path, clock=clock)

Each test gets a store of its own that holds nothing yet. The time is held by a
`flowq.testing.ManualClock`, which the store must believe (``clock.fixed_ms()``).
"""

from flowq.testing.contract.again import TestParks, TestRewindsOfWhatGoesOn
from flowq.testing.contract.along import TestAlong
from flowq.testing.contract.beside import TestForks, TestMoves, TestStarted
from flowq.testing.contract.expand import TestExpand
from flowq.testing.contract.limits import TestPlaces
from flowq.testing.contract.policies import TestCancelInwards, TestPhases, TestPolicies
from flowq.testing.contract.races import (
    TestBornBlocked,
    TestLimits,
    TestNeeds,
    TestRaces,
    TestSleeps,
)
from flowq.testing.contract.reads import TestReads, TestSweep, TestWaits
from flowq.testing.contract.remember import TestCalled, TestRemember
from flowq.testing.contract.rewind import TestRewind
from flowq.testing.contract.runs import TestSubmit, TestUnbegun, TestValues
from flowq.testing.contract.tables import TestTransitions, TestVerdicts
from flowq.testing.contract.tasks import TestCancel, TestEnqueue, TestReschedule, TestStep
from flowq.testing.contract.timers import TestDeadlines, TestPauses, TestSignals
from flowq.testing.contract.workers import TestRelease, TestRenew

__all__ = [
    "TestAlong",
    "TestBornBlocked",
    "TestCalled",
    "TestCancel",
    "TestCancelInwards",
    "TestDeadlines",
    "TestEnqueue",
    "TestExpand",
    "TestForks",
    "TestLimits",
    "TestMoves",
    "TestNeeds",
    "TestParks",
    "TestPauses",
    "TestPhases",
    "TestPlaces",
    "TestPolicies",
    "TestRaces",
    "TestReads",
    "TestRelease",
    "TestRemember",
    "TestRenew",
    "TestReschedule",
    "TestRewind",
    "TestRewindsOfWhatGoesOn",
    "TestSignals",
    "TestSleeps",
    "TestStarted",
    "TestStep",
    "TestSubmit",
    "TestSweep",
    "TestTransitions",
    "TestUnbegun",
    "TestValues",
    "TestVerdicts",
    "TestWaits",
]
