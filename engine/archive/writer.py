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
_TYPES = {"file": b"0", "hardlink": b"1", "symlink": b"2", "char": b"3", "block": b"4", "dir": b"5", "fifo": b"6"}
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

    def add(self, entry: TarEntry, body: BinaryIO | None = None) -> None:
        """Raises `Corrupt` when the body is shorter than `size`; what is longer is left unread."""
        name = entry.path + ("/" if entry.kind == "dir" and not entry.path.endswith("/") else "")
        raw_name, raw_link = name.encode("utf-8", "surrogateescape"), entry.link.encode("utf-8", "surrogateescape")
        size = entry.size if entry.kind == "file" else 0
        pax = _extended(entry, raw_name, raw_link, size)
        if pax:
            records = b"".join(_record(key, value) for key, value in sorted(pax.items()))
            self._write(_header(b"PaxHeaders.0/" + raw_name[:80], b"x", 0o644, 0, 0, len(records), 0, b"", (0, 0)))
            self._write(records)
            self._pad()
        self._write(
            _header(
                raw_name, _TYPES[entry.kind], entry.mode, entry.uid, entry.gid, size, entry.mtime, raw_link, entry.dev
            )
        )
        if size:
            self._body(entry, size, body)
        self._pad()

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


def _octal(value: int, width: int) -> bytes:
    limit = 8 ** (width - 1) - 1
    return f"{value if 0 <= value <= limit else 0:0{width - 1}o}".encode() + b"\0"


def _header(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes, dev: tuple[int, int]
) -> bytes:
    if b"\0" in name or b"\0" in link:
        raise InvalidInput(f"a NUL byte in the path {name!r}")
    fields = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            _octal(mode & 0o7777, 8),
            _octal(uid, 8),
            _octal(gid, 8),
            _octal(size, 12),
            _octal(mtime, 12),
            b" " * 8,
            kind,
            link[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            b"\0" * 64,
            _octal(dev[0], 8) if kind in b"34" else b"\0" * 8,
            _octal(dev[1], 8) if kind in b"34" else b"\0" * 8,
        )
    ).ljust(BLOCK, b"\0")
    checksum = f"{sum(fields):06o}".encode() + b"\0 "
    return fields[:148] + checksum + fields[156:]
