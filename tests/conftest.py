"""What every test may use: a data root of its own, and skips that say why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

PEERS = {
    "runc": "runc",
    "docker": "docker",
    "apparmor_parser": "apparmor_parser",
    "registry": "docker-registry",
    "skopeo": "skopeo",
    "tmux": "tmux",
    "newuidmap": "newuidmap",
    "podman": "podman",
    "openssl": "openssl",
    "sshd": "/usr/sbin/sshd",
    "ssh-agent": "ssh-agent",
    "git": "git",
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root: namespaces, mounts and ownership")
    for mark in item.iter_markers("peer"):
        program = PEERS[mark.args[0]]
        if shutil.which(program) is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"{program} is missing in CI: .ci/run installs it")
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One data root for the session: the embedded base image is made once. Its supervisor ends with the tests."""
    from engine.local import runtime_dir

    root = tmp_path_factory.mktemp("wb")
    yield root
    end_supervisor(runtime_dir(root))


def end_supervisor(run_dir: Path) -> None:
    """Kills it, and removes the networks that it would have removed a second later."""
    import signal
    import socket
    import struct

    from engine.runtime import bridges

    path = run_dir / "supervisor.sock"
    if path.exists():
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(path))
            except OSError:
                return
            pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            os.kill(pid, signal.SIGKILL)
    bridges.reap(str(run_dir), 0)
