"""Bridges between blocking work on threads and async front ends."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar, cast

from engine.base.cancel import CancelToken
from engine.base.lazy import lazy

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Executor
else:
    asyncio = lazy("asyncio")

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[Callable[[T], None], CancelToken], object]
_LINGER = 10.0  # seconds that an idle thread stays


async def stream(work: Work[T]) -> AsyncIterator[T]:
    """Runs `work(emit, cancel)` on a thread and yields what it emits. Closing the iterator cancels the work and waits for it."""
    loop = asyncio.get_running_loop()
    items: deque[T | _End[T]] = deque()
    woken, waking = asyncio.Event(), False
    cancel = CancelToken()

    def put(item: T | _End[T]) -> None:
        # The loop is woken once for all that comes before it looks: waking it takes the interpreter from the work.
        nonlocal waking
        items.append(item)
        if not waking:
            waking = True
            loop.call_soon_threadsafe(woken.set)

    def run() -> None:
        try:
            work(put, cancel)
            put(_End(None))
        except BaseException as error:
            put(_End(error))

    async def more() -> None:
        nonlocal waking
        await woken.wait()
        woken.clear()
        waking = False  # before the look: what is added from here on wakes again

    async def rest() -> None:
        while not any(isinstance(item, _End) for item in items):
            await more()

    _waiters.run(run)
    ended = False
    try:
        while True:
            await more()
            while items:
                item = items.popleft()
                if isinstance(item, _End):
                    ended = True
                    if item.error:
                        raise item.error
                    return
                yield item
    finally:
        cancel.cancel()
        if not ended:
            await asyncio.shield(rest())


class PoolClosed(Exception):
    """The pool takes no more work."""


async def in_pool(pool: Executor, work: Callable[[], R]) -> R:
    """Runs `work` on a thread of the pool. As asyncio's own way (`run_in_executor`), which is two futures and two turns of the loop
    more; and when whoever waits is cancelled, the work goes on to its end. Raises PoolClosed."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()
    try:
        pool.submit(_carry, loop, future, work)
    except RuntimeError:
        raise PoolClosed from None
    return await future


async def on_thread(work: Callable[[], R]) -> R:
    """Runs what may block for as long as it likes (a wait for an end, a write to a program that does not read) on a thread
    of its own: the pool is small, and one of these in each of its threads would stop everything else."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()
    _waiters.run(lambda: _carry(loop, future, work))
    return await future


def _carry(loop: asyncio.AbstractEventLoop, future: asyncio.Future[R], work: Callable[[], R]) -> None:
    result, failure = None, None
    try:
        result = work()
    except BaseException as error:
        failure = error
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(_settle, future, result, failure)


def _settle(future: asyncio.Future[R], result: R | None, error: BaseException | None) -> None:
    if future.done():  # whoever waited has gone
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(cast("R", result))


class _Waiters:
    """Threads as many as are needed at once; one that has done its work waits a moment for more."""

    def __init__(self) -> None:
        self._idle: list[queue.SimpleQueue[Callable[[], object]]] = []
        self._lock = threading.Lock()

    def run(self, work: Callable[[], object]) -> None:
        with self._lock:
            if self._idle:
                self._idle.pop().put(work)
                return
        mine: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        mine.put(work)  # as an argument the thread would keep it for as long as it lives
        threading.Thread(target=self._work, args=(mine,), name="engine-wait", daemon=True).start()

    def _work(self, mine: queue.SimpleQueue[Callable[[], object]]) -> None:
        while True:
            try:
                work = mine.get(timeout=_LINGER)
            except queue.Empty:
                with self._lock:
                    if mine in self._idle:
                        self._idle.remove(mine)
                        return
                work = mine.get()  # it came at the last moment
            work()
            del work
            with self._lock:
                self._idle.append(mine)


_waiters = _Waiters()


class _End(Generic[T]):
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Connection(Protocol):
    """What the runtime's attach and exec connections have in common."""

    def read(self) -> tuple[str, bytes] | None: ...
    def write(self, data: bytes) -> None: ...
    def close_stdin(self) -> None: ...
    def resize(self, rows: int, columns: int) -> None: ...
    def wait(self) -> int: ...
    def detach(self) -> None: ...
    def close(self) -> None: ...


Chunk = tuple[Literal["stdout", "stderr"], bytes]
_AHEAD = 64  # chunks


class ThreadStream:
    """`engine.api.Stream` over a blocking connection: one thread reads ahead, at most 64 chunks, and then waits for the end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Chunk | None] = asyncio.Queue()
        self._room = threading.Semaphore(_AHEAD)
        self._code: asyncio.Future[int] = self._loop.create_future()
        self._closed = False
        _waiters.run(self._pump)

    def _pump(self) -> None:
        code, failure = None, None
        try:
            while (chunk := self._next()) is not None and not self._closed:
                self._loop.call_soon_threadsafe(self._queue.put_nowait, chunk)
                self._room.acquire()
            self._loop.call_soon_threadsafe(self._queue.put_nowait, None)
            try:
                code = self._connection.wait()
            except BaseException as error:
                failure = error
            self._loop.call_soon_threadsafe(self._ended, code, failure)
        except RuntimeError:  # the loop is closed
            return

    def _next(self) -> Chunk | None:
        try:
            return cast("Chunk | None", self._connection.read())
        except (OSError, ValueError):
            return None

    def _ended(self, code: int | None, failure: BaseException | None) -> None:
        _settle(self._code, code, failure)
        if failure is not None:
            self._code.exception()  # seen: nobody need ask

    async def read(self) -> Chunk | None:
        chunk = await self._queue.get()
        self._room.release()
        return chunk

    async def write(self, data: bytes) -> None:
        await on_thread(lambda: self._connection.write(data))

    async def close_stdin(self) -> None:
        await on_thread(self._connection.close_stdin)

    async def resize(self, rows: int, columns: int) -> None:
        await on_thread(lambda: self._connection.resize(rows, columns))

    async def detach(self) -> None:
        await on_thread(self._connection.detach)

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    async def close(self) -> None:
        self._closed = True
        self._room.release()
        self._connection.close()
