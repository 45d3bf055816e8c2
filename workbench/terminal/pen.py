"""How a character looks (ECMA-48 8.3.117, SGR)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from rich.color import Color
from rich.style import Style

Colour = int | tuple[int, int, int] | None  # one of 256, red-green-blue, the terminal's own


class Pen(NamedTuple):
    fg: Colour = None
    bg: Colour = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    blink: bool = False
    reverse: bool = False
    conceal: bool = False
    strike: bool = False


PLAIN = Pen()
_ON = {
    1: "bold",
    2: "dim",
    3: "italic",
    4: "underline",
    5: "blink",
    6: "blink",
    7: "reverse",
    8: "conceal",
    9: "strike",
    21: "underline",
}
_OFF = {
    22: {"bold": False, "dim": False}, 23: {"italic": False}, 24: {"underline": False}, 25: {"blink": False},
    27: {"reverse": False}, 28: {"conceal": False}, 29: {"strike": False}, 39: {"fg": None}, 49: {"bg": None},
}  # fmt: skip


@lru_cache(maxsize=1024)
def sgr(pen: Pen, parameters: str) -> Pen:
    """The pen after `CSI parameters m`."""
    groups = [[int(each) if each.isdigit() else -1 for each in group.split(":")] for group in parameters.split(";")]
    at = 0
    while at < len(groups):
        group, code = groups[at], max(groups[at][0], 0)
        at += 1
        if code == 0:
            pen = PLAIN
        elif code in (38, 48):
            values, used = (group[1:], 0) if len(group) > 1 else _flat(groups[at:])
            at += used
            colour = _colour(values)
            if colour is not None:
                pen = pen._replace(fg=colour) if code == 38 else pen._replace(bg=colour)
        elif code == 4 and len(group) > 1:  # curly, dotted and the like
            pen = pen._replace(underline=group[1] > 0)
        elif code in _ON:
            pen = pen._replace(**{_ON[code]: True})
        elif code in _OFF:
            pen = pen._replace(**_OFF[code])  # type: ignore[arg-type]
        elif 30 <= code <= 37:
            pen = pen._replace(fg=code - 30)
        elif 40 <= code <= 47:
            pen = pen._replace(bg=code - 40)
        elif 90 <= code <= 97:
            pen = pen._replace(fg=code - 82)
        elif 100 <= code <= 107:
            pen = pen._replace(bg=code - 92)
    return pen


def _flat(groups: list[list[int]]) -> tuple[list[int], int]:
    """`38;5;N` and `38;2;R;G;B`: values that stand in groups of their own, and how many."""
    count = {5: 2, 2: 4}.get(groups[0][0], 1) if groups else 0
    return [group[0] for group in groups[:count]], count


def _colour(values: list[int]) -> Colour:
    if len(values) >= 2 and values[0] == 5 and 0 <= values[1] < 256:
        return values[1]
    if len(values) >= 4 and values[0] == 2:
        red, green, blue = (min(max(value, 0), 255) for value in values[-3:])
        return red, green, blue
    return None


@lru_cache(maxsize=4096)
def rich_style(pen: Pen, base: Style) -> Style:
    """As Rich draws it. Blinking does not blink: nothing moves on the screen by itself."""
    return base + Style(
        color=_rich_colour(pen.fg),
        bgcolor=_rich_colour(pen.bg),
        bold=pen.bold or None,
        dim=pen.dim or None,
        italic=pen.italic or None,
        underline=pen.underline or None,
        reverse=pen.reverse or None,
        conceal=pen.conceal or None,
        strike=pen.strike or None,
    )


def _rich_colour(colour: Colour) -> Color | None:
    if colour is None:
        return None
    return Color.from_ansi(colour) if isinstance(colour, int) else Color.from_rgb(*colour)
