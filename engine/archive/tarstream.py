"""Reading tar headers from a stream: ustar, GNU long names, PAX, and the four ways of GNU sparse files.

Sources: pax(1) "pax Extended Header", GNU tar manual "Basic Tar Format" and "Storing Sparse Files". `tarfile` is not used:
its filters were bypassed more than once, and it is a fifth as fast.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from engine.archive.writer import BLOCK, CHUNK
from engine.errors import Corrupt, HostileArchive

MAX_HEADER = 1 << 20  # bytes of one extended header
MAX_SPARSE = 100_000  # fragments of one file
_KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "dir",
    b"6": "fifo",
    b"S": "file",
}


@dataclass(slots=True)
class Member:
    """One entry. `stored` bytes follow in the stream; `size` is what the file will have."""

    name: str
    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    stored: int
    link: str = ""
    dev: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] | None = None


class TarStream:
    """Members of a tar, in order. Every byte read goes into `hash` (unless not `hashed`): at the end it is the diff ID's."""

    def __init__(self, raw: BinaryIO, *, hashed: bool = True) -> None:
        self._raw, self._hashed = raw, hashed
        self.hash = hashlib.sha256()
        self._left = self._padding = 0

    def read(self, size: int) -> bytes:
        """Content of the current member; empty at its end."""
        data = self._take(min(size, self._left))
        self._left -= len(data)
        return data

    def _take(self, size: int) -> bytes:
        if size == 0:
            return b""
        data = self._raw.read(size)
        if len(data) < size:
            parts = [data]
            got = len(data)
            while got < size and (more := self._raw.read(size - got)):
                parts.append(more)
                got += len(more)
            data = b"".join(parts)
        if self._hashed:
            self.hash.update(data)
        if len(data) < size:
            raise Corrupt("the tar is cut off")
        return data

    def _skip(self) -> None:
        while self._left:
            self.read(min(CHUNK, self._left))
        self._skip_padding()

    def _skip_padding(self) -> None:
        """A stream may end within it: the docker command line leaves out the padding of the last file (`build -f -`)."""
        while self._padding and (data := self._raw.read(self._padding)):
            self._padding -= len(data)
            if self._hashed:
                self.hash.update(data)
        self._padding = 0

    def _enter(self, stored: int) -> None:
        if stored < 0:
            raise HostileArchive(f"a tar member of {stored} bytes")
        self._left, self._padding = stored, -stored % BLOCK

    def drain(self) -> None:
        """Reads what follows the end marker, for the digest covers it too."""
        while data := self._raw.read(CHUNK):
            if self._hashed:
                self.hash.update(data)

    def members(self) -> Iterator[Member]:
        pax: dict[str, bytes] = {}
        long_name = long_link = None
        while True:
            self._skip()
            header = self._header()
            if header is None:
                self.drain()
                return
            kind = header[156:157]
            size = _number(header[124:136])
            if kind in b"xgLK" and kind:
                if size > MAX_HEADER:
                    raise HostileArchive(f"an extended tar header of {size} bytes")
                self._enter(size)
                data = self.read(size)
                if kind == b"x":
                    pax |= _pax(data)
                elif kind == b"L":
                    long_name = data.rstrip(b"\0")
                elif kind == b"K":
                    long_link = data.rstrip(b"\0")
                continue
            member = self._member(header, size, pax, long_name, long_link)
            pax, long_name, long_link = {}, None, None
            if member is not None:
                yield member

    def _header(self) -> bytes | None:
        first = self._raw.read(1)
        if not first:
            return None
        if self._hashed:
            self.hash.update(first)
        header = first + self._take(BLOCK - 1)
        if header == b"\0" * BLOCK:
            return None
        # The checksum field itself counts as eight spaces; old tars summed signed bytes.
        unsigned = sum(header) - sum(header[148:156]) + 256
        if _number(header[148:156]) != unsigned:
            raise Corrupt("a tar header's checksum is wrong")
        return header

    def _member(
        self, header: bytes, size: int, pax: dict[str, bytes], long_name: bytes | None, long_link: bytes | None
    ) -> Member | None:
        kind = header[156:157]
        name, link = long_name, long_link
        if name is None:
            name = _text(header[:100])
            if header[257:263] == b"ustar\0" and header[345]:
                name = _text(header[345:500]) + b"/" + name
        name, link = pax.get("path", name), pax.get("linkpath", link if link is not None else _text(header[157:257]))
        if "size" in pax:
            size = _decimal(pax["size"])
        if _KINDS.get(kind) in ("hardlink", "symlink", "char", "block", "dir", "fifo"):
            size = 0
        self._enter(size)
        if kind not in _KINDS:
            return None  # a type this reader does not know: its content is skipped, as GNU tar does
        if b"\0" in name or b"\0" in link:
            raise HostileArchive("a NUL byte in a tar entry's name")
        text = name.decode("utf-8", "surrogateescape")
        what = _KINDS[kind]
        if what == "file" and kind != b"S" and text.endswith("/"):
            what = "dir"
        member = Member(
            text,
            what,
            _number(header[100:108]) & 0o7777,
            _decimal(pax["uid"]) if "uid" in pax else _number(header[108:116]),
            _decimal(pax["gid"]) if "gid" in pax else _number(header[116:124]),
            _seconds(pax["mtime"]) if "mtime" in pax else _number(header[136:148]),
            size,
            size,
            link.decode("utf-8", "surrogateescape"),
            (_number(header[329:337]), _number(header[337:345])) if what in ("char", "block") else (0, 0),
            _attributes(pax),
        )
        self._sparse(member, header, kind, pax)
        return member

    def _sparse(self, member: Member, header: bytes, kind: bytes, pax: dict[str, bytes]) -> None:
        if kind == b"S":
            self._old_sparse(member, header)
        elif pax.get("GNU.sparse.major") == b"1":
            member.name = pax.get("GNU.sparse.name", member.name.encode()).decode("utf-8", "surrogateescape")
            member.size = _decimal(pax.get("GNU.sparse.realsize", b"0"))
            member.sparse = self._sparse_map_1()
        elif "GNU.sparse.map" in pax:
            numbers = [_decimal(part) for part in pax["GNU.sparse.map"].split(b",")]
            member.name = pax.get("GNU.sparse.name", member.name.encode()).decode("utf-8", "surrogateescape")
            member.size = _decimal(pax.get("GNU.sparse.size", b"0"))
            member.sparse = list(zip(numbers[::2], numbers[1::2], strict=False))
        if member.sparse is not None:
            _check_sparse(member)

    def _old_sparse(self, member: Member, header: bytes) -> None:
        fragments = [(header[at : at + 12], header[at + 12 : at + 24]) for at in range(386, 482, 24)]
        more = header[482]
        left, padding = self._left, self._padding
        while more:
            block = self._take(BLOCK)
            fragments += [(block[at : at + 12], block[at + 12 : at + 24]) for at in range(0, 504, 24)]
            more = block[504]
            if len(fragments) > MAX_SPARSE:
                raise HostileArchive(f"{member.name}: more than {MAX_SPARSE} sparse fragments")
        self._left, self._padding = left, padding
        member.size = _number(header[483:495])
        member.sparse = [(_number(offset), _number(size)) for offset, size in fragments if offset.strip(b"\0 ")]

    def _sparse_map_1(self) -> list[tuple[int, int]]:
        """PAX sparse 1.0: decimal numbers, one a line, padded to a block, before the data."""
        buffer = self.read(BLOCK)

        def number() -> int:
            nonlocal buffer
            while b"\n" not in buffer:
                block = self.read(BLOCK)
                if not block or len(buffer) > BLOCK * 2:
                    raise Corrupt("a sparse map is cut off")
                buffer += block
            digits, _, buffer = buffer.partition(b"\n")
            return _decimal(digits)

        count = number()
        if count > MAX_SPARSE:
            raise HostileArchive(f"more than {MAX_SPARSE} sparse fragments")
        return [(number(), number()) for _ in range(count)]


