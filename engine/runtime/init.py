"""The first process of a container: from a fork of the monitor to execve(2) of the user's command.

Two halves. Before pivot_root the host's files are in sight and anything may be opened. After it the root is the
image's: from then on nothing is imported, no codec is looked up, no name service asked (CVE-2019-14271); all strings
are bytes that were made before. Whatever fails is one JSON message on the channel, which execve closes.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from engine.linux import apparmor, capability, idmap, libc, mount, namespace, pseudo, pty, seccomp
from engine.linux.cgroup import Cgroup, Layout
from engine.linux.openat2 import open_in_root
from engine.runtime import init_namespaces, net_inside, tiny_init
from engine.runtime.init_userns import owner
from engine.runtime.protocol import line
from engine.runtime.rootfs import Rootfs, mount_root
from engine.runtime.rootfs_devices import SetupError, make_console
from engine.runtime.rootfs_protect import protect
from engine.runtime.users import Identity, UserError, identify

JOINED = b"joined"
CHANNEL = 3  # where the error channel lives while the last steps run


class ExecError(Exception):
    """The command cannot be executed; `code` is Docker's exit code (126, 127)."""

    def __init__(self, code: int, number: int, message: bytes) -> None:
        super().__init__(message)
        self.code, self.number, self.message = code, number, message


@dataclass(frozen=True, slots=True)
class Command:
    """Everything the second half needs, as bytes and numbers."""

    argv: list[bytes]
    env: dict[bytes, bytes]
    cwd: bytes
    candidates: list[bytes]
    identity: Identity
    capabilities: int
    bounding: int
    last_cap: int
    no_new_privileges: bool
    seccomp: bytes
    rlimits: list[tuple[int, int, int]]
    keep_groups: bool = False  # in a user namespace of one id nobody may change them
    init: bool = True
    user_namespace: int = -1  # a descriptor of the one to enter
    small_init: int = -1  # a descriptor of `tiny_init`, which then becomes process 1


def prepare(process: dict[str, Any], extra: dict[str, Any], identity: Identity, *, init: bool = True) -> Command:
    """Reads the spec's process into a `Command`."""
    if not (idmap.exists(identity.uid) and idmap.exists(identity.gid, "/proc/self/gid_map")):
        raise UserError(
            f"user {identity.uid}:{identity.gid} does not exist here: the engine's user namespace has no such id (/etc/subuid)"
        )
    env: dict[bytes, bytes] = {}
    for entry in process["env"]:
        key, equals, value = os.fsencode(entry).partition(b"=")
        if equals and key:
            env[key] = value
    if not env.get(b"HOME"):
        env[b"HOME"] = os.fsencode(identity.home)
    argv = [os.fsencode(argument) for argument in process["args"]]
    if b"/" in argv[0]:
        candidates = [argv[0]]
    else:
        folders = env.get(b"PATH", b"").split(b":")
        candidates = [folder + b"/" + argv[0] for folder in folders if folder.startswith(b"/")]
    names = [name.removeprefix("CAP_") for name in process["capabilities"]["bounding"]]
    bits = capability.mask(names) & capability.permitted()
    limits = [(_RLIMITS[e["type"]], _limit(e["soft"]), _limit(e["hard"])) for e in process.get("rlimits", ())]
    return Command(
        argv=argv,
        env=env,
        cwd=os.fsencode(process["cwd"]),
        candidates=candidates if argv[0] else [],
        identity=identity,
        # Docker gives a user other than root the bounding set and nothing else.
        capabilities=bits if identity.uid == 0 else 0,
        bounding=bits,
        last_cap=capability.last_cap(),
        no_new_privileges=bool(process.get("noNewPrivileges")),
        seccomp=base64.b64decode(extra["seccomp"]),
        rlimits=limits,
        init=init,
        keep_groups=idmap.groups_denied(),
    )


# asm-generic/resource.h; the resource module has no LOCKS.
_RLIMITS = {
    f"RLIMIT_{name}": number
    for number, name in enumerate(
        "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME".split()
    )
}


def _limit(value: int) -> int:
    """OCI's number as setrlimit has it: the largest means none."""
    return resource.RLIM_INFINITY if value >= 1 << 63 else int(value)


def unfiltered(command: Command) -> Command:
    """The same without a system call filter: `exec --privileged`."""
    return replace(command, seccomp=b"")


# What Python, the supervisor and the monitor ignore; that would survive execve. All others the supervisor has reset.
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)


