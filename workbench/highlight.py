"""A little colour for text files (pure): comments, strings, keywords and the first word of a Dockerfile's lines; nothing is parsed."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence

from workbench.state import neutral
from workbench.widgets.lines_view import TextLine

Spans = tuple[tuple[int, int, str], ...]
_PYTHON = (
    "and as assert async await break case class continue def del elif else except finally for from global if import in is lambda "
    "match None nonlocal not or pass raise return True False try while with yield"
)
_SHELL = "if then else elif fi for in do done while until case esac function return exit export local set"
_SCRIPT = (
    "break case catch class const continue default do else export extends finally for from func function go if import in interface "
    "let new nil null package range return static struct switch this throw true false try type var void while"
)
_STRING = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"


def _words(words: str) -> str:
    return rf"\b(?:{'|'.join(words.split())})\b"


_PATTERNS = {
    "python": re.compile(rf"(?P<dim>#.*)|(?P<success>{_STRING})|(?P<accent>{_words(_PYTHON)})"),
    "shell": re.compile(
        rf"(?P<dim>(?:^|(?<=\s))#.*)|(?P<success>{_STRING})|(?P<accent>{_words(_SHELL)}|\$\w+|\$\{{\w+)"
    ),
    "script": re.compile(rf"(?P<dim>//.*|/\*.*?\*/)|(?P<success>{_STRING}|`[^`]*`)|(?P<accent>{_words(_SCRIPT)})"),
    "settings": re.compile(
        rf"(?P<dim>(?:^|(?<=\s))[#;].*)|(?P<accent>^\s*(?:- )?[\w.\"-]+(?=\s*[:=])|^\s*\[.*\])|(?P<success>{_STRING})"
    ),
    "docker": re.compile(rf"(?P<dim>^\s*#.*)|(?P<accent>^\s*[A-Z]+(?=\s))|(?P<success>{_STRING})|(?P<bold>--[\w-]+)"),
}
_BY_END = {
    ".py": "python", ".pyi": "python", ".sh": "shell", ".bash": "shell", ".profile": "shell", ".js": "script", ".ts": "script",
    ".go": "script", ".c": "script", ".h": "script", ".rs": "script", ".java": "script", ".php": "script", ".json": "settings",
    ".yaml": "settings", ".yml": "settings", ".toml": "settings", ".ini": "settings", ".cfg": "settings", ".conf": "settings",
    ".env": "settings", ".service": "settings",
}  # fmt: skip


def language(path: str, first: str = "") -> str:
    """By name, else by the first line; "" is none."""
    name = posixpath.basename(path)
    if name.startswith(("Dockerfile", "Containerfile")):
        return "docker"
    found = _BY_END.get(posixpath.splitext(name)[1].lower(), "")
    if not found and first.startswith("#!"):
        found = "python" if "python" in first else "shell"
    return found


def spans_of(path: str, first: str = "") -> Callable[[str], Spans]:
    pattern = _PATTERNS.get(language(path, first))
    if pattern is None:
        return lambda text: ()
    return lambda text: tuple(
        (match.start(), match.end(), match.lastgroup or "") for match in pattern.finditer(text[:2000])
    )


def file_lines(path: str, text: str) -> list[TextLine]:
    """A text file with line numbers."""
    rows = text.split("\n")
    if rows and not rows[-1]:
        rows.pop()
    spans = spans_of(path, rows[0] if rows else "")
    shown = [neutral(row.rstrip("\r")) for row in rows]
    return [TextLine(row, "", str(number), spans(row)) for number, row in enumerate(shown, 1)]


def diff_lines(lines: Sequence[str]) -> list[TextLine]:
    """A unified diff: what is added and removed stands in colour behind its sign."""
    styles = {"+": "success", "-": "error", "@": "accent"}
    found = []
    for number, line in enumerate(lines):
        head = number < 2 and line.startswith(("---", "+++"))
        found.append(TextLine(neutral(line), "bold" if head else styles.get(line[:1], "")))
    return found


def hex_lines(data: bytes, limit: int = 4096) -> list[TextLine]:
    """As hexdump(1) -C has it."""
    found = []
    for at in range(0, min(len(data), limit), 16):
        part = data[at : at + 16]
        words = " ".join(f"{byte:02x}" for byte in part)
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        found.append(TextLine(f"{words:<47}  {shown}", "", f"{at:06x}"))
    return found
