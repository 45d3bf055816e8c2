"""A file system's tar as a list: one line of JSON for each file, with the hash of what it holds.

Runs here and, by `python3 -c`, on another host, where nothing of this package is: it imports the standard library alone. What an
engine puts into every container by itself is left out.
"""

import hashlib
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

# Docker's, Podman's and our own: in an export, not in the image.
ENGINES_OWN = (
    ".dockerenv", "run/.containerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "dev", "proc", "sys",
)  # fmt: skip
_KINDS = {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "link", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo"}  # fmt: skip


def entries(stream: BinaryIO) -> Iterator[list[object]]:
    """Path, kind, mode, uid, gid, size, whole seconds of its time (0 for folders), and content: a hash, or where a link leads."""
    seen: dict[str, list[object]] = {}
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            path = member.name.strip("/").removeprefix("./")
            if not path or path == "." or any(path == own or path.startswith(own + "/") for own in ENGINES_OWN):
                continue
            if member.islnk():  # another name of a file that came before
                first = seen.get(member.linkname.strip("/").removeprefix("./"))
                if first is not None:
                    yield [path, *first]
                continue
            kind = _KINDS.get(member.type, "file")
            content = member.linkname if kind == "link" else ""
            if kind in ("char", "block"):
                content = f"{member.devmajor}:{member.devminor}"
            if kind == "file":
                digest = hashlib.sha256()
                body = tar.extractfile(member)
                while body is not None and (data := body.read(1 << 20)):
                    digest.update(data)
                content = digest.hexdigest()
            time = 0 if kind == "dir" else int(member.mtime)
            mode = 0o777 if kind == "link" else member.mode & 0o7777
            facts: list[object] = [
                kind,
                mode,
                member.uid,
                member.gid,
                member.size if kind == "file" else 0,
                time,
                content,
            ]
            if kind == "file":
                seen[path] = facts
            yield [path, *facts]


def main(stream: BinaryIO, write: Callable[[str], object]) -> None:
    for entry in entries(stream):
        write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.write)