def default_signals() -> None:
    """Every signal as a new program expects it."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_DFL)


def take_stdio(fds: tuple[int, int, int], channel: int, keep: Sequence[int] = ()) -> list[int]:
    """0, 1, 2 are `fds`, 3 is the channel, and nothing else is open (CVE-2024-21626) but those of `keep` that are not -1,
    whose new numbers are returned; they are closed by execve like the channel."""
    wanted = [*fds, channel, *(fd for fd in keep if fd >= 0)]
    # Out of the way first: a low descriptor would be overwritten by the next dup2.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in wanted]
    for number, fd in enumerate(high):
        os.dup2(fd, number, inheritable=number < CHANNEL)
    libc.close_from(len(high))
    numbers = iter(range(CHANNEL + 1, len(high)))
    return [next(numbers) if fd >= 0 else -1 for fd in keep]


def own_stdio(fds: tuple[int, int, int], uid: int) -> None:
    """Pipes belong to the container's user, so that it can open /dev/stdout again (as runc)."""
    if uid == 0:
        return
    for fd in fds:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, uid, -1)


def may_fork(command: Command) -> bool:
    """Whether a process can fork once it is confined as that, and lower a limit. The engine's own filters allow both."""
    return seccomp.allows(command.seccomp, libc.NR_CLONE, APPEARS) and seccomp.allows(
        command.seccomp, libc.NR_PRLIMIT64, 0, resource.RLIMIT_NPROC
    )


def limits_before_fork(command: Command) -> list[tuple[int, int, int]]:
    """The limits to set in one that is going to fork: of processes only a limit that is to be raised, and that to the most."""
    most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    found = []
    for kind, soft, hard in command.rlimits:
        if kind != resource.RLIMIT_NPROC:
            found.append((kind, soft, hard))
        elif most != resource.RLIM_INFINITY and not 0 <= hard <= most:
            found.append((kind, hard, hard))
    return found


def set_limits(command: Command, *, before_fork: bool = False) -> None:
    """Before the user namespace is entered: raising a limit takes a capability of the host's. `before_fork`: that of processes is for
    the child (`appear`), since both count."""
    for kind, soft, hard in limits_before_fork(command) if before_fork else command.rlimits:
        try:
            resource.setrlimit(kind, (soft, hard))
        except (ValueError, OSError):  # EPERM comes as a ValueError
            name = next(name for name, number in _RLIMITS.items() if number == kind).removeprefix("RLIMIT_").lower()
            words = f"ulimit {name}={soft}:{hard} is more than this host's kernel or its own limits allow"
            raise SetupError(words) from None


APPEARS = libc.CLONE_PARENT | signal.SIGCHLD


def appear(command: Command, *, terminal: bool) -> None:
    """Forks the process that another container's processes can see, and ends. What is seen has nothing that leads to the host, and
    (where the filter lets a confined process fork: `may_fork`) no power but those of the command that it becomes: so even one in
    there who may trace processes gets nothing by it (CVE-2016-9962). Its parent is the monitor, which is told of it."""
    child = libc.clone(APPEARS)
    if child:
        os.write(CHANNEL, b'{"pid":%d}\n' % child)
        os._exit(0)
    for kind, soft, hard in command.rlimits:
        if kind == resource.RLIMIT_NPROC:
            resource.setrlimit(kind, (soft, hard))
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    if terminal:
        pty.take(0)


def confine(command: Command) -> None:
    """Identity, capabilities, filter: in runc's order. After this the process is the container's."""
    if command.user_namespace >= 0:
        namespace.setns(command.user_namespace, namespace.NEWUSER)
        # A mount namespace that belongs to it: what is mounted so far can then not be taken away by the container's root.
        namespace.unshare(namespace.NEWNS)
        os.close(command.user_namespace)
    if command.no_new_privileges:
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    elif command.seccomp:  # without no_new_privs it takes CAP_SYS_ADMIN, which is about to go
        seccomp.install(command.seccomp)
    capability.drop_bounding(command.bounding, command.last_cap)
    _enter(command.cwd)
    identity = command.identity
    if not command.keep_groups:
        os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    capability.set_effective(command.capabilities)
    if command.init:
        # The container does not outlive its monitor: nobody would log it or learn its exit code.
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if command.no_new_privileges and command.seccomp:
        seccomp.install(command.seccomp)


def _enter(cwd: bytes) -> None:
    try:
        os.chdir(cwd)
        # getcwd(2) gives "(unreachable)", and the C library then ENOENT, for a directory outside the root.
        if not os.getcwdb().startswith(b"/"):
            raise FileNotFoundError(errno.ENOENT, "current working directory is outside of the container")
    except OSError as error:
        raise no_directory(cwd, error.errno or 0) from None


def no_directory(cwd: bytes, number: int) -> ExecError:
    code = 127 if number == errno.ENOENT else 126
    return ExecError(code, number, b"chdir to working directory " + cwd + b": " + _reason(number))


def _reason(number: int) -> bytes:
    return os.strerror(number).encode().lower()


