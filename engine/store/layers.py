"""Layers unpacked once per chain ID, in the form overlayfs wants for a lower directory.

`layers/<chain hex>/diff` is the tree and `layer.json` beside it says what it is. The folder is made under a
temporary name and renamed, so a present layer is complete. Its files are not fsynced one by one: the blob is, and
the tree is a cache of it. `layer.json` records the boot it was made in and whether it has been synced since; after
a power cut an unsynced tree is unpacked anew from its blob (a zero-length file is never trusted).

A tree may hold only what differs from another layer's tree, its base (`layer.json` names it): both together are the layer, the way
overlayfs stacks them. A base is whole itself, and stays as long as something stands on it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from engine.base.atomic import locked, write_atomic
from engine.base.cancel import CancelToken
from engine.base.lazy import lazy
from engine.errors import Corrupt, EngineError, from_os_error
from engine.oci.digest import Digest
from engine.store.leases import Leases
from engine.store.unsynced import Unsynced, boot_id, flush

if TYPE_CHECKING:
    import secrets
    import shutil
    import subprocess
else:
    secrets = lazy("secrets")
    shutil = lazy("shutil")
    subprocess = lazy("subprocess")

T = TypeVar("T")


# Opens the layers, flushes the file system, then marks exactly those folders as safe, whatever stands at their names by then.
_SETTLE = """
import ctypes, json, os, sys
folders = []
for path in sys.argv[2:]:
    try:
        folders.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
    except OSError:
        pass
if ctypes.CDLL(None).syncfs(os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)) == 0:
    for folder in folders:
        try:
            with open(os.open("layer.json", os.O_RDONLY, dir_fd=folder), "rb") as file:
                record = json.load(file)
            temp = ".layer.json." + str(os.getpid())
            with open(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder), "w") as file:
                json.dump({**record, "synced": True}, file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temp, "layer.json", src_dir_fd=folder, dst_dir_fd=folder)
        except (OSError, ValueError):
            pass
