"""A screen for a text: a file of a layer, a difference, a build's output. `/` searches, `y` copies, `s` saves it into a file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from workbench import clipboard
from workbench.messages import Said, TroubleMet
from workbench.widgets.lines_view import LinesView, TextLine
from workbench.widgets.prompt import Prompt
from workbench.work import beside


class ReadingScreen(ModalScreen[str]):
    """`note` stands in the border below. With `choices` enter ends it with the `key` of the line under the cursor."""

    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("escape,q", "close", "Close", id="reading.close", tooltip="Close"),
        Binding("slash", "search", "Search", key_display="/", id="reading.search", tooltip="Search"),
        Binding("y", "copy", "Copy line", id="reading.copy", tooltip="Copy the line under the cursor"),
        Binding("Y", "copy_all", "Copy all", show=False, id="reading.copy_all", tooltip="Copy the whole text"),
        Binding("s", "save", "Save", show=False, id="reading.save", tooltip="Save the text into a file"),
        Binding("enter", "choose", "Open", show=False, id="reading.open", tooltip="Open what the line is about"),
    ]
    DEFAULT_CSS = """
    ReadingScreen { align: center middle; background: $background 60%; }
    ReadingScreen > Vertical { width: 96%; height: 94%; border: round $accent; background: $background; border-title-color: $accent; }
    ReadingScreen LinesView { height: 1fr; }
    """

    def __init__(
        self, title: str, lines: Sequence[TextLine], *, note: str = "", cursor: int = 0, choices: bool = False
    ) -> None:
        super().__init__()
        self._title, self._lines, self._note, self._at, self._choices = title, lines, note, cursor, choices
        self.view = LinesView(empty="Nothing.")
        self._prompt = Prompt()

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(self._title)
            yield self.view
            yield self._prompt

    def on_mount(self) -> None:
        self.view.set(self._lines, cursor=self._at)
        self.view.focus()
        self._count()

    @on(LinesView.Moved)
    def _count(self) -> None:
        view = self.view
        parts = [self._note, view.hit_words, f"{view.cursor + 1}/{len(view.lines)}"]
        text = " · ".join(part for part in parts if part)
        self.query_one(Vertical).border_subtitle = Content(text)

    def action_close(self) -> None:
        if self._prompt.is_open or self.view.hit_words:
            self._prompt.shut()
            self.view.search("")
            self.view.focus()
        else:
            self.dismiss("")

    def action_choose(self) -> None:
        if self._choices and self.view.line is not None and self.view.line.key:
            self.dismiss(self.view.line.key)

    def action_search(self) -> None:
        self._prompt.open("search", "/")

    @on(Prompt.Changed)
    def _typing(self, message: Prompt.Changed) -> None:
        if message.purpose == "search":
            self.view.search(message.text)

    @on(Prompt.Done)
    def _typed(self, message: Prompt.Done) -> None:
        self._prompt.shut()
        self.view.focus()
        if message.purpose == "save" and message.text:
            beside(self, "save", self._save, message.text)

    def action_copy(self) -> None:
        if self.view.line is not None:
            beside(self, "copy", clipboard.copy, self.app, self.view.line.text, "1 line")

    def action_copy_all(self) -> None:
        text = "\n".join(line.text for line in self.view.lines)
        beside(self, "copy", clipboard.copy, self.app, text, f"{len(self.view.lines)} lines")

    def action_save(self) -> None:
        stem = os.path.basename(self._title.split(" ")[-1]) or "text"
        self._prompt.open("save", "save to", os.path.join("~", stem))

    async def _save(self, name: str) -> None:
        path = Path(name).expanduser()
        text = "\n".join(line.text for line in self.view.lines) + "\n"

        def write() -> None:
            with open(path, "x", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            self.app.post_message(TroubleMet(f"{path} could not be written: {error.strerror}"))
            return
        self.app.post_message(Said(f"saved to {path}"))
