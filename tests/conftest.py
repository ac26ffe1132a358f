# SPDX-License-Identifier: MIT
"""What all tests share: the server, names of stores, the profile of the random cases.

Every test gets a store name of its own, so that they can share one server, also one that is not
theirs (``FLOWQ_TEST_REDIS_URL``): nothing is ever flushed.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest

from tests.servers import NoServer, RedisServer, find_server

# A developer's own settings (FLOWQ_URL, ...) are not the tests'; a test sets what it needs.
for _name in [n for n in os.environ if n.startswith("FLOWQ_") and not n.startswith("FLOWQ_TEST_")]:
    del os.environ[_name]


def hear_interrupts() -> None:
    """Let what tests start hear Ctrl-C: a script's ``pytest &`` inherits that it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


hear_interrupts()


def keep_bytecode() -> None:
    """Let interpreters that tests start find what was compiled, also where nothing may be kept.

    With ``PYTHONDONTWRITEBYTECODE`` in a container whose packages are not compiled, each of some
    thousand interpreters would compile all that it imports: most of its time. It goes into a folder
    of its own, and not beside the sources, which is what was asked for.
    """
    if not os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        return  # also in the processes of xdist, which are started in the environment set below
    folder, owner = tempfile.mkdtemp(prefix="fq-pyc-"), os.getpid()
    os.environ["PYTHONPYCACHEPREFIX"] = folder

    def remove() -> None:
        if os.getpid() == owner:  # not a fork of it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)


keep_bytecode()

# Asserts of the shipped suite, and of what tests share, explain themselves as those of tests do.
pytest.register_assert_rewrite("flowq.testing", "tests.model")

# Read by mypy and pyright, not run.
collect_ignore = ["typing"]

# A time limit a case would fail on a busy machine; pytest's own limit is enough. CI draws the same
# cases each time, so that what passed passes again; developers' machines draw new ones.
hypothesis.settings.register_profile("dev", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.register_profile("long", deadline=None, print_blob=True, max_examples=2000)
hypothesis.settings.load_profile(
    os.environ.get("FLOWQ_TEST_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)


def pytest_report_header() -> str:
    """Say which server the tests use, so that a report can be read later."""
    if os.environ.get("FLOWQ_TEST_NO_REDIS") == "1":
        return "redis: left out (FLOWQ_TEST_NO_REDIS=1)"
    if url := os.environ.get("FLOWQ_TEST_REDIS_URL"):
        return f"redis: {url.rpartition('@')[2]} (FLOWQ_TEST_REDIS_URL)"
    try:
        return f"redis: {find_server()}"
    except NoServer:
        return "redis: none found"


def _redis_or_skip() -> None:
    if os.environ.get("FLOWQ_TEST_NO_REDIS") == "1":
        pytest.skip("FLOWQ_TEST_NO_REDIS=1")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer | None]:
    """The server that tests share; None if it is one that was given to them. Don't stop it."""
    _redis_or_skip()
    if os.environ.get("FLOWQ_TEST_REDIS_URL"):
        yield None
        return
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer | None) -> str:
    """Where the shared server is, as ``FlowQ(url=...)`` takes it."""
    return redis_server.url if redis_server else os.environ["FLOWQ_TEST_REDIS_URL"]


@pytest.fixture
def private_redis() -> Iterator[RedisServer]:
    """A server for one test, with a file that survives it: to kill, pause and start again."""
    _redis_or_skip()
    with RedisServer(aof=True, tcp=True) as server:
        yield server


@pytest.fixture
def store_name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for ``FlowQ(name=...)`` that no other test has, now or later."""
    name = f"t{secrets.token_hex(6)}"
    yield name
    url = os.environ.get("FLOWQ_TEST_REDIS_URL")
    if url and "redis_url" in request.fixturenames:
        _remove_keys(url, name)


def _remove_keys(url: str, name: str) -> None:
    """Leave a server that is not ours as it was."""
    import redis

    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"*{name}*", count=1000):
            client.unlink(key)
