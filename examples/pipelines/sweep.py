# SPDX-License-Identifier: MIT
"""Try many settings of a model, and stop as soon as enough of them are good enough.

    measure ─► trial[0] … trial[n]  (need=3, max_parallel=2) ─► best
                 each:  equations ─┬─ eliminate ─┬─ first ─► judge
                                   └─ descend ───┘

    python examples/pipelines/sweep.py --need 5 --goal 0.23

The model says how many bytes a module of Python has by what it consists of: a sum of so much for
each name, call, constant ... A setting is how many kinds of parts it knows, and how strongly small
weights are preferred. It is fitted to two files of three, and judged by the third.

``need=`` ends the map with the trials that were good enough first; the rest is never run. A trial
that is not good enough raises `Skip`: it neither counts nor fails. ``max_parallel=`` bounds how
many are under way, so that the smaller models, which come first, are done before larger ones begin.
In each trial two solvers race; ``first(...)`` has the weights of the one that succeeds first, and
the other one is stopped or, if it has not begun, never runs.
"""

from __future__ import annotations

import argparse
import ast
import math
import os
import statistics
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flowq import ConfigError, FlowQ, Run, Skip, StoreError, TaskError, first

KINDS = (1, 2, 4, 8, 12, 16, 24, 32)
PENALTIES = (1.0, 0.1, 0.01, 0.001)
FILES, FEWEST = 150, 30
NEED, AT_ONCE, GOAL = 3, 2, 0.25

Vector = list[float]
Matrix = list[Vector]
System = tuple[Matrix, Vector]

q = FlowQ("sweep")


class Setting(NamedTuple):
    kinds: int
    penalty: float


class Table(NamedTuple):
    """What files consist of: a row of counts a file, the most frequent kinds first."""

    counts: list[list[int]]
    sizes: list[int]


class Found(NamedTuple):
    setting: Setting
    error: float


# --- the tasks -----------------------------------------------------------------------------------


@q.task
def measure(folder: str, limit: int) -> Table:
    """Count the parts of the modules below a folder; of too many every n-th."""
    return measured(Path(folder), limit)


@q.task
def equations(table: Table, setting: Setting) -> System:
    """Set up what the weights of the model have to fulfil."""
    return normal_equations(table, setting)


@q.task
def eliminate(system: System) -> Vector:
    """Solve it exactly, by Gauss's elimination."""
    return eliminated(*system)


@q.task
def descend(system: System) -> Vector:
    """Solve it step by step, by conjugate gradients; too slow a descent is an error."""
    return descended(*system)


@q.task
def judge(table: Table, setting: Setting, weights: Vector, goal: float) -> Found:
    """Say how far off the model is where it was not fitted; not good enough is no result."""
    error = error_of(table, setting, weights)
    if error > goal:
        raise Skip(f"{error:.1%} off")
    return Found(setting, error)


@q.task
def best(found: list[Found]) -> list[Found]:
    """Sort what was good enough, the best first."""
    return sorted(found, key=lambda one: one.error)


# --- the flows -----------------------------------------------------------------------------------


@q.flow
def trial(setting: Setting, table: Table, goal: float) -> Found:
    system = equations(table, setting)
    weights = first(eliminate(system), descend(system))
    return judge(table, setting, weights, goal)


@q.flow
def sweep(
    folder: str, files: int = FILES, need: int = NEED, at_once: int = AT_ONCE, goal: float = GOAL
) -> list[Found]:
    table = measure(folder, files)
    trials = trial.options(need=need, max_parallel=at_once)
    return best(trials.map(settings(), table=table, goal=goal))


# --- the computation -----------------------------------------------------------------------------


def settings() -> list[Setting]:
    return [Setting(kinds, penalty) for kinds in KINDS for penalty in PENALTIES]


