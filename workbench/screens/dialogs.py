"""Help, and the question before anything is removed."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Label, Static

HELP = """[b]Panes[/b]
  1 services  2 containers  3 images  4 layers  5 build  6 logs  7 volumes  8 networks  9 stats  0 events
  tab / shift+tab   next and previous pane    \\[ ]   tabs of a pane    z   zoom the pane

[b]Moving[/b]
  j k ↑ ↓   by line      g G   to the start and the end

[b]Containers[/b]
  s stop     S start again     d remove     r rebuild the project

[b]Logs[/b]
  /  show only matching lines (esc shows all)     G  follow again

[b]Elsewhere[/b]
  ctrl+p  command palette     q  quit: containers go on
"""


class HelpScreen(ModalScreen[None]):
    BINDINGS = [Binding("escape,question_mark,q", "dismiss", "Close", id="help.close")]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "keys"
            yield Static(HELP)


class Confirm(ModalScreen[bool]):
    """Says what will happen and which command does the same. Cancel has the focus."""

    BINDINGS = [
        Binding("escape,n", "answer(False)", "No", id="confirm.no"),
        Binding("y", "answer(True)", "Yes", id="confirm.yes"),
    ]

    def __init__(self, question: str, command: str) -> None:
        super().__init__()
        self._question, self._command = question, command

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "sure?"
            yield Label(self._question, markup=False)
            yield Label(f"$ {self._command}", classes="command", markup=False)
            with Horizontal():
                yield Button("Cancel", id="no")
                yield Button("Remove", id="yes", variant="error")

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)
