"""fsutil's protocol: a folder becomes what the client has, whatever the client says."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import HostileArchive, InvalidInput
from engine.rest.buildkit.messages import Packet, Stat
from engine.rest.buildkit.receiving import DATA, ERROR, FINISHED, STAT, go_mode, receive, unix_mode
from engine.rest.buildkit.sending import send_folder

LINK, DIRECTORY = 1 << 27, 1 << 31


class Scripted:
    """A client that says what it is told to, and notes what is asked of it."""

    def __init__(self, *packets: Packet) -> None:
        self._packets = list(packets)
        self.asked: list[int] = []

    async def send_message(self, message: Packet, *, end: bool = False) -> None:
        self.asked.append(message.id if message.type != FINISHED else -1)

    async def __aiter__(self) -> AsyncIterator[Packet]:
        for packet in self._packets:
            yield packet


class Pipe:
    """Both ends of a call: what `send_folder` says is what `receive` hears, and back."""

    def __init__(self) -> None:
        self._up: asyncio.Queue[Packet | None] = asyncio.Queue()
        self._down: asyncio.Queue[Packet | None] = asyncio.Queue()

    def ends(self) -> tuple[Any, Any]:
        return _End(self._up, self._down), _End(self._down, self._up)


class _End:
    def __init__(self, into: asyncio.Queue[Packet | None], out: asyncio.Queue[Packet | None]) -> None:
        self._into, self._out = into, out

    async def send_message(self, message: Packet, *, end: bool = False) -> None:
        await self._into.put(message)

    async def end(self) -> None:
        await self._into.put(None)

    async def __aiter__(self) -> AsyncIterator[Packet]:
        while (packet := await self._out.get()) is not None:
            yield packet


async def sync(source: Path, target: Path) -> int:
    sender, receiver = Pipe().ends()
    _, came = await asyncio.gather(send_folder(sender, source), receive(receiver, target))
    return came


def tree(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        mode = 0 if path.is_symlink() else stat.S_IMODE(status.st_mode)
        found[str(path.relative_to(folder))] = (stat.S_IFMT(status.st_mode), mode, status.st_mtime_ns, what)
    return found


async def test_a_tree_arrives_as_it_is_and_then_what_changed_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "sub" / "deep").mkdir(parents=True)
    target.mkdir()
    (source / "file").write_bytes(b"x" * 300_000)
    (source / "sub" / "script").write_text("#!/bin/sh\n")
    (source / "sub" / "script").chmod(0o4755)
    (source / "sub" / "empty").touch()
    (source / "sub-").write_text("sorts between sub and sub/…")
    (source / os.fsdecode(b"\xff name")).write_text("no unicode")
    (source / "link").symlink_to("sub/nothing")
    os.link(source / "file", source / "sub" / "hard")
    assert await sync(source, target) > 300_000
    assert tree(target) == tree(source)
    assert (target / "file").stat().st_ino == (target / "sub" / "hard").stat().st_ino
    os.unlink(source / "sub" / "hard")
    await sync(source, target)  # a file with one name less counts as changed
    inode = (target / "file").stat().st_ino
    (source / "sub" / "script").write_text("#!/bin/bash\n")
    (source / "link").unlink()
    (source / "link").mkdir()
    (source / "sub" / "empty").unlink()
    assert await sync(source, target) == len("#!/bin/bash\n")
    assert tree(target) == tree(source)
    assert (target / "file").stat().st_ino == inode


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", ".", "a//b", "nowhere/x", "x\0y", "a/", "./a"])
async def test_names_that_lead_out_are_refused(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    with pytest.raises(HostileArchive):
        await receive(Scripted(Packet(STAT, Stat(path, 0o644))), folder)
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
    assert list(folder.iterdir()) == []


async def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    folder, outside = tmp_path / "f", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    packets = [Packet(STAT, Stat("a", 0o777 | LINK, linkname=str(outside))), Packet(STAT, Stat("a/x", 0o644))]
    with pytest.raises(HostileArchive):
        await receive(Scripted(*packets), folder)
    assert list(outside.iterdir()) == []


async def test_a_folder_that_became_a_link_since_is_not_followed(tmp_path: Path) -> None:
    """What a kept folder holds is not trusted either: another process of the host may have been there."""
    folder, outside = tmp_path / "f", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "d").symlink_to(outside)
    packets = [
        Packet(STAT, Stat("d", 0o755 | DIRECTORY)),
        Packet(STAT, Stat("d/x", 0o644, size=2)),
        Packet(STAT),
        Packet(DATA, id=1, data=b"hi"),
        Packet(DATA, id=1),
        Packet(FINISHED),
    ]
    client = Scripted(*packets)
    assert await receive(client, folder) == 2
    assert (folder / "d" / "x").read_text() == "hi"
    assert list(outside.iterdir()) == []
    assert client.asked == [1, -1]


@pytest.mark.parametrize(
    "packets",
    [
        [Packet(STAT, Stat("b", 0o644)), Packet(STAT, Stat("a", 0o644))],
        [Packet(STAT, Stat("a", 0o644)), Packet(STAT, Stat("a", 0o644))],
        [Packet(DATA, id=5, data=b"x")],
        [Packet(STAT, Stat("b", 0o644, linkname="a"))],
    ],
)
async def test_what_is_out_of_order_or_was_not_asked_for_is_refused(tmp_path: Path, packets: list[Packet]) -> None:
    with pytest.raises(HostileArchive):
        await receive(Scripted(*packets), tmp_path)


async def test_the_clients_own_error_and_its_leaving_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="permission denied"):
        await receive(Scripted(Packet(ERROR, data=b"open x: permission denied")), tmp_path)
    with pytest.raises(InvalidInput, match="broke off"):
        await receive(Scripted(Packet(STAT, Stat("a", 0o644))), tmp_path)


def test_modes_come_back() -> None:
    for mode in (0o100644, 0o104755, 0o102711, 0o041777, 0o120777):
        assert unix_mode(go_mode(mode)) == mode & 0o7777
