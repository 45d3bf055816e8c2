"""Containers of another host, cloned over a real sshd on loopback: from another workbench and from Podman."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.errors import InvalidInput
from engine.service.ssh_host import Host, container_url
from engine.store.store import Store
from tests.service.other_host import Other
from tests.service.other_host import other as other

pytestmark = [pytest.mark.root]


@pytest.fixture
def source(other: Other) -> Iterator[Other]:
    """A container `app` on the other host that has changed files, a volume, limits, and a secret."""
    (other.folder / "Dockerfile").write_text("FROM workbench/base\nENV MADE=there\nRUN echo 1 > /old; echo 2 > /gone\n")
    other.workbench("build", "-q", "-t", "team/app:1", str(other.folder))
    program = "echo new > /fresh; rm /gone; chown 7:8 /fresh; echo kept > /data/file; echo ready; exec sleep 1000"
    settings = [
        "-e",
        "API_TOKEN=s3cret-value",
        "-e",
        "URL=db://me:pw@host/x",
        "-m",
        "64m",
        "-w",
        "/tmp",
        "--cap-drop",
        "NET_RAW",
    ]
    other.workbench(
        "run", "-d", "--name", "app", "--network", "none", "-v", "vol:/data", *settings,
        "-l", "com.docker.compose.project=p", "--restart", "always", "team/app:1", "sh", "-c", program,
    )  # fmt: skip
    while "ready" not in other.workbench("logs", "app"):
        pass
    yield other
    other.workbench("rm", "-f", "-v", "app")


def shown(root: Path, name: str, capfd: pytest.CaptureFixture[str]) -> dict[str, object]:
    capfd.readouterr()
    assert main(["--root", str(root), "inspect", name]) == 0
    return json.loads(capfd.readouterr().out)[0]  # type: ignore[no-any-return]


def images(root: Path) -> set[str]:
    store = Store(root)
    try:
        return {image.digest for image in store.images.list()}
    finally:
        store.close()


def whole(root: Path, before: set[str]) -> None:
    store = Store(root)
    try:
        assert store.check() == []
        assert not [tag for image in store.images.list() for tag in image.tags if "transfer/" in tag or "clone/" in tag]
        new = [image for image in store.images.list() if image.digest not in before]
        depths = [len(store.images.config(image).diff_ids) for image in new] or [2]
        assert max(depths) == 2, "the commit, with a third layer, went again"
    finally:
        store.close()


@pytest.mark.peer("sshd")
@pytest.mark.parametrize("other", ["", "AllowTcpForwarding no"], indirect=True, ids=["registry", "archive"])
def test_from_another_workbench(source: Other, data_root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    here, before = ["--root", str(data_root)], images(data_root)
    assert main([*here, "clone", f"{source.url}/workbench/app", "--redact", "--mounts"]) == 0
    out, said = capfd.readouterr()
    assert out.splitlines() == ["app"]
    for words in ("redacted: API_TOKEN, URL", "restart policy always", "no project here", "copied: /data"):
        assert words in said
    assert main([*here, "diff", "app"]) == 0
    assert {"A /fresh", "D /gone"} <= set(capfd.readouterr().out.splitlines())
    look = (
        "cat /fresh /old /data/file; stat -c %u:%g /fresh; pwd; echo $MADE $API_TOKEN $URL; test -e /gone || echo gone"
    )
    assert main([*here, "exec", "app", "sh", "-c", look]) == 0
    assert capfd.readouterr().out.split() == [
        "new", "1", "kept", "7:8", "/tmp", "there", "REDACTED", "db://me:REDACTED@host/x", "gone",
    ]  # fmt: skip
    document = shown(data_root, "app", capfd)
    host = document["HostConfig"]
    assert isinstance(host, dict)
    assert (host["Memory"], host["CapDrop"], host["RestartPolicy"]["Name"]) == (64 << 20, ["CAP_NET_RAW"], "no")
    assert "s3cret-value" not in json.dumps(document)
    assert "pw@" not in json.dumps(document)
    assert json.loads(source.workbench("inspect", "app"))[0]["Image"] == document["Image"]
    # Beside it, a second one takes another name; without the changes it is the image alone.
    assert main([*here, "clone", f"{source.url}/app", "--no-changes", "--no-start"]) == 0
    assert "app-clone" in capfd.readouterr().out
    assert main([*here, "diff", "app-clone"]) == 0
    assert capfd.readouterr().out == ""
    assert main([*here, "rm", "-f", "-v", "app", "app-clone"]) == 0
    whole(data_root, before)
    whole(source.root, set())
    assert "app" in source.workbench("ps"), "the other one never noticed"


@pytest.mark.peer("sshd")
@pytest.mark.peer("podman")
def test_from_podman(source: Other, data_root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = images(data_root)
    source.workbench("save", "-o", str(source.folder / "app.tar"), "team/app:1")
    source.podman("load", "-q", "-i", str(source.folder / "app.tar"))
    limits = ["--ulimit", "nofile=1024:1024", "-m", "32m", "--env", "A=b"]
    source.podman("create", "--name", "pod", "--network", "none", *limits, "team/app:1", "sh", "-c", "exit 3")
    (source.folder / "added").write_text("by hand")
    source.podman("cp", str(source.folder / "added"), "pod:/added")
    here = ["--root", str(data_root)]
    assert main([*here, "clone", f"{source.url}/podman/pod", "--no-start"]) == 0
    assert main([*here, "diff", "pod"]) == 0
    assert "A /added" in capfd.readouterr().out
    document = shown(data_root, "pod", capfd)
    config, host = document["Config"], document["HostConfig"]
    assert isinstance(config, dict)
    assert isinstance(host, dict)
    assert {"A=b", "MADE=there"} <= set(config["Env"])
    assert (document["Path"], document["Args"], host["Memory"]) == ("sh", ["-c", "exit 3"], 32 << 20)
    assert main([*here, "rm", "pod"]) == 0
    assert main([*here, "clone", f"{source.url}/podman/none"]) == 1
    assert "no such container" in capfd.readouterr().err
    whole(data_root, before)
    assert "transfer" not in source.podman("images")


@pytest.mark.parametrize(
    "url", ["ssh://host", "ssh://host/", "ssh://host/a/b", "host/x", "ssh://host/docker/-x", "ssh://h/x/y/z"]
)
def test_addresses_that_are_no_container(url: str) -> None:
    with pytest.raises(InvalidInput):
        container_url(url)
    assert container_url("ssh://me@h:22/podman/web") == (Host("h", "me", 22, "podman"), "web")
    assert container_url("ssh://h/docker") == (Host("h"), "docker")
