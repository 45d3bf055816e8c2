"""The build pane, the history of builds, and the editor, on a scripted engine."""

from __future__ import annotations

import asyncio
import io
import sys
import tarfile
from pathlib import Path

import pytest

from engine.api import (
    BuildDetail,
    BuildFinished,
    BuildOutputLine,
    BuildRequest,
    BuildSecret,
    BuildStarted,
    BuildStepRecord,
    Change,
    FileDifference,
    PullProgress,
    ServiceBuild,
    ServiceBuildFailed,
    ServiceState,
    StepFinished,
    StepOutput,
    StepStarted,
    WhyReport,
    WhyStep,
)
from engine.base.failed_step import HISTORY
from engine.errors import BuildFailed, InvalidInput, Unsupported
from tests.workbench.fake_engine import FakeEngine, FakeLoop, a_build, steps, until
from workbench.app import WorkbenchApp
from workbench.build_model import KEPT, Build
from workbench.build_words import detail_lines, failure_document, why_lines
from workbench.editing import edit, editor_command, run
from workbench.panes.build import BuildPane
from workbench.panes.builds import BuildsPane
from workbench.screens.reading import ReadingScreen

DOCKERFILE = "FROM base\nCOPY . .\nRUN make \\\n    all\nCMD app\n"
STEPS = steps("FROM base", "COPY . .", "RUN make all")


def shown(app: WorkbenchApp) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


def fail(
    loop: FakeLoop, file: str, *, message: str = "make: *** no rule to make 'all'", hint: str = "write a rule"
) -> None:
    """A build of `web` whose third step fails."""
    loop.report(
        ServiceState("web", "building"),
        ServiceBuild("web", BuildStarted(file, STEPS, 7)),
        ServiceBuild("web", StepFinished(STEPS[0], True, 0, 0)),
        ServiceBuild("web", StepStarted(STEPS[1], "app.py content changed")),
        ServiceBuild("web", StepFinished(STEPS[1], False, 0.02, 1200, "app.py content changed")),
        ServiceBuild("web", StepStarted(STEPS[2], "parent step ran")),
        ServiceBuild("web", StepOutput(STEPS[2].key, "stderr", "compiling\nmake: *** stop\n")),
        ServiceBuildFailed("web", message, hint, file, 3, True),
    )


async def test_a_failed_build_shows_the_dockerfile_with_the_message_under_the_line(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(DOCKERFILE)
    loop = FakeLoop()
    app = WorkbenchApp(FakeEngine(), loop)  # type: ignore[arg-type]
    async with app.run_test(size=(120, 45)) as pilot:
        await pilot.press("5")
        pane = app.panes["build"]
        assert isinstance(pane, BuildPane)
        fail(loop, str(file))
        await until(pilot, lambda: any(line.key == "failed" for line in pane.view.lines))
        texts = [f"{line.gutter} {line.text}" for line in pane.view.lines]
        at = texts.index("✗ 3 RUN make \\")
        assert texts[at + 1] == "✗ 4     all"
        assert "no rule to make 'all'" in texts[at + 2]
        assert "make: *** stop" in texts[at + 4], "what the command said stands right under the message"
        assert "hint: write a rule" in texts[at + 5]
        assert texts[-1].strip() == "5 CMD app"
        assert pane.list.selected == f"web|{STEPS[2].key}"
        row = pane.list._all[pane.list.selected]
        assert (row[0], row[3]) == ("✗", "failed")
        assert "e edits" in str(pane.border_subtitle)
        await pilot.press("k")
        await until(pilot, lambda: "COPY . ." in pane.view.lines[0].text)
        assert "app.py content changed" in shown(app)
        await pilot.press("slash", *"compiling", "enter")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen))
        screen = app.screen
        assert isinstance(screen, ReadingScreen)
        await until(pilot, lambda: screen.view.hit_words == "1 of 1 hits")


