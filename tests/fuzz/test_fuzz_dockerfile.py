"""Properties of the Dockerfile's parsers on any input: no exception outside the error tree, none that takes long (BD-04, BD-15)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.build.dockerfile.globs import compile_glob
from engine.build.dockerfile.ignore import Matcher, read_patterns
from engine.build.dockerfile.mode import parse_chmod
from engine.build.dockerfile.mounts import mount_from, parse_mount
from engine.build.dockerfile.parser import KEYWORDS, parse
from engine.build.dockerfile.words import expand, expand_words
from engine.build.fetch import parse_checksum
from engine.build.git import parse_git_ref
from engine.build.lint import LintInput, lint
from engine.build.lint_rules import parse_options
from engine.build.ports import parse_expose
from engine.errors import EngineError
from engine.oci.platform import Platform

SECONDS = 60.0  # what takes longer is no slow machine: it grows as the square of the input, or worse

PIECES = st.sampled_from(
    [
        *KEYWORDS,
        *map(str.lower, KEYWORDS),
        "FROM scratch\n",
        "\n",
        " ",
        "\\\n",
        "\\",
        "`\n",
        "#",
        "# escape=`\n",
        "# check=skip=all\n",
    ]
    + [
        "<<EOF",
        "<<-'E'",
        "EOF\n",
        "--from=",
        "--mount=type=bind,",
        "--chmod=",
        '["a", "b"]',
        "[",
        "]",
        '"',
        "'",
        "$",
        "${",
        "}",
    ]
    + [
        "${a:-b}",
        "${a##*/}",
        "${a/b/c}",
        "=",
        ":",
        ",",
        "!",
        "*",
        "**/",
        "?",
        "\t",
        "\r\n",
        "\0",
        "\ufeff",
        "é",
        "\ud800",
        "a",
        "0",
        "/",
        "..",
    ]
)
TEXT = st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=200)
FUZZ = settings(max_examples=400, deadline=SECONDS * 1000)


def survives(call: Callable[[], object]) -> None:
    """Ends with a result or an error of the engine's, in time."""
    started = time.monotonic()
    try:
        call()
    except EngineError:
        pass
    assert time.monotonic() - started < SECONDS


@FUZZ
@given(TEXT)
def test_parser_and_linter(text: str) -> None:
    def both() -> None:
        dockerfile = parse(text, "Dockerfile")
        assert dockerfile.stages
        for stage in dockerfile.stages:
            for instruction in stage.instructions:
                assert 1 <= instruction.line <= instruction.end_line <= len(dockerfile.lines)
        for warning in lint(LintInput(dockerfile, {}, {}, Platform("linux", "amd64"))):
            assert 1 <= warning.line <= len(dockerfile.lines)

    survives(both)


@FUZZ
@given(TEXT, st.dictionaries(st.sampled_from(["a", "b", "PATH"]), st.text(max_size=20)), st.sampled_from("\\`"))
def test_words(text: str, env: dict[str, str], escape: str) -> None:
    survives(lambda: expand(text, env, escape))
    survives(lambda: expand_words(text, env, escape))


@FUZZ
@given(
    st.text(alphabet="abc/.*?[]!\\-^ #\n", max_size=60),
    st.lists(st.text(alphabet="abc/.", min_size=1, max_size=30), max_size=5),
)
def test_ignore_patterns(text: str, paths: list[str]) -> None:
    def use() -> None:
        matcher = Matcher(read_patterns(text))
        for path in paths:
            if matcher.excluded(path) and not matcher.has_exclusions:
                assert matcher.excluded(f"{path}/below")
            matcher.may_include_under(path)

    survives(use)


@FUZZ
@given(TEXT | st.text(alphabet="ugoarwxXst+-=,0178", max_size=30))
def test_small_languages(text: str) -> None:
    for parser in (parse_chmod, mount_from, parse_checksum, parse_git_ref, parse_options, parse_expose, compile_glob):
        survives(lambda parser=parser: parser(text))  # type: ignore[misc]
    survives(lambda: parse_mount(text, lambda word: word))


@FUZZ
@given(st.text(alphabet="ugoarwx+-=,", min_size=1, max_size=20), st.integers(0, 0o7777), st.booleans())
def test_modes_are_modes(text: str, mode: int, directory: bool) -> None:
    def use() -> None:
        chmod = parse_chmod(text)
        assert chmod is not None
        assert 0 <= chmod.apply(mode, directory=directory) <= 0o7777

    survives(use)


@FUZZ
@given(st.text(alphabet="abc ${}\"'\\", max_size=40))
def test_what_needs_no_expansion_is_kept(text: str) -> None:
    if not set(text) & set("${}\"'\\"):
        assert expand(text, {}) == text


LONG: dict[str, str] = {
    "a line of 64 MiB": "FROM scratch\nENV A=" + "x" * (64 << 20),
    "a million lines": "FROM scratch\n" + "ENV A=1\n" * 1_000_000,
    "a million comments": "# c\n" * 1_000_000 + "FROM scratch\n",
    "a heredoc without an end": "FROM scratch\nRUN <<EOF\n" + "x\n" * 300_000,
    "a million continuations": "FROM scratch\nRUN a" + "\\\n" * 1_000_000 + "b\n",
    "onbuild of onbuild": "FROM scratch\n" + "ONBUILD " * 5000 + "RUN x",
    "nested defaults": "ARG a=" + "${a:-" * 5000 + "}" * 5000 + "\nFROM scratch",
    "open substitutions": "FROM scratch\nENV A=" + "${a" * 10_000,
    "many heredocs": "FROM scratch\nRUN "
    + " ".join(f"<<E{n}" for n in range(2000))
    + "\n"
    + "".join(f"E{n}\n" for n in range(2000)),
    "nested JSON": "FROM scratch\nCMD " + "[" * 30_000,
    "one long word of quotes": 'FROM scratch\nLABEL a="' + "\\" * 60_000,
    "many flags": "FROM scratch\nCOPY " + "--exclude=a " * 4000 + "a b",
    "blanks": "FROM scratch\nRUN" + " " * 60_000 + "x" + "\t" * 5_000,
}


@pytest.mark.parametrize("name", sorted(LONG))
def test_inputs_that_are_meant_to_take_long(name: str) -> None:
    """BD-15: each ends in two seconds and in the error tree."""
    text = LONG[name]
    allowance = SECONDS
    started = time.monotonic()
    with contextlib.suppress(EngineError):
        parse(text, "Dockerfile")
    assert time.monotonic() - started < allowance


def test_patterns_that_are_meant_to_take_long() -> None:
    for pattern in ("*a" * 25 + "b", "**/" * 20 + "x", "[a-z]*" * 20 + "!", "?*" * 40):
        started = time.monotonic()
        matcher = Matcher([pattern])
        matcher.excluded("a" * 60)
        matcher.excluded("/".join("a" * 30))
        assert time.monotonic() - started < SECONDS, pattern
    for pattern in ("*a" * 25 + "b", "?*" * 40):
        started = time.monotonic()
        glob = compile_glob(pattern)
        assert glob is not None
        glob.match("a" * 60)
        assert time.monotonic() - started < SECONDS, pattern
    started = time.monotonic()
    expand("${a/" + "*a" * 20 + "b/x}", {"a": "a" * 60})
    expand("${a%%" + "*a" * 20 + "b}", {"a": "a" * 60})
    assert time.monotonic() - started < SECONDS
