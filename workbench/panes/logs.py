"""The logs: of the selected container or service, or of all of them merged. A new generation goes on in the same stream.

The pane holds a `LogBook` of the engine and asks it for the rows that the view draws; nothing else of a log is in memory. All
that a program writes stays reachable, however fast it writes, since what is drawn is read from the log itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.binding import Binding
from textual.widget import Widget

from engine.api import EngineEvent, LogBook, LogExtent, LogQuery, LogRow, LoopEvent, ServiceState
from engine.base.patterns import Pattern, SlowPattern
from engine.errors import EngineError, InvalidInput, NotFound
from workbench import clipboard
from workbench.messages import Said
from workbench.panes.base import Pane
from workbench.panes.log_saving import default_name, save_rows, text_of
from workbench.screens.log_row import WINDOWS, ChooseWindow, RowDetail, brief
from workbench.state import neutral
from workbench.subjects import Lists, Subject
from workbench.widgets.book_view import BookView
from workbench.widgets.prompt import Prompt

FRAME = 1 / 30  # seconds between two looks at a log that grows
FLOOD, SLOW_FRAME = 500, 1 / 10  # when so many rows came since the last look, nobody reads them one by one
MOST_COPIED = 100_000  # rows
HINT = "words, !without, ~regular expression"


def parse_query(typed: str) -> LogQuery | None:
    """`text`, `~regular expression` (or `/regular expression/`), with `!` before it what does not match; None for nothing."""
    inverse = typed.startswith("!") and len(typed) > 1
    text = typed[1:] if inverse else typed
    if text.startswith("~") and len(text) > 1:
        return LogQuery(text[1:], True, inverse)
    if len(text) > 2 and text.startswith("/") and text.endswith("/"):
        return LogQuery(text[1:-1], True, inverse)
    return LogQuery(text, False, inverse) if text else None


def highlight(query: LogQuery | None) -> Pattern[str] | None:
    if query is None or query.inverse:
        return None
    with contextlib.suppress(InvalidInput):
        ignore = not any(letter.isupper() for letter in query.text)
        return Pattern(query.text, ignore_case=ignore, literal=not query.regex)
    return None


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
        Binding("v", "select", "Select", show=False, id="logs.select", tooltip="Begin to select lines, or end it"),
        Binding("y", "yank", "Copy", show=False, id="logs.yank", tooltip="Copy the selected lines, or the one under the cursor"),
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
        self.book: LogBook | None = None
        self.extent = LogExtent(0, 0, 0, 0, 1.0)
        self.kept: LogQuery | None = None
        self.search: LogQuery | None = None
        self.window = 0  # seconds, 0: all
        self.all = False
        self._typed = {"filter": "", "search": ""}
        self._hit = 0  # number of the hit under the cursor
        self._names: tuple[str, ...] = ()  # of the containers whose logs are open
        self._ids: dict[str, str] = {}
        self._one = ""  # the selected container
        self._last: dict[str, str] = {}  # by kind, the subject that was selected last
        self._of = ""  # the kind that was selected last
        self._epoch = 0  # what row numbers mean
        self._visible, self._again = asyncio.Event(), asyncio.Event()

    def content(self) -> Iterable[Widget]:
        yield self.view
        yield self.prompt

    @property
    def main(self) -> Widget:
        return self.view

    async def on_unmount(self) -> None:
        if self.book is not None:
            await self.book.close()

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
        self._choose()

    def engine_event(self, event: EngineEvent) -> None:
        if event.type == "container" and event.action == "start":
            self._choose(again=event.attributes.get("name", ""))

    def _choose(self, again: str = "") -> None:
        """Opens the logs that are wanted now. `again`: a container that may be another one of the same name."""
        names = self._all_names() if self.all else (self._one,) if self._one else ()
        if names and (names != self._names or again in names):
            same = names == self._names
            self._names = names
            self.work(self._read, names, same, group="read")

    def _all_names(self) -> tuple[str, ...]:
        lists = self.bridge.lists
        services = [each.container for each in lists.services if each.container]
        return tuple(services or [each.name for each in lists.containers if each.running] or [self._one])

    def shown(self) -> None:
        self._visible.set()

    def hidden(self) -> None:
        self._visible.clear()

    # --- reading ------------------------------------------------------------------------------------------

    async def _read(self, names: Sequence[str], same: bool) -> None:
        """Follows the logs until others are wanted. `same`: these were open, and may be still."""
        engine = self.bridge.engine
        try:
            paths = tuple([(await engine.container(name)).log_path for name in names])
            if same and self.book is not None and all(paths) and paths == tuple(self._ids.get(name) for name in names):
                await self._keep_reading(self.book)
                return
            book = await engine.open_logs(names)
        except NotFound:
            self._names = ()
            return
        self._ids = dict(zip(names, paths, strict=True))
        old, self.book = self.book, book
        self.extent = LogExtent(0, 0, 0, 0, 0.0)
        self._epoch += 1
        self.view.restart()
        self.view.look = replace(self.view.look, names=tuple(book.names) if len(book.names) > 1 else ())
        self.view.marks.clear()
        if old is not None:
            await old.close()
        await book.select(self.kept, since=self._since())
        await book.search(self.search)
        self._say()
        await self._keep_reading(book)

    async def _keep_reading(self, book: LogBook) -> None:
        taken: tuple[int, LogExtent] | None = None
        total = 0
        while True:
            await self._visible.wait()
            epoch = self._epoch
            try:
                extent = await book.advance()
                if (epoch, extent) != taken:  # a look that finds nothing new draws nothing
                    await self._take(book, epoch, extent)
                    taken = epoch, extent
            except SlowPattern as error:
                await self._without(book, error)
                continue
            if extent.share == 1:
                await self._news(book)
                flood = extent.total - total > FLOOD
                await asyncio.sleep(SLOW_FRAME if flood else FRAME)
            total = extent.total

    async def _without(self, book: LogBook, error: SlowPattern) -> None:
        """Goes on without the filter or the search that takes too long."""
        self._trouble(error)
        if self.search is not None and self.search.text == error.pattern:
            self.search, self._typed["search"] = None, ""
            self.view.look = replace(self.view.look, search=None)
            await book.search(None)
        else:
            self.kept, self._typed["filter"] = None, ""
            await self._change()

    async def _news(self, book: LogBook) -> None:
        """Until the log may have grown, or another query wants another look at it."""
        waiting = {asyncio.ensure_future(book.changed()), asyncio.ensure_future(self._again.wait())}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._again.clear()
            for each in waiting:
                each.cancel()

    async def _take(self, book: LogBook, epoch: int, extent: LogExtent) -> None:
        rows: Sequence[LogRow] = ()
        start = 0
        if self.view.following:
            start = max(extent.first, extent.end - 2 * self.view.page)
            rows = await book.rows(start, extent.end - start)
        if epoch == self._epoch and book is self.book:
            self.view.grow(extent.first, extent.end, start, rows)
            if extent != self.extent:
                self.extent = extent
                self._say()

    @on(BookView.Wanted)
    def _wanted(self, message: BookView.Wanted) -> None:
        message.stop()
        self.work(self._supply, message.first, message.count, group="supply")

    async def _supply(self, first: int, count: int) -> None:
        book, epoch = self.book, self._epoch
        if book is not None:
            rows = await book.rows(first, count)
            if epoch == self._epoch:
                self.view.supply(first, rows)

    async def _change(self, place: int | None = None) -> None:
        """Another query or time: rows get other numbers. The cursor goes to the row of that place, else to the end."""
        book = self.book
        if book is None:
            return
        self._epoch += 1
        epoch = self._epoch
        try:
            await book.select(self.kept, since=self._since())
        except SlowPattern as error:
            await self._without(book, error)
            return
        except EngineError as error:
            self._trouble(error)
            return
        if epoch != self._epoch:
            return
        if place is None:
            self.view.restart()
        else:
            while (extent := await book.advance()).share < 1:
                pass
            row = await book.row_of(place)
            if epoch != self._epoch:
                return
            self.view.restart(cursor=row)
            await self._take(book, epoch, extent)
            self.view.go_to(row)
        self._hit = 0
        self._again.set()
        self._say()

    def _since(self) -> int:
        return time.time_ns() - self.window * 1_000_000_000 if self.window > 0 else 0

    def _trouble(self, error: EngineError) -> None:
        self.bridge.trouble(error)

    # --- what the border says -----------------------------------------------------------------------------

    @on(BookView.Moved)
    def _moved(self, message: BookView.Moved) -> None:
        message.stop()
        self._say()

    def _say(self) -> None:
        view = self.view
        flags = [", ".join(self._names) if len(self._names) < 3 else f"{len(self._names)} containers"]
        if self.extent.share < 1:
            flags.append(f"{self.extent.share:.0%} read")
        flags.append("following" if view.following else f"+{view.unseen} lines" if view.unseen else "stopped")
        if view.select_from is not None:
            first, last = view.selected
            flags.append(f"{last - first + 1} selected")
        if self.kept is not None:
            flags.append(f"filter {self._typed['filter']}")
        if self.search is not None:
            flags.append(f"{self._hit or '–'}/{self.extent.hits} {self._typed['search']}")
        if self.window > 0:
            flags.append(brief(WINDOWS, self.window))
        look = view.look
        flags += [
            name for name, on in (("times", look.times), ("no wrap", not look.wrap), ("raw", not look.readable)) if on
        ]
        if view.marks:
            flags.append(f"◆{len(view.marks)}")
        self.border_subtitle = neutral(" · ".join(flags)).replace("[", "\\[")

    # --- finding ------------------------------------------------------------------------------------------

    def action_search(self) -> None:
        self.prompt.open("search", "search", self._typed["search"], hint=HINT)

    def action_filter(self) -> None:
        self.prompt.open("filter", "filter", self._typed["filter"], hint=HINT)

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
            self._typed["search"] = message.text
            self.search = parse_query(message.text)
            self.view.look = replace(self.view.look, search=highlight(self.search))
            self.work(self._search_anew, group="search")

    def _set_filter(self, typed: str) -> None:
        if typed != self._typed["filter"]:
            self._typed["filter"] = typed
            self.kept = parse_query(typed)
            self.work(self._change, group="change")

    async def _search_anew(self) -> None:
        book = self.book
        if book is None:
            return
        await book.search(self.search)
        self._hit = 0
        self._again.set()
        if self.search is not None:
            # From what is on the screen backwards: what was said last is what is looked for.
            await self._go_to_hit(-1, from_row=self.view.cursor + 1)
        self._say()

    def action_hit(self, step: int) -> None:
        if self.search is None:
            self.action_search()
        else:
            self.work(self._go_to_hit, step, group="search")

    async def _go_to_hit(self, step: int, from_row: int | None = None) -> None:
        book, epoch = self.book, self._epoch
        if book is None:
            return
        while (extent := await book.advance()).share < 1 and epoch == self._epoch:
            await self._take(book, epoch, extent)
        await self._take(book, epoch, extent)
        start = self.view.cursor if from_row is None else from_row
        hit = await book.next_hit(start, forward=step > 0)
        if epoch != self._epoch:
            return
        self._hit = hit.number if hit else 0
        if hit is None:
            self.post_message(Said(f"nothing matches {self._typed['search']}"))
        else:
            self.view.go_to(hit.row)
        self._say()

    def action_open(self) -> None:
        row = self.view.row(self.view.cursor)
        if row is None or row.place < 0:
            return
        if self.kept is not None:
            self.kept = None
            self._typed["filter"] = ""
            self.window = 0
            self.work(self._change, row.place, group="change")
        else:
            self.action_fields()

    def action_window(self) -> None:
        def chosen(index: int | None) -> None:
            if index is not None:
                self.action_show_window(index)

        self.app.push_screen(ChooseWindow(), chosen)

    def action_show_window(self, index: int) -> None:
        seconds = WINDOWS[index][1]
        if self.window > 0 or seconds > 0:
            self.window = max(0, seconds)
            self.work(self._window, seconds < 0, group="change")
        elif seconds < 0:
            self.view.action_top()
        else:
            self.view.action_bottom()

    async def _window(self, top: bool) -> None:
        await self._change()
        if top:
            self.view.action_top()

    def clear_filter(self) -> bool:
        if self.prompt.is_open:
            self.prompt.shut()
            self.view.focus()
        elif self.view.select_from is not None:
            self.action_select()
        elif self.kept is not None or self.window:
            place = self._place()
            self.kept, self.window, self._typed["filter"] = None, 0, ""
            self.work(self._change, place, group="change")
        elif self.search is not None:
            self.search, self._typed["search"] = None, ""
            self.view.look = replace(self.view.look, search=None)
            self.work(self._search_anew, group="search")
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

    def action_select(self) -> None:
        view = self.view
        view.select_from = view.cursor if view.select_from is None else None
        view.redraw(view.cursor)
        self._say()

    def action_mark(self) -> None:
        row = self.view.row(self.view.cursor)
        if row is not None and row.place >= 0:
            self.view.marks ^= {row.place}
            self.view.redraw(self.view.cursor)
            self._say()

    def action_next_mark(self) -> None:
        self.work(self._next_mark, group="search")

    async def _next_mark(self) -> None:
        if self.book is None or not self.view.marks:
            self.post_message(Said("no line is marked: space marks the one under the cursor"))
            return
        rows = sorted([await self.book.row_of(place) for place in self.view.marks])
        self.view.go_to(next((row for row in rows if row > self.view.cursor), rows[0]))

    def action_yank(self) -> None:
        self.work(self._yank, *self.view.selected, group="yank")

    async def _yank(self, first: int, last: int) -> None:
        if self.book is None:
            return
        rows = await self.book.rows(first, min(last - first + 1, MOST_COPIED))
        if rows:
            await clipboard.copy(self.app, text_of(rows), "1 line" if len(rows) == 1 else f"{len(rows)} lines")
        if self.view.select_from is not None:
            self.action_select()

    def action_fields(self) -> None:
        row = self.view.row(self.view.cursor)
        if row is None or self.book is None:
            return

        def chosen(field: tuple[str, str] | None) -> None:
            if field is not None:
                self.work(clipboard.copy, self.app, field[1], f"the field {field[0]}", group="yank")

        self.app.push_screen(RowDetail(row, self.book.names[row.source]), chosen)

    def action_save(self) -> None:
        self.prompt.open("save", "save as", default_name(self._names), hint="a file's name")

    async def _save(self, name: str) -> None:
        book = self.book
        if book is None or not name:
            return
        while (extent := await book.advance()).share < 1:
            pass
        first, last = self.view.selected if self.view.select_from is not None else (extent.first, extent.end - 1)
        look = self.view.look
        saved = await save_rows(book, name, max(first, extent.first), last + 1, times=look.times, names=look.names)
        which = "selected " if self.view.select_from is not None else "filtered " if self.kept or self.window else ""
        self.post_message(Said(f"saved {saved.rows} {which}lines to {saved.path}"))


def unfinished(typed: str) -> bool:
    """Whether it is a regular expression so far that is none yet."""
    query = parse_query(typed)
    if query is None or not query.regex:
        return typed.lstrip("!")[:1] in ("~", "/")
    return highlight(replace(query, inverse=False)) is None
