"""Images over SSH: a real sshd on loopback, with another workbench and with Podman on its other side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.errors import InvalidInput
from engine.oci.config import ImageConfig
from engine.oci.reference import Reference
from engine.service.ssh import Host
from engine.store.images import Image
from engine.store.store import Store
from tests.engine.registry.conftest import free_port
from tests.engine.registry.scripted import sample

pytestmark = [pytest.mark.root]


class Other:
    """The other host: its own data root, its own Podman, reached at `url`."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self.root = folder, url, folder / "root"

    def podman(self, *args: str) -> str:
        return subprocess.run([f"{self.folder}/bin/podman", *args], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[Other]:
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
            f"SetEnv PATH={name}/bin:/usr/bin:/bin WORKBENCH_ROOT={name}/root\n"
        )
        os.makedirs("/run/sshd", exist_ok=True)
        daemon = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", f"{name}/sshd.conf"], stderr=subprocess.DEVNULL)
        options = (
            f"-F none -i {name}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile={name}/known -o BatchMode=yes"
        )
        monkeypatch.setenv("WORKBENCH_SSH", f"ssh {options}")
        end = time.monotonic() + 20
        probe = ["ssh", *options.split(), "-p", str(port), "root@127.0.0.1", "true"]
        while subprocess.run(probe, capture_output=True, check=False).returncode and time.monotonic() < end:
            assert daemon.poll() is None
        yield Other(folder, f"ssh://root@127.0.0.1:{port}")
        daemon.terminate()
        daemon.wait()


def record(root: Path, name: str = "team/app:1", seed: str = "", layers: int = 2) -> Image:
    store = Store(root)
    manifest, blobs = sample(layers, seed=seed)
    for data in blobs.values():
        store.blobs.put(data)
    config = ImageConfig.parse(blobs[manifest.config.digest])
    image = store.images.put(manifest, config, 0, [Reference.parse(name)])
    store.close()
    return image


def found(root: Path, name: str) -> Image | None:
    store = Store(root)
    try:
        assert store.check() == []
        assert not [tag for image in store.images.list() for tag in image.tags if "transfer/" in tag]
        return store.images.find(name)
    finally:
        store.close()


@pytest.mark.peer("sshd")
def test_to_another_workbench_and_back(other: Other, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = record(tmp_path / "here")
    here = ["--root", str(tmp_path / "here")]
    assert main([*here, "push", other.url, "team/app:1"]) == 0
    assert "taken by workbench" in capfd.readouterr().out
    there = found(other.root, "team/app:1")
    assert there is not None
    assert there.digest == image.digest
    assert main([*here, "verify", "team/app:1", "--on", other.url]) == 0
    assert "DIFFERENT" not in capfd.readouterr().out
    second = record(other.root, "theirs/tool:3", layers=3)
    assert main([*here, "pull", other.url, "theirs/tool:3"]) == 0
    got = found(tmp_path / "here", "theirs/tool:3")
    assert got is not None
    assert (got.digest, got.size) == (second.digest, 21000)
    record(other.root, "team/app:1", seed="other")
    assert main([*here, "verify", "team/app:1", "--on", other.url]) == 1
    assert "DIFFERENT" in capfd.readouterr().out
    assert main([*here, "pull", other.url, "no/such"]) == 1
    assert "no/such" in capfd.readouterr().err
    assert main([*here, "push", f"{other.url}/docker", "team/app:1"]) == 1


@pytest.mark.peer("sshd")
@pytest.mark.peer("podman")
def test_to_podman_and_back(other: Other, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = record(tmp_path / "here")
    assert main(["--root", str(tmp_path / "here"), "push", f"{other.url}/podman", "team/app:1"]) == 0
    shown = json.loads(other.podman("image", "inspect", "team/app:1"))[0]
    assert (shown["Id"], shown["Digest"]) == (image.config_digest.hex, image.digest)
    capfd.readouterr()
    assert main(["--root", str(tmp_path / "here"), "verify", "team/app:1", "--on", f"{other.url}/podman"]) == 0
    assert main(["--root", str(tmp_path / "new"), "pull", f"{other.url}/podman", "team/app:1"]) == 0
    got = found(tmp_path / "new", "team/app:1")
    assert got is not None
    assert got.config_digest == image.config_digest


@pytest.mark.parametrize(
    "url",
    ["ssh://", "ssh://-oProxyCommand=x", "ssh://a@-x", "ssh://-a@host", "ssh://u:p@host", "ssh://host/evil", "http://host",
     "ssh://host:x", "ssh://ho st", "ssh://host/docker/x"],
)  # fmt: skip
def test_hosts_that_are_none(url: str) -> None:
    with pytest.raises(InvalidInput):
        Host.parse(url)
    assert Host.parse("ssh://me@host:2222/docker") == Host("host", "me", 2222, "docker")
