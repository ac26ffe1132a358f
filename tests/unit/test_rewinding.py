# SPDX-License-Identifier: MIT
"""What retry and rerun choose, on graphs whose ends are given."""

from __future__ import annotations

import pytest

from flowq.errors import GraphError
from flowq.plan import Bits, Kind, Phase, Ranges, indexes, ranges_of
from flowq.rewinding import choose, to_retry
from flowq.states import State
from flowq.storage.base import NodeInfo

S = State


class Graph:
    """Nodes by name, as a store lists them."""

    def __init__(self) -> None:
        self.nodes = [NodeInfo(0, "root", "", Kind.EXPANSION, 0xFFFFFFFF, S.FAILED)]

    def add(
        self,
        name: str,
        state: State = S.SUCCESS,
        *,
        parents: str = "",
        inside: str = "root",
        kind: Kind = Kind.TASK,
        bits: int = 0,
        phase: Phase = Phase.BODY,
        grown: bool = False,
        began: bool = True,
    ) -> None:
        """Add a node below others."""
        self.nodes.append(
            NodeInfo(
                len(self.nodes),
                name,
                "t",
                Kind.EXPANSION if grown else kind,
                self.at(inside),
                state,
                ready_ms=int(began),
                parents=ranges_of(map(self.at, parents.split())),
                bits=bits,
                phase=phase,
                grown=grown,
            )
        )

    def at(self, name: str) -> int:
        """Index of a node."""
        return next(n.index for n in self.nodes if n.name == name)

    def names(self, ranges: Ranges) -> str:
        """Names of nodes, ascending."""
        return " ".join(self.nodes[i].name for i in indexes(ranges))

    def rerun(self, *names: str) -> tuple[str, str, str]:
        """What is chosen, reopened and dropped."""
        found = choose(self.nodes, map(self.at, names))
        return self.names(found.chosen), self.names(found.reopened), self.names(found.dropped)

    def retry(self, *, forgiven: bool = False) -> str:
        """What a retry runs again."""
        return " ".join(sorted(self.nodes[i].name for i in to_retry(self.nodes, forgiven=forgiven)))


def test_all_that_depends_on_a_node_runs_again_with_it() -> None:
    g = Graph()
    g.add("a")
    g.add("b", parents="a")
    g.add("c", parents="a")
    g.add("d", parents="b c")

    assert g.rerun("b") == ("b d", "", "")
    assert g.rerun("a") == ("a b c d", "", "")
    assert g.rerun("root") == ("a b c d", "", "")


def test_what_is_around_is_reopened_and_what_depends_on_that_chosen() -> None:
    g = Graph()
    g.add("m", kind=Kind.EXPANSION)
    g.add("i0", inside="m", kind=Kind.EXPANSION)
    g.add("i0/x", inside="i0")
    g.add("i0/y", inside="i0", parents="i0/x")
    g.add("i1", inside="m", kind=Kind.EXPANSION)
    g.add("i1/x", inside="i1")
    g.add("next", parents="m")
    g.add("beside")

    assert g.rerun("i0/x") == ("i0/x i0/y next", "m i0", "")
    assert g.rerun("i0") == ("i0 i0/x i0/y next", "m", "")
    assert g.rerun("m") == ("m i0 i0/x i0/y i1 i1/x next", "", "")
    assert g.rerun("i0/y", "m") == ("m i0 i0/x i0/y i1 i1/x next", "", "")


def test_what_a_task_had_become_is_dropped_when_it_runs_again_itself() -> None:
    g = Graph()
    g.add("x", grown=True)
    g.add("x/i", inside="x", grown=True)
    g.add("x/i/j", inside="x/i")
    g.add("x/fallback", inside="x", phase=Phase.FALLBACK)
    g.add("next", parents="x")

    assert g.rerun("x") == ("x x/fallback next", "", "x/i x/i/j")
    assert g.rerun("x/i") == ("x/i x/fallback next", "x", "x/i/j")
    assert g.rerun("x/i/j") == ("x/i/j x/fallback next", "x x/i", "")


def test_handlers_are_made_anew_and_an_alarm_only_with_its_node() -> None:
    g = Graph()
    g.add("a")
    g.add("b")
    g.add("alarm", parents="a", phase=Phase.HANDLERS)
    g.add("bad", phase=Phase.HANDLERS)
    g.add("clean", phase=Phase.FINALLY)
    g.add("up", parents="clean", phase=Phase.FINALLY)

    assert g.rerun("b") == ("b bad clean up", "", "")
    assert g.rerun("a") == ("a alarm bad clean up", "", "")


