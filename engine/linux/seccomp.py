"""Installing a seccomp filter that was compiled elsewhere, and asking it."""

from __future__ import annotations

import ctypes
import functools
import struct

from engine.linux import libc

_SET_MODE_FILTER = 1
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
_ALLOW, _LOG = 0x7FFF0000, 0x7FFC0000


def install(program: bytes) -> None:
    """Puts the BPF program (array of struct sock_filter) in force for this thread and what it starts.

    Needs no_new_privs or CAP_SYS_ADMIN (seccomp(2)).
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    argument = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))  # struct sock_fprog
    libc.syscall(libc.NR_SECCOMP, _SET_MODE_FILTER, 0, argument, what="seccomp")


@functools.lru_cache(maxsize=8)
def allows(program: bytes, number: int, *arguments: int) -> bool:
    """Whether the program lets this machine's system call `number` be made with these arguments (each of less than 32 bits). False also
    for a program with instructions that the engine's compilers do not make."""
    if not program:
        return True
    words = (number, _ARCH.get(libc.MACHINE, 0), 0, 0, *(half for argument in arguments for half in (argument, 0)))
    accumulator = at = 0
    while True:
        code, true, false, k = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == 0x20:  # LD W ABS
            accumulator = words[k // 4] if k // 4 < len(words) else 0
        elif code == 0x06:  # RET K
            return k in (_ALLOW, _LOG)
        elif code == 0x05:  # JA
            at += k
        elif code == 0x54:  # AND K
            accumulator &= k
        else:
            tests = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}
            if code not in tests:
                return False
            at += true if tests[code] else false
