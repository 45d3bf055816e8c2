"""Graphs beside or above each other, each with a line that says what it is. Engine-free; only rows that changed are drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.events import Resize
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from workbench.graphs import graph
from workbench.table import set_text

BESIDE = 2  # graphs in a row where there is room
LEAST = 24  # cells of width that a graph needs


@dataclass(frozen=True, slots=True)
class Graph:
    title: str
    values: tuple[float, ...]
    top: float
    style: str = "accent"


class GraphBoard(Widget):
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "board--title",
        "board--accent",
        "board--success",
        "board--warning",
        "board--dim",
    }
    DEFAULT_CSS = """
    GraphBoard { height: 1fr; }
    GraphBoard > .board--title { color: $foreground 70%; }
    GraphBoard > .board--accent { color: $accent; }
    GraphBoard > .board--success { color: $success; }
    GraphBoard > .board--warning { color: $warning; }
    GraphBoard > .board--dim { color: $foreground 40%; }
    """

    def __init__(self, *, id: str | None = None, plain: bool = False) -> None:
        super().__init__(id=id)
        self._plain = plain
        self._graphs: tuple[Graph, ...] = ()
        self._rows: list[tuple[tuple[str, str], ...]] = []

    def show(self, graphs: Sequence[Graph]) -> None:
        self._graphs = tuple(graphs)
        before, self._rows = self._rows, self._drawn()
        for y in range(max(len(before), len(self._rows))):
            if before[y : y + 1] != self._rows[y : y + 1]:
                self.refresh(Region(0, y, self.size.width, 1))

    def on_resize(self, event: Resize) -> None:
        self._rows = self._drawn()
        self.refresh()

    def _drawn(self) -> list[tuple[tuple[str, str], ...]]:
        """Each row as pieces: a text and its style."""
        width, height = self.size.width, self.size.height
        if not self._graphs or width < LEAST // 2 or height < 2:
            return []
        columns = BESIDE if width >= BESIDE * LEAST else 1
        lines = -(-len(self._graphs) // columns)
        if height // lines < 2:
            lines = max(1, height // 2)
        each, room = height // lines, (width - (columns - 1) * 2) // columns
        rows: list[tuple[tuple[str, str], ...]] = []
        for line in range(lines):
            shown = self._graphs[line * columns : (line + 1) * columns]
            parts = [[set_text(one.title, room)] + graph(one.values, room, each - 1, one.top, plain=self._plain) for one in shown]  # fmt: skip
            for y in range(each):
                pieces: list[tuple[str, str]] = []
                for one, part in zip(shown, parts, strict=True):
                    pieces += [("  ", "")] if pieces else []
                    pieces.append((part[y], "title" if y == 0 else one.style))
                rows.append(tuple(pieces))
        return rows

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        if y >= len(self._rows):
            return Strip.blank(self.size.width, base)
        segments = [
            Segment(text, base + (self.get_component_rich_style(f"board--{style}", partial=True) if style else Style()))
            for text, style in self._rows[y]
        ]
        return Strip(segments).adjust_cell_length(self.size.width, base)
