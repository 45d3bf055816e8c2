"""Another host for tests: a real sshd on loopback with a data root and a Podman of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runtime.places import runtime_dir
from tests.conftest import end_supervisor
from tests.patience import PATIENCE
from tests.serving import free_port


class Other:
    """The other host: its own data root, its own Podman, reached at `url`."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self.root = folder, url, folder / "root"

    def workbench(self, *args: str) -> str:
        """A command of the other host's workbench, as it would be typed there."""
        command = [f"{self.folder}/bin/workbench", "--root", str(self.root), *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def podman(self, *args: str) -> str:
        return subprocess.run([f"{self.folder}/bin/podman", *args], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Other]:
    """`indirect` parameters are further lines of sshd_config."""
    more = getattr(request, "param", "")
    with tempfile.TemporaryDirectory(prefix="ssh") as name:
        folder = Path(name)
        (folder / "bin").mkdir()
        (folder / "empty").mkdir()
        programs = {
            "workbench": f"exec {sys.executable} -m engine.cli.main",
            "podman": f"exec /usr/bin/podman --root {name}/pod --runroot {name}/run --storage-driver vfs",
        }
        for program, line in programs.items():
            (folder / "bin" / program).write_text(
                f'#!/bin/sh\nPYTHONPATH={os.getcwd()}; export PYTHONPATH\n{line} "$@"\n'
            )
            (folder / "bin" / program).chmod(0o755)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{name}/{key}"], check=True)
        port = free_port()
        (folder / "sshd.conf").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {name}/host\nAuthorizedKeysFile {name}/user.pub\n"
            f"StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n"
            f"SetEnv PATH={name}/bin:/usr/bin:/bin WORKBENCH_ROOT={name}/root\n{more}\n"
        )
        os.makedirs("/run/sshd", exist_ok=True)
        daemon = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", f"{name}/sshd.conf"], stderr=subprocess.DEVNULL)
        options = (
            f"-F none -i {name}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile={name}/known -o BatchMode=yes"
        )
        monkeypatch.setenv("WORKBENCH_SSH", f"ssh {options}")
        end = time.monotonic() + PATIENCE
        probe = ["ssh", *options.split(), "-p", str(port), "root@127.0.0.1", "true"]
        while subprocess.run(probe, capture_output=True, check=False).returncode and time.monotonic() < end:
            assert daemon.poll() is None
        yield Other(folder, f"ssh://root@127.0.0.1:{port}")
        daemon.terminate()
        daemon.wait()
        end_supervisor(runtime_dir(folder / "root"))
