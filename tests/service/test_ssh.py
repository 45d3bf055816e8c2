"""Images over SSH: a real sshd on loopback, with another workbench and with Podman on its other side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.errors import InvalidInput
from engine.oci.config import ImageConfig
from engine.oci.reference import Reference
from engine.service import ssh
from engine.service.ssh import Host
from engine.store.images import Image
from engine.store.store import Store
from tests.engine.registry.scripted import sample
from tests.service.other_host import Other
from tests.service.other_host import other as other

pytestmark = [pytest.mark.root]


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


@pytest.mark.peer("sshd")
@pytest.mark.peer("podman")
@pytest.mark.parametrize("other", ["AllowTcpForwarding no"], indirect=True)
def test_a_host_that_forwards_no_ports(other: Other, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = record(tmp_path / "here")
    here = ["--root", str(tmp_path / "here")]
    for engine in ("workbench", "podman"):
        assert main([*here, "push", f"{other.url}/{engine}", "team/app:1"]) == 0
        assert "as an archive" in capfd.readouterr().err
        assert main([*here, "verify", "team/app:1", "--on", f"{other.url}/{engine}"]) == 0
        assert main(["--root", str(tmp_path / engine), "pull", f"{other.url}/{engine}", "team/app:1"]) == 0
        got = found(tmp_path / engine, "team/app:1")
        assert got is not None
        assert got.config_digest == image.config_digest
    assert main([*here, "pull", other.url, "no/such"]) == 1
    assert "no/such" in capfd.readouterr().err


@pytest.mark.peer("sshd")
@pytest.mark.parametrize("python", [True, False], ids=["there", "here"])
def test_files_side_by_side(
    other: Other, data_root: Path, capfd: pytest.CaptureFixture[str], python: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not python:
        (other.folder / "bin/python3").write_text("")  # not executable: not found
        monkeypatch.setattr(ssh, "_PYTHON", "true\n")
    here, image = ["--root", str(data_root)], "files/app:1"
    dockerfile = (
        "FROM workbench/base\nRUN mkdir /d && echo {0} > /d/f && ln /d/f /hard && ln -s f /d/l && chmod {1} /d/f\n"
    )
    for place, words in (("here", ("x", "644")), ("there", ("yy", "600"))):
        (other.folder / place).mkdir()
        (other.folder / place / "Dockerfile").write_text(dockerfile.format(*words))
    assert main([*here, "build", "-q", "-t", image, str(other.folder / "here")]) == 0
    assert main([*here, "push", other.url, image]) == 0
    capfd.readouterr()
    assert main([*here, "verify", image, "--on", other.url, "--files"]) == 0
    assert "same       files" in capfd.readouterr().out
    other.workbench("build", "-q", "-t", image, str(other.folder / "there"))
    assert main([*here, "verify", image, "--on", other.url, "--files"]) == 1
    out = capfd.readouterr().out
    for words in ("/d/f", "mode 644, there mode 600", "size 2, there size 3", "/hard"):
        assert words in out
    assert "/bin" not in out
    assert other.workbench("ps", "-aq") == ""


@pytest.mark.peer("sshd")
def test_an_image_without_a_name_stays_there(other: Other, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """To be pushed it would need a name, and with that name it would go."""
    image = record(other.root)
    store = Store(other.root)
    store.images.untag(str(Reference.parse("team/app:1")))
    store.close()
    assert main(["--root", str(tmp_path / "here"), "pull", other.url, image.config_digest]) == 0
    assert "no name" in capfd.readouterr().err
    for root in (other.root, tmp_path / "here"):
        assert found(root, image.config_digest) is not None


@pytest.mark.parametrize(
    "url",
    ["ssh://", "ssh://-oProxyCommand=x", "ssh://a@-x", "ssh://-a@host", "ssh://u:p@host", "ssh://host/evil", "http://host",
     "ssh://host:x", "ssh://ho st", "ssh://host/docker/x"],
)  # fmt: skip
def test_hosts_that_are_none(url: str) -> None:
    with pytest.raises(InvalidInput):
        Host.parse(url)
    assert Host.parse("ssh://me@host:2222/docker") == Host("host", "me", 2222, "docker")
