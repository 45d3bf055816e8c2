"""A served engine, and clients of it: the docker command line and plain HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.patience import PATIENCE

BASE = "workbench/base"


@dataclass(frozen=True)
class Served:
    """`workbench serve` on the session's data root."""

    folder: Path
    pid: int

    @property
    def socket(self) -> Path:
        return self.folder / "s"

    def docker(self, *args: str, stdin: str = "", ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs `docker ARGS` against it."""
        done = subprocess.run(
            ["docker", *args],
            env={
                **os.environ,
                "DOCKER_HOST": f"unix://{self.socket}",
                "DOCKER_BUILDKIT": "0",
                "DOCKER_CONFIG": str(self.folder),
            },
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert not ok or done.returncode == 0, done.stderr
        return done

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        with httpx.Client(transport=transport, base_url="http://engine/v1.51", timeout=PATIENCE) as client:
            return client.request(method, path, **options)


@pytest.fixture(scope="module")
def served(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("api")
    environment = {**os.environ, "WORKBENCH_ROOT": str(data_root), "PYTHONUNBUFFERED": "1"}
    workbench = [sys.executable, "-m", "engine.cli.main"]
    (folder / "Dockerfile").write_text(f"FROM {BASE}\n")
    subprocess.run([*workbench, "build", "-q", str(folder)], env=environment, check=True, stdout=subprocess.DEVNULL)
    command = [*workbench, "serve", "--socket", str(folder / "s")]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert b"serving" in server.stdout.readline()
    yield Served(folder, server.pid)
    server.terminate()
    server.wait(PATIENCE)
