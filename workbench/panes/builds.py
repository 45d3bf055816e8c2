"""The history of builds, newest first: each in detail, with its output, and against another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding
from textual.widget import Widget

from engine.base.units import brief_seconds
from engine.errors import InvalidInput
from workbench import commands
from workbench.build_model import Build
from workbench.build_words import build_document, detail_lines, step_document
from workbench.files_words import comparison_lines, counts_words, difference_lines
from workbench.layer_rows import BUILDS, build_row
from workbench.panes.rows import FILTER, RowsPane
from workbench.screens.reading import ReadingScreen
from workbench.state import neutral
from workbench.subjects import Subject
from workbench.widgets.prompt import Prompt

if TYPE_CHECKING:
    from engine.api import BuildDetail, BuildRecord, EngineEvent

LIMIT = 500


class BuildsPane(RowsPane):
    NAME, TITLE, KIND = "builds", "builds", "build"
    COLUMNS = BUILDS
    EMPTY = "No builds yet."
    BINDINGS: ClassVar[list[Binding]] = [
        *commands.bindings("build"),
        FILTER,
        Binding("l", "logs", "Output", id="builds.logs", tooltip="Everything that it said"),
        Binding("x", "diff", "Diff", id="builds.diff", tooltip="What its result does not share with the one before, or of two marked ones"),
        Binding("f", "find", "Find", show=False, id="builds.find", tooltip="Only builds whose steps, reasons, errors or output hold a text"),
    ]  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.prompt = Prompt()
        self._search = ""
        self._records: list[BuildRecord] = []

    def content(self) -> Iterable[Widget]:
        return [*super().content(), self.prompt]

    def shown(self) -> None:
        self.work(self._read, group="read")

    def engine_event(self, event: EngineEvent) -> None:
        if self.on_screen and event.type in ("build", "image"):
            self.work(self._read, group="read")

    async def _read(self) -> None:
        self._records = list(await self.bridge.engine.builds(search=self._search, limit=LIMIT))
        self.put([(Subject("build", str(one.number), one.name, one), build_row(one)) for one in self._records])
        if self._search and not self._records:
            self.say("empty", f"No build holds {neutral(self._search)!r}; esc shows all.")

    def subtitle(self, counts: str) -> str:
        return " · ".join(filter(None, (counts, f"holding {self._search!r}" if self._search else "")))

    # --- one build ------------------------------------------------------------------------------------------------

    def opened(self, subject: Subject) -> None:
        self.work(self._detail, int(subject.id), group="detail")

    async def _detail(self, number: int) -> None:
        detail = await self.bridge.engine.build_detail(number)
        lines = detail_lines(detail)
        note = "enter on a step shows what it said"
        key = await self.app.push_screen_wait(ReadingScreen(_title(detail), lines, note=note, choices=True))
        if key:
            build = Build.of(detail)
            self.app.push_screen(ReadingScreen(_title(detail), step_document(build, build.steps[key])))

    def action_logs(self) -> None:
        if self.subject is not None:
            self.work(self._logs, int(self.subject.id), group="detail")

    async def _logs(self, number: int) -> None:
        detail = await self.bridge.engine.build_detail(number)
        lines = build_document(Build.of(detail))
        self.app.push_screen(ReadingScreen(_title(detail), lines, note=brief_seconds(detail.record.seconds)))

    # --- two of them ----------------------------------------------------------------------------------------------

    def action_diff(self) -> None:
        numbers = sorted(int(subject.id) for subject in self.subjects)
        if numbers:
            self.work(self._diff, numbers, group="detail")

    async def _diff(self, numbers: list[int]) -> None:
        if len(numbers) > 2:
            raise InvalidInput(f"{len(numbers)} builds are marked: two can be compared")
        last = numbers[-1]
        first = numbers[0] if len(numbers) == 2 else self._before(last)
        found = await self.bridge.engine.build_diff(first, last)
        screen = ReadingScreen(
            f"build {first} → build {last}", difference_lines(found), note=counts_words(found), choices=True
        )
        path = await self.app.push_screen_wait(screen)
        if path:
            await self._file(first, last, path)

    def _before(self, number: int) -> int:
        """The build of the same name with a result that came before. Raises `InvalidInput`."""
        name = next(record.name for record in self._records if record.number == number)
        for record in self._records:
            if record.number < number and record.name == name and record.image_id:
                return record.number
        raise InvalidInput(f"no build of {name} before {number} has a result", hint="mark two builds with space")

    async def _file(self, first: int, last: int, path: str) -> None:
        images = {record.number: record.image_id for record in self._records}
        found = await self.bridge.engine.file_diff(images[first], images[last], path)
        self.app.push_screen(ReadingScreen(f"build {first} → {last} {neutral(path)}", comparison_lines(found)))

    # --- finding --------------------------------------------------------------------------------------------------

    def action_find(self) -> None:
        self.prompt.open("find", "builds that hold", self._search)

    @on(Prompt.Done)
    def _sought(self, message: Prompt.Done) -> None:
        message.stop()
        self.prompt.shut()
        self.list.focus()
        self._search = message.text
        self.work(self._read, group="read")

    def clear_filter(self) -> bool:
        if self.prompt.is_open:
            self.prompt.shut()
            self.list.focus()
            return True
        if self._search:
            self._search = ""
            self.work(self._read, group="read")
            return True
        return super().clear_filter()


def _title(detail: BuildDetail) -> str:
    return f"build {detail.record.number} {neutral(detail.record.name)}"
