"""The Dockerfile parser: what is accepted, what it means, and how errors read."""

from __future__ import annotations

import pytest

from engine.build.dockerfile.ast import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from engine.build.dockerfile.parser import parse
from engine.errors import DockerfileError


def body(text: str) -> tuple[Instruction, ...]:
    return parse(f"FROM scratch\n{text}", "Dockerfile").stages[0].instructions


def only(text: str) -> Instruction:
    (instruction,) = body(text)
    return instruction


def refused(text: str) -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        body(text)
    return caught.value


def test_stages_and_arguments_before_them() -> None:
    text = "ARG A=1 B\nFROM --platform=$P base:$A AS Build\nARG A\nfrom build as two\nRUN x\n"
    dockerfile = parse(text, "Dockerfile")
    assert [arg.pairs for arg in dockerfile.meta_args] == [(("A", "1"), ("B", None))]
    first, second = dockerfile.stages
    assert (first.name, first.base, first.platform, first.line) == ("build", "base:$A", "$P", 2)
    assert (second.index, second.name, second.base, second.platform, second.line) == (1, "two", "build", "", 4)
    assert dockerfile.lines == tuple(text.splitlines())


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("RUN a  b", Run, {"args": ("a  b",), "shell": True, "source": "RUN a b"}),
        ('run ["a", "b c"]', Run, {"args": ("a", "b c"), "shell": False, "source": 'RUN ["a", "b c"]'}),
        ("RUN ['a']", Run, {"args": ("['a']",), "shell": True}),
        ("RUN [NaN]", Run, {"args": ("[NaN]",), "shell": True}),
        ("RUN", Run, {"args": ("",), "shell": True}),
        (
            "RUN --mount=type=cache,target=/a --mount='type=tmpfs,target=/b c' --network=none -- --x",
            Run,
            {"args": ("--x",), "mounts": ("type=cache,target=/a", "type=tmpfs,target=/b c"), "network": "none"},
        ),
        ("CMD []", Cmd, {"args": (), "shell": False}),
        ("CMD", Cmd, {"args": ("",), "shell": True}),
        (r'CMD ["\ud800"]', Cmd, {"args": ("\ufffd",), "shell": False}),
        ("ENTRYPOINT exec top", Entrypoint, {"args": ("exec top",), "shell": True}),
        (
            "COPY --from=b --chown=1:2 --chmod=755 --link --parents=FALSE --exclude=a --exclude=b x y /z/",
            Copy,
            {
                "sources": ("x", "y"),
                "dest": "/z/",
                "from_": "b",
                "chown": "1:2",
                "chmod": "755",
                "link": True,
                "parents": False,
                "exclude": ("a", "b"),
            },
        ),
        ('COPY ["a b", "c"]', Copy, {"sources": ("a b",), "dest": "c"}),
        ("ADD --unpack=false --checksum=c\ta\tb", Add, {"sources": ("a",), "unpack": False, "checksum": "c"}),
        ("ADD a b", Add, {"unpack": None, "keep_git_dir": None}),
        ("ENV a=b c='d e' f=g\\ h", Env, {"pairs": (("a", "b"), ("c", "'d e'"), ("f", "g\\ h"))}),
        ("ENV\ta\tb  c ", Env, {"pairs": (("a", "b  c"),)}),
        ("ENV a=", Env, {"pairs": (("a", ""),)}),
        ('LABEL "a.b"="c=d"', Label, {"pairs": (('"a.b"', '"c=d"'),)}),
        ('ARG a b= c="d"', Arg, {"pairs": (("a", None), ("b", ""), ("c", '"d"'))}),
        ("WORKDIR /a b", Workdir, {"path": "/a b"}),
        ("USER a:b", User, {"user": "a:b"}),
        ("EXPOSE 80  53/udp", Expose, {"ports": ("53/udp", "80")}),
        ('VOLUME ["/a", " /b c "]', Volume, {"paths": ("/a", "/b c")}),
        ("VOLUME /a\t/b", Volume, {"paths": ("/a", "/b")}),
        ("STOPSIGNAL $S", Stopsignal, {"signal": "$S"}),
        ('SHELL ["/bin/bash", "-c"]', Shell, {"args": ("/bin/bash", "-c")}),
        ("MAINTAINER me  too", Maintainer, {"name": "me  too"}),
        ("HEALTHCHECK NONE", Healthcheck, {"test": ("NONE",)}),
        (
            "HEALTHCHECK --interval=1m.5s --timeout=300ms --retries=3 cmd\tcurl x",
            Healthcheck,
            {"test": ("CMD-SHELL", "curl x"), "interval": 60_500_000_000, "timeout": 300_000_000, "retries": 3},
        ),
        ('HEALTHCHECK CMD ["a"]', Healthcheck, {"test": ("CMD", "a"), "start_period": 0}),
        ("ONBUILD copy . .", Onbuild, {"text": "copy . ."}),
    ],
)
def test_instructions(text: str, kind: type[Instruction], values: dict[str, object]) -> None:
    instruction = only(text)
    assert type(instruction) is kind
    assert {name: getattr(instruction, name) for name in values} == values


