"""Archives that no honest program writes, header by header: each is contained or refused with an error of the engine's own, and soon.

The groups are those of published escapes: Docker's, containerd's and umoci's, and of Python's own tarfile (CVE-2007-4559, -2024-6232,
-2025-4330, -2025-8194): the root's own entry, names, order, types, numbers, attributes, bombs, and types that lie.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.archive.compression import decompress
from engine.archive.reader import Limits, apply_layer
from engine.errors import Corrupt, EngineError, HostileArchive, StorageFull
from tests.patience import PATIENCE

pytestmark = pytest.mark.root
BLOCK = 512
HUGE = 1 << 60


def octal(value: int, width: int) -> bytes:
    """A number of a header; base 256 where octal digits are too few (GNU tar)."""
    if 0 <= value < 8 ** (width - 1):
        return f"{value:0{width - 1}o}\0".encode()
    return (value & ((1 << (8 * width - 1)) - 1) | (1 << (8 * width - 1))).to_bytes(width, "big")


def raw(
    name: bytes, kind: bytes = b"0", body: bytes = b"", *, size: int | None = None, link: bytes = b"", mode: int = 0o644,
    uid: int = 0, gid: int = 0, mtime: int = 0, major: int = 0, minor: int = 0, prefix: bytes = b"",
) -> bytes:  # fmt: skip
    """One member as POSIX's ustar lays it out, with a checksum that is right."""
    head = bytearray(BLOCK)
    fields = (
        (0, name[:100]),
        (100, octal(mode, 8)),
        (108, octal(uid, 8)),
        (116, octal(gid, 8)),
        (124, octal(len(body) if size is None else size, 12)),
        (136, octal(mtime, 12)),
        (148, b" " * 8),
        (156, kind),
        (157, link[:100]),
        (257, b"ustar\x0000"),
        (329, octal(major, 8)),
        (337, octal(minor, 8)),
        (345, prefix[:155]),
    )
    for at, data in fields:
        head[at : at + len(data)] = data
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    return bytes(head) + body + b"\0" * (-len(body) % BLOCK)


def pax(**records: str | bytes) -> bytes:
    body = b""
    for key, value in records.items():
        data = (
            b" "
            + key.replace("__", ".").encode()
            + b"="
            + (value if isinstance(value, bytes) else value.encode())
            + b"\n"
        )
        length = len(data)
        while length != len(str(length + 0)) + len(data):
            length = len(str(length)) + len(data)
        body += str(length).encode() + data
    return raw(b"pax", b"x", body)


