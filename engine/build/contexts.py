"""Build contexts that are no folder yet: a tar or a Dockerfile on a stream, a file at a URL.

What a stream is, is told by its first bytes, as the Docker command line does it: a tar (plain or compressed) is a context, anything
else a Dockerfile with an empty context.
"""

from __future__ import annotations

import bz2
import io
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from engine.archive.compression import decompress
from engine.archive.reader import apply_layer
from engine.base.cancel import CancelToken
from engine.build.reading import read_text
from engine.errors import Corrupt, HostileArchive, InvalidInput

BLOCK = 512
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A context folder, or the Dockerfile's text when the stream was one."""

    context: Path
    dockerfile_text: str | None = None


def is_archive(head: bytes) -> bool:
    """Whether `head` (the first 512 bytes) begins a tar or a compressed file."""
    return head.startswith(_COMPRESSED) or _is_tar_header(head)


def _is_tar_header(head: bytes) -> bool:
    """By the header's own checksum (POSIX pax, "ustar Interchange Format"): text cannot meet it by chance."""
    if len(head) < BLOCK:
        return False
    try:
        stored = int(head[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return stored == sum(head[:148]) + 8 * 0x20 + sum(head[156:BLOCK])


def read_stream(stream: BinaryIO, folder: Path, cancel: CancelToken | None = None) -> Unpacked:
    """Unpacks a context from `stream` into the empty `folder`, or finds that it is a Dockerfile. Raises `HostileArchive`, `Corrupt`."""
    head = _read_fully(stream, BLOCK)
    if not head:
        raise InvalidInput(
            "the build context on stdin is empty", hint="pipe a tar of the folder, or a Dockerfile, into it"
        )
    whole = cast(BinaryIO, io.BufferedReader(_Prefixed(head, stream), 1 << 17))
    if is_archive(head):
        unpack(whole, folder, cancel)
        return Unpacked(folder)
    return Unpacked(folder, read_text(whole))


def _read_fully(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes, fewer only at the end: a pipe gives them in pieces."""
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


class _Prefixed(io.RawIOBase):
    """Bytes that were read already, and then the rest of the stream."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        data = data or self._rest.read(len(buffer)) or b""
        buffer[: len(data)] = data
        return len(data)


def unpack(stream: BinaryIO, folder: Path, cancel: CancelToken | None = None) -> None:
    """A tar context from a buffered stream: plain, gzip, bzip2, xz or zstd. It cannot leave `folder`; `.wh.` names are ordinary files in it."""
    try:
        apply_layer(_plain(stream), folder, overlay=False, literal=True, cancel=cancel)
    except HostileArchive as error:
        raise HostileArchive(f"the build context: {error.message}", hint=error.hint) from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Corrupt(f"the compressed build context is damaged: {error}") from error


def _plain(stream: BinaryIO) -> BinaryIO:
    head = bytes(cast(Any, stream).peek(8)[:8])
    if head.startswith(b"BZh"):
        return cast(BinaryIO, bz2.open(stream, "rb"))
    if head.startswith(b"\xfd7zXZ\x00"):
        return cast(BinaryIO, lzma.open(stream, "rb"))
    return decompress(stream, "auto")
