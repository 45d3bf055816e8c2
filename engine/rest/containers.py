"""The API's containers: their life, their output, what is asked of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from engine.api import ContainerDetail, ContainerSummary, Engine, LogRecord, Stream
from engine.base.clock import parse_rfc3339
from engine.base.keys import DETACH_KEYS, parse_keys
from engine.errors import Conflict, EngineError, InvalidInput, NotFound, Unsupported
from engine.model import Port
from engine.rest.duplex import Duplex
from engine.rest.http import Answer, Hijack, Query, Request, Response, encoded, json_response
from engine.rest.router import Router
from engine.rest.rows import Rows, list_response
from engine.rest.streams import MULTIPLEXED, RAW, Channel, Encode, converse, multiplex, raw
from engine.rest.websocket import WebSocket, accept, same_origin
from engine.service import container_filters
from engine.service.describe import status_text
from engine.service.network_modes import shown_mode
from engine.service.wire import container_spec

_KILL_SECONDS = 10.0


class ContainerRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        self._rows = Rows(_row)
        self._waiting: dict[str, list[asyncio.Future[Stream]]] = {}  # attached before the start, by container id
        add = router.add
        add("GET", "/containers/json", self.list)
        add("POST", "/containers/create", self.create)
        add("GET", "/containers/{name}/json", self.inspect)
        add("POST", "/containers/{name}/start", self.start)
        add("POST", "/containers/{name}/stop", self.stop)
        add("POST", "/containers/{name}/restart", self.restart)
        add("POST", "/containers/{name}/kill", self.kill)
        add("POST", "/containers/{name}/pause", self.pause)
        add("POST", "/containers/{name}/unpause", self.unpause)
        add("POST", "/containers/{name}/rename", self.rename)
        add("POST", "/containers/{name}/resize", self.resize)
        add("POST", "/containers/{name}/wait", self.wait, keep=False)
        add("POST", "/containers/{name}/attach", self.attach, keep=False)
        add("GET", "/containers/{name}/attach/ws", self.attach_websocket)
        add("GET", "/containers/{name}/logs", self.logs)
        add("DELETE", "/containers/{name*}", self.remove)  # with a slash: a link

    # --- find -------------------------------------------------------------------------------------------

    async def list(self, request: Request) -> Answer:
        query = request.query
        filters, limit = query.filters(), query.number("limit", -1) or -1
        everything = query.flag("all") or limit > 0 or container_filters.everything(filters)
        found = await self._engine.containers(all=True)
        wanted = container_filters.containers(found, filters)
        shown = [container for container in wanted if everything or container.running]
        shown = shown[:limit] if limit > 0 else shown
        self._rows.keep(container.id for container in found)
        sizes = await self._sizes() if query.flag("size") else {}
        return list_response(self._row(container, sizes.get(container.id)) for container in shown)

    def _row(self, container: ContainerSummary, sizes: Mapping[str, int] | None) -> bytes:
        """Its status is told anew each time: it holds how long ago something was."""
        begin, end = self._rows.of(container.id, container)
        status = b'"Status": ' + encoded(status_text(container))
        return begin + status + (b", " + encoded(sizes)[1:-1] if sizes else b"") + end

    async def _sizes(self) -> dict[str, dict[str, int]]:
        """SizeRw and SizeRootFs of each container: what it wrote, and that with its image's."""
        usage = await self._engine.disk_usage()
        images = {entry.image.id: entry.image.size for entry in usage.images}
        return {
            container.id: {
                **({"SizeRw": size} if size else {}),  # Docker leaves a zero out of its list
                "SizeRootFs": size + images.get(container.image_id, 0),
            }
            for container, size in usage.containers
        }

    async def inspect(self, request: Request) -> Answer:
        config = (await self._engine.container(request.params["name"])).config
        if request.query.flag("size"):
            config = {**config, "SizeRw": 0, **(await self._sizes()).get(str(config["Id"]), {})}
        return json_response(config)

    async def _id(self, name: str) -> str:
        return (await self._engine.container_summary(name)).id

    # --- life -------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Answer:
        query = request.query
        spec = container_spec(await request.json(), query.text("name").lstrip("/"), query.text("platform"))
        try:
            container_id = await self._engine.create(spec)
        except NotFound as error:
            if await self._has(spec.image):
                if spec.platform:
                    raise
                # A network or another container is missing: a 404 would have the client pull the image.
                raise InvalidInput(str(error), hint=error.hint) from error
            # The words make `docker run` pull the image and try again.
            raise NotFound(f"No such image: {spec.image}", hint=error.hint) from error
        asks = (
            spec.port_bindings or spec.publish_all or spec.blkio_weight or spec.oom_kill_disable
        )  # else there is nothing to warn of yet
        warnings = (await self._engine.container_summary(container_id)).warnings if asks else ()
        return json_response({"Id": container_id, "Warnings": list(warnings)}, 201)

    async def _has(self, image: str) -> bool:
        try:
            await self._engine.image(image)
        except NotFound:
            return False
        return True

    async def start(self, request: Request) -> Answer:
        found = await self._engine.container_summary(request.params["name"])
        container_id = found.id
        if found.running:
            return Response(304)
        waiting = self._waiting.pop(container_id, [])
        if not waiting:
            await self._engine.start(container_id)
            return Response(204)
        try:
            first = await self._engine.start_attached(container_id)
        except BaseException as error:
            for future in waiting:
                if not future.done():
                    future.set_exception(error if isinstance(error, EngineError) else Conflict(str(error)))
                    future.exception()
            raise
        for number, future in enumerate(waiting):
            if not future.done():
                future.set_result(first if number == 0 else await self._engine.attach(container_id))
            elif number == 0:
                await first.close()
        return Response(204)

    async def stop(self, request: Request) -> Answer:
        if not (await self._engine.container_summary(request.params["name"])).running:
            return Response(304)
        await self._engine.stop(
            request.params["name"], timeout=request.query.number("t"), signal=request.query.text("signal")
        )
        return Response(204)

    async def restart(self, request: Request) -> Answer:
        await self._engine.restart(
            request.params["name"], timeout=request.query.number("t"), signal=request.query.text("signal")
        )
        return Response(204)

    async def kill(self, request: Request) -> Answer:
        name, signal = request.params["name"], request.query.text("signal") or "KILL"
        await self._engine.kill(name, signal)
        if signal.upper().removeprefix("SIG") in ("KILL", "9"):  # Docker answers when it has ended
            with contextlib.suppress(NotFound, TimeoutError):
                async with asyncio.timeout(_KILL_SECONDS):
                    await self._engine.wait(name)
        return Response(204)

    async def pause(self, request: Request) -> Answer:
        await self._engine.pause(request.params["name"])
        return Response(204)

    async def unpause(self, request: Request) -> Answer:
        await self._engine.unpause(request.params["name"])
        return Response(204)

    async def rename(self, request: Request) -> Answer:
        await self._engine.rename(request.params["name"], request.query.text("name").lstrip("/"))
        return Response(204)

    async def resize(self, request: Request) -> Answer:
        rows, columns = size_of(request.query)
        await self._engine.resize(request.params["name"], rows, columns)
        return Response(200, b"", "text/plain; charset=utf-8")

    async def remove(self, request: Request) -> Answer:
        query = request.query
        await self._engine.remove(
            request.params["name"], force=query.flag("force"), volumes=query.flag("v"), link=query.flag("link")
        )
        return Response(204)

    async def wait(self, request: Request) -> Answer:
        """The head goes out at once, so that a client may start the container after it waits for its end."""
        condition = request.query.text("condition") or "not-running"
        if condition not in ("not-running", "next-exit", "removed"):
            raise InvalidInput(f"invalid condition: {condition!r}")
        container_id = await self._id(request.params["name"])
        waiting = asyncio.ensure_future(self._engine.wait(container_id, condition=condition))  # type: ignore[arg-type]
        await asyncio.sleep(0)  # it begins to look before the head is out
        return Response(200, _waited(waiting))

    # --- streams ----------------------------------------------------------------------------------------

    async def attach(self, request: Request) -> Answer:
        query = request.query
        detail = await self._attachable(request)
        parse_keys(query.text("detachKeys"))
        if not (query.flag("stream") or query.flag("logs")):
            return Response(200, b"", RAW)
        encode, kind = _form(tty=detail.spec.tty, version=request.version)
        return Hijack(await self._session(query, detail, encode), kind)

    async def attach_websocket(self, request: Request) -> Answer:
        """The same over WebSocket, as the bytes come; messages are binary from API 1.28 on."""
        same_origin(request.headers)
        headers = accept(request.headers)
        detail = await self._attachable(request)
        talk = await self._session(request.query, detail, raw)

        async def run(duplex: Duplex) -> None:
            socket = WebSocket(duplex, text=request.version < (1, 28))
            await talk(socket)
            await socket.close()

        return Hijack(run, upgrade="websocket", headers=headers)

    async def _attachable(self, request: Request) -> ContainerDetail:
        """Raises `NotFound`, `Conflict`."""
        detail = await self._engine.container(request.params["name"])
        for status, advice in (("paused", "unpause the container before attach"), ("restarting", "wait until it runs")):
            if detail.summary.status == status:
                raise Conflict(f"Container {detail.summary.id} is {status}, {advice}")
        return detail

    async def _session(
        self, query: Query, detail: ContainerDetail, encode: Encode
    ) -> Callable[[Channel], Awaitable[None]]:
        """What goes on between a client and the container from now on, over any kind of connection. Raises `InvalidInput`."""
        wanted = frozenset(name for name in ("stdout", "stderr") if query.flag(name))
        stdin = query.flag("stdin") and detail.spec.open_stdin
        keys = parse_keys(query.text("detachKeys") or DETACH_KEYS)
        if not detail.spec.tty:
            keys = b""
        stream = await self._attached(detail.summary, stdin=stdin) if query.flag("stream") else None

        async def talk(channel: Channel) -> None:
            if query.flag("logs"):
                async for records in self._engine.log_records(detail.summary.id):
                    for record in records:
                        if record.stream in wanted:
                            await channel.write(encode(record.stream, _bytes(record)))
            if stream is None:
                return
            try:
                with contextlib.suppress(EngineError):  # it did not start: the client hears so from its start
                    joined = await _started(stream, channel)
                    if joined is None:
                        return
                    if await converse(channel, joined, encode, stdin=stdin, wanted=wanted, keys=keys) == "detached":
                        await joined.detach()
            finally:
                self._forget(detail.summary.id, stream)
                await _let_go(stream)

        return talk

    def _forget(self, container_id: str, stream: asyncio.Future[Stream]) -> None:
        """A client that left before the start waits for it no longer."""
        left = [one for one in self._waiting.get(container_id, []) if one is not stream]
        if left:
            self._waiting[container_id] = left
        else:
            self._waiting.pop(container_id, None)

    async def _attached(self, container: ContainerSummary, *, stdin: bool) -> asyncio.Future[Stream]:
        """The container's streams: now, or from the first byte on when it starts."""
        future: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
        if container.running:
            future.set_result(await self._engine.attach(container.id, stdin=stdin))
        else:
            self._waiting.setdefault(container.id, []).append(future)
        return future

    async def logs(self, request: Request) -> Answer:
        query = request.query
        detail = await self._engine.container(request.params["name"])
        wanted = frozenset(name for name in ("stdout", "stderr") if query.flag(name))
        if not wanted:
            raise InvalidInput("Bad parameters: you must choose at least one stream")
        text = query.text("tail", "all")
        tail = int(text) if text.isdigit() else None
        if detail.spec.log_config.type == "none":  # said before the answer has begun
            raise Unsupported("configured logging driver does not support reading")
        records = self._engine.log_records(
            detail.summary.id,
            follow=query.flag("follow"),
            tail=tail,
            since=moment(query.text("since")),
            until=moment(query.text("until")),
        )
        encode, kind = _form(tty=detail.spec.tty, version=request.version)
        body = _logged(records, wanted, encode, stamps=query.flag("timestamps"), details=query.flag("details"))
        return Response(200, body, kind)


