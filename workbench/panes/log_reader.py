"""What stands between a `LogBook` of the engine and the `BookView` that draws it: reads what the view needs, follows what grows, and
keeps the filter, the search and the time window. Nothing of a log is in memory but the rows on the screen, so all that a program
writes stays reachable, however fast it writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.api import LogBook, LogExtent, LogQuery, LogRow
from engine.base.patterns import SlowPattern
from engine.errors import EngineError, NotFound
from workbench.panes.log_query import highlight, parse_query

if TYPE_CHECKING:
    from engine.api import Engine
    from workbench.widgets.book_view import BookView

FRAME = 1 / 30  # seconds between two looks at a log that grows
FLOOD, SLOW_FRAME = 500, 1 / 10  # when so many rows came since the last look, nobody reads them one by one


class LogReader:
    """`changed` is told when what the border says may be another; `trouble` what cannot be done."""

    def __init__(self, view: BookView, *, changed: Callable[[], None], trouble: Callable[[EngineError], None]) -> None:
        self._view, self._changed, self._trouble = view, changed, trouble
        self.book: LogBook | None = None
        self.extent = LogExtent(0, 0, 0, 0, 1.0)
        self.filter_text = self.search_text = ""  # as they were typed
        self.kept: LogQuery | None = None
        self.search: LogQuery | None = None
        self.window = 0  # seconds, 0: all
        self.hit = 0  # number of the hit under the cursor
        self.visible = asyncio.Event()
        self._epoch = 0  # what row numbers mean
        self._again = asyncio.Event()

    async def close(self) -> None:
        if self.book is not None:
            await self.book.close()

    # --- reading ------------------------------------------------------------------------------------------

    async def read(self, engine: Engine, names: Sequence[str]) -> None:
        """Opens these logs, and follows them until it is cancelled. Raises `NotFound`."""
        book = await engine.open_logs(names)
        old, self.book = self.book, book
        self.extent = LogExtent(0, 0, 0, 0, 0.0)
        self._epoch += 1
        view = self._view
        view.restart()
        view.look = replace(view.look, names=tuple(book.names) if len(book.names) > 1 else ())
        view.marks.clear()
        if old is not None:
            await old.close()
        await book.select(self.kept, since=self._since())
        await book.search(self.search)
        self._changed()
        await self._follow(book)

    async def read_on(self) -> None:
        """The same logs: perhaps of other containers of the same names, or of one that runs again."""
        if (book := self.book) is not None:
            with suppress(NotFound):  # its rows stay
                await book.renew()
            await self._follow(book)

    async def _follow(self, book: LogBook) -> None:
        taken: tuple[int, LogExtent] | None = None
        total = 0
        while True:
            await self.visible.wait()
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
        start, view = 0, self._view
        if view.following:
            start = max(extent.first, extent.end - 2 * view.page)
            rows = await book.rows(start, extent.end - start)
        if epoch == self._epoch and book is self.book:
            view.grow(extent.first, extent.end, start, rows)
            if extent != self.extent:
                self.extent = extent
                self._changed()

    async def supply(self, first: int, count: int) -> None:
        """Rows that the view lacks."""
        book, epoch = self.book, self._epoch
        if book is not None:
            rows = await book.rows(first, count)
            if epoch == self._epoch:
                self._view.supply(first, rows)

    async def whole(self) -> LogExtent:
        """When all that is there now was looked at."""
        assert self.book is not None  # asked only while there is one
        while (extent := await self.book.advance()).share < 1:
            pass
        return extent

    # --- what shows ---------------------------------------------------------------------------------------

    def set_filter(self, typed: str) -> None:
        """`change` makes it hold."""
        self.filter_text, self.kept = typed, parse_query(typed)

    def set_search(self, typed: str) -> None:
        """`search_anew` makes it hold."""
        self.search_text, self.search = typed, parse_query(typed)
        self._view.look = replace(self._view.look, search=highlight(self.search))

    def _since(self) -> int:
        return time.time_ns() - self.window * 1_000_000_000 if self.window > 0 else 0

    async def change(self, place: int | None = None) -> None:
        """Another filter or time: rows get other numbers. The cursor goes to the row of that place, else to the end."""
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
            self._view.restart()
        else:
            extent = await self.whole()
            row = await book.row_of(place)
            if epoch != self._epoch:
                return
            self._view.restart(cursor=row)
            await self._take(book, epoch, extent)
            self._view.go_to(row)
        self.hit = 0
        self._again.set()
        self._changed()

    async def _without(self, book: LogBook, error: SlowPattern) -> None:
        """Goes on without the filter or the search that takes too long."""
        self._trouble(error)
        if self.search is not None and self.search.text == error.pattern:
            self.set_search("")
            await book.search(None)
        else:
            self.set_filter("")
            await self.change()

    # --- finding ------------------------------------------------------------------------------------------

    async def search_anew(self) -> bool:
        """To the hit that came last before the cursor: what was said last is what is looked for. False: nothing is found."""
        book = self.book
        if book is None:
            return True
        await book.search(self.search)
        self.hit = 0
        self._again.set()
        found = self.search is None or await self.go_to_hit(-1, from_row=self._view.cursor + 1)
        self._changed()
        return found

    async def go_to_hit(self, step: int, from_row: int | None = None) -> bool:
        book, epoch = self.book, self._epoch
        if book is None:
            return True
        while (extent := await book.advance()).share < 1 and epoch == self._epoch:
            await self._take(book, epoch, extent)
        await self._take(book, epoch, extent)
        start = self._view.cursor if from_row is None else from_row
        hit = await book.next_hit(start, forward=step > 0)
        if epoch != self._epoch:
            return True
        self.hit = hit.number if hit else 0
        if hit is not None:
            self._view.go_to(hit.row)
        self._changed()
        return hit is not None