def _check_sparse(member: Member) -> None:
    end = 0
    for offset, size in member.sparse or ():
        if size < 0 or offset < end or offset + size > member.size:
            raise HostileArchive(f"{member.name}: its sparse map is not in order or leaves the file")
        end = offset + size


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _number(raw: bytes) -> int:
    """Octal, or GNU's base-256 when the top bit is set."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big", signed=False) & ((1 << (len(raw) * 8 - 1)) - 1)
        if raw[0] & 0x40:
            value -= 1 << (len(raw) * 8 - 1)
        if not -(2**63) <= value < 2**63:
            raise HostileArchive("a number in a tar header is out of range")
        return value
    digits = raw.strip(b"\0 ").split(b"\0")[0]
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise Corrupt(f"{digits!r} in a tar header is not an octal number") from None


def _seconds(raw: bytes) -> int:
    """A time of a pax record, its fraction dropped."""
    try:
        return int(float(raw))
    except (ValueError, OverflowError):
        raise Corrupt(f"{raw[:40]!r} in a pax header is no time") from None


def _attributes(pax: Mapping[str, bytes]) -> dict[str, bytes]:
    found = {key[13:]: value for key, value in pax.items() if key.startswith("SCHILY.xattr.")}
    if any("\0" in name for name in found):
        raise HostileArchive("a NUL byte in an attribute's name")
    return found


def _decimal(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > 19:
        raise Corrupt(f"{raw[:40]!r} in a tar header is not a number")
    return int(raw)


def _pax(data: bytes) -> dict[str, bytes]:
    records: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        if space < 0 or not data[position:space].isdigit():
            raise Corrupt("a PAX header is damaged")
        length = int(data[position:space])
        record = data[space + 1 : position + length - 1]
        key, equals, value = record.partition(b"=")
        if not equals or length < 5 or position + length > len(data):
            raise Corrupt("a PAX header is damaged")
        records[key.decode("utf-8", "replace")] = value
        position += length
    return records
