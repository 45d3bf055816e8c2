"""A real SSH session that ends under a real systemd with KillUserProcesses=yes: what was started in it goes on.

systemd, logind and sshd of this host run in namespaces of their own, on a root that borrows the host's /usr.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.patience import PATIENCE

pytestmark = [pytest.mark.root, pytest.mark.peer("systemd"), pytest.mark.peer("sshd")]

CHECKOUT = Path(__file__).parents[2]
USER, UID = "ann", 4242
COUNT = "i=0; while :; do i=\\$((i+1)); echo line \\$i; sleep 0.05; done"
SSHD = """ListenAddress 127.0.0.1
HostKey /etc/ssh/wbtest_host
AuthorizedKeysFile /etc/ssh/wbtest_key.pub
StrictModes no
UsePAM yes
PermitRootLogin yes
PidFile none
"""
UNITS = {
    "wbtest.target": "[Unit]\nRequires=dbus.socket systemd-logind.service systemd-user-sessions.service wbtest-ssh.service\nAfter=basic.target\n",
    "wbtest-ssh.service": "[Unit]\nAfter=dbus.socket systemd-logind.service\n[Service]\nRuntimeDirectory=sshd\n"
    "ExecStart=/usr/sbin/sshd -D -e -f /etc/ssh/wbtest_config\n",
}
# Everything is set up in a mount namespace of its own, which goes with its last process.
BOOT = """set -e
echo $$ > "$GROUP/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup --propagation private sh -c '
set -e
mount -t tmpfs -o mode=755 tmpfs "$R"
cp -a "$SEED"/. "$R"
cd "$R"
mkdir -p usr proc sys dev/pts dev/shm dev/net run tmp old wt packages py var/lib/workbench home/ann root
chmod 1777 tmp
mount --rbind /usr usr
for name in bin sbin lib lib32 lib64 libx32; do
  if [ -L /$name ]; then cp -a /$name .; elif [ -d /$name ]; then mkdir $name; mount --bind /$name $name; fi
