# SPDX-License-Identifier: MIT
"""graph.test(): a graph runs here and now, with stand-ins, and the run is as from a real one."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from flowq import (
    DAG,
    FlowQ,
    Result,
    ResultGroup,
    Retry,
    Run,
    Skip,
    TaskError,
    branch,
    chain,
    first,
    group,
    sleep,
    wait_for,
)
from flowq.current import current_task
from flowq.errors import (
    BlockingInTask,
    GraphError,
    GroupError,
    NotProduced,
    RunCancelled,
    WaitTimeout,
)
from flowq.testing import ManualClock

q = FlowQ("kit", "redis://127.0.0.1:1/0")  # nobody is there, and nobody is asked
ran: list[str] = []


@q.task(name="extract")
def extract(day: str) -> Any:
    ran.append("extract")
    return [f"{day}-{k}" for k in range(3)]


@q.task(name="clean", retries=2, retry_delay=3600)
def clean(part: Any, suffix: str = "!") -> Any:
    ran.append("clean")
    return f"{part}{suffix}"


@q.task(name="report")
def report(rows: Any, day: str = "") -> Any:
    return {"rows": rows, "day": day}


@q.task(name="crawl")
def crawl(depth: int) -> Any:
    return crawl.s(depth - 1) if depth else "bottom"


@q.task(name="who", context=True)
def who(x: int, *, task: Any) -> Any:
    return f"{task.node}:{x}"


@q.task(name="fetch")
async def fetch(x: int) -> Any:
    return x + 1


@q.flow(name="nightly")
def nightly(day: str) -> Any:
    return report(clean.map(extract(day)), day=day)


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()


def states(run: Any) -> dict[str, str]:
    return {node.name: node.state for node in run.nodes()}


# --- what it gives


def test_a_graph_runs_to_its_end_without_a_worker_and_its_own_store_is_never_asked() -> None:
    graph = nightly.build(day="d")

    run = graph.test()

    assert isinstance(run, Run)
    assert run.state == "success"
    assert run.get() == {"rows": ["d-0!", "d-1!", "d-2!"], "day": "d"}
    assert states(run) == dict.fromkeys(
        ["extract", "clean", "report", "clean[0]", "clean[1]", "clean[2]"], "success"
    )
    assert run.result("clean[1]").get() == "d-1!"
    assert run.progress().done == run.progress().known
    assert "success" in run.why()


def a_dag() -> Any:
    dag = DAG("numbers")
    dag.add(fetch.s(1), name="one")
    dag.add(fetch.s(), name="two")
    dag.edge("one", "two", to="x")
    return dag


@pytest.mark.parametrize(
    ("graph", "kind", "value"),
    [
        (fetch.s(1), Run, 2),
        (chain(fetch.s(1), fetch.s()), Run, 3),
        (fetch.s(1) | fetch.s(), Run, 3),
        (group(fetch.s(1), fetch.s(2)), ResultGroup, [2, 3]),
        (fetch.s().map([1, 2, 3]), ResultGroup, [2, 3, 4]),
        ((fetch.s() | fetch.s()).map([1, 2]), ResultGroup, [3, 4]),
        (group([fetch.s(1), fetch.s(2)]) | report.s(), Run, {"rows": [2, 3], "day": ""}),
        (a_dag(), Run, 3),
        (nightly.s("d"), Run, {"rows": ["d-0!", "d-1!", "d-2!"], "day": "d"}),
        (nightly.s().map(["d"]), ResultGroup, [{"rows": ["d-0!", "d-1!", "d-2!"], "day": "d"}]),
        (crawl.s(3), Run, "bottom"),
    ],
    ids=["signature", "chain", "pipe", "group", "map", "map-of-chains", "chord", "dag", "flow",
         "map-of-flows", "returned"],
)  # fmt: skip
def test_every_composition_can_be_tested(graph: Any, kind: type, value: Any) -> None:
    run = graph.test()

    assert run.get() == value
    assert set(states(run).values()) == {"success"}
    assert type(run) is kind


def test_the_members_of_a_map_are_there_as_from_a_real_one() -> None:
    run: Any = clean.s().map(["a", "b"]).test(fail={"clean[1]": ValueError("bad")})

    assert len(run) == 2
    assert isinstance(run[0], Result)
    assert run[0].get() == "a!"
    assert [f.node for f in run.failures()] == ["clean[1]"]
    with pytest.raises(GroupError) as caught:
        run.get()
    assert [getattr(f, "message", None) for f in caught.value.failures] == ["ValueError('bad')"]


def test_an_empty_group_runs_where_the_app_is_told() -> None:
    empty: Any = group([])

    run = empty.test(app=q)

    assert run.get() == []


def test_a_run_can_be_read_when_its_time_to_live_is_long_over() -> None:
    graph = (clean.s("a") | clean.s()).options(result_ttl=0.001)

    run = graph.test()
    time.sleep(0.01)

    assert run.get() == "a!!"
    assert len(list(run.nodes())) == 2


def test_the_store_of_a_test_goes_with_its_last_handle() -> None:
    run: Any = chain(fetch.s(1), fetch.s()).test()
    node = run.result("fetch")
    store = weakref.ref(run._app.store)

    del run
    gc.collect()
    assert node.get() == 2
    del node
    gc.collect()

    assert store() is None


# --- values


def test_a_value_stands_for_a_body_which_does_not_run() -> None:
    run = nightly.build(day="d").test(values={"extract": ["x"]})

    assert run.get() == {"rows": ["x!"], "day": "d"}
    assert ran == ["clean"]


def test_a_function_is_called_with_the_arguments_of_the_node() -> None:
    graph = clean.s("a", suffix="?") | report.s(day="d")

    run = graph.test(
        values={
            "clean": lambda part, suffix: [part, suffix],
            "report": lambda rows, day: (rows, day),
        }
    )

    assert run.get() == (["a", "?"], "d")


def test_a_function_may_be_async_a_task_or_of_a_task_with_a_context() -> None:
    async def later(x: int) -> int:
        return x * 100

    graph = group(fetch.s(1), who.s(2), who.s(3), report.s(4))

    run: Any = graph.test(
        values={"fetch": later, "who": lambda x: current_task().node, "report": fetch}
    )

    assert run.get() == [100, "who", "who-2:3", 5]


def test_the_name_of_a_map_speaks_of_each_item_and_an_item_for_itself() -> None:
    graph = nightly.build(day="d")

    plain: Any = graph.test(values={"clean": 7})
    mixed: Any = graph.test(values={"clean": lambda part: part[-1], "clean[1]": "one"})

    assert plain.get()["rows"] == [7, 7, 7]
    assert mixed.get()["rows"] == ["0", "one", "2"]
    assert "clean" not in ran


def test_a_path_without_indexes_speaks_of_what_is_in_each_item() -> None:
    graph: Any = (clean.s() | report.s()).map(["a", "b"])

    run = graph.test(values={"clean/clean": "same", "clean[1]/report": "last"})

    assert run.get() == [{"rows": "same", "day": ""}, "last"]


def test_nodes_of_a_returned_graph_are_named_by_what_returned_them() -> None:
    run = crawl.s(5).test(values={"crawl/crawl": "stopped"})

    assert run.get() == "stopped"
    assert list(states(run)) == ["crawl", "crawl/crawl"]


def test_a_value_may_be_a_graph_which_the_node_becomes() -> None:
    run = crawl.s(5).test(values={"crawl": fetch.s(1)})

    assert run.get() == 2
    assert states(run)["crawl/fetch"] == "success"


def test_a_value_that_cannot_travel_fails_as_it_would_for_real() -> None:
    run = nightly.build(day="d").test(values={"extract": (k for k in range(3))})

    assert run.state == "failed"
    with pytest.raises(TaskError, match="cannot be pickled"):
        run.get()


def test_a_value_is_copied_on_its_way_as_it_would_be_for_real() -> None:
    given = ["x"]

    def spoil(rows: list[str], day: str) -> list[str]:
        rows.append("spoilt")
        return rows

    run = nightly.build(day="d").test(values={"extract": given, "clean": 1, "report": spoil})

    assert run.get() == [1, "spoilt"]
    assert given == ["x"]


@q.flow(name="tidy")
def tidy(part: Any) -> Any:
    return clean(clean(part), "?")


@q.flow(name="outer")
def outer(day: str) -> Any:
    parts = extract(day)
    return report([tidy(parts[0]), parts[1], tidy.map(parts), fetch(1)], day=tidy(day))


def test_a_value_stands_for_a_flow_in_a_flow_and_nothing_in_it_is_there() -> None:
    run: Any = outer.build("d").test(values={"tidy": "whole", "fetch": lambda x: x})

    rows = run.get()["rows"]
    assert rows == ["whole", "d-1", ["d-0!?", "d-1!?", "d-2!?"], 1]
    assert run.get()["day"] == "d!?"
    assert "tidy/clean" not in states(run)
    assert run._app.store.check(run._id) == []
    assert states(run)["tidy-3/clean"] == "success"


def test_a_value_stands_for_the_flows_of_a_map_or_for_one_of_them() -> None:
    run: Any = outer.build("d").test(values={"tidy-2": lambda: "each", "tidy-2[1]": "one"})

    assert run.get()["rows"][2] == ["each", "one", "each"]
    assert [name for name in states(run) if name.startswith("tidy-2[")] == [
        "tidy-2[0]",
        "tidy-2[1]",
        "tidy-2[2]",
    ]


def test_a_value_stands_for_a_chain_in_a_map_and_for_a_group_in_a_group() -> None:
    chains: Any = (clean.s() | report.s()).map(["a", "b", "c"])
    groups: Any = group(group([fetch.s(1), fetch.s(2)]).options(name="pair"), fetch.s(3))

    some = chains.test(values={"clean[1]": "whole", "clean[2]/clean": "part"})
    pair = groups.test(values={"pair": [0, 0]})

    assert some.get() == [{"rows": "a!", "day": ""}, "whole", {"rows": "part", "day": ""}]
    assert pair.get() == [[0, 0], 4]


def test_a_flow_in_a_flow_fails_as_a_whole() -> None:
    graph = outer.build("d")

    failed: Any = graph.test(fail={"tidy": ValueError("closed")})
    for_real: Any = graph.test(fail={"tidy": [None, ValueError()]})

    assert (states(failed)["tidy"], states(failed)["report"]) == ("failed", "blocked")
    with pytest.raises(TaskError, match="closed"):
        failed.get()
    assert for_real.get()["rows"][0] == "d-0!?"


def test_what_stands_for_a_flow_does_so_again_when_the_run_is_retried() -> None:
    once: Any = outer.build("d").test(fail={"tidy": [ValueError("closed")]})
    then: Any = outer.build("d").test(fail={"tidy": [ValueError("closed"), "open"]})

    once.retry()
    then.retry()

    with pytest.raises(TaskError, match="closed"):
        once.get(blocking=True)
    assert then.get(blocking=True)["rows"][0] == "open"


@q.flow(name="sized")
def sized(size: int) -> Any:
    known = fetch(size)
    small = lambda: clean("small")  # noqa: E731
    return report(branch(known, {1: small, 2: lambda: clean.map(extract("d"))}))


def test_a_branch_takes_its_arm_and_a_value_may_stand_for_all_of_it() -> None:
    small: Any = sized.build(0).test(values={"branch/clean": "tiny"})
    large: Any = sized.build(1).test(values={"branch/clean": "large"})
    whole: Any = sized.build(1).test(values={"branch": "whole"})
    other: Any = sized.build(0).test(values={"fetch": 2})

    assert small.get()["rows"] == "tiny"
    assert large.get()["rows"] == ["large"] * 3
    assert whole.get()["rows"] == "whole"
    assert set(states(whole)) == {"fetch", "branch", "report"}
    assert other.get()["rows"] == ["d-0!", "d-1!", "d-2!"]


def test_nodes_of_the_arm_that_is_not_taken_can_be_named() -> None:
    both = {"branch/clean": "c", "branch/extract": ["one"]}

    small: Any = sized.build(0).test(values=both, fail={"branch/clean[5]": ValueError()})

    assert small.get()["rows"] == "c"
    with pytest.raises(GraphError, match=r"no node is named 'branch/klean'; there are branch/cl"):
        sized.build(0).test(values={"branch/klean": 1})


# --- failures


def test_an_exception_fails_every_attempt_and_blocks_what_is_below() -> None:
    run = nightly.build(day="d").test(fail={"clean[2]": ValueError("no"), "clean[0]": KeyError})

    assert run.state == "failed"
    assert states(run)["report"] == "blocked"
    assert states(run)["clean[1]"] == "success"
    failure = run.result("clean[2]").get(raise_errors=False)
    assert (failure.attempts, failure.exc_type) == (3, "builtins.ValueError")
    assert failure.traceback == "ValueError: no\n"
    with pytest.raises(TaskError):
        run.get()


def test_a_body_that_fails_is_told_with_its_own_traceback() -> None:
    def broken(part: str) -> str:
        raise LookupError(part)

    run = nightly.build(day="d").test(values={"clean[2]": broken})

    with pytest.raises(TaskError) as caught:
        run.get()
    assert caught.value.is_a(LookupError)
    assert "in broken" in caught.value.traceback
    assert "flowq/executor" not in caught.value.traceback


def test_of_a_list_each_attempt_takes_one_and_the_rest_run_for_real() -> None:
    graph: Any = clean.s().map(["a", "b", "c", "d"])

    run = graph.test(
        fail={
            "clean[0]": [ValueError(), None],
            "clean[1]": [ValueError(), OSError(), "third"],
            "clean[2]": [None, ValueError()],
            "clean[3]": [ValueError(), lambda part: part * 2],
        }
    )

    assert run.get() == ["a!", "third", "c!", "dd"]
    assert [node.attempt for node in run.nodes()] == [1, 2, 0, 1]
    assert ran == ["clean", "clean"]


def test_backoffs_and_delays_pass_at_once_and_are_seen_in_the_times() -> None:
    graph = clean.s("a").options(delay=86_400) | report.s()

    began = time.monotonic()
    run: Any = graph.test(fail={"clean": [ValueError(), Retry(delay=7_200)]})
    took = time.monotonic() - began

    assert run.get() == {"rows": "a!", "day": ""}
    assert took < 5
    assert timedelta(hours=27) <= run.ended_at - run.created_at < timedelta(hours=28)


def test_a_delay_of_years_takes_one_look() -> None:
    run = clean.s("a").test(fail={"clean": [Retry(delay=9 * 365 * 86_400)]})

    assert run.get() == "a!"


def test_a_run_that_was_tested_can_be_retried_and_the_lists_go_on() -> None:
    run: Any = nightly.build(day="d").test(
        values={"extract": ["a"]}, fail={"clean": [ValueError()] * 3, "report": [OSError()]}
    )
    assert states(run)["report"] == "blocked"

    run.retry()
    with pytest.raises(TaskError, match="OSError"):
        run.get(blocking=True)
    run.retry()

    assert run.get(blocking=True)["rows"] == ["a!"]
    assert run.state == "success"
    assert ran == ["clean"]


def test_skips_are_skips_and_rules_see_failures() -> None:
    alarm = report.s("alarm").options(trigger_rule="one_failed")
    dag: Any = DAG("rules")
    dag.add(extract.s("d"), name="extract")
    dag.add(fetch.s(1), name="fetch")
    dag.add(alarm, name="alarm")
    dag.edge("extract", "alarm")

    run = dag.test(fail={"extract": ValueError(), "fetch": Skip("not today")})

    assert states(run) == {"extract": "failed", "fetch": "skipped", "alarm": "success"}
    assert run.state == "failed"
    with pytest.raises(NotProduced, match="not today"):
        run.result("fetch").get()


def test_one_path_for_a_map_and_one_for_an_item_may_go_to_values_and_fail() -> None:
    run: Any = clean.s().map(["a", "b"]).test(values={"clean": 1}, fail={"clean[1]": ValueError()})

    assert [node.state for node in run.nodes()] == ["success", "failed"]


@q.task(name="alarm")
def alarm(failure: Any) -> Any:
    ran.append(f"alarm: {failure.message}")


@q.task(name="mirror")
def mirror(day: str) -> Any:
    raise ConnectionError("tests have no network")


@q.flow(name="guarded", on_failure=alarm.s(), finally_=report.s("clean up"))
def guarded(day: str) -> Any:
    parts = extract.options(fallback=mirror)(day)
    return report(clean.options(items="keep").map(parts), day)


def test_fallbacks_and_handlers_run_and_are_stood_for_like_other_nodes() -> None:
    graph = guarded.build("d")

    saved: Any = graph.test(fail={"extract": OSError()}, values={"extract/fallback": ["m"]})
    lost: Any = graph.test(
        fail={"extract": OSError("down"), "report": RuntimeError(), "clean[0]": ValueError()},
        values={"extract/fallback": ["m"], "finally/report": None},
    )

    assert saved.get() == {"rows": ["m!"], "day": "d"}
    assert (states(saved)["extract/fallback"], states(saved)["finally/report"]) == (
        "success",
        "success",
    )
    assert "on_failure/alarm" not in [n.name for n in saved.nodes(state="success")]
    assert lost.state == "failed"
    assert states(lost)["clean"] == "success"
    assert states(lost)["on_failure/alarm"] == "success"
    assert ran.count("alarm: RuntimeError()") == 1


def test_a_flow_for_which_a_value_stands_has_no_handlers_either() -> None:
    @q.flow(name="around")
    def around() -> Any:
        return report(guarded("d"))

    run: Any = around.build().test(values={"guarded": "whole"})

    assert run.get()["rows"] == "whole"
    assert set(states(run)) == {"guarded", "report"}


# --- mistakes


def test_a_path_that_names_no_node_is_refused_before_anything_runs() -> None:
    with pytest.raises(GraphError, match=r"no node is named 'extrakt'; there are extract, "):
        nightly.build(day="d").test(values={"extrakt": []})
    assert ran == []


def test_an_item_that_was_not_made_is_told_at_the_end_with_the_nearest_names_first() -> None:
    with pytest.raises(GraphError, match=r"no node is named 'clean\[3\]'; there are clean\[") as e:
        nightly.build(day="d").test(fail={"clean[3]": ValueError()})
    assert "clean[0], clean[1], clean[2]" in str(e.value)
    assert ran.count("clean") == 3


def test_many_items_are_listed_as_one() -> None:
    graph: Any = clean.s().map(range(5_000))

    with pytest.raises(GraphError) as caught:
        graph.test(values={"clean[5000]": 1})

    assert str(caught.value).endswith("there are clean[0] to clean[4999]")
    assert ran == []


def test_an_item_of_a_map_that_never_opened_is_let_be() -> None:
    run = nightly.build(day="d").test(
        values={"clean[0]": 1}, fail={"extract": ValueError(), "clean[2]": ValueError()}
    )

    assert states(run) == {"extract": "failed", "clean": "blocked", "report": "blocked"}


def test_what_stands_in_a_body_that_gave_a_plain_value_is_told_at_the_end() -> None:
    with pytest.raises(GraphError, match=r"no node is named 'fetch/inner'"):
        fetch.s(1).test(values={"fetch/inner": 1})


@pytest.mark.parametrize(
    ("values", "fail", "said"),
    [
        ({"clean": 1}, {"clean": ValueError()}, r"'clean' in values= and in fail="),
        ({}, {"clean": 1}, r"is no exception; a value goes in values="),
        ({}, {"clean": "boom"}, r"is no exception"),
        ({3: 1}, {}, r"3 is no path"),
        ({"clean[0]": 1, "clean/save": 2}, {}, r"no node is named 'clean/save'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    values: dict[Any, Any], fail: dict[str, Any], said: str
) -> None:
    graph: Any = (clean.s() | report.s()).map(["a"])

    with pytest.raises(GraphError, match=said):
        graph.test(values=values, fail=fail)
    assert ran == []


def test_a_flow_that_is_built_tests_nothing() -> None:
    @q.flow(name="odd")
    def odd() -> Any:
        return fetch.s(1).test()

    with pytest.raises(GraphError, match="test"):
        odd.build()


# --- what waits, sleeps and races


@q.flow(name="asked")
def asked(day: str) -> Any:
    parts = extract(day)
    answer = wait_for("approve").after(parts)
    return branch(answer, {True: lambda: report(parts)}, default=lambda: clean(answer))


def test_a_value_is_what_is_sent_to_a_step_that_waits() -> None:
    graph = asked.build("d")

    yes: Any = graph.test(values={"approve": True, "extract": ["x"]})
    no: Any = graph.test(values={"approve": lambda: "no"})

    assert yes.get() == {"rows": ["x"], "day": ""}
    assert no.get() == "no!"
    assert states(no)["approve"] == "success"
    assert ran == ["extract", "clean"]


def test_a_step_that_waits_fails_as_others_do() -> None:
    run = asked.build("d").test(fail={"approve": TimeoutError("out of office")})

    assert states(run) == {"extract": "success", "approve": "failed", "branch": "blocked"}
    with pytest.raises(TaskError, match="out of office") as caught:
        run.get()
    assert (caught.value.node, caught.value.is_a(TimeoutError)) == ("approve", True)


def test_who_waits_for_what_nobody_sends_is_told_what_to_say() -> None:
    with pytest.raises(GraphError) as caught:
        asked.build("d").test()

    assert str(caught.value) == (
        "test: the run waits for what nobody sends, at 'approve'; say what is sent: "
        "values={'approve': ...}"
    )


@q.flow(name="each-asked")
def each_asked(day: str) -> Any:
    return report(asked.map(extract(day)))


def test_steps_that_wait_in_items_are_named_by_their_paths() -> None:
    graph = each_asked.build("d")

    run: Any = graph.test(values={"asked/approve": "all", "asked[1]/approve": "one"})

    assert run.get()["rows"] == ["all!", "one!", "all!"]
    with pytest.raises(GraphError, match=r"at 'asked\[0\]/approve', 'asked\[2\]/approve'; say"):
        graph.test(values={"asked[1]/approve": True})
    with pytest.raises(GraphError, match="no node is named 'aprove'; there are approve"):
        asked.build("d").test(values={"aprove": True})


def test_a_timeout_of_days_passes_at_once() -> None:
    day = 86_400
    default: Any = (fetch.s(1) >> wait_for("go", timeout=3 * day, default="silence")).test()
    none: Any = (fetch.s(1) >> wait_for("go", timeout=3 * day)).test()
    for_real: Any = (fetch.s(1) >> wait_for("go", timeout=day)).test(fail={"go": [None]})
    sent: Any = (fetch.s(1) >> wait_for("go", timeout=day, default=0)).test(values={"go": 7})

    assert default.get() == "silence"
    assert default.ended_at - default.created_at >= timedelta(days=3)
    for run in (none, for_real):
        with pytest.raises(WaitTimeout):
            run.get()
    assert sent.get() == 7
    assert sent.ended_at - sent.created_at < timedelta(hours=1)


def test_what_a_timeout_gives_stays_where_a_flow_beside_it_is_stood_for() -> None:
    @q.flow(name="beside")
    def beside() -> Any:
        return report([tidy("t"), wait_for("go", timeout=5, default={"by": None})])

    run: Any = beside.build().test(values={"tidy": "whole"})

    assert run.get()["rows"] == ["whole", {"by": None}]


def test_a_wait_that_failed_or_was_stood_for_is_so_again_when_it_runs_again() -> None:
    run: Any = asked.build("d").test(fail={"approve": [TimeoutError(), True]})

    run.retry()

    assert run.get(blocking=True)["rows"] == ["d-0", "d-1", "d-2"]


def test_a_sleep_passes_at_once_and_a_value_may_stand_for_it() -> None:
    graph: Any = fetch.s(1) >> sleep(timedelta(days=9)) >> fetch.s(2)

    began = time.monotonic()
    slept = graph.test()
    awake = graph.test(values={"sleep": None})

    assert (slept.get(), awake.get()) == (3, 3)
    assert slept.ended_at - slept.created_at >= timedelta(days=9)
    assert awake.ended_at - awake.created_at < timedelta(days=1)
    assert time.monotonic() - began < 5


@q.flow(name="raced")
def raced(x: int) -> Any:
    return report(first(fetch.options(retries=1)(x), tidy("t"), wait_for("go")))


def test_a_race_is_won_by_who_succeeds_first_and_stand_ins_say_who() -> None:
    graph = raced.build(1)

    plain: Any = graph.test()
    flow: Any = graph.test(values={"tidy": "whole"}, fail={"fetch": OSError()})
    later: Any = graph.test(fail={"fetch": [Retry(delay=60)]})
    sent: Any = graph.test(
        values={"go": "sent"}, fail={"fetch": OSError(), "tidy/clean": ValueError()}
    )

    assert plain.get()["rows"] == 2
    assert (states(plain)["tidy"], states(plain)["go"]) == ("skipped", "skipped")
    assert flow.get()["rows"] == "whole"
    assert "tidy/clean" not in states(flow)
    assert states(flow)["go"] == "skipped"
    assert flow._app.store.check(flow._id) == []
    assert later.get()["rows"] == "t!?"
    assert states(later)["fetch"] == "skipped"
    assert sent.get()["rows"] == "sent"


def test_no_value_stands_for_a_race() -> None:
    with pytest.raises(GraphError, match="'first' has the value of what wins it; let values="):
        raced.build(1).test(values={"first": 1})
    assert ran == []


@q.flow(name="enough")
def enough(day: str) -> Any:
    return report(clean.options(need=2, retries=0, max_parallel=1).map(extract(day)))


def test_a_map_that_needs_some_of_its_items_ends_with_them() -> None:
    graph = enough.build("d")

    two: Any = graph.test(fail={"clean[0]": ValueError()}, values={"extract": list("abcdef")})
    few: Any = graph.test(fail={"clean": ValueError()})

    assert two.get()["rows"] == ["b!", "c!"]
    assert [n.name for n in two.nodes(state="skipped")] == ["clean[3]", "clean[4]", "clean[5]"]
    assert few.state == "failed"


def test_a_flow_with_a_deadline_or_a_bound_may_be_stood_for() -> None:
    @q.flow(name="late", deadline=1)
    def late() -> Any:
        return fetch.options(max_parallel=1).map([1, 2]).after(sleep(60))

    @q.flow(name="around-late")
    def around() -> Any:
        return report(late())

    value: Any = around.build().test(values={"late": "whole"})
    for_real: Any = around.build().test()

    assert value.get()["rows"] == "whole"
    assert for_real.state == "failed"


# --- what bodies start


own = FlowQ("kit-own", "memory://")


@own.task(name="child")
def child(x: int) -> int:
    return x + 1


@own.task(name="starts")
def starts(x: int) -> Any:
    return child(x).id


@own.task(name="waits")
def waits(x: int) -> int:
    return child.options(delay=60)(x).get(blocking=True, allow_in_task=True)


@own.task(name="hangs", context=True)
def hangs(x: int, *, task: Any) -> Any:
    return own.result(task.id).get(blocking=True, allow_in_task=True)


@own.task(name="threads")
def threads(x: int) -> Any:
    with ThreadPoolExecutor(2) as pool:
        return len([handle.id for handle in pool.map(child, range(x))])


@own.task(name="stops", context=True)
def stops(x: int, *, task: Any) -> Any:
    own.run(task.run).cancel()
    return x


@own.task(name="answers", context=True)
def answers(x: int, *, task: Any) -> None:
    own.run(task.run).send("go", x)


def left_in_the_own_store() -> list[Any]:
    status = own.store.status()
    return [*own.store.runs(), *(queue.ready for queue in status.queues if queue.ready)]


def test_what_bodies_start_runs_in_the_test_too() -> None:
    run: Any = group(starts.s(1), waits.s(2), threads.s(20)).test()

    id, two, twenty = run.get()
    assert (two, twenty) == (3, 20)
    assert run._app.result(id).get() == 2
    assert left_in_the_own_store() == []


def test_what_a_body_sends_to_its_run_is_taken() -> None:
    run: Any = group(answers.s(5), wait_for("go")).test()

    assert run.get() == [None, 5]


def test_many_bodies_that_wait_run_each_at_its_time() -> None:
    graph: Any = waits.s().map(range(100))

    run = graph.test()

    assert run.get() == list(range(1, 101))


def test_a_body_that_waits_for_itself_is_an_error_and_no_standstill() -> None:
    run = hangs.s(1).test()

    with pytest.raises(TaskError) as caught:
        run.get()
    assert caught.value.is_a(BlockingInTask)


def test_a_body_that_cancels_its_run_ends_it() -> None:
    run: Any = (stops.s(1) | child.s()).test()

    assert run.state == "cancelled"
    with pytest.raises(RunCancelled):
        run.get()


def test_within_inline_the_rest_goes_on_inline_after_it() -> None:
    with own.inline():
        before = child(1)
        run: Any = (starts.s(1) | report_of.s()).test(values={"starts": 5})
        after = child(2)

        assert (before.get(), run.get(), after.get()) == (2, [5], 3)
    assert left_in_the_own_store() == []


@own.task(name="report_of")
def report_of(x: Any) -> Any:
    return [x]


def test_an_app_whose_clock_stands_still_is_tested_all_the_same() -> None:
    clock = ManualClock()
    still = FlowQ("kit-still", "memory://", clock=clock)

    @still.task(name="slow", retries=1, retry_delay=3600)
    def slow(x: int) -> int:
        return x

    run = slow.s(1).test(fail={"slow": [ValueError()]})

    assert run.get() == 1
    assert still.clock is clock
    assert clock.now_ms() == ManualClock().now_ms()


def test_tasks_of_other_queues_run_too() -> None:
    graph = fetch.s(1).options(queue="slow") | fetch.s().options(queue="other")

    assert graph.test().get() == 3


# --- who runs the test


def test_what_is_meant_for_the_test_runner_reaches_it() -> None:
    def stop(**_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(pytest.fail.Exception, match="not this one"):
        nightly.build(day="d").test(values={"clean": lambda part: pytest.fail("not this one")})
    with pytest.raises(KeyboardInterrupt):
        fetch.s(1).test(values={"fetch": lambda x: stop()})
    exits: Any = fetch.s(1).test(fail={"fetch": KeyboardInterrupt})
    assert exits.state == "failed"


def test_an_async_test_can_run_async_bodies() -> None:
    async def test() -> Any:
        run: Any = fetch.s(1).test(fail={"fetch": [ValueError()]})
        run.retry()
        return run.get(blocking=True)

    assert asyncio.run(test()) == 2


def test_tests_in_several_threads_do_not_see_each_other() -> None:
    def one(k: int) -> Any:
        return (starts.s(k) | report_of.s()).test(values={"starts": k}).get()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(12)))

    assert found == [[k] for k in range(12)]
    assert left_in_the_own_store() == []