async def test_steps_go_on_while_output_is_appended() -> None:
    loop = FakeLoop()
    app = WorkbenchApp(FakeEngine(), loop)  # type: ignore[arg-type]
    async with app.run_test(size=(120, 45)) as pilot:
        await pilot.press("5")
        pane = app.panes["build"]
        assert isinstance(pane, BuildPane)
        loop.report(
            ServiceState("web", "building"),
            ServiceBuild("web", PullProgress("python:3", "a", "downloading", 5_000_000, 10_000_000)),
            ServiceBuild("web", BuildStarted("Dockerfile", STEPS, 8)),
            ServiceBuild("web", StepStarted(STEPS[2], "never built here")),
            ServiceBuild("web", StepOutput(STEPS[2].key, "stdout", "10%\r50%\r100%\nlinked\n")),
        )
        await until(pilot, lambda: pane.view.lines and pane.view.lines[-1].text == "linked")
        assert pane.view.lines[-2].text == "100%"
        loop.report(ServiceBuild("web", StepOutput(STEPS[2].key, "stdout", "more\n")))
        await until(pilot, lambda: pane.view.lines[-1].text == "more")
        loop.report(
            ServiceBuild("web", StepFinished(STEPS[2], False, 1.5, 10)),
            ServiceBuild("web", BuildFinished("sha256:i", "sha256:d", ("web:latest",), 1.7, reason="never built here")),
        )
        await until(pilot, lambda: pane.list._all["web|"][3] == "done")
        await until(pilot, lambda: pane.list.selected == "web|")
        assert pane.view.lines[-1].text.startswith("✓ web:latest")


async def test_what_a_change_would_rebuild_and_a_shell_in_the_failed_step(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    engine, loop = FakeEngine(builds=[a_build(7, "failed")]), FakeLoop()
    record = a_build(7, "failed", context=str(tmp_path), dockerfile=str(tmp_path / "Dockerfile"), error="make failed")
    engine.build_details[7] = BuildDetail(record, (), (), {"V": "1"})
    engine.why_reports = [WhyReport("app.py", (WhyStep(STEPS[1], "reads app.py", 0.02),), seconds=0.02)]
    failure = BuildFailed("make failed", exit_code=2)
    failure.image = "sha256:kept"
    engine.fails["build"] = failure
    app = WorkbenchApp(engine, loop)  # type: ignore[arg-type]
    async with app.run_test(size=(120, 45)) as pilot:
        await pilot.press("5")
        fail(loop, str(tmp_path / "Dockerfile"))
        pane = app.panes["build"]
        assert isinstance(pane, BuildPane)
        await until(pilot, lambda: pane.list.selected)
        await pilot.press("w", *"app.py", "enter")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen))
        request, paths = engine.called("why")[0]
        assert (request.context, paths) == (tmp_path, ("app.py",))
        assert "reads app.py" in shown(app)
        await pilot.press("escape", "exclamation_mark")
        await until(pilot, lambda: engine.called("attach"))
        (asked,) = engine.called("build")[0]
        assert asked.keep_failed
        assert asked.build_args == {"V": "1"}
        (spec,) = engine.called("create")[0]
        assert (spec.image, spec.tty) == ("sha256:kept", True)
        assert app.pane.NAME == "terminal"
    assert engine.called("remove") == [(spec.name,)]  # with the app


async def test_a_shell_in_a_step_of_the_project_has_its_secrets_and_says_what_was_done(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    engine, loop = FakeEngine(), FakeLoop()
    loop.requests["web"] = BuildRequest(
        tmp_path, tags=("web:latest",), contexts={"lib": "../lib"}, secrets=(BuildSecret("token", variable="TOKEN"),)
    )
    failure = BuildFailed("make failed", exit_code=2)
    failure.image = "sha256:kept"
    engine.fails["build"] = failure
    engine.changed = [Change("A", "/usr/bin/make"), Change("A", HISTORY)]
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as made:
        info = tarfile.TarInfo(".workbench-history")
        text = b"apt-get install -y make\nexit\n"
        info.size = len(text)
        made.addfile(info, io.BytesIO(text))
    engine.archives[HISTORY] = tar.getvalue()
    app = WorkbenchApp(engine, loop)  # type: ignore[arg-type]
    async with app.run_test(size=(120, 45)) as pilot:
        await pilot.press("5")
        fail(
            loop, str(tmp_path / "Dockerfile"), hint="`workbench build --shell-on-error` opens a shell where it failed"
        )
        pane = app.panes["build"]
        assert isinstance(pane, BuildPane)
        await until(pilot, lambda: "! here opens a shell" in "\n".join(line.text for line in pane.view.lines))
        await pilot.press("exclamation_mark")
        await until(pilot, lambda: engine.called("attach"))
        (asked,) = engine.called("build")[0]
        assert (asked.secrets, asked.contexts) == (loop.requests["web"].secrets, {"lib": "../lib"})
        assert (asked.keep_failed, asked.tags) == (True, ()), "nothing is given a name by a look into it"
        (spec,) = engine.called("create")[0]
        engine.ended.set()
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen))
        assert "RUN apt-get install -y make" in shown(app)
        assert "A /usr/bin/make" in shown(app)
        assert engine.called("remove") == [(spec.name,)]