def _row(container: ContainerSummary) -> tuple[bytes, bytes]:
    """The JSON in front of what changes with time, and behind it."""
    begin = {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": container.image,
        "ImageID": container.image_id,
        "Command": container.command,
        "Created": container.created // 1_000_000_000,
        "Ports": [_port(port) for port in container.published],
        "Labels": dict(container.labels),
        "State": container.status,
    }
    end = {
        "HostConfig": {"NetworkMode": shown_mode(container.network_mode)},
        "NetworkSettings": {"Networks": {name: dict(values) for name, values in container.networks.items()}},
        "Mounts": [dict(mount) for mount in container.mounts],
    }
    return encoded(begin)[:-1] + b", ", b", " + encoded(end)[1:]


def container_row(container: ContainerSummary) -> dict[str, Any]:
    """A row of the list, without sizes."""
    begin, end = _row(container)
    status = b'"Status": ' + encoded(status_text(container))
    return dict(json.loads(begin + status + end))


async def _waited(waiting: asyncio.Future[int]) -> AsyncIterator[bytes]:
    yield b""
    try:
        document: dict[str, Any] = {"StatusCode": await waiting}
    except EngineError as error:
        document = {"StatusCode": -1, "Error": {"Message": str(error)}}
    finally:
        waiting.cancel()
    yield json.dumps(document).encode() + b"\n"


