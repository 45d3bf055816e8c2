"""Containers, their streams and their files: the same on every engine."""

from __future__ import annotations

import asyncio
import io
import stat
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from engine.api import ContainerSpec, Engine, ExecSpec, PathStat, Resources, SyncEntry
from engine.errors import Conflict, EngineError, NotFound, StartFailed
from tests.patience import PATIENCE

from .conftest import IMAGE, Place, text_of

Sleeper = Callable[..., Awaitable[str]]
pytestmark = [pytest.mark.root, pytest.mark.peer("busybox")]


async def test_what_it_prints_and_its_exit_code(face: Engine) -> None:
    spec = ContainerSpec(IMAGE, command=("sh", "-c", "echo out; echo err >&2; exit 3"), env=("A=b",))
    identity = await face.create(spec)
    stream = await face.start_attached(identity)
    await stream.close_stdin()
    assert await text_of(stream) == {"stdout": "out\n", "stderr": "err\n"}
    assert await face.wait(identity) == 3
    found = await face.container(identity)
    assert (found.summary.status, found.summary.exit_code, found.summary.running) == ("exited", 3, False)
    assert found.summary.started >= found.summary.created > 0
    assert found.summary.finished > 0  # Docker's clock for it is containerd's: it may lie before its own start
    assert "A=b" in found.spec.env
    assert found.config["Id"] == identity


async def test_stdin_to_its_end(face: Engine) -> None:
    """What the program answers after the end of its input still arrives."""
    spec = ContainerSpec(
        IMAGE, command=("sh", "-c", "cat; echo end"), open_stdin=True, stdin_once=True, attach_stdin=True
    )
    identity = await face.create(spec)
    stream = await face.start_attached(identity)
    await stream.write(b"through\n")
    await stream.close_stdin()
    assert (await text_of(stream))["stdout"] == "through\nend\n"
    assert await face.wait(identity) == 0


async def test_stdin_that_several_feed_one_after_the_other(face: Engine) -> None:
    identity = await face.create(ContainerSpec(IMAGE, command=("cat",), open_stdin=True))
    await face.start(identity)
    for word in (b"one\n", b"two\n"):
        stream = await face.attach(identity)
        await stream.write(word)
        assert await stream.read() == ("stdout", word)
        await stream.close_stdin()
        await stream.close()
    assert (await face.container(identity)).summary.running
    await face.stop(identity, timeout=0)


async def test_a_container_that_removes_itself_has_an_exit_code(face: Engine) -> None:
    identity = await face.create(ContainerSpec(IMAGE, command=("sh", "-c", "exit 7"), auto_remove=True))
    stream = await face.start_attached(identity)
    await stream.close_stdin()
    while await stream.read():
        pass
    assert await stream.wait() == 7
    assert await face.wait(identity) == 7
    await stream.close()
    async with asyncio.timeout(PATIENCE):
        while identity in [one.id for one in await face.containers(all=True)]:
            await asyncio.sleep(0.05)


async def test_a_program_that_is_not_there(face: Engine) -> None:
    identity = await face.create(ContainerSpec(IMAGE, command=("nosuch",)))
    with pytest.raises(StartFailed, match="nosuch") as failure:
        await face.start(identity)
    assert failure.value.exit_code == 127


async def test_life(face: Engine, sleeper: Sleeper) -> None:
    identity = await sleeper(labels={"contract": "life"}, hostname="there")
    (row,) = [one for one in await face.containers() if one.id == identity]
    assert (row.name, row.status, row.image, dict(row.labels)["contract"]) == (
        "contract-sleeper",
        "running",
        IMAGE,
        "life",
    )
    assert row.image_id == (await face.image(IMAGE)).summary.id
    await face.pause(identity)
    assert (await face.container_summary(identity)).status == "paused"
    await face.unpause(identity)
    await face.rename(identity, "contract-renamed")
    assert (await face.container("contract-renamed")).summary.id == identity
    await face.restart(identity, timeout=0)
    assert (await face.container_summary(identity)).running
    await face.update(identity, Resources(cpu_shares=512))
    assert (await face.container(identity)).spec.cpu_shares == 512
    ending = asyncio.ensure_future(face.wait(identity))
    await asyncio.sleep(0)
    await face.kill(identity, "KILL")
    assert await ending == 137
    with pytest.raises(Conflict):
        await face.kill(identity)
    await face.start(identity)
    with pytest.raises(Conflict):
        await face.remove(identity)
    await face.stop(identity, timeout=0)
    await face.remove(identity)
    with pytest.raises(NotFound):
        await face.container(identity)
    assert identity not in [one.id for one in await face.containers(all=True)]


