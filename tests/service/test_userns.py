"""User namespaces for every container (`userns-remap`): owners are right in copies, exports and layers."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.api import BuildRequest, ContainerSpec
from engine.errors import EngineError, InvalidInput, NotFound
from engine.local import LocalEngine
from engine.model import BuildSecret
from engine.service.mount_specs import parse_bind

from .conftest import Image, Sh

pytestmark = pytest.mark.root
RUNTIMES = [
    "native",
    pytest.param("runc", marks=pytest.mark.peer("runc")),
    pytest.param("crun", marks=pytest.mark.peer("crun")),
]
FIRST = 200_000  # the host's user that is root inside


@pytest.fixture(autouse=True)
def remapped(local: LocalEngine) -> Iterator[None]:
    if os.environ.get("CI") != "true" and tuple(map(int, os.uname().release.split(".")[:2])) < (5, 19):
        pytest.skip("overlay with mapped ids takes Linux 5.19")
    settings = local.root / "settings.json"
    settings.write_text(f'{{"runtime": {{"userns-remap": "{FIRST}:65536"}}}}')
    yield
    settings.unlink()


def tar_of(*members: tuple[str, int, bytes], links: dict[str, str] | None = None) -> io.BytesIO:
    """Name, owner and content of each."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name, owner, data in members:
            info = tarfile.TarInfo(name)
            info.uid = info.gid = owner
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


async def archived(local: LocalEngine, container: str, path: str) -> dict[str, tuple[int, bytes]]:
    """Name to owner and content, of what `cp` gives."""
    out = io.BytesIO()
    await local.get_archive(container, path, out)
    return contents(out)


def contents(out: io.BytesIO) -> dict[str, tuple[int, bytes]]:
    out.seek(0)
    found = {}
    with tarfile.open(fileobj=out) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            found[member.name] = (member.uid, file.read() if file is not None else b"")
    return found


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_files_into_and_out_of_a_running_container(local: LocalEngine, inside: Sh, runtime: str) -> None:
    """The owners are those that the container sees; on disk too, in its layer and in its volumes."""
    mounts = (parse_bind("data:/data"),)
    container = await local.create(
        ContainerSpec("workbench/base", command=("sleep", "1000"), mounts=mounts, runtime=runtime)
    )
    await local.start(container)
    pid = (await local.container(container)).summary.pid
    assert Path(f"/proc/{pid}").stat().st_uid == FIRST
    await inside(
        container, "mkdir /dir; echo of-root > /dir/a; echo of-bob > /dir/b; chown 1000:1000 /dir/b; cp -a /dir /data/"
    )
    for path in ("/dir", "/data/dir"):
        assert await archived(local, container, path) == {
            "dir": (0, b""), "dir/a": (0, b"of-root\n"), "dir/b": (1000, b"of-bob\n"),
        }, path  # fmt: skip
    # Into both; and into a file that is there.
    for path in ("/dir", "/data/dir"):
        await local.put_archive(container, path, tar_of(("new", 0, b"n"), ("b", 1001, b"over"), ("sub/x", 1002, b"x")))
        seen = await inside(container, f"cd {path}; stat -c '%n %u %g' new b sub/x; cat new b sub/x")
        assert seen.split() == "new 0 0 b 1001 1001 sub/x 1002 1002 noverx".split(), path
    upper = local.root / "containers" / container / "upper"
    volume = next(iter((local.root / "volumes").glob("data*/_data")), None) or local.root / "volumes/data"
    for folder in (upper / "dir", volume / "dir"):
        assert [(folder / name).stat().st_uid for name in ("a", "b", "new", "sub/x")] == [0, 1001, 0, 1002], folder
    await inside(container, "rm /dir/new && echo more >> /dir/b")
    assert not await archived(local, container, "/proc") or set(await archived(local, container, "/proc")) == {"proc"}
    with pytest.raises(NotFound):
        await local.get_archive(container, "/nosuch", io.BytesIO())


