# SPDX-License-Identifier: MIT
"""Find a user's app, and open a store without one; each mistake is one clear line."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flowq.cli.output import UNREACHABLE, CliError, note
from flowq.policy import nearest

if TYPE_CHECKING:
    from flowq.app import FlowQ
    from flowq.storage import Store

__all__ = ["find_app", "import_module", "open_reading"]

FRAMES = 4
"""So many of the user's frames are shown when a module raises."""


def find_app(spec: str) -> tuple[FlowQ, str]:
    """Import the app that was named.

    Parameters
    ----------
    spec : str
        ``module:app``, ``module.app``, ``module`` (its only app), or ``path/to/file.py[:app]``.

    Returns
    -------
    tuple
        The app, and its path as ``module:app``, by which worker processes find it.

    Raises
    ------
    CliError
        There is none; the text says what is near.
    """
    _prepend(os.getcwd())
    module, _, attribute = spec.partition(":")
    if module.endswith(".py") or os.sep in module:
        name = _module_of_file(module)
        return _app_in(import_module(name), attribute)
    if not module or not all(part.isidentifier() for part in module.split(".")):
        raise CliError(f"{spec!r} is no place of an app; write module:app, as in shop:q")
    if attribute:
        return _app_in(import_module(module), attribute)
    found = _try_import(module)
    if found is not None:
        return _app_in(found, "")
    parent, _, last = module.rpartition(".")
    if parent and (found := _try_import(parent)) is not None:
        return _app_in(found, last)
    raise _no_module(module)


def import_module(name: str) -> ModuleType:
    """Import a user's module.

    Raises
    ------
    CliError
        There is none of that name, or it raises.
    """
    _prepend(os.getcwd())
    found = _try_import(name)
    if found is None:
        raise _no_module(name)
    return found


def open_reading(url: str, name: str | None) -> tuple[Store, str]:
    """Open a store to look at it; a SQLite file that is not there is not made.

    Without `name` a SQLite file says whose it is; another store is asked for the app ``flowq``.

    Returns
    -------
    tuple
        The store, and the name of the app.

    Raises
    ------
    CliError
        There is no such file, or nothing that others could have written to.
    """
    from flowq.storage import open_store, owner_of

    name = name or owner_of(url) or "flowq"
    store = open_store(url, name=name)
    if not store.shares_processes:
        raise CliError("memory:// lives in one process; there is nothing to read from another")
    path = getattr(store, "path", None)
    if isinstance(path, Path) and not path.exists():
        raise CliError(
            f"there is no store at {path} (nothing was enqueued there yet?); "
            "say where it is by --url, FLOWQ_URL or -A module:app",
            UNREACHABLE,
        )
    return store, name


def _prepend(folder: str) -> None:
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)


def _module_of_file(path: str) -> str:
    """Give the name under which a file would be imported, and let it be found."""
    file = Path(path if path.endswith(".py") else f"{path}.py").resolve()
    if not file.is_file():
        around = [str(p) for p in Path(path).parent.glob("*.py")]
        raise CliError(f"there is no file {path}{nearest(path, around)}")
    parts = [] if file.stem == "__init__" else [file.stem]
    folder = file.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if not all(part.isidentifier() for part in parts):
        raise CliError(f"{path} cannot be imported: {'.'.join(parts)!r} is no name of a module")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return ".".join(parts)


def _try_import(name: str) -> ModuleType | None:
    """Import a module; None if it is that module which does not exist."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as err:
        if err.name is not None and f"{name}.".startswith(f"{err.name}."):
            return None
        raise _raised(name, err) from None
    except (Exception, SystemExit) as err:
        raise _raised(name, err) from None


def _raised(name: str, err: BaseException) -> CliError:
    """Show where a user's module failed, without the frames of the import system or of flowq."""
    ours = str(Path(__file__).resolve().parents[1]) + os.sep
    frames = [
        frame
        for frame in traceback.extract_tb(err.__traceback__)
        if not frame.filename.startswith(("<frozen", ours, importlib.__file__))
    ]
    for text in traceback.format_list(frames[-FRAMES:]):
        note(text.rstrip())
    said = "".join(traceback.format_exception_only(type(err), err)).strip()
    return CliError(f"{name} cannot be imported: {said}")


def _no_module(name: str) -> CliError:
    parent, _, last = name.rpartition(".")
    package = sys.modules.get(parent) if parent else None
    places = getattr(package, "__path__", None) if parent else [os.getcwd()]
    around = [found.name for found in pkgutil.iter_modules(places)] if places else []
    prefix = f"{parent}." if parent else ""
    hint = nearest(name, [prefix + found for found in around]) if last else ""
    where = "" if hint else f" (looked in {os.getcwd()} and on sys.path)"
    return CliError(f"there is no module {name!r}{hint}{where}")


def _app_in(module: ModuleType, attribute: str) -> tuple[FlowQ, str]:
    from flowq.app import FlowQ

    apps: dict[int, tuple[str, FlowQ]] = {}
    for name, value in vars(module).items():
        if isinstance(value, FlowQ):
            apps.setdefault(id(value), (name, value))
    names = [name for name, _ in apps.values()]
    if attribute:
        found: Any = module
        for part in attribute.split("."):
            if not hasattr(found, part):
                hint = nearest(attribute, vars(module)) or _has(names)
                raise CliError(f"{module.__name__} has no {attribute!r}{hint}")
            found = getattr(found, part)
        if not isinstance(found, FlowQ):
            kind = type(found).__name__
            raise CliError(
                f"{module.__name__}:{attribute} is no FlowQ but of type {kind}{_has(names)}"
            )
        return found, f"{module.__name__}:{attribute}"
    if len(apps) == 1:
        return next(iter(apps.values()))[1], f"{module.__name__}:{names[0]}"
    if not apps:
        raise CliError(f"{module.__name__} has no FlowQ; make one: q = FlowQ()")
    said = " or ".join(f"{module.__name__}:{name}" for name in names)
    raise CliError(f"{module.__name__} has {len(apps)} apps; say which: {said}")


def _has(names: list[str]) -> str:
    return f"; it has {', '.join(names)}" if names else ""
