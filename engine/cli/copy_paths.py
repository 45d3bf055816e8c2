"""Docker's rules for `cp`: what a path with or without a trailing slash or "/." means, and how names in the archive change.

Pure. The rules are those of `docker cp` (docs: "docker container cp", Description).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class End:
    """One end of a copy: its path as given, whether it exists and is a directory; `rebase` is the name it shall have."""

    path: str
    exists: bool = True
    is_dir: bool = False
    rebase: str = ""


def ends_with_dot(path: str) -> bool:
    return posixpath.basename(path.rstrip("/") or "/") == "." or path in (".", "./")


def asserts_directory(path: str) -> bool:
    return path.endswith("/") or ends_with_dot(path)


def split(path: str) -> tuple[str, str]:
    """Directory and last name; "/a/." gives ("/a", "."), "/a/" gives ("/", "a"), "/" gives ("/", "/")."""
    cleaned = posixpath.normpath(path)
    cleaned = cleaned[1:] if cleaned.startswith("//") else cleaned
    if ends_with_dot(path):
        return cleaned, "."
    if cleaned == "/":
        return "/", "/"
    return posixpath.dirname(cleaned) or ".", posixpath.basename(cleaned)


def preserve(cleaned: str, original: str) -> str:
    """`cleaned` with the trailing "/" or "/." of `original`."""
    if ends_with_dot(original) and not ends_with_dot(cleaned):
        cleaned = cleaned.rstrip("/") + "/."
    if original.endswith("/") and not cleaned.endswith("/"):
        cleaned += "/"
    return cleaned


def renamed(old: str, new: str) -> Callable[[str], str]:
    """Replaces the first `old` of a name by `new`; the root as `old` stands in front of every name."""
    if old == new:
        return lambda name: name
    if old == "/":
        return lambda name: new + name
    return lambda name: name.replace(old, new, 1)


def prepare(source: End, target: End) -> tuple[str, Callable[[str], str]]:
    """Where the source's archive is to be unpacked, and how its names change. Raises `InvalidInput` in Docker's words."""
    folder, base = split(target.path)
    source_base = source.rebase or split(source.path)[1]
    if target.exists and target.is_dir:
        return target.path, lambda name: name
    if target.exists and source.is_dir:
        raise InvalidInput("cannot copy directory", hint=f"{target.path} is a file: name a folder, or a new path")
    if not target.exists and not source.is_dir and asserts_directory(target.path):
        raise InvalidInput("no such directory", hint=f"{target.path} is not there: create it, or leave out the last /")
    return folder, renamed(source_base, base)


def local_source(path: str, *, follow: bool) -> End:
    """A source on this host. Raises `OSError` when it is not there.

    Links on the way are followed; the last part only with `follow`, or where a slash ends the path.
    """
    if follow or path.endswith("/"):
        real = os.path.realpath(path, strict=True)
    else:
        head, _, tail = path.rpartition("/")
        real = f"{os.path.realpath(head or '/', strict=True).rstrip('/')}/{tail}"
    resolved = preserve(real, path)
    rebase = ""
    wanted = posixpath.basename(path.rstrip("/"))
    if (
        (follow or path.endswith("/"))
        and wanted not in ("", ".")
        and posixpath.basename(resolved.rstrip("/")) != wanted
    ):
        rebase = wanted
    return End(resolved, True, os.path.isdir(resolved) if asserts_directory(resolved) else _is_dir(resolved), rebase)


def _is_dir(path: str) -> bool:
    os.lstat(path)
    return os.path.isdir(path) and not os.path.islink(path)


def local_target(path: str) -> End:
    """A target on this host, its links followed (a broken one is where the copy goes). Raises `InvalidInput`, `OSError`."""
    for _ in range(10):
        try:
            target = os.readlink(path)
        except OSError:
            break
        path = target if target.startswith("/") else posixpath.join(split(path)[0], target)
    else:
        raise InvalidInput(f"too many symlinks in {path}")
    if os.path.lexists(path):
        return End(path, True, os.path.isdir(path))
    parent = split(path)[0]
    if not os.path.isdir(parent):
        raise InvalidInput(f'invalid output path: directory "{parent}" does not exist')
    return End(path, False)


def split_argument(text: str) -> tuple[str, str]:
    """Container and path of `CONTAINER:PATH`; ("", path) for one on this host: absolute, or "./a:b"."""
    if text.startswith("/"):
        return "", text
    container, colon, path = text.partition(":")
    if not colon or container.startswith("."):
        return "", text
    return container, path
