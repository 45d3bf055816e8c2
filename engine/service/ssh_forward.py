"""`--ssh` in a build: a socket for the step that leads to the user's agent, or to an agent made of key files.

The step gets a socket of its own, with the owner and mode that its mount asks for; the user's own is never shown to it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from engine.errors import InvalidInput, Unavailable, Unsupported
from engine.model import SshAgent

MAX_CONNECTIONS = 32
_CHUNK = 1 << 16
_START = 10.0  # seconds that ssh-agent may take to listen


@contextlib.contextmanager
def forward(agent: SshAgent, folder: Path, name: str, owner: tuple[int, int], mode: int) -> Iterator[Path]:
    """A socket at `folder/name` for as long as the context lasts. Raises `InvalidInput`, `Unavailable`, `Unsupported`."""
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(_agent_of(agent, folder, name))
        path = folder / name
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            os.chmod(path, mode)
            os.chown(path, *owner)
            listening.listen(8)
            thread = threading.Thread(target=_serve, args=(listening, target), daemon=True)
            thread.start()
            try:
                yield path
            finally:
                with contextlib.suppress(OSError):
                    listening.shutdown(socket.SHUT_RDWR)
                path.unlink(missing_ok=True)
                thread.join(timeout=1)


@contextlib.contextmanager
def _agent_of(agent: SshAgent, folder: Path, name: str) -> Iterator[str]:
    if not agent.keys:
        path = str(agent.socket or os.environ.get("SSH_AUTH_SOCK") or "")
        if not path:
            raise InvalidInput(
                f"--ssh {agent.id}: no agent is running", hint=f"start ssh-agent, or name a key: --ssh {agent.id}=FILE"
            )
        yield path
        return
    for program in ("ssh-agent", "ssh-add"):
        if shutil.which(program) is None:
            raise Unsupported(f"{program} is not installed", hint="Debian: apt-get install openssh-client")
    path = str(folder / f"{name}.agent")
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it prints its address when it listens
        for key in agent.keys:
            added = subprocess.run(
                ["ssh-add", "-q", "--", str(key)],
                env={"SSH_AUTH_SOCK": path, "PATH": os.environ.get("PATH", ""), "SSH_ASKPASS_REQUIRE": "never"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_START,
            )
            if added.returncode:
                text = added.stderr.decode(errors="replace").strip()[-300:]
                raise InvalidInput(
                    f"--ssh {agent.id}: the key {key}: {text}", hint="a key with a passphrase needs an agent"
                )
        yield path
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        Path(path).unlink(missing_ok=True)


def _serve(listening: socket.socket, target: str) -> None:
    slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
    while True:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        if not slots.acquire(blocking=False):
            client.close()
            continue
        threading.Thread(target=_connect, args=(client, target, slots), daemon=True).start()


def _connect(client: socket.socket, target: str, slots: threading.BoundedSemaphore) -> None:
    try:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(target)
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()
    except OSError:
        pass  # the agent has gone: the step's ssh says so
    finally:
        slots.release()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def check_agent(agent: SshAgent) -> None:
    """Raises `Unavailable` when nothing listens at an agent's socket."""
    if agent.socket is None or agent.keys:
        return
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(agent.socket))
    except OSError as error:
        raise Unavailable(f"--ssh {agent.id}: {agent.socket}: {error.strerror}") from error
