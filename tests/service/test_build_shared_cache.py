"""`--cache-to`, `--cache-from`, `--push` and several platforms, each through a real registry, a folder, and an image."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.api import BuildFinished, BuildNotice, BuildOutput, BuildRequest, StepFinished
from engine.errors import EngineError, InvalidInput, Unsupported
from engine.local import LocalEngine, open_engine, runtime_dir
from engine.oci.platform import Platform
from tests.conftest import end_supervisor
from tests.engine.registry.conftest import docker_registry
from tests.serving import free_port

__all__ = ["docker_registry"]  # a fixture

pytestmark = [pytest.mark.root]
FILE = """FROM workbench/base AS build
RUN echo one > /made
FROM workbench/base
COPY --from=build /made /made
COPY a /a
RUN cat /made /a > /both
"""


class Machine:
    """One data root: another machine for all that a cache knows."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.notices: list[str] = []
        self.ran: list[str] = []

    async def build(self, context: Path, **more: object) -> BuildFinished:
        self.notices, self.ran = [], []
        more.setdefault("network", "none")  # data roots of their own would each want subnets of their own
        finished = None
        async for event in self.engine.build(BuildRequest(context, **more)):  # type: ignore[arg-type]
            match event:
                case StepFinished(step, False) if not step.instruction.startswith("FROM"):
                    self.ran.append(step.instruction)
                case BuildNotice(text):
                    self.notices.append(text)
                case BuildFinished():
                    finished = event
        assert finished is not None
        return finished


@asynccontextmanager
async def machine(root: Path) -> AsyncIterator[Machine]:
    engine = await open_engine(root)
    try:
        yield Machine(engine)
    finally:
        await engine.close()
        end_supervisor(runtime_dir(root))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "a").write_text("two\n")
    (folder / "Dockerfile").write_text(FILE)
    return folder


@pytest.fixture
async def first(tmp_path: Path) -> AsyncIterator[Machine]:
    async with machine(tmp_path / "first") as made:
        yield made


@pytest.fixture
async def second(tmp_path: Path) -> AsyncIterator[Machine]:
    async with machine(tmp_path / "second") as made:
        yield made


async def test_a_cache_in_a_folder_holds_every_stage(
    first: Machine, second: Machine, context: Path, tmp_path: Path
) -> None:
    to = f"type=local,dest={tmp_path}/cache,mode=max"
    built = await first.build(context, cache_to=(to,))
    assert len(first.ran) == 4
    again = await second.build(context, cache_from=(f"type=local,src={tmp_path}/cache",))
    assert second.ran == []
    assert (again.image_id, again.digest) == (built.image_id, built.digest)
    # What came from elsewhere is checked: the files are there, and the next change builds on them.
    (context / "a").write_text("three\n")
    await second.build(context, cache_from=(f"type=local,src={tmp_path}/cache",))
    assert second.ran == ["COPY a /a", "RUN cat /made /a > /both"]
    assert await second.engine.check() == []


