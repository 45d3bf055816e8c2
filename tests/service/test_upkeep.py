"""What takes space, what may go, and that a dry run tells the truth."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.base.clock import parse_moment
from engine.cli.main import main
from engine.cli.upkeep import summary
from engine.errors import Conflict, InvalidInput, NotFound
from engine.local import LocalEngine, open_engine
from engine.model import ContainerSpec
from engine.oci.config import ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_CONFIG, OCI_LAYER
from engine.oci.reference import Reference
from engine.store.images import Image
from engine.store.store import Store
from tests.engine.registry.scripted import sample

pytestmark = pytest.mark.root


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[LocalEngine]:
    engine = await open_engine(tmp_path / "root")
    yield engine
    await engine.close()


def record(
    engine: LocalEngine, *tags: str, layers: int = 2, created: str = "2020-01-01T00:00:00Z", **labels: str
) -> Image:
    """An image of shared sample layers; its config makes it one of its own."""
    store: Store = engine._store
    manifest, blobs = sample(layers)
    config = ImageConfig.parse(blobs[manifest.config.digest]).with_config(Labels=labels, Cmd=["sh"])
    config = ImageConfig({**config.document, "created": created})
    with store.using():
        for data in blobs.values():
            store.blobs.put(data)
        raw = config.to_bytes()
        manifest = build_manifest(Descriptor(OCI_CONFIG, store.blobs.put(raw), len(raw)), manifest.layers)
        records = store.ensure_layers(manifest.layers, config.diff_ids)
        size = sum(record.size for record in records)
        return store.images.put(manifest, config, size, [Reference.parse(tag) for tag in tags])


async def names(engine: LocalEngine, **filters: list[str]) -> list[str]:
    found = await engine.images(all=True, filters={key.replace("_", "!"): value for key, value in filters.items()})
    return sorted((image.tags or ("-",))[0] for image in found)


async def test_images_by_filter(engine: LocalEngine) -> None:
    record(engine, "old:1", created="2020-01-01T00:00:00Z", team="a")
    record(engine, "mid:1", "mid:2", created="2021-01-01T00:00:00Z", team="b")
    record(engine, created="2022-01-01T00:00:00Z")
    assert await names(engine) == ["-", "mid:1", "old:1"]
    assert await names(engine, dangling=["true"]) == ["-"]
    assert await names(engine, dangling=["false"]) == ["mid:1", "old:1"]
    assert await names(engine, label=["team"]) == ["mid:1", "old:1"]
    assert await names(engine, label=["team=b"]) == ["mid:1"]
    assert await names(engine, before=["mid:1"]) == ["old:1"]
    assert await names(engine, since=["old:1"]) == ["-", "mid:1"]
    assert await names(engine, until=["2020-06-01"]) == ["old:1"]
    assert await names(engine, reference=["m?d"]) == ["mid:1"]
    (found,) = await engine.images(all=True, filters={"reference": ["*:2"]})
    assert found.tags == ("mid:2",)
    for key, value, error in (
        ("colour", "red", InvalidInput),
        ("dangling", "maybe", InvalidInput),
        ("before", "x", NotFound),
    ):
        with pytest.raises(error):
            await engine.images(filters={key: [value]})


async def test_an_image_in_two_compressions_is_one_row_and_goes_as_one(
    engine: LocalEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store: Store = engine._store
    loose = record(engine)
    packed, raw = store.images.manifest(loose), store.blobs.read(loose.config_digest)
    plain, blobs = sample(2, media_type=OCI_LAYER)
    for data in blobs.values():
        store.blobs.put(data)
    twin = build_manifest(packed.config, plain.layers)
    store.images.put(twin, ImageConfig.parse(raw), loose.size, [])
    assert await names(engine) == ["-"]
    tagged = store.images.put(twin, ImageConfig.parse(raw), loose.size, [Reference.parse("two:1")])
    assert [image.digest for image in await engine.images(all=True)] == [tagged.digest]
    for place, why in ((tmp_path / "no/x.tar", f"no folder {tmp_path}/no"), (tmp_path, "is a folder")):
        assert await asyncio.to_thread(main, ["--root", str(engine.root), "save", "-o", str(place), "two:1"]) == 1
        told = capsys.readouterr().err
        assert why in told
        assert ".part" not in told
    await engine.remove_image("two:1")
    assert store.images.list() == []


async def test_prunes_do_what_their_dry_run_says(engine: LocalEngine) -> None:
    record(engine, "kept:1", layers=1)
    loose = record(engine, layers=3)
    idle = record(engine, "idle:1", layers=2, keep="no")
    used = record(engine, "used:1", layers=2)
    container = await engine.create(ContainerSpec("used:1", name="user"))
    for filters in ({}, {"dangling": ["false"], "label": ["keep"]}):
        would = await engine.prune_images(filters, dry_run=True)
        assert await engine.prune_images(filters) == would
        assert would.images
    assert loose.digest not in {image.digest for image in await engine.images(all=True)}
    assert await names(engine) == ["kept:1", "used:1"]
    assert idle.digest != used.digest
    assert await engine.check() == []
    with pytest.raises(Conflict, match="used by container user"):
        engine._images.drop(used.digest)
    would = await engine.prune_system(all=True, dry_run=True)
    done = await engine.prune_system(all=True)
    assert done == would
    assert done.containers == (container,)
    assert {line for line in done.images if line.startswith("untagged")} == {"untagged: kept:1", "untagged: used:1"}
    assert await engine.images(all=True) == []
    assert engine._store.blobs.digests() == engine._store.layers.chains() == []


async def test_disk_usage_counts_shared_layers_once(engine: LocalEngine) -> None:
    one = record(engine, "one:1", layers=3)
    record(engine, "two:1", layers=2)
    await engine.create(ContainerSpec("two:1"))
    usage = await engine.disk_usage()
    assert usage.layers_size == one.size == 21000
    assert {item.image.tags[0]: item.shared for item in usage.images} == {"one:1": 14000, "two:1": 14000}
    rows = {row["Type"]: row for row in summary(usage)}
    assert rows["Images"]["Reclaimable"] == "7kB (33%)"
    assert (rows["Containers"]["TotalCount"], rows["Containers"]["Active"]) == ("1", "0")


async def test_removing_by_digest_and_by_names_that_look_like_ids(engine: LocalEngine) -> None:
    image = record(engine, "a:1", "b:1")
    engine._store.images.put_repo_digest(image, f"a@{image.digest}")
    with pytest.raises(Conflict, match="multiple repositories: a:1, b:1"):
        await engine.remove_image(image.config_digest[:20])
    assert await engine.remove_image(f"a@{image.digest}") == ["Untagged: a:1"]
    assert await engine.remove_image("b:1") == [
        "Untagged: b:1",
        f"Untagged: a@{image.digest}",
        f"Deleted: {image.config_digest}",
    ]


def test_the_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(tmp_path / "root")]
    assert main([*root, "system", "df"]) == 0
    assert capsys.readouterr().out.split("\n")[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert main([*root, "system", "df", "--format", "{{.Type}}"]) == 0
    assert capsys.readouterr().out.splitlines() == ["Images", "Containers", "Local Volumes", "Build Cache"]
    assert main([*root, "image", "prune", "-f"]) == 0
    assert capsys.readouterr().out == "Total reclaimed space: 0B\n"
    assert main([*root, "system", "prune", "--dry-run", "-a", "--volumes"]) == 0
    assert capsys.readouterr().out == "Space that would be reclaimed: 0B\n"
    assert main([*root, "image", "polish"]) == 1
    assert "prune" in capsys.readouterr().err


def test_moments() -> None:
    """Docker's `--since` and `until=`: durations, seconds, dates with and without a zone."""
    now = 1_700_000_000 * 10**9
    assert parse_moment("1h30m", now) == now - 5400 * 10**9
    assert parse_moment("1.5s", now) == now - 1_500_000_000
    assert parse_moment("1136073600.000000001", now) == 1136073600 * 10**9 + 1
    assert parse_moment("2013-01-02T00:00:00Z", now) == 1357084800 * 10**9
    assert parse_moment("2013-01-02T01:00:00+01:00", now) == 1357084800 * 10**9
    local = int(time.mktime((2013, 1, 2, 3, 4, 0, 0, 0, -1))) * 10**9
    assert parse_moment("2013-01-02T03:04", now) == local
    for text in ("", "bar", "10", "1136073600.bar", "5 minutes", "2013-13-40"):
        if text == "10":
            continue
        with pytest.raises(InvalidInput):
            parse_moment(text, now)
