"""The API over TCP with certificates of both sides: the docker command line, and this engine's own client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.authority import make_authority
from tests.patience import PATIENCE
from tests.serving import free_port

pytestmark = [pytest.mark.root, pytest.mark.peer("openssl")]
WORKBENCH = [sys.executable, "-m", "engine.cli.main"]


@dataclass(frozen=True)
class Served:
    folder: Path
    port: int

    def flags(self, name: str = "client") -> list[str]:
        files = {"tlscacert": "ca.pem", "tlscert": f"{name}.pem", "tlskey": f"{name}.key"}
        words = [f"--host=tcp://127.0.0.1:{self.port}", "--tlsverify"]
        return words + [f"--{flag}={self.folder / file}" for flag, file in files.items()]


@pytest.fixture(scope="module")
def served(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, port = make_authority(tmp_path_factory.mktemp("tls")), free_port()
    words = ["--root", str(data_root), "serve", "--socket", str(folder / "s"), "--tcp", f"127.0.0.1:{port}"]
    files = ["--tlscacert", "ca.pem", "--tlscert", "server.pem", "--tlskey", "server.key"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen([*WORKBENCH, *words, *files], cwd=folder, env=environment, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert b"serving" in server.stdout.readline()
    yield Served(folder, port)
    server.terminate()
    server.wait(PATIENCE)


def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=PATIENCE)


def test_our_client_half_closes(served: Served) -> None:
    script = "wc -c; echo end; exit 3"
    words = ["run", "-i", "--rm", "workbench/base", "sh", "-c", script]
    done = run(*WORKBENCH, *served.flags(), *words, stdin="x" * 500_000)
    assert (done.stdout.split(), done.returncode) == (["500000", "end"], 3), done.stderr


@pytest.mark.peer("docker")
def test_dockers_client_half_closes(served: Served) -> None:
    run(*WORKBENCH, *served.flags(), "run", "--rm", "workbench/base", "true")
    words = ["run", "-i", "--rm", "workbench/base", "sh", "-c", "cat; echo end; exit 3"]
    done = run("docker", *served.flags(), *words, stdin="to its end\n")
    assert (done.stdout, done.returncode) == ("to its end\nend\n", 3), done.stderr


def test_a_client_of_another_authority_is_refused(served: Served, tmp_path: Path) -> None:
    other = make_authority(tmp_path)
    for name in ("client.pem", "client.key"):
        (served.folder / f"other-{name}").write_bytes((other / name).read_bytes())
    done = run(*WORKBENCH, *served.flags("other-client"), "ps")
    assert done.returncode == 1
    assert "refuses this client's certificate" in done.stderr
    assert "--tlscert" in done.stderr
    done = run(*WORKBENCH, f"--host=tcp://127.0.0.1:{served.port}", "ps")
    assert done.returncode == 1
