"""Debian's docker-registry for the length of a block, for tests and benches."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE

TESTER, PASSWORD = "tester", "secret-word"
# bcrypt, the only kind that the registry takes
_HASHED = "$2b$05$abcdefghijklmnopqrstuuUOabO4v2PoT/v47Y.znQK.9MsMDnesq"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def docker_registry(
    folder: Path, *, address: str = "", basic: bool = False, tls: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Gives `host:port`. Its data stays in `folder`. `basic` asks for TESTER and PASSWORD; `tls` names `certificate` and `key`."""
    address = address or f"127.0.0.1:{free_port()}"
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{folder}/data"}, "delete": {"enabled": True}},
        "http": {"addr": address, **({"tls": dict(tls)} if tls else {})},
    }
    if basic:
        (folder / "users").write_text(f"{TESTER}:{_HASHED}\n")
        config["auth"] = {"htpasswd": {"realm": "r", "path": f"{folder}/users"}}
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    host, _, port = address.rpartition(":")
    try:
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                break
            assert process.poll() is None, "docker-registry ended"
            assert time.monotonic() < end, "docker-registry does not listen"
            time.sleep(0.01)
        yield address
    finally:
        process.terminate()
        process.wait()
