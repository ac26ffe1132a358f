# SPDX-License-Identifier: MIT
"""Pictures of graphs and runs: nothing overlaps, nothing is hidden, and a browser shows them."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from flowq import DAG, FlowQ, branch, group
from flowq.drawing import LOOKS, Arrow, Drawing, Shape, mermaid
from flowq.layout import Placed, Rect, cut, place, width_of
from flowq.picture import drawing_of
from flowq.states import State
from flowq.svg import svg

q = FlowQ("pictures", "memory://")
SVG = "{http://www.w3.org/2000/svg}"


@q.task(name="extract")
def extract(n: int) -> list[int]:
    return list(range(n))


@q.task(name="clean")
def clean(x: int) -> int:
    return x


@q.task(name="size")
def size(rows: list[int]) -> int:
    return len(rows)


@q.task(name="load")
def load(rows: Any) -> Any:
    return rows


@q.task(name="tidy")
def tidy() -> None:
    pass


@q.flow(name="inner")
def inner(x: int) -> Any:
    return load(group([clean(x), clean(x)]))


@q.flow(name="nightly", finally_=tidy.s(), on_failure=tidy.s())
def nightly(n: int) -> Any:
    rows = clean.options(items="keep").map(extract(n))
    arms = {0: lambda: load("none"), "a<b": lambda: load(load(rows))}
    how = branch(size(rows), arms, default=lambda: load(rows))
    return load([rows, how, inner(1)])


def shapes_of(picture: str) -> Counter[str]:
    root = ElementTree.fromstring(picture)
    return Counter(g.get("class", "") for g in root.iter(f"{SVG}g"))


def apart(a: Rect, b: Rect) -> bool:
    wide, high = (a.x + a.w - b.x, b.x + b.w - a.x), (a.y + a.h - b.y, b.y + b.h - a.y)
    return min(*wide, *high) < 0.01


def holds(a: Rect, b: Rect) -> bool:
    return a.x < b.x and a.y < b.y and b.x + b.w < a.x + a.w and b.y + b.h < a.y + a.h


def check(drawing: Drawing) -> Placed:
    """See that shapes are apart, boxes hold what is inside, and arrows go through no shape."""
    placed = place(drawing)
    everything = Rect(0, 0, placed.width, placed.height)
    todo: list[tuple[Rect, list[Shape]]] = [(everything, drawing.shapes)]
    while todo:
        around, shapes = todo.pop()
        for shape in shapes:
            assert holds(around, placed.rects[shape])
            todo.append((placed.rects[shape], shape.inside))
        for a, b in itertools.combinations(shapes, 2):
            assert apart(placed.rects[a], placed.rects[b])
    for route in placed.routes:
        ends = placed.rects[route.arrow.source], placed.rects[route.arrow.target]
        assert route.stops[0][0] == pytest.approx(ends[0].x + ends[0].w)
        assert route.stops[-1][1] == pytest.approx(ends[1].x)
        for begin, end, y in route.stops:
            lane = Rect(begin, y, end - begin, 0.1)
            for rect in placed.rects.values():
                around = holds(rect, ends[0]) and holds(rect, ends[1])
                assert around or apart(lane, rect)
    return placed


@pytest.mark.parametrize("seed", range(25))
def test_shapes_never_overlap_and_arrows_over_several_layers_go_through_none(seed: int) -> None:
    rng = random.Random(seed)
    drawing = Drawing("drawn")
    todo = [(drawing.shapes, 0)]
    while todo:
        shapes, depth = todo.pop()
        for k in range(rng.randint(1, 7)):
            shape = Shape("x" * rng.randint(1, 40), rng.choice(["", *LOOKS]))
            shape.aside = rng.random() < 0.1
            if rng.random() < 0.2:
                shape.form, shape.counts = "many", {"success": rng.randint(1, 5000), "failed": 1}
            elif depth < 3 and rng.random() < 0.3:
                todo.append((shape.inside, depth + 1))
            for other in shapes[:k]:
                if rng.random() < 0.3:
                    label = rng.choice(["", "rows"])
                    drawing.arrows.append(Arrow(other, shape, label))
            shapes.append(shape)

    check(drawing)

    assert svg(drawing) == svg(drawing)
    ElementTree.fromstring(svg(drawing))


def test_the_picture_of_a_graph_shows_arms_handlers_and_what_edges_carry() -> None:
    picture = nightly.build(3).svg()

    texts = [t.text for t in ElementTree.fromstring(picture).iter(f"{SVG}text")]
    assert {"nightly", "clean × n", "a<b", "default", "finally/tidy", "on_failure/tidy"} <= {*texts}
    assert {"each", "rows", "condition, rows"} & {*texts}
    assert shapes_of(picture)["flowq-many"] == 1


def test_arms_that_were_not_taken_are_pale_in_both_pictures() -> None:
    run: Any = nightly.build(3).test()

    picture, text = run.svg(), run.mermaid()

    # the boxes of two arms, and the steps in them; what has run is there too
    assert shapes_of(picture)["flowq-box skipped"] == 2
    assert shapes_of(picture)["flowq-node skipped"] == 3 + 1  # on_failure was not wanted either
    assert "subgraph n" in text and '"a#lt;b"' in text
    pale = next(x for x in text.splitlines() if x.startswith("    class ") and "skipped" in x)
    assert pale.count("n") == 2 + 4
    assert "stroke-dasharray" in text


def test_arms_of_a_branch_that_is_to_come_are_waiting() -> None:
    run: Any = nightly(3)

    assert shapes_of(run.svg())["flowq-box waiting"] >= 3
    run.cancel()
    assert shapes_of(run.svg())["flowq-box skipped"] >= 3


def test_thousands_of_items_are_one_shape_with_a_bar() -> None:
    run: Any = nightly.build(5_000).test(fail={f"clean[{k}]": ValueError(k) for k in range(50)})

    picture = run.svg()

    shapes = shapes_of(picture)
    assert shapes["flowq-many success"] == 1 and sum(shapes.values()) < 30
    assert "4,950 success, 50 failed" in picture
    bars = [r for r in ElementTree.fromstring(picture).iter(f"{SVG}rect") if r.get("height") == "6"]
    assert [r.get("fill") for r in bars] == [LOOKS["success"].stroke, LOOKS["failed"].stroke]
    assert len(picture) < 20_000


def test_a_run_is_drawn_without_overlap() -> None:
    run: Any = nightly.build(7).test(fail={"clean[3]": ValueError()})

    placed = check(drawing_of(run._infos(), store=q.store, run=run._id))

    assert placed.width < 1600 and placed.height < 900


def test_what_users_wrote_is_text_and_never_markup() -> None:
    evil = '</text><script>alert("1")</script>&\x07'
    drawing = Drawing(evil, [Shape(evil, "failed", hint=evil), Shape(evil, inside=[Shape("a")])])
    drawing.arrows.append(Arrow(*drawing.shapes, evil))

    picture = svg(drawing)

    root = ElementTree.fromstring(picture)
    assert not list(root.iter(f"{SVG}script")) and "script" not in {e.tag for e in root.iter()}
    assert root.findtext(f"{SVG}title") == evil.replace("\x07", " ")
    assert "<script>" not in mermaid(drawing)


def test_what_is_too_wide_is_cut_and_told_whole_when_one_points_at_it() -> None:
    name = "load/" + "w" * 150 + "/save"

    assert width_of(cut(name, 200)) <= 200
    assert cut(name, 200).startswith("l") and cut(name, 200).endswith("/save")
    assert f"<title>{name}</title>" in svg(Drawing("", [Shape(name)]))


def test_every_state_has_its_colours() -> None:
    assert {*LOOKS} == {state.label for state in State}
    assert len({look[:2] for look in LOOKS.values()}) >= 8


def test_a_notebook_gets_svg_beside_text() -> None:
    dag = DAG("two")
    dag.add(clean.s(1), name="a")
    dag.add(clean.s(1), name="b", after=["a"])

    shown = dag._repr_mimebundle_()

    assert shown["image/svg+xml"] == dag.svg()
    assert {"text/plain", "text/markdown", "text/vnd.mermaid"} <= {*shown}


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
MEASURE = """
<pre id="out"></pre><script>
const wide = [];
for (const g of document.querySelectorAll("svg g")) {
  const rect = g.querySelector("rect").getBBox();
  for (const text of g.querySelectorAll("text")) {
    const box = text.getBBox();
    if (box.x < rect.x || box.x + box.width > rect.x + rect.width) wide.push(text.textContent);
  }
}
const shapes = document.querySelectorAll("svg g").length;
document.getElementById("out").textContent = JSON.stringify([shapes, wide]);
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_shows_it_with_every_text_inside_its_shape(tmp_path: Path) -> None:
    run: Any = nightly.build(30).test(fail={"clean[3]": ValueError()})
    drawing = drawing_of(run._infos(), store=q.store, run=run._id)
    drawing.shapes += [Shape(c * 60) for c in "wWmi%.é漢"] + [Shape("load/Every_Kind.of[12]/save")]
    page = tmp_path / "run.html"
    page.write_text(f'<meta charset="utf-8">{svg(drawing)}{MEASURE}', encoding="utf-8")

    shown = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path}/profile", "--dump-dom", page.as_uri(),
        ],
        check=True, capture_output=True, timeout=60, encoding="utf-8",
    ).stdout  # fmt: skip

    found = re.search(r'<pre id="out">(.*?)</pre>', shown)
    assert found is not None, shown[-500:]
    assert json.loads(found[1]) == [len(list(drawing.walk())), []]
