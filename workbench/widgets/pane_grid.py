"""The screen's panes, placed by `workbench.layout.plan` at every size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.text import Text
from textual.containers import Container
from textual.content import Content
from textual.events import Resize
from textual.geometry import NULL_OFFSET, NULL_SPACING, Region, Size
from textual.layout import ArrangeResult, Layout, WidgetPlacement
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from workbench.commands import NUMBERS
from workbench.layout import OUTPUTS, PANES, Slot, Zoom, plan

if TYPE_CHECKING:
    from workbench.panes.base import Pane


WAY_BACK = 9  # panes that `back` can go
_OUTPUT = frozenset(name for group in OUTPUTS for name in group)
_SIZES: tuple[Zoom, ...] = ("", "half", "full")


class _Planned(Layout):
    name = "planned"

    def __init__(self) -> None:
        self.regions: dict[str, Region] = {}

    def arrange(self, parent: Widget, children: list[Widget], size: Size, greedy: bool = True) -> ArrangeResult:
        return [
            WidgetPlacement(region, NULL_OFFSET, NULL_SPACING, child)
            for child in children
            if (region := self.regions.get(child.id or ""))
        ]


class PaneGrid(Container):
    """Shows the pane that was used last in each slot. `recent` is kept from one session to the next."""

    class Arranged(Message):
        """Other panes are on the screen than before, or elsewhere."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"panes--frame"}

    def __init__(self, *, recent: Sequence[str] = (), zoom: Zoom = "") -> None:
        super().__init__(id="panes")
        self.panes: dict[str, Pane] = {}
        self.recent = list(recent) or ["containers"]
        self.zoom: Zoom = zoom
        self.slots: list[Slot] = []
        self._way: list[str] = []  # panes that were gone from
        self._plan = _Planned()
        self.numbers: Mapping[str, str] = NUMBERS
        self._placed = -1  # panes that were there when the slots were made

    @property
    def layout(self) -> Layout:
        return self._plan

    async def fill(self, panes: Sequence[Pane]) -> None:
        """The panes, into the frames that are drawn until then."""
        for pane in panes:
            pane.display = False
        await self.mount_all(panes)
        self.panes = {pane.NAME: pane for pane in panes}
        self.place()

    def render_line(self, y: int) -> Strip:
        """Frames with their titles: what panes look like before there is anything in them."""
        style = self.get_component_rich_style("panes--frame")
        row = [" "] * self.size.width
        for slot in self.slots if not self.panes else ():
            if slot.y <= y < slot.y + slot.height:
                row[slot.x : slot.x + slot.width] = _frame(slot, y - slot.y, self._title(slot).plain)
        return Strip([Segment("".join(row)[: self.size.width], style)], self.size.width)

    def on_resize(self, event: Resize) -> None:
        self.place()

    def used(self, name: str) -> None:
        """`name` has the focus now."""
        if self.recent[0] != name:
            self.recent = [name, *(each for each in self.recent if each != name)]
            self.place()

    def go(self, name: str) -> None:
        """As `used`; `back` comes here again."""
        if (before := self.recent[0]) != name:
            self._way = [*self._way[1 - WAY_BACK :], before]
        self.used(name)

    def back(self) -> str | None:
        """The pane that was left for this one, which has the focus now; None where there is no way back."""
        if not self._way:
            return None
        self.used(name := self._way.pop())
        return name

    def forget_way(self) -> None:
        self._way = []

    def set_zoom(self, zoom: Zoom) -> None:
        self.zoom = zoom
        self.place()

    def larger(self, step: int) -> None:
        """Of normal, half and the whole screen."""
        self.set_zoom(_SIZES[max(0, min(2, _SIZES.index(self.zoom) + step))])

    @property
    def output(self) -> Pane | None:
        """The pane of output that shows, and was used last, beside the one that has the focus."""
        shown = [self.panes[name] for name in self.recent if name in self.panes and self.panes[name].on_screen]
        shown += [pane for pane in self.panes.values() if pane.on_screen and pane not in shown]
        return next((pane for pane in shown if pane.NAME in _OUTPUT and self.recent[0] != pane.NAME), None)

    def place(self) -> None:
        if not self.size:
            return
        wanted = {name: rows + 2 for name, pane in self.panes.items() if (rows := pane.rows_wanted) is not None}
        slots = plan(self.size.width, self.size.height, self.recent, self.zoom, wanted)
        if slots == self.slots and self._placed == len(self.panes):
            return
        self.slots, self._placed = slots, len(self.panes)
        self._plan.regions = {slot.shown: Region(slot.x, slot.y, slot.width, slot.height) for slot in self.slots}
        for name, pane in self.panes.items():
            here = name in self._plan.regions
            pane.display = here
            if here:
                slot = next(slot for slot in self.slots if slot.shown == name)
                title = self._title(slot)
                if str(pane.border_title or "") != title.plain:
                    pane.border_title = title
                pane.set_class(slot.height < 3, "-flat")
            if here != pane.on_screen:
                pane.on_screen = here
                (pane.shown if here else pane.hidden)()
        self.refresh(layout=True)
        for pane in self.panes.values():
            if pane.on_screen:  # Textual 8.2 forgets the places in a widget's ancestors, not its own: children ask
                pane.refresh(layout=True)
        self.post_message(self.Arranged())

    def _title(self, slot: Slot) -> Content:
        """The tabs of a slot: all of them if there is room, else as many as fit beside the one that shows."""
        room = slot.width - 6
        here = self._label(slot.shown)
        others = [(name, self._label(name)) for name in slot.panes if name != slot.shown]
        full = sum(len(label) + 3 for _, label in others) + len(here) <= room
        parts: list[tuple[str, str]] = []
        for name in slot.panes:
            if name == slot.shown:
                parts.append((here, ""))
            elif full:
                parts.append((self._label(name), "dim"))
            elif (key := self.numbers.get(name)) and sum(len(text) + 1 for text, _ in parts) + len(here) + 2 <= room:
                parts.append((key, "dim"))
        text = Text(" · " if full else " ").join([Text(part, style) for part, style in parts])
        return Content.from_rich_text(text)

    def _label(self, name: str) -> str:
        return f"{self.numbers[name]} {name}" if name in self.numbers else name

    def number(self, numbers: Mapping[str, str]) -> None:
        """Which key goes to which pane, by the key map that holds now."""
        if numbers != self.numbers:
            self.numbers, self._placed = numbers, -1
            self.place()

    def neighbour(self, step: int) -> str:
        """The pane of the next slot, in the order of the screen."""
        shown = [slot.shown for slot in self.slots]
        if len(shown) == 1:
            return PANES[(PANES.index(shown[0]) + step) % len(PANES)]
        at = shown.index(self.recent[0]) if self.recent[0] in shown else 0
        return shown[(at + step) % len(shown)]

    def tab(self, step: int) -> str:
        """The next tab of the slot that has the focus."""
        slot = next((slot for slot in self.slots if self.recent[0] in slot.panes), self.slots[0])
        return slot.panes[(slot.panes.index(slot.shown) + step) % len(slot.panes)]


def _frame(slot: Slot, y: int, title: str) -> str:
    inner = slot.width - 2
    if inner < 1 or slot.height < 2:
        return " " * slot.width
    if y == 0:
        return f"╭{f'─ {title} '[:inner].ljust(inner, '─')}╮"
    return f"╰{'─' * inner}╯" if y == slot.height - 1 else f"│{' ' * inner}│"
