"""Namespaces of one's own, shared ones, and what is set in them, seen from inside real containers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput, StartFailed
from engine.model import Ulimit
from engine.runtime.exec_client import ExecParams
from engine.runtime.spec import SpecParams, make_spec
from engine.runtime.spec_namespaces import Join
from engine.runtime.state import start_time
from tests.engine.runtime.test_runtime_network import until

pytestmark = pytest.mark.root
MakeBox = Callable[..., Any]
KINDS = ("cgroup", "ipc", "mnt", "pid", "time", "uts", "net", "user")


def spaces(box: MakeBox, **params: Any) -> set[str]:
    """The kinds that are not the host's."""
    script = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in KINDS)
    one = box("sh", "-c", script, **params)
    assert one.run() == 0
    seen = dict(zip(KINDS, one.output().split(), strict=True))
    return {kind for kind, name in seen.items() if name != os.readlink(f"/proc/self/ns/{kind}")}


def test_namespaces_of_its_own(box: MakeBox) -> None:
    assert spaces(box) == {"cgroup", "ipc", "mnt", "pid", "time", "uts"}
    assert spaces(box, network="none") == {"cgroup", "ipc", "mnt", "pid", "time", "uts", "net"}


@pytest.mark.parametrize(("flag", "kind"), [("pid", "pid"), ("ipc", "ipc"), ("uts", "uts"), ("cgroupns", "cgroup")])
def test_a_namespace_of_the_hosts(box: MakeBox, flag: str, kind: str) -> None:
    assert kind not in spaces(box, **{f"{flag}_mode": "host"})


def test_with_the_hosts_pids_the_others_end_too(box: MakeBox) -> None:
    """There the kernel does not end what the first process left behind."""
    one = box("sh", "-c", "sleep 1000 & echo $!", pid_mode="host")
    assert one.run() == 0
    assert not os.path.exists(f"/proc/{one.output().strip()}/root/bin/busybox")


def join_of(one: Any, kind: str) -> dict[str, Any]:
    pid = one.start().pid
    return {"join": {kind: Join(pid, start_time(pid))}}


def test_joining_another_containers_pids(box: MakeBox) -> None:
    first = box("sleep", "1000")
    joined = join_of(first, "pid")
    second = box("sh", "-c", "ps -o args; kill -0 1 && echo $$", pid_mode="container:x", **joined)
    assert second.run() == 0
    assert "sleep 1000" in second.output()
    assert int(second.output().split()[-1]) > 1
    masks = Path(f"/proc/{joined['join']['pid'].pid}/mounts").read_text().count(" /proc/")
    # As anywhere: its own time, terminal, masks, limits, /proc; and it is restarted, ended and executed in.
    script = "[ -t 0 ] && tty; cat /proc/1/comm; grep -c ' /proc/' /proc/mounts; echo x 2>/dev/null > /proc/sys/vm/swappiness || echo kept; ulimit -u"
    third = box("sh", "-c", script, pid_mode="container:x", **joined, tty=True, user="54321", ulimits=(Ulimit("nproc", 9, 9),),
                life={"restart_policy": {"name": "on-failure", "maximum_retry_count": 2}})  # fmt: skip
    assert third.run() == 0
    assert third.output().split("\r\n") == ["/dev/pts/0", "sleep", str(masks), "kept", "9", ""]
    fourth = box("sh", "-c", "echo again; exit 3", pid_mode="container:x", **joined,
                 life={"restart_policy": {"name": "on-failure", "maximum_retry_count": 2}})  # fmt: skip
    assert fourth.run() == 3
    until(lambda: fourth.runtime.state(fourth.bundle).status == "exited", "the last of its restarts")
    assert fourth.output().count("again") == 3
    fifth = box("sleep", "1000", pid_mode="container:x", **joined)
    pid = fifth.start().pid
    assert os.readlink(f"/proc/{pid}/ns/time") != os.readlink("/proc/self/ns/time")
    process = fifth.runtime.exec(fifth.id, ExecParams(["test", "-d", "/proc/1"]))
    assert process.wait() == 0
    process.close()
    for command, code in (("/nowhere", 127), ("/etc", 126)):
        with pytest.raises(StartFailed) as failed:
            box(command, pid_mode="container:x", **joined).start()
        assert failed.value.exit_code == code
    late = box("true", pid_mode="container:x", join={"pid": Join(joined["join"]["pid"].pid, 5)})
    with pytest.raises(StartFailed, match="not running any more"):
        late.start()


def test_joining_another_containers_ipc_and_shm(box: MakeBox) -> None:
    first = box("sh", "-c", "echo shared > /dev/shm/x; ipcmk -Q >/dev/null 2>&1; sleep 1000", ipc_mode="shareable")
    joined = join_of(first, "ipc")
    script = "while ! [ -s /dev/shm/x ]; do :; done; cat /dev/shm/x; echo back > /dev/shm/y; readlink /proc/self/ns/ipc"
    second = box("sh", "-c", script, ipc_mode="container:x", **joined)
    assert second.run() == 0
    text, name = second.output().split()
    assert text == "shared"
    pid = joined["join"]["ipc"].pid
    assert name == os.readlink(f"/proc/{pid}/ns/ipc")
    assert Path(f"/proc/{pid}/root/dev/shm/y").read_text() == "back\n"


def test_ipc_none_has_no_shm(box: MakeBox) -> None:
    one = box("grep", "-c", " /dev/shm ", "/proc/mounts", ipc_mode="none")
    assert one.run() == 1
    assert "ipc" in spaces(box, ipc_mode="none")


