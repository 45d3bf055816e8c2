"""Layers: what goes out comes back, and nothing leaves its root."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.archive.compression import decompress
from engine.archive.diff import write_upper
from engine.archive.reader import Limits, apply_layer
from engine.archive.tarstream import TarStream
from engine.archive.writer import LayerWriter, TarEntry
from engine.errors import Corrupt, EngineError, HostileArchive

pytestmark = pytest.mark.root


def make(*entries: tuple[TarEntry, bytes]) -> bytes:
    out = io.BytesIO()
    writer = LayerWriter(out)
    for entry, body in entries:
        writer.add(entry, io.BytesIO(body))
    writer.finish()
    return out.getvalue()


def entry(path: str, kind: str = "file", body: bytes = b"", **more: object) -> tuple[TarEntry, bytes]:
    mode = {"dir": 0o755, "symlink": 0o777}.get(kind, 0o644)
    return TarEntry(path, kind, mode, size=len(body), **more), body  # type: ignore[arg-type]


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the destination that no test may change."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched")
    before = {path: (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in [outside, outside / "file"]}
    yield outside
    assert {path: (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in before} == before
    assert sorted(os.listdir(outside)) == ["file"]
    assert (outside / "file").read_text() == "untouched"


HOSTILE = {
    "parent": [entry("../outside/new")],
    "deep parent": [entry("a/../../outside/new")],
    "through absolute link": [entry("l", "symlink", link="{outside}"), entry("l/new")],
    "through relative link": [entry("l", "symlink", link="../outside"), entry("l/new")],
    "over link to file": [entry("l", "symlink", link="{outside}/file"), entry("l", body=b"changed")],
    "hard link out": [entry("h", "hardlink", link="../outside/file"), entry("h", body=b"changed")],
    "hard link through link": [
        entry("l", "symlink", link="{outside}"),
        entry("h", "hardlink", link="l/file"),
        entry("h", body=b"changed"),
    ],
    "whiteout of parent": [entry(".wh...")],
    "whiteout through link": [entry("l", "symlink", link="{outside}"), entry("l/.wh.file")],
    "opaque through link": [entry("l", "symlink", link="{outside}"), entry("l/.wh..wh..opq")],
    "root as link": [entry(".", "symlink", link="{outside}")],
    "forged whiteout": [entry("w", "char", dev=(0, 0))],
    "directory over link": [entry("l", "symlink", link="{outside}"), entry("l", "dir"), entry("l/new")],
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("overlay", [True, False])
def test_hostile_layer_stays_inside(tmp_path: Path, canary: Path, name: str, overlay: bool) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    entries = [
        (TarEntry(e.path, e.kind, e.mode, size=e.size, link=e.link.replace("{outside}", str(canary)), dev=e.dev), body)
        for e, body in HOSTILE[name]
    ]
    # Contained or refused, as the case allows: what counts is the canary, and that no other exception comes out.
    with contextlib.suppress(EngineError):
        apply_layer(io.BytesIO(make(*entries)), dest, overlay=overlay)
    assert dest.is_dir()
    assert not dest.is_symlink()


def test_layer_round_trip(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / ("n" * 140)).write_bytes(b"long name")
    (tree / "äöü").write_text("wide")
    (tree / "suid").write_bytes(b"x" * 5000)
    os.chown(tree / "suid", 1000, 2000)
    os.chmod(tree / "suid", 0o4755)
    os.setxattr(tree / "suid", "user.note", b"\0\xff")
    os.link(tree / "suid", tree / "zlink")
    os.symlink("/nowhere", tree / "link")
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "gone", 0o020000, 0)
    os.setxattr(tree / "d", "trusted.overlay.opaque", b"y")

    def pack(root: Path) -> tuple[bytes, str]:
        out = io.BytesIO()
        writer = LayerWriter(out)
        write_upper(root, writer)
        return out.getvalue(), writer.finish().diff_id

    data, _ = pack(tree)
    first = io.BytesIO()
    writer = LayerWriter(first)
    write_upper(tree, writer)
    written = writer.finish()
    with tarfile.open(fileobj=io.BytesIO(first.getvalue())) as tar:
        names = tar.getnames()
    assert {".wh.gone", "d/.wh..wh..opq", "äöü"} <= set(names)
    dest = tmp_path / "dest"
    dest.mkdir()
    applied = apply_layer(io.BytesIO(first.getvalue()), dest)
    assert applied.diff_id == written.diff_id
    assert pack(dest)[0] == data
    status = (dest / "suid").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_nlink) == (0o4755, 1000, 2000, 2)
    assert os.getxattr(dest / "suid", "user.note") == b"\0\xff"


def test_component_too_long_for_linux_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("x" * 300)
        info.size, info.uid = 3, 2**31 - 5
        tar.addfile(info, io.BytesIO(b"abc"))
    dest = tmp_path / "d"
    dest.mkdir()
    with pytest.raises(HostileArchive, match="255"):
        apply_layer(io.BytesIO(out.getvalue()), dest)


@pytest.mark.parametrize("cut", range(1, 2048, 300))
def test_cut_off_layer_is_an_error(tmp_path: Path, cut: int) -> None:
    data = make(entry("a", body=b"x" * 700), entry("b", "dir"))
    packed = gzip.compress(data)
    dest = tmp_path / "d"
    dest.mkdir()
    with pytest.raises(Corrupt):
        apply_layer(decompress(io.BytesIO(packed[: -max(9, cut % len(packed))]), "gzip"), dest)


def test_limits_hold(tmp_path: Path) -> None:
    data = make(*(entry(f"f{n}") for n in range(20)))
    with pytest.raises(HostileArchive, match="entries"):
        apply_layer(io.BytesIO(data), tmp_path, limits=Limits(entries=10))
    with pytest.raises(HostileArchive, match="deep"):
        apply_layer(io.BytesIO(make(entry("/".join("d" * 600)))), tmp_path)


def test_kind_that_lies_is_refused() -> None:
    with pytest.raises(Corrupt):
        decompress(io.BytesIO(gzip.compress(b"x")), "zstd").read()
    with pytest.raises(Corrupt):
        decompress(io.BytesIO(gzip.compress(b"x") + b"trailing garbage"), "gzip").read()
    assert decompress(io.BytesIO(gzip.compress(b"a") + gzip.compress(b"b")), "gzip").read() == b"ab"


def tree_of(root: Path) -> dict[str, str]:
    """Paths with their content, or the target of a link."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found[name] = f"-> {os.readlink(path)}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
    return found


