# SPDX-License-Identifier: MIT
"""Write the parts of docs/ that say what tables in the code say.

``python tools/gen_docs.py`` writes them; with ``--check`` it only says which differ, and exits 1.
A generated part stands between two comments, ``<!-- generated: NAME -->`` and
``<!-- end: NAME -->``; what is around them is written by hand.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from flowq.cli import parser
from flowq.policy import OPTIONS, PLACES
from flowq.states import (
    FINAL,
    FOREVER,
    MEANING,
    RULES,
    TRANSITIONS,
    Event,
    N,
    State,
    outcome_of,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"
PART = re.compile(
    r"(?P<head><!-- generated: (?P<name>[\w-]+)[^>]*-->\n).*?(?P<tail><!-- end: (?P=name) -->)",
    re.DOTALL,
)

CODE = re.compile(r"([\w@.]+\(\.\.\.\)(?:\.\w+\(\.\.\.\))*)")

EVENTS: dict[Event, str] = {
    Event.READY: "may run now",
    Event.LATER: "may run, but later",
    Event.EXPAND: "its plan starts",
    Event.PASS: "a join (nothing to run)",
    Event.DUE: "due",
    Event.FETCH: "fetched",
    Event.RETURN: "given back",
    Event.LOSE: "worker lost",
    Event.DONE: "returned",
    Event.RETRY: "will try again",
    Event.FAIL: "failed for good",
    Event.SKIP: "skipped",
    Event.BLOCK: "blocked",
    Event.CANCEL: "cancelled",
    Event.END: "last inner node ended",
    Event.WAKE: "slept",
    Event.LOSE_OUT: "not wanted",
    Event.SEND: "sent",
    Event.HOLD: "run paused",
    Event.FREE: "limit frees",
    Event.FULL: "a limit is full",
}
"""What happens, in words as short as an arrow's label."""


def options() -> str:
    """Make the table of options from `flowq.policy.OPTIONS`."""
    rows = []
    for name, option in OPTIONS.items():
        marks = ["✓" if place in option.places else "" for place in PLACES]
        rows.append([f"`{name}`", *marks, _default(name), option.unit, option.doc])
    return _table(["option", *PLACES, "default", "unit", "what it does"], rows)


def places() -> str:
    """Say where each column of the table of options is written."""
    rows = [[place, CODE.sub(r"`\1`", where)] for place, where in PLACES.items()]
    return _table(["column", "say it in"], rows)


def states() -> str:
    """Make the table of states from `flowq.states.MEANING`."""
    rows = [
        [f"`{s.label}`" + (" (final)" if s in FINAL else ""), meaning, leaves]
        for s, (meaning, leaves) in MEANING.items()
    ]
    return _table(["state", "means", "leaves by"], rows)


def diagram() -> str:
    """Draw `flowq.states.TRANSITIONS` as a Mermaid state diagram."""
    arrows: dict[tuple[State, State], list[Event]] = {}
    for (state, event), new in TRANSITIONS.items():
        arrows.setdefault((state, new), []).append(event)
    for counts in itertools.product((0, 1), repeat=3):
        ends = arrows.setdefault((State.EXPANDED, outcome_of(*counts)), [])
        if Event.END not in ends:
            ends.append(Event.END)
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR", "    [*] --> waiting : a node"]
    lines += ["    [*] --> queued : a call", "    [*] --> scheduled : a call, for later"]
    for (old, new), events in arrows.items():
        label = ", ".join(EVENTS[event] for event in events)
        lines.append(f"    {old.label} --> {new.label} : {label}")
    lines += [f"    {s.label} --> [*]" for s in sorted(FINAL)]
    return "\n".join([*lines, "```", ""])


def rules() -> str:
    """Make the table of trigger rules from `flowq.states.RULES`."""
    rows = []
    for name, (rule, meaning) in RULES.items():
        numbers = ["n" if x == N else "∞" if x == FOREVER else str(x) for x in rule]
        rows.append([f"`{name}`", meaning, *numbers])
    rows.append(["`at_least(k)`", "as soon as k succeeded", "k", "0", "0", "∞", "∞"])
    return _table(["rule", "runs when", "a", "b", "c", "d", "e"], rows)


def commands() -> str:
    """Make the table of commands from the parser of the command line."""
    rows = []
    for path, text, command in _leaves(parser(), "flowq"):
        words = [f"`{path}`", *(f"`{a}`" for a in _positional(command))]
        flags = ", ".join(f"`{_flag(a)}`" for a in command._actions if _own(a))
        rows.append([" ".join(words), text, flags])
    return _table(["command", "what it does", "flags of its own"], rows)


def _leaves(
    found: argparse.ArgumentParser, path: str
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Go through the commands that do something, with their lines of help."""
    for action in found._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        said = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, below in action.choices.items():
            if below._subparsers is None:
                yield f"{path} {name}", said.get(name, ""), below
            yield from _leaves(below, f"{path} {name}")


def _positional(command: argparse.ArgumentParser) -> list[str]:
    found = []
    for action in command._actions:
        if not action.option_strings:
            name = str(action.metavar or action.dest)
            found.append(f"[{name}]" if action.nargs in ("?", "*") else name)
    return found


def _own(action: argparse.Action) -> bool:
    """Whether a flag is not one that most commands have."""
    shared = {"--help", "--url", "--name", "--app", "--json"}
    return bool(action.option_strings) and shared.isdisjoint(action.option_strings)


def _flag(action: argparse.Action) -> str:
    names = [name for name in action.option_strings if name.startswith("--")]
    text = (names or action.option_strings)[-1 if len(names) < 2 else 0]
    if action.nargs == 0:
        return text
    value = action.metavar or "|".join(action.choices or ()) or action.dest.upper()
    return f"{text} {value}".replace("|", "\\|")


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "options": options,
    "places": places,
    "states": states,
    "diagram": diagram,
    "rules": rules,
}


def _default(name: str) -> str:
    value = OPTIONS[name].default
    if name == "retry_on":
        return "`Exception`"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else f"`{value!r}`"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def fresh(text: str) -> str:
    """Give a page with its generated parts as they should be."""

    def replace(found: re.Match[str]) -> str:
        return f"{found['head']}\n{PARTS[found['name']]()}\n{found['tail']}"

    return PART.sub(replace, text)


def main(check: bool) -> int:
    stale = []
    used: set[str] = set()
    for path in sorted(DOCS.rglob("*.md")):
        old = path.read_text(encoding="utf-8")
        used.update(found["name"] for found in PART.finditer(old))
        new = fresh(old)
        if new != old:
            stale.append(path.relative_to(DOCS.parent))
            if not check:
                path.write_text(new, encoding="utf-8")
    for path in stale:
        print(f"{path}: {'differs from the code; call make docs' if check else 'written'}")
    if unused := set(PARTS) - used:
        print(f"no page has a place for: {', '.join(sorted(unused))}")
        return 1
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