def test_sysctls(box: MakeBox) -> None:
    wanted = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096", "kernel.domainname": "example.org"}
    one = box("sh", "-c", "cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax kernel/domainname; cat net/ipv4/conf/lo/forwarding",
              network="none", sysctls={**wanted, "net/ipv4/conf/lo/forwarding": "1"})  # fmt: skip
    assert one.run() == 0
    assert one.output().split() == ["1", "4096", "example.org", "1"]
    bad = box("true", network="none", sysctls={"net.ipv4.no_such": "1"})
    with pytest.raises(StartFailed, match=r"net\.ipv4\.no_such: this kernel does not have it"):
        bad.start()
    wrong = box("true", network="none", sysctls={"net.ipv4.ip_forward": "many"})
    with pytest.raises(StartFailed, match=r"sysctl net\.ipv4\.ip_forward = 'many': Invalid argument"):
        wrong.start()


@pytest.mark.parametrize(
    ("name", "value", "params"),
    [
        ("kernel.core_pattern", "|/x", {}),
        ("vm.overcommit_memory", "1", {}),
        ("kernel.hostname", "x", {}),
        ("net.ipv4.ip_forward", "1", {"network": "host"}),
        ("kernel.msgmax", "1", {"ipc_mode": "host"}),
        ("kernel.domainname", "x", {"uts_mode": "host"}),
        ("kernel.shm_rmid_forced+kernel.core_pattern", "1", {}),
        ("kernel.msgmax", "1\nkernel.core_pattern=x", {}),
        ("kernel/../kernel/core_pattern", "x", {}),
        ("net.ipv4.../../kernel/core_pattern", "x", {}),
        ("net", "x", {}),
        ("kernel.core_pattern=net.x", "x", {}),
        ("fs.mqueue/../../kernel/core_pattern", "1", {}),
    ],
)
def test_sysctls_that_reach_the_host(name: str, value: str, params: dict[str, Any]) -> None:
    """CVE-2022-0811, GO-2022-0363 (RT-17)."""
    with pytest.raises(InvalidInput, match="sysctl"):
        make_spec(SpecParams("x", ["true"], **{"network": "none", "sysctls": {name: value}, **params}))


@pytest.mark.parametrize(
    "params",
    [
        {"pid_mode": "container:"},
        {"pid_mode": "private"},
        {"ipc_mode": "shared"},
        {"uts_mode": "container:x"},
        {"cgroupns_mode": "container:x"},
        {"userns_mode": "container:x"},
    ],
)
def test_modes_that_are_none(params: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=r"invalid .* mode"):
        make_spec(SpecParams("x", ["true"], **params))  # type: ignore[arg-type]


def test_tmpfs(box: MakeBox) -> None:
    one = box(
        "sh",
        "-c",
        "grep -E ' (/a|/new/b|/bin2|/dev|/dev/shm) ' /proc/mounts; stat -c '%n %a' /a /new/b /tmp; echo x > /a/x && ls /dev/null",
        tmpfs={"/a": "", "/new/b": "size=1m,mode=700,exec", "/tmp": "", "/dev/shm": "size=1m", "/dev": "size=2m"},
    )
    assert one.run() == 0
    rows = {
        line.split()[1]: line.split()[3].split(",") for line in one.output().splitlines() if line.startswith("tmpfs")
    }
    assert {"nosuid", "nodev", "noexec"} <= set(rows["/a"])
    assert "noexec" not in rows["/new/b"]
    assert {"size=1024k", "mode=700"} <= set(rows["/new/b"])
    assert "size=1024k" in rows["/dev/shm"]
    assert {"size=2048k", "mode=755"} <= set(rows["/dev"])
    modes = dict(line.split() for line in one.output().splitlines() if line.count(" ") == 1)
    assert (modes["/a"], modes["/new/b"]) == ("1777", "700")
    assert modes["/tmp"] == f"{os.stat('/proc/self/root').st_mode & 0o7777:o}" or modes["/tmp"] == "755"
    for options in ("size", "foo", "mode=", "size=1m,foo=2"):
        with pytest.raises(InvalidInput, match="invalid tmpfs option"):
            make_spec(SpecParams("x", ["true"], tmpfs={"/a": options}))
    for target in ("/", "relative", "/a\nb"):
        with pytest.raises(InvalidInput, match="mount target"):
            make_spec(SpecParams("x", ["true"], tmpfs={target: ""}))
    with pytest.raises(StartFailed, match="inside /proc"):
        box("true", tmpfs={"/proc/self/attr": ""}).start()


def test_shm_size_ulimits_groups_and_oom_score(box: MakeBox) -> None:
    one = box(
        "sh", "-c", "grep /dev/shm /proc/mounts; ulimit -n; ulimit -c; id -G; cat /proc/self/oom_score_adj",
        shm_size=3 << 20, ulimits=(Ulimit("nofile", 123, 456), Ulimit("core", 0, 0)), group_add=("staff", "77"),
        oom_score_adj=321, user="bob",
    )  # fmt: skip
    assert one.run() == 0
    lines = one.output().splitlines()
    assert "size=3072k" in lines[0]
    assert lines[1:] == ["123", "0", "1001 50 77", "321"]
    unknown = box("true", group_add=("nobody-knows",))
    with pytest.raises(StartFailed, match="unable to find group nobody-knows"):
        unknown.start()
    for limits, text in (
        (Ulimit("files", 1, 1), "invalid ulimit type"),
        (Ulimit("nofile", 9, 1), "less than or equal"),
    ):
        with pytest.raises(InvalidInput, match=text):
            make_spec(SpecParams("x", ["true"], ulimits=(limits,)))