_SMALL_INIT = b"/sbin/workbench-init"  # what ps shows; there is no such file


def execute(command: Command) -> NoReturn:
    """Finds the program as Go's exec.LookPath does, and becomes it."""
    denied = False
    direct = b"/" in command.argv[0]
    for path in command.candidates:
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            if direct:
                raise no_file(path, command, error.errno or 0) from None
            denied = denied or error.errno == errno.EACCES
            continue
        if stat.S_ISDIR(mode) or not mode & 0o111:
            if direct:
                raise not_found(command, errno.EISDIR if stat.S_ISDIR(mode) else errno.EACCES)
            denied = denied or not stat.S_ISDIR(mode)
            continue
        try:
            if command.small_init >= 0:
                os.execve(command.small_init, [_SMALL_INIT, path, *command.argv], command.env)
            os.execve(path, command.argv, command.env)
        except OSError as error:
            raise not_executed(path, error.errno or 0) from None
    raise not_found(command, errno.EACCES if denied else errno.ENOENT)


def no_file(path: bytes, command: Command, number: int) -> ExecError:
    code = 126 if number == errno.EACCES else 127
    return ExecError(code, number, b'exec: "' + command.argv[0] + b'": stat ' + path + b": " + _reason(number))


def not_executed(path: bytes, number: int) -> ExecError:
    return ExecError(127 if number == errno.ENOENT else 126, number, b"exec " + path + b": " + _reason(number))


def not_found(command: Command, number: int) -> ExecError:
    words = {errno.EISDIR: b"is a directory", errno.EACCES: b"permission denied"}
    text = words.get(number, b"executable file not found in $PATH")
    return ExecError(127 if number == errno.ENOENT else 126, number, b'exec: "' + command.argv[0] + b'": ' + text)


def explain(stage: str, error: BaseException) -> dict[str, Any]:
    """The failure as the monitor tells it: Docker's words and code."""
    number, code = getattr(error, "errno", None) or 0, 125
    if isinstance(error, ExecError):
        number, code, message = error.number, error.code, error.message.decode("utf-8", "replace")
    elif isinstance(error, (UserError, SetupError)):
        message = str(error)
    elif isinstance(error, OSError):
        message = f"{stage}: {error.args[1] if len(error.args) > 1 else error}"
        if error.filename:
            message += f": {error.filename!r}"
    else:
        message = f"{stage}: {type(error).__name__}: {error}"
    return {"stage": stage, "errno": number, "message": message[:4000], "code": code}


def report(channel: int, stage: str, error: BaseException) -> None:
    """The failure as the one message that the monitor waits for."""
    try:
        os.write(channel, json.dumps({"error": explain(stage, error)}).encode())
    except OSError:
        pass


def wait_parked(layout: Layout, channel: socket.socket) -> NoReturn:
    """Never returns: makes what every container has (see `parked`), then waits for what it is to be."""
    try:
        leave_monitor()
        os.closerange(3, channel.fileno())  # else whoever waits for the end of the monitor waits for ours
        libc.close_from(channel.fileno() + 1)
        namespace.unshare(namespace.NEWUTS | namespace.NEWIPC | namespace.NEWNET)
        namespace.loopback_up()
        net_inside.open_bridged(channel, ipv6=False)
        raw, fds, _flags, _address = socket.recv_fds(channel, 1 << 16, 3, socket.MSG_CMSG_CLOEXEC)
        if raw:
            bundle = str(json.loads(raw)["bundle"])
            spec = json.loads(pseudo.read(f"{bundle}/config.json"))
            cgroup = Cgroup(layout, spec["linux"]["cgroupsPath"])
            run(spec, bundle, cgroup, channel, (fds[0], fds[1], fds[2]), have=frozenset(("network", "uts", "ipc")))
    except BaseException as error:
        report(channel.fileno(), "namespaces", error)
    finally:
        os._exit(125)


def leave_monitor() -> None:
    """What a fork of the monitor is still like it in."""
    default_signals()
    os.setsid()
    os.umask(0o022)
    try:
        libc.join_session_keyring()
    except OSError:
        pass


