"""One key after the other, also when many come at once (typed fast, pasted, over a slow line).

Textual 8.2 gives a key to the widget that has the focus when it is read, and runs its binding when it has bubbled up: of `/stop` in one
packet the letters would be read while the list still has the focus, and `s` would stop a container. So a key waits until the one before
has done what it does, and the focus is where that has put it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from textual.events import Key
from textual.message import Message
from textual.message_pump import MessagePump
from textual.timer import Timer

if TYPE_CHECKING:
    from textual.app import App

LOST = 0.25  # seconds after which a key whose widget went away is waited for no longer


class KeyTurns:
    class Handled(Message):
        """Follows a key on its way. The second time what it was bound to has been done, and what that told the widgets around."""

        def __init__(self, target: MessagePump, again: bool) -> None:
            super().__init__()
            self.target, self.again = target, again

    def __init__(self, app: App[int], handle: Callable[[Key], Awaitable[None]]) -> None:
        self._app, self._handle = app, handle
        self._waiting: deque[Key] = deque()
        self._under_way = False
        self._rescue: Timer | None = None

    async def take(self, key: Key) -> None:
        """Handles it now, or when those before it are done."""
        if self._under_way:
            self._waiting.append(key)
            if self._rescue is None:
                self._rescue = self._app.set_timer(LOST, self.next)
        elif getattr(self._app.focused, "inside", False):  # a program's: nothing here moves the focus
            await self._handle(key)
        else:
            await self._begin(key)

    async def _begin(self, key: Key) -> None:
        self._under_way = True
        target: MessagePump = self._app.focused or self._app.screen
        await self._handle(key)
        self._follow(target, again=True)

    def _follow(self, target: MessagePump, *, again: bool) -> None:
        if not target.post_message(self.Handled(target, again)):  # it has gone
            self._app.call_later(self.next)

    def followed(self, message: Handled) -> None:
        """It has come to the app."""
        if message.again:
            self._follow(message.target, again=False)
        else:
            self._app.call_later(self.next)  # behind the focus that was moved

    async def next(self) -> None:
        """The turn of the next one."""
        if self._rescue is not None:
            self._rescue.stop()
            self._rescue = None
        self._under_way = False
        while self._waiting and not self._under_way:
            key = self._waiting.popleft()
            if self._waiting:
                self._rescue = self._rescue or self._app.set_timer(LOST, self.next)
            if getattr(self._app.focused, "inside", False):
                await self._handle(key)
            else:
                await self._begin(key)
