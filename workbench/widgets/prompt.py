"""One line at the foot of a pane in which something is typed: a search, a filter, a file's name."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static


class Prompt(Horizontal):
    DEFAULT_CSS = """
    Prompt { display: none; height: 1; }
    Prompt.open { display: block; }
    .pane > Prompt { height: 1; }
    Prompt > Static { width: auto; padding: 0 1; color: $accent; text-style: bold; }
    Prompt > Input { width: 1fr; height: 1; border: none; padding: 0; background: $background; }
    Prompt > Input:focus { border: none; }
    """

    class Changed(Message):
        def __init__(self, purpose: str, text: str) -> None:
            super().__init__()
            self.purpose, self.text = purpose, text

    class Done(Changed):
        """Enter was pressed."""

    def __init__(self) -> None:
        super().__init__()
        self.purpose = ""
        self._label = Static(markup=False)
        self._box = Input(compact=True, select_on_focus=False)

    def compose(self) -> ComposeResult:
        yield self._label
        yield self._box

    @property
    def is_open(self) -> bool:
        return bool(self.purpose)

    def open(self, purpose: str, label: str, text: str = "", *, hint: str = "") -> None:
        self.purpose = purpose
        self._label.update(label)
        with self.prevent(Input.Changed):
            self._box.value = text
        self._box.placeholder = hint
        self._box.cursor_position = len(text)
        self.add_class("open")
        self._box.focus()

    def shut(self) -> None:
        self.purpose = ""
        self.remove_class("open")

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.purpose:
            self.post_message(self.Changed(self.purpose, event.value))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self.purpose:
            self.post_message(self.Done(self.purpose, event.value))
