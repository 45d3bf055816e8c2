"""`--host ssh://`: nothing runs over there but sshd, and a workbench or Podman that is installed."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.runtime.places import runtime_dir
from tests.patience import PATIENCE
from tests.service.other_host import Other
from tests.service.other_host import other as other

pytestmark = [pytest.mark.root, pytest.mark.peer("sshd")]


def there(other: Other, *args: str, stdin: str = "", engine: str = "") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "engine.cli.main", "--root", f"{other.folder}/here", "--host", other.url + engine]
    return subprocess.run([*words, *args], input=stdin, capture_output=True, text=True, timeout=PATIENCE)


def test_a_workbench_that_nobody_serves(other: Other, tmp_path: Path) -> None:
    done = there(
        other, "run", "-i", "--rm", "workbench/base", "sh", "-c", "cat; echo end; exit 4", stdin="to its end\n"
    )
    assert (done.stdout, done.returncode) == ("to its end\nend\n", 4), done.stderr
    (tmp_path / "Dockerfile").write_text("FROM workbench/base\nCOPY file /file\n")
    (tmp_path / "file").write_text("sent")
    built = there(other, "build", "-t", "sent", str(tmp_path))
    assert "(never built here)" in built.stdout + built.stderr  # its own events: with their reasons
    assert there(other, "run", "--rm", "sent", "cat", "/file").stdout == "sent"
    assert "sent:latest" in other.workbench("images", "--format", "{{.Repository}}:{{.Tag}}")
    assert not Path(f"{other.folder}/here/images").exists()
    assert "sent:latest" in there(other, "builds").stdout  # beyond Docker's API: two workbenches
    refused = there(other, "why", "-C", str(tmp_path), str(tmp_path / "file"))
    assert refused.returncode == 1
    assert "not possible on another engine" in refused.stderr
    end_server(runtime_dir(other.root) / "api.sock")


def end_server(path: Path) -> None:
    """The server that the connections have met ends by itself later; the test does not wait for that."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while path.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not path.exists()


def test_errors_say_what_ssh_said(other: Other) -> None:
    done = there(other, "ps", engine="/docker")
    assert done.returncode == 1
    assert "ssh://root@127.0.0.1" in done.stderr
    assert "hint: try `ssh -p" in done.stderr
