"""What a registry has beside images: artifacts, and what refers to an image, by the API and by the tag that stands in for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.base.cancel import CancelToken
from engine.cli.main import main
from engine.errors import Corrupt, NotFound, Unsupported
from engine.oci.media import OCI_INDEX, OCI_MANIFEST
from engine.service import artifacts
from engine.service.images import ImageService
from engine.store.store import Store
from tests.engine.registry.scripted import Reply, Scripted, Seen, sample

Make = Callable[..., Scripted]


def listed(*kinds: str) -> bytes:
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": f"sha256:{hashlib.sha256(kind.encode()).hexdigest()}", "size": 5, "artifactType": f"application/{kind}"}
        for kind in kinds
    ]  # fmt: skip
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


def kinds(store: Store, name: str, wanted: str = "") -> list[str]:
    found = artifacts.referrers(
        store,
        name,
        artifact_type=f"application/{wanted}" if wanted else "",
        platform="",
        insecure=False,
        cancel=CancelToken(),
    )
    return [str(one["artifactType"]).removeprefix("application/") for one in found]


def test_all_pages_of_the_list(scripted: Make, tmp_path: Path) -> None:
    def script(seen: Seen) -> Reply | None:
        if "/referrers/" not in seen.path:
            return None
        if "page=2" in seen.path:
            return Reply(200, listed("b", "a"), {"content-type": OCI_INDEX})
        link = f'<{seen.path.partition("?")[0]}?page=2>; rel="next"'
        return Reply(200, listed("a"), {"content-type": OCI_INDEX, "link": link})

    registry = scripted(script)
    manifest, blobs = sample(1)
    registry.add("app", "1", manifest, blobs)
    store = Store(tmp_path)
    assert kinds(store, f"{registry.address}/app:1") == ["a", "b", "a"]
    # A registry may pass over the filter: what it should have left out is left out here.
    assert kinds(store, f"{registry.address}/app:1", "b") == ["b"]
    assert any(
        f"/referrers/{manifest.digest}?artifactType=application%2Fb" in seen.path for seen in registry.requests("GET")
    )
    store.close()


def test_the_tag_that_stands_in(scripted: Make, tmp_path: Path) -> None:
    manifest, blobs = sample(1)

    def script(seen: Seen) -> Reply | None:
        if "/referrers/" in seen.path:
            return Reply(404, b"", {})
        if seen.path.endswith(f"/manifests/sha256-{manifest.digest.hex}"):
            return Reply(200, listed("sbom"), {"content-type": OCI_INDEX})
        return None

    registry = scripted(script)
    registry.add("app", "1", manifest, blobs)
    registry.add("bare", "1", *sample(1, seed="other"))
    store = Store(tmp_path)
    assert kinds(store, f"{registry.address}/app:1") == ["sbom"]
    assert kinds(store, f"{registry.address}/bare:1") == []
    with pytest.raises(NotFound):
        kinds(store, f"{registry.address}/none:1")
    store.close()


@pytest.mark.parametrize("link", ["endless", "elsewhere"])
def test_a_list_that_leads_astray(scripted: Make, tmp_path: Path, link: str) -> None:
    other = scripted()

    def script(seen: Seen) -> Reply | None:
        if "/referrers/" not in seen.path:
            return None
        to = seen.path if link == "endless" else f"http://{other.address}/v2/app/tags/list"
        return Reply(200, listed("a"), {"content-type": OCI_INDEX, "link": f'<{to}>; rel="next"'})

    registry = scripted(script)
    registry.add("app", "1", *sample(1))
    store = Store(tmp_path)
    if link == "endless":
        with pytest.raises(Corrupt, match="no end"):
            kinds(store, f"{registry.address}/app:1")
    else:
        assert kinds(store, f"{registry.address}/app:1") == ["a"]
    assert not other.requests()
    store.close()


def test_an_artifact_is_no_image(scripted: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/spdx+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": f"sha256:{'0' * 64}", "size": 2},
        "layers": [],
    }
    raw = json.dumps(document).encode()
    registry = scripted(
        lambda seen: Reply(200, raw, {"content-type": OCI_MANIFEST}) if "/manifests/" in seen.path else None
    )
    name = f"{registry.address}/sbom:1"
    store = Store(tmp_path)
    with pytest.raises(Unsupported, match=r"artifact of type application/spdx\+json"):
        ImageService(store).pull(name, lambda event: None, CancelToken())
    assert store.images.list() == []
    store.close()
    assert main(["--root", str(tmp_path), "manifest", "inspect", name]) == 0
    assert json.loads(capfd.readouterr().out) == document
    assert main(["--root", str(tmp_path), "manifest", "inspect", "--raw", name]) == 0
    assert capfd.readouterr().out.encode() == raw
    assert main(["--root", str(tmp_path), "manifest", "inspect", "-v", name]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert (shown["Descriptor"]["artifactType"], shown["OCIManifest"]) == ("application/spdx+json", document)
