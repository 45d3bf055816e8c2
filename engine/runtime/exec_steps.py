"""An exec as a list of system calls: what `execs.run` does in a fork of the monitor, for the small program of `tiny_exec`.

The monitor reads and decides, the program performs. It begins in the monitor's own pid namespace, where nobody in the container can
see it, goes into the container, gives up what the command is not to have, and forks the command's process, which stays the monitor's
child (CLONE_PARENT). What is seen in there has nothing of the host's, and no power to lend to who traces it (CVE-2016-9962).

Not for a terminal, nor for an ordinary user's containers, nor where what names the user is not the image's own file: what those need
may make the caller wait, and the monitor must not (`execs.run` does them).
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import struct
from typing import Any

from engine.linux import apparmor, capability, idmap, libc, namespace
from engine.linux.cgroup import Cgroup
from engine.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV
from engine.runtime import init, init_userns, outside, tiny_exec
from engine.runtime.init import Command
from engine.runtime.spec_process import exec_process
from engine.runtime.tiny_exec import KEEP, KEPT, MAY_FAIL, Steps
from engine.runtime.users import Elsewhere, identify

_JOIN = namespace.NEWNS | namespace.NEWUTS | namespace.NEWIPC | namespace.NEWNET | namespace.NEWCGROUP
_PIDFD, _PROC, _GROUP = range(tiny_exec.OTHERS, tiny_exec.OTHERS + 3)
_INTO_CGROUP = 0x200000000
_AT_FDCWD = -100
_C_LIBRARY = (32, 33)  # signals that glibc keeps for itself, and ignores in what it spawns


class Failed(Exception):
    """What is to be told: `init.explain`."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error


class Plan:
    """The steps of one exec, and how its errors read."""

    def __init__(self, steps: Steps, command: Command, *, into: bool) -> None:
        """`into`: there is a fork before the last one, into the cgroup."""
        self.steps, self.into = steps, into
        self._command = command

    def gone(self, step: int, number: int) -> bool:
        """Whether that is a step that fails where the container has ended (EAGAIN: there are too many processes)."""
        return self.steps.why(step)[1] in ("setns", "clone", "clone3") and number != errno.EAGAIN

    def failed(self, step: int, number: int, detail: int) -> dict[str, Any]:
        """`init.explain` of a report."""
        stage, what = self.steps.why(step)
        command, which = self._command, detail >> 8
        error: Exception = OSError(number, f"{what}: {os.strerror(number)}")
        if stage == "privileges" and what == "chdir":
            error = init.no_directory(command.cwd, number)
        elif what == "execve" and detail & 0xFF == tiny_exec.AT_STAT:
            error = init.no_file(command.candidates[which], command, number)
        elif what == "execve" and detail & 0xFF == tiny_exec.AT_EXEC:
            error = init.not_executed(command.candidates[which], number)
        elif what == "execve":
            error = init.not_found(command, number)
        return init.explain(stage, error)


def possible(spec: dict[str, Any], *, tty: bool) -> bool:
    return not tty and not init_userns.exec_flag(spec) and libc.kernel() >= (5, 8) and not idmap.inside()


def make(
    spec: dict[str, Any], request: dict[str, Any], pid: int, cgroup: Cgroup, stdio: tuple[int, ...]
) -> Plan | None:
    """None: it takes a fork. Raises Failed."""
    stage = "user"
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            process, user = exec_process(spec, request)
            identity = identify(root, user, spec["workbench"].get("group_add", ()), no_mounts=True)
        finally:
            os.close(root)
        command = init.prepare(process, spec["workbench"], identity, init=False)
        if request.get("privileged"):
            command = init.unfiltered(command)
        init.own_stdio((stdio[0], stdio[1], stdio[2]), init_userns.owner(spec, identity.uid))
    except Elsewhere:
        return None
    except Exception as error:
        raise Failed(init.explain(stage, error)) from error
    steps = Steps()
    into = bool(cgroup.v2 and "" in cgroup.directories)
    _settle(steps, spec, cgroup, into=into)
    if "apparmorProfile" in spec["process"]:
        steps.stage = "AppArmor"
        _profile(steps, "unconfined" if request.get("privileged") else spec["process"]["apparmorProfile"])
    steps.stage = "namespaces"
    hidden = init.may_fork(command)
    _limits(steps, init.limits_before_fork(command) if hidden else command.rlimits)
    times = namespace.NEWTIME if os.path.exists("/proc/self/ns/time") else 0
    steps.call("setns", _PIDFD, namespace.NEWPID | times)
    steps.call("setns", _PIDFD, _JOIN)
    steps.call("chdir", steps.point(b"/\0"))
    _close(steps)
    if not hidden:
        _appear(steps, command)
    steps.stage = "privileges"
    _confine(steps, command)
    if hidden:
        _appear(steps, command)
    steps.stage = "exec"
    env = [key + b"=" + value for key, value in command.env.items()]
    steps.execute(command.candidates, command.argv, env, direct=b"/" in command.argv[0])
    return Plan(steps, command, into=into)


