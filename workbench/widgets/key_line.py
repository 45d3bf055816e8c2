"""The line of keys below: what the focused pane can do, whole words only, and the way to the rest of them at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.events import Click
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget


@dataclass(frozen=True, slots=True)
class Hint:
    key: str
    word: str
    action: str = ""
    enabled: bool = True
    last: bool = False  # stands at the right end, whatever else there is room for


class KeyLine(Widget):
    COMPONENT_CLASSES = {"keys--key", "keys--word", "keys--off"}

    class Clicked(Message):
        def __init__(self, action: str) -> None:
            super().__init__()
            self.action = action

    def __init__(self) -> None:
        super().__init__(id="keys")
        self._hints: tuple[Hint, ...] = ()

    def show(self, hints: Sequence[Hint]) -> None:
        if tuple(hints) != self._hints:
            self._hints = tuple(hints)
            self.refresh()

    def placed(self, width: int) -> list[tuple[int, Hint]]:
        """Where each hint begins; those for which there is no room are left out."""
        last = [hint for hint in self._hints if hint.last]
        end = width - 1
        right: list[tuple[int, Hint]] = []
        for hint in reversed(last):
            end -= _size(hint)
            if end < 1:
                break
            right.insert(0, (end, hint))
            end -= 2
        placed, x = [], 1
        for hint in self._hints:
            if not hint.last and x + _size(hint) <= end:
                placed.append((x, hint))
                x += _size(hint) + 2
        return [*placed, *right]

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        segments: list[Segment] = []
        x = 0
        for start, hint in self.placed(self.size.width):
            segments.append(Segment(" " * (start - x), base))
            off = not hint.enabled
            key = self.get_component_rich_style("keys--off" if off else "keys--key")
            word = self.get_component_rich_style("keys--off" if off else "keys--word")
            segments += [Segment(hint.key, key + Style(bold=not off)), Segment(f" {hint.word}", word)]
            x = start + _size(hint)
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def on_click(self, event: Click) -> None:
        for start, hint in self.placed(self.size.width):
            if start <= event.x < start + _size(hint) and hint.action and hint.enabled:
                self.post_message(self.Clicked(hint.action))


def _size(hint: Hint) -> int:
    return cell_len(hint.key) + 1 + cell_len(hint.word)
