"""Results as files (`--output`): a folder, a tar of the file system, an OCI layout, what `docker load` reads.

Layers are kept as plain tars here, and go out as they are unless compression is asked for: gzip with no time in its header
(RFC 1952, MTIME 0), so that equal input gives equal bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from engine.archive.writer import LayerWriter, TarEntry
from engine.base.cancel import CancelToken
from engine.build.compressing import compressed_layer
from engine.build.result import Result
from engine.errors import InvalidInput, Unsupported, from_os_error
from engine.linux.openat2 import mkdirs_in_root
from engine.model import BuildOutput, BuildRequest
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Manifest, build_manifest
from engine.oci.media import OCI_INDEX
from engine.oci.reference import Reference
from engine.store.store import Store
from engine.store.view import Entry, LayerView


def keeps_image(outputs: Sequence[BuildOutput]) -> bool:
    """Whether the result becomes an image of this engine: without `--output` it does."""
    return not outputs or any(output.type in ("image", "registry") for output in outputs)


def export_all(results: Sequence[Result], request: BuildRequest, store: Store, cancel: CancelToken) -> None:
    """Writes every output that is made of files."""
    for output in request.outputs:
        if output.type not in ("image", "registry", "cacheonly"):
            export(results, output, request.tags, store, cancel)


def export(
    results: Sequence[Result], output: BuildOutput, tags: Sequence[str], store: Store, cancel: CancelToken
) -> None:
    """Writes `results` (one a platform) where `output` says. Raises `InvalidInput`, `Unsupported`, `StorageFull`."""
    try:
        if output.type == "local":
            _export_folder(results, output, store, cancel)
        elif output.type == "tar":
            with _sink(output.path) as out:
                _export_tar(results, out, store, cancel)
        elif output.type in ("oci", "docker"):
            _export_layout(results, output, tags, store, cancel)
        else:
            raise Unsupported(f"--output type={output.type} is not written to files")
    except OSError as error:
        raise from_os_error(error, f"writing the result to {output.path}") from error


@contextlib.contextmanager
def _sink(path: str) -> Iterator[BinaryIO]:
    """A file that appears whole or not at all; "-" is stdout, which must not be a terminal."""
    if path == "-":
        if sys.stdout.isatty():
            raise InvalidInput("a tar is not written to a terminal", hint="redirect it, or say dest=FILE")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    temporary = f"{path}.{os.getpid()}.part"
    try:
        with open(temporary, "xb") as out:
            yield cast(BinaryIO, out)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


# --- the file system ----------------------------------------------------------------------------------


def _folders(results: Sequence[Result], split: bool) -> Iterator[tuple[str, Result]]:
    """One result goes to the top, several to `linux_amd64/` and the like, as BuildKit names them."""
    for result in results:
        yield (str(result.platform).replace("/", "_") if split or len(results) > 1 else ""), result


def _export_folder(results: Sequence[Result], output: BuildOutput, store: Store, cancel: CancelToken) -> None:
    os.makedirs(output.path, exist_ok=True)
    root = os.open(output.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    split = output.options.get("platform-split", "") == "true"
    try:
        for folder, result in _folders(results, split):
            _FolderWriter(root, result.view(store), folder, cancel).write()
    finally:
        os.close(root)


class _FolderWriter:
    """Files belong to the caller, as the Docker command line writes them. Devices and set-uid bits stay behind: the folder is
    on the host, where they would mean more than they did in the image."""

    def __init__(self, root: int, view: LayerView, folder: str, cancel: CancelToken) -> None:
        self._root, self._view, self._folder, self._cancel = root, view, folder, cancel

    def write(self) -> None:
        top = self._view.lookup("", follow=False)
        assert top is not None  # a view always has a root
        self._write(top)

    def _write(self, folder: Entry) -> None:
        where = "/".join(filter(None, (self._folder, folder.path)))
        fd = mkdirs_in_root(self._root, where) if where else os.dup(self._root)
        try:
            for entry in self._view.children(folder):
                self._cancel.check()
                self._place(fd, entry)
        finally:
            os.close(fd)
        for entry in self._view.children(folder):
            if entry.is_dir:
                self._write(entry)

    def _place(self, fd: int, entry: Entry) -> None:
        name, mode = os.path.basename(entry.path), entry.status.st_mode
        stamp = (entry.status.st_mtime_ns, entry.status.st_mtime_ns)
        if entry.is_dir:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=fd)
            if not stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                raise InvalidInput(f"{entry.path} in the destination is no directory", hint="choose an empty folder")
            os.chmod(name, mode & 0o1777, dir_fd=fd)
            return
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(entry.real), name, dir_fd=fd)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            writing = os.open(name, flags, 0o600, dir_fd=fd)
            with open(entry.real, "rb", buffering=0) as source, os.fdopen(writing, "wb", buffering=0) as dest:
                while os.sendfile(dest.fileno(), source.fileno(), None, 1 << 24):
                    self._cancel.check()
                os.fchmod(dest.fileno(), mode & 0o1777)
        os.utime(name, ns=stamp, dir_fd=fd, follow_symlinks=False)


def _export_tar(results: Sequence[Result], out: BinaryIO, store: Store, cancel: CancelToken) -> None:
    writer = LayerWriter(out)
    for folder, result in _folders(results, False):
        if folder:
            writer.add(TarEntry(folder, "dir", 0o755))
        view = result.view(store)
        top = view.lookup("", follow=False)
        assert top is not None  # a view always has a root
        links: dict[tuple[int, int], str] = {}
        for entry in view.walk(top):
            cancel.check()
            if entry.path:
                _add(writer, entry, f"{folder}/{entry.path}" if folder else entry.path, links)
    writer.finish()


def _add(writer: LayerWriter, entry: Entry, path: str, links: dict[tuple[int, int], str]) -> None:
    status = entry.status
    mode = status.st_mode
    common = (stat.S_IMODE(mode), status.st_uid, status.st_gid, int(status.st_mtime))
    if entry.is_dir:
        writer.add(TarEntry(path, "dir", *common))
    elif entry.is_link:
        writer.add(TarEntry(path, "symlink", *common, link=os.readlink(entry.real)))
    elif stat.S_ISREG(mode):
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in links:
            writer.add(TarEntry(path, "hardlink", *common, link=links[key]))
            return
        links[key] = path
        with open(entry.real, "rb") as body:
            writer.add(TarEntry(path, "file", *common, size=status.st_size), body)
    elif stat.S_ISFIFO(mode):
        writer.add(TarEntry(path, "fifo", *common))
    elif not stat.S_ISSOCK(mode):
        dev = (os.major(status.st_rdev), os.minor(status.st_rdev))
        writer.add(TarEntry(path, "char" if stat.S_ISCHR(mode) else "block", *common, dev=dev))


# --- images -----------------------------------------------------------------------------------------------


def _export_layout(
    results: Sequence[Result], output: BuildOutput, tags: Sequence[str], store: Store, cancel: CancelToken
) -> None:
    """An OCI layout; `docker` adds the `manifest.json` that `docker load` reads."""
    if output.type == "docker" and len(results) > 1:
        raise Unsupported("a docker archive holds one platform", hint="use --output type=oci for several")
    names = [name for name in output.options.get("name", "").split(",") if name] or list(tags)
    work = store.tmp / f"export-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        layout = _Layout(work, store, output.options.get("compression", "uncompressed"), cancel)
        layout.write(
            results, [Reference.parse(name).with_default_tag() for name in names], docker=output.type == "docker"
        )
        if output.options.get("tar", "true") == "false":
            shutil.copytree(work, output.path, dirs_exist_ok=True)
            return
        with _sink(output.path) as out:
            _tar_folder(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Layout:
    """Blobs are linked from the store, not copied."""

    def __init__(self, folder: Path, store: Store, kind: str, cancel: CancelToken) -> None:
        self._folder, self._store, self._kind, self._cancel = folder, store, kind, cancel
        (folder / "blobs/sha256").mkdir(parents=True, mode=0o755)

    def write(self, results: Sequence[Result], names: Sequence[Reference], *, docker: bool) -> None:
        manifests = [self._image(result) for result in results]
        entries = [_descriptor(manifest, result) for manifest, result in zip(manifests, results, strict=True)]
        if len(entries) > 1:
            raw = _document({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
            entries = [{"mediaType": OCI_INDEX, "digest": self._put(raw), "size": len(raw)}]
        named = [
            {
                **entry,
                "annotations": {"io.containerd.image.name": str(name), "org.opencontainers.image.ref.name": name.tag},
            }
            for name in names
            for entry in entries
        ]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": named or entries}
        (self._folder / "index.json").write_bytes(_document(index))
        (self._folder / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
        if docker:
            manifest = manifests[0]
            entry = {
                "Config": _blob(manifest.config.digest),
                "RepoTags": [name.familiar for name in names] or None,
                "Layers": [_blob(layer.digest) for layer in manifest.layers],
            }
            (self._folder / "manifest.json").write_bytes(_document([entry]))

    def _image(self, result: Result) -> Manifest:
        layers = [self._layer(layer) for layer in result.manifest.layers]
        config = result.config.to_bytes()
        self._put(config)
        manifest = result.manifest
        if layers != list(manifest.layers):
            annotations = cast("dict[str, str]", manifest.document.get("annotations") or {})
            manifest = build_manifest(manifest.config, layers, annotations)
        self._put(manifest.raw)
        return manifest

    def _put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        (self._folder / _blob(digest)).write_bytes(data)
        return digest

    def _layer(self, layer: Descriptor) -> Descriptor:
        layer = compressed_layer(self._store, layer, self._kind, self._cancel)
        place = self._folder / _blob(layer.digest)
        if not place.exists():
            os.link(self._store.blobs.path(layer.digest), place)
        return layer


def _blob(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _document(obj: object) -> bytes:
    return json.dumps(obj, separators=(",", ":"), ensure_ascii=False).encode()


def _descriptor(manifest: Manifest, result: Result) -> dict[str, object]:
    found = manifest.descriptor
    return Descriptor(found.media_type, found.digest, found.size, result.platform).to_json()


def _tar_folder(folder: Path, out: BinaryIO) -> None:
    writer = LayerWriter(out)
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            writer.add(TarEntry(name, "dir", 0o755))
        else:
            with open(path, "rb") as body:
                writer.add(TarEntry(name, "file", 0o644, size=os.fstat(body.fileno()).st_size), body)
    writer.finish()
