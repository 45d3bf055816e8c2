"""Blobs by digest in an OCI image layout (image-spec, image-layout.md) that other tools read.

A blob appears under `blobs/<algorithm>/<hex>` only after its bytes hashed to that digest: they are written to a
file in `tmp/`, fsynced and renamed. So a present blob is complete, and a crash leaves only files in `tmp/`. What a build makes is
not waited for: it is marked as unsynced instead (see `unsynced`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from engine.base.atomic import fsync_dir, write_atomic
from engine.base.lazy import lazy
from engine.errors import Corrupt, NotFound, Unsupported, from_os_error
from engine.oci.digest import Digest
from engine.store.leases import Leases
from engine.store.unsynced import Unsynced

if TYPE_CHECKING:
    import hashlib
    import secrets
else:
    hashlib = lazy("hashlib")
    secrets = lazy("secrets")

T = TypeVar("T")

CHUNK = 1 << 20
SPLICED = 8 << 20  # bytes that are copied before they are hashed
_POLL = 0.05  # seconds between two looks at another's download
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
MAX_DOCUMENT = 4 << 20  # a manifest or config larger than this is refused, as containerd and containers/image do


class BlobWriter:
    """Bytes on their way into the store. Either `commit` or `abort` ends it."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._path = store.tmp / f"blob-{secrets.token_hex(8)}"
        self._file = open(self._path, "xb", buffering=1 << 20)  # noqa: SIM115 closed by commit or abort
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        self._hash.update(data)
        self._file.write(data)
        self.size += len(data)
        return len(data)

    def splice(self, source: int, start: int, end: int) -> None:
        """Bytes of another file, through the kernel. They are hashed as they are written."""
        self._file.flush()
        out = self._file.fileno()
        with mmap.mmap(source, end, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
            while start < end:
                stop = min(start + SPLICED, end)
                while start < stop:
                    copied = os.sendfile(out, source, start, stop - start)
                    if not copied:
                        raise Corrupt("a blob became shorter while it was read", hint="run `workbench check`")
                    with view[start : start + copied] as part:
                        self._hash.update(part)
                    start += copied
                    self.size += copied
                self._file.seek(0, os.SEEK_END)

    def digest(self) -> Digest:
        return Digest(f"sha256:{self._hash.hexdigest()}")

    def commit(self, digest: Digest | None = None, size: int | None = None, *, durable: bool = True) -> Digest:
        """Publishes the blob; not `durable`, a power cut may cost it. Raises `Corrupt` when size or digest are not what was promised."""
        actual = self.digest()
        if digest is not None and digest.algorithm != "sha256":
            self.abort()
            raise Unsupported(f"blob {digest}: only content with sha256 digests is stored here")
        if size is not None and size != self.size:
            self.abort()
            raise Corrupt(f"blob {digest or actual}: {self.size} bytes arrived, {size} were promised")
        if digest is not None and digest != actual:
            self.abort()
            raise Corrupt(
                f"blob {digest}: the bytes hash to {actual}", hint="pull again; if it stays, the registry is damaged"
            )
        self._file.flush()
        if durable or self._store.unsynced is None:
            os.fsync(self._file.fileno())
            self._file.close()
            final = self._store.path(actual)
            self._store.claimed(actual, lambda: os.rename(self._path, final))
            fsync_dir(final.parent)
        else:
            self._file.close()
            self._publish_unsynced(actual, self._store.unsynced)
        return actual

    def _publish_unsynced(self, actual: Digest, unsynced: Unsynced) -> None:
        """What is there already stays: it may be on the disk, as this is not."""

        def publish() -> None:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(final).st_size == self.size:
                    os.unlink(self._path)
                    return
            unsynced.mark(f"blob-{actual.hex}", str(self._path))
            os.rename(self._path, final)

        final = self._store.path(actual)
        self._store.claimed(actual, publish)

    def abort(self) -> None:
        with contextlib.suppress(OSError):  # on a full disk, closing cannot flush what is still buffered
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


class PartialWriter(BlobWriter):
    """A blob that goes on where an earlier attempt, perhaps of another process, stopped. One owner at a time.

    What is here already counts in `size`; it is hashed again, for nobody knows how the earlier attempt ended.
    """

    def __init__(self, store: BlobStore, path: Path, fd: int) -> None:
        self._store, self._path = store, path
        self._hash = hashlib.sha256()
        self._file = open(fd, "r+b", buffering=1 << 20)  # noqa: SIM115 closed by commit, abort or keep
        self.size = 0
        while data := self._file.read(CHUNK):
            self._hash.update(data)
            self.size += len(data)
        self.resumed = self.size

    def restart(self) -> None:
        """Forgets what is here: it was not the blob's beginning."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.size = self.resumed = 0

    def keep(self) -> None:
        """Ends this attempt; the bytes stay for the next."""
        with contextlib.suppress(OSError, ValueError):
            self._file.close()


class BlobStore:
    """`root` is the OCI layout; `tmp` a folder on the same file system; what is looked for or added is claimed in `leases`."""

    def __init__(self, root: Path, tmp: Path, leases: Leases | None = None, unsynced: Unsynced | None = None) -> None:
        self.root, self.tmp = root, tmp
        self._leases, self.unsynced = leases, unsynced
        self._folder = f"{root}/blobs/sha256"
        (root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        if not (root / "oci-layout").exists():
            write_atomic(root / "oci-layout", LAYOUT, 0o644)
        if not (root / "index.json").exists():
            write_atomic(root / "index.json", _index([]), 0o644)

    def path(self, digest: Digest) -> Path:
        return self.root / "blobs" / digest.algorithm / digest.hex

    def has(self, digest: Digest) -> bool:
        place = self._place(digest)
        return self.claimed(digest, lambda: os.path.isfile(place))

    def _place(self, digest: Digest) -> str:
        return f"{self._folder}/{digest.hex}" if digest.algorithm == "sha256" else str(self.path(digest))

    def claimed(self, digest: Digest, act: Callable[[], T]) -> T:
        """What `act` gives, with the blob claimed by the work that this process does: no sweep takes it before that ends."""
        return self._leases.claim(f"blob-{digest.hex}", act) if self._leases else act()

    def size(self, digest: Digest) -> int:
        return self.path(digest).stat().st_size

    def open(self, digest: Digest) -> BinaryIO:
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is missing from the store", hint="run `workbench check`") from None

    def read(self, digest: Digest) -> bytes:
        """A small document, verified. Raises `NotFound`, `Corrupt`."""
        with self.open(digest) as blob:
            # By its size: a buffer for the largest document costs more than reading a small one.
            data = blob.read(min(os.fstat(blob.fileno()).st_size, MAX_DOCUMENT) + 1)
        if len(data) > MAX_DOCUMENT or Digest.of(data) != digest:
            raise Corrupt(f"blob {digest} in the store is damaged", hint="run `workbench check`")
        return data

    def ingest(self) -> BlobWriter:
        try:
            return BlobWriter(self)
        except OSError as error:
            raise from_os_error(error, "writing a blob") from error

    def resume(self, digest: Digest, wait: Callable[[int], None]) -> PartialWriter | None:
        """A writer that goes on with an unfinished download of `digest`; None when the blob is here.

        While another thread or process downloads it, this waits: `wait` gets the bytes that have arrived there, about ten
        times a second, and may raise to stop waiting. The lock is on the unfinished file itself, so it ends with its owner.
        """
        path = self.tmp / f"partial-{digest.hex}"
        try:
            while not self.has(digest):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    arrived = os.fstat(fd).st_size
                    os.close(fd)
                    wait(arrived)
                    time.sleep(_POLL)
                    continue
                # The owner before may have published the file (renamed it) or dropped it between the two calls.
                if _is_at(path, fd) and not self.has(digest):
                    return PartialWriter(self, path, fd)
                os.close(fd)
        except OSError as error:
            raise from_os_error(error, "writing a blob") from error
        return None

    def adopt(self, path: Path, digest: Digest) -> None:
        """Makes a file that hashes to `digest`, is flushed and on this file system, the blob."""
        final = self.path(digest)
        self.claimed(digest, lambda: os.rename(path, final))
        fsync_dir(final.parent)

    def stamp(self, digest: Digest) -> tuple[int, int, int, int] | None:
        """What changes when the file does; None when it is not there."""
        try:
            status = os.stat(self._place(digest))
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def put(self, data: bytes, *, durable: bool = True) -> Digest:
        digest = Digest.of(data)
        if not self.has(digest):
            writer = self.ingest()
            writer.write(data)
            writer.commit(digest, len(data), durable=durable)
        return digest

    def digests(self) -> list[Digest]:
        return [Digest(f"sha256:{name}") for name in sorted(os.listdir(self.root / "blobs" / "sha256"))]

    def remove(self, digest: Digest) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path(digest).unlink()

    def publish_index(self, manifests: list[dict[str, object]], *, durable: bool = True) -> None:
        """Rewrites `index.json`: what `skopeo inspect oci:PATH:NAME` sees."""
        data = _index(manifests)
        try:
            if (self.root / "index.json").read_bytes() == data:
                return  # no flush for what is there already
        except OSError:
            pass
        write_atomic(self.root / "index.json", data, 0o644, durable=durable)


def _is_at(path: Path, fd: int) -> bool:
    try:
        there, held = path.lstat(), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def _index(manifests: list[dict[str, object]]) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    }
    return json.dumps(document, separators=(",", ":")).encode()
