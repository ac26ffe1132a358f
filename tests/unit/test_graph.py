# SPDX-License-Identifier: MIT
"""The checks of a graph, and how people see it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import networkx as nx
import pytest

from flowq import DAG, FlowQ, group
from flowq.binding import check_call, params_of
from flowq.errors import BindingError

q = FlowQ("looking", "memory://")


@q.task
def load(day: str) -> Any: ...


@q.task
def clean(path: Any, *, strict: bool = False) -> Any: ...


@q.task
def total(rows: Any, day: str = "") -> Any: ...


@q.task
def anything(first: Any, /, *rest: Any, **more: Any) -> Any: ...


def test_the_view_has_names_tasks_and_the_parameters_of_edges() -> None:
    dag = DAG("etl")
    dag.add(load.s("x"), name="load")
    dag.add(clean.s(dag["load"]), name="clean")
    dag.add(total.s(dag["load"]), name="total", after="clean", trigger_rule="all_done")

    view = dag.graph

    assert isinstance(view, nx.DiGraph) and view.name == "etl"
    assert view.nodes["total"]["task"] == total.name
    assert view.nodes["total"]["rule"] == "all_done"
    assert dict(view.edges) == {
        ("load", "clean"): {"to": ("path",)},
        ("load", "total"): {"to": ("rows",)},
        ("clean", "total"): {"to": ()},
    }


def test_the_view_of_a_map_has_its_items_and_what_is_inside() -> None:
    alone = clean.s().map([1, 2, 3]).graph
    within = (load.s("x") >> (clean.s() | total.s()).map([1, 2]) | total.s()).graph

    assert list(alone) == ["clean[0]", "clean[1]", "clean[2]"] and not alone.edges
    assert list(within) == ["load", "clean", "total"]
    assert (within.nodes["clean"]["kind"], within.nodes["clean"]["items"]) == ("map", 2)
    assert list(within.nodes["clean"]["graph"].edges) == [("clean", "total")]


def test_mermaid_shows_values_order_boxes_and_maps() -> None:
    box = (clean.s() | total.s()).options(name="box")

    text = (load.s("x") | box >> clean.s().map([1, 2]) | total.s(day="y")).mermaid()

    assert text.splitlines() == [
        "flowchart LR",
        '    n0["load"]',
        '    subgraph n1["box"]',
        '        n2["clean"]',
        '        n3["total"]',
        "    end",
        '    n4[["clean × 2"]]',
        '    n5["total"]',
        '    n0 -->|"path"| n2',
        '    n2 -->|"rows"| n3',
        "    n1 -.-> n4",
        '    n4 -->|"rows"| n5',
    ]


@pytest.mark.parametrize(
    "composition",
    [load.s("x"), load.s().map(["a"]), group(load.s("a"), load.s("b")), DAG("empty")],
    ids=repr,
)
def test_every_composition_can_be_drawn_and_seen(composition: Any) -> None:
    assert composition.mermaid().startswith("flowchart LR\n")
    assert isinstance(composition.graph, nx.DiGraph)


@pytest.mark.parametrize(
    ("task", "count", "names", "free", "room"),
    [
        (load, 0, (), 0, 1),
        (load, 1, (), None, 0),
        (load, 0, ("day",), None, 0),
        (clean, 0, (), 0, 1),
        (clean, 1, (), "strict", 0),
        (total, 0, ("rows",), "day", 1),
        (anything, 0, (), 0, float("inf")),
        (anything, 3, ("x",), 3, float("inf")),
    ],
)
def test_the_first_free_parameter_is_a_position_a_name_or_none(
    task: Any, count: int, names: tuple[str, ...], free: Any, room: float
) -> None:
    params = params_of(task)

    assert params.free(count, names) == free
    assert params.room(count, names) == room


def test_keywords_that_a_task_takes_by_any_name_fit() -> None:
    check_call(anything, (1, 2, 3), {"a": 1, "first": 2})
    with pytest.raises(BindingError, match="missing argument 'first'"):
        check_call(anything, (), {"first": 2})


def test_composing_loads_neither_networkx_nor_cloudpickle() -> None:
    code = (
        "import sys; from flowq import FlowQ, chain, group; import flowq.lower as lower\n"
        "q = FlowQ('x', 'memory://')\n"
        "f = q.task(name='f')(lambda x: x)\n"
        "lower.lower((group(f.s(i) for i in range(3)) | f.s())._graph(), q)\n"
        "print([m for m in ('networkx', 'cloudpickle', 'redis', 'asyncio') if m in sys.modules])"
    )

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"
