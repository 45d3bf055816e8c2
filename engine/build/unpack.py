"""ADD of an archive: recognised by its content, unpacked as Docker does (moby/go-archive Unpack, in a root of its own).

Links in the archive are followed inside the destination, as if it were the root. What a layer cannot hold is refused.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import posixpath
import stat
from typing import BinaryIO, cast

from engine.archive.compression import decompress, sniff
from engine.archive.tarstream import Member, TarStream
from engine.base.cancel import CancelToken
from engine.build.copy import CopyPlan, Tree
from engine.build.source import Node, Source
from engine.build.writer import UpperWriter
from engine.errors import Corrupt, EngineError, HostileArchive, StorageFull

MAX_ENTRIES = 2_000_000
MAX_DEPTH = 512
RESERVE = 64 << 20  # bytes kept free
_CHUNK = 1 << 18
_DAMAGE = (EOFError, OSError, lzma.LZMAError, ValueError)
_DROPPED = ("trusted.overlay.", "user.overlay.", "security.selinux")


def archive_kind(source: Source, node: Node) -> str:
    """How the file's tar is compressed ("none", "gzip", "bzip2", "xz", "zstd"); "" when it is no tar with an entry."""
    if not node.is_file:
        return ""
    with open(source.open(node), "rb") as raw:
        kind = compression_of(raw.read(16))
        raw.seek(0)
        try:
            next(TarStream(open_archive(raw, kind)).members())
        except (StopIteration, EngineError, *_DAMAGE):
            return ""
    return kind


def compression_of(head: bytes) -> str:
    if head.startswith(b"BZh"):
        return "bzip2"
    if head.startswith(b"\xfd7zXZ\0"):
        return "xz"
    return sniff(head)


def open_archive(raw: BinaryIO, kind: str) -> BinaryIO:
    """The plain tar. Reading raises `Corrupt`, `OSError` or `EOFError` where it is damaged."""
    if kind == "bzip2":
        return cast(BinaryIO, bz2.BZ2File(raw))
    if kind == "xz":
        # A decoder may ask for its dictionary's size: 128 MiB is what xz -9 needs, and our bound.
        return cast(BinaryIO, io.BufferedReader(_Xz(raw), _CHUNK))
    return decompress(raw, "gzip" if kind == "gzip" else "zstd" if kind == "zstd" else "none")


