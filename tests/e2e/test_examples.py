# SPDX-License-Identifier: MIT
"""The examples as a user runs them: on both stores, with processes and threads, and killed."""

from __future__ import annotations

import csv
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from flowq.message import id_bytes
from tests.servers import RedisServer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "pipelines"
FLOWQ = os.path.join(sysconfig.get_path("scripts"), "flowq")
STORES = ("sqlite", "redis")

# What a stranger can count again from the source: all rows, and those without a departure.
ALL_FLIGHTS, NEVER_LEFT, AIRLINES = 336_776, 8_255, 16
SLICE = ["--months", "1-3", "--rows", "1500"]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server of this file's own: the examples' apps have fixed names."""
    if os.environ.get("FLOWQ_TEST_NO_REDIS") == "1":
        pytest.skip("FLOWQ_TEST_NO_REDIS=1")
    with RedisServer() as server:
        yield server


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the state goes, on each store in turn."""
    if request.param == "redis":
        return str(request.getfixturevalue("server").url)
    return f"sqlite:///{tmp_path / 'flowq.db'}"


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The nightly example as a module, for looking at its runs and its computation."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(EXAMPLES)
    import nightly_etl

    yield nightly_etl
    nightly_etl.q.store.close()
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).parent == EXAMPLES:
            del sys.modules[name]


def run(example: str, *args: str | Path, check: bool = True) -> str:
    """Run an example to its end; gives what it printed."""
    out = subprocess.run(
        [sys.executable, EXAMPLES / example, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    if check:
        assert out.returncode == 0, out.stdout + out.stderr
    return out.stdout


def figures(folder: Path) -> dict[str, Any]:
    """What a report says, as data."""
    found: dict[str, Any] = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    return found


@functools.cache
def in_one_go(months: tuple[int, ...], rows: int) -> str:
    """What a report must say, as text: the same for every store, so it is computed once."""
    import flights

    return json.dumps(flights.in_one_go(months, rows))


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until it holds; gives what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)
    return found


# --- the nightly job


@pytest.mark.timeout(240)
def test_the_demo_counts_every_flight(job: Any, tmp_path: Path) -> None:
    # given, when
    printed = run("nightly_etl.py", "--out", tmp_path)

    # then: the totals are known, and every figure is that of one pass without flowq
    totals = figures(tmp_path)["totals"]
    assert (totals["flights"], totals["cancelled"]) == (ALL_FLIGHTS, NEVER_LEFT)
    assert totals["carriers"] == AIRLINES
    assert "the same figures in one go" in printed
    assert not list((tmp_path / "work").iterdir()), "the working folder is gone"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_the_report_is_the_same_on_every_store_and_pool(
    job: Any, url: str, kind: str, tmp_path: Path
) -> None:
    # given, when
    printed = run("nightly_etl.py", *SLICE, "--out", tmp_path, "--url", url, "--kind", kind)

    # then
    assert figures(tmp_path) == json.loads(in_one_go((1, 2, 3), 1500))
    assert figures(tmp_path)["totals"]["flights"] == 4500
    for step in ("extract", "tables", "clean-01", "clean-03", "join", "report"):
        assert re.search(rf"{step} +success", printed), step
    svg = ElementTree.parse(tmp_path / "delays.svg").getroot()
    assert svg.tag.endswith("svg")
    assert "Leaving New York late" in (tmp_path / "report.html").read_text(encoding="utf-8")
    with open(tmp_path / "delays.csv", encoding="utf-8", newline="") as file:
        assert sum(int(row["flights"]) for row in csv.DictReader(file)) == 4500


class Worker:
    """``flowq worker nightly_etl:q``, to be killed."""

    def __init__(self, url: str, log: Path) -> None:
        command = [FLOWQ, "worker"]
        command += ["nightly_etl:q", "-w", "2", "-k", "process", "--url", url]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command, cwd=EXAMPLES, stdout=file, stderr=file, start_new_session=True
            )

    def kill(self) -> None:
        """The consumer dies; its workers must notice by themselves."""
        self.process.kill()
        self.process.wait()

    def kill_all(self) -> None:
        """The consumer and its workers die at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """End it as an administrator would."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.mark.timeout(240)