END = b"\0" * 1024
CASES: dict[str, bytes] = {
    # the root's own entry (CVE-2021-29136)
    "root is a link": raw(b".", b"2", link=b"../outside"),
    "root is a file": raw(b"./", b"0", b"x"),
    "root is a fifo": raw(b".", b"6"),
    "no name": raw(b"", b"0", b"x"),
    "a slash": raw(b"/", b"5", mode=0o777),
    "two slashes": raw(b"//", b"2", link=b"/"),
    # names
    "absolute": raw(b"/../outside/new", b"0", b"x"),
    "up in the middle": raw(b"a/../../outside/new", b"0", b"x"),
    "pax path over the header's": pax(path="../outside/new") + raw(b"fine", b"0", b"x"),
    "a zero byte in a pax path": pax(path=b"a\0/../../outside/new") + raw(b"fine", b"0", b"x"),
    "a component of 256 bytes": pax(path="n" * 256) + raw(b"fine", b"0", b"x"),
    "a name of 5,000 bytes": pax(path="/".join("n" * 250 for _ in range(20))) + raw(b"fine", b"0", b"x"),
    "not UTF-8": raw(b"\xff\xfe", b"0", b"x"),
    "backslashes": raw(b"..\\outside\\new", b"0", b"x"),
    "a prefix that climbs": raw(b"new", b"0", b"x", prefix=b"../outside"),
    "a long name that climbs": raw(b"././@LongLink", b"L", b"../outside/new\0") + raw(b"fine", b"0", b"x"),
    "long names without end": raw(b"././@LongLink", b"L", b"a\0") * 2000 + raw(b"fine", b"0", b"x"),
    "a long name of an exabyte": raw(b"././@LongLink", b"L", size=HUGE),
    # order
    "file, folder, link, file": raw(b"x", b"0", b"1") + raw(b"x", b"5") + raw(b"x", b"2", link=b"../outside") + raw(b"x/new", b"0", b"2"),
    "a hard link to what comes later": raw(b"h", b"1", link=b"later") + raw(b"later", b"0", b"x"),
    "a hard link to itself": raw(b"h", b"1", link=b"h"),
    "a whiteout of what is here": raw(b"x", b"0", b"1") + raw(b".wh.x", b"0"),
    "opaque with content": raw(b"d", b"5", mode=0o755) + raw(b"d/f", b"0", b"1") + raw(b"d/.wh..wh..opq", b"0"),
    "opaque at the root": raw(b".wh..wh..opq", b"0"),
    "whiteouts of dots": raw(b".wh.", b"0") + raw(b".wh..", b"0") + raw(b".wh...", b"0") + raw(b"a/.wh...", b"0"),
    "a link with a folder's name": raw(b"l/", b"2", link=b"../outside") + raw(b"l/new", b"0", b"x"),
    "a link to nothing": raw(b"l", b"2", link=b"") + raw(b"l/new", b"0", b"x"),
    "links through each other": b"".join(raw(b"l%d" % n, b"2", link=b"l%d/.." % (n + 1)) for n in range(60)) + raw(b"l0/new", b"0", b"x"),
    # types and numbers
    "a forged whiteout": raw(b"w", b"3"),
    "a device of the host": raw(b"sda", b"4", major=8, minor=0, mode=0o666),
    "device numbers out of range": raw(b"d", b"3", major=1 << 20, minor=1 << 30),
    "a type that nobody knows": raw(b"q", b"Q", b"x"),
    "a socket": raw(b"s", b"s"),
    "a sparse exabyte": pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize=str(HUGE), GNU__sparse__name="f") + raw(b"f", b"0", b"1\n0\n512\n" + b"\0" * 504 + b"x" * 512),
    "an exabyte": raw(b"f", b"0", size=HUGE),
    "a negative size": raw(b"f", b"0", size=-1),
    "a pax size that is not the header's": pax(size="9999999") + raw(b"f", b"0", b"x"),
    "a pax size of words": pax(size="many") + raw(b"f", b"0", b"x"),
    "a year beyond all clocks": pax(mtime="99999999999999999999") + raw(b"f", b"0", b"x"),
    "a time that is infinite": pax(mtime="inf") + raw(b"f", b"0", b"x"),
    "a time that is no number": pax(mtime="nan") + pax(mtime="soon") + raw(b"f", b"0", b"x"),
    "a year before all clocks": raw(b"f", b"0", b"x", mtime=-(1 << 62)),
    "ids out of range": raw(b"f", b"0", b"x", uid=1 << 40, gid=(1 << 32) - 1),
    "negative ids": pax(uid="-1", gid="-2") + raw(b"f", b"0", b"x"),
    # attributes
    "an opaque attribute": pax(SCHILY__xattr__trusted__overlay__opaque="y") + raw(b"d", b"5", mode=0o755),
    "a redirect": pax(SCHILY__xattr__trusted__overlay__redirect="/../../outside") + raw(b"d", b"5", mode=0o755),
    "a metacopy": pax(SCHILY__xattr__trusted__overlay__metacopy="") + raw(b"f", b"0", b"x"),
    "an attribute of 70,000 bytes": pax(SCHILY__xattr__user__big="x" * 70_000) + raw(b"f", b"0", b"x"),
    "an attribute without a name": pax(SCHILY__xattr__="x") + raw(b"f", b"0", b"x"),
    "an attribute with a zero byte in its name": pax(**{"SCHILY.xattr.user.a\0b": "x"}) + raw(b"f", b"0", b"x"),
    "a pax record that ends nowhere": raw(b"p", b"x", b"99999 path=x\n") + raw(b"f", b"0", b"x"),
    "a pax record of length zero": raw(b"p", b"x", b"0 path=x\n" * 50) + raw(b"f", b"0", b"x"),
}  # fmt: skip


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched")
    before = [path.lstat() for path in (tmp_path, outside, outside / "file")]
    yield outside
    after = [path.lstat() for path in (tmp_path, outside, outside / "file")]
    assert [(s.st_mode, s.st_uid, s.st_ino) for s in after] == [(s.st_mode, s.st_uid, s.st_ino) for s in before]
    assert sorted(os.listdir(outside)) == ["file"]
    assert (outside / "file").read_text() == "untouched"
    assert set(os.listdir(tmp_path)) <= {"outside", "dest"}