async def test_names_that_are_taken_and_images_that_are_not_there(face: Engine, sleeper: Sleeper) -> None:
    await sleeper()
    with pytest.raises(Conflict):
        await face.create(ContainerSpec(IMAGE, name="contract-sleeper"))
    with pytest.raises(NotFound):
        await face.create(ContainerSpec("contract/nosuch:1"))
    with pytest.raises(NotFound):
        await face.start("contract-nosuch")


async def test_exec(face: Engine, sleeper: Sleeper) -> None:
    identity = await sleeper()
    spec = ExecSpec(("sh", "-c", "echo $A; pwd; id -u; echo e >&2; exit 4"), ("A=1",), user="user", working_dir="/tmp")
    stream = await face.exec(identity, spec)
    # `close` in text_of lets go: the code is asked for first where it is known by then.
    said = {"stdout": b"", "stderr": b""}
    while chunk := await stream.read():
        said[chunk[0]] += chunk[1]
    assert said == {"stdout": b"1\n/tmp\n7\n", "stderr": b"e\n"}
    assert await stream.wait() == 4
    await stream.close()


async def test_exec_half_closes(face: Engine, sleeper: Sleeper) -> None:
    identity = await sleeper()
    stream = await face.exec(identity, ExecSpec(("sh", "-c", "wc -c; echo end"), stdin=True))
    await stream.write(b"x" * 300_000)
    await stream.close_stdin()
    assert (await text_of(stream))["stdout"].split() == ["300000", "end"]


async def test_exec_with_a_terminal(face: Engine, sleeper: Sleeper) -> None:
    identity = await sleeper()
    stream = await face.exec(identity, ExecSpec(("sh", "-c", "read a; stty size; tty"), tty=True, stdin=True))
    await stream.resize(33, 99)
    await stream.write(b"go\n")
    out = b""
    while chunk := await stream.read():
        assert chunk[0] == "stdout"
        out += chunk[1]
    await stream.close()
    assert b"33 99" in out
    assert b"/dev/pts/" in out


async def test_exec_that_cannot_be(face: Engine, sleeper: Sleeper, place: Place) -> None:
    identity = await sleeper()
    try:
        stream = await face.exec(identity, ExecSpec(("nosuch",)))
    except StartFailed as error:
        code = error.exit_code
    else:  # Docker tells of it in the stream, and in the code
        assert "nosuch" in (await text_of(stream))["stdout"]
        code = await stream.wait()
    assert code in (126, 127)
    await face.stop(identity, timeout=0)
    with pytest.raises(Conflict):
        await face.exec(identity, ExecSpec(("true",)))


async def test_attach_to_what_runs(face: Engine, sleeper: Sleeper) -> None:
    identity = await sleeper(script="while read line; do echo got $line; done", open_stdin=True)
    first, second = await face.attach(identity), await face.attach(identity, stdin=False)
    await first.write(b"one\n")
    for stream in (first, second):
        assert await stream.read() == ("stdout", b"got one\n")
    await first.close()
    await second.close()
    assert (await face.container_summary(identity)).running


async def test_logs(face: Engine) -> None:
    script = "echo a; sleep 0.1; echo b >&2; sleep 0.1; echo c; echo d"
    identity = await face.create(ContainerSpec(IMAGE, command=("sh", "-c", script)))
    await face.start(identity)
    following = [line async for line in face.logs(identity, follow=True)]
    assert [(line.stream, line.text) for line in following[:3]] == [("stdout", "a"), ("stderr", "b"), ("stdout", "c")]
    assert following[3].text == "d"
    assert [line.text async for line in face.logs(identity, tail=2)] == ["c", "d"]
    offsets = [line.offset for line in following]
    assert offsets == sorted(set(offsets))
    times = [line.time for line in following[:3]]
    assert times == sorted(times)
    assert (await anext(face.logs(identity, since=times[2]))).text == "c"
    records = [record async for batch in face.log_records(identity) for record in batch]
    assert [record.text for record in records] == ["a\n", "b\n", "c\n", "d\n"]
    assert records[0].stamp.endswith("Z")


async def test_long_lines(face: Engine) -> None:
    script = "head -c 50000 /dev/zero | tr '\\0' x; echo; echo end"
    identity = await face.create(ContainerSpec(IMAGE, command=("sh", "-c", script)))
    await face.start(identity)
    lines = [line.text async for line in face.logs(identity, follow=True)]
    assert [len(line) for line in lines] == [50000, 3]


async def test_a_log_with_a_terminal(face: Engine) -> None:
    identity = await face.create(ContainerSpec(IMAGE, command=("sh", "-c", "echo a; echo b >&2"), tty=True))
    await face.start(identity)
    assert [line.text.rstrip("\r") async for line in face.logs(identity, follow=True)] == ["a", "b"]


