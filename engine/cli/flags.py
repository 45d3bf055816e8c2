"""Command-line flags by pflag's rules, as Docker's own command line has them.

`--name=x`, `--name x`, `-n x`, `-nx`, `-it` (bundled switches), `--rm=false`, `--` ends flags; where a command runs another
(`run`, `exec`) flags end at the first argument. Help is made from the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from engine.errors import InvalidInput

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


class UsageError(InvalidInput):
    """Words that the command line cannot read. `exit_status` is Docker's: 125 for a flag, 1 for the number of arguments."""

    def __init__(self, message: str, usage: str, exit_status: int) -> None:
        verb = usage.split()[0]
        shown = f"Usage:  workbench {usage}\n\nRun `workbench {verb} --help` for more information"
        super().__init__(f"{message}\n\n{shown}")
        self.exit_status = exit_status


class BadFlag(InvalidInput):
    """A flag's value that cannot be read: as Docker's, its exit status is another one than that of a command that fails."""

    def __init__(self, message: str, *, hint: str | None = None, exit_status: int = 125) -> None:
        super().__init__(message, hint=hint)
        self.exit_status = exit_status


@dataclass(frozen=True, slots=True)
class Flag:
    """`kind` list may be given many times."""

    name: str
    help: str
    short: str = ""
    kind: Literal["bool", "str", "int", "float", "list"] = "bool"
    metavar: str = ""


@dataclass(slots=True)
class Parsed:
    values: dict[str, object] = field(default_factory=dict)
    args: list[str] = field(default_factory=list)

    def on(self, name: str) -> bool:
        return bool(self.values.get(name, False))

    def text(self, name: str, default: str = "") -> str:
        return str(self.values.get(name, default))

    def given(self, name: str) -> bool:
        return name in self.values

    def size(self, name: str) -> int:
        """Bytes. Raises BadFlag."""
        from engine.base.units import parse_size

        try:
            return parse_size(self.text(name))
        except InvalidInput as error:
            raise BadFlag(
                f"invalid argument {self.text(name)!r} for --{name}: {error.message}", hint=error.hint
            ) from None

    def number(self, name: str, default: int = 0) -> int:
        value = self.values.get(name, default)
        return value if isinstance(value, int) else default

    def items(self, name: str) -> list[str]:
        value = self.values.get(name, [])
        return list(value) if isinstance(value, list) else []


def parse(args: Sequence[str], flags: Sequence[Flag], command: str, *, stop_at_argument: bool = False) -> Parsed:
    """Raises `InvalidInput` with Docker's wording for an unknown flag or a missing value."""
    long = {flag.name: flag for flag in flags}
    short = {flag.short: flag for flag in flags if flag.short}
    parsed, queue = Parsed(), list(args)
    while queue:
        word = queue.pop(0)
        if word == "--":
            parsed.args += queue
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found = long.get(name)
            if found is None:
                raise _unknown(f"--{name}", command)
            _store(parsed, found, value if equals else None, queue, f"--{name}")
        elif word.startswith("-") and len(word) > 1:
            _bundle(parsed, word[1:], short, queue, command)
        else:
            parsed.args.append(word)
            if stop_at_argument:
                parsed.args += queue
                break
    return parsed


def _bundle(parsed: Parsed, letters: str, short: dict[str, Flag], queue: list[str], command: str) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        flag = short.get(letter)
        if flag is None:
            raise _unknown(f"-{letter}", command)
        if flag.kind == "bool":
            value = None
            if letters.startswith("="):
                value, letters = letters[1:], ""
            _store(parsed, flag, value, queue, f"-{letter}")
        else:
            value = letters.removeprefix("=") if letters else None
            _store(parsed, flag, value, queue, f"-{letter}")
            return


def _store(parsed: Parsed, flag: Flag, value: str | None, queue: list[str], shown: str) -> None:
    if flag.kind == "bool":
        if value is not None and value not in _TRUE | _FALSE:
            raise InvalidInput(f"invalid argument {value!r} for {shown}: it is true or false")
        parsed.values[flag.name] = value is None or value in _TRUE
        return
    if value is None:
        if not queue:
            raise InvalidInput(f"flag needs an argument: {shown}")
        value = queue.pop(0)
    if flag.kind == "list":
        parsed.values.setdefault(flag.name, [])
        parsed.items(flag.name)
        existing = parsed.values[flag.name]
        assert isinstance(existing, list)
        existing.append(value)
        return
    try:
        parsed.values[flag.name] = int(value) if flag.kind == "int" else float(value) if flag.kind == "float" else value
    except ValueError:
        raise InvalidInput(f"invalid argument {value!r} for {shown}: it is a number") from None


def _unknown(flag: str, command: str) -> InvalidInput:
    return InvalidInput(f"unknown flag: {flag}", hint=f"see `workbench {command} --help`".replace("  ", " "))


def help_text(usage: str, summary: str, flags: Sequence[Flag]) -> str:
    lines = [f"Usage:  workbench {usage}", "", summary]
    if flags:
        lines += ["", "Options:"]
        shown = [
            (f"{'-' + f.short + ', ' if f.short else '    '}--{f.name} {f.metavar or _metavar(f)}".rstrip(), f.help)
            for f in flags
        ]
        width = max(len(left) for left, _ in shown)
        lines += [f"  {left:<{width}}   {right}" for left, right in shown]
    return "\n".join(lines)


def _metavar(flag: Flag) -> str:
    return {"bool": "", "str": "string", "int": "int", "float": "decimal", "list": "list"}[flag.kind]
