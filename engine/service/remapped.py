"""Copying into and out of a running container that has a user namespace of its own.

Its files have other owners here than inside, and files made here would belong to nobody there. So a small process enters
that user namespace and does the work on descriptors of the root that it is given; the tar goes through a pipe. It runs no
program of the container's and is in none of its other namespaces: the container cannot see it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

from engine.archive.writer import Sink
from engine.base.cancel import CancelToken
from engine.errors import EngineError, InvalidInput

_CHUNK = 1 << 18
_BOOT = "import sys; sys.path.append({root!r}); from engine.service.remapped import main; main(sys.argv[1:])"


def pack(root: int, users: int, where: str, out: Sink, cancel: CancelToken | None = None) -> None:
    """As `container_tar.pack`, with the owners that the user namespace `users` has. Raises OSError, Cancelled, EngineError."""
    with _Child({"op": "pack", "where": where}, root, users, subprocess.DEVNULL, subprocess.PIPE, cancel) as child:
        assert child.process.stdout is not None
        while data := child.process.stdout.read1(_CHUNK):  # type: ignore[attr-defined]
            out.write(data)


def unpack(
    root: int,
    users: int,
    tar: BinaryIO,
    where: str,
    owner: tuple[int, int] | str,
    keep_kinds: bool,
    cancel: CancelToken | None = None,
) -> None:
    """As `archive.extract` below `where`. Raises OSError, InvalidInput, Cancelled, EngineError."""
    request = {"op": "unpack", "where": where, "owner": owner, "keep_kinds": keep_kinds}
    with _Child(request, root, users, subprocess.PIPE, subprocess.DEVNULL, cancel) as child:
        assert child.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it says why
            while data := tar.read(_CHUNK):
                child.process.stdin.write(data)
            child.process.stdin.close()


class _Child:
    """The process; leaving the block waits for it and raises what it said."""

    def __init__(
        self, request: dict[str, Any], root: int, users: int, stdin: int, stdout: int, cancel: CancelToken | None
    ) -> None:
        self._cancel = cancel or CancelToken()
        read, write = os.pipe2(os.O_CLOEXEC)
        text = _BOOT.format(root=str(Path(__file__).resolve().parent.parent.parent))
        words = [sys.executable, "-I", "-c", text, json.dumps(request), str(root), str(users), str(write)]
        try:
            self.process = subprocess.Popen(words, stdin=stdin, stdout=stdout, pass_fds=(root, users, write))
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self._said = b""
        self._reader = threading.Thread(target=self._listen, args=(read,), daemon=True)
        self._reader.start()

    def _listen(self, read: int) -> None:
        with os.fdopen(read, "rb") as file:
            self._said = file.read()

    def __enter__(self) -> _Child:
        self._stop = self._cancel.calling(self.process.kill)
        self._stop.__enter__()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._stop.__exit__(None, None, None)
        if kind is not None:
            self.process.kill()
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._reader.join()
        if kind is None:
            self._cancel.check()
            if self._said:
                _raise(json.loads(self._said))
            if code:
                raise EngineError(f"the process that copies in the container's user namespace ended with code {code}")


def _raise(said: dict[str, Any]) -> None:
    if said["errno"]:
        raise OSError(said["errno"], said["message"], said["filename"])
    raise (InvalidInput if said["input"] else EngineError)(said["message"])


# --- the process ------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> None:
    """Arguments: the request, and the numbers of three descriptors: root, user namespace, where errors go."""
    request, (root, users, errors) = json.loads(arguments[0]), map(int, arguments[1:])
    try:
        _enter(users)
        if request["op"] == "pack":
            from engine.service.container_tar import pack as pack_here

            with os.fdopen(1, "wb", closefd=False) as out:
                pack_here(root, request["where"], out)
        else:
            from engine.archive.extract import Rules, extract

            owner = request["owner"]
            rules = Rules(
                request["where"].strip("/"),
                owner=tuple(owner) if isinstance(owner, list) else owner,
                keep_kinds=request["keep_kinds"],
            )
            with os.fdopen(0, "rb", closefd=False) as tar:
                extract(tar, root, rules)
    except (OSError, EngineError) as error:
        number = error.errno if isinstance(error, OSError) else 0
        text = (error.strerror or str(error)) if isinstance(error, OSError) else error.message
        said = {
            "errno": number or 0,
            "message": text,
            "filename": str(error.filename) if isinstance(error, OSError) and error.filename else None,
            "input": isinstance(error, InvalidInput),
        }
        os.write(errors, json.dumps(said).encode())


def _enter(users: int) -> None:
    from engine.linux import namespace

    namespace.setns(users, namespace.NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.umask(0o022)
