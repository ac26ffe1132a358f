# SPDX-License-Identifier: MIT
"""The picture of the nightly example, as SVG written by hand: two hundred cells need no library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

__all__ = ["picture"]

INK, QUIET, FAINT, PAPER = "#1f2933", "#64748b", "#e2e8f0", "#ffffff"
FONT = "font-family=\"'Inter','Segoe UI','Helvetica Neue',Arial,'DejaVu Sans',sans-serif\""
# From on time to very late; equal steps look equal, also in grey and to the colour-blind.
SCALE = ("#fff7e0", "#fee3a2", "#fdc26b", "#f99655", "#e8654e", "#c13b57", "#8a1c5c", "#4f0f50")
LATEST = 40.0  # minutes at which the scale ends
FEW = 30  # cells with fewer flights than this show only that they are few

WIDTH = 1180
LEFT, TOP = 214, 150  # where the heat map begins
CELL_W, CELL_H, GAP = 41, 27, 2


def picture(joined: dict[str, Any], title: str) -> str:
    """Draw delays by carrier and hour, and delay against the weather below; gives the SVG text."""
    rows = joined["rows"]
    carriers = _by_mean(rows, "airline")
    hours = list(range(min(r["hour"] for r in rows), max(r["hour"] for r in rows) + 1))
    hours = [
        h for h in hours if any(r["hour"] == h and r["departed"] >= FEW for r in rows)
    ] or hours
    skies = TOP + len(carriers) * (CELL_H + GAP) + 14
    bottom = skies + 2 * (CELL_H + GAP)
    panels = bottom + 136
    height = panels + 284
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" {FONT} fill="{INK}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        _text(36, 50, title, 25, weight=700),
        _text(36, 76, _summary(joined["totals"]), 14, QUIET),
        *_heat_map(rows, carriers, hours),
        *_skies(rows, hours, skies),
        *_legend(bottom + 30),
        *_weather(joined["bands"], panels),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _summary(totals: dict[str, int]) -> str:
    late = totals["late"] / max(1, totals["departed"])
    mean = totals["minutes"] / max(1, totals["departed"])
    return (
        f"{totals['flights']:,} flights of {totals['carriers']} airlines · mean delay "
        f"{mean:.1f} min · {late:.0%} left more than 15 min late · "
        f"{totals['cancelled']:,} never left"
    )


# --- the heat map --------------------------------------------------------------------------------


def _heat_map(
    rows: Sequence[dict[str, Any]], carriers: Sequence[str], hours: Sequence[int]
) -> Iterable[str]:
    yield _text(
        LEFT, TOP - 36, "Mean delay at departure, minutes, by scheduled hour", 13, weight=600
    )
    cells = {(r["airline"], r["hour"]): r for r in rows}
    for i, hour in enumerate(hours):
        x = LEFT + i * (CELL_W + GAP)
        yield _text(x + CELL_W / 2, TOP - 10, f"{hour}:00", 11, QUIET, "middle")
    for j, airline in enumerate(carriers):
        y = TOP + j * (CELL_H + GAP)
        yield _text(LEFT - 12, y + CELL_H / 2 + 4.5, _short(airline), 13, anchor="end")
        for i, hour in enumerate(hours):
            x = LEFT + i * (CELL_W + GAP)
            yield _cell(cells.get((airline, hour)), x, y)
        mine = [r for r in rows if r["airline"] == airline]
        mean = _mean(sum(r["minutes"] for r in mine), sum(r["departed"] for r in mine))
        x = LEFT + len(hours) * (CELL_W + GAP) + 10
        yield _bar(x, y + 5, max(2.0, mean * 3.2), CELL_H - 10, _colour(mean))
        yield _text(x + max(2.0, mean * 3.2) + 6, y + CELL_H / 2 + 4, f"{mean:.0f}", 11, QUIET)
    yield _text(LEFT + len(hours) * (CELL_W + GAP) + 10, TOP - 10, "all day", 11, QUIET)


def _skies(rows: Sequence[dict[str, Any]], hours: Sequence[int], top: float) -> Iterable[str]:
    """Draw what the join adds: the mean of all airlines in each hour, in fair and foul weather."""
    for j, (name, column) in enumerate(
        (("all, in fair weather", "hour_fair_delay"), ("all, in foul weather", "hour_foul_delay"))
    ):
        y = top + j * (CELL_H + GAP)
        yield _text(LEFT - 12, y + CELL_H / 2 + 4.5, name, 13, QUIET, "end")
        for i, hour in enumerate(hours):
            x = LEFT + i * (CELL_W + GAP)
            mean = next((r[column] for r in rows if r["hour"] == hour), None)
            if mean is None:
                yield _bar(x, y, CELL_W, CELL_H, "#f8fafc")
            else:
                yield _bar(x, y, CELL_W, CELL_H, _colour(mean))
                ink = "#ffffff" if mean > LATEST * 0.55 else INK
                middle = y + CELL_H / 2 + 4
                yield _text(x + CELL_W / 2, middle, f"{round(mean)}", 11.5, ink, "middle")


def _cell(row: dict[str, Any] | None, x: float, y: float) -> str:
    if row is None or not row["departed"]:
        return _bar(x, y, CELL_W, CELL_H, "#f8fafc")
    mean = row["minutes"] / row["departed"]
    tip = (
        f"{row['airline']}, {row['hour']}:00: {mean:.1f} min over {row['departed']:,} departures, "
        f"{row['cancelled']:,} cancelled"
    )
    if row["departed"] < FEW:
        return (
            f"<g><title>{escape(tip)}</title>{_bar(x, y, CELL_W, CELL_H, '#f1f5f9')}"
            f"{_text(x + CELL_W / 2, y + CELL_H / 2 + 4, '·', 12, QUIET, 'middle')}</g>"
        )
    ink = "#ffffff" if mean > LATEST * 0.55 else INK
    return (
        f"<g><title>{escape(tip)}</title>{_bar(x, y, CELL_W, CELL_H, _colour(mean))}"
        f"{_text(x + CELL_W / 2, y + CELL_H / 2 + 4, f'{round(mean)}', 11.5, ink, 'middle')}</g>"
    )


def _legend(y: float) -> Iterable[str]:
    width = 260.0
    step = width / 52
    for i in range(52):
        yield f'<rect x="{LEFT + i * step:.1f}" y="{y}" width="{step + 0.5:.1f}" height="10" ' + (
            f'fill="{_colour(i / 51 * LATEST)}"/>'
        )
    for value in (0, 10, 20, 30, 40):
        x = LEFT + value / LATEST * width
        label = f"{value} min" if value == 0 else f"{value} +" if value == LATEST else str(value)
        yield _text(x, y + 25, label, 11, QUIET, "middle")
    yield _text(LEFT + width + 40, y + 9, f"·  fewer than {FEW} departures", 11, QUIET)
    foul = "foul weather: wind 25 mph, visibility under 3 miles, or 0.05 inches of rain an hour"
    yield _text(LEFT + width + 40, y + 25, foul, 11, QUIET)


# --- delay against weather -----------------------------------------------------------------------


def _weather(bands: dict[str, dict[str, list[int]]], top: float) -> Iterable[str]:
    yield _text(36, top - 38, "Mean delay against the weather at the airport", 17, weight=600)
    yield _text(36, top - 18, "bars: minutes · dots: share of flights that never left", 12, QUIET)
    room = (WIDTH - 72) / len(bands)
    highest = max((_mean(c[3], c[1]) for b in bands.values() for c in b.values()), default=1) or 1
    for i, (name, band) in enumerate(bands.items()):
        yield from _panel(name, band, 36 + i * room, top, room - 34, highest)


def _panel(
    name: str, band: dict[str, list[int]], left: float, top: float, width: float, highest: float
) -> Iterable[str]:
    base, tall = top + 196, 150.0
    yield _text(left, top + 16, name, 13, weight=600)
    yield f'<line x1="{left}" x2="{left + width}" y1="{base}" y2="{base}" stroke="{FAINT}"/>'
    step = width / len(band)
    dots: list[tuple[float, float, float]] = []
    for i, (label, cell) in enumerate(band.items()):
        x, mean = left + i * step + step * 0.14, _mean(cell[3], cell[1])
        bar = max(1.0, mean / highest * tall)
        tip = f"{name} {label}: {mean:.1f} min, {cell[0]:,} flights, {cell[4]:,} cancelled"
        yield f"<g><title>{escape(tip)}</title>"
        yield _bar(x, base - bar, step * 0.72, bar, _colour(mean)) + "</g>"
        yield _text(x + step * 0.36, base - bar - 6, f"{mean:.0f}", 12, anchor="middle")
        yield _text(x + step * 0.36, base + 17, label, 11, QUIET, "middle")
        share = cell[4] / cell[0] if cell[0] else 0.0
        dots.append((x + step * 0.36, base + 40, share))
    for x, y, share in dots:
        size = 1.5 + min(1.0, share / 0.13) * 7.5
        yield f'<circle cx="{x:.1f}" cy="{y}" r="{size:.1f}" fill="#475569" fill-opacity="0.75"/>'
        yield _text(x, y + 22, f"{share:.1%}", 11, QUIET, "middle")


# --- pieces --------------------------------------------------------------------------------------


def _by_mean(rows: Sequence[dict[str, Any]], key: str) -> list[str]:
    """Names with the longest mean delay first."""
    sums: dict[str, list[int]] = {}
    for row in rows:
        cell = sums.setdefault(row[key], [0, 0])
        cell[0] += row["minutes"]
        cell[1] += row["departed"]
    return sorted(sums, key=lambda name: (-_mean(*sums[name]), name))


def _mean(minutes: int, departed: int) -> float:
    return minutes / departed if departed else 0.0


def _short(airline: str) -> str:
    for tail in (" Inc.", " Co.", " Corporation", " Airlines", " Air Lines"):
        airline = airline.removesuffix(tail)
    return airline


def _colour(minutes: float) -> str:
    """Blend the two steps of the scale between which a delay lies."""
    place = min(1.0, max(0.0, minutes / LATEST)) * (len(SCALE) - 1)
    low = min(int(place), len(SCALE) - 2)
    a, b = (tuple(bytes.fromhex(SCALE[low + i][1:])) for i in (0, 1))
    return "#" + bytes(round(x + (y - x) * (place - low)) for x, y in zip(a, b, strict=True)).hex()


def _bar(x: float, y: float, width: float, height: float, fill: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="3" '
        f'fill="{fill}"/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    size: float,
    fill: str = INK,
    anchor: str = "start",
    weight: int = 400,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