done
mount --bind "$CHECKOUT" wt
mount --bind "$PACKAGES" packages
mount --bind "$PREFIX" py
mount --bind "$DATA/root" var/lib/workbench
mount --bind "$DATA/home" home/ann
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
pivot_root . old
umount -l old
hostname testbox
ip link set lo up
exec env -i container=wbtest PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=wbtest.target
'
"""


def seed(folder: Path) -> None:
    """/etc and /var of the box: the host's settings, without its services."""
    shutil.copytree("/etc", folder / "etc", symlinks=True, ignore=shutil.ignore_patterns("*.wants", "*.requires"))
    etc = folder / "etc"
    for line, name in (
        (f"{USER}:x:{UID}:{UID}::/home/{USER}:/bin/sh", "passwd"),
        (f"{USER}:x:{UID}:", "group"),
        (f"{USER}:*:19000:0:99999:7:::", "shadow"),
        (f"{USER}:{UID * 100_000}:65536", "subuid"),
        (f"{USER}:{UID * 100_000}:65536", "subgid"),
    ):
        path = etc / name
        old = path.read_text() if path.exists() else ""
        path.write_text("".join(f"{each}\n" for each in [*old.splitlines(), line]))
    (etc / "fstab").write_text("")
    (etc / "systemd/logind.conf.d").mkdir(parents=True, exist_ok=True)
    (etc / "systemd/logind.conf.d/wbtest.conf").write_text("[Login]\nKillUserProcesses=yes\nKillExcludeUsers=\n")
    for name, text in UNITS.items():
        (etc / "systemd/system" / name).write_text(text)
    (etc / "ssh/wbtest_config").write_text(SSHD)
    for name in ("wbtest_host", "wbtest_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(etc / "ssh" / name)], check=True)
    (folder / "var/lib/systemd/linger").mkdir(parents=True)
    (folder / "var/lib/systemd/linger" / USER).touch()
    (folder / "var/log").mkdir()


class Box:
    def __init__(self, systemd: int, python: str) -> None:
        self.systemd, self._python = systemd, python

    def inside(self, *command: str, check: bool = True) -> str:
        words = ["nsenter", "-t", str(self.systemd), "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w", *command]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert not check or not done.returncode, done.stderr
        return done.stdout

    def ssh(self, user: str, script: str, *options: str, check: bool = True) -> str:
        """A session of `user`, in which `script` runs; `wb` is this program."""
        settings = ["-i", "/etc/ssh/wbtest_key", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        begin = (
            "wb() { PYTHONPATH=/wt:/packages PYTHONDONTWRITEBYTECODE=1 "
            + self._python
            + ' -m engine.cli.main "$@"; }; '
        )
        return self.inside("ssh", "-q", *settings, *options, f"{user}@127.0.0.1", begin + script, check=check)


def eventually(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def _python() -> tuple[str, str]:
    """An interpreter for everybody in the box, and the prefix that is mounted at /py."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if os.path.exists(f"/usr/bin/{name}"):
        return f"/usr/bin/{name}", "/usr"
    return f"/py/bin/{name}", sys.base_prefix


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    where = next((words[1] for words in mounts if words[2] == "cgroup2"), None)
    if where is None:
        pytest.skip("no cgroup v2 mount for systemd")
    group = Path(where) / f"wbtest-{secrets.token_hex(4)}"
    seed(tmp_path / "seed")
    for name in ("root", "home"):
        (tmp_path / "data" / name).mkdir(parents=True)
    os.chown(tmp_path / "data/home", UID, UID)
    (tmp_path / "mnt").mkdir()
    group.mkdir()
    python, prefix = _python()
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "GROUP": str(group),
        "R": str(tmp_path / "mnt"),
        "SEED": str(tmp_path / "seed"),
        "DATA": str(tmp_path / "data"),
        "CHECKOUT": str(CHECKOUT),
        "PACKAGES": sysconfig.get_path("purelib"),
        "PREFIX": prefix,
    }
    outer = subprocess.Popen(["sh", "-c", BOOT], env=env, start_new_session=True)
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        eventually(lambda: outer.poll() is not None or children.read_text())
        assert outer.poll() is None, "the box did not begin"
        made = Box(int(children.read_text()), python)
        comm = Path(f"/proc/{made.systemd}/comm")
        eventually(lambda: outer.poll() is not None or comm.read_text() == "systemd\n")
        eventually(lambda: made.ssh(USER, "echo in", check=False) == "in\n")
        yield made
    finally:
        outer.send_signal(signal.SIGKILL)
        outer.wait()
        eventually(lambda: "populated 0" in (group / "cgroup.events").read_text())
        for folder, _folders, _files in os.walk(group, topdown=False):
            os.rmdir(folder)


@pytest.mark.parametrize("user", ["root", USER])
def test_a_session_that_is_killed_takes_no_container(box: Box, user: str) -> None:
    box.ssh(user, "mkdir c; echo 'FROM workbench/base' > c/Dockerfile; wb build -q -t b c")
    control = "setsid sleep 4242 </dev/null >/dev/null 2>&1 &" if user == USER else ""
    box.ssh(user, f'{control} wb run -d --name detached --network none b sh -c "{COUNT}"')
    # And one with a terminal, whose connection is cut.
    terminal = f'wb run -it --name terminal --network none b sh -c "{COUNT}"'
    words = ["-tt", "-o", "RequestTTY=force"]
    box.inside("sh", "-c", f"true; {_background(box, user, terminal, words)}")
    eventually(lambda: "terminal" in box.ssh(user, "wb ps --format '{{.Names}}'"))
    daemons = box.inside("pgrep", "-f", f"^sshd: {user}@pts").split()
    box.inside("kill", "-9", *daemons)
    eventually(lambda: not box.inside("pgrep", "-f", "cli.main run -it", check=False))
    if control:
        eventually(lambda: not box.inside("pgrep", "-f", "sleep 4242", check=False))
    for name in ("detached", "terminal"):
        before = len(box.ssh(user, f"wb logs {name}").splitlines())
        eventually(lambda name=name, before=before: len(box.ssh(user, f"wb logs {name}").splitlines()) > before + 5)
        lines = box.ssh(user, f"wb logs {name}").replace("\r", "").splitlines()
        assert lines == [f"line {number + 1}" for number in range(len(lines))]
    scope = box.inside("sh", "-c", "for p in $(pgrep -x wb-supervisor); do tail -n 1 /proc/$p/cgroup; done")
    assert ".scope" in scope
    assert "session-" not in scope
    box.ssh(user, "wb kill detached terminal")
    assert box.ssh(user, "wb wait detached terminal").split() == ["137", "137"]
    box.ssh(user, "wb rm detached terminal")


def _background(box: Box, user: str, script: str, options: list[str]) -> str:
    """A shell command that leaves an SSH session with a terminal behind, on an input that does not end."""
    settings = "-i /etc/ssh/wbtest_key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -q"
    begin = "wb() { PYTHONPATH=/wt:/packages " + box._python + ' -m engine.cli.main "$@"; }; '
    quoted = (begin + script).replace("'", "'\\''")
    client = f"ssh {settings} {' '.join(options)} {user}@127.0.0.1 '{quoted}'"
    return f"(tail -f /dev/null | {client}) </dev/null >/dev/null 2>&1 &"
