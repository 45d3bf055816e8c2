"""Files in and out of containers: Docker's rules, every kind of file, and what a hostile container cannot do (CP-01 to CP-06)."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.api import ContainerSpec, PathStat
from engine.cli.copy_paths import End, local_source, local_target, prepare, preserve, split, split_argument
from engine.errors import Conflict, HostileArchive, InvalidInput, NotFound
from engine.local import LocalEngine
from engine.service.files import clean
from engine.service.mount_specs import parse_bind

from .conftest import Image, Sh

root_only = pytest.mark.root
ROUNDS = 150  # of each race


# --- rules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", ("/a", "b")),
        ("/a/b/", ("/a", "b")),
        ("/a/b/.", ("/a/b", ".")),
        ("/a/b/./", ("/a/b", ".")),
        ("/", ("/", "/")),
        ("/.", ("/", ".")),
        ("/a/../b", ("/", "b")),
        ("a", (".", "a")),
    ],
)
def test_a_path_has_a_folder_and_a_name(path: str, expected: tuple[str, str]) -> None:
    assert split(path) == expected


def test_trailing_slashes_and_dots_are_kept() -> None:
    assert preserve("/x/a", "a/") == "/x/a/"
    assert preserve("/x/a", "./a/.") == "/x/a/."
    assert [clean(p) for p in ("a/../b", "/a/", "a/.", "/", "../../x", "//a//b")] == [
        "/b",
        "/a/",
        "/a/.",
        "/",
        "/x",
        "/a/b",
    ]


@pytest.mark.parametrize(
    ("source", "target", "folder", "name"),
    [
        (End("/s/f"), End("/d", True, True), "/d", "f"),
        (End("/s/f"), End("/d/g", True, False), "/d", "g"),
        (End("/s/f"), End("/d/new", False), "/d", "new"),
        (End("/s/dir", True, True), End("/d", True, True), "/d", "dir"),
        (End("/s/dir", True, True), End("/d/new", False), "/d", "new"),
        (End("/s/dir", True, True), End("/d/new/", False), "/d", "new"),
        (End("/s/dir/.", True, True), End("/d", True, True), "/d", "."),
        (End("/s/dir/.", True, True), End("/d/new", False), "/d", "new"),
        (End("/s/real", True, False, "link"), End("/d/new", False), "/d", "new"),
    ],
)
def test_where_a_copy_goes(source: End, target: End, folder: str, name: str) -> None:
    found, rename = prepare(source, target)
    assert (found, rename(source.rebase or split(source.path)[1])) == (folder, name)


def test_copies_that_make_no_sense() -> None:
    with pytest.raises(InvalidInput, match="cannot copy directory"):
        prepare(End("/s", True, True), End("/f", True, False))
    with pytest.raises(InvalidInput, match="no such directory"):
        prepare(End("/s"), End("/new/", False))


def test_ends_on_this_host(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "dangling").symlink_to("d/new")
    (tmp_path / "loop").symlink_to("loop")
    base = str(tmp_path)
    assert local_source(f"{base}/link", follow=False) == End(f"{base}/link", True, False)
    assert local_source(f"{base}/link/", follow=False) == End(f"{base}/d/", True, True, "link")
    assert local_source(f"{base}/link", follow=True) == End(f"{base}/d", True, True, "link")
    assert local_source(f"{base}/link/.", follow=False) == End(f"{base}/d/.", True, True)
    with pytest.raises(FileNotFoundError):
        local_source(f"{base}/none", follow=False)
    assert local_target(f"{base}/link") == End(f"{base}/d", True, True)
    assert local_target(f"{base}/dangling") == End(f"{base}/d/new", False)
    with pytest.raises(InvalidInput, match="does not exist"):
        local_target(f"{base}/none/x")
    with pytest.raises(InvalidInput, match="too many symlinks"):
        local_target(f"{base}/loop")
    assert [split_argument(t) for t in ("c:/x", "c:x", "./c:x", "/c:x", "x", "-")] == [
        ("c", "/x"),
        ("c", "x"),
        ("", "./c:x"),
        ("", "/c:x"),
        ("", "x"),
        ("", "-"),
    ]


# --- real containers ----------------------------------------------------------------------------------


def tar_of(*members: tuple[str, bytes | None, dict[str, object]]) -> io.BytesIO:
    """A tar: a name with bytes is a file, with None whatever `type` says."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(data or b"")
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data or b""))
    out.seek(0)
    return out


