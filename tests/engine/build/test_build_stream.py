"""A COPY in one pass: the tar is, byte for byte, what the differ writes of the same upper directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.base.cancel import CancelToken
from engine.build.copier import can_stream, stream_plan, write_plan
from engine.build.copy import CopyPlan, find_parents, find_trees
from engine.build.dockerfile.mode import parse_chmod
from engine.build.source import ContextSource
from engine.build.stamped import PIECE, make_layer, write_layer
from engine.errors import Cancelled
from engine.store.blobs import BlobStore
from engine.store.view import LayerView

pytestmark = pytest.mark.root


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    (tmp_path / "tmp").mkdir()
    return BlobStore(tmp_path / "oci", tmp_path / "tmp")


@pytest.fixture
def source(tmp_path: Path) -> Iterator[ContextSource]:
    root = tmp_path / "context"
    for folder in ("src/a/deep", "src/empty", "src/z", "src/same", "src/set"):
        (root / folder).mkdir(parents=True)
    os.chmod(root / "src/set", 0o2775)
    os.chown(root / "src/set", 0, 50)
    for number, name in enumerate(
        ("a/one", "a/deep/two", "b", "same/kept", "same/other", "set/in", "z/late", "é\udcff")
    ):
        path = root / "src" / name
        path.write_bytes(os.urandom(number * 700))
        os.utime(path, ns=(10**18 + number, (1_700_000_000 + number) * 10**9))
    (root / "src/large").write_bytes(os.urandom(2 * PIECE + 77))
    (root / "src/none").touch()
    os.chmod(root / "src/none", 0o4711)
    os.link(root / "src/b", root / "src/z/linked")
    os.symlink("../a/one", root / "src/z/symbolic")
    os.symlink("x" * 150, root / "src/long")
    os.mkfifo(root / "src/fifo")
    os.setxattr(root / "src/b", "user.note", b"text")
    (root / "src" / ("n" * 120)).write_text("a long name")
    os.utime(root / "src/same", ns=(0, 5 * 10**9))
    with contextlib.closing(ContextSource(root)) as found:
        yield found


@pytest.fixture
def below(tmp_path: Path, source: ContextSource) -> LayerView:
    """An image that has some of it already: the same, or otherwise."""
    root = tmp_path / "below"
    for folder in ("app/same", "app/z", "etc"):
        (root / folder).mkdir(parents=True)
    for name in ("same/kept", "b", "z/late"):
        (root / "app" / name).write_bytes((source.root / "src" / name).read_bytes())
        status = os.stat(source.root / "src" / name)
        os.utime(root / "app" / name, ns=(status.st_mtime_ns, status.st_mtime_ns))
    (root / "app/z/late").write_bytes(b"other")
    os.symlink("/app", root / "link")
    return LayerView([root])


PLANS = {
    "into a new folder": ("src", "/new/er", {}),
    "over what is there": ("src", "/app", {}),
    "through a link": ("src/", "/link/", {}),
    "onto the root": ("src", "/", {}),
    "owner and mode": ("src", "/app", {"owner": (7, 8), "chmod": parse_chmod("u=rwX,go=rX")}),
    "one file": ("src/large", "/app/x", {}),
    "one file into a folder": ("src/a/one", "/app/", {}),
    "one file that is there": ("src/same/kept", "/app/same/", {}),
}


@pytest.mark.parametrize("name", PLANS)
def test_streamed_is_what_the_differ_writes(
    name: str, blobs: BlobStore, source: ContextSource, below: LayerView, tmp_path: Path
) -> None:
    word, dest, more = PLANS[name]
    check(CopyPlan(dest, tuple(find_trees(source, word, ())), **more), blobs, below, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["src/*/one", "src/z", "src/a/./deep", "src/**/late"])
def test_with_parents(pattern: str, blobs: BlobStore, source: ContextSource, below: LayerView, tmp_path: Path) -> None:
    check(CopyPlan("/app/", tuple(find_parents(source, pattern, ("**/two",)))), blobs, below, tmp_path)


def check(plan: CopyPlan, blobs: BlobStore, below: LayerView, tmp_path: Path) -> None:
    assert can_stream(plan)
    cancel = CancelToken()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = blobs.ingest()
    streamed = make_layer(one, cancel, lambda out: stream_plan(plan, tmp_path / "one", below, cancel, out))
    write_plan(plan, tmp_path / "two", below, cancel)
    two, again = blobs.ingest(), blobs.ingest()
    expected = write_layer(tmp_path / "two", two, below, cancel)
    assert write_layer(tmp_path / "one", again, below, cancel) == expected, "the upper directories are the same"
    assert streamed == expected
    data = blobs.path(one.commit()).read_bytes()
    assert two.commit() == again.commit() == streamed.written.diff_id
    assert hashlib.sha256(data).hexdigest() == streamed.written.diff_id.hex
    assert len(data) == streamed.written.tar_size


def test_a_cancelled_copy_stops_and_raises(blobs: BlobStore, source: ContextSource, tmp_path: Path) -> None:
    plan, cancel = CopyPlan("/", tuple(find_trees(source, "src", ()))), CancelToken()
    (tmp_path / "upper").mkdir()
    cancel.cancel()
    blob = blobs.ingest()
    with pytest.raises(Cancelled):
        make_layer(blob, cancel, lambda out: stream_plan(plan, tmp_path / "upper", LayerView([]), cancel, out))
    blob.abort()