async def test_log_book(face: Engine) -> None:
    identity = await face.create(ContainerSpec(IMAGE, command=("sh", "-c", "echo a; echo b"), name="contract-book"))
    await face.start(identity)
    await face.wait(identity)
    book = await face.open_logs(["contract-book"])
    try:
        async with asyncio.timeout(PATIENCE):
            while (await book.advance()).end < 2:
                await book.changed()
        assert [row.text for row in await book.rows(0, 10)] == ["a", "b"]
    finally:
        await book.close()


async def test_stats_and_top(face: Engine, sleeper: Sleeper) -> None:
    identity = await sleeper(memory=64 << 20)
    reading = await face.stats(identity)
    assert (reading.id, reading.name) == (identity, "contract-sleeper")
    assert reading.memory.limit == 64 << 20
    assert reading.cpu.total > 0
    assert reading.time > 0
    found = await face.top(identity, ("-o", "pid,args"))
    assert found.titles[0] == "PID"
    assert any("sleep 1000" in row[-1] for row in found.processes)
    await face.stop(identity, timeout=0)
    with pytest.raises(Conflict):
        await face.stats(identity)


async def test_files_in_and_out(face: Engine, sleeper: Sleeper) -> None:
    identity = await sleeper()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("made/file")
        info.size, info.mode, info.uid = 5, 0o640, 7
        archive.addfile(info, io.BytesIO(b"hello"))
    tar.seek(0)
    await face.put_archive(identity, "/srv", tar)
    found = await face.stat_path(identity, "/srv/made/file")
    assert (found.name, found.size, stat.S_ISREG(found.mode), found.mode & 0o777) == ("file", 5, True, 0o640)
    assert stat.S_ISDIR((await face.stat_path(identity, "/srv")).mode)
    assert (await face.stat_path(identity, "/bin/sh")).link_target.endswith("busybox")
    out, begun = io.BytesIO(), list[PathStat]()
    await face.get_archive(identity, "/srv/made", out, started=begun.append)
    assert begun[0].name == "made"
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        member = archive.getmember("made/file")
        assert member.uid == 7
        file = archive.extractfile(member)
        assert file is not None
        assert file.read() == b"hello"
    with pytest.raises(NotFound):
        await face.stat_path(identity, "/nosuch")
    changes = {(change.kind, change.path) for change in await face.changes(identity)}
    assert {("A", "/srv/made"), ("A", "/srv/made/file"), ("C", "/srv")} <= changes
    whole = io.BytesIO()
    await face.export(identity, whole)
    whole.seek(0)
    with tarfile.open(fileobj=whole) as archive:
        assert "srv/made/file" in [name.removeprefix("./") for name in archive.getnames()]


async def test_sync(face: Engine, sleeper: Sleeper, tmp_path: Path) -> None:
    identity = await sleeper(script="mkdir /srv/a; echo old > /srv/a/gone; chown 7:8 /srv/a; echo ready; sleep 1000")
    await anext(face.logs(identity, follow=True))
    (tmp_path / "new").write_text("new")
    (tmp_path / "new").chmod(0o644)
    entries = [
        SyncEntry(tmp_path / "new", "/srv/a/new"),
        SyncEntry(tmp_path / "new", "/srv/a/owned", owner="user:crew", mode="600"),
        SyncEntry(tmp_path / "missing", "/srv/a/gone"),
    ]
    result = await face.sync(identity, entries)
    assert set(result.written) == {"/srv/a/new", "/srv/a/owned"}
    assert result.removed == ("/srv/a/gone",)
    stream = await face.exec(identity, ExecSpec(("stat", "-c", "%u:%g %a %n", "/srv/a/new", "/srv/a/owned")))
    assert (await text_of(stream))["stdout"].splitlines() == ["7:8 644 /srv/a/new", "7:8 600 /srv/a/owned"]
    with pytest.raises(NotFound):
        await face.stat_path(identity, "/srv/a/gone")


async def test_listening(face: Engine, sleeper: Sleeper) -> None:
    identity = await sleeper(script="nc -l -p 8123 & nc -l -p 8124")
    async with asyncio.timeout(PATIENCE):
        while not await face.listening(identity) >= {8123, 8124}:
            await asyncio.sleep(0.05)


async def test_a_wait_ends_with_its_task(face: Engine, sleeper: Sleeper) -> None:
    identity = await sleeper()
    waiting = asyncio.ensure_future(face.wait(identity))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await face.container_summary(identity)).running


async def test_mistakes_are_the_users(face: Engine) -> None:
    with pytest.raises(EngineError) as failure:
        await face.create(ContainerSpec(IMAGE, name="no/slashes"))
    assert failure.value.status == 400
