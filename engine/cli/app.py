"""The one door from the command line to the Textual app."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli.common import here
from engine.errors import InvalidInput, NotFound, Unsupported

if TYPE_CHECKING:
    from engine.api import BuildRequest, ContainerSpec, Engine, LoopEvent
    from engine.cli.flags import Parsed
    from engine.project.generations import Generation
    from engine.project.loop import InnerLoop
    from engine.project.model import Project

_LOOK = 0.05  # seconds between two looks whether a swap is over
TURN = 0.001  # seconds that a thread of the engine may keep the interpreter while a key waits for it


class ProjectHandle:
    """A project's inner loop and its generations, in one (`workbench.bridge.LoopHandle`)."""

    def __init__(self, engine: Engine, project: Project, state_dir: Path, loop: InnerLoop) -> None:
        from engine.project.rollback import Keeper

        self._keeper, self._loop = Keeper(engine, project, state_dir), loop
        self._folder = state_dir / project.name

    def events(self) -> AsyncIterator[LoopEvent]:
        return self._loop.events()

    async def rebuild(self, service: str | None = None) -> None:
        await self._loop.rebuild(service)

    def request(self, service: str) -> BuildRequest | None:
        return self._loop.request(service)

    def generations(self, service: str) -> tuple[Sequence[Generation], int]:
        listed = self._keeper.generations(service)
        return listed.generations, listed.current

    async def rollback(self, service: str, number: int) -> None:
        await self._swap_over(service)
        await self._keeper.rollback(service, number)

    async def _swap_over(self, service: str) -> None:
        """Waits until the loop of this very process swaps nothing: flock(2) would stop it, and itself with it, otherwise."""
        from engine.base.atomic import locked

        while True:
            try:
                with locked(self._folder / f"{service}.swap.lock", blocking=False):
                    return
            except BlockingIOError:
                await asyncio.sleep(_LOOK)
            except FileNotFoundError:  # nothing of it ever ran
                return

    async def close(self) -> None:
        await self._loop.close()


class CommandDesk:
    """The app's engine and project (`workbench.desk.Desk`), opened when it asks for them: behind its first frame."""

    def __init__(self, root: Path, folder: Path, *, serve: bool = False) -> None:
        self._root, self._folder, self._serve = root, folder, serve
        self._undo = contextlib.AsyncExitStack()

    @property
    def title(self) -> str:
        return self._folder.absolute().name

    @property
    def place(self) -> str:
        return f"{os.environ.get('WORKBENCH_HOST') or self._root}:{self._folder.absolute()}"

    async def open(self, *, read_only: bool = False) -> tuple[Engine, ProjectHandle | None]:
        """The imports alone take longer than the first frame, so they are done on another thread."""
        opened, discover, make_loop, state = await asyncio.to_thread(_imports)
        engine: Engine = await self._undo.enter_async_context(opened(self._root))
        if (draws := getattr(engine, "draws", None)) is not None:  # the engine in this process
            draws()
        if self._serve:
            await self._listen(engine)
        try:
            project = await asyncio.to_thread(discover, self._folder)
        except NotFound:
            return engine, None
        reload = functools.partial(discover, self._folder)
        loop = make_loop(engine, project, state(self._root), reload=reload, show_only=read_only)
        handle = ProjectHandle(engine, project, state(self._root), loop)
        self._undo.push_async_callback(handle.close)
        return engine, handle

    async def _listen(self, engine: Engine) -> None:
        """The app's own engine for other clients. Raises `Conflict` where `workbench serve` runs already."""
        from engine.rest.server import ApiServer
        from engine.runtime.places import runtime_dir

        server = ApiServer(engine, scratch=self._root / "tmp")
        self._undo.push_async_callback(server.close)
        await server.listen_unix(runtime_dir(self._root) / "api.sock")

    async def close(self) -> None:
        await self._undo.aclose()

    async def document(self, engine: Engine, kind: str, name: str) -> Mapping[str, object]:
        from engine.cli.inspect import document

        return await document(engine, name, kind)

    def run_spec(self, words: Sequence[str]) -> ContainerSpec:
        from engine.cli.flags import parse
        from engine.cli.run import RUN_FLAGS, container_spec

        return container_spec(parse(list(words), RUN_FLAGS, "run", stop_at_argument=True))


def _imports():  # type: ignore[no-untyped-def]
    if os.environ.get("WORKBENCH_HOST"):
        import engine.remote
    else:
        import engine.local  # noqa: F401
    from engine.cli.common import opened
    from engine.cli.project_flags import state_dir
    from engine.project.discovery import discover
    from engine.project.loop import InnerLoop

    return opened, discover, InnerLoop, state_dir


def run_app(root: Path, folder: Path, parsed: Parsed) -> int:
    """`parsed` has APP_FLAGS. Raises `Unsupported` without a terminal, `InvalidInput` for a name that is none, and what opening
    the engine or reading the project raises."""
    _need_terminal()
    if parsed.on("serve"):
        here("--serve")
    if os.environ.get("SSH_TTY") or os.environ.get("SSH_CONNECTION"):
        os.environ.setdefault("TEXTUAL_FPS", "30")  # each frame is a packet; read when Textual is imported
    gc.disable()  # what is imported stays; `workbench.garbage` puts it out of the collector's sight and goes on behind the first frame
    from workbench import keymaps, themes
    from workbench.app import WorkbenchApp

    for name, known in (("keymap", keymaps.NAMES), ("theme", themes.NAMES)):
        if parsed.given(name) and parsed.text(name) not in known:
            raise InvalidInput(f"there is no {name} {parsed.text(name)!r}", hint=f"{name}s: {', '.join(known)}")

    sys.setswitchinterval(TURN)
    # Textual draws on what it finds there, and `workbench 2>errors` sends that elsewhere.
    sys.__stderr__ = sys.__stdout__  # type: ignore[misc]

    async def main() -> int:
        desk = CommandDesk(root, folder, serve=parsed.on("serve"))
        app = WorkbenchApp(
            desk=desk, read_only=parsed.on("read-only"), keymap=parsed.text("keymap"), theme=parsed.text("theme")
        )
        try:
            await app.run_async()
        finally:
            await desk.close()
        if app.failure is not None:
            raise app.failure
        return app.return_code or 0

    status = asyncio.run(main())
    if status == 0:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print("the containers go on; `workbench ps` shows them", file=sys.stderr)
    return status


def _need_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Unsupported(
            "the app needs a terminal", hint="over ssh use `ssh -t`; without one, `workbench up` does the same in lines"
        )
    term = os.environ.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        raise Unsupported(
            f"a terminal of type {term or 'unknown'} cannot show the app",
            hint="`workbench up` does the same in lines; or name the type: TERM=xterm-256color workbench",
        )