def test_continuations_skip_comments_and_blank_lines() -> None:
    run, user = body("RUN a \\\n# no\n\n   # no\n  b \\  \n c\nUSER d")
    assert isinstance(run, Run)
    assert run.args == ("a   b  c",)
    assert (run.line, run.end_line, user.line, run.source) == (2, 7, 8, "RUN a b c")


def test_an_escaped_escape_continues_nothing() -> None:
    first, second = body("RUN a \\\\\nRUN b")
    assert isinstance(first, Run)
    assert first.args == ("a \\\\",)
    assert second.line == 3


def test_a_continuation_at_the_end_of_the_file() -> None:
    assert only("RUN a \\\n\n").end_line == 3


def test_the_escape_directive() -> None:
    dockerfile = parse("# Escape = `\n# syntax=x/y:1\nFROM a\nRUN b `\n c\\\nUSER d", "Dockerfile")
    assert dockerfile.escape == "`"
    assert dockerfile.directives == {"escape": "`", "syntax": "x/y:1"}
    run = dockerfile.stages[0].instructions[0]
    assert isinstance(run, Run)
    assert run.args == ("b  c\\",)


@pytest.mark.parametrize("first", ["# a comment", "", "# unknown=1"])
def test_directives_end_at_the_first_other_line(first: str) -> None:
    assert parse(f"{first}\n# escape=`\nFROM a", "Dockerfile").escape == "\\"


def test_windows_line_ends_and_a_byte_order_mark() -> None:
    run = parse("\ufeffFROM a\r\nRUN b \\\r\n c\r\n", "Dockerfile").stages[0].instructions[0]
    assert isinstance(run, Run)
    assert run.args == ("b  c",)


@pytest.mark.parametrize(
    ("text", "heredocs"),
    [
        ("RUN <<EOF\na $b\n\nEOF", (Heredoc("EOF", "a $b\n\n", True),)),
        ("RUN cat << EOF | x\na\nEOF", (Heredoc("EOF", "a\n", True),)),
        ("RUN <<-'E O'\n\ta\n\t\tb\n\tE O", (Heredoc("E O", "\ta\n\t\tb\n", False, True),)),
        ("RUN 3<<A cat <<B\n# a\nA\nb\nB", (Heredoc("A", "# a\n", True), Heredoc("B", "b\n", True))),
        ('RUN echo "a <<EOF"', ()),
        ("RUN cat <<< EOF", ()),
        ("RUN x=$((1<<2))", ()),
        ("RUN echo it's <<EOF", ()),
        ('RUN ["<<EOF"]', ()),
    ],
)
def test_heredocs_of_run(text: str, heredocs: tuple[Heredoc, ...]) -> None:
    run, user = body(f"{text}\nUSER after")
    assert isinstance(run, Run)
    assert run.heredocs == heredocs
    assert all("\t" not in heredoc.text for heredoc in run.heredocs)
    assert user.source == "USER after"


