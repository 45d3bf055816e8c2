"""Lines of a Dockerfile as logical instructions: directives, comments, continuations and heredocs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from engine.build.dockerfile.ast import Heredoc
from engine.errors import DockerfileError

_DIRECTIVE = re.compile(r"^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC = re.compile(r"^(\d*)<<(-?)([^<]*)$")
_DIRECTIVES = ("syntax", "escape", "check")
MAX_LINE = 65_535  # BuildKit's bufio.MaxScanTokenSize - 1
TAKES_HEREDOC = ("run", "copy", "add")


@dataclass(frozen=True, slots=True)
class Logical:
    """One instruction. `rest` is what follows the keyword, continuations joined; `column` of the keyword, 1-based."""

    keyword: str
    rest: str
    line: int
    end_line: int
    column: int
    heredocs: tuple[Heredoc, ...] = ()


class Lexer:
    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
        self.escape = "\\"
        self.directives: dict[str, str] = {}

    def error(self, message: str, line: int, column: int = 1, hint: str | None = None) -> DockerfileError:
        source = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return DockerfileError(message, file=self.file, line=line, column=column, source=source[:500], hint=hint)

    def _read_directives(self) -> int:
        """Directives stand before anything else; the first line that is none ends them."""
        for index, line in enumerate(self.lines):
            match = _DIRECTIVE.match(line.lstrip())
            key = match[1].lower() if match else ""
            if not match or key not in _DIRECTIVES:
                return index
            if key in self.directives:
                raise self.error(f"only one {key} parser directive can be used", index + 1)
            if key == "escape":
                if match[2] not in ("\\", "`"):
                    raise self.error(f"invalid escape token {match[2]!r}: it is \\ or `", index + 1)
                self.escape = match[2]
            self.directives[key] = match[2]
        return len(self.lines)

    def instructions(self) -> Iterator[Logical]:
        index = self._read_directives()
        while index < len(self.lines):
            line = self.lines[index]
            if not line.strip() or line.lstrip().startswith("#"):
                index += 1
                continue
            start = index
            text, index = self._join(index)
            stripped = text.lstrip()
            keyword, rest = _split_keyword(stripped)
            heredocs: tuple[Heredoc, ...] = ()
            if keyword.lower() in TAKES_HEREDOC or keyword.lower() == "onbuild":
                heredocs, index = self._heredocs(rest, index, start)
            yield Logical(keyword, rest, start + 1, index, len(line) - len(line.lstrip()) + 1, heredocs)

    def _join(self, index: int) -> tuple[str, int]:
        """The logical line that starts at `index`, and the index behind it. Comments and blank lines inside are dropped."""
        continued = re.compile(re.escape(self.escape) + r"[ \t]*$")
        parts: list[str] = []
        while index < len(self.lines):
            line = self.lines[index]
            if len(line) > MAX_LINE:
                raise self.error(f"the line is longer than {MAX_LINE} bytes", index + 1)
            index += 1
            if parts and (not line.strip() or line.lstrip().startswith("#")):
                continue
            match = continued.search(line)
            if match is None:
                parts.append(line)
                break
            parts.append(line[: match.start()])
        return "".join(parts).rstrip(), index

    def _heredocs(self, rest: str, index: int, start: int) -> tuple[tuple[Heredoc, ...], int]:
        found: list[Heredoc] = []
        if rest.lstrip().startswith("["):
            return (), index
        for word in heredoc_words(rest):
            match = _HEREDOC.match(word)
            if not match:
                continue
            quoted = match[3]
            name = re.sub(r"[\"']|\\(.)", r"\1", quoted)
            if not name or any(c.isspace() for c in name):
                continue
            body, index = self._body(name, bool(match[2]), index, start)
            found.append(Heredoc(name, body, expand=not any(c in quoted for c in "\"'\\")))
        return tuple(found), index

    def _body(self, name: str, strip_tabs: bool, index: int, start: int) -> tuple[str, int]:
        body: list[str] = []
        while index < len(self.lines):
            line = self.lines[index].lstrip("\t") if strip_tabs else self.lines[index]
            index += 1
            if line == name:
                return "".join(f"{part}\n" for part in body), index
            body.append(line)
        raise self.error("unterminated heredoc", start + 1, hint=f"end it with a line that is {name}")


def heredoc_words(rest: str) -> list[str]:
    """The words of a line that begin a heredoc: quotes keep blanks together."""
    return [
        word for word in re.findall(r"(?:[^\s\"']|\"[^\"]*\"|'[^']*')+", rest) if "<<" in word and "<<<" not in word
    ]


def _split_keyword(text: str) -> tuple[str, str]:
    match = re.match(r"(\S+)\s*", text)
    return (match[1], text[match.end() :]) if match else (text, "")
