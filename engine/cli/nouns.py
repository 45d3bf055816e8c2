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


def verb(noun: str, names: Sequence[str], args: list[str], manages: str = "") -> str | None:
    """The verb that `args` begin with; None when help was printed. Raises InvalidInput."""
    shown = ", ".join(sorted(names))
    if not args or args[0] in ("--help", "-h"):
        print(help_text(f"{noun} COMMAND", f"Manage {manages or f'{noun}s'}", []) + f"\n\nCommands: {shown}")
        return None
    if args[0] not in names:
        refused.command(noun, args[0])
        raise InvalidInput(f"{noun} has no command {args[0]!r}", hint=shown)
    return args[0]


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
