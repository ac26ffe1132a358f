# SPDX-License-Identifier: MIT
"""Pack a folder away, but only after somebody has seen what it is about and said yes.

    survey ─► verdict (waits for an answer) ─┬─ "approve" ─► pack ─► remove, with --remove
                                             └─ else      ─► keep

    python examples/pipelines/approval.py --folder ~/letters
    python examples/pipelines/approval.py --approve ID

The first command lists the files, asks, and leaves: a run that waits is a row in the store and
needs no worker. The second answers, from whichever process or day, and works until the run has
ended. ``flowq run send ID verdict approve`` answers as well. Whoever doesn't answer within
``--within`` seconds has said no: that is the ``default=`` of ``wait_for``.

Steps may run again after a kill, so each does no harm twice: the archive is put in its place by one
``os.replace``, and a file is removed only while it is what was packed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shlex
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowq import (
    ConfigError,
    FlowQ,
    ResultMissing,
    Run,
    RunEnded,
    StoreError,
    TaskError,
    branch,
    wait_for,
)

Files = dict[str, tuple[int, str]]
"""Size and digest by the path within a folder."""

WITHIN = 86_400.0
SKIPPED = {"__pycache__", ".git", ".venv", "node_modules"}

q = FlowQ("approval")


# --- the tasks -----------------------------------------------------------------------------------


@q.task
def survey(folder: str) -> dict[str, Any]:
    """List what is to be packed: the files below a folder, with sizes and digests."""
    return {"folder": folder, "files": files_in(Path(folder))}


@q.task
def pack(found: dict[str, Any], archive: str) -> dict[str, Any]:
    """Write the archive; a file that is no longer what was approved is an error."""
    written = packed(Path(found["folder"]), found["files"], Path(archive))
    return {"done": "packed", "archive": archive, "bytes": written, "removed": 0}


@q.task
def remove(report: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Remove the files that were packed; those that have changed since stay."""
    return {**report, "removed": removed(Path(found["folder"]), found["files"])}


@q.task
def keep(answer: str) -> dict[str, Any]:
    """Leave all as it is, and say why."""
    return {"done": "kept", "answer": answer}


# --- the flow ------------------------------------------------------------------------------------


@q.flow
def approval(
    folder: str, archive: str, within: float = WITHIN, removing: bool = False
) -> dict[str, Any]:
    found = survey(folder)
    answer = wait_for("verdict", timeout=within, default="silence").after(found)

    def put_away() -> Any:
        report = pack(found, archive)
        return remove(report, found) if removing else report

    return branch(answer, {"approve": put_away}, default=lambda: keep(answer))


