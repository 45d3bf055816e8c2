"""Everything by its name: actions, panes and every object, found by a few letters of it in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input

from workbench.table import Column, set_text
from workbench.widgets.row_list import RowList

SHOWN = 200  # matches that are listed


@dataclass(frozen=True, slots=True)
class Entry:
    """`kind` is what it is ("action", "container", …); `run` is called when it is chosen. `off`: why it cannot be, now."""

    title: str
    kind: str
    keys: str
    run: Callable[[], object]
    help: str = ""
    off: str = ""


def score(wanted: str, text: str) -> float | None:
    """How well `text` fits: every letter of `wanted` in its order; better in one piece, at the start of a word, and early.
    None: it does not fit."""
    if not wanted:
        return 0.0
    low, sought = text.lower(), wanted.lower()
    at = low.find(sought)
    if at >= 0:
        start = at == 0 or not low[at - 1].isalnum()
        return 1000 - at + (500 if start else 0) - len(low) / 100
    total, position, gaps = 0.0, -1, 0
    for letter in sought:
        if letter == " ":
            continue
        found = low.find(letter, position + 1)
        if found < 0:
            return None
        starts = low.find(letter, position + 1)
        while starts >= 0 and starts > 0 and low[starts - 1].isalnum():
            starts = low.find(letter, starts + 1)
        if starts > found and starts - found < 12:
            found = starts
        gaps += found - position - 1
        total += 20 if found == 0 or not low[found - 1].isalnum() else 0
        position = found
    return total - gaps - len(low) / 100


class Palette(ModalScreen[Entry | None]):
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("escape", "leave", "Close", id="palette.close", tooltip="Back"),
        Binding("down,ctrl+n", "move(1)", show=False, id="palette.down", tooltip="Next match"),
        Binding("up,ctrl+p", "move(-1)", show=False, id="palette.up", tooltip="Match before"),
        Binding("pagedown", "page(1)", show=False, id="palette.pagedown", tooltip="Ten matches down"),
        Binding("pageup", "page(-1)", show=False, id="palette.pageup", tooltip="Ten matches up"),
    ]

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__()
        self._entries = list(entries)
        self._by_key = {str(index): entry for index, entry in enumerate(self._entries)}
        columns = (
            Column(grow=True),
            Column(styles={"": "dim"}, drop=10),
            Column(styles={"": "accent"}, right=True, drop=5),
        )
        self._list = RowList(id="matches", columns=columns)
        self._list.can_focus = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog palette") as box:
            box.border_title = "go to, or do"
            yield Input(placeholder="a few letters of an action or an object", compact=True)
            yield self._list

    def on_mount(self) -> None:
        box = self.query_one(Input)
        box.cursor_blink = False
        box.focus()
        self._find("")

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._find(event.value)

    def _find(self, text: str) -> None:
        ranked = []
        for key, entry in self._by_key.items():
            found = score(text, f"{entry.title} {entry.kind}")
            if found is not None:
                ranked.append((-found, int(key), key, entry))
        ranked.sort(key=lambda each: each[:2])
        self._list.show(
            [(key, (entry.title, entry.off or entry.kind, entry.keys)) for _, _, key, entry in ranked[:SHOWN]]
        )
        self._list.action_edge(-1)
        self._moved()

    def action_move(self, step: int) -> None:
        self._list.action_move(step)

    def action_page(self, step: int) -> None:
        self._list.action_page(step)

    @on(RowList.Moved)
    def _moved(self) -> None:
        text = self._by_key[self._list.selected].help if self._list.selected else "nothing has these letters"
        self.query_one(".palette", Vertical).border_subtitle = Content(set_text(text, min(len(text), 60)))

    @on(Input.Submitted)
    @on(RowList.Chosen)
    def _chosen(self) -> None:
        self.dismiss(self._by_key.get(self._list.selected))

    def action_leave(self) -> None:
        self.dismiss(None)
