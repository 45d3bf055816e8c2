"""The logs: of the selected container or service, or of all of them merged. What replaces a container goes on in the same stream.

Here is which logs show, what the border says, and the keys. `log_reader` reads and follows, `log_query` understands what is typed,
`log_saving` writes files, `widgets/book_view` draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.binding import Binding
from textual.widget import Widget

from engine.api import EngineEvent, LoopEvent, ServiceState
from engine.errors import NotFound
from workbench import clipboard
from workbench.messages import Said
from workbench.panes.base import Pane
from workbench.panes.log_query import HINT, unfinished
from workbench.panes.log_reader import LogReader
from workbench.panes.log_saving import default_name, save_rows, text_of
from workbench.screens.log_row import WINDOWS, ChooseWindow, RowDetail, brief
from workbench.state import neutral
from workbench.subjects import Lists, Subject
from workbench.widgets.book_select import between
from workbench.widgets.book_view import BookView
from workbench.widgets.prompt import Prompt

MOST_COPIED = 100_000  # rows


class LogsPane(Pane):
    NAME, TITLE = "logs", "logs"
    FOLLOWS = ("container", "service")
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("slash", "search", "Search", key_display="/", id="logs.search", tooltip="Find words, or ~a regular expression"),
        Binding("n", "hit(1)", "Next", show=False, id="logs.next", tooltip="Go to the next hit"),
        Binding("N", "hit(-1)", "Before", show=False, id="logs.before", tooltip="Go to the hit before"),
        Binding("ampersand,f", "filter", "Filter", key_display="&", id="logs.filter", tooltip="Show only lines that match: words, !without, ~regular expression"),
        Binding("enter", "open", "Open", show=False, id="logs.open", tooltip="A line whole; with a filter: the line among its neighbours"),
        Binding("T", "window", "Time", key_display="T", id="logs.window", tooltip="The end, the beginning, or the last minutes: then 0 to 6"),
        Binding("a", "all", "All", id="logs.all", tooltip="All containers merged, or the selected one"),
        Binding("t", "times", "Times", show=False, id="logs.times", tooltip="Show when each line was written"),
        Binding("w", "wrap", "Wrap", show=False, id="logs.wrap", tooltip="Long lines below each other, or to the right"),
        Binding("J", "readable", "JSON", show=False, id="logs.json", tooltip="JSON lines as they are, or made readable"),
        Binding("v", "select(False)", "Select", show=False, id="logs.select", tooltip="Begin to select lines, or end it"),
        Binding("V", "select(True)", "Select characters", show=False, id="logs.characters", tooltip="Begin to select characters (arrows, ctrl+arrows, ^ and $), or end it; the mouse does it too"),
        Binding("y", "yank", "Copy", show=False, id="logs.yank", tooltip="Copy what is selected, or the line under the cursor"),
        Binding("Y", "fields", "Copy a field", show=False, id="logs.fields", tooltip="Copy a part of the line"),
        Binding("space", "mark", "Mark", show=False, id="logs.mark", tooltip="Mark the line, to find it again"),
        Binding("apostrophe", "next_mark", "Next mark", key_display="'", show=False, id="logs.next_mark", tooltip="Go to the next marked line"),
        Binding("ctrl+s", "save", "Save", show=False, id="logs.save", tooltip="Save what is shown (all, filtered, or selected) to a file"),
        *(
            Binding(f"unbound-window-{index}", f"show_window({index})", name, show=False, id=f"logs.window.{index}", tooltip=f"Show {name}")
            for index, (name, _seconds) in enumerate(WINDOWS)
        ),
    ]  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.view = BookView(id="logs-view", empty="No output yet.")
        self.prompt = Prompt()
        self.reader = LogReader(self.view, changed=self._say, trouble=lambda error: self.bridge.trouble(error))
        self.all = False
        self._gone = False  # whether the one whose log shows is no longer there
        self._met: set[str] = set()  # names that were listed once
        self._names: tuple[str, ...] = ()  # of the containers whose logs are open
        self._one = ""  # the selected container
        self._last: dict[str, str] = {}  # by kind, the subject that was selected last
        self._of = ""  # the kind that was selected last

    def content(self) -> Iterable[Widget]:
        yield self.view
        yield self.prompt

    @property
    def main(self) -> Widget:
        return self.view

    async def on_unmount(self) -> None:
        await self.reader.close()

    # --- whose log ----------------------------------------------------------------------------------------

    def show(self, subject: Subject | None) -> None:
        if subject is None:
            return
        before, self._last[subject.kind] = self._last.get(subject.kind), subject.id
        if before == subject.id and self._of != subject.kind:
            return  # its record has changed; the cursor that moved last stands on something else
        self._of = subject.kind
        self._one = subject.record.container if subject.kind == "service" else subject.name
        self._choose()

    def loop_event(self, event: LoopEvent) -> None:
        if isinstance(event, ServiceState) and event.phase == "running" and event.container:
            self._one = self._one or event.container
            self._choose(again=event.container)

    def listed(self, lists: Lists) -> None:
        if not self._one and lists.containers:
            self._one = lists.containers[0].name
        here = {name for name in self._names if lists.container(name) is not None}
        self._met.update(one.name for one in lists.containers)
        gone = (
            len(self._names) == 1 and not here and self._names[0] in self._met
        )  # one that is being made is not listed yet
        if gone != self._gone:
            self._gone = gone
            self._say()
        self._choose()

    def engine_event(self, event: EngineEvent) -> None:
        if event.type == "container" and event.action in ("start", "rename"):
            self._choose(again=event.attributes.get("name", ""))

    def _choose(self, again: str = "") -> None:
        """Opens the logs that are wanted now. `again`: a container that may be another one of the same name."""
        names = self._all_names() if self.all else (self._one,) if self._one else ()
        same = names == self._names or (
            self.all and set(names) < set(self._names)
        )  # what has ended stays among the others
        if names and (not same or again in names):
            self._names = self._names if same else names
            self.work(self._read, self._names, same, group="read")

    def _all_names(self) -> tuple[str, ...]:
        lists = self.bridge.lists
        services = [each.container for each in lists.services if each.container]
        return tuple(services or [each.name for each in lists.containers if each.running] or [self._one])

    async def _read(self, names: Sequence[str], same: bool) -> None:
        """`same`: these are open, and may have got another container."""
        if same and self.reader.book is not None:
            await self.reader.read_on()
            return
        try:
            await self.reader.read(self.bridge.engine, names)
        except NotFound:
            self._names = ()

    def shown(self) -> None:
        self.reader.visible.set()

    def hidden(self) -> None:
        self.reader.visible.clear()

    @on(BookView.Wanted)
    def _wanted(self, message: BookView.Wanted) -> None:
        message.stop()
        self.work(self.reader.supply, message.first, message.count, group="supply")

    # --- what the border says -----------------------------------------------------------------------------

    @on(BookView.Moved)
    def _moved(self, message: BookView.Moved) -> None:
        message.stop()
        self._say()

    def _say(self) -> None:
        view = self.view
        flags = [", ".join(self._names) if len(self._names) < 3 else f"{len(self._names)} containers"]
        if self.reader.extent.share < 1:
            flags.append(f"{self.reader.extent.share:.0%} read")
        if self._gone:
            flags[0] += " (removed)"
        flags.append("following" if view.following else f"+{view.unseen} lines" if view.unseen else "stopped")
        if view.select_from is not None:
            first, last = view.selected
            what = "characters" if view.by_character else "lines"
            lines = "" if view.by_character and first == last else f"{last - first + 1} "
            flags.append(f"{lines}{'lines by ' if view.by_character and lines else ''}{what} selected")
        if self.reader.kept is not None:
            flags.append(f"filter {self.reader.filter_text}")
        if self.reader.search is not None:
            flags.append(f"{self.reader.hit or '–'}/{self.reader.extent.hits} {self.reader.search_text}")
        if self.reader.window > 0:
            flags.append(brief(WINDOWS, self.reader.window))
        look = view.look
        flags += [
            name for name, on in (("times", look.times), ("no wrap", not look.wrap), ("raw", not look.readable)) if on
        ]
        if view.marks:
            flags.append(f"◆{len(view.marks)}")
        self.border_subtitle = neutral(" · ".join(flags)).replace("[", "\\[")

    # --- finding ------------------------------------------------------------------------------------------

    def action_search(self) -> None:
        self.prompt.open("search", "search", self.reader.search_text, hint=HINT)

    def action_filter(self) -> None:
        self.prompt.open("filter", "filter", self.reader.filter_text, hint=HINT)

    @on(Prompt.Changed)
    def _typing(self, message: Prompt.Changed) -> None:
        """A filter shows its effect as it is typed; an unfinished regular expression waits for its end."""
        message.stop()
        if message.purpose == "filter" and not unfinished(message.text):
            self._set_filter(message.text)

    @on(Prompt.Done)
    def _typed_all(self, message: Prompt.Done) -> None:
        message.stop()
        self.prompt.shut()
        self.view.focus()
        if message.purpose == "save":
            self.work(self._save, message.text, group="save")
        elif message.purpose == "filter":
            self._set_filter(message.text)
        else:
            self.reader.set_search(message.text)
            self.work(self._find, group="search")

    def _set_filter(self, typed: str) -> None:
        if typed != self.reader.filter_text:
            self.reader.set_filter(typed)
            self.work(self.reader.change, group="change")

    def action_hit(self, step: int) -> None:
        if self.reader.search is None:
            self.action_search()
        else:
            self.work(self._find, step, group="search")

    async def _find(self, step: int = 0) -> None:
        """The next hit, or (0) the one of a new search."""
        found = await (self.reader.go_to_hit(step) if step else self.reader.search_anew())
        if not found:
            self.post_message(Said(f"nothing matches {self.reader.search_text}"))

    def action_open(self) -> None:
        row = self.view.row(self.view.cursor)
        if row is None or row.place < 0:
            return
        if self.reader.kept is not None:
            self.reader.set_filter("")
            self.reader.window = 0
            self.work(self.reader.change, row.place, group="change")
        else:
            self.action_fields()

    def action_window(self) -> None:
        def chosen(index: int | None) -> None:
            if index is not None:
                self.action_show_window(index)

        self.app.push_screen(ChooseWindow(), chosen)

    def action_show_window(self, index: int) -> None:
        seconds = WINDOWS[index][1]
        if self.reader.window > 0 or seconds > 0:
            self.reader.window = max(0, seconds)
            self.work(self._window, seconds < 0, group="change")
        elif seconds < 0:
            self.view.action_top()
        else:
            self.view.action_bottom()

    async def _window(self, top: bool) -> None:
        await self.reader.change()
        if top:
            self.view.action_top()

    def clear_filter(self) -> bool:
        if self.prompt.is_open:
            self.prompt.shut()
            self.view.focus()
        elif self.view.select_from is not None:
            self.view.end_selection()
        elif self.reader.kept is not None or self.reader.window:
            place = self._place()
            self.reader.set_filter("")
            self.reader.window = 0
            self.work(self.reader.change, place, group="change")
        elif self.reader.search is not None:
            self.reader.set_search("")
            self.work(self._find, group="search")
        else:
            return False
        return True

    def _place(self) -> int | None:
        row = self.view.row(self.view.cursor)
        return None if self.view.following or row is None or row.place < 0 else row.place

    # --- how it looks -------------------------------------------------------------------------------------

    def action_all(self) -> None:
        self.all = not self.all
        self._choose()

    def action_times(self) -> None:
        self.view.look = replace(self.view.look, times=not self.view.look.times)
        self._say()

    def action_wrap(self) -> None:
        self.view.look = replace(self.view.look, wrap=not self.view.look.wrap)
        self._say()

    def action_readable(self) -> None:
        self.view.look = replace(self.view.look, readable=not self.view.look.readable)
        self._say()

    # --- lines that the user points at --------------------------------------------------------------------

    def action_select(self, by_character: bool) -> None:
        if self.view.select_from is not None and self.view.by_character == by_character:
            self.view.end_selection()
        else:
            self.view.begin_selection(by_character=by_character)

    def action_mark(self) -> None:
        row = self.view.row(self.view.cursor)
        if row is not None and row.place >= 0:
            self.view.marks ^= {row.place}
            self.view.redraw(self.view.cursor)
            self._say()

    def action_next_mark(self) -> None:
        self.work(self._next_mark, group="search")

    async def _next_mark(self) -> None:
        if self.reader.book is None or not self.view.marks:
            self.post_message(Said("no line is marked: space marks the one under the cursor"))
            return
        rows = sorted([await self.reader.book.row_of(place) for place in self.view.marks])
        self.view.go_to(next((row for row in rows if row > self.view.cursor), rows[0]))

    def action_yank(self) -> None:
        self.work(self._yank, group="yank")

    async def _yank(self) -> None:
        view, book = self.view, self.reader.book
        if book is None:
            return
        (first, last), span = view.selected, view.span
        rows = await book.rows(first, min(last - first + 1, MOST_COPIED))
        if rows and span is not None:
            texts = [view.text_of(row) for row in rows]
            text = between(*span, texts, [row.whole for row in rows])
            await clipboard.copy(self.app, text, "1 character" if len(text) == 1 else f"{len(text)} characters")
        elif rows:
            await clipboard.copy(self.app, text_of(rows), "1 line" if len(rows) == 1 else f"{len(rows)} lines")
        if view.select_from is not None:
            view.end_selection()

    def action_fields(self) -> None:
        row = self.view.row(self.view.cursor)
        if row is None or self.reader.book is None:
            return

        def chosen(field: tuple[str, str] | None) -> None:
            if field is not None:
                self.work(clipboard.copy, self.app, field[1], f"the field {field[0]}", group="yank")

        self.app.push_screen(RowDetail(row, self.reader.book.names[row.source]), chosen)

    def action_save(self) -> None:
        self.prompt.open("save", "save as", default_name(self._names), hint="a file's name")

    async def _save(self, name: str) -> None:
        book = self.reader.book
        if book is None or not name:
            return
        extent = await self.reader.whole()
        first, last = self.view.selected if self.view.select_from is not None else (extent.first, extent.end - 1)
        look = self.view.look
        saved = await save_rows(book, name, max(first, extent.first), last + 1, times=look.times, names=look.names)
        which = (
            "selected "
            if self.view.select_from is not None
            else "filtered "
            if self.reader.kept or self.reader.window
            else ""
        )
        self.post_message(Said(f"saved {saved.rows} {which}lines to {saved.path}"))