def test_heredocs_of_copy_are_not_sources() -> None:
    copy = only('COPY a <<b.txt <<"c" /d/\n$x\nb.txt\n$y\nc\n')
    assert isinstance(copy, Copy)
    assert copy.sources == ("a",)
    assert copy.heredocs == (Heredoc("b.txt", "$x\n", True), Heredoc("c", "$y\n", False))
    assert copy.end_line == 6


def test_onbuild_keeps_its_heredoc_for_later() -> None:
    onbuild = only("ONBUILD RUN <<EOF\na\nEOF\n")
    assert isinstance(onbuild, Onbuild)
    run = only(onbuild.text)
    assert isinstance(run, Run)
    assert run.heredocs == (Heredoc("EOF", "a\n", True),)


@pytest.mark.parametrize(
    ("text", "words", "column", "hint"),
    [
        ("  CPOY a b", "unknown instruction: CPOY", 3, "did you mean COPY?"),
        ("COPY --form=a b c", "unknown flag: --form", 6, "did you mean --from?"),
        ("USER --x y", "unknown flag: --x", 6, None),
        ("COPY --from=a --from=b c d", "duplicate flag", 6, None),
        ("COPY --from a b", "missing a value on flag: --from", 6, None),
        ("COPY --link= a b", "missing a value", 6, None),
        ("COPY --link=x a b", "expecting boolean", 6, None),
        ("COPY a", "at least two arguments", 1, "COPY SOURCE DESTINATION"),
        ("COPY a <<EOF\nEOF", "heredoc as a destination", 8, None),
        ('CMD ["a", 1]', "comprised of strings only", 5, "quote every word"),
        ("RUN []", "runs nothing", 5, None),
        ("RUN --network=x a", "invalid --network 'x'", 5, None),
        ("RUN --mount=from=$a,target=/b c", "variable expansion", 13, None),
        ("RUN <<EOF\na", "unterminated heredoc", 1, "end it with a line that is EOF"),
        ("SHELL bash", "JSON form", 7, None),
        ("ENV a", "two arguments", 5, "ENV NAME=VALUE"),
        ("ENV a=b c", "can't find =", 9, None),
        ("LABEL =b", "can not be blank", 7, None),
        ("ARG a =b", "can not be blank", 7, None),
        ("USER", "at least one argument", 1, None),
        ("VOLUME []", "at least one argument", 1, None),
        ('VOLUME [" "]', "empty string", 1, None),
        ("HEALTHCHECK curl x", "unknown type 'curl'", 13, None),
        ("HEALTHCHECK CMD", "missing command", 1, None),
        ("HEALTHCHECK NONE x", "takes no arguments", 18, None),
        ("HEALTHCHECK --interval=5 CMD a", "not a duration", 13, None),
        ("HEALTHCHECK --interval=1us CMD a", "less than 1ms", 13, None),
        ("HEALTHCHECK --retries=-1 CMD a", "not a number", 13, None),
        ("ONBUILD ONBUILD RUN a", "isn't allowed", 9, None),
        ("ONBUILD from a", "FROM isn't allowed", 9, None),
        ("FROM a b", "one or three", 1, None),
        ("FROM a AS 1b", "invalid name", 11, None),
        ("RUN " + "é" * 33_000, "max allowed size", 1, None),
    ],
)
def test_errors_name_the_place(text: str, words: str, column: int, hint: str | None) -> None:
    error = refused(text)
    assert words in error.message
    assert (error.file, error.line, error.column) == ("Dockerfile", 2, column)
    assert error.source == text.split("\n")[0][:500]
    if hint:
        assert error.hint == hint


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "no instructions"),
        ("# a\n\n", 1, "no instructions"),
        ("ARG a=b", 1, "no FROM"),
        ("\nRUN a\nFROM b", 2, "no build stage"),
        ("# escape=`\n# escape=`\nFROM a", 2, "only one escape"),
        ("# escape=x\nFROM a", 1, "invalid escape token"),
    ],
)
def test_files_that_are_no_dockerfile(text: str, line: int, words: str) -> None:
    with pytest.raises(DockerfileError, match=words) as caught:
        parse(text, "Dockerfile")
    assert caught.value.line == line
