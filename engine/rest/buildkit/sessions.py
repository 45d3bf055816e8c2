"""Clients that offer their files, secrets, agents and credentials while a build of theirs runs (moby/buildkit `session/`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from engine.errors import EngineError, InvalidInput, NotFound, Unavailable
from engine.rest.buildkit import messages, sending
from engine.rest.buildkit.channel import Channel, metadata
from engine.rest.buildkit.receiving import receive
from engine.rest.duplex import Duplex

_WAIT_SECONDS = 10.0  # a build may be asked for before its session is there


@contextlib.contextmanager
def _told(what: str) -> Any:
    """Errors of the client's, and of its going away, as ours."""
    try:
        yield
    except GRPCError as error:
        raise EngineError(f"{what}: {error.message or error.status.name}") from error
    except (StreamTerminatedError, ConnectionError) as error:
        raise Unavailable(f"{what}: the client went away") from error


class Session:
    """One client's offers. `shared_key` says which folder of which machine its files are of, or is empty."""

    def __init__(self, channel: Channel, shared_key: str) -> None:
        self._channel, self.shared_key = channel, shared_key

    async def files(
        self, name: str, folder: Path, *, only: list[str] | None = None, but: list[str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:  # fmt: skip
        """Makes `folder` what the client has under `name` ("context", "dockerfile"): of it `only` these paths, and not what the
        patterns `but` match. Returns the bytes that came. Raises `EngineError`."""
        fields = {"dir-name": [name]}
        if only is not None:
            fields["followpaths"] = only
        if but:
            fields["exclude-patterns"] = but
        call = self._channel.stream("/moby.filesync.v1.FileSync/DiffCopy", messages.Packet, messages.Packet)
        with _told(f"the client's files ({name})"):
            async with call.open(metadata=metadata(_encoded(fields))) as stream:
                await stream.send_request()
                return await receive(stream, folder, progress)

    async def upload(self, url_path: str, host: str) -> AsyncIterator[bytes]:
        """What the client sends for `http://HOST/PATH`: a context that came to it on stdin."""
        call = self._channel.stream("/moby.upload.v1.Upload/Pull", messages.BytesMessage, messages.BytesMessage)
        with _told("the context from the client's stdin"):
            async with call.open(metadata=metadata({"urlpath": [url_path], "urlhost": [host]})) as stream:
                await stream.send_request()
                await stream.end()
                async for message in stream:
                    yield message.data

    async def secret(self, identity: str) -> bytes | None:
        """None when the client has none of that name."""
        call = self._channel.unary(
            "/moby.buildkit.secrets.v1.Secrets/GetSecret", messages.SecretRequest, messages.SecretResponse
        )
        try:
            return bytes((await call(messages.SecretRequest(identity))).data)
        except GRPCError as error:
            if error.status in (Status.NOT_FOUND, Status.UNIMPLEMENTED):
                return None
            raise EngineError(f"secret {identity}: {error.message}") from error

    async def credentials(self, host: str) -> tuple[str, str]:
        """User and password for a registry, both empty without any; an identity token has no user."""
        call = self._channel.unary(
            "/moby.filesync.v1.Auth/Credentials", messages.CredentialsRequest, messages.CredentialsResponse
        )
        try:
            answer = await call(messages.CredentialsRequest(host))
        except GRPCError:
            return "", ""
        return answer.username, answer.secret

    async def has_agent(self, identity: str) -> bool:
        call = self._channel.unary("/moby.sshforward.v1.SSH/CheckAgent", messages.CheckAgentRequest, messages.Empty)
        try:
            await call(messages.CheckAgentRequest(identity))
        except GRPCError:
            return False
        return True

    @contextlib.asynccontextmanager
    async def agent(self, identity: str, path: Path) -> AsyncIterator[None]:
        """The client's SSH agent behind a socket at `path`, while the context lasts."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(GRPCError, StreamTerminatedError, OSError):
                await self._forward(identity, reader, writer)
            writer.close()

        server = await asyncio.start_unix_server(connected, path)
        os.chmod(path, 0o600)
        try:
            yield
        finally:
            server.close()

    async def _forward(self, identity: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = self._channel.stream(
            "/moby.sshforward.v1.SSH/ForwardAgent", messages.BytesMessage, messages.BytesMessage
        )
        async with call.open(metadata=metadata({"buildkit.ssh.id": [identity]})) as stream:
            await stream.send_request()

            async def up() -> None:
                while data := await reader.read(32 << 10):
                    await stream.send_message(messages.BytesMessage(data))
                await stream.end()

            sending_up = asyncio.create_task(up())
            try:
                async for message in stream:
                    writer.write(message.data)
                    await writer.drain()
            finally:
                sending_up.cancel()

    async def give(self, number: int, path: Path) -> None:
        """A result for the client's output `number`: a file, or a folder's tree. Raises `EngineError`."""
        folder = path.is_dir()
        kind = messages.Packet if folder else messages.BytesMessage
        call = self._channel.stream("/moby.filesync.v1.FileSend/DiffCopy", kind, kind)
        fields = {"buildkit-attachable-exporter-id": [str(number)]}
        with _told("sending the result to the client"):
            async with call.open(metadata=metadata(fields)) as stream:
                await stream.send_request()
                await (sending.send_folder(stream, path) if folder else sending.send_file(stream, path))


def _encoded(fields: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Metadata is ASCII (`encodeStringForHeader` of moby/buildkit's filesync): what is not is quoted, and said to be."""
    encoded = dict(fields)
    for name, values in fields.items():
        if not all(value.isascii() and value.isprintable() for value in values):
            encoded[name] = [quote(value, safe="") for value in values]
            encoded[name + "-encoded"] = ["1"]
    return encoded


class Sessions:
    """The clients that are there, by the id that they gave themselves."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._changed = asyncio.Event()

    async def attend(self, identity: str, shared_key: str, duplex: Duplex) -> None:
        """Keeps a client's session until it leaves. `shared_key` is the same for each build of a folder."""
        channel = Channel(duplex)
        session = Session(channel, shared_key)
        self._sessions[identity] = session
        self._changed.set()
        try:
            await channel.run()
        finally:
            if self._sessions.get(identity) is session:
                del self._sessions[identity]
            channel.close()

    async def find(self, identity: str) -> Session:
        """Waits a moment for a session that is announced. Raises `InvalidInput`, `NotFound`."""
        identity = identity.rpartition(":")[2]
        if not identity:
            raise InvalidInput("the build names no session to take its files from")
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                while identity not in self._sessions:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise NotFound(f"no active session for {identity}") from None
        return self._sessions[identity]
