# SPDX-License-Identifier: MIT
"""What a function becomes, and what may be said of it."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowq import (
    BindingError,
    ConfigError,
    CurrentTask,
    FlowQ,
    GraphError,
    PayloadError,
    PayloadTooLarge,
    TaskDefinitionError,
)
from tests.unit.hand import Hand


@pytest.fixture
def q() -> FlowQ:
    return FlowQ("tasks", "memory://", retries=1)


def plain(a: int, b: int = 2) -> int:
    """Add."""
    return a + b


MODULE = __name__


# --- names


def test_a_task_is_named_by_module_and_function(q: FlowQ) -> None:
    def inner() -> None: ...

    assert q.task(plain).name == f"{MODULE}.plain"
    assert q.task(inner).name == f"{MODULE}.test_a_task_is_named_by_module_and_function.inner"


def test_a_name_of_its_own_is_taken_as_it_is(q: FlowQ) -> None:
    assert q.task(name="shop.add")(plain).name == "shop.add"
    assert q.tasks["shop.add"].func is plain


def test_what_has_no_name_needs_one(q: FlowQ) -> None:
    for func in (lambda x: x, functools.partial(plain, 1)):
        with pytest.raises(TaskDefinitionError, match="name="):
            q.task(func)
        assert q.task(name=f"n{id(func)}")(func).name.startswith("n")


def test_a_name_that_cannot_be_a_key_is_refused(q: FlowQ) -> None:
    def grüße() -> None: ...

    with pytest.raises(TaskDefinitionError, match="name="):
        q.task(grüße)
    with pytest.raises(ConfigError, match="name='a b'"):
        q.task(name="a b")(plain)


def test_a_name_is_given_once(q: FlowQ) -> None:
    q.task(plain)

    with pytest.raises(TaskDefinitionError, match=r"already at .*test_task.py:\d+; say .*name="):
        q.task(plain)


@pytest.mark.parametrize(("how", "name"), [(["shop.py"], "shop"), (["-m", "shop"], "shop"),
                                           (["-c"], "__main__")])  # fmt: skip
def test_the_main_program_is_named_as_it_would_be_imported(
    tmp_path: Path, how: list[str], name: str
) -> None:
    code = (
        "from flowq import FlowQ\n"
        "q = FlowQ()\n"
        "for n in (1, 2):\n"
        "    @q.task\n"
        "    def add(a, b): return n\n"
        "print(add.name, len(q.tasks), q.tasks[add.name] is add)\n"
    )
    (tmp_path / "shop.py").write_text(code, encoding="utf-8")
    args = [*how, code] if how == ["-c"] else how

    out = subprocess.run(
        [sys.executable, *args], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert out.stdout.split() == [f"{name}.add", "1", "True"]


# --- what can be a task


def test_a_task_in_a_class_is_an_error_when_the_class_is_made(q: FlowQ) -> None:
    with pytest.raises((TaskDefinitionError, RuntimeError)) as told:

        class Shop:
            @q.task
            def buy(self) -> None: ...

    error = told.value if isinstance(told.value, TaskDefinitionError) else told.value.__cause__
    assert isinstance(error, TaskDefinitionError)
    assert "@staticmethod" in str(error)


def test_a_static_method_is_a_task(q: FlowQ) -> None:
    class Shop:
        @staticmethod
        @q.task
        def buy(n: int) -> int:
            return n

    assert Shop.buy.name.endswith("Shop.buy")
    assert Shop.buy(2).state == Shop().buy(3).state == "queued"


def test_what_yields_or_is_no_function_is_refused(q: FlowQ) -> None:
    def rows() -> Any:
        yield 1

    for bad, said in ((rows, "return a list"), (3, "takes a function"), (q.task(plain), "already")):
        with pytest.raises(TaskDefinitionError, match=said):
            q.task(bad)  # type: ignore[call-overload]


def test_context_asks_for_a_parameter_called_task(q: FlowQ) -> None:
    @q.task(context=True)
    def who(a: int, *, task: CurrentTask) -> str:
        return f"{a}{task.name}"

    assert list(who.parameters.parameters) == ["a"]
    assert who.call_local(1) == f"1{who.name}"
    assert who(1).state == "queued"
    with pytest.raises(TaskDefinitionError, match="keyword argument `task`"):
        q.task(context=True)(plain)


# --- options


def test_options_of_the_app_hold_unless_the_task_says_otherwise(q: FlowQ) -> None:
    assert q.task(name="a")(plain).policy.retries == 1
    assert q.task(name="b", retries=5)(plain).policy.retries == 5


def test_a_wrong_option_is_an_error_that_says_what_is_right(q: FlowQ) -> None:
    for options, said in (
        ({"retry": 3}, "write retries=3"),
        ({"retris": 3}, "mean 'retries'"),
        ({"retries": -1}, "between 0"),
        ({"priority": 1001}, "between -1000 and 1000"),
        ({"delay": -1}, "negative"),
        ({"trigger_rule": "all_done"}, r"say it in \.options"),
        ({"delay": 1, "eta": datetime.now()}, "not both"),
    ):
        with pytest.raises(ConfigError, match=said):
            q.task(**options)(plain)
    add = q.task(plain)
    for options, said in (
        ({"context": True}, r"say it in @q\.task"),
        ({"priority": 1001}, "between -1000 and 1000"),
        ({"delay": timedelta(seconds=-1)}, "negative"),
    ):
        with pytest.raises(GraphError, match=said):
            add.options(**options)


def test_options_speak_of_the_calls_that_follow(q: FlowQ) -> None:
    add = q.task(plain)
    urgent = add.options(priority=7).options(delay=60)

    assert (urgent(1).task.priority, urgent(1).state) == (7, "scheduled")
    assert (add(1).task.priority, add(1).state) == (0, "queued")
    assert urgent.options(eta=datetime(2099, 1, 1))(1).task.eta.year in (2098, 2099)
    assert (urgent.name, dict(urgent.options)) == (add.name, dict(add.options))


def test_an_option_of_a_node_means_nothing_to_a_call(q: FlowQ) -> None:
    add = q.task(plain)

    for option in ({"trigger_rule": "all_done"}, {"name": "first"}):
        said = add.options(delay=1).options(**option)
        with pytest.raises(
            GraphError, match=r"\(\.\.\.\): option '.*' does not go here; say it in"
        ):
            said(1, 2)
        assert said.s(1).start().id
        assert len(said.map([1])) == 1


def test_options_of_maps_are_for_maps(q: FlowQ) -> None:
    add = q.task(plain).options(unpack=False)

    with pytest.raises(GraphError, match=r"unpack.*\.map"):
        add(1)
    with pytest.raises(GraphError, match=r"unpack.*\.map"):
        add.s(1)
    assert add.map([(1, 2)])[0].task.name == add.name


# --- calls


def test_every_argument_is_the_tasks_own(q: FlowQ) -> None:
    @q.task
    def odd(self: int, options: int, args: int = 0, delay: int = 0, func: int = 0) -> int:
        return self

    hand = Hand(q)
    r = odd(1, options=2, delay=3)
    rg = odd.map([1], options=2, args=3, delay=4, func=5)
    hand.work()

    assert (r.get(), rg.get()) == (1, [1])
    assert r.task.kwargs == {"options": 2, "delay": 3}


def test_arguments_that_do_not_fit_are_an_error_of_the_call(q: FlowQ) -> None:
    add = q.task(plain)

    for args, kwargs, said in (
        ((), {}, "a"),
        ((1, 2, 3), {}, "plain"),
        ((1,), {"c": 3}, "c"),
        ((1,), {"a": 3}, "a"),
    ):
        with pytest.raises(BindingError, match=said):
            add(*args, **kwargs)
    assert q.store.status().queues == [] or q.store.status().queues[0].ready == 0


def test_what_cannot_travel_is_an_error_of_the_call(q: FlowQ) -> None:
    import threading

    add = q.task(plain)

    with pytest.raises(PayloadError, match=r"plain.*cannot be pickled"):
        add(threading.Lock())
    with pytest.raises(PayloadTooLarge, match=r"16,777,216"):
        add(b"x" * 17_000_000)


def test_the_plain_function_stays_callable(q: FlowQ) -> None:
    add = q.task(plain)

    @q.task
    async def later(a: int) -> int:
        return a

    assert add.call_local(1, 2) == add.func(1, 2) == 3
    assert later.is_async and later.call_local(4) == 4
    assert add.__doc__ == "Add." and add.__wrapped__ is plain


def test_schedule_is_spelled_as_in_huey(q: FlowQ) -> None:
    add = q.task(plain)

    r = add.schedule((1,), {"b": 5}, delay=timedelta(minutes=1))

    assert (r.state, r.task.args, r.task.kwargs) == ("scheduled", (1,), {"b": 5})
    assert add.schedule(args=(1, 2)).state == "queued"
    with pytest.raises(GraphError, match="not both"):
        add.schedule((1,), delay=1, eta=datetime.now())
    with pytest.raises(BindingError, match=r"args=\(3,\)"):
        add.schedule(3)  # type: ignore[arg-type]


def test_map_unpacks_where_the_task_takes_several(q: FlowQ) -> None:
    @q.task
    def one(pair: tuple[int, int]) -> int:
        return pair[0]

    add = q.task(plain)
    hand = Hand(q)

    groups = [
        add.map([(1, 2), (3, 4)]),
        add.map([1, 3], [2, 4]),
        add.map([1, 3], b=5),
        add.starmap([[1, 2], (3,)]),
        one.map([(1, 2), (3, 4)]),
    ]
    hand.work()

    assert [rg.get() for rg in groups] == [[3, 7], [3, 7], [6, 8], [3, 5], [1, 3]]


APP = FlowQ("travels", "memory://")
TRAVELS = APP.task(name="travels")(plain)


def test_apps_and_tasks_travel_by_name(q: FlowQ) -> None:
    assert pickle.loads(pickle.dumps([APP, TRAVELS])) == [APP, TRAVELS]
    with pytest.raises(TypeError, match="no module holds it"):
        pickle.dumps(q)


def test_words_of_other_libraries_are_answered_with_ours(q: FlowQ) -> None:
    add = q.task(plain)

    for word, ours in (("delay", "enqueues"), ("apply_async", r"\.options"), ("si", ">>"),
                       ("skew", "delay"), ("optoins", "did you mean .options")):  # fmt: skip
        with pytest.raises(AttributeError, match=ours):
            getattr(add, word)
    with pytest.raises(AttributeError, match="call the task"):
        _ = q.enqueue
