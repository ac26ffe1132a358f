# SPDX-License-Identifier: MIT
"""``flowq_consumer``: the command line of ``huey_consumer``, for those who come from Huey."""

from __future__ import annotations

import argparse
from typing import Any, Final

from flowq import __version__, logs
from flowq.cli import Parser
from flowq.cli.output import CliError
from flowq.cli.worker import start

__all__ = ["consume"]

FOR_EVER: Final = 86_400.0
"""Huey waits without end for running tasks unless told otherwise; a day stands for that."""

# What Huey has and flowq does or needs differently: flags, and what to do instead.
REFUSED: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("-d", "--delay"), "leave it out: flowq does not poll"),
    (("-m", "--max-delay"), "leave it out: flowq does not poll"),
    (("-b", "--backoff"), "leave it out: flowq does not poll"),
    (("-c", "--health-check-interval"), "leave it out: a dead worker is replaced at once"),
    (("-C", "--disable-health-check"), "leave it out: dead workers are always replaced"),
    (("-f", "--flush-locks"), "leave it out: what a dead worker held is freed by itself"),
    (("-L", "--extra-locks"), "leave it out: what a dead worker held is freed by itself"),
    (("-M", "--max-tasks"), "leave it out: workers are not replaced by count"),
    (
        ("-g", "--graceful-signal"),
        "leave it out: INT and TERM both let tasks finish, a second one stops at once; "
        "flowq worker --shutdown-timeout says how long that may take",
    ),
    (("-s", "--scheduler-interval"), "leave it out: what is delayed starts on time"),
    (("-n", "--no-periodic"), "leave it out: this consumer enqueues nothing by itself"),
)


class _Refuse(argparse.Action):
    """Ends with what to do instead of this flag."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        raise CliError(f"flowq_consumer {'/'.join(self.option_strings)}: {self.const}")


def consume(argv: list[str]) -> int:
    """Run the command."""
    args = _parser().parse_args(argv)
    if args.worker_type in ("greenlet", "gevent"):
        raise CliError(
            "there are no greenlets yet; use --worker-type thread (flowq worker -k thread)"
        )
    if args.worker_type not in ("thread", "process"):
        raise CliError(f"--worker-type {args.worker_type!r} must be thread or process")
    if args.workers < 1 or args.shutdown_timeout < 0:
        raise CliError("--workers must be 1 or more, --shutdown-timeout 0 or more")
    verbosity = 1 if args.verbose else -1 if args.quiet else 0
    form: logs.Format = "simple" if args.simple else "text"
    try:
        logs.configure(verbosity=verbosity, format=form, file=args.logfile)
    except OSError as err:
        raise CliError(f"--logfile {args.logfile}: {err.strerror}") from None
    return start(
        args.app,
        url=None,
        imports=(),
        workers=args.workers,
        kind=args.worker_type,
        shutdown_timeout=args.shutdown_timeout,
    )


def _parser() -> Parser:
    parser = Parser(
        prog="flowq_consumer",
        usage="flowq_consumer [options] path.to.app",
        description="Huey's command line for flowq, with Huey's defaults. "
        "flowq worker has more, and other defaults.",
    )
    parser.set_defaults(parser=parser)
    add = parser.add_argument
    add("--version", action="version", version=f"flowq {__version__}")
    add("app", metavar="path.to.app", help="as in module.app or module:app")
    add("-w", "--workers", type=int, default=1, help="how many (1)")
    add("-k", "--worker-type", default="thread", help="thread (unless set) or process")
    add("-t", "--shutdown-timeout", type=float, default=FOR_EVER, metavar="SECONDS")
    add("-l", "--logfile", default="", metavar="FILE")
    add("-v", "--verbose", action="store_true", help="debug messages too")
    add("-q", "--quiet", action="store_true", help="warnings only")
    add("-S", "--simple", action="store_true", help="time and message only")
    for flags, instead in REFUSED:
        add(*flags, action=_Refuse, nargs="?", const=instead, help=argparse.SUPPRESS)
    return parser