def test_kills_in_the_middle_change_nothing(job: Any, url: str, tmp_path: Path) -> None:
    # given a run of 18 steps, and no worker yet
    log = tmp_path / "worker.log"
    job.q.use_url(url)
    months = list(job.flights.MONTHS)
    started = job.start(months, 6000, tmp_path)
    work = job.work_of(started.id, tmp_path)
    settled: list[tuple[set[str], Counter[str]]] = []

    def done() -> set[str]:
        return {node.name for node in started.nodes() if str(node.state) == "success"}

    def executions() -> Counter[str]:
        path = work / "executions.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return Counter(json.loads(line)["node"] for line in lines)

    # when the consumer is killed three times in the middle, and started again each time
    for enough, kill in ((1, Worker.kill_all), (5, Worker.kill), (10, Worker.kill_all)):
        worker = Worker(url, log)
        until(lambda: len(done()) >= enough)  # noqa: B023
        kill(worker)
        assert not started.ready, "killed too late to be in the middle"
        settled.append((done(), executions()))
    worker = Worker(url, log)
    value = started.get(timeout=120)
    assert worker.stop() == 0, log.read_text()

    # then the report is the same, and nothing that had been settled ran again
    assert figures(work / "report") == json.loads(in_one_go(tuple(months), 6000))
    assert value["totals"]["flights"] == 12 * 6000
    final = executions()
    for names, before in settled:
        assert {n: final[n] for n in names} == {n: before[n] for n in names}
    assert set(final) == {node.name for node in started.nodes() if node.task}
    assert final.total() <= 18 + 3 * 2, "each kill costs at most what its two workers ran"
    assert job.q.store.check(id_bytes(started.id)) == []


