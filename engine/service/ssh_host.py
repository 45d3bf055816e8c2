"""Another host over SSH: its address, shell text that runs there, streams to and from it.

Scripts are POSIX shell; words are quoted into them, and secrets come on stdin, never on a command line.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urlsplit

from engine.base.cancel import CancelToken
from engine.errors import EngineError, InvalidInput, NotFound, Unavailable

ENGINES = ("workbench", "docker", "podman")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\]")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ALLOCATED = re.compile(rb"Allocated port (\d+) for remote forward")
_SAID = 64_000  # bytes of the other side's words that are kept

# Finds the first engine there is. ENGINES is filled in.
_FIND = """
for engine in ENGINES none; do
  [ "$engine" = none ] && { echo "none of ENGINES is installed here" >&2; exit 127; }
  command -v "$engine" >/dev/null 2>&1 && break
done
"""


class NoForwarding(Unavailable):
    """The other side's sshd does not forward ports for this user."""


@dataclass(frozen=True, slots=True)
class Host:
    """`ssh://[user@]host[:port][/engine]`. `engine` "" takes the first of workbench, docker and podman that is there.

    `control` is a socket of ssh's that further commands share the first one's connection through; "" makes one a command.
    """

    host: str
    user: str = ""
    port: int = 0
    engine: str = ""
    control: str = ""

    @classmethod
    def parse(cls, url: str) -> Host:
        """Raises `InvalidInput`. Names that ssh would take for an option are refused."""
        parts = urlsplit(url)
        try:
            port = parts.port or 0
        except ValueError:
            port = -1
        raw = parts.netloc.rpartition("@")[2]
        name = raw if raw.endswith("]") else raw.rpartition(":")[0] if ":" in raw else raw
        user, engine = parts.username or "", parts.path.strip("/")
        good = parts.scheme == "ssh" and port >= 0 and parts.password is None and _HOST.fullmatch(name)
        if not good or (user and not _USER.fullmatch(user)) or engine not in ("", *ENGINES):
            raise InvalidInput(
                f"{url!r} is not a host",
                hint=f"write ssh://[user@]host[:port][/ENGINE], ENGINE of {', '.join(ENGINES)}",
            )
        return cls(name.strip("[]"), user, port, engine)

    def __str__(self) -> str:
        return f"ssh://{self.user + '@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"

    def command(self, script: str, *options: str) -> list[str]:
        """The local command that runs `script` there. `WORKBENCH_SSH` replaces `ssh`, as GIT_SSH_COMMAND does for git."""
        return [*self._words("-T", *options), f"exec /bin/sh -c {shlex.quote(script)}"]

    def _words(self, *options: str) -> list[str]:
        words = shlex.split(os.environ.get("WORKBENCH_SSH", "")) or ["ssh"]
        target = f"{self.user}@{self.host}" if self.user else self.host
        port = ["-p", str(self.port)] if self.port else []
        shared = ["-o", "ControlMaster=auto", "-o", f"ControlPath={self.control}", "-o", "ControlPersist=60"]
        return [*words, *port, *(shared if self.control else []), *options, "--", target]

    @contextlib.contextmanager
    def shared(self) -> Iterator[Host]:
        """The same host; all commands within the block go over one connection."""
        with tempfile.TemporaryDirectory(prefix="wb-ssh-") as folder:
            host = Host(self.host, self.user, self.port, self.engine, f"{folder}/control")
            try:
                yield host
            finally:
                quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                subprocess.run(host._words("-O", "exit"), check=False, **quiet)  # type: ignore[call-overload]

    def script(self, body: str, **words: str) -> str:
        """Shell text that has found its engine (`$engine`), with `words` put into `body` as quoted words."""
        return _FIND.replace("ENGINES", self.engine or " ".join(ENGINES)) + fill(body, **words)


def container_url(url: str) -> tuple[Host, str]:
    """`ssh://[user@]host[:port]/[ENGINE/]CONTAINER`. Raises `InvalidInput`."""
    head, _, container = url.rstrip("/").rpartition("/")
    if not _CONTAINER.fullmatch(container) or urlsplit(url).path.count("/") not in (1, 2):
        raise InvalidInput(
            f"{url!r} is not a container of another host", hint="write ssh://[user@]host[:port][/ENGINE]/CONTAINER"
        )
    return Host.parse(head), container


def fill(body: str, **words: str) -> str:
    """`body` with each word quoted into its place."""
    pattern = re.compile(rf"\b({'|'.join(words)})\b") if words else None
    return pattern.sub(lambda match: shlex.quote(words[match[1]]), body) if pattern else body


