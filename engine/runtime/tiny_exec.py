"""The machine code of `tiny_exec.c` (which says how it is built; symbols and section headers are cut off), and the lists of system
calls that it performs: what a monitor has done by another process, without a fork of itself.

A fork of the monitor copies each page of the interpreter that it, or the monitor after it, so much as looks at (Python counts
references in the objects): some 700 for an exec, which is most of what an exec cost. This program is one page.
"""

from __future__ import annotations

import base64
import fcntl
import os
import signal
import struct
from collections.abc import Sequence

from engine.linux import libc
from engine.linux.memory_program import sealed

_PROGRAMS = {
    "x86_64": (
        "f0VMRgIBAQAAAAAAAAAAAAIAPgABAAAAsABAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAEAAOAACAAAAAAAAAAEAAAAFAAAAsAAAAAAAAACw"
        "AEAAAAAAALAAQAAAAAAAFAMAAAAAAAAUAwAAAAAAAAEAAAAAAAAAUeV0ZAYAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "AAAAAAAAEAAAAAAAAABIg+Tw6J4AAAAx0kUx0kUxwEUxybhQAAAASInWDwVIhcB4MUiB7AAQAAC4TwAAAL4AEAAASInnDwVIhcB4DjHAgDwk"
        "Lw+UwEiNRAD+SIHEABAAAMPDU0Ux0kUxwEUxybgBAAAASIPsIEiJfCQIvwMAAABIiXQkEEiNdCQISIlUJBi6GAAAAA8Fu+cAAAC/fQAAADHS"
        "RTHSRTHARTHJSInYSInWDwXr60FXQboCABAARTHJuAkAAABBVkG4BAAAAL8AAAAQvgAAAARBVboDAAAAQVRVU0iB7BgBAAAPBUg9AAAAEHQZ"
        "vg0AAABIhcB5Bkj32EiJxjHSMf/pnQAAALsAAAAQMe1IjYMAAADwSMH4BkiJBCSLA2aD+AMPhRUBAABIi0MgTItrKDHtSI1UJBhMi3MQQb8G"
        "AQAASMfHnP///0iJRCQISItDGDHbSIlEJBDrEEiD+PMPlMAPtsBI/8NICcVNiyTeTYXkD4StAAAARTHSRTHARTHJTIn4TInmDwVIhcB5G02F"
        "7XTISInaSPfYSMHiCEiJxkiLPCTotf7//4tMJDCJyCUA8AAAPQBAAAB0BYDhSXUyTYXtdCBIidox9kjB4ghIg8oCPQBAAABAD5TGSI009Q0A"
        "AADruz0AQAAAD5XA6XD///9IweMISIt0JBBFMdJFMcBIi1QkCEiDywFFMclMiee4OwAAAA8FSPfYSInaSInG6Xv///9Ig/0BugIAAABIGfZI"
        "g+b1SIPGDeli////ZoP4AnULSIt7EOjF/f//6ydMi0s4TItDMEiJ70yLUyhIi1MgSItzGPZDAgR1BEiLexBIi0MIDwVmi1MCSIXAeSL2wgF1"
        "DUj32DHSSInG6Q////+A4gJ0A0iJxWaDOwF1detkgOICSA9F6GaDOwF1ZkiFwHRXSIlEJCC5/////zHARTHSSIlEJChIjXQkGEUxwEUxyUiJ"
        "TCQYuAEAAAC/AwAAALoYAAAADwW75wAAADHSRTHSRTHARTHJSInYSInXSInWDwXr6EiFwHUKi0MESMHgBkgBw0iDw0Dp8f3//w=="
    ),
    "aarch64": (
        "f0VMRgIBAQAAAAAAAAAAAAIAtwABAAAAsABAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAEAAOAACAAAAAAAAAAEAAAAFAAAAsAAAAAAAAACw"
        "AEAAAAAAALAAQAAAAAAAUAMAAAAAAABQAwAAAAAAAAgAAAAAAAAAUeV0ZAYAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "AAAAAAAAEAAAAAAAAAAvAACUKAaA0gEAgNICAIDSAwCA0gQAgNIFAIDSAQAA1KAB+Lf/B0DRKAKA0uADAJEBAILSAQAA1KAA+LfgA0A5H7wA"
        "cSAAgJIAEJ+a/wdAkcADX9bAA1/W/4MA0QgIgNIDAIDSBACA0gUAgNLghwCpYACA0uEjAJHiDwD5AgOA0gEAANT/gwCRwANf1v17v6n9AwCR"
        "8f//l8gLgNKgD4DSAQCA0gIAgNIDAIDSBACA0gUAgNIBAADU+P//F/17r6lDAIDSyBuA0v0DAJEAAKLSAYCg0mIAgNIDAqDyhACA0gUAgNIB"
        "AADU5gMAqgAAotLfAADr4AAAVN8AAPGhAYDSIaSG2gIAgNIAAIDS4P//lwkAgNLqj2SyxwAKi8AAQHnn/EaTHwwAceEGAFTLMEGpCQCA0s0o"
        "QqkGAIDSYXlm+MEAALU/AQDxQgCA0qEBgNJBAIGaDAAAFOJDAJHoCYDSYAyAkgMAgNIEAIDSBQCA0gEAANRgAfi2qgAAtMLceNPhAwDL4AMH"
        "quH//xcfNACx4BefmikBAKrGBACR6P//F+IjQLlADBQSHxBAcYAAAFQoCYBSXwAIamEBAFQfEEBx6gAAtMLceNOhAYDSoAKA0kIAf7IhEICa"
        "6///F+AHn5rt//8X4AMBquIDDarhAwyqqBuA0gEAANTC3HjTQgBAsuD//xcfCABxYQEAVMAIQPl9//+XwgRAeeEDAKpAAB8SAQP4tuIBADfh"
        "AwHLAgCA0tX//xfABEB5yARA+eAAEDfACED5wYhBqcOQQqnFHED5AQAA1PD//xfgAwmq+v//F8IAQHlfBABxgAAANeACAFTGAAGRqf//F+kD"
        "Aar8//8XHwAAccAAQHkpAYGaHwQAcQH//1TBAQC0AgCA0uB/QLJu//+XyAuA0gAAgNIBAIDSAgCA0gMAgNIEAIDSBQCA0gEAANT4//8XQf3/"
        "tcAEQLnGGACL5///FxAAAAAAAAAAAXpSAAR4HgEbDB8AFAAAABgAAAAQ/f//VAAAAABJDoAgSg4AFAAAADAAAABM/f//NAAAAABBDiBLDgAA"
        "FAAAAEgAAABo/f//MAAAAABBDhCdAp4BGAAAAGAAAACA/f//HAIAAABBDpACnSKeIQAAAA=="
    ),
}