async def read_tar(engine: LocalEngine, name: str, path: str) -> dict[str, tarfile.TarInfo]:
    out = io.BytesIO()
    await engine.get_archive(name, path, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        return {member.name: member for member in tar.getmembers()}


async def content(engine: LocalEngine, name: str, path: str) -> bytes:
    out = io.BytesIO()
    await engine.get_archive(name, path, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        member = tar.getmembers()[0]
        file = tar.extractfile(member) if member.isfile() else None
        return file.read() if file else b""


@pytest.fixture
async def box(local: LocalEngine, tmp_path: Path) -> str:
    """A running container with a volume, a bind and a read-only bind."""
    host = tmp_path / "host"
    host.mkdir()
    mounts = (parse_bind("vol:/vol"), parse_bind(f"{host}:/host"), parse_bind(f"{host}:/fixed:ro"))
    name = await local.create(ContainerSpec("workbench/base", name="box", command=("sleep", "1000"), mounts=mounts))
    await local.start(name)
    return name


@root_only
@pytest.mark.parametrize("running", [True, False])
async def test_both_ways(local: LocalEngine, box: str, inside: Sh, tmp_path: Path, running: bool) -> None:
    if not running:
        await local.kill(box)
        await local.wait(box)
    members = (
        ("./", None, {"type": tarfile.DIRTYPE, "mode": 0o700}),
        ("d/", None, {"type": tarfile.DIRTYPE, "mode": 0o2750, "uid": 12, "gid": 34, "mtime": 1000}),
        ("d/f", b"content", {"mode": 0o4711, "uid": 1234, "gid": 777, "mtime": 2000}),
        ("d/g", None, {"type": tarfile.LNKTYPE, "linkname": "d/f"}),
        ("d/l", None, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("d/p", None, {"type": tarfile.FIFOTYPE, "mode": 0o640}),
        ("d/null", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}),
        (".wh.not-a-whiteout", b"x", {}),
    )
    for place in ("/opt/new", "/vol", "/host"):
        if place == "/opt/new":
            with pytest.raises(NotFound, match="Could not find the file /opt/new in container"):
                await local.put_archive(box, place, tar_of(*members))
            await local.put_archive(box, "/", tar_of(("opt/new", None, {"type": tarfile.DIRTYPE, "mode": 0o755})))
        await local.put_archive(box, place, tar_of(*members))
        found = await read_tar(local, box, f"{place}/d")
        assert sorted(found) == ["d", "d/f", "d/g", "d/l", "d/null", "d/p"]
        entry = found["d/f"]
        assert (entry.mode, entry.uid, entry.gid, entry.mtime, entry.size) == (0o4711, 1234, 777, 2000, 7)
        assert (found["d"].mode, found["d"].mtime) == (0o2750, 1000)
        assert (found["d/g"].type, found["d/g"].linkname) == (tarfile.LNKTYPE, "d/f")
        assert found["d/l"].linkname == "/etc/passwd"
        assert (found["d/null"].devmajor, found["d/null"].devminor) == (1, 3)
        assert await content(local, box, f"{place}/.wh.not-a-whiteout") == b"x"
    assert (tmp_path / "host/d/f").read_bytes() == b"content", "a bind is written through"
    assert oct((tmp_path / "host").stat().st_mode & 0o777) == "0o755", "./ does not change the folder itself"
    if not running:
        await local.start(box)
    assert await inside(box, "cat /vol/d/f /opt/new/d/f; stat -c '%a %u' /opt/new/d/f") == "contentcontent4711 1234\n"


@root_only
async def test_stat_and_names(local: LocalEngine, box: str, inside: Sh) -> None:
    await inside(
        box, "mkdir -p /a/b; echo hi > /a/b/f; ln -s ../a/b /a/l; ln -s /nowhere/x /a/broken; chmod 600 /a/b/f"
    )
    stat = await local.stat_path(box, "/a/b/f")
    assert (stat.name, stat.size, oct(stat.mode), stat.link_target) == ("f", 3, "0o100600", "")
    link = await local.stat_path(box, "a/l")
    assert (link.name, link.link_target) == ("l", "/a/b")
    assert (await local.stat_path(box, "/a/l/")).link_target == ""
    assert (await local.stat_path(box, "/a/broken")).link_target == "/nowhere/x"
    assert (await local.stat_path(box, "/a/l/f")).size == 3
    assert (await local.stat_path(box, "/")).name == "/"
    assert sorted(await read_tar(local, box, "/a/b/")) == ["b", "b/f"]
    assert sorted(await read_tar(local, box, "/a/b/.")) == [".", "./f"]
    assert sorted(await read_tar(local, box, "/a/l")) == ["l"]
    assert sorted(await read_tar(local, box, "/a/l/")) == ["l", "l/f"]
    heard: list[PathStat] = []
    await local.get_archive(box, "/a/b/f", io.BytesIO(), started=heard.append)
    assert heard == [stat]
    for missing in ("/nope", "/a/b/f/x", "/proc/version", "/sys/kernel", "/dev/pts/0"):
        with pytest.raises(NotFound):
            await local.stat_path(box, missing)


@root_only
async def test_what_is_there_decides(local: LocalEngine, box: str, inside: Sh, sh: Sh) -> None:
    await inside(box, "mkdir /t /t/dir; echo old > /t/file; ln -s /t/dir /t/link; echo keep > /t/dir/kept")
    directory, file = ("dir", None, {"type": tarfile.DIRTYPE}), ("dir", b"new", {})
    with pytest.raises(InvalidInput, match="cannot overwrite directory"):
        await local.put_archive(box, "/t", tar_of(file), no_overwrite_dir_non_dir=True)
    with pytest.raises(InvalidInput, match="cannot overwrite non-directory"):
        await local.put_archive(
            box, "/t", tar_of(("file", None, {"type": tarfile.DIRTYPE})), no_overwrite_dir_non_dir=True
        )
    await local.put_archive(box, "/t", tar_of(directory, ("dir/added", b"1", {})), no_overwrite_dir_non_dir=True)
    assert (await inside(box, "ls /t/dir")).split() == ["added", "kept"]
    await local.put_archive(box, "/t/link", tar_of(("through", b"2", {})))
    assert (await inside(box, "cat /t/dir/through")) == "2"
    await local.put_archive(box, "/t", tar_of(file))
    assert await inside(box, "cat /t/dir") == "new"
    with pytest.raises(InvalidInput, match="extraction point is not a directory"):
        await local.put_archive(box, "/t/file", tar_of(file))
    with pytest.raises(InvalidInput, match="mounted volume is marked read-only"):
        await local.put_archive(box, "/fixed", tar_of(file))
    reader = await local.create(
        ContainerSpec(
            "workbench/base", read_only=True, user="1:2", command=("sleep", "100"), mounts=(parse_bind("v2:/v"),)
        )
    )
    for _ in range(2):  # stopped, then running
        with pytest.raises(InvalidInput, match="container rootfs is marked read-only"):
            await local.put_archive(reader, "/tmp", tar_of(file))
        await local.put_archive(reader, "/v", tar_of(file), copy_uid_gid=True)
        await local.start(reader)
    found = (await read_tar(local, reader, "/v/dir"))["dir"]
    assert (found.uid, found.gid) == (1, 2)


@root_only
async def test_the_command_line(local: LocalEngine, box: str, data_root: Path, tmp_path: Path) -> None:
    def cp(*args: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "engine.cli.main", *args]
        env = {**os.environ, "WORKBENCH_ROOT": str(data_root), "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.run(command, input=data, capture_output=True, check=False, cwd=tmp_path, env=env)

    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/f").write_bytes(os.urandom(3 << 20))
    os.chown(tree / "sub/f", 1234, 777)
    (tree / "l").symlink_to("sub/f")
    steps = [
        (("cp", "tree", "box:/one"), ""),
        (("cp", "tree/.", "box:/vol"), ""),
        (("cp", "-L", "tree/l", "box:/followed"), ""),
        (("cp", "tree/sub/f", "box:/vol/sub/f"), ""),
        (("cp", "box:/one", "back"), ""),
        (("cp", "-a", "box:/vol/sub/f", "kept"), ""),
        (("cp", "box:/vol/.", "back"), ""),
        (("cp", "box:/nope", "x"), "Could not find the file /nope in container box"),
        (("cp", "nobody:/x", "x"), "No such container"),
        (("cp", "tree", "box:/followed"), "cannot copy directory"),
        (("cp", "none", "box:/"), "No such file"),
        (("cp", "tree/l", "box:/new/"), "no such directory"),
        (("cp", "box:/one", "nowhere/at/all"), "does not exist"),
        (("cp", "box:/one", "box:/two"), "between containers"),
        (("cp", "tree", "other"), "at least one container"),
        (("cp", "-", "box:/followed"), "must be a directory"),
    ]
    for args, error in steps:
        done = cp(*args)
        assert (done.returncode == 0) == (not error), (args, done.stderr)
        assert error in done.stderr.decode()
        assert b"Traceback" not in done.stderr
    original = (tree / "sub/f").read_bytes()
    assert (tmp_path / "back/sub/f").read_bytes() == (tmp_path / "kept").read_bytes() == original
    assert await content(local, box, "/followed") == original
    assert ((tmp_path / "back/sub/f").stat().st_uid, (tmp_path / "kept").stat().st_uid) == (0, 1234)
    assert os.readlink(tmp_path / "back/l") == "sub/f"
    archive = cp("cp", "box:/one", "-").stdout
    assert cp("cp", "-", "box:/tmp", data=gzip.compress(archive)).returncode == 0
    assert await content(local, box, "/tmp/one/sub/f") == original
    assert cp("export", "-o", "all.tar", "box").returncode == 0
    with tarfile.open(tmp_path / "all.tar") as tar:
        names = set(tar.getnames())
    assert {"one/sub/f", "etc/passwd", "vol", "host"} <= names
    assert not any(name.startswith(("vol/", "host/", "proc/")) for name in names)
    assert cp("export", "nobody").returncode == 1


@root_only
async def test_a_start_waits_for_a_copy(local: LocalEngine, box: str) -> None:
    """A stopped container's files are not mounted twice: it starts when the copy is done."""
    await local.kill(box)
    await local.wait(box)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source:
        copy = asyncio.create_task(local.put_archive(box, "/tmp", source))
        data = tar_of(("slow", b"x" * 100_000, {})).read()
        os.write(writing, data[:50_000])
        while "slow" not in str(list((local._store.containers / box / "upper/tmp").glob("*"))):
            await asyncio.sleep(0.01)
        start = asyncio.create_task(local.start(box))
        await asyncio.sleep(0.1)
        assert not start.done()
        os.write(writing, data[50_000:])
        os.close(writing)
        await copy
        await start
    assert len(await content(local, box, "/tmp/slow")) == 100_000


# --- hostile containers -------------------------------------------------------------------------------


@pytest.fixture
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of the host that no copy may read, change or add to."""
    folder = tmp_path_factory.mktemp("canary")
    (folder / "secret").write_text("host secret")
    (folder / "sub").mkdir(mode=0o751)

    def state() -> list[object]:
        found: list[object] = []
        for path in sorted(folder.rglob("*")):
            status = path.lstat()
            found.append(
                (str(path), status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            )
        return found

    before = state()
    yield folder
    assert state() == before


RACER = """
import ctypes, os, sys
one, two = (os.fsencode(a) for a in sys.argv[1:3])
exchange = ctypes.CDLL(None).renameat2
print("racing", flush=True)
while True:
    exchange(-100, one, -100, two, 2)
"""


async def racing(
    local: LocalEngine, mounts: tuple[str, ...], prepare: str, one: str, two: str, name: str = "racer"
) -> str:
    script = f"{prepare}; exec python3 -c '{RACER}' {one} {two}"
    spec = ContainerSpec(
        "workbench/base", name=name, command=("sh", "-c", script), mounts=tuple(map(parse_bind, mounts))
    )
    box = await local.create(spec)
    stream = await local.start_attached(box)
    while chunk := await stream.read():
        if b"racing" in chunk[1]:
            break
    await stream.close()
    return box


@root_only
async def test_cp_01_a_directory_exchanged_for_a_link(local: LocalEngine, canary: Path) -> None:
    """CVE-2018-15664: the path is resolved in the container and then used on the host."""
    prepare = f"mkdir -p /w/dir{canary}; echo inside > /w/dir/secret; ln -s {canary} /w/link; mkdir -p {canary.parent}"
    box = await racing(local, (), prepare, "/w/dir", "/w/link")
    seen = set()
    for number in range(ROUNDS):
        try:
            seen.add(await content(local, box, "/w/dir/secret"))
            await local.put_archive(
                box, "/w/dir", tar_of((f"new{number}", b"x", {"mode": 0o777}), ("secret", b"over", {}))
            )
        except (NotFound, InvalidInput, Conflict):
            pass
    assert b"host secret" not in seen
    assert seen


@root_only
async def test_cp_02_and_03_nothing_of_the_image_is_run(local: LocalEngine, image: Image, canary: Path) -> None:
    """CVE-2019-14271, CVE-2026-41567: no library, module or program of the container is loaded on the host."""
    marker = canary / "ran"
    trap = f"#!/bin/sh\\ntouch {marker}\\n"
    code = f"open({str(marker)!r}, 'w')"
    modules = " ".join(
        f"{folder}/{name}.py" for folder in sys.path if folder for name in ("pwd", "encodings/idna", "tarfile")
    )
    programs = " ".join(f"/usr/bin/{name}" for name in ("xz", "unxz", "unpigz", "pigz", "gzip", "zstd", "bzip2", "git"))
    tag = await image(
        f'RUN for f in {modules}; do mkdir -p $(dirname $f) && echo "{code}" > $f; done; '
        f"for p in {programs}; do rm -f $p; printf '{trap}' > $p; chmod 755 $p; done; "
        f"mkdir -p /lib {canary}; printf x > /lib/libnss_files.so.2; printf x > /etc/nsswitch.conf"
    )
    box = await local.create(ContainerSpec(tag, command=("sleep", "100")))
    plain = tar_of(("f", b"data", {"uname": "nobody", "gname": "nogroup"})).read()
    packed = [plain, gzip.compress(plain), bz2.compress(plain), lzma.compress(plain)]
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        from backports import zstd
    packed.append(zstd.compress(plain))
    for running in (False, True):
        if running:
            await local.start(box)
        for data in packed:
            await local.put_archive(box, "/tmp", io.BytesIO(data))
            assert await content(local, box, "/tmp/f") == b"data"
        await local.export(box, io.BytesIO())
        for garbage in (
            b"\x04\x22\x4d\x18" + b"lz4 data" * 100,
            b"no archive" * 100,
            b"short",
            b"",
            gzip.compress(b"x" * 600),
            packed[1][:50],
        ):
            with pytest.raises(InvalidInput) as caught:
                await local.put_archive(box, "/tmp", io.BytesIO(garbage))
            assert caught.value.status == 400
        with pytest.raises(NotFound):  # nor with the container's root as its own
            await local.stat_path(box, str(marker))
    assert not marker.exists()


@root_only
async def test_cp_04_a_volume_whose_place_is_exchanged(
    local: LocalEngine, canary: Path, inside: Sh, tmp_path: Path
) -> None:
    """CVE-2026-41568: mount points made or mounted upon on the host; and absolute links must go on working."""
    prepare = f"mkdir -p /w/v /w/x; ln -s {canary} /w/link"
    box = await racing(local, ("vol:/w/v/deep", f"{tmp_path}:/w/x/bind"), prepare, "/w/x", "/w/link")
    await inside(box, "echo in > /w/v/deep/f")
    for _ in range(ROUNDS // 3):
        assert await content(local, box, "/w/v/deep/f") == b"in\n"
        try:
            await local.put_archive(box, "/w/x/bind", tar_of(("f", b"x", {})))
        except (NotFound, Conflict):
            pass
    await local.remove(box, force=True)
    (tmp_path / "sock").write_text("socket")
    spec = ContainerSpec(
        "workbench/base",
        command=("sh", "-c", "rm -rf /var/run; ln -s /run /var/run; sleep 100"),
        mounts=(parse_bind(f"{tmp_path}/sock:/var/run/x.sock"),),
    )
    box = await local.create(spec)
    assert await content(local, box, "/var/run/x.sock") == b"socket"
    await local.start(box)
    assert await content(local, box, "/var/run/x.sock") == b"socket"


@root_only
async def test_cp_05_modes_of_the_host_stay(
    local: LocalEngine, box: str, canary: Path, inside: Sh, tmp_path: Path
) -> None:
    """CVE-2021-41089: entries for directories that are links, and names that climb."""
    await inside(box, f"mkdir -p {canary}; ln -s {canary} /vol/abs; ln -s ../../../../../../..{canary} /vol/rel")
    for name in ("abs", "rel"):
        members = (
            (name, None, {"type": tarfile.DIRTYPE, "mode": 0o777}),
            (f"{name}/sub", None, {"type": tarfile.DIRTYPE, "mode": 0o777}),
        )
        await local.put_archive(box, "/vol", tar_of(*members))
        await inside(box, f"ln -sfn {canary} /vol/{name}2")
        await local.put_archive(box, "/vol", tar_of((f"{name}2/sub/f", b"x", {"mode": 0o4777})))
    for climbing in ("../x", "a/../../x", "/../../x"):
        with pytest.raises(HostileArchive):
            await local.put_archive(box, "/vol", tar_of((climbing, b"x", {})))
    with pytest.raises(InvalidInput):
        await local.put_archive(
            box, "/vol", tar_of(("h", None, {"type": tarfile.LNKTYPE, "linkname": f"{canary}/secret"}))
        )
    assert await inside(box, f"cat {canary}/sub/f") == "x", "it went where the link leads inside the container"
    stopped = asyncio.Event()

    def swap() -> None:
        link, real = tmp_path / "host/swap", tmp_path / "host/real"
        while not stopped.is_set():
            link.unlink(missing_ok=True)
            link.symlink_to(canary / "secret")
            os.replace(link, real)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(ROUNDS):
            try:
                await local.put_archive(box, "/host", tar_of(("real", b"x", {"mode": 0o777, "uid": 7})))
            except (InvalidInput, Conflict, NotFound):
                pass
    finally:
        stopped.set()
        thread.join()


@root_only
async def test_cp_06_links_are_the_containers_own(
    local: LocalEngine, box: str, canary: Path, inside: Sh, data_root: Path, tmp_path: Path
) -> None:
    """CVE-2019-10152, CVE-2023-0778: a link in a container or volume that leads to a file of the host."""
    await inside(
        box, f"mkdir -p {canary}; echo inside > {canary}/secret; ln -s {canary}/secret /vol/l; ln -s {canary} /vol/d"
    )
    assert await content(local, box, "/vol/d/secret") == b"inside\n"
    assert (await read_tar(local, box, "/vol"))["vol/l"].linkname == f"{canary}/secret"
    command = [sys.executable, "-m", "engine.cli.main", "cp", "-L", "box:/vol/l", "out"]
    env = {**os.environ, "WORKBENCH_ROOT": str(data_root), "PYTHONPATH": str(Path(__file__).parents[2])}
    await asyncio.to_thread(subprocess.run, command, check=True, cwd=tmp_path, env=env)
    assert (tmp_path / "out").read_text() == "inside\n"
    out = io.BytesIO()
    await local.export(box, out)
    assert b"host secret" not in out.getvalue()
    racer = await racing(
        local,
        ("vol:/vol",),
        f"echo mine > /vol/file; ln -s {canary}/secret /vol/host",
        "/vol/file",
        "/vol/host",
        "other",
    )
    for _ in range(ROUNDS):
        for where in (box, racer):
            found = await content(local, where, "/vol/file")
            assert found in (b"mine\n", b""), found


@root_only
async def test_an_archive_cannot_leave_the_folder_it_is_copied_to(tmp_path: Path, canary: Path) -> None:
    """`cp` out of a container: what comes is a hostile archive for this host."""
    from engine.archive.extract import Rules, extract

    target = tmp_path / "target"
    target.mkdir()
    fd = os.open(target, os.O_RDONLY)
    rules = Rules(links=False, owner="none", keep_kinds=True)
    try:
        archive = tar_of(("l", None, {"type": tarfile.SYMTYPE, "linkname": str(canary)}), ("l/evil", b"x", {}))
        with pytest.raises((HostileArchive, InvalidInput)):
            extract(archive, fd, rules)
        with pytest.raises(InvalidInput):
            extract(tar_of(("l", None, {"type": tarfile.DIRTYPE})), fd, rules)
        link = ("h", None, {"type": tarfile.LNKTYPE, "linkname": "l/secret"})
        with pytest.raises((HostileArchive, InvalidInput, OSError)):
            extract(tar_of(link), fd, rules)
    finally:
        os.close(fd)
    assert [path.name for path in target.iterdir()] == ["l"]
