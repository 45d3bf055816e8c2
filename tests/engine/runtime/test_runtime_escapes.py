"""Published escapes, tried on real containers. The names are the rows of the security anchors: RT runtime, US users.

Races are tried for a second, and at least ROUNDS times; WORKBENCH_RACE_SECONDS makes it longer. With the guards of mount
points and of the working directory taken out by hand (a check of the real path, then its use by name) those rows fail. After each test a canary
folder and the host's settings are as they were.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import hashlib
import os
import pty
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError, InvalidInput, StartFailed
from engine.linux import apparmor, capability, mount, namespace
from engine.linux import seccomp as install
from engine.linux.inotify import Inotify
from engine.runtime import init_namespaces, seccomp, users
from engine.runtime import state as states
from engine.runtime.client import Runtime
from engine.runtime.exec_client import ExecParams
from engine.runtime.rootfs_devices import SetupError
from engine.runtime.spec import BindMount, SpecParams, make_spec
from engine.runtime.spec_namespaces import Join
from tests.patience import PATIENCE

from .conftest import supervisor_pid

pytestmark = pytest.mark.root
MakeBox = Callable[..., Any]
SECONDS = float(os.environ.get("WORKBENCH_RACE_SECONDS", "1"))
ROUNDS = 50
_RENAME_EXCHANGE = 2
IN_ACCESS, IN_OPEN = 0x1, 0x20  # inotify(7)
HOST_SETTINGS = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/kernel/msgmax")


def state(folder: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """Everything of a tree that an escape could have touched."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A folder outside every root; it and the host's settings must come out unchanged."""
    folder = tmp_path / "canary"
    (folder / "inner").mkdir(parents=True)
    (folder / "file").write_text("untouched")
    before, settings = state(folder), [Path(name).read_text() for name in HOST_SETTINGS]
    yield folder
    assert state(folder) == before
    assert [Path(name).read_text() for name in HOST_SETTINGS] == settings


@contextmanager
def racer(one: Path, other: Path) -> Iterator[None]:
    """Exchanges two names as fast as the kernel can, until the end."""
    pid = os.fork()
    if pid == 0:
        exchange = ctypes.CDLL(None).renameat2
        names = os.fsencode(one), os.fsencode(other)
        while os.getppid() != 1:
            exchange(-100, names[0], -100, names[1], _RENAME_EXCHANGE)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def attempts(start: Callable[[int], Any]) -> int:
    """Starts again and again for `SECONDS`, with the number of the round: what a round made must not be there in the next. A
    refusal is as good as a start. Returns how often it was tried."""
    end, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < end or count < ROUNDS:
        try:
            start(count)
        except EngineError:
            pass
        count += 1
    return count


def interpreter() -> str:
    return hashlib.sha256(Path(os.path.realpath(sys.executable)).read_bytes()).hexdigest()


def execute(one: Any, *args: str, **params: Any) -> tuple[int, str]:
    process = one.runtime.exec(one.id, ExecParams(list(args), **params))
    try:
        text = b"".join(item[1] for item in iter(process.read, None)).decode(errors="replace")
        return process.wait(), text
    finally:
        process.close()


# --- RT: entering a container -------------------------------------------------------------------------


def test_rt01_the_hosts_programs_cannot_be_overwritten(box: MakeBox, canary: Path) -> None:
    """CVE-2019-5736: whatever enters is looked at from inside, and written to where it can be."""
    before = interpreter()
    script = """
    while :; do for exe in /proc/[0-9]*/exe; do
      [ "$(readlink $exe)" = /bin/busybox ] || { (printf x > $exe) 2>/dev/null && echo OPENED $exe; }
    done; done
    """
    one = box("sh", "-c", script, cap_add=("SYS_PTRACE",))
    one.start()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        execute(one, "true")
    assert "OPENED" not in one.output()
    assert interpreter() == before
    for command in ("/proc/self/exe", "/proc/thread-self/exe"):
        two = box(command, "-c", "print('host python')")
        try:
            two.run()
        except StartFailed:
            continue
        assert "host python" not in two.output()
    # With the libraries of the host it does run. What it is then is a sealed copy, which nobody can write to.
    code = f"import fcntl; print(fcntl.fcntl(open('/proc/self/exe'), {fcntl.F_GET_SEALS}))"
    places = {"/lib", "/lib64", "/usr/lib", str(Path(sys.base_prefix) / "lib")}
    three = box("/proc/self/exe", "-I", "-S", "-c", code,
                env=[f"PYTHONHOME={sys.base_prefix}", f"LD_LIBRARY_PATH={sys.base_prefix}/lib", "LANG=C.UTF-8"],
                mounts=[BindMount(place, place, read_only=True) for place in places if Path(place).is_dir()])  # fmt: skip
    assert three.run() == 0, three.output("stderr")
    assert int(three.output()) & fcntl.F_SEAL_WRITE
    assert interpreter() == before


