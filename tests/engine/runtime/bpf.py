"""Classic BPF as seccomp uses it (linux/filter.h), by an interpreter that knows nothing of the compilers."""

from __future__ import annotations

import struct


def run(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the program returns for one system call."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    accumulator = position = 0
    while True:
        code, true, false, k = struct.unpack_from("=HBBI", program, position * 8)
        position += 1
        if code == 0x20:  # LD W ABS
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x06:  # RET K
            return int(k)
        elif code == 0x05:  # JA
            position += k
        elif code == 0x54:  # AND K
            accumulator &= k
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}
            position += true if holds[code] else false
