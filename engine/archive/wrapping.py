"""What a whole archive may be wrapped in: gzip and zstd like layers, and bzip2 and xz as `docker load` and `import` take them."""

from __future__ import annotations

import bz2
import io
import lzma
from typing import Any, BinaryIO, cast

from engine.archive.compression import CHUNK, decompress, sniff
from engine.errors import Corrupt

_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"
_XZ_MEMORY = 192 << 20  # what `xz -9` needs, and a bound: a header may ask for 4 GiB


def unwrap(raw: BinaryIO) -> BinaryIO:
    """The tar inside `raw`, whatever it is compressed with. Reading raises `Corrupt` when it is damaged or cut off."""
    buffered: Any = raw if hasattr(raw, "peek") else io.BufferedReader(cast(Any, raw), CHUNK)
    head = bytes(buffered.peek(6)[:6])
    if head.startswith(_BZIP2):
        return cast(BinaryIO, io.BufferedReader(_Unpacker(buffered, "bzip2"), CHUNK))
    if head.startswith(_XZ):
        return cast(BinaryIO, io.BufferedReader(_Unpacker(buffered, "xz"), CHUNK))
    return decompress(cast(BinaryIO, buffered), sniff(head))


class _Unpacker(io.RawIOBase):
    def __init__(self, raw: BinaryIO, kind: str) -> None:
        self._raw, self._kind = raw, kind
        self._engine: Any = None
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._engine is None or self._engine.eof:
                self._rest = (self._engine.unused_data if self._engine is not None else b"") or self._raw.read(CHUNK)
                if not self._rest.strip(b"\0"):  # xz streams are padded with zeros
                    return 0
                new = bz2.BZ2Decompressor if self._kind == "bzip2" else self._xz
                self._engine = new()
            source = b""
            if self._engine.needs_input:
                source, self._rest = self._rest or self._raw.read(CHUNK), b""
                if not source:
                    raise Corrupt(f"the {self._kind} archive is cut off")
            try:
                data: bytes = self._engine.decompress(source, len(buffer))
            except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
                raise Corrupt(f"the {self._kind} archive is damaged: {error}") from error
            if data:
                buffer[: len(data)] = data
                return len(data)

    @staticmethod
    def _xz() -> Any:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