def test_a_retry_takes_what_failed_and_what_could_not_run() -> None:
    g = Graph()
    g.add("a")
    g.add("b", S.FAILED)
    g.add("c", S.BLOCKED, parents="b")
    g.add("d", S.CANCELLED)
    g.add("e", S.SKIPPED)
    g.add("f", S.FAILED, bits=Bits.FORGIVEN)
    g.add("bad", S.FAILED, phase=Phase.HANDLERS)

    assert g.retry() == "b c d"
    assert g.retry(forgiven=True) == "b c d f"


def test_alarms_of_what_a_task_had_become_are_dropped_with_that_and_its_fallback_is_kept() -> None:
    g = Graph()
    g.add("n", S.SUCCESS, grown=True)
    g.add("n/in", inside="n")
    g.add("n/in/alarm", inside="n", parents="n/in", phase=Phase.HANDLERS)
    g.add("n/fallback", inside="n", phase=Phase.FALLBACK)

    assert g.rerun("n") == ("n n/fallback", "", "n/in n/in/alarm")


def test_what_never_began_is_chosen_with_what_stands_in_it() -> None:
    """Opened, it would run though its parents say that it must not."""
    g = Graph()
    g.add("no", S.SKIPPED)
    g.add("m", S.SKIPPED, parents="no", kind=Kind.EXPANSION, began=False)
    g.add("m[0]", S.SKIPPED, inside="m", kind=Kind.EXPANSION, began=False)
    g.add("in", S.SKIPPED, inside="m[0]", began=False)
    g.add("m[1]", S.SKIPPED, inside="m", began=False)
    g.add("end", S.SKIPPED, parents="m", began=False)

    assert g.rerun("in") == ("m m[0] in m[1] end", "", "")


def test_what_follows_an_end_runs_again_only_with_it() -> None:
    g = Graph()
    g.add("f", S.FAILED, kind=Kind.EXPANSION)
    g.add("a", S.FAILED, inside="f")
    g.add("f/fallback", S.SUCCESS, inside="f", phase=Phase.FALLBACK, grown=True)
    g.add("deep", inside="f/fallback")
    g.add("alarm", parents="f", phase=Phase.HANDLERS)

    for name in ("f/fallback", "deep", "alarm"):
        with pytest.raises(GraphError, match="again only with that"):
            g.rerun(name)
    assert g.rerun("f") == ("f a f/fallback alarm", "", "deep")


def test_a_retry_leaves_a_failure_that_counts_as_a_success() -> None:
    g = Graph()
    g.add("a", S.FAILED, bits=Bits.COUNTS_AS_SUCCESS)
    g.add("b", S.FAILED, parents="a")
    g.add("c", S.BLOCKED, bits=Bits.COUNTS_AS_SUCCESS, parents="b")

    assert g.retry() == "b c"
    assert g.retry(forgiven=True) == "a b c"


def test_a_retry_takes_what_was_forgiven_above_what_could_not_run() -> None:
    """Either was enough, and both failed: what needs one of them is blocked by forgiven ones."""
    g = Graph()
    g.add("a", S.FAILED, bits=Bits.FORGIVEN)
    g.add("m", S.FAILED, kind=Kind.EXPANSION, bits=Bits.FORGIVEN)
    g.add("in", S.FAILED, inside="m")
    g.add("b", S.BLOCKED, parents="a", bits=Bits.FORGIVEN)
    g.add("one", S.BLOCKED, parents="b m")
    g.add("apart", S.FAILED, bits=Bits.FORGIVEN)

    assert g.retry() == "a b in one"


def test_a_retry_of_what_was_forgiven_looks_into_what_succeeded() -> None:
    g = Graph()
    g.add("flow", kind=Kind.EXPANSION)
    g.add("m", inside="flow", grown=True)
    g.add("m[0]", inside="m")
    g.add("m[1]", S.FAILED, inside="m", bits=Bits.FORGIVEN)
    g.add("good", kind=Kind.EXPANSION)
    g.add("good/x", S.FAILED, inside="good")
    g.add("good/fallback", inside="good", phase=Phase.FALLBACK)
    g.add("grown", grown=True)
    g.add("grown/x", inside="grown")

    assert g.retry() == ""
    assert g.retry(forgiven=True) == "m[1]"