def run(
    spec: dict[str, Any],
    bundle: str,
    cgroup: Cgroup,
    channel: socket.socket,
    stdio: tuple[int, int, int],
    have: frozenset[str] = frozenset(),
    *,
    late: bool = False,
) -> NoReturn:
    """Never returns: becomes the command, or reports and exits. `stdio` is not used with a terminal. `have`: the namespaces
    that are made already (and `leave_monitor` was called). `late`: it is not in its pid namespace yet (`comes_late`)."""
    stage, report_to = "process", channel.fileno()
    try:
        # Room for the fixed numbers of take_stdio; made now so that the report always has a place to go.
        report_to = os.dup(channel.fileno())
        if not have:
            leave_monitor()
        own_settings(spec)
        stage = "namespaces"
        remap = init_namespaces.user_namespace(spec)
        shm, held = init_namespaces.enter(spec, channel, remap, have)
        stage = "root file system"
        root = mount_root(spec, bundle, remap)
        stage = "mounts"
        rootfs = Rootfs(root, spec["workbench"]["upper"], track=spec["workbench"]["clean_stubs"], remap=remap)
        if not spec["workbench"]["clean_stubs"]:  # a build step's layer holds what the step wrote
            rootfs.marks()
        rootfs.mount_all(spec, held, init_namespaces.take_proc(spec) if late else -1)
        if shm >= 0:
            rootfs.attach("/dev/shm", shm)
        if cgroup.layout.version != "v2":
            rootfs.mount_cgroup(spec, cgroup)
        stage = "sysctl"
        init_namespaces.set_sysctls(spec)
        stage = "user"
        identity = identify(root, spec["workbench"]["user"], spec["workbench"].get("group_add", ()))
        command = prepare(spec["process"], spec["workbench"], identity)
        small_init = tiny_init.open_program() if spec["workbench"].get("init") else -1
        stage = "terminal"
        if spec["process"]["terminal"]:
            slave = _terminal(rootfs, channel, spec, owner(spec, identity.uid))
            if not late:
                pty.take(slave)
            stdio = (slave, slave, slave)
        else:
            own_stdio(stdio, owner(spec, identity.uid))
        stage = "working directory"
        rootfs.make_cwd(spec["process"]["cwd"])
        channel.send(line({"stubs": rootfs.stubs, "copied": rootfs.copied}))
        stage = "masked paths"
        protect(root, spec)
        stage = "cgroup"
        _await_cgroup(spec, channel)
        if cgroup.layout.version == "v2":
            rootfs.mount_cgroup(spec, cgroup)
        stage = "AppArmor"
        if "apparmorProfile" in spec["process"]:
            apparmor.profile_on_exec(spec["process"]["apparmorProfile"])
        hidden = late and may_fork(command)
        if late:
            stage = "namespaces"
            init_namespaces.enter_late(init_namespaces.open_namespace(spec, "pid"))
        stage = "pivot_root"
        mount.pivot_root(root)
        stage = "standard streams"
        if late:
            report_to = _hand_over(channel)
        kept = take_stdio(stdio, report_to, (small_init, remap.fd if remap is not None else -1))
        command = replace(command, small_init=kept[0], user_namespace=kept[1])
        report_to = CHANNEL
        terminal = late and bool(spec["process"]["terminal"])
        if late and not hidden:
            appear(command, terminal=terminal)
        stage = "privileges"
        set_limits(command, before_fork=hidden)
        confine(command)
        if hidden:
            appear(command, terminal=terminal)
        stage = "exec"
        execute(command)
    except BaseException as error:
        report(report_to, stage, error)
    finally:
        os._exit(125)


def own_settings(spec: dict[str, Any]) -> None:
    """The monitor's protection from the out-of-memory killer is not the container's."""
    wanted = int(spec["process"].get("oomScoreAdj", 0))
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            if int(os.read(fd, 16)) != wanted:
                os.write(fd, str(wanted).encode())
        finally:
            os.close(fd)
    except PermissionError:
        raise SetupError(f"oom_score_adj {wanted}: lowering it takes CAP_SYS_RESOURCE, which is not there") from None


def _await_cgroup(spec: dict[str, Any], channel: socket.socket) -> None:
    """The monitor moves us into our group meanwhile: milliseconds in the kernel, beside the mounts instead of after."""
    if channel.recv(16) != JOINED:
        raise SetupError("the monitor went away")
    init_namespaces.enter_cgroup(spec)


def _hand_over(channel: socket.socket) -> int:
    """Exchanges the channel, on which the monitor believes what it hears, for a pipe that it trusts with a process of its own and an
    error: the one that is seen in another container has it open."""
    read, write = os.pipe2(os.O_CLOEXEC)
    socket.send_fds(channel, [b'{"late":1}\n'], [read])
    os.close(read)
    channel.close()
    return write


def _terminal(rootfs: Rootfs, channel: socket.socket, spec: dict[str, Any], uid: int) -> int:
    """A pty of the container's own devpts; its master goes to the monitor."""
    ptmx = open_in_root(rootfs.root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    master, slave = pty.open_pair(ptmx)
    rows, columns = spec["workbench"]["tty_size"]
    if rows and columns:
        pty.resize(master, rows, columns)
    os.fchown(slave, uid, -1)
    make_console(rootfs.root, slave)
    socket.send_fds(channel, [b'{"tty":1}\n'], [master])
    os.close(master)
    return slave
