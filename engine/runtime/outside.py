"""Children of a monitor that are not the container's: forked into the monitor's own pid namespace.

A monitor's forks land in the container's pid namespace (see `launch`); there the container would see them, and they would
die with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from engine.linux import libc, namespace
from engine.runtime.loop import READ, Loop


def own_children() -> None:
    """From now on forks land in the caller's own pid namespace, and it may unshare another one."""
    fd = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespace.setns(fd, namespace.NEWPID)
    finally:
        os.close(fd)


_returns: list[bool] = []


def returns() -> bool:
    """Whether this process may have its children born in another pid namespace and come back: an ordinary user's may
    not, since its own pid namespace is the host's. Asked for the first time before it tries."""
    if not _returns:
        try:
            own_children()
            _returns.append(True)
        except OSError:
            _returns.append(False)
    return _returns[0]


def fork_into(enter: Callable[[], object]) -> int:
    """fork(2) into the namespaces that `enter` chooses for children, while this process stays as it is: a child in
    between goes there and has the real one with CLONE_PARENT, which makes it ours. Raises what `enter` does as OSError."""
    read, write = os.pipe2(os.O_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        pid = -1
        try:
            enter()
            pid = libc.clone(libc.CLONE_PARENT | signal.SIGCHLD)
            if pid:
                os.write(write, str(pid).encode())
        except BaseException as error:
            os.write(write, f"{getattr(error, 'errno', 0) or 0} {error}".encode())
        finally:
            if pid:
                os._exit(0)
        os.close(read)
        os.close(write)
        return 0
    os.close(write)
    with os.fdopen(read, "rb") as file:
        answer = file.read().decode(errors="replace")
    os.waitpid(middle, 0)
    if answer.isdigit():
        return int(answer)
    number, _, text = answer.partition(" ")
    raise OSError(int(number or 0), text or "the child between went away")


@contextlib.contextmanager
def at_home() -> Iterator[None]:
    """Children are born in this process's own pid namespace meanwhile."""
    if not returns():
        yield  # it has never left
        return
    try:
        back = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # nobody was born there yet
        back = -1
    own_children()
    try:
        yield
    finally:
        if back >= 0:
            with contextlib.suppress(OSError):  # the container has ended: nothing will be forked there any more
                namespace.setns(back, namespace.NEWPID)
            os.close(back)


def fork() -> int:
    if not returns():
        return os.fork()  # it has never left
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
