"""`system dial-stdio`: this process's stdin and stdout as a connection to an engine's API. What `--host ssh://…` runs over there.

Where nobody serves the API of this data root, a server is started that ends by itself some time after its last client: the
connections of one client must meet the same server, since it knows their execs and who waits for a start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from engine.base.atomic import locked
from engine.cli.common import read
from engine.errors import EngineError, Unavailable
from engine.remote.hosts import Target, resolve
from engine.remote.wires import CHUNK, Wire, dial
from engine.service.streams import on_thread

IDLE = 30  # seconds that a server started here stays without a client


def cmd_dial_stdio(root: Path, args: list[str]) -> int:
    usage, summary = "system dial-stdio", "Connect stdin and stdout to the engine's API (what --host ssh:// runs there)"
    if read(args, usage, summary, [], maximum=0) is None:
        return 0
    host = os.environ.get("WORKBENCH_HOST", "")
    target = resolve(host) if host else Target("unix", path=str(_served(root)))
    return asyncio.run(_join(target))


def _served(root: Path) -> Path:
    """The socket of this data root's server, which is started if there is none. Raises `Unavailable`."""
    from engine.runtime.places import runtime_dir

    path = runtime_dir(root) / "api.sock"
    if _answers(path):
        return path
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        if not _answers(path):
            _start(root, path)
    return path


def _start(root: Path, path: Path) -> None:
    ready, write = os.pipe()
    with contextlib.ExitStack() as closing:
        closing.callback(os.close, ready)
        try:
            words = ["--root", str(root), "serve", "--socket", str(path), "--idle", str(IDLE)]
            process = subprocess.Popen(
                [sys.executable, "-m", "engine.cli.main", *words],
                stdin=subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                start_new_session=True,  # it outlives this connection
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
        finally:
            os.close(write)
        said = b""
        while b"serving " not in said:  # its first line says so; an end says why not
            data = os.read(ready, 4096)
            if not data:
                process.wait()
                lines = said.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
                raise Unavailable(
                    f"the engine's server does not start: {lines[0]}", hint="try `workbench serve` by hand"
                )
            said += data


def _answers(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


async def _join(target: Target) -> int:
    """Until the engine has closed its side. The end of stdin closes ours, and no more."""
    wire = await dial(target)
    feeding = asyncio.create_task(_feed(wire))
    try:
        while data := await wire.read():
            await asyncio.to_thread(_write, data)
    except (ConnectionError, BrokenPipeError):
        pass
    finally:
        feeding.cancel()
        await wire.close()
    # A thread may stand in a read of stdin that never ends: nothing waits for it.
    sys.stdout.flush()
    os._exit(0)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


async def _feed(wire: Wire) -> None:
    with contextlib.suppress(OSError, EngineError):
        while data := await on_thread(
            lambda: os.read(0, CHUNK)
        ):  # a thread of its own: the process may end while it stands
            await wire.write(data)
        await wire.write_eof()
