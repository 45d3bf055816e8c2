"""Images, builds, networks, volumes, events and pruning: the same on every engine."""

from __future__ import annotations

import asyncio
import io
import secrets
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from engine.api import (
    BuildEvent,
    BuildFinished,
    BuildOutput,
    BuildRequest,
    CommitRequest,
    ContainerSpec,
    Engine,
    EngineEvent,
    ExecSpec,
    LoadedImage,
    Mount,
    NetworkSpec,
    StepFinished,
    StepOutput,
)
from engine.errors import BuildFailed, Conflict, EngineError, NotFound, Unsupported
from engine.opening import opened
from engine.remote import near
from tests.patience import PATIENCE

from .conftest import IMAGE, Place, text_of

Sleeper = Callable[..., Awaitable[str]]
pytestmark = [pytest.mark.root, pytest.mark.peer("busybox")]


async def build(face: Engine, folder: Path, **more: object) -> tuple[BuildFinished, list[BuildEvent]]:
    events = [event async for event in face.build(BuildRequest(folder, **more))]  # type: ignore[arg-type]
    assert isinstance(events[-1], BuildFinished)
    return events[-1], events


def output(events: list[BuildEvent]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, StepOutput))


async def test_an_image_and_its_names(face: Engine) -> None:
    found = await face.image(IMAGE)
    assert found.summary.id.startswith("sha256:")
    assert IMAGE in found.summary.tags
    assert len([layer for layer in found.layers if not layer.empty]) == 1
    assert found.config["config"]["Cmd"] == ["sh"]  # type: ignore[index]
    (row,) = [one for one in await face.images() if one.id == found.summary.id]
    assert (row.tags, row.size) == (found.summary.tags, found.summary.size)
    await face.tag(IMAGE, "contract/other")
    assert "contract/other:latest" in (await face.image(found.summary.id)).summary.tags
    assert await face.remove_image("contract/other") == ["Untagged: contract/other:latest"]
    with pytest.raises(NotFound):
        await face.image("contract/other")
    names = [name for one in await face.images(filters={"reference": ["contract/*"]}) for name in one.tags]
    assert names == [IMAGE]


async def test_images_know_their_containers(face: Engine, sleeper: Sleeper) -> None:
    await sleeper()
    (row,) = [one for one in await face.images() if IMAGE in one.tags]
    assert "contract-sleeper" in row.used_by
    with pytest.raises(Conflict):
        await face.remove_image(row.id)


async def test_save_and_load(face: Engine) -> None:
    identity = (await face.image(IMAGE)).summary.id
    await face.tag(IMAGE, "contract/saved:1")
    out = io.BytesIO()
    async for _ in face.save(["contract/saved:1"], out):
        pass
    await face.remove_image("contract/saved:1")
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert "manifest.json" in tar.getnames()
    out.seek(0)
    loaded = [event async for event in face.load(out) if isinstance(event, LoadedImage)]
    assert [(one.id, one.tags) for one in loaded] == [(identity, ("contract/saved:1",))]
    await face.remove_image("contract/saved:1")
    with pytest.raises(NotFound):
        async for _ in face.save(["contract/nosuch"], io.BytesIO()):
            pass


