"""What every launcher must do, whoever it is: the native one, and OCI runtimes by their command line.

One suite, the same tests on each. What the runtimes themselves decide (the words of an error, how many controllers of
cgroup v1 are shown) is not in it. After each test nothing of the container is left: group, state, mount, process.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Conflict, StartFailed
from engine.linux import cgroup
from engine.model import Ulimit
from engine.runtime.exec_client import ExecParams
from engine.runtime.netconfig import PortBinding
from engine.runtime.spec import BindMount
from engine.runtime.spec_mounts import ImageMount
from engine.runtime.spec_namespaces import IdMaps, IdRange, Join
from engine.runtime.state import LOST, start_time
from engine.service import oci_runtimes
from tests.engine.runtime.conftest import Box, MakeBox, supervisor_pid
from tests.engine.runtime.test_runtime_network import endpoint, network, section, until  # noqa: F401

pytestmark = pytest.mark.root
RUNTIMES = [
    "native",
    pytest.param("runc", marks=pytest.mark.peer("runc")),
    pytest.param("crun", marks=pytest.mark.peer("crun")),
]


@pytest.fixture(params=RUNTIMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(name: str, box: MakeBox, tmp_path: Path) -> Iterator[MakeBox]:
    """As `box`, on the launcher under test, and with a look at what is left."""
    made: list[Box] = []

    def build(*args: str, **params: Any) -> Box:
        values = {"network": "none", "oci_runtime": oci_runtimes.section(tmp_path, name), **params}
        made.append(box(*args, **values))
        return made[-1]

    yield build
    for one in made:
        try:
            one.runtime.end(one.id, one.bundle)
        except Conflict:
            pass
        until(lambda one=one: not _left(one), f"nothing is left of {one.id[:12]}")


def _left(one: Box) -> list[str]:
    found = [
        str(root / "workbench" / one.id)
        for root in Path("/sys/fs/cgroup").iterdir()
        if (root / "workbench" / one.id).exists()
    ]
    if (one.runtime.run_dir / "oci" / one.id).exists():
        found.append("the runtime's state")
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(one.bundle) in line]
    return found + [one.id[:6] for pid in Path("/proc").glob("[0-9]*") if _name(pid) == f"wb-guard-{one.id[:6]}"]


def _name(pid: Path) -> str:
    try:
        return (pid / "comm").read_text().strip()
    except OSError:
        return ""


def said(one: Box, wanted: int = 1) -> list[str]:
    """Its first lines of output."""
    log = one.bundle / "log.json"
    until(lambda: log.exists() and log.read_bytes().count(b"\n") >= wanted, "output")
    return one.output().splitlines()


def execute(one: Box, *args: str, **params: Any) -> tuple[int, str]:
    process = one.runtime.exec(one.id, ExecParams(args, **params))
    try:
        text = b"".join(item[1] for item in iter(process.read, None)).decode()
        return process.wait(), text.replace("\r", "")
    finally:
        process.close()


# --- start and end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("trap - TERM; kill $$", 143)]
)
def test_exit_codes_and_streams(make: MakeBox, script: str, code: int) -> None:
    # A shell below the first process: that one cannot be killed from inside.
    one = make("sh", "-c", f"echo out; echo err >&2; sh -c '{script}'; exit $?")
    assert one.run() == code
    assert (one.output(), one.output("stderr").splitlines()[0]) == ("out\n", "err")
    state = one.runtime.state(one.bundle)
    assert (state.status, state.exit_code, state.error) == ("exited", code, "")


@pytest.mark.parametrize(
    ("args", "code"), [(["nosuch"], 127), (["/nosuch"], 127), (["/etc/passwd"], 126), (["/etc"], 126)]
)
def test_what_cannot_run(make: MakeBox, args: list[str], code: int) -> None:
    one = make(*args)
    with pytest.raises(StartFailed) as caught:
        one.start()
    assert caught.value.exit_code == code
    assert args[0] in caught.value.message or "executable" in caught.value.message
    assert one.runtime.state(one.bundle).status == "created"
    running = make("sleep", "1000")
    running.start()
    with pytest.raises(StartFailed) as caught:
        running.runtime.exec(running.id, ExecParams(args))
    assert caught.value.exit_code == code
    assert execute(running, "echo", "still") == (0, "still\n")


def test_environment_user_groups_and_folder(make: MakeBox) -> None:
    one = make("sh", "-c", "id -u; id -g; id -G; pwd; echo $A $HOME; hostname; ulimit -n; cat /proc/self/oom_score_adj", env=["A=b"],
               user="bob", group_add=("4000",), cwd="/made/here", ulimits=(Ulimit("nofile", 100, 200),), oom_score_adj=9)  # fmt: skip
    assert one.run() == 0, one.output("stderr")
    assert one.output().splitlines() == ["1000", "1001", "1001 50 4000", "/made/here", "b /home/bob", "box", "100", "9"]
    numeric = make("id", "-u", user="1002")  # CVE-2026-46680: the file has it as a name
    assert numeric.run() == 0
    assert numeric.output() == "1002\n"
    with pytest.raises(StartFailed, match="unable to find user nobody-here"):
        make("true", user="nobody-here").start()


def test_confinement(make: MakeBox) -> None:
    script = "grep -E '^(Cap|NoNewPrivs|Seccomp):?' /proc/self/status; unshare -m true; echo $?; ls /proc/self/fd"
    one = make("sh", "-c", script, cap_drop=("MKNOD",), security_opt=("no-new-privileges",))
    assert one.run() == 0
    seen = dict(line.split(":\t") for line in one.output().splitlines() if ":\t" in line)
    assert {seen[f"Cap{kind}"] for kind in ("Prm", "Eff", "Bnd")} == {"00000000a00425fb"}
    assert {seen[f"Cap{kind}"] for kind in ("Inh", "Amb")} == {"0" * 16}
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
    lines = one.output().splitlines()
    assert lines[lines.index("1") :][:1] == ["1"], "unshare is refused"
    assert lines[-4:] == ["0", "1", "2", "3"], "no descriptor is left open (3 is ls's own)"
    bob = make("sh", "-c", "grep -E 'Cap(Eff|Bnd)' /proc/self/status", user="bob")
    assert bob.run() == 0
    assert bob.output().split()[1::2] == ["0" * 16, "00000000a80425fb"]
    free = make("sh", "-c", "grep Seccomp: /proc/self/status", security_opt=("seccomp=unconfined",))
    assert free.run() == 0
    assert free.output().split()[-1] == "0"


def test_a_profile_of_ones_own(make: MakeBox) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    one = make("sh", "-c", "mkdir /tmp/x; touch /tmp/y && echo made", security_opt=(f"seccomp={json.dumps(profile)}",))
    assert one.run() == 0
    assert one.output() == "made\n"
    assert "No space left on device" in one.output("stderr")


def test_hidden_paths_and_a_read_only_root(make: MakeBox) -> None:
    script = "wc -c < /proc/keys; ls /sys/firmware | wc -l; echo x > /proc/sys/kernel/domainname; touch /file; touch /run/file && echo ok"
    one = make("sh", "-c", script, read_only=True, tmpfs={"/run": "size=1m"})
    assert one.run() == 0
    assert one.output().split() == ["0", "0", "ok"]
    assert one.output("stderr").count("Read-only file system") == 2


# --- mounts -----------------------------------------------------------------------------------------------


def test_mounts(make: MakeBox, tmp_path: Path, busybox_root: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_text("below\n")
    (tmp_path / "one-file").write_text("a file\n")
    (tmp_path / "image/dir").mkdir(parents=True)
    (tmp_path / "image/dir/of-image").write_text("an image's\n")
    script = (
        "cat /sub/file /file /image/of-image; echo new > /data/new; touch /ro/x; touch /image/x; touch /file;"
        " grep ' /tmpfs ' /proc/mounts"
    )
    one = make("sh", "-c", script, tmpfs={"/tmpfs": "size=1m,mode=700"}, mounts=(
        BindMount(str(source), "/data"), BindMount(str(source), "/ro", read_only=True),
        BindMount(str(source), "/sub", subpath="sub"), BindMount(str(tmp_path / "one-file"), "/file", read_only=True),
        ImageMount("/image", "some:image", (str(tmp_path / "image"), str(busybox_root)), subpath="dir"),
    ))  # fmt: skip
    assert one.run() == 0, one.output("stderr")
    assert one.output().splitlines()[:3] == ["below", "a file", "an image's"]
    assert one.output("stderr").count("Read-only file system") == 3
    assert "size=1024k" in one.output()
    assert (source / "new").read_text() == "new\n"
    with pytest.raises(StartFailed, match=r"bind source .*/nosuch"):
        make("true", mounts=(BindMount(str(tmp_path / "nosuch"), "/x"),)).start()


def test_a_subpath_does_not_climb(make: MakeBox, tmp_path: Path) -> None:
    source = tmp_path / "volume"
    source.mkdir()
    (tmp_path / "secret").write_text("secret")
    (source / "link").symlink_to("../secret")
    with pytest.raises(StartFailed, match="subpath"):
        make("cat", "/x", mounts=(BindMount(str(source), "/x", subpath="link"),)).start()


@pytest.mark.parametrize("where", ["proc", "sys", "dev"])
def test_an_image_whose_kernel_folder_is_a_link(make: MakeBox, where: str, tmp_path: Path) -> None:
    """CVE-2019-19921, CVE-2023-28642, CVE-2026-41579: also before a runtime that has not mended them."""
    canary = tmp_path / "canary"
    canary.mkdir()
    one = make("true")
    (one.bundle / "upper" / where).symlink_to(f"../../../../../../../..{canary}")
    with pytest.raises(StartFailed, match="must be an ordinary directory"):
        one.start()
    assert not list(canary.iterdir())


# --- terminal and input -----------------------------------------------------------------------------------


def test_a_terminal(make: MakeBox) -> None:
    one = make(
        "sh", "-c", "tty; stty size; read line; echo got $line; exit 3", tty=True, open_stdin=True, tty_size=(30, 90)
    )
    attach = one.start(attach=True).attach
    assert attach is not None
    said(one, 2)
    one.runtime.resize(one.id, 40, 100)
    attach.write(b"typed\n")
    assert one.wait() == 3
    attach.close()
    assert one.output().replace("\r", "").splitlines() == ["/dev/pts/0", "30 90", "typed", "got typed"]


def test_input_reaches_the_program(make: MakeBox) -> None:
    one = make("cat", open_stdin=True)
    attach = one.start(attach=True).attach
    assert attach is not None
    attach.write(b"through\n")
    attach.close_stdin()
    assert one.wait() == 0
    attach.close()
    assert one.output() == "through\n"


def test_the_small_init(make: MakeBox) -> None:
    one = make("sh", "-c", "echo $$ $(cat /proc/1/comm); exit 5", init=True)
    assert one.run() == 5
    pid, first = one.output().split()
    assert int(pid) > 1
    assert first == "init"
    with pytest.raises(StartFailed) as caught:
        make("nosuch", init=True).start()
    assert caught.value.exit_code == 127


# --- exec -------------------------------------------------------------------------------------------------


def test_exec(make: MakeBox) -> None:
    one = make("sleep", "1000", env=["A=b"])
    one.start()
    assert execute(one, "sh", "-c", "echo $A $C $HOME; id -u; pwd; exit 7", env=["C=d"], user="bob", cwd="/tmp") == (
        7, "b d /home/bob\n1000\n/tmp\n",
    )  # fmt: skip
    code, text = execute(one, "sh", "-c", "tty; stty size; echo $TERM", tty=True, tty_size=(20, 70))
    assert (code, text.split()) == (0, ["/dev/pts/0", "20", "70", "xterm"])
    code, text = execute(one, "grep", "-E", "Cap(Inh|Eff|Amb)|Seccomp:", "/proc/self/status")
    assert text.split()[1::2] == ["0" * 16, "00000000a80425fb", "0" * 16, "2"]
    assert execute(one, "sh", "-c", "kill -9 $$")[0] == 137
    process = one.runtime.exec(one.id, ExecParams(["sh", "-c", "touch /by-exec"], detach=True))
    process.close()
    until(lambda: (one.bundle / "upper/by-exec").exists(), "a detached exec's file")
    ended = [one_exec for one_exec in one.runtime.execs(one.id) if one_exec["exit_code"] is not None]
    assert {found["exit_code"] for found in ended} >= {7, 137}


def test_an_exec_that_is_killed_with_its_container(make: MakeBox) -> None:
    one = make("sleep", "1000")
    one.start()
    process = one.runtime.exec(one.id, ExecParams(["sleep", "1000"]))
    one.runtime.signal(one.id, signal.SIGKILL)
    assert process.wait() == 137
    process.close()
    assert one.wait() == 137
    with pytest.raises(Conflict, match="is not running"):
        one.runtime.exec(one.id, ExecParams(["true"]))


# --- signals, pause, limits -------------------------------------------------------------------------------


def test_signals_and_stop(make: MakeBox) -> None:
    one = make(
        "sh", "-c", "trap 'echo usr' USR1; trap 'echo term; exit 4' TERM; echo ready; while :; do sleep 0.05; done"
    )
    one.start()
    said(one)
    one.runtime.signal(one.id, signal.SIGUSR1)
    assert said(one, 2)[1] == "usr"
    assert one.runtime.stop(one.id, one.bundle, signal.SIGTERM, 10) == 4
    deaf = make("sleep", "1000")
    deaf.start()
    assert deaf.runtime.stop(deaf.id, deaf.bundle, signal.SIGTERM, 0.2) == 137


def test_pause(make: MakeBox) -> None:
    one = make("sh", "-c", "while :; do echo line; sleep 0.01; done")
    one.start()
    said(one, 2)
    one.runtime.pause(one.id)
    assert one.runtime.state(one.bundle).status == "paused"
    with pytest.raises(Conflict, match="paused"):
        one.runtime.exec(one.id, ExecParams(["true"]))
    size = (one.bundle / "log.json").stat().st_size
    time.sleep(0.2)  # nothing must happen: there is no event to wait for
    assert (one.bundle / "log.json").stat().st_size == size
    one.runtime.unpause(one.id)
    until(lambda: (one.bundle / "log.json").stat().st_size > size, "output after the pause")
    one.runtime.pause(one.id)
    one.runtime.signal(one.id, signal.SIGKILL)
    assert one.wait() == 137


def test_limits_update_and_members(make: MakeBox) -> None:
    one = make("sleep", "1000", memory=64 << 20, pids_limit=20, cpu_shares=512)
    pid = one.start().pid
    layout = cgroup.here()
    group = cgroup.Cgroup(layout, f"workbench/{one.id}")
    assert group.members() == [str(pid)]
    name = "memory.max" if group.v2 else "memory.limit_in_bytes"
    limit = group.directories["" if group.v2 else "memory"] / name
    assert int(limit.read_text()) == 64 << 20
    one.runtime.update(one.id, {"memory": {"limit": 80 << 20, "swap": 160 << 20}})
    assert int(limit.read_text()) == 80 << 20
    pids = group.directories["" if group.v2 else "pids"] / "pids.max"
    assert int(pids.read_text()) == 20


def test_what_is_killed_for_memory(make: MakeBox) -> None:
    one = make("sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=50", memory=16 << 20, memory_swap=16 << 20)
    assert one.run() != 0
    state = one.runtime.state(one.bundle)
    assert state.oom_killed
    assert state.exit_code == 137


def test_the_host_s_processes(make: MakeBox) -> None:
    """Without a pid namespace of its own nothing ends the others but the group."""
    one = make("sh", "-c", "sleep 1000 & echo $!", pid_mode="host")
    assert one.run() == 0
    assert not os.path.exists(f"/proc/{one.output().strip()}/root/bin/busybox")


# --- network and namespaces -------------------------------------------------------------------------------


def test_a_bridge_with_a_port_and_names(make: MakeBox, network: Any) -> None:  # noqa: F811
    first = make("sh", "-c", "echo ready; nc -l -p 80 -e echo from-inside", **section(
        endpoint(network, 2, "first"), ports=(PortBinding(80, "tcp", "127.0.0.1"),)))  # fmt: skip
    first.start()
    said(first)
    second = make("sh", "-c", "ip -o -4 addr show eth0; nslookup first 127.0.0.11; ping -c1 -W5 $(nslookup first 127.0.0.11 | tail -n+3 | grep -m1 -o '10[.0-9]*')",
                  **section(endpoint(network, 3, "second")))  # fmt: skip
    assert second.run() == 0, second.output() + second.output("stderr")
    assert f"{network.gateway4.rpartition('.')[0]}.3/24" in second.output()
    report = first.runtime.state(first.bundle).network
    assert report is not None

    answer = b""
    while not answer:  # a call that finds nobody inside ends at once: nc may not listen yet
        with socket.create_connection(("127.0.0.1", report["published"][0]["host_port"]), 10) as sock:
            answer = sock.recv(100)
    assert answer == b"from-inside\n"
    assert first.wait() == 0


def test_a_shared_network_and_shared_pids(make: MakeBox) -> None:
    first = make("sleep", "1000")
    pid = first.start().pid
    joined = {kind: Join(pid, start_time(pid)) for kind in ("network", "pid")}
    second = make(
        "sh", "-c", "readlink /proc/self/ns/net; ps -o args", network="container", pid_mode="container:x", join=joined
    )
    assert second.run() == 0
    assert second.output().splitlines()[0] == os.readlink(f"/proc/{pid}/ns/net")
    assert "sleep 1000" in second.output()
    gone = make("true", network="container", join={"network": Join(pid, 1)})
    with pytest.raises(StartFailed, match="not running any more"):
        gone.start()


def test_a_user_namespace(make: MakeBox, tmp_path: Path) -> None:
    if os.environ.get("CI") != "true" and tuple(map(int, os.uname().release.split(".")[:2])) < (5, 19):
        pytest.skip("overlay with mapped ids takes Linux 5.19")
    ids = (IdRange(0, 200_000, 65536),)
    volume = tmp_path / "volume"
    volume.mkdir()
    one = make("sh", "-c", "id -u; touch /file /data/new; stat -c %u /bin/sh /file; echo done; sleep 1000", id_maps=IdMaps(ids, ids),
               mounts=(BindMount(str(volume), "/data", mapped=True),))  # fmt: skip
    pid = one.start().pid
    assert said(one, 4) == ["0", "0", "0", "done"], one.output("stderr")
    assert os.stat(f"/proc/{pid}").st_uid == 200_000
    assert (one.bundle / "upper/file").stat().st_uid == (volume / "new").stat().st_uid == 0
    assert execute(one, "sh", "-c", "id -u; touch /by-exec") == (0, "0\n")


# --- what the monitor does by itself ------------------------------------------------------------------------


def test_restarts_and_health(make: MakeBox) -> None:
    life = {
        "restart_policy": {"name": "on-failure", "maximum_retry_count": 2},
        "healthcheck": {"args": ["test", "-e", "/well"], "interval": 50_000_000, "timeout": 5_000_000_000, "start_period": 0,
                        "start_interval": 0, "retries": 1},
    }  # fmt: skip
    one = make("sh", "-c", "echo run; touch /well; sleep 0.5; exit 9", life=life)
    one.start()
    until(lambda: (one.runtime.state(one.bundle).health or {}).get("status") == "healthy", "a healthy state")
    until(lambda: one.runtime.state(one.bundle).status == "exited", "the end of the restarts")
    state = one.runtime.state(one.bundle)
    assert (state.exit_code, state.restart_count) == (9, 2)
    assert one.output() == "run\n" * 3


def test_many_lines_of_output(make: MakeBox) -> None:
    one = make("sh", "-c", "seq 1 100000")
    assert one.run() == 0
    assert one.output() == "".join(f"{number}\n" for number in range(1, 100001))


def test_it_outlives_supervisor_and_engine(make: MakeBox) -> None:
    one = make("sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done")
    one.start()
    said(one)
    os.kill(supervisor_pid(one.runtime), signal.SIGKILL)
    assert execute(one, "echo", "there") == (0, "there\n")
    assert one.runtime.stop(one.id, one.bundle, signal.SIGTERM, 10) == 6


def test_it_ends_with_its_monitor(make: MakeBox) -> None:
    one = make("sleep", "1000")
    pid = one.start().pid
    handle = os.pidfd_open(pid)
    os.kill(one.runtime.state(one.bundle).monitor_pid, signal.SIGKILL)

    assert select.select([handle], [], [], 20)[0], "nobody would log it or learn its code"
    os.close(handle)
    state = one.runtime.state(one.bundle)
    assert (state.status, state.exit_code, state.error) == ("exited", None, LOST)


# --- runtimes that fail -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'level=error that is why' >&2; exit 3", "create failed: broken create failed: level=error that is why"),
        ("exit 3", "ended with code 3 and said nothing"),
        ("kill -9 $$", "killed by signal 9"),
        ("exit 0", "left no process id"),
    ],
)
def test_a_runtime_that_fails(box: MakeBox, tmp_path: Path, script: str, words: str) -> None:
    program = tmp_path / "broken"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    one = box("true", network="none", oci_runtime={"name": "broken", "path": str(program), "args": []})
    with pytest.raises(StartFailed, match=words) as caught:
        one.start()
    assert caught.value.exit_code == 125
    assert not _left(one)


def test_a_runtime_that_is_missing(box: MakeBox) -> None:
    one = box("true", network="none", oci_runtime={"name": "gone", "path": "/nosuch/gone", "args": []})
    with pytest.raises(StartFailed, match=r"starting gone \(/nosuch/gone\): No such file or directory"):
        one.start()
    assert not _left(one)


@pytest.mark.peer("runc")
def test_a_runtime_s_own_arguments(box: MakeBox) -> None:
    path = shutil.which("runc")
    one = box("true", network="none", oci_runtime={"name": "odd", "path": path, "args": ["--no-such-option"]})
    with pytest.raises(StartFailed, match="no-such-option"):
        one.start()