def measured(folder: Path, limit: int) -> Table:
    paths = sorted(path for path in folder.rglob("*.py") if "site-packages" not in path.parts)
    files: list[tuple[Counter[str], int]] = []
    for path in paths[:: max(1, len(paths) // limit)][:limit]:
        data = path.read_bytes()
        try:
            tree = ast.parse(data)
        except (SyntaxError, ValueError):  # made for the tests of compilers
            continue
        files.append((Counter(type(node).__name__ for node in ast.walk(tree)), len(data)))
    total: Counter[str] = Counter()
    for counts, _ in files:
        total.update(counts)
    names = sorted(total, key=lambda name: (-total[name], name))[: max(KINDS)]
    kept = [(counts, size) for counts, size in files if size]
    if len(kept) < FEWEST:
        raise ValueError(f"{folder} has {len(kept)} modules; to fit a model takes {FEWEST}")
    return Table([[c[n] for n in names] for c, _ in kept], [size for _, size in kept])


def known(counts: Sequence[int], setting: Setting) -> Vector:
    """What the model knows of a file: some of the counts, and that it is one."""
    return [float(count) for count in counts[: setting.kinds]] + [1.0]


def normal_equations(table: Table, setting: Setting) -> System:
    """Give the equations of the weights with the least squares of relative errors."""
    n = min(setting.kinds, len(table.counts[0])) + 1
    matrix, right = [[0.0] * n for _ in range(n)], [0.0] * n
    for k, (counts, size) in enumerate(zip(table.counts, table.sizes, strict=True)):
        if k % 3 == 2:
            continue
        row = [x / size for x in known(counts, setting)]
        for i, x in enumerate(row):
            right[i] += x
            line = matrix[i]
            for j, y in enumerate(row):
                line[j] += x * y
    for i in range(n):
        matrix[i][i] = (matrix[i][i] or 1.0) * (1 + setting.penalty)
    return matrix, right


def eliminated(matrix: Matrix, right: Vector) -> Vector:
    rows = [[*line, x] for line, x in zip(matrix, right, strict=True)]
    n = len(rows)
    for i in range(n):
        pivot = max(range(i, n), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for k in range(i + 1, n):
            share = rows[k][i] / rows[i][i]
            for j in range(i, n + 1):
                rows[k][j] -= share * rows[i][j]
    weights = [0.0] * n
    for i in reversed(range(n)):
        weights[i] = (rows[i][n] - dot(rows[i][i + 1 : n], weights[i + 1 :])) / rows[i][i]
    return weights


def descended(matrix: Matrix, right: Vector) -> Vector:
    scale = [1 / math.sqrt(matrix[i][i]) for i in range(len(right))]
    scaled = [
        [x * scale[i] * scale[j] for j, x in enumerate(line)] for i, line in enumerate(matrix)
    ]
    found = [0.0] * len(right)
    left = [x * s for x, s in zip(right, scale, strict=True)]
    way, rest = left[:], dot(left, left)
    enough = rest * 1e-20
    for _ in range(50 * len(right)):
        if rest <= enough:
            return [x * s for x, s in zip(found, scale, strict=True)]
        step = [dot(line, way) for line in scaled]
        length = rest / dot(way, step)
        found = [x + length * w for x, w in zip(found, way, strict=True)]
        left = [x - length * s for x, s in zip(left, step, strict=True)]
        rest, before = dot(left, left), rest
        way = [x + rest / before * w for x, w in zip(left, way, strict=True)]
    raise ArithmeticError(f"no end of the descent, {math.sqrt(rest):g} are left")


def dot(a: Iterable[float], b: Iterable[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def error_of(table: Table, setting: Setting, weights: Vector) -> float:
    """How far off the model is in the middle, for the files that it was not fitted to."""
    files = zip(table.counts[2::3], table.sizes[2::3], strict=True)
    return statistics.median(abs(dot(known(c, setting), weights) / s - 1) for c, s in files)


def in_one_loop(folder: Path, limit: int, goal: float) -> dict[Setting, float]:
    """Try every setting without flowq, for the check; gives the errors of those that will do."""
    table = measured(folder, limit)
    errors = {
        setting: error_of(table, setting, eliminated(*normal_equations(table, setting)))
        for setting in settings()
    }
    return {setting: error for setting, error in errors.items() if error <= goal}


# --- the command ---------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    folder = args.folder.resolve()
    q.use_url(args.url)
    try:
        with q.consumer(workers=args.workers, kind=args.kind):
            began = time.perf_counter()
            run = sweep(str(folder), args.files, args.need, args.at_once, args.goal)
            found = run.get(blocking=True)
            took = time.perf_counter() - began
    except TaskError as err:
        print(f"{err.node or err.task} failed: {err}", file=sys.stderr)
        return 1
    print(f"{folder}, in {took:.1f} s")
    for setting, error in found:
        print(f"  {setting.kinds:2} kinds, penalty {setting.penalty:<5g}  {error:.2%} off")
    show_work(run)
    good = in_one_loop(folder, args.files, args.goal)
    same = len(found) == args.need and all(
        setting in good and math.isclose(error, good[setting], rel_tol=1e-6)
        for setting, error in found
    )
    print("check: " + ("the same as in one loop" if same else "THE ERRORS DIFFER"))
    return 0 if same else 1


def show_work(run: Run[Any]) -> None:
    """Say how much of the work was done, and how much was never begun."""
    nodes = list(run.nodes())
    trials = {n.name: n.state for n in nodes if n.name.startswith("trial[") and "/" not in n.name}
    begun = {n.name.partition("/")[0] for n in nodes if "/" in n.name and n.started_at is not None}
    begun &= trials.keys()
    enough = sum(state == "success" for state in trials.values())
    print(f"{enough} of {len(trials)} settings were enough: {len(begun)} tried, "
          f"{len(trials) - len(begun)} never run")  # fmt: skip
    solvers = [n for n in nodes if n.name.endswith(("/eliminate", "/descend"))]
    ran = sum(n.started_at is not None for n in solvers)
    print(f"{ran} of {2 * len(trials)} solvers ran")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    here = Path(__file__).resolve().parent / "out"
    here.mkdir(exist_ok=True)
    parser = argparse.ArgumentParser(description="Sweep settings until some are good enough.")
    add = parser.add_argument
    url = os.environ.get("FLOWQ_URL") or f"sqlite:///{here / 'sweep.db'}"
    add("--url", default=url, help="store; FLOWQ_URL, else a SQLite file in out/")
    add("--workers", type=int, default=2, metavar="N")
    add("--kind", choices=("process", "thread"), default="process")
    library = Path(sysconfig.get_paths()["stdlib"])
    add("--folder", type=_folder, default=library, help="default: Python's standard library")
    add("--files", type=int, default=FILES, metavar="N", help="at most so many; default: 150")
    add("--need", type=_some, default=NEED, metavar="N", help="stop at so many; default: 3")
    add("--at-once", type=_some, default=AT_ONCE, metavar="N", help="trials under way; default: 2")
    add("--goal", type=float, default=GOAL, metavar="SHARE", help="good enough; default: 0.25")
    return parser.parse_args(argv)


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return Path(text)


def _some(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= len(settings()):
        raise argparse.ArgumentTypeError(f"{text} of {len(settings())} settings; write 3, say")
    return int(text)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ConfigError, StoreError) as err:  # such as a wrong --url; nothing to be traced
        sys.exit(f"sweep: {err}")
    except KeyboardInterrupt:
        sys.exit(130)
