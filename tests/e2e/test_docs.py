# SPDX-License-Identifier: MIT
"""README and docs as they stand: every snippet runs, every link leads somewhere, tables agree.

A page is read from top to bottom in a folder of its own. A ``python`` block that begins with
``# name.py`` is a file, any other one runs; ``pycon`` blocks run as doctests; in ``console`` blocks
what follows ``$`` runs in a shell that lasts as long as the page, and what it prints must be as
shown (``...`` stands for anything). What must not run in a test (installing, cloning) stands in
``sh`` blocks.
"""

from __future__ import annotations

import doctest
import inspect
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flowq import FlowQ, RedisFlowQ, Result, Retry, SqliteFlowQ, branch
from flowq.policy import OPTIONS
from flowq.primitives.base import Composition
from flowq.states import FOREVER, RULES, N, State
from flowq.storage import Store
from tests.servers import RedisServer

ROOT = Path(__file__).resolve().parents[2]
DESIGN = {"docs/design.md", "docs/semantics.md"}  # of what will be, too
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if str(path.relative_to(ROOT)) not in DESIGN
)
BLOCK = re.compile(r"^```(?P<kind>[\w-]*)[^\n]*\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# ([\w/]+\.py)\n")
RUN = {"python", "pycon", "console"}
SHOWN = {"sh", "ini", "mermaid", "text", ""}
CHECKED = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


class Block(NamedTuple):
    kind: str
    text: str
    line: int


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(m["kind"], m["text"], text.count("\n", 0, m.start()) + 1)
        for m in BLOCK.finditer(text)
    ]


# --- snippets


class Shell:
    """One bash for a page; ends, with all that it started, when the page does."""

    def __init__(self, folder: Path) -> None:
        scripts = sysconfig.get_path("scripts")
        env = {
            **os.environ,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }
        self._log = (folder / ".stderr").open("wb")
        self._bash = subprocess.Popen(
            ["bash", "-m"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
        )
        self._folder = folder

    def run(self, command: str, seconds: float = 60.0) -> tuple[int, str]:
        """Give the exit status and what is printed; one that ends in ``&`` goes on behind."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        mark = f"--{secrets.token_hex(8)}--"
        if command.endswith("&"):
            command = f"{command[:-1]} >> .background 2>&1 &"
        self._bash.stdin.write(f"{command}\nstatus=$?; echo; echo {mark} $status\n")
        self._bash.stdin.flush()
        guard = threading.Timer(seconds, self._bash.kill)
        guard.start()
        lines: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(mark):
                status = int(line.split()[1])
                break
            lines.append(line)
        else:
            pytest.fail(f"{command!r} did not end in {seconds:g} s, after:\n{''.join(lines)}")
        guard.cancel()
        return status, "".join(lines)

    def log(self) -> str:
        """What went to standard error, and what those behind have said."""
        texts = []
        for name in (".stderr", ".background"):
            path = self._folder / name
            texts.append(path.read_text(errors="replace") if path.exists() else "")
        return "\n".join(texts)

    def close(self) -> None:
        """End the jobs as a user would, then the shell."""
        assert self._bash.stdin is not None
        try:
            self._bash.stdin.write("kill $(jobs -p) 2>/dev/null; wait\n")
            self._bash.stdin.close()
            self._bash.wait(30)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._bash.send_signal(signal.SIGKILL)
            self._bash.wait()
        assert self._bash.stdout is not None
        self._bash.stdout.close()
        self._log.close()


class Page:
    """Runs the blocks of one page, in order, in one namespace and one shell.

    `asks` is what the page tells its readers to add to commands that read, on a store that apps
    share.
    """

    def __init__(self, page: str, folder: Path, asks: str = "") -> None:
        self.page = page
        self.asks = asks
        self.folder = folder
        self.module = types.ModuleType("page_" + re.sub(r"\W", "_", page))
        self.shell: Shell | None = None

    def run(self, block: Block) -> None:
        name = FILE.match(block.text)
        if block.kind == "python" and name:
            path = self.folder / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            compile(block.text, str(path), "exec")
        elif block.kind == "python":
            padded = "\n" * block.line + block.text
            exec(compile(padded, str(ROOT / self.page), "exec"), self.module.__dict__)
        elif block.kind == "pycon":
            self.prompt(block)
        else:
            self.console(block)

    def prompt(self, block: Block) -> None:
        example = doctest.DocTestParser().get_doctest(
            block.text, self.module.__dict__, self.page, str(ROOT / self.page), block.line
        )
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=CHECKED)
        failed = runner.run(example, out=said.append, clear_globs=False).failed
        self.module.__dict__.update(example.globs)
        assert not failed, "".join(said)

    def console(self, block: Block) -> None:
        self.shell = self.shell or Shell(self.folder)
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            command = re.sub(r"^flowq (status|run|dead).*", rf"\g<0>{self.asks}", command)
            status, printed = self.shell.run(command)
            if command.startswith("kill"):
                continue  # the status is that of what was killed
            checker = doctest.OutputChecker()
            as_shown = checker.check_output(
                f"{expected.strip()}\n", f"{printed.strip()}\n", CHECKED
            )
            if status or not as_shown:
                pytest.fail(
                    f"$ {command}\nexit status {status}\nexpected:\n{expected}\n"
                    f"printed:\n{printed}\n{self.shell.log()}"
                )

    def close(self) -> None:
        if self.shell is not None:
            self.shell.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that is the present one and on the path, as where a reader sits."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if name.startswith("page_") or (file and Path(file).is_relative_to(tmp_path)):
            del sys.modules[name]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [p for p in PAGES if any(b.kind in RUN for b in blocks_of(p))])
def test_the_snippets_of_a_page_run_in_order(page: str, folder: Path) -> None:
    read(Page(page, folder))


@pytest.mark.timeout(300)
def test_the_tutorial_is_the_same_on_redis(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("FLOWQ_TEST_NO_REDIS") == "1":
        pytest.skip("FLOWQ_TEST_NO_REDIS=1")
    with RedisServer() as server:  # its own: the apps of a page have fixed names
        monkeypatch.setenv("FLOWQ_URL", server.url)
        read(Page("docs/tutorial.md", folder, asks=" --name shop"))


def read(reader: Page) -> None:
    """Do what a reader of the page does."""
    page = reader.page
    sys.modules[reader.module.__name__] = reader.module
    try:
        for block in blocks_of(page):
            if block.kind in RUN:
                try:
                    reader.run(block)
                except Exception as err:
                    log = reader.shell.log() if reader.shell else ""
                    raise AssertionError(f"{page}, line {block.line}: {err!r}\n{log}") from err
    finally:
        reader.close()


@pytest.mark.parametrize("page", PAGES)
def test_every_snippet_is_run_or_is_of_a_kind_that_cannot(page: str) -> None:
    for block in blocks_of(page):
        assert block.kind in RUN | SHOWN, f"line {block.line}"


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_a_page_names_exists(page: str) -> None:
    help_ = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = set(re.findall(r"^make (\w+)", help_.stdout, re.MULTILINE)) | {"help"}

    text = (ROOT / page).read_text(encoding="utf-8")
    shown = re.findall(r"`make (\w+)`", text)
    for block in blocks_of(page):
        if block.kind in ("sh", "console"):
            for line in block.text.splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                shown += words[1:2] if words[:1] == ["make"] else []

    assert set(shown) <= targets


# --- words


def headings(path: Path) -> set[str]:
    """The anchors of a page, as GitHub and most others make them."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    path = ROOT / page
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))

    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        goal = (path.parent / file).resolve() if file else path
        assert goal.exists(), target
        if anchor:
            assert anchor in headings(goal), target


