"""The build that runs, or ran last, of each service: its steps above, below what the selected one said; after a failure the
Dockerfile with the line that failed, and the message under it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import Binding
from textual.timer import Timer
from textual.widget import Widget

from engine import api
from engine.errors import BuildFailed, EngineError, InvalidInput, Unsupported
from workbench.build_model import Build, Step
from workbench.build_words import (
    STEPS,
    build_cells,
    build_document,
    failure_document,
    output_lines,
    step_cells,
    step_document,
    why_lines,
)
from workbench.editing import edit
from workbench.failed_shell import open_shell
from workbench.panes.base import Pane
from workbench.screens.reading import ReadingScreen
from workbench.state import neutral
from workbench.widgets.lines_view import LinesView, TextLine
from workbench.widgets.prompt import Prompt
from workbench.widgets.row_list import Row, RowList

GATHER = 0.08  # seconds: what happens within it is drawn at once
LOW = 16  # rows of height below which steps make room for a failure
OUTPUT_FROM = 8  # rows of height from which output shows below the steps


class BuildPane(Pane):
    NAME, TITLE = "build", "build"
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("slash", "search", "Search", key_display="/", id="build.search", tooltip="Search everything that the build said"),
        Binding("e", "edit", "Edit", id="build.edit", tooltip="The Dockerfile in $EDITOR, at the line that failed or the selected step's"),
        Binding("exclamation_mark", "shell", "Shell in it", key_display="!", id="build.shell", tooltip="A shell in the failed RUN step: its files, environment, user and directory"),
        Binding("w", "why", "What if", id="build.why", tooltip="What a change of a file would rebuild, before it is saved"),
        Binding("f", "failure", "Failure", show=False, id="build.failure", tooltip="The Dockerfile where it failed"),
    ]  # fmt: skip
    DEFAULT_CSS = """
    BuildPane > RowList { height: 1fr; }
    BuildPane > LinesView { display: none; height: 1fr; border-top: solid $foreground 20%; }
    BuildPane.-tall > RowList { height: auto; max-height: 50%; min-height: 3; }
    BuildPane.-tall > LinesView { display: block; }
    BuildPane.-failed > RowList { height: 3; min-height: 1; }
    BuildPane > .-covered { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.list = RowList(id="build-steps", columns=STEPS)
        self.view = LinesView(id="build-output", empty="", follow=True)
        self.prompt = Prompt()
        self.builds: dict[str, Build] = {}
        self._notes: list[TextLine] = []  # of the project, when no build says anything
        self._changed: tuple[str, ...] = ()
        self._timer: Timer | None = None
        self._own = False  # the reader has moved the cursor since the build began
        self._shown: tuple[str, int, int] = ("", 0, 0)  # row, lines of output, and version of what is shown
        self._version = 0
        self._dockerfiles: dict[str, str] = {}
        self.shells: list[str] = []  # containers of failed steps, which go with the app
        self.asked: api.BuildRequest | None = None  # by the form, last

    def content(self) -> Iterable[Widget]:
        yield self.list
        yield self.view
        yield self.prompt

    @property
    def main(self) -> Widget:
        return self.list

    def on_mount(self) -> None:
        self.say("empty", "Nothing was built yet.")

    async def on_unmount(self) -> None:
        for name in self.shells:
            with contextlib.suppress(EngineError):  # its shell has ended, and it went by itself
                await self.bridge.engine.remove(name, force=True)

    def on_resize(self) -> None:
        self.set_class(self.size.height >= OUTPUT_FROM, "-tall")
        self._make_room()

    def _make_room(self) -> None:
        """In a low pane a failure's message is worth more than the steps before it."""
        failed = any(build.failure for build in self.builds.values())
        self.set_class(failed and self.size.height < LOW, "-failed")

    def shown(self) -> None:
        self._later()

    # --- what happens -----------------------------------------------------------------------------------------------

    def loop_event(self, event: api.LoopEvent) -> None:
        match event:
            case api.ProjectFound(_, _, _, _, notes):
                self._notes += [TextLine(neutral(note), "warning") for note in notes]
            case api.ServiceState(service, "building"):
                self._begin(service)
            case api.ServiceBuild(service, happened):
                self._feed(service, happened)
            case api.ServiceBuildFailed(service, text, hint, file, line, _):
                self._failed(service, text, hint, file, line)
            case api.LoopNotice(text, _):
                self._notes.append(TextLine(neutral(text)))
            case api.ChangeSeen(_, paths):
                self._changed = paths
            case _:
                return
        self._later()

    def build_event(self, event: api.BuildEvent) -> None:
        """Of a build that the user started here (`app.build`)."""
        if isinstance(event, api.BuildStarted) or "" not in self.builds:
            self._begin("")
        self._feed("", event)
        self._later()

    def build_failed(self, error: EngineError) -> None:
        """The same one ended with it."""
        if "" not in self.builds:
            self._begin("")
        file, line = (error.file, error.line) if isinstance(error, BuildFailed) else ("", 0)
        self._failed("", error.message, error.hint or "", file, line)
        self._later()

    def _begin(self, name: str) -> None:
        self.builds.pop(name, None)
        self.builds[name] = Build(name)
        self._own = False
        self._version += 1

    def _feed(self, name: str, event: api.BuildEvent) -> None:
        if name not in self.builds:
            self._begin(name)
        self.builds[name].feed(event)
        if not isinstance(event, api.StepOutput):
            self._version += 1

    def _failed(self, name: str, text: str, hint: str, file: str, line: int) -> None:
        build = self.builds.setdefault(name, Build(name))
        hint = hint.replace("`workbench build --shell-on-error`", f"{self.app_.keys.of('build.shell')} here")
        build.fail(text, hint, file or (build.dockerfile if line else ""), line)
        self._own = False
        self._version += 1
        if build.failure is not None and build.failure.file:
            self.work(self._read_dockerfile, build.failure.file, group="dockerfile")

    async def _read_dockerfile(self, file: str) -> None:
        def read() -> str:
            try:
                with open(file, encoding="utf-8", errors="replace") as found:
                    return found.read(1 << 20)
            except OSError:
                return ""

        self._dockerfiles[file] = await asyncio.to_thread(read)
        self._version += 1
        self._later()

    # --- drawing ------------------------------------------------------------------------------------------------------

    def _later(self) -> None:
        """Draws soon, once for many events, and only what is on the screen."""
        if self.on_screen and self._timer is None:
            self._timer = self.set_timer(GATHER, self._draw)

    def _draw(self) -> None:
        self._timer = None
        if not self.builds:
            if self._notes:
                self.say("")
                self.view.set(self._notes)
            return
        self.say("")
        self._make_room()
        self.list.show(self._rows())
        if not self._own:
            self.list.select(self._interesting())
        self._draw_output()
        failed = [build for build in self.builds.values() if build.failure]
        keys = self.app_.keys
        words = f"{keys.of('build.edit')} edits, {keys.of('build.shell')} opens a shell"
        self.set_subtitle(f"{len(failed)} failed: {words}" if failed else "")

    def _rows(self) -> list[Row]:
        rows: list[Row] = []
        for name, build in self.builds.items():
            rows.append((f"{name}|", build_cells(build, several=len(self.builds) > 1)))
            rows += [(f"{name}|{key}", step_cells(step)) for key, step in build.steps.items()]
        return rows

    def _interesting(self) -> str:
        """The row that says most now: what failed, what runs, else the newest build as a whole."""
        for name, build in reversed(self.builds.items()):
            step = build.failed_step if build.failure else build.running_step
            if build.failure:
                return f"{name}|{step.info.key if step else ''}"
            if step is not None:
                return f"{name}|{step.info.key}"
        return f"{next(reversed(self.builds))}|"

    def _selected(self) -> tuple[Build, Step | None] | None:
        name, _, key = self.list.selected.partition("|")
        build = self.builds.get(name)
        return (build, build.steps.get(key)) if build is not None else None

    def _document(self, build: Build, step: Step | None) -> tuple[list[TextLine], int | None]:
        failure = build.failure
        if failure is not None and (step is None or step is build.failed_step):
            lines, at = failure_document(build, self._dockerfiles.get(failure.file, ""))
            return lines, at
        return (step_document(build, step) if step is not None else self._notes + build_document(build)), None

    def _draw_output(self) -> None:
        found = self._selected()
        if found is None:
            self.view.set(())
            return
        build, step = found
        said = len(build.lines_of(step.info.key if step else None)) + build.dropped
        row, before, version = self._shown
        self._shown = (self.list.selected, said, self._version)
        if row == self.list.selected and version == self._version and build.failure is None and step is not None:
            if said > before:
                self.view.append(output_lines(build.lines_of(step.info.key)[before - said :]))
            return
        if (row, before, version) == self._shown:
            return
        lines, at = self._document(build, step)
        self.view.following = at is None
        self.view.set(lines, cursor=at, above=None if at is None else 2 if self.size.height >= LOW else 0)

    @on(RowList.Moved)
    def _moved(self, event: RowList.Moved) -> None:
        event.stop()
        self._own = True
        self._draw_output()

    # --- keys -----------------------------------------------------------------------------------------------------------

    @on(RowList.Chosen)
    def _chosen(self, event: RowList.Chosen) -> None:
        """Enter: the whole text of the selected row."""
        event.stop()
        self._open()

    def _open(self, *, search: bool = False) -> None:
        found = self._selected()
        if found is None:
            return
        build, step = found
        if search:
            step = None
        lines, at = (build_document(build), 0) if search else self._document(build, step)
        title = f"{neutral(build.name) or 'build'}{f' #{build.number}' if build.number else ''}"
        screen = ReadingScreen(title, lines, note=build.summary(), cursor=at or 0)
        self.app.push_screen(screen)
        if search:
            screen.call_after_refresh(screen.action_search)

    def action_search(self) -> None:
        self._open(search=True)

    def action_failure(self) -> None:
        self._own = False
        self._version += 1
        self._draw()

    def action_edit(self) -> None:
        found = self._selected()
        if found is None:
            return
        build, step = found
        line = step.info.line if step is not None else 0
        file = build.dockerfile
        if build.failure is not None and (step is None or step is build.failed_step) and build.failure.file:
            file, line = build.failure.file, build.failure.line
        self.work(edit, self.app, file, line, group="edit")

    def action_shell(self) -> None:
        found = self._selected()
        if found is None or found[0].failure is None:
            failed = next((build for build in self.builds.values() if build.failure is not None), None)
        else:
            failed = found[0]
        if failed is not None:
            self.work(self._shell, failed, group=f"shell-{len(self.shells)}")

    async def _request(self, build: Build | None) -> api.BuildRequest:
        """What was built: as the form or the project asks for it, else out of the history. Raises `InvalidInput`."""
        if build is not None and not build.name and self.asked is not None:
            return self.asked
        loop = self.bridge.loop
        if loop is not None and (request := loop.request(build.name if build is not None else "")) is not None:
            return request
        engine = self.bridge.engine
        number = build.number if build is not None else 0
        if not number:
            newest = await engine.builds(limit=1)
            if not newest:
                raise InvalidInput("nothing was built here yet")
            number = newest[0].number
        detail = await engine.build_detail(number)
        record = detail.record
        if not Path(record.context).is_dir():
            raise InvalidInput(f"the context of build {number}, {record.context}, is no folder of this machine")
        return api.BuildRequest(
            Path(record.context), Path(record.dockerfile), target=record.target, build_args=detail.args
        )

    async def _shell(self, build: Build) -> None:
        if self.app_.read_only:
            raise Unsupported("the app is read-only: a shell in the failed step makes a container")
        await open_shell(self, await self._request(build))

    # --- what if --------------------------------------------------------------------------------------------------------

    def action_why(self) -> None:
        last = f"; nothing: {self._changed[0]}" if self._changed else ""
        self.prompt.open("why", "if this file changed:", hint=f"a path in the build's folder, or several{last}")

    @on(Prompt.Done)
    def _typed(self, message: Prompt.Done) -> None:
        message.stop()
        self.prompt.shut()
        self.list.focus()
        if paths := message.text.split() or list(self._changed[:1]):
            self.work(self._why, tuple(paths), group="why")

    async def _why(self, paths: tuple[str, ...]) -> None:
        found = self._selected()
        request = await self._request(found[0] if found is not None else None)
        given = [path.removeprefix(f"{request.context}/") for path in paths]
        reports = await self.bridge.engine.why(request, given)
        self.app.push_screen(ReadingScreen("what a change would rebuild", why_lines(reports)))

    def clear_filter(self) -> bool:
        if not self.prompt.is_open:
            return False
        self.prompt.shut()
        self.list.focus()
        return True
