# SPDX-License-Identifier: MIT
"""The names by which another process finds tasks, apps and modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flowq.errors import ConfigError, TaskDefinitionError

__all__ = [
    "AGAIN",
    "BRANCH",
    "BUILT_IN",
    "MAIN",
    "MAP",
    "app_at",
    "app_path",
    "import_module",
    "import_name",
    "task_name",
]

MAP: Final = "flowq.map"
"""The task of a map whose list is not known when the graph is built; every worker knows it."""
BRANCH: Final = "flowq.branch"
"""The task of a branch; every worker knows it."""
AGAIN: Final = "flowq.again"
"""The task that goes on with a retry of a run where something has to end first."""
BUILT_IN: Final = frozenset((MAP, BRANCH, AGAIN))
"""Tasks that no app registers and every worker knows."""

MAIN: Final = ("__main__", "__mp_main__")
"""Names of the program that was started; the second is its name in children of multiprocessing."""


def task_name(func: Callable[..., Any]) -> str:
    """Make the name under which a function is registered: ``module.qualname``.

    Raises
    ------
    TaskDefinitionError
        It has no name of its own.
    """
    module = getattr(func, "__module__", None)
    qualname = getattr(func, "__qualname__", None)
    if not module or not qualname:
        raise TaskDefinitionError(f"{func!r} has no name of its own; say @q.task(name=...)")
    if "<lambda>" in qualname:
        raise TaskDefinitionError(
            "a lambda has no name by which a worker could find it; say q.task(name=...)(lambda ...)"
        )
    return f"{import_name(module)}.{qualname.replace('<locals>.', '')}"


def import_name(module: str) -> str:
    """Give the name under which a module is imported elsewhere; only the main one has another."""
    if module not in MAIN:
        return module
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name)
    path = getattr(main, "__file__", None)
    return Path(path).stem if path and Path(path).is_file() else module  # "<stdin>" is none


def app_path(app: object) -> str | None:
    """Say where an app is found: ``module:name``; None if no loaded module holds it.

    ``__main__`` comes last: a script that imports an app is no place to find it.
    """
    modules = sorted(list(sys.modules.items()), key=lambda item: item[0] == "__main__")
    for name, module in modules:
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is app:
                return f"{import_name(name)}:{attribute}"
    return None


def app_at(path: str) -> Any:
    """Give the app that is found at ``module:name``."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def import_module(module: str) -> None:
    """Import a module that ``FlowQ(imports=)`` names.

    Raises
    ------
    ConfigError
        There is no such module.
    """
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as err:
        if err.name is None or not f"{module}.".startswith(f"{err.name}."):
            raise  # the module is there, and lacks one of its own
        raise ConfigError(f"FlowQ(imports=): there is no module {module!r}") from None
