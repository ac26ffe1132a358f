# SPDX-License-Identifier: MIT
"""Where the time of a run went."""

from __future__ import annotations

from flowq.plan import Kind, Phase, ranges_of
from flowq.states import State
from flowq.storage.base import NodeInfo
from flowq.timeline import critical_path, timeline


class Times:
    """Nodes with when their bodies began and ended."""

    def __init__(self) -> None:
        self.nodes: list[NodeInfo] = []

    def add(
        self,
        name: str,
        began: int,
        ended: int,
        *,
        above: str = "",
        inside: str = "",
        phase: Phase = Phase.BODY,
    ) -> None:
        self.nodes.append(
            NodeInfo(
                len(self.nodes) + 1,
                name,
                "t" if began else "",
                Kind.TASK if began else Kind.EXPANSION,
                self.at(inside) if inside else 0,
                State.SUCCESS,
                started_ms=began,
                ended_ms=ended,
                parents=ranges_of(map(self.at, above.split())),
                phase=phase,
            )
        )

    def at(self, name: str) -> int:
        return next(n.index for n in self.nodes if n.name == name)

    def way(self) -> str:
        return " ".join(n.name for n in critical_path(self.nodes))


def test_the_way_goes_by_the_parent_that_ended_last() -> None:
    t = Times()
    t.add("a", 1, 2)
    t.add("slow", 2, 9, above="a")
    t.add("fast", 2, 3, above="a")
    t.add("end", 9, 10, above="slow fast")
    t.add("beside", 1, 8)

    assert t.way() == "a slow end"


def test_it_leads_through_what_stands_inside_an_expansion() -> None:
    t = Times()
    t.add("a", 1, 2)
    t.add("map", 0, 8, above="a")
    t.add("map[0]", 2, 3, inside="map")
    t.add("map[1]", 0, 8, inside="map")
    t.add("map[1]/x", 2, 5, inside="map[1]")
    t.add("map[1]/y", 5, 8, inside="map[1]", above="map[1]/x")
    t.add("end", 8, 9, above="map")

    assert t.way() == "a map[1]/x map[1]/y end"


def test_a_cleanup_comes_after_what_ended_last_in_the_body() -> None:
    t = Times()
    t.add("a", 1, 2)
    t.add("b", 2, 6, above="a")
    t.add("c", 2, 4, above="a")
    t.add("told", 6, 7, phase=Phase.HANDLERS)
    t.add("clean", 7, 9, phase=Phase.FINALLY)

    assert t.way() == "a b told clean"


def test_what_has_not_run_is_in_neither() -> None:
    t = Times()
    t.add("a", 5, 6)
    t.add("b", 1, 2)
    t.add("empty", 0, 7, above="a")

    assert t.way() == "a"
    assert [n.name for n in timeline(t.nodes)] == ["b", "a"]
    assert critical_path([]) == []


def test_what_slept_or_waited_is_in_both_and_what_only_joined_in_neither() -> None:
    def join(index: int, name: str, ready: int, ended: int, above: int) -> NodeInfo:
        state = State.SUCCESS if ended else State.SCHEDULED
        parents = ranges_of([above]) if above else ()
        return NodeInfo(
            index, name, "", Kind.JOIN, 0, state, ready_ms=ready, ended_ms=ended, parents=parents
        )

    t = Times()
    t.add("a", 1, 2)
    t.nodes += [join(2, "sleep", 2, 60, 1), join(3, "join", 60, 60, 2), join(4, "go", 70, 0, 0)]
    t.add("b", 61, 62, above="join")

    assert t.way() == "a sleep b"
    assert [n.name for n in timeline(t.nodes)] == ["a", "sleep", "b", "go"]
