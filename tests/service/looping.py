"""An inner loop on a project in a temporary folder, its events kept, and what a test asks of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from engine.api import ExecSpec, LoopEvent, ServiceState
from engine.local import LocalEngine
from engine.project.discovery import discover
from engine.project.loop import InnerLoop
from tests.patience import PATIENCE, until

E = TypeVar("E")
# A program that goes on printing its word's changes, stops when it is asked to, and needs no shell.
PROGRAM = """import signal, sys, time
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
print({word!r}, flush=True)
while True: time.sleep(1000)
"""
# Answers every connection with its word.
SERVER = """import signal, socket, sys
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
sock = socket.create_server(("", 8000))
print({word!r}, flush=True)
while True:
    client, _ = sock.accept()
    client.sendall({word!r}.encode())
    client.close()
"""


class Looping:
    def __init__(self, engine: LocalEngine, folder: Path, state: Path, **options: Any) -> None:
        self.engine, self.folder = engine, folder
        self.loop = InnerLoop(engine, discover(folder), state, **options)
        self.seen: list[LoopEvent] = []
        self._at = 0
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.loop.events():
            self.seen.append(event)
            self._arrived.set()

    async def until(self, kind: type[E], wanted: Callable[[E], bool] = lambda _: True) -> E:
        """The next event of this kind, from where the last call stopped."""
        try:
            return await asyncio.wait_for(self._until(kind, wanted), PATIENCE)
        except TimeoutError:
            worker = self.loop._services.get("app")
            left = (worker._pending, worker._unsettled, worker._job) if worker else ""
            raise AssertionError(
                f"no {kind.__name__} in {PATIENCE:.0f} s; last: {self.seen[-12:]}; left: {left}"
            ) from None

    async def _until(self, kind: type[E], wanted: Callable[[E], bool]) -> E:
        while True:
            while self._at < len(self.seen):
                self._at += 1
                event = self.seen[self._at - 1]
                if isinstance(event, kind) and wanted(event):
                    return event
            if self._task.done():
                self._task.result()
                raise AssertionError(f"the loop ended: {self.seen}")
            self._arrived.clear()
            await self._arrived.wait()

    async def becomes(self, what: Callable[[], object]) -> None:
        """Waits until it is so, or the loop has ended with an error."""
        await until(lambda: what() or self._task.done())
        if self._task.done():
            self._task.result()

    async def running(self, service: str = "app") -> ServiceState:
        return await self.until(ServiceState, lambda e: e.service == service and e.phase == "running")

    def save(self, name: str, text: str | None) -> Path:
        """Writes (None: removes) a file and tells of it."""
        path = self.folder / name
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.loop.changed([path])
        return path

    async def inside(self, container: str, *command: str) -> str:
        stream = await self.engine.exec(container, ExecSpec(command))
        text = b""
        while chunk := await stream.read():
            text += chunk[1]
        await stream.wait()
        await stream.close()
        return text.decode()

    async def log(self, container: str) -> list[tuple[str, str]]:
        return [(line.stream, line.text) async for line in self.engine.logs(container)]


@contextlib.asynccontextmanager
async def looping(engine: LocalEngine, folder: Path, files: dict[str, str], **options: Any) -> AsyncIterator[Looping]:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    made = Looping(engine, folder, engine.root / "projects", **options)
    try:
        yield made
    finally:
        await made.loop.close()
        made._task.cancel()
        await asyncio.gather(made._task, return_exceptions=True)
        for container in await engine.containers(all=True):
            if container.name.startswith(folder.name):
                await engine.remove(container.id, force=True)
        for network in await engine.networks():
            if network.name.startswith(folder.name):
                await engine.remove_network(network.name)
