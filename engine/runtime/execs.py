"""A further process in a running container: the child side of `exec`.

The monitor has unshared its pid namespace for children, so its fork already is in the container's pid namespace and
stays the monitor's child, whose exit it can wait for. It is not dumpable from birth (CVE-2016-9962).
"""

from __future__ import annotations

import os
import socket
from typing import Any, NoReturn

from engine.linux import apparmor, namespace, pty
from engine.linux.cgroup import Cgroup
from engine.linux.openat2 import open_in_root
from engine.runtime import init, init_userns
from engine.runtime.spec_process import exec_process
from engine.runtime.users import identify

_JOIN = namespace.NEWNS | namespace.NEWUTS | namespace.NEWIPC | namespace.NEWNET | namespace.NEWCGROUP
_FILES = (
    ("cgroup", namespace.NEWCGROUP),
    ("ipc", namespace.NEWIPC),
    ("uts", namespace.NEWUTS),
    ("net", namespace.NEWNET),
)


def run(
    spec: dict[str, Any],
    request: dict[str, Any],
    pid: int,
    pidfd: int,
    cgroup: Cgroup,
    channel: socket.socket,
    stdio: tuple[int, int, int] | None,
    *,
    joined: bool,
) -> NoReturn:
    """Never returns. `stdio` None: a terminal, whose master is sent over the channel. `joined`: it is in `cgroup` already."""
    stage, report_to = "process", channel.fileno()
    try:
        report_to = os.dup(channel.fileno())
        init.leave_monitor()
        init.own_settings(spec)
        stage = "user"
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        process, user = exec_process(spec, request)
        identity = identify(root, user, spec["workbench"].get("group_add", ()))
        command = init.prepare(process, spec["workbench"], identity, init=False)
        if request.get("privileged"):
            command = init.unfiltered(command)
        stage = "cgroup"
        if not joined:
            cgroup.join()
        stage = "terminal"
        if stdio is None:
            ptmx = open_in_root(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            master, slave = pty.open_pair(ptmx)
            rows, columns = request.get("tty_size") or (0, 0)
            if rows and columns:
                pty.resize(master, rows, columns)
            os.fchown(slave, init_userns.owner(spec, identity.uid), -1)
            socket.send_fds(channel, [b'{"tty":1}\n'], [master])
            os.close(master)
            stdio = (slave, slave, slave)
        else:
            init.own_stdio(stdio, init_userns.owner(spec, identity.uid))
        os.close(root)
        stage = "AppArmor"
        if "apparmorProfile" in spec["process"]:
            apparmor.profile_on_exec("unconfined" if request.get("privileged") else spec["process"]["apparmorProfile"])
        stage = "namespaces"
        hidden = init.may_fork(command)
        init.set_limits(command, before_fork=hidden)
        go_to(pid)
        _join(pid, pidfd, init_userns.exec_flag(spec))
        stage = "standard streams"
        init.take_stdio(stdio, report_to)
        report_to = init.CHANNEL
        if not hidden:
            stage = "process"
            init.appear(command, terminal=bool(request.get("tty")))
        stage = "privileges"
        init.confine(command)
        if hidden:
            stage = "process"
            init.appear(command, terminal=bool(request.get("tty")))
        stage = "exec"
        init.execute(command)
    except BaseException as error:
        init.report(report_to, stage, error)
    finally:
        os._exit(125)


def go_to(pid: int) -> None:
    """The process-id and time namespaces that a container's processes are in, for children of the caller, where they are
    not the caller's own."""
    for name, flag in (("pid", namespace.NEWPID), ("time", namespace.NEWTIME)):
        try:
            if os.stat(f"/proc/{pid}/ns/{name}").st_ino == os.stat(f"/proc/self/ns/{name}").st_ino:
                continue
            fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if name == "pid":
                raise
            continue  # before Linux 5.6
        namespace.setns(fd, flag)
        os.close(fd)


def _join(pid: int, pidfd: int, user: int) -> None:
    """All namespaces at once by pidfd (Linux 5.8), else one by one, the mount namespace last: it hides /proc.

    Those that are the monitor's own too are left out then: an ordinary user may not "join" the host's network.
    """
    try:
        namespace.setns(pidfd, _JOIN | user)
    except OSError:
        files = []
        for name, flag in (("user", user), *_FILES) if user else _FILES:
            fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(fd).st_ino != os.stat(f"/proc/self/ns/{name}").st_ino:
                files.append((fd, flag))
        mount = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        for fd, flag in files:
            namespace.setns(fd, flag)
        namespace.setns(mount, namespace.NEWNS)
    os.chdir(b"/")