def _settle(steps: Steps, spec: dict[str, Any], cgroup: Cgroup, *, into: bool) -> None:
    """Before it is seen in the container: what `init.leave_monitor` and `init.own_settings` do."""
    steps.stage = "process"
    steps.call("prctl", libc.PR_SET_DUMPABLE, 0, 0, 0, 0)
    if into:  # v2: a fork into the group, which is no move; else the other fork, and the way into it
        # struct clone_args, as in libc.clone_into; the signal is that of the caller's own end
        raw = struct.pack("=11Q", _INTO_CGROUP | libc.CLONE_PARENT, *(0,) * 9, _GROUP)
        steps.fork("clone3", steps.point(raw), len(raw), flags=MAY_FAIL, skip=4)
        steps.fork("clone", libc.CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
        steps.stage = "cgroup"
        path = steps.point(os.fsencode(cgroup.directories[""] / "cgroup.procs") + b"\0")
        steps.call("openat", _AT_FDCWD, path, os.O_WRONLY | os.O_CLOEXEC, 0, flags=KEEP)
        steps.call("write", 0, steps.point(b"0"), 1, flags=KEPT)
        steps.call("close", 0, flags=KEPT)
    else:
        steps.stage = "cgroup"
        for number in range(len(cgroup.joined())):
            steps.call("write", _GROUP + number, steps.point(b"0"), 1)
    steps.stage = "process"
    default = steps.point(bytes(32))
    for number in _C_LIBRARY:
        steps.call("sigaction", number, default, 0, 8)
    steps.call("umask", 0o022)
    steps.call("keyctl", 1, 0, flags=MAY_FAIL)
    wanted = int(spec["process"].get("oomScoreAdj", 0))
    with open("/proc/self/oom_score_adj", "rb") as file:
        if int(file.read()) != wanted:
            _write_own(steps, "oom_score_adj", str(wanted).encode(), f"oom_score_adj {wanted}")


def _limits(steps: Steps, limits: list[tuple[int, int, int]]) -> None:
    for kind, soft, hard in limits:
        limit = struct.pack("=QQ", soft & 0xFFFFFFFFFFFFFFFF, hard & 0xFFFFFFFFFFFFFFFF)
        steps.call("prlimit64", 0, kind, steps.point(limit), 0)


def _close(steps: Steps) -> None:
    """What is open from here on are the streams and the channel."""
    steps.stage = "standard streams"
    steps.call("fcntl", tiny_exec.CHANNEL, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    steps.call("close_range", tiny_exec.LIST, 0xFFFFFFFF, 0)


def _appear(steps: Steps, command: Command) -> None:
    """`init.appear`."""
    steps.stage = "process"
    steps.fork("clone", init.APPEARS, 0, 0, 0, 0)
    _limits(steps, [limit for limit in command.rlimits if limit[0] == resource.RLIMIT_NPROC])
    steps.call("prctl", libc.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    steps.call("setsid")


def _write_own(steps: Steps, path: str, data: bytes, what: str) -> None:
    """A file of /proc/thread-self, with nothing mounted over it on the way."""
    how = struct.pack("=QQQ", os.O_WRONLY | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)
    where = steps.point(os.fsencode(f"thread-self/{path}") + b"\0")
    steps.call("openat2", _PROC, where, steps.point(how), len(how), flags=KEEP, what=what)
    steps.call("write", 0, steps.point(data), len(data), flags=KEPT, what=what)
    steps.call("close", 0, flags=KEPT)


def _profile(steps: Steps, name: str) -> None:
    """`apparmor.profile_on_exec`."""
    own = "attr/apparmor/exec"
    if not os.path.exists(f"/proc/thread-self/{own}"):  # before Linux 5.8
        own = "attr/exec"
    _write_own(steps, own, b"exec " + name.encode(), "profile")


def _confine(steps: Steps, command: Command) -> None:
    """`init.confine`, in its order."""
    program = steps.point(command.seccomp)
    filter_ = steps.point(struct.pack("@HP", len(command.seccomp) // 8, program))
    if command.no_new_privileges:
        steps.call("prctl", libc.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    elif command.seccomp:
        steps.call("seccomp", 1, 0, filter_)
    for number in range(command.last_cap + 1):
        if not command.bounding >> number & 1:
            steps.call("prctl", libc.PR_CAPBSET_DROP, number, 0, 0, 0)
    steps.enter(command.cwd)
    identity = command.identity
    if not command.keep_groups:
        groups = identity.groups
        steps.call("setgroups", len(groups), steps.point(struct.pack(f"={len(groups)}I", *groups)))
    steps.call("setresgid", identity.gid, identity.gid, identity.gid)
    steps.call("setresuid", identity.uid, identity.uid, identity.uid)
    header, data = capability.sets(command.capabilities)
    steps.call("capset", steps.point(header), steps.point(data))
    steps.call("prctl", libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if command.no_new_privileges and command.seccomp:
        steps.call("seccomp", 1, 0, filter_)


def start(plan: Plan, stdio: tuple[int, ...], pidfd: int, cgroup: Cgroup, channel: int) -> int:
    """Starts the program, which reports on `channel`. Returns its process id, which is not yet the command's. Raises OSError."""
    others = [pidfd, os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        apparmor.verified_proc(others[1])
        if plan.into:
            others.append(os.open(cgroup.directories[""], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        else:
            others += [os.open(place / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for place in cgroup.joined()]
        with outside.at_home():
            return tiny_exec.spawn(plan.steps, stdio, channel, others, init.IGNORED)
    except FileNotFoundError:
        raise ProcessLookupError("the container is not running") from None
    finally:
        for fd in others[1:]:
            os.close(fd)