async def test_the_folder_is_a_layout_with_buildkits_config(first: Machine, context: Path, tmp_path: Path) -> None:
    await first.build(context, cache_to=(f"type=local,dest={tmp_path}/c,compression=gzip,mode=max",))
    await first.build(context, cache_to=(f"type=local,dest={tmp_path}/c,tag=min,image-manifest=false",))
    index = json.loads((tmp_path / "c/index.json").read_bytes())
    tags = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]]
    assert tags == ["latest", "min"]

    def blob(digest: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(
            (tmp_path / "c/blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()
        )
        return found

    top = blob(index["manifests"][0]["digest"])
    config = top["config"]
    assert isinstance(config, dict)
    assert config["mediaType"] == "application/vnd.buildkit.cacheconfig.v0"
    assert all(str(layer["mediaType"]).endswith("+gzip") for layer in top["layers"])  # type: ignore[attr-defined]
    document = blob(str(config["digest"]))
    layers, records = document["layers"], document["records"]
    assert isinstance(layers, list)
    assert isinstance(records, list)
    assert all(-1 <= layer["parent"] < place for place, layer in enumerate(layers))
    assert all(0 <= record["layers"][0]["layer"] < len(layers) for record in records)
    assert len(records) == 4


@pytest.mark.peer("registry")
async def test_a_cache_in_a_registry_and_one_in_an_image(
    first: Machine, second: Machine, context: Path, docker_registry: str, tmp_path: Path
) -> None:
    name = f"{docker_registry}/app"
    built = await first.build(
        context,
        tags=(f"{name}:1",),
        cache_to=(f"type=registry,ref={name}:cache,mode=max,compression=zstd", "type=inline"),
        outputs=(BuildOutput("registry", "", {}),),
    )
    await second.build(context, cache_from=(f"type=registry,ref={name}:cache",))
    assert second.ran == []
    assert second.notices == []
    async with machine(tmp_path / "third") as third:
        again = await third.build(context, cache_from=(f"{name}:1",), cache_to=("type=inline",))
        assert third.ran == []
        assert again.image_id == built.image_id
    # The image alone says nothing where it is not named as a cache (CVE-2024-24557).
    async with machine(tmp_path / "fourth") as fourth:
        async for _ in fourth.engine.pull(f"{name}:1"):
            pass
        await fourth.build(context)
        assert len(fourth.ran) == 4


async def test_a_cache_that_cannot_be_had_is_a_notice(first: Machine, context: Path, tmp_path: Path) -> None:
    await first.build(context, cache_from=(f"type=local,src={tmp_path}/none", f"127.0.0.1:{free_port()}/app"))
    assert len(first.ran) == 4
    assert len(first.notices) == 2
    assert all(text.startswith("no cache from ") for text in first.notices)


async def test_a_layer_that_is_not_what_the_cache_says_runs_the_step(
    first: Machine, second: Machine, context: Path, tmp_path: Path
) -> None:
    await first.build(context, cache_to=(f"type=local,dest={tmp_path}/c,mode=max",))
    for blob in (tmp_path / "c/blobs/sha256").iterdir():
        data = blob.read_bytes()
        if not data.startswith(b"{"):
            blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    await second.build(context, cache_from=(f"type=local,src={tmp_path}/c",))
    assert len(second.ran) == 4
    assert any("cannot be used" in text for text in second.notices)
    assert await second.engine.check() == []


async def test_a_cache_target_that_fails_ends_the_build_or_not(first: Machine, context: Path) -> None:
    where = f"type=registry,ref=127.0.0.1:{free_port()}/c"
    with pytest.raises(EngineError):
        await first.build(context, cache_to=(where,))
    await first.build(context, cache_to=(f"{where},ignore-error=true",))
    assert any("was not written" in text for text in first.notices)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"cache_from": ("type=gha",)}, Unsupported),
        ({"cache_from": ("type=registry",)}, InvalidInput),
        ({"cache_to": ("type=local,dest=/x,mode=most",)}, InvalidInput),
        ({"cache_to": ("type=inline,mode=max",)}, InvalidInput),
        ({"cache_to": ("type=local,dest=/x,colour=red",)}, InvalidInput),
        ({"outputs": (BuildOutput("registry", "", {}),)}, InvalidInput),
        ({"outputs": (BuildOutput("image", "", {"unpack": "true"}),)}, InvalidInput),
        ({"platforms": ("linux/amd64", "a b")}, InvalidInput),
    ],
)
async def test_words_that_are_not_known_are_named(
    first: Machine, context: Path, more: dict[str, object], error: type[EngineError]
) -> None:
    with pytest.raises(error):
        await first.build(context, **more)


MULTI = """FROM --platform=$BUILDPLATFORM workbench/base AS build
ARG TARGETPLATFORM
RUN echo "for $TARGETPLATFORM" > /out
FROM scratch
COPY --from=build /out /out
"""


@pytest.mark.peer("registry")
@pytest.mark.peer("skopeo")
async def test_several_platforms_make_an_index(
    first: Machine, context: Path, docker_registry: str, tmp_path: Path
) -> None:
    (context / "Dockerfile").write_text(MULTI)
    name = f"{docker_registry}/multi:1"
    outputs = (
        BuildOutput("registry", "", {}),
        BuildOutput("oci", f"{tmp_path}/m.tar", {}),
        BuildOutput("local", f"{tmp_path}/out", {}),
    )
    host, other = Platform.host().architecture, "s390x"
    built = await first.build(context, tags=(name,), platforms=(f"linux/{other}", f"linux/{host}"), outputs=outputs)
    assert (tmp_path / f"out/linux_{other}/out").read_text() == f"for linux/{other}\n"
    assert (tmp_path / f"out/linux_{host}/out").read_text() == f"for linux/{host}\n"
    for place in (f"docker://{name}", f"oci-archive:{tmp_path}/m.tar"):
        raw = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", place], capture_output=True, check=True
        ).stdout
        platforms = [entry["platform"]["architecture"] for entry in json.loads(raw)["manifests"]]
        assert platforms == [other, host]
    # The name here is this machine's image; pushed again, or under a second name, it is the whole index.
    assert (await first.engine.image(name)).summary.id == built.image_id
    await first.engine.tag(name, f"{docker_registry}/multi:2")
    await first.engine.prune_images({})
    async for _ in first.engine.push(f"{docker_registry}/multi:2"):
        pass
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{docker_registry}/multi:2"],
        capture_output=True,
        check=True,
    ).stdout
    assert len(json.loads(raw)["manifests"]) == 2
    # A FROM for the other platform finds it without asking a registry.
    (context / "Dockerfile").write_text(f"FROM {name}\nCOPY a /a\n")
    await first.build(context, tags=("child",), platforms=(f"linux/{other}",))
    assert (await first.engine.image("child")).config["architecture"] == other