def test_the_generated_parts_are_what_the_code_says() -> None:
    out = subprocess.run(
        [sys.executable, "tools/gen_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )

    assert out.returncode == 0, out.stdout + out.stderr


def rows_of(section: str) -> list[list[str]]:
    """The rows of the first table in a section of the semantics."""
    text = (ROOT / "docs/semantics.md").read_text(encoding="utf-8")
    body = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = [line for line in body.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", row.strip("|"))] for row in rows]
    return [row for row in cells[2:] if row]


def test_the_semantics_name_every_state_in_the_order_of_the_table() -> None:
    names = [row[0].strip("`") for row in rows_of("2. States")]

    assert names == [state.label for state in State]


def test_the_semantics_give_the_numbers_of_every_trigger_rule() -> None:
    words = {"n": N, "∞": FOREVER}
    said: dict[str, tuple[Any, ...]] = {}
    for name, _, numbers in rows_of("3. Trigger rules"):
        values = tuple(words.get(x.strip(), x.strip()) for x in numbers.split(","))
        for one in re.findall(r"`(\w+)`", name):
            said[one] = values

    for name, (rule, _) in RULES.items():
        found = said[name]
        if name == "one_success":  # shares its row with at_least(k)
            assert found[0] == "k"
            found = (1, *found[1:])
        assert tuple(int(x) for x in found) == tuple(rule), name


def test_the_architecture_names_every_method_of_a_store_and_every_module_of_a_layer() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    contract = text.partition("\n## The store's contract\n")[2].partition("\n### ")[0]
    named = {
        word
        for row in re.findall(r"^\| (`.*?) \|", contract, re.MULTILINE)
        for word in re.findall(r"`(\w+)`", row)
    }
    layers = text.partition("\n## Layers\n")[2].partition("\n## ")[0]
    placed = {word.partition("/")[0] for word in re.findall(r"`([\w/]+)`", layers)}

    assert named == {name for name in vars(Store) if not name.startswith("_")}
    modules = {path.stem for path in (ROOT / "flowq").iterdir() if not path.name.startswith("_")}
    assert modules - {"py"} <= placed


def test_the_guides_use_only_options_that_exist() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            if block.kind in ("python", "pycon"):
                for inside in re.findall(r"@q\.task\(([^)]*)\)", block.text):
                    names = re.findall(r"(\w+)=", inside)
                    assert set(names) <= set(OPTIONS), f"{page}, line {block.line}"


@pytest.mark.parametrize("page", [page for page in PAGES if "/from-" in page])
def test_those_who_come_from_elsewhere_are_told_options_that_exist(page: str) -> None:
    takes = (FlowQ, SqliteFlowQ, RedisFlowQ, Composition.test, Result.get, Retry, branch)
    known = set(OPTIONS).union(*(inspect.signature(each).parameters for each in takes))
    of_tasks = {"b", "day"}  # arguments of the tasks that the pages show

    text = (ROOT / page).read_text(encoding="utf-8")
    rows = [re.split(r"(?<!\\)\|", row) for row in re.findall(r"^\|(.*)\|$", text, re.MULTILINE)]
    said = {name for *_, ours in rows for name in re.findall(r"\b(\w+)=", ours)}

    assert said
    assert said <= known | of_tasks


def test_nothing_shows_where_it_was_written() -> None:
    hosts = re.compile(r"(?i)\bpypi\b|/work/|/tmp/|registry")

    for page in PAGES:
        assert not hosts.search((ROOT / page).read_text(encoding="utf-8")), page


def test_a_shell_of_a_page_leaves_nothing_running(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.run("sleep 600 &")
    pid = int(shell.run("echo $!")[1])

    shell.close()

    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
