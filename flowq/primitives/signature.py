# SPDX-License-Identifier: MIT
"""A task with bound arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flowq.binding import check_call, misfit
from flowq.building import TRACE
from flowq.calls import build_message
from flowq.graph import check_app
from flowq.node import Body
from flowq.plan import Kind
from flowq.primitives.base import Composition
from flowq.primitives.build import Builder, Fragment, has_parts
from flowq.primitives.follow import OF_NODES
from flowq.wiring import Submitter, TaskSpec

if TYPE_CHECKING:
    from flowq.primitives.map import Map
    from flowq.result import Result

__all__ = ["Signature", "short_name"]

R = TypeVar("R", covariant=True)


def short_name(spec: TaskSpec) -> str:
    """The last part of a task's name, of which nodes' names are made."""
    return spec.name.rpartition(".")[2]


class Signature(Composition[R]):
    """A task with bound arguments: what ``task.s(1, 2)`` gives.

    Arguments may be signatures, chains, groups and other steps, also within lists, tuples and
    dicts: each is an edge, and mentioning one twice refers to one node.

    Parameters
    ----------
    spec : TaskSpec
    args : iterable
    kwargs : mapping
    options : mapping
        Checked options of the node.

    Raises
    ------
    BindingError
        An argument is unexpected or bound twice; a missing one may come over an edge.
    """

    __slots__ = ("_args", "_kwargs", "_spec")

    _place = "node"
    _single = True

    def __init__(
        self,
        spec: TaskSpec,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._after = ()
        self._options = dict(options) if options else {}
        self._spec = spec
        self._args = tuple(args)
        self._kwargs = dict(kwargs) if kwargs else {}
        check_call(spec, self._args, self._kwargs, more=True)
        self._made()

    @property
    def task(self) -> str:
        """Registered name of its task."""
        return self._spec.name

    @property
    def args(self) -> tuple[Any, ...]:
        """Its bound positional arguments."""
        return self._args

    @property
    def kwargs(self) -> dict[str, Any]:
        """Its bound keyword arguments."""
        return dict(self._kwargs)

    def __repr__(self) -> str:
        given = [*map(_brief, self._args), *(f"{k}={_brief(v)}" for k, v in self._kwargs.items())]
        return f"{short_name(self._spec)}.s({', '.join(given)})"

    if TYPE_CHECKING:

        def map(self, /, *lists: Any, **kwargs: Any) -> Map[R]:
            """One call for each element."""

        def starmap(self, rows: Any, /, **kwargs: Any) -> Map[R]:
            """One call for each tuple of arguments."""

    def put(self, build: Builder, body: Body) -> Fragment:
        """Add one node."""
        node = build.node(
            Kind.TASK,
            body,
            short_name(self._spec),
            spec=self._spec,
            args=self._args,
            kwargs=self._kwargs,
            options=self._options,
        )
        node.order.extend(self._after)
        return Fragment([node], [node], node)

    def start(self, app: Submitter | None = None) -> Result[R]:
        """Enqueue it; gives its ``Result``, or where other steps come first, its ``Run``."""
        return cast("Result[R]", self._start(app))

    def _base(self) -> str:
        return short_name(self._spec)

    def _scope(self, name: str) -> str:
        return self._spec.name

    def _bare(self) -> Signature[R]:
        return self  # its options are the node's

    def _graph(self) -> Any:
        return Builder().build(self, self._base(), {})

    def _called(self) -> tuple[TaskSpec, tuple[Any, ...], Mapping[str, Any]]:
        """What is called, and with what."""
        return self._spec, self._args, self._kwargs

    def _start(self, app: Submitter | None = None) -> Any:
        trace = TRACE.get()
        if trace is not None:
            trace.refuse(f"{self!r}.start()")
        alone = OF_NODES.isdisjoint(self._options) and not self._after
        if not alone or has_parts((*self._args, *self._kwargs.values())):
            return super()._start(app)
        # a graph of one node takes the short path
        check_app(app, self._spec.submitter, repr(self))
        message = build_message(self._spec, self._args, self._kwargs, self._options)
        detached = self._options.get("detached", False)
        return self._spec.submitter.start_message(
            message, self._spec, self._args, self._kwargs, detached=detached
        )

    def _takes(self, name: str, who: str) -> None:
        """Check that a value may still come to a parameter."""
        check_call(self._spec, self._args, (*self._kwargs, name), more=True, who=who)
        if name in self._kwargs:
            raise misfit(who, self._spec, f"parameter {name!r} is bound twice, by value and edge")

    def _with(
        self, *, kwargs: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None
    ) -> Signature[R]:
        """A copy with more bound, or with checked options added."""
        made = self._copy()
        if kwargs:
            made._kwargs = {**self._kwargs, **kwargs}
            check_call(made._spec, made._args, made._kwargs, more=True)
        if options:
            made._options = {**self._options, **options}
        return made


def _brief(value: Any) -> str:
    if isinstance(value, Composition):
        return (
            f"{type(value).__name__.lower()}"
            if not isinstance(value, Signature)
            else (f"{short_name(value._spec)}.s(...)")
        )
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