class _Xz(io.RawIOBase):
    """lzma.LZMAFile has no memory limit."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._new()

    def _new(self) -> None:
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=160 << 20)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while True:
            data = b""
            if self._decoder.eof:
                rest = self._decoder.unused_data.lstrip(b"\0") or self._raw.read(_CHUNK).lstrip(b"\0")
                if not rest:
                    return 0
                self._new()
                data = self._decoder.decompress(rest, len(view))
            elif self._decoder.needs_input:
                more = self._raw.read(_CHUNK)
                if not more:
                    raise Corrupt("the xz archive is cut off")
                data = self._decoder.decompress(more, len(view))
            else:
                data = self._decoder.decompress(b"", len(view))
            if data:
                view[: len(data)] = data
                return len(data)


def unpack(writer: UpperWriter, tree: Tree, plan: CopyPlan, cancel: CancelToken) -> None:
    """Unpacks the tree's one file into the plan's destination, a directory that is made where it is missing."""
    dest = writer.resolve(plan.dest)
    writer.make_dirs(dest, owner=plan.owner)
    with open(tree.source.open(tree.top), "rb") as raw:
        tar = TarStream(open_archive(raw, tree.archive))
        job = _Unpacking(writer, dest, plan.owner, tree.name)
        try:
            for member in tar.members():
                cancel.check()
                job.member(member, tar)
        except (EOFError, lzma.LZMAError, ValueError) as error:
            raise Corrupt(f"the archive {tree.name} is damaged: {error}") from error


class _Unpacking:
    def __init__(self, writer: UpperWriter, dest: str, owner: tuple[int, int] | None, archive: str) -> None:
        self._writer, self._dest, self._owner, self._archive = writer, dest, owner, archive
        free = os.statvfs(writer.real(""))
        self._budget = max(0, free.f_bavail * free.f_frsize - RESERVE)
        self._entries = 0

    def _hostile(self, text: str) -> HostileArchive:
        return HostileArchive(f"the archive {self._archive}: {text}")

    def member(self, member: Member, tar: TarStream) -> None:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise self._hostile(f"more than {MAX_ENTRIES:,} entries")
        name = self._clean(member.name)
        if not name:
            return  # the destination keeps its own owner and mode
        parent, _, last = name.rpartition("/")
        folder = self._writer.resolve(parent, self._dest)
        self._writer.make_dirs(folder)
        path = f"{folder}/{last}" if folder else last
        status = self._writer.status(path)
        if status is not None and not (stat.S_ISDIR(status.st_mode) and member.kind == "dir"):
            self._writer.clear(path, trees=True)
        self._write(member, tar, path)

    def _clean(self, name: str) -> str:
        if "\0" in name:
            raise self._hostile("a NUL byte in a name")
        parts: list[str] = []
        for part in name.split("/"):
            if part == "..":
                if not parts:
                    raise self._hostile(f"the entry {name[:80]!r} would leave the destination")
                parts.pop()
            elif part not in ("", "."):
                if len(os.fsencode(part)) > 255:
                    raise self._hostile(f"the entry {name[:80]!r} has a component longer than 255 bytes")
                parts.append(part)
        if len(parts) > MAX_DEPTH:
            raise self._hostile(f"the entry {name[:60]!r}… is more than {MAX_DEPTH} directories deep")
        return "/".join(parts)

    def _write(self, member: Member, tar: TarStream, path: str) -> None:
        writer, mode = self._writer, member.mode
        match member.kind:
            case "dir":
                writer.directory(path)
            case "file":
                self._file(member, tar, path)
            case "hardlink":
                target = posixpath.normpath("/" + member.link).lstrip("/")
                folder = writer.resolve(posixpath.dirname(target), self._dest)
                name = posixpath.basename(target)
                writer.hard_link(path, f"{folder}/{name}" if folder else name)
                return
            case "symlink":
                writer.link(path, member.link)
            case "fifo":
                writer.node(path, stat.S_IFIFO | 0o600, 0)
            case _:
                kind = stat.S_IFCHR if member.kind == "char" else stat.S_IFBLK
                writer.node(path, kind | 0o600, os.makedev(*member.dev))
        owner = self._owner or (member.uid, member.gid)
        if max(owner) > 2**32 - 2 or min(owner) < 0:
            raise self._hostile(f"the entry {member.name[:80]!r} has an owner that cannot be")
        xattrs = {name: value for name, value in member.xattrs.items() if not name.startswith(_DROPPED)}
        writer.finish(path, owner, None if member.kind == "symlink" else mode, _bounded(member.mtime) * 10**9, xattrs)

    def _file(self, member: Member, tar: TarStream, path: str) -> None:
        fragments = member.sparse
        wanted = member.size  # of a sparse file too: its layer holds every byte
        if wanted > self._budget:
            raise StorageFull(
                f"{path} in the archive {self._archive} needs {wanted} bytes and {self._budget} are free",
                hint="free some space, or choose another disk with --root",
            )
        self._budget -= wanted
        fd = self._writer.create(path)
        with open(fd, "wb", buffering=0) as file:
            for offset, size in [(0, member.size)] if fragments is None else fragments:
                file.seek(offset)
                while size and (data := tar.read(min(size, _CHUNK))):
                    file.write(data)
                    size -= len(data)
            if fragments is not None:
                file.truncate(member.size)


def _bounded(mtime: int) -> int:
    return min(max(mtime, -(2**31)), 2**33)
