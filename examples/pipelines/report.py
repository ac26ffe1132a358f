# SPDX-License-Identifier: MIT
"""What the nightly example writes: a page, its picture, a table, and the figures as JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from charts import picture
from flights import write_atomically

__all__ = ["FILES", "write_report"]

FILES = {
    "report": "report.html",
    "picture": "delays.svg",
    "table": "delays.csv",
    "figures": "figures.json",
}
TITLE = "Leaving New York late, 2013"

STYLE = """
body { margin: 0; background: #f1f5f9; color: #1f2933;
       font: 15px/1.55 Inter, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 32px auto; padding: 0 16px; }
section { background: #fff; border-radius: 10px; padding: 24px 36px; margin: 0 0 20px;
          box-shadow: 0 1px 3px #0f172a1a; overflow-x: auto; }
section.picture { padding: 0; }
svg { display: block; max-width: 100%; height: auto; }
h2 { font-size: 17px; margin: 0 0 12px; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: 6px 10px; border-bottom: 1px solid #e2e8f0; text-align: right;
         font-variant-numeric: tabular-nums; }
th { color: #64748b; font-weight: 500; font-size: 13px; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
p { color: #64748b; margin: 12px 0 0; }
"""

COLUMNS = (
    "carrier airline hour flights departed late minutes cancelled "
    "hour_foul_share hour_fair_delay hour_foul_delay"
).split()


def write_report(
    joined: dict[str, Any], months: Sequence[dict[str, Any]], out: Path
) -> dict[str, Any]:
    """Write everything into a folder; gives the paths and the totals."""
    svg = picture(joined, TITLE)
    paths = {name: out / file for name, file in FILES.items()}
    with write_atomically(paths["picture"]) as file:
        file.write(svg)
    with write_atomically(paths["table"]) as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(joined["rows"])
    with write_atomically(paths["figures"]) as file:
        json.dump(joined, file, indent=1)
    with write_atomically(paths["report"]) as file:
        file.write(_page(joined, months, svg))
    return {name: str(path) for name, path in paths.items()} | {"totals": joined["totals"]}


def _page(joined: dict[str, Any], months: Sequence[dict[str, Any]], svg: str) -> str:
    sections = (
        _table("Airlines", "", _airlines(joined["rows"])),
        _table(
            "Where the waiting was worst",
            "Minutes of delay times the seats of the plane, over all late departures.",
            _places(joined["places"]),
        ),
        _table(
            "What was read",
            f"{joined['weather_unknown']:,} flights left in an hour whose weather is not known.",
            _months(months),
        ),
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{escape(TITLE)}</title>\n'
        f'<style>{STYLE}</style>\n<main>\n<section class="picture">\n{svg}</section>\n'
        + "\n".join(sections)
        + "\n</main>\n</html>\n"
    )


def _table(title: str, remark: str, rows: Iterable[Sequence[object]]) -> str:
    head, *body = rows
    lines = [f"<section><h2>{escape(title)}</h2>", "<table>", _row("th", head)]
    lines += [_row("td", row) for row in body]
    lines += ["</table>", f"<p>{escape(remark)}</p>" if remark else "", "</section>"]
    return "\n".join(line for line in lines if line)


def _row(tag: str, cells: Sequence[object]) -> str:
    texts = (f"{cell:,}" if isinstance(cell, int) else escape(str(cell)) for cell in cells)
    return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>"


def _airlines(rows: Sequence[dict[str, Any]]) -> Iterable[Sequence[object]]:
    yield "airline", "flights", "mean delay, min", "late", "never left"
    sums: dict[str, list[int]] = {}
    for row in rows:
        mine = sums.setdefault(row["airline"], [0] * 5)
        for i, key in enumerate(("flights", "departed", "late", "minutes", "cancelled")):
            mine[i] += row[key]
    for name, (flights, departed, late, minutes, cancelled) in sorted(
        sums.items(), key=lambda item: -item[1][0]
    ):
        left = max(1, departed)
        yield name, flights, f"{minutes / left:.1f}", f"{late / left:.0%}", cancelled


def _places(places: Sequence[dict[str, Any]]) -> Iterable[Sequence[object]]:
    yield "destination", "late departures", "seat hours lost"
    for place in places:
        yield f"{place['name']} ({place['airport']})", place["late_flights"], place["seat_hours"]


def _months(months: Sequence[dict[str, Any]]) -> Iterable[Sequence[object]]:
    yield "part", "flights", "never left", "plane not in the register"
    for month in months:
        yield Path(month["path"]).stem, month["rows"], month["cancelled"], month["plane_unknown"]
