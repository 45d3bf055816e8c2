"""A new version of the program takes over what an older one has started: real older versions, out of this repository."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.runtime import protocol
from engine.runtime.bootstrap import SOCKET
from tests.patience import PATIENCE

pytestmark = [pytest.mark.root, pytest.mark.peer("git")]

CHECKOUT = Path(__file__).parents[2]
FIRST = "bded16fa77fc44622e30a57efcb7d1575b372b14"  # protocol version 1: no stop, pause or execs
SECOND = "c1466b4c7d59889c9712e550273efdc37a56afb9"  # protocol version 2: no change of the restart policy
LOOP = "trap 'exit 7' TERM; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"
QUIET = "trap 'exit 7' TERM; sleep 1000 & wait"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass
class Versions:
    old: Run
    new: Run
    run_dir: Path

    def state(self, name: str) -> dict[str, object]:
        state: dict[str, object] = json.loads(self.new("inspect", name).stdout)[0]["State"]
        return state

    def supervisor(self) -> tuple[int, str]:
        """Its process id, and the folder that its program is in."""
        with protocol.connect(str(self.run_dir), SOCKET) as sock:
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # of who listens
        pid = int(struct.unpack("3i", credentials)[0])
        program = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[4]
        return pid, program.split("'")[1]


@pytest.fixture
def versions(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Versions]:
    packed = subprocess.run(
        ["git", "-C", str(CHECKOUT), "archive", request.param, "engine"], capture_output=True, check=False
    )
    if packed.returncode:
        pytest.skip("a checkout without its history: there is no older version here")
    code = tmp_path / "old"
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(code, filter="data")
    root = tmp_path / "root"

    def runner(where: Path) -> Run:
        def run(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
            path = f"{where}:{sysconfig.get_path('purelib')}"
            env = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "WORKBENCH_ROOT": str(root), "HOME": str(tmp_path)}
            command = [sys.executable, "-P", "-m", "engine.cli.main", *args]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=env, cwd=tmp_path, timeout=PATIENCE
            )
            assert done.returncode == code, done.stderr
            assert "Traceback" not in done.stderr
            return done

        return run

    both = Versions(
        runner(code), runner(CHECKOUT), Path("/run/workbench") / hashlib.sha256(str(root).encode()).hexdigest()[:12]
    )
    (tmp_path / "Dockerfile").write_text("FROM workbench/base\n")
    both.old("build", "-q", "-t", "b", str(tmp_path))
    yield both
    for name in both.new("ps", "-a", "-q").stdout.split():
        both.new("rm", "-f", name)
    os.kill(both.supervisor()[0], signal.SIGTERM)


@pytest.mark.parametrize("versions", [FIRST, SECOND], indirect=True, ids=["first", "second"])
def test_containers_of_an_older_version(versions: Versions) -> None:
    old, new = versions.old, versions.new
    for name in ("stopped", "restarted", "killed", "removed"):
        old("run", "-d", "--name", name, "--network", "host", "b", "sh", "-c", LOOP)
    assert new("ps", "--format", "{{.Names}}").stdout.split() == ["removed", "killed", "restarted", "stopped"]
    first = new("logs", "stopped").stdout.splitlines()
    done = new("exec", "stopped", "sh", "-c", "echo inside; exit 3", code=3)
    assert done.stdout == "inside\n"
    assert "sleep 0.05" in new("top", "stopped").stdout
    refused = new("update", "--restart", "always", "stopped", code=1).stderr
    assert "was started by an older version, whose monitor cannot change its restart policy" in refused

    new("stop", "-t", "20", "stopped")
    state = versions.state("stopped")
    assert (state["Status"], state["ExitCode"]) == ("exited", 7)
    lines = new("logs", "stopped").stdout.splitlines()
    assert lines[: len(first)] == first
    assert lines == [f"line {number + 1}" for number in range(len(lines))], "nothing is lost"

    before = versions.state("restarted")["Pid"]
    new("restart", "-t", "20", "restarted")
    assert versions.state("restarted")["Pid"] not in (0, before)
    new("kill", "killed")
    assert new("wait", "killed").stdout == "137\n"
    new("rm", "-f", "removed")
    assert new("ps", "--format", "{{.Names}}").stdout.split() == ["restarted"]


@pytest.mark.parametrize("versions", [SECOND], indirect=True)
def test_an_older_supervisor_is_replaced_and_its_containers_go_on(versions: Versions) -> None:
    old, new = versions.old, versions.new
    # One that forks all the time could not always be paused by that version.
    old("run", "-d", "--name", "older", "--restart", "on-failure", "--network", "host", "b", "sh", "-c", QUIET)
    first = versions.supervisor()
    pid = versions.state("older")["Pid"]
    new("run", "-d", "--name", "newer", "--network", "host", "b", "sh", "-c", LOOP)
    second = versions.supervisor()
    assert first[0] != second[0]
    assert second[1] == str(CHECKOUT), "the new program's"
    assert versions.state("older")["Pid"] == pid
    new("pause", "older")
    new("unpause", "older")
    new("exec", "newer", "true")

    os.kill(int(str(pid)), signal.SIGKILL)
    while versions.state("older")["Pid"] in (0, pid):
        pass  # its monitor keeps the restart policy
    assert "was written by a newer workbench" in old("ps", code=1).stderr, "the older one does not guess"
    new("stop", "-t", "20", "older")
    assert versions.state("older")["ExitCode"] == 7
