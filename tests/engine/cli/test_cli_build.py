"""`build`'s flags as fields of a request, and its progress in each form."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from pathlib import Path

import pytest

from engine.cli import build_flags
from engine.cli.build import explain_lines
from engine.cli.flags import parse
from engine.cli.progress import PlainProgress, RawJsonProgress, TreeProgress, make_progress
from engine.errors import BuildFailed, InvalidInput, Unsupported
from engine.model import (
    BuildEvent,
    BuildFinished,
    BuildNotice,
    BuildOutput,
    BuildSecret,
    BuildStarted,
    PullProgress,
    SshAgent,
    StepFinished,
    StepInfo,
    StepOutput,
    StepProgress,
    StepStarted,
)

FROM = StepInfo("app/1", "app", 1, 3, "FROM python", 1)
COPY = StepInfo("app/2", "app", 2, 3, "COPY . .", 2)
RUN = StepInfo("app/3", "app", 3, 3, "RUN <<EOF\nmake\nEOF", 3)
EVENTS: list[BuildEvent] = [
    BuildStarted("Dockerfile", (FROM, COPY, RUN), 7),
    StepStarted(FROM, ""),
    PullProgress("python:3", "", "resolving"),
    PullProgress("python:3", "abc", "downloading", 512, 1024),
    PullProgress("python:3", "", "done", text="Digest: sha256:1"),
    StepFinished(FROM, True, 0.0, 0),
    StepStarted(COPY, "app.py content changed", ("app.py content changed",)),
    StepProgress("app/2", 10, 20),
    StepFinished(COPY, False, 0.25, 2048, "app.py content changed", ("app.py content changed", "b.py added")),
    BuildNotice("careful"),
    StepStarted(RUN, "parent step ran"),
    StepOutput("app/3", "stdout", "one\rtwo\n\x1b]0;title\x07three"),
]
END: list[BuildEvent] = [
    StepFinished(RUN, False, 1.5, 0, "parent step ran"),
    BuildFinished("sha256:" + "ab" * 32, "sha256:m", ("shop:latest",), 2.0, COPY, "app.py content changed"),
]


def outputs(*words: str) -> tuple[BuildOutput, ...]:
    return build_flags.outputs(parse(words, build_flags.FLAGS, "build"))


def test_outputs_are_buildx_words() -> None:
    assert outputs("-o", "out") == (BuildOutput("local", os.path.abspath("out")),)
    assert outputs("-o", "-") == (BuildOutput("tar", "-"),)
    assert outputs("--output", "type=oci,dest=a.tar,compression=zstd") == (
        BuildOutput("oci", os.path.abspath("a.tar"), {"compression": "zstd"}),
    )
    assert outputs("--output", "type=docker") == (BuildOutput("image"),)
    assert outputs("--output", 'type=tar,"dest=a,b.tar"') == (BuildOutput("tar", os.path.abspath("a,b.tar")),)
    assert outputs("--load") == (BuildOutput("image"),)
    assert outputs("--push") == (BuildOutput("registry", "", {"push": "true"}),)
    assert outputs() == ()
    for bad in ("type=nothing", "type=local", "type=local,dest=-"):
        with pytest.raises(InvalidInput):
            outputs("-o", bad)


def test_secrets_and_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("t")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("API_KEY", "k")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    found = build_flags.secrets(["id=a,src=token", "id=b,env=API_KEY", "id=API_KEY", "type=env,id=c,src=API_KEY"])
    assert found == (
        BuildSecret("a", path=tmp_path / "token"),
        BuildSecret("b", variable="API_KEY", value=b"k"),
        BuildSecret("API_KEY", variable="API_KEY", value=b"k"),
        BuildSecret("c", variable="API_KEY", value=b"k"),
    )
    assert build_flags.ssh(["default", "git=token"]) == (
        SshAgent("default", Path("/run/agent")),
        SshAgent("git", None, (tmp_path / "token",)),
    )
    for bad in ("src=token", "id=a,src=missing", "id=a,env=NOPE", "id=a,nope=1", "id=a,type=x"):
        with pytest.raises(InvalidInput):
            build_flags.secrets([bad])
    with pytest.raises(InvalidInput, match="missing"):
        build_flags.ssh(["x=missing"])


def test_attestations_are_refused_unless_switched_off() -> None:
    for words in (["--sbom=false"], ["--provenance=false"], ["--attest", "type=sbom,disabled=true"], []):
        build_flags.refuse_attestations(parse(words, build_flags.FLAGS, "build"))
    for words in (["--sbom=true"], ["--provenance=mode=max"], ["--attest", "type=provenance"]):
        with pytest.raises(Unsupported, match="attestations"):
            build_flags.refuse_attestations(parse(words, build_flags.FLAGS, "build"))


def test_platforms_and_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", "1")
    monkeypatch.delenv("NOT_GIVEN", raising=False)
    assert build_flags.platforms(["linux/amd64,linux/arm64", "linux/amd64"]) == ("linux/amd64", "linux/arm64")
    assert build_flags.build_args(["A=b=c", "GIVEN", "NOT_GIVEN", "E="]) == {"A": "b=c", "GIVEN": "1", "E": ""}
    with pytest.raises(InvalidInput):
        build_flags.pairs(["=x"], "label")


# --- progress ---------------------------------------------------------------------------------------------


def test_plain_lines_are_buildkits_with_the_reason() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    for event in EVENTS + END:
        progress.feed(event)
    text = re.sub(r"(#\d+) \d+\.\d{3} ", r"\1 T ", out.getvalue())
    assert "#3 [app 2/3] COPY . .\n#3 (app.py content changed)\n#3 DONE 0.2s 2.05kB\n" in text
    assert "#1 [app 1/3] FROM python\n#1 CACHED\n" in text
    assert "[app 3/3] RUN <<EOF …\n" in text
    assert "#4 T two\n#4 T ?]0;title?three\n" in text, "what would drive the terminal is taken out"
    assert text.endswith("built shop:latest in 2.0 s\n")


def test_raw_json_is_buildkits_solve_status() -> None:
    out = io.StringIO()
    progress = RawJsonProgress(out)
    for event in EVENTS + END:
        progress.feed(event)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {key for line in lines for key in line} == {"vertexes", "statuses", "logs", "warnings"}
    vertexes = {v["name"]: v for line in lines for v in line.get("vertexes", ())}
    copy = vertexes["[app 2/3] COPY . ."]
    assert copy["inputs"] == [vertexes["[app 1/3] FROM python"]["digest"]]
    assert copy["started"] <= copy["completed"]
    assert vertexes["[app 1/3] FROM python"]["cached"] is True
    (log,) = (entry for line in lines for entry in line.get("logs", ()))
    assert base64.b64decode(log["data"]) == b"one\rtwo\n\x1b]0;title\x07three\n"


def test_raw_json_names_the_error_of_the_step_that_broke() -> None:
    out = io.StringIO()
    progress = RawJsonProgress(out)
    for event in EVENTS:
        progress.feed(event)
    progress.close(BuildFailed("exit code 2"))
    last = json.loads(out.getvalue().splitlines()[-1])["vertexes"][0]
    assert (last["name"], last["error"]) == ("[app 3/3] RUN <<EOF …", "exit code 2")


class Screen:
    """The few movements that the tree uses, carried out on a list of lines."""

    def __init__(self, written: str) -> None:
        self.lines: list[str] = [""]
        for part in re.split(r"(\x1b\[\d*[A-Z]|\n|\r)", written):
            if match := re.fullmatch(r"\x1b\[(\d+)A", part):
                self.row = len(self.lines) - 1 - int(match[1])
                assert self.row >= 0
            elif part == "\x1b[J":
                self.lines = [*self.lines[: self.row], ""]
            elif part == "\n":
                self.lines.append("")
            elif part != "\r":
                self.lines[-1] += part


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "12")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.usefixtures("terminal")
def test_the_tree_keeps_what_is_done_and_redraws_what_runs() -> None:
    out = io.StringIO()
    progress = TreeProgress(out)
    for event in EVENTS:
        progress.feed(event)
    progress.tick()
    lines = Screen(out.getvalue()).lines
    assert lines[0].startswith("✔ pull python:3")
    assert lines[1] == "= [app 1/3] FROM python   cached"
    assert lines[2].startswith("✔ [app 2/3] COPY . .   250 ms, 2.05kB   app.py content changed")
    assert lines[3] == "note careful"
    assert re.fullmatch(r"building \d+ ms \(2/3\)", lines[4])
    assert lines[5].startswith("> [app 3/3] RUN <<EOF …   (parent step ran)")
    assert lines[6:] == ["    two", "    ?]0;title?three", ""]
    assert max(map(len, lines)) <= 70
    for event in END:
        progress.feed(event)
    progress.close()
    lines = Screen(out.getvalue()).lines
    assert lines[4:] == ["✔ [app 3/3] RUN <<EOF …   1.5 s   parent step ran", "built shop:latest in 2.0 s", ""]


@pytest.mark.usefixtures("terminal")
def test_many_steps_at_once_fit_on_the_screen_and_a_failure_leaves_its_output() -> None:
    out = io.StringIO()
    progress = TreeProgress(out)
    for number in range(30):
        step = StepInfo(f"s{number}/1", f"s{number}", 1, 1, "RUN make " + "x" * 100, 1)
        progress.feed(StepStarted(step, "never built here"))
        progress.feed(StepOutput(step.key, "stdout", "\n".join(f"line {i}" for i in range(50))))
        progress.tick()
        assert progress._drawn <= 10
    assert max(map(len, Screen(out.getvalue()).lines)) < 60
    progress.close(BuildFailed("exit code 1"))
    lines = Screen(out.getvalue()).lines
    assert sum(line.startswith("✘ [s") for line in lines) == 30
    assert "    line 49" in lines


def test_forms() -> None:
    assert isinstance(make_progress("auto", io.StringIO()), PlainProgress)
    assert isinstance(make_progress("tty", io.StringIO()), TreeProgress)
    with pytest.raises(InvalidInput, match="fancy"):
        make_progress("fancy")


def test_explain_names_every_cause() -> None:
    steps = [event for event in EVENTS + END if isinstance(event, StepFinished)]
    assert explain_lines(steps) == [
        "   1  [app 1/3] FROM python\n        cached",
        "   2  [app 2/3] COPY . .\n        ran in 250 ms, because:",
        "          app.py content changed",
        "          b.py added",
        "   3  [app 3/3] RUN <<EOF make EOF\n        ran in 1.5 s, because:",
        "          parent step ran",
    ]
