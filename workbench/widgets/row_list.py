"""A list of rows that always fits its pane: laid out again when the pane changes its width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.binding import Binding
from textual.events import Resize
from textual.widgets import DataTable

from workbench.state import Column, lay_out

_PADDING = 2  # one cell on either side


class RowList(DataTable[Text]):
    """Rows by key. The cursor stays on its row while rows come and go."""

    BINDINGS = [
        Binding("j", "cursor_down", "Down", show=False, id="list.down"),
        Binding("k", "cursor_up", "Up", show=False, id="list.up"),
        Binding("g", "scroll_top", "Top", show=False, id="list.top"),
        Binding("G", "scroll_bottom", "Bottom", show=False, id="list.bottom"),
    ]

    def __init__(self, *, id: str, columns: Sequence[Column]) -> None:
        super().__init__(id=id, cursor_type="row", show_header=False)
        self._cells = tuple(columns)
        self._shown: list[tuple[str, tuple[str, ...]]] = []
        self._width = 0

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self._shown]

    @property
    def selected(self) -> str:
        """The key of the row under the cursor, "" when there is none."""
        return self.keys[self.cursor_row] if 0 <= self.cursor_row < len(self._shown) else ""

    def show(self, rows: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        if list(rows) != self._shown:
            self._draw(list(rows))

    def select(self, key: str) -> None:
        if key in self.keys:
            with self.prevent(DataTable.RowHighlighted):
                self.move_cursor(row=self.keys.index(key))

    def on_resize(self, event: Resize) -> None:
        if self.scrollable_content_region.width != self._width:
            self._draw(self._shown)

    def _draw(self, rows: list[tuple[str, tuple[str, ...]]]) -> None:
        selected, before = self.selected, self.keys
        width = self.scrollable_content_region.width
        texts = lay_out([cells for _, cells in rows], self._cells, max(1, width - _PADDING))
        same = width == self._width and before == [key for key, _ in rows]
        self._shown, self._width = rows, width
        if same:
            for (key, _), text in zip(rows, texts, strict=True):
                if self.get_cell(key, "row") != text:
                    self.update_cell(key, "row", text)
            return
        with self.prevent(DataTable.RowHighlighted):
            self.clear(columns=True)
            self.add_column("", key="row", width=max(1, width - _PADDING))
            for (key, _), text in zip(rows, texts, strict=True):
                self.add_row(text, key=key)
            if selected in self.keys:
                self.move_cursor(row=self.keys.index(selected))
