"""The one function that opens an engine: the one in this process, or another one that `host` names."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import Unsupported

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.remote.hosts import TlsFiles


@contextlib.asynccontextmanager
async def opened(
    host: str = "", *, root: Path | str | None = None, tls: TlsFiles | None = None
) -> AsyncGenerator[Engine, None]:
    """An engine for the length of an `async with`.

    `host` "" is WORKBENCH_HOST, and without that the engine in this process, on the data root `root` (None: WORKBENCH_ROOT, else
    the place for this user). Otherwise `unix://PATH`, `tcp://HOST[:PORT]` (with the files of `tls`, or of DOCKER_CERT_PATH),
    `ssh://[USER@]HOST[:PORT]`, the name of a Docker context, or `docker`. Raises `Unavailable`, `Unauthorized`, `InvalidInput`,
    `NotFound` (no such context), `AccessDenied`, `StorageFull`, `Unsupported`, `Corrupt`."""
    opened = await _open(host or ("" if root is not None else os.environ.get("WORKBENCH_HOST", "")), root, tls)
    try:
        yield opened
    finally:
        await opened.close()


async def _open(host: str, root: Path | str | None, tls: TlsFiles | None) -> Engine:
    if host:
        from engine.remote import open_remote
        from engine.remote.hosts import resolve

        return await open_remote(resolve(host, tls), _nearby if sys.platform == "linux" else None)
    if sys.platform != "linux":
        raise Unsupported(
            "containers of this machine's own need Linux",
            hint="--host drives an engine elsewhere: ssh://, a Docker context, docker",
        )
    from engine.local import open_engine

    return await open_engine(data_root() if root is None else Path(root).absolute())


async def _nearby(root: Path) -> Engine:
    from engine.local import open_engine

    return await open_engine(root)


def data_root(given: str = "") -> Path:
    """Where everything is kept: `given` (`--root`), WORKBENCH_ROOT, or the place for this user."""
    chosen = given or os.environ.get("WORKBENCH_ROOT", "")
    if chosen:
        return Path(chosen).absolute()
    if os.geteuid() == 0 and not os.environ.get("WORKBENCH_USERNS"):
        return Path("/var/lib/workbench")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "workbench"
