"""`.env` files as compose reads them (compose-spec, 05-services: env_file format)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from engine.errors import InvalidInput
from engine.project.compose.positions import Place, problem
from engine.project.compose.variables import interpolate

MAX_BYTES = 1 << 20
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.\-]*)\s*(=|:\s)?")
_ESCAPES = {
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "\\": "\\",
    '"': '"',
    "$": "$$",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}


def read_env_file(
    path: Path, env: Mapping[str, str], *, required: bool = True, raw: bool = False
) -> dict[str, str | None]:
    """Names and values in order; None for a name without `=`. Unquoted and double-quoted values see `env` and the lines
    above. `raw` takes every value as it stands. Raises `InvalidInput`, `DockerfileError` with the line.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if not required:
            return {}
        raise InvalidInput(f"env file {path} does not exist", hint="make it, or say `required: false`") from None
    except OSError as error:
        raise InvalidInput(f"env file {path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"env file {path} is larger than {MAX_BYTES >> 20} MiB")
    text = data.decode("utf-8-sig", "replace").replace("\r\n", "\n")
    return _raw(text) if raw else _Reader(path, text, env).read()


def _raw(text: str) -> dict[str, str | None]:
    values: dict[str, str | None] = {}
    for line in text.split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            name, equals, value = line.partition("=")
            values[name.strip()] = value if equals else None
    return values


class _Reader:
    def __init__(self, path: Path, text: str, env: Mapping[str, str]) -> None:
        self._path, self._text, self._env = path, text, env
        self._at = 0
        self._found: dict[str, str | None] = {}

    def _error(self, message: str) -> InvalidInput:
        return problem(Place(self._path, self._text.count("\n", 0, self._at) + 1), message)

    def read(self) -> dict[str, str | None]:
        while self._at < len(self._text):
            end = self._text.find("\n", self._at)
            end = len(self._text) if end < 0 else end
            line = self._text[self._at : end]
            if not line.strip() or line.lstrip().startswith("#"):
                self._at = end + 1
                continue
            match = _LINE.match(self._text, self._at, end)
            if match is None:
                raise self._error("a line is NAME=value, or a comment behind #")
            if match[2] is None:
                if self._text[match.end() : end].strip():
                    raise self._error(f"an = is missing behind {match[1]}")
                self._found[match[1]] = None
                self._at = end + 1
                continue
            self._at = match.end()
            self._found[match[1]] = self._value(end)
        return self._found

    def _value(self, end: int) -> str:
        while self._at < end and self._text[self._at] in " \t":
            self._at += 1
        quote = self._text[self._at : self._at + 1]
        if quote in ("'", '"') and self._at < end:
            return self._quoted(quote)
        raw = re.split(r"(?:^|\s)#", self._text[self._at : end], maxsplit=1)[0].strip()
        value = self._expand(raw)
        self._at = end + 1
        return value

    def _quoted(self, quote: str) -> str:
        """Quotes may hold line breaks. In single quotes nothing but the quote itself can be escaped."""
        at = self._at + 1
        out: list[str] = []
        while at < len(self._text):
            char = self._text[at]
            if char == quote:
                value = "".join(out)
                value = self._expand(value) if quote == '"' else value
                self._finish(at + 1)
                return value
            if char == "\\" and at + 1 < len(self._text):
                follows = self._text[at + 1]
                if quote == '"':
                    out.append(_ESCAPES.get(follows, "\\" + follows))
                else:
                    out.append(follows if follows == "'" else "\\" + follows)
                at += 2
                continue
            out.append(char)
            at += 1
        raise self._error(f"the quote {quote} does not close")

    def _finish(self, at: int) -> None:
        end = self._text.find("\n", at)
        end = len(self._text) if end < 0 else end
        rest = self._text[at:end].strip()
        if rest and not rest.startswith("#"):
            raise self._error(f"unexpected text behind the closing quote: {rest[:40]}")
        self._at = end + 1

    def _expand(self, text: str) -> str:
        above = {name: value for name, value in self._found.items() if value is not None}
        try:
            return interpolate(text, {**above, **self._env})
        except InvalidInput as error:
            raise self._error(error.message) from error
