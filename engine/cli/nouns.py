"""What the commands of one noun share (`network ls`, `volume inspect`, …): the verb, `--filter`, lists, and `inspect`."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.cli import refused
from engine.cli.flags import BadFlag, Parsed, help_text
from engine.cli.tables import documents, render, table
from engine.errors import InvalidInput, NotFound

Verb = Callable[[Path, list[str]], int]


_SYNONYMS = {"list": "ls", "remove": "rm"}
_UNLISTED = frozenset(("ps", "dial-stdio"))  # a synonym; what the docker client calls by itself
# What the verbs do that mean something else, or nothing, without their noun.
_ABOUT = {
    "connect": "Connect a container to a network",
    "create": "Create a {noun}",
    "df": "Show disk usage",
    "disconnect": "Disconnect a container from a network",
    "inspect": "Display detailed information on one or more {noun}s",
    "ls": "List {noun}s",
    "prune": "Remove unused {noun}s",
    "rm": "Remove one or more {noun}s",
    "show": "Print the name of the current {noun}",
}


def verb(noun: str, names: Sequence[str], args: list[str], manages: str = "") -> str | None:
    """The verb that `args` begin with; None when help was printed. Raises InvalidInput."""
    listed = sorted(name for name in names if name not in _UNLISTED)
    if not args or args[0] in ("--help", "-h"):
        print(help_text(f"{noun} COMMAND", f"Manage {manages or f'{noun}s'}", []) + "\n\nCommands:")
        print("\n".join(f"  {name:<{max(map(len, listed))}}  {_about(noun, name)}" for name in listed))
        print(f"\nRun `workbench {noun} COMMAND --help` for more information on a command.")
        return None
    name = args[0] if args[0] in names else _SYNONYMS.get(args[0], args[0])
    if name not in names:
        refused.command(noun, args[0])
        raise InvalidInput(f"{noun} has no command {args[0]!r}", hint=", ".join(listed))
    return name


def _about(noun: str, name: str) -> str:
    from engine.cli.main import VERBS

    if noun == "system" and name == "prune":
        return "Remove unused data"
    if name in _ABOUT and not (noun == "container" and name == "create"):
        return _ABOUT[name].format(noun=noun)
    return VERBS[name][1] if name in VERBS else ""


def dispatch(noun: str, verbs: Mapping[str, Verb], root: Path, args: list[str], manages: str = "") -> int:
    """Runs the verb that `args` begin with."""
    name = verb(noun, list(verbs), args, manages)
    return 0 if name is None else verbs[name](root, args[1:])


def pairs(entries: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` and `KEY` entries."""
    return dict(entry.partition("=")[::2] for entry in entries)


def filters(entries: Sequence[str]) -> dict[str, list[str]]:
    """`--filter key=value` entries; `key!=value` has the key `key!`. Raises `InvalidInput`."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals:
            raise BadFlag(f"invalid argument {entry!r} for --filter: bad format of filter (expected name=value)")
        found.setdefault(key.strip().lower(), []).append(value.strip())
    return found


def confirmed(warning: str) -> bool:
    """Asks, as Docker does; anything but y is no."""
    print(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def inspect(parsed: Parsed, look: Callable[[str], Awaitable[Mapping[str, Any]]]) -> int:
    """Prints the document of every name, tells each that is not there, fails if any is not."""
    found: list[Mapping[str, Any]] = []
    status = 0
    for name in parsed.args:
        try:
            found.append(await look(name))
        except NotFound as error:
            status = 1
            print(f"workbench: {error}", file=sys.stderr)
    if parsed.given("format"):
        print(documents(parsed.text("format"), found), end="\n" if found else "")
    else:
        print(json.dumps(found, indent=4, ensure_ascii=False))
    return status


def listing(parsed: Parsed, rows: Sequence[Mapping[str, object]], columns: Mapping[str, str], key: str) -> int:
    """Prints a list by `--quiet` (the field `key` alone), `--format`, or as a table of `columns`: title → field."""
    if parsed.on("quiet"):
        text = "\n".join(str(row[key]) for row in rows)
    elif parsed.given("format") and parsed.text("format") != "table":
        text = render(parsed.text("format"), rows, {field: title for title, field in columns.items()})
    else:
        text = table(list(columns), [[str(row[name]) for name in columns.values()] for row in rows])
    print(text, end="\n" if text else "")
    return 0
