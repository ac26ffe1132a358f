# SPDX-License-Identifier: MIT
"""Answers to words of other libraries, and to words that are nearly right."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Final, TypeVar

from flowq.policy import nearest

__all__ = ["HABITS", "check_keywords", "habit", "helpful"]

F = TypeVar("F", bound=Callable[..., Any])

HABITS: Final[dict[str, str]] = {
    # Celery
    "delay": "call the task: add(1, 2) enqueues; to wait, add.options(delay=60)(1, 2)",
    "apply_async": "add.options(delay=60, priority=5)(1, 2) enqueues with options",
    "apply": "add.call_local(1, 2) runs it here",
    "si": "write a.s() >> b.s() for order without a value",
    "signature": "write add.s(1, 2)",
    "subtask": "write add.s(1, 2)",
    "link": "write a.s() | b.s()",
    "link_error": "write a.s().on_error(alert.s())",
    "on_error": "write a.s().on_error(alert.s()), or a.options(on_error=alert.s())(...)",
    "set": "write .options(priority=5)",
    "clone": "signatures do not change; write .options(...) for a copy with other options",
    "freeze": "start it and read .id",
    "skew": "write .options(delay=...) on the members",
    "chunks": "write task.options(chunksize=10).map(xs)",
    "update_state": "log, or return a value",
    "retry": "raise flowq.Retry(delay=...) in the body, or declare @q.task(retries=3)",
    "revoke": "write .cancel() on what starting gave",
    "forget": "say .options(result_ttl=0), or let it expire",
    "successful": "compare .state with 'success'",
    "status": "read .state",
    "join_native": "write .get(blocking=True)",
    "iterate": "write .as_completed()",
    "completed_count": "read .finished, or .progress()",
    "add_to_chord": "return a signature from the body: what it becomes is awaited",
    "apply_async_on_commit": "call the task when the transaction has been committed",
    "delay_on_commit": "call the task when the transaction has been committed",
    # Huey
    "call_local": "a task has that; a composition or a flow's graph runs here by .test()",
    "is_canceled": "read .state",
    "revoke_by_id": "write q.result(id).cancel()",
    "restore_by_id": "enqueue it again; what is cancelled stays so",
    "revoke_all": "write .cancel() on what starting gave",
    "pre_execute": "hooks are not supported yet",
    "post_execute": "hooks are not supported yet",
    "on_startup": "hooks are not supported yet; what a worker needs is made where it is imported",
    "on_shutdown": "hooks are not supported yet",
    "then": "write a.s() | b.s()",
    "error": "write a.s().on_error(alert.s())",
    "is_ready": "read .ready on what starting gave",
    "is_revoked": "read .state",
    "restore": "enqueue it again; what is cancelled stays so",
    "reset": "reading a result does not destroy it",
    # RQ, Dramatiq, taskiq, arq
    "enqueue": "call the task, or .start() a composition",
    "enqueue_call": "call the task, or .start() a composition",
    "enqueue_many": "write .map(xs), or call tasks within: with q.batch()",
    "enqueue_job": "call the task: add(1, 2) enqueues",
    "get_id": "read .id",
    "get_status": "read .state",
    "is_finished": "read .ready, or compare .state with 'success'",
    "is_failed": "compare .state with 'failed'",
    "is_queued": "compare .state with 'queued'",
    "is_started": "compare .state with 'running'",
    "return_value": "write .get(blocking=True)",
    "latest_result": "write .get(blocking=True)",
    "get_result": "write .get(blocking=True)",
    "exc_info": "catch TaskError from .get(...), and read its .traceback",
    "requeue": "write .retry() on its run: q.run(id).retry()",
    "message_with_options": "write add.options(delay=60).s(1, 2)",
    "abort": "write .cancel() on what starting gave",
    "enqueue_in": "write add.options(delay=60)(1, 2)",
    "enqueue_at": "write add.options(eta=moment)(1, 2)",
    "send": "call the task: add(1, 2) enqueues",
    "send_with_options": "add.options(delay=60)(1, 2) enqueues with options",
    "message": "write add.s(1, 2)",
    "pipe": "write a.s() | b.s()",
    "kiq": "call the task: add(1, 2) enqueues",
    "kicker": "write add.options(...)(1, 2)",
    "job": "call the task: add(1, 2) enqueues",
    # Airflow, Prefect, Dagster
    "set_upstream": "write .after(other), or other >> this",
    "set_downstream": "write this >> other",
    "expand": "write .map(xs)",
    "expand_kwargs": "write .map(xs, day=each(days)): keyword arguments marked by each differ",
    "unmapped": "write .map(xs, day=day): keyword arguments are the same for each item",
    "xcom_pull": "write the step as an argument: report(rows), report.s(rows.s())",
    "xcom_push": "return the value; what follows takes it as an argument",
    "allow_failure": "write optional(step, default=...) where it is read",
    "as_setup": "write it first, and what undoes it as finally_=",
    "as_teardown": "write .finally_(cleanup.s()) on the graph, or @q.flow(finally_=...)",
    "trigger": "call the flow, or .start() a composition",
    "serve": "workers are started by: flowq worker module:app",
    "deploy": "workers are started by: flowq worker module:app",
    "visualize": "a graph or run draws itself by .mermaid()",
    "execute_in_process": "write .test()",
    "partial": "write .s(...) with what is bound, then .map(xs)",
    "override": "write .options(...)",
    "submit": "call the task, or .start() a composition",
    "run": "write .start(), or call the task",
    "wait_for": "write .after(other); flowq.wait_for(name) is a step that waits for a send",
    "with_options": "write .options(...)",
    "execution_timeout": "time limits of bodies are not supported yet; a flow has deadline=",
    "defer": "sleep(seconds) and wait_for(name) are steps that hold no worker",
    "pause": "that goes to what starting gives: .start().pause(), q.run(id).pause()",
    "resume": "that goes to what starting gives: .start().resume(), q.run(id).resume()",
    "signal": "write .send(name, value) on what starting gave; wait_for(name) takes it",
    # of an app
    "crontab": "schedules are not supported yet; let cron call the task",
    "periodic_task": "schedules are not supported yet; let cron call the task",
    "schedule_task": "schedules are not supported yet; let cron call the task",
    "on_after_configure": "schedules are not supported yet; let cron call the task",
    "send_task": "import the task and call it, or name it by q.tasks['shop.add'](1, 2)",
    "autodiscover_tasks": "write FlowQ(imports=['shop.tasks'])",
    "conf": "settings are arguments of FlowQ, FLOWQ_* and [tool.flowq]",
    "AsyncResult": "write q.result(id)",
    "GroupResult": "write q.run(id)",
    "lock_task": "locks are not supported yet",
    "workflow": "write @q.flow",
    "shared_task": "write @q.task",
    # of what starting gives
    "get": "that goes to what starting gives: .start().get(blocking=True), add(1, 2).get(...)",
    "wait": "that goes to what starting gives: .start().wait(), add(1, 2).wait()",
    "ready": "that goes to what starting gives: .start().ready, add(1, 2).ready",
    "cancel": "that goes to what starting gives: .start().cancel(), add(1, 2).cancel()",
}
"""Words of other libraries, and what flowq says instead. Shared by tasks and compositions."""


def habit(name: str, who: str) -> str | None:
    """The answer to a word of another library; None if it is not known.

    Examples
    --------
    >>> habit("si", "a signature")
    "a signature has no 'si'; write a.s() >> b.s() for order without a value"
    """
    said = HABITS.get(name)
    return None if said is None else f"{who} has no {name!r}; {said}"


KEYWORDS: Final[dict[str, str]] = {
    # of reading results
    "propagate": "write raise_errors=False",
    "disable_sync_subtasks": "write allow_in_task=True",
    "interval": "waiting does not poll, so there is none",
    "no_ack": "reading does not destroy",
    "preserve": "reading does not destroy",
    "backoff": "waiting does not poll, so there is none",
    # of consumers
    "concurrency": "write workers=",
    "threads": "write workers=",
    "processes": "write workers=, and kind='process'",
    "worker_type": "write kind=",
    "pool": "write kind=",
    # of nodes
    "task_id": "write name=",
    "upstream": "write after=",
    "depends_on": "write after=",
    "dependencies": "write after=",
    "countdown": "write delay=",
}
"""Keyword arguments of other libraries, and what flowq says instead."""


def check_keywords(who: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse keyword arguments that there are not.

    Raises
    ------
    TypeError
        As Python's own, but with the nearest word.
    """
    words = list(known)
    for name in given:
        if name not in words:
            said = None if (near := nearest(name, words)) else KEYWORDS.get(name)
            hint = f"; {said}" if said else near or f"; there are {', '.join(words)}"
            raise TypeError(f"{who} has no argument {name!r}{hint}")


def helpful(method: F) -> F:
    """Let a method answer a keyword that it does not take with the nearest that it does."""
    names = [p.name for p in inspect.signature(method).parameters.values()][1:]
    known = frozenset(names)

    @wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not known.issuperset(kwargs):
            check_keywords(f"{type(self).__name__}.{method.__name__}", kwargs, names)
        return method(self, *args, **kwargs)

    return call  # type: ignore[return-value]