def test_a_retry_looks_into_expansions_and_keeps_items() -> None:
    g = Graph()
    g.add("m", S.FAILED, grown=True)
    g.add("m[0]", inside="m")
    g.add("m[1]", S.FAILED, inside="m")
    g.add("next", S.BLOCKED, parents="m")

    assert g.retry() == "m[1] next"


def test_an_expansion_is_chosen_itself_where_nothing_inside_it_is() -> None:
    g = Graph()
    g.add("x", S.BLOCKED, kind=Kind.EXPANSION)
    g.add("i", S.BLOCKED, inside="x")
    g.add("y", S.FAILED, grown=True)
    g.add("j", S.SKIPPED, inside="y")
    g.add("z", S.FAILED, grown=True)
    g.add("k", S.FAILED, inside="z")
    g.add("z/fallback", S.FAILED, inside="z", phase=Phase.FALLBACK)

    assert g.retry() == "i y z"


def test_a_race_that_runs_again_takes_along_what_it_had_stopped() -> None:
    g = Graph()
    g.add("a")
    g.add("x", S.SKIPPED, bits=Bits.OWNED)
    g.add("b", S.SKIPPED, parents="x", bits=Bits.OWNED)
    g.add("other", S.SKIPPED)
    g.add("first", parents="a b other")
    g.add("after", parents="first")

    assert g.rerun("a") == ("a x b first after", "", "")
    assert g.rerun("after") == ("after", "", "")


def test_a_map_that_needs_some_takes_along_what_it_had_stopped_when_it_is_opened() -> None:
    g = Graph()
    g.add("map", kind=Kind.EXPANSION)
    g.add("i", inside="map", bits=Bits.OWNED)
    g.add("j", S.SKIPPED, inside="map", bits=Bits.OWNED)
    g.add("k", S.FAILED, inside="map", bits=Bits.OWNED)
    g.add("alarm", inside="map", parents="k", phase=Phase.HANDLERS)
    g.add("after", parents="map")

    assert g.rerun("i") == ("i j after", "map", "")


def test_a_retry_takes_what_stopped_above_a_blocked_node_forgiven_or_not() -> None:
    g = Graph()
    g.add("a", S.FAILED, bits=Bits.FORGIVEN)
    g.add("m", S.FAILED, kind=Kind.EXPANSION, bits=Bits.FORGIVEN)
    g.add("i", S.FAILED, inside="m")
    g.add("j", inside="m")
    g.add("first", S.BLOCKED, parents="a m")
    g.add("after", S.BLOCKED, parents="first")
    g.add("beside", S.FAILED, bits=Bits.FORGIVEN)

    assert g.retry() == "a after first i"


def test_a_long_line_of_blocked_nodes_is_looked_at_once() -> None:
    g = Graph()
    nodes = [NodeInfo(1, "n0", "t", Kind.TASK, 0, S.FAILED)]
    nodes += [
        NodeInfo(i + 1, f"n{i}", "t", Kind.TASK, 0, S.BLOCKED, parents=((i, 1),))
        for i in range(1, 30_000)
    ]

    assert len(to_retry([*g.nodes, *nodes])) == 30_000


def test_what_runs_again_inside_something_atomic_does_so_with_all_of_it() -> None:
    g = Graph()
    g.add("before")
    g.add("m", S.FAILED, kind=Kind.EXPANSION, bits=Bits.ATOMIC)
    g.add("a", inside="m")
    g.add("n", S.FAILED, inside="m", kind=Kind.EXPANSION)
    g.add("b", S.FAILED, inside="n")
    g.add("c", inside="n")
    g.add("clean", inside="m", phase=Phase.FINALLY)
    g.add("after", S.BLOCKED, parents="m")

    assert g.rerun("b") == ("m a n b c clean after", "", "")


def test_a_run_that_is_atomic_runs_again_as_a_whole() -> None:
    g = Graph()
    g.nodes[0] = NodeInfo(
        0, "root", "", Kind.EXPANSION, 0xFFFFFFFF, S.FAILED, bits=Bits.ATOMIC, ready_ms=1
    )
    g.add("a")
    g.add("b", S.FAILED)
    g.add("clean", phase=Phase.FINALLY)

    assert g.rerun("b") == ("a b clean", "", "")
