"""`--chmod`: octal, or symbolic as chmod(1) has it (`u=rwX,go=rX`), rule by rule as BSD setmode(3), which BuildKit uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import InvalidInput

_ALL = 0o6777  # every bit but the sticky one
_STICKY = 0o1000
_WHO = {"a": _ALL, "u": 0o4700, "g": 0o2070, "o": 0o0007}
_PERMISSIONS = {"r": 0o444, "w": 0o222, "x": 0o111}
_CLASSES = {"u": 6, "g": 3, "o": 0}
_Change = Callable[[int, int, bool], int]  # (mode so far, mode at first, is a directory) -> mode


@dataclass(frozen=True, slots=True)
class Chmod:
    """`octal` is the mode itself; None when the text is symbolic."""

    text: str
    octal: int | None
    _changes: tuple[_Change, ...] = ()

    def apply(self, mode: int, *, directory: bool) -> int:
        """The permission bits of a file that had `mode`."""
        if self.octal is not None:
            return self.octal
        first, mode = mode & 0o7777, mode & 0o7777
        for change in self._changes:
            mode = change(mode, first, directory)
        return mode


def parse_chmod(text: str) -> Chmod | None:
    """None for an empty text. Raises `InvalidInput`."""
    if not text:
        return None
    if text[0].isascii() and text[0].isdigit():
        octal = all(char in "01234567" for char in text) and len(text) < 12
        if not octal or int(text, 8) > 0o7777:
            raise InvalidInput(
                f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777",
                hint="--chmod=755 or --chmod=u=rwX,go=rX",
            )
        return Chmod(text, int(text, 8))
    return Chmod(text, None, tuple(_parse(text)))


def _parse(text: str) -> list[_Change]:
    changes: list[_Change] = []
    for clause in text.split(","):
        at, who = 0, 0
        while clause[at : at + 1] in tuple("augo"):
            who |= _WHO[clause[at]]
            at += 1
        if at == len(clause):
            raise _bad(text)
        while at < len(clause):
            if clause[at] not in "+-=":
                raise _bad(text)
            end = at + 1
            while end < len(clause) and clause[end] in "rwxXstugo":
                end += 1
            changes += _operation(clause[at], who, clause[at + 1 : end])
            at = end
    return changes


def _bad(text: str) -> InvalidInput:
    return InvalidInput(f"invalid chmod parameter: '{text}'", hint="--chmod=755 or --chmod=u=rwX,go=rX")


def _operation(op: str, who: int, letters: str) -> list[_Change]:
    changes: list[_Change] = []
    bits = execute = 0
    cleared = False
    for letter in letters:
        if letter in _PERMISSIONS:
            bits |= _PERMISSIONS[letter]
        elif letter == "X" and op == "-":
            bits |= 0o111
        elif letter == "X":
            execute = 0o111
        elif letter in "st" and (who == 0 or who & ~0o007):
            bits |= 0o6000 if letter == "s" else _STICKY
            who |= _STICKY if letter == "t" else 0
        elif letter in _CLASSES:
            if bits:
                changes += _set(op, who, bits)
            cleared = cleared or op == "="
            if execute:
                changes.append(_execute(who, execute))
            bits = execute = 0
            changes.append(_copy(op, who, _CLASSES[letter]))
    if bits or (op == "=" and not cleared):
        changes += _set(op, who, bits)
    if execute:
        changes.append(_execute(who, execute))
    return changes


def _set(op: str, who: int, bits: int) -> list[_Change]:
    wanted = (who or 0o7777) & bits
    if op == "+":
        return [lambda mode, first, directory: mode | wanted]
    if op == "-":
        return [lambda mode, first, directory: mode & ~wanted]
    gone = who or _ALL
    return [lambda mode, first, directory: mode & ~gone | wanted]


def _execute(who: int, bits: int) -> _Change:
    wanted = (who or 0o7777) & bits
    return lambda mode, first, directory: mode | wanted if directory or first & 0o111 else mode


def _copy(op: str, who: int, shift: int) -> _Change:
    """`g=u`: the bits of one class go to the others."""
    targets = [s for s, read in ((6, 0o400), (3, 0o040), (0, 0o004)) if who == 0 or who & read]

    def change(mode: int, first: int, directory: bool) -> int:
        value = mode >> shift & 7
        for target in targets:
            if op in "-=":
                mode &= ~((7 if op == "=" else value) << target)
            if op in "+=":
                mode |= value << target
        return mode

    return change
