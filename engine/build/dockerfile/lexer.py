"""Lines of a Dockerfile as logical instructions: directives, comments, continuations and heredocs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from engine.build.dockerfile.ast import Heredoc
from engine.build.dockerfile.command import NotStrings, json_strings, split_keyword, take_flags
from engine.build.dockerfile.words import process
from engine.errors import DockerfileError, InvalidInput

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*", re.ASCII)
_HEREDOC = re.compile(r"(\d*)<<(-?)\s*([^<]*)", re.ASCII)
_DIRECTIVES = ("syntax", "escape", "check")
_TAKES_HEREDOC = ("run", "copy", "add")
MAX_INSTRUCTIONS = 10_000
MAX_LINE = 65_535  # bytes; BuildKit's bufio.MaxScanTokenSize - 1


@dataclass(frozen=True, slots=True)
class Logical:
    """One instruction, continuations joined. `text` is all behind the keyword: the `flags`, then `rest`."""

    keyword: str
    text: str
    flags: tuple[str, ...]
    rest: str
    line: int
    end_line: int
    column: int  # of the keyword, 1-based
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HeredocWord:
    """`<<NAME`, `<<-NAME` (tabs are stripped), `<<"NAME"` (nothing is expanded)."""

    name: str
    expand: bool
    strip_tabs: bool


class Lexer:
    def __init__(self, text: str, file: str) -> None:
        self.file = file
        text = text.removeprefix("\ufeff")
        self._raw = text.removesuffix("\n").split("\n") if text else []
        self.lines = [line.rstrip("\r") for line in self._raw]
        self.escape = "\\"
        self.directives: dict[str, str] = {}
        self.empty_continuations: list[int] = []

    def error(self, message: str, line: int, column: int = 1, hint: str | None = None) -> DockerfileError:
        source = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return DockerfileError(message, file=self.file, line=line, column=column, source=source[:500], hint=hint)

    def instructions(self) -> Iterator[Logical]:
        self._check_lengths()
        index = self._read_directives()
        # A token behind another one is an escaped character, and continues nothing.
        token = re.escape(self.escape)
        continued = re.compile(rf"(?<!{token}){token}[ \t]*\Z")
        comments: list[str] = []
        found = 0
        while index < len(self.lines):
            line = self.lines[index]
            if line.lstrip().startswith("#"):
                comment = line[1:].strip()
                if comment:
                    comments.append(comment)
                else:
                    comments = []
            if not line.strip() or line.lstrip().startswith("#"):
                index += 1
                continue
            start = index
            text, index = self._join(index, continued)
            keyword, behind = split_keyword(text)
            flags, rest = take_flags(behind, self.escape)
            heredocs: tuple[Heredoc, ...] = ()
            if "<<" in text and self._takes_heredoc(keyword, rest):
                heredocs, index = self._heredocs(text, index, start)
            column = len(line) - len(line.lstrip()) + 1
            yield Logical(keyword, behind, flags, rest, start + 1, index, column, heredocs, tuple(comments))
            comments = []
            found += 1
            if found > MAX_INSTRUCTIONS:
                raise self.error(f"more than {MAX_INSTRUCTIONS} instructions", start + 1)

    def _check_lengths(self) -> None:
        for number, line in enumerate(self.lines, 1):
            if len(line) * 4 > MAX_LINE and len(line.encode(errors="replace")) > MAX_LINE:
                raise self.error(f"dockerfile line greater than max allowed size of {MAX_LINE}", number)

    def _read_directives(self) -> int:
        """Directives stand before anything else; the first line that is none ends them."""
        for index, line in enumerate(self.lines):
            match = _DIRECTIVE.fullmatch(line.lstrip())
            key = match[1].lower() if match else ""
            if not match or key not in _DIRECTIVES:
                return index
            if key in self.directives:
                raise self.error(f"only one {key} parser directive can be used", index + 1)
            if key == "escape":
                if match[2] not in ("\\", "`"):
                    message = f"invalid escape token {match[2]!r} does not match ` or \\"
                    raise self.error(message, index + 1, line.index(match[2]) + 1)
                self.escape = match[2]
            self.directives[key] = match[2]
        return len(self.lines)

    def _join(self, index: int, continued: re.Pattern[str]) -> tuple[str, int]:
        """The logical line from `index` on, and the index behind it. Comments and blank lines inside are dropped."""
        parts: list[str] = []
        first, empty = True, False
        while index < len(self.lines):
            line = self.lines[index]
            index += 1
            if not first and (not line.strip() or line.lstrip().startswith("#")):
                empty = empty or not line.strip()
                continue
            first = False
            match = continued.search(line)
            if match is None:
                parts.append(line)
                break
            parts.append(line[: match.start()])
        if empty:
            self.empty_continuations.append(index)
        return "".join(parts), index

    def _takes_heredoc(self, keyword: str, rest: str) -> bool:
        """RUN, COPY and ADD do, behind ONBUILD too, unless their words are a JSON array."""
        if keyword.lower() == "onbuild":
            keyword, behind = split_keyword(rest)
            rest = take_flags(behind, self.escape)[1]
        if keyword.lower() not in _TAKES_HEREDOC:
            return False
        try:
            return json_strings(rest) is None
        except NotStrings:
            return False

    def _heredocs(self, text: str, index: int, start: int) -> tuple[tuple[Heredoc, ...], int]:
        try:
            words = process(text, {}, raw_quotes=True, raw_escapes=True, skip_unset=True).words
        except InvalidInput:
            return (), index  # an open quote, as in `RUN echo it's`: the shell's affair
        found: list[Heredoc] = []
        for word in words:
            try:
                heredoc = heredoc_word(word)
            except InvalidInput as error:
                raise self.error(error.message, start + 1) from None
            if heredoc:
                body, index = self._body(heredoc, index, start)
                found.append(Heredoc(heredoc.name, body, heredoc.expand, heredoc.strip_tabs))
        return tuple(found), index

    def _body(self, heredoc: HeredocWord, index: int, start: int) -> tuple[str, int]:
        body: list[str] = []
        while index < len(self.lines):
            raw, line = self._raw[index], self.lines[index]
            index += 1
            if (line.lstrip("\t") if heredoc.strip_tabs else line) == heredoc.name:
                return "".join(f"{part}\n" for part in body), index
            body.append(raw)
        raise self.error("unterminated heredoc", start + 1, hint=f"end it with a line that is {heredoc.name}")


def heredoc_word(word: str) -> HeredocWord | None:
    """The heredoc that a word begins, if any. Raises `InvalidInput`."""
    match = _HEREDOC.fullmatch(word)
    if not match or not match[3]:
        return None
    plain = process(match[3], {}, skip_unset=True).words
    if len(plain) != 1:
        return None
    raw = process(match[3], {}, raw_quotes=True, skip_unset=True).words
    expand = len(raw) == 1 and _quotes(plain[0]) == _quotes(raw[0])
    return HeredocWord(plain[0], expand, match[2] == "-")


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')