def lookout(box: MakeBox, canary: Path) -> Any:
    """A container that looks at each process it can see as one who may trace processes: for ways to a file of the host, and for powers
    that it does not have itself, which to trace such a process would give it. It says SEEN of those that lead to a place in a container."""
    up = "../" * 12
    script = f"""
    while read name value; do case $name in CapEff:) mine=$value;; esac; done < /proc/self/status
    while :; do for p in /proc/[0-9]*; do
      [ $p = /proc/$$ ] && continue
      for way in $p/root $p/cwd $p/fd/*; do [ -e $way/{up}{canary}/file ] && echo ESCAPED $way; done
      if [ -e $p/root/bin/busybox ]; then
        while read name value; do case $name in
          CapEff:) [ $value = $mine ] || echo POWERFUL $value;;
          Seccomp:) [ $value = 2 ] || echo UNFILTERED $value;;
        esac; done < $p/status
        while read line; do case $line in */../..*) echo UNLIMITED $line;; esac; done < $p/cgroup
        echo SEEN
      fi
    done 2>/dev/null; done
    """
    one = box("sh", "-c", script, cap_add=("SYS_PTRACE",))
    one.start()
    return one


def check_lookout(one: Any) -> None:
    seen = set(one.output().split("\n"))
    assert not [line for line in seen if line not in ("SEEN", "")]
    assert "SEEN" in seen


@pytest.mark.parametrize("terminal", [False, True])
def test_rt02_what_enters_leads_nowhere(box: MakeBox, canary: Path, terminal: bool) -> None:
    """CVE-2016-9962: root, working directory, descriptors and powers of an exec."""
    one = lookout(box, canary)
    end, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < end or count < ROUNDS:
        process = one.runtime.exec(one.id, ExecParams(["true"], tty=terminal))
        process.wait()
        process.close()
        count += 1
    check_lookout(one)


@pytest.mark.parametrize("terminal", [False, True])
def test_rt02_what_joins_its_processes_leads_nowhere(box: MakeBox, canary: Path, terminal: bool) -> None:
    """The same of the first process of a container that shares the process ids."""
    one = lookout(box, canary)
    pid = states.read(one.bundle).pid
    join = {"pid": Join(pid, states.start_time(pid))}
    end, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < end or count < ROUNDS // 5:
        two = box("sleep", "0.01", pid_mode="container:x", join=join, cap_add=("SYS_PTRACE",), tty=terminal)
        assert two.run() == 0
        count += 1
    check_lookout(one)


@pytest.mark.parametrize("number", [3, 4, 6, 9, 12, 30])
def test_rt03_no_descriptor_leads_out(box: MakeBox, number: int, canary: Path) -> None:
    """CVE-2024-21626, also through a link and by exec."""
    for cwd in (f"/proc/self/fd/{number}/../../..", f"/proc/thread-self/fd/{number}"):
        with pytest.raises(StartFailed):
            box("pwd", cwd=cwd).start()
    linked = box("cat", "etc/passwd", cwd="/way")
    (linked.bundle / "upper/way").symlink_to(f"/proc/self/fd/{number}")
    with pytest.raises(StartFailed):
        linked.start()
    one = box("sleep", "100")
    one.start()
    with pytest.raises(StartFailed):
        execute(one, "pwd", cwd=f"/proc/self/fd/{number}")
    with pytest.raises(StartFailed):
        execute(one, f"/proc/self/fd/{number}/../../bin/sh", "-c", "true")


