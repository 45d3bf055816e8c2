"""Installing a seccomp filter that was compiled elsewhere."""

from __future__ import annotations

import ctypes

from engine.linux import libc

_SET_MODE_FILTER = 1


def install(program: bytes) -> None:
    """Puts the BPF program (array of struct sock_filter) in force for this thread and what it starts.

    Needs no_new_privs or CAP_SYS_ADMIN (seccomp(2)).
    """
    instructions = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    argument = Program(len(program) // 8, ctypes.addressof(instructions))
    raw = (ctypes.c_char * ctypes.sizeof(argument)).from_buffer(argument)
    libc.syscall(libc.NR_SECCOMP, _SET_MODE_FILTER, 0, raw, what="seccomp")
