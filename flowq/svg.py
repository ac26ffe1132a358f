# SPDX-License-Identifier: MIT
"""A drawing as SVG: one text, without scripts or fonts of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flowq.drawing import LOOKS, Drawing, Look, Shape
from flowq.layout import FONT, MARGIN, MOST_LABEL, Rect, Route, cut, place, told_counts

__all__ = ["svg"]

PLAIN: Final = Look("#ffffff", "#607d8b", "#111111")
"""A node in the picture of a graph, which has no state."""
LINES: Final = {"value": "#607d8b", "order": "#607d8b", "dead": "#cccccc"}
DASHES: Final = {"value": "", "order": "2 4", "dead": "5 4"}
_FACE: Final = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def svg(drawing: Drawing) -> str:
    """Draw it.

    The text depends on nothing but the drawing. Widths of letters are estimated; what may be wider
    than its shape is cut, and told whole when one points at it.
    """
    placed = place(drawing)
    w, h = _n(placed.width), _n(placed.height)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
        f'role="img" font-family="{_FACE}" font-size="{FONT}">',
        f"<title>{_text(drawing.name or 'graph')}</title>",
        "<defs>",
    ]
    for kind, colour in LINES.items():
        out.append(
            f'<marker id="flowq-{kind}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0.5 8 4 0 7.5z" fill="{colour}"/></marker>'
        )
    out += ["</defs>", f'<rect width="{w}" height="{h}" rx="6" fill="#ffffff"/>']
    if drawing.name:
        name = cut(drawing.name, placed.width - 2 * MARGIN)
        out.append(
            f'<text x="{_n(MARGIN)}" y="{_n(MARGIN + 8)}" font-weight="600" fill="#111111">'
            f"{_text(name)}</text>"
        )
    nodes: list[str] = []
    for shape in drawing.walk():  # boxes first, arrows over them, nodes on top
        (out if shape.boxed else nodes).extend(_shape(shape, placed.rects[shape]))
    for route in placed.routes:
        out.extend(_arrow(route))
    return "\n".join([*out, *nodes, "</svg>"]) + "\n"


def _shape(shape: Shape, r: Rect) -> Iterator[str]:
    look = LOOKS.get(shape.state, PLAIN)
    yield f'<g class="{_class(shape)}">'
    yield f"<title>{_text(_hint(shape))}</title>"
    if shape.boxed:
        yield _rect(r, look, fill=_pale(look), rx=8)
        title = cut(shape.title, r.w - MARGIN)
        yield _words(r.x + 10, r.y + 16, title, look, anchor="start", weight="600")
    elif shape.form == "join":
        yield _rect(r, look, rx=r.h / 2)
        yield _words(r.x + r.w / 2, r.y + r.h / 2 + 4, cut(shape.title, r.w - 14), look)
    else:
        if shape.form == "many":
            for by in (6.0, 3.0):  # a pile of cards
                yield _rect(Rect(r.x + by, r.y + by, r.w - 6, r.h - 6), look, rx=5)
            r = Rect(r.x, r.y, r.w - 6, r.h - 6)
        yield _rect(r, look, rx=r.h / 2 if shape.form == "given" else 5)
        title = cut(shape.title, r.w - 14)
        if not shape.counts:
            yield _words(r.x + r.w / 2, r.y + r.h / 2 + 4, title, look)
        else:
            yield _words(r.x + 8, r.y + 16, title, look, anchor="start")
            yield from _bar(shape, Rect(r.x + 8, r.y + 22, r.w - 16, 6))
            said = cut(told_counts(shape), r.w - 16, FONT - 2)
            yield _words(r.x + 8, r.y + 42, said, look, anchor="start", size=FONT - 2)
    yield "</g>"


def _bar(shape: Shape, r: Rect) -> Iterator[str]:
    """One bar for all items, a part for each state, at least a pixel wide."""
    total = sum(shape.counts.values())
    x = r.x
    for state, count in shape.counts.items():
        wide = r.w * count / total
        colour = LOOKS[state].stroke if state in LOOKS else PLAIN.stroke
        shown = max(1.0, wide)
        yield (
            f'<rect x="{_n(min(x, r.x + r.w - shown))}" y="{_n(r.y)}" width="{_n(shown)}" '
            f'height="{_n(r.h)}" fill="{colour}"/>'
        )
        x += wide


def _arrow(route: Route) -> Iterator[str]:
    """Draw an arrow: level at its stops, curved between."""
    kind = route.arrow.kind
    (leaves, x, y), *rest = route.stops
    path = [f"M{_n(leaves)} {_n(y)}"] + ([f"H{_n(x)}"] if x > leaves else [])
    for begin, end, level in rest:
        half = (x + begin) / 2
        if abs(level - y) < 0.05:
            path.append(f"H{_n(begin)}")
        else:
            path.append(f"C{_n(half)} {_n(y)} {_n(half)} {_n(level)} {_n(begin)} {_n(level)}")
        if end > begin:
            path.append(f"H{_n(end)}")
        x, y = end, level
    dash = f' stroke-dasharray="{DASHES[kind]}"' if DASHES[kind] else ""
    yield (
        f'<path class="flowq-{kind}" d="{" ".join(path)}" fill="none" stroke="{LINES[kind]}" '
        f'stroke-width="1.3"{dash} marker-end="url(#flowq-{kind})"/>'
    )
    if route.arrow.label:  # on its first curve, where it leaves
        (_, x, y), (begin, _, level), *_ = route.stops
        label = cut(route.arrow.label, MOST_LABEL, FONT - 2)
        yield (
            f'<text x="{_n((x + begin) / 2)}" y="{_n((y + level) / 2 - 3)}" text-anchor="middle" '
            f'font-size="{FONT - 2}" fill="#455a64" stroke="#ffffff" stroke-width="3" '
            f'paint-order="stroke">{_text(label)}</text>'
        )


def _rect(r: Rect, look: Look, *, rx: float, fill: str = "") -> str:
    dash = ' stroke-dasharray="4 3"' if look.dashed else ""
    return (
        f'<rect x="{_n(r.x)}" y="{_n(r.y)}" width="{_n(r.w)}" height="{_n(r.h)}" rx="{_n(rx)}" '
        f'fill="{fill or look.fill}" stroke="{look.stroke}" stroke-width="1.2"{dash}/>'
    )


def _words(
    x: float,
    y: float,
    text: str,
    look: Look,
    *,
    anchor: str = "middle",
    weight: str = "",
    size: int = FONT,
) -> str:
    bold = f' font-weight="{weight}"' if weight else ""
    small = f' font-size="{size}"' if size != FONT else ""
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"{bold}{small} fill="{look.text}">'
        f"{_text(text)}</text>"
    )


def _class(shape: Shape) -> str:
    kind = "box" if shape.boxed else shape.form or "node"
    return f"flowq-{kind} {shape.state}".strip()


def _hint(shape: Shape) -> str:
    return shape.hint or ": ".join(part for part in (shape.title, shape.state) if part)


def _pale(look: Look) -> str:
    """The inside of a box: its colour, mixed with much white."""
    rgb = (int(look.fill[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{255 - (255 - c) // 3:02x}" for c in rgb)


def _text(text: str) -> str:
    """Escape what SVG takes for its own, and drop what XML does not allow."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    )


def _n(x: float) -> str:
    return f"{x:.1f}".removesuffix(".0")