class _Process:
    """A command whose stderr is read along (the end of it is kept), so that it never waits for us to read it."""

    def __init__(self, command: Sequence[str], cancel: CancelToken, *, on_line: Callable[[bytes], None] | None = None):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout, self.said = self.process.stdin, self.process.stdout, b""
        self._on_line = on_line
        self._cancel = cancel
        cancel.on_cancel(self.process.terminate)
        self._reader = threading.Thread(target=self._read, name="ssh-stderr", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said = (self.said + line)[-_SAID:]
            if self._on_line is not None:
                self._on_line(line)

    def finish(self, host: Host) -> None:
        """Waits for its end. Raises what it failed with."""
        status = self.process.wait()
        self._reader.join()
        self._cancel.check()
        if status:
            raise failed(host, status, self.said)

    def finish_reading(self) -> None:
        self._reader.join()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def capture(host: Host, script: str, cancel: CancelToken | None = None, *, stdin: bytes = b"") -> str:
    """What `script` prints there. Raises `NotFound`, `Unavailable`, `Cancelled`."""
    process = _Process(host.command(script), cancel or CancelToken())
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(stdin)
            process.stdin.close()
        out = process.stdout.read()
        process.finish(host)
    finally:
        process.close()
    return out.decode("utf-8", "replace")


@contextlib.contextmanager
def reading(host: Host, script: str, cancel: CancelToken) -> Iterator[BinaryIO]:
    """The bytes that `script` prints there, as they come. Its failure is raised when the block has ended well."""
    process = _Process(host.command(script), cancel)
    try:
        process.stdin.close()
        try:
            yield process.stdout  # type: ignore[misc]  # IO[bytes] that is a BufferedReader
        except EngineError as error:
            process.stdout.close()
            status = process.process.wait()
            process.finish_reading()
            if process.said.strip() and not cancel.cancelled:  # it failed by itself, and that explains the rest
                raise failed(host, status or 1, process.said) from error
            raise
        if not process.stdout.closed:
            process.stdout.read()
        process.finish(host)
    finally:
        process.close()


def writing(host: Host, script: str, give: Callable[[BinaryIO], None], cancel: CancelToken) -> str:
    """`give` writes what `script` reads there; returns what it prints."""
    process = _Process(host.command(script), cancel)
    printed: list[bytes] = []
    reader = threading.Thread(target=lambda: printed.append(process.stdout.read()), name="ssh-stdout", daemon=True)
    reader.start()
    try:
        try:
            give(process.stdin)  # type: ignore[arg-type]
            process.stdin.close()
        except OSError:
            process.finish(host)  # it went away: why, it said
            raise
        reader.join()
        process.finish(host)
    finally:
        process.close()
    return b"".join(printed).decode("utf-8", "replace")


def forwarding(host: Host, script: str, address: str, auth: str, cancel: CancelToken, *, packed: bool = False) -> str:
    """Runs `script` with a port of the other side's loopback leading to `address` here; it reads the port and `auth`."""
    options = ["-o", "ExitOnForwardFailure=yes", "-o", "LogLevel=INFO", "-R", f"127.0.0.1:0:{address}"]
    options += ["-o", "Compression=yes"] if packed else []
    begun, told = threading.Event(), threading.Event()

    def tell(line: bytes) -> None:
        begun.wait()
        if (match := _ALLOCATED.search(line)) and not told.is_set():
            told.set()
            with contextlib.suppress(OSError, ValueError):
                process.stdin.write(match[1] + b"\n" + auth.encode() + b"\n")
                process.stdin.close()

    alone = Host(host.host, host.user, host.port, host.engine)  # the port belongs to a connection of its own
    process = _Process(alone.command(script, *options), cancel, on_line=tell)
    begun.set()
    try:
        out = process.stdout.read()
        process.finish(host)
    finally:
        process.close()
    return out.decode().strip()


def failed(host: Host, status: int, said: bytes) -> EngineError:
    """The error for what a command over SSH said at its end."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    lines = [line for line in lines if "Allocated port" not in line and "Permanently added" not in line]
    hints = [line.removeprefix("hint:").strip() for line in lines if line.startswith("hint:")]
    lines = [line for line in lines if not line.startswith("hint:")]  # of another workbench
    text = "".join(char if char.isprintable() else " " for char in (lines[-1] if lines else f"exit status {status}"))
    if "forwarding" in text.lower():
        return NoForwarding(
            f"{host} does not forward ports: {text}",
            hint="its sshd needs AllowTcpForwarding yes (or remote) for this user",
        )
    if re.search(r"no such (image|object|container)|not known|not found", text, re.IGNORECASE) and status != 127:
        return NotFound(f"{host}: {text}", hint="check the name there")
    by_hand = f"try `ssh {host.user + '@' if host.user else ''}{host.host}` by hand"
    return Unavailable(f"{host}: {text}", hint=hints[-1] if hints else by_hand)