def take(data: bytes, dest: Path, *, overlay: bool = False) -> None:
    """Contained or refused, as the case allows; within two seconds."""
    dest.mkdir(exist_ok=True)
    started = time.monotonic()
    with contextlib.suppress(EngineError):
        apply_layer(io.BytesIO(data), dest, overlay=overlay)
    assert time.monotonic() - started < PATIENCE
    assert dest.is_dir()
    assert not dest.is_symlink()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("overlay", [True, False])
def test_contained_or_refused(name: str, overlay: bool, tmp_path: Path, canary: Path) -> None:
    take(CASES[name] + END, tmp_path / "dest", overlay=overlay)


def test_no_attribute_of_an_archive_is_the_file_systems_own(tmp_path: Path, canary: Path) -> None:
    dest = tmp_path / "dest"
    take(CASES["an opaque attribute"] + CASES["a redirect"] + CASES["a metacopy"] + END, dest, overlay=True)
    for path in dest.rglob("*"):
        assert not [name for name in os.listxattr(path, follow_symlinks=False) if "overlay" in name]


def test_a_forged_whiteout_hides_nothing(tmp_path: Path, canary: Path) -> None:
    """A character device 0:0 in an archive is no deletion: it is refused, or is not there."""
    dest = tmp_path / "dest"
    take(CASES["a forged whiteout"] + END, dest, overlay=True)
    assert not (dest / "w").exists()


@pytest.mark.parametrize("cut", range(BLOCK, BLOCK * 9, BLOCK))
def test_cut_at_every_block(cut: int, tmp_path: Path, canary: Path) -> None:
    whole = raw(b"d", b"5") + raw(b"d/f", b"0", b"x" * 1000) + pax(path="d/g") + raw(b"g", b"0", b"y" * 600) + END
    take(whole[:cut], tmp_path / "dest")


def test_a_bomb_ends_at_the_limit(tmp_path: Path, canary: Path) -> None:
    """Four gigabytes in four megabytes: refused when the bytes are more than allowed, without being held in memory."""

    class Zeros(io.RawIOBase):
        left = 4 << 30

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            view = memoryview(buffer)  # type: ignore[arg-type]
            size = min(len(view), self.left)
            view[:size] = bytes(size)
            self.left -= size
            return size

    head = raw(b"f", b"0", size=4 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path / "dest").mkdir()
    with pytest.raises(StorageFull):
        apply_layer(_Joined(head, Zeros()), tmp_path / "dest", limits=Limits(size=64 << 20))  # type: ignore[arg-type]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


class _Joined(io.RawIOBase):
    def __init__(self, head: bytes, rest: io.RawIOBase) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = -1) -> bytes:
        data, self._head = self._head[:size], self._head[size:]
        return data or self._rest.read(size) or b""


def test_many_entries_and_deep_folders_end_at_the_limit(tmp_path: Path, canary: Path) -> None:
    (tmp_path / "dest").mkdir()
    with pytest.raises(HostileArchive):
        apply_layer(
            io.BytesIO(b"".join(raw(b"f%d" % n) for n in range(2000)) + END),
            tmp_path / "dest",
            limits=Limits(entries=1000),
        )
    with pytest.raises(HostileArchive):
        apply_layer(io.BytesIO(pax(path="/".join("d" * 3000)) + raw(b"f") + END), tmp_path / "dest")


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_compression_that_lies(kind: str, tmp_path: Path) -> None:
    data = raw(b"f", b"0", b"x") + END
    for wrong in (
        data,
        gzip.compress(data) if kind == "zstd" else b"\x28\xb5\x2f\xfd" + data,
        gzip.compress(data)[:-4] + b"trailing garbage",
    ):
        with pytest.raises(Corrupt):
            decompress(io.BytesIO(wrong), kind).read()  # type: ignore[arg-type]


names = st.sampled_from(
    [b"a", b"a/b", b"../outside/new", b"a/../..", b"/", b".", b"l", b"l/new", b".wh.a", b".wh..wh..opq", b"a/.wh.b"]
)
kinds = st.sampled_from([b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"g", b"x", b"L", b"K", b"S", b"\0"])
members = st.builds(
    raw, names, kinds, st.binary(max_size=20), link=names | st.just(b"../outside/file"), mode=st.integers(0, 0o7777),
    uid=st.integers(0, 1 << 33), mtime=st.integers(-(1 << 40), 1 << 40), size=st.none() | st.integers(-2, 600),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.lists(members, max_size=6), st.booleans())
def test_any_members_in_any_order(tmp_path: Path, canary: Path, archive: list[bytes], overlay: bool) -> None:
    take(b"".join(archive) + END, tmp_path / "dest", overlay=overlay)