# --- the computation -----------------------------------------------------------------------------


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_in(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, digest(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and SKIPPED.isdisjoint(path.relative_to(folder).parts)
    }


def packed(folder: Path, files: Files, archive: Path) -> int:
    """Write an archive of files, whole or not at all; gives its size."""
    fd, name = tempfile.mkstemp(dir=archive.parent, prefix=f".{archive.name}-")
    try:
        with open(fd, "wb") as file, zipfile.ZipFile(file, "w") as zipped:
            for path, (_, known) in files.items():
                data = (folder / path).read_bytes()
                if hashlib.sha256(data).hexdigest() != known:
                    raise ValueError(f"{path} is not what it was when somebody was asked")
                info = zipfile.ZipInfo.from_file(folder / path, path, strict_timestamps=False)
                zipped.writestr(info, data, zipfile.ZIP_DEFLATED)
        os.replace(name, archive)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    return archive.stat().st_size


def removed(folder: Path, files: Files) -> int:
    """Remove files that are what they were; gives how many are gone."""
    for path, (_, known) in files.items():
        file = folder / path
        if file.is_file() and digest(file) == known:
            file.unlink()
    return sum(not (folder / path).exists() for path in files)


def checked(found: dict[str, Any], report: dict[str, Any]) -> bool:
    """Look at the disk without flowq: is what was said what there is?"""
    folder, files = Path(found["folder"]), found["files"]
    if report["done"] == "kept":
        return bool(files_in(folder) == files)
    with zipfile.ZipFile(report["archive"]) as archive:
        inside = {
            info.filename: (info.file_size, hashlib.sha256(archive.read(info)).hexdigest())
            for info in archive.infolist()
        }
    left = files_in(folder).keys() & files.keys()
    return bool(inside == files and len(left) == len(files) - report["removed"])


# --- the command ---------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    q.use_url(args.url or args.default_url)
    try:
        if not (id := args.approve or args.reject or args.resume):
            return ask(args)
        run = q.run(id)
        if not args.resume:
            run.send("verdict", "approve" if args.approve else "reject")
        with q.consumer(workers=args.workers, kind=args.kind):
            return tell(run)
    except TaskError as err:
        print(f"{err.node or err.task} failed: {err}", file=sys.stderr)
    except (ResultMissing, RunEnded) as err:
        print(f"approval: {err}", file=sys.stderr)
    return 1


def ask(args: argparse.Namespace) -> int:
    """Start it, show what it is about, and leave, or stay till somebody has answered."""
    with q.consumer(workers=args.workers, kind=args.kind):
        run = approval(str(args.folder), str(args.archive), args.within, args.remove)
        found = run.result("survey").get(blocking=True)
        sizes = {path: size for path, (size, _) in found["files"].items()}
        print(f"run {run.id}")
        print(f"{found['folder']}: {len(sizes)} files, {sum(sizes.values()):,} bytes")
        for path in sorted(sizes, key=lambda path: (-sizes[path], path))[: args.top]:
            print(f"{sizes[path]:11,}  {path}")
        again = shlex.join(
            [sys.executable, sys.argv[0], *(["--url", args.url] if args.url else [])]
        )
        print(f"to be packed{' and removed' if args.remove else ''}, if you say so:")
        print(f"    {again} --approve {run.id}")
        print(f"    {again} --reject {run.id}", flush=True)
        return tell(run) if args.stay else 0


def tell(run: Run[Any]) -> int:
    """Wait for its end; say what came of it, and whether it is true."""
    report = run.get(blocking=True)
    found = run.result("survey").get()
    if report["done"] == "kept":
        print(f"kept: the answer was {report['answer']}")
    else:
        print(f"packed into {report['archive']}: {report['bytes']:,} bytes")
        print(f"removed: {report['removed']} files")
    same = checked(found, report)
    print("check: " + ("the same as on disk" if same else "THE DISK SAYS OTHERWISE"))
    return 0 if same else 1


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    here = Path(__file__).resolve().parent / "out"
    here.mkdir(exist_ok=True)
    parser = argparse.ArgumentParser(description="Pack a folder away once somebody says yes.")
    add = parser.add_argument
    add("--url", help="store; FLOWQ_URL, else a SQLite file in out/")
    add("--workers", type=int, default=2, metavar="N")
    add("--kind", choices=("process", "thread"), default="process")
    add("--folder", type=_folder, help="what to pack; default: idlelib of Python's library")
    add("--archive", type=Path, metavar="FILE", help="where to; default: out/FOLDER-….zip")
    add("--remove", action="store_true", help="remove the files of --folder once they are packed")
    add("--within", type=_seconds, default=WITHIN, metavar="SECONDS", help="default: a day")
    add("--stay", action="store_true", help="wait for the answer of another process")
    add("--top", type=int, default=5, metavar="N", help="how many of the largest files are shown")
    answers = parser.add_mutually_exclusive_group()
    answers.add_argument("--approve", metavar="ID", help="say yes to a run, and let it end")
    answers.add_argument("--reject", metavar="ID", help="say no to it, and let it end")
    answers.add_argument("--resume", metavar="ID", help="wait for its end; answers come elsewhere")
    args = parser.parse_args(argv)
    if args.remove and not args.folder:
        parser.error("--remove wants a --folder: Python's own library is not to be removed")
    args.folder = args.folder or Path(sysconfig.get_paths()["stdlib"]) / "idlelib"
    args.archive = args.archive or here / f"{args.folder.name}-{time.time_ns():x}.zip"
    args.archive = args.archive.resolve()
    if args.archive.is_relative_to(args.folder):
        parser.error(f"{args.archive} would stand in what it packs; name another --archive")
    if not args.archive.parent.is_dir():
        parser.error(f"--archive wants a folder that exists: {args.archive.parent}")
    args.default_url = os.environ.get("FLOWQ_URL") or f"sqlite:///{here / 'approval.db'}"
    return args


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return Path(text).resolve()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no time to answer in; write 3600, say")
    return seconds


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ConfigError, StoreError) as err:  # such as a wrong --url; nothing to be traced
        sys.exit(f"approval: {err}")
    except KeyboardInterrupt:
        sys.exit(130)
