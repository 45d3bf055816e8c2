"""The engine as a real ordinary user, with ranges of ids and with one id alone."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from engine.linux import devices
from tests.patience import PATIENCE

pytestmark = [pytest.mark.root, pytest.mark.peer("newuidmap")]

STANDARD = {
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx")
}  # in every container
Run = Callable[..., "subprocess.CompletedProcess[str]"]
DOCKERFILE = """FROM workbench/base
RUN mkdir /data /opq && echo hi > /data/f && touch /opq/a
RUN rm -rf /opq /etc/nsswitch.conf && mkdir /opq && touch /opq/b && chmod 4755 /data/f
VOLUME /data
COPY --chown=12:34 note /srv/note
CMD ["cat", "/data/f"]
"""


def _readable(path: Path) -> bool:
    """Whether everybody may read what is there: the checkout may be root's alone."""
    real = path.resolve()
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents) and bool(
        real.stat().st_mode & stat.S_IROTH
    )


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An interpreter and a PYTHONPATH that an ordinary user can use."""
    interpreter = next(
        (
            p
            for p in (os.path.realpath(sys.executable), f"/usr/bin/python3.{sys.version_info[1]}")
            if os.path.exists(p) and _readable(Path(p))
        ),
        "",
    )
    if not interpreter:
        pytest.skip("no interpreter of this version that an ordinary user can run")
    checkout, packages = Path(__file__).parents[2], Path(sysconfig.get_path("purelib"))
    if _readable(checkout) and _readable(packages):
        return interpreter, f"{checkout}:{packages}"
    place = tmp_path_factory.mktemp("program")
    for parent in (place, place.parent, place.parent.parent):
        parent.chmod(parent.stat().st_mode | 0o011)
    place.chmod(0o755)
    shutil.copytree(checkout / "engine", place / "engine")
    ignored = shutil.ignore_patterns("mypy*", "ruff*", "pytest*", "_pytest", "pygments", "pip*", "__pycache__")
    shutil.copytree(packages, place / "packages", ignore=ignored)
    return interpreter, f"{place}:{place / 'packages'}"


@pytest.fixture(params=["ranges", "one id"])
def user(request: pytest.FixtureRequest, program: tuple[str, str]) -> Iterator[tuple[Run, Path, bool]]:
    """Runs `workbench …` as a new user; its home; whether it has ranges of ids."""
    name, ranges = f"wb{secrets.token_hex(4)}", request.param == "ranges"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True, capture_output=True)
    uid = int(subprocess.check_output(["id", "-u", name]))
    home = Path(f"~{name}").expanduser()
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        kept = [line for line in path.read_text().splitlines() if path.exists() and not line.startswith(f"{name}:")]
        path.write_text("\n".join([*kept, *([f"{name}:{1_000_000 + uid * 65536}:65536"] if ranges else []), ""]))
    interpreter, path = program

    def run(
        *args: str, code: int = 0, env: Mapping[str, str] | None = None, within: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        command = [
            *within,
            "setpriv",
            "--reuid",
            name,
            "--regid",
            name,
            "--init-groups",
            interpreter,
            "-m",
            "engine.cli.main",
            *args,
        ]
        base = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        whole = {**base, **(env or {})}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home, env=whole, timeout=120)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    yield run, home, ranges
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        owner = int(status.partition("\nUid:")[2].split()[0])
        if owner == uid or (ranges and owner // 65536 == (1_000_000 + uid * 65536) // 65536):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["userdel", "--remove", "--force", name], check=False, capture_output=True)
    shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(f"/tmp/workbench-{uid}", ignore_errors=True)


def test_a_day_of_an_ordinary_user(user: tuple[Run, Path, bool]) -> None:
    run, home, ranges = user
    context = home / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "note").write_text("from outside\n")
    built = run("build", "-q", "-t", "mine", "context")
    assert ("only one user id" in built.stderr) == (not ranges)
    assert built.stderr.count("control group") == 1
    assert "control group" not in run("images").stderr, "each limit is said once"
    assert run("run", "--rm", "mine").stdout == "hi\n"
    listing = run(
        "run",
        "--rm",
        "mine",
        "sh",
        "-c",
        "ls /opq; ls /etc/nsswitch.conf; stat -c '%u:%g %a' /srv/note /data/f",
        code=0,
    )
    owner = "12:34" if ranges else "0:0"
    assert listing.stdout.splitlines() == ["b", f"{owner} 644", "0:0 4755"]
    shown = run("run", "--rm", "mine", "sh", "-c", "id -u; cat /proc/self/uid_map").stdout.split()
    assert (shown[0], len(shown) // 3) == ("0", 2 if ranges else 1)
    assert "Root Dir:" in run("info").stdout

    (home / "shared").mkdir()
    os.chown(home / "shared", *(home.stat().st_uid, home.stat().st_gid))
    script = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"
    run("run", "-d", "--name", "box", "-v", "vol:/vol", "-v", f"{home}/shared:/shared", "mine", "sh", "-c", script)
    assert "box" in run("ps").stdout
    run("exec", "box", "sh", "-c", "echo kept > /vol/f; echo out > /shared/f; touch /new")
    assert (home / "shared/f").stat().st_uid == home.stat().st_uid, "root inside is the user outside"
    run("cp", "context/note", "box:/vol/note")
    run("cp", "box:/vol/note", "back")
    assert (home / "back").read_text() == "from outside\n"
    assert "A /new" in run("diff", "box").stdout
    run("commit", "box", "snap")
    assert run("run", "--rm", "-v", "vol:/vol", "snap", "cat", "/vol/f").stdout == "kept\n"
    if ranges:
        assert run("exec", "--user", "5", "box", "id", "-u").stdout == "5\n"
    else:
        assert "no such id" in run("exec", "--user", "5", "box", "id", "-u", code=125).stderr
    assert run("logs", "box").stdout == "up\n"
    run("stop", "-t", "5", "box")
    state = json.loads(run("inspect", "box").stdout)[0]["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    run("cp", "box:/new", "stopped")
    run("start", "box")
    run("rm", "-f", "-v", "box")
    assert run("volume", "ls", "-q").stdout == "vol\n"
    assert run("check").stdout == "the store is whole\n"


# --- networks ---------------------------------------------------------------------------------------

ADDRESS = "198.51.100.77"  # the outside: an address of the host that no container's namespace has
SERVER = """
import socket, threading
tcp = socket.create_server(("0.0.0.0", 7777))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", 7777))
def datagrams():
    while True:
        data, client = udp.recvfrom(2048)
        udp.sendto(b"udp " + data, client)
