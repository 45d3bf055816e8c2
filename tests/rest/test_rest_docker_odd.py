"""Odd but everyday `docker run` lines whose answers were compared with dockerd's, command by command."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.linux import cgroup
from tests.rest.conftest import BASE, Served

pytestmark = [pytest.mark.root, pytest.mark.peer("docker")]
Docker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def docker(served: Served) -> Iterator[Docker]:
    yield served.docker
    if left := served.docker("ps", "-aq").stdout.split():
        served.docker("rm", "-f", *left)


def test_what_cannot_start_is_removed_where_it_was_asked_for(docker: Docker) -> None:
    """`docker run --rm` waits for the removal, also of what was refused."""
    docker("run", "-d", "--name", "ended", BASE, "true")
    docker("wait", "ended")
    for flag in ("--pid", "--ipc", "--network"):
        done = docker("run", "--rm", "--name", "guest", flag, "container:ended", BASE, "true", ok=False)
        assert done.returncode == 125
        assert "non running container" in done.stderr
    assert docker("ps", "-a", "--format", "{{.Names}}").stdout == "ended\n"


def test_what_every_root_has(docker: Docker) -> None:
    """Programs look for /.dockerenv and /etc/mtab; neither is a change of the container's."""
    script = "cat /etc/mtab | grep -c ' / '; stat -c '%A %s' /.dockerenv; cat /etc/hostname"
    done = docker(
        "run", "--name", "marks", "--hostname", "foo", "--domainname", "example.org", BASE, "sh", "-c", script
    )
    assert done.stdout == "1\n-rwxr-xr-x 0\nfoo\n"
    assert docker("diff", "marks").stdout == ""
    read_only = docker("run", "--rm", "--read-only", BASE, "touch", "/etc/hosts", "/etc/resolv.conf", ok=False)
    assert read_only.stderr.count("Read-only file system") == 2
    assert docker("run", "--rm", "--ipc", "none", BASE, "ls", "/dev/shm", ok=False).returncode


def test_what_of_proc_may_be_covered(docker: Docker, tmp_path: Path) -> None:
    """As lxcfs does it: files that show figures, and nothing else of /proc."""
    (tmp_path / "file").write_text("mine\n")
    file = str(tmp_path / "file")
    assert docker("run", "--rm", "-v", f"{file}:/proc/uptime", BASE, "cat", "/proc/uptime").stdout == "mine\n"
    for where in (f"{tmp_path}:/proc/uptime", f"{file}:/proc/1/comm", f"{file}:/proc/sys/kernel/hostname"):
        done = docker("run", "--rm", "-v", where, BASE, "true", ok=False)
        assert "cannot be mounted upon: it is inside /proc" in done.stderr
    # The docker command line sends empty lists for systempaths=unconfined.
    mounts = docker("run", "--rm", "--security-opt", "systempaths=unconfined", BASE, "cat", "/proc/mounts").stdout
    assert " /proc/" not in mounts


def test_limits_that_cannot_be_and_logs_that_cannot_be_read(docker: Docker) -> None:
    done = docker("run", "--rm", "--ulimit", f"nofile={1 << 40}", BASE, "true", ok=False)
    assert done.returncode == 125
    assert f"ulimit nofile={1 << 40}:{1 << 40} is more than" in done.stderr
    docker("run", "--name", "silent", "--log-driver", "none", BASE, "true")
    done = docker("logs", "silent", ok=False)
    assert (done.returncode, "does not support reading" in done.stderr) == (1, True)


@pytest.mark.skipif("cpuset" not in cgroup.here().roots, reason="cpuset of cgroup v1")
def test_an_exec_keeps_to_the_cpus_of_an_update(docker: Docker) -> None:
    """cgroup v1: the update made the container's processes join a controller that they were not in."""
    docker("run", "-d", "--name", "bound", BASE, "sleep", "60")
    docker("update", "--cpuset-cpus", "0", "bound")
    found = docker("exec", "bound", "grep", "-h", "Cpus_allowed_list", "/proc/1/status", "/proc/self/status").stdout
    assert found.split() == ["Cpus_allowed_list:", "0"] * 2
    assert docker("exec", "bound", "cat", "/sys/fs/cgroup/cpuset/cpuset.cpus").stdout == "0\n"
