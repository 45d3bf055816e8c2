"""What panes with a list of subjects have in common: one row a subject, a cursor, a selection that the others follow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import on
from textual.widget import Widget
from textual.widgets import DataTable

from workbench.panes.base import Pane
from workbench.state import Column
from workbench.subjects import Subject
from workbench.widgets.row_list import RowList


class RowsPane(Pane):
    COLUMNS: ClassVar[Sequence[Column]]
    EMPTY: ClassVar[str] = "Nothing here."

    def __init__(self) -> None:
        super().__init__()
        self.list = RowList(id=f"{self.NAME}-list", columns=self.COLUMNS)
        self._subjects: dict[str, Subject] = {}

    def content(self) -> Iterable[Widget]:
        yield self.list

    @property
    def main(self) -> Widget:
        return self.list

    @property
    def subject(self) -> Subject | None:
        return self._subjects.get(self.list.selected)

    def put(self, rows: Sequence[tuple[Subject, tuple[str, ...]]]) -> None:
        """The rows as they are now. The cursor stays on its subject."""
        before = self.subject
        self._subjects = {subject.id: subject for subject, _ in rows}
        self.list.show([(subject.id, cells) for subject, cells in rows])
        self.say("" if rows else "empty", "" if rows else self.EMPTY)
        if self.subject != before:
            self.selected(self.subject)

    def choose(self, subject: Subject) -> bool:
        if subject.id not in self._subjects:
            return False
        self.list.select(subject.id)
        self.selected(self.subject)
        return True

    @on(DataTable.RowHighlighted)
    def _moved(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        self.selected(self.subject)