threading.Thread(target=datagrams, daemon=True).start()
print("ready", flush=True)
while True:
    client, _ = tcp.accept()
    client.sendall(b"tcp " + client.recv(100))
    client.close()
"""


def ask(kind: str, address: tuple[str, int]) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(address)
        sock.send(b"hello")
        return sock.recv(100)


@pytest.fixture
def tun() -> Iterator[None]:
    """/dev/net/tun as udev makes it: for everybody."""
    before = os.stat("/dev/net/tun").st_mode
    os.chmod("/dev/net/tun", 0o666)
    yield
    os.chmod("/dev/net/tun", before & 0o7777)


@pytest.fixture
def outside() -> Iterator[int]:
    """A server on an address of the host; its port. It answers each connection with its first bytes, twice."""
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    server = socket.create_server((ADDRESS, 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = server.accept()
                with client:
                    client.sendall(client.recv(100) * 2)

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()
    subprocess.run(["ip", "address", "del", f"{ADDRESS}/32", "dev", "lo"], check=True)


def eventually(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@pytest.mark.usefixtures("tun")
@pytest.mark.peer("ip")
@pytest.mark.parametrize(
    ("user", "helper"),
    [
        pytest.param("ranges", "pasta", marks=pytest.mark.peer("pasta")),
        pytest.param("one id", "slirp4netns", marks=pytest.mark.peer("slirp4netns")),
    ],
    indirect=["user"],
)
def test_networks_of_an_ordinary_user(user: tuple[Run, Path, bool], outside: int, helper: str) -> None:
    run, home, _ranges = user
    env = {"WORKBENCH_ROOTLESS_NETWORK": helper}
    uid = home.stat().st_uid
    run("build", "-q", "-t", "b", "-f", _write(home / "Dockerfile", "FROM workbench/base\nRUN ls\n"), ".", env=env)
    _write(home / "server.py", SERVER)
    _write(home / "ask.py", "import sys; sys.path.append('/h'); from asking import ask; ask(*sys.argv[1:])")
    (home / "asking.py").write_text(
        "import socket\n"
        "def ask(kind, host, port):\n"
        "    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)\n"
        "    sock.settimeout(60); sock.connect((host, int(port))); sock.send(b'hello')\n"
        "    print(sock.recv(100).decode())\n"
    )
    mount = ("-v", f"{home}:/h:ro", "b", "python3")
    run("network", "create", "own", env=env)
    ports = ("-p", "127.0.0.1::7777", "-p", "127.0.0.1::7777/udp")
    run("run", "-d", "--name", "server", "--network", "own", *ports, *mount, "/h/server.py", env=env)
    eventually(lambda: run("logs", "server").stdout == "ready\n")
    for kind in ("tcp", "udp"):
        where = run("port", "server", f"7777/{kind}").stdout.strip().rpartition(":")
        assert ask(kind, ("127.0.0.1", int(where[2]))) == f"{kind} hello".encode(), "published"
        asked = run("run", "--rm", "--network", "own", *mount, "/h/ask.py", kind, "server", "7777", env=env)
        assert asked.stdout == f"{kind} hello\n", "by name, from another container"
    default = run("run", "--rm", *mount, "/h/ask.py", "tcp", ADDRESS, str(outside), env=env)
    assert default.stdout == "hellohello\n", "out of the default network"

    def out() -> str:
        return run("exec", "server", "python3", "/h/ask.py", "tcp", ADDRESS, str(outside)).stdout

    def notes() -> str:
        return (next((home / ".local/share/workbench/containers").iterdir()) / "state.json").read_text()

    assert out() == "hellohello\n"
    for name, said in ((helper, "was started again"), ("wb-network", "is replaced")):
        os.kill(_only(uid, name), signal.SIGKILL)
        eventually(lambda said=said: said in notes())
        assert out() == "hellohello\n", "after it was killed"
    run("rm", "-f", "server")
    eventually(lambda: not _running(uid, helper) and not _running(uid, "wb-network"))


@pytest.mark.parametrize("user", ["ranges"], indirect=True)
def test_without_a_helper_networks_are_refused_in_words(user: tuple[Run, Path, bool]) -> None:
    run, home, _ranges = user
    env = {"WORKBENCH_ROOTLESS_NETWORK": "host"}
    built = run("build", "-q", "-t", "b", "-f", _write(home / "Dockerfile", "FROM workbench/base\n"), ".", env=env)
    assert "containers share this host's network" in built.stderr
    run("network", "create", "own", env=env)
    assert "cannot make networks here" in run("run", "--network", "own", "b", "true", code=125, env=env).stderr
    assert run("run", "--rm", "--network", "none", "b", "ls", "/sys/class/net", env=env).stdout == "lo\n"
    shared = run("run", "--rm", "b", "readlink", "/proc/self/ns/net", env=env).stdout.strip()
    assert shared == os.readlink("/proc/self/ns/net")


@pytest.mark.parametrize("user", ["ranges"], indirect=True)
def test_a_restart_policy_and_an_exec_after_it(user: tuple[Run, Path, bool]) -> None:
    """The second start is in a pid namespace of its own too, although an ordinary user cannot come back from the first."""
    run, home, _ranges = user
    run("build", "-q", "-t", "b", "-f", _write(home / "Dockerfile", "FROM workbench/base\n"), ".")
    script = "test -e /again || { touch /again; exit 3; }; sleep 1000"
    run("run", "-d", "--name", "again", "--restart", "always", "--network", "none", "b", "sh", "-c", script)
    eventually(lambda: json.loads(run("inspect", "again").stdout)[0]["RestartCount"] == 1)
    eventually(lambda: "running" in run("inspect", "again").stdout)
    where = run("exec", "again", "sh", "-c", "readlink /proc/self/ns/pid; readlink /proc/1/ns/pid; readlink /proc/self")
    first, second, pid = where.stdout.split()
    assert first == second != os.readlink("/proc/self/ns/pid")
    assert int(pid) < 50
    assert run("exec", "again", "sh", "-c", "exit 9", code=9).stdout == ""
    run("rm", "-f", "again")


def _only(uid: int, name: str) -> int:
    (pid,) = _running(uid, name)
    return pid


def _running(uid: int, name: str) -> list[int]:
    """Processes of the user whose program or name it is."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
            alive = "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
            if _owner(pid) == uid and alive and name in (os.path.basename(program), _comm(pid)):
                found.append(int(pid))
    return found