async def test_builds_in_detail_their_output_and_two_of_them() -> None:
    engine = FakeEngine(builds=[a_build(1, image_id="sha256:1"), a_build(2, image_id="sha256:2"), a_build(3, "failed")])
    record = a_build(2)
    one = BuildStepRecord(STEPS[1], "done", 0.1, 0.2, 900, "app.py content changed")
    engine.build_details[2] = BuildDetail(
        record, (one,), (BuildOutputLine(STEPS[1].key, "stdout", "copied\n", 0.1),), {}
    )
    engine.differences = [FileDifference("/app/app.py", "changed", 10, 20, "content")]
    app = WorkbenchApp(engine)  # type: ignore[arg-type]
    async with app.run_test(size=(140, 45)) as pilot:
        await until(pilot, lambda: "builds" in app.panes and app.panes["builds"].is_attached)
        app.action_pane("builds")
        pane = app.panes["builds"]
        assert isinstance(pane, BuildsPane)
        await until(pilot, lambda: len(pane.list.keys) == 3)
        await pilot.press("j", "enter")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen))
        assert "app.py content changed" in shown(app)
        await pilot.press("G", "enter")
        await until(pilot, lambda: "copied" in shown(app))
        await pilot.press("escape", "l")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen) and "copied" in shown(app))
        await pilot.press("escape", "x")
        await until(pilot, lambda: engine.called("build_diff") == [(1, 2)])
        await until(pilot, lambda: "enter shows one" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: engine.called("file_diff") == [("sha256:1", "sha256:2", "/app/app.py")])
        await pilot.press("escape", "g", "x")
        await until(pilot, lambda: engine.called("build_diff")[-1] == (2, 3))
        await pilot.press("escape", "f", *"content", "enter")
        await until(pilot, lambda: engine.calls[-1] == ("builds", "content"))


def test_a_failure_outside_the_dockerfile_has_its_message() -> None:
    build = Build("web")
    build.fail("the container ended at once", "look at its log")
    lines, at = failure_document(build, "")
    assert at == 0
    assert [line.text.strip() for line in lines] == ["✗ the container ended at once", "hint: look at its log"]


def test_output_beyond_what_is_kept_goes_from_the_front() -> None:
    build = Build("web")
    for _ in range(12):
        build.say("k", "stdout", "x\n" * 5000)
    assert len(build.output) <= KEPT + 5000
    assert build.dropped + len(build.output) == 60_000


def test_words_of_history_and_why() -> None:
    record = a_build(4, "failed", error="boom\nmore", target="dev", tags=("a:1",), image_id="")
    lines = [line.text for line in detail_lines(BuildDetail(record, (), (), {"A": "1"}, "a hint"))]
    assert lines[0] == "build 4: failed in 400 ms"
    assert lines[-1].strip() == "hint: a hint"
    assert why_lines([WhyReport("x", note="ignored")])[0].text == "x: nothing would run (ignored)"


@pytest.mark.parametrize(
    ("editor", "words"),
    [
        ("vim", ["vim", "+7", "f"]),
        ("code -w", ["code", "-w", "--goto", "f:7"]),
        ("hx", ["hx", "f:7"]),
        ("emacs -nw", ["emacs", "-nw", "+7", "f"]),
    ],
)
def test_editors_open_at_the_line(editor: str, words: list[str]) -> None:
    assert editor_command("f", 7, {"EDITOR": editor}) == words
    assert editor_command("f", 0, {"VISUAL": editor, "EDITOR": "ed"})[0] == words[0]


async def test_an_editor_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no-such-editor"):
        await run(["no-such-editor"])
    assert await run([sys.executable, "-c", "raise SystemExit(3)"]) == 3
    app = WorkbenchApp(FakeEngine())  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        await edit(app, str(tmp_path / "none"), 1)
    await asyncio.sleep(0)