async def test_what_it_may_not(local: LocalEngine, tmp_path: Path) -> None:
    """A host file is not reached through a link; an owner that the namespace has not is refused; a read-only root stays."""
    canary = tmp_path / "canary"
    canary.write_text("of the host")
    container = await local.create(ContainerSpec("workbench/base", command=("sleep", "1000")))
    await local.start(container)
    await local.put_archive(container, "/tmp", tar_of(links={"out": str(tmp_path)}))
    with pytest.raises(EngineError):
        await local.put_archive(container, "/tmp/out", tar_of(("canary", 0, b"changed")))
    with pytest.raises(NotFound):
        await local.get_archive(container, "/tmp/out/canary", io.BytesIO())
    assert canary.read_text() == "of the host"
    with pytest.raises(EngineError, match="Invalid argument"):
        await local.put_archive(container, "/tmp", tar_of(("x", 70_000, b"")))
    with pytest.raises(InvalidInput):
        await local.put_archive(container, "/tmp", io.BytesIO(b"no tar" * 200))
    fixed = await local.create(ContainerSpec("workbench/base", command=("sleep", "1000"), read_only=True))
    await local.start(fixed)
    with pytest.raises(InvalidInput, match="read-only"):
        await local.put_archive(fixed, "/etc", tar_of(("x", 0, b"")))


async def test_an_export_while_it_runs(local: LocalEngine, inside: Sh) -> None:
    container = await local.create(ContainerSpec("workbench/base", command=("sleep", "1000")))
    await local.start(container)
    await inside(container, "echo hers > /file; chown 1000 /file; mkdir -m 700 /own")
    out = io.BytesIO()
    await local.export(container, out)
    found = contents(out)
    assert found["file"] == (1000, b"hers\n")
    assert {found[name][0] for name in ("etc", "own", "bin/sh") if name in found} == {0}
    assert not [name for name in found if name.startswith(("proc/", "sys/"))], "without what is mounted"


async def test_build_steps_run_remapped(local: LocalEngine, image: Image, sh: Sh, tmp_path: Path) -> None:
    """Their root is an ordinary user of the host, and the layers have the owners that the step gave."""
    tag = await image(
        "RUN cat /proc/self/uid_map > /map && echo x > /mine && chown 1000:1001 /mine && id -u > /id\n"
        "RUN --mount=type=cache,target=/cache --mount=type=bind,target=/context,rw "
        "echo c > /cache/file && touch /context/new && stat -c %u /cache /cache/file >> /id\nUSER 1000\nRUN touch /tmp/by-user"
    )  # fmt: skip
    seen = await sh("cat /map /id; stat -c '%u %g' /mine /tmp/by-user /map", image=tag, user="0")
    assert seen.split() == ["0", str(FIRST), "65536", "0", "0", "0", "1000", "1001", "1000", "0", "0", "0"]
    (tmp_path / "Dockerfile").write_text(
        "FROM workbench/base AS one\nRUN mkdir /d && echo y > /d/f && chown -R 5:6 /d\nFROM workbench/base\n"
        "RUN --mount=type=secret,id=k,uid=7 --mount=from=one,target=/one,rw stat -c '%u %g' /run/secrets/k /one/d/f > /seen"
        " && cat /run/secrets/k >> /seen && touch /one/d/new\n"
    )
    async for _ in local.build(BuildRequest(tmp_path, tags=("mounted",), secrets=(BuildSecret("k", value=b"said"),))):
        pass
    assert (await sh("cat /seen", image="mounted")).split() == ["7", "0", "5", "6", "said"]
    with pytest.raises(EngineError, match="host's network namespace"):
        async for _ in local.build(BuildRequest(tmp_path, network="host", no_cache=True)):
            pass
    (tmp_path / "Dockerfile").write_text("FROM workbench/base\nRUN --security=insecure cat /proc/self/uid_map > /map\n")
    async for _ in local.build(BuildRequest(tmp_path, tags=("free",), allow=("security.insecure",))):
        pass
    assert (await sh("cat /map", image="free")).split() == ["0", "0", "4294967295"]
