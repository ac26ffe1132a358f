# SPDX-License-Identifier: MIT
"""Huey's contender, in the configuration that was found fastest for it."""

from __future__ import annotations

import os

from huey import RedisHuey, SqliteHuey

from benchmarks import work

if _path := os.environ.get("BENCH_SQLITE"):
    huey = SqliteHuey("bench", filename=_path, timeout=30, fsync=True)
else:
    huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"])
add = huey.task(name="add")(work.add)
