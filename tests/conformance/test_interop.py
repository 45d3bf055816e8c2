"""Built here and run there, built there and run here, through a real registry: the same output, the same digests."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.registry.conftest import docker_registry as docker_registry

pytestmark = [pytest.mark.root, pytest.mark.peer("registry"), pytest.mark.peer("skopeo")]
DOCKERFILE = """FROM {base}
ENV GREETING=hello
RUN echo "$GREETING from the build" > /made && ln -s made /link && chmod 0640 /made
WORKDIR /srv
CMD ["/bin/sh", "-c", "cat /link; pwd; stat -c %a /made; echo $GREETING"]
"""
SAID = "hello from the build\n/srv\n640\nhello\n"


@pytest.fixture
def pod() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pod") as folder:
        yield Path(folder)


def ours(root: Path, *args: str) -> str:
    command = [sys.executable, "-m", "engine.cli.main", "--root", str(root), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Debian's crun refuses a host with both kinds of control groups: in this mount namespace there is the old kind alone.
ONE_KIND = ["unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh"]


def podman(pod: Path, *args: str, runtime: str = "runc") -> str:
    command = [*(ONE_KIND if runtime == "crun" else []), "podman", "--root", f"{pod}/root", "--runroot", f"{pod}/run"]
    command += ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", runtime]
    done = subprocess.run([*command, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Podman would raise the limits, which it may not where the tests run in a container themselves.
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
RUN_THERE = ["--network", "none", *LIMITS, "--log-driver", "k8s-file"]


@pytest.mark.peer("podman")
@pytest.mark.peer("crun")
def test_built_here_runs_there(data_root: Path, docker_registry: str, tmp_path: Path, pod: Path) -> None:
    name = f"{docker_registry}/ours/app:1"
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.format(base="workbench/base"))
    ours(data_root, "build", "-q", "-t", name, str(tmp_path))
    assert ours(data_root, "run", "--rm", "--network", "none", name) == SAID
    ours(data_root, "push", "-q", name)
    here = json.loads(ours(data_root, "image", "inspect", name))[0]
    podman(pod, "pull", "-q", "--tls-verify=false", name)
    there = json.loads(podman(pod, "image", "inspect", name))[0]
    assert f"sha256:{there['Id']}" == here["Id"]
    assert there["Digest"] in "".join(here["RepoDigests"])
    for runtime in ("runc", "crun"):
        assert podman(pod, "run", "--rm", *RUN_THERE, name, runtime=runtime) == SAID
    ours(tmp_path / "second", "pull", "-q", name)
    again = json.loads(ours(tmp_path / "second", "image", "inspect", name))[0]
    assert (again["Id"], again["RepoDigests"]) == (here["Id"], here["RepoDigests"])


def test_a_push_packs_once_and_gives_the_same_digests(data_root: Path, docker_registry: str, tmp_path: Path) -> None:
    """A built layer is a plain tar here; a registry gets it packed, the first time as every other."""
    name, other = f"{docker_registry}/packed/app:1", f"{docker_registry}/packed/other:1"
    (tmp_path / "Dockerfile").write_text("FROM workbench/base\nRUN seq 100000 > /numbers\n")
    ours(data_root, "build", "-q", "-t", name, str(tmp_path))
    first = ours(data_root, "push", name).splitlines()
    assert any("Compressing" in line for line in first)
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True
    )
    layers = json.loads(raw.stdout)["layers"]
    assert {layer["mediaType"] for layer in layers} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
    again = ours(data_root, "push", name).splitlines()
    assert again[-1] == first[-1], "the same digest"
    assert not any("Compressing" in line or "Pushed" in line for line in again)
    # From there to somewhere else it goes as it came.
    ours(tmp_path / "second", "pull", "-q", name)
    ours(tmp_path / "second", "tag", name, other)
    assert ours(tmp_path / "second", "push", other).splitlines()[-1] == first[-1]
    # The packed blobs go with the image, not before.
    ours(data_root, "system", "prune", "-f")
    assert not any("Compressing" in line for line in ours(data_root, "push", name).splitlines())
    # A build that is pushed at once has that digest, too.
    ours(data_root, "build", "-q", "--push", "-t", f"{docker_registry}/packed/app:2", str(tmp_path))
    shown = ["skopeo", "inspect", "--format", "{{.Digest}}", "--tls-verify=false"]
    tag = subprocess.run([*shown, f"docker://{docker_registry}/packed/app:2"], check=True, capture_output=True)
    assert tag.stdout.decode().strip() in first[-1]


@pytest.mark.peer("podman")
def test_made_there_runs_here(data_root: Path, docker_registry: str, tmp_path: Path, pod: Path) -> None:
    base, name = f"{docker_registry}/base:1", f"{docker_registry}/theirs/app:1"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/Dockerfile").write_text("FROM workbench/base\nCMD true\n")
    ours(data_root, "build", "-q", "-t", base, str(tmp_path / "empty"))
    ours(data_root, "push", "-q", base)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.format(base=base))
    podman(pod, "pull", "-q", "--tls-verify=false", base)
    build = ["build", "-q", "--isolation", "chroot", "--network", "host", "--pull=never", "-t", name, str(tmp_path)]
    podman(pod, *build)
    podman(pod, "push", "-q", "--tls-verify=false", name)
    ours(data_root, "pull", "-q", name)
    here = json.loads(ours(data_root, "image", "inspect", name))[0]
    assert here["Id"] == f"sha256:{json.loads(podman(pod, 'image', 'inspect', name))[0]['Id']}"
    assert ours(data_root, "run", "--rm", "--network", "none", name) == SAID


def test_skopeo_reads_the_store_as_it_lies(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM workbench/base\nRUN echo x > /x\n")
    ours(data_root, "build", "-q", "-t", "layout/test:1", str(tmp_path))
    layout = f"oci:{data_root}/oci:layout/test:1"
    subprocess.run(["skopeo", "copy", "-q", layout, f"dir:{tmp_path}/out"], check=True)
    shown = subprocess.run(["skopeo", "inspect", layout], check=True, capture_output=True)
    here = json.loads(ours(data_root, "images", "--format", "json", "layout/test:1"))
    assert json.loads(shown.stdout)["Digest"]
    assert here["Repository"] == "layout/test"