def test_a_link_to_nothing_gets_the_folder_that_it_names(tmp_path: Path) -> None:
    """`/var/run -> /run` in a layer whose `/run` is in another layer: what stands below goes to `/run`."""
    layer = make(entry("var/run", "symlink", link="/run/../srv"), entry("var/run/a/pid", body=b"1"))
    apply_layer(io.BytesIO(layer), tmp_path)
    assert tree_of(tmp_path) == {"srv": "/", "srv/a": "/", "srv/a/pid": "1", "var": "/", "var/run": "-> /run/../srv"}


def test_a_hard_link_reaches_through_links_and_stays_inside(tmp_path: Path) -> None:
    link, body = entry("other", "hardlink", link="../../up/etc/passwd")
    layer = make(
        entry("etc/passwd", body=b"inside"),
        entry("up", "symlink", link="missing/../../.."),
        (TarEntry(link.path, "hardlink", 0o600, link=link.link), body),
    )
    apply_layer(io.BytesIO(layer), tmp_path)
    assert os.path.samefile(tmp_path / "other", tmp_path / "etc/passwd")
    assert (tmp_path / "etc/passwd").stat().st_mode & 0o777 == 0o600, "the mode of the last entry of the file counts"


def test_a_hard_link_to_a_link_leaves_what_it_points_at_alone(tmp_path: Path) -> None:
    layer = make(entry("f", body=b"x"), entry("l", "symlink", link="f"), entry("h", "hardlink", link="l"))
    apply_layer(io.BytesIO(layer), tmp_path)
    assert tree_of(tmp_path)["h"] == "-> f"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644


def test_links_in_a_ring_are_refused(tmp_path: Path) -> None:
    layer = make(entry("a", "symlink", link="b"), entry("b", "symlink", link="a"), entry("a/c"))
    with pytest.raises(EngineError, match="symbolic links"):
        apply_layer(io.BytesIO(layer), tmp_path)


def test_the_padding_of_the_last_file_may_be_missing() -> None:
    """As the docker command line sends contexts with `build -f -`; a file that is itself cut off stays an error."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        info = tarfile.TarInfo("f")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    stream = TarStream(io.BytesIO(whole.getvalue()[: 512 + 5]))
    assert [member.name for member in stream.members()] == ["f"]
    with pytest.raises(Corrupt):
        list(TarStream(io.BytesIO(whole.getvalue()[: 512 + 4])).members())