async def test_the_files_of_an_image(
    face: Engine, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a Docker daemon the image is fetched for them, once; nothing of it stays behind."""
    if place.docker:
        with pytest.raises(Unsupported, match="not here"):
            await face.image_waste(IMAGE)
    monkeypatch.setattr(near, "_PLACE", str(tmp_path))
    async with opened(place.host, root=None if place.host else place.root) as own:
        tree = await own.open_files(IMAGE)
        names = [row.path for row in await tree.rows(0, 100)]
        assert {"/bin", "/etc", "/tmp"} <= set(names)
        assert (await own.image_waste(IMAGE)).wasted == 0
        assert [step.mark for step in await own.file_history(IMAGE, "/bin/busybox")] == ["A"]
        assert (await own.file_content(IMAGE, "/bin/busybox", limit=4)).data == b"\x7fELF"
        assert "/bin/busybox" in [one.path for one in await own.image_diff("scratch", IMAGE)]
        out = io.BytesIO()
        await own.save_file(IMAGE, "/bin/busybox", out)
        assert out.getvalue() == Path("/bin/busybox").read_bytes()
        with pytest.raises(NotFound):
            await own.file_content(IMAGE, "/nothing")
        with pytest.raises(NotFound):
            await own.open_files("contract/none:1")
    assert list(tmp_path.iterdir()) == []


async def test_commit(face: Engine, sleeper: Sleeper) -> None:
    identity = await sleeper(script="echo made > /made; echo; sleep 1000")
    await anext(face.logs(identity, follow=True))
    image = await face.commit(identity, CommitRequest("contract/made:1", "why", changes=("ENV MADE=1",)))
    try:
        other = await face.create(ContainerSpec("contract/made:1", command=("sh", "-c", "cat /made; echo $MADE")))
        stream = await face.start_attached(other)
        assert (await text_of(stream))["stdout"] == "made\n1\n"
        assert (await face.image("contract/made:1")).summary.id == image
        await face.remove(other, force=True)
    finally:
        await face.remove_image("contract/made:1", force=True)


# --- builds ---------------------------------------------------------------------------------------------


async def test_build(face: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM {IMAGE} AS first\nARG WORD=none\nCOPY . /app\nRUN echo said $WORD; cd /app; find . | sort\n"
        'FROM first\nLABEL a=b\nENTRYPOINT ["cat", "/app/in/file"]\n'
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("content")
    (tmp_path / "in/left-out").write_text("no")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / ".dockerignore").write_text("**/left-out\nDockerfile\n.dockerignore\n")
    word = secrets.token_hex(8)  # a daemon that was there before has nothing of it in its cache
    request = {"tags": ("contract/built:1",), "build_args": {"WORD": word}, "labels": {"c": "d"}}
    try:
        done, events = await build(face, tmp_path, **request)
        assert f"said {word}" in output(events)
        assert output(events).split()[-4:] == [".", "./in", "./in/file", "./link"]
        found = await face.image("contract/built:1")
        assert found.summary.id == done.image_id
        assert dict(found.summary.labels).items() >= {"a": "b", "c": "d"}.items()
        identity = await face.create(ContainerSpec("contract/built:1"))
        assert (await text_of(await face.start_attached(identity)))["stdout"] == "content"
        await face.remove(identity, force=True)

        again, events = await build(face, tmp_path, **request)
        assert again.image_id == done.image_id
        assert again.first_changed is None
        assert all(event.cached for event in events if isinstance(event, StepFinished))

        (tmp_path / "in/file").write_text("changed")
        changed, _ = await build(face, tmp_path, **request)
        assert changed.first_changed is not None
        assert changed.first_changed.instruction == "COPY . /app"
        assert changed.first_changed.line == 3
    finally:
        await face.remove_image("contract/built:1", force=True)


async def test_a_build_of_a_target_and_of_a_text(face: Engine, tmp_path: Path) -> None:
    text = f"FROM {IMAGE} AS one\nENV A=1\nFROM one AS two\nRUN false\n"
    done, _ = await build(face, tmp_path, dockerfile_text=text, target="one", tags=("contract/one:1",))
    assert "A=1" in (await face.image(done.image_id)).config["config"]["Env"]  # type: ignore[index]
    await face.remove_image("contract/one:1", force=True)


async def test_a_build_that_fails(face: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nENV A=1\nRUN echo before; exit 9\n")
    with pytest.raises(BuildFailed) as failure:
        await build(face, tmp_path)
    assert (failure.value.exit_code, failure.value.line) == (9, 3)
    assert "before" in failure.value.output
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nNOSUCH\n")
    with pytest.raises(EngineError, match="NOSUCH"):
        await build(face, tmp_path)
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY nosuch /\n")
    with pytest.raises(EngineError, match="nosuch"):
        await build(face, tmp_path)


async def test_a_build_that_is_given_up(face: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo begun; sleep 1000\n")
    events = face.build(BuildRequest(tmp_path, no_cache=True))
    async with asyncio.timeout(PATIENCE):
        async for event in events:
            if isinstance(event, StepOutput) and "begun" in event.text:
                break
        await events.aclose()  # type: ignore[attr-defined]
        assert await face.images() is not None


# --- networks and volumes -------------------------------------------------------------------------------


async def test_networks(face: Engine, sleeper: Sleeper) -> None:
    identity = await face.create_network(NetworkSpec("contract-net", labels={"contract": "net"}))
    found = await face.network("contract-net")
    assert (found.id, found.driver, dict(found.labels)) == (identity, "bridge", {"contract": "net"})
    assert [one.name for one in await face.networks({"label": ["contract=net"]})] == ["contract-net"]
    one = await sleeper(network_mode="contract-net")
    two = await sleeper(name="contract-two")
    await face.connect_network("contract-net", two)
    stream = await face.exec(two, ExecSpec(("ping", "-c1", "-W5", "contract-sleeper")))
    assert "1 packets received" in (await text_of(stream))["stdout"]
    assert set((await face.container(two)).summary.networks) == {"bridge", "contract-net"}
    with pytest.raises(EngineError, match=r"contract-net|endpoints"):
        await face.remove_network("contract-net")
    await face.disconnect_network("contract-net", two)
    await face.remove(one, force=True)
    assert "contract-net" in await face.prune_networks({"label": ["contract=net"]})
    with pytest.raises(NotFound):
        await face.network("contract-net")


async def test_volumes(face: Engine) -> None:
    made = await face.create_volume("contract-volume", labels={"contract": "volume"})
    assert (made.name, made.driver, dict(made.labels)) == ("contract-volume", "local", {"contract": "volume"})
    mount = Mount("contract-volume", "/data", type="volume")
    for script in ("echo kept > /data/file", "cat /data/file"):
        identity = await face.create(ContainerSpec(IMAGE, command=("sh", "-c", script), mounts=(mount,)))
        said = await text_of(await face.start_attached(identity))
        assert await face.wait(identity) == 0, said
    assert said["stdout"] == "kept\n"
    assert [one.name for one in await face.volumes({"label": ["contract=volume"]})] == ["contract-volume"]
    with pytest.raises(Conflict):
        await face.remove_volume("contract-volume")
    for container in await face.containers(all=True):
        if container.image == IMAGE:
            await face.remove(container.id, force=True)
    names, _ = await face.prune_volumes({"label": ["contract=volume"], "all": ["true"]})
    assert list(names) == ["contract-volume"]
    with pytest.raises(NotFound):
        await face.volume("contract-volume")


# --- events, usage, prune -------------------------------------------------------------------------------


async def test_events(face: Engine, sleeper: Sleeper) -> None:
    seen: list[EngineEvent] = []

    async def listen() -> None:
        async for event in face.events():
            seen.append(event)
            if event.type == "container" and event.action == "destroy":
                return

    listening = asyncio.ensure_future(listen())
    await asyncio.sleep(0.3)  # its request is on its way: events from before are not told
    identity = await sleeper()
    await face.kill(identity)
    await face.wait(identity)
    await face.remove(identity)
    async with asyncio.timeout(PATIENCE):
        await listening
    mine = [event for event in seen if event.type == "container" and event.id == identity]
    actions = [event.action for event in mine]
    assert [action for action in actions if action in ("create", "start", "die", "destroy")] == [
        "create",
        "start",
        "die",
        "destroy",
    ]
    assert mine[0].attributes["name"] == "contract-sleeper"
    assert [event.seq for event in seen] == sorted(event.seq for event in seen)
    first, last = mine[0].time, mine[-1].time
    replayed = [event async for event in face.events(since_time=first, until=last + 1_000_000)]
    assert {"create", "destroy"} <= {event.action for event in replayed if event.id == identity}
    later = [event async for event in face.events(since=mine[1].seq, until=last + 1_000_000)]
    assert "create" not in [event.action for event in later if event.id == identity]


async def test_usage_and_prune(face: Engine) -> None:
    identity = await face.create(ContainerSpec(IMAGE, command=("true",), labels={"contract": "prune"}))
    await face.start(identity)
    await face.wait(identity)
    usage = await face.disk_usage()
    assert IMAGE in [tag for entry in usage.images for tag in entry.image.tags]
    assert identity in [container.id for container, _ in usage.containers]
    pruned = await face.prune_containers({"label": ["contract=prune"]})
    assert pruned.containers == (identity,)
    await face.tag(IMAGE, "contract/pruned:1")
    await face.remove_image("contract/pruned:1")
    assert (await face.prune_images({"label": ["contract=nosuch"]})).images == ()


async def test_info(face: Engine, place: Place) -> None:
    found = await face.info()
    assert found.version
    assert found.kernel
    assert found.images >= 1


async def test_what_another_engine_cannot_says_so(face: Engine, place: Place, tmp_path: Path) -> None:
    if not place.host:
        pytest.skip("the engine in this process can")
    with pytest.raises(Unsupported, match="another engine") as failure:
        await face.why(BuildRequest(tmp_path), ["x"])
    assert failure.value.hint
    with pytest.raises(Unsupported, match="--output"):
        await build(face, tmp_path, outputs=(BuildOutput("tar", "-"),))


async def test_what_only_a_workbench_can(face: Engine, place: Place, sleeper: Sleeper, tmp_path: Path) -> None:
    """Beyond Docker's API two workbenches speak their own (`engine.calls`); a Docker daemon is never asked."""
    identity = await sleeper(name="contract-old")
    second = await face.create(ContainerSpec(IMAGE, name="contract-next", command=("sleep", "1000"), stop_timeout=0))
    if place.docker:
        for refused in (face.builds(), face.check(), face.start(second, standby=True), face.prune_system(dry_run=True)):
            with pytest.raises(Unsupported) as failure:
                await refused
            assert failure.value.hint
        return
    await face.start(second, standby=True)
    await face.take_over(second, identity, aside="contract-aside")
    assert (await face.container_summary("contract-old")).id == second
    assert (await face.container("contract-aside")).summary.id == identity
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nLABEL a=b\n")
    _, events = await build(face, tmp_path, no_cache=True)
    reasons = [event.reason for event in events if isinstance(event, StepFinished) and not event.cached]
    assert reasons == ["--no-cache"] or all(reasons)
    newest = (await face.builds(limit=1))[0]
    assert newest.status == "done"
    detail = await face.build_detail(newest.number)
    assert [step.step.instruction for step in detail.steps][-1] == "LABEL a=b"
    await face.remove_build(newest.number)
    with pytest.raises(NotFound):
        await face.build_detail(newest.number)
    assert (await face.prune_system(dry_run=True)).reclaimed >= 0
    assert [one for one in await face.check() if one.kind not in ("foreign",)] == []
    stream = await face.exec(second, ExecSpec(("sh", "-c", "echo x > /srv/new")))
    await text_of(stream)
    assert ("A", "/srv/new") in [(one.kind, one.path) for one in await face.drift(second)]
    assert (await face.image(IMAGE)).manifest["layers"]