async def _started(stream: asyncio.Future[Stream], channel: Channel) -> Stream | None:
    """The container's streams, once it has started; None when the client leaves before."""
    if not stream.done():
        gone = asyncio.ensure_future(channel.gone())
        try:
            await asyncio.wait((stream, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
    return await stream if stream.done() else None


async def _let_go(stream: asyncio.Future[Stream]) -> None:
    if stream.done() and not stream.cancelled() and stream.exception() is None:
        await stream.result().close()
    stream.cancel()


async def _logged(
    batches: AsyncIterator[Sequence[LogRecord]], wanted: frozenset[str], encode: Encode, *, stamps: bool, details: bool
) -> AsyncIterator[bytes]:
    fresh = {"stdout": True, "stderr": True}
    try:
        async for records in batches:
            out = []
            for record in records:
                # A rule of the inner loop belongs to no stream of the program.
                if record.stream not in wanted:
                    continue
                data = _bytes(record)
                if stamps or details:
                    if fresh[record.stream]:
                        attributes = ",".join(f"{k}={v}" for k, v in sorted(record.attributes.items()))
                        prefix = f"{record.stamp} " if stamps else ""
                        prefix += f"{attributes} " if details else ""
                        data = prefix.encode() + data
                    fresh[record.stream] = record.text.endswith("\n")
                out.append(encode(record.stream, data))
            yield b"".join(out)
    finally:
        close = getattr(batches, "aclose", None)
        if close is not None:
            await close()


def _bytes(record: LogRecord) -> bytes:
    return record.text.encode("utf-8", "surrogateescape")


def _form(*, tty: bool, version: tuple[int, int]) -> tuple[Encode, str]:
    """How output is sent, and the content type that says so; API 1.42 is the first that tells the two apart."""
    if tty:
        return raw, RAW
    return multiplex, MULTIPLEXED if version >= (1, 42) else RAW


def size_of(query: Query) -> tuple[int, int]:
    """Rows and columns of `h` and `w`. Raises `InvalidInput` outside a terminal's range."""
    rows, columns = query.number("h"), query.number("w")
    if rows is None or columns is None or not (0 <= rows <= 65535 and 0 <= columns <= 65535):
        raise InvalidInput("h and w are needed: a terminal's rows and columns")
    return rows, columns


def moment(text: str) -> int:
    """Nanoseconds since the epoch of `1763900000.123456789` or an RFC 3339 time; 0 for nothing. Raises `InvalidInput`."""
    if not text or text == "0":
        return 0
    seconds, _, fraction = text.partition(".")
    if seconds.lstrip("-").isdigit() and (not fraction or fraction.isdigit()):
        return int(seconds) * 1_000_000_000 + int((fraction + "000000000")[:9])
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise InvalidInput(f"{text!r} is not a time", hint="seconds since the epoch, or RFC 3339") from None


def _port(port: Port) -> dict[str, Any]:
    row: dict[str, Any] = {"PrivatePort": port.private_port, "Type": port.type}
    if port.public_port:
        row |= {"IP": port.ip, "PublicPort": port.public_port}
    return row
