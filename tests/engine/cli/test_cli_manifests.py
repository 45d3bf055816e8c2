"""Lists of images made here, and pushed: `manifest create | annotate | push | rm`, `buildx imagetools create | inspect`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.oci.digest import Digest
from tests.engine.registry.scripted import Scripted, sample

pytestmark = pytest.mark.root


@pytest.fixture
def registry() -> Iterator[Scripted]:
    one = Scripted()
    yield one
    one.close()


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))

    def work(*words: str) -> tuple[int, str, str]:
        status = main(["--root", str(tmp_path / "root"), *words])
        told = capsys.readouterr()
        return status, told.out, told.err

    return work


def test_a_list_is_made_annotated_pushed_and_removed(
    tmp_path: Path, registry: Scripted, run: Callable[..., tuple[int, str, str]]
) -> None:
    here = registry.address
    (amd, blobs), (arm, more) = sample(1, seed="amd"), sample(2, seed="arm")
    registry.add("team/amd", "1", amd, blobs)
    registry.add("team/arm", "1", arm, more)
    other = Scripted()
    far, far_blobs = sample(1, seed="far")
    other.add("far", "1", far, far_blobs)
    names = [f"{here}/team/amd:1", f"{here}/team/arm:1"]
    target = f"{here}/team/both:1"
    assert run("manifest", "create", target, *names) == (0, f"Created manifest list {target}\n", "")
    assert "--amend" in run("manifest", "create", target, names[0])[2]
    assert run("manifest", "create", "-a", target, f"{other.address}/far:1")[0] == 0
    place = tmp_path / "docker/manifests" / target.replace(":", "-").replace("/", "_")
    assert len(list(place.iterdir())) == 3
    assert run("manifest", "annotate", "--arch", "arm64", "--variant", "v8", target, names[1]) == (0, "", "")
    assert run("manifest", "annotate", "--arch", "z80", target, names[1])[2].startswith(
        "workbench: manifest entry for image has unsupported os/arch combination: linux/z80"
    )
    assert "does not exist in" in run("manifest", "annotate", "--arch", "arm64", target, f"{here}/none:1")[2]
    shown = run("manifest", "inspect", target)[1]
    platforms = {one["digest"]: one["platform"] for one in json.loads(shown)["manifests"]}
    assert platforms[arm.digest] == {"architecture": "arm64", "os": "linux", "variant": "v8"}
    assert json.loads(run("manifest", "inspect", "-v", target, names[1])[1])["Descriptor"]["digest"] == arm.digest
    status, out, _ = run("manifest", "push", "-p", target)
    digest = out.splitlines()[-1]
    assert status == 0
    assert registry.manifests["team/both", "1"][0] == shown.rstrip("\n").encode()
    assert digest == Digest.of(registry.manifests["team/both", "1"][0])
    assert out.count("Pushed ref") == 3
    for image in (amd, arm, far):
        assert registry.manifests["team/both", str(image.digest)][0] == image.raw
        assert {("team/both", str(one.digest)) for one in (image.config, *image.layers)} <= registry.owned
    mounted = [seen.path for seen in registry.requests("POST", "mount=")]
    assert len(mounted) == 5  # what is in the same registry is not carried through here
    assert not place.exists()
    assert json.loads(run("manifest", "inspect", target)[1])["mediaType"].endswith("index.v1+json")
    assert run("manifest", "create", f"{here}/x:1", target)[2].startswith(f"workbench: {target} is a manifest list")
    assert run("manifest", "create", f"{here}/x:1", names[0], f"{here}/none:1")[0] == 1
    assert not (tmp_path / "docker/manifests" / f"{here}/x:1".replace(":", "-").replace("/", "_")).exists()
    assert run("manifest", "push", target)[0] == 1
    assert run("manifest", "rm", target, f"{here}/y:1")[2].count("No such manifest") == 2
    other.close()


def test_a_list_that_another_program_damaged_is_named(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    place = tmp_path / "docker/manifests/docker.io_library_x-1"
    place.mkdir(parents=True)
    for text in ("", "[]", '{"Descriptor": {}}', '{"Ref": 1, "Raw": "*", "Descriptor": {"mediaType": 1, "digest": 2}}'):
        (place / "docker.io_library_y-1").write_text(text)
        status, _, told = run("manifest", "inspect", "x:1")
        assert status == 1
        assert "is no manifest of a list" in told
    assert run("manifest", "rm", "x:1") == (0, "", "")


def test_imagetools_puts_images_together_and_shows_them(
    tmp_path: Path, registry: Scripted, run: Callable[..., tuple[int, str, str]]
) -> None:
    here = registry.address
    images = [sample(1, seed=name) for name in ("one", "two", "three")]
    for name, (manifest, blobs) in zip(("one", "two", "three"), images, strict=True):
        registry.add(name, "1", manifest, blobs)
    one, two, three = (manifest for manifest, _ in images)
    create = ("buildx", "imagetools", "create")
    notes = ("--annotation", "a=b", "--annotation", "manifest-descriptor[linux/amd64]:c=d")
    dry = json.loads(run(*create, "--dry-run", *notes, f"{here}/one:1", f"{here}/two:1")[1])
    assert [entry["digest"] for entry in dry["manifests"]] == [one.digest, two.digest]
    assert dry["annotations"] == {"a": "b"}
    assert all(entry.get("annotations") == {"c": "d"} for entry in dry["manifests"]) == (
        dry["manifests"][0]["platform"]["architecture"] == "amd64"
    )
    assert run(*create, "-t", f"{here}/all:1", "-t", f"{here}/again:1", f"{here}/one:1", f"{here}/two:1")[0] == 0
    assert registry.manifests["all", "1"] == registry.manifests["again", "1"]
    (tmp_path / "file").write_text(
        json.dumps(
            {
                "mediaType": three.media_type,
                "digest": three.digest,
                "size": three.size,
                "annotations": {"org.opencontainers.image.ref.name": f"{here}/three"},
            }
        )
    )
    assert run(*create, "--append", "-t", f"{here}/all:1", "-f", str(tmp_path / "file"))[0] == 0
    index = json.loads(registry.manifests["all", "1"][0])
    assert [entry["digest"] for entry in index["manifests"]] == [one.digest, two.digest, three.digest]
    # One source goes as it is: an index always, an image when it is asked for.
    assert run(*create, "-t", f"{here}/copy:1", f"{here}/all:1")[0] == 0
    assert registry.manifests["copy", "1"] == registry.manifests["all", "1"]
    assert registry.manifests["copy", str(three.digest)][0] == three.raw
    assert run(*create, "--prefer-index=false", "-t", f"{here}/single:1", f"{here}/one:1")[0] == 0
    assert registry.manifests["single", "1"][0] == one.raw
    told = run("buildx", "imagetools", "inspect", f"{here}/all:1")[1]
    assert told.startswith(f"Name:      {here}/all:1\nMediaType: application/vnd.oci.image.index.v1+json\n")
    assert told.count("  Platform:  linux/") == 3
    form = run("buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", f"{here}/one:1")[1]
    assert form == f"{one.digest}\n"
    raw = run("buildx", "imagetools", "inspect", "--format", "{{json .Image}}", f"{here}/one:1")[1]
    assert json.loads(raw)["os"] == "linux"
    for words, why in (
        ((f"{here}/one:1",), "no tags"),
        (("-t", f"{here}/x:1"), "no sources"),
        (("--append", f"{here}/one:1"), "append requires"),
        (("-t", f"{here}/x:1", f"{here}/none:1"), "not found"),
        (("--dry-run", "--annotation", "manifest:a=b", f"{here}/one:1"), "not possible here"),
        (("--dry-run", "-f", str(tmp_path / "docker")), "reading"),
    ):
        status, _, err = run(*create, *words)
        assert status == 1
        assert why in err
