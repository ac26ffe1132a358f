# SPDX-License-Identifier: MIT
"""What a notebook shows of compositions and runs."""

from __future__ import annotations

from typing import Any

from flowq import FlowQ, group

q = FlowQ("notebooks", "memory://")


@q.task(name="clean")
def clean(part: str) -> str:
    return part


def test_a_notebook_shows_a_composition_as_a_picture() -> None:
    graph = clean.s("a") | clean.s()

    shown = graph._repr_mimebundle_()

    assert shown["text/vnd.mermaid"] == graph.mermaid()
    assert shown["text/markdown"] == f"```mermaid\n{graph.mermaid()}```\n"
    assert shown["text/plain"] == repr(graph)


def test_a_notebook_shows_what_cannot_be_drawn_yet_as_text() -> None:
    incomplete = clean.s()

    assert incomplete._repr_mimebundle_() == {"text/plain": "clean.s()"}


def test_a_notebook_shows_a_run_with_the_states_of_its_nodes() -> None:
    run: Any = clean.s().map(["a", "b"]).test(fail={"clean[1]": ValueError()})

    shown = run._repr_mimebundle_()

    assert shown["text/vnd.mermaid"] == run.mermaid()
    assert "failed" in shown["text/vnd.mermaid"]
    assert shown["text/plain"] == f"{run!r} failed"


def test_a_notebook_shows_a_run_that_the_store_does_not_know_as_text() -> None:
    run = q.run("0" * 32)

    assert run._repr_mimebundle_() == {"text/plain": repr(run)}


def test_a_notebook_asks_for_other_pictures_in_vain() -> None:
    graph: Any = group([clean.s("a")])

    for name in ("_repr_html_", "_repr_png_", "_ipython_display_"):
        assert not hasattr(graph, name)
