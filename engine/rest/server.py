"""Listening: unix sockets with Docker's rights, sockets that systemd hands over, TCP with mutual TLS alone."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from engine.api import Engine
from engine.base.tls_stream import TlsStream, feed
from engine.errors import Conflict, InvalidInput, from_os_error
from engine.rest.absent import AbsentRoutes
from engine.rest.archives import ArchiveRoutes
from engine.rest.build import BuildRoutes
from engine.rest.buildkit.routes import BuildkitRoutes
from engine.rest.calls import CallRoutes
from engine.rest.connection import HEAD_SECONDS, Connection, Reader, protocol
from engine.rest.containers import ContainerRoutes
from engine.rest.duplex import CHUNK
from engine.rest.execs import ExecRoutes
from engine.rest.http import Answer, Request, error_response
from engine.rest.images import ImageRoutes
from engine.rest.networks import NetworkRoutes
from engine.rest.registries import RegistryRoutes
from engine.rest.router import Router
from engine.rest.system import SystemRoutes
from engine.rest.transfers import TransferRoutes
from engine.rest.usage import UsageRoutes
from engine.rest.volumes import VolumeRoutes

MAX_CLIENTS = 2000
_BACKLOG = (
    4096  # connections that the kernel keeps until they are accepted; asyncio sets its own, 100, where none is named
)
_FIRST_PASSED = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. Clients must show a certificate that `ca` has signed: who reaches the API is root on this host."""

    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(self.ca)
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(
                f"TLS files of the API: {error}", hint="PEM files for --tlscacert, --tlscert, --tlskey"
            ) from None
        return context


def _build_router(engine: Engine, buildkit: BuildkitRoutes, scratch: Path | None) -> Router:
    """Every endpoint over `engine`; `scratch` is where build contexts are unpacked."""
    router = Router()
    for routes in (
        SystemRoutes,
        UsageRoutes,  # before the containers: /containers/prune is no container's name
        ContainerRoutes,
        ExecRoutes,
        ArchiveRoutes,
        RegistryRoutes,
        TransferRoutes,
        ImageRoutes,
        NetworkRoutes,
        VolumeRoutes,
        CallRoutes,
        AbsentRoutes,
    ):
        routes(engine, router)
    buildkit.add_to(router)
    BuildRoutes(engine, router, buildkit, scratch)
    return router


class ApiServer:
    """Serves one engine on any number of listening sockets until `close`."""

    def __init__(self, engine: Engine, *, scratch: Path | None = None) -> None:
        self._buildkit = BuildkitRoutes(engine, scratch)
        self._router = _build_router(engine, self._buildkit, scratch)
        self._servers: list[asyncio.Server] = []
        self._clients: set[asyncio.Task[None]] = set()
        self._paths: list[tuple[Path, int]] = []

    async def listen_unix(self, path: Path, *, group: str = "") -> None:
        """Listens at `path`: mode 0660, owned by `group` where that group exists (Docker's habit: "docker").

        Raises `Conflict` when something answers there already.
        """
        await self._free(path)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # Nobody may connect between bind and chmod: the socket is born without any rights (as go-connections).
            before = os.umask(0o777)
            try:
                sock.bind(str(path))
            finally:
                os.umask(before)
            gid = _group(group)
            if gid is not None:
                os.chown(path, -1, gid)
            sock.listen(_BACKLOG)
            os.chmod(path, 0o660)
        except OSError as error:
            sock.close()
            raise from_os_error(error, f"listening at {path}") from error
        self._paths.append((path, os.stat(path).st_ino))
        await self._serve(sock)

    async def _free(self, path: Path) -> None:
        """Takes a dead server's socket away."""
        if not path.is_socket():
            if path.exists():
                raise Conflict(f"{path} exists and is no socket", hint="choose another --socket")
            return
        try:
            _, writer = await asyncio.open_unix_connection(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
        writer.close()
        raise Conflict(f"an engine serves at {path} already", hint="stop it, or choose another --socket")

    async def listen_tcp(self, host: str, port: int, tls: Tls) -> None:
        context = tls.context()

        async def connected(plain: Reader, writer: asyncio.StreamWriter) -> None:
            # asyncio's own TLS would end the connection with the client's stdin.
            stream, reader = TlsStream(plain, writer, context, server_side=True), Reader(limit=CHUNK)
            try:
                async with asyncio.timeout(HEAD_SECONDS):
                    await stream.shake_hands()
            except (OSError, TimeoutError):  # ssl.SSLError is one: a client without a certificate of ours
                writer.close()
                return
            feeding = asyncio.create_task(feed(stream, reader))
            try:
                await self._connected(reader, cast(asyncio.StreamWriter, stream))
            finally:
                feeding.cancel()

        try:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(lambda: protocol(connected), host, port)
        except OSError as error:
            raise from_os_error(error, f"listening at {host}:{port}") from error
        self._servers.append(server)

    async def listen_passed(self) -> int:
        """Takes the sockets that systemd passes (socket activation); returns how many there were."""
        if os.environ.get("LISTEN_PID") != str(os.getpid()):
            return 0
        count = int(os.environ.get("LISTEN_FDS", "0"))
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):  # no child of ours takes them for its own
            os.environ.pop(name, None)
        for fd in range(_FIRST_PASSED, _FIRST_PASSED + count):
            sock = socket.socket(fileno=fd)
            if sock.family != socket.AF_UNIX:
                raise InvalidInput(
                    "systemd passed a socket that is no unix socket", hint="use ListenStream=/path in the unit"
                )
            sock.setblocking(False)
            await self._serve(sock)
        return count

    async def _serve(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        # From Python 3.13 on asyncio would take the socket's file away: one that systemd passed is systemd's.
        keep: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        self._servers.append(
            await loop.create_unix_server(lambda: protocol(self._connected), sock=sock, backlog=_BACKLOG, **keep)
        )

    @property
    def addresses(self) -> Sequence[str]:
        return [f"unix://{path}" for path, _ in self._paths]

    async def _connected(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # a callback of asyncio's server is a task
        if len(self._clients) >= MAX_CLIENTS:
            writer.close()
            return
        self._clients.add(task)
        try:
            await Connection(reader, writer, self._guarded).serve()
        except asyncio.CancelledError:
            writer.close()
        finally:
            self._clients.discard(task)

    async def _guarded(self, request: Request) -> Answer:
        """A page in a browser may reach a loopback port, never this API: it sends an Origin (CSRF, DNS rebinding).

        WebSocket clients send one, too; the endpoint for them looks at it itself.
        """
        if "origin" in request.headers and not request.path.endswith("/attach/ws"):
            return error_response(InvalidInput("requests from web pages are refused"), 403)
        return await self._router(request)

    async def idle(self, seconds: float) -> None:
        """Returns when there has been no client for so long."""
        last = time.monotonic()
        while (left := last + seconds - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 1.0))
            if self._clients:
                last = time.monotonic()

    async def close(self) -> None:
        """Stops listening and lets go of the clients. Containers go on."""
        for server in self._servers:
            server.close()
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await asyncio.to_thread(self._buildkit.close)
        for path, inode in self._paths:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == inode:
                    path.unlink()


def _group(name: str) -> int | None:
    try:
        return grp.getgrnam(name or "docker").gr_gid
    except KeyError:
        if name:
            raise InvalidInput(
                f"there is no group {name!r} on this host", hint=f"groupadd {name}, or leave --group out"
            ) from None
        return None