def test_rt04_rt11_racing_links_at_mount_targets(box: MakeBox, canary: Path, tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: the folder that a nested mount goes to is exchanged for a link to the host."""
    volume, source = tmp_path / "volume", tmp_path / "source"
    (volume / "real").mkdir(parents=True)
    (volume / "link").symlink_to("../../../../../../../../" + str(canary))
    source.mkdir()

    def start(number: int) -> None:
        binds = [
            BindMount(str(volume), "/v"),
            BindMount(str(source), f"/v/real/deep{number}/er"),
            BindMount(str(source), "/v/real/inner"),
        ]
        box("true", mounts=binds, tmpfs={f"/v/real/tmp{number}": ""}).run()

    with racer(volume / "real", volume / "link"):
        attempts(start)
    assert os.listdir(source) == []


def test_rt05_rt06_kernel_file_systems_cannot_be_covered(box: MakeBox, canary: Path, tmp_path: Path) -> None:
    """CVE-2019-16884, CVE-2019-19921 and kin; links are in test_runtime_security."""
    for target in ("/proc", "/proc/self/attr", "/proc/sys", "/proc/self/attr/../.."):
        with pytest.raises((StartFailed, InvalidInput)):
            box("true", mounts=[BindMount(str(canary), target)]).start()
        with pytest.raises((StartFailed, InvalidInput)):
            box("true", tmpfs={target: ""}).start()


def test_rt07_masks_are_the_null_device(box: MakeBox, canary: Path, tmp_path: Path) -> None:
    """CVE-2025-31133: a /dev of the container's whose null is a link to a setting of the host."""
    dev = tmp_path / "dev"
    dev.mkdir()
    for name, target in (("null", "/proc/sys/kernel/core_pattern"), ("other", "/proc/sysrq-trigger")):
        (dev / name).symlink_to(target)

    def start(_number: int) -> None:
        one = box("stat", "-c", "%t:%T", "/proc/keys", "/proc/timer_list", mounts=[BindMount(str(dev), "/dev")])
        one.run()
        assert set(one.output().split()) <= {"1:3"}

    start(0)
    with racer(dev / "null", dev / "other"):
        attempts(start)


def test_rt08_the_console_is_the_terminal(box: MakeBox, canary: Path, tmp_path: Path) -> None:
    """CVE-2025-52565: links at /dev/console, where the terminal is mounted, and at /dev/pts/N, where it seems to come from, in a
    /dev of the container's. (It has a devpts: without one there is no terminal, and the start ends before.)"""
    dev = tmp_path / "dev"
    for folder in ("pts", "fake"):
        (dev / folder).mkdir(parents=True)
    for number in range(64):
        (dev / f"fake/{number}").symlink_to("/etc/passwd")
    mounts = [BindMount(str(dev), "/dev"), BindMount("/dev/pts", "/dev/pts")]
    ours = {"/dev/console", "/dev/away", "/dev/pts", "/dev/fake"}  # a mount goes where its place is renamed to

    def start(_number: int) -> None:
        one = box("cat", "/proc/self/mountinfo", tty=True, mounts=mounts)
        one.start()
        one.wait()
        lines = [line.split() for line in one.output().splitlines()]
        kinds = {line[4]: line[line.index("-") + 1] for line in lines}
        assert ours >= {where for where, kind in kinds.items() if kind == "devpts"}
        assert [kinds[where] for where in ("/dev/console", "/dev/away") if where in kinds] == ["devpts"]

    (dev / "console").touch()
    start(0)
    (dev / "console").unlink()
    (dev / "console").symlink_to("/etc/passwd")
    with pytest.raises(StartFailed, match="symbolic link"):
        start(0)
    (dev / "away").touch()
    with racer(dev / "console", dev / "away"):
        attempts(start)
    (dev / "console").unlink()
    (dev / "console").touch()
    with racer(dev / "pts", dev / "fake"):
        attempts(start)


def test_rt09_sysctls_arrive_and_nowhere_else(box: MakeBox, canary: Path, tmp_path: Path) -> None:
    """CVE-2025-52881: with racing mounts, each start has its own value and the host none."""
    volume = tmp_path / "volume"
    (volume / "a").mkdir(parents=True)
    (volume / "b").symlink_to("/proc/sys/kernel")
    host = Path("/proc/sys/kernel/msgmax").read_text()

    def start(_number: int) -> None:
        binds = [BindMount(str(volume), "/v"), BindMount(str(canary), "/v/a/x", read_only=True)]
        one = box("cat", "/proc/sys/kernel/msgmax", mounts=binds, sysctls={"kernel.msgmax": "4321"})
        assert one.run() == 0
        assert one.output() == "4321\n"

    with racer(volume / "a", volume / "b"):
        attempts(start)
    assert Path("/proc/sys/kernel/msgmax").read_text() == host


def _no_procfs() -> None:
    """/proc is a memory file system with the files that are wanted."""
    mount.mount("tmpfs", "/proc", "tmpfs")
    for path in ("thread-self/attr/exec", "sys/kernel/msgmax"):
        os.makedirs(f"/proc/{os.path.dirname(path)}")
        Path(f"/proc/{path}").write_text("")


def _covered() -> None:
    """Another file of procfs, that can be written to, is bound over the one that is wanted."""
    for path in (f"/proc/self/task/{os.getpid()}/attr/exec", "/proc/sys/kernel/msgmax"):
        mount.mount("/proc/self/comm", path, "", mount.MS_BIND)


@pytest.mark.parametrize("prepare", [_no_procfs, _covered])
@pytest.mark.parametrize("kind", ["a label", "a sysctl"])
def test_rt06_rt09_a_decoy_is_not_written_to(prepare: Callable[[], None], kind: str) -> None:
    """CVE-2019-16884, CVE-2025-52881. (The kernels here run no LSM: with one the same descriptor would be written to.)"""
    read, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        word = b"written"
        try:
            before = Path("/proc/self/comm").read_text()
            namespace.unshare(namespace.NEWNS)
            mount.make_slave()
            prepare()
            try:
                if kind == "a label":
                    apparmor.profile_on_exec("workbench-default")
                else:
                    init_namespaces.set_sysctls({"linux": {"sysctl": {"kernel.msgmax": "4321"}}})
            except (OSError, SetupError) as error:
                word = f"refused: {error}".encode()
            if prepare is _covered and Path("/proc/self/comm").read_text() != before:
                word = b"the decoy was written to"
        except BaseException as error:
            word = f"not prepared: {error!r}".encode()
        finally:
            os.write(end, word)
            os._exit(0)
    os.close(end)
    with os.fdopen(read) as file:
        assert file.read().startswith("refused"), prepare.__doc__
    os.waitpid(pid, 0)


def test_rt10_a_dev_that_leads_out(box: MakeBox, canary: Path) -> None:
    """CVE-2026-41579, CVE-2026-47766."""
    for where in ("../../../../../.." + str(canary), str(canary)):
        one = box("true", tty=True)
        (one.bundle / "upper/dev").symlink_to(where)
        with pytest.raises(StartFailed, match="must be an ordinary directory"):
            one.start()


def test_rt12_lengths_are_no_way_into_the_settings(box: MakeBox, canary: Path) -> None:
    """CVE-2021-43784: long sources and options, and many mounts, end in an error or in the same namespaces."""
    for long in ("/" + "a" * (1 << 16), str(canary) + "/." * 40000):
        with pytest.raises(StartFailed):
            box("true", mounts=[BindMount(long, "/x")]).start()
    with pytest.raises(StartFailed):
        box("true", tmpfs={"/x": "mpol=" + "a" * 70000}).start()
    one = box("sh", "-c", "for kind in pid mnt uts; do readlink /proc/self/ns/$kind; done",
              mounts=[BindMount(str(canary), f"/many/{n}", read_only=True) for n in range(300)])  # fmt: skip
    assert one.run() == 0
    hosts = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "mnt", "uts")}
    assert not hosts & set(one.output().split())


