"""User namespaces: who a container's root is on the host, and that its files stay whose they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput, StartFailed
from engine.linux import mount
from engine.runtime.exec_client import ExecParams
from engine.runtime.spec import BindMount
from engine.runtime.spec_namespaces import IdMaps, IdRange
from engine.service.userns import id_maps

MakeBox = Callable[..., Any]
RANGE = (IdRange(0, 200_000, 65536),)
MAPS = IdMaps(RANGE, RANGE)


def mapped(box: MakeBox, *args: str, **params: Any) -> Any:
    one = box(*args, id_maps=MAPS, **params)
    if os.environ.get("CI") != "true" and tuple(map(int, os.uname().release.split(".")[:2])) < (5, 19):
        pytest.skip("overlay with mapped ids takes Linux 5.19")
    return one


@pytest.mark.root
def test_its_root_is_an_ordinary_user_of_the_host(box: MakeBox) -> None:
    one = mapped(
        box,
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map; echo mine > /file; chown bob /file; stat -c %u /bin/sh /file; sleep 1000",
    )
    pid = one.start().pid
    while one.output().count("\n") < 4:
        pass
    assert one.output().split() == ["0", "0", "200000", "65536", "0", "1000"]
    assert os.stat(f"/proc/{pid}").st_uid == 200_000
    assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
    written = (one.bundle / "upper/file").stat()
    assert written.st_uid == 1000, "on disk its files belong to the users that they have inside"
    process = one.runtime.exec(one.id, ExecParams(["sh", "-c", "id -u; grep Cap /proc/self/status; touch /by-exec"]))
    text = b"".join(item[1] for item in iter(process.read, None)).decode()
    assert process.wait() == 0
    process.close()
    assert text.startswith("0\n")
    assert "00000000a80425fb" in text
    assert (one.bundle / "upper/by-exec").stat().st_uid == 0


@pytest.mark.root
def test_users_streams_and_terminals(box: MakeBox) -> None:
    for user in ("", "bob"):
        one = mapped(box, "sh", "-c", "id -u; echo again > /dev/stdout; touch /tmp/x /dev/shm/x && stat -c %u /dev/shm/x", user=user,
                     tmpfs={"/tmp": "mode=1777"})  # fmt: skip
        assert one.run() == 0, one.output("stderr")
        uid = "1000" if user else "0"
        assert one.output().split() == [uid, "again", uid]
    two = mapped(box, "sh", "-c", "tty; stat -c '%u %g' /dev/pts/0 /dev; echo > /dev/console", tty=True)
    two.start()
    assert two.wait() == 0
    assert two.output().replace("\r", "").split() == ["/dev/pts/0", "0", "5", "0", "0"]


@pytest.mark.root
def test_what_is_the_hosts_stays_out_of_reach(box: MakeBox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    secret.chmod(0o600)
    os.chmod(tmp_path, 0o755)
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "inside").write_text("of the volume")
    (volume / "inside").chmod(0o600)
    one = mapped(box, "sh", "-c", "cat /v/inside; echo x > /v/new; cat /secret; echo 1 > /proc/sys/kernel/msgmax; umount /dev/shm; hostname changed && hostname",
                 mounts=[BindMount(str(secret), "/secret"), BindMount(str(volume), "/v", mapped=True)], cap_add=("SYS_ADMIN",),
                 security_opt=("seccomp=unconfined",))  # fmt: skip
    assert one.run() == 0
    assert one.output() == "of the volumechanged\n"
    errors = one.output("stderr")
    assert "'/secret': Permission denied" in errors
    assert "can't unmount /dev/shm: Invalid argument" in errors
    assert (volume / "new").stat().st_uid == 0


@pytest.mark.root
def test_its_own_network_is_its_own(box: MakeBox) -> None:
    one = mapped(box, "sh", "-c", "ip addr add 10.9.8.7/32 dev lo && ip -o addr show lo; cat /proc/sys/net/ipv4/ip_forward", network="none",
                 cap_add=("NET_ADMIN",), sysctls={"net.ipv4.ip_forward": "1"})  # fmt: skip
    assert one.run() == 0, one.output("stderr")
    assert "10.9.8.7" in one.output()
    assert one.output().split()[-1] == "1"


@pytest.mark.root
def test_a_file_system_that_cannot_map(box: MakeBox, tmp_path: Path) -> None:
    """procfs is one."""
    one = mapped(box, "true", mounts=[BindMount("/proc", "/x", mapped=True, recursive=False)])
    with pytest.raises(StartFailed, match="cannot be shown with mapped ids"):
        one.start()
    fd = os.open("/proc", os.O_PATH)
    assert mount.filesystem(fd) == 0x9FA0
    os.close(fd)


def test_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.base.settings.SYSTEM", tmp_path / "none")
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "subuid").write_text("other:1:5\nworkbench:100000:1000\nworkbench:300000:10\n")
    (etc / "subgid").write_text("workbench:500000:65536\n")

    def maps(value: object) -> IdMaps | None:
        (tmp_path / "settings.json").write_text(json.dumps({"runtime": {"userns-remap": value}}))
        return id_maps(tmp_path, etc)

    assert id_maps(tmp_path, etc) is None
    found = maps("default")
    assert found is not None
    assert found.uids == (IdRange(0, 100_000, 1000), IdRange(1000, 300_000, 10))
    assert found.gids == (IdRange(0, 500_000, 65536),)
    assert maps("7000:100") == IdMaps((IdRange(0, 7000, 100),), (IdRange(0, 7000, 100),))
    assert maps("") is None
    for wrong in ("nobody-such", "other", 5, "0:100", "5:0"):
        with pytest.raises(InvalidInput, match="userns-remap"):
            maps(wrong)
