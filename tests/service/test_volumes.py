"""Volumes and mounts of real containers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.api import ContainerSpec, Mount
from engine.errors import Conflict, EngineError, InvalidInput, NotFound, StartFailed, Unsupported
from engine.local import LocalEngine, open_engine
from engine.service.mount_specs import parse_bind, parse_mount_flag

from .conftest import Image, Sh

pytestmark = pytest.mark.root

WITH_DATA = (
    "RUN mkdir -p /data/sub /bare && echo hi > /data/f && ln /data/f /data/sub/g && ln -s f /data/l && python3 -c 'import os; os.mkfifo(\"/data/p\")'"
    " && chown 12:34 /data /data/f && chmod 1770 /data && chmod 4711 /data/f && chown 5:6 /bare && echo x > /file\n"
    "VOLUME /data /bare /missing"
)


async def test_an_empty_volume_takes_the_images_content_owner_and_mode(
    local: LocalEngine, sh: Sh, image: Image
) -> None:
    tag = await image(WITH_DATA)
    look = "stat -c '%a %u:%g %h %F %n' /data /data/* /data/sub/g /bare /missing; readlink /data/l"
    expected = await sh(look, tag)
    assert expected.splitlines() == [
        "1770 12:34 3 directory /data",
        "4711 12:34 2 regular file /data/f",
        "777 0:0 1 symbolic link /data/l",
        "644 0:0 1 fifo /data/p",
        "755 0:0 2 directory /data/sub",
        "4711 12:34 2 regular file /data/sub/g",
        "755 5:6 2 directory /bare",
        "755 0:0 2 directory /missing",
        "f",
    ]
    assert await sh(look, tag, mounts=(parse_bind("named:/data"), parse_bind("other:/bare"))) == expected
    await sh("echo mine > /data/f; rm /data/l", tag, mounts=(parse_bind("named:/data"),))
    again = await sh("cat /data/f; ls /data", tag, mounts=(parse_bind("named:/data"),))
    assert again.split() == ["mine", "f", "p", "sub"], "only an empty volume is filled"
    assert await sh("ls -A /data", tag, mounts=(parse_bind("plain:/data:nocopy"),)) == ""
    with pytest.raises(Conflict, match="existing file /file"):
        await local.create(ContainerSpec(tag, mounts=(parse_bind("v2:/file"),)))


async def test_anonymous_volumes_go_with_rm_v_and_auto_remove(local: LocalEngine, image: Image) -> None:
    tag = await image(WITH_DATA)
    name = await local.create(
        ContainerSpec(tag, command=("true",), volumes=("/anon",), mounts=(parse_bind("kept:/bare"),))
    )
    mounts = (await local.container(name)).config["Mounts"]
    assert isinstance(mounts, list)
    volumes = {mount["Destination"]: mount["Name"] for mount in mounts}
    assert sorted(volumes) == ["/anon", "/bare", "/data", "/missing"]
    assert len(await local.volumes()) == 4
    with pytest.raises(Conflict, match="in use"):
        await local.remove_volume(volumes["/anon"])
    await local.remove(name)
    assert len(await local.volumes()) == 4, "a plain rm keeps them"
    _names, freed = await local.prune_volumes()
    assert [volume.name for volume in await local.volumes()] == ["kept"]
    assert freed == len("hi\n")
    name = await local.create(ContainerSpec(tag, command=("true",), auto_remove=True))
    await local.start(name)
    await local.wait(name)
    assert [volume.name for volume in await local.volumes()] == ["kept"]
    for name in ("one", "two"):
        from_ = () if name == "one" else ("one",)
        await local.create(ContainerSpec(tag, name=name, command=("true",), volumes_from=from_))
    await local.remove("one", volumes=True)
    assert len(await local.volumes()) == 4, "the other container still has them"
    await local.remove("two", volumes=True)
    assert [volume.name for volume in await local.volumes()] == ["kept"]


async def test_volumes_from_another_container(local: LocalEngine, sh: Sh, tmp_path: Path) -> None:
    await sh(
        "echo a > /v/a",
        name="first",
        mounts=(parse_bind("shared:/v"), parse_bind(f"{tmp_path}:/b"), parse_bind("lent:/r:ro")),
    )
    assert await sh("cat /v/a; touch /v/b /b/c && ls /b; touch /r/x || true", volumes_from=("first",)) == (
        "a\nc\ntouch: cannot touch '/r/x': Read-only file system\n"
    )
    assert "Read-only" in await sh("cat /v/b; touch /v/d", volumes_from=("first:ro",), code=1)
    with pytest.raises(NotFound):
        await local.create(ContainerSpec("workbench/base", volumes_from=("nobody",)))


async def test_binds(local: LocalEngine, sh: Sh, tmp_path: Path) -> None:
    made = tmp_path / "made/by/v"
    await sh("echo x > /m/f", mounts=(parse_bind(f"{made}:/m"),))
    assert (made / "f").read_text() == "x\n"
    (tmp_path / "hosts").write_text("mine\n")
    assert await sh("cat /etc/hosts", mounts=(parse_bind(f"{tmp_path}/hosts:/etc/hosts"),)) == "mine\n"
    nested = (parse_bind(f"{made}:/a/b/c"), parse_bind(f"{tmp_path}:/a/b"))
    assert (await sh("ls /a/b/c", mounts=nested)).split() == ["f"], "inner mounts are not hidden by outer ones"
    with pytest.raises(InvalidInput, match="does not exist"):
        await local.create(ContainerSpec("workbench/base", mounts=(Mount(str(tmp_path / "no"), "/x"),)))
    with pytest.raises(StartFailed, match="onto a file"):
        await sh("true", mounts=(parse_bind(f"{tmp_path}:/etc/passwd"),))
    with pytest.raises(StartFailed, match="inside /proc"):
        await sh("true", mounts=(parse_bind("vol:/proc/sys"),))


async def test_subpath_tmpfs_and_image(local: LocalEngine, sh: Sh, image: Image) -> None:
    await sh("mkdir /v/a; echo in > /v/a/f; ln -s /etc /v/out", mounts=(parse_bind("tree:/v"),))
    assert await sh("cat /s/f", mounts=(parse_mount_flag("src=tree,dst=/s,volume-subpath=a"),)) == "in\n"
    assert await sh("cat /s", mounts=(parse_mount_flag("src=tree,dst=/s,volume-subpath=a/f"),)) == "in\n"
    for outside in ("out/passwd", "no/such"):
        with pytest.raises(StartFailed, match="cannot access subpath"):
            await sh("true", mounts=(parse_mount_flag(f"src=tree,dst=/s,volume-subpath={outside}"),))
    options = await sh(
        "grep ' /t ' /proc/mounts", mounts=(parse_mount_flag("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700"),)
    )
    assert all(word in options for word in ("tmpfs", "nosuid", "nodev", "noexec", "size=1024k", "mode=700"))
    assert (await sh("stat -c %a /tmp", mounts=(parse_mount_flag("type=tmpfs,dst=/tmp"),))) == "1777\n"
    tag = await image("RUN mkdir /tree && echo one > /tree/x")
    mounts = (
        parse_mount_flag(f"type=image,src={tag},dst=/whole"),
        parse_mount_flag(f"type=image,src={tag},dst=/part,image-subpath=tree"),
        parse_mount_flag("type=image,src=workbench/base,dst=/single"),
    )
    text = await sh(
        "cat /whole/tree/x /part/x; ls /single/etc/passwd; touch /part/y || touch /single/y", mounts=mounts, code=1
    )
    assert text.startswith("one\none\n/single/etc/passwd\n")
    assert text.count("Read-only") == 2
    holder = await local.create(ContainerSpec("workbench/base", mounts=mounts[:1]))
    with pytest.raises(Conflict, match="used by"):
        await local.remove_image(tag)
    await local.remove(holder)


async def test_propagation_and_read_only_below(local: LocalEngine, sh: Sh, inside: Sh, tmp_path: Path) -> None:
    share, below = tmp_path / "share", tmp_path / "share/below"

    def mount(*words: str) -> None:
        subprocess.run(["mount", *words], check=True)

    below.mkdir(parents=True)
    mount("-t", "tmpfs", "x", str(share))
    try:
        mount("--make-private", str(share))
        with pytest.raises(StartFailed, match="not a shared mount"):
            await sh("true", mounts=(parse_bind(f"{share}:/s:rshared"),))
        with pytest.raises(StartFailed, match="not a shared or slave mount"):
            await sh("true", mounts=(parse_bind(f"{share}:/s:rslave"),))
        mount("--make-shared", str(share))
        below.mkdir()
        spec = ContainerSpec(
            "workbench/base",
            command=("sleep", "1000"),
            mounts=(parse_bind(f"{share}:/slave:rslave"), parse_bind(f"{share}:/private")),
        )
        name = await local.create(spec)
        await local.start(name)
        mount("-t", "tmpfs", "x", str(below))
        (below / "late").touch()
        assert (await inside(name, "ls /slave/below; ls /private/below")).split() == ["late"]
        await local.remove(name, force=True)
        bind = f"type=bind,src={share},dst=/s,ro"
        for options, code in (
            ("", 1),
            (",bind-recursive=writable", 0),
            (",bind-recursive=readonly,bind-propagation=rprivate", 1),
        ):
            await sh("touch /s/x 2>/dev/null; touch /s/below/x", mounts=(parse_mount_flag(bind + options),), code=code)
        assert (await sh("ls /s/below", mounts=(parse_mount_flag(f"{bind},bind-recursive=disabled"),))) == ""
        privileged = ContainerSpec(
            "workbench/base",
            privileged=True,
            command=("sh", "-c", "mkdir /s/up; mount -t tmpfs x /s/up && touch /s/up/from-inside && sleep 1000"),
            mounts=(parse_bind(f"{share}:/s:rshared"),),
        )
        if not await _has_mount(sh):
            return
        name = await local.create(privileged)
        await local.start(name)
        while not (share / "up/from-inside").exists():
            assert (await local.container(name)).summary.running
            await asyncio.sleep(0.01)
        await local.remove(name, force=True)
    finally:
        subprocess.run(["umount", "-R", "-l", str(share)], check=False)


async def _has_mount(sh: Sh) -> bool:
    """The embedded base image has what the host's PATH has, and mount(8) is not among it everywhere."""
    return "mount" in await sh("command -v mount || true")


