# SPDX-License-Identifier: MIT
"""A graph built step by step, with named nodes: for shapes that come from data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flowq.errors import BindingError, GraphError
from flowq.habits import helpful
from flowq.limits import Limits
from flowq.node import Body
from flowq.once import OF_STARTS
from flowq.policy import OPTIONS, check_options, nearest
from flowq.primitives.base import Composition, Reference, as_part, mentions
from flowq.primitives.build import Builder, Fragment, Part, Placing
from flowq.primitives.contents import Contents, Entry
from flowq.primitives.signature import Signature
from flowq.wiring import Submitter

if TYPE_CHECKING:
    from flowq.run import Run

__all__ = ["DAG", "DagNode"]

R = TypeVar("R", covariant=True)


class DagNode(Reference):
    """A node of a DAG, by name: what ``dag.add(...)`` and ``dag["name"]`` give.

    As an argument it is an edge. ``a >> b`` and ``a | b`` between two nodes of one DAG add an edge
    to it; beside a signature they make a chain that begins with the node's value.
    """

    __slots__ = ("_dag", "_name")

    def __init__(self, dag: DAG, name: str) -> None:
        self._dag = dag
        self._name = name

    def __repr__(self) -> str:
        return f"dag[{self._name!r}]"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DagNode):
            return self._dag is other._dag and self._name == other._name
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash((id(self._dag), self._name))

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def after(self, *others: Any) -> DagNode:
        """Let it begin only when others (nodes, names, signatures) have ended; gives itself."""
        self._dag._entry(self._name).after.extend(self._dag._mention(o) for o in others)
        return self

    def options(self, **options: Any) -> DagNode:
        """Set options of the node; gives itself."""
        entry = self._dag._entries.get(self._name)
        if entry is None:
            raise GraphError(f"{self!r} is not added yet; its options are said when it is")
        entry.part = entry.part.options(**options)
        return self

    def on_error(self, *alarms: Any) -> DagNode:
        """Let signatures run at once when it has failed, given the `Failure`; gives itself."""
        return self.options(on_error=alarms[0] if len(alarms) == 1 else alarms)

    def __rshift__(self, other: Any) -> Any:
        ours = self._dag._ours(other)
        if ours is None:
            return super().__rshift__(other)
        for node in ours:
            self._dag.edge(self, node)
        return other

    def __rrshift__(self, other: Any) -> Any:
        given = other if isinstance(other, list | tuple) else [other]
        if not given or not all(isinstance(x, Reference) for x in given):
            return super().__rrshift__(other)
        for source in given:
            self._dag.edge(source, self)
        return self

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, DagNode):
            return super().__or__(other)
        self._dag._mention(other)
        self._dag._entry(other._name).pipes.append(self)
        return other

    def __ror__(self, other: Any) -> Any:
        ours = self._dag._ours(other)
        if ours is None:
            return super().__ror__(other)
        self._dag._entry(self._name).pipes.append(list(ours))
        return self

    def refer(self, build: Builder, body: Body) -> Fragment:
        """The node of that name in the DAG around."""
        at: Body | None = body
        while at is not None and at.scope is not self._dag:
            at = at.around
        if at is None:
            raise GraphError(
                f"{self!r} is a node of {self._dag!r} and is mentioned outside of it; give the "
                "DAG itself, whose value is what it returns"
            )
        found = at.names.get(self._name)
        if found is None:
            raise self._dag._unknown(self._name)
        return Fragment([], [found], found)


class DAG(Composition[Any]):
    """A graph with named nodes.

    Its value is that of its only end, else a dict of the ends' values by name; `returns` says
    otherwise. Within another composition it is one node.

    Parameters
    ----------
    name : str
        Of the run.

    Examples
    --------
    Given tasks `extract`, `clean` and `report`::

        dag = DAG("etl")
        dag.add(extract.s(day), name="extract")
        dag.add(clean.s(dag["extract"]), name="clean")
        dag.add(report.s(day=day), name="report", after=["clean"])
        dag.edge("clean", "report", to="rows")
        run = dag.start()
    """

    __slots__ = ("_early", "_entries", "_last", "_name", "_returns")

    has_members = True
    names_calls = False
    """Whether it names its nodes itself, after what is called."""
    _kind = "DAG"
    _wheres: Mapping[int, str] = {}
    _single = True

    def __init__(self, name: str = "dag") -> None:
        super().__init__()
        self._name: str = check_options({"name": name}, "flow", "DAG")["name"]
        self._entries: dict[str, Entry] = {}
        self._early: dict[str, Entry] = {}
        self._last: dict[str, int] = {}
        self._returns: Any = None

    def __repr__(self) -> str:
        return f"<DAG {self._name!r}>"

    def options(self, **options: Any) -> DAG:
        """Set options of the run; gives the DAG itself."""
        self._options.update(check_options(options, "flow", repr(self)))
        return self

    def after(self, *others: Any) -> DAG:
        """Let it, as a part of another composition, begin after others; gives itself."""
        self._after = (*self._after, *mentions(others))
        return self

    @helpful
    def add(
        self,
        step: Any,
        *,
        name: str | None = None,
        after: Any = (),
        trigger_rule: str | None = None,
    ) -> DagNode:
        """Add a node.

        Parameters
        ----------
        step : Signature or Composition
            A chain, group, map or DAG is one node, with its steps inside it.
        name : str, optional
            What the step's own options say, else its task's name with a number if need be.
        after : node, name, or iterable of them
            What it comes after without data; names may be added later.
        trigger_rule : str, optional

        Raises
        ------
        GraphError
            The name is taken, or `step` is no step.
        """
        part: Any = as_part(step)
        if isinstance(part, Reference):
            raise GraphError(f"{part!r} is in the graph already; add a signature, chain or group")
        if name is None:
            name = part._options.get("name") if part._single else None
        if name is None:
            name = self._free_name(part._base())
        name = check_options({"name": name}, "flow", f"{self!r}: node")["name"]
        if name in self._entries:
            raise GraphError(f"{self!r}: two nodes are named {name!r}; a name is for one node")
        if trigger_rule is not None:
            if part._place not in OPTIONS["trigger_rule"].places:
                raise GraphError(
                    f"{self!r}: node {name!r}: trigger_rule= is for tasks, maps and branches; put "
                    "it on a step inside"
                )
        made = part if trigger_rule is None else part.options(trigger_rule=trigger_rule)
        for to in self._early[name].to if name in self._early else ():
            if isinstance(part, Signature):
                part._takes(to, f"{self!r}: node {name!r}")
        entry = self._early.pop(name, None) or Entry(made, part)
        entry.part, entry.original = made, part
        self._entries[name] = entry
        node = self._node(name)
        given = [after] if isinstance(after, str | Part) else list(after)
        node.after(*given)
        return node

    @helpful
    def edge(self, source: Any, target: Any, to: str | None = None) -> None:
        """Add an edge.

        Parameters
        ----------
        source, target : node or name
            Names may be added later. `source` may be an item, ``dag["split"]["train"]``.
        to : str, optional
            The parameter of `target` that gets the value; order alone without it.

        Raises
        ------
        GraphError
            There is no such parameter, or it is bound already.
        """
        origin = self._mention(source)
        goal = self._mention(target)
        if not isinstance(goal, DagNode):
            raise GraphError(f"{self!r}: an edge leads to a node or a name, not to {target!r}")
        entry = self._entry(goal._name)
        if to is None:
            entry.after.append(origin)
        elif to in entry.to:
            raise BindingError(
                f"{self!r}: node {goal._name!r}: parameter {to!r} is bound twice, by two edges"
            )
        else:
            if isinstance(entry.part, Signature):
                entry.part._takes(to, f"{self!r}: node {goal._name!r}")
            entry.to[to] = origin

    def returns(self, value: Any) -> DAG:
        """Say what its value is: a node, a name, or a list, tuple or dict of them; gives itself."""
        self._returns = self._structure(value)
        return self

    def __getitem__(self, name: Any) -> Any:
        if not isinstance(name, str):
            raise GraphError(f"{self!r}: nodes have names; {name!r} is none")
        return self._node(name)

    def __len__(self) -> int:  # type: ignore[override]
        return len(self._entries)

    def __bool__(self) -> bool:  # type: ignore[override]
        return True

    def __contains__(self, name: object) -> bool:  # type: ignore[override]
        return name in self._entries

    # --- mentions --------------------------------------------------------------------------------

    def _unknown(self, name: str) -> GraphError:
        known = list(self._entries)
        hint = nearest(name, known)
        if not hint and known:
            more = f" and {len(known) - 8} more" if len(known) > 8 else ""
            hint = f"; there are {', '.join(map(repr, known[:8]))}{more}"
        return GraphError(f"{self!r} has no node {name!r}{hint}")

    def _free_name(self, base: str) -> str:
        k = self._last.get(base, 0) + 1
        name = base if k == 1 else f"{base}-{k}"
        while name in self._entries:
            k += 1
            name = f"{base}-{k}"
        self._last[base] = k
        return name

    def _entry(self, name: str) -> Entry:
        """What stands under a name, or will."""
        found = self._entries.get(name) or self._early.get(name)
        if found is None:
            found = self._early[name] = Entry(None, self)
        return found

    def _node(self, name: str) -> DagNode:
        return DagNode(self, name)

    def _mention(self, what: Any) -> Part:
        if isinstance(what, str):
            return self._node(what)
        if isinstance(what, DagNode) and what._dag is not self:
            raise GraphError(f"{what!r} is a node of {what._dag!r}, not of {self!r}")
        return as_part(what)

    def _ours(self, other: Any) -> list[DagNode] | None:
        """Nodes of this DAG, if that is what `other` is, alone or as a list."""
        given = other if isinstance(other, list | tuple) else [other]
        if given and all(isinstance(x, DagNode) for x in given):
            for x in given:
                self._mention(x)
            return list(given)
        return None

    def _structure(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)([self._structure(x) for x in value])
        if isinstance(value, dict):
            return {k: self._structure(v) for k, v in value.items()}
        return self._mention(value)

    # --- the graph -------------------------------------------------------------------------------

    def start(self, app: Submitter | None = None) -> Run[Any]:
        """Enqueue it; gives its ``Run``. See `Composition.start`."""
        return cast("Run[Any]", self._start(app))

    def _base(self) -> str:
        return self._name

    def _bare(self) -> Part:
        return Contents(self)

    def _shared(self) -> Limits:
        """The limits that bind it wherever it runs."""
        return ()

    def _bare_of_starts(self) -> DAG:
        return self  # its nodes know it; the options are the root's

    def put(self, build: Builder, body: Body) -> Placing:
        """Add it as one node, with its nodes inside."""
        for name in ("result_ttl", "failed_ttl", *OF_STARTS):
            if name in self._options:
                raise GraphError(f"{self!r}: {name}= speaks of a run; here it is part of another")
        node, inner = build.expansion(body, self._name, self._options)
        node.shared = self._shared()
        node.order.extend(self._after)
        contents = Contents(self)
        build.keep.append(contents)
        made = yield contents, inner
        inner.value = made.value
        return Fragment([node], [node], node)
