# SPDX-License-Identifier: MIT
"""The commands ``flowq`` and ``flowq_consumer``.

Each command's module is imported when it is called, and imports what it needs; ``--version`` and
``--help`` load none of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from flowq import __version__
from flowq.cli.output import INTERRUPTED, UNREACHABLE, USAGE, CliError, note

__all__ = ["Parser", "huey_main", "main", "parser"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line that names what is near."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """End with one line and status 2."""
        raise CliError(f"{message} ({self.prog} --help says more)")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; what is left over is an error that says what was meant, perhaps."""
        found, left = self.parse_known_args(args, namespace)
        if left:
            parser = getattr(found, "parser", self)
            raise CliError(parser.unknown(left[0]))
        return found

    def unknown(self, word: str) -> str:
        """Say that a word was not understood."""
        flag = word.partition("=")[0]
        if word.startswith("-"):
            return f"no flag {flag} for {self.prog}{_near(flag, self._option_string_actions)}"
        flags = self._option_string_actions
        if "://" in word:  # not repeated: it may hold a password
            return f"{self.prog} takes no URL as a word" + ("; --url URL" * ("--url" in flags))
        hint = f"; an app goes behind -A: {self.prog} -A {word}" if "-A" in flags else ""
        return f"{self.prog} does not take {word!r}{hint}"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            near = _near(str(value), known) or f"; there is {', '.join(known)}"
            what = "command" if isinstance(action, argparse._SubParsersAction) else "value"
            raise CliError(f"unknown {what} {value!r} for {self.prog}{near}")


def _near(word: str, known: Any) -> str:
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``flowq``; gives the exit status."""
    return _guarded(lambda: _run(sys.argv[1:] if argv is None else list(argv)))


def huey_main(argv: Sequence[str] | None = None) -> int:
    """Run ``flowq_consumer``, which takes the command line of ``huey_consumer``."""

    def run() -> int:
        from flowq.cli.huey import consume

        return consume(sys.argv[1:] if argv is None else list(argv))

    return _guarded(run)


def _guarded(run: Callable[[], int]) -> int:
    """Turn what goes wrong into one line and an exit status; a user's mistake has no traceback."""
    try:
        status = run()
        if sys.stdout is not None:  # None: started with it closed
            sys.stdout.flush()
        return status
    except CliError as err:
        note(f"flowq: {err}")
        return err.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as err:  # argparse, after --help or --version
        return err.code if isinstance(err.code, int) else USAGE
    except Exception as err:
        from flowq.errors import FlowqError, StoreUnavailable

        if not isinstance(err, FlowqError):
            raise
        away = isinstance(err, StoreUnavailable)
        hint = "; --url or FLOWQ_URL says where the store is" if away else ""
        note(f"flowq: {str(err).rstrip('.')}{hint}")
        return UNREACHABLE if away else USAGE


def _run(argv: list[str]) -> int:
    top = parser()
    first = argv[0].partition("=")[0] if argv else ""
    if first.startswith("-") and first not in top._option_string_actions:
        raise CliError(
            f"flags go behind the command, so {first} cannot come first; flowq --help lists them"
        )
    args = top.parse_args(argv)
    command = getattr(args, "call", None)
    if command is None:
        args.parser.print_help(sys.stderr)
        return USAGE
    module, function = command
    from importlib import import_module

    status: int = getattr(import_module(f"flowq.cli.{module}"), function)(args)
    return status


# --- the tree of commands ------------------------------------------------------------------------


def parser() -> Parser:
    """Make the tree of all commands."""
    top = Parser(prog="flowq", description="A task queue that runs whole pipelines.")
    top.add_argument("--version", action="version", version=f"flowq {__version__}")
    top.set_defaults(parser=top)
    nouns = top.add_subparsers(metavar="COMMAND", parser_class=Parser)
    _worker(nouns)
    status = _reader(nouns, "status", "Queue lengths, counts and live workers.", "status:status")
    status.description = "Queue lengths, counts and live workers."
    dead = _noun(nouns, "dead", "Messages that will not run, and why.")
    listed = _reader(dead, "list", "List dead letters, newest first.", "dead:list_dead")
    listed.add_argument("--limit", type=_number, default=100, help="rows at most (100)")
    _reader(dead, "show", "Show one dead letter.", "dead:show", "ID")
    runs = _noun(nouns, "run", "Runs of compositions, and their nodes.")
    listed = _reader(runs, "list", "List runs, newest first.", "run:list_runs")
    listed.add_argument("--flow", metavar="NAME", help="only runs of this flow")
    listed.add_argument("--state", help="only runs in this state")
    listed.add_argument("--limit", type=_number, default=20, help="rows at most (20)")
    shown = _reader(runs, "show", "Show a run's nodes with states and times.", "run:show", "ID")
    shown.add_argument(
        "--watch", action="store_true", help="follow it to its end; exit 1 if failed"
    )
    shown.add_argument("--state", help="only nodes in this state")
    shown.add_argument("--items", action="store_true", help="each item of large maps in a line")
    shown.add_argument("--limit", type=_number, default=500, help="nodes at most (500)")
    _controls(runs)
    _flows(nouns)
    task = _noun(nouns, "task", "Tasks and nodes.")
    _reader(task, "show", "Show what is known of a task or node.", "task:show", "ID")
    result = _reader(
        nouns, "result", "Print a result's repr; exit 1 if failed.", "task:result", "ID"
    )
    result.add_argument("--wait", action="store_true", help="wait until it has ended")
    result.add_argument("--timeout", type=_seconds, help="seconds to wait at most, then exit 5")
    return top


