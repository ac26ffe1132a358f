# SPDX-License-Identifier: MIT
"""The nightly job: all flights out of New York in 2013, from the raw file to a report.

    extract ─┬─► clean-01 ─┐                       ┌─► by_carrier_and_hour ─┐
             ├─► clean-02 ─┤  (every clean month   │                        ├─► join ─► report
    tables ──┤      …      ├─► goes into both) ────┤                        │
             └─► clean-12 ─┘                       └─► against_weather ─────┘

Run it with ``make demo``, or ``python examples/pipelines/nightly_etl.py``. It starts two worker
processes, shows what happens, checks every figure against the same computation done in one go
without flowq, and says where the report is. Stop it in the middle, even with ``kill -9``, and
call it again with ``--resume RUN-ID``: it goes on where it was.

The computation itself is in flights.py, the picture in charts.py, the page in report.py. Steps
hand each other paths of files where the data are large, and plain values where they are small. A
step may run twice (its worker died before it could say that it was done), so each one writes its
file under another name and renames it: running again does no harm.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flights
import report as pages
from watch import watch

from flowq import DAG, ConfigError, FlowQ, Run, StoreError, TaskError, current_task

HERE = Path(__file__).resolve().parent

q = FlowQ("nightly_etl", retries=2, retry_delay=1)


# --- the tasks: thin, since the work is done by plain functions --------------------------------


@q.task
def extract(work: str, months: list[int], rows: int | None) -> list[str]:
    """Split the big file by month."""
    note(work)
    return flights.extract_flights(Path(work), months, rows)


@q.task
def tables(work: str) -> str:
    """Gather airlines, airports, planes and the weather."""
    note(work)
    return flights.extract_tables(Path(work))


@q.task
def clean(raw: str, tables: str, work: str) -> dict[str, Any]:
    """Clean one month."""
    note(work)
    return flights.clean_month(raw, tables)


@q.task
def by_carrier_and_hour(paths: list[str], work: str) -> dict[str, Any]:
    """Add up delays by carrier and hour."""
    note(work)
    return flights.by_carrier_and_hour(paths)


@q.task
def against_weather(paths: list[str], tables: str, work: str) -> dict[str, Any]:
    """Add up delays by the weather."""
    note(work)
    return flights.against_weather(paths, tables)


@q.task
def join(delays: dict[str, Any], weather: dict[str, Any], tables: str, work: str) -> dict[str, Any]:
    """Put the two together."""
    note(work)
    return flights.join_tables(delays, weather, tables)


@q.task
def report(joined: dict[str, Any], months: list[dict[str, Any]], work: str) -> dict[str, Any]:
    """Write the report; gives where everything is."""
    note(work)
    return pages.write_report(joined, months, Path(work) / "report")


def note(work: str) -> None:
    """Keep a record of every execution of a body, so that it can be counted."""
    me = current_task()
    line = {"node": me.node, "delivery": me.deliveries, "pid": os.getpid(), "at": time.time()}
    with open(Path(work) / "executions.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


# --- the pipeline ----------------------------------------------------------------------------


def pipeline(months: Sequence[int], rows: int | None, work: str) -> DAG:
    """Build the graph; nothing runs before its ``start()``."""
    dag = DAG("nightly_etl")
    raw = dag.add(extract.s(work, list(months), rows), name="extract")
    small = dag.add(tables.s(work), name="tables")
    cleaned = [
        dag.add(clean.s(raw[i], small, work), name=f"clean-{month:02}")
        for i, month in enumerate(months)
    ]
    paths = [month["path"] for month in cleaned]
    delays = dag.add(by_carrier_and_hour.s(paths, work), name="by_carrier_and_hour")
    weather = dag.add(against_weather.s(paths, small, work), name="against_weather")
    joined = dag.add(join.s(delays, weather, small, work), name="join")
    dag.add(report.s(joined, cleaned, work), name="report")
    return dag


def start(
    months: Sequence[int], rows: int | None, out: Path, build: Callable[..., Any] = pipeline
) -> Run[Any]:
    """Start the pipeline with a working folder of its own beside the report."""
    work = out / "work" / secrets.token_hex(4)
    work.mkdir(parents=True)
    job = {"months": list(months), "rows": rows}
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    run: Run[Any] = build(months, rows, str(work)).start()
    (work / "run").write_text(run.id, encoding="utf-8")
    return run


def work_of(run_id: str, out: Path) -> Path:
    """Find the working folder of a run that was started with the same ``--out``."""
    for note in (out / "work").glob("*/run"):
        if note.read_text(encoding="utf-8") == run_id:
            return note.parent
    raise SystemExit(f"{out / 'work'} has nothing of run {run_id}: say --out as when it started")


# --- the command -----------------------------------------------------------------------------


def main(
    argv: Sequence[str] | None = None,
    build: Callable[..., Any] = pipeline,
    app: str = "nightly_etl:q",
) -> int:
    """Run the whole job; gives the exit status.

    `build` makes the graph, and `app` says where workers find its tasks: nightly_flow.py does the
    same job by a graph of its own.
    """
    args = arguments(argv)
    out: Path = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    q.use_url(args.url or os.environ.get("FLOWQ_URL") or f"sqlite:///{out / 'flowq.db'}")

    began = time.perf_counter()
    run = q.run(args.resume) if args.resume else start(args.months, args.rows, out, build)
    work = work_of(run.id, out)
    print(f"run    {run.id}\nstore  {q.store.url}", flush=True)
    try:
        with workers(args, app):
            watch(run)
            value = run.get(blocking=True)
    except KeyboardInterrupt:
        again = shlex.join([*sys.orig_argv, "--resume", run.id])
        print(f"\nStopped. Go on with: {again}", file=sys.stderr)
        return 130
    except TaskError as err:
        print(f"\n{err.node or err.task} failed: {err}\n{err.traceback}", file=sys.stderr)
        return 1
    took = time.perf_counter() - began

    print("\nchecking against the same computation in one go ...", flush=True)
    same = check(value, work)
    show(value["totals"], took, same)
    if not same:
        return 1
    for name, path in publish(value, out).items():
        print(f"{name:9} {path}")
    if not args.keep:
        shutil.rmtree(work)
    return 0


@contextlib.contextmanager
def workers(args: argparse.Namespace, app: str) -> Iterator[None]:
    """Have workers while the run lasts: our own, or those that were started elsewhere."""
    if args.no_worker:
        print(f"waiting for workers; in {HERE} call:\n    flowq worker {app}", flush=True)
        yield
    else:
        with q.consumer(workers=args.workers, kind=args.kind, path=app):
            yield


def check(value: dict[str, Any], work: Path) -> bool:
    """Compare every figure with the same computation in one go, without flowq."""
    job = json.loads((work / "job.json").read_text(encoding="utf-8"))
    expected = flights.in_one_go(job["months"], job["rows"])
    found = json.loads(Path(value["figures"]).read_text(encoding="utf-8"))
    return bool(found == expected)


def show(totals: dict[str, int], took: float, same: bool) -> None:
    print(
        f"{totals['flights']:,} flights of {totals['carriers']} airlines in {took:.1f} s: "
        f"{totals['late']:,} left more than 15 min late, {totals['cancelled']:,} never left, "
        f"mean delay {totals['minutes'] / max(1, totals['departed']):.2f} min"
    )
    print("check     " + ("the same figures in one go" if same else "THE FIGURES DIFFER"))


def publish(value: dict[str, Any], out: Path) -> dict[str, Path]:
    """Put the report where people look for it, now that its figures are right."""
    found = {name: out / Path(value[name]).name for name in pages.FILES}
    for name, path in found.items():
        with flights.write_atomically(path) as file:
            file.write(Path(value[name]).read_text(encoding="utf-8"))
    return found


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The nightly pipeline on real data.")
    add = parser.add_argument
    add("--url", help="store; FLOWQ_URL, else a SQLite file beside the report")
    add("--workers", type=int, default=2, metavar="N", help="default: 2")
    add("--kind", choices=("process", "thread"), default="process", help="default: process")
    add("--months", type=_months, default=flights.MONTHS, metavar="1-3,7", help="default: all")
    add("--rows", type=int, metavar="N", help="at most so many flights of each month")
    add("--out", type=Path, default=HERE / "out", metavar="DIR", help="default: out/ beside this")
    add("--no-worker", action="store_true", help="use workers that were started elsewhere")
    add("--resume", metavar="RUN-ID", help="go on with a run that was started before")
    add("--keep", action="store_true", help="keep the working folder")
    return parser.parse_args(argv)


def _months(text: str) -> tuple[int, ...]:
    months: set[int] = set()
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            months.update(range(int(first), int(last or first) + 1))
    except ValueError:
        months = set()
    if not months or not months <= set(flights.MONTHS):
        raise argparse.ArgumentTypeError(f"{text!r} is no months; write 1-12, 3 or 1-3,7")
    return tuple(sorted(months))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ConfigError, StoreError) as err:  # such as a wrong --url; nothing to be traced
        sys.exit(f"nightly_etl: {err}")
    except KeyboardInterrupt:
        sys.exit(130)