CHANNEL = 3  # where it reports
LIST = 4  # its list
OTHERS = 5  # further descriptors from here on
REMOTE = 0xFFFFFFFF  # in a report instead of a step: the process that was forked
REPORT = struct.Struct("=qqq")  # step, error or process, and what an `execute` failed at (with which candidate, << 8)
AT_STAT, AT_EXEC, AT_SEARCH = range(3)
MOST = 64 << 20  # bytes of a list

_BASE, _ROOM = 0x10000000, 1 << 16  # the steps, and behind them what they point to
_STEP = struct.Struct("=HHIQ6Q")
_CALL, _FORK, _ENTER, _EXEC = range(4)
MAY_FAIL, KEEP, KEPT = 1, 2, 4

# Numbers that differ by architecture (asm/unistd.h of x86_64, asm-generic/unistd.h).
_NUMBERS = {
    "write": (1, 64), "close": (3, 57), "ioctl": (16, 29), "fcntl": (72, 25), "chdir": (80, 49), "umask": (95, 166),
    "setsid": (112, 157), "setgroups": (116, 159), "setresuid": (117, 147), "setresgid": (119, 149), "prctl": (157, 167),
    "openat": (257, 56), "prlimit64": (302, 261), "setns": (308, 268), "openat2": (437, 437),
    "close_range": (436, 436), "keyctl": (libc.NR_KEYCTL,) * 2, "capset": (libc.NR_CAPSET,) * 2,
    "sigaction": (13, 134), "seccomp": (libc.NR_SECCOMP,) * 2, "clone": (libc.NR_CLONE,) * 2, "clone3": (libc.NR_CLONE3,) * 2,
}  # fmt: skip
NUMBERS = {name: pair[libc.MACHINE != "x86_64"] for name, pair in _NUMBERS.items()}


