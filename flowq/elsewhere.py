# SPDX-License-Identifier: MIT
"""Options as other libraries spell them: what `flowq.policy` says to who writes one."""

from __future__ import annotations

from typing import Final

__all__ = ["ELSEWHERE"]

_NO_TIMEOUT: Final = (
    "time limits of bodies are not supported yet; deadline= on a flow or map ends what takes longer"
)
_NO_LIMIT: Final = (
    "limits of a task over all runs are not supported yet; max_parallel= bounds a map, a run, or "
    "all runs of a flow, and a queue of its own what runs at a time"
)
_OF_FLOWS: Final = (
    "write max_parallel= on @q.flow for all its runs together, .options(max_parallel=...) of a "
    "call for one run"
)

ELSEWHERE: Final = {
    # Celery
    "countdown": "write delay=",
    "max_retries": "write retries=",
    "default_retry_delay": "write retry_delay=",
    "autoretry_for": "write retry_on=",
    "dont_autoretry_for": "name by retry_on= what is tried again",
    "retry_backoff": "write backoff=",
    "retry_backoff_max": "write max_delay=",
    "retry_jitter": "write jitter=",
    "bind": "write context=True; the body gets keyword `task`",
    "ignore_result": "write result_ttl=0",
    "immutable": "write a.s() >> b.s() for order without a value",
    "throws": "name by retry_on= what is tried again; others fail at once",
    "reject_on_worker_lost": "write max_losses=0 for what must not run again",
    "track_started": "read .state, which is 'running' then",
    "on_commit": "call the task when the transaction has been committed",
    "acks_late": "nothing is lost without it: what a lost worker held runs again",
    "time_limit": _NO_TIMEOUT,
    "soft_time_limit": _NO_TIMEOUT,
    "timeout": _NO_TIMEOUT,
    "rate_limit": "rate limits are not supported yet",
    "result_expires": "write result_ttl=",
    # RQ, Dramatiq
    "ttl": "write expires= for how long it may wait; result_ttl= is of its value",
    "failure_ttl": "write failed_ttl=",
    "retry": "write retries=3, retry_delay=60",
    "retry_when": "name by retry_on= what is tried again",
    "min_backoff": "write retry_delay=, in seconds",
    "max_backoff": "write max_delay=, in seconds",
    "max_age": "write expires=",
    "store_results": "values are stored; result_ttl=0 keeps none",
    "actor_name": "write name=",
    "job_id": "write key=",
    "job_timeout": _NO_TIMEOUT,
    "at_front": "write priority=1: higher is handed out first",
    "depends_on": "write a.s() | b.s(), or a.s() >> b.s() for order alone",
    # Airflow
    "dag_id": "write name=",
    "python_callable": "write @q.task on the function",
    "op_args": "call the task with them",
    "op_kwargs": "call the task with them",
    "provide_context": "write context=True; the body gets keyword `task`",
    "multiple_outputs": "node['train'] takes one item of a value; outputs=2 lets a, b = node do so",
    "do_xcom_push": "what is returned is passed on; result_ttl=0 keeps no value",
    "dagrun_timeout": "write deadline=, in seconds, on the flow",
    "max_active_tis_per_dag": _NO_LIMIT,
    "max_active_tis_per_dagrun": "write max_parallel= on the map",
    "max_active_tasks": _OF_FLOWS,
    "max_active_runs": "limits of runs at once are not supported yet",
    "concurrency": _OF_FLOWS,
    "poke_interval": "raise flowq.Retry(delay=60) in the body, or let the run wait: wait_for(name)",
    "deferrable": "sleep(seconds) and wait_for(name) are steps that hold no worker",
    "external_dag_id": "call that flow in this one, or wait_for(name) and let it run.send(name)",
    "schedule": "schedules are not supported yet; let cron start it",
    "schedule_interval": "schedules are not supported yet; let cron start it",
    "start_date": "schedules are not supported yet; let cron start it",
    "catchup": "schedules are not supported yet; let cron start it",
    "execution_timeout": _NO_TIMEOUT,
    "retry_exponential_backoff": "write backoff=2",
    "max_retry_delay": "write max_delay=",
    "task_id": "write name= for the name of a node, key= for what is started once",
    "idempotency_key": "write key=",
    "priority_weight": "write priority=",
    "pool": "write queue=, and serve it by workers of its own",
    "on_failure_callback": "write on_error=alert.s() on a node, on_failure=alert.s() on a flow",
    "on_success_callback": "write on_success=signature on a flow, or a.s() | b.s()",
    "on_failure_fail_dagrun": "write failure_policy='cancel'",
    "fail_fast": "write node_failure_policy='cancel'",
    "fail_stop": "write node_failure_policy='cancel'",
    "setup": "write it first, and what undoes it as finally_=",
    "teardown": "write finally_=signature on the flow",
    # Celery
    "link": "write a.s() | b.s()",
    "link_error": "write on_error=alert.s()",
    "errback": "write on_error=alert.s()",
    # Dagster, Prefect
    "retry_delay_seconds": "write retry_delay=",
    "retry_jitter_factor": "write jitter=True",
    "retry_condition_fn": "name by retry_on= what is tried again",
    "timeout_seconds": _NO_TIMEOUT,
    "cache_expiration": "write cache=, in seconds",
    "cache_key_fn": "write cache=, in seconds; the key is the task, version= and the arguments",
    "persist_result": "values are stored; result_ttl=0 keeps none",
    "task_run_name": "write name=",
    "flow_run_name": "write name=",
    "wait_for": "write .after(other)",
    "on_completion": "write finally_=signature on the flow",
    "on_cancellation": "write finally_=signature on the flow",
    "on_crashed": "write on_failure=signature on the flow",
    "finally": "write finally_=",
}
"""Options of other libraries; what to say instead."""
