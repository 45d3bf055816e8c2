"""Reading the Dockerfile and the ignore file of a build. A link in a context never leads out of it (CVE-2022-4122)."""

from __future__ import annotations

import errno
import functools
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.build.dockerfile.ast import Dockerfile
from engine.build.dockerfile.ignore import Matcher, read_patterns
from engine.build.dockerfile.parser import parse
from engine.errors import InvalidInput, NotFound, from_os_error
from engine.model import BuildRequest

MAX_DOCKERFILE = 4 << 20


@dataclass(frozen=True, slots=True)
class Input:
    """`file` is how messages and the cache name the Dockerfile."""

    text: str
    file: Path
    dockerfile: Dockerfile
    matcher: Matcher | None


def is_remote(place: str) -> bool:
    """A URL or a git repository, by the Docker command line's own signs."""
    return place.startswith(("http://", "https://", "git://", "ssh://", "git@", "github.com/"))


def read_text(stream: BinaryIO) -> str:
    """A Dockerfile from a stream. Raises `InvalidInput` for one over 4 MiB."""
    data = stream.read(MAX_DOCKERFILE + 1)
    if len(data) > MAX_DOCKERFILE:
        raise InvalidInput(f"the Dockerfile on stdin is larger than {MAX_DOCKERFILE} bytes")
    return data.decode("utf-8", errors="replace")


def read_dockerfile(path: Path) -> Dockerfile:
    """Parses the file at `path`. Raises `NotFound`, `DockerfileError`."""
    return parse(_decode(_read(path, path.parent), path), str(path))


def read_input(request: BuildRequest) -> Input:
    """The Dockerfile and the ignore patterns. Raises `NotFound`, `DockerfileError`, `InvalidInput`."""
    file = request.dockerfile or request.context / "Dockerfile"
    if request.dockerfile_text is not None:
        text = request.dockerfile_text
    else:
        text = _decode(_read(file, request.context), file)
    named = dockerfile_name(request)
    return Input(text, named, _parse(text, str(named)), _ignore(request, file))


def dockerfile_name(request: BuildRequest) -> Path:
    """How messages call the Dockerfile: by the place that it came from, without a password that stands there."""
    file = request.dockerfile or request.context / "Dockerfile"
    if not request.remote or not file.is_relative_to(request.context):
        return file
    place = request.remote.partition("://")[2] or request.remote
    whole = Path(place.rpartition("@")[2])
    return whole if request.dockerfile_text is not None else whole / file.relative_to(request.context)


@functools.lru_cache(maxsize=32)
def _parse(text: str, name: str) -> Dockerfile:
    return parse(text, name)


def _decode(data: bytes, path: Path) -> str:
    if len(data) > MAX_DOCKERFILE:
        raise InvalidInput(f"{path} is larger than {MAX_DOCKERFILE} bytes: not a Dockerfile")
    return data.decode("utf-8", errors="replace")


def _read(path: Path, context: Path) -> bytes:
    """What is at `path`; below the context, links are followed inside it only."""
    try:
        if path.is_relative_to(context):
            root = os.open(context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fd = _open_inside(root, context, path.relative_to(context))
            finally:
                os.close(root)
        else:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidInput(f"{path} is not a file", hint="name the Dockerfile with -f FILE")
            return file.read(min(status.st_size, MAX_DOCKERFILE) + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise InvalidInput(
                f"{path} is a link that leads out of the build context, or to nothing",
                hint=f"name the file itself: -f {os.path.realpath(path)}",
            ) from None
        raise NotFound(f"there is no Dockerfile at {path}", hint="create one, or name it with -f FILE") from None
    except OSError as error:
        raise from_os_error(error, f"reading {path}") from error


def _open_inside(root: int, context: Path, path: Path) -> int:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if sys.platform == "linux":
        from engine.linux.openat2 import open_in_root

        return open_in_root(root, str(path), flags)
    # Elsewhere (a client of another engine) no system call does that. The folder is the user's own: where links lead is looked up.
    real = os.path.realpath(context / path)
    if not Path(real).is_relative_to(os.path.realpath(context)):
        raise FileNotFoundError(errno.ENOENT, "it leads out of the build context", real)
    return os.open(os.path.relpath(real, os.path.realpath(context)), flags | os.O_NOFOLLOW, dir_fd=root)


def read_ignore(root: Path) -> str | None:
    """The text of the `.dockerignore` of a context, None without one."""
    try:
        return _read(root / ".dockerignore", root).decode("utf-8", errors="replace")
    except NotFound:
        return None


def _ignore(request: BuildRequest, file: Path) -> Matcher | None:
    """`<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` of the context. They are not merged."""
    candidates = [request.context / ".dockerignore"]
    if request.dockerfile_text is None:
        candidates.insert(0, file.with_name(file.name + ".dockerignore"))
    for path in candidates:
        try:
            data = _read(path, request.context)
        except NotFound:
            continue
        return _matcher(data.decode("utf-8", errors="replace"))
    return None


@functools.lru_cache(maxsize=32)
def _matcher(text: str) -> Matcher | None:
    patterns = read_patterns(text)
    return Matcher(patterns) if patterns else None
