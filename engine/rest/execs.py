"""The API's execs: made, started once, looked at afterwards. The server remembers them while it runs, the last 1,000 ended ones."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any

from engine.api import Engine, ExecSpec, Stream
from engine.base.keys import DETACH_KEYS, parse_keys
from engine.errors import Conflict, EngineError, InvalidInput, NotFound, StartFailed
from engine.rest.containers import size_of
from engine.rest.duplex import Duplex
from engine.rest.http import Answer, Hijack, Request, Response, json_response
from engine.rest.router import Router
from engine.rest.streams import MULTIPLEXED, RAW, converse, multiplex, raw
from engine.service.wire import Fields

KEPT = 1000


@dataclass(slots=True)
class _Exec:
    id: str
    container: str
    spec: ExecSpec
    attach: tuple[bool, bool, bool]
    keys: bytes = b""
    keys_text: str = ""
    running: bool = False
    exit_code: int | None = None
    stream: Stream | None = None
    size: tuple[int, int] = (0, 0)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class ExecRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        self._execs: dict[str, _Exec] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        router.add("POST", "/containers/{name}/exec", self.create)
        router.add("POST", "/exec/{id}/start", self.start, keep=False)
        router.add("POST", "/exec/{id}/resize", self.resize)
        router.add("GET", "/exec/{id}/json", self.inspect)

    def _get(self, request: Request) -> _Exec:
        found = self._execs.get(request.params["id"])
        if found is None:
            raise NotFound(f"No such exec instance: {request.params['id']}")
        return found

    async def create(self, request: Request) -> Answer:
        body = Fields(await request.json())
        command = body.words("Cmd")
        if not command:
            raise InvalidInput("No exec command specified")
        container = await self._runs(request.params["name"])
        keys = parse_keys(body.text("DetachKeys") or DETACH_KEYS)
        attach = (body.flag("AttachStdin"), body.flag("AttachStdout"), body.flag("AttachStderr"))
        spec = ExecSpec(
            command,
            body.texts("Env"),
            body.text("User") or None,
            body.text("WorkingDir") or None,
            body.flag("Tty"),
            attach[0],
            body.flag("Privileged"),
        )
        found = _Exec(secrets.token_hex(32), container, spec, attach, keys, body.text("DetachKeys"))
        self._execs[found.id] = found
        self._forget()
        return json_response({"Id": found.id}, 201)

    def _forget(self) -> None:
        ended = [key for key, found in self._execs.items() if found.ended.is_set()]
        for key in ended[: max(0, len(ended) - KEPT)]:
            del self._execs[key]

    async def start(self, request: Request) -> Answer:
        """The head goes out before the process starts, so what keeps it from starting is written to the stream, as in Docker."""
        body = Fields(await request.json())
        found = self._get(request)
        if found.running or found.ended.is_set():
            raise Conflict(f"Error: Exec command {found.id} has already run")
        await self._runs(found.container)
        size = body.raw("ConsoleSize")
        if isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and 0 <= n <= 65535 for n in size):
            found.size = (size[0], size[1])
        found.running = True
        if body.flag("Detach"):
            self._background(found, await self._begin(found))
            return Response(200, b"", "text/plain; charset=utf-8")
        tty = body.flag("Tty")  # how the client reads: it need not be what the process has
        encode = raw if tty else multiplex
        wanted = frozenset(name for name, on in zip(("stdout", "stderr"), found.attach[1:], strict=True) if on)

        async def run(duplex: Duplex) -> None:
            try:
                stream = await self._begin(found)
            except EngineError as error:
                await duplex.write(encode("stdout", f"{error}\r\n".encode()))
                return
            keys = found.keys if found.spec.tty else b""
            parting = await converse(duplex, stream, encode, stdin=found.attach[0], wanted=wanted, keys=keys)
            if parting == "ended":
                await self._end(found, stream)
            else:
                self._background(found, stream)

        return Hijack(run, RAW if tty or request.version < (1, 42) else MULTIPLEXED)

    async def _runs(self, name: str) -> str:
        """The container's id. Raises `Conflict` unless it runs."""
        container = await self._engine.container_summary(name)
        if container.status == "paused":
            raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
        if container.status != "running":
            raise Conflict(f"Container {container.id} is not running")
        return container.id

    async def _begin(self, found: _Exec) -> Stream:
        try:
            stream = await self._engine.exec(found.container, found.spec)
        except EngineError as error:
            found.running, found.exit_code = False, _code(error)
            found.ended.set()
            if isinstance(error, StartFailed):
                raise InvalidInput(f"OCI runtime exec failed: {error}", hint=error.hint) from error
            raise
        found.stream = stream
        if any(found.size) and found.spec.tty:
            await stream.resize(*found.size)
        return stream

    def _background(self, found: _Exec, stream: Stream) -> None:
        async def drain() -> None:
            while await stream.read() is not None:
                pass
            await self._end(found, stream)

        task = asyncio.ensure_future(drain())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, found: _Exec, stream: Stream) -> None:
        """The exit code is known before the client sees the end of the stream: it asks at once."""
        try:
            found.exit_code = await stream.wait()
        except EngineError:
            found.exit_code = None
        found.running, found.stream = False, None
        found.ended.set()
        await stream.close()

    async def resize(self, request: Request) -> Answer:
        found = self._get(request)
        found.size = size_of(request.query)
        if found.stream is not None:
            await found.stream.resize(*found.size)
        return Response(200, b"", "text/plain; charset=utf-8")

    async def inspect(self, request: Request) -> Answer:
        found = self._get(request)
        spec = found.spec
        document: dict[str, Any] = {
            "ID": found.id,
            "Running": found.running,
            "ExitCode": found.exit_code,
            "ProcessConfig": {
                "tty": spec.tty,
                "entrypoint": spec.command[0],
                "arguments": list(spec.command[1:]),
                "privileged": spec.privileged,
                **({"user": spec.user} if spec.user else {}),
            },
            "OpenStdin": found.attach[0],
            "OpenStdout": found.attach[1],
            "OpenStderr": found.attach[2],
            "CanRemove": found.ended.is_set(),
            "ContainerID": found.container,
            "DetachKeys": found.keys_text,
            "Pid": 0,
        }
        return json_response(document)


def _code(error: EngineError) -> int:
    """127 where there is no such program; whatever else keeps it from starting is 126, as in Docker."""
    return 127 if getattr(error, "exit_code", 126) == 127 else 126