def program(machine: str = "") -> bytes:
    """The ELF file. Raises KeyError for a machine that there is none for."""
    return base64.b64decode(_PROGRAMS[machine or libc.MACHINE])


class Steps:
    """A list in the making. Every step has a stage and what it does, for the words of an error (`why`)."""

    def __init__(self) -> None:
        self.stage = "process"
        self._steps: list[bytes] = []
        self._names: list[tuple[str, str]] = []
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._steps)

    def point(self, data: bytes) -> int:
        """Where `data` will be."""
        self._data += bytes(-len(self._data) % 16)
        where = _BASE + _ROOM + len(self._data)
        self._data += data
        return where

    def strings(self, words: Sequence[bytes]) -> int:
        """Where an array of pointers to `words` will be, with the null that ends it."""
        pointers = [self.point(word + b"\0") for word in words]
        return self.point(struct.pack(f"={len(words) + 1}Q", *pointers, 0))

    def call(self, name: str, *arguments: int, flags: int = 0, what: str = "") -> None:
        self._add(_CALL, NUMBERS[name], arguments, flags, what or name)

    def fork(self, name: str, *arguments: int, flags: int = 0, skip: int = 0) -> None:
        """The parent reports the child and ends; the child leaves out the next `skip` steps."""
        self._add(_FORK, NUMBERS[name], arguments, flags, name, skip)

    def enter(self, path: bytes) -> None:
        """chdir(2), refused for a directory that is not below the root."""
        self._add(_ENTER, 0, (self.point(path + b"\0"),), 0, "chdir")

    def execute(
        self, candidates: Sequence[bytes], argv: Sequence[bytes], env: Sequence[bytes], *, direct: bool
    ) -> None:
        self._add(_EXEC, 0, (self.strings(candidates), self.strings(argv), self.strings(env), int(direct)), 0, "execve")

    def why(self, step: int) -> tuple[str, str]:
        """(stage, what) of a step."""
        return self._names[step]

    def _add(self, kind: int, number: int, arguments: Sequence[int], flags: int, what: str, skip: int = 0) -> None:
        words = [argument & 0xFFFFFFFFFFFFFFFF for argument in arguments]
        self._steps.append(_STEP.pack(kind, flags, skip, number, *words, *(0,) * (6 - len(words))))
        self._names.append((self.stage, what))

    def file(self) -> int:
        """A descriptor of the list. Raises OSError, OverflowError for one that is too long."""
        if len(self._steps) * _STEP.size > _ROOM or len(self._data) + _ROOM > MOST:
            raise OverflowError("too much to pass to a program")
        fd = os.memfd_create("steps", os.MFD_CLOEXEC)
        try:
            os.pwrite(fd, b"".join(self._steps), 0)
            view, at = memoryview(self._data), _ROOM
            while view:
                done = os.pwrite(fd, view, at)
                view, at = view[done:], at + done
        except BaseException:
            os.close(fd)
            raise
        return fd


_opened: list[int] = []


def forget() -> None:
    """Closes what this process has kept of the program."""
    while _opened:
        os.close(_opened.pop())


def spawn(
    steps: Steps, stdio: Sequence[int], channel: int, others: Sequence[int], ignored: Sequence[signal.Signals]
) -> int:
    """Starts the program with `steps`; it reports on `channel`, has `others` from OTHERS on, and the `ignored` signals as a new
    program expects them. Returns its process id, to be waited for. Raises OSError, OverflowError."""
    if not _opened:
        _opened.append(sealed("exec", program()))
    held = [steps.file()]
    try:
        # Out of the way of the low numbers that they are to have.
        wanted = [*stdio, channel, held[0], *others]
        held.extend(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in wanted)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(held[1:])]
        return os.posix_spawn(
            f"/proc/self/fd/{_opened[0]}", ["exec"], {}, file_actions=actions, setsigmask=(), setsigdef=ignored
        )
    finally:
        for fd in held:
            os.close(fd)
