"""What is asked over a log: one row whole with its fields, and how far back to look."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from engine.api import LogRow
from workbench.widgets import log_format

WINDOWS = (
    ("the end, and what comes", 0),
    ("the beginning", -1),
    ("the last minute", 60),
    ("the last 5 minutes", 300),
    ("the last 15 minutes", 900),
    ("the last 30 minutes", 1800),
    ("the last hour", 3600),
)  # seconds


def fields_of(row: LogRow, name: str) -> list[tuple[str, str]]:
    """What can be copied of a row: all of it first, then each part by its name."""
    found = [("line", log_format.safe(row.text))]
    parsed = log_format.parse_fields(row.text)
    for key, value in (parsed or {}).items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        found.append((log_format.safe(key), log_format.safe(text)))
    if parsed:
        found.append(("as indented JSON", log_format.safe(json.dumps(parsed, ensure_ascii=False, indent=2)).strip()))
    return [*found, ("time", row.stamp), ("stream", row.stream), ("container", name)]


class RowDetail(ModalScreen[tuple[str, str] | None]):
    """A row's fields. Its result is the one to copy."""

    BINDINGS = [
        Binding("escape,q", "dismiss", "Close", id="logrow.close", tooltip="Close"),
        Binding("j", "down", "Down", show=False, id="logrow.down", tooltip="Down"),
        Binding("k", "up", "Up", show=False, id="logrow.up", tooltip="Up"),
        Binding("y", "copy", "Copy", id="logrow.copy", tooltip="Copy the field under the cursor"),
    ]
    DEFAULT_CSS = """
    RowDetail { align: center middle; background: $background 60%; }
    RowDetail OptionList { height: auto; max-height: 30; background: $surface; border: none; }
    """

    def __init__(self, row: LogRow, name: str) -> None:
        super().__init__()
        self._fields = fields_of(row, name)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "one line"
            box.border_subtitle = "enter or y copies a field · esc closes"
            yield OptionList(*(Option(_field(name, text)) for name, text in self._fields))

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._fields[event.option_index])

    def action_copy(self) -> None:
        self.dismiss(self._fields[self.query_one(OptionList).highlighted or 0])

    def action_down(self) -> None:
        self.query_one(OptionList).action_cursor_down()

    def action_up(self) -> None:
        self.query_one(OptionList).action_cursor_up()


def _field(name: str, text: str) -> Text:
    return Text.assemble((f"{name}: ", "bold"), text)


class ChooseWindow(ModalScreen[int]):
    """Which part of a log to show; the result is an index into WINDOWS."""

    BINDINGS = [
        Binding("escape,q", "dismiss", "Close", id="logwindow.close", tooltip="Close"),
        *(
            Binding(str(index), f"choose({index})", name, show=False, id=f"logwindow.{index}", tooltip=name)
            for index, (name, _seconds) in enumerate(WINDOWS)
        ),
    ]
    DEFAULT_CSS = """
    ChooseWindow { align: center middle; background: $background 60%; }
    ChooseWindow .dialog { width: 40; }
    ChooseWindow OptionList { height: auto; background: $surface; border: none; }
    """

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "show"
            yield OptionList(*(Option(f"{index}  {name}") for index, (name, _seconds) in enumerate(WINDOWS)))

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_index)

    def action_choose(self, index: int) -> None:
        self.dismiss(index)


def brief(windows: Sequence[tuple[str, int]], seconds: int) -> str:
    return next((name.removeprefix("the last ") for name, value in windows if value == seconds), "")
