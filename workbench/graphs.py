"""Small graphs as text (pure): braille, or blocks of ASCII where a terminal has no other; and the values that they are drawn of."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from workbench.messages import Reading

KEPT = 300  # readings: twenty minutes at one in four seconds
_ASCII = " .:-=+*#"
_LEFT, _RIGHT = (
    (0x40, 0x04, 0x02, 0x01),
    (0x80, 0x20, 0x10, 0x08),
)  # dots of a braille cell from below (Unicode 16, ch. 21.1)
_STEPS = (1, 2, 5)


def nice_top(values: Iterable[float], least: float) -> float:
    """The top of the scale: 1, 2 or 5 times a power of ten, at least `least`."""
    highest = max((*values, least))
    power = 1.0
    while power * 10 <= highest:
        power *= 10
    while power > highest:
        power /= 10
    return next((step * power for step in _STEPS if step * power >= highest), 10 * power)


def graph(values: Sequence[float], width: int, height: int, top: float, *, plain: bool = False) -> list[str]:
    """`height` rows of `width` cells, the newest value at the right. What is more than nothing shows at least a dot."""
    if width <= 0 or height <= 0:
        return []
    per = 1 if plain else 2
    shown = list(values)[-width * per :]
    levels = height * (len(_ASCII) - 1 if plain else 4)
    heights = [0] * (width * per - len(shown))
    heights += [min(levels, max(1, round(value / top * levels))) if value > 0 and top > 0 else 0 for value in shown]
    rows = []
    for row in range(height - 1, -1, -1):
        if plain:
            most = len(_ASCII) - 1
            rows.append("".join(_ASCII[max(0, min(most, one - row * most))] for one in heights))
            continue
        cells = []
        for at in range(0, len(heights), 2):
            left, right = (max(0, min(4, one - row * 4)) for one in heights[at : at + 2])
            bits = sum(_LEFT[:left]) + sum(_RIGHT[:right])
            cells.append(chr(0x2800 + bits) if bits else " ")
        rows.append("".join(cells))
    return rows


@dataclass(frozen=True, slots=True)
class Rest:
    """Below these values something counts as being at rest: percent of one CPU, bytes a second."""

    cpu: float = 0.5
    network: float = 512
    disk: float = 4096


HOST_REST = Rest(6.0, 4096, 64_000)  # a host always has something to do


@dataclass
class Series:
    """Readings of one container, or of the host, oldest first: percent of one CPU, bytes, and bytes a second."""

    name: str
    limit: int = 0  # of memory
    rest: Rest = Rest()
    cpu: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    memory: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    received: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    sent: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    read: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    written: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def add(self, cpu: float, memory: float, received: float, sent: float, read: float, written: float) -> None:
        """The smallest movements of what rests are none: nothing is drawn anew for them."""
        self.cpu.append(cpu if cpu >= self.rest.cpu else 0.0)
        self.memory.append(memory)
        for series, rate in ((self.received, received), (self.sent, sent)):
            series.append(rate if rate >= self.rest.network else 0.0)
        for series, rate in ((self.read, read), (self.written, written)):
            series.append(rate if rate >= self.rest.disk else 0.0)

    @property
    def network(self) -> list[float]:
        return [a + b for a, b in zip(self.received, self.sent, strict=True)]

    @property
    def disk(self) -> list[float]:
        return [a + b for a, b in zip(self.read, self.written, strict=True)]


class History:
    """The last minutes of every container that is read, by id."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}

    def add(self, readings: Mapping[str, Reading]) -> None:
        for name, one in readings.items():
            series = self.series.setdefault(one.stats.id, Series(name))
            series.name, series.limit = name, one.stats.memory.limit
            series.add(one.cpu, one.stats.memory.used, one.received, one.sent, one.read, one.written)
        alive = {one.stats.id for one in readings.values()}
        self.series = {key: series for key, series in self.series.items() if key in alive or key == ""}