async def test_volumes_that_are_file_systems(
    local: LocalEngine, sh: Sh, inside: Sh, tmp_path: Path, data_root: Path
) -> None:
    await local.create_volume("ram", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=77"})
    for name in ("one", "two"):
        await local.create(
            ContainerSpec("workbench/base", name=name, command=("sleep", "1000"), mounts=(parse_bind("ram:/r"),))
        )
        await local.start(name)
    await inside("one", "echo shared > /r/f")
    assert await inside("two", "cat /r/f; stat -c %u /r") == "shared\n77\n"
    await local.remove("one", force=True)
    assert await inside("two", "cat /r/f") == "shared\n"
    await local.kill("two")
    await local.wait("two")
    assert str(data_root) not in Path("/proc/self/mountinfo").read_text(), "the last container's end takes it away"
    await local.start("two")
    assert await inside("two", "ls /r") == ""
    await local.remove("two", force=True)
    (tmp_path / "host").mkdir()
    (tmp_path / "host/f").write_text("from the host\n")
    mount = parse_mount_flag(
        f"type=volume,src=bound,dst=/b,volume-label=k=v,volume-opt=type=none,volume-opt=device={tmp_path}/host,volume-opt=o=bind"
    )
    assert await sh("cat /b/f", mounts=(mount,)) == "from the host\n"
    assert dict((await local.volume("bound")).labels) == {"k": "v"}
    await local.create_volume("bad", options={"type": "none", "device": str(tmp_path / "nowhere"), "o": "bind"})
    with pytest.raises(StartFailed, match="failed to mount local volume bad"):
        await sh("true", mounts=(parse_bind("bad:/b:nocopy"),))
    for container in await local.containers(all=True):
        await local.remove(container.id, force=True)
    assert str(data_root) not in Path("/proc/self/mountinfo").read_text()


async def test_making_and_finding_volumes(local: LocalEngine) -> None:
    made = await local.create_volume("data", labels={"tier": "db"})
    assert (await local.create_volume("data")).created == made.created
    with pytest.raises(Conflict, match="other options"):
        await local.create_volume("data", options={"type": "tmpfs", "device": "x"})
    anonymous = await local.create_volume()
    assert len(anonymous.name) == 64
    await local.create(ContainerSpec("workbench/base", name="user", mounts=(parse_bind("data:/d"),)))
    find = lambda **filters: local.volumes({key: [value] for key, value in filters.items()})  # noqa: E731
    assert [v.name for v in await find(label="tier=db")] == [v.name for v in await find(name="dat")] == ["data"]
    assert [v.name for v in await find(dangling="true")] == [anonymous.name]
    assert (await local.volume("data")).used_by == ("user",)
    for bad, error in (
        ({"name": "a"}, InvalidInput),
        ({"name": "a/b"}, InvalidInput),
        ({"name": "../x"}, InvalidInput),
        ({"name": "x" * 300}, InvalidInput),
        ({"name": "vv", "driver": "nope"}, NotFound),
        ({"name": "vv", "options": {"foo": "1"}}, InvalidInput),
        ({"name": "vv", "options": {"type": "tmpfs"}}, InvalidInput),
        ({"name": "vv", "options": {"size": "1g"}}, Unsupported),
    ):
        with pytest.raises(error):
            await local.create_volume(**bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="invalid filter"):
        await find(colour="red")
    with pytest.raises(NotFound):
        await local.remove_volume("nosuch")
    await local.remove_volume("nosuch", force=True)
    assert await local.prune_volumes({"label": ["none"]}) == ([], 0)
    assert (await local.prune_volumes({"all": ["true"]}))[0] == [anonymous.name]


async def test_a_container_that_cannot_be_made_leaves_no_volume(local: LocalEngine) -> None:
    await local.create(ContainerSpec("workbench/base", name="taken"))
    with pytest.raises(Conflict):
        await local.create(ContainerSpec("workbench/base", name="taken", volumes=("/a", "/b")))
    with pytest.raises(EngineError):
        await local.create(ContainerSpec("workbench/base", volumes=("/a",), mounts=(parse_bind("v1:/etc/passwd"),)))
    assert await local.volumes() == []


async def test_many_at_once_fill_a_volume_once(data_root: Path, local: LocalEngine, image: Image, sh: Sh) -> None:
    tag = await image(WITH_DATA)
    engines = [await open_engine(data_root) for _ in range(4)]
    spec = ContainerSpec(tag, mounts=(parse_bind("busy:/data"),))
    await asyncio.gather(*(engine.create(spec) for engine in engines for _ in range(3)))
    for engine in engines:
        await engine.close()
    assert (await sh("ls /data | wc -l", tag, mounts=(parse_bind("busy:/data"),))).strip() == "4"


def test_no_other_user_gets_to_a_layer_or_a_volume(tmp_path: Path) -> None:
    """CP-07: set-user-ID programs of images and volumes are out of reach for the host's users, whatever the umask."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    root = tmp_path / "root"
    code = (
        "import os, asyncio, sys; os.umask(0)\n"
        "from pathlib import Path\n"
        "from engine.local import open_engine\n"
        "async def main():\n"
        "    engine = await open_engine(Path(sys.argv[1]))\n"
        "    await engine.ensure_base(); await engine.create_volume('vol')\n"
        "asyncio.run(main())"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code, str(root)], check=True, env=env)
    (root / "volumes/vol/_data/f").write_text("private")
    (layer,) = (path for path in (root / "layers").iterdir())
    targets = [layer, layer / "diff/etc/passwd", root / "volumes/vol/_data/f", root / "oci/index.json", root / "tmp"]
    probe = "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); print([p for p in sys.argv[1:] if os.access(p, os.R_OK)])"
    done = subprocess.run([sys.executable, "-c", probe, *map(str, targets)], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
