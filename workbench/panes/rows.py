"""What panes with a list of subjects have in common: one row a subject, a cursor that the others follow, marks, a filter, an order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding
from textual.widget import AwaitMount, Widget

from workbench.panes.base import Pane
from workbench.subjects import own_name
from workbench.widgets.filter_line import FilterLine
from workbench.widgets.row_list import RowList

if TYPE_CHECKING:
    from workbench.subjects import Subject
    from workbench.table import Column

REST = 0.5  # seconds after the list got the focus
FILTER = Binding(
    "slash", "filter", "Filter", key_display="/", show=False, id="list.filter", tooltip="Show only rows that match"
)


class RowsPane(Pane):
    """A subclass calls `put` with its rows, and may override `opened` (enter on a row)."""

    COLUMNS: ClassVar[Sequence[Column]]
    EMPTY: ClassVar[str] = "Nothing here."
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        FILTER,
        Binding("backslash", "unmark", "Unmark", show=False, id="list.unmark", tooltip="Take all marks away"),
        Binding("J", "other(1)", "Scroll output", show=False, id="list.output_down", tooltip="Scroll the log or build beside, down"),
        Binding("K", "other(-1)", "Scroll output up", show=False, id="list.output_up", tooltip="Scroll the log or build beside, up"),
    ]  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.list = RowList(id=f"{self.NAME}-list", columns=self.COLUMNS)
        self._filter: FilterLine | None = None
        self._mounting: AwaitMount | None = None
        self._subjects: dict[str, Subject] = {}
        self._told: Subject | None = None

    def content(self) -> Iterable[Widget]:
        yield self.list

    @property
    def main(self) -> Widget:
        return self.list

    @property
    def subject(self) -> Subject | None:
        return self._subjects.get(self.list.selected)

    @property
    def subjects(self) -> Sequence[Subject]:
        marked = [self._subjects[key] for key in self._subjects if key in self.list.marked]
        return marked or super().subjects

    def put(self, rows: Sequence[tuple[Subject, tuple[str, ...]]]) -> None:
        """The rows as they are now. The cursor stays on its subject."""
        self._subjects = {subject.id: subject for subject, _ in rows}
        self.list.show(
            [(subject.id, cells) for subject, cells in rows], {subject.id: subject.record for subject, _ in rows}
        )
        if not rows and self.app_.lists is self.bridge.unread:
            self.say("busy", "reading …")
        else:
            self.say("" if rows else "empty", "" if rows else self.EMPTY)
        told = self._told
        lost = told if told and told.id not in self._subjects else None
        again = self._successor(told) if told else None
        if again is not None:  # another one has its name now: the cursor stays on the name
            self.list.select(again.id)
        if lost is None or again is not None or not self.stays(lost):
            self._tell()
        self._count()

    def _successor(self, told: Subject) -> Subject | None:
        """Who has its name now, when it is gone or was given another one."""
        now = self._subjects.get(told.id)
        if now is not None and now.name == told.name:
            return None
        wanted = own_name(told.name) if told.kind == "container" else told.name
        return next((one for one in self._subjects.values() if one.name == wanted and one.id != told.id), None)

    def stays(self, subject: Subject) -> bool:
        """`subject` was under the cursor and is no longer here. Whether the neighbours go on to show it, until the cursor is moved."""
        return False

    def _tell(self) -> None:
        """The others follow the cursor: also when its subject has another record now."""
        now = self.subject
        if now != self._told or (now and self._told and now.record != self._told.record):
            self._told = now
            self.selected(now)

    def choose(self, subject: Subject) -> bool:
        if subject.id not in self._subjects:
            return False
        if subject.id not in self.list.keys:
            self.clear_filter()
        self.list.select(subject.id)
        self._tell()
        return True

    def opened(self, subject: Subject) -> None:
        """Enter on a row."""
        self.want("item.inspect", [subject])

    @on(RowList.Moved)
    def _moved(self, event: RowList.Moved) -> None:
        event.stop()
        self._tell()

    @on(RowList.Chosen)
    def _chosen(self, event: RowList.Chosen) -> None:
        event.stop()
        if subject := self.subject:
            self._tell()
            self.opened(subject)

    @on(RowList.Marked)
    def _count(self) -> None:
        """What the border says below: how many there are, how many of them show, how many are marked."""
        rows = self.list
        parts = []
        if rows.marked:
            parts.append(f"{len(rows.marked)} marked")
        if rows.filter_text:
            parts.append(f"{len(rows.keys)} of {rows.total} match {rows.filter_text!r}")
        elif rows.total > 1:
            parts.append(str(rows.total))
        if rows.sorted_by is not None:
            column, turned = rows.sorted_by
            parts.append(f"by {self.COLUMNS[column].title.lower()}{' ↓' if turned else ''}")
        self.set_subtitle(self.subtitle(" · ".join(parts)))

    def subtitle(self, counts: str) -> str:
        """What stands in the border below; `counts` is what the list says of itself."""
        return counts

    # --- the filter -----------------------------------------------------------------------------------------------

    async def action_filter(self) -> None:
        line = self._make_filter()
        if self._mounting is not None:
            await self._mounting  # else it could not take the focus, and what is typed next would be keys of the list
        line.open()

    def _make_filter(self) -> FilterLine:
        if self._filter is None:
            self._filter = FilterLine()
            self._mounting = self.mount(self._filter)
        return self._filter

    def on_descendant_focus(self) -> None:
        """A line for a filter is made in a moment of rest: with it the first key would take longer than a frame."""
        if self._filter is None:
            self.set_timer(REST, self._make_filter)

    @on(FilterLine.Typed)
    def _typed(self, event: FilterLine.Typed) -> None:
        event.stop()
        self.list.filter(event.text)

    @on(FilterLine.Left)
    def _left(self, event: FilterLine.Left) -> None:
        event.stop()
        self.list.focus()

    def action_unmark(self) -> None:
        self.list.unmark()

    def action_other(self, step: int) -> None:
        """The focus stays here."""
        self.app_.scroll_output(step)

    def clear_filter(self) -> bool:
        if self.list.filter_text:
            if self._filter is not None:
                self._filter.close()
            self.list.filter("")
            self.list.focus()
            return True
        if self.list.marked:
            self.list.unmark()
            return True
        return False
