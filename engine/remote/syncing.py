"""Files brought into a container of another engine: one tar through `PUT /containers/X/archive`.

The API writes with the numbers that the tar has. Where nobody says whose a file is, it keeps the owner of the one before, which the
first header of `GET archive` tells; a new one gets that of its folder.
"""

from __future__ import annotations

import asyncio
import io
import os
import posixpath
import stat
import tarfile
import tempfile
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from engine.build.dockerfile.mode import parse_chmod
from engine.errors import InvalidInput, NotFound, Unsupported
from engine.model import ExecSpec, SyncEntry, SyncResult
from engine.remote import read

if TYPE_CHECKING:
    from engine.remote.containers import ContainersPart

_HEAD = 64 << 10  # bytes within which the first header of a tar must be
_SPOOL = 8 << 20  # bytes of a tar that are kept in memory


async def sync_archive(engine: ContainersPart, name: str, entries: Sequence[SyncEntry]) -> SyncResult:
    """Raises `NotFound`, `InvalidInput`, `Unsupported` (removing, where the container has no `rm`)."""
    detail = await engine.container(name)
    binds = [
        str(mount.get("Destination")).rstrip("/")
        for mount in read.rows(detail.config.get("Mounts"))
        if mount.get("Type") == "bind"
    ]
    owners = _Owners(engine, detail.summary.id)
    written, removed, skipped = [], [], []
    with tempfile.SpooledTemporaryFile(_SPOOL) as spool:
        with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for entry in sorted(entries, key=lambda entry: entry.target):
                target = posixpath.normpath("/" + entry.target.lstrip("/"))
                if entry.maybe_folder and await _is_folder(engine, detail.summary.id, target):
                    target = posixpath.join(target, entry.source.name)
                if any(target == bind or target.startswith(bind + "/") for bind in binds):
                    skipped.append(target)
                elif target == "/":
                    pass  # the root itself is there
                elif not os.path.lexists(entry.source):
                    removed.append(target)
                else:
                    owner = await owners.of(entry, target)
                    await asyncio.to_thread(_add, tar, entry, target, owner)
                    written.append(target)
        if removed:
            await _remove(engine, detail.summary.id, removed)
        if written:
            spool.seek(0)
            await engine.put_archive(detail.summary.id, "/", spool)  # type: ignore[arg-type]  # it reads as a file does
    return SyncResult(tuple(written), tuple(removed), tuple(skipped))


def _add(tar: tarfile.TarFile, entry: SyncEntry, target: str, owner: tuple[int, int]) -> None:
    try:
        info = tar.gettarinfo(str(entry.source), target.lstrip("/"))
    except FileNotFoundError:  # gone since it was looked at; the next change tells
        return
    info.uid, info.gid = owner
    info.uname = info.gname = ""
    info.type = tarfile.REGTYPE if info.type == tarfile.LNKTYPE else info.type
    if (chmod := parse_chmod(entry.mode)) is not None:
        info.mode = chmod.apply(stat.S_IMODE(info.mode), directory=info.isdir())
    if not info.isreg():
        tar.addfile(info)
        return
    fd = os.open(entry.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        info.size = os.fstat(fd).st_size
        tar.addfile(info, _Exactly(file, info.size))


class _Exactly(io.RawIOBase):
    """`size` bytes of a file that may be shrinking: what is missing is zeros, and the save behind it syncs again."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__()
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= wanted
        return data + b"\0" * (wanted - len(data))


async def _is_folder(engine: ContainersPart, name: str, path: str) -> bool:
    try:
        return stat.S_ISDIR((await engine.stat_path(name, path + "/")).mode)
    except (NotFound, InvalidInput):
        return False


async def _remove(engine: ContainersPart, name: str, paths: Sequence[str]) -> None:
    stream = await engine.exec(name, ExecSpec(("rm", "-rf", "--", *paths), user="0"))
    try:
        while await stream.read() is not None:
            pass
        if await stream.wait():
            raise Unsupported(
                f"{paths[0]} cannot be removed in the container: another engine does it with `rm`, which failed there"
            )
    finally:
        await stream.close()


class _Owners:
    """Whose a synced file is, in numbers."""

    def __init__(self, engine: ContainersPart, name: str) -> None:
        self._engine, self._name = engine, name
        self._folders: dict[str, tuple[int, int]] = {}
        self._tables: dict[str, dict[str, tuple[int, int]]] = {}

    async def of(self, entry: SyncEntry, target: str) -> tuple[int, int]:
        if entry.owner:
            user, colon, group = entry.owner.partition(":")
            uid, primary = await self._number("/etc/passwd", user)
            return uid, (await self._number("/etc/group", group))[0] if colon else primary
        try:
            return await self._head(target)
        except NotFound:
            folder = posixpath.dirname(target)
        if folder not in self._folders:
            try:
                self._folders[folder] = await self._head(folder)
            except NotFound:
                self._folders[folder] = (0, 0)
        return self._folders[folder]

    async def _head(self, path: str) -> tuple[int, int]:
        """Owner of what is at `path`: of the archive's first header; the rest is not fetched."""
        where = f"/containers/{self._name}/archive"
        async with self._engine._client.answer("GET", where, {"path": path}) as answer:
            data = bytearray()
            async for part in answer.aiter_raw():
                data += part
                if len(data) >= _HEAD:
                    break
        with tarfile.open(fileobj=io.BytesIO(bytes(data[:_HEAD])), mode="r|") as tar:
            info = tar.next()
        return (info.uid, info.gid) if info else (0, 0)

    async def _number(self, table: str, name: str) -> tuple[int, int]:
        """Id, and of a user the group that passwd(5) gives it; a bare number is a user of group 0 as in `COPY --chown`."""
        if name.isdigit():
            return int(name), int(name)
        if table not in self._tables:
            self._tables[table] = await self._read(table)
        if name not in self._tables[table]:
            raise InvalidInput(f"there is no {name!r} in the container's {table}")
        return self._tables[table][name]

    async def _read(self, table: str) -> dict[str, tuple[int, int]]:
        out = io.BytesIO()
        try:
            await self._engine.get_archive(self._name, table, out)
        except NotFound:
            return {}
        out.seek(0)
        found = {}
        with tarfile.open(fileobj=out) as tar:
            file = tar.extractfile(tar.getmembers()[0])
            for line in (file.read().decode("utf-8", "replace") if file else "").splitlines():
                words = line.split(":")
                if len(words) > 3 and words[2].isdigit():
                    found[words[0]] = (int(words[2]), int(words[3]) if words[3].isdigit() else 0)
        return found
