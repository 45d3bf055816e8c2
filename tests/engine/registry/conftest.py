"""Registries to test against: Debian's docker-registry, and one that follows a script."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.engine.registry.scripted import Script, Scripted


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def docker_registry(tmp_path: Path) -> Iterator[str]:
    """Debian's docker-registry on a free port: `host:port`."""
    address = f"127.0.0.1:{free_port()}"
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: {address}}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if httpx.get(f"http://{address}/v2/").status_code == 200:
                break
        except httpx.TransportError:
            assert process.poll() is None, "docker-registry ended"
    yield address
    process.terminate()
    process.wait()


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    """Makes registries that follow a script; they end with the test."""
    made: list[Scripted] = []

    def make(script: Script | None = None, *, host: str = "127.0.0.1") -> Scripted:
        made.append(Scripted(script, host=host))
        return made[-1]

    yield make
    for one in made:
        one.close()
