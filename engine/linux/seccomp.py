"""Installing a seccomp filter that was compiled elsewhere."""

from __future__ import annotations

import ctypes
import struct

from engine.linux import libc

_SET_MODE_FILTER = 1


def install(program: bytes) -> None:
    """Puts the BPF program (array of struct sock_filter) in force for this thread and what it starts.

    Needs no_new_privs or CAP_SYS_ADMIN (seccomp(2)).
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    argument = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))  # struct sock_fprog
    libc.syscall(libc.NR_SECCOMP, _SET_MODE_FILTER, 0, argument, what="seccomp")
