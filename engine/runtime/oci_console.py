"""What an OCI runtime hands over beside its exit code: a terminal's master, and a process id."""

from __future__ import annotations

import contextlib
import os
import socket

from engine.runtime import protocol
from engine.runtime.oci_command import RuntimeFailed


class Console:
    """The socket that a runtime sends a terminal's master to (`--console-socket`); `option` is empty where there is none."""

    def __init__(self, folder: str, wanted: bool, name: str = "console") -> None:
        self.master = -1
        self.listener: socket.socket | None = None
        self.option: list[str] = []
        self._path, self._folder = os.path.join(folder, name), -1
        if wanted:
            self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.listener = protocol.listen(folder, name)
            self.listener.setblocking(False)
            # By this descriptor of ours: a socket's path has room for 107 bytes.
            self.option = ["--console-socket", f"/proc/{os.getpid()}/fd/{self._folder}/{name}"]

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def take(self) -> bool:
        """Whether the terminal has come."""
        if self.master < 0 and self.listener is not None:
            try:
                sock, _address = self.listener.accept()
            except BlockingIOError:
                return False
            with sock:
                sock.settimeout(10)
                _raw, fds, _flags, _address = socket.recv_fds(sock, 4096, 1, socket.MSG_CMSG_CLOEXEC)
            if fds:
                self.master = fds[0]
        return self.master >= 0

    def close(self) -> None:
        if self.listener is not None:
            self.listener.close()
            self.listener = None
            os.close(self._folder)
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def read_pid(path: str) -> int:
    """What a runtime wrote to its `--pid-file`. Raises RuntimeFailed."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError) as error:
        raise RuntimeFailed(f"the runtime said that all went well but left no process id: {error}") from None
