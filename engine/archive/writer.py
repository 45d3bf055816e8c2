"""Writing layers: a tar whose bytes depend on its entries alone (image-spec, layer.md; pax(1) for extended headers)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, Protocol

from engine.errors import Corrupt, InvalidInput
from engine.oci.digest import Digest

BLOCK = 512
CHUNK = 1 << 18
TYPES = {"file": b"0", "hardlink": b"1", "symlink": b"2", "char": b"3", "block": b"4", "dir": b"5", "fifo": b"6"}
_MAGIC = b"ustar\x0000"
_MAGIC_SUM = sum(_MAGIC)
_OCTAL7 = 0o7777777
_OCTAL11 = 0o77777777777


class Sink(Protocol):
    def write(self, data: bytes, /) -> int: ...


@dataclass(frozen=True, slots=True)
class TarEntry:
    """`path` is relative, without a leading slash; `mtime` in seconds; `dev` major and minor."""

    path: str
    kind: Literal["file", "dir", "symlink", "hardlink", "char", "block", "fifo"]
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: str = ""
    dev: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """`content_size` is the sum of the files' bytes."""

    diff_id: Digest
    tar_size: int
    content_size: int


class LayerWriter:
    """`hashed` False saves the work where nobody asks for the diff ID (an archive of blobs)."""

    def __init__(self, out: Sink, *, hashed: bool = True) -> None:
        self._out, self._hashed = out, hashed
        self._hash = hashlib.sha256()
        self._size = self._content = 0

    def _write(self, data: bytes) -> None:
        if self._hashed:
            self._hash.update(data)
        self._out.write(data)
        self._size += len(data)

    def _pad(self) -> None:
        rest = self._size % BLOCK
        if rest:
            self._write(b"\0" * (BLOCK - rest))

    def add_whole(self, entry: TarEntry, data: bytes) -> None:
        """An entry whose content is in memory: one write for all of it."""
        self._content += len(data)
        self._write(b"".join((*self._headers(entry), data, b"\0" * (-len(data) % BLOCK))))

    def add(self, entry: TarEntry, body: BinaryIO | None = None) -> None:
        """Raises `Corrupt` when the body is shorter than `size`; what is longer is left unread."""
        for part in self._headers(entry):
            self._write(part)
        size = entry.size if entry.kind == "file" else 0
        if size:
            self._body(entry, size, body)
        self._pad()

    def _headers(self, entry: TarEntry) -> list[bytes]:
        """The entry's header, and the extended one before it where it needs one; each is padded."""
        name = entry.path + ("/" if entry.kind == "dir" and not entry.path.endswith("/") else "")
        raw_name, raw_link = name.encode("utf-8", "surrogateescape"), entry.link.encode("utf-8", "surrogateescape")
        size = entry.size if entry.kind == "file" else 0
        pax = _extended(entry, raw_name, raw_link, size)
        headers = []
        if pax:
            records = b"".join(_record(key, value) for key, value in sorted(pax.items()))
            headers.append(_header(b"PaxHeaders.0/" + raw_name[:80], b"x", 0o644, 0, 0, len(records), 0, b"", (0, 0)))
            headers.append(records + b"\0" * (-len(records) % BLOCK))
        headers.append(
            _header(
                raw_name, TYPES[entry.kind], entry.mode, entry.uid, entry.gid, size, entry.mtime, raw_link, entry.dev
            )
        )
        return headers

    def _body(self, entry: TarEntry, size: int, body: BinaryIO | None) -> None:
        left = size
        while left:
            data = body.read(min(left, CHUNK)) if body else b""
            if not data:
                raise Corrupt(
                    f"{entry.path} became shorter while it was read", hint="build again when it is no longer written to"
                )
            self._write(data)
            left -= len(data)
        self._content += size

    def finish(self) -> Written:
        """Two zero blocks end a tar."""
        self._write(b"\0" * (2 * BLOCK))
        return Written(Digest(f"sha256:{self._hash.hexdigest()}"), self._size, self._content)


def _extended(entry: TarEntry, name: bytes, link: bytes, size: int) -> dict[bytes, bytes]:
    """The PAX records an entry needs beyond its ustar header."""
    pax: dict[bytes, bytes] = {}
    if len(name) > 100 or not name.isascii():
        pax[b"path"] = name
    if len(link) > 100 or not link.isascii():
        pax[b"linkpath"] = link
    for key, value, limit in ((b"uid", entry.uid, _OCTAL7), (b"gid", entry.gid, _OCTAL7), (b"size", size, _OCTAL11)):
        if value > limit:
            pax[key] = str(value).encode()
    if not 0 <= entry.mtime <= _OCTAL11:
        pax[b"mtime"] = str(entry.mtime).encode()
    for key_text, data in entry.xattrs.items():
        pax[b"SCHILY.xattr." + key_text.encode("utf-8", "surrogateescape")] = data
    return pax


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where the length counts itself."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _limited(value: int, digits: int) -> int:
    """What does not fit stands in an extended header; here it is 0."""
    return value if 0 <= value < 8**digits else 0


def _header(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes, dev: tuple[int, int]
) -> bytes:
    if b"\0" in name or b"\0" in link:
        raise InvalidInput(f"a NUL byte in the path {name!r}")
    name, link = name[:100], link[:100]
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        mode & 0o7777, _limited(uid, 7), _limited(gid, 7), _limited(size, 11), _limited(mtime, 11),
    )  # fmt: skip
    devices = b"%07o\0%07o\0" % (_limited(dev[0], 7), _limited(dev[1], 7)) if kind in b"34" else b"\0" * 16
    # The checksum counts itself as eight spaces; the zeros between the fields add nothing.
    checksum = sum(name) + sum(numbers) + 8 * 0x20 + kind[0] + sum(link) + _MAGIC_SUM + sum(devices)
    return b"".join(
        (
            name.ljust(100, b"\0"), numbers, b"%06o\0 " % checksum, kind, link.ljust(100, b"\0"), _MAGIC,
            b"\0" * 64, devices, b"\0" * 167,
        )
    )  # fmt: skip
