# SPDX-License-Identifier: MIT
"""First steps: the small programs that everybody writes first with a task queue.

Each is one function below, and runs by itself:

    python examples/pipelines/first_steps.py             # all of them
    python examples/pipelines/first_steps.py failing     # one

``with q.consumer(...)`` starts workers inside this program. In real life they run in processes
of their own, which one command starts: ``flowq worker first_steps:q``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flowq import ConfigError, FlowQ, StoreError, TaskError

q = FlowQ("first_steps")


# --- tasks: plain functions with a decorator ---------------------------------------------------


@q.task
def add(a: int, b: int) -> int:
    return a + b


@q.task
def slow(seconds: float) -> str:
    time.sleep(seconds)
    return f"slept {seconds:g} s"


@q.task
def where(i: int) -> int:
    """Say which process ran it; long enough that all workers get some."""
    time.sleep(0.05)
    return os.getpid()


@q.task(retries=2, retry_delay=0.1)
def divide(a: int, b: int) -> float:
    return a / b


@q.task
def shout(text: str) -> str:
    return text.upper() + "!"


@q.task
def lengths(words: list[str]) -> dict[str, int]:
    return {word: len(word) for word in words}


# --- the programs ------------------------------------------------------------------------------


def call_and_wait() -> int:
    """Call a task, and wait for its value."""
    with q.consumer():
        result = add(2, 3)  # returns at once; a worker does the work
        value = result.get(blocking=True, timeout=30)
    print(f"add(2, 3) = {value}")
    return value


def slow_task() -> tuple[object, str]:
    """Look at a result that is not there yet, then wait for it."""
    with q.consumer():
        result = slow(0.5)
        early = result()  # None: not ready, and nobody waits
        late = result(blocking=True)
    print(f"at once: {early}; later: {late}")
    return early, late


def many_tasks_one_worker() -> list[int]:
    """Enqueue a hundred calls at once, for a single worker."""
    with q.consumer(workers=1):
        with q.batch():  # one round trip to the store instead of a hundred
            results = [add(i, i) for i in range(100)]
        values = [r.get(blocking=True) for r in results]
    print(f"100 tasks, one worker: the sum is {sum(values):,}")
    return values


def many_tasks_five_processes() -> set[int]:
    """The same for five worker processes: real parallelism, whatever the body does."""
    with q.consumer(workers=5, kind="process"):
        pids = set(where.map(range(60)).get(blocking=True))
    print(f"60 tasks ran in {len(pids)} processes")
    return pids


def information_without_a_worker() -> dict[str, object]:
    """Look at a task that nobody runs: the call is stored, and waits for a worker."""
    result = add.options(delay=3600, priority=5)(20, 22)
    told = {
        "id": result.id,
        "state": str(result.state),
        "ready": result.ready,
        "args": tuple(result.task.args),
        "priority": result.task.priority,
        "value": result(),
    }
    for name, value in told.items():
        print(f"{name:9} {value}")
    result.cancel()
    print(f"after a cancel: {result.state}")
    return told


def failing() -> TaskError:
    """See what the caller sees when a task fails for good, here after three attempts."""
    with q.consumer():
        result = divide(1, 0)
        try:
            result.get(blocking=True, timeout=30)
        except TaskError as err:
            failure = err
    print(f"{failure.task} failed after {failure.attempts} attempts: {failure}")
    print(f"was it a ZeroDivisionError? {failure.is_a(ZeroDivisionError)}")
    print(failure.traceback.strip().splitlines()[-1])
    return failure


def map_in_order() -> list[int]:
    """Map a task over a list: the values come in the order of the list, whoever was first."""
    with q.consumer(workers=4):
        values = add.map([(i, i) for i in range(1, 11)]).get(blocking=True, timeout=30)
    print(f"map: {values}")
    return values


def three_different_tasks() -> tuple[int, str, dict[str, int]]:
    """Mix different tasks; each result knows its own type."""
    with q.consumer(workers=2):
        number, text, table = add(40, 2), shout("hello"), lengths(["one", "three"])
        values = (
            number.get(blocking=True),
            text.get(blocking=True),
            table.get(blocking=True),
        )
    print(*values)
    return values


PROGRAMS: dict[str, Callable[[], object]] = {
    program.__name__: program
    for program in (
        call_and_wait,
        slow_task,
        many_tasks_one_worker,
        many_tasks_five_processes,
        information_without_a_worker,
        failing,
        map_in_order,
        three_different_tasks,
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    here = Path(__file__).resolve().parent / "out"
    here.mkdir(exist_ok=True)
    parser = argparse.ArgumentParser(description="Small programs for a task queue.")
    parser.add_argument("program", nargs="*", help=f"of {', '.join(PROGRAMS)}; all unless named")
    url = os.environ.get("FLOWQ_URL") or f"sqlite:///{here / 'first_steps.db'}"
    parser.add_argument("--url", default=url, help="store; FLOWQ_URL, else a SQLite file in out/")
    args = parser.parse_args(argv)
    if unknown := set(args.program) - set(PROGRAMS):
        parser.error(f"there is no program {', '.join(sorted(unknown))}")
    q.use_url(args.url)
    for name in args.program or PROGRAMS:
        print(f"\n{name}: {PROGRAMS[name].__doc__}")
        PROGRAMS[name]()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ConfigError, StoreError) as err:  # such as a wrong --url; nothing to be traced
        sys.exit(f"first_steps: {err}")
    except KeyboardInterrupt:
        sys.exit(130)