def _controls(runs: Any) -> None:
    """Add what follows, explains and stops a run."""
    watched = _reader(
        runs, "watch", "Follow a run to its end; exit 1 if failed.", "run:watch", "ID"
    )
    watched.add_argument("--timeout", type=_seconds, help="seconds to wait at most, then exit 5")
    told = _reader(runs, "events", "Print what begins and ends, as it does.", "seeing:events", "ID")
    told.add_argument("node", metavar="NODE", nargs="?", help="path of one of its nodes")
    told.add_argument("--after", metavar="ORDER", help="go on behind an event: its order")
    told.add_argument("--timeout", type=_seconds, help="seconds to wait at most, then exit 5")
    why = _reader(runs, "why", "Say why a run or a node is where it is.", "seeing:why", "ID")
    why.add_argument("node", metavar="NODE", nargs="?", help="path of one of its nodes")
    times = _reader(runs, "timeline", "Say where a run's time went.", "seeing:times", "ID")
    times.add_argument("--critical", action="store_true", help="only what its end waited for")
    drawn = _reader(runs, "graph", "Draw a run, or a flow, as Mermaid or SVG.", "seeing:graph")
    drawn.add_argument("--format", choices=("mermaid", "svg"), help="mermaid, or as -o ends")
    drawn.add_argument("-o", "--output", metavar="FILE", help="write it there")
    drawn.add_argument("what", metavar="ID", help="a run, or with -A the name of a flow")
    _parameters(drawn)
    stop = _reader(
        runs,
        "cancel",
        "Stop a run, node or task; exit 6 if it had ended.",
        "seeing:cancel",
        "ID",
    )
    stop.add_argument("node", metavar="NODE", nargs="?", help="path of one of its nodes")
    stop.add_argument("--force", action="store_true", help="end what is finally_ too")
    text = "Let nothing more of a run begin; exit 6 if it had ended."
    _reader(runs, "pause", text, "steering:pause", "ID")
    text = "Let a paused run go on; exit 6 if it had ended."
    _reader(runs, "resume", text, "steering:resume", "ID")
    text = "Send a value to a step that waits for it; exit 6 if the run had ended."
    sent = _reader(runs, "send", text, "steering:send", "ID")
    sent.add_argument("signal", metavar="NAME", help="as in wait_for(NAME)")
    sent.add_argument("value", metavar="VALUE", nargs="?", help="JSON, else text; none: null")
    sent.add_argument("--to", metavar="NODE", help="path of the step, or of what is around it")
    sent.add_argument("--once", metavar="KEY", help="a second send with this key changes nothing")
    text = "Run again what failed, while the rest of the run goes on."
    retry = _reader(runs, "retry", text, "seeing:retry", "ID")
    retry.add_argument("node", metavar="NODE", nargs="?", help="path of one node, forgiven or not")
    retry.add_argument("--forgiven", action="store_true", help="what was forgiven too")
    text = "Run a node again, and all that depends on it."
    rerun = _reader(runs, "rerun", text, "seeing:rerun", "ID")
    rerun.add_argument("node", metavar="NODE", help="path of the node; 0 is the whole run")
    text = "Start a run that takes over the values of one that has ended; prints its id."
    fork = _reader(runs, "fork", text, "seeing:fork", "ID")
    fork.add_argument("--from", dest="node", metavar="NODE", help="run this node and all below")
    _parameters(fork)
    for verb in (retry, rerun, fork):
        verb.add_argument("--watch", action="store_true", help="follow it; exit 1 if failed")


