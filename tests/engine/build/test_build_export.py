"""Results as files: folders, tars, OCI layouts, docker archives; contexts that come on a stream."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import stat
import tarfile
from pathlib import Path

import pytest

from engine.archive.diff import write_upper
from engine.archive.writer import LayerWriter
from engine.base.cancel import CancelToken
from engine.build.contexts import is_archive, read_stream
from engine.build.export import export, keeps_image
from engine.build.result import Result
from engine.errors import Corrupt, HostileArchive, InvalidInput, Unsupported
from engine.model import BuildOutput
from engine.oci.config import History, ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_CONFIG, OCI_LAYER
from engine.oci.platform import Platform
from engine.store.store import Store

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


def make_result(store: Store, folder: Path, platform: str = "linux/amd64") -> Result:
    """An image of one layer with a file, a link, a hard link, a set-uid file, a fifo and a device."""
    tree = folder / "tree"
    (tree / "app").mkdir(parents=True)
    (tree / "app/code").write_text("print(1)\n")
    os.chmod(tree / "app/code", 0o640)
    os.chown(tree / "app/code", 12, 34)
    os.link(tree / "app/code", tree / "app/same")
    os.symlink("code", tree / "app/link")
    (tree / "su").write_text("x")
    os.chmod(tree / "su", 0o4755)
    os.mkfifo(tree / "pipe")
    os.mknod(tree / "dev", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    blob = store.blobs.ingest()
    writer = LayerWriter(blob)
    write_upper(tree, writer)
    written = writer.finish()
    size, digest = blob.size, blob.commit()
    config = ImageConfig.scratch(Platform.parse(platform)).with_step(
        History("1970-01-01T00:00:00Z", "COPY . ."), written.diff_id, "1970-01-01T00:00:00Z"
    )
    raw = config.to_bytes()
    manifest = build_manifest(
        Descriptor(OCI_CONFIG, store.blobs.put(raw), len(raw)), [Descriptor(OCI_LAYER, digest, size)]
    )
    return Result(manifest, config, written.content_size)


def test_a_folder_belongs_to_the_caller_and_holds_no_device(store: Store, tmp_path: Path) -> None:
    result, out = make_result(store, tmp_path), tmp_path / "out"
    (out / "app").mkdir(parents=True)
    (tmp_path / "host").write_text("mine")
    (out / "app/code").symlink_to(tmp_path / "host")
    export([result], BuildOutput("local", str(out)), (), store, CancelToken())
    assert (out / "app/code").read_text() == "print(1)\n"
    assert (tmp_path / "host").read_text() == "mine", "a link that was there is replaced, never followed"
    status = (out / "app/code").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o640, os.geteuid())
    assert os.readlink(out / "app/link") == "code"
    assert stat.S_IMODE((out / "su").stat().st_mode) == 0o755
    assert sorted(path.name for path in out.iterdir()) == ["app", "su"]


def test_a_folder_of_the_destination_that_is_a_link_is_not_entered(store: Store, tmp_path: Path) -> None:
    result, out = make_result(store, tmp_path), tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "app").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="no directory"):
        export([result], BuildOutput("local", str(out)), (), store, CancelToken())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_tar_keeps_owners_links_and_devices(store: Store, tmp_path: Path) -> None:
    result = make_result(store, tmp_path)
    export([result], BuildOutput("tar", str(tmp_path / "fs.tar")), (), store, CancelToken())
    with tarfile.open(tmp_path / "fs.tar") as tar:
        found = {member.name: member for member in tar}
        assert (found["app/code"].uid, found["app/code"].gid, found["app/code"].mode) == (12, 34, 0o640)
        assert (found["app/same"].type, found["app/same"].linkname) == (tarfile.LNKTYPE, "app/code")
        assert found["dev"].ischr()
        assert found["pipe"].isfifo()
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("compression", ["uncompressed", "gzip", "zstd"])
def test_an_oci_layout_names_what_it_holds(store: Store, tmp_path: Path, compression: str) -> None:
    result, out = make_result(store, tmp_path), tmp_path / "out.tar"
    output = BuildOutput("oci", str(out), {"compression": compression})
    export([result], output, ("shop:1",), store, CancelToken())
    first = out.read_bytes()
    export([result], output, ("shop:1",), store, CancelToken())
    assert out.read_bytes() == first, "equal input gives equal bytes"
    with tarfile.open(out) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    for name, data in files.items():
        if name.startswith("blobs/"):
            assert Digest.of(data).hex == name.rpartition("/")[2]
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "1"
    assert entry["platform"] == {"os": "linux", "architecture": "amd64"}
    manifest = json.loads(files[f"blobs/sha256/{entry['digest'].removeprefix('sha256:')}"])
    suffix = {"uncompressed": "tar", "gzip": "tar+gzip", "zstd": "tar+zstd"}[compression]
    assert manifest["layers"][0]["mediaType"].endswith(suffix)


def test_a_docker_archive_and_several_platforms(store: Store, tmp_path: Path) -> None:
    result = make_result(store, tmp_path / "a")
    other = make_result(store, tmp_path / "b", "linux/arm64")
    export([result], BuildOutput("docker", str(tmp_path / "d.tar")), ("shop",), store, CancelToken())
    with tarfile.open(tmp_path / "d.tar") as tar:
        (entry,) = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        assert entry["RepoTags"] == ["shop:latest"]
        assert all(tar.getmember(name).isfile() for name in [entry["Config"], *entry["Layers"]])
    with pytest.raises(Unsupported, match="one platform"):
        export([result, other], BuildOutput("docker", str(tmp_path / "e.tar")), (), store, CancelToken())
    output = BuildOutput("oci", str(tmp_path / "layout"), {"tar": "false"})
    export([result, other], output, (), store, CancelToken())
    (top,) = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"]
    index = json.loads((tmp_path / "layout/blobs/sha256" / top["digest"].removeprefix("sha256:")).read_bytes())
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    export([result, other], BuildOutput("local", str(tmp_path / "fs")), (), store, CancelToken())
    assert (tmp_path / "fs/linux_arm64/app/code").exists()


def test_which_outputs_make_an_image() -> None:
    assert keeps_image(())
    assert keeps_image((BuildOutput("local", "x"), BuildOutput("image")))
    assert not keeps_image((BuildOutput("local", "x"),))
    assert not keeps_image((BuildOutput("cacheonly"),))


# --- contexts on a stream -----------------------------------------------------------------------------------


def tar_of(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


class Trickle(io.RawIOBase):
    """A pipe whose writer is slow: seven bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1) -> bytes:
        found, self._data = self._data[: min(size, 7)], self._data[min(size, 7) :]
        return found


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_on_stdin_is_the_context(tmp_path: Path, pack: object) -> None:
    data = pack(tar_of(Dockerfile="FROM scratch\n", **{".wh.kept": "not a whiteout"}))  # type: ignore[operator]
    unpacked = read_stream(Trickle(data), tmp_path)  # type: ignore[arg-type]
    assert unpacked.dockerfile_text is None
    assert (tmp_path / "Dockerfile").read_text() == "FROM scratch\n"
    assert (tmp_path / ".wh.kept").read_text() == "not a whiteout"


def test_text_on_stdin_is_the_dockerfile(tmp_path: Path) -> None:
    text = "FROM scratch\n" + "# a long file\n" * 100
    assert read_stream(Trickle(text.encode()), tmp_path).dockerfile_text == text  # type: ignore[arg-type]
    assert not is_archive(b"FROM x\n" * 100)
    with pytest.raises(InvalidInput, match="empty"):
        read_stream(io.BytesIO(b""), tmp_path)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (tar_of(**{"../out": "x"}), HostileArchive),
        (gzip.compress(tar_of(a="x" * 5000))[:-20], Corrupt),
        (bz2.compress(tar_of(a="x" * 5000))[:-20], Corrupt),
        (lzma.compress(os.urandom(9000))[:3000], Corrupt),
        (tar_of(a="x" * 2000)[:1600], Corrupt),
    ],
)
def test_a_damaged_or_hostile_context_is_refused(tmp_path: Path, data: bytes, error: type[Exception]) -> None:
    inner = tmp_path / "in"
    inner.mkdir()
    with pytest.raises(error):
        read_stream(io.BytesIO(data), inner)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