"""


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """`size` is the sum of the regular files' bytes; `base` the chain ID of the layer whose tree this one's stands on."""

    chain: Digest
    diff_id: Digest
    size: int
    base: Digest | None = None


def _document(record: LayerRecord, *, synced: bool) -> bytes:
    document = {"diff_id": record.diff_id, "size": record.size, "boot": boot_id(), "synced": synced}
    if record.base is not None:
        document["base"] = record.base
    return json.dumps(document).encode()


class LayerStore:
    def __init__(self, root: Path, tmp: Path, leases: Leases | None = None, unsynced: Unsynced | None = None) -> None:
        self.root, self.tmp = root, tmp
        self._leases, self._unsynced = leases, unsynced
        self._known: dict[Digest, tuple[tuple[int, int, int], LayerRecord]] = {}  # with what layer.json looked like
        root.mkdir(mode=0o710, parents=True, exist_ok=True)

    def tree(self, chain: Digest) -> Path:
        """The layer's own folder: all of it, unless it has a base."""
        return self.root / chain.hex / "diff"

    def trees(self, chains: Iterable[Digest]) -> list[Path]:
        """The folders of these layers (given bottom first) in the order that overlayfs wants: topmost first."""
        found: list[Path] = []
        for chain in chains:
            record = self.peek(chain)
            if record is not None and record.base is not None:
                found.append(self.tree(record.base))
            found.append(self.tree(chain))
        return found[::-1]

    def get(self, chain: Digest) -> LayerRecord | None:
        """The layer, or None when it is not there or cannot be trusted after a crash."""
        found = self._claimed(chain, lambda: self.peek(chain))
        if found is not None and found.base is not None and self.get(found.base) is None:
            return None
        return found

    def _claimed(self, chain: Digest, act: Callable[[], T]) -> T:
        return self._leases.claim(f"layer-{chain.hex}", act) if self._leases else act()

    def whole(self, chain: Digest) -> bool:
        """As `get`, for who only looks: nothing is claimed."""
        found = self.peek(chain)
        return found is not None and (found.base is None or self.whole(found.base))

    def peek(self, chain: Digest) -> LayerRecord | None:
        """What the layer's record says, whatever it stands on; nothing is claimed."""
        path = f"{self.root}/{chain.hex}/layer.json"
        try:
            status = os.stat(path)
            stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
            known = self._known.get(chain)
            if known is not None and known[0] == stamp:
                return known[1]
            with open(path, "rb") as file:
                record = json.load(file)
        except (FileNotFoundError, ValueError):
            return None
        if not record.get("synced") and record.get("boot") != boot_id():
            return None
        base = Digest(record["base"]) if record.get("base") else None
        found = LayerRecord(chain, Digest(record["diff_id"]), record["size"], base)
        self._known[chain] = (stamp, found)
        return found

    def unpack(
        self,
        chain: Digest,
        diff_id: Digest,
        stream: Callable[[], BinaryIO],
        *,
        progress: Callable[[int], None] | None = None,
        cancel: CancelToken | None = None,
    ) -> LayerRecord:
        """Unpacks the decompressed tar that `stream` opens, unless it is there. One process does it, others wait."""
        found = self.get(chain)
        if found:
            return found
        with locked(self.tmp / f"layer-{chain.hex[:16]}.lock"):
            found = self.get(chain)
            if found:
                return found
            from engine.archive.reader import apply_layer  # most commands find all layers there

            work = self.tmp / f"layer-{secrets.token_hex(8)}"
            try:
                (work / "diff").mkdir(parents=True)
                with stream() as tar:
                    applied = apply_layer(tar, work / "diff", progress=progress, cancel=cancel)
                if applied.diff_id != diff_id:
                    raise Corrupt(
                        f"layer {diff_id.short}: its content hashes to {applied.diff_id.short}, not to the image's diff ID",
                        hint="pull again; if it stays, the image is damaged at its source",
                    )
                return self._publish(work, LayerRecord(chain, diff_id, applied.size), soon=False)
            except OSError as error:
                raise from_os_error(error, f"unpacking layer {diff_id.short}") from error
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def adopt(
        self, chain: Digest, diff_id: Digest, size: int, folder: Path, *, base: Digest | None = None
    ) -> LayerRecord:
        """Makes `folder` (on the same file system, with an overlay upper directory `diff` in it) the layer: a rename, no copy.

        It is left where it is when the layer is there already. `diff` is then what differs from the tree of `base`.
        """
        found = self.get(chain)
        if found:
            return found
        try:
            return self._publish(folder, LayerRecord(chain, diff_id, size, base), soon=True)
        except OSError as error:
            raise from_os_error(error, f"keeping layer {diff_id.short}") from error

    def _publish(self, work: Path, record: LayerRecord, *, soon: bool) -> LayerRecord:
        """`soon`: it is flushed when it is quiet; else whoever made it has asked for that (`settle`)."""
        os.chmod(work, 0o710)
        os.chmod(work / "diff", 0o755) if not (work / "diff").stat().st_mode & 0o777 else None
        fd = os.open(work / "layer.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as out:
            out.write(_document(record, synced=False))
        if self._unsynced is not None:
            self._unsynced.mark(f"layer-{record.chain.hex}", f"{work}/layer.json", soon=soon)
        final = self.root / record.chain.hex
        try:
            self._claimed(record.chain, lambda: os.rename(work, final))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            with locked(self.tmp / "layers.lock"):
                if self.get(record.chain) is None:  # untrusted after a crash, or damaged: out of the way first
                    os.rename(final, self.tmp / f"stale-{secrets.token_hex(8)}")
                    self._claimed(record.chain, lambda: os.rename(work, final))
        return record

    def _describe(self, folder: Path, record: LayerRecord, *, synced: bool) -> None:
        write_atomic(folder / "layer.json", _document(record, synced=synced), durable=synced)

    def settle(self, chains: list[Digest]) -> None:
        """`sync` in a process of its own that nobody waits for: its blobs are safe already, the trees follow."""
        pending = [str(self.root / chain.hex) for chain in chains if not self._synced(chain)]
        if not pending:
            return
        with contextlib.suppress(OSError):  # without it, a power cut costs unpacking once more
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _SETTLE, str(self.root), *pending],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            threading.Thread(target=process.wait, name="settle", daemon=True).start()

    def sync(self, chains: list[Digest]) -> None:
        """Flushes the file system and marks these layers as safe across a power cut."""
        pending = [record for chain in chains if not self._synced(chain) and (record := self.get(chain))]
        if not pending:
            return
        flush(self.root)
        self.note_synced([record.chain for record in pending])

    def note_synced(self, chains: Iterable[Digest]) -> None:
        """The file system was flushed after these layers were made."""
        for chain in chains:
            if not self._synced(chain) and (record := self.peek(chain)):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    self._describe(self.root / chain.hex, record, synced=True)

    def _synced(self, chain: Digest) -> bool:
        try:
            return bool(json.loads((self.root / chain.hex / "layer.json").read_bytes()).get("synced"))
        except (OSError, ValueError):
            return False

    def chains(self) -> list[Digest]:
        return [Digest(f"sha256:{name}") for name in sorted(os.listdir(self.root)) if len(name) == 64]

    def remove(self, chain: Digest) -> None:
        grave = self.tmp / f"stale-{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.root / chain.hex, grave)
            shutil.rmtree(grave, ignore_errors=True)

    def describe_damage(self, chain: Digest) -> str | None:
        """What is wrong with a layer's folder, None when nothing is."""
        try:
            record = json.loads((self.root / chain.hex / "layer.json").read_bytes())
            Digest.parse(record["diff_id"])
        except (OSError, ValueError, KeyError, EngineError) as error:
            return f"layer.json cannot be read: {error}"
        if not self.tree(chain).is_dir():
            return "its tree is missing"
        if record.get("base") and not self.tree(Digest(record["base"])).is_dir():
            return "the tree that it stands on is missing"
        return None