@pytest.mark.parametrize("user", ["ranges"], indirect=True)
def test_processes_share_one_namespace(user: tuple[Run, Path, bool]) -> None:
    """A volume that is a file system is mounted once, whichever command came first; and a killed supervisor's successor
    joins the namespace of the containers that run on."""
    run, home, _ranges = user
    run("build", "-q", "-t", "b", "-f", _write(home / "Dockerfile", "FROM workbench/base\n"), ".")
    run("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "ram")
    run("run", "-d", "--name", "one", "-v", "ram:/r", "b", "sleep", "1000")
    run("exec", "one", "sh", "-c", "echo shared > /r/f")
    assert run("run", "--rm", "-v", "ram:/r", "b", "cat", "/r/f").stdout == "shared\n"
    uid = home.stat().st_uid
    supervisors = [
        int(pid)
        for pid in filter(str.isdigit, os.listdir("/proc"))
        if _comm(pid) == "wb-supervisor" and os.stat(f"/proc/{pid}").st_uid in (uid, 0) and _owner(pid) == uid
    ]
    for pid in supervisors:
        os.kill(pid, signal.SIGKILL)
    assert run("exec", "one", "cat", "/r/f").stdout == "shared\n"
    run("cp", "one:/etc/passwd", "passwd")
    assert run("run", "--rm", "-v", "ram:/r", "b", "cat", "/r/f").stdout == "shared\n"
    run("rm", "-f", "one")


def _write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def _comm(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _owner(pid: str) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("\nUid:")[2].split()[0])


# --- control groups ---------------------------------------------------------------------------------


@pytest.fixture
def delegated(user: tuple[Run, Path, bool]) -> Iterator[list[str]]:
    """The beginning of a command that runs in a cgroup v2 subtree of the user's, without any v1 mount in sight."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    where = next((words[1] for words in mounts if words[2] == "cgroup2"), None)
    if where is None:
        pytest.skip("no cgroup v2 mount")
    _run, home, _ranges = user
    group = Path(where) / f"wbtest-{secrets.token_hex(4)}"
    group.mkdir()
    for path in (group, *(group / name for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads"))):
        os.chown(path, home.stat().st_uid, home.stat().st_gid)
    script = f'umount -a -t cgroup; echo $$ > {group}/cgroup.procs; exec "$@"'
    yield ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"]
    _end_group(group)


def _end_group(group: Path) -> None:
    kill = group / "cgroup.kill"
    if kill.exists():
        kill.write_text("1")
    eventually(lambda: "populated 0" in (group / "cgroup.events").read_text())
    for folder, _folders, _files in os.walk(group, topdown=False):
        os.rmdir(folder)


@pytest.mark.parametrize("user", ["ranges"], indirect=True)
def test_a_delegated_subtree_is_used(user: tuple[Run, Path, bool], delegated: list[str]) -> None:
    run, home, _ranges = user

    def go(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return run(*args, code=code, within=delegated)

    built = go("build", "-q", "-t", "b", "-f", _write(home / "Dockerfile", "FROM workbench/base\n"), ".")
    assert "do not hold: their controllers are not delegated" in built.stderr
    limited = go(
        "run", "-d", "--name", "busy", "--network", "none", "-m", "64m", "b", "sh", "-c", "while :; do :; done"
    )
    assert "memory cannot be limited here" in limited.stderr, "this kernel's v2 tree has no controllers"
    assert "while :; do :; done" in go("top", "busy").stdout
    eventually(lambda: not go("stats", "--no-stream", "--format", "{{.CPUPerc}}", "busy").stdout.startswith("0.00"))
    go("pause", "busy")
    assert "(Paused)" in go("ps").stdout
    go("unpause", "busy")
    go("rm", "-f", "busy")


@pytest.mark.parametrize("user", ["ranges"], indirect=True)
def test_without_a_control_group(user: tuple[Run, Path, bool]) -> None:
    """RT-14 (CVE-2023-25809): the host's control groups are not written to from a container without its own namespace."""
    run, home, _ranges = user
    run("build", "-q", "-t", "b", "-f", _write(home / "Dockerfile", "FROM workbench/base\n"), ".")
    script = "mkdir /sys/fs/cgroup/x || echo refused; for d in /sys/fs/cgroup/*/; do mkdir $d/x && echo made; done"
    for mode in ("host", "private"):
        told = run("run", "--rm", "--network", "none", "--cgroupns", mode, "b", "sh", "-c", f"{script}; true")
        assert told.stdout == "refused\n"
    run("run", "-d", "--name", "idle", "--network", "none", "b", "sleep", "1000")
    if Path("/sys/fs/cgroup/memory").exists():  # v1: nothing of it is an ordinary user's
        assert "sleep 1000" in run("top", "idle").stdout
        assert "no control group of its own" in run("stats", "--no-stream", "idle", code=1).stderr
        assert "cannot pause" in run("pause", "idle", code=1).stderr
    run("rm", "-f", "idle")


@pytest.mark.parametrize("user", ["ranges"], indirect=True)
def test_devices_and_processes_of_the_host(user: tuple[Run, Path, bool]) -> None:
    """A user namespace makes no device nodes and mounts no proc of the host's processes: what the host has is shown, and may be used
    by who might outside."""
    run, home, _ranges = user
    run("build", "-q", "-t", "b", "-f", _write(home / "Dockerfile", "FROM workbench/base\n"), ".")
    shared = ("run", "--rm", "--network", "host")
    script = "stat -c '%F %t:%T' /dev/x; echo gone > /dev/x; cat /dev/x"
    assert (
        run(*shared, "--device", "/dev/null:/dev/x", "b", "sh", "-c", script).stdout == "character special file 1:3\n"
    )
    other = next(one for one in devices.all_devices() if one.path not in STANDARD)
    words = run(*shared, "--privileged", "b", "sh", "-c", f"stat -c '%t:%T' {other.path}").stdout
    assert words == f"{other.major:x}:{other.minor:x}\n"
    own = run(*shared, "--pid", "host", "b", "cat", "/proc/1/comm").stdout
    assert own == Path("/proc/1/comm").read_text()