def test_rt14_the_groups_are_not_writable(box: MakeBox) -> None:
    """CVE-2023-25809, with the host's cgroup namespace too."""
    for mode in ("", "host"):
        one = box("sh", "-c", "find /sys/fs/cgroup -name cgroup.procs | while read f; do (echo 1 > $f) 2>&1; done; "
                  "mkdir /sys/fs/cgroup/x", cgroupns_mode=mode)  # fmt: skip
        assert one.run() != 0
        lines = (one.output() + one.output("stderr")).splitlines()
        assert lines
        assert all("Read-only file system" in line for line in lines)


def test_rt15_a_disk_that_was_made_does_not_open(box: MakeBox) -> None:
    """GO-2022-0396."""
    one = box("sh", "-c", "mknod /tmp/disk b 8 0 && echo made; head -c1 /tmp/disk")
    assert one.run() != 0
    assert one.output() == "made\n"
    assert "Operation not permitted" in one.output("stderr")


def test_rt16_the_kernel_refuses_what_the_filter_names() -> None:
    """AF_ALG and AF_VSOCK, user namespaces, new mount calls, keys, io_uring: by the kernel itself, in a child."""
    program = seccomp.default_program(frozenset(capability.DEFAULT))
    numbers = seccomp.numbers(os.uname().machine if os.uname().machine == "aarch64" else "x86_64")
    refused = ["unshare", "setns", "mount", "fsopen", "fsconfig", "open_tree", "keyctl", "add_key", "io_uring_setup", "bpf",
               "userfaultfd", "pivot_root", "kexec_load", "init_module", "perf_event_open", "open_by_handle_at"]  # fmt: skip
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            install.install(program)
            passed = []
            for name in refused:
                ctypes.set_errno(0)
                if libc.syscall(ctypes.c_long(numbers[name]), 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1:
                    passed.append(name)
            families = {38: 5, 40: 1}
            passed += [
                f"family {n}"
                for n, kind in families.items()
                if libc.socket(n, kind, 0) != -1 or ctypes.get_errno() != 1
            ]
            passed += ["CLONE_NEWUSER"] if libc.unshare(0x10000000) != -1 else []
            os.write(write, ",".join(passed).encode() or b"none")
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    assert os.read(read, 4096) == b"none"
    os.close(read)


def test_rt18_an_images_words_set_nothing(box: MakeBox) -> None:
    """CVE-2024-3154, CVE-2026-53488: annotations come from the user alone, and none reaches systemd."""
    assert make_spec(SpecParams("x", ["true"]))["annotations"] == {}
    with pytest.raises(InvalidInput, match="systemd unit"):
        make_spec(SpecParams("x", ["true"], annotations={"org.systemd.property.ExecStart": "'x'"}))


def test_rt19_nobody_but_its_user_speaks_to_the_engine(box: MakeBox) -> None:
    """CVE-2020-15257: no abstract socket, folders and sockets closed to others, the peer's user asked for."""
    one = box("sh", "-c", "grep -c '@.*\\(workbench\\|wb-\\|supervisor\\)' /proc/net/unix; sleep 100")
    one.start()
    run_dir = Path(one.runtime.run_dir)
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o711
    for path in run_dir.rglob("*.sock"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    supervisor = run_dir / "supervisor.sock"
    pid = os.fork()
    if pid == 0:  # another user, who was let into the folder
        code = 1
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                os.chdir(run_dir)
                os.setresuid(65534, 65534, 65534)
                sock.connect(supervisor.name)
        except PermissionError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    while not one.output():
        pass
    assert one.output() == "0\n"
    # Were the socket open to all, the user at the other end would still not be one of its own.
    os.chmod(supervisor, 0o666)
    for user, answered in ((0, True), (65534, False)):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with socket.socket(socket.AF_UNIX) as sock:
                    os.chdir(run_dir)
                    os.setresuid(user, user, user)
                    sock.connect(supervisor.name)
                    answer = b""
                    with suppress(ConnectionError):
                        sock.sendall(b'{"op": "nothing"}\n')
                        answer = sock.recv(1000)
                    code = 0 if bool(answer) is answered else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.chmod(supervisor, 0o600)


def test_rt20_no_terminal_but_its_own(box: MakeBox) -> None:
    """TIOCSTI needs a terminal to put words into."""
    one = box("sh", "-c", "echo x < /dev/tty; tty; ls -l /proc/self/fd/0")
    one.run()
    assert "can't open /dev/tty" in one.output("stderr")
    assert "/dev/null" in one.output()
    two = box("tty", tty=True)
    two.start()
    two.wait()
    assert two.output().strip() in ("/dev/pts/0", "/dev/console")


def test_rt20_the_callers_terminal_is_not_inherited(box: MakeBox, tmp_path: Path) -> None:
    """Of a caller that has one: everything between it and the container, the supervisor too, is started by it."""
    runtime = Runtime(tmp_path / "run")
    one = box("sh", "-c", "echo x < /dev/tty", network="none")
    one.runtime = runtime
    pid, terminal = pty.fork()
    if pid == 0:
        os._exit(one.run())
    with suppress(OSError):  # EIO: nobody has it open any more
        while os.read(terminal, 1000):
            pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert "can't open /dev/tty" in one.output("stderr")
    os.kill(supervisor_pid(runtime), signal.SIGTERM)


# --- US: users, and files read from the root ----------------------------------------------------------


@pytest.mark.parametrize("user", ["2147483648", "4294967296", "-1", "+0", "1:4294967296", "0:-1", "٠", "0x0", " 0"])
def test_us02_ids_that_wrap(box: MakeBox, user: str) -> None:
    """CVE-2024-40635."""
    with pytest.raises((StartFailed, InvalidInput)):
        box("id", user=user).start()


def test_us03_exec_as_a_number(box: MakeBox) -> None:
    """CVE-2026-30892."""
    one = box("sleep", "100")
    one.start()
    for user, wanted in (
        ("1", "1:0"),
        ("1:", "1:0"),
        ("1:1", "1:1"),
        (":1", "0:1"),
        ("bob", "1000:1001"),
        ("bob:7", "1000:7"),
        ("1002", "1002:0"),
    ):
        assert execute(one, "sh", "-c", "echo $(id -u):$(id -g)", user=user) == (0, f"{wanted}\n"), user


def test_us04_a_group_that_is_shut_out_is(box: MakeBox) -> None:
    """CVE-2022-36109: the primary group is among the supplementary ones too."""
    one = box("sh", "-c", "grep Groups /proc/self/status; cat /shut", user="7:77")
    file = one.bundle / "upper/shut"
    file.write_text("secret")
    file.chmod(0o604)
    os.chown(file, 0, 77)
    assert one.run() != 0
    assert one.output().split() == ["Groups:", "77"]
    assert "Permission denied" in one.output("stderr")


def resolving(root: Path, user: str = "bob") -> tuple[str, int]:
    """What becomes of looking a user up in `root`, and by how many bytes the process that does it grows."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            gc.disable()
            before = peak()
            try:
                users.identify(os.open(root, os.O_PATH | os.O_DIRECTORY), user)
                word = "found"
            except users.UserError as error:
                word = str(error)
            os.write(write, f"{peak() - before} {word}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        grown, _, word = file.read().partition(" ")
    os.waitpid(pid, 0)
    return word, int(grown)


def peak() -> int:
    """Bytes; what was resident at most, counted anew from here on (proc_pid_clear_refs(5))."""
    text = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM:"))) * 1024


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def lines_of(text: bytes, size: int) -> bytes:
    return text * (size // len(text))


TRAPS: dict[str, Callable[[Path], object]] = {
    "sparse, 8 GiB": lambda path: sparse(path, 8 << 30),
    "one line of 1 GiB": lambda path: sparse(path, 1 << 30),
    "a FIFO": os.mkfifo,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "a device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    "a loop": lambda path: path.symlink_to(path.name),
    "one line of 10 MiB": lambda path: path.write_bytes(b"x" * (10 << 20)),
    "10 MiB of short lines": lambda path: path.write_bytes(lines_of(b"::::\n", 10 << 20)),
    "as many lines as are read": lambda path: path.write_bytes(b"a-long-name:xxxxx:12345678:abcd\n" * 250_000),
    "10 MiB of members": lambda path: path.write_bytes(b"g:x:5:" + lines_of(b"a,", (10 << 20) - 6)),
    "10 MiB of fields": lambda path: path.write_bytes(lines_of(b":", 10 << 20)),
}


@pytest.mark.parametrize("name", ["passwd", "group"])
@pytest.mark.parametrize("trap", TRAPS)
def test_us05_big_and_endless_files(tmp_path: Path, name: str, trap: str) -> None:
    """CVE-2026-47262: refused or read, within 5 seconds and 64 MiB."""
    etc = tmp_path / "root/etc"
    etc.mkdir(parents=True)
    if name == "group":
        (etc / "passwd").write_text("bob:x:1000:1001::/:/bin/sh\n")
    TRAPS[trap](etc / name)
    began = time.monotonic()
    word, grown = resolving(tmp_path / "root", "bob:staff")
    assert time.monotonic() - began < PATIENCE
    assert word != "found"
    assert 0 <= grown < 64 << 20


@pytest.mark.parametrize("trap", ["sparse, 8 GiB", "a FIFO", "endless"])
def test_us05_a_start_with_such_a_file(box: MakeBox, trap: str) -> None:
    one = box("true", user="bob")
    (one.bundle / "upper/etc").mkdir()
    TRAPS[trap](one.bundle / "upper/etc/group")
    began = time.monotonic()
    with pytest.raises(StartFailed, match="/etc/group"):
        one.start()
    assert time.monotonic() - began < PATIENCE


@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_us06_what_a_link_leads_to_is_not_opened(box: MakeBox, canary: Path, kind: str) -> None:
    """CVE-2024-9676: inotify(7) tells every open of the canary, by whomever and through whatever mount; fanotify(7) on the
    same inode would tell no more."""
    target = canary / "file"
    if kind == "fifo":
        target = canary.parent / "fifo"
        os.mkfifo(target)
    told = Inotify()
    told.add(str(target), IN_OPEN | IN_ACCESS)
    for where in (str(target), "../../../../../../../.." + str(target)):
        one = box("true", user="bob", group_add=("staff",))
        (one.bundle / "upper/etc").mkdir()
        for name in ("passwd", "group", "shells", "os-release", "mtab", "subuid", "subgid", "nsswitch.conf", "shadow"):
            (one.bundle / "upper/etc" / name).symlink_to(where)
        with pytest.raises(StartFailed, match="unable to find"):
            one.start()
    assert not told.drain(), "somebody opened what is outside of the container's root"
    with open(os.open(target, os.O_RDONLY | os.O_NONBLOCK), "rb"):
        assert told.drain(), "the watch tells"
    told.close()


def test_us05_us06_files_that_are_traps(box: MakeBox, canary: Path) -> None:
    """CVE-2026-47262, CVE-2024-9676: endless, huge, and leading out of the root; quickly, and without being opened."""
    began = time.monotonic()
    for make in (
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(str(canary / "file")),
        lambda path: path.symlink_to("/proc/self/fd/0"),
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b"a" * (10 << 20) + b"x"),
    ):
        one = box("true", user="bob")
        (one.bundle / "upper/etc").mkdir()
        make(one.bundle / "upper/etc/passwd")
        with pytest.raises(StartFailed):
            one.start()
    assert time.monotonic() - began < PATIENCE


def test_us07_no_second_lines(box: MakeBox) -> None:
    """CVE-2022-4318."""
    for values in ({"user": "a\nb"}, {"hostname": "a\rb"}, {"cwd": "/a\n"}, {"env": ["A=\0"]}, {"group_add": ("a\n",)}):
        with pytest.raises(InvalidInput):
            make_spec(SpecParams("x", ["true"], **values))  # type: ignore[arg-type]


def test_us08_us10_engine_files_over_links(box: MakeBox, canary: Path, tmp_path: Path) -> None:
    """CVE-2024-5154, CVE-2024-9341: what the engine mounts by itself stays inside the root: it is found there, under the
    name that the link has for the container."""
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    links = {str(canary / "file"): canary / "file", "../../../../../../.." + str(canary / "new"): canary / "new"}
    for where, inside in {**links, "/etc/elsewhere": Path("/etc/elsewhere")}.items():
        one = box(
            *("sh", "-c", f"cat /etc/hosts {inside}; readlink /etc/mtab"),
            mounts=[BindMount(str(tmp_path / "hosts"), f"/etc/{name}") for name in ("hosts", "resolv.conf")],
        )
        (one.bundle / "upper/etc").mkdir()
        for name in ("hosts", "resolv.conf", "mtab"):
            (one.bundle / "upper/etc" / name).symlink_to(where)
        assert one.run() == 0
        assert one.output() == "127.0.0.1 localhost\n" * 2 + f"{where}\n"


def test_us09_a_working_directory_through_a_link(box: MakeBox, canary: Path) -> None:
    """CVE-2026-55686, with a race."""
    one = box("pwd", cwd="/x/made/here")
    (one.bundle / "upper/x").symlink_to("/../../../../.." + str(canary))
    one.run()
    shared = canary.parent / "shared"
    (shared / "real").mkdir(parents=True)
    (shared / "link").symlink_to(str(canary))

    def start(number: int) -> None:
        box("true", cwd=f"/v/real/made{number}", mounts=[BindMount(str(shared), "/v")]).run()

    with racer(shared / "real", shared / "link"):
        attempts(start)


def test_us11_variables_without_a_value(box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2026-57231."""
    monkeypatch.setenv("SECRET_OF_THE_HOST", "seen")
    one = box("env", env=["SECRET_OF_THE_HOST", "A=1"])
    assert one.run() == 0
    assert "SECRET" not in one.output()
    assert "A=1" in one.output()


def test_the_racer_races(tmp_path: Path) -> None:
    """A race that is none would prove nothing."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("x")
    with racer(tmp_path / "a", tmp_path / "b"):
        end = time.monotonic() + PATIENCE
        seen: set[bool] = set()
        while len(seen) < 2 and time.monotonic() < end:
            seen.add((tmp_path / "a").is_symlink())
    assert seen == {True, False}
