"""Results to the client: one file as a stream of bytes, or a folder in fsutil's protocol (`send.go`), as `--output` asks for."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.linux.openat2 import open_in_root
from engine.rest.buildkit.messages import BytesMessage, Packet, Stat
from engine.rest.buildkit.receiving import DATA, ERROR, FINISHED, REQUEST, STAT, go_mode

_CHUNK = 256 << 10


async def send_file(stream: Any, path: Path) -> None:
    with await asyncio.to_thread(open, path, "rb") as file:
        while data := await asyncio.to_thread(file.read, _CHUNK):
            await stream.send_message(BytesMessage(data))
    await stream.end()
    async for _ in stream:  # the client's end says that it has all of it
        pass


async def send_folder(stream: Any, folder: Path) -> None:
    """Lists the tree, then sends what the client asks for, until it has enough. Raises `EngineError` for the client's own error."""
    files: dict[int, str] = {}
    for number, entry in enumerate(_walk(folder, "")):
        if not entry.mode & ~0o777 & ~(1 << 23 | 1 << 22 | 1 << 20) and not entry.linkname:
            files[number] = entry.path
        await stream.send_message(Packet(STAT, entry))
    await stream.send_message(Packet(STAT))
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        async for packet in stream:
            if packet.type == ERROR:
                raise EngineError(f"the client cannot take the result: {packet.data.decode('utf-8', 'replace')[:500]}")
            if packet.type == FINISHED:
                await stream.send_message(Packet(FINISHED))
                await stream.end()
                return
            if packet.type == REQUEST and packet.id in files:
                await _send_one(stream, root, packet.id, files.pop(packet.id))
    finally:
        os.close(root)


async def _send_one(stream: Any, root: int, number: int, path: str) -> None:
    fd = open_in_root(root, path, os.O_RDONLY, no_symlinks=True)
    with await asyncio.to_thread(open, fd, "rb") as file:
        while data := await asyncio.to_thread(file.read, _CHUNK):
            await stream.send_message(Packet(DATA, id=number, data=data))
    await stream.send_message(Packet(DATA, id=number))


def _walk(folder: Path, prefix: str, seen: dict[tuple[int, int], str] | None = None) -> Iterator[Stat]:
    seen = {} if seen is None else seen
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in found:
        status = entry.stat(follow_symlinks=False)
        path = prefix + entry.name
        linkname = os.readlink(entry.path) if entry.is_symlink() else ""
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            linkname = seen.setdefault((status.st_dev, status.st_ino), path)
            linkname = "" if linkname == path else linkname
        if not stat.S_ISREG(status.st_mode) and not entry.is_symlink() and not entry.is_dir(follow_symlinks=False):
            continue  # pipes and devices: an unprivileged client cannot make them
        size = 0 if entry.is_dir(follow_symlinks=False) else status.st_size
        yield Stat(path, go_mode(status.st_mode), status.st_uid, status.st_gid, size, status.st_mtime_ns, linkname)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), path + "/", seen)
