"""The Dockerfile language: parsing, words, ignore files."""

from __future__ import annotations

import pytest

from engine.build.dockerfile.ast import Copy, Env, Healthcheck, Run
from engine.build.dockerfile.ignore import Matcher, read_patterns
from engine.build.dockerfile.parser import parse
from engine.build.dockerfile.words import expand, expand_words
from engine.errors import DockerfileError, InvalidInput


def test_stages_flags_comments_and_continuations() -> None:
    text = """# syntax=docker/dockerfile:1
ARG V=3
FROM --platform=linux/amd64 python:$V AS Build
RUN apt-get update && \\
    # a comment inside
    apt-get install -y x \\

    y
COPY --from=0 --chown=1:2 --chmod=755 a b /dest/
ENV A=1 B="two words"
HEALTHCHECK --interval=5s --retries=2 CMD curl -f x
"""
    file = parse(text, "Dockerfile")
    stage = file.stages[0]
    run, copy, env, health = stage.instructions
    assert (stage.name, stage.base, stage.platform, stage.line) == ("build", "python:$V", "linux/amd64", 3)
    assert isinstance(run, Run)
    assert run.args == ("apt-get update &&     apt-get install -y x     y",)
    assert run.line == 4
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.dest, copy.from_, copy.chown, copy.chmod) == (("a", "b"), "/dest/", "0", "1:2", "755")
    assert isinstance(env, Env)
    assert env.pairs == (("A", "1"), ("B", '"two words"'))
    assert isinstance(health, Healthcheck)
    assert health.to_config() == {"Test": ["CMD-SHELL", "curl -f x"], "Interval": 5 * 10**9, "Retries": 2}
    assert file.meta_args[0].pairs == (("V", "3"),)


def test_heredoc_and_exec_form() -> None:
    file = parse('FROM x\nRUN <<EOF\necho 1\necho 2\nEOF\nRUN ["a", "b c"]\nRUN [not json]\n', "D")
    first, second, third = file.stages[0].instructions
    assert isinstance(first, Run)
    assert first.heredocs[0].content == "echo 1\necho 2\n"
    assert isinstance(second, Run)
    assert (second.args, second.shell) == (("a", "b c"), False)
    assert isinstance(third, Run)
    assert (third.args, third.shell) == (("[not json]",), True)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("FROM x\n  RUNN y\n", 2, 3, "unknown instruction"),
        ("RUN y\n", 1, 1, "no build stage"),
        ("FROM\n", 1, 1, "FROM requires"),
        ("FROM x\nCOPY a\n", 2, 1, "at least two arguments"),
        ("FROM x\n\nENV A\n", 3, 5, "two arguments"),
        ("FROM x\nRUN <<EOF\nnever ends\n", 2, 1, "unterminated heredoc"),
        ("FROM x\nCOPY --form=y a b\n", 2, 6, "unknown flag"),
    ],
)
def test_error_names_line_and_column_and_shows_the_line(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(DockerfileError, match=words) as caught:
        parse(text, "Dockerfile")
    assert (caught.value.line, caught.value.column) == (line, column)
    assert text.splitlines()[line - 1] in str(caught.value)


def test_misspelt_instruction_gets_a_suggestion() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse("FROM x\nENTRYPIONT a\n", "Dockerfile")
    assert caught.value.hint == "did you mean ENTRYPOINT?"


ENV = {"A": "1", "EMPTY": "", "P": "/a/b/c.tar.gz"}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("$A${A}x", "11x"),
        (r"\$A", "$A"),
        ("'$A'", "$A"),
        ('"$A b"', "1 b"),
        ("${NO:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${EMPTY:-d}", "d"),
        ("${A:+y}", "y"),
        ("${NO+y}", ""),
        ("${P##*/}", "c.tar.gz"),
        ("${P%.*}", "/a/b/c.tar"),
        ("${P%%.*}", "/a/b/c"),
        ("${P//\\//_}", "_a_b_c.tar.gz"),
        ("${NO:-${A}}", "1"),
    ],
)
def test_expansion(word: str, value: str) -> None:
    assert expand(word, ENV) == value


@pytest.mark.parametrize("word", ["'open", '"open', "${A", "${NO:?must be set}", "${A:#x}"])
def test_bad_expansion_is_an_error(word: str) -> None:
    with pytest.raises(InvalidInput):
        expand(word, ENV)


def test_words_split_outside_quotes_only() -> None:
    assert expand_words("a$A 'b c' \"d e\"", ENV) == ["a1", "b c", "d e"]


def test_ignore_rules() -> None:
    matcher = Matcher(
        read_patterns("# comment\n*.log\n/build\n**/*.pyc\nnode_modules/\n!important.log\n!node_modules/keep\n")
    )
    assert matcher.excluded("a.log")
    assert not matcher.excluded("sub/a.log")
    assert not matcher.excluded("important.log")
    assert matcher.excluded("build/out/x")
    assert matcher.excluded("deep/er/x.pyc")
    assert matcher.excluded("node_modules/x")
    assert not matcher.excluded("node_modules/keep")
    assert matcher.may_include_under("node_modules")
    assert not matcher.may_include_under("build")
    only = Matcher(read_patterns("*\n!src\n"))
    assert not only.excluded("src/a.py")
    assert only.excluded("other/a.py")
