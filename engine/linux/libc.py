"""The C library's door to the kernel: system calls that Python's `os` does not have, each raising `OSError`.

Standard library only, and nothing is looked up lazily: the container's init calls these after its root has been
exchanged for the container's, where an import would run the image's files (CVE-2019-14271).
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

MACHINE = os.uname().machine
# Numbers below 424 differ by architecture; from there on (Linux 5.1) all architectures share one table.
_X86 = MACHINE == "x86_64"
NR_PIVOT_ROOT = 155 if _X86 else 41
NR_KEYCTL = 250 if _X86 else 219
NR_SECCOMP = 317 if _X86 else 277
NR_CLONE = 56 if _X86 else 220
NR_PRLIMIT64 = 302 if _X86 else 261
NR_CAPGET = 125 if _X86 else 90
NR_CAPSET = 126 if _X86 else 91
NR_OPEN_TREE = 428
NR_MOVE_MOUNT = 429
NR_CLONE3 = 435
NR_CLOSE_RANGE = 436
NR_MOUNT_SETATTR = 442


@functools.cache
def kernel() -> tuple[int, int]:
    """Linux's version: major and minor."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(character for character in minor if character.isdigit()) or 0)


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None, what: str = "") -> int:
    """Calls `number`; integers are passed as C longs, bytes as pointers. Raises OSError naming `what`."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise os_error(what)
    return result


def os_error(what: str = "") -> OSError:
    """The OSError for errno as the last call left it."""
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}" if what else os.strerror(number))


def call(name: str, *arguments: int | bytes | None) -> int:
    """Calls the C library's `name`. Raises OSError naming it."""
    words = [ctypes.c_ulong(a & 0xFFFFFFFFFFFFFFFF) if isinstance(a, int) else a for a in arguments]
    result: int = getattr(_libc, name)(*words)
    if result < 0:
        raise os_error(name)
    return result


def call_buffer(name: str, number: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    """Calls the C library's `name(number, buffer)`. Raises OSError naming it."""
    if getattr(_libc, name)(ctypes.c_int(number), buffer) < 0:
        raise os_error(name)


# Bound now: getattr on a CDLL is a dlsym, which must not happen for the first time inside the container.
for _name in ("mount", "umount2", "unshare", "setns", "prctl", "sethostname", "fstatfs"):
    getattr(_libc, _name, None)  # None: macOS, where the app loads this and uses none of it

# --- prctl(2) -------------------------------------------------------------------------------------
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4


def prctl(option: int, argument: int = 0, *rest: int) -> int:
    return call("prctl", option, argument, *(rest or (0, 0, 0)))


def set_name(name: str) -> None:
    """The name that `ps -o comm` shows (15 bytes)."""
    call("prctl", PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def close_from(first: int) -> None:
    """Closes every descriptor from `first` on."""
    try:
        syscall(NR_CLOSE_RANGE, first, 0xFFFFFFFF, 0, what="close_range")
    except OSError:  # before Linux 5.9
        os.closerange(first, 65536)


CLONE_PARENT = 0x8000


def clone(flags: int) -> int:
    """fork(2) with flags: the child's pid, 0 in the child. Only from a process of one thread: Python and the C library
    are not told."""
    return syscall(NR_CLONE, flags, None, None, None, 0, what="clone")


def clone_into(group: int) -> int:
    """fork(2) into the cgroup v2 whose directory `group` is (clone3(2), CLONE_INTO_CGROUP: Linux 5.7). As `clone`."""
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
    raw = struct.pack("=11Q", 0x200000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, group)
    return syscall(NR_CLONE3, raw, len(raw), what="clone3")


def join_session_keyring() -> None:
    """A fresh session keyring, so that the caller's keys do not follow into the container (as runc)."""
    syscall(NR_KEYCTL, 1, None, what="keyctl")
