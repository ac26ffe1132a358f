# SPDX-License-Identifier: MIT
"""The nightly job once more, as a flow: as wide as what it finds, with an alert and a cleanup.

    months ─► extract ─┬─► clean[0] … clean[n] ─► paths ─┬─► by_carrier_and_hour ─┐
    tables ────────────┘                                 │                        ├─► join ─► report
                                                         └─► against_weather ─────┘

    python examples/pipelines/nightly_flow.py --months 1-3

In nightly_etl.py the months are known when the graph is built, and each is a node of it. Here the
first task looks which there are in the file, and ``clean.map(raw)`` becomes one item for each while
the run runs. All tasks that do the work are those of nightly_etl.py, and so is the command, with
all its options; the figures are the same to the last digit.

Whatever comes of the run, `sweep` removes what killed workers left half written; when it fails,
`alert` says so in a file of the working folder. Both are nodes: any living worker runs them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flights
import nightly_etl as etl
from nightly_etl import (
    against_weather,
    by_carrier_and_hour,
    clean,
    extract,
    join,
    note,
    report,
    tables,
)

from flowq import ConfigError, Failure, StoreError

q = etl.q


# --- what the other one has not ------------------------------------------------------------------


@q.task
def months(wanted: list[int], work: str) -> list[int]:
    """Look which of the wanted months the file has."""
    note(work)
    return flights.months_there(wanted)


@q.task
def paths(cleaned: list[dict[str, Any]], work: str) -> list[str]:
    """Say where the clean files are."""
    note(work)
    return [month["path"] for month in cleaned]


@q.task
def alert(failure: Failure, work: str) -> str:
    """Tell people; a mail or a message in real life. Running twice does no harm."""
    told = Path(work) / "alert.txt"
    with flights.write_atomically(told) as file:
        file.write(f"{failure.node} failed: {failure.message}\n{failure.traceback}")
    return str(told)


@q.task
def sweep(work: str) -> int:
    """Remove what workers that were killed have left half written; gives how many files."""
    left = flights.half_written(Path(work))
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


# --- the flow ------------------------------------------------------------------------------------


@q.flow
def nightly(work: str, wanted: list[int], rows: int | None) -> dict[str, Any]:
    found = months(wanted, work)
    raw = extract(work, found, rows)
    small = tables(work)
    cleaned = clean.map(raw, tables=small, work=work)
    files = paths(cleaned, work)
    delays = by_carrier_and_hour(files, work)
    weather = against_weather(files, small, work)
    joined = join(delays, weather, small, work)
    return report(joined, cleaned, work)


def build(wanted: Sequence[int], rows: int | None, work: str) -> Any:
    """Build the graph of one night."""
    handled = nightly.options(on_failure=alert.s(work=work), finally_=sweep.s(work))
    return handled.build(work, list(wanted), rows)


if __name__ == "__main__":
    try:
        sys.exit(etl.main(build=build, app="nightly_flow:q"))
    except (ConfigError, StoreError) as err:  # such as a wrong --url; nothing to be traced
        sys.exit(f"nightly_flow: {err}")
    except KeyboardInterrupt:
        sys.exit(130)
