# SPDX-License-Identifier: MIT
"""Map-reduce over text: the most frequent words in the source of Python's standard library.

Each mapper reads some files and splits its counts into as many parts as there are reducers, by
the first letter of the word; each reducer gets its part of every mapper (``mapper[2]`` is an edge
that carries one item of a value, not all of it); the last task puts the best together.

    read-00 ─┬─[0]─► reduce-0 ─┐
             └─[1]─► reduce-1 ─┼─► best
    read-01 ─┬─[0]─► reduce-0 ─┘
             └─[1]─► …

    python examples/pipelines/wordcount_stdlib.py --top 10
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from flowq import DAG, ConfigError, FlowQ, StoreError

WORD = re.compile(r"[^\W\d_]{3,}")

q = FlowQ("wordcount_stdlib")


# --- the tasks -----------------------------------------------------------------------------------


@q.task
def read(paths: list[str], parts: int) -> list[dict[str, int]]:
    """Count the words of some files, in one dict for each reducer."""
    out: list[dict[str, int]] = [{} for _ in range(parts)]
    for word, count in words_of(paths).items():
        out[ord(word[0]) % parts][word] = count
    return out


@q.task
def reduce(counts: list[dict[str, int]], top: int) -> tuple[int, int, list[tuple[str, int]]]:
    """Add up one part; gives how many words, how many different ones, and the most frequent."""
    whole: Counter[str] = Counter()
    for part in counts:
        whole.update(part)
    return whole.total(), len(whole), best_of(whole, top)


@q.task
def best(
    parts: list[tuple[int, int, list[tuple[str, int]]]], top: int
) -> tuple[int, int, list[tuple[str, int]]]:
    """Put the parts together: no word is in two of them."""
    found = Counter(dict(pair for _, _, pairs in parts for pair in pairs))
    return sum(p[0] for p in parts), sum(p[1] for p in parts), best_of(found, top)


# --- the computation -----------------------------------------------------------------------------


def words_of(paths: Iterable[str]) -> Counter[str]:
    """Count the words of files, in lower case."""
    words: Counter[str] = Counter()
    for path in paths:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        words.update(word.lower() for word in WORD.findall(text))
    return words


def best_of(words: Counter[str], top: int) -> list[tuple[str, int]]:
    """Give the most frequent words; those as frequent as each other by the alphabet."""
    return sorted(words.items(), key=lambda pair: (-pair[1], pair[0]))[:top]


def sources(limit: int | None = None) -> list[str]:
    """List the standard library's source files, its own tests left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "test", "tests", "__pycache__", "lib2to3"}
    found = (p for p in root.rglob("*.py") if skipped.isdisjoint(p.relative_to(root).parts))
    return [str(path) for path in sorted(found)[:limit]]


# --- the pipeline --------------------------------------------------------------------------------


def pipeline(paths: Sequence[str], mappers: int, reducers: int, top: int) -> DAG:
    """Build the graph: every mapper feeds every reducer."""
    dag = DAG("wordcount")
    readers = [
        dag.add(read.s(list(paths[i::mappers]), reducers), name=f"read-{i:02}")
        for i in range(mappers)
    ]
    parts = [
        dag.add(reduce.s([reader[k] for reader in readers], top), name=f"reduce-{k}")
        for k in range(reducers)
    ]
    dag.add(best.s(parts, top), name="best")
    return dag


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    q.use_url(args.url)
    paths = sources(args.files)
    with q.consumer(workers=args.workers, kind=args.kind):
        began = time.perf_counter()
        run = pipeline(paths, args.mappers, args.reducers, args.top).start()
        total, different, words = run.get(blocking=True)
        took = time.perf_counter() - began
    print(f"{len(paths):,} files: {total:,} words, {different:,} different, in {took:.1f} s")
    for word, count in words:
        print(f"{count:9,}  {word}")

    serial = words_of(paths)
    same = (total, different, words) == (serial.total(), len(serial), best_of(serial, args.top))
    print("check: " + ("the same as in one loop" if same else "THE FIGURES DIFFER"))
    return 0 if same else 1


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    here = Path(__file__).resolve().parent / "out"
    here.mkdir(exist_ok=True)
    parser = argparse.ArgumentParser(description="Map-reduce over Python's standard library.")
    url = os.environ.get("FLOWQ_URL") or f"sqlite:///{here / 'wordcount.db'}"
    parser.add_argument("--url", default=url, help="store; FLOWQ_URL, else a SQLite file in out/")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--kind", choices=("process", "thread"), default="process")
    parser.add_argument("--files", type=int, metavar="N", help="only the first N files")
    parser.add_argument("--mappers", type=int, default=12, metavar="N")
    parser.add_argument("--reducers", type=int, default=4, metavar="N")
    parser.add_argument("--top", type=int, default=15, metavar="N")
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ConfigError, StoreError) as err:  # such as a wrong --url; nothing to be traced
        sys.exit(f"wordcount_stdlib: {err}")
    except KeyboardInterrupt:
        sys.exit(130)
