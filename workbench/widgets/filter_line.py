"""The one line in which a filter is typed: what is typed holds at once, enter keeps it, escape takes it away."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding
from textual.message import Message
from textual.widgets import Input


class FilterLine(Input):
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("enter,down,up", "keep", "Keep", show=False, id="filter.keep", tooltip="Keep the filter, and go back to the rows"),
        Binding("escape", "drop", "Clear", show=False, id="filter.drop", tooltip="Take the filter away"),
    ]  # fmt: skip

    class Typed(Message):
        """Another text holds now."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Left(Message):
        """Back to the rows; with "" nothing is filtered."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, *, placeholder: str = "filter: words, !without, ~regular expression") -> None:
        super().__init__(placeholder=placeholder, classes="filter-line", compact=True)
        self.cursor_blink = False  # nothing changes on the screen while nothing happens
        self.display = False

    def open(self) -> None:
        self.display = True
        self.focus()

    def close(self) -> None:
        """Without the text, and away."""
        with self.prevent(Input.Changed):
            self.value = ""
        self.display = False

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Typed(event.value))

    def action_keep(self) -> None:
        if not self.value:
            self.display = False
        self.post_message(self.Left(self.value))

    def action_drop(self) -> None:
        self.close()
        self.post_message(self.Typed(""))
        self.post_message(self.Left(""))
