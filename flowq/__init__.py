# SPDX-License-Identifier: MIT
"""A task queue that runs whole pipelines.

The public names, each loaded when it is first used, so that ``import flowq`` costs next to
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowq.app import FlowQ as FlowQ
    from flowq.constructors import MemoryFlowQ as MemoryFlowQ
    from flowq.constructors import RedisFlowQ as RedisFlowQ
    from flowq.constructors import SqliteFlowQ as SqliteFlowQ
    from flowq.current import CurrentTask as CurrentTask
    from flowq.current import current_task as current_task
    from flowq.errors import BindingError as BindingError
    from flowq.errors import BindingWarning as BindingWarning
    from flowq.errors import BlockingInTask as BlockingInTask
    from flowq.errors import Cancelled as Cancelled
    from flowq.errors import ConfigError as ConfigError
    from flowq.errors import CycleError as CycleError
    from flowq.errors import DeadlineExceeded as DeadlineExceeded
    from flowq.errors import DecodeError as DecodeError
    from flowq.errors import Failure as Failure
    from flowq.errors import FlowqError as FlowqError
    from flowq.errors import GraphError as GraphError
    from flowq.errors import GroupError as GroupError
    from flowq.errors import Interrupted as Interrupted
    from flowq.errors import KeyReused as KeyReused
    from flowq.errors import NoArm as NoArm
    from flowq.errors import NodeUsedAsValue as NodeUsedAsValue
    from flowq.errors import NotProduced as NotProduced
    from flowq.errors import PayloadError as PayloadError
    from flowq.errors import PayloadTooLarge as PayloadTooLarge
    from flowq.errors import Pending as Pending
    from flowq.errors import ResultMissing as ResultMissing
    from flowq.errors import ResultTimeout as ResultTimeout
    from flowq.errors import Retry as Retry
    from flowq.errors import RunCancelled as RunCancelled
    from flowq.errors import RunEnded as RunEnded
    from flowq.errors import Skip as Skip
    from flowq.errors import Skipped as Skipped
    from flowq.errors import StoreError as StoreError
    from flowq.errors import StoreUnavailable as StoreUnavailable
    from flowq.errors import StoreVersionError as StoreVersionError
    from flowq.errors import TaskCancelled as TaskCancelled
    from flowq.errors import TaskDefinitionError as TaskDefinitionError
    from flowq.errors import TaskError as TaskError
    from flowq.errors import UnknownTask as UnknownTask
    from flowq.errors import WaitTimeout as WaitTimeout
    from flowq.errors import WorkerLost as WorkerLost
    from flowq.flow import Flow as Flow
    from flowq.primitives import DAG as DAG
    from flowq.primitives import Signature as Signature
    from flowq.primitives import branch as branch
    from flowq.primitives import chain as chain
    from flowq.primitives import chord as chord
    from flowq.primitives import each as each
    from flowq.primitives import first as first
    from flowq.primitives import group as group
    from flowq.primitives import optional as optional
    from flowq.primitives import sleep as sleep
    from flowq.primitives import wait_for as wait_for
    from flowq.result import Result as Result
    from flowq.result import ResultGroup as ResultGroup
    from flowq.run import Run as Run
    from flowq.task import Task as Task

__version__ = "0.1.0"

_HOMES = {
    "app": "FlowQ",
    "constructors": "MemoryFlowQ RedisFlowQ SqliteFlowQ",
    "current": "CurrentTask current_task",
    "errors": (
        "BindingError BindingWarning BlockingInTask Cancelled ConfigError CycleError "
        "DeadlineExceeded DecodeError Failure FlowqError GraphError GroupError Interrupted "
        "KeyReused NoArm NodeUsedAsValue NotProduced PayloadError PayloadTooLarge Pending "
        "ResultMissing ResultTimeout Retry RunCancelled RunEnded Skip Skipped StoreError "
        "StoreUnavailable StoreVersionError TaskCancelled "
        "TaskDefinitionError TaskError UnknownTask WaitTimeout WorkerLost"
    ),
    "flow": "Flow",
    "primitives": "DAG Signature branch chain chord each first group optional sleep wait_for",
    "result": "Result ResultGroup",
    "run": "Run",
    "task": "Task",
}
_home = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [*sorted(_home), "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    home = _home.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_home})
