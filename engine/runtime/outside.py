"""Children of a monitor that are not the container's: forked into the monitor's own pid namespace.

A monitor's forks land in the container's pid namespace (see `launch`); there the container would see them, and they would
die with it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from engine.linux import libc, namespace
from engine.runtime.loop import READ, Loop


def own_children() -> None:
    """From now on forks land in the caller's own pid namespace, and it may unshare another one."""
    fd = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespace.setns(fd, namespace.NEWPID)
    finally:
        os.close(fd)


def fork() -> int:
    try:
        back = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # nobody was born there yet
        back = -1
    own_children()
    pid = -1
    try:
        pid = os.fork()
    finally:
        if back >= 0:
            if pid:  # the child stays outside, and so do its children
                with contextlib.suppress(OSError):  # the container has ended: nothing will be forked there any more
                    namespace.setns(back, namespace.NEWPID)
            os.close(back)
    return pid


def run(loop: Loop, work: Callable[[], object], done: Callable[[], object]) -> None:
    """`work` in a child, with nothing of ours open; then `done` here, however it went."""
    pid = fork()
    if pid == 0:
        status = 1
        try:
            libc.close_from(3)
            os.nice(10)
            work()
            status = 0
        finally:
            os._exit(status)
    pidfd = os.pidfd_open(pid)

    def ended(fd: int, _events: int) -> None:
        loop.forget(fd)
        os.close(fd)
        os.waitpid(pid, 0)
        done()

    loop.watch(pidfd, READ, ended)


def spawn(argv: list[str]) -> None:
    """Starts a program of the host's that outlives us: own session, no terminal, no descriptor of ours."""
    pid = fork()
    if pid == 0:
        try:
            os.setsid()
            if os.fork():
                os._exit(0)
            libc.close_from(3)
            os.execve(argv[0], argv, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_CTYPE": "C.UTF-8"})
        finally:
            os._exit(127)
    os.waitpid(pid, 0)