def _flows(nouns: Any) -> None:
    """Add what is asked of an app's flows."""
    flows = _noun(nouns, "flow", "Flows of an app: list, show, check, start.")
    _of_app(flows, "list", "List the flows of an app.", "flow:list_flows")
    shown = _of_app(flows, "show", "Show a flow's parameters, options and graph.", "flow:show")
    shown.add_argument("flow", metavar="NAME")
    shown.add_argument("--graph", action="store_true", help="print its graph as Mermaid text")
    _parameters(shown)
    check = _of_app(
        flows, "check", "Import, build and check each flow; exit 1 if one is wrong.", "flow:check"
    )
    check.add_argument("flow", metavar="NAME", nargs="*", help="all unless named")
    _parameters(check)
    start = _of_app(flows, "start", "Start a flow; prints the id of the run.", "flow:start")
    start.add_argument("flow", metavar="NAME")
    _parameters(start)
    start.add_argument("--key", help="idempotency key: the same one gives the run that exists")
    start.add_argument(
        "--watch", action="store_true", help="follow it to its end; exit 1 if failed"
    )
    start.add_argument("--wait", action="store_true", help="wait for its end; exit 1 if failed")
    start.add_argument("--timeout", type=_seconds, help="seconds to wait at most, then exit 5")


def _of_app(verbs: Any, name: str, text: str, call: str) -> Parser:
    """Add a command that imports an app."""
    parser: Parser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(parser=parser, call=tuple(call.split(":")))
    parser.add_argument("-A", "--app", metavar="APP", help="module:app; else FLOWQ_APP, else ...")
    parser.add_argument("--url", help="the store, whatever the app says")
    parser.add_argument("--json", action="store_true", default=None, help="for programs")
    return parser


def _parameters(parser: Parser) -> None:
    parser.add_argument(
        "-p",
        "--param",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an argument of the flow, read as its annotation says",
    )


def _noun(nouns: Any, name: str, text: str) -> Any:
    parser = nouns.add_parser(name, help=text, description=text)
    parser.set_defaults(parser=parser)
    return parser.add_subparsers(metavar="COMMAND", parser_class=Parser)


def _reader(verbs: Any, name: str, text: str, call: str, *positional: str) -> Parser:
    """Add a command that reads a store; it needs no user code."""
    parser: Parser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(parser=parser, call=tuple(call.split(":")))
    for word in positional:
        parser.add_argument(word.lower(), metavar=word, help="or the first characters of it")
    parser.add_argument(
        "--url", help="the store; else the app's, FLOWQ_URL, [tool.flowq], or flowq.db"
    )
    parser.add_argument("--name", help='the app\'s name: FlowQ("name"); else flowq')
    parser.add_argument(
        "-A",
        "--app",
        metavar="APP",
        help="import module:app; read its store; else FLOWQ_APP, [tool.flowq]",
    )
    parser.add_argument("--json", action="store_true", default=None, help="for programs")
    return parser


def _worker(nouns: Any) -> None:
    parser = nouns.add_parser(
        "worker",
        help="Run an app's tasks.",
        description="Run an app's tasks until SIGTERM or Ctrl-C; a second one stops at once.",
        epilog="APP is module:app, module.app, module (its only app) or path/to/file.py:app.\n"
        "Flags not given are read from FLOWQ_*, then [tool.flowq] in pyproject.toml.\n\n"
        "  flowq worker shop:q\n  flowq worker shop:q -w 8 -k thread --queue mail,default",
    )
    parser.set_defaults(parser=parser, call=("worker", "work"))
    add = parser.add_argument
    add("app", metavar="APP", nargs="?", help="where the app is")
    add("-w", "--workers", metavar="N", help="as many as CPUs unless set")
    add("-k", "--kind", "--worker-type", choices=("process", "thread"), help="process unless set")
    add(
        "--queue", "--queues", metavar="A,B", action="append", help="all that tasks name unless set"
    )
    add("--lease", metavar="S", help="after so many seconds a lost machine's tasks run elsewhere")
    add("--shutdown-timeout", metavar="S", help="seconds that running tasks get to finish (30)")
    add("--import", metavar="MODULE", action="append", help="import it too, for its tasks")
    add("--url", help="the store, whatever the app says")
    add("--drain", action="store_true", default=None, help="end when nothing is left to do")
    add("--log-format", choices=("text", "json"), help="text unless set")
    add("-v", "--verbose", action="count", default=0, help="more; -vv everything")
    add("-q", "--quiet", action="count", default=0, help="warnings only; -qq errors only")


def _seconds(text: str) -> float:
    from flowq.settings import check_seconds

    try:
        return check_seconds(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from None


def _number(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError("must be a whole number of 1 or more")
    return number
