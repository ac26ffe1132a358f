# SPDX-License-Identifier: MIT
"""Nodes that ran under another ``version=`` of their task than they were built with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowq import FlowQ, TaskError, group
from flowq.cli import main
from flowq.message import decode_message, id_bytes
from flowq.versions import AT_ONCE


@pytest.fixture
def deploy(q: FlowQ) -> Callable[..., Any]:
    """Register a task anew, as its next release has it."""

    def deploy(name: str, func: Callable[..., Any], **options: Any) -> Any:
        q._tasks.pop(name, None)
        return q.task(name=name, **options)(func)

    return deploy


def work(q: FlowQ) -> None:
    with q.consumer(workers=1, drain=True):
        pass


def double(x: int) -> int:
    if x < 0:
        raise ValueError(f"{x} is negative")
    return 2 * x


def numbers(n: int) -> list[int]:
    return list(range(n))


def total(xs: list[int]) -> int:
    return sum(xs)


def test_what_ran_under_another_version_is_told_and_nothing_else(
    q: FlowQ, deploy: Callable[..., Any]
) -> None:
    first, same = deploy("double", double, version=1), deploy("total", total, version=1)
    run = (group(first.s(1), first.s(2)) | same.s()).start()
    deploy("double", double, version=2)

    work(q)

    assert run.get() == 6
    assert run.other_versions() == {"double": ("1", "2"), "double-2": ("1", "2")}
    assert run.why("double").startswith("double: success, ran as version 2 (built with 1)")
    assert "version" not in run.why("total")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"version": "b"}, "ran as version b (built without one)"),
        ({"version": "a"}, {}, "ran without a version (built with a)"),
        ({"version": "a", "retries": 1}, {"version": "b"}, "ran as version b (built with a)"),
        ({"version": "a"}, {"version": "a", "retries": 1}, ""),
        ({}, {"retries": 1}, ""),
    ],
)
def test_a_task_alone_tells_it_too_with_its_failure(
    q: FlowQ,
    deploy: Callable[..., Any],
    before: dict[str, Any],
    after: dict[str, Any],
    said: str,
) -> None:
    task = deploy("double", double, **before)
    good, bad = task(1), task.options(retries=0)(-1)
    deploy("double", double, **after)

    work(q)

    end = f", {said}" if said else ""
    assert good.why() == f"task {good.id}: success{end}"
    assert bad.why() == f"task {bad.id}: failed, ValueError('-1 is negative'){end}"
    with pytest.raises(TaskError) as raised:
        bad.get()
    versions = before.get("version", ""), after.get("version", "")
    assert raised.value.failure.versions == (versions if said else None)


def test_items_that_workers_make_and_chunks_carry_the_version_of_the_build(
    q: FlowQ, deploy: Callable[..., Any]
) -> None:
    count, task = deploy("numbers", numbers), deploy("double", double, version=1)
    listed = (count.s(2) | task.each()).start()
    chunked = task.chunks(range(4), 2)
    deploy("double", double, version=2)

    work(q)

    assert listed.get() == [0, 2]
    assert chunked.get() == [0, 2, 4, 6]
    assert listed.other_versions() == {"double[0]": ("1", "2"), "double[1]": ("1", "2")}
    assert chunked.other_versions() == {"double[0]": ("1", "2"), "double[1]": ("1", "2")}


def test_what_runs_again_under_the_version_of_its_build_is_told_no_more(
    q: FlowQ, deploy: Callable[..., Any]
) -> None:
    task = deploy("double", double, version=1)
    run = (task.s(1) | task.s()).start()
    deploy("double", double, version=2)
    work(q)
    assert run.other_versions() == {"double": ("1", "2"), "double-2": ("1", "2")}

    deploy("double", double, version=1)
    run.rerun("double-2")
    work(q)

    assert run.other_versions() == {"double": ("1", "2")}


def test_a_hit_of_the_cache_says_nothing_of_how_another_call_ran(
    q: FlowQ, deploy: Callable[..., Any]
) -> None:
    old = deploy("double", double, version=1, cache=60)
    old(1)
    new = deploy("double", double, version=2, cache=60)
    work(q)

    hit = new(1)
    work(q)

    assert "from the cache" in hit.why()
    assert "version" not in hit.why()


def test_only_a_task_with_a_version_sends_it(q: FlowQ, deploy: Callable[..., Any]) -> None:
    plain, versioned = deploy("plain", double)(1), deploy("double", double, version=1)(1)

    bodies = [q.store.message(id_bytes(r.id)) for r in (plain, versioned)]

    assert [decode_message(body).policy for body in bodies if body] == [{}, {"version": "1"}]


def test_more_nodes_than_a_page_are_all_told(q: FlowQ, deploy: Callable[..., Any]) -> None:
    task = deploy("double", double, version=1)
    rg = task.map(range(2 * AT_ONCE + 1))
    deploy("double", double, version=2)

    work(q)

    assert len(rg.other_versions()) == 2 * AT_ONCE + 1


def test_the_command_line_shows_it_by_node_and_to_programs(
    q: FlowQ, deploy: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    if q.url.startswith("memory"):
        pytest.skip("another process cannot read it, nor can the command line")
    task = deploy("double", double, version=1)
    run = group(task.s(1), task.s(-1)).start()
    alone = task(3)
    deploy("double", double, version=2)
    work(q)

    def typed(*words: str) -> str:
        assert main([*words, "--url", q.url, "--name", q.name]) == 0
        return capsys.readouterr().out

    mark = "ran as version 2 (built with 1)"
    rows = [line for line in typed("run", "show", run.id).splitlines() if "double" in line]
    assert [row.count(mark) for row in rows[-2:]] == [1, 1]
    assert f"ValueError('-1 is negative'); {mark}" in rows[-1]
    assert typed("run", "show", run.id, "--json").count('"ran": "2"') == 2
    assert typed("run", "why", run.id, "double").count(mark) == 1
    assert ["version", *mark.split()] in map(
        str.split, typed("task", "show", alone.id).splitlines()
    )
    assert '"built": "1"' in typed("task", "show", alone.id, "--json")
