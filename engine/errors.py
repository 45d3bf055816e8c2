"""Every error a user can meet: what happened to which object, why, and what to do next.

`EngineError` carries `code` (stable, for programs), `status` (the Docker Engine API's HTTP status), the
message (first sentence a person reads) and `hint` (the next step). Library code raises these and never
prints or exits. The cause, where there is one, is `__cause__`.
"""

from __future__ import annotations

import errno
import os
from typing import ClassVar

# What drives a terminal: C0 but newline and tab, C1, and the bidirectional controls that reorder what is read
# (CVE-2021-42574). Without its ESC a sequence is text.
_DRIVES = dict.fromkeys(
    [*range(9), *range(11, 32), *range(127, 160), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)


def harmless(text: str) -> str:
    """`text` without control characters: what a registry, an image or a container wrote may be shown with this."""
    return text if text.isascii() and text.isprintable() else text.translate(_DRIVES)


class EngineError(Exception):
    """Base of the tree. Also what is shown for a failure nobody foresaw."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        # It may quote a registry's answer, a file of an image or what a program printed last.
        self.message = harmless(message)
        self.hint = harmless(hint) if hint else hint
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class InvalidInput(EngineError):
    """What the user wrote cannot be meant: a reference, a flag, a file."""

    code = "invalid"
    status = 400


class DockerfileError(InvalidInput):
    """A Dockerfile (or compose file) that does not parse: file, 1-based line and column, and the line itself."""

    code = "dockerfile"

    def __init__(
        self, message: str, *, file: str, line: int, column: int = 1, source: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.file, self.line, self.column, self.source = file, line, column, source

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: {self.message}"
        if not self.source:
            return where
        gutter = f"{self.line:>5} | "
        return f"{where}\n{gutter}{harmless(self.source)}\n{' ' * (len(gutter) + self.column - 1)}^"


class NotFound(EngineError):
    """No such image, container, file or manifest."""

    code = "not-found"
    status = 404


class Conflict(EngineError):
    """The object is in use, exists already, or is in the wrong state."""

    code = "conflict"
    status = 409


class Unauthorized(EngineError):
    """A registry refused the credentials, or asked for some."""

    code = "unauthorized"
    status = 401


class Unavailable(EngineError):
    """A registry or a peer process could not be reached, or broke off."""

    code = "unavailable"
    status = 503


class Unsupported(EngineError):
    """This host, this kernel or this version cannot do it."""

    code = "unsupported"
    status = 501


class AccessDenied(EngineError):
    """The operating system refused: permissions, capabilities, read-only file systems."""

    code = "access-denied"
    status = 403


class StorageFull(EngineError):
    """No space (or no inodes, or quota) left; names the file system."""

    code = "storage-full"
    status = 507


class Corrupt(EngineError):
    """Bytes are not what their digest says, or a file of the store is damaged."""

    code = "corrupt"
    status = 500


class HostileArchive(Corrupt):
    """An archive entry that would leave its root, or cannot be represented."""

    code = "hostile-archive"


class Cancelled(EngineError):
    """The work was cancelled, by the user or by newer work."""

    code = "cancelled"
    status = 499


class BuildFailed(EngineError):
    """A step of a build failed. `exit_code` is that of the RUN command (0 when the step never ran).

    `excerpt` are the Dockerfile's lines of the step, `output` the last lines it wrote, `image` what holds its file system when that was
    asked to be kept.
    """

    code = "build-failed"

    def __init__(self, message: str, *, exit_code: int = 0, file: str = "", line: int = 0, hint: str | None = None):
        super().__init__(message, hint=hint)
        self.exit_code, self.file, self.line = exit_code, file, line
        self.excerpt: tuple[str, ...] = ()
        self.output: tuple[str, ...] = ()
        self.image = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.excerpt else ""
        lines = [f"{where}{self.message}"]
        lines += [f"{number:>5} | {text}" for number, text in enumerate(self.excerpt, self.line)]
        lines += [f"      > {text}" for text in self.output]
        return "\n".join(lines)


class StartFailed(EngineError):
    """A container could not be started. `exit_code` as `docker run` has it: 125 engine, 126 not executable, 127 not found."""

    code = "start-failed"

    def __init__(self, message: str, *, exit_code: int = 125, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def storage_full(what: str) -> StorageFull:
    """`what` says which file on which file system found no room."""
    return StorageFull(
        what,
        hint="free some space (`workbench rmi IMAGE`, `workbench rm CONTAINER`) or choose another disk with --root; "
        "then run the command again",
    )


def is_full(error: BaseException) -> bool:
    return isinstance(error, StorageFull) or (isinstance(error, OSError) and error.errno in _FULL)


def from_os_error(error: OSError, what: str) -> EngineError:
    """The engine's error for an `OSError` met while doing `what` ("pulling python:3.11-slim")."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    reason = error.strerror or str(error)
    at = f" ({path})" if path else ""
    if error.errno in _FULL:
        return storage_full(f"{what}: {reason}{at}")
    if error.errno in _DENIED:
        return AccessDenied(f"{what}: {reason}{at}", hint="check the permissions, or run as root")
    if error.errno == errno.ENOENT:
        return NotFound(f"{what}: {reason}{at}")
    return EngineError(f"{what}: {reason}{at}")
