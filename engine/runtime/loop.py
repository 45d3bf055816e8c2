"""The monitor's event loop: descriptors and timers on one thread."""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable
from typing import TypeAlias

READ, WRITE = 1, 4  # EPOLLIN, EPOLLOUT; named here because macOS has no epoll, and loads this
Handler: TypeAlias = Callable[[int, int], object]


class Timer:
    """One call later. `cancel` may be called at any time, also after it rang."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], object]) -> None:
        self.when = when
        self.action: Callable[[], object] | None = action

    def cancel(self) -> None:
        self.action = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Loop:
    """An epoll whose descriptors each have a handler `(descriptor, events)`, and a heap of monotonic timers.

    Handlers see READ and WRITE; a hang-up or an error counts as both that were asked for.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll(select.EPOLL_CLOEXEC)
        self._watched: dict[int, tuple[int, Handler]] = {}
        self._timers: list[Timer] = []

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        """Calls `handler` when `fd` is ready; changes the events or handler of a watched one."""
        before = self._watched.get(fd)
        if before is None:
            self._epoll.register(fd, events)
        elif before[0] != events:
            self._epoll.modify(fd, events)
        self._watched[fd] = (events, handler)

    def change(self, fd: int, events: int) -> None:
        """Other events for a watched descriptor."""
        self.watch(fd, events, self._watched[fd][1])

    def forget(self, fd: int) -> None:
        """Stops watching, before the descriptor is closed; fine when it was not watched."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, action: Callable[[], object]) -> Timer:
        timer = Timer(time.monotonic() + max(seconds, 0.0), action)
        heapq.heappush(self._timers, timer)
        return timer

    def turn(self, limit: float | None = None) -> None:
        """Waits for the next thing (at most `limit` seconds) and deals with what is ready."""
        while self._timers and self._timers[0].action is None:
            heapq.heappop(self._timers)
        if self._timers:
            until = max(self._timers[0].when - time.monotonic(), 0.0)
            limit = until if limit is None else min(limit, until)
        ready = [(fd, events, self._watched.get(fd)) for fd, events in self._epoll.poll(limit)]
        for fd, events, entry in ready:
            # An earlier handler of this round may have let go of it, or of a descriptor that took its number since.
            if entry is not None and self._watched.get(fd) is entry:
                asked, handler = entry
                handler(fd, events & asked if events & asked else asked)
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            action = heapq.heappop(self._timers).action
            if action is not None:
                action()

    def close(self) -> None:
        self._epoll.close()
