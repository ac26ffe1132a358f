# SPDX-License-Identifier: MIT
"""Read a folder of documents, each in the way of its kind, and let a few of them be unreadable.

    find ─► document[0] … document[n] ─► catalogue
               each:  kind ─┬─ code  ─► read_code
                            ├─ text  ─► read_text
                            └─ else  ─► read_other

    python examples/pipelines/documents.py --folder ~/letters --tolerate 0.1

``branch(kind, {...})`` takes one arm by a value that comes with the run; the others are never
made. ``document`` is a flow that is mapped over a list that comes with the run, too. Among the
sources of Python's standard library are some that no Python can read (the tests of its compiler):
with ``tolerate=0.02`` two files of a hundred may fail, and the catalogue gets a `Failure` in their
places. Were there more, the run would fail.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flowq import ConfigError, Failure, FlowQ, StoreError, TaskError, branch

KINDS = {".py": "code", ".pyi": "code", ".md": "text", ".rst": "text", ".txt": "text"}
TOLERATE = 0.02
SKIPPED = {"site-packages", "__pycache__", ".git", ".venv", "node_modules"}

q = FlowQ("documents")


# --- the tasks -----------------------------------------------------------------------------------


@q.task
def find(folder: str, limit: int | None) -> list[dict[str, str]]:
    """List the files below a folder, each with its kind; of too many every n-th."""
    return found_in(Path(folder), limit)


@q.task
def read_code(path: str) -> dict[str, int]:
    """Count what a module of Python defines; one that is none is an error."""
    nodes = Counter(type(node).__name__ for node in ast.walk(ast.parse(Path(path).read_bytes())))
    functions = nodes["FunctionDef"] + nodes["AsyncFunctionDef"]
    return {"files": 1, "classes": nodes["ClassDef"], "functions": functions}


@q.task
def read_text(path: str) -> dict[str, int]:
    """Count lines and words."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return {"files": 1, "lines": text.count("\n"), "words": len(text.split())}


@q.task
def read_other(path: str) -> dict[str, int]:
    """Say how large it is, and whether anything in it can be read by people."""
    data = Path(path).read_bytes()
    return {"files": 1, "bytes": len(data), "binary": int(b"\0" in data)}


@q.task
def catalogue(found: list[dict[str, str]], read: list[dict[str, int] | Failure]) -> dict[str, Any]:
    """Add up by kind, and list what could not be read, with the reason."""
    return added_up(
        (file, part.message if isinstance(part, Failure) else part)
        for file, part in zip(found, read, strict=True)
    )


# --- the flows -----------------------------------------------------------------------------------


@q.flow
def document(file: dict[str, str]) -> dict[str, int]:
    path = file["path"]  # an item of a value that comes with the run
    return branch(
        file["kind"],
        {"code": lambda: read_code(path), "text": lambda: read_text(path)},
        default=lambda: read_other(path),
    )


@q.flow
def documents(folder: str, limit: int | None = None, tolerate: float = TOLERATE) -> dict[str, Any]:
    found = find(folder, limit)
    read = document.map(found).options(tolerate=tolerate)
    return catalogue(found, read)


# --- the computation -----------------------------------------------------------------------------


def found_in(folder: Path, limit: int | None) -> list[dict[str, str]]:
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and SKIPPED.isdisjoint(path.relative_to(folder).parts)
    )
    step = max(1, len(paths) // limit) if limit else 1
    return [
        {"path": str(path), "kind": KINDS.get(path.suffix, "other")}
        for path in paths[::step][:limit]
    ]


def added_up(read: Iterable[tuple[dict[str, str], dict[str, int] | str]]) -> dict[str, Any]:
    """Add up what was read; text stands for what could not be, and says why."""
    kinds: dict[str, Counter[str]] = {}
    unread: list[tuple[str, str]] = []
    for file, part in read:
        if isinstance(part, str):
            unread.append((file["path"], part))
        else:
            kinds.setdefault(file["kind"], Counter()).update(part)
    return {"kinds": {kind: dict(kinds[kind]) for kind in sorted(kinds)}, "unread": unread}


def in_one_loop(folder: Path, limit: int | None) -> dict[str, Any]:
    """Do the same without flowq, for the check."""
    readers = {"code": read_code, "text": read_text, "other": read_other}

    def read(file: dict[str, str]) -> dict[str, int] | str:
        try:
            return readers[file["kind"]].call_local(file["path"])
        except Exception as err:  # whatever a parser raises
            return repr(err)

    return added_up((file, read(file)) for file in found_in(folder, limit))


# --- the command ---------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    folder = args.folder.resolve()
    q.use_url(args.url)
    try:
        with q.consumer(workers=args.workers, kind=args.kind):
            began = time.perf_counter()
            run = documents(str(folder), args.files, args.tolerate)
            value = run.get(blocking=True)
            took = time.perf_counter() - began
    except TaskError as err:
        print(f"{err.node or err.task} failed: {err}", file=sys.stderr)
        return 1
    print(f"{folder}, in {took:.1f} s")
    for kind, sums in value["kinds"].items():
        print(f"  {kind:6} " + "  ".join(f"{name} {sums[name]:,}" for name in sums))
    for path, reason in value["unread"]:
        print(f"  unread {Path(path).relative_to(folder)}: {reason[:60]}")
    same = value == in_one_loop(folder, args.files)
    print("check: " + ("the same as in one loop" if same else "THE FIGURES DIFFER"))
    return 0 if same else 1


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    here = Path(__file__).resolve().parent / "out"
    here.mkdir(exist_ok=True)
    parser = argparse.ArgumentParser(description="Read a folder of documents by their kinds.")
    add = parser.add_argument
    url = os.environ.get("FLOWQ_URL") or f"sqlite:///{here / 'documents.db'}"
    add("--url", default=url, help="store; FLOWQ_URL, else a SQLite file in out/")
    add("--workers", type=int, default=2, metavar="N")
    add("--kind", choices=("process", "thread"), default="process")
    library = Path(sysconfig.get_paths()["stdlib"])
    add("--folder", type=Path, default=library, help="default: Python's standard library")
    add("--files", type=int, default=400, metavar="N", help="at most so many; default: 400")
    add("--tolerate", type=_share, default=TOLERATE, metavar="SHARE", help="of 1; default: 0.02")
    return parser.parse_args(argv)


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} is no part of the files; write 0.05, say")
    return share


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ConfigError, StoreError) as err:  # such as a wrong --url; nothing to be traced
        sys.exit(f"documents: {err}")
    except KeyboardInterrupt:
        sys.exit(130)
