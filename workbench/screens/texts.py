"""Screens of text: the keys of a pane, and what was done here as command lines."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from workbench.journal import Entry, Journal
from workbench.state import neutral
from workbench.table import Column
from workbench.widgets.row_list import RowList

Section = tuple[str, Sequence[tuple[str, str]]]  # a title, and pairs of keys and what they do


class HelpScreen(ModalScreen[None]):
    """All keys that work in a pane, and the others that work everywhere."""

    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("escape,question_mark,q,x", "dismiss", "Close", id="help.close", tooltip="Back"),
        Binding("j,down", "scroll(1)", show=False, id="help.down", tooltip="Down"),
        Binding("k,up", "scroll(-1)", show=False, id="help.up", tooltip="Up"),
        Binding("space,pagedown", "scroll(10)", show=False, id="help.page", tooltip="A screen down"),
        Binding("pageup", "scroll(-10)", show=False, id="help.pageup", tooltip="A screen up"),
    ]

    def __init__(self, pane: str, sections: Sequence[Section], note: str = "") -> None:
        super().__init__()
        self._pane, self._sections, self._note = pane, sections, note

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog wide help", can_focus=False) as box:
            box.border_title = f"keys: {self._pane}"
            box.border_subtitle = "esc: back"
            yield Static(self._text())

    def _text(self) -> Text:
        widest = max((len(keys) for _, pairs in self._sections for keys, _ in pairs), default=0)
        widest = min(widest, 20)
        text = Text()
        for title, pairs in self._sections:
            text.append(f"{title}\n", "bold")
            for keys, what in pairs:
                text.append(f"  {keys:<{widest}}  ", self._accent())
                text.append(f"{what}\n")
            text.append("\n")
        text.append(self._note)
        return text

    def _accent(self) -> str:
        return str(self.app.theme_variables.get("accent", "")) if not self.app.no_color else ""

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)


class CommandLog(ModalScreen[None]):
    """What was done here, as it would be on the command line, the newest last."""

    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("escape,q,C", "dismiss", "Close", id="commands.close", tooltip="Back"),
        Binding("y", "copy", "Copy", id="commands.copy", tooltip="Copy the line, or all marked ones"),
    ]

    def __init__(self, journal: Journal, host: str = "") -> None:
        """`host`: the other engine that it was done on, which another shell has to be told."""
        super().__init__()
        self._journal, self._host = journal, host
        columns = (Column(styles={"": "dim"}), Column(grow=True), Column(styles={"done": "dim", "": "warning"}, cap=24))
        self._list = RowList(id="commands", columns=columns)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog full") as box:
            box.border_title = "what was done here, as command lines"
            box.border_subtitle = "y: copy   esc: back"
            yield self._list
            yield Static("Nothing was done yet.", classes="nothing", markup=False)

    def on_mount(self) -> None:
        rows = []
        for index, entry in enumerate(self._journal.entries):
            at = time.strftime("%H:%M:%S", time.localtime(entry.at))
            state = neutral(entry.state or "under way").split("\n")[0]
            rows.append((str(index), (at, neutral(self._line(entry)), state)))
        self._list.show(rows)
        self.query_one(".nothing").display = not rows
        self._list.action_edge(1)
        self._list.focus()

    def _line(self, entry: Entry) -> str:
        if not self._host:
            return entry.line
        return re.sub(r"(^|&& )workbench ", rf"\g<1>workbench --host {shlex.quote(self._host)} ", entry.line)

    async def action_copy(self) -> None:
        marked = self._list.marked or {self._list.selected}
        lines = [self._line(entry) for index, entry in enumerate(self._journal.entries) if str(index) in marked]
        if lines:
            await self.app.copy("\n".join(lines), "the command")  # type: ignore[attr-defined]
