"""For `NO_COLOR`: nothing that is sent names a colour. What a background told is told by reverse video or an underline instead."""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

# Differences of brightness, of 1, between a background and the one around it.
STRONG = (
    0.12  # from here on as the row under the cursor of the list that has the focus, a hit, the slider of a scroll bar
)
WEAK = 0.04  # from here on as the row under the cursor of a list that has not


@lru_cache(4096)
def plain(style: Style, around: Color) -> Style:
    """Without its colours."""
    told = Style()
    if style.bgcolor is not None and not style.bgcolor.is_default and not style.reverse:
        ground = Color.from_rich_color(style.bgcolor)
        told = _instead(abs(ground.brightness - around.brightness))
    return style.without_color + told


def _instead(difference: float) -> Style:
    if difference >= STRONG:
        return Style(reverse=True)
    return Style(underline=True) if difference >= WEAK else Style()


class NoColours(LineFilter):
    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            Segment(text, None if style is None else plain(style, background), control)
            for text, style, control in segments
        ]
