"""Docker's flags that cannot be done here say so, and every flag of the real command line is either known or one of them."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from engine.cli import examples, refused
from engine.cli.main import main

NOT_HERE = ("buildx", "checkpoint", "compose", "plugin", "trust")  # other programs of Docker's, or refused as a whole


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--isolation=hyperv", "x"], "--isolation is not possible here: it is about containers of Windows"),
        (["run", "--disable-content-trust=false", "x"], "not signed"),
        (["build", "--rm=false", "."], "leaves no container"),
        (["build", "-c", "5", "."], "--memory and --ulimit alone"),
        (["start", "--checkpoint", "c", "x"], "CRIU"),
        (["network", "create", "--scope", "swarm", "x"], "this host's alone"),
        (["network", "create", "--ipv4=false", "x"], "always has IPv4"),
        (["volume", "create", "--sharing", "all", "x"], "Swarm"),
        (["volume", "update", "x"], "volume update is not possible here"),
        (["context", "use", "x"], "read and not written"),
        (["swarm", "init"], "no part of a Swarm"),
        (["checkpoint", "ls", "x"], "CRIU"),
    ],
)
def test_what_is_not_possible_says_why(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["--root", str(tmp_path), *words])
    assert status == (125 if words[0] == "run" else 1)
    assert told in capsys.readouterr().err


def test_what_holds_anyway_is_taken_and_not_in_the_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["rmi", "--no-prune"], ["images", "--tree=false"], ["network", "create", "--ipv4", "--scope=local"]):
        assert main(["--root", str(tmp_path), *words, "--help"]) == 0
        told = capsys.readouterr().out
        assert "Usage:" in told
        assert words[-1].partition("=")[0] not in told


def _help(words: list[str]) -> str:
    return subprocess.run(["docker", *words, "--help"], check=True, capture_output=True, text=True).stdout


def _verbs(text: str) -> list[str]:
    blocks = re.findall(r"^(?:Common |Management |)Commands:\n((?:  .*\n)+)", text, re.MULTILINE)
    return re.findall(r"^  ([\w-]+)\*? ", "".join(blocks), re.MULTILINE)


def _flags(text: str) -> set[str]:
    found = re.findall(r"^ +(?:(-\w), )?(--[\w-]+)", text, re.MULTILINE)
    return {word for pair in found for word in pair if word}


@pytest.mark.peer("docker")
def test_every_flag_of_the_docker_command_line_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")  # `docker build` is otherwise another program's
    missing = {}
    for verb in _verbs(_help([])):
        if verb in NOT_HERE:
            continue
        for sub in _verbs(_help([verb])) or [""]:
            words = [verb, sub] if sub else [verb]
            theirs = _flags(_help(words))
            status = main([*words, "--help"])
            told = capsys.readouterr()
            if status:
                assert "not possible here" in told.err, words
                continue
            usage = told.out.partition("workbench ")[2].partition("\n")[0]
            ours = {
                f"{dash}{name}" for f in refused.flags(usage, []) for dash, name in (("--", f.name), ("-", f.short))
            }
            if left := theirs - _flags(told.out) - ours:
                missing[" ".join(words)] = sorted(left)
    assert missing == {}


def test_every_example_in_the_help_is_read_by_its_verb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `--help` in it, so that it is read and not done."""
    monkeypatch.chdir(tmp_path)
    for verb, text in examples._EXAMPLES.items():
        for line in text.split("\n"):
            words = shlex.split(line.partition(" < ")[0], comments=False)
            assert words[0] == "workbench", line
            count = len(verb.split())
            assert words[1 : 1 + count] == verb.split(), line
            status = main(["--root", str(tmp_path), *words[1 : 1 + count], "--help", *words[1 + count :]])
            told = capsys.readouterr()
            assert status == 0, (line, told.err)
            assert f"  {line}" in told.out
