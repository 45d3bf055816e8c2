"""What a container may not do and may not see: Docker's defaults, read from inside."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput, StartFailed
from engine.linux import cgroup
from engine.runtime.exec_client import ExecParams
from engine.runtime.spec import BindMount, SpecParams, capability_names, make_spec

pytestmark = pytest.mark.root
MakeBox = Callable[..., Any]
DEFAULT = "00000000a80425fb"
NONE = "0" * 16


def status(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.mark.parametrize(
    ("params", "bounding", "effective"),
    [
        ({}, DEFAULT, DEFAULT),
        ({"user": "bob"}, DEFAULT, NONE),
        ({"cap_drop": ["ALL"]}, NONE, NONE),
        ({"cap_drop": ["ALL"], "cap_add": ["CAP_KILL"]}, f"{1 << 5:016x}", f"{1 << 5:016x}"),
        ({"cap_add": ["net_admin"], "cap_drop": ["MKNOD"]}, "00000000a00435fb", "00000000a00435fb"),
        ({"security_opt": ("no-new-privileges",)}, DEFAULT, DEFAULT),
    ],
)
def test_capabilities(box: MakeBox, params: dict[str, Any], bounding: str, effective: str) -> None:
    one = box("cat", "/proc/self/status", **params)
    assert one.run() == 0
    seen = status(one.output())
    assert (seen["CapBnd"], seen["CapPrm"], seen["CapEff"]) == (bounding, effective, effective)
    assert (seen["CapInh"], seen["CapAmb"]) == (NONE, NONE)
    assert seen["Seccomp"] == "2"
    assert seen["NoNewPrivs"] == ("1" if params.get("security_opt") else "0")


def test_an_exec_is_confined_as_the_container(box: MakeBox) -> None:
    one = box("sleep", "100", security_opt=("no-new-privileges",))
    one.start()
    process = one.runtime.exec(one.id, ExecParams(["cat", "/proc/self/status"]))
    text = b"".join(item[1] for item in iter(process.read, None)).decode()
    assert process.wait() == 0
    process.close()
    seen = status(text)
    assert (seen["CapBnd"], seen["CapInh"], seen["CapAmb"]) == (DEFAULT, NONE, NONE)
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "1")


def test_privileged(box: MakeBox) -> None:
    one = box("sh", "-c", "cat /proc/self/status; mount -t tmpfs x /tmp && echo mounted", privileged=True)
    assert one.run() == 0
    seen = status(one.output())
    assert int(seen["CapEff"], 16).bit_count() >= 30
    assert seen["Seccomp"] == "0"
    assert "mounted" in one.output()


@pytest.mark.parametrize(
    "command", ["unshare -m true", "mount -t tmpfs x /tmp", "umount /proc", "mount -o bind /tmp /bin"]
)
def test_the_filter_refuses(box: MakeBox, command: str) -> None:
    one = box("sh", "-c", command)
    assert one.run() != 0
    assert re.search(r"Operation not permitted|permission denied|can't umount", one.output("stderr"))


def test_hidden_and_read_only_paths(box: MakeBox) -> None:
    script = """
    for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do [ -e $f ] && wc -c < $f; done
    for d in /proc/acpi /proc/scsi /sys/firmware; do [ -e $d ] && ls -A $d; done
    for f in /proc/sys/kernel/hostname /sys/kernel/x /sys/fs/cgroup/x; do (echo x > $f) 2>&1; done
    """
    one = box("sh", "-c", script)
    one.run()
    lines = one.output().splitlines()
    assert {line for line in lines if "create" not in line} == {"0"}
    assert len([line for line in lines if "Read-only file system" in line]) == 3


def test_mounts_and_devices_are_dockers(box: MakeBox) -> None:
    one = box("sh", "-c", "cat /proc/mounts; cd /dev; ls -1; stat -c '%n %a %t:%T' null zero full random urandom tty")
    assert one.run() == 0
    text = one.output()
    options = {line.split()[1]: line.split()[3] for line in text.splitlines() if len(line.split()) == 6}
    assert options["/proc"].startswith("rw,nosuid,nodev,noexec")
    assert options["/sys"].startswith("ro,nosuid,nodev,noexec")
    assert options["/sys/fs/cgroup"].startswith("ro,nosuid,nodev,noexec")
    assert "mode=755" in options["/dev"]
    assert "size=65536k" in options["/dev"]
    assert {"newinstance", "ptmxmode=666"} & set(options["/dev/pts"].split(","))
    assert "noexec" in options["/dev/shm"]
    assert "size=65536k" in options["/dev/shm"]
    assert "null 666 1:3" in text
    assert "tty 666 5:0" in text
    names = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert set(names.split()) <= set(text.split())


def test_devices_outside_the_list_do_not_open(box: MakeBox) -> None:
    if cgroup.discover(Path("/proc/self/mountinfo").read_text()).version == "v2":
        pytest.skip("no device filter on cgroup v2 yet")
    one = box("sh", "-c", "mknod /tmp/mem c 1 1 && head -c1 /tmp/mem; mknod /tmp/n c 1 3 && echo > /tmp/n && echo ok")
    one.run()
    assert "Operation not permitted" in one.output("stderr")
    assert one.output() == "ok\n"


def test_only_the_standard_streams_are_open(box: MakeBox) -> None:
    one = box("ls", "/proc/self/fd")
    assert one.run() == 0
    assert one.output().split() == ["0", "1", "2", "3"]  # 3 is ls's own
    two = box("sleep", "100")
    two.start()
    process = two.runtime.exec(two.id, ExecParams(["ls", "/proc/self/fd"]))
    assert b"".join(item[1] for item in iter(process.read, None)).split() == [b"0", b"1", b"2", b"3"]
    process.close()


@pytest.mark.parametrize("number", [3, 4, 5, 7, 10, 15, 20, 100])
def test_a_working_directory_behind_a_descriptor_is_refused(box: MakeBox, number: int) -> None:
    """CVE-2024-21626."""
    one = box("pwd", cwd=f"/proc/self/fd/{number}")
    with pytest.raises(StartFailed, match="working directory"):
        one.start()


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_a_kernel_directory_that_is_a_link_is_refused(box: MakeBox, name: str) -> None:
    one = box("true")
    (one.bundle / "upper" / name).symlink_to("/tmp")
    with pytest.raises(StartFailed, match=f"/{name} in the image must be an ordinary directory") as caught:
        one.start()
    assert caught.value.exit_code == 125
    two = box("true")
    (two.bundle / "upper" / name).write_text("")
    with pytest.raises(StartFailed, match="must be an ordinary directory"):
        two.start()


def test_mount_targets_stay_inside(box: MakeBox, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/here").write_text("yes")
    canary = tmp_path / "canary"
    canary.mkdir()
    one = box("cat", "/data/here", mounts=[BindMount(str(tmp_path / "source"), "/link/data")])
    (one.bundle / "upper/link").symlink_to("../../../../../.." + str(canary))
    one.run()
    assert os.listdir(canary) == []
    for target in ("/proc", "/proc/self/attr", "/evil/sys"):
        two = box("true", mounts=[BindMount(str(tmp_path / "source"), target)])
        (two.bundle / "upper/evil").symlink_to("/proc")
        with pytest.raises(StartFailed, match="inside /proc"):
            two.start()


def test_bind_mounts(box: MakeBox, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("file\n")
    mounts = [BindMount(str(tmp_path / "d"), "/d"), BindMount(str(tmp_path / "f"), "/new/dir/f", read_only=True)]
    one = box("sh", "-c", "echo w > /d/out; cat /new/dir/f; echo x > /new/dir/f", mounts=mounts)
    assert one.run() == 1
    assert one.output() == "file\n"
    assert "Read-only file system" in one.output("stderr")
    assert (tmp_path / "d/out").read_text() == "w\n"
    missing = box("true", mounts=[BindMount(str(tmp_path / "none"), "/d")])
    with pytest.raises(StartFailed, match=r"bind source .*none: No such file"):
        missing.start()


def test_a_read_only_root(box: MakeBox) -> None:
    one = box("sh", "-c", "echo x > /file; echo ok > /dev/shm/x && cat /dev/shm/x", read_only=True)
    assert one.run() == 0
    assert one.output() == "ok\n"
    assert "Read-only file system" in one.output("stderr")


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, "0", "/root"),
        ("bob", 1000, 1001, "1001 50", "/home/bob"),
        ("1000", 1000, 1001, "1001 50", "/home/bob"),
        ("1002", 1002, 0, "0", "/"),
        ("bob:staff", 1000, 50, "50", "/home/bob"),
        ("7:8", 7, 8, "8", "/"),
        (":50", 0, 50, "50", "/root"),
    ],
)
def test_users(box: MakeBox, user: str, uid: int, gid: int, groups: str, home: str) -> None:
    one = box("sh", "-c", "id -u; id -g; id -G; echo $HOME; echo again > /dev/stdout", user=user)
    assert one.run() == 0
    assert one.output().splitlines() == [str(uid), str(gid), groups, home, "again"]


def test_a_user_that_does_not_exist(box: MakeBox) -> None:
    one = box("true", user="eve")
    with pytest.raises(StartFailed, match="unable to find user eve: no matching entries in passwd file"):
        one.start()


def test_user_files_that_are_traps(box: MakeBox, tmp_path: Path) -> None:
    one = box("true", user="bob")
    (one.bundle / "upper/etc").mkdir()
    os.mkfifo(one.bundle / "upper/etc/passwd")
    with pytest.raises(StartFailed, match="/etc/passwd is not a regular file"):
        one.start()
    two = box("true", user="bob")
    (two.bundle / "upper/etc").mkdir()
    with open(two.bundle / "upper/etc/passwd", "wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(StartFailed, match="larger than 10 MiB"):
        two.start()


def test_hostname_environment_and_directory(box: MakeBox) -> None:
    one = box("sh", "-c", "hostname; pwd; echo $A-$HOSTNAME; env", env=["A=1", "WITHOUT"], cwd="/made/here", user="bob")
    assert one.run() == 0
    lines = one.output().splitlines()
    assert lines[:3] == ["box", "/made/here", "1-box"]
    names = {line.partition("=")[0] for line in lines[3:]}
    assert names <= {"A", "PATH", "HOSTNAME", "HOME", "PWD", "SHLVL", "OLDPWD"}
    made = (one.bundle / "upper/made").stat()
    assert (made.st_uid, made.st_mode & 0o777) == (0, 0o755)


def test_network_none_has_only_loopback(box: MakeBox) -> None:
    one = box("sh", "-c", "ip -o link; cat /proc/sys/net/ipv4/ip_unprivileged_port_start", network="none")
    assert one.run() == 0
    lines = one.output().splitlines()
    assert len(lines) == 2
    assert "lo:" in lines[0]
    assert "UP" in lines[0]
    assert lines[1] == "0"


def limited() -> bool:
    return bool({"memory", "pids"} <= set(cgroup.discover(Path("/proc/self/mountinfo").read_text()).roots))


@pytest.mark.skipif(not limited(), reason="no v1 memory and pids controllers here")
def test_memory_and_pids_limits_on_v1(box: MakeBox) -> None:
    one = box("tail", "/dev/zero", memory=24 << 20)
    assert one.run() == 137
    assert one.runtime.state(one.bundle).oom_killed
    two = box("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait", pids_limit=4)
    two.run()
    assert "can't fork" in two.output("stderr")
    three = box("cat", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", cpus=0.5)
    assert three.run() == 0
    assert three.output() == "50000\n"


def test_the_oom_score_is_the_containers(box: MakeBox) -> None:
    one = box("cat", "/proc/self/oom_score_adj")
    assert one.run() == 0
    assert one.output() == "0\n"


def test_no_layers_at_all(box: MakeBox, busybox_root: Path) -> None:
    """FROM scratch."""
    one = box("/busybox", "echo", "alone", lowers=[])
    (one.bundle / "upper/busybox").write_bytes((busybox_root / "bin/busybox").read_bytes())
    (one.bundle / "upper/busybox").chmod(0o755)
    assert one.run() == 0
    assert one.output() == "alone\n"


def test_what_the_spec_refuses() -> None:
    def refuse(match: str, **values: Any) -> None:
        with pytest.raises(InvalidInput, match=match):
            make_spec(SpecParams(**{"container_id": "x", "args": ["true"], **values}))

    refuse("no command", args=[])
    refuse("control character", user="bob\nroot::0:0")
    refuse("control character", hostname="a\nb")
    refuse("not an absolute path", cwd="relative")
    refuse("unknown capability", cap_add=["NO_SUCH"])
    refuse("NUL", env=["A=\0"])


def test_capability_sets() -> None:
    assert len(capability_names()) == 14
    assert capability_names(drop=["ALL"], add=["chown"]) == ["CHOWN"]
    assert len(capability_names(add=["ALL"], last=40)) == 41
    assert "KILL" not in capability_names(add=["ALL"], drop=["KILL"])
