"""Where sockets are, for root and for an ordinary user, and who may have entered that user's namespace already."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.lazy import lazy
from engine.errors import AccessDenied, from_os_error
from engine.linux import userns
from engine.runtime import protocol
from engine.runtime import state as states
from engine.runtime.bootstrap import SOCKET

if TYPE_CHECKING:
    import hashlib
else:
    hashlib = lazy("hashlib")


def user() -> int | None:
    """The ordinary user that this engine works for; None for root."""
    return userns.entered_by() if os.geteuid() == 0 else os.geteuid()


def user_base() -> str:
    """XDG_RUNTIME_DIR, also where it is not in the environment (`su`, cron): one data root has one set of sockets."""
    who = user()
    found = f"/run/user/{who}"
    return os.environ.get("XDG_RUNTIME_DIR") or (found if who is not None and os.path.isdir(found) else "")


def runtime_dir(root: Path) -> Path:
    """Sockets live under /run (short paths, gone after a reboot); one folder for each data root."""
    who = user()
    base = Path("/run/workbench")
    if who is not None:
        base = Path(user_base() or f"/tmp/workbench-{who}") / "workbench"
        _own_folder(base.parent)
    return base if str(root) == "/var/lib/workbench" else base / hashlib.sha256(str(root).encode()).hexdigest()[:12]


def _own_folder(folder: Path) -> None:
    """The folder of sockets below /tmp is made by this user and nobody else: another's would be a trap."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
    try:
        status = folder.lstat()
    except OSError as error:
        raise from_os_error(error, f"making {folder}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise AccessDenied(f"{folder} is not a folder of yours alone", hint="set XDG_RUNTIME_DIR to one, or remove it")


def relatives(root: Path) -> Iterator[int]:
    """Processes that may be in this user's namespace already: the supervisor, then the containers' monitors."""
    with contextlib.suppress(OSError):
        with protocol.connect(str(runtime_dir(root)), SOCKET) as sock:
            pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        yield pid
    with contextlib.suppress(OSError):
        for bundle in (root / "containers").iterdir():
            with contextlib.suppress(ValueError, TypeError, OSError):
                state = states.read(str(bundle))
                if states.is_alive(state.monitor_pid, state.monitor_start):
                    yield state.monitor_pid
