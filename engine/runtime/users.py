"""Who a process in a container is: `--user` read against the container's own /etc/passwd and /etc/group.

The files come out of an image and are hostile: they are opened inside the container's root, must be regular and at most
10 MiB and 250,000 lines (CVE-2026-47262), and a number is a number even when the file has it as a name (CVE-2026-46680).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from engine.linux.openat2 import open_in_root

MAX_BYTES = 10 << 20
_FIELDS = 7  # of passwd(5), which has the most
MAX_LINES = 250_000  # what can be read in well under a second
MAX_ID = (1 << 31) - 1  # CVE-2024-40635


class UserError(ValueError):
    """The user or group does not exist, or is not one."""


@dataclass(frozen=True, slots=True)
class Identity:
    uid: int
    gid: int
    groups: tuple[int, ...]  # with gid: CVE-2022-36109
    home: str


class Elsewhere(Exception):
    """Something is mounted over the files: who reads them may have to wait for whoever serves that."""


def read_database(root_fd: int, path: str, *, no_mounts: bool = False) -> bytes:
    """The file's bytes; empty when it is not there. Raises UserError when it is not an ordinary small file, and with
    `no_mounts` Elsewhere."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = open_in_root(root_fd, path, flags, no_mounts=no_mounts)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        if no_mounts and error.errno == errno.EXDEV:
            raise Elsewhere from None
        raise UserError(f"{path}: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is not a regular file")
        if status.st_size > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
        chunks, left = [], MAX_BYTES
        while left and (chunk := os.read(fd, min(left, 1 << 16))):
            chunks.append(chunk)
            left -= len(chunk)
        content = b"".join(chunks)
        if content.count(b"\n") > MAX_LINES:
            raise UserError(f"{path} has more than {MAX_LINES} lines")
        return content
    finally:
        os.close(fd)


def _number(text: str) -> int | None:
    """`text` as an id; None if it is a name. ASCII digits only: no sign, no other alphabet's digits."""
    if not (text.isascii() and text.isdigit()):
        if text[:1] in "+-" and text[1:].isascii() and text[1:].isdigit():
            raise UserError(f"{text} is not a user or group id: it must be between 0 and {MAX_ID}")
        return None
    value = int(text) if len(text) <= 20 else MAX_ID + 1
    if value > MAX_ID:
        raise UserError(f"uids and gids must be in range 0-{MAX_ID}")
    return value


def _entries(raw: bytes, fields: int) -> Iterator[list[str]]:
    """One after the other: a file of millions of short lines would be many times its size as lists."""
    start = 0
    while start < len(raw):
        end = raw.find(b"\n", start)
        end = len(raw) if end < 0 else end
        parts = raw[start:end].decode("utf-8", "replace").strip().split(":", _FIELDS)
        start = end + 1
        if len(parts) >= fields and not parts[0].startswith("#"):
            yield parts


def _id(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_ID else None


def resolve(user: str, passwd: bytes, group: bytes) -> Identity:
    """The identity that `user` ("", "name", "uid", each with ":group" or ":gid") means."""
    who, colon, which = user.partition(":")
    number = _number(who) if who else 0
    found: list[str] | None = None
    for row in _entries(passwd, 4):
        if (row[0] == who) if number is None else (_id(row[2]) == number):
            found = row
            break
    if number is None:
        if found is None or _id(found[2]) is None:
            raise UserError(f"unable to find user {who}: no matching entries in passwd file")
        number = _id(found[2])
    assert number is not None
    gid = (_id(found[3]) if found else 0) or 0
    home = found[5] if found and len(found) > 5 and found[5] else "/"
    extra: list[int] = []
    if colon and which:
        gid = _group(which, group)
    elif found:  # as Docker: the groups of the name, unless a group was asked for
        for row in _entries(group, 4):
            if f",{found[0]}," in f",{row[3]},":  # not split: the list may be most of the file
                member = _id(row[2])
                if member is not None:
                    extra.append(member)
    return Identity(number, gid, tuple(dict.fromkeys([gid, *extra])), home)


def _group(which: str, group: bytes) -> int:
    number = _number(which)
    if number is not None:
        return number
    for row in _entries(group, 3):
        if row[0] == which:
            gid = _id(row[2])
            if gid is not None:
                return gid
    raise UserError(f"unable to find group {which}: no matching entries in group file")


def identify(root_fd: int, user: str, more_groups: Sequence[str] = (), *, no_mounts: bool = False) -> Identity:
    """`resolve` against the files of the container's root, and the groups of `--group-add`. Raises UserError, and with
    `no_mounts` Elsewhere."""
    group = read_database(root_fd, "/etc/group", no_mounts=no_mounts)
    found = resolve(user, read_database(root_fd, "/etc/passwd", no_mounts=no_mounts), group)
    if not more_groups:
        return found
    added = [_group(name, group) for name in more_groups]
    return replace(found, groups=tuple(dict.fromkeys([*found.groups, *added])))
