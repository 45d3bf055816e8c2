"""The container engine: `async with engine.open() as e:`. Front ends read `engine.api`.

This file stays empty of imports: the supervisor starts with `python -I -S` and pays for each of them.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would cost its import
if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from engine.api import Engine
    from engine.remote.hosts import TlsFiles


def open(  # noqa: A001  # `engine.open()` reads well, and nothing here opens files
    host: str = "", *, root: Path | str | None = None, tls: TlsFiles | None = None
) -> AbstractAsyncContextManager[Engine]:
    """An engine for the length of an `async with`; what is running goes on when it is closed.

        async with engine.open() as e:                       # the one in this process
        async with engine.open("ssh://user@host") as e:      # another one: Docker, Podman or a workbench
            for container in await e.containers(): …

    `host`, `root` and `tls` are explained, with the errors, at `engine.opening.opened`."""
    from engine.opening import opened

    return opened(host, root=root, tls=tls)
