"""Expansion, word splitting, and the patterns of .dockerignore."""

from __future__ import annotations

import pytest

from engine.build.dockerfile.command import split_words, take_flags
from engine.build.dockerfile.durations import parse_duration
from engine.build.dockerfile.ignore import Matcher, read_patterns
from engine.build.dockerfile.words import expand, expand_words, process
from engine.errors import InvalidInput

ENV = {"a": "one", "e": "", "p": "/usr/lib/x.tar.gz", "s": "x  y", "_n1": "u"}


@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("$a", "one"),
        ("${a}b", "oneb"),
        ("$ab", ""),
        ("$_n1", "u"),
        (r"\$a", "$a"),
        ("'$a'", "$a"),
        ('"$a"', "one"),
        (r'"\$a\"\n"', r'$a"\n'),
        (r"a\ b", "a b"),
        ("$", "$"),
        ("$.", "$."),
        ("a\\", "a"),
        ("$10", ""),
        ("${e:-d}", "d"),
        ("${e-d}", ""),
        ("${u-d}", "d"),
        ("${a:-d}", "one"),
        ("${u:-$a}", "one"),
        ("${u:-${v:-z}}", "z"),
        ("${e:+d}", ""),
        ("${e+d}", "d"),
        ("${a:+$e}", ""),
        ("${u:+d}", ""),
        ("${a:?m}", "one"),
        ("${p#*/}", "usr/lib/x.tar.gz"),
        ("${p##*/}", "x.tar.gz"),
        ("${p%.*}", "/usr/lib/x.tar"),
        ("${p%%.*}", "/usr/lib/x"),
        ("${p/lib/bin}", "/usr/bin/x.tar.gz"),
        (r"${p//\//-}", "-usr-lib-x.tar.gz"),
        ("${a//?/z}", "zzz"),
        ("${a//*/z}", "z"),
        (r"${a#\*}", "one"),
        ("${p%/x*}", "/usr/lib"),
        ("${a/n/$e}", "oe"),
    ],
)
def test_words_expand(word: str, result: str) -> None:
    assert expand(word, ENV) == result


@pytest.mark.parametrize(
    "word",
    [
        "'a",
        '"a',
        "${",
        "${}",
        "${:a}",
        "${a",
        "${a:x}",
        "${a:}",
        "${a:#x}",
        "${a!x}",
        "${u?}",
        "${e:?}",
        r"${a#\x}",
        "${a/b}",
        "${a/b/c",
        "${a:-" * 200,
    ],
)
def test_broken_substitutions_are_refused(word: str) -> None:
    with pytest.raises(InvalidInput):
        expand(word, ENV)


def test_a_required_variable_says_what_is_missing() -> None:
    with pytest.raises(InvalidInput, match="u: give one"):
        expand("${u:?give one}", ENV)


def test_the_escape_character_can_be_a_backtick() -> None:
    assert expand(r"c:\`$a\$a", ENV, "`") == r"c:\$a\one"


@pytest.mark.parametrize(
    ("text", "words"),
    [("$s", ["x", "y"]), ('"$s"z', ["x  yz"]), (" a  'b c' ", ["a", "b c"]), ("$e", []), ("a\\ b", ["a b"])],
)
def test_words_split_after_expansion(text: str, words: list[str]) -> None:
    assert expand_words(text, ENV) == words


def test_what_was_looked_up_is_known() -> None:
    expanded = process("$a ${u:-$v}", ENV)
    assert expanded.matched == {"a"}
    assert expanded.unmatched == {"u", "v"}
    assert process("$a ${u:-b} $u", ENV, skip_unset=True).text == "one ${u:-b} $u"


def test_quotes_stay_in_split_words() -> None:
    assert split_words('a=\'b c\' "d \\" e" f\\ g \\', "\\") == ["a='b c'", '"d \\" e"', "f\\ g"]
    assert split_words("a`\tb\\ c", "`") == ["a`\tb\\", "c"]


@pytest.mark.parametrize(
    ("text", "flags", "rest"),
    [
        ("--a=b --c d --e", ("--a=b", "--c"), "d --e"),
        ("--a='b c'\\ d e", ("--a=b c d",), "e"),
        ("--a -- --b c", ("--a",), "--b c"),
        ("-a --b", (), "-a --b"),
        ("--a", ("--a",), ""),
        ("", (), ""),
    ],
)
def test_flags_come_first(text: str, flags: tuple[str, ...], rest: str) -> None:
    assert take_flags(text, "\\") == (flags, rest)


def test_durations() -> None:
    texts = ("1h2m3s", ".5s", "5.s", "1.5ms", "0", "+1us", "-1ns")
    expected = [3_723_000_000_000, 500_000_000, 5_000_000_000, 1_500_000, 0, 1000, -1]
    assert [parse_duration(text) for text in texts] == expected
    for text in ("", "1", "s", "1d", "1s ", "--1s", "9999999h"):
        with pytest.raises(ValueError, match="duration"):
            parse_duration(text)


def test_an_ignore_file_is_read() -> None:
    text = "\ufeff# no\r\n\r\n /a/b/ \n #c\n! /d/../e \n./f\n!\n"
    assert read_patterns(text) == ["a/b", "#c", "!e", "f", "!"]


@pytest.mark.parametrize(
    ("patterns", "path", "excluded"),
    [
        (["a"], "a", True),
        (["a"], "a/b/c", True),
        (["a"], "b/a", False),
        (["a/"], "a", True),
        (["*"], "a/b", True),
        (["*.go"], "a.go", True),
        (["*.go"], "a/b.go", False),
        (["**/*.go"], "a/b.go", True),
        (["**/*.go"], "b.go", True),
        (["**.go"], "a/b.go", True),
        (["**/a"], "xa", False),
        (["a/**"], "a/b", True),
        (["a/**"], "a", False),
        (["a/**/b"], "a/b", True),
        (["a/**/b"], "a/x/y/b", True),
        (["a?"], "a/", False),
        (["[a-c]x"], "bx", True),
        (["[^a-c]x"], "bx", False),
        ([r"\*"], "*", True),
        ([r"\*"], "a", False),
        (["a+b"], "a+b", True),
        (["a", "!a/b"], "a/b", False),
        (["a", "!a/b"], "a/b/c", False),
        (["!a/b", "a"], "a/b", True),
        (["*", "!src", "src/*.o"], "src/x.o", True),
        (["*", "!src", "src/*.o"], "src/x.c", False),
    ],
)
def test_the_last_match_decides(patterns: list[str], path: str, excluded: bool) -> None:
    assert Matcher(patterns).excluded(path) is excluded


@pytest.mark.parametrize(
    ("patterns", "path", "walk"),
    [
        (["a"], "a", False),
        (["a", "!a/b"], "a", True),
        (["a", "!b"], "a", False),
        (["*", "!a/b/c"], "a/b", True),
        (["*", "!a/b/c"], "a/x", False),
        (["*", "!**/x"], "a/b", True),
        (["*", "!*/b"], "a", True),
        (["*", "!a"], "a/b", True),
    ],
)
def test_a_directory_is_walked_only_for_what_may_come_back(patterns: list[str], path: str, walk: bool) -> None:
    assert Matcher(patterns).may_include_under(path) is walk


@pytest.mark.parametrize("pattern", ["!", "!/", "[", "[]", "[a", "a\\", "[a-]", "[z-a]"])
def test_a_broken_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput):
        Matcher([pattern])