@pytest.mark.timeout(180)
def test_the_script_itself_may_be_killed_and_resumed(job: Any, url: str, tmp_path: Path) -> None:
    # given a script that is killed with all its workers once some steps have ended
    args = ["--rows", "6000", "--out", str(tmp_path), "--url", url]
    script = subprocess.Popen(
        [sys.executable, EXAMPLES / "nightly_etl.py", *args],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert script.stdout is not None
    run_id = script.stdout.readline().split()[1]
    job.q.use_url(url)
    until(lambda: sum(str(n.state) == "success" for n in job.q.run(run_id).nodes()) >= 4)
    os.killpg(script.pid, signal.SIGKILL)
    script.wait()
    script.stdout.close()

    # when
    printed = run("nightly_etl.py", *args, "--resume", run_id)

    # then
    assert "the same figures in one go" in printed
    assert figures(tmp_path)["totals"]["flights"] == 12 * 6000


@pytest.mark.timeout(180)
def test_after_a_ctrl_c_the_command_that_is_told_goes_on(tmp_path: Path) -> None:
    # given the job, stopped at its terminal when a step has ended
    script = subprocess.Popen(
        [sys.executable, EXAMPLES / "nightly_etl.py", "--rows", "6000", "--out", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert script.stdout is not None
    while "success" not in script.stdout.readline():
        assert script.poll() is None
    os.killpg(script.pid, signal.SIGINT)
    _, told = script.communicate(timeout=60)
    assert script.returncode == 130
    assert "Traceback" not in told

    # when what it says is typed
    command = told.strip().rpartition("Go on with: ")[2]
    out = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)

    # then
    assert out.returncode == 0, out.stderr
    assert figures(tmp_path)["totals"]["flights"] == 12 * 6000


@pytest.mark.timeout(120)
def test_workers_may_be_started_elsewhere(url: str, tmp_path: Path) -> None:
    worker = Worker(url, tmp_path / "worker.log")
    try:
        printed = run("nightly_etl.py", *SLICE, "--out", tmp_path, "--url", url, "--no-worker")
    finally:
        status = worker.stop()

    assert status == 0
    assert "flowq worker nightly_etl:q" in printed
    assert figures(tmp_path)["totals"]["flights"] == 4500


# --- the nightly job as a flow


@pytest.fixture
def nightly(job: Any) -> Any:
    """The same job as a flow, as a module beside the other."""
    import nightly_flow

    return nightly_flow


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_the_flow_finds_the_months_and_gives_the_same_report(
    url: str, kind: str, tmp_path: Path
) -> None:
    # given, when
    printed = run("nightly_flow.py", *SLICE, "--out", tmp_path, "--url", url, "--kind", kind)

    # then: the example has compared them with the same computation in one go
    assert "the same figures in one go" in printed
    assert figures(tmp_path)["totals"]["flights"] == 4500
    for step in ("months", "extract", "clean", "clean[0]", "clean[2]", "report", "finally/sweep"):
        assert re.search(rf"{re.escape(step)} +success", printed), printed
    assert re.search(r"on_failure/alert +skipped", printed), printed


def test_a_night_that_fails_is_told_and_swept(nightly: Any, tmp_path: Path) -> None:
    # given a night whose second month cannot be cleaned, and what a killed worker left behind
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / ".02.csv-x7").write_text("half")
    graph = nightly.build([1, 2, 3], 200, str(tmp_path))

    # when
    night = graph.test(fail={"clean[1]": ValueError("no such column: hour")})

    # then
    states = {node.name: str(node.state) for node in night.nodes()}
    assert str(night.state) == "failed"
    assert (states["clean[0]"], states["clean[1]"], states["report"]) == (
        "success",
        "failed",
        "blocked",
    )
    told = (tmp_path / "alert.txt").read_text(encoding="utf-8")
    assert told.startswith("clean[1] failed: ValueError('no such column: hour')")
    assert night.result("finally/sweep").get() == 1
    assert not (tmp_path / "raw" / ".02.csv-x7").exists()
    assert (tmp_path / "raw" / "01.csv").exists(), "what a retry needs stays"


def test_a_month_that_is_not_in_the_file_is_not_cleaned(nightly: Any, tmp_path: Path) -> None:
    graph = nightly.build([1, 2], 100, str(tmp_path))

    night = graph.test(values={"months": [2]})

    assert [n.name for n in night.nodes() if n.name.startswith("clean")] == ["clean", "clean[0]"]
    assert night.get()["totals"]["flights"] == 100


@pytest.mark.parametrize("example", ["nightly_flow", "documents", "approval", "sweep"])
def test_its_flows_pass_the_check_that_users_run_in_ci(example: str) -> None:
    out = subprocess.run(
        [FLOWQ, "flow", "check", "-A", f"{example}:q"],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
    )

    assert out.returncode == 0, out.stdout + out.stderr
    assert f"{example}." in out.stdout


# --- documents and a crawl


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real files, two of which cannot be read as what they say they are."""
    folder = tmp_path_factory.mktemp("papers")
    for path in [*(ROOT / "docs").rglob("*.md"), *EXAMPLES.glob("*.py")]:
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (folder / "old.py").write_text('print "hello"\n')
    (folder / "half.py").write_text("def f(:\n")
    (folder / "picture.png").write_bytes(b"\x89PNG\0")
    return folder


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_each_document_is_read_in_the_way_of_its_kind(url: str, kind: str, papers: Path) -> None:
    printed = run(
        *("documents.py", "--folder", papers, "--tolerate", "0.2"), "--url", url, "--kind", kind
    )

    modules, texts = len(list(EXAMPLES.glob("*.py"))), len(list((ROOT / "docs").rglob("*.md")))
    assert re.search(rf"^  code   files {modules}  classes", printed, re.MULTILINE), printed
    assert re.search(rf"^  text   files {texts}  lines", printed, re.MULTILINE), printed
    assert "  other  files 1  bytes 5  binary 1" in printed
    assert re.findall(r"^  unread (\w+)\.py: SyntaxError", printed, re.MULTILINE) == ["half", "old"]
    assert "check: the same as in one loop" in printed


def test_too_many_documents_that_cannot_be_read_fail_the_run(papers: Path, tmp_path: Path) -> None:
    out = subprocess.run(
        [
            *(sys.executable, EXAMPLES / "documents.py", "--folder", papers, "--kind", "thread"),
            *("--tolerate", "0.01", "--url", f"sqlite:///{tmp_path / 'd.db'}"),
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert out.returncode == 1
    assert "read_code failed: SyntaxError" in out.stderr


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_the_crawl_finds_every_page_of_the_site(url: str, kind: str, papers: Path) -> None:
    printed = run("crawl.py", "--folder", papers, "--url", url, "--kind", kind)

    pages = sum(path.is_file() for path in papers.rglob("*"))
    assert printed.startswith(f"{pages} pages, ")
    assert "  /docs/semantics.md" in printed
    assert "check: the same as on disk" in printed


# --- an approval


@pytest.fixture
def letters(papers: Path, tmp_path: Path) -> Path:
    """A folder that may be removed."""
    return Path(shutil.copytree(papers / "docs", tmp_path / "letters"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def unpacked(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_run_that_was_left_waiting_goes_on_by_the_answer(
    url: str, kind: str, letters: Path, tmp_path: Path
) -> None:
    # given a run that asks; whoever started it, and its workers, have ended since
    before, archive = contents(letters), tmp_path / "letters.zip"
    where = ("--url", url, "--kind", kind)
    folder = ("--folder", letters, "--archive", archive, "--remove")
    asked = run("approval.py", *where, *folder)
    told = re.search(r"^run (\S+)$", asked, re.MULTILINE)
    assert told is not None
    assert f"{len(before)} files, {sum(map(len, before.values())):,} bytes" in asked
    assert not archive.exists()
    assert contents(letters) == before

    # when somebody says yes
    printed = run("approval.py", *where, "--approve", told[1])

    # then it is done, and a second answer comes too late
    assert "check: the same as on disk" in printed
    assert f"removed: {len(before)} files" in printed
    assert unpacked(archive) == before
    assert contents(letters) == {}
    late = subprocess.run(
        [sys.executable, EXAMPLES / "approval.py", *where, "--reject", told[1]],
        capture_output=True,
        text=True,
    )
    assert late.returncode == 1
    assert "has ended" in late.stderr and "Traceback" not in late.stderr


@pytest.mark.timeout(120)
def test_an_answer_reaches_a_run_whose_process_was_killed(
    url: str, letters: Path, tmp_path: Path
) -> None:
    # given a process that waits for the answer, killed with its workers
    before, archive = contents(letters), tmp_path / "letters.zip"
    args = ["--folder", str(letters), "--archive", str(archive), "--stay", "--url", url]
    script = subprocess.Popen(
        [sys.executable, EXAMPLES / "approval.py", *args],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert script.stdout is not None
    run_id = script.stdout.readline().split()[1]
    os.killpg(script.pid, signal.SIGKILL)
    script.wait()
    script.stdout.close()

    # when the answer comes by the command line, and a consumer some time later
    sent = subprocess.run(
        [FLOWQ, "run", "send", "-A", "approval:q", "--url", url, run_id, "verdict", "approve"],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
    )
    assert sent.returncode == 0, sent.stderr
    printed = run("approval.py", "--url", url, "--resume", run_id)

    # then
    assert "check: the same as on disk" in printed
    assert unpacked(archive) == before == contents(letters)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_who_says_no_or_nothing_has_not_approved(
    url: str, kind: str, letters: Path, tmp_path: Path
) -> None:
    before, archive = contents(letters), tmp_path / "letters.zip"
    where = ("--url", url, "--kind", kind)
    folder = ("--folder", letters, "--archive", archive, "--remove")

    silent = run("approval.py", *where, *folder, "--stay", "--within", "0.2")
    asked = run("approval.py", *where, *folder)
    no = run("approval.py", *where, "--reject", asked.split()[1])

    assert "kept: the answer was silence\ncheck: the same as on disk" in silent
    assert "kept: the answer was reject\ncheck: the same as on disk" in no
    assert contents(letters) == before
    assert not archive.exists()


@pytest.mark.timeout(120)
def test_what_changed_after_the_question_is_not_packed(letters: Path, tmp_path: Path) -> None:
    where = ("--url", f"sqlite:///{tmp_path / 'a.db'}", "--kind", "thread")
    archive = tmp_path / "letters.zip"
    asked = run("approval.py", *where, "--folder", letters, "--archive", archive, "--remove")
    (letters / "index.md").write_text("another", encoding="utf-8")
    before = contents(letters)

    out = subprocess.run(
        [sys.executable, EXAMPLES / "approval.py", *where, "--approve", asked.split()[1]],
        capture_output=True,
        text=True,
    )

    assert out.returncode == 1
    assert "index.md is not what it was" in out.stderr
    assert contents(letters) == before
    assert not [path.name for path in tmp_path.iterdir() if "zip" in path.name]


# --- a sweep


SWEEP = ("sweep.py", "--files", "60", "--goal", "0.45")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_the_sweep_ends_when_enough_settings_are_good_enough(url: str, kind: str) -> None:
    printed = run(*SWEEP, "--need", "3", "--url", url, "--kind", kind)

    assert len(re.findall(r"kinds, penalty [\d.]+ +\d+\.\d\d% off$", printed, re.MULTILINE)) == 3
    told = re.search(
        r"^3 of 32 settings were enough: (\d+) tried, (\d+) never run\n(\d+) of 64 solvers ran$",
        printed,
        re.MULTILINE,
    )
    assert told is not None, printed
    tried, never, solvers = map(int, told.groups())
    assert 3 <= tried == 32 - never < 32
    assert 3 <= solvers <= 2 * tried
    assert "check: the same as in one loop" in printed


def test_a_goal_that_no_setting_reaches_is_told(tmp_path: Path) -> None:
    out = subprocess.run(
        [
            *(sys.executable, EXAMPLES / "sweep.py", "--files", "60", "--kind", "thread"),
            *("--goal", "0.0001", "--url", f"sqlite:///{tmp_path / 's.db'}"),
        ],
        capture_output=True,
        text=True,
    )

    assert out.returncode == 1
    assert "trial failed: fewer items succeeded than it needs" in out.stderr
    assert "Traceback" not in out.stderr


# --- the others


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_fan_out_counts_the_primes(url: str, kind: str) -> None:
    printed = run("fan_out.py", "--limit", "100000", "--url", url, "--kind", kind)

    assert re.findall(r"([\d,]+)(?: primes below 100,000)?$", printed, re.MULTILINE) == (
        ["9,592"] * 3
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_the_word_count_is_that_of_one_loop(url: str, kind: str) -> None:
    printed = run(
        "wordcount_stdlib.py", "--files", "60", "--top", "3", "--url", url, "--kind", kind
    )

    assert "60 files" in printed
    assert re.search(r"^ +[\d,]+  self$", printed, re.MULTILINE)
    assert "check: the same as in one loop" in printed


@pytest.mark.timeout(180)
def test_the_first_steps_show_what_they_say(url: str) -> None:
    printed = run("first_steps.py", "--url", url)

    for line in (
        "add(2, 3) = 5",
        "at once: None; later: slept 0.5 s",
        "100 tasks, one worker: the sum is 9,900",
        "60 tasks ran in 5 processes",
        "state     scheduled",
        "args      (20, 22)",
        "priority  5",
        "after a cancel: cancelled",
        "first_steps.divide failed after 3 attempts: ZeroDivisionError('division by zero')",
        "was it a ZeroDivisionError? True",
        "map: [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]",
        "42 HELLO! {'one': 3, 'three': 5}",
    ):
        assert line in printed.splitlines(), printed


def test_one_program_runs_by_itself_and_a_wrong_name_is_told(url: str) -> None:
    assert "add(2, 3) = 5" in run("first_steps.py", "call_and_wait", "--url", url)

    out = subprocess.run(
        [sys.executable, EXAMPLES / "first_steps.py", "nothing"], capture_output=True, text=True
    )

    assert out.returncode == 2
    assert "there is no program nothing" in out.stderr


@pytest.mark.parametrize(
    ("example", "args", "said"),
    [
        ("nightly_etl.py", ["--url", "http://h"], "begins with none of"),
        ("nightly_etl.py", ["--resume", "zzz"], "is not an id"),
        ("nightly_etl.py", ["--months", "13"], "write 1-12"),
        ("nightly_etl.py", ["--months", "May"], "write 1-12"),
        ("fan_out.py", ["--url", "unix:///nowhere/s"], "No such file"),
        ("fan_out.py", ["--workers", "0"], "between 1 and"),
        ("first_steps.py", ["--url", "sqlite:///no/such/folder.db"], "does not exist"),
        ("wordcount_stdlib.py", ["--url", "redis://:hush@127.0.0.1:1"], "refused"),
        ("nightly_flow.py", ["--months", "13"], "write 1-12"),
        ("documents.py", ["--tolerate", "2"], "write 0.05"),
        ("crawl.py", ["--url", "sqlite:///no/such/folder.db"], "does not exist"),
        ("approval.py", ["--url", "http://h"], "begins with none of"),
        ("approval.py", ["--approve", "zzz"], "is not an id"),
        ("approval.py", ["--remove"], "wants a --folder"),
        ("approval.py", ["--folder", "no/such"], "is no folder"),
        ("approval.py", ["--within", "-1"], "write 3600"),
        ("sweep.py", ["--url", "sqlite:///no/such/folder.db"], "does not exist"),
        ("sweep.py", ["--need", "0"], "write 3"),
        ("sweep.py", ["--folder", "no/such"], "is no folder"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith(".py") else "",
)
def test_a_mistake_is_told_and_not_traced(
    example: str, args: list[str], said: str, tmp_path: Path
) -> None:
    out = subprocess.run(
        [sys.executable, EXAMPLES / example, *args], cwd=tmp_path, capture_output=True, text=True
    )

    assert out.returncode in (1, 2)
    assert said in out.stderr
    assert "Traceback" not in out.stderr and "hush" not in out.stderr
