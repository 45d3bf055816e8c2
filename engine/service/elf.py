"""What an ELF file needs to run: its interpreter, its shared libraries, and where it looks for them (elf(5), ld.so(8))."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29


@dataclass(frozen=True, slots=True)
class Elf:
    """`search` are RPATH and RUNPATH folders with $ORIGIN replaced."""

    interpreter: str
    needed: tuple[str, ...]
    search: tuple[str, ...]


def read_elf(path: Path) -> Elf | None:
    """None for anything but a 64-bit little-endian ELF file (the only kind on x86_64 and aarch64 Linux)."""
    with open(path, "rb") as file:
        if file.read(6) != b"\x7fELF\x02\x01":
            return None
        file.seek(0)
        data = file.read()
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", data, offset + index * size) for index in range(count)]
    interpreter, dynamic = "", b""
    loads = [(header[3], header[2], header[5]) for header in headers if header[0] == _PT_LOAD]
    for kind, _, where, _, _, length, _, _ in headers:
        if kind == _PT_INTERP:
            interpreter = data[where : where + length].rstrip(b"\0").decode()
        elif kind == _PT_DYNAMIC:
            dynamic = data[where : where + length]
    tags = [struct.unpack_from("<qQ", dynamic, at) for at in range(0, len(dynamic) - 15, 16)]
    table = next((value for tag, value in tags if tag == _DT_STRTAB), 0)
    strings = next(
        (where + table - address for address, where, length in loads if address <= table < address + length), 0
    )

    def text(value: int) -> str:
        return data[strings + value : data.index(b"\0", strings + value)].decode("utf-8", "surrogateescape")

    needed = tuple(text(value) for tag, value in tags if tag == _DT_NEEDED)
    paths = [part for tag, value in tags if tag in (_DT_RPATH, _DT_RUNPATH) for part in text(value).split(":") if part]
    origin = str(path.parent)
    return Elf(
        interpreter, needed, tuple(part.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for part in paths)
    )
