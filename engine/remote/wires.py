"""Connections to an engine: a unix socket, TCP, TCP with TLS, or `dial-stdio` at the other end of the system's ssh.

All of them carry bytes both ways and can close one way alone: `printf x | workbench exec -i …` needs the answer after its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import socket
import ssl
from typing import Protocol

from engine.base.tls_stream import TlsStream
from engine.errors import InvalidInput, Unauthorized, Unavailable
from engine.remote.hosts import ENGINES, Target, TlsFiles

CHUNK = 256 << 10
CONNECT_SECONDS = 30.0
_LIMIT = 1 << 18


class Wire(Protocol):
    """Raises `OSError` where the connection breaks."""

    async def read(self, size: int = CHUNK) -> bytes:
        """b"" at the end."""

    async def write(self, data: bytes) -> None: ...

    async def write_eof(self) -> None:
        """No more comes from us; what the other side says is still read."""

    async def close(self) -> None: ...

    @property
    def ended(self) -> bool:
        """The other side has closed, and all that it sent has been read."""


class StreamWire:
    def __init__(self, reader: asyncio.StreamReader | TlsStream, writer: asyncio.StreamWriter | TlsStream) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, size: int = CHUNK) -> bytes:
        return await self._reader.read(size)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def write_eof(self) -> None:
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    @property
    def ended(self) -> bool:
        return self._reader.at_eof()


class SshWire:
    """The pipes of an ssh that runs `dial-stdio` over there. What it says on stderr is why it failed."""

    def __init__(self, process: asyncio.subprocess.Process, target: Target) -> None:
        self._process, self._target = process, target
        self._said = bytearray()
        self._listener = asyncio.create_task(self._listen())
        self._heard = False

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(4096):
            self._said += data
            del self._said[:-4096]

    async def read(self, size: int = CHUNK) -> bytes:
        assert self._process.stdout is not None
        data = await self._process.stdout.read(size)
        if data:
            self._heard = True
        elif not self._heard:
            raise await self._failed()
        return data

    async def _failed(self) -> Unavailable | Unauthorized:
        status = await self._process.wait()
        await self._listener
        lines = [line.strip() for line in self._said.decode("utf-8", "replace").splitlines() if line.strip()]
        lines = [line for line in lines if "Permanently added" not in line]
        text = lines[-1] if lines else f"ssh ended with exit status {status}"
        where = f"{self._target.user + '@' if self._target.user else ''}{self._target.host}"
        port = f" -p {self._target.port}" if self._target.port else ""
        kind = Unauthorized if "permission denied" in text.lower() else Unavailable
        return kind(f"{self._target}: {text}", hint=f"try `ssh{port} {where}` by hand")

    async def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def write_eof(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write_eof()

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        self._listener.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self._listener
        await self._process.wait()
        # The loop's transport would otherwise be closed by the garbage collector, perhaps after the loop.
        transport = getattr(self._process, "_transport", None)
        if transport is not None:
            transport.close()

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None or (
            self._process.stdout is not None and self._process.stdout.at_eof()
        )


# --- dialling -----------------------------------------------------------------------------------------


async def dial(target: Target) -> Wire:
    """A new connection. Raises `Unavailable`, `Unauthorized`, `InvalidInput` (TLS files that cannot be used)."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            match target.kind:
                case "unix":
                    return StreamWire(*await asyncio.open_unix_connection(target.path, limit=_LIMIT))
                case "tcp":
                    return await _tcp(target)
                case "ssh":
                    return await _ssh(target)
    except TimeoutError:
        raise Unavailable(f"no answer from {target} within {CONNECT_SECONDS:.0f} seconds") from None
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(
            f"{target}: its certificate is not trusted: {error.verify_message}",
            hint="--tlscacert names the CA that signed it",
        ) from error
    except ssl.SSLError as error:
        raise Unavailable(
            f"{target}: TLS: {error.reason or error}", hint="it may not speak TLS at that port"
        ) from error
    except PermissionError as error:
        raise Unavailable(
            f"cannot connect to the engine at {target}: {error.strerror}",
            hint="root, or a member of its group (docker), may",
        ) from error
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise Unavailable(
            f"cannot connect to the engine at {target}: {why or error}", hint="is it running, and --host right?"
        ) from error


async def _tcp(target: Target) -> Wire:
    port = target.port or (2376 if target.tls else 2375)
    context = tls_context(target.tls) if target.tls else None
    reader, writer = await asyncio.open_connection(target.host, port, limit=_LIMIT)
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    plain = StreamWire(reader, writer)
    if context is None:
        return plain
    tls = TlsStream(reader, writer, context, host=target.host)
    try:
        await tls.shake_hands()
    except BaseException:
        await plain.close()
        raise
    return StreamWire(tls, tls)


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Raises `InvalidInput`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if not files.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif files.ca:
            context.load_verify_locations(files.ca)
        else:
            context.load_default_certs()
        if files.certificate or files.key:
            context.load_cert_chain(files.certificate, files.key)
    except (ssl.SSLError, OSError) as error:
        raise InvalidInput(
            f"TLS files for the engine cannot be used: {error}",
            hint="PEM files for --tlscacert, --tlscert and --tlskey",
        ) from error
    return context


_DIAL = """
for engine in ENGINES none; do
  [ "$engine" = none ] && { echo "none of ENGINES is installed here" >&2; exit 127; }
  command -v "$engine" >/dev/null 2>&1 && break
done
exec "$engine" system dial-stdio
"""


def ssh_command(target: Target) -> list[str]:
    """The ssh that connects its stdio to the engine over there: its configuration, known hosts and agent are the user's own.

    Without an engine's name in the address the first of workbench, docker and podman that is there answers. `WORKBENCH_SSH`
    replaces `ssh`, as GIT_SSH_COMMAND does for git."""
    words = shlex.split(os.environ.get("WORKBENCH_SSH", "")) or ["ssh"]
    if target.path.startswith("/"):
        remote = f"exec docker --host {shlex.quote('unix://' + target.path)} system dial-stdio"
    else:
        remote = _DIAL.replace("ENGINES", target.path or " ".join(ENGINES))
    where = f"{target.user}@{target.host}" if target.user else target.host
    port = ["-p", str(target.port)] if target.port else []
    return [*words, "-T", "-o", "ConnectTimeout=30", *port, "--", where, f"exec /bin/sh -c {shlex.quote(remote)}"]


async def _ssh(target: Target) -> Wire:
    command = ssh_command(target)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LIMIT,
            start_new_session=True,  # Ctrl-C at this terminal is the program's own business (docker does the same)
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{target}: {command[0]} is not installed here", hint="install the OpenSSH client") from error
    return SshWire(process, target)
