"""Compressing and decompressing layers: gzip (ISA-L where it is installed, 2.3 times zlib), zstd, and plain tar."""

from __future__ import annotations

import gzip
import importlib
import io
import zlib
from typing import Any, BinaryIO, Literal, Protocol, cast

from engine.errors import Corrupt, InvalidInput, Unsupported


def _load(*names: str) -> Any:
    """The first module of `names` that is installed, None if there is none."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


_zlib = _load("isal.isal_zlib", "zlib")
_zstd = _load("compression.zstd", "backports.zstd")

CHUNK = 1 << 17
# Of a 155 MB Python image: level 4 makes 59.1 MB at 55 MB/s, level 6 57.6 MB at 27 MB/s. ISA-L's packer is faster still (160 MB/s,
# 64.2 MB), but its bytes differ from one processor to the next; zlib's are the same everywhere.
_LEVEL = 4
MAX_WINDOW_LOG = 27  # 128 MiB: what a decoder must be ready to hold (RFC 8878, 3.1.1.1.2, and our bound)
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = tuple(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))


def sniff(head: bytes) -> Literal["none", "gzip", "zstd"]:
    if head.startswith(_GZIP):
        return "gzip"
    return "zstd" if head.startswith((_ZSTD, *_SKIPPABLE)) else "none"


def decompress(raw: BinaryIO, kind: Literal["none", "gzip", "zstd", "auto"]) -> BinaryIO:
    """The plain bytes of `raw`. Reading raises `Corrupt` when they are cut off, damaged, or not of that kind.

    Members and frames may follow each other; anything else behind the last one is refused.
    """
    if kind == "none":
        return raw
    if kind == "auto":
        buffered = io.BufferedReader(cast(Any, raw)) if not hasattr(raw, "peek") else raw
        kind = sniff(cast(Any, buffered).peek(4)[:4])
        raw = buffered
        if kind == "none":
            return raw
    if kind == "zstd" and _zstd is None:
        raise Unsupported("zstd layers need the package backports.zstd", hint="pip install backports.zstd")
    return cast(BinaryIO, io.BufferedReader(_Decompressor(raw, kind), CHUNK))


class _Decompressor(io.RawIOBase):
    def __init__(self, raw: BinaryIO, kind: str) -> None:
        self._raw, self._kind = raw, kind
        self._input = b""
        self._engine: Any = None
        self._magic = (_GZIP,) if kind == "gzip" else (_ZSTD, *_SKIPPABLE)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def _new(self) -> Any:
        if self._kind == "gzip":
            return _zlib.decompressobj(wbits=31)
        options = {_zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
        return _zstd.ZstdDecompressor(options=options)

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer)
        while True:
            if self._engine is None:
                if len(self._input) < 4:
                    self._input += self._raw.read(CHUNK) or b""
                if not self._input:
                    return 0
                if not self._input.startswith(self._magic):
                    raise Corrupt(f"the layer is not {self._kind}, or there is something else behind its end")
                self._engine = self._new()
            data = self._step(wanted)
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _step(self, wanted: int) -> bytes:
        engine = self._engine
        try:
            if self._kind == "gzip":
                source = self._input or self._raw.read(CHUNK)
                if not source:
                    raise Corrupt("the gzip layer is cut off")
                data = engine.decompress(source, wanted)
                self._input = engine.unconsumed_tail or engine.unused_data
            else:
                source = b""
                if engine.needs_input:
                    source = self._input or self._raw.read(CHUNK)
                    self._input = b""
                    if not source:
                        raise Corrupt("the zstd layer is cut off")
                data = engine.decompress(source, wanted)
                if engine.eof:
                    self._input = engine.unused_data
        except (zlib.error, EOFError, ValueError) as error:
            raise Corrupt(f"the {self._kind} layer is damaged: {error}") from error
        except Exception as error:
            if type(error).__name__ in ("IsalError", "ZstdError", "error"):
                raise Corrupt(f"the {self._kind} layer is damaged: {error}") from error
            raise
        if engine.eof:
            self._engine = None
        return cast(bytes, data)


class Packer(Protocol):
    """Takes plain bytes, writes compressed ones behind itself; `close` writes the end and leaves the file open."""

    def write(self, data: bytes, /) -> int: ...

    def close(self) -> None: ...


def compressor(out: BinaryIO, kind: str) -> Packer:
    """Compresses into `out`: "gzip" (no name and no time in its header) or "zstd". Equal input gives equal bytes."""
    if kind == "gzip":
        return cast(Packer, gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=out, mtime=0))
    if kind != "zstd":
        raise InvalidInput(f"{kind} is not a compression that layers have", hint="gzip and zstd are")
    if _zstd is None:
        raise Unsupported("zstd layers need the package backports.zstd", hint="pip install backports.zstd")
    return cast(Packer, _zstd.ZstdFile(out, "w", level=3))
